//! The newest records: committed, and not yet in the tables that find them.
//!
//! A commit writes the records themselves and the head, nothing else. What finds them (streams,
//! requests, `event_index`) is written some hundred records at a time, with the same commit as the
//! last of them: so a group of appends dirties a handful of pages in place of one of every index.
//! Until then they are found here. The tail is made again from the records when a file is opened.

use std::collections::HashMap;

use commands::ports::{Answered, AuditFilter, LogFault};
use domain::{
    kernel::StreamId,
    log::{Position, Record},
};
use rusqlite::Connection;

use crate::log;

/// A group that makes the tail this long writes the index with it: some milliseconds of work.
pub(crate) const TAIL_MAX: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// In order; the first follows on what is indexed.
    records: Vec<Record>,
    streams: HashMap<StreamId, Vec<Record>>,
    requests: HashMap<(String, String), Answered>,
}

impl Tail {
    /// The records of `indexed + 1 ..= end`.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] naming the first that is missing or does not read.
    pub(crate) fn load(
        connection: &Connection,
        indexed: Position,
        end: Position,
    ) -> Result<Self, LogFault> {
        let mut tail = Self::default();
        if indexed < end {
            tail.extend(&log::range(connection, indexed, end)?);
        }
        Ok(tail)
    }

    pub(crate) fn extend(&mut self, records: &[Record]) {
        for record in records {
            self.streams.entry(record.stream()).or_default().push(record.clone());
            if let Some(request) = record.request() {
                let position = record.position();
                self.requests
                    .entry((record.actor().to_owned(), request.key))
                    .and_modify(|answered| answered.last = position)
                    .or_insert(Answered {
                        digest: request.digest,
                        first: position,
                        last: position,
                    });
            }
            self.records.push(record.clone());
        }
    }

    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.streams.clear();
        self.requests.clear();
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The stream's revision, when one of its records is here.
    pub(crate) fn revision(&self, stream: &StreamId) -> Option<u64> {
        self.streams.get(stream)?.last().map(Record::revision)
    }

    pub(crate) fn request(&self, key: &(String, String)) -> Option<&Answered> {
        self.requests.get(key)
    }

    /// The stream's records after this revision.
    pub(crate) fn stream(&self, stream: &StreamId, after: u64) -> Vec<Record> {
        let records = self.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        records.iter().filter(|record| record.revision() > after).cloned().collect()
    }

    /// The last position that is indexed, none when all are; and what of the tail the filter
    /// wants, in order.
    pub(crate) fn search(&self, filter: &AuditFilter) -> (Option<Position>, Vec<Record>) {
        let wanted = self.records.iter().filter(|record| filter.matches(record)).cloned().collect();
        (self.records.first().map(|record| record.position() - 1), wanted)
    }
}
