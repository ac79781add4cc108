//! A server's life, as it is seen from inside the guest and from outside.

use adapters_kvm::{
    check::{self, Standing},
    driver::{Census, Options, Seen},
};
use domain::compute::server::{Order, Power};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::host::{Guest, Host, Launch, PATIENCE, open, seen};

const USERDATA: &str = "#!/bin/sh\necho once >>/state/userdata\n";

#[tokio::test]
async fn a_server_reads_its_seed_is_stopped_started_restarted_and_leaves_nothing() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    assert_eq!(driver.driver(3).epoch(), 3);
    let server = host.launch(17, "sk-test-17", USERDATA);
    let before = driver.census().await.unwrap();
    assert_eq!(before, Census::default());

    let machine = server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!((machine.power, machine.shape.as_str()), (Power::Running, "1x96"));
    assert_eq!((machine.disks.len(), machine.addresses.len()), (2, 2));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("hostname").await, "web-17");
    assert_eq!(
        guest.run("cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address").await,
        "1400\n52:54:00:00:01:11"
    );
    let addresses = guest.run("ip -o address show dev eth0 | grep -v fe80").await;
    for address in ["10.9.0.17/24", "2001:db8:9::11/64"] {
        assert!(addresses.contains(address), "{addresses}");
    }
    let routes = guest.run("ip route").await;
    assert!(routes.contains("default via 10.9.0.254 dev eth0"), "{routes}");
    assert_eq!(
        guest.run("cat /run/authorized-keys").await,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH ann"
    );
    assert_eq!(guest.run("cat /state/userdata").await, "once");
    assert_eq!(
        guest.run("cat /sys/block/vda/size /sys/block/vdb/size").await,
        "2097152\n4194304",
        "sectors of 1 and 2 GiB"
    );
    assert_eq!(guest.run("cat /sys/block/vdc/ro /sys/block/vdc/serial").await, "1\nseed");

    let census = driver.census().await.unwrap();
    assert_eq!(census.servers, [(server.id, Power::Running)].into());
    assert_eq!(census.processes, [(format!("sk-{}", server.id), 1)].into());
    assert_eq!((census.disks.len(), census.seeds.len(), census.records.len()), (2, 1, 1));
    assert_eq!(census.interfaces.len(), 1);
    assert_eq!(census.guarded, census.interfaces, "its rules are there");
    assert_eq!(census.bridges, ["sk-test-17".to_owned()].into());

    // The same order again, as after a report that was lost.
    assert_eq!(server.done(&driver, 1, Order::Launch {}).await, machine);
    assert_eq!(driver.census().await.unwrap(), census);

    // It is told by the guest's agent, and stops by itself.
    let machine = server.done(&driver, 2, Order::Stop {}).await;
    assert_eq!(machine.power, Power::Stopped);
    let off = |number| [(server.id, Seen { number, power: Power::Stopped })].into();
    assert_eq!(driver.powers().await.unwrap(), off(2));

    let machine = server.done(&driver, 3, Order::Start {}).await;
    assert_eq!(machine.power, Power::Running);
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("cat /state/userdata").await, "once", "it was an instance before");

    let boot = "cat /proc/sys/kernel/random/boot_id";
    let first = guest.run(boot).await;
    server.done(&driver, 4, Order::Reboot {}).await;
    let guest = Guest::ready(&host, server.id).await;
    let second = guest.run(boot).await;
    assert_ne!(first, second);
    server.done(&driver, 4, Order::Reboot {}).await;
    assert_eq!(guest.run(boot).await, second, "one order is one restart");
    let of_machine = guest.domain.id;
    assert!(of_machine.is_some());

    // It stops by itself: this is told.
    let mut changes = driver.changes();
    changes.mark_unchanged();
    guest.begin("sync; poweroff -f").await;
    let stopped = async {
        loop {
            changes.changed().await.unwrap();
            if driver.powers().await.unwrap() == off(4) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.unwrap();

    server.removed(&driver, 5).await;
    assert_eq!(driver.census().await.unwrap(), before);
    server.removed(&driver, 5).await;
}

#[tokio::test]
async fn a_guest_that_does_not_care_loses_its_power_and_another_agent_waits() {
    let Some(mut host) = Host::of_tests().await else { return };
    host.stop_patience = std::time::Duration::from_millis(300);
    let driver = host.driver().await;
    let server = host.launch(18, "lab", "#!/bin/sh\n");
    server.done(&driver, 1, Order::Launch {}).await;
    // Its firmware has not even begun: there is nobody to hear it.
    let machine = server.done(&driver, 2, Order::Stop {}).await;
    assert_eq!(machine.power, Power::Stopped);
    assert!(driver.census().await.unwrap().bridges.is_empty(), "the bridge is the host's own");

    let other = adapters_kvm::driver::KvmHost::open(host.options()).await.err().unwrap();
    assert!(other.to_string().contains("another agent"), "{other}");
    drop(driver);
    let driver = host.driver().await;
    server.removed(&driver, 3).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
    // What is not there cannot be seen, and is not made by the way.
    let fault = driver.carry_out(&server.order(4, &Order::Stop {})).await.unwrap_err();
    assert!(matches!(fault, commands::ports::DriverFault::NotFound(_)), "{fault}");
}

#[tokio::test]
async fn what_a_host_needs_is_looked_at_before_it_works() {
    let Some(host) = Host::of_tests().await else { return };
    let found = check::check(&host.options()).await;
    let of = |what: &str| found.iter().find(|one| one.what.starts_with(what)).unwrap();
    for what in
        ["root", "ip", "nft", "qemu-img", "qemu-nbd", "tc", "libvirt", "QEMU", "data folder"]
    {
        assert_eq!(of(what).standing, Standing::Good, "{:?}", of(what));
    }
    assert!(of("virtualisation").standing <= Standing::Poor, "{found:?}");
    assert!(found.iter().all(|one| !one.what.starts_with("volume group")), "{found:?}");

    // What it was told of and is not there is missing, as is a daemon that does not listen.
    let mut options = host.options();
    options.storages = vec![host.data.path().join("not-mounted")];
    options.libvirt.socket = host.data.path().join("no-socket");
    let found = check::check(&options).await;
    let missing = found.iter().filter(|one| one.standing == Standing::Missing);
    let missing: Vec<_> = missing.map(|one| one.what.split(' ').next().unwrap()).collect();
    assert_eq!(missing, ["libvirt", "storage"], "{found:?}");
}

#[tokio::test]
async fn what_can_never_run_says_why_and_leaves_nothing() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let good = host.launch(19, "lab", "#!/bin/sh\n");
    let change = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut state = serde_json::to_value(&good.state).unwrap();
        change(&mut state["home"]);
        let mut server = good.clone();
        server.state = serde_json::from_value(state).unwrap();
        server
    };
    let other = "0".repeat(64);
    for (server, why) in [
        (change(&|home| home["parts"]["image"]["size_mib"] = 1.into()), "more than"),
        (change(&|home| home["parts"]["nics"][0]["bridge"] = "lo".into()), "is no bridge"),
        (
            change(&|home| home["parts"]["image"]["sha256"] = other.as_str().into()),
            "bring its file",
        ),
        (change(&|home| home["parts"]["disks"][0]["size_gib"] = 0.into()), "multiple of 512"),
    ] {
        let fault = driver.carry_out(&server.order(1, &Order::Launch {})).await.unwrap_err();
        let is_final = matches!(fault, commands::ports::DriverFault::Rejected(_));
        assert!(is_final && fault.to_string().contains(why), "{why}: {fault}");
        // What the runner orders when a launch is given up.
        server.removed(&driver, 2).await;
        assert_eq!(driver.census().await.unwrap(), Census::default(), "{why}");
    }
    let report = driver.carry_out(&good.order(3, &Order::Launch {})).await.unwrap();
    assert_eq!(seen(report, 3).power, Power::Running);
    good.removed(&driver, 4).await;
}

#[tokio::test]
async fn a_host_says_what_it_is_and_whether_its_processor_runs_guests() {
    let Some(host) = Host::of_tests().await else { return };
    let options = adapters_kvm::driver::Options { virtualisation: None, ..host.options() };
    let driver = open(options).await;
    let sighting = driver.sighting().await.unwrap();
    assert!(sighting.virtualisation.starts_with("qemu "), "{}", sighting.virtualisation);
    let ends = ["kvm", "emulated"].iter().any(|how| sighting.virtualisation.ends_with(how));
    assert!(ends && sighting.virtualisation.contains(", libvirt "), "{}", sighting.virtualisation);
    assert!(!sighting.cells.is_empty());
    assert_eq!(driver.census().await.unwrap(), Census::default(), "the probe is gone");
}

/// Answers one request with these bytes.
async fn serve(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/image", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1_024];
        let length = stream.read(&mut request).await.unwrap();
        assert!(request[..length].starts_with(b"GET /image HTTP/1.1"));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // The other side may have had enough.
        let _ = stream.write_all(&bytes).await;
    });
    url
}

#[tokio::test]
async fn an_image_comes_by_its_address_and_is_what_it_was_to_be_or_is_not_taken() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(21, "lab", "#!/bin/sh\n");
    let digest = server.state.home.as_ref().unwrap().parts.image.as_ref().unwrap().sha256.clone();
    let brought = host.data.path().join("uploads").join(&digest);
    let image = std::fs::read(&brought).unwrap();
    std::fs::remove_file(&brought).unwrap();
    let from = |url: &str| {
        let mut state = serde_json::to_value(&server.state).unwrap();
        state["home"]["parts"]["image"]["source"] = serde_json::json!({"url": url});
        let mut server = server.clone();
        server.state = serde_json::from_value(state).unwrap();
        server
    };
    let mut wrong = image.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let task = from(&serve(wrong).await).order(1, &Order::Launch {});
    let fault = driver.carry_out(&task).await.unwrap_err();
    assert!(matches!(fault, commands::ports::DriverFault::Rejected(_)), "{fault}");
    assert!(fault.to_string().contains("digest of the image"), "{fault}");
    let cut = serve(image[..1 << 20].to_vec()).await;
    let fault = driver.carry_out(&from(&cut).order(1, &Order::Launch {})).await.unwrap_err();
    assert!(fault.to_string().contains("digest of the image"), "{fault}");
    // Nobody answers there any more.
    let fault = driver.carry_out(&from(&cut).order(1, &Order::Launch {})).await.unwrap_err();
    assert!(matches!(fault, commands::ports::DriverFault::Transient(_)), "{fault}");

    let machine = from(&serve(image).await).done(&driver, 1, Order::Launch {}).await;
    assert_eq!(machine.power, Power::Running);
    // Once it is here, it is not asked for.
    server.removed(&driver, 2).await;
    from(&cut).done(&driver, 3, Order::Launch {}).await;
    server.removed(&driver, 4).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn images_that_no_disk_reads_from_go_when_another_comes() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = open(Options { images_max_bytes: Some(0), ..host.options() }).await;
    let (first, second) =
        (host.launch(18, "sk-test-18", USERDATA), host.launch_larger(19, "sk-test-19", USERDATA));
    let image = |server: &Launch| {
        let parts = &server.state.home.as_ref().unwrap().parts;
        parts.image.as_ref().unwrap().sha256.clone()
    };
    let kept = || {
        let files = std::fs::read_dir(host.data.path().join("images")).unwrap().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".raw").map(str::to_owned)).collect::<Vec<_>>()
    };
    first.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(kept(), [image(&first)], "a disk reads from it");
    first.removed(&driver, 2).await;
    assert_eq!(kept(), [image(&first)], "until another comes");
    second.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(kept(), [image(&second)]);
    // It is taken again from what was brought, and the other one stays.
    first.done(&driver, 3, Order::Launch {}).await;
    let mut both = [image(&first), image(&second)];
    both.sort();
    let mut is = kept();
    is.sort();
    assert_eq!(is, both);
    first.removed(&driver, 4).await;
    second.removed(&driver, 2).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
