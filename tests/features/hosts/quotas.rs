//! Quotas of interfaces of servers that go from host to host: what was counted goes with them.

use std::time::Duration;

use adapters_sim::{HostFault, HostStep};
use serde_json::{Value, json};
use uuid::Uuid;

use super::storage::STORAGE;
use crate::world::{World, small};

/// Two hosts, and a server on the first with an interface that may send a thousand bytes.
struct Lab {
    world: World,
    hosts: [Uuid; 2],
    id: Uuid,
}

impl Lab {
    async fn new() -> Self {
        let world = World::empty(small());
        let here = world.peer("kvm-1").await;
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = world.send("segment", None, "define", segment).await.unwrap().id;
        let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/24"}});
        let network = world.send("network", None, "define", network).await.unwrap().id;
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 512},
            "disks": [{"size_gib": 1, "storage": STORAGE}],
            "nics": [{"network": network, "quota": {"egress_bytes": 1_000}}],
        });
        let id = world.send("server", None, "launch", body).await.unwrap().id;
        world.settle().await;
        let there = world.peer("kvm-2").await;
        Self { world, hosts: [here, there], id }
    }

    async fn done(&self, verb: &str, body: Value) {
        self.world.send("server", self.id, verb, body).await.unwrap();
        self.world.settle().await;
    }

    /// Whether so many bytes are sent, from where it is.
    async fn sends(&self, bytes: u64) -> bool {
        let host = self.world.host_of(self.id).await;
        self.world.hosts.send(host, self.id, bytes)
    }

    /// What its host says that it has sent, since it was counted anew.
    async fn sent(&self) -> Value {
        self.done("read-nics", json!({})).await;
        let row = self.world.row(self.id).await;
        row["state"]["observation"]["seen"]["nics"][0]["traffic"]["egress_bytes"].clone()
    }

    async fn nic(&self) -> Uuid {
        self.world.server(self.id).await.home.unwrap().parts.nics[0].id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_of_a_quota_goes_with_a_server_to_every_host() {
    let lab = Lab::new().await;
    let [here, there] = lab.hosts;
    // Nobody was told of this when it is ordered to go.
    assert!(lab.sends(400).await);
    lab.done("migrate", json!({"to": there})).await;
    lab.world.is_only_on(lab.id, there, &[here]).await;
    assert_eq!(lab.sent().await, 400);
    assert!(lab.sends(500).await && !lab.sends(200).await, "900 of 1,000 are used");
    assert_eq!(lab.sent().await, 900);

    // Stopped, and back where it was: what was counted there before it left is not counted twice.
    lab.done("stop", json!({})).await;
    lab.done("migrate", json!({"to": here})).await;
    lab.done("start", json!({})).await;
    lab.world.is_only_on(lab.id, here, &[there]).await;
    assert!(!lab.sends(200).await && lab.sends(50).await);
    assert_eq!(lab.sent().await, 950);
    let raised = json!({"nic": lab.nic().await, "quota": {"egress_bytes": 1_500}});
    lab.done("change-nic", raised).await;
    assert!(!lab.sends(600).await && lab.sends(500).await, "a raise, here as well");

    // Counted from nothing, and so on the next host.
    lab.done("reset-nic-traffic", json!({"nic": lab.nic().await})).await;
    assert_eq!(lab.sent().await, 0);
    assert!(lab.sends(100).await);
    lab.done("migrate", json!({"to": there})).await;
    assert_eq!(lab.sent().await, 100);
    assert!(lab.sends(1_400).await && !lab.sends(1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_used_once_whatever_becomes_of_a_server_on_its_way() {
    for (fault, arrives) in [
        (HostFault::Unsure { arrived: true }, true),
        (HostFault::Unsure { arrived: false }, false),
        (HostFault::Rejected("no route to host".into()), false),
    ] {
        let lab = Lab::new().await;
        let [here, there] = lab.hosts;
        assert!(lab.sends(400).await);
        lab.world.hosts.break_next(HostStep::Send, fault.clone());
        lab.done("migrate", json!({})).await;
        let (is, other) = if arrives { (there, here) } else { (here, there) };
        lab.world.is_only_on(lab.id, is, &[other]).await;
        assert_eq!(lab.world.hosts.hit().len(), 1, "{fault:?}");
        assert_eq!(lab.sent().await, 400, "{fault:?}");
        assert!(lab.sends(600).await && !lab.sends(1).await, "{fault:?}");
        // And on from there.
        lab.done("migrate", json!({"to": other})).await;
        lab.world.is_only_on(lab.id, other, &[is]).await;
        assert!(lab.sent().await == 1_000 && !lab.sends(1).await, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_dead_host_what_it_said_last_was_used() {
    let lab = Lab::new().await;
    let [here, there] = lab.hosts;
    assert!(lab.sends(400).await);
    assert_eq!(lab.sent().await, 400);
    assert!(lab.sends(300).await, "which nobody hears of");
    let epoch = lab.world.state_of(here).await.epoch;
    lab.world.hosts.leave(here);
    lab.world.clock.advance(Duration::from_mins(1));
    lab.world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    let evacuate = json!({"host_is_down": true});
    lab.world.send("server", lab.id, "evacuate", evacuate).await.unwrap();
    // What the dead host is to leave stays out.
    for _ in 0..3 {
        lab.world.pass().await;
    }
    assert_eq!(lab.world.host_of(lab.id).await, there);
    let row = lab.world.row(lab.id).await;
    assert_eq!(row["status"], "running");
    let seen = &row["state"]["observation"]["seen"]["nics"][0];
    assert_eq!(seen["traffic"]["egress_bytes"], 400);
    assert!(!lab.sends(601).await && lab.sends(600).await);
}
