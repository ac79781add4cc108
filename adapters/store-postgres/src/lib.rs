//! The store on PostgreSQL: log, leases and views in one schema.
//!
//! - [`Store`]: connects, is the log (`EventLog`), hands out the pool.
//! - [`PostgresLeases`]: who works on which order.
//!
//! Any number of server processes may use one schema: the lock of the head row orders their
//! appends, and a notification for each group tells the others.
#![warn(missing_docs)]

mod check;
mod committer;
mod connection;
mod leases;
mod listener;
mod log;
mod schema;
mod statements;
mod views;

use std::{sync::Arc, time::Duration};

use adapters_store_kit::group::{Now, system_time};
use commands::ports::LogFault;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use domain::log::Position;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};
use tokio_postgres::{Config, NoTls};

use committer::{Committer, Job, Work};
pub use connection::{fault, pool_fault};
pub use leases::PostgresLeases;
pub use views::{PostgresViewStore, PostgresViews, start_views};

/// How a store is used.
#[derive(Clone)]
pub struct Options {
    /// The schema that holds everything: lower-case letters, digits and `_`, at most 40.
    pub schema: String,
    /// Connections for reads and leases; the log's writer and listener have their own two.
    pub connections: usize,
    /// Appends that may wait for the writer; the next one waits for a place.
    pub queue_max: usize,
    /// How long an append waits for a place, or for a server that is not there, before it is
    /// refused as unavailable.
    pub patience: Duration,
    /// Where `recorded_at` comes from.
    pub now: Now,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: "skyledger".to_owned(),
            connections: 16,
            // Eight groups: at some milliseconds each nobody waits for more than a blink.
            queue_max: 8 * adapters_store_kit::group::GROUP_APPENDS_MAX,
            patience: Duration::from_secs(10),
            now: system_time(),
        }
    }
}

/// The store. Cheap to clone; its tasks end with the last clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    schema: String,
    patience: Duration,
    pool: Pool,
    /// The newest position anybody has told of.
    newest: watch::Sender<Position>,
    queue: mpsc::Sender<Job>,
    listener: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Store {
    /// Connects, makes the schema when there is none, and compares the head with the newest
    /// records and the tree; [`Self::check`] compares everything.
    ///
    /// # Errors
    /// [`LogFault::Unavailable`] when the server is not there, [`LogFault::Corrupt`] when the
    /// newest records are not what the head says.
    pub async fn connect(url: &str, options: Options) -> Result<Self, LogFault> {
        let schema = options.schema;
        let plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        if !(1..=40).contains(&schema.len())
            || !schema.starts_with(plain)
            || !schema.chars().all(|letter| plain(letter) || letter.is_ascii_digit())
        {
            return Err(LogFault::Unexpected(format!("{schema:?} is no name of a schema")));
        }
        let config = connection::config(url, &schema)?;
        let mut client = connection::connect(&config).await?;
        schema::create(&mut client, &schema).await?;
        let head = check::open_head(&mut client).await?;
        let manager = Manager::from_config(
            config.clone(),
            NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(options.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(options.patience))
            .build()
            .map_err(|error| LogFault::Unexpected(error.to_string()))?;
        let (newest, _) = watch::channel(head.position);
        let (queue, waiting) = mpsc::channel(options.queue_max);
        let committer = Committer::new(
            config.clone(),
            format!("{schema}_appended"),
            options.now,
            options.patience,
            newest.clone(),
        );
        tokio::spawn(committer.run(client, waiting));
        let listener = tokio::spawn(listener::listen(
            config.clone(),
            format!("{schema}_appended"),
            newest.clone(),
        ));
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                schema,
                patience: options.patience,
                pool,
                newest,
                queue,
                listener: listener.abort_handle(),
            }),
        })
    }

    /// The connections for reads, with `search_path` set to [`Self::schema`].
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// The schema that holds everything.
    pub fn schema(&self) -> &str {
        &self.inner.schema
    }

    /// How connections are made, for whoever needs one of its own.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    async fn client(&self) -> Result<Object, LogFault> {
        self.inner.pool.get().await.map_err(pool_fault)
    }

    async fn send(&self, work: Work) -> Result<(), LogFault> {
        let job = Job { since: tokio::time::Instant::now(), work };
        self.inner.queue.send_timeout(job, self.inner.patience).await.map_err(|_| {
            LogFault::Unavailable("too many appends are waiting for the server".to_owned())
        })
    }
}
