//! How fast we may call, learnt from being throttled: one pace per account, for every call of
//! orders, looks and verifications alike.
//!
//! Additive decrease, multiplicative increase of the pause between calls: a throttled call doubles
//! it, every call that goes well takes a tenth off.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::ports::{Clock, DriverFault, Pace};

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

/// One account's pace, as its provider asks it.
pub(crate) struct AccountPace {
    pub(crate) paces: Arc<Paces>,
    pub(crate) account: Uuid,
}

impl fmt::Debug for AccountPace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AccountPace").field(&self.account).finish()
    }
}

#[async_trait]
impl Pace for AccountPace {
    async fn ticket(&self) {
        self.paces.ticket(self.account).await;
    }
    fn learn(&self, fault: Option<&DriverFault>) {
        match fault {
            None => self.paces.went_well(self.account),
            Some(DriverFault::Throttled { retry_after }) => {
                self.paces.throttled(self.account, *retry_after);
            }
            // It says nothing about how fast we are.
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestClock;

    async fn calls(paces: &Paces, clock: &TestClock, account: Uuid, count: u32) -> TimeDelta {
        let start = clock.now();
        for _ in 0..count {
            paces.ticket(account).await;
        }
        clock.now() - start
    }

    #[tokio::test]
    async fn throttling_slows_one_account_down_and_going_well_speeds_it_up_again() {
        let clock = Arc::new(TestClock::default());
        let paces = Paces::new(clock.clone());
        let (slow, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(calls(&paces, &clock, slow, 10).await, TimeDelta::zero());
        for _ in 0..3 {
            paces.throttled(slow, None);
        }
        assert_eq!(paces.pause(slow), Duration::from_millis(200));
        assert!(calls(&paces, &clock, slow, 10).await >= TimeDelta::milliseconds(1_800));
        assert_eq!(calls(&paces, &clock, other, 10).await, TimeDelta::zero());
        for _ in 0..60 {
            paces.went_well(slow);
        }
        assert_eq!(paces.pause(slow), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_provider_s_own_wish_to_wait_is_kept() {
        let clock = Arc::new(TestClock::default());
        let paces = Paces::new(clock.clone());
        let account = Uuid::from_u128(1);
        paces.throttled(account, Some(Duration::from_secs(7)));
        assert_eq!(calls(&paces, &clock, account, 1).await, TimeDelta::seconds(7));
    }

    #[tokio::test]
    async fn the_pause_has_an_end() {
        let paces = Paces::new(Arc::new(TestClock::default()));
        let account = Uuid::from_u128(1);
        for _ in 0..100 {
            paces.throttled(account, None);
        }
        assert_eq!(paces.pause(account), Duration::from_millis(PAUSE_MAX_MS.unsigned_abs()));
    }
}
