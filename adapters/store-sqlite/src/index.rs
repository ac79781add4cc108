//! What finds events: streams, requests and the columns of `event_index`, made from the records.

use std::collections::HashMap;

use commands::ports::Answered;
use domain::{
    kernel::StreamId,
    log::{Position, Record},
};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

/// Streams whose number and revision are kept in memory; some 10 MB.
const STREAMS_KEPT_MAX: usize = 50_000;
/// Names (types, actors, kinds, projects) kept in memory.
const NAMES_KEPT_MAX: usize = 20_000;

/// The index's writer, with what it remembers of the tables as they were committed.
#[derive(Default)]
pub(crate) struct Index {
    /// Number and revision.
    streams: HashMap<StreamId, (i64, u64)>,
    names: HashMap<String, i64>,
}

impl Index {
    /// Keeps its memory small.
    pub(crate) fn trim(&mut self) {
        if self.streams.len() > STREAMS_KEPT_MAX {
            self.streams.clear();
        }
        if self.names.len() > NAMES_KEPT_MAX {
            self.names.clear();
        }
    }

    /// After a transaction that was not committed.
    pub(crate) fn forget(&mut self) {
        self.streams.clear();
        self.names.clear();
    }

    /// The stream's number and revision, as indexed.
    fn stream(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
    ) -> rusqlite::Result<Option<(i64, u64)>> {
        if let Some(known) = self.streams.get(stream) {
            return Ok(Some(*known));
        }
        let known = connection
            .prepare_cached(
                "SELECT stream_no, (SELECT max(revision) FROM event_index \
                 WHERE event_index.stream_no = streams.stream_no) \
                 FROM streams WHERE kind = ? AND id = ?",
            )?
            .query_row(params![stream.kind, stream.id], |row| {
                Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or(0) as u64))
            })
            .optional()?;
        if let Some(known) = known {
            self.streams.insert(stream.clone(), known);
        }
        Ok(known)
    }

    /// The stream's revision, as indexed; none when it has no row.
    pub(crate) fn revision(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
    ) -> rusqlite::Result<Option<u64>> {
        Ok(self.stream(connection, stream)?.map(|(_, revision)| revision))
    }

    /// Writes the rows of these records, which follow on what is indexed.
    pub(crate) fn add(
        &mut self,
        connection: &Connection,
        records: &[Record],
    ) -> rusqlite::Result<()> {
        let mut insert = connection.prepare_cached(
            "INSERT INTO event_index (position, stream_no, revision, kind_no, type_no, actor_no, \
             project_no, command, correlation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let mut answer = connection.prepare_cached(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET last = excluded.last",
        )?;
        for record in records {
            let (position, revision) = (record.position() as i64, record.revision());
            let stream = record.stream();
            let number = match self.stream(connection, &stream)? {
                Some((number, _)) => number,
                None => connection
                    .prepare_cached("INSERT INTO streams (kind, id) VALUES (?, ?)")?
                    .insert(params![stream.kind, stream.id])?,
            };
            self.streams.insert(stream, (number, revision));
            let project =
                record.project().map(|id| self.name(connection, &id.to_string())).transpose()?;
            insert.execute(params![
                position,
                number,
                revision as i64,
                self.name(connection, record.kind())?,
                self.name(connection, record.event_type())?,
                self.name(connection, record.actor())?,
                project,
                short(record.command_id()),
                short(record.correlation_id()),
            ])?;
            if let Some(request) = record.request() {
                answer.execute(params![
                    record.actor(),
                    request.key,
                    request.digest,
                    position,
                    position
                ])?;
            }
        }
        Ok(())
    }

    fn name(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.names.get(name) {
            return Ok(*number);
        }
        let number = match connection
            .prepare_cached("SELECT no FROM names WHERE name = ?")?
            .query_row([name], |row| row.get(0))
            .optional()?
        {
            Some(number) => number,
            None => {
                connection.prepare_cached("INSERT INTO names (name) VALUES (?)")?.insert([name])?
            }
        };
        self.names.insert(name.to_owned(), number);
        Ok(number)
    }
}

/// Says how far the index goes.
pub(crate) fn reaches(connection: &Connection, position: Position) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE head SET indexed = ?")?.execute([position as i64])?;
    Ok(())
}

/// What a request came to, when it is indexed.
pub(crate) fn request(
    connection: &Connection,
    actor: &str,
    key: &str,
) -> rusqlite::Result<Option<Answered>> {
    connection
        .prepare_cached("SELECT digest, first, last FROM requests WHERE actor = ? AND key = ?")?
        .query_row([actor, key], |row| {
            Ok(Answered {
                digest: row.get(0)?,
                first: row.get::<_, i64>(1)? as u64,
                last: row.get::<_, i64>(2)? as u64,
            })
        })
        .optional()
}

/// The first eight bytes of an id: enough to find a few, which are then compared in full. Of a
/// UUIDv7 they are its time, so neighbours in time are neighbours in the index.
pub(crate) fn short(id: Uuid) -> i64 {
    id.as_u64_pair().0 as i64
}
