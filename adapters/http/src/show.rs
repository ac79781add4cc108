//! How values are shown: without secrets, without what is the estate's to those who do not reach it,
//! with times that people read.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{kernel::Reach, log::Record, mapping::FieldDrift};
use serde_json::Value;

/// Members that hold a secret, sealed or as a digest. They are in the log because they must be,
/// and nobody outside needs them.
pub(crate) const SECRET: &[&str] =
    &["candidate", "credential", "envelope", "password", "secret_digest"];

/// Whether a path leads to or into a secret.
pub(crate) fn is_secret(path: &str) -> bool {
    path.split('.').any(|step| SECRET.contains(&step))
}

/// Whether a path leads to or into what a placement says of other hosts, which only who reaches the
/// estate sees: why each was not taken, and which would have been next.
pub(crate) fn is_of_other_hosts(path: &str) -> bool {
    let mut steps = path.split('.').skip_while(|step| *step != "placement").skip(1);
    match steps.next() {
        Some("runners_up") => true,
        Some("rejected") => steps.next().is_none_or(|step| step == "hosts"),
        _ => false,
    }
}

/// Paths that a filter compares as a text which other hosts are part of.
const OVER_OTHER_HOSTS: &[&str] = &[
    "state.home",
    "state.home.placement",
    "state.orders",
    "state.orders.out",
    "state.orders.out.order",
    "state.orders.out.order.data",
    "state.orders.out.order.data.placement",
];

/// Whether filtering by a path tells of other hosts.
pub(crate) fn tells_of_other_hosts(path: &str) -> bool {
    OVER_OTHER_HOSTS.contains(&path) || is_of_other_hosts(path)
}

/// Removes secrets at any depth, and what is not within reach. Tags are their owners' own words and
/// stay.
pub(crate) fn redact(value: &mut Value, reach: &Reach) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !SECRET.contains(&name.as_str()));
            for (name, member) in members {
                if name == "placement" && !reach.covers(None) {
                    forget_other_hosts(member);
                }
                if name != "tags" {
                    redact(member, reach);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, reach)),
        _ => {}
    }
}

/// How many hosts had no place and why is an answer to who asked; which those were is not.
fn forget_other_hosts(placement: &mut Value) {
    let Value::Object(members) = placement else { return };
    members.remove("runners_up");
    if let Some(Value::Object(rejected)) = members.get_mut("rejected") {
        rejected.remove("hosts");
    }
}

/// Fields that differ, without the secret ones and those that are not within reach.
pub(crate) fn differences(mut fields: Vec<FieldDrift>, reach: &Reach) -> Vec<FieldDrift> {
    let hidden = |path: &str| !reach.covers(None) && is_of_other_hosts(path);
    fields.retain(|one| !is_secret(&one.field) && !hidden(&one.field));
    for one in &mut fields {
        // A field may be the placement itself.
        for value in [&mut one.wanted, &mut one.seen] {
            if one.field.ends_with("placement") && !reach.covers(None) {
                forget_other_hosts(value);
            }
            redact(value, reach);
        }
    }
    fields
}

/// A time as in RFC 3339, to the microsecond.
pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A view's row: members named `…_at` are microseconds in views and times here.
pub(crate) fn row(mut body: Value, reach: &Reach) -> Value {
    redact(&mut body, reach);
    if let Value::Object(members) = &mut body {
        for (name, member) in members {
            if name.ends_with("_at")
                && let Some(shown) = member.as_i64().and_then(DateTime::from_timestamp_micros)
            {
                *member = Value::String(time(shown));
            }
        }
    }
    body
}

/// A record of the log.
pub(crate) fn record(record: &Record, reach: &Reach) -> Value {
    let mut value = record.to_json();
    if let Some(data) = value.get_mut("data") {
        redact(data, reach);
    }
    if let Some(key) = value.pointer("/request/key").cloned() {
        // The digest is for comparing retries, and for nobody else.
        value["request"] = serde_json::json!({ "key": key });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_at_any_depth_and_tags_stay() {
        let kept = json!({
            "updated_at": 1_767_225_600_000_000_i64,
            "state": {"credential": "s", "out": [{"candidate": "s", "n": 1}]},
            "tags": {"credential": "mine"},
        });
        let shown = row(kept, &Reach::All);
        assert_eq!(
            shown,
            json!({
                "updated_at": "2026-01-01T00:00:00.000000Z",
                "state": {"out": [{"n": 1}]},
                "tags": {"credential": "mine"},
            })
        );
    }

    #[test]
    fn other_hosts_are_shown_to_who_reaches_the_estate() {
        let kept = json!({"launch": {"placement": {
            "host": "own", "runners_up": ["next"],
            "rejected": {"counts": {"disabled": 1}, "hosts": ["other"]},
        }}});
        let mut shown = kept.clone();
        redact(&mut shown, &Reach::All);
        assert_eq!(shown, kept);
        redact(&mut shown, &Reach::Projects(Vec::new()));
        let placement = json!({"host": "own", "rejected": {"counts": {"disabled": 1}}});
        assert_eq!(shown, json!({"launch": {"placement": placement}}));
        assert!(is_of_other_hosts("state.home.placement.rejected.hosts.0.host"));
        assert!(is_of_other_hosts("home.placement.runners_up"));
        assert!(is_of_other_hosts("home.placement.rejected"));
        assert!(!is_of_other_hosts("home.placement.rejected.counts"));
        assert!(!is_of_other_hosts("rejected.hosts"));
    }
}
