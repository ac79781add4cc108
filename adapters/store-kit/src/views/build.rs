//! Building a table from nothing, beside the live one: no indexes, large batches, several shards
//! of keys at once; then the indexes, then what was appended meanwhile.

use std::{collections::HashSet, sync::Arc};

use commands::ports::LogFault;
use domain::log::{Position, Record};
use projections::view::{FoldFault, View};

use super::{
    feed::Feed,
    fold::{Rows, Touch, Version, key_hash},
    project::{Stop, join, load},
    shards::Shards,
    store::{Batch, Checkpoint, ViewStore},
    table::Table,
};

/// Rows in memory while a table is built, over all its shards: some 400 MB at 2 KB each. What is
/// over it is written and read again when it is touched again.
pub(crate) const ROWS_KEPT: usize = 200_000;
/// Rows in one write.
const ROWS_AT_ONCE: usize = 8_192;

/// Threads a build folds with.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8)
}

/// Fills a new table with all the log has, makes its indexes, and gives its checkpoint. Until
/// [`ViewStore::switch`] nobody reads it; when this fails half way, it is dropped.
pub(crate) async fn build<S: ViewStore>(
    store: &Arc<S>,
    feed: &Arc<Feed>,
    view: &'static dyn View,
    table: &Table,
    bound: usize,
    progress: &(dyn Fn(Position) + Send + Sync),
) -> Result<Checkpoint, Stop> {
    let made = fill(store, feed, view, table, bound, progress).await;
    if made.is_err() {
        // What cannot be dropped now is dropped at the next start.
        if let Err(error) = store.remove(table).await {
            tracing::warn!(table = table.name(), %error, "a table that was being built stays");
        }
    }
    made
}

/// The rows of one shard, and which of them were let go: by the hash of their key.
struct Shard {
    rows: Rows,
    spilled: HashSet<u64>,
}

impl Shard {
    /// The keys of rows that the table has and that are not in memory.
    fn missing(&self, touched: &[Touch]) -> Vec<Arc<str>> {
        let is_missing =
            |key: &Arc<str>| !self.rows.knows(key) && self.spilled.contains(&key_hash(key));
        touched.iter().map(|(_, key)| key).filter(|key| is_missing(key)).cloned().collect()
    }

    /// Folds some records; gives the versions that go out by it, and whether any row was let go so far.
    fn fold(
        &mut self,
        loaded: Vec<(String, Option<Version>)>,
        touched: &[Touch],
        records: &[Record],
    ) -> Result<(Batch, bool), FoldFault> {
        for (key, version) in loaded {
            self.rows.learn(&key, version)?;
        }
        for (index, key) in touched {
            self.rows.apply(key, &records[*index])?;
        }
        let batch = self.rows.flush_ended(&mut self.spilled);
        Ok((batch, !self.spilled.is_empty()))
    }
}

async fn fill<S: ViewStore>(
    store: &Arc<S>,
    feed: &Arc<Feed>,
    view: &'static dyn View,
    table: &Table,
    bound: usize,
    progress: &(dyn Fn(Position) + Send + Sync),
) -> Result<Checkpoint, Stop> {
    store.create(table, false).await?;
    let count = threads();
    let rows = (0..count).map(|_| Rows::new(view, bound / count));
    let shards = Shards::start(rows.map(|rows| Shard { rows, spilled: HashSet::new() }))?;
    let mut keys_indexed = false;
    let mut checkpoint = Checkpoint::default();
    let mut writing: Option<Writing> = None;
    let mut reading = read_ahead(feed, 0);
    loop {
        let records = ended(reading.await)??;
        let Some(last) = records.last() else { break };
        checkpoint = Checkpoint { position: last.position(), leaf: last.leaf() };
        reading = read_ahead(feed, checkpoint.position);

        let mut touched = shards.touches(view, &records, &|_| true).await?;
        let mut loaded: Vec<Vec<(String, Option<Version>)>> = Vec::new();
        loaded.resize_with(count, Vec::new);
        if keys_indexed {
            let look = touched.into_iter().map(|touched| {
                move |shard: &mut Shard| {
                    let missing = shard.missing(&touched);
                    (touched, missing)
                }
            });
            let looked: Vec<(Vec<Touch>, Vec<Arc<str>>)> = shards.each(look).await?;
            wait(&mut writing).await?;
            for ((_, missing), loaded) in looked.iter().zip(&mut loaded) {
                let missing = missing.iter().map(AsRef::as_ref).collect();
                *loaded = load(&**store, table, missing).await?;
            }
            touched = looked.into_iter().map(|(touched, _)| touched).collect();
        }
        let fold = touched.into_iter().zip(loaded).map(|(touched, loaded)| {
            let records = Arc::clone(&records);
            move |shard: &mut Shard| shard.fold(loaded, &touched, &records)
        });
        let mut batch = Batch::default();
        let mut any_spilled = false;
        for folded in shards.each(fold).await? {
            let (part, spilled) = folded?;
            batch = join(batch, part);
            any_spilled |= spilled;
        }
        wait(&mut writing).await?;
        if any_spilled && !keys_indexed {
            store.index_keys(table).await?;
            keys_indexed = true;
        }
        writing = Some(write(store, table, batch));
        progress(checkpoint.position);
    }
    wait(&mut writing).await?;
    loop {
        let drain =
            (0..count).map(|_| move |shard: &mut Shard| shard.rows.drain(ROWS_AT_ONCE / count));
        let parts = shards.each(drain).await?;
        if parts.iter().all(Option::is_none) {
            break;
        }
        let inserts = parts.into_iter().flatten().flatten().collect();
        wait(&mut writing).await?;
        writing = Some(write(store, table, Batch { closes: Vec::new(), inserts }));
    }
    wait(&mut writing).await?;
    store.finish(table, checkpoint).await?;
    Ok(checkpoint)
}

type Writing = tokio::task::JoinHandle<Result<(), LogFault>>;

fn write<S: ViewStore>(store: &Arc<S>, table: &Table, batch: Batch) -> Writing {
    let (store, table) = (Arc::clone(store), table.clone());
    tokio::spawn(
        async move { if batch.is_empty() { Ok(()) } else { store.fill(&table, batch).await } },
    )
}

async fn wait(writing: &mut Option<Writing>) -> Result<(), LogFault> {
    match writing.take() {
        Some(writing) => ended(writing.await)?,
        None => Ok(()),
    }
}

fn read_ahead(
    feed: &Arc<Feed>,
    after: Position,
) -> tokio::task::JoinHandle<Result<Arc<[Record]>, LogFault>> {
    let feed = Arc::clone(feed);
    tokio::spawn(async move { feed.read(after).await })
}

fn ended<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, LogFault> {
    result.map_err(|error| LogFault::Unexpected(format!("a task did not end: {error}")))
}
