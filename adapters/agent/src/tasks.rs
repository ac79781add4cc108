//! What an agent has in its hands: plain data.

use std::collections::{BTreeSet, VecDeque};

use commands::{desk::Outcome, ports::HostTask};
use domain::kernel::OrderKey;

/// Most outcomes that are kept. One that is forgotten costs a look: the order is carried out again,
/// and its driver finds that it is done.
const KEPT_MAX: usize = 256;

/// Orders by what becomes of them.
#[derive(Default)]
pub(crate) struct Tasks {
    /// In the agent's hands: waiting, running, or on their way back.
    busy: BTreeSet<OrderKey>,
    /// Not begun, in the order in which they came.
    waiting: VecDeque<HostTask>,
    /// Those that run.
    running: BTreeSet<OrderKey>,
    /// Reports that were brought, or could not be, the newest last.
    kept: VecDeque<(OrderKey, Outcome)>,
}

impl Tasks {
    /// What the desk need not give.
    pub(crate) fn busy(&self) -> &BTreeSet<OrderKey> {
        &self.busy
    }

    /// Takes an order in; gives its outcome when it was carried out before.
    pub(crate) fn take(&mut self, task: HostTask) -> Option<(OrderKey, Outcome)> {
        if !self.busy.insert(task.key.clone()) {
            return None;
        }
        if let Some(kept) = self.kept.iter().find(|(key, _)| *key == task.key) {
            return Some(kept.clone());
        }
        self.waiting.push_back(task);
        None
    }

    /// The next order to begin, if there may be so many at once. Those of one server are carried out
    /// one after the other, but for one that ends what runs.
    pub(crate) fn begin(&mut self, at_once: usize) -> Option<HostTask> {
        if self.running.len() >= at_once {
            return None;
        }
        let runs = |task: &HostTask| self.running.iter().any(|key| key.stream == task.key.stream);
        let free = |task: &HostTask| task.overtakes() || !runs(task);
        let place = self.waiting.iter().position(free)?;
        let task = self.waiting.remove(place)?;
        self.running.insert(task.key.clone());
        Some(task)
    }

    /// An order is through, and its outcome on its way. A report is kept; a fault is not, for it says
    /// nothing of another try.
    pub(crate) fn end(&mut self, key: &OrderKey, outcome: &Outcome) {
        self.running.remove(key);
        if matches!(outcome, Outcome::Report { .. }) {
            self.kept.push_back((key.clone(), outcome.clone()));
            if self.kept.len() > KEPT_MAX {
                self.kept.pop_front();
            }
        }
    }

    /// The outcome came to the desk.
    pub(crate) fn brought(&mut self, key: &OrderKey) {
        self.busy.remove(key);
    }

    /// Nothing more is begun.
    pub(crate) fn stop(&mut self) {
        self.waiting.clear();
    }
}
