//! NIST's certified regressions, and prediction limits computed from them in exact rationals.

#![expect(clippy::float_arithmetic, reason = "digits are counted")]

use domain::finops::regression::fit;
use serde_json::Value;

const SETS: [(&str, &str); 11] = [
    ("filip", include_str!("data/strd/filip.csv")),
    ("longley", include_str!("data/strd/longley.csv")),
    ("noint1", include_str!("data/strd/noint1.csv")),
    ("noint2", include_str!("data/strd/noint2.csv")),
    ("norris", include_str!("data/strd/norris.csv")),
    ("pontius", include_str!("data/strd/pontius.csv")),
    ("wampler1", include_str!("data/strd/wampler1.csv")),
    ("wampler2", include_str!("data/strd/wampler2.csv")),
    ("wampler3", include_str!("data/strd/wampler3.csv")),
    ("wampler4", include_str!("data/strd/wampler4.csv")),
    ("wampler5", include_str!("data/strd/wampler5.csv")),
];

/// The columns of a model at a point.
fn columns(expected: &Value, x: &[f64]) -> Vec<f64> {
    let mut columns = if expected["intercept"] == true { vec![1.0] } else { Vec::new() };
    match expected["model"].as_str().unwrap().strip_prefix("poly") {
        Some(degree) => {
            let mut power = 1.0;
            for _ in 0..degree.parse::<usize>().unwrap() {
                power *= x[0];
                columns.push(power);
            }
        }
        None => columns.extend(x),
    }
    columns
}

fn float(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

/// How many leading digits are right: 15 at most, which is what is certified.
fn digits(found: f64, right: f64) -> f64 {
    let error = if right == 0.0 { found.abs() } else { ((found - right) / right).abs() };
    if error == 0.0 { 15.0 } else { (-error.log10()).clamp(0.0, 15.0) }
}

#[test]
fn certified_digits_are_kept() {
    let expected: Value =
        serde_json::from_str(include_str!("data/strd/strd_expected.json")).unwrap();
    assert_eq!(expected.as_object().unwrap().len(), SETS.len());
    for (name, csv) in SETS {
        let expected = &expected[name];
        let (mut rows, mut y) = (Vec::new(), Vec::new());
        for line in csv.lines().skip(1).filter(|line| !line.is_empty()) {
            let values: Vec<f64> = line.split(',').map(|one| one.parse().unwrap()).collect();
            y.push(values[0]);
            rows.push(columns(expected, &values[1..]));
        }
        let fit = fit(&rows, &y).unwrap();
        let worst = |found: &[f64], right: &Value| {
            let right = right.as_array().unwrap();
            assert_eq!(found.len(), right.len(), "{name}");
            found
                .iter()
                .zip(right)
                .map(|(found, right)| digits(*found, float(right)))
                .fold(15.0, f64::min)
        };
        let coefficients = worst(&fit.coefficients, &expected["coef"]);
        let goal = if name == "filip" { 7.5 } else { 13.0 };
        // A perfect fit has no error to compare.
        let perfect = float(&expected["rsd"]) == 0.0;
        let errors = if perfect { 15.0 } else { worst(&fit.standard_errors, &expected["se"]) };
        println!("{name}: coefficients {coefficients:.1}, standard errors {errors:.1}");
        assert!(coefficients >= goal, "{name}: {coefficients}");
        assert!(errors >= goal, "{name}: {errors}");
        for predicted in expected["predict"].as_array().unwrap() {
            let x: Vec<f64> = predicted["x"].as_array().unwrap().iter().map(float).collect();
            let found = fit.predict(&columns(expected, &x), 0.95);
            let limits = [(found.low, &predicted["pi95"][0]), (found.high, &predicted["pi95"][1])];
            for (found, right) in limits {
                let right = float(right);
                let error = ((found - right) / right.abs().max(1.0)).abs();
                assert!(name == "filip" && error < 1e-6 || error < 1e-9, "{name}: {error:e}");
            }
        }
    }
}
