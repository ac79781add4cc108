//! Snapshots of a disk in a volume group: each is a volume beside it that keeps what the disk's volume had,
//! chunk by chunk, before it was written. `docs/adr/0043-snapshots-of-a-volume-are-volumes.md` says why.
//!
//! It has room for every chunk, so that it never runs full. It has a device whenever its disk has one, and
//! no other host has either meanwhile. The tag `skyledger-unfinished` goes when it is there; what still has
//! that tag is no snapshot, and makes room for the next attempt.
//!
//! LVM holds the disk's device while it makes or removes one, for a moment. If it is cut off then, the device
//! stands still, and with it a guest that writes. So whoever comes after it lets the device go on.

use domain::compute::storage::{lease::Mode, snapshot_bytes};
use uuid::Uuid;

use super::{
    DISK_TAG, Disk, Format, Origin, StorageFault, UNFINISHED, Volume, VolumeGroup, device_bytes,
    is_unfinished, same, volume,
};
use crate::storage::{any::Storage, differences};

const NAME: &str = "sks-";

fn name(snapshot: Uuid) -> String {
    format!("{NAME}{snapshot}")
}

fn missing(disk: Uuid, snapshot: Uuid) -> StorageFault {
    StorageFault::Missing(format!("snapshot {snapshot} of disk {disk}"))
}

/// The snapshot that a volume is called by.
fn id(volume: &Volume) -> Option<Uuid> {
    let snapshot = volume.name.strip_prefix(NAME)?.parse().ok()?;
    (name(snapshot) == volume.name).then_some(snapshot)
}

impl VolumeGroup {
    /// The volumes that are snapshots of a disk, finished or not.
    async fn beside(&self, disk: Uuid) -> Result<Vec<Volume>, StorageFault> {
        let tag = format!("{DISK_TAG}{disk}");
        let all = self.volumes().await?.into_iter();
        Ok(all.filter(|volume| id(volume).is_some() && volume.tags.contains(&tag)).collect())
    }

    /// The snapshots of a disk, by id, sorted.
    ///
    /// # Errors
    /// The disk is not there, or the host's.
    pub async fn snapshots(&self, disk: Uuid) -> Result<Vec<Uuid>, StorageFault> {
        self.whole(disk).await?;
        let there = self.beside(disk).await?;
        let mut ids: Vec<Uuid> =
            there.iter().filter(|volume| !is_unfinished(volume)).filter_map(id).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// A disk without snapshots: others are lost with its volume, and keep that from growing.
    pub(super) async fn has_none(&self, disk: Uuid) -> Result<(), StorageFault> {
        match self.snapshots(disk).await?.len() {
            0 => Ok(()),
            count => {
                let what = format!("disk {disk} has {count} snapshots: delete them first");
                Err(StorageFault::Unfit(what))
            }
        }
    }

    /// Removes all snapshots of a disk whose volume is not active.
    pub(super) async fn drop_snapshots(&self, disk: Uuid) -> Result<(), StorageFault> {
        for snapshot in self.beside(disk).await? {
            self.by.activation.remove_snapshot(&self.facts.name, &snapshot.name).await?;
        }
        same(disk, "snapshots", self.beside(disk).await?.is_empty(), true)
    }

    /// The volume of a snapshot, by its name and its tag; finished or not.
    async fn look_for(&self, disk: Uuid, snapshot: Uuid) -> Result<Option<Volume>, StorageFault> {
        let (name, tag) = (name(snapshot), format!("{DISK_TAG}{disk}"));
        let found = self.volumes().await?.into_iter().find(|volume| volume.name == name);
        match found {
            Some(found) if !found.tags.contains(&tag) => Err(StorageFault::Differs {
                what: format!("{}/{name}", self.facts.name),
                is: "somebody else's: it is left alone".to_owned(),
                wanted: format!("tagged {tag}"),
            }),
            found => Ok(found),
        }
    }

    /// The volume of a disk, which this host has, or may have, alone.
    async fn alone(&self, disk: Uuid) -> Result<Volume, StorageFault> {
        let origin = self.whole(disk).await?;
        match self.check_lease(&origin)? {
            Some(Mode::Shared) => Err(StorageFault::Unfit(format!(
                "{}/{} is on its way to another host, and two hosts have no snapshots of it",
                self.facts.name, origin.name
            ))),
            None | Some(Mode::Exclusive) => Ok(origin),
        }
    }

    /// Whether a disk has a device on this host now.
    pub async fn is_active(&self, disk: Uuid) -> bool {
        device_bytes(&self.path(disk)).await.is_ok()
    }

    /// Takes a snapshot of a disk, whether a server has it or not, unless it is there. The disk is active
    /// afterwards.
    ///
    /// # Errors
    /// The disk is not there, another host may have it, there is no room; and the host's.
    pub async fn take_snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<(), StorageFault> {
        let (group, of, name) = (&self.facts.name, volume(disk), name(snapshot));
        let origin = self.alone(disk).await?;
        let left = self.look_for(disk, snapshot).await?;
        if left.as_ref().is_some_and(|left| !is_unfinished(left)) {
            return Ok(());
        }
        self.activate(disk).await?;
        if left.is_some() {
            self.by.activation.refresh(group, &of).await?;
            self.by.activation.remove_snapshot(group, &name).await?;
        }
        let bytes = snapshot_bytes(origin.size_bytes, self.facts.extent_bytes);
        self.check_room(disk, bytes).await?;
        let tag = format!("{DISK_TAG}{disk}");
        let tags = [tag.as_str(), UNFINISHED];
        self.by.activation.snapshot(group, &of, &name, bytes, &tags).await?;
        let made = self.look_for(disk, snapshot).await?;
        let made = made.ok_or_else(|| missing(disk, snapshot))?;
        // LVM makes it smaller where it finds that enough; less than the disk is not.
        same(disk, "room for what is written", made.size_bytes > origin.size_bytes, true)?;
        let device = self.devices().join(&name);
        same(disk, "bytes of a snapshot", device_bytes(&device).await?, origin.size_bytes)?;
        self.by.lvm.remove_tag(group, &name, UNFINISHED).run().await?;
        self.snapshot(disk, snapshot).await.map(drop)
    }

    /// The volume of a snapshot that is whole.
    async fn snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<Volume, StorageFault> {
        let found = self.look_for(disk, snapshot).await?.filter(|found| !is_unfinished(found));
        found.ok_or_else(|| missing(disk, snapshot))
    }

    /// Makes a disk that no server uses what it was at a snapshot, by writing what differs: that and all
    /// others stay as they are. It can be run again. The disk is active afterwards.
    ///
    /// # Errors
    /// There is no such snapshot, another host may have the disk; and the host's.
    pub async fn roll_back(&self, disk: Uuid, snapshot: Uuid) -> Result<Disk, StorageFault> {
        self.alone(disk).await?;
        let from = self.devices().join(self.snapshot(disk, snapshot).await?.name);
        let is = self.activate(disk).await?;
        same(disk, "bytes of a snapshot", device_bytes(&from).await?, is.size_bytes)?;
        differences::write(&from, &is.path).await?;
        Ok(is)
    }

    /// Removes a snapshot of a disk, whether a server has it or not; that there is none is the same end.
    ///
    /// # Errors
    /// The disk is not there, or another host may have it; and the host's.
    pub async fn delete_snapshot(&self, disk: Uuid, snapshot: Uuid) -> Result<(), StorageFault> {
        let origin = self.alone(disk).await?;
        match self.look_for(disk, snapshot).await? {
            Some(found) => {
                self.by.activation.remove_snapshot(&self.facts.name, &found.name).await?;
            }
            None if self.is_active(disk).await => {
                self.by.activation.refresh(&self.facts.name, &origin.name).await?;
            }
            None => {}
        }
        same(disk, "snapshots of this id", self.look_for(disk, snapshot).await?.is_some(), false)
    }

    /// Makes a disk on any storage with all that a disk which no server uses was at a snapshot. It may be
    /// larger. The disk whose snapshot it is is active afterwards.
    ///
    /// # Errors
    /// There is no such snapshot, another host may have its disk; and as [`Storage::copy`].
    pub async fn copy_snapshot(
        &self,
        (from, snapshot): (Uuid, Uuid),
        into: &Storage,
        (disk, format, size_bytes): (Uuid, Format, u64),
    ) -> Result<Disk, StorageFault> {
        self.alone(from).await?;
        let path = self.devices().join(self.snapshot(from, snapshot).await?.name);
        self.activate(from).await?;
        let origin =
            Origin { path: &path, format: Format::Raw, size_bytes: device_bytes(&path).await? };
        into.copy_of((origin, None), disk, format, size_bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_known_by_its_own_spelling_and_fits_in_a_name_of_device_mapper() {
        let called =
            |name: &str| id(&Volume { name: name.to_owned(), size_bytes: 0, tags: [].into() });
        let snapshot = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_00ab);
        assert_eq!(called(&name(snapshot)), Some(snapshot));
        for other in [
            format!("sk-{snapshot}"),
            format!("{NAME}{}", snapshot.simple()),
            format!("{}.again", name(snapshot)),
            "snapshots".to_owned(),
        ] {
            assert_eq!(called(&other), None, "{other}");
        }
        // What keeps its copies has a device `<group>-<name>-cow`, each dash of the names twice, of 127 bytes
        // at most: no longer than what a disk with snapshots lies on, `<group>-<name>-real`.
        let doubled = |name: String| name.replace('-', "--").len();
        assert!(
            doubled(name(snapshot)) + "-cow".len() <= doubled(volume(snapshot)) + "-real".len()
        );
    }
}
