//! What a person can answer to what the cloud did to a security group, and what then is there.

use std::time::Duration;

use adapters_sim::{Body, Console, Fault, Matching, Op};
use chrono::TimeDelta;
use commands::ports::Clock;
use domain::network::security_group::{Rule, SecurityGroup};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    mapping::{REGION, a_vpc, declared, in_cloud, ports, rule},
    world::{World, group, id_of, small},
};

const GROUP: &str = "security-group";

/// A world, a group of it that is linked, its external id, and somebody at the console.
async fn linked(ports: &[u16]) -> (World, Uuid, String, Console) {
    let world = World::synced(small()).await;
    let id = declared(&world, ports).await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "linked");
    let external_id = row["external_id"].as_str().unwrap().to_owned();
    let console = world.sim.console("acme", "mallory");
    (world, id, external_id, console)
}

/// Sends a command that is not refused, and lets its order be worked on; the row then.
async fn answer(world: &World, id: Uuid, verb: &str, body: Value) -> Value {
    world.send(GROUP, id, verb, body).await.unwrap();
    world.settle().await;
    world.row(id).await
}

/// What is seen at the next look.
async fn seen(world: &World, id: Uuid) -> Value {
    world.sync(json!({"kinds": [GROUP]})).await;
    world.row(id).await
}

async fn wish(world: &World, id: Uuid, ports: &[u16]) -> Value {
    let vpc = a_vpc(world).await;
    answer(world, id, "declare", json!({"spec": group("web", &vpc, ports)})).await
}

fn drifts(row: &Value) -> Vec<&str> {
    row["drift"].as_array().unwrap().iter().map(|one| one["field"].as_str().unwrap()).collect()
}

/// The rule of [`group`] with this port, as the console says it.
fn ours(port: u16) -> Rule {
    let spec: SecurityGroup = serde_json::from_value(group("web", "vpc", &[port])).unwrap();
    spec.rules[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovered_group_can_be_adopted_changed_and_retired() {
    let world = World::synced(small()).await;
    let vpc = a_vpc(&world).await;
    let theirs: SecurityGroup = serde_json::from_value(group("web", &vpc, &[22, 80])).unwrap();
    let console = world.sim.console("acme", "mallory");
    let external_id = console.create(REGION, Body::SecurityGroup(theirs)).unwrap();
    world.sync(json!({})).await;
    let row = world.external(GROUP, &external_id).await;
    let id = id_of(&row);
    assert_eq!(row["status"], "discovered");
    assert_eq!(answer(&world, id, "adopt", json!({})).await["status"], "linked");
    assert_eq!(wish(&world, id, &[80, 443]).await["status"], "linked");
    assert_eq!(ports(&console.group(REGION, &external_id).unwrap()), [80, 443]);
    assert_eq!(answer(&world, id, "retire", json!({})).await["status"], "retired");
    assert_eq!(console.get(REGION, GROUP, &external_id).unwrap(), None);
}

/// A discovered group that guards a server, adopted: the sim does not delete it.
async fn guarding(world: &World) -> (Uuid, String) {
    let servers = world.rows("server").await;
    let guard = |row: &commands::ports::Row| {
        let groups = &row.body["state"]["observation"]["seen"]["security_groups"];
        let here = row.body["region"] == REGION;
        groups[0].as_str().filter(|_| here).map(str::to_owned)
    };
    let external_id = servers.iter().find_map(guard).unwrap();
    let id = id_of(&world.external(GROUP, &external_id).await);
    assert_eq!(answer(world, id, "adopt", json!({})).await["status"], "linked");
    (id, external_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_guards_a_server_is_kept_and_its_retirement_can_be_given_up() {
    let world = World::synced(small()).await;
    let (id, external_id) = guarding(&world).await;
    let row = answer(&world, id, "retire", json!({})).await;
    assert_eq!(row["status"], "parked");
    assert!(row["order"]["parked"].as_str().unwrap().starts_with("rejected: "), "{row}");
    assert_eq!(answer(&world, id, "abandon", json!({})).await["status"], "linked");
    let there = world.sim.console("acme", "auditor").get(REGION, GROUP, &external_id).unwrap();
    assert!(there.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_retirement_ends_when_somebody_else_deletes_the_group() {
    let world = World::synced(small()).await;
    let (id, external_id) = guarding(&world).await;
    assert_eq!(answer(&world, id, "retire", json!({})).await["status"], "parked");
    world.sim.console("acme", "mallory").delete(REGION, GROUP, &external_id).unwrap();
    let row = seen(&world, id).await;
    assert_eq!((&row["status"], &row["order"]), (&json!("retired"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_change_does_not_hide_that_the_group_was_deleted() {
    let (world, id, external_id, console) = linked(&[80]).await;
    let quota = Fault::Rejected("quota of rules reached".into());
    let rejected = world.sim.faults().inject(Matching::op(Op::AddRule), quota);
    assert_eq!(wish(&world, id, &[443]).await["status"], "parked");
    assert_eq!(rejected.hits(), 1);
    console.delete(REGION, GROUP, &external_id).unwrap();
    let row = seen(&world, id).await;
    assert_eq!((&row["status"], &row["order"]), (&json!("vanished"), &Value::Null));
    let row = answer(&world, id, "reapply", json!({})).await;
    assert_eq!(row["status"], "linked");
    assert_ne!(row["external_id"], json!(external_id), "it was made again");
    assert_eq!(ports(&in_cloud(&world, id).await), [443]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_abandoned_change_has_made_is_still_ours() {
    let (world, id, external_id, console) = linked(&[80]).await;
    let quota = Fault::Rejected("quota of rules reached".into());
    let rejected = world.sim.faults().inject(Matching::op(Op::AddRule).nth(2), quota);
    assert_eq!(wish(&world, id, &[80, 443, 8443]).await["status"], "parked");
    assert_eq!(rejected.hits(), 1);
    answer(&world, id, "abandon", json!({})).await;
    console.add_rule(REGION, &external_id, &rule(22)).unwrap();
    let row = seen(&world, id).await;
    assert_eq!(row["status"], "drifted");
    let half = ports(&in_cloud(&world, id).await);
    assert_eq!(half.len(), 3, "22 is theirs, 80 and one more are ours: {half:?}");
    wish(&world, id, &[80]).await;
    assert_eq!(ports(&in_cloud(&world, id).await), [22, 80]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reapply_puts_back_what_is_ours_and_may_keep_what_is_not() {
    let (world, id, external_id, console) = linked(&[80, 443]).await;
    console.remove_rule(REGION, &external_id, &ours(80)).unwrap();
    console.add_rule(REGION, &external_id, &rule(22)).unwrap();
    assert_eq!(seen(&world, id).await["status"], "drifted");
    let row = answer(&world, id, "reapply", json!({"keep_foreign": true})).await;
    assert_eq!(ports(&in_cloud(&world, id).await), [22, 80, 443]);
    assert_eq!(row["status"], "drifted");
    assert_eq!(drifts(&row), ["rules.ingress tcp 22 192.0.2.0/24"]);
    let row = answer(&world, id, "reapply", json!({"keep_foreign": false})).await;
    assert_eq!(ports(&in_cloud(&world, id).await), [80, 443]);
    assert_eq!(row["status"], "linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_that_was_changed_is_drift_of_that_rule_alone() {
    let (world, id, external_id, console) = linked(&[80, 443]).await;
    console.remove_rule(REGION, &external_id, &ours(80)).unwrap();
    let told = Rule { description: "mine".into(), ..ours(80) };
    console.add_rule(REGION, &external_id, &told).unwrap();
    let row = seen(&world, id).await;
    assert_eq!(row["status"], "drifted");
    assert_eq!(drifts(&row), ["rules.ingress tcp 80 10.0.0.0/8"]);
    assert_eq!(row["drift"][0]["seen"]["description"], "mine");
    assert_eq!(answer(&world, id, "reapply", json!({})).await["status"], "linked");
    let rules = in_cloud(&world, id).await.rules;
    assert!(rules.iter().all(|rule| rule.description.is_empty()), "{rules:?}");
    assert_eq!(rules.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_renamed_gets_its_name_back() {
    let (world, id, external_id, console) = linked(&[80]).await;
    console.rename(REGION, GROUP, &external_id, "theirs").unwrap();
    let row = seen(&world, id).await;
    assert_eq!((&row["status"], drifts(&row)), (&json!("drifted"), vec!["name"]));
    assert_eq!(answer(&world, id, "reapply", json!({})).await["status"], "linked");
    assert_eq!(in_cloud(&world, id).await.name, "web");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_ends_at_its_time_or_when_a_person_says_so() {
    let (world, id, external_id, console) = linked(&[80]).await;
    console.add_rule(REGION, &external_id, &rule(22)).unwrap();
    assert_eq!(seen(&world, id).await["status"], "drifted");
    let until = world.clock.now() + TimeDelta::hours(1);
    let mute = json!({"reason": "until the release", "until": until});
    assert_eq!(answer(&world, id, "mute", mute).await["status"], "muted");
    assert_eq!(seen(&world, id).await["status"], "muted");
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(seen(&world, id).await["status"], "drifted");

    let mute = json!({"reason": "known"});
    assert_eq!(answer(&world, id, "mute", mute).await["status"], "muted");
    assert_eq!(answer(&world, id, "unmute", json!({})).await["status"], "drifted");
    let refused = world.send(GROUP, id, "unmute", json!({})).await.unwrap_err();
    assert!(refused.to_string().contains("drifted"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_the_rules_that_it_replaces() {
    let few: Vec<u16> = (1..=150).collect();
    let (world, id, ..) = linked(&few).await;
    let others: Vec<u16> = (1_000..1_100).collect();
    let vpc = a_vpc(&world).await;
    let head = world.log.head().await.unwrap();
    let body = json!({"spec": group("web", &vpc, &others)});
    let refused = world.send(GROUP, id, "declare", body).await.unwrap_err();
    assert!(refused.to_string().contains("there would be 250"), "{refused}");
    assert_eq!(world.log.head().await.unwrap(), head);
    assert_eq!(wish(&world, id, &others[..50]).await["status"], "linked");
    assert_eq!(in_cloud(&world, id).await.rules.len(), 50);
}
