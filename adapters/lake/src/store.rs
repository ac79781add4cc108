//! The port: a file in, segments out.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io::{self, Read},
};

use commands::ports::{BillFault, BillStore, Lines, Part, Quarantined, ReadBill, Reading};
use domain::finops::{
    amount::BillingMonth,
    bill::{ByCurrency, Sums},
    line::Line,
};
use sha2::{Digest, Sha256};

use crate::{BadLine, Lake, LakeFault, Mapping, SegmentWriter, bill, segment::hex};

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

/// One account and month of a file that is being read.
struct Open {
    writer: SegmentWriter,
    lines: u64,
    sums: ByCurrency,
}

impl Open {
    fn push(&mut self, line: &Line) -> Result<(), BillFault> {
        let sum = self.sums.entry(line.currency.clone()).or_default();
        *sum = sum.checked_add(Sums::of(line)).ok_or_else(|| {
            BillFault::Refused(format!("line {}: the sum is beyond 39 digits", line.number))
        })?;
        self.lines += 1;
        Ok(self.writer.push(line)?)
    }
}

impl Open {
    fn finish(self, (billing_account, month): (String, BillingMonth)) -> Result<Part, BillFault> {
        let Self { writer, lines, sums } = self;
        Ok(Part { billing_account, month, digest: writer.finish()?.digest, lines, sums })
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

impl BillStore for Lake {
    fn read(&self, file: &mut (dyn Read + Send), how: &Reading) -> Result<ReadBill, BillFault> {
        let mapping = how.mapping.as_deref().map(mapping).transpose()?;
        let mut hashed = Hashed { source: file, sha: Sha256::new(), failed: None };
        let mut read = ReadBill::default();
        let mut open: BTreeMap<(String, BillingMonth), Open> = BTreeMap::new();
        let mut bill = bill::open(&mut hashed, mapping.as_ref(), self.folder())?;
        for line in bill.by_ref() {
            let line = match line {
                Ok(line) => line,
                Err(bad) if how.strict => {
                    let BadLine { line, column, value, reason, .. } = bad;
                    let place = if column.is_empty() { column } else { format!(", {column}") };
                    let detail = format!("line {line}{place}: {reason} ({value:?})");
                    return Err(BillFault::Refused(detail));
                }
                Err(bad) => {
                    quarantine(&mut read, bad)?;
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
                    let writer = self.writer()?;
                    let part = Open { writer, lines: 0, sums: ByCurrency::new() };
                    place.insert(part).push(&line)?;
                }
            }
        }
        // A part of a file is never booked as if it were all of it.
        if let Some(reason) = bill.cut_short() {
            return Err(BillFault::Refused(format!("the file breaks off: {reason}")));
        }
        let findings = bill.findings();
        drop(bill);
        let drained = io::copy(&mut hashed, &mut io::sink());
        if let Some(error) = hashed.failed.or_else(|| drained.err().map(|error| error.to_string()))
        {
            return Err(BillFault::Refused(format!("the file breaks off: {error}")));
        }
        read.source_digest = hex(hashed.sha);
        read.findings = findings
            .into_iter()
            .map(|one| (one.rule.code().to_owned(), (one.count, one.first)))
            .collect();
        for (bill, part) in open {
            read.parts.push(part.finish(bill)?);
        }
        if read.parts.is_empty() && read.quarantined == 0 {
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
                parts.push(part.finish(before)?);
            }
            let (_, part) = match &mut open {
                Some(open) => open,
                none => none.insert((
                    bill,
                    Open { writer: self.writer()?, lines: 0, sums: ByCurrency::new() },
                )),
            };
            part.push(&line)?;
        }
        if let Some((bill, part)) = open {
            parts.push(part.finish(bill)?);
        }
        Ok(parts)
    }

    fn empty(&self) -> Result<String, BillFault> {
        Ok(self.writer()?.finish()?.digest)
    }

    fn lines(&self, digest: &str) -> Result<Lines, BillFault> {
        let lines = self.lines(digest)?;
        Ok(Box::new(lines.map(|line| line.map_err(BillFault::from))))
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
