//! Writing a backup back.

use commands::progress;
use futures::{StreamExt as _, TryStreamExt as _};
use uuid::Uuid;

use crate::{
    fault::Fault,
    manifest::{Manifest, Placed},
    store::Store,
    target::Target,
};

/// Chunks that are fetched and written at once.
const AT_ONCE: usize = 4;

impl Store {
    /// Writes all of a backup into a disk that reads as zeroes, and verifies every chunk by its name
    /// before it is written. With a digest, the manifest is verified as well.
    ///
    /// # Errors
    /// A chunk that is missing or damaged is named with its place. Whatever the fault, what was written
    /// is no disk: the caller throws it away.
    pub async fn restore(
        &self,
        (disk, backup): (Uuid, Uuid),
        digest: Option<&str>,
        target: &dyn Target,
    ) -> Result<Manifest, Fault> {
        let manifest = self.manifest(disk, backup, digest).await?;
        if target.size_bytes() < manifest.size_bytes {
            let (has, needs) = (target.size_bytes(), manifest.size_bytes);
            return Err(Fault::Unfit(format!("{needs} bytes do not fit on a disk of {has}")));
        }
        // By number: whoever awaits this from another thread could not know how long a chunk is borrowed.
        let (all, this) = (&manifest, self);
        progress::expect(manifest.written_bytes());
        let work = (0..manifest.chunks.len()).map(|at| async move {
            let placed = &all.chunks[at];
            let content = this.content(all, placed).await?;
            let bytes = content.len() as u64;
            target.write(placed.at * u64::from(all.chunk_bytes), content).await?;
            progress::add(bytes);
            Ok::<_, Fault>(())
        });
        let mut work = futures::stream::iter(work).buffer_unordered(AT_ONCE);
        while work.try_next().await?.is_some() {}
        drop(work);
        target.flush().await?;
        Ok(manifest)
    }

    /// Fetches every chunk and verifies it, as if it were restored; gives how many there are.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub async fn check(
        &self,
        (disk, backup): (Uuid, Uuid),
        digest: Option<&str>,
    ) -> Result<u64, Fault> {
        let manifest = self.manifest(disk, backup, digest).await?;
        let work =
            (0..manifest.chunks.len()).map(|at| self.content(&manifest, &manifest.chunks[at]));
        let mut work = futures::stream::iter(work).buffer_unordered(AT_ONCE);
        while work.try_next().await?.is_some() {}
        drop(work);
        Ok(manifest.chunks.len() as u64)
    }

    pub(crate) async fn content(
        &self,
        manifest: &Manifest,
        placed: &Placed,
    ) -> Result<Vec<u8>, Fault> {
        let length = Manifest::length(manifest.size_bytes, manifest.chunk_bytes, placed.at);
        let damaged = |how: &str| {
            let begin = placed.at * u64::from(manifest.chunk_bytes);
            let what = format!("chunk {} (at byte {begin} of the disk) {how}", placed.name);
            Fault::Damaged { backup: manifest.backup, what }
        };
        let stored = self.objects.get(&placed.key()).await?.ok_or_else(|| damaged("is missing"))?;
        let (seal, name) = (self.seal.clone(), placed.name.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let content = seal.open(&name, &stored, length)?;
            if content.len() == length && seal.name(&content) == name {
                Ok(content)
            } else {
                Err("it has another content".to_owned())
            }
        });
        let opened = opened.await.map_err(|error| error.to_string()).and_then(|opened| opened);
        opened.map_err(|how| damaged(&format!("is damaged: {how}")))
    }
}
