//! Where disks lie on a KVM host.
//!
//! The map: [`directory`] keeps disks as files, made by [`qemu_img`] and offered to
//! others by [`export`], with their [`snapshot`]s; [`cache`] keeps the images that
//! disks are made from, and [`header`] tells what they claim to be before any tool opens them; [`seed`]
//! writes what a server reads at its first boot; [`shared`] finds the folders that other hosts reach as well; [`files`] gives files their names.
//! [`volume_group`] keeps disks as logical volumes, by [`lvm`], and goes back to their snapshots by [`differences`]; [`any`] is the one or the other.
//!
//! A disk's file is named by the disk's id and by nothing that a user chose. What is being made has
//! a name of its own (`.part`) and gets its real name when it is whole and on the medium: after a
//! crash there is all of it or nothing.

pub mod any;
pub mod cache;
pub mod differences;
pub mod directory;
pub mod export;
pub mod files;
pub use domain::compute::image::header;
pub mod lvm;
pub mod qemu_img;
pub mod seed;
pub mod shared;
pub mod snapshot;
pub mod volume_group;

use std::path::PathBuf;

use crate::tool::ToolFault;

/// Storage did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageFault {
    /// A tool of the host failed.
    #[error(transparent)]
    Tool(#[from] ToolFault),
    /// A file cannot be read or written.
    #[error("{what} {}", path.display())]
    File {
        /// What was tried, in words.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is mounted, and whoever is behind it does not answer.
    #[error("{} does not answer: is its file server away?", .0.display())]
    Silent(PathBuf),
    /// It is not there.
    #[error("{0} is not there")]
    Missing(String),
    /// Something else than what was asked for is there already, or was made.
    #[error("{what} is {is}, and was to be {wanted}")]
    Differs {
        /// Of what.
        what: String,
        /// As it is.
        is: String,
        /// As it was to be.
        wanted: String,
    },
    /// A disk never gets smaller: what is cut off is lost.
    #[error("{what} has {is_bytes} bytes and is not made smaller, to {wanted_bytes}")]
    Smaller {
        /// Which disk or image.
        what: String,
        /// Its size.
        is_bytes: u64,
        /// The size asked for.
        wanted_bytes: u64,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Unfit(String),
}

impl StorageFault {
    /// For [`Result::map_err`] after a call of the file system.
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
