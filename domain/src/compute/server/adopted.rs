//! A server that somebody's machine became, without a restart: see [`crate::compute::adoption`].
//!
//! ```text
//!              adopt (by its host)            confirm           start, reboot
//!  absent, gone ──────────────────► adopting ─────────► as found ────────────► as every other server
//!                                      │ abandon            │ release             │ release
//!                                      └──────────► releasing ◄───────────────────┘
//!                                                       │ confirm-removal
//!                                                       ▼
//!                                              gone here; it runs on
//! ```
//!
//! Its definition stays its own: its host changes of it what is wanted otherwise, when it starts it, and
//! nothing while it runs. So what a first boot would have to begin (a root disk from an image) is not to be
//! had for it, nor what its definition says of drives and of what it is started from; and its disks stay
//! where they lie. A rescue is described from our own state, and needs nothing of its definition.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Event, Order, Power, Server,
    home::{Home, Wishes},
};
use crate::{
    compute::adoption::Adoption,
    kernel::{Companion, Decider as _, Refusal, codes},
};

/// What a server has of its time as somebody's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adopted {
    /// libvirt's name of it, which it keeps.
    pub name: String,
    /// Whether it was not started here yet since it was adopted.
    pub as_found: bool,
    /// Whether its definition says more of its processors and memory than how many and how much.
    #[serde(default)]
    pub bound: bool,
}

impl Home {
    /// A server that was adopted.
    pub(super) fn adopted(adoption: Adoption) -> Self {
        let Adoption { name, machine, placement, parts, .. } = adoption;
        Self {
            name,
            spec: machine.spec(),
            flavour: None,
            wishes: Wishes::default(),
            placement,
            parts,
            userdata: None,
            tags: std::collections::BTreeMap::new(),
            protected: false,
            deleted_until: None,
            boot_order: Vec::new(),
            consoles: Vec::new(),
            rescue: None,
            moving: None,
            may_have_grown: false,
            adopted: Some(Adopted {
                bound: machine.is_bound(),
                name: machine.name,
                as_found: true,
            }),
            comes: None,
            removed: false,
        }
    }

    /// Whether an adopted server can do this.
    ///
    /// # Errors
    /// `unsupported`, and `wrong-state` for what it can after its next start.
    pub(super) fn can(&self, verb: &str, power: Power) -> Result<(), Refusal> {
        let Some(adopted) = &self.adopted else { return Ok(()) };
        let never = match verb {
            "rebuild" => {
                "a system from an image would know nothing of its addresses and users here"
            }
            "add-device" | "change-cdrom" | "remove-device" | "set-boot-order" => {
                "its definition is its own"
            }
            "change-addresses" => "its guest reads no addresses of ours: set them inside by hand",
            "resize" if adopted.bound => "it is bound to CPUs, cells or pages of its host",
            "add-nic" | "change-nic" | "read-nics" | "remove-nic" | "reset-nic-traffic"
                if adopted.as_found && power != Power::Stopped =>
            {
                let detail = format!(
                    "{verb}: it runs as it was found; its interfaces are ours once it was stopped and started"
                );
                return Err(Refusal::new(&codes::WRONG_STATE, detail));
            }
            _ => return Ok(()),
        };
        let detail = format!("{verb}: it was adopted, and {never}");
        Err(Refusal::new(&codes::UNSUPPORTED, detail))
    }

    /// What becoming ours says to its networks and disks.
    fn adoption_companions(adoption: &Adoption) -> Vec<Companion> {
        let launch = super::home::Launch {
            project: adoption.project,
            ..super::home::Launch::of(&adoption.name, adoption.machine.spec())
        };
        let (host, server) = (adoption.placement.host, adoption.placement.holding.server.uuid());
        let disks = adoption.parts.provision(&launch, host, server);
        adoption.parts.give().chain(disks).collect()
    }
}

impl Server {
    /// Its host has it from now on as ours.
    pub(super) fn adopt(&self, adoption: Box<Adoption>) -> Result<Vec<Event>, Refusal> {
        let is_free = match &self.home {
            None => self.observation.origin.is_none(),
            // It was ours before, and was somebody's again since.
            Some(home) => home.removed && home.adopted.is_some(),
        };
        if !is_free {
            let detail = format!("a server of this id is {}", self.status());
            return Err(Refusal::new(&codes::ALREADY_EXISTS, detail));
        }
        Ok(vec![Event::Adopted { adoption }])
    }

    /// It is to be nobody's again, and to do what it does.
    pub(super) fn release(&self) -> Result<Vec<Event>, Refusal> {
        let home = self.ours("release")?;
        if home.adopted.is_none() {
            let detail = "release: only a server that was adopted";
            return Err(Refusal::new(&codes::UNSUPPORTED, detail));
        }
        self.free("release")?;
        if let Some(disk) = home.parts.disks.iter().find(|disk| disk.in_place.is_none()) {
            let detail = format!("disk {} was made for it here: detach it first", disk.id);
            return Err(Refusal::new(&codes::IN_USE, detail));
        }
        Ok(vec![Event::ReleaseOrdered {}])
    }

    /// What is ordered when nothing of it is to be ours: what was only adopted is left as it is.
    pub(super) fn given_up(&self) -> Event {
        let adopted = self.home.as_ref().is_some_and(|home| home.adopted.is_some());
        if adopted { Event::ReleaseOrdered {} } else { Event::RemovalOrdered {} }
    }

    /// It was started here: its definition is as we want it, and its interfaces are ours.
    pub(super) fn started(&mut self, order: Option<&Order>) {
        let starts = matches!(
            order,
            Some(
                Order::LeaveRescue { start: true }
                    | Order::Reboot {}
                    | Order::Rescue { .. }
                    | Order::Start {}
            )
        );
        if starts {
            self.at_home(|home| {
                if let Some(adopted) = &mut home.adopted {
                    adopted.as_found = false;
                }
            });
        }
    }

    /// What a fact of its adoption says to others.
    pub(super) fn adoption_companions(event: &Event) -> Vec<Companion> {
        match event {
            Event::Adopted { adoption } => Home::adoption_companions(adoption),
            _ => Vec::new(),
        }
    }
}

/// What its host's fact says to a server that it adopts.
pub fn tell(adoption: &Adoption) -> Companion {
    let id = adoption.placement.holding.server.uuid();
    Companion { kind: "server", id, verb: "adopt", body: json!({"adoption": adoption}) }
}
