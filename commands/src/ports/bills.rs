//! Where bills are read, and where their lines lie.

use std::{borrow::Cow, cmp::Reverse, collections::BTreeMap, io::Read, sync::Arc};

use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    attribution::Alike,
    bill::{ByCurrency, InvoiceTotal, Segment, Sums},
    cost::{Basis, Dimension, Sum, Table, TooLarge},
    issuer::{Commitment, Period},
    line::Line,
};

use super::{Cell, Filter, Op};

/// How a file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The name of a built-in mapping, or one as JSON; none is told by the heading.
    pub mapping: Option<String>,
    /// One line that cannot be booked refuses the whole file.
    pub strict: bool,
}

/// Lines of one bill that a file had, in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `BillingAccountId`.
    pub billing_account: String,
    /// The month.
    pub month: BillingMonth,
    /// SHA-256 of the segment's file, in hexadecimal.
    pub digest: String,
    /// How many lines.
    pub lines: u64,
    /// What they come to.
    pub sums: ByCurrency,
    /// The same by invoice; none when there are more than a bill may have.
    pub invoices: Option<Vec<InvoiceTotal>>,
}

/// What an issuer says beside lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Terms of commitments.
    pub commitments: Vec<Commitment>,
    /// Which months are closed.
    pub periods: BTreeMap<BillingMonth, Period>,
}

/// Lines that are elsewhere as well, but for their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repeats {
    /// How many.
    pub lines: u64,
    /// The numbers of the first of them, at most [`Repeats::SHOWN_MAX`].
    pub shown: Vec<u64>,
}

impl Repeats {
    /// Most lines of a part that are named.
    pub const SHOWN_MAX: usize = 100;
}

/// A line that could not be booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The line's number in the file, the heading being line 1.
    pub line: u64,
    /// The column that does not read; empty when the line as a whole does not.
    pub column: String,
    /// What stands there, shortened.
    pub value: String,
    /// Why it cannot be booked.
    pub reason: String,
}

/// What came of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBill {
    /// Which of FOCUS's data sets it was.
    pub data_set: &'static str,
    /// SHA-256 of the file as it was sent, in hexadecimal.
    pub source_digest: String,
    /// What invoices say they come to, by account and month.
    pub invoices: BTreeMap<(String, BillingMonth), Vec<InvoiceTotal>>,
    /// What issuers say of months and commitments, by their names.
    pub issuers: BTreeMap<String, Statement>,
    /// One for each account and month, sorted.
    pub parts: Vec<Part>,
    /// How many lines could not be booked.
    pub quarantined: u64,
    /// The first of them, at most [`ReadBill::SHOWN_MAX`].
    pub shown: Vec<Quarantined>,
    /// What the lines that could not be booked are billed at, as far as that reads.
    pub missing: BTreeMap<Currency, Amount>,
    /// What of the lines breaks the specification and was booked all the same: how many lines, and
    /// the number of the first, by the finding's code.
    pub findings: BTreeMap<String, (u64, u64)>,
}

impl ReadBill {
    /// Most lines of a file that are shown with why they could not be booked.
    pub const SHOWN_MAX: usize = 100;
}

/// Why a bill is not read, or its lines are not found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BillFault {
    /// The file is not what it should be: whoever sent it can do something about it.
    #[error("{0}")]
    Refused(String),
    /// A segment is not there, or not what its digest says.
    #[error("segment {digest}: {reason}")]
    Damaged {
        /// The segment.
        digest: String,
        /// What is wrong.
        reason: String,
    },
    /// The disk, or what else the lines lie on, does not work.
    #[error("the segments cannot be reached: {0}")]
    Unavailable(String),
    /// A sum is beyond what an amount holds.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// What is asked of lines.
#[derive(Clone, Debug, Default)]
pub struct CostQuery {
    /// Which of their numbers.
    pub basis: Basis,
    /// By what they are grouped; any number of them.
    pub groups: Vec<Dimension>,
    /// All must hold.
    pub filters: Vec<(Dimension, Filter)>,
    /// Resources that are one group, called as the one that stands for them. Filters ask of the
    /// resources themselves.
    pub alike: Option<Arc<Alike>>,
}

impl CostQuery {
    /// What a line has for each group.
    pub fn group_of<'a>(&'a self, line: &'a Line) -> Vec<Cow<'a, str>> {
        let own = self.groups.iter().map(|group| match (&self.alike, group) {
            (Some(alike), Dimension::Plain("resource")) => alike.stands_for(&line.resource).into(),
            _ => group.of(line),
        });
        own.collect()
    }

    /// Whether the line is asked for.
    pub fn wants(&self, line: &Line) -> bool {
        self.filters.iter().all(|(dimension, filter)| filter.holds(&dimension.of(line)))
    }
}

impl Filter {
    /// Whether a text is asked for. Nothing, the empty text, differs from every value, and `null`
    /// finds it.
    pub fn holds(&self, value: &str) -> bool {
        let is = |cell: &Cell| match cell {
            Cell::Null => value.is_empty(),
            Cell::Boolean(yes) => !value.is_empty() && value == if *yes { "true" } else { "false" },
            Cell::Integer(number) => value == number.to_string(),
            Cell::Text(text) => value == text,
        };
        let text = |cell: Option<&Cell>| match cell {
            Some(Cell::Text(text)) => text.clone(),
            Some(Cell::Integer(number)) => number.to_string(),
            Some(Cell::Boolean(yes)) => yes.to_string(),
            Some(Cell::Null) | None => String::new(),
        };
        let first = || text(self.values.first());
        match self.op {
            Op::In => self.values.iter().any(is),
            Op::NotIn => !self.values.iter().any(is),
            Op::Less => !value.is_empty() && *value < *first(),
            Op::Greater => *value > *first(),
            Op::Prefix => value.starts_with(&first()),
            Op::Contains => value.to_lowercase().contains(&first().to_lowercase()),
        }
    }
}

/// Lines, one after the other.
pub type Lines = Box<dyn Iterator<Item = Result<Line, BillFault>> + Send>;

/// Reads bills into segments, and segments' lines. Blocks the thread.
pub trait BillStore: Send + Sync {
    /// Reads a file: its lines lie in segments when this comes back, and nothing counts them yet.
    /// The same file makes the same segments.
    fn read(&self, file: &mut (dyn Read + Send), how: &Reading) -> Result<ReadBill, BillFault>;
    /// Puts lines that were worked out here into segments, one for each account and month; those of
    /// one bill come one after the other. Nothing counts them yet; the same lines make the same
    /// segments.
    fn write(&self, lines: &mut dyn Iterator<Item = Line>) -> Result<Vec<Part>, BillFault>;
    /// The digest of a segment without lines, which is there when this comes back.
    fn empty(&self) -> Result<String, BillFault>;
    /// Which of a segment's lines are, but for their numbers, in one of the others as well.
    fn repeats(&self, segment: &str, others: &[&str]) -> Result<Repeats, BillFault>;
    /// A segment of the lines that are in none of the others; none when they all are.
    fn rest(&self, segment: &str, others: &[&str]) -> Result<Option<Part>, BillFault>;
    /// The lines of a segment, in the order they came.
    fn lines(&self, digest: &str) -> Result<Lines, BillFault>;

    /// What the lines of these segments come to that are asked for. Each segment must come to what
    /// its import said: it is [`BillFault::Damaged`] when it does not.
    fn sums(&self, segments: &[&Segment], asked: &CostQuery) -> Result<Table, BillFault> {
        sums_by_line(&|digest| self.lines(digest), segments, asked)
    }

    /// Where what is asked of these segments comes from, with at most so many of its lines. Of the
    /// groups those that are not `wanted` are left out.
    fn origins(
        &self,
        segments: &[&Segment],
        asked: &CostQuery,
        wanted: &Wanted<'_>,
        most: usize,
    ) -> Result<Origins, BillFault> {
        origins_by_line(&|digest| self.lines(digest), segments, asked, wanted, most)
    }
}

/// Whether a group is asked for, by the texts of its dimensions.
pub type Wanted<'a> = dyn Fn(&[&str]) -> bool + Sync + 'a;

/// Where a number comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origins {
    /// For each segment how many of its lines are asked for, and what these come to.
    pub parts: Vec<(u64, BTreeMap<Currency, Amount>)>,
    /// The largest lines by magnitude; of equal ones the first.
    pub lines: Vec<Found>,
}

/// A line of one of several segments.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The segment's place among those that were asked.
    pub segment: usize,
    /// The line's place in the segment, from 0.
    pub row: u64,
    /// The line.
    pub line: Line,
}

impl Origins {
    /// Keeps the largest lines.
    pub fn cut(&mut self, basis: Basis, most: usize) {
        let magnitude = |line: &Line| basis.of(line).0.unsigned_abs();
        self.lines.sort_by_key(|found| (Reverse(magnitude(&found.line)), found.segment, found.row));
        self.lines.truncate(most);
    }

    /// Takes in where other lines of the same segments come from.
    pub fn add(&mut self, other: Self) -> Result<(), TooLarge> {
        self.parts.resize(self.parts.len().max(other.parts.len()), Default::default());
        for ((lines, sums), (more, amounts)) in self.parts.iter_mut().zip(other.parts) {
            *lines += more;
            for (currency, amount) in amounts {
                let sum = sums.entry(currency).or_default();
                *sum = sum.checked_add(amount).ok_or(TooLarge)?;
            }
        }
        self.lines.extend(other.lines);
        Ok(())
    }
}

/// Tells the lines of a segment.
type Tell<'a> = dyn Fn(&str) -> Result<Lines, BillFault> + 'a;

/// [`BillStore::sums`], line by line.
pub fn sums_by_line(
    lines: &Tell<'_>,
    segments: &[&Segment],
    asked: &CostQuery,
) -> Result<Table, BillFault> {
    let mut table = Table::default();
    for segment in segments {
        let mut all = ByCurrency::new();
        for line in lines(&segment.digest)? {
            let line = line?;
            let sum = all.entry(line.currency.clone()).or_default();
            *sum = sum.checked_add(Sums::of(&line)).ok_or(TooLarge)?;
            if asked.wants(&line) {
                let group = asked.group_of(&line).into_iter().map(Cow::into_owned).collect();
                table.take(group, line.currency.clone(), Sum::of(asked.basis.of(&line))?)?;
            }
        }
        if all != segment.sums {
            let reason = "it does not come to what its import said".to_owned();
            return Err(BillFault::Damaged { digest: segment.digest.clone(), reason });
        }
    }
    Ok(table)
}

/// [`BillStore::origins`], line by line.
pub fn origins_by_line(
    lines: &Tell<'_>,
    segments: &[&Segment],
    asked: &CostQuery,
    wanted: &Wanted<'_>,
    most: usize,
) -> Result<Origins, BillFault> {
    let mut origins = Origins::default();
    for (place, segment) in segments.iter().enumerate() {
        let (mut count, mut sums) = (0, BTreeMap::<Currency, Amount>::new());
        for (line, row) in lines(&segment.digest)?.zip(0..) {
            let line = line?;
            if !asked.wants(&line) {
                continue;
            }
            let group = asked.group_of(&line);
            if !wanted(&group.iter().map(AsRef::as_ref).collect::<Vec<_>>()) {
                continue;
            }
            count += 1;
            let amount = asked.basis.of(&line);
            match sums.get_mut(&line.currency) {
                Some(sum) => *sum = sum.checked_add(amount).ok_or(TooLarge)?,
                None => {
                    sums.insert(line.currency.clone(), amount);
                }
            }
            origins.lines.push(Found { segment: place, row, line });
            // Twice as many are kept as are shown, so that sorting is rare.
            if origins.lines.len() >= 2 * most.max(1) {
                origins.cut(asked.basis, most);
            }
        }
        origins.parts.push((count, sums));
    }
    origins.cut(asked.basis, most);
    Ok(origins)
}
