//! Plans: what a command would do, bound to what it was decided on.

use commands::submit::SubmitFault;
use serde_json::json;

use crate::{
    mapping::declared,
    world::{World, group, small},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_writes_nothing_and_says_everything() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let vpc = world.row(id).await["state"]["wanted"]["vpc"].as_str().unwrap().to_owned();
    let head = world.log.head().await.unwrap();
    let change = World::submission(
        "security-group",
        id,
        "declare",
        json!({"spec": group("web", &vpc, &[443])}),
    );
    let plan = world.ledger.plan(&change).await.unwrap();
    assert_eq!(world.log.head().await.unwrap(), head);
    assert_eq!(plan.events[0].event_type, "spec-declared");
    assert_eq!(plan.status, ["linked", "applying"]);
    assert!(!plan.calls.is_empty() && !plan.diff.is_empty(), "{plan:?}");
    assert_eq!(plan.touches, [format!("security-group/{id}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_carried_out_when_nothing_moved_and_refused_when_something_did() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let vpc = world.row(id).await["state"]["wanted"]["vpc"].as_str().unwrap().to_owned();
    let mut change = World::submission(
        "security-group",
        id,
        "declare",
        json!({"spec": group("web", &vpc, &[443])}),
    );
    let stale = world.ledger.plan(&change).await.unwrap();
    world.send("security-group", id, "assign", json!({"project": null})).await.unwrap();
    let other = json!({"spec": group("web", &vpc, &[8080])});
    world.send("security-group", id, "declare", other).await.unwrap();
    world.settle().await;

    let head = world.log.head().await.unwrap();
    change.plan_id = Some(stale.plan_id);
    let refused = world.ledger.submit(change.clone()).await.unwrap_err();
    let SubmitFault::Stale(moved) = refused else { panic!("{refused:?}") };
    assert_eq!(moved[0].kind, "security-group");
    assert_eq!(moved[0].id, id.to_string());
    assert_eq!(world.log.head().await.unwrap(), head, "nothing was written");

    change.plan_id = None;
    let fresh = world.ledger.plan(&change).await.unwrap();
    change.plan_id = Some(fresh.plan_id);
    world.ledger.submit(change).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_account_makes_a_plan_stale() {
    let world = World::synced(small()).await;
    let id = declared(&world, &[80]).await;
    let vpc = world.row(id).await["state"]["wanted"]["vpc"].as_str().unwrap().to_owned();
    let body = json!({"spec": group("web", &vpc, &[443])});
    let mut change = World::submission("security-group", id, "declare", body);
    change.plan_id = Some(world.ledger.plan(&change).await.unwrap().plan_id);
    // Another sync run is news of the account, but none that the plan asked for.
    world.sync(json!({})).await;
    let before = world.ledger.plan(&change.clone()).await.unwrap();
    assert_eq!(before.status[1], "applying");
    world.send("cloud-account", world.account, "pause", json!({})).await.unwrap();
    let refused = world.ledger.submit(change).await.unwrap_err();
    assert!(refused.to_string().contains("not ready"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_of_another_command_is_refused() {
    let world = World::empty(small());
    let one = World::submission("project", None, "create", json!({"name": "one"}));
    let plan = world.ledger.plan(&one).await.unwrap();
    let mut two = World::submission("project", None, "create", json!({"name": "two"}));
    two.plan_id = Some(plan.plan_id.clone());
    assert!(matches!(world.ledger.submit(two).await, Err(SubmitFault::PlanOfAnother)));
    let mut same = one;
    same.plan_id = Some(plan.plan_id);
    let outcome = world.ledger.submit(same).await.unwrap();
    assert_eq!(outcome.id.to_string(), plan.id, "the plan said which id it would have");
}
