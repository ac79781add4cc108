//! Why a backup, or what is done with one, came to nothing.

use uuid::Uuid;

/// The world failed. Every text says which part of it, none holds a key.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store did not answer, or not in time; it may later.
    #[error("{what}: {why}")]
    Unreachable {
        /// Which call.
        what: String,
        /// What stood in the way.
        why: String,
    },
    /// The store does not let us.
    #[error("{what}: the store refuses: {why}")]
    Denied {
        /// Which call.
        what: String,
        /// In the store's words.
        why: String,
    },
    /// The store said what was not to be expected.
    #[error("{what}: {why}")]
    Unexpected {
        /// Which call.
        what: String,
        /// What it said.
        why: String,
    },
    /// There is no such backup.
    #[error("there is no backup {backup} of disk {disk}")]
    Missing {
        /// Of which disk.
        disk: Uuid,
        /// Which.
        backup: Uuid,
    },
    /// What lies in the store is not what was put there.
    #[error("backup {backup} is damaged: {what}")]
    Damaged {
        /// Which backup.
        backup: Uuid,
        /// Which part of it, and how.
        what: String,
    },
    /// The disk that is backed up, or written back to, failed.
    #[error("{what}")]
    Disk {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Unfit(String),
}

impl Fault {
    /// Whether the same may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// For [`Result::map_err`] after something was tried with a disk.
    pub(crate) fn disk(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Disk { what: what.into(), source }
    }
}
