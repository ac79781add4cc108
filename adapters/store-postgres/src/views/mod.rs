//! Views on PostgreSQL: a table for each, in the schema of the log.
//!
//! Any number of server processes serve; one of them projects: the one whose session holds an
//! advisory lock. That only keeps two from doing the same work. What keeps rows right is that rows
//! and checkpoint are written in one transaction, which first moves the checkpoint on from where
//! the fold began: of two projectors one finds it moved, and reads again.

mod leader;
mod rows;

use std::sync::Arc;

use adapters_store_kit::views::{
    Batch, Checkpoint, Dialect, Engine, Registered, Running, Snapshot, Sql, SqlValue, Table,
    ViewStore,
};
use async_trait::async_trait;
use commands::ports::{EventLog, LogFault};
use deadpool_postgres::{Object, Pool, Transaction};
use domain::log::Position;
use projections::view::{Lens, View};
use tokio_postgres::error::SqlState;

use crate::{
    Store,
    connection::{fault, pool_fault},
};
use leader::Leader;

/// The engine of views over PostgreSQL.
pub type PostgresViews = Engine<PostgresViewStore>;

/// Begins to serve the views of a store's schema, and to project them when no other process does.
///
/// # Errors
/// When the server is not there, or a view's names cannot be names of columns.
pub async fn start_views(
    store: &Store,
    log: Arc<dyn EventLog>,
    views: &'static [&'static dyn View],
    lenses: &'static [Lens],
) -> Result<(PostgresViews, Running), LogFault> {
    Engine::start(Arc::new(PostgresViewStore::open(store).await?), log, views, lenses)
}

/// The tables of views of one schema.
pub struct PostgresViewStore {
    pool: Pool,
    leader: Leader,
    channel: String,
}

/// Every table of a view there is, and how far it has folded the log.
const ABOUT: &str = "
CREATE TABLE IF NOT EXISTS view_tables (
    view text NOT NULL,
    generation bigint NOT NULL,
    spec text NOT NULL,
    position bigint NOT NULL,
    leaf bytea NOT NULL,
    live boolean NOT NULL,
    PRIMARY KEY (view, generation)
) WITH (fillfactor = 20)";

impl PostgresViewStore {
    /// Makes the list of tables when there is none.
    ///
    /// # Errors
    /// When the server is not there.
    pub async fn open(store: &Store) -> Result<Self, LogFault> {
        let pool = store.pool().clone();
        let client = pool.get().await.map_err(pool_fault)?;
        match client.batch_execute(ABOUT).await {
            // Another process made it at the same moment.
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
            other => other.map_err(fault)?,
        }
        let channel = format!("{}_views", store.schema());
        let leader = Leader::new(store.config().clone(), channel.clone());
        Ok(Self { pool, leader, channel })
    }

    async fn client(&self) -> Result<Object, LogFault> {
        self.pool.get().await.map_err(pool_fault)
    }

    async fn tell(&self, transaction: &Transaction<'_>) -> Result<(), LogFault> {
        transaction.query("SELECT pg_notify($1, '')", &[&self.channel]).await.map_err(fault)?;
        Ok(())
    }
}

fn registered(row: &tokio_postgres::Row) -> Result<Registered, LogFault> {
    let odd = |what: String| LogFault::Unexpected(format!("the list of views' tables: {what}"));
    let table: Table = serde_json::from_str(row.get(0)).map_err(|error| odd(error.to_string()))?;
    let leaf = <[u8; 32]>::try_from(row.get::<_, &[u8]>(2)).map_err(|e| odd(e.to_string()))?;
    let position = row.get::<_, i64>(1) as Position;
    Ok(Registered { table, checkpoint: Checkpoint { position, leaf }, live: row.get(3) })
}

/// A transaction that sees one moment; it ends when this is dropped.
pub struct PostgresSnapshot {
    client: Option<Object>,
}

impl PostgresSnapshot {
    async fn begin(client: Object) -> Result<Self, LogFault> {
        let snapshot = Self { client: Some(client) };
        snapshot
            .client()?
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(fault)?;
        Ok(snapshot)
    }

    fn client(&self) -> Result<&Object, LogFault> {
        self.client
            .as_ref()
            .ok_or_else(|| LogFault::Unexpected("a snapshot was used after its end".to_owned()))
    }

    /// Keeps the table from being dropped under its reader; false when it was dropped before.
    async fn hold(&self, table: &Table) -> Result<bool, LogFault> {
        let sql = format!("LOCK TABLE {} IN ACCESS SHARE MODE", table.name());
        match self.client()?.batch_execute(&sql).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
            other => other.map(|()| true).map_err(fault),
        }
    }
}

impl Drop for PostgresSnapshot {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    if client.batch_execute("ROLLBACK").await.is_err() {
                        drop(Object::take(client));
                    }
                });
            }
            // Closing the connection ends the transaction as well.
            Err(_) => drop(Object::take(client)),
        }
    }
}

#[async_trait]
impl Snapshot for PostgresSnapshot {
    async fn select(&mut self, sql: Sql) -> Result<Vec<Vec<SqlValue>>, LogFault> {
        rows::select(self.client()?, &sql).await
    }
}

#[async_trait]
impl ViewStore for PostgresViewStore {
    type Snapshot = PostgresSnapshot;

    const DIALECT: Dialect = Dialect::Postgres;

    async fn lead(&self) {
        self.leader.lead().await;
    }

    async fn changed(&self) {
        self.leader.changed().await;
    }

    async fn tables(&self) -> Result<Vec<Registered>, LogFault> {
        let rows = self
            .client()
            .await?
            .query("SELECT spec, position, leaf, live FROM view_tables", &[])
            .await
            .map_err(fault)?;
        rows.iter().map(registered).collect()
    }

    async fn create(&self, table: &Table, indexes: bool) -> Result<(), LogFault> {
        let spec = serde_json::to_string(table)
            .map_err(|error| LogFault::Unexpected(error.to_string()))?;
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(fault)?;
        transaction.batch_execute(&table.create_sql(Dialect::Postgres)).await.map_err(fault)?;
        if indexes {
            for sql in table.index_sql(Dialect::Postgres) {
                transaction.batch_execute(&sql).await.map_err(fault)?;
            }
        }
        transaction
            .execute(
                "INSERT INTO view_tables VALUES ($1, $2, $3, 0, $4, false)",
                &[&table.view, &(table.generation as i64), &spec, &[0_u8; 32].as_slice()],
            )
            .await
            .map_err(fault)?;
        transaction.commit().await.map_err(fault)
    }

    async fn fill(&self, table: &Table, batch: Batch) -> Result<(), LogFault> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(fault)?;
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await.map_err(fault)?;
        rows::write(&transaction, table, batch).await?;
        transaction.commit().await.map_err(fault)
    }

    async fn index_keys(&self, table: &Table) -> Result<(), LogFault> {
        self.client().await?.batch_execute(&table.key_index_sql()).await.map_err(fault)
    }

    async fn finish(&self, table: &Table, checkpoint: Checkpoint) -> Result<(), LogFault> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(fault)?;
        transaction
            .batch_execute("SET LOCAL maintenance_work_mem = '128MB'")
            .await
            .map_err(fault)?;
        for sql in table.index_sql(Dialect::Postgres) {
            transaction.batch_execute(&sql).await.map_err(fault)?;
        }
        set_checkpoint(&transaction, table, 0, checkpoint).await?;
        transaction.commit().await.map_err(fault)?;
        // For counts that only read the index.
        client.batch_execute(&format!("VACUUM (ANALYZE) {}", table.name())).await.map_err(fault)
    }

    async fn advance(
        &self,
        table: &Table,
        before: Position,
        batch: Batch,
        after: Checkpoint,
    ) -> Result<bool, LogFault> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(fault)?;
        // What a crash of the server takes is folded again.
        transaction.batch_execute("SET LOCAL synchronous_commit = off").await.map_err(fault)?;
        if !set_checkpoint(&transaction, table, before, after).await? {
            return Ok(false);
        }
        rows::write(&transaction, table, batch).await?;
        self.tell(&transaction).await?;
        transaction.commit().await.map_err(fault)?;
        Ok(true)
    }

    async fn switch(&self, table: &Table) -> Result<(), LogFault> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(fault)?;
        // Of two live tables of one view the newer counts: from this commit on that is the new.
        transaction
            .execute(
                "UPDATE view_tables SET live = true WHERE view = $1 AND generation = $2",
                &[&table.view, &(table.generation as i64)],
            )
            .await
            .map_err(fault)?;
        self.tell(&transaction).await?;
        transaction.commit().await.map_err(fault)
    }

    async fn remove(&self, table: &Table) -> Result<(), LogFault> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(fault)?;
        transaction
            .execute(
                "DELETE FROM view_tables WHERE view = $1 AND generation = $2",
                &[&table.view, &(table.generation as i64)],
            )
            .await
            .map_err(fault)?;
        let sql = format!("DROP TABLE IF EXISTS {}", table.name());
        transaction.batch_execute(&sql).await.map_err(fault)?;
        transaction.commit().await.map_err(fault)
    }

    async fn snapshot(
        &self,
        view: &str,
    ) -> Result<Option<(PostgresSnapshot, Registered)>, LogFault> {
        // A table may be switched and dropped between finding and holding it.
        for _ in 0..5 {
            let snapshot = PostgresSnapshot::begin(self.client().await?).await?;
            let rows = snapshot
                .client()?
                .query(
                    "SELECT spec, position, leaf, live FROM view_tables \
                     WHERE view = $1 AND live ORDER BY generation DESC LIMIT 1",
                    &[&view],
                )
                .await
                .map_err(fault)?;
            let Some(row) = rows.first() else { return Ok(None) };
            let registered = registered(row)?;
            if snapshot.hold(&registered.table).await? {
                return Ok(Some((snapshot, registered)));
            }
        }
        Err(LogFault::Unavailable(format!("view {view} is being switched")))
    }

    async fn snapshot_of(&self, table: &Table) -> Result<PostgresSnapshot, LogFault> {
        let snapshot = PostgresSnapshot::begin(self.client().await?).await?;
        if snapshot.hold(table).await? {
            Ok(snapshot)
        } else {
            Err(LogFault::Unavailable(format!("table {} was dropped", table.name())))
        }
    }
}

async fn set_checkpoint(
    transaction: &Transaction<'_>,
    table: &Table,
    before: Position,
    after: Checkpoint,
) -> Result<bool, LogFault> {
    let changed = transaction
        .execute(
            "UPDATE view_tables SET position = $1, leaf = $2 \
             WHERE view = $3 AND generation = $4 AND position = $5",
            &[
                &(after.position as i64),
                &after.leaf.as_slice(),
                &table.view,
                &(table.generation as i64),
                &(before as i64),
            ],
        )
        .await
        .map_err(fault)?;
    Ok(changed == 1)
}
