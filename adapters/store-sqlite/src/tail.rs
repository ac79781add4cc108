//! The newest records: in the log, and not yet in the index that finds them.
//!
//! A commit of the log writes the records themselves and the head, nothing else. What finds them
//! (streams, requests, `event_index`) is written by a thread of its own, some hundred records at a
//! time. Until then they are found here. The tail is made again from the records when a file is
//! opened.

use std::collections::{HashMap, VecDeque};

use adapters_store_kit::group::RequestKey;
use commands::ports::{Answered, AuditFilter, LogFault};
use domain::{
    kernel::StreamId,
    log::{Position, Record},
};
use rusqlite::Connection;

use crate::{fault, index, log};

/// Most records of a tail, and most bytes of them: beyond either, appends wait for the index.
const RECORDS_MAX: usize = 16_384;
const BYTES_MAX: usize = 64 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// In order; the first follows on what is indexed.
    records: VecDeque<Record>,
    bytes: usize,
    streams: HashMap<StreamId, VecDeque<Record>>,
    requests: HashMap<RequestKey, Answered>,
}

/// A record with its stream, which a record tells only when it is read.
#[derive(Debug)]
pub(crate) struct Entry {
    stream: StreamId,
    record: Record,
}

impl Entry {
    pub(crate) fn of(record: Record) -> Self {
        Self { stream: record.stream(), record }
    }
}

impl Tail {
    /// The records of `indexed + 1 ..= end`.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] naming the first that is missing or does not read.
    pub(crate) fn load(
        log: &Connection,
        index: &Connection,
        indexed: Position,
        end: Position,
    ) -> Result<Self, LogFault> {
        let mut tail = Self::default();
        if indexed == end {
            return Ok(tail);
        }
        let records = log::range(log, indexed, end)?;
        let mut requests: HashMap<_, Answered> = HashMap::new();
        for record in &records {
            let Some(request) = record.request() else { continue };
            let key = (record.actor().to_owned(), request.key);
            let (position, digest) = (record.position(), request.digest);
            requests
                .entry(key)
                .and_modify(|answered| answered.last = position)
                .or_insert(Answered { digest, first: position, last: position });
        }
        // The index may end within an append, of which the first records are not here.
        if let Some(key) = records[0].request().map(|one| (records[0].actor().to_owned(), one.key))
            && let Some(begun) = index::request(index, &key.0, &key.1).map_err(fault)?
        {
            requests.entry(key).and_modify(|answered| answered.first = begun.first);
        }
        tail.extend(records.into_iter().map(Entry::of), requests);
        Ok(tail)
    }

    /// What was just appended: the records, and the requests they came with.
    pub(crate) fn extend(
        &mut self,
        entries: impl IntoIterator<Item = Entry>,
        requests: impl IntoIterator<Item = (RequestKey, Answered)>,
    ) {
        for Entry { stream, record } in entries {
            self.streams.entry(stream).or_default().push_back(record.clone());
            self.bytes += record.frame().len();
            self.records.push_back(record);
        }
        self.requests.extend(requests);
    }

    /// These many of its first records, none after this position.
    pub(crate) fn first_up_to(&self, end: Position, most: usize) -> Vec<Record> {
        let wanted = self.records.iter().take(most).take_while(|one| one.position() <= end);
        wanted.cloned().collect()
    }

    /// Up to this position it is indexed.
    pub(crate) fn drop_up_to(&mut self, indexed: Position) {
        while let Some(record) = self.records.pop_front_if(|one| one.position() <= indexed) {
            self.bytes -= record.frame().len();
            let stream = record.stream();
            if let Some(records) = self.streams.get_mut(&stream) {
                records.pop_front();
                if records.is_empty() {
                    self.streams.remove(&stream);
                }
            }
            if let Some(request) = record.request() {
                let key = (record.actor().to_owned(), request.key);
                if self.requests.get(&key).is_some_and(|one| one.last <= indexed) {
                    self.requests.remove(&key);
                }
            }
        }
    }

    /// The position it begins after, when it is too long.
    pub(crate) fn too_long_after(&self) -> Option<Position> {
        let too_long = self.records.len() > RECORDS_MAX || self.bytes > BYTES_MAX;
        self.records.front().filter(|_| too_long).map(|first| first.position() - 1)
    }

    /// The stream's revision, when one of its records is here.
    pub(crate) fn revision(&self, stream: &StreamId) -> Option<u64> {
        self.streams.get(stream)?.back().map(Record::revision)
    }

    pub(crate) fn request(&self, key: &RequestKey) -> Option<&Answered> {
        self.requests.get(key)
    }

    /// The stream's records after this revision.
    pub(crate) fn stream(&self, stream: &StreamId, after: u64) -> Vec<Record> {
        let records = self.streams.get(stream).into_iter().flatten();
        records.filter(|record| record.revision() > after).cloned().collect()
    }

    /// The last position that is indexed, none when all are; and what of the tail the filter
    /// wants, in order.
    pub(crate) fn search(&self, filter: &AuditFilter) -> (Option<Position>, Vec<Record>) {
        let wanted = self.records.iter().filter(|record| filter.matches(record)).cloned().collect();
        (self.records.front().map(|record| record.position() - 1), wanted)
    }
}
