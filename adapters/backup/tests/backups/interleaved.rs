//! Backups, retention and collections of one store in any order of their steps, any of which may be the
//! last of its caller.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use adapters_backup::{Fault, Store, chunk::Seal};
use futures::FutureExt as _;
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    memory::{Gate, Memory},
    rules::{DISK, Disk, asked},
};

/// Something that is done with the store.
#[derive(Clone, Debug)]
enum Task {
    Take { parent: Option<u128>, fill: [u8; 3] },
    Forget(u128),
    Collect,
}

type Work = Pin<Box<dyn Future<Output = Result<(), Fault>>>>;

fn work(store: Store, number: u128, task: Task) -> Work {
    Box::pin(async move {
        match task {
            Task::Take { parent, fill } => {
                let disk = Disk::of(&fill);
                store.take(&asked(number, parent), &disk).await.map(drop)
            }
            Task::Forget(backup) => store.forget(DISK, Uuid::from_u128(backup)).await,
            Task::Collect => store.collect().await.map(drop),
        }
    })
}

/// Every backup that is there has all its chunks.
fn check(memory: &Memory, steps: &[String]) {
    let store = Store::new(Arc::new(memory.at_once()), Seal::plain());
    let keys = memory.keys();
    for (disk, backup) in store.backups().now_or_never().unwrap().unwrap() {
        let manifest = store.manifest(disk, backup, None).now_or_never().unwrap().unwrap();
        for chunk in manifest.chunks {
            let is_there = keys.binary_search(&chunk.key()).is_ok();
            assert!(is_there, "{backup} misses {}\n{}\n{keys:#?}", chunk.name, steps.join("\n"));
        }
    }
}

fn task() -> impl Strategy<Value = Task> {
    // Few contents and few backups, so that they meet.
    let take = (any::<Option<bool>>(), proptest::array::uniform3(1_u8..4));
    prop_oneof![
        2 => take.prop_map(|(parent, fill)| Task::Take { parent: parent.map(u128::from), fill }),
        2 => (0_u128..2).prop_map(Task::Forget),
        4 => Just(Task::Collect),
    ]
}

/// Callers whose calls are let through one by one, in an order that a seed says.
struct Callers {
    gate: Gate,
    works: BTreeMap<usize, Work>,
    steps: Vec<String>,
    seed: u64,
    /// Who is let through first; it changes now and then, so that some are overtaken by many.
    ranks: Vec<usize>,
}

impl Callers {
    fn dice(&mut self, sides: usize) -> usize {
        // Knuth's MMIX.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap() % sides
    }

    /// Lets a caller work until a call of it waits, or it is done.
    fn go_on(&mut self, caller: usize) {
        let Some(work) = self.works.get_mut(&caller) else { return };
        self.gate.calls_are_of(caller);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
                self.steps.push(format!("{caller} ends: {done:?}"));
                self.works.remove(&caller);
                return;
            }
            if self.gate.calls().iter().any(|(_, whose)| *whose == caller) {
                return;
            }
            // What it computes is on another thread.
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    fn step(&mut self) -> bool {
        let calls = self.gate.calls();
        if calls.is_empty() {
            return false;
        }
        let most = calls.iter().map(|(_, caller)| self.ranks[*caller]).max();
        let first: Vec<_> =
            calls.into_iter().filter(|(_, caller)| Some(self.ranks[*caller]) == most).collect();
        let (call, caller) = first[self.dice(first.len())];
        if self.dice(12) == 0 {
            self.ranks[caller] = self.dice(1_000);
        }
        if self.dice(100) == 0 {
            self.steps.push(format!("{caller} dies"));
            self.works.remove(&caller);
            self.gate.forget(caller);
        } else {
            self.gate.let_through(call);
            self.go_on(caller);
            self.steps.push(format!("{caller} went on"));
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn no_order_of_steps_and_no_death_takes_a_chunk_that_a_backup_needs(
        tasks in proptest::collection::vec(task(), 4..10), seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let gate = Gate::default();
        let memory = Memory { gate: Some(gate.clone()), ..Memory::default() };
        let store = Store::new(Arc::new(memory.clone()), Seal::plain());
        let now = Store::new(Arc::new(memory.at_once()), Seal::plain());
        for (id, fill) in [(0, [1, 2, 0]), (1, [2, 3, 0])] {
            runtime.block_on(now.take(&asked(id, None), &Disk::of(&fill))).unwrap();
        }
        let works = tasks.iter().enumerate();
        let works = works.map(|(at, task)| (at, work(store.clone(), at as u128 + 10, task.clone())));
        let steps = vec![format!("{tasks:?}")];
        let mut callers = Callers { gate, works: works.collect(), steps, seed, ranks: vec![] };
        callers.ranks = tasks.iter().map(|_| callers.dice(1_000)).collect();
        for caller in 0..tasks.len() {
            callers.go_on(caller);
        }
        while callers.step() {
            check(&memory, &callers.steps);
        }
        prop_assert!(callers.works.is_empty());
        for _ in 0..3 {
            runtime.block_on(now.collect()).unwrap();
            check(&memory, &callers.steps);
        }
    }
}
