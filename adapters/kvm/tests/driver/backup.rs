//! Disks of real servers, running and not, are backed up into a stand-in for S3 and written back.

use std::{sync::Arc, time::SystemTime};

use adapters_backup::{
    Asked, Store,
    chunk::{BYTES_MIN, Seal},
    objects::s3::{Bucket, Keys, S3},
};
use adapters_clouds::testing::{Fate, Hand, Proxy};
use adapters_kvm::driver::{KvmHost, Of, Side, Step};
use commands::ports::DriverFault;
use domain::compute::server::Order;
use uuid::Uuid;

use crate::host::{End, Guest, Host, Launch, Stopper};

pub(crate) fn stand_in() -> String {
    std::env::var("SKYLEDGER_TEST_AWS").expect("SKYLEDGER_TEST_AWS: run the tests with ./test")
}

pub(crate) async fn store(url: &str) -> Store {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("host-{now}");
    let made = Hand::new(&stand_in()).object("PUT", &name, Vec::new()).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let bucket = Bucket {
        endpoint: Some(url.to_owned()),
        region: "us-east-1".into(),
        name,
        prefix: String::new(),
    };
    let keys = Keys { access_key_id: "AKIASKYLEDGERTEST00".into(), secret_access_key: "x".into() };
    let s3 = S3::new(bucket, keys).unwrap().with_pause(std::time::Duration::from_millis(1));
    Store::new(Arc::new(s3), Seal::plain())
}

pub(crate) fn asked(of: Of, backup: u128, parent: Option<u128>) -> Asked {
    Asked {
        backup: Uuid::from_u128(backup),
        disk: of.disk,
        parent: parent.map(Uuid::from_u128),
        checkpoint: None,
        taken_at: chrono::DateTime::UNIX_EPOCH,
        chunk_bytes: BYTES_MIN,
    }
}

/// Its root disk (qcow2, on an image) and the other one (raw).
fn disks(server: &Launch) -> (Of, Of) {
    let parts = &server.state.home.as_ref().unwrap().parts;
    let of = |at: usize| Of { server: server.id, disk: parts.disks[at].id };
    (of(0), of(1))
}

/// What lies where disks are offered.
fn left(host: &Host) -> usize {
    std::fs::read_dir(host.data.path().join("backups")).unwrap().count()
}

async fn no_offer(host: &Host, server: &Launch) {
    let libvirt = host.connect().await;
    let domain = libvirt.domain(server.id).await.unwrap();
    assert_eq!(libvirt.backup(&domain).await.unwrap(), None);
    assert_eq!(left(host), 0);
}

#[tokio::test]
async fn a_disk_is_backed_up_while_its_server_runs_and_written_back_when_it_does_not() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let store = store(&stand_in()).await;
    let server = host.launch(40, "sk-test-40", "#!/bin/sh\necho first >/state/note\n");
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes("cat /state/note", "first").await;
    let (root, data) = disks(&server);
    guest
        .run("echo kept | dd of=/dev/vdb bs=512 seek=2048 conv=sync,fsync 2>/dev/null; sync")
        .await;

    let full = driver.back_up(root, &asked(root, 1, None), &store).await.unwrap();
    assert_eq!(full.size_bytes, 1 << 30);
    assert!(full.read_bytes < 256 << 20, "{}", full.read_bytes);
    no_offer(&host, &server).await;
    assert_eq!(driver.back_up(root, &asked(root, 1, None), &store).await.unwrap(), full, "again");

    guest.run("echo second >/state/note; sync").await;
    let more = driver.back_up(root, &asked(root, 2, Some(1)), &store).await.unwrap();
    assert!(more.read_bytes < 4 << 20 && more.sent_bytes < 1 << 20, "{more:?}");
    // Made on one whose checkpoint was given up: all is read, next to nothing is sent.
    let other = driver.back_up(root, &asked(root, 3, Some(1)), &store).await.unwrap();
    assert!(other.read_bytes >= full.read_bytes && other.sent_bytes < 1 << 20, "{other:?}");
    // A raw disk keeps no bitmap.
    let raw = driver.back_up(data, &asked(data, 4, None), &store).await.unwrap();
    assert!(raw.read_bytes < 1 << 20, "{raw:?}");
    let raw = driver.back_up(data, &asked(data, 5, Some(4)), &store).await.unwrap();
    assert_eq!(raw.sent_bytes, 0, "{raw:?}");
    no_offer(&host, &server).await;

    let runs = driver.write_back(root, (root.disk, full.backup), None, &store).await.unwrap_err();
    assert!(matches!(&runs, DriverFault::Rejected(why) if why.contains("stop it first")), "{runs}");
    guest
        .run("echo lost | dd of=/dev/vdb bs=512 seek=2048 conv=sync,fsync 2>/dev/null; sync")
        .await;
    server.done(&driver, 2, Order::Stop {}).await;

    // One of a server that does not run: nothing of its holes is read.
    let stopped = driver.back_up(root, &asked(root, 6, Some(3)), &store).await.unwrap();
    assert!(stopped.sent_bytes < 1 << 20, "{stopped:?}");
    let (digest, snapshot) = (full.digest(), Uuid::from_u128(0xa1));
    driver.take_snapshot(root, snapshot).await.unwrap();
    let kept = driver.write_back(root, (root.disk, full.backup), None, &store).await.unwrap_err();
    assert!(matches!(&kept, DriverFault::Rejected(why) if why.contains("has snapshots")), "{kept}");
    driver.delete_snapshot(root, snapshot).await.unwrap();
    driver.write_back(root, (root.disk, full.backup), Some(&digest), &store).await.unwrap();
    driver.write_back(data, (data.disk, raw.backup), None, &store).await.unwrap();
    let missing = (data.disk, Uuid::from_u128(99));
    driver.write_back(data, missing, None, &store).await.unwrap_err();
    assert_eq!(left(&host), 0);
    server.done(&driver, 3, Order::Start {}).await;
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("cat /state/note").await, "first");
    assert_eq!(
        guest.run("dd if=/dev/vdb bs=512 skip=2048 count=1 2>/dev/null | head -n 1").await,
        "kept"
    );
    // What was known of changes is not believed of the new disk.
    let after = driver.back_up(root, &asked(root, 7, Some(3)), &store).await.unwrap();
    let all = after.chunks.len() as u64 * u64::from(BYTES_MIN);
    assert!(after.read_bytes >= all, "{} of {all}", after.read_bytes);
    no_offer(&host, &server).await;
    server.removed(&driver, 4).await;
}

/// A server that runs, and a driver that works for it.
async fn running(host: &Host, number: u128) -> (KvmHost, Launch) {
    let driver = host.driver().await;
    let server = host.launch(number, "sk-test-41", "#!/bin/sh\n");
    server.done(&driver, 1, Order::Launch {}).await;
    Guest::ready(host, server.id).await;
    (driver, server)
}

#[tokio::test]
async fn a_backup_that_ends_anywhere_is_taken_again_and_leaves_no_offer() {
    let Some(host) = Host::of_tests().await else { return };
    let (driver, server) = running(&host, 41).await;
    let (root, _) = disks(&server);
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let store = store(proxy.url()).await;
    drop(driver);
    let mut backup = 0;
    for end in [End::Dies, End::Fails] {
        for side in [Side::Before, Side::After] {
            backup += 1;
            let ask = asked(root, backup, (backup > 1).then(|| backup - 1));
            let stopper = Stopper::new(end, (Step::Offer, side));
            let driver = host.driver_with(stopper.clone()).await;
            match end {
                End::Fails => drop(driver.back_up(root, &ask, &store).await.unwrap_err()),
                End::Dies => tokio::select! {
                    done = driver.back_up(root, &ask, &store) => panic!("{done:?}"),
                    () = stopper.stopped.notified() => {}
                },
            }
            drop(driver);
            let driver = host.driver().await;
            driver.back_up(root, &ask, &store).await.unwrap();
            no_offer(&host, &server).await;
        }
    }
    // The store stays away in the midst of it.
    let driver = host.driver().await;
    let ask = asked(root, backup + 1, None);
    proxy.script(|seen| if seen.number > 6 { Fate::DropBefore } else { Fate::Forward });
    let away = driver.back_up(root, &ask, &store).await.unwrap_err();
    assert!(matches!(away, DriverFault::Transient(_)), "{away}");
    no_offer(&host, &server).await;
    proxy.heal();
    driver.back_up(root, &ask, &store).await.unwrap();
    // The agent dies after the offer, and nobody wants the backup any more.
    drop(driver);
    let stopper = Stopper::new(End::Dies, (Step::Offer, Side::After));
    let driver = host.driver_with(stopper.clone()).await;
    let ask = asked(root, backup + 2, None);
    tokio::select! {
        done = driver.back_up(root, &ask, &store) => panic!("{done:?}"),
        () = stopper.stopped.notified() => {}
    }
    drop(driver);
    let driver = host.driver().await;
    let other = driver.back_up(root, &asked(root, backup + 3, None), &store).await.unwrap_err();
    assert!(matches!(&other, DriverFault::Transient(why) if why.contains("goes on")), "{other}");
    driver.give_up_backup(root, ask.backup).await.unwrap();
    no_offer(&host, &server).await;

    // A restore dies before its end: the disk is what it was.
    server.done(&driver, 2, Order::Stop {}).await;
    drop(driver);
    for side in [Side::Before, Side::After] {
        let stopper = Stopper::new(End::Dies, (Step::Replace, side));
        let driver = host.driver_with(stopper.clone()).await;
        let back = (root.disk, Uuid::from_u128(1));
        tokio::select! {
            done = driver.write_back(root, back, None, &store) => panic!("{done:?}"),
            () = stopper.stopped.notified() => {}
        }
        drop(driver);
        let driver = host.driver().await;
        let census = driver.census().await.unwrap();
        let parts = census.disks.iter().filter(|name| name.contains(".part")).count();
        assert_eq!(parts, usize::from(side == Side::Before), "{census:?}");
        driver.write_back(root, back, None, &store).await.unwrap();
        assert_eq!(driver.census().await.unwrap().disks.len(), 2);
    }
    let driver = host.driver().await;
    server.done(&driver, 3, Order::Start {}).await;
    Guest::ready(&host, server.id).await;
    server.removed(&driver, 4).await;
    assert_eq!(left(&host), 0);
}
