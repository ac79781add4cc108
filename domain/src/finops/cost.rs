//! What lines come to: filtered, grouped, summed. Exact, and the same whatever the order of lines.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use chrono::Datelike;

use super::{
    amount::{Amount, Currency},
    line::Line,
};

/// Which of a line's numbers is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// `BilledCost`: what the issuer invoices.
    #[default]
    Billed,
    /// `ContractedCost`: at negotiated prices.
    Contracted,
    /// `EffectiveCost`: what is recognised in the charge period.
    Effective,
    /// `ListCost`: at public prices.
    List,
    /// `ConsumedQuantity`: how much was used. It is no money: group by `unit`.
    Quantity,
}

impl Basis {
    /// Every basis, sorted by name.
    pub const ALL: [Self; 5] =
        [Self::Billed, Self::Contracted, Self::Effective, Self::List, Self::Quantity];

    /// As in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Billed => "billed",
            Self::Contracted => "contracted",
            Self::Effective => "effective",
            Self::List => "list",
            Self::Quantity => "quantity",
        }
    }

    /// The FOCUS column it sums.
    pub fn column(self) -> &'static str {
        match self {
            Self::Billed => "BilledCost",
            Self::Contracted => "ContractedCost",
            Self::Effective => "EffectiveCost",
            Self::List => "ListCost",
            Self::Quantity => "ConsumedQuantity",
        }
    }

    /// The basis of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The line's number. A quantity is rounded half to even to an amount's scale; one that does
    /// not read, or is beyond what an amount holds, counts as none.
    pub fn of(self, line: &Line) -> Amount {
        match self {
            Self::Billed => line.billed,
            Self::Contracted => line.contracted,
            Self::Effective => line.effective,
            Self::List => line.list,
            Self::Quantity => Amount::rounded(&line.quantity).unwrap_or_default(),
        }
    }
}

/// What lines are grouped and filtered by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dimension {
    /// A property that every line has.
    Plain(&'static str),
    /// The bill's tag of this key.
    Tag(String),
}

impl Dimension {
    /// Every dimension but tags, sorted. `day` is the UTC day the charge begins; `month`, `quarter`
    /// and `year` are those of the bill.
    pub const PLAIN: [&'static str; 21] = [
        "billing_account",
        "billing_mode",
        "charge_category",
        "commitment",
        "commitment_status",
        "currency",
        "day",
        "invoice",
        "issuer",
        "month",
        "quarter",
        "region",
        "resource",
        "resource_name",
        "resource_type",
        "service",
        "service_category",
        "sku",
        "sub_account",
        "unit",
        "year",
    ];

    /// What the line has there; empty when it has nothing.
    pub fn of<'a>(&self, line: &'a Line) -> Cow<'a, str> {
        let first = line.month.first();
        let name = match self {
            Self::Plain(name) => name,
            Self::Tag(key) => return line.tags.get(key).map_or("", String::as_str).into(),
        };
        match *name {
            "billing_account" => line.billing_account.as_str().into(),
            "billing_mode" => line.billing_mode.as_str().into(),
            "charge_category" => line.category.name().into(),
            "commitment" => line.commitment.as_str().into(),
            "commitment_status" => line.commitment_status.as_str().into(),
            "currency" => line.currency.to_string().into(),
            "day" => line.from.date_naive().to_string().into(),
            "invoice" => line.invoice.as_str().into(),
            "issuer" => line.issuer.as_str().into(),
            "month" => line.month.to_string().into(),
            "quarter" => format!("{:04}-Q{}", first.year(), first.month0() / 3 + 1).into(),
            "region" => line.region.as_str().into(),
            "resource" => line.resource.as_str().into(),
            "resource_name" => line.resource_name.as_str().into(),
            "resource_type" => line.resource_type.as_str().into(),
            "service" => line.service.as_str().into(),
            "service_category" => line.service_category.as_str().into(),
            "sku" => line.sku.as_str().into(),
            "sub_account" => line.sub_account.as_str().into(),
            "unit" => line.unit.as_str().into(),
            "year" => format!("{:04}", first.year()).into(),
            _ => "".into(),
        }
    }
}

impl FromStr for Dimension {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(key) = name.strip_prefix("tags.")
            && !key.is_empty()
        {
            return Ok(Self::Tag(key.to_owned()));
        }
        let known = Self::PLAIN.into_iter().find(|one| *one == name);
        known.map(Self::Plain).ok_or_else(|| {
            format!(
                "{name:?} is no dimension of cost; there are {}, tags.<key>",
                Self::PLAIN.join(", ")
            )
        })
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) => out.write_str(name),
            Self::Tag(key) => write!(out, "tags.{key}"),
        }
    }
}

/// Most dimensions of one table.
pub const GROUPS_MAX: usize = 4;

/// Sums by group, each in one currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: BTreeMap<(Vec<String>, Currency), Sum>,
}

/// What the lines of a group come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// In the basis that was asked for.
    pub amount: Amount,
    /// The same without signs: credits do not cancel costs.
    pub magnitude: Amount,
    /// How many lines.
    pub lines: u64,
}

impl Sum {
    /// Of one line.
    pub fn of(amount: Amount) -> Result<Self, TooLarge> {
        let magnitude = amount.0.checked_abs().map(Amount).ok_or(TooLarge)?;
        Ok(Self { amount, magnitude, lines: 1 })
    }

    /// The sum of both.
    pub fn plus(self, other: Self) -> Result<Self, TooLarge> {
        Ok(Self {
            amount: self.amount.checked_add(other.amount).ok_or(TooLarge)?,
            magnitude: self.magnitude.checked_add(other.magnitude).ok_or(TooLarge)?,
            lines: self.lines + other.lines,
        })
    }
}

/// A sum is beyond what an amount holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sum is beyond 39 digits")]
pub struct TooLarge;

impl Table {
    /// Takes one line in.
    pub fn add(&mut self, line: &Line, basis: Basis, groups: &[Dimension]) -> Result<(), TooLarge> {
        let key = groups.iter().map(|group| group.of(line).into_owned()).collect();
        self.take(key, line.currency.clone(), Sum::of(basis.of(line))?)
    }

    /// Takes in what lines of one group and currency come to.
    pub fn take(
        &mut self,
        group: Vec<String>,
        currency: Currency,
        sum: Sum,
    ) -> Result<(), TooLarge> {
        let own = self.rows.entry((group, currency)).or_default();
        *own = own.plus(sum)?;
        Ok(())
    }

    /// Sum by group and currency, in the order of the groups' values.
    pub fn iter(&self) -> impl Iterator<Item = (&[String], &Currency, Sum)> {
        self.rows.iter().map(|((key, currency), sum)| (key.as_slice(), currency, *sum))
    }

    /// Sum by group and currency, largest first; of equal sums in the order of the group's values.
    pub fn rows(&self) -> Vec<(&[String], &Currency, Sum)> {
        let mut rows: Vec<_> = self.iter().collect();
        rows.sort_by_key(|(_, _, sum)| std::cmp::Reverse(sum.amount));
        rows
    }

    /// What all groups come to, by currency.
    pub fn totals(&self) -> Result<BTreeMap<Currency, Sum>, TooLarge> {
        let mut totals: BTreeMap<Currency, Sum> = BTreeMap::new();
        for ((_, currency), sum) in &self.rows {
            let total = totals.entry(currency.clone()).or_default();
            *total = total.plus(*sum)?;
        }
        Ok(totals)
    }
}

impl FromIterator<((Vec<String>, Currency), Sum)> for Table {
    /// Of groups that are each there once.
    fn from_iter<I: IntoIterator<Item = ((Vec<String>, Currency), Sum)>>(rows: I) -> Self {
        Self { rows: rows.into_iter().collect() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::finops) fn line(
        service: &str,
        currency: &str,
        billed: &str,
        env: Option<&str>,
    ) -> Line {
        let time = |text: &str| text.parse().unwrap();
        let month = "2026-11".to_owned().try_into().unwrap();
        let mut line = Line::new("1", month, currency.to_owned().try_into().unwrap());
        line.from = time("2026-10-31T23:00:00Z");
        line.to = time("2026-11-01T00:00:00Z");
        line.billed = billed.parse().unwrap();
        line.service = service.into();
        line.tags.extend(env.map(|env| ("env".to_owned(), env.to_owned())));
        line
    }

    #[test]
    fn lines_are_summed_by_group_and_currencies_never_mix() {
        let groups = ["service", "tags.env"].map(|name| name.parse().unwrap());
        let lines = [
            line("a", "USD", "0.000000000001", Some("prod")),
            line("a", "EUR", "2", Some("prod")),
            line("b", "USD", "5", None),
            line("a", "USD", "1", Some("prod")),
            line("b", "USD", "-7", None),
        ];
        let mut table = Table::default();
        for line in &lines {
            table.add(line, Basis::Billed, &groups).unwrap();
        }
        let rows: Vec<_> = table
            .rows()
            .into_iter()
            .map(|(key, currency, sum)| {
                format!("{} {} {currency} {}", key.join("/"), sum.amount, sum.lines)
            })
            .collect();
        assert_eq!(rows, ["a/prod 2 EUR 1", "a/prod 1.000000000001 USD 2", "b/ -2 USD 2"]);
        let totals: Vec<_> = table
            .totals()
            .unwrap()
            .into_iter()
            .map(|(currency, sum)| format!("{currency} {} {}", sum.amount, sum.lines))
            .collect();
        assert_eq!(totals, ["EUR 2 1", "USD -0.999999999999 4"]);
    }

    #[test]
    fn every_dimension_reads_and_has_a_value_of_its_own() {
        assert!(Dimension::PLAIN.is_sorted());
        let line = line("a", "USD", "1", Some("prod"));
        let value = |name: &str| name.parse::<Dimension>().unwrap().of(&line).into_owned();
        let values = ["day", "month", "quarter", "year", "currency", "charge_category", "tags.env"];
        assert_eq!(
            values.map(value),
            ["2026-10-31", "2026-11", "2026-Q4", "2026", "USD", "Usage", "prod"]
        );
        for name in Dimension::PLAIN {
            assert_eq!(name.parse::<Dimension>().unwrap().to_string(), name);
        }
        assert!("tags.".parse::<Dimension>().is_err());
        let error = "servce".parse::<Dimension>().unwrap_err();
        assert!(error.contains("service_category"), "{error}");
    }
}
