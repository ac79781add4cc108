//! Requests: one effect however often they are sent, and nothing for who may not.

use commands::submit::SubmitFault;
use domain::kernel::{Principal, Reach, Role};
use serde_json::json;
use uuid::Uuid;

use crate::world::{World, small};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_parallel_sends_of_one_request_are_one_effect_and_twenty_equal_answers() {
    let world = World::empty(small());
    let mut submission = World::submission("project", None, "create", json!({"name": "shop"}));
    submission.idempotency_key = Some("key-1".into());
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (ledger, submission) = (world.ledger.clone(), submission.clone());
        sends.spawn(async move { ledger.submit(submission).await.unwrap() });
    }
    let answers = sends.join_all().await;
    assert_eq!(world.log.head().await.unwrap().position, 1);
    let first = &answers[0];
    for answer in &answers {
        assert_eq!((answer.id, answer.revision, answer.position), (first.id, 1, 1));
    }
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_with_another_body_is_refused() {
    let world = World::empty(small());
    let mut submission = World::submission("project", None, "create", json!({"name": "shop"}));
    submission.idempotency_key = Some("key-1".into());
    world.ledger.submit(submission.clone()).await.unwrap();
    submission.body = json!({"name": "other"});
    assert!(matches!(world.ledger.submit(submission).await, Err(SubmitFault::KeyReused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_changed_nothing_is_not_carried_out_later() {
    let world = World::empty(small());
    let id = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let mut restore = World::submission("project", id, "restore", json!({}));
    restore.idempotency_key = Some("restore-1".into());
    let first = world.ledger.submit(restore.clone()).await.unwrap();
    assert!(first.events.is_empty());
    world.send("project", id, "archive", json!({})).await.unwrap();
    let again = world.ledger.submit(restore).await.unwrap();
    assert!(again.repeated && again.events.is_empty());
    assert_eq!(world.row(id).await["status"], "archived");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_lets_one_of_two_writers_through() {
    let world = World::empty(small());
    let id = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let rename = |name: &str| {
        let mut submission = World::submission("project", id, "rename", json!({"name": name}));
        submission.if_match = Some(1);
        submission
    };
    world.ledger.submit(rename("a")).await.unwrap();
    let refused = world.ledger.submit(rename("b")).await.unwrap_err();
    assert!(matches!(refused, SubmitFault::Precondition { expected: 1, actual: 2 }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_outside_their_reach() {
    let world = World::empty(small());
    let send = |name: &str| json!({"name": name});
    let mine = world.send("project", None, "create", send("mine")).await.unwrap().id;
    let other = world.send("project", None, "create", send("other")).await.unwrap().id;
    let scoped = Principal {
        name: "token:scoped".into(),
        role: Role::Admin,
        reach: Reach::Projects(vec![mine]),
    };
    let as_scoped = |id: Option<Uuid>, verb: &str, body| {
        let mut submission = World::submission("project", id, verb, body);
        submission.principal = scoped.clone();
        world.ledger.submit(submission)
    };
    as_scoped(Some(mine), "rename", send("still mine")).await.unwrap();
    let head = world.log.head().await.unwrap();
    for refused in [
        as_scoped(Some(other), "rename", send("stolen")).await,
        as_scoped(Some(other), "archive", json!({})).await,
    ] {
        let SubmitFault::Refused(refusal) = refused.unwrap_err() else { panic!() };
        assert_eq!(refusal.code.code, "out-of-reach");
    }
    assert_eq!(world.log.head().await.unwrap(), head);
}
