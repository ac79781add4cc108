//! A pace that lets every call through at once and counts.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::ports::{DriverFault, Pace};

/// Counts the calls that asked, and what came of them.
#[derive(Debug, Default)]
pub struct CountingPace {
    tickets: AtomicU64,
    learnt: AtomicU64,
    throttled: AtomicU64,
}

impl CountingPace {
    /// How many calls asked for a ticket.
    pub fn tickets(&self) -> u64 {
        self.tickets.load(Ordering::SeqCst)
    }
    /// How many said what came of them.
    pub fn learnt(&self) -> u64 {
        self.learnt.load(Ordering::SeqCst)
    }
    /// How many of those were throttled.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Pace for CountingPace {
    async fn ticket(&self) {
        self.tickets.fetch_add(1, Ordering::SeqCst);
    }
    fn learn(&self, fault: Option<&DriverFault>) {
        self.learnt.fetch_add(1, Ordering::SeqCst);
        if matches!(fault, Some(DriverFault::Throttled { .. })) {
            self.throttled.fetch_add(1, Ordering::SeqCst);
        }
    }
}
