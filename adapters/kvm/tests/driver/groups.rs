//! Devices with an IOMMU group of several, on a kernel that is a folder: there is no such device here, so libvirt
//! starts no server that has one, and what was taken for it is to go back by itself.

use std::{path::Path, sync::Arc};

use adapters_kvm::driver::{Census, Kernel, Side, Step};
use adapters_libvirt::Affects;
use domain::compute::server::Order;
use serde_json::json;

use crate::{
    host::{End, Host, Launch},
    kernel::Folder,
};

const GPU: &str = "0000:41:00.0";
const SOUND: &str = "0000:41:00.1";

fn kernel(host: &mut Host, root: &Path) -> Arc<Folder> {
    let parts = [(GPU, "0x030000", 7, ""), (SOUND, "0x040300", 7, "snd_hda_intel")];
    let kernel = Folder::new(root, &parts);
    host.kernel = Some(root.to_owned());
    host.files = Arc::clone(&kernel) as Arc<dyn Kernel>;
    kernel
}

fn with_gpu(server: Launch) -> Launch {
    server.with(|home| {
        let holding = &mut home["placement"]["holding"];
        holding["devices"] = json!([GPU]);
        holding["devices_with"] = json!([SOUND]);
    })
}

#[tokio::test]
async fn what_was_taken_for_a_server_that_does_not_run_goes_back() {
    let Some(mut host) = Host::of_tests().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let kernel = kernel(&mut host, folder.path());
    let driver_of = || kernel.driver(SOUND).unwrap();
    let server = with_gpu(host.launch(71, "unused", "#!/bin/sh\n"));

    // libvirt finds no IOMMU here, and starts nothing with a device.
    let driver = host.driver().await;
    let said = driver.carry_out(&server.order(1, &Order::Launch {})).await.unwrap_err();
    assert!(said.to_string().contains("PCI device"), "{said}");
    assert_eq!(driver_of(), "vfio-pci", "it was taken before the start");
    driver.powers().await.unwrap();
    assert_eq!(driver_of(), "snd_hda_intel", "and goes back when it is seen that nothing runs");
    drop(driver);

    // An agent that dies with it taken: the next one gives it back.
    for side in [Side::Before, Side::After] {
        let order = server.order(2, &Order::Start {});
        host.cut(End::Dies, (Step::Devices, side), &order).await;
        let is = if side == Side::After { "vfio-pci" } else { "snd_hda_intel" };
        assert_eq!(driver_of(), is);
        let driver = host.driver().await;
        driver.powers().await.unwrap();
        assert_eq!(driver_of(), "snd_hda_intel");
    }

    // A driver that does not let go: that is said, and nothing stays taken.
    kernel.say_no(1, false);
    let driver = host.driver().await;
    let said = driver.carry_out(&server.order(3, &Order::Start {})).await.unwrap_err();
    assert!(kernel.said_no() && said.to_string().contains("driver/unbind"), "{said}");
    driver.powers().await.unwrap();
    assert_eq!(driver_of(), "snd_hda_intel");
    drop(driver);

    // One that is stopped, or removed, has nothing taken.
    for (number, order) in [(4, Order::Stop {}), (6, Order::Remove {})] {
        let driver = host.driver().await;
        driver.carry_out(&server.order(number - 1, &Order::Start {})).await.unwrap_err();
        assert_eq!(driver_of(), "vfio-pci");
        driver.carry_out(&server.order(number, &order)).await.unwrap();
        assert_eq!(driver_of(), "snd_hda_intel", "{order:?}");
        drop(driver);
    }
    assert_eq!(host.driver().await.census().await.unwrap(), Census::default());

    // What the host has that was not there when the server was placed is not taken, in words.
    kernel.add(("0000:41:00.2", "0x0c0330", 7, "xhci_hcd"));
    kernel.told();
    let driver = host.driver().await;
    let said = driver.carry_out(&server.order(7, &Order::Launch {})).await.unwrap_err();
    assert!(said.to_string().contains("0000:41:00.2, which xhci_hcd has"), "{said}");
    assert_eq!(kernel.told(), Vec::<String>::new());
    server.removed(&driver, 8).await;
}

#[tokio::test]
async fn a_stopped_server_has_other_devices_from_its_next_start_on() {
    let Some(mut host) = Host::of_tests().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let stick = folder.path().join("sys/bus/usb/devices/1-1");
    std::fs::create_dir_all(&stick).unwrap();
    for (name, text) in [
        ("bDeviceClass", "00"),
        ("idVendor", "0529"),
        ("idProduct", "0001"),
        ("busnum", "99"),
        ("devnum", "12"),
    ] {
        std::fs::write(stick.join(name), text).unwrap();
    }
    host.kernel = Some(folder.path().to_owned());
    let driver = host.driver().await;
    let server = host.launch(72, "unused", "#!/bin/sh\n");
    server.done(&driver, 1, Order::Launch {}).await;
    server.done(&driver, 2, Order::Stop {}).await;
    let wire = host.connect().await;
    let described = async || {
        let domain = wire.domain(server.id).await.unwrap();
        let xml = wire.xml(&domain, Affects::Config).await.unwrap();
        (xml.contains("<hostdev"), xml.contains("bus='99' device='12'"))
    };
    let other = |devices: &[&str], model: &str| {
        let mut placement = serde_json::to_value(server.placement()).unwrap();
        let holding = &mut placement["holding"];
        holding["devices"] = json!(devices);
        if !devices.is_empty() {
            holding["models"] = json!({"usb:1-1": model});
        }
        let placement = serde_json::from_value(placement).unwrap();
        Order::ChangeDevices { devices: Vec::new(), placement }
    };
    server.done(&driver, 3, other(&["usb:1-1"], "0529:0001")).await;
    assert_eq!(described().await, (true, true));
    server.done(&driver, 4, other(&[], "")).await;
    assert_eq!(described().await, (false, false));
    // Cut off at either of its steps, it is done by who comes next.
    drop(driver);
    for (at, step) in (5..).zip([Step::Devices, Step::Define]) {
        for side in [Side::Before, Side::After] {
            let order = server.order(at, &other(&["usb:1-1"], "0529:0001"));
            host.cut(End::Dies, (step, side), &order).await;
            let driver = host.driver().await;
            server.done(&driver, at, other(&["usb:1-1"], "0529:0001")).await;
            assert_eq!(described().await, (true, true));
            server.done(&driver, at, other(&[], "")).await;
            assert_eq!(described().await, (false, false));
        }
    }
    // Another one is in that port by now: it is not handed over, and that is said at the start.
    let driver = host.driver().await;
    server.done(&driver, 7, other(&["usb:1-1"], "046d:c52b")).await;
    assert_eq!(described().await, (false, false));
    let swapped = server.with(|home| {
        let holding = &mut home["placement"]["holding"];
        holding["devices"] = json!(["usb:1-1"]);
        holding["models"] = json!({"usb:1-1": "046d:c52b"});
    });
    let said = driver.carry_out(&swapped.order(8, &Order::Start {})).await.unwrap_err();
    assert!(said.to_string().contains("0529:0001 now"), "{said}");
    swapped.removed(&driver, 9).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
