//! Taking a backup.
//!
//! ```text
//!   is it there? ── yes ──► that one
//!        │ no
//!   mark ──► what is condemned ──► chunks, several at once ──► manifest ──► mark away
//! ```
//!
//! Broken off anywhere, it can be taken again under its id: chunks that are there are not sent again,
//! and its mark is the same. Until the manifest is there nobody sees a backup.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use commands::progress;
use futures::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    chunk::{hex, is_zero},
    fault::Fault,
    manifest::{Manifest, Placed},
    source::{Piece, Source},
    store::{Store, mark_key, stranger},
};

/// Chunks that are read, compressed and sent at once.
const AT_ONCE: usize = 4;

/// Which backup is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its id, for ever.
    pub backup: Uuid,
    /// Of which disk.
    pub disk: Uuid,
    /// The backup whose chunks stand for what has not changed since; the source must know what has
    /// changed since that one, or read all.
    pub parent: Option<Uuid>,
    /// What the source calls the moment that it shows, in its own words; it is written down with the
    /// backup, and only with one that shows this moment.
    pub checkpoint: Option<String>,
    /// When it is asked for.
    pub taken_at: DateTime<Utc>,
    /// How large a chunk is; a parent's has the last word.
    pub chunk_bytes: u32,
}

/// What became of one chunk.
struct Done {
    placed: Option<Placed>,
    read: u64,
    sent: u64,
}

impl Store {
    /// Takes a backup, or finds that it was taken.
    ///
    /// # Errors
    /// There is no such parent, or the disk's or the store's: then there is no backup, and it may be
    /// asked for again.
    pub async fn take(&self, asked: &Asked, source: &dyn Source) -> Result<Manifest, Fault> {
        if let Some(there) = self.find(asked.disk, asked.backup).await? {
            self.objects.delete(&mark_key(asked.backup)).await?;
            return Ok(there);
        }
        // Before anything is looked up that a collection might take away: see `collect`.
        self.objects.put(&mark_key(asked.backup), Bytes::new()).await?;
        let condemned = self.condemned().await?;
        let parent = match asked.parent {
            Some(parent) => Some(self.manifest(asked.disk, parent, None).await?),
            None => None,
        };
        let size_bytes = source.size_bytes();
        let chunk_bytes = parent.as_ref().map_or(asked.chunk_bytes, |one| one.chunk_bytes);
        let count = Manifest::count(size_bytes, chunk_bytes)?;
        let known = Known::of(parent.as_ref(), condemned);
        progress::expect(size_bytes);
        let work = (0..count).map(|at| {
            let length = Manifest::length(size_bytes, chunk_bytes, at);
            let work = self.chunk(source, &known, at, at * u64::from(chunk_bytes), length);
            // What is the same as before, or zeroes, is through as well.
            work.inspect_ok(move |_| progress::add(length as u64))
        });
        let mut work = futures::stream::iter(work).buffered(AT_ONCE);
        let (mut chunks, mut read_bytes, mut sent_bytes) = (Vec::new(), 0, 0);
        while let Some(Done { placed, read, sent }) = work.try_next().await? {
            chunks.extend(placed);
            read_bytes += read;
            sent_bytes += sent;
        }
        let manifest = Manifest {
            form: Manifest::FORM,
            backup: asked.backup,
            disk: asked.disk,
            parent: asked.parent,
            checkpoint: asked.checkpoint.clone(),
            taken_at: asked.taken_at,
            size_bytes,
            chunk_bytes,
            chunks,
            read_bytes,
            sent_bytes,
        };
        if !self.write(&manifest).await? {
            // Another try under this id was faster, or this one whose answer was lost.
            let there = self.manifest(asked.disk, asked.backup, None).await?;
            self.objects.delete(&mark_key(asked.backup)).await?;
            return Ok(there);
        }
        // Whoever forgot it meanwhile has taken away what kept its chunks.
        if self.objects.size(&mark_key(asked.backup)).await?.is_none() {
            self.forget(asked.disk, asked.backup).await?;
            let what = format!("backup {} was forgotten while it was taken", asked.backup);
            return Err(Fault::Unfit(what));
        }
        self.objects.delete(&mark_key(asked.backup)).await?;
        Ok(manifest)
    }

    async fn chunk(
        &self,
        source: &dyn Source,
        known: &Known<'_>,
        at: u64,
        begin: u64,
        length: usize,
    ) -> Result<Done, Fault> {
        let nothing = |read| Ok(Done { placed: None, read, sent: 0 });
        let was = known.at(at, length);
        let piece = source.piece(begin, length, !matches!(was, Was::Unknown)).await?;
        let content = match (piece, was) {
            (Piece::Zero, _) | (Piece::Same, Was::Zero) => return nothing(0),
            (Piece::Data(content), _) => content,
            (Piece::Same, Was::Chunk(placed)) => {
                if known.may_be_counted_on(placed) && self.has(placed).await? {
                    return Ok(Done { placed: Some(placed.clone()), read: 0, sent: 0 });
                }
                // The store has it no more, or not for long: the disk has it still.
                match source.piece(begin, length, false).await? {
                    Piece::Data(content) => content,
                    Piece::Zero | Piece::Same => return nothing(0),
                }
            }
            (Piece::Same, Was::Unknown) => {
                return Err(Fault::Unfit(format!("chunk {at} is the same as nothing")));
            }
        };
        let read = content.len() as u64;
        let seal = self.seal.clone();
        let named = tokio::task::spawn_blocking(move || {
            (!is_zero(&content)).then(|| (seal.name(&content), content))
        });
        let named = named.await.map_err(|e| Fault::disk("a chunk")(std::io::Error::other(e)))?;
        let Some((name, content)) = named else { return nothing(read) };
        // Chunks of one content come to one upload, also when they come at once.
        let cell = known.upload_of(&name);
        let mut sent = 0;
        let placed = cell.get_or_try_init(|| self.place(known, name, content, &mut sent)).await?;
        Ok(Done { placed: Some(Placed { at, ..placed.clone() }), read, sent })
    }

    /// Finds a content in the store, or sends it.
    async fn place(
        &self,
        known: &Known<'_>,
        name: String,
        content: Vec<u8>,
        sent: &mut u64,
    ) -> Result<Placed, Fault> {
        let mut damaged = None;
        if let Some(placed) = known.by_name(&name) {
            if self.has(placed).await? {
                return Ok(placed.clone());
            }
            damaged = Some(placed.upload.clone());
        }
        for one in self.objects.list(&format!("chunks/{name}/")).await? {
            let placed = Placed::of_key(&one.key, one.bytes).ok_or_else(|| stranger(&one.key))?;
            if known.may_be_counted_on(&placed) && damaged.as_ref() != Some(&placed.upload) {
                return Ok(placed);
            }
        }
        let (seal, of) = (self.seal.clone(), name.clone());
        let closed = tokio::task::spawn_blocking(move || seal.close(&of, &content)).await;
        let closed = closed.map_err(std::io::Error::other).and_then(|closed| closed);
        let closed = closed.map_err(Fault::disk("cannot compress a chunk"))?;
        // What was damaged is put right where it lies: other backups count on it there.
        let upload = damaged.map_or_else(new_upload, Ok)?;
        let placed = Placed { at: 0, name, upload, stored_bytes: closed.len() as u64 };
        self.objects.put(&placed.key(), closed).await?;
        *sent = placed.stored_bytes;
        Ok(placed)
    }

    /// Whether a chunk is there as it was put there, as far as its length tells.
    async fn has(&self, placed: &Placed) -> Result<bool, Fault> {
        Ok(self.objects.size(&placed.key()).await? == Some(placed.stored_bytes))
    }
}

/// A name that no upload ever had.
fn new_upload() -> Result<String, Fault> {
    let id = random_id()?;
    Ok(hex(&id.as_bytes()[..8]))
}

/// An id that nothing ever had.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn random_id() -> Result<Uuid, Fault> {
    let mut random = [0; 16];
    let fault = |fault: getrandom::Error| std::io::Error::other(fault.to_string());
    getrandom::fill(&mut random).map_err(fault).map_err(Fault::disk("no random bytes"))?;
    // Not by way of an id's form, which keeps some of its bits.
    Ok(Uuid::from_bytes(random))
}

/// What was at a place of a disk.
enum Was<'a> {
    Unknown,
    Zero,
    Chunk(&'a Placed),
}

/// What is known of the store: the backup that this one is made on, what may not be counted on, and
/// what was found or sent already.
struct Known<'a> {
    parent: Option<&'a Manifest>,
    places: HashMap<u64, &'a Placed>,
    names: HashMap<&'a str, &'a Placed>,
    condemned: HashSet<String>,
    uploads: Mutex<HashMap<String, Arc<OnceCell<Placed>>>>,
}

impl<'a> Known<'a> {
    fn of(parent: Option<&'a Manifest>, condemned: HashSet<String>) -> Self {
        let chunks = parent.map_or(&[][..], |one| &one.chunks);
        Self {
            parent,
            places: chunks.iter().map(|one| (one.at, one)).collect(),
            names: chunks.iter().map(|one| (one.name.as_str(), one)).collect(),
            condemned,
            uploads: Mutex::default(),
        }
    }

    /// What was at this place. A chunk of another length is another, such as the last one of a disk
    /// that has grown.
    fn at(&self, at: u64, length: usize) -> Was<'a> {
        let Some(parent) = self.parent else { return Was::Unknown };
        if Manifest::length(parent.size_bytes, parent.chunk_bytes, at) != length {
            return Was::Unknown;
        }
        self.places.get(&at).map_or(Was::Zero, |placed| Was::Chunk(placed))
    }

    /// The parent's chunk of this content.
    fn by_name(&self, name: &str) -> Option<&'a Placed> {
        self.names.get(name).copied().filter(|placed| self.may_be_counted_on(placed))
    }

    fn may_be_counted_on(&self, placed: &Placed) -> bool {
        !self.condemned.contains(&placed.key())
    }

    fn upload_of(&self, name: &str) -> Arc<OnceCell<Placed>> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(uploads.entry(name.to_owned()).or_default())
    }
}
