//! All disks of a server backed up at one moment, and a server made from that, whatever fails on the way.

use std::sync::Arc;

use adapters_sim::{HostFault, HostStep};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    backups::{URL, detail},
    hosts::{Mortal, code},
    world::{World, small},
};

impl World {
    /// A server that runs, with two disks on which something is written.
    async fn with_two_disks(&self) -> (Uuid, [Uuid; 2]) {
        let (web, root) = self.with_data("web", "system 1").await;
        let body = json!({"name": "data", "server": web, "size_gib": 2});
        let data = self.send("disk", None, "create", body).await.unwrap().id;
        self.settle().await;
        self.hosts.write(data, "data 1");
        (web, [root, data])
    }

    async fn set(&self, server: Uuid, store: Uuid) -> Result<Uuid, commands::submit::SubmitFault> {
        let body = json!({"name": "monday", "server": server, "store": store});
        Ok(self.send("backup-set", None, "create", body).await?.id)
    }

    async fn members(&self, set: Uuid) -> Vec<(Uuid, Uuid)> {
        let members = self.row(set).await["state"]["source"]["members"].clone();
        let id = |one: &Value, field: &str| one[field].as_str().unwrap().parse().unwrap();
        let members = members.as_array().unwrap().iter();
        members.map(|one| (id(one, "disk"), id(one, "backup"))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_disks_of_a_server_are_backed_up_at_one_moment_and_a_server_is_made_from_them() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disks) = world.with_two_disks().await;
    let set = world.set(web, store).await.unwrap();
    assert_eq!(world.status(set).await, "taking");
    for disk in disks {
        let grow = world.send("disk", disk, "grow", json!({"size_gib": 3})).await;
        assert_eq!(code(grow), "in-use");
    }
    let retire = world.send("backup-store", store, "retire", json!({})).await;
    assert!(detail(retire).contains("is being made there"));
    let body = json!({
        "name": "again", "spec": {"vcpus": 1, "memory_mib": 64}, "backup_set": set,
    });
    assert_eq!(code(world.send("server", None, "launch", body.clone()).await), "wrong-state");
    world.settle().await;
    let row = world.row(set).await;
    assert_eq!(
        (&row["status"], &row["state"]["taken"]["quiesced"]),
        (&json!("available"), &json!(true))
    );
    let members = world.members(set).await;
    assert_eq!(members.iter().map(|one| one.0).collect::<Vec<_>>(), disks);
    for (at, (disk, backup)) in members.iter().enumerate() {
        let row = world.row(*backup).await;
        assert_eq!(row["status"], "available");
        assert!(row["name"].as_str().unwrap().starts_with("monday "), "{row}");
        assert_eq!(row["state"]["disk"], disk.to_string());
        let there = world.hosts.backups(URL)[backup].content.clone();
        assert_eq!(there, ["system 1", "data 1"][at]);
        // Nothing holds the disk any more.
        world.send("disk", *disk, "grow", json!({"size_gib": 3})).await.unwrap();
    }
    world.settle().await;
    // Each is a backup like any other, for itself and to be made on.
    world.through("backup", members[0].1, "verify", json!({})).await;
    let on = world.back_up(disks[0], store, Some(members[0].1)).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(on).await, "available");

    for disk in disks {
        world.hosts.write(disk, "lost");
    }
    let again = world.send("server", None, "launch", body.clone()).await.unwrap().id;
    assert_eq!(code(world.send("backup-set", set, "delete", json!({})).await), "in-use");
    world.settle().await;
    let made = world.server(again).await.home.unwrap().parts.disks;
    let sizes: Vec<_> = made.iter().map(|disk| disk.size_gib).collect();
    let contents: Vec<_> = made.iter().map(|disk| world.hosts.content(disk.id)).collect();
    assert_eq!((sizes, contents), (vec![1, 2], vec!["system 1".to_owned(), "data 1".to_owned()]));
    world.same_as_census(host).await;
    let mut both = body.clone();
    both["disks"] = json!([{"size_gib": 1}]);
    assert!(detail(world.send("server", None, "launch", both).await).contains("leave disks"));

    // One was deleted by itself: the set's deletion has the other.
    world.through("backup", members[1].1, "delete", json!({})).await;
    assert_eq!(code(world.send("server", None, "launch", body).await), "wrong-state");
    world.through("backup-set", set, "delete", json!({})).await;
    assert_eq!(world.status(set).await, "gone");
    assert_eq!(world.hosts.backups(URL).into_keys().collect::<Vec<_>>(), [on]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_there_whole_or_not_at_all_whatever_fails_or_dies() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disks) = world.with_two_disks().await;
    for fault in [HostFault::Transient, HostFault::AnswerLost] {
        world.hosts.break_next(HostStep::BackUp, fault);
        let mortal = Arc::new(Mortal::default());
        let set = world.set(web, store).await.unwrap();
        world.settle_with(Some(mortal.clone())).await;
        assert!(mortal.deaths() >= 3, "{}", mortal.deaths());
        assert_eq!(world.status(set).await, "available");
        assert_eq!(world.hosts.backups(URL).len(), 2);
        world.through("backup-set", set, "delete", json!({})).await;
        assert!(world.hosts.backups(URL).is_empty());
    }
    // One that is given up leaves nothing, and lets the disks go.
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no room".into()));
    let set = world.set(web, store).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(set).await, "parked");
    assert_eq!(code(world.set(web, store).await), "in-use");
    let mortal = Arc::new(Mortal::default());
    world.send("backup-set", set, "abandon", json!({})).await.unwrap();
    world.settle_with(Some(mortal.clone())).await;
    assert!(mortal.deaths() >= 6, "{}", mortal.deaths());
    assert_eq!((world.status(set).await.as_str(), world.hosts.backups(URL).len()), ("gone", 0));
    for disk in disks {
        world.send("disk", disk, "grow", json!({"size_gib": 5})).await.unwrap();
    }
    world.settle().await;
    // Parked, it goes on.
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no room".into()));
    let set = world.set(web, store).await.unwrap();
    world.settle().await;
    world.through("backup-set", set, "retry", json!({})).await;
    assert_eq!(world.status(set).await, "available");
    // What is no server of ours has none.
    let none = world.set(Uuid::from_u128(4), store).await;
    assert!(detail(none).contains("there is no server"));
}
