//! Folding the whole log again and comparing with the live rows.

use std::{collections::HashSet, sync::Arc};

use commands::ports::{LogFault, Verified, ViewFault};
use domain::log::{Position, Record};
use projections::view::{FoldFault, View};

use super::{
    digest::{BUCKETS, Buckets, Chains, Link, bucket},
    engine::Inner,
    fold::{Rows, Touch, Version, touches},
    list::{Found, selected},
    shards::Shards,
    sql::{Sql, SqlValue},
    store::{Snapshot, ViewStore},
    table::{Table, Tier},
};

/// Live rows in memory in one pass: some 600 MB at 3 KB a row, with the chains of both sides.
const ROWS_IN_PASS: u64 = 200_000;
/// Rows read from a table at once.
const ROWS_AT_ONCE: i64 = 2_000;

impl<S: ViewStore> Inner<S> {
    /// See [`commands::ports::Views::verify`]. Memory is bounded by passes: each looks at some of
    /// the buckets of keys only.
    pub(crate) async fn verify(
        &self,
        name: &str,
        threads: usize,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<Verified, ViewFault> {
        let view = self.entry(name)?.view;
        let Some((mut snapshot, registered)) = self.store.snapshot(view.name()).await? else {
            return Err(ViewFault::Behind { position: 0, wanted: 1 });
        };
        let table = registered.table;
        let at = registered.checkpoint.position;
        if (Table { generation: table.generation, ..Table::of(view, 0) }) != table {
            return Err(ViewFault::Behind { position: 0, wanted: at });
        }
        let mut sql = Sql::new(S::DIALECT, format!("SELECT count(*) FROM {} WHERE ", table.name()));
        sql.push(Tier::Live.condition());
        let live_rows = match snapshot.select(sql).await?.pop().and_then(|mut row| row.pop()) {
            Some(SqlValue::Integer(count)) => count as u64,
            _ => 0,
        };
        drop(snapshot);
        let passes = (live_rows / ROWS_IN_PASS + 1).min(BUCKETS as u64) as usize;
        let threads = threads.clamp(1, 64);

        let (mut live, mut replayed) = (Buckets::default(), Buckets::default());
        let mut rows = 0;
        let mut differs: Option<String> = None;
        for pass in 0..passes {
            let buckets = pass * BUCKETS / passes..(pass + 1) * BUCKETS / passes;
            let in_pass = move |key: &str| passes == 1 || buckets.contains(&bucket(key));
            // What is valid at a position never changes: a snapshot is only held while it is read.
            let table_side = async {
                let mut snapshot = self.store.snapshot_of(&table).await?;
                chains_of_table::<S>(&mut snapshot, &table, at, &in_pass, &mut rows)
                    .await
                    .map_err(ViewFault::from)
            };
            let log_side = self.chains_of_log(view, at, threads, &in_pass, progress);
            let (of_table, of_log) = tokio::try_join!(table_side, log_side)?;
            live.set(&of_table);
            replayed.set(&of_log);
            let other = of_table
                .iter()
                .find(|(key, chain)| of_log.get(*key) != Some(chain))
                .into_iter()
                .chain(of_log.iter().find(|(key, chain)| of_table.get(*key) != Some(chain)))
                .map(|(key, _)| key)
                .min();
            if let Some(key) = other
                && differs.as_ref().is_none_or(|first| key < first)
            {
                differs = Some(key.clone());
            }
        }
        let first_difference = match differs {
            Some(key) => Some(self.describe(view, &table, at, &key).await?),
            None => None,
        };
        Ok(Verified {
            view: view.name().to_owned(),
            position: at,
            rows,
            live: live.digest(),
            replayed: replayed.digest(),
            first_difference,
        })
    }

    /// The chains of the log's rows, folded with this many threads.
    async fn chains_of_log(
        &self,
        view: &'static dyn View,
        until: Position,
        threads: usize,
        in_pass: &(impl Fn(&str) -> bool + Clone + Send + Sync + 'static),
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<Chains, ViewFault> {
        let shards = Shards::start((0..threads).map(|_| Shard::of(view)))?;
        let mut after = 0;
        let mut ahead = Some(self.ahead(0));
        while let Some(reading) = ahead.take() {
            let records =
                reading.await.map_err(|error| LogFault::Unexpected(error.to_string()))??;
            let records = upto(records, until);
            let Some(last) = records.last() else { break };
            after = last.position();
            if after < until {
                ahead = Some(self.ahead(after));
            }
            let touched = shards.touches(view, &records, in_pass).await?;
            let fold = touched.into_iter().map(|touched| {
                let records = Arc::clone(&records);
                move |shard: &mut Shard| shard.fold(&touched, &records)
            });
            for folded in shards.each(fold).await? {
                folded.map_err(|fault| LogFault::Unexpected(fault.to_string()))?;
            }
            progress(after);
        }
        if after < until {
            return Err(LogFault::Unexpected(format!(
                "the log ends at {after}, before the view's position {until}"
            ))
            .into());
        }
        let end = (0..threads).map(|_| Shard::end);
        Ok(shards.each(end).await?.into_iter().flatten().collect())
    }

    fn ahead(&self, after: Position) -> tokio::task::JoinHandle<Result<Arc<[Record]>, LogFault>> {
        let feed = Arc::clone(&self.feed);
        tokio::spawn(async move { feed.read(after).await })
    }

    /// Says which version of a row differs.
    async fn describe(
        &self,
        view: &'static dyn View,
        table: &Table,
        at: Position,
        key: &str,
    ) -> Result<String, ViewFault> {
        let mut rows = Rows::new(view, usize::MAX);
        let mut replayed: Vec<Version> = Vec::new();
        let mut after = 0;
        while after < at {
            let records = upto(self.feed.read(after).await?, at);
            let Some(last) = records.last() else { break };
            after = last.position();
            for (index, key) in
                touches(view, &records, 0).into_iter().filter(|(_, one)| **one == *key)
            {
                rows.apply(&key, &records[index])
                    .map_err(|fault| LogFault::Unexpected(fault.to_string()))?;
            }
            replayed.extend(rows.flush_ended(&mut HashSet::new()).inserts);
        }
        replayed.extend(rows.drain(usize::MAX).unwrap_or_default());
        let mut sql = Sql::new(
            S::DIALECT,
            format!("SELECT {} FROM {} WHERE key = ", selected(table, S::DIALECT), table.name()),
        );
        sql.bind(key).push(" AND from_position <= ").bind(at).push(" ORDER BY from_position");
        let mut live = Vec::new();
        let mut snapshot = self.store.snapshot_of(table).await?;
        for row in snapshot.select(sql).await? {
            let Found { key, from, to, columns, body } = Found::read(table, row)?;
            let to = to.filter(|to| *to <= at);
            live.push(Version { key, from, to, columns, body });
        }
        let pair = (0..live.len().max(replayed.len()))
            .map(|place| (live.get(place), replayed.get(place)))
            .find(|(live, replayed)| live != replayed);
        Ok(match pair {
            Some((Some(live), Some(replayed))) if live.from != replayed.from => format!(
                "{key}: a version from position {} where the log gives one from {}",
                live.from, replayed.from
            ),
            Some((Some(live), Some(replayed))) => {
                let what = if live.to != replayed.to {
                    "its end"
                } else if live.body != replayed.body {
                    "its body"
                } else {
                    "a column"
                };
                format!("{key}: the version from position {} differs in {what}", live.from)
            }
            Some((Some(live), None)) => {
                format!("{key}: the log gives no version from position {}", live.from)
            }
            Some((None, Some(replayed))) => {
                format!("{key}: the version from position {} is missing", replayed.from)
            }
            _ => key.to_owned(),
        })
    }
}

fn upto(records: Arc<[Record]>, until: Position) -> Arc<[Record]> {
    match records.iter().position(|record| record.position() > until) {
        Some(end) => records[..end].into(),
        None => records,
    }
}

/// Some rows of the log, and the chains of those that have ended.
struct Shard {
    rows: Rows,
    chains: Chains,
}

impl Shard {
    fn of(view: &'static dyn View) -> Self {
        Self { rows: Rows::new(view, usize::MAX), chains: Chains::new() }
    }

    fn fold(&mut self, touched: &[Touch], records: &[Record]) -> Result<(), FoldFault> {
        for (index, key) in touched {
            self.rows.apply(key, &records[*index])?;
        }
        let ended = self.rows.flush_ended(&mut HashSet::new());
        self.add(&ended.inserts);
        Ok(())
    }

    fn add(&mut self, versions: &[Version]) {
        for Version { key, from, to, columns, body } in versions {
            Link { key, from: *from, to: *to, columns, body }.add_to(&mut self.chains);
        }
    }

    /// The chains, with what is still valid.
    fn end(&mut self) -> Chains {
        let valid = self.rows.drain(usize::MAX).unwrap_or_default();
        self.add(&valid);
        std::mem::take(&mut self.chains)
    }
}

/// The chains of a table's rows as they were at a position.
async fn chains_of_table<S: ViewStore>(
    snapshot: &mut S::Snapshot,
    table: &Table,
    at: Position,
    in_pass: &(impl Fn(&str) -> bool + Sync),
    rows: &mut u64,
) -> Result<Chains, LogFault> {
    let mut chains = Chains::new();
    let mut last: Option<(String, Position)> = None;
    loop {
        let mut sql = Sql::new(
            S::DIALECT,
            format!(
                "SELECT {} FROM {} WHERE from_position <= ",
                selected(table, S::DIALECT),
                table.name()
            ),
        );
        sql.bind(at);
        if let Some((key, from)) = &last {
            sql.push(" AND (key, from_position) > (").bind(key.as_str()).push(", ").bind(*from);
            sql.push(")");
        }
        sql.push(" ORDER BY key, from_position LIMIT ").bind(ROWS_AT_ONCE);
        let page = snapshot.select(sql).await?;
        let full = page.len() == ROWS_AT_ONCE as usize;
        for row in page {
            let Found { key, from, to, columns, body } = Found::read(table, row)?;
            last = Some((key.clone(), from));
            if in_pass(&key) {
                *rows += 1;
                let to = to.filter(|to| *to <= at);
                Link { key: &key, from, to, columns: &columns, body: &body }.add_to(&mut chains);
            }
        }
        if !full {
            return Ok(chains);
        }
    }
}
