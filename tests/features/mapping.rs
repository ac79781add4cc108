//! Security groups, mapped one to one.

use adapters_sim::{Fault, Matching, Op};
use commands::ledger::Ledger;
use domain::network::security_group::{Rule, SecurityGroup};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, group, small};

pub(crate) const REGION: &str = "sim-north-1";

pub(crate) async fn a_vpc(world: &World) -> String {
    let rows = world.rows("vpc").await;
    let row = rows.iter().find(|row| row.body["region"] == REGION).unwrap();
    row.body["external_id"].as_str().unwrap().to_owned()
}

/// Declares a group and lets it be made.
pub(crate) async fn declared(world: &World, ports: &[u16]) -> Uuid {
    let vpc = a_vpc(world).await;
    let body =
        json!({"account": world.account, "region": REGION, "spec": group("web", &vpc, ports)});
    let id = world.send("security-group", None, "declare", body).await.unwrap().id;
    world.settle().await;
    id
}

pub(crate) fn rule(port: u16) -> Rule {
    serde_json::from_value(json!({
        "direction": "ingress", "protocol": "tcp", "ports": port.to_string(),
        "peer": {"cidr": "192.0.2.0/24"},
    }))
    .unwrap()
}

/// What the cloud really has.
pub(crate) async fn in_cloud(world: &World, id: Uuid) -> SecurityGroup {
    let external_id = world.row(id).await["external_id"].as_str().unwrap().to_owned();
    world.sim.console("acme", "auditor").group(REGION, &external_id).unwrap()
}

pub(crate) fn ports(group: &SecurityGroup) -> Vec<u16> {
    let mut ports: Vec<u16> =
        group.rules.iter().filter_map(|rule| rule.ports).map(|ports| ports.from).collect();
    ports.sort_unstable();
    ports
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_group_gets_one_counterpart_with_its_rules() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80, 443]).await;
    assert_eq!(world.row(id).await["status"], "linked");
    assert_eq!(ports(&in_cloud(&world, id).await), [80, 443]);
    // The next look does not take it for something new.
    let scopes = world.sync(json!({"kinds": ["security-group"]})).await;
    assert!(scopes.iter().all(|scope| scope["discovered"] == 0 && scope["changed"] == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_shown_by_field_and_with_its_actor_and_never_put_right_silently() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let external_id = world.row(id).await["external_id"].as_str().unwrap().to_owned();
    world.sim.console("acme", "mallory").add_rule(REGION, &external_id, &rule(22)).unwrap();
    world.sync(json!({})).await;
    world.sync(json!({})).await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "drifted");
    assert_eq!(row["drift"].as_array().unwrap().len(), 1, "{row}");
    assert_eq!(row["drift"][0]["field"], "rules.ingress tcp 22 192.0.2.0/24");
    assert_eq!(row["drift"][0]["wanted"], Value::Null);
    assert_eq!(row["state"]["seen_by"], "mallory");
    assert_eq!(ports(&in_cloud(&world, id).await), [22, 80], "nothing was removed");
    let drifted = world.history("security-group", id).await;
    let count = drifted.iter().filter(|record| record.event_type() == "drifted").count();
    assert_eq!(count, 1, "the same drift is one event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_rule_survives_our_change_and_only_reapply_removes_it() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let external_id = world.row(id).await["external_id"].as_str().unwrap().to_owned();
    world.sim.console("acme", "mallory").add_rule(REGION, &external_id, &rule(22)).unwrap();
    world.sync(json!({})).await;

    let vpc = a_vpc(&world).await;
    let body = json!({"spec": group("web", &vpc, &[443])});
    world.send("security-group", id, "declare", body).await.unwrap();
    world.settle().await;
    assert_eq!(ports(&in_cloud(&world, id).await), [22, 443], "80 was ours, 22 is not");
    assert_eq!(world.row(id).await["status"], "drifted");

    world.send("security-group", id, "reapply", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(ports(&in_cloud(&world, id).await), [443]);
    assert_eq!(world.row(id).await["status"], "linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_can_be_accepted_or_muted_and_a_muted_one_wakes_when_it_changes() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let external_id = world.row(id).await["external_id"].as_str().unwrap().to_owned();
    let console = world.sim.console("acme", "mallory");
    console.add_rule(REGION, &external_id, &rule(22)).unwrap();
    world.sync(json!({})).await;

    world.send("security-group", id, "mute", json!({"reason": "known"})).await.unwrap();
    world.sync(json!({})).await;
    assert_eq!(world.row(id).await["status"], "muted");
    console.add_rule(REGION, &external_id, &rule(23)).unwrap();
    world.sync(json!({})).await;
    assert_eq!(world.row(id).await["status"], "drifted");

    world.send("security-group", id, "accept", json!({})).await.unwrap();
    assert_eq!(world.row(id).await["status"], "linked");
    world.sync(json!({})).await;
    assert_eq!(world.row(id).await["status"], "linked");
    assert_eq!(ports(&in_cloud(&world, id).await), [22, 23, 80]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_cloud_rejects_is_parked_and_goes_on_when_it_is_retried() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let rejected = world
        .sim
        .faults()
        .inject(Matching::op(Op::AddRule), Fault::Rejected("quota of rules reached".into()));
    let vpc = a_vpc(&world).await;
    let body = json!({"spec": group("web", &vpc, &[443])});
    world.send("security-group", id, "declare", body).await.unwrap();
    world.settle().await;
    assert_eq!(rejected.hits(), 1);
    let row = world.row(id).await;
    assert_eq!(row["status"], "parked");
    assert!(row["order"]["parked"].as_str().unwrap().contains("quota of rules"), "{row}");
    assert_eq!(ports(&in_cloud(&world, id).await), [80], "nothing was removed before the adding");

    world.send("security-group", id, "retry", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "linked");
    assert_eq!(ports(&in_cloud(&world, id).await), [443]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_checked_before_anything_is_written() {
    let world = World::synced(small()).await;
    let vpc = a_vpc(&world).await;
    let head = world.log.head().await.unwrap();
    let many: Vec<u16> = (1..=900).collect();
    let body = json!({
        "account": world.account, "region": REGION, "spec": group("web", &vpc, &many),
    });
    let refused = world.send("security-group", None, "declare", body).await.unwrap_err();
    assert!(refused.to_string().contains("rules"), "{refused}");
    assert_eq!(world.log.head().await.unwrap(), head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_declared_in_a_region_that_the_account_has() {
    let world = World::synced(small()).await;
    let vpc = a_vpc(&world).await;
    let spec = group("web", &vpc, &[80]);
    let head = world.log.head().await.unwrap();
    for body in [
        json!({"account": world.account, "spec": spec}),
        json!({"account": world.account, "region": "sim-nowhere-1", "spec": spec}),
    ] {
        let refused = world.send("security-group", None, "declare", body).await.unwrap_err();
        assert!(refused.to_string().starts_with("region: "), "{refused}");
    }
    assert_eq!(world.log.head().await.unwrap(), head);
    let id = declared(&world, &[80]).await;
    let refused = world.send("security-group", id, "retire", json!({"nowhere": true})).await;
    assert!(refused.unwrap_err().to_string().starts_with("nowhere: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_lies_nowhere_can_be_ended() {
    let world = World::synced(small()).await;
    let vpc = a_vpc(&world).await;
    for region in [json!("sim-nowhere-1"), Value::Null] {
        let spec = group("web", &vpc, &[80]);
        let body = json!({"account": world.account, "region": region, "spec": spec});
        // As a log from before regions were checked has it.
        let mut declare = World::submission("security-group", None, "declare", body);
        declare.principal = Ledger::system("test");
        let id = world.ledger.submit(declare).await.unwrap().id;
        world.settle().await;
        assert_eq!(world.row(id).await["status"], "parked");
        world.send("security-group", id, "abandon", json!({})).await.unwrap();
        world.send("security-group", id, "retire", json!({})).await.unwrap();
        assert_eq!(world.row(id).await["status"], "retired");
    }
}
