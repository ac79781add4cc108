//! What was paid in advance, recognised by days: exact over all months, once however often it runs,
//! and never in a closed month without a reason.

use std::collections::BTreeMap;

use adapters_sim::Population;
use commands::{
    amortise::Finding,
    bills::{Counting, Import, OnRepeats, costs},
    derive::{Renewed, Run, RunFault},
    ports::{CostQuery, Reading},
    submit::SubmitFault,
};
use domain::{
    finops::{
        bill::{Bill, Manner},
        cost::Basis,
    },
    log::Position,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,\
    BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,\
    ChargePeriodEnd,ServiceName,CommitmentDiscountId,ResourceId\n";

fn world() -> World {
    World::empty(Population { seed: 1, regions: 1, resources: 0 })
}

/// A line of a month of 2026: its category, commitment or resource, billed and effective.
fn line(month: u32, category: &str, of: (&str, &str), billed: &str, effective: &str) -> String {
    let next = month + 1;
    let (commitment, resource) = of;
    format!(
        "{billed},{effective},{billed},{billed},42,EUR,2026-{month:02}-01T00:00:00Z,\
         2026-{next:02}-01T00:00:00Z,{category},2026-{month:02}-05T00:00:00Z,\
         2026-{month:02}-06T00:00:00Z,EC2,{commitment},{resource}\n"
    )
}

async fn import(world: &World, lines: &[String]) {
    let file = lines.iter().fold(HEADING.to_owned(), |file, line| file + line);
    let store = &world.ledger.ports.bills;
    let read = store.read(&mut file.as_bytes(), &Reading::default()).unwrap();
    assert_eq!(read.quarantined, 0, "{read:?}");
    let source = format!("{}.csv", &read.source_digest[..8]);
    let (manner, by) = (Manner::Add, World::admin());
    let import =
        Import { source, manner, reason: String::new(), by, repeats: OnRepeats::default() };
    world.ledger.book(&read, &import).await.unwrap();
}

async fn define(world: &World, terms: Value) -> Uuid {
    world.send("commitment", None, "define", json!({"terms": terms})).await.unwrap().id
}

fn plan(amount: &str) -> Value {
    json!({
        "name": "db", "form": "reservation", "billing_account": "42", "commitment": "ri-1",
        "currency": "EUR", "amount": amount, "start": "2026-01-10", "end": "2027-01-10",
        "time_zone": "America/New_York", "carries": {"service": "EC2"},
    })
}

fn run(from: &str, to: &str, reason: &str) -> Run {
    Run {
        months: from.parse().unwrap()..=to.parse().unwrap(),
        reason: reason.into(),
        by: World::admin(),
        validate_only: false,
    }
}

async fn amortise(world: &World, run: &Run) -> Result<(Vec<Renewed>, Vec<Finding>), RunFault> {
    let amortising = world.ledger.amortising().await?;
    let (derived, findings) = amortising.work(world.ledger.ports.bills.as_ref(), run)?;
    Ok((world.ledger.renew(&derived, run).await?, findings))
}

async fn year(world: &World) -> (Vec<Renewed>, Vec<Finding>) {
    amortise(world, &run("2026-01", "2027-12", "")).await.unwrap()
}

async fn counting(world: &World, at: Option<Position>) -> Counting {
    world.caught_up().await;
    world.ledger.bills("2020-01".parse().unwrap(), "2030-12".parse().unwrap(), at).await.unwrap()
}

/// What the lines come to, by the values of these dimensions, zeros left out.
async fn sums(world: &World, basis: Basis, by: &[&str]) -> BTreeMap<String, String> {
    let groups = by.iter().map(|name| name.parse().unwrap()).collect();
    let asked = CostQuery { basis, groups, ..CostQuery::default() };
    let counting = counting(world, None).await;
    let table = costs(world.ledger.ports.bills.as_ref(), &counting, &asked).unwrap();
    let rows = table.iter().filter(|(_, _, sum)| sum.amount.0 != 0);
    rows.map(|(key, _, sum)| (key.join(" "), sum.amount.to_string())).collect()
}

async fn head(world: &World) -> Position {
    world.log.head().await.unwrap().position
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_effective_at_what_the_purchase_is_billed_and_the_purchase_at_nothing() {
    let world = world();
    import(
        &world,
        &[
            line(1, "Purchase", ("ri-1", ""), "1000.00000000001", "1000.00000000001"),
            line(2, "Usage", ("ri-1", "i-1"), "0", "0"),
            line(2, "Usage", ("", "i-2"), "5", "5"),
        ],
    )
    .await;
    define(&world, plan("1000.00000000001")).await;
    let billed = sums(&world, Basis::Billed, &[]).await;
    let (bills, findings) = year(&world).await;
    assert_eq!((bills.len(), findings), (13, vec![]));
    assert!(bills.iter().all(|bill| bill.changed && bill.status == "open"));
    assert_eq!(sums(&world, Basis::Billed, &[]).await, billed, "nothing is billed for it");

    let by = ["commitment", "charge_category"];
    let effective = sums(&world, Basis::Effective, &by).await;
    let bought = sums(&world, Basis::Billed, &by).await["ri-1 Purchase"].clone();
    assert_eq!(effective.get("ri-1 Usage"), Some(&bought));
    assert_eq!(effective.get("ri-1 Purchase"), None, "nothing is left of it");
    let by_day = sums(&world, Basis::Effective, &["commitment", "day"]).await;
    let days = by_day.keys().filter(|key| key.starts_with("ri-1")).count();
    assert_eq!(days, 365, "a line for each day");

    // Equal lines make no event.
    let before = head(&world).await;
    let (again, _) = year(&world).await;
    assert!(again.iter().all(|bill| !bill.changed));
    assert_eq!(head(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_and_a_cancellation_midway_leave_the_past_and_come_out_even() {
    let world = world();
    import(&world, &[line(1, "Purchase", ("ri-1", ""), "1000", "1000")]).await;
    let id = define(&world, plan("1000")).await;
    year(&world).await;
    let by_month = async || sums(&world, Basis::Effective, &["month"]).await;
    let plain = by_month().await;

    import(&world, &[line(6, "Purchase", ("ri-1", ""), "300", "300")]).await;
    let upgrade = json!({"day": "2026-06-15", "paid": "300", "end": "2027-06-15"});
    world.send("commitment", id, "upgrade", upgrade).await.unwrap();
    assert_eq!(year(&world).await.1, vec![]);
    let upgraded = by_month().await;
    for month in ["2026-01", "2026-05"] {
        assert_eq!(upgraded[month], plain[month], "{month} is before it");
    }
    assert_eq!(sums(&world, Basis::Effective, &[]).await[""], "1300");

    import(&world, &[line(9, "Credit", ("ri-1", ""), "-200", "-200")]).await;
    let cancel = json!({"day": "2026-09-20", "refund": "200"});
    world.send("commitment", id, "cancel", cancel).await.unwrap();
    assert_eq!(year(&world).await.1, vec![]);
    assert_eq!(by_month().await["2026-08"], upgraded["2026-08"]);
    assert_eq!(by_month().await.get("2026-10"), None, "nothing comes after the end");
    let categories = sums(&world, Basis::Effective, &["charge_category"]).await;
    assert_eq!(categories.keys().collect::<Vec<_>>(), ["Adjustment", "Usage"]);
    for basis in [Basis::Billed, Basis::Effective] {
        assert_eq!(sums(&world, basis, &[]).await[""], "1100", "{basis:?}: paid less refunded");
    }

    // Retired, its lines go, and bills are as their files are.
    world.send("commitment", id, "retire", json!({})).await.unwrap();
    year(&world).await;
    let files = sums(&world, Basis::Billed, &["month"]).await;
    assert_eq!(by_month().await, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_month_gets_no_lines_without_a_reason_and_a_further_version_with_one() {
    let world = world();
    import(
        &world,
        &[
            line(1, "Purchase", ("ri-1", ""), "1000", "1000"),
            line(2, "Usage", ("", "i-2"), "5", "5"),
        ],
    )
    .await;
    world
        .send("bill", Bill::id("42", "2026-02".parse().unwrap()), "close", json!({}))
        .await
        .unwrap();
    define(&world, plan("1000")).await;
    let before = head(&world).await;
    let refused = amortise(&world, &run("2026-01", "2026-03", "")).await.unwrap_err();
    let RunFault::Submit(SubmitFault::Refused(no)) = &refused else { panic!("{refused}") };
    assert_eq!(no.code.code, "bill-closed");
    assert_eq!(head(&world).await, before, "no month has changed");

    let plan = Run { validate_only: true, ..run("2026-01", "2026-03", "bought late") };
    let (planned, _) = amortise(&world, &plan).await.unwrap();
    assert!(planned.iter().all(|bill| bill.changed && bill.before.is_empty()));
    assert_eq!(head(&world).await, before, "a plan books nothing");

    let (bills, _) = amortise(&world, &run("2026-01", "2026-03", "bought late")).await.unwrap();
    let statuses: Vec<_> = bills.iter().map(|bill| bill.status.as_str()).collect();
    assert_eq!(statuses, ["open", "closed", "open"]);
    let versions = |counting: &Counting| {
        let february = counting.bills.iter().find(|one| one.bill.closed).unwrap();
        february.bill.versions.iter().map(|one| one.reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(versions(&counting(&world, None).await), ["", "bought late"]);
    assert_eq!(versions(&counting(&world, Some(before)).await), [""], "as it was closed");
    // The month stays closed against a run that has nothing new to say.
    let (again, _) = amortise(&world, &run("2026-01", "2026-03", "")).await.unwrap();
    assert!(again.iter().all(|bill| !bill.changed));
}

#[tokio::test(flavor = "multi_thread")]
async fn bills_that_recognise_it_themselves_are_left_alone_and_what_differs_is_told() {
    let purchase =
        |billed: &str, effective: &str| line(1, "Purchase", ("ri-1", ""), billed, effective);
    let usage = |effective: &str| line(1, "Usage", ("ri-1", "i-1"), "0", effective);
    for (lines, code, made) in [
        (vec![purchase("1000", "0"), usage("83")], "amortised-already", false),
        (vec![usage("83")], "amortised-already", false),
        (vec![purchase("1000", "1000"), usage("83")], "amortised-partly", false),
        (vec![purchase("1000", "400")], "amortised-partly", false),
        (vec![purchase("999", "999")], "purchase-differs", false),
        (vec![line(1, "Usage", ("", "i-1"), "7", "7")], "purchase-missing", true),
    ] {
        let world = world();
        import(&world, &lines).await;
        define(&world, plan("1000")).await;
        let (bills, findings) = year(&world).await;
        assert_eq!(findings.len(), 1, "{code}: {findings:?}");
        assert_eq!((findings[0].code, !bills.is_empty()), (code, made), "{findings:?}");
    }
    let world = world();
    import(&world, &[line(1, "Purchase", ("", "vm-9"), "360", "360")]).await;
    let mut prepaid = plan("360");
    prepaid["commitment"] = json!("");
    prepaid["resource"] = json!("vm-9");
    prepaid["method"] = json!("monthly");
    let id = define(&world, prepaid).await;
    assert_eq!(year(&world).await.1, vec![]);
    let by_month = sums(&world, Basis::Effective, &["resource", "month"]).await;
    assert_eq!(by_month["vm-9 2026-02"], "30");
    let cancel = json!({"day": "2026-03-01", "refund": "10"});
    world.send("commitment", id, "cancel", cancel).await.unwrap();
    let (_, findings) = year(&world).await;
    assert_eq!(findings[0].code, "refund-missing", "its credit is not in a bill yet");
}
