//! The port [`EventLog`] on PostgreSQL: reads, and the way into the committer's queue.

use std::{fmt::Write, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use commands::ports::{
    Answered, Append, AppendFault, Appended, AuditFilter, EventLog, Head, LogFault,
};
use domain::{
    kernel::StreamId,
    log::{Hash, Position, Record},
};
use tokio::sync::oneshot;
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql, Type},
};

use crate::{Store, committer::Work, connection::fault, statements::read_head};

/// A reader that waits looks for itself after this long: notifications may get lost.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Most rows of one query: a longer read is several.
const PAGE: usize = 5_000;

/// Bytes as they lie in the answer, without a copy.
struct Bytes<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Bytes<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }
    fn accepts(ty: &Type) -> bool {
        *ty == Type::BYTEA
    }
}

fn damaged(position: Position, reason: impl Into<String>) -> LogFault {
    LogFault::Corrupt { position, reason: reason.into() }
}

/// A number for SQL, whose integers are signed.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A row's first column as a record.
pub(crate) fn record(row: &Row, position: Position) -> Result<Record, LogFault> {
    Record::from_trusted(row.get::<_, Bytes<'_>>(0).0)
        .map_err(|fault| damaged(position, fault.to_string()))
}

#[async_trait]
impl EventLog for Store {
    async fn append(&self, append: Append) -> Result<Appended, AppendFault> {
        append.check()?;
        let (answer, answered) = oneshot::channel();
        self.send(Work::Append(append, answer)).await?;
        answered.await.map_err(|_| committer_ended())?
    }

    async fn request(&self, actor: &str, key: &str) -> Result<Option<Answered>, LogFault> {
        let sql = "SELECT digest, first, last FROM requests WHERE actor = $1 AND key = $2";
        Ok(self.query(sql, &[&actor, &key]).await?.first().map(|row| Answered {
            digest: row.get(0),
            first: row.get::<_, i64>(1) as u64,
            last: row.get::<_, i64>(2) as u64,
        }))
    }

    async fn stream(
        &self,
        stream: &StreamId,
        after_revision: u64,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        let sql = "SELECT events.record FROM events \
                   WHERE stream_no = (SELECT stream_no FROM streams WHERE kind = $1 AND id = $2) \
                   AND revision > $3 ORDER BY revision LIMIT $4";
        let (after, limit) = (number(after_revision), number(limit as u64));
        let rows = self.query(sql, &[&stream.kind, &stream.id, &after, &limit]).await?;
        let mut records = Vec::with_capacity(rows.len());
        for (row, revision) in rows.iter().zip(after_revision + 1..) {
            let record = record(row, 0)?;
            if record.revision() != revision || record.id() != stream.id {
                let reason = format!("revision {revision} of {stream} is missing");
                return Err(damaged(record.position(), reason));
            }
            records.push(record);
        }
        Ok(records)
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Record>, LogFault> {
        // Taken before the read: what was told of by then must be there.
        let told = (*self.inner.newest.borrow()).min(after.saturating_add(limit as u64));
        let sql = "SELECT record FROM events WHERE position > $1 ORDER BY position LIMIT $2";
        let mut records = Vec::new();
        let mut position = after;
        while records.len() < limit {
            let page = PAGE.min(limit - records.len());
            let rows = self.query(sql, &[&number(position), &(page as i64)]).await?;
            for row in &rows {
                position += 1;
                let record = record(row, position)?;
                if record.position() != position {
                    return Err(damaged(position, format!("missing; {record:?} is there")));
                }
                records.push(record);
            }
            if rows.len() < page {
                break;
            }
        }
        if position < told {
            return Err(damaged(position + 1, "missing"));
        }
        Ok(records)
    }

    async fn head(&self) -> Result<Head, LogFault> {
        let rows = self.query("SELECT position, recorded_at, frontier FROM head", &[]).await?;
        read_head(rows.first().ok_or_else(|| damaged(0, "the head is missing"))?)
    }

    async fn appended(&self, after: Position) {
        let mut newest = self.inner.newest.subscribe();
        let _ = tokio::time::timeout(WAIT_MAX, newest.wait_for(|newest| *newest > after)).await;
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, LogFault> {
        let rows = self.query("SELECT position_at($1)", &[&time.timestamp_micros()]).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0) as u64))
    }

    async fn search(
        &self,
        filter: &AuditFilter,
        from: Position,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        if filter.projects.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let tick = TimeDelta::microseconds(1);
        let (mut low, mut high) = match (newest_first, from) {
            (true, 0) => (0, u64::MAX),
            (true, from) => (0, from - 1),
            (false, from) => (from, u64::MAX),
        };
        if let Some(since) = filter.since.and_then(|since| since.checked_sub_signed(tick)) {
            low = low.max(self.position_at(since).await?);
        }
        if let Some(until) = filter.until {
            let before = until.checked_sub_signed(tick).unwrap_or(until);
            high = high.min(self.position_at(before).await?);
        }
        let (low, high, most) = (number(low), number(high), number(limit as u64));
        let mut sql = "SELECT record FROM events WHERE position > $1 AND position <= $2".to_owned();
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&low, &high];
        // `?` is the value that comes with the condition.
        let mut add = |condition: &str, value| {
            values.push(value);
            let _ = write!(sql, " AND {}", condition.replace('?', &format!("${}", values.len())));
        };
        if let Some(id) = &filter.id {
            add("stream_no IN (SELECT stream_no FROM streams WHERE id = ?)", id);
        }
        if let Some(kind) = &filter.kind {
            add("kind = ?", kind);
        }
        if let Some(event_type) = &filter.event_type {
            add("type = ?", event_type);
        }
        if let Some(actor) = &filter.actor {
            add("actor = ?", actor);
        }
        if let Some(projects) = &filter.projects {
            add("project = ANY(?)", projects);
        }
        if let Some(command) = &filter.command_id {
            add("command_id = ?", command);
        }
        if let Some(correlation) = &filter.correlation_id {
            // The first command of a chain is its own correlation, and is found by its own index.
            add(
                "correlation_id = ? AND (command_id = ? \
                 OR (correlation_id = ? AND correlation_id <> command_id))",
                correlation,
            );
        }
        let order = if newest_first { "DESC" } else { "ASC" };
        values.push(&most);
        let _ = write!(sql, " ORDER BY position {order} LIMIT ${}", values.len());
        let rows = self.query(&sql, &values).await?;
        let records = rows.iter().map(|row| record(row, 0));
        // The columns found them; the frame has the last word.
        records.filter(|one| one.as_ref().map_or(true, |one| filter.matches(one))).collect()
    }

    async fn nodes(&self, level: u8, first: u64, count: u64) -> Result<Vec<Hash>, LogFault> {
        let sql = "SELECT hash FROM tree WHERE level = $1 AND idx >= $2 AND idx < $3 ORDER BY idx";
        let end = number(first.saturating_add(count));
        let rows = self.query(sql, &[&i16::from(level), &number(first), &end]).await?;
        rows.iter().map(hash).collect()
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), LogFault> {
        // In parts, so that no statement takes all of a long log; a part that does not follow is
        // refused before any is written.
        let (answer, answered) = oneshot::channel();
        self.send(Work::Restore(records, answer)).await?;
        answered.await.map_err(|_| committer_ended())?
    }
}

/// A row's first column as a node.
pub(crate) fn hash(row: &Row) -> Result<Hash, LogFault> {
    row.get::<_, &[u8]>(0).try_into().map_err(|_| damaged(0, "a node is not 32 bytes"))
}

fn committer_ended() -> LogFault {
    LogFault::Unexpected("the log's committer ended".to_owned())
}

impl Store {
    async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, LogFault> {
        let client = self.client().await?;
        let statement = client.prepare_cached(sql).await.map_err(fault)?;
        client.query(&statement, values).await.map_err(fault)
    }
}
