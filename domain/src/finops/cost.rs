//! What lines come to: filtered, grouped, summed. Exact, and the same whatever the order of lines.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use chrono::Datelike;

use super::{
    amount::{Amount, Currency},
    line::Line,
};

/// Which of a line's amounts is summed.
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
}

impl Basis {
    /// Every basis, sorted by name.
    pub const ALL: [Self; 4] = [Self::Billed, Self::Contracted, Self::Effective, Self::List];

    /// As in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Billed => "billed",
            Self::Contracted => "contracted",
            Self::Effective => "effective",
            Self::List => "list",
        }
    }

    /// The FOCUS column it sums.
    pub fn column(self) -> &'static str {
        match self {
            Self::Billed => "BilledCost",
            Self::Contracted => "ContractedCost",
            Self::Effective => "EffectiveCost",
            Self::List => "ListCost",
        }
    }

    /// The basis of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The line's amount.
    pub fn of(self, line: &Line) -> Amount {
        match self {
            Self::Billed => line.billed,
            Self::Contracted => line.contracted,
            Self::Effective => line.effective,
            Self::List => line.list,
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
    pub const PLAIN: [&'static str; 20] = [
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
    /// How many lines.
    pub lines: u64,
}

/// A sum is beyond what an amount holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sum is beyond 39 digits")]
pub struct TooLarge;

impl Table {
    /// Takes one line in.
    pub fn add(&mut self, line: &Line, basis: Basis, groups: &[Dimension]) -> Result<(), TooLarge> {
        let key = groups.iter().map(|group| group.of(line).into_owned()).collect();
        let sum = self.rows.entry((key, line.currency.clone())).or_default();
        sum.amount = sum.amount.checked_add(basis.of(line)).ok_or(TooLarge)?;
        sum.lines += 1;
        Ok(())
    }

    /// Sum by group and currency, largest first; of equal sums in the order of the group's values.
    pub fn rows(&self) -> Vec<(&[String], &Currency, Sum)> {
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .map(|((key, currency), sum)| (key.as_slice(), currency, *sum))
            .collect();
        rows.sort_by_key(|(_, _, sum)| std::cmp::Reverse(sum.amount));
        rows
    }

    /// What all groups come to, by currency.
    pub fn totals(&self) -> Result<BTreeMap<Currency, Sum>, TooLarge> {
        let mut totals: BTreeMap<Currency, Sum> = BTreeMap::new();
        for ((_, currency), sum) in &self.rows {
            let total = totals.entry(currency.clone()).or_default();
            total.amount = total.amount.checked_add(sum.amount).ok_or(TooLarge)?;
            total.lines += sum.lines;
        }
        Ok(totals)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::finops::line::ChargeCategory;

    pub(in crate::finops) fn line(
        service: &str,
        currency: &str,
        billed: &str,
        env: Option<&str>,
    ) -> Line {
        let time = |text: &str| text.parse().unwrap();
        Line {
            number: 2,
            billing_account: "1".into(),
            sub_account: String::new(),
            month: "2026-11".to_owned().try_into().unwrap(),
            from: time("2026-10-31T23:00:00Z"),
            to: time("2026-11-01T00:00:00Z"),
            category: ChargeCategory::Usage,
            correction: false,
            currency: currency.to_owned().try_into().unwrap(),
            billed: billed.parse().unwrap(),
            effective: Amount::ZERO,
            list: Amount::ZERO,
            contracted: Amount::ZERO,
            service: service.into(),
            service_category: String::new(),
            region: String::new(),
            resource: String::new(),
            resource_name: String::new(),
            resource_type: String::new(),
            billing_mode: String::new(),
            commitment: String::new(),
            commitment_status: String::new(),
            invoice: String::new(),
            issuer: String::new(),
            sku: String::new(),
            quantity: String::new(),
            unit: String::new(),
            description: String::new(),
            tags: env.map(|env| ("env".to_owned(), env.to_owned())).into_iter().collect(),
            other: BTreeMap::new(),
        }
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
