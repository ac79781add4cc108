//! The theta method, and the season it takes out.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a forecast estimates, and never books"
)]

/// The theta method; a season only where the history shows one.
pub(super) fn theta(history: &[f64], season: usize, horizon: usize) -> Vec<f64> {
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
