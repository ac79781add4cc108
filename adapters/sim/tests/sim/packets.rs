//! At no moment is anything blocked that both the old and the new rules let through, nor anything
//! let through that both block: for any rules with priorities and denials, any foreign rules, and
//! any call that fails on the way.

use std::net::IpAddr;

use adapters_sim::{Fault, Matching, Packet, allows};
use domain::{
    mapping::{Order, Spec},
    network::security_group::{Direction, Rule, SecurityGroup},
};
use proptest::{collection::vec, prelude::*};
use serde_json::json;

use crate::{Bench, group_task, rule, seen, spec};

/// Few values each, so that rules often overlap.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let one = (
        any::<bool>(),
        prop::sample::select(vec!["tcp", "udp", "any"]),
        prop::sample::select(vec!["", "22", "80", "20-90"]),
        prop::sample::select(vec!["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0"]),
        prop::sample::select(vec![0_u16, 1, 2, 3]),
    )
        .prop_map(|(deny, protocol, ports, peer, priority)| {
            let mut text = json!({"protocol": protocol, "peer": {"cidr": peer}});
            if deny {
                text["action"] = json!("deny");
            }
            if protocol != "any" && !ports.is_empty() {
                text["ports"] = json!(ports);
            }
            if priority > 0 {
                text["priority"] = json!(priority);
            }
            rule(&text)
        });
    vec(one, 0..7)
}

fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for protocol in [6, 17, 1] {
        for port in [22, 80, 50, 443] {
            for peer in ["10.1.0.9", "10.2.0.9", "192.0.2.9", "2001:db8::9"] {
                packets.push(Packet {
                    direction: Direction::Ingress,
                    protocol,
                    port,
                    icmp: (8, 0),
                    peer: peer.parse::<IpAddr>().unwrap(),
                    peer_groups: vec![],
                });
            }
        }
    }
    packets
}

fn with(rules: &[Rule]) -> SecurityGroup {
    SecurityGroup { rules: rules.to_vec(), ..spec("web", &[]) }.normalise()
}

/// Carries the order out while calls fail, and checks every state the cloud was in.
fn check(
    ours: &[Rule],
    foreign: &[Rule],
    wanted: &[Rule],
    fails: &[u64],
) -> Result<(), TestCaseError> {
    let bench = Bench::new(0);
    let from = with(ours);
    let there = with(&[ours, foreign].concat());
    let id = bench.group(&there);
    bench.cloud.clear_trace();
    for (place, nth) in fails.iter().enumerate() {
        let fault = if place.is_multiple_of(2) { Fault::AnswerLost } else { Fault::Transient };
        bench.cloud.faults().inject(Matching::write().nth(*nth), fault);
    }
    let order = Order::Apply { from: from.clone(), to: with(wanted) };
    let end = seen(&futures::executor::block_on(bench.insist(&group_task(1, &id, &order))));
    for packet in packets() {
        let (before, after) = (allows(&there, &packet), allows(&end, &packet));
        for call in bench.cloud.trace().iter().filter(|call| call.seen.op.writes()) {
            let Some(state) = &call.after else { continue };
            let state: SecurityGroup = serde_json::from_value(state.clone()).unwrap();
            let now = allows(&state, &packet);
            prop_assert!(now || !(before && after), "{packet:?} is blocked after {call:?}");
            prop_assert!(!now || before || after, "{packet:?} comes through after {call:?}");
        }
    }
    // And it ends right: what is wanted is there, and of the rest only what is foreign.
    let keys =
        |rules: &[Rule]| rules.iter().map(Rule::key).collect::<std::collections::BTreeSet<_>>();
    let (ended, foreign, ours) = (keys(&end.rules), keys(foreign), keys(ours));
    prop_assert!(ended.is_superset(&keys(wanted)));
    for over in ended.difference(&keys(wanted)) {
        prop_assert!(foreign.contains(over) && !ours.contains(over));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn nothing_is_blocked_or_opened_on_the_way_from_one_set_of_rules_to_another(
        ours in rules(),
        foreign in rules(),
        wanted in rules(),
        fails in vec(1_u64..6, 0..4),
    ) {
        check(&ours, &foreign, &wanted, &fails)?;
    }
}

#[test]
fn the_lowest_priority_decides_and_a_deny_wins_among_equals() {
    let tcp_22 = &packets()[0];
    let allow = |priority: u16| json!({"ports": "22", "priority": priority});
    let deny = |priority: u16| json!({"ports": "22", "priority": priority, "action": "deny"});
    for (rules, expected) in [
        (vec![], false),
        (vec![json!({"ports": "22"})], true),
        (vec![allow(1), deny(2)], true),
        (vec![allow(2), deny(1)], false),
        (vec![allow(1), deny(1)], false),
        (vec![json!({"ports": "22"}), deny(1_000)], false),
        (vec![json!({"ports": "22", "action": "deny"}), allow(1_000)], true),
    ] {
        let rules: Vec<Rule> = rules.iter().map(rule).collect();
        assert_eq!(allows(&with(&rules), tcp_22), expected, "{rules:?}");
    }
}
