//! Other addresses of an interface of a server of ours that is there. In one that runs they are set through
//! its guest agent; one that is stopped is started with them.
//!
//! ```text
//!            change-addresses                  confirm
//!  has old ──────────────────► changing ──────────────────► has new; the old are free
//!     ▲                        │      │ parked, and abandoned
//!     │  confirm-kept-addresses│      ▼
//!     └────────────────────────┴── restoring
//! ```
//!
//! The new addresses are taken from the network by the append that orders them, for a holder of their own:
//! until the host has asked the guest and found them there, the interface has what it had. By the append
//! that records that, its old ones are free and the new ones its own. Where the guest cannot have them it
//! has its old ones again, and the new ones are free by the append that says why.

use core::net::IpAddr;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Event, Machine, Order, Server,
    parts::{Nic, Parts, part_id},
};
use crate::{
    compute::userdata::System,
    kernel::{Companion, Decider as _, Refusal, Stamp, codes},
    network::{
        addresses::{Family, Want},
        net::{self, Network},
    },
};

/// Which other addresses an interface is to have. A family that is left out stays as it is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AddressChange")]
pub struct Change {
    /// Which, by its id.
    pub nic: Uuid,
    /// Which IPv4 address of its network.
    #[serde(default)]
    pub v4: Option<Want>,
    /// Which IPv6 address of its network.
    #[serde(default)]
    pub v6: Option<Want>,
    /// What was found: by Skyledger, and of no use to callers.
    #[serde(default)]
    pub found: Option<Found>,
}

/// Addresses that were found for an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FoundAddresses")]
pub struct Found {
    /// Who has the new ones until the guest has them.
    pub holder: Uuid,
    /// All that the interface is to have, with the length of their subnet's prefix, IPv4 first.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Where other networks are reached then; at most one of each family.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
}

impl Found {
    /// Those that an interface has not yet.
    pub fn new_to(&self, nic: &Nic) -> Vec<IpNet> {
        self.addresses.iter().filter(|net| !nic.addresses.contains(net)).copied().collect()
    }
}

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

fn to_network(nic: &Nic, verb: &'static str, body: Value) -> Companion {
    Companion { kind: "network", id: nic.network, verb, body }
}

impl Nic {
    /// What this wish comes to, with the addresses that the network would give it now; none when it has
    /// all of it.
    ///
    /// # Errors
    /// `invalid-field`, `no-address-free`, `address-taken`, `address-not-given`: it cannot have them.
    pub fn other_addresses(
        &self,
        holder: Uuid,
        (v4, v6): (Option<Want>, Option<Want>),
        network: &Network,
        now: DateTime<Utc>,
    ) -> Result<Option<Found>, Refusal> {
        let news = |want: &Want| match want {
            Want::Named { address, .. } => !self.addresses.iter().any(|net| net.addr() == *address),
            Want::Any {} => true,
        };
        let (v4, v6) = (v4.filter(news), v6.filter(news));
        if v4.is_none() && v6.is_none() {
            return Ok(None);
        }
        let own = network.own.as_ref().filter(|own| !own.retired);
        let own = own.ok_or_else(|| no("nic: its network is not in use any more"))?;
        let give = net::Command::Give { holder, v4, v6, mac: None, chance: Some(holder) };
        let decided = network.decide(give, &Stamp { now, actor: String::new() })?;
        let given = decided.into_iter().find_map(|event| match event {
            net::Event::Given { addresses, .. } => Some(addresses),
            _ => None,
        });
        let given = given.unwrap_or_default();
        let stays = |other: IpAddr| !given.iter().any(|new| new.is_ipv4() == other.is_ipv4());
        let mut addresses = self.addresses.clone();
        addresses.retain(|net| stays(net.addr()));
        let mut gateways = self.gateways.clone();
        gateways.retain(|gateway| stays(*gateway));
        for address in given.iter().copied() {
            let families = &own.addresses;
            let family = if address.is_ipv4() { &families.v4 } else { &families.v6 };
            let Some(subnet) = family.as_ref().map(Family::subnet) else { continue };
            addresses.extend(IpNet::new(address, subnet.net.prefix_len()));
            gateways.extend(subnet.gateway);
        }
        addresses.sort_unstable();
        gateways.sort_unstable();
        Ok(Some(Found { holder, addresses, gateways }))
    }
}

impl Parts {
    /// An interface has these addresses from now on.
    pub(super) fn readdress(&mut self, id: Uuid, found: Found) {
        if let Some(nic) = self.nics.iter_mut().find(|nic| nic.id == id) {
            (nic.addresses, nic.gateways) = (found.addresses, found.gateways);
        }
    }
}

impl Server {
    /// Who has the addresses that are taken next until the guest has them: no other of this server ever
    /// is called so.
    pub fn next_holder(&self, server: Uuid) -> Uuid {
        let number = usize::try_from(self.orders.issued).unwrap_or(usize::MAX);
        part_id(server, "holder", number)
    }

    /// Whether an interface can have other addresses now.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud and for Windows, `wrong-state` for one that neither runs nor
    /// is stopped, `order-outstanding`, `order-parked`; `invalid-field` when it has no such interface.
    pub fn check_addresses(&self, nic: Uuid) -> Result<&Nic, Refusal> {
        let home = self.check_nics("change-addresses")?;
        if home.parts.system() == System::Windows {
            let detail = "addresses inside Windows are set by hand: add another interface instead";
            return Err(Refusal::new(&codes::UNSUPPORTED, detail));
        }
        self.check_normal_nic("change-addresses", nic)
    }

    pub(super) fn change_addresses(&self, change: Change) -> Result<Vec<Event>, Refusal> {
        let Change { nic: id, v4, v6, found } = change;
        let nic = self.check_addresses(id)?;
        if v4.is_none() && v6.is_none() {
            return Err(no("v4: ask for an IPv4 address, an IPv6 address, or both"));
        }
        // With nothing found it has what is asked for.
        let news = found.filter(|found| !found.new_to(nic).is_empty());
        Ok(news.map(|found| Event::AddressChangeOrdered { nic: id, found }).into_iter().collect())
    }

    /// The guest could not have them, and has what it had.
    pub(super) fn kept_addresses(&self, number: u64, reason: String, seen: Machine) -> Vec<Event> {
        match self.orders.out.as_ref().map(|out| &out.order) {
            Some(Order::ChangeAddresses { .. }) if self.orders.is_out(number) => {
                vec![Event::AddressesKept { number, reason, seen }]
            }
            _ => vec![],
        }
    }

    /// What a fact about addresses says to their network; this is the state before it.
    pub(super) fn address_companion(&self, event: &Event) -> Option<Companion> {
        let nic = |id: &Uuid| {
            let nics = &self.home.as_ref()?.parts.nics;
            nics.iter().find(|nic| nic.id == *id)
        };
        let out = self.orders.out.as_ref().map(|out| &out.order);
        match (event, out) {
            (Event::AddressChangeOrdered { nic: id, found }, _) => {
                let nic = nic(id)?;
                let new = found.new_to(nic);
                let named = |v4: bool| {
                    let of = new.iter().find(|net| net.addr().is_ipv4() == v4);
                    // Whether it may be a reserved one was asked when it was chosen.
                    of.map(|net| Want::Named { address: net.addr(), reserved: true })
                };
                let body = json!({
                    "holder": found.holder, "v4": named(true), "v6": named(false),
                    "chance": Uuid::nil(),
                });
                Some(to_network(nic, "give", body))
            }
            (Event::Confirmed { .. }, Some(Order::ChangeAddresses { nic: id, found })) => {
                let body = json!({"holder": id, "by": found.holder});
                Some(to_network(nic(id)?, "replace", body))
            }
            (
                Event::AddressesKept { .. } | Event::Evacuated { .. },
                Some(Order::ChangeAddresses { nic: id, found }),
            )
            | (
                Event::Abandoned {} | Event::Confirmed { .. } | Event::Evacuated { .. },
                Some(Order::RestoreAddresses { nic: id, found }),
            ) => Some(to_network(nic(id)?, "release", json!({"holder": found.holder}))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
