//! What comes next: from files to forecasts that add up, follow drivers, say how wrong they were,
//! and come out the same whatever the store, the threads and the order of lines.

use std::{collections::BTreeMap, fmt::Write as _};

use adapters_sim::Population;
use chrono::{Days, NaiveDate};
use commands::{
    attribute::{AxisQuery, Whose},
    bills::{Import, OnRepeats},
    forecast::{Asked, Drivers, ForecastFault, Forecasts, Inputs, forecast, missed},
    ports::{Filter, Op, Reading},
};
use domain::{
    finops::{
        amount::{Amount, BillingMonth},
        bill::{Bill, Manner},
        cost::Basis,
        forecast::{Model, Step},
        rules::Rules,
    },
    log::Position,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,\
    BillingPeriodStart,BillingPeriodEnd,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,\
    ServiceName,SubAccountId\n";

/// How many servers ran: planned steps, here and there.
fn servers(month: usize) -> i128 {
    [10, 10, 12, 30, 30, 18, 18, 40, 40, 41, 25, 25][month * 7 % 12] + month as i128 / 6
}

fn month(at: usize) -> BillingMonth {
    let first: NaiveDate = "2023-01-01".parse().unwrap();
    BillingMonth::of(first.checked_add_months(chrono::Months::new(at as u32)).unwrap())
}

fn line(
    at: usize,
    day: i64,
    amount: Amount,
    service: &str,
    account: &str,
    currency: &str,
) -> String {
    let (from, to) = (month(at).first(), month(at).end());
    let day = from.checked_add_days(Days::new(day as u64)).unwrap();
    let next = day.succ_opt().unwrap();
    format!(
        "{amount},{amount},{amount},{amount},42,{currency},{from}T00:00:00Z,{to}T00:00:00Z,Usage,\
         {day}T00:00:00Z,{next}T00:00:00Z,{service},{account}\n"
    )
}

/// Amounts of thirty months: servers at 35.000000000001 each, storage that grows, support in another
/// currency, and a service of its own every month that is small.
fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for at in 0..30 {
        let noise = (at as i128 * 7_919 % 101 - 50) * 20_000_000_000;
        let compute = servers(at) * 35_000_000_000_001 + noise;
        let storage = (100 + 5 * at as i128) * 1_000_000_000_000 + noise / 3;
        for (service, amount, account, currency) in [
            ("Compute", compute, "a", "EUR"),
            ("Storage", storage, "a", "EUR"),
            ("Storage", storage / 2, "b", "EUR"),
            ("Support", 80_000_000_000_000, "b", "USD"),
        ] {
            // In two halves, on two days.
            for (day, part) in [(3, amount / 3), (20, amount - amount / 3)] {
                lines.push(line(at, day, Amount(part), service, account, currency));
            }
        }
        let small = format!("Small-{}", at % 5);
        lines.push(line(at, 5, Amount(1_500_000_000_000), &small, "b", "EUR"));
    }
    lines
}

fn import() -> Import {
    Import {
        source: "bill.csv".into(),
        manner: Manner::Add,
        reason: String::new(),
        by: World::admin(),
        repeats: OnRepeats::default(),
    }
}

async fn book(world: &World, lines: &[String]) {
    let file = lines.iter().fold(HEADING.to_owned(), |file, line| file + line);
    let store = &world.ledger.ports.bills;
    let read = store.read(&mut file.as_bytes(), &Reading::default()).unwrap();
    world.ledger.book(&read, &import()).await.unwrap();
}

async fn booked() -> World {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    book(&world, &lines()).await;
    world
}

fn asked(groups: &[&str]) -> Asked {
    let groups = groups.iter().map(|name| name.parse().unwrap()).collect();
    let costs = AxisQuery { basis: Basis::Effective, groups, ..AxisQuery::default() };
    Asked { costs, horizon: 3, most: 100, ..Asked::default() }
}

async fn inputs(world: &World, asked: &Asked, at: Option<Position>) -> Inputs {
    world.caught_up().await;
    world.ledger.forecast_inputs(asked, at).await.unwrap()
}

async fn ask(world: &World, asked: &Asked) -> Result<Forecasts, ForecastFault> {
    let inputs = inputs(world, asked, None).await;
    forecast(world.ledger.ports.bills.as_ref(), &inputs, asked, 2)
}

fn counts(to: usize) -> BTreeMap<String, Value> {
    (0..to).map(|at| (month(at).to_string(), json!(servers(at).to_string()))).collect()
}

async fn define(world: &World, body: Value) -> Uuid {
    world.send("driver", None, "define", body).await.unwrap().id
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_add_up_to_the_whole_to_the_last_shown_digit() {
    let world = booked().await;
    for (groups, most) in [(&["service", "sub_account"][..], 100), (&["service"], 3), (&[], 1)] {
        let asked = Asked { most, look_back: 4, ..asked(groups) };
        let found = ask(&world, &asked).await.unwrap();
        assert_eq!(found.totals.len(), 2, "currencies never mix");
        let others = found.series.iter().filter(|series| series.group.is_none()).count();
        assert_eq!(others > 0, most < 100, "what is beyond the largest is one series");
        for (currency, total) in &found.totals {
            let of: Vec<_> =
                found.series.iter().filter(|series| series.currency == *currency).collect();
            for (place, point) in total.points.iter().enumerate() {
                let sum: i128 = of.iter().map(|series| series.points[place].value.0).sum();
                assert_eq!(sum, point.value.0, "{groups:?}");
                // An estimate has four decimals.
                assert_eq!(point.value.0 % 10_i128.pow(8), 0);
                assert!(point.nearly_sure.0 <= point.likely.0 && point.likely.0 <= point.value);
                assert!(point.value <= point.likely.1 && point.likely.1 <= point.nearly_sure.1);
            }
            for (period, amount) in &total.history {
                let of = of.iter().flat_map(|series| &series.history);
                let sum: i128 =
                    of.filter(|(own, _)| own == period).map(|(_, amount)| amount.0).sum();
                assert_eq!(sum, amount.0, "{period}");
            }
            for one in &total.look_back {
                let of = of.iter().flat_map(|series| &series.look_back);
                let same = of.filter(|own| own.period == one.period);
                let (forecast, came) =
                    same.fold((0, 0), |sum, own| (sum.0 + own.forecast.0, sum.1 + own.came.0));
                assert_eq!((forecast, came), (one.forecast.0, one.came.0));
            }
        }
        // The past is exact: what all lines come to.
        let all: Vec<i128> = lines()
            .iter()
            .filter(|line| line.contains(",EUR,"))
            .map(|line| line.split(',').next().unwrap().parse::<Amount>().unwrap().0)
            .collect();
        let eur = &found.totals[&"EUR".to_owned().try_into().unwrap()];
        let history: i128 = eur.history.iter().map(|(_, amount)| amount.0).sum();
        assert_eq!(history, all.iter().sum::<i128>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_inputs_give_the_same_answer_whatever_the_order_the_store_and_the_threads() {
    let mut turned = lines();
    turned.reverse();
    let worlds = [booked().await, World::empty(Population { seed: 2, regions: 1, resources: 0 })];
    let (some, rest) = turned.split_at(101);
    book(&worlds[1], some).await;
    book(&worlds[1], rest).await;
    let driver = json!({
        "name": "servers", "unit": "servers", "values": counts(36), "scope": {"service": ["Compute"]},
    });
    for world in &worlds {
        define(world, driver.clone()).await;
    }
    let asked = Asked { look_back: 2, most: 4, ..asked(&["service", "sub_account"]) };
    let mut answers = Vec::new();
    for world in &worlds {
        let inputs = inputs(world, &asked, None).await;
        for threads in [1, 2, 7] {
            let store = world.ledger.ports.bills.as_ref();
            answers.push(forecast(store, &inputs, &asked, threads).unwrap());
        }
    }
    assert!(answers[..3].windows(2).all(|pair| pair[0] == pair[1]), "threads");
    // Other files are other inputs, and say so; the numbers are the same.
    assert_ne!(answers[0].digest, answers[3].digest);
    assert_eq!((&answers[0].series, &answers[0].totals), (&answers[3].series, &answers[3].totals));
    // Later events change nothing of an answer as it was then.
    let world = &worlds[0];
    let then = inputs(world, &asked, None).await.counting.position;
    define(world, json!({"name": "other", "unit": "u", "values": {"2023-01": 1}, "gaps": "last"}))
        .await;
    let late = vec![line(29, 9, Amount(7), "Compute", "a", "EUR")];
    book(world, &late).await;
    let store = world.ledger.ports.bills.as_ref();
    let as_then = inputs(world, &asked, Some(then)).await;
    assert_eq!(forecast(store, &as_then, &asked, 2).unwrap(), answers[0]);
    let now = ask(world, &asked).await.unwrap();
    assert_ne!(now.digest, answers[0].digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_is_followed_and_each_of_its_revisions_is_another_input() {
    let world = booked().await;
    let asked = asked(&["service"]);
    let plain = ask(&world, &asked).await.unwrap();
    let mut body = json!({
        "name": "servers", "unit": "servers", "values": counts(36), "scope": {"service": ["Compute"]},
    });
    let id = define(&world, body.clone()).await;
    let with = ask(&world, &asked).await.unwrap();
    let compute = |found: &Forecasts| {
        let one = found.series.iter().find(|one| one.group == Some(vec!["Compute".to_owned()]));
        one.unwrap().clone()
    };
    let followed = compute(&with);
    assert_eq!(followed.forecast.model, Model::Regression, "{}", followed.forecast.reason);
    let (name, price) = &followed.forecast.coefficients[0];
    assert!(name == "servers" && (price - 35.0).abs() < 1.0, "{price}");
    for (place, point) in followed.points.iter().enumerate() {
        let right = servers(30 + place) * 35_000_000_000_000;
        let off = (point.value.0 - right).unsigned_abs() * 100 / right.unsigned_abs();
        assert!(off < 5, "{}: {} is not about {}", point.period, point.value, Amount(right));
    }
    let scores = &followed.forecast.scores;
    let wape = |model| scores.iter().find(|one| one.model == model).unwrap().wape;
    assert!(wape(Model::Regression) < 0.5 * wape(Model::Naive));
    assert_ne!(with.digest, plain.digest);
    assert_eq!((with.drivers[0].id, with.drivers[0].revision), (id, 1));
    // Another plan, another forecast; the answer names the revision.
    body["values"]["2025-07"] = json!(100);
    world.send("driver", id, "define", body).await.unwrap();
    let planned = ask(&world, &asked).await.unwrap();
    assert_eq!(planned.drivers[0].revision, 2);
    assert_ne!(planned.digest, with.digest);
    let value = compute(&planned).points[0].value.0;
    assert!((3_300..3_700).contains(&(value / 10_i128.pow(12))), "{value}");
    assert_eq!(compute(&planned).points[1], compute(&with).points[1]);
    // Only when it is wanted.
    let none = Asked { drivers: Drivers::These(vec![]), ..asked.clone() };
    assert_eq!(ask(&world, &none).await.unwrap().series, plain.series);
    world.send("driver", id, "retire", json!({})).await.unwrap();
    assert_eq!(ask(&world, &asked).await.unwrap().digest, plain.digest);
    let these = Asked { drivers: Drivers::These(vec![id]), ..asked };
    let refused = ask(&world, &these).await.unwrap_err().to_string();
    assert!(refused.contains("is retired"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_does_not_fit_is_named_with_the_reason_or_refused() {
    let world = booked().await;
    let short = define(
        &world,
        json!({"name": "short", "unit": "u", "values": counts(30), "scope": {"service": ["Compute"]}}),
    )
    .await;
    let found = ask(&world, &asked(&["service"])).await.unwrap();
    let why = found.drivers[0].left_out.clone().unwrap();
    assert!(why.contains("2025-07"), "{why}");
    let found = ask(&world, &asked(&["sub_account"])).await.unwrap();
    let why = found.drivers[0].left_out.clone().unwrap();
    assert!(why.contains("group by it, or filter"), "{why}");
    let these = Asked { drivers: Drivers::These(vec![short]), ..asked(&["service"]) };
    let refused = ask(&world, &these).await.unwrap_err();
    assert!(matches!(refused, ForecastFault::Refused(no) if no.code.code == "invalid-field"));
    let missing = Asked { drivers: Drivers::These(vec![Uuid::nil()]), ..asked(&[]) };
    assert!(ask(&world, &missing).await.is_err());
    // A filter says it as well as a group.
    let filter = Filter { column: "service".into(), op: Op::In, values: vec!["Compute".into()] };
    let mut filtered = asked(&["sub_account"]);
    filtered.costs.filters.push(("service".parse().unwrap(), filter));
    filtered.horizon = 1;
    filtered.to = Some(month(28));
    let found = ask(&world, &filtered).await.unwrap();
    assert_eq!(found.drivers[0].left_out, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_is_known_and_a_one_off_are_added_as_they_are() {
    let world = booked().await;
    let asked = asked(&["service", "sub_account"]);
    let before = ask(&world, &asked).await.unwrap();
    define(
        &world,
        json!({
            "name": "migration", "unit": "EUR", "values": {"2025-08": "1000.5"}, "gaps": "zero",
            "price": {"amount": 1, "currency": "EUR"}, "scope": {"service": ["Storage"]},
        }),
    )
    .await;
    let after = ask(&world, &asked).await.unwrap();
    let euro = "EUR".to_owned().try_into().unwrap();
    let values = |found: &Forecasts| -> Vec<i128> {
        found.totals[&euro].points.iter().map(|point| point.value.0).collect()
    };
    let more: Vec<i128> =
        values(&after).iter().zip(values(&before)).map(|(after, before)| after - before).collect();
    // Two series share it by what they cost lately; each is rounded by itself.
    let off = (more[1] - 1_000_500_000_000_000).abs();
    assert!(more[0] == 0 && more[2] == 0 && off <= 2 * 10_i128.pow(8), "{more:?}");
    let dollar = "USD".to_owned().try_into().unwrap();
    assert_eq!(before.totals[&dollar].points, after.totals[&dollar].points);
    let given = |found: &Forecasts| {
        let coefficients = found.series.iter().flat_map(|one| &one.forecast.coefficients);
        coefficients.filter(|(name, _)| name == "migration").count()
    };
    assert_eq!(given(&after), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_month_is_left_out_while_it_runs() {
    let world = booked().await;
    // The clock of this world is real: a month that ends far in the future still runs.
    let running = "BilledCost,BillingAccountId,BillingCurrency,BillingPeriodStart,BillingPeriodEnd,\
        ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName\n\
        5,42,EUR,2199-06-01T00:00:00Z,2199-07-01T00:00:00Z,Usage,2199-06-01T00:00:00Z,\
        2199-06-02T00:00:00Z,Compute\n";
    let read = world.ledger.ports.bills.read(&mut running.as_bytes(), &Reading::default()).unwrap();
    world.ledger.book(&read, &import()).await.unwrap();
    let asked = asked(&[]);
    let without = inputs(&world, &asked, None).await;
    assert_eq!(without.left_out.map(|month| month.to_string()).as_deref(), Some("2199-06"));
    let store = world.ledger.ports.bills.as_ref();
    let found = forecast(store, &without, &asked, 1).unwrap();
    assert_eq!(found.history, Some(("2023-01".to_owned(), "2025-06".to_owned())));
    let told = Asked { running: true, ..asked.clone() };
    assert_eq!(inputs(&world, &told, None).await.left_out, None);
    // Closed is complete.
    let id = Bill::id("42", "2199-06".parse().unwrap());
    world.send("bill", id, "close", json!({})).await.unwrap();
    assert_eq!(inputs(&world, &asked, None).await.left_out, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_forecast_too_and_months_without_a_cost_are_nothing() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let mut lines = Vec::new();
    for at in 0..6 {
        for day in 0..month(at).days() {
            let date = month(at).first().checked_add_days(Days::new(day as u64)).unwrap();
            let weekend = chrono::Datelike::weekday(&date).number_from_monday() > 5;
            let amount = if weekend { 10 } else { 50 } * 10_i128.pow(12);
            lines.push(line(at, day, Amount(amount), "Compute", "a", "EUR"));
        }
    }
    // March has another service only.
    lines.retain(|line| !line.contains(",2023-03-01T00:00:00Z,2023-04"));
    lines.push(line(2, 4, Amount(10_i128.pow(12)), "Storage", "a", "EUR"));
    book(&world, &lines).await;
    let monthly = ask(&world, &asked(&["service"])).await.unwrap();
    let compute = monthly.series.iter().find(|one| one.group == Some(vec!["Compute".into()]));
    assert_eq!(compute.unwrap().history[2], ("2023-03".to_owned(), Amount::ZERO));
    let mut days = Asked { step: Step::Day, horizon: 14, ..asked(&["service"]) };
    days.from = Some(month(3));
    let daily = ask(&world, &days).await.unwrap();
    assert_eq!(daily.history, Some(("2023-04-01".to_owned(), "2023-06-30".to_owned())));
    for point in &daily.series[0].points {
        let day: NaiveDate = point.period.parse().unwrap();
        let weekend = chrono::Datelike::weekday(&day).number_from_monday() > 5;
        let right = if weekend { 10 } else { 50 } * 10_i128.pow(12);
        assert!((point.value.0 - right).abs() < 10_i128.pow(12), "{point:?}");
    }
    let refused = ask(&world, &asked(&["month"])).await.unwrap_err().to_string();
    assert!(refused.contains("runs along time"), "{refused}");
    let shift = Asked { shifts: vec!["2024-01".to_owned()], ..asked(&[]) };
    let refused = ask(&world, &shift).await.unwrap_err().to_string();
    assert!(refused.contains("2023-02…2023-06"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forecast_of_nothing_and_little_of_little() {
    let world = World::empty(Population { seed: 1, regions: 1, resources: 0 });
    let nothing = ask(&world, &asked(&["service"])).await.unwrap();
    assert!(nothing.series.is_empty() && nothing.totals.is_empty() && nothing.history.is_none());
    let mut lines = String::new();
    for at in 0..3 {
        write!(lines, "{}", line(at, 1, Amount(9 * 10_i128.pow(12)), "S3", "a", "EUR")).unwrap();
    }
    book(&world, &[lines]).await;
    let little = ask(&world, &asked(&["service"])).await.unwrap();
    let one = &little.series[0];
    assert!(one.forecast.low_confidence && one.forecast.reason.contains("low confidence"));
    assert_eq!(one.points[0].value, Amount(9 * 10_i128.pow(12)));
    assert!(one.points[2].nearly_sure.1 > one.points[0].nearly_sure.1, "further is less sure");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_wrong_forecasts_were_is_told_by_currency() {
    let world = booked().await;
    let asked = Asked { look_back: 6, ..asked(&["service"]) };
    let found = ask(&world, &asked).await.unwrap();
    let of = |currency: &str| {
        missed(&found.totals[&currency.to_owned().try_into().unwrap()].look_back).unwrap()
    };
    assert_eq!(of("EUR").steps, 6);
    assert!(of("EUR").wape > 0.0 && of("EUR").wape < 1.0, "{:?}", of("EUR"));
    assert!(of("USD").wape < 1e-9, "what is always the same is no surprise");
}

/// By project: what no line says and rules do; shared cost stays a pool, or is spread.
#[tokio::test(flavor = "multi_thread")]
async fn projects_are_forecast_by_the_rules_before_and_after_what_is_shared_is_spread() {
    let world = booked().await;
    let rules = |shop: &str| -> Rules {
        serde_json::from_value(json!({
            "attribution": [
                {"name": "compute", "centre": shop, "conditions":
                    [{"dimension": "service", "values": ["Compute"]}]},
                {"name": "storage", "centre": "pool", "conditions":
                    [{"dimension": "service", "values": ["Storage"]}]},
                {"name": "rest", "centre": "lab", "conditions":
                    [{"dimension": "service", "compare": "begins", "values": ["S"]}]},
            ],
            "shared": [{"name": "by cost", "pool": "pool",
                        "method": {"proportional": {"fallback": "even"}}}],
        }))
        .unwrap()
    };
    let euro = "EUR".to_owned().try_into().unwrap();
    let plain = ask(&world, &asked(&[])).await.unwrap();
    let mut digests = vec![plain.digest.clone()];
    let mut inputs = inputs(&world, &asked(&["project"]), None).await;
    for (shop, allocated) in [("shop", false), ("shop", true), ("store", false)] {
        let around = world.ledger.surroundings(&inputs.counting, None).await.unwrap();
        inputs.whose = Whose::new(rules(shop), around);
        let asked = Asked { allocated, ..asked(&["project"]) };
        let store = world.ledger.ports.bills.as_ref();
        let found = forecast(store, &inputs, &asked, 2).unwrap();
        let of_euro = found.series.iter().filter(|one| one.currency == euro);
        let mut centres: Vec<_> =
            of_euro.map(|one| one.group.as_ref().unwrap()[0].as_str()).collect();
        centres.sort_unstable();
        match (shop, allocated) {
            ("shop", true) => assert_eq!(centres, ["lab", "shop"], "the pool is empty"),
            _ => assert_eq!(centres.len(), 3, "{centres:?}"),
        }
        assert!(centres.contains(&shop), "{centres:?}");
        assert_eq!(found.totals[&euro].history, plain.totals[&euro].history);
        digests.push(found.digest);
    }
    let different: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(different.len(), digests.len(), "rules are inputs");
}
