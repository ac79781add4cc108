//! Which days of a cost are not as they should be: above a limit that people set, or outside of what
//! the days before them lead to expect.
//!
//! Every finding states what it was measured against. A day is judged by the days before it alone,
//! so that days which come later change nothing of it; the same series and detector give the same
//! findings. Only too much is found: a day that is too low is told by the bill that is missing.
//!
//! The statistical detector works on the logarithm of the daily cost. It takes the weekday's usual
//! deviation off (a median), expects the median of the last clean days, and measures by their
//! median absolute deviation. Days outside of the range are not clean and do not count for those
//! after them, unless they stay: the fifth day of a new level is judged by the new level.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "what is usual is estimated; what a day cost is exact"
)]

use std::{collections::VecDeque, fmt, str::FromStr};

use chrono::{Datelike, Days, NaiveDate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::amount::{Amount, BillingMonth, SCALE};

/// Clean days whose median is expected.
const CENTRE_DAYS: usize = 21;
/// Fewest clean days for a range.
const CLEAN_DAYS_MIN: usize = 14;
/// Days of each weekday whose median deviation is the weekday's.
const PROFILE_WEEKS: usize = 8;
/// Fewest days of a weekday that have one.
const PROFILE_WEEKS_MIN: usize = 2;
/// Days outside, on one side and one after the other, that make a new level.
const NEW_LEVEL_DAYS: usize = 4;
/// The least the deviation is taken for: two percent.
const SCALE_FLOOR: f64 = 0.02;
/// Makes a median absolute deviation that of a normal distribution.
const NORMAL: f64 = 1.4826;
/// A cent, below which a day's cost is nothing.
const CENT: f64 = 0.01;

/// What something cost, day by day without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The first day.
    pub first: NaiveDate,
    /// From it on.
    pub amounts: Vec<Amount>,
}

impl Series {
    fn day(&self, at: usize) -> NaiveDate {
        self.first.checked_add_days(Days::new(at as u64)).unwrap_or(NaiveDate::MAX)
    }
}

/// How readily the statistical detector speaks up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sensitivity {
    /// Six and a half deviations and 50 %: what should wake somebody.
    Low,
    /// Five deviations and 30 %.
    #[default]
    Medium,
    /// Four deviations and 20 %: misses least, and is wrong most often.
    High,
}

impl Sensitivity {
    /// Deviations, and the part of what is expected, that a day must be beyond.
    fn gates(self) -> (f64, f64) {
        match self {
            Self::Low => (6.5, 0.5),
            Self::Medium => (5.0, 0.3),
            Self::High => (4.0, 0.2),
        }
    }
}

/// What a day or a month is measured against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Detector {
    /// A day costs more than this.
    Daily {
        /// A decimal.
        #[schemars(with = "String")]
        amount: Amount,
    },
    /// A month costs more, from its first day to the last day there is, than one of these.
    MonthToDate {
        /// In all; a decimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        amount: Option<Amount>,
        /// What the whole month may cost: the month so far may cost the part of it that has passed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        budget: Option<Amount>,
    },
    /// A day costs more than so many percent of the mean day of the calendar month before.
    PreviousMonth {
        /// 100 is the mean itself; 1 to 100,000.
        percent: u32,
    },
    /// A day is outside of what the days before it lead to expect.
    Statistical {
        /// How far outside.
        #[serde(default)]
        sensitivity: Sensitivity,
        /// The least by which it must be above what is expected; a decimal.
        #[serde(default)]
        #[schemars(with = "String")]
        minimum: Amount,
    },
}

/// Days whose costs are known to be out of the common, and are not told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Calendar {
    /// Days of every month, 1 to 31: the day on which subscriptions are charged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days_of_month: Vec<u8>,
    /// Single days: renewals, planned purchases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dates: Vec<NaiveDate>,
}

impl Calendar {
    fn has(&self, day: NaiveDate) -> bool {
        self.days_of_month.contains(&(day.day() as u8)) || self.dates.contains(&day)
    }
}

/// The day or the month that something was found in; as text `2026-10-05` or `2026-10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Period {
    /// A day.
    Day(NaiveDate),
    /// A month.
    Month(BillingMonth),
}

impl Period {
    /// Its first day.
    pub fn first(self) -> NaiveDate {
        match self {
            Self::Day(day) => day,
            Self::Month(month) => month.first(),
        }
    }

    /// The month it lies in.
    pub fn month(self) -> BillingMonth {
        BillingMonth::of(self.first())
    }
}

impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.fmt(out),
            Self::Month(month) => month.fmt(out),
        }
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.len() {
            7 => text.parse().map(Self::Month),
            _ => text
                .parse()
                .map(Self::Day)
                .map_err(|_| format!("{text:?} is neither a day nor a month")),
        }
    }
}

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

/// What the days before lead to expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Below it is less than usual.
    #[schemars(with = "String")]
    pub low: Amount,
    /// The most likely.
    #[schemars(with = "String")]
    pub middle: Amount,
    /// Above it is told.
    #[schemars(with = "String")]
    pub high: Amount,
}

/// A day or month that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// When.
    pub period: Period,
    /// What it cost.
    pub amount: Amount,
    /// What it would have had to stay within.
    pub limit: Amount,
    /// What was expected, where that is estimated.
    pub expected: Option<Range>,
    /// What it was measured against, in words.
    pub measure: String,
}

/// Everything in a series that is not as it should be, in the order of time.
pub fn detect(series: &Series, detector: &Detector, calendar: &Calendar) -> Vec<Found> {
    match detector {
        Detector::Daily { amount } => {
            daily(series, calendar, |_| Some((*amount, "the limit of a day".to_owned())))
        }
        Detector::MonthToDate { amount, budget } => months(series, *amount, *budget),
        Detector::PreviousMonth { percent } => {
            let means = Means::of(series);
            daily(series, calendar, |day| {
                let limit = means.limit(day, *percent)?;
                Some((limit, format!("{percent} % of the mean day of the month before")))
            })
        }
        Detector::Statistical { sensitivity, minimum } => {
            let judged = judge(series, *sensitivity, *minimum, calendar);
            let outside = judged.into_iter().enumerate().filter_map(|(at, range)| {
                let (range, amount) = (range?, series.amounts[at]);
                let day = series.day(at);
                (amount > range.high && !calendar.has(day)).then(|| Found {
                    period: Period::Day(day),
                    amount,
                    limit: range.high,
                    expected: Some(range),
                    measure: "what the days before lead to expect".to_owned(),
                })
            });
            outside.collect()
        }
    }
}

fn daily(
    series: &Series,
    calendar: &Calendar,
    limit: impl Fn(NaiveDate) -> Option<(Amount, String)>,
) -> Vec<Found> {
    let days = series.amounts.iter().enumerate().map(|(at, amount)| (series.day(at), *amount));
    let found = days.filter(|(day, _)| !calendar.has(*day)).filter_map(|(day, amount)| {
        let (limit, measure) = limit(day)?;
        let period = Period::Day(day);
        (amount > limit).then_some(Found { period, amount, limit, expected: None, measure })
    });
    found.collect()
}

/// A part of an amount, rounded down.
fn part(amount: Amount, of: i128, parts: i128) -> Amount {
    let exact = amount.0.checked_mul(of).map(|product| product.div_euclid(parts));
    // Beyond 39 digits the last ones matter to nobody.
    Amount(exact.unwrap_or_else(|| (amount.0 / parts).saturating_mul(of)))
}

/// What calendar months come to, with how many of their days are in the series.
struct Means(Vec<(BillingMonth, Amount, i64)>);

impl Means {
    fn of(series: &Series) -> Self {
        let mut months: Vec<(BillingMonth, Amount, i64)> = Vec::new();
        for (at, amount) in series.amounts.iter().enumerate() {
            let month = BillingMonth::of(series.day(at));
            match months.last_mut() {
                Some((last, sum, days)) if *last == month => {
                    *sum = Amount(sum.0.saturating_add(amount.0));
                    *days += 1;
                }
                _ => months.push((month, *amount, 1)),
            }
        }
        Self(months)
    }

    /// None when the month before is not there as a whole, or came to nothing.
    fn limit(&self, day: NaiveDate, percent: u32) -> Option<Amount> {
        let month = BillingMonth::of(day);
        let mut before = self.0.iter().filter(|(one, ..)| one.next() == month);
        let (_, sum, days) = before.find(|(before, _, days)| *days == before.days())?;
        (sum.0 > 0).then(|| part(*sum, i128::from(percent), 100 * i128::from(*days)))
    }
}

fn months(series: &Series, amount: Option<Amount>, budget: Option<Amount>) -> Vec<Found> {
    let Some(last) = series.amounts.len().checked_sub(1).map(|at| series.day(at)) else {
        return Vec::new();
    };
    let months = Means::of(series).0.into_iter();
    let found = months.filter_map(|(month, sum, _)| {
        let passed = (last.min(month.end().pred_opt()?) - month.first()).num_days() + 1;
        let in_all = amount.map(|limit| (limit, "the limit of a month".to_owned()));
        let share = budget.map(|budget| {
            let days = month.days();
            let limit = part(budget, i128::from(passed), i128::from(days));
            (limit, format!("the budget's part for {passed} of {days} days"))
        });
        let exceeded = |(limit, _): &(Amount, String)| sum > *limit;
        let (limit, measure) = [in_all, share].into_iter().flatten().find(exceeded)?;
        let period = Period::Month(month);
        Some(Found { period, amount: sum, limit, expected: None, measure })
    });
    found.collect()
}

/// The middle one; of an even number the mean of both. None of nothing.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

fn units(amount: Amount) -> f64 {
    amount.0 as f64 / 10_f64.powi(SCALE as i32)
}

/// Rounded to a millionth: what is estimated has no more digits.
fn rounded(value: f64) -> Amount {
    Amount((value * 1e6).round() as i128 * 10_i128.pow(SCALE - 6))
}

/// The range of each day, where there is one.
fn judge(
    series: &Series,
    sensitivity: Sensitivity,
    minimum: Amount,
    calendar: &Calendar,
) -> Vec<Option<Range>> {
    let (deviations, share) = sensitivity.gates();
    let least = units(minimum).max(0.0);
    let floor = least.max(CENT);
    let logs: Vec<f64> =
        series.amounts.iter().map(|amount| units(*amount).max(floor).ln()).collect();
    let mut clean = vec![false; logs.len()];
    let mut profile = Profile::default();
    // Days of the level, clean ones, newest last.
    let mut level: VecDeque<usize> = VecDeque::new();
    let mut scale = None;
    let mut outside: Vec<(usize, bool)> = Vec::new();
    let mut ranges = Vec::with_capacity(logs.len());
    for at in 0..logs.len() {
        let day = series.day(at);
        if at >= 4 {
            profile.learn(at - 4, &logs, &clean, |at| series.day(at));
        }
        let plain = |at: usize| logs[at] - profile.of(series.day(at));
        let mut window: Vec<f64> = level.iter().map(|at| plain(*at)).collect();
        let count = window.len();
        let centre = median(&mut window);
        if let Some(centre) = centre
            && count >= CLEAN_DAYS_MIN
        {
            let mut off: Vec<f64> = window.iter().map(|value| (value - centre).abs()).collect();
            scale = median(&mut off).map(|mad| (NORMAL * mad).max(SCALE_FLOOR));
        }
        let (Some(centre), Some(scale)) = (centre, scale) else {
            clean[at] = !calendar.has(day);
            if clean[at] {
                level.push_back(at);
            }
            ranges.push(None);
            continue;
        };
        let expected = centre + profile.of(day);
        let middle = if expected <= floor.ln() { 0.0 } else { expected.exp() };
        let reach = (deviations * scale).max((1.0 + share).ln());
        let high = (expected + reach).exp().max(middle + least);
        let low = if middle > 0.0 { (expected - reach).exp() } else { 0.0 };
        ranges.push(Some(Range {
            low: rounded(low),
            middle: rounded(middle),
            high: rounded(high),
        }));
        if calendar.has(day) {
            continue;
        }
        let amount = units(series.amounts[at]);
        if amount <= high && amount >= low {
            outside.clear();
            clean[at] = true;
            level.push_back(at);
            if level.len() > CENTRE_DAYS {
                level.pop_front();
            }
            continue;
        }
        let above = amount > high;
        if outside.last().is_some_and(|(_, was)| *was != above) {
            outside.clear();
        }
        outside.push((at, above));
        if outside.len() == NEW_LEVEL_DAYS {
            level = outside.drain(..).map(|(at, _)| at).collect();
            for at in &level {
                clean[*at] = true;
            }
        }
    }
    ranges
}

/// How much the days of each weekday are above or below their week.
#[derive(Default)]
struct Profile {
    /// Monday first; newest last.
    deviations: [VecDeque<f64>; 7],
    medians: [f64; 7],
}

impl Profile {
    /// Takes a day in whose week is over.
    fn learn(&mut self, at: usize, logs: &[f64], clean: &[bool], day: impl Fn(usize) -> NaiveDate) {
        if !clean[at] || at < 3 {
            return;
        }
        let around = at - 3..(at + 4).min(logs.len());
        let mut week: Vec<f64> = around.filter(|at| clean[*at]).map(|at| logs[at]).collect();
        if week.len() < 4 {
            return;
        }
        let Some(middle) = median(&mut week) else { return };
        let weekday = day(at).weekday().num_days_from_monday() as usize;
        let own = &mut self.deviations[weekday];
        own.push_back(logs[at] - middle);
        if own.len() > PROFILE_WEEKS {
            own.pop_front();
        }
        if own.len() >= PROFILE_WEEKS_MIN {
            let mut own: Vec<f64> = own.iter().copied().collect();
            self.medians[weekday] = median(&mut own).unwrap_or_default();
        }
    }

    fn of(&self, day: NaiveDate) -> f64 {
        self.medians[day.weekday().num_days_from_monday() as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(units: i128) -> Amount {
        Amount(units * 10_i128.pow(SCALE))
    }

    /// Days of 2026 from 1 September, a Tuesday.
    fn series(amounts: impl IntoIterator<Item = i128>) -> Series {
        let amounts = amounts.into_iter().map(whole).collect();
        Series { first: "2026-09-01".parse().unwrap(), amounts }
    }

    /// Sixty days of about 100, weekends 40.
    fn usual() -> Vec<i128> {
        let day = |at: i128| if matches!(at % 7, 4 | 5) { 40 } else { 98 + at * 7 % 5 };
        (0..60).map(day).collect()
    }

    const MEDIUM: Detector =
        Detector::Statistical { sensitivity: Sensitivity::Medium, minimum: Amount(0) };

    fn days(series: &Series, detector: &Detector, calendar: &Calendar) -> Vec<String> {
        let found = detect(series, detector, calendar);
        found.iter().map(|one| format!("{} {}", one.period, one.amount)).collect()
    }

    #[test]
    fn a_weekend_that_costs_as_much_as_a_weekday_is_found_and_its_range_is_stated() {
        let mut amounts = usual();
        assert_eq!(amounts[53], 40, "a Saturday");
        amounts[53] = 100;
        let found = detect(&series(amounts), &MEDIUM, &Calendar::default());
        assert_eq!(found.len(), 1);
        let (found, range) = (&found[0], found[0].expected.unwrap());
        assert_eq!(found.period.to_string(), "2026-10-24");
        assert!(whole(38) < range.middle && range.middle < whole(42), "{range:?}");
        assert!(range.low < range.middle && range.middle < range.high);
        assert_eq!((found.limit, found.amount), (range.high, whole(100)));
    }

    #[test]
    fn what_is_known_or_cheap_is_not_told() {
        let mut amounts = usual();
        amounts[50] = 300;
        let one = series(amounts);
        let dates = vec!["2026-10-21".parse().unwrap()];
        let known = Calendar { dates, ..Calendar::default() };
        let monthly = Calendar { days_of_month: vec![21], ..Calendar::default() };
        assert_eq!(days(&one, &MEDIUM, &Calendar::default()), ["2026-10-21 300"]);
        assert!(days(&one, &MEDIUM, &known).is_empty());
        assert!(days(&one, &MEDIUM, &monthly).is_empty());
        let dear = |minimum| Detector::Statistical {
            sensitivity: Sensitivity::Medium,
            minimum: whole(minimum),
        };
        assert_eq!(days(&one, &dear(150), &Calendar::default()).len(), 1);
        assert!(days(&one, &dear(250), &Calendar::default()).is_empty());
    }

    #[test]
    fn the_fifth_day_of_a_new_level_is_judged_by_it() {
        let mut amounts = usual();
        amounts[40..].iter_mut().for_each(|amount| *amount *= 2);
        let found = days(&series(amounts), &MEDIUM, &Calendar::default());
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[3].starts_with("2026-10-14"), "{found:?}");
    }

    #[test]
    fn days_that_come_later_change_nothing_of_those_before() {
        let mut amounts = usual();
        amounts[30] = 250;
        amounts[45] = 180;
        amounts[52] = 10;
        let whole = detect(&series(amounts.clone()), &MEDIUM, &Calendar::default());
        for end in 1..=amounts.len() {
            let found = detect(&series(amounts[..end].to_vec()), &MEDIUM, &Calendar::default());
            assert_eq!(found, whole[..found.len()], "after {end} days");
        }
        assert_eq!(whole.len(), 2);
    }

    #[test]
    fn limits_are_exact() {
        let one = series(usual());
        let least = |amount| Detector::Daily { amount };
        assert_eq!(days(&one, &least(whole(102)), &Calendar::default()), Vec::<String>::new());
        let limit = Amount(whole(102).0 - 1);
        let above = days(&one, &least(limit), &Calendar::default());
        assert_eq!(above.len(), usual().iter().filter(|amount| **amount == 102).count());
        // The mean of September is 2,490 / 30 = 83.
        let sum: i128 = usual()[..30].iter().sum();
        let percent = Detector::PreviousMonth { percent: 120 };
        let found = detect(&one, &percent, &Calendar::default());
        assert!(found.iter().all(|one| one.limit.0 == sum * 10_i128.pow(12) * 120 / 3_000));
        assert!(found.iter().all(|one| one.period.first() >= "2026-10-01".parse().unwrap()));
        assert!(!found.is_empty());
    }

    #[test]
    fn a_month_is_measured_as_a_whole_and_by_the_part_that_has_passed() {
        let month = |amount: Option<i128>, budget: Option<i128>| Detector::MonthToDate {
            amount: amount.map(whole),
            budget: budget.map(whole),
        };
        // 300 in September; 100 in the first 10 days of October.
        let one = series([10; 40]);
        let none = Calendar::default();
        assert_eq!(days(&one, &month(Some(299), None), &none), ["2026-09 300"]);
        assert_eq!(days(&one, &month(Some(99), None), &none), ["2026-09 300", "2026-10 100"]);
        assert_eq!(days(&one, &month(None, Some(310)), &none), Vec::<String>::new());
        let found = detect(&one, &month(None, Some(309)), &none);
        assert_eq!(found.len(), 1, "in October 309 × 10 / 31 is less than 100");
        assert_eq!(found[0].limit.to_string(), "99.677419354838");
        assert_eq!(found[0].measure, "the budget's part for 10 of 31 days");
    }

    #[test]
    fn a_series_without_days_or_history_has_no_findings() {
        for amounts in [vec![], vec![5; 10], vec![0; 60]] {
            assert!(detect(&series(amounts), &MEDIUM, &Calendar::default()).is_empty());
        }
    }
}
