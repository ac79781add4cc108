//! A server's root disk is made from an image again, as its guest sees it; each step of it fails once, and
//! the agent dies once before it and once after it.

use std::time::Duration;

use adapters_kvm::driver::{Side, Step};
use commands::ports::DriverFault;
use domain::compute::server::{Order, Power, parts::Image};
use sha2::{Digest as _, Sha256};

use crate::host::{End, Guest, Host, Launch, seen};

/// The image of the tests with some bytes more: another one, from which a guest starts as well.
fn another(host: &Host, server: &Launch) -> Image {
    let own = server.state.home.as_ref().unwrap().parts.image.clone().unwrap();
    let uploads = host.data.path().join("uploads");
    let mut bytes = std::fs::read(uploads.join(&own.sha256)).unwrap();
    bytes.resize(bytes.len() + (1 << 20), 0);
    let sha256 = format!("{:x}", Sha256::digest(&bytes));
    std::fs::write(uploads.join(&sha256), &bytes).unwrap();
    Image { sha256, size_mib: own.size_mib + 1, ..own }
}

fn rebuild(image: &Image, start: bool) -> Order {
    Order::Rebuild { image: Box::new(image.clone()), start }
}

#[tokio::test]
async fn a_guest_finds_a_new_root_disk_and_its_other_disk_as_it_was() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(41, "lab", "#!/bin/sh\necho once >>/state/runs\n");
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    guest.run("echo mine >/state/marker; printf kept | dd of=/dev/vdb conv=notrunc; sync").await;
    assert_eq!(guest.run("cat /state/runs /state/marker").await, "once\nmine");
    let addresses = guest.run("ip address show dev eth0 | awk '/global/ {print $2}'").await;

    // A file that is no image stands in the way before anything is stopped.
    let image = another(&host, &server);
    let mut wrong = image.clone();
    wrong.sha256 = "0".repeat(64);
    let fault = driver.carry_out(&server.order(2, &rebuild(&wrong, true))).await.unwrap_err();
    assert!(matches!(fault, DriverFault::Rejected(_)), "{fault}");
    assert_eq!(driver.powers().await.unwrap()[&server.id].power, Power::Running);

    let machine = server.done(&driver, 3, rebuild(&image, true)).await;
    assert_eq!((machine.power, machine.disks.len()), (Power::Running, 2));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("cat /state/runs").await, "once", "it is a first boot");
    assert_eq!(guest.run("ls /state | grep -c marker; true").await, "0");
    assert_eq!(guest.run("head -c 4 /dev/vdb").await, "kept");
    assert_eq!(guest.run("ip address show dev eth0 | awk '/global/ {print $2}'").await, addresses);
    // The same order once more, as after an answer that was lost: nothing is made again.
    guest.run("echo later >/state/marker; sync").await;
    server.done(&driver, 3, rebuild(&image, true)).await;
    assert_eq!(guest.run("cat /state/marker").await, "later");
    // And one that is to stay stopped.
    let machine = server.done(&driver, 4, rebuild(&image, false)).await;
    assert_eq!(machine.power, Power::Stopped);
    server.removed(&driver, 5).await;
}

#[tokio::test]
async fn a_rebuild_that_ends_anywhere_is_one_rebuild() {
    let Some(mut host) = Host::of_tests().await else { return };
    // Nobody waits for a guest here.
    host.stop_patience = Duration::from_millis(100);
    let server = host.launch(42, "sk-test-42", "#!/bin/sh\n");
    let driver = host.driver().await;
    server.done(&driver, 1, Order::Launch {}).await;
    drop(driver);
    let image = another(&host, &server);
    let libvirt = host.connect().await;
    let machine = async || libvirt.domain(server.id).await.unwrap().id.unwrap();
    let steps = [Step::Image, Step::Stop, Step::Replace, Step::Network, Step::Define, Step::Start];
    let mut number = 1;
    for step in steps {
        for (end, side) in
            [(End::Fails, Side::Before), (End::Dies, Side::Before), (End::Dies, Side::After)]
        {
            let before = machine().await;
            number += 1;
            let task = server.order(number, &rebuild(&image, true));
            host.cut(end, (step, side), &task).await;
            let driver = host.driver().await;
            let report = driver.carry_out(&task).await.unwrap();
            assert_eq!(seen(report, number).power, Power::Running, "{step:?} {side:?}");
            assert_eq!(machine().await, before + 1, "{step:?} {side:?}: it was started once");
            let census = driver.census().await.unwrap();
            assert_eq!(census.processes.values().sum::<usize>(), 1);
            assert_eq!(census.disks.len(), 2, "{census:?}");
        }
    }
    let driver = host.driver().await;
    server.removed(&driver, number + 1).await;
}
