//! A log to lines, in bounded memory.

use domain::log::{ExportLine, Frontier, Sign, SignedHead};

use super::{Sink, TransferFault};
use crate::ports::{EventLog, LogFault};

/// Records read at once.
const BATCH: usize = 500;
/// A chunk is handed on when it is this long, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// Writes every record there is at this moment, and the signed head over exactly those; records
/// that come meanwhile are left out. Tells `progress` the position it has written and the last.
///
/// The root is made again from the records' bytes: a store that no longer fits its own head is a
/// [`LogFault::Corrupt`], and no head is signed.
pub async fn export(
    log: &dyn EventLog,
    signer: &dyn Sign,
    sink: &mut dyn Sink,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<SignedHead, TransferFault> {
    let head = log.head().await?;
    let size = head.position;
    let origin = signer.key().name().to_owned();
    let mut frontier = Frontier::default();
    let mut chunk = Vec::new();
    push(&mut chunk, &ExportLine::Header { origin, size });
    while frontier.size() < size {
        let after = frontier.size();
        let limit = usize::try_from(size - after).unwrap_or(BATCH).min(BATCH);
        let records = log.read(after, limit).await?;
        if records.is_empty() {
            return Err(TransferFault::Changed(after + 1));
        }
        for record in records {
            if record.position() != frontier.size() + 1 {
                return Err(TransferFault::Changed(frontier.size() + 1));
            }
            let line = ExportLine::record(&record);
            if let ExportLine::Record { leaf, .. } = &line {
                frontier.push(*leaf, |_| {});
            }
            push(&mut chunk, &line);
            if chunk.len() >= CHUNK_BYTES {
                sink.write(std::mem::take(&mut chunk)).await?;
            }
        }
        progress(frontier.size(), size);
    }
    if frontier != head.frontier {
        let reason = "the records' root is not that of the head".to_owned();
        return Err(LogFault::Corrupt { position: size, reason }.into());
    }
    let signed = SignedHead::sign(signer, size, frontier.root());
    push(&mut chunk, &ExportLine::Head(signed.clone()));
    sink.write(chunk).await?;
    Ok(signed)
}

fn push(chunk: &mut Vec<u8>, line: &ExportLine) {
    chunk.extend_from_slice(&line.bytes());
    chunk.push(b'\n');
}
