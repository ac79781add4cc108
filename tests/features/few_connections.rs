//! The runner on PostgreSQL with hardly any connections: nothing that goes on may wait for what
//! stands still.

use std::{sync::Arc, time::Duration};

use adapters_sim::SimCloud;
use adapters_store_postgres::{Options, PostgresLeases, Store, start_views};
use commands::{
    ledger::{Ledger, Ports},
    ports::{EventLog, Query, Views},
    run_orders::Runner,
    submit::Submission,
    testing::{NoBills, SequentialIds, TestVault},
};
use domain::{
    kernel::{Principal, StreamId},
    kinds,
};
use projections::views::{LENSES, VIEWS};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{HurriedClock, SECRET, small};

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_goes_on_while_the_runner_looks_for_orders() {
    let url = std::env::var("SKYLEDGER_TEST_POSTGRES")
        .expect("SKYLEDGER_TEST_POSTGRES is not set: run the tests with ./test");
    let schema = format!("few_{}", Uuid::now_v7().simple());
    let options = Options { schema, connections: 2, ..Options::default() };
    let store = Store::connect(&url, options).await.unwrap();
    let log: Arc<dyn EventLog> = Arc::new(store.clone());
    let (views, _running) = start_views(&store, log.clone(), VIEWS, LENSES).await.unwrap();
    let clock = Arc::new(HurriedClock::default());
    let sim = SimCloud::new(clock.clone());
    sim.populate("acme", SECRET, small()).unwrap();
    let ledger = Ledger::new(Ports {
        answers: Arc::new(NoBills),
        backups: Arc::new(commands::testing::NoBackups),
        bills: Arc::new(NoBills),
        log: log.clone(),
        views: Arc::new(views.clone()),
        hosts: Arc::new(commands::ports::NoHosts),
        leases: Arc::new(PostgresLeases::new(&store)),
        vault: Arc::new(TestVault),
        clock,
        ids: Arc::new(SequentialIds::default()),
        providers: vec![Arc::new(sim)],
    });
    let kind = kinds::by_name("cloud-account").unwrap();
    let send = async |id, verb, body| {
        let principal = Principal::system("test");
        ledger.submit(Submission::new(principal, kind, id, verb, body)).await.unwrap().id
    };
    let runner = Runner::new(ledger.clone(), 8);
    let running = tokio::spawn(async move { runner.run(std::future::pending()).await });

    let credential = json!({"account": "acme", "secret": SECRET});
    let connect = json!({"name": "acme", "provider": "sim", "credential": credential});
    let account = send(None, "connect", connect).await;
    let nothing_out = async || {
        let pending = Query::all().with("order_state", "pending");
        loop {
            let head = log.head().await.unwrap().position;
            views.reach_position(head, Duration::from_secs(30)).await.unwrap();
            if views.count("inventory", &pending, 1).await.unwrap() == 0 {
                return;
            }
            log.appended(head).await;
        }
    };
    nothing_out().await;
    send(Some(account), "sync", json!({})).await;
    nothing_out().await;

    // Everything was seen: no call to the store had to be given up.
    let stream = StreamId::new(kind.name, account);
    let records = log.stream(&stream, 0, 1_000).await.unwrap();
    let finished = records.iter().rfind(|one| one.event_type() == "sync-finished").unwrap();
    let data: Value = serde_json::from_slice(finished.data()).unwrap();
    let scopes = data["scopes"].as_array().unwrap();
    assert!(scopes.iter().all(|scope| scope["complete"] == true), "{scopes:?}");
    assert!(scopes.iter().filter_map(|scope| scope["discovered"].as_u64()).sum::<u64>() > 60);
    running.abort();
}
