//! A damaged record is found and named, never skipped.

use adapters_store_sqlite::{Options, Store};
use commands::ports::{EventLog, LogFault};
use rusqlite::Connection;

use crate::support::request;

const RECORDS: u64 = 300;

async fn a_log(folder: &std::path::Path) -> std::path::PathBuf {
    let path = folder.join("log.sqlite");
    let store = Store::open(&path, Options::default()).unwrap();
    for number in 1..=RECORDS {
        store.append(request(0, number)).await.unwrap();
    }
    path
}

fn position(fault: &LogFault) -> u64 {
    match fault {
        LogFault::Corrupt { position, .. } => *position,
        other => panic!("{other:?}"),
    }
}

/// Damages the file by SQL, as somebody with access to it would: the triggers that forbid it go
/// first.
fn damage(path: &std::path::Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    let triggers: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(!triggers.is_empty(), "plain SQL cannot change a record");
    for trigger in triggers {
        connection.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    connection.execute_batch(sql).unwrap();
}

/// What the check says after some damage.
async fn checked_after(sql: &str) -> LogFault {
    let folder = tempfile::tempdir().unwrap();
    let path = a_log(folder.path()).await;
    damage(&path, sql);
    match Store::open(&path, Options::default()) {
        Err(fault) => fault,
        Ok(store) => store.check(&|_| {}).await.unwrap_err(),
    }
}

#[tokio::test]
async fn an_edited_record_is_named() {
    for at in [1, 150, RECORDS] {
        // One byte of the data: the frame still reads, and only its hash gives it away.
        let fault = checked_after(&format!(
            "UPDATE events SET record = CAST(substr(record, 1, length(record) - 3) || x'39' || \
             substr(record, length(record) - 1) AS BLOB) WHERE position = {at};"
        ))
        .await;
        assert_eq!(position(&fault), at, "{fault:?}");
    }
}

#[tokio::test]
async fn a_deleted_record_is_named() {
    for at in [1, 150, RECORDS] {
        let fault = checked_after(&format!("DELETE FROM events WHERE position = {at};")).await;
        assert_eq!(position(&fault), at, "{fault:?}");
    }
}

#[tokio::test]
async fn a_cut_frame_is_named_and_reading_stops_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = a_log(folder.path()).await;
    damage(&path, "UPDATE events SET record = substr(record, 1, 40) WHERE position = 150;");
    let store = Store::open(&path, Options::default()).unwrap();
    let fault = store.read(0, 1_000).await.unwrap_err();
    assert_eq!(position(&fault), 150);
    assert_eq!(store.read(0, 149).await.unwrap().len(), 149);
    assert_eq!(position(&store.check(&|_| {}).await.unwrap_err()), 150);
}
