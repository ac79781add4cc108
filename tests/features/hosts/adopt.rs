//! Machines that somebody else has on a host: looked at, had as servers without a restart, and given back.

use adapters_sim::{HostFault, HostStep, SimHosts};
use domain::{
    compute::{adoption::ForeignMachine, host::Host, server::Server},
    kernel::codes,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{code, operations::rescue_is_there};
use crate::{
    backups::detail,
    world::{World, small},
};

const DB: Uuid = Uuid::from_u128(0x8a5c_2f0e_6f0a_4d5e_9a40_0d4f_4f1f_5a01);
const MAC: &str = "52:54:00:aa:00:01";

fn machine(changes: Value) -> ForeignMachine {
    let mut machine = json!({
        "name": "shop-db", "power": "running", "persistent": true, "architecture": "x86_64",
        "board": "pc-i440fx-10.0", "firmware": "bios", "vcpus": 2, "memory_mib": 512,
        "disks": [
            {"target": "sda", "device": "disk", "path": "/srv/db.img", "format": "qcow2",
             "size_bytes": 10_737_418_241_u64},
            {"target": "hda", "device": "cdrom"},
        ],
        "nics": [{"mac": MAC, "bridge": "br0", "addresses": ["10.0.0.77"]}],
        "digest": "9f2c",
    });
    for (field, value) in changes.as_object().unwrap() {
        machine[field] = value.clone();
    }
    serde_json::from_value(machine).unwrap()
}

impl World {
    /// Its agent says what others have on it now.
    async fn says(&self, host: Uuid) {
        let epoch = self.ledger.typed::<Host>(&host.to_string()).await.unwrap().1.epoch;
        let mut seen = SimHosts::sighting(1, 4, 4_096);
        seen.machines = self.hosts.machines(host);
        self.system("host", host, "sight", json!({"epoch": epoch, "seen": seen})).await.unwrap();
    }

    /// A host on which somebody has a machine, and a network that it is in.
    async fn with_machine(&self, changes: Value) -> (Uuid, Uuid) {
        let host = self.host("kvm-1", 1, 4, 4_096).await;
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = self.send("segment", None, "define", segment).await.unwrap().id;
        let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/24"}});
        let network = self.send("network", None, "define", network).await.unwrap().id;
        self.hosts.put_machine(host, DB, machine(changes));
        self.says(host).await;
        (host, network)
    }

    async fn obstacles(&self, host: Uuid) -> Vec<&'static str> {
        let foreign = self.ledger.foreign(host).await.unwrap();
        foreign.machines[0].obstacles.iter().map(|one| one.code).collect()
    }

    /// Whether an interface has addresses of a network.
    async fn has_addresses(&self, network: Uuid, nic: Uuid) -> bool {
        let (_, network) =
            self.ledger.typed::<domain::network::net::Network>(&network.to_string()).await.unwrap();
        json!(network.own.unwrap().addresses).to_string().contains(&nic.to_string())
    }
}

fn adopt() -> Value {
    json!({"machine": DB, "digest": "9f2c"})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_a_server_as_it_is_and_all_that_is_ordered_of_servers_is_ordered_of_it() {
    let world = World::empty(small());
    let (host, network) = world.with_machine(json!({})).await;
    let foreign = world.ledger.foreign(host).await.unwrap();
    let looked = &foreign.machines[0];
    assert_eq!((looked.machine, looked.obstacles.len(), looked.notes.len()), (DB, 0, 1));

    world.send("host", host, "adopt", adopt()).await.unwrap();
    world.settle().await;
    let row = world.row(DB).await;
    assert_eq!((&row["status"], &row["name"]), (&json!("running"), &json!("shop-db")));
    let server: Server = world.server(DB).await;
    let home = server.home.as_ref().unwrap();
    assert_eq!((home.spec.vcpus, home.spec.memory_mib), (2, 512));
    let (disks, nics) = (&home.parts.disks, &home.parts.nics);
    assert_eq!((disks.len(), disks[0].size_gib), (1, 11), "rounded up; a drive is no disk");
    assert_eq!(disks[0].in_place.as_deref(), Some("/srv/db.img"));
    assert_eq!((nics[0].mac.to_string(), nics[0].network), (MAC.to_owned(), network));
    assert_eq!(nics[0].addresses, ["10.0.0.77/24".parse().unwrap()]);
    assert_eq!(world.row(disks[0].id).await["status"], "attached");
    assert_eq!(world.hosts.census(host)[&DB].boots, 1, "it was not restarted");
    world.says(host).await;
    assert!(world.ledger.foreign(host).await.unwrap().machines.is_empty());

    assert!(world.has_addresses(network, nics[0].id).await);
    // In no other network of its segment has anybody its hardware address.
    let segment = nics[0].segment;
    let body = json!({"name": "back", "segment": segment, "v4": {"net": "10.0.1.0/24"}});
    let back = world.send("network", None, "define", body).await.unwrap().id;
    let same = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64},
        "nics": [{"network": back, "mac": MAC}],
    });
    assert_eq!(code(world.send("server", None, "launch", same).await), "address-taken");
    // It is counted, and its address is nobody else's.
    let full = world.launch("large", 7, 64).await.unwrap_err();
    assert_eq!(code(Err::<(), _>(full)), codes::NO_ROOM.code);
    let taken = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64},
        "nics": [{"network": network, "v4": {"type": "named", "data": {"address": "10.0.0.77"}}}],
    });
    assert_eq!(code(world.send("server", None, "launch", taken).await), "address-taken");

    // What would change what runs, or what is not ours, is not done.
    for (verb, body, no) in [
        ("add-nic", json!({"nic": {"network": network}}), codes::WRONG_STATE.code),
        ("rebuild", json!({"stop": true, "image": DB}), codes::UNSUPPORTED.code),
        ("set-boot-order", json!({"order": ["disk"]}), codes::UNSUPPORTED.code),
        ("migrate", json!({}), codes::NOT_MOVABLE.code),
    ] {
        assert_eq!(code(world.send("server", DB, verb, body).await), no, "{verb}");
    }
    let disk = home.parts.disks[0].id;
    for verb in ["detach", "delete"] {
        let no = world.send("disk", disk, verb, json!({})).await;
        assert_eq!(code(no), codes::UNSUPPORTED.code, "{verb}");
    }
    for (verb, body, status) in [
        ("rename", json!({"name": "db"}), "running"),
        ("suspend", json!({}), "suspended"),
        ("resume", json!({}), "running"),
        ("stop", json!({}), "stopped"),
        ("resize", json!({"vcpus": 1, "memory_mib": 256}), "stopped"),
        ("start", json!({}), "running"),
        ("reboot", json!({}), "running"),
        ("add-nic", json!({"nic": {"network": network}}), "running"),
        ("delete", json!({"stop": true}), "deleted"),
        ("purge", json!({}), "gone"),
    ] {
        world.send("server", DB, verb, body).await.unwrap();
        world.settle().await;
        assert_eq!(world.row(DB).await["status"], status, "{verb}");
    }
    assert!(world.hosts.census(host).is_empty() && world.hosts.machines(host).is_empty());
    let holdings = world.ledger.typed::<Host>(&host.to_string()).await.unwrap().1.holdings;
    assert!(holdings.is_empty());
    assert!(!world.has_addresses(network, nics[0].id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_of_one_that_was_adopted_are_limited_grown_kept_and_restored_and_it_is_rescued() {
    let world = World::empty(small());
    let device = json!({
        "target": "sdb", "device": "disk", "path": "/dev/vg/data", "format": "raw",
        "size_bytes": 1 << 30,
    });
    let mut is = machine(json!({}));
    is.disks.push(serde_json::from_value(device).unwrap());
    let (host, network) = world.with_machine(json!({"disks": is.disks})).await;
    world.send("host", host, "adopt", adopt()).await.unwrap();
    world.settle().await;
    let disks = world.server(DB).await.home.unwrap().parts.disks;
    let (disk, device) = (disks[0].id, disks[1].id);
    world.hosts.write(disk, "first");
    for step in [HostStep::Plug, HostStep::Grow, HostStep::BackUp, HostStep::Fill] {
        world.hosts.break_next(step, HostFault::Transient);
        world.hosts.break_next(step, HostFault::AnswerLost);
    }
    for step in [HostStep::Rescue, HostStep::Snapshot, HostStep::SnapshotRemoval] {
        world.hosts.break_next(step, HostFault::AnswerLost);
    }

    // While it runs, and is never restarted.
    let limits = json!({"read_operations": {"rate": 500}});
    world.through("disk", disk, "throttle", json!({"limits": limits})).await;
    assert_eq!(json!(world.hosts.census(host)[&DB].disks[&disk]), limits);
    world.through("disk", disk, "grow", json!({"size_gib": 20})).await;
    assert_eq!(world.hosts.disks(host)[&disk].0, 20);
    let store = world.store("vault").await;
    let backup = world.back_up(disk, store, None).await.unwrap();
    let release = || world.send("server", DB, "release", json!({}));
    assert_eq!(code(release().await), "in-use", "something works on its disk");
    world.settle().await;
    assert_eq!(world.status(backup).await, "available");
    let snapshot = world.snapshot(disk).await.unwrap();
    world.settle().await;
    assert!(detail(release().await).contains("delete it first"), "it is in its disk");
    world.through("snapshot", snapshot, "delete", json!({})).await;
    assert_eq!(world.hosts.census(host)[&DB].boots, 1, "it was not restarted");

    rescue_is_there(&world, host).await;
    world.through("server", DB, "rescue", json!({})).await;
    assert_eq!(world.status(DB).await, "rescued");
    world.through("server", DB, "leave-rescue", json!({})).await;
    assert_eq!(world.status(DB).await, "running");
    // It was started by us: its interfaces are ours.
    world.through("server", DB, "add-nic", json!({"nic": {"network": network}})).await;

    world.hosts.write(disk, "second");
    world.through("server", DB, "stop", json!({})).await;
    world.through("disk", disk, "restore", json!({"backup": backup})).await;
    assert_eq!(world.hosts.content(disk), "first");
    // What it is on a device of its host is for that host to make larger.
    let of_device = world.back_up(device, store, None).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(of_device).await, "available");
    let grow = world.send("disk", device, "grow", json!({"size_gib": 20})).await;
    assert!(detail(grow).contains("is a device of its host: /dev/vg/data"));
    let back = world.send("disk", device, "restore", json!({"backup": of_device})).await;
    assert_eq!(code(back), codes::UNSUPPORTED.code);
    assert_eq!(world.hosts.hit().len(), 11, "every fault was had: {:?}", world.hosts.hit());

    // And a new server is had from what was kept of it.
    let copy = json!({
        "name": "copy", "spec": {"vcpus": 1, "memory_mib": 64},
        "disks": [{"from": {"backup": backup}}],
    });
    let copy = world.send("server", None, "launch", copy).await.unwrap().id;
    world.settle().await;
    let disks = world.server(copy).await.home.unwrap().parts.disks;
    assert_eq!(
        (disks[0].in_place.as_ref(), world.hosts.content(disks[0].id)),
        (None, "first".into())
    );
    release().await.unwrap();
    world.settle().await;
    assert_eq!(world.status(DB).await, "gone");
    assert!(world.hosts.machines(host).contains_key(&DB));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_given_back_runs_on_and_can_be_adopted_again() {
    let world = World::empty(small());
    let (host, network) = world.with_machine(json!({})).await;
    for step in [HostStep::Adopt, HostStep::Release] {
        world.hosts.break_next(step, HostFault::Transient);
        world.hosts.break_next(step, HostFault::AnswerLost);
    }
    for _ in 0..2 {
        world.send("host", host, "adopt", adopt()).await.unwrap();
        let again = world.send("host", host, "adopt", adopt()).await;
        assert_eq!(code(again), codes::NOT_FOUND.code, "it is a server already");
        world.settle().await;
        assert_eq!(world.row(DB).await["status"], "running");
        world.send("server", DB, "release", json!({})).await.unwrap();
        world.settle().await;
        assert_eq!(world.row(DB).await["status"], "gone");
        assert_eq!(world.hosts.machines(host), [(DB, machine(json!({})))].into());
        assert!(world.hosts.census(host).is_empty());
        world.says(host).await;
    }
    assert_eq!(world.hosts.hit().len(), 4, "every fault was had");
    let launched = json!({"name": "web", "spec": {"vcpus": 1, "memory_mib": 64}});
    let launched = world.send("server", None, "launch", launched).await.unwrap().id;
    world.settle().await;
    let release = world.send("server", launched, "release", json!({})).await;
    assert_eq!(code(release), codes::UNSUPPORTED.code, "it was made here");
    let _ = network;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_changed_since_is_not_what_was_looked_at() {
    let world = World::empty(small());
    let (host, _) = world.with_machine(json!({})).await;
    let other = json!({"machine": DB, "digest": "0000"});
    let refused = world.send("host", host, "adopt", other).await;
    assert_eq!(code(refused), codes::MACHINE_CHANGED.code);
    // By the time that its host has it in its hands.
    world.hosts.put_machine(host, DB, machine(json!({"digest": "77aa"})));
    world.send("host", host, "adopt", adopt()).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(DB).await["status"], "parked");
    world.send("server", DB, "abandon", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(DB).await["status"], "gone");
    assert_eq!(world.hosts.machines(host).len(), 1, "it is left alone");
    let holdings = world.ledger.typed::<Host>(&host.to_string()).await.unwrap().1.holdings;
    assert!(holdings.is_empty(), "and its place is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_in_the_way_is_told_and_nothing_is_left_of_a_refusal() {
    let world = World::empty(small());
    let bad = json!({
        "persistent": false, "differs": true, "devices": ["pci 0000:3b:00.0"],
        "disks": [
            {"target": "vda", "device": "disk", "format": "raw"},
            {"target": "vdb", "device": "disk", "path": "/b", "format": "vmdk", "size_bytes": 1},
        ],
        "nics": [{"mac": MAC, "bridge": "br9"}],
    });
    let (host, network) = world.with_machine(bad).await;
    let all = ["not-defined", "differs", "devices", "disk", "disk", "nic"];
    assert_eq!(world.obstacles(host).await, all);
    let position = world.log.head().await.unwrap().position;
    let refused = world.send("host", host, "adopt", adopt()).await;
    assert_eq!(code(refused), codes::NOT_ADOPTABLE.code);
    assert_eq!(world.log.head().await.unwrap().position, position);

    // A server of ours in another network of the segment has its hardware address.
    let (_, state) =
        world.ledger.typed::<domain::network::net::Network>(&network.to_string()).await.unwrap();
    let segment = state.own.unwrap().segment;
    let body = json!({"name": "back", "segment": segment, "v4": {"net": "10.0.1.0/24"}});
    let back = world.send("network", None, "define", body).await.unwrap().id;
    let body = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64},
        "nics": [{"network": back, "mac": MAC}],
    });
    let web = world.send("server", None, "launch", body).await.unwrap().id;
    world.settle().await;
    world.hosts.put_machine(host, DB, machine(json!({})));
    world.says(host).await;
    assert_eq!(world.obstacles(host).await, ["nic"]);
    let refused = world.send("host", host, "adopt", adopt()).await;
    let has = "an interface in another network of its segment has it";
    assert!(detail(refused).contains(has));
    for verb in ["stop", "delete", "purge"] {
        world.send("server", web, verb, json!({})).await.unwrap();
        world.settle().await;
    }

    // What is not known of an interface is said, or the interface is left alone.
    world.hosts.put_machine(host, DB, machine(json!({"nics": [{"mac": MAC, "bridge": "br0"}]})));
    world.says(host).await;
    assert_eq!(world.obstacles(host).await, ["nic"]);
    let mut said = adopt();
    said["nics"] = json!([{"mac": MAC, "network": network, "addresses": ["10.9.9.9"]}]);
    let refused = world.send("host", host, "adopt", said.clone()).await;
    assert_eq!(code(refused), codes::NOT_ADOPTABLE.code, "it is no address of that network");
    said["nics"][0]["addresses"] = json!(["10.0.0.9"]);
    world.send("host", host, "adopt", said).await.unwrap();
    world.settle().await;
    let nics = world.server(DB).await.home.unwrap().parts.nics;
    assert_eq!(nics[0].addresses, ["10.0.0.9/24".parse().unwrap()]);
    world.send("server", DB, "release", json!({})).await.unwrap();
    world.settle().await;
    world.says(host).await;
    let mut left = adopt();
    left["leave_nics"] = json!(true);
    world.send("host", host, "adopt", left).await.unwrap();
    world.settle().await;
    assert!(world.server(DB).await.home.unwrap().parts.nics.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_takes_more_than_is_free_runs_already_and_is_counted() {
    let world = World::empty(small());
    let (host, _) = world.with_machine(json!({"vcpus": 99})).await;
    let looked = world.ledger.foreign(host).await.unwrap().machines.remove(0);
    assert!(looked.obstacles.is_empty(), "{looked:?}");
    assert!(looked.adoption.overfill.is_some(), "{looked:?}");
    world.send("host", host, "adopt", adopt()).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(DB).await["status"], "running");
    let none = world.launch("web", 1, 64).await;
    assert_eq!(code(none), codes::NO_ROOM.code);
}
