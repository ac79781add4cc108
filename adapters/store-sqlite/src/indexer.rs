//! The thread that indexes: what is durable in the log goes from the tail into the index's file,
//! some hundred records at a time.
//!
//! ```text
//! appended ──► tail (in memory) ── durable, and many ──► index ──► gone from the tail
//! ```
//!
//! The log's writer does not wait for it, unless the tail has grown too long.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use commands::ports::LogFault;
use domain::log::{Position, Record};
use rusqlite::{Connection, TransactionBehavior};

use crate::{fault, index, index::Index, log, tail::Tail};

/// So many durable records in the tail are worth a commit of the index.
pub(crate) const STEP: usize = 512;
/// Most records of one commit: some 20 ms of work, for which a reader of the tail never waits.
const STEP_MAX: usize = 4 * STEP;
/// When the index could not be written, it is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// How far the log is durable, and how far it is indexed.
#[derive(Debug)]
pub(crate) struct Indexing {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    durable: Position,
    indexed: Position,
    /// Somebody waits for what is fewer than a [`STEP`].
    hurry: bool,
    /// Why the last try failed.
    fault: Option<LogFault>,
    ended: bool,
}

impl Indexing {
    pub(crate) fn new(durable: Position, indexed: Position) -> Self {
        let state = State { durable, indexed, hurry: false, fault: None, ended: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The log is durable up to here.
    pub(crate) fn durable(&self, position: Position) {
        let mut state = self.state();
        state.durable = position;
        if state.is_due() {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Nothing more becomes durable: nobody should wait for it.
    pub(crate) fn fail(&self, fault: LogFault) {
        self.state().fault = Some(fault);
        self.changed.notify_all();
    }

    /// Waits until the log is indexed beyond this position, which the tail begins after. Blocks
    /// the thread.
    pub(crate) fn wait_beyond(&self, position: Position) -> Result<(), LogFault> {
        let mut state = self.state();
        while state.indexed <= position {
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            if !state.hurry {
                state.hurry = true;
                self.changed.notify_all();
            }
            state = self.wait(state);
        }
        Ok(())
    }

    /// Everything that is durable is indexed, then the thread ends.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// The end of what is to be indexed next; none when there is nothing any more.
    fn next(&self) -> Option<Position> {
        let mut state = self.state();
        loop {
            if state.ended {
                return (state.durable > state.indexed).then_some(state.durable);
            }
            if state.is_due() && state.fault.is_none() {
                return Some(state.durable);
            }
            if state.fault.is_some() {
                let (after, timeout) =
                    self.changed.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner);
                state = after;
                if timeout.timed_out() {
                    state.fault = None;
                }
                continue;
            }
            state.hurry = false;
            state = self.wait(state);
        }
    }

    /// Works until [`Self::end`].
    pub(crate) fn run(&self, mut connection: Connection, tail: &Arc<RwLock<Tail>>) {
        let mut index = Index::default();
        while let Some(durable) = self.next() {
            let records =
                tail.read().unwrap_or_else(PoisonError::into_inner).first_up_to(durable, STEP_MAX);
            let written = write(&mut connection, &mut index, &records);
            let Err(error) = written else {
                let Some(last) = records.last().map(Record::position) else { continue };
                tail.write().unwrap_or_else(PoisonError::into_inner).drop_up_to(last);
                self.state().indexed = last;
                self.changed.notify_all();
                continue;
            };
            let fault = fault(error);
            // Nothing is lost: the tail keeps it, and a file that is opened makes the tail again.
            tracing::warn!(%fault, "the newest events could not be indexed; it is tried again");
            let mut state = self.state();
            state.fault = Some(fault);
            if state.ended {
                return;
            }
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl State {
    fn is_due(&self) -> bool {
        let waiting = self.durable.saturating_sub(self.indexed);
        waiting >= STEP as u64 || self.hurry && waiting > 0
    }
}

/// One commit of the index.
fn write(
    connection: &mut Connection,
    index: &mut Index,
    records: &[Record],
) -> rusqlite::Result<()> {
    let Some(last) = records.last() else { return Ok(()) };
    index.trim();
    let mut commit = || {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        index.add(&transaction, records)?;
        index::reaches(&transaction, last)?;
        transaction.commit()
    };
    let result = commit();
    if result.is_err() {
        index.forget();
    }
    result
}

/// Indexes what a file that is opened has more than a tail of; gives how far it is indexed then.
pub(crate) fn catch_up(
    connection: &mut Connection,
    log: &Connection,
    mut indexed: Position,
    end: Position,
) -> Result<Position, LogFault> {
    let mut index = Index::default();
    while end.saturating_sub(indexed) > STEP as u64 {
        let next = end.min(indexed + STEP_MAX as u64);
        let records = log::range(log, indexed, next)?;
        write(connection, &mut index, &records).map_err(fault)?;
        indexed = next;
    }
    Ok(indexed)
}
