//! Other looks at the inventory: mappings with their drift, and orders that are out.

use serde_json::{Value, json};

use crate::view::Lens;

fn pick(row: &Value, names: &[&str]) -> Value {
    let mut out = json!({});
    for name in names {
        if let Some(value) = row.get(*name) {
            out[*name] = value.clone();
        }
    }
    out
}

/// Everything that is mapped one to one, with wanted, seen and where they differ.
pub(crate) const MAPPINGS: Lens = Lens {
    name: "mappings",
    summary: "Everything mapped one to one to a cloud, with its drift field by field.",
    view: "inventory",
    only: &[("drifted", None)],
    show: |row| {
        let mut out = pick(
            row,
            &[
                "kind",
                "id",
                "name",
                "status",
                "project",
                "account",
                "provider",
                "region",
                "external_id",
                "revision",
                "drifted",
                "drift",
                "updated_at",
                "updated_by",
            ],
        );
        let state = &row["state"];
        for name in ["wanted", "seen", "seen_by", "muted"] {
            if !state[name].is_null() {
                out[name] = state[name].clone();
            }
        }
        out
    },
};

/// Everything that waits for the world.
pub(crate) const ORDERS: Lens = Lens {
    name: "orders",
    summary: "Every order that is out: pending, running or parked.",
    view: "inventory",
    only: &[("order_state", None)],
    show: |row| {
        let mut out = pick(
            row,
            &[
                "kind",
                "id",
                "name",
                "status",
                "project",
                "account",
                "provider",
                "region",
                "external_id",
                "revision",
                "updated_at",
                "updated_by",
            ],
        );
        let order = &row["order"];
        out["number"] = order["number"].clone();
        out["order"] = order["order"]["type"].clone();
        let parked = order["parked"].is_string();
        out["order_state"] = json!(if parked { "parked" } else { "pending" });
        if parked {
            out["reason"] = order["parked"].clone();
            out["verbs"] = json!(["abandon", "retry"]);
        }
        out
    },
};
