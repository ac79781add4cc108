//! Views on SQLite: a folder with one file per table.
//!
//! Views are not in the log's file. SQLite has one writer per file: in a file of its own no view
//! ever makes an append wait, however long its indexes take to build; a rebuilt view is a new file
//! beside the old one, and the old one goes by being deleted. A view's rows and its checkpoint are
//! in the same file, so they commit together; a checkpoint names the record it stands at, so a
//! file never passes for the view of another log.
//!
//! While a table is built its file has no journal: when that fails the file is deleted, never
//! repaired. A live file has one (WAL, `synchronous=NORMAL`): with the power it may lose its newest
//! commits, and folds them again.

mod file;
mod rows;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use adapters_store_kit::views::{
    Batch, Checkpoint, Dialect, Engine, Registered, Running, Snapshot, Sql, SqlValue, Table,
    ViewStore,
};
use async_trait::async_trait;
use commands::ports::{EventLog, LogFault};
use domain::log::Position;
use file::{Reader, ViewFile};
use projections::view::{Lens, View};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Snapshots at the same time; who comes later waits.
const READERS: usize = 32;

/// The engine of views over SQLite.
pub type SqliteViews = Engine<SqliteViewStore>;

/// Opens the folder of views, making it when there is none, and begins to project the log.
///
/// # Errors
/// When the folder cannot be read or made, or a view's names cannot be names of columns.
pub fn start_views(
    folder: impl AsRef<Path>,
    log: Arc<dyn EventLog>,
    views: &'static [&'static dyn View],
    lenses: &'static [Lens],
) -> Result<(SqliteViews, Running), LogFault> {
    Engine::start(Arc::new(SqliteViewStore::open(folder)?), log, views, lenses)
}

/// A folder of tables.
pub struct SqliteViewStore {
    folder: PathBuf,
    files: Mutex<HashMap<String, Arc<ViewFile>>>,
    readers: Arc<Semaphore>,
}

fn io_fault(path: &Path) -> impl Fn(std::io::Error) -> LogFault {
    let path = path.display().to_string();
    move |error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            LogFault::Full(format!("{path}: {error}"))
        }
        _ => LogFault::Unexpected(format!("{path}: {error}")),
    }
}

impl SqliteViewStore {
    /// Opens a folder. Files that do not read are deleted: what they held is in the log.
    ///
    /// # Errors
    /// When the folder cannot be read or made.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, LogFault> {
        let folder = folder.as_ref().to_owned();
        std::fs::create_dir_all(&folder).map_err(io_fault(&folder))?;
        let mut files = HashMap::new();
        for entry in std::fs::read_dir(&folder).map_err(io_fault(&folder))? {
            let path = entry.map_err(io_fault(&folder))?.path();
            if path.extension().is_none_or(|extension| extension != "sqlite") {
                continue;
            }
            match ViewFile::open(&path) {
                Ok(file) => {
                    files.insert(file.table().name(), Arc::new(file));
                }
                Err(LogFault::Unavailable(reason)) => return Err(LogFault::Unavailable(reason)),
                Err(fault) => {
                    tracing::warn!(path = %path.display(), %fault, "a view's file does not read and is made again");
                    file::delete(&path);
                }
            }
        }
        let readers = Arc::new(Semaphore::new(READERS));
        Ok(Self { folder, files: Mutex::new(files), readers })
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<ViewFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, table: &Table) -> Result<Arc<ViewFile>, LogFault> {
        let name = table.name();
        let file = self.files().get(&name).cloned();
        file.ok_or_else(|| LogFault::Unavailable(format!("table {name} was dropped")))
    }

    fn live_file(&self, view: &str) -> Option<Arc<ViewFile>> {
        let files = self.files();
        files
            .values()
            .filter(|file| file.table().view == view && file.is_live())
            .max_by_key(|file| file.table().generation)
            .cloned()
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, LogFault> {
        Arc::clone(&self.readers)
            .acquire_owned()
            .await
            .map_err(|_| LogFault::Unavailable("the views are closed".to_owned()))
    }
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogFault> + Send + 'static,
) -> Result<T, LogFault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LogFault::Unexpected(format!("a statement did not end: {error}")))?
}

/// One moment of one file.
pub struct SqliteSnapshot {
    reader: Option<Reader>,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl Snapshot for SqliteSnapshot {
    async fn select(&mut self, sql: Sql) -> Result<Vec<Vec<SqlValue>>, LogFault> {
        let reader = self.reader.take();
        let mut reader =
            reader.ok_or_else(|| LogFault::Unexpected("a snapshot was cut off".to_owned()))?;
        let (reader, rows) = blocking(move || {
            let rows = reader.select(&sql);
            Ok((reader, rows))
        })
        .await?;
        self.reader = Some(reader);
        rows
    }
}

#[async_trait]
impl ViewStore for SqliteViewStore {
    type Snapshot = SqliteSnapshot;

    const DIALECT: Dialect = Dialect::Sqlite;

    /// One process has an embedded store.
    async fn lead(&self) {}

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

    async fn tables(&self) -> Result<Vec<Registered>, LogFault> {
        let files: Vec<_> = self.files().values().cloned().collect();
        blocking(move || files.iter().map(|file| file.registered()).collect::<Result<_, _>>()).await
    }

    async fn create(&self, table: &Table, indexes: bool) -> Result<(), LogFault> {
        let (name, table) = (table.name(), table.clone());
        let path = self.folder.join(format!("{name}.sqlite"));
        let file = blocking(move || ViewFile::create(&path, table, indexes)).await?;
        self.files().insert(name, Arc::new(file));
        Ok(())
    }

    async fn fill(&self, table: &Table, batch: Batch) -> Result<(), LogFault> {
        let file = self.file(table)?;
        blocking(move || file.fill(batch)).await
    }

    async fn index_keys(&self, table: &Table) -> Result<(), LogFault> {
        let file = self.file(table)?;
        blocking(move || file.index_keys()).await
    }

    async fn finish(&self, table: &Table, checkpoint: Checkpoint) -> Result<(), LogFault> {
        let file = self.file(table)?;
        blocking(move || file.finish(checkpoint)).await
    }

    async fn advance(
        &self,
        table: &Table,
        before: Position,
        batch: Batch,
        after: Checkpoint,
    ) -> Result<bool, LogFault> {
        let Ok(file) = self.file(table) else { return Ok(false) };
        blocking(move || file.advance(before, batch, after)).await
    }

    async fn switch(&self, table: &Table) -> Result<(), LogFault> {
        let file = self.file(table)?;
        // Of two live files of one view the newer counts, here and at the next start: from this
        // commit on that is the new one.
        blocking(move || file.set_live()).await
    }

    async fn remove(&self, table: &Table) -> Result<(), LogFault> {
        if let Some(file) = self.files().remove(&table.name()) {
            // Open snapshots keep the deleted file for as long as they need it.
            file::delete(file.path());
        }
        Ok(())
    }

    async fn snapshot(&self, view: &str) -> Result<Option<(SqliteSnapshot, Registered)>, LogFault> {
        let permit = self.permit().await?;
        let mut last = None;
        // A file may be switched and deleted between finding and opening it.
        for _ in 0..3 {
            let Some(file) = self.live_file(view) else { return Ok(None) };
            let opened = blocking(move || {
                let reader = ViewFile::reader(&file)?;
                let registered = reader.registered()?;
                Ok((reader, registered))
            });
            match opened.await {
                Ok((reader, registered)) => {
                    let snapshot = SqliteSnapshot { reader: Some(reader), _permit: permit };
                    return Ok(Some((snapshot, registered)));
                }
                Err(fault) => last = Some(fault),
            }
        }
        Err(last.unwrap_or_else(|| LogFault::Unavailable(format!("view {view} is switched"))))
    }

    async fn snapshot_of(&self, table: &Table) -> Result<SqliteSnapshot, LogFault> {
        let permit = self.permit().await?;
        let file = self.file(table)?;
        let reader = blocking(move || ViewFile::reader(&file)).await?;
        Ok(SqliteSnapshot { reader: Some(reader), _permit: permit })
    }
}
