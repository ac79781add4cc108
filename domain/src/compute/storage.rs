//! Storage beside a host's own folder: a folder that several hosts have mounted, of an NFS server for
//! instance, or a volume group of LVM.
//!
//! It is no resource of its own. A file in the folder holds its id, and so does a tag of the volume
//! group; a host that has it reads it there and says so: two hosts that say the same id have the same
//! folder, wherever each of them has mounted it. A disk that lies there can be had by a server on any of
//! them, and goes with its server to another one without being copied.
//!
//! A disk in a volume group is a logical volume: its bytes and nothing else, so it is raw, and each of its
//! snapshots is a volume beside it. A group is its
//! host's alone, or shared by hosts whose LVM locks it; then each volume is active on a [`lease`]. Where
//! two hosts say that they have one and do not lock it, nothing is made in it, for nobody keeps them from
//! changing it at once.

pub mod lease;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::placement::HostId;
use crate::kernel::{Id, Refusal, codes};

/// A folder that several hosts reach, or a volume group.
#[derive(Debug)]
pub struct Storage;

/// The id of such a folder or group, which lies in it.
pub type StorageId = Id<Storage>;

/// How a disk lies on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DiskFormat")]
pub enum Format {
    /// QEMU's.
    Qcow2,
    /// Block by block.
    Raw,
}

/// A volume group, as its host sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeGroup {
    /// Its name on the host.
    pub name: String,
    /// How large it is, in MiB.
    pub size_mib: u64,
    /// What no volume has, in MiB.
    pub free_mib: u64,
    /// What volumes of ours have, in MiB. None of an agent that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours_mib: Option<u64>,
    /// What volumes are cut in, in KiB.
    pub extent_kib: u64,
    /// How LVM locks it between the hosts that share it, `sanlock` or `dlm`; empty for one host's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
}

/// What hosts say of a volume group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouped {
    /// Each that has it, and whether it says that LVM locks it.
    pub hosts: BTreeMap<HostId, bool>,
    /// What there is of it; none where no host says it.
    pub room: Option<GroupRoom>,
}

/// What of a volume is copied at once, in bytes, when it is written and was not since a snapshot.
pub const SNAPSHOT_CHUNK_BYTES: u64 = 64 << 10;
/// What LVM writes down of each such copy, in bytes.
const COPIED_BYTES: u64 = 16;

/// What a snapshot of a volume takes of its group, in bytes: room for a copy of every chunk, and for what
/// LVM writes down of them. So it never runs full, whatever is written on the volume.
pub fn snapshot_bytes(volume_bytes: u64, extent_bytes: u64) -> u64 {
    let chunks = volume_bytes.div_ceil(SNAPSHOT_CHUNK_BYTES);
    let lists = chunks / (SNAPSHOT_CHUNK_BYTES / COPIED_BYTES);
    // Its head is a chunk, and there is always a list that is begun.
    let bytes = (1 + chunks + lists + 1) * SNAPSHOT_CHUNK_BYTES;
    bytes.next_multiple_of(extent_bytes.max(1))
}

/// How much room a volume group has, as its hosts said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRoom {
    /// Its name on a host.
    pub name: String,
    /// What disks of ours may have of it, in MiB: all of it but what others have.
    pub for_disks_mib: u64,
    /// What no volume has, in MiB, where nobody says how much volumes of ours have.
    pub free_mib: Option<u64>,
    /// What volumes are cut in, in KiB.
    pub extent_kib: u64,
}

impl GroupRoom {
    /// What a host says of a group.
    pub fn of(group: &VolumeGroup) -> Self {
        let (for_disks_mib, free_mib) = match group.ours_mib {
            Some(ours) => (group.free_mib.saturating_add(ours), None),
            None => (group.size_mib, Some(group.free_mib)),
        };
        let (name, extent_kib) = (group.name.clone(), group.extent_kib);
        Self { name, for_disks_mib, free_mib, extent_kib }
    }

    /// What a snapshot of a disk of this size takes of it, in MiB.
    pub fn snapshot_mib(&self, size_gib: u64) -> u64 {
        snapshot_bytes(size_gib << 30, self.extent_kib << 10).div_ceil(1 << 20)
    }

    /// What can still be promised when so much is, in MiB.
    pub fn free_mib(&self, promised_mib: u64) -> u64 {
        let left = self.for_disks_mib.saturating_sub(promised_mib);
        self.free_mib.map_or(left, |free| left.min(free))
    }
}

impl Grouped {
    /// Whether hosts share it, and may.
    pub fn is_shared(&self) -> bool {
        !self.hosts.is_empty() && self.hosts.values().all(|locked| *locked)
    }
}

/// Whether a disk of this format can be made in a volume group.
///
/// # Errors
/// `invalid-field`: it is not raw, or several hosts have the group and do not lock it.
pub fn in_group(storage: StorageId, format: Format, group: &Grouped) -> Result<(), Refusal> {
    let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
    if group.hosts.len() > 1 && !group.is_shared() {
        let hosts: Vec<String> = group.hosts.keys().map(ToString::to_string).collect();
        return no(format!(
            "storage: {storage} is a volume group that {} have, and that LVM does not lock between \
             them (lvmlockd): nothing keeps them from changing it at once",
            hosts.join(" and ")
        ));
    }
    if format != Format::Raw {
        return no(format!("format: a disk on a volume group ({storage}) is raw"));
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_promised_is_not_promised_again_made_or_not() {
        let seen = |free_mib, ours_mib| {
            let (name, lock) = ("vg0".to_owned(), String::new());
            let group =
                VolumeGroup { name, size_mib: 100, free_mib, ours_mib, extent_kib: 4, lock };
            GroupRoom::of(&group)
        };
        // Others have 20; of the 50 that are promised none, some, all are made.
        for made in [0, 10, 50] {
            assert_eq!(seen(80 - made, Some(made)).free_mib(50), 30);
        }
        assert_eq!(seen(80, Some(0)).free_mib(90), 0);
        // An agent that does not say what is ours: never more than there is.
        assert_eq!((seen(30, None).free_mib(50), seen(80, None).free_mib(50)), (30, 50));
    }

    #[test]
    fn a_snapshot_has_room_for_all_of_its_disk_and_for_what_is_written_down_of_it() {
        const EXTENT: u64 = 4 << 20;
        for gib in [1, 15, 16, 1_024, 65_536] {
            let (volume, all) = (gib << 30, snapshot_bytes(gib << 30, EXTENT));
            assert!(all.is_multiple_of(EXTENT));
            let chunks = volume / SNAPSHOT_CHUNK_BYTES;
            // As the kernel lays it out: a head, and before each 4096 copies a list of them; when the last
            // list is full, the next one is begun.
            let laid_out = (2 + chunks + chunks / 4_096) * SNAPSHOT_CHUNK_BYTES;
            assert!((laid_out..laid_out + EXTENT).contains(&all), "{gib}: {all}");
        }
        let group = VolumeGroup {
            name: "vg0".to_owned(),
            size_mib: 9_000,
            free_mib: 9_000,
            ours_mib: Some(0),
            extent_kib: 4_096,
            lock: String::new(),
        };
        let room = GroupRoom::of(&group);
        assert_eq!((room.snapshot_mib(1), room.snapshot_mib(16)), (1_028, (16 << 10) + 8));
        assert_eq!(GroupRoom::default().snapshot_mib(1), 1_025, "of one that says no extents");
    }

    #[test]
    fn a_disk_of_a_volume_group_is_raw_and_the_group_one_hosts_or_locked() {
        let storage = StorageId::new(Uuid::from_u128(1));
        let [one, other] = [2, 3].map(|id| HostId::new(Uuid::from_u128(id)));
        let of = |hosts: &[(HostId, bool)]| Grouped {
            hosts: hosts.iter().copied().collect(),
            room: None,
        };
        in_group(storage, Format::Raw, &of(&[(one, false)])).unwrap();
        in_group(storage, Format::Raw, &of(&[(one, true), (other, true)])).unwrap();
        let refused = |format, hosts: &[(HostId, bool)]| {
            let no = in_group(storage, format, &of(hosts)).unwrap_err();
            assert_eq!(no.code.code, "invalid-field");
            no.detail
        };
        let detail = refused(Format::Qcow2, &[(one, true)]);
        assert!(detail.starts_with("format: a disk on a volume group"), "{detail}");
        let detail = refused(Format::Raw, &[(one, true), (other, false)]);
        assert!(detail.contains("does not lock"), "{detail}");
    }
}
