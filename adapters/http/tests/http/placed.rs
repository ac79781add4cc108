//! What a placement says of other hosts is the estate's: who launches in a project is told how many
//! had no place and why, and never which.

use std::time::Duration;

use axum::body::Body;
use domain::kernel::{Reach, Role};
use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::world::{World, get, post};

async fn host(world: &World, name: &str, memory_mib: u64) -> Uuid {
    let id = world.system("host", None, "enrol", json!({"name": name})).await.id;
    world.system("host", Some(id), "join", json!({"epoch": 1, "agent": "test"})).await;
    let cell = json!({
        "id": 0, "memory_mib": memory_mib, "cores": [{"threads": [0, 1]}], "distances": [10],
    });
    let seen = json!({"architecture": "x86_64", "cells": [cell]});
    world.system("host", Some(id), "sight", json!({"epoch": 1, "seen": seen})).await;
    id
}

#[tokio::test]
async fn who_reaches_a_project_alone_is_not_told_which_other_hosts_there_are() {
    let world = World::new().await;
    let project = world.project("alpha").await;
    let roomy = [host(&world, "kvm-1", 8_192).await, host(&world, "kvm-2", 8_192).await];
    let full = host(&world, "kvm-3", 16).await;
    let operator = world.token("ops", Role::Admin, Reach::Projects(vec![project])).await;
    let before = world.position().await;
    let spec = json!({"vcpus": 1, "memory_mib": 64});
    let body = json!({"name": "web", "project": project, "spec": spec});
    let send = async |path: &str, token: &str| {
        world.send(post(path, body.clone()).token(token)).await.text
    };
    let mut told = vec![send("/v1/servers?validate_only=true", &operator).await];
    told.push(send("/v1/servers", &operator).await);
    let server: Value = serde_json::from_str(&told[1]).unwrap();
    let (id, position) = (server["id"].as_str().unwrap().to_owned(), world.position().await);
    let parent = world.get(&format!("/v1/servers/{id}")).await.ok(200)["parent"].clone();
    let own = roomy.iter().find(|host| parent == host.to_string()).unwrap();
    let next = roomy.iter().find(|host| *host != own).unwrap();
    let reads = [
        "/v1/servers".to_owned(),
        format!("/v1/servers/{id}"),
        format!("/v1/servers/{id}?at={position}"),
        format!("/v1/servers/{id}/history"),
        format!("/v1/servers/{id}/diff?from={before}"),
        format!("/v1/servers/{id}/why?field=home"),
        format!("/v1/servers/{id}/why?field=home.placement"),
        "/v1/inventory".to_owned(),
        "/v1/orders".to_owned(),
        format!("/v1/diff?from={before}"),
        "/v1/audit/events".to_owned(),
    ];
    for path in &reads {
        let reply = world.send(get(path).token(&operator)).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        told.push(reply.text);
        // The estate's own does see it, so this is not about an empty answer.
        let all = world.get(path).await.text;
        let shows = !path.contains("orders");
        assert_eq!(all.contains(&full.to_string()), shows, "{path}: {all}");
    }
    for path in [
        format!("/v1/servers/{id}/why?field=home.placement.rejected"),
        format!("/v1/servers/{id}/why?field=home.placement.rejected.hosts"),
        format!("/v1/servers?filter=state.home.placement.rejected.hosts%3A%22{full}%22"),
        format!("/v1/servers?filter=state.home%3A%22{full}%22"),
    ] {
        let reply = world.send(get(&path).token(&operator)).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text);
        assert_eq!(world.get(&path).await.status, 200, "{path}");
    }
    // The record's own bytes have it: those are not given either.
    let proof = format!("/v1/audit/proof?position={}", before + 1);
    let proof = world.send(get(&proof).token(&operator)).await.ok(200);
    assert_eq!(proof["frame"], Value::Null, "{proof}");
    let watch = Request::get(format!("/v1/audit/events:watch?from={before}"))
        .header("authorization", format!("Bearer {operator}"))
        .body(Body::empty())
        .unwrap();
    let mut feed =
        world.router.clone().oneshot(watch).await.unwrap().into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("launched") {
        let chunk = tokio::time::timeout(Duration::from_secs(10), feed.next()).await.unwrap();
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
    }
    told.push(text);
    for text in told {
        assert!(text.contains(&own.to_string()) || text.contains("\"order_state\""), "{text}");
        for other in [next, &full] {
            assert!(!text.contains(&other.to_string()), "{text}");
        }
    }
}

#[tokio::test]
async fn hosts_are_asked_about_a_launch_and_only_who_sees_them_hears_each() {
    let world = World::new().await;
    let project = world.project("alpha").await;
    let roomy = host(&world, "kvm-1", 8_192).await;
    let full = host(&world, "kvm-2", 16).await;
    let all = world.token("all", Role::Operator, Reach::All).await;
    let alphas = world.token("ops", Role::Operator, Reach::Projects(vec![project])).await;
    let viewer = world.token("viewer", Role::Viewer, Reach::All).await;
    let before = world.position().await;
    let ask = async |query: &str, token: &str, body: Value| {
        world.send(post(&format!("/v1/placements{query}"), body).token(token)).await
    };
    // The name is nobody's business yet.
    let body = json!({"project": project, "spec": {"vcpus": 1, "memory_mib": 1_024}});
    let reply = ask("", &all, body.clone()).await;
    assert_eq!(reply.header("skyledger-position"), before.to_string());
    let said = reply.ok(200);
    assert_eq!(said["placement"]["host"], roomy.to_string());
    assert_eq!(said["placement"]["holding"]["memory_mib"], 1_024);
    assert_eq!((&said["count"], &said["limited"]), (&json!(8), &json!(false)), "{said}");
    assert_eq!(said["bounds"], json!([{"what": "hosts", "count": 8}]));
    assert_eq!((&said["refusal"], &said["position"]), (&Value::Null, &json!(before)));
    assert_eq!(said["rejected"], json!({"memory": 1}));
    let of = |id: Uuid| {
        let items = said["items"].as_array().unwrap().iter();
        items.clone().find(|one| one["host"] == id.to_string()).unwrap().clone()
    };
    let yes = of(roomy);
    assert_eq!(
        (&yes["name"], &yes["fits"], &yes["room"]),
        (&json!("kvm-1"), &json!(true), &json!(8))
    );
    assert_eq!(yes["holding"], said["placement"]["holding"]);
    let no = of(full);
    assert_eq!((&no["fits"], &no["room"]), (&json!(false), &json!(0)));
    assert_eq!(no["reasons"][0]["code"], "memory");
    assert_eq!(no["reasons"][0]["free_mib"], 16, "{no}");
    assert!(no["reasons"][0]["detail"].as_str().unwrap().contains("16"), "{no}");
    // One host, and counting that stops.
    let one = ask(&format!("?host={full}"), &all, body.clone()).await.ok(200);
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    assert_eq!((&one["count"], &one["items"][0]), (&json!(0), &no));
    let some = ask("?count_to=3", &all, body.clone()).await.ok(200);
    assert_eq!((&some["count"], &some["limited"]), (&json!(3), &json!(true)));

    let told = ask("", &alphas, body.clone()).await;
    assert!(!told.text.contains(&full.to_string()), "{}", told.text);
    let told = told.ok(200);
    assert_eq!((&told["items"], &told["count"]), (&json!([]), &json!(8)), "{told}");
    assert_eq!(told["placement"]["host"], roomy.to_string(), "as a plan of the launch");
    assert_eq!(told["rejected"], json!({"memory": 1}));
    ask(&format!("?host={full}"), &alphas, body.clone()).await.problem(404, "not-found");
    let nobody = Uuid::from_u128(9);
    ask(&format!("?host={nobody}"), &all, body.clone()).await.problem(404, "not-found");
    ask("", &viewer, body.clone()).await.problem(403, "role-too-low");
    ask("?host=kvm-1", &all, body.clone()).await.problem(400, "invalid-parameter");
    ask("?count_to=0", &all, body.clone()).await.problem(400, "invalid-parameter");
    let large = json!({"project": project, "spec": {"vcpus": 1, "memory_mib": 9_000}});
    let nowhere = ask("", &alphas, large.clone()).await.ok(200);
    let launch = world
        .send(
            post("/v1/servers", {
                let mut named = large.clone();
                named["name"] = json!("large");
                named
            })
            .token(&alphas),
        )
        .await
        .problem(409, "no-room");
    assert_eq!(nowhere["placement"], Value::Null);
    assert_eq!(nowhere["refusal"], json!({"code": "no-room", "detail": launch["detail"]}));
    // What no host could ever be asked is refused as the launch is.
    for (bad, status, code) in [
        (json!({}), 422, "invalid-field"),
        (json!({"spec": {"vcpus": 1, "memory_mib": 1}, "colour": "red"}), 400, "malformed-command"),
        (json!({"spec": {"vcpus": 0, "memory_mib": 1}}), 422, "invalid-field"),
        (json!({"name": "", "spec": {"vcpus": 1, "memory_mib": 1}}), 422, "invalid-field"),
        (json!({"spec": {"vcpus": 1, "memory_mib": 1}, "placement": {}}), 422, "invalid-field"),
        (json!({"spec": {"vcpus": 1, "memory_mib": 1}, "image": nobody}), 422, "invalid-field"),
    ] {
        ask("", &all, bad).await.problem(status, code);
    }
    assert_eq!(world.position().await, before, "nothing was written");
}

#[tokio::test]
async fn a_drain_is_looked_at_and_begun() {
    let world = World::new().await;
    let id = host(&world, "kvm-1", 8_192).await;
    let admin = world.token("admin", Role::Admin, Reach::All).await;
    let leaving = async || {
        let path = format!("/v1/hosts/{id}/leaving");
        world.send(get(&path).token(&admin)).await.ok(200)["status"].clone()
    };
    assert_eq!(leaving().await, "ready");
    let drain = format!("/v1/hosts/{id}/drain");
    let begun = world.send(post(&drain, json!({})).token(&admin)).await.ok(200);
    assert_eq!(begun["status"], "drained", "it has no servers");
    assert_eq!(leaving().await, "drained");
}
