//! The contract on PostgreSQL, and what only a server can suffer. A fresh schema for each test.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use adapters_store_postgres::{Options, PostgresLeases, Store};
use async_trait::async_trait;
use commands::{
    ports::{Append, EventLog, Expected, Leases, LogFault, NewEvent, StreamAppend},
    testing::contract::Stores,
};
use domain::{kernel::StreamId, log::RequestStamp};
use futures::future::join_all;
use tokio_postgres::NoTls;
use uuid::Uuid;

fn url() -> String {
    std::env::var("SKYLEDGER_TEST_POSTGRES").expect(
        "SKYLEDGER_TEST_POSTGRES must hold the URL of a PostgreSQL server; ./test starts one",
    )
}

/// A schema for each log, dropped at the start of the next run that has the same name.
struct Schemas {
    prefix: String,
}

impl Schemas {
    async fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let this = Self { prefix: format!("test_{}_{number}", std::process::id()) };
        for name in ["a", "from", "to", "leases", "log"] {
            this.sql(&format!("DROP SCHEMA IF EXISTS {} CASCADE", this.name(name))).await;
        }
        this
    }

    fn name(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    async fn open_with(&self, name: &str, options: Options) -> Result<Store, LogFault> {
        Store::connect(&url(), Options { schema: self.name(name), connections: 4, ..options }).await
    }

    async fn open(&self, name: &str) -> Result<Store, LogFault> {
        self.open_with(name, Options::default()).await
    }

    /// Someone's own connection.
    async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn sql(&self, sql: &str) {
        let client = self.client().await;
        client.batch_execute("SET client_min_messages = error").await.unwrap();
        client.batch_execute(sql).await.unwrap();
    }

    /// Someone changes the log behind the store's back.
    async fn tamper(&self, sql: &str) {
        let schema = self.name("log");
        self.sql(&format!(
            "SET search_path = {schema}; ALTER TABLE events DISABLE TRIGGER ALL; {sql}; \
             ALTER TABLE events ENABLE TRIGGER ALL"
        ))
        .await;
    }
}

#[async_trait]
impl Stores for Schemas {
    async fn log(&self, name: &str) -> Arc<dyn EventLog> {
        Arc::new(self.open(name).await.unwrap())
    }

    async fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(PostgresLeases::new(&self.open("leases").await.unwrap()))
    }
}

mod cutter;

use cutter::{Cut, Cutter};

mod contract_of_the_log {
    commands::log_contract!(super::Schemas::new().await);
}
mod contract_of_leases {
    commands::leases_contract!(super::Schemas::new().await);
}

fn append(stream: &str, expected: Expected, events: usize, key: &str) -> Append {
    let command_id = Uuid::new_v5(&Uuid::nil(), key.as_bytes());
    Append {
        actor: "tester".to_owned(),
        command_id,
        correlation_id: command_id,
        causation_id: None,
        request: Some(RequestStamp { key: key.to_owned(), digest: "d".to_owned() }),
        streams: vec![StreamAppend {
            stream: StreamId::new("thing", stream),
            expected,
            project: Some(Uuid::from_u128(9)),
            events: (0..events)
                .map(|number| NewEvent {
                    event_type: "noted".to_owned(),
                    schema_version: 1,
                    data: format!("{{\"number\":{number}}}").into_bytes(),
                })
                .collect(),
        }],
    }
}

/// 600 records in two streams.
async fn filled(schemas: &Schemas) -> Store {
    let store = schemas.open("log").await.unwrap();
    for n in 1..=3 {
        let append = append(&format!("s{}", n % 2), Expected::Any, 200, &format!("key{n}"));
        store.append(append).await.unwrap();
    }
    assert_eq!(store.check(&|_| ()).await.unwrap(), store.head().await.unwrap());
    store
}

fn corrupt_at<T>(result: Result<T, LogFault>) -> u64 {
    match result {
        Err(LogFault::Corrupt { position, .. }) => position,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("the damage was not seen"),
    }
}

#[tokio::test]
async fn events_cannot_be_changed_deleted_or_truncated() {
    let schemas = Schemas::new().await;
    let store = filled(&schemas).await;
    let client = store.pool().get().await.unwrap();
    for change in ["UPDATE events SET revision = 7", "DELETE FROM events", "TRUNCATE events"] {
        let error = client.batch_execute(change).await.unwrap_err();
        let reason = error.as_db_error().unwrap().message().to_owned();
        assert_eq!(reason, "an event never changes and is never deleted", "{change}");
    }
}

#[tokio::test]
async fn damage_before_the_end_is_named_by_the_check() {
    for (change, at) in [
        ("UPDATE events SET record = set_byte(record, 150, 7) WHERE position = 77", 77),
        ("UPDATE events SET actor = 'another' WHERE position = 50", 50),
        ("UPDATE events SET stream_no = 3 - stream_no, revision = 999 WHERE position = 50", 50),
        ("UPDATE events SET project = NULL WHERE position = 50", 50),
        ("UPDATE events SET record = '' WHERE position = 50", 50),
        ("DELETE FROM events WHERE position = 100", 100),
        ("UPDATE tree SET hash = decode(repeat('00', 32), 'hex') WHERE idx = 1", 257),
        ("DELETE FROM requests WHERE first = 201", 201),
        ("UPDATE requests SET digest = 'other' WHERE first = 201", 201),
        ("UPDATE streams SET revision = 201 WHERE id = 's0'", 600),
        ("INSERT INTO streams VALUES (99, 1, 'thing', 'ghost')", 600),
    ] {
        let schemas = Schemas::new().await;
        let store = filled(&schemas).await;
        schemas.tamper(change).await;
        assert_eq!(corrupt_at(store.check(&|_| ()).await), at, "{change}");
    }
}

#[tokio::test]
async fn a_log_whose_end_is_damaged_does_not_open() {
    for (change, at) in [
        ("DELETE FROM events WHERE position > 590", 591),
        ("UPDATE events SET record = '' WHERE position = 560", 560),
        ("DELETE FROM events WHERE position = 560", 560),
        ("UPDATE head SET recorded_at = recorded_at + 1", 600),
        ("UPDATE streams SET revision = revision + 1 WHERE id = 's1'", 600),
        ("DELETE FROM tree", 600),
        ("UPDATE head SET position = 599", 599),
    ] {
        let schemas = Schemas::new().await;
        drop(filled(&schemas).await);
        schemas.tamper(change).await;
        assert_eq!(corrupt_at(schemas.open("log").await), at, "{change}");
    }
}

#[tokio::test]
async fn a_hole_stops_a_reader() {
    let schemas = Schemas::new().await;
    let store = filled(&schemas).await;
    schemas.tamper("DELETE FROM events WHERE position IN (100, 599, 600)").await;
    assert_eq!(corrupt_at(store.read(90, 50).await), 100);
    assert_eq!(store.read(90, 9).await.unwrap().len(), 9);
    assert_eq!(corrupt_at(store.read(500, 500).await), 599);
    assert!(store.stream(&StreamId::new("thing", "s1"), 0, 1_000).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_server_processes_share_one_log() {
    let schemas = Schemas::new().await;
    let stores = join_all((0..4).map(|_| schemas.open("log"))).await;
    let stores: Vec<Store> = stores.into_iter().map(Result::unwrap).collect();
    let answers = join_all((0..400).map(|n| {
        let key = format!("key{}", n % 200);
        let append = append(&format!("s{}", n % 7), Expected::Any, 1, &key);
        let store = &stores[n % stores.len()];
        async move { store.append(append).await }
    }));
    // Another process's appends wake a waiting reader.
    let hears = async {
        while stores[3].read(0, 1_000).await.unwrap().len() < 200 {
            stores[3].appended(stores[3].read(0, 1_000).await.unwrap().len() as u64).await;
        }
    };
    let (answers, ()) = futures::join!(answers, hears);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 200);
    assert_eq!(stores[0].check(&|_| ()).await.unwrap().position, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_lose_and_double_nothing() {
    let schemas = Schemas::new().await;
    let store = schemas.open("log").await.unwrap();
    let name = schemas.name("log");
    let killer = async {
        let client = schemas.client().await;
        let mut killed = 0;
        for _ in 0..40 {
            // Only connections of this schema: others test beside us.
            let rows = client
                .query(
                    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a \
                     JOIN pg_locks l ON l.pid = a.pid JOIN pg_class c ON c.oid = l.relation \
                     JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE n.nspname = $1 AND c.relname = 'head' AND a.pid <> pg_backend_pid()",
                    &[&name],
                )
                .await
                .unwrap();
            killed += rows.len();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        killed
    };
    let writers = join_all((0..16).map(|writer| {
        let store = &store;
        async move {
            for turn in 0..30_u64 {
                let key = format!("key{writer}-{turn}");
                let append = append(&format!("w{writer}"), Expected::Exact(turn), 1, &key);
                let appended = store.append(append).await.unwrap();
                assert_eq!(appended.revisions, [turn + 1]);
            }
        }
    }));
    let (killed, _) = futures::join!(killer, writers);
    assert!(killed > 0, "no connection was cut while it held the lock");
    assert_eq!(store.check(&|_| ()).await.unwrap().position, 16 * 30);
}

/// Of which commits the outcome is not known: before it went out nothing of it was done, after it
/// all of it was. The committer looks, and does neither twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_looked_for_and_neither_lost_nor_doubled() {
    let schemas = Schemas::new().await;
    // The schema is made without the cutter.
    drop(schemas.open("log").await.unwrap());
    let cutter = Cutter::start(&url()).await;
    let options = Options { schema: schemas.name("log"), connections: 4, ..Options::default() };
    let store = Store::connect(&cutter.url, options).await.unwrap();
    for number in 1..=20_u64 {
        let cut = if number % 2 == 0 { Cut::BeforeCommit } else { Cut::AfterCommit };
        cutter.arm(cut);
        let append = append("s", Expected::Exact(number - 1), 1, &format!("key{number}"));
        // One that was done and looked for in vain would be done again, and answer as repeated.
        let appended = store.append(append).await.unwrap();
        assert_eq!((appended.first, appended.revisions), (number, vec![number]));
        assert_eq!(cutter.cuts(cut), number.div_ceil(2), "{cut:?} was really hit");
    }
    assert_eq!((cutter.cuts(Cut::BeforeCommit), cutter.cuts(Cut::AfterCommit)), (10, 10));
    assert_eq!(store.check(&|_| ()).await.unwrap().position, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_the_lock_too_long_makes_others_wait_and_then_say_so() {
    let schemas = Schemas::new().await;
    let patience = Duration::from_millis(200);
    let options = Options { patience, ..Options::default() };
    let store = schemas.open_with("log", options).await.unwrap();
    let client = schemas.client().await;
    let lock = format!("BEGIN; SELECT * FROM {}.head FOR UPDATE", schemas.name("log"));
    client.batch_execute(&lock).await.unwrap();
    let refused = store.append(append("s", Expected::Any, 1, "key")).await.unwrap_err();
    assert!(
        matches!(refused, commands::ports::AppendFault::Fault(LogFault::Unavailable(_))),
        "{refused:?}"
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.append(append("s", Expected::Any, 1, "key")).await.unwrap().last, 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let nobody = Store::connect("postgres://nobody@127.0.0.1:9/none", Options::default()).await;
    assert!(matches!(nobody.err(), Some(LogFault::Unavailable(_))));
    let name = Options { schema: "x; DROP TABLE".to_owned(), ..Options::default() };
    assert!(matches!(Store::connect(&url(), name).await.err(), Some(LogFault::Unexpected(_))));
}
