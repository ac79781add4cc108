//! Where money can be saved: each hint with what it costs in a month, and what that rests on.

use std::time::Duration;

use adapters_sim::Population;
use chrono::{DateTime, Days, TimeDelta, Utc};
use commands::ports::Clock;
use domain::finops::{
    amount::BillingMonth,
    bill::Manner,
    hint::{Hint, Thresholds},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    bills::{book, import},
    rating::{observe, prices},
    world::World,
};

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
    BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,\
    ChargePeriodEnd,ServiceName,ResourceId,ResourceName,ChargeDescription,CommitmentDiscountId,\
    CommitmentDiscountStatus\n";

/// A line of a month: cost, resource, description, commitment and its status.
fn line(month: BillingMonth, of: [&str; 5]) -> String {
    let [cost, resource, description, commitment, status] = of;
    let next = month.next();
    format!(
        "{cost},{cost},{cost},{cost},42,USD,{month}-01T00:00:00Z,{next}-01T00:00:00Z,Usage,\
         {month}-05T00:00:00Z,{month}-06T00:00:00Z,EC2,{resource},{resource}-name,{description},\
         {commitment},{status}\n"
    )
}

async fn bill(world: &World, lines: &[String]) {
    let file = lines.iter().fold(HEADING.to_owned(), |file, line| file + line);
    book(world, &file, import(Manner::Add, "")).await.unwrap();
}

fn before(month: BillingMonth) -> BillingMonth {
    BillingMonth::of(month.first() - Days::new(1))
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

async fn disk(world: &World, number: u128, state: &str, server: Option<&str>, gib: u64) {
    let seen = json!({
        "name": format!("disk-{number}"), "size_gib": gib, "medium": "ssd", "state": state,
        "server": server,
    });
    observe(world, "disk", id(number), None, seen).await;
}

async fn server(world: &World, number: u128, power: &str, disks: &[u128]) {
    let disks: Vec<String> = disks.iter().map(|one| id(*one).to_string()).collect();
    let seen = json!({
        "name": format!("server-{number}"), "power": power, "shape": "small", "disks": disks,
    });
    observe(world, "server", id(number), Some(id(77)), seen).await;
}

async fn hints(world: &World, now: DateTime<Utc>, thresholds: Thresholds) -> Vec<Hint> {
    world.caught_up().await;
    let hinting = world.ledger.hinting(None, now, thresholds).await.unwrap();
    hinting.work(world.ledger.ports.bills.as_ref()).unwrap()
}

/// Code, resource, money and who says so, and how many lines that rests on.
fn shown(hints: &[Hint]) -> Vec<String> {
    let one = |hint: &Hint| {
        let money =
            hint.monthly.iter().map(|one| format!("{} {} {}", one.amount, one.currency, one.by));
        let money: Vec<String> = money.collect();
        let lines: u64 = hint.evidence.segments.values().sum();
        format!("{} {}: {} ({lines})", hint.code.name(), hint.resource, money.join(" + "))
    };
    hints.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_used_is_told_with_its_money_and_its_evidence() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    disk(&world, 1, "available", None, 100).await;
    disk(&world, 2, "attached", Some("i-11"), 100).await;
    disk(&world, 3, "attached", Some("i-12"), 100).await;
    server(&world, 11, "stopped", &[2]).await;
    server(&world, 12, "stopped", &[]).await;
    server(&world, 13, "running", &[]).await;
    let first = world.log.head().await.unwrap().position;
    world.clock.advance(Duration::from_hours(24 * 8));
    disk(&world, 3, "available", None, 100).await;
    let moved = world.log.head().await.unwrap().position;
    world.clock.advance(Duration::from_hours(24 * 2));
    let now = world.clock.now();

    let month = before(BillingMonth::of(now.date_naive()));
    let (one, two, three) = (id(1).to_string(), id(2).to_string(), id(12).to_string());
    let old = BillingMonth::of((now - TimeDelta::days(90)).date_naive());
    bill(
        &world,
        &[
            line(month, ["10", &one, "storage", "", ""]),
            line(month, ["2.5", &one, "requests", "", ""]),
            line(month, ["3", &two, "storage", "", ""]),
            line(month, ["0", &three, "a stopped server", "", ""]),
            line(month, ["2", "snap-1", "Snapshot data stored", "", ""]),
            line(month, ["4", "snap-2", "Snapshot data stored", "", ""]),
            line(month, ["3.6", "eip-1", "Idle public IPv4 address", "", ""]),
            line(month, ["90", "i-13", "used", "sp-1", "Used"]),
            line(month, ["30", "", "unused", "sp-1", "Unused"]),
            line(month, ["99", "i-13", "used", "sp-2", "Used"]),
            line(month, ["1", "", "unused", "sp-2", "Unused"]),
        ],
    )
    .await;
    bill(&world, &[line(old, ["2", "snap-1", "Snapshot data stored", "", ""])]).await;

    let found = hints(&world, now, Thresholds::default()).await;
    assert_eq!(
        shown(&found),
        [
            "commitment-unused sp-1: 30 USD bill (2)".to_owned(),
            "old-snapshot snap-1: 2 USD bill (1)".to_owned(),
            format!("stopped-server {}: 3 USD bill (1)", id(11)),
            format!("unattached-disk {one}: 12.5 USD bill (2)"),
            "unused-address eip-1: 3.6 USD bill (1)".to_owned(),
        ]
    );
    let stopped = &found[2];
    assert_eq!((stopped.name.as_str(), stopped.project), ("server-11", Some(id(77))));
    let unattached = found[3].evidence.since.as_ref().unwrap();
    assert!(unattached.position <= first, "since it was seen first");
    assert_eq!(found[3].evidence.threshold, "unattached_days 7: it has been for 10");
    assert!(found[0].evidence.threshold.contains("90 USD was used"), "{:?}", found[0]);

    // By other thresholds.
    let soon = Thresholds { unattached_days: 2, unused_percent: 1, ..Thresholds::default() };
    let more = hints(&world, now, soon).await;
    assert_eq!(more.len(), found.len() + 2);
    let third = more.iter().find(|hint| hint.resource == id(3).to_string()).unwrap();
    assert_eq!(third.evidence.since.as_ref().unwrap().position, moved, "since it was taken off");
    assert_eq!(third.monthly, [], "nobody knows what it costs");
    assert!(shown(&more).contains(&"commitment-unused sp-2: 1 USD bill (2)".to_owned()));
    let late = Thresholds { unattached_days: 11, stopped_days: 11, ..Thresholds::default() };
    assert_eq!(hints(&world, now, late).await.len(), found.len() - 2);

    // As it was: the disk was not there yet.
    let hinting = world.ledger.hinting(Some(0), now, Thresholds::default()).await.unwrap();
    assert_eq!(hinting.work(world.ledger.ports.bills.as_ref()).unwrap(), []);

    // What is put to use is no hint any more.
    disk(&world, 1, "attached", Some("i-13"), 100).await;
    server(&world, 11, "running", &[2]).await;
    assert_eq!(hints(&world, now, Thresholds::default()).await.len(), found.len() - 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_bill_knows_costs_what_our_rates_say_and_commitments_end() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    disk(&world, 1, "available", None, 100).await;
    prices(&world, json!("default"), &[("disk-gib", "0.001")]).await;
    world.clock.advance(Duration::from_hours(24 * 8));
    let now = world.clock.now();
    let today = now.date_naive();
    let define = async |name: &str, days: u64| {
        let end = today + Days::new(days);
        let terms = json!({
            "name": name, "form": "savings-plan", "billing_account": "42", "commitment": name,
            "currency": "EUR", "amount": "365", "start": end - Days::new(365), "end": end,
        });
        world.send("commitment", None, "define", json!({"terms": terms})).await.unwrap();
    };
    define("sp-soon", 20).await;
    define("sp-later", 61).await;

    let found = hints(&world, now, Thresholds::default()).await;
    let next = BillingMonth::of(today).next();
    let days = (next.next().first() - next.first()).num_days();
    let last = before(BillingMonth::of(today));
    let last_days = (last.next().first() - last.first()).num_days();
    // By hours of Berlin: a month in which the clock is changed has one more, or one less.
    let hour = |month: BillingMonth| match month.to_string().get(5..) {
        Some("03") => -1,
        Some("10") => 1,
        _ => 0,
    };
    let hundredths = (days * 24 + hour(next)) * 10;
    let money = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let money = money.trim_end_matches('0').trim_end_matches('.');
    assert_eq!(
        shown(&found),
        [
            format!("commitment-ending sp-soon: {last_days} EUR commitment (0)"),
            format!("unattached-disk {}: {money} EUR rates (0)", id(1)),
        ]
    );
    let ending: Value = serde_json::to_value(&found[0]).unwrap();
    let why = ending["evidence"]["threshold"].as_str().unwrap();
    assert!(why.contains("in 20 days; 20 EUR are left of it"), "{why}");
    assert_eq!(ending["evidence"]["since"]["type"], "defined");
    let early = Thresholds { commitment_days: 19, ..Thresholds::default() };
    assert_eq!(hints(&world, now, early).await.len(), 1);
}

async fn sized(world: &World, number: u128, shape: &str) {
    let seen = json!({
        "name": format!("server-{number}"), "power": "running", "shape": shape,
    });
    observe(world, "server", id(number), Some(id(77)), seen).await;
}

/// Tells that a server was as busy on the days before today, by 95 of 100 samples.
async fn measured(world: &World, number: u128, days: u64, p95: &str, mib: u64) {
    let today = world.clock.now().date_naive();
    for back in (1..=days).rev() {
        let used = json!({
            "day": today - Days::new(back), "vcpus": 8, "cpu_mean_percent": "0.5",
            "cpu_p95_percent": p95, "cpu_peak_percent": "95", "memory_peak_percent": "15",
            "network_in_bytes": mib << 20, "network_out_bytes": 0, "samples": 288, "step_s": 300,
            "source": "node-exporter",
        });
        let body = json!({"utilisation": used});
        world.send("server", Some(id(number)), "measure", body).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_idle_and_those_that_are_too_large_are_told_by_what_was_measured() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    for (name, vcpus, memory_gib) in
        [("s2.small", 2, "8"), ("s2.medium", 4, "16"), ("s2.large", 8, "32")]
    {
        let equipment = json!({"vcpus": vcpus, "memory_gib": memory_gib});
        let body = json!({"provider": "sim", "name": name, "equipment": equipment});
        world.send("shape", None, "define", body).await.unwrap();
    }
    for number in 21..=26 {
        sized(&world, number, "s2.large").await;
    }
    sized(&world, 27, "s2.small").await;
    let now = world.clock.now();
    let month = before(BillingMonth::of(now.date_naive()));
    let names: Vec<String> = (21..=27).map(|number| id(number).to_string()).collect();
    let lines = names.iter().map(|name| line(month, ["80", name, "running", "", ""]));
    bill(&world, &lines.collect::<Vec<_>>()).await;
    world.caught_up().await;
    let unmeasured = world.log.head().await.unwrap().position;

    measured(&world, 21, 14, "1", 50).await; // Idle.
    measured(&world, 22, 14, "30", 50).await; // 2.4 of 8 processors.
    measured(&world, 23, 14, "45", 50).await; // 3.6 of 8: too many for 80 % of four.
    measured(&world, 24, 11, "1", 50).await; // Idle, as far as one knows.
    measured(&world, 26, 14, "4", 300).await; // Its network is busy, and 0.32 processors.
    measured(&world, 27, 14, "4", 300).await; // The same, and there is nothing smaller.
    let found = hints(&world, now, Thresholds::default()).await;
    assert_eq!(
        shown(&found),
        [
            // What it costs; and half of it, or three quarters, by processors.
            format!("idle-server {}: 80 USD bill (1)", id(21)),
            format!("oversized-server {}: 60 USD estimate (1)", id(26)),
            format!("oversized-server {}: 40 USD estimate (1)", id(22)),
        ]
    );
    let idle = &found[0].evidence;
    let days = idle.measured.as_ref().unwrap();
    assert_eq!((days.days, days.covered_percent, days.samples), (14, 100, 14 * 288));
    assert_eq!(days.events.len(), 14);
    for position in &days.events {
        let record = &world.log.read(position - 1, 1).await.unwrap()[0];
        assert_eq!((record.event_type(), record.id()), ("measured", &*id(21).to_string()));
    }
    assert_eq!(
        idle.threshold,
        "idle_percent 5: 95 of 100 samples were at most 1 % of every day; 50 MiB of network a \
         day, idle_network_mib 100; 14 of 14 days, 100 % of their time"
    );
    let large = &found[2];
    let suggestion = large.suggestion.as_ref().unwrap();
    assert_eq!((suggestion.shape.as_str(), suggestion.vcpus), ("s2.medium", 4));
    assert_eq!(found[1].suggestion.as_ref().unwrap().shape, "s2.small");
    assert_eq!(large.evidence.money, "4 of 8 vCPUs of what it costs by bill: an estimate");
    assert!(large.evidence.threshold.contains("30 % of 8 vCPUs"), "{}", large.evidence.threshold);

    // Other thresholds; and as it was when nothing was measured.
    let strict = Thresholds { idle_percent: 1, oversized_percent: 50, ..Thresholds::default() };
    let names: Vec<String> = shown(&hints(&world, now, strict).await);
    assert_eq!(
        names,
        [
            // 15 % of 32 GiB are more than half of eight.
            format!("oversized-server {}: 40 USD estimate (1)", id(21)),
            format!("oversized-server {}: 40 USD estimate (1)", id(26)),
        ]
    );
    let short = Thresholds { measured_days: 11, ..Thresholds::default() };
    assert_eq!(hints(&world, now, short).await.len(), 4, "enough of 11 days is known");
    let hinting = world.ledger.hinting(Some(unmeasured), now, Thresholds::default()).await;
    let then = hinting.unwrap().work(world.ledger.ports.bills.as_ref()).unwrap();
    assert_eq!(then, []);

    // Our own rates say what the other shape costs.
    prices(&world, json!("default"), &[("vcpu", "0.01"), ("memory-gib", "0.001")]).await;
    let found = hints(&world, now, Thresholds::default()).await;
    let next = BillingMonth::of(now.date_naive()).next();
    // By hours of Berlin: a month in which the clock is changed has one more, or one less.
    let hours = (next.next().first() - next.first()).num_days() * 24
        + match next.to_string().get(5..) {
            Some("03") => -1,
            Some("10") => 1,
            _ => 0,
        };
    let money = |thousandths: i64| {
        let money = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        money.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    assert_eq!(
        shown(&found),
        [
            format!("idle-server {}: 80 USD bill (1)", id(21)),
            format!("oversized-server {}: {} EUR rates (0)", id(26), money(84 * hours)),
            format!("oversized-server {}: {} EUR rates (0)", id(22), money(56 * hours)),
        ]
    );
    assert_eq!(
        found[2].evidence.money,
        format!(
            "by our rates {} EUR as it is, {} EUR as s2.medium",
            money(112 * hours),
            money(56 * hours)
        )
    );

    // What stands still is another hint's.
    let seen = json!({"name": "server-21", "power": "stopped", "shape": "s2.large"});
    observe(&world, "server", id(21), None, seen).await;
    let found = hints(&world, now, Thresholds::default()).await;
    assert_eq!(found.len(), 2, "{:?}", shown(&found));
}
