//! The port [`EventLog`] on the file: reads, and the way into the writer's queue.

use std::{fmt::Write, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::ports::{
    Answered, Append, AppendFault, Appended, AuditFilter, EventLog, Head, LogFault,
};
use domain::{
    kernel::StreamId,
    log::{Hash, Position, Record},
};
use rusqlite::{Connection, OptionalExtension, params, types::Value};
use tokio::sync::oneshot;

use crate::{
    Store, fault,
    index::{self, short},
    writer::Job,
};

/// A stream up to this long is read on the caller's own thread: its pages are nearly always in
/// memory, and handing over to another thread costs more than the read.
const INLINE_RECORDS_MAX: usize = 128;
/// After this long a waiting reader looks for itself.
const WAIT_MAX: Duration = Duration::from_secs(5);

#[async_trait]
impl EventLog for Store {
    async fn append(&self, append: Append) -> Result<Appended, AppendFault> {
        append.check()?;
        let (answer, answered) = oneshot::channel();
        self.send(Job::Append(append, answer)).await?;
        answered.await.map_err(|_| writer_ended())?
    }

    async fn request(&self, actor: &str, key: &str) -> Result<Option<Answered>, LogFault> {
        let end = self.head_now().position;
        // The tail first: what leaves it meanwhile is in the table by then.
        let named = (actor.to_owned(), key.to_owned());
        let answered = match self.with_tail(|tail| tail.request(&named).cloned()) {
            Some(answered) => Some(answered),
            None => {
                self.inline(|connection| index::request(connection, actor, key).map_err(fault))?
            }
        };
        Ok(answered.filter(|answered| answered.last <= end))
    }

    async fn stream(
        &self,
        stream: &StreamId,
        after_revision: u64,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        let first = limit.min(INLINE_RECORDS_MAX);
        let end = self.head_now().position;
        // The tail first: what leaves it meanwhile is in the tables by then.
        let newest = self.with_tail(|tail| tail.stream(stream, after_revision));
        let mut records = match newest.first() {
            // Nothing before it is wanted.
            Some(one) if one.revision() == after_revision + 1 => Vec::new(),
            _ => {
                let read =
                    |connection: &_| stream_records(connection, stream, after_revision, first);
                self.inline(read)?
            }
        };
        if records.len() == first && first < limit {
            let (named, after) = (stream.clone(), after_revision + first as u64);
            let rest = self.blocking(move |connection| {
                stream_records(connection, &named, after, limit - first)
            });
            records.extend(rest.await?);
        }
        let mut revision = records.last().map_or(after_revision, Record::revision);
        for record in newest.into_iter().filter(|one| one.revision() > revision).collect::<Vec<_>>()
        {
            if records.len() == limit {
                break;
            }
            revision += 1;
            if record.revision() != revision {
                let reason = format!("revision {revision} of {stream} is missing");
                return Err(damaged(record.position(), reason));
            }
            records.push(record);
        }
        records.truncate(records.partition_point(|record| record.position() <= end));
        Ok(records)
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Record>, LogFault> {
        // Taken before the read: what was committed by then must be there.
        let end = self.head_now().position.min(after.saturating_add(limit as u64));
        if end <= after {
            return Ok(Vec::new());
        }
        self.blocking(move |connection| range(connection, after, end)).await
    }

    async fn head(&self) -> Result<Head, LogFault> {
        Ok(self.head_now())
    }

    async fn appended(&self, after: Position) {
        let mut head = self.head_changes();
        let _ = tokio::time::timeout(WAIT_MAX, head.wait_for(|head| head.position > after)).await;
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, LogFault> {
        let end = self.head_now().position;
        self.blocking(move |connection| position_at(connection, end, time)).await
    }

    async fn search(
        &self,
        filter: &AuditFilter,
        from: Position,
        newest_first: bool,
        limit: usize,
    ) -> Result<Vec<Record>, LogFault> {
        let filter = filter.clone();
        let end = self.head_now().position;
        // The tail first: what leaves it meanwhile is in the tables by then.
        let (indexed, mut newest) = self.with_tail(|tail| tail.search(&filter));
        let indexed = indexed.unwrap_or(end).min(end);
        let (low, high) = if newest_first {
            (0, if from == 0 { end } else { (from - 1).min(end) })
        } else {
            (from, end)
        };
        newest.retain(|record| (low + 1..=high).contains(&record.position()));
        let (low, high) = (low, high.min(indexed));
        if newest_first {
            newest.reverse();
            newest.truncate(limit);
            let rest = limit - newest.len();
            if rest > 0 {
                newest.extend(
                    self.blocking(move |connection| {
                        search(connection, &filter, low, high, newest_first, rest)
                    })
                    .await?,
                );
            }
            return Ok(newest);
        }
        let mut records = self
            .blocking(move |connection| search(connection, &filter, low, high, newest_first, limit))
            .await?;
        newest.truncate(limit - records.len());
        records.extend(newest);
        Ok(records)
    }

    async fn nodes(&self, level: u8, first: u64, count: u64) -> Result<Vec<Hash>, LogFault> {
        self.blocking(move |connection| nodes(connection, level, first, count)).await
    }

    async fn restore(&self, records: Vec<Record>) -> Result<(), LogFault> {
        let (answer, answered) = oneshot::channel();
        self.send(Job::Restore(records, answer)).await?;
        answered.await.map_err(|_| writer_ended())?
    }
}

pub(crate) fn writer_ended() -> LogFault {
    LogFault::Unexpected("the log's writer ended".to_owned())
}

fn damaged(position: Position, reason: impl Into<String>) -> LogFault {
    LogFault::Corrupt { position, reason: reason.into() }
}

/// A number for SQL, whose integers are signed.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The records of `after + 1 ..= end`, all of which are committed.
pub(crate) fn range(
    connection: &Connection,
    after: Position,
    end: Position,
) -> Result<Vec<Record>, LogFault> {
    let mut statement = connection
        .prepare_cached(
            "SELECT record FROM events WHERE position > ? AND position <= ? ORDER BY position",
        )
        .map_err(fault)?;
    let mut rows = statement.query(params![number(after), number(end)]).map_err(fault)?;
    let mut records = Vec::with_capacity((end - after).min(10_000) as usize);
    let mut position = after;
    while position < end
        && let Some(row) = rows.next().map_err(|error| match fault(error) {
            // A page of the file that does not read: the rows before it did.
            LogFault::Corrupt { position: 0, reason } => damaged(position + 1, reason),
            fault => fault,
        })?
    {
        position += 1;
        let frame = row.get_ref(0).map_err(fault)?.as_blob().unwrap_or_default();
        let record =
            Record::from_trusted(frame).map_err(|fault| damaged(position, fault.to_string()))?;
        if record.position() != position {
            return Err(damaged(position, format!("missing; {} is there", record.position())));
        }
        records.push(record);
    }
    if position < end {
        return Err(damaged(position + 1, "missing"));
    }
    Ok(records)
}

fn stream_records(
    connection: &Connection,
    stream: &StreamId,
    after: u64,
    limit: usize,
) -> Result<Vec<Record>, LogFault> {
    let mut statement = connection
        .prepare_cached(
            "SELECT events.record FROM streams CROSS JOIN event_index USING (stream_no) \
             CROSS JOIN events USING (position) \
             WHERE streams.kind = ? AND streams.id = ? AND revision > ? ORDER BY revision LIMIT ?",
        )
        .map_err(fault)?;
    let mut rows = statement
        .query(params![stream.kind, stream.id, number(after), number(limit as u64)])
        .map_err(fault)?;
    let mut records = Vec::new();
    let mut revision = after;
    while let Some(row) = rows.next().map_err(fault)? {
        revision += 1;
        let frame = row.get_ref(0).map_err(fault)?.as_blob().unwrap_or_default();
        let record = Record::from_trusted(frame)
            .map_err(|fault| damaged(0, format!("revision {revision} of {stream}: {fault}")))?;
        if record.revision() != revision || record.id() != stream.id {
            let reason = format!("revision {revision} of {stream} is missing");
            return Err(damaged(record.position(), reason));
        }
        records.push(record);
    }
    Ok(records)
}

pub(crate) fn one(connection: &Connection, position: Position) -> Result<Record, LogFault> {
    range(connection, position - 1, position)?.pop().ok_or_else(|| damaged(position, "missing"))
}

/// Times never go back along the log, so the place is found by halving.
fn position_at(
    connection: &Connection,
    end: Position,
    time: DateTime<Utc>,
) -> Result<Position, LogFault> {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if one(connection, middle)?.recorded_at() <= time {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}

pub(crate) fn nodes(
    connection: &Connection,
    level: u8,
    first: u64,
    count: u64,
) -> Result<Vec<Hash>, LogFault> {
    let end = first.saturating_add(count);
    connection
        .prepare_cached(
            "SELECT hash FROM tree WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
        )
        .and_then(|mut statement| {
            statement
                .query_map(params![level, number(first), number(end)], |row| row.get(0))?
                .collect()
        })
        .map_err(fault)
}

/// The columns narrow it down, the filter itself decides.
fn search(
    connection: &Connection,
    filter: &AuditFilter,
    mut low: Position,
    mut high: Position,
    newest_first: bool,
    limit: usize,
) -> Result<Vec<Record>, LogFault> {
    let end = high;
    let tick = chrono::TimeDelta::microseconds(1);
    if let Some(since) = filter.since.and_then(|since| since.checked_sub_signed(tick)) {
        low = low.max(position_at(connection, end, since)?);
    }
    if let Some(until) = filter.until {
        let before = until.checked_sub_signed(tick).unwrap_or(until);
        high = high.min(position_at(connection, end, before)?);
    }
    let mut conditions = String::new();
    let mut values: Vec<Value> = vec![number(low).into(), number(high).into()];
    if !narrow(connection, filter, &mut conditions, &mut values).map_err(fault)? {
        return Ok(Vec::new());
    }
    let order = if newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT record FROM event_index CROSS JOIN events USING (position) \
         WHERE position > ? AND position <= ?{conditions} ORDER BY position {order}"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(fault)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(fault)?;
    let mut records = Vec::new();
    while records.len() < limit
        && let Some(row) = rows.next().map_err(fault)?
    {
        let frame = row.get_ref(0).map_err(fault)?.as_blob().unwrap_or_default();
        let record = Record::from_trusted(frame).map_err(|fault| damaged(0, fault.to_string()))?;
        if filter.matches(&record) {
            records.push(record);
        }
    }
    Ok(records)
}

/// Adds a condition for each field of the filter; false when nothing can match.
fn narrow(
    connection: &Connection,
    filter: &AuditFilter,
    conditions: &mut String,
    values: &mut Vec<Value>,
) -> rusqlite::Result<bool> {
    let name = |name: &str| {
        connection
            .prepare_cached("SELECT no FROM names WHERE name = ?")?
            .query_row([name], |row| row.get::<_, i64>(0))
            .optional()
    };
    if let (Some(kind), Some(id)) = (&filter.kind, &filter.id) {
        let stream = connection
            .prepare_cached("SELECT stream_no FROM streams WHERE kind = ? AND id = ?")?
            .query_row([kind, id], |row| row.get::<_, i64>(0))
            .optional()?;
        let Some(stream) = stream else { return Ok(false) };
        conditions.push_str(" AND stream_no = ?");
        values.push(stream.into());
    } else if let Some(id) = &filter.id {
        // An id without its kind: kinds are among the names, and names are few.
        conditions.push_str(
            " AND stream_no IN (SELECT stream_no FROM streams WHERE kind IN \
             (SELECT name FROM names) AND id = ?)",
        );
        values.push(id.clone().into());
    }
    let named = [
        (" AND kind_no = ?", filter.kind.as_ref().filter(|_| filter.id.is_none())),
        (" AND type_no = ?", filter.event_type.as_ref()),
        (" AND actor_no = ?", filter.actor.as_ref()),
    ];
    for (condition, wanted) in named {
        let Some(wanted) = wanted else { continue };
        let Some(number) = name(wanted)? else { return Ok(false) };
        conditions.push_str(condition);
        values.push(number.into());
    }
    if let Some(projects) = &filter.projects {
        let mut numbers = Vec::new();
        for project in projects {
            numbers.extend(name(&project.to_string())?);
        }
        if numbers.is_empty() {
            return Ok(false);
        }
        let marks = vec!["?"; numbers.len()].join(", ");
        // One project is in the index's order. Of several the index would have to be sorted, so
        // (`+`) the log is walked along instead.
        let plus = if numbers.len() > 1 { "+" } else { "" };
        let _ = write!(conditions, " AND {plus}project_no IN ({marks})");
        values.extend(numbers.into_iter().map(Value::from));
    }
    if let Some(command) = filter.command_id {
        conditions.push_str(" AND command = ?");
        values.push(short(command).into());
    }
    if let Some(correlation) = filter.correlation_id {
        // The first command of a chain is its own correlation, and is found by the other index.
        conditions.push_str(
            " AND position IN (SELECT position FROM event_index WHERE command = ? UNION ALL \
             SELECT position FROM event_index WHERE correlation = ? AND correlation <> command)",
        );
        values.extend([short(correlation).into(), short(correlation).into()]);
    }
    Ok(true)
}
