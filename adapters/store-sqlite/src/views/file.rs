//! One file: one table of one view, and its checkpoint.
//!
//! ```text
//! created ──fill──► filled ──finish──► finished ──switch──► live
//!   no journal, no index            WAL, indexes, checkpoint
//! ```

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adapters_store_kit::views::{Batch, Checkpoint, Dialect, Registered, Sql, SqlValue, Table};
use commands::ports::LogFault;
use domain::log::Position;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{io_fault, rows};
use crate::fault::fault;

/// Connections kept for the next readers of a file.
const IDLE_READERS: usize = 8;

/// One file.
pub(super) struct ViewFile {
    path: PathBuf,
    table: Table,
    live: AtomicBool,
    writer: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
    dropped: AtomicBool,
    /// Whether a thread brings what was written to the disk.
    syncing: Arc<AtomicBool>,
}

/// Deletes a file and what SQLite keeps beside it.
pub(super) fn delete(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a file of a view stays");
            }
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path, create: bool) -> Result<Connection, LogFault> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let connection = Connection::open_with_flags(path, flags).map_err(fault)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// A connection that reads. It leaves the journal as it is: a table that is being built has none,
/// and rows of it are read.
fn connect_reader(path: &Path) -> Result<Connection, LogFault> {
    let connection = connect(path, false)?;
    connection
        .execute_batch("PRAGMA cache_size = -8192; PRAGMA mmap_size = 17179869184;")
        .map_err(fault)?;
    Ok(connection)
}

/// One that writes: a batch dirties a page of every index for nearly every row, and must not spill.
/// From here on the file has a journal.
fn connect_writer(path: &Path) -> Result<Connection, LogFault> {
    let connection = connect(path, false)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(fault)?;
    connection
        .execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536; \
             PRAGMA mmap_size = 17179869184; PRAGMA wal_autocheckpoint = 4000;",
        )
        .map_err(fault)?;
    Ok(connection)
}

fn registered(connection: &Connection) -> Result<Registered, LogFault> {
    let mut statement =
        connection.prepare_cached("SELECT spec, position, leaf, live FROM about").map_err(fault)?;
    let (spec, position, leaf, live) = statement
        .query_row((), |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, [u8; 32]>(2)?,
                row.get::<_, bool>(3)?,
            ))
        })
        .map_err(fault)?;
    let table = serde_json::from_str(&spec)
        .map_err(|error| LogFault::Unexpected(format!("a table's description: {error}")))?;
    Ok(Registered { table, checkpoint: Checkpoint { position: position as Position, leaf }, live })
}

impl ViewFile {
    /// Makes a file with an empty table.
    pub(super) fn create(path: &Path, table: Table, indexes: bool) -> Result<Self, LogFault> {
        delete(path);
        let connection = connect(path, true)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; \
                 PRAGMA cache_size = -65536; PRAGMA mmap_size = 17179869184; PRAGMA threads = 2; \
                 CREATE TABLE about (one INTEGER PRIMARY KEY CHECK (one = 1), spec TEXT NOT NULL, \
                 position INTEGER NOT NULL, leaf BLOB NOT NULL, live INTEGER NOT NULL);",
            )
            .map_err(fault)?;
        let spec = serde_json::to_string(&table)
            .map_err(|error| LogFault::Unexpected(error.to_string()))?;
        connection
            .execute("INSERT INTO about VALUES (1, ?, 0, zeroblob(32), 0)", [spec])
            .map_err(fault)?;
        connection.execute_batch(&table.create_sql(Dialect::Sqlite)).map_err(fault)?;
        let file = Self {
            path: path.to_owned(),
            table,
            live: AtomicBool::new(false),
            writer: Mutex::new(connection),
            idle: Mutex::default(),
            dropped: AtomicBool::new(false),
            syncing: Arc::default(),
        };
        if indexes {
            file.finish(Checkpoint::default())?;
        }
        Ok(file)
    }

    /// Opens a file. One that was still being built does not open.
    pub(super) fn open(path: &Path) -> Result<Self, LogFault> {
        let writer = connect_writer(path)?;
        let Registered { table, live, .. } = registered(&writer)?;
        if path.file_stem().is_none_or(|stem| *stem != *table.name()) {
            return Err(LogFault::Unexpected(format!("it holds {}", table.name())));
        }
        if !live {
            return Err(LogFault::Unexpected("it was not finished".to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            table,
            live: AtomicBool::new(true),
            writer: Mutex::new(writer),
            idle: Mutex::default(),
            dropped: AtomicBool::new(false),
            syncing: Arc::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.dropped.store(true, Ordering::Release);
        &self.path
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    pub(super) fn registered(&self) -> Result<Registered, LogFault> {
        registered(&lock(&self.writer))
    }

    pub(super) fn fill(&self, batch: Batch) -> Result<(), LogFault> {
        let mut writer = lock(&self.writer);
        let transaction =
            writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
        rows::write(&transaction, &self.table, batch).map_err(fault)?;
        transaction.commit().map_err(fault)?;
        self.sync_ahead();
        Ok(())
    }

    /// Begins to bring what was written to the disk, beside the writing: else a large table waits
    /// for all of it at its end. [`Self::finish`] makes sure.
    fn sync_ahead(&self) {
        if self.syncing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (path, syncing) = (self.path.clone(), Arc::clone(&self.syncing));
        let thread = std::thread::Builder::new().name("view-sync".to_owned()).spawn(move || {
            if let Err(error) = std::fs::File::open(&path).and_then(|file| file.sync_data()) {
                tracing::debug!(path = %path.display(), %error, "not synced ahead");
            }
            syncing.store(false, Ordering::Release);
        });
        if thread.is_err() {
            self.syncing.store(false, Ordering::Release);
        }
    }

    pub(super) fn index_keys(&self) -> Result<(), LogFault> {
        lock(&self.writer).execute_batch(&self.table.key_index_sql()).map_err(fault)
    }

    pub(super) fn finish(&self, checkpoint: Checkpoint) -> Result<(), LogFault> {
        let mut writer = lock(&self.writer);
        for sql in self.table.index_sql(Dialect::Sqlite) {
            writer.execute_batch(&sql).map_err(fault)?;
            self.sync_ahead();
        }
        set_checkpoint(&writer, 0, checkpoint).map_err(fault)?;
        // From here on it has a journal, and what is in it is on the disk.
        *writer = Connection::open_in_memory().map_err(fault)?;
        let file = std::fs::File::open(&self.path).map_err(io_fault(&self.path))?;
        file.sync_all().map_err(io_fault(&self.path))?;
        *writer = connect_writer(&self.path)?;
        Ok(())
    }

    pub(super) fn advance(
        &self,
        before: Position,
        batch: Batch,
        after: Checkpoint,
    ) -> Result<bool, LogFault> {
        let mut writer = lock(&self.writer);
        let transaction =
            writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
        if !set_checkpoint(&transaction, before, after).map_err(fault)? {
            return Ok(false);
        }
        rows::write(&transaction, &self.table, batch).map_err(fault)?;
        transaction.commit().map_err(fault)?;
        Ok(true)
    }

    pub(super) fn set_live(&self) -> Result<(), LogFault> {
        let writer = lock(&self.writer);
        writer
            .execute_batch(
                "PRAGMA synchronous = FULL; UPDATE about SET live = 1; PRAGMA synchronous = NORMAL;",
            )
            .map_err(fault)?;
        self.live.store(true, Ordering::Release);
        Ok(())
    }

    /// A connection that sees the file as it is now, until it is dropped.
    pub(super) fn reader(file: &Arc<Self>) -> Result<Reader, LogFault> {
        let idle = lock(&file.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect_reader(&file.path)?,
        };
        connection.execute_batch("BEGIN").map_err(fault)?;
        let reader = Reader { connection: Some(connection), file: Arc::clone(file) };
        // The first read fixes the moment.
        reader.registered()?;
        Ok(reader)
    }
}

fn set_checkpoint(
    connection: &Connection,
    before: Position,
    after: Checkpoint,
) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached("UPDATE about SET position = ?, leaf = ? WHERE position = ?")?
        .execute((after.position as i64, after.leaf, before as i64))?;
    Ok(changed == 1)
}

/// One moment of a file.
pub(super) struct Reader {
    connection: Option<Connection>,
    file: Arc<ViewFile>,
}

impl Reader {
    fn connection(&self) -> Result<&Connection, LogFault> {
        self.connection
            .as_ref()
            .ok_or_else(|| LogFault::Unexpected("a reader was used after its end".to_owned()))
    }

    pub(super) fn registered(&self) -> Result<Registered, LogFault> {
        registered(self.connection()?)
    }

    pub(super) fn select(&mut self, sql: &Sql) -> Result<Vec<Vec<SqlValue>>, LogFault> {
        rows::select(self.connection()?, sql).map_err(fault)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let ended = connection.execute_batch("ROLLBACK").is_ok();
        let mut idle = lock(&self.file.idle);
        if ended && idle.len() < IDLE_READERS && !self.file.dropped.load(Ordering::Acquire) {
            idle.push(connection);
        }
    }
}
