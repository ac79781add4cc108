//! The port [`Leases`] on the file. Not history: `synchronous=NORMAL` is enough.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use commands::ports::{Lease, Leases, LogFault};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::{Durability, Store, fault};

/// The leases of one store.
#[derive(Clone)]
pub struct SqliteLeases {
    store: Store,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteLeases {
    /// On this store.
    pub fn new(store: &Store) -> Result<Self, LogFault> {
        let connection = store.connect(Durability::Normal)?;
        Ok(Self { store: store.clone(), connection: Arc::new(Mutex::new(connection)) })
    }

    /// Forgets who held what; failures and back-off stay. For a server that has just opened the
    /// store: it is alone with it, so whoever held a lease has died.
    pub async fn forget_holders(&self) -> Result<(), LogFault> {
        self.write(|connection| {
            connection.execute("UPDATE leases SET owner = NULL WHERE owner IS NOT NULL", [])?;
            Ok(())
        })
        .await
    }

    /// Microseconds since 1970, some time from now.
    fn after(&self, duration: Duration) -> i64 {
        let duration = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        self.store.now().timestamp_micros().saturating_add(duration)
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogFault> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut connection = this.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let _turn = this.store.gate().enter();
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
        .map_err(|error| LogFault::Unexpected(error.to_string()))?
        .map_err(fault)
    }
}

#[async_trait]
impl Leases for SqliteLeases {
    async fn claim(
        &self,
        key: &str,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Lease>, LogFault> {
        let (key, owner) = (key.to_owned(), owner.to_owned());
        let (now, expires_at) = (self.after(Duration::ZERO), self.after(term));
        self.write(move |connection| {
            let kept = connection
                .query_row(
                    "SELECT owner IS NOT NULL AND expires_at > ?2 OR not_before > ?2, failures \
                     FROM leases WHERE key = ?1",
                    params![key, now],
                    |row| Ok((row.get::<_, bool>(0)?, row.get::<_, u32>(1)?)),
                )
                .optional()?;
            let (taken, failures) = kept.unwrap_or_default();
            if taken {
                return Ok(None);
            }
            let epoch: i64 = connection.query_row(
                "UPDATE lease_epoch SET last = last + 1 RETURNING last",
                [],
                |row| row.get(0),
            )?;
            connection.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?, 0, 0) ON CONFLICT DO UPDATE \
                 SET owner = excluded.owner, epoch = excluded.epoch, \
                 expires_at = excluded.expires_at",
                params![key, owner, epoch, expires_at],
            )?;
            Ok(Some(Lease { key, owner, epoch: epoch as u64, failures }))
        })
        .await
    }

    async fn renew(&self, lease: &Lease, term: Duration) -> Result<bool, LogFault> {
        let (lease, expires_at) = (lease.clone(), self.after(term));
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE leases SET expires_at = ? WHERE key = ? AND owner = ? AND epoch = ?",
                params![expires_at, lease.key, lease.owner, lease.epoch as i64],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    async fn finish(&self, lease: &Lease) -> Result<bool, LogFault> {
        let lease = lease.clone();
        self.write(move |connection| {
            let changed = connection.execute(
                "DELETE FROM leases WHERE key = ? AND owner = ? AND epoch = ?",
                params![lease.key, lease.owner, lease.epoch as i64],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    async fn put_off(
        &self,
        lease: &Lease,
        counts: bool,
        back_off: Duration,
    ) -> Result<bool, LogFault> {
        let (lease, not_before) = (lease.clone(), self.after(back_off));
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE leases SET owner = NULL, failures = failures + ?, not_before = ? \
                 WHERE key = ? AND owner = ? AND epoch = ?",
                params![counts, not_before, lease.key, lease.owner, lease.epoch as i64],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    async fn held(&self) -> Result<Vec<String>, LogFault> {
        let now = self.after(Duration::ZERO);
        self.store
            .blocking(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT key FROM leases WHERE owner IS NOT NULL AND expires_at > ? \
                         ORDER BY key",
                    )
                    .and_then(|mut statement| {
                        statement.query_map([now], |row| row.get(0))?.collect()
                    })
                    .map_err(fault)
            })
            .await
    }

    async fn reset(&self, key: &str) -> Result<(), LogFault> {
        let key = key.to_owned();
        self.write(move |connection| {
            connection
                .execute("UPDATE leases SET failures = 0, not_before = 0 WHERE key = ?", [key])?;
            Ok(())
        })
        .await
    }
}
