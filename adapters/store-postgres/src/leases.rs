//! The port [`Leases`] on PostgreSQL. Terms and back-offs run by the database's clock, which is
//! the same for all server processes.

use std::time::Duration;

use async_trait::async_trait;
use commands::ports::{Lease, Leases, LogFault};
use tokio_postgres::{Row, types::ToSql};

use crate::{Store, connection::fault};

/// The leases of one store.
#[derive(Clone)]
pub struct PostgresLeases {
    store: Store,
}

impl PostgresLeases {
    /// On this store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, LogFault> {
        let client = self.store.client().await?;
        let statement = client.prepare_cached(sql).await.map_err(fault)?;
        client.query(&statement, values).await.map_err(fault)
    }
}

/// Whole milliseconds, at most a century: what an interval takes.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(100 * 365 * 86_400_000)
}

#[async_trait]
impl Leases for PostgresLeases {
    async fn claim(
        &self,
        key: &str,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Lease>, LogFault> {
        let rows = self
            .query(
                "INSERT INTO leases AS kept (key, owner, epoch, expires_at) \
                 VALUES ($1, $2, nextval('lease_epoch'), \
                 clock_timestamp() + $3::bigint * interval '1 millisecond') \
                 ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, \
                 epoch = excluded.epoch, expires_at = excluded.expires_at \
                 WHERE (kept.owner IS NULL OR kept.expires_at <= clock_timestamp()) \
                 AND kept.not_before <= clock_timestamp() RETURNING epoch, failures",
                &[&key, &owner, &millis(term)],
            )
            .await?;
        Ok(rows.first().map(|row| Lease {
            key: key.to_owned(),
            owner: owner.to_owned(),
            epoch: row.get::<_, i64>(0) as u64,
            failures: row.get::<_, i32>(1) as u32,
        }))
    }

    async fn renew(&self, lease: &Lease, term: Duration) -> Result<bool, LogFault> {
        let rows = self
            .query(
                "UPDATE leases SET \
                 expires_at = clock_timestamp() + $4::bigint * interval '1 millisecond' \
                 WHERE key = $1 AND owner = $2 AND epoch = $3 RETURNING 1",
                &[&lease.key, &lease.owner, &(lease.epoch as i64), &millis(term)],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    async fn finish(&self, lease: &Lease) -> Result<bool, LogFault> {
        let rows = self
            .query(
                "DELETE FROM leases WHERE key = $1 AND owner = $2 AND epoch = $3 RETURNING 1",
                &[&lease.key, &lease.owner, &(lease.epoch as i64)],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    async fn put_off(
        &self,
        lease: &Lease,
        counts: bool,
        back_off: Duration,
    ) -> Result<bool, LogFault> {
        let rows = self
            .query(
                "UPDATE leases SET owner = NULL, failures = failures + $4, \
                 not_before = clock_timestamp() + $5::bigint * interval '1 millisecond' \
                 WHERE key = $1 AND owner = $2 AND epoch = $3 RETURNING 1",
                &[
                    &lease.key,
                    &lease.owner,
                    &(lease.epoch as i64),
                    &i32::from(counts),
                    &millis(back_off),
                ],
            )
            .await?;
        Ok(!rows.is_empty())
    }

    async fn held(&self) -> Result<Vec<String>, LogFault> {
        let sql = "SELECT key FROM leases WHERE owner IS NOT NULL \
                   AND expires_at > clock_timestamp() ORDER BY key COLLATE \"C\"";
        Ok(self.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
    }

    async fn reset(&self, key: &str) -> Result<(), LogFault> {
        let sql = "UPDATE leases SET failures = 0, not_before = '-infinity' WHERE key = $1";
        self.query(sql, &[&key]).await.map(|_| ())
    }
}
