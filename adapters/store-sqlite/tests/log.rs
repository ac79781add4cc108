//! The contract on SQLite, and what only a file can suffer.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use adapters_store_sqlite::{Options, SqliteLeases, Store};
use async_trait::async_trait;
use commands::{
    ports::{Append, AppendFault, EventLog, Expected, Leases, LogFault, NewEvent, StreamAppend},
    testing::contract::Stores,
};
use domain::{
    kernel::StreamId,
    log::{Frontier, RequestStamp},
};
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> Result<Store, LogFault> {
        Store::open(self.path(name), Options::default())
    }
}

#[async_trait]
impl Stores for Files {
    async fn log(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(self.open(name).unwrap())
    }

    async fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(SqliteLeases::new(&self.open("leases").unwrap()).unwrap())
    }
}

mod contract_of_the_log {
    commands::log_contract!(super::Files::new());
}
mod contract_of_leases {
    commands::leases_contract!(super::Files::new());
}

fn append(stream: &str, events: usize, bytes: usize) -> Append {
    let command_id = Uuid::new_v5(&Uuid::nil(), format!("{stream}{events}{bytes}").as_bytes());
    Append {
        actor: "tester".to_owned(),
        command_id,
        correlation_id: command_id,
        causation_id: None,
        request: Some(RequestStamp {
            key: format!("{stream}-{events}-{bytes}"),
            digest: "d".to_owned(),
        }),
        streams: vec![StreamAppend {
            stream: StreamId::new("thing", stream),
            expected: Expected::Any,
            project: Some(Uuid::from_u128(9)),
            events: (0..events)
                .map(|_| NewEvent {
                    event_type: "noted".to_owned(),
                    schema_version: 1,
                    data: format!("\"{}\"", "x".repeat(bytes)).into_bytes(),
                })
                .collect(),
        }],
    }
}

/// A closed file with 600 records in two streams.
async fn filled(files: &Files) {
    let store = files.open("log").unwrap();
    for n in 1..=3 {
        store.append(append(&format!("s{}", n % 2), 200, n)).await.unwrap();
    }
    let seen = Mutex::new(Vec::new());
    let head = store.check(&|position| seen.lock().unwrap().push(position)).await.unwrap();
    assert_eq!(head, store.head().await.unwrap());
    assert_eq!(*seen.lock().unwrap(), [600, 600]);
}

/// Someone changes the file behind the store's back.
fn tamper(files: &Files, sql: &str) {
    let connection = Connection::open(files.path("log")).unwrap();
    connection.execute_batch("DROP TRIGGER events_stay; DROP TRIGGER events_remain").unwrap();
    connection.execute_batch(sql).unwrap();
}

fn corrupt_at<T: std::fmt::Debug>(result: Result<T, LogFault>) -> u64 {
    match result {
        Err(LogFault::Corrupt { position, .. }) => position,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_process_is_told_that_the_file_is_in_use() {
    let files = Files::new();
    let store = files.open("log").unwrap();
    let Err(LogFault::Unavailable(reason)) = files.open("log") else {
        panic!("it was opened twice");
    };
    assert!(reason.contains("open in another process"), "{reason}");
    drop(store);
    files.open("log").unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_the_group_and_the_log_goes_on_when_there_is_room() {
    let files = Files::new();
    let options = |bytes| Options { bytes_max: Some(bytes), ..Options::default() };
    let store = Store::open(files.path("log"), options(400_000)).unwrap();
    store.append(append("small", 1, 10)).await.unwrap();
    let refused = store.append(append("large", 400, 2_000)).await;
    assert!(matches!(refused, Err(AppendFault::Fault(LogFault::Full(_)))), "{refused:?}");
    assert_eq!(store.head().await.unwrap().position, 1);
    assert_eq!(store.request("tester", "large-400-2000").await.unwrap(), None);
    // What fits still goes in.
    assert_eq!(store.append(append("small", 2, 11)).await.unwrap().last, 3);
    drop(store);
    let store = Store::open(files.path("log"), options(40_000_000)).unwrap();
    assert_eq!(store.append(append("large", 400, 2_000)).await.unwrap().last, 403);
    store.check(&|_| ()).await.unwrap();
}

#[tokio::test]
async fn a_changed_byte_anywhere_is_named_by_the_check() {
    let files = Files::new();
    filled(&files).await;
    // Far before the tail, with every column as it was: the frame's own bytes tell.
    tamper(
        &files,
        "UPDATE events SET record = CAST(substr(record, 1, length(record) - 2) || x'79' || \
         substr(record, -1) AS BLOB) WHERE position = 77",
    );
    let store = files.open("log").unwrap();
    assert_eq!(corrupt_at(store.check(&|_| ()).await), 77);
}

#[tokio::test]
async fn a_column_that_differs_from_its_frame_is_named_by_the_check() {
    for change in [
        "UPDATE events SET actor_no = type_no WHERE position = 50",
        "UPDATE events SET stream_no = 3 - stream_no, revision = 999 WHERE position = 50",
        "UPDATE events SET project_no = NULL WHERE position = 50",
        "UPDATE events SET record = x'01' WHERE position = 50",
    ] {
        let files = Files::new();
        filled(&files).await;
        tamper(&files, change);
        assert_eq!(corrupt_at(files.open("log").unwrap().check(&|_| ()).await), 50, "{change}");
    }
}

#[tokio::test]
async fn a_record_rewritten_with_its_mark_is_found_by_the_tree() {
    let files = Files::new();
    filled(&files).await;
    let store = files.open("log").unwrap();
    let mut header = store.read(299, 1).await.unwrap()[0].header();
    drop(store);
    header.event_id = Uuid::from_u128(1);
    let forged = domain::log::Record::new(&header, b"\"xx\"");
    let leaf = forged.leaf();
    let connection = Connection::open(files.path("log")).unwrap();
    connection.execute_batch("DROP TRIGGER events_stay").unwrap();
    let mark = i64::from_be_bytes(leaf[..8].try_into().unwrap());
    connection
        .execute(
            "UPDATE events SET record = ?, mark = ? WHERE position = 300",
            rusqlite::params![forged.frame(), mark],
        )
        .unwrap();
    drop(connection);
    // The tile is positions 257 to 512.
    assert_eq!(corrupt_at(files.open("log").unwrap().check(&|_| ()).await), 257);
}

#[tokio::test]
async fn a_hole_is_named_by_readers_and_by_the_check() {
    let files = Files::new();
    filled(&files).await;
    tamper(&files, "DELETE FROM events WHERE position = 100");
    let store = files.open("log").unwrap();
    assert_eq!(corrupt_at(store.read(90, 50).await), 100);
    assert_eq!(store.read(90, 9).await.unwrap().len(), 9);
    assert_eq!(corrupt_at(store.check(&|_| ()).await), 100);
    let missing = store.stream(&StreamId::new("thing", "s1"), 0, 1_000).await;
    assert!(matches!(missing, Err(LogFault::Corrupt { .. })), "{missing:?}");
}

#[tokio::test]
async fn a_file_whose_end_is_damaged_does_not_open() {
    for (change, at) in [
        ("DELETE FROM events WHERE position > 590", 591),
        ("UPDATE events SET record = zeroblob(length(record)) WHERE position = 600", 600),
        ("UPDATE events SET record = x'00' WHERE position = 560", 560),
        ("UPDATE head SET recorded_at = recorded_at + 1", 600),
        ("UPDATE streams SET revision = revision + 1 WHERE id = 's1'", 600),
        ("UPDATE tree SET hash = zeroblob(32) WHERE idx = 1", 513),
        ("DELETE FROM tree", 600),
        ("UPDATE head SET position = 599", 599),
    ] {
        let files = Files::new();
        filled(&files).await;
        tamper(&files, change);
        assert_eq!(corrupt_at(files.open("log").map(|_| ())), at, "{change}");
    }
}

#[tokio::test]
async fn lost_or_changed_streams_requests_and_nodes_are_found_by_the_check() {
    for change in [
        "UPDATE streams SET revision = revision + 1 WHERE id = 's0'",
        "INSERT INTO streams (kind, id, revision) VALUES ('thing', 'ghost', 1)",
        "DELETE FROM requests WHERE first = 201",
        "UPDATE requests SET digest = 'other' WHERE first = 201",
        "INSERT INTO requests VALUES ('tester', 'ghost', 'd', 1, 2)",
    ] {
        let files = Files::new();
        filled(&files).await;
        tamper(&files, change);
        let store = files.open("log").unwrap();
        corrupt_at(store.check(&|_| ()).await);
    }
}

#[tokio::test]
async fn events_cannot_be_changed_or_deleted() {
    let files = Files::new();
    filled(&files).await;
    let connection = Connection::open(files.path("log")).unwrap();
    for change in ["UPDATE events SET revision = 7", "DELETE FROM events WHERE position = 1"] {
        let error = connection.execute(change, []).unwrap_err().to_string();
        assert!(error.contains("an event"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_writer_of_the_file_waits_at_the_gate() {
    let files = Files::new();
    let store = files.open("log").unwrap();
    let views = store.connect(adapters_store_sqlite::Durability::Normal).unwrap();
    views.execute_batch("CREATE TABLE rows (n INTEGER)").unwrap();
    let door = store.clone();
    let projector = tokio::task::spawn_blocking(move || {
        for n in 0..100 {
            let _turn = door.gate().enter();
            views.execute_batch("BEGIN IMMEDIATE").unwrap();
            views.execute("INSERT INTO rows VALUES (?)", [n]).unwrap();
            views.execute_batch("COMMIT").unwrap();
        }
    });
    for n in 0..100 {
        store.append(append(&format!("s{n}"), 1, 1)).await.unwrap();
    }
    projector.await.unwrap();
    assert_eq!(store.read(0, 1_000).await.unwrap().len(), 100);
    assert_eq!(store.nodes(Frontier::TILE_LEVELS, 0, 9).await.unwrap().len(), 0);
}
