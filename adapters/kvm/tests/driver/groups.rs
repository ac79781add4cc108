//! Devices with an IOMMU group of several, on a kernel that is a folder: there is no such device here, so libvirt
//! starts no server that has one, and what was taken for it is to go back by itself.

use std::{path::Path, sync::Arc};

use adapters_kvm::driver::{Census, Kernel, Side, Step};
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
