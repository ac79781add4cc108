//! Readiness: what makes a server not ready, and how little of it everybody is told.

use std::sync::{Arc, Mutex};

use ::commands::ports::{Append, EventLog, Expected, LogFault, NewEvent, StreamAppend};
use adapters_http::{Check, Options};
use domain::kernel::StreamId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, get};

/// What a fault says that is not for everybody.
const INSIDE: &str = "/srv/ledger on db.internal, row of bravo";

/// Without a token, as a load balancer asks.
async fn ready(world: &World, status: u16) -> Value {
    let reply = world.send(get("/readyz")).await;
    assert!(!reply.text.contains("bravo"), "{}", reply.text);
    let answer = reply.ok(status);
    assert_eq!(answer["ready"], status == 200, "{answer}");
    answer
}

#[tokio::test]
async fn a_server_whose_log_fails_is_not_ready() {
    let world = World::new().await;
    ready(&world, 200).await;
    *world.log.fault.lock().unwrap() = Some(LogFault::Unavailable(INSIDE.into()));
    let answer = ready(&world, 503).await;
    assert_eq!(answer["log"], json!({"fault": "cannot be reached"}));
    assert_eq!(answer["views"][0]["fault"], "does not answer");
    *world.log.fault.lock().unwrap() = None;
    ready(&world, 200).await;
}

#[tokio::test]
async fn a_server_whose_views_are_far_behind_is_not_ready() {
    let world = World::new().await;
    let stuck = world.position().await;
    *world.views.stuck_at.lock().unwrap() = Some(stuck);
    // So many records are folded within a second; one more is a view that does not come after.
    for number in 0..10 {
        append(&world, number, 1_000).await;
    }
    assert_eq!(ready(&world, 200).await["views"][0]["lag"], 10_000);
    append(&world, 10, 1).await;
    let answer = ready(&world, 503).await;
    let view = &answer["views"][0];
    assert_eq!((&view["position"], &view["lag"]), (&json!(stuck), &json!(10_001)));
    *world.views.stuck_at.lock().unwrap() = None;
    ready(&world, 200).await;
}

async fn append(world: &World, number: u128, events: usize) {
    let event = || NewEvent { event_type: "noted".into(), schema_version: 1, data: b"{}".to_vec() };
    let id = Uuid::from_u128(number);
    let streams = vec![StreamAppend {
        stream: StreamId::new("request", id),
        expected: Expected::NoStream,
        project: None,
        events: (0..events).map(|_| event()).collect(),
    }];
    let append = Append {
        actor: "system:test".into(),
        command_id: id,
        correlation_id: id,
        causation_id: None,
        request: None,
        streams,
    };
    world.log.append(append).await.unwrap();
}

#[tokio::test]
async fn a_server_with_a_part_that_does_not_go_on_is_not_ready() {
    let broken = Arc::new(Mutex::new(None));
    let asked = broken.clone();
    let check: Check = (
        "views",
        Box::new(move || match &*asked.lock().unwrap() {
            None => Ok(()),
            Some(fault) => Err(String::clone(fault)),
        }),
    );
    let world = World::with(Options { checks: vec![check], ..Options::default() }).await;
    assert_eq!(ready(&world, 200).await["parts"], json!([{"part": "views", "ready": true}]));
    *broken.lock().unwrap() = Some(INSIDE.to_owned());
    assert_eq!(
        ready(&world, 503).await["parts"],
        json!([{"part": "views", "ready": false, "fault": "does not go on"}])
    );
    *broken.lock().unwrap() = None;
    ready(&world, 200).await;
}
