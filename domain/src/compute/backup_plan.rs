//! When disks are backed up by themselves, and which backups stay.
//!
//! ```text
//!             define             pause
//!   absent ─────────► active ◄────────────► paused
//!                      │  ▲      resume       │
//!            run, due  ▼  │ finish-run        │ retire
//!                    running ──── retire ──► retired
//! ```
//!
//! At each time of its schedule, in UTC, every disk of the plan is backed up: on the newest backup that
//! the plan has of it, and all of it every so often; or every server as a set ([`super::backup_set`]). When these backups are through, those that no rule
//! keeps are deleted. Only what the plan has made is deleted by it, and nothing of a disk that could not be
//! backed up this time. A time that passed while nobody looked, or while the run before was not through,
//! is caught up with once: the newest counts, and the run says how many were missed before it.
//!
//! No backup needs another one to be restored ([`super::backup`]), so the rules look at each by itself and
//! no chain of them can be broken. How many a disk has had since all of it was read is counted here and
//! not by what is left.

mod retention;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use retention::Keep;
pub use schedule::Times;

use crate::{
    kernel::{Decider, Facets, Orders, Outstanding, Refusal, Stamp, Verb, codes},
    tenancy::check_name,
};

/// Most disks of a run, and most disks and servers of a plan: what became of each is in one event.
pub const SUBJECTS_MAX: usize = 100;
/// Most backups of a disk that one run deletes: the rest goes with the next.
pub const DELETED_MAX: usize = 20;
/// Most backups in a row of which one reads all: a year of days.
const FULL_EVERY_MAX: u32 = 366;

/// What is backed up, when, and what stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupPlanTerms")]
pub struct Terms {
    /// Disks of ours, by id. With the servers there are 1…100.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub disks: BTreeSet<Uuid>,
    /// Servers of ours, by id: every disk that each has when it is time.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub servers: BTreeSet<Uuid>,
    /// Whether of each server a set is made, with all its disks at one moment and what it is besides; each of its
    /// disks by itself otherwise. A set reads all of every disk.
    #[serde(default, skip_serializing_if = "is_false")]
    pub whole_servers: bool,
    /// The backup store.
    pub store: Uuid,
    /// When, in UTC.
    pub times: Times,
    /// Which backups stay.
    pub keep: Keep,
    /// One backup of a disk in so many reads all of it, 1…366; each when it is 1.
    #[serde(default = "weekly")]
    pub full_every: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn weekly() -> u32 {
    7
}

impl Terms {
    fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if !(1..=SUBJECTS_MAX).contains(&(self.disks.len() + self.servers.len())) {
            return no(format!("terms: disks and servers are 1 to {SUBJECTS_MAX}"));
        }
        if self.whole_servers && self.servers.is_empty() {
            return no("terms.whole_servers: names no servers".to_owned());
        }
        if !(1..=FULL_EVERY_MAX).contains(&self.full_every) {
            return no(format!("terms.full_every: is 1 to {FULL_EVERY_MAX}"));
        }
        self.times.check()?;
        self.keep.check()
    }
}

/// What a plan can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupPlanOrder")]
pub enum Order {
    /// Back its disks up, and delete those backups that no rule keeps.
    Run {
        /// Of which time.
        due: DateTime<Utc>,
        /// When it was ordered.
        at: DateTime<Utc>,
    },
}

/// What a run came to for one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupPlanResult")]
pub struct Ran {
    /// The disk; or the server, of which a set is made or whose disks could not be had.
    pub subject: Uuid,
    /// The backup that was ordered; none when that was refused.
    #[serde(default)]
    pub backup: Option<Uuid>,
    /// The set that was ordered, of a whole server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Uuid>,
    /// Whether all of the disk was to be read.
    #[serde(default)]
    pub full: bool,
    /// Why there is no backup that is whole; none when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How many backups of this plan the disk has, or sets the server, those left out that are deleted; none was looked
    /// at where there was a problem.
    #[serde(default)]
    pub kept: u32,
    /// Those that were deleted, for no rule keeps them: at most 20 a run.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deleted: BTreeSet<Uuid>,
    /// How many more no rule keeps: they go with the next run, those that are in use among them.
    #[serde(default)]
    pub left: u32,
}

/// A command of a backup plan.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "BackupPlanCommand")]
pub enum Command {
    /// Give up the run that is parked; backups that it has begun are made all the same.
    Abandon {},
    /// Say what is backed up, when, and what stays.
    Define {
        /// What it is called, 1…100 characters; as before when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// Whose it is, and whose its disks are; as before when it is left out. One of the estate
        /// backs up anybody's.
        #[serde(default)]
        project: Option<Uuid>,
        /// All of it.
        terms: Terms,
    },
    /// The run is through.
    FinishRun {
        /// The order's number.
        number: u64,
        /// What it came to, disk by disk.
        results: Vec<Ran>,
    },
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Make no backups until `resume`.
    Pause {},
    /// Make backups again.
    Resume {},
    /// Make no backups any more; those that were made stay.
    Retire {},
    /// Go on with the run that is parked.
    Retry {},
    /// Make backups now, whatever the schedule says.
    Run {},
    /// Make backups if it is time.
    RunDue {},
}

/// A fact about a backup plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupPlanEvent")]
pub enum Event {
    /// A parked run was given up.
    Abandoned {},
    /// It says what is backed up, when, and what stays.
    Defined {
        /// What it is called.
        name: String,
        /// Whose it is; none is the estate's.
        project: Option<Uuid>,
        /// All of it.
        terms: Terms,
        /// When: what was due before is not made up for.
        at: DateTime<Utc>,
    },
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// No backups are made for now.
    Paused {},
    /// Backups are made again.
    Resumed {
        /// When: what was due before is not made up for.
        at: DateTime<Utc>,
    },
    /// No backups are made any more.
    Retired {},
    /// A parked run goes on.
    RetryOrdered {},
    /// The run is through.
    RunFinished {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
        /// What it came to, disk by disk.
        results: Vec<Ran>,
    },
    /// Backups are to be made.
    RunOrdered {
        /// Of which time.
        due: DateTime<Utc>,
        /// When that was noticed.
        at: DateTime<Utc>,
        /// How many times of the schedule passed before it without a run; 1,000 when it is more.
        #[serde(default)]
        missed: u32,
    },
}

/// How the last run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// When.
    pub at: DateTime<Utc>,
    /// Of which time it was.
    pub due: DateTime<Utc>,
    /// How many times of the schedule passed before it without a run.
    pub missed: u32,
    /// How many disks, or servers, have no backup of it.
    pub problems: usize,
    /// What it came to, disk by disk.
    pub results: Vec<Ran>,
}

/// When disks are backed up by themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupPlan {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Whose it is; none is the estate's.
    pub project: Option<Uuid>,
    /// What is backed up, when, and what stays.
    pub terms: Option<Terms>,
    /// Times up to here count no more: they were run, or were before it was defined or resumed.
    pub since: DateTime<Utc>,
    /// The next time of its schedule; none while it is paused or retired.
    #[serde(default)]
    pub next: Option<DateTime<Utc>>,
    /// How many times were missed before the run that is out, or was last.
    #[serde(default)]
    pub missed: u32,
    /// How many backups each disk has had since all of it was read.
    #[serde(default)]
    pub since_full: BTreeMap<Uuid, u32>,
    /// How the last run ended.
    #[serde(default)]
    pub last_run: Option<LastRun>,
    /// Whether it is left alone.
    #[serde(default)]
    pub paused: bool,
    /// Whether it makes no backups any more.
    #[serde(default)]
    pub retired: bool,
    /// What is wanted of it.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the run that is parked."),
    Verb::operator("define", "Says which disks are backed up, when, and which backups stay.")
        .creating(),
    Verb::system("finish-run", "Reports what a run came to."),
    Verb::system("park", "Reports that a run keeps failing."),
    Verb::operator("pause", "Makes no backups until resume."),
    Verb::operator("resume", "Makes backups again."),
    Verb::operator("retire", "Makes no backups any more; those that were made stay."),
    Verb::operator("retry", "Goes on with the run that is parked."),
    Verb::operator("run", "Makes backups now, and deletes those that no rule keeps."),
    Verb::system("run-due", "Makes backups if it is time."),
];

impl BackupPlan {
    /// The time for which backups are to be ordered now, if there is one.
    pub fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let idle = !self.retired && !self.paused && self.orders.out.is_none();
        let due = self.terms.as_ref().filter(|_| idle)?.times.last(now)?;
        (due > self.since).then_some(due)
    }

    /// Whether the next backup of a disk is to read all of it.
    pub fn wants_full(&self, disk: Uuid) -> bool {
        let every = self.terms.as_ref().map_or(1, |terms| terms.full_every);
        self.since_full.get(&disk).is_none_or(|made| made.saturating_add(1) >= every)
    }

    fn ensure_exists(&self) -> Result<(), Refusal> {
        if self.name.is_empty() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such backup plan"));
        }
        Ok(())
    }

    fn ordered(&self, due: DateTime<Utc>, at: DateTime<Utc>) -> Vec<Event> {
        let times = self.terms.as_ref().map(|terms| &terms.times);
        let missed = times.map_or(0, |times| times.between(self.since, due));
        vec![Event::RunOrdered { due, at, missed }]
    }

    fn define(
        &self,
        name: Option<String>,
        project: Option<Uuid>,
        terms: Terms,
        at: DateTime<Utc>,
    ) -> Result<Vec<Event>, Refusal> {
        let name = name.unwrap_or_else(|| self.name.clone());
        check_name(&name)?;
        terms.check()?;
        let project = project.or(self.project);
        if !self.name.is_empty() && project != self.project {
            let detail = "project: a plan stays whose it is; define another one";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let same = self.name == name && self.terms.as_ref() == Some(&terms);
        if same && !self.retired {
            return Ok(vec![]);
        }
        Ok(vec![Event::Defined { name, project, terms, at }])
    }

    /// What each disk has had since all of it was read, after a run.
    fn count(&self, results: &[Ran]) -> BTreeMap<Uuid, u32> {
        let of = |ran: &Ran| {
            let before = self.since_full.get(&ran.subject).copied();
            let now = match (&ran.problem, ran.full) {
                (Some(_), _) => before?,
                (None, true) => 0,
                (None, false) => before.map_or(1, |made| made.saturating_add(1)),
            };
            Some((ran.subject, now))
        };
        results.iter().filter_map(of).collect()
    }

    fn look_ahead(&mut self) {
        let times = self.terms.as_ref().filter(|_| !self.paused && !self.retired);
        self.next = times.and_then(|terms| terms.times.next(self.since));
    }
}

impl Decider for BackupPlan {
    const KIND: &'static str = "backup-plan";
    const PLURAL: &'static str = "backup-plans";
    const SUMMARY: &'static str = "When disks are backed up by themselves, and which backups stay.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let at = stamp.now;
        Ok(match command {
            Command::Abandon {} => {
                self.orders.ensure_parked()?;
                vec![Event::Abandoned {}]
            }
            Command::Define { name, project, terms } => {
                return self.define(name, project, terms, at);
            }
            Command::FinishRun { number, results } if self.orders.is_out(number) => {
                vec![Event::RunFinished { number, at, results }]
            }
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Pause {} => {
                self.ensure_exists()?;
                let changes = !self.paused && !self.retired;
                if changes { vec![Event::Paused {}] } else { vec![] }
            }
            Command::Resume {} => {
                self.ensure_exists()?;
                let changes = self.paused && !self.retired;
                if changes { vec![Event::Resumed { at }] } else { vec![] }
            }
            Command::Retire {} => {
                self.ensure_exists()?;
                if self.retired { vec![] } else { vec![Event::Retired {}] }
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::Run {} => {
                self.ensure_exists()?;
                if self.retired {
                    return Err(Refusal::wrong_state("run", Decider::status(self)));
                }
                self.orders.ensure_free()?;
                self.ordered(at, at)
            }
            Command::RunDue {} => self.due(at).map_or_else(Vec::new, |due| self.ordered(due, at)),
            // A report about an order that is settled already says nothing new.
            Command::FinishRun { .. } | Command::Park { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => self.orders.settle(),
            Event::Defined { name, project, terms, at } => {
                (self.name, self.project, self.since) = (name, project, at);
                self.terms = Some(terms);
                self.retired = false;
            }
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::Paused {} => self.paused = true,
            Event::Resumed { at } => {
                self.paused = false;
                self.since = at;
            }
            Event::Retired {} => {
                self.orders.settle();
                self.retired = true;
            }
            Event::RetryOrdered {} => self.orders.retry(),
            Event::RunFinished { at, results, .. } => {
                let out = self.orders.out.take();
                let due = out.map_or(at, |Outstanding { order: Order::Run { due, .. }, .. }| due);
                self.since_full = self.count(&results);
                let problems = results.iter().filter(|ran| ran.problem.is_some()).count();
                let missed = self.missed;
                self.last_run = Some(LastRun { at, due, missed, problems, results });
            }
            Event::RunOrdered { due, at, missed } => {
                (self.since, self.missed) = (due, missed);
                self.orders.issue(Order::Run { due, at });
            }
        }
        self.look_ahead();
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        match &self.orders.out {
            _ if self.name.is_empty() => "absent",
            _ if self.retired => "retired",
            Some(Outstanding { parked: Some(_), .. }) => "parked",
            Some(_) => "running",
            None if self.paused => "paused",
            None if self.last_run.as_ref().is_some_and(|run| run.problems > 0) => "failing",
            None => "active",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            gone: self.retired,
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests;
