//! A domain that somebody started by hand: seen, had as a server while it runs, stopped and started by us with
//! what it had, and given back.

use std::{
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use adapters_kvm::driver::{KvmHost, Side, Step};
use adapters_libvirt::{
    Affects,
    description::{Description, DiskDevice, Format, Nic, NicModel, Source},
};
use domain::{
    compute::{
        adoption::{Adopt, ForeignMachine, Reach, work_out},
        disk::{Actual, Disk},
        host::{Event as HostEvent, Host as HostState},
        placement::HostId,
        server::{Order, Power, Server},
    },
    kernel::Decider as _,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    host::{End, Guest, Host, Launch},
    kept::{STORE, Stream, access, backup, made},
};

const ID: Uuid = Uuid::from_u128(0x8a5c_2f0e_6f0a_4d5e_9a40_0d4f_4f1f_5a01);
const MAC: &str = "52:54:00:aa:00:01";
/// It has no seed that would have it do this by itself; while it still looks for one, its disk is in use.
const MOUNT: &str = "mkdir -p /state && for try in $(seq 100); do \
    mount -t vfat -o sync /dev/vda /state && break; sleep 0.2; done; grep -q ' /state ' /proc/mounts";

/// Starts a domain as somebody would, and says where its disk is.
async fn by_hand(host: &Host) -> PathBuf {
    let disk = host.data.path().join("by-hand.img");
    std::fs::copy(host.folder().join("image"), &disk).unwrap();
    by_hand_with(host, &[(&disk, Format::Raw)]).await;
    disk
}

/// The same with these disks; it is started from the first.
async fn by_hand_with(host: &Host, disks: &[(&Path, Format)]) {
    let mut machine = Description::new("shop-db", ID, 96 << 10, 1);
    machine.virtualisation = adapters_libvirt::description::Virtualisation::Emulated;
    let device = |(target, (path, format)): (&str, &(&Path, Format))| DiskDevice {
        target: target.to_owned(),
        source: Some(Source::File(path.display().to_string())),
        format: *format,
        is_cdrom: false,
        is_readonly: false,
        is_shared: false,
        serial: None,
        limits: adapters_libvirt::Limits::new(),
        boot: (target == "vda").then_some(1),
    };
    machine.disks = ["vda", "vdb"].into_iter().zip(disks).map(device).collect();
    machine.nics = vec![Nic {
        mac: MAC.to_owned(),
        model: NicModel::Virtio,
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
    drop(driver);
    for side in [Side::Before, Side::After] {
        host.cut(End::Dies, (Step::Release, side), &server.order(4, &Order::Release {})).await;
    }
    let driver = host.driver().await;
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

fn qemu_img(words: &[&str], files: &[&Path]) -> String {
    let done = Command::new("qemu-img").args(words).args(files).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{words:?}: {said} {}", String::from_utf8_lossy(&done.stderr));
    said
}

/// A disk of it as the log has it.
fn disk(server: &Launch, at: usize, store: &commands::ports::StoreAccess) -> Stream<Disk> {
    let part = &server.state.home.as_ref().unwrap().parts.disks[at];
    let creation = json!({
        "name": "data", "server": server.id, "size_gib": part.size_gib, "format": part.format,
        "found": {"id": part.id, "host": Uuid::from_u128(7), "in_place": part.in_place},
    });
    let provisioned = json!({"creation": creation, "root": at == 0});
    let disk = Stream::of(at as u128, store, "provisioned", provisioned);
    Stream { id: part.id, ..disk }.then("made", json!({}))
}

/// Carries its order out, twice, and says what is seen of it then.
async fn done(
    driver: &KvmHost,
    disk: Stream<Disk>,
    server: &Launch,
    event: &str,
    data: Value,
) -> (Stream<Disk>, Actual) {
    let disk = disk.then(event, data);
    let task = disk.task(server);
    driver.carry_out(&task).await.unwrap();
    let report = driver.carry_out(&task).await.unwrap();
    assert_eq!(report.verb, "confirm");
    let seen: Actual = serde_json::from_value(report.body["seen"].clone()).unwrap();
    let confirmed = json!({"number": task.key.number, "seen": seen});
    (disk.then("confirmed", confirmed), seen)
}

#[tokio::test]
async fn disks_of_a_server_that_was_adopted_are_limited_grown_kept_and_restored_where_they_lie() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let folder = host.data.path().join("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    let (root, real, data) =
        (folder.join("root.qcow2"), folder.join("real.img"), folder.join("data.img"));
    let image = host.folder().join("image");
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2"], &[&image, &root]);
    std::fs::write(&real, []).unwrap();
    std::fs::File::options().write(true).open(&real).unwrap().set_len(64 << 20).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, &data).unwrap();
    by_hand_with(&host, &[(&root, Format::Qcow2), (&data, Format::Raw)]).await;
    let guest = Guest::up(&host, ID).await;
    guest.run("ip link set eth0 up && ip addr add 10.9.0.77/24 dev eth0").await;
    guest.run(&format!("{MOUNT} && echo first >/state/by-hand && sync")).await;
    let put = |word: &str| {
        format!("echo {word} | dd of=/dev/vdb bs=512 seek=2048 conv=sync,fsync 2>/dev/null; sync")
    };
    let get = "dd if=/dev/vdb bs=512 skip=2048 count=1 2>/dev/null | head -n 1";
    guest.run(&put("first")).await;

    let seen = driver.sighting().await.unwrap();
    let sighted = HostEvent::Sighted { seen, fields: Vec::new() };
    let state = HostState { name: "lab".to_owned(), ..HostState::default() }.evolve(sighted);
    let mut server = adopted(&state, &[network()]);
    server.done(&driver, 1, Order::Adopt { digest: domain_digest(&state) }).await;
    let processes = process(&root.display().to_string());
    assert_eq!(processes.len(), 1);
    let store = access().await;
    let disks = [disk(&server, 0, &store), disk(&server, 1, &store)];
    let ids = disks.each_ref().map(|disk| disk.id);
    let [root_disk, data_disk] = disks;

    // While it runs: limited, larger, with a snapshot, backed up.
    let limits = json!({"write_bytes": {"rate": 8_388_608}, "read_operations": {"rate": 900}});
    let throttle = json!({"limits": limits});
    let (root_disk, is) =
        done(&driver, root_disk, &server, "throttle-ordered", throttle.clone()).await;
    assert_eq!(serde_json::to_value(is.limits).unwrap(), limits, "as QEMU says");
    let grow = json!({"size_gib": 2});
    let (data_disk, is) = done(&driver, data_disk, &server, "growth-ordered", grow).await;
    assert_eq!(is.size_bytes, 2 << 30);
    guest.becomes("cat /sys/block/vdb/size", &(2_u64 << 21).to_string()).await;
    assert_eq!(guest.run(get).await, "first");
    assert_eq!(std::fs::metadata(&real).unwrap().len(), 2 << 30);
    let snapshot = Uuid::from_u128(0xa1);
    let of = |disk: Uuid| adapters_kvm::driver::Of { server: ID, disk };
    driver.take_snapshot(of(ids[0]), snapshot).await.unwrap();
    assert_eq!(driver.snapshots(of(ids[0])).await.unwrap(), [snapshot]);
    driver.delete_snapshot(of(ids[0]), snapshot).await.unwrap();
    let kept = [0, 1].map(|at| backup(10 + at as u128, &store, (&server, ids[at]), None));
    let first =
        [made(&kept[0].done(&driver, &server).await), made(&kept[1].done(&driver, &server).await)];
    guest.run("echo second >/state/by-hand; sync").await;
    let more = backup(12, &store, (&server, ids[0]), Some(kept[0].id));
    let second = made(&more.done(&driver, &server).await);
    assert!(second.read_bytes < first[0].read_bytes / 4, "what was written since: {second:?}");
    guest.run(&put("second")).await;
    assert_eq!(process(&root.display().to_string()), processes, "it was never restarted");

    // A disk of ours comes and goes beside them.
    let own = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0d01);
    let creation = json!({
        "name": "more", "server": ID, "size_gib": 1, "format": "qcow2",
        "found": {"id": own, "host": Uuid::from_u128(7)},
    });
    let added = Stream { id: own, state: Disk::default(), store: store.clone() };
    let (added, _) = done(&driver, added, &server, "creation-ordered", creation).await;
    guest.becomes("cat /sys/block/vdc/size", &(1_u64 << 21).to_string()).await;
    let added = added.then("removal-ordered", json!({}));
    let report = driver.carry_out(&added.task(&server)).await.unwrap();
    assert_eq!(report.verb, "confirm-removal");
    guest.becomes("ls /sys/block | grep -c vdc", "0").await;

    // Rescued: its own definition is not what runs, its disks are there, and it comes back.
    server = server.with(|home| {
        home["parts"]["disks"][0]["limits"] = limits.clone();
        home["parts"]["disks"][1]["size_gib"] = json!(2);
    });
    let rescue = Order::Rescue { system: host.rescue_system(), password: "sealed".into() };
    server.done(&driver, 2, rescue).await;
    let rescued = Guest::up(&host, ID).await;
    assert!(rescued.run("cat /proc/cmdline").await.ends_with("guest=rescue"));
    assert_eq!(rescued.run(get).await, "second");
    server.done(&driver, 3, Order::LeaveRescue { start: true }).await;
    let guest = Guest::up(&host, ID).await;
    assert_eq!(guest.run(&format!("{MOUNT} && cat /state/by-hand")).await, "second");
    let (root_disk, is) = done(&driver, root_disk, &server, "throttle-ordered", throttle).await;
    assert_eq!(serde_json::to_value(is.limits).unwrap(), limits, "also when it was started anew");
    server.done(&driver, 4, Order::Stop {}).await;

    // Stopped: what it is now is kept, and what it was is had back in its place, byte for byte.
    let copies = [folder.join("copy.qcow2"), folder.join("copy.img")];
    for (at, copy) in [&root, &data].into_iter().zip(&copies) {
        std::fs::copy(at, copy).unwrap();
    }
    let now = [0, 1].map(|at| backup(20 + at as u128, &store, (&server, ids[at]), None));
    let as_now =
        [made(&now[0].done(&driver, &server).await), made(&now[1].done(&driver, &server).await)];
    let source = |at: usize, backup: Uuid, digest: &str| {
        let backup = json!({"backup": backup, "disk": ids[at], "store": STORE, "digest": digest});
        json!({"source": {"backup": backup}})
    };
    let mut back = Vec::new();
    for (at, disk) in [root_disk, data_disk].into_iter().enumerate() {
        let was = source(at, kept[at].id, &first[at].digest);
        back.push(done(&driver, disk, &server, "restore-ordered", was).await.0);
    }
    assert!(data.is_symlink() && !folder.join("real.img.part").exists());
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    server.done(&driver, 5, Order::Start {}).await;
    let guest = Guest::up(&host, ID).await;
    assert_eq!(guest.run(&format!("{MOUNT} && cat /state/by-hand")).await, "first");
    assert_eq!(guest.run(get).await, "first");
    server.done(&driver, 6, Order::Stop {}).await;
    for (at, disk) in back.into_iter().enumerate() {
        let is = source(at, now[at].id, &as_now[at].digest);
        done(&driver, disk, &server, "restore-ordered", is).await;
    }
    for (is, copy) in [(&root, &copies[0]), (&data, &copies[1])] {
        assert!(qemu_img(&["compare"], &[is, copy]).contains("identical"));
    }

    // Given back, nothing of ours is in them.
    server.done(&driver, 7, Order::Start {}).await;
    let last = backup(30, &store, (&server, ids[0]), None);
    made(&last.done(&driver, &server).await);
    let report = driver.carry_out(&server.order(8, &Order::Release {})).await.unwrap();
    assert_eq!(report.verb, "confirm-removal");
    let census = driver.census().await.unwrap();
    assert!(census.disks.is_empty() && census.records.is_empty(), "{census:?}");
    let info = qemu_img(&["info", "-U", "--output", "json"], &[&root]);
    assert!(!info.contains("sk-"), "{info}");
    Guest::up(&host, ID).await;
    let libvirt = host.connect().await;
    let domain = libvirt.domain(ID).await.unwrap();
    assert!(libvirt.checkpoints(&domain).await.unwrap().is_empty());
    libvirt.destroy(&domain).await.unwrap();
    libvirt.undefine(&domain, adapters_libvirt::Leave::default()).await.unwrap();
    assert!(root.exists() && real.exists());
}
