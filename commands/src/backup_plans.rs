//! Backup plans: what is due is ordered, and a run makes the backups of its disks, or sets of whole servers, waits
//! for them, and deletes those that no rule keeps.
//!
//! It sends the commands that a person could send. A backup's id follows from its plan, its disk or server, and the
//! number of the run, so that a run that was broken off anywhere orders nothing twice; what there is
//! already is found under that id. A backup that the plan has begun in an earlier run and that is parked is
//! given up by the next, for it would keep its disk from ever being backed up again.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    compute::{
        backup::{self, Backup},
        backup_plan::{BackupPlan, DELETED_MAX, Order, Ran, SUBJECTS_MAX, Terms},
        backup_set::{self, BackupSet},
        disk::Disk,
        server::Server,
    },
    kernel::{Decider, Outstanding, Refusal, codes},
    kinds,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    observe::chain,
    ports::{DriverFault, Query, Report, Row, ViewFault},
    submit::{Submission, SubmitFault},
};

/// How long the views may take to show the backups that there are.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a run waits for a disk that something else works on: another backup takes so long.
const BUSY: TimeDelta = TimeDelta::minutes(30);
/// Longest reason why there is no backup of a disk, in bytes: a run may have a hundred of them.
const PROBLEM_BYTES_MAX: usize = 500;
/// The namespace of the ids of backups that plans make.
const SPACE: Uuid = Uuid::from_u128(0x8c1d_52f0_93ab_4c37_9e64_1f0d_7ab2_c5e9);

/// The backup that a run of a plan makes of a disk, or the set of a server: the same each time it is asked.
pub fn backup_id(plan: Uuid, run: u64, subject: Uuid) -> Uuid {
    Uuid::new_v5(&SPACE, format!("{plan} {run} {subject}").as_bytes())
}

/// A backup that a plan has of a disk, or a set of a server.
struct Known {
    id: Uuid,
    taken_at: DateTime<Utc>,
    store: Uuid,
    /// Whether all of it is there.
    is_whole: bool,
    /// Whether its making is parked.
    has_failed: bool,
    /// Whether its removal is parked.
    is_stuck: bool,
}

/// What a plan makes.
trait Made: Decider {
    /// What the plan of this id has of it; none when another has made it.
    fn known(&self, id: Uuid, plan: Uuid) -> Option<Known>;
}

impl Made for Backup {
    fn known(&self, id: Uuid, plan: Uuid) -> Option<Known> {
        let out = self.order();
        let failed = matches!(state_of(self), State::Failed(_)) && out.is_some();
        let removal = |out: Outstanding<backup::Order>| {
            out.parked.is_some() && out.order == backup::Order::Remove {}
        };
        (self.plan == Some(plan)).then(|| Known {
            id,
            taken_at: self.taken_at,
            store: self.store,
            is_whole: self.ensure_whole().is_ok(),
            has_failed: failed,
            is_stuck: out.is_some_and(removal),
        })
    }
}

impl Made for BackupSet {
    fn known(&self, id: Uuid, plan: Uuid) -> Option<Known> {
        let out = self.order();
        let removal = |out: &Outstanding<backup_set::Order>| {
            let removes = [backup_set::Order::Forget {}, backup_set::Order::Remove {}];
            out.parked.is_some() && removes.contains(&out.order)
        };
        let is_stuck = out.as_ref().is_some_and(removal);
        (self.plan == Some(plan)).then(|| Known {
            id,
            taken_at: self.taken_at,
            store: self.store,
            is_whole: self.ensure_whole().is_ok(),
            has_failed: !is_stuck && out.is_some_and(|out| out.parked.is_some()),
            is_stuck,
        })
    }
}

/// What became of a backup.
enum State {
    /// It is being made.
    Going,
    /// It is there.
    Whole,
    /// There is none, and why.
    Failed(String),
}

fn state_of(backup: &Backup) -> State {
    if backup.made.is_some() {
        return State::Whole;
    }
    match backup.order() {
        Some(Outstanding { parked: Some(why), .. }) => State::Failed(format!("parked: {why}")),
        Some(_) => State::Going,
        None => State::Failed("it was given up".to_owned()),
    }
}

fn state_of_set(set: &BackupSet) -> State {
    match set.order() {
        Some(Outstanding { parked: Some(why), .. }) => State::Failed(format!("parked: {why}")),
        Some(_) => State::Going,
        None if set.ensure_whole().is_ok() => State::Whole,
        None => State::Failed("it was given up".to_owned()),
    }
}

fn transient(fault: &dyn std::error::Error) -> DriverFault {
    DriverFault::Transient(chain(fault))
}

impl Ledger {
    /// Orders a run of every plan that is due; gives how many.
    ///
    /// # Errors
    /// When the plans cannot be listed. One that cannot be ordered is left for the next time.
    pub async fn order_due_backups(&self) -> Result<usize, ViewFault> {
        let Some(kind) = kinds::by_name(BackupPlan::KIND) else { return Ok(0) };
        let query = Query::all().with("kind", BackupPlan::KIND).with("gone", false);
        let (rows, _) = self.rows(query).await?;
        let (now, mut ordered) = (self.now(), 0);
        for row in &rows {
            let plan = serde_json::from_value::<BackupPlan>(row.body["state"].clone());
            let due = plan.is_ok_and(|plan| plan.due(now).is_some());
            let Some(id) = row.key.parse::<Uuid>().ok().filter(|_| due) else { continue };
            let who = Self::system("schedule");
            match self.submit(Submission::new(who, kind, id, "run-due", json!({}))).await {
                // Another process was first when it says nothing.
                Ok(outcome) => ordered += usize::from(!outcome.events.is_empty()),
                Err(fault) => tracing::warn!(plan = %id, %fault, "backups could not be ordered"),
            }
        }
        Ok(ordered)
    }

    /// A run of a plan; none while its backups are being made.
    pub(crate) async fn work_plan(
        &self,
        id: &str,
        out: &Outstanding<Value>,
    ) -> Result<Option<Report>, DriverFault> {
        let unread = |fault: serde_json::Error| DriverFault::Unexpected(chain(&fault));
        let Order::Run { due, at } = serde_json::from_value(out.order.clone()).map_err(unread)?;
        let (_, plan) = self.typed::<BackupPlan>(id).await.map_err(|fault| transient(&fault))?;
        let terms = plan.terms.as_ref();
        let terms = terms.ok_or_else(|| DriverFault::Unexpected("it has no terms".to_owned()))?;
        let id = id.parse().unwrap_or_default();
        let late = self.now() - at > BUSY;
        let run = Run { ledger: self, id, number: out.number, plan: &plan, terms, due, late };
        let (mut results, mut going) = (Vec::new(), false);
        for disk in run.disks(&mut results).await? {
            match run.back_up(disk).await? {
                Some(ran) => results.push(ran),
                None => going = true,
            }
        }
        for server in run.whole_servers() {
            match run.take_set(server).await? {
                Some(ran) => results.push(ran),
                None => going = true,
            }
        }
        if going {
            return Ok(None);
        }
        for ran in results.iter_mut().filter(|ran| ran.problem.is_none()) {
            if ran.set.is_some() {
                run.clear::<BackupSet>(ran).await?;
            } else {
                run.clear::<Backup>(ran).await?;
            }
        }
        let body = json!({"number": out.number, "results": results});
        Ok(Some(Report { verb: "finish-run", body }))
    }
}

/// A run of a plan.
struct Run<'a> {
    ledger: &'a Ledger,
    /// The plan.
    id: Uuid,
    number: u64,
    plan: &'a BackupPlan,
    terms: &'a Terms,
    due: DateTime<Utc>,
    /// Whether it does not wait any more for disks that something else works on.
    late: bool,
}

impl Run<'_> {
    fn is_of(&self, owner: Option<Uuid>) -> bool {
        self.plan.project.is_none() || self.plan.project == owner
    }

    /// The disks that it is about now, and what is said of servers that have none.
    async fn disks(&self, results: &mut Vec<Ran>) -> Result<BTreeSet<Uuid>, DriverFault> {
        let mut disks = self.terms.disks.clone();
        let by_disk = self.terms.servers.iter().filter(|_| !self.terms.whole_servers);
        for id in by_disk {
            let server = self.ledger.typed::<Server>(&id.to_string()).await;
            let (_, server) = server.map_err(|fault: LoadFault| transient(&fault))?;
            let home = server.home.as_ref().filter(|home| !home.removed);
            let problem = match home {
                None => "the server is gone".to_owned(),
                Some(_) if !self.is_of(server.observation.project) => other_project("server"),
                Some(home) if disks.len() + home.parts.disks.len() > SUBJECTS_MAX => {
                    format!("a plan backs up {SUBJECTS_MAX} disks at most")
                }
                Some(home) => {
                    disks.extend(home.parts.disks.iter().map(|disk| disk.id));
                    continue;
                }
            };
            results.push(failed(*id, None, problem));
        }
        Ok(disks)
    }

    /// Makes the backup of a disk, or looks what became of it; none while it is being made.
    async fn back_up(&self, disk: Uuid) -> Result<Option<Ran>, DriverFault> {
        let id = backup_id(self.id, self.number, disk);
        let found = self.ledger.typed::<Disk>(&disk.to_string()).await;
        let (_, found) = found.map_err(|fault: LoadFault| transient(&fault))?;
        if let Some(there) = self.find(disk, id, &found).await? {
            return Ok(there);
        }
        if !self.is_of(found.observation.project) {
            return Ok(Some(failed(disk, None, other_project("disk"))));
        }
        let known = self.known::<Backup>(disk).await?;
        self.give_up::<Backup>(&known).await?;
        let newest = known.iter().find(|one| one.is_whole && one.store == self.terms.store);
        let parent = newest.filter(|_| !self.plan.wants_full(disk)).map(|one| one.id);
        let body = json!({
            "name": name(&self.plan.name, self.due), "disk": disk, "store": self.terms.store,
            "plan": self.id, "parent": parent,
        });
        let no = self.create::<Backup>(id, body).await?;
        Ok(no.map(|why| failed(disk, None, why)))
    }

    /// Orders it; why that is not to be. Nothing when it is ordered, or is to be tried again.
    async fn create<T: Made>(&self, id: Uuid, body: Value) -> Result<Option<String>, DriverFault> {
        let waits = [&codes::IN_USE, &codes::ORDER_OUTSTANDING];
        Ok(match self.send::<T>(id, "create", body).await? {
            Ok(()) => None,
            // Another process was first.
            Err(no) if *no.code == codes::ALREADY_EXISTS => None,
            Err(no) if waits.contains(&no.code) && !self.late => None,
            Err(no) => Some(no.detail),
        })
    }

    /// Those that are parked are given up: they would keep their disks from ever being backed up again.
    async fn give_up<T: Made>(&self, known: &[Known]) -> Result<(), DriverFault> {
        for one in known.iter().filter(|one| one.has_failed) {
            // Whoever was first has decided.
            let _ = self.send::<T>(one.id, "abandon", json!({})).await?;
        }
        Ok(())
    }

    /// The servers of which it makes sets.
    fn whole_servers(&self) -> impl Iterator<Item = Uuid> {
        self.terms.servers.iter().copied().filter(|_| self.terms.whole_servers)
    }

    /// Makes the set of a server, or looks what became of it; none while it is being made.
    async fn take_set(&self, server: Uuid) -> Result<Option<Ran>, DriverFault> {
        let id = backup_id(self.id, self.number, server);
        let found = self.ledger.typed::<Server>(&server.to_string()).await;
        let (_, found) = found.map_err(|fault: LoadFault| transient(&fault))?;
        let home = found.home.as_ref().filter(|home| !home.removed);
        let there = self.ledger.typed::<BackupSet>(&id.to_string()).await;
        let (revision, set) = there.map_err(|fault: LoadFault| transient(&fault))?;
        if revision > 0 {
            // Its host is dead, and the server was had back from there: nobody goes on with it.
            let at = home.map(|home| home.placement.host.uuid());
            if set.on_host().is_some_and(|on| Some(on.host) != at) {
                let _ = self.send::<BackupSet>(id, "abandon", json!({})).await?;
                return Ok(None);
            }
            let of = Ran { set: Some(id), full: true, ..ran(server, None) };
            return Ok(match state_of_set(&set) {
                State::Going => None,
                State::Whole => Some(of),
                State::Failed(why) => Some(Ran { set: Some(id), ..failed(server, None, why) }),
            });
        }
        if home.is_none() {
            return Ok(Some(failed(server, None, "the server is gone".to_owned())));
        }
        if !self.is_of(found.observation.project) {
            return Ok(Some(failed(server, None, other_project("server"))));
        }
        let known = self.known::<BackupSet>(server).await?;
        self.give_up::<BackupSet>(&known).await?;
        let body = json!({
            "name": name(&self.plan.name, self.due), "server": server, "store": self.terms.store,
            "plan": self.id,
        });
        let no = self.create::<BackupSet>(id, body).await?;
        Ok(no.map(|why| failed(server, None, why)))
    }

    /// What became of the backup of a disk that this run has ordered: none when it has ordered none.
    async fn find(
        &self,
        disk: Uuid,
        id: Uuid,
        now: &Disk,
    ) -> Result<Option<Option<Ran>>, DriverFault> {
        let there = self.ledger.typed::<Backup>(&id.to_string()).await;
        let (revision, backup) = there.map_err(|fault: LoadFault| transient(&fault))?;
        if revision == 0 {
            return Ok(None);
        }
        // Its host is dead, and the server was had back from there: nobody goes on with it.
        let at = now.home.as_ref().map(|home| home.host.uuid());
        if backup.on_host().is_some_and(|on| Some(on.host) != at) {
            let _ = self.send::<Backup>(id, "abandon", json!({})).await?;
            return Ok(Some(None));
        }
        let full = backup.parent.is_none();
        Ok(Some(match state_of(&backup) {
            State::Going => None,
            State::Whole => Some(Ran { full, ..ran(disk, Some(id)) }),
            State::Failed(why) => Some(Ran { full, ..failed(disk, Some(id), why) }),
        }))
    }

    /// Deletes those backups of a disk, or sets of a server, that no rule keeps.
    async fn clear<T: Made>(&self, ran: &mut Ran) -> Result<(), DriverFault> {
        let known = self.known::<T>(ran.subject).await?;
        for one in known.iter().filter(|one| one.is_stuck) {
            let _ = self.send::<T>(one.id, "retry", json!({})).await?;
        }
        // Those that are not whole yet say nothing of what may go; those that are damaged stay for a
        // person to look at.
        let whole: Vec<_> = known.iter().filter(|one| one.is_whole).collect();
        let times: Vec<_> = whole.iter().map(|one| (one.id, one.taken_at)).collect();
        let kept = self.terms.keep.of(&times, self.due);
        // The oldest first.
        for one in whole.iter().rev().filter(|one| !kept.contains(&one.id)) {
            let goes = ran.deleted.len() < DELETED_MAX
                && self.send::<T>(one.id, "delete", json!({})).await?.is_ok();
            if goes {
                ran.deleted.insert(one.id);
            } else {
                ran.left += 1;
            }
        }
        let stay = whole.len() - ran.deleted.len();
        ran.kept = u32::try_from(stay).unwrap_or(u32::MAX);
        Ok(())
    }

    /// Sends a command in the name of the plan.
    async fn send<T: Made>(
        &self,
        id: Uuid,
        verb: &str,
        body: Value,
    ) -> Result<Result<(), Refusal>, DriverFault> {
        let Some(kind) = kinds::by_name(T::KIND) else { return Ok(Ok(())) };
        let who = Ledger::system("backup-plan");
        match self.ledger.submit(Submission::new(who, kind, id, verb, body)).await {
            Ok(_) => Ok(Ok(())),
            Err(SubmitFault::Refused(no) | SubmitFault::Beside(no)) => Ok(Err(no)),
            Err(fault) => Err(transient(&fault)),
        }
    }

    /// What the plan has of a disk or a server, newest first.
    async fn known<T: Made>(&self, subject: Uuid) -> Result<Vec<Known>, DriverFault> {
        let ports = &self.ledger.ports;
        let head = ports.log.head().await.map_err(|fault| transient(&fault))?.position;
        let shown = ports.views.reach_position(head, PATIENCE).await;
        shown.map_err(|fault| transient(&fault))?;
        let query = Query::all()
            .with("kind", T::KIND)
            .with("parent", subject.to_string())
            .with("gone", false);
        let (rows, _) = self.ledger.rows(query).await.map_err(|fault| transient(&fault))?;
        let read = |row: &Row| {
            let made = serde_json::from_value::<T>(row.body["state"].clone()).ok()?;
            made.known(row.key.parse().ok()?, self.id)
        };
        let mut known: Vec<Known> = rows.iter().filter_map(read).collect();
        known.sort_by_key(|one| std::cmp::Reverse((one.taken_at, one.id)));
        Ok(known)
    }
}

fn ran(subject: Uuid, backup: Option<Uuid>) -> Ran {
    Ran {
        subject,
        backup,
        set: None,
        full: false,
        problem: None,
        kept: 0,
        deleted: BTreeSet::new(),
        left: 0,
    }
}

fn failed(subject: Uuid, backup: Option<Uuid>, mut problem: String) -> Ran {
    problem.truncate(problem.floor_char_boundary(PROBLEM_BYTES_MAX));
    Ran { problem: Some(problem), ..ran(subject, backup) }
}

fn other_project(what: &str) -> String {
    format!("the {what} is of another project than the plan")
}

/// What a backup is called: its plan, and the time that it is of.
fn name(plan: &str, due: DateTime<Utc>) -> String {
    // Room for the time behind it.
    let plan: String = plan.chars().take(78).collect();
    format!("{} {}", plan.trim_end(), due.format("%Y-%m-%dT%H:%M:%SZ"))
}
