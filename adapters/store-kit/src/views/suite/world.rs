//! What the suite runs on: a log in memory and three small views.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::ports::{
    Answered, Append, AppendFault, Appended, AuditFilter, EventLog, Head, LogFault,
};
use domain::{
    kernel::{StreamId, canonical_bytes},
    log::{Frontier, Hash, Header, Position, Record},
};
use projections::view::{Column, ColumnType, FoldFault, Indexing, Lens, RowState, Value, View};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

/// A log in memory, with what views read of it; the rest says that it is not there.
pub struct MemoryLog {
    records: Mutex<Vec<Record>>,
    head: watch::Sender<Position>,
    paused: watch::Sender<bool>,
    origin: u128,
}

impl MemoryLog {
    /// Empty. Logs of different origins have different records at every position.
    pub fn new(origin: u128) -> Self {
        Self {
            records: Mutex::default(),
            head: watch::Sender::new(0),
            paused: watch::Sender::new(false),
            origin,
        }
    }

    /// Appends one record; gives its position.
    pub fn put(&self, id: &str, event_type: &str, data: &impl Serialize) -> Position {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let position = records.len() as Position + 1;
        let header = Header {
            position,
            recorded_at: DateTime::from_timestamp_micros(position as i64).unwrap_or_default(),
            kind: "thing".to_owned(),
            id: id.to_owned(),
            revision: position,
            event_id: Uuid::from_u128(u128::from(position)),
            event_type: event_type.to_owned(),
            schema_version: 1,
            actor: "token:suite".to_owned(),
            project: None,
            command_id: Uuid::from_u128(self.origin),
            correlation_id: Uuid::from_u128(self.origin),
            causation_id: None,
            request: None,
        };
        records.push(Record::new(&header, &canonical_bytes(data)));
        self.head.send_replace(position);
        position
    }

    /// Appends `wanted`, the whole of a thing.
    pub fn put_thing(&self, id: &str, wanted: &Thing) -> Position {
        self.put(id, "put", wanted)
    }

    /// Appends that a thing is gone for good.
    pub fn remove(&self, id: &str) -> Position {
        self.put(id, "removed", &())
    }

    /// Lets no batch be read, or lets them again. Single records are always read.
    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }
}

fn not_here<T>() -> Result<T, LogFault> {
    Err(LogFault::Unexpected("the suite's log is only read by position".to_owned()))
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn append(&self, _: Append) -> Result<Appended, AppendFault> {
        Ok(not_here()?)
    }
    async fn request(&self, _: &str, _: &str) -> Result<Option<Answered>, LogFault> {
        not_here()
    }
    async fn stream(&self, _: &StreamId, _: u64, _: usize) -> Result<Vec<Record>, LogFault> {
        not_here()
    }
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Record>, LogFault> {
        if limit > 1 {
            let mut paused = self.paused.subscribe();
            let _ = paused.wait_for(|paused| !paused).await;
        }
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records.iter().skip(after as usize).take(limit).cloned().collect())
    }
    async fn head(&self) -> Result<Head, LogFault> {
        let position = *self.head.borrow();
        Ok(Head { position, recorded_at: DateTime::default(), frontier: Frontier::default() })
    }
    async fn appended(&self, after: Position) {
        let mut head = self.head.subscribe();
        let _ = head.wait_for(|head| *head > after).await;
    }
    async fn position_at(&self, _: DateTime<Utc>) -> Result<Position, LogFault> {
        not_here()
    }
    async fn search(
        &self,
        _: &AuditFilter,
        _: Position,
        _: bool,
        _: usize,
    ) -> Result<Vec<Record>, LogFault> {
        not_here()
    }
    async fn nodes(&self, _: u8, _: u64, _: u64) -> Result<Vec<Hash>, LogFault> {
        not_here()
    }
    async fn restore(&self, _: Vec<Record>) -> Result<(), LogFault> {
        not_here()
    }
}

/// The row of [`THINGS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Leads.
    pub sort: String,
    /// Any text.
    pub name: Option<String>,
    /// A few words.
    pub word: Option<String>,
    /// Any number.
    pub size: Option<i64>,
    /// Mostly not.
    pub gone: bool,
    /// Who owns it.
    pub project: Option<Uuid>,
    /// In the body only.
    pub tags: BTreeMap<String, String>,
    /// In the body only.
    pub state: BTreeMap<String, serde_json::Value>,
}

impl RowState for Thing {
    fn columns(&self) -> Vec<Value> {
        vec![
            self.sort.as_str().into(),
            self.name.clone().into(),
            self.word.clone().into(),
            self.size.map_or(Value::Null, Value::Integer),
            self.gone.into(),
            self.project.map(|id| id.to_string()).into(),
        ]
    }
    fn body(&self) -> Vec<u8> {
        canonical_bytes(self)
    }
    fn boxed(&self) -> Box<dyn RowState> {
        Box::new(self.clone())
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

const fn column(name: &'static str, column_type: ColumnType, indexing: Indexing) -> Column {
    Column { name, column_type, indexing, summary: "Of the suite." }
}

/// Rows that are put whole, and removed.
pub struct Things {
    version: u32,
}

/// The first version.
pub static THINGS: Things = Things { version: 1 };
/// A second version: every name has a `!`.
pub static THINGS_2: Things = Things { version: 2 };

impl View for Things {
    fn name(&self) -> &'static str {
        "things"
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn summary(&self) -> &'static str {
        "Things."
    }
    fn columns(&self) -> &'static [Column] {
        const COLUMNS: [Column; 7] = [
            column("sort", ColumnType::Text, Indexing::Groups),
            column("name", ColumnType::Text, Indexing::None),
            column("word", ColumnType::Text, Indexing::Sparse),
            column("size", ColumnType::Integer, Indexing::Finds),
            column("gone", ColumnType::Boolean, Indexing::Groups),
            column("project", ColumnType::Text, Indexing::Groups),
            column("shout", ColumnType::Text, Indexing::None),
        ];
        if self.version == 1 {
            COLUMNS.first_chunk::<6>().unwrap_or(&[COLUMNS[0]; 6])
        } else {
            &COLUMNS
        }
    }
    fn sort_columns(&self) -> &'static [&'static str] {
        &["name", "size"]
    }
    fn keys(&self, record: &Record) -> Vec<String> {
        if matches!(record.event_type(), "put" | "removed") {
            vec![record.id().to_owned(), record.id().to_owned()]
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
        if record.event_type() == "removed" {
            return Ok(None);
        }
        self.read(record.data()).map(Some).map_err(|error| FoldFault {
            view: "things",
            position: record.position(),
            reason: error.to_string(),
        })
    }
    fn read(&self, body: &[u8]) -> Result<Box<dyn RowState>, serde_json::Error> {
        let thing: Thing = serde_json::from_slice(body)?;
        Ok(if self.version == 1 { Box::new(thing) } else { Box::new(Loud(thing)) })
    }
}

/// The row of the second version.
struct Loud(Thing);

impl RowState for Loud {
    fn columns(&self) -> Vec<Value> {
        let mut columns = self.0.columns();
        columns.push(self.0.name.as_ref().map(|name| format!("{name}!")).into());
        columns
    }
    fn body(&self) -> Vec<u8> {
        self.0.body()
    }
    fn boxed(&self) -> Box<dyn RowState> {
        Box::new(Self(self.0.clone()))
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// How many records there are by first letter of the id: rows that many streams share. It cannot
/// fold `poison`.
pub struct Counts;

/// The view.
pub static COUNTS: Counts = Counts;

#[derive(Clone, Serialize, Deserialize)]
struct Count {
    count: i64,
    last: String,
}

impl RowState for Count {
    fn columns(&self) -> Vec<Value> {
        vec![self.count.into()]
    }
    fn body(&self) -> Vec<u8> {
        canonical_bytes(self)
    }
    fn boxed(&self) -> Box<dyn RowState> {
        Box::new(self.clone())
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl View for Counts {
    fn name(&self) -> &'static str {
        "counts"
    }
    fn version(&self) -> u32 {
        1
    }
    fn summary(&self) -> &'static str {
        "Counts."
    }
    fn columns(&self) -> &'static [Column] {
        const { &[column("count", ColumnType::Integer, Indexing::None)] }
    }
    fn sort_columns(&self) -> &'static [&'static str] {
        &[]
    }
    fn keys(&self, record: &Record) -> Vec<String> {
        record.id().chars().next().map(String::from).into_iter().collect()
    }
    fn fold(
        &self,
        _: &str,
        row: Option<Box<dyn RowState>>,
        record: &Record,
    ) -> Result<Option<Box<dyn RowState>>, FoldFault> {
        if record.event_type() == "poison" {
            let reason = "it is poison".to_owned();
            return Err(FoldFault { view: "counts", position: record.position(), reason });
        }
        let before = row.and_then(|mut row| row.as_any().downcast_ref::<Count>().map(|c| c.count));
        let count = Count { count: before.unwrap_or(0) + 1, last: record.id().to_owned() };
        Ok(Some(Box::new(count)))
    }
    fn read(&self, body: &[u8]) -> Result<Box<dyn RowState>, serde_json::Error> {
        Ok(Box::new(serde_json::from_slice::<Count>(body)?))
    }
}

/// Both views.
pub static VIEWS: &[&dyn View] = &[&COUNTS, &THINGS];
/// Both views, one of them newer.
pub static VIEWS_2: &[&dyn View] = &[&COUNTS, &THINGS_2];

/// Things of one sort that have a word.
pub static LENSES: &[Lens] = &[Lens {
    name: "worded",
    summary: "Things with a word.",
    view: "things",
    only: &[("sort", Some("s1")), ("word", None)],
    show: |body| serde_json::json!({"word": body["word"]}),
}];
