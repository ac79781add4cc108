//! Building a table from nothing, beside the live one: no indexes, large batches, several shards
//! of keys at once; then the indexes, then what was appended meanwhile.

use std::{collections::HashSet, sync::Arc};

use commands::ports::LogFault;
use domain::log::{Position, Record};
use projections::view::View;

use super::{
    feed::Feed,
    fold::{Rows, Version, key_hash},
    project::{Stop, fold_shards, join, load, off_thread, sharded_touches},
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
    let mut shards: Vec<Rows> = (0..count).map(|_| Rows::new(view, bound / count)).collect();
    let mut spilled: HashSet<u64> = HashSet::new();
    let mut keys_indexed = false;
    let mut checkpoint = Checkpoint::default();
    let mut writing: Option<Writing> = None;
    let mut reading = read_ahead(feed, 0);
    loop {
        let records = ended(reading.await)??;
        let Some(last) = records.last() else { break };
        checkpoint = Checkpoint { position: last.position(), leaf: last.leaf() };
        reading = read_ahead(feed, checkpoint.position);

        let shared = Arc::clone(&records);
        let touched = off_thread(move || sharded_touches(view, &shared, count, &|_| true)).await?;
        if !spilled.is_empty() {
            wait(&mut writing).await?;
            for (rows, touched) in shards.iter_mut().zip(&touched) {
                let missing = touched
                    .iter()
                    .map(|(_, key)| key.as_ref())
                    .filter(|key| !rows.knows(key) && spilled.contains(&key_hash(key)));
                for (key, version) in load(&**store, table, missing.collect()).await? {
                    rows.learn(&key, version)?;
                }
            }
        }
        let (kept, folded) = off_thread(move || {
            let folded = fold_shards(&mut shards, &touched, &records, |rows| {
                let mut spilled = HashSet::new();
                (rows.flush_ended(&mut spilled), spilled)
            });
            (shards, folded)
        })
        .await?;
        shards = kept;
        let mut batch = Batch::default();
        for (part, gone) in folded.map_err(Stop::Fold)? {
            batch = join(batch, part);
            spilled.extend(gone);
        }
        wait(&mut writing).await?;
        if !spilled.is_empty() && !keys_indexed {
            store.index_keys(table).await?;
            keys_indexed = true;
        }
        writing = Some(write(store, table, batch));
        progress(checkpoint.position);
    }
    wait(&mut writing).await?;
    loop {
        let (kept, parts) = off_thread(move || {
            let parts = drain_shards(&mut shards);
            (shards, parts)
        })
        .await?;
        shards = kept;
        let Some(inserts) = parts else { break };
        wait(&mut writing).await?;
        writing = Some(write(store, table, Batch { closes: Vec::new(), inserts }));
    }
    wait(&mut writing).await?;
    store.finish(table, checkpoint).await?;
    Ok(checkpoint)
}

/// Some rows of each shard that are there; none when no shard has any.
fn drain_shards(shards: &mut [Rows]) -> Option<Vec<Version>> {
    let most = ROWS_AT_ONCE / shards.len();
    let parts: Vec<Option<Vec<Version>>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            shards.iter_mut().map(|rows| scope.spawn(move || rows.drain(most))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let some = parts.iter().any(Option::is_some);
    some.then(|| parts.into_iter().flatten().flatten().collect())
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
