//! A store in memory: it breaks at the call it is told to, and lets others go first when it is told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

use adapters_backup::{
    Fault,
    objects::{Listed, Objects},
};
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta};

/// Where a caller dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dies {
    Before,
    After,
}

#[derive(Default)]
pub(crate) struct State {
    objects: BTreeMap<String, (Bytes, i64)>,
    calls: usize,
    clock: i64,
    dies_at: Option<(usize, Dies)>,
    died: usize,
    puts: Vec<String>,
}

/// Where calls wait until they are let through, one by one.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    next: usize,
    /// Whose calls come now.
    caller: usize,
    calls: BTreeMap<usize, (usize, Waker)>,
    let_through: BTreeSet<usize>,
}

impl Gate {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap()
    }

    async fn pass(&self) {
        let mut number = None;
        std::future::poll_fn(|context| {
            let mut waiting = self.waiting();
            let is_new = number.is_none();
            let number = *number.get_or_insert(waiting.next);
            if waiting.let_through.remove(&number) {
                return Poll::Ready(());
            }
            waiting.next += usize::from(is_new);
            let caller = waiting.caller;
            let known = waiting.calls.get(&number).map_or(caller, |(caller, _)| *caller);
            waiting.calls.insert(number, (known, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Whose calls come from now on.
    pub(crate) fn calls_are_of(&self, caller: usize) {
        self.waiting().caller = caller;
    }

    /// The calls that wait, and whose each is.
    pub(crate) fn calls(&self) -> Vec<(usize, usize)> {
        self.waiting().calls.iter().map(|(call, (caller, _))| (*call, *caller)).collect()
    }

    pub(crate) fn let_through(&self, call: usize) {
        let mut waiting = self.waiting();
        let (_, waker) = waiting.calls.remove(&call).unwrap();
        waiting.let_through.insert(call);
        drop(waiting);
        waker.wake();
    }

    /// A caller is no more.
    pub(crate) fn forget(&self, caller: usize) {
        self.waiting().calls.retain(|_, (whose, _)| *whose != caller);
    }
}

#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) state: Arc<Mutex<State>>,
    /// Each call waits here, where there is one.
    pub(crate) gate: Option<Gate>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The same objects, asked without waiting.
    pub(crate) fn at_once(&self) -> Self {
        Self { gate: None, ..self.clone() }
    }

    /// The caller dies at this call, from now on, counted from 1.
    pub(crate) fn die_at(&self, call: usize, dies: Dies) {
        let mut state = self.state();
        (state.calls, state.dies_at) = (0, Some((call, dies)));
    }

    /// Nobody dies any more; gives how many have.
    pub(crate) fn heal(&self) -> usize {
        let mut state = self.state();
        state.dies_at = None;
        std::mem::take(&mut state.died)
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The keys that were put since this was last asked.
    pub(crate) fn puts(&self) -> Vec<String> {
        std::mem::take(&mut self.state().puts)
    }

    /// Changes an object behind the store's back; none removes it.
    pub(crate) fn meddle(&self, key: &str, change: impl FnOnce(&mut Vec<u8>) -> bool) {
        let mut state = self.state();
        let (bytes, at) = state.objects.remove(key).unwrap();
        let mut bytes = bytes.to_vec();
        if change(&mut bytes) {
            state.objects.insert(key.to_owned(), (bytes.into(), at));
        }
    }

    async fn call<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, Fault> {
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        let mut state = self.state();
        state.calls += 1;
        state.clock += 1;
        let dead = || Fault::Unreachable { what: "call".into(), why: "the caller dies".into() };
        let dies = state.dies_at.filter(|(at, _)| *at <= state.calls).map(|(at, dies)| {
            // Nothing is done after a death.
            if at < state.calls { Dies::Before } else { dies }
        });
        state.died += usize::from(state.dies_at.is_some_and(|(at, _)| at == state.calls));
        if dies == Some(Dies::Before) {
            return Err(dead());
        }
        let done = work(&mut state);
        if dies.is_some() { Err(dead()) } else { Ok(done) }
    }
}

fn put(state: &mut State, key: &str, bytes: Bytes) {
    let at = state.clock;
    state.objects.insert(key.to_owned(), (bytes, at));
    state.puts.push(key.to_owned());
}

#[async_trait]
impl Objects for Memory {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), Fault> {
        self.call(|state| put(state, key, bytes)).await
    }

    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool, Fault> {
        self.call(|state| {
            let is_new = !state.objects.contains_key(key);
            if is_new {
                put(state, key, bytes);
            }
            is_new
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        self.call(|state| state.objects.get(key).map(|(bytes, _)| bytes.clone())).await
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Fault> {
        self.call(|state| state.objects.get(key).map(|(bytes, _)| bytes.len() as u64)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Fault> {
        self.call(|state| {
            let begun = state.objects.range(prefix.to_owned()..);
            let begun = begun.take_while(|(key, _)| key.starts_with(prefix));
            let listed = begun.map(|(key, (bytes, at))| Listed {
                key: key.clone(),
                bytes: bytes.len() as u64,
                modified: DateTime::UNIX_EPOCH + TimeDelta::seconds(*at),
            });
            listed.collect()
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), Fault> {
        self.call(|state| drop(state.objects.remove(key))).await
    }
}
