//! Tiers and prorating: what a quantity or a time costs, as an exact ratio. It is rounded once, by
//! who books it.

use chrono::{DateTime, Datelike, Duration, NaiveDate, TimeZone, Utc};
use chrono_tz::Tz;
use num_traits::Zero;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ratio::{Ratio, whole};

/// How tiers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TierMode {
    /// Each slice of the quantity costs its own tier's price.
    Graduated,
    /// All of it costs the price of the tier it reaches. The whole can cost less at a boundary than
    /// just before it.
    Volume,
}

/// A price up to a quantity, that quantity included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Where it ends; none is the last.
    pub up_to: Option<Ratio>,
    /// For one unit.
    pub price: Ratio,
}

/// Prices by quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiers {
    mode: TierMode,
    tiers: Vec<Tier>,
}

/// Why tiers are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TiersFault {
    /// There must be a last one without an end, and only that one.
    #[error("the last tier has no end, and only the last one")]
    Open,
    /// Their ends go up from above zero.
    #[error("the tiers' ends do not go up")]
    Order,
}

impl Tiers {
    /// In order, the last without an end.
    ///
    /// # Errors
    /// When they are not.
    pub fn new(mode: TierMode, tiers: Vec<Tier>) -> Result<Self, TiersFault> {
        let Some((last, bounded)) = tiers.split_last() else { return Err(TiersFault::Open) };
        if last.up_to.is_some() {
            return Err(TiersFault::Open);
        }
        let mut below = whole(0);
        for tier in bounded {
            let end = tier.up_to.as_ref().ok_or(TiersFault::Open)?;
            if *end <= below {
                return Err(TiersFault::Order);
            }
            below = end.clone();
        }
        Ok(Self { mode, tiers })
    }

    /// What a quantity costs in all.
    pub fn cost(&self, quantity: &Ratio) -> Ratio {
        if *quantity <= whole(0) {
            return whole(0);
        }
        let reaches = |tier: &Tier| tier.up_to.as_ref().is_none_or(|end| quantity <= end);
        let reached = self.tiers.iter().position(reaches).unwrap_or(self.tiers.len() - 1);
        match self.mode {
            TierMode::Volume => quantity * &self.tiers[reached].price,
            TierMode::Graduated => {
                let (mut sum, mut below) = (whole(0), whole(0));
                for tier in &self.tiers[..=reached] {
                    let end = tier.up_to.as_ref().map_or(quantity, |end| end.min(quantity));
                    sum += (end - &below) * &tier.price;
                    below = end.clone();
                }
                sum
            }
        }
    }

    /// What `more` costs after `before` was used: lines add up to the whole, and in volume mode the
    /// one that reaches a tier carries the difference.
    pub fn cost_of_more(&self, before: &Ratio, more: &Ratio) -> Ratio {
        self.cost(&(before + more)) - self.cost(before)
    }
}

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// A calendar year of the time zone, as long as it is.
    Year,
    /// A calendar month of the time zone, as long as it is.
    Month,
    /// 86,400 seconds.
    Day,
    /// 3,600 seconds.
    Hour,
    /// 60 seconds.
    Minute,
    /// One second.
    Second,
}

/// What a use is measured in, always of the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Granule {
    /// 86,400 seconds.
    Day,
    /// 3,600 seconds.
    Hour,
    /// 60 seconds.
    Minute,
    /// One second.
    Second,
}

/// What happens to a granule that is begun and not used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// It counts for what was used of it.
    None,
    /// It counts whole.
    Up,
    /// It does not count.
    Down,
}

impl Granule {
    fn seconds(self) -> i64 {
        match self {
            Self::Day => 86_400,
            Self::Hour => 3_600,
            Self::Minute => 60,
            Self::Second => 1,
        }
    }
}

/// Units of `per` from `from` to `to`, seconds exactly: two uses that follow each other have
/// together what one over both has, when nothing is rounded.
pub fn units(
    per: Per,
    zone: Tz,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    granule: Granule,
    rounding: Rounding,
) -> Ratio {
    let seconds = (to - from).num_seconds().max(0);
    let size = granule.seconds();
    let counted = match rounding {
        Rounding::None => seconds,
        Rounding::Up => (seconds + size - 1) / size * size,
        Rounding::Down => seconds / size * size,
    };
    let fixed = |length: i64| Ratio::new(counted.into(), length.into());
    match per {
        Per::Second => fixed(1),
        Per::Minute => fixed(60),
        Per::Hour => fixed(3_600),
        Per::Day => fixed(86_400),
        Per::Month | Per::Year => {
            calendar_units(per, zone, from, from + Duration::seconds(counted))
        }
    }
}

fn calendar_units(per: Per, zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Ratio {
    let mut sum = Ratio::zero();
    let local = from.with_timezone(&zone).date_naive();
    let mut begin = match per {
        Per::Year => local.with_ordinal(1),
        _ => local.with_day(1),
    }
    .unwrap_or(local);
    loop {
        let months = chrono::Months::new(if per == Per::Year { 12 } else { 1 });
        let end = begin.checked_add_months(months).unwrap_or(NaiveDate::MAX);
        let (starts, ends) = (midnight(zone, begin), midnight(zone, end));
        let (first, last) = (from.max(starts), to.min(ends));
        if last > first {
            let length = (ends - starts).num_seconds();
            sum += Ratio::new((last - first).num_seconds().into(), length.into());
        }
        if ends >= to || end == NaiveDate::MAX {
            return sum;
        }
        begin = end;
    }
}

/// When a local day begins: its first moment, also where the clock skips midnight.
pub fn midnight(zone: Tz, day: NaiveDate) -> DateTime<Utc> {
    let midnight = day.and_time(chrono::NaiveTime::MIN);
    (0..=24)
        .find_map(|quarter| {
            let local = midnight + Duration::minutes(15 * quarter);
            zone.from_local_datetime(&local).earliest()
        })
        .map_or_else(|| midnight.and_utc(), |moment| moment.with_timezone(&Utc))
}
