//! A token sees and changes only what it reaches: proved over every route there is.

use adapters_http::{
    openapi,
    routes::{ROUTES, Scope, Verb},
};
use domain::{
    kernel::{Caller, Reach, Role},
    kinds::KINDS,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, get, post};

/// Whatever holds this word is the other project's.
const THEIRS: &str = "bravo";

/// One of every kind in a project: kind and id.
async fn estate(world: &World, name: &str) -> (Uuid, Vec<(&'static str, Uuid)>) {
    let project = world.project(name).await;
    let account = world.account(&format!("{name}-account"), Some(project)).await;
    let mut all = vec![("project", project), ("cloud-account", account)];
    let tags = json!({ name: name });
    let vpc = format!("{name}-vpc");
    let named = |more: Value| {
        let mut seen = json!({"name": format!("{name}-thing"), "tags": tags});
        seen.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        seen
    };
    for (kind, seen) in [
        ("disk", named(json!({"size_gib": 1, "medium": "m", "state": "available"}))),
        ("network", named(json!({"vpc": vpc, "cidrs": []}))),
        ("region", json!({"name": format!("{name}-region")})),
        ("server", named(json!({"power": "running", "shape": "s"}))),
        ("vpc", named(json!({"cidrs": []}))),
        ("zone", json!({"name": format!("{name}-zone"), "available": true})),
    ] {
        all.push((kind, world.observed(kind, name, account, Some(project), seen).await));
    }
    let body = json!({
        "account": account, "region": "north", "project": project,
        "spec": {"name": format!("{name}-group"), "rules": []},
    });
    all.push(("security-group", world.system("security-group", None, "declare", body).await.id));
    // A sync run, for the views of runs and freshness.
    world.system("cloud-account", Some(account), "sync", json!({})).await;
    let scopes = json!([{
        "kind": "server", "region": format!("{name}-region"), "complete": true, "listed": 1,
        "discovered": 1, "changed": 0, "vanished": 0, "withheld": 0,
    }]);
    let finish = json!({"number": 2, "started_at": "2026-01-01T00:00:00Z", "scopes": scopes});
    world.system("cloud-account", Some(account), "finish-sync", finish).await;
    (project, all)
}

/// Every GET there is, with these resources in its path, with and without a moment.
fn reads(resources: &[(&str, Uuid)], past: u64, record: u64) -> Vec<String> {
    let mut out = Vec::new();
    for route in ROUTES.iter().filter(|route| route.method == Verb::Get) {
        let mut paths = Vec::new();
        match route.scope {
            Scope::Once => paths.push(route.path.replace("{code}", "not-found")),
            Scope::EachKind | Scope::EachCreated => {
                for kind in KINDS {
                    let path = route.path.replace("{kinds}", kind.plural);
                    if path.contains("{id}") {
                        let own = resources.iter().filter(|(name, _)| *name == kind.name);
                        paths.extend(own.map(|(_, id)| path.replace("{id}", &id.to_string())));
                    } else {
                        paths.push(path);
                    }
                }
            }
            Scope::EachSource => {
                let names = ["freshness", "inventory", "mappings", "orders", "sync-runs"];
                paths.extend(names.map(|name| route.path.replace("{view}", name)));
            }
        }
        let takes = |name: &str| route.parameters.iter().any(|one| one.name == name);
        for path in paths {
            let mut queries = vec![String::new()];
            if takes("field") {
                queries = vec!["field=name&".into(), "field=status&".into()];
            }
            if route.path.ends_with("/diff") {
                queries = vec!["from=0&".into(), format!("from=0&to={past}&")];
                if takes("view") {
                    let views = ["inventory", "mappings", "orders", "sync_runs", "freshness"];
                    queries.extend(views.map(|view| format!("from=0&view={view}&")));
                }
            }
            if route.path.ends_with("/proof") {
                queries = vec![format!("position={record}&"), "from=1&".into()];
            }
            if takes("show_gone") {
                queries.push("show_gone=true&count=true&".into());
                queries.push(format!("filter=name%3A{THEIRS}&count=true&"));
            }
            if takes("newest_first") {
                queries.push("newest_first=true&".into());
            }
            for query in queries {
                if takes("at") {
                    out.push(format!("{path}?{query}at={past}"));
                }
                out.push(format!("{path}?{query}"));
            }
        }
    }
    out
}

#[tokio::test]
async fn a_token_of_one_project_sees_nothing_of_another_on_any_route_at_any_moment() {
    let world = World::new().await;
    let (mine, ours) = estate(&world, "alpha").await;
    let (theirs_id, theirs) = estate(&world, THEIRS).await;
    let past = world.position().await;
    // One resource changes hands: what was before is the former owner's.
    let moved = ours.iter().find(|(kind, _)| *kind == "disk").unwrap().1;
    world.system("disk", Some(moved), "assign", json!({"project": theirs_id})).await;
    let kinds: Vec<_> =
        KINDS.iter().map(|kind| kind.name).filter(|kind| *kind != "token").collect();
    for kind in kinds {
        assert!(theirs.iter().any(|(own, _)| *own == kind), "{kind} has no example here");
    }
    let record = past - 1;
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let name = format!("of-alpha-{role:?}").to_lowercase();
        let token = world.token(&name, role, Reach::Projects(vec![mine])).await;
        let mut seen = 0;
        for path in reads(&theirs, past, record) {
            if path.contains(":watch") {
                continue;
            }
            let reply = world.send(get(&path).token(&token)).await;
            assert!(reply.status.as_u16() < 500, "{path}: {}", reply.text);
            assert!(!reply.text.contains(THEIRS), "{path}: {}", reply.text);
            if path.contains(&theirs_id.to_string())
                || theirs.iter().any(|(_, id)| path.contains(&id.to_string()))
            {
                assert_eq!(reply.status, 404, "{path}: {}", reply.text);
            } else {
                for (kind, id) in &theirs {
                    assert!(!reply.text.contains(&id.to_string()), "{path} names {kind}");
                }
            }
            seen += 1;
        }
        assert!(seen > 100, "{seen}");
        // What is its own it does see, so the test above is not about an empty answer.
        let names = world.send(get("/v1/servers").token(&token)).await;
        assert_eq!(names.names(), ["alpha-thing"]);
        // The disk that moved: gone now, there before, and what it is now is not told.
        let disk = format!("/v1/disks/{moved}");
        world.send(get(&disk).token(&token)).await.problem(404, "not-found");
        world.send(get(&format!("{disk}?at={past}")).token(&token)).await.ok(200);
        let history = world.send(get(&format!("{disk}/history")).token(&token)).await.ok(200);
        assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
        let count = world.send(get("/v1/disks?count=true").token(&token)).await.ok(200);
        assert_eq!(count["count"], 0);
    }
}

#[tokio::test]
async fn a_token_of_one_project_changes_nothing_of_another_by_any_command() {
    let world = World::new().await;
    let (mine, _) = estate(&world, "alpha").await;
    let (theirs_id, theirs) = estate(&world, THEIRS).await;
    let tokens = world.get("/v1/tokens").await.json;
    let token_id: Uuid = tokens["items"][0]["id"].as_str().unwrap().parse().unwrap();
    let all = theirs.iter().copied().chain([("token", token_id)]).collect::<Vec<_>>();
    let admin = world.token("alpha-admin", Role::Admin, Reach::Projects(vec![mine])).await;
    let viewer = world.token("alpha-viewer", Role::Viewer, Reach::Projects(vec![mine])).await;
    let before = world.position().await;
    let mut sent = 0;
    for kind in KINDS {
        let (_, id) = all.iter().find(|(own, _)| *own == kind.name).unwrap();
        for verb in (kind.verbs)() {
            let path = format!("/v1/{}/{id}/{}", kind.plural, verb.name);
            for query in ["", "?validate_only=true"] {
                for secret in [&admin, &viewer] {
                    let path = format!("{path}{query}");
                    let reply = world.send(post(&path, json!({})).token(secret)).await;
                    let wanted = match verb.caller {
                        Caller::Person(_) => 403,
                        Caller::System => 404,
                    };
                    assert_eq!(reply.status.as_u16(), wanted, "{path}: {}", reply.text);
                    assert!(!reply.text.contains(THEIRS), "{path}: {}", reply.text);
                    sent += 1;
                }
            }
        }
    }
    assert!(sent > 100, "{sent}");
    // Into another project, by what one creates.
    let account = theirs.iter().find(|(kind, _)| *kind == "cloud-account").unwrap().1;
    for (path, body) in [
        ("/v1/projects", json!({"name": "new"})),
        ("/v1/tokens", json!({"name": "up", "role": "admin", "reach": "all"})),
        ("/v1/tokens", json!({"name": "up", "role": "admin", "reach": {"projects": [theirs_id]}})),
        (
            "/v1/cloud-accounts",
            json!({
                "name": "x", "provider": "still", "project": theirs_id, "credential": {"key": "k"},
            }),
        ),
        (
            "/v1/cloud-accounts",
            json!({"name": "x", "provider": "still", "credential": {"key": "k"}}),
        ),
        (
            "/v1/security-groups",
            json!({
                "account": account, "region": "north", "project": theirs_id, "spec": {"name": "x"},
            }),
        ),
        (
            "/v1/security-groups",
            json!({
                "account": account, "region": "north", "spec": {"name": "x"},
            }),
        ),
    ] {
        let reply = world.send(post(path, body.clone()).token(&admin)).await;
        assert_eq!(reply.status, 403, "{path} {body}: {}", reply.text);
    }
    assert_eq!(world.position().await, before);
}

#[test]
fn every_route_of_the_document_is_one_of_the_list() {
    // What the tests above walk is what is published.
    let document = openapi();
    let published = document["paths"].as_object().unwrap().len();
    assert!(published > ROUTES.len() && published > 8 * KINDS.len(), "{published}");
}
