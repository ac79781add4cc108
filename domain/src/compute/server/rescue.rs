//! A server that is started from a small system in memory, to be repaired: its disks are there, devices
//! of its host are not.
//!
//! ```text
//!                     rescue               confirm                leave-rescue
//!  running, stopped ─────────► rescuing ─────────────► rescued ─────────────────┐
//!         ▲                       │ abandon                │ stop               ▼
//!         │                       └──────────────────────────────────► leaving-rescue
//!         │                                                │                    │ abandon
//!         │                                                ▼                    ▼
//!         └──────────────── confirm ◄────────────────── stopping ◄──────────────┘
//! ```
//!
//! Whatever fails on the way, it ends as it was before, or stopped. The next start is always from what
//! its disks have. Who opened it, when, and for how long it was open is recorded.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Event, Machine, Order, Power, Server};
use crate::kernel::{Decider, Refusal, Stamp, codes};

/// Longest path and command line, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// A system that runs from memory, as files of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RescueSystem {
    /// The kernel, by its whole path.
    pub kernel: String,
    /// What the kernel unpacks into memory, by its whole path. Its guest agent must come up by itself:
    /// through it the password is set, and there is none before.
    pub initramfs: String,
    /// What the kernel is told.
    #[serde(default)]
    pub command_line: String,
}

/// A server's being in rescue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rescue {
    /// Who asked for it.
    pub by: String,
    /// Since when it runs the small system; none while it does not yet.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// Whether the server ran before, and is to run afterwards.
    pub runs: bool,
}

impl RescueSystem {
    /// Whether a host could have such files.
    ///
    /// # Errors
    /// `invalid-field`.
    pub fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        let texts = [
            ("kernel", &self.kernel, true),
            ("initramfs", &self.initramfs, true),
            ("command_line", &self.command_line, false),
        ];
        for (name, text, is_path) in texts {
            if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
                return no(format!("rescue.{name}: at most {TEXT_BYTES_MAX} bytes in one line"));
            }
            if is_path && !text.starts_with('/') {
                return no(format!("rescue.{name}: is a whole path, from `/`"));
            }
        }
        Ok(())
    }
}

impl Rescue {
    /// That it is over, and for how long it was open.
    pub(super) fn left(&self, stamp: &Stamp) -> Event {
        let seconds = self.since.map_or(0, |since| (stamp.now - since).num_seconds());
        Event::RescueLeft { by: self.by.clone(), seconds: seconds.max(0).unsigned_abs() }
    }
}

impl Server {
    /// The rescue it is in, once its small system runs.
    pub(super) fn rescued(&self) -> Option<&Rescue> {
        let rescue = self.home.as_ref().and_then(|home| home.rescue.as_ref());
        rescue.filter(|rescue| rescue.since.is_some())
    }

    /// Whether it can be rescued now.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud, `wrong-state`, `order-outstanding` and `order-parked`.
    pub fn check_rescue(&self) -> Result<(), Refusal> {
        self.ours("rescue")?;
        match self.free("rescue")?.power {
            Power::Running | Power::Stopped => Ok(()),
            _ => Err(Refusal::wrong_state("rescue", self.status())),
        }
    }

    pub(super) fn rescue(
        &self,
        system: Option<RescueSystem>,
        sealed: Option<String>,
        stamp: &Stamp,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_rescue()?;
        let (Some(system), Some(password)) = (system, sealed) else {
            let detail = "system: nobody looked for what its host has";
            return Err(Refusal::new(&codes::NO_RESCUE_SYSTEM, detail));
        };
        system.check()?;
        let runs = self.free("rescue")?.power == Power::Running;
        Ok(vec![Event::RescueOrdered { by: stamp.actor.clone(), runs, system, password }])
    }

    pub(super) fn leave_rescue(&self) -> Result<Vec<Event>, Refusal> {
        self.ours("leave-rescue")?;
        self.orders.ensure_free()?;
        match self.rescued() {
            Some(rescue) => Ok(vec![Event::LeaveRescueOrdered { start: rescue.runs }]),
            None => Err(Refusal::wrong_state("leave-rescue", self.status())),
        }
    }

    /// What follows when an order was carried out.
    pub(super) fn confirmed(&self, number: u64, seen: Machine, stamp: &Stamp) -> Vec<Event> {
        let confirmed = Event::Confirmed { number, seen };
        let rescue = self.home.as_ref().and_then(|home| home.rescue.as_ref());
        let order = self.orders.out.as_ref().map(|out| &out.order);
        match (order, rescue) {
            (Some(Order::Rescue { .. }), Some(rescue)) => {
                let by = rescue.by.clone();
                vec![confirmed, Event::RescueEntered { by, at: stamp.now }]
            }
            (Some(Order::LeaveRescue { .. } | Order::Stop {}), Some(rescue)) => {
                vec![confirmed, rescue.left(stamp)]
            }
            _ => vec![confirmed],
        }
    }

    /// What follows when a parked order is given up: what was begun on the host is brought to an end.
    pub(super) fn abandoned(&self) -> Vec<Event> {
        let rescue = self.home.as_ref().and_then(|home| home.rescue.as_ref());
        let next = match self.orders.out.as_ref().map(|out| &out.order) {
            // What was looked at is not what is there, or is not there: nothing was done to it.
            Some(Order::Adopt { .. }) => Some(Event::ReleaseOrdered {}),
            // Half of it may be there: its addresses are free once it is not.
            Some(Order::AddNic { nic }) => Some(Event::NicRemovalOrdered { nic: *nic }),
            // The guest may have either by now.
            Some(Order::ChangeAddresses { nic, found }) => {
                Some(Event::AddressRestoreOrdered { nic: *nic, found: found.clone() })
            }
            Some(Order::RestoreAddresses { .. }) => Some(Event::NicsReadOrdered {}),
            // What was begun is taken away again, and the place given back.
            Some(Order::Launch {}) => Some(Event::RemovalOrdered {}),
            Some(Order::Rescue { .. }) => {
                rescue.map(|rescue| Event::LeaveRescueOrdered { start: rescue.runs })
            }
            // It may have been stopped already, and its disk may be the old one or the new one.
            Some(Order::LeaveRescue { .. } | Order::Rebuild { start: true, .. }) => {
                Some(Event::StopOrdered {})
            }
            _ => None,
        };
        std::iter::once(Event::Abandoned {}).chain(next).collect()
    }
}
