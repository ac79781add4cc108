//! Launches through the whole loop: placed, recorded, carried out by hosts in memory, reported; by the
//! server itself, and by an agent for each host that comes to its desk.

use std::{sync::Arc, time::Instant};

use adapters_agent::{Agent, LocalLine, Options};
use adapters_sim::SimHosts;
use adapters_store_sqlite::{SqliteLeases, start_views};
use commands::{
    ledger::{Ledger, Ports},
    ports::{EventLog, Query, Views},
    run_orders::Runner,
    submit::Submission,
    testing::{NoBills, TestVault},
};
use domain::{kernel::Principal, kinds};
use futures::{StreamExt, stream};
use projections::views::{LENSES, VIEWS};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    http::{RealClock, RealIds},
    support::{Size, cpu_seconds, open_sqlite, peak_mib, runtime},
};

/// Callers at once.
const CALLERS: usize = 32;
/// Orders that the runner works on at once, as a server's configuration has it.
const ORDERS: usize = 32;

async fn send(ledger: &Ledger, kind: &str, id: Option<Uuid>, verb: &str, body: Value) -> Uuid {
    let kind = kinds::by_name(kind).expect("a kind");
    let submission = Submission::new(Principal::system("bench"), kind, id, verb, body);
    ledger.submit(submission).await.expect("it is sent").id
}

/// What servers have of networks: none, or an interface in one of so many of one segment, in turn.
async fn networks(ledger: &Ledger, count: u32) -> Vec<Uuid> {
    let mut networks = Vec::new();
    if count == 0 {
        return networks;
    }
    let body = json!({"name": "lan", "medium": "bridge", "bridge": "br0"});
    let segment = send(ledger, "segment", None, "define", body).await;
    for at in 0..count {
        let v4 = json!({"net": format!("10.{at}.0.0/16"), "step": "up"});
        let body = json!({"name": format!("net-{at}"), "segment": segment, "v4": v4});
        networks.push(send(ledger, "network", None, "define", body).await);
    }
    networks
}

async fn measure(size: Size, by_agents: bool, in_networks: u32) {
    let (launches, hosts) = (size.pick(1_000_u32, 50), size.pick(200_u64, 10));
    let folder = tempfile::tempdir().expect("a folder");
    let store = open_sqlite(folder.path());
    let log: Arc<dyn EventLog> = Arc::new(store.clone());
    let (views, _running) =
        start_views(folder.path().join("views"), log.clone(), VIEWS, LENSES).expect("views start");
    let sim = SimHosts::default();
    let ledger = Ledger::new(Ports {
        answers: Arc::new(NoBills),
        backups: Arc::new(commands::testing::NoBackups),
        bills: Arc::new(NoBills),
        log: log.clone(),
        views: Arc::new(views.clone()),
        hosts: Arc::new(sim.clone()),
        leases: Arc::new(SqliteLeases::new(&store).expect("leases")),
        vault: Arc::new(TestVault),
        clock: Arc::new(RealClock),
        ids: Arc::new(RealIds),
        providers: Vec::new(),
    });
    let mut agents = Vec::new();
    for at in 0..hosts {
        let body = json!({"name": format!("kvm-{at}")});
        let host = send(&ledger, "host", None, "enrol", body).await;
        let seen = SimHosts::sighting(2, 16, 131_072);
        if by_agents {
            let line = Arc::new(LocalLine::new(ledger.clone(), host));
            let local = Arc::new(sim.local(host, seen));
            let agent = Agent::new(line, local, Arc::new(RealClock), Options::default());
            agents.push(tokio::spawn(async move { agent.run(std::future::pending()).await }));
            continue;
        }
        let join = json!({"epoch": 1, "agent": "bench"});
        send(&ledger, "host", Some(host), "join", join).await;
        send(&ledger, "host", Some(host), "sight", json!({"epoch": 1, "seen": seen})).await;
        sim.join(host, 1);
    }
    loop {
        let head = log.head().await.expect("a head").position;
        views.reach_position(head, std::time::Duration::from_mins(1)).await.expect("views");
        let ready = Query::all().with("kind", "host").with("status", "ready");
        if views.count("inventory", &ready, hosts).await.expect("a count") == hosts {
            break;
        }
        log.appended(head).await;
    }
    let networks = networks(&ledger, in_networks).await;
    let (stop, stopped) = futures::channel::oneshot::channel::<()>();
    let runner = Runner::new(ledger.clone(), ORDERS);
    let working = tokio::spawn(async move {
        runner
            .run(async {
                let _ = stopped.await;
            })
            .await;
    });
    let (start, cpu) = (Instant::now(), cpu_seconds());
    stream::iter(0..launches)
        .for_each_concurrent(CALLERS, |at| {
            let (ledger, networks) = (&ledger, &networks);
            async move {
                let spec = json!({"vcpus": 2, "memory_mib": 2_048, "numa": "strict"});
                let mut body = json!({"name": format!("server-{at}"), "spec": spec});
                if let Some(count) = std::num::NonZeroUsize::new(networks.len()) {
                    body["nics"] = json!([{"network": networks[at as usize % count]}]);
                }
                send(ledger, "server", None, "launch", body).await;
            }
        })
        .await;
    let placed = start.elapsed().as_secs_f64();
    loop {
        let head = log.head().await.expect("a head").position;
        views.reach_position(head, std::time::Duration::from_mins(10)).await.expect("views");
        let running = Query::all().with("kind", "server").with("status", "running");
        let running =
            views.count("inventory", &running, u64::from(launches)).await.expect("a count");
        if running == u64::from(launches) {
            break;
        }
        log.appended(head).await;
    }
    let all = start.elapsed().as_secs_f64();
    drop(stop);
    working.await.expect("the runner ends");
    agents.iter().for_each(tokio::task::JoinHandle::abort);
    let by = if by_agents { "By an agent for each host" } else { "By the server itself" };
    println!("{by}; networks of one segment for an interface each: {in_networks}.\n");
    println!("| | seconds | a second |\n|---|--:|--:|");
    println!("| placed and recorded | {placed:.2} | {:.0} |", f64::from(launches) / placed);
    println!("| running, seen in the inventory | {all:.2} | {:.0} |", f64::from(launches) / all);
    println!(
        "\n{launches} launches on {hosts} hosts of 2 cells, {CALLERS} callers, {ORDERS} orders at \
         once; {:.2} CPU seconds; peak memory {} MiB.",
        cpu_seconds() - cpu,
        peak_mib()
    );
}

pub(crate) fn run(size: Size) {
    for (by_agents, in_networks) in [(false, 0), (true, 0), (true, 1), (true, 16)] {
        runtime().block_on(measure(size, by_agents, in_networks));
        println!();
    }
}
