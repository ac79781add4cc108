//! A small stand-in of a Cloudpods cluster: as much of its API as moving a machine away takes, in front of
//! machines that a test brings. It keeps the cluster's own rules where a move depends on them: a frozen machine
//! takes no action but `unfreeze`, and the monitor answers only while a machine runs.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::read_call;

/// The password that the stand-in takes.
pub const PASSWORD: &str = "a-password-of-the-cluster";

/// The QEMU of a machine.
#[async_trait]
pub trait Qemu: Send + Sync + 'static {
    /// Whether it is there.
    async fn is_on(&self) -> bool;
    /// Starts it.
    async fn start(&self);
    /// Ends it at once.
    async fn kill(&self);
    /// One command of its monitor.
    ///
    /// # Errors
    /// Its own words, as `Class: description`.
    async fn execute(&self, command: &Value) -> Result<Value, String>;
}

struct Guest {
    details: Value,
    qemu: Arc<dyn Qemu>,
}

/// What becomes of the next call of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is not done.
    Before,
    /// It is done, and its answer is lost.
    After,
}

#[derive(Default)]
struct State {
    guests: BTreeMap<String, Guest>,
    calls: Vec<String>,
    tokens: u32,
    broken: Vec<(String, Broken)>,
}

/// A running stand-in; it ends when it is dropped.
pub struct Cluster {
    url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Starts one without machines.
    ///
    /// # Errors
    /// When no port of the loopback is to be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own) = (Arc::clone(&state), url.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, own) = (Arc::clone(&shared), own.clone());
                tokio::spawn(async move {
                    // A broken connection is what some tests are for; the client tells of it.
                    let _ = serve(client, &own, &shared).await;
                });
            }
        });
        Ok(Self { url, state, task })
    }

    /// Where its identity service answers.
    pub fn endpoint(&self) -> String {
        format!("{}/v3", self.url)
    }

    /// The account's credential.
    pub fn credential() -> Value {
        json!({"user": "mover", "password": PASSWORD})
    }

    /// It has a machine: what it says of it besides its state, and its QEMU.
    pub fn put(&self, id: &str, mut details: Value, qemu: Arc<dyn Qemu>) {
        details["id"] = json!(id);
        self.lock().guests.insert(id.to_owned(), Guest { details, qemu });
    }

    /// A field of what it says of a machine.
    pub fn of(&self, id: &str, field: &str) -> Value {
        self.lock().guests.get(id).map_or(Value::Null, |guest| guest.details[field].clone())
    }

    /// It says something else of a machine from now on.
    pub fn set(&self, id: &str, field: &str, value: Value) {
        if let Some(guest) = self.lock().guests.get_mut(id) {
            guest.details[field] = value;
        }
    }

    /// The next call of an action is broken; one of the monitor is called by its command.
    pub fn break_next(&self, action: &str, how: Broken) {
        self.lock().broken.push((action.to_owned(), how));
    }

    /// Calls that are to be broken and were not made yet.
    pub fn unbroken(&self) -> usize {
        self.lock().broken.len()
    }

    /// Every action so far, in the order it came in.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Status, a token, and a body.
type Reply = (u16, Option<String>, Value);

async fn serve(mut client: TcpStream, own: &str, state: &Mutex<State>) -> io::Result<()> {
    let Some((head, body)) = read_call(&mut client).await? else { return Ok(()) };
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reply = answer(method, target, &head, &body, own, state).await;
    let Some((status, token, body)) = reply else { return Ok(()) };
    let token = token.map(|token| format!("X-Subject-Token: {token}\r\n")).unwrap_or_default();
    let body = body.to_string();
    let answer = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{token}\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

fn no(status: u16, details: &str) -> Reply {
    (status, None, json!({"code": status, "details": details}))
}

/// None is a connection that ends without an answer.
async fn answer(
    method: &str,
    target: &str,
    head: &str,
    body: &Value,
    own: &str,
    state: &Mutex<State>,
) -> Option<Reply> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    if parts == ["v3", "auth", "tokens"] {
        return Some(log_in(body, own, state));
    }
    let token = format!("t-{}", lock(state).tokens);
    if !head.to_ascii_lowercase().contains(&format!("x-auth-token: {token}")) {
        return Some(no(401, "the token is not one of mine"));
    }
    match (method, &parts[..]) {
        ("GET", ["servers"]) => {
            let number = |name: &str| {
                let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
            };
            let ids: Vec<String> = lock(state).guests.keys().cloned().collect();
            let (from, most) = (number("offset").unwrap_or(0), number("limit").unwrap_or(20));
            let mut servers = Vec::new();
            for id in ids.iter().skip(from).take(most) {
                servers.push(detail(id, state).await?);
            }
            Some((200, None, json!({"servers": servers, "total": ids.len()})))
        }
        ("GET", ["servers", id]) => match detail(id, state).await {
            Some(server) => Some((200, None, json!({"server": server}))),
            None => Some(no(404, "there is no such server")),
        },
        ("POST", ["servers", id, action]) => act(id, action, &body["server"], state).await,
        _ => Some(no(404, "there is no such path")),
    }
}

fn log_in(body: &Value, own: &str, state: &Mutex<State>) -> Reply {
    let user = &body["auth"]["identity"]["password"]["user"];
    if user["password"] != PASSWORD {
        return no(401, "user and password do not go together");
    }
    let mut state = lock(state);
    state.tokens += 1;
    let token = json!({
        "user": {"id": "u1", "name": user["name"]},
        "project": {"id": "p1", "name": body["auth"]["scope"]["project"]["name"]},
        "catalog": [{"type": "compute_v2", "endpoints": [
            {"interface": "public", "region_id": "region0", "url": own}]}],
    });
    (200, Some(format!("t-{}", state.tokens)), json!({"token": token}))
}

async fn detail(id: &str, state: &Mutex<State>) -> Option<Value> {
    let (mut details, qemu) = {
        let state = lock(state);
        let guest = state.guests.get(id)?;
        (guest.details.clone(), Arc::clone(&guest.qemu))
    };
    let on = qemu.is_on().await;
    details["status"] = json!(if on { "running" } else { "ready" });
    details["power_states"] = json!(if on { "on" } else { "off" });
    Some(details)
}

async fn act(id: &str, action: &str, input: &Value, state: &Mutex<State>) -> Option<Reply> {
    let command: Value = match action {
        "monitor" => {
            serde_json::from_str(input["command"].as_str().unwrap_or_default()).unwrap_or_default()
        }
        _ => Value::Null,
    };
    let called = command["execute"].as_str().unwrap_or(action).to_owned();
    let (broken, frozen, qemu) = {
        let mut state = lock(state);
        state.calls.push(called.clone());
        let broken = state.broken.iter().position(|(name, _)| *name == called);
        let broken = broken.map(|at| state.broken.remove(at).1);
        let Some(guest) = state.guests.get(id) else {
            return Some(no(404, "there is no such server"));
        };
        (broken, guest.details["freezed"] == true, Arc::clone(&guest.qemu))
    };
    if broken == Some(Broken::Before) {
        return Some(no(503, "broken by the test"));
    }
    let on = qemu.is_on().await;
    let set = |field: &str, value: Value| {
        if let Some(guest) = lock(state).guests.get_mut(id) {
            guest.details[field] = value;
        }
    };
    let mut said = json!({});
    match action {
        "unfreeze" if !frozen => return Some(no(400, "virtual resource not freezed")),
        "unfreeze" => set("freezed", json!(false)),
        _ if frozen => return Some(no(400, "Virtual resource freezed, can't do it")),
        "freeze" => {
            qemu.kill().await;
            set("freezed", json!(true));
        }
        "metadata" => {
            if let Some(guest) = lock(state).guests.get_mut(id) {
                for (name, value) in input.as_object().into_iter().flatten() {
                    guest.details["metadata"][name] = value.clone();
                }
            }
        }
        "start" if on => return Some(no(400, "Cannot do start in status running")),
        "start" => qemu.start().await,
        "stop" => qemu.kill().await,
        "monitor" if !on => return Some(no(400, "Cannot send command in status ready")),
        "monitor" => {
            let results = match qemu.execute(&command).await {
                Ok(value) => value.to_string().trim_matches('"').to_owned(),
                Err(words) => words,
            };
            said = json!({"results": results});
        }
        _ => return Some(no(404, "there is no such action")),
    }
    if broken == Some(Broken::After) {
        return None;
    }
    Some((200, None, json!({"server": said})))
}

/// A machine on paper: its monitor answers as QEMU does to what a move asks, and nothing runs.
#[derive(Debug, Default)]
pub struct Paper(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    off: bool,
    held: bool,
    deaf: bool,
    pauses: bool,
    drives: Vec<String>,
    /// Whether each job is ready, concluded, and with which error.
    jobs: BTreeMap<String, (&'static str, Option<String>)>,
    starts: u32,
    /// How far copies that do not get on are.
    stuck: Option<(u64, u64)>,
}

impl Paper {
    /// One that runs, with these drives.
    pub fn with(drives: &[&str]) -> Self {
        let drives = drives.iter().map(|drive| (*drive).to_owned()).collect();
        Self(Mutex::new(Written { drives, ..Written::default() }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its system does not hear that it is to stop.
    pub fn is_deaf(&self, deaf: bool) {
        self.lock().deaf = deaf;
    }

    /// Its copies fail from now on.
    pub fn fail_jobs(&self, why: &str) {
        for job in self.lock().jobs.values_mut() {
            *job = ("concluded", Some(why.to_owned()));
        }
    }

    /// Its copies get so far of so much and no further, or get on.
    pub fn is_stuck(&self, at: Option<(u64, u64)>) {
        self.lock().stuck = at;
    }

    /// Whether it runs: it is there, and nobody holds it.
    pub fn runs(&self) -> bool {
        let written = self.lock();
        !written.off && !written.held
    }

    /// Copies that it knows of.
    pub fn jobs(&self) -> usize {
        self.lock().jobs.len()
    }
}

#[async_trait]
impl Qemu for Paper {
    async fn is_on(&self) -> bool {
        !self.lock().off
    }

    async fn start(&self) {
        let mut written = self.lock();
        (written.off, written.held, written.pauses) = (false, false, false);
        written.starts += 1;
    }

    async fn kill(&self) {
        let mut written = self.lock();
        written.off = true;
        written.jobs.clear();
    }

    async fn execute(&self, command: &Value) -> Result<Value, String> {
        let mut written = self.lock();
        let arguments = &command["arguments"];
        let text = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
        Ok(match command["execute"].as_str().unwrap_or_default() {
            "query-block" => {
                let drives = written.drives.iter().map(|drive| {
                    json!({"device": drive, "inserted": {"image": {"virtual-size": 1 << 30}}})
                });
                json!(drives.collect::<Vec<_>>())
            }
            "drive-mirror" => {
                if written.jobs.insert(text("job-id"), ("running", None)).is_some() {
                    return Err("GenericError: there is such a job".to_owned());
                }
                json!({})
            }
            "query-jobs" => {
                let (done, total) = written.stuck.unwrap_or((1, 2));
                let jobs = written.jobs.iter().map(|(id, (status, error))| {
                    json!({"id": id, "type": "mirror", "status": status, "error": error,
                           "current-progress": done, "total-progress": total})
                });
                let all = json!(jobs.collect::<Vec<_>>());
                if written.stuck.is_some() {
                    return Ok(all);
                }
                for job in written.jobs.values_mut().filter(|job| job.0 == "running") {
                    job.0 = "ready";
                }
                all
            }
            "block-job-cancel" => {
                let forced = arguments["force"] == true;
                match written.jobs.get_mut(&text("device")) {
                    Some(job) if job.0 == "ready" && !forced => job.0 = "concluded",
                    Some(job) => *job = ("concluded", Some("Operation cancelled".to_owned())),
                    None => return Err("DeviceNotActive: there is no such job".to_owned()),
                }
                json!({})
            }
            "job-dismiss" => {
                written.jobs.remove(&text("id"));
                json!({})
            }
            "query-status" => {
                let status = match (written.held, written.pauses) {
                    (true, true) => "shutdown",
                    (true, false) => "paused",
                    _ => "running",
                };
                json!({"status": status, "running": !written.held})
            }
            "set-action" => {
                written.pauses = arguments["shutdown"] == "pause";
                json!({})
            }
            "system_powerdown" => {
                if !written.deaf {
                    let pauses = written.pauses;
                    (written.held, written.off) = (pauses, !pauses);
                }
                json!({})
            }
            "stop" => {
                written.held = true;
                json!({})
            }
            "cont" => {
                written.held = false;
                json!({})
            }
            "system_reset" => json!({}),
            other => return Err(format!("CommandNotFound: {other}")),
        })
    }
}
