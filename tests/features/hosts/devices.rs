//! Devices of hosts: what became of each, and how many are left; none is given twice.

use adapters_sim::{HostFault, HostStep, SimHosts};
use commands::submit::SubmitFault;
use domain::compute::{
    device::{self, DeviceState},
    placement::{Device, ServerId},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::code;
use crate::world::{World, small};

/// A card that is two vGPUs of one profile or four of another, and a stick.
fn seen(left: &[&str]) -> Value {
    let slot = |profile: u32, number: u32| {
        json!({
            "id": format!("vgpu:0000:41:00.0/{profile}/{number}"), "kind": "vgpu",
            "model": format!("10de:26b9/nvidia-{profile}"),
            "profile": {"name": "NVIDIA L40S-24Q", "framebuffer_mib": 24_576, "instances_max": 2},
        })
    };
    let all = [
        slot(1155, 0),
        slot(1155, 1),
        json!({"id": "usb:1-1", "kind": "usb", "model": "0529:0001"}),
    ];
    let there = all.into_iter().filter(|device| left.contains(&device["id"].as_str().unwrap()));
    let mut devices: Vec<Device> =
        there.map(|device| serde_json::from_value(device).unwrap()).collect();
    devices.sort_by(|one, next| one.id.cmp(&next.id));
    let mut seen = SimHosts::sighting(1, 8, 8_192);
    seen.devices = devices;
    json!(seen)
}

impl World {
    async fn sees(&self, host: Uuid, left: &[&str]) {
        let (host_now, _) = self.ledger.host_now(host).await.unwrap();
        let body = json!({"epoch": host_now.epoch, "seen": seen(left)});
        self.system("host", host, "sight", body).await.unwrap();
    }

    /// The state of each device of a host, and of the vGPUs how many are left.
    async fn states(&self, host: Uuid) -> (Vec<(String, DeviceState, Option<Uuid>)>, u32) {
        let (host, _) = self.ledger.host_now(host).await.unwrap();
        let devices = device::devices(&host);
        let counts = device::counts(&devices);
        let vgpus = counts.iter().find(|one| one.kind == "vgpu");
        let state =
            |one: device::DeviceUse| (one.device.id, one.state, one.server.map(ServerId::uuid));
        (devices.into_iter().map(state).collect(), vgpus.map_or(0, |one| one.free))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vgpu_is_one_server_s_until_that_is_gone_and_the_host_says_how_many_are_left() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let (first, second, stick) =
        ("vgpu:0000:41:00.0/1155/0", "vgpu:0000:41:00.0/1155/1", "usb:1-1");
    world.sees(host, &[first, second, stick]).await;
    assert_eq!(world.states(host).await.1, 2);
    let launch = |name: &str, count: u32| {
        json!({
            "name": name, "disks": [{"size_gib": 1}],
            "spec": {
                "vcpus": 1, "memory_mib": 64,
                "devices": [{"kind": "vgpu", "model": "10de:26b9/nvidia-1155", "count": count}],
            },
        })
    };
    // More than there are, and one of which nothing was said.
    assert_eq!(code(world.send("server", None, "launch", launch("many", 3)).await), "no-room");
    let web = world.send("server", None, "launch", launch("web", 1)).await.unwrap().id;
    world.settle().await;
    let (states, left) = world.states(host).await;
    let expected = [
        (stick.to_owned(), DeviceState::Free, None),
        (first.to_owned(), DeviceState::Attached, Some(web)),
        (second.to_owned(), DeviceState::Free, None),
    ];
    assert_eq!((states, left), (expected.into(), 1));
    assert_eq!(code(world.send("server", None, "launch", launch("two", 2)).await), "no-room");
    let db = world.send("server", None, "launch", launch("db", 1)).await.unwrap().id;
    world.settle().await;
    assert_eq!(world.states(host).await.1, 0);
    assert_eq!(code(world.send("server", None, "launch", launch("third", 1)).await), "no-room");

    // What is not found any more stays with who has it.
    world.sees(host, &[first]).await;
    let (states, left) = world.states(host).await;
    let expected = [
        (first.to_owned(), DeviceState::Attached, Some(web)),
        (second.to_owned(), DeviceState::Lost, Some(db)),
    ];
    assert_eq!((states, left), (expected.into(), 0));
    // What was shared with a server that is gone is free.
    world.sees(host, &[first, second, stick]).await;
    let body = json!({"stop": true});
    world.send("server", web, "delete", body).await.unwrap();
    world.settle().await;
    world.send("server", web, "purge", json!({})).await.unwrap();
    world.settle().await;
    let (states, left) = world.states(host).await;
    assert_eq!((&states[1], left), (&(first.to_owned(), DeviceState::Free, None), 1));
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_is_without_devices_and_they_are_back_afterwards() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let stick = "usb:1-1";
    world.sees(host, &[stick]).await;
    super::operations::rescue_is_there(&world, host).await;
    let ask = json!({
        "name": "web", "disks": [{"size_gib": 1}],
        "spec": {"vcpus": 1, "memory_mib": 64, "devices": [{"kind": "usb"}]},
    });
    let web = world.send("server", None, "launch", ask).await.unwrap().id;
    world.settle().await;
    let has = || world.hosts.census(host)[&web].devices.contains(stick);
    assert!(has());
    for (verb, there) in [("rescue", false), ("leave-rescue", true)] {
        world.send("server", web, verb, json!({})).await.unwrap();
        world.settle().await;
        assert_eq!(has(), there, "{verb}");
        // It stays the server's all the while.
        let own = (stick.to_owned(), DeviceState::Attached, Some(web));
        assert_eq!(world.states(host).await.0, [own], "{verb}");
    }
    world.same_as_census(host).await;
}

fn stopped(name: &str) -> Value {
    json!({"name": name, "disks": [{"size_gib": 1}], "spec": {"vcpus": 1, "memory_mib": 64}})
}

impl World {
    /// A server that is stopped.
    async fn stopped(&self, name: &str) -> Uuid {
        let id = self.send("server", None, "launch", stopped(name)).await.unwrap().id;
        self.settle().await;
        self.send("server", id, "stop", json!({})).await.unwrap();
        self.settle().await;
        id
    }

    /// The devices that a server has, on its host.
    fn has(&self, host: Uuid, id: Uuid) -> Vec<String> {
        self.hosts.census(host)[&id].devices.iter().cloned().collect()
    }

    async fn held(&self, id: Uuid) -> Vec<String> {
        let holding = self.server(id).await.home.unwrap().placement.holding;
        holding.devices.into_iter().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_gets_devices_and_gives_them_back() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let (first, second, stick) =
        ("vgpu:0000:41:00.0/1155/0", "vgpu:0000:41:00.0/1155/1", "usb:1-1");
    world.sees(host, &[first, second, stick]).await;
    let (web, db) = (world.stopped("web").await, world.stopped("db").await);
    let add = |count: u32| json!({"device": {"kind": "vgpu", "count": count}});

    // It is its own from the order on, before its host has heard of it.
    world.send("server", web, "add-device", add(2)).await.unwrap();
    assert_eq!(world.row(web).await["status"], "changing-devices");
    assert_eq!(world.states(host).await.1, 0);
    let refused = world.send("server", db, "add-device", add(1)).await;
    let Err(SubmitFault::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.code.code, "no-room");
    assert!(refusal.detail.contains("1 vgpu of any model, of which 0 are free"), "{refusal:?}");
    world.settle().await;
    assert_eq!(world.has(host, web), [first, second]);
    assert_eq!(world.held(web).await, [first, second]);
    world.same_as_census(host).await;
    world.send("server", web, "add-device", json!({"device": {"kind": "usb"}})).await.unwrap();
    world.settle().await;
    assert_eq!(world.has(host, web), [stick, first, second]);
    let holding = world.server(web).await.home.unwrap().placement.holding;
    assert_eq!(holding.models[stick], "0529:0001", "what was in that port");

    // While it runs they stay.
    world.send("server", web, "start", json!({})).await.unwrap();
    world.settle().await;
    let remove = |device: &str| json!({"device": device});
    for (verb, body) in [("add-device", add(1)), ("remove-device", remove(first))] {
        assert_eq!(code(world.send("server", web, verb, body).await), "wrong-state");
    }
    world.send("server", web, "stop", json!({})).await.unwrap();
    world.settle().await;

    // One that is given back is another's once its host has reported that.
    world.send("server", web, "remove-device", remove(first)).await.unwrap();
    assert_eq!(code(world.send("server", db, "add-device", add(1)).await), "no-room");
    world.settle().await;
    world.send("server", db, "add-device", add(1)).await.unwrap();
    world.settle().await;
    assert_eq!(
        (world.has(host, web), world.has(host, db).join(" ")),
        (vec![stick.to_owned(), second.to_owned()], first.to_owned())
    );
    let asks = world.server(web).await.home.unwrap().spec.devices;
    assert_eq!(asks.iter().map(|ask| ask.count).collect::<Vec<_>>(), [1, 1]);
    world.same_as_census(host).await;
    // One that is not found any more can be given back, too.
    world.sees(host, &[first, stick]).await;
    world.send("server", web, "remove-device", remove(second)).await.unwrap();
    world.settle().await;
    assert_eq!(world.held(web).await, [stick]);
    world.send("server", web, "remove-device", remove(stick)).await.unwrap();
    world.settle().await;
    assert!(world.server(web).await.home.unwrap().spec.devices.is_empty());
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_device_goes_to_one_of_many_that_ask_at_once() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    world.sees(host, &["vgpu:0000:41:00.0/1155/0", "vgpu:0000:41:00.0/1155/1"]).await;
    let mut servers = Vec::new();
    for at in 0..8 {
        servers.push(world.stopped(&format!("s{at}")).await);
    }
    let other = commands::ledger::Ledger::new(world.ledger.ports.clone());
    let asks = servers.iter().enumerate().map(|(at, id)| {
        let ledger = if at % 2 == 0 { &world.ledger } else { &other };
        let body = json!({"device": {"kind": "vgpu"}});
        ledger.submit(World::submission("server", *id, "add-device", body))
    });
    let results = futures::future::join_all(asks).await;
    assert_eq!(results.iter().filter(|one| one.is_ok()).count(), 2);
    for refused in results.into_iter().filter(Result::is_err) {
        assert_eq!(code(refused), "no-room");
    }
    world.settle().await;
    let mut given = Vec::new();
    for id in servers {
        given.extend(world.has(host, id));
    }
    given.sort();
    assert_eq!(given, ["vgpu:0000:41:00.0/1155/0", "vgpu:0000:41:00.0/1155/1"]);
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_devices_that_fails_is_gone_on_with_or_given_up() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let (first, stick) = ("vgpu:0000:41:00.0/1155/0", "usb:1-1");
    world.sees(host, &[first, stick]).await;
    let web = world.stopped("web").await;
    let add = json!({"device": {"kind": "vgpu"}});
    // Nothing came of it, and its answer was lost: it is done once.
    for fault in [HostFault::Transient, HostFault::AnswerLost] {
        world.hosts.break_next(HostStep::Devices, fault);
        world.send("server", web, "add-device", add.clone()).await.unwrap();
        world.settle().await;
        assert_eq!(
            (world.has(host, web), world.held(web).await),
            (vec![first.to_owned()], vec![first.to_owned()])
        );
        let remove = json!({"device": first});
        world.send("server", web, "remove-device", remove).await.unwrap();
        world.settle().await;
        assert_eq!(world.states(host).await.1, 1);
    }
    // Its host cannot: nothing stays reserved when it is given up.
    world.hosts.break_next(HostStep::Devices, HostFault::Rejected("it is not there".into()));
    world.send("server", web, "add-device", add).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(web).await["status"], "parked");
    assert_eq!(world.states(host).await.1, 0);
    world.send("server", web, "abandon", json!({})).await.unwrap();
    assert_eq!((world.states(host).await.1, world.held(web).await), (1, vec![]));
    world.same_as_census(host).await;

    for (verb, body, expected) in [
        ("add-device", json!({"device": {"kind": "gpu"}}), "no-room"),
        ("add-device", json!({"device": {"kind": "usb", "count": 0}}), "invalid-field"),
        ("add-device", json!({"device": {"kind": "usb", "count": 65}}), "invalid-field"),
        ("add-device", json!({"device": {"kind": "vf", "carrier": "br0"}}), "unsupported"),
        ("add-device", json!({"device": {"kind": "usb", "function": {}}}), "invalid-field"),
        ("add-device", json!({"device": {"kind": "usb"}, "found": {}}), "invalid-field"),
        ("add-device", json!({"device": "usb"}), "malformed-command"),
        ("remove-device", json!({"device": stick}), "invalid-field"),
        ("remove-device", json!({"device": stick, "found": {}}), "invalid-field"),
        ("remove-device", json!({}), "malformed-command"),
    ] {
        let refused = world.send("server", web, verb, body.clone()).await;
        assert_eq!(code(refused), expected, "{verb} {body}");
    }
    assert_eq!(world.held(web).await, Vec::<String>::new());
}
