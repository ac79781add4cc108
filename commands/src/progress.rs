//! How far transfers are: backups, copies, images, servers on their way to other hosts.
//!
//! ```text
//!   whoever carries an order out ── of(key, work) ──► work ──► expect, add, at
//!                                        │
//!                                        ▼ all, find
//!                          agent ── with its next question ──► desk ──► who asks
//! ```
//!
//! It is in memory alone, of what goes on now, and never an event. What works deep below an order says what it has
//! done without knowing whose order that is: the meter of the order is at hand while its work is polled. What is
//! done on another thread is not counted there; whoever awaits it counts it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use domain::kernel::OrderKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Progress")]
pub struct Progress {
    /// What is through, in bytes.
    pub done_bytes: u64,
    /// All of it, in bytes, as far as that is known by now: it may grow.
    pub total_bytes: u64,
}

/// How far the transfer of an order is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OrderProgress")]
pub struct Told {
    /// The order.
    pub key: OrderKey,
    /// How far.
    pub progress: Progress,
}

#[derive(Debug, Default)]
struct Meter {
    done: AtomicU64,
    total: AtomicU64,
}

impl Meter {
    /// None where nobody said how much there is.
    fn read(&self) -> Option<Progress> {
        let total_bytes = self.total.load(Ordering::Relaxed);
        let done_bytes = self.done.load(Ordering::Relaxed).min(total_bytes);
        (total_bytes > 0).then_some(Progress { done_bytes, total_bytes })
    }
}

thread_local! {
    /// The meter of what is polled now.
    static NOW: RefCell<Option<Arc<Meter>>> = const { RefCell::new(None) };
}

fn with(tell: impl FnOnce(&Meter)) {
    NOW.with_borrow(|now| now.as_deref().map(tell));
}

/// So many bytes more are to be moved.
pub fn expect(bytes: u64) {
    with(|meter| {
        meter.total.fetch_add(bytes, Ordering::Relaxed);
    });
}

/// So many bytes more are through.
pub fn add(bytes: u64) {
    with(|meter| {
        meter.done.fetch_add(bytes, Ordering::Relaxed);
    });
}

/// So many of so many are through, in all.
pub fn at(done: u64, total: u64) {
    with(|meter| {
        meter.done.store(done, Ordering::Relaxed);
        meter.total.store(total, Ordering::Relaxed);
    });
}

/// What goes on. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<BTreeMap<OrderKey, Arc<Meter>>>>);

impl Meters {
    fn meters(&self) -> MutexGuard<'_, BTreeMap<OrderKey, Arc<Meter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work of an order, measured as long as it goes on.
    pub fn of<F: Future>(&self, key: OrderKey, work: F) -> Measured<F> {
        let meter = Arc::new(Meter::default());
        self.meters().insert(key.clone(), Arc::clone(&meter));
        Measured { meters: self.clone(), key, meter, work: Box::pin(work) }
    }

    /// How far everything is that says so.
    pub fn all(&self) -> Vec<Told> {
        let meters = self.meters();
        let told = |(key, meter): (&OrderKey, &Arc<Meter>)| {
            Some(Told { key: key.clone(), progress: meter.read()? })
        };
        meters.iter().filter_map(told).collect()
    }

    /// How far the order of a resource is.
    pub fn find(&self, kind: &str, id: &str) -> Option<Progress> {
        let meters = self.meters();
        let mut own =
            meters.iter().filter(|(key, _)| key.stream.kind == kind && key.stream.id == id);
        own.find_map(|(_, meter)| meter.read())
    }
}

/// Work that is measured.
pub struct Measured<F> {
    meters: Meters,
    key: OrderKey,
    meter: Arc<Meter>,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        /// Whatever comes of it, who polls this has its own meter again.
        struct Before(Option<Arc<Meter>>);
        impl Drop for Before {
            fn drop(&mut self) {
                NOW.set(self.0.take());
            }
        }
        let _before = Before(NOW.replace(Some(Arc::clone(&self.meter))));
        self.work.as_mut().poll(context)
    }
}

impl<F> Drop for Measured<F> {
    fn drop(&mut self) {
        let mut meters = self.meters.meters();
        // Another try of the same order may have begun.
        if meters.get(&self.key).is_some_and(|meter| Arc::ptr_eq(meter, &self.meter)) {
            meters.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::kernel::StreamId;
    use futures::{executor::block_on, future};

    use super::*;

    fn key(id: &str) -> OrderKey {
        OrderKey { stream: StreamId::new("backup", id), number: 1 }
    }

    #[test]
    fn each_order_has_its_own_meter_however_their_work_is_interleaved() {
        let meters = Meters::default();
        let work = async |bytes: u64| {
            expect(bytes);
            for _ in 0..3 {
                add(bytes / 4);
                // Others are polled in between.
                let mut rested = false;
                future::poll_fn(|context| {
                    context.waker().wake_by_ref();
                    if std::mem::replace(&mut rested, true) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }
            (meters.find("backup", "a"), meters.find("backup", "b"))
        };
        let (one, other) = (meters.of(key("a"), work(400)), meters.of(key("b"), work(4_000)));
        assert_eq!(meters.all(), [], "nobody said how much there is");
        let (one, other) = block_on(future::join(one, other));
        let progress = |done_bytes, total_bytes| Some(Progress { done_bytes, total_bytes });
        assert_eq!(one.0, progress(300, 400));
        assert_eq!(other.1, progress(3_000, 4_000));
        assert_eq!(meters.all(), [], "they are through");
        // Outside of an order it is nobody's.
        add(7);
        at(1, 2);
        assert_eq!(meters.all(), []);
    }

    #[test]
    fn a_try_that_is_over_does_not_take_the_next_one_s_meter_away() {
        let meters = Meters::default();
        let first = meters.of(key("a"), async { expect(1) });
        let second = meters.of(key("a"), async {
            at(9, 5);
            meters.find("backup", "a")
        });
        drop(first);
        let seen = block_on(second);
        assert_eq!(seen, Some(Progress { done_bytes: 5, total_bytes: 5 }), "never more than all");
    }
}
