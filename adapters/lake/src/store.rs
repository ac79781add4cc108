//! The port: a file in, segments out.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::{self, Read},
};

use commands::ports::{
    BillFault, BillStore, CostQuery, Lines, Origins, Part, Quarantined, ReadBill, Reading, Repeats,
    Wanted,
};
use domain::finops::{
    amount::{Amount, BillingMonth, Currency},
    bill::{ByCurrency, InvoiceTotal, Segment, Sums},
    cost::Table,
    line::Line,
};
use sha2::{Digest, Sha256};

use crate::{
    BadLine, Bill, Lake, LakeFault, Mapping, Opened, SegmentWriter, Stated, bill, cube::Builder,
    repeats::Digests, segment::hex,
};

/// Most accounts and months in one file: each has a segment that is being written, and a few
/// thousand lines in memory.
const PARTS_MAX: usize = 48;

/// Tells the digest of what was read through it.
struct Hashed<'a> {
    source: &'a mut (dyn Read + Send),
    sha: Sha256,
    failed: Option<String>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.source.read(into) {
            Ok(length) => {
                self.sha.update(&into[..length]);
                Ok(length)
            }
            Err(error) => {
                self.failed = Some(error.to_string());
                Err(error)
            }
        }
    }
}

impl Hashed<'_> {
    /// Of all of the file, to its end.
    fn digest(mut self) -> Result<String, BillFault> {
        let drained = io::copy(&mut self, &mut io::sink());
        match self.failed.or_else(|| drained.err().map(|error| error.to_string())) {
            Some(error) => Err(BillFault::Refused(format!("the file breaks off: {error}"))),
            None => Ok(hex(self.sha)),
        }
    }
}

/// One account and month of a file that is being read.
struct Open {
    writer: SegmentWriter,
    lines: u64,
    sums: ByCurrency,
    invoices: Invoices,
    digests: Digests,
    cube: Builder,
}

/// What lines come to by invoice, issuer and currency; none once there are too many.
#[derive(Default)]
struct Invoices {
    by: Option<BTreeMap<(String, String, Currency), Amount>>,
    /// Lines that are near each other are of few invoices more often than not.
    last: Vec<((String, String, Currency), Amount)>,
}

impl Invoices {
    /// So many are looked through, line by line.
    const LAST_MAX: usize = 16;

    fn new() -> Self {
        Self { by: Some(BTreeMap::new()), last: Vec::new() }
    }

    fn add(&mut self, line: &Line) -> Option<()> {
        let wanted = (&line.invoice, &line.issuer, &line.currency);
        let found = self.last.iter_mut().find(|((invoice, issuer, currency), _)| {
            (issuer, invoice, currency) == (wanted.1, wanted.0, wanted.2)
        });
        if let Some((_, sum)) = found {
            *sum = sum.checked_add(line.billed)?;
            return Some(());
        }
        if self.last.len() == Self::LAST_MAX {
            self.settle()?;
        }
        let key = (line.invoice.clone(), line.issuer.clone(), line.currency.clone());
        self.last.push((key, line.billed));
        Some(())
    }

    fn settle(&mut self) -> Option<()> {
        for (key, billed) in self.last.drain(..) {
            let Some(by) = &mut self.by else { continue };
            let sum = by.entry(key).or_default();
            *sum = sum.checked_add(billed)?;
            if by.len() > InvoiceTotal::MAX {
                self.by = None;
            }
        }
        Some(())
    }

    fn totals(mut self) -> Option<Vec<InvoiceTotal>> {
        self.settle()?;
        let total = |((invoice, issuer, currency), billed)| InvoiceTotal {
            invoice,
            issuer,
            currency,
            billed,
        };
        Some(self.by?.into_iter().map(total).collect())
    }
}

impl Open {
    fn new(lake: &Lake) -> Result<Self, BillFault> {
        let (writer, digests) = (lake.writer()?, Digests::new(lake)?);
        let (sums, invoices) = (ByCurrency::new(), Invoices::new());
        let cube = Builder::new(lake.folder(), lake.cubes.limits)
            .map_err(|error| BillFault::Unavailable(error.to_string()))?;
        Ok(Self { writer, lines: 0, sums, invoices, digests, cube })
    }

    fn push(&mut self, line: &Line) -> Result<(), BillFault> {
        let sum = self.sums.entry(line.currency.clone()).or_default();
        let beyond =
            || BillFault::Refused(format!("line {}: the sum is beyond 39 digits", line.number));
        *sum = sum.checked_add(Sums::of(line)).ok_or_else(beyond)?;
        self.invoices.add(line).ok_or_else(beyond)?;
        let unwritten = |error: io::Error| BillFault::Unavailable(error.to_string());
        self.digests.push(line).map_err(unwritten)?;
        self.cube.push(line).map_err(unwritten)?;
        self.lines += 1;
        Ok(self.writer.push(line)?)
    }
}

impl Open {
    /// The part, how many of its lines repeat an earlier one of it, and the first that does.
    fn finish(
        self,
        lake: &Lake,
        (billing_account, month): (String, BillingMonth),
    ) -> Result<(Part, (u64, u64)), BillFault> {
        let Self { writer, lines, sums, invoices, digests, cube } = self;
        let digest = writer.finish()?.digest;
        let bytes = lake.written(&digest)?;
        cube.finish(&lake.cube_path(&digest)?, bytes, &sums)
            .map_err(|error| BillFault::Unavailable(error.to_string()))?;
        let repeated = digests.finish(lake, &digest)?;
        let invoices = invoices.totals();
        Ok((Part { billing_account, month, digest, lines, sums, invoices }, repeated))
    }
}

impl From<LakeFault> for BillFault {
    fn from(fault: LakeFault) -> Self {
        match fault {
            LakeFault::OutOfRange { .. } => Self::Refused(fault.to_string()),
            LakeFault::Missing(digest) => {
                Self::Damaged { digest, reason: "it is not in the data folder".to_owned() }
            }
            LakeFault::Damaged { digest, reason } => Self::Damaged { digest, reason },
            LakeFault::NotADigest(digest) => {
                Self::Damaged { digest, reason: "that is no segment's digest".to_owned() }
            }
            LakeFault::Folder { .. } | LakeFault::Unwritten(_) | LakeFault::Unreadable { .. } => {
                let cause = std::error::Error::source(&fault).map(ToString::to_string);
                Self::Unavailable(match cause {
                    Some(cause) => format!("{fault}: {cause}"),
                    None => fault.to_string(),
                })
            }
        }
    }
}

impl From<bill::BillFault> for BillFault {
    fn from(fault: bill::BillFault) -> Self {
        let cause = std::error::Error::source(&fault).map(ToString::to_string);
        Self::Refused(match cause {
            Some(cause) => format!("{fault}: {cause}"),
            None => fault.to_string(),
        })
    }
}

fn mapping(text: &str) -> Result<Mapping, BillFault> {
    Mapping::named(text).map_err(|fault| BillFault::Refused(fault.to_string()))
}

fn refused(bad: BadLine) -> BillFault {
    let BadLine { line, column, value, reason, .. } = bad;
    let place = if column.is_empty() { column } else { format!(", {column}") };
    BillFault::Refused(format!("line {line}{place}: {reason} ({value:?})"))
}

/// Puts down what a file of statements says.
fn say(read: &mut ReadBill, stated: Stated, strict: bool) -> Result<(), BillFault> {
    let Stated { data_set, invoices, commitments, periods, bad, nameless } = stated;
    read.data_set = data_set.name();
    for bad in bad {
        if strict {
            return Err(refused(bad));
        }
        quarantine(read, bad)?;
    }
    read.invoices = invoices;
    for (issuer, commitments) in commitments {
        let statement = read.issuers.entry(issuer).or_default();
        statement.commitments = commitments.into_values().collect();
    }
    for (issuer, periods) in periods {
        read.issuers.entry(issuer).or_default().periods = periods;
    }
    if let Some(nameless) = nameless {
        read.findings.insert("issuer-missing".to_owned(), nameless);
    }
    Ok(())
}

/// Counts a line that cannot be booked, and what is missing for it.
fn quarantine(read: &mut ReadBill, bad: BadLine) -> Result<(), BillFault> {
    read.quarantined += 1;
    if let Some((amount, currency)) = bad.billed {
        let sum = read.missing.entry(currency).or_default();
        *sum = sum.checked_add(amount).ok_or_else(|| {
            BillFault::Refused(format!("line {}: the sum is beyond 39 digits", bad.line))
        })?;
    }
    if read.shown.len() < ReadBill::SHOWN_MAX {
        let BadLine { line, column, value, reason, .. } = bad;
        read.shown.push(Quarantined { line, column, value, reason });
    }
    Ok(())
}

/// Parts of a file that are being written.
type Parts = BTreeMap<(String, BillingMonth), Open>;

impl Lake {
    /// Takes the lines of a bill, into a segment for each account and month.
    fn take(
        &self,
        mut bill: Bill<'_>,
        how: &Reading,
        read: &mut ReadBill,
    ) -> Result<Parts, BillFault> {
        read.data_set = "CostAndUsage";
        let mut open = Parts::new();
        for line in bill.by_ref() {
            let line = match line {
                Ok(line) => line,
                Err(bad) if how.strict => return Err(refused(bad)),
                Err(bad) => {
                    quarantine(read, bad)?;
                    continue;
                }
            };
            let full = open.len() == PARTS_MAX;
            match open.entry((line.billing_account.clone(), line.month)) {
                Entry::Occupied(mut part) => part.get_mut().push(&line)?,
                Entry::Vacant(_) if full => {
                    return Err(BillFault::Refused(format!(
                        "the file has lines of more than {PARTS_MAX} accounts and months"
                    )));
                }
                Entry::Vacant(place) => {
                    place.insert(Open::new(self)?).push(&line)?;
                }
            }
        }
        // A part of a file is never booked as if it were all of it.
        if let Some(reason) = bill.cut_short() {
            return Err(BillFault::Refused(format!("the file breaks off: {reason}")));
        }
        let findings = bill.findings().into_iter();
        read.findings =
            findings.map(|one| (one.rule.code().to_owned(), (one.count, one.first))).collect();
        Ok(open)
    }
}

impl BillStore for Lake {
    fn read(&self, file: &mut (dyn Read + Send), how: &Reading) -> Result<ReadBill, BillFault> {
        let mapping = how.mapping.as_deref().map(mapping).transpose()?;
        let mut hashed = Hashed { source: file, sha: Sha256::new(), failed: None };
        let mut read = ReadBill::default();
        let open = match bill::open(&mut hashed, mapping.as_ref(), self.folder())? {
            Opened::Bill(bill) => self.take(*bill, how, &mut read)?,
            Opened::Stated(stated) => {
                say(&mut read, stated, how.strict)?;
                BTreeMap::new()
            }
        };
        read.source_digest = hashed.digest()?;
        for (bill, part) in open {
            let (part, (lines, first)) = part.finish(self, bill)?;
            read.parts.push(part);
            if lines > 0 {
                // Bills have equal lines, and both count.
                let repeated =
                    read.findings.entry("line-repeated".to_owned()).or_insert((0, first));
                *repeated = (repeated.0 + lines, repeated.1.min(first));
            }
        }
        let nothing = read.parts.is_empty() && read.invoices.is_empty() && read.issuers.is_empty();
        if nothing && read.quarantined == 0 {
            return Err(BillFault::Refused("the file has a heading and no line".to_owned()));
        }
        Ok(read)
    }

    fn write(&self, lines: &mut dyn Iterator<Item = Line>) -> Result<Vec<Part>, BillFault> {
        let mut parts = Vec::new();
        let mut open: Option<((String, BillingMonth), Open)> = None;
        for line in lines {
            let bill = (line.billing_account.clone(), line.month);
            if let Some((before, part)) = open.take_if(|(before, _)| *before != bill) {
                parts.push(part.finish(self, before)?.0);
            }
            let (_, part) = match &mut open {
                Some(open) => open,
                none => none.insert((bill, Open::new(self)?)),
            };
            part.push(&line)?;
        }
        if let Some((bill, part)) = open {
            parts.push(part.finish(self, bill)?.0);
        }
        Ok(parts)
    }

    fn empty(&self) -> Result<String, BillFault> {
        Ok(self.writer()?.finish()?.digest)
    }

    fn repeats(&self, segment: &str, others: &[&str]) -> Result<Repeats, BillFault> {
        self.repeats_of(segment, others)
    }

    fn rest(&self, segment: &str, others: &[&str]) -> Result<Option<Part>, BillFault> {
        self.rest_of(segment, others)
    }

    fn lines(&self, digest: &str) -> Result<Lines, BillFault> {
        let lines = self.lines(digest)?;
        Ok(Box::new(lines.map(|line| line.map_err(BillFault::from))))
    }

    fn sums(&self, segments: &[&Segment], asked: &CostQuery) -> Result<Table, BillFault> {
        self.cube_sums(segments, asked)
    }

    fn origins(
        &self,
        segments: &[&Segment],
        asked: &CostQuery,
        wanted: &Wanted<'_>,
        most: usize,
    ) -> Result<Origins, BillFault> {
        self.cube_origins(segments, asked, wanted, most)
    }
}

#[cfg(test)]
mod tests {
    use domain::finops::amount::{Amount, Currency};

    use super::*;

    #[test]
    fn lines_worked_out_here_make_one_segment_for_each_bill_and_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path()).unwrap();
        let line = |account: &str, month: &str, billed| {
            let currency = Currency::try_from("EUR".to_owned()).unwrap();
            let mut line = Line::new(account, month.parse().unwrap(), currency);
            line.billed = Amount(billed);
            line
        };
        let lines =
            [line("a", "2026-10", 1), line("a", "2026-10", 2), line("a", "2026-11", 4)].to_vec();
        let write = || lake.write(&mut lines.clone().into_iter()).unwrap();
        let parts = write();
        let seen: Vec<_> = parts
            .iter()
            .map(|part| (part.month.to_string(), part.lines, part.sums.values().next().unwrap()))
            .map(|(month, lines, sums)| format!("{month} {lines} {}", sums.billed.0))
            .collect();
        assert_eq!(seen, ["2026-10 2 3", "2026-11 1 4"]);
        assert_eq!(parts, write());
        let read = BillStore::lines(&lake, &parts[0].digest).unwrap();
        assert_eq!(read.collect::<Result<Vec<_>, _>>().unwrap(), lines[..2]);
        let empty = lake.empty().unwrap();
        assert_eq!(BillStore::lines(&lake, &empty).unwrap().count(), 0);
    }
}
