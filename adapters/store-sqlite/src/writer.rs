//! The one thread that writes the log: takes what is waiting as one group, commits it once, and
//! answers each.

use std::{collections::HashMap, time::Instant};

use adapters_store_kit::{
    check::mark,
    group::{self, Plan, RequestKey, Standing},
};
use commands::ports::{Answered, Append, AppendFault, Appended, Head, LogFault};
use domain::{kernel::StreamId, log::Record};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::{Gate, fault};

/// What a caller waits for.
pub(crate) enum Job {
    Append(Append, oneshot::Sender<Result<Appended, AppendFault>>),
    Restore(Vec<Record>, oneshot::Sender<Result<(), LogFault>>),
}

/// Streams whose number and revision are kept in memory; some 10 MB.
const STREAMS_KEPT_MAX: usize = 50_000;
/// Names (types, actors, kinds, projects) kept in memory.
const NAMES_KEPT_MAX: usize = 20_000;

pub(crate) struct Writer {
    connection: Connection,
    now: group::Now,
    head: watch::Sender<Head>,
    /// As committed: number and revision. Dropped when it grows too large, or a commit fails.
    streams: HashMap<StreamId, (i64, u64)>,
    names: HashMap<String, i64>,
}

impl Writer {
    pub(crate) fn new(connection: Connection, now: group::Now, head: watch::Sender<Head>) -> Self {
        Self { connection, now, head, streams: HashMap::new(), names: HashMap::new() }
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
        let Self { connection, streams: kept, names, .. } = self;
        if kept.len() > STREAMS_KEPT_MAX {
            kept.clear();
        }
        if names.len() > NAMES_KEPT_MAX {
            names.clear();
        }
        let result = (|| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(fault)?;
            let standing = look_up(&transaction, kept, streams, requests).map_err(fault)?;
            let plan = plan(&standing)?;
            if plan.records.is_empty() {
                return Ok(plan);
            }
            write(&transaction, kept, names, &plan).map_err(fault)?;
            transaction.commit().map_err(fault)?;
            Ok(plan)
        })();
        match &result {
            Ok(plan) if plan.records.is_empty() => {}
            Ok(plan) => {
                self.head.send_replace(plan.head.clone());
            }
            Err(_) => {
                self.streams.clear();
                self.names.clear();
            }
        }
        result
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
    kept: &mut HashMap<StreamId, (i64, u64)>,
    streams: &[StreamId],
    requests: &[RequestKey],
) -> rusqlite::Result<Standing> {
    let mut standing = Standing::default();
    for stream in streams {
        let known = match kept.get(stream) {
            Some(known) => Some(*known),
            None => connection
                .prepare_cached(
                    "SELECT stream_no, revision FROM streams WHERE kind = ? AND id = ?",
                )?
                .query_row(params![stream.kind, stream.id], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })
                .optional()?
                .inspect(|known| {
                    kept.insert(stream.clone(), *known);
                }),
        };
        if let Some((_, revision)) = known {
            standing.streams.insert(stream.clone(), revision);
        }
    }
    for key in requests {
        if let Some(answered) = request(connection, &key.0, &key.1)? {
            standing.requests.insert(key.clone(), answered);
        }
    }
    Ok(standing)
}

/// What a request came to.
pub(crate) fn request(
    connection: &Connection,
    actor: &str,
    key: &str,
) -> rusqlite::Result<Option<Answered>> {
    connection
        .prepare_cached("SELECT digest, first, last FROM requests WHERE actor = ? AND key = ?")?
        .query_row([actor, key], |row| {
            Ok(Answered {
                digest: row.get(0)?,
                first: row.get::<_, i64>(1)? as u64,
                last: row.get::<_, i64>(2)? as u64,
            })
        })
        .optional()
}

fn write(
    connection: &Connection,
    kept: &mut HashMap<StreamId, (i64, u64)>,
    names: &mut HashMap<String, i64>,
    plan: &Plan,
) -> rusqlite::Result<()> {
    {
        let mut update =
            connection.prepare_cached("UPDATE streams SET revision = ? WHERE stream_no = ?")?;
        let mut insert = connection
            .prepare_cached("INSERT INTO streams (kind, id, revision) VALUES (?, ?, ?)")?;
        for (stream, revision) in &plan.streams {
            let number = if let Some((number, _)) = kept.get(stream) {
                update.execute(params![*revision as i64, number])?;
                *number
            } else {
                insert.insert(params![stream.kind, stream.id, *revision as i64])?
            };
            kept.insert(stream.clone(), (number, *revision));
        }
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO events (position, stream_no, revision, kind_no, type_no, actor_no, \
         project_no, command, correlation, mark, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    for record in &plan.records {
        let stream_no = kept[&record.stream()].0;
        let project =
            record.project().map(|id| name(connection, names, &id.to_string())).transpose()?;
        insert.execute(params![
            record.position() as i64,
            stream_no,
            record.revision() as i64,
            name(connection, names, record.kind())?,
            name(connection, names, record.event_type())?,
            name(connection, names, record.actor())?,
            project,
            short(record.command_id()),
            short(record.correlation_id()),
            mark(&record.leaf()),
            record.frame(),
        ])?;
    }
    for ((actor, key), answered) in &plan.requests {
        connection
            .prepare_cached(
                "INSERT INTO requests VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT DO UPDATE SET last = excluded.last",
            )?
            .execute(params![
                actor,
                key,
                answered.digest,
                answered.first as i64,
                answered.last as i64
            ])?;
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

/// The first eight bytes of an id: enough to find a few, which are then compared in full. Of a
/// UUIDv7 they are its time, so neighbours in time are neighbours in the index.
pub(crate) fn short(id: Uuid) -> i64 {
    id.as_u64_pair().0 as i64
}

fn name(
    connection: &Connection,
    names: &mut HashMap<String, i64>,
    name: &str,
) -> rusqlite::Result<i64> {
    if let Some(number) = names.get(name) {
        return Ok(*number);
    }
    let number = match connection
        .prepare_cached("SELECT no FROM names WHERE name = ?")?
        .query_row([name], |row| row.get(0))
        .optional()?
    {
        Some(number) => number,
        None => connection.prepare_cached("INSERT INTO names (name) VALUES (?)")?.insert([name])?,
    };
    names.insert(name.to_owned(), number);
    Ok(number)
}
