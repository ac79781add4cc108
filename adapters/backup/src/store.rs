//! Backups in one store. Its verbs are in the files beside this one.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    chunk::Seal,
    fault::Fault,
    manifest::Manifest,
    objects::{Listed, Objects},
};

/// Largest manifest that is read, in bytes, when it is expanded.
const MANIFEST_BYTES_MAX: usize = 512 << 20;

/// A store of backups. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) seal: Seal,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("seal", &self.seal).finish_non_exhaustive()
    }
}

/// Where a manifest lies.
pub(crate) fn manifest_key(disk: Uuid, backup: Uuid) -> String {
    format!("manifests/{disk}/{backup}")
}

/// The mark of a backup that is being made.
pub(crate) fn mark_key(backup: Uuid) -> String {
    format!("running/{backup}")
}

impl Store {
    /// A store in these objects, sealed so.
    pub fn new(objects: Arc<dyn Objects>, seal: Seal) -> Self {
        Self { objects, seal }
    }

    /// Whether it can be used: something is put, listed, read and removed.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn verify(&self, by: Uuid) -> Result<(), Fault> {
        let key = format!("verified/{by}");
        let said = Bytes::from(by.to_string());
        self.objects.put(&key, said.clone()).await?;
        let listed = self.objects.list(&key).await?;
        let read = self.objects.get(&key).await?;
        self.objects.delete(&key).await?;
        if listed.len() == 1 && read == Some(said) {
            return Ok(());
        }
        let why = "what was put there is not there".to_owned();
        Err(Fault::Unexpected { what: "the store".to_owned(), why })
    }

    /// A backup's manifest. With a digest it is that one, or the backup is damaged.
    ///
    /// # Errors
    /// There is none, it is damaged, or the store's.
    pub async fn manifest(
        &self,
        disk: Uuid,
        backup: Uuid,
        digest: Option<&str>,
    ) -> Result<Manifest, Fault> {
        let found = self.find(disk, backup).await?.ok_or(Fault::Missing { disk, backup })?;
        if digest.is_some_and(|wanted| found.digest() != wanted) {
            let what = "its manifest is another than was recorded".to_owned();
            return Err(Fault::Damaged { backup, what });
        }
        Ok(found)
    }

    /// A backup's manifest; none when there is none.
    pub(crate) async fn find(&self, disk: Uuid, backup: Uuid) -> Result<Option<Manifest>, Fault> {
        let key = manifest_key(disk, backup);
        let Some(stored) = self.objects.get(&key).await? else { return Ok(None) };
        let damaged =
            |what: String| Fault::Damaged { backup, what: format!("its manifest: {what}") };
        let bytes = self.seal.open(&key, &stored, expanded(&stored)).map_err(damaged)?;
        let manifest = Manifest::read(&bytes).map_err(damaged)?;
        if (manifest.disk, manifest.backup) != (disk, backup) {
            return Err(damaged("it is another backup's".to_owned()));
        }
        Ok(Some(manifest))
    }

    /// Writes a manifest; false when there is one already.
    pub(crate) async fn write(&self, manifest: &Manifest) -> Result<bool, Fault> {
        let key = manifest_key(manifest.disk, manifest.backup);
        let stored = self.seal.close(&key, &manifest.bytes());
        self.objects.put_new(&key, stored.map_err(Fault::disk("cannot compress a manifest"))?).await
    }

    /// All backups that are whole, by disk and backup.
    ///
    /// # Errors
    /// The store's; and when something lies there that is none of ours.
    pub async fn backups(&self) -> Result<Vec<(Uuid, Uuid)>, Fault> {
        let listed = self.objects.list("manifests/").await?;
        listed.iter().map(|one| read_key(one, "manifests/")).collect()
    }

    /// The backups that are being made, or whose making was broken off.
    pub(crate) async fn marks(&self) -> Result<Vec<(Uuid, Listed)>, Fault> {
        let listed = self.objects.list("running/").await?;
        let read = |one: Listed| {
            let id = one.key.strip_prefix("running/").and_then(|id| id.parse().ok());
            Ok((id.ok_or_else(|| stranger(&one.key))?, one))
        };
        listed.into_iter().map(read).collect()
    }

    /// Removes a backup: its manifest, and the mark of one that was never finished. Its chunks go when
    /// a collection finds that nothing needs them.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget(&self, disk: Uuid, backup: Uuid) -> Result<(), Fault> {
        self.objects.delete(&manifest_key(disk, backup)).await?;
        self.objects.delete(&mark_key(backup)).await
    }
}

/// How much a manifest may become: zstd makes at most this much of so little, and there is a limit.
fn expanded(stored: &[u8]) -> usize {
    stored.len().saturating_mul(1 << 10).clamp(1 << 20, MANIFEST_BYTES_MAX)
}

fn read_key(listed: &Listed, folder: &str) -> Result<(Uuid, Uuid), Fault> {
    let key = listed.key.strip_prefix(folder).and_then(|rest| rest.split_once('/'));
    let read = key.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    read.ok_or_else(|| stranger(&listed.key))
}

/// Nothing is concluded from a store that somebody else writes into.
pub(crate) fn stranger(key: &str) -> Fault {
    Fault::Unexpected { what: key.to_owned(), why: "it is none of this store's objects".to_owned() }
}
