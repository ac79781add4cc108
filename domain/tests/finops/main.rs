//! Costs against reference cases: made by other code in exact rationals (`data/golden.json`), and
//! certified by NIST (`data/strd`).
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod anomalies;
mod dice;
mod forecasts;
mod golden;
mod properties;
mod rating;
mod strd;
mod terms;
