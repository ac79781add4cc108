//! Lines to a log: verified as a whole before the first record is written, and again as it is read
//! the second time.

use domain::log::{Check, Position, Record, Verdict, Verifier, VerifierKey, Witnessed, hex};

use super::{Source, TransferFault};
use crate::ports::EventLog;

/// Records restored, or compared, at once.
const BATCH: usize = 500;

/// What an import came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The log's head is at this position now.
    pub position: Position,
    /// The records up to here were there before: the import went on after them.
    pub resumed_after: Position,
    /// The root over all, in hex: the export's.
    pub root: String,
}

/// Reads an export to its end and says whether it is what it was. Pure but for reading: this is
/// the offline verifier. Tells `progress` how many records it has read.
pub async fn verify(
    source: &mut dyn Source,
    witness: Option<Witnessed>,
    key: Option<(VerifierKey, Check)>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Verdict, TransferFault> {
    source.rewind().await?;
    let mut verifier = Verifier::new(witness, key);
    while let Some(line) = source.line().await? {
        verifier.feed(&line);
        if verifier.records().is_multiple_of(BATCH as u64) {
            progress(verifier.records());
        }
    }
    Ok(verifier.finish())
}

/// Takes over an export. Nothing is written unless the whole export verifies (with the key, where
/// one is given) and the log is empty or a prefix of it, record for record: then it goes on after
/// that. Afterwards the log's head is the export's, or this is an error. Tells `progress` how many
/// records it has read: first to verify them, without an end, then to take them over, of how many.
pub async fn import(
    log: &dyn EventLog,
    source: &mut dyn Source,
    key: Option<(VerifierKey, Check)>,
    progress: &(dyn Fn(u64, Option<u64>) + Send + Sync),
) -> Result<Imported, TransferFault> {
    let verdict = verify(source, None, key.clone(), &|read| progress(read, None)).await?;
    if verdict.finding.is_some() {
        return Err(TransferFault::Refused(Box::new(verdict)));
    }
    let resumed_after = log.head().await?.position;
    if resumed_after > verdict.records {
        return Err(TransferFault::NotEmpty(verdict.records + 1));
    }

    source.rewind().await?;
    let mut verifier = Verifier::new(None, key);
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(line) = source.line().await? {
        let record = verifier.feed(&line);
        if verifier.finding().is_some() {
            return Err(TransferFault::Changed(verifier.records()));
        }
        let Some(record) = record else { continue };
        // A batch is either all compared or all restored.
        let ends_prefix = record.position() == resumed_after;
        batch.push(record);
        if batch.len() == BATCH || ends_prefix {
            take_over(log, std::mem::take(&mut batch), resumed_after).await?;
            progress(verifier.records(), Some(verdict.records));
        }
    }
    take_over(log, batch, resumed_after).await?;

    let head = log.head().await?;
    let root = hex(&head.frontier.root());
    let second = verifier.finish();
    if second != verdict || (head.position, &root) != (verdict.records, &verdict.root) {
        return Err(TransferFault::Changed(verdict.records));
    }
    Ok(Imported { position: head.position, resumed_after, root })
}

/// Compares records the log has, restores those it has not.
async fn take_over(
    log: &dyn EventLog,
    batch: Vec<Record>,
    resumed_after: Position,
) -> Result<(), TransferFault> {
    let Some(first) = batch.first().map(Record::position) else { return Ok(()) };
    if first > resumed_after {
        return Ok(log.restore(batch).await?);
    }
    let there = log.read(first - 1, batch.len()).await?;
    match batch
        .iter()
        .zip(there.iter().map(Some).chain(std::iter::repeat(None)))
        .find(|(record, there)| Some(*record) != *there)
    {
        None => Ok(()),
        Some((record, _)) => Err(TransferFault::NotEmpty(record.position())),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
