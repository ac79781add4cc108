//! The stores, behind one shape: which one is in use is decided here and known nowhere else.

use std::sync::Arc;

use adapters_store_kit::views::Running;
use adapters_store_postgres as postgres;
use adapters_store_sqlite as sqlite;
use anyhow::{Context, Result};
use commands::ports::{EventLog, Head, Leases, LogFault, Views};
use domain::log::Position;
use projections::views::{LENSES, VIEWS};

use crate::config::{Config, PASSWORD_VARIABLE, StoreChoice};

/// A log that is open.
#[derive(Clone)]
pub(crate) enum Store {
    /// One file, one process.
    Sqlite(sqlite::Store),
    /// A schema of a PostgreSQL server.
    Postgres(postgres::Store),
}

/// What projects and answers.
pub(crate) struct OpenViews {
    /// The port.
    pub(crate) views: Arc<dyn Views>,
    /// Its tasks.
    pub(crate) running: Running,
    /// Whether every view goes on.
    pub(crate) check: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// Opens the configured store.
///
/// # Errors
/// When another process has it, when it cannot be reached, or when its end is damaged.
pub(crate) async fn open(config: &Config) -> Result<Store> {
    let password = std::env::var(PASSWORD_VARIABLE).ok();
    match config.store_choice(password.as_deref())? {
        StoreChoice::Sqlite(path) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("the data folder {}", folder.display()))?;
            }
            let store = sqlite::Store::open(&path, sqlite::Options::default())
                .with_context(|| format!("the embedded store {}", path.display()))?;
            Ok(Store::Sqlite(store))
        }
        StoreChoice::Postgres(url) => {
            let store = postgres::Store::connect(&url, postgres::Options::default())
                .await
                .context("the store on PostgreSQL")?;
            Ok(Store::Postgres(store))
        }
    }
}

impl Store {
    /// The log.
    pub(crate) fn log(&self) -> Arc<dyn EventLog> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// The leases. Who opens the embedded store is alone with it: leases of a process before this
    /// one, killed while it held them, are nobody's.
    pub(crate) async fn leases(&self) -> Result<Arc<dyn Leases>> {
        Ok(match self {
            Self::Sqlite(store) => {
                let leases = sqlite::SqliteLeases::new(store)?;
                leases.forget_holders().await?;
                Arc::new(leases)
            }
            Self::Postgres(store) => Arc::new(postgres::PostgresLeases::new(store)),
        })
    }

    /// Begins to project.
    pub(crate) async fn start_views(&self, config: &Config) -> Result<OpenViews> {
        Ok(match self {
            Self::Sqlite(_) => {
                let folder = config.data.join("views");
                let (views, running) = sqlite::start_views(folder, self.log(), VIEWS, LENSES)?;
                let check = Box::new(views.check());
                OpenViews { views: Arc::new(views), running, check }
            }
            Self::Postgres(store) => {
                let (views, running) =
                    postgres::start_views(store, self.log(), VIEWS, LENSES).await?;
                let check = Box::new(views.check());
                OpenViews { views: Arc::new(views), running, check }
            }
        })
    }

    /// Reads and compares every record.
    ///
    /// # Errors
    /// [`LogFault::Corrupt`] naming the first position that is damaged.
    pub(crate) async fn check(
        &self,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<Head, LogFault> {
        match self {
            Self::Sqlite(store) => store.check(progress).await,
            Self::Postgres(store) => store.check(progress).await,
        }
    }
}
