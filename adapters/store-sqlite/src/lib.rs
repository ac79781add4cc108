//! The embedded store: an SQLite file (WAL) that holds log and leases, one for the index that finds
//! events, and one for each view.
//!
//! - [`Store`]: opens the file, is the log (`EventLog`), hands out connections and the [`Gate`].
//! - [`SqliteLeases`]: who works on which order.
//!
//! One process at a time, one thread that writes the log, any number of readers.
#![warn(missing_docs)]

mod check;
mod checkpoints;
mod fault;
mod gate;
mod index;
mod indexer;
mod leases;
mod log;
mod schema;
mod tail;
mod views;
mod writer;

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use adapters_store_kit::group::{Now, system_time};
use chrono::{DateTime, Utc};
use commands::ports::{Head, LogFault};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use checkpoints::Checkpoints;
pub use fault::fault;
pub use gate::{Gate, Turn};
use indexer::Indexing;
pub use leases::SqliteLeases;
use tail::Tail;
pub use views::{SqliteViewStore, SqliteViews, start_views};
use writer::{Job, Writer};

/// How long a lock that somebody has is waited for: longer than a process takes to begin.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries.
const LOCK_AGAIN: Duration = Duration::from_millis(10);

/// Makes what was written to a file durable: `fdatasync`. Tests put their own in its place.
pub type SyncFile = Arc<dyn Fn(&File) -> std::io::Result<()> + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Appends that may wait for the writer; the next one waits for a place.
    pub queue_max: usize,
    /// How long an append waits for a place before it is refused as unavailable.
    pub patience: Duration,
    /// Connections for reads that run at the same time.
    pub readers: usize,
    /// Most bytes of the file (its log of changes not counted); more is [`LogFault::Full`].
    pub bytes_max: Option<u64>,
    /// Where `recorded_at` and the terms of leases come from.
    pub now: Now,
    /// What a commit of the log waits for before it is acknowledged.
    pub sync: SyncFile,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Eight groups: at some milliseconds each nobody waits for more than a blink.
            queue_max: 8 * adapters_store_kit::group::GROUP_APPENDS_MAX,
            patience: Duration::from_secs(5),
            readers: 8,
            bytes_max: None,
            now: system_time(),
            sync: Arc::new(File::sync_data),
        }
    }
}

/// What a connection's commits survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `synchronous=FULL`: a commit is on the disk when it returns.
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
    options: Options,
    gate: Arc<Gate>,
    head: watch::Receiver<Head>,
    tail: Arc<RwLock<Tail>>,
    /// None only while it is dropped.
    queue: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    indexing: Arc<Indexing>,
    indexer: Option<JoinHandle<()>>,
    checkpoints: Arc<Checkpoints>,
    checkpointer: Option<JoinHandle<()>>,
    readers: Mutex<Vec<Connection>>,
    /// Bounds the reads on threads of their own.
    places: Arc<Semaphore>,
    /// Held as long as the store is open.
    _lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What waits is written and answered; then the file is closed for whoever opens it next.
        self.queue.take();
        let join = |what: &str, thread: &mut Option<JoinHandle<()>>| {
            if thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(path = %self.path.display(), "the store's {what} panicked");
            }
        };
        join("writer", &mut self.writer);
        self.indexing.end();
        join("index", &mut self.indexer);
        self.checkpoints.end();
        join("checkpoints", &mut self.checkpointer);
    }
}

impl Store {
    /// Opens the store, making its files when there are none. Compares the head with the newest
    /// records and the tree; [`Self::check`] compares everything. An index that is not there is
    /// made again.
    ///
    /// # Errors
    /// [`LogFault::Unavailable`] when another process has it open, [`LogFault::Corrupt`] when the
    /// newest records are not what the head says.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, LogFault> {
        let path = path.as_ref().to_owned();
        let lock = lock(&path)?;
        let checkpoints = Arc::new(Checkpoints::default());
        let mut connection = connect(&path, Durability::Full, &checkpoints).map_err(fault)?;
        schema::create_log(&mut connection)?;
        if let Some(bytes) = options.bytes_max {
            let page: u64 = connection
                .pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0))
                .map_err(fault)? as u64;
            connection
                .pragma_update_and_check(None, "max_page_count", (bytes / page) as i64, |_| Ok(()))
                .map_err(fault)?;
        }
        let wal = durable(&connection, &options.sync)?;
        let (mut index, indexed) = index::open(&path, &connection)?;
        let head = check::open_head(&connection, &index, indexed)?;
        let end = head.position;
        let indexed = indexer::catch_up(&mut index, &connection, indexed, end)?;
        let tail = Tail::load(&connection, &index, indexed, end)?;
        let tail = Arc::new(RwLock::new(tail));
        let indexing = Arc::new(Indexing::new(end, indexed));
        let (changes, head) = watch::channel(head);
        let (queue, waiting) = mpsc::channel(options.queue_max);
        let gate = Arc::new(Gate::default());
        let checkpointer = connect(&path, Durability::Normal, &checkpoints).map_err(fault)?;
        // From here on the writer waits for the disk after its commit, not in it: the gate is free
        // meanwhile.
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(fault)?;
        let writer = Writer {
            connection,
            now: options.now.clone(),
            head: changes,
            tail: Arc::clone(&tail),
            indexing: Arc::clone(&indexing),
            finder: index::read_only(&path).map_err(fault)?,
            checkpoints: Arc::clone(&checkpoints),
            wal,
            sync: options.sync.clone(),
            revisions: HashMap::new(),
            failed: None,
        };
        let door = Arc::clone(&gate);
        let writer = thread("log-writer", move || writer.run(&door, waiting))?;
        let (due, newest) = (Arc::clone(&indexing), Arc::clone(&tail));
        let indexer = thread("log-index", move || due.run(index, &newest))?;
        let (due, door) = (Arc::clone(&checkpoints), Arc::clone(&gate));
        let checkpointer = thread("log-checkpoint", move || due.run(&checkpointer, &door))?;
        let places = Arc::new(Semaphore::new(options.readers));
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                options,
                gate,
                head,
                tail,
                queue: Some(queue),
                writer: Some(writer),
                indexing,
                indexer: Some(indexer),
                checkpoints,
                checkpointer: Some(checkpointer),
                readers: Mutex::default(),
                places,
                _lock: lock,
            }),
        })
    }

    /// A new connection to the file, with the store's settings. Whoever writes with it holds
    /// [`Self::gate`] from `BEGIN IMMEDIATE` to `COMMIT`.
    pub fn connect(&self, durability: Durability) -> Result<Connection, LogFault> {
        connect(&self.inner.path, durability, &self.inner.checkpoints).map_err(fault)
    }

    /// The one door to write transactions.
    pub fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// The newest position, without asking anybody.
    pub fn head_now(&self) -> Head {
        self.inner.head.borrow().clone()
    }

    /// Changes with every group of appends.
    pub fn head_changes(&self) -> watch::Receiver<Head> {
        self.inner.head.clone()
    }

    /// Reads on a thread where blocking is allowed.
    ///
    /// # Errors
    /// What the work says, or a fault of the connection.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, LogFault> + Send + 'static,
    ) -> Result<T, LogFault> {
        let ended = |error: &dyn std::fmt::Display| LogFault::Unexpected(error.to_string());
        let place = Arc::clone(&self.inner.places);
        let place = place.acquire_owned().await.map_err(|error| ended(&error))?;
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            this.inline(work)
        })
        .await
        .map_err(|error| ended(&error))?
    }

    /// Reads on this thread: for what is short and nearly always in memory.
    fn inline<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, LogFault>,
    ) -> Result<T, LogFault> {
        let pool = || self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let free = pool().pop();
        let connection = match free {
            Some(connection) => connection,
            None => self.connect(Durability::ReadOnly)?,
        };
        let result = work(&connection);
        let mut pool = pool();
        if pool.len() < self.inner.options.readers {
            pool.push(connection);
        }
        result
    }

    /// What the newest records say; the lock is held for the question only.
    fn with_tail<T>(&self, ask: impl FnOnce(&Tail) -> T) -> T {
        ask(&self.inner.tail.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything that was appended is indexed, and nothing is appended until the answer is
    /// dropped.
    async fn stand_still(&self) -> Result<std::sync::mpsc::Sender<()>, LogFault> {
        let (release, released) = std::sync::mpsc::channel();
        let (ready, is_ready) = oneshot::channel();
        self.send(Job::StandStill { ready, released }).await?;
        is_ready.await.map_err(|_| log::writer_ended())??;
        let this = self.clone();
        tokio::task::spawn_blocking(move || match this.head_now().position {
            0 => Ok(()),
            end => this.inner.indexing.wait_beyond(end - 1),
        })
        .await
        .map_err(|error| LogFault::Unexpected(error.to_string()))??;
        Ok(release)
    }

    fn now(&self) -> DateTime<Utc> {
        (self.inner.options.now)()
    }

    async fn send(&self, job: Job) -> Result<(), LogFault> {
        let queue = self.inner.queue.as_ref().expect("only dropping takes the queue away");
        queue.send_timeout(job, self.inner.options.patience).await.map_err(|_| {
            LogFault::Unavailable("too many appends are waiting for the disk".to_owned())
        })
    }
}

/// Makes durable what an earlier process may have left to the system's memory: a kill can come
/// between a write and its sync, and what is shown from here on must not be lost with the power.
/// Gives the write-ahead log's file, which stays the same as long as a connection is open.
fn durable(connection: &Connection, sync: &SyncFile) -> Result<File, LogFault> {
    // Written anew into the file, and not only synced: when an earlier sync failed, the system may
    // think that its pages are clean. A disk that is too full for it still takes the sync.
    let copied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = copied.map_err(fault)
        && !matches!(error, LogFault::Full(_) | LogFault::Unavailable(_))
    {
        return Err(error);
    }
    let mut name = std::ffi::OsString::from(connection.path().unwrap_or_default());
    name.push("-wal");
    let failed = |error: std::io::Error| {
        LogFault::Unavailable(format!("{}: {error}", Path::new(&name).display()))
    };
    let wal = File::options().write(true).open(&name).map_err(failed)?;
    sync(&wal).map_err(failed)?;
    Ok(wal)
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
    // Whoever had it may just be ending: a process that is being started has its parent's open files
    // until it begins, and a lock with them.
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(LOCK_AGAIN);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(LogFault::Unavailable(format!(
                    "{} is open in another process; one server at a time can use an embedded store",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogFault> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| LogFault::Unavailable(error.to_string()))
}

fn connect(
    path: &Path,
    durability: Durability,
    checkpoints: &Arc<Checkpoints>,
) -> rusqlite::Result<Connection> {
    let access = match durability {
        Durability::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        _ => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let mut connection =
        Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // The gate keeps writers apart; this is for a checkpoint or a person's own `sqlite3`.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    // Whoever closes last must not copy what the disk did not confirm: see `Checkpoints`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if durability == Durability::ReadOnly {
        index::attach(&connection, path)?;
    } else {
        // Half as many reads of the file as with the usual page. Only counts for a new file.
        connection.pragma_update(None, "page_size", 8_192)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        let synchronous = if durability == Durability::Full { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        checkpoints.watch(&mut connection)?;
    }
    Ok(connection)
}
