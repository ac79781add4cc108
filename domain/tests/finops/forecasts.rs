//! Forecasts beside the naive one: on 75 real monthly series whose ends were held back, and on a
//! panel whose values depend on a driver.

#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "errors are measured")]

use std::collections::BTreeMap;

use domain::finops::forecast::{
    Calendar, Driver, Forecast, Model, Question, QuestionFault, Step, forecast, look_back,
};
use proptest::{collection::vec, prelude::*};

use super::dice::Dice;

/// History and what was held back, of each series.
fn monthly() -> Vec<(Vec<f64>, Vec<f64>)> {
    let mut series: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for line in include_str!("data/m3_monthly.csv").lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let one = series.entry(fields[0]).or_default();
        let value = fields[2].parse().unwrap();
        if fields[3] == "train" { one.0.push(value) } else { one.1.push(value) }
    }
    series.into_values().collect()
}

/// The sum of errors over the sum of values.
fn wape(found: &[f64], right: &[f64]) -> f64 {
    let error: f64 = found.iter().zip(right).map(|(a, b)| (a - b).abs()).sum();
    error / right.iter().map(|value| value.abs()).sum::<f64>()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn real_months_are_forecast_better_than_by_last_years() {
    let (mut ours, mut naive, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let (mut likely, mut sure, mut all) = (0_u32, 0_u32, 0_u32);
    let mut said = Vec::new();
    // Over all series together, where the large ones weigh more.
    let (mut wrong, mut naive_wrong) = (0.0, 0.0);
    let series = monthly();
    assert_eq!(series.len(), 75);
    for (history, right) in series {
        let question = Question {
            history: history.clone(),
            season: 12,
            horizon: right.len(),
            ..Question::default()
        };
        let found = forecast(&question).unwrap();
        assert!(found.scores.iter().any(|score| score.model == Model::SeasonalNaive));
        let own = found.scores.iter().find(|score| score.model == found.model).unwrap();
        said.push(own.coverage.unwrap().1);
        let values: Vec<f64> = found.points.iter().map(|point| point.value).collect();
        ours.push(wape(&values, &right));
        let before = |step: usize| history[history.len() - 12 + step % 12];
        let seasonal: Vec<f64> = (0..right.len()).map(before).collect();
        naive.push(wape(&seasonal, &right));
        let sum: f64 = right.iter().sum();
        wrong += ours[ours.len() - 1] * sum;
        naive_wrong += naive[naive.len() - 1] * sum;
        last.push(wape(&vec![*history.last().unwrap(); right.len()], &right));
        for (point, right) in found.points.iter().zip(&right) {
            let inside = |limits: (f64, f64)| u32::from(limits.0 <= *right && *right <= limits.1);
            likely += inside(point.likely);
            sure += inside(point.nearly_sure);
            all += 1;
        }
    }
    let (ours, naive, last) = (mean(&ours), mean(&naive), mean(&last));
    let share = |count: u32| f64::from(count) / f64::from(all);
    let (likely, sure) = (share(likely), share(sure));
    println!("ours {ours:.4}, seasonal naive {naive:.4}, naive {last:.4}: {:.3}", ours / naive);
    println!("over all series together: {:.3}", wrong / naive_wrong);
    println!("inside: 80 % {likely:.3}, 95 % {sure:.3}");
    assert!(ours <= 0.80 * naive, "{:.3}", ours / naive);
    assert!(wrong <= 0.80 * naive_wrong, "{:.3}", wrong / naive_wrong);
    assert!(ours <= last && ours <= naive && wrong <= naive_wrong, "never worse than naive");
    assert!((0.74..=0.88).contains(&likely), "{likely}");
    assert!((0.90..=0.98).contains(&sure), "{sure}");
    // What a forecast says of its own limits is what then comes.
    let said = mean(&said);
    println!("said to be inside 95 %: {said:.3}");
    assert!((said - sure).abs() < 0.05, "{said}");
}

#[test]
fn a_driver_that_matters_halves_the_error() {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut with, mut without, mut followed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..60 {
        let (n, horizon) = (36, 6);
        let mut count = 50.0 + 50.0 * dice.roll();
        let price = 1.0 + 4.0 * dice.roll();
        let (mut counts, mut values) = (Vec::new(), Vec::new());
        for month in 0..n + horizon {
            // Planned steps: servers come and go.
            count = (count + if dice.roll() < 0.3 { 20.0 * dice.bell() } else { 0.0 }).max(5.0);
            let wave = (f64::from(month as u32) / 12.0 * std::f64::consts::TAU).sin();
            counts.push(count);
            values.push(100.0 + price * count * (1.0 + 0.02 * dice.bell()) + 5.0 * wave);
        }
        let history = values[..n].to_vec();
        let driver = Driver { name: "servers".to_owned(), values: counts, coefficient: None };
        let question = |drivers| Question {
            history: history.clone(),
            season: 12,
            horizon,
            drivers,
            ..Question::default()
        };
        let error = |question: &Question| {
            let found = forecast(question).unwrap();
            let values_found: Vec<f64> = found.points.iter().map(|point| point.value).collect();
            (wape(&values_found, &values[n..]), found)
        };
        without.push(error(&question(Vec::new())).0);
        let (wrong, found) = error(&question(vec![driver.clone()]));
        with.push(wrong);
        if found.model == Model::Regression {
            followed += 1;
            let off = (found.coefficients[0].1 / price - 1.0).abs();
            assert!(off < 0.5, "{:?}, {price}", found.coefficients);
        }
        // A price that is known is taken as it is.
        let known = Driver { coefficient: Some(price), ..driver };
        let found = error(&question(vec![known])).1;
        if found.model == Model::Regression {
            assert_eq!(found.coefficients, [("servers".to_owned(), price)]);
        }
    }
    let (with, without) = (mean(&with), mean(&without));
    assert!(followed >= 55, "{followed} of 60 follow their driver");
    println!("with the driver {with:.4}, without {without:.4}: {:.3}", with / without);
    assert!(with <= 0.5 * without);
}

#[test]
fn short_and_odd_histories_have_an_honest_answer() {
    let ask = |history: &[f64], season| {
        forecast(&Question { history: history.to_vec(), season, horizon: 3, ..Question::default() })
    };
    let short = ask(&[10.0, 12.0, 11.0], 12).unwrap();
    assert!(short.reason.contains("low confidence") && short.scores.is_empty(), "{short:?}");
    assert!((short.points[0].value - 11.0).abs() < 1e-12);
    let constant = ask(&[7.0; 30], 12).unwrap();
    assert!(constant.points.iter().all(|point| (point.value - 7.0).abs() < 1e-9), "{constant:?}");
    let zero = ask(&[0.0; 30], 12).unwrap();
    assert!(zero.points.iter().all(|point| point.value == 0.0), "{zero:?}");
    let credits: Vec<f64> = (0..30).map(|month| -5.0 + f64::from(month % 3)).collect();
    assert!(ask(&credits, 12).unwrap().points.iter().all(|point| point.value.is_finite()));
    assert_eq!(ask(&[], 12).unwrap_err(), QuestionFault::Empty);
    assert_eq!(ask(&[1.0, f64::NAN], 12).unwrap_err(), QuestionFault::NotFinite);
    // The same question has the same answer.
    let (history, _) = monthly().remove(0);
    let (first, second) = (ask(&history, 12).unwrap(), ask(&history, 12).unwrap());
    assert_eq!(first.points, second.points);
}

fn months(first: &str) -> Calendar {
    Calendar { first: first.parse().unwrap(), step: Step::Month }
}

fn ask(history: Vec<f64>, horizon: usize, calendar: Option<Calendar>) -> Forecast {
    forecast(&Question { history, season: 12, horizon, calendar, ..Question::default() }).unwrap()
}

fn error(found: &Forecast, right: &[f64]) -> f64 {
    let values: Vec<f64> = found.points.iter().map(|point| point.value).collect();
    wape(&values, right)
}

#[test]
fn the_length_of_months_is_known_before_a_second_year_shows_it() {
    let mut dice = Dice(11);
    let calendar = months("2024-09-01");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let price = 5.0 + 10.0 * dice.roll();
        let of = |at: usize| {
            let (from, to) = (calendar.day(at), calendar.day(at + 1));
            price * (to - from).num_days() as f64
        };
        let values: Vec<f64> = (0..21).map(|at| of(at) * (1.0 + 0.004 * dice.bell())).collect();
        // Until January; February comes next.
        let (history, right) = values.split_at(17);
        with.push(error(&ask(history.to_vec(), 4, Some(calendar)), right));
        without.push(error(&ask(history.to_vec(), 4, None), right));
    }
    let (with, without) = (mean(&with), mean(&without));
    println!("with the months' length {with:.4}, without {without:.4}");
    assert!(with < 0.5 * without);
}

#[test]
fn the_mix_of_weekdays_is_found_in_months_and_in_days() {
    let mut dice = Dice(12);
    let calendar = months("2023-01-01");
    let working = |at: usize| {
        let (from, to) = (calendar.day(at), calendar.day(at + 1));
        let days = from.iter_days().take_while(|day| *day < to);
        days.filter(|day| chrono::Datelike::weekday(day).number_from_monday() < 6).count() as f64
    };
    let values: Vec<f64> =
        (0..42).map(|at| 100.0 * working(at) * (1.0 + 0.002 * dice.bell())).collect();
    let found = ask(values[..36].to_vec(), 6, Some(calendar));
    assert_eq!(found.model, Model::Regression, "{}", found.reason);
    assert!(found.terms.iter().any(|(name, _)| name == "working days"), "{:?}", found.terms);
    assert!(error(&found, &values[36..]) < 0.01);
    // Of days: offices use half of it at week-ends, and a fee comes on each first of a month.
    let calendar = Calendar { first: "2026-01-01".parse().unwrap(), step: Step::Day };
    let value = |at: usize| {
        let day = calendar.day(at);
        let office =
            if chrono::Datelike::weekday(&day).number_from_monday() < 6 { 40.0 } else { 20.0 };
        office + if chrono::Datelike::day(&day) == 1 { 300.0 } else { 0.0 }
    };
    let values: Vec<f64> = (0..151).map(|at| value(at) + 0.2 * dice.bell()).collect();
    let question = Question {
        history: values[..120].to_vec(),
        season: 7,
        horizon: 31,
        calendar: Some(calendar),
        ..Question::default()
    };
    let found = forecast(&question).unwrap();
    assert!(found.terms.iter().any(|(name, _)| name == "first of the month"), "{:?}", found.terms);
    assert!(error(&found, &values[120..]) < 0.02, "{}", found.reason);
}

#[test]
fn a_level_that_shifted_is_found_and_one_that_is_declared_is_believed() {
    let mut dice = Dice(13);
    let calendar = Some(months("2023-01-01"));
    let (mut ours, mut naive) = (Vec::new(), Vec::new());
    for series in 0..20 {
        let mut value = |at: usize| {
            let level = if at >= 24 { 260.0 } else { 100.0 };
            let wave = (f64::from(at as u32) / 12.0 * std::f64::consts::TAU).sin();
            level + 15.0 * wave + 2.0 * dice.bell()
        };
        let values: Vec<f64> = (0..42).map(&mut value).collect();
        let found = ask(values[..36].to_vec(), 6, calendar);
        ours.push(error(&found, &values[36..]));
        naive.push(wape(&values[24..30], &values[36..]));
        let declared = Question {
            history: values[..36].to_vec(),
            season: 12,
            horizon: 6,
            calendar,
            shifts: vec![24],
            ..Question::default()
        };
        let declared = forecast(&declared).unwrap();
        assert!(error(&declared, &values[36..]) < 0.05, "{series}: {}", declared.reason);
        if found.model == Model::Regression {
            let shift = found.terms.iter().find(|(name, _)| name == "level from 2025-01");
            let size = shift.unwrap_or_else(|| panic!("{:?}", found.terms)).1;
            assert!((size - 160.0).abs() < 20.0, "{size}");
        }
    }
    let (ours, naive) = (mean(&ours), mean(&naive));
    println!("after a shift {ours:.4}, seasonal naive {naive:.4}");
    assert!(ours < 0.02, "{ours}");
}

#[test]
fn drivers_that_cannot_be_told_from_each_other_still_have_an_answer() {
    let counts: Vec<f64> = (0..30).map(|at| 10.0 + f64::from(at % 7)).collect();
    let history: Vec<f64> = counts[..24].iter().map(|count| 5.0 + 3.0 * count).collect();
    let driver =
        |name: &str, values: Vec<f64>| Driver { name: name.to_owned(), values, coefficient: None };
    let twice: Vec<f64> = counts.iter().map(|count| 2.0 * count + 1.0).collect();
    let still = vec![4.0; 30];
    for drivers in [
        vec![driver("a", counts.clone()), driver("b", twice)],
        vec![driver("a", counts.clone()), driver("still", still)],
        (0..9)
            .map(|n| driver(&n.to_string(), counts.iter().map(|c| c.powi(n + 1)).collect()))
            .collect(),
    ] {
        let question = Question {
            history: history.clone(),
            season: 12,
            horizon: 6,
            drivers: drivers.clone(),
            ..Question::default()
        };
        let found = forecast(&question).unwrap();
        let right: Vec<f64> = counts[24..].iter().map(|count| 5.0 + 3.0 * count).collect();
        if drivers.len() < 3 {
            assert_eq!(found.model, Model::Regression, "{}", found.reason);
            assert!(error(&found, &right) < 0.01, "{found:?}");
        }
        assert!(found.coefficients.iter().all(|(_, size)| size.is_finite()));
    }
}

#[test]
fn what_is_known_is_added_and_a_past_one_off_does_not_come_again() {
    let mut dice = Dice(14);
    let mut history: Vec<f64> = (0..20).map(|_| 100.0 + dice.bell()).collect();
    history[17] += 900.0;
    let mut values = vec![0.0; 23];
    values[17] = 900.0;
    values[21] = 500.0;
    let off = Driver { name: "migration".to_owned(), values, coefficient: Some(1.0) };
    let question = Question {
        history,
        season: 12,
        horizon: 3,
        drivers: vec![off],
        calendar: Some(months("2025-01-01")),
        ..Question::default()
    };
    let found = forecast(&question).unwrap();
    for (point, right) in found.points.iter().zip([100.0, 600.0, 100.0]) {
        assert!((point.value - right).abs() < 5.0, "{:?}", found.points);
    }
    assert_eq!(found.coefficients, [("migration".to_owned(), 1.0)]);
}

#[test]
fn a_cost_that_has_ended_stays_ended_and_one_that_pauses_does_not() {
    let mut history = vec![50.0; 20];
    history.extend([0.0; 4]);
    let found = ask(history, 3, None);
    assert!(found.points.iter().all(|point| point.value == 0.0), "{found:?}");
    assert!(found.reason.contains("nothing for 4 steps"), "{}", found.reason);
    // A yearly fee.
    let yearly: Vec<f64> = (0..45).map(|at| if at % 12 == 2 { 1_200.0 } else { 0.0 }).collect();
    let found = ask(yearly, 6, None);
    assert_eq!(found.model, Model::SeasonalNaive, "{found:?}");
    assert!((found.points[5].value - 1_200.0).abs() < 1e-9);
}

#[test]
fn looking_back_knows_nothing_of_what_came() {
    let (history, _) = monthly().remove(3);
    let question = Question { history: history.clone(), season: 12, ..Question::default() };
    let back = look_back(&question, 6).unwrap();
    assert_eq!(back.len(), 6);
    let first = &back[0];
    let n = history.len();
    assert_eq!((first.at, first.came), (n - 6, history[n - 6]));
    let mut changed = question;
    for value in &mut changed.history[n - 6..] {
        *value *= 3.0;
    }
    let again = look_back(&changed, 6).unwrap()[0];
    assert_eq!((again.forecast.to_bits(), again.at), (first.forecast.to_bits(), first.at));
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    let one = prop_oneof![Just(0.0), -1e3..1e3_f64, Just(7.5), 1e20..1e24_f64, -1e-9..1e-9_f64,];
    prop_oneof![
        vec(one, 1..60),
        vec(0.0..1e6_f64, 1..60),
        (1..60_usize, -1e9..1e9_f64).prop_map(|(n, value)| vec![value; n]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_has_finite_answers_in_order(
        history in values(),
        horizon in 1..24_usize,
        season in prop_oneof![Just(1_usize), Just(7), Just(12)],
        kinds in vec(prop_oneof![Just(None), Just(Some(2.5))], 0..4),
        seed in 1_u64..,
        known_days in any::<bool>(),
        shift in 0..60_usize,
    ) {
        let mut dice = Dice(seed);
        let needed = history.len() + horizon;
        let drivers = kinds.iter().enumerate().map(|(place, coefficient)| Driver {
            name: place.to_string(),
            values: (0..needed).map(|_| (dice.roll() * 10.0).floor()).collect(),
            coefficient: *coefficient,
        });
        let step = if season == 7 { Step::Day } else { Step::Month };
        let calendar = Calendar { first: "2024-01-31".parse().unwrap(), step };
        let positive = history.iter().all(|value| *value >= 0.0);
        let question = Question {
            drivers: drivers.collect(),
            history,
            season,
            horizon,
            calendar: known_days.then_some(calendar),
            shifts: vec![shift],
        };
        let found = forecast(&question).unwrap();
        prop_assert_eq!(found.points.len(), horizon);
        for point in &found.points {
            let all = [
                point.nearly_sure.0, point.likely.0, point.value, point.likely.1, point.nearly_sure.1,
            ];
            prop_assert!(all.iter().all(|value| value.is_finite()), "{:?}", found);
            prop_assert!(all.is_sorted(), "{:?}", found);
            prop_assert!(!positive || point.value >= 0.0);
        }
        let scored = found.scores.iter().flat_map(|one| [one.wape, one.mase, one.bias]);
        let sizes = found.coefficients.iter().chain(&found.terms).map(|(_, size)| *size);
        prop_assert!(scored.chain(sizes).all(f64::is_finite), "{:?}", found);
        prop_assert_eq!(&forecast(&question).unwrap(), &found);
        prop_assert!(look_back(&question, 2).unwrap().iter().all(|one| one.forecast.is_finite()));
    }
}
