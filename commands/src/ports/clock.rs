//! Time and randomness, which exist only at the edge.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Time.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// UTC, microseconds.
    fn now(&self) -> DateTime<Utc>;
    /// Comes back after this long. A clock of a test may come back at once.
    async fn sleep(&self, duration: Duration);
}

/// Ids.
pub trait NewId: Send + Sync + 'static {
    /// A UUIDv7 (RFC 9562 §5.7), never the same twice.
    fn new_id(&self) -> Uuid;
    /// 256 random bits, as 43 characters of base64url (RFC 4648 §5): a secret.
    fn new_secret(&self) -> String;
}
