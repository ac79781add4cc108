//! A snapshot of a disk of ours: what the disk was at a moment, kept in the disk itself, or beside it in its
//! volume group.
//!
//! ```text
//!          create             confirm              delete              confirm-removal
//!  absent ───────► taking ─────────────► available ──────► deleting ──────────────────► gone
//!                    │ abandon              │ ▲               ▲
//!                    └──────────────────────┼─┼───────────────┘
//!                                 roll-back ▼ │ confirm
//!                                      rolling back
//! ```
//!
//! It is taken and deleted whether the disk's server runs or not; going back is for one that is stopped.
//! It is lost with its disk: to be safe from that is what a [backup](super::backup) is for. It is its
//! disk's owner's, and goes to another project with the disk alone. While something is done with it
//! nothing else is done with the disk.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{disk::Disk, placement::HostId, server::home::PROVIDER};
use crate::{
    kernel::{
        Companion, Decider, Facets, OnHost, Orders, Outstanding, Refusal, Stamp, Verb, codes,
    },
    tenancy::check_name,
};

/// What a snapshot can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "SnapshotOrder")]
pub enum Order {
    /// Leave nothing of it in the disk.
    Remove {},
    /// Make the disk what it was.
    RollBack {},
    /// Take it.
    Take {},
}

/// Where its disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SnapshotPlace")]
pub struct Place {
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
    /// How large the disk is, in GiB.
    pub size_gib: u64,
}

/// What a snapshot is taken with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SnapshotCreation")]
pub struct Creation {
    /// What it is called, 1…100 characters.
    pub name: String,
    /// The disk: one of ours, qcow2, or raw in a volume group.
    pub disk: Uuid,
    /// Filled in by Skyledger.
    #[serde(default)]
    pub found: Option<Place>,
}

/// A command of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(rename = "SnapshotCommand")]
pub enum Command {
    /// Give up the order that is parked, or that a host has which does not have the disk any more.
    Abandon {
        /// Filled in by Skyledger: where the disk is, when that is another host.
        #[serde(default)]
        found: Option<Place>,
    },
    /// Its disk was given to a project, and it with it.
    AssignWithDisk {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// The host has carried out an order.
    Confirm {
        /// The order's number.
        number: u64,
    },
    /// The host has left nothing of it.
    ConfirmRemoval {
        /// The order's number.
        number: u64,
    },
    /// Take a snapshot of a disk.
    Create(Creation),
    /// Remove it for good.
    Delete {
        /// Filled in by Skyledger.
        #[serde(default)]
        found: Option<Place>,
    },
    /// Its disk was removed, and it with it.
    GoWithDisk {},
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Go on with the order that is parked.
    Retry {},
    /// Make the disk what it was; its server is stopped. What was written since is lost.
    RollBack {
        /// Filled in by Skyledger.
        #[serde(default)]
        found: Option<Place>,
    },
}

/// A fact about a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "SnapshotEvent")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// Its disk was given to a project, and it with it.
    Assigned {
        /// The new owner; none is the estate.
        project: Option<Uuid>,
    },
    /// It is to be taken.
    CreationOrdered {
        /// Of what.
        creation: Creation,
        /// When.
        at: DateTime<Utc>,
    },
    /// Its disk was removed, and it with it.
    GoneWithDisk {},
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// It is to be removed.
    RemovalOrdered {
        /// Where its disk is.
        place: Place,
    },
    /// Nothing of it is left.
    Removed {},
    /// A parked order goes on.
    RetryOrdered {},
    /// The disk is to be what it was.
    RollBackOrdered {
        /// Where the disk is.
        place: Place,
    },
    /// The disk is what it was.
    RolledBack {
        /// The order's number.
        number: u64,
    },
    /// It is there.
    Taken {
        /// The order's number.
        number: u64,
    },
}

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// The disk.
    pub disk: Uuid,
    /// Where its disk was when something was last done with it.
    pub place: Option<Place>,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// How large the disk was then, in GiB.
    pub size_gib: u64,
    /// Whether it was ever there.
    pub taken: bool,
    /// Whether nothing of it is left.
    pub removed: bool,
    /// What is wanted of it.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the parked order; what was begun is taken back."),
    Verb::system("assign-with-disk", "Says that its disk was given to a project, and it with it."),
    Verb::system("confirm", "Reports that an order was carried out."),
    Verb::system("confirm-removal", "Reports that nothing of it is left."),
    Verb::operator("create", "Takes a snapshot of a disk of ours, also while its server runs.")
        .creating(),
    Verb::operator("delete", "Removes it for good, also while the disk's server runs."),
    Verb::system("go-with-disk", "Says that its disk was removed, and it with it."),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::operator("retry", "Goes on with the parked order."),
    Verb::operator("roll-back", "Makes the disk what it was; its server is stopped."),
];

fn looked(found: Option<Place>) -> Result<Place, Refusal> {
    let detail = "found: nobody looked where the disk is";
    found.ok_or_else(|| Refusal::new(&codes::INVALID_FIELD, detail))
}

impl Snapshot {
    /// Whether it exists.
    pub fn exists(&self) -> bool {
        !self.name.is_empty()
    }

    /// One that is there and that nothing is ordered of.
    ///
    /// # Errors
    /// `not-found`, `wrong-state`, `order-outstanding`, `order-parked`.
    pub fn ensure_free(&self, verb: &str) -> Result<(), Refusal> {
        if !self.exists() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such snapshot"));
        }
        self.orders.ensure_free()?;
        if self.removed || !self.taken {
            return Err(Refusal::wrong_state(verb, Decider::status(self)));
        }
        Ok(())
    }

    fn tell(&self, verb: &'static str) -> Vec<Companion> {
        let by = self.place.map(|place| place.id);
        by.map_or_else(Vec::new, |by| vec![told(by, self.disk, verb)])
    }
}

/// What a disk is told by a snapshot.
fn told(by: Uuid, disk: Uuid, verb: &'static str) -> Companion {
    let body = match verb {
        "begin-use" | "end-use" => json!({"by": by}),
        _ => json!({"snapshot": by}),
    };
    Companion { kind: Disk::KIND, id: disk, verb, body }
}

impl Decider for Snapshot {
    const KIND: &'static str = "snapshot";
    const PLURAL: &'static str = "snapshots";
    const SUMMARY: &'static str =
        "What a disk of ours was at a moment, kept in the disk itself or in its volume group.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Abandon { found } => {
                if found.is_none() || self.orders.out.is_none() {
                    self.orders.ensure_parked()?;
                }
                match (self.orders.out.as_ref().map(|out| &out.order), found.or(self.place)) {
                    // What was begun is taken back.
                    (Some(Order::Take {}), Some(place)) => {
                        vec![Event::Abandoned {}, Event::RemovalOrdered { place }]
                    }
                    // It goes on where the disk is.
                    (Some(Order::Remove {}), Some(place)) if found.is_some() => {
                        vec![Event::Abandoned {}, Event::RemovalOrdered { place }]
                    }
                    // It never was there, as far as anybody knows.
                    (Some(Order::Remove {}), _) if !self.taken => {
                        vec![Event::Abandoned {}, Event::Removed {}]
                    }
                    _ => vec![Event::Abandoned {}],
                }
            }
            Command::AssignWithDisk { project } => {
                let place = self.place.filter(|_| self.exists() && !self.removed);
                let changes = place.is_some_and(|place| place.project != project);
                if changes { vec![Event::Assigned { project }] } else { vec![] }
            }
            Command::Confirm { number }
                if self.orders.is_out(number) && !self.orders.has_out(&Order::Remove {}) =>
            {
                let back = self.orders.out.as_ref().is_some_and(|out| out.order != Order::Take {});
                vec![if back { Event::RolledBack { number } } else { Event::Taken { number } }]
            }
            Command::ConfirmRemoval { number }
                if self.orders.is_out_as(number, &Order::Remove {}) =>
            {
                vec![Event::Removed {}]
            }
            // A report about an order that is settled already says nothing new.
            Command::Confirm { .. } | Command::ConfirmRemoval { .. } => vec![],
            Command::Create(_) if self.exists() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the snapshot exists"));
            }
            Command::Create(creation) => {
                check_name(&creation.name)?;
                looked(creation.found)?;
                vec![Event::CreationOrdered { creation, at: stamp.now }]
            }
            Command::Delete { found } => {
                self.ensure_free("delete")?;
                vec![Event::RemovalOrdered { place: looked(found)? }]
            }
            Command::GoWithDisk {} => {
                let there = self.exists() && !self.removed;
                if there { vec![Event::GoneWithDisk {}] } else { vec![] }
            }
            Command::Park { number, reason } => {
                let on = self.orders.is_worked_on(number);
                if on { vec![Event::Parked { number, reason }] } else { vec![] }
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::RollBack { found } => {
                self.ensure_free("roll-back")?;
                vec![Event::RollBackOrdered { place: looked(found)? }]
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} | Event::RolledBack { .. } => self.orders.settle(),
            Event::Assigned { project } => {
                if let Some(place) = &mut self.place {
                    place.project = project;
                }
            }
            Event::CreationOrdered { creation, at } => {
                self = Self {
                    name: creation.name,
                    disk: creation.disk,
                    place: creation.found,
                    taken_at: at,
                    size_gib: creation.found.map_or(0, |place| place.size_gib),
                    ..Self::default()
                };
                self.orders.issue(Order::Take {});
            }
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::RemovalOrdered { place } => {
                self.place = Some(place);
                self.orders.issue(Order::Remove {});
            }
            Event::GoneWithDisk {} | Event::Removed {} => {
                self.removed = true;
                self.orders.settle();
            }
            Event::RetryOrdered {} => self.orders.retry(),
            Event::RollBackOrdered { place } => {
                self.place = Some(place);
                self.orders.issue(Order::RollBack {});
            }
            Event::Taken { .. } => {
                self.taken = true;
                self.orders.settle();
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
            Some(Outstanding { order: Order::Remove {}, .. }) => "deleting",
            Some(Outstanding { order: Order::RollBack {}, .. }) => "rolling-back",
            Some(Outstanding { order: Order::Take {}, .. }) => "taking",
            None => "available",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.place.and_then(|place| place.project),
            provider: Some(PROVIDER.to_owned()),
            parent: Some(self.disk.to_string()),
            gone: self.removed,
            ..Facets::default()
        }
    }

    fn on_host(&self) -> Option<OnHost> {
        let place = self.place?;
        Some(OnHost { host: place.host.uuid(), server: place.server })
    }

    fn volumes(&self) -> Vec<Uuid> {
        vec![self.disk]
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let mut all = Vec::new();
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::CreationOrdered { creation, .. } => {
                    let by = creation.found.map(|place| place.id);
                    all.extend(by.map(|by| told(by, creation.disk, "begin-use")));
                }
                Event::RemovalOrdered { place } | Event::RollBackOrdered { place } => {
                    all.push(told(place.id, self.disk, "begin-use"));
                }
                // What follows it goes on using the disk.
                Event::Abandoned {} if at + 1 == events.len() => all.extend(self.tell("end-use")),
                Event::RolledBack { .. } => all.extend(self.tell("end-use")),
                Event::Taken { .. } => {
                    all.extend(self.tell("keep-snapshot"));
                    all.extend(self.tell("end-use"));
                }
                Event::Removed {} => {
                    all.extend(self.tell("drop-snapshot"));
                    all.extend(self.tell("end-use"));
                }
                _ => {}
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
