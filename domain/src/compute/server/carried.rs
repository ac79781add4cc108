//! The bytes of interfaces of a server that goes to another host: what was counted goes with it.
//!
//! Each host counts for itself, from nothing. What an interface had used before it came there is in its
//! server's own state: what its host said when it handed the server over, or what it said last where nobody
//! asked it any more. So a quota is used up once, on however many hosts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Machine, Server, home::Home, parts::Nic};
use crate::network::quota::Traffic;

/// What an interface had used before it came to its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CarriedTraffic")]
pub struct Carried {
    /// So many bytes, since they were counted anew.
    #[serde(default)]
    pub traffic: Traffic,
    /// To how many hosts it has come. What a host counted before it left there is not counted when it is back.
    #[serde(default)]
    pub moves: u64,
}

/// What interfaces have used, by their ids.
pub type Used = BTreeMap<Uuid, Traffic>;

impl Carried {
    /// Whether it was never anywhere else.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The same on the next host; where nobody knows what it used, it is what it was.
    fn next(self, used: Option<Traffic>) -> Self {
        Self { traffic: used.unwrap_or(self.traffic), moves: self.moves + 1 }
    }
}

impl Home {
    /// What an interface had used before it came to the host that the server is on, or comes to.
    pub fn carried(&self, nic: &Nic) -> Carried {
        match &self.moving {
            Some(moving) if moving.to.host == self.placement.host => {
                nic.carried.next(moving.used.get(&nic.id).copied())
            }
            _ => nic.carried,
        }
    }

    /// It is on its way no more, and stays where it is now.
    pub(super) fn end_move(&mut self) {
        let nics = self.parts.nics.iter().map(|nic| self.carried(nic)).collect::<Vec<_>>();
        for (nic, carried) in self.parts.nics.iter_mut().zip(nics) {
            nic.carried = carried;
        }
        self.moving = None;
    }

    /// What its interfaces that are counted had used when that was said last.
    pub(super) fn used(&self, seen: Option<&Machine>) -> Used {
        let of = |nic: &Nic| {
            nic.quota?;
            let nics = seen.map(|seen| seen.nics.as_slice()).unwrap_or_default();
            let said = nics.iter().find(|said| said.mac == nic.mac)?.traffic;
            Some((nic.id, said?))
        };
        self.parts.nics.iter().filter_map(of).collect()
    }

    /// It begins anew on another host, which its own has said nothing to.
    pub(super) fn carry_off(&mut self, seen: Option<&Machine>) {
        let has_come =
            self.moving.as_ref().is_some_and(|moving| moving.to.host == self.placement.host);
        self.end_move();
        // What was said last is of the host before, and what it had used there has come along.
        let used = if has_come { Used::new() } else { self.used(seen) };
        for nic in &mut self.parts.nics {
            nic.carried = nic.carried.next(used.get(&nic.id).copied());
        }
    }
}

impl Server {
    /// The bytes of an interface are counted from nothing: those that were counted elsewhere as well.
    pub(super) fn reset_traffic(&mut self, id: Uuid) {
        let mut mac = None;
        self.at_home(|home| {
            if let Some(nic) = home.parts.nics.iter_mut().find(|nic| nic.id == id) {
                nic.resets += 1;
                nic.carried.traffic = Traffic::default();
                mac = Some(nic.mac);
            }
        });
        // What was said before of it is not what it has used.
        let nics = self.observation.seen.iter_mut().flat_map(|seen| &mut seen.nics);
        for said in nics.filter(|said| Some(said.mac) == mac) {
            said.traffic = said.traffic.map(|_| Traffic::default());
        }
    }
}
