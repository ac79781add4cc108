//! The embedded store: one SQLite file (WAL) that holds log, leases and views.
//!
//! - [`Store`]: opens the file, hands out connections and the write [`Gate`].
#![warn(missing_docs)]

mod fault;
mod gate;

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use commands::ports::LogFault;
use rusqlite::{Connection, OpenFlags};

pub use fault::fault;
pub use gate::{Gate, Turn};

/// What a connection's commits survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `synchronous=FULL`: a commit is on the disk when it returns. The log's.
    Full,
    /// `synchronous=NORMAL`: the newest commits may be lost with the power, never torn. For what
    /// can be made again from the log.
    Normal,
    /// Cannot write.
    ReadOnly,
}

/// The store. Cheap to clone; the file is closed with the last clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    gate: Gate,
    /// Held as long as the store is open.
    _lock: File,
}

impl Store {
    /// A new connection to the file, with the store's settings. Whoever writes with it holds
    /// [`Self::gate`] from `BEGIN IMMEDIATE` to `COMMIT`.
    pub fn connect(&self, durability: Durability) -> Result<Connection, LogFault> {
        connect(&self.inner.path, durability).map_err(fault)
    }

    /// The one door to write transactions.
    pub fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// Opens the store, making the file when there is none.
    ///
    /// # Errors
    /// [`LogFault::Unavailable`] when another process has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LogFault> {
        let path = path.as_ref().to_owned();
        let lock = lock(&path)?;
        Ok(Self { inner: Arc::new(Inner { path, gate: Gate::default(), _lock: lock }) })
    }
}

/// Takes the lock that keeps other processes out: on a side file, because SQLite's own locks are
/// the file's.
fn lock(path: &Path) -> Result<File, LogFault> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |error: std::io::Error| {
        LogFault::Unavailable(format!("{}: {error}", Path::new(&name).display()))
    };
    let file =
        File::options().create(true).truncate(false).write(true).open(&name).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogFault::Unavailable(format!(
            "{} is open in another process; one server at a time can use an embedded store",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn connect(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let access = match durability {
        Durability::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        _ => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // The gate keeps writers apart; this is for a checkpoint or a person's own `sqlite3`.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    if durability != Durability::ReadOnly {
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        let synchronous = if durability == Durability::Full { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        // Pages: some 16 MB of log between two checkpoints.
        connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    }
    Ok(connection)
}
