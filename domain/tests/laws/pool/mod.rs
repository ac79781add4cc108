//! Commands of every kind, as histories are made of.

mod compute;
mod finops;
mod lives;
mod network;
mod tenancy;

pub(crate) use lives::told_lives;

use std::ops::Range;

use serde_json::{Value, json};

use crate::samples::{ALL, found_addresses, id, made, origin};

/// A command: its verb and body.
pub(crate) type Told = (&'static str, Value);

/// What orders may have as their number.
fn numbers() -> Range<u64> {
    1..12
}

/// An order is parked, and what can be done then.
fn park(pool: &mut Vec<Told>) {
    pool.extend(numbers().map(|n| ("park", json!({"number": n, "reason": "quota"}))));
    pool.extend([("abandon", json!({})), ("retry", json!({}))]);
}

fn vanish() -> Told {
    ("vanish", json!({"evidence": "not-found-by-id"}))
}

fn assign(project: u128) -> Told {
    ("assign", json!({"project": id(project)}))
}

/// Commands that fit each other now and then: few values, and the numbers of a dozen orders.
pub(crate) fn commands(kind: &str) -> Vec<Told> {
    let areas = [compute::commands, finops::commands, network::commands, tenancy::commands, seen];
    let found = areas.iter().map(|area| area(kind)).find(|pool| !pool.is_empty());
    let mut pool = found.unwrap_or_default();
    // Few commands fit a parked order, so the one that goes on with it stands in several places.
    if pool.iter().any(|(verb, _)| *verb == "retry") {
        for quarter in 0..4 {
            pool.insert(pool.len() * quarter / 4, ("retry", json!({})));
        }
    }
    pool
}

/// Commands of a kind that is only looked at.
fn seen(kind: &str) -> Vec<Told> {
    let mut pool = Vec::new();
    for sample in ALL.iter().filter(|one| one.kind == kind) {
        let seen = sample.kept.iter().find(|(tag, _)| tag == "reappeared").unwrap();
        let mut other = seen.1["seen"].clone();
        other["name"] = json!("other");
        for seen in [&seen.1["seen"], &other] {
            pool.push(("observe", json!({"origin": origin("x-1"), "seen": seen})));
        }
    }
    pool.extend([vanish(), assign(2), assign(3)]);
    pool
}

/// What a set of backups is ordered with.
fn set_creation() -> Value {
    json!({
        "name": "monday", "server": id(7), "store": id(9),
        "found": {
            "id": id(30), "project": id(2), "host": id(8),
            "members": [{"disk": id(14), "disk_name": "web-0", "backup": id(31)}],
        },
    })
}

/// A set is there.
fn set_taken(number: u64) -> Told {
    let taken = json!({"quiesced": true, "made": {id(14).to_string(): made()}});
    ("confirm", json!({"number": number, "taken": taken}))
}

/// The file of an image has come.
fn uploaded() -> Told {
    let file = json!({"size_bytes": 400 << 20, "disk_bytes": 2_u64 << 30});
    ("confirm-upload", json!({"by": "token:ci", "file": file}))
}

/// An interface is to have other addresses.
fn other_addresses() -> Value {
    let any = json!({"type": "any", "data": {}});
    json!({"nic": id(15), "v4": any, "found": found_addresses()})
}
