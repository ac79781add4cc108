//! Interfaces of servers of our own that are there: added, removed, limited and guarded, whatever fails on
//! the way; and servers that follow their security groups.

mod addresses;
mod direct;
mod macs;

use std::{collections::BTreeSet, sync::Arc};

use adapters_sim::{HostFault, HostStep, SimNic};
use commands::{follow::Follower, submit::SubmitFault};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    hosts::{Mortal, code},
    world::{World, small},
};

struct Lab {
    world: World,
    host: Uuid,
    network: Uuid,
}

impl Lab {
    async fn of(net: &str) -> Self {
        let world = World::empty(small());
        let host = world.host("kvm-1", 1, 64, 65_536).await;
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = world.send("segment", None, "define", segment).await.unwrap().id;
        let body = json!({"name": "front", "segment": segment, "v4": {"net": net, "step": "up"}});
        let network = world.send("network", None, "define", body).await.unwrap().id;
        Self { world, host, network }
    }

    async fn launch(&self, nic: Value) -> Uuid {
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "nics": [nic],
        });
        let id = self.world.send("server", None, "launch", body).await.unwrap().id;
        self.world.settle().await;
        id
    }

    async fn group(&self, port: &str) -> Uuid {
        self.world.send("security-group", None, "declare", group(port)).await.unwrap().id
    }

    async fn send(&self, id: Uuid, verb: &str, body: Value) -> Result<(), SubmitFault> {
        self.world.send("server", id, verb, body).await.map(drop)
    }

    /// The same, carried out.
    async fn done(&self, id: Uuid, verb: &str, body: Value) {
        self.send(id, verb, body).await.unwrap();
        self.world.settle().await;
    }

    /// What the host really has.
    fn nics(&self, id: Uuid) -> Vec<SimNic> {
        self.world.hosts.census(self.host)[&id].nics.clone()
    }

    /// The ids of the interfaces that the log knows.
    async fn ids(&self, id: Uuid) -> Vec<Uuid> {
        let home = self.world.server(id).await.home.unwrap();
        home.parts.nics.iter().map(|nic| nic.id).collect()
    }

    async fn free(&self) -> Value {
        let row = self.world.row(self.network).await;
        row["state"]["own"]["addresses"]["v4"]["counts"]["free"].clone()
    }

    /// What the host has is what the log says, and the network's addresses are those of servers.
    async fn same_as_census(&self, id: Uuid) {
        let server = self.world.server(id).await;
        let parts = server.home.unwrap().parts;
        let real = self.nics(id);
        let wanted: Vec<_> = parts
            .nics
            .iter()
            .map(|nic| (nic.mac, nic.addresses.clone(), nic.bandwidth, nic.rules(&parts.groups)))
            .collect();
        let is: Vec<_> = real
            .iter()
            .map(|nic| (nic.seen.mac, nic.addresses.clone(), nic.seen.bandwidth, nic.rules.clone()))
            .collect();
        assert_eq!(is, wanted, "wanted and actual");
        let seen: Vec<_> = real.into_iter().map(|nic| nic.seen).collect();
        assert_eq!(server.observation.seen.unwrap().nics, seen, "actual and what is told of it");
    }
}

fn group(port: &str) -> Value {
    let rule = json!({
        "direction": "ingress", "protocol": "tcp", "ports": port, "peer": {"cidr": "0.0.0.0/0"},
    });
    json!({"spec": {"name": "web", "rules": [rule]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_is_limited_and_guarded_from_its_launch_and_while_it_runs() {
    let lab = Lab::of("10.0.0.0/24").await;
    let web = lab.group("80").await;
    let row = lab.world.row(web).await;
    assert_eq!((&row["status"], &row["provider"]), (&json!("available"), &json!("kvm")));
    let bandwidth = json!({"ingress_kbit_s": 8_000, "egress_kbit_s": 4_000});
    let ask = json!({"network": lab.network, "bandwidth": bandwidth, "security_groups": [web]});
    let id = lab.launch(ask).await;
    lab.same_as_census(id).await;
    let seen = lab.world.row(id).await["state"]["observation"]["seen"]["nics"][0].clone();
    assert_eq!((&seen["bandwidth"], &seen["rules"]), (&bandwidth, &json!(1)));
    assert_eq!(seen["security_groups"], json!([web]));

    let nic = lab.ids(id).await[0];
    let db = lab.group("5432").await;
    let change =
        json!({"nic": nic, "bandwidth": {"egress_kbit_s": 100}, "security_groups": [web, db]});
    lab.done(id, "change-nic", change.clone()).await;
    lab.same_as_census(id).await;
    assert_eq!(lab.nics(id)[0].rules.as_ref().unwrap().len(), 2);
    let before = lab.world.row(id).await["revision"].clone();
    lab.done(id, "change-nic", change).await;
    assert_eq!(lab.world.row(id).await["revision"], before, "nothing is to be done");

    // Only what is named changes; and without groups nothing but spoofing is kept from it.
    lab.done(id, "change-nic", json!({"nic": nic, "security_groups": []})).await;
    let real = &lab.nics(id)[0];
    assert_eq!((real.rules.clone(), real.seen.bandwidth.egress_kbit_s), (None, Some(100)));
    assert_eq!(lab.world.server(id).await.home.unwrap().parts.groups.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_follow_their_security_groups() {
    let lab = Lab::of("10.0.0.0/24").await;
    let web = lab.group("80").await;
    let other = lab.group("22").await;
    let ask = json!({"network": lab.network, "security_groups": [web]});
    let servers = [lab.launch(ask.clone()).await, lab.launch(ask.clone()).await];
    let bystander = lab.launch(json!({"network": lab.network, "security_groups": [other]})).await;
    let mut follower = Follower::new(lab.world.ledger.clone());
    assert_eq!(follower.pass().await.unwrap(), 0, "they were launched with the rules of today");

    lab.world.send("security-group", web, "declare", group("443")).await.unwrap();
    // One of them has another order out, and follows later.
    lab.send(servers[1], "stop", json!({})).await.unwrap();
    assert_eq!(follower.pass().await.unwrap(), 1);
    lab.world.settle().await;
    assert_eq!(follower.pass().await.unwrap(), 1, "it is stopped, and started with them");
    lab.world.settle().await;
    assert_eq!(follower.pass().await.unwrap(), 0);
    for id in servers {
        lab.same_as_census(id).await;
        let rules = lab.nics(id)[0].rules.clone().unwrap();
        let ports: Vec<_> = rules.iter().map(|rule| rule.ports.unwrap().from).collect();
        assert_eq!(ports, [443]);
    }
    assert_eq!(lab.world.server(bystander).await.orders.issued, 1);

    // A process that starts finds by itself who does not follow; a rescued server follows too.
    lab.world.send("security-group", other, "declare", group("2222")).await.unwrap();
    assert_eq!(Follower::new(lab.world.ledger.clone()).pass().await.unwrap(), 1);
    lab.world.settle().await;
    lab.same_as_census(bystander).await;

    let in_use = lab.world.send("security-group", web, "retire", json!({})).await;
    assert_eq!(code(in_use), "in-use");
    let nic = lab.ids(bystander).await[0];
    lab.done(bystander, "change-nic", json!({"nic": nic, "security_groups": []})).await;
    lab.world.send("security-group", other, "retire", json!({})).await.unwrap();
    let late = json!({"nic": nic, "security_groups": [other]});
    assert_eq!(code(lab.send(bystander, "change-nic", late).await), "invalid-field");
}

#[tokio::test(flavor = "multi_thread")]
async fn interfaces_come_and_go_and_their_addresses_with_them() {
    let lab = Lab::of("10.0.0.0/29").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    assert_eq!(lab.free().await, 5);
    lab.done(id, "add-nic", json!({"nic": {"network": lab.network}})).await;
    assert_eq!(lab.free().await, 4);
    lab.same_as_census(id).await;
    let ids = lab.ids(id).await;
    assert_eq!(ids.len(), 2);
    lab.send(id, "remove-nic", json!({"nic": ids[0]})).await.unwrap();
    assert_eq!(lab.free().await, 4, "its host may still have it");
    lab.world.settle().await;
    assert_eq!(lab.free().await, 5);
    lab.same_as_census(id).await;

    // Also while it is stopped; and never under the id of one that was there.
    lab.done(id, "stop", json!({})).await;
    lab.done(id, "add-nic", json!({"nic": {"network": lab.network}})).await;
    let now = lab.ids(id).await;
    let all: BTreeSet<_> = now.iter().chain(&ids).collect();
    assert_eq!((now.len(), all.len()), (2, 3));
    lab.done(id, "start", json!({})).await;
    lab.same_as_census(id).await;
    for verb in ["stop", "delete", "purge"] {
        lab.done(id, verb, json!({})).await;
    }
    assert_eq!(lab.free().await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_add_the_last_addresses_at_once_as_many_get_one_as_there_are() {
    let lab = Lab::of("10.0.0.0/27").await;
    let ask = json!({"network": lab.network});
    let servers = join_all((0..24).map(|_| lab.launch(ask.clone()))).await;
    assert_eq!(lab.free().await, 6);
    let add = json!({"nic": ask});
    let other = commands::ledger::Ledger::new(lab.world.ledger.ports.clone());
    let added = join_all(servers.iter().cycle().take(64).enumerate().map(|(at, id)| {
        let ledger = if at % 2 == 0 { &lab.world.ledger } else { &other };
        ledger.submit(World::submission("server", *id, "add-nic", add.clone()))
    }))
    .await;
    assert_eq!(added.iter().filter(|one| one.is_ok()).count(), 6);
    for refused in added.into_iter().filter(Result::is_err) {
        let code = code(refused);
        assert!(["no-address-free", "order-outstanding"].contains(&code), "{code}");
    }
    lab.world.settle().await;
    let mut taken = BTreeSet::new();
    for id in servers {
        lab.same_as_census(id).await;
        for nic in lab.nics(id) {
            assert!(nic.addresses.into_iter().all(|one| taken.insert(one)), "a duplicate");
        }
    }
    assert_eq!(taken.len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_interfaces_survives_a_death_at_each_step() {
    let lab = Lab::of("10.0.0.0/24").await;
    let group = lab.group("80").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    let first = lab.ids(id).await[0];
    let mortal = Arc::new(Mortal::default());
    let mut next = Uuid::nil();
    for round in 0..4 {
        let (verb, body) = match round {
            0 => ("add-nic", json!({"nic": {"network": lab.network}})),
            1 => ("change-nic", json!({"nic": first, "security_groups": [group]})),
            2 => ("change-nic", json!({"nic": next, "bandwidth": {"ingress_kbit_s": 64}})),
            _ => ("remove-nic", json!({"nic": next})),
        };
        lab.send(id, verb, body).await.unwrap();
        lab.world.settle_with(Some(mortal.clone())).await;
        lab.same_as_census(id).await;
        next = *lab.ids(id).await.last().unwrap();
    }
    assert_eq!(mortal.deaths(), 4 * 3, "four orders, three steps each");
    assert_eq!(lab.free().await, 253);
    for fault in [HostFault::AnswerLost, HostFault::Transient] {
        lab.world.hosts.break_next(HostStep::Nics, fault);
        lab.done(id, "add-nic", json!({"nic": {"network": lab.network}})).await;
        lab.same_as_census(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interface_that_cannot_be_had_is_given_up_without_a_trace() {
    let lab = Lab::of("10.0.0.0/24").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    let why = "no PCI slot is free".to_owned();
    lab.world.hosts.break_next(HostStep::Nics, HostFault::Rejected(why.clone()));
    lab.done(id, "add-nic", json!({"nic": {"network": lab.network}})).await;
    let row = lab.world.row(id).await;
    assert_eq!(row["status"], "parked");
    assert!(row["order"]["parked"].as_str().unwrap().contains(&why), "{row}");
    assert_eq!(lab.free().await, 252, "half of it may be there");
    lab.done(id, "abandon", json!({})).await;
    assert_eq!((lab.free().await, lab.ids(id).await.len()), (json!(253), 1));
    lab.same_as_census(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_the_reason_and_reserves_nothing() {
    let lab = Lab::of("10.0.0.0/24").await;
    let id = lab.launch(json!({"network": lab.network})).await;
    let nic = lab.ids(id).await[0];
    let free = lab.free().await;
    let revision = lab.world.row(id).await["revision"].clone();
    let far = Uuid::from_u128(9);
    let mut odd = vec![
        ("add-nic", json!({"nic": {"network": far}}), "network"),
        ("add-nic", json!({"nic": {"network": lab.network}, "found": {}}), "found"),
        (
            "add-nic",
            json!({"nic": {"network": lab.network, "security_groups": [far]}}),
            "security_groups",
        ),
        (
            "add-nic",
            json!({"nic": {"network": lab.network, "bandwidth": {"ingress_kbit_s": 1}}}),
            "bandwidth",
        ),
        (
            "add-nic",
            json!({"nic": {"network": lab.network, "v6": {"type": "any", "data": {}}}}),
            "v6",
        ),
        ("change-nic", json!({"nic": far}), "no interface"),
        ("change-nic", json!({"nic": nic, "bandwidth": {"egress_kbit_s": 0}}), "8 to 400000000"),
        ("change-nic", json!({"nic": nic, "security_groups": [far]}), "there is no security-group"),
        ("change-nic", json!({"nic": nic, "groups": {}}), "groups"),
        ("remove-nic", json!({"nic": far}), "no interface"),
    ];
    let many: Vec<Uuid> = join_all((0..6).map(|_| lab.group("80"))).await;
    odd.push(("change-nic", json!({"nic": nic, "security_groups": many}), "at most 5"));
    for (verb, body, why) in odd {
        match lab.send(id, verb, body.clone()).await {
            Err(SubmitFault::Refused(no)) => {
                assert_eq!(no.code.status, 422, "{verb} {body}: {no}");
                assert!(no.detail.contains(why), "{verb} {body}: {no}");
            }
            other => panic!("{verb} {body}: {other:?}"),
        }
    }
    assert_eq!(lab.free().await, free);
    assert_eq!(lab.world.row(id).await["revision"], revision);

    // What hosts of ours cannot enforce is no group of ours.
    for (rule, field) in [
        (json!({"direction": "ingress", "protocol": "tcp", "peer": {"group": "sg-1"}}), "cidr"),
        (json!({"direction": "ingress", "protocol": "icmp", "peer": {"cidr": "::/0"}}), "icmpv6"),
    ] {
        let body = json!({"spec": {"name": "web", "rules": [rule]}});
        match lab.world.send("security-group", None, "declare", body).await {
            Err(SubmitFault::Refused(no)) => assert!(no.detail.contains(field), "{no}"),
            other => panic!("{other:?}"),
        }
    }
    let vpc = json!({"spec": {"name": "web", "vpc": "vpc-1"}});
    assert_eq!(code(lab.world.send("security-group", None, "declare", vpc).await), "invalid-field");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_enforced_again_after_a_raise_and_whole_after_a_reset() {
    let lab = Lab::of("10.0.0.0/24").await;
    let quota = |bytes: u64| json!({"egress_bytes": bytes});
    let id = lab.launch(json!({"network": lab.network, "quota": quota(100)})).await;
    let nic = lab.ids(id).await[0];
    let send = |bytes: u64| lab.world.hosts.send(lab.host, id, bytes);
    let traffic = async || {
        lab.done(id, "read-nics", json!({})).await;
        let seen = lab.world.row(id).await["state"]["observation"]["seen"]["nics"][0].clone();
        (seen["quota"].clone(), seen["traffic"]["egress_bytes"].clone())
    };
    assert!(send(60) && !send(60));
    assert_eq!(traffic().await, (quota(100), json!(60)));
    lab.done(id, "change-nic", json!({"nic": nic, "quota": quota(150)})).await;
    assert!(send(60) && !send(60), "the raise is used up, too");
    assert_eq!(traffic().await, (quota(150), json!(120)));

    let mortal = Arc::new(Mortal::default());
    lab.send(id, "reset-nic-traffic", json!({"nic": nic})).await.unwrap();
    lab.world.settle_with(Some(mortal.clone())).await;
    assert_eq!((mortal.deaths(), traffic().await), (3, (quota(150), json!(0))));
    assert!(send(150));
    for verb in ["stop", "start"] {
        lab.done(id, verb, json!({})).await;
    }
    assert!(!send(1), "what was counted stays while it is stopped");
    lab.done(id, "change-nic", json!({"nic": nic, "quota": {}})).await;
    assert!(send(1_000), "it is counted, and has no limit");
    assert_eq!(traffic().await, (json!({}), json!(1_150)));
    lab.same_as_census(id).await;

    let free = lab.launch(json!({"network": lab.network})).await;
    let nic = lab.ids(free).await[0];
    let nothing = lab.send(free, "reset-nic-traffic", json!({"nic": nic})).await;
    assert_eq!(code(nothing), "invalid-field");
    let odd = json!({"nic": nic, "quota": {"ingress_bytes": 0}});
    assert_eq!(code(lab.send(free, "change-nic", odd).await), "invalid-field");
}
