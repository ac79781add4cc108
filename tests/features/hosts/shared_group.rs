//! Volumes that several hosts reach: whatever is lost on the way, no two hosts have one active that may
//! not, and no server runs on one that is not active where it runs.

use std::{sync::Arc, time::Duration};

use adapters_sim::{HostFault, HostStep, SimHosts};
use commands::{ports::Clock as _, run_orders::Runner};
use domain::compute::{disk::Disk, placement::HostId, storage::lease::Mode};
use serde_json::json;
use uuid::Uuid;

use super::{Mortal, code};
use crate::{
    backups::everything,
    world::{World, small},
};

/// The group that the hosts share, as a storage.
const SHARED: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_00cc);

impl World {
    /// A host with the group, which LVM locks by this; it takes servers that run.
    async fn sharing(&self, name: &str, lock: &str) -> Uuid {
        let settings = json!({"cpu_overcommit_percent": 100});
        let body = json!({"name": name, "settings": settings});
        let id = self.send("host", None, "enrol", body).await.unwrap().id;
        let mut seen = json!(SimHosts::sighting(1, 8, 8_192));
        (seen["storages"], seen["labels"]) = (json!([SHARED]), json!(["live-migration"]));
        let group = json!({
            "name": "san", "size_mib": 102_400, "free_mib": 51_200, "extent_kib": 4_096,
            "lock": lock,
        });
        seen["volume_groups"] = json!({SHARED.to_string(): group});
        self.joined(id, seen).await;
        id
    }

    async fn volume(&self, id: Uuid) -> Disk {
        self.ledger.typed(&id.to_string()).await.unwrap().1
    }

    /// This host has all volumes of the server active, alone, as the log says; and nothing was done that
    /// must never be.
    async fn has_alone(&self, id: Uuid, host: Uuid, others: &[Uuid]) {
        assert_eq!(self.hosts.violations(), [""; 0]);
        let home = self.server(id).await.home.unwrap();
        for disk in &home.parts.disks {
            let leases = self.volume(disk.id).await.home.unwrap().leases.unwrap();
            let hosts: Vec<Uuid> = leases.hosts().map(HostId::uuid).collect();
            assert_eq!(hosts, [host], "as the log says");
            for other in others {
                let active = self.hosts.active(*other);
                assert!(!active.contains_key(&disk.id), "{other} has it as well: {active:?}");
            }
            assert!(self.hosts.active(host).contains_key(&disk.id), "it is active here");
        }
    }
}

/// Two hosts, and a server on the first.
async fn two_hosts() -> (World, Uuid, Uuid, Uuid) {
    let world = World::empty(small());
    let here = world.sharing("kvm-1", "sanlock").await;
    let disk = |size: u64| json!({"size_gib": size, "format": "raw", "storage": SHARED});
    let body = json!({
        "name": "db", "spec": {"vcpus": 1, "memory_mib": 512}, "disks": [disk(1), disk(2)],
    });
    let id = world.send("server", None, "launch", body).await.unwrap().id;
    world.settle().await;
    let there = world.sharing("kvm-2", "sanlock").await;
    (world, here, there, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_active_where_its_server_is_and_shared_only_on_the_way() {
    let (world, here, there, id) = two_hosts().await;
    world.has_alone(id, here, &[there]).await;
    world.send("server", id, "migrate", json!({})).await.unwrap();
    let root = world.server(id).await.home.unwrap().parts.disks[0].id;
    let leases = world.volume(root).await.home.unwrap().leases.unwrap();
    assert_eq!(leases.hosts().count(), 2, "while it goes");
    world.settle().await;
    world.has_alone(id, there, &[here]).await;
    assert_eq!(world.row(id).await["status"], "running");

    // Stopped it is nobody's on the way.
    world.send("server", id, "stop", json!({})).await.unwrap();
    world.settle().await;
    world.send("server", id, "migrate", json!({"to": here})).await.unwrap();
    let leases = world.volume(root).await.home.unwrap().leases.unwrap();
    assert_eq!(leases.hosts().count(), 1);
    world.settle().await;
    world.send("server", id, "start", json!({})).await.unwrap();
    world.settle().await;
    world.has_alone(id, here, &[there]).await;
    let lease = world.hosts.active(here)[&root];
    assert_eq!((lease.mode, lease.epoch), (Mode::Exclusive, 3));

    // One that is made later, is taken, and goes.
    let body = json!({
        "name": "data", "server": id, "size_gib": 1, "format": "raw", "storage": SHARED,
    });
    let disk = world.send("disk", None, "create", body.clone()).await.unwrap().id;
    world.settle().await;
    world.has_alone(id, here, &[there]).await;
    world.send("disk", disk, "detach", json!({})).await.unwrap();
    world.settle().await;
    assert!(!world.hosts.active(here).contains_key(&disk), "nobody uses it");
    world.send("disk", disk, "attach", json!({"server": id})).await.unwrap();
    world.settle().await;
    world.has_alone(id, here, &[there]).await;

    // A host that has the group and does not lock it: nothing more is made there.
    world.sharing("kvm-3", "").await;
    assert_eq!(code(world.send("disk", None, "create", body).await), "invalid-field");
    for verb in ["stop", "delete", "purge"] {
        world.send("server", id, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    assert!(world.hosts.active(here).is_empty() && world.hosts.disks(SHARED).is_empty());
    assert_eq!(world.hosts.violations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_on_the_way_one_host_has_the_volumes() {
    for fault in [HostFault::AnswerLost, HostFault::Transient] {
        for step in [HostStep::Receive, HostStep::Send, HostStep::Undefine, HostStep::Define] {
            let (world, here, there, id) = two_hosts().await;
            world.hosts.break_next(step, fault.clone());
            world.send("server", id, "migrate", json!({})).await.unwrap();
            world.settle().await;
            world.has_alone(id, there, &[here]).await;
        }
    }
    for arrived in [true, false] {
        let (world, here, there, id) = two_hosts().await;
        world.hosts.break_next(HostStep::Send, HostFault::Unsure { arrived });
        world.send("server", id, "migrate", json!({})).await.unwrap();
        world.settle().await;
        let (is, other) = if arrived { (there, here) } else { (here, there) };
        world.has_alone(id, is, &[other]).await;
    }
    // It stays, and it is given up.
    let (world, here, there, id) = two_hosts().await;
    world.hosts.break_next(HostStep::Send, HostFault::Rejected("no route".into()));
    world.send("server", id, "migrate", json!({})).await.unwrap();
    world.settle().await;
    world.has_alone(id, here, &[there]).await;
    world.send("server", id, "migrate", json!({})).await.unwrap();
    world.send("server", id, "abandon", json!({})).await.unwrap();
    world.settle().await;
    world.has_alone(id, here, &[there]).await;
    // And it can still go.
    world.send("server", id, "migrate", json!({})).await.unwrap();
    world.settle().await;
    world.has_alone(id, there, &[here]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_host_had_is_another_hosts_and_its_old_orders_are_over() {
    let (world, here, there, id) = two_hosts().await;
    let epoch = world.state_of(here).await.epoch;
    world.hosts.leave(here);
    world.hosts.power_off(here);
    world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    world.send("server", id, "evacuate", json!({"host_is_down": true})).await.unwrap();
    for _ in 0..3 {
        world.caught_up().await;
        assert!(!Runner::new(world.ledger.clone(), 8).pass().await.unwrap());
        world.clock.sleep(Duration::from_secs(1)).await;
    }
    world.has_alone(id, there, &[here]).await;
    let root = world.server(id).await.home.unwrap().parts.disks[0].id;
    assert_eq!(world.hosts.active(there)[&root].epoch, 2);
    // Back again, it starts nothing, and clears.
    world.system("host", here, "join", json!({"epoch": epoch + 2, "agent": "sim"})).await.unwrap();
    world.hosts.join(here, epoch + 2);
    world.settle().await;
    world.has_alone(id, there, &[here]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_with_snapshots_goes_to_another_host_with_a_stopped_server_alone() {
    let (world, here, there, id) = two_hosts().await;
    let disks = world.server(id).await.home.unwrap().parts.disks;
    let data = disks[1].id;
    world.hosts.write(data, "first");
    let snapshot = world.snapshot(data).await.unwrap();
    let refused = world.send("server", id, "migrate", json!({})).await;
    assert_eq!(code(refused), "in-use", "it is being taken");
    world.settle().await;
    world.has_alone(id, here, &[there]).await;
    world.hosts.write(data, "second");
    let refused = world.send("server", id, "migrate", json!({})).await;
    let said = format!("{refused:?}");
    assert!(said.contains("1 snapshots, which two hosts do not have at once"), "{said}");
    assert_eq!(code(refused), "not-movable");
    let draining = world.ledger.draining(here).await.unwrap();
    let codes: Vec<_> = draining.servers[0].obstacles.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["local-disks"]);

    // They are in the group: on the other host they are gone back to and copied, by its lease.
    world.through("server", id, "stop", json!({})).await;
    assert!(world.ledger.draining(here).await.unwrap().servers[0].obstacles.is_empty());
    world.through("server", id, "migrate", json!({"to": there})).await;
    world.through("snapshot", snapshot, "roll-back", json!({})).await;
    assert_eq!(world.hosts.content(data), "first");
    let body = json!({
        "name": "copy", "server": id, "format": "raw", "storage": SHARED, "from": {"snapshot": snapshot},
    });
    let copy = world.send("disk", None, "create", body).await.unwrap().id;
    world.settle().await;
    assert_eq!(world.hosts.content(copy), "first");
    let disk = json!({"from": {"snapshot": snapshot}, "format": "raw", "storage": SHARED});
    let spec = json!({"vcpus": 1, "memory_mib": 512});
    let body = json!({"name": "made", "spec": spec, "disks": [disk]});
    let made = world.send("server", None, "launch", body).await.unwrap().id;
    world.settle().await;
    world.has_alone(made, there, &[here]).await;

    // One that no server has, too.
    let body = json!({
        "name": "loose", "server": id, "size_gib": 1, "format": "raw", "storage": SHARED,
    });
    let loose = world.send("disk", None, "create", body).await.unwrap().id;
    world.settle().await;
    world.through("disk", loose, "detach", json!({})).await;
    let of_loose = world.snapshot(loose).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(of_loose).await["status"], "available");
    assert!(!world.hosts.active(there).contains_key(&loose), "nobody uses it");

    world.through("server", id, "start", json!({})).await;
    world.through("snapshot", snapshot, "delete", json!({})).await;
    world.through("server", id, "migrate", json!({})).await;
    world.has_alone(id, here, &[there]).await;
    assert_eq!(world.row(id).await["status"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_a_shared_volumes_snapshots_survives_a_death_at_each_step() {
    let (world, here, there, id) = two_hosts().await;
    world.through("server", id, "stop", json!({})).await;
    let mortal = Arc::new(Mortal::default());
    let orders = everything(&world, id, Some(mortal.clone())).await;
    assert_eq!(mortal.deaths(), orders * 3, "three steps of each order");
    world.through("server", id, "start", json!({})).await;
    world.has_alone(id, here, &[there]).await;
}
