//! From the fields of a bill to lines.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
};

use csv::StringRecord;
use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    line::{ChargeCategory, Line},
};

use super::{
    finding::{Broken, Finding, Rule, Tally},
    mapping::Mapping,
    plan::{Feed, Plan},
    records::{Records, shortened},
    statement::{self, Stated},
    value::{Number, Time},
};
use crate::segment::blank;

/// The lines of a bill, in the order of the file. Bad lines do not end it.
pub struct Bill<'a> {
    records: Records<'a>,
    plan: Plan,
    name: String,
    record: StringRecord,
    tally: Tally,
    /// Bills are sorted by these more often than not.
    last: Last,
    /// Costs are held as floating point numbers.
    floating: bool,
}

/// What was read last, for the next line is often the same.
struct Last {
    currency: Option<Currency>,
    times: [(String, Option<Time>); 3],
}

/// Why a bill cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum BillFault {
    /// Not even its beginning can be read.
    #[error("the bill cannot be read")]
    Unreadable(#[source] io::Error),
    /// Its heading is no text, or there is none.
    #[error("the bill has no heading: {0}")]
    NoHeading(String),
    /// None of the built-in mappings is for this heading.
    #[error("no built-in mapping is for a bill with the columns {}", .0.join(", "))]
    Unknown(Vec<String>),
    /// Columns that every line needs are not there.
    #[error("the bill lacks the columns {}", .0.join(", "))]
    Lacking(Vec<String>),
    /// It ends in the middle, or cannot be read on.
    #[error("the file breaks off: {0}")]
    Cut(String),
    /// It has more rows than are taken of such a file.
    #[error("a file of {data_set} has at most {most} rows")]
    TooLong {
        /// Which data set.
        data_set: &'static str,
        /// How many.
        most: usize,
    },
    /// Columns are there twice.
    #[error("the bill has more than one column {}", .0.join(", "))]
    Twice(Vec<String>),
}

/// A line that cannot be booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, the heading being line 1.
    pub line: u64,
    /// The column that is wrong, by the bill's own name; empty when the line as such is.
    pub column: String,
    /// What is in it, shortened.
    pub value: String,
    /// Why that cannot be booked.
    pub reason: String,
    /// What it would have cost, when that much can be read.
    pub billed: Option<(Amount, Currency)>,
}

/// A file of one of FOCUS's data sets.
#[derive(Debug)]
pub enum Opened<'a> {
    /// Lines: CostAndUsage, or whatever a mapping makes lines of.
    Bill(Box<Bill<'a>>),
    /// What issuers say of invoices, commitments and billing periods.
    Stated(Stated),
}

/// Opens a bill: CSV, plain or packed by gzip or zstd, or Parquet. Without a mapping, the built-in
/// one for its heading is taken.
pub fn read<'a>(
    source: impl Read + Send + 'a,
    mapping: Option<&Mapping>,
) -> Result<Bill<'a>, BillFault> {
    Bill::new(Records::open(source, &std::env::temp_dir())?, mapping)
}

/// Opens a file of any of the data sets, told by its heading; one that is read by a mapping is a
/// bill. A file of Parquet, which is read from its end, lies in the folder meanwhile.
pub fn open<'a>(
    source: impl Read + Send + 'a,
    mapping: Option<&Mapping>,
    folder: &Path,
) -> Result<Opened<'a>, BillFault> {
    let records = Records::open(source, folder)?;
    match statement::told(records.heading()) {
        Some(data_set) if mapping.is_none() => Stated::read(data_set, records).map(Opened::Stated),
        _ => Ok(Opened::Bill(Box::new(Bill::new(records, mapping)?))),
    }
}

impl<'a> Bill<'a> {
    fn new(records: Records<'a>, mapping: Option<&Mapping>) -> Result<Self, BillFault> {
        let heading = records.heading().to_vec();
        let detected;
        let mapping = match mapping {
            Some(mapping) => mapping,
            None => {
                detected = Mapping::detect(heading.iter().map(String::as_str));
                detected.as_ref().ok_or(BillFault::Unknown(heading.clone()))?
            }
        };
        let plan = Plan::new(heading, mapping)?;
        Ok(Self {
            floating: records.floating().into_iter().any(|place| plan.costs_by(place)),
            records,
            plan,
            name: mapping.name.clone(),
            record: StringRecord::new(),
            tally: Tally::default(),
            last: Last { currency: None, times: Default::default() },
        })
    }
}

impl Bill<'_> {
    /// What was odd in the lines so far, by rule.
    pub fn findings(&self) -> Vec<Finding> {
        self.tally.findings()
    }

    /// The name of the mapping by which it is read.
    pub fn mapping(&self) -> &str {
        &self.name
    }

    /// Why the rest of the bill could not be read: a file that is packed and damaged, a quote
    /// that nobody closes. The last bad line says so too.
    pub fn cut_short(&self) -> Option<&str> {
        self.records.cut_short()
    }
}

impl Iterator for Bill<'_> {
    type Item = Result<Line, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        let (number, breaks) = match self.records.next(&mut self.record)? {
            Ok(line) => line,
            Err(bad) => return Some(Err(bad)),
        };
        let mut broken = Broken::default();
        if breaks > 0 {
            broken.add(Rule::TextOverLines);
        }
        if self.floating {
            broken.add(Rule::CostFloating);
        }
        let line = booked(&self.plan, &mut self.last, &self.record, number, &mut broken);
        if line.is_ok() {
            self.tally.add(broken, number);
        }
        Some(line)
    }
}

impl std::fmt::Debug for Bill<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Bill").field("mapping", &self.name).finish_non_exhaustive()
    }
}

/// The line of these fields, or what is in the way of booking it.
#[expect(clippy::result_large_err, reason = "a line is larger still")]
fn booked(
    plan: &Plan,
    last: &mut Last,
    record: &StringRecord,
    number: u64,
    broken: &mut Broken,
) -> Result<Line, BadLine> {
    let bad = |feed: &Feed, place: Option<usize>, value: &str, reason: &str, billed| BadLine {
        line: number,
        column: place.map_or_else(|| feed.name.to_owned(), |place| plan.heading[place].clone()),
        value: shortened(value),
        reason: reason.to_owned(),
        billed,
    };

    // What the line costs first: a line that is bad for another reason should say it.
    let currency = match plan.text(&plan.currency, record) {
        Some((place, code)) => match &last.currency {
            Some(same) if same.code() == code => Ok(same.clone()),
            _ => match Currency::try_from(code.to_owned()) {
                Ok(currency) => Ok(last.currency.insert(currency).clone()),
                Err(_) => Err(bad(&plan.currency, place, code, "is not a currency's code", None)),
            },
        },
        None => Err(bad(&plan.currency, None, "", "is missing", None)),
    };
    let mut raw = Vec::new();
    let billed = match plan.cost(&plan.billed, record) {
        Ok(Some((place, number))) => {
            if number.rounded {
                broken.add(Rule::CostRounded);
                raw.extend(place);
            }
            number.amount
        }
        Ok(None) => return Err(bad(&plan.billed, None, "", "is missing", None)),
        Err(no) => return Err(bad(&plan.billed, no.column, no.text, no.reason, None)),
    };
    let currency = currency?;
    let worth = || Some((billed, currency.clone()));

    let mut line = blank(currency.clone());
    line.number = number;
    line.billed = billed;
    match plan.text(&plan.account, record) {
        Some((_, account)) => line.billing_account.push_str(account),
        None => return Err(bad(&plan.account, None, "", "is missing", worth())),
    }

    #[expect(clippy::result_large_err, reason = "a line is larger still")]
    let mut moment = |feed: &Feed, which: usize| {
        let Some((place, text)) = plan.text(feed, record) else {
            return Err(bad(feed, None, "", "is missing", worth()));
        };
        let (seen, time) = &mut last.times[which];
        if seen != text {
            text.clone_into(seen);
            *time = plan.time(text);
        }
        match time {
            Some(time) => Ok((place, *time)),
            None => Err(bad(feed, place, text, "is not a time", worth())),
        }
    };
    let (month_place, month) = moment(&plan.month, 0)?;
    let (_, from) = moment(&plan.from, 1)?;
    let (to_place, to) = moment(&plan.to, 2)?;
    if ![month, from, to].iter().all(|time| time.zoned) {
        broken.add(Rule::TimeWithoutZone);
    }
    if from.rounded || to.rounded {
        broken.add(Rule::TimeRounded);
    }
    line.month = BillingMonth::of(month.local.date());
    if month.local != line.month.first().into() && !plan.month_of_charge {
        broken.add(Rule::MonthNotFromItsFirst);
        raw.extend(month_place);
    }
    (line.from, line.to) = (from.moment, to.moment);
    if line.to == line.from {
        broken.add(Rule::ChargePeriodEmpty);
    } else if line.to < line.from {
        let text = plan.text(&plan.to, record).map_or("", |(_, text)| text);
        return Err(bad(&plan.to, to_place, text, "is before the charge begins", worth()));
    }

    // From here on the line can be booked.
    let mut cost = |feed: &Feed, missing: Rule, broken: &mut Broken| -> Option<Number> {
        match plan.cost(feed, record) {
            Ok(Some((place, number))) => {
                if number.rounded {
                    broken.add(Rule::CostRounded);
                    raw.extend(place);
                }
                Some(number)
            }
            Ok(None) => {
                broken.add(missing);
                None
            }
            Err(no) => {
                broken.add(Rule::CostUnreadable);
                broken.add(missing);
                raw.extend(no.column);
                None
            }
        }
    };
    let effective = cost(&plan.effective, Rule::EffectiveCostMissing, broken);
    let list = cost(&plan.list, Rule::ListCostMissing, broken);
    let contracted = cost(&plan.contracted, Rule::ContractedCostMissing, broken);
    line.effective = effective.map_or(billed, |number| number.amount);
    line.contracted = contracted.map_or(Amount::ZERO, |number| number.amount);
    if let Some(list) = list {
        line.list = list.amount;
        if plan.list_differs(record, list.amount) {
            broken.add(Rule::ListCostMismatch);
        }
    }

    line.category = match plan.text(&plan.category, record) {
        Some((place, name)) => ChargeCategory::by_name(name).unwrap_or_else(|| {
            broken.add(Rule::ChargeCategoryUnknown);
            raw.extend(place);
            ChargeCategory::Adjustment
        }),
        None => {
            broken.add(Rule::ChargeCategoryMissing);
            ChargeCategory::Adjustment
        }
    };
    line.correction = match plan.text(&plan.class, record) {
        None => false,
        Some((_, "Correction")) => true,
        Some((place, _)) => {
            broken.add(Rule::ChargeClassUnknown);
            raw.extend(place);
            false
        }
    };
    for (slot, feed) in &plan.texts {
        if let Some((_, text)) = plan.text(feed, record) {
            slot(&mut line).push_str(text);
        }
    }
    if line.service.is_empty() {
        broken.add(Rule::ServiceNameMissing);
    }

    let fields = |columns: &[(String, usize)]| -> BTreeMap<String, String> {
        let said = columns.iter().filter_map(|(name, place)| {
            plan.field(record, *place).map(|text| (name.clone(), text.to_owned()))
        });
        said.collect()
    };
    line.tags = fields(&plan.tag_columns);
    if let Some((place, text)) = plan.text(&plan.tags, record) {
        match plan.tags(text) {
            Some(tags) if line.tags.is_empty() => line.tags = tags,
            Some(tags) => line.tags.extend(tags),
            None => {
                broken.add(Rule::TagsUnreadable);
                raw.extend(place);
            }
        }
    }
    line.other = fields(&plan.other);
    for place in raw {
        line.other.insert(
            plan.heading[place].clone(),
            plan.field(record, place).unwrap_or_default().to_owned(),
        );
    }
    Ok(line)
}
