//! Times of the week, or of every so many days, in UTC.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Refusal, codes};

/// Most times that are counted as missed: six weeks of hours.
const MISSED_MAX: u32 = 1_000;

/// Most days from one day that has times to the next: a leap year.
const EVERY_DAYS_MAX: u16 = 366;

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
    /// On every so many days, 1…366, counted from `first_day`; not with `weekdays`.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub every_days: u16,
    /// The first day; there are no times before it. Needed where `every_days` is more than 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_day: Option<NaiveDate>,
}

fn one() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_one(days: &u16) -> bool {
    *days == 1
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
        if !(1..=EVERY_DAYS_MAX).contains(&self.every_days) {
            return no("terms.times.every_days: is 1 to 366");
        }
        if self.every_days > 1 && !self.weekdays.is_empty() {
            return no(
                "terms.times.every_days: is counted in days, and weekdays in weeks; name one",
            );
        }
        if self.every_days > 1 && self.first_day.is_none() {
            return no("terms.times.first_day: is needed where every_days is counted from");
        }
        Ok(())
    }

    /// Whether a day has times.
    fn counts(&self, day: NaiveDate) -> bool {
        let weekday = u8::try_from(day.weekday().number_from_monday()).unwrap_or_default();
        let on = self.weekdays.is_empty() || self.weekdays.contains(&weekday);
        let since = self.first_day.map_or(0, |first| (day - first).num_days());
        on && since >= 0 && since % i64::from(self.every_days.max(1)) == 0
    }

    /// How many days there are at most from one that has times to the next.
    fn apart(&self) -> u64 {
        u64::from(self.every_days).max(7)
    }

    /// The times of a day, in turn.
    fn of_day(&self, day: NaiveDate) -> impl DoubleEndedIterator<Item = DateTime<Utc>> {
        let counts = self.counts(day);
        let at = move |hour: &u8| {
            let time = NaiveTime::from_hms_opt((*hour).into(), self.minute.into(), 0)?;
            counts.then(|| day.and_time(time).and_utc())
        };
        self.hours.iter().filter_map(at)
    }

    /// The newest of these times that is not after `now`.
    pub fn last(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // So far back there is one, or it is before the first day.
        (0..=self.apart()).find_map(|back| {
            let day = now.date_naive().checked_sub_days(Days::new(back))?;
            self.of_day(day).rev().find(|time| *time <= now)
        })
    }

    /// The first of these times after another.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let from = self.first_day.map_or(after.date_naive(), |first| first.max(after.date_naive()));
        (0..=self.apart()).find_map(|ahead| {
            let day = from.checked_add_days(Days::new(ahead))?;
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
