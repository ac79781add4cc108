//! Samples of servers and what they are made of.

use std::collections::BTreeMap;

use domain::{
    compute::{
        backup as kept, backup_plan, backup_set, backup_store,
        disk::{self as block, DiskState, SeenDisk},
        host, move_in,
        placement::HostId,
        server::{self, Machine, Power, transfer::TransferLimits},
        snapshot,
        utilisation::Utilisation,
    },
    kernel::Id,
    observation::Evidence,
};
use serde_json::{Value, json};

use super::{
    Samples, digest, id,
    network::{bandwidth, found_addresses, group_rules, nic, quota, used},
    of, origin, tags, time,
};

pub(crate) fn machine(power: Power) -> Machine {
    Machine {
        name: "web-1".into(),
        power,
        shape: "s2.small".into(),
        image: Some("img-1".into()),
        zone: Some("sim-north-1a".into()),
        vpc: Some("vpc-1".into()),
        network: Some("net-1".into()),
        addresses: vec!["10.0.0.4/32".parse().unwrap(), "2001:db8::4/128".parse().unwrap()],
        security_groups: vec!["sg-1".into()],
        disks: vec!["vol-1".into()],
        nics: Vec::new(),
        functions: BTreeMap::new(),
        vgpus: BTreeMap::new(),
        tags: tags(),
    }
}

/// A day's use of a server.
pub(crate) fn utilisation(day: u32, samples: u32) -> Utilisation {
    serde_json::from_value(json!({
        "day": format!("2026-01-{day:02}"), "vcpus": 2, "cpu_mean_percent": "3.5",
        "cpu_p95_percent": "4.75", "cpu_peak_percent": "12.25", "memory_peak_percent": "40",
        "network_in_bytes": 1_048_576, "network_out_bytes": 2_097_152, "samples": samples,
        "step_s": 300, "source": "node-exporter",
    }))
    .unwrap()
}

pub(super) fn server() -> Samples {
    use server::{
        Event as E,
        boot::BootDevice,
        console::{Console, ConsoleEnd, ConsoleKind},
    };
    let (console, by) = (id(30), "token:ops".to_owned());
    let kind = ConsoleKind::Serial;
    of::<server::Server>(vec![
        E::Abandoned {},
        E::AddressChangeOrdered { nic: id(15), found: found_addresses() },
        E::AddressRestoreOrdered { nic: id(15), found: found_addresses() },
        E::AddressesKept {
            number: 2,
            reason: "the guest agent does not answer".into(),
            seen: machine(Power::Running),
        },
        E::Adopted { adoption: serde_json::from_value(adoption()).unwrap() },
        E::Assigned { project: Some(id(2)) },
        E::BootOrderSet { order: vec![BootDevice::Network, BootDevice::Disk] },
        E::CdromChangeOrdered { image: Some(Box::new(disc())) },
        E::BreakOffOrdered {},
        E::CameIn {},
        E::Confirmed { number: 1, seen: machine(Power::Running) },
        E::ConsoleAllowed {
            console: Console {
                id: console,
                kind,
                by: by.clone(),
                ticket: digest(30),
                until: time(),
                since: None,
                network: None,
            },
        },
        E::ConsoleClosed {
            console,
            kind,
            by: by.clone(),
            seconds: 600,
            why: ConsoleEnd::CallerLeft,
        },
        E::ConsoleOpened { console, kind, by, at: time(), network: None },
        E::Deleted { until: time() },
        E::DiskAdmitted {
            disk: serde_json::from_value(json!({
                "id": id(17), "size_gib": 8, "format": "qcow2", "limits": limits(),
            }))
            .unwrap(),
        },
        E::DiskDismissed { disk: id(17) },
        E::Discovered { origin: origin("i-1"), project: None, seen: machine(Power::Stopped) },
        E::Evacuated { to: serde_json::from_value(place_on(8)).unwrap(), start: true },
        E::GroupsFollowed { groups: group_rules("80") },
        E::Launched { launch: Box::new(serde_json::from_value(launch()).unwrap()) },
        E::Launched { launch: Box::new(serde_json::from_value(launch_flavoured()).unwrap()) },
        E::LeaveRescueOrdered { start: true },
        E::Measured { utilisation: utilisation(1, 144) },
        E::MigrationFailed {
            number: 3,
            reason: "no route to host".into(),
            seen: machine(Power::Running),
        },
        E::MigrationOrdered {
            to: serde_json::from_value(place_on(8)).unwrap(),
            live: true,
            limits: TransferLimits { seconds: Some(600), mib_per_second: Some(100) },
        },
        E::MigrationPrepared {
            number: 1,
            landing: serde_json::from_value(json!({
                "disks": {id(14).to_string(): "/mnt/nas/disks/a.qcow2"},
                "folder": "/var/lib/skyledger-agent",
                "libvirt": "qemu+tls://kvm-2/system", "memory": "tcp://10.0.0.5",
            }))
            .unwrap(),
        },
        E::MigrationReturned { number: 3 },
        E::MigrationSent { number: 2, certain: true, used: [(id(15), used(7))].into() },
        E::MigrationShared { number: 1 },
        E::NicAdditionOrdered { nic: Box::new(nic(18, 20)), groups: group_rules("443") },
        E::NicChangeOrdered {
            nic: id(15),
            bandwidth: Some(bandwidth(8_000)),
            quota: Some(quota(1 << 30)),
            security_groups: Some([id(20)].into()),
            groups: group_rules("443"),
        },
        E::NicRemovalOrdered { nic: id(15) },
        E::NicTrafficResetOrdered { nic: id(15) },
        E::NicsReadOrdered {},
        E::Observed {
            seen: machine(Power::Stopping),
            fields: vec!["power".into()],
            actor: Some("user/ann".into()),
        },
        E::Parked { number: 1, reason: "denied: start-server".into() },
        E::PasswordOrdered { user: "root".into(), password: "sealed".into() },
        E::Protected {},
        E::Reappeared { seen: machine(Power::Running) },
        E::RebootOrdered {},
        E::RebuildOrdered { image: Box::new(server_image()), start: true },
        E::ReleaseOrdered {},
        E::Remeasured { utilisation: utilisation(1, 288) },
        E::RemovalOrdered {},
        E::Removed { number: 3 },
        E::Renamed { name: "web-2".into() },
        E::RescueEntered { by: "token:ops".into(), at: time() },
        E::RescueLeft { by: "token:ops".into(), seconds: 600 },
        E::RescueOrdered {
            by: "token:ops".into(),
            runs: true,
            system: serde_json::from_value(rescue_system()).unwrap(),
            password: "sealed".into(),
        },
        E::DevicesOrdered {
            devices: vec![serde_json::from_value(json!({"kind": "gpu", "count": 2})).unwrap()],
            placement: serde_json::from_value(placement(4, 4_096)).unwrap(),
        },
        E::ResizeOrdered {
            vcpus: 4,
            memory_mib: 4_096,
            flavour: Some(id(19)),
            placement: serde_json::from_value(placement(4, 4_096)).unwrap(),
        },
        E::ResizeOrdered {
            vcpus: 4,
            memory_mib: 4_096,
            flavour: None,
            placement: serde_json::from_value(placement(4, 4_096)).unwrap(),
        },
        E::ResumeOrdered {},
        E::RetryOrdered {},
        E::StartOrdered {},
        E::StopOrdered {},
        E::SuspendOrdered {},
        E::Tagged { tags: [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None)].into() },
        E::TagsOrdered {
            tags: [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None)].into(),
        },
        E::Undeleted {},
        E::Unprotected {},
        E::Vanished { evidence: Evidence::NotFoundById },
    ])
}

/// What is seen of a disk in a cloud.
pub(crate) fn seen_disk(name: &str) -> SeenDisk {
    SeenDisk {
        name: name.into(),
        size_gib: 40,
        medium: "ssd".into(),
        state: DiskState::Attached,
        server: Some("i-1".into()),
        zone: Some("sim-north-1a".into()),
        encrypted: true,
        tags: tags(),
    }
}

/// A disk of ours, for a server.
pub(crate) fn creation() -> Value {
    json!({
        "name": "data", "server": id(9), "size_gib": 8, "format": "qcow2",
        "limits": limits(), "found": {"id": id(14), "project": id(2), "host": id(7)},
    })
}

/// A backup of it.
pub(crate) fn backup_creation() -> Value {
    json!({
        "name": "nightly", "disk": id(14), "store": id(31), "parent": id(33), "plan": id(34),
        "found": {
            "id": id(32), "project": id(2), "host": id(7), "server": id(9), "disk_name": "data",
        },
    })
}

/// What lies in a store of a backup.
pub(crate) fn made() -> Value {
    json!({
        "digest": "0a".repeat(32), "size_bytes": 8_589_934_592_u64, "read_bytes": 4_194_304,
        "sent_bytes": 1_048_576, "stored_bytes": 2_097_152, "chunks": 12,
    })
}

/// A backup that another installation has left.
pub(crate) fn found_backup() -> Value {
    json!({
        "store": id(31), "project": id(2), "disk": id(14), "parent": id(33), "taken_at": time(),
        "made": made(),
    })
}

pub(super) fn backup() -> Samples {
    use kept::Event as E;
    let read = |value: Value| serde_json::from_value(value).unwrap();
    let made = || serde_json::from_value(made()).unwrap();
    of::<kept::Backup>(vec![
        E::Abandoned {},
        E::Assigned { project: Some(id(34)) },
        E::CreationOrdered { creation: read(backup_creation()), at: time() },
        E::Found(serde_json::from_value(found_backup()).unwrap()),
        E::GiveUpOrdered {},
        E::GivenUp { number: 2 },
        E::Parked { number: 1, reason: "no answer in time".into() },
        E::RemovalOrdered {},
        E::Removed {},
        E::RetryOrdered {},
        E::Taken { number: 1, at: time(), made: made() },
        E::UseBegun { by: id(14) },
        E::UseEnded { by: id(14) },
        E::Verified { number: 2, at: time(), damaged: Some("chunk 3".into()) },
        E::VerifyOrdered {},
    ])
}

/// What a plan backs up, when, and what stays.
pub(crate) fn plan_terms(daily: u32) -> Value {
    json!({
        "disks": [id(14)], "servers": [id(9)], "store": id(31),
        "times": {"hours": [2], "minute": 30, "weekdays": [1, 3]},
        "keep": {"last": 2, "days": 3, "daily": daily, "weekly": 4, "monthly": 12},
        "full_every": 7,
    })
}

/// What a run of it came to.
pub(crate) fn plan_results() -> Value {
    json!([
        {
            "subject": id(14), "backup": id(32), "full": true, "kept": 3, "deleted": [id(33)],
            "left": 1,
        },
        {"subject": id(9), "problem": "the server is gone"},
    ])
}

pub(super) fn plan() -> Samples {
    use backup_plan::Event as E;
    of::<backup_plan::BackupPlan>(vec![
        E::Abandoned {},
        E::Defined {
            name: "nightly".into(),
            project: Some(id(2)),
            terms: serde_json::from_value(plan_terms(7)).unwrap(),
            at: time(),
        },
        E::Parked { number: 1, reason: "the log does not answer".into() },
        E::Paused {},
        E::Resumed { at: time() },
        E::Retired {},
        E::RetryOrdered {},
        E::RunFinished {
            number: 1,
            at: time(),
            results: serde_json::from_value(plan_results()).unwrap(),
        },
        E::RunOrdered { due: time(), at: time(), missed: 2 },
    ])
}

/// What a server was.
pub(crate) fn blueprint() -> Value {
    json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "firmware": "uefi",
        "boot_order": ["disk"], "disks": {id(14).to_string(): {"format": "qcow2"}},
        "nics": [{
            "network": id(7), "mac": "52:54:00:00:00:01", "addresses": ["10.0.0.2/24"],
            "security_groups": [id(20)],
        }],
        "groups": group_rules("443"), "tags": {"team": "shop"}, "protected": true,
    })
}

/// A set that another installation has left in a store.
pub(crate) fn found_set() -> Value {
    json!({
        "name": "monday", "server": id(7), "store": id(9), "taken_at": time(),
        "source": {
            "id": id(30), "project": id(2), "host": id(8), "blueprint": blueprint(),
            "members": [{"disk": id(14), "disk_name": "web-0", "backup": id(31)}],
        },
        "taken": {"quiesced": true, "made": {id(14).to_string(): made()}},
    })
}

pub(super) fn set() -> Samples {
    use backup_set::Event as E;
    let creation = json!({
        "name": "monday", "server": id(7), "store": id(9),
        "found": {
            "id": id(30), "project": id(2), "host": id(8),
            "members": [{"disk": id(14), "disk_name": "web-0", "backup": id(31)}],
        },
    });
    let taken = json!({"quiesced": true, "made": {id(14).to_string(): made()}});
    of::<backup_set::BackupSet>(vec![
        E::Abandoned {},
        E::CreationOrdered { creation: serde_json::from_value(creation).unwrap(), at: time() },
        E::Deleted { backups: [id(31)].into() },
        E::Described { number: 2 },
        E::Found(Box::new(serde_json::from_value(found_set()).unwrap())),
        E::GiveUpOrdered {},
        E::GivenUp { number: 2 },
        E::Parked { number: 1, reason: "no answer in time".into() },
        E::RemovalOrdered {},
        E::Removed { number: 3 },
        E::RetryOrdered {},
        E::Taken { number: 1, at: time(), taken: serde_json::from_value(taken).unwrap() },
    ])
}

/// A machine that others run, as a move begins with it.
pub(crate) fn move_beginning() -> Value {
    json!({
        "name": "db", "project": id(2), "account": id(1), "server": id(7), "host": id(8),
        "source": {"id": id(40), "provider": "cloudpods", "machine": {
            "id": "8f2c", "name": "db", "power": "running", "status": "running",
            "architecture": "x86_64", "firmware": "bios", "vcpus": 2, "memory_mib": 512,
            "disks": [{"index": 0, "size_bytes": 1_u64 << 30, "bus": "virtio"}],
            "nics": [{"mac": "00:22:aa:00:00:01", "addresses": ["10.0.0.77"]}],
            "host_address": "192.0.2.7",
        }},
    })
}

/// Where it is written to.
pub(crate) fn move_landing() -> Value {
    json!({"address": "192.0.2.1", "port": 21_800, "disks": [{"index": 0, "name": id(14).to_string()}]})
}

pub(super) fn moved_in() -> Samples {
    use move_in::Event as E;
    of::<move_in::MoveIn>(vec![
        E::Arrived {},
        E::Begun { beginning: serde_json::from_value(move_beginning()).unwrap() },
        E::Closed { number: 4 },
        E::Copied { number: 2 },
        E::CutOverOrdered { shut_down: true },
        E::Finished {},
        E::GoneBack {},
        E::Parked { number: 2, reason: "no answer in time".into() },
        E::PreparationOrdered {},
        E::Prepared { number: 1, landing: serde_json::from_value(move_landing()).unwrap() },
        E::ReleaseOrdered { start: true },
        E::RetryOrdered {},
        E::SourceReleased { number: 5 },
        E::SourceStopped { number: 3 },
        E::TargetGivenUp {},
        E::TargetGone {},
    ])
}

/// A place of backups.
pub(crate) fn backup_place() -> Value {
    json!({
        "endpoint": "https://s3.example.com:9000", "region": "eu-central-1", "bucket": "backups",
        "prefix": "skyledger/",
    })
}

pub(super) fn store() -> Samples {
    use backup_store::Event as E;
    let place = serde_json::from_value(backup_place()).unwrap();
    let collection =
        backup_store::Collection { condemned: 3, removed: 2, waits_for: [id(32)].into() };
    let import = backup_store::Import {
        listed: 3,
        new: 1,
        unreadable: vec![format!("{}/{}", id(14), id(33))],
        new_sets: 1,
    };
    of::<backup_store::BackupStore>(vec![
        E::Abandoned {},
        E::Collected { number: 2, at: time(), sum: collection },
        E::CollectionOrdered {},
        E::Created {
            name: "vault".into(),
            project: Some(id(2)),
            place,
            credential: "sealed".into(),
        },
        E::ImportOrdered { project: Some(id(2)) },
        E::Imported { number: 3, at: time(), sum: import },
        E::Parked { number: 2, reason: "no answer in time".into() },
        E::Refused { number: 1, reason: "denied".into() },
        E::Retired {},
        E::RetryOrdered {},
        E::VerifyOrdered { candidate: Some("sealed".into()) },
        E::Verified { number: 1, at: time() },
    ])
}

/// Where the disk of a snapshot is.
pub(crate) fn snapshot_place() -> Value {
    json!({"id": id(35), "project": id(2), "host": id(7), "server": id(9), "size_gib": 8})
}

pub(super) fn snapshot() -> Samples {
    use snapshot::Event as E;
    let place = || serde_json::from_value(snapshot_place()).unwrap();
    let creation = json!({"name": "before", "disk": id(14), "found": snapshot_place()});
    of::<snapshot::Snapshot>(vec![
        E::Abandoned {},
        E::Assigned { project: Some(id(34)) },
        E::CreationOrdered { creation: serde_json::from_value(creation).unwrap(), at: time() },
        E::GoneWithDisk {},
        E::Parked { number: 1, reason: "QEMU: no space left".into() },
        E::RemovalOrdered { place: place() },
        E::Removed {},
        E::RetryOrdered {},
        E::RollBackOrdered { place: place() },
        E::RolledBack { number: 2 },
        E::Taken { number: 1 },
    ])
}

pub(super) fn limits() -> Value {
    json!({"write_bytes": {"rate": 1_048_576, "burst": 4_194_304, "burst_seconds": 5}})
}

/// A backup that a disk is made in its place.
pub(crate) fn restored_from() -> Value {
    json!({"backup": {
        "backup": id(32), "disk": id(14), "store": id(31), "digest": "0a".repeat(32),
    }})
}

pub(super) fn disk() -> Samples {
    use block::Event as E;
    /// For types of any kind.
    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }
    let limits = || serde_json::from_value(limits()).unwrap();
    let actual =
        block::Actual { size_bytes: 8 << 30, taken_bytes: 196_624, limits: Some(limits()) };
    of::<block::Disk>(vec![
        E::Abandoned {},
        E::Assigned { project: Some(id(2)) },
        E::AttachOrdered { server: domain::compute::placement::ServerId::new(id(9)) },
        E::Confirmed { number: 1, seen: actual },
        E::CreationOrdered(read(creation())),
        E::DetachOrdered {},
        E::Discovered { origin: origin("x-1"), project: Some(id(2)), seen: seen_disk("root") },
        E::GrowthOrdered { size_gib: 16 },
        E::LeaseEnded { host: HostId::new(id(8)) },
        E::LeaseShared { host: HostId::new(id(8)) },
        E::LeaseTaken { host: HostId::new(id(8)) },
        E::Made {},
        E::Moved { host: HostId::new(id(8)) },
        E::Observed {
            seen: seen_disk("root"),
            fields: vec!["name".into()],
            actor: Some("user/ann".into()),
        },
        E::Parked { number: 1, reason: "no space left".into() },
        E::Provisioned { creation: read(creation()), root: true },
        E::Reappeared { seen: seen_disk("root") },
        E::RemovalOrdered {},
        E::Removed {},
        E::RestoreOrdered { source: read(restored_from()) },
        E::RetryOrdered {},
        E::SnapshotDropped { snapshot: id(35) },
        E::SnapshotKept { snapshot: id(35) },
        E::ThrottleOrdered { limits: limits() },
        E::UseBegun { by: id(32) },
        E::UseEnded { by: id(32) },
        E::Vanished { evidence: Evidence::CompleteListing { run: 7, listed: 120 } },
    ])
}

/// A server of ours, with the place it was given.
pub(crate) fn launch() -> Value {
    let holding = holding(9);
    json!({
        "name": "web", "project": id(2), "spec": {"vcpus": 2, "memory_mib": 2048},
        "wishes": {"tags_required": ["ssd"]}, "tags": {"team": "shop"},
        "image": id(11), "firmware": "bios", "disks": [{"size_gib": 8}],
        "nics": [{"network": id(12), "v4": {"type": "any", "data": {}}}],
        "key_pairs": [id(13)], "userdata": "c2VhbGVk",
        "parts": {
            "image": {
                "id": id(11), "sha256": "0a".repeat(32), "format": "qcow2", "source": "upload",
                "size_mib": 400, "os": "linux",
            },
            "firmware": "bios",
            "disks": [{"id": id(14), "size_gib": 8, "format": "qcow2", "from_image": true}],
            "nics": [{
                "id": id(15), "network": id(12), "segment": id(16), "bridge": "br0",
                "medium": {"vlan": {"id": 7}}, "mtu": 1_500, "mac": "52:54:00:00:00:07",
                "addresses": ["10.0.0.4/24"], "gateways": ["10.0.0.1"],
                "dns_servers": ["10.0.0.1"], "domain": "example.com",
            }],
            "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI ann"],
        },
        "placement": {
            "host": id(7), "holding": holding, "score": {
                "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0,
                "fill": 125_000,
            },
            "fitting": 1, "rejected": {
                "counts": {"disabled": 1},
                "hosts": [{"host": id(8), "reason": {"code": "disabled"}}],
            },
        },
    })
}

/// One that is what a flavour says, and is started from its network first.
pub(crate) fn launch_flavoured() -> Value {
    let mut launch = launch();
    launch["flavour"] = json!(id(19));
    launch["boot_order"] = json!(["network", "disk"]);
    launch
}

/// What a flavour says.
pub(crate) fn flavour_spec() -> Value {
    json!({"vcpus": 2, "memory_mib": 2_048, "numa": "strict"})
}

/// What a server is repaired with.
/// What a server's root disk is made from.
pub(crate) fn server_image() -> server::parts::Image {
    serde_json::from_value(launch()["parts"]["image"].clone()).unwrap()
}

pub(crate) fn disc() -> server::parts::Image {
    server::parts::Image { format: domain::compute::image::Format::Iso, ..server_image() }
}

pub(crate) fn rescue_system() -> Value {
    json!({
        "kernel": "/var/lib/skyledger/rescue/kernel",
        "initramfs": "/var/lib/skyledger/rescue/initramfs", "command_line": "console=ttyS0",
    })
}

/// Where a server of another size goes.
pub(crate) fn placement(vcpus: u32, memory_mib: u64) -> Value {
    json!({
        "host": id(7), "holding": {"server": id(9), "vcpus": vcpus, "memory_mib": memory_mib},
        "score": {
            "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0,
            "fill": 250_000,
        },
        "fitting": 1,
    })
}

/// Where a server goes that leaves its host.
pub(crate) fn place_on(host: u128) -> Value {
    let mut place = placement(2, 2_048);
    place["host"] = json!(id(host));
    place
}

/// A server that is made from a machine of others.
pub(crate) fn launch_moved() -> Value {
    let mut launch = launch();
    launch["image"] = Value::Null;
    launch["parts"]["image"] = Value::Null;
    launch["move_in"] = json!({
        "account": id(1), "machine": "8f2c", "digest": "9f2c",
        "found": move_beginning()["source"],
    });
    launch
}

/// A server whose disks lie where several hosts reach them.
pub(crate) fn launch_shared() -> Value {
    let mut launch = launch();
    launch["parts"]["disks"][0]["storage"] = json!(id(18));
    launch
}

/// A machine of somebody's that a host has.
pub(crate) fn foreign_machine() -> Value {
    json!({
        "name": "shop-db", "power": "running", "persistent": true, "architecture": "x86_64",
        "board": "pc-i440fx-10.0", "firmware": "bios", "vcpus": 2, "memory_mib": 2048,
        "disks": [{
            "target": "vda", "device": "disk", "bus": "virtio", "path": "/srv/db.qcow2",
            "format": "qcow2", "size_bytes": 8_589_934_592_u64,
        }],
        "nics": [{
            "mac": "52:54:00:00:00:09", "bridge": "br0", "model": "e1000", "addresses": ["10.0.0.9"],
        }],
        "screen": true, "agent": true, "digest": "0a0b0c",
    })
}

/// What it is as a server.
pub(crate) fn adoption() -> Value {
    let mut parts = launch()["parts"].clone();
    parts["image"] = Value::Null;
    parts["keys"] = json!([]);
    parts["disks"][0]["from_image"] = json!(false);
    parts["disks"][0]["in_place"] = json!("/srv/db.qcow2");
    json!({
        "name": "db", "project": id(2), "machine": foreign_machine(), "placement": placement(2, 2_048),
        "parts": parts, "overfill": "2048 MiB of memory asked for, 1024 are free",
    })
}

/// What a server takes of its host.
pub(crate) fn holding(server: u128) -> Value {
    json!({"server": id(server), "vcpus": 2, "memory_mib": 2048})
}

/// What an agent sees of a small host.
pub(crate) fn seen_of_host(memory_mib: u64) -> Value {
    json!({
        "architecture": "x86_64", "virtualisation": "qemu 10.0.2", "labels": ["storage:ssd"],
        "cells": [{
            "id": 0, "memory_mib": memory_mib, "cores": [{"threads": [0, 1], "l3": 0}],
            "distances": [10],
        }],
        "devices": [{"id": "0000:3b:00.0", "kind": "gpu", "model": "10de:1eb8", "cell": 0}],
    })
}

pub(super) fn host() -> Samples {
    use host::Event as E;
    let settings: host::HostSettings = serde_json::from_value(json!({
        "tags": ["ssd"], "cpus_reserved": [0], "rescue": {"x86_64": rescue_system()},
    }))
    .unwrap();
    of::<host::Host>(vec![
        E::Abandoned {},
        E::Adopted { adoption: serde_json::from_value(adoption()).unwrap() },
        E::BecameReachable {},
        E::BecameUnreachable { since: time() },
        E::Cleared { server: Id::new(id(9)) },
        E::ClearingOrdered { server: Id::new(id(9)), host: Id::new(id(7)), disks: [id(17)].into() },
        E::Configured { settings: settings.clone() },
        E::Disabled {},
        E::DrainStarted {},
        E::Enabled {},
        E::Enrolled { name: "kvm-1".into(), settings },
        E::Fenced { epoch: 2 },
        E::Joined { epoch: 1, agent: "skyledger 0.1.0".into() },
        E::MaintenanceEntered {},
        E::MaintenanceLeft {},
        E::Parked { number: 1, reason: "the daemon is away".into() },
        E::Released { server: Id::new(id(9)) },
        E::Reserved { holding: serde_json::from_value(holding(9)).unwrap() },
        E::Resized { holding: serde_json::from_value(holding(9)).unwrap() },
        E::Retired {},
        E::RetryOrdered {},
        E::Sighted {
            seen: serde_json::from_value(seen_of_host(8_192)).unwrap(),
            fields: vec!["cells".into()],
        },
    ])
}

/// An image of this size.
pub(crate) fn image_of(size_mib: u64) -> Value {
    json!({
        "name": "debian-13", "project": id(2), "sha256": "5d".repeat(32), "format": "qcow2",
        "source": {"url": "https://images.example.com/debian-13.qcow2"}, "size_mib": size_mib,
        "architecture": "x86_64", "os": "linux", "firmware": "uefi", "min_disk_gib": 3,
    })
}

/// The same, of a file that is uploaded.
pub(crate) fn image_stored() -> Value {
    let mut image = image_of(400);
    image["source"] = json!({"store": id(9)});
    image
}

/// An image that is made from a disk.
pub(crate) fn image_of_disk() -> Value {
    json!({
        "name": "golden", "project": id(2), "source": {"disk": {"disk": id(7), "store": id(31)}},
        "sha256": "", "format": "qcow2", "size_mib": 0, "architecture": "x86_64", "os": "linux",
        "firmware": "bios", "min_disk_gib": 0,
        "found": {"id": id(1), "backup": id(33), "store": id(31), "creation": {
            "name": "for image golden", "disk": id(7), "store": id(31), "found": {
                "id": id(33), "project": id(2), "host": id(9), "server": id(4),
                "disk_name": "web-0",
            },
        }},
    })
}

/// Public keys of nobody.
pub(crate) const PUBLIC_KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVI ann",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH+rkaw2uU18cddw8UywdsKHqvb7Cn+9pEwVJ bob",
];
