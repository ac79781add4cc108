//! Threads that each hold one shard of a view's keys, for as long as a fold lasts.
//!
//! A state is made, changed and let go by one thread: an allocator then finds again what it gave
//! away, where with a new thread for each batch every batch began from nothing.

use std::sync::{Arc, mpsc};

use commands::ports::LogFault;
use domain::log::Record;
use projections::view::View;
use tokio::sync::oneshot;

use super::fold::{Touch, shard_of, touches};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Some shards. Their threads end when this is dropped.
pub(crate) struct Shards<S> {
    jobs: Vec<mpsc::Sender<Job<S>>>,
}

impl<S: Send + 'static> Shards<S> {
    /// Starts a thread for each of these.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(crate) fn start(states: impl IntoIterator<Item = S>) -> Result<Self, LogFault> {
        let start = |mut state: S| {
            let (sender, jobs) = mpsc::channel::<Job<S>>();
            let run = move || jobs.into_iter().for_each(|job| job(&mut state));
            match std::thread::Builder::new().name("view-fold".to_owned()).spawn(run) {
                Ok(_) => Ok(sender),
                Err(error) => Err(LogFault::Unavailable(format!("no thread to fold in: {error}"))),
            }
        };
        Ok(Self { jobs: states.into_iter().map(start).collect::<Result<_, _>>()? })
    }

    /// Has every shard do its work, all at once; gives what they made of it, in their order. There
    /// is as much work as there are shards.
    ///
    /// # Errors
    /// When one of them panicked.
    pub(crate) async fn each<W, T>(
        &self,
        work: impl IntoIterator<Item = W>,
    ) -> Result<Vec<T>, LogFault>
    where
        W: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let ended = || LogFault::Unexpected("a thread of a fold ended".to_owned());
        let mut waiting = Vec::with_capacity(self.jobs.len());
        for (jobs, work) in self.jobs.iter().zip(work) {
            let (done, result) = oneshot::channel();
            // Nobody waits any more when the fold as a whole was given up.
            let job: Job<S> = Box::new(move |state| drop(done.send(work(state))));
            jobs.send(job).map_err(|_| ended())?;
            waiting.push(result);
        }
        let mut all = Vec::with_capacity(waiting.len());
        for result in waiting {
            all.push(result.await.map_err(|_| ended())?);
        }
        Ok(all)
    }

    /// Which keys these records touch, for each shard, of the keys that are wanted.
    ///
    /// # Errors
    /// As [`Self::each`].
    pub(crate) async fn touches(
        &self,
        view: &'static dyn View,
        records: &Arc<[Record]>,
        wanted: &(impl Fn(&str) -> bool + Clone + Send + 'static),
    ) -> Result<Vec<Vec<Touch>>, LogFault> {
        let count = self.jobs.len();
        let size = records.len().div_ceil(count).max(1);
        let parts = (0..count).map(|part| {
            let (records, wanted) = (Arc::clone(records), wanted.clone());
            move |_: &mut S| {
                let begin = (part * size).min(records.len());
                let end = (begin + size).min(records.len());
                let mut out = vec![Vec::new(); count];
                let all = touches(view, &records[begin..end], begin);
                for touch in all.into_iter().filter(|(_, key)| wanted(key)) {
                    out[shard_of(&touch.1, count)].push(touch);
                }
                out
            }
        });
        let mut out = vec![Vec::new(); count];
        for part in self.each(parts).await? {
            for (all, some) in out.iter_mut().zip(part) {
                all.extend(some);
            }
        }
        Ok(out)
    }
}
