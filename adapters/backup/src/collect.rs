//! Removing the chunks that no backup needs.
//!
//! A backup that is being made may count on a chunk that it found there, and its manifest does not say
//! so yet. No clock and no lock keeps the chunk for it; these rules do, whoever dies or is late where,
//! and however many collect at once:
//!
//! 1. A backup puts its *mark* first, then reads what is condemned, then looks for chunks, and counts on
//!    none that is condemned. It takes its mark away after its manifest is there.
//! 2. A collection *condemns* the chunks that no manifest needs: it writes them down. Afterwards it
//!    lists the marks, and writes down whose end is waited for: whoever counts on one of these chunks
//!    had its mark there before they were condemned, and has it still, or its manifest.
//! 3. When none of these marks is there any more, a later collection lists the manifests, and deletes
//!    what no manifest needs of what was condemned. What one needs stays condemned.
//! 4. A condemned chunk is taken from the list when it is deleted, and never otherwise. What has its
//!    content is sent again as another upload, with another key, which no list names.
//!
//! So of a condemned chunk the backups that need it only become fewer, and a deletion that was decided
//! on long ago is still right.
//!
//! A mark that nobody takes away, of a backup that was given up, keeps what was condemned: it costs room,
//! and the collection names it. [`Store::forget`] takes it away.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    fault::Fault,
    manifest::Placed,
    store::{Store, stranger},
    take::random_id,
};

/// Objects that are deleted at once.
const AT_ONCE: usize = 8;
/// Manifests that are read at once: a large one takes hundreds of MB.
const MANIFESTS_AT_ONCE: usize = 2;

/// What a collection came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chunks that it condemned.
    pub condemned: u64,
    /// Chunks that are deleted.
    pub removed: u64,
    /// The backups whose end is waited for before what was condemned goes.
    pub waits_for: BTreeSet<Uuid>,
}

/// What a collection has condemned.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condemned {
    /// Keys of chunks.
    chunks: BTreeSet<String>,
    /// Whose end is waited for; none when nobody has looked yet.
    waits_for: Option<BTreeSet<Uuid>>,
}

fn list_key(collection: Uuid) -> String {
    format!("condemned/{collection}")
}

impl Store {
    /// Collects: deletes what earlier collections have condemned, and condemns what no backup needs
    /// now. It takes two to delete a chunk.
    ///
    /// # Errors
    /// The store's, and a manifest that does not read: then nothing is known to be unneeded. What was
    /// done stays right, and it may be done again.
    pub async fn collect(&self) -> Result<Collected, Fault> {
        let mut collected = Collected::default();
        self.settle(&mut collected).await?;
        self.condemn(&mut collected).await?;
        Ok(collected)
    }

    /// Deletes what may be deleted of what was condemned.
    async fn settle(&self, collected: &mut Collected) -> Result<(), Fault> {
        let mut due = Vec::new();
        for (collection, mut list) in self.lists().await? {
            // Marks first, manifests after: a backup whose mark is gone has its manifest by then.
            let running = self.running().await?;
            match &list.waits_for {
                // Its collection died before it had looked. Whoever looks later sees enough.
                None => {
                    collected.waits_for.extend(running.iter().copied());
                    list.waits_for = Some(running);
                    self.write_list(collection, &list).await?;
                }
                Some(waits_for) => {
                    let mut left = waits_for.intersection(&running).peekable();
                    if left.peek().is_some() {
                        collected.waits_for.extend(left);
                    } else {
                        due.push((collection, list));
                    }
                }
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let needed = self.needed().await?;
        for (collection, list) in due {
            let (kept, gone): (BTreeSet<_>, BTreeSet<_>) =
                list.chunks.into_iter().partition(|key| needed.contains(key));
            let work = gone.into_iter().map(|key| async move { self.objects.delete(&key).await });
            let any_gone = work.len() > 0;
            let mut work = futures::stream::iter(work).buffer_unordered(AT_ONCE);
            while work.try_next().await?.is_some() {
                collected.removed += 1;
            }
            drop(work);
            if kept.is_empty() {
                self.objects.delete(&list_key(collection)).await?;
            } else if any_gone {
                self.write_list(collection, &Condemned { chunks: kept, ..list }).await?;
            }
        }
        Ok(())
    }

    async fn condemn(&self, collected: &mut Collected) -> Result<(), Fault> {
        let listed = self.objects.list("chunks/").await?;
        let marks = self.marks().await?;
        let condemned = self.condemned().await?;
        let needed = self.needed().await?;
        // What came after a backup began that goes on is likely its own. It could be condemned all the
        // same, and would be kept; and then be sent once more by the next. The store's clock is asked,
        // and nothing rests on it.
        let oldest = marks.iter().map(|(_, mark)| mark.modified).min();
        let mut chunks = BTreeSet::new();
        for one in listed {
            Placed::of_key(&one.key, one.bytes).ok_or_else(|| stranger(&one.key))?;
            let recent = oldest.is_some_and(|oldest| one.modified >= oldest);
            if !recent && !needed.contains(&one.key) && !condemned.contains(&one.key) {
                chunks.insert(one.key);
            }
        }
        if chunks.is_empty() {
            return Ok(());
        }
        let collection = random_id()?;
        let mut list = Condemned { chunks, waits_for: None };
        self.write_list(collection, &list).await?;
        collected.condemned = list.chunks.len() as u64;
        let running = self.running().await?;
        collected.waits_for.extend(running.iter().copied());
        list.waits_for = Some(running);
        self.write_list(collection, &list).await
    }

    async fn running(&self) -> Result<BTreeSet<Uuid>, Fault> {
        Ok(self.marks().await?.into_iter().map(|(id, _)| id).collect())
    }

    /// The keys of all chunks that a backup needs that is whole.
    async fn needed(&self) -> Result<HashSet<String>, Fault> {
        let backups = self.backups().await?;
        let read = backups.into_iter().map(|(disk, backup)| async move {
            // One that was forgotten since it was listed needs nothing.
            let manifest = self.find(disk, backup).await?;
            Ok::<_, Fault>(manifest.map(|one| one.chunks).unwrap_or_default())
        });
        let mut read = futures::stream::iter(read).buffer_unordered(MANIFESTS_AT_ONCE);
        let mut needed = HashSet::new();
        while let Some(chunks) = read.try_next().await? {
            needed.extend(chunks.iter().map(Placed::key));
        }
        Ok(needed)
    }

    /// The keys of all chunks that are condemned.
    pub(crate) async fn condemned(&self) -> Result<HashSet<String>, Fault> {
        let lists = self.lists().await?;
        Ok(lists.into_iter().flat_map(|(_, list)| list.chunks).collect())
    }

    async fn lists(&self) -> Result<Vec<(Uuid, Condemned)>, Fault> {
        let mut lists = Vec::new();
        for one in self.objects.list("condemned/").await? {
            let id = one.key.strip_prefix("condemned/").and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| stranger(&one.key))?;
            // One that has gone since has had all its chunks deleted.
            if let Some(bytes) = self.objects.get(&one.key).await? {
                let list = serde_json::from_slice(&bytes).map_err(|error| Fault::Unexpected {
                    what: one.key.clone(),
                    why: error.to_string(),
                })?;
                lists.push((id, list));
            }
        }
        Ok(lists)
    }

    async fn write_list(&self, collection: Uuid, list: &Condemned) -> Result<(), Fault> {
        let bytes = Bytes::from(domain::kernel::canonical_bytes(list));
        self.objects.put(&list_key(collection), bytes).await
    }
}
