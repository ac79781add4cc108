//! Devices of a server that is there: given facts, when a command, then facts or a refusal.

use chrono::DateTime;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::kernel::{Decider, Stamp};

const GPU: &str = "0000:3b:00.0";
const STICK: &str = "usb:1-1";

fn evolve(server: Server, event: &str, data: Value) -> Server {
    server.evolve(serde_json::from_value(json!({"type": event, "data": data})).unwrap())
}

fn placement(devices: &[&str]) -> Value {
    json!({
        "host": Uuid::from_u128(5), "fitting": 1,
        "score": {
            "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0, "fill": 0,
        },
        "holding": {
            "server": Uuid::from_u128(9), "vcpus": 1, "memory_mib": 64, "devices": devices,
        },
    })
}

fn confirmed(server: Server, power: &str) -> Server {
    let number = server.orders.issued;
    let seen = json!({"power": power, "shape": "1x64"});
    evolve(server, "confirmed", json!({"number": number, "seen": seen}))
}

/// One with a card, as it was launched.
fn server(power: &str) -> Server {
    let spec = json!({
        "vcpus": 1, "memory_mib": 64, "devices": [{"kind": "gpu", "model": "10de:1eb8"}],
    });
    let launch = json!({"name": "web", "spec": spec, "placement": placement(&[GPU])});
    confirmed(evolve(Server::default(), "launched", json!({"launch": launch})), power)
}

fn decide(server: &Server, verb: &str, data: Value) -> Result<Vec<Event>, String> {
    let command = serde_json::from_value(json!({"type": verb, "data": data})).unwrap();
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    let no = |no: Refusal| format!("{}: {}", no.code.code, no.detail);
    server.decide(command, &stamp).map_err(no)
}

fn add() -> Value {
    let asks = json!([{"kind": "gpu", "model": "10de:1eb8"}, {"kind": "usb"}]);
    let found = json!({"devices": asks, "placement": placement(&[GPU, STICK])});
    json!({"device": {"kind": "usb"}, "found": found})
}

fn remove() -> Value {
    json!({"device": GPU, "found": {"devices": [], "placement": placement(&[])}})
}

fn after(server: &Server, events: Vec<Event>) -> Server {
    events.into_iter().fold(server.clone(), Server::evolve)
}

/// The devices that its host is to keep for it from this fact on.
fn kept(server: &Server, event: Event) -> Vec<String> {
    let companions = server.companions(&[event]);
    let [resize] = &companions[..] else { panic!("{companions:?}") };
    assert_eq!((resize.kind, resize.verb), ("host", "resize"));
    serde_json::from_value(resize.body["holding"]["devices"].clone()).unwrap_or_default()
}

#[test]
fn a_device_is_held_from_its_order_on_and_one_less_from_its_end() {
    let before = server("stopped");
    let events = decide(&before, "add-device", add()).unwrap();
    assert_eq!(kept(&before, events[0].clone()), [GPU, STICK]);
    let out = after(&before, events);
    assert_eq!(out.status(), "changing-devices");
    assert_eq!(out.home.as_ref().unwrap().placement, before.home.as_ref().unwrap().placement);
    assert!(decide(&out, "remove-device", remove()).unwrap_err().starts_with("order-outstanding"));
    let both = confirmed(out, "stopped");
    let home = both.home.as_ref().unwrap();
    assert_eq!(home.spec.devices.len(), 2);
    assert_eq!(home.placement.holding.devices, [GPU, STICK].map(str::to_owned).into());

    let asks = json!([{"kind": "usb"}]);
    let found = json!({"devices": asks, "placement": placement(&[STICK])});
    let events = decide(&both, "remove-device", json!({"device": GPU, "found": found})).unwrap();
    assert_eq!(kept(&both, events[0].clone()), [GPU, STICK], "both, until it is through");
    let out = after(&both, events);
    let seen = json!({"power": "stopped", "shape": "1x64"});
    let done = json!({"number": out.orders.issued, "seen": seen});
    let done: Event = serde_json::from_value(json!({"type": "confirmed", "data": done})).unwrap();
    assert_eq!(kept(&out, done), [STICK]);
    assert_eq!(kept(&out, Event::Abandoned {}), [GPU, STICK], "or it has what it had");
    assert_eq!(confirmed(out, "stopped").home.unwrap().spec.devices.len(), 1);
}

#[test]
fn what_is_not_so_is_refused() {
    let stopped = server("stopped");
    for power in ["running", "suspended"] {
        for (verb, body) in [("add-device", add()), ("remove-device", remove())] {
            let why = decide(&server(power), verb, body).unwrap_err();
            assert!(why.starts_with("wrong-state") && why.contains("stop it first"), "{why}");
        }
    }
    let refused = |verb: &str, body: Value, part: &str| {
        let why = decide(&stopped, verb, body).unwrap_err();
        assert!(why.contains(part), "{why}");
    };
    let mut other = add();
    other["found"]["devices"] = json!([{"kind": "usb"}]);
    refused("add-device", other, "other devices");
    let mut other = add();
    other["found"]["placement"] = placement(&[STICK]);
    refused("add-device", other, "other devices");
    let mut other = add();
    other["found"]["placement"]["holding"]["vcpus"] = json!(2);
    refused("add-device", other, "another place");
    refused("add-device", json!({"device": {"kind": "usb"}}), "no-room");
    refused("add-device", json!({"device": {"kind": "usb", "count": 0}}), "invalid-field");
    refused("add-device", json!({"device": {"kind": "usb", "count": 64}}), "invalid-field");
    let wire = json!({"device": {"kind": "vf", "carrier": "br0"}});
    refused("add-device", wire, "unsupported");
    refused("remove-device", json!({"device": STICK}), "it has no usb:1-1");
    let mut other = remove();
    other["found"]["placement"] = placement(&[GPU]);
    refused("remove-device", other, "other devices");
    let why = decide(&Server::default(), "add-device", add()).unwrap_err();
    assert!(why.starts_with("unsupported"), "{why}");
}

#[test]
fn what_is_asked_for_less_is_what_that_device_was_for() {
    let mut home = server("stopped").home.unwrap();
    let asks = json!([
        {"kind": "gpu"}, {"kind": "gpu", "model": "a", "count": 2},
        {"kind": "vf"}, {"kind": "vf", "function": {"vlan": 7}},
        {"kind": "vf", "function": {"vlan": 7, "mac": "52:54:00:00:00:01"}},
    ]);
    home.spec.devices = serde_json::from_value(asks).unwrap();
    home.placement.holding.functions = serde_json::from_value(json!({
        "f1": {"mac": "52:54:00:00:00:02", "vlan": 7}, "f2": {"mac": "52:54:00:00:00:01", "vlan": 7},
    }))
    .unwrap();
    let without = |id: &str, kind: &str, model: &str| {
        let device = json!({"id": id, "kind": kind, "model": model});
        let asks = home.asks_without(&serde_json::from_value(device).unwrap());
        asks.iter().map(|ask| ask.count).collect::<Vec<_>>()
    };
    assert_eq!(without("g", "gpu", "a"), [1, 1, 1, 1, 1]);
    let left = |id: &str, kind: &str, model: &str| {
        let device = json!({"id": id, "kind": kind, "model": model});
        let asks = home.asks_without(&serde_json::from_value(device).unwrap());
        home.spec.devices.iter().position(|ask| !asks.contains(ask))
    };
    assert_eq!(left("g", "gpu", "b"), Some(0));
    assert_eq!(left("f0", "vf", "x"), Some(2));
    assert_eq!(left("f1", "vf", "x"), Some(3));
    assert_eq!(left("f2", "vf", "x"), Some(4));
    assert_eq!(left("n", "nic", "x"), None);
}
