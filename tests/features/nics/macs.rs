//! A hardware address is one interface's in all networks of a segment, whoever asks for it and when.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Lab;
use crate::hosts::code;

const MAC: &str = "52:54:00:aa:00:01";

impl Lab {
    /// Another network of a segment; of a new one, when none is said.
    async fn network_on(&self, segment: Option<Uuid>, net: &str) -> Uuid {
        let segment = match segment {
            Some(segment) => segment,
            None => {
                let body = json!({"name": "red", "medium": "bridge", "bridge": "br1"});
                self.world.send("segment", None, "define", body).await.unwrap().id
            }
        };
        let body = json!({"name": net, "segment": segment, "v4": {"net": net, "step": "up"}});
        self.world.send("network", None, "define", body).await.unwrap().id
    }

    async fn segment(&self) -> Uuid {
        let row = self.world.row(self.network).await;
        row["state"]["own"]["segment"].as_str().unwrap().parse().unwrap()
    }
}

fn server(nic: Value) -> Value {
    json!({"name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "nics": [nic]})
}

#[tokio::test(flavor = "multi_thread")]
async fn two_networks_of_a_segment_never_hold_one_hardware_address() {
    let lab = Lab::of("10.0.0.0/24").await;
    let other = lab.network_on(Some(lab.segment().await), "10.0.1.0/24").await;
    let elsewhere = lab.network_on(None, "10.0.0.0/24").await;
    let ask = |network: Uuid| json!({"network": network, "mac": MAC});
    let first = lab.launch(ask(lab.network)).await;

    let position = lab.world.log.head().await.unwrap().position;
    let refused = lab.world.send("server", None, "launch", server(ask(other))).await;
    assert_eq!(code(refused), "address-taken");
    assert_eq!(lab.world.log.head().await.unwrap().position, position, "nothing is left of it");
    let second = lab.launch(json!({"network": other})).await;
    let refused = lab.send(second, "add-nic", json!({"nic": ask(other)})).await;
    assert_eq!(code(refused), "address-taken");
    // Another segment is another matter.
    lab.done(second, "add-nic", json!({"nic": ask(elsewhere)})).await;
    lab.same_as_census(second).await;

    // It is free when nothing of the first is left: not before.
    lab.done(first, "stop", json!({})).await;
    lab.done(first, "delete", json!({})).await;
    let refused = lab.world.send("server", None, "launch", server(ask(other))).await;
    assert_eq!(code(refused), "address-taken", "it can be had back");
    lab.done(first, "purge", json!({})).await;
    let third = lab.launch(ask(other)).await;
    assert_eq!(lab.nics(third)[0].seen.mac.to_string(), MAC);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_ask_for_one_hardware_address_in_networks_of_a_segment_one_gets_it() {
    let lab = Lab::of("10.0.0.0/24").await;
    let segment = lab.segment().await;
    let mut networks = vec![lab.network];
    for number in 1..4 {
        networks.push(lab.network_on(Some(segment), &format!("10.0.{number}.0/24")).await);
    }
    let mut servers = Vec::new();
    for at in 0..8 {
        servers.push(lab.launch(json!({"network": networks[at % 4]})).await);
    }
    // Interfaces are added side by side, unlike launches: they race for it in their appends.
    let ask = |at: usize| json!({"nic": {"network": networks[at % 4], "mac": MAC}});
    let asked = join_all((0..8).map(|at| lab.send(servers[at], "add-nic", ask(at))));
    let launch = |at: usize| {
        let body = server(json!({"network": networks[at], "mac": MAC}));
        lab.world.send("server", None, "launch", body)
    };
    let (added, launched) = futures::join!(asked, join_all((0..4).map(launch)));
    let mut got = 0;
    for one in added.into_iter().chain(launched.into_iter().map(|one| one.map(drop))) {
        match one {
            Ok(()) => got += 1,
            refused => assert_eq!(code(refused), "address-taken"),
        }
    }
    assert_eq!(got, 1);
    // What the networks say, all together.
    let mut holders = BTreeSet::new();
    lab.world.caught_up().await;
    for network in networks {
        let macs = lab.world.row(network).await["state"]["own"]["macs"].clone();
        for (mac, holder) in macs.as_object().unwrap() {
            assert!(holders.insert(mac.clone()), "{mac} is {holder}'s and another's");
        }
    }
    assert!(holders.contains(MAC));
}
