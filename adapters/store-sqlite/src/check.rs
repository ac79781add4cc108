//! Whether the file is what it was: quickly when it is opened, fully on request.

use adapters_store_kit::check::{self, Checker, Stored};
use chrono::DateTime;
use commands::ports::{Answered, Head, LogFault};
use domain::{
    kernel::StreamId,
    log::{Frontier, Position, Record},
};
use rusqlite::{Connection, params};

use crate::{Store, fault, index, log};

/// Rows between two reports of progress.
const PAGE: usize = 5_000;

fn damaged(position: Position, reason: impl Into<String>) -> LogFault {
    LogFault::Corrupt { position, reason: reason.into() }
}

/// The head row as it stands.
fn read_head(connection: &Connection) -> Result<Head, LogFault> {
    let (position, recorded_at, frontier) = connection
        .query_row("SELECT position, recorded_at, frontier FROM head", [], |row| {
            let frontier: Vec<u8> = row.get(2)?;
            Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, frontier))
        })
        .map_err(fault)?;
    let frontier = Frontier::from_bytes(&frontier)
        .filter(|frontier| frontier.size() == position)
        .ok_or_else(|| damaged(position, "the head's tree does not read"))?;
    let recorded_at = DateTime::from_timestamp_micros(recorded_at)
        .ok_or_else(|| damaged(position, "the head's time does not read"))?;
    Ok(Head { position, recorded_at, frontier })
}

/// The head, compared with the end of the log, and with the index where it goes so far.
pub(crate) fn open_head(
    connection: &Connection,
    index: &Connection,
    indexed: Position,
) -> Result<Head, LogFault> {
    let head = read_head(connection)?;
    let last: i64 = connection
        .query_row("SELECT coalesce(max(position), 0) FROM events", [], |row| row.get(0))
        .map_err(fault)?;
    let last = last as u64;
    let tiles = log::nodes(connection, Frontier::TILE_LEVELS, 0, u64::MAX)?;
    let records = log::range(connection, check::Tail::sealed(last), last)?;
    let revision = match records.last() {
        Some(newest) if indexed == last => {
            index::revision(index, &newest.stream()).map_err(fault)?
        }
        newest => newest.map(Record::revision),
    };
    let marks: Vec<i64> = connection
        .prepare("SELECT mark FROM events WHERE position > ? ORDER BY position")
        .and_then(|mut statement| {
            statement.query_map([check::Tail::sealed(last) as i64], |row| row.get(0))?.collect()
        })
        .map_err(fault)?;
    let records = records.into_iter().zip(marks).collect();
    check::Tail { head, last, tiles, records, revision }.check()
}

impl Store {
    /// Reads every record, and compares it with its columns, its stream, its request and the tree.
    /// `progress` is told the positions reached. Appends go on meanwhile; what they add is not
    /// checked.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] naming the first position that is damaged or missing.
    pub async fn check(
        &self,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<Head, LogFault> {
        // One read transaction, so that streams and requests are those of the head; begun while
        // the writer stands still, so that they are all there.
        let connection = self.connect(crate::Durability::ReadOnly)?;
        let still = self.stand_still().await?;
        let (mut connection, head) = tokio::task::spawn_blocking(move || {
            connection.execute_batch("BEGIN").map_err(fault)?;
            let head = read_head(&connection)?;
            let (indexed, _) = index::reach(&connection).map_err(fault)?;
            drop(still);
            if indexed != head.position {
                return Err(damaged(head.position, format!("the index goes to {indexed}")));
            }
            Ok::<_, LogFault>((connection, head))
        })
        .await
        .map_err(|error| LogFault::Unexpected(error.to_string()))??;
        let mut checker = Checker::default();
        loop {
            let before = checker.position();
            (connection, checker) = tokio::task::spawn_blocking(move || {
                page(&connection, &mut checker)?;
                Ok::<_, LogFault>((connection, checker))
            })
            .await
            .map_err(|error| LogFault::Unexpected(error.to_string()))??;
            progress(checker.position());
            if checker.position() == before {
                break;
            }
        }
        tokio::task::spawn_blocking(move || {
            streams_and_requests(&connection, &mut checker)?;
            checker.finish(&head)
        })
        .await
        .map_err(|error| LogFault::Unexpected(error.to_string()))?
    }
}

fn page(connection: &Connection, checker: &mut Checker) -> Result<(), LogFault> {
    page_rows(connection, checker).map_err(|fault| match fault {
        // A page of the file that does not read: the rows before it did.
        LogFault::Corrupt { position: 0, reason } => damaged(checker.position() + 1, reason),
        fault => fault,
    })
}

fn page_rows(connection: &Connection, checker: &mut Checker) -> Result<(), LogFault> {
    let after = checker.position() as i64;
    let mut statement = connection
        .prepare_cached(
            "SELECT events.position, streams.kind, streams.id, revision, \
             (SELECT name FROM names WHERE no = type_no), \
             (SELECT name FROM names WHERE no = actor_no), \
             (SELECT name FROM names WHERE no = project_no), mark, record \
             FROM events LEFT JOIN event_index USING (position) \
             LEFT JOIN streams USING (stream_no) \
             WHERE events.position > ? ORDER BY events.position LIMIT ?",
        )
        .map_err(fault)?;
    let mut rows = statement.query(params![after, PAGE as i64]).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        let stored = stored(row).map_err(|error| {
            damaged(checker.position() + 1, format!("its columns do not read: {error}"))
        })?;
        for node in checker.row(stored)? {
            let kept = log::nodes(connection, node.level, node.index, 1)?;
            Checker::compare(&node, kept.first())?;
        }
    }
    Ok(())
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        position: row.get::<_, i64>(0)? as u64,
        stream: StreamId { kind: row.get(1)?, id: row.get(2)? },
        revision: row.get::<_, i64>(3)? as u64,
        event_type: row.get(4)?,
        actor: row.get(5)?,
        project: row.get(6)?,
        mark: row.get(7)?,
        frame: row.get(8)?,
    })
}

fn streams_and_requests(connection: &Connection, checker: &mut Checker) -> Result<(), LogFault> {
    let mut statement = connection
        .prepare(
            "SELECT kind, id, coalesce((SELECT max(revision) FROM event_index \
             WHERE event_index.stream_no = streams.stream_no), 0) FROM streams",
        )
        .map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        let read =
            || Ok((StreamId { kind: row.get(0)?, id: row.get(1)? }, row.get::<_, i64>(2)? as u64));
        let (stream, revision) = read().map_err(fault)?;
        checker.stream(&stream, revision)?;
    }
    let mut statement = connection
        .prepare("SELECT actor, key, digest, first, last FROM requests ORDER BY first")
        .map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        let read = || {
            let answered = Answered {
                digest: row.get(2)?,
                first: row.get::<_, i64>(3)? as u64,
                last: row.get::<_, i64>(4)? as u64,
            };
            Ok(((row.get(0)?, row.get(1)?), answered))
        };
        let (key, answered) = read().map_err(fault)?;
        checker.request(&key, &answered)?;
    }
    Ok(())
}
