//! Audit: records, the feed, the head and its proofs.

use std::{sync::Arc, time::Duration};

use adapters_http::Options;
use axum::body::Body;
use commands::progress;
use domain::{
    kernel::{OrderKey, Reach, Role, StreamId},
    log::{
        Hash, Sign, SignedHead, VerifierKey, hash_from_hex, verify_consistency, verify_inclusion,
    },
};
use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{World, get, post};

#[tokio::test]
async fn records_are_found_by_what_they_are_and_paged_both_ways() {
    let world = World::new().await;
    let id = world.project("a").await;
    world.post("/v1/projects", json!({"name": "b"})).await.ok(201);
    let types = async |query: &str| {
        let found = world.get(&format!("/v1/audit/events?{query}")).await.ok(200);
        let items = found["items"].as_array().unwrap().clone();
        items.iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types("").await, ["issued", "created", "created"]);
    assert_eq!(types(&format!("kind=project&id={id}")).await, ["created"]);
    assert_eq!(types("actor=token:root").await, ["created"]);
    assert_eq!(types("type=issued").await, ["issued"]);
    assert_eq!(types("until=2026-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(types("newest_first=true&page_size=1").await, ["created"]);
    let first = world.get("/v1/audit/events?newest_first=true&page_size=2").await.ok(200);
    let token = first["next_page_token"].as_str().unwrap();
    let rest = types(&format!("newest_first=true&page_token={token}")).await;
    assert_eq!(rest, ["issued"]);
    // The caller's trace is the chain.
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = post("/v1/projects", json!({"name": "c"})).header("traceparent", trace);
    world.send(request.token(&world.admin)).await.ok(201);
    assert_eq!(types("correlation_id=0af76519-16cd-43dd-8448-eb211c80319c").await, ["created"]);
}

/// Reads a feed until so many events have come.
async fn feed(world: &World, path: &str, last: Option<u64>, wanted: usize) -> Vec<(u64, Value)> {
    let mut request = Request::get(path).header("authorization", format!("Bearer {}", world.admin));
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let response =
        world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut chunks = response.into_body().into_data_stream();
    let (mut text, mut out) = (String::new(), Vec::new());
    while out.len() < wanted {
        let Some(chunk) = chunks.next().await else { break };
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                out.push((id.parse().unwrap(), serde_json::from_str(&data).unwrap()));
            }
            text = rest.to_owned();
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_comes_back_has_no_gap_and_no_duplicate() {
    let world = Arc::new(World::new().await);
    let writer = {
        let world = world.clone();
        tokio::spawn(async move {
            for number in 0..200 {
                world.project(&format!("p{number}")).await;
            }
        })
    };
    let mut seen = Vec::new();
    let mut last = 0;
    while seen.len() < 201 {
        // Every reader breaks off after a few.
        let wanted = 17.min(201 - seen.len());
        let events = feed(&world, "/v1/audit/events:watch", Some(last), wanted).await;
        last = events.last().unwrap().0;
        seen.extend(events.into_iter().map(|(id, _)| id));
    }
    writer.await.unwrap();
    // A reader may have got more than it wanted in one piece; none twice, none missing.
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    let created = feed(&world, "/v1/audit/events:watch?from=0&kind=token", None, 1).await;
    assert_eq!(created[0].1["type"], "issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_tells_how_far_transfers_are_where_that_is_asked_and_reached() {
    let world = World::new().await;
    let (own, others) = (world.project("own").await, world.project("others").await);
    let reach = Reach::Projects([own].into_iter().collect());
    let token = world.token("own", Role::Viewer, reach).await;
    let open = async |secret: &str, query: &str| {
        let path = format!("/v1/audit/events:watch?{query}");
        let request = Request::get(path).header("authorization", format!("Bearer {secret}"));
        let request = request.body(Body::empty()).unwrap();
        world.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream()
    };
    let mut all = open(&world.admin, "progress=true").await;
    let mut reached = open(&token, "progress=true").await;
    let mut of_one = open(&world.admin, &format!("progress=true&id={own}")).await;
    let mut records = open(&world.admin, "").await;
    let next = async |feed: &mut axum::body::BodyDataStream| {
        let told = async {
            let mut text = String::new();
            while !text.contains("data: ") {
                text = String::from_utf8(feed.next().await.unwrap().unwrap().to_vec()).unwrap();
            }
            text
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.expect("something comes")
    };
    let meters = &world.ledger.meters;
    let key = |id: uuid::Uuid| OrderKey { stream: StreamId::new("project", id), number: 7 };
    let go_on = tokio::sync::Notify::new();
    let transfer = |id: uuid::Uuid, done: u64| {
        let go_on = &go_on;
        meters.of(key(id), async move {
            progress::at(done, 1_000);
            go_on.notified().await;
            progress::at(900, 1_000);
            go_on.notified().await;
        })
    };
    let data = |id: uuid::Uuid, done: u64| {
        let data = json!({"kind": "project", "id": id, "order": 7,
                          "done_bytes": done, "total_bytes": 1_000});
        format!("event: progress\ndata: {data}\n\n")
    };
    let looks = async {
        let both = next(&mut all).await;
        assert!(both.contains(&data(own, 300)) && both.contains(&data(others, 400)), "{both}");
        assert_eq!(next(&mut reached).await, data(own, 300));
        assert_eq!(next(&mut of_one).await, data(own, 300));
        go_on.notify_waiters();
        assert_eq!(
            next(&mut reached).await,
            data(own, 900),
            "what did not change is not told again"
        );
        let p = world.project("more").await;
        let record = next(&mut records).await;
        assert!(record.starts_with("id: ") && record.contains(&p.to_string()), "{record}");
        go_on.notify_waiters();
    };
    futures::future::join3(transfer(own, 300), transfer(others, 400), looks).await;
}

#[tokio::test]
async fn a_feed_ends_when_its_token_is_revoked_and_when_the_server_stops() {
    let world = World::new().await;
    let body = json!({"name": "watcher", "role": "viewer", "reach": "all"});
    let issued = world.post("/v1/tokens", body).await.ok(201);
    let watch = |secret: &str| {
        let request = Request::get("/v1/audit/events:watch")
            .header("authorization", format!("Bearer {secret}"));
        world.router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let revoked = watch(issued["secret"].as_str().unwrap()).await.unwrap();
    let stopped = watch(&world.admin).await.unwrap();
    let revoke = format!("/v1/tokens/{}/revoke", issued["id"].as_str().unwrap());
    world.post(&revoke, json!({})).await.ok(200);
    let text = axum::body::to_bytes(revoked.into_body(), 1 << 20).await.unwrap();
    assert!(!String::from_utf8_lossy(&text).contains("revoked"));
    world.service.close();
    let text = axum::body::to_bytes(stopped.into_body(), 1 << 20).await.unwrap();
    assert!(String::from_utf8_lossy(&text).contains("revoked"));
}

/// Not Ed25519, but it depends on the message.
struct FakeSigner(VerifierKey);

impl Sign for FakeSigner {
    fn key(&self) -> &VerifierKey {
        &self.0
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let half = domain::kernel::sha256(message);
        [half, half].concat().try_into().unwrap()
    }
}

#[tokio::test]
async fn proofs_hold_against_the_signed_head() {
    let signer = Arc::new(FakeSigner(VerifierKey::new("log.test", [7; 32]).unwrap()));
    let world = World::with(Options { signer: Some(signer), ..Options::default() }).await;
    for number in 0..300 {
        world.project(&format!("p{number}")).await;
    }
    let head = async || {
        let head = world.get("/v1/audit/head").await.ok(200);
        let root = hash_from_hex(head["root"].as_str().unwrap()).unwrap();
        (head["size"].as_u64().unwrap(), root, head)
    };
    let hashes = |path: &Value| -> Vec<Hash> {
        let path = path.as_array().unwrap();
        path.iter().map(|one| hash_from_hex(one.as_str().unwrap()).unwrap()).collect()
    };
    let (size, root, shown) = head().await;
    assert_eq!(size, 301);
    let note: SignedHead = shown["note"].as_str().unwrap().parse().unwrap();
    assert_eq!((note.head.size, note.head.root), (size, root));
    for position in [1, 2, 256, 257, 301] {
        let path = format!("/v1/audit/proof?position={position}&size={size}");
        let proof = world.get(&path).await.ok(200);
        let leaf = hash_from_hex(proof["leaf"].as_str().unwrap()).unwrap();
        assert!(verify_inclusion(&leaf, position - 1, size, &hashes(&proof["path"]), &root));
        assert_eq!(proof["frame"].is_string(), position != 1, "a token's record holds a digest");
    }
    for number in 0..30 {
        world.project(&format!("q{number}")).await;
    }
    let (to, to_root, _) = head().await;
    let proof = world.get(&format!("/v1/audit/proof?from={size}")).await.ok(200);
    assert_eq!(proof["to"], to);
    assert!(verify_consistency(size, &root, to, &to_root, &hashes(&proof["path"])));
}

#[tokio::test]
async fn metrics_are_for_who_reaches_the_estate() {
    let world = World::new().await;
    let project = world.project("shop").await;
    let scoped = world.token("scoped", Role::Admin, Reach::Projects(vec![project])).await;
    world.send(get("/metrics").token(&scoped)).await.problem(403, "out-of-reach");
    let text = world.get("/metrics").await.text;
    for line in [
        "skyledger_log_position 3",
        "skyledger_view_lag{view=\"inventory\"} 0",
        "skyledger_orders{state=\"pending\"} 0",
        "skyledger_http_requests_total{method=\"GET\",route=\"/metrics\",status=\"403\"} 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let ready = world.send(get("/readyz")).await.ok(200);
    assert_eq!(ready["ready"], true);
}
