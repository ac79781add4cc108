//! Time and ids that are the same in every run.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::ports::{Clock, NewId};

/// A clock that stands until it is moved. Sleeping moves it and comes back at once.
#[derive(Debug)]
pub struct TestClock {
    micros: AtomicI64,
}

impl TestClock {
    /// Stands at this time.
    pub fn at(time: DateTime<Utc>) -> Self {
        Self { micros: AtomicI64::new(time.timestamp_micros()) }
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.micros.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets it, backwards as well.
    pub fn set(&self, time: DateTime<Utc>) {
        self.micros.store(time.timestamp_micros(), Ordering::SeqCst);
    }
}

/// 2026-01-01T00:00:00Z.
impl Default for TestClock {
    fn default() -> Self {
        Self { micros: AtomicI64::new(1_767_225_600_000_000) }
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros.load(Ordering::SeqCst)).unwrap_or_default()
    }

    async fn sleep(&self, duration: Duration) {
        self.advance(duration);
        // Others get their turn, as they would while a real clock sleeps.
        let mut yielded = false;
        futures::future::poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }
}

/// The ids `00000000-0000-7000-8000-000000000001`, `…2` and so on: UUIDv7 in form.
#[derive(Debug, Default)]
pub struct SequentialIds {
    last: AtomicU64,
}

impl NewId for SequentialIds {
    fn new_id(&self) -> Uuid {
        let number = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        Uuid::from_u128(0x7000_8000_0000_0000_0000 | u128::from(number))
    }

    fn new_secret(&self) -> String {
        format!("{:0>43}", self.new_id().simple())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_up_and_have_the_form_of_a_version_7() {
        let ids = SequentialIds::default();
        assert_eq!(ids.new_id().to_string(), "00000000-0000-7000-8000-000000000001");
        assert_eq!(ids.new_id().to_string(), "00000000-0000-7000-8000-000000000002");
    }

    #[tokio::test]
    async fn sleeping_moves_the_clock() {
        let clock = TestClock::default();
        let before = clock.now();
        clock.sleep(Duration::from_secs(90)).await;
        assert_eq!((clock.now() - before).num_seconds(), 90);
    }
}
