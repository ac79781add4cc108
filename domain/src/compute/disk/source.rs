//! What a disk of ours is made from, where it is not made empty.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::Disk;
use crate::{
    compute::backup::Backup,
    kernel::{Companion, Decider},
};

/// What a disk is to be made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DiskFrom")]
pub enum From {
    /// A backup: what the disk had that it is of.
    Backup(Uuid),
    /// A snapshot of a disk on the same host, whose server is stopped.
    Snapshot(Uuid),
}

/// The same, with everything that the host must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DiskSource")]
pub enum Source {
    /// A backup.
    Backup {
        /// Which.
        backup: Uuid,
        /// The disk that it is of, wherever that is or was.
        disk: Uuid,
        /// Where it lies.
        store: Uuid,
        /// SHA-256 of its manifest: nothing else is written on the disk.
        digest: String,
    },
    /// A snapshot.
    Snapshot {
        /// Which.
        snapshot: Uuid,
        /// The disk that it is of.
        disk: Uuid,
    },
}

impl Source {
    /// The backup store that it is read from.
    pub fn store(&self) -> Option<Uuid> {
        match self {
            Self::Backup { store, .. } => Some(*store),
            Self::Snapshot { .. } => None,
        }
    }

    /// The disk whose snapshot it is read from.
    pub fn of_snapshot(&self) -> Option<Uuid> {
        match self {
            Self::Backup { .. } => None,
            Self::Snapshot { disk, .. } => Some(*disk),
        }
    }

    /// What was asked for.
    pub fn from(&self) -> From {
        match self {
            Self::Backup { backup, .. } => From::Backup(*backup),
            Self::Snapshot { snapshot, .. } => From::Snapshot(*snapshot),
        }
    }

    /// What it is made from is told that it is needed for this disk, or no more.
    pub(crate) fn tell(&self, by: Uuid, verb: &'static str) -> Companion {
        let body = json!({"by": by});
        match self {
            Self::Backup { backup, .. } => {
                Companion { kind: Backup::KIND, id: *backup, verb, body }
            }
            Self::Snapshot { disk, .. } => Companion { kind: Disk::KIND, id: *disk, verb, body },
        }
    }
}
