//! Plans: what a command would do, bound to what it was decided on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use commands::{
    ledger::{Ledger, Ports},
    submit::SubmitFault,
};
use domain::kernel::Reach;
use futures::FutureExt;
use serde_json::json;
use uuid::Uuid;

use crate::{
    between::Between,
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
    let head = world.log.head().await.unwrap();
    let refused = world.ledger.submit(change.clone()).await.unwrap_err();
    let SubmitFault::Stale(moved) = refused else { panic!("{refused:?}") };
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert_eq!(
        (moved[0].kind.as_str(), moved[0].id.clone()),
        ("cloud-account", world.account.to_string())
    );
    assert_eq!(world.log.head().await.unwrap(), head, "nothing was written");
    // Without the plan it is the rule that says no.
    change.plan_id = None;
    let refused = world.ledger.submit(change).await.unwrap_err();
    assert!(matches!(&refused, SubmitFault::Refused(no) if no.code.status == 409), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_project_makes_a_plan_stale() {
    let world = World::synced(small()).await;
    let shop = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let vpc = world.rows("vpc").await.remove(0).body;
    let body = json!({
        "account": world.account, "region": vpc["region"], "project": shop,
        "spec": group("web", vpc["external_id"].as_str().unwrap(), &[80]),
    });
    let mut declare = World::submission("security-group", None, "declare", body);
    declare.plan_id = Some(world.ledger.plan(&declare).await.unwrap().plan_id);
    world.send("project", shop, "archive", json!({})).await.unwrap();
    let refused = world.ledger.submit(declare.clone()).await.unwrap_err();
    let SubmitFault::Stale(moved) = refused else { panic!("{refused:?}") };
    let only = &moved[..];
    assert!(
        matches!(only, [one] if one.kind == "project" && one.id == shop.to_string()),
        "{only:?}"
    );
    assert_eq!((only[0].saw.as_str(), only[0].found.as_str()), ("active", "archived"));
    // Somebody who does not reach the project any more is told that, and nothing else.
    declare.principal.reach = Reach::Projects([Uuid::nil()].into());
    let refused = world.ledger.submit(declare).await.unwrap_err();
    assert!(matches!(&refused, SubmitFault::Refused(no) if no.code.status == 403), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_between_decision_and_append_is_not_missed() {
    let world = World::synced(small()).await;
    let shop = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let vpc = world.rows("vpc").await.remove(0).body;
    let body = json!({
        "account": world.account, "region": vpc["region"], "project": shop,
        "spec": group("web", vpc["external_id"].as_str().unwrap(), &[80]),
    });
    let declare = World::submission("security-group", None, "declare", body);
    for (kind, id, verb, back, code) in [
        ("cloud-account", world.account, "pause", "resume", "account-not-ready"),
        ("project", shop, "archive", "restore", "invalid-field"),
    ] {
        for planned in [false, true] {
            let first = (world.ledger.clone(), World::submission(kind, id, verb, json!({})));
            let first = Mutex::new(Some(first));
            let between = Between::new(world.log.clone(), move |_| {
                let first = first.lock().unwrap().take();
                async move {
                    if let Some((ledger, submission)) = first {
                        ledger.submit(submission).await.unwrap();
                    }
                    Ok(())
                }
                .boxed()
            });
            // Another server on the same log.
            let ports = Ports { log: Arc::new(between), ..world.ledger.ports.clone() };
            let mut declare = declare.clone();
            if planned {
                declare.plan_id = Some(world.ledger.plan(&declare).await.unwrap().plan_id);
            }
            let refused = Ledger::new(ports).submit(declare).await.unwrap_err();
            match &refused {
                SubmitFault::Stale(moved) if planned => assert_eq!(moved[0].kind, kind),
                SubmitFault::Refused(no) if !planned => assert_eq!(no.code.code, code),
                other => panic!("{verb}, planned: {planned}: {other:?}"),
            }
            world.send(kind, id, back, json!({})).await.unwrap();
        }
    }
    assert_eq!(
        world.rows("security-group").await.iter().filter(|row| row.body["name"] == "web").count(),
        0
    );
}

/// The account's stream is looked at by each of its declares, and written by none: they do not
/// stand in each other's way, not even while somebody keeps writing to the account.
#[tokio::test(flavor = "multi_thread")]
async fn declares_on_one_account_do_not_lose_races_to_each_other_or_to_its_news() {
    const DECLARES: usize = 32;
    let world = Arc::new(World::synced(small()).await);
    let vpc = world.rows("vpc").await.remove(0).body;
    for news in [false, true] {
        let enough = Arc::new(AtomicBool::new(!news));
        let (writing, stop) = (world.clone(), enough.clone());
        let writer = tokio::spawn(async move {
            let mut written = 0;
            while !stop.load(Ordering::SeqCst) {
                let body = json!({"name": format!("acme-{written}")});
                writing.send("cloud-account", writing.account, "rename", body).await.unwrap();
                written += 1;
            }
            written
        });
        let began = Instant::now();
        let mut declares = tokio::task::JoinSet::new();
        for number in 0..DECLARES {
            let (world, vpc) = (world.clone(), vpc.clone());
            declares.spawn(async move {
                let name = format!("web-{news}-{number}");
                let body = json!({
                    "account": world.account, "region": vpc["region"],
                    "spec": group(&name, vpc["external_id"].as_str().unwrap(), &[80]),
                });
                world
                    .send("security-group", None, "declare", body)
                    .await
                    .map(|done| done.events.len())
            });
        }
        for declared in declares.join_all().await {
            assert_eq!(declared.unwrap(), 1);
        }
        let took = began.elapsed();
        enough.store(true, Ordering::SeqCst);
        println!("{DECLARES} declares beside {} news: {took:?}", writer.await.unwrap());
    }
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
