//! Keeping one table up to date: read, fold in memory, write rows and checkpoint together.

use std::sync::Arc;

use commands::ports::LogFault;
use domain::log::{Position, Record};
use projections::view::{FoldFault, View};

use super::{
    fold::{Rows, Version, touches},
    list::{Found, selected},
    sql::{Sql, SqlValue},
    store::{Batch, Checkpoint, Snapshot, ViewStore},
    table::{Table, Tier},
};

/// Rows whose states stay in memory between batches, per view: some 100 MB at 2 KB each.
const ROWS_KEPT: usize = 50_000;
/// Keys in one look into the table: well below SQLite's limit of variables.
const KEYS_AT_ONCE: usize = 500;

/// Why a view does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// It cannot fold a record, and stays where it is.
    #[error(transparent)]
    Fold(#[from] FoldFault),
    /// The store or the log failed: tried again.
    #[error(transparent)]
    Store(#[from] LogFault),
    /// Another process projects the table, or it is no longer the live one.
    #[error("the table was moved on by another process")]
    Lost,
}

/// One table and the rows of it that are in memory.
pub(crate) struct Projection {
    pub(crate) table: Table,
    pub(crate) checkpoint: Checkpoint,
    view: &'static dyn View,
    /// None while a fold has it, and after one failed: what is in memory may then differ from the
    /// table and is read again.
    rows: Option<Rows>,
}

impl Projection {
    pub(crate) fn new(view: &'static dyn View, table: Table, checkpoint: Checkpoint) -> Self {
        Self { table, checkpoint, view, rows: None }
    }

    /// Folds records that follow on the checkpoint, all or none.
    pub(crate) async fn advance<S: ViewStore>(
        &mut self,
        store: &S,
        records: Arc<[Record]>,
    ) -> Result<(), Stop> {
        let Some(last) = records.last() else { return Ok(()) };
        let after = Checkpoint { position: last.position(), leaf: last.leaf() };
        let mut rows = self.rows.take().unwrap_or_else(|| Rows::new(self.view, ROWS_KEPT));
        let touched = touches(self.view, &records, 0);
        let unknown: Vec<&str> =
            touched.iter().map(|(_, key)| key.as_ref()).filter(|key| !rows.knows(key)).collect();
        for (key, version) in load(store, &self.table, unknown).await? {
            rows.learn(&key, version)?;
        }
        let (rows, batch) = off_thread(move || {
            for (index, key) in &touched {
                rows.apply(key, &records[*index])?;
            }
            let batch = rows.flush();
            Ok::<_, FoldFault>((rows, batch))
        })
        .await??;
        let before: Position = self.checkpoint.position;
        if !store.advance(&self.table, before, batch, after).await? {
            return Err(Stop::Lost);
        }
        self.rows = Some(rows);
        self.checkpoint = after;
        Ok(())
    }
}

/// Runs what takes time beside the runtime's own threads.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LogFault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LogFault::Unexpected(format!("a fold did not end: {error}")))
}

/// The live rows of these keys, and none for keys that have no row.
pub(crate) async fn load<S: ViewStore>(
    store: &S,
    table: &Table,
    mut keys: Vec<&str>,
) -> Result<Vec<(String, Option<Version>)>, LogFault> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    keys.sort_unstable();
    keys.dedup();
    let mut snapshot = store.snapshot_of(table).await?;
    let mut out = Vec::with_capacity(keys.len());
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let mut sql = Sql::new(
            S::DIALECT,
            format!("SELECT {} FROM {} WHERE key IN (", selected(table, S::DIALECT), table.name()),
        );
        sql.bind_all(keys.iter().map(|key| SqlValue::from(*key)));
        sql.push(") AND ").push(Tier::Live.condition());
        let mut found = std::collections::HashMap::new();
        for row in snapshot.select(sql).await? {
            let Found { key, from, to, columns, body } = Found::read(table, row)?;
            found.insert(key.clone(), Version { key, from, to, columns, body });
        }
        out.extend(keys.iter().map(|key| ((*key).to_owned(), found.remove(*key))));
    }
    Ok(out)
}

/// Adds a batch to another.
pub(crate) fn join(mut one: Batch, other: Batch) -> Batch {
    one.closes.extend(other.closes);
    one.inserts.extend(other.inserts);
    one
}
