//! Descriptions of backup sets: what a set consists of, and what its server was.
//!
//! They say which of the backups belong together, and vouch for nothing: a backup's digest is in it, and is
//! compared with its manifest by whoever finds the set.

use domain::{compute::backup_set::Description, kernel::canonical_bytes};
use uuid::Uuid;

use crate::{
    fault::Fault,
    store::{Store, stranger},
};

/// What the keys of descriptions begin with.
const FOLDER: &str = "sets/";
/// Largest description that is read, in bytes, when it is expanded: 26 disks, 16 interfaces and the rules of their
/// security groups are far below.
const BYTES_MAX: usize = 16 << 20;

fn key(set: Uuid) -> String {
    format!("{FOLDER}{set}")
}

impl Store {
    /// Puts the description of a set in place.
    ///
    /// # Errors
    /// The store's.
    pub async fn describe(&self, set: &Description) -> Result<(), Fault> {
        let key = key(set.set);
        let stored = self.seal.close(&key, &canonical_bytes(set));
        self.objects.put(&key, stored.map_err(Fault::disk("cannot compress a description"))?).await
    }

    /// The sets that are described.
    ///
    /// # Errors
    /// The store's; and when something lies there that is none of ours.
    pub async fn sets(&self) -> Result<Vec<Uuid>, Fault> {
        let listed = self.objects.list(FOLDER).await?;
        let id = |key: &str| key.strip_prefix(FOLDER).and_then(|id| id.parse().ok());
        listed.iter().map(|one| id(&one.key).ok_or_else(|| stranger(&one.key))).collect()
    }

    /// The description of a set; none when there is none.
    ///
    /// # Errors
    /// It is damaged, or the store's.
    pub async fn description(&self, set: Uuid) -> Result<Option<Description>, Fault> {
        let key = key(set);
        let Some(stored) = self.objects.get(&key).await? else { return Ok(None) };
        let damaged = |what: String| {
            let what = format!("the description of the set: {what}");
            Fault::Damaged { backup: set, what }
        };
        let bytes = self.seal.open(&key, &stored, BYTES_MAX).map_err(damaged)?;
        let read = serde_json::from_slice::<Description>(&bytes);
        let read = read.map_err(|error| damaged(format!("it does not read: {error}")))?;
        if read.set != set {
            return Err(damaged("it is another set's".to_owned()));
        }
        Ok(Some(read))
    }

    /// Removes the description of a set.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_set(&self, set: Uuid) -> Result<(), Fault> {
        self.objects.delete(&key(set)).await
    }
}
