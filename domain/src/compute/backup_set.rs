//! A set of backups: all disks of a server of ours, as they were at one moment.
//!
//! ```text
//!          create           confirm              confirm-described
//!  absent ───────► taking ───────────► describing ───────────────► available
//!                    │ abandon                                         │ delete
//!                    ▼              confirm-given-up                   ▼
//!                giving up ────────────────────────────────────► removing ──► gone
//!                                                           confirm-removal
//! ```
//!
//! It is one order of the server's host, which holds all disks still at once, reads them, and reports when
//! all are in the store: there is all of a set or nothing. From then on each disk has a backup like any
//! other ([`super::backup`]), which is verified, restored and deleted by itself; the set says which of them
//! belong together and what their server was ([`Blueprint`]), and a server is launched from it.
//!
//! Beside the backups the store has a *description* of the set, which is put there when they are all there. By
//! it another installation that has the same store finds the set, and can have the server.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    backup::{self, Backup, Made},
    disk::Disk,
    placement::HostId,
    server::{blueprint::Blueprint, home::PROVIDER},
};
use crate::{
    kernel::{
        Companion, Decider, Facets, OnHost, Orders, Outstanding, Refusal, Stamp, Verb, codes,
    },
    tenancy::check_name,
};

/// The newest form of a description, and the only one.
const FORM: u32 = 1;

/// What a set can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupSetOrder")]
pub enum Order {
    /// Put into the store what it consists of, and what its server was.
    Describe {},
    /// Leave nothing in the store that says what it consists of; its backups go by themselves.
    Forget {},
    /// Leave nothing on the host of what was begun.
    GiveUp {},
    /// Leave nothing of it in the store but chunks, which a collection finds.
    Remove {},
    /// Read all disks as they are at one moment, and put what is new into the store.
    Take {},
}

/// A disk of a set, and the backup that it has there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupSetMember")]
pub struct Member {
    /// The disk.
    pub disk: Uuid,
    /// What the disk was called.
    pub disk_name: String,
    /// Its backup.
    pub backup: Uuid,
}

/// Where its server was, and whose, when it was ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupSetSource")]
pub struct Source {
    /// The set's own id.
    pub id: Uuid,
    /// Whose it is; none is the estate's.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// The server's host.
    pub host: HostId,
    /// Its disks in their order, the one that it starts from first.
    pub members: Vec<Member>,
    /// What it was besides; none of sets that were made before that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blueprint: Option<Box<Blueprint>>,
}

/// What a set is ordered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupSetCreation")]
pub struct Creation {
    /// What it is called, 1…100 characters.
    pub name: String,
    /// The server, one of ours.
    pub server: Uuid,
    /// The backup store.
    pub store: Uuid,
    /// The backup plan that makes it, and deletes it in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Uuid>,
    /// Filled in by Skyledger.
    #[serde(default)]
    pub found: Option<Source>,
}

/// What lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupSetTaken")]
pub struct Taken {
    /// Whether the guest had written everything out and stood still at that moment. Where it had not, the
    /// disks are what a power cut would have left.
    pub quiesced: bool,
    /// What lies there of each disk.
    pub made: BTreeMap<Uuid, Made>,
}

/// A set that lies in a store, and was made by another installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FoundBackupSet")]
pub struct Found {
    /// What it is called.
    pub name: String,
    /// The server that it is of, where it was made.
    pub server: Uuid,
    /// The store.
    pub store: Uuid,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// Whose it is from now on, its disks and backups, and what its server was.
    pub source: Source,
    /// What lies in the store.
    pub taken: Taken,
}

/// What lies in a store of a set, beside its backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Form of this document.
    pub form: u32,
    /// The set's id.
    pub set: Uuid,
    /// What it is called.
    pub name: String,
    /// The server.
    pub server: Uuid,
    /// The host that it was on.
    pub host: HostId,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// Whether the guest stood still.
    pub quiesced: bool,
    /// Its disks in their order, with their backups.
    pub members: Vec<Member>,
    /// The digest of each backup, by disk.
    pub digests: BTreeMap<Uuid, String>,
    /// What the server was.
    pub blueprint: Box<Blueprint>,
}

impl Description {
    /// The set that it is of, with what lies in the store of each disk.
    ///
    /// # Errors
    /// What is wrong with it: it came later than this, or a backup is another than it says, or not there.
    pub fn found(
        self,
        store: Uuid,
        project: Option<Uuid>,
        made: BTreeMap<Uuid, Made>,
    ) -> Result<Found, String> {
        if self.form != FORM {
            return Err(format!("it is of form {}, which came later", self.form));
        }
        for member in &self.members {
            let digest = self.digests.get(&member.disk);
            if made.get(&member.disk).map(|made| &made.digest) != digest || digest.is_none() {
                return Err(format!("its backup {} is not there, or is another", member.backup));
            }
        }
        let (id, host, members) = (self.set, self.host, self.members);
        Ok(Found {
            name: self.name,
            server: self.server,
            store,
            taken_at: self.taken_at,
            source: Source { id, project, host, members, blueprint: Some(self.blueprint) },
            taken: Taken { quiesced: self.quiesced, made },
        })
    }
}

/// A command of a set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "BackupSetCommand")]
pub enum Command {
    /// Give up the order that is parked, or that a host has which does not have the server any more.
    Abandon {
        /// Filled in by Skyledger: whether the host does not have the server any more.
        #[serde(default)]
        host_lost: bool,
    },
    /// The host has taken it.
    Confirm {
        /// The order's number.
        number: u64,
        /// What lies in the store.
        taken: Taken,
    },
    /// The store says what it consists of.
    ConfirmDescribed {
        /// The order's number.
        number: u64,
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
    /// Back all disks of a server up.
    Create(Creation),
    /// Delete the backups of the set that are there.
    Delete {
        /// Filled in by Skyledger: those that are there.
        #[serde(default)]
        found: Option<BTreeSet<Uuid>>,
    },
    /// It lies in a store.
    Find(Box<Found>),
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Go on with the order that is parked.
    Retry {},
}

/// A fact about a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "BackupSetEvent")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// All disks of a server are to be backed up.
    CreationOrdered {
        /// How.
        creation: Creation,
        /// When: what the backups are called by in time.
        at: DateTime<Utc>,
    },
    /// Its backups are to be deleted.
    Deleted {
        /// Those that were there.
        backups: BTreeSet<Uuid>,
    },
    /// The store says what it consists of.
    Described {
        /// The order's number.
        number: u64,
    },
    /// It lies in a store.
    Found(Box<Found>),
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
    /// What was begun is to leave the store.
    RemovalOrdered {},
    /// It is in the store no more.
    Removed {
        /// The order's number.
        number: u64,
    },
    /// A parked order goes on.
    RetryOrdered {},
    /// It is there.
    Taken {
        /// The order's number.
        number: u64,
        /// When it was through.
        at: DateTime<Utc>,
        /// What lies in the store.
        taken: Taken,
    },
}

/// A set of backups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackupSet {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Whose it is; none is the estate's.
    pub project: Option<Uuid>,
    /// Where it lies.
    pub store: Uuid,
    /// The server.
    pub server: Uuid,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// The backup plan that has made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Uuid>,
    /// Where its server was, and the backups of its disks.
    #[serde(default)]
    pub source: Option<Source>,
    /// What lies in the store; none before it was taken.
    #[serde(default)]
    pub taken: Option<Taken>,
    /// Whether the disks wait for it.
    #[serde(default)]
    pub holds: bool,
    /// Whether it is removed.
    #[serde(default)]
    pub removed: bool,
    /// What is wanted of it.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the parked order; what was begun is removed."),
    Verb::system("confirm", "Reports that the host has taken it."),
    Verb::system("confirm-described", "Reports that the store says what it consists of."),
    Verb::system("confirm-given-up", "Reports that nothing of it is left on the host."),
    Verb::system("confirm-removal", "Reports that it is in the store no more."),
    Verb::operator("create", "Backs all disks of a server up as they are at one moment.")
        .creating(),
    Verb::operator("delete", "Deletes its backups for good."),
    Verb::system("find", "Reports a set that another installation has left in a store.").creating(),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::operator("retry", "Goes on with the parked order."),
];

impl BackupSet {
    /// Whether it exists.
    pub fn exists(&self) -> bool {
        !self.name.is_empty()
    }

    /// The disks and their backups, in the order that the server had them.
    pub fn members(&self) -> &[Member] {
        self.source.as_ref().map_or(&[], |source| &source.members)
    }

    /// What its server was; none of sets that were made before that was kept.
    pub fn blueprint(&self) -> Option<&Blueprint> {
        self.source.as_ref()?.blueprint.as_deref()
    }

    /// Whether it is to go, or has gone.
    pub fn is_going(&self) -> bool {
        let forgets = matches!(&self.orders.out, Some(Outstanding { order: Order::Forget {}, .. }));
        self.removed || forgets
    }

    /// What lies in the store of it; none before it was taken, and of sets that have no blueprint.
    pub fn description(&self, set: Uuid) -> Option<Description> {
        let (source, taken) = (self.source.as_ref()?, self.taken.as_ref()?);
        let digests = taken.made.iter().map(|(disk, made)| (*disk, made.digest.clone()));
        Some(Description {
            form: FORM,
            set,
            name: self.name.clone(),
            server: self.server,
            host: source.host,
            taken_at: self.taken_at,
            quiesced: taken.quiesced,
            members: source.members.clone(),
            digests: digests.collect(),
            blueprint: source.blueprint.clone()?,
        })
    }

    /// The disks and their backups, if a server can be made from them.
    ///
    /// # Errors
    /// `not-found`, `wrong-state`: it is not whole, or was deleted.
    pub fn ensure_whole(&self) -> Result<&[Member], Refusal> {
        if !self.exists() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such backup set"));
        }
        if self.taken.is_none() || self.is_going() {
            let detail = format!("backup set {} is {}", self.name, Decider::status(self));
            return Err(Refusal::new(&codes::WRONG_STATE, detail));
        }
        Ok(self.members())
    }

    fn abandon(&self, host_lost: bool) -> Result<Vec<Event>, Refusal> {
        if host_lost && self.on_host().is_some() {
            // The host that could clear up after it is dead.
            return Ok(vec![Event::Abandoned {}, Event::RemovalOrdered {}]);
        }
        self.orders.ensure_parked()?;
        Ok(match self.orders.out.as_ref().map(|out| &out.order) {
            Some(Order::Take {}) => vec![Event::Abandoned {}, Event::GiveUpOrdered {}],
            Some(Order::GiveUp {}) => vec![Event::Abandoned {}, Event::RemovalOrdered {}],
            // All of it is there. Another installation does not find it.
            Some(Order::Describe {}) => vec![Event::Abandoned {}],
            // What it has left in the store costs room, and a collection names it.
            Some(Order::Forget {} | Order::Remove {}) | None => {
                vec![Event::Abandoned {}, Event::Removed { number: self.orders.issued }]
            }
        })
    }

    fn delete(&self, found: Option<BTreeSet<Uuid>>) -> Result<Vec<Event>, Refusal> {
        if !self.exists() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such backup set"));
        }
        if self.removed {
            return Err(Refusal::wrong_state("delete", Decider::status(self)));
        }
        self.orders.ensure_free()?;
        let backups = found.ok_or_else(|| {
            Refusal::new(&codes::INVALID_FIELD, "found: nobody looked which are there")
        })?;
        Ok(vec![Event::Deleted { backups }])
    }

    fn confirm(&self, number: u64, at: DateTime<Utc>, taken: Taken) -> Result<Vec<Event>, Refusal> {
        let wanted: BTreeSet<Uuid> = self.members().iter().map(|one| one.disk).collect();
        if !taken.made.keys().eq(wanted.iter()) {
            let detail = "taken.made: has each disk of the set, and no other";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(vec![Event::Taken { number, at, taken }])
    }

    /// What the disks are told while it is taken.
    fn tell(&self, verb: &'static str) -> Vec<Companion> {
        self.source.as_ref().map_or_else(Vec::new, |source| tell(source, verb))
    }

    /// The backups that there are from now on.
    fn found(&self, taken: &Taken) -> Vec<Companion> {
        let of = |member: &Member| {
            let made = taken.made.get(&member.disk)?.clone();
            let found = backup::Found {
                name: Some(cut(&format!("{} {}", self.name, member.disk_name))),
                store: self.store,
                project: self.project,
                disk: member.disk,
                parent: None,
                taken_at: self.taken_at,
                made,
            };
            let body = json!(found);
            Some(Companion { kind: Backup::KIND, id: member.backup, verb: "find", body })
        };
        self.members().iter().filter_map(of).collect()
    }
}

/// As long as a name may be.
fn cut(name: &str) -> String {
    name.chars().take(100).collect::<String>().trim_end().to_owned()
}

fn tell(source: &Source, verb: &'static str) -> Vec<Companion> {
    let body = json!({"by": source.id});
    let one =
        |member: &Member| Companion { kind: Disk::KIND, id: member.disk, verb, body: body.clone() };
    source.members.iter().map(one).collect()
}

impl Decider for BackupSet {
    const KIND: &'static str = "backup-set";
    const PLURAL: &'static str = "backup-sets";
    const SUMMARY: &'static str = "Backups of all disks of a server at one moment.";
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
            Command::Confirm { number, taken }
                if self.orders.is_out_as(number, &Order::Take {}) =>
            {
                self.confirm(number, at, taken)?
            }
            Command::ConfirmDescribed { number }
                if self.orders.is_out_as(number, &Order::Describe {}) =>
            {
                vec![Event::Described { number }]
            }
            Command::ConfirmGivenUp { number }
                if self.orders.is_out_as(number, &Order::GiveUp {}) =>
            {
                vec![Event::GivenUp { number }, Event::RemovalOrdered {}]
            }
            Command::ConfirmRemoval { number }
                if self.orders.is_out_as(number, &Order::Remove {})
                    || self.orders.is_out_as(number, &Order::Forget {}) =>
            {
                vec![Event::Removed { number }]
            }
            Command::Create(_) if self.exists() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the backup set exists"));
            }
            Command::Create(creation) => {
                check_name(&creation.name)?;
                let found = creation.found.as_ref();
                if found.is_none_or(|found| found.members.is_empty()) {
                    let detail = "server: has no disk that could be backed up";
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                vec![Event::CreationOrdered { creation, at }]
            }
            Command::Delete { found } => self.delete(found)?,
            Command::Find(_) if self.exists() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the backup set exists"));
            }
            Command::Find(found) => {
                check_name(&found.name)?;
                let whole =
                    found.source.members.iter().map(|one| one.disk).collect::<BTreeSet<_>>();
                if whole.is_empty() || !found.taken.made.keys().eq(whole.iter()) {
                    let detail = "taken.made: has each disk of the set, and no other";
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                vec![Event::Found(found)]
            }
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            // A report about an order that is settled already says nothing new.
            Command::Confirm { .. }
            | Command::ConfirmDescribed { .. }
            | Command::ConfirmGivenUp { .. }
            | Command::ConfirmRemoval { .. }
            | Command::Park { .. } => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => self.orders.settle(),
            Event::CreationOrdered { creation, at } => {
                self = Self {
                    name: creation.name,
                    project: creation.found.as_ref().and_then(|found| found.project),
                    store: creation.store,
                    server: creation.server,
                    taken_at: at,
                    plan: creation.plan,
                    source: creation.found,
                    holds: true,
                    ..Self::default()
                };
                self.orders.issue(Order::Take {});
            }
            Event::Deleted { .. } if self.blueprint().is_some() => {
                self.orders.issue(Order::Forget {});
            }
            Event::Deleted { .. } => self.removed = true,
            Event::Described { .. } => self.orders.settle(),
            Event::Found(found) => {
                let Found { name, server, store, taken_at, source, taken } = *found;
                self = Self {
                    name,
                    project: source.project,
                    store,
                    server,
                    taken_at,
                    source: Some(source),
                    taken: Some(taken),
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
            Event::Removed { .. } => {
                self.holds = false;
                self.removed = true;
                self.orders.settle();
            }
            Event::RetryOrdered {} => self.orders.retry(),
            Event::Taken { taken, .. } => {
                self.holds = false;
                self.taken = Some(taken);
                self.orders.settle();
                if self.blueprint().is_some() {
                    self.orders.issue(Order::Describe {});
                }
            }
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
            Some(Outstanding { order: Order::Describe {}, .. }) => "describing",
            Some(Outstanding { order: Order::GiveUp {}, .. }) => "giving-up",
            Some(Outstanding { order: Order::Forget {} | Order::Remove {}, .. }) => "removing",
            Some(Outstanding { order: Order::Take {}, .. }) => "taking",
            None => "available",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            provider: Some(PROVIDER.to_owned()),
            parent: Some(self.server.to_string()),
            gone: self.removed,
            ..Facets::default()
        }
    }

    fn on_host(&self) -> Option<OnHost> {
        let on_host =
            self.orders.has_out(&Order::Take {}) || self.orders.has_out(&Order::GiveUp {});
        let source = self.source.as_ref().filter(|_| on_host)?;
        Some(OnHost { host: source.host.uuid(), server: Some(self.server) })
    }

    fn stores(&self) -> Vec<Uuid> {
        if self.exists() { vec![self.store] } else { Vec::new() }
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let of = |event: &Event| match event {
            Event::CreationOrdered { creation, .. } => {
                let found = creation.found.as_ref();
                found.map_or_else(Vec::new, |found| tell(found, "begin-use"))
            }
            Event::Deleted { backups } => {
                let one = |id: &Uuid| Companion {
                    kind: Backup::KIND,
                    id: *id,
                    verb: "delete",
                    body: json!({}),
                };
                backups.iter().map(one).collect()
            }
            Event::Taken { taken, .. } => {
                self.tell("end-use").into_iter().chain(self.found(taken)).collect()
            }
            Event::GivenUp { .. } | Event::Removed { .. } if self.holds => self.tell("end-use"),
            _ => Vec::new(),
        };
        events.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(digest: &str) -> Made {
        Made {
            digest: digest.repeat(32),
            size_bytes: 1 << 30,
            read_bytes: 1 << 20,
            sent_bytes: 1 << 19,
            stored_bytes: 1 << 19,
            chunks: 1,
        }
    }

    fn creation() -> Creation {
        let member = |at: u128| Member {
            disk: Uuid::from_u128(at),
            disk_name: format!("web-{at}"),
            backup: Uuid::from_u128(100 + at),
        };
        Creation {
            name: "monday".into(),
            server: Uuid::from_u128(7),
            store: Uuid::from_u128(9),
            plan: None,
            found: Some(Source {
                id: Uuid::from_u128(50),
                project: None,
                host: serde_json::from_value(json!(Uuid::from_u128(8))).unwrap(),
                members: vec![member(1), member(2)],
                blueprint: None,
            }),
        }
    }

    fn stamp() -> Stamp {
        Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() }
    }

    /// The events' types, and whom else they tell what.
    fn said(
        state: &mut BackupSet,
        command: Command,
    ) -> Result<(Vec<String>, Vec<String>), &'static str> {
        let events = state.decide(command, &stamp()).map_err(|no| no.code.code)?;
        let told = state.companions(&events);
        let told = told.iter().map(|one| format!("{} {}", one.verb, one.id.as_u128())).collect();
        let types = events.iter().map(|event| {
            let value = serde_json::to_value(event).unwrap();
            value["type"].as_str().unwrap().to_owned()
        });
        let types = types.collect();
        *state = events.into_iter().fold(state.clone(), Decider::evolve);
        Ok((types, told))
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn all_disks_wait_and_then_each_has_its_backup() {
        let mut set = BackupSet::default();
        let begun = said(&mut set, Command::Create(creation())).unwrap();
        assert_eq!(begun, (texts(&["creation-ordered"]), texts(&["begin-use 1", "begin-use 2"])));
        assert_eq!((set.status(), set.ensure_whole().is_err()), ("taking", true));
        let of = |all: &[(u128, &str)]| Taken {
            quiesced: true,
            made: all.iter().map(|(at, one)| (Uuid::from_u128(*at), made(one))).collect(),
        };
        let half = Command::Confirm { number: 1, taken: of(&[(1, "0a")]) };
        assert_eq!(said(&mut set, half).unwrap_err(), "invalid-field");
        let all = Command::Confirm { number: 1, taken: of(&[(1, "0a"), (2, "0b")]) };
        let (events, told) = said(&mut set, all.clone()).unwrap();
        assert_eq!(events, texts(&["taken"]));
        assert_eq!(told, texts(&["end-use 1", "end-use 2", "find 101", "find 102"]));
        assert_eq!((set.status(), set.ensure_whole().unwrap().len()), ("available", 2));
        assert_eq!(said(&mut set, all).unwrap(), (vec![], vec![]), "twice is once");
        let delete = Command::Delete { found: Some([Uuid::from_u128(102)].into()) };
        let gone = said(&mut set, delete).unwrap();
        assert_eq!(gone, (texts(&["deleted"]), texts(&["delete 102"])));
        assert_eq!(set.status(), "gone");
    }

    fn described() -> Creation {
        let blueprint = json!({"name": "web", "spec": {"vcpus": 1, "memory_mib": 64}});
        let mut creation = creation();
        let found = creation.found.as_mut().unwrap();
        found.blueprint = Some(serde_json::from_value(blueprint).unwrap());
        creation
    }

    #[test]
    fn the_store_says_what_it_consists_of_until_it_is_deleted() {
        let mut set = BackupSet::default();
        said(&mut set, Command::Create(described())).unwrap();
        assert_eq!(set.description(Uuid::from_u128(50)), None, "nothing is there yet");
        let all: BTreeMap<_, _> =
            [(1, "0a"), (2, "0b")].map(|(at, one)| (Uuid::from_u128(at), made(one))).into();
        let taken = Taken { quiesced: false, made: all.clone() };
        said(&mut set, Command::Confirm { number: 1, taken }).unwrap();
        assert_eq!((set.status(), set.ensure_whole().is_ok()), ("describing", true));
        let delete = || Command::Delete { found: Some([Uuid::from_u128(102)].into()) };
        assert_eq!(said(&mut set, delete()).unwrap_err(), "order-outstanding");
        said(&mut set, Command::ConfirmDescribed { number: 2 }).unwrap();
        assert_eq!(set.status(), "available");

        let description = set.description(Uuid::from_u128(50)).unwrap();
        let (store, project) = (Uuid::from_u128(90), Some(Uuid::from_u128(91)));
        let found = description.clone().found(store, project, all.clone()).unwrap();
        let mut other = BackupSet::default();
        let (events, told) = said(&mut other, Command::Find(Box::new(found.clone()))).unwrap();
        assert_eq!((events, told), (texts(&["found"]), vec![]));
        assert_eq!((other.status(), other.project, other.store), ("available", project, store));
        assert_eq!((other.members(), other.blueprint()), (set.members(), set.blueprint()));
        assert_eq!(other.description(Uuid::from_u128(50)), Some(description.clone()));
        let again = said(&mut other, Command::Find(Box::new(found)));
        assert_eq!(again.unwrap_err(), "already-exists");
        let mut half = all.clone();
        half.remove(&Uuid::from_u128(2));
        assert!(description.clone().found(store, None, half).unwrap_err().contains("not there"));
        let mut odd = all.clone();
        odd.insert(Uuid::from_u128(2), made("0c"));
        assert!(description.clone().found(store, None, odd).is_err(), "it is another backup");
        let later = Description { form: 2, ..description };
        assert!(later.found(store, None, all).unwrap_err().contains("later"));

        let (events, told) = said(&mut set, delete()).unwrap();
        assert_eq!((events, told), (texts(&["deleted"]), texts(&["delete 102"])));
        assert_eq!((set.status(), set.ensure_whole().is_err()), ("removing", true));
        said(&mut set, Command::ConfirmRemoval { number: 3 }).unwrap();
        assert_eq!(set.status(), "gone");
    }

    #[test]
    fn what_is_given_up_lets_the_disks_go_once() {
        let mut set = BackupSet::default();
        said(&mut set, Command::Create(creation())).unwrap();
        let park = |number| Command::Park { number, reason: "no".into() };
        said(&mut set, park(1)).unwrap();
        let abandon = Command::Abandon { host_lost: false };
        let given = said(&mut set, abandon).unwrap().0;
        assert_eq!(given, texts(&["abandoned", "give-up-ordered"]));
        let (events, told) = said(&mut set, Command::ConfirmGivenUp { number: 2 }).unwrap();
        assert_eq!(events, texts(&["given-up", "removal-ordered"]));
        assert_eq!(told, texts(&["end-use 1", "end-use 2"]));
        let removed = said(&mut set, Command::ConfirmRemoval { number: 3 }).unwrap();
        assert_eq!(removed, (texts(&["removed"]), vec![]));
        // A host that is dead is not asked.
        let mut set = BackupSet::default();
        said(&mut set, Command::Create(creation())).unwrap();
        said(&mut set, Command::Abandon { host_lost: true }).unwrap();
        let (_, told) = said(&mut set, Command::ConfirmRemoval { number: 2 }).unwrap();
        assert_eq!(told, texts(&["end-use 1", "end-use 2"]));
    }
}
