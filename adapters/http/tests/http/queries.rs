//! Queries: filters, order, pages, the past, entity tags, and what differs.

use ::commands::ports::Leases;
use serde_json::json;

use crate::world::{World, get};

#[tokio::test]
async fn lists_filter_sort_page_and_count() {
    let world = World::new().await;
    let account = world.account("one", None).await;
    for name in ["web-1", "web-2", "db-1", "db-2"] {
        world.server(name, account, None).await;
    }
    let list = async |query: &str| {
        let reply = world.get(&format!("/v1/servers?{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        reply.names().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list("order_by=name").await, ["db-1", "db-2", "web-1", "web-2"]);
    assert_eq!(list("order_by=name+desc&filter=name+%3D+%22web*%22").await, ["web-2", "web-1"]);
    assert_eq!(
        list("filter=name:B-1+AND+tags.env+%3D+prod&order_by=name").await,
        ["db-1", "web-1"]
    );
    assert_eq!(list("filter=status+IN+(stopped)").await, [""; 0]);
    let first = world.get("/v1/servers?order_by=name&page_size=3&count=true").await;
    assert_eq!(first.names(), ["db-1", "db-2", "web-1"]);
    assert_eq!(first.json["count"], 4);
    assert_eq!(first.json["count_is_lower_bound"], false);
    let token = first.json["next_page_token"].as_str().unwrap().to_owned();
    // Pages of one listing show one position, whatever comes between.
    world.server("web-0", account, None).await;
    let second =
        world.get(&format!("/v1/servers?order_by=name&page_size=3&page_token={token}")).await;
    assert_eq!(second.names(), ["web-2"]);
    assert_eq!(second.json["position"], first.json["position"]);
    assert_eq!(second.json["next_page_token"], json!(null));
    let other = world.get(&format!("/v1/servers?order_by=name+desc&page_token={token}")).await;
    other.problem(400, "invalid-parameter");
}

#[tokio::test]
async fn what_is_gone_is_hidden_unless_it_is_asked_for() {
    let world = World::new().await;
    let id = world.project("old").await;
    world.project("new").await;
    world.system("project", Some(id), "archive", json!({})).await;
    assert_eq!(world.get("/v1/projects").await.names(), ["new"]);
    assert_eq!(
        world.get("/v1/projects?show_gone=true&order_by=name").await.names(),
        ["new", "old"]
    );
    assert_eq!(world.get("/v1/projects?filter=gone=true").await.names(), ["old"]);
}

#[tokio::test]
async fn a_resource_is_read_as_it_is_and_as_it_was() {
    let world = World::new().await;
    let id = world.project("before").await;
    let past = world.position().await;
    let path = format!("/v1/projects/{id}");
    let time = world.get(&path).await.json["updated_at"].as_str().unwrap().to_owned();
    assert_eq!(time, "2026-01-01T00:00:00.000000Z");
    world.clock.advance(std::time::Duration::from_secs(60));
    world.system("project", Some(id), "rename", json!({"name": "after"})).await;
    let now = world.get(&path).await;
    assert_eq!(now.header("etag"), "\"2\"");
    assert_eq!(now.header("skyledger-position"), world.position().await.to_string());
    assert_eq!(now.ok(200)["name"], "after");
    assert_eq!(world.get(&format!("{path}?at={past}")).await.ok(200)["name"], "before");
    assert_eq!(world.get(&format!("{path}?at={time}")).await.ok(200)["name"], "before");
    world.get(&format!("{path}?at=0")).await.problem(404, "not-found");
    assert_eq!(world.get(&format!("/v1/projects?at={past}")).await.names(), ["before"]);
    let recent = "/v1/projects?filter=updated_at+%3E+%222026-01-01T00:00:30Z%22";
    assert_eq!(world.get(recent).await.names(), ["after"]);
    for (tag, status) in [("\"2\"", 304), ("W/\"2\", \"9\"", 304), ("\"1\"", 200)] {
        let reply = world.send(get(&path).header("if-none-match", tag).token(&world.admin)).await;
        assert_eq!(reply.status, status, "{tag}");
        assert_eq!(reply.text.is_empty(), status == 304);
    }
}

#[tokio::test]
async fn a_reader_waits_for_what_it_wrote_or_is_told_that_views_are_behind() {
    let world = World::new().await;
    let written = world.post("/v1/projects", json!({"name": "shop"})).await;
    let position = written.header("skyledger-position").to_owned();
    let ask = || get("/v1/projects").header("skyledger-min-position", position.clone());
    assert_eq!(world.send(ask().token(&world.admin)).await.names(), ["shop"]);
    *world.views.stuck_at.lock().unwrap() = Some(1);
    let reply = world.send(ask().token(&world.admin)).await;
    assert_eq!(reply.header("retry-after"), "1");
    reply.problem(503, "view-behind");
    let at = world.get(&format!("/v1/projects?at={position}")).await;
    at.problem(503, "view-behind");
    assert!(world.get("/v1/projects").await.names().is_empty());
}

#[tokio::test]
async fn what_differs_between_two_moments_is_a_query() {
    let world = World::new().await;
    let (a, b) = (world.project("a").await, world.project("b").await);
    let from = world.position().await;
    world.system("project", Some(a), "rename", json!({"name": "a2"})).await;
    let c = world.project("c").await;
    let path = format!("/v1/diff?from={from}&filter=kind=project");
    let found = world.get(&path).await.ok(200);
    let changes = found["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2, "{found}");
    assert_eq!(changes[0]["key"], json!(a));
    assert_eq!(changes[0]["change"], "changed");
    let named = |field: &str| {
        let fields = changes[0]["fields"].as_array().unwrap().clone();
        fields.into_iter().find(|one| one["field"] == field)
    };
    let expected = json!({"field": "state.name", "before": "a", "after": "a2"});
    assert_eq!(named("state.name"), Some(expected));
    assert_eq!((&changes[1]["key"], &changes[1]["change"]), (&json!(c), &json!("added")));
    let first = world.get(&format!("{path}&page_size=1")).await.ok(200);
    let token = first["next_page_token"].as_str().unwrap();
    world.project("d").await;
    let second = world.get(&format!("/v1/diff?filter=kind=project&page_token={token}")).await;
    let second = second.ok(200);
    assert_eq!(second["changes"][0]["key"], json!(c));
    assert_eq!(second["next_page_token"], json!(null));
    world.get(&format!("/v1/diff?page_token={token}")).await.problem(400, "invalid-parameter");
    let one = world.get(&format!("/v1/projects/{a}/diff?from={from}")).await.ok(200);
    assert_eq!(one["before"]["name"], "a");
    assert_eq!(one["after"]["name"], "a2");
    let same = world.get(&format!("/v1/projects/{b}/diff?from={from}")).await.ok(200);
    assert_eq!(same["change"], "none");
}

#[tokio::test]
async fn every_field_can_say_which_event_set_it() {
    let world = World::new().await;
    let id = world.project("first").await;
    world.post(&format!("/v1/projects/{id}/rename"), json!({"name": "second"})).await.ok(200);
    let renamed = world.position().await;
    world.system("project", Some(id), "archive", json!({})).await;
    for field in ["name", "state.name"] {
        let why = world.get(&format!("/v1/projects/{id}/why?field={field}")).await.ok(200);
        assert_eq!(why["value"], "second");
        assert_eq!(why["before"], "first");
        assert_eq!(why["position"], renamed);
        assert_eq!(why["event"]["type"], "renamed");
        assert_eq!(why["event"]["actor"], "token:root");
    }
    let past = format!("/v1/projects/{id}/why?field=name&at={}", renamed - 1);
    assert_eq!(world.get(&past).await.ok(200)["value"], "first");
    let history = world.get(&format!("/v1/projects/{id}/history?page_size=2")).await.ok(200);
    assert_eq!(history["items"][1]["type"], "renamed");
    let token = history["next_page_token"].as_str().unwrap();
    let rest = world.get(&format!("/v1/projects/{id}/history?page_token={token}")).await.ok(200);
    assert_eq!(rest["items"][0]["type"], "archived");
    assert_eq!(rest["next_page_token"], json!(null));
}

#[tokio::test]
async fn views_and_lenses_have_paths_of_their_own_and_running_orders_are_marked() {
    let world = World::new().await;
    let views = world.get("/v1/views").await.ok(200);
    for view in views["items"].as_array().unwrap() {
        let path = view["path"].as_str().unwrap();
        world.get(path).await.ok(200);
        world.get(&format!("/v1/views{}", path.strip_prefix("/v1").unwrap())).await.ok(200);
    }
    let account = world.account("one", None).await;
    let body = json!({"account": account, "region": "north", "spec": {"name": "web"}});
    let declared = world.post("/v1/security-groups", body).await.ok(202);
    let id = declared["id"].as_str().unwrap();
    assert_eq!(world.get("/v1/orders").await.json["items"][0]["order_state"], "pending");
    let term = std::time::Duration::from_secs(60);
    let key = format!("security-group/{id}/1");
    world.leases.claim(&key, "runner", term).await.unwrap().unwrap();
    assert_eq!(world.get("/v1/orders").await.json["items"][0]["order_state"], "running");
    assert_eq!(world.get("/v1/mappings").await.json["items"][0]["wanted"]["name"], "web");
}
