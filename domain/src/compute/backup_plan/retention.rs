//! Which backups of a disk stay.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kernel::{Refusal, codes};

/// Most backups that one rule counts: a year of days.
const KEPT_MAX: u32 = 366;
/// Longest time that a rule keeps a backup for, in days: ten years.
const DAYS_MAX: u32 = 3_660;

/// How many backups of a disk stay. Whichever rule keeps one, it stays; a rule that is left out keeps none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupsKept")]
pub struct Keep {
    /// The newest so many, 0…366.
    #[serde(default)]
    pub last: u32,
    /// All that are not older than so many days, 0…3,660.
    #[serde(default)]
    pub days: u32,
    /// The newest of each of so many days that have one, 0…366.
    #[serde(default)]
    pub daily: u32,
    /// The newest of each of so many weeks that have one, 0…366; weeks begin on Monday.
    #[serde(default)]
    pub weekly: u32,
    /// The newest of each of so many months that have one, 0…366.
    #[serde(default)]
    pub monthly: u32,
}

impl Keep {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        let counts = [self.last, self.daily, self.weekly, self.monthly];
        if counts.iter().any(|kept| *kept > KEPT_MAX) {
            return no(format!("terms.keep: last, daily, weekly and monthly are 0 to {KEPT_MAX}"));
        }
        if self.days > DAYS_MAX {
            return no(format!("terms.keep.days: is 0 to {DAYS_MAX}"));
        }
        if self.days == 0 && counts.iter().all(|kept| *kept == 0) {
            return no("terms.keep: names at least one that stays".to_owned());
        }
        Ok(())
    }

    /// Those of a disk's backups that stay. The newest always does: the next one is made on it, and it is
    /// what there is when none was made for long. Two of one moment are told apart by their id.
    pub fn of(&self, backups: &[(Uuid, DateTime<Utc>)], now: DateTime<Utc>) -> BTreeSet<Uuid> {
        let mut newest_first = backups.to_vec();
        newest_first.sort_unstable_by_key(|(id, at)| std::cmp::Reverse((*at, *id)));
        let since = now - TimeDelta::days(i64::from(self.days));
        let recent = newest_first.iter().filter(|(_, at)| self.days > 0 && *at >= since);
        let last = newest_first.iter().take(self.last.max(1) as usize);
        let mut kept: BTreeSet<Uuid> = recent.chain(last).map(|(id, _)| *id).collect();
        let day = |at: DateTime<Utc>| (at.num_days_from_ce(), 0);
        let week = |at: DateTime<Utc>| (at.iso_week().year(), at.iso_week().week());
        let month = |at: DateTime<Utc>| (at.year(), at.month());
        kept.extend(newest_of(&newest_first, self.daily, day));
        kept.extend(newest_of(&newest_first, self.weekly, week));
        kept.extend(newest_of(&newest_first, self.monthly, month));
        kept
    }
}

/// The newest of each of so many periods that have one.
fn newest_of(
    newest_first: &[(Uuid, DateTime<Utc>)],
    periods: u32,
    of: impl Fn(DateTime<Utc>) -> (i32, u32),
) -> Vec<Uuid> {
    let mut last = None;
    let newest = newest_first.iter().filter(|(_, at)| last.replace(of(*at)) != Some(of(*at)));
    newest.take(periods as usize).map(|(id, _)| *id).collect()
}
