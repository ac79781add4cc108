//! Interfaces of a server of ours that is there: added, removed, limited and guarded, whether it runs or
//! not.
//!
//! An interface that is added has its addresses from the append that orders it. One that is removed keeps
//! them until its host has reported that it is gone, so that nobody else has them before. Of security groups
//! the rules are recorded with the server: whatever becomes of a group, its host finds in the server's own
//! state what it enforces. When a group's rules change Skyledger tells every server that names it, and each
//! waits until its host has done it.
//!
//! What is wanted of an interface is in [`Parts`]; beside it, in [`SeenNic`], is what its host read back.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    Event, Order, Power, Server,
    home::Home,
    parts::{GROUPS_MAX, GroupRules, NICS_MAX, Nic, NicAsk, Parts, part_id},
};
use crate::{
    kernel::{Companion, Decider as _, Refusal, codes},
    network::{
        addresses::Want,
        bandwidth::Bandwidth,
        mac::Mac,
        quota::{Quota, Traffic},
        security_group::Rule,
    },
};

/// What is to be different of an interface; what is left out stays.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NicChange")]
pub struct Change {
    /// Which, by its id.
    pub nic: Uuid,
    /// How fast it may send and be sent to: both directions, no limit where none is named.
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    /// How many bytes may pass: both directions, no limit where none is named. What was counted stays.
    #[serde(default)]
    pub quota: Option<Quota>,
    /// The security groups that guard it, all of them, at most 5; with none nothing is kept from it but
    /// spoofing.
    #[serde(default)]
    pub security_groups: Option<BTreeSet<Uuid>>,
    /// The rules of those groups: found by Skyledger, and of no use to callers.
    #[serde(default)]
    pub groups: Option<GroupRules>,
}

/// What was found of an interface that is to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FoundNic")]
pub struct Found {
    /// The interface.
    pub nic: Nic,
    /// The rules of its security groups.
    #[serde(default)]
    pub groups: GroupRules,
}

/// What a host says of an interface of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenNic {
    /// Its hardware address.
    pub mac: Mac,
    /// What limits it has, while the server runs.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// How many bytes may pass; none when they are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// How many have passed. What would go beyond its quota does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// The security groups whose rules are enforced.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub security_groups: BTreeSet<Uuid>,
    /// How many rules those are; none when nothing is kept from it but spoofing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<u64>,
    /// Whether its host answers when it asks for its addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

fn no(detail: String) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Nic {
    /// The rules of all its security groups; none when it names no group.
    pub fn rules(&self, groups: &GroupRules) -> Option<BTreeSet<Rule>> {
        let named = self.security_groups.iter().filter_map(|id| groups.get(id));
        let rules = named.flatten().cloned().collect();
        (!self.security_groups.is_empty()).then_some(rules)
    }

    /// Whether a host can limit and guard it so.
    pub(super) fn check(&self, groups: &GroupRules) -> Result<(), Refusal> {
        self.check_direct()?;
        self.bandwidth.check()?;
        self.quota.as_ref().map_or(Ok(()), Quota::check)?;
        let named = &self.security_groups;
        if named.len() > GROUPS_MAX {
            return Err(no(format!("security_groups: at most {GROUPS_MAX}")));
        }
        match named.iter().find(|id| !groups.contains_key(id)) {
            None => Ok(()),
            Some(id) => Err(no(format!("security_groups: nobody looked for the rules of {id}"))),
        }
    }

    /// What it says to its network when it is given its addresses.
    pub(super) fn give(&self) -> Companion {
        let named = |v4: bool| {
            let of = self.addresses.iter().find(|net| net.addr().is_ipv4() == v4);
            // Whether it may be a reserved one was asked when it was chosen.
            of.map(|net| Want::Named { address: net.addr(), reserved: true })
        };
        let body = json!({
            "holder": self.id, "v4": named(true), "v6": named(false), "mac": self.mac,
            "chance": Uuid::nil(),
        });
        Companion { kind: "network", id: self.network, verb: "give", body }
    }

    /// And when it gives them back.
    pub(super) fn release(&self) -> Companion {
        let body = json!({"holder": self.id});
        Companion { kind: "network", id: self.network, verb: "release", body }
    }
}

impl Parts {
    pub(super) fn add_nic(&mut self, nic: Nic, groups: GroupRules) {
        self.groups.extend(groups);
        self.nics.push(nic);
    }

    pub(super) fn change_nic(
        &mut self,
        id: Uuid,
        bandwidth: Option<Bandwidth>,
        quota: Option<Quota>,
        security_groups: Option<BTreeSet<Uuid>>,
        groups: GroupRules,
    ) {
        let Some(nic) = self.nics.iter_mut().find(|nic| nic.id == id) else { return };
        nic.bandwidth = bandwidth.unwrap_or(nic.bandwidth);
        nic.quota = quota.or(nic.quota);
        if let Some(security_groups) = security_groups {
            nic.security_groups = security_groups;
        }
        self.groups.extend(groups);
        self.forget_groups();
    }

    pub(super) fn drop_nic(&mut self, id: Uuid) {
        self.nics.retain(|nic| nic.id != id);
        self.forget_groups();
    }

    /// Groups that it names have these rules by now.
    pub(super) fn follow(&mut self, groups: GroupRules) {
        self.groups.extend(groups);
        self.forget_groups();
    }

    /// Rules of groups that no interface names are nobody's.
    fn forget_groups(&mut self) {
        let nics = &self.nics;
        self.groups.retain(|id, _| nics.iter().any(|nic| nic.security_groups.contains(id)));
    }

    /// The interfaces that it is to have once what is ordered is done.
    pub fn nics_after(&self, order: &Order) -> impl Iterator<Item = &Nic> {
        let gone = match order {
            Order::RemoveNic { nic } => Some(*nic),
            _ => None,
        };
        self.nics.iter().filter(move |nic| Some(nic.id) != gone)
    }
}

impl Server {
    /// The id of the interface that is added next: no other of this server ever has it.
    pub fn next_nic(&self, server: Uuid) -> Uuid {
        let number = usize::try_from(self.orders.issued).unwrap_or(usize::MAX);
        part_id(server, "added-nic", number)
    }

    /// Whether interfaces can be added and removed now.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud, `wrong-state`, `order-outstanding` and `order-parked`.
    pub fn check_nics(&self, verb: &str) -> Result<&Home, Refusal> {
        let home = self.ours(verb)?;
        match self.free(verb)?.power {
            Power::Running | Power::Stopped => Ok(home),
            _ => Err(Refusal::wrong_state(verb, self.status())),
        }
    }

    /// Whether an interface can be changed now, in whatever the server does.
    ///
    /// # Errors
    /// As [`Self::check_nics`]; `invalid-field` when it has no such interface.
    pub fn check_nic(&self, verb: &str, nic: Uuid) -> Result<&Nic, Refusal> {
        let home = self.ours(verb)?;
        self.free(verb)?;
        let found = home.parts.nics.iter().find(|known| known.id == nic);
        found.ok_or_else(|| no(format!("nic: it has no interface {nic}")))
    }

    /// Whether an interface that its host makes can be changed now: `unsupported` when it is a virtual function of
    /// a card.
    pub(super) fn check_normal_nic(&self, verb: &str, nic: Uuid) -> Result<&Nic, Refusal> {
        let found = self.check_nic(verb, nic)?;
        found.ensure_normal(verb)?;
        Ok(found)
    }

    pub(super) fn add_nic(
        &self,
        ask: &NicAsk,
        found: Option<Box<Found>>,
    ) -> Result<Vec<Event>, Refusal> {
        let home = self.check_nics("add-nic")?;
        let nics = &home.parts.nics;
        if nics.len() >= NICS_MAX {
            return Err(no(format!("nic: it has {} interfaces, the most there are", nics.len())));
        }
        let Some(Found { nic, groups }) = found.map(|found| *found) else {
            return Err(no("found: nobody looked for its network".to_owned()));
        };
        let named = |no: Refusal| Refusal { detail: format!("nic.{}", no.detail), ..no };
        nic.ensure_normal("add-nic")?;
        nic.check(&groups).map_err(named)?;
        if nic.network != ask.network || nics.iter().any(|other| other.id == nic.id) {
            return Err(no("found: it is of another interface".to_owned()));
        }
        if nics.iter().any(|other| other.mac == nic.mac) {
            return Err(no(format!("nic.mac: {} is another interface's", nic.mac)));
        }
        Ok(vec![Event::NicAdditionOrdered { nic: Box::new(nic), groups }])
    }

    pub(super) fn change_nic(&self, change: Change) -> Result<Vec<Event>, Refusal> {
        let Change { nic: id, bandwidth, quota, security_groups, groups } = change;
        let nic = self.check_nic("change-nic", id)?;
        let home = self.ours("change-nic")?;
        let bandwidth = bandwidth.filter(|bandwidth| *bandwidth != nic.bandwidth);
        let quota = quota.filter(|quota| Some(*quota) != nic.quota);
        let security_groups = security_groups.filter(|groups| *groups != nic.security_groups);
        let groups = groups.filter(|_| security_groups.is_some()).unwrap_or_default();
        let mut after = nic.clone();
        after.bandwidth = bandwidth.unwrap_or(nic.bandwidth);
        after.quota = quota.or(nic.quota);
        match &security_groups {
            None => {
                after.check_direct()?;
                after.bandwidth.check()?;
                quota.as_ref().map_or(Ok(()), Quota::check)?;
            }
            Some(named) => {
                after.security_groups.clone_from(named);
                after.check(&groups)?;
            }
        }
        if bandwidth.is_none() && quota.is_none() && security_groups.is_none() {
            return Ok(vec![]);
        }
        home.ensure_represented(&after)?;
        Ok(vec![Event::NicChangeOrdered { nic: id, bandwidth, quota, security_groups, groups }])
    }

    /// Its bytes are counted from nothing.
    pub(super) fn reset_nic_traffic(&self, id: Uuid) -> Result<Vec<Event>, Refusal> {
        if self.check_normal_nic("reset-nic-traffic", id)?.quota.is_none() {
            return Err(no("nic: it has no quota, and nothing of it is counted".to_owned()));
        }
        Ok(vec![Event::NicTrafficResetOrdered { nic: id }])
    }

    /// Its host says anew what is there of its interfaces.
    pub(super) fn read_nics(&self) -> Result<Vec<Event>, Refusal> {
        self.ours("read-nics")?;
        self.free("read-nics")?;
        Ok(vec![Event::NicsReadOrdered {}])
    }

    pub(super) fn remove_nic(&self, nic: Uuid) -> Result<Vec<Event>, Refusal> {
        self.check_normal_nic("remove-nic", nic)?;
        self.check_nics("remove-nic")?;
        Ok(vec![Event::NicRemovalOrdered { nic }])
    }

    /// Rules are followed also by one that is rescued: its interfaces are the same.
    pub(super) fn follow_groups(&self, groups: GroupRules) -> Result<Vec<Event>, Refusal> {
        let home = self.ours("follow-groups")?;
        let news =
            |(id, rules): &(Uuid, _)| home.parts.groups.get(id).is_some_and(|is| is != rules);
        let groups: GroupRules = groups.into_iter().filter(news).collect();
        if groups.is_empty() {
            return Ok(vec![]);
        }
        if self.observation.seen.is_none() || self.is_deleted() {
            return Err(Refusal::wrong_state("follow-groups", self.status()));
        }
        self.orders.ensure_free()?;
        Ok(vec![Event::GroupsFollowed { groups }])
    }

    /// What a fact about an interface says to its network.
    pub(super) fn nic_companion(&self, event: &Event) -> Option<Companion> {
        let out = self.orders.out.as_ref().map(|out| &out.order);
        match (event, out) {
            (Event::NicAdditionOrdered { nic, .. }, _) => Some(nic.give()),
            (Event::Confirmed { .. }, Some(Order::RemoveNic { nic })) => {
                let parts = &self.home.as_ref()?.parts;
                Some(parts.nics.iter().find(|known| known.id == *nic)?.release())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
