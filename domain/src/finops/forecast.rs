//! Forecasts that say how far they can be trusted.
//!
//! Several models are tried on the past (rolling origins: each forecasts what was not shown to it),
//! and the one that was least wrong forecasts the future. A regression on drivers is preferred when
//! it is nearly as good as the best: it can be explained, and people can say what its drivers will
//! be. The limits around a forecast come from how wrong the model was in the past, at the same
//! distance, and not from a formula that believes the model. A history too short to try anything is
//! told so.
//!
//! A pure function of its inputs: the same series, drivers and horizon give the same forecast.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a forecast estimates, and never books"
)]

use super::regression::{Fit, fit, ridge};

/// Fewest values for any model but the last value.
const SHORT: usize = 6;
/// A regression on drivers is kept when its error is at most this times the best one's: while a
/// driver stood still, a model without it may have been a little better, and will not follow it.
const PREFERENCE: f64 = 1.25;
/// Most origins of a backtest.
const ORIGINS_MAX: usize = 24;

/// What is forecast.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// What was, oldest first, equally spaced.
    pub history: Vec<f64>,
    /// Steps after which a pattern repeats: 12 for months, 7 for days; 1 for none.
    pub season: usize,
    /// Steps to forecast.
    pub horizon: usize,
    /// What the value depends on: each with its past, as long as the history, and its future, as
    /// long as the horizon, one after the other.
    pub drivers: Vec<Driver>,
}

/// A quantity that people know, or plan, the future of.
#[derive(Clone, Debug)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Past and future.
    pub values: Vec<f64>,
    /// How much the value goes up with one of it, when that is known; else it is estimated.
    pub coefficient: Option<f64>,
}

/// A way to forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The last value.
    Naive,
    /// The value a season ago.
    SeasonalNaive,
    /// The theta method (Assimakopoulos, Nikolopoulos 2000; as exponential smoothing with half the
    /// trend's drift, Hyndman, Billah 2003) on what is left without the season.
    Theta,
    /// Multiple linear regression: trend, season, drivers.
    Regression,
}

/// How a model did on the past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Which.
    pub model: Model,
    /// Weighted absolute percentage error: the sum of errors over the sum of values.
    pub wape: f64,
    /// Mean absolute error over that of the value a season ago, within the history (MASE).
    pub mase: f64,
    /// How often it was tried.
    pub origins: usize,
}

/// One step of the future.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The expected value.
    pub value: f64,
    /// Where it lies four times of five.
    pub likely: (f64, f64),
    /// Where it lies nineteen times of twenty.
    pub nearly_sure: (f64, f64),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// One for each step.
    pub points: Vec<Point>,
    /// What made them.
    pub model: Model,
    /// Why that one, in words.
    pub reason: String,
    /// Every model's score, the naive ones among them; empty when the history is too short.
    pub scores: Vec<Score>,
    /// The regression's coefficient of each driver, when it was a regression.
    pub coefficients: Vec<(String, f64)>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionFault {
    /// Nothing to go by.
    #[error("there is no history")]
    Empty,
    /// Not a number.
    #[error("a value is not a finite number")]
    NotFinite,
    /// Its past or its future is missing.
    #[error("the driver {name} has {values} values, and needs {needed}")]
    Driver {
        /// Which.
        name: String,
        /// How many it has.
        values: usize,
        /// How many it needs.
        needed: usize,
    },
}

/// Forecasts.
///
/// # Errors
/// See [`QuestionFault`].
pub fn forecast(question: &Question) -> Result<Forecast, QuestionFault> {
    let Question { history, season, horizon, drivers } = question;
    let (season, horizon) = ((*season).max(1), *horizon);
    if history.is_empty() {
        return Err(QuestionFault::Empty);
    }
    let needed = history.len() + horizon;
    for driver in drivers {
        if driver.values.len() != needed {
            let (name, values) = (driver.name.clone(), driver.values.len());
            return Err(QuestionFault::Driver { name, values, needed });
        }
    }
    let numbers = history.iter().chain(drivers.iter().flat_map(|driver| &driver.values));
    if !numbers.copied().all(f64::is_finite) {
        return Err(QuestionFault::NotFinite);
    }
    if history.len() < SHORT && drivers.is_empty() {
        return Ok(short(history, horizon));
    }
    let models = candidates(history.len(), season, drivers);
    let trials: Vec<Trial> =
        models.iter().filter_map(|model| Trial::of(*model, question, season, horizon)).collect();
    let Some(best) = trials.iter().min_by(|a, b| a.score.wape.total_cmp(&b.score.wape)) else {
        return Ok(short(history, horizon));
    };
    let regression = trials.iter().find(|trial| {
        trial.score.model == Model::Regression
            && !drivers.is_empty()
            && trial.score.wape <= PREFERENCE * best.score.wape
    });
    let chosen = regression.unwrap_or(best);
    let model = chosen.score.model;
    let reason = if regression.is_some() && best.score.model != model {
        format!(
            "it follows its drivers, and was about as good as {:?} on the past",
            best.score.model
        )
    } else {
        "it was the least wrong on the past".to_owned()
    };
    let Some(values) = predict(model, history, season, horizon, drivers) else {
        return Ok(short(history, horizon));
    };
    let scale = scale(history, season);
    let points = values
        .iter()
        .enumerate()
        .map(|(step, &value)| {
            let reach = |share| chosen.reach(step, share) * scale;
            let (likely, sure) = (reach(0.8), reach(0.95));
            Point {
                value,
                likely: (value - likely, value + likely),
                nearly_sure: (value - sure, value + sure),
            }
        })
        .collect();
    let coefficients = match model {
        Model::Regression => Regression::of(history, season, drivers)
            .map(|regression| regression.of_drivers(drivers))
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let scores = trials.iter().map(|trial| trial.score).collect();
    Ok(Forecast { points, model, reason, scores, coefficients })
}

/// The last value, within what the history has moved: nothing more is known.
fn short(history: &[f64], horizon: usize) -> Forecast {
    let last = history.last().copied().unwrap_or(0.0);
    let (low, high) =
        history.iter().fold((last, last), |(low, high), &value| (low.min(value), high.max(value)));
    let width = (high - low).max(last.abs() * 0.5);
    let point = |step: usize| {
        let reach = width * ((step + 1) as f64).sqrt();
        Point {
            value: last,
            likely: (last - 0.65 * reach, last + 0.65 * reach),
            nearly_sure: (last - reach, last + reach),
        }
    };
    Forecast {
        points: (0..horizon).map(point).collect(),
        model: Model::Naive,
        reason: format!("{} values are too few to try anything: low confidence", history.len()),
        scores: Vec::new(),
        coefficients: Vec::new(),
    }
}

fn candidates(length: usize, season: usize, drivers: &[Driver]) -> Vec<Model> {
    let mut models = vec![Model::Naive];
    if season > 1 && length >= season + SHORT {
        models.push(Model::SeasonalNaive);
    }
    if length >= SHORT {
        models.push(Model::Theta);
    }
    if length >= SHORT + 2 * drivers.len() + 2 {
        models.push(Model::Regression);
    }
    models
}

/// A model's errors on the past.
struct Trial {
    score: Score,
    /// For each step, the sizes of the errors over the scale at their origin, smallest first.
    errors: Vec<Vec<f64>>,
}

impl Trial {
    /// None when it could not be tried once.
    fn of(model: Model, question: &Question, season: usize, horizon: usize) -> Option<Self> {
        let Question { history, drivers, .. } = question;
        let n = history.len();
        let least = (2 * season).clamp(SHORT, n.max(2) - 1).max(n / 3);
        let origins: Vec<usize> = (least..n).collect();
        let stride = origins.len().div_ceil(ORIGINS_MAX).max(1);
        let mut errors: Vec<Vec<f64>> = vec![Vec::new(); horizon];
        let (mut wrong, mut sum, mut count, mut tried) = (0.0, 0.0, 0_usize, 0);
        // From the end, so that the newest origin is always tried.
        for &origin in origins.iter().rev().step_by(stride) {
            let known = &history[..origin];
            let steps = horizon.min(n - origin);
            let cut: Vec<Driver> = drivers
                .iter()
                .map(|driver| Driver {
                    values: driver.values[..origin + steps].to_vec(),
                    ..driver.clone()
                })
                .collect();
            let Some(values) = predict(model, known, season, steps, &cut) else { continue };
            let size = scale(known, season);
            tried += 1;
            for (step, value) in values.into_iter().enumerate() {
                let error = (value - history[origin + step]).abs();
                errors[step].push(error / size);
                wrong += error;
                sum += history[origin + step].abs();
                count += 1;
            }
        }
        if tried == 0 {
            return None;
        }
        for one in &mut errors {
            one.sort_by(f64::total_cmp);
        }
        let lag = if n > season { season } else { 1 };
        let moved: Vec<f64> =
            history.windows(lag + 1).map(|window| (window[lag] - window[0]).abs()).collect();
        let usual = moved.iter().sum::<f64>() / moved.len().max(1) as f64;
        let mean = wrong / count as f64;
        let mase = if usual > 0.0 { mean / usual } else { f64::from(u8::from(mean > 0.0)) };
        let wape = if sum > 0.0 { wrong / sum } else { mean };
        Some(Self { score: Score { model, wape, mase, origins: tried }, errors })
    }

    /// How far from its value a step lies with this probability, over the scale: the quantile of
    /// the errors at this distance and its neighbours (split conformal, with the place of the new
    /// one counted in).
    fn reach(&self, step: usize, probability: f64) -> f64 {
        let last = self.errors.iter().rposition(|errors| errors.len() >= 2).unwrap_or(0);
        let at = step.min(last);
        let near = at.saturating_sub(1)..=(at + 1).min(last);
        let mut errors: Vec<f64> = self.errors[near].iter().flatten().copied().collect();
        errors.sort_by(f64::total_cmp);
        let Some(&largest) = errors.last() else { return 0.0 };
        // Beyond the steps that could be tried, errors grow as those of a random walk.
        let grown = ((step + 1) as f64 / (at + 1) as f64).sqrt();
        let place = probability * (errors.len() + 1) as f64;
        let size = if place.ceil() as usize > errors.len() {
            // Fewer errors than the probability asks for: the largest is not large enough.
            largest * (1.0 + (place - errors.len() as f64))
        } else {
            errors[(place.ceil() as usize).max(1) - 1]
        };
        size * grown
    }
}

/// What errors are compared with: the mean size over the last season.
fn scale(history: &[f64], season: usize) -> f64 {
    let last = &history[history.len().saturating_sub(season.max(SHORT))..];
    let mean = last.iter().map(|value| value.abs()).sum::<f64>() / last.len() as f64;
    if mean > 0.0 { mean } else { 1.0 }
}

fn predict(
    model: Model,
    history: &[f64],
    season: usize,
    horizon: usize,
    drivers: &[Driver],
) -> Option<Vec<f64>> {
    let n = history.len();
    match model {
        Model::Naive => history.last().map(|&last| vec![last; horizon]),
        Model::SeasonalNaive => (n >= season)
            .then(|| (0..horizon).map(|step| history[n - season + step % season]).collect()),
        Model::Theta => Some(theta(history, season, horizon)),
        Model::Regression => {
            let regression = Regression::of(history, season, drivers)?;
            Some((n..n + horizon).map(|at| regression.at(at, drivers)).collect())
        }
    }
}

/// The theta method; a season only where the history shows one.
fn theta(history: &[f64], season: usize, horizon: usize) -> Vec<f64> {
    let n = history.len();
    let factors = seasonal_factors(history, season);
    let positive = history.iter().all(|&value| value > 0.0);
    let remove = |at: usize, value: f64| match &factors {
        Some(factors) if positive => value / factors[at % season],
        Some(factors) => value - factors[at % season],
        None => value,
    };
    let add = |at: usize, value: f64| match &factors {
        Some(factors) if positive => value * factors[at % season],
        Some(factors) => value + factors[at % season],
        None => value,
    };
    let plain: Vec<f64> =
        history.iter().enumerate().map(|(at, &value)| remove(at, value)).collect();
    let slope = slope(&plain);
    let (alpha, level) = smoothed(&plain);
    let drift = (1.0 - (1.0 - alpha).powi(n as i32)) / alpha;
    (0..horizon).map(|step| add(n + step, level + 0.5 * slope * (step as f64 + drift))).collect()
}

/// The slope of the straight line through the values.
fn slope(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let (middle, mean) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let (mut above, mut below) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let off = at as f64 - middle;
        above += off * (value - mean);
        below += off * off;
    }
    if below > 0.0 { above / below } else { 0.0 }
}

/// Simple exponential smoothing: the weight with the least squared errors, and the last level.
fn smoothed(values: &[f64]) -> (f64, f64) {
    let run = |alpha: f64| {
        let (mut level, mut squares) = (values[0], 0.0);
        for value in &values[1..] {
            let error = value - level;
            squares += error * error;
            level += alpha * error;
        }
        (squares, level)
    };
    let coarse = (1..=19).map(|step| f64::from(step) * 0.05);
    let best = |candidates: &mut dyn Iterator<Item = f64>| {
        candidates
            .map(|alpha| (run(alpha).0, alpha))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(0.5, |(_, alpha)| alpha)
    };
    let around = best(&mut { coarse });
    let fine = (-9..=9).map(|step| (around + f64::from(step) * 0.005).clamp(0.01, 0.99));
    let alpha = best(&mut { fine });
    (alpha, run(alpha).1)
}

/// The season's factors (of a mean of one), or differences where values are not all positive; none
/// where the autocorrelation at the season's distance does not stand out (90 percent).
fn seasonal_factors(values: &[f64], season: usize) -> Option<Vec<f64>> {
    let n = values.len();
    if season < 2 || n < 2 * season + 1 || !stands_out(values, season) {
        return None;
    }
    let positive = values.iter().all(|&value| value > 0.0);
    // A mean over one season, centred: of an even season with the ends at half.
    let half = season / 2;
    let mut sums = vec![(0.0, 0_usize); season];
    for at in half..n - half {
        let window = &values[at - half..=at + half];
        let mean = if season.is_multiple_of(2) {
            let ends = f64::midpoint(window[0], window[season]);
            (window[1..season].iter().sum::<f64>() + ends) / season as f64
        } else {
            window.iter().sum::<f64>() / season as f64
        };
        let off = if positive { values[at] / mean } else { values[at] - mean };
        let (sum, count) = &mut sums[at % season];
        *sum += off;
        *count += 1;
    }
    let mut factors: Vec<f64> =
        sums.iter().map(|(sum, count)| sum / (*count).max(1) as f64).collect();
    let mean = factors.iter().sum::<f64>() / season as f64;
    for factor in &mut factors {
        *factor = if positive { *factor / mean } else { *factor - mean };
    }
    factors
        .iter()
        .all(|factor| factor.is_finite() && (!positive || *factor > 0.0))
        .then_some(factors)
}

fn stands_out(values: &[f64], season: usize) -> bool {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if variance == 0.0 {
        return false;
    }
    let correlation = |lag: usize| {
        let products = values.windows(lag + 1).map(|one| (one[0] - mean) * (one[lag] - mean));
        products.sum::<f64>() / variance
    };
    let before: f64 = (1..season).map(|lag| correlation(lag).powi(2)).sum();
    correlation(season).abs() > 1.645 * ((1.0 + 2.0 * before) / n).sqrt()
}

/// A fitted regression: a constant, the trend, the season, the drivers.
struct Regression {
    fit: Fit,
    season: usize,
    /// Pairs of waves of the season.
    waves: usize,
    trend: bool,
}

impl Regression {
    /// None when there are too few values for it.
    fn of(history: &[f64], season: usize, drivers: &[Driver]) -> Option<Self> {
        let n = history.len();
        let free = drivers.iter().filter(|driver| driver.coefficient.is_none()).count();
        // A third of the values at most, and a season only when two of it were seen.
        let room = (n / 3).saturating_sub(1 + free);
        let trend = room > 0;
        let waves = if season > 2 && n >= 2 * season {
            ((room.saturating_sub(1)) / 2).min(3).min((season - 1) / 2)
        } else {
            0
        };
        if n < 2 + free {
            return None;
        }
        let mut this = Self { fit: Fit::nothing(), season, waves, trend };
        let rows: Vec<Vec<f64>> = (0..n).map(|at| this.row(at, n, drivers)).collect();
        let y: Vec<f64> =
            history.iter().enumerate().map(|(at, value)| value - known(at, drivers)).collect();
        // Columns that depend on each other, such as a driver that never changed.
        this.fit = fit(&rows, &y).or_else(|_| ridge(&rows, &y, 1e-6)).ok()?;
        Some(this)
    }

    fn row(&self, at: usize, n: usize, drivers: &[Driver]) -> Vec<f64> {
        let mut row = vec![1.0];
        if self.trend {
            row.push((at as f64 - (n as f64 - 1.0) / 2.0) / n as f64);
        }
        for wave in 1..=self.waves {
            let angle = std::f64::consts::TAU * wave as f64 * (at % self.season) as f64
                / self.season as f64;
            row.extend([angle.sin(), angle.cos()]);
        }
        let free = drivers.iter().filter(|driver| driver.coefficient.is_none());
        row.extend(free.map(|driver| driver.values[at]));
        row
    }

    fn at(&self, at: usize, drivers: &[Driver]) -> f64 {
        let row = self.row(at, self.fit.residuals.len(), drivers);
        let estimated: f64 = row.iter().zip(&self.fit.coefficients).map(|(a, b)| a * b).sum();
        estimated + known(at, drivers)
    }

    fn of_drivers(&self, drivers: &[Driver]) -> Vec<(String, f64)> {
        let first = 1 + usize::from(self.trend) + 2 * self.waves;
        let mut estimated = self.fit.coefficients[first..].iter();
        drivers
            .iter()
            .filter_map(|driver| {
                let value = driver.coefficient.or_else(|| estimated.next().copied())?;
                Some((driver.name.clone(), value))
            })
            .collect()
    }
}

/// What drivers with a given coefficient bring.
fn known(at: usize, drivers: &[Driver]) -> f64 {
    drivers.iter().filter_map(|driver| Some(driver.coefficient? * driver.values[at])).sum()
}
