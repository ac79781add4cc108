//! Whatever a caller sends: a clear problem, and nothing written.

use ::commands::ports::LogFault;
use adapters_http::{Options, problem::PROBLEMS};
use domain::kernel::{REFUSALS, Reach, Role};
use proptest::prelude::*;
use serde_json::json;

use crate::world::{World, ask, get, post};

#[tokio::test]
async fn bad_input_is_a_clear_problem_and_writes_nothing() {
    let world = World::new().await;
    let before = world.position().await;
    let json = ("content-type", "application/json");
    let deep = format!("{}1{}", "{\"a\":".repeat(40), "}".repeat(40));
    let big = format!("{{\"name\":\"{}\"}}", "x".repeat(10 << 20));
    let bodies: &[(&[u8], (&str, &str), u16, &str)] = &[
        (b"{", json, 400, "invalid-json"),
        (b"[]", json, 400, "invalid-json"),
        (b"{\"name\":\"\xff\"}", json, 400, "invalid-json"),
        (b"{\"name\":1e999}", json, 400, "invalid-json"),
        (deep.as_bytes(), json, 400, "invalid-json"),
        (big.as_bytes(), json, 413, "body-too-large"),
        (b"{\"name\":7}", json, 400, "malformed-command"),
        (b"{}", json, 400, "malformed-command"),
        (b"{\"name\":\"x\",\"nome\":\"y\"}", json, 400, "malformed-command"),
        (b"{\"name\":\"\"}", json, 422, "invalid-field"),
        (
            b"name=x",
            ("content-type", "application/x-www-form-urlencoded"),
            415,
            "unsupported-media-type",
        ),
        (b"{\"name\":\"x\"}", ("x-other", "1"), 415, "unsupported-media-type"),
    ];
    for (body, (name, value), status, code) in bodies {
        let request = ask("POST", "/v1/projects", *body).header(name, *value).token(&world.admin);
        world.send(request).await.problem(*status, code);
    }
    assert_eq!(world.position().await, before);
}

#[tokio::test]
async fn paths_parameters_and_headers_that_do_not_read_are_refused() {
    let world = World::new().await;
    let project = world.project("shop").await;
    for (path, status, code) in [
        ("/v1/nothing".to_owned(), 404, "no-such-path"),
        ("/v1/projects/7".to_owned(), 400, "invalid-id"),
        ("/v1/projects/%ff".to_owned(), 400, "invalid-parameter"),
        (format!("/v1/servers/{project}"), 404, "not-found"),
        (format!("/v1/projects/{project}/rename"), 405, "method-not-allowed"),
        ("/v1/projects?filtre=x".to_owned(), 400, "unknown-parameter"),
        ("/v1/projects?page_size=0".to_owned(), 400, "invalid-parameter"),
        ("/v1/projects?page_size=99999999999999999999999".to_owned(), 400, "invalid-parameter"),
        ("/v1/projects?page_token=x".to_owned(), 400, "invalid-parameter"),
        ("/v1/projects?filter=nome%20%3D%20x".to_owned(), 400, "invalid-filter"),
        ("/v1/projects?order_by=nome".to_owned(), 400, "invalid-parameter"),
        ("/v1/projects?at=yesterday".to_owned(), 400, "invalid-parameter"),
        ("/v1/projects?at=9999".to_owned(), 400, "invalid-parameter"),
        ("/v1/projects?at=2999-01-01T00:00:00Z".to_owned(), 400, "invalid-parameter"),
        ("/v1/diff?from=3&to=1".to_owned(), 400, "invalid-parameter"),
        ("/v1/diff?from=1&view=nothing".to_owned(), 400, "invalid-parameter"),
        ("/v1/diff".to_owned(), 400, "invalid-parameter"),
        ("/v1/audit/proof".to_owned(), 400, "invalid-parameter"),
        ("/v1/audit/proof?position=99".to_owned(), 404, "not-found"),
        ("/v1/audit/proof?from=99".to_owned(), 400, "invalid-parameter"),
        ("/v1/audit/events:watch?from=99".to_owned(), 400, "invalid-parameter"),
        (format!("/v1/projects/{project}/why"), 400, "invalid-parameter"),
        (format!("/v1/projects/{project}/why?field=nothing"), 400, "invalid-parameter"),
        ("/problems/nothing".to_owned(), 404, "not-found"),
    ] {
        world.get(&path).await.problem(status, code);
    }
    let unknown = world.get("/v1/projects?filtre=x").await.json;
    assert!(unknown["detail"].as_str().unwrap().contains("filter"), "{unknown}");
    let refused = world.get(&format!("/v1/projects/{project}/rename")).await;
    assert_eq!(refused.header("allow"), "POST");
    for (name, value) in [
        ("if-match", "7"),
        ("idempotency-key", "\"\""),
        ("idempotency-key", "a b"),
        ("prefer", "wait=soon"),
        ("if-match", "\"x\""),
    ] {
        let request = post("/v1/projects", json!({"name": "x"})).header(name, value);
        let reply = world.send(request.token(&world.admin)).await;
        assert_eq!(reply.status, 400, "{name}: {value}: {}", reply.text);
    }
    let request = get("/v1/projects").header("skyledger-min-position", "99").token(&world.admin);
    world.send(request).await.problem(400, "invalid-parameter");
    let unknown = world.post(&format!("/v1/projects/{project}/explode"), json!({})).await;
    unknown.problem(404, "unknown-command");
    let hidden = world.post(&format!("/v1/servers/{project}/observe"), json!({})).await;
    hidden.problem(404, "unknown-command");
}

#[tokio::test]
async fn without_a_valid_token_only_public_paths_answer() {
    let world = World::new().await;
    let kept = world.get("/v1/tokens").await.json["items"][0]["id"].as_str().unwrap().to_owned();
    for request in [
        get("/v1/projects"),
        get("/v1/projects").token("skyledger_nobody"),
        get("/v1/projects").token("secret"),
        get("/v1/projects").header("authorization", "Basic eDp5"),
        get("/metrics"),
    ] {
        let reply = world.send(request).await;
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
        reply.problem(401, "unauthenticated");
    }
    for path in ["/", "/livez", "/readyz", "/openapi.json", "/problems/not-found"] {
        world.send(get(path)).await.ok(200);
    }
    // Revoked: over at once. Expired: by the ledger's clock.
    let brief = world.token("brief", Role::Viewer, Reach::All).await;
    world.send(get("/v1/projects").token(&brief)).await.ok(200);
    world.clock.advance(std::time::Duration::from_secs(367 * 86_400));
    world.send(get("/v1/projects").token(&brief)).await.problem(401, "unauthenticated");
    let admin = world.token("late", Role::Admin, Reach::All).await;
    let viewer = world.token("viewer", Role::Viewer, Reach::All).await;
    world.send(get("/v1/projects").token(&viewer)).await.ok(200);
    let listed = world.send(get("/v1/tokens?filter=name=viewer").token(&admin)).await;
    let id = listed.json["items"][0]["id"].as_str().unwrap().to_owned();
    assert_ne!(id, kept);
    let revoke = format!("/v1/tokens/{id}/revoke");
    world.send(post(&revoke, json!({})).token(&admin)).await.ok(200);
    world.send(get("/v1/projects").token(&viewer)).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_role_too_low_is_told_which_rule_said_no() {
    let world = World::new().await;
    let viewer = world.token("viewer", Role::Viewer, Reach::All).await;
    let request = post("/v1/projects", json!({"name": "x"})).token(&viewer);
    let problem = world.send(request).await.problem(403, "role-too-low");
    assert_eq!(problem["detail"], "token:viewer has role viewer, this needs admin");
}

#[tokio::test]
async fn a_log_that_fails_is_a_503_that_says_when_to_come_back() {
    let world = World::new().await;
    for (fault, code, after) in [
        (LogFault::Full("/data".into()), "log-full", "10"),
        (LogFault::Unavailable("db".into()), "log-unavailable", "1"),
        (LogFault::Corrupt { position: 3, reason: "x".into() }, "log-damaged", ""),
    ] {
        *world.log.fault.lock().unwrap() = Some(fault);
        let reply = world.post("/v1/projects", json!({"name": "x"})).await;
        assert_eq!(reply.header("retry-after"), after);
        assert!(!reply.text.contains("/data"), "{}", reply.text);
        reply.problem(503, code);
    }
    *world.log.fault.lock().unwrap() = None;
    world.post("/v1/projects", json!({"name": "x"})).await.ok(201);
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_request_s_id_and_the_next_request_is_served() {
    let check: adapters_http::Check = ("broken", Box::new(|| panic!("a bug")));
    let world = World::with(Options { checks: vec![check], ..Options::default() }).await;
    let problem = world.send(get("/readyz").header("x-request-id", "mine")).await;
    let problem = problem.problem(500, "internal");
    assert_eq!(problem["request_id"], "mine");
    assert!(!problem.to_string().contains("a bug"));
    world.send(get("/livez")).await.ok(200);
}

#[tokio::test]
async fn every_code_has_its_page() {
    let world = World::new().await;
    for code in PROBLEMS.iter().chain(REFUSALS) {
        let page = world.send(get(&format!("/problems/{}", code.code))).await.ok(200);
        assert_eq!(page["status"], code.status);
    }
}

#[tokio::test]
async fn a_body_within_the_limit_whose_event_is_not_is_refused_and_not_a_fault() {
    let world = World::new().await;
    let before = world.position().await;
    let key = "k".repeat(1_000_000);
    let body = json!({"name": "one", "provider": "still", "credential": {"key": key}});
    world.post("/v1/cloud-accounts", body).await.problem(422, "invalid-field");
    assert_eq!(world.position().await, before);
}

#[tokio::test]
async fn an_id_of_one_kind_is_no_id_for_another() {
    let world = World::new().await;
    let project = world.project("shop").await;
    let before = world.position().await;
    let body = json!({"name": "ci", "role": "viewer", "reach": "all"});
    let issue = format!("/v1/tokens/{project}/issue");
    world.post(&issue, body).await.problem(409, "already-exists");
    assert_eq!(world.position().await, before);
    world.get("/v1/inventory").await.ok(200);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_filter_is_a_fault(
        filter in r#"((name|status|gone|revision|updated_at|tags\.a|state\.b|kind|nome)? ?(=|!=|<|>=|:|IN|NOT IN|in)? ?("?[a-z0-9*\\-]{0,6}"?|null|true|-?[0-9]{1,20}|\([a-z, ]{0,9}\))? ?(AND|OR)? ?){0,3}|\PC{0,40}"#,
        order in "(name|updated_at|nome)?( asc| desc| x)?(,(gone|name))?",
    ) {
        runtime().block_on(async {
            let world = World::new().await;
            let escape = |text: &str| {
                text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
            };
            let path = format!("/v1/inventory?filter={}&order_by={}", escape(&filter), escape(&order));
            let reply = world.get(&path).await;
            prop_assert!(matches!(reply.status.as_u16(), 200 | 400), "{path}: {}", reply.text);
            Ok(())
        })?;
    }

    #[test]
    fn no_body_or_header_is_a_fault(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            r#"\{"(name|provider|credential|spec|reach)":(null|1|-1e3|"[a-z]{0,3}"|\{\}|\[1\])\}"#
                .prop_map(String::into_bytes),
        ],
        path in prop_oneof![
            Just("/v1/projects"), Just("/v1/cloud-accounts"), Just("/v1/security-groups"),
            Just("/v1/tokens"),
            Just("/v1/servers/00000000-0000-7000-8000-000000000001/start"),
            Just("/v1/security-groups/00000000-0000-7000-8000-000000000001/declare?validate_only=true"),
        ],
        header in "[ -~]{0,12}",
    ) {
        runtime().block_on(async {
            let world = World::new().await;
            for name in ["if-match", "idempotency-key", "prefer", "traceparent", "x-request-id"] {
                let request = ask("POST", path, body.clone())
                    .header("content-type", "application/json")
                    .header(name, header.clone())
                    .token(&world.admin);
                let reply = world.send(request).await;
                prop_assert!(reply.status.as_u16() < 500, "{path}: {}", reply.text);
            }
            Ok(())
        })?;
    }
}
