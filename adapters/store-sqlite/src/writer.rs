//! The one thread that writes the log and makes it durable.
//!
//! It takes what is waiting as one group, commits it to the write-ahead log, waits for the disk,
//! publishes the head and answers. Those who were just answered are about to come back: the next
//! group waits a moment for them, so that all of them share one wait for the disk, and is planned
//! meanwhile, one append after the other. What is written
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
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    Gate, SyncFile,
    checkpoints::Checkpoints,
    fault, index,
    indexer::Indexing,
    tail::{Entry, Tail},
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
    /// Whether a group that has so many, and was idle for so long, waits for another.
    fn waits(&self, has: usize, idle: Duration) -> bool {
        self.hasty == 0 && has < self.expected && idle < LINGER
    }

    /// A group is complete: whether it waited, and whether anybody came of it.
    fn came(&mut self, waited: bool, came: bool) {
        if self.hasty > 0 {
            self.hasty -= 1;
        } else if waited && !came {
            self.hasty = PATIENCE_LOST;
        }
    }
}

/// Appends that are committed together, planned one by one.
struct Group {
    plan: Plan,
    /// The plan's records, ready for the tail: while others are waited for there is time for it.
    entries: Vec<Entry>,
    answers: Vec<oneshot::Sender<Result<Appended, AppendFault>>>,
    bytes: usize,
    /// Why none of them can be written.
    fault: Option<LogFault>,
}

impl Group {
    fn is_full(&self) -> bool {
        self.answers.len() >= group::GROUP_APPENDS_MAX || self.bytes >= group::GROUP_BYTES_MAX
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
                    let _ = answer.send(self.durable(result).map(drop));
                    self.indexing.durable(self.head.borrow().position);
                }
                Job::StandStill { ready, released } => {
                    let _ = ready.send(self.failed.clone().map_or(Ok(()), Err));
                    // Ends with an error: the other end is dropped, never used.
                    let _ = released.recv();
                }
                Job::Append(append, answer) => {
                    let plan = Plan::after(self.head.borrow().clone());
                    let (entries, answers) = (Vec::new(), Vec::new());
                    let mut group = Group { plan, entries, answers, bytes: 0, fault: None };
                    group.fault = self.wait_for_room().err();
                    self.add(&mut group, &append, answer);
                    self.gather(&mut group, &mut company, &mut queue, &mut next);
                    let turn = gate.log();
                    // More arrive while somebody else is at the gate.
                    self.take_waiting(&mut group, &mut queue, &mut next);
                    let Group { plan, entries, answers, fault, .. } = group;
                    let result = fault.map_or_else(|| self.commit(plan, entries), Err);
                    drop(turn);
                    let result = self.durable(result).map(|plan| plan.answers);
                    company.expected = answers.len() + queue.len();
                    answer_all(answers, result);
                    // Who is answered comes first: an index is nobody's wait.
                    self.indexing.durable(self.head.borrow().position);
                }
            }
            if next.is_none() {
                next = queue.blocking_recv();
            }
        }
    }

    /// Plans one more append of a group.
    fn add(
        &mut self,
        group: &mut Group,
        append: &Append,
        answer: oneshot::Sender<Result<Appended, AppendFault>>,
    ) {
        group.answers.push(answer);
        group.bytes += group::data_bytes(append);
        if group.fault.is_some() {
            return;
        }
        let (streams, requests) = group::questions(std::slice::from_ref(append));
        match self.look_up(&streams, &requests) {
            Ok(standing) => group.plan.add(&standing, append, (self.now)()),
            Err(error) => group.fault = Some(fault(error)),
        }
        let new = &group.plan.records[group.entries.len()..];
        group.entries.extend(new.iter().cloned().map(Entry::of));
    }

    /// Adds what is in the queue, until it is empty, the group is full, or something else comes `next`.
    fn take_waiting(
        &mut self,
        group: &mut Group,
        queue: &mut mpsc::Receiver<Job>,
        next: &mut Option<Job>,
    ) {
        while next.is_none() && !group.is_full() {
            match queue.try_recv() {
                Ok(Job::Append(append, answer)) => self.add(group, &append, answer),
                Ok(other) => *next = Some(other),
                Err(_) => return,
            }
        }
    }

    /// The same, and waits for those who are about to come back.
    fn gather(
        &mut self,
        group: &mut Group,
        company: &mut Company,
        queue: &mut mpsc::Receiver<Job>,
        next: &mut Option<Job>,
    ) {
        self.take_waiting(group, queue, next);
        let (had, mut idle) = (group.answers.len(), Duration::ZERO);
        while next.is_none() && !group.is_full() && company.waits(group.answers.len(), idle) {
            let since = Instant::now();
            // Shorter than a thread takes to fall asleep and to be woken.
            std::thread::yield_now();
            idle += since.elapsed();
            self.take_waiting(group, queue, next);
        }
        company.came(idle > Duration::ZERO, group.answers.len() > had);
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
        self.head.send_replace(head);
        Ok(result)
    }

    fn restore(&mut self, records: Vec<Record>) -> Result<Moved<Plan>, LogFault> {
        self.wait_for_room()?;
        let (streams, requests) = group::restore_questions(&records);
        let standing = self.look_up(&streams, &requests).map_err(fault)?;
        let plan = group::plan_restore(self.head.borrow().clone(), &standing, records)?;
        let entries = plan.records.iter().cloned().map(Entry::of).collect();
        self.commit(plan, entries)
    }

    /// Writes and commits; gives the head when it moved. When anything fails nothing is written.
    fn commit(&mut self, plan: Plan, entries: Vec<Entry>) -> Result<Moved<Plan>, LogFault> {
        if let Some(fault) = &self.failed {
            return Err(fault.clone());
        }
        if plan.records.is_empty() {
            return Ok((None, plan));
        }
        commit(&self.connection, &plan).map_err(fault)?;
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        let requests = plan.requests.iter().map(|(key, answered)| (key.clone(), answered.clone()));
        tail.extend(entries, requests);
        drop(tail);
        for (stream, revision) in &plan.streams {
            match self.revisions.get_mut(stream) {
                Some(known) => *known = *revision,
                None => drop(self.revisions.insert(stream.clone(), *revision)),
            }
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

/// Writes and commits, all or nothing. Every group runs these statements, so they are kept.
fn commit(connection: &Connection, plan: &Plan) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let written = write(connection, plan)
        .and_then(|()| connection.prepare_cached("COMMIT")?.execute([]).map(drop));
    if written.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    written
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
