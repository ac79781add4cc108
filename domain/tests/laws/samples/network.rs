//! Samples of networks, and of what is mapped one to one.

use domain::{
    compute::server::{
        self,
        parts::{GroupRules, Nic},
    },
    mapping::{self, Mute},
    network::{
        SeenNetwork,
        bandwidth::Bandwidth,
        net,
        quota::{Quota, Traffic},
        security_group::SecurityGroup,
        segment as layer2,
    },
    observation::Evidence,
};
use serde_json::{Value, json};

use super::{Samples, drift, id, of, origin, tags, time};

pub(crate) fn group(ports: &[&str]) -> SecurityGroup {
    let rules: Vec<Value> = ports
        .iter()
        .map(|ports| {
            json!({"direction": "ingress", "action": "allow", "protocol": "tcp", "ports": ports,
                   "peer": {"cidr": "10.0.0.0/8"}, "priority": 10, "description": "ours"})
        })
        .collect();
    serde_json::from_value(json!({
        "name": "web", "description": "web servers", "vpc": "vpc-1", "rules": rules, "tags": tags(),
    }))
    .unwrap()
}

pub(super) fn mapped() -> Samples {
    use mapping::Event as E;
    let (one, two) = (|| group(&["80"]), || group(&["80", "443"]));
    let own = SecurityGroup { vpc: None, ..two() };
    of::<mapping::Mapped<SecurityGroup>>(vec![
        E::Abandoned {},
        E::Accepted { spec: two() },
        E::Adopted { spec: one() },
        E::Applied { number: 2, seen: two() },
        E::Assigned { project: None },
        E::Converged { seen: one(), actor: Some("user/ann".into()) },
        E::Declared { origin: origin(""), project: Some(id(2)), spec: one() },
        E::DeclaredOwn { project: Some(id(2)), spec: own },
        E::Discovered { origin: origin("sg-1"), project: None, seen: one() },
        E::Drifted { seen: two(), fields: drift(), actor: Some("user/ann".into()) },
        E::Linked { number: 1, origin: origin("sg-1"), seen: one() },
        E::Muted { mute: Mute { reason: "until the audit".into(), until: Some(time()) } },
        E::Observed { seen: two(), actor: None },
        E::Parked { number: 2, reason: "rejected: quota".into() },
        E::ReapplyOrdered { to: one(), keep_foreign: true },
        E::Reappeared { seen: two() },
        E::RetireOrdered {},
        E::Retired {},
        E::RetryOrdered {},
        E::SpecDeclared { spec: two(), to: two() },
        E::Unmuted {},
        E::Vanished { evidence: Evidence::NotFoundById },
    ])
}

/// An interface of a server of ours.
pub(crate) fn nic(number: u128, group: u128) -> Nic {
    serde_json::from_value(json!({
        "id": id(number), "network": id(12), "segment": id(16), "bridge": "br0", "medium": "bridge",
        "mtu": 1_500, "mac": format!("52:54:00:00:00:{number:02x}"),
        "addresses": [format!("10.0.0.{number}/24")], "bandwidth": bandwidth(4_000),
        "security_groups": [id(group)],
    }))
    .unwrap()
}

/// Other addresses of an interface of a server of ours.
pub(crate) fn found_addresses() -> server::addresses::Found {
    serde_json::from_value(json!({
        "holder": id(40), "addresses": ["10.0.0.5/24", "2001:db8::5/64"],
        "gateways": ["10.0.0.1"],
    }))
    .unwrap()
}

/// The rules of a security group that lets a port in.
pub(crate) fn group_rules(port: &str) -> GroupRules {
    [(id(20), group(&[port]).rules)].into()
}

/// So many bytes from a server, and no limit towards it.
pub(crate) fn quota(egress: u64) -> Quota {
    Quota { ingress_bytes: None, egress_bytes: Some(egress) }
}

/// So much in both directions.
pub(crate) fn used(bytes: u64) -> Traffic {
    Traffic { ingress_bytes: bytes, egress_bytes: bytes }
}

/// So much towards a server, and no limit from it.
pub(crate) fn bandwidth(ingress: u64) -> Bandwidth {
    Bandwidth { ingress_kbit_s: Some(ingress), egress_kbit_s: None }
}

/// A subnet of this many bits, whose addresses are given from the lowest on.
pub(crate) fn subnet(net: &str) -> Value {
    json!({
        "net": net, "ranges": [], "gateway": null, "reserved": [], "step": "up", "cooldown_s": 60,
    })
}

/// A network of ours.
pub(crate) fn own_network() -> Value {
    json!({
        "id": id(5), "name": "blue", "project": id(2), "segment": id(6),
        "v4": subnet("10.0.0.0/28"), "v6": subnet("2001:db8::/64"),
        "dns_servers": ["10.0.0.2"], "domain": "blue.example.com", "dhcp": true,
    })
}

/// A network of a cloud.
pub(crate) fn seen_network(name: &str) -> SeenNetwork {
    SeenNetwork {
        name: name.into(),
        vpc: "vpc-1".into(),
        zone: Some("sim-north-1a".into()),
        cidrs: vec!["10.0.0.0/18".parse().unwrap()],
        tags: tags(),
    }
}

pub(super) fn network() -> Samples {
    use net::Event as E;
    let seen = || seen_network("web-a");
    let address = |text: &str| text.parse().unwrap();
    let range = json!({"first": "10.0.0.9", "last": "10.0.0.12"});
    let range: domain::network::addresses::Range = serde_json::from_value(range).unwrap();
    let change = json!({
        "name": "green", "v4": subnet("10.0.0.0/27"), "v6": subnet("2001:db8::/63"),
        "dns_servers": [], "domain": "", "dhcp": false,
    });
    of::<net::Network>(vec![
        E::Assigned { project: Some(id(2)) },
        E::Changed(serde_json::from_value(change).unwrap()),
        E::Defined(serde_json::from_value(own_network()).unwrap()),
        E::Discovered { origin: origin("x-1"), project: Some(id(2)), seen: seen() },
        E::Given {
            holder: id(7),
            addresses: vec![address("10.0.0.4"), address("2001:db8::4")],
            mac: Some(domain::network::mac::Mac::ours(7)),
        },
        E::Observed { seen: seen(), fields: vec!["name".into()], actor: Some("user/ann".into()) },
        E::Reappeared { seen: seen() },
        E::Released { holder: id(7), addresses: vec![address("10.0.0.4")], at: time() },
        E::Replaced {
            holder: id(7),
            by: id(8),
            addresses: vec![address("10.0.0.5"), address("2001:db8::5")],
            released: vec![address("10.0.0.4")],
            at: time(),
        },
        E::Reserved { range, note: "printers".into() },
        E::Retired {},
        E::Unreserved { range },
        E::Vanished { evidence: Evidence::CompleteListing { run: 7, listed: 120 } },
    ])
}

pub(super) fn layer2_segment() -> Samples {
    use layer2::{Event as E, Medium};
    of::<layer2::Segment>(vec![
        E::Attached {
            network: id(5),
            nets: vec!["10.0.0.0/24".parse().unwrap(), "2001:db8::/64".parse().unwrap()],
        },
        E::Changed {
            name: Some("blue".into()),
            mtu: Some(9_000),
            medium: Some(Medium::Ovs { vlan: Some(7) }),
            bridge: Some("br-int".into()),
        },
        E::Defined {
            name: "green".into(),
            project: Some(id(2)),
            medium: Medium::Vlan { id: 7 },
            bridge: "br0".into(),
            mtu: 1_500,
        },
        E::Detached { network: id(5) },
        E::Retired {},
    ])
}
