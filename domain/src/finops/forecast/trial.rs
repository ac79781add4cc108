//! Models on the past: what each would have said at many origins, and how wrong that was.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a forecast estimates, and never books"
)]

use super::{
    Model, Question, SHORT, Score,
    calendar::Step,
    design::{Design, Regression, Term},
    theta::theta,
};

/// Most origins of a backtest.
const ORIGINS_MAX: usize = 24;
/// Fewest errors that limits are made of when it is counted how often they held.
const ERRORS_MIN: usize = 4;
/// A shift is beyond doubt when it is so many times what is usually unexplained.
const FAR: f64 = 5.0;
/// Steps after a shift that nobody could have told from a passing one.
const UNSEEN: usize = 3;
/// The probabilities of the limits that are shown.
pub(super) const LIKELY: f64 = 0.8;
pub(super) const NEARLY_SURE: f64 = 0.95;

/// A question, made ready for many origins.
pub(super) struct Past<'a> {
    pub(super) question: &'a Question,
    pub(super) season: usize,
    /// What drivers with a given coefficient bring, over past and future.
    pub(super) known: &'a [f64],
    pub(super) design: Design<'a>,
    /// The days of each step, where they differ.
    days: Vec<f64>,
    /// Nothing was ever below zero.
    pub(super) positive: bool,
}

impl<'a> Past<'a> {
    /// `rest` is the history less what is known.
    pub(super) fn new(
        question: &'a Question,
        season: usize,
        known: &'a [f64],
        rest: &'a [f64],
    ) -> Self {
        let free = question.drivers.iter().filter(|driver| driver.coefficient.is_none());
        let free = free.map(|driver| driver.values.as_slice()).collect();
        let (calendar, horizon) = (question.calendar, question.horizon);
        let steps = question.history.len() + horizon;
        let days = match calendar {
            Some(calendar) if calendar.step == Step::Month => {
                (0..steps).map(|at| f64::from(calendar.days(at))).collect()
            }
            _ => Vec::new(),
        };
        let design = Design::new(rest, season, free, &question.shifts, calendar, horizon);
        let positive = question.history.iter().chain(known).all(|value| *value >= 0.0);
        Self { question, season, known, design, days, positive }
    }

    /// The models that this much history allows.
    pub(super) fn candidates(&self) -> Vec<Model> {
        let length = self.question.history.len();
        let mut models = vec![Model::Naive];
        if self.season > 1 && length >= self.season + SHORT {
            models.push(Model::SeasonalNaive);
        }
        if length >= SHORT {
            models.push(Model::Theta);
            if !self.days.is_empty() {
                models.push(Model::ThetaPerDay);
            }
        }
        if length >= SHORT + 2 * self.question.drivers.len() + 2 {
            models.push(Model::Regression);
        }
        models
    }

    /// What a model says at an origin, knowing what was before it.
    pub(super) fn ask(&self, model: Model, origin: usize, steps: usize) -> Option<Vec<f64>> {
        let history = &self.question.history[..origin];
        let future = origin..origin + steps;
        let mut values: Vec<f64> = match model {
            // Nobody told the naive ones of drivers.
            Model::Naive => vec![*history.last()?; steps],
            Model::SeasonalNaive => {
                let season = self.season;
                let from = origin.checked_sub(season)?;
                (0..steps).map(|step| history[from + step % season]).collect()
            }
            Model::Theta | Model::ThetaPerDay => {
                let level = self.levelled(origin);
                let days = |at: usize| match model {
                    Model::ThetaPerDay => self.days.get(at).copied().unwrap_or(1.0),
                    _ => 1.0,
                };
                let plain: Vec<f64> =
                    level.iter().enumerate().map(|(at, value)| value / days(at)).collect();
                let values = theta(&plain, self.season, steps);
                let with = values.into_iter().zip(future);
                with.map(|(value, at)| value * days(at) + self.known[at]).collect()
            }
            Model::Regression => {
                let regression = Regression::of(&self.design, origin)?;
                future.map(|at| regression.at(&self.design, at) + self.known[at]).collect()
            }
        };
        self.bound(&mut values);
        Some(values)
    }

    /// The same of the whole history, and by the regression with every digit.
    pub(super) fn ask_now(
        &self,
        model: Model,
        regression: Option<&Regression>,
    ) -> Option<Vec<f64>> {
        let (n, horizon) = (self.question.history.len(), self.question.horizon);
        let (Model::Regression, Some(regression)) = (model, regression) else {
            return self.ask(model, n, horizon);
        };
        let future = n..n + horizon;
        let mut values =
            future.map(|at| regression.at(&self.design, at) + self.known[at]).collect::<Vec<_>>();
        self.bound(&mut values);
        Some(values)
    }

    /// The steps from which the regression of the whole history has a level that is far from the
    /// one before, by what it leaves unexplained.
    pub(super) fn shifts(&self) -> Vec<usize> {
        let values = self.design.values;
        let Some(regression) = Regression::of(&self.design, values.len()) else {
            return Vec::new();
        };
        let rest = |(at, value): (usize, &f64)| (value - regression.at(&self.design, at)).powi(2);
        let squares: f64 = values.iter().enumerate().map(rest).sum();
        let usual = (squares / values.len() as f64).sqrt();
        let far = |(term, size): (&Term, &f64)| match term {
            Term::Shift(from) if size.abs() > FAR * usual => Some(*from),
            _ => None,
        };
        regression.terms.iter().zip(&regression.coefficients).filter_map(far).collect()
    }

    /// A cost that was never negative is not expected to become so.
    fn bound(&self, values: &mut [f64]) {
        if self.positive {
            for value in values {
                *value = value.max(0.0);
            }
        }
    }

    /// The values before an origin, all on the level that they have after the last declared shift.
    fn levelled(&self, origin: usize) -> Vec<f64> {
        let mut values = self.design.values[..origin].to_vec();
        let declared = &self.question.shifts;
        if !declared.iter().any(|from| (1..origin).contains(from)) {
            return values;
        }
        if let Some(regression) = Regression::of(&self.design, origin) {
            for from in declared {
                let size = regression.coefficient(Term::Shift(*from));
                for value in values.iter_mut().take(*from) {
                    *value += size;
                }
            }
        }
        values
    }
}

/// A model's errors on the past.
pub(super) struct Trial {
    pub(super) score: Score,
    /// As its WAPE, without the errors of forecasts across a shift that was found later: no model
    /// could know of it, and it says little of which is the better one.
    pub(super) calm: f64,
    /// For each step, the sizes of the errors over the scale at their origin, smallest first.
    errors: Vec<Vec<f64>>,
}

/// One error: its origin, its size over the scale there.
type Missed = (usize, f64);

impl Trial {
    /// None when it could not be tried once.
    ///
    /// Nothing is held against a model across a declared shift: people knew what it could not.
    /// `found` are the shifts that a regression finds.
    pub(super) fn of(model: Model, past: &Past<'_>, found: &[usize]) -> Option<Self> {
        let (history, season) = (&past.question.history, past.season);
        let (n, horizon) = (history.len(), past.question.horizon);
        // Two seasons are seen first, or so much that four origins are left.
        let least = (2 * season).min(n.saturating_sub((n / 3).max(4))).max(n / 3);
        let least = least.max(SHORT.min(n.saturating_sub(1))).max(1);
        let origins: Vec<usize> = (least..n).collect();
        let stride = origins.len().div_ceil(ORIGINS_MAX).max(1);
        let mut missed: Vec<Vec<Missed>> = vec![Vec::new(); horizon];
        let (mut wrong, mut over, mut sum, mut count, mut tried) = (0.0, 0.0, 0.0, 0_usize, 0);
        let (mut calm, mut calm_sum) = (0.0, 0.0);
        let declared = &past.question.shifts;
        // From the end, so that the newest origin is always tried.
        for &origin in origins.iter().rev().step_by(stride) {
            let steps = horizon.min(n - origin);
            let Some(values) = past.ask(model, origin, steps) else { continue };
            let size = scale(&history[..origin], season);
            tried += 1;
            for (step, value) in values.into_iter().enumerate() {
                let right = history[origin + step];
                let across = |shifts: &[usize]| {
                    let target = origin + step;
                    shifts.iter().any(|from| *from <= target && origin < from + UNSEEN)
                };
                if across(declared) {
                    continue;
                }
                if !across(found) {
                    calm += (value - right).abs();
                    calm_sum += right.abs();
                }
                missed[step].push((origin, (value - right).abs() / size));
                wrong += (value - right).abs();
                over += value - right;
                sum += right.abs();
                count += 1;
            }
        }
        if count == 0 {
            return None;
        }
        let coverage = coverage(&missed);
        let mut errors: Vec<Vec<f64>> =
            missed.iter().map(|one| one.iter().map(|(_, size)| *size).collect()).collect();
        for one in &mut errors {
            one.sort_by(f64::total_cmp);
        }
        let lag = if n > season { season } else { 1 };
        let moved: Vec<f64> =
            history.windows(lag + 1).map(|window| (window[lag] - window[0]).abs()).collect();
        let usual = moved.iter().sum::<f64>() / moved.len().max(1) as f64;
        let mean = wrong / count as f64;
        let mase = if usual > 0.0 { mean / usual } else { f64::from(u8::from(mean > 0.0)) };
        let share = |of: f64| if sum > 0.0 { of / sum } else { of / count as f64 };
        let (wape, bias) = (share(wrong), share(over));
        let calm = if calm_sum > 0.0 { calm / calm_sum } else { wape };
        Some(Self {
            calm,
            score: Score { model, wape, mase, bias, origins: tried, coverage },
            errors,
        })
    }

    /// How far from its value a step lies with this probability, over the scale: the quantile of
    /// the errors at this distance and its neighbours (split conformal, with the place of the new
    /// one counted in).
    pub(super) fn reach(&self, step: usize, probability: f64) -> f64 {
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
            largest * beyond(place, errors.len())
        } else {
            errors[(place.ceil() as usize).max(1) - 1]
        };
        size * grown
    }
}

/// Fewer errors than the probability asks for: the largest is not large enough.
fn beyond(place: f64, errors: usize) -> f64 {
    1.0 + (place - errors as f64)
}

/// How often limits held that were made of the errors known at each origin, 80 and 95 percent; none
/// when too few errors were ever known.
fn coverage(missed: &[Vec<Missed>]) -> Option<(f64, f64)> {
    let (mut likely, mut sure, mut counted) = (0_u32, 0_u32, 0_u32);
    for (step, all) in missed.iter().enumerate() {
        let near = step.saturating_sub(1)..=(step + 1).min(missed.len() - 1);
        for &(origin, size) in all {
            let (mut known, mut smaller, mut largest) = (0_usize, 0_usize, 0.0_f64);
            for distance in near.clone() {
                for &(before, error) in &missed[distance] {
                    if before + distance < origin {
                        known += 1;
                        smaller += usize::from(error < size);
                        largest = largest.max(error);
                    }
                }
            }
            if known < ERRORS_MIN {
                continue;
            }
            let holds = |probability: f64| {
                let place = probability * (known + 1) as f64;
                if place.ceil() as usize > known {
                    size <= largest * beyond(place, known)
                } else {
                    smaller < (place.ceil() as usize).max(1)
                }
            };
            counted += 1;
            likely += u32::from(holds(LIKELY));
            sure += u32::from(holds(NEARLY_SURE));
        }
    }
    let share = |held: u32| f64::from(held) / f64::from(counted);
    (counted > 0).then(|| (share(likely), share(sure)))
}

/// What errors are compared with: the mean size over the last season.
pub(super) fn scale(history: &[f64], season: usize) -> f64 {
    let last = &history[history.len().saturating_sub(season.max(SHORT))..];
    let mean = last.iter().map(|value| value.abs()).sum::<f64>() / last.len() as f64;
    if mean > 0.0 { mean } else { 1.0 }
}
