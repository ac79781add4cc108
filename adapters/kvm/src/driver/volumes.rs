//! Which storage a disk lies on: the host's own folder, a folder that others have too, or a volume group.

use adapters_libvirt::description::Source;
use commands::ports::DriverFault;
use domain::compute::{server::home::Home, storage::StorageId};
use uuid::Uuid;

use super::{Inner, wanted::Layout};
use crate::storage::{StorageFault, any::Storage};

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

    /// The disks of a server that need a device have one, before it is started.
    pub(super) async fn activate(&self, home: &Home) -> Result<(), DriverFault> {
        for disk in home.parts.disks.iter().filter(|disk| disk.storage.is_some()) {
            if let Storage::Group(group) = self.storage_of(disk.storage).await? {
                group.activate(disk.id).await?;
            }
        }
        Ok(())
    }

    /// The disk of ours that a machine has as this.
    pub(super) fn disk_of(&self, source: &Source) -> Option<Uuid> {
        match source {
            Source::File(path) => self.storage.disk_of(path.as_ref()),
            Source::Block(path) => self.groups.disk_of(path.as_ref()),
        }
    }
}
