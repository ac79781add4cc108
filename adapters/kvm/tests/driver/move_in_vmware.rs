//! A machine of a vCenter comes to this host, and starts on hardware that its system knows. The vCenter is a stand-in
//! (govmomi's simulator behind a front of ours), the provider that copies from it and everything on this side are real.

use std::{process::Command, sync::Arc};

use adapters_clouds::{testing::vcenter::VCenter, vmware::Vmware};
use commands::ports::{Access, Unpaced};
use domain::compute::{
    move_in::Command as Say,
    server::{Order, Power},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    disks::{self, Lab},
    host::{Guest, Host},
    move_in::{Moving, driver},
    nics::{ADDED, done, with_another},
};

/// Its disks, as the vCenter numbers them.
const ROOT: u32 = 2000;
const DATA: u32 = 2001;
const MIB: usize = 1 << 20;
const MARKER: &str = "a disk of VMware";
const LAST: &str = "written last";

/// The host's network is one of its own, which who copies has to reach: so that is done by this program again, in it.
#[tokio::test]
async fn a_machine_of_a_vcenter_starts_here_on_hardware_that_its_system_knows() {
    let Some(host) = Host::of_tests().await else { return };
    let words = ["--exact", "move_in_vmware::who_moves", "--nocapture"];
    let run = Command::new("nsenter")
        .arg(format!("--net={}", host.net()))
        .arg(std::env::current_exe().unwrap())
        .args(words)
        .env("SKYLEDGER_MOVES_TO", host.folder())
        .output()
        .unwrap();
    let said = [run.stdout, run.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(run.status.success() && said[0].contains("1 passed"), "{}{}", said[0], said[1]);
}

/// The larger guest's image is what its system lies on.
async fn write(vcenter: &VCenter, id: &str, image: &[u8]) {
    for (at, piece) in image.chunks(MIB).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            vcenter.write(id, ROOT, (at * MIB) as u64, piece.to_vec()).await.unwrap();
        }
    }
    vcenter.write(id, DATA, 0, MARKER.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves() {
    let Ok(folder) = std::env::var("SKYLEDGER_MOVES_TO") else { return };
    let host = Host::at(folder.into());
    let Some(vcenter) = VCenter::start().await.unwrap() else { return };
    let image = std::fs::read(host.folder().join("larger/image")).unwrap();
    let mib = image.len().div_ceil(MIB);
    let ask = json!({"Name": "old", "Mib": [mib, 16], "Addresses": ["10.9.0.65"]});
    let id = vcenter.machine(ask).await.unwrap();
    write(&vcenter, &id, &image).await;

    let userdata = "#!/bin/sh\nnc -ll -p 80 -e hostname &\n";
    let server = host.launch_larger(65, "sk-test-65", userdata).with(|home| {
        home["parts"]["image"] = Value::Null;
        home["parts"]["hardware"] = json!({"disks": "sata", "nics": "e1000e"});
        for disk in home["parts"]["disks"].as_array_mut().unwrap() {
            (disk["from_image"], disk["format"]) = (json!(false), json!("qcow2"));
        }
    });
    let mut credential = VCenter::credential();
    credential["sender"] = json!("10.99.0.1");
    let access = Access {
        account: Uuid::nil(),
        endpoint: Some(vcenter.endpoint().to_owned()),
        credential,
        identity: None,
        pace: Arc::new(Unpaced),
    };
    let mut moving = Moving::begin(server, Vmware::new(), access, &id).await;
    let driver = driver(&host).await;
    assert_eq!(moving.here(&driver).await, "copying");
    assert_eq!(moving.there().await, "ready");
    vcenter.write(&id, DATA, MIB as u64, LAST.into()).await.unwrap();
    moving.say(Say::CutOver { cut_off: false });
    assert_eq!(moving.there().await, "closing");
    assert_eq!(vcenter.of(&id).await.unwrap()["runs"], false);
    assert_eq!(moving.here(&driver).await, "starting");

    // Its system is started from what was copied, and sees what it has drivers for.
    let server = moving.server;
    let seen = server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(seen.power, Power::Running);
    let guest = Guest::ready(&host, server.id).await;
    // Linux asks all ports at once: the disk that answers first is sda.
    let root = guest.run("grep ' /state ' /proc/mounts | cut -d' ' -f1").await;
    let data = if root == "/dev/sda" { "/dev/sdb" } else { "/dev/sda" };
    assert!(["/dev/sda", "/dev/sdb"].contains(&root.as_str()), "{root}");
    for disk in ["sda", "sdb"] {
        let by = guest.run(&format!("readlink -f /sys/block/{disk}")).await;
        assert!(by.contains("/ata"), "{by}");
    }
    assert_eq!(guest.run("ls /sys/block | grep -c '^vd'").await, "1", "its seed alone");
    assert_eq!(guest.run(&format!("head -c 16 {data}")).await, MARKER);
    let last = format!("dd if={data} bs=1M skip=1 count=1 2>/dev/null | head -c 12");
    assert_eq!(guest.run(&last).await, LAST, "what it wrote before it was stopped");
    let card = |name: &str| format!("basename $(readlink /sys/class/net/{name}/device/driver)");
    assert_eq!(guest.run(&card("eth0")).await, "e1000e");
    assert!(host.inside("ip addr add 10.9.0.254/24 dev sk-test-65"));
    guest.becomes("netstat -ltn | grep -c ':80 '", "1").await;
    assert!(host.reaches("10.9.0.65", 80));

    // A card of that kind comes and goes while it runs.
    let both = with_another(&server, "sk-test-66");
    let machine = done(&both, &driver, 2, Order::AddNic { nic: ADDED }).await;
    assert_eq!(machine.nics.len(), 2);
    guest.becomes("cat /sys/class/net/eth1/address", "52:54:00:00:0a:dd").await;
    assert_eq!(guest.run(&card("eth1")).await, "e1000e");
    let machine = done(&both, &driver, 3, Order::RemoveNic { nic: ADDED }).await;
    assert_eq!(machine.nics.len(), 1);
    guest.becomes("ls /sys/class/net | grep -c eth", "1").await;

    // A disk comes while it is off: SATA as the others, and it finds it.
    server.done(&driver, 4, Order::Stop {}).await;
    let (_, actual) = Lab::of(&server).done(&driver).await;
    assert_eq!(actual.size_bytes, 1 << 30);
    let with = server.with(|home| {
        let disk = json!({"id": disks::ID, "size_gib": 1, "format": "qcow2"});
        home["parts"]["disks"].as_array_mut().unwrap().push(disk);
    });
    with.done(&driver, 5, Order::Start {}).await;
    let guest = Guest::ready(&host, with.id).await;
    let by = guest.run("for disk in /sys/block/sd?; do readlink -f $disk; done").await;
    assert_eq!(by.lines().filter(|line| line.contains("/ata")).count(), 3, "{by}");
    let sizes = guest.run("cat /sys/block/sd?/size").await;
    assert!(sizes.lines().any(|size| size == (2 << 20).to_string()), "{sizes}");
    drop(guest);
    with.removed(&driver, 6).await;
    let census = driver.census().await.unwrap();
    assert!(census.disks.is_empty() && census.servers.is_empty(), "{census:?}");
}
