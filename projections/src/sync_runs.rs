//! What the accounts' sync runs found: one row per run, and per (account, region, kind) how fresh
//! and complete our picture is.

use domain::{kernel::canonical_value, log::Record};
use serde_json::{Value as Json, json};

use crate::view::{Column, ColumnType, FoldFault, Indexing, RowState, Value, View, stored_key};

const fn column(
    name: &'static str,
    column_type: ColumnType,
    indexing: Indexing,
    summary: &'static str,
) -> Column {
    Column { name, column_type, indexing, summary }
}

/// A row whose state is its own JSON: small views need no more.
struct JsonRow {
    columns: &'static [Column],
    body: Json,
}

impl RowState for JsonRow {
    fn columns(&self) -> Vec<Value> {
        self.columns
            .iter()
            .map(|column| match &self.body[column.name] {
                Json::Bool(yes) => Value::Boolean(*yes),
                Json::Number(number) => Value::Integer(number.as_i64().unwrap_or_default()),
                Json::String(text) => Value::Text(text.clone()),
                _ => Value::Null,
            })
            .collect()
    }

    fn body(&self) -> Vec<u8> {
        canonical_value(&self.body)
    }

    fn boxed(&self) -> Box<dyn RowState> {
        Box::new(Self { columns: self.columns, body: self.body.clone() })
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

fn data(view: &'static str, record: &Record) -> Result<Json, FoldFault> {
    serde_json::from_slice(record.data()).map_err(|error| FoldFault {
        view,
        position: record.position(),
        reason: error.to_string(),
    })
}

fn is_sync(record: &Record) -> bool {
    record.kind() == "cloud-account" && record.event_type() == "sync-finished"
}

fn project(record: &Record) -> Option<String> {
    record.project().map(|project| project.to_string())
}

/// One row per run.
pub(crate) struct SyncRuns;

static RUN_COLUMNS: &[Column] = &[
    column("account", ColumnType::Text, Indexing::Groups, "The cloud account."),
    column("project", ColumnType::Text, Indexing::Groups, "Who owns the account."),
    column("run", ColumnType::Integer, Indexing::None, "The run's number in its account."),
    column("complete", ColumnType::Boolean, Indexing::Groups, "Whether every scope was complete."),
    column("started_at", ColumnType::Integer, Indexing::None, "Unix time in microseconds."),
    column("finished_at", ColumnType::Integer, Indexing::Groups, "Unix time in microseconds."),
    column("listed", ColumnType::Integer, Indexing::None, "Things on the pages that came."),
    column("discovered", ColumnType::Integer, Indexing::None, "Seen for the first time."),
    column("changed", ColumnType::Integer, Indexing::None, "Different from before, or back again."),
    column("vanished", ColumnType::Integer, Indexing::None, "Not there any more."),
    column("withheld", ColumnType::Integer, Indexing::None, "Missing, and waiting for approval."),
];

impl View for SyncRuns {
    fn name(&self) -> &'static str {
        "sync_runs"
    }
    fn version(&self) -> u32 {
        1
    }
    fn summary(&self) -> &'static str {
        "What each sync run of each cloud account found."
    }
    fn columns(&self) -> &'static [Column] {
        RUN_COLUMNS
    }
    fn sort_columns(&self) -> &'static [&'static str] {
        &["finished_at"]
    }
    fn keys(&self, record: &Record) -> Vec<String> {
        if is_sync(record) {
            vec![format!("{}/{}", record.id(), record.revision())]
        } else {
            Vec::new()
        }
    }
    fn fold(
        &self,
        _: &str,
        _: Option<Box<dyn RowState>>,
        record: &Record,
    ) -> Result<Option<Box<dyn RowState>>, FoldFault> {
        let run = data(self.name(), record)?;
        let scopes = run["scopes"].as_array().cloned().unwrap_or_default();
        let sum =
            |count: &str| scopes.iter().filter_map(|scope| scope[count].as_i64()).sum::<i64>();
        let mut body = json!({
            "account": record.id(),
            "project": project(record),
            "run": run["run"],
            "complete": run["complete"],
            "started_at": micros(&run["started_at"]),
            "finished_at": record.recorded_at().timestamp_micros(),
        });
        for count in ["listed", "discovered", "changed", "vanished", "withheld"] {
            body[count] = json!(sum(count));
        }
        body["scopes"] = run["scopes"].clone();
        Ok(Some(Box::new(JsonRow { columns: RUN_COLUMNS, body })))
    }
    fn read(&self, body: &[u8]) -> Result<Box<dyn RowState>, serde_json::Error> {
        Ok(Box::new(JsonRow { columns: RUN_COLUMNS, body: serde_json::from_slice(body)? }))
    }
}

fn micros(time: &Json) -> Option<i64> {
    let time = time.as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()?;
    Some(time.timestamp_micros())
}

/// One row per account, region and kind.
pub(crate) struct Freshness;

static FRESHNESS_COLUMNS: &[Column] = &[
    column("account", ColumnType::Text, Indexing::Groups, "The cloud account."),
    column("project", ColumnType::Text, Indexing::Groups, "Who owns the account."),
    column("region", ColumnType::Text, Indexing::Groups, "The provider's region id."),
    column("kind", ColumnType::Text, Indexing::Groups, "The kind."),
    column(
        "complete",
        ColumnType::Boolean,
        Indexing::Groups,
        "Whether the last look was complete.",
    ),
    column(
        "looked_at",
        ColumnType::Integer,
        Indexing::Groups,
        "When the last look began: Unix time in microseconds.",
    ),
    column(
        "complete_at",
        ColumnType::Integer,
        Indexing::Groups,
        "When the last complete look began: Unix time in microseconds.",
    ),
    column("listed", ColumnType::Integer, Indexing::None, "Things the last look had."),
    column("withheld", ColumnType::Integer, Indexing::None, "Missing, and waiting for approval."),
    column("fault", ColumnType::Text, Indexing::None, "What went wrong at the last look."),
];

fn scope_key(account: &str, scope: &Json) -> String {
    let text = |name: &str| scope[name].as_str().unwrap_or("-").to_owned();
    format!("{account}/{}/{}", text("region"), text("kind"))
}

impl View for Freshness {
    fn name(&self) -> &'static str {
        "freshness"
    }
    fn version(&self) -> u32 {
        2
    }
    fn summary(&self) -> &'static str {
        "How fresh and complete the picture is, by account, region and kind."
    }
    fn columns(&self) -> &'static [Column] {
        FRESHNESS_COLUMNS
    }
    fn sort_columns(&self) -> &'static [&'static str] {
        &["looked_at"]
    }
    fn keys(&self, record: &Record) -> Vec<String> {
        if !is_sync(record) {
            return Vec::new();
        }
        let Ok(run) = data(self.name(), record) else { return vec![record.id().to_owned()] };
        let scopes = run["scopes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut keys: Vec<_> = scopes.iter().map(|scope| scope_key(record.id(), scope)).collect();
        keys.sort();
        keys.dedup();
        keys
    }
    fn fold(
        &self,
        key: &str,
        row: Option<Box<dyn RowState>>,
        record: &Record,
    ) -> Result<Option<Box<dyn RowState>>, FoldFault> {
        let run = data(self.name(), record)?;
        let scopes = run["scopes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_row = |scope: &&Json| stored_key(&scope_key(record.id(), scope)) == key;
        let Some(scope) = scopes.iter().find(is_row) else {
            return Ok(row);
        };
        // The picture is as old as the beginning of the run: a long one ends much later.
        let began = micros(&run["started_at"]);
        let before = row.map(|mut row| {
            row.as_any().downcast_mut::<JsonRow>().map(|row| row.body["complete_at"].clone())
        });
        let complete = scope["complete"].as_bool().unwrap_or_default();
        let body = json!({
            "account": record.id(),
            "project": project(record),
            "region": scope["region"],
            "kind": scope["kind"],
            "complete": complete,
            "looked_at": began,
            "complete_at": if complete { json!(began) } else { json!(before.flatten()) },
            "listed": scope["listed"],
            "withheld": scope["withheld"],
            "fault": scope["fault"],
        });
        Ok(Some(Box::new(JsonRow { columns: FRESHNESS_COLUMNS, body })))
    }
    fn read(&self, body: &[u8]) -> Result<Box<dyn RowState>, serde_json::Error> {
        Ok(Box::new(JsonRow { columns: FRESHNESS_COLUMNS, body: serde_json::from_slice(body)? }))
    }
}
