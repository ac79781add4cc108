//! Disks on hosts of ours: made, attached and detached while their server runs, made larger, throttled and
//! removed, whatever fails on the way.

use std::sync::{Arc, Mutex};

use adapters_sim::{HostFault, HostStep};
use commands::{
    ledger::{Ledger, Ports},
    submit::SubmitFault,
};
use futures::FutureExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    between::Between,
    hosts::Mortal,
    world::{World, small},
};

fn code<T: std::fmt::Debug>(result: Result<T, SubmitFault>) -> &'static str {
    match result {
        Err(SubmitFault::Refused(refusal)) => refusal.code.code,
        other => panic!("not refused: {other:?}"),
    }
}

impl World {
    async fn running(&self, name: &str) -> Uuid {
        let body = json!({
            "name": name, "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}],
        });
        let id = self.send("server", None, "launch", body).await.unwrap().id;
        self.settle().await;
        id
    }

    async fn disk(&self, server: Uuid, size_gib: u64) -> Result<Uuid, SubmitFault> {
        let body = json!({"name": "data", "server": server, "size_gib": size_gib});
        Ok(self.send("disk", None, "create", body).await?.id)
    }

    async fn order(&self, id: Uuid, verb: &str, body: Value) {
        self.send("disk", id, verb, body).await.unwrap();
        self.settle().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_goes_from_server_to_server_and_stays_when_they_go() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let (web, db) = (world.running("web").await, world.running("db").await);
    let disk = world.disk(web, 8).await.unwrap();
    assert_eq!(world.row(disk).await["status"], "creating");
    world.settle().await;
    let row = world.row(disk).await;
    assert_eq!((&row["status"], &row["parent"]), (&json!("attached"), &json!(web.to_string())));
    let has = |server: Uuid| world.hosts.census(host)[&server].disks.contains_key(&disk);
    assert!(has(web), "while it runs");

    world.order(disk, "grow", json!({"size_gib": 9})).await;
    assert_eq!(world.hosts.disks(host)[&disk].0, 9);
    let limits =
        json!({"write_bytes": {"rate": 1_048_576, "burst": 4_194_304, "burst_seconds": 5}});
    world.order(disk, "throttle", json!({"limits": limits})).await;
    let home = world.row(disk).await["state"]["home"].clone();
    assert_eq!(home["limits"], limits, "what is wanted");
    assert_eq!(home["actual"]["limits"], limits, "what its host says");

    // A server that is started anew has it, with its limits.
    for verb in ["stop", "start"] {
        world.send("server", web, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    let census = world.hosts.census(host);
    assert_eq!(serde_json::to_value(census[&web].disks[&disk]).unwrap(), limits);

    assert_eq!(code(world.send("disk", disk, "attach", json!({"server": db})).await), "in-use");
    world.order(disk, "detach", json!({})).await;
    assert!(!has(web));
    assert_eq!(world.row(disk).await["status"], "available");
    world.order(disk, "attach", json!({"server": db})).await;
    assert!(has(db));

    // Its own disks go with a server, what was detached stays.
    world.order(disk, "detach", json!({})).await;
    for verb in ["stop", "delete", "purge"] {
        world.send("server", db, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    assert_eq!(world.hosts.disks(host).len(), 2, "the other server's, and this one");
    world.order(disk, "delete", json!({})).await;
    assert_eq!(world.row(disk).await["status"], "gone");
    world.same_as_census(host).await;
    let there = world.rows("disk").await.into_iter().filter(|row| row.body["status"] != "gone");
    assert_eq!(there.count(), 1, "the root disk of the server that is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let other = world.host("kvm-2", 1, 1, 64).await;
    world.send("host", other, "disable", json!({})).await.unwrap();
    let web = world.running("web").await;
    world.send("host", other, "enable", json!({})).await.unwrap();
    world.send("host", host, "disable", json!({})).await.unwrap();
    let far = world.running("far").await;
    let disk = world.disk(web, 1).await.unwrap();
    world.settle().await;
    world.order(disk, "detach", json!({})).await;
    let refused = world.send("disk", disk, "attach", json!({"server": far})).await;
    assert_eq!(code(refused), "invalid-field", "it is on another host");
    assert_eq!(world.row(disk).await["status"], "available");

    assert_eq!(code(world.disk(Uuid::nil(), 1).await), "invalid-field");
    assert_eq!(code(world.disk(web, 0).await), "invalid-field");
    let found =
        json!({"name": "x", "server": web, "size_gib": 1, "found": {"id": web, "host": host}});
    assert_eq!(code(world.send("disk", None, "create", found).await), "invalid-field");
    let root = world.server(web).await.home.unwrap().parts.disks[0].id;
    assert_eq!(code(world.send("disk", root, "detach", json!({})).await), "in-use");
    for _ in 0..25 {
        world.disk(web, 1).await.unwrap();
        world.settle().await;
    }
    assert_eq!(code(world.disk(web, 1).await), "invalid-field", "26 are the most");
    for verb in ["stop", "delete"] {
        world.send("server", web, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    assert_eq!(
        code(world.send("disk", disk, "attach", json!({"server": web})).await),
        "wrong-state"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_a_disk_survives_a_death_at_each_step() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let web = world.running("web").await;
    let mortal = std::sync::Arc::new(Mortal::default());
    let disk = world.disk(web, 1).await.unwrap();
    world.settle_with(Some(mortal.clone())).await;
    let limits = json!({"limits": {"read_operations": {"rate": 100}}});
    for (verb, body) in [
        ("grow", json!({"size_gib": 2})),
        ("throttle", limits),
        ("detach", json!({})),
        ("attach", json!({"server": web})),
        ("detach", json!({})),
        ("delete", json!({})),
    ] {
        world.send("disk", disk, verb, body).await.unwrap();
        world.settle_with(Some(mortal.clone())).await;
        let plugged = world.hosts.census(host)[&web].disks.contains_key(&disk);
        assert_eq!(plugged, world.row(disk).await["status"] == "attached", "{verb}");
    }
    assert_eq!(world.row(disk).await["status"], "gone");
    assert_eq!(mortal.deaths(), 7 * 3, "seven orders, three steps each");
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_made_is_given_up_without_a_trace() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let web = world.running("web").await;
    let why = "no space left on device".to_owned();
    world.hosts.break_next(HostStep::Plug, HostFault::Rejected(why.clone()));
    let disk = world.disk(web, 1).await.unwrap();
    world.settle().await;
    let row = world.row(disk).await;
    assert_eq!(row["status"], "parked");
    assert!(row["order"]["parked"].as_str().unwrap().contains(&why), "{row}");
    assert_eq!(world.hosts.disks(host).len(), 2, "it is half made");
    world.order(disk, "abandon", json!({})).await;
    assert_eq!(world.row(disk).await["status"], "gone");
    assert_eq!(world.server(web).await.home.unwrap().parts.disks.len(), 1);
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_its_servers_project_s_even_when_that_changes_at_the_last_moment() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let web = world.running("web").await;
    let shop = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let assign = World::submission("server", web, "assign", json!({"project": shop}));
    let first = Mutex::new(Some((world.ledger.clone(), assign)));
    let between = Between::new(world.log.clone(), move |_| {
        let first = first.lock().unwrap().take();
        async move {
            if let Some((ledger, submission)) = first {
                ledger.submit(submission).await.unwrap();
            }
            Ok(())
        }
        .boxed()
    });
    let ports = Ports { log: Arc::new(between), ..world.ledger.ports.clone() };
    let body = json!({"name": "data", "server": web, "size_gib": 1});
    let create = World::submission("disk", None, "create", body);
    let disk = Ledger::new(ports).submit(create).await.unwrap().id;
    assert_eq!(world.row(disk).await["project"], json!(shop));
}

#[tokio::test(flavor = "multi_thread")]
async fn sata_disks_come_and_go_while_their_server_is_off() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let body = json!({
        "name": "old", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}],
        "hardware": {"disks": "sata", "nics": "e1000e"},
    });
    let old = world.send("server", None, "launch", body.clone()).await.unwrap().id;
    world.settle().await;
    let head = world.log.head().await.unwrap().position;
    let no = world.disk(old, 2).await;
    assert_eq!(code(no), "wrong-state", "it runs");
    assert_eq!(world.log.head().await.unwrap().position, head, "nothing was written");
    world.send("server", old, "stop", json!({})).await.unwrap();
    world.settle().await;
    let disk = world.disk(old, 2).await.unwrap();
    world.settle().await;
    world.send("server", old, "start", json!({})).await.unwrap();
    world.settle().await;
    assert!(world.hosts.census(host)[&old].disks.contains_key(&disk));
    world.order(disk, "grow", json!({"size_gib": 3})).await;
    assert_eq!(world.hosts.disks(host)[&disk].0, 3, "what it has may change");
    assert_eq!(code(world.send("disk", disk, "detach", json!({})).await), "wrong-state");
    let arm = json!({"architecture": "aarch64", "vcpus": 1, "memory_mib": 64});
    let mut body = body;
    (body["name"], body["spec"]) = (json!("arm"), arm);
    let no = world.send("server", None, "launch", body).await;
    assert!(no.unwrap_err().to_string().contains("only x86_64"));
}
