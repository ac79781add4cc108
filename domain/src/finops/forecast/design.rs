//! The regression: which columns a history can carry, and what they come to.
//!
//! A column is kept when the values can tell it from the others: at most one for three values.
//! Drivers and declared shifts come first, then the trend, then the season; what the calendar says
//! and levels that shifted are added when they explain much more than chance would (an F test). What
//! is tried on the past is fitted by orthogonal columns, each made orthogonal twice; what is shown is
//! fitted again by [`regression::fit`], which keeps every digit.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a forecast estimates, and never books"
)]

use super::calendar::{Calendar, Step};
use crate::finops::regression::{fit, ridge};

/// A column whose rest after the others is below this part of it cannot be told from them.
const COLLINEAR: f64 = 1e-3;
/// The penalty where drivers cannot be told from each other.
const PENALTY_COLLINEAR: f64 = 1e-6;
/// The penalty where there are more columns than a third of the values.
const PENALTY_CROWDED: f64 = 1e-2;
/// F of a column of the calendar: about one of twenty would reach it by chance.
const F_CALENDAR: f64 = 4.0;
/// F of the best of all places for a shift: chance reaches it in about one of a hundred series.
const F_SHIFT: f64 = 20.0;
/// Most shifts that are found.
const SHIFTS_MAX: usize = 2;
/// Most pairs of waves of a season.
const WAVES_MAX: usize = 3;

/// What a column stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    Constant,
    Trend,
    /// A wave's sine and cosine, by its place in [`Design::waves`].
    Wave(usize),
    Days,
    WorkingDays,
    MonthBegin,
    /// One from this step on.
    Shift(usize),
    /// By its place among the drivers that are estimated.
    Driver(usize),
}

/// Everything columns are made of, over past and future.
pub(super) struct Design<'a> {
    /// What is explained: as long as the past.
    pub(super) values: &'a [f64],
    pub(super) season: usize,
    /// Drivers whose coefficient is estimated.
    drivers: Vec<&'a [f64]>,
    /// Shifts that were declared.
    shifts: &'a [usize],
    /// Sine and cosine of each pair, over one season.
    waves: Vec<Vec<f64>>,
    calendar: Vec<(Term, Vec<f64>)>,
}

impl<'a> Design<'a> {
    pub(super) fn new(
        values: &'a [f64],
        season: usize,
        drivers: Vec<&'a [f64]>,
        shifts: &'a [usize],
        calendar: Option<Calendar>,
        horizon: usize,
    ) -> Self {
        let pairs = if season > 2 { WAVES_MAX.min((season - 1) / 2) } else { 0 };
        let waves = (0..2 * pairs)
            .map(|place| {
                let turn = |at: usize| {
                    let times = (place / 2 + 1) * at % season;
                    let angle = std::f64::consts::TAU * times as f64 / season as f64;
                    if place % 2 == 0 { angle.sin() } else { angle.cos() }
                };
                (0..season).map(turn).collect()
            })
            .collect();
        let steps = values.len() + horizon;
        let column = |term, value: &dyn Fn(usize) -> f64| (term, (0..steps).map(value).collect());
        let calendar = match calendar {
            None => Vec::new(),
            Some(calendar) => match calendar.step {
                Step::Month => vec![
                    column(Term::Days, &|at| f64::from(calendar.days(at))),
                    column(Term::WorkingDays, &|at| f64::from(calendar.working_days(at))),
                ],
                Step::Day => vec![column(Term::MonthBegin, &|at| {
                    f64::from(u8::from(calendar.begins_month(at)))
                })],
            },
        };
        Self { values, season, drivers, shifts, waves, calendar }
    }

    fn value(&self, term: Term, at: usize) -> f64 {
        match term {
            Term::Constant => 1.0,
            Term::Trend => at as f64 / self.values.len() as f64,
            Term::Wave(place) => self.waves[place][at % self.season],
            Term::Shift(from) => f64::from(u8::from(at >= from)),
            Term::Driver(place) => self.drivers[place][at],
            Term::Days | Term::WorkingDays | Term::MonthBegin => self
                .calendar
                .iter()
                .find(|(own, _)| *own == term)
                .map_or(0.0, |(_, values)| values[at]),
        }
    }

    fn column(&self, term: Term, origin: usize) -> Vec<f64> {
        (0..origin).map(|at| self.value(term, at)).collect()
    }
}

/// Orthogonal columns, and what they leave of the values.
struct Basis {
    terms: Vec<Term>,
    columns: Vec<Vec<f64>>,
    /// R, by columns.
    upper: Vec<Vec<f64>>,
    products: Vec<f64>,
    rest: Vec<f64>,
}

/// What became of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pushed {
    Taken,
    /// It is the same everywhere: it says nothing.
    Constant,
    /// It cannot be told from the others.
    Collinear,
}

impl Basis {
    /// Of values, with the constant taken out.
    fn of(values: &[f64]) -> Self {
        let none = || Vec::with_capacity(8);
        let mut basis = Self {
            terms: Vec::with_capacity(8),
            columns: Vec::with_capacity(8),
            upper: Vec::with_capacity(8),
            products: none(),
            rest: values.to_vec(),
        };
        let size = (values.len() as f64).sqrt();
        basis.take(Term::Constant, vec![1.0 / size; values.len()], vec![size]);
        basis
    }

    fn take(&mut self, term: Term, column: Vec<f64>, upper: Vec<f64>) {
        let product = dot(&column, &self.rest);
        subtract(&mut self.rest, product, &column);
        self.terms.push(term);
        self.products.push(product);
        self.columns.push(column);
        self.upper.push(upper);
    }

    fn push(&mut self, term: Term, mut column: Vec<f64>) -> Pushed {
        let size = dot(&column, &column).sqrt();
        let mut upper = vec![0.0; self.columns.len()];
        let mut whole = 0.0;
        for pass in 0..2 {
            for (place, one) in self.columns.iter().enumerate() {
                let product = dot(one, &column);
                upper[place] += product;
                subtract(&mut column, product, one);
                if (pass, place) == (0, 0) {
                    whole = dot(&column, &column).sqrt();
                    if whole <= 1e-12 * size {
                        return Pushed::Constant;
                    }
                }
            }
        }
        let rest = dot(&column, &column).sqrt();
        if rest <= COLLINEAR * whole {
            return Pushed::Collinear;
        }
        for one in &mut column {
            *one /= rest;
        }
        upper.push(rest);
        self.take(term, column, upper);
        Pushed::Taken
    }

    /// How much of the rest's squares a column that is to be orthogonal to all others would explain.
    fn f(&self, squares: f64, gain: f64) -> f64 {
        let degrees = self.rest.len() as f64 - self.columns.len() as f64 - 1.0;
        let left = squares - gain;
        if degrees < 2.0 || gain <= 0.0 {
            return 0.0;
        }
        if left <= 1e-12 * squares { f64::INFINITY } else { gain * degrees / left }
    }

    /// Takes a column when it explains much.
    fn push_if(&mut self, term: Term, column: Vec<f64>, least: f64) {
        let squares = dot(&self.rest, &self.rest);
        let mut alone = column.clone();
        let whole = dot(&alone, &alone);
        for one in &self.columns {
            let product = dot(one, &alone);
            subtract(&mut alone, product, one);
        }
        let left = dot(&alone, &alone);
        if left <= COLLINEAR * COLLINEAR * whole || squares <= 0.0 {
            return;
        }
        let gain = dot(&alone, &self.rest).powi(2) / left;
        if self.f(squares, gain) > least {
            self.push(term, column);
        }
    }

    /// The step from which another level explains most of what is left, if it explains much.
    fn shift(&self) -> Option<usize> {
        let n = self.rest.len();
        let edge = (n / 24).clamp(3, 14);
        let squares = dot(&self.rest, &self.rest);
        let mut sums = vec![0.0; self.columns.len()];
        let (mut ahead, mut best) = (0.0, (0.0, 0));
        for from in (edge..n).rev() {
            ahead += self.rest[from];
            let mut left = (n - from) as f64;
            for (sum, column) in sums.iter_mut().zip(&self.columns) {
                *sum += column[from];
                left -= *sum * *sum;
            }
            if n - from >= edge && left > 1e-6 * (n - from) as f64 {
                let gain: f64 = ahead * ahead / left;
                if gain > best.0 {
                    best = (gain, from);
                }
            }
        }
        (squares > 0.0 && self.f(squares, best.0) > F_SHIFT).then_some(best.1)
    }

    fn coefficients(&self) -> Vec<f64> {
        let p = self.columns.len();
        let mut out = self.products.clone();
        for row in (0..p).rev() {
            let sum: f64 = (row + 1..p).map(|at| self.upper[at][row] * out[at]).sum();
            out[row] = (out[row] - sum) / self.upper[row][row];
        }
        out
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn subtract(from: &mut [f64], times: f64, what: &[f64]) {
    for (one, what) in from.iter_mut().zip(what) {
        *one -= times * what;
    }
}

/// A fitted regression.
pub(super) struct Regression {
    pub(super) terms: Vec<Term>,
    pub(super) coefficients: Vec<f64>,
}

impl Regression {
    /// Of the values before an origin; none when there are too few of them.
    pub(super) fn of(design: &Design, origin: usize) -> Option<Self> {
        Self::choose(design, origin).map(|(this, _)| this)
    }

    /// The same of all values, with every digit.
    pub(super) fn exact(design: &Design) -> Option<Self> {
        let n = design.values.len();
        let (this, plain) = Self::choose(design, n)?;
        if !plain {
            return Some(this);
        }
        let row = |at| this.terms.iter().map(|term| design.value(*term, at)).collect();
        let rows: Vec<Vec<f64>> = (0..n).map(row).collect();
        match fit(&rows, design.values) {
            Ok(fitted) => Some(Self { coefficients: fitted.coefficients, ..this }),
            Err(_) => Some(this),
        }
    }

    /// Also whether it is one without a penalty.
    fn choose(design: &Design, origin: usize) -> Option<(Self, bool)> {
        let most = (origin / 3).max(1);
        let shifts = design.shifts.iter().copied().filter(|from| (1..origin).contains(from));
        let wanted: Vec<Term> =
            (0..design.drivers.len()).map(Term::Driver).chain(shifts.map(Term::Shift)).collect();
        if origin < 2 + design.drivers.len() {
            return None;
        }
        let values = &design.values[..origin];
        let mut basis = Basis::of(values);
        let mut collinear = false;
        for term in &wanted {
            collinear |= basis.push(*term, design.column(*term, origin)) == Pushed::Collinear;
        }
        if collinear || basis.columns.len() > most {
            let penalty = if collinear { PENALTY_COLLINEAR } else { PENALTY_CROWDED };
            return Some((Self::ridged(design, &wanted, origin, penalty)?, false));
        }
        let room = |basis: &Basis| most.saturating_sub(basis.columns.len());
        if room(&basis) > 0 {
            basis.push(Term::Trend, design.column(Term::Trend, origin));
        }
        if origin >= 2 * design.season {
            for pair in 0..design.waves.len() / 2 {
                if room(&basis) < 2 {
                    break;
                }
                for term in [2 * pair, 2 * pair + 1].map(Term::Wave) {
                    basis.push(term, design.column(term, origin));
                }
            }
        }
        for (term, values) in &design.calendar {
            if room(&basis) > 0 {
                basis.push_if(*term, values[..origin].to_vec(), F_CALENDAR);
            }
        }
        for _ in 0..SHIFTS_MAX {
            if room(&basis) == 0 {
                break;
            }
            let Some(from) = basis.shift() else { break };
            let term = Term::Shift(from);
            if basis.push(term, design.column(term, origin)) != Pushed::Taken {
                break;
            }
        }
        let coefficients = basis.coefficients();
        Some((Self { terms: basis.terms, coefficients }, true))
    }

    /// Columns of mean zero and size one, with a penalty on each: an answer also where they cannot
    /// be told from each other.
    fn ridged(design: &Design, wanted: &[Term], origin: usize, penalty: f64) -> Option<Self> {
        let n = origin as f64;
        let mut columns = Vec::with_capacity(wanted.len());
        for term in wanted {
            let mut column = design.column(*term, origin);
            let mean = column.iter().sum::<f64>() / n;
            for one in &mut column {
                *one -= mean;
            }
            let size = (dot(&column, &column) / n).sqrt();
            if size > 1e-12 * mean.abs() && size > 0.0 {
                for one in &mut column {
                    *one /= size;
                }
                columns.push((*term, mean, size, column));
            }
        }
        let row = |at: usize| {
            std::iter::once(1.0).chain(columns.iter().map(|(.., column)| column[at])).collect()
        };
        let rows: Vec<Vec<f64>> = (0..origin).map(row).collect();
        let fitted = ridge(&rows, &design.values[..origin], penalty).ok()?;
        let mut this = Self { terms: vec![Term::Constant], coefficients: fitted.coefficients };
        for (place, (term, mean, size, _)) in columns.iter().enumerate() {
            this.terms.push(*term);
            this.coefficients[place + 1] /= size;
            this.coefficients[0] -= this.coefficients[place + 1] * mean;
        }
        Some(this)
    }

    /// What it says of a step.
    pub(super) fn at(&self, design: &Design, at: usize) -> f64 {
        let pairs = self.terms.iter().zip(&self.coefficients);
        pairs.map(|(term, coefficient)| coefficient * design.value(*term, at)).sum()
    }

    /// The coefficient of a term; zero when it was left out.
    pub(super) fn coefficient(&self, term: Term) -> f64 {
        let place = self.terms.iter().position(|own| *own == term);
        place.map_or(0.0, |place| self.coefficients[place])
    }
}
