//! What issuers say beside the lines: FOCUS's data sets BillingPeriod, ContractCommitment and
//! InvoiceDetail, told by their headings. They are small, and come to totals and terms in memory.
#![expect(clippy::result_large_err, reason = "a bad line is as large as it has to say")]

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use csv::StringRecord;
use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    bill::InvoiceTotal,
    issuer::{Commitment, Period},
};

use super::{
    reader::{BadLine, BillFault},
    records::{Records, shortened},
    value::{number, time},
};

/// Most rows that are held: far more than anybody has commitments or invoices.
const ROWS_MAX: usize = 50_000;
/// Who issues a file that does not say: FOCUS 1.3 has no column for it in ContractCommitment.
const UNKNOWN: &str = "unknown";

/// Which of the data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    /// Which months are closed.
    BillingPeriod,
    /// Terms of commitments.
    ContractCommitment,
    /// What invoices come to.
    InvoiceDetail,
}

impl DataSet {
    const ALL: [Self; 3] = [Self::BillingPeriod, Self::ContractCommitment, Self::InvoiceDetail];

    /// As FOCUS spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BillingPeriod => "BillingPeriod",
            Self::ContractCommitment => "ContractCommitment",
            Self::InvoiceDetail => "InvoiceDetail",
        }
    }

    /// What a row says nothing without, and by what the data set is told.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::BillingPeriod => &["BillingPeriodStart", "BillingPeriodStatus"],
            Self::ContractCommitment => &[
                "ContractCommitmentId",
                "ContractCommitmentPeriodEnd",
                "ContractCommitmentPeriodStart",
            ],
            Self::InvoiceDetail => &[
                "BilledCost",
                "BillingAccountId",
                "BillingCurrency",
                "BillingPeriodStart",
                "InvoiceDetailId",
                "InvoiceId",
            ],
        }
    }
}

/// What a file of statements says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Which data set it is.
    pub data_set: DataSet,
    /// By account and month, sorted.
    pub invoices: BTreeMap<(String, BillingMonth), Vec<InvoiceTotal>>,
    /// By issuer; the last line about each.
    pub commitments: BTreeMap<String, BTreeMap<String, Commitment>>,
    /// By issuer.
    pub periods: BTreeMap<String, BTreeMap<BillingMonth, Period>>,
    /// Rows that do not read.
    pub bad: Vec<BadLine>,
    /// Rows that do not say who issues, and the first of them.
    pub nameless: Option<(u64, u64)>,
}

/// The data set of a heading, if it is not one of lines.
pub(super) fn told(heading: &[String]) -> Option<DataSet> {
    let has = |name: &&str| heading.iter().any(|column| column == name);
    // CostAndUsage has InvoiceDetailId as well, and lines have a period.
    if has(&"ChargePeriodStart") {
        return None;
    }
    DataSet::ALL.into_iter().find(|one| one.needs().iter().all(has))
}

/// A row, by the names of its columns.
struct Row<'r> {
    heading: &'r [String],
    record: &'r StringRecord,
    line: u64,
}

impl<'r> Row<'r> {
    fn get(&self, name: &str) -> Option<&'r str> {
        let place = self.heading.iter().position(|column| column == name)?;
        let text = self.record.get(place)?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        (!text.is_empty() && text != "NULL").then_some(text)
    }

    fn bad(&self, column: &str, reason: &str) -> BadLine {
        BadLine {
            line: self.line,
            column: column.to_owned(),
            value: shortened(self.get(column).unwrap_or_default()),
            reason: reason.to_owned(),
            billed: None,
        }
    }

    fn text(&self, name: &str) -> Result<&'r str, BadLine> {
        self.get(name).ok_or_else(|| self.bad(name, "is missing"))
    }

    fn moment(&self, name: &str) -> Result<DateTime<Utc>, BadLine> {
        let read = time(self.text(name)?);
        read.map(|time| time.moment).ok_or_else(|| self.bad(name, "is not a time"))
    }

    fn month(&self) -> Result<BillingMonth, BadLine> {
        let (name, text) = ("BillingPeriodStart", self.text("BillingPeriodStart")?);
        let read = time(text).ok_or_else(|| self.bad(name, "is not a time"))?;
        Ok(BillingMonth::of(read.local.date()))
    }

    fn amount(&self, name: &str) -> Result<Amount, BadLine> {
        let read = number(self.text(name)?).map_err(|reason| self.bad(name, reason))?;
        Ok(read.amount)
    }

    fn currency(&self) -> Result<Currency, BadLine> {
        let name = "BillingCurrency";
        Currency::try_from(self.text(name)?.to_owned())
            .map_err(|_| self.bad(name, "is not a currency's code"))
    }
}

impl Stated {
    /// Takes all of a file in.
    pub(super) fn read(data_set: DataSet, mut records: Records<'_>) -> Result<Self, BillFault> {
        let mut stated = Self {
            data_set,
            invoices: BTreeMap::new(),
            commitments: BTreeMap::new(),
            periods: BTreeMap::new(),
            bad: Vec::new(),
            nameless: None,
        };
        let heading = records.heading().to_vec();
        let mut twice = BTreeSet::new();
        let doubled = heading.iter().filter(|name| !twice.insert(*name)).cloned();
        let doubled: Vec<_> = doubled.collect();
        if !doubled.is_empty() {
            return Err(BillFault::Twice(doubled));
        }
        let mut totals = BTreeMap::new();
        let (mut record, mut rows) = (StringRecord::new(), 0);
        while let Some(row) = records.next(&mut record) {
            rows += 1;
            if rows > ROWS_MAX {
                return Err(BillFault::TooLong { data_set: data_set.name(), most: ROWS_MAX });
            }
            let taken = row.and_then(|(line, _)| {
                stated.take(&Row { heading: &heading, record: &record, line }, &mut totals)
            });
            if let Err(bad) = taken {
                stated.bad.push(bad);
            }
        }
        if let Some(reason) = records.cut_short() {
            return Err(BillFault::Cut(reason.to_owned()));
        }
        for ((account, month, invoice, issuer, currency), billed) in totals {
            let total = InvoiceTotal { invoice, issuer, currency, billed };
            stated.invoices.entry((account, month)).or_default().push(total);
        }
        Ok(stated)
    }

    fn take(&mut self, row: &Row<'_>, totals: &mut Totals) -> Result<(), BadLine> {
        let names = ["InvoiceIssuerName", "ServiceProviderName", "ProviderName"];
        let issuer = names.iter().find_map(|name| row.get(name));
        let nameless = issuer.is_none();
        let issuer = issuer.unwrap_or(UNKNOWN).to_owned();
        match self.data_set {
            DataSet::BillingPeriod => {
                let month = row.month()?;
                let period = match row.text("BillingPeriodStatus")? {
                    "Closed" => Period::Closed,
                    "Open" => Period::Open,
                    _ => return Err(row.bad("BillingPeriodStatus", "is neither Open nor Closed")),
                };
                self.periods.entry(issuer).or_default().insert(month, period);
            }
            DataSet::ContractCommitment => {
                let commitment = commitment(row)?;
                let of = self.commitments.entry(issuer).or_default();
                of.insert(commitment.id.clone(), commitment);
            }
            DataSet::InvoiceDetail => {
                // A voided invoice asks for nothing.
                let voided = row.get("InvoiceIssueStatus") == Some("Voided");
                let billed = if voided { Amount::ZERO } else { row.amount("BilledCost")? };
                let key = (
                    row.text("BillingAccountId")?.to_owned(),
                    row.month()?,
                    row.text("InvoiceId")?.to_owned(),
                    issuer,
                    row.currency()?,
                );
                let total = totals.entry(key).or_default();
                *total = total
                    .checked_add(billed)
                    .ok_or_else(|| row.bad("BilledCost", "is too large for an amount"))?;
            }
        }
        if nameless {
            self.nameless.get_or_insert((0, row.line)).0 += 1;
        }
        Ok(())
    }
}

/// By account, month, invoice, issuer and currency.
type Totals = BTreeMap<(String, BillingMonth, String, String, Currency), Amount>;

/// What of a commitment has a field of its own.
const TAKEN: [&str; 12] = [
    "BillingCurrency",
    "ContractCommitmentCategory",
    "ContractCommitmentCost",
    "ContractCommitmentId",
    "ContractCommitmentLifecycleStatus",
    "ContractCommitmentPaymentInterval",
    "ContractCommitmentPaymentModel",
    "ContractCommitmentPaymentUpfrontPercentage",
    "ContractCommitmentPeriodEnd",
    "ContractCommitmentPeriodStart",
    "ContractId",
    "InvoiceIssuerName",
];

fn commitment(row: &Row<'_>) -> Result<Commitment, BadLine> {
    let (from, to) =
        (row.moment("ContractCommitmentPeriodStart")?, row.moment("ContractCommitmentPeriodEnd")?);
    if to < from {
        return Err(row.bad("ContractCommitmentPeriodEnd", "is before the period begins"));
    }
    let cost = match row.get("ContractCommitmentCost") {
        Some(_) => Some(row.amount("ContractCommitmentCost")?),
        None => None,
    };
    let currency = match row.get("BillingCurrency") {
        Some(_) => Some(row.currency()?),
        None => None,
    };
    let text = |name| row.get(name).unwrap_or_default().to_owned();
    let other = row.heading.iter().filter(|name| !TAKEN.contains(&name.as_str()));
    let other = other.filter_map(|name| Some((name.clone(), row.get(name)?.to_owned())));
    Ok(Commitment {
        id: row.text("ContractCommitmentId")?.to_owned(),
        contract: text("ContractId"),
        from,
        to,
        cost,
        currency,
        payment_model: text("ContractCommitmentPaymentModel"),
        payment_interval: text("ContractCommitmentPaymentInterval"),
        upfront_percent: text("ContractCommitmentPaymentUpfrontPercentage"),
        category: text("ContractCommitmentCategory"),
        status: text("ContractCommitmentLifecycleStatus"),
        other: other.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Opened, open},
        *,
    };

    fn stated(text: &str) -> Stated {
        let opened = open(text.as_bytes(), None, &std::env::temp_dir()).unwrap();
        let Opened::Stated(stated) = opened else { panic!("{opened:?}") };
        stated
    }

    #[test]
    fn invoices_are_totals_by_number_issuer_and_currency() {
        let stated = stated(
            "InvoiceDetailId,InvoiceId,InvoiceIssuerName,BillingAccountId,BillingPeriodStart,\
             BillingCurrency,BilledCost,InvoiceIssueStatus\n\
             1,A,AWS,42,2026-10-01T00:00:00Z,USD,1.5,Issued\n\
             2,A,AWS,42,2026-10-01T00:00:00Z,USD,-0.25,Issued\n\
             3,A,AWS,42,2026-10-01T00:00:00Z,EUR,7,Issued\n\
             4,B,AWS,42,2026-10-01T00:00:00Z,USD,9,Voided\n\
             5,C,AWS,42,2026-10-01T00:00:00Z,USD,nine,Issued\n\
             6,D,AWS,43,2026-10-01T00:00:00Z,USD,2,Open\n",
        );
        assert_eq!(stated.data_set, DataSet::InvoiceDetail);
        let shown: Vec<String> = stated
            .invoices
            .iter()
            .flat_map(|((account, month), totals)| {
                totals.iter().map(move |one| {
                    format!("{account} {month} {} {} {}", one.invoice, one.billed, one.currency)
                })
            })
            .collect();
        let expected = [
            "42 2026-10 A 7 EUR",
            "42 2026-10 A 1.25 USD",
            "42 2026-10 B 0 USD",
            "43 2026-10 D 2 USD",
        ];
        assert_eq!(shown, expected);
        assert_eq!((stated.bad[0].line, &*stated.bad[0].column), (6, "BilledCost"));
    }

    #[test]
    fn commitments_keep_their_terms_and_periods_their_status() {
        let terms = stated(
            "ContractCommitmentId,ContractId,ContractCommitmentPeriodStart,\
             ContractCommitmentPeriodEnd,ContractCommitmentCost,BillingCurrency,\
             ContractCommitmentPaymentModel,ContractCommitmentType\n\
             sp-1,c-1,2026-01-01T00:00:00Z,2027-01-01T00:00:00Z,1200,USD,All Upfront,Savings Plan\n\
             sp-2,c-1,2026-01-01T00:00:00Z,2025-01-01T00:00:00Z,,,,\n",
        );
        let one = &terms.commitments[UNKNOWN]["sp-1"];
        assert_eq!((one.cost, &*one.payment_model), (Some("1200".parse().unwrap()), "All Upfront"));
        assert_eq!(one.other["ContractCommitmentType"], "Savings Plan");
        assert_eq!((terms.bad.len(), terms.nameless), (1, Some((1, 2))));
        let periods = stated(
            "BillingPeriodStart,BillingPeriodEnd,BillingPeriodStatus,InvoiceIssuerName\n\
             2026-09-01,2026-10-01,Closed,AWS\n2026-10-01,2026-11-01,Open,AWS\n2026-11-01,,Ajar,AWS\n",
        );
        let of: Vec<_> = periods.periods["AWS"].values().collect();
        assert_eq!(of, [&Period::Closed, &Period::Open]);
        assert_eq!(periods.bad.len(), 1);
    }
}
