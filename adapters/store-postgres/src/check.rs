//! Whether the log is what it was: quickly when a store connects, fully on request.

use adapters_store_kit::check::{Checker, Stored, Tail};
use commands::ports::{Answered, Head, LogFault};
use domain::{
    kernel::StreamId,
    log::{Frontier, Position},
};
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row, Transaction};
use uuid::Uuid;

use crate::{
    Store,
    connection::{self, fault},
    log::{hash, record},
    statements::read_head,
};

/// Rows between two reports of progress.
const PAGE: i64 = 5_000;

fn damaged(position: Position, reason: impl Into<String>) -> LogFault {
    LogFault::Corrupt { position, reason: reason.into() }
}

/// All reads of the transaction see the log at one moment.
async fn one_moment(client: &mut Client) -> Result<Transaction<'_>, LogFault> {
    let builder = client.build_transaction().read_only(true);
    builder.isolation_level(IsolationLevel::RepeatableRead).start().await.map_err(fault)
}

async fn head_of(client: &impl GenericClient) -> Result<Head, LogFault> {
    let sql = "SELECT position, recorded_at, frontier FROM head";
    match client.query_opt(sql, &[]).await.map_err(fault)? {
        Some(row) => read_head(&row),
        None => Err(damaged(0, "the head is missing")),
    }
}

/// The head, compared with the end of the log.
pub(crate) async fn open_head(client: &mut Client) -> Result<Head, LogFault> {
    let moment = one_moment(client).await?;
    let head = head_of(&moment).await?;
    let sql = "SELECT coalesce(max(position), 0) FROM events";
    let last: i64 = moment.query_one(sql, &[]).await.map_err(fault)?.get(0);
    let level = i16::from(Frontier::TILE_LEVELS);
    let sql = "SELECT hash FROM tree WHERE level = $1 ORDER BY idx";
    let tiles = moment.query(sql, &[&level]).await.map_err(fault)?;
    let tiles = tiles.iter().map(hash).collect::<Result<_, _>>()?;
    let sealed = Tail::sealed(last as u64);
    let sql = "SELECT record, mark FROM events WHERE position > $1 ORDER BY position";
    let rows = moment.query(sql, &[&(sealed as i64)]).await.map_err(fault)?;
    let mut records = Vec::with_capacity(rows.len());
    for (row, position) in rows.iter().zip(sealed + 1..) {
        let record = record(row, position)?;
        if record.position() != position {
            return Err(damaged(position, "missing"));
        }
        records.push((record, row.get(1)));
    }
    let mut revision = None;
    if let Some((newest, _)) = records.last() {
        let sql = "SELECT revision FROM streams WHERE kind = $1 AND id = $2";
        let row = moment.query_opt(sql, &[&newest.kind(), &newest.id()]).await.map_err(fault)?;
        revision = row.map(|row| row.get::<_, i64>(0) as u64);
    }
    moment.commit().await.map_err(fault)?;
    Tail { head, last: last as u64, tiles, records, revision }.check()
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
        let mut client = connection::connect(&self.inner.config).await?;
        let moment = one_moment(&mut client).await?;
        let head = head_of(&moment).await?;
        let mut checker = Checker::default();
        let page = moment
            .prepare(
                "SELECT position, streams.kind, streams.id, events.revision, type, actor, \
                 project, mark, record, recorded_at, command_id, correlation_id, events.kind \
                 FROM events LEFT JOIN streams USING (stream_no) \
                 WHERE position > $1 ORDER BY position LIMIT $2",
            )
            .await
            .map_err(fault)?;
        let node_sql = "SELECT hash FROM tree WHERE level = $1 AND idx = $2";
        let node_sql = moment.prepare(node_sql).await.map_err(fault)?;
        loop {
            let after = checker.position() as i64;
            let rows = moment.query(&page, &[&after, &PAGE]).await.map_err(fault)?;
            for row in &rows {
                for node in checker.row(stored(row, checker.position() + 1)?)? {
                    let place: (i16, i64) = (node.level.into(), node.index as i64);
                    let kept =
                        moment.query_opt(&node_sql, &[&place.0, &place.1]).await.map_err(fault)?;
                    let kept = kept.as_ref().map(hash).transpose()?;
                    Checker::compare(&node, kept.as_ref())?;
                }
            }
            progress(checker.position());
            if (rows.len() as i64) < PAGE {
                break;
            }
        }
        streams_and_requests(&moment, &mut checker).await?;
        checker.finish(&head)
    }
}

fn stored(row: &Row, position: Position) -> Result<Stored, LogFault> {
    let no_stream = || damaged(position, "its stream has no row");
    Ok(Stored {
        position: row.get::<_, i64>(0) as u64,
        stream: StreamId {
            kind: row.get::<_, Option<_>>(1).ok_or_else(no_stream)?,
            id: row.get::<_, Option<_>>(2).ok_or_else(no_stream)?,
        },
        revision: row.get::<_, i64>(3) as u64,
        event_type: row.get(4),
        actor: row.get(5),
        project: row.get::<_, Option<Uuid>>(6).map(|one| one.to_string()),
        mark: row.get(7),
        frame: row.get(8),
    })
}

async fn streams_and_requests(
    moment: &Transaction<'_>,
    checker: &mut Checker,
) -> Result<(), LogFault> {
    let sql = "SELECT kind, id, revision FROM streams";
    for row in moment.query(sql, &[]).await.map_err(fault)? {
        let stream = StreamId { kind: row.get(0), id: row.get(1) };
        checker.stream(&stream, row.get::<_, i64>(2) as u64)?;
    }
    let sql = "SELECT actor, key, digest, first, last FROM requests ORDER BY first";
    for row in moment.query(sql, &[]).await.map_err(fault)? {
        let answered = Answered {
            digest: row.get(2),
            first: row.get::<_, i64>(3) as u64,
            last: row.get::<_, i64>(4) as u64,
        };
        checker.request(&(row.get(0), row.get(1)), &answered)?;
    }
    Ok(())
}
