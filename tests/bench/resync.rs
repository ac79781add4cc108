//! A second look at an unchanged cloud.

use std::{sync::Arc, time::Instant};

use adapters_sim::{Population, SimCloud};
use adapters_store_sqlite::{SqliteLeases, start_views};
use commands::{
    ledger::{Ledger, Ports},
    ports::{EventLog, Query, Views},
    run_orders::Runner,
    submit::Submission,
    testing::{NoBills, TestVault},
};
use domain::{kernel::Principal, kinds};
use projections::views::{LENSES, VIEWS};
use serde_json::json;
use uuid::Uuid;

use crate::{
    http::{RealClock, RealIds},
    support::{Size, cpu_seconds, open_sqlite, peak_mib, runtime},
};

async fn measure(size: Size) {
    let resources = size.pick(100_000, 2_000);
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_sqlite(folder.path());
    let log: Arc<dyn EventLog> = Arc::new(store.clone());
    let (views, _running) =
        start_views(folder.path().join("views"), log.clone(), VIEWS, LENSES).expect("views start");
    let clock = Arc::new(RealClock);
    let sim = SimCloud::new(clock.clone());
    sim.populate("acme", "bench", Population { seed: 1, regions: 4, resources })
        .expect("it is populated");
    let ledger = Ledger::new(Ports {
        answers: Arc::new(NoBills),
        backups: Arc::new(commands::testing::NoBackups),
        bills: Arc::new(NoBills),
        log: log.clone(),
        views: Arc::new(views.clone()),
        hosts: Arc::new(commands::ports::NoHosts),
        leases: Arc::new(SqliteLeases::new(&store).expect("leases")),
        vault: Arc::new(TestVault),
        clock,
        ids: Arc::new(RealIds),
        providers: vec![Arc::new(sim)],
    });
    let kind = kinds::by_name("cloud-account").expect("there are accounts");
    let id = Uuid::now_v7();
    let send = |verb: &'static str, body| {
        let ledger = ledger.clone();
        async move {
            let system = Principal::system("bench");
            ledger.submit(Submission::new(system, kind, id, verb, body)).await.expect("it is sent");
        }
    };
    let settle = || async {
        loop {
            let head = log.head().await.expect("a head").position;
            views.reach_position(head, std::time::Duration::from_mins(10)).await.expect("views");
            let pending = Query::all().with("order_state", "pending");
            if views.count("inventory", &pending, 1).await.expect("a count") == 0 {
                return;
            }
            Runner::new(ledger.clone(), 4).pass().await.expect("a pass");
        }
    };
    send(
        "connect",
        json!({
            "name": "acme", "provider": "sim",
            "credential": {"account": "acme", "secret": "bench"},
        }),
    )
    .await;
    settle().await;
    println!("| | seconds | CPU seconds | events about resources |\n|---|--:|--:|--:|");
    let mut before = log.head().await.expect("a head").position;
    for what in ["first look", "second look, unchanged", "third look, unchanged"] {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        send("sync", json!({})).await;
        settle().await;
        let head = log.head().await.expect("a head").position;
        // The run itself is two events of the account: ordered, finished.
        println!(
            "| {what} | {:.2} | {:.2} | {} |",
            start.elapsed().as_secs_f64(),
            cpu_seconds() - cpu,
            head - before - 2
        );
        before = head;
    }
    println!("\n{resources} resources in 4 regions; peak memory {} MiB.", peak_mib());
}

pub(crate) fn run(size: Size) {
    runtime().block_on(measure(size));
}
