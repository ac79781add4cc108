//! Disks on a storage that other hosts reach as well.

use adapters_kvm::driver::{Census, Options};
use commands::ports::DriverFault;
use domain::compute::{
    server::{Order, Power},
    storage::StorageId,
};
use serde_json::json;

use crate::host::{Guest, Host, open};

#[tokio::test]
async fn disks_lie_on_a_storage_while_it_is_there_and_nothing_is_made_where_it_is_not() {
    let Some(host) = Host::of_tests().await else { return };
    let storage: StorageId = "01990000-0000-7000-8000-0000000000aa".parse().unwrap();
    let root = host.data.path().join("nas");
    std::fs::create_dir(&root).unwrap();
    let options = || Options { storages: vec![root.clone()], ..host.options() };
    let driver = open(options()).await;
    let server = host.launch(40, "lab", "#!/bin/sh\n").with(|home| {
        for disk in home["parts"]["disks"].as_array_mut().unwrap() {
            disk["storage"] = json!(storage);
        }
    });
    assert!(driver.sighting().await.unwrap().storages.is_empty(), "nothing says that it is one");
    let fault = driver.carry_out(&server.order(1, &Order::Launch {})).await.unwrap_err();
    assert!(matches!(fault, DriverFault::Transient(_)), "{fault}");
    assert!(fault.to_string().contains("is not mounted"), "{fault}");
    assert!(std::fs::read_dir(&root).unwrap().next().is_none(), "nothing is written there");

    let marker = root.join("skyledger-storage");
    std::fs::write(&marker, format!("{storage}\n")).unwrap();
    assert_eq!(driver.sighting().await.unwrap().storages, [storage].into());
    let machine = server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!((machine.power, machine.disks.len()), (Power::Running, 2));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("cat /sys/block/vda/size").await, "2097152");
    let files = || std::fs::read_dir(root.join("disks")).unwrap().count();
    assert_eq!(files(), 2);
    assert!(driver.census().await.unwrap().disks.is_empty(), "none is the host's alone");

    // While it is not mounted nothing of it is taken to be gone.
    server.done(&driver, 2, Order::Stop {}).await;
    std::fs::rename(&marker, root.join("away")).unwrap();
    let fault = driver.carry_out(&server.order(3, &Order::Remove {})).await.unwrap_err();
    assert!(fault.to_string().contains("the storage"), "{fault}");
    assert_eq!(files(), 2);
    std::fs::rename(root.join("away"), &marker).unwrap();
    server.removed(&driver, 3).await;
    assert_eq!(files(), 0);
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
