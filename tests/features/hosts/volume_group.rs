//! Disks in the volume group of a host: they are raw, lie there, and do not leave it.

use std::sync::Arc;

use adapters_sim::SimHosts;
use commands::submit::{Outcome, SubmitFault};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Mortal, code};
use crate::{
    backups::everything,
    world::{World, small},
};

/// The volume group of the tests, as a storage.
pub(super) const GROUP: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_00bb);

impl World {
    /// A host with the volume group, that takes servers which run.
    pub(super) async fn with_group(&self, name: &str) -> Uuid {
        let settings = json!({"cpu_overcommit_percent": 100});
        let body = json!({"name": name, "settings": settings});
        let id = self.send("host", None, "enrol", body).await.unwrap().id;
        let mut seen = json!(SimHosts::sighting(1, 8, 8_192));
        seen["storages"] = json!([GROUP]);
        seen["labels"] = json!(["live-migration"]);
        let group = json!({"name": "vg0", "size_mib": 102_400, "free_mib": 51_200, "ours_mib": 0, "extent_kib": 4_096});
        seen["volume_groups"] = json!({GROUP.to_string(): group});
        self.joined(id, seen).await;
        id
    }
}

async fn launch_sized(world: &World, size_gib: u64) -> Result<Outcome, SubmitFault> {
    let disk = json!({"size_gib": size_gib, "format": "raw", "storage": GROUP});
    let spec = json!({"vcpus": 1, "memory_mib": 512});
    let body = json!({"name": "large", "spec": spec, "disks": [disk]});
    world.send("server", None, "launch", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_in_a_volume_group_is_raw_and_stays_on_its_host() {
    let world = World::empty(small());
    let host = world.with_group("kvm-1").await;
    let row = world.row(host).await;
    assert_eq!(row["state"]["seen"]["volume_groups"][GROUP.to_string()]["free_mib"], 51_200);

    let launch = async |name: &str, format: &str| {
        let disk = json!({"size_gib": 1, "format": format, "storage": GROUP});
        let spec = json!({"vcpus": 1, "memory_mib": 512});
        world
            .send("server", None, "launch", json!({"name": name, "spec": spec, "disks": [disk]}))
            .await
    };
    let refused = launch("web", "qcow2").await;
    assert!(format!("{refused:?}").contains("disks[0].format: a disk on a volume group"));
    assert_eq!(code(refused), "invalid-field");
    assert!(world.rows("server").await.is_empty(), "nothing is left of it");
    let id = launch("web", "raw").await.unwrap().id;
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "running");
    assert_eq!(world.hosts.disks(GROUP).len(), 1);
    assert!(world.hosts.disks(host).is_empty(), "none is in the host's own folder");

    let create = async |format: Value| {
        let mut body = json!({"name": "data", "server": id, "size_gib": 3, "storage": GROUP});
        if !format.is_null() {
            body["format"] = format;
        }
        world.send("disk", None, "create", body).await
    };
    // Left out it is qcow2.
    for format in [Value::Null, json!("qcow2")] {
        assert_eq!(code(create(format).await), "invalid-field");
    }
    let disk = create(json!("raw")).await.unwrap().id;
    world.settle().await;
    assert_eq!(world.hosts.disks(GROUP).len(), 2);
    assert_eq!(world.row(disk).await["status"], "attached");

    // What others have and what is promised is not promised again, whether it is made by now or not.
    let sized = async |size_gib: u64| {
        let body = json!({
            "name": "more", "server": id, "size_gib": size_gib, "format": "raw", "storage": GROUP,
        });
        world.send("disk", None, "create", body).await
    };
    let refused = sized(51).await;
    assert!(format!("{refused:?}").contains("vg0"), "{refused:?}");
    assert_eq!(code(refused), "no-room");
    let more = sized(40).await.unwrap().id;
    assert_eq!(code(sized(7).await), "no-room", "6 of 50 GiB are left");
    assert_eq!(code(launch_sized(&world, 7).await), "no-room");
    world.settle().await;
    assert_eq!(code(world.send("disk", more, "grow", json!({"size_gib": 47})).await), "no-room");
    world.through("disk", more, "grow", json!({"size_gib": 46})).await;
    assert_eq!(code(sized(1).await), "no-room");
    for verb in ["detach", "delete"] {
        world.through("disk", more, verb, json!({})).await;
    }
    let again = sized(46).await.unwrap().id;
    world.settle().await;
    // What says no size is as large as what it is made from.
    let store = world.store("vault").await;
    let backup = world.back_up(again, store, None).await.unwrap();
    world.settle().await;
    let from = json!({"backup": backup});
    let body = json!({
        "name": "copy", "server": id, "format": "raw", "storage": GROUP, "from": from,
    });
    assert_eq!(code(world.send("disk", None, "create", body).await), "no-room");
    let disk = json!({"format": "raw", "storage": GROUP, "from": from});
    let spec = json!({"vcpus": 1, "memory_mib": 512});
    let body = json!({"name": "copy", "spec": spec, "disks": [disk]});
    assert_eq!(code(world.send("server", None, "launch", body).await), "no-room");
    for verb in ["detach", "delete"] {
        world.through("disk", again, verb, json!({})).await;
    }

    // Another host says that it has the same group: nothing more is made there, and nothing goes there.
    let other = world.with_group("kvm-2").await;
    assert_eq!(code(create(json!("raw")).await), "invalid-field");
    assert_eq!(code(launch("mail", "raw").await), "invalid-field");
    let refused = world.send("server", id, "migrate", json!({"to": other})).await;
    assert!(format!("{refused:?}").contains("in a volume group"), "{refused:?}");
    assert_eq!(code(refused), "not-movable");

    for verb in ["stop", "delete", "purge"] {
        world.send("server", id, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    assert!(world.hosts.disks(GROUP).is_empty(), "nothing is left there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_has_snapshots_which_take_room_and_keep_it_from_growing() {
    let world = World::empty(small());
    world.with_group("kvm-1").await;
    let web = launch_sized(&world, 20).await.unwrap().id;
    world.settle().await;
    let disk = world.server(web).await.home.unwrap().parts.disks[0].id;
    world.hosts.write(disk, "first");
    let snapshot = world.snapshot(disk).await.unwrap();
    // Of 50 GiB the disk has 20, and so has its snapshot, with two extents for what is written down of it;
    // taken by now or not.
    for _ in 0..2 {
        let refused = world.snapshot(disk).await;
        let said = format!("{refused:?}");
        assert!(said.contains("10232 MiB that are promised to nobody, and 20488 are"), "{said}");
        assert_eq!(code(refused), "no-room");
        assert_eq!(code(launch_sized(&world, 10).await), "no-room");
        world.settle().await;
    }
    assert_eq!(world.rows("snapshot").await.len(), 1, "nothing was ordered");
    assert_eq!(world.hosts.snapshots(disk), [snapshot].into());
    let grow = json!({"size_gib": 21});
    let refused = world.send("disk", disk, "grow", grow.clone()).await;
    assert!(format!("{refused:?}").contains("delete its snapshots first"), "{refused:?}");
    assert_eq!(code(refused), "in-use");

    // Gone back to, and copied onto another storage, while its server is stopped.
    world.hosts.write(disk, "second");
    let back = world.send("snapshot", snapshot, "roll-back", json!({})).await;
    assert_eq!(code(back), "wrong-state");
    world.through("server", web, "stop", json!({})).await;
    world.through("snapshot", snapshot, "roll-back", json!({})).await;
    assert_eq!(world.hosts.content(disk), "first");
    let from = json!({"snapshot": snapshot});
    let mut body = json!({
        "name": "copy", "server": web, "from": from, "format": "raw", "storage": GROUP,
    });
    assert_eq!(code(world.send("disk", None, "create", body.clone()).await), "no-room");
    (body["format"], body["storage"]) = (json!("qcow2"), Value::Null);
    let copy = world.send("disk", None, "create", body).await.unwrap().id;
    world.settle().await;
    assert_eq!(world.hosts.content(copy), "first");

    // One that lies raw in a folder has none.
    let raw = json!({"name": "raw", "server": web, "size_gib": 1, "format": "raw"});
    let raw = world.send("disk", None, "create", raw).await.unwrap().id;
    world.settle().await;
    let refused = world.snapshot(raw).await;
    assert!(format!("{refused:?}").contains("qcow2 or in a volume group"), "{refused:?}");
    assert_eq!(code(refused), "invalid-field");

    world.through("snapshot", snapshot, "delete", json!({})).await;
    world.through("disk", disk, "grow", grow).await;
    let last = world.snapshot(disk).await.unwrap();
    world.settle().await;
    for verb in ["delete", "purge"] {
        world.through("server", web, verb, json!({})).await;
    }
    assert_eq!(world.row(last).await["status"], "gone", "with its disk");
    launch_sized(&world, 50).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_a_volumes_snapshots_survives_a_death_at_each_step() {
    let world = World::empty(small());
    world.with_group("kvm-1").await;
    let web = launch_sized(&world, 2).await.unwrap().id;
    world.settle().await;
    world.through("server", web, "stop", json!({})).await;
    let mortal = Arc::new(Mortal::default());
    let orders = everything(&world, web, Some(mortal.clone())).await;
    assert_eq!(mortal.deaths(), orders * 3, "three steps of each order");
    let history = world.history("snapshot", world.rows("snapshot").await[0].key.parse().unwrap());
    let taken = history.await.iter().filter(|one| one.event_type() == "taken").count();
    assert_eq!(taken, 1);
}
