//! A layer-2 network of ours: what a host joins a server's interface to.
//!
//! ```text
//!   absent ── define ──► defined ── retire ──► retired
//!                        │    ▲     (while no network uses it)
//!                        └────┘ change, attach, detach
//! ```
//!
//! A segment knows the networks that use it, and their subnets: each writes itself in by the append
//! that defines or changes it. So no two networks of one segment ever overlap, and none loses its
//! segment.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
    tenancy::check_name,
};

/// Longest name of a bridge: what Linux takes as an interface's name (IFNAMSIZ, less the zero).
const BRIDGE_CHARS_MAX: usize = 15;
/// VLAN ids that may be given (IEEE 802.1Q): 0 and 4095 mean something else.
const VLAN_IDS: std::ops::RangeInclusive<u16> = 1..=4094;
/// The smallest MTU that IPv4 allows (RFC 791), and the largest a frame can say.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65_535;
/// The smallest MTU that IPv6 allows (RFC 8200).
const V6_MTU_MIN: u32 = 1_280;
/// MTU when none is named: Ethernet's.
const MTU: u32 = 1_500;

/// How a host carries a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Medium {
    /// By a Linux bridge of its own, untagged.
    Bridge,
    /// By an Open vSwitch bridge.
    Ovs {
        /// Its VLAN, 1…4094; none is untagged.
        #[serde(default)]
        vlan: Option<u16>,
    },
    /// By a VLAN of a Linux bridge.
    Vlan {
        /// Its id, 1…4094.
        id: u16,
    },
}

/// A command of a segment.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// A network uses it, with these subnets.
    Attach {
        /// The network.
        network: Uuid,
        /// All its subnets.
        #[schemars(with = "Vec<String>")]
        nets: Vec<IpNet>,
    },
    /// Change what is named; the rest stays.
    Change {
        /// 1…100 characters.
        #[serde(default)]
        name: Option<String>,
        /// 68…65,535 bytes; at least 1,280 while a network has an IPv6 subnet.
        #[serde(default)]
        mtu: Option<u32>,
        /// Only while no network uses it.
        #[serde(default)]
        medium: Option<Medium>,
        /// Only while no network uses it.
        #[serde(default)]
        bridge: Option<String>,
    },
    /// Begin it.
    Define {
        /// 1…100 characters.
        name: String,
        /// Whose it is; none is the estate's.
        #[serde(default)]
        project: Option<Uuid>,
        /// How a host carries it.
        medium: Medium,
        /// The bridge on each host: 1…15 of `a-z`, `0-9`, `-`, `_` and `.`.
        bridge: String,
        /// 68…65,535 bytes; 1,500 when left out.
        #[serde(default)]
        mtu: Option<u32>,
    },
    /// A network does not use it any more.
    Detach {
        /// The network.
        network: Uuid,
    },
    /// Give it up; no network may use it.
    Retire {},
}

/// A fact about a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A network uses it, with these subnets.
    Attached {
        /// The network.
        network: Uuid,
        /// All its subnets.
        #[schemars(with = "Vec<String>")]
        nets: Vec<IpNet>,
    },
    /// It is different: what is named.
    Changed {
        /// Its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Its MTU in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mtu: Option<u32>,
        /// How a host carries it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        medium: Option<Medium>,
        /// The bridge on each host.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bridge: Option<String>,
    },
    /// It has begun.
    Defined {
        /// Its name.
        name: String,
        /// Whose it is.
        project: Option<Uuid>,
        /// How a host carries it.
        medium: Medium,
        /// The bridge on each host.
        bridge: String,
        /// Its MTU in bytes.
        mtu: u32,
    },
    /// A network does not use it any more.
    Detached {
        /// The network.
        network: Uuid,
    },
    /// It is given up.
    Retired {},
}

/// A layer-2 network of ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Whose it is; none is the estate's.
    pub project: Option<Uuid>,
    /// How a host carries it; none while it does not exist.
    pub medium: Option<Medium>,
    /// The bridge on each host.
    pub bridge: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The networks that use it, with their subnets.
    pub networks: BTreeMap<Uuid, Vec<IpNet>>,
    /// Whether it is given up.
    pub retired: bool,
}

static VERBS: &[Verb] = &[
    Verb::system("attach", "Writes in a network that uses it."),
    Verb::admin("change", "Changes its name, its MTU, or how hosts carry it."),
    Verb::admin("define", "Begins a layer-2 network on hosts of our own.").creating(),
    Verb::system("detach", "Strikes out a network that does not use it any more."),
    Verb::admin("retire", "Gives it up, when no network uses it."),
];

fn no(detail: String) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

fn check_medium(medium: Medium) -> Result<(), Refusal> {
    let id = match medium {
        Medium::Bridge | Medium::Ovs { vlan: None } => return Ok(()),
        Medium::Ovs { vlan: Some(id) } | Medium::Vlan { id } => id,
    };
    if VLAN_IDS.contains(&id) {
        return Ok(());
    }
    let (low, high) = (VLAN_IDS.start(), VLAN_IDS.end());
    Err(no(format!("medium: the id of a VLAN is {low} to {high}")))
}

fn check_bridge(bridge: &str) -> Result<(), Refusal> {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    // The kernel takes neither of these two as a name.
    let odd = bridge == "." || bridge == "..";
    if (1..=BRIDGE_CHARS_MAX).contains(&bridge.len()) && bridge.bytes().all(fits) && !odd {
        return Ok(());
    }
    let rule = "characters of a-z, 0-9, -, _ and .";
    Err(no(format!("bridge: needs 1 to {BRIDGE_CHARS_MAX} {rule}")))
}

impl Segment {
    fn check_mtu(mtu: u32, has_v6: bool) -> Result<(), Refusal> {
        if !MTUS.contains(&mtu) {
            return Err(no(format!("mtu: is {} to {}", MTUS.start(), MTUS.end())));
        }
        if has_v6 && mtu < V6_MTU_MIN {
            return Err(no(format!("mtu: {mtu}: IPv6 needs at least {V6_MTU_MIN}")));
        }
        Ok(())
    }

    /// How hosts carry it after a command, where that says something about it.
    pub fn carried_after(&self, command: &Command) -> Option<(Medium, String)> {
        match command {
            Command::Define { medium, bridge, .. } => Some((*medium, bridge.clone())),
            Command::Change { medium, bridge, .. } if medium.is_some() || bridge.is_some() => {
                let bridge = bridge.as_ref().unwrap_or(&self.bridge);
                Some(((*medium).or(self.medium)?, bridge.clone()))
            }
            _ => None,
        }
    }

    /// That another segment can be carried so beside this one: a VLAN of a bridge is one segment's. A bridge
    /// without VLANs may be named by several, which are one network then.
    ///
    /// # Errors
    /// `in-use`, with this segment.
    pub fn check_alone(&self, id: Uuid, medium: Medium, bridge: &str) -> Result<(), Refusal> {
        let same = self.medium == Some(medium) && self.bridge == bridge && !self.retired;
        let what = match medium {
            Medium::Vlan { id } => format!("VLAN {id}"),
            Medium::Ovs { vlan: Some(id) } => format!("VLAN {id}"),
            Medium::Ovs { vlan: None } => "what is untagged".to_owned(),
            Medium::Bridge => return Ok(()),
        };
        if !same {
            return Ok(());
        }
        let name = &self.name;
        let detail = format!(
            "medium: {what} of {bridge} is the segment {name} ({id}): put networks on that"
        );
        Err(Refusal::new(&codes::IN_USE, detail))
    }

    fn has_v6(&self) -> bool {
        self.networks.values().flatten().any(|net| matches!(net, IpNet::V6(_)))
    }

    /// A network's subnets overlap none of another's.
    fn check_nets(&self, network: Uuid, nets: &[IpNet]) -> Result<(), Refusal> {
        Self::check_mtu(self.mtu, nets.iter().any(|net| matches!(net, IpNet::V6(_))))?;
        let overlap = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
        for (other, theirs) in self.networks.iter().filter(|(other, _)| **other != network) {
            for net in nets {
                if let Some(known) = theirs.iter().find(|known| overlap(net, known)) {
                    let detail = format!("{net}: overlaps {known} of the network {other}");
                    return Err(no(detail));
                }
            }
        }
        Ok(())
    }

    fn change(&self, mut change: Event) -> Result<Vec<Event>, Refusal> {
        let Event::Changed { name, mtu, medium, bridge } = &mut change else { return Ok(vec![]) };
        if name.as_ref() == Some(&self.name) {
            *name = None;
        }
        if *mtu == Some(self.mtu) {
            *mtu = None;
        }
        if *medium == self.medium {
            *medium = None;
        }
        if bridge.as_ref() == Some(&self.bridge) {
            *bridge = None;
        }
        if let Some(name) = name {
            check_name(name)?;
        }
        if let Some(mtu) = mtu {
            Self::check_mtu(*mtu, self.has_v6())?;
        }
        if let Some(medium) = medium {
            check_medium(*medium)?;
        }
        if let Some(bridge) = bridge {
            check_bridge(bridge)?;
        }
        if medium.is_some() || bridge.is_some() {
            self.ensure_unused()?;
        }
        let same = name.is_none() && mtu.is_none() && medium.is_none() && bridge.is_none();
        Ok(if same { vec![] } else { vec![change] })
    }

    fn ensure_unused(&self) -> Result<(), Refusal> {
        let Some(one) = self.networks.keys().next() else { return Ok(()) };
        let detail = format!("{} networks use it, for instance {one}", self.networks.len());
        Err(Refusal::new(&codes::IN_USE, detail))
    }
}

impl Decider for Segment {
    const KIND: &'static str = "segment";
    const PLURAL: &'static str = "segments";
    const SUMMARY: &'static str = "A layer-2 network on hosts of our own.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Define { .. } if !self.name.is_empty() => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the segment exists"));
            }
            Command::Define { name, project, medium, bridge, mtu } => {
                check_name(&name)?;
                check_medium(medium)?;
                check_bridge(&bridge)?;
                let mtu = mtu.unwrap_or(MTU);
                Self::check_mtu(mtu, false)?;
                vec![Event::Defined { name, project, medium, bridge, mtu }]
            }
            _ if self.name.is_empty() => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such segment"));
            }
            Command::Retire {} if self.retired => vec![],
            Command::Attach { .. } if self.retired => {
                return Err(no("segment: it is retired".to_owned()));
            }
            Command::Change { .. } if self.retired => {
                return Err(Refusal::wrong_state("change", self.status()));
            }
            Command::Attach { network, nets } => {
                self.check_nets(network, &nets)?;
                let same = self.networks.get(&network) == Some(&nets);
                if same { vec![] } else { vec![Event::Attached { network, nets }] }
            }
            Command::Change { name, mtu, medium, bridge } => {
                self.change(Event::Changed { name, mtu, medium, bridge })?
            }
            Command::Detach { network } if self.networks.contains_key(&network) => {
                vec![Event::Detached { network }]
            }
            Command::Detach { .. } => vec![],
            Command::Retire {} => {
                self.ensure_unused()?;
                vec![Event::Retired {}]
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Attached { network, nets } => {
                self.networks.insert(network, nets);
            }
            Event::Changed { name, mtu, medium, bridge } => {
                self.name = name.unwrap_or(self.name);
                self.mtu = mtu.unwrap_or(self.mtu);
                self.medium = medium.or(self.medium);
                self.bridge = bridge.unwrap_or(self.bridge);
            }
            Event::Defined { name, project, medium, bridge, mtu } => {
                let (medium, networks) = (Some(medium), self.networks);
                self = Self { name, project, medium, bridge, mtu, networks, retired: false };
            }
            Event::Detached { network } => {
                self.networks.remove(&network);
            }
            Event::Retired {} => self.retired = true,
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.name.is_empty(), self.retired) {
            (true, _) => "absent",
            (_, true) => "retired",
            _ => "defined",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            gone: self.retired,
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
        let state = given.iter().cloned().fold(Segment::default(), Decider::evolve);
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let got = state.decide(when, &stamp);
        assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    }

    fn define(medium: Medium, bridge: &str, mtu: u32) -> Command {
        let (name, mtu) = ("blue".to_owned(), Some(mtu));
        Command::Define { name, project: None, medium, bridge: bridge.into(), mtu }
    }

    fn defined(mtu: u32) -> Event {
        let medium = Medium::Vlan { id: 7 };
        Event::Defined { name: "blue".into(), project: None, medium, bridge: "br0".into(), mtu }
    }

    fn attached(network: u128, net: &str) -> Event {
        Event::Attached { network: Uuid::from_u128(network), nets: vec![net.parse().unwrap()] }
    }

    fn attach(network: u128, net: &str) -> Command {
        Command::Attach { network: Uuid::from_u128(network), nets: vec![net.parse().unwrap()] }
    }

    #[test]
    fn what_no_host_can_carry_is_refused() {
        check(&[], define(Medium::Vlan { id: 7 }, "br0", 1_500), Ok(&[defined(1_500)]));
        let vlans = [0, 4_095].map(|id| Medium::Vlan { id });
        for medium in vlans.into_iter().chain([Medium::Ovs { vlan: Some(0) }]) {
            check(&[], define(medium, "br0", 1_500), Err("invalid-field"));
        }
        for bridge in ["", "sixteen-letters-", "Br0", "br/0", "br 0", "..", "brü"] {
            check(&[], define(Medium::Bridge, bridge, 1_500), Err("invalid-field"));
        }
        for mtu in [0, 67, 65_536] {
            check(&[], define(Medium::Bridge, "br0", mtu), Err("invalid-field"));
        }
        check(&[defined(1_500)], define(Medium::Bridge, "br0", 68), Err("already-exists"));
    }

    #[test]
    fn a_vlan_of_a_bridge_is_one_segment_s() {
        let id = Uuid::from_u128(9);
        let state =
            |events: &[Event]| events.iter().cloned().fold(Segment::default(), Decider::evolve);
        let known = state(&[defined(1_500)]);
        let no = known.check_alone(id, Medium::Vlan { id: 7 }, "br0").unwrap_err();
        assert_eq!(no.code.code, "in-use");
        assert!(no.detail.contains("blue") && no.detail.contains(&id.to_string()), "{no:?}");
        for (medium, bridge) in [
            (Medium::Vlan { id: 8 }, "br0"),
            (Medium::Vlan { id: 7 }, "br1"),
            (Medium::Ovs { vlan: Some(7) }, "br0"),
            (Medium::Bridge, "br0"),
        ] {
            known.check_alone(id, medium, bridge).unwrap();
        }
        let retired = state(&[defined(1_500), Event::Retired {}]);
        retired.check_alone(id, Medium::Vlan { id: 7 }, "br0").unwrap();
        let to = |medium, bridge: Option<&str>| {
            let bridge = bridge.map(str::to_owned);
            known.carried_after(&Command::Change { name: None, mtu: None, medium, bridge })
        };
        assert_eq!(to(None, None), None);
        assert_eq!(to(None, Some("br1")), Some((Medium::Vlan { id: 7 }, "br1".to_owned())));
        assert_eq!(to(Some(Medium::Bridge), None), Some((Medium::Bridge, "br0".to_owned())));
    }

    #[test]
    fn networks_of_one_segment_never_overlap() {
        let given = [defined(1_500), attached(1, "10.0.0.0/24")];
        check(&given, attach(1, "10.0.0.0/24"), Ok(&[]));
        // Its own subnet may grow.
        check(&given, attach(1, "10.0.0.0/23"), Ok(&[attached(1, "10.0.0.0/23")]));
        for net in ["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/8"] {
            check(&given, attach(2, net), Err("invalid-field"));
        }
        check(&given, attach(2, "10.0.1.0/24"), Ok(&[attached(2, "10.0.1.0/24")]));
    }

    #[test]
    fn what_networks_use_is_neither_retired_nor_moved() {
        let used = [defined(1_500), attached(1, "10.0.0.0/24")];
        let bridge = |bridge: &str| Command::Change {
            name: None,
            mtu: None,
            medium: None,
            bridge: Some(bridge.into()),
        };
        check(&used, Command::Retire {}, Err("in-use"));
        check(&used, bridge("br1"), Err("in-use"));
        check(&used, bridge("br0"), Ok(&[]));
        let network = Uuid::from_u128(1);
        let free = [used[0].clone(), used[1].clone(), Event::Detached { network }];
        check(&free, Command::Retire {}, Ok(&[Event::Retired {}]));
        let retired = [defined(1_500), Event::Retired {}];
        check(&retired, Command::Retire {}, Ok(&[]));
        check(&retired, attach(1, "10.0.0.0/24"), Err("invalid-field"));
        check(&retired, bridge("br1"), Err("wrong-state"));
    }

    #[test]
    fn ipv6_needs_an_mtu_of_1280() {
        let mtu = |mtu| Command::Change { name: None, mtu: Some(mtu), medium: None, bridge: None };
        check(&[defined(1_279)], attach(1, "2001:db8::/64"), Err("invalid-field"));
        let given = [defined(1_280), attached(1, "2001:db8::/64")];
        check(&given, mtu(1_279), Err("invalid-field"));
        let changed = Event::Changed { name: None, mtu: Some(9_000), medium: None, bridge: None };
        check(&given, mtu(9_000), Ok(&[changed]));
    }
}
