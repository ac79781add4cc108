//! Segments that something carries: a VLAN of a bridge is one segment's, and a server goes where the bridge is.

use adapters_sim::SimHosts;
use commands::{ledger::Ledger, submit::SubmitFault};
use futures::future::{join, join_all};
use serde_json::{Value, json};
use uuid::Uuid;

use super::code;
use crate::world::{World, small};

impl World {
    /// A host that says these carriers, or nothing of them.
    async fn carrying(&self, name: &str, carriers: Value) -> Uuid {
        let id = self.send("host", None, "enrol", json!({"name": name})).await.unwrap().id;
        let mut seen = json!(SimHosts::sighting(1, 8, 8_192));
        seen["carriers"] = carriers;
        self.joined(id, seen).await;
        id
    }

    /// A server on a network of its own on a segment.
    async fn launch_in(&self, name: &str, network: Uuid) -> Result<Uuid, SubmitFault> {
        let body = json!({
            "name": name, "spec": {"vcpus": 1, "memory_mib": 256}, "nics": [{"network": network}],
        });
        Ok(self.send("server", None, "launch", body).await?.id)
    }
}

async fn segment(world: &World, medium: Value, bridge: &str) -> Result<Uuid, SubmitFault> {
    world.caught_up().await;
    let body = json!({"name": "blue", "medium": medium, "bridge": bridge});
    Ok(world.send("segment", None, "define", body).await?.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_to_a_host_that_has_what_carries_its_segment() {
    let world = World::empty(small());
    let blue = segment(&world, json!({"vlan": {"id": 7}}), "br0").await.unwrap();
    let body = json!({"name": "front", "segment": blue, "v4": {"net": "10.0.0.0/24"}});
    let network = world.send("network", None, "define", body).await.unwrap().id;
    world.carrying("kvm-1", json!(["bridge/br1", "ovs/br0"])).await;
    let refused = world.launch_in("web", network).await;
    assert!(format!("{refused:?}").contains("it has no bridge br0, which carries"), "{refused:?}");
    assert_eq!(code(refused), "no-room");
    assert!(world.rows("server").await.is_empty(), "nothing is left of it");

    let has = world.carrying("kvm-2", json!(["bridge/br0"])).await;
    let id = world.launch_in("web", network).await.unwrap();
    let home = world.server(id).await.home.unwrap();
    assert_eq!(home.placement.host.uuid(), has);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_say_what_it_has_is_taken_at_its_word() {
    let world = World::empty(small());
    let blue = segment(&world, json!({"ovs": {"vlan": 7}}), "switch").await.unwrap();
    let body = json!({"name": "front", "segment": blue, "v4": {"net": "10.0.0.0/24"}});
    let network = world.send("network", None, "define", body).await.unwrap().id;
    world.carrying("kvm-1", Value::Null).await;
    world.launch_in("web", network).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vlan_of_a_bridge_is_one_segment_s_and_which_is_said() {
    let world = World::empty(small());
    let vlan = |id: u16| json!({"vlan": {"id": id}});
    let blue = segment(&world, vlan(7), "br0").await.unwrap();
    let refused = segment(&world, vlan(7), "br0").await;
    assert!(format!("{refused:?}").contains(&blue.to_string()), "{refused:?}");
    assert_eq!(code(refused), "in-use");
    let red = segment(&world, vlan(8), "br0").await.unwrap();
    world.caught_up().await;
    let moved = world.send("segment", red, "change", json!({"medium": vlan(7)})).await;
    assert_eq!(code(moved), "in-use");
    world.send("segment", blue, "change", json!({"bridge": "br0", "mtu": 9_000})).await.unwrap();
    // Without VLANs several may name one bridge: it is one network then.
    for _ in 0..2 {
        segment(&world, json!("bridge"), "br0").await.unwrap();
    }
    world.send("segment", blue, "retire", json!({})).await.unwrap();
    world.caught_up().await;
    world.send("segment", red, "change", json!({"medium": vlan(7)})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_segments_that_two_processes_define_at_once_on_one_vlan_one_is() {
    let world = World::empty(small());
    let there = Ledger::new(world.ledger.ports.clone());
    let ledgers = [&world.ledger, &there];
    let define = async |ledger: &Ledger, medium: Value| {
        let body = json!({"name": "blue", "medium": medium, "bridge": "br0"});
        ledger.submit(World::submission("segment", None, "define", body)).await
    };
    let mut refused = 0;
    for (at, medium) in
        [json!({"vlan": {"id": 7}}), json!({"ovs": {"vlan": 7}}), json!({"ovs": {"vlan": null}})]
            .into_iter()
            .enumerate()
    {
        let asked = (0..16).map(|one| define(ledgers[one % 2], medium.clone()));
        let came = join_all(asked).await;
        assert_eq!(came.iter().filter(|one| one.is_ok()).count(), 1, "{medium}: {came:?}");
        for no in came.into_iter().filter(Result::is_err) {
            assert_eq!(code(no), "in-use");
            refused += 1;
        }
        world.caught_up().await;
        assert_eq!(world.rows("segment").await.len(), at + 1);
    }
    assert_eq!(refused, 3 * 15);

    // Two that go to what a third gives up: one gets it, and its name is taken from who had it.
    let vlan = |id: u16| json!({"vlan": {"id": id}});
    let of = async |id: u16| define(&world.ledger, vlan(id)).await.unwrap().id;
    let (one, other, third) = (of(8).await, of(9).await, of(10).await);
    let change = async |ledger: &Ledger, id: Uuid, medium: Value| {
        let body = json!({"medium": medium});
        ledger.submit(World::submission("segment", id, "change", body)).await
    };
    assert_eq!(code(change(&there, one, vlan(10)).await), "in-use");
    world.send("segment", third, "retire", json!({})).await.unwrap();
    world.caught_up().await;
    let both = join(change(&world.ledger, one, vlan(10)), change(&there, other, vlan(10))).await;
    let both = [both.0, both.1];
    assert_eq!(both.iter().filter(|one| one.is_ok()).count(), 1, "{both:?}");
    let (winner, loser) = if both[0].is_ok() { (one, other) } else { (other, one) };
    world.caught_up().await;
    // What was given up so is to be had, and comes back to who had it before.
    let freed = if winner == one { 8 } else { 9 };
    change(&there, loser, vlan(freed)).await.unwrap();
    world.caught_up().await;
    assert_eq!(code(change(&there, winner, vlan(freed)).await), "in-use");
    change(&world.ledger, loser, vlan(11)).await.unwrap();
    world.caught_up().await;
    change(&there, winner, vlan(freed)).await.unwrap();
}
