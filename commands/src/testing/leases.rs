//! Leases in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::TestClock;
use crate::ports::{Clock, Lease, Leases, LogFault};

/// Leases in memory, forgotten with it.
pub struct MemoryLeases {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_epoch: u64,
    keys: BTreeMap<String, Kept>,
}

#[derive(Clone, Default)]
struct Kept {
    /// None while nobody holds it.
    owner: Option<String>,
    epoch: u64,
    expires_at: DateTime<Utc>,
    failures: u32,
    not_before: DateTime<Utc>,
}

impl Default for MemoryLeases {
    fn default() -> Self {
        Self::new(Arc::new(TestClock::default()))
    }
}

impl MemoryLeases {
    /// No leases; terms and back-offs run by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after(&self, duration: Duration) -> DateTime<Utc> {
        let delta = TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
        self.clock.now().checked_add_signed(delta).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

impl Kept {
    fn held(&self, now: DateTime<Utc>) -> bool {
        self.owner.is_some() && self.expires_at > now
    }

    fn is(&self, lease: &Lease) -> bool {
        self.epoch == lease.epoch && self.owner.as_ref() == Some(&lease.owner)
    }
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn claim(
        &self,
        key: &str,
        owner: &str,
        term: Duration,
    ) -> Result<Option<Lease>, LogFault> {
        let (now, expires_at) = (self.clock.now(), self.after(term));
        let mut state = self.state();
        let epoch = state.last_epoch + 1;
        let kept = state.keys.entry(key.to_owned()).or_default();
        if kept.held(now) || kept.not_before > now {
            return Ok(None);
        }
        kept.owner = Some(owner.to_owned());
        kept.epoch = epoch;
        kept.expires_at = expires_at;
        let failures = kept.failures;
        state.last_epoch = epoch;
        Ok(Some(Lease { key: key.to_owned(), owner: owner.to_owned(), epoch, failures }))
    }

    async fn renew(&self, lease: &Lease, term: Duration) -> Result<bool, LogFault> {
        let expires_at = self.after(term);
        let mut state = self.state();
        Ok(state.keys.get_mut(&lease.key).filter(|kept| kept.is(lease)).is_some_and(|kept| {
            kept.expires_at = expires_at;
            true
        }))
    }

    async fn finish(&self, lease: &Lease) -> Result<bool, LogFault> {
        let mut state = self.state();
        let ours = state.keys.get(&lease.key).is_some_and(|kept| kept.is(lease));
        if ours {
            state.keys.remove(&lease.key);
        }
        Ok(ours)
    }

    async fn put_off(
        &self,
        lease: &Lease,
        counts: bool,
        back_off: Duration,
    ) -> Result<bool, LogFault> {
        let not_before = self.after(back_off);
        let mut state = self.state();
        Ok(state.keys.get_mut(&lease.key).filter(|kept| kept.is(lease)).is_some_and(|kept| {
            kept.owner = None;
            kept.failures += u32::from(counts);
            kept.not_before = not_before;
            true
        }))
    }

    async fn held(&self) -> Result<Vec<String>, LogFault> {
        let now = self.clock.now();
        let state = self.state();
        let held = state.keys.iter().filter(|(_, kept)| kept.held(now));
        Ok(held.map(|(key, _)| key.clone()).collect())
    }

    async fn reset(&self, key: &str) -> Result<(), LogFault> {
        if let Some(kept) = self.state().keys.get_mut(key) {
            kept.failures = 0;
            kept.not_before = DateTime::default();
        }
        Ok(())
    }
}
