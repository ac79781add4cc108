//! Laws of what applies to sums: exact, added up, never rewritten.

use std::collections::BTreeMap;

use domain::{
    finops::{
        amount::{Amount, BillingMonth, Currency},
        attribution::Looked,
        bill::Bill,
        cost::Dimension,
        exchange_rate::{self, ExchangeRate, Rates},
        ratio::{Ratio, whole},
        repricing::{self, Payer, Repricing, Repricings},
        terms::Terms,
    },
    kernel::Decider,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

struct Line(BTreeMap<&'static str, String>);

impl Looked for Line {
    fn value(&self, dimension: &Dimension) -> &str {
        self.0.get(dimension.to_string().as_str()).map_or("", String::as_str)
    }
}

fn line(month: &str, day: &str) -> Line {
    let values = [("month", month), ("day", day), ("billing_account", "42")];
    Line(values.map(|(name, value)| (name, value.to_owned())).into())
}

fn code(code: &str) -> Currency {
    Currency::try_from(code.to_owned()).unwrap()
}

fn id(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}

fn rate(day: &str, number: &str) -> ExchangeRate {
    let body = json!({"from": "USD", "to": "EUR", "day": day, "rate": number});
    let definition = serde_json::from_value(body).unwrap();
    ExchangeRate::default().evolve(exchange_rate::Event::Defined(definition))
}

fn factor(scope: Value, number: &str, from: &str) -> Repricing {
    let body = json!({"name": "x", "scope": scope, "price": {"factor": number}, "from": from});
    let definition = serde_json::from_value(body).unwrap();
    Repricing::default().evolve(repricing::Event::Defined(definition))
}

fn apply(terms: &Terms, month: &str, day: &str, amount: i128) -> Option<Amount> {
    let usd = code("USD");
    let payer = Payer { project: Some(id(0)), domain: Some(id(1)) };
    let applied = terms.of(&line(month, day), payer, &usd).ok()?;
    applied.amount(Amount(amount)).ok()
}

fn exact(text: &str) -> Ratio {
    domain::finops::ratio::parse(text).unwrap()
}

fn numbers() -> impl Strategy<Value = String> {
    prop_oneof![
        (1_u32..100_000, 0_u32..9).prop_map(|(above, places)| format!("{above}e-{places}")),
        (1_u32..1_000, 1_u32..1_000).prop_map(|(above, below)| format!("{above}/{below}")),
    ]
}

proptest! {
    #[test]
    fn a_sum_is_off_by_at_most_half_a_unit_and_parts_by_half_a_unit_each(
        amounts in prop::collection::vec(-10_i128.pow(20)..10_i128.pow(20), 1..30),
        (number, dollar) in (numbers(), numbers()),
    ) {
        let mut terms = Terms { currency: Some(code("EUR")), position: 9, ..Terms::default() };
        terms.rates.take(1, id(0), &rate("2026-01-01", &dollar));
        let mut repricings = Repricings::default();
        repricings.take(1, id(0), &factor(json!("all"), &number, "2026-01-01"));
        terms.repricings = Some(repricings);
        let both = exact(&number) * exact(&dollar);
        let half = Ratio::new(1.into(), 2.into());
        let mut parts = 0;
        for amount in &amounts {
            let applied = apply(&terms, "2026-10", "", *amount).unwrap().0;
            let off = whole(applied) - whole(*amount) * &both;
            prop_assert!(-half.clone() <= off && off <= half.clone());
            parts += applied;
        }
        let off = whole(parts) - whole(amounts.iter().sum()) * &both;
        let most = half * whole(amounts.len() as i128);
        prop_assert!(-most.clone() <= off && off <= most);
    }

    #[test]
    fn what_is_said_after_a_closing_never_rewrites_the_month(
        before in prop::collection::vec((1_u32..28, numbers()), 1..6),
        after in prop::collection::vec((1_u32..28, numbers(), any::<bool>()), 0..12),
        amount in -10_i128.pow(20)..10_i128.pow(20),
    ) {
        let month: BillingMonth = "2026-10".parse().unwrap();
        let mut terms = Terms { currency: Some(code("EUR")), ..Terms::default() };
        let mut repricings = Repricings::default();
        let mut position = 0;
        let say = |terms: &mut Terms, all: &mut Repricings, position: u64, day: u32, number: &str, retire: bool| {
            let day_text = format!("2026-10-{day:02}");
            let mut one = rate(&day_text, number);
            if retire {
                one = one.evolve(exchange_rate::Event::Retired {});
            }
            terms.rates.take(position, id(day as usize), &one);
            all.take(position, id(day as usize), &factor(json!("all"), number, &day_text));
        };
        for (day, number) in &before {
            position += 1;
            say(&mut terms, &mut repricings, position, *day, number, false);
        }
        let days = (1..=31).map(|day| format!("2026-10-{day:02}"));
        let all = |terms: &Terms| {
            let days = days.clone();
            days.map(|day| apply(terms, "2026-10", &day, amount)).collect::<Vec<_>>()
        };
        terms.repricings = Some(repricings.clone());
        terms.position = position;
        let known = all(&terms);
        prop_assert!(known.iter().all(Option::is_some));
        terms.closed.insert(Bill::id("42", month), position);
        for (day, number, retire) in &after {
            position += 1;
            say(&mut terms, &mut repricings, position, *day, number, *retire);
        }
        terms.repricings = Some(repricings);
        terms.position = position;
        prop_assert_eq!(all(&terms), known);
        // While it is open, the newest of what is said counts.
        terms.closed.clear();
        let newest = terms.rates.find(&code("USD"), &code("EUR"), "2026-10-31".parse().unwrap(), position);
        prop_assert_eq!(newest.is_some(), apply(&terms, "2026-10", "2026-10-31", amount).is_some());
    }

    #[test]
    fn without_terms_nothing_changes(amount in any::<i128>()) {
        prop_assert_eq!(apply(&Terms::default(), "2026-10", "", amount), Some(Amount(amount)));
    }
}

#[test]
fn an_open_month_moves_with_a_correction_and_a_closed_one_does_not() {
    let (october, september) = ("2026-10".parse().unwrap(), "2026-09".parse().unwrap());
    let mut terms = Terms { currency: Some(code("EUR")), ..Terms::default() };
    terms.rates.take(1, id(0), &rate("2026-09-30", "0.8"));
    terms.closed.insert(Bill::id("42", september), 2);
    terms.rates.take(3, id(0), &rate("2026-09-30", "0.9"));
    terms.position = 3;
    let of = |terms: &Terms, month| apply(terms, month, "", 1_000).map(|amount| amount.0);
    assert_eq!((of(&terms, "2026-09"), of(&terms, "2026-10")), (Some(800), Some(900)));
    terms.closed.insert(Bill::id("42", october), 3);
    terms.rates.take(4, id(1), &rate("2026-10-31", "2"));
    terms.position = 4;
    assert_eq!((of(&terms, "2026-10"), of(&terms, "2026-11")), (Some(900), Some(2_000)));
}

#[test]
fn where_no_rate_was_known_at_the_closing_the_one_of_now_fills_the_gap() {
    let mut terms = Terms { currency: Some(code("EUR")), position: 5, ..Terms::default() };
    terms.closed.insert(Bill::id("42", "2026-10".parse().unwrap()), 2);
    let usd = code("USD");
    let refused = terms.of(&line("2026-10", ""), Payer::default(), &usd).unwrap_err();
    assert_eq!(refused.code.code, "no-exchange-rate");
    for word in ["USD", "EUR", "2026-10-31"] {
        assert!(refused.detail.contains(word), "{refused}");
    }
    terms.rates.take(4, id(0), &rate("2026-10-31", "0.5"));
    let look = line("2026-10", "");
    let found = terms.of(&look, Payer::default(), &usd).unwrap();
    assert_eq!((found.amount(Amount(10)), found.applied.converted_at), (Ok(Amount(5)), 5));
    assert_eq!(found.applied.repriced_at, 2);
}

#[test]
fn a_factor_counts_from_its_day_on_and_a_charge_lies_in_the_month_of_its_bill() {
    let mut repricings = Repricings::default();
    repricings.take(1, id(0), &factor(json!("all"), "2", "2026-11-01"));
    let mut terms = Terms { position: 9, repricings: Some(repricings.clone()), ..Terms::default() };
    let of = |terms: &Terms, month, day| apply(terms, month, day, 10).map(|amount| amount.0);
    assert_eq!(of(&terms, "2026-10", "2026-11-01"), Some(10), "it is October's bill");
    assert_eq!(of(&terms, "2026-11", "2026-10-31"), Some(20), "it is November's");
    let needs = |terms: &Terms| terms.needs().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(!needs(&terms).contains(&"day".to_owned()), "months are enough");
    repricings.take(2, id(1), &factor(json!({"domain": id(1)}), "3", "2026-11-15"));
    repricings.take(3, id(2), &factor(json!({"project": id(0)}), "5", "2026-11-20"));
    terms.repricings = Some(repricings);
    assert!(needs(&terms).contains(&"day".to_owned()));
    let days = ["2026-11-14", "2026-11-15", "2026-11-20"];
    assert_eq!(days.map(|day| of(&terms, "2026-11", day)), [Some(20), Some(30), Some(50)]);
}

#[test]
fn rates_of_other_pairs_say_nothing() {
    let mut rates = Rates::default();
    rates.take(1, id(0), &rate("2026-01-01", "0.5"));
    let day = "2026-10-31".parse().unwrap();
    assert!(
        rates.find(&code("EUR"), &code("USD"), day, 1).is_none(),
        "nor do they of the way back"
    );
}
