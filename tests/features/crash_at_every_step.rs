//! The runner dies at every step of every order, once; the next one goes on, and the counterpart is
//! there once. Each test counts that every death was really died.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use adapters_sim::{Fault, Matching, Outcome};
use commands::run_orders::{Probe, Step};
use domain::kernel::OrderKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    mapping::declared,
    world::{SECRET, World, group, small},
};

const STEPS: [Step; 3] = [Step::BeforeCall, Step::AfterCall, Step::AfterReport];

/// Dies once at every step of every order.
#[derive(Default)]
struct Mortal {
    died: Mutex<BTreeSet<(OrderKey, Step)>>,
}

impl Probe for Mortal {
    fn dies(&self, step: Step, key: &OrderKey) -> bool {
        self.died.lock().unwrap().insert((key.clone(), step))
    }
}

impl Mortal {
    /// Which steps of orders of this stream were died at.
    fn steps(&self, id: Uuid) -> Vec<Step> {
        let died = self.died.lock().unwrap();
        let id = id.to_string();
        died.iter().filter(|(key, _)| key.stream.id == id).map(|(_, step)| *step).collect()
    }
}

async fn dying(world: &World, id: Uuid) {
    let mortal = Arc::new(Mortal::default());
    world.settle_with(Some(mortal.clone())).await;
    // After the report nothing is out any more, so that lease is simply left to end.
    assert_eq!(mortal.steps(id), STEPS, "every death was died");
}

/// How many groups of this name the cloud really has, in all regions.
fn groups_named(world: &World, name: &str) -> usize {
    let console = world.sim.console("acme", "auditor");
    let mut count = 0;
    for region in small().regions() {
        for id in console.ids(&region, "security-group").unwrap() {
            count += usize::from(console.group(&region, &id).unwrap().name == name);
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_verified_and_synced_through_deaths() {
    let world = World::empty(small());
    let body = json!({
        "name": "acme", "provider": "sim",
        "credential": {"account": "acme", "secret": SECRET},
    });
    world.send("cloud-account", world.account, "connect", body).await.unwrap();
    dying(&world, world.account).await;
    assert_eq!(world.row(world.account).await["status"], "connected");

    world.send("cloud-account", world.account, "sync", json!({})).await.unwrap();
    dying(&world, world.account).await;
    let mut external: Vec<Value> = Vec::new();
    for kind in ["disk", "network", "security-group", "server", "vpc"] {
        external.extend(world.rows(kind).await.iter().map(|row| row.body["external_id"].clone()));
    }
    let count = external.len();
    external.sort_by_key(ToString::to_string);
    external.dedup();
    assert_eq!(external.len(), count, "everything is known once");
    assert_eq!(count, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_security_group_is_created_changed_and_deleted_through_deaths() {
    let world = World::synced(small()).await;
    let vpc = world.rows("vpc").await.remove(0).body;
    let (vpc, region) = (vpc["external_id"].as_str().unwrap(), vpc["region"].clone());
    let body = json!({
        "account": world.account, "region": region, "spec": group("through-deaths", vpc, &[80, 443]),
    });
    let id = world.send("security-group", None, "declare", body).await.unwrap().id;
    dying(&world, id).await;
    assert_eq!(world.row(id).await["status"], "linked");
    assert_eq!(groups_named(&world, "through-deaths"), 1);

    let body = json!({"spec": group("through-deaths", vpc, &[443, 8080])});
    world.send("security-group", id, "declare", body).await.unwrap();
    dying(&world, id).await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "linked");
    assert_eq!(row["state"]["seen"], row["state"]["wanted"]);
    assert_eq!(groups_named(&world, "through-deaths"), 1);

    world.send("security-group", id, "retire", json!({})).await.unwrap();
    dying(&world, id).await;
    assert_eq!(world.row(id).await["status"], "retired");
    assert_eq!(groups_named(&world, "through-deaths"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_stopped_started_rebooted_and_tagged_through_deaths() {
    let world = World::synced(small()).await;
    let rows = world.rows("server").await;
    let running = rows.iter().find(|row| row.body["status"] == "running").unwrap();
    let id: Uuid = running.key.parse().unwrap();
    for (verb, body, status) in [
        ("reboot", json!({}), "running"),
        ("stop", json!({}), "stopped"),
        ("start", json!({}), "running"),
        ("tag", json!({"tags": {"owner": "shop"}}), "running"),
    ] {
        world.send("server", id, verb, body).await.unwrap();
        dying(&world, id).await;
        assert_eq!(world.row(id).await["status"], status, "after {verb}");
    }
    assert_eq!(world.row(id).await["tags"]["owner"], "shop");
}

/// Every single call of creating and of changing a group fails once, undone and done, and the end
/// is the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_change_fails_once_and_the_end_is_the_same() {
    for fault in [Fault::Transient, Fault::AnswerLost] {
        // How many calls there are is counted first, in a run without faults.
        let calls = {
            let world = World::synced(small()).await;
            world.sim.clear_trace();
            declared(&world, &[80, 443]).await;
            world.sim.trace().len() as u64
        };
        assert!(calls >= 3, "create and two rules at least, not {calls}");
        for nth in 1..=calls {
            let world = World::synced(small()).await;
            world.sim.clear_trace();
            let injected = world.sim.faults().inject(Matching::any().nth(nth), fault.clone());
            let id = declared(&world, &[80, 443]).await;
            assert_eq!(injected.hits(), 1, "call {nth} of {calls}");
            let row = world.row(id).await;
            assert_eq!(row["status"], "linked", "{fault:?} at call {nth}");
            assert_eq!(row["state"]["seen"], row["state"]["wanted"]);
            assert_eq!(groups_named(&world, "web"), 1, "{fault:?} at call {nth}");
            let created = world
                .sim
                .trace()
                .iter()
                .filter(|call| {
                    call.seen.op == adapters_sim::Op::CreateSecurityGroup
                        && matches!(call.outcome, Outcome::Done)
                })
                .count();
            assert!(created <= 1);
        }
    }
}
