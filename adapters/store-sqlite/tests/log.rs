//! The contract on SQLite, and what only a file can suffer.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use adapters_store_sqlite::{Options, SqliteLeases, Store};
use async_trait::async_trait;
use commands::{
    ports::{
        Append, AppendFault, AuditFilter, EventLog, Expected, Leases, LogFault, NewEvent,
        StreamAppend,
    },
    testing::{MemoryLog, TestClock, contract::Stores},
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

/// Someone changes the files behind the store's back.
fn tamper(files: &Files, sql: &str) {
    let connection = Connection::open(files.path("log")).unwrap();
    let index = files.path("log-index");
    connection.execute("ATTACH ? AS finders", [index.to_str().unwrap()]).unwrap();
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
        "UPDATE event_index SET actor_no = type_no WHERE position = 50",
        "UPDATE event_index SET stream_no = 3 - stream_no, revision = 999 WHERE position = 50",
        "UPDATE event_index SET project_no = NULL WHERE position = 50",
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
        ("UPDATE event_index SET revision = 401 WHERE position = 600", 600),
        ("UPDATE tree SET hash = zeroblob(32) WHERE idx = 1", 513),
        // One letter, in the tile that is still open.
        (
            "UPDATE events SET record = CAST(substr(record, 1, length(record) - 2) || x'79' || \
             substr(record, -1) AS BLOB) WHERE position = 577",
            577,
        ),
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
        "UPDATE streams SET id = 's2' WHERE id = 's0'",
        "DELETE FROM event_index WHERE position = 7",
        "INSERT INTO streams (kind, id) VALUES ('thing', 'ghost')",
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
    for change in ["UPDATE events SET mark = 7", "DELETE FROM events WHERE position = 1"] {
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

/// What a reader finds must not depend on how far the index has come: around every length of the
/// tail, in an open file, in one whose process was killed (its files copied as they were), and in
/// one that was closed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_indexed_yet_is_found_all_the_same() {
    let now = || chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let files = Files::new();
    let options = Options { now: Arc::new(now), ..Options::default() };
    let store = Store::open(files.path("log"), options).unwrap();
    let model = MemoryLog::new(Arc::new(TestClock::at(now())));
    let mut indexed_at = Vec::new();
    for n in 0..1_400_usize {
        // Seven streams; every hundredth append has enough events to jump over a boundary.
        let one = append(&format!("s{}", n % 7), if n % 100 == 99 { 40 } else { 1 }, n);
        assert_eq!(
            store.append(one.clone()).await.unwrap(),
            model.append(one.clone()).await.unwrap()
        );
        let (again, wanted) = (store.append(one.clone()).await, model.append(one).await);
        match (again, wanted) {
            (Err(AppendFault::Repeated(again)), Err(AppendFault::Repeated(wanted))) => {
                assert_eq!(again, wanted, "a retry of {n}");
            }
            other => panic!("a retry of {n}: {other:?}"),
        }
        let indexed = reach(&files);
        if indexed_at.last() != Some(&indexed) {
            indexed_at.push(indexed);
        }
        // Often, and always next to a boundary.
        if n % 97 == 0 || store.head_now().position - indexed as u64 <= 1 {
            same(&store, &model).await;
        }
    }
    assert!(indexed_at.len() > 3, "the index was written in steps: {indexed_at:?}");
    let head = store.head_now();
    assert!(head.position > *indexed_at.last().unwrap() as u64, "the tail is not empty");

    for part in ["", "-wal", "-index", "-index-wal"] {
        std::fs::copy(files.path(&format!("log{part}")), files.path(&format!("killed{part}")))
            .unwrap();
    }
    let killed = files.open("killed").unwrap();
    assert_eq!(killed.head_now(), head);
    same(&killed, &model).await;
    let repeated = killed.append(append("s0", 1, 1_393)).await;
    assert!(matches!(repeated, Err(AppendFault::Repeated(_))), "{repeated:?}");
    assert_eq!(killed.check(&|_| ()).await.unwrap(), head);

    drop(store);
    assert_eq!(reach(&files) as u64, head.position, "a closed file is indexed to its end");
    same(&files.open("log").unwrap(), &model).await;

    // The index is lost; is of another version; is another log's; is of a newer state of the log
    // than a backup that was put back.
    for part in ["log-index", "log-index-wal", "log-index-shm"] {
        let _ = std::fs::remove_file(files.path(part));
    }
    same(&files.open("log").unwrap(), &model).await;
    let index = || Connection::open(files.path("log-index")).unwrap();
    index().execute_batch("PRAGMA user_version = 77; DROP TABLE names").unwrap();
    same(&files.open("log").unwrap(), &model).await;
    index().execute_batch("UPDATE reach SET mark = mark + 1; DELETE FROM event_index").unwrap();
    same(&files.open("log").unwrap(), &model).await;
    index().execute_batch("UPDATE reach SET position = 99999; DELETE FROM requests").unwrap();
    let store = files.open("log").unwrap();
    same(&store, &model).await;
    assert_eq!(store.check(&|_| ()).await.unwrap(), head);
}

fn reach(files: &Files) -> i64 {
    let index = Connection::open(files.path("log-index")).unwrap();
    index.query_row("SELECT position FROM reach", [], |row| row.get(0)).unwrap()
}

async fn same(store: &Store, model: &MemoryLog) {
    let end = model.head().await.unwrap().position;
    for stream in 0..7 {
        let stream = StreamId::new("thing", format!("s{stream}"));
        for (after, limit) in [(0, 10_000), (0, 5), (3, 200), (150, 129), (end / 7, 100)] {
            assert_eq!(
                store.stream(&stream, after, limit).await.unwrap(),
                model.stream(&stream, after, limit).await.unwrap(),
                "{limit} of {stream} after {after}"
            );
        }
    }
    let filters = [
        AuditFilter::default(),
        AuditFilter { kind: Some("thing".into()), id: Some("s3".into()), ..Default::default() },
        AuditFilter { actor: Some("tester".into()), ..Default::default() },
        AuditFilter { projects: Some(vec![Uuid::from_u128(9)]), ..Default::default() },
        AuditFilter { event_type: Some("unheard".into()), ..Default::default() },
    ];
    for filter in &filters {
        for (from, newest_first, limit) in [
            (0, true, 40),
            (0, false, 40),
            (end.saturating_sub(20), true, 3_000),
            (end.saturating_sub(20), false, 3_000),
        ] {
            assert_eq!(
                store.search(filter, from, newest_first, limit).await.unwrap(),
                model.search(filter, from, newest_first, limit).await.unwrap(),
                "{limit} from {from}, newest first: {newest_first}, {filter:?}"
            );
        }
    }
}

/// Checkpoints run beside commits that never pause, and still the write-ahead log begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_write_ahead_log_stays_short_under_load() {
    let files = Files::new();
    let store = files.open("log").unwrap();
    let clients = (0..8).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..200 {
                store.append(append(&format!("c{client}"), 1, 60_000 + n)).await.unwrap();
            }
        })
    });
    futures::future::try_join_all(clients).await.unwrap();
    let length = |name| std::fs::metadata(files.path(name)).unwrap().len();
    assert!(length("log") > 60_000_000, "{}", length("log"));
    assert!(length("log-wal") < 60_000_000, "{}", length("log-wal"));
}

/// The disk, in the test's hands: a sync waits until it is let through.
#[derive(Clone)]
struct Disk {
    asked: Arc<AtomicUsize>,
    let_through: Arc<(Mutex<(usize, bool)>, Condvar)>,
}

impl Disk {
    fn new() -> Self {
        Self { asked: Arc::default(), let_through: Arc::default() }
    }

    fn options(&self) -> Options {
        let this = self.clone();
        let sync = Arc::new(move |_: &std::fs::File| {
            this.asked.fetch_add(1, Ordering::SeqCst);
            let (state, changed) = &*this.let_through;
            let mut state = changed
                .wait_while(state.lock().unwrap(), |(through, fails)| *through == 0 && !*fails)
                .unwrap();
            if state.1 {
                return Err(std::io::Error::other("made up by the test"));
            }
            state.0 -= 1;
            Ok(())
        });
        Options { sync, ..Options::default() }
    }

    /// Opening syncs once.
    fn open(&self, files: &Files) -> Store {
        self.let_through(1);
        let store = Store::open(files.path("log"), self.options()).unwrap();
        self.asked.store(0, Ordering::SeqCst);
        store
    }

    fn let_through(&self, count: usize) {
        let (state, changed) = &*self.let_through;
        state.lock().unwrap().0 += count;
        changed.notify_all();
    }

    fn fail(&self) {
        let (state, changed) = &*self.let_through;
        state.lock().unwrap().1 = true;
        changed.notify_all();
    }

    async fn asked(&self, count: usize) {
        while self.asked.load(Ordering::SeqCst) < count {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_or_shown_before_the_disk_has_it() {
    let (files, disk) = (Files::new(), Disk::new());
    let store = disk.open(&files);
    // Many enough for a step of the index.
    let one = append("s", 600, 1);
    let key = one.request.clone().unwrap().key;
    let stream = StreamId::new("thing", "s");
    let append_in_background = |one: Append| {
        let store = store.clone();
        tokio::spawn(async move { store.append(one).await })
    };
    let first = append_in_background(one.clone());
    disk.asked(1).await;
    let again = append_in_background(one);
    let second = append_in_background(append("s", 1, 2));
    let reader = Connection::open(files.path("log")).unwrap();
    let written: Option<i64> =
        reader.query_row("SELECT max(position) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(written, Some(600), "written, but not durable");
    assert_eq!(store.head_now().position, 0);
    assert_eq!(store.read(0, 10).await.unwrap(), vec![]);
    assert_eq!(store.stream(&stream, 0, 10_000).await.unwrap(), vec![]);
    assert_eq!(store.search(&AuditFilter::default(), 0, true, 10).await.unwrap(), vec![]);
    assert_eq!(store.request("tester", &key).await.unwrap(), None);
    assert!(!first.is_finished() && !second.is_finished() && !again.is_finished());

    disk.let_through(1);
    assert_eq!(first.await.unwrap().unwrap().last, 600);
    disk.asked(2).await;
    assert_eq!(store.head_now().position, 600);
    assert_eq!(store.stream(&stream, 0, 10_000).await.unwrap().len(), 600);
    assert_eq!(store.request("tester", &key).await.unwrap().unwrap().last, 600);

    disk.let_through(1);
    assert_eq!(second.await.unwrap().unwrap().last, 601);
    let repeated = again.await.unwrap();
    assert!(matches!(repeated, Err(AppendFault::Repeated(_))), "{repeated:?}");
    assert_eq!(store.stream(&stream, 0, 10_000).await.unwrap().len(), 601);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_confirm_ends_the_writing() {
    let (files, disk) = (Files::new(), Disk::new());
    let store = disk.open(&files);
    disk.let_through(1);
    store.append(append("s", 1, 1)).await.unwrap();
    disk.fail();
    for n in 2..4 {
        let refused = store.append(append("s", 1, n)).await;
        let Err(AppendFault::Fault(LogFault::Unavailable(reason))) = refused else {
            panic!("{refused:?}");
        };
        assert!(reason.contains("restart"), "{reason}");
    }
    assert_eq!(disk.asked.load(Ordering::SeqCst), 2, "there is no second try");
    assert_eq!(store.head_now().position, 1);
    assert_eq!(store.read(0, 10).await.unwrap().len(), 1);
    drop(store);
    // What the disk kept is there: at least what was acknowledged.
    let store = files.open("log").unwrap();
    let head = store.head_now();
    assert!((1..=2).contains(&head.position));
    assert_eq!(store.check(&|_| ()).await.unwrap(), head);
    store.append(append("s", 1, 9)).await.unwrap();
}

/// The real `fdatasync`, of the real file, also after the write-ahead log began anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_synced_is_the_write_ahead_log() {
    use std::os::unix::fs::MetadataExt;
    let files = Files::new();
    let (wal, syncs) = (files.path("log-wal"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&syncs);
    let sync = move |file: &std::fs::File| {
        let (given, named) = (file.metadata()?, std::fs::metadata(&wal)?);
        assert_eq!((given.dev(), given.ino()), (named.dev(), named.ino()));
        counted.fetch_add(1, Ordering::SeqCst);
        file.sync_data()
    };
    let options = Options { sync: Arc::new(sync), ..Options::default() };
    let store = Store::open(files.path("log"), options).unwrap();
    let mut lengths = Vec::new();
    for n in 0..100 {
        store.append(append("s", 1, 900_000 + n)).await.unwrap();
        lengths.push(std::fs::metadata(files.path("log-wal")).unwrap().len());
    }
    assert!(lengths.last() < Some(&80_000_000), "it began anew: {lengths:?}");
    assert!(syncs.load(Ordering::SeqCst) > 100, "one for each append, and one at the start");
}

/// The power fails: what is left is what was on the disk at the last sync that came back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_power_cut() {
    let files = Files::new();
    let cut = 20;
    let (syncs, gone) =
        (Arc::new(AtomicUsize::new(0)), Arc::new((Mutex::new(true), Condvar::new())));
    let (from, to) = (files.folder.path().to_owned(), files.folder.path().join("after"));
    std::fs::create_dir(&to).unwrap();
    let (counted, power) = (Arc::clone(&syncs), Arc::clone(&gone));
    let sync = move |file: &std::fs::File| {
        file.sync_data()?;
        let number = counted.fetch_add(1, Ordering::SeqCst);
        if number == cut {
            for part in ["log", "log-wal"] {
                std::fs::copy(from.join(part), to.join(part))?;
            }
        }
        if number > cut {
            let (gone, changed) = &*power;
            drop(changed.wait_while(gone.lock().unwrap(), |gone| *gone).unwrap());
            return Err(std::io::Error::other("the power is gone"));
        }
        Ok(())
    };
    let options = Options { sync: Arc::new(sync), ..Options::default() };
    let store = Store::open(files.path("log"), options).unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (store, acknowledged) = (store.clone(), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                for n in 0.. {
                    let one = append(&format!("c{client}"), 1, n);
                    match store.append(one).await {
                        Ok(appended) => {
                            acknowledged.lock().unwrap().push((client, n, appended.last));
                        }
                        Err(_) => return,
                    }
                }
            })
        })
        .collect();
    while syncs.load(Ordering::SeqCst) <= cut + 1 {
        tokio::task::yield_now().await;
    }
    *gone.0.lock().unwrap() = false;
    gone.1.notify_all();
    for client in clients {
        client.await.unwrap();
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() >= cut, "{}", acknowledged.len());
    let after = Store::open(files.path("after/log"), Options::default()).unwrap();
    for (client, n, last) in acknowledged {
        let answered = after.request("tester", &format!("c{client}-1-{n}")).await.unwrap();
        assert_eq!(answered.map(|one| one.last), Some(last), "c{client} {n}");
    }
    assert_eq!(after.check(&|_| ()).await.unwrap(), after.head_now());
}

/// Bytes of the file itself, not rows: a page that does not read is damage at its place.
#[tokio::test]
async fn a_damaged_page_is_named_by_the_check() {
    use std::io::{Seek, SeekFrom, Write};
    let files = Files::new();
    filled(&files).await;
    let (page, size): (u64, u64) = Connection::open(files.path("log"))
        .unwrap()
        .query_row(
            "SELECT pageno, (SELECT page_size FROM pragma_page_size) FROM dbstat \
             WHERE name = 'events' AND pagetype = 'leaf' ORDER BY path LIMIT 1 OFFSET 3",
            [],
            |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)),
        )
        .unwrap();
    let mut file = std::fs::File::options().write(true).open(files.path("log")).unwrap();
    file.seek(SeekFrom::Start((page - 1) * size)).unwrap();
    file.write_all(&[0xff; 64]).unwrap();
    drop(file);
    let store = files.open("log").unwrap();
    let at = corrupt_at(store.check(&|_| ()).await);
    assert!((2..600).contains(&at), "{at}");
    assert_eq!(store.read(0, at as usize - 1).await.unwrap().len() as u64, at - 1);
    assert_eq!(corrupt_at(store.read(0, 10_000).await), at);
}
