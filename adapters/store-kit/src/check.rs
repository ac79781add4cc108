//! Reads a whole log against itself: every record against its columns, the one before it, its
//! stream and the tree.
//!
//! Pure; a store feeds it [`Stored`] rows in order of position, then [`Checker::finish`] says
//! what streams, requests and head must be.

use std::collections::HashMap;

use commands::ports::{Answered, Head, LogFault};
use domain::{
    kernel::StreamId,
    log::{Frontier, Hash, Node, Position, Record},
};

use crate::group::{RequestKey, frontier_of};

/// A record as a store keeps it: the frame, and the columns that help to find it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The row's place.
    pub position: Position,
    /// The stream the row points to.
    pub stream: StreamId,
    /// The row's revision.
    pub revision: u64,
    /// The event's tag.
    pub event_type: String,
    /// The principal's name.
    pub actor: String,
    /// The project, as text.
    pub project: Option<String>,
    /// See [`mark`].
    pub mark: i64,
    /// The bytes.
    pub frame: Vec<u8>,
}

/// The first eight bytes of a record's leaf: kept beside the frame, they name the one record of a
/// tile whose bytes have changed.
pub fn mark(leaf: &Hash) -> i64 {
    i64::from_be_bytes(leaf[..8].try_into().expect("a hash has 32 bytes"))
}

/// The state of one reading.
#[derive(Debug)]
pub struct Checker {
    head: Head,
    streams: HashMap<StreamId, u64>,
    requests: HashMap<RequestKey, Answered>,
}

impl Default for Checker {
    fn default() -> Self {
        Self { head: empty_head(), streams: HashMap::new(), requests: HashMap::new() }
    }
}

/// The head of a log without records.
pub fn empty_head() -> Head {
    Head { position: 0, recorded_at: chrono::DateTime::default(), frontier: Frontier::default() }
}

fn damaged(position: Position, reason: impl Into<String>) -> LogFault {
    LogFault::Corrupt { position, reason: reason.into() }
}

/// The end of a log, as it is read when a store is opened.
#[derive(Debug)]
pub struct Tail {
    /// The head row.
    pub head: Head,
    /// The largest position there is.
    pub last: Position,
    /// All nodes of the lowest kept level.
    pub tiles: Vec<Hash>,
    /// The records after the last tile, each with the mark kept beside it.
    pub records: Vec<(Record, i64)>,
    /// The revision kept for the stream of the newest of these; none when there is no such row.
    pub revision: Option<u64>,
}

impl Tail {
    /// The first position that lies in no tile, less one.
    pub fn sealed(position: Position) -> Position {
        position >> Frontier::TILE_LEVELS << Frontier::TILE_LEVELS
    }

    /// Compares the head with the newest records and with the nodes: milliseconds, whatever the
    /// length of the log.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`].
    pub fn check(self) -> Result<Head, LogFault> {
        let Self { head, last, tiles, records, revision } = self;
        if last != head.position {
            let reason = format!("the log ends at {last}, its head says {}", head.position);
            return Err(damaged(last.min(head.position) + 1, reason));
        }
        let sealed = Self::sealed(last);
        let count = sealed >> Frontier::TILE_LEVELS;
        if tiles.len() as u64 != count {
            return Err(damaged(last, format!("{} of {count} nodes", tiles.len())));
        }
        let mut leaves = Vec::with_capacity(records.len());
        for (record, kept) in &records {
            Record::from_frame(record.frame())
                .map_err(|fault| damaged(record.position(), fault.to_string()))?;
            let leaf = record.leaf();
            if mark(&leaf) != *kept {
                return Err(damaged(record.position(), "bytes and frame differ"));
            }
            leaves.push(leaf);
        }
        if let Some((newest, _)) = records.last() {
            if newest.recorded_at() != head.recorded_at {
                return Err(damaged(last, "the head's time is not its record's"));
            }
            if revision != Some(newest.revision()) {
                let reason = format!("{} is kept at revision {revision:?}", newest.stream());
                return Err(damaged(last, reason));
            }
        }
        if frontier_of(&tiles, &leaves).as_ref() != Some(&head.frontier) {
            let first = sealed + 1;
            return Err(damaged(first.min(last), "the tree over the newest records differs"));
        }
        Ok(head)
    }
}

impl Checker {
    /// How far it has read.
    pub fn position(&self) -> Position {
        self.head.position
    }

    /// Checks the next row. The nodes it completes are for the store to compare with its own:
    /// see [`Self::compare`].
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] naming the row, or the position that is missing.
    pub fn row(&mut self, stored: Stored) -> Result<Vec<Node>, LogFault> {
        let position = self.head.position + 1;
        if stored.position != position {
            return Err(damaged(position, format!("missing; {} comes next", stored.position)));
        }
        let record = Record::from_frame(stored.frame)
            .map_err(|fault| damaged(position, fault.to_string()))?;
        let leaf = record.leaf();
        let stream = record.stream();
        let differs = [
            ("bytes", mark(&leaf) != stored.mark),
            ("position", record.position() != position),
            ("stream", stream != stored.stream),
            ("revision", record.revision() != stored.revision),
            ("type", record.event_type() != stored.event_type),
            ("actor", record.actor() != stored.actor),
            ("project", record.project().map(|one| one.to_string()) != stored.project),
        ];
        if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
            return Err(damaged(position, format!("{what} and frame differ")));
        }
        if record.recorded_at() < self.head.recorded_at {
            return Err(damaged(position, "it is older than the record before it"));
        }
        let revision = self.streams.entry(stream).or_default();
        if record.revision() != *revision + 1 {
            let reason = format!("revision {} comes after {revision}", record.revision());
            return Err(damaged(position, reason));
        }
        *revision += 1;
        if let Some(request) = record.request() {
            let key = (record.actor().to_owned(), request.key);
            let first = Answered { digest: request.digest, first: position, last: position };
            self.requests.entry(key).and_modify(|one| one.last = position).or_insert(first);
        }
        let mut nodes = Vec::new();
        self.head.frontier.push(leaf, |node| nodes.push(node));
        self.head.position = position;
        self.head.recorded_at = record.recorded_at();
        Ok(nodes)
    }

    /// Compares a node with the one the store keeps.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] naming the first position under the node.
    pub fn compare(node: &Node, kept: Option<&Hash>) -> Result<(), LogFault> {
        if kept == Some(&node.hash) {
            return Ok(());
        }
        let (first, last) = (node.index << node.level, (node.index + 1) << node.level);
        Err(damaged(first + 1, format!("a record up to {last}, or their node, has changed")))
    }

    /// Whether a stream's row is what its records say; each may be asked once.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] at the end of the log, naming the stream.
    pub fn stream(&mut self, stream: &StreamId, revision: u64) -> Result<(), LogFault> {
        match self.streams.remove(stream) {
            Some(records) if records == revision => Ok(()),
            records => Err(damaged(
                self.head.position,
                format!("{stream} is kept at revision {revision}, its records say {records:?}"),
            )),
        }
    }

    /// The same for a request.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] naming the request's first position.
    pub fn request(&mut self, key: &RequestKey, answered: &Answered) -> Result<(), LogFault> {
        match self.requests.remove(key) {
            Some(records) if records == *answered => Ok(()),
            records => Err(damaged(
                records.map_or(answered.first, |one| one.first),
                format!("the request {} of {} differs from its records", key.1, key.0),
            )),
        }
    }

    /// Nothing may be left over, and the head is the one the store keeps.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`].
    pub fn finish(self, kept: &Head) -> Result<Head, LogFault> {
        if self.head.position < kept.position {
            return Err(damaged(self.head.position + 1, "missing at the end of the log"));
        }
        if self.head != *kept {
            return Err(damaged(self.head.position, "the head differs from the records"));
        }
        if let Some(stream) = self.streams.keys().next() {
            return Err(damaged(self.head.position, format!("{stream} has no row")));
        }
        if let Some((key, answered)) = self.requests.iter().next() {
            return Err(damaged(answered.first, format!("the request {} has no row", key.1)));
        }
        Ok(self.head)
    }
}
