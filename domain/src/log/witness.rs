//! What a witness outside the store keeps: for every published head, the signed note and two
//! hashes of each record since the one before, so that a record can be *named* as edited even when
//! somebody has recomputed every hash in the store.
//!
//! An entry is one line of JSON: `first` (position of its first record), `leaves` (leaf hashes,
//! base64 of them all), `note` (the signed head over everything up to its last record), `tags`
//! (eight bytes of each event id, base64) and `sum` (SHA-256 over the line before it, hex). The
//! tags tell which record is which when a forger has numbered all of them anew.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::{
    merkle::{Frontier, Hash},
    note::{Check, SignedHead, VerifierKey, hex},
    record::{Position, Record, RecordFault},
};
use crate::kernel::sha256;

/// The first bytes of an event id, which is itself a hash.
pub type Tag = [u8; 8];

/// One published head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessEntry {
    /// Position of the first record it brings.
    pub first: Position,
    /// Leaf of each record.
    pub leaves: Vec<Hash>,
    /// Tag of each record.
    pub tags: Vec<Tag>,
    /// The head over all records up to its last.
    pub signed: SignedHead,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    first: Position,
    leaves: String,
    note: String,
    tags: String,
    #[serde(rename = "sum")]
    _sum: String,
}

impl WitnessEntry {
    /// Most records in one entry (an entry of this many has 0.9 MB); more make several entries.
    pub const RECORDS_MAX: usize = 16_384;

    /// Leaf and tag of a record.
    pub fn of(record: &Record) -> Result<(Hash, Tag), RecordFault> {
        let id = record.try_header()?.event_id;
        let mut tag = Tag::default();
        tag.copy_from_slice(&id.as_bytes()[..8]);
        Ok((record.leaf(), tag))
    }

    /// As it is in the file, without the line feed.
    pub fn line(&self) -> String {
        let note = serde_json::Value::String(self.signed.to_string());
        let body = format!(
            r#"{{"first":{},"leaves":"{}","note":{note},"tags":"{}""#,
            self.first,
            BASE64_STANDARD.encode(self.leaves.as_flattened()),
            BASE64_STANDARD.encode(self.tags.as_flattened()),
        );
        let sum = hex(&sha256(body.as_bytes()));
        format!(r#"{body},"sum":"{sum}"}}"#)
    }

    /// Reads [`Self::line`], byte for byte; else says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let read: Line = serde_json::from_slice(line).map_err(|_| "the entry does not read")?;
        let leaves = BASE64_STANDARD.decode(read.leaves).map_err(|_| "leaves are not base64")?;
        let tags = BASE64_STANDARD.decode(read.tags).map_err(|_| "tags are not base64")?;
        let (leaves, no_leaf) = leaves.as_chunks::<32>();
        let (tags, no_tag) = tags.as_chunks::<8>();
        if !no_leaf.is_empty() || !no_tag.is_empty() || leaves.len() != tags.len() {
            return Err("leaves and tags do not fit");
        }
        let entry = Self {
            first: read.first,
            leaves: leaves.to_vec(),
            tags: tags.to_vec(),
            signed: read.note.parse().map_err(|_| "the note does not read")?,
        };
        if entry.line().as_bytes() == line { Ok(entry) } else { Err("the checksum is wrong") }
    }
}

/// How far the entries of a witness go, and that each follows on the one before.
#[derive(Clone, Debug, Default)]
pub struct WitnessChain {
    /// Over all leaves so far.
    pub frontier: Frontier,
    /// The newest head.
    pub signed: Option<SignedHead>,
}

impl WitnessChain {
    /// Takes the next entry, or says why it is not the next: its records do not follow, its head
    /// is not the root over them, or the key did not sign it.
    pub fn accept(
        &mut self,
        entry: &WitnessEntry,
        key: Option<(&VerifierKey, Check)>,
    ) -> Result<(), &'static str> {
        let head = &entry.signed.head;
        if entry.first != self.frontier.size() + 1 {
            return Err("an entry before it is missing or twice there");
        }
        if self.signed.as_ref().is_some_and(|signed| signed.head.origin != head.origin) {
            return Err("it is about another log");
        }
        if key.is_some_and(|(key, check)| !entry.signed.signed_by(key, check)) {
            return Err("it is not signed with the key");
        }
        let mut frontier = self.frontier.clone();
        for leaf in &entry.leaves {
            frontier.push(*leaf, |_| {});
        }
        if frontier.size() != head.size || frontier.root() != head.root {
            return Err("its head is not the root over its leaves");
        }
        self.frontier = frontier;
        self.signed = Some(entry.signed.clone());
        Ok(())
    }
}

/// Everything a witness kept: 40 bytes a record.
#[derive(Clone, Debug, Default)]
pub struct Witnessed {
    chain: WitnessChain,
    leaves: Vec<Hash>,
    tags: Vec<Tag>,
}

impl Witnessed {
    /// Takes the next entry; see [`WitnessChain::accept`].
    pub fn accept(
        &mut self,
        entry: WitnessEntry,
        key: Option<(&VerifierKey, Check)>,
    ) -> Result<(), &'static str> {
        self.chain.accept(&entry, key)?;
        self.leaves.extend(entry.leaves);
        self.tags.extend(entry.tags);
        Ok(())
    }

    /// Up to which position it vouches.
    pub fn size(&self) -> Position {
        self.chain.frontier.size()
    }

    /// The newest head; none when it is empty.
    pub fn signed(&self) -> Option<&SignedHead> {
        self.chain.signed.as_ref()
    }

    /// Leaf of the record at place `index`, from 0.
    pub fn leaf(&self, index: u64) -> Option<&Hash> {
        self.leaves.get(usize::try_from(index).ok()?)
    }

    /// Tags of all its records.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }
}
