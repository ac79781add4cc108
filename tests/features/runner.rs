//! The runner: what keeps failing is parked, and no account gets more calls at once than its
//! provider takes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use adapters_sim::{Fault, Matching, Op};
use commands::{
    ledger::{Ledger, Ports},
    ports::{AppendFault, Clock, Expected, Provider, Vault, VaultFault},
    run_orders::{BACK_OFF_MAX, Runner, TRIES_MAX},
    testing::TestVault,
};
use domain::kernel::StreamId;
use futures::FutureExt;
use serde_json::json;
use uuid::Uuid;

use crate::{
    between::Between,
    world::{SECRET, World, group, small},
};

/// Declares groups, and leaves their orders out.
async fn declare(world: &World, account: Uuid, count: usize) -> Vec<Uuid> {
    let rows = world.rows("vpc").await;
    let vpc = rows.iter().find(|row| row.body["account"] == account.to_string()).unwrap();
    let mut ids = Vec::new();
    for number in 0..count {
        let body = json!({
            "account": account,
            "region": vpc.body["region"],
            "spec": group(&format!("web-{number}"), vpc.body["external_id"].as_str().unwrap(), &[80]),
        });
        ids.push(world.send("security-group", None, "declare", body).await.unwrap().id);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_provider_is_gone_is_parked_and_retried_when_it_is_back() {
    let world = World::synced(small()).await;
    let id = declare(&world, world.account, 1).await[0];
    let ports = Ports { providers: Vec::new(), ..world.ledger.ports.clone() };
    world.settle_on(Ledger::new(ports), None).await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "parked");
    assert_eq!(row["order"]["parked"], "this program has no provider sim");

    world.send("security-group", id, "retry", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_credential_cannot_be_opened_is_parked() {
    let world = World::synced(small()).await;
    let ports = Ports { vault: Arc::new(Locked), ..world.ledger.ports.clone() };
    world.send("cloud-account", world.account, "sync", json!({})).await.unwrap();
    world.settle_on(Ledger::new(ports), None).await;
    let parked = world.row(world.account).await["order"]["parked"].clone();
    assert!(parked.as_str().unwrap().contains("cannot be opened"), "{parked}");
}

/// A vault whose key is another one.
struct Locked;

impl Vault for Locked {
    fn seal(&self, _: &[u8], _: &str) -> Result<String, VaultFault> {
        Err(VaultFault::DoesNotOpen)
    }
    fn open(&self, _: &str, _: &str) -> Result<Vec<u8>, VaultFault> {
        Err(VaultFault::DoesNotOpen)
    }
    fn digest(&self, bytes: &[u8]) -> String {
        TestVault.digest(bytes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_no_event_takes_is_cut_and_the_order_parked() {
    let world = World::synced(small()).await;
    let id = declare(&world, world.account, 1).await[0];
    let page = "ä".repeat(1 << 20);
    let rejected = world.sim.faults().inject(Matching::write(), Fault::Rejected(page));
    world.settle().await;
    assert_eq!(rejected.hits(), 1, "the provider was asked once");
    let row = world.row(id).await;
    assert_eq!(row["status"], "parked");
    let reason = row["order"]["parked"].as_str().unwrap();
    assert!(reason.starts_with("rejected: ää") && reason.ends_with("ä…"), "{}", reason.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_never_taken_does_not_call_the_provider_for_ever() {
    let world = World::synced(small()).await;
    let id = declare(&world, world.account, 1).await[0];
    let (broken, refused) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (asked, counted) = (broken.clone(), refused.clone());
    let between = Between::new(world.log.clone(), move |append| {
        let runners = append.actor == "system:runner" && asked.load(Ordering::SeqCst);
        let stream: StreamId = append.streams[0].stream.clone();
        counted.fetch_add(u64::from(runners), Ordering::SeqCst);
        async move {
            // Somebody else is always faster.
            let lost = AppendFault::Conflict { stream, expected: Expected::Any, actual: 0 };
            if runners { Err(lost) } else { Ok(()) }
        }
        .boxed()
    });
    let ports = Ports { log: Arc::new(between), ..world.ledger.ports.clone() };
    let ledger = Ledger::new(ports);
    world.caught_up().await;
    world.sim.clear_trace();
    let mut lookups = Vec::new();
    for _ in 0..3 * TRIES_MAX {
        let runner = Runner::new(ledger.clone(), 1);
        runner.pass().await.unwrap();
        lookups.push(world.sim.trace().iter().filter(|call| call.seen.op == Op::FindByTag).count());
        world.clock.sleep(BACK_OFF_MAX).await;
    }
    let tries = TRIES_MAX as usize;
    assert_eq!(lookups[tries - 1], tries, "one look at each try: {lookups:?}");
    assert_eq!(lookups.last(), Some(&tries), "and none after the last: {lookups:?}");
    assert!(refused.load(Ordering::SeqCst) > 3 * u64::from(TRIES_MAX));

    broken.store(false, Ordering::SeqCst);
    world.settle_on(ledger, None).await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "parked");
    world.send("security-group", id, "retry", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_account_gets_more_calls_at_once_than_its_provider_takes() {
    const ORDERS: usize = 12;
    let world = World::synced(small()).await;
    let limit = Provider::concurrency(&world.sim) as u64;
    assert!(limit < ORDERS as u64);
    world.sim.populate("globex", SECRET, small()).unwrap();
    let other = world.ledger.ports.ids.new_id();
    let body = json!({
        "name": "globex", "provider": "sim",
        "credential": {"account": "globex", "secret": SECRET},
    });
    world.send("cloud-account", other, "connect", body).await.unwrap();
    world.settle().await;
    world.send("cloud-account", other, "sync", json!({})).await.unwrap();
    world.settle().await;
    // Older ids first: the runner sees the first account's orders before the second's.
    let firsts = declare(&world, world.account, ORDERS).await;
    let seconds = declare(&world, other, ORDERS).await;
    world.caught_up().await;
    let hang = |account: &str| {
        let any = Matching::op(Op::FindByTag).kind("security-group").account(account);
        world.sim.faults().inject(any.always(), Fault::Hang)
    };
    let (first, second) = (hang("acme"), hang("globex"));

    // More in all than one account may have, and less than two.
    let in_all = limit + 3;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runner = Runner::new(world.ledger.clone(), in_all as usize);
    let running = tokio::spawn(async move {
        runner.run(stopped.map(|_| ())).await;
    });
    first.reached_times(limit).await;
    second.reached_times(in_all - limit).await;
    assert_eq!((first.hits(), second.hits()), (limit, in_all - limit), "both limits are used up");

    // The second account goes on. While all its orders are done, in many looks, not one more of
    // the first account's is begun.
    second.release();
    linked(&world, &seconds).await;
    assert_eq!(first.hits(), limit, "the first account's calls are as many as it takes");
    assert!(second.hits() >= ORDERS as u64);
    first.release();
    linked(&world, &firsts).await;
    assert_eq!(first.hits(), ORDERS as u64, "each order was begun once");
    stop.send(()).unwrap();
    running.await.unwrap();
}

/// Waits until all of these are linked.
async fn linked(world: &World, ids: &[Uuid]) {
    for id in ids {
        loop {
            let head = world.log.head().await.unwrap().position;
            if world.row(*id).await["status"] == "linked" {
                break;
            }
            world.log.appended(head).await;
        }
    }
}
