//! What is seen of hosts: of some that are folders, and of this machine.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be made fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
};

use adapters_kvm::observe::{
    ObserveFault, Observed, Tree,
    devices::{self, Kept},
    look, topology, vgpu,
};
use domain::compute::placement::{
    AgentState, Architecture,
    Availability::{self, Free, Reserved},
    CardSwitch, Cell, Core, Device, HostFacts, HostId, Pages, SwitchMode,
};

/// A host that is a folder.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        fixture.file("proc/sys/kernel/arch", "x86_64");
        fixture
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// A link to another path of the host.
    fn link(&self, path: &str, target: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir_all(self.0.path().join(target)).unwrap();
        symlink(self.0.path().join(target), path).unwrap();
    }

    fn cpus(&self, online: &str, present: &str) {
        self.file("sys/devices/system/cpu/online", online);
        self.file("sys/devices/system/cpu/present", present);
    }

    /// A CPU with its siblings and the CPUs it shares the cache of the third level with.
    fn cpu(&self, cpu: u32, siblings: &str, l3: Option<(u32, &str)>) {
        let at = format!("sys/devices/system/cpu/cpu{cpu}");
        self.file(&format!("{at}/topology/core_cpus_list"), siblings);
        self.file(&format!("{at}/cache/index0/level"), "1");
        if let Some((id, shared)) = l3 {
            self.file(&format!("{at}/cache/index3/level"), "3");
            self.file(&format!("{at}/cache/index3/id"), &id.to_string());
            self.file(&format!("{at}/cache/index3/shared_cpu_list"), shared);
        }
    }

    fn node(&self, id: u32, cpus: &str, memory_kib: u64, distances: &str, pages: &[(u32, u64)]) {
        let at = format!("sys/devices/system/node/node{id}");
        self.file(&format!("{at}/cpulist"), cpus);
        self.file(&format!("{at}/distance"), distances);
        let meminfo = format!("Node {id} MemTotal:    {memory_kib} kB\nNode {id} MemFree: 5 kB");
        self.file(&format!("{at}/meminfo"), &meminfo);
        for (size, count) in pages {
            let folder = format!("{at}/hugepages/hugepages-{size}kB");
            self.file(&format!("{folder}/nr_hugepages"), &count.to_string());
            self.file(&format!("{folder}/free_hugepages"), "0");
        }
    }

    /// A PCI function behind a bridge of the root.
    fn pci(
        &self,
        address: &str,
        class: &str,
        model: &str,
        node: i32,
        group: Option<u32>,
    ) -> String {
        let at = format!("sys/devices/pci0000:00/{address}");
        let (vendor, device) = model.split_once(':').unwrap();
        self.file(&format!("{at}/class"), class);
        self.file(&format!("{at}/vendor"), &format!("0x{vendor}"));
        self.file(&format!("{at}/device"), &format!("0x{device}"));
        self.file(&format!("{at}/numa_node"), &node.to_string());
        if let Some(group) = group {
            self.link(&format!("{at}/iommu_group"), &format!("sys/kernel/iommu_groups/{group}"));
        }
        self.link(&format!("sys/bus/pci/devices/{address}"), &at);
        at
    }

    fn interface(&self, name: &str, device: &str) {
        fs::create_dir_all(self.0.path().join(format!("{device}/net/{name}"))).unwrap();
        self.link(&format!("sys/class/net/{name}"), &format!("{device}/net/{name}"));
    }

    fn disk(&self, name: &str, number: &str, at: &str) {
        self.file(&format!("{at}/dev"), number);
        self.link(&format!("sys/class/block/{name}"), at);
    }

    fn tree(&self) -> Tree {
        Tree::at(self.0.path())
    }

    fn look(&self) -> Observed {
        look(&self.tree(), &Kept::default()).unwrap()
    }

    fn devices(&self, kept: &Kept) -> BTreeMap<String, Device> {
        let found = devices::read(&self.tree()).unwrap().placeable(&[], kept);
        found.into_iter().map(|device| (device.id.clone(), device)).collect()
    }
}

fn facts(observed: Observed) -> HostFacts {
    HostFacts {
        id: HostId::new(uuid::Uuid::nil()),
        enabled: true,
        maintenance: false,
        agent: AgentState::Works,
        architecture: observed.architecture,
        tags: BTreeSet::new(),
        labels: BTreeSet::new(),
        cpu_overcommit_percent: 800,
        memory_overcommit_percent: 100,
        cpus_reserved: BTreeSet::new(),
        cells: observed.cells,
        devices: observed.devices,
    }
}

fn core(threads: &[u32], l3: u32) -> Core {
    Core { threads: threads.to_vec(), l3: Some(l3) }
}

#[test]
fn two_cells_with_threads_caches_and_huge_pages() {
    let host = Fixture::new();
    host.cpus("0-7", "0-7");
    for cpu in 0..8 {
        let first = cpu % 4;
        let cache = if first < 2 { (0, "0-1,4-5") } else { (1, "2-3,6-7") };
        host.cpu(cpu, &format!("{first},{}", first + 4), Some(cache));
    }
    host.node(0, "0-1,4-5", 2_097_152, "10 21", &[(2_048, 100), (1_048_576, 1)]);
    host.node(1, "2-3,6-7", 1_048_576, "21 10", &[(2_048, 0), (1_048_576, 0)]);
    let observed = host.look();
    assert_eq!(observed.architecture, Architecture::X86_64);
    assert_eq!(observed.taken, [((0, 2_048), 100), ((0, 1_048_576), 1)].into());
    let pages = |small, large| {
        let pages = |size_kib, count| Pages { size_kib, count, others: 0 };
        vec![pages(2_048, small), pages(1_048_576, large)]
    };
    let cells = vec![
        Cell {
            id: 0,
            memory_mib: 2_048,
            memory_reserved_mib: 0,
            pages: pages(100, 1),
            cores: vec![core(&[0, 4], 0), core(&[1, 5], 0)],
            distances: vec![10, 21],
        },
        Cell {
            id: 1,
            memory_mib: 1_024,
            memory_reserved_mib: 0,
            pages: pages(0, 0),
            cores: vec![core(&[2, 6], 1), core(&[3, 7], 1)],
            distances: vec![21, 10],
        },
    ];
    assert_eq!(observed.cells, cells);
    facts(observed).check().unwrap();
}

#[test]
fn cells_may_lack_cpus_or_memory_and_offline_cpus_are_left_out() {
    let host = Fixture::new();
    // 5 is off: the kernel still lists it in its cell, and not among the siblings of 1.
    host.cpus("0-4", "0-5");
    for (cpu, siblings) in [(0, "0,4"), (1, "1"), (2, "2-3"), (3, "2-3"), (4, "0,4")] {
        host.cpu(cpu, siblings, None);
    }
    host.node(0, "0-1,4-5", 1_024_000, "10 20 30", &[]);
    host.node(2, "2-3", 0, "20 10 30", &[]);
    host.node(8, "", 512_000, "30 30 10", &[]);
    let observed = host.look();
    let seen = |cell: &Cell| {
        let threads: Vec<_> = cell.cores.iter().map(|core| core.threads.clone()).collect();
        (cell.id, cell.memory_mib, threads)
    };
    let cells: Vec<_> = observed.cells.iter().map(seen).collect();
    let expected =
        vec![(0, 1_000, vec![vec![0, 4], vec![1]]), (2, 0, vec![vec![2, 3]]), (8, 500, vec![])];
    assert_eq!(cells, expected);
    assert_eq!(topology::read(&host.tree()).unwrap().offline, BTreeSet::from([5]));
    facts(observed).check().unwrap();
}

#[test]
fn a_kernel_without_numa_is_one_cell() {
    let host = Fixture::new();
    host.cpus("0-1", "0-1");
    host.file("proc/meminfo", "MemTotal:  4096000 kB\nMemFree: 1 kB");
    host.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "7");
    let observed = host.look();
    let [cell] = &observed.cells[..] else { panic!("{:?}", observed.cells) };
    assert_eq!((cell.id, cell.memory_mib, cell.cores.len()), (0, 4_000, 2));
    assert_eq!(cell.pages, [Pages { size_kib: 2_048, count: 7, others: 0 }]);
    // Where the kernel does not say what is free, nobody is said to have any.
    assert!(observed.taken.is_empty());
    host.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "5");
    assert_eq!(host.look().taken, [((0, 2_048), 2)].into());
    facts(observed).check().unwrap();
}

#[test]
fn caches_whose_numbers_say_nothing_are_known_by_their_first_cpu() {
    let host = Fixture::new();
    host.cpus("0-3", "0-3");
    for cpu in 0..4 {
        let shared = if cpu < 2 { "0-1" } else { "2-3" };
        host.cpu(cpu, &cpu.to_string(), Some((0, shared)));
    }
    host.node(0, "0-3", 1_024, "10", &[]);
    let l3: Vec<_> = host.look().cells[0].cores.iter().filter_map(|core| core.l3).collect();
    assert_eq!(l3, [0, 0, 2, 2]);
}

#[test]
fn a_host_that_placement_does_not_know_is_refused_in_words() {
    let host = Fixture::new();
    host.cpus("0-15", "0-15");
    for cpu in 0..16 {
        host.cpu(cpu, "0-15", None);
    }
    host.node(0, "0-15", 1_024, "10", &[]);
    let refusal = facts(host.look()).check().unwrap_err();
    assert_eq!(refusal.detail, "cell 0: cores: 1 to 8 threads, sorted, each once");

    host.file("proc/sys/kernel/arch", "m68k");
    let fault = look(&host.tree(), &Kept::default()).unwrap_err();
    assert_eq!(fault.to_string(), "proc/sys/kernel/arch says `m68k`, which does not read");
    host.file("sys/devices/system/cpu/online", "all");
    assert!(matches!(topology::read(&host.tree()), Err(ObserveFault::Nonsense { .. })));
}

#[test]
fn devices_have_a_kind_a_cell_and_a_group_and_bridges_are_none() {
    let host = Fixture::new();
    host.pci("0000:00:00.0", "0x060000", "8086:1237", -1, Some(0));
    host.pci("0000:00:1f.4", "0x0c0500", "8086:a323", -1, Some(1));
    host.pci("0000:3b:00.0", "0x030200", "10de:1eb8", 1, Some(31));
    host.pci("0000:3b:00.1", "0x040300", "10de:10f8", 1, Some(31));
    host.pci("0000:5e:00.0", "0x010802", "144d:a808", 7, Some(40));
    host.pci("0000:5f:00.0", "0x020000", "8086:1572", -1, None);
    let nic = host.pci("0000:60:00.0", "0x020000", "15b3:1017", 0, Some(41));
    host.link(&format!("{nic}/driver"), "sys/bus/pci/drivers/mlx5_core");
    let function = host.pci("0000:60:00.2", "0x020000", "15b3:1018", 0, Some(42));
    host.file(&format!("{nic}/sriov_totalvfs"), "8");
    host.file(&format!("{nic}/sriov_numvfs"), "1");
    host.link(&format!("{nic}/virtfn0"), &function);
    host.link(&format!("{function}/physfn"), &nic);
    let found = devices::read(&host.tree()).unwrap();
    let functions = found.pci["0000:60:00.0"].functions.clone().unwrap();
    assert_eq!((functions.most, functions.made), (8, 1));
    assert_eq!(functions.addresses, ["0000:60:00.2"]);
    assert_eq!(found.pci["0000:60:00.0"].driver.as_deref(), Some("mlx5_core"));

    let cells = [0, 1].map(|id| Cell {
        id,
        memory_mib: 0,
        memory_reserved_mib: 0,
        pages: Vec::new(),
        cores: Vec::new(),
        distances: Vec::new(),
    });
    let device = |id: &str, kind: &str, model: &str, cell, group, availability| Device {
        id: id.to_owned(),
        kind: kind.to_owned(),
        model: model.to_owned(),
        cell,
        iommu_group: Some(group),
        controller: None,
        availability,
        carrier: None,
        profile: None,
        // What has functions, and what is one, is on the card's own switch.
        switch: ["nic", "vf"].contains(&kind).then_some(CardSwitch {
            mode: SwitchMode::Legacy,
            representor: None,
            offloads: false,
        }),
    };
    let expected = [
        device("0000:3b:00.0", "gpu", "10de:1eb8", Some(1), 31, Free),
        device("0000:3b:00.1", "audio", "10de:10f8", Some(1), 31, Free),
        // The firmware names a cell that is not there.
        device("0000:5e:00.0", "nvme", "144d:a808", None, 40, Free),
        // It cannot be given any more: its function can.
        device("0000:60:00.0", "nic", "15b3:1017", Some(0), 41, Reserved),
        device("0000:60:00.2", "vf", "15b3:1018", Some(0), 42, Free),
    ];
    assert_eq!(found.placeable(&cells, &Kept::default()), expected);
}

#[test]
fn the_host_keeps_what_it_lives_on() {
    let host = Fixture::new();
    let screen = host.pci("0000:01:00.0", "0x030000", "1a03:2000", 0, Some(1));
    host.file(&format!("{screen}/boot_vga"), "1");
    // The root lies on LVM on an NVMe disk, whose controller its subsystem names.
    let nvme = host.pci("0000:02:00.0", "0x010802", "144d:a808", 0, Some(2));
    let subsystem = "sys/devices/virtual/nvme-subsystem/nvme-subsys0";
    host.link(&format!("{subsystem}/nvme0"), &format!("{nvme}/nvme/nvme0"));
    host.disk("nvme0n1", "259:0", &format!("{subsystem}/nvme0n1"));
    host.file(&format!("{subsystem}/nvme0n1/holders/dm-0"), "");
    host.disk("dm-0", "253:0", "sys/devices/virtual/block/dm-0");
    // A file system with a number of its own names the partition of a second controller.
    let sata = host.pci("0000:03:00.0", "0x010601", "8086:a352", 0, Some(3));
    host.disk("sda", "8:0", &format!("{sata}/ata1/block/sda"));
    host.disk("sda1", "8:1", &format!("{sata}/ata1/block/sda/sda1"));
    host.file(
        "proc/self/mountinfo",
        "22 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n\
         23 22 0:40 / /home rw - btrfs /dev/sda1 rw\n\
         24 22 0:21 / /proc rw - proc proc rw",
    );
    // A third is swapped to, a fourth is nobody's.
    let swap = host.pci("0000:04:00.0", "0x010802", "144d:a808", 0, Some(4));
    host.disk("vdb", "254:16", &format!("{swap}/virtio1/block/vdb"));
    host.file("proc/swaps", "Filename Type Size Used Priority\n/dev/vdb partition 1 0 -2");
    let free = host.pci("0000:05:00.0", "0x010802", "144d:a808", 0, Some(5));
    host.disk("nvme1n1", "259:5", &format!("{free}/nvme/nvme1/nvme1n1"));
    // One interface is in a bridge, one has an address, one is idle.
    let bridged = host.pci("0000:06:00.0", "0x020000", "8086:1572", 0, Some(6));
    host.interface("eth0", &bridged);
    host.link(&format!("{bridged}/net/eth0/master"), "sys/devices/virtual/net/br0");
    let addressed = host.pci("0000:07:00.0", "0x020000", "8086:1572", 0, Some(7));
    host.interface("eth1", &addressed);
    let idle = host.pci("0000:08:00.0", "0x020000", "8086:1572", 0, Some(8));
    host.interface("eth2", &idle);
    host.pci("0000:09:00.0", "0x120000", "1da3:1000", 0, Some(9));

    let kept = Kept {
        interfaces: BTreeSet::from(["eth1".to_owned()]),
        devices: BTreeSet::from(["0000:09:00.0".to_owned()]),
        ..Kept::default()
    };
    let devices = host.devices(&kept);
    let free: Vec<_> = devices
        .values()
        .filter(|device| device.availability == Availability::Free)
        .map(|device| device.id.as_str())
        .collect();
    assert_eq!(devices.len(), 9);
    assert_eq!(free, ["0000:05:00.0", "0000:08:00.0"]);
}

#[test]
fn a_virtual_function_is_on_the_wire_of_the_bridge_that_its_card_is_a_port_of() {
    let host = Fixture::new();
    let card = |number: u32, interface: &str| {
        let at =
            host.pci(&format!("0000:{number:02x}:00.0"), "0x020000", "8086:10c9", 0, Some(number));
        host.interface(interface, &at);
        host.file(&format!("{at}/sriov_totalvfs"), "7");
        host.file(&format!("{at}/sriov_numvfs"), "1");
        let address = format!("0000:{number:02x}:10.0");
        let of = host.pci(&address, "0x020000", "8086:10ca", 0, Some(100 + number));
        host.link(&format!("{at}/virtfn0"), &of);
        host.link(&format!("{of}/physfn"), &at);
        format!("{at}/net/{interface}/master")
    };
    let net = |name: &str| format!("sys/devices/virtual/net/{name}");
    let virtual_one = |name: &str| host.link(&format!("sys/class/net/{name}"), &net(name));
    for name in ["br0", "br1", "bond0", "ovs-system"] {
        virtual_one(name);
    }
    for bridge in ["br0", "br1"] {
        host.file(&format!("{}/bridge/bridge_id", net(bridge)), "8000.525400000001");
    }
    host.link(&card(1, "eth1"), &net("br0"));
    host.link(&card(2, "eth2"), &net("bond0"));
    host.link(&format!("{}/master", net("bond0")), &net("br1"));
    host.link(&card(3, "eth3"), &net("ovs-system"));
    card(4, "eth4");
    let kept =
        Kept { switched: [("eth3".to_owned(), "br-ext".to_owned())].into(), ..Kept::default() };
    let devices = host.devices(&kept);
    let carriers: Vec<_> = [1, 2, 3, 4]
        .map(|number| devices[&format!("0000:{number:02x}:10.0")].carrier.as_deref())
        .into();
    assert_eq!(carriers, [Some("br0"), Some("br1"), Some("br-ext"), None]);
    // A card whose switch the host commands has nothing on its wire but by representors.
    host.file("sys/class/net/eth1/phys_switch_id", "0c42a1000301");
    assert_eq!(host.devices(&kept)["0000:01:10.0"].carrier, None);
    // A card itself is none's: it is the host's.
    assert_eq!(devices["0000:01:00.0"].carrier, None);
}

#[test]
fn a_card_in_switchdev_mode_has_functions_with_another_end_on_the_host() {
    let host = Fixture::new();
    // Two ports of one card: in a bond they have one switch.
    let mut at = Vec::new();
    for (port, interface) in ["eth0", "eth1"].into_iter().enumerate() {
        let card = host.pci(&format!("0000:03:00.{port}"), "0x020000", "15b3:101d", 0, Some(30));
        host.interface(interface, &card);
        host.file(&format!("{card}/net/{interface}/phys_switch_id"), "0c42a1000301");
        host.file(&format!("{card}/net/{interface}/phys_port_name"), &format!("p{port}"));
        host.file(&format!("{card}/sriov_totalvfs"), "8");
        host.file(&format!("{card}/sriov_numvfs"), "2");
        for number in 0..2 {
            let address = format!("0000:03:0{}.{}", port + 1, number);
            let group = 40 + 2 * port as u32 + number;
            let of = host.pci(&address, "0x020000", "15b3:101e", 0, Some(group));
            host.link(&format!("{card}/virtfn{number}"), &of);
            host.link(&format!("{of}/physfn"), &card);
        }
        at.push(card);
    }
    // Some drivers have them beside the card's own, and before it by name; others for themselves.
    let representor = |name: &str, at: &str, port: &str| {
        host.interface(name, at);
        host.file(&format!("{at}/net/{name}/phys_switch_id"), "0c42a1000301");
        host.file(&format!("{at}/net/{name}/phys_port_name"), port);
    };
    representor("a0", &at[0], "pf0vf0");
    host.link(&format!("{}/net/a0/device", at[0]), &at[0]);
    representor("a1", &at[0], "pf0vf1");
    for (name, port) in [("rep3", "pf1vf1"), ("sf0", "pf0sf88")] {
        let net = format!("sys/devices/virtual/net/{name}");
        host.file(&format!("{net}/phys_switch_id"), "0c42a1000301");
        host.file(&format!("{net}/phys_port_name"), port);
        host.link(&format!("sys/class/net/{name}"), &net);
    }
    for name in ["bond0", "ovs-system"] {
        host.link(&format!("sys/class/net/{name}"), &format!("sys/devices/virtual/net/{name}"));
    }
    for (card, interface) in at.iter().zip(["eth0", "eth1"]) {
        host.link(&format!("{card}/net/{interface}/master"), "sys/devices/virtual/net/bond0");
    }
    host.link("sys/devices/virtual/net/bond0/master", "sys/devices/virtual/net/ovs-system");
    let kept = Kept {
        switched: [("bond0".to_owned(), "br-ext".to_owned())].into(),
        offloads: true,
        ..Kept::default()
    };
    let devices = host.devices(&kept);
    let of = |id: &str| {
        let device = &devices[id];
        let switch = device.switch.clone().unwrap();
        assert_eq!((switch.mode, switch.offloads), (SwitchMode::Switchdev, true), "{id}");
        (device.carrier.clone(), switch.representor)
    };
    let on = |representor: &str| (Some("br-ext".to_owned()), Some(representor.to_owned()));
    assert_eq!(of("0000:03:01.0"), on("a0"));
    assert_eq!(of("0000:03:01.1"), on("a1"));
    assert_eq!(of("0000:03:02.1"), on("rep3"));
    // One without another end leads nowhere.
    assert_eq!(of("0000:03:02.0"), (None, None));
    assert_eq!(of("0000:03:00.0"), (None, None));
}

#[test]
fn vgpus_and_usb_devices_are_devices_of_their_own() {
    let host = Fixture::new();
    let gpu = host.pci("0000:3b:00.0", "0x030200", "10de:1eb8", 0, Some(31));
    for (profile, left) in [("nvidia-222", "2"), ("nvidia-230", "0")] {
        let at = format!("{gpu}/mdev_supported_types/{profile}");
        host.file(&format!("{at}/name"), "GRID T4-1B");
        host.file(&format!("{at}/description"), "num_heads=4, framebuffer=1024M, max_instance=16");
        host.file(&format!("{at}/available_instances"), left);
    }
    let id = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
    host.link(&format!("{gpu}/{id}/mdev_type"), &format!("{gpu}/mdev_supported_types/nvidia-222"));
    host.link(&format!("{gpu}/{id}/iommu_group"), "sys/kernel/iommu_groups/90");
    host.link(&format!("sys/bus/mdev/devices/{id}"), &format!("{gpu}/{id}"));
    let xhci = host.pci("0000:00:14.0", "0x0c0330", "8086:a12f", 0, Some(4));
    let place = |at: &str, name: &str, class: &str, model: &str| {
        let (vendor, product) = model.split_once(':').unwrap();
        let at = format!("{xhci}/usb1/{at}");
        host.file(&format!("{at}/bDeviceClass"), class);
        host.file(&format!("{at}/idVendor"), vendor);
        host.file(&format!("{at}/idProduct"), product);
        host.file(&format!("{at}/busnum"), "1");
        host.file(&format!("{at}/devnum"), "12");
        host.link(&format!("sys/bus/usb/devices/{name}"), &at);
    };
    place("1-1", "1-1", "09", "1d6b:0002");
    place("1-1/1-1.2", "1-1.2", "00", "0529:0001");
    place("1-1/1-1.3", "1-1.3", "00", "0781:5583");
    // The second is a stick with a mounted file system.
    host.disk("sdb", "8:16", &format!("{xhci}/usb1/1-1/1-1.3/1-1.3:1.0/host0/block/sdb"));
    host.file("proc/self/mountinfo", "30 1 8:16 / /mnt rw - vfat /dev/sdb rw");
    let found = devices::read(&host.tree()).unwrap();
    let profiles = &found.pci["0000:3b:00.0"].profiles;
    assert_eq!(profiles["nvidia-222"].left, 2);
    assert_eq!(
        profiles["nvidia-222"].description,
        "num_heads=4, framebuffer=1024M, max_instance=16"
    );
    assert_eq!(profiles["nvidia-230"].left, 0);
    assert_eq!((found.usb["1-1.2"].bus, found.usb["1-1.2"].number), (1, 12));
    assert_eq!(found.usb["1-1.2"].controller.as_deref(), Some("0000:00:14.0"));

    let seen = host.devices(&Kept::default());
    let profile = seen["mdev:0000:3b:00.0/nvidia-222/0"].profile.clone().unwrap();
    assert_eq!(profile.name.as_deref(), Some("GRID T4-1B"));
    assert_eq!((profile.framebuffer_mib, profile.instances_max), (Some(1_024), Some(16)));
    assert_eq!(seen[id].profile, Some(profile));
    // Who gets one of them gets nothing of the other's.
    assert_eq!(seen["usb:1-1.2"].controller.as_deref(), Some("0000:00:14.0"));
    let seen: Vec<_> = seen
        .values()
        .map(|it| (it.id.as_str(), it.kind.as_str(), it.model.as_str(), it.availability))
        .collect();
    let expected = [
        ("0000:00:14.0", "usb-controller", "8086:a12f", Reserved),
        ("0000:3b:00.0", "gpu", "10de:1eb8", Reserved),
        (id, "mdev", "10de:1eb8/nvidia-222", Free),
        ("mdev:0000:3b:00.0/nvidia-222/0", "mdev", "10de:1eb8/nvidia-222", Free),
        ("mdev:0000:3b:00.0/nvidia-222/1", "mdev", "10de:1eb8/nvidia-222", Free),
        ("usb:1-1.2", "usb", "0529:0001", Free),
        ("usb:1-1.3", "usb", "0781:5583", Reserved),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn mediated_devices_that_can_be_made_are_devices_before_they_are_there() {
    let host = Fixture::new();
    // A driver of no bus, as the kernel's own samples are.
    let card = "sys/devices/virtual/mtty/mtty";
    host.link("sys/class/mdev_bus/mtty", card);
    for (profile, left) in [("mtty-1", "3"), ("mtty-2", "0")] {
        host.file(&format!("{card}/mdev_supported_types/{profile}/available_instances"), left);
    }
    let ids = |kept: &Kept| {
        let devices = host.devices(kept);
        devices.values().map(|it| (it.id.clone(), it.availability)).collect::<Vec<_>>()
    };
    let slot = |number: u32| format!("mdev:mtty/mtty-1/{number}");
    assert_eq!(ids(&Kept::default()), [0, 1, 2].map(|number| (slot(number), Free)));
    // One that was made keeps its number, and is not listed a second time.
    let uuid = "83b8f4f2-509f-882f-bc1e-e6bfe0fa1001";
    host.link(&format!("{card}/{uuid}/mdev_type"), &format!("{card}/mdev_supported_types/mtty-1"));
    host.link(&format!("sys/bus/mdev/devices/{uuid}"), &format!("{card}/{uuid}"));
    host.file(&format!("{card}/mdev_supported_types/mtty-1/available_instances"), "1");
    let made = Kept { made: [(uuid.to_owned(), slot(2))].into(), ..Kept::default() };
    assert_eq!(ids(&made), [0, 2].map(|number| (slot(number), Free)));
    // Somebody else's is a device of its own.
    let foreign = ids(&Kept::default());
    assert_eq!(foreign, [(uuid.to_owned(), Free), (slot(0), Free)]);
    // After a restart of the host it is not there, and what can be made is its server's first.
    fs::remove_dir_all(host.0.path().join("sys/bus/mdev")).unwrap();
    assert_eq!(ids(&made), [(slot(2), Free)]);
}

#[test]
fn virtual_functions_of_gpus_are_vgpus_and_those_of_disks_and_processors_what_they_are() {
    let host = Fixture::new();
    // AMD's S7150 shows a screen, an MI300X calls itself a processor; each has what its driver was told to make.
    let card = |number: u32, class: &str, whole: &str, part: &str, parts: u32| {
        let at = host.pci(&format!("0000:{number:02x}:00.0"), class, whole, 0, Some(number));
        host.file(&format!("{at}/sriov_totalvfs"), "16");
        host.file(&format!("{at}/sriov_numvfs"), &parts.to_string());
        for function in 0..parts {
            let address = format!("0000:{number:02x}:02.{function}");
            let group = number * 100 + function;
            let of = host.pci(&address, class, part, 0, Some(group));
            host.link(&format!("{at}/virtfn{function}"), &of);
            host.link(&format!("{of}/physfn"), &at);
        }
    };
    card(1, "0x030000", "1002:6929", "1002:692f", 4);
    card(2, "0x120000", "1002:74a1", "1002:74b5", 1);
    card(3, "0x0b4000", "8086:37c8", "8086:37c9", 1);
    card(4, "0x010802", "144d:a824", "144d:a824", 1);
    card(5, "0x020000", "15b3:1017", "15b3:1018", 1);
    let devices = host.devices(&Kept::default());
    let of = |id: &str| {
        let device = &devices[id];
        let parts = device.profile.as_ref().and_then(|profile| profile.instances_max);
        (device.kind.as_str(), device.model.as_str(), device.availability, parts)
    };
    assert_eq!(of("0000:01:00.0"), ("gpu", "1002:6929", Reserved, None));
    for function in 0..4 {
        let id = format!("0000:01:02.{function}");
        assert_eq!(of(&id), ("vgpu", "1002:692f", Free, Some(4)));
        assert_eq!(devices[&id].iommu_group, Some(100 + function));
    }
    assert_eq!(of("0000:02:00.0"), ("gpu", "1002:74a1", Reserved, None));
    assert_eq!(of("0000:02:02.0"), ("vgpu", "1002:74b5", Free, Some(1)));
    assert_eq!(of("0000:03:02.0"), ("accelerator", "8086:37c9", Free, None));
    assert_eq!(of("0000:04:02.0"), ("nvme", "144d:a824", Free, None));
    assert_eq!(of("0000:05:02.0"), ("vf", "15b3:1018", Free, None));
    assert_eq!(devices.len(), 13);
}

/// NVIDIA's card of 48 GiB with four virtual functions, none of which is a vGPU.
fn l40s(host: &Fixture) -> [String; 4] {
    let card = host.pci("0000:41:00.0", "0x030200", "10de:26b9", 0, Some(50));
    host.file(&format!("{card}/sriov_totalvfs"), "32");
    host.file(&format!("{card}/sriov_numvfs"), "4");
    [0, 1, 2, 3].map(|number| {
        let address = format!("0000:41:00.{}", 4 + number);
        let at = host.pci(&address, "0x030200", "10de:26b9", 0, Some(60 + number));
        host.file(&format!("{at}/nvidia/current_vgpu_type"), "0");
        host.file(
            &format!("{at}/nvidia/creatable_vgpu_types"),
            "ID    : vGPU Name\n1154  : NVIDIA L40S-48Q\n1155  : NVIDIA L40S-24Q\n1156  : NVIDIA L40S-8Q",
        );
        host.link(&format!("{card}/virtfn{number}"), &at);
        host.link(&format!("{at}/physfn"), &card);
        at
    })
}

#[test]
fn vgpus_that_virtual_functions_can_be_made_are_devices_before_they_are_there() {
    let host = Fixture::new();
    let functions = l40s(&host);
    let ids = |kept: &Kept| {
        let devices = host.devices(kept);
        devices
            .into_iter()
            .filter(|(_, it)| it.kind == "vgpu")
            .map(|(id, _)| id)
            .collect::<Vec<_>>()
    };
    let slots = |of: &[(u32, u32)]| {
        let slot = |(of_type, number): &(u32, u32)| format!("vgpu:0000:41:00.0/{of_type}/{number}");
        of.iter().map(slot).collect::<Vec<_>>()
    };
    // As many as the memory is enough for, and not more than there are functions.
    let all = slots(&[(1154, 0), (1155, 0), (1155, 1), (1156, 0), (1156, 1), (1156, 2), (1156, 3)]);
    assert_eq!(ids(&Kept::default()), all);
    let devices = host.devices(&Kept::default());
    let half = &devices[&all[1]];
    assert_eq!((half.model.as_str(), half.availability), ("10de:26b9/nvidia-1155", Free));
    let profile = half.profile.clone().unwrap();
    assert_eq!(profile.name.as_deref(), Some("NVIDIA L40S-24Q"));
    assert_eq!((profile.framebuffer_mib, profile.instances_max), (Some(24 << 10), Some(2)));
    // The card and its functions are not given besides.
    assert_eq!(devices["0000:41:00.0"].availability, Reserved);
    assert!(!devices.contains_key("0000:41:00.4"));

    // What was seen of the card is known when it is shorter of memory, and offers less.
    let cards = vgpu::cards(&devices::read(&host.tree()).unwrap(), &BTreeMap::new());
    let seated = [("vgpu:0000:41:00.0/1156/1".to_owned(), "0000:41:00.5".to_owned())];
    let kept = Kept { cards, seated: seated.into(), ..Kept::default() };
    // One is chosen and not made yet; its number stays.
    let left = slots(&[(1155, 0), (1156, 0), (1156, 1), (1156, 2), (1156, 3)]);
    let mut offered = left.clone();
    offered.insert(0, "vgpu:0000:41:00.0/1154/0".to_owned());
    assert_eq!(ids(&kept), offered, "the driver says so until it is made");
    host.file(&format!("{}/nvidia/current_vgpu_type", functions[1]), "1156");
    for at in &functions {
        let file = format!("{at}/nvidia/creatable_vgpu_types");
        host.file(&file, "ID    : vGPU Name\n1155  : NVIDIA L40S-24Q\n1156  : NVIDIA L40S-8Q");
    }
    assert_eq!(ids(&kept), left);
    // Somebody else's is a device of its own, and takes memory.
    host.file(&format!("{}/nvidia/current_vgpu_type", functions[3]), "1155");
    let mut with_other = slots(&[(1155, 0), (1156, 0), (1156, 1), (1156, 2)]);
    with_other.insert(0, "0000:41:00.7".to_owned());
    assert_eq!(ids(&kept), with_other);
    let other = &host.devices(&kept)["0000:41:00.7"];
    assert_eq!((other.model.as_str(), other.iommu_group), ("10de:26b9/nvidia-1155", Some(63)));
    // What an operator keeps is not given, neither the whole nor a part.
    let keep = |id: &str| Kept { devices: [id.to_owned()].into(), ..kept.clone() };
    let reserved = host.devices(&keep("0000:41:00.0"));
    assert!(reserved.values().all(|device| device.availability == Reserved));
    assert_eq!(ids(&keep("0000:41:00.4")).len(), with_other.len() - 1);
    // A list that cannot be read any more offers nothing; what is made stays its server's.
    for at in &functions {
        host.file(&format!("{at}/nvidia/creatable_vgpu_types"), "");
    }
    assert_eq!(ids(&kept), ["0000:41:00.7", "vgpu:0000:41:00.0/1156/1"]);
}

#[test]
fn an_id_of_a_mediated_device_names_no_file_elsewhere() {
    let read = adapters_kvm::observe::mediated::Slot::read;
    for id in ["mdev:0000:3b:00.0/nvidia-222/0", "mdev:mtty/mtty-1/12"] {
        assert_eq!(read(id).unwrap().id(), id);
    }
    for id in [
        "0000:3b:00.0",
        "usb:1-1",
        "mdev:",
        "mdev:a/b",
        "mdev:a/b/c",
        "mdev:../b/0",
        "mdev:a/../0",
        "mdev:a/b/0/c",
        "mdev:/b/0",
        "mdev:a b/c/0",
    ] {
        assert_eq!(read(id), None, "{id}");
    }
}

#[test]
fn a_host_without_buses_has_no_devices() {
    assert_eq!(devices::read(&Fixture::new().tree()).unwrap(), devices::Devices::default());
}

#[test]
fn this_machine_is_a_host() {
    let tree = Tree::default();
    let observed = look(&tree, &Kept::default()).unwrap();
    let threads: usize =
        observed.cells.iter().flat_map(|cell| &cell.cores).map(|core| core.threads.len()).sum();
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let online = adapters_kvm::observe::tree::cpu_list(online.trim()).unwrap();
    assert_eq!(threads, online.len());
    let memory: u64 = observed.cells.iter().map(|cell| cell.memory_mib).sum();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    // Each cell is rounded down.
    assert!((total / 1_024).abs_diff(memory) <= observed.cells.len() as u64, "{memory} of {total}");
    facts(observed).check().unwrap();
}
