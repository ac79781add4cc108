//! The suite of the views' behaviour, on SQLite.
#![expect(clippy::unwrap_used, reason = "helpers of tests may")]

use std::sync::Arc;

use adapters_store_kit::views::{Table, suite::Fixture};
use adapters_store_sqlite::SqliteViewStore;
use async_trait::async_trait;
use tempfile::TempDir;

struct Folder(TempDir);

#[async_trait]
impl Fixture for Folder {
    type Store = SqliteViewStore;

    async fn open(&self) -> Arc<SqliteViewStore> {
        Arc::new(SqliteViewStore::open(self.0.path()).unwrap())
    }

    async fn tamper(&self, table: &Table, sql: &str) {
        let path = self.0.path().join(format!("{}.sqlite", table.name()));
        rusqlite::Connection::open(path).unwrap().execute(sql, ()).unwrap();
    }
}

adapters_store_kit::view_suite!(Folder(tempfile::tempdir().unwrap()));
