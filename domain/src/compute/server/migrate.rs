//! A server on its way to another host, running or stopped, and one that is had back from a host that
//! is dead.
//!
//! ```text
//!          migrate              prepared            sent                 confirm
//!  at home ───────► receiving ───────────► sending ──────► arriving ──────────────► at home, there
//!     ▲                 │ abandon             │ stays, and   │ lost: only where nobody was sure
//!     │                 │                     │ broken off    │
//!     │                 ▼                     ▼               ▼
//!     └─────────────────┴─────────────────────┴───────── taking back
//! ```
//!
//! Each step is an order of its own, carried out by the agent of the host that it concerns: the host that
//! it goes to makes itself ready, the one that it is on hands it over, the first takes it. Both hosts keep
//! its place until it is known to be on one of them; the other is then told to leave nothing of it, in
//! its own time.
//!
//! Disks that are on its host alone are copied, whether it runs or not: the host that it goes to makes empty
//! ones, which are filled while it is sent. Those that it had are removed when the other host has said that
//! it is there.
//!
//! Where its disks are volumes that hosts share, and it runs, a step comes before these: *sharing*, by its own
//! host, whose lock on them keeps every other from having them.
//!
//! It is started on another host only after its own has said that it does not run there any more. Where
//! that is not known, because libvirt died between handing it over and saying so, the host that it goes
//! to looks first: it runs there, or nothing of it is left there, and then it is let go on where it was.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    Event, Machine, Order, Power, Server,
    carried::Used,
    elsewhere::{OTHER_CELLS, Tie},
    home::Home,
    transfer::TransferLimits,
};
use crate::{
    compute::placement::{HostId, Placement},
    kernel::{Companion, Decider, Outstanding, Refusal, Stamp, codes},
};

pub use super::elsewhere::LIVE;

/// Where it lies and is reached on the host that it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Landing {
    /// Files of its disks there, by the disks' ids.
    #[serde(default)]
    pub disks: BTreeMap<Uuid, String>,
    /// The folder there of everything else that it has.
    #[serde(default)]
    pub folder: String,
    /// The libvirt daemon there, as the other host reaches it; none where it takes no running servers.
    #[serde(default)]
    pub libvirt: Option<String>,
    /// Where memory is sent to, such as `tcp://10.0.0.5`; as libvirt finds it when it is none.
    #[serde(default)]
    pub memory: Option<String>,
}

/// A server's being on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moving {
    /// Where it was.
    pub from: Box<Placement>,
    /// Where it goes.
    pub to: Box<Placement>,
    /// Whether it runs meanwhile.
    pub live: bool,
    /// How long it may take, and how fast it may be sent.
    #[serde(default, skip_serializing_if = "TransferLimits::is_unsaid")]
    pub limits: TransferLimits,
    /// What its interfaces had used on the host that it leaves.
    #[serde(default, skip_serializing_if = "Used::is_empty")]
    pub used: Used,
}

/// What became of a step of its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum MigrationStep {
    /// The host that it was to go to has nothing of it.
    Lost {},
    /// The host that it goes to is ready.
    Prepared {
        /// Where it lies there.
        landing: Landing,
    },
    /// Its host has handed it over.
    Sent {
        /// Whether it is known not to run there any more.
        certain: bool,
        /// What its interfaces that are counted have used.
        #[serde(default, skip_serializing_if = "Used::is_empty")]
        used: Used,
    },
    /// The host that it goes to may have its volumes as well.
    Shared {},
    /// It stays where it is, as it was.
    Stays {
        /// Why.
        reason: String,
        /// What is there.
        seen: Box<Machine>,
    },
}

impl Home {
    fn tell(&self, host: HostId, verb: &'static str) -> Companion {
        let body = json!({"server": self.placement.holding.server, "host": host});
        Companion { kind: "host", id: host.uuid(), verb, body }
    }

    /// A host that it is not on has nothing of it, and not its disks either.
    fn clear(&self, host: HostId) -> Companion {
        let mut clear = self.tell(host, "clear");
        let disks = self.local_disks();
        if !disks.is_empty() {
            clear.body["disks"] = json!(disks);
        }
        clear
    }

    /// Volumes that several hosts reach are told who may have them active.
    fn lease(&self, verb: &'static str, host: HostId) -> impl Iterator<Item = Companion> {
        self.parts.disks.iter().filter(|disk| disk.leased).map(move |disk| {
            let body = json!({"host": host});
            Companion { kind: "disk", id: disk.id, verb, body }
        })
    }

    /// Its disks are where it is.
    fn disks_go(&self, host: HostId) -> impl Iterator<Item = Companion> {
        self.parts.disks.iter().map(move |disk| {
            let body = json!({"host": host});
            Companion { kind: "disk", id: disk.id, verb: "move-with-server", body }
        })
    }
}

fn reserve(to: &Placement) -> Companion {
    let body = json!({"holding": to.holding});
    Companion { kind: "host", id: to.host.uuid(), verb: "reserve", body }
}

impl Server {
    /// Whether it can go to another host now, and whether it runs meanwhile.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud, `wrong-state`, `order-outstanding`, `order-parked` and
    /// `not-movable`.
    pub fn movable(&self) -> Result<bool, Refusal> {
        let home = self.ours("migrate")?;
        let live = match self.free("migrate")?.power {
            Power::Running => true,
            Power::Stopped => false,
            _ => return Err(Refusal::wrong_state("migrate", self.status())),
        };
        untied(home.tied(live))?;
        Ok(live)
    }

    /// Whether it can be had back from its host, which is dead, and whether it is to run then.
    ///
    /// What its host was told and never said is over with it: an interface that was to come is there on the other
    /// host, and what was to go, to be changed or to be made anew is as it was, to be asked for again. A server that
    /// was being launched is launched elsewhere, for nobody has written anything on its disks.
    ///
    /// # Errors
    /// As [`Self::movable`]; an order that another host is to finish is in the way.
    pub fn evacuable(&self) -> Result<bool, Refusal> {
        let home = self.ours("evacuate")?;
        if self.is_launching() {
            return Ok(true);
        }
        let Some(seen) = self.observation.seen.as_ref().filter(|_| !self.is_deleted()) else {
            return Err(Refusal::wrong_state("evacuate", self.status()));
        };
        untied(home.stranded())?;
        // What is rescued is what it was before.
        let ran = home.rescue.as_ref().map_or(seen.power == Power::Running, |rescue| rescue.runs);
        match self.orders.out.as_ref().map(|out| &out.order) {
            None
            | Some(
                Order::AddNic { .. }
                | Order::BreakOff {}
                | Order::ChangeAddresses { .. }
                | Order::ChangeCdrom { .. }
                | Order::ChangeDevices { .. }
                | Order::ChangeNics {}
                | Order::RemoveNic { .. }
                | Order::Rescue { .. }
                | Order::Resize { .. }
                | Order::RestoreAddresses { .. }
                | Order::Send { .. }
                | Order::SetPassword { .. }
                | Order::TakeBack {},
            ) => Ok(ran),
            Some(Order::LeaveRescue { start }) => Ok(*start),
            // The host that it went to, or was to be had back on, is dead as well.
            Some(Order::Arrive { start, certain }) if *certain || home.moving.is_some() => {
                Ok(*start)
            }
            Some(Order::Start {} | Order::Reboot {} | Order::Resume {}) => Ok(true),
            // Its root disk may be the old one or the new one.
            Some(Order::Rebuild { .. } | Order::Stop {} | Order::Suspend {}) => Ok(false),
            Some(_) => self.orders.ensure_free().map(|()| false),
        }
    }

    /// Where it is looked for, or begun, before another place is: the host that it was to go to when its own died,
    /// and the one that it came from when that died which it had gone to.
    pub fn evacuated_to(&self) -> Option<HostId> {
        let (home, out) = (self.home.as_ref()?, self.orders.out.as_ref()?);
        let moving = home.moving.as_ref()?;
        match out.order {
            Order::BreakOff {} | Order::Send { .. } | Order::TakeBack {} => Some(moving.to.host),
            Order::Arrive { .. } => Some(moving.from.host),
            _ => None,
        }
    }

    /// Whether nobody has seen it yet, for it is still being made.
    pub fn is_launching(&self) -> bool {
        let order = self.orders.out.as_ref().map(|out| &out.order);
        matches!(order, Some(Order::Launch {})) && self.observation.seen.is_none()
    }

    pub(super) fn migrate(
        &self,
        limits: TransferLimits,
        to: Option<Box<Placement>>,
    ) -> Result<Vec<Event>, Refusal> {
        let live = self.movable()?;
        limits.check()?;
        let mut to = self.checked(to)?;
        let home = self.ours("migrate")?;
        if live {
            let own = &home.placement.holding;
            if !own.is_seen_as(&to.holding) {
                return Err(Refusal::new(&codes::NOT_MOVABLE, OTHER_CELLS));
            }
            // Its guest runs on and sees what it saw at its start.
            to.holding.threads = own.threads;
        }
        Ok(vec![Event::MigrationOrdered { to, live, limits }])
    }

    pub(super) fn evacuate(
        &self,
        host_is_down: bool,
        to: Option<Box<Placement>>,
        stamp: &Stamp,
    ) -> Result<Vec<Event>, Refusal> {
        let start = self.evacuable()?;
        if !host_is_down {
            let detail = "host_is_down: make sure that its host is switched off, and say so: what \
                          runs twice on the same disks destroys them";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        match &self.orders.out {
            // It may run where it was sent to: that host looks.
            Some(Outstanding {
                order: Order::BreakOff {} | Order::Send { .. }, number, ..
            }) => {
                return Ok(vec![Event::MigrationSent {
                    number: *number,
                    certain: false,
                    used: Used::new(),
                }]);
            }
            // It does not: it is begun there.
            Some(Outstanding { order: Order::TakeBack {}, number, .. }) if to.is_none() => {
                return Ok(vec![Event::MigrationSent {
                    number: *number,
                    certain: true,
                    used: Used::new(),
                }]);
            }
            Some(Outstanding { order: Order::Arrive { certain, .. }, .. }) => {
                let moving = self.ours("evacuate")?.moving.as_ref();
                match (moving, &to) {
                    // The host that it came from still has its place, and its disks.
                    (Some(moving), None) => {
                        return Ok(vec![Event::Evacuated { to: moving.from.clone(), start }]);
                    }
                    (Some(moving), Some(_)) if !certain => {
                        let detail = format!(
                            "to: whether it runs on {} is not known, and nowhere else can it be begun",
                            moving.from.host
                        );
                        return Err(Refusal::new(&codes::WRONG_STATE, detail));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        let to = self.checked(to)?;
        let left = self.rescued().map(|rescue| rescue.left(stamp));
        Ok(left.into_iter().chain([Event::Evacuated { to, start }]).collect())
    }

    /// A place for it that is another than its own.
    fn checked(&self, to: Option<Box<Placement>>) -> Result<Box<Placement>, Refusal> {
        let to =
            to.ok_or_else(|| Refusal::new(&codes::NO_ROOM, "placement: no place was looked for"))?;
        let (own, new) = (&self.ours("migrate")?.placement, &to.holding);
        let same = own.holding.server == new.server
            && (own.holding.vcpus, own.holding.memory_mib) == (new.vcpus, new.memory_mib);
        if !same || own.host == to.host {
            let detail = "placement: it is of another server, or where it is already";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(to)
    }

    /// What a host says of a step of its way. What it says of another step is not news.
    pub(super) fn stepped(&self, number: u64, step: MigrationStep) -> Vec<Event> {
        let out = self.orders.out.as_ref().filter(|out| out.number == number);
        match (out.map(|out| &out.order), step) {
            (Some(Order::Receive {}), MigrationStep::Prepared { landing }) => {
                vec![Event::MigrationPrepared { number, landing }]
            }
            (Some(Order::Share {}), MigrationStep::Shared {}) => {
                vec![Event::MigrationShared { number }]
            }
            (
                Some(Order::BreakOff {} | Order::Send { .. }),
                MigrationStep::Sent { certain, used },
            ) => vec![Event::MigrationSent { number, certain, used }],
            (
                Some(Order::BreakOff {} | Order::Send { .. }),
                MigrationStep::Stays { reason, seen },
            ) => vec![Event::MigrationFailed { number, reason, seen: *seen }],
            (Some(Order::Arrive { certain: false, .. }), MigrationStep::Lost {}) => {
                vec![Event::MigrationReturned { number }]
            }
            _ => vec![],
        }
    }

    /// Whether what is out is reported step by step.
    pub(super) fn is_on_its_way(&self) -> bool {
        let order = self.orders.out.as_ref().map(|out| &out.order);
        matches!(
            order,
            Some(Order::BreakOff {} | Order::Receive {} | Order::Send { .. } | Order::Share {})
        )
    }

    /// Its disks stay as they are while it is on its way, or comes back from a host that is dead.
    ///
    /// # Errors
    /// `wrong-state`, while it does.
    pub fn stays(&self, what: &str) -> Result<(), Refusal> {
        let arrives =
            matches!(&self.orders.out, Some(Outstanding { order: Order::Arrive { .. }, .. }));
        if arrives || self.home.as_ref().is_some_and(|home| home.moving.is_some()) {
            return Err(Refusal::wrong_state(what, self.status()));
        }
        Ok(())
    }

    /// What becomes of a step of its way that is given up; nothing special of other orders.
    ///
    /// # Errors
    /// `wrong-state`: it may run in two places if this is given up.
    pub(super) fn gives_up(&self) -> Result<Option<Vec<Event>>, Refusal> {
        let Some(Outstanding { order, number, parked }) = &self.orders.out else {
            return Ok(None);
        };
        match order {
            // Nothing was done to it, so it need not have failed either.
            Order::Receive {} | Order::Share {} => Ok(Some(vec![Event::Abandoned {}])),
            // What its host has done of it nobody knows: the other one looks.
            Order::BreakOff {} | Order::Send { .. } if parked.is_some() => {
                Ok(Some(vec![Event::MigrationSent {
                    number: *number,
                    certain: false,
                    used: Used::new(),
                }]))
            }
            // It is being sent: its host is told to stop, and says what came of it.
            Order::Send { .. } => Ok(Some(vec![Event::BreakOffOrdered {}])),
            Order::BreakOff {} => Ok(Some(vec![])),
            Order::Arrive { certain: false, .. } => {
                self.orders.ensure_parked()?;
                let detail = "whether it runs on the host that it goes to is not known: retry";
                Err(Refusal::new(&codes::WRONG_STATE, detail))
            }
            _ => Ok(None),
        }
    }

    /// What a fact of its way says to hosts and disks; this is the state before it.
    pub(super) fn moves(&self, event: &Event) -> Vec<Companion> {
        let Some(home) = &self.home else { return Vec::new() };
        let out = self.orders.out.as_ref().map(|out| &out.order);
        let moving = home.moving.as_ref();
        match (event, out, moving) {
            (Event::MigrationOrdered { to, live, .. }, ..) => {
                let leases = home.lease("share-lease", to.host).filter(|_| *live);
                std::iter::once(reserve(to)).chain(leases).collect()
            }
            // It has left its host, or nobody knows whether it has.
            (Event::MigrationSent { certain, .. }, _, Some(moving)) => {
                let verb = if *certain { "take-lease" } else { "share-lease" };
                // Its own host is dead when that cannot have it back.
                let is_dead = matches!(out, Some(Order::TakeBack {}));
                let fence = is_dead.then(|| home.tell(moving.from.host, "fence"));
                fence.into_iter().chain(home.lease(verb, moving.to.host)).collect()
            }
            (Event::MigrationFailed { .. }, _, Some(moving))
            | (
                Event::Abandoned {},
                Some(Order::Receive {} | Order::Share {} | Order::TakeBack {}),
                Some(moving),
            )
            | (Event::Confirmed { .. }, Some(Order::TakeBack {}), Some(moving)) => {
                let clear = home.clear(moving.to.host);
                std::iter::once(clear).chain(home.lease("end-lease", moving.to.host)).collect()
            }
            (
                Event::Abandoned {} | Event::Confirmed { .. },
                Some(Order::Arrive { .. }),
                Some(moving),
            ) => {
                // What it had on its own host is there until it is known to be on the other.
                let is_there = matches!(event, Event::Confirmed { .. });
                let clear = if is_there {
                    home.clear(moving.from.host)
                } else {
                    home.tell(moving.from.host, "clear")
                };
                std::iter::once(clear).chain(home.disks_go(moving.to.host)).collect()
            }
            (Event::Evacuated { to, .. }, ..) => {
                let dead = home.placement.host;
                let other = moving.map(|moving| {
                    if moving.to.host == dead { moving.from.host } else { moving.to.host }
                });
                // What it came from has its place and its disks already.
                let has_place = other == Some(to.host);
                let reserved = (!has_place).then(|| reserve(to));
                let clear = if matches!(out, Some(Order::Launch {})) {
                    home.clear(dead)
                } else {
                    home.tell(dead, "clear")
                };
                let there = other.filter(|_| !has_place).map(|host| home.clear(host));
                let leases = home.lease("take-lease", to.host).filter(|_| has_place);
                let disks = home.disks_go(to.host).filter(|_| !has_place);
                reserved
                    .into_iter()
                    .chain([home.tell(dead, "fence"), clear])
                    .chain(there)
                    .chain(leases)
                    .chain(disks)
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The state after a fact of its way.
    pub(super) fn moved(&mut self, event: Event) {
        match event {
            Event::BreakOffOrdered {} => self.orders.issue(Order::BreakOff {}),
            Event::Evacuated { to, start } => {
                let is_launching = self.is_launching();
                let seen = self.observation.seen.clone();
                self.at_home(|home| {
                    home.carry_off(seen.as_ref());
                    home.placement = to;
                    home.rescue = None;
                    // It is started anew there.
                    home.may_have_grown = false;
                });
                self.orders.issue(if is_launching {
                    Order::Launch {}
                } else {
                    Order::Arrive { start, certain: true }
                });
            }
            Event::MigrationFailed { seen, .. } => {
                self.at_home(|home| home.moving = None);
                self.orders.settle();
                self.see(seen);
            }
            Event::MigrationOrdered { to, live, limits } => {
                let mut shares = false;
                let seen = self.observation.seen.clone();
                self.at_home(|home| {
                    shares = live && home.parts.disks.iter().any(|disk| disk.leased);
                    let (from, used) = (home.placement.clone(), home.used(seen.as_ref()));
                    home.moving = Some(Moving { from, to, live, limits, used });
                });
                self.orders.issue(if shares { Order::Share {} } else { Order::Receive {} });
            }
            Event::MigrationShared { .. } => self.orders.issue(Order::Receive {}),
            Event::MigrationPrepared { landing, .. } => {
                self.orders.issue(Order::Send { landing: Box::new(landing) });
            }
            Event::MigrationReturned { .. } => {
                self.at_home(|home| {
                    if let Some(moving) = &home.moving {
                        home.placement = moving.from.clone();
                    }
                });
                self.orders.issue(Order::TakeBack {});
            }
            Event::MigrationSent { certain, used, .. } => {
                let mut start = false;
                self.at_home(|home| {
                    if let Some(moving) = &mut home.moving {
                        moving.used.extend(used);
                        start = moving.live;
                        home.placement = moving.to.clone();
                    }
                });
                self.orders.issue(Order::Arrive { start, certain });
            }
            _ => {}
        }
    }
}

fn untied(tied: Vec<Tie>) -> Result<(), Refusal> {
    if tied.is_empty() {
        return Ok(());
    }
    let why: Vec<String> = tied.into_iter().map(|(_, why)| why).collect();
    Err(Refusal::new(&codes::NOT_MOVABLE, why.join("; ")))
}

#[cfg(test)]
mod tests;
