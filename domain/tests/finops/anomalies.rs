//! Detectors on a labelled set: 300 series of 240 days with weekdays, heavy-tailed noise, purchases
//! at the beginning of months, planned new levels, and events that should be found. The same set is
//! made every time; nobody's bills are in it.

#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "chance is made")]

use std::{collections::BTreeSet, ops::Range};

use chrono::{Datelike, Days, NaiveDate};
use domain::finops::{
    amount::Amount,
    anomaly::{Calendar, Detector, Period, Sensitivity, Series, detect},
};

use super::dice::Dice;

const SERIES: usize = 300;
const DAYS: usize = 240;
/// Nothing happens before: every detector has a whole month to learn from.
const QUIET: usize = 45;

fn first() -> NaiveDate {
    "2025-01-01".parse().unwrap()
}

fn day(at: usize) -> NaiveDate {
    first() + Days::new(at as u64)
}

/// A series, and the days of its events.
struct Labelled {
    series: Series,
    events: Vec<Range<usize>>,
}

/// Student's t with four degrees of freedom, of deviation 1.
fn heavy(dice: &mut Dice) -> f64 {
    let squares: f64 = (0..4).map(|_| dice.bell().powi(2)).sum();
    dice.bell() / (squares / 4.0).sqrt() / 2.0_f64.sqrt()
}

fn labelled(dice: &mut Dice) -> Labelled {
    let level = 20.0 * 200.0_f64.powf(dice.roll());
    let noise = 0.03 + 0.07 * dice.roll();
    let weekend = if dice.roll() < 0.7 { 0.5 + 0.4 * dice.roll() } else { 1.0 };
    let growth = 0.002 * (dice.roll() - 0.4);
    let purchase = if dice.roll() < 0.3 { 2.0 + 6.0 * dice.roll() } else { 1.0 };
    let mut factors = vec![1.0; DAYS];
    // Planned, so no event: it stays.
    if dice.roll() < 0.5 {
        let at = QUIET + (dice.roll() * (DAYS - QUIET) as f64) as usize;
        let step = (1.0 + 0.2 + 0.5 * dice.roll()).powi(if dice.roll() < 0.6 { 1 } else { -1 });
        factors[at..].iter_mut().for_each(|factor| *factor *= step);
    }
    let count = [0, 1, 2, 2, 2, 3][(dice.roll() * 6.0) as usize];
    let mut events: Vec<Range<usize>> = Vec::new();
    for _ in 0..count {
        let length = 1 + (dice.roll() * 5.0) as usize;
        let at = QUIET + (dice.roll() * (DAYS - QUIET - length) as f64) as usize;
        let apart = |one: &Range<usize>| at + length + 10 < one.start || at > one.end + 10;
        if !events.iter().all(apart) {
            continue;
        }
        let size = 0.2 + 0.3 * dice.roll() + 1.5 * dice.roll().powi(2);
        factors[at..at + length].iter_mut().for_each(|factor| *factor *= 1.0 + size);
        events.push(at..at + length);
    }
    let amounts = factors.into_iter().enumerate().map(|(at, factor)| {
        let date = day(at);
        let weekday = if date.weekday().num_days_from_monday() >= 5 { weekend } else { 1.0 };
        let bought = if date.day() == 1 { purchase } else { 1.0 };
        let usual = level * (growth * at as f64).exp() * weekday * bought * factor;
        Amount((usual * (noise * heavy(dice)).exp() * 100.0).round() as i128 * 10_i128.pow(10))
    });
    Labelled { series: Series { first: first(), amounts: amounts.collect() }, events }
}

fn all(seed: u64) -> Vec<Labelled> {
    let mut dice = Dice(seed);
    (0..SERIES).map(|_| labelled(&mut dice)).collect()
}

/// How a detector did.
#[derive(Clone, Copy, Debug)]
struct Score {
    /// The share of events of which a day was found.
    recall: f64,
    /// The share of found days that are an event's.
    precision: f64,
    /// Found days that are nobody's, in thirty days of a series.
    false_alarms: f64,
}

fn score(set: &[Labelled], detector: &Detector, calendar: &Calendar) -> Score {
    let (mut events, mut met, mut right, mut wrong) = (0_u32, 0_u32, 0_u32, 0_u32);
    for one in set {
        let found = detect(&one.series, detector, calendar);
        let found: BTreeSet<usize> = found
            .iter()
            .map(|found| match found.period {
                Period::Day(day) => (day - first()).num_days() as usize,
                Period::Month(_) => panic!("days are looked for"),
            })
            .filter(|at| *at >= QUIET)
            .collect();
        let event = |at: &usize| one.events.iter().any(|event| event.contains(at));
        let inside = found.iter().filter(|at| event(at)).count() as u32;
        right += inside;
        wrong += found.len() as u32 - inside;
        events += one.events.len() as u32;
        let met_now = one.events.iter().filter(|event| found.range((*event).clone()).count() > 0);
        met += met_now.count() as u32;
    }
    Score {
        recall: f64::from(met) / f64::from(events),
        precision: f64::from(right) / f64::from(right + wrong).max(1.0),
        false_alarms: f64::from(wrong) * 30.0 / (SERIES * (DAYS - QUIET)) as f64,
    }
}

/// The fixed threshold that ours are compared with.
const FIXED: Detector = Detector::PreviousMonth { percent: 130 };

fn statistical(sensitivity: Sensitivity) -> Detector {
    Detector::Statistical { sensitivity, minimum: Amount(10_i128.pow(12)) }
}

#[test]
fn more_is_found_with_fewer_false_alarms_than_by_a_fixed_threshold() {
    let begins = Calendar { days_of_month: vec![1], dates: vec![] };
    let none = Calendar::default();
    let set = all(0x5EED_0000_0000_0002);
    let events: usize = set.iter().map(|one| one.events.len()).sum();
    println!("{} series, {events} events", set.len());
    let fixed = score(&set, &FIXED, &none);
    let fixed_known = score(&set, &FIXED, &begins);
    let say = |name: &str, score: Score| {
        let Score { recall, precision, false_alarms } = score;
        println!("{name:32} {recall:.3} {precision:.3} {false_alarms:.3}");
        score
    };
    say("fixed", fixed);
    say("fixed, calendar", fixed_known);
    let unaided = say("high, no calendar", score(&set, &statistical(Sensitivity::High), &none));
    let [high, medium, low] = [Sensitivity::High, Sensitivity::Medium, Sensitivity::Low]
        .map(|one| say(&format!("{one:?}"), score(&set, &statistical(one), &begins)));
    for (ours, fixed) in [(unaided, fixed), (high, fixed), (high, fixed_known)] {
        assert!(ours.recall >= fixed.recall, "{ours:?} {fixed:?}");
        assert!(ours.precision >= 1.25 * fixed.precision, "{ours:?} {fixed:?}");
        assert!(ours.false_alarms <= 0.75 * fixed.false_alarms, "{ours:?} {fixed:?}");
    }
    assert!(medium.precision > high.precision && low.precision > medium.precision);
    assert!(high.recall > medium.recall && medium.recall > low.recall);
}
