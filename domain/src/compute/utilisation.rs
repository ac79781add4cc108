//! How much of a server was used, day by day.
//!
//! A day is summed up before it comes in: samples are never events. There is one event of a day, and
//! one more only when somebody knows more of it.

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    finops::amount::Amount,
    kernel::{Refusal, Stamp, codes},
};

/// Days up to the newest one of which more can still become known. Older ones are settled.
pub const DAYS_KEPT: u64 = 31;
/// The seconds of a day, which is one of UTC.
pub const DAY_S: u32 = 86_400;
/// Most virtual processors of a server.
const VCPUS_MAX: u32 = 100_000;
/// Most letters of a source's name.
const SOURCE_CHARS_MAX: usize = 200;
/// 100, as an amount.
const HUNDRED: Amount = Amount(100 * 10_i128.pow(12));

/// How much of a server was used on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Utilisation {
    /// The day, in UTC.
    pub day: NaiveDate,
    /// How many virtual processors percents of processors are of, 1…100,000.
    pub vcpus: u32,
    /// Percent of all processors that were busy, on average; a decimal, 0…100.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,12})?$"))]
    pub cpu_mean_percent: Amount,
    /// Percent of all processors that 95 of 100 samples were not above; a decimal, 0…100.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,12})?$"))]
    pub cpu_p95_percent: Amount,
    /// Percent of all processors that no sample was above; a decimal, 0…100.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,12})?$"))]
    pub cpu_peak_percent: Amount,
    /// Percent of the memory that was in use at most; a decimal, 0…100; none when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,12})?$"))]
    pub memory_peak_percent: Option<Amount>,
    /// Bytes it received; none when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_in_bytes: Option<u64>,
    /// Bytes it sent; none when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_out_bytes: Option<u64>,
    /// Of how many samples the processors' numbers are, 1…86,400.
    pub samples: u32,
    /// Seconds that a sample is of, 1…86,400.
    pub step_s: u32,
    /// Who measured, for instance `node-exporter`; 1…200 characters.
    pub source: String,
}

impl Utilisation {
    /// Seconds of the day that are measured.
    pub fn covered_s(&self) -> u32 {
        self.samples.saturating_mul(self.step_s).min(DAY_S)
    }

    /// What can be true of a day that has begun.
    ///
    /// # Errors
    /// Names the field that cannot.
    pub fn check(&self, today: NaiveDate) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if self.day > today {
            return no(format!("day: {} has not begun", self.day));
        }
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return no(format!("vcpus: is 1 to {VCPUS_MAX}"));
        }
        let percents = [
            ("cpu_mean_percent", Some(self.cpu_mean_percent)),
            ("cpu_p95_percent", Some(self.cpu_p95_percent)),
            ("cpu_peak_percent", Some(self.cpu_peak_percent)),
            ("memory_peak_percent", self.memory_peak_percent),
        ];
        for (name, percent) in percents {
            if percent.is_some_and(|percent| !(Amount::ZERO..=HUNDRED).contains(&percent)) {
                return no(format!("{name}: is 0 to 100"));
            }
        }
        if self.cpu_p95_percent.max(self.cpu_mean_percent) > self.cpu_peak_percent {
            return no("cpu_peak_percent: is below the mean or the 95th percentile".to_owned());
        }
        if !(1..=DAY_S).contains(&self.samples) || !(1..=DAY_S).contains(&self.step_s) {
            return no(format!("samples, step_s: are 1 to {DAY_S}"));
        }
        let letters = self.source.chars().count();
        if !(1..=SOURCE_CHARS_MAX).contains(&letters) || self.source.chars().any(char::is_control) {
            return no(format!("source: has 1 to {SOURCE_CHARS_MAX} visible characters"));
        }
        Ok(())
    }
}

/// What is known of a server's use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilisations {
    /// The newest day there is.
    pub last: Option<Utilisation>,
    /// Seconds that are measured of each day of which more can become known.
    pub covered_s: BTreeMap<NaiveDate, u32>,
}

/// What a day's numbers say beside what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing: as much or more of the day is known.
    None,
    /// The day was not known.
    Day,
    /// More of the day is known now.
    More,
}

impl Utilisations {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The first day of which more can become known.
    fn open_from(&self) -> Option<NaiveDate> {
        self.last.as_ref().and_then(|last| last.day.checked_sub_days(Days::new(DAYS_KEPT - 1)))
    }

    /// What a day's numbers say that is not known.
    ///
    /// # Errors
    /// Numbers that cannot be true, and a day that is settled.
    pub fn news(&self, of: &Utilisation, stamp: &Stamp) -> Result<News, Refusal> {
        of.check(stamp.now.date_naive())?;
        if let Some(first) = self.open_from().filter(|first| of.day < *first) {
            let detail = format!("day: {} is before {first}, and settled", of.day);
            return Err(Refusal::new(&codes::DAY_SETTLED, detail));
        }
        Ok(match self.covered_s.get(&of.day) {
            None => News::Day,
            Some(known) if of.covered_s() > *known => News::More,
            Some(_) => News::None,
        })
    }

    /// With one more day, or more of one.
    pub fn take(&mut self, of: Utilisation) {
        self.covered_s.insert(of.day, of.covered_s());
        if self.last.as_ref().is_none_or(|last| last.day <= of.day) {
            self.last = Some(of);
        }
        if let Some(first) = self.open_from() {
            self.covered_s = self.covered_s.split_off(&first);
        }
    }
}
