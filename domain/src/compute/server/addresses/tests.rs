//! Other addresses of an interface: given facts, when a command, then facts or a refusal.

use super::*;
use crate::kernel::Decider;

const SERVER: Uuid = Uuid::from_u128(9);
const NIC: Uuid = Uuid::from_u128(1);
const HOLDER: Uuid = Uuid::from_u128(30);

fn evolve(server: Server, event: &str, data: Value) -> Server {
    server.evolve(serde_json::from_value(json!({"type": event, "data": data})).unwrap())
}

/// One that runs, with one interface.
fn running() -> Server {
    let nic = json!({
        "id": NIC, "network": Uuid::from_u128(7), "segment": Uuid::from_u128(8), "bridge": "br0",
        "medium": "bridge", "mtu": 1_500, "mac": "52:54:00:00:00:01",
        "addresses": ["10.0.0.4/24", "2001:db8::4/64"], "gateways": ["10.0.0.1"],
    });
    let score = json!({
        "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0, "fill": 0,
    });
    let launch = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "parts": {"nics": [nic]},
        "placement": {
            "host": Uuid::from_u128(5), "fitting": 1, "score": score,
            "holding": {"server": SERVER, "vcpus": 1, "memory_mib": 64},
        },
    });
    confirmed(evolve(Server::default(), "launched", json!({"launch": launch})))
}

fn seen() -> Machine {
    serde_json::from_value(json!({"power": "running", "shape": "1x64"})).unwrap()
}

fn confirmed(server: Server) -> Server {
    let number = server.orders.issued;
    evolve(server, "confirmed", json!({"number": number, "seen": seen()}))
}

/// The facts that a command comes to, as their tags; and the state after them.
fn decide(server: &Server, verb: &str, data: Value) -> Result<(Vec<String>, Server), Refusal> {
    let command = serde_json::from_value(json!({"type": verb, "data": data})).unwrap();
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    let events = server.decide(command, &stamp)?;
    let tag =
        |event: &Event| serde_json::to_value(event).unwrap()["type"].as_str().unwrap().to_owned();
    let tags = events.iter().map(tag).collect();
    Ok((tags, events.into_iter().fold(server.clone(), Decider::evolve)))
}

fn found() -> Found {
    let addresses = ["10.0.0.5/24", "2001:db8::4/64"].map(|net| net.parse().unwrap());
    let gateways = vec!["10.0.0.1".parse().unwrap()];
    Found { holder: HOLDER, addresses: addresses.into(), gateways }
}

fn change() -> Value {
    json!({"nic": NIC, "v4": {"type": "any", "data": {}}, "found": found()})
}

fn has(server: &Server) -> Vec<String> {
    let nics = &server.home.as_ref().unwrap().parts.nics;
    nics[0].addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn new_addresses_are_taken_by_the_order_and_old_ones_free_once_it_has_them() {
    let server = running();
    let (facts, ordered) = decide(&server, "change-addresses", change()).unwrap();
    assert_eq!(facts, ["address-change-ordered"]);
    assert_eq!(ordered.status(), "changing-addresses");
    assert_eq!(has(&ordered)[0], "10.0.0.4/24", "it still has them");
    let said = server.companions(&[Event::AddressChangeOrdered { nic: NIC, found: found() }]);
    assert_eq!((said.len(), said[0].kind, said[0].verb), (1, "network", "give"));
    assert_eq!(said[0].body["holder"], json!(HOLDER));
    assert_eq!(said[0].body["v4"]["data"]["address"], "10.0.0.5");
    assert_eq!(said[0].body["v6"], Value::Null, "it keeps that one");
    let refused = decide(&ordered, "change-addresses", change()).unwrap_err();
    assert_eq!(refused.code.code, "order-outstanding");

    let said = ordered.companions(&[Event::Confirmed { number: 2, seen: seen() }]);
    assert_eq!((said.len(), said[0].verb), (1, "replace"));
    assert_eq!(said[0].body, json!({"holder": NIC, "by": HOLDER}));
    let after = confirmed(ordered);
    assert_eq!(has(&after), ["10.0.0.5/24", "2001:db8::4/64"]);
    assert_eq!(decide(&after, "change-addresses", change()).unwrap().0, [""; 0]);
}

#[test]
fn what_it_cannot_have_is_free_again_and_it_keeps_what_it_had() {
    let (_, ordered) = decide(&running(), "change-addresses", change()).unwrap();
    let kept = json!({"number": 2, "reason": "no agent", "seen": seen()});
    let (facts, after) = decide(&ordered, "confirm-kept-addresses", kept.clone()).unwrap();
    assert_eq!(facts, ["addresses-kept"]);
    assert_eq!((after.status(), has(&after)[0].as_str()), ("running", "10.0.0.4/24"));
    let event = Event::AddressesKept { number: 2, reason: "no agent".into(), seen: seen() };
    let said = ordered.companions(&[event]);
    assert_eq!((said.len(), said[0].verb), (1, "release"));
    assert_eq!(said[0].body, json!({"holder": HOLDER}));
    assert_eq!(decide(&after, "confirm-kept-addresses", kept).unwrap().0, [""; 0], "once");
}

#[test]
fn a_change_that_is_given_up_is_undone_before_anybody_else_has_the_addresses() {
    let (_, ordered) = decide(&running(), "change-addresses", change()).unwrap();
    let parked = evolve(ordered, "parked", json!({"number": 2, "reason": "no agent"}));
    let (facts, restoring) = decide(&parked, "abandon", json!({})).unwrap();
    assert_eq!(facts, ["abandoned", "address-restore-ordered"]);
    assert_eq!(restoring.status(), "restoring-addresses");
    let given_up = [Event::Abandoned {}, Event::AddressRestoreOrdered { nic: NIC, found: found() }];
    assert_eq!(parked.companions(&given_up), []);
    let said = restoring.companions(&[Event::Confirmed { number: 3, seen: seen() }]);
    assert_eq!((said.len(), said[0].verb), (1, "release"));
    assert_eq!(has(&confirmed(restoring.clone()))[0], "10.0.0.4/24");
    // That is given up as well: its host is asked for what is there.
    let parked = evolve(restoring, "parked", json!({"number": 3, "reason": "no libvirt"}));
    assert_eq!(
        decide(&parked, "abandon", json!({})).unwrap().0,
        ["abandoned", "nics-read-ordered"]
    );
    assert_eq!(parked.companions(&[Event::Abandoned {}])[0].verb, "release");
}

#[test]
fn what_a_dead_host_was_told_is_free_again() {
    let (_, ordered) = decide(&running(), "change-addresses", change()).unwrap();
    let to = ordered.home.as_ref().unwrap().placement.clone();
    let said = ordered.companions(&[Event::Evacuated { to, start: true }]);
    let network: Vec<_> = said.iter().filter(|one| one.kind == "network").collect();
    assert_eq!((network.len(), network[0].verb), (1, "release"));
    assert_eq!(network[0].body, json!({"holder": HOLDER}));
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let server = running();
    let no = |server: &Server, body: Value| {
        let no = decide(server, "change-addresses", body).unwrap_err();
        format!("{}: {}", no.code.code, no.detail)
    };
    assert!(no(&server, json!({"nic": NIC})).starts_with("invalid-field: v4: ask for"));
    let other = json!({"nic": HOLDER, "v4": {"type": "any", "data": {}}});
    assert!(no(&server, other).starts_with("invalid-field: nic: it has no interface"));
    let (_, suspended) = decide(&server, "suspend", json!({})).unwrap();
    let held = json!({"power": "suspended", "shape": "1x64"});
    let suspended = evolve(suspended, "confirmed", json!({"number": 2, "seen": held}));
    assert!(no(&suspended, change()).starts_with("wrong-state"));
    let mut windows = serde_json::to_value(&server).unwrap();
    windows["home"]["parts"]["image"] = json!({
        "id": HOLDER, "sha256": "00", "format": "raw", "source": "upload", "size_mib": 1,
        "os": "windows",
    });
    let windows = serde_json::from_value(windows).unwrap();
    assert!(no(&windows, change()).starts_with("unsupported: addresses inside Windows"));
}
