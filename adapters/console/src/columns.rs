//! Which columns a list shows. Columns that are empty in every row are left out of tables, so most
//! kinds need none of their own.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::time;

/// How a column's value is read and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As it is.
    Text,
    /// A status word: coloured.
    Status,
    /// Microseconds since 1970, or RFC 3339: an age in tables, a time elsewhere.
    Moment,
    /// How many items a list has.
    Count,
    /// A list, joined by spaces.
    List,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading, in lower case.
    pub name: &'static str,
    /// Path into the row, dots between members.
    pub path: &'static str,
    /// How it is shown.
    pub shape: Shape,
    /// Shown only by `-o wide` and `-o csv`.
    pub wide: bool,
}

const fn column(name: &'static str, path: &'static str, shape: Shape) -> Column {
    Column { name, path, shape, wide: false }
}

const fn wide(name: &'static str, path: &'static str, shape: Shape) -> Column {
    Column { name, path, shape, wide: true }
}

static BEFORE: &[Column] = &[
    column("kind", "kind", Shape::Text),
    column("name", "name", Shape::Text),
    column("status", "status", Shape::Status),
    column("region", "region", Shape::Text),
    column("zone", "zone", Shape::Text),
    column("external id", "external_id", Shape::Text),
];

static AFTER: &[Column] = &[
    wide("parent", "parent", Shape::Text),
    wide("account", "account", Shape::Text),
    wide("project", "project", Shape::Text),
    wide("revision", "revision", Shape::Text),
    column("updated", "updated_at", Shape::Moment),
    wide("by", "updated_by", Shape::Text),
    wide("id", "id", Shape::Text),
];

/// Columns of single kinds and views, sorted by kind. They stand between the common ones.
static OWN: &[(&str, &[Column])] = &[
    (
        "anomalies",
        &[
            column("amount", "state.finding.amount", Shape::Text),
            column("limit", "state.finding.limit", Shape::Text),
            column("currency", "state.finding.currency", Shape::Text),
            column("expected", "state.finding.expected.middle", Shape::Text),
            wide("measure", "state.finding.measure", Shape::Text),
            wide("cleared", "state.cleared", Shape::Text),
        ],
    ),
    (
        "cloud-accounts",
        &[
            column("provider", "provider", Shape::Text),
            column("external account", "state.external_account", Shape::Text),
            column("last sync", "state.last_run.started_at", Shape::Moment),
        ],
    ),
    ("disks", &[column("GiB", "state.seen.size_gib", Shape::Text)]),
    (
        "mappings",
        &[
            column("drifted fields", "drift", Shape::Count),
            column("seen by", "seen_by", Shape::Text),
        ],
    ),
    ("networks", &[column("cidrs", "state.seen.cidrs", Shape::List)]),
    (
        "orders",
        &[
            column("order", "order", Shape::Text),
            column("number", "number", Shape::Text),
            column("order state", "order_state", Shape::Status),
            column("reason", "reason", Shape::Text),
        ],
    ),
    ("security-groups", &[column("drifted fields", "drift", Shape::Count)]),
    (
        "servers",
        &[
            column("shape", "state.observation.seen.shape", Shape::Text),
            column("cpu p95 %", "state.utilisation.last.cpu_p95_percent", Shape::Text),
            wide("memory peak %", "state.utilisation.last.memory_peak_percent", Shape::Text),
            wide("measured", "state.utilisation.last.day", Shape::Text),
            wide("addresses", "state.observation.seen.addresses", Shape::List),
        ],
    ),
    (
        "tokens",
        &[
            column("role", "state.grant.role", Shape::Text),
            column("expires", "state.grant.expires_at", Shape::Moment),
        ],
    ),
    ("vpcs", &[column("cidrs", "state.seen.cidrs", Shape::List)]),
];

static FRESHNESS: &[Column] = &[
    column("kind", "kind", Shape::Text),
    column("region", "region", Shape::Text),
    column("complete", "complete", Shape::Status),
    column("looked", "looked_at", Shape::Moment),
    column("complete look", "complete_at", Shape::Moment),
    column("listed", "listed", Shape::Text),
    column("withheld", "withheld", Shape::Text),
    column("fault", "fault", Shape::Text),
    wide("account", "account", Shape::Text),
];

static SYNC_RUNS: &[Column] = &[
    column("run", "run", Shape::Text),
    column("complete", "complete", Shape::Status),
    column("finished", "finished_at", Shape::Moment),
    column("listed", "listed", Shape::Text),
    column("discovered", "discovered", Shape::Text),
    column("changed", "changed", Shape::Text),
    column("vanished", "vanished", Shape::Text),
    column("withheld", "withheld", Shape::Text),
    wide("account", "account", Shape::Text),
];

static EVENTS: &[Column] = &[
    column("position", "position", Shape::Text),
    column("recorded", "recorded_at", Shape::Moment),
    column("kind", "kind", Shape::Text),
    wide("id", "id", Shape::Text),
    column("revision", "revision", Shape::Text),
    column("event", "type", Shape::Text),
    column("actor", "actor", Shape::Text),
];

/// The columns of a kind or view, by its plural name.
pub fn of(plural: &str) -> Vec<Column> {
    match plural {
        "freshness" => FRESHNESS.to_vec(),
        "sync-runs" => SYNC_RUNS.to_vec(),
        "events" => EVENTS.to_vec(),
        _ => {
            let one_kind = !matches!(plural, "inventory" | "mappings" | "orders");
            let own = OWN.iter().find(|(name, _)| *name == plural).map_or(&[][..], |(_, own)| own);
            BEFORE
                .iter()
                .filter(|column| !(one_kind && column.name == "kind"))
                .chain(own)
                .chain(AFTER)
                .copied()
                .collect()
        }
    }
}

/// The value at a path; null when there is none. Kinds that are only seen, and such that are also
/// ordered, keep what is seen at different depths: both are found.
pub fn at<'a>(row: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(row, |value, name| &value[name])
}

impl Column {
    /// The value as text, for people (`now` makes ages of times) or for programs (none).
    pub fn text(&self, row: &Value, now: Option<DateTime<Utc>>) -> String {
        let value = at(row, self.path);
        match (self.shape, value) {
            (_, Value::Null) => String::new(),
            (Shape::Moment, value) => {
                let then = match value {
                    Value::String(text) => text.parse().ok(),
                    value => value.as_i64().and_then(time::from_micros),
                };
                match (then, now) {
                    (Some(then), Some(now)) if then > now => {
                        format!("in {}", time::age(now, then))
                    }
                    (Some(then), Some(now)) => format!("{} ago", time::age(then, now)),
                    (Some(then), None) => time::exact(then),
                    (None, _) => plain(value),
                }
            }
            (Shape::Count, Value::Array(items)) => items.len().to_string(),
            (Shape::List, Value::Array(items)) => {
                items.iter().map(plain).collect::<Vec<_>>().join(" ")
            }
            (_, value) => plain(value),
        }
    }
}

/// A value in one line; text without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_with_columns_of_their_own_are_sorted() {
        assert!(OWN.is_sorted_by_key(|(name, _)| *name));
    }

    #[test]
    fn a_moment_is_an_age_for_people_and_a_time_for_programs() {
        let column = column("updated", "updated_at", Shape::Moment);
        let row = json!({"updated_at": 1_772_366_400_000_000_i64});
        let now = "2026-03-01T12:05:00Z".parse().unwrap();
        assert_eq!(column.text(&row, Some(now)), "5m ago");
        assert_eq!(column.text(&row, None), "2026-03-01T12:00:00Z");
    }
}
