//! Who works on which order now. Not history: a lease is forgotten when its order is done.

use std::time::Duration;

use async_trait::async_trait;

use super::log::LogFault;

/// The right to work on one order for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The order's key, as text.
    pub key: String,
    /// Who holds it: one runner of one server process.
    pub owner: String,
    /// Goes up whenever the holder changes; a holder with an old epoch can neither renew nor finish.
    pub epoch: u64,
    /// How often the order was tried before this lease, and failed.
    pub failures: u32,
}

/// Leases with attempts and back-off, kept by the store so that a restart remembers them.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Takes a lease; none when another holds it, or when its back-off is not over.
    async fn claim(
        &self,
        key: &str,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Lease>, LogFault>;
    /// Holds it longer; false when it was lost.
    async fn renew(&self, lease: &Lease, term: Duration) -> Result<bool, LogFault>;
    /// The order is done or parked: forgets it. False when it was lost.
    async fn finish(&self, lease: &Lease) -> Result<bool, LogFault>;
    /// The try failed: counts it and lets nobody claim it before the back-off is over. A try that
    /// was only throttled is put off but not counted.
    async fn put_off(
        &self,
        lease: &Lease,
        counts: bool,
        back_off: Duration,
    ) -> Result<bool, LogFault>;
    /// Keys that are held now.
    async fn held(&self) -> Result<Vec<String>, LogFault>;
    /// Forgets failures and back-off of a key: somebody said `retry`.
    async fn reset(&self, key: &str) -> Result<(), LogFault>;
}
