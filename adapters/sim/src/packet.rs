//! What a security group does to a packet: the sim's semantics, and the oracle of its tests.
//!
//! Of the rules that match, those with the lowest priority number decide; a rule without a number
//! comes after all numbered ones, and among equals a deny wins. What no rule matches is dropped.

use std::net::IpAddr;

use domain::network::security_group::{Action, Direction, Peer, Protocol, Rule, SecurityGroup};

/// One packet, as a server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Which way it goes.
    pub direction: Direction,
    /// Its protocol's number (IANA protocol numbers).
    pub protocol: u8,
    /// The port at the server for what comes in, at the other end for what goes out.
    pub port: u16,
    /// ICMP type and code.
    pub icmp: (u8, u8),
    /// The other end's address.
    pub peer: IpAddr,
    /// The security groups, by external id, that guard the other end.
    pub peer_groups: Vec<String>,
}

/// Where a rule stands: the lowest decides.
pub(crate) fn rank(rule: &Rule) -> (u16, bool) {
    (rule.priority.unwrap_or(u16::MAX), rule.action == Action::Allow)
}

fn matches(rule: &Rule, packet: &Packet) -> bool {
    let protocol = match rule.protocol {
        Protocol::Any => true,
        Protocol::Number(number) => number == packet.protocol,
    };
    let peer = match &rule.peer {
        Peer::Cidr(cidr) => cidr.contains(&packet.peer),
        Peer::Group(id) => packet.peer_groups.contains(id),
        Peer::PrefixList(_) => false,
    };
    rule.direction == packet.direction
        && protocol
        && rule.ports.is_none_or(|ports| (ports.from..=ports.to).contains(&packet.port))
        && rule.icmp_type.is_none_or(|one| one == packet.icmp.0)
        && rule.icmp_code.is_none_or(|one| one == packet.icmp.1)
        && peer
}

/// Whether the group lets it through.
pub fn allows(group: &SecurityGroup, packet: &Packet) -> bool {
    let matching = group.rules.iter().filter(|rule| matches(rule, packet));
    matching.min_by_key(|rule| rank(rule)).is_some_and(|rule| rule.action == Action::Allow)
}
