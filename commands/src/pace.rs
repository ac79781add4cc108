//! How fast we may call, learnt from being throttled: one pace per account.
//!
//! Additive decrease, multiplicative increase of the pause between calls: a throttled call doubles
//! it, every call that goes well takes a tenth off.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::ports::Clock;

/// The shortest pause after the first throttling: 20 calls a second, below every provider's
/// documented bucket refill for mutating calls that we know (EC2: 5…20 a second).
const PAUSE_FIRST_MS: i64 = 50;
/// The longest pause: slower than this helps nobody.
const PAUSE_MAX_MS: i64 = 10_000;

#[derive(Clone, Copy)]
struct Account {
    pause_ms: i64,
    next_at: DateTime<Utc>,
}

/// The paces of all accounts.
pub struct Paces {
    clock: Arc<dyn Clock>,
    accounts: Mutex<HashMap<Uuid, Account>>,
}

impl Paces {
    /// Nobody was throttled yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, accounts: Mutex::default() }
    }

    fn with<T>(&self, account: Uuid, change: impl FnOnce(&mut Account, DateTime<Utc>) -> T) -> T {
        let now = self.clock.now();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = accounts.entry(account).or_insert(Account { pause_ms: 0, next_at: now });
        change(entry, now)
    }

    /// Comes back when the next call may be made.
    pub async fn ticket(&self, account: Uuid) {
        let wait = self.with(account, |entry, now| {
            let at = entry.next_at.max(now);
            entry.next_at = at + TimeDelta::milliseconds(entry.pause_ms);
            at - now
        });
        if let Ok(wait) = wait.to_std()
            && !wait.is_zero()
        {
            self.clock.sleep(wait).await;
        }
    }

    /// A call was throttled.
    pub fn throttled(&self, account: Uuid, retry_after: Option<Duration>) {
        self.with(account, |entry, now| {
            entry.pause_ms = (entry.pause_ms * 2).clamp(PAUSE_FIRST_MS, PAUSE_MAX_MS);
            let asked = retry_after.and_then(|asked| TimeDelta::from_std(asked).ok());
            let pause = asked.unwrap_or_else(|| TimeDelta::milliseconds(entry.pause_ms));
            entry.next_at = entry.next_at.max(now + pause);
        });
    }

    /// A call went well.
    pub fn went_well(&self, account: Uuid) {
        self.with(account, |entry, _| entry.pause_ms = entry.pause_ms * 9 / 10);
    }

    /// The present pause between calls.
    pub fn pause(&self, account: Uuid) -> Duration {
        self.with(account, |entry, _| Duration::from_millis(entry.pause_ms.unsigned_abs()))
    }
}
