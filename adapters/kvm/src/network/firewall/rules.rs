//! One interface's chains: whether a frame is its own, may leave, may enter.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use domain::network::{
    mac::Mac,
    security_group::{Action, Direction, Peer, Protocol, Rule},
};
use ipnet::{IpNet, Ipv6Net};

use super::{Chain, Conntrack, Interface, MARK, NetworkFault, Nic};

/// What IPv6 cannot do without, towards and from a server: neighbours (135, 136), who listens to a
/// group (130…132, 143), and packets that are too big (2).
const ICMPV6_BOTH: &str = "icmpv6 type { 2, 130, 131, 132, 135, 136, 143 } accept";

/// What is asked of DHCP.
const ASKS: [&str; 2] =
    ["meta protocol ip udp sport 68 udp dport 67", "meta protocol ip6 udp sport 546 udp dport 547"];
/// And what answers.
const ANSWERS: [&str; 2] =
    ["meta protocol ip udp sport 67 udp dport 68", "meta protocol ip6 udp sport 547 udp dport 546"];

/// What is asked of their host goes no further, and who is not their host does not answer.
pub(super) fn told() -> Vec<String> {
    let ask = ASKS.map(|asks| format!("iifname @asking {asks} drop"));
    let answer = ANSWERS.map(|answers| format!("oifname @asking {answers} drop"));
    [ask, answer].concat()
}

/// The sets of what a rule calls by id.
pub(super) struct Peers {
    /// Name, type and elements, for IPv4 and IPv6.
    pub(super) families: [(String, &'static str, Vec<String>); 2],
}

impl Peers {
    pub(super) fn new(number: usize, addresses: &BTreeSet<IpNet>) -> Self {
        let of = |v4: bool| merged(addresses.iter().filter(|net| net.addr().is_ipv4() == v4));
        let set = |family, kind, v4| (format!("peer-{number}-{family}"), kind, of(v4));
        Self { families: [set("v4", "ipv4_addr", true), set("v6", "ipv6_addr", false)] }
    }
}

pub(super) fn id(peer: &Peer) -> Option<&str> {
    match peer {
        Peer::Cidr(_) => None,
        Peer::Group(id) | Peer::PrefixList(id) => Some(id),
    }
}

/// Networks as nft wants them in a set: none within another.
fn merged<'a>(nets: impl Iterator<Item = &'a IpNet>) -> Vec<String> {
    let nets: Vec<IpNet> = nets.map(IpNet::trunc).collect();
    let mut nets = IpNet::aggregate(&nets);
    nets.sort();
    nets.into_iter().map(short).collect()
}

/// A network of one address is written as the address.
fn short(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// The address that IPv6 derives from a hardware address (RFC 4291, appendix A).
pub(crate) fn link_local(mac: Mac) -> Ipv6Net {
    let mac = mac.bytes();
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[0xfe, 0x80]);
    bytes[8..11].copy_from_slice(&mac[..3]);
    bytes[11..13].copy_from_slice(&[0xff, 0xfe]);
    bytes[13..].copy_from_slice(&mac[3..]);
    bytes[8] ^= 2;
    Ipv6Addr::from(bytes).into()
}

pub(super) fn chains(
    tap: &Interface,
    nic: &Nic,
    sets: &BTreeMap<&str, Peers>,
    conntrack: Conntrack,
) -> Result<Vec<Chain>, NetworkFault> {
    let chain = |name: &str, rules| Chain { name: format!("{name}-{tap}"), hook: None, rules };
    let mut chains = vec![chain("source", source(nic))];
    let Some(rules) = &nic.rules else { return Ok(chains) };
    for (name, direction) in [("leave", Direction::Egress), ("enter", Direction::Ingress)] {
        let mut lines = essential(direction);
        lines.push(match conntrack {
            Conntrack::Bridge => "ct state established,related accept".to_owned(),
            Conntrack::Marked => format!("meta mark & {MARK:#x} != 0 accept"),
        });
        for rule in in_order(rules, direction) {
            lines.extend(lines_of(rule, sets)?);
        }
        lines.push("drop".to_owned());
        chains.push(chain(name, lines));
    }
    Ok(chains)
}

/// The rules of one direction as they are looked at: the highest priority first; among equals what is denied; then
/// their own order.
pub(crate) fn in_order(rules: &BTreeSet<Rule>, direction: Direction) -> Vec<&Rule> {
    let mut sorted: Vec<&Rule> = rules.iter().filter(|rule| rule.direction == direction).collect();
    sorted.sort_by_key(|rule| {
        (Reverse(rule.priority.unwrap_or(0)), rule.action == Action::Allow, *rule)
    });
    sorted
}

/// Whether a frame is the interface's own.
fn source(nic: &Nic) -> Vec<String> {
    let mac = nic.mac;
    let own = |v4: bool| nic.addresses.iter().filter(move |net| net.addr().is_ipv4() == v4);
    let v4 = merged(own(true));
    let local = IpNet::V6(link_local(mac));
    let v6_nets: Vec<IpNet> = own(false).chain([&local]).map(IpNet::trunc).collect();
    let v6 = merged(v6_nets.iter());
    // Nobody's address asks whether one is free (RFC 5227).
    let arp: Vec<String> = std::iter::once("0.0.0.0".to_owned()).chain(v4.clone()).collect();
    let mut lines = vec![
        format!("ether saddr != {mac} drop"),
        "meta protocol != { ip, ip6, arp } drop".to_owned(),
        format!("arp saddr ether != {mac} drop"),
        format!("arp saddr ip != {{ {} }} drop", arp.join(", ")),
        // Servers never answer DHCP.
        "meta protocol ip udp sport 67 drop".to_owned(),
    ];
    if nic.told {
        // To everybody: so it comes to the host, whomever it was to, and past no other port.
        lines.extend(ASKS.map(|asks| format!("{asks} ether daddr set ff:ff:ff:ff:ff:ff")));
        lines.push("icmpv6 type 133 ether daddr set ff:ff:ff:ff:ff:ff".to_owned());
    }
    lines.push("ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept".to_owned());
    lines.push(if v4.is_empty() {
        "meta protocol ip drop".to_owned()
    } else {
        format!("ip saddr != {{ {} }} drop", v4.join(", "))
    });
    lines.push("meta protocol ip6 udp sport 547 drop".to_owned());
    // Routers and redirects are others' to tell.
    lines.push("icmpv6 type { 134, 137 } drop".to_owned());
    // Whoever has no address yet: is one free, who routes, who listens.
    lines.push("ip6 saddr :: icmpv6 type { 131, 132, 133, 135, 143 } accept".to_owned());
    lines.push(format!("ip6 saddr != {{ {} }} drop", v6.join(", ")));
    // What a neighbour says to be, after eight bytes of its message.
    for net in IpNet::aggregate(&v6_nets) {
        let IpNet::V6(net) = net else { continue };
        let length = net.prefix_len();
        lines.push(if length == 0 {
            "icmpv6 type 136 accept".to_owned()
        } else {
            let head = u128::from(net.network()) >> (128 - u32::from(length));
            format!("icmpv6 type 136 @th,64,{length} {head:#x} accept")
        });
    }
    lines.push("icmpv6 type 136 drop".to_owned());
    lines
}

/// What needs no rule.
fn essential(direction: Direction) -> Vec<String> {
    let (dhcp, dhcpv6, routers) = match direction {
        Direction::Egress => ("udp sport 68 udp dport 67", "udp sport 546 udp dport 547", 133),
        Direction::Ingress => ("udp sport 67 udp dport 68", "udp sport 547 udp dport 546", 134),
    };
    vec![
        "meta protocol arp accept".to_owned(),
        "meta protocol != { ip, ip6 } drop".to_owned(),
        format!("meta protocol ip {dhcp} accept"),
        format!("meta protocol ip6 {dhcpv6} accept"),
        // Fragmentation needed: without it large packets vanish.
        "icmp type 3 icmp code 4 accept".to_owned(),
        ICMPV6_BOTH.to_owned(),
        format!("icmpv6 type {routers} accept"),
    ]
}

/// One rule, for each family that it is about.
fn lines_of(rule: &Rule, sets: &BTreeMap<&str, Peers>) -> Result<Vec<String>, NetworkFault> {
    let side = match rule.direction {
        Direction::Ingress => "saddr",
        Direction::Egress => "daddr",
    };
    let family = |v4: bool| if v4 { "ip" } else { "ip6" };
    let named = id(&rule.peer).and_then(|id| sets.get(id));
    let peers: Vec<(bool, String)> = match (&rule.peer, named) {
        (Peer::Cidr(net), _) => {
            let v4 = net.addr().is_ipv4();
            let all = format!("meta protocol {}", family(v4));
            let some = format!("{} {side} {}", family(v4), short(net.trunc()));
            vec![(v4, if net.prefix_len() == 0 { all } else { some })]
        }
        (_, Some(peers)) => [true, false]
            .into_iter()
            .zip(&peers.families)
            .map(|(v4, (name, ..))| (v4, format!("{} {side} @{name}", family(v4))))
            .collect(),
        (peer, None) => {
            return Err(NetworkFault::Impossible(format!("nobody knows the addresses of {peer}")));
        }
    };
    let verdict = match rule.action {
        Action::Allow => "accept",
        Action::Deny => "drop",
    };
    let line = |(v4, peer): (bool, String)| {
        let protocol = protocol(rule, v4)?;
        let words = [peer.as_str(), protocol.as_str(), verdict];
        Some(words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    };
    Ok(peers.into_iter().filter_map(line).collect())
}

/// What of the protocol is matched; none when the family does not have it.
fn protocol(rule: &Rule, v4: bool) -> Option<String> {
    let number = match rule.protocol {
        Protocol::Any => return Some(String::new()),
        Protocol::ICMP if !v4 => return None,
        Protocol::ICMPV6 if v4 => return None,
        Protocol::Number(number) => number,
    };
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => "",
    };
    Some(match (rule.ports, rule.icmp_type, rule.icmp_code) {
        (Some(ports), ..) => format!("{name} dport {ports}"),
        (None, Some(kind), Some(code)) => format!("{name} type {kind} {name} code {code}"),
        (None, Some(kind), None) => format!("{name} type {kind}"),
        (None, None, _) => format!("meta l4proto {number}"),
    })
}
