//! A prepaid amount over the days of its term; what a cancellation leaves.
//!
//! The part of a day is a difference of cumulative amounts, A(k) = T · w(k) / w(n) rounded half to
//! even: so the days sum to the amount exactly, and every range of days (a month, a quarter) is
//! within one unit of the exact rational. Days are those of the bill's time zone; one with a
//! change of the clock is a day like any other.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    amount::BillingMonth,
    ratio::{Ratio, round_half_even, whole},
};

/// How a term is weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "AmortisationMethod")]
pub enum Method {
    /// Every day is worth the same.
    Daily,
    /// Every whole calendar month is worth the same, and a day of a part its share of the month.
    Monthly,
}

/// An amount and the days it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    total: i128,
    start: NaiveDate,
    end: NaiveDate,
    method: Method,
}

/// The term has no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the term from {start} to {end} has no day")]
pub struct EmptyTerm {
    start: NaiveDate,
    end: NaiveDate,
}

/// What is left when a term ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// Recognised for the days before; never touched again.
    pub kept: i128,
    /// Not recognised yet.
    pub unamortised: i128,
    /// Recognised on the day of the cancellation, beside the refund's own line: a loss when
    /// positive, a gain when negative. `kept + adjustment` is the amount less the refund.
    pub adjustment: i128,
}

impl Schedule {
    /// `total` over the days from `start` to the one before `end`.
    ///
    /// # Errors
    /// [`EmptyTerm`] when there is no such day.
    pub fn new(
        total: i128,
        start: NaiveDate,
        end: NaiveDate,
        method: Method,
    ) -> Result<Self, EmptyTerm> {
        if start >= end {
            return Err(EmptyTerm { start, end });
        }
        Ok(Self { total, start, end, method })
    }

    /// What is recognised before this day.
    pub fn before(&self, day: NaiveDate) -> i128 {
        if day <= self.start {
            return 0;
        }
        if day >= self.end {
            return self.total;
        }
        let part = match self.method {
            Method::Daily => {
                let days = |end: NaiveDate| whole((end - self.start).num_days().into());
                whole(self.total) * days(day) / days(self.end)
            }
            Method::Monthly => whole(self.total) * self.months(day) / self.months(self.end),
        };
        // A part of the total is no larger than the total.
        round_half_even(&part).unwrap_or(self.total)
    }

    /// What is recognised on the days from `from` to the one before `to`.
    pub fn between(&self, from: NaiveDate, to: NaiveDate) -> i128 {
        self.before(to) - self.before(from)
    }

    /// What is recognised in a month.
    pub fn month(&self, month: BillingMonth) -> i128 {
        self.between(month.first(), month.end())
    }

    /// The months it touches, in order.
    pub fn months_touched(&self) -> impl Iterator<Item = BillingMonth> {
        let (first, end) = (BillingMonth::of(self.start), self.end);
        std::iter::successors(Some(first), |month| Some(month.next()))
            .take_while(move |month| month.first() < end)
    }

    /// Months from the start to this day, the parts of months by their days.
    fn months(&self, day: NaiveDate) -> Ratio {
        let first = BillingMonth::of(self.start);
        let mut sum = whole(0);
        let mut month = first;
        while month.first() < day {
            let (from, to) = (self.start.max(month.first()), day.min(month.end()));
            sum += Ratio::new((to - from).num_days().into(), month.days().into());
            month = month.next();
        }
        sum
    }

    /// The term ends on this day, and so much comes back.
    pub fn cancel(&self, day: NaiveDate, refund: i128) -> Cancellation {
        let kept = self.before(day);
        let unamortised = self.total - kept;
        Cancellation { kept, unamortised, adjustment: unamortised - refund }
    }

    /// The term is replaced from this day on: what is not recognised yet and what is paid on top go
    /// over the new term.
    ///
    /// # Errors
    /// [`EmptyTerm`] when the new term has no day.
    pub fn replace(&self, day: NaiveDate, paid: i128, end: NaiveDate) -> Result<Self, EmptyTerm> {
        let left = self.total - self.before(day);
        Self::new(left + paid, day.max(self.start), end, self.method)
    }
}
