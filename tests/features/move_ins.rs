//! Machines of a Cloudpods cluster: looked at, and what is in the way of moving each to a host of ours. The
//! cluster is a stand-in of ours that answers as its API does.

use std::sync::Arc;

use adapters_clouds::{
    cloudpods::Cloudpods,
    testing::cloudpods::{Cluster, Paper, Qemu as _},
};
use commands::{move_in::SourceFault, ports::DriverFault};
use serde_json::{Value, json};

use crate::world::{World, id_of};

const MAC: &str = "00:22:aa:00:00:01";

/// What the cluster says of a machine.
fn details(name: &str, changes: Value) -> Value {
    let mut details = json!({
        "name": name, "vcpu_count": 2, "vmem_size": 512, "bios": "BIOS", "os_arch": "x86",
        "host_access_ip": "192.0.2.7", "freezed": false, "metadata": {},
        "disks_info": [{"id": "d0", "index": 0, "size": 1024, "driver": "virtio"}],
        "nics": [{"mac": MAC, "ip_addr": "10.0.0.77"}],
    });
    for (field, value) in changes.as_object().unwrap() {
        details[field] = value.clone();
    }
    details
}

/// A cluster whose account is connected, a host of ours and a network.
struct Corner {
    world: World,
    cluster: Cluster,
}

impl Corner {
    async fn new() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let world = World::beside(vec![Arc::new(Cloudpods::with_page_size(2))]);
        world
            .connect_to(json!({
                "name": "old", "provider": "cloudpods", "endpoint": cluster.endpoint(),
                "credential": Cluster::credential(),
            }))
            .await;
        assert_eq!(world.row(world.account).await["status"], "connected");
        world.host("kvm-1", 1, 4, 4_096).await;
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = world.send("segment", None, "define", segment).await.unwrap().id;
        let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/24"}});
        world.send("network", None, "define", network).await.unwrap();
        Self { world, cluster }
    }

    /// A machine on paper with one disk.
    fn put(&self, id: &str, details: Value) -> Arc<Paper> {
        let paper = Arc::new(Paper::with(&["drive_0"]));
        self.cluster.put(id, details, paper.clone());
        paper
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_a_cluster_are_listed_with_everything_that_is_in_the_way() {
    let corner = Corner::new().await;
    corner.put("m1", details("web", json!({})));
    let db = json!({
        "freezed": true, "bios": "UEFI", "nics": [{"mac": MAC, "ip_addr": "10.9.9.9"}],
        "disks_info": [{"id": "d0", "index": 0, "size": 1025, "driver": "ide"}],
        "isolated_devices": [{"dev_type": "GPU-HPC", "model": "T4", "addr": "41:00.0"}],
    });
    corner.put("m2", details("db", db)).kill().await;
    corner.put("m3", details("cache", json!({"nics": []})));
    let sources = corner.world.ledger.sources(corner.world.account).await.unwrap();
    let of = |name: &str| sources.machines.iter().find(|one| one.machine.name == name).unwrap();
    assert_eq!(sources.account, "old");
    let names: Vec<_> = sources.machines.iter().map(|one| one.machine.name.as_str()).collect();
    assert_eq!(names, ["cache", "db", "web"], "of both pages");
    let codes = |name: &str| of(name).obstacles.iter().map(|one| one.code).collect::<Vec<_>>();
    assert!(codes("web").is_empty() && codes("cache").is_empty());
    assert_eq!(codes("db"), ["not-running", "frozen", "devices", "bus", "nic"]);
    assert_eq!(of("db").notes.len(), 2, "{:?}", of("db").notes);
    let nic = &of("web").nics[0];
    assert_eq!(nic.mac.unwrap().to_string(), MAC, "it keeps its hardware address");
    let (one, again) = (of("web").digest.clone(), corner.world.account);
    corner.cluster.set("m1", "vcpu_count", json!(4));
    let sources = corner.world.ledger.sources(again).await.unwrap();
    assert_ne!(sources.machines[2].digest, one, "it is another machine by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_cluster_are_in_the_inventory_and_are_started_and_stopped() {
    let corner = Corner::new().await;
    let paper = corner.put("m1", details("web", json!({"metadata": {"env": "prod"}})));
    corner.world.sync(json!({})).await;
    let row = corner.world.external("server", "m1").await;
    assert_eq!((&row["name"], &row["status"]), (&json!("web"), &json!("running")));
    assert_eq!(row["tags"], json!({"env": "prod"}));
    let id = id_of(&row);
    corner.world.send("server", id, "stop", json!({})).await.unwrap();
    corner.world.settle().await;
    assert_eq!(corner.world.row(id).await["status"], "stopped");
    assert!(!paper.runs());
    corner.world.send("server", id, "start", json!({})).await.unwrap();
    corner.world.settle().await;
    assert!(paper.runs());
    let reboot = corner.world.send("server", id, "reboot", json!({})).await.unwrap_err();
    assert!(reboot.to_string().contains("cannot reboot"), "{reboot}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_such_machines_and_a_place_that_does_not_answer_are_said() {
    let world = World::synced(crate::world::small()).await;
    let none = world.ledger.sources(world.account).await.unwrap_err();
    assert!(matches!(none, SourceFault::Refused(_)), "{none:?}");
    let corner = Corner::new().await;
    let gone = corner.cluster;
    drop(gone);
    tokio::task::yield_now().await;
    let away = corner.world.ledger.sources(corner.world.account).await.unwrap_err();
    assert!(matches!(away, SourceFault::Driver(DriverFault::Transient(_))), "{away:?}");
}
