//! Every call fails once, in every way; the end is the same.

use std::{sync::Arc, time::Duration};

use adapters_sim::{Fault, Matching, Op, Outcome, Rate};
use commands::{
    ports::{Clock, DriverFault, Provider, Task},
    testing::CountingPace,
};
use domain::{mapping::Order, network::security_group::SecurityGroup};
use serde_json::json;

use crate::{ACCOUNT, Bench, REGION, group_task, seen, spec, task};

fn before() -> SecurityGroup {
    spec(
        "web",
        &[
            json!({"ports": "22"}),
            json!({"ports": "80"}),
            json!({"ports": "1-9", "action": "deny", "priority": 3}),
        ],
    )
}

fn after() -> SecurityGroup {
    let mut after = spec(
        "front",
        &[
            json!({"ports": "80", "description": "http"}),
            json!({"ports": "443"}),
            json!({"ports": "9", "priority": 1}),
        ],
    );
    after.tags = [("env".to_owned(), "prod".to_owned())].into();
    after
}

/// The three orders of a group, each with what is there before.
fn orders(bench: &Bench) -> Vec<Task> {
    let there = bench.group(&before());
    let gone = bench.group(&before());
    vec![
        group_task(1, "", &Order::Create { spec: after() }),
        group_task(2, &there, &Order::Apply { from: before(), to: after() }),
        group_task(3, &gone, &Order::Delete {}),
    ]
}

#[tokio::test]
async fn an_order_ends_the_same_whichever_call_fails_and_however() {
    let faults = [
        Fault::Transient,
        Fault::AnswerLost,
        Fault::Throttled(Some(Duration::from_secs(1))),
        Fault::Unexpected,
    ];
    for which in 0..3 {
        let clean = Bench::new(60);
        let order = orders(&clean).remove(which);
        clean.cloud.clear_trace();
        let expected = clean.carry_out(&order).await.unwrap();
        let calls = clean.cloud.trace().len() as u64;
        for fault in &faults {
            for nth in 1..=calls {
                let bench = Bench::new(60);
                let order = orders(&bench).remove(which);
                let injected = bench.cloud.faults().inject(Matching::any().nth(nth), fault.clone());
                let first = bench.carry_out(&order).await;
                assert!(first.is_err(), "{fault:?} at call {nth} of order {which}");
                assert_eq!(injected.hits(), 1);
                assert_eq!(bench.carry_out(&order).await.unwrap(), expected, "{fault:?} at {nth}");
                let made = bench.cloud.console(ACCOUNT, "test");
                let made = made.groups_made_for(REGION, &order.key.stream.id).unwrap();
                assert_eq!(made.len(), usize::from(which == 0));
            }
        }
    }
}

#[tokio::test]
async fn a_dropped_attempt_leaves_what_it_did_and_the_next_goes_on() {
    let bench = Bench::new(60);
    let create = group_task(1, "", &Order::Create { spec: after() });
    let hang = bench.cloud.faults().inject(Matching::op(Op::AddRule).nth(2), Fault::HangAfter);
    tokio::select! {
        done = bench.carry_out(&create) => panic!("{done:?} came through"),
        () = hang.reached() => {}
    }
    let console = bench.cloud.console(ACCOUNT, "test");
    let half = console.groups_made_for(REGION, &create.key.stream.id).unwrap();
    assert_eq!(console.group(REGION, &half[0]).unwrap().rules.len(), 2);
    let report = bench.carry_out(&create).await.unwrap();
    assert_eq!(
        (report.body["external_id"].as_str(), seen(&report)),
        (Some(half[0].as_str()), after())
    );
}

#[tokio::test]
async fn a_call_hangs_until_it_is_released() {
    let bench = Bench::new(60);
    let hang = bench.cloud.faults().inject(Matching::op(Op::Whoami), Fault::Hang);
    let (identity, ()) = tokio::join!(bench.cloud.identity(&bench.access), async {
        hang.reached().await;
        assert_eq!(bench.cloud.trace().len(), 0);
        hang.release();
    });
    assert_eq!(identity.unwrap().external_account, ACCOUNT);
    assert_eq!(hang.hits(), 1);
}

#[tokio::test]
async fn a_region_is_denied_and_the_others_are_not() {
    let bench = Bench::new(60);
    let denied =
        bench.cloud.faults().inject(Matching::any().region(REGION).always(), Fault::Denied);
    for kind in ["server", "vpc"] {
        let here = bench.cloud.list(&bench.access, Some(REGION), kind, None).await;
        assert!(matches!(here, Err(DriverFault::Denied(_))));
        bench.cloud.list(&bench.access, Some("sim-east-1"), kind, None).await.unwrap();
    }
    assert_eq!(denied.hits(), 2);
    bench.cloud.faults().clear();
    bench.all("server").await.unwrap();
}

#[tokio::test]
async fn a_page_is_cut_with_and_without_a_word() {
    let bench = Bench::new(300);
    bench.cloud.set_page_size(4);
    let whole: usize =
        bench.all("server").await.unwrap().iter().map(|page| page.sightings.len()).sum();
    let second = || Matching::op(Op::List).kind("server").nth(2);
    bench.cloud.faults().inject(second(), Fault::CutPage);
    assert!(matches!(bench.all("server").await, Err(DriverFault::Unexpected(_))));
    let cut = bench.cloud.faults().inject(second(), Fault::CutPageSilently);
    let pages = bench.all("server").await.unwrap();
    assert_eq!((cut.hits(), pages.len(), pages[1].sightings.len()), (1, 2, 2));
    assert!(whole > 6);
    bench.cloud.faults().inject(second(), Fault::Transient);
    assert!(matches!(bench.all("server").await, Err(DriverFault::Transient(_))));
}

#[tokio::test]
async fn too_many_calls_are_throttled_and_told_when_to_come_again() {
    let bench = Bench::new(60);
    bench.cloud.set_rate(Some(Rate { per_second: 2, burst: 3 }));
    for _ in 0..3 {
        bench.cloud.identity(&bench.access).await.unwrap();
    }
    let Err(DriverFault::Throttled { retry_after: Some(wait) }) =
        bench.cloud.identity(&bench.access).await
    else {
        panic!("the fourth call at once came through")
    };
    assert_eq!(wait, Duration::from_millis(500));
    bench.clock.advance(wait);
    bench.cloud.identity(&bench.access).await.unwrap();
    assert!(bench.cloud.identity(&bench.access).await.is_err());
    bench.cloud.set_rate(None);
    bench.cloud.identity(&bench.access).await.unwrap();
}

#[tokio::test]
async fn latency_is_the_clocks() {
    let bench = Bench::new(60);
    let start = bench.clock.now();
    bench.cloud.set_latency(Duration::from_millis(20)).unwrap();
    bench.cloud.faults().inject(Matching::any(), Fault::Latency(Duration::from_secs(3)));
    bench.cloud.identity(&bench.access).await.unwrap();
    bench.cloud.identity(&bench.access).await.unwrap();
    assert_eq!((bench.clock.now() - start).num_milliseconds(), 3_040);
}

#[tokio::test]
async fn the_trace_says_what_was_really_done() {
    let bench = Bench::new(60);
    let id = bench.first("server");
    bench.cloud.clear_trace();
    let tags = json!({"type": "set-tags", "data": {"tags": {"a": "1", "b": "2", "c": "3"}}});
    let order = task("server", 1, &id, tags);
    bench.cloud.faults().inject(Matching::write().nth(1), Fault::AnswerLost);
    bench.cloud.faults().inject(Matching::write().nth(2), Fault::Rejected("tag quota".into()));
    bench.insist(&order).await;
    let writes: Vec<_> =
        bench.cloud.trace().into_iter().filter(|one| one.seen.op.writes()).collect();
    let done: Vec<_> = writes
        .iter()
        .map(|one| match &one.outcome {
            Outcome::Done => "done",
            Outcome::DoneUnanswered => "unanswered",
            Outcome::Failed(_) => "failed",
        })
        .collect();
    assert_eq!(done, ["unanswered", "done", "failed", "done"]);
    assert_eq!(writes[0].after.as_ref().unwrap()["tags"]["a"], "1");
    assert_eq!(writes[2].after, None);
    assert!(writes.iter().all(|one| one.seen.order == Some(order.key.to_string())));
}

#[tokio::test]
async fn every_call_of_an_order_asks_the_pace_and_says_what_came_of_it() {
    let mut bench = Bench::new(60);
    let pace = Arc::new(CountingPace::default());
    bench.access.pace = pace.clone();
    let orders = orders(&bench);
    let made = bench.cloud.calls_made();
    let throttled = bench.cloud.faults().inject(Matching::write().nth(3), Fault::Throttled(None));
    for order in &orders {
        bench.insist(order).await;
    }
    bench.cloud.identity(&bench.access).await.unwrap();
    let calls = bench.cloud.calls_made() - made;
    assert!(calls > 15, "{calls}");
    assert_eq!((pace.tickets(), pace.learnt()), (calls, calls));
    assert_eq!((pace.throttled(), throttled.hits()), (1, 1));
}
