//! Commands of who has what.

use serde_json::json;

use super::{Told, numbers, park};
use crate::samples::{id, time};

/// Commands of a kind of these; none of another.
pub(super) fn commands(kind: &str) -> Vec<Told> {
    let mut pool = Vec::new();
    match kind {
        "domain" => {
            pool.extend(["a", "b", ""].map(|name| ("create", json!({"name": name}))));
            pool.extend(["a", "b"].map(|name| ("rename", json!({"name": name}))));
            pool.extend([("archive", json!({})), ("restore", json!({}))]);
        }
        "organisation" => {
            for levels in [&["a"][..], &["a", "b"]] {
                pool.push(("define", json!({"name": "Acme", "levels": levels})));
            }
            for (key, parent) in [("x", None), ("y", Some("x")), ("z", Some("y"))] {
                let node = json!({"key": key, "parent": parent});
                pool.extend([("add-node", node.clone()), ("move-node", node)]);
                pool.push(("move-node", json!({"key": key})));
                pool.push(("remove-node", json!({"key": key})));
                pool.push(("rename-node", json!({"key": key, "name": "n"})));
                pool.push(("bind", json!({"node": key, "projects": [id(2), id(3)]})));
                pool.push((
                    "set-rules",
                    json!({"rules": [{"conditions": [
                    {"dimension": "name", "values": ["shop"]}], "node": key}]}),
                ));
            }
            pool.push(("set-rules", json!({"rules": []})));
            pool.push(("unbind", json!({"projects": [id(2)]})));
            pool.extend([("archive", json!({})), ("restore", json!({}))]);
        }
        "project" => {
            pool.push(("assign", json!({"domain": id(3)})));
            pool.push(("assign", json!({})));
            pool.push(("tag", json!({"tags": {"a": "1", "team": null}})));
            pool.push(("tag", json!({"tags": {"a": null}})));
            pool.extend(["a", "b", ""].map(|name| ("create", json!({"name": name}))));
            pool.extend(["a", "b"].map(|name| ("rename", json!({"name": name}))));
            pool.extend([("archive", json!({})), ("restore", json!({}))]);
        }
        "token" => {
            let digest = "0".repeat(64);
            pool.push((
                "issue",
                json!({"name": "ci", "role": "viewer", "reach": "all", "secret_digest": digest}),
            ));
            pool.push(("revoke", json!({})));
        }
        "cloud-account" => {
            park(&mut pool);
            pool.push(("connect", json!({"name": "a", "provider": "sim", "credential": "s1"})));
            for n in numbers() {
                for account in ["acc-1", "acc-2"] {
                    pool.push((
                        "confirm-identity",
                        json!({"number": n, "external_account": account, "principal": "p"}),
                    ));
                }
                pool.push((
                    "finish-sync",
                    json!({"number": n, "started_at": time(), "scopes": []}),
                ));
                pool.push(("refuse-credential", json!({"number": n, "reason": "no"})));
            }
            pool.extend([1, 2].map(|n| ("configure", json!({"settings": {"limit": n}}))));
            pool.extend(["pause", "resume", "sync", "verify"].map(|verb| (verb, json!({}))));
            pool.extend(["s1", "s2"].map(|one| ("update-credential", json!({"credential": one}))));
            pool.extend(["a", "b"].map(|name| ("rename", json!({"name": name}))));
        }
        _ => {}
    }
    pool
}
