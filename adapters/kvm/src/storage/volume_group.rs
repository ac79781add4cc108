//! Disks as logical volumes, in a volume group that is this host's alone, or that LVM locks between the
//! hosts that share it.
//!
//! ```text
//! <group>                       tag skyledger-storage=<id>: the group is a storage
//! <group>/sk-<disk id>          tag skyledger-disk=<disk id>: a disk
//!                               tag skyledger-unfinished: one that is being made
//!                               tag skyledger-zero-from=<bytes>: grown, and not yet zeroes from there on
//! <group>/sk-<disk id>.again    one that is to take its disk's place
//!                               tag skyledger-lease=<epoch>: the latest lease, in a group that is shared
//! <group>/sks-<snapshot id>     tag skyledger-disk=<disk id>: a snapshot of a disk, see [`snapshot`]
//! ```
//!
//! A volume without the tag of its disk is somebody else's, whatever its name: it is never touched. What
//! LVM knows of a volume is changed at once or not at all, so a disk is whole when its last tag says no
//! more that it is being made; everything can be run again. After each change LVM is asked once more.
//!
//! A new volume holds what was there before, of another owner perhaps. So all of it is zeroed before it is
//! a disk, and what it grows by before a server sees that. Removed, it is not wiped.
//!
//! A volume is active, and then a device, from when a server of its own needs it; a start of the host
//! activates none. In a group that is shared it is activated on a lease only, which comes along with an
//! order: exclusive, by LVM's own lock, but while its server goes from one host to another. An order whose
//! lease is older than the one that is written on the volume is over.

mod snapshot;

use std::{
    collections::BTreeMap,
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use domain::compute::{
    self,
    storage::{
        StorageId,
        lease::{Lease, Mode},
    },
};
use tokio::{fs, io::AsyncSeekExt as _};
use uuid::Uuid;

use super::{
    StorageFault,
    directory::{Disk, Origin, check_origin, check_size, same},
    files,
    lvm::{self, Group, Lvm, Volume},
    qemu_img::{self, Format},
};

/// What a group's tag begins with that is a storage; its id follows.
pub const STORAGE_TAG: &str = "skyledger-storage=";
const DISK_TAG: &str = "skyledger-disk=";
const UNFINISHED: &str = "skyledger-unfinished";
const ZERO_FROM: &str = "skyledger-zero-from=";
const LEASE_TAG: &str = "skyledger-lease=";
const AGAIN: &str = ".again";

/// What makes devices of volumes: the kernel's device-mapper, by LVM.
#[async_trait]
pub trait Activation: Send + Sync + 'static {
    /// A volume has a device from now on; so it may have already. In a group that is shared it says how.
    ///
    /// # Errors
    /// Another host has it; the host's.
    async fn activate(
        &self,
        group: &str,
        volume: &str,
        mode: Option<Mode>,
    ) -> Result<(), StorageFault>;

    /// A volume has no device any more.
    ///
    /// # Errors
    /// Something uses it; the host's.
    async fn deactivate(&self, group: &str, volume: &str) -> Result<(), StorageFault>;

    /// The device of a volume is as large as the volume is by now.
    ///
    /// # Errors
    /// The host's.
    async fn refresh(&self, group: &str, volume: &str) -> Result<(), StorageFault>;

    /// Makes a snapshot of a volume that has a device, which has one as well from now on: as
    /// [`Lvm::snapshot`] does.
    ///
    /// # Errors
    /// The host's.
    async fn snapshot(
        &self,
        group: &str,
        of: &str,
        volume: &str,
        size_bytes: u64,
        tags: &[&str],
    ) -> Result<(), StorageFault>;

    /// Removes a snapshot, with the device that it has while its volume has one.
    ///
    /// # Errors
    /// Something uses it; the host's.
    async fn remove_snapshot(&self, group: &str, volume: &str) -> Result<(), StorageFault>;
}

#[async_trait]
impl Activation for Lvm {
    async fn activate(
        &self,
        group: &str,
        volume: &str,
        mode: Option<Mode>,
    ) -> Result<(), StorageFault> {
        Ok(Lvm::activate(self, group, volume, mode).run().await.map(drop)?)
    }

    async fn deactivate(&self, group: &str, volume: &str) -> Result<(), StorageFault> {
        Ok(Lvm::deactivate(self, group, volume).run().await.map(drop)?)
    }

    async fn refresh(&self, group: &str, volume: &str) -> Result<(), StorageFault> {
        Ok(Lvm::refresh(self, group, volume).run().await.map(drop)?)
    }

    async fn snapshot(
        &self,
        group: &str,
        of: &str,
        volume: &str,
        size_bytes: u64,
        tags: &[&str],
    ) -> Result<(), StorageFault> {
        Ok(Lvm::snapshot(self, group, of, volume, size_bytes, tags).run().await.map(drop)?)
    }

    async fn remove_snapshot(&self, group: &str, volume: &str) -> Result<(), StorageFault> {
        Ok(self.remove(group, volume).run().await.map(drop)?)
    }
}

/// The volume groups that a host was told of.
#[derive(Clone)]
pub struct VolumeGroups {
    names: Vec<String>,
    lvm: Lvm,
    devices: PathBuf,
    activation: Arc<dyn Activation>,
}

impl Default for VolumeGroups {
    /// None.
    fn default() -> Self {
        let lvm = Lvm::default();
        let activation = Arc::new(lvm.clone());
        Self { names: Vec::new(), lvm, devices: PathBuf::from("/dev"), activation }
    }
}

impl VolumeGroups {
    /// These groups; they need not be there yet.
    ///
    /// # Errors
    /// One has a name that no group has.
    pub fn new(names: Vec<String>) -> Result<Self, StorageFault> {
        if let Some(name) = names.iter().find(|name| !lvm::is_name(name)) {
            return Err(StorageFault::Unfit(format!("{name}: no volume group is called so")));
        }
        Ok(Self { names, ..Self::default() })
    }

    /// What they are called.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// With other settings of LVM, and with something else that makes devices, in a folder of this
    /// shape: `<devices>/<group>/<volume>`.
    #[must_use]
    pub fn by(self, lvm: Lvm, devices: PathBuf, activation: Arc<dyn Activation>) -> Self {
        Self { lvm, devices, activation, ..self }
    }

    /// Those that are there now and are storages, by id. Of two groups with one id only the first counts.
    ///
    /// # Errors
    /// LVM cannot be asked. It is not asked where the host was told of none.
    pub async fn there(&self) -> Result<BTreeMap<StorageId, VolumeGroup>, StorageFault> {
        let mut there = BTreeMap::new();
        if self.names.is_empty() {
            return Ok(there);
        }
        let tool = self.lvm.groups();
        let groups = lvm::read_groups(&tool, &tool.run().await?)?;
        for name in &self.names {
            let group = groups.iter().find(|group| group.name == *name);
            match group.map_or_else(|| Err("it is not there".to_owned()), id) {
                Ok(id) => {
                    let Some(facts) = group.cloned() else { continue };
                    let group = VolumeGroup { facts, by: self.clone(), lease: None };
                    there.entry(id).or_insert(group);
                }
                Err(why) => tracing::warn!(group = name, why, "a volume group is left out"),
            }
        }
        Ok(there)
    }

    /// The disk that a device is of.
    pub fn disk_of(&self, path: &Path) -> Option<Uuid> {
        let group = path.parent()?;
        let is_ours = self.names.iter().any(|name| group == self.devices.join(name));
        let name = path.file_name()?.to_str().filter(|_| is_ours)?;
        let id = name.strip_prefix("sk-")?;
        id.parse().ok().filter(|disk| volume(*disk) == name)
    }
}

/// Whether a volume is a disk of ours, or is becoming one.
fn is_ours(volume: &Volume) -> bool {
    volume.tags.iter().any(|tag| tag.starts_with(DISK_TAG))
}

/// The id of a group that is a storage of this host.
fn id(group: &Group) -> Result<StorageId, String> {
    let mut ids = group.tags.iter().filter_map(|tag| tag.strip_prefix(STORAGE_TAG));
    let id = ids.next().ok_or_else(|| format!("it has no tag {STORAGE_TAG} with an id"))?;
    if ids.next().is_some() {
        return Err(format!("it has two tags {STORAGE_TAG}"));
    }
    if !["", "dlm", "sanlock"].contains(&group.lock.as_str()) {
        return Err(format!("how hosts share it is not known: {}", group.lock));
    }
    id.parse().map_err(|_| format!("{id}: is no id, one UUID"))
}

fn volume(disk: Uuid) -> String {
    format!("sk-{disk}")
}

fn missing(disk: Uuid) -> StorageFault {
    StorageFault::Missing(format!("disk {disk}"))
}

/// A volume group, as it was when it was looked for.
#[derive(Clone)]
pub struct VolumeGroup {
    facts: Group,
    by: VolumeGroups,
    lease: Option<Lease>,
}

/// What there is of a disk.
#[derive(Default)]
struct There {
    disk: Option<Volume>,
    again: Option<Volume>,
}

impl VolumeGroup {
    /// The same, for an order that came with this lease of its disk, or with none.
    #[must_use]
    pub fn on(self, lease: Option<Lease>) -> Self {
        Self { lease, ..self }
    }

    /// Its name on the host.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// What its host says of it.
    ///
    /// # Errors
    /// The host's.
    pub async fn facts(&self) -> Result<compute::storage::VolumeGroup, StorageFault> {
        let ours = self.volumes().await?.into_iter().filter(is_ours);
        let ours_bytes: u64 = ours.map(|volume| volume.size_bytes).sum();
        Ok(compute::storage::VolumeGroup {
            name: self.facts.name.clone(),
            size_mib: self.facts.size_bytes >> 20,
            free_mib: self.facts.free_bytes >> 20,
            ours_mib: Some(ours_bytes >> 20),
            extent_kib: self.facts.extent_bytes >> 10,
            lock: self.facts.lock.clone(),
        })
    }

    /// The folder of its devices.
    pub fn devices(&self) -> PathBuf {
        self.by.devices.join(&self.facts.name)
    }

    /// The device of a disk, once it is active.
    pub fn path(&self, disk: Uuid) -> PathBuf {
        self.devices().join(volume(disk))
    }

    /// The volumes that are of disks of ours, by name; such as are being made among them.
    ///
    /// # Errors
    /// The host's.
    pub async fn list(&self) -> Result<Vec<String>, StorageFault> {
        let volumes = self.volumes().await?.into_iter().filter(is_ours);
        Ok(volumes.map(|volume| volume.name).collect())
    }

    async fn volumes(&self) -> Result<Vec<Volume>, StorageFault> {
        let tool = self.by.lvm.volumes(&self.facts.name);
        Ok(lvm::read_volumes(&tool, &tool.run().await?)?)
    }

    /// What there is of a disk, by its names and its tag.
    async fn look(&self, disk: Uuid) -> Result<There, StorageFault> {
        let (name, tag) = (volume(disk), format!("{DISK_TAG}{disk}"));
        let mut there = There::default();
        for found in self.volumes().await? {
            let place = match found.name.strip_prefix(&name) {
                Some("") => &mut there.disk,
                Some(AGAIN) => &mut there.again,
                _ => continue,
            };
            if !found.tags.contains(&tag) {
                return Err(StorageFault::Differs {
                    what: format!("{}/{}", self.facts.name, found.name),
                    is: "somebody else's: it is left alone".to_owned(),
                    wanted: format!("tagged {tag}"),
                });
            }
            *place = Some(found);
        }
        Ok(there)
    }

    /// The volume of a disk that is whole. A disk that was made again, wholly, takes its place first.
    async fn find(&self, disk: Uuid) -> Result<Option<Volume>, StorageFault> {
        let there = self.look(disk).await?;
        if there.again.as_ref().is_none_or(is_unfinished) {
            return Ok(there.disk.filter(|volume| !is_unfinished(volume)));
        }
        if let Some(old) = there.disk {
            self.drop_volume(&old.name).await?;
        }
        let (name, again) = (volume(disk), format!("{}{AGAIN}", volume(disk)));
        self.by.activation.deactivate(&self.facts.name, &again).await?;
        self.by.lvm.rename(&self.facts.name, &again, &name).run().await?;
        let there = self.look(disk).await?;
        there.disk.map(Some).ok_or_else(|| missing(disk))
    }

    async fn drop_volume(&self, name: &str) -> Result<(), StorageFault> {
        self.by.activation.deactivate(&self.facts.name, name).await?;
        self.by.lvm.remove(&self.facts.name, name).run().await?;
        Ok(())
    }

    /// Begins to make a volume: it is there, active, and all zeroes.
    async fn begin(
        &self,
        disk: Uuid,
        name: &str,
        size_bytes: u64,
    ) -> Result<PathBuf, StorageFault> {
        let there = self.look(disk).await?;
        let left = [there.disk, there.again].into_iter().flatten();
        for left in left.filter(|volume| volume.name == name && is_unfinished(volume)) {
            self.drop_volume(&left.name).await?;
        }
        self.check_room(disk, size_bytes).await?;
        let tag = format!("{DISK_TAG}{disk}");
        let tags = [tag.as_str(), UNFINISHED];
        self.by.lvm.create(&self.facts.name, name, size_bytes, &tags).run().await?;
        let there = self.look(disk).await?;
        let mut made = [there.disk, there.again].into_iter().flatten();
        let made = made.find(|volume| volume.name == name).ok_or_else(|| missing(disk))?;
        same(disk, "bytes", made.size_bytes, size_bytes)?;
        let path = self.activated(&made).await?;
        lvm::zero(&path.to_string_lossy(), 0, size_bytes).run().await?;
        Ok(path)
    }

    async fn check_room(&self, disk: Uuid, size_bytes: u64) -> Result<(), StorageFault> {
        let (group, extent) = (&self.facts.name, self.facts.extent_bytes);
        if extent == 0 || !size_bytes.is_multiple_of(extent) {
            let what = format!("{group} is cut in {extent} bytes, and {size_bytes} is no multiple");
            return Err(StorageFault::Unfit(what));
        }
        let tool = self.by.lvm.groups();
        let groups = lvm::read_groups(&tool, &tool.run().await?)?;
        let free = groups.iter().find(|one| one.name == *group).map_or(0, |one| one.free_bytes);
        if free < size_bytes {
            let what =
                format!("{group} has {free} bytes left, and disk {disk} wants {size_bytes} more");
            return Err(StorageFault::Unfit(what));
        }
        Ok(())
    }

    /// A volume that was begun is whole, once it is on the medium.
    async fn finish(&self, disk: Uuid, name: &str) -> Result<(), StorageFault> {
        files::sync(&self.devices().join(name)).await?;
        self.by.lvm.remove_tag(&self.facts.name, name, UNFINISHED).run().await?;
        let there = self.look(disk).await?;
        let mut made = [there.disk, there.again].into_iter().flatten();
        if made.any(|volume| volume.name == name && !is_unfinished(&volume)) {
            return Ok(());
        }
        Err(missing(disk))
    }

    /// The device of a volume, as large as the volume.
    async fn activated(&self, volume: &Volume) -> Result<PathBuf, StorageFault> {
        let (path, group) = (self.devices().join(&volume.name), &self.facts.name);
        let mode = self.check_lease(volume)?;
        self.by.activation.activate(group, &volume.name, mode).await?;
        self.write_epoch(volume).await?;
        let mut bytes = device_bytes(&path).await?;
        if bytes != volume.size_bytes {
            // It has grown since it is active.
            self.by.activation.refresh(group, &volume.name).await?;
            bytes = device_bytes(&path).await?;
        }
        if bytes == volume.size_bytes {
            return Ok(path);
        }
        Err(StorageFault::Differs {
            what: format!("the device {}", path.display()),
            is: format!("of {bytes} bytes"),
            wanted: format!("of {}", volume.size_bytes),
        })
    }

    /// How the host may have a volume active; as it likes where nobody shares the group.
    fn check_lease(&self, volume: &Volume) -> Result<Option<Mode>, StorageFault> {
        if self.facts.lock.is_empty() {
            return Ok(None);
        }
        let (group, name, latest) = (&self.facts.name, &volume.name, epoch(volume));
        match self.lease {
            Some(lease) if lease.epoch >= latest => Ok(Some(lease.mode)),
            Some(lease) => Err(StorageFault::Unfit(format!(
                "the lease of {group}/{name} in epoch {} is over: another host has it in {latest}",
                lease.epoch
            ))),
            None => {
                let what = format!("{group}/{name} is shared, and this host has no lease of it");
                Err(StorageFault::Unfit(what))
            }
        }
    }

    /// Says on a volume that this host alone has it from now on.
    async fn write_epoch(&self, volume: &Volume) -> Result<(), StorageFault> {
        let lease = self.lease.filter(|lease| lease.mode == Mode::Exclusive);
        let Some(lease) = lease.filter(|_| !self.facts.lock.is_empty()) else { return Ok(()) };
        let (group, name) = (&self.facts.name, &volume.name);
        let mine = format!("{LEASE_TAG}{}", lease.epoch);
        if !volume.tags.contains(&mine) {
            self.by.lvm.add_tag(group, name, &mine).run().await?;
        }
        let old = volume.tags.iter().filter(|tag| tag.starts_with(LEASE_TAG) && **tag != mine);
        for old in old {
            self.by.lvm.remove_tag(group, name, old).run().await?;
        }
        Ok(())
    }

    /// No host has the disk's device from here on, as far as this one is concerned.
    ///
    /// # Errors
    /// Something uses it; the host's.
    pub async fn deactivate(&self, disk: Uuid) -> Result<(), StorageFault> {
        match self.find(disk).await? {
            Some(volume) => self.by.activation.deactivate(&self.facts.name, &volume.name).await,
            None => Ok(()),
        }
    }

    /// What a volume has grown by is zeroes, if it is not yet. No server has seen that part.
    async fn zero_growth(&self, disk: Uuid, volume: &Volume) -> Result<(), StorageFault> {
        let Some((tag, from)) = zero_from(volume) else { return Ok(()) };
        let path = self.devices().join(&volume.name);
        let zero = lvm::zero(&path.to_string_lossy(), from, volume.size_bytes);
        if from < volume.size_bytes {
            zero.run().await?;
            files::sync(&path).await?;
        }
        self.by.lvm.remove_tag(&self.facts.name, &volume.name, &tag).run().await?;
        let there = self.whole(disk).await?;
        same(disk, "bytes to zero", zero_from(&there).is_some(), false)
    }

    async fn whole(&self, disk: Uuid) -> Result<Volume, StorageFault> {
        self.find(disk).await?.ok_or_else(|| missing(disk))
    }

    fn disk(&self, disk: Uuid, volume: &Volume) -> Disk {
        Disk {
            path: self.path(disk),
            format: Format::Raw,
            size_bytes: volume.size_bytes,
            taken_bytes: volume.size_bytes,
            backing: Vec::new(),
        }
    }

    /// The disk, when an earlier run has made it.
    async fn made(&self, disk: Uuid, size_bytes: u64) -> Result<Option<Disk>, StorageFault> {
        let Some(there) = self.find(disk).await? else { return Ok(None) };
        same(disk, "bytes", there.size_bytes, size_bytes)?;
        Ok(Some(self.disk(disk, &there)))
    }

    /// Looks at a disk, also while a server has it.
    ///
    /// # Errors
    /// It is not there, or the host's.
    pub async fn inspect(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        Ok(self.disk(disk, &self.whole(disk).await?))
    }

    /// Whether a disk is here.
    ///
    /// # Errors
    /// The host's.
    pub async fn has(&self, disk: Uuid) -> Result<bool, StorageFault> {
        Ok(self.find(disk).await?.is_some())
    }

    /// A disk with its device, ready to be used.
    ///
    /// # Errors
    /// It is not there, or the host's.
    pub async fn activate(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        let volume = self.whole(disk).await?;
        // Without a lease one that is active already is read as it is, for a backup.
        let is_shared = !self.facts.lock.is_empty() && self.lease.is_none();
        if is_shared && device_bytes(&self.path(disk)).await.is_ok_and(|is| is == volume.size_bytes)
        {
            return Ok(self.disk(disk, &volume));
        }
        self.activated(&volume).await?;
        self.zero_growth(disk, &volume).await?;
        Ok(self.disk(disk, &volume))
    }

    /// Makes an empty disk.
    ///
    /// # Errors
    /// A disk of this id is there with another size, there is no room, or the host's.
    pub async fn create(&self, disk: Uuid, size_bytes: u64) -> Result<Disk, StorageFault> {
        match self.begin_filled(disk, size_bytes).await? {
            None => self.inspect(disk).await,
            Some(_) => self.finish_filled(disk, size_bytes).await,
        }
    }

    /// Makes a disk with all that a file reads as, or read as at one of its snapshots. It may be larger.
    ///
    /// # Errors
    /// As [`Self::create`]; and when the size is less than the origin's.
    pub async fn copy(
        &self,
        disk: Uuid,
        (origin, snapshot): (Origin<'_>, Option<Uuid>),
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        check_origin(origin, size_bytes)?;
        match self.begin_filled(disk, size_bytes).await? {
            None => self.inspect(disk).await,
            Some(path) => {
                let bytes = origin.size_bytes;
                let from = (origin.path, origin.format, snapshot);
                qemu_img::convert_onto(from, &path, bytes).run().await?;
                self.finish_filled(disk, size_bytes).await
            }
        }
    }

    /// Begins to make a disk that somebody else fills: a device that reads as zeroes. None when the disk
    /// is there.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn begin_filled(
        &self,
        disk: Uuid,
        size_bytes: u64,
    ) -> Result<Option<PathBuf>, StorageFault> {
        check_size(size_bytes)?;
        if self.made(disk, size_bytes).await?.is_some() {
            return Ok(None);
        }
        self.begin(disk, &volume(disk), size_bytes).await.map(Some)
    }

    /// A disk that was filled is whole.
    ///
    /// # Errors
    /// It is another than was begun, and the host's.
    pub async fn finish_filled(&self, disk: Uuid, size_bytes: u64) -> Result<Disk, StorageFault> {
        self.finish(disk, &volume(disk)).await?;
        self.made(disk, size_bytes).await?.ok_or_else(|| missing(disk))
    }

    /// Whether a disk that is there can be made from another file again.
    ///
    /// # Errors
    /// It is not there, is smaller than the other file, or has snapshots.
    pub async fn check_again(&self, disk: Uuid, origin: Origin<'_>) -> Result<(), StorageFault> {
        check_origin(origin, self.whole(disk).await?.size_bytes)?;
        self.has_none(disk).await
    }

    /// Makes a disk from another file again, as large as it was. It is the old disk until it is the new
    /// one; the group needs room for both.
    ///
    /// # Errors
    /// As [`Self::check_again`], there is no room, and the host's.
    pub async fn make_again(&self, disk: Uuid, origin: Origin<'_>) -> Result<Disk, StorageFault> {
        self.check_again(disk, origin).await?;
        let path = self.begin_again(disk, origin.size_bytes).await?;
        let from = (origin.path, origin.format, None);
        qemu_img::convert_onto(from, &path, origin.size_bytes).run().await?;
        self.replace(disk).await
    }

    /// Begins to make a disk anew that is there: a device as large, all zeroes, that somebody else fills
    /// and that [`Self::replace`] puts in its place. It is to hold so many bytes.
    ///
    /// # Errors
    /// The disk is not there, is smaller or has snapshots, there is no room, and the host's.
    pub async fn begin_again(&self, disk: Uuid, holds_bytes: u64) -> Result<PathBuf, StorageFault> {
        let is = self.whole(disk).await?;
        self.has_none(disk).await?;
        if holds_bytes > is.size_bytes {
            return Err(StorageFault::Smaller {
                what: "what is written back".to_owned(),
                is_bytes: holds_bytes,
                wanted_bytes: is.size_bytes,
            });
        }
        self.begin(disk, &format!("{}{AGAIN}", volume(disk)), is.size_bytes).await
    }

    /// Puts a disk that was made anew in the place of the one that was there. No server uses it.
    ///
    /// # Errors
    /// The host's.
    pub async fn replace(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        if self.look(disk).await?.again.is_some_and(|again| is_unfinished(&again)) {
            self.finish(disk, &format!("{}{AGAIN}", volume(disk))).await?;
        }
        self.inspect(disk).await
    }

    /// Makes a disk larger, also while a server has it, who is told afterwards.
    ///
    /// # Errors
    /// It is not there, is larger already or has snapshots, there is no room; and the host's.
    pub async fn grow(&self, disk: Uuid, size_bytes: u64) -> Result<Disk, StorageFault> {
        check_size(size_bytes)?;
        let is = self.whole(disk).await?;
        if is.size_bytes > size_bytes {
            return Err(StorageFault::Smaller {
                what: format!("disk {disk}"),
                is_bytes: is.size_bytes,
                wanted_bytes: size_bytes,
            });
        }
        let (group, name) = (&self.facts.name, volume(disk));
        if is.size_bytes < size_bytes {
            self.has_none(disk).await?;
            self.check_room(disk, size_bytes - is.size_bytes).await?;
            self.activate(disk).await?;
            let tag = format!("{ZERO_FROM}{}", is.size_bytes);
            self.by.lvm.add_tag(group, &name, &tag).run().await?;
            self.by.lvm.extend(group, &name, size_bytes).run().await?;
        }
        // Also when an earlier run was cut off before that.
        let grown = self.activate(disk).await?;
        same(disk, "bytes", grown.size_bytes, size_bytes)?;
        Ok(grown)
    }

    /// Removes a disk with its snapshots, and what is left of one that was being made. What it held is not
    /// wiped: a volume that is made where it was is.
    ///
    /// # Errors
    /// Something uses it; the host's.
    pub async fn delete(&self, disk: Uuid) -> Result<(), StorageFault> {
        let there = self.look(disk).await?;
        for volume in [&there.again, &there.disk].into_iter().flatten() {
            self.check_lease(volume)?;
            self.by.activation.deactivate(&self.facts.name, &volume.name).await?;
        }
        // First: without its disk nobody would know what they are.
        self.drop_snapshots(disk).await?;
        for volume in [there.again, there.disk].into_iter().flatten() {
            self.drop_volume(&volume.name).await?;
        }
        let there = self.look(disk).await?;
        same(disk, "volumes", there.disk.is_some() || there.again.is_some(), false)
    }
}

async fn device_bytes(path: &Path) -> Result<u64, StorageFault> {
    let fault = || StorageFault::file("cannot open the device", path);
    let mut device = fs::File::open(path).await.map_err(fault())?;
    device.seek(SeekFrom::End(0)).await.map_err(fault())
}

fn is_unfinished(volume: &Volume) -> bool {
    volume.tags.contains(UNFINISHED)
}

/// The latest epoch that is written on a volume.
fn epoch(volume: &Volume) -> u64 {
    let epochs = volume.tags.iter().filter_map(|tag| tag.strip_prefix(LEASE_TAG)?.parse().ok());
    epochs.max().unwrap_or_default()
}

/// From where on a volume is to be zeroed, and the tag that says so. Of several the first counts.
fn zero_from(volume: &Volume) -> Option<(String, u64)> {
    let from = |tag: &String| Some((tag.clone(), tag.strip_prefix(ZERO_FROM)?.parse().ok()?));
    volume.tags.iter().filter_map(from).min_by_key(|(_, from)| *from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_device_of_ours_is_known_by_its_name_and_group() {
        let groups = VolumeGroups::new(vec!["vg-0".to_owned()]).unwrap();
        let id = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_00ab);
        let of = |path: String| groups.disk_of(Path::new(&path));
        assert_eq!(of(format!("/dev/vg-0/sk-{id}")), Some(id));
        for other in [
            format!("/dev/vg-1/sk-{id}"),
            format!("/dev/vg-0/{id}"),
            format!("/dev/vg-0/sk-{id}.again"),
            format!("/dev/vg-0/sk-{}", id.simple()),
            format!("/dev/mapper/vg--0-sk-{id}"),
        ] {
            assert_eq!(of(other.clone()), None, "{other}");
        }
        assert!(VolumeGroups::new(vec!["--yes".to_owned()]).is_err());
    }

    #[test]
    fn a_volume_that_hosts_share_is_active_on_a_lease_that_is_not_over() {
        let facts = |lock: &str| Group {
            name: "san".to_owned(),
            size_bytes: 0,
            free_bytes: 0,
            extent_bytes: 0,
            tags: BTreeSet::new(),
            lock: lock.to_owned(),
        };
        let group = |lock: &str, lease| {
            VolumeGroup { facts: facts(lock), by: VolumeGroups::default(), lease: None }.on(lease)
        };
        let written = |epochs: &[u64]| Volume {
            name: "sk-1".to_owned(),
            size_bytes: 0,
            tags: epochs.iter().map(|epoch| format!("{LEASE_TAG}{epoch}")).collect(),
        };
        let lease = |mode, epoch| Some(Lease { mode, epoch });
        let mode = |lock, lease, epochs: &[u64]| group(lock, lease).check_lease(&written(epochs));
        assert_eq!(mode("", None, &[]).unwrap(), None, "nobody shares it");
        for (held, epochs) in
            [(Mode::Exclusive, &[1, 2][..]), (Mode::Shared, &[2]), (Mode::Shared, &[])]
        {
            assert_eq!(mode("sanlock", lease(held, 2), epochs).unwrap(), Some(held));
        }
        let said = |lease, epochs: &[u64]| mode("sanlock", lease, epochs).unwrap_err().to_string();
        assert!(said(None, &[]).contains("no lease"));
        assert!(said(lease(Mode::Exclusive, 2), &[1, 3]).contains("another host has it in 3"));
    }

    #[test]
    fn a_group_is_a_storage_by_its_tag() {
        let group = |tags: &[&str], lock: &str| Group {
            name: "vg0".to_owned(),
            size_bytes: 0,
            free_bytes: 0,
            extent_bytes: 0,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            lock: lock.to_owned(),
        };
        let storage = "01990000-0000-7000-8000-0000000000aa";
        let tag = format!("{STORAGE_TAG}{storage}");
        assert_eq!(id(&group(&["fast", &tag], "")), Ok(storage.parse().unwrap()));
        let no = |tags: &[&str], lock: &str, why: &str| {
            let said = id(&group(tags, lock)).unwrap_err();
            assert!(said.contains(why), "{said}");
        };
        no(&["fast"], "", "no tag");
        no(&[&tag, &format!("{STORAGE_TAG}2")], "", "two tags");
        no(&[&format!("{STORAGE_TAG}2")], "", "is no id");
        assert!(id(&group(&[&tag], "sanlock")).is_ok());
        no(&[&tag], "clvm", "is not known");
    }
}
