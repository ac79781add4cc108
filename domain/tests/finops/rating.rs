//! What was used, priced: nothing is lost or counted twice, however a use is cut, in leap years, on
//! days on which clocks change, and at month ends.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Duration, Utc};
use domain::{
    finops::{
        amount::{Amount, BillingMonth},
        line::Line,
        meter::{Metered, Usage},
        rate::units,
        rate_set::{Command, Meter, Pricing, RateSet, Scope},
        rating::{Prices, Rated, Scopes, rate},
        ratio::{Ratio, round_half_even, whole},
    },
    kernel::{Decider, Stamp},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

const ZONES: [&str; 4] = ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu"];

fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// A set as its commands make it, decided long before anything is used.
fn set(settings: Value, rates: &[(&str, Value)]) -> RateSet {
    let stamp = Stamp { now: time("2020-01-01T00:00:00Z"), actor: "test".into() };
    let mut commands = vec![json!({"type": "define", "data": {"settings": settings}})];
    commands.extend(
        rates
            .iter()
            .map(|(key, rate)| json!({"type": "set-rate", "data": {"key": key, "rate": rate}})),
    );
    commands.into_iter().fold(RateSet::default(), |set, command| {
        let command: Command = serde_json::from_value(command).unwrap();
        let events = set.decide(command, &stamp).unwrap();
        events.into_iter().fold(set, Decider::evolve)
    })
}

fn settings(scope: Value, zone: &str) -> Value {
    json!({"name": "own", "currency": "EUR", "scope": scope, "time_zone": zone})
}

fn usage(resource: &str, quantity: Ratio, from: DateTime<Utc>, to: DateTime<Utc>) -> Usage {
    let of =
        Metered { resource: resource.into(), resource_type: "server".into(), ..Metered::default() };
    Usage {
        of: Arc::new(of),
        meter: Meter::Vcpu,
        sku: "small".into(),
        quantity,
        begun: from,
        from,
        to,
    }
}

fn rated(set: &RateSet, usages: &[Usage], until: DateTime<Utc>) -> Vec<Line> {
    let (sets, scopes) = ([(Uuid::nil(), set.clone())].into(), Scopes::default());
    rated_by(&sets, &scopes, usages, until)
}

fn rated_by(
    sets: &BTreeMap<Uuid, RateSet>,
    scopes: &Scopes,
    usages: &[Usage],
    until: DateTime<Utc>,
) -> Vec<Line> {
    let mut month: BillingMonth = "2023-11".parse().unwrap();
    let mut lines = Vec::new();
    while month <= "2025-06".parse().unwrap() {
        let Rated { lines: more, .. } =
            rate(Prices { sets, scopes }, usages, month, until).unwrap();
        lines.extend(more);
        month = month.next();
    }
    lines
}

fn total(lines: &[Line]) -> i128 {
    lines.iter().map(|line| line.billed.0).sum()
}

fn pricing() -> impl Strategy<Value = Value> {
    let price = (0_i64..10_000_000).prop_map(|units| Amount(units.into()).to_string());
    let tiers = |(mode, a, b, end): (bool, String, String, u32)| {
        let mode = if mode { "graduated" } else { "volume" };
        let tiers = json!([{"up_to": end.to_string(), "price": a}, {"price": b}]);
        json!({"tiers": {"mode": mode, "tiers": tiers, "over": "resource"}})
    };
    prop_oneof![
        price.clone().prop_map(|price| json!({"fixed": {"price": price}})),
        price.clone().prop_map(|price| json!({"pay-as-you-go": {"price": price}})),
        (any::<bool>(), price.clone(), price, 1_u32..500).prop_map(tiers),
    ]
}

prop_compose! {
    /// A rate, and moments between which something was used.
    fn case()(
        zone in prop::sample::select(&ZONES[..]),
        pricing in pricing(),
        per in prop::sample::select(&["year", "month", "day", "hour", "second"][..]),
        granule in prop::sample::select(&["day", "hour", "minute", "second"][..]),
        rounding in prop::sample::select(&["none", "up", "down"][..]),
        begin in 0_i64..400 * 86_400,
        lengths in (1_i64..40 * 86_400, 1_i64..40 * 86_400),
        quantity in (1_i64..10_000, 1_i64..100),
    ) -> (RateSet, Value, DateTime<Utc>, DateTime<Utc>, DateTime<Utc>, Ratio) {
        let from = time("2023-12-01T00:00:00Z") + Duration::seconds(begin);
        let cut = from + Duration::seconds(lengths.0);
        let to = cut + Duration::seconds(lengths.1);
        let rate = json!({
            "meter": "vcpu", "pricing": pricing, "per": per, "granule": granule,
            "rounding": rounding,
        });
        let set = set(settings(json!("default"), zone), &[("one", rate.clone())]);
        (set, rate, from, cut, to, Ratio::new(quantity.0.into(), quantity.1.into()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_use_that_is_cut_costs_what_it_costs_in_one_piece(
        (set, rate, from, cut, to, quantity) in case()
    ) {
        let until = time("2025-12-01T00:00:00Z");
        let whole_use = usage("a", quantity.clone(), from, to);
        let first = Usage { to: cut, ..whole_use.clone() };
        let second = Usage { from: cut, ..whole_use.clone() };
        let one = rated(&set, std::slice::from_ref(&whole_use), until);
        let two = rated(&set, &[second, first], until);
        prop_assert_eq!(total(&one), total(&two));
        // No gap and no overlap, a line a day at most.
        prop_assert_eq!((one[0].from, one[one.len() - 1].to), (from, to));
        prop_assert!(one.windows(2).all(|two| two[0].to == two[1].from));
        prop_assert!(one.iter().all(|line| line.to - line.from <= Duration::hours(25)));
        // What is worked out for a part of the days is not changed by the others.
        let early = rated(&set, &[whole_use], cut);
        prop_assert_eq!(&early[..], &one[..early.len()]);

        let known = set.rates.values().next().unwrap();
        let zone = set.settings.as_ref().unwrap().zone();
        let used = units(known.per, zone, from, to, known.granule, known.rounding);
        let price = |price: &Amount| {
            whole(price.0) * &used * if rate["pricing"]["fixed"].is_null() { quantity.clone() } else { whole(1) }
        };
        if let Pricing::Fixed { price: one_price } | Pricing::PayAsYouGo { price: one_price } = &known.pricing {
            prop_assert_eq!(total(&one), round_half_even(&price(one_price)).unwrap());
        }
    }

    #[test]
    fn the_order_in_which_uses_are_found_changes_nothing(
        cases in prop::collection::vec((0_i64..60 * 86_400, 1_i64..20 * 86_400, 1_i64..9), 1..8),
        seed in any::<u64>(),
    ) {
        let tiers = json!([
            {"up_to": "100", "price": "0.3"}, {"up_to": "1000", "price": "0.2"}, {"price": "0.1"},
        ]);
        let pricing = json!({"tiers": {"mode": "volume", "tiers": tiers}});
        let set = set(
            settings(json!("default"), "Europe/Berlin"),
            &[("one", json!({"meter": "vcpu", "pricing": pricing}))],
        );
        let begin = time("2024-02-01T00:00:00Z");
        let usages: Vec<_> = cases
            .iter()
            .enumerate()
            .map(|(n, (after, length, quantity))| {
                let from = begin + Duration::seconds(*after);
                let to = from + Duration::seconds(*length);
                usage(&format!("r{n}"), whole((*quantity).into()), from, to)
            })
            .collect();
        let mut other = usages.clone();
        other.sort_by_key(|one| (one.from.timestamp() as u64 ^ seed, one.of.resource.clone()));
        let until = time("2025-12-01T00:00:00Z");
        prop_assert_eq!(rated(&set, &usages, until), rated(&set, &other, until));
    }
}

fn payg(meter: &str, price: &str) -> Value {
    json!({"meter": meter, "pricing": {"pay-as-you-go": {"price": price}}})
}

#[test]
fn the_most_specific_set_that_has_a_rate_wins_with_the_whole_rate() {
    let (project, domain, organisation) =
        (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    let node = |key: &str| json!({"node": {"organisation": organisation, "node": key}});
    let scoped = |scope: Value, rates: &[(&str, Value)]| set(settings(scope, "UTC"), rates);
    let sku = |price: &str| {
        let mut rate = payg("vcpu", price);
        rate["sku"] = json!("small");
        rate
    };
    let sets: Vec<RateSet> = vec![
        scoped(json!("default"), &[("any", payg("vcpu", "1")), ("small", sku("2"))]),
        scoped(node("company"), &[("any", payg("vcpu", "3"))]),
        scoped(node("team"), &[("any", payg("vcpu", "4"))]),
        scoped(json!({"domain": domain}), &[("any", payg("vcpu", "5"))]),
        scoped(json!({"project": project}), &[("disk", payg("disk-gib", "6"))]),
        scoped(json!({"project": project}), &[("any", payg("vcpu", "7"))]),
    ];
    let nodes = ["team", "company"].map(|key| Scope::Node { organisation, node: key.into() });
    let from = time("2024-05-01T00:00:00Z");
    let mut one = usage("a", whole(1), from, from + Duration::hours(1));
    one.of = Arc::new(Metered { project: Some(project), ..(*one.of).clone() });
    let price = |count: usize, with_domain: bool| {
        let sets = (0_u128..).map(Uuid::from_u128).zip(sets[..count].to_vec()).collect();
        let mut scopes = Scopes::default();
        let mut all = vec![Scope::Project(project)];
        all.extend(with_domain.then_some(Scope::Domain(domain)));
        all.extend(nodes.clone());
        scopes.are(project, time("2024-01-01T00:00:00Z"), all);
        let lines =
            rated_by(&sets, &scopes, std::slice::from_ref(&one), time("2025-01-01T00:00:00Z"));
        Amount(total(&lines)).to_string()
    };
    // In one set the SKU's own rate; then from set to set: node, nearer node, domain, project.
    let found: Vec<_> = (1..=6).map(|count| price(count, true)).collect();
    assert_eq!(found, ["2", "3", "4", "5", "5", "7"]);
    assert_eq!(price(5, false), "4", "in no domain, the nearest node");
}

#[test]
fn a_rate_that_ends_splits_what_is_used_and_a_day_that_is_not_over_waits() {
    let mut early = payg("vcpu", "1");
    early["to"] = json!("2024-03-10T12:00:00Z");
    let mut late = payg("vcpu", "2");
    late["from"] = json!("2024-03-10T12:00:00Z");
    let set = set(settings(json!("default"), "America/New_York"), &[("a", early), ("b", late)]);
    // The day on which clocks go forward in New York: 23 hours, 7 of them before the change of rate.
    let (from, to) = (time("2024-03-10T05:00:00Z"), time("2024-03-11T04:00:00Z"));
    let lines = rated(&set, &[usage("a", whole(2), from, to)], time("2024-03-12T00:00:00Z"));
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (line.billed.to_string(), line.quantity.clone(), line.other["x_Rate"].clone()))
        .collect();
    let line =
        |cost: &str, hours: &str, rate: &str| (cost.to_owned(), hours.to_owned(), rate.to_owned());
    assert_eq!(seen, [line("14", "14", "a"), line("64", "32", "b")]);
    assert!(lines.iter().all(|line| line.list == line.billed && line.effective == line.billed));
    let open = usage("a", whole(2), from, to + Duration::days(3));
    let lines = rated(&set, &[open], time("2024-03-12T03:59:59Z"));
    assert_eq!(lines.last().unwrap().to, to, "the eleventh is not over in New York");
}
