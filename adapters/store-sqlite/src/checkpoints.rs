//! Moves what was committed from the write-ahead log (`…-wal`) into the file, beside the writers.
//!
//! SQLite would do it inside some commit, and whoever waits for that commit would wait for all of
//! it. Here a thread copies the bulk while commits go on, and then what is left during one turn at
//! the gate, so that the next commit begins the write-ahead log anew.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::Gate;

/// Pages in the write-ahead log between two checkpoints: some 32 MB.
const PAGES: u32 = 4_000;

/// How far the write-ahead log has grown.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    pages: u32,
    /// A checkpoint is due when it is this long.
    due: u32,
    ended: bool,
    failed: bool,
}

impl Default for Checkpoints {
    fn default() -> Self {
        let state = State { pages: 0, due: PAGES, ended: false, failed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Checkpoints {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts this connection's commits, in place of SQLite's own checkpoints.
    pub(crate) fn watch(self: &Arc<Self>, connection: &mut Connection) -> rusqlite::Result<()> {
        let this = Arc::clone(self);
        connection.wal_hook(Some(move |_: &mut _, pages: std::ffi::c_int| {
            this.grown(pages.unsigned_abs());
            Ok(())
        }))
    }

    fn grown(&self, pages: u32) {
        let mut state = self.state();
        if pages < state.pages {
            // It began anew.
            state.due = PAGES;
        }
        state.pages = pages;
        if pages >= state.due {
            self.changed.notify_one();
        }
    }

    /// The disk did not confirm a write of the log: no checkpoint any more.
    pub(crate) fn fail(&self) {
        self.state().failed = true;
        self.changed.notify_one();
    }

    /// A last checkpoint, and the thread ends.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_one();
    }

    /// Works until [`Self::end`].
    pub(crate) fn run(&self, connection: &Connection, gate: &Gate) {
        loop {
            let mut state = self.state();
            while state.pages < state.due && !state.ended && !state.failed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.failed {
                return;
            }
            let ended = state.ended;
            drop(state);
            let bulk = checkpoint(connection);
            let turn = gate.enter();
            let rest = checkpoint(connection);
            drop(turn);
            if let Err(error) = bulk.and(rest) {
                // Nothing is lost: it stays in the write-ahead log, which is read like the file.
                tracing::warn!(%error, "a checkpoint of the store failed; it is tried again later");
            }
            if ended {
                return;
            }
            let mut state = self.state();
            state.due = state.pages.saturating_add(PAGES);
        }
    }
}

/// What is in the write-ahead log and needed by no reader of an older state goes into the file.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
