//! Publishing the store's heads to the witness file, and comparing the store with what was
//! published.

use std::{path::Path, sync::Arc, time::Duration};

use commands::{
    ports::{Clock, EventLog, LogFault},
    transfer::{ProofFault, root_at},
};
use domain::log::{Check, Hash, Position, Sign, SignedHead, WitnessEntry};
use tokio::sync::Mutex;

use super::witness::{WitnessFile, WitnessFileFault, read_witness};

/// Records read at once.
const BATCH: usize = 1_000;
/// At most one entry in this time, however much is appended.
const INTERVAL: Duration = Duration::from_secs(1);

/// The witness cannot go on. The last two mean that the past of the store was changed: nothing may
/// be appended before a person has looked.
#[derive(Debug, thiserror::Error)]
pub enum WitnessFault {
    /// The file failed.
    #[error(transparent)]
    File(#[from] WitnessFileFault),
    /// The log failed.
    #[error("the log failed under the witness")]
    Log(#[from] LogFault),
    /// Every record of the store is one the witness saw, but the last are missing.
    #[error(
        "the store ends at position {store}, but the witness saw {witness} records: an old backup \
         was restored or the tail was cut off; missing from position {first}", first = store + 1
    )]
    Behind {
        /// Where the store ends.
        store: Position,
        /// Where the witness ends.
        witness: Position,
    },
    /// A record of the store is not the one the witness saw.
    #[error(
        "the record at position {position} is not the one the witness saw ({witness} in all): it \
         was edited, or all from there on were replaced"
    )]
    Replaced {
        /// The first that is not.
        position: Position,
        /// Where the witness ends.
        witness: Position,
    },
}

impl From<ProofFault> for WitnessFault {
    fn from(fault: ProofFault) -> Self {
        Self::Log(match fault {
            ProofFault::Log(fault) => fault,
            ProofFault::Range(text) => LogFault::Unexpected(text),
        })
    }
}

/// One witness file and the key that signs for it.
pub struct Witness {
    file: Arc<Mutex<WitnessFile>>,
    signer: Arc<dyn Sign>,
    check: Check,
}

impl Witness {
    /// Opens or makes the file; see [`WitnessFile::open`]. Blocks: call it while starting.
    pub fn open(
        path: &Path,
        signer: Arc<dyn Sign>,
        check: Check,
    ) -> Result<Self, WitnessFileFault> {
        let file = WitnessFile::open(path, signer.key(), check)?;
        Ok(Self { file: Arc::new(Mutex::new(file)), signer, check })
    }

    /// How many records it has seen.
    pub async fn size(&self) -> Position {
        self.file.lock().await.chain().frontier.size()
    }

    /// The newest published head; none before the first.
    pub async fn head(&self) -> Option<SignedHead> {
        self.file.lock().await.chain().signed.clone()
    }

    /// Compares the store with what was published: by roots, and only where they differ record by
    /// record, to name the first. Call it after opening and before anything is appended.
    pub async fn compare(&self, log: &dyn EventLog) -> Result<(), WitnessFault> {
        let file = self.file.lock().await;
        self.compare_with(&file, log).await
    }

    async fn compare_with(
        &self,
        file: &WitnessFile,
        log: &dyn EventLog,
    ) -> Result<(), WitnessFault> {
        let seen = &file.chain().frontier;
        let store = log.head().await?.position;
        let root = match root_at(log, seen.size().min(store)).await {
            Ok(root) => Some(root),
            // The store's own hashes do not fit: look for the record.
            Err(ProofFault::Log(LogFault::Corrupt { .. })) => None,
            Err(fault) => return Err(fault.into()),
        };
        if store >= seen.size() && root == Some(seen.root()) {
            return Ok(());
        }
        let witness = seen.size();
        if let Some(position) = self.first_difference(file, log).await? {
            return Err(WitnessFault::Replaced { position, witness });
        }
        if store < witness {
            return Err(WitnessFault::Behind { store, witness });
        }
        let reason = "the hashes the store keeps are not those of its records".to_owned();
        Err(LogFault::Corrupt { position: witness, reason }.into())
    }

    async fn first_difference(
        &self,
        file: &WitnessFile,
        log: &dyn EventLog,
    ) -> Result<Option<Position>, WitnessFault> {
        let (path, key, check) = (file.path().to_owned(), self.signer.key().clone(), self.check);
        let witnessed = unblocked(move || read_witness(&path, Some((&key, check)))).await??;
        let mut after = 0;
        loop {
            let records = log.read(after, BATCH).await?;
            if records.is_empty() {
                return Ok(None);
            }
            for record in &records {
                match witnessed.leaf(after) {
                    None => return Ok(None),
                    Some(seen) if *seen == record.leaf() => after += 1,
                    Some(_) => return Ok(Some(after + 1)),
                }
            }
        }
    }

    /// Appends entries for all records since the last, and gives back the newest head; none while
    /// the log is empty. Nothing is signed that does not fit the store's own tree and everything
    /// published before.
    pub async fn publish(&self, log: &dyn EventLog) -> Result<Option<SignedHead>, WitnessFault> {
        let mut file = Arc::clone(&self.file).lock_owned().await;
        let end = log.head().await?.position;
        if end < file.chain().frontier.size() {
            self.compare_with(&file, log).await?;
        }
        while file.chain().frontier.size() < end {
            let Some(entry) = self.next(&file, log, end).await? else {
                // What was published, and what came since, are not what the store says.
                self.compare_with(&file, log).await?;
                let reason = "the root over its records is not the store's".to_owned();
                return Err(LogFault::Corrupt { position: end, reason }.into());
            };
            let appended;
            (file, appended) = unblocked(move || {
                let appended = file.append(&entry);
                (file, appended)
            })
            .await?;
            appended?;
        }
        Ok(file.chain().signed.clone())
    }

    /// The next entry, up to `end` or as many records as fit; none when its root is not the
    /// store's.
    async fn next(
        &self,
        file: &WitnessFile,
        log: &dyn EventLog,
        end: Position,
    ) -> Result<Option<WitnessEntry>, WitnessFault> {
        let mut frontier = file.chain().frontier.clone();
        let first = frontier.size() + 1;
        let last = end.min(frontier.size() + WitnessEntry::RECORDS_MAX as u64);
        let (mut leaves, mut tags) = (Vec::new(), Vec::new());
        while frontier.size() < last {
            let limit = BATCH.min((last - frontier.size()) as usize);
            let records = log.read(frontier.size(), limit).await?;
            if records.is_empty() {
                let reason = "it is missing, though the head is behind it".to_owned();
                return Err(LogFault::Corrupt { position: frontier.size() + 1, reason }.into());
            }
            for record in records {
                let (leaf, tag) = WitnessEntry::of(&record).map_err(|fault| LogFault::Corrupt {
                    position: frontier.size() + 1,
                    reason: fault.to_string(),
                })?;
                frontier.push(leaf, |_| {});
                leaves.push(leaf);
                tags.push(tag);
            }
        }
        let stored: Option<Hash> = match root_at(log, last).await {
            Ok(root) => Some(root),
            Err(ProofFault::Log(LogFault::Corrupt { .. })) => None,
            Err(fault) => return Err(fault.into()),
        };
        let root = frontier.root();
        let signed = (stored == Some(root)).then(|| SignedHead::sign(&*self.signer, last, root));
        Ok(signed.map(|signed| WitnessEntry { first, leaves, tags, signed }))
    }

    /// Publishes after appends, at most once a second, and once more when `stop` comes. A file or
    /// log that fails is tried again; it ends early only when the store's past was changed.
    pub async fn run(
        &self,
        log: &dyn EventLog,
        clock: &dyn Clock,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), WitnessFault> {
        let mut stop = std::pin::pin!(stop);
        loop {
            let seen = self.size().await;
            let stopped = tokio::select! {
                () = &mut stop => true,
                () = log.appended(seen) => false,
            };
            match self.publish(log).await {
                Ok(_) => {}
                Err(fault @ (WitnessFault::Behind { .. } | WitnessFault::Replaced { .. })) => {
                    return Err(fault);
                }
                Err(fault) if stopped => return Err(fault),
                Err(fault) => {
                    let reason: &dyn std::error::Error = &fault;
                    tracing::error!(reason, "the witness could not be written; trying again");
                }
            }
            if stopped {
                return Ok(());
            }
            tokio::select! {
                () = &mut stop => return self.publish(log).await.map(|_| ()),
                () = clock.sleep(INTERVAL) => {}
            }
        }
    }
}

/// Runs what waits for a disk off the async threads.
async fn unblocked<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LogFault> {
    tokio::task::spawn_blocking(work).await.map_err(|fault| LogFault::Unexpected(fault.to_string()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
