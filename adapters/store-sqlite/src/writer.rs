//! The one thread that writes the log: takes what is waiting as one group, commits it once, and
//! answers each.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use adapters_store_kit::{
    check::mark,
    group::{self, Plan, RequestKey, Standing},
};
use commands::ports::{Append, AppendFault, Appended, Head, LogFault};
use domain::{
    kernel::StreamId,
    log::{Position, Record},
};
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Gate, fault,
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
    connection: Connection,
    now: group::Now,
    head: watch::Sender<Head>,
    tail: Arc<RwLock<Tail>>,
    index: Index,
}

impl Writer {
    pub(crate) fn new(
        connection: Connection,
        now: group::Now,
        head: watch::Sender<Head>,
        tail: Arc<RwLock<Tail>>,
    ) -> Self {
        Self { connection, now, head, tail, index: Index::default() }
    }

    /// Works until every sender is gone.
    pub(crate) fn run(mut self, gate: &Gate, mut queue: mpsc::Receiver<Job>) {
        let mut next = queue.blocking_recv();
        // How many were in the group before.
        let mut last = 0;
        while let Some(job) = next.take() {
            match job {
                Job::Restore(records, answer) => {
                    let turn = gate.log();
                    let result = self.restore(records);
                    drop(turn);
                    let _ = answer.send(result);
                    next = queue.blocking_recv();
                }
                Job::StandStill { ready, released } => {
                    let turn = gate.log();
                    let result = self.catch_up();
                    drop(turn);
                    if ready.send(result).is_ok() {
                        // Ends with an error: the other end is dropped, never used.
                        let _ = released.recv();
                    }
                    next = queue.blocking_recv();
                }
                Job::Append(append, answer) => {
                    // More arrive while somebody else is at the gate.
                    let turn = gate.log();
                    let mut bytes = group::data_bytes(&append);
                    let (mut appends, mut answers) = (vec![append], vec![answer]);
                    let linger = Instant::now() + group::LINGER;
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
                            // Those who were just answered are about to come back.
                            Err(_) if appends.len() < last && Instant::now() < linger => {
                                std::thread::yield_now();
                            }
                            Err(_) => break,
                        }
                    }
                    last = appends.len();
                    let result = self.commit(&appends);
                    drop(turn);
                    answer_all(answers, result);
                    if next.is_none() {
                        next = queue.blocking_recv();
                    }
                }
            }
        }
        // A file at rest is indexed to its end. When that fails, opening it makes the tail again.
        let _turn = gate.log();
        if let Err(fault) = self.catch_up() {
            tracing::warn!(%fault, "the newest events are not indexed yet");
        }
    }

    fn commit(
        &mut self,
        appends: &[Append],
    ) -> Result<Vec<Result<Appended, AppendFault>>, LogFault> {
        let (streams, requests) = group::questions(appends);
        let now = (self.now)();
        let head = self.head.borrow().clone();
        let plan = self.transaction(&streams, &requests, |standing| {
            Ok(group::plan(head, standing, appends, now))
        })?;
        Ok(plan.answers)
    }

    fn restore(&mut self, records: Vec<Record>) -> Result<(), LogFault> {
        let (streams, requests) = group::restore_questions(&records);
        let head = self.head.borrow().clone();
        self.transaction(&streams, &requests, |standing| {
            group::plan_restore(head, standing, records)
        })?;
        Ok(())
    }

    /// Looks up, plans, writes, commits. When anything fails nothing is written.
    fn transaction(
        &mut self,
        streams: &[StreamId],
        requests: &[RequestKey],
        plan: impl FnOnce(&Standing) -> Result<Plan, LogFault>,
    ) -> Result<Plan, LogFault> {
        let Self { connection, index, tail, head, .. } = self;
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
        if !plan.records.is_empty() {
            let mut tail = tail.write().unwrap_or_else(PoisonError::into_inner);
            if indexed {
                tail.clear();
            } else {
                tail.extend(&plan.records);
            }
            drop(tail);
            head.send_replace(plan.head.clone());
        }
        Ok(plan)
    }

    /// Writes the index up to the head.
    fn catch_up(&mut self) -> Result<(), LogFault> {
        let Self { connection, index, tail, head, .. } = self;
        let mut tail = tail.write().unwrap_or_else(PoisonError::into_inner);
        if tail.records().is_empty() {
            return Ok(());
        }
        let end: Position = head.borrow().position;
        let result = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            index.add(&transaction, tail.records())?;
            index::reaches(&transaction, end)?;
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
