//! A whole Skyledger in a folder of its own, with a cloud in memory and a clock that hurries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use adapters_lake::{AnswerFolder, Lake};
use adapters_sim::{Population, SimCloud, SimHosts};
use adapters_store_kit::views::Running;
use adapters_store_sqlite::{Options, SqliteLeases, SqliteViews, Store, start_views};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use commands::{
    ledger::{Ledger, Ports},
    observe::Look,
    ports::{Clock, EventLog, Provider, Query, Row, Views},
    run_orders::{LEASE_TERM, Probe, Runner},
    submit::{Outcome, Submission, SubmitFault},
    testing::{SequentialIds, TestVault},
};
use domain::{
    kernel::{Principal, Reach, Role},
    kinds,
    log::Record,
    tenancy::cloud_account::Scope,
};
use projections::views::{LENSES, VIEWS};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// The credential of the simulated account.
pub(crate) const SECRET: &str = "a-simulated-secret";

/// Real time, and what was slept: a long sleep takes some milliseconds and counts in full.
#[derive(Default)]
pub(crate) struct HurriedClock {
    ahead_micros: AtomicI64,
}

impl HurriedClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead_micros.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for HurriedClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::microseconds(self.ahead_micros.load(Ordering::SeqCst))
    }
    async fn sleep(&self, duration: Duration) {
        let real = duration.min(Duration::from_millis(20));
        tokio::time::sleep(real).await;
        self.advance(duration.saturating_sub(real));
    }
}

pub(crate) struct World {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) views: SqliteViews,
    pub(crate) sim: SimCloud,
    pub(crate) hosts: SimHosts,
    pub(crate) clock: Arc<HurriedClock>,
    pub(crate) account: Uuid,
    _running: Running,
    folder: TempDir,
}

impl World {
    /// Nothing but a cloud in memory with an account `acme`.
    pub(crate) fn empty(population: Population) -> Self {
        let world = Self::beside(Vec::new());
        world.sim.populate("acme", SECRET, population).unwrap();
        world
    }

    /// Nothing but these providers, beside a cloud in memory where nobody has an account.
    pub(crate) fn beside(providers: Vec<Arc<dyn Provider>>) -> Self {
        Self::with(providers, SimHosts::default())
    }

    /// Nothing but these hosts, and the stores of backups that they share with others.
    pub(crate) fn beside_hosts(hosts: SimHosts) -> Self {
        Self::with(Vec::new(), hosts)
    }

    fn with(mut providers: Vec<Arc<dyn Provider>>, hosts: SimHosts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(HurriedClock::default());
        let ticking = clock.clone();
        let options =
            Options { now: Arc::new(move || Clock::now(ticking.as_ref())), ..Options::default() };
        let store = Store::open(folder.path().join("log.sqlite"), options).unwrap();
        let log: Arc<dyn EventLog> = Arc::new(store.clone());
        let (views, running) =
            start_views(folder.path().join("views"), log.clone(), VIEWS, LENSES).unwrap();
        let sim = SimCloud::new(clock.clone());
        providers.push(Arc::new(sim.clone()));
        let lake = Lake::open(folder.path().join("segments")).unwrap();
        let answers = AnswerFolder::open(folder.path().join("reports")).unwrap();
        let ports = Ports {
            answers: Arc::new(answers),
            backups: Arc::new(hosts.clone()),
            bills: Arc::new(lake),
            log: log.clone(),
            views: Arc::new(views.clone()),
            hosts: Arc::new(hosts.clone()),
            leases: Arc::new(SqliteLeases::new(&store).unwrap()),
            vault: Arc::new(TestVault),
            clock: clock.clone(),
            ids: Arc::new(SequentialIds::default()),
            providers,
        };
        let ids = ports.ids.clone();
        Self {
            ledger: Ledger::new(ports),
            log,
            views,
            sim,
            hosts,
            clock,
            account: ids.new_id(),
            _running: running,
            folder,
        }
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// With the account connected, and everything in it seen once.
    pub(crate) async fn synced(population: Population) -> Self {
        let world = Self::empty(population);
        world.connect("acme", SECRET).await;
        world.sync(json!({})).await;
        world
    }

    pub(crate) async fn connect(&self, account: &str, secret: &str) {
        self.connect_to(json!({
            "name": account,
            "provider": "sim",
            "credential": {"account": account, "secret": secret},
        }))
        .await;
    }

    /// The same to an account of any provider, at any end-point.
    pub(crate) async fn connect_to(&self, body: Value) {
        self.send("cloud-account", self.account, "connect", body).await.unwrap();
        self.settle().await;
    }

    /// Orders a sync run, lets it finish, and gives its scopes.
    pub(crate) async fn sync(&self, body: Value) -> Vec<Value> {
        self.send("cloud-account", self.account, "sync", body).await.unwrap();
        self.settle().await;
        let records = self.history("cloud-account", self.account).await;
        let finished = records.iter().rev().find(|one| one.event_type() == "sync-finished");
        let data: Value = serde_json::from_slice(finished.unwrap().data()).unwrap();
        data["scopes"].as_array().unwrap().clone()
    }

    /// Looks at these kinds as a sync run does, but at once: also while orders are being worked on.
    pub(crate) async fn look(&self, kinds: &[&str]) -> Vec<Scope> {
        let account = self.ledger.account(self.account).await.unwrap().unwrap();
        let (provider, access) = self.ledger.access(self.account, &account, None).unwrap();
        let kinds: Vec<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
        let look = Look {
            account: &account,
            provider: &provider,
            access: &access,
            run: 0,
            regions: &[],
            kinds: &kinds,
            approve_deletions: false,
            correlation_id: self.account,
        };
        self.ledger.observe(&look).await
    }

    pub(crate) fn admin() -> Principal {
        Principal { name: "token:admin".into(), role: Role::Admin, reach: Reach::All }
    }

    pub(crate) fn submission(
        kind: &str,
        id: impl Into<Option<Uuid>>,
        verb: &str,
        body: Value,
    ) -> Submission {
        Submission::new(Self::admin(), kinds::by_name(kind).unwrap(), id, verb, body)
    }

    pub(crate) async fn send(
        &self,
        kind: &str,
        id: impl Into<Option<Uuid>>,
        verb: &str,
        body: Value,
    ) -> Result<Outcome, SubmitFault> {
        self.ledger.submit(Self::submission(kind, id, verb, body)).await
    }

    /// Lets a runner work until nothing is out that is not parked. Back-offs are slept by the
    /// hurried clock.
    pub(crate) async fn settle(&self) {
        self.settle_with(None).await;
    }

    /// The same with a runner that may die. Each death is that of the whole server: the next runner
    /// has a ledger of its own, which knows nothing but what the store holds.
    pub(crate) async fn settle_with(&self, probe: Option<Arc<dyn Probe>>) {
        self.settle_on(self.ledger.clone(), probe).await;
    }

    /// The same on another ledger than the world's own.
    pub(crate) async fn settle_on(&self, ledger: Arc<Ledger>, probe: Option<Arc<dyn Probe>>) {
        let mut ledger = ledger;
        for _ in 0..200 {
            self.caught_up().await;
            let pending = Query::all().with("order_state", "pending");
            if self.views.count("inventory", &pending, 1).await.unwrap() == 0 {
                return;
            }
            let mut runner = Runner::new(ledger.clone(), 8);
            if let Some(probe) = &probe {
                runner = runner.with_probe(probe.clone());
            }
            if runner.pass().await.unwrap() {
                ledger = Ledger::new(ledger.ports.clone());
                // The lease of the dead runner has to end first.
                self.clock.advance(LEASE_TERM);
            }
            self.clock.sleep(Duration::from_secs(1)).await;
        }
        panic!("orders are still out after 200 passes");
    }

    pub(crate) async fn caught_up(&self) {
        let head = self.log.head().await.unwrap().position;
        self.views.reach_position(head, Duration::from_secs(30)).await.unwrap();
    }

    pub(crate) async fn row(&self, id: Uuid) -> Value {
        self.caught_up().await;
        self.views.get("inventory", &id.to_string(), None).await.unwrap().unwrap().body
    }

    pub(crate) async fn rows(&self, kind: &str) -> Vec<Row> {
        self.caught_up().await;
        let mut query = Query::all().with("kind", kind);
        query.limit = Query::LIMIT_MAX;
        self.views.list("inventory", &query).await.unwrap().rows
    }

    /// The row of a kind with this external id.
    pub(crate) async fn external(&self, kind: &str, external_id: &str) -> Value {
        self.caught_up().await;
        let query = Query::all().with("kind", kind).with("external_id", external_id);
        let mut rows = self.views.list("inventory", &query).await.unwrap().rows;
        assert_eq!(rows.len(), 1, "{kind} {external_id}");
        rows.remove(0).body
    }

    pub(crate) async fn history(&self, kind: &str, id: Uuid) -> Vec<Record> {
        let stream = domain::kernel::StreamId::new(kind, id);
        self.log.stream(&stream, 0, 10_000).await.unwrap()
    }

    /// All records after a position that are about resources: everything but accounts' own.
    pub(crate) async fn resource_events_after(&self, position: u64) -> Vec<Record> {
        let mut records = self.log.read(position, 100_000).await.unwrap();
        records.retain(|record| record.kind() != "cloud-account");
        records
    }
}

/// A security group as a command says it.
pub(crate) fn group(name: &str, vpc: &str, ports: &[u16]) -> Value {
    let rules: Vec<Value> = ports
        .iter()
        .map(|port| {
            json!({
                "direction": "ingress",
                "protocol": "tcp",
                "ports": port.to_string(),
                "peer": {"cidr": "10.0.0.0/8"},
            })
        })
        .collect();
    json!({"name": name, "description": "made by a test", "vpc": vpc, "rules": rules})
}

pub(crate) fn id_of(row: &Value) -> Uuid {
    row["id"].as_str().unwrap().parse().unwrap()
}

/// A small estate: two regions.
pub(crate) fn small() -> Population {
    Population { seed: 7, regions: 2, resources: 60 }
}
