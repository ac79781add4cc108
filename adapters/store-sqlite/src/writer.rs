//! The one thread that writes the log, and the one that makes it durable.
//!
//! The writer takes what is waiting as one group, and commits it to the write-ahead log without
//! waiting for the disk. The syncer waits for the disk, publishes the head and answers; meanwhile
//! the writer is at the next group. What is written and not yet durable is seen by the writer
//! alone: every reader stops at the published head.

use std::{
    fs::File,
    path::PathBuf,
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
    Gate, SyncFile, fault,
    index::{self, Index},
    tail::{TAIL_MAX, Tail},
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
    /// The write-ahead log's file.
    pub wal: PathBuf,
    pub sync: SyncFile,
}

/// Groups that may be written while one is being made durable.
const WRITTEN_MAX: usize = 4;

impl Writer {
    /// Works until every sender is gone.
    pub(crate) fn run(self, gate: &Gate, queue: mpsc::Receiver<Job>) {
        let Self { connection, now, head, tail, wal, sync } = self;
        let (written, groups) = sync_channel(WRITTEN_MAX);
        let start = head.borrow().clone();
        let failed = Arc::default();
        let syncer = Syncer { head, wal, sync, file: None, failed: Arc::clone(&failed) };
        std::thread::scope(|scope| {
            scope.spawn(move || syncer.run(&groups));
            let pen = Pen {
                connection,
                now,
                head: start,
                tail,
                index: Index::default(),
                written,
                failed,
            };
            pen.run(gate, queue);
        });
    }
}

/// What is told once everything before it is durable, or that it will never be.
type Answer = Box<dyn FnOnce(Result<(), LogFault>) + Send>;

/// A group that is in the write-ahead log, or a question that changed nothing.
struct Written {
    /// The head after it; none when nothing was written.
    head: Option<Head>,
    answer: Answer,
}

/// Makes groups durable, in order.
struct Syncer {
    head: watch::Sender<Head>,
    wal: PathBuf,
    sync: SyncFile,
    file: Option<File>,
    failed: Arc<OnceLock<LogFault>>,
}

impl Syncer {
    fn run(mut self, groups: &Receiver<Written>) {
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
                        self.head.send_replace(newest);
                    }
                    Err(fault) => {
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
    /// without it: so there is no second try in this process.
    fn make_durable(&mut self) -> Result<(), LogFault> {
        let mut sync = || {
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(File::options().write(true).open(&self.wal)?),
            };
            (self.sync)(file)
        };
        sync().map_err(|error| {
            tracing::error!(%error, "the disk did not confirm a write: nothing more is appended");
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
    index: Index,
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
                        let _ = answer.send(result.map(|_| ()));
                    });
                }
                Job::StandStill { ready, released } => {
                    let turn = gate.log();
                    let result = self.catch_up();
                    drop(turn);
                    let result = result.map(|()| (Some(self.head.clone()), ()));
                    self.answer(result, |result| {
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
        // A file at rest is indexed to its end. When that fails, opening it makes the tail again.
        let _turn = gate.log();
        if let Err(fault) = self.catch_up() {
            tracing::warn!(%fault, "the newest events are not indexed yet");
        }
    }

    /// Answers when everything that was written so far is durable.
    fn answer<T: Send + 'static>(
        &self,
        result: Result<(Option<Head>, T), LogFault>,
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
    ) -> Result<(Option<Head>, Vec<Result<Appended, AppendFault>>), LogFault> {
        let (streams, requests) = group::questions(appends);
        let now = (self.now)();
        let head = self.head.clone();
        let (head, plan) = self.transaction(&streams, &requests, |standing| {
            Ok(group::plan(head, standing, appends, now))
        })?;
        Ok((head, plan.answers))
    }

    fn restore(&mut self, records: Vec<Record>) -> Result<(Option<Head>, ()), LogFault> {
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
    ) -> Result<(Option<Head>, Plan), LogFault> {
        let Self { connection, index, tail, failed, .. } = self;
        if let Some(fault) = failed.get() {
            return Err(fault.clone());
        }
        // Only this thread changes the tail.
        let kept = tail.read().unwrap_or_else(PoisonError::into_inner);
        index.trim();
        let result = (|| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(fault)?;
            let standing = look_up(&transaction, index, &kept, streams, requests).map_err(fault)?;
            let plan = plan(&standing)?;
            if plan.records.is_empty() {
                return Ok((plan, false));
            }
            let full = kept.records().len() + plan.records.len() >= TAIL_MAX;
            write(&transaction, &plan).map_err(fault)?;
            if full {
                index.add(&transaction, kept.records()).map_err(fault)?;
                index.add(&transaction, &plan.records).map_err(fault)?;
                index::reaches(&transaction, plan.head.position).map_err(fault)?;
            }
            transaction.commit().map_err(fault)?;
            Ok((plan, full))
        })();
        drop(kept);
        let (plan, indexed) = result.inspect_err(|_| index.forget())?;
        if plan.records.is_empty() {
            return Ok((None, plan));
        }
        let mut tail = tail.write().unwrap_or_else(PoisonError::into_inner);
        if indexed {
            tail.clear();
        } else {
            tail.extend(&plan.records);
        }
        drop(tail);
        self.head = plan.head.clone();
        Ok((Some(plan.head.clone()), plan))
    }

    /// Writes the index up to the head.
    fn catch_up(&mut self) -> Result<(), LogFault> {
        let Self { connection, index, tail, head, .. } = self;
        let mut tail = tail.write().unwrap_or_else(PoisonError::into_inner);
        if tail.records().is_empty() {
            return Ok(());
        }
        let result = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            index.add(&transaction, tail.records())?;
            index::reaches(&transaction, head.position)?;
            transaction.commit()
        })();
        match result {
            Ok(()) => tail.clear(),
            Err(_) => index.forget(),
        }
        result.map_err(fault)
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

fn look_up(
    connection: &Connection,
    index: &mut Index,
    tail: &Tail,
    streams: &[StreamId],
    requests: &[RequestKey],
) -> rusqlite::Result<Standing> {
    let mut standing = Standing::default();
    for stream in streams {
        let revision = match tail.revision(stream) {
            Some(revision) => Some(revision),
            None => index.revision(connection, stream)?,
        };
        if let Some(revision) = revision {
            standing.streams.insert(stream.clone(), revision);
        }
    }
    for key in requests {
        let answered = match tail.request(key) {
            Some(answered) => Some(answered.clone()),
            None => index::request(connection, &key.0, &key.1)?,
        };
        if let Some(answered) = answered {
            standing.requests.insert(key.clone(), answered);
        }
    }
    Ok(standing)
}

/// The records, the nodes they complete and the head: what a commit cannot do without.
fn write(connection: &Connection, plan: &Plan) -> rusqlite::Result<()> {
    let mut insert = connection
        .prepare_cached("INSERT INTO events (position, mark, record) VALUES (?, ?, ?)")?;
    for record in &plan.records {
        let position = record.position() as i64;
        insert.execute(params![position, mark(&record.leaf()), record.frame()])?;
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
