//! Disks in a volume group, which a guest has as devices.

use std::os::unix::fs::FileExt as _;

use adapters_kvm::driver::{Census, KvmHost, Of, Options};
use commands::ports::{DriverFault, HostTask};
use domain::{
    compute::{
        disk::{Actual, Disk},
        server::{Order as ServerOrder, Power},
    },
    kernel::{Decider as _, OrderKey, StreamId},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    host::{Guest, Host, Launch, open},
    lab::Volumes,
};

const ID: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0d15_0002);
const GIB: u64 = 1 << 30;

fn task(server: &Launch, disk: &Disk) -> HostTask {
    let out = disk.order().unwrap();
    HostTask {
        key: OrderKey { stream: StreamId::new("disk", ID), number: out.number },
        order: serde_json::to_value(&out.order).unwrap(),
        state: server.state.clone(),
        subject: serde_json::to_value(disk).unwrap(),
        userdata: None,
        password: None,
        stores: std::collections::BTreeMap::new(),
        leases: std::collections::BTreeMap::new(),
    }
}

fn then(disk: Disk, event: &str, data: Value) -> Disk {
    disk.evolve(serde_json::from_value(json!({"type": event, "data": data})).unwrap())
}

/// Carries an order out, twice.
async fn done(driver: &KvmHost, server: &Launch, disk: Disk) -> (Disk, Actual) {
    let task = task(server, &disk);
    driver.carry_out(&task).await.unwrap();
    let report = driver.carry_out(&task).await.unwrap();
    assert_eq!(report.verb, "confirm");
    let seen: Actual = serde_json::from_value(report.body["seen"].clone()).unwrap();
    let confirmed = json!({"number": task.key.number, "seen": seen});
    (then(disk, "confirmed", confirmed), seen)
}

#[tokio::test]
async fn a_guest_has_volumes_as_its_disks_from_its_start_to_its_end() {
    let Some(host) = Host::of_tests().await else { return };
    let Some(volumes) = Volumes::of_tests(8 * GIB).await else { return };
    let storage = Volumes::storage();
    let options = || Options { volume_groups: volumes.groups(), ..host.options() };
    let driver = open(options()).await;
    let seen = driver.sighting().await.unwrap();
    assert_eq!(seen.storages, [storage].into());
    let group = &seen.volume_groups[&storage];
    assert_eq!((group.name.as_str(), group.free_mib), (volumes.name(), (8 << 10) - 4));

    let server = host.launch(44, "lab", "#!/bin/sh\necho once >>/state/runs\n").with(|home| {
        for disk in home["parts"]["disks"].as_array_mut().unwrap() {
            (disk["storage"], disk["format"]) = (json!(storage), json!("raw"));
        }
    });
    // Where the second disk will be, somebody's was.
    let file = std::fs::File::options().write(true).open(volumes.file()).unwrap();
    file.write_all_at(&[0xaa; 4_096], (1 << 20) + GIB).unwrap();
    file.sync_all().unwrap();
    let machine = server.done(&driver, 1, ServerOrder::Launch {}).await;
    assert_eq!((machine.power, machine.disks.len()), (Power::Running, 2));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("head -c 8192 /dev/vdb | tr -d '\\0' | wc -c").await, "0");
    assert_eq!(guest.run("cat /sys/block/vda/size /sys/block/vdb/size").await, "2097152\n4194304");
    assert_eq!(driver.census().await.unwrap().disks.len(), 2);

    // After a start of the host no volume has a device until its server is started.
    server.done(&driver, 2, ServerOrder::Stop {}).await;
    volumes.deactivate_all().await;
    server.done(&driver, 3, ServerOrder::Start {}).await;
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("cat /state/runs").await, "once", "it is the same disk");

    // A snapshot while it runs, which is gone back to and goes.
    let root = server.state.home.as_ref().unwrap().parts.disks[0].id;
    let (of, snapshot) = (Of { server: server.id, disk: root }, Uuid::from_u128(0xa1));
    guest.run("echo first >/state/note; sync").await;
    for _ in 0..2 {
        driver.take_snapshot(of, snapshot).await.unwrap();
    }
    assert_eq!(driver.snapshots(of).await.unwrap(), [snapshot]);
    guest.run("echo second >/state/note; sync").await;
    let runs = driver.roll_back(of, snapshot).await.unwrap_err();
    assert!(matches!(&runs, DriverFault::Rejected(why) if why.contains("stop it first")), "{runs}");
    server.done(&driver, 4, ServerOrder::Stop {}).await;
    for _ in 0..2 {
        driver.roll_back_by(of, snapshot, Some(1)).await.unwrap();
    }
    assert!(!volumes.device(&format!("sk-{root}")).exists(), "it rests");
    server.done(&driver, 5, ServerOrder::Start {}).await;
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("cat /state/note").await, "first");
    driver.delete_snapshot(of, snapshot).await.unwrap();
    assert_eq!(volumes.names().await.len(), 2);

    // One more while it runs, which grows, is limited and goes.
    let serial = &ID.simple().to_string()[..20];
    let find = format!("grep -l {serial} /sys/block/*/serial | cut -d/ -f4");
    let creation = json!({
        "name": "data", "server": server.id, "size_gib": 1, "format": "raw", "storage": storage,
        "found": {"id": ID, "host": Uuid::from_u128(7)},
    });
    let disk = then(Disk::default(), "creation-ordered", creation);
    let (disk, actual) = done(&driver, &server, disk).await;
    assert_eq!((actual.size_bytes, actual.taken_bytes), (GIB, GIB));
    guest.becomes(&find, "vdd").await;
    guest.run("echo kept | dd of=/dev/vdd conv=fsync").await;
    let (disk, actual) =
        done(&driver, &server, then(disk, "growth-ordered", json!({"size_gib": 2}))).await;
    assert_eq!(actual.size_bytes, 2 * GIB);
    guest.becomes("cat /sys/block/vdd/size", &(2_u64 << 21).to_string()).await;
    assert_eq!(guest.run("head -n 1 /dev/vdd").await, "kept");
    let limits = json!({"write_operations": {"rate": 300}});
    let ordered = then(disk, "throttle-ordered", json!({"limits": limits}));
    let (disk, actual) = done(&driver, &server, ordered).await;
    assert_eq!(serde_json::to_value(actual.limits).unwrap(), limits, "as QEMU says");
    let (disk, _) = done(&driver, &server, then(disk, "detach-ordered", json!({}))).await;
    guest.becomes(&find, "").await;
    let disk = then(disk, "removal-ordered", json!({}));
    for _ in 0..2 {
        let report = driver.carry_out(&task(&server, &disk)).await.unwrap();
        assert_eq!(report.verb, "confirm-removal");
    }
    assert_eq!(volumes.names().await.len(), 2);

    // What is too large for the group is refused before anything is made.
    let big = host.launch(45, "lab", "#!/bin/sh\n").with(|home| {
        let disks = home["parts"]["disks"].as_array_mut().unwrap();
        disks.truncate(1);
        let (storage, format, size) = (json!(storage), json!("raw"), json!(100));
        (disks[0]["storage"], disks[0]["format"], disks[0]["size_gib"]) = (storage, format, size);
    });
    let fault = driver.carry_out(&big.order(1, &ServerOrder::Launch {})).await.unwrap_err();
    assert!(matches!(&fault, DriverFault::Rejected(why) if why.contains("bytes left")), "{fault}");
    big.removed(&driver, 2).await;

    server.removed(&driver, 6).await;
    assert!(volumes.names().await.is_empty());
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
