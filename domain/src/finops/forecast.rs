//! Forecasts that say how far they can be trusted.
//!
//! Several models are tried on the past (rolling origins: each forecasts what was not shown to it),
//! and the one that was least wrong forecasts the future; the theta method is left for another only
//! when that was clearly less wrong, for on few values the best is best by chance. A regression on
//! drivers is preferred when it is nearly as good as the best: it can be explained, and people can
//! say what its drivers will be. The limits around a forecast come from how wrong the model was in
//! the past, at the same distance, and not from a formula that believes the model. A history too
//! short to try anything is told so.
//!
//! A pure function of its inputs: the same series, drivers and horizon give the same forecast.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a forecast estimates, and never books"
)]

mod calendar;
mod design;
mod theta;
mod trial;

pub use calendar::{Calendar, Step};
use design::{Regression, Term};
use trial::{LIKELY, NEARLY_SURE, Past, Trial, scale};

/// Fewest values for any model but the last value.
const SHORT: usize = 6;
/// A regression on drivers is kept when its error is at most this times the best one's: while a
/// driver stood still, a model without it may have been a little better, and will not follow it.
const PREFERENCE: f64 = 1.25;
/// The theta method is kept when its error is at most this times the best one's.
const STEADY: f64 = 1.1;
/// Fewest origins of a backtest that is to be believed.
const ORIGINS_MIN: usize = 4;
/// Fewest steps without cost after which a cost may have ended.
const ENDED: usize = 3;

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
    /// Which days steps stand for: months have lengths, and weekdays.
    pub calendar: Option<Calendar>,
    /// Steps of the history from which another level is known to count.
    pub shifts: Vec<usize>,
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
    /// trend's drift, Hyndman, Billah 2003) on what is left without the season and what is known.
    Theta,
    /// The same of the mean of a day, for months.
    ThetaPerDay,
    /// Multiple linear regression: trend, season, calendar, level shifts, drivers.
    Regression,
}

impl Model {
    /// As in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::SeasonalNaive => "seasonal-naive",
            Self::Theta => "theta",
            Self::ThetaPerDay => "theta-per-day",
            Self::Regression => "regression",
        }
    }

    fn is_theta(self) -> bool {
        matches!(self, Self::Theta | Self::ThetaPerDay)
    }
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
    /// The sum of forecasts less that of values, over the sum of values: above zero, it was too
    /// high.
    pub bias: f64,
    /// How often it was tried.
    pub origins: usize,
    /// How often limits of 80 and of 95 percent held that were made of the errors known by then;
    /// none when there were too few.
    pub coverage: Option<(f64, f64)>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// One for each step.
    pub points: Vec<Point>,
    /// What made them.
    pub model: Model,
    /// Why that one, in words.
    pub reason: String,
    /// The history is too short for the model to have been tried often enough.
    pub low_confidence: bool,
    /// Every model's score, the naive ones among them; empty when the history is too short.
    pub scores: Vec<Score>,
    /// The coefficient of each driver: those that were given, and those that were estimated when it
    /// was a regression.
    pub coefficients: Vec<(String, f64)>,
    /// What else a regression found, by name: the trend for each step, the calendar, the size of
    /// each level shift.
    pub terms: Vec<(String, f64)>,
}

/// What was forecast of a past step beside what came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Came {
    /// The step of the history.
    pub at: usize,
    /// What was forecast one step before.
    pub forecast: f64,
    /// What came.
    pub came: f64,
    /// What had made the forecast.
    pub model: Model,
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
    let (known, rest) = read(question)?;
    let season = question.season.max(1);
    let past = Past::new(question, season, &known, &rest);
    let history = &question.history;
    if history.len() < SHORT && question.drivers.is_empty() {
        return Ok(short(&past));
    }
    let found = past.shifts();
    let trials: Vec<Trial> =
        past.candidates().into_iter().filter_map(|model| Trial::of(model, &past, &found)).collect();
    let Some((chosen, mut reason)) = choose(&trials, question) else { return Ok(short(&past)) };
    let model = chosen.score.model;
    let regression = match model {
        Model::Regression => Regression::exact(&past.design),
        _ => None,
    };
    let Some(values) = past.ask_now(model, regression.as_ref()) else { return Ok(short(&past)) };
    let scale = scale(history, season);
    let points = values
        .iter()
        .enumerate()
        .map(|(step, &value)| {
            let reach = |share| chosen.reach(step, share) * scale;
            point(value, reach(LIKELY), reach(NEARLY_SURE), past.positive)
        })
        .collect();
    let low_confidence = chosen.score.origins < ORIGINS_MIN;
    if low_confidence {
        reason.push_str(", but could hardly be tried: low confidence");
    }
    Ok(Forecast {
        points,
        model,
        reason,
        low_confidence,
        scores: trials.iter().map(|trial| trial.score).collect(),
        coefficients: coefficients(question, regression.as_ref()),
        terms: regression.map(|one| terms(question, &one)).unwrap_or_default(),
    })
}

/// What one model says, and how it did on the past; none when the history is too short for it.
///
/// # Errors
/// See [`QuestionFault`].
pub fn try_model(
    question: &Question,
    model: Model,
) -> Result<Option<(Score, Vec<f64>)>, QuestionFault> {
    let (known, rest) = read(question)?;
    let past = Past::new(question, question.season.max(1), &known, &rest);
    let regression = match model {
        Model::Regression => Regression::exact(&past.design),
        _ => None,
    };
    let trial = Trial::of(model, &past, &[]);
    Ok(trial.zip(past.ask_now(model, regression.as_ref())).map(|(t, v)| (t.score, v)))
}

/// What would have been forecast for each of the last steps one step before, by everything known
/// then and nothing else, beside what came.
///
/// # Errors
/// See [`QuestionFault`].
pub fn look_back(question: &Question, steps: usize) -> Result<Vec<Came>, QuestionFault> {
    read(question)?;
    let n = question.history.len();
    let ask = |at: usize| {
        let cut = |driver: &Driver| {
            let values = driver.values[..=at].to_vec();
            Driver { values, ..driver.clone() }
        };
        let before = Question {
            history: question.history[..at].to_vec(),
            season: question.season,
            horizon: 1,
            drivers: question.drivers.iter().map(cut).collect(),
            calendar: question.calendar,
            shifts: question.shifts.iter().copied().filter(|from| *from < at).collect(),
        };
        let said = forecast(&before)?;
        let forecast = said.points.first().map_or(0.0, |point| point.value);
        Ok(Came { at, forecast, came: question.history[at], model: said.model })
    };
    (n.saturating_sub(steps).max(1)..n).map(ask).collect()
}

/// Checks a question; what is known of each step, and what of the history is left without it.
fn read(question: &Question) -> Result<(Vec<f64>, Vec<f64>), QuestionFault> {
    let Question { history, horizon, drivers, .. } = question;
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
    let given = drivers.iter().filter_map(|driver| driver.coefficient.as_ref());
    if !numbers.chain(given).copied().all(f64::is_finite) {
        return Err(QuestionFault::NotFinite);
    }
    let known: Vec<f64> = (0..needed)
        .map(|at| {
            drivers.iter().filter_map(|driver| Some(driver.coefficient? * driver.values[at])).sum()
        })
        .collect();
    let rest = history.iter().zip(&known).map(|(value, known)| value - known).collect();
    Ok((known, rest))
}

/// Which of the trials is believed, and why.
fn choose<'a>(trials: &'a [Trial], question: &Question) -> Option<(&'a Trial, String)> {
    // Who could be tried less often had an easier or a harder past.
    let most = trials.iter().map(|trial| trial.score.origins).max()?;
    let fair = || trials.iter().filter(|trial| trial.score.origins == most);
    let least = |trials: &mut dyn Iterator<Item = &'a Trial>| {
        trials.min_by(|a, b| a.calm.total_cmp(&b.calm))
    };
    if let Some(steps) = ended(&question.history) {
        let naive = fair().find(|trial| trial.score.model == Model::Naive)?;
        let brings = |driver: &Driver| {
            driver.values[question.history.len()..].iter().any(|value| *value != 0.0)
        };
        if !question.drivers.iter().any(brings) {
            let reason = format!("it has cost nothing for {steps} steps, longer than ever before");
            return Some((naive, reason));
        }
    }
    let best = least(&mut fair())?;
    let name = best.score.model.name();
    let near = |trial: &&Trial, times: f64| trial.calm <= times * best.calm;
    if !question.drivers.is_empty() {
        let regression = fair()
            .filter(|trial| trial.score.model == Model::Regression)
            .find(|trial| near(trial, PREFERENCE));
        if let Some(regression) = regression.filter(|one| one.score.model != best.score.model) {
            let reason = format!("it follows its drivers, and was about as good as {name}");
            return Some((regression, reason));
        }
    }
    let theta = least(&mut fair().filter(|trial| trial.score.model.is_theta()));
    if let Some(theta) = theta.filter(|trial| near(trial, STEADY))
        && !best.score.model.is_theta()
        && best.calm < theta.calm
    {
        let reason = format!("it was about as good as {name} on the past, and is steadier");
        return Some((theta, reason));
    }
    Some((best, "it was the least wrong on the past".to_owned()))
}

/// For how many steps nothing was there, when that is longer than it ever was.
fn ended(history: &[f64]) -> Option<usize> {
    let (mut run, mut longest) = (0, 0);
    let first = history.iter().position(|value| *value != 0.0)?;
    for value in &history[first..] {
        if *value == 0.0 {
            run += 1;
        } else {
            longest = longest.max(run);
            run = 0;
        }
    }
    (run >= ENDED && run > longest).then_some(run)
}

fn point(value: f64, likely: f64, sure: f64, positive: bool) -> Point {
    let least = if positive { 0.0 } else { f64::MIN };
    Point {
        value,
        likely: ((value - likely).max(least), value + likely),
        nearly_sure: ((value - sure).max(least), value + sure),
    }
}

/// The last value, within what the history has moved: nothing more is known.
fn short(past: &Past<'_>) -> Forecast {
    let question = past.question;
    let values = past.design.values;
    let last = values.last().copied().unwrap_or(0.0);
    let (low, high) =
        values.iter().fold((last, last), |(low, high), &value| (low.min(value), high.max(value)));
    let width = (high - low).max(last.abs() * 0.5);
    let n = question.history.len();
    let one = |step: usize| {
        let reach = width * ((step + 1) as f64).sqrt();
        let value = last + past.known[n + step];
        let value = if past.positive { value.max(0.0) } else { value };
        point(value, 0.65 * reach, reach, past.positive)
    };
    Forecast {
        points: (0..question.horizon).map(one).collect(),
        model: Model::Naive,
        reason: format!("{n} values are too few to try anything: low confidence"),
        low_confidence: true,
        scores: Vec::new(),
        coefficients: coefficients(question, None),
        terms: Vec::new(),
    }
}

fn coefficients(question: &Question, regression: Option<&Regression>) -> Vec<(String, f64)> {
    let mut free = 0;
    let mut coefficients = Vec::new();
    for driver in &question.drivers {
        let estimated = match driver.coefficient {
            Some(given) => Some(given),
            None => {
                free += 1;
                regression.map(|one| one.coefficient(Term::Driver(free - 1)))
            }
        };
        coefficients.extend(estimated.map(|value| (driver.name.clone(), value)));
    }
    coefficients
}

fn terms(question: &Question, regression: &Regression) -> Vec<(String, f64)> {
    let length = question.history.len() as f64;
    let name =
        |at: usize| question.calendar.map_or_else(|| at.to_string(), |calendar| calendar.name(at));
    let pairs = regression.terms.iter().zip(&regression.coefficients);
    pairs
        .filter_map(|(term, &size)| {
            Some(match term {
                Term::Trend => ("trend".to_owned(), size / length),
                Term::Days => ("days of the month".to_owned(), size),
                Term::WorkingDays => ("working days".to_owned(), size),
                Term::MonthBegin => ("first of the month".to_owned(), size),
                Term::Shift(from) => (format!("level from {}", name(*from)), size),
                Term::Constant | Term::Wave(_) | Term::Driver(_) => return None,
            })
        })
        .collect()
}
