//! Which storage a disk lies on: the host's own folder, a folder that others have too, or a volume group.

use std::{collections::BTreeSet, path::Path};

use adapters_libvirt::description::Source;
use commands::ports::DriverFault;
use domain::compute::{disk::Home, server::parts, storage::StorageId};
use uuid::Uuid;

use super::{Inner, Work, wanted::Layout};
use crate::storage::{StorageFault, any::Storage, files};

impl Inner {
    /// The storage of this id; the host's own folder where none is named.
    pub(super) async fn storage_of(
        &self,
        storage: Option<StorageId>,
    ) -> Result<Storage, StorageFault> {
        if let Some(id) = storage
            && let Some(group) = self.groups.there().await?.remove(&id)
        {
            return Ok(Storage::Group(group));
        }
        Ok(Storage::Folder(self.storage.of(storage).await?))
    }

    /// The storage that has a disk, as far as one can see: folders look for it by themselves.
    pub(super) async fn holder(&self, disk: Uuid) -> Result<Storage, StorageFault> {
        for group in self.groups.there().await?.into_values() {
            if group.has(disk).await? {
                return Ok(Storage::Group(group));
            }
        }
        Ok(Storage::Folder(self.storage.clone()))
    }

    /// Where files and devices lie now.
    pub(super) async fn lies(&self) -> Result<Layout, StorageFault> {
        let folders = self.storage.shared().there().await;
        let groups = self.groups.there().await?;
        let groups = groups.into_iter().map(|(id, group)| (id, group.devices()));
        Ok(self.layout.with(folders, groups.collect()))
    }

    /// The disks of a server that need a device have one, before it is started. Volumes that are shared
    /// are written down first: what they are active for is cleared with the server.
    pub(super) async fn activate(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let disks = &work.home.parts.disks;
        let leased = disks.iter().filter(|disk| disk.leased);
        let leased: BTreeSet<_> =
            leased.filter_map(|disk| Some((disk.storage?, disk.id))).collect();
        if !leased.is_empty() {
            let mut record = self.records.read(work.server).await?.unwrap_or_default();
            record.volumes.extend(leased);
            self.records.write(work.server, &record).await?;
        }
        for disk in disks.iter().filter(|disk| disk.storage.is_some()) {
            if let Storage::Group(group) = self.storage_of(disk.storage).await? {
                group.on(work.leases.get(&disk.id).copied()).activate(disk.id).await?;
            }
        }
        Ok(())
    }

    /// A disk's volume, where others reach it, is active here for its server from now on, or is no more.
    pub(super) async fn note_volume(&self, home: &Home, held: bool) -> Result<(), StorageFault> {
        let (Some(server), Some(storage), true) =
            (home.server, home.storage, home.leases.is_some())
        else {
            return Ok(());
        };
        let mut record = self.records.read(server.uuid()).await?.unwrap_or_default();
        let volume = (storage, home.id);
        let changes =
            if held { record.volumes.insert(volume) } else { record.volumes.remove(&volume) };
        if changes {
            self.records.write(server.uuid(), &record).await?;
        }
        Ok(())
    }

    /// No volume that others reach is active here for a server any more.
    pub(super) async fn deactivate(&self, server: Uuid) -> Result<(), DriverFault> {
        let Some(mut record) = self.records.read(server).await? else { return Ok(()) };
        for (storage, disk) in std::mem::take(&mut record.volumes) {
            self.storage_of(Some(storage)).await?.rest(disk).await?;
        }
        Ok(self.records.write(server, &record).await?)
    }

    /// Whether a disk is where this host reaches it.
    pub(super) async fn is_there(
        &self,
        disk: &parts::Disk,
        path: &Path,
    ) -> Result<bool, StorageFault> {
        match self.storage_of(disk.storage).await? {
            Storage::Group(group) => group.has(disk.id).await,
            Storage::Folder(_) => files::exists(path).await,
        }
    }

    /// The disk of ours that a machine has as this.
    pub(super) fn disk_of(&self, source: &Source) -> Option<Uuid> {
        match source {
            Source::File(path) => self.storage.disk_of(path.as_ref()),
            Source::Block(path) => self.groups.disk_of(path.as_ref()),
        }
    }
}
