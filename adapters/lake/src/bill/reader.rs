//! From the fields of a bill to lines.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator};
use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    line::{ChargeCategory, Line},
};

use super::{
    finding::{Broken, Finding, Rule, Tally},
    input::{FENCE, Fenced, Taken, unpacked},
    mapping::Mapping,
    plan::{Feed, Plan},
    value::{Number, Time},
};
use crate::segment::blank;

/// Letters of a value that a bad line shows.
const SHOWN: usize = 80;

/// The lines of a bill, in the order of the file. Bad lines do not end it.
pub struct Bill<'a> {
    csv: csv::Reader<Fenced<Box<dyn Read + Send + 'a>>>,
    taken: Taken,
    plan: Plan,
    name: String,
    record: StringRecord,
    tally: Tally,
    /// Bills are sorted by these more often than not.
    last: Last,
    ended: bool,
    cut_short: Option<String>,
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

/// Opens a bill: CSV, plain or packed by gzip or zstd. Without a mapping, the built-in one for its
/// heading is taken.
pub fn read<'a>(
    source: impl Read + Send + 'a,
    mapping: Option<&Mapping>,
) -> Result<Bill<'a>, BillFault> {
    let source = unpacked(source).map_err(BillFault::Unreadable)?;
    let taken = Taken::default();
    let mut csv = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        // The parser's own idea of CR LF counts its lines wrong.
        .terminator(Terminator::Any(b'\n'))
        .buffer_capacity(1 << 16)
        .from_reader(Fenced::new(source, Arc::clone(&taken)));
    let mut heading = StringRecord::new();
    csv.read_record(&mut heading).map_err(|fault| match fault.into_kind() {
        ErrorKind::Io(fault) => BillFault::Unreadable(fault),
        ErrorKind::Utf8 { err, .. } => BillFault::NoHeading(err.to_string()),
        _ => BillFault::NoHeading("it is no CSV".to_owned()),
    })?;
    taken.store(0, Relaxed);
    if heading.iter().next_back().is_none_or(|last| last.ends_with(FENCE)) {
        return Err(BillFault::NoHeading("it ends before its first line does".to_owned()));
    }
    let mut heading: Vec<_> = heading.iter().map(str::to_owned).collect();
    if let Some(last) = heading.last_mut()
        && last.ends_with('\r')
    {
        last.pop();
    }
    let detected;
    let mapping = match mapping {
        Some(mapping) => mapping,
        None => {
            detected = Mapping::detect(heading.iter().map(String::as_str));
            detected.as_ref().ok_or(BillFault::Unknown(heading.clone()))?
        }
    };
    Ok(Bill {
        csv,
        taken,
        plan: Plan::new(heading, mapping)?,
        name: mapping.name.clone(),
        record: StringRecord::new(),
        tally: Tally::default(),
        last: Last { currency: None, times: Default::default() },
        ended: false,
        cut_short: None,
    })
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
        self.cut_short.as_deref()
    }

    fn cut(&mut self, line: u64, reason: String) -> BadLine {
        self.ended = true;
        self.cut_short = Some(reason.clone());
        BadLine { line, column: String::new(), value: String::new(), reason, billed: None }
    }

    /// Takes the next line of the file apart: its number and how many line breaks are in it. None
    /// is the end.
    fn split(&mut self) -> Option<Result<(u64, u64), BadLine>> {
        let before = self.csv.position().line();
        let read = self.csv.read_record(&mut self.record);
        self.taken.store(0, Relaxed);
        let broken = |line, value: &str, reason| BadLine {
            line,
            column: String::new(),
            value: shortened(value),
            reason,
            billed: None,
        };
        match read {
            Ok(true) => {}
            Ok(false) => return Some(Err(self.cut(before, OPEN.to_owned()))),
            Err(fault) => {
                let line = fault.position().map_or(before, csv::Position::line);
                return Some(Err(match fault.into_kind() {
                    ErrorKind::Utf8 { err, .. } => {
                        let (place, from) = (err.field(), err.valid_up_to());
                        let column = self.plan.heading.get(place).cloned().unwrap_or_default();
                        let reason = format!("is not UTF-8 from its byte {from} on");
                        BadLine { column, ..broken(line, "", reason) }
                    }
                    ErrorKind::Io(fault) => self.cut(line, fault.to_string()),
                    _ => broken(line, "", "is no CSV".to_owned()),
                }));
            }
        }
        let breaks = self.record.as_slice().bytes().filter(|byte| *byte == b'\n').count() as u64;
        // The record's own position is that of the empty lines before it.
        let line = self.csv.position().line().saturating_sub(breaks + 1);
        let (fields, wanted) = (self.record.len(), self.plan.heading.len());
        let last = self.record.get(fields - 1).unwrap_or_default();
        if last == FENCE && fields == 1 {
            self.ended = true;
            return None;
        }
        if last.ends_with(FENCE) {
            // Nothing ends this one.
            return Some(Err(self.cut(line + 1, OPEN.to_owned())));
        }
        if fields != wanted {
            let reason = match breaks {
                0 => format!("has {fields} fields where the heading has {wanted}"),
                breaks => format!(
                    "has {fields} fields where the heading has {wanted}, over {} lines of the \
                     file: is a quote left open?",
                    breaks + 1
                ),
            };
            let first = self.record.get(0).unwrap_or_default();
            return Some(Err(broken(line, first, reason)));
        }
        Some(Ok((line, breaks)))
    }
}

const OPEN: &str = "a quote is opened here and never closed: the rest of the file is in it";

impl Iterator for Bill<'_> {
    type Item = Result<Line, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (number, breaks) = loop {
            match self.split()? {
                Ok(line) => break line,
                // An empty line, of those that end in CR LF.
                Err(_) if self.record.len() == 1 && &self.record[0] == "\r" => {}
                Err(bad) => return Some(Err(bad)),
            }
        };
        let mut broken = Broken::default();
        if breaks > 0 {
            broken.add(Rule::TextOverLines);
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

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
