//! Costs beside those of another period, and rounded so that they still add up.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use chrono::{Datelike, Months};
use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    cost::{Sum, Table, TooLarge},
    shown::{growth, rounded},
};

/// With which period costs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// As many months right before.
    Previous,
    /// The same months of the year before.
    Year,
}

impl Compare {
    /// The comparison of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "previous" => Some(Self::Previous),
            "year" => Some(Self::Year),
            _ => None,
        }
    }

    /// The other period of these months, both included, and how many months it is before; or why
    /// there is none by these groups.
    pub fn with(
        self,
        from: BillingMonth,
        to: BillingMonth,
        groups: &[String],
    ) -> Result<(BillingMonth, BillingMonth, u32), String> {
        let number =
            |month: BillingMonth| month.first().year() * 12 + month.first().month0() as i32;
        let back = match self {
            Self::Previous => (number(to) - number(from) + 1).unsigned_abs(),
            Self::Year => 12,
        };
        for group in groups {
            let whole = match group.as_str() {
                "day" => {
                    return Err("days are not compared: months have different lengths".to_owned());
                }
                "quarter" => 3,
                "year" => 12,
                _ => 1,
            };
            if back % whole != 0 {
                return Err(format!("{back} months back is no whole {group}"));
            }
        }
        let before = |month: BillingMonth| {
            let first = month.first().checked_sub_months(Months::new(back));
            first.map(BillingMonth::of).ok_or_else(|| "there is no such period".to_owned())
        };
        Ok((before(from)?, before(to)?, back))
    }
}

/// The value that a group of the other period stands beside.
fn moved(group: &str, value: &str, by: u32) -> String {
    let later = |month: BillingMonth| (0..by).fold(month, |month, _| month.next());
    match group {
        "month" => {
            value.parse().map_or_else(|_| value.to_owned(), |month| later(month).to_string())
        }
        "quarter" => {
            let parts = value.split_once("-Q").and_then(|(year, quarter)| {
                let month = quarter.parse::<u32>().ok()?.checked_mul(3)?;
                format!("{year}-{month:02}").parse::<BillingMonth>().ok()
            });
            parts.map_or_else(
                || value.to_owned(),
                |month| {
                    let first = later(month).first();
                    format!("{:04}-Q{}", first.year(), first.month0() / 3 + 1)
                },
            )
        }
        "year" => value
            .parse::<u32>()
            .map_or_else(|_| value.to_owned(), |year| format!("{:04}", year + by / 12)),
        _ => value.to_owned(),
    }
}

/// The other period's part of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// What it cost then.
    pub amount: Amount,
    /// How much more it is now.
    pub difference: Amount,
    /// In percent of then, or why that cannot be said.
    pub growth: Result<String, &'static str>,
}

/// What a group cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its values.
    pub group: Vec<String>,
    /// In what.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// Of how many lines.
    pub lines: u64,
    /// In the other period.
    pub other: Option<Other>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Largest first; of equal ones in the order of the group's values.
    pub rows: Vec<Row>,
    /// What they come to, by currency; without a group.
    pub totals: Vec<Row>,
}

fn beside(now: Amount, then: Amount) -> Result<Other, TooLarge> {
    let difference = now.0.checked_sub(then.0).map(Amount).ok_or(TooLarge)?;
    Ok(Other { amount: then, difference, growth: growth(now, then) })
}

impl Answer {
    /// Of a table, and of the other period's with its months back.
    pub fn of(
        now: &Table,
        other: Option<(&Table, u32)>,
        groups: &[String],
        digits: Option<u32>,
    ) -> Result<Self, TooLarge> {
        type Key = (Vec<String>, Currency);
        let sums: BTreeMap<Key, Sum> = now
            .iter()
            .map(|(group, currency, sum)| ((group.to_vec(), currency.clone()), sum))
            .collect();
        let mut then: BTreeMap<Key, Amount> = BTreeMap::new();
        if let Some((table, back)) = other {
            for (group, currency, sum) in table.iter() {
                let values = groups.iter().zip(group).map(|(name, value)| moved(name, value, back));
                let own = then.entry((values.collect(), currency.clone())).or_default();
                *own = own.checked_add(sum.amount).ok_or(TooLarge)?;
            }
        }
        let keys: BTreeSet<&Key> = sums.keys().chain(then.keys()).collect();
        let mut answer = Self::default();
        let currencies: BTreeSet<&Currency> = keys.iter().map(|(_, currency)| currency).collect();
        for currency in currencies {
            let own: Vec<&Key> = keys.iter().copied().filter(|key| key.1 == *currency).collect();
            let sum = |key: &Key| sums.get(key).copied().unwrap_or_default();
            let round = |amounts: Vec<Amount>| match digits {
                Some(digits) => rounded(&amounts, digits),
                None => amounts,
            };
            let amounts = round(own.iter().map(|key| sum(key).amount).collect());
            let before =
                round(own.iter().map(|key| then.get(*key).copied().unwrap_or_default()).collect());
            let total = |amounts: &[Amount]| {
                let mut all = amounts.iter();
                all.try_fold(Amount::ZERO, |sum, one| sum.checked_add(*one)).ok_or(TooLarge)
            };
            let row = |group: Vec<String>, amount, lines, before| {
                let other = other.map(|_| beside(amount, before)).transpose()?;
                Ok::<_, TooLarge>(Row { group, currency: currency.clone(), amount, lines, other })
            };
            let lines = own.iter().map(|key| sum(key).lines).sum();
            answer.totals.push(row(vec![], total(&amounts)?, lines, total(&before)?)?);
            for ((key, amount), before) in own.iter().zip(amounts).zip(before) {
                answer.rows.push(row(key.0.clone(), amount, sum(key).lines, before)?);
            }
        }
        answer.rows.sort_by(|a, b| {
            (Reverse(a.amount), &a.group, &a.currency).cmp(&(
                Reverse(b.amount),
                &b.group,
                &b.currency,
            ))
        });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month(text: &str) -> BillingMonth {
        text.parse().unwrap()
    }

    fn groups(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn table(rows: &[(&[&str], &str)]) -> Table {
        let mut table = Table::default();
        for (group, amount) in rows {
            let group = group.iter().map(|&value| value.to_owned()).collect();
            let sum = Sum::of(amount.parse().unwrap()).unwrap();
            table.take(group, "EUR".to_owned().try_into().unwrap(), sum).unwrap();
        }
        table
    }

    #[test]
    fn the_other_period_is_as_long_and_ends_where_this_one_begins() {
        let with = |compare: Compare, from: &str, to: &str, by: &[&str]| {
            let found = compare.with(month(from), month(to), &groups(by));
            found.map(|(from, to, back)| format!("{from} {to} {back}"))
        };
        let previous = with(Compare::Previous, "2026-01", "2026-03", &["month", "quarter"]);
        assert_eq!(previous.as_deref(), Ok("2025-10 2025-12 3"));
        assert_eq!(
            with(Compare::Year, "2026-02", "2026-02", &["year"]).as_deref(),
            Ok("2025-02 2025-02 12")
        );
        assert!(with(Compare::Previous, "2026-02", "2026-02", &["quarter"]).is_err());
        assert!(with(Compare::Year, "2026-02", "2026-02", &["day"]).is_err());
    }

    #[test]
    fn what_is_new_and_what_is_gone_stand_in_one_table() {
        let now = table(&[(&["2026-03", "a"], "15"), (&["2026-03", "new"], "5")]);
        let then = table(&[(&["2026-02", "a"], "10"), (&["2026-02", "gone"], "-4")]);
        let by = groups(&["month", "service"]);
        let answer = Answer::of(&now, Some((&then, 1)), &by, None).unwrap();
        let rows: Vec<String> = answer
            .rows
            .iter()
            .chain(&answer.totals)
            .map(|row| {
                let other = row.other.as_ref().unwrap();
                let growth = other.growth.clone().unwrap_or_else(str::to_owned);
                let group = row.group.join(" ");
                format!("{group}: {} {} {} {growth}", row.amount, other.amount, other.difference)
            })
            .collect();
        assert_eq!(
            rows,
            [
                "2026-03 a: 15 10 5 50",
                "2026-03 new: 5 0 5 there was no cost before",
                "2026-03 gone: 0 -4 4 before it was less than nothing",
                ": 20 6 14 233.33",
            ]
        );
    }

    #[test]
    fn quarters_and_years_are_compared_with_theirs() {
        for (name, then, back, now) in [
            ("quarter", "2025-Q4", 3, "2026-Q1"),
            ("quarter", "2025-Q1", 12, "2026-Q1"),
            ("year", "2025", 12, "2026"),
            ("month", "2025-12", 3, "2026-03"),
            ("service", "2025", 12, "2025"),
        ] {
            assert_eq!(moved(name, then, back), now);
        }
    }

    #[test]
    fn rounded_rows_come_to_the_rounded_total() {
        let thirds = table(&[(&["a"], "0.333"), (&["b"], "0.333"), (&["c"], "0.333")]);
        let answer = Answer::of(&thirds, None, &groups(&["service"]), Some(2)).unwrap();
        let shown: Vec<String> = answer.rows.iter().map(|row| row.amount.to_string()).collect();
        assert_eq!(shown, ["0.34", "0.33", "0.33"]);
        assert_eq!(answer.totals[0].amount.to_string(), "1");
    }
}
