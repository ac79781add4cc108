//! Least squares that keep their digits, with prediction limits.
//!
//! Householder QR of the columns scaled by powers of two, then steps of refinement of the augmented
//! system with residuals of twice the digits (Björck, "Iterative refinement of linear least squares
//! solutions", 1967). Normal equations would lose half of the digits, and all of them on the
//! certified sets this is tested with (NIST StRD).
//!
//! Floats are right here: this estimates, and never books.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::many_single_char_names,
    reason = "numerics, in the letters of the literature"
)]

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Steps of refinement: the second gains nothing on the certified sets.
const STEPS: usize = 1;

/// A fitted model.
#[derive(Clone, Debug)]
pub struct Fit {
    /// One for each column.
    pub coefficients: Vec<f64>,
    /// The standard error of each; not a number without degrees of freedom.
    pub standard_errors: Vec<f64>,
    /// Observed less fitted.
    pub residuals: Vec<f64>,
    /// The residuals' standard deviation over the degrees of freedom.
    pub deviation: f64,
    /// Rows less columns.
    pub degrees: usize,
    /// R of the scaled columns, upper triangle by rows.
    triangle: Vec<f64>,
    scales: Vec<f64>,
}

/// A point that was predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// The expected value.
    pub value: f64,
    /// How far the point lies from what was observed: x₀ᵀ(XᵀX)⁻¹x₀.
    pub leverage: f64,
    /// Standard error of one observation there.
    pub standard_error: f64,
    /// Where an observation lies with the probability that was asked for.
    pub low: f64,
    /// See [`Self::low`].
    pub high: f64,
}

/// Why there is no fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FitFault {
    /// Fewer rows than columns, or none of either.
    #[error("{rows} observations do not determine {columns} coefficients")]
    TooFew {
        /// Observations.
        rows: usize,
        /// Coefficients.
        columns: usize,
    },
    /// Columns that depend on each other: `ridge` takes them.
    #[error("column {0} depends on the ones before it")]
    Dependent(usize),
    /// A value that is not finite.
    #[error("an observation is not a finite number")]
    NotFinite,
}

/// A column whose rest after the ones before it is below this part of it is taken as dependent:
/// what rounding leaves of one that is.
const DEPENDENT: f64 = 64.0 * f64::EPSILON;

/// Fits `y` by columns, given as rows of equal length.
///
/// # Errors
/// See [`FitFault`].
pub fn fit(rows: &[Vec<f64>], y: &[f64]) -> Result<Fit, FitFault> {
    Fit::of(rows, y, 0.0)
}

/// The same with a penalty on the squares of the coefficients of scaled columns but the first, which
/// is taken as the constant: it has an answer also when columns depend on each other.
///
/// # Errors
/// See [`FitFault`].
pub fn ridge(rows: &[Vec<f64>], y: &[f64], penalty: f64) -> Result<Fit, FitFault> {
    Fit::of(rows, y, penalty.max(f64::MIN_POSITIVE))
}

impl Fit {
    fn of(rows: &[Vec<f64>], y: &[f64], penalty: f64) -> Result<Self, FitFault> {
        let (n, p) = (rows.len(), rows.first().map_or(0, Vec::len));
        let few = FitFault::TooFew { rows: n, columns: p };
        if p == 0 || rows.iter().any(|row| row.len() != p) || y.len() != n {
            return Err(few);
        }
        if penalty == 0.0 && n < p {
            return Err(few);
        }
        if rows.iter().flatten().chain(y).any(|value| !value.is_finite()) {
            return Err(FitFault::NotFinite);
        }
        let scales: Vec<f64> = (0..p)
            .map(|column| {
                power_of_two(rows.iter().map(|row| row[column].abs()).fold(0.0, f64::max))
            })
            .collect();
        // By columns.
        let mut x: Vec<Vec<f64>> = (0..p)
            .map(|column| rows.iter().map(|row| row[column] / scales[column]).collect())
            .collect();
        let mut observed = y.to_vec();
        if penalty > 0.0 {
            // A row for each penalised column: the same system, with more observations.
            let weight = penalty.sqrt() * (n as f64).sqrt();
            for (place, column) in x.iter_mut().enumerate() {
                column.extend((1..p).map(|row| if row == place { weight } else { 0.0 }));
            }
            observed.extend(std::iter::repeat_n(0.0, p - 1));
        }
        let qr = Qr::of(&x)?;
        let mut solution = vec![0.0; p];
        let mut residuals = vec![0.0; observed.len()];
        for _ in 0..=STEPS {
            refine(&x, &observed, &qr, &mut solution, &mut residuals);
        }
        residuals.truncate(n);
        let degrees = n.saturating_sub(p);
        let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
        let deviation = (squares / degrees as f64).sqrt();
        let inverse = qr.inverse();
        let standard_errors = (0..p)
            .map(|row| {
                let squares: f64 = (row..p).map(|at| inverse[row * p + at].powi(2)).sum();
                deviation * squares.sqrt() / scales[row]
            })
            .collect();
        let coefficients = solution.iter().zip(&scales).map(|(one, scale)| one / scale).collect();
        Ok(Self {
            coefficients,
            standard_errors,
            residuals,
            deviation,
            degrees,
            triangle: qr.triangle,
            scales,
        })
    }

    /// The expected value at a point, and the limits between which an observation lies with this
    /// probability.
    pub fn predict(&self, point: &[f64], probability: f64) -> Predicted {
        let value = dot2(point, &self.coefficients);
        let leverage = self.leverage(point);
        let standard_error = self.deviation * (1.0 + leverage).sqrt();
        let reach = student_quantile(0.5 + probability / 2.0, self.degrees) * standard_error;
        Predicted { value, leverage, standard_error, low: value - reach, high: value + reach }
    }

    /// x₀ᵀ(XᵀX)⁻¹x₀ = |R⁻ᵀx₀|².
    pub fn leverage(&self, point: &[f64]) -> f64 {
        let p = self.scales.len();
        let mut z: Vec<f64> =
            point.iter().zip(&self.scales).map(|(one, scale)| one / scale).collect();
        solve_transposed(&self.triangle, p, &mut z);
        z.iter().map(|one| one * one).sum()
    }
}

/// The quantile of Student's t; not a number without degrees of freedom.
pub fn student_quantile(probability: f64, degrees: usize) -> f64 {
    let Ok(student) = StudentsT::new(0.0, 1.0, degrees as f64) else { return f64::NAN };
    // The library's own inverse stops early; Newton's steps on its density bring the last digits.
    let mut quantile = student.inverse_cdf(probability);
    for _ in 0..3 {
        let density = statrs::distribution::Continuous::pdf(&student, quantile);
        let step = (student.cdf(quantile) - probability) / density;
        if !step.is_finite() {
            break;
        }
        quantile -= step;
    }
    quantile
}

/// A power of two near this size, so that dividing by it rounds nothing.
fn power_of_two(size: f64) -> f64 {
    if size > 0.0 { size.log2().floor().exp2() } else { 1.0 }
}

/// Reflections, and what they leave of the columns.
struct Qr {
    /// The reflections' vectors, by columns, from the diagonal on.
    vectors: Vec<Vec<f64>>,
    /// R, upper triangle by rows.
    triangle: Vec<f64>,
}

impl Qr {
    fn of(columns: &[Vec<f64>]) -> Result<Self, FitFault> {
        let p = columns.len();
        let mut work = columns.to_vec();
        let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(p);
        let mut triangle = vec![0.0; p * p];
        for k in 0..p {
            let (before, whole) = (norm(&work[k][k..]), norm(&columns[k]));
            if before <= DEPENDENT * whole || before == 0.0 {
                return Err(FitFault::Dependent(k));
            }
            let alpha = if work[k][k] > 0.0 { -before } else { before };
            let mut v = work[k][k..].to_vec();
            v[0] -= alpha;
            let squares: f64 = v.iter().map(|one| one * one).sum();
            let factor = (2.0 / squares).sqrt();
            for one in &mut v {
                *one *= factor;
            }
            for column in &mut work[k..] {
                reflect(&v, &mut column[k..]);
            }
            for (at, column) in work.iter().enumerate().skip(k) {
                triangle[k * p + at] = column[k];
            }
            triangle[k * p + k] = alpha;
            vectors.push(v);
        }
        Ok(Self { vectors, triangle })
    }

    /// y becomes Qᵀy.
    fn transposed(&self, y: &mut [f64]) {
        for (k, v) in self.vectors.iter().enumerate() {
            reflect(v, &mut y[k..]);
        }
    }

    /// y becomes Qy.
    fn apply(&self, y: &mut [f64]) {
        for (k, v) in self.vectors.iter().enumerate().rev() {
            reflect(v, &mut y[k..]);
        }
    }

    /// R⁻¹, upper triangle by rows.
    fn inverse(&self) -> Vec<f64> {
        let p = self.vectors.len();
        let mut inverse = vec![0.0; p * p];
        for column in 0..p {
            let mut unit = vec![0.0; p];
            unit[column] = 1.0;
            solve(&self.triangle, p, &mut unit);
            for row in 0..=column {
                inverse[row * p + column] = unit[row];
            }
        }
        inverse
    }
}

/// y less v(vᵀy).
fn reflect(v: &[f64], y: &mut [f64]) {
    let product: f64 = v.iter().zip(&*y).map(|(a, b)| a * b).sum();
    for (one, v) in y.iter_mut().zip(v) {
        *one -= product * v;
    }
}

/// Solves Rx = b in place.
fn solve(triangle: &[f64], p: usize, b: &mut [f64]) {
    for row in (0..p).rev() {
        let sum: f64 = (row + 1..p).map(|at| triangle[row * p + at] * b[at]).sum();
        b[row] = (b[row] - sum) / triangle[row * p + row];
    }
}

/// Solves Rᵀx = b in place.
fn solve_transposed(triangle: &[f64], p: usize, b: &mut [f64]) {
    for row in 0..p {
        let sum: f64 = (0..row).map(|at| triangle[at * p + row] * b[at]).sum();
        b[row] = (b[row] - sum) / triangle[row * p + row];
    }
}

/// One step: what is missing in r + Xβ = y and Xᵀr = 0, computed with twice the digits, is solved
/// for and added. From zero, the first step is the plain solution.
fn refine(x: &[Vec<f64>], y: &[f64], qr: &Qr, solution: &mut [f64], residuals: &mut [f64]) {
    let p = x.len();
    let mut f: Vec<f64> = (0..y.len())
        .map(|row| {
            let mut sum = Double::from(y[row]);
            sum.add(-residuals[row]);
            for (column, one) in x.iter().zip(&*solution) {
                sum.add_product(-column[row], *one);
            }
            sum.value()
        })
        .collect();
    let mut h: Vec<f64> = x.iter().map(|column| -dot2(column, residuals)).collect();
    solve_transposed(&qr.triangle, p, &mut h);
    qr.transposed(&mut f);
    let mut change: Vec<f64> = f.iter().zip(&h).map(|(f, h)| f - h).collect();
    solve(&qr.triangle, p, &mut change);
    f[..p].copy_from_slice(&h);
    qr.apply(&mut f);
    for (one, change) in solution.iter_mut().zip(&change) {
        *one += change;
    }
    for (one, change) in residuals.iter_mut().zip(&f) {
        *one += change;
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|one| one * one).sum::<f64>().sqrt()
}

/// A sum with twice the digits (Dekker 1971; Ogita, Rump, Oishi 2005).
#[derive(Clone, Copy)]
struct Double {
    high: f64,
    low: f64,
}

impl Double {
    fn from(value: f64) -> Self {
        Self { high: value, low: 0.0 }
    }

    fn add(&mut self, value: f64) {
        let sum = self.high + value;
        let part = sum - self.high;
        self.low += (self.high - (sum - part)) + (value - part);
        self.high = sum;
    }

    fn add_product(&mut self, a: f64, b: f64) {
        let product = a * b;
        self.low += a.mul_add(b, -product);
        self.add(product);
    }

    fn value(self) -> f64 {
        self.high + self.low
    }
}

fn dot2(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = Double::from(0.0);
    for (a, b) in a.iter().zip(b) {
        sum.add_product(*a, *b);
    }
    sum.value()
}
