//! Other addresses of interfaces: had once, or not at all, whatever fails on the way.

use std::{collections::BTreeSet, sync::Arc};

use adapters_sim::{HostFault, HostStep};
use commands::submit::SubmitFault;
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Lab;
use crate::{
    hosts::{Mortal, code},
    world::World,
};

fn any(nic: Uuid) -> Value {
    json!({"nic": nic, "v4": {"type": "any", "data": {}}})
}

fn named(nic: Uuid, address: &str) -> Value {
    json!({"nic": nic, "v4": {"type": "named", "data": {"address": address}}})
}

impl Lab {
    /// The addresses that its first interface has inside, which are those that the host allows and the
    /// log knows.
    async fn addresses(&self, id: Uuid) -> Vec<String> {
        self.same_as_census(id).await;
        let nic = &self.nics(id)[0];
        assert_eq!(nic.inside, nic.addresses, "in the guest, and allowed");
        nic.inside.iter().map(ToString::to_string).collect()
    }

    /// Who has which address of the network.
    async fn taken(&self) -> Value {
        self.world.row(self.network).await["state"]["own"]["addresses"]["v4"]["taken"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_has_another_address_and_its_old_one_is_free_once_the_guest_has_it() {
    let lab = Lab::of("10.0.0.0/24").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    let nic = lab.ids(id).await[0];
    assert_eq!(lab.addresses(id).await, ["10.0.0.1/24"]);
    lab.send(id, "change-addresses", named(nic, "10.0.0.9")).await.unwrap();
    assert_eq!(lab.free().await, 252, "the guest may have either");
    assert_eq!(lab.world.row(id).await["status"], "changing-addresses");
    lab.world.settle().await;
    assert_eq!(lab.addresses(id).await, ["10.0.0.9/24"]);
    assert_eq!(lab.taken().await, json!({"10.0.0.9": nic}));
    // What it has already is nothing to do.
    let before = lab.world.row(id).await["revision"].clone();
    lab.done(id, "change-addresses", named(nic, "10.0.0.9")).await;
    assert_eq!(lab.world.row(id).await["revision"], before);
    // Stopped, it is started with it.
    lab.done(id, "stop", json!({})).await;
    lab.done(id, "change-addresses", named(nic, "10.0.0.8")).await;
    lab.done(id, "start", json!({})).await;
    assert_eq!(lab.addresses(id).await, ["10.0.0.8/24"]);
    // And all of it goes with the server.
    for verb in ["stop", "delete", "purge"] {
        lab.done(id, verb, json!({})).await;
    }
    assert_eq!(lab.free().await, 254);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_cannot_have_it_keeps_what_it_had_and_it_is_said_why() {
    let lab = Lab::of("10.0.0.0/24").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    let nic = lab.ids(id).await[0];
    let why = "the guest agent does not answer".to_owned();
    lab.world.hosts.break_next(HostStep::Addresses, HostFault::Rejected(why.clone()));
    lab.done(id, "change-addresses", any(nic)).await;
    let row = lab.world.row(id).await;
    assert_eq!((&row["status"], &row["order"]), (&json!("running"), &Value::Null));
    let history = lab.world.history("server", id).await;
    let last = history.last().unwrap();
    let data: Value = serde_json::from_slice(last.data()).unwrap();
    assert_eq!((last.event_type(), &data["reason"]), ("addresses-kept", &json!(why)));
    assert_eq!(lab.addresses(id).await, ["10.0.0.1/24"]);
    assert_eq!(lab.taken().await, json!({"10.0.0.1": nic}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_survives_a_death_at_each_step_and_one_that_is_given_up_is_undone() {
    let lab = Lab::of("10.0.0.0/24").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    let nic = lab.ids(id).await[0];
    let mortal = Arc::new(Mortal::default());
    lab.send(id, "change-addresses", named(nic, "10.0.0.5")).await.unwrap();
    lab.world.settle_with(Some(mortal.clone())).await;
    assert_eq!((mortal.deaths(), lab.addresses(id).await), (3, vec!["10.0.0.5/24".into()]));
    for (step, fault) in [HostStep::Nics, HostStep::Addresses]
        .into_iter()
        .flat_map(|step| [HostFault::AnswerLost, HostFault::Transient].map(|fault| (step, fault)))
    {
        lab.world.hosts.break_next(step, fault);
        lab.done(id, "change-addresses", any(nic)).await;
        let has = lab.addresses(id).await;
        let taken = lab.taken().await;
        assert_eq!(taken, json!({has[0].trim_end_matches("/24"): nic}), "{step:?}");
    }
    let before = lab.addresses(id).await;
    let free = lab.free().await;
    // The host cannot even allow it: a person gives it up, half done.
    lab.world.hosts.break_next(HostStep::Nics, HostFault::Rejected("no nft".to_owned()));
    lab.done(id, "change-addresses", any(nic)).await;
    assert_eq!(lab.world.row(id).await["status"], "parked");
    lab.send(id, "abandon", json!({})).await.unwrap();
    assert_eq!(lab.world.row(id).await["status"], "restoring-addresses");
    lab.world.settle_with(Some(mortal)).await;
    assert_eq!((lab.addresses(id).await, lab.free().await), (before, free));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_another_one_at_once_nobody_has_the_same() {
    let lab = Lab::of("10.0.0.0/27").await;
    let ask = json!({"network": lab.network});
    let servers = join_all((0..24).map(|_| lab.launch(ask.clone()))).await;
    let nics = join_all(servers.iter().map(|id| lab.ids(*id))).await;
    assert_eq!(lab.free().await, 6);
    let other = commands::ledger::Ledger::new(lab.world.ledger.ports.clone());
    let asked = join_all(servers.iter().zip(&nics).enumerate().map(|(at, (id, nics))| {
        let ledger = if at % 2 == 0 { &lab.world.ledger } else { &other };
        ledger.submit(World::submission("server", *id, "change-addresses", any(nics[0])))
    }))
    .await;
    assert_eq!(asked.iter().filter(|one| one.is_ok()).count(), 6);
    for refused in asked.into_iter().filter(Result::is_err) {
        assert_eq!(code(refused), "no-address-free");
    }
    lab.world.settle().await;
    let mut has = BTreeSet::new();
    for id in servers {
        assert!(has.insert(lab.addresses(id).await), "a duplicate");
    }
    assert_eq!((has.len(), lab.free().await), (24, json!(6)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_the_reason_and_reserves_nothing() {
    let lab = Lab::of("10.0.0.0/24").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    let other = lab.launch(json!({"network": lab.network})).await;
    let nic = lab.ids(id).await[0];
    let (free, revision) = (lab.free().await, lab.world.row(id).await["revision"].clone());
    let six = json!({"nic": nic, "v6": {"type": "any", "data": {}}});
    for (body, wanted, why) in [
        (json!({"nic": nic}), "invalid-field", "v4"),
        (any(other), "invalid-field", "no interface"),
        (json!({"nic": nic, "found": {}}), "invalid-field", "found"),
        (named(nic, "10.0.0.2"), "address-taken", "10.0.0.2"),
        (named(nic, "10.0.1.2"), "address-not-given", "outside"),
        (named(nic, "2001:db8::2"), "invalid-field", "other family"),
        (six, "address-not-given", "no IPv6 subnet"),
    ] {
        match lab.send(id, "change-addresses", body.clone()).await {
            Err(SubmitFault::Refused(no)) => {
                assert_eq!(no.code.code, wanted, "{body}: {no}");
                assert!(no.detail.contains(why), "{body}: {no}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    assert_eq!(lab.free().await, free);
    assert_eq!(lab.world.row(id).await["revision"], revision);
    lab.done(id, "suspend", json!({})).await;
    let suspended = lab.send(id, "change-addresses", any(nic)).await;
    assert_eq!(code(suspended), "wrong-state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_network_of_ipv6_alone_as_many_servers_run_as_there_are_addresses_and_change_them() {
    let mut lab = Lab::of("10.0.0.0/24").await;
    let segment = json!({"name": "six", "medium": {"vlan": {"id": 6}}, "bridge": "br0"});
    let segment = lab.world.send("segment", None, "define", segment).await.unwrap().id;
    let body = json!({
        "name": "six", "segment": segment, "v6": {"net": "2001:db8:6::/123", "step": "up"},
    });
    lab.network = lab.world.send("network", None, "define", body).await.unwrap().id;
    let free = async || {
        let row = lab.world.row(lab.network).await;
        row["state"]["own"]["addresses"]["v6"]["counts"]["free"].as_u64().unwrap()
    };
    let most = free().await;
    assert!((29..=32).contains(&most), "of 32 addresses: {most}");
    let other = commands::ledger::Ledger::new(lab.world.ledger.ports.clone());
    let asked = join_all((0..64).map(|at| {
        let ledger = if at % 2 == 0 { &lab.world.ledger } else { &other };
        let body = json!({
            "name": format!("six-{at}"), "spec": {"vcpus": 1, "memory_mib": 64},
            "nics": [{"network": lab.network}],
        });
        ledger.submit(World::submission("server", Uuid::from_u128(1_000 + at), "launch", body))
    }))
    .await;
    let (launched, refused): (Vec<_>, Vec<_>) = asked.into_iter().partition(Result::is_ok);
    assert_eq!(launched.len() as u64, most);
    for one in refused {
        assert_eq!(code(one), "no-address-free");
    }
    lab.world.settle().await;
    let ids: Vec<Uuid> = launched.into_iter().map(|one| one.unwrap().id).collect();
    let mut has = BTreeSet::new();
    for id in &ids {
        let addresses = lab.addresses(*id).await;
        assert!(addresses.len() == 1 && addresses[0].starts_with("2001:db8:6::"), "{addresses:?}");
        assert!(has.insert(addresses), "a duplicate");
    }

    // One that is given back is another's next.
    for verb in ["stop", "delete", "purge"] {
        lab.done(ids[0], verb, json!({})).await;
    }
    assert_eq!(free().await, 1);
    let nic = lab.ids(ids[1]).await[0];
    let before = lab.addresses(ids[1]).await;
    lab.done(ids[1], "change-addresses", json!({"nic": nic, "v6": {"type": "any", "data": {}}}))
        .await;
    let after = lab.addresses(ids[1]).await;
    assert!(before != after && free().await == 1, "{before:?}, {after:?}");
    let v4 = lab.send(ids[1], "change-addresses", any(nic)).await;
    assert_eq!(code(v4), "address-not-given", "the network has none");
}
