//! A backup of a disk of ours: what the disk was at a moment, in a backup store.
//!
//! ```text
//!          create             confirm              delete              confirm-removal
//!  absent ───────► taking ─────────────► available ──────► deleting ──────────────────► gone
//!     │              │ abandon              ▲  ▲  verify      ▲
//!     │              ▼                      │  └─────────► verifying ──► damaged
//!     │          giving up ─────────────────┼──────────────────┘
//!     └─────────────────────────────────────┘ find
//! ```
//!
//! It is taken by the disk's host, and everything else is done from here: a backup is verified, restored
//! elsewhere and removed when its host is long gone. While it is taken nothing else is done with its
//! disk, and the backup that it is made on stays. No backup needs another one once it is there: that it
//! was made on another says only what was read and sent for it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{disk::Disk, placement::HostId, server::home::PROVIDER};
use crate::{
    kernel::{
        Companion, Decider, Facets, OnHost, Orders, Outstanding, Refusal, Stamp, Verb, codes,
    },
    tenancy::check_name,
};

/// What a backup can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupOrder")]
pub enum Order {
    /// Leave nothing on the host of what was begun.
    GiveUp {},
    /// Leave nothing of it in the store but chunks, which a collection finds.
    Remove {},
    /// Read the disk, and put what is new into the store.
    Take {},
    /// Read all of it, and compare it with its digests.
    Verify {},
}

/// What lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupMade")]
pub struct Made {
    /// SHA-256 of its manifest, 64 hexadecimal digits: all that it consists of is vouched for by it.
    pub digest: String,
    /// How large the disk was, in bytes.
    pub size_bytes: u64,
    /// What was read of the disk for it, in bytes.
    pub read_bytes: u64,
    /// What was sent to the store for it, in bytes.
    pub sent_bytes: u64,
    /// What its chunks take in the store, in bytes; other backups may share them.
    pub stored_bytes: u64,
    /// How many chunks it has.
    pub chunks: u64,
}

/// Where its disk was, and whose, when it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupSource")]
pub struct Source {
    /// Its own id.
    pub id: Uuid,
    /// Whose it is; none is the estate's.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// The disk's host.
    pub host: HostId,
    /// The server that has the disk.
    #[serde(default)]
    pub server: Option<Uuid>,
    /// What the disk was called.
    pub disk_name: String,
}

/// What a backup is ordered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupCreation")]
pub struct Creation {
    /// What it is called, 1…100 characters.
    pub name: String,
    /// The disk, one of ours.
    pub disk: Uuid,
    /// The backup store.
    pub store: Uuid,
    /// The backup of this disk that it is made on: what has not changed since is neither read nor sent.
    /// All of the disk is read when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
    /// The backup plan that wants it; a person does when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Uuid>,
    /// Filled in by Skyledger.
    #[serde(default)]
    pub found: Option<Source>,
}

/// A backup that lies in a store and was not known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupFound")]
pub struct Found {
    /// What it is called, 1…100 characters; after when it was ordered when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The backup store.
    pub store: Uuid,
    /// Whose it is from now on; none is the estate's.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// The disk that it is of, wherever that is or was.
    pub disk: Uuid,
    /// The backup that it was made on.
    #[serde(default)]
    pub parent: Option<Uuid>,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// What lies there.
    pub made: Made,
}

/// A command of a backup.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "BackupCommand")]
pub enum Command {
    /// Give up the order that is parked, or that a host has which does not have the disk any more.
    Abandon {
        /// Filled in by Skyledger: whether the host does not have the disk any more.
        #[serde(default)]
        host_lost: bool,
    },
    /// Give it to a project.
    Assign {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// A disk or an image is made from it, or another backup on it: it stays meanwhile.
    BeginUse {
        /// Which disk or backup.
        by: Uuid,
    },
    /// The host has taken it.
    Confirm {
        /// The order's number.
        number: u64,
        /// What lies in the store.
        made: Made,
    },
    /// Nothing is left on the host of what was begun.
    ConfirmGivenUp {
        /// The order's number.
        number: u64,
    },
    /// It is in the store no more.
    ConfirmRemoval {
        /// The order's number.
        number: u64,
    },
    /// All of it was read.
    ConfirmVerified {
        /// The order's number.
        number: u64,
        /// What is damaged; none when nothing is.
        #[serde(default)]
        damaged: Option<String>,
    },
    /// Back a disk up.
    Create(Creation),
    /// Remove it for good.
    Delete {},
    /// What needed it is through.
    EndUse {
        /// Which disk, backup or image.
        by: Uuid,
        /// Whether it was made for that alone, and goes if it can.
        #[serde(default)]
        delete: bool,
    },
    /// It lies in a store and was not known here.
    Find(Found),
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Go on with the order that is parked.
    Retry {},
    /// Read all of it, and compare it with its digests.
    Verify {},
}

/// A fact about a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupEvent")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// It was given to a project: the plan that made it deletes it no more.
    Assigned {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// A disk is to be backed up.
    CreationOrdered {
        /// How.
        creation: Creation,
        /// When: what the backup is called by in time.
        at: DateTime<Utc>,
    },
    /// It lies in a store, where another installation has made it.
    Found(Found),
    /// What was begun is to leave nothing on the host.
    GiveUpOrdered {},
    /// Nothing is left on the host of what was begun.
    GivenUp {
        /// The order's number.
        number: u64,
    },
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// It is to be removed.
    RemovalOrdered {},
    /// It is in the store no more.
    Removed {},
    /// A parked order goes on.
    RetryOrdered {},
    /// It is there.
    Taken {
        /// The order's number.
        number: u64,
        /// When it was through.
        at: DateTime<Utc>,
        /// What lies in the store.
        made: Made,
    },
    /// Something needs it.
    UseBegun {
        /// Which disk or backup.
        by: Uuid,
    },
    /// Something needs it no more.
    UseEnded {
        /// Which disk or backup.
        by: Uuid,
    },
    /// All of it was read.
    Verified {
        /// The order's number.
        number: u64,
        /// When.
        at: DateTime<Utc>,
        /// What is damaged; none when nothing is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        damaged: Option<String>,
    },
    /// All of it is to be read.
    VerifyOrdered {},
}

/// A backup.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Whose it is; none is the estate's.
    pub project: Option<Uuid>,
    /// Where it lies.
    pub store: Uuid,
    /// The disk.
    pub disk: Uuid,
    /// The backup that it was made on.
    #[serde(default)]
    pub parent: Option<Uuid>,
    /// The backup plan that wanted it.
    #[serde(default)]
    pub plan: Option<Uuid>,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// Where its disk was; none of one that was found in a store.
    #[serde(default)]
    pub source: Option<Source>,
    /// What lies in the store; none before it was taken.
    #[serde(default)]
    pub made: Option<Made>,
    /// When all of it was last read.
    #[serde(default)]
    pub verified_at: Option<DateTime<Utc>>,
    /// What was damaged then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// What needs it now.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<Uuid>,
    /// Whether its disk, and the backup it is made on, wait for it.
    #[serde(default)]
    pub holds: bool,
    /// Whether it is removed.
    #[serde(default)]
    pub removed: bool,
    /// What is wanted of it.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the parked order; a backup that was begun is removed."),
    Verb::admin("assign", "Gives it to another project; the plan that made it deletes it no more."),
    Verb::system("begin-use", "Says that something is made from it, or on it."),
    Verb::system("confirm", "Reports that the host has taken it."),
    Verb::system("confirm-given-up", "Reports that nothing of it is left on the host."),
    Verb::system("confirm-removal", "Reports that it is in the store no more."),
    Verb::system("confirm-verified", "Reports that all of it was read."),
    Verb::operator("create", "Backs a disk of ours up, also while its server runs.").creating(),
    Verb::operator("delete", "Removes it for good."),
    Verb::system("end-use", "Says that what needed it is through."),
    Verb::system("find", "Says that it lies in a store, where another installation has made it.")
        .creating(),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::operator("retry", "Goes on with the parked order."),
    Verb::operator("verify", "Reads all of it, and compares it with its digests."),
];

impl Creation {
    fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        if self.found.is_none() {
            let detail = "found: nobody looked where the disk is";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(())
    }
}

impl Backup {
    /// Whether it exists.
    pub fn exists(&self) -> bool {
        !self.name.is_empty()
    }

    /// What lies in the store, if disks can be made from it.
    ///
    /// # Errors
    /// `not-found`, `wrong-state`: it is not whole, or is being removed.
    pub fn ensure_whole(&self) -> Result<&Made, Refusal> {
        if !self.exists() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such backup"));
        }
        let going = self.removed || self.orders.has_out(&Order::Remove {});
        match &self.made {
            Some(made) if !going && self.damaged.is_none() => Ok(made),
            _ => {
                let detail = format!("backup {} is {}", self.name, Decider::status(self));
                Err(Refusal::new(&codes::WRONG_STATE, detail))
            }
        }
    }

    /// One that is there and that nothing is ordered of.
    fn free(&self, verb: &str) -> Result<(), Refusal> {
        if !self.exists() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such backup"));
        }
        if self.removed {
            return Err(Refusal::wrong_state(verb, Decider::status(self)));
        }
        self.orders.ensure_free()
    }

    fn abandon(&self, host_lost: bool) -> Result<Vec<Event>, Refusal> {
        if host_lost && self.on_host().is_some() {
            // The host that could clear up after it is dead, or has been told to clear all of the server.
            return Ok(vec![Event::Abandoned {}, Event::RemovalOrdered {}]);
        }
        self.orders.ensure_parked()?;
        Ok(match self.orders.out.as_ref().map(|out| &out.order) {
            Some(Order::Take {}) => vec![Event::Abandoned {}, Event::GiveUpOrdered {}],
            Some(Order::GiveUp {}) => vec![Event::Abandoned {}, Event::RemovalOrdered {}],
            // It never was one: what it has left in the store costs room, and a collection names it.
            Some(Order::Remove {}) if self.made.is_none() => {
                vec![Event::Abandoned {}, Event::Removed {}]
            }
            _ => vec![Event::Abandoned {}],
        })
    }

    /// What those are told that it needs while it is taken.
    fn tell(&self, verb: &'static str) -> Vec<Companion> {
        let Some(by) = self.source.as_ref().map(|source| source.id) else { return Vec::new() };
        needed(by, self.disk, self.parent, verb)
    }
}

fn needed(by: Uuid, disk: Uuid, parent: Option<Uuid>, verb: &'static str) -> Vec<Companion> {
    let body: Value = json!({"by": by});
    let disk = Companion { kind: Disk::KIND, id: disk, verb, body: body.clone() };
    let parent = parent.map(|id| Companion { kind: Backup::KIND, id, verb, body });
    std::iter::once(disk).chain(parent).collect()
}

impl Decider for Backup {
    const KIND: &'static str = "backup";
    const PLURAL: &'static str = "backups";
    const SUMMARY: &'static str = "What a disk of ours was at a moment, kept in a backup store.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let at = stamp.now;
        Ok(match command {
            Command::Abandon { host_lost } => self.abandon(host_lost)?,
            Command::Assign { .. } if !self.exists() || self.removed => {
                return Err(Refusal::wrong_state("assign", Decider::status(self)));
            }
            Command::Assign { project } if project == self.project => vec![],
            Command::Assign { project } => vec![Event::Assigned { project }],
            Command::BeginUse { by } if self.users.contains(&by) => vec![],
            Command::BeginUse { by } => {
                self.ensure_whole()?;
                vec![Event::UseBegun { by }]
            }
            Command::Confirm { number, made } if self.orders.is_out_as(number, &Order::Take {}) => {
                vec![Event::Taken { number, at, made }]
            }
            Command::ConfirmGivenUp { number }
                if self.orders.is_out_as(number, &Order::GiveUp {}) =>
            {
                vec![Event::GivenUp { number }, Event::RemovalOrdered {}]
            }
            Command::ConfirmRemoval { number }
                if self.orders.is_out_as(number, &Order::Remove {}) =>
            {
                vec![Event::Removed {}]
            }
            Command::ConfirmVerified { number, damaged }
                if self.orders.is_out_as(number, &Order::Verify {}) =>
            {
                vec![Event::Verified { number, at, damaged }]
            }
            Command::Create(_) | Command::Find(_) if self.exists() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the backup exists"));
            }
            Command::Create(creation) => {
                creation.check()?;
                vec![Event::CreationOrdered { creation, at }]
            }
            Command::Delete {} => {
                self.free("delete")?;
                if let Some(user) = self.users.first() {
                    let detail = format!("{user} is being made from it");
                    return Err(Refusal::new(&codes::IN_USE, detail));
                }
                vec![Event::RemovalOrdered {}]
            }
            Command::EndUse { by, delete } => {
                let ended = self.users.contains(&by).then_some(Event::UseEnded { by });
                let others = self.users.iter().any(|user| *user != by);
                let goes = delete && !others && self.made.is_some() && self.free("delete").is_ok();
                ended.into_iter().chain(goes.then_some(Event::RemovalOrdered {})).collect()
            }
            Command::Find(found) => vec![Event::Found(found)],
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::Verify {} => {
                self.free("verify")?;
                vec![Event::VerifyOrdered {}]
            }
            // A report about an order that is settled already says nothing new.
            Command::Confirm { .. }
            | Command::ConfirmGivenUp { .. }
            | Command::ConfirmRemoval { .. }
            | Command::ConfirmVerified { .. }
            | Command::Park { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => self.orders.settle(),
            Event::Assigned { project } => {
                self.project = project;
                self.plan = None;
            }
            Event::CreationOrdered { creation, at } => {
                self = Self {
                    name: creation.name,
                    project: creation.found.as_ref().and_then(|found| found.project),
                    store: creation.store,
                    disk: creation.disk,
                    parent: creation.parent,
                    plan: creation.plan,
                    taken_at: at,
                    source: creation.found,
                    holds: true,
                    ..Self::default()
                };
                self.orders.issue(Order::Take {});
            }
            Event::Found(found) => {
                let name = found.name.unwrap_or_else(|| {
                    format!("found-{}", found.taken_at.format("%Y-%m-%dT%H:%M:%SZ"))
                });
                self = Self {
                    name,
                    project: found.project,
                    store: found.store,
                    disk: found.disk,
                    parent: found.parent,
                    taken_at: found.taken_at,
                    made: Some(found.made),
                    ..Self::default()
                };
            }
            Event::GiveUpOrdered {} => self.orders.issue(Order::GiveUp {}),
            Event::GivenUp { .. } => {
                self.holds = false;
                self.orders.settle();
            }
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::RemovalOrdered {} => self.orders.issue(Order::Remove {}),
            Event::Removed {} => {
                self.holds = false;
                self.removed = true;
                self.orders.settle();
            }
            Event::RetryOrdered {} => self.orders.retry(),
            Event::Taken { made, .. } => {
                self.holds = false;
                self.made = Some(made);
                self.orders.settle();
            }
            Event::UseBegun { by } => self.users.extend([by]),
            Event::UseEnded { by } => self.users.retain(|one| *one != by),
            Event::Verified { at, damaged, .. } => {
                self.verified_at = Some(at);
                self.damaged = damaged;
                self.orders.settle();
            }
            Event::VerifyOrdered {} => self.orders.issue(Order::Verify {}),
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        match &self.orders.out {
            _ if !self.exists() => "absent",
            _ if self.removed => "gone",
            Some(Outstanding { parked: Some(_), .. }) => "parked",
            Some(Outstanding { order: Order::GiveUp {}, .. }) => "giving-up",
            Some(Outstanding { order: Order::Remove {}, .. }) => "deleting",
            Some(Outstanding { order: Order::Take {}, .. }) => "taking",
            Some(Outstanding { order: Order::Verify {}, .. }) => "verifying",
            None if self.damaged.is_some() => "damaged",
            None => "available",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            provider: Some(PROVIDER.to_owned()),
            parent: Some(self.disk.to_string()),
            gone: self.removed,
            ..Facets::default()
        }
    }

    fn on_host(&self) -> Option<OnHost> {
        let on_host =
            self.orders.has_out(&Order::Take {}) || self.orders.has_out(&Order::GiveUp {});
        let source = self.source.as_ref().filter(|_| on_host)?;
        Some(OnHost { host: source.host.uuid(), server: source.server })
    }

    fn stores(&self) -> Vec<Uuid> {
        if self.exists() { vec![self.store] } else { Vec::new() }
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let of = |event: &Event| match event {
            Event::CreationOrdered { creation, .. } => {
                let by = creation.found.as_ref().map(|found| found.id);
                by.map_or_else(Vec::new, |by| {
                    needed(by, creation.disk, creation.parent, "begin-use")
                })
            }
            Event::Taken { .. } | Event::GivenUp { .. } | Event::Removed {} if self.holds => {
                self.tell("end-use")
            }
            _ => Vec::new(),
        };
        events.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests;
