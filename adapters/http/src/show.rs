//! How values are shown: without secrets, with times that people read.

use chrono::{DateTime, SecondsFormat, Utc};
use domain::{log::Record, mapping::FieldDrift};
use serde_json::Value;

/// Members that hold a secret, sealed or as a digest. They are in the log because they must be,
/// and nobody outside needs them.
pub(crate) const SECRET: &[&str] = &["candidate", "credential", "envelope", "secret_digest"];

/// Whether a path leads to or into a secret.
pub(crate) fn is_secret(path: &str) -> bool {
    path.split('.').any(|step| SECRET.contains(&step))
}

/// Removes secrets at any depth. Tags are their owners' own words and stay.
pub(crate) fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !SECRET.contains(&name.as_str()));
            for (name, member) in members {
                if name != "tags" {
                    redact(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Fields that differ, without the secret ones.
pub(crate) fn differences(mut fields: Vec<FieldDrift>) -> Vec<FieldDrift> {
    fields.retain(|one| !is_secret(&one.field));
    for one in &mut fields {
        redact(&mut one.wanted);
        redact(&mut one.seen);
    }
    fields
}

/// A time as in RFC 3339, to the microsecond.
pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A view's row: members named `…_at` are microseconds in views and times here.
pub(crate) fn row(mut body: Value) -> Value {
    redact(&mut body);
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
pub(crate) fn record(record: &Record) -> Value {
    let mut value = record.to_json();
    if let Some(data) = value.get_mut("data") {
        redact(data);
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
        let shown = row(json!({
            "updated_at": 1_767_225_600_000_000_i64,
            "state": {"credential": "s", "out": [{"candidate": "s", "n": 1}]},
            "tags": {"credential": "mine"},
        }));
        assert_eq!(
            shown,
            json!({
                "updated_at": "2026-01-01T00:00:00.000000Z",
                "state": {"out": [{"n": 1}]},
                "tags": {"credential": "mine"},
            })
        );
    }
}
