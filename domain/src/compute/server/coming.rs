//! A server that is made from a machine that others run ([`crate::compute::move_in`]): it has its place, its
//! addresses and its disks, and waits until all of the machine is here. Then it is launched as every other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Event, Server, home::Launch};
use crate::{
    compute::move_in::MoveIn,
    kernel::{Companion, Decider as _, Outstanding, Refusal},
};

/// What a server has of the machine that it is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Coming {
    /// The move.
    pub move_in: Uuid,
    /// Whether it waits for the machine.
    pub waits: bool,
}

impl Coming {
    /// What a launch says of it; none for a server that is made from nothing.
    pub(super) fn of(launch: &Launch) -> Option<Self> {
        let found = launch.move_in.as_ref()?.found.as_ref()?;
        Some(Self { move_in: found.id, waits: true })
    }
}

impl Server {
    /// Whether it waits for the machine that it is made from.
    pub fn waits(&self) -> bool {
        let coming = self.home.as_ref().filter(|home| !home.removed).and_then(|home| home.comes);
        coming.is_some_and(|coming| coming.waits)
    }

    /// It does not wait for a machine.
    ///
    /// # Errors
    /// `wrong-state`.
    pub(super) fn ensure_here(&self, verb: &str) -> Result<(), Refusal> {
        if self.waits() && self.orders.out.is_none() {
            return Err(Refusal::wrong_state(verb, self.status()));
        }
        Ok(())
    }

    /// All of the machine is here.
    pub(super) fn come_in(&self) -> Result<Vec<Event>, Refusal> {
        self.ours("come-in")?;
        self.orders.ensure_free()?;
        Ok(if self.waits() { vec![Event::CameIn {}] } else { vec![] })
    }

    /// The machine is to be where it was, and nothing of the server is to be left.
    pub(super) fn give_up(&self) -> Result<Vec<Event>, Refusal> {
        match &self.home {
            Some(home) if home.removed => return Ok(vec![]),
            _ => drop(self.ours("give-up")?),
        }
        match &self.orders.out {
            None | Some(Outstanding { parked: Some(_), .. }) => Ok(vec![Event::RemovalOrdered {}]),
            Some(_) => self.orders.ensure_free().map(|()| vec![]),
        }
    }

    /// What a fact of it says to the move that it is made by; this is the state before it.
    pub(super) fn tell_move(&self, event: &Event, launching: bool) -> Option<Companion> {
        if let Event::Launched { launch } = event {
            let placement = launch.placement.as_ref()?;
            return launch.begin_move_in(placement.holding.server.uuid(), placement.host);
        }
        let verb = match event {
            Event::Confirmed { .. } if launching => "arrive",
            Event::Removed { .. } => "target-gone",
            _ => return None,
        };
        let id = self.home.as_ref()?.comes?.move_in;
        Some(Companion { kind: MoveIn::KIND, id, verb, body: json!({}) })
    }
}
