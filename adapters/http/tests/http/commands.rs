//! Commands through the interface: answers, retries, preconditions, plans, waiting.

use serde_json::json;
use uuid::Uuid;

use crate::world::{World, get, post};

#[tokio::test]
async fn a_command_answers_where_the_resource_is_and_what_it_is_now() {
    let world = World::new().await;
    let reply = world.post("/v1/projects", json!({"name": "shop"})).await;
    let id = reply.json["id"].as_str().unwrap().to_owned();
    assert_eq!(reply.header("location"), format!("/v1/projects/{id}"));
    assert_eq!(reply.header("etag"), "\"1\"");
    assert_eq!(reply.header("skyledger-position"), world.position().await.to_string());
    let outcome = reply.ok(201);
    assert_eq!(outcome["status"], "active");
    assert_eq!(outcome["order"], json!(null));
    assert_eq!(outcome["events"], json!([{"type": "created", "data": {"name": "shop"}}]));
    // Under an id of the caller's own.
    let own = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);
    let create = format!("/v1/projects/{own}/create");
    world.post(&create, json!({"name": "mine"})).await.ok(201);
    world.post(&create, json!({"name": "mine"})).await.problem(409, "already-exists");
    let archived = world.post(&format!("/v1/projects/{own}/archive"), json!(null)).await;
    archived.problem(400, "invalid-json");
    let archive = format!("/v1/projects/{own}/archive");
    world.send(crate::world::ask("POST", &archive, "").token(&world.admin)).await.ok(200);
    let again = world.post(&archive, json!({})).await.ok(200);
    assert_eq!(again["events"], json!([]));
}

#[tokio::test]
async fn if_match_refuses_when_somebody_was_faster() {
    let world = World::new().await;
    let id = world.project("shop").await;
    let path = format!("/v1/projects/{id}/rename");
    let rename = |name: &str, tag: &'static str| {
        post(&path, json!({"name": name})).header("if-match", tag).token(&world.admin)
    };
    world.send(rename("a", "\"1\"")).await.ok(200);
    let problem = world.send(rename("b", "\"1\"")).await.problem(412, "revision-mismatch");
    assert_eq!(problem["revision"], 2);
    world.send(rename("c", "W/\"2\"")).await.problem(412, "revision-mismatch");
    world.send(rename("d", "*")).await.ok(200);
}

#[tokio::test]
async fn a_request_sent_twice_has_one_effect_and_its_key_is_its_own() {
    let world = World::new().await;
    let create = |name: &str| {
        post("/v1/projects", json!({"name": name}))
            .header("idempotency-key", "\"k-1\"")
            .token(&world.admin)
    };
    let first = world.send(create("shop")).await.ok(201);
    let position = world.position().await;
    let second = world.send(create("shop")).await.ok(201);
    assert_eq!(second["id"], first["id"]);
    assert_eq!((&first["repeated"], &second["repeated"]), (&json!(false), &json!(true)));
    world.send(create("other")).await.problem(422, "idempotency-key-reused");
    assert_eq!(world.position().await, position);
}

#[tokio::test]
async fn a_plan_writes_nothing_and_is_done_only_if_nothing_has_moved() {
    let world = World::new().await;
    let (shop, account) = (world.project("shop").await, world.account("one", None).await);
    let body = json!({
        "account": account, "region": "north", "project": shop,
        "spec": {"name": "web", "rules": []},
    });
    let before = world.position().await;
    let plan = world.post("/v1/security-groups?validate_only=true", body.clone()).await.ok(200);
    assert_eq!(world.position().await, before);
    assert_eq!(plan["events"][0]["type"], "declared");
    assert_eq!(plan["calls"][0]["call"], "still:Nothing");
    let apply = format!("/v1/security-groups?plan_id={}", plan["plan_id"].as_str().unwrap());
    // What the plan saw moves: the project is archived.
    world.system("project", Some(shop), "archive", json!({})).await;
    world.system("project", Some(shop), "restore", json!({})).await;
    world.system("cloud-account", Some(account), "pause", json!({})).await;
    let problem = world.post(&apply, body.clone()).await.problem(412, "plan-stale");
    assert_eq!(problem["moved"].as_array().map(Vec::len), Some(1), "{problem}");
    assert_eq!(problem["moved"][0]["id"], account.to_string());
    // The project that is archived is named with it.
    world.system("project", Some(shop), "archive", json!({})).await;
    let problem = world.post(&apply, body.clone()).await.problem(412, "plan-stale");
    assert_eq!(problem["moved"].as_array().map(Vec::len), Some(2), "{problem}");
    world.system("project", Some(shop), "restore", json!({})).await;
    world.system("cloud-account", Some(account), "resume", json!({})).await;
    let done = world.post(&apply, body.clone()).await.ok(202);
    assert_eq!(done["id"], plan["id"]);
    // Now the resource itself has moved.
    let id = done["id"].as_str().unwrap();
    let stale = world.post(&apply, body.clone()).await;
    let problem = stale.problem(412, "plan-stale");
    assert_eq!(problem["moved"][0]["id"], id);
    let other = json!({"account": account, "region": "north", "spec": {"name": "db"}});
    world.post(&apply, other).await.problem(422, "plan-of-another");
    let both = format!("{apply}&validate_only=true");
    world.post(&both, body).await.problem(400, "invalid-parameter");
}

#[tokio::test]
async fn a_provider_s_limit_is_checked_before_anything_is_written() {
    let world = World::new().await;
    let account = world.account("one", None).await;
    let before = world.position().await;
    let body = json!({"account": account, "region": "north", "spec": {"name": "sg-1"}});
    world.post("/v1/security-groups", body).await.problem(422, "provider-limit");
    assert_eq!(world.position().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefer_wait_answers_when_the_order_is_done_or_parked_or_the_server_stops() {
    let world = std::sync::Arc::new(World::new().await);
    let body = json!({"name": "one", "provider": "still", "credential": {"key": "hush-hush"}});
    let waiting = |name: &'static str| {
        let (world, mut body) = (world.clone(), body.clone());
        body["name"] = json!(name);
        tokio::spawn(async move {
            let request = post("/v1/cloud-accounts", body).header("prefer", "wait=60");
            world.send(request.token(&world.admin)).await
        })
    };
    let connected = async |name: &str| loop {
        let head = world.position().await;
        let path = format!("/v1/cloud-accounts?filter=name={name}");
        let found = world.get(&path).await.json;
        if let Some(id) = found["items"][0]["id"].as_str() {
            return id.parse::<Uuid>().unwrap();
        }
        ::commands::ports::EventLog::appended(world.log.as_ref(), head).await;
    };
    let reply = waiting("done");
    world.confirm(connected("done").await, "one").await;
    let reply = reply.await.unwrap();
    assert_eq!(reply.header("preference-applied"), "wait=60");
    assert_eq!(reply.header("etag"), "\"2\"");
    assert_eq!(reply.json["order"], json!(null));
    assert!(!reply.text.contains("hush") && !reply.text.contains("credential"), "{}", reply.text);
    assert_eq!(reply.ok(201)["status"], "connected");

    let reply = waiting("parked");
    let id = connected("parked").await;
    world.system("cloud-account", Some(id), "park", json!({"number": 1, "reason": "no"})).await;
    assert_eq!(reply.await.unwrap().ok(202)["order"]["parked"], "no");

    let reply = waiting("stopped");
    connected("stopped").await;
    world.service.close();
    assert_eq!(reply.await.unwrap().ok(202)["order"]["number"], 1);
}

#[tokio::test]
async fn a_secret_is_shown_once_and_nowhere_else() {
    let world = World::new().await;
    let body = json!({"name": "ci", "role": "viewer", "reach": "all"});
    let issued = world.post("/v1/tokens", body).await.ok(201);
    let secret = issued["secret"].as_str().unwrap();
    world.send(get("/v1/projects").token(secret)).await.ok(200);
    let id = issued["id"].as_str().unwrap();
    let account = world.account("one", None).await;
    for path in [
        format!("/v1/tokens/{id}"),
        format!("/v1/tokens/{id}/history"),
        "/v1/tokens".to_owned(),
        format!("/v1/cloud-accounts/{account}"),
        format!("/v1/cloud-accounts/{account}/history"),
        format!("/v1/cloud-accounts/{account}/diff?from=0"),
        "/v1/inventory".to_owned(),
        "/v1/diff?from=0".to_owned(),
        "/v1/audit/events".to_owned(),
    ] {
        let reply = world.get(&path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        for hidden in ["secret_digest", "credential", "sealed:", "hush", secret] {
            assert!(!reply.text.contains(hidden), "{path} shows {hidden}: {}", reply.text);
        }
    }
    let guess = format!("/v1/cloud-accounts?filter=state.credential=x");
    world.get(&guess).await.problem(400, "invalid-filter");
    let why = format!("/v1/tokens/{id}/why?field=state.grant.secret_digest");
    world.get(&why).await.problem(400, "invalid-parameter");
}
