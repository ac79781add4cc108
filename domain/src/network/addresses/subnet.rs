//! A subnet of one family: which of its addresses may be given, and which next.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Ranges;
use crate::kernel::{Refusal, codes};

/// Prefixes of IPv4 subnets: from a whole private /8 to a link of two.
const V4_PREFIXES: RangeInclusive<u8> = 8..=31;
/// Prefixes of IPv6 subnets: from what a site has to what holds a gateway and two others.
const V6_PREFIXES: RangeInclusive<u8> = 48..=126;
/// Most ranges of each sort: people write them down.
const RANGES_MAX: usize = 1_000;
/// Longest cool-down: thirty days.
const COOLDOWN_S_MAX: u32 = 30 * 86_400;

/// A subnet and how its addresses are given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// The subnet: IPv4 with a prefix of 8…31, IPv6 with one of 48…126.
    #[schemars(with = "String")]
    pub net: IpNet,
    /// Where addresses are given from; everywhere when empty.
    #[serde(default)]
    pub ranges: Vec<Range>,
    /// The gateway; it is given to nobody.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// What is given by name only, to those who may.
    #[serde(default)]
    pub reserved: Vec<Range>,
    /// Which address is next.
    #[serde(default)]
    pub step: Step,
    /// How long a released address rests in seconds, at most thirty days, while there are others.
    #[serde(default)]
    pub cooldown_s: u32,
}

/// Addresses that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AddressRange")]
pub struct Range {
    /// The first.
    pub first: IpAddr,
    /// The last, not below the first.
    pub last: IpAddr,
}

/// Which address is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The highest that is free.
    #[default]
    Down,
    /// None: each is asked for by name.
    Fixed,
    /// Any that is free, all equally likely.
    Random,
    /// The lowest that is free.
    Up,
}

/// An address as a number of its family.
pub(super) fn number(of: IpAddr) -> u128 {
    match of {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address of a number of a family.
pub(super) fn address(v4: bool, number: u128) -> IpAddr {
    if v4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

impl Subnet {
    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        matches!(self.net, IpNet::V4(_))
    }

    /// Checks prefix, gateway and ranges.
    ///
    /// # Errors
    /// `invalid-field`, with the field.
    pub fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        let allowed = if self.is_v4() { V4_PREFIXES } else { V6_PREFIXES };
        let (low, high) = (allowed.start(), allowed.end());
        if !allowed.contains(&self.net.prefix_len()) {
            return no(format!("net: {}: the prefix is {low} to {high}", self.net));
        }
        if self.net != self.net.trunc() {
            return no(format!("net: {}: it begins at {}", self.net, self.net.network()));
        }
        if self.cooldown_s > COOLDOWN_S_MAX {
            return no(format!("cooldown_s: at most {COOLDOWN_S_MAX}"));
        }
        let edges = self.edges();
        let odd = |gateway: &IpAddr| {
            !self.net.contains(gateway) || edges.contains(&Some(number(*gateway)))
        };
        if let Some(gateway) = self.gateway.filter(odd) {
            return no(format!("gateway: {gateway} is no address for it in {}", self.net));
        }
        for (name, ranges) in [("ranges", &self.ranges), ("reserved", &self.reserved)] {
            if ranges.len() > RANGES_MAX {
                return no(format!("{name}: at most {RANGES_MAX}"));
            }
            for Range { first, last } in ranges {
                let inside = self.net.contains(first) && self.net.contains(last);
                if !inside || number(*first) > number(*last) {
                    return no(format!("{name}: {first} to {last} is no range in {}", self.net));
                }
            }
        }
        Ok(())
    }

    /// What may be given without being named: the ranges, without the gateway, what is reserved, and
    /// the subnet's own addresses.
    pub(super) fn usable(&self) -> Ranges {
        let (first, last) = self.ends();
        let mut usable = Ranges::default();
        if self.ranges.is_empty() {
            usable.insert(first, last);
        }
        for range in &self.ranges {
            usable.insert(number(range.first), number(range.last));
        }
        for range in &self.reserved {
            usable.remove(number(range.first), number(range.last));
        }
        for own in self.edges().into_iter().chain([self.gateway.map(number)]).flatten() {
            usable.remove(own, own);
        }
        usable
    }

    fn ends(&self) -> (u128, u128) {
        (number(self.net.network()), number(self.net.broadcast()))
    }

    /// The subnet's own addresses. IPv4: network and broadcast, but not of a link of two (RFC 3021).
    /// IPv6: the first, which is any router's (RFC 4291); there is no broadcast.
    fn edges(&self) -> [Option<u128>; 2] {
        let (first, last) = self.ends();
        match (self.is_v4(), self.net.prefix_len()) {
            (true, 31) => [None, None],
            (true, _) => [Some(first), Some(last)],
            (false, _) => [Some(first), None],
        }
    }

    /// Whether the number is one of the subnet.
    pub(super) fn holds(&self, at: u128) -> bool {
        let (first, last) = self.ends();
        (first..=last).contains(&at)
    }

    /// Whether it is the gateway or one of the subnet's own.
    pub(super) fn is_own(&self, at: u128) -> bool {
        self.edges().contains(&Some(at)) || self.gateway.map(number) == Some(at)
    }

    /// Whether it is reserved.
    pub(super) fn is_reserved(&self, at: u128) -> bool {
        let holds = |range: &Range| (number(range.first)..=number(range.last)).contains(&at);
        self.reserved.iter().any(holds)
    }
}
