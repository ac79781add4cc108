//! What every store must do, as tests that a store runs on itself.
//!
//! ```text
//! mod log { commands::log_contract!(crate::Fixture::new().await); }
//! mod leases { commands::leases_contract!(crate::Fixture::new().await); }
//! ```
//!
//! expands to one `#[tokio::test]` per case; the fixture implements [`Stores`].

#![expect(clippy::unwrap_used, reason = "a contract is a test: what fails here fails it")]

pub mod leases;
pub mod log;
mod log_audit;

use std::sync::Arc;

use async_trait::async_trait;

use crate::ports::{EventLog, Leases};

/// Logs and leases of the store under test, by name.
#[async_trait]
pub trait Stores: Send + Sync {
    /// The log of this name, new and empty the first time. A caller that opens it again has
    /// dropped it before.
    async fn log(&self, name: &str) -> Arc<dyn EventLog>;
    /// Leases of a store where nobody holds one.
    async fn leases(&self) -> Arc<dyn Leases>;
}

/// Writes a test for each case.
#[doc(hidden)]
#[macro_export]
macro_rules! contract_cases {
    ($part:ident, $stores:expr, $($case:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                $crate::testing::contract::$part::$case(&$stores).await;
            }
        )+
    };
}

/// One test for each case of the contract of [`EventLog`]. The argument makes a [`Stores`] and may
/// await.
#[macro_export]
macro_rules! log_contract {
    ($stores:expr) => {
        $crate::contract_cases! { log, $stores,
            a_damaged_restore_is_refused
            a_live_subscriber_misses_nothing
            a_repeated_request_gets_the_first_answer
            a_restored_log_has_the_same_head_and_goes_on
            a_search_finds_what_matches_in_both_orders
            a_stream_without_events_is_only_checked
            a_stream_reads_in_pages
            a_time_finds_its_position
            an_append_out_of_bounds_is_refused
            expected_revisions_are_kept
            nodes_are_the_roots_of_their_tiles
            of_twenty_appends_at_one_revision_one_wins
            of_twenty_sends_of_one_request_one_is_written
            opened_again_it_is_the_same
            positions_follow_each_other_in_the_order_of_commits
            several_streams_are_written_all_or_none
            waiting_ends_with_the_next_record
            what_is_refused_does_not_touch_its_neighbours
        }
    };
}

/// One test for each case of the contract of [`Leases`]. The argument makes a [`Stores`] and may
/// await.
#[macro_export]
macro_rules! leases_contract {
    ($stores:expr) => {
        $crate::contract_cases! { leases, $stores,
            a_back_off_keeps_everybody_out_until_it_is_reset
            a_finished_key_starts_afresh
            a_held_key_cannot_be_claimed
            an_old_holder_can_do_nothing
            failures_count_unless_it_was_throttled
            of_twenty_who_claim_one_gets_it
        }
    };
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Mutex};

    use super::*;
    use crate::testing::{MemoryLeases, MemoryLog};

    /// Memory forgets what is closed, so this keeps it.
    #[derive(Default)]
    struct Memory {
        logs: Mutex<HashMap<String, Arc<MemoryLog>>>,
    }

    #[async_trait]
    impl Stores for Memory {
        async fn log(&self, name: &str) -> Arc<dyn EventLog> {
            self.logs.lock().unwrap().entry(name.to_owned()).or_default().clone()
        }
        async fn leases(&self) -> Arc<dyn Leases> {
            Arc::new(MemoryLeases::default())
        }
    }

    mod log {
        crate::log_contract!(super::Memory::default());
    }
    mod leases {
        crate::leases_contract!(super::Memory::default());
    }
}
