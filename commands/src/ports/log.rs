//! The log.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::{
    kernel::StreamId,
    log::{Frontier, Hash, Position, Record, RequestStamp},
};
use uuid::Uuid;

/// A fact on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The event's tag.
    pub event_type: String,
    /// Version of its shape, from 1.
    pub schema_version: u16,
    /// Canonical JSON.
    pub data: Vec<u8>,
}

/// Where a stream must stand for an append to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Anywhere.
    Any,
    /// It has no record.
    NoStream,
    /// It has exactly this many records.
    Exact(u64),
}

/// One stream's part of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAppend {
    /// Which.
    pub stream: StreamId,
    /// Checked under the lock that orders appends.
    pub expected: Expected,
    /// Written into each record.
    pub project: Option<Uuid>,
    /// None: the stream is only checked, not written.
    pub events: Vec<NewEvent>,
}

/// Facts for one or several streams, all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The principal's name.
    pub actor: String,
    /// The command; event ids are UUIDv5 of it and the event's place in the append, from 0, in
    /// decimal ([`Append::event_id`]).
    pub command_id: Uuid,
    /// See [`domain::log::Header::correlation_id`].
    pub correlation_id: Uuid,
    /// See [`domain::log::Header::causation_id`].
    pub causation_id: Option<Uuid>,
    /// Idempotency: (actor, key) is unique in the log, and stored in every record of the append.
    pub request: Option<RequestStamp>,
    /// In order; the first is the resource the command was for. A stream occurs once.
    pub streams: Vec<StreamAppend>,
}

impl Append {
    /// Most events in one append; a command that makes more is a bug of its decider.
    pub const EVENTS_MAX: usize = 1_000;
    /// Most bytes of one event's data. What is larger belongs into an object store, with its
    /// digest in the event.
    pub const DATA_BYTES_MAX: usize = 1 << 20;

    /// Longest key of a request, in bytes.
    pub const KEY_BYTES_MAX: usize = 255;

    /// What no log takes, whatever it holds: a broken caller, not bad input.
    ///
    /// # Errors
    /// [`LogFault::Unexpected`] naming the limit or rule.
    pub fn check(&self) -> Result<(), LogFault> {
        let no = |reason: String| Err(LogFault::Unexpected(reason));
        let events = self.streams.iter().map(|stream| stream.events.len()).sum::<usize>();
        if events > Self::EVENTS_MAX {
            return no(format!("{events} events in one append, at most {}", Self::EVENTS_MAX));
        }
        if let Some(request) = &self.request
            && !(1..=Self::KEY_BYTES_MAX).contains(&request.key.len())
        {
            return no(format!("an idempotency key of {} bytes", request.key.len()));
        }
        let mut seen = std::collections::HashSet::with_capacity(self.streams.len());
        for part in &self.streams {
            if !seen.insert(&part.stream) {
                return no(format!("{} occurs twice in one append", part.stream));
            }
            if part.stream.id.len() > StreamId::ID_BYTES_MAX {
                return no(format!("a stream's id of {} bytes", part.stream.id.len()));
            }
            for event in &part.events {
                if event.data.len() > Self::DATA_BYTES_MAX {
                    return no(format!(
                        "{} bytes of data in one event, at most {}",
                        event.data.len(),
                        Self::DATA_BYTES_MAX
                    ));
                }
                if serde_json::from_slice::<serde::de::IgnoredAny>(&event.data).is_err() {
                    return no(format!("the data of {} is not JSON", event.event_type));
                }
            }
        }
        Ok(())
    }

    /// The id of the event at this place in the append.
    pub fn event_id(&self, place: usize) -> Uuid {
        Uuid::new_v5(&self.command_id, place.to_string().as_bytes())
    }
}

/// An append that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Position of its first record. When nothing was written (only checks), the head's position
    /// at that moment, with `last` the same.
    pub first: Position,
    /// Position of its last record.
    pub last: Position,
    /// Each stream's revision after it, in the order of [`Append::streams`].
    pub revisions: Vec<u64>,
    /// When.
    pub recorded_at: DateTime<Utc>,
}

/// What a request with this key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Digest of what was sent then.
    pub digest: String,
    /// Its first record.
    pub first: Position,
    /// Its last record.
    pub last: Position,
}

/// Why an append was not done. Unless it is a fault, nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum AppendFault {
    /// A stream does not stand where it was expected.
    #[error("{stream} is at revision {actual}, expected {expected:?}")]
    Conflict {
        /// Which; the first in the append's order.
        stream: StreamId,
        /// Where it had to be.
        expected: Expected,
        /// Where it is.
        actual: u64,
    },
    /// The actor used this idempotency key before.
    #[error("the idempotency key was used before")]
    Repeated(Answered),
    /// The log failed.
    #[error("the append failed")]
    Fault(#[from] LogFault),
}

/// The log failed. Never a rule's no.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogFault {
    /// The disk is full (or a quota is): nothing was written, try again when there is room.
    #[error("the log has no room: {0}")]
    Full(String),
    /// Not reachable now, or too much is waiting: try again.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    /// A record is damaged. Work stops until a person has looked.
    #[error("the record at position {position} is damaged: {reason}")]
    Corrupt {
        /// The first that is.
        position: Position,
        /// How it shows.
        reason: String,
    },
    /// Anything else.
    #[error("the log failed: {0}")]
    Unexpected(String),
}

/// The newest record's place, and the tree over all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// 0 while the log is empty. Always the frontier's size.
    pub position: Position,
    /// When the newest record was committed.
    pub recorded_at: DateTime<Utc>,
    /// The Merkle tree's right edge.
    pub frontier: Frontier,
}

/// Which records an auditor asks for. Empty fields do not restrict; given ones must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Kind of the stream.
    pub kind: Option<String>,
    /// Id of the stream.
    pub id: Option<String>,
    /// The event's tag.
    pub event_type: Option<String>,
    /// The principal's name.
    pub actor: Option<String>,
    /// Records of these projects only; `Some` of an empty list is none at all.
    pub projects: Option<Vec<Uuid>>,
    /// The command.
    pub command_id: Option<Uuid>,
    /// The chain.
    pub correlation_id: Option<Uuid>,
    /// Committed at or after.
    pub since: Option<DateTime<Utc>>,
    /// Committed before.
    pub until: Option<DateTime<Utc>>,
}

impl AuditFilter {
    /// Whether a record is asked for.
    pub fn matches(&self, record: &Record) -> bool {
        fn wanted<T: PartialEq + ?Sized>(filter: Option<&T>, actual: &T) -> bool {
            filter.is_none_or(|filter| filter == actual)
        }
        if !(wanted(self.kind.as_deref(), record.kind())
            && wanted(self.id.as_deref(), record.id())
            && wanted(self.event_type.as_deref(), record.event_type())
            && wanted(self.actor.as_deref(), record.actor())
            && self.since.is_none_or(|since| record.recorded_at() >= since)
            && self.until.is_none_or(|until| record.recorded_at() < until))
        {
            return false;
        }
        if let Some(projects) = &self.projects
            && !record.project().is_some_and(|project| projects.contains(&project))
        {
            return false;
        }
        wanted(self.command_id.as_ref(), &record.command_id())
            && wanted(self.correlation_id.as_ref(), &record.correlation_id())
    }
}

/// One append-only log: positions without gaps in commit order, nothing acknowledged before it is
/// durable, no reader sees position N + 1 before N.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Appends to all the streams or to none. Comes back when it is durable. Concurrent appends
    /// share one commit.
    async fn append(&self, append: Append) -> Result<Appended, AppendFault>;
    /// What this actor's request with this key came to.
    async fn request(&self, actor: &str, key: &str) -> Result<Option<Answered>, LogFault>;
    /// A stream's records after a revision, in order.
    async fn stream(
        &self,
        stream: &StreamId,
        after_revision: u64,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault>;
    /// All records after a position, in order and without a hole.
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Record>, LogFault>;
    /// The newest position and the tree.
    async fn head(&self) -> Result<Head, LogFault>;
    /// Comes back when there may be records after this position. A hint: it may come back early,
    /// and a reader reads `position > checkpoint` whatever it says. It comes back at the latest
    /// after a few seconds, so that a lost notification only delays.
    async fn appended(&self, after: Position);
    /// The last position committed at or before this time; 0 when none was.
    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, LogFault>;
    /// Records that match, after a position in ascending order, or before it in descending order
    /// (`newest_first`; `from` 0 then means from the newest).
    async fn search(
        &self,
        filter: &AuditFilter,
        from: Position,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault>;
    /// Roots of complete subtrees that the log keeps ([`Frontier::TILE_LEVELS`]), from an index.
    async fn nodes(&self, level: u8, first: u64, count: u64) -> Result<Vec<Hash>, LogFault>;
    /// Takes over records of another log, as they are. They must follow on the head without a gap;
    /// streams, requests and the tree are rebuilt from them.
    async fn restore(&self, records: Vec<Record>) -> Result<(), LogFault>;
}
