//! The runner dies at every step of every order, once; the next one goes on, and the counterpart is
//! there once. Each test counts that every death was really died.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use adapters_sim::{Fault, Matching, Op, Outcome};
use commands::{
    ports::Support,
    run_orders::{Probe, Step},
};
use domain::kernel::OrderKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    mapping::declared,
    world::{SECRET, World, group, id_of, small},
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

/// Carries out the order that is out, dying once at each of its steps.
async fn dying(world: &World, id: Uuid, order: &str) {
    assert_eq!(world.row(id).await["order"]["order"]["type"], order, "what is out is the order");
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
    dying(&world, world.account, "verify").await;
    assert_eq!(world.row(world.account).await["status"], "connected");

    world.send("cloud-account", world.account, "sync", json!({})).await.unwrap();
    dying(&world, world.account, "sync").await;
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

/// What is to be carried out, and what must have come of it.
async fn scenario(world: &World, kind: &str, order: &str) {
    match (kind, order) {
        ("security-group", "create") => {
            let id = declare(world, "through-deaths").await;
            dying(world, id, order).await;
            assert_eq!(world.row(id).await["status"], "linked");
            assert_eq!(groups_named(world, "through-deaths"), 1);
        }
        ("security-group", "apply") => {
            let id = declared(world, &[80, 443]).await;
            change(world, id).await;
            dying(world, id, order).await;
            let row = world.row(id).await;
            assert_eq!(row["status"], "linked");
            assert_eq!(row["state"]["seen"], row["state"]["wanted"]);
            assert_eq!(groups_named(world, "web"), 1);
        }
        ("security-group", "delete") => {
            let id = declared(world, &[80, 443]).await;
            world.send("security-group", id, "retire", json!({})).await.unwrap();
            dying(world, id, order).await;
            assert_eq!(world.row(id).await["status"], "retired");
            assert_eq!(groups_named(world, "web"), 0);
        }
        ("server", _) => {
            let (verb, body, from, to) = match order {
                "reboot" => ("reboot", json!({}), "running", "running"),
                "set-tags" => ("tag", json!({"tags": {"owner": "shop"}}), "running", "running"),
                "start" => ("start", json!({}), "stopped", "running"),
                "stop" => ("stop", json!({}), "running", "stopped"),
                other => panic!("no scenario lets a server's {other} die"),
            };
            let rows = world.rows("server").await;
            let row = &rows.iter().find(|row| row.body["status"] == from).unwrap().body;
            let text = |field: &str| row[field].as_str().unwrap();
            let (id, region, external_id) = (id_of(row), text("region"), text("external_id"));
            world.send("server", id, verb, body).await.unwrap();
            dying(world, id, order).await;
            let row = world.row(id).await;
            assert_eq!(row["status"], to);
            let reboots =
                world.sim.console("acme", "auditor").reboots(region, external_id).unwrap();
            assert_eq!(reboots, u64::from(order == "reboot"), "restarted once by a reboot alone");
            if order == "set-tags" {
                assert_eq!(row["tags"]["owner"], "shop");
            }
        }
        other => panic!("no scenario lets {other:?} die"),
    }
}

/// Declares a group and leaves its order out.
async fn declare(world: &World, name: &str) -> Uuid {
    let vpc = world.rows("vpc").await.remove(0).body;
    let body = json!({
        "account": world.account,
        "region": vpc["region"],
        "spec": group(name, vpc["external_id"].as_str().unwrap(), &[80, 443]),
    });
    world.send("security-group", None, "declare", body).await.unwrap().id
}

/// Takes a port away from the group and adds one, and leaves its order out.
async fn change(world: &World, id: Uuid) {
    let mut spec = world.row(id).await["state"]["wanted"].clone();
    let new = group("web", spec["vpc"].as_str().unwrap(), &[443, 8080]);
    spec["rules"] = new["rules"].clone();
    world.send("security-group", id, "declare", json!({"spec": spec})).await.unwrap();
}

/// Which orders there are is what the providers' tables say: one that nobody lets die here has no
/// scenario, and fails.
#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_the_table_is_carried_out_through_deaths() {
    let of = |table: &[Support]| -> BTreeSet<(&'static str, &'static str)> {
        let rows = table.iter().flat_map(|row| row.orders.iter().map(|order| (row.kind, *order)));
        rows.collect()
    };
    let orders = of(adapters_sim::TABLE);
    for provider in adapters_clouds::providers() {
        // Whoever carries out a move dies at every step of each of its orders in `move_ins`.
        let table = of(provider.table()).into_iter().filter(|(kind, _)| *kind != "move-in");
        let beyond: Vec<_> = table.filter(|order| !orders.contains(order)).collect();
        assert!(beyond.is_empty(), "the sim lacks what {} can: {beyond:?}", provider.name());
    }
    for (kind, order) in orders {
        scenario(&World::synced(small()).await, kind, order).await;
    }
}

/// Every single call of each order of a group fails once, undone and done, and the end is the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_an_order_fails_once_and_the_end_is_the_same() {
    for order in ["apply", "create", "delete"] {
        for fault in [Fault::Transient, Fault::AnswerLost] {
            // How many calls there are is counted first, in a run without faults.
            let calls = calls_of(order, None).await;
            // A deletion is one call; the others look, write and look again.
            let least = if order == "delete" { 1 } else { 3 };
            assert!(calls >= least, "{order} takes {calls} calls");
            for nth in 1..=calls {
                calls_of(order, Some((nth, fault.clone()))).await;
            }
        }
    }
}

/// Carries an order of a group out, with one call of it failing; gives how many calls it took.
async fn calls_of(order: &str, failing: Option<(u64, Fault)>) -> u64 {
    let world = World::synced(small()).await;
    let id = match order {
        "create" => declare(&world, "web").await,
        _ => declared(&world, &[80, 443]).await,
    };
    match order {
        "apply" => change(&world, id).await,
        "delete" => {
            world.send("security-group", id, "retire", json!({})).await.unwrap();
        }
        _ => {}
    }
    assert_eq!(world.row(id).await["order"]["order"]["type"], order);
    world.sim.clear_trace();
    let told = format!("{order}, {failing:?}");
    let injected =
        failing.map(|(nth, fault)| world.sim.faults().inject(Matching::any().nth(nth), fault));
    world.settle().await;
    if let Some(injected) = injected {
        assert_eq!(injected.hits(), 1, "{told}");
    }
    let trace = world.sim.trace();
    let row = world.row(id).await;
    let gone = order == "delete";
    assert_eq!(row["status"], if gone { "retired" } else { "linked" }, "{told}");
    assert_eq!(groups_named(&world, "web"), usize::from(!gone), "{told}");
    if !gone {
        assert_eq!(row["state"]["seen"], row["state"]["wanted"], "{told}");
    }
    let done = |op: Op| {
        let really = |call: &&adapters_sim::Traced| {
            call.seen.op == op && matches!(call.outcome, Outcome::Done | Outcome::DoneUnanswered)
        };
        trace.iter().filter(really).count()
    };
    assert_eq!(done(Op::CreateSecurityGroup), usize::from(order == "create"), "{told}");
    // To delete what is gone already does nothing.
    assert_eq!(done(Op::DeleteSecurityGroup) > 0, gone, "{told}");
    trace.len() as u64
}
