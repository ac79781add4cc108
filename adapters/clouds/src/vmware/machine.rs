//! Machines of a vCenter in our shapes, and what keeps one from being copied.

use std::{collections::BTreeMap, net::IpAddr};

use domain::compute::{
    image::Firmware,
    move_in::machine::{SourceDisk, SourceMachine, SourceNic},
    server::{Machine, hardware::Hardware},
};
use ipnet::IpNet;

use super::{
    inventory::{Disk, Stores, Vm},
    mark::Mark,
};

/// What the inventory sees of it.
pub(super) fn seen(vm: &Vm) -> Machine {
    let mut disks: Vec<String> = vm.disks.iter().map(|disk| disk.key.to_string()).collect();
    disks.sort_unstable();
    let addresses = vm.nics.iter().flat_map(|nic| &nic.addresses);
    let mut addresses: Vec<IpNet> = addresses.copied().map(IpNet::from).collect();
    addresses.sort_unstable();
    Machine {
        name: vm.name.clone(),
        power: vm.power(),
        shape: format!("{}x{}", vm.vcpus, vm.memory_mib),
        image: None,
        zone: None,
        vpc: None,
        network: None,
        addresses,
        security_groups: Vec::new(),
        disks,
        nics: Vec::new(),
        functions: BTreeMap::new(),
        vgpus: BTreeMap::new(),
        tags: BTreeMap::new(),
    }
}

/// What keeps a disk from being copied; none when nothing does.
fn uncopied(disk: &Disk, stores: &Stores) -> Option<String> {
    let key = disk.key;
    let why = match (disk.backing.as_str(), disk.mode.as_str()) {
        (backing, _) if backing.contains("RawDiskMapping") => {
            "is a disk of its storage's (RDM): make a file of it there"
        }
        (backing, _) if backing != "VirtualDiskFlatVer2BackingInfo" => {
            "is none whose data is in one flat file"
        }
        (_, mode) if mode.starts_with("independent") => {
            "is independent of snapshots: make it dependent there"
        }
        _ if disk.is_shared => "is another machine's as well",
        _ => match stores.get(&disk.store).map(|store| store.kind.to_lowercase()) {
            None => "lies in a datastore that the user may not see",
            Some(kind) if matches!(kind.as_str(), "vsan" | "vvol" | "pmem") => {
                "lies in a datastore without files that are read: move it to VMFS or NFS there"
            }
            Some(_) => return None,
        },
    };
    Some(format!("disk {key} {why}"))
}

/// What keeps its disks from being copied, but for snapshots of this move's own.
pub(super) fn in_the_way(vm: &Vm, stores: &Stores, own: Option<&str>) -> Vec<String> {
    let mut found: Vec<_> = vm.disks.iter().filter_map(|disk| uncopied(disk, stores)).collect();
    let others = vm.snapshots.iter().filter(|one| own != Some(one.name.as_str()));
    let names: Vec<_> = others.map(|one| one.name.as_str()).collect();
    if !names.is_empty() {
        found.push(format!("it has snapshots, delete them there first: {}", names.join(", ")));
    }
    if !vm.can_track {
        let why =
            "it is too old to note which parts of its disks change: upgrade its hardware there";
        found.push(why.to_owned());
    }
    found
}

/// What whoever moves it looks at. Its disks are sent from this address.
pub(super) fn source(vm: Vm, stores: &Stores, sender: Option<IpAddr>) -> SourceMachine {
    let mark = vm
        .mark
        .as_deref()
        .map(|text| Mark::read(text).map_or(text.to_owned(), |mark| mark.move_in));
    let own = mark.as_deref().map(super::mover::snapshot_name);
    let disk = |disk: &Disk| SourceDisk {
        index: disk.key,
        size_bytes: disk.bytes,
        bus: disk.bus.to_owned(),
    };
    let nic = |nic: &super::inventory::Nic| {
        Some(SourceNic {
            mac: nic.mac.parse().ok()?,
            addresses: nic.addresses.iter().copied().collect(),
        })
    };
    SourceMachine {
        power: vm.power(),
        architecture: Some(
            if vm.guest_id.starts_with("arm") { "aarch64" } else { "x86_64" }.into(),
        ),
        firmware: if vm.firmware == "efi" { Firmware::Uefi } else { Firmware::Bios },
        vcpus: vm.vcpus,
        memory_mib: vm.memory_mib,
        disks: vm.disks.iter().map(disk).collect(),
        nics: vm.nics.iter().filter_map(nic).collect(),
        devices: vm.devices.clone(),
        host_address: sender,
        frozen: false,
        encrypted: vm.is_encrypted,
        has_standby: vm.has_standby,
        hardware: Some(Hardware::COMMON),
        uncopied: in_the_way(&vm, stores, own.as_deref()),
        mark,
        id: vm.id,
        name: vm.name,
        status: vm.power_state,
    }
}

#[cfg(test)]
mod tests {
    use super::super::inventory::{Snapshot, Store};
    use super::*;

    #[test]
    fn what_cannot_be_copied_is_said_of_each_disk() {
        let store =
            |kind: &str| Store { name: "s".into(), kind: kind.into(), datacenter: "d".into() };
        let stores: Stores =
            [("f".to_owned(), store("VMFS")), ("v".to_owned(), store("vsan"))].into();
        let flat = Disk {
            key: 2000,
            backing: "VirtualDiskFlatVer2BackingInfo".into(),
            store: "f".into(),
            mode: "persistent".into(),
            ..Disk::default()
        };
        assert_eq!(uncopied(&flat, &stores), None);
        let rdm = "VirtualDiskRawDiskMappingVer1BackingInfo";
        for (disk, word) in [
            (Disk { backing: rdm.into(), ..flat.clone() }, "RDM"),
            (Disk { backing: "VirtualDiskSeSparseBackingInfo".into(), ..flat.clone() }, "flat"),
            (Disk { mode: "independent_persistent".into(), ..flat.clone() }, "independent"),
            (Disk { is_shared: true, ..flat.clone() }, "another machine"),
            (Disk { store: "v".into(), ..flat.clone() }, "VMFS"),
            (Disk { store: "x".into(), ..flat.clone() }, "not see"),
        ] {
            let why = uncopied(&disk, &stores).unwrap();
            assert!(why.contains(word), "{why}");
        }
        let snapshot = |name: &str| Snapshot { id: "s".into(), name: name.into() };
        let vm = Vm {
            disks: vec![flat],
            can_track: true,
            snapshots: vec![snapshot("ours")],
            ..Vm::default()
        };
        assert!(in_the_way(&vm, &stores, Some("ours")).is_empty());
        assert_eq!(in_the_way(&vm, &stores, None).len(), 1);
        let old = Vm { can_track: false, ..vm };
        assert_eq!(in_the_way(&old, &stores, Some("other")).len(), 2);
    }
}
