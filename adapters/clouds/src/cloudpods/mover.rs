//! Orders of a move: a machine of a cluster writes its disks elsewhere while it runs, is stopped when all of it is
//! there, and is as it was where that is wanted.
//!
//! The cluster hands commands through to the machine's QEMU (`monitor`), which copies its disks itself and goes on
//! copying what is written meanwhile. The copies are jobs of it that stay to be asked when they have ended, so
//! that nothing is taken for copied because it is not heard of any more.
//!
//! What was done is written on the machine as metadata: the move that has it, and that all of it was copied. Only
//! after that is it cut off; so a stop that was begun by somebody who died is gone on with, and a machine that
//! stopped by itself before is told from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use commands::{
    ports::{Call, DriverFault, Report, Task},
    progress,
};
use domain::compute::{
    move_in::{Landing, LandingDisk, Order},
    server::Power,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    machine::{MARK, power},
    server::{LOOK_AGAIN, reach},
    session::Session,
    wire::Server,
};

/// What its jobs are called by.
const JOB: &str = "skyledger-";
/// How long a system may take to stop.
const SHUT_DOWN_PATIENCE: Duration = Duration::from_mins(3);
/// How often it is asked again: one that still starts does not hear it.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How long the last of what was written may take to be there, once nothing is written any more.
const DRAIN_PATIENCE: Duration = Duration::from_mins(10);
/// Between two looks at what ends soon.
const LOOK_SOON: Duration = Duration::from_millis(100);

/// The calls of an order.
pub(super) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let one = |call: &str, effect: String| Call { call: call.to_owned(), effect };
    match task.order["type"].as_str() {
        Some("copy") => vec![one("servers/monitor", format!("copies the disks of {id}"))],
        Some("stop") => vec![
            one("servers/monitor", format!("stops {id} when all of it is copied")),
            one("servers/freeze", format!("keeps {id} from being started")),
        ],
        Some("release") => vec![one("servers/unfreeze", format!("lets {id} be as it was"))],
        _ => Vec::new(),
    }
}

/// Carries out one order.
pub(super) async fn carry_out(session: &Session<'_>, task: &Task) -> Result<Report, DriverFault> {
    let order: Order = serde_json::from_value(task.order.clone())
        .map_err(|error| DriverFault::Unexpected(format!("the order does not read: {error}")))?;
    let id = task.origin.external_id.as_str();
    let work = Work { session, id, mark: &task.key.stream.id };
    let verb = match order {
        Order::Copy { landing } => {
            work.copy(&landing).await?;
            "confirm-copied"
        }
        Order::Stop { shut_down, disks, .. } => {
            work.stop(shut_down, &disks.into_iter().collect()).await?;
            "confirm-stopped"
        }
        Order::Release { start } => {
            work.release(start).await?;
            "confirm-released"
        }
        Order::Close {} | Order::Prepare {} => {
            return Err(DriverFault::Unexpected("an order of the host that it goes to".into()));
        }
    };
    Ok(Report { verb, body: json!({"number": task.key.number}) })
}

/// A machine, and the move that has it.
struct Work<'a> {
    session: &'a Session<'a>,
    id: &'a str,
    mark: &'a str,
}

/// A copy of a disk, as QEMU says.
struct Job {
    status: String,
    error: Option<String>,
    /// Bytes that are through, and all of them as far as it knows by now.
    progress: (u64, u64),
}

/// Tells how far copies are, all together.
fn tell<'a>(jobs: impl Iterator<Item = &'a Job>) {
    let add = |sum: (u64, u64), job: &Job| {
        (sum.0.saturating_add(job.progress.0), sum.1.saturating_add(job.progress.1))
    };
    let (done, total) = jobs.fold((0, 0), add);
    progress::at(done, total);
}

/// What is written on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    Ours,
    Complete,
    Other,
}

fn no(why: impl Into<String>) -> DriverFault {
    DriverFault::Rejected(why.into())
}

impl Work<'_> {
    fn marked(&self, server: &Server) -> Mark {
        match server.metadata.get(MARK).map(String::as_str) {
            None | Some("") => Mark::None,
            Some(mark) if mark == self.mark => Mark::Ours,
            Some(mark) if mark == self.complete() => Mark::Complete,
            Some(_) => Mark::Other,
        }
    }

    fn complete(&self) -> String {
        format!("{} complete", self.mark)
    }

    async fn write(&self, mark: &str) -> Result<(), DriverFault> {
        self.session.act(self.id, "metadata", &json!({MARK: mark})).await.map(drop)
    }

    /// One command of its QEMU.
    async fn qemu(&self, execute: &str, arguments: Value) -> Result<Value, DriverFault> {
        let command = json!({"execute": execute, "arguments": arguments}).to_string();
        let input = json!({"command": command, "qmp": true});
        let answer = self.session.act(self.id, "monitor", &input).await?;
        let said = answer["results"].as_str().unwrap_or_default();
        // It answers with JSON, or with the words of an error.
        serde_json::from_str(said).map_err(|_| no(format!("{execute}: {said}")))
    }

    /// Its copies that are ours, by name.
    async fn jobs(&self) -> Result<BTreeMap<String, Job>, DriverFault> {
        let all = self.qemu("query-jobs", json!({})).await?;
        let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |job: &Value, name: &str| job[name].as_str().map(str::to_owned);
        let of = |job: &Value| {
            let id = text(job, "id").filter(|id| id.starts_with(JOB))?;
            let number = |name: &str| job[name].as_u64().unwrap_or_default();
            let progress = (number("current-progress"), number("total-progress"));
            Some((id, Job { status: text(job, "status")?, error: text(job, "error"), progress }))
        };
        Ok(all.iter().filter_map(of).collect())
    }

    /// Ends a copy, whatever it has.
    async fn end(&self, job: &str) -> Result<(), DriverFault> {
        let ends = Instant::now() + DRAIN_PATIENCE;
        let mut asked = false;
        loop {
            match self.jobs().await?.get(job).map(|job| job.status.clone()) {
                None => return Ok(()),
                Some(status) if status == "concluded" => {
                    self.qemu("job-dismiss", json!({"id": job})).await?;
                    return Ok(());
                }
                Some(_) if !asked => {
                    let cancel = json!({"device": job, "force": true});
                    self.qemu("block-job-cancel", cancel).await?;
                    asked = true;
                }
                Some(status) if Instant::now() >= ends => {
                    return Err(DriverFault::Transient(format!("{job} is still {status}")));
                }
                Some(_) => sleep(LOOK_SOON).await,
            }
        }
    }

    async fn status(&self) -> Result<String, DriverFault> {
        let answer = self.qemu("query-status", json!({})).await?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    /// All of it is there, and what it writes comes as well.
    async fn copy(&self, landing: &Landing) -> Result<(), DriverFault> {
        let server = self.session.known(self.id).await?;
        match self.marked(&server) {
            Mark::Ours => {}
            Mark::None => self.write(self.mark).await?,
            Mark::Complete => return Err(no("it was stopped for this move already")),
            Mark::Other => return Err(no("another move has it")),
        }
        if power(&server) != Power::Running {
            let status = &server.status;
            return Err(no(format!("it is {status} there: start it, or go back")));
        }
        let wanted: BTreeMap<String, &LandingDisk> = landing
            .disks
            .iter()
            .map(|disk| (format!("{JOB}{}-{}", disk.index, landing.port), disk))
            .collect();
        let known = self.jobs().await?;
        for (name, job) in &known {
            // What has ended, and what writes where nobody listens any more.
            if !wanted.contains_key(name) || job.status == "concluded" {
                self.end(name).await?;
            }
        }
        for (job, LandingDisk { index, name }) in &wanted {
            if known.get(job).is_some_and(|job| job.status != "concluded") {
                continue;
            }
            let address = match landing.address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            let mirror = json!({
                "job-id": job, "device": format!("drive_{index}"),
                "target": format!("nbd://{address}:{}/{name}", landing.port),
                "format": "raw", "mode": "existing", "sync": "full", "auto-dismiss": false,
            });
            self.qemu("drive-mirror", mirror).await?;
        }
        loop {
            let jobs = self.jobs().await?;
            tell(wanted.keys().filter_map(|name| jobs.get(name)));
            let mut ready = true;
            for job in wanted.keys() {
                match jobs.get(job) {
                    Some(job) if job.status == "ready" => {}
                    Some(Job { status, error, .. }) if status == "concluded" => {
                        let why = error.as_deref().unwrap_or("it has ended");
                        return Err(no(format!("{job}: {why}")));
                    }
                    Some(_) => ready = false,
                    None => return Err(no(format!("{job} is gone: it was restarted there"))),
                }
            }
            if ready {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// It is off, all of it is there, and nobody starts it.
    async fn stop(&self, shut_down: bool, disks: &BTreeSet<u32>) -> Result<(), DriverFault> {
        let server = self.session.known(self.id).await?;
        match self.marked(&server) {
            Mark::Complete => {}
            Mark::Ours if power(&server) == Power::Stopped => {
                let why = "it stopped there before all of it was copied: go back";
                return Err(no(why));
            }
            Mark::Ours => {
                self.hold(shut_down, disks).await?;
                self.drain(disks).await?;
                self.write(&self.complete()).await?;
            }
            Mark::None | Mark::Other => return Err(no("this move does not have it there")),
        }
        if !server.freezed {
            reach(self.session, self.id, Power::Stopped, "stop", &json!({"is_force": true}))
                .await?;
            self.session.act(self.id, "freeze", &json!({})).await?;
        }
        Ok(())
    }

    /// The copies of these disks, each with its number.
    async fn copies(&self, disks: &BTreeSet<u32>) -> Result<BTreeMap<String, Job>, DriverFault> {
        let jobs = self.jobs().await?;
        let of = |name: &str| name.strip_prefix(JOB)?.split_once('-')?.0.parse().ok();
        let has: BTreeSet<u32> = jobs.keys().filter_map(|name| of(name)).collect();
        if has == *disks {
            return Ok(jobs);
        }
        Err(no("not all of its disks are being copied any more: copy again, or go back"))
    }

    /// It writes nothing any more.
    async fn hold(&self, shut_down: bool, disks: &BTreeSet<u32>) -> Result<(), DriverFault> {
        let status = self.status().await?;
        if matches!(status.as_str(), "paused" | "shutdown") {
            return Ok(());
        }
        if self.copies(disks).await?.values().any(|job| job.status != "ready") {
            return Err(no("not all of it is here: copy again, or go back"));
        }
        if !shut_down {
            return self.qemu("stop", json!({})).await.map(drop);
        }
        // A system that has stopped leaves QEMU there, which still has the last of it to send.
        self.qemu("set-action", json!({"shutdown": "pause"})).await?;
        let ends = Instant::now() + SHUT_DOWN_PATIENCE;
        let mut ask_at = Instant::now();
        while self.status().await? != "shutdown" {
            let now = Instant::now();
            if now >= ends {
                self.qemu("set-action", json!({"shutdown": "poweroff"})).await?;
                let why = "its system does not stop: stop what keeps it, or go back and cut it off";
                return Err(no(why));
            }
            if now >= ask_at {
                self.qemu("system_powerdown", json!({})).await?;
                ask_at = now + ASK_AGAIN;
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The last of it is there: each copy has ended well.
    async fn drain(&self, disks: &BTreeSet<u32>) -> Result<(), DriverFault> {
        let ends = Instant::now() + DRAIN_PATIENCE;
        let mut asked = BTreeSet::new();
        loop {
            let copies = self.copies(disks).await?;
            tell(copies.values());
            let mut ended = true;
            for (name, job) in &copies {
                match (job.status.as_str(), &job.error) {
                    ("concluded", None) => {}
                    ("concluded", Some(why)) => return Err(no(format!("{name}: {why}: go back"))),
                    ("ready", _) if asked.insert(name.clone()) => {
                        // One that is ready ends when it has all, and with that.
                        let cancel = json!({"device": name, "force": false});
                        self.qemu("block-job-cancel", cancel).await?;
                        ended = false;
                    }
                    _ => ended = false,
                }
            }
            if ended {
                return Ok(());
            }
            if Instant::now() >= ends {
                return Err(DriverFault::Transient("the last of it does not come".to_owned()));
            }
            sleep(LOOK_SOON).await;
        }
    }

    /// It is as it was.
    async fn release(&self, start: bool) -> Result<(), DriverFault> {
        let server = self.session.known(self.id).await?;
        let mark = self.marked(&server);
        if mark == Mark::Other {
            return Ok(());
        }
        if server.freezed && mark != Mark::None {
            self.session.act(self.id, "unfreeze", &json!({})).await?;
        }
        if mark != Mark::None && power(&server) == Power::Running {
            for job in self.jobs().await?.keys() {
                self.end(job).await?;
            }
            self.qemu("set-action", json!({"shutdown": "poweroff"})).await?;
            match self.status().await?.as_str() {
                "paused" => drop(self.qemu("cont", json!({})).await?),
                // Its system has ended; it begins anew.
                "shutdown" => {
                    let force = json!({"is_force": true});
                    reach(self.session, self.id, Power::Stopped, "stop", &force).await?;
                    reach(self.session, self.id, Power::Running, "start", &json!({})).await?;
                }
                _ => {}
            }
        }
        if start {
            reach(self.session, self.id, Power::Running, "start", &json!({})).await?;
        }
        if mark == Mark::None { Ok(()) } else { self.write("").await }
    }
}
