//! The committer's statements: prepared once for each connection, sent without waiting for each
//! other.

use std::collections::HashMap;

use adapters_store_kit::{
    check::mark,
    group::{Plan, RequestKey, Standing},
};
use chrono::DateTime;
use commands::ports::{Answered, Head, LogFault};
use domain::{
    kernel::StreamId,
    log::{Frontier, Record},
};
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use crate::connection::fault;

pub(crate) struct Statements {
    begin: Statement,
    head: Statement,
    streams: Statement,
    requests: Statement,
    put_events: Statement,
    put_streams: Statement,
    put_requests: Statement,
    put_nodes: Statement,
    put_head: Statement,
    notify: Statement,
    commit: Statement,
    rollback: Statement,
    record: Statement,
}

/// What was looked up under the lock.
pub(crate) struct Locked {
    pub(crate) head: Head,
    pub(crate) standing: Standing,
    numbers: HashMap<StreamId, i64>,
    last_number: i64,
}

/// A head row: position, recorded_at, frontier.
pub(crate) fn read_head(row: &Row) -> Result<Head, LogFault> {
    let damaged =
        |position, reason: &str| LogFault::Corrupt { position, reason: reason.to_owned() };
    let position = row.get::<_, i64>(0) as u64;
    let frontier = Frontier::from_bytes(row.get(2))
        .filter(|frontier| frontier.size() == position)
        .ok_or_else(|| damaged(position, "the head's tree does not read"))?;
    let recorded_at = DateTime::from_timestamp_micros(row.get(1))
        .ok_or_else(|| damaged(position, "the head's time does not read"))?;
    Ok(Head { position, recorded_at, frontier })
}

impl Statements {
    pub(crate) async fn prepare(client: &Client) -> Result<Self, LogFault> {
        let prepare = async |sql: &str| client.prepare(sql).await.map_err(fault);
        Ok(Self {
            begin: prepare("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?,
            head: prepare("SELECT position, recorded_at, frontier, streams FROM head FOR UPDATE")
                .await?,
            streams: prepare(
                "SELECT kind, id, revision, stream_no FROM streams \
                 JOIN unnest($1::text[], $2::text[]) AS asked (kind, id) USING (kind, id)",
            )
            .await?,
            requests: prepare(
                "SELECT actor, key, digest, first, last FROM requests \
                 JOIN unnest($1::text[], $2::text[]) AS asked (actor, key) USING (actor, key)",
            )
            .await?,
            put_events: prepare(
                "INSERT INTO events (position, stream_no, revision, recorded_at, mark, \
                 command_id, correlation_id, project, kind, type, actor, record) \
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], \
                 $5::bigint[], $6::uuid[], $7::uuid[], $8::uuid[], $9::text[], $10::text[], \
                 $11::text[], $12::bytea[])",
            )
            .await?,
            put_streams: prepare(
                "INSERT INTO streams (stream_no, revision, kind, id) \
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[]) \
                 ON CONFLICT (id, kind) DO UPDATE SET revision = excluded.revision",
            )
            .await?,
            put_requests: prepare(
                "INSERT INTO requests (first, last, actor, key, digest) \
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], \
                 $5::text[]) ON CONFLICT (actor, key) DO UPDATE SET last = excluded.last",
            )
            .await?,
            put_nodes: prepare(
                "INSERT INTO tree (level, idx, hash) \
                 SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])",
            )
            .await?,
            put_head: prepare(
                "UPDATE head SET position = $1, recorded_at = $2, frontier = $3, streams = $4",
            )
            .await?,
            notify: prepare("SELECT pg_notify($1, $2)").await?,
            commit: prepare("COMMIT").await?,
            rollback: prepare("ROLLBACK").await?,
            record: prepare("SELECT record FROM events WHERE position = $1").await?,
        })
    }

    /// Begins, takes the head's lock, looks up. One round trip.
    pub(crate) async fn lock(
        &self,
        client: &Client,
        streams: &[StreamId],
        requests: &[RequestKey],
    ) -> Result<Locked, LogFault> {
        let (kinds, ids): (Vec<&str>, Vec<&str>) =
            streams.iter().map(|one| (one.kind.as_str(), one.id.as_str())).unzip();
        let (actors, keys): (Vec<&str>, Vec<&str>) =
            requests.iter().map(|one| (one.0.as_str(), one.1.as_str())).unzip();
        let asked_requests = async {
            if requests.is_empty() {
                return Ok(Vec::new());
            }
            client.query(&self.requests, &[&actors, &keys]).await
        };
        let (begun, head, streams, requests) = futures::join!(
            client.execute(&self.begin, &[]),
            client.query_one(&self.head, &[]),
            async { client.query(&self.streams, &[&kinds, &ids]).await },
            asked_requests,
        );
        begun.map_err(fault)?;
        let head = head.map_err(fault)?;
        let mut locked = Locked {
            last_number: head.get(3),
            head: read_head(&head)?,
            standing: Standing::default(),
            numbers: HashMap::new(),
        };
        for row in streams.map_err(fault)? {
            let stream = StreamId { kind: row.get(0), id: row.get(1) };
            locked.standing.streams.insert(stream.clone(), row.get::<_, i64>(2) as u64);
            locked.numbers.insert(stream, row.get(3));
        }
        for row in requests.map_err(fault)? {
            let answered = Answered {
                digest: row.get(2),
                first: row.get::<_, i64>(3) as u64,
                last: row.get::<_, i64>(4) as u64,
            };
            locked.standing.requests.insert((row.get(0), row.get(1)), answered);
        }
        Ok(locked)
    }

    /// Lets go of the lock with nothing written.
    pub(crate) async fn rollback(&self, client: &Client) -> Result<(), Error> {
        client.execute(&self.rollback, &[]).await.map(|_| ())
    }

    /// Writes a plan and commits. One round trip; when it fails before the commit, the server
    /// has undone it, and when it is not known how it ended the error has no code.
    pub(crate) async fn write(
        &self,
        client: &Client,
        locked: &Locked,
        plan: &Plan,
        channel: &str,
    ) -> Result<(), Error> {
        let mut last_number = locked.last_number;
        let mut streams = Columns4::default();
        let mut numbers = HashMap::with_capacity(plan.streams.len());
        for (stream, revision) in &plan.streams {
            let number = locked.numbers.get(stream).copied().unwrap_or_else(|| {
                last_number += 1;
                last_number
            });
            numbers.insert(stream, number);
            streams.0.push(number);
            streams.1.push(*revision as i64);
            streams.2.push(&stream.kind);
            streams.3.push(&stream.id);
        }
        let events = Events::of(plan, &numbers);
        let put_events = async {
            let Events { positions, stream_nos, revisions, times, marks, .. } = &events;
            let Events { commands, correlations, projects, .. } = &events;
            let Events { kinds, types, actors, records, .. } = &events;
            client
                .execute(
                    &self.put_events,
                    &[
                        positions,
                        stream_nos,
                        revisions,
                        times,
                        marks,
                        commands,
                        correlations,
                        projects,
                        kinds,
                        types,
                        actors,
                        records,
                    ],
                )
                .await
        };
        let put_streams = async {
            let Columns4(numbers, revisions, kinds, ids) = &streams;
            client.execute(&self.put_streams, &[numbers, revisions, kinds, ids]).await
        };
        let put_requests = async {
            if plan.requests.is_empty() {
                return Ok(0);
            }
            let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
            let (mut actors, mut keys, mut digests) = (Vec::new(), Vec::new(), Vec::new());
            for ((actor, key), answered) in &plan.requests {
                firsts.push(answered.first as i64);
                lasts.push(answered.last as i64);
                actors.push(actor);
                keys.push(key);
                digests.push(&answered.digest);
            }
            let columns: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&firsts, &lasts, &actors, &keys, &digests];
            client.execute(&self.put_requests, &columns).await
        };
        let put_nodes = async {
            if plan.nodes.is_empty() {
                return Ok(0);
            }
            let levels: Vec<i16> = plan.nodes.iter().map(|node| node.level.into()).collect();
            let indexes: Vec<i64> = plan.nodes.iter().map(|node| node.index as i64).collect();
            let hashes: Vec<&[u8]> = plan.nodes.iter().map(|node| &node.hash[..]).collect();
            client.execute(&self.put_nodes, &[&levels, &indexes, &hashes]).await
        };
        let (position, time) =
            (plan.head.position as i64, plan.head.recorded_at.timestamp_micros());
        let (frontier, told) = (plan.head.frontier.to_bytes(), plan.head.position.to_string());
        // Sent in this order, without waiting; after an error the server refuses what follows and
        // the commit undoes it all.
        let (events, streams, requests, nodes, head, notified, committed) = futures::join!(
            put_events,
            put_streams,
            put_requests,
            put_nodes,
            async {
                client.execute(&self.put_head, &[&position, &time, &frontier, &last_number]).await
            },
            async { client.execute(&self.notify, &[&channel, &told]).await },
            client.execute(&self.commit, &[]),
        );
        for result in [events, streams, requests, nodes, head, notified, committed] {
            result?;
        }
        Ok(())
    }

    /// The bytes at a position, under the head's lock: whoever had the lock before has ended.
    pub(crate) async fn resolve(
        &self,
        client: &Client,
        position: i64,
    ) -> Result<Option<Vec<u8>>, LogFault> {
        let (begun, head, record, ended) = futures::join!(
            client.execute(&self.begin, &[]),
            client.query_one(&self.head, &[]),
            async { client.query_opt(&self.record, &[&position]).await },
            client.execute(&self.rollback, &[]),
        );
        begun.map_err(fault)?;
        head.map_err(fault)?;
        ended.map_err(fault)?;
        Ok(record.map_err(fault)?.map(|row| row.get(0)))
    }
}

#[derive(Default)]
struct Columns4<'a>(Vec<i64>, Vec<i64>, Vec<&'a String>, Vec<&'a String>);

/// Rows of events, by column.
struct Events<'a> {
    positions: Vec<i64>,
    stream_nos: Vec<i64>,
    revisions: Vec<i64>,
    times: Vec<i64>,
    marks: Vec<i64>,
    commands: Vec<Uuid>,
    correlations: Vec<Uuid>,
    projects: Vec<Option<Uuid>>,
    kinds: Vec<&'a str>,
    types: Vec<&'a str>,
    actors: Vec<&'a str>,
    records: Vec<&'a [u8]>,
}

impl<'a> Events<'a> {
    fn of(plan: &'a Plan, numbers: &HashMap<&StreamId, i64>) -> Self {
        let records = &plan.records;
        Self {
            positions: records.iter().map(|one| one.position() as i64).collect(),
            stream_nos: records.iter().map(|one| numbers[&one.stream()]).collect(),
            revisions: records.iter().map(|one| one.revision() as i64).collect(),
            times: records.iter().map(|one| one.recorded_at().timestamp_micros()).collect(),
            marks: plan.leaves.iter().map(mark).collect(),
            commands: records.iter().map(Record::command_id).collect(),
            correlations: records.iter().map(Record::correlation_id).collect(),
            projects: records.iter().map(Record::project).collect(),
            kinds: records.iter().map(Record::kind).collect(),
            types: records.iter().map(Record::event_type).collect(),
            actors: records.iter().map(Record::actor).collect(),
            records: records.iter().map(Record::frame).collect(),
        }
    }
}
