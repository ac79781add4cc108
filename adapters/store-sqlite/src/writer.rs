//! The one thread that writes the log, and the one that makes it durable.
//!
//! The writer takes what is waiting as one group, and commits it to the write-ahead log without
//! waiting for the disk. The syncer waits for the disk, publishes the head and answers; meanwhile
//! the writer is at the next group. What is written and not yet durable is seen by the writer
//! alone: every reader stops at the published head.

use std::{
    collections::HashMap,
    fs::File,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
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

pub(crate) struct Writer {
    pub connection: Connection,
    pub now: group::Now,
    /// As published: where the writer begins, and what the syncer moves.
    pub head: watch::Sender<Head>,
    pub tail: Arc<RwLock<Tail>>,
    pub indexing: Arc<Indexing>,
    /// Finds what is indexed.
    pub finder: Connection,
    pub checkpoints: Arc<Checkpoints>,
    /// The write-ahead log's file.
    pub wal: File,
    pub sync: SyncFile,
}

/// Groups that may be written while one is being made durable.
const WRITTEN_MAX: usize = 4;
/// Streams whose revision is kept in memory; some 10 MB.
const STREAMS_KEPT_MAX: usize = 50_000;

impl Writer {
    /// Works until every sender is gone.
    pub(crate) fn run(self, gate: &Gate, queue: mpsc::Receiver<Job>) {
        let Self { connection, now, head, tail, indexing, finder, checkpoints, wal, sync } = self;
        let (written, groups) = sync_channel(WRITTEN_MAX);
        let start = head.borrow().clone();
        let failed = Arc::default();
        let syncer = Syncer {
            head,
            indexing: Arc::clone(&indexing),
            checkpoints,
            wal,
            sync,
            failed: Arc::clone(&failed),
        };
        std::thread::scope(|scope| {
            scope.spawn(move || syncer.run(&groups));
            let pen = Pen {
                connection,
                now,
                head: start,
                tail,
                indexing,
                finder,
                revisions: HashMap::new(),
                written,
                failed,
            };
            pen.run(gate, queue);
        });
    }
}

/// What is told once everything before it is durable, or that it will never be.
type Answer = Box<dyn FnOnce(Result<(), LogFault>) + Send>;

/// What came of some work, and the head when the work moved it.
type Moved<T> = (Option<Head>, T);

/// A group that is in the write-ahead log, or a question that changed nothing.
struct Written {
    /// The head after it; none when nothing was written.
    head: Option<Head>,
    answer: Answer,
}

/// Makes groups durable, in order.
struct Syncer {
    head: watch::Sender<Head>,
    indexing: Arc<Indexing>,
    checkpoints: Arc<Checkpoints>,
    wal: File,
    sync: SyncFile,
    failed: Arc<OnceLock<LogFault>>,
}

impl Syncer {
    fn run(self, groups: &Receiver<Written>) {
        while let Ok(first) = groups.recv() {
            // What was written meanwhile shares the sync.
            let mut waiting = vec![first];
            while let Ok(next) = groups.try_recv() {
                waiting.push(next);
            }
            let newest = waiting.iter().rev().find_map(|one| one.head.clone());
            if let Some(newest) = newest
                && self.failed.get().is_none()
            {
                match self.make_durable() {
                    Ok(()) => {
                        let position = newest.position;
                        self.head.send_replace(newest);
                        self.indexing.durable(position);
                    }
                    Err(fault) => {
                        self.indexing.fail(fault.clone());
                        let _ = self.failed.set(fault);
                    }
                }
            }
            for one in waiting {
                (one.answer)(self.failed.get().cloned().map_or(Ok(()), Err));
            }
        }
    }

    /// After a sync that failed nobody knows what is on the disk, and asking again may succeed
    /// without it: so there is no second try in this process, and nothing is copied from the
    /// write-ahead log into the file any more.
    fn make_durable(&self) -> Result<(), LogFault> {
        (self.sync)(&self.wal).map_err(|error| {
            tracing::error!(%error, "the disk did not confirm a write: nothing more is appended");
            self.checkpoints.fail();
            LogFault::Unavailable(format!(
                "the disk did not confirm a write ({error}); restart the server to read what it \
                 kept"
            ))
        })
    }
}

/// Writes groups, in order.
struct Pen {
    connection: Connection,
    now: group::Now,
    /// As written, durable or not.
    head: Head,
    tail: Arc<RwLock<Tail>>,
    indexing: Arc<Indexing>,
    finder: Connection,
    /// Of streams that were asked about or appended to, as written.
    revisions: HashMap<StreamId, u64>,
    written: SyncSender<Written>,
    /// Why nothing more can be made durable.
    failed: Arc<OnceLock<LogFault>>,
}

impl Pen {
    fn run(mut self, gate: &Gate, mut queue: mpsc::Receiver<Job>) {
        let mut next = queue.blocking_recv();
        while let Some(job) = next.take() {
            match job {
                Job::Restore(records, answer) => {
                    let turn = gate.log();
                    let result = self.restore(records);
                    drop(turn);
                    self.answer(result, |result| {
                        let _ = answer.send(result);
                    });
                }
                Job::StandStill { ready, released } => {
                    self.answer(Ok((None, ())), |result| {
                        let _ = ready.send(result);
                    });
                    // Ends with an error: the other end is dropped, never used.
                    let _ = released.recv();
                }
                Job::Append(append, answer) => {
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
                    self.answer(result, |result| answer_all(answers, result));
                }
            }
            if next.is_none() {
                next = queue.blocking_recv();
            }
        }
    }

    /// Answers when everything that was written so far is durable.
    fn answer<T: Send + 'static>(
        &self,
        result: Result<Moved<T>, LogFault>,
        answer: impl FnOnce(Result<T, LogFault>) + Send + 'static,
    ) {
        let (head, result) = match result {
            Ok((head, result)) => (head, Ok(result)),
            Err(fault) => (None, Err(fault)),
        };
        let answer: Answer = Box::new(move |durable| answer(durable.and(result)));
        // The syncer ends after this.
        let _ = self.written.send(Written { head, answer });
    }

    fn commit(
        &mut self,
        appends: &[Append],
    ) -> Result<Moved<Vec<Result<Appended, AppendFault>>>, LogFault> {
        self.wait_for_room()?;
        let (streams, requests) = group::questions(appends);
        let now = (self.now)();
        let head = self.head.clone();
        let (head, plan) = self.transaction(&streams, &requests, |standing| {
            Ok(group::plan(head, standing, appends, now))
        })?;
        Ok((head, plan.answers))
    }

    fn restore(&mut self, records: Vec<Record>) -> Result<Moved<()>, LogFault> {
        self.wait_for_room()?;
        let (streams, requests) = group::restore_questions(&records);
        let head = self.head.clone();
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
        if let Some(fault) = self.failed.get() {
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
        self.head = plan.head.clone();
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
