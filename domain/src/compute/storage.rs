//! Storage beside a host's own folder: a folder that several hosts have mounted, of an NFS server for
//! instance, or a volume group of LVM.
//!
//! It is no resource of its own. A file in the folder holds its id, and so does a tag of the volume
//! group; a host that has it reads it there and says so: two hosts that say the same id have the same
//! folder, wherever each of them has mounted it. A disk that lies there can be had by a server on any of
//! them, and goes with its server to another one without being copied.
//!
//! A volume group is its host's alone. A disk there is a logical volume: its bytes and nothing else, so
//! it is raw. Where two hosts say that they have one, nothing is made in it, for nobody keeps them from
//! changing it at once.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{image::Format, placement::HostId};
use crate::kernel::{Id, Refusal, codes};

/// A folder that several hosts reach, or a volume group.
#[derive(Debug)]
pub struct Storage;

/// The id of such a folder or group, which lies in it.
pub type StorageId = Id<Storage>;

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
    /// What volumes are cut in, in KiB.
    pub extent_kib: u64,
}

/// Whether a disk of this format can be made in a volume group that these hosts have.
///
/// # Errors
/// `invalid-field`: it is not raw, or the group is not one host's.
pub fn in_group(
    storage: StorageId,
    format: Format,
    hosts: &BTreeSet<HostId>,
) -> Result<(), Refusal> {
    let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
    if hosts.len() > 1 {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        return no(format!(
            "storage: {storage} is a volume group that {} have: only one host may, for nothing keeps \
             them from changing it at once",
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
    fn a_disk_of_a_volume_group_is_raw_and_the_group_one_hosts() {
        let storage = StorageId::new(Uuid::from_u128(1));
        let [one, other] = [2, 3].map(|id| HostId::new(Uuid::from_u128(id)));
        in_group(storage, Format::Raw, &[one].into()).unwrap();
        let refused = |format, hosts: &[HostId]| {
            let no = in_group(storage, format, &hosts.iter().copied().collect()).unwrap_err();
            assert_eq!(no.code.code, "invalid-field");
            no.detail
        };
        let detail = refused(Format::Qcow2, &[one]);
        assert!(detail.starts_with("format: a disk on a volume group"), "{detail}");
        let detail = refused(Format::Raw, &[one, other]);
        assert!(detail.contains("only one host may"), "{detail}");
    }
}
