//! Storage that several hosts reach: a folder that each of them has mounted, of an NFS server for
//! instance.
//!
//! It is no resource of its own. A file in the folder holds its id, and a host that has the folder
//! reads it there and says so: two hosts that say the same id have the same folder, wherever each of
//! them has mounted it. A disk that lies there can be had by a server on any of them, and goes with
//! its server to another one without being copied.

use std::collections::BTreeSet;

use crate::kernel::Id;

/// A folder that several hosts reach.
#[derive(Debug)]
pub struct Storage;

/// The id of such a folder, which lies in it.
pub type StorageId = Id<Storage>;

/// Most of them that one host has.
pub const STORAGES_MAX: usize = 64;

/// What a placement compares: a host has it when it reaches the storage.
pub fn label(storage: StorageId) -> String {
    format!("storage/{storage}")
}

/// What a host must reach for a server with such disks; those that lie on a host alone ask for nothing.
pub fn labels(disks: impl IntoIterator<Item = Option<StorageId>>) -> BTreeSet<String> {
    disks.into_iter().flatten().map(label).collect()
}
