//! The one thread that writes the log and makes it durable.
//!
//! It takes what is waiting as one group, commits it to the write-ahead log, waits for the disk,
//! publishes the head and answers. Those who were just answered are about to come back: the next
//! group waits a moment for them, so that all of them share one wait for the disk. What is written
//! and not yet durable is seen by this thread alone: every reader stops at the published head.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use adapters_store_kit::{
    check::mark,
    group::{self, Plan, RequestKey, Standing},
};
use commands::ports::{Append, AppendFault, Appended, Head, LogFault};
use domain::{kernel::StreamId, log::Record};
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Gate, SyncFile, checkpoints::Checkpoints, fault, index, indexer::Indexing, tail::Tail,
};

/// What came of some work, and the head when the work moved it.
type Moved<T> = (Option<Head>, T);

/// What a caller waits for.
pub(crate) enum Job {
    Append(Append, oneshot::Sender<Result<Appended, AppendFault>>),
    Restore(Vec<Record>, oneshot::Sender<Result<(), LogFault>>),
    /// Everything is indexed and answered for; then nothing is written until the caller drops the
    /// other end of `released`.
    StandStill {
        ready: oneshot::Sender<Result<(), LogFault>>,
        released: std::sync::mpsc::Receiver<()>,
    },
}

/// See the module.
pub(crate) struct Writer {
    pub connection: Connection,
    pub now: group::Now,
    /// As published.
    pub head: watch::Sender<Head>,
    pub tail: Arc<RwLock<Tail>>,
    pub indexing: Arc<Indexing>,
    /// Finds what is indexed.
    pub finder: Connection,
    pub checkpoints: Arc<Checkpoints>,
    /// The write-ahead log's file.
    pub wal: File,
    pub sync: SyncFile,
    /// Of streams that were asked about or appended to, as written.
    pub revisions: HashMap<StreamId, u64>,
    /// Why nothing more can be made durable.
    pub failed: Option<LogFault>,
}

/// Streams whose revision is kept in memory; some 10 MB.
const STREAMS_KEPT_MAX: usize = 50_000;
/// How long a group waits for those who are about to come back: less than most disks take to
/// confirm a write.
const LINGER: Duration = Duration::from_micros(100);
/// After a wait that brought nobody, so many groups do not wait.
const PATIENCE_LOST: u32 = 16;

/// How many are about to append.
#[derive(Debug, Default)]
struct Company {
    /// Those who were answered last, and those who were waiting then.
    expected: usize,
    /// Groups that do not wait.
    hasty: u32,
}

impl Company {
    /// Waits until as many are in the queue as are expected beside the one that was taken from it.
    fn gather(&mut self, queue: &mpsc::Receiver<Job>) {
        let missing = |company: &Self| queue.len() + 1 < company.expected;
        if self.hasty > 0 {
            self.hasty -= 1;
            return;
        }
        if !missing(self) {
            return;
        }
        let (before, start) = (queue.len(), Instant::now());
        // Shorter than a thread takes to fall asleep and to be woken.
        while missing(self) && start.elapsed() < LINGER {
            std::thread::yield_now();
        }
        if queue.len() == before {
            self.hasty = PATIENCE_LOST;
        }
    }
}

impl Writer {
    /// Works until every sender is gone.
    pub(crate) fn run(mut self, gate: &Gate, mut queue: mpsc::Receiver<Job>) {
        let mut company = Company::default();
        let mut next = queue.blocking_recv();
        while let Some(job) = next.take() {
            match job {
                Job::Restore(records, answer) => {
                    let turn = gate.log();
                    let result = self.restore(records);
                    drop(turn);
                    // A caller that went away does not need its answer.
                    let _ = answer.send(self.durable(result));
                }
                Job::StandStill { ready, released } => {
                    let _ = ready.send(self.failed.clone().map_or(Ok(()), Err));
                    // Ends with an error: the other end is dropped, never used.
                    let _ = released.recv();
                }
                Job::Append(append, answer) => {
                    company.gather(&queue);
                    // More arrive while somebody else is at the gate.
                    let turn = gate.log();
                    let mut bytes = group::data_bytes(&append);
                    let (mut appends, mut answers) = (vec![append], vec![answer]);
                    while appends.len() < group::GROUP_APPENDS_MAX && bytes < group::GROUP_BYTES_MAX
                    {
                        match queue.try_recv() {
                            Ok(Job::Append(append, answer)) => {
                                bytes += group::data_bytes(&append);
                                appends.push(append);
                                answers.push(answer);
                            }
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    let result = self.commit(&appends);
                    drop(turn);
                    let result = self.durable(result);
                    company.expected = answers.len() + queue.len();
                    answer_all(answers, result);
                }
            }
            if next.is_none() {
                next = queue.blocking_recv();
            }
        }
    }

    /// Waits for the disk and publishes the head, when the work moved it.
    fn durable<T>(&mut self, moved: Result<Moved<T>, LogFault>) -> Result<T, LogFault> {
        let (head, result) = moved?;
        let Some(head) = head else {
            // Answered from what was durable before.
            return self.failed.clone().map_or(Ok(result), Err);
        };
        // After a sync that failed nobody knows what is on the disk, and asking again may succeed
        // without it: so there is no second try in this process, and nothing is copied from the
        // write-ahead log into the file any more.
        if let Err(error) = (self.sync)(&self.wal) {
            tracing::error!(%error, "the disk did not confirm a write: nothing more is appended");
            self.checkpoints.fail();
            let fault = LogFault::Unavailable(format!(
                "the disk did not confirm a write ({error}); restart the server to read what it \
                 kept"
            ));
            self.indexing.fail(fault.clone());
            self.failed = Some(fault.clone());
            return Err(fault);
        }
        let position = head.position;
        self.head.send_replace(head);
        self.indexing.durable(position);
        Ok(result)
    }

    fn commit(
        &mut self,
        appends: &[Append],
    ) -> Result<Moved<Vec<Result<Appended, AppendFault>>>, LogFault> {
        self.wait_for_room()?;
        let (streams, requests) = group::questions(appends);
        let now = (self.now)();
        let head = self.head.borrow().clone();
        let (head, plan) = self.transaction(&streams, &requests, |standing| {
            Ok(group::plan(head, standing, appends, now))
        })?;
        Ok((head, plan.answers))
    }

    fn restore(&mut self, records: Vec<Record>) -> Result<Moved<()>, LogFault> {
        self.wait_for_room()?;
        let (streams, requests) = group::restore_questions(&records);
        let head = self.head.borrow().clone();
        let (head, _) = self.transaction(&streams, &requests, |standing| {
            group::plan_restore(head, standing, records)
        })?;
        Ok((head, ()))
    }

    /// Looks up, plans, writes, commits; gives the head when it moved. When anything fails nothing
    /// is written.
    fn transaction(
        &mut self,
        streams: &[StreamId],
        requests: &[RequestKey],
        plan: impl FnOnce(&Standing) -> Result<Plan, LogFault>,
    ) -> Result<Moved<Plan>, LogFault> {
        if let Some(fault) = &self.failed {
            return Err(fault.clone());
        }
        let standing = self.look_up(streams, requests).map_err(fault)?;
        let plan = plan(&standing)?;
        if plan.records.is_empty() {
            return Ok((None, plan));
        }
        let mut commit = || {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            write(&transaction, &plan)?;
            transaction.commit()
        };
        commit().map_err(fault)?;
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        let requests = plan.requests.iter().map(|(key, answered)| (key.clone(), answered.clone()));
        tail.extend(&plan.records, requests);
        drop(tail);
        for (stream, revision) in &plan.streams {
            self.revisions.insert(stream.clone(), *revision);
        }
        Ok((Some(plan.head.clone()), plan))
    }

    fn look_up(
        &mut self,
        streams: &[StreamId],
        requests: &[RequestKey],
    ) -> rusqlite::Result<Standing> {
        if self.revisions.len() > STREAMS_KEPT_MAX {
            self.revisions.clear();
        }
        // The tail first: what leaves it meanwhile is in the index by then.
        let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
        let mut standing = Standing::default();
        for stream in streams {
            let known = self.revisions.get(stream).copied().or_else(|| tail.revision(stream));
            if let Some(revision) = known {
                standing.streams.insert(stream.clone(), revision);
            }
        }
        for key in requests {
            if let Some(answered) = tail.request(key) {
                standing.requests.insert(key.clone(), answered.clone());
            }
        }
        drop(tail);
        for stream in streams {
            if !standing.streams.contains_key(stream)
                && let Some(revision) = index::revision(&self.finder, stream)?
            {
                self.revisions.insert(stream.clone(), revision);
                standing.streams.insert(stream.clone(), revision);
            }
        }
        for key in requests {
            if !standing.requests.contains_key(key)
                && let Some(answered) = index::request(&self.finder, &key.0, &key.1)?
            {
                standing.requests.insert(key.clone(), answered);
            }
        }
        Ok(standing)
    }

    /// Waits for the index when the tail is too long to be kept in memory.
    fn wait_for_room(&self) -> Result<(), LogFault> {
        loop {
            let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
            let Some(indexed) = tail.too_long_after() else { return Ok(()) };
            drop(tail);
            self.indexing.wait_beyond(indexed)?;
        }
    }
}

fn answer_all(
    answers: Vec<oneshot::Sender<Result<Appended, AppendFault>>>,
    result: Result<Vec<Result<Appended, AppendFault>>, LogFault>,
) {
    // A caller that went away does not need its answer.
    match result {
        Ok(results) => answers.into_iter().zip(results).for_each(|(answer, result)| {
            let _ = answer.send(result);
        }),
        Err(fault) => {
            tracing::warn!(%fault, appends = answers.len(), "a group of appends failed");
            for answer in answers {
                let _ = answer.send(Err(fault.clone().into()));
            }
        }
    }
}

/// The records, the nodes they complete and the head: what a commit cannot do without.
fn write(connection: &Connection, plan: &Plan) -> rusqlite::Result<()> {
    let mut insert = connection
        .prepare_cached("INSERT INTO events (position, mark, record) VALUES (?, ?, ?)")?;
    for (record, leaf) in plan.records.iter().zip(&plan.leaves) {
        insert.execute(params![record.position() as i64, mark(leaf), record.frame()])?;
    }
    for node in &plan.nodes {
        connection.prepare_cached("INSERT INTO tree VALUES (?, ?, ?)")?.execute(params![
            node.level,
            node.index as i64,
            node.hash.as_slice()
        ])?;
    }
    connection
        .prepare_cached("UPDATE head SET position = ?, recorded_at = ?, frontier = ?")?
        .execute(params![
            plan.head.position as i64,
            plan.head.recorded_at.timestamp_micros(),
            plan.head.frontier.to_bytes(),
        ])?;
    Ok(())
}
