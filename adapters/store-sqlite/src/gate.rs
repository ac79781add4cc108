//! The one door to write transactions of the file.
//!
//! SQLite has one writer at a time and answers the second with `SQLITE_BUSY`. Here the log's
//! writer, the views' projector and the leases wait for each other instead: the log first, but
//! after [`Gate::LOG_TURNS_MAX`] turns of the log in a row somebody else who waits gets one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who may begin a write transaction. Held from `BEGIN IMMEDIATE` to `COMMIT`, and only for
/// milliseconds: the log waits meanwhile.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    log_waits: bool,
    others_wait: u32,
    /// Turns the log took while others waited.
    log_turns: u32,
}

/// The right to write; ends when dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    gate: &'a Gate,
}

impl Gate {
    /// How many groups of appends may go before others who wait: at some 5 ms a group, the views
    /// are never kept waiting for more than a tenth of a second.
    pub const LOG_TURNS_MAX: u32 = 16;

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn of the log's writer, before all others who wait. Blocks the thread.
    pub(crate) fn log(&self) -> Turn<'_> {
        let mut state = self.state();
        state.log_waits = true;
        while state.held || (state.others_wait > 0 && state.log_turns >= Self::LOG_TURNS_MAX) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.log_waits = false;
        state.held = true;
        state.log_turns = if state.others_wait > 0 { state.log_turns + 1 } else { 0 };
        Turn { gate: self }
    }

    /// A turn of anybody else. Blocks the thread: call it where blocking is allowed.
    pub fn enter(&self) -> Turn<'_> {
        let mut state = self.state();
        state.others_wait += 1;
        while state.held || (state.log_waits && state.log_turns < Self::LOG_TURNS_MAX) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.others_wait -= 1;
        state.held = true;
        state.log_turns = 0;
        Turn { gate: self }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.gate.state().held = false;
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn one_at_a_time_and_a_busy_log_starves_nobody() {
        let (gate, inside, done) = (Gate::default(), AtomicU32::new(0), AtomicBool::new(false));
        let alone = |turn: Turn<'_>| {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are inside");
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(turn);
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    alone(gate.log());
                }
            });
            let others: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| (0..200).for_each(|_| alone(gate.enter()))))
                .collect();
            let ended: Vec<_> = others.into_iter().map(thread::ScopedJoinHandle::join).collect();
            done.store(true, Ordering::SeqCst);
            assert!(ended.iter().all(Result::is_ok));
        });
    }

    #[test]
    fn the_log_goes_before_others_who_wait() {
        let gate = Gate::default();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let turn = gate.log();
            scope.spawn(|| {
                let _turn = gate.enter();
                order.lock().unwrap().push("other");
            });
            while gate.state().others_wait == 0 {
                thread::yield_now();
            }
            scope.spawn(|| {
                let _turn = gate.log();
                order.lock().unwrap().push("log");
            });
            while !gate.state().log_waits {
                thread::yield_now();
            }
            drop(turn);
        });
        assert_eq!(*order.lock().unwrap(), ["log", "other"]);
    }
}
