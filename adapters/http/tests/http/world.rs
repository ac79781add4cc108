//! A ledger in memory behind the router, and how tests talk to it.

use std::sync::{Arc, Mutex};

use ::commands::{
    ledger::{Ledger, Ports},
    ports::{Answered, Append, AppendFault, Appended, AuditFilter, EventLog, Head, LogFault},
    submit::{Outcome, Submission},
    testing::{MemoryLeases, MemoryLog, NoBackups, NoBills, SequentialIds, TestClock, TestVault},
};
use adapters_http::{Options, Service, router};
use async_trait::async_trait;
use axum::{Router, body::Body};
use chrono::{DateTime, Utc};
use domain::{
    kernel::{Reach, Role, StreamId},
    kinds,
    log::{Hash, Position, Record},
};
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::{provider::Still, views::FoldedViews};

/// A log that fails when it is told to.
pub(crate) struct FaultyLog {
    inner: MemoryLog,
    pub(crate) fault: Mutex<Option<LogFault>>,
}

impl FaultyLog {
    fn check(&self) -> Result<(), LogFault> {
        self.fault.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl EventLog for FaultyLog {
    async fn append(&self, append: Append) -> Result<Appended, AppendFault> {
        self.check()?;
        self.inner.append(append).await
    }
    async fn request(&self, actor: &str, key: &str) -> Result<Option<Answered>, LogFault> {
        self.inner.request(actor, key).await
    }
    async fn stream(
        &self,
        stream: &StreamId,
        after_revision: u64,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        self.inner.stream(stream, after_revision, limit).await
    }
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Record>, LogFault> {
        self.inner.read(after, limit).await
    }
    async fn head(&self) -> Result<Head, LogFault> {
        self.check()?;
        self.inner.head().await
    }
    async fn appended(&self, after: Position) {
        self.inner.appended(after).await;
    }
    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, LogFault> {
        self.inner.position_at(time).await
    }
    async fn search(
        &self,
        filter: &AuditFilter,
        from: Position,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        self.inner.search(filter, from, newest_first, limit).await
    }
    async fn nodes(&self, level: u8, first: u64, count: u64) -> Result<Vec<Hash>, LogFault> {
        self.inner.nodes(level, first, count).await
    }
    async fn restore(&self, records: Vec<Record>) -> Result<(), LogFault> {
        self.inner.restore(records).await
    }
}

pub(crate) struct World {
    pub(crate) log: Arc<FaultyLog>,
    pub(crate) views: Arc<FoldedViews>,
    pub(crate) leases: Arc<MemoryLeases>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) service: Arc<Service>,
    pub(crate) router: Router,
    /// The secret of an admin of everything.
    pub(crate) admin: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let clock = Arc::new(TestClock::default());
        let inner = MemoryLog::new(clock.clone());
        let log = Arc::new(FaultyLog { inner, fault: Mutex::default() });
        let views = Arc::new(FoldedViews { log: log.clone(), stuck_at: Mutex::default() });
        let leases = Arc::new(MemoryLeases::new(clock.clone()));
        let ledger = Ledger::new(Ports {
            answers: Arc::new(NoBills),
            backups: Arc::new(NoBackups),
            bills: Arc::new(NoBills),
            log: log.clone(),
            views: views.clone(),
            hosts: Arc::new(commands::ports::NoHosts),
            leases: leases.clone(),
            vault: Arc::new(TestVault),
            clock: clock.clone(),
            ids: Arc::new(SequentialIds::default()),
            providers: vec![Arc::new(Still)],
        });
        let service = Service::new(ledger.clone(), options);
        let router = router(service.clone());
        let mut world =
            Self { log, views, leases, clock, ledger, service, router, admin: String::new() };
        world.admin = world.token("root", Role::Admin, Reach::All).await;
        world
    }

    /// A new token's secret.
    pub(crate) async fn token(&self, name: &str, role: Role, reach: Reach) -> String {
        let body = json!({"name": name, "role": role, "reach": reach});
        self.system("token", None, "issue", body).await.secret.unwrap()
    }

    /// A command by Skyledger itself.
    pub(crate) async fn system(
        &self,
        kind: &str,
        id: Option<Uuid>,
        verb: &str,
        body: Value,
    ) -> Outcome {
        let kind = kinds::by_name(kind).unwrap();
        let submission = Submission::new(Ledger::system("test"), kind, id, verb, body);
        self.ledger.submit(submission).await.unwrap()
    }

    pub(crate) async fn project(&self, name: &str) -> Uuid {
        self.system("project", None, "create", json!({"name": name})).await.id
    }

    /// An account that is ready.
    pub(crate) async fn account(&self, name: &str, project: Option<Uuid>) -> Uuid {
        let body = json!({
            "name": name, "provider": "still", "project": project,
            "credential": {"key": "hush-hush"},
        });
        let outcome = self.system("cloud-account", None, "connect", body).await;
        self.confirm(outcome.id, name).await;
        outcome.id
    }

    /// The provider says who an account is.
    pub(crate) async fn confirm(&self, account: Uuid, identity: &str) {
        let body = json!({"number": 1, "external_account": identity, "principal": "root"});
        self.system("cloud-account", Some(account), "confirm-identity", body).await;
    }

    pub(crate) async fn server(&self, name: &str, account: Uuid, project: Option<Uuid>) -> Uuid {
        let seen =
            json!({"name": name, "power": "running", "shape": "s1", "tags": {"env": "prod"}});
        self.observed("server", name, account, project, seen).await
    }

    pub(crate) async fn observed(
        &self,
        kind: &str,
        name: &str,
        account: Uuid,
        project: Option<Uuid>,
        seen: Value,
    ) -> Uuid {
        let origin = json!({
            "provider": "still", "account": account, "region": "north",
            "external_id": format!("{kind}-{name}"),
        });
        let body = json!({"origin": origin, "project": project, "seen": seen});
        self.system(kind, None, "observe", body).await.id
    }

    pub(crate) async fn send(&self, request: Ask<'_>) -> Reply {
        send_to(self.router.clone(), request).await
    }

    /// As the admin.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(get(path).token(&self.admin)).await
    }

    /// As the admin.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(post(path, body).token(&self.admin)).await
    }

    pub(crate) async fn position(&self) -> Position {
        self.log.head().await.unwrap().position
    }
}

pub(crate) async fn send_to(router: Router, request: Ask<'_>) -> Reply {
    let mut builder = Request::builder().method(request.method).uri(request.path);
    for (name, value) in &request.headers {
        builder = builder.header(*name, value.as_slice());
    }
    let response = router.oneshot(builder.body(Body::from(request.body)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Reply { status: parts.status, headers: parts.headers, text, json }
}

/// A request.
pub(crate) struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, Vec<u8>)>,
    body: Vec<u8>,
}

pub(crate) fn ask<'a>(method: &'a str, path: &'a str, body: impl Into<Vec<u8>>) -> Ask<'a> {
    Ask { method, path, headers: Vec::new(), body: body.into() }
}

pub(crate) fn get(path: &str) -> Ask<'_> {
    ask("GET", path, "")
}

pub(crate) fn post(path: &str, body: Value) -> Ask<'_> {
    ask("POST", path, body.to_string()).header("content-type", "application/json")
}

impl<'a> Ask<'a> {
    pub(crate) fn token(self, secret: &str) -> Self {
        self.header("authorization", format!("Bearer {secret}"))
    }

    pub(crate) fn header(mut self, name: &'a str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// A good answer's body.
    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json
    }

    /// A problem is complete, and is this one.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(
            (self.status.as_u16(), &self.json["code"]),
            (status, &json!(code)),
            "{}",
            self.text
        );
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json["type"], format!("/problems/{code}"));
        assert_eq!(self.json["status"], status);
        for member in ["title", "detail", "advice", "instance", "request_id"] {
            assert!(self.json[member].as_str().is_some_and(|text| !text.is_empty()), "{member}");
        }
        assert_eq!(self.json["request_id"], self.header("x-request-id"));
        self.json
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        let items = self.json["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| item["name"].as_str().unwrap_or("-")).collect()
    }
}
