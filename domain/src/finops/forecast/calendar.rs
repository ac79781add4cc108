//! What the calendar says of a step: how long it is, which weekdays it has.

use chrono::{Datelike, Days, Months, NaiveDate, Weekday};

/// How far apart the values of a series are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// A day.
    Day,
    /// A calendar month.
    #[default]
    Month,
}

impl Step {
    /// As in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The step of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Day, Self::Month].into_iter().find(|one| one.name() == name)
    }

    /// Steps after which a pattern repeats.
    pub fn season(self) -> usize {
        match self {
            Self::Day => 7,
            Self::Month => 12,
        }
    }
}

/// The days that steps stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// The first day of the first step.
    pub first: NaiveDate,
    /// How far apart steps are.
    pub step: Step,
}

impl Calendar {
    /// The first day of a step; the first step is 0.
    pub fn day(self, at: usize) -> NaiveDate {
        let day = match self.step {
            Step::Day => self.first.checked_add_days(Days::new(at as u64)),
            Step::Month => {
                let months = u32::try_from(at).unwrap_or(u32::MAX);
                self.first.checked_add_months(Months::new(months))
            }
        };
        day.unwrap_or(NaiveDate::MAX)
    }

    /// Its steps' name, as in questions and answers: `2026-10`, `2026-10-31`.
    pub fn name(self, at: usize) -> String {
        let day = self.day(at);
        match self.step {
            Step::Day => day.to_string(),
            Step::Month => format!("{:04}-{:02}", day.year(), day.month()),
        }
    }

    /// How many days a step has.
    pub(super) fn days(self, at: usize) -> u32 {
        let (from, to) = (self.day(at), self.day(at + 1));
        u32::try_from((to - from).num_days()).unwrap_or(0)
    }

    /// How many of them are no Saturday or Sunday.
    pub(super) fn working_days(self, at: usize) -> u32 {
        let days = self.day(at).iter_days().take(self.days(at) as usize);
        days.filter(|day| !matches!(day.weekday(), Weekday::Sat | Weekday::Sun)).count() as u32
    }

    /// Whether it is the first day of a month.
    pub(super) fn begins_month(self, at: usize) -> bool {
        self.day(at).day() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_and_days_are_as_long_as_they_are() {
        let months = Calendar { first: "2024-01-01".parse().unwrap(), step: Step::Month };
        let days: Vec<u32> = (0..4).map(|at| months.days(at)).collect();
        assert_eq!(days, [31, 29, 31, 30]);
        assert_eq!((months.working_days(1), months.name(13)), (21, "2025-02".to_owned()));
        let days = Calendar { first: "2024-02-28".parse().unwrap(), step: Step::Day };
        assert_eq!((days.name(1), days.days(1)), ("2024-02-29".to_owned(), 1));
        assert_eq!([1, 2].map(|at| days.begins_month(at)), [false, true]);
    }
}
