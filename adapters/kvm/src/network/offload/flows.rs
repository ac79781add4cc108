//! What a switch of ours does with a frame, as flows of OpenFlow: what the [firewall](crate::network::firewall)
//! does with the interfaces that a host makes, in other words.
//!
//! ```text
//!  0  from where: is it the function's own?        from the operator's bridge ─┐
//! 10  may it leave ─► 11 once its connection is known                          │
//! 20  whither: a function here, all of them, the operator's bridge ◄───────────┘
//! 30  may it enter ─► 31 once its connection is known ─► out
//! ```
//!
//! What no flow takes is dropped. No address is learnt: functions have those of their interfaces, and everything
//! else is behind the operator's bridge. Which function a frame is about to enter is in a register, for one that
//! is to all of them enters each.

use std::{collections::BTreeMap, net::IpAddr};

use domain::network::security_group::{Action, Direction, Peer, Ports, Protocol, Rule};
use ipnet::IpNet;

use super::Port;
use crate::network::{
    Interface, NetworkFault,
    firewall::{self, Nic},
};

const LEAVE: u8 = 10;
const LEAVE_KNOWN: u8 = 11;
const WHITHER: u8 = 20;
const ENTER: u8 = 30;
const ENTER_KNOWN: u8 = 31;
/// The first of a port's rules; each that counts less is one below.
const FIRST_RULE: usize = 60_000;

/// What IPv6 cannot do without: packets that are too big, who listens to a group, neighbours.
const ICMPV6_BOTH: [u8; 7] = [2, 130, 131, 132, 135, 136, 143];

fn flow(table: u8, priority: usize, of: &str, actions: &str) -> String {
    format!("table={table},priority={priority},{of},actions={actions}")
}

/// All flows of a switch, with the port that leads to the operator's bridge.
pub(super) fn all(
    out: &str,
    ports: &BTreeMap<Interface, Port>,
) -> Result<Vec<String>, NetworkFault> {
    let whither = format!("resubmit(,{WHITHER})");
    let mut flows = vec![
        flow(0, 100, &format!("in_port=\"{out}\""), &whither),
        // Whom nobody here is.
        flow(WHITHER, 2, &format!("in_port=\"{out}\""), "drop"),
    ];
    let mut all = Vec::new();
    for ((name, port), number) in ports.iter().zip(1_u32..) {
        let (from, to) = (format!("in_port=\"{name}\""), format!("reg1={number:#x}"));
        let enter = format!("load:{number:#x}->NXM_NX_REG1[],resubmit(,{ENTER})");
        flows.push(flow(WHITHER, 100, &format!("dl_dst={}", port.nic.mac), &enter));
        all.push(enter);
        flows.extend(source(&from, &port.nic));
        let pass = [(Direction::Egress, &from, &whither, LEAVE, LEAVE_KNOWN)];
        let output = format!("output:\"{name}\"");
        let pass = pass.into_iter().chain([(Direction::Ingress, &to, &output, ENTER, ENTER_KNOWN)]);
        for (direction, which, then, table, known) in pass {
            match &port.nic.rules {
                None => flows.push(flow(table, 1, which, then)),
                Some(rules) => {
                    let rules = firewall::in_order(rules, direction);
                    let way = Way { which, then, table, known, zone: port.zone };
                    flows.extend(way.guarded(direction, &rules)?);
                }
            }
        }
    }
    // To all functions and to the wire; back to where it comes from nothing goes by itself.
    all.push(format!("output:\"{out}\""));
    let group = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00";
    flows.push(flow(WHITHER, 50, group, &all.join(",")));
    flows.push(flow(
        WHITHER,
        1,
        "dl_dst=00:00:00:00:00:00/01:00:00:00:00:00",
        &format!("output:\"{out}\""),
    ));
    Ok(flows)
}

/// A network as a match; all of a family is matched by nothing more.
fn within(field: &str, net: &IpNet) -> String {
    let net = net.trunc();
    if net.prefix_len() == net.max_prefix_len() {
        format!("{field}={}", net.addr())
    } else {
        format!("{field}={net}")
    }
}

/// Whether a frame is the function's own: what passes goes on, everything else is dropped.
fn source(from: &str, nic: &Nic) -> Vec<String> {
    let mac = nic.mac;
    let leave = format!("resubmit(,{LEAVE})");
    let mut flows = Vec::new();
    let mut drops = |priority, of: &str| {
        flows.push(flow(0, priority, &format!("{from},{of}"), "drop"));
    };
    // A VLAN of its own inside of the segment's.
    drops(99, "vlan_tci=0x1000/0x1000");
    // Servers never answer DHCP; routers and redirects are others' to tell.
    for of in ["udp,tp_src=67", "udp6,tp_src=547", "icmp6,icmp_type=134", "icmp6,icmp_type=137"] {
        drops(95, of);
    }
    // What a neighbour says to be is its own, see below.
    drops(91, "icmp6,icmp_type=136");
    let mut passes = |priority, of: &str| {
        flows.push(flow(0, priority, &format!("{from},dl_src={mac},{of}"), &leave));
    };
    let own = |v4: bool| nic.addresses.iter().filter(move |net| net.addr().is_ipv4() == v4);
    // Nobody's address asks whether one is free (RFC 5227).
    passes(90, &format!("arp,arp_sha={mac},arp_spa=0.0.0.0"));
    passes(90, "udp,nw_src=0.0.0.0,tp_src=68,tp_dst=67");
    for net in own(true) {
        passes(90, &format!("arp,arp_sha={mac},{}", within("arp_spa", net)));
        passes(90, &format!("ip,{}", within("nw_src", net)));
    }
    // Whoever has no address yet: is one free, who routes, who listens.
    for kind in [131, 132, 133, 135, 143] {
        passes(90, &format!("icmp6,ipv6_src=::,icmp_type={kind}"));
    }
    let local = IpNet::V6(firewall::link_local(mac));
    let v6: Vec<&IpNet> = own(false).chain([&local]).collect();
    for net in &v6 {
        passes(90, &format!("ipv6,{}", within("ipv6_src", net)));
        for target in &v6 {
            let (source, target) = (within("ipv6_src", net), within("nd_target", target));
            passes(92, &format!("icmp6,icmp_type=136,icmp_code=0,{source},{target}"));
        }
    }
    flows
}

/// One way through a port that has rules.
struct Way<'a> {
    /// Which frames.
    which: &'a str,
    /// What becomes of those that may pass.
    then: &'a str,
    table: u8,
    /// Where they are when their connection is known.
    known: u8,
    zone: u16,
}

impl Way<'_> {
    fn guarded(&self, direction: Direction, rules: &[&Rule]) -> Result<Vec<String>, NetworkFault> {
        let Self { which, then, table, known, zone } = self;
        let mut flows: Vec<String> = essential(direction)
            .iter()
            .map(|of| flow(*table, 100, &format!("{which},{of}"), then))
            .collect();
        for family in ["ip", "ipv6"] {
            let look = format!("ct(table={known},zone={zone})");
            flows.push(flow(*table, 90, &format!("{which},{family}"), &look));
        }
        for state in ["+trk+est", "+trk+rel"] {
            flows.push(flow(
                *known,
                FIRST_RULE + 1,
                &format!("{which},ct_state={state}-inv"),
                then,
            ));
        }
        flows.push(flow(*known, FIRST_RULE + 2, &format!("{which},ct_state=+inv"), "drop"));
        for (rule, below) in rules.iter().zip(0..) {
            // As many as a server's groups have leave room for all.
            let priority = FIRST_RULE.saturating_sub(below);
            let actions = match rule.action {
                Action::Allow => format!("ct(commit,zone={zone}),{then}"),
                Action::Deny => "drop".to_owned(),
            };
            for of in matches_of(rule)? {
                flows.push(flow(*known, priority, &format!("{which},{of}"), &actions));
            }
        }
        Ok(flows)
    }
}

/// What needs no rule.
fn essential(direction: Direction) -> Vec<String> {
    let (dhcp, dhcpv6, routers) = match direction {
        Direction::Egress => ("udp,tp_src=68,tp_dst=67", "udp6,tp_src=546,tp_dst=547", 133),
        Direction::Ingress => ("udp,tp_src=67,tp_dst=68", "udp6,tp_src=547,tp_dst=546", 134),
    };
    // Fragmentation needed: without it large packets vanish.
    let mut all = ["arp", dhcp, dhcpv6, "icmp,icmp_type=3,icmp_code=4"].map(str::to_owned).to_vec();
    let kinds = ICMPV6_BOTH.into_iter().chain([routers]);
    all.extend(kinds.map(|kind| format!("icmp6,icmp_type={kind}")));
    all
}

/// What one rule is about.
fn matches_of(rule: &Rule) -> Result<Vec<String>, NetworkFault> {
    let Peer::Cidr(peer) = &rule.peer else {
        let why = format!("nobody knows the addresses of {}", rule.peer);
        return Err(NetworkFault::Impossible(why));
    };
    let v4 = peer.addr().is_ipv4();
    let side = match (rule.direction, peer.addr()) {
        (Direction::Ingress, IpAddr::V4(_)) => "nw_src",
        (Direction::Ingress, IpAddr::V6(_)) => "ipv6_src",
        (Direction::Egress, IpAddr::V4(_)) => "nw_dst",
        (Direction::Egress, IpAddr::V6(_)) => "ipv6_dst",
    };
    let Some(protocols) = protocol(rule, v4)? else { return Ok(Vec::new()) };
    let peer = (peer.prefix_len() > 0).then(|| within(side, peer));
    let of = |protocol: String| {
        peer.iter().fold(protocol, |protocol, peer| format!("{protocol},{peer}"))
    };
    Ok(protocols.into_iter().map(of).collect())
}

/// What of the protocol is matched; none when the family does not have it.
fn protocol(rule: &Rule, v4: bool) -> Result<Option<Vec<String>>, NetworkFault> {
    let family = if v4 { "ip" } else { "ipv6" };
    let number = match rule.protocol {
        Protocol::Any => return Ok(Some(vec![family.to_owned()])),
        Protocol::ICMP if !v4 => return Ok(None),
        Protocol::ICMPV6 if v4 => return Ok(None),
        Protocol::Number(number) => number,
    };
    let name = match number {
        1 => Some("icmp"),
        6 => Some("tcp"),
        17 => Some("udp"),
        58 => Some("icmp"),
        132 => Some("sctp"),
        _ => None,
    };
    let name = name.map(|name| if v4 { name.to_owned() } else { format!("{name}6") });
    let name = name.unwrap_or_else(|| format!("{family},nw_proto={number}"));
    Ok(Some(match (rule.ports, rule.icmp_type, rule.icmp_code) {
        (Some(_), ..) if !matches!(number, 6 | 17 | 132) => {
            let why = format!("Open vSwitch knows no ports of protocol {}", rule.protocol);
            return Err(NetworkFault::Impossible(why));
        }
        (Some(ports), ..) => masks(ports).map(|ports| format!("{name}{ports}")).collect(),
        (None, Some(kind), Some(code)) => vec![format!("{name},icmp_type={kind},icmp_code={code}")],
        (None, Some(kind), None) => vec![format!("{name},icmp_type={kind}")],
        (None, None, _) => vec![name],
    }))
}

/// A range of ports as what a flow can match: numbers that begin with the same bits.
fn masks(ports: Ports) -> impl Iterator<Item = String> {
    let (mut next, last) = (u32::from(ports.from), u32::from(ports.to));
    std::iter::from_fn(move || {
        if next > last {
            return None;
        }
        // The largest block that begins here and does not go beyond.
        let fits = |bits: &u32| next % (1 << bits) == 0 && next + (1 << bits) - 1 <= last;
        let bits = (0..=16).rev().find(fits).unwrap_or(0);
        let (port, mask) = (next, 0xffff_u32 >> bits << bits);
        next += 1 << bits;
        Some(match bits {
            0 => format!(",tp_dst={port}"),
            16 => String::new(),
            _ => format!(",tp_dst={port:#x}/{mask:#x}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn ports() -> BTreeMap<Interface, Port> {
        let rules: BTreeSet<Rule> = serde_json::from_value(json!([
            {"direction": "egress", "protocol": "any", "peer": {"cidr": "0.0.0.0/0"}},
            {"direction": "egress", "action": "deny", "protocol": "tcp", "ports": "25",
             "peer": {"cidr": "0.0.0.0/0"}, "priority": 10},
            {"direction": "ingress", "protocol": "tcp", "ports": "8000-8080",
             "peer": {"cidr": "10.0.0.0/24"}},
            {"direction": "ingress", "protocol": "icmp", "icmp_type": 8, "icmp_code": 0,
             "peer": {"cidr": "10.0.0.0/24"}},
            {"direction": "ingress", "protocol": "icmpv6", "peer": {"cidr": "::/0"}},
            {"direction": "ingress", "protocol": "icmpv6", "peer": {"cidr": "0.0.0.0/0"}},
            {"direction": "ingress", "protocol": "47", "peer": {"cidr": "192.0.2.7/32"}},
        ]))
        .unwrap();
        let nic = |mac: &str, addresses: &[&str], rules| Nic {
            mac: mac.parse().unwrap(),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
            rules,
            told: false,
        };
        let guarded = nic("52:54:00:00:00:0a", &["10.0.0.10/32", "2001:db8::10/128"], Some(rules));
        let open = nic("52:54:00:00:00:0b", &["10.0.0.11/32"], None);
        [("rep0", Port { nic: guarded, zone: 7 }), ("rep1", Port { nic: open, zone: 8 })]
            .map(|(name, port)| (name.parse().unwrap(), port))
            .into()
    }

    #[test]
    fn a_switch_is_one_list_of_flows() {
        let text = all("sp0a0b0c0d0e0f", &ports()).unwrap().join("\n") + "\n";
        let path = format!("{}/src/network/offload/switch.flows", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "BLESS=1 writes {path}");
    }

    #[test]
    fn a_range_of_ports_is_few_blocks_and_exactly_it() {
        for (from, to) in [(80, 80), (8_000, 8_080), (0, 65_535), (1, 65_535), (1_023, 1_025)] {
            let blocks: Vec<String> = masks(Ports { from, to }).collect();
            let number = |text: &str| match text.strip_prefix("0x") {
                Some(digits) => u16::from_str_radix(digits, 16).unwrap(),
                None => text.parse().unwrap(),
            };
            let has = |port: u16| {
                blocks.iter().filter(move |block| {
                    let Some(block) = block.strip_prefix(",tp_dst=") else { return true };
                    let (value, mask) = block.split_once('/').unwrap_or((block, "0xffff"));
                    port & number(mask) == number(value)
                })
            };
            assert!(blocks.len() <= 30, "{blocks:?}");
            for port in 0..=u16::MAX {
                assert_eq!(has(port).count(), usize::from((from..=to).contains(&port)), "{port}");
            }
        }
    }

    #[test]
    fn what_no_flow_can_be_is_said() {
        let rule = |rule: serde_json::Value| serde_json::from_value::<Rule>(rule).unwrap();
        let group = json!({"direction": "ingress", "protocol": "tcp", "peer": {"group": "web"}});
        assert!(matches_of(&rule(group)).unwrap_err().to_string().contains("web"));
        let lite = json!({"direction": "ingress", "protocol": "136", "ports": "7", "peer": {"cidr": "::/0"}});
        assert!(matches_of(&rule(lite)).unwrap_err().to_string().contains("136"));
    }
}
