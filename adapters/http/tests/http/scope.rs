//! A token sees and changes only what it reaches: proved over every route there is.

use std::collections::BTreeSet;

use ::commands::ports::{Append, EventLog, Expected, NewEvent, StreamAppend};
use adapters_http::{
    openapi,
    routes::{ROUTES, Scope, Verb},
};
use axum::body::Body;
use domain::{
    kernel::{Caller, Kind, Reach, Role, StreamId, Verb as Command, canonical_value},
    kinds::KINDS,
};
use http::Request;
use projections::views::{LENSES, VIEWS};
use serde_json::{Value, json};
use tower::ServiceExt;
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
    let reach = Reach::Projects(vec![project]);
    let body = json!({"name": format!("{name}-token"), "role": "viewer", "reach": reach});
    all.push(("token", world.system("token", None, "issue", body).await.id));
    // What is the estate's belongs to no project.
    let segment = json!({
        "digest": "00", "lines": 1, "sums": {}, "source": name, "source_digest": "00",
        "findings": {}, "quarantined": 0, "imported_by": "test",
    });
    let body = json!({
        "billing_account": name, "month": "2026-10", "segment": segment, "manner": "add",
    });
    all.push(("bill", world.system("bill", None, "import", body).await.id));
    let terms = json!({
        "name": format!("{name}-plan"), "form": "savings-plan", "billing_account": name,
        "commitment": name, "currency": "EUR", "amount": "1", "start": "2026-01-01",
        "end": "2027-01-01",
    });
    let body = json!({"terms": terms});
    all.push(("commitment", world.system("commitment", None, "define", body).await.id));
    let body = json!({
        "name": name, "periods": {"2026-10": "open"}, "source": name, "source_digest": "00",
        "stated_by": "test",
    });
    all.push(("issuer", world.system("issuer", None, "state", body).await.id));
    let body = json!({"settings": {"name": format!("{name}-rates"), "currency": "EUR"}});
    all.push(("rate-set", world.system("rate-set", None, "define", body).await.id));
    let place = json!({"account": account, "bucket": format!("{name}-bills")});
    let body = json!({"name": format!("{name}-source"), "place": place});
    all.push(("bill-source", world.system("bill-source", None, "define", body).await.id));
    let body = json!({"name": format!("{name}-cluster")});
    all.push(("cluster", world.system("cluster", None, "define", body).await.id));
    let equipment = json!({"vcpus": 1, "memory_gib": "1"});
    let body = json!({"provider": name, "name": "s", "equipment": equipment});
    all.push(("shape", world.system("shape", None, "define", body).await.id));
    let body = json!({"name": format!("{name}-rules"), "rules": {}});
    all.push(("rule-set", world.system("rule-set", None, "define", body).await.id));
    let body = json!({"name": format!("{name}-domain")});
    all.push(("domain", world.system("domain", None, "create", body).await.id));
    let body = json!({"name": format!("{name}-organisation"), "levels": ["team"]});
    all.push(("organisation", world.system("organisation", None, "define", body).await.id));
    let body = json!({"resource": format!("{name}-resource"), "project": project});
    all.push(("tagging", world.system("tagging", None, "define", body).await.id));
    let watch = json!({"detector": {"daily": {"amount": "1"}}});
    let body = json!({"name": format!("{name}-watch"), "watch": watch});
    let rule = world.system("anomaly-rule", None, "define", body).await.id;
    all.push(("anomaly-rule", rule));
    let finding = json!({
        "rule": rule, "rule_name": format!("{name}-watch"), "group": {}, "currency": "EUR",
        "basis": "effective", "period": "2026-10-05", "amount": "2", "limit": "1",
        "expected": null, "measure": "the limit of a day",
    });
    let body = json!({"finding": finding, "as_of": {"position": 1, "inputs": "00"}});
    all.push(("anomaly", world.system("anomaly", None, "report", body).await.id));
    let allowance = json!({"amount": "1", "currency": "EUR", "from": "2026-01"});
    let body = json!({"name": format!("{name}-budget"), "allowance": allowance});
    all.push(("budget", world.system("budget", None, "define", body).await.id));
    let question = json!({"months": {"last": {"count": 1}}});
    let body = json!({"name": format!("{name}-report"), "question": question});
    all.push(("report", world.system("report", None, "define", body).await.id));
    let code = name.to_uppercase();
    let body = json!({"from": code, "to": "EUR", "day": "2026-10-31", "rate": 1, "source": name});
    all.push(("exchange-rate", world.system("exchange-rate", None, "define", body).await.id));
    let body = json!({"name": format!("{name}-price"), "price": {"factor": 2}});
    all.push(("repricing", world.system("repricing", None, "define", body).await.id));
    let body = json!({"name": format!("{name}-driver"), "unit": "u", "values": {"2026-10": 1}});
    all.push(("driver", world.system("driver", None, "define", body).await.id));
    let body = json!({"name": format!("{name}-host")});
    all.push(("host", world.system("host", None, "enrol", body).await.id));
    let spec = json!({"vcpus": 1, "memory_mib": 64});
    let body = json!({"name": format!("{name}-flavour"), "project": project, "spec": spec});
    all.push(("flavour", world.system("flavour", None, "define", body).await.id));
    let body = json!({
        "name": format!("{name}-segment"), "project": project, "medium": "bridge", "bridge": "br0",
    });
    all.push(("segment", world.system("segment", None, "define", body).await.id));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI";
    let body = json!({
        "name": format!("{name}-key"), "project": project, "public_key": format!("{key} {name}"),
    });
    all.push(("key-pair", world.system("key-pair", None, "define", body).await.id));
    let mut body = image();
    body["name"] = json!(format!("{name}-image"));
    body["project"] = json!(project);
    all.push(("image", world.system("image", None, "define", body).await.id));
    let of = |what: &str| Uuid::new_v5(&Uuid::nil(), format!("{what} of {name}").as_bytes());
    let credential = json!({"access_key_id": "a", "secret_access_key": "b"});
    let body = json!({
        "name": format!("{name}-store"), "project": project, "place": {"bucket": "backups"},
        "credential": credential,
    });
    let store = world.system("backup-store", None, "create", body).await.id;
    all.push(("backup-store", store));
    let made = json!({
        "digest": "00", "size_bytes": 1, "read_bytes": 1, "sent_bytes": 1, "stored_bytes": 1,
        "chunks": 1,
    });
    let body = json!({
        "store": store, "project": project, "disk": of("the disk"),
        "taken_at": "2026-01-01T00:00:00Z", "made": made,
    });
    all.push(("backup", world.system("backup", None, "find", body).await.id));
    let member = json!({"disk": of("the disk"), "disk_name": "a", "backup": of("backup")});
    let found = json!({
        "id": of("set"), "project": project, "host": of("host"), "members": [member],
    });
    let creation = json!({
        "name": format!("{name}-set"), "server": of("server"), "store": store, "found": found,
    });
    let data = json!({"creation": creation, "at": "2026-01-01T00:00:00Z"});
    happened(world, ("backup-set", of("set")), project, "creation-ordered", &data).await;
    all.push(("backup-set", of("set")));
    let machine = json!({
        "id": "m1", "name": format!("{name}-machine"), "power": "running", "status": "running",
        "firmware": "bios", "vcpus": 1, "memory_mib": 64,
    });
    let beginning = json!({
        "name": format!("{name}-move"), "project": project, "account": of("account"),
        "server": of("server"), "host": of("host"),
        "source": {"id": of("move"), "provider": "sim", "machine": machine},
    });
    let data = json!({"beginning": beginning});
    happened(world, ("move-in", of("move")), project, "begun", &data).await;
    all.push(("move-in", of("move")));
    // Of a disk of the estate: what is seen of disks is counted.
    let disk = of("disk");
    let found = json!({"id": disk, "host": of("host")});
    let creation = json!({
        "name": format!("{name}-disk"), "server": of("server"), "size_gib": 1, "found": found,
    });
    let body = json!({"creation": creation, "root": false});
    world.system("disk", Some(disk), "provision", body).await;
    world.system("disk", Some(disk), "made-with-server", json!({})).await;
    let body = json!({
        "name": format!("{name}-vault"), "place": {"bucket": "backups"},
        "credential": {"access_key_id": "a", "secret_access_key": "b"},
    });
    let vault = world.system("backup-store", None, "create", body).await.id;
    world.system("backup-store", Some(vault), "confirm", json!({"number": 1})).await;
    let terms = json!({
        "disks": [disk], "store": vault, "times": {"hours": [2]}, "keep": {"last": 1},
    });
    let body = json!({"name": format!("{name}-plan"), "terms": terms});
    all.push(("backup-plan", world.system("backup-plan", None, "define", body).await.id));
    let body = json!({"name": format!("{name}-snapshot"), "disk": disk});
    all.push(("snapshot", world.system("snapshot", None, "create", body).await.id));
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

/// Something is there that nothing of the world stands for.
async fn happened(
    world: &World,
    (kind, id): (&str, Uuid),
    project: Uuid,
    event_type: &str,
    data: &Value,
) {
    let (event_type, data) = (event_type.to_owned(), canonical_value(data));
    let append = Append {
        actor: "system:test".into(),
        command_id: id,
        correlation_id: id,
        causation_id: None,
        request: None,
        streams: vec![StreamAppend {
            stream: StreamId::new(kind, id),
            expected: Expected::NoStream,
            project: Some(project),
            events: vec![NewEvent { event_type, schema_version: 1, data }],
        }],
    };
    world.log.append(append).await.unwrap();
}

/// An image of the estate.
fn image() -> Value {
    json!({
        "name": "new", "source": "upload", "sha256": "00".repeat(32), "format": "raw",
        "size_mib": 1, "architecture": "x86_64", "os": "linux", "firmware": "bios",
        "min_disk_gib": 1,
    })
}

/// Every view and lens, as queries name them.
fn sources() -> impl Iterator<Item = &'static str> {
    VIEWS.iter().map(|view| view.name()).chain(LENSES.iter().map(|lens| lens.name))
}

/// A path to ask, and the one of the document that it is of.
struct Read {
    published: String,
    path: String,
}

/// Every GET there is, with these resources in its path, with and without a moment.
fn reads(resources: &[(&str, Uuid)], past: u64, record: u64) -> Vec<Read> {
    let mut out = Vec::new();
    for route in ROUTES.iter().filter(|route| route.method == Verb::Get) {
        let published: Vec<(Option<&str>, String)> = match route.scope {
            Scope::Once => vec![(None, route.path.to_owned())],
            Scope::EachKind | Scope::EachCreated => KINDS
                .iter()
                .map(|kind| (Some(kind.name), route.path.replace("{kinds}", kind.plural)))
                .collect(),
            Scope::EachSource => sources()
                .map(|name| (None, route.path.replace("{view}", &name.replace('_', "-"))))
                .collect(),
        };
        let takes = |name: &str| route.parameters.iter().any(|one| one.name == name);
        for (kind, published) in published {
            let path = match resources.iter().find(|(name, _)| Some(*name) == kind) {
                Some((_, id)) => published.replace("{id}", &id.to_string()),
                None => {
                    let report = resources.iter().find(|(name, _)| *name == "report").unwrap().1;
                    let path = published.replace("{id}", &report.to_string());
                    let path = path.replace("{file}", "page.js").replace("{code}", "not-found");
                    path.replace("{digest}", &"0".repeat(64))
                }
            };
            let mut queries = vec![String::new()];
            if takes("field") {
                queries = vec!["field=name&".into(), "field=status&".into()];
            }
            if route.path.ends_with("/diff") {
                queries = vec!["from=0&".into(), format!("from=0&to={past}&")];
                if takes("view") {
                    queries.extend(sources().map(|view| format!("from=0&view={view}&")));
                }
            }
            if route.path.ends_with("/proof") {
                queries = vec![format!("position={record}&"), "from=1&".into()];
            }
            if takes("show_gone") {
                queries.push("show_gone=true&count=true&".into());
                queries.push(format!("filter=name%3A{THEIRS}&count=true&"));
            }
            if takes("unattached_days") {
                queries.push("unattached_days=0&stopped_days=0&".into());
            }
            if takes("newest_first") {
                queries.push("newest_first=true&".into());
            }
            for query in queries {
                let read = |path| Read { published: published.clone(), path };
                if takes("at") {
                    out.push(read(format!("{path}?{query}at={past}")));
                }
                out.push(read(format!("{path}?{query}")));
            }
        }
    }
    out
}

/// What people may send, with the role that it needs.
fn commands(kind: &Kind) -> impl Iterator<Item = (&'static Command, Role)> {
    (kind.verbs)().iter().filter_map(|verb| match verb.caller {
        Caller::Person(role) => Some((verb, role)),
        Caller::System => None,
    })
}

/// The paths of the document that have this method.
fn published(method: &str) -> BTreeSet<String> {
    let document = openapi();
    let paths = document["paths"].as_object().unwrap().iter();
    paths.filter(|(_, item)| item[method].is_object()).map(|(path, _)| path.clone()).collect()
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
    for kind in KINDS {
        let name = kind.name;
        assert!(theirs.iter().any(|(own, _)| *own == name), "{name} has no example here");
    }
    let record = past - 1;
    let walked = reads(&theirs, past, record);
    let walked: BTreeSet<_> = walked.into_iter().map(|read| read.published).collect();
    assert_eq!(walked, published("get"));
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let name = format!("of-alpha-{role:?}").to_lowercase();
        let token = world.token(&name, role, Reach::Projects(vec![mine])).await;
        let mut seen = 0;
        for Read { path, .. } in reads(&theirs, past, record) {
            // The feed does not end: it has a test of its own.
            if path.contains(":watch") {
                continue;
            }
            let reply = world.send(get(&path).token(&token)).await;
            assert!(reply.status.as_u16() < 500, "{path}: {}", reply.text);
            assert!(!reply.text.contains(THEIRS), "{path}: {}", reply.text);
            // Costs are the estate's, whosever they are: who reaches single projects is told so.
            // So is the agent of a host, and where its servers could go.
            if path.starts_with("/v1/servers/") && path.ends_with("/console?") {
                // Opened with a ticket and no token, and only as a WebSocket.
                assert_eq!(reply.status, 426, "{path}: {}", reply.text);
            } else if ["/answer", "/runs", "/agent", "/devices", "/machines", "/leaving"]
                .iter()
                .any(|part| path.contains(part))
            {
                assert_eq!(reply.status, 403, "{path}: {}", reply.text);
            } else if path.contains(&theirs_id.to_string())
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
        // Its disk, before that changed hands, is attached to nothing.
        let path = format!("/v1/hints?unattached_days=0&at={past}");
        let hints = world.send(get(&path).token(&token)).await.ok(200);
        assert_eq!(hints["items"][0]["id"], moved.to_string(), "{hints}");
        assert_eq!(hints["sums"]["unattached-disk"]["hints"], 1, "{hints}");
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
async fn a_feed_has_the_records_of_the_projects_within_reach_and_no_others() {
    let world = World::new().await;
    let (mine, ours) = estate(&world, "alpha").await;
    let (theirs_id, theirs) = estate(&world, THEIRS).await;
    let past = world.position().await;
    let server = theirs.iter().find(|(kind, _)| *kind == "server").unwrap().1;
    let mut feeds = Vec::new();
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let name = format!("of-alpha-{role:?}").to_lowercase();
        let token = world.token(&name, role, Reach::Projects(vec![mine])).await;
        for (query, from) in [
            ("?from=0".to_owned(), Some(0)),
            (format!("?from={past}"), Some(past)),
            (format!("?from=0&project={theirs_id}"), None),
            (format!("?from=0&id={server}"), None),
            ("?from=0&kind=token".to_owned(), None),
        ] {
            let request = Request::get(format!("/v1/audit/events:watch{query}"))
                .header("authorization", format!("Bearer {token}"));
            let request = request.body(Body::empty()).unwrap();
            let response = world.router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200, "{query}");
            feeds.push((query, from, response.into_body()));
        }
    }
    // What comes while it is watched, of both; and something of ours that goes to them.
    let disk = ours.iter().find(|(kind, _)| *kind == "disk").unwrap().1;
    world.system("disk", Some(disk), "assign", json!({"project": theirs_id})).await;
    world.system("project", Some(theirs_id), "rename", json!({"name": "bravo-2"})).await;
    world.system("project", Some(mine), "rename", json!({"name": "alpha-2"})).await;
    let records = world.log.read(0, 10_000).await.unwrap();
    let own: Vec<_> = records
        .iter()
        .filter(|one| one.project() == Some(mine))
        .map(domain::log::Record::position)
        .collect();
    assert!(own.len() > 10 && *own.last().unwrap() > past, "{own:?}");
    // A feed that has shown all there is ends with its server.
    world.service.close();
    for (query, from, body) in feeds {
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(!text.contains(THEIRS), "{query}: {text}");
        let shown: Vec<u64> = text
            .split("\n\n")
            .filter(|event| event.contains("\ndata: "))
            .map(|event| event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap())
            .map(|id| id.parse().unwrap())
            .collect();
        let wanted: Vec<u64> = match from {
            Some(from) => own.iter().copied().filter(|position| *position > from).collect(),
            None => Vec::new(),
        };
        assert_eq!(shown, wanted, "{query}");
    }
}

#[tokio::test]
async fn a_token_of_one_project_changes_nothing_of_another_by_any_command() {
    let world = World::new().await;
    let (mine, _) = estate(&world, "alpha").await;
    let (theirs_id, theirs) = estate(&world, THEIRS).await;
    let estates = world.account("bravo-and-all", None).await;
    let admin = world.token("alpha-admin", Role::Admin, Reach::Projects(vec![mine])).await;
    let viewer = world.token("alpha-viewer", Role::Viewer, Reach::Projects(vec![mine])).await;
    let before = world.position().await;
    let mut walked = BTreeSet::new();
    for kind in KINDS {
        let (_, id) = theirs.iter().find(|(own, _)| *own == kind.name).unwrap();
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
                }
            }
            if matches!(verb.caller, Caller::Person(_)) {
                walked.insert(format!("/v1/{}/{{id}}/{}", kind.plural, verb.name));
            }
        }
    }
    // Into another project, or by another project's account, by what one creates.
    let account = theirs.iter().find(|(kind, _)| *kind == "cloud-account").unwrap().1;
    let their_disk = theirs.iter().find(|(kind, _)| *kind == "disk").unwrap().1;
    let their_server = theirs.iter().find(|(kind, _)| *kind == "server").unwrap().1;
    for (path, body) in [
        ("/v1/projects", json!({"name": "new"})),
        ("/v1/domains", json!({"name": "new"})),
        ("/v1/organisations", json!({"name": "new", "levels": ["team"]})),
        ("/v1/hosts", json!({"name": "new"})),
        ("/v1/servers", json!({"name": "new", "spec": {"vcpus": 1, "memory_mib": 1}})),
        ("/v1/drivers", json!({"name": "new", "unit": "u", "values": {"2026-10": 1}})),
        (
            "/v1/exchange-rates",
            json!({"from": "USD", "to": "EUR", "day": "2026-10-31", "rate": "0.9"}),
        ),
        ("/v1/repricings", json!({"name": "new", "price": {"factor": "1.1"}})),
        ("/v1/rule-sets", json!({"name": "new", "rules": {}})),
        (
            "/v1/commitments",
            json!({"terms": {
                "name": "plan", "form": "savings-plan", "billing_account": "1", "commitment": "sp",
                "currency": "EUR", "amount": "1", "start": "2026-01-01", "end": "2027-01-01",
            }}),
        ),
        ("/v1/reports", json!({"name": "new", "question": {"months": {"last": {"count": 1}}}})),
        (
            "/v1/budgets",
            json!({
                "name": "new", "allowance": {"amount": "1", "currency": "EUR", "from": "2026-01"},
            }),
        ),
        (
            "/v1/anomaly-rules",
            json!({"name": "new", "watch": {"detector": {"daily": {"amount": "1"}}}}),
        ),
        (
            "/v1/bill-sources",
            json!({"name": "x", "place": {"account": account, "bucket": "bills"}}),
        ),
        ("/v1/clusters", json!({"name": "edge"})),
        ("/v1/backups", json!({"name": "new", "disk": their_disk, "store": their_disk})),
        ("/v1/backup-sets", json!({"name": "new", "server": their_server, "store": their_disk})),
        (
            "/v1/backup-plans",
            json!({
                "name": "new",
                "terms": {
                    "disks": [their_disk], "store": their_disk, "times": {"hours": [2]},
                    "keep": {"last": 1},
                },
            }),
        ),
        (
            "/v1/backup-stores",
            json!({
                "name": "new", "place": {"bucket": "backups"},
                "credential": {"access_key_id": "a", "secret_access_key": "b"},
            }),
        ),
        ("/v1/snapshots", json!({"name": "new", "disk": their_disk})),
        ("/v1/disks", json!({"name": "new", "server": their_server, "size_gib": 1})),
        (
            "/v1/flavours",
            json!({
                "name": "new", "project": theirs_id, "spec": {"vcpus": 1, "memory_mib": 64},
            }),
        ),
        ("/v1/flavours", json!({"name": "new", "spec": {"vcpus": 1, "memory_mib": 64}})),
        ("/v1/images", image()),
        (
            "/v1/key-pairs",
            json!({
                "name": "new", "project": theirs_id,
                "public_key": "ssh-ed25519 \
                    AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI",
            }),
        ),
        (
            "/v1/networks",
            json!({
                "name": "new", "project": theirs_id, "segment": theirs_id,
                "v4": {"net": "10.0.0.0/24"},
            }),
        ),
        ("/v1/segments", json!({"name": "new", "medium": "bridge", "bridge": "br0"})),
        ("/v1/rate-sets", json!({"settings": {"name": "own", "currency": "EUR"}})),
        (
            "/v1/shapes",
            json!({
                "provider": "p", "name": "s", "equipment": {"vcpus": 1, "memory_gib": "1"},
            }),
        ),
        ("/v1/taggings", json!({"resource": "i-1", "tags": {"env": "prod"}})),
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
        (
            "/v1/security-groups",
            json!({
                "account": account, "region": "north", "project": mine, "spec": {"name": "x"},
            }),
        ),
        (
            "/v1/security-groups",
            json!({
                "account": estates, "region": "north", "project": mine, "spec": {"name": "x"},
            }),
        ),
        (
            "/v1/security-groups",
            json!({
                "account": estates, "region": "north", "spec": {"name": "x"},
            }),
        ),
    ] {
        for query in ["", "?validate_only=true"] {
            let path = format!("{path}{query}");
            let reply = world.send(post(&path, body.clone()).token(&admin)).await;
            assert!(!reply.text.contains(THEIRS), "{path}: {}", reply.text);
            reply.problem(403, "out-of-reach");
        }
        // The same under an id of one's own.
        let with_id = creating_path(path);
        let reply = world.send(post(&with_id, body.clone()).token(&admin)).await;
        assert!(!reply.text.contains(THEIRS), "{with_id}: {}", reply.text);
        reply.problem(403, "out-of-reach");
        walked.insert(path.to_owned());
    }
    for path in [
        "/v1/allocations",
        "/v1/amortisations",
        "/v1/anomaly-detections",
        "/v1/bill-imports",
        "/v1/budget-evaluations",
        "/v1/ratings",
        "/v1/usage-imports",
    ] {
        let reply = world.send(post(path, json!({})).token(&admin)).await;
        assert_eq!(reply.status, 403, "{}", reply.text);
        walked.insert(path.to_owned());
    }
    let body = json!({"project": theirs_id, "spec": {"vcpus": 1, "memory_mib": 1}});
    let reply = world.send(post("/v1/placements", body).token(&admin)).await;
    assert!(!reply.text.contains(THEIRS), "{}", reply.text);
    reply.problem(403, "out-of-reach");
    walked.insert("/v1/placements".to_owned());
    let report = theirs.iter().find(|(kind, _)| *kind == "report").unwrap().1;
    let path = format!("/v1/reports/{report}/runs");
    world.send(post(&path, json!({})).token(&admin)).await.problem(403, "out-of-reach");
    walked.insert("/v1/reports/{id}/runs".to_owned());
    let image = theirs.iter().find(|(kind, _)| *kind == "image").unwrap().1;
    let path = format!("/v1/images/{image}/file");
    world.send(post(&path, json!({})).token(&admin)).await.problem(404, "not-found");
    walked.insert("/v1/images/{id}/file".to_owned());
    let host = theirs.iter().find(|(kind, _)| *kind == "host").unwrap().1;
    for what in ["answer", "join", "sight", "tasks"] {
        let path = format!("/v1/hosts/{host}/agent/{what}");
        world.send(post(&path, json!({})).token(&admin)).await.problem(403, "role-too-low");
        walked.insert(format!("/v1/hosts/{{id}}/agent/{what}"));
    }
    assert_eq!(walked, published("post"));
    assert_eq!(world.position().await, before);
}

/// The path that creates one under an id that nothing has.
fn creating_path(plural: &str) -> String {
    let kind = KINDS.iter().find(|kind| plural.ends_with(kind.plural)).unwrap();
    let (verb, _) = commands(kind).find(|(verb, _)| verb.creates).unwrap();
    format!("{plural}/{}/{}", Uuid::from_u128(0xfeed), verb.name)
}

#[tokio::test]
async fn what_was_given_to_a_project_is_commanded_there_through_an_account_out_of_reach() {
    let world = World::new().await;
    let mine = world.project("alpha").await;
    let theirs = world.project(THEIRS).await;
    let account = world.account("bravo-account", Some(theirs)).await;
    let spec = |name: &str| json!({"spec": {"name": name}});
    let place = json!({"account": account, "region": "north", "spec": {"name": "given"}});
    let group = world.system("security-group", None, "declare", place).await.id;
    let link = json!({"number": 1, "external_id": "given-1", "seen": {"name": "given"}});
    world.system("security-group", Some(group), "link", link).await;
    let declare = format!("/v1/security-groups/{group}/declare");
    let operator = world.token("alpha-ops", Role::Operator, Reach::Projects(vec![mine])).await;
    let send = async |name: &str| world.send(post(&declare, spec(name)).token(&operator)).await;
    send("changed").await.problem(403, "out-of-reach");
    world.system("security-group", Some(group), "assign", json!({"project": mine})).await;
    // Of the account it lives in nothing is told, not even its name.
    world.system("cloud-account", Some(account), "pause", json!({})).await;
    let paused = send("changed").await;
    assert!(!paused.text.contains(THEIRS), "{}", paused.text);
    paused.problem(409, "account-not-ready");
    world.system("cloud-account", Some(account), "resume", json!({})).await;
    let changed = send("changed").await.ok(202);
    assert_eq!(changed["order"]["order"]["type"], "apply", "{changed}");
}

#[tokio::test]
async fn a_report_that_is_not_shared_answers_its_maker_and_admins() {
    let world = World::new().await;
    let maker = world.token("ann", Role::Operator, Reach::All).await;
    let question = json!({"months": {"last": {"count": 1}}});
    let body = json!({"name": "mine", "question": question});
    let made = world.send(post("/v1/reports", body.clone()).token(&maker)).await.ok(201);
    let answer = format!("/v1/reports/{}/answer", made["id"].as_str().unwrap());
    let other = world.token("bob", Role::Operator, Reach::All).await;
    let admin = world.token("root", Role::Admin, Reach::All).await;
    world.send(get(&answer).token(&other)).await.problem(404, "not-found");
    // No answers are written here: who is told that has been let in.
    for who in [&maker, &admin] {
        world.send(get(&answer).token(who)).await.problem(503, "segments-unavailable");
    }
    let mut shared = body;
    shared["shared"] = json!(true);
    let define = format!("/v1/reports/{}/define", made["id"].as_str().unwrap());
    world.send(post(&define, shared).token(&maker)).await.ok(200);
    world.send(get(&answer).token(&other)).await.problem(503, "segments-unavailable");
}

#[tokio::test]
async fn every_command_is_refused_to_every_role_below_its_own() {
    let world = World::new().await;
    let (_, ours) = estate(&world, "alpha").await;
    let roles = [Role::Viewer, Role::Operator, Role::Admin];
    let mut tokens = Vec::new();
    for role in roles {
        // Only the role is in the way.
        let name = format!("{role:?}").to_lowercase();
        tokens.push((role, world.token(&name, role, Reach::All).await));
    }
    let before = world.position().await;
    for kind in KINDS {
        let (_, id) = ours.iter().find(|(own, _)| *own == kind.name).unwrap();
        for (verb, needed) in commands(kind) {
            assert!(needed > Role::Viewer, "{} {} by who only reads", kind.name, verb.name);
            let mut paths = vec![format!("/v1/{}/{id}/{}", kind.plural, verb.name)];
            if verb.creates {
                paths.push(format!("/v1/{}", kind.plural));
            }
            for (role, token) in &tokens {
                for path in &paths {
                    let planned = format!("{path}?validate_only=true");
                    let plan = world.send(post(&planned, json!({})).token(token)).await;
                    if *role < needed {
                        plan.problem(403, "role-too-low");
                        let reply = world.send(post(path, json!({})).token(token)).await;
                        reply.problem(403, "role-too-low");
                    } else {
                        assert_ne!(plan.status, 403, "{role:?} {path}: {}", plan.text);
                    }
                }
            }
        }
    }
    assert_eq!(world.position().await, before);
}

#[tokio::test]
async fn a_request_is_answered_again_only_while_its_resource_is_within_reach() {
    let world = World::new().await;
    let (mine, ours) = estate(&world, "alpha").await;
    let theirs = world.project(THEIRS).await;
    let server = ours.iter().find(|(kind, _)| *kind == "server").unwrap().1;
    let operator = world.token("alpha-ops", Role::Operator, Reach::Projects(vec![mine])).await;
    let tag = format!("/v1/servers/{server}/tag");
    let start = format!("/v1/servers/{server}/start");
    let send = async |path: &str, body: Value| {
        let request = post(path, body).token(&operator).header("idempotency-key", path);
        world.send(request).await
    };
    let tags = || json!({"tags": {"env": "test"}});
    // One that does something, and one that finds nothing to do.
    assert_eq!(send(&start, json!({})).await.ok(200)["events"], json!([]));
    let first = send(&tag, tags()).await.ok(202);
    let again = send(&tag, tags()).await.ok(202);
    assert_eq!((&again["repeated"], &again["position"]), (&json!(true), &first["position"]));
    world.system("server", Some(server), "assign", json!({"project": theirs})).await;
    let after = world.position().await;
    send(&tag, tags()).await.problem(403, "out-of-reach");
    send(&start, json!({})).await.problem(403, "out-of-reach");
    assert_eq!(world.position().await, after);
}
