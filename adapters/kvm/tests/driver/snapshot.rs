//! Snapshots of real servers' disks, running and not.

use adapters_kvm::{
    driver::{Of, Side, Step},
    storage::qemu_img::Format,
};
use commands::ports::DriverFault;
use domain::compute::server::Order;
use uuid::Uuid;

use crate::host::{End, Guest, Host, Stopper};

const ONE: Uuid = Uuid::from_u128(0xa1);
const TWO: Uuid = Uuid::from_u128(0xa2);

#[tokio::test]
async fn a_server_goes_back_to_a_snapshot_that_was_taken_while_it_ran() {
    let Some(host) = Host::of_tests().await else { return };
    let mut driver = host.driver().await;
    let server = host.launch(50, "sk-test-50", "#!/bin/sh\n");
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    let parts = &server.state.home.as_ref().unwrap().parts;
    let of = |at: usize| Of { server: server.id, disk: parts.disks[at].id };
    let (root, data) = (of(0), of(1));

    guest.run("echo first >/state/note; sync").await;
    // The agent dies before and after it, and the same is done again by another.
    for side in [Side::Before, Side::After] {
        drop(driver);
        let stopper = Stopper::new(End::Dies, (Step::Snapshot, side));
        let dying = host.driver_with(stopper.clone()).await;
        tokio::select! {
            done = dying.take_snapshot(root, ONE) => panic!("{done:?}"),
            () = stopper.stopped.notified() => {}
        }
        drop(dying);
        driver = host.driver().await;
        let there = driver.snapshots(root).await.unwrap();
        assert_eq!(there.len(), usize::from(side == Side::After));
    }
    driver.take_snapshot(root, ONE).await.unwrap();
    guest.run("echo second >/state/note; sync").await;
    driver.take_snapshot(root, TWO).await.unwrap();
    assert_eq!(driver.snapshots(root).await.unwrap(), [ONE, TWO]);
    for side in [Side::Before, Side::After] {
        drop(driver);
        let stopper = Stopper::new(End::Dies, (Step::DeleteSnapshot, side));
        let dying = host.driver_with(stopper.clone()).await;
        tokio::select! {
            done = dying.delete_snapshot(root, TWO) => panic!("{done:?}"),
            () = stopper.stopped.notified() => {}
        }
        drop(dying);
        driver = host.driver().await;
        let left: &[Uuid] = if side == Side::After { &[ONE] } else { &[ONE, TWO] };
        assert_eq!(driver.snapshots(root).await.unwrap(), left);
    }
    driver.delete_snapshot(root, TWO).await.unwrap();
    assert_eq!(driver.snapshots(root).await.unwrap(), [ONE]);
    assert_eq!(guest.run("cat /state/note").await, "second");
    let runs = driver.roll_back(root, ONE).await.unwrap_err();
    assert!(matches!(&runs, DriverFault::Rejected(why) if why.contains("stop it first")), "{runs}");
    let raw = driver.take_snapshot(data, ONE).await.unwrap_err();
    assert!(matches!(&raw, DriverFault::Rejected(why) if why.contains("no snapshots")), "{raw}");

    server.done(&driver, 2, Order::Stop {}).await;
    driver.take_snapshot(root, TWO).await.unwrap();
    for (number, side) in [(1, Side::Before), (2, Side::After)] {
        drop(driver);
        let stopper = Stopper::new(End::Dies, (Step::RollBack, side));
        let dying = host.driver_with(stopper.clone()).await;
        tokio::select! {
            done = dying.roll_back_by(root, ONE, Some(number)) => panic!("{done:?}"),
            () = stopper.stopped.notified() => {}
        }
        drop(dying);
        driver = host.driver().await;
        driver.roll_back_by(root, ONE, Some(number)).await.unwrap();
    }
    let missing = driver.roll_back(root, Uuid::from_u128(9)).await.unwrap_err();
    assert!(matches!(missing, DriverFault::Rejected(_)), "{missing}");
    let cloned = Uuid::from_u128(0xc1);
    let clone = driver.clone_snapshot(root, TWO, cloned, Format::Qcow2).await.unwrap();
    assert_eq!((clone.size_bytes, clone.backing.len()), (1 << 30, 0));
    std::fs::remove_file(&clone.path).unwrap();

    server.done(&driver, 3, Order::Start {}).await;
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("cat /state/note").await, "first");
    // The order is done once, whatever becomes of what its agent said; another is another.
    driver.roll_back_by(root, ONE, Some(2)).await.unwrap();
    let runs = driver.roll_back_by(root, ONE, Some(3)).await.unwrap_err();
    assert!(matches!(&runs, DriverFault::Rejected(why) if why.contains("stop it first")), "{runs}");
    driver.delete_snapshot(root, ONE).await.unwrap();
    assert_eq!(driver.snapshots(root).await.unwrap(), [TWO]);
    server.removed(&driver, 4).await;
}
