//! Interfaces of a server that is there: given facts, when a command, then facts or a refusal.

use chrono::DateTime;
use serde_json::{Value, json};

use super::*;
use crate::kernel::{Decider, Stamp};

const SERVER: Uuid = Uuid::from_u128(9);
const GROUP: Uuid = Uuid::from_u128(20);

fn nic(number: u128) -> Value {
    json!({
        "id": Uuid::from_u128(number), "network": Uuid::from_u128(7), "segment": Uuid::from_u128(8),
        "bridge": "br0", "medium": "bridge", "mtu": 1_500,
        "mac": format!("52:54:00:00:00:{number:02x}"), "addresses": [format!("10.0.0.{number}/24")],
    })
}

fn rules(port: &str) -> Value {
    let rule = json!({
        "direction": "ingress", "protocol": "tcp", "ports": port, "peer": {"cidr": "10.0.0.0/8"},
    });
    json!({GROUP.to_string(): [rule]})
}

fn evolve(server: Server, event: &str, data: Value) -> Server {
    server.evolve(serde_json::from_value(json!({"type": event, "data": data})).unwrap())
}

/// One that runs, with one interface.
fn running() -> Server {
    let score = json!({
        "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0, "fill": 0,
    });
    let launch = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "parts": {"nics": [nic(1)]},
        "placement": {
            "host": Uuid::from_u128(5), "fitting": 1, "score": score,
            "holding": {"server": SERVER, "vcpus": 1, "memory_mib": 64},
        },
    });
    confirmed(evolve(Server::default(), "launched", json!({"launch": launch})), "running")
}

fn confirmed(server: Server, power: &str) -> Server {
    let seen = json!({"power": power, "shape": "1x64"});
    let number = server.orders.issued;
    evolve(server, "confirmed", json!({"number": number, "seen": seen}))
}

/// The facts that a command comes to, as their tags, or the rule's no; and the state after them.
fn decide(server: &Server, verb: &str, data: Value) -> (Result<Vec<String>, String>, Server) {
    let command = serde_json::from_value(json!({"type": verb, "data": data})).unwrap();
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    match server.decide(command, &stamp) {
        Err(no) => (Err(format!("{}: {}", no.code.code, no.detail)), server.clone()),
        Ok(events) => {
            let tag = |event: &Event| {
                serde_json::to_value(event).unwrap()["type"].as_str().unwrap().to_owned()
            };
            let tags = events.iter().map(tag).collect();
            (Ok(tags), events.into_iter().fold(server.clone(), Decider::evolve))
        }
    }
}

fn done(server: &Server, verb: &str, data: Value) -> Server {
    let (facts, server) = decide(server, verb, data);
    assert_eq!(facts.map(|facts| facts.len()), Ok(1), "{verb}");
    confirmed(server, "running")
}

fn add(number: u128) -> Value {
    json!({"nic": {"network": Uuid::from_u128(7)}, "found": {"nic": nic(number)}})
}

fn ids(server: &Server) -> Vec<u128> {
    let nics = &server.home.as_ref().unwrap().parts.nics;
    nics.iter().map(|nic| nic.id.as_u128()).collect()
}

#[test]
fn an_interface_has_its_addresses_from_the_append_that_orders_it() {
    let server = running();
    let (facts, after) = decide(&server, "add-nic", add(2));
    assert_eq!(facts.unwrap(), ["nic-addition-ordered"]);
    assert_eq!((after.status(), ids(&after)), ("adding-nic", vec![1, 2]));
    let event = Event::NicAdditionOrdered {
        nic: Box::new(serde_json::from_value(nic(2)).unwrap()),
        groups: GroupRules::new(),
    };
    let said = server.companions(&[event]);
    assert_eq!((said[0].kind, said[0].verb), ("network", "give"));
    assert_eq!(said[0].body["holder"], json!(Uuid::from_u128(2)));
    // While it is out nothing else is ordered.
    let refused = decide(&after, "add-nic", add(3)).0.unwrap_err();
    assert!(refused.starts_with("order-outstanding"), "{refused}");
}

#[test]
fn an_interface_that_is_removed_keeps_its_addresses_until_it_is_gone() {
    let server = done(&running(), "add-nic", add(2));
    let (facts, ordered) = decide(&server, "remove-nic", json!({"nic": Uuid::from_u128(1)}));
    assert_eq!(facts.unwrap(), ["nic-removal-ordered"]);
    assert_eq!(ids(&ordered), [1, 2], "it still has it");
    let removal = Event::NicRemovalOrdered { nic: Uuid::from_u128(1) };
    assert_eq!(server.companions(&[removal]), []);
    let seen = serde_json::from_value(json!({"power": "running", "shape": "1x64"})).unwrap();
    let said = ordered.companions(&[Event::Confirmed { number: 3, seen }]);
    assert_eq!((said[0].kind, said[0].verb), ("network", "release"));
    assert_eq!(said[0].body, json!({"holder": Uuid::from_u128(1)}));
    assert_eq!(ids(&confirmed(ordered, "running")), [2]);
}

#[test]
fn an_addition_that_is_given_up_is_taken_back() {
    let (_, server) = decide(&running(), "add-nic", add(2));
    let parked = evolve(server, "parked", json!({"number": 2, "reason": "no slot"}));
    let (facts, server) = decide(&parked, "abandon", json!({}));
    assert_eq!(facts.unwrap(), ["abandoned", "nic-removal-ordered"]);
    assert_eq!(server.status(), "removing-nic");
    assert_eq!(ids(&confirmed(server, "running")), [1]);
}

#[test]
fn rules_of_groups_that_are_named_are_followed_and_others_forgotten() {
    let guard = |groups: Value, rules: Value| json!({"nic": Uuid::from_u128(1), "security_groups": groups, "groups": rules});
    let server = done(&running(), "change-nic", guard(json!([GROUP]), rules("80")));
    let parts = |server: &Server| server.home.as_ref().unwrap().parts.clone();
    assert_eq!(parts(&server).nics[0].rules(&parts(&server).groups).unwrap().len(), 1);
    let same = decide(&server, "follow-groups", json!({"groups": rules("80")})).0;
    assert_eq!(same.unwrap(), [""; 0]);
    let other = json!({"groups": {Uuid::from_u128(21).to_string(): []}});
    assert_eq!(decide(&server, "follow-groups", other).0.unwrap(), [""; 0]);
    let server = done(&server, "follow-groups", json!({"groups": rules("443")}));
    let group = &parts(&server).groups[&GROUP];
    assert_eq!(group[0].ports.unwrap().from, 443);
    let server = done(&server, "change-nic", guard(json!([]), json!(null)));
    assert_eq!(parts(&server).groups, GroupRules::new());
    assert_eq!(parts(&server).nics[0].rules(&parts(&server).groups), None);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let server = running();
    let nic = |more: Value| {
        let mut body = json!({"nic": Uuid::from_u128(1)});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        decide(&server, "change-nic", body).0
    };
    let no = |more: Value| nic(more).unwrap_err();
    assert_eq!(nic(json!({})).unwrap(), [""; 0]);
    assert!(no(json!({"bandwidth": {"egress_kbit_s": 7}})).contains("bandwidth.egress_kbit_s"));
    assert!(no(json!({"security_groups": [GROUP]})).contains("nobody looked"));
    let many: Vec<_> = (0..6).map(Uuid::from_u128).collect();
    assert!(no(json!({"security_groups": many})).contains("at most 5"));
    let unknown = decide(&server, "remove-nic", json!({"nic": Uuid::from_u128(3)})).0.unwrap_err();
    assert!(unknown.starts_with("invalid-field: nic: it has no interface"), "{unknown}");
    let mut same = add(2);
    same["found"]["nic"]["mac"] = json!("52:54:00:00:00:01");
    assert!(decide(&server, "add-nic", same).0.unwrap_err().contains("another interface's"));
    let (_, suspended) = decide(&server, "suspend", json!({}));
    let suspended = confirmed(suspended, "suspended");
    assert!(decide(&suspended, "add-nic", add(2)).0.unwrap_err().starts_with("wrong-state"));
    let slow = json!({"nic": Uuid::from_u128(1), "bandwidth": {"egress_kbit_s": 8}});
    assert_eq!(decide(&suspended, "change-nic", slow).0.unwrap(), ["nic-change-ordered"]);
}
