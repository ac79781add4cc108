//! Folders that several hosts reach, each known by the id that lies in it.
//!
//! ```text
//! <root>/skyledger-storage              its id, one line: written once, by whoever makes the storage
//! <root>/disks/<disk id>.qcow2          as in a folder of one host
//! ```
//!
//! The id is read each time: a folder that is not mounted any more has none, and nothing is written
//! where it was.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use domain::compute::storage::StorageId;
use tokio::fs;

use super::StorageFault;

/// The file that holds the id of a storage.
pub const MARKER: &str = "skyledger-storage";

/// The folders that a host was told of.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    roots: Vec<PathBuf>,
}

impl Shared {
    /// These folders; they need not be there yet.
    ///
    /// # Errors
    /// One is not an absolute path.
    pub fn new(roots: Vec<PathBuf>) -> Result<Self, StorageFault> {
        if let Some(root) = roots.iter().find(|root| !root.is_absolute() || root.to_str().is_none())
        {
            let what = format!("{}: storage needs an absolute path in UTF-8", root.display());
            return Err(StorageFault::Unfit(what));
        }
        Ok(Self { roots })
    }

    /// The storages that are there now, with where they are mounted. Of two folders with one id only
    /// the first counts.
    pub async fn there(&self) -> BTreeMap<StorageId, PathBuf> {
        let mut there = BTreeMap::new();
        for root in &self.roots {
            match read(root).await {
                Ok(id) => drop(there.entry(id).or_insert_with(|| root.clone())),
                Err(fault) => tracing::warn!(%fault, "a storage is left out"),
            }
        }
        there
    }

    /// Where a storage is mounted.
    ///
    /// # Errors
    /// It is not, now.
    pub async fn root(&self, storage: StorageId) -> Result<PathBuf, StorageFault> {
        let there = self.there().await.remove(&storage);
        there.ok_or_else(|| StorageFault::Missing(format!("the storage {storage}")))
    }

    /// The folders of disks of all of them, mounted or not.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.roots.iter().map(|root| root.join("disks"))
    }
}

/// The id of the storage that is mounted here.
///
/// # Errors
/// None is, or its id does not read.
pub async fn read(root: &Path) -> Result<StorageId, StorageFault> {
    let marker = root.join(MARKER);
    let text = match fs::read_to_string(&marker).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(StorageFault::Missing(marker.display().to_string()));
        }
        text => text.map_err(StorageFault::file("cannot read", &marker))?,
    };
    let id = text.trim().parse();
    id.map_err(|_| StorageFault::Unfit(format!("{}: is no id, one UUID", marker.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_what_the_id_in_it_says_and_nothing_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let shared = Shared::new(vec![one.clone(), other.clone()]).unwrap();
        assert!(shared.there().await.is_empty(), "neither is mounted");
        for root in [&one, &other] {
            std::fs::create_dir(root).unwrap();
        }
        assert!(shared.there().await.is_empty(), "neither is a storage");
        let id = "01990000-0000-7000-8000-0000000000aa";
        std::fs::write(one.join(MARKER), format!("{id}\n")).unwrap();
        std::fs::write(other.join(MARKER), "not an id").unwrap();
        let storage: StorageId = id.parse().unwrap();
        assert_eq!(shared.there().await, [(storage, one.clone())].into());
        assert_eq!(shared.root(storage).await.unwrap(), one);
        std::fs::write(other.join(MARKER), id).unwrap();
        assert_eq!(shared.there().await, [(storage, one.clone())].into(), "it is the same");
        std::fs::remove_file(one.join(MARKER)).unwrap();
        assert_eq!(shared.root(storage).await.unwrap(), other);
        std::fs::remove_file(other.join(MARKER)).unwrap();
        let fault = shared.root(storage).await.unwrap_err();
        assert_eq!(fault.to_string(), format!("the storage {id} is not there"));
        assert!(Shared::new(vec!["nfs".into()]).is_err());
    }
}
