//! All disks of a server are backed up at one moment, as it comes from the log: two disks that a guest writes
//! in turn are never further apart than one write, and its agent is let go on whatever dies.

use adapters_kvm::driver::{Side, Step};
use domain::compute::{
    backup_set::{BackupSet, Taken},
    disk,
    server::{Order, parts},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    host::{End, Guest, Host, Launch},
    kept::{STORE, Stream, access, copy, files, same},
};

/// First on the second disk, then on the first.
const WRITES: &str = "i=0; while :; do i=$((i+1)); \
    printf %08d $i | dd of=/dev/vdb conv=fsync,notrunc 2>/dev/null; \
    printf %08d $i | dd of=/state/n conv=fsync,notrunc 2>/dev/null; done";

/// A file system that can be held still, and a file in it that it has not written out.
const KEEPS: &str = "mke2fs /dev/vdb 8192 >/dev/null && mkdir /data && mount -t ext4 /dev/vdb /data && \
    echo what is only in memory >/data/kept";

fn own(id: u128) -> Uuid {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + id)
}

fn disks(of: &Launch) -> &[parts::Disk] {
    &of.state.home.as_ref().unwrap().parts.disks
}

fn set(id: u128, store: &commands::ports::StoreAccess, of: &Launch) -> Stream<BackupSet> {
    let member = |(at, disk): (usize, &parts::Disk)| {
        let backup = own(id + 1 + at as u128);
        json!({"disk": disk.id, "disk_name": format!("disk-{at}"), "backup": backup})
    };
    let members: Vec<_> = disks(of).iter().enumerate().map(member).collect();
    let found = json!({"id": own(id), "host": Uuid::from_u128(7), "members": members});
    let creation = json!({"name": "monday", "server": of.id, "store": STORE, "found": found});
    let data = json!({"creation": creation, "at": "2026-03-04T05:06:07Z"});
    Stream::of(id, store, "creation-ordered", data)
}

fn sources(id: u128, taken: &Taken, of: &Launch) -> Vec<disk::Source> {
    let source = |(at, disk): (usize, &parts::Disk)| disk::Source::Backup {
        backup: own(id + 1 + at as u128),
        disk: disk.id,
        store: STORE,
        digest: taken.made[&disk.id].digest.clone(),
    };
    disks(of).iter().enumerate().map(source).collect()
}

#[tokio::test]
async fn two_disks_that_are_written_in_turn_are_backed_up_and_restored_as_of_one_moment() {
    let Some(host) = Host::of_tests().await else { return };
    let mut driver = host.driver().await;
    let store = access().await;
    let web = host.launch(74, "sk-test-74", "#!/bin/sh\n");
    web.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, web.id).await;
    guest.begin(WRITES).await;

    // The agent of the host dies before libvirt has begun and after it has, when the guest was told to stand
    // still: the next one lets it go on before it does anything else.
    let monday = set(0x40, &store, &web);
    for (end, side) in
        [(End::Dies, Side::Before), (End::Dies, Side::After), (End::Fails, Side::After)]
    {
        drop(driver);
        host.cut(end, (Step::Offer, side), &monday.task(&web)).await;
        driver = host.driver().await;
        driver.guard().await.unwrap();
        guest.run("echo goes on >/state/on; sync").await;
    }
    let report = monday.done(&driver, &web).await;
    assert_eq!(report.verb, "confirm");
    let taken: Taken = serde_json::from_value(report.body["taken"].clone()).unwrap();
    // Its agent answers, and has nothing to hold still: Linux holds no file system of FAT.
    assert!(!taken.quiesced);
    assert_eq!(taken.made.len(), 2);
    guest.run("echo goes on >/state/on; sync").await;
    let now: u64 = guest.run("cat /state/n").await.parse().unwrap();
    web.done(&driver, 2, Order::Stop {}).await;

    // A server that is stopped, every byte.
    let stopped = set(0x50, &store, &web);
    let report = stopped.done(&driver, &web).await;
    let still: Taken = serde_json::from_value(report.body["taken"].clone()).unwrap();
    assert!(still.quiesced, "nothing of it writes");
    for (at, source) in sources(0x50, &still, &web).iter().enumerate() {
        let size = disks(&web)[at].size_gib;
        let made = copy(0x60 + at as u128, &store, (&web, size, "qcow2"), source);
        made.done(&driver, &web).await;
        same(&host, disks(&web)[at].id, made.id);
    }
    web.removed(&driver, 3).await;

    // A new server from the first set: what it has on both is of one moment, and of the one before.
    let mut again = host.launch(75, "sk-test-74", "#!/bin/sh\n");
    let home = again.state.home.as_mut().unwrap();
    home.parts.image = None;
    for (disk, source) in home.parts.disks.iter_mut().zip(sources(0x40, &taken, &web)) {
        (disk.from_image, disk.source) = (false, Some(source));
    }
    let mut task = again.order(1, &Order::Launch {});
    task.stores.insert(STORE, store.clone());
    driver.carry_out(&task).await.unwrap();
    let guest = Guest::ready(&host, again.id).await;
    let first: u64 = guest.run("cat /state/n").await.parse().unwrap();
    let second = guest.run("dd if=/dev/vdb bs=8 count=1 2>/dev/null").await;
    let second: u64 = second.parse().unwrap();
    assert!(first > 0 && first < now, "{first} of {now}");
    assert!(second == first || second == first + 1, "{second} beside {first}");
    drop(guest);
    again.removed(&driver, 2).await;
}

#[tokio::test]
async fn a_guest_that_holds_its_file_system_still_writes_out_first_what_it_has_in_memory_alone() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let store = access().await;
    let web = host.launch_larger(76, "sk-test-76", "#!/bin/sh\n");
    web.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, web.id).await;
    guest.run(KEEPS).await;
    let path = files(&host, disks(&web)[1].id);
    let has = |path: &std::path::Path| {
        let (data, kept) = (std::fs::read(path).unwrap(), b"what is only in memory");
        data.windows(kept.len()).any(|found| found == kept)
    };
    assert!(!has(&path), "the guest has it, and its disk has not");
    let report = set(0x70, &store, &web).done(&driver, &web).await;
    let held: Taken = serde_json::from_value(report.body["taken"].clone()).unwrap();
    assert!(held.quiesced);
    // It goes on.
    guest.run("echo goes on >/data/on; sync").await;
    let source = sources(0x70, &held, &web).swap_remove(1);
    let made = copy(0x78, &store, (&web, disks(&web)[1].size_gib, "raw"), &source);
    made.done(&driver, &web).await;
    assert!(has(&files(&host, made.id)));
    web.removed(&driver, 2).await;
}
