//! Machines of a cluster in our shapes.

use std::collections::BTreeMap;

use domain::compute::{
    image::Firmware,
    move_in::machine::{SourceDisk, SourceMachine, SourceNic},
    server::{Machine, Power},
};
use ipnet::IpNet;

use super::wire::{Device, Nic, Server};

/// What a move of ours writes on a machine: the name of its metadata.
pub(super) const MARK: &str = "skyledger-move-in";

/// Whether it runs.
pub(super) fn power(server: &Server) -> Power {
    match server.status.as_str() {
        "running" => Power::Running,
        "ready" => Power::Stopped,
        "suspend" => Power::Suspended,
        "starting" | "start_start" | "schedule" => Power::Starting,
        "stopping" | "start_stop" => Power::Stopping,
        _ if server.power_states == "on" => Power::Running,
        _ if server.power_states == "off" => Power::Stopped,
        _ => Power::Unknown,
    }
}

fn addresses(nic: &Nic) -> impl Iterator<Item = core::net::IpAddr> {
    [&nic.ip_addr, &nic.ip6_addr].into_iter().filter_map(|text| text.parse().ok())
}

/// What the inventory sees of it.
pub(super) fn seen(server: &Server) -> Machine {
    let mut disks: Vec<String> = server.disks_info.iter().map(|disk| disk.id.clone()).collect();
    disks.sort_unstable();
    let mut all: Vec<IpNet> = server.nics.iter().flat_map(addresses).map(IpNet::from).collect();
    all.sort_unstable();
    let mut tags: BTreeMap<String, String> = server.metadata.clone();
    // What the cluster writes for itself, and what we do.
    tags.retain(|name, _| !name.starts_with("__") && !name.starts_with("sys:") && name != MARK);
    Machine {
        name: server.name.clone(),
        power: power(server),
        shape: format!("{}x{}", server.vcpu_count, server.vmem_size),
        image: None,
        zone: Some(server.zone.clone()).filter(|zone| !zone.is_empty()),
        vpc: None,
        network: None,
        addresses: all,
        security_groups: Vec::new(),
        disks,
        nics: Vec::new(),
        functions: BTreeMap::new(),
        vgpus: BTreeMap::new(),
        tags,
    }
}

/// What whoever moves it looks at.
pub(super) fn source(server: Server) -> SourceMachine {
    let power = power(&server);
    let disk = |disk: &super::wire::Disk| SourceDisk {
        index: disk.index,
        size_bytes: disk.size << 20,
        bus: disk.driver.clone(),
    };
    let nic = |nic: &Nic| {
        Some(SourceNic { mac: nic.mac.parse().ok()?, addresses: addresses(nic).collect() })
    };
    let device = |device: &Device| {
        let words = [&device.dev_type, &device.model, &device.addr];
        let words: Vec<&str> = words.into_iter().map(String::as_str).collect();
        words.join(" ").trim().to_owned()
    };
    let mut disks: Vec<_> = server.disks_info.iter().map(disk).collect();
    disks.sort_by_key(|disk| disk.index);
    SourceMachine {
        power,
        architecture: Some(server.os_arch.clone()).filter(|name| !name.is_empty()),
        firmware: if server.bios.eq_ignore_ascii_case("uefi") {
            Firmware::Uefi
        } else {
            Firmware::Bios
        },
        vcpus: server.vcpu_count,
        memory_mib: server.vmem_size,
        disks,
        nics: server.nics.iter().filter_map(nic).collect(),
        devices: server.isolated_devices.iter().map(device).collect(),
        host_address: server.host_access_ip.parse().ok(),
        frozen: server.freezed,
        encrypted: !server.encrypt_key_id.is_empty(),
        has_standby: !server.backup_host_id.is_empty(),
        mark: server.metadata.get(MARK).filter(|mark| !mark.is_empty()).cloned(),
        hardware: None,
        uncopied: Vec::new(),
        id: server.id,
        name: server.name,
        status: server.status,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_is_read_with_what_is_null_or_not_there() {
        let server: Server = serde_json::from_value(json!({
            "id": "8f2c", "name": "shop-db", "status": "running", "bios": "UEFI", "vcpu_count": 2,
            "vmem_size": 2048, "host_access_ip": "192.0.2.7", "isolated_devices": null,
            "disks_info": [{"id": "d1", "index": 1, "size": 10240, "driver": "scsi"},
                           {"id": "d0", "index": 0, "size": 30720, "driver": "virtio"}],
            "nics": [{"mac": "00:22:aa:00:00:01", "ip_addr": "10.0.0.77", "ip6_addr": ""}],
            "metadata": {"__os_profile__": "{}", "env": "prod", MARK: "m"},
        }))
        .unwrap();
        let seen = seen(&server);
        assert_eq!((seen.power, seen.shape.as_str()), (Power::Running, "2x2048"));
        assert_eq!(seen.tags, [("env".to_owned(), "prod".to_owned())].into());
        let source = source(server);
        assert_eq!(source.disks[0].size_bytes, 30 << 30);
        assert_eq!(source.nics[0].addresses, ["10.0.0.77".parse().unwrap()].into());
        assert_eq!((source.firmware, source.mark.as_deref()), (Firmware::Uefi, Some("m")));
        assert!(source.obstacles().iter().all(|one| one.code == "moving"));
    }

    #[test]
    fn words_of_its_state_are_read() {
        let of = |status: &str, on: &str| {
            power(&Server { status: status.into(), power_states: on.into(), ..Server::default() })
        };
        assert_eq!(of("ready", "off"), Power::Stopped);
        assert_eq!(of("suspend", ""), Power::Suspended);
        assert_eq!(of("stop_fail", "on"), Power::Running);
        assert_eq!(of("deploying", ""), Power::Unknown);
    }
}
