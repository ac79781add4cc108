//! A domain that somebody started by hand: seen, had as a server while it runs, stopped and started by us with
//! what it had, and given back.

use std::path::PathBuf;

use adapters_kvm::driver::{Side, Step};
use adapters_libvirt::{
    Affects,
    description::{Description, DiskDevice, Format, Nic, Source},
};
use domain::{
    compute::{
        adoption::{Adopt, ForeignMachine, Reach, work_out},
        host::{Event as HostEvent, Host as HostState},
        placement::HostId,
        server::{Order, Power, Server},
    },
    kernel::Decider as _,
};
use serde_json::json;
use uuid::Uuid;

use crate::host::{End, Guest, Host, Launch};

const ID: Uuid = Uuid::from_u128(0x8a5c_2f0e_6f0a_4d5e_9a40_0d4f_4f1f_5a01);
const MAC: &str = "52:54:00:aa:00:01";
/// It has no seed that would have it do this by itself.
const MOUNT: &str = "mkdir -p /state && mount -t vfat -o sync /dev/vda /state";

/// Starts a domain as somebody would, and says where its disk is.
async fn by_hand(host: &Host) -> PathBuf {
    let disk = host.data.path().join("by-hand.img");
    std::fs::copy(host.folder().join("image"), &disk).unwrap();
    let mut machine = Description::new("shop-db", ID, 96 << 10, 1);
    machine.virtualisation = adapters_libvirt::description::Virtualisation::Emulated;
    machine.disks = vec![DiskDevice {
        target: "vda".to_owned(),
        source: Some(Source::File(disk.display().to_string())),
        format: Format::Raw,
        is_cdrom: false,
        is_readonly: false,
        is_shared: false,
        serial: None,
        limits: adapters_libvirt::Limits::new(),
        boot: Some(1),
    }];
    machine.nics = vec![Nic {
        mac: MAC.to_owned(),
        bridge: "lab".to_owned(),
        port: None,
        vlan: None,
        is_ovs: false,
        mtu: None,
        is_up: true,
        boot: None,
    }];
    // It is somebody's: nothing of ours is in it.
    let xml = machine.xml();
    let (before, after) = xml.split_once("<metadata>").unwrap();
    let after = after.split_once("</metadata>").unwrap().1;
    let xml = format!("{before}{after}");
    let libvirt = host.connect().await;
    let domain = libvirt.redefine(&xml).await.unwrap();
    libvirt.start(&domain, false).await.unwrap();
    disk
}

/// The processes of QEMU that have this file.
fn process(of: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let id: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("qemu-system") && line.contains(of) {
            found.extend(id);
        }
    }
    found
}

/// What the log would make of it.
fn adopted(host: &HostState, networks: &[Reach]) -> Launch {
    let ask = json!({"machine": ID});
    let ask: Adopt = serde_json::from_value(ask).unwrap();
    let id = HostId::new(Uuid::from_u128(7));
    let looked =
        work_out(&ask, (id, host), 0, networks, std::time::SystemTime::now().into()).unwrap();
    assert!(looked.obstacles.is_empty(), "{looked:?}");
    let event = json!({"type": "adopted", "data": {"adoption": looked.adoption}});
    let state = Server::default().evolve(serde_json::from_value(event).unwrap());
    Launch::of(ID, state)
}

fn network() -> Reach {
    let segment = json!({
        "name": "lab", "project": null, "medium": "bridge", "bridge": "lab", "mtu": 1_500,
        "networks": {}, "retired": false,
    });
    let defined = json!({"type": "defined", "data": {
        "id": Uuid::from_u128(5), "name": "front", "segment": Uuid::from_u128(6), "project": null,
        "v4": {"net": "10.9.0.0/24"}, "v6": null, "dns_servers": [], "domain": "", "dhcp": false,
    }});
    let network = domain::network::net::Network::default();
    let network = network.evolve(serde_json::from_value(defined).unwrap());
    Reach { id: Uuid::from_u128(5), network, segment: serde_json::from_value(segment).unwrap() }
}

#[tokio::test]
async fn a_domain_that_runs_is_a_server_of_ours_and_is_given_back() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    assert!(driver.sighting().await.unwrap().machines.is_empty());
    let disk = by_hand(&host).await;
    let guest = Guest::up(&host, ID).await;
    guest.run("ip link set eth0 up && ip addr add 10.9.0.77/24 dev eth0").await;
    guest.run(&format!("{MOUNT} && echo kept >/state/by-hand && sync")).await;
    let processes = process(&disk.display().to_string());
    assert_eq!(processes.len(), 1);

    let seen = driver.sighting().await.unwrap();
    let domain: &ForeignMachine = &seen.machines[&ID];
    assert_eq!(
        (domain.name.as_str(), domain.power, domain.agent),
        ("shop-db", Power::Running, true)
    );
    assert_eq!((domain.vcpus, domain.memory_mib, domain.differs), (1, 96, false));
    assert_eq!(domain.disks[0].path.as_deref(), disk.to_str());
    assert!(domain.disks[0].size_bytes > 0, "{domain:?}");
    assert_eq!(domain.nics[0].bridge.as_deref(), Some("lab"));
    assert_eq!(domain.nics[0].addresses, ["10.9.0.77".parse().unwrap()].into());
    assert!(domain.persistent);
    let sighted = HostEvent::Sighted { seen, fields: Vec::new() };
    let state = HostState { name: "lab".to_owned(), ..HostState::default() }.evolve(sighted);
    let server = adopted(&state, &[network()]);

    // The agent dies before and after it has written that down.
    let order = Order::Adopt { digest: domain_digest(&state) };
    drop(driver);
    for side in [Side::Before, Side::After] {
        host.cut(End::Dies, (Step::Adopt, side), &server.order(1, &order)).await;
    }
    let driver = host.driver().await;
    let other = Order::Adopt { digest: "0a".to_owned() };
    let refused = driver.carry_out(&server.order(1, &other)).await.unwrap_err();
    assert!(refused.to_string().contains("was changed"), "{refused}");
    let machine = server.done(&driver, 1, order).await;
    assert_eq!(machine.power, Power::Running);
    assert_eq!(machine.addresses, ["10.9.0.77/24".parse().unwrap()]);
    assert_eq!(machine.disks.len(), 1);
    assert_eq!(process(&disk.display().to_string()), processes, "it is the same process");
    assert!(driver.sighting().await.unwrap().machines.is_empty(), "it is ours");
    assert_eq!(driver.census().await.unwrap().servers, [(ID, Power::Running)].into());

    server.done(&driver, 2, Order::Stop {}).await;
    let start = server.order(3, &Order::Start {});
    drop(driver);
    for at in
        [(Step::Define, Side::Before), (Step::Define, Side::After), (Step::Start, Side::After)]
    {
        host.cut(End::Dies, at, &start).await;
    }
    let driver = host.driver().await;
    let machine = server.done(&driver, 3, Order::Start {}).await;
    assert_eq!(machine.power, Power::Running);
    let guest = Guest::up(&host, ID).await;
    let kept = guest.run(&format!("{MOUNT} && cat /state/by-hand")).await;
    assert_eq!(kept, "kept", "its disk is what it was");
    assert_eq!(guest.run("cat /sys/class/net/eth0/address").await, MAC);
    let census = driver.census().await.unwrap();
    assert_eq!((census.interfaces.len(), census.guarded.len()), (1, 1), "{census:?}");
    let libvirt = host.connect().await;
    let domain = libvirt.domain(ID).await.unwrap();
    let xml = libvirt.xml(&domain, Affects::Config).await.unwrap();
    let is = Description::read(&xml).unwrap();
    assert_eq!((is.name.as_str(), is.position, is.disks.len()), ("shop-db", 3, 1));

    // Given back it runs on, and nothing that was set for it is left.
    let running = process(&disk.display().to_string());
    let report = driver.carry_out(&server.order(4, &Order::Release {})).await.unwrap();
    assert_eq!(report.verb, "confirm-removal");
    assert_eq!(process(&disk.display().to_string()), running);
    let census = driver.census().await.unwrap();
    assert!(census.guarded.is_empty() && census.records.is_empty(), "{census:?}");
    assert_eq!(guest.run("echo here").await, "here");
    let again = driver.sighting().await.unwrap();
    assert!(again.machines.contains_key(&ID));

    // And what is removed leaves the file of its disk.
    let sighted = HostEvent::Sighted { seen: again, fields: Vec::new() };
    let state = HostState { name: "lab".to_owned(), ..HostState::default() }.evolve(sighted);
    let order = Order::Adopt { digest: domain_digest(&state) };
    server.done(&driver, 5, order).await;
    server.removed(&driver, 6).await;
    assert!(driver.census().await.unwrap().servers.is_empty());
    assert!(process(&disk.display().to_string()).is_empty());
    assert!(disk.exists(), "it was there before");
}

fn domain_digest(state: &HostState) -> String {
    state.seen.as_ref().unwrap().machines[&ID].digest.clone()
}
