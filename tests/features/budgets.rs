//! Budgets: alerts once for each threshold, withdrawn by a restatement, forecast from the days and
//! months before; and the numbers by which costs are judged, each with the questions behind it.

use std::{collections::BTreeMap, fmt::Write as _};

use adapters_sim::Population;
use commands::{
    attribute::Whose,
    bills::{Import, OnRepeats, explain},
    budgets::{Evaluation, standings},
    kpis::{Asked, Kpi, Units, kpis},
    ports::{CostQuery, Filter, Op, Reading},
};
use domain::finops::{
    attribution::Axis,
    bill::{Bill, Manner},
    cost::Basis,
    driver::Driver,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

const HEADING: &str = "BilledCost,EffectiveCost,ListCost,ContractedCost,BillingAccountId,BillingCurrency,\
    BillingPeriodStart,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,ServiceName,ResourceId,\
    PricingCategory,CommitmentDiscountStatus,Tags\n";

fn world() -> World {
    World::empty(Population { seed: 1, regions: 1, resources: 0 })
}

/// Days of a month that cost so much each.
fn days(month: u32, days: u32, amount: &str) -> String {
    let mut file = HEADING.to_owned();
    for day in 1..=days {
        writeln!(
            file,
            "{amount},{amount},{amount},{amount},42,USD,2026-{month:02}-01T00:00:00Z,Usage,\
             2026-{month:02}-{day:02}T00:00:00Z,2026-{month:02}-{day:02}T12:00:00Z,EC2,i-1,\
             Standard,,"
        )
        .unwrap();
    }
    file
}

async fn book(world: &World, file: &str) {
    let read = world.ledger.ports.bills.read(&mut file.as_bytes(), &Reading::default()).unwrap();
    let (source, reason) = ("bill.csv".to_owned(), String::new());
    let (manner, by, repeats) = (Manner::Replace, World::admin(), OnRepeats::default());
    let import = Import { source, manner, reason, by, repeats };
    world.ledger.book(&read, &import).await.unwrap();
    world.caught_up().await;
}

async fn define(world: &World, allowance: Value) -> Uuid {
    let mut all = json!({"amount": "300", "currency": "USD", "from": "2026-09"});
    all.as_object_mut().unwrap().extend(allowance.as_object().unwrap().clone());
    let body = json!({"name": "shop", "allowance": all});
    world.send("budget", None, "define", body).await.unwrap().id
}

async fn evaluate(world: &World) -> Evaluation {
    world.caught_up().await;
    let budgeting = world.ledger.budgeting(None).await.unwrap();
    let store = world.ledger.ports.bills.as_ref();
    let (standings, refused) = standings(store, &budgeting).unwrap();
    let evaluation = world.ledger.tell_budgets(&budgeting, standings).await.unwrap();
    Evaluation { refused, ..evaluation }
}

/// What was told, in short.
fn told(evaluation: &Evaluation) -> Vec<String> {
    let word = |word: &str, alerts: &[(Uuid, domain::finops::budget::Alert)]| {
        let one = |(_, alert): &(Uuid, domain::finops::budget::Alert)| {
            format!("{word} {} {}", alert.standing.period, alert.limit)
        };
        alerts.iter().map(one).collect::<Vec<_>>()
    };
    [word("alerted", &evaluation.alerted), word("withdrawn", &evaluation.withdrawn)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_threshold_is_told_once_and_withdrawn_when_the_bill_is_restated_below_it() {
    let world = world();
    let alerts = json!({"alerts": [
        {"on": "actual", "percent": 50}, {"on": "actual", "percent": 100},
    ]});
    let id = define(&world, alerts).await;
    book(&world, &days(10, 16, "10")).await;
    assert_eq!(told(&evaluate(&world).await), ["alerted 2026-10 150"]);
    let head = world.log.head().await.unwrap().position;
    assert_eq!(told(&evaluate(&world).await), Vec::<String>::new());
    assert_eq!(world.log.head().await.unwrap().position, head, "a repeat makes no event");
    book(&world, &days(10, 31, "10")).await;
    assert_eq!(told(&evaluate(&world).await), ["alerted 2026-10 300"]);
    book(&world, &days(10, 31, "9")).await;
    assert_eq!(told(&evaluate(&world).await), ["withdrawn 2026-10 300"]);
    let events: Vec<_> = world.history("budget", id).await;
    let events: Vec<_> = events.iter().map(domain::log::Record::event_type).collect();
    assert_eq!(events, ["defined", "alerted", "alerted", "withdrawn"]);
    let alert = &world.row(id).await["state"]["alerts"]["2026-10"][0];
    assert_eq!((&alert["standing"]["actual"], &alert["share"]), (&"160".into(), &"53.33".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_is_going_to_be_too_much_is_told_before_it_is() {
    let world = world();
    define(&world, json!({"alerts": [{"on": "forecast", "percent": 100}]})).await;
    book(&world, &days(9, 30, "9")).await;
    book(&world, &days(10, 12, "9")).await;
    assert_eq!(told(&evaluate(&world).await), Vec::<String>::new(), "31 days of 9 are 279");
    book(&world, &days(10, 12, "14")).await;
    let evaluation = evaluate(&world).await;
    assert_eq!(told(&evaluation), ["alerted 2026-10 300"]);
    let standing = &evaluation.alerted[0].1.standing;
    assert_eq!(standing.actual.to_string(), "168");
    let forecast: f64 = standing.forecast.unwrap().to_string().parse().unwrap();
    assert!((380.0..480.0).contains(&forecast), "{forecast}: 31 days of 14 are 434");
    // Closed, the month is what it is.
    world
        .send("bill", Bill::id("42", "2026-10".parse().unwrap()), "close", json!({}))
        .await
        .unwrap();
    assert_eq!(told(&evaluate(&world).await), ["withdrawn 2026-10 300"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_counts_its_months_and_what_is_to_come_of_it() {
    let world = world();
    let allowance = json!({
        "period": "quarter", "amount": "900", "conditions":
            [{"dimension": "service", "values": ["EC2"]}],
    });
    define(&world, allowance).await;
    for month in 7..=8 {
        book(&world, &days(month, 30, "10")).await;
    }
    book(&world, &days(10, 31, "10")).await;
    book(&world, &days(11, 30, "10")).await;
    let budgeting = world.ledger.budgeting(None).await.unwrap();
    let (all, _) = standings(world.ledger.ports.bills.as_ref(), &budgeting).unwrap();
    let own: Vec<_> = all.values().next().unwrap().iter().collect();
    let periods: Vec<_> = own.iter().map(|one| format!("{} {}", one.period, one.actual)).collect();
    assert_eq!(periods, ["2026-Q3 600", "2026-Q4 610"]);
    assert_eq!(own[0].forecast, Some(own[0].actual), "what is over is known");
    let forecast: f64 = own[1].forecast.unwrap().to_string().parse().unwrap();
    assert!((850.0..980.0).contains(&forecast), "{forecast}: with December about 910");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_a_project_s_by_the_rules_that_say_whose_costs_are() {
    let world = world();
    let conditions = json!([{"dimension": "project", "values": ["shop"]}]);
    let alerts = json!([{"on": "actual", "percent": 50}]);
    let allowance = json!({
        "amount": "300", "currency": "USD", "from": "2026-09", "conditions": conditions,
        "alerts": alerts,
    });
    let budget = define(&world, allowance.clone()).await;
    book(&world, &days(10, 16, "10")).await;
    assert_eq!(told(&evaluate(&world).await), Vec::<String>::new());
    let conditions = json!([{"dimension": "service", "values": ["EC2"]}]);
    let rules =
        json!({"attribution": [{"name": "ec2", "centre": "shop", "conditions": conditions}]});
    let body = json!({"name": "costs", "rules": rules});
    let set = world.send("rule-set", None, "define", body).await.unwrap().id;
    world.send("rule-set", set, "publish", json!({})).await.unwrap();
    assert_eq!(told(&evaluate(&world).await), ["alerted 2026-10 150"]);

    // Of several rule sets the budget says which counts.
    let body = json!({"name": "others", "rules": {}});
    let others = world.send("rule-set", None, "define", body).await.unwrap().id;
    world.send("rule-set", others, "publish", json!({})).await.unwrap();
    let why =
        |evaluation: &Evaluation| evaluation.refused.values().next().cloned().unwrap_or_default();
    let evaluation = evaluate(&world).await;
    assert!(why(&evaluation).contains("more than one rule set published"), "{evaluation:?}");
    let mut by = allowance;
    for (rule_set, told_then) in [(set, vec![]), (others, vec!["withdrawn 2026-10 150"])] {
        by["rule_set"] = json!(rule_set);
        world.send("budget", budget, "define", json!({"allowance": by})).await.unwrap();
        let evaluation = evaluate(&world).await;
        assert_eq!((why(&evaluation), told(&evaluation)), (String::new(), owned(&told_then)));
    }
    by["rule_set"] = json!(budget);
    world.send("budget", budget, "define", json!({"allowance": by})).await.unwrap();
    let evaluation = evaluate(&world).await;
    assert!(why(&evaluation).contains("no rule set published with the id"), "{evaluation:?}");
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn line(effective: &str, more: &str) -> String {
    format!("{effective},{effective},1,1,42,USD,2026-10-01T00:00:00Z,{more}\n")
}

fn day(category: &str, resource: &str, mode: &str, status: &str, tags: &str) -> String {
    format!(
        "{category},2026-10-05T00:00:00Z,2026-10-06T00:00:00Z,EC2,{resource},{mode},{status},\"{}\"",
        tags.replace('"', "\"\"")
    )
}

/// Value by name, of those that can be said.
fn values(all: &[Kpi]) -> BTreeMap<&str, String> {
    all.iter().filter_map(|kpi| Some((kpi.name, kpi.value.clone()?))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_is_its_formula_over_lines_that_can_be_asked_for() {
    let world = world();
    let both = r#"{"env": "prod", "team": "shop"}"#;
    let file = HEADING.to_owned()
        + &line("60", &day("Usage", "i-1", "Committed", "Used", both))
        + &line("20", &day("Usage", "i-2", "Standard", "", r#"{"env": "prod"}"#))
        + &line("20", &day("Usage", "", "Standard", "", ""))
        + &line("15", &day("Usage", "i-1", "Committed", "Unused", both))
        + &line("-5", &day("Credit", "", "", "", ""));
    book(&world, &file).await;
    let counting = world.ledger.all_bills(None).await.unwrap();
    let store = world.ledger.ports.bills.as_ref();
    let rules: domain::finops::rules::Rules = serde_json::from_value(json!({"attribution": [
        {"name": "shop", "centre": "shop", "conditions":
            [{"dimension": "tags.team", "values": ["shop"]}]},
    ]}))
    .unwrap();
    let asked = Asked {
        tag_keys: vec!["env".into(), "team".into()],
        units: Some(Units::given("orders", "44".parse().unwrap())),
        rules: Some((Uuid::nil(), 1)),
        whose: Whose { rules, ..Whose::default() },
        ..Asked::default()
    };
    let all = kpis(store, &counting, &asked).unwrap();
    let wanted = [
        ("commitment-share", "65.22"),     // 75 / 115
        ("commitment-use", "80"),          // 60 / 75
        ("tag-coverage-by-cost", "78.95"), // 75 / 95
        ("tag-coverage-by-count", "66.67"),
        ("taggable-share", "79.17"),    // 95 / 120
        ("unallocated-share", "31.82"), // 35 / 110
        ("unit-cost", "2.5"),           // 110 / 44
    ];
    let wanted = wanted.map(|(name, value)| (name, value.to_owned())).into();
    assert_eq!(values(&all), wanted);
    let error = all.iter().find(|kpi| kpi.name == "forecast-error").unwrap();
    assert!(error.reason.as_ref().unwrap().contains("4 months"), "{error:?}");
    // The questions behind a number give what stands above and below it.
    for kpi in &all {
        for part in [&kpi.above, &kpi.below].into_iter().flatten() {
            assert!(!kpi.formula.is_empty());
            if !kpi.name.starts_with("commitment") {
                continue;
            }
            let filters = [part.filter.contains("Committed"), part.filter.contains("Used")];
            let query = CostQuery { basis: Basis::Effective, ..CostQuery::default() };
            let lines = explain(store, &counting, &query, 100).unwrap().lines;
            let sum: i128 = lines
                .iter()
                .map(|(_, line)| line)
                .filter(|line| match kpi.name {
                    "commitment-share" => {
                        line.category.name() == "Usage"
                            && (!filters[0] || line.billing_mode == "Committed")
                    }
                    _ => part.filter.contains(&format!("\"{}\"", line.commitment_status)),
                })
                .map(|line| line.effective.0)
                .sum();
            assert_eq!(domain::finops::amount::Amount(sum).to_string(), part.sum, "{kpi:?}");
        }
    }

    // Of a project, and by a driver that is kept.
    let body = json!({
        "name": "orders", "unit": "orders", "values": {"2026-10": "30"},
        "scope": {"service": ["EC2"]},
    });
    let id = world.send("driver", None, "define", body).await.unwrap().id;
    world.caught_up().await;
    let (drivers, _) = world.ledger.states::<Driver>(None).await.unwrap();
    let units = Units::of(id, &drivers[0].1, &counting).unwrap();
    let shop = Filter { column: "project".into(), op: Op::In, values: vec!["shop".into()] };
    let asked = Asked { filters: vec![(Axis::Project, shop)], units: Some(units), ..asked };
    let all = kpis(store, &counting, &asked).unwrap();
    let wanted = [
        ("commitment-share", "100"),
        ("commitment-use", "80"),
        ("tag-coverage-by-cost", "100"),
        ("tag-coverage-by-count", "100"),
        ("taggable-share", "100"),
        ("unallocated-share", "0"),
        ("unit-cost", "2.5"), // 75 / 30
    ];
    let wanted: BTreeMap<&str, String> =
        wanted.map(|(name, value)| (name, value.to_owned())).into();
    assert_eq!(values(&all), wanted);
    let unit_cost = all.iter().find(|kpi| kpi.name == "unit-cost").unwrap();
    assert!(unit_cost.formula.contains("revision 1 of the driver"), "{unit_cost:?}");
    let above = &unit_cost.above.as_ref().unwrap().filter;
    assert_eq!(above, "project = \"shop\" AND service = \"EC2\"");
    let unknown = json!({"name": "orders", "unit": "orders", "values": {"2026-09": "30"}});
    world.send("driver", id, "define", unknown).await.unwrap();
    world.caught_up().await;
    let (drivers, _) = world.ledger.states::<Driver>(None).await.unwrap();
    let units = Units::of(id, &drivers[0].1, &counting).unwrap();
    let all = kpis(store, &counting, &Asked { units: Some(units), ..asked }).unwrap();
    let unit_cost = all.iter().find(|kpi| kpi.name == "unit-cost").unwrap();
    assert!(unit_cost.reason.as_ref().unwrap().contains("2026-10"), "{unit_cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forecast_is_tried_on_the_months_that_are_known() {
    let world = world();
    for (month, amount) in [(1, "10"), (2, "10"), (3, "10"), (4, "10"), (5, "20")] {
        book(&world, &days(month, 28, amount)).await;
    }
    let counting = world.ledger.all_bills(None).await.unwrap();
    let all = kpis(world.ledger.ports.bills.as_ref(), &counting, &Asked::default()).unwrap();
    // May is open and left out; April was as January to March had it.
    assert_eq!(values(&all)["forecast-error"], "0.00");
    world
        .send("bill", Bill::id("42", "2026-05".parse().unwrap()), "close", json!({}))
        .await
        .unwrap();
    world.caught_up().await;
    let counting = world.ledger.all_bills(None).await.unwrap();
    let all = kpis(world.ledger.ports.bills.as_ref(), &counting, &Asked::default()).unwrap();
    // 280 of 560 were not foreseen, over 840 in both months.
    assert_eq!(values(&all)["forecast-error"], "33.33");
}
