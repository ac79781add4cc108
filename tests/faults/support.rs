//! Logs, appends and numbers that the fault tests share.

use std::{path::Path, sync::Arc, time::Duration};

use adapters_store_postgres as postgres;
use adapters_store_sqlite as sqlite;
use commands::ports::{Append, EventLog, Expected, NewEvent, StreamAppend};
use domain::{
    kernel::StreamId,
    log::{Record, RequestStamp},
};
use serde_json::json;
use uuid::Uuid;

/// The PostgreSQL of `./test`.
pub(crate) fn postgres_url() -> String {
    std::env::var("SKYLEDGER_TEST_POSTGRES")
        .expect("SKYLEDGER_TEST_POSTGRES is not set: run the tests with ./test")
}

/// A schema of its own.
pub(crate) fn fresh_schema() -> String {
    format!("faults_{}", Uuid::now_v7().simple())
}

pub(crate) fn open_sqlite(folder: &Path) -> Arc<dyn EventLog> {
    let path = folder.join("log.sqlite");
    Arc::new(sqlite::Store::open(path, sqlite::Options::default()).unwrap())
}

pub(crate) async fn open_postgres(url: &str, schema: &str) -> Arc<dyn EventLog> {
    open_patient(url, schema, postgres::Options::default().patience).await
}

/// The same by somebody who waits so long for a server that is not there.
pub(crate) async fn open_patient(url: &str, schema: &str, patience: Duration) -> Arc<dyn EventLog> {
    let schema = schema.to_owned();
    let options = postgres::Options { schema, patience, ..postgres::Options::default() };
    Arc::new(postgres::Store::connect(url, options).await.unwrap())
}

/// A database of its own, for servers: they all use the one schema that is the program's. It is
/// dropped with the server of `./test`.
pub(crate) struct Database {
    name: String,
    /// Somebody who looks at the server from another database.
    auditor: postgres::Store,
}

impl Database {
    pub(crate) async fn new() -> Self {
        let name = fresh_schema();
        let options = postgres::Options { schema: name.clone(), ..postgres::Options::default() };
        let auditor = postgres::Store::connect(&postgres_url(), options).await.unwrap();
        let client = auditor.pool().get().await.unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        Self { name, auditor }
    }

    /// Its URL, for a user of this name.
    pub(crate) fn url(&self, application: &str) -> String {
        let url = postgres_url();
        let (server, _) = url.rsplit_once('/').unwrap();
        format!("{server}/{}?application_name={application}", self.name)
    }

    /// Which application holds the lock of who projects; none while nobody does.
    pub(crate) async fn projects(&self) -> Option<String> {
        let client = self.auditor.pool().get().await.unwrap();
        let holder = "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
                      WHERE l.locktype = 'advisory' AND l.granted AND a.datname = $1";
        let rows = client.query(holder, &[&self.name]).await.unwrap();
        assert!(rows.len() < 2, "two project");
        rows.first().map(|row| row.get(0))
    }
}

/// The key of a writer's n-th request.
pub(crate) fn key(writer: usize, number: u64) -> String {
    format!("{writer}-{number}")
}

/// A writer's n-th request: one event, to its own stream.
pub(crate) fn request(writer: usize, number: u64) -> Append {
    let command_id = Uuid::now_v7();
    Append {
        actor: "token:writer".into(),
        command_id,
        correlation_id: command_id,
        causation_id: None,
        request: Some(RequestStamp { key: key(writer, number), digest: "same".into() }),
        streams: vec![StreamAppend {
            stream: StreamId::new("project", format!("writer-{writer}")),
            expected: Expected::Any,
            project: None,
            events: vec![NewEvent {
                event_type: "renamed".into(),
                schema_version: 1,
                data: json!({"name": format!("{writer} {number}")}).to_string().into_bytes(),
            }],
        }],
    }
}

/// Whether somebody with a token asked for it, and not the server for itself at its first start.
pub(crate) fn by_a_caller(record: &Record) -> bool {
    record.actor().starts_with("token:")
}

/// The whole log, and that it is one: no gap, no damage.
pub(crate) async fn whole(log: &dyn EventLog) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let after = all.len() as u64;
        let page = log.read(after, 5_000).await.unwrap();
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    for (index, record) in all.iter().enumerate() {
        assert_eq!(record.position(), index as u64 + 1);
    }
    let mut frontier = domain::log::Frontier::default();
    for record in &all {
        frontier.push(record.leaf(), |_| {});
    }
    assert_eq!(log.head().await.unwrap().frontier, frontier);
    all
}

/// SplitMix64: when to kill. The moments differ from run to run anyhow; the seed is printed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % below
    }
}
