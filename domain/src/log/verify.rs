//! The offline verifier: fed an export line by line, it says whether the log is what it was, and
//! else names the first record that was edited, deleted, inserted, reordered or cut off.
//!
//! What it can tell depends on what it is given:
//!
//! | given | an edit by somebody who | shows as |
//! |---|---|---|
//! | the export alone | cannot recompute hashes | the record, by its leaf, place, revision or time |
//! | and the public key | recomputes leaves, or the head too | a head that does not fit |
//! | and the witness | recomputes everything, even with the signing key | the record, by name |
//!
//! It needs neither server nor store nor clock. Memory: 24 bytes a stream, 40 a witnessed record,
//! and 8 a record after the first that differs.

use std::{collections::HashMap, fmt};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{
    export::ExportLine,
    merkle::{Frontier, Hash},
    note::{Check, SignedHead, VerifierKey, hex},
    record::{Position, Record},
    witness::{Tag, WitnessEntry, Witnessed},
};
use crate::kernel::sha256;

/// What was done to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tampering {
    /// A record is not as it was.
    Edited,
    /// A record that was there is missing.
    Deleted,
    /// A record was put in.
    Inserted,
    /// Records stand in another order.
    Reordered,
    /// The end is missing, though the head says it was there.
    CutOff,
    /// From here on all records are others than the witness saw.
    TailReplaced,
    /// Whole and signed, but it ends before the witness: an old backup, or an older export.
    OldBackup,
    /// The export's first or last line is not what was written or signed.
    Head,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was done.
    pub kind: Tampering,
    /// The record's place in the log; none when only the whole is known to be wrong.
    pub position: Option<Position>,
    /// How it shows.
    pub detail: String,
}

/// What became of the signature below the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// The given key made it.
    Good,
    /// The given key did not make it.
    Bad,
    /// No key was given, or there is no signature.
    Unchecked,
}

/// What verifying came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How many records were read.
    pub records: u64,
    /// The root over them, in hex.
    pub root: String,
    /// Whether the head below the export is the key's.
    pub signature: Signature,
    /// How far the witness goes; none when no witness was given.
    pub witnessed: Option<Position>,
    /// The records 1…this are, leaf for leaf, those the witness saw.
    pub vouched: Position,
    /// The first thing that is wrong; none when all is well.
    pub finding: Option<Finding>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            None => write!(f, "verified: {} records, root {}", self.records, self.root)?,
            Some(Finding { kind, position, detail }) => {
                let kind = format!("{kind:?}").to_lowercase();
                match position {
                    Some(position) => write!(f, "NOT verified: {kind} at position {position}: ")?,
                    None => write!(f, "NOT verified: {kind}: ")?,
                }
                write!(f, "{detail}")?;
            }
        }
        match self.signature {
            Signature::Good => write!(f, "; the head is signed with the key")?,
            Signature::Bad => write!(f, "; the head is NOT signed with the key")?,
            Signature::Unchecked => write!(f, "; no key was checked")?,
        }
        match self.witnessed {
            Some(size) => {
                write!(f, "; the witness goes to {size} and vouches to {}", self.vouched)
            }
            None => write!(f, "; without a witness"),
        }
    }
}

/// Reads an export, line by line.
#[derive(Default)]
pub struct Verifier {
    witness: Option<Witnessed>,
    key: Option<(VerifierKey, Check)>,
    header: Option<(String, u64)>,
    head: Option<SignedHead>,
    lines: u64,
    records: u64,
    /// The position the next record must have.
    expected: Position,
    frontier: Frontier,
    revisions: HashMap<[u8; 16], u64>,
    recorded_at: DateTime<Utc>,
    found: Option<Finding>,
    /// The position that a jump left out, while it may still come up later.
    left_out: Option<Position>,
    /// Place of the first record, from 0, whose leaf the witness saw otherwise.
    differs: Option<u64>,
    /// Tags of the records from there on.
    tags_after: Vec<Tag>,
}

impl Verifier {
    /// A verifier with what the auditor has besides the export.
    pub fn new(witness: Option<Witnessed>, key: Option<(VerifierKey, Check)>) -> Self {
        Self { witness, key, expected: 1, ..Self::default() }
    }

    /// What was found so far, in the lines alone: a reader that only wants good records stops here.
    pub fn finding(&self) -> Option<&Finding> {
        self.found.as_ref()
    }

    /// The signed head, once the last line was read.
    pub fn head(&self) -> Option<&SignedHead> {
        self.head.as_ref()
    }

    /// Position of the last record read so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Takes the next line, without its line feed; gives back its record if it is one.
    pub fn feed(&mut self, line: &[u8]) -> Option<Record> {
        self.lines += 1;
        let first = self.lines == 1;
        if self.head.is_some() {
            self.note(Tampering::Inserted, Some(self.expected), "a line after the signed head");
            return None;
        }
        match ExportLine::parse(line) {
            Ok(ExportLine::Header { origin, size }) if first => {
                self.header = Some((origin, size));
                None
            }
            Ok(ExportLine::Head(signed)) if !first => {
                self.head = Some(signed);
                None
            }
            Ok(ExportLine::Record { record, leaf }) if !first => {
                self.record(&record, leaf);
                Some(record)
            }
            Ok(_) => {
                self.note(Tampering::Head, None, "a line that belongs elsewhere");
                None
            }
            Err(reason) if first => {
                self.note(Tampering::Head, None, reason);
                None
            }
            Err(reason) => {
                // A last line that does not read is no record: it would count as one too many.
                if line.starts_with(br#"{"head""#) {
                    self.note(Tampering::Head, None, reason);
                } else {
                    self.note(Tampering::Edited, Some(self.expected), reason);
                    self.place(Hash::default(), Tag::default());
                    self.expected += 1;
                }
                None
            }
        }
    }

    fn record(&mut self, record: &Record, stated: Hash) {
        let Ok((leaf, tag)) = WitnessEntry::of(record) else {
            self.note(Tampering::Edited, Some(self.expected), "the record does not read");
            return;
        };
        let position = record.position();
        let place = self.expected;
        if leaf != stated {
            self.note(
                Tampering::Edited,
                Some(self.expected),
                "its leaf hash is not that of the record",
            );
            self.expected += 1;
        } else if position == self.expected {
            self.expected += 1;
        } else if position > self.expected {
            let detail = format!("position {} is followed by {position}", self.expected - 1);
            self.left_out.get_or_insert(self.expected);
            self.note(Tampering::Deleted, Some(self.expected), &detail);
            self.expected = position + 1;
        } else if self.left_out == Some(position) {
            // What looked left out stands further down. Only the first jump can have been named.
            if let Some(found) = &mut self.found
                && found.kind == Tampering::Deleted
                && found.position == self.left_out
            {
                found.kind = Tampering::Reordered;
                found.detail = format!("position {position} stands at place {}", self.records + 1);
            }
        } else {
            // Next to each other, either of the two can be the one put in.
            let named = if position + 1 == self.expected { position } else { self.expected };
            let detail = format!("position {position} is there twice");
            self.note(Tampering::Inserted, Some(named), &detail);
        }
        self.follow(record, place);
        self.place(leaf, tag);
    }

    /// Checks that the record follows in its stream and in time.
    fn follow(&mut self, record: &Record, place: Position) {
        let name = format!("{}/{}", record.kind(), record.id());
        let mut stream = [0; 16];
        stream.copy_from_slice(&sha256(name.as_bytes())[..16]);
        let last = self.revisions.entry(stream).or_default();
        let wanted = *last + 1;
        let revision = record.revision();
        *last = revision;
        let place = Some(place);
        if revision != wanted {
            let kind = if revision > wanted { Tampering::Deleted } else { Tampering::Inserted };
            let detail = format!("{name} has revision {revision} where {wanted} is due");
            self.note(kind, place, &detail);
        }
        if record.recorded_at() < self.recorded_at {
            self.note(Tampering::Reordered, place, "it was recorded before the record before it");
        }
        self.recorded_at = self.recorded_at.max(record.recorded_at());
    }

    fn place(&mut self, leaf: Hash, tag: Tag) {
        if let Some(witness) = &self.witness
            && self.differs.is_none()
            && witness.leaf(self.records).is_some_and(|seen| *seen != leaf)
        {
            self.differs = Some(self.records);
        }
        if self.differs.is_some() {
            self.tags_after.push(tag);
        }
        self.frontier.push(leaf, |_| {});
        self.records += 1;
    }

    /// Keeps the first finding: the lowest position, and of one position the first that was noted.
    /// One without a position comes last.
    fn note(&mut self, kind: Tampering, position: Option<Position>, detail: &str) {
        let rank = |position: Option<Position>| position.unwrap_or(Position::MAX);
        if self.found.as_ref().is_none_or(|found| rank(position) < rank(found.position)) {
            self.found = Some(Finding { kind, position, detail: detail.to_owned() });
        }
    }

    /// What the witness says was done where the first leaf differs.
    fn witnessed(&self) -> Option<Finding> {
        let index = self.differs?;
        let seen = self.witness.as_ref()?.tags().get(index as usize..)?;
        let (is, was) = (self.tags_after.first()?, seen.first()?);
        let at = |tags: &[Tag], tag: &Tag| tags.iter().position(|one| one == tag);
        let (kind, detail) = if is == was {
            (Tampering::Edited, "the witness saw this record with other content".to_owned())
        } else {
            match (at(&self.tags_after, was), at(seen, is)) {
                (Some(later), Some(_)) => (
                    Tampering::Reordered,
                    format!("the record the witness saw here stands {later} further down"),
                ),
                (Some(count), None) => (
                    Tampering::Inserted,
                    format!("{count} that the witness did not see stand before the one it saw"),
                ),
                (None, Some(count)) => (
                    Tampering::Deleted,
                    format!("{count} that the witness saw from here on are missing"),
                ),
                (None, None) => {
                    let known: std::collections::HashSet<&Tag> = seen.iter().collect();
                    if self.tags_after.iter().any(|tag| known.contains(tag)) {
                        (
                            Tampering::Edited,
                            "another record stands where the witness saw one".to_owned(),
                        )
                    } else {
                        (
                            Tampering::TailReplaced,
                            "no record from here on is one that the witness saw".to_owned(),
                        )
                    }
                }
            }
        };
        Some(Finding { kind, position: Some(index + 1), detail })
    }

    /// After the last line.
    pub fn finish(mut self) -> Verdict {
        // On one position the witness knows better than the lines: it goes first.
        if let Some(named) = self.witnessed()
            && self.found.as_ref().is_none_or(|found| {
                found.position.is_none_or(|other| named.position <= Some(other))
            })
        {
            self.found = Some(named);
        }
        let signature = match (&self.head, &self.key) {
            (Some(head), Some((key, check))) if head.signed_by(key, *check) => Signature::Good,
            (Some(_), Some(_)) => Signature::Bad,
            _ => Signature::Unchecked,
        };
        let (records, root) = (self.records, self.frontier.root());
        let next = Some(records + 1);
        let witnessed = self.witness.as_ref().map(Witnessed::size);
        match self.head.as_ref().map(|signed| signed.head.clone()) {
            None => {
                self.note(Tampering::CutOff, next, "there is no signed head after this record");
            }
            Some(head) if head.size > records => {
                let detail = format!("the signed head is over {} records", head.size);
                self.note(Tampering::CutOff, next, &detail);
            }
            Some(head) if head.size < records => {
                let detail = format!("the signed head is only over {} records", head.size);
                self.note(Tampering::Inserted, Some(head.size + 1), &detail);
            }
            Some(_) if witnessed.is_some_and(|size| size > records) => {
                let size = witnessed.unwrap_or_default();
                if signature == Signature::Bad {
                    let detail = format!("the witness saw {size} records");
                    self.note(Tampering::CutOff, next, &detail);
                } else {
                    let detail = format!(
                        "the witness saw {size} records: an old backup, or an export made earlier"
                    );
                    self.note(Tampering::OldBackup, next, &detail);
                }
            }
            Some(head) => self.compare(&head.origin, head.root == root, signature),
        }
        let vouched = witnessed.map_or(0, |size| size.min(self.differs.unwrap_or(records)));
        Verdict { records, root: hex(&root), signature, witnessed, vouched, finding: self.found }
    }

    /// Head and records have one length: do they also fit?
    fn compare(&mut self, origin: &str, fits: bool, signature: Signature) {
        let vouched = self.witness.as_ref().map_or(0, Witnessed::size);
        if signature == Signature::Bad {
            self.note(Tampering::Head, None, "the head is not signed with the key");
        } else if !fits && signature == Signature::Good {
            let detail = format!("the signed root is another: a record after {vouched} was edited");
            self.note(Tampering::Edited, None, &detail);
        } else if !fits {
            self.note(Tampering::Head, None, "the root is not the one over these records");
        }
        if self.header.as_ref() != Some(&(origin.to_owned(), self.records)) {
            self.note(Tampering::Head, None, "the first line is about another log or size");
        }
        let other =
            |signed: Option<&SignedHead>| signed.is_some_and(|signed| signed.head.origin != origin);
        if other(self.witness.as_ref().and_then(Witnessed::signed)) {
            self.note(Tampering::Head, None, "the witness is another log's");
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
