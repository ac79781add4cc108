//! Times of the week, in UTC.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Refusal, codes};

/// Most times that are counted as missed: six weeks of hours.
const MISSED_MAX: u32 = 1_000;

/// Hours of days, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupTimes")]
pub struct Times {
    /// At which hours, 0…23.
    pub hours: BTreeSet<u8>,
    /// How many minutes after each hour, 0…59.
    #[serde(default)]
    pub minute: u8,
    /// On which days, 1 (Monday) to 7 (Sunday); on each when it is left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub weekdays: BTreeSet<u8>,
}

impl Times {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let no = |detail: &str| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if self.hours.is_empty() || self.hours.iter().any(|hour| *hour > 23) {
            return no("terms.times.hours: has one or more of 0 to 23");
        }
        if self.minute > 59 {
            return no("terms.times.minute: is 0 to 59");
        }
        if self.weekdays.iter().any(|day| !(1..=7).contains(day)) {
            return no("terms.times.weekdays: are 1 (Monday) to 7 (Sunday)");
        }
        Ok(())
    }

    /// The times of a day, in turn.
    fn of_day(&self, day: NaiveDate) -> impl DoubleEndedIterator<Item = DateTime<Utc>> {
        let weekday = u8::try_from(day.weekday().number_from_monday()).unwrap_or_default();
        let counts = self.weekdays.is_empty() || self.weekdays.contains(&weekday);
        let at = move |hour: &u8| {
            let time = NaiveTime::from_hms_opt((*hour).into(), self.minute.into(), 0)?;
            counts.then(|| day.and_time(time).and_utc())
        };
        self.hours.iter().filter_map(at)
    }

    /// The newest of these times that is not after `now`.
    pub fn last(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // A week back has every day.
        (0..=7).find_map(|back| {
            let day = now.date_naive().checked_sub_days(Days::new(back))?;
            self.of_day(day).rev().find(|time| *time <= now)
        })
    }

    /// The first of these times after another.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        (0..=7).find_map(|ahead| {
            let day = after.date_naive().checked_add_days(Days::new(ahead))?;
            self.of_day(day).find(|time| *time > after)
        })
    }

    /// How many of these times lie between two others, neither of them counted; 1,000 when it is more.
    pub fn between(&self, after: DateTime<Utc>, before: DateTime<Utc>) -> u32 {
        let (mut at, mut count) = (after, 0);
        while let Some(next) = self.next(at).filter(|next| *next < before) {
            count += 1;
            at = next;
            if count == MISSED_MAX {
                break;
            }
        }
        count
    }
}
