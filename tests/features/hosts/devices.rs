//! Devices of hosts: what became of each, and how many are left; none is given twice.

use adapters_sim::SimHosts;
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
