//! A server's life is its meter: what runs is priced from the log, once, and the past stays priced
//! as it was.

use std::{collections::BTreeMap, time::Duration};

use adapters_sim::Population;
use chrono::{DateTime, Datelike, NaiveTime, TimeDelta, Utc};
use commands::{
    bills::costs,
    derive::{Renewed, Run, RunFault},
    ledger::Ledger,
    ports::{Clock, CostQuery},
    submit::{Submission, SubmitFault},
};
use domain::{
    finops::{amount::BillingMonth, bill::Bill, cost::Basis, rate_set::Meter},
    kinds,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

const DAY: Duration = Duration::from_hours(24);

/// A world at noon: nothing here happens at the end of a day by chance.
fn world() -> World {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let now = world.clock.now();
    let noon = NaiveTime::from_hms_opt(12, 0, 0).unwrap();
    let mut next = (now + TimeDelta::days(1)).with_time(noon).unwrap();
    // Nor at the end of a month: what is used across it is two uses.
    while next.day() > 20 {
        next += TimeDelta::days(1);
    }
    world.clock.advance((next - now).to_std().unwrap());
    world
}

async fn system(world: &World, kind: &str, id: Uuid, verb: &str, body: Value) {
    let kind = kinds::by_name(kind).unwrap();
    let submission = Submission::new(Ledger::system("observer"), kind, id, verb, body);
    world.ledger.submit(submission).await.unwrap();
}

pub(crate) async fn observe(
    world: &World,
    kind: &str,
    id: Uuid,
    project: Option<Uuid>,
    seen: Value,
) {
    let origin = json!({
        "provider": "sim", "account": Uuid::from_u128(9), "region": "north",
        "external_id": id.to_string(),
    });
    let body = json!({"origin": origin, "project": project, "seen": seen});
    system(world, kind, id, "observe", body).await;
}

fn machine(power: &str, shape: &str) -> Value {
    json!({
        "name": "web-1", "power": power, "shape": shape, "tags": {"env": "prod"},
        "addresses": ["10.0.0.4/32", "8.8.4.4/32"],
    })
}

async fn shape(world: &World, name: &str, vcpus: u32, memory_gib: &str) {
    let equipment = json!({"vcpus": vcpus, "memory_gib": memory_gib});
    let body = json!({"provider": "sim", "name": name, "equipment": equipment});
    world.send("shape", None, "define", body).await.unwrap();
}

/// A set for a scope, with prices per hour.
pub(crate) async fn prices(world: &World, scope: Value, rates: &[(&str, &str)]) -> Uuid {
    let settings = json!({
        "name": "own", "currency": "EUR", "scope": scope, "time_zone": "Europe/Berlin",
    });
    let set = world.send("rate-set", None, "define", json!({"settings": settings})).await.unwrap();
    for (meter, price) in rates {
        let rate = json!({"meter": meter, "pricing": {"pay-as-you-go": {"price": price}}});
        let body = json!({"key": meter, "rate": rate});
        world.send("rate-set", set.id, "set-rate", body).await.unwrap();
    }
    set.id
}

fn run(from: DateTime<Utc>, to: DateTime<Utc>, reason: &str) -> Run {
    let month = |time: DateTime<Utc>| BillingMonth::of(time.date_naive());
    Run {
        months: month(from)..=month(to),
        reason: reason.into(),
        by: World::admin(),
        validate_only: false,
    }
}

async fn rate(world: &World, run: &Run) -> Result<(Vec<Renewed>, BTreeMap<Meter, u64>), RunFault> {
    let rating = world.ledger.rating(run).await?;
    let (derived, unrated) = rating.work(world.ledger.ports.bills.as_ref(), run)?;
    Ok((world.ledger.renew(&derived, run).await?, unrated))
}

async fn sums(world: &World, basis: Basis, by: &str) -> BTreeMap<String, String> {
    world.caught_up().await;
    let months = ["2020-01", "2040-12"].map(|month| month.parse().unwrap());
    let counting = world.ledger.bills(months[0], months[1], None).await.unwrap();
    let asked = CostQuery { basis, groups: vec![by.parse().unwrap()], ..CostQuery::default() };
    let table = costs(world.ledger.ports.bills.as_ref(), &counting, &asked).unwrap();
    table.iter().map(|(key, _, sum)| (key.join(" "), sum.amount.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_priced_while_it_runs_by_what_it_has_and_its_addresses_while_it_is_there() {
    let world = world();
    let begin = world.clock.now();
    let project = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    shape(&world, "small", 2, "4").await;
    shape(&world, "large", 8, "0.5").await;
    let rates = [("vcpu", "0.02"), ("memory-gib", "0.01"), ("ip", "0.005"), ("disk-gib", "0.001")];
    prices(&world, json!("default"), &rates).await;
    let (server, disk) = (Uuid::from_u128(11), Uuid::from_u128(12));
    observe(&world, "server", server, Some(project), machine("running", "small")).await;
    let seen = json!({"name": "d", "size_gib": 100, "medium": "ssd", "state": "attached"});
    observe(&world, "disk", disk, Some(project), seen).await;
    world.clock.advance(DAY);
    observe(&world, "server", server, None, machine("unknown", "small")).await;
    world.clock.advance(DAY);
    observe(&world, "server", server, None, machine("stopped", "small")).await;
    world.clock.advance(DAY);
    observe(&world, "server", server, None, machine("running", "large")).await;
    world.clock.advance(DAY);
    system(&world, "server", server, "vanish", json!({"evidence": "not-found-by-id"})).await;
    world.clock.advance(2 * DAY);
    let end = world.clock.now();
    let (bills, unrated) = rate(&world, &run(begin, end, "")).await.unwrap();
    assert!(bills.iter().all(|bill| bill.changed && bill.part.billing_account == "own"));
    // Two uses, and one more where the month ends in the middle of one.
    assert_eq!(unrated.keys().collect::<Vec<_>>(), [&Meter::Server], "no rate for the package");
    assert!((2..=3).contains(&unrated[&Meter::Server]), "{unrated:?}");

    // Two days of the small one, a day of the large one; four days with an address. The facts are
    // some milliseconds later than whole days.
    let hours = sums(&world, Basis::Quantity, "unit").await;
    let costs = sums(&world, Basis::Billed, "unit").await;
    for (unit, hour, price) in [
        ("vcpu-hour", 2 * 48 + 8 * 24, 0.02),
        ("memory-gib-hour", 4 * 48 + 12, 0.01),
        ("ip-hour", 96, 0.005),
    ] {
        let hour = f64::from(hour);
        let (used, cost): (f64, f64) = (hours[unit].parse().unwrap(), costs[unit].parse().unwrap());
        assert!((used - hour).abs() < 0.05 * hour, "{unit}: {used}");
        assert!((cost - hour * price).abs() < 0.05 * cost, "{unit}: {cost}");
    }
    assert!(hours.contains_key("disk-gib-hour"));
    let by_project = sums(&world, Basis::Billed, "sub_account").await;
    assert_eq!(by_project.keys().collect::<Vec<_>>(), [&project.to_string()]);
    let by_tag = sums(&world, Basis::Billed, "tags.env").await;
    assert!(by_tag.contains_key("prod"), "{by_tag:?}");

    let head = world.log.head().await.unwrap().position;
    let (again, _) = rate(&world, &run(begin, end, "")).await.unwrap();
    assert!(again.iter().all(|bill| !bill.changed), "equal lines make no event");
    assert_eq!(world.log.head().await.unwrap().position, head);
    assert_eq!(
        again.iter().map(|bill| &bill.part.digest).collect::<Vec<_>>(),
        bills.iter().map(|bill| &bill.part.digest).collect::<Vec<_>>(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_measured_of_a_server_changes_nothing_of_its_price() {
    let world = world();
    let begin = world.clock.now();
    shape(&world, "small", 2, "4").await;
    prices(&world, json!("default"), &[("vcpu", "0.02")]).await;
    let server = Uuid::from_u128(11);
    observe(&world, "server", server, None, machine("running", "small")).await;
    world.clock.advance(2 * DAY);
    let run = run(begin, world.clock.now(), "");
    let (bills, _) = rate(&world, &run).await.unwrap();
    assert!(!bills.is_empty() && bills.iter().all(|bill| bill.part.lines > 0), "{bills:?}");
    for (samples, vcpus) in [(100, 2), (288, 8)] {
        let used = json!({
            "day": begin.date_naive(), "vcpus": vcpus, "cpu_mean_percent": "1",
            "cpu_p95_percent": "2", "cpu_peak_percent": "3", "samples": samples, "step_s": 300,
            "source": "node-exporter",
        });
        let body = json!({"utilisation": used});
        world.send("server", Some(server), "measure", body).await.unwrap();
    }
    let (again, _) = rate(&world, &run).await.unwrap();
    assert!(again.iter().all(|bill| !bill.changed));
    let digests = |bills: &[Renewed]| -> Vec<String> {
        bills.iter().map(|bill| bill.part.digest.clone()).collect()
    };
    assert_eq!(digests(&again), digests(&bills));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_stays_priced_as_it_was_when_rates_and_owners_change() {
    let world = world();
    let begin = world.clock.now();
    let domain = world.send("domain", None, "create", json!({"name": "acme"})).await.unwrap().id;
    let project = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    shape(&world, "small", 1, "1").await;
    let set = prices(&world, json!("default"), &[("vcpu", "1")]).await;
    prices(&world, json!({"domain": domain}), &[("vcpu", "3")]).await;
    let server = Uuid::from_u128(11);
    observe(&world, "server", server, Some(project), machine("running", "small")).await;
    world.clock.advance(40 * DAY);
    let then = world.clock.now();
    rate(&world, &run(begin, then, "")).await.unwrap();
    let before = sums(&world, Basis::Billed, "day").await;

    // What has begun cannot be changed, only ended.
    let rate_of = |price: &str| {
        json!({"key": "vcpu", "rate": {
            "meter": "vcpu", "pricing": {"pay-as-you-go": {"price": price}},
        }})
    };
    let refused = world.send("rate-set", set, "set-rate", rate_of("2")).await.unwrap_err();
    assert!(matches!(&refused, SubmitFault::Refused(no) if no.code.code == "rate-in-effect"));
    let past = json!({"key": "vcpu", "to": begin + TimeDelta::hours(1)});
    assert!(world.send("rate-set", set, "end-rate", past).await.is_err());
    world.send("rate-set", set, "end-rate", json!({"key": "vcpu"})).await.unwrap();
    let mut next = rate_of("2");
    next["key"] = json!("vcpu from now");
    world.send("rate-set", set, "set-rate", next).await.unwrap();
    world.clock.advance(5 * DAY);
    // From now on by the domain's rate.
    world.send("project", project, "assign", json!({"domain": domain})).await.unwrap();
    world.clock.advance(5 * DAY);
    let end = world.clock.now();
    rate(&world, &run(begin, end, "")).await.unwrap();
    let after = sums(&world, Basis::Billed, "day").await;
    for (day, cost) in &before {
        assert_eq!(after.get(day), Some(cost), "{day}");
    }
    let last: Vec<&String> = after.values().rev().take(11).collect();
    assert!(last.contains(&&"48".to_owned()) && last.contains(&&"72".to_owned()), "{after:?}");

    // A month that is closed stays, and one whose lines would differ says so.
    let month = BillingMonth::of(begin.date_naive());
    world.send("bill", Bill::id("own", month), "close", json!({})).await.unwrap();
    let (again, _) = rate(&world, &run(begin, end, "")).await.unwrap();
    assert!(again.iter().all(|bill| !bill.changed));
}
