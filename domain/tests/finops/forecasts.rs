//! Forecasts beside the naive one: on 75 real monthly series whose ends were held back, and on a
//! panel whose values depend on a driver.

#![expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "errors are measured")]

use std::collections::BTreeMap;

use domain::finops::forecast::{Driver, Model, Question, QuestionFault, forecast};

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
    // Over all series together, where the large ones weigh more.
    let (mut wrong, mut naive_wrong) = (0.0, 0.0);
    let series = monthly();
    assert_eq!(series.len(), 75);
    for (history, right) in series {
        let question = Question {
            history: history.clone(),
            season: 12,
            horizon: right.len(),
            drivers: Vec::new(),
        };
        let found = forecast(&question).unwrap();
        assert!(found.scores.iter().any(|score| score.model == Model::SeasonalNaive));
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
    assert!(ours <= last);
    assert!((0.74..=0.88).contains(&likely), "{likely}");
    assert!((0.90..=0.98).contains(&sure), "{sure}");
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
        let question =
            |drivers| Question { history: history.clone(), season: 12, horizon, drivers };
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
        forecast(&Question { history: history.to_vec(), season, horizon: 3, drivers: Vec::new() })
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
