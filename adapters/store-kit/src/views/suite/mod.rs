//! One suite of the views' behaviour, run on every store.
//!
//! A store's tests give a [`Fixture`] and say [`view_suite!`](crate::view_suite).

#![expect(clippy::unwrap_used, reason = "this is the tests' own code")]

mod naive;
mod reads;
mod world;
mod writes;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use commands::ports::{EventLog, Query, Row, Views};
use domain::log::Position;
use projections::view::View;

pub use naive::*;
pub use reads::*;
pub use world::*;
pub use writes::*;

use super::{Engine, Running, Table, ViewStore};

/// An empty place for views. Opened again, it has what was written.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The store.
    type Store: ViewStore;
    /// Opens it, as a server process does when it starts.
    async fn open(&self) -> Arc<Self::Store>;
    /// Runs a statement behind the store's back.
    async fn tamper(&self, table: &Table, sql: &str);
}

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A running engine over a log in memory.
pub struct Server<S> {
    /// The engine.
    pub views: Engine<S>,
    /// Its tasks.
    pub running: Running,
}

/// Starts an engine.
pub async fn serve<F: Fixture>(
    fixture: &F,
    log: &Arc<MemoryLog>,
    views: &'static [&'static dyn View],
) -> Server<F::Store> {
    let log = Arc::clone(log) as Arc<dyn EventLog>;
    let (views, running) =
        Engine::start(fixture.open().await, log, views, LENSES).expect("the views have names");
    Server { views, running }
}

impl<S: ViewStore> Server<S> {
    /// Ends it, as a server process that is told to stop.
    pub async fn stop(self) {
        self.running.stop().await;
    }

    /// Waits until all views have a position.
    pub async fn reach(&self, position: Position) {
        self.views.reach_position(position, PATIENCE).await.expect("the views come so far");
    }

    /// All keys of a query, page by page.
    pub async fn keys(&self, view: &str, query: &Query) -> Vec<String> {
        self.rows(view, query).await.into_iter().map(|row| row.key).collect()
    }

    /// All rows of a query, page by page.
    pub async fn rows(&self, view: &str, query: &Query) -> Vec<Row> {
        let mut query = query.clone();
        let mut rows = Vec::new();
        loop {
            let page = self.views.list(view, &query).await.expect("the query fits");
            assert!(page.rows.len() <= query.limit, "a page has no more than was asked for");
            rows.extend(page.rows);
            match page.next {
                Some(token) => query.token = Some(token),
                None => return rows,
            }
        }
    }
}

/// A thing of a sort with a name.
pub fn thing(sort: &str, name: &str) -> Thing {
    Thing { sort: sort.to_owned(), name: Some(name.to_owned()), ..Thing::default() }
}

/// A thing with a tag.
pub fn tagged(thing: Thing, name: &str, value: &str) -> Thing {
    Thing { tags: BTreeMap::from([(name.to_owned(), value.to_owned())]), ..thing }
}

/// Makes a test of every part of the suite. The fixture is made anew for each.
#[macro_export]
macro_rules! view_suite {
    ($fixture:expr) => {
        $crate::view_suite!(@each $fixture;
            a_crash_between_batches_goes_on_exactly,
            a_half_built_table_is_cleaned_up_at_the_start,
            a_lens_shows_some_rows_another_way,
            a_new_version_is_built_beside_the_old,
            a_page_token_fits_only_its_own_query,
            a_rebuild_gives_the_same_rows_while_reads_go_on,
            a_row_changed_twice_keeps_each_version_once,
            a_scoped_reader_reaches_only_its_projects,
            a_tampered_row_is_named,
            a_text_too_long_for_an_index_stops_no_view,
            a_view_of_another_log_is_made_again,
            a_view_that_cannot_fold_stops_and_the_others_go_on,
            body_filters_look_into_tags_and_state,
            differences_are_found_by_key_between_two_positions,
            lists_and_gets_at_a_past_position,
            lists_filter_and_sort,
            many_rows_are_built_with_few_in_memory,
            pages_stay_pinned_while_writes_go_on,
            positions_not_yet_reached_are_behind,
            unknown_columns_and_views_say_which_there_are,
            verification_is_equal_for_any_number_of_threads,
        );

        #[test]
        fn lists_agree_with_a_naive_filter_and_sort() {
            $crate::views::suite::lists_agree_with_a_naive_filter_and_sort(|| $fixture);
        }
    };
    (@each $fixture:expr; $($name:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::views::suite::$name(&$fixture).await;
            }
        )+
    };
}
