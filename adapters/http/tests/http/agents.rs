//! Agents of hosts over HTTP: a token of one host's agent, what it opens, and everything that it does
//! not.

use std::{sync::Arc, time::Duration};

use adapters_http::openapi;
use commands::ports::{HostTask, Report};
use domain::{
    compute::server::{Order, Server},
    kernel::{OrderKey, Reach, Role, StreamId},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{Reply, World, get, post};

async fn host(world: &World, name: &str) -> Uuid {
    world.system("host", None, "enrol", json!({"name": name})).await.id
}

fn seen() -> Value {
    json!({"architecture": "x86_64", "cells": [{
        "id": 0, "memory_mib": 1_024, "cores": [{"threads": [0, 1]}],
    }]})
}

fn path(host: Uuid, what: &str) -> String {
    format!("/v1/hosts/{host}/agent/{what}")
}

async fn send(world: &World, token: &str, host: Uuid, what: &str, body: Value) -> Reply {
    world.send(post(&path(host, what), body).token(token)).await
}

/// Every path of the document with its method, with this host wherever one is named.
fn paths(host: Uuid) -> Vec<(String, String)> {
    let document = openapi();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{id}", &host.to_string()).replace("{digest}", "00");
            all.push((method.clone(), path.replace("{code}", "not-found")));
        }
    }
    all
}

#[tokio::test]
async fn an_agent_s_token_opens_the_work_of_its_host_and_nothing_else() {
    let world = World::new().await;
    let (mine, other) = (host(&world, "kvm-1").await, host(&world, "kvm-2").await);
    let agent = world.token("kvm-1", Role::Agent, Reach::Host(mine)).await;
    let public = ["/", "/livez", "/openapi.json", "/problems/not-found", "/readyz"];
    let before = world.position().await;
    let mut refused = 0;
    for (method, path) in paths(mine) {
        if public.contains(&path.as_str()) || path.contains("/agent") || path == "/v1/whoami" {
            continue;
        }
        // With a ticket and no token; the page knows nothing.
        if path.ends_with("/console") || path.starts_with("/console/") {
            continue;
        }
        let request = if method == "get" { get(&path) } else { post(&path, json!({})) };
        world.send(request.token(&agent)).await.problem(403, "role-too-low");
        refused += 1;
    }
    assert!(refused > 200, "{refused}");
    for what in ["answer", "join", "sight", "tasks"] {
        send(&world, &agent, other, what, json!({})).await.problem(403, "out-of-reach");
    }
    let of_other = format!("/v1/hosts/{other}/agent");
    world.send(get(&of_other).token(&agent)).await.problem(403, "role-too-low");
    assert_eq!(world.position().await, before);

    let who = world.send(get("/v1/whoami").token(&agent)).await.ok(200);
    assert_eq!(who, json!({"name": "token:kvm-1", "role": "agent", "reach": {"host": mine}}));
    let joined = send(&world, &agent, mine, "join", json!({"agent": "test"})).await.ok(200);
    assert_eq!(joined["epoch"], 1);
    let sight = json!({"epoch": 1, "seen": seen()});
    send(&world, &agent, mine, "sight", sight).await.ok(200);
    let own = world.send(get(&format!("/v1/hosts/{mine}/agent")).token(&agent)).await.ok(200);
    assert_eq!((&own["connected"], &own["status"]), (&json!(true), &json!("ready")));
    // The log says who it was.
    let events = world.get("/v1/audit/events?type=joined").await.ok(200);
    assert_eq!(events["items"][0]["actor"], "system:agent/token:kvm-1", "{events}");
}

#[tokio::test]
async fn others_than_the_host_s_agent_and_admins_of_everything_do_not_work_for_it() {
    let world = World::new().await;
    let mine = host(&world, "kvm-1").await;
    let project = world.project("alpha").await;
    for (name, role, reach) in [
        ("viewer", Role::Viewer, Reach::All),
        ("operator", Role::Operator, Reach::All),
        ("of-one", Role::Admin, Reach::Projects(vec![project])),
    ] {
        let token = world.token(name, role, reach).await;
        for what in ["answer", "join", "sight", "tasks"] {
            send(&world, &token, mine, what, json!({})).await.problem(403, "role-too-low");
        }
    }
    world.send(post(&path(mine, "join"), json!({}))).await.problem(401, "unauthenticated");
    let viewer = world.token("reader", Role::Viewer, Reach::All).await;
    let shown = world.send(get(&format!("/v1/hosts/{mine}/agent")).token(&viewer)).await.ok(200);
    assert_eq!((&shown["connected"], &shown["epoch"]), (&json!(false), &json!(0)));
    let admin = world.admin.clone();
    send(&world, &admin, mine, "join", json!({"agent": "test"})).await.ok(200);
    let nobody = Uuid::from_u128(9);
    send(&world, &admin, nobody, "join", json!({"agent": "x"})).await.problem(404, "not-found");
    world.get(&format!("/v1/hosts/{nobody}/agent")).await.problem(404, "not-found");
    let tokens = [
        (json!({"name": "x", "role": "agent", "reach": "all"}), "invalid-field"),
        (json!({"name": "x", "role": "operator", "reach": {"host": mine}}), "invalid-field"),
    ];
    for (body, code) in tokens {
        world.post("/v1/tokens", body).await.problem(422, code);
    }
}

#[tokio::test]
async fn what_comes_in_another_epoch_or_does_not_read_changes_nothing() {
    let world = World::new().await;
    let mine = host(&world, "kvm-1").await;
    let agent = world.token("kvm-1", Role::Agent, Reach::Host(mine)).await;
    for _ in 0..2 {
        send(&world, &agent, mine, "join", json!({"agent": "test"})).await.ok(200);
    }
    let before = world.position().await;
    let key = json!({"stream": {"kind": "server", "id": "x"}, "number": 1});
    let report = json!({"report": {"verb": "confirm", "body": {}}});
    for epoch in [0, 1, 3, u64::MAX] {
        for (what, body) in [
            ("answer", json!({"epoch": epoch, "key": key, "outcome": report})),
            ("sight", json!({"epoch": epoch, "seen": seen()})),
            ("tasks", json!({"epoch": epoch})),
        ] {
            send(&world, &agent, mine, what, body).await.problem(409, "stale-epoch");
        }
    }
    for (what, body) in [
        ("answer", json!({"epoch": 2, "key": key})),
        ("join", json!({})),
        ("join", json!({"agent": "test", "epoch": 7})),
        ("sight", json!({"epoch": 2, "seen": {}})),
        ("tasks", json!({"epoch": -1})),
        ("tasks", json!({"epoch": 2, "busy": [7]})),
    ] {
        send(&world, &agent, mine, what, body).await.problem(400, "malformed-command");
    }
    let long = json!({"agent": "x".repeat(129)});
    send(&world, &agent, mine, "join", long).await.problem(422, "invalid-field");
    // Whatever it reports, it is of an order.
    for verb in ["park", "vanish", "launch", "release"] {
        let outcome = json!({"report": {"verb": verb, "body": {}}});
        let body = json!({"epoch": 2, "key": key, "outcome": outcome});
        send(&world, &agent, mine, "answer", body).await.problem(422, "invalid-field");
    }
    let body = json!({"epoch": 2, "key": key, "outcome": report});
    let taken = send(&world, &agent, mine, "answer", body).await.ok(200);
    assert_eq!(taken["awaited"], false, "nobody has asked for it");
    assert_eq!(world.position().await, before);
    // A token that was revoked opens nothing any more.
    let tokens = world.get("/v1/tokens?filter=name%3D%22kvm-1%22").await.ok(200);
    let token = tokens["items"][0]["id"].as_str().unwrap();
    world.post(&format!("/v1/tokens/{token}/revoke"), json!({})).await.ok(200);
    let asked = send(&world, &agent, mine, "tasks", json!({"epoch": 2})).await;
    asked.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_task_is_given_until_it_is_worked_on_and_its_outcome_comes_back() {
    let world = World::new().await;
    let mine = host(&world, "kvm-1").await;
    let agent = world.token("kvm-1", Role::Agent, Reach::Host(mine)).await;
    send(&world, &agent, mine, "join", json!({"agent": "test"})).await.ok(200);
    let key = OrderKey { stream: StreamId::new("server", "x"), number: 1 };
    let task: HostTask = serde_json::from_value(json!({
        "key": key, "order": Order::Start {}, "state": Server::default(),
    }))
    .unwrap();
    let driver = world.ledger.host_driver(mine).unwrap();
    let laid = tokio::spawn(async move { driver.carry_out(&task).await });
    let ask = |busy: Value| {
        let (router, agent) = (world.router.clone(), agent.clone());
        async move {
            let (path, body) = (path(mine, "tasks"), json!({"epoch": 1, "busy": busy}));
            let request = post(&path, body).token(&agent).header("prefer", "wait=30");
            crate::world::send_to(router, request).await.ok(200)
        }
    };
    // An answer that is lost on its way is given again.
    for _ in 0..2 {
        let given = ask(json!([])).await;
        assert_eq!(given["tasks"][0]["key"], json!(key), "{given}");
        assert_eq!(given["tasks"][0]["order"]["type"], "start");
    }
    assert_eq!(ask(json!([key])).await["tasks"], json!([]), "it is in the agent's hands");
    let outcome = json!({"report": {"verb": "confirm", "body": {"number": 1}}});
    let body = json!({"epoch": 1, "key": key, "outcome": outcome});
    let taken = send(&world, &agent, mine, "answer", body.clone()).await.ok(200);
    assert_eq!(taken["awaited"], true);
    let report = Report { verb: "confirm", body: json!({"number": 1}) };
    assert_eq!(laid.await.unwrap().unwrap(), report);
    let again = send(&world, &agent, mine, "answer", body).await.ok(200);
    assert_eq!(again["awaited"], false);
}

#[tokio::test]
async fn a_server_that_stops_lets_waiting_agents_go() {
    let world = World::new().await;
    let mine = host(&world, "kvm-1").await;
    let agent = world.token("kvm-1", Role::Agent, Reach::Host(mine)).await;
    send(&world, &agent, mine, "join", json!({"agent": "test"})).await.ok(200);
    let metrics = world.get("/metrics").await;
    assert!(metrics.text.contains("\nskyledger_agents_connected 1\n"), "{}", metrics.text);
    let service = Arc::clone(&world.service);
    let (path, body) = (path(mine, "tasks"), json!({"epoch": 1}));
    let asking = world.send(post(&path, body).token(&agent).header("prefer", "wait=30"));
    service.close();
    let given = tokio::time::timeout(Duration::from_secs(20), asking).await.unwrap().ok(200);
    assert_eq!(given["tasks"], json!([]));
}
