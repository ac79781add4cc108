//! Snapshots of a disk that no server uses, inside its own file (qcow2), by the disk's name for each.
//!
//! Why inside the file and not as a chain of files is in `docs/adr/0026-snapshots-are-in-the-disks-file.md`.

use uuid::Uuid;

use super::{
    StorageFault,
    any::Storage,
    directory::{Directory, Disk, Origin},
    files,
    qemu_img::{self, Change, Format},
};

impl Directory {
    /// The snapshots of a disk, by id, sorted; also while a server has it. Names that are none of ours
    /// are left out.
    ///
    /// # Errors
    /// The disk is not there, or the host's.
    pub async fn snapshots(&self, disk: Uuid) -> Result<Vec<Uuid>, StorageFault> {
        let is = self.inspect(disk).await?;
        let tool = qemu_img::info(&is.path, is.format, false);
        let info = qemu_img::read_info(&tool, &tool.run().await?)?;
        let mut ids: Vec<Uuid> = info.snapshots().filter_map(|name| name.parse().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Takes a snapshot of a disk that no server uses, unless it is there.
    ///
    /// # Errors
    /// The disk is raw, is not there, or a server uses it; and the host's.
    pub async fn take_snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<(), StorageFault> {
        let is = self.with_snapshots(disk).await?;
        if !self.snapshots(disk).await?.contains(&snapshot) {
            qemu_img::snapshot(&is.path, Change::Take, snapshot).run().await?;
            files::sync(&is.path).await?;
        }
        self.has_snapshot(disk, snapshot).await
    }

    /// Makes a disk that no server uses what it was at a snapshot. It stays as large as it is now.
    ///
    /// # Errors
    /// There is no such snapshot, a server uses the disk; and the host's.
    pub async fn roll_back(&self, disk: Uuid, snapshot: Uuid) -> Result<Disk, StorageFault> {
        let is = self.with_snapshots(disk).await?;
        self.has_snapshot(disk, snapshot).await?;
        // What is written down of its changes is not true of what it was, and QEMU goes back with none.
        let tool = qemu_img::info(&is.path, is.format, false);
        let info = qemu_img::read_info(&tool, &tool.run().await?)?;
        for bitmap in info.bitmaps() {
            qemu_img::remove_bitmap(&is.path, bitmap).run().await?;
        }
        qemu_img::snapshot(&is.path, Change::RollBack, snapshot).run().await?;
        files::sync(&is.path).await?;
        // It is as large as it was then: what has grown since grows again.
        let was = self.inspect(disk).await?;
        self.grow(disk, is.size_bytes.max(was.size_bytes)).await
    }

    /// Removes a snapshot of a disk that no server uses; that there is none is the same end.
    ///
    /// # Errors
    /// The disk is not there, or a server uses it; and the host's.
    pub async fn delete_snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<(), StorageFault> {
        let is = self.with_snapshots(disk).await?;
        if self.snapshots(disk).await?.contains(&snapshot) {
            qemu_img::snapshot(&is.path, Change::Delete, snapshot).run().await?;
            files::sync(&is.path).await?;
        }
        Ok(())
    }

    /// Makes a disk with all that another one, which no server uses, was at a snapshot.
    ///
    /// # Errors
    /// There is no such snapshot; and as [`Directory::copy`].
    pub async fn clone_snapshot(
        &self,
        (from, snapshot): (Uuid, Uuid),
        disk: Uuid,
        format: Format,
    ) -> Result<Disk, StorageFault> {
        let size_bytes = self.with_snapshots(from).await?.size_bytes;
        let into = Storage::Folder(self.clone());
        self.copy_snapshot((from, snapshot), &into, (disk, format, size_bytes)).await
    }

    /// The same on any storage, and with another size: that of its disk or more.
    ///
    /// # Errors
    /// As [`Self::clone_snapshot`]; and when the size is less.
    pub async fn copy_snapshot(
        &self,
        (from, snapshot): (Uuid, Uuid),
        into: &Storage,
        (disk, format, size_bytes): (Uuid, Format, u64),
    ) -> Result<Disk, StorageFault> {
        let is = self.with_snapshots(from).await?;
        self.has_snapshot(from, snapshot).await?;
        let origin = Origin { path: &is.path, format: is.format, size_bytes: is.size_bytes };
        into.copy_of((origin, Some(snapshot)), disk, format, size_bytes).await
    }

    async fn with_snapshots(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        let is = self.inspect(disk).await?;
        if is.format != Format::Qcow2 {
            let what = format!("disk {disk} is {}, which has no snapshots", is.format);
            return Err(StorageFault::Unfit(what));
        }
        Ok(is)
    }

    async fn has_snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<(), StorageFault> {
        if self.snapshots(disk).await?.contains(&snapshot) {
            return Ok(());
        }
        Err(StorageFault::Missing(format!("snapshot {snapshot} of disk {disk}")))
    }
}
