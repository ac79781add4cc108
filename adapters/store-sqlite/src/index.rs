//! What finds events: streams, requests and the columns of `event_index`, made from the records
//! and kept in a file of its own, so that nobody who appends waits for it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use adapters_store_kit::check::mark;
use commands::ports::{Answered, LogFault};
use domain::{
    kernel::StreamId,
    log::{Position, Record},
};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use uuid::Uuid;

use crate::{fault, schema};

/// Streams whose number is kept in memory; some 10 MB.
const STREAMS_KEPT_MAX: usize = 50_000;
/// Names (types, actors, kinds, projects) kept in memory.
const NAMES_KEPT_MAX: usize = 20_000;

/// The index's writer, with what it remembers of the tables as they were committed.
#[derive(Default)]
pub(crate) struct Index {
    streams: HashMap<StreamId, i64>,
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

    /// The stream's number.
    fn stream(&mut self, connection: &Connection, stream: &StreamId) -> rusqlite::Result<i64> {
        if let Some(number) = self.streams.get(stream) {
            return Ok(*number);
        }
        let number = match connection
            .prepare_cached("SELECT stream_no FROM streams WHERE kind = ? AND id = ?")?
            .query_row([&stream.kind, &stream.id], |row| row.get(0))
            .optional()?
        {
            Some(number) => number,
            None => connection
                .prepare_cached("INSERT INTO streams (kind, id) VALUES (?, ?)")?
                .insert([&stream.kind, &stream.id])?,
        };
        self.streams.insert(stream.clone(), number);
        Ok(number)
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
            let number = self.stream(connection, &record.stream())?;
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

/// The index's file beside the log's.
pub(crate) fn path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push("-index");
    name.into()
}

/// Opens the index's file for the thread that writes it, and says how far it goes. An index that
/// is missing, of another version, or of another log begins anew: everything in it can be made
/// from the records.
pub(crate) fn open(log_path: &Path, log: &Connection) -> Result<(Connection, Position), LogFault> {
    let path = path(log_path);
    let mut connection = connect(&path).map_err(fault)?;
    if let Err(reason) = schema::create_index(&mut connection) {
        connection = anew(connection, &path, &reason.to_string())?;
    }
    let (position, kept) = reach(&connection).map_err(fault)?;
    if position == 0 {
        return Ok((connection, 0));
    }
    let there: Option<i64> = log
        .query_row("SELECT mark FROM events WHERE position = ?", [position as i64], |row| {
            row.get(0)
        })
        .optional()
        .map_err(fault)?;
    if there == Some(kept) {
        return Ok((connection, position));
    }
    let reason = format!("its position {position} is not the log's");
    Ok((anew(connection, &path, &reason)?, 0))
}

fn anew(connection: Connection, path: &Path, reason: &str) -> Result<Connection, LogFault> {
    tracing::warn!(path = %path.display(), reason, "the log's index is made anew");
    drop(connection);
    for part in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(part);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LogFault::Unavailable(format!("{}: {error}", path.display())));
            }
            _ => {}
        }
    }
    let mut connection = connect(path).map_err(fault)?;
    schema::create_index(&mut connection)?;
    Ok(connection)
}

/// `synchronous=NORMAL`: with the power it may lose its newest commits, and makes them again.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "page_size", 8_192)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A connection that finds what is indexed.
pub(crate) fn read_only(log_path: &Path) -> rusqlite::Result<Connection> {
    let access = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path(log_path), access)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    Ok(connection)
}

/// The index beside the log's own tables.
pub(crate) fn attach(log: &Connection, log_path: &Path) -> rusqlite::Result<()> {
    let index = path(log_path);
    let index = index.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(index.clone()))?;
    log.execute("ATTACH DATABASE ? AS finders", [index])?;
    log.pragma_update(Some("finders"), "cache_size", -16_384)
}

/// How far the index goes, and the mark of the record there.
pub(crate) fn reach(connection: &Connection) -> rusqlite::Result<(Position, i64)> {
    connection.query_row("SELECT position, mark FROM reach", [], |row| {
        Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
    })
}

/// Says that the index goes to this record.
pub(crate) fn reaches(connection: &Connection, last: &Record) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE reach SET position = ?, mark = ?")?
        .execute(params![last.position() as i64, mark(&last.leaf())])?;
    Ok(())
}

/// A stream's revision, as indexed; none when it has no row.
pub(crate) fn revision(
    connection: &Connection,
    stream: &StreamId,
) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached(
            "SELECT (SELECT max(revision) FROM event_index \
             WHERE event_index.stream_no = streams.stream_no) \
             FROM streams WHERE kind = ? AND id = ?",
        )?
        .query_row([&stream.kind, &stream.id], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.unwrap_or(0) as u64)
        })
        .optional()
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
