//! What a store does for the engine of views. Everything else is shared.

use async_trait::async_trait;
use commands::ports::LogFault;
use domain::log::{Hash, Position};

use super::{
    fold::Version,
    sql::{Dialect, Sql, SqlValue},
    table::Table,
};

/// How far a table has folded which log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last record folded; 0 is none.
    pub position: Position,
    /// That record's leaf in the Merkle tree: a log that was restored from an older backup, or is
    /// another log, has another leaf there, and the table is made again.
    pub leaf: Hash,
}

/// A table as a store has it registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Which.
    pub table: Table,
    /// How far.
    pub checkpoint: Checkpoint,
    /// Whether readers get it; else it is being built.
    pub live: bool,
}

/// Rows for one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Versions that end: key, where they began, where they end.
    pub closes: Vec<(String, Position, Position)>,
    /// New versions.
    pub inserts: Vec<Version>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.closes.is_empty() && self.inserts.is_empty()
    }
}

/// One moment of one view's table.
#[async_trait]
pub trait Snapshot: Send {
    /// The rows of a query; every value of them is of the type the table says.
    async fn select(&mut self, sql: Sql) -> Result<Vec<Vec<SqlValue>>, LogFault>;
}

/// Where tables of views lie.
#[async_trait]
pub trait ViewStore: Send + Sync + 'static {
    /// See [`Snapshot`].
    type Snapshot: Snapshot;

    /// Its SQL.
    const DIALECT: Dialect;

    /// Comes back when this process may project: one process of a store does, the others serve.
    async fn lead(&self);
    /// Comes back when another process may have moved a view on. A hint.
    async fn changed(&self);
    /// Every table there is.
    async fn tables(&self) -> Result<Vec<Registered>, LogFault>;
    /// A new table without rows, being built. With `indexes` it gets all its indexes at once.
    async fn create(&self, table: &Table, indexes: bool) -> Result<(), LogFault>;
    /// Writes rows into a table that is being built. Not durable before [`Self::finish`].
    async fn fill(&self, table: &Table, batch: Batch) -> Result<(), LogFault>;
    /// Finds rows of a table that is being built by their keys from now on.
    async fn index_keys(&self, table: &Table) -> Result<(), LogFault>;
    /// Makes the indexes of a table that is filled, sets its checkpoint, and makes it durable.
    async fn finish(&self, table: &Table, checkpoint: Checkpoint) -> Result<(), LogFault>;
    /// Rows and checkpoint in one transaction. False, with nothing written, when the table is not
    /// at `before` any more or is gone: another process projects it.
    async fn advance(
        &self,
        table: &Table,
        before: Position,
        batch: Batch,
        after: Checkpoint,
    ) -> Result<bool, LogFault>;
    /// Gives readers this table in place of the one they have, at one moment.
    async fn switch(&self, table: &Table) -> Result<(), LogFault>;
    /// Removes a table. Readers who still have a snapshot of it may fail, and ask again.
    async fn remove(&self, table: &Table) -> Result<(), LogFault>;
    /// The live table of a view at one moment; none when it has none yet.
    async fn snapshot(&self, view: &str) -> Result<Option<(Self::Snapshot, Registered)>, LogFault>;
    /// One table at one moment, live or not.
    async fn snapshot_of(&self, table: &Table) -> Result<Self::Snapshot, LogFault>;
}
