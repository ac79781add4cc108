//! What is asked for, as what a tool reads.

use std::collections::{BTreeMap, BTreeSet};

use adapters_kvm::network::firewall::{Conntrack, Firewall, Nic};
use domain::network::security_group::Rule;

pub(crate) fn rules(rules: &serde_json::Value) -> BTreeSet<Rule> {
    serde_json::from_value(rules.clone()).unwrap()
}

fn firewall() -> Firewall {
    let nic = Nic {
        mac: "52:54:00:00:00:0a".parse().unwrap(),
        addresses: ["10.0.0.10/32", "2001:db8::10/128"].map(|net| net.parse().unwrap()).into(),
        rules: Some(rules(&serde_json::json!([
            {"direction": "egress", "protocol": "any", "peer": {"cidr": "0.0.0.0/0"}},
            {"direction": "egress", "protocol": "any", "peer": {"cidr": "::/0"}},
            {"direction": "egress", "action": "deny", "protocol": "tcp", "ports": "25",
             "peer": {"cidr": "0.0.0.0/0"}, "priority": 10},
            {"direction": "ingress", "protocol": "tcp", "ports": "8000-8080",
             "peer": {"group": "web"}},
            {"direction": "ingress", "protocol": "icmp", "icmp_type": 8, "icmp_code": 0,
             "peer": {"cidr": "10.0.0.0/24"}},
            {"direction": "ingress", "protocol": "icmpv6", "peer": {"group": "web"}},
            {"direction": "ingress", "protocol": "47", "peer": {"cidr": "192.0.2.7/32"}},
            {"direction": "ingress", "action": "deny", "protocol": "udp", "ports": "53",
             "peer": {"cidr": "2001:db8:1::/48"}},
        ]))),
        told: true,
    };
    let bare = Nic {
        mac: "52:54:00:00:00:0b".parse().unwrap(),
        addresses: BTreeSet::new(),
        rules: None,
        told: false,
    };
    let web = ["10.0.0.20/32", "10.0.0.21/32", "2001:db8::20/128"].map(|net| net.parse().unwrap());
    Firewall {
        bridges: BTreeMap::from([("br0".parse().unwrap(), 7)]),
        nics: BTreeMap::from([("tap0".parse().unwrap(), nic), ("tap1".parse().unwrap(), bare)]),
        peers: BTreeMap::from([("web".to_owned(), BTreeSet::from(web))]),
    }
}

#[test]
fn a_firewall_is_one_ruleset() {
    for (conntrack, name, expected) in [
        (Conntrack::Bridge, "bridge", include_str!("bridge.nft")),
        (Conntrack::Marked, "marked", include_str!("marked.nft")),
    ] {
        let ruleset = firewall().ruleset(conntrack).unwrap();
        let path = format!("{}/tests/network/{name}.nft", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &ruleset.text).unwrap();
        } else {
            assert_eq!(ruleset.text, expected, "BLESS=1 writes {path}");
        }
        assert_eq!(ruleset, firewall().ruleset(conntrack).unwrap());
    }
}

#[test]
fn what_cannot_be_enforced_is_refused() {
    let mut unknown = firewall();
    unknown.peers.clear();
    let fault = unknown.ruleset(Conntrack::Marked).unwrap_err();
    assert_eq!(fault.to_string(), "nobody knows the addresses of `web`");
    let mut zones = firewall();
    zones.bridges.insert("br1".parse().unwrap(), 7);
    let fault = zones.ruleset(Conntrack::Marked).unwrap_err();
    assert_eq!(fault.to_string(), "two bridges have one zone");
}
