//! `golden.json`: split, allocate, amortise, cancel, tiers, prorate, tags. All equal.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use domain::finops::{
    allocate::{Basis, Buckets, Drivers, Fallback, Rule, Weighing, allocate},
    amortise::{Method, Schedule},
    amount::BillingMonth,
    rate::{Granule, Per, Rounding, Tier, TierMode, Tiers, units},
    ratio::{Ratio, parse},
    split::{SplitFault, Weights, split},
    tags::{Listed, TagSource, TagSources, effective},
};
use serde_json::Value;

fn cases(name: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("data/golden.json")).unwrap();
    golden[name].as_array().unwrap().clone()
}

fn ratio(value: &Value) -> Ratio {
    match value {
        Value::String(text) => parse(text).unwrap(),
        number => parse(&number.to_string()).unwrap(),
    }
}

fn number(value: &Value) -> i128 {
    value.as_i64().unwrap().into()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn splits() {
    let all = cases("split");
    for case in &all {
        let weights: BTreeMap<String, Ratio> = case["weights"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), ratio(v)))
            .collect();
        let total = number(&case["total"]);
        let parts = match split(total, &weights) {
            // The reference falls back to even parts.
            Err(SplitFault::Zero) => {
                let even = Weights::even(weights.keys().cloned()).unwrap();
                even.keys().iter().cloned().zip(even.split(total)).collect()
            }
            parts => parts.unwrap(),
        };
        let expect: BTreeMap<String, i128> = case["expect"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), number(v)))
            .collect();
        assert_eq!(parts, expect, "{case}");
    }
    assert_eq!(all.len(), 150);
}

#[test]
fn allocations() {
    let all = cases("allocate");
    for case in &all {
        let mut buckets = Buckets::new();
        for bucket in case["buckets"].as_array().unwrap() {
            *buckets.entry((text(&bucket[0]), text(&bucket[1]))).or_default() += number(&bucket[2]);
        }
        let rules: Vec<Rule> = case["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| Rule {
                id: text(&rule["id"]),
                source: text(&rule["source"]),
                targets: rule["targets"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(text)
                    .collect::<BTreeSet<_>>(),
                weighing: weighing(rule),
            })
            .collect();
        let drivers: Drivers = case["drivers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|driver| ((text(&driver[0]), text(&driver[1])), ratio(&driver[2])))
            .collect();
        let allocated = allocate(&buckets, &rules, &drivers).unwrap();
        let found: Vec<(String, String, i128)> = allocated
            .buckets
            .iter()
            .map(|((centre, stratum), amount)| (centre.clone(), stratum.clone(), *amount))
            .collect();
        let expect: Vec<(String, String, i128)> = case["expect"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (text(&one[0]), text(&one[1]), number(&one[2])))
            .collect();
        assert_eq!(found, expect, "{case}");
        assert_eq!(allocated.trace.len() as u64, case["trace_len"].as_u64().unwrap(), "{case}");
    }
    assert_eq!(all.len(), 30);
}

fn weighing(rule: &Value) -> Weighing {
    let fallback = match rule["fallback"].as_str() {
        Some("keep") => Fallback::Keep,
        _ => Fallback::Even,
    };
    match rule["method"].as_str().unwrap() {
        "even" => Weighing::Even,
        "proportional" => {
            let basis = if rule["basis"] == "current" { Basis::Current } else { Basis::Direct };
            Weighing::Proportional { basis, fallback }
        }
        "driver" => Weighing::Driver { name: text(&rule["driver"]), fallback },
        "fixed" => Weighing::Fixed(
            rule["shares"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.clone(), ratio(v)))
                .collect(),
        ),
        other => panic!("{other}"),
    }
}

fn schedule(case: &Value, method: Method) -> Schedule {
    let day = |value: &Value| value.as_str().unwrap().parse().unwrap();
    Schedule::new(number(&case["total"]), day(&case["start"]), day(&case["end"]), method).unwrap()
}

#[test]
fn amortisations() {
    let all = cases("amortize");
    for case in &all {
        for (name, method) in [("daily_by_month", Method::Daily), ("monthly", Method::Monthly)] {
            let schedule = schedule(case, method);
            let found: BTreeMap<String, i128> = schedule
                .months_touched()
                .map(|month| (month.to_string(), schedule.month(month)))
                .collect();
            let expect: BTreeMap<String, i128> = case[name]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.clone(), number(v)))
                .collect();
            assert_eq!(found, expect, "{name} {case}");
            assert!(expect.keys().all(|month| month.parse::<BillingMonth>().is_ok()));
        }
    }
    assert_eq!(all.len(), 100);
}

#[test]
fn cancellations() {
    let all = cases("cancel");
    for case in &all {
        let schedule = schedule(case, Method::Daily);
        let day = case["when"].as_str().unwrap().parse().unwrap();
        let left = schedule.cancel(day, number(&case["refund"]));
        assert_eq!(left.kept, number(&case["kept"]), "{case}");
        assert_eq!(left.unamortised, number(&case["unamortized"]), "{case}");
        assert_eq!(left.adjustment, number(&case["adjustment"]), "{case}");
    }
    assert_eq!(all.len(), 50);
}

#[test]
fn tiers() {
    let tier = |up_to: Option<&str>, price: &str| Tier {
        up_to: up_to.map(|end| parse(end).unwrap()),
        price: parse(price).unwrap(),
    };
    let table = vec![
        tier(Some("10"), "1"),
        tier(Some("100"), "0.8"),
        tier(Some("1000"), "0.5"),
        tier(None, "0.3"),
    ];
    let all = cases("tiers");
    for case in &all {
        for (name, mode) in [("graduated", TierMode::Graduated), ("volume", TierMode::Volume)] {
            let tiers = Tiers::new(mode, table.clone()).unwrap();
            assert_eq!(tiers.cost(&ratio(&case["qty"])), ratio(&case[name]), "{name} {case}");
        }
    }
    assert_eq!(all.len(), 5);
}

#[test]
fn prorating() {
    let all = cases("prorate");
    for case in &all {
        let per = serde_json::from_value::<Per>(case["per"].clone()).unwrap();
        let granule = serde_json::from_value::<Granule>(case["granularity"].clone()).unwrap();
        let rounding = serde_json::from_value::<Rounding>(case["rounding"].clone()).unwrap();
        let zone = case["tz"].as_str().unwrap().parse().unwrap();
        let moment = |value: &Value| -> DateTime<Utc> { value.as_str().unwrap().parse().unwrap() };
        let (from, to) = (moment(&case["from"]), moment(&case["to"]));
        let cost = ratio(&case["price"]) * units(per, zone, from, to, granule, rounding);
        assert_eq!(cost, ratio(&case["expect"]), "{case}");
    }
    assert_eq!(all.len(), 9);
}

#[test]
fn tags() {
    let all = cases("tags");
    for case in &all {
        let plain = |name: &str| -> BTreeMap<String, String> {
            let tags = case[name].as_object().unwrap();
            tags.iter()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect()
        };
        let tag_list: BTreeMap<String, Listed> = plain("tag_list")
            .into_iter()
            .map(|(key, value)| {
                (key, if value == "\0" { Listed::Removed } else { Listed::Value(value) })
            })
            .collect();
        let (bill, resource) = (plain("bill"), plain("resource"));
        let (project, default) = (plain("project"), plain("default"));
        let found = effective(TagSources {
            tag_list: &tag_list,
            bill: &bill,
            resource: &resource,
            project: &project,
            default: &default,
        });
        let values: BTreeMap<String, String> =
            found.iter().map(|(key, tag)| (key.clone(), tag.value.clone())).collect();
        assert_eq!(values, plain("expect"), "{case}");
        let sources: BTreeMap<String, TagSource> =
            found.iter().map(|(key, tag)| (key.clone(), tag.source)).collect();
        let expect: BTreeMap<String, TagSource> = plain("source")
            .into_iter()
            .map(|(key, source)| {
                let source = Value::String(source.replace('_', "-"));
                (key, serde_json::from_value(source).unwrap())
            })
            .collect();
        assert_eq!(sources, expect, "{case}");
    }
    assert_eq!(all.len(), 25);
}
