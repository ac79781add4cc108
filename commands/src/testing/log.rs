//! The log in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::{
    kernel::StreamId,
    log::{Frontier, Hash, Header, Position, Record},
};

use super::TestClock;
use crate::ports::{
    Answered, Append, AppendFault, Appended, AuditFilter, Clock, EventLog, Expected, Head, LogFault,
};

/// A log in memory: durable for as long as it lives. It never loses a notification, so
/// [`EventLog::appended`] waits without an end.
pub struct MemoryLog {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The record at position n is at n - 1.
    records: Vec<Record>,
    /// Positions of a stream's records, in order.
    streams: HashMap<StreamId, Vec<Position>>,
    requests: HashMap<(String, String), Answered>,
    frontier: Frontier,
    nodes: BTreeMap<(u8, u64), Hash>,
    waiting: Vec<Waker>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(Arc::new(TestClock::default()))
    }
}

impl MemoryLog {
    /// An empty log that takes its times from this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn position(&self) -> Position {
        self.records.len() as Position
    }

    fn recorded_at(&self) -> DateTime<Utc> {
        self.records.last().map(Record::recorded_at).unwrap_or_default()
    }

    fn revision(&self, stream: &StreamId) -> u64 {
        self.streams.get(stream).map_or(0, |positions| positions.len() as u64)
    }

    fn at(&self, position: Position) -> &Record {
        &self.records[position as usize - 1]
    }

    fn push(&mut self, record: Record) {
        let position = self.position() + 1;
        if let Some(request) = record.request() {
            self.requests
                .entry((record.actor().to_owned(), request.key))
                .and_modify(|answered| answered.last = position)
                .or_insert(Answered { digest: request.digest, first: position, last: position });
        }
        self.streams.entry(record.stream()).or_default().push(position);
        let nodes = &mut self.nodes;
        self.frontier.push(record.leaf(), |node| {
            nodes.insert((node.level, node.index), node.hash);
        });
        self.records.push(record);
    }

    fn append(&mut self, append: &Append, now: DateTime<Utc>) -> Result<Appended, AppendFault> {
        append.check()?;
        if let Some(request) = &append.request
            && let Some(answered) = self.requests.get(&(append.actor.clone(), request.key.clone()))
        {
            return Err(AppendFault::Repeated(answered.clone()));
        }
        for part in &append.streams {
            let actual = self.revision(&part.stream);
            let right = match part.expected {
                Expected::Any => true,
                Expected::NoStream => actual == 0,
                Expected::Exact(revision) => actual == revision,
            };
            if !right {
                return Err(AppendFault::Conflict {
                    stream: part.stream.clone(),
                    expected: part.expected,
                    actual,
                });
            }
        }
        let before = self.position();
        let recorded_at = now.max(self.recorded_at());
        let events = append
            .streams
            .iter()
            .flat_map(|part| part.events.iter().map(move |event| (part, event)));
        for (place, (part, event)) in events.enumerate() {
            let header = Header {
                position: self.position() + 1,
                recorded_at,
                kind: part.stream.kind.clone(),
                id: part.stream.id.clone(),
                revision: self.revision(&part.stream) + 1,
                event_id: append.event_id(place),
                event_type: event.event_type.clone(),
                schema_version: event.schema_version,
                actor: append.actor.clone(),
                project: part.project,
                command_id: append.command_id,
                correlation_id: append.correlation_id,
                causation_id: append.causation_id,
                request: append.request.clone(),
            };
            self.push(Record::new(&header, &event.data));
        }
        let wrote = self.position() > before;
        Ok(Appended {
            first: if wrote { before + 1 } else { before },
            last: self.position(),
            revisions: append.streams.iter().map(|part| self.revision(&part.stream)).collect(),
            recorded_at: if wrote { recorded_at } else { self.recorded_at() },
        })
    }

    /// Whether a record of another log can come next.
    fn follows(&self, record: &Record) -> Result<(), LogFault> {
        let damaged =
            |reason: String| Err(LogFault::Corrupt { position: record.position(), reason });
        if let Err(fault) = Record::from_frame(record.frame()) {
            return damaged(fault.to_string());
        }
        if record.position() != self.position() + 1 {
            return damaged(format!("the log ends at position {}", self.position()));
        }
        let revision = self.revision(&record.stream());
        if record.revision() != revision + 1 {
            return damaged(format!("{} ends at revision {revision}", record.stream()));
        }
        if record.recorded_at() < self.recorded_at() {
            return damaged("it is older than the record before it".to_owned());
        }
        if let Some(request) = record.request()
            && let Some(answered) = self.requests.get(&(record.actor().to_owned(), request.key))
            && (answered.last != self.position() || answered.digest != request.digest)
        {
            return damaged(format!("its idempotency key was used at {}", answered.first));
        }
        Ok(())
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    async fn append(&self, append: Append) -> Result<Appended, AppendFault> {
        let now = self.clock.now();
        let mut state = self.state();
        let appended = state.append(&append, now)?;
        state.waiting.drain(..).for_each(Waker::wake);
        Ok(appended)
    }

    async fn request(&self, actor: &str, key: &str) -> Result<Option<Answered>, LogFault> {
        Ok(self.state().requests.get(&(actor.to_owned(), key.to_owned())).cloned())
    }

    async fn stream(
        &self,
        stream: &StreamId,
        after_revision: u64,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        let state = self.state();
        let positions = state.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        let after = positions.iter().skip(after_revision as usize);
        Ok(after.take(limit).map(|position| state.at(*position).clone()).collect())
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Record>, LogFault> {
        Ok(self.state().records.iter().skip(after as usize).take(limit).cloned().collect())
    }

    async fn head(&self) -> Result<Head, LogFault> {
        let state = self.state();
        Ok(Head {
            position: state.position(),
            recorded_at: state.recorded_at(),
            frontier: state.frontier.clone(),
        })
    }

    async fn appended(&self, after: Position) {
        futures::future::poll_fn(|context| {
            let mut state = self.state();
            if state.position() > after {
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, LogFault> {
        Ok(self.state().records.partition_point(|record| record.recorded_at() <= time) as Position)
    }

    async fn search(
        &self,
        filter: &AuditFilter,
        from: Position,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        let state = self.state();
        let matching = state.records.iter().filter(|record| filter.matches(record));
        Ok(if newest_first {
            let before = |record: &&Record| from == 0 || record.position() < from;
            matching.rev().filter(before).take(limit).cloned().collect()
        } else {
            matching.filter(|record| record.position() > from).take(limit).cloned().collect()
        })
    }

    async fn nodes(&self, level: u8, first: u64, count: u64) -> Result<Vec<Hash>, LogFault> {
        let end = first.saturating_add(count);
        Ok(self.state().nodes.range((level, first)..(level, end)).map(|(_, hash)| *hash).collect())
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), LogFault> {
        let mut state = self.state();
        // All or none: what does not follow leaves the log as it was.
        let mut longer = State {
            records: state.records.clone(),
            streams: state.streams.clone(),
            requests: state.requests.clone(),
            frontier: state.frontier.clone(),
            nodes: state.nodes.clone(),
            waiting: Vec::new(),
        };
        for record in records {
            longer.follows(&record)?;
            longer.push(record);
        }
        longer.waiting = std::mem::take(&mut state.waiting);
        *state = longer;
        state.waiting.drain(..).for_each(Waker::wake);
        Ok(())
    }
}

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.state().records).finish()
    }
}
