//! Reading the log once for all views: views that are near each other share batches.

use std::{collections::VecDeque, sync::Arc};

use commands::ports::{EventLog, LogFault};
use domain::log::{Position, Record};
use tokio::sync::Mutex;

/// Most records in one batch.
const RECORDS: usize = 4_096;
/// Bytes a batch is meant to have at most; after large records the next batch has fewer.
const BYTES: usize = 16 << 20;
/// Batches kept for views that are a little behind.
const KEPT: usize = 4;

/// Records of the log, in batches.
pub(crate) struct Feed {
    log: Arc<dyn EventLog>,
    kept: Mutex<Kept>,
}

struct Kept {
    batches: VecDeque<Arc<[Record]>>,
    limit: usize,
}

impl Feed {
    pub(crate) fn new(log: Arc<dyn EventLog>) -> Self {
        let kept = Kept { batches: VecDeque::new(), limit: RECORDS };
        Self { log, kept: Mutex::new(kept) }
    }

    pub(crate) fn log(&self) -> &Arc<dyn EventLog> {
        &self.log
    }

    /// Some records after a position, without a hole; none when there are none yet.
    pub(crate) async fn read(&self, after: Position) -> Result<Arc<[Record]>, LogFault> {
        // One reader at a time: who waits finds the batch that the one before it read.
        let mut kept = self.kept.lock().await;
        let next = after + 1;
        for batch in &kept.batches {
            let (Some(first), Some(last)) = (batch.first(), batch.last()) else { continue };
            if first.position() == next {
                return Ok(Arc::clone(batch));
            }
            if (first.position()..=last.position()).contains(&next) {
                let skip = (next - first.position()) as usize;
                return Ok(batch[skip..].into());
            }
        }
        let records = self.log.read(after, kept.limit).await?;
        for (record, expected) in records.iter().zip(next..) {
            if record.position() != expected {
                return Err(LogFault::Corrupt {
                    position: expected,
                    reason: format!("the log goes on with {} in its place", record.position()),
                });
            }
        }
        let records: Arc<[Record]> = records.into();
        if !records.is_empty() {
            let bytes: usize = records.iter().map(|record| record.frame().len()).sum();
            let average = bytes / records.len() + 1;
            kept.limit = (BYTES / average).clamp(16, RECORDS);
            if kept.batches.len() == KEPT {
                kept.batches.pop_front();
            }
            kept.batches.push_back(Arc::clone(&records));
        }
        Ok(records)
    }
}
