//! A storage, whichever it is: what a disk is asked for is the same wherever it lies.
//!
//! A logical volume has its disk's bytes and nothing else: it is raw, has its snapshots beside it, and needs
//! no other file.

use std::path::PathBuf;

use domain::compute::storage::lease::Lease;
use uuid::Uuid;

use super::{
    StorageFault,
    directory::{Directory, Disk, Origin},
    qemu_img::Format,
    volume_group::VolumeGroup,
};

/// Where disks lie.
pub enum Storage {
    /// In a folder.
    Folder(Directory),
    /// In a volume group.
    Group(VolumeGroup),
}

fn raw(format: Format) -> Result<(), StorageFault> {
    if format == Format::Raw {
        return Ok(());
    }
    Err(StorageFault::Unfit(format!("a disk in a volume group is raw, and was to be {format}")))
}

impl Storage {
    /// Makes an empty disk.
    ///
    /// # Errors
    /// A disk of this id is there with another size or format, and the host's.
    pub async fn create(
        &self,
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.create(disk, format, size_bytes).await,
            Self::Group(group) => {
                raw(format)?;
                group.create(disk, size_bytes).await
            }
        }
    }

    /// Makes a disk with all that another file reads as. It may need that file as long as it is there,
    /// where that is allowed.
    ///
    /// # Errors
    /// As [`Self::create`]; and when the size is less than the origin's.
    pub async fn copy(
        &self,
        disk: Uuid,
        format: Format,
        origin: Origin<'_>,
        size_bytes: u64,
        on_origin: bool,
    ) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) if on_origin && format == Format::Qcow2 => {
                folder.create_on(disk, origin, size_bytes).await
            }
            _ => self.copy_of((origin, None), disk, format, size_bytes).await,
        }
    }

    /// The same of what the file reads as now, or read as at one of its snapshots.
    pub(super) async fn copy_of(
        &self,
        from: (Origin<'_>, Option<Uuid>),
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.copy_of(from, disk, format, size_bytes).await,
            Self::Group(group) => {
                raw(format)?;
                group.copy(disk, from, size_bytes).await
            }
        }
    }

    /// Begins to make a disk that somebody else fills: what reads as zeroes, and that
    /// [`Self::finish_filled`] makes a disk. None when the disk is there.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn begin_filled(
        &self,
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Option<PathBuf>, StorageFault> {
        match self {
            Self::Folder(folder) => folder.begin_filled(disk, format, size_bytes).await,
            Self::Group(group) => {
                raw(format)?;
                group.begin_filled(disk, size_bytes).await
            }
        }
    }

    /// A disk that was filled is whole.
    ///
    /// # Errors
    /// It is another than was begun, and the host's.
    pub async fn finish_filled(
        &self,
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.finish_filled(disk, format, size_bytes).await,
            Self::Group(group) => group.finish_filled(disk, size_bytes).await,
        }
    }

    /// Whether a disk that is there can be made from another file again.
    ///
    /// # Errors
    /// It is not there, is smaller than the other file, or has snapshots, which would be lost.
    pub async fn check_again(&self, disk: Uuid, origin: Origin<'_>) -> Result<(), StorageFault> {
        match self {
            Self::Folder(folder) => folder.check_again(disk, origin).await,
            Self::Group(group) => group.check_again(disk, origin).await,
        }
    }

    /// Makes a disk from another file again, as large as it was.
    ///
    /// # Errors
    /// As [`Self::check_again`], and the host's.
    pub async fn make_again(
        &self,
        disk: Uuid,
        origin: Origin<'_>,
        on_origin: bool,
    ) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.make_again(disk, origin, on_origin).await,
            Self::Group(group) => group.make_again(disk, origin).await,
        }
    }

    /// Begins to make a disk anew that is there, for somebody else to fill; [`Self::replace`] puts it in
    /// its place. It is to hold so many bytes.
    ///
    /// # Errors
    /// The disk is not there or is smaller, and the host's.
    pub async fn begin_again(
        &self,
        disk: Uuid,
        holds_bytes: u64,
    ) -> Result<(PathBuf, Format), StorageFault> {
        match self {
            Self::Folder(folder) => folder.begin_again(disk, holds_bytes).await,
            Self::Group(group) => Ok((group.begin_again(disk, holds_bytes).await?, Format::Raw)),
        }
    }

    /// Puts a disk that was made anew in the place of the one that was there.
    ///
    /// # Errors
    /// It is not as large, and the host's.
    pub async fn replace(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.replace(disk).await,
            Self::Group(group) => group.replace(disk).await,
        }
    }

    /// Makes a disk larger: in a folder one that no running server has.
    ///
    /// # Errors
    /// It is not there, is larger already; and the host's.
    pub async fn grow(&self, disk: Uuid, size_bytes: u64) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.grow(disk, size_bytes).await,
            Self::Group(group) => group.grow(disk, size_bytes).await,
        }
    }

    /// Looks at a disk, also while a server has it.
    ///
    /// # Errors
    /// It is not there, or the host's.
    pub async fn inspect(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.inspect(disk).await,
            Self::Group(group) => group.inspect(disk).await,
        }
    }

    /// The same, and it can be opened from now on.
    ///
    /// # Errors
    /// It is not there, or the host's.
    pub async fn ready(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => folder.inspect(disk).await,
            Self::Group(group) => group.activate(disk).await,
        }
    }

    /// The snapshots of a disk, by id, sorted.
    ///
    /// # Errors
    /// The disk is not there, or the host's.
    pub async fn snapshots(&self, disk: Uuid) -> Result<Vec<Uuid>, StorageFault> {
        match self {
            Self::Folder(folder) => folder.snapshots(disk).await,
            Self::Group(group) => group.snapshots(disk).await,
        }
    }

    /// Takes a snapshot of a disk, unless it is there: in a folder of one that no running server has.
    ///
    /// # Errors
    /// The disk is not there or has no room for one; and the host's.
    pub async fn take_snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<(), StorageFault> {
        match self {
            Self::Folder(folder) => Box::pin(folder.take_snapshot(disk, snapshot)).await,
            Self::Group(group) => Box::pin(group.take_snapshot(disk, snapshot)).await,
        }
    }

    /// Removes a snapshot of a disk, where [`Self::take_snapshot`] could take one; that there is none is the
    /// same end.
    ///
    /// # Errors
    /// The disk is not there, or the host's.
    pub async fn delete_snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<(), StorageFault> {
        match self {
            Self::Folder(folder) => Box::pin(folder.delete_snapshot(disk, snapshot)).await,
            Self::Group(group) => Box::pin(group.delete_snapshot(disk, snapshot)).await,
        }
    }

    /// Makes a disk that no server uses what it was at a snapshot. It stays as large as it is now.
    ///
    /// # Errors
    /// There is no such snapshot, a server uses the disk; and the host's.
    pub async fn roll_back(&self, disk: Uuid, snapshot: Uuid) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => Box::pin(folder.roll_back(disk, snapshot)).await,
            Self::Group(group) => Box::pin(group.roll_back(disk, snapshot)).await,
        }
    }

    /// Makes a disk on any storage with all that a disk of this one, which no server uses, was at a snapshot.
    ///
    /// # Errors
    /// There is no such snapshot; and as [`Self::copy`].
    pub async fn copy_snapshot(
        &self,
        from: (Uuid, Uuid),
        into: &Self,
        made: (Uuid, Format, u64),
    ) -> Result<Disk, StorageFault> {
        match self {
            Self::Folder(folder) => Box::pin(folder.copy_snapshot(from, into, made)).await,
            Self::Group(group) => Box::pin(group.copy_snapshot(from, into, made)).await,
        }
    }

    /// The same for an order that came with this lease of its disk, or with none.
    #[must_use]
    pub fn on(self, lease: Option<Lease>) -> Self {
        match self {
            Self::Group(group) => Self::Group(group.on(lease)),
            folder @ Self::Folder(_) => folder,
        }
    }

    /// The host does not need the disk's device any more.
    ///
    /// # Errors
    /// Something uses it; the host's.
    pub async fn rest(&self, disk: Uuid) -> Result<(), StorageFault> {
        match self {
            Self::Folder(_) => Ok(()),
            Self::Group(group) => group.deactivate(disk).await,
        }
    }

    /// Removes a disk, and what is left of one that was being made.
    ///
    /// # Errors
    /// The host's.
    pub async fn delete(&self, disk: Uuid) -> Result<(), StorageFault> {
        match self {
            Self::Folder(folder) => folder.delete(disk).await,
            Self::Group(group) => group.delete(disk).await,
        }
    }

    /// Where a disk of this format lies, or will.
    pub fn path(&self, disk: Uuid, format: Format) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.path(disk, format),
            Self::Group(group) => group.path(disk),
        }
    }
}
