//! Descriptions to XML and back: as a sample that people can read, over everything that can be
//! described, and through a real daemon, which checks each against libvirt's schema and spells it in
//! its own way.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::Path};

use adapters_libvirt::{
    Affects, Connection, Limit, Options,
    description::{
        Description, DirectKernel, DiskDevice, Firmware, Format, GuestCell, HostDevice, Nic,
        NicModel, Source, Topology, Virtualisation,
    },
};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use uuid::Uuid;

#[path = "daemon/process.rs"]
mod process;

use process::Daemon;

fn disk(target: &str, source: Source) -> DiskDevice {
    DiskDevice {
        target: target.to_owned(),
        source: Some(source),
        format: Format::Qcow2,
        is_cdrom: false,
        is_readonly: false,
        is_shared: false,
        serial: None,
        limits: [].into(),
        boot: None,
    }
}

/// A server with something of everything.
fn everything() -> Description {
    let uuid = Uuid::from_u128(0x7a10_0000_0000_4000_8000_0000_0000_0001);
    let mut server = Description::new("shop & sons <1>", uuid, 4 << 20, 4);
    server.vcpus = 2;
    server.firmware = Firmware::Uefi;
    server.page_kib = Some(2_048);
    let cell = |vcpus: [u32; 2], host| GuestCell {
        vcpus: vcpus.to_vec(),
        memory_kib: 2 << 20,
        host_cell: Some(host),
    };
    server.cells = vec![cell([0, 1], 1), cell([2, 3], 0)];
    server.topology = Some(Topology { sockets: 2, cores: 1, threads: 2 });
    server.pins = [(0, vec![8]), (1, vec![24]), (2, vec![0, 1, 2, 5]), (3, vec![16])].into();
    server.emulator_pins = vec![30, 31];
    let mut root = disk("vda", Source::Block("/dev/fast/shop".to_owned()));
    root.format = Format::Raw;
    root.serial = Some("d-0001".to_owned());
    root.boot = Some(1);
    root.limits = [
        (Limit::ReadOperations, 500),
        (Limit::WriteBytes, 10 << 20),
        (Limit::WriteBytesBurst, 40 << 20),
        (Limit::WriteBytesBurstSeconds, 7),
    ]
    .into();
    let mut shared = disk("vdb", Source::File("/srv/shared.qcow2".to_owned()));
    shared.is_shared = true;
    let mut seed = disk("sda", Source::File("/srv/seed of \"shop\".iso".to_owned()));
    (seed.is_cdrom, seed.is_readonly, seed.format) = (true, true, Format::Raw);
    server.disks = vec![root, shared, seed];
    server.nics = vec![
        Nic {
            mac: "52:54:00:12:34:56".to_owned(),
            model: NicModel::Virtio,
            bridge: "br0".to_owned(),
            port: Some("shop-0".to_owned()),
            vlan: None,
            is_ovs: false,
            mtu: Some(9_000),
            is_up: true,
            boot: Some(2),
        },
        Nic {
            mac: "52:54:00:12:34:57".to_owned(),
            model: NicModel::E1000e,
            bridge: "ovs".to_owned(),
            port: None,
            vlan: Some(42),
            is_ovs: true,
            mtu: None,
            is_up: false,
            boot: None,
        },
    ];
    server.devices = vec![
        HostDevice::Pci("0000:3b:00.1".to_owned()),
        HostDevice::PciUnmanaged("0000:41:00.4".to_owned()),
        HostDevice::Mediated(Uuid::from_u128(7)),
        HostDevice::Usb(1, 4),
    ];
    server.serial = Some("/srv/consoles/db".to_owned());
    server.spare_slots = 3;
    server.position = 4_711;
    server
}

#[test]
fn a_server_is_spelt_as_the_sample_shows() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/everything.xml");
    let xml = everything().xml() + "\n";
    if std::env::var_os("BLESS").is_some() {
        fs::write(&sample, &xml).unwrap();
    }
    assert_eq!(xml, fs::read_to_string(sample).unwrap());
    assert_eq!(Description::read(&xml).unwrap(), everything());
}

#[test]
fn a_rescued_server_starts_from_memory_with_its_disks_and_without_the_host_s_devices() {
    let kernel = DirectKernel {
        kernel: "/boot/rescue".to_owned(),
        initrd: "/boot/rescue.img".to_owned(),
        command_line: "console=ttyS0 a=\"b\"".to_owned(),
    };
    let server = everything();
    let rescued = Description::read(&server.rescued(kernel.clone()).xml()).unwrap();
    assert_eq!((rescued.uuid, &rescued.kernel), (server.uuid, &Some(kernel)));
    let targets = |of: &Description| -> Vec<String> {
        of.disks.iter().map(|disk| disk.target.clone()).collect()
    };
    assert_eq!((targets(&rescued), rescued.devices.clone()), (targets(&server), vec![]));
}

fn text() -> impl Strategy<Value = String> {
    "[a-z][ -~äß€]{0,12}[a-z0-9]"
}

fn any_disk(index: usize) -> impl Strategy<Value = DiskDevice> {
    let source = prop_oneof![
        text().prop_map(|path| Source::File(format!("/srv/{path}"))),
        text().prop_map(|path| Source::Block(format!("/dev/{path}"))),
    ];
    let limits = proptest::collection::btree_map(
        proptest::sample::select(vec![
            Limit::ReadBytes,
            Limit::WriteBytes,
            Limit::ReadOperations,
            Limit::WriteOperations,
        ]),
        1_u64..1 << 40,
        0..4,
    );
    (source, any::<[bool; 3]>(), limits, proptest::option::of("[a-z0-9]{1,20}")).prop_map(
        move |(source, [raw, shared, readonly], limits, serial)| DiskDevice {
            target: format!("vd{}", (b'a' + index as u8) as char),
            source: Some(source),
            format: if raw { Format::Raw } else { Format::Qcow2 },
            is_cdrom: false,
            is_readonly: readonly,
            is_shared: shared && raw,
            serial,
            limits,
            boot: None,
        },
    )
}

fn any_nic(index: usize) -> impl Strategy<Value = Nic> {
    let vlan = proptest::option::of(1_u16..4_095);
    (any::<[u8; 2]>(), any::<bool>(), vlan, proptest::option::of(1_280_u32..9_217)).prop_map(
        move |([a, b], is_up, vlan, mtu)| Nic {
            mac: format!("52:54:00:{a:02x}:{b:02x}:{index:02x}"),
            model: if is_up { NicModel::Virtio } else { NicModel::E1000e },
            bridge: format!("br{index}"),
            port: Some(format!("port{index}")),
            vlan,
            is_ovs: vlan.is_some(),
            mtu,
            is_up,
            boot: None,
        },
    )
}

fn any_description() -> impl Strategy<Value = Description> {
    let size = (1_u32..9, 0_u32..9, 1_u64..1 << 20, any::<u128>(), text());
    let disks = (0_usize..4).prop_flat_map(|count| (0..count).map(any_disk).collect::<Vec<_>>());
    let nics = (0_usize..3).prop_flat_map(|count| (0..count).map(any_nic).collect::<Vec<_>>());
    let devices = proptest::collection::vec(
        prop_oneof![
            any::<([u8; 2], bool)>().prop_map(|([bus, slot], is_managed)| {
                let of = if is_managed { HostDevice::Pci } else { HostDevice::PciUnmanaged };
                of(format!("0000:{bus:02x}:{:02x}.{:x}", slot % 32, slot % 8))
            }),
            (1_u16..64, 1_u16..128).prop_map(|(bus, device)| HostDevice::Usb(bus, device)),
        ],
        0..3,
    );
    let pins = proptest::collection::btree_map(
        0_u32..1,
        proptest::collection::btree_set(0_u32..8, 1..5).prop_map(|set| set.into_iter().collect()),
        0..2,
    );
    (size, disks, nics, devices, pins, any::<[bool; 3]>(), any::<u64>()).prop_map(
        |(size, disks, nics, devices, pins, [cells, uefi, screen], position)| {
            let (vcpus, more, memory, uuid, name) = size;
            let mut server =
                Description::new(&name, Uuid::from_u128(uuid | 1), memory * 4_096, vcpus + more);
            server.vcpus = vcpus;
            if cells {
                server.cells = vec![GuestCell {
                    vcpus: (0..vcpus + more).collect(),
                    memory_kib: memory * 4_096,
                    host_cell: Some(0),
                }];
            }
            server.firmware = if uefi { Firmware::Uefi } else { Firmware::Bios };
            (server.disks, server.nics, server.devices, server.pins) = (disks, nics, devices, pins);
            (server.has_screen, server.position) = (screen, position);
            server
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_of_any_server_reads_back(server in any_description()) {
        let xml = server.xml();
        prop_assert_eq!(&xml, &server.xml());
        prop_assert_eq!(Description::read(&xml).unwrap(), server);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(xml in "(<(domain|name|/name|a b='&c;'|!--)>|&lt;|&x;|[a-z<>&;])*") {
        let _ = Description::read(&xml);
        let _ = Description::read(&everything().xml().replace("br0", &xml));
    }
}

#[test]
fn what_says_too_little_of_a_server_is_refused_with_what_is_missing() {
    for (xml, missing) in [
        ("", "not a domain's"),
        ("<network/>", "not a domain's"),
        ("<domain><name>x</name></domain>", "no uuid"),
        (
            "<domain><name>x</name><uuid>00000000-0000-4000-8000-000000000001</uuid>\
             <memory unit='furlong'>1</memory><vcpu>1</vcpu></domain>",
            "memory",
        ),
    ] {
        let fault = Description::read(xml).unwrap_err().to_string();
        assert!(fault.contains(missing), "{xml}: {fault}");
    }
    let deep = format!("<domain>{}", "<a>".repeat(100_000));
    assert!(Description::read(&deep).unwrap_err().to_string().contains("deeply"));
}

/// What a driver for tests does not keep, or picks for itself.
fn as_the_driver_has_it(mut server: Description) -> Description {
    server.virtualisation = Virtualisation::Test;
    "i686".clone_into(&mut server.architecture);
    server.machine = None;
    server.firmware = Firmware::Bios;
    server.spare_slots = 0;
    server
}

#[tokio::test]
async fn a_daemon_finds_every_description_right_and_its_own_spelling_reads_as_the_same() {
    let daemon = Daemon::start();
    let options = Options {
        socket: daemon.socket(),
        uri: "test:///default".to_owned(),
        patience: std::time::Duration::from_secs(30),
    };
    let libvirt = Connection::open(&options).await.unwrap();
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let mut described = vec![everything()];
    described.extend((0..60).map(|_| any_description().new_tree(&mut runner).unwrap().current()));
    for (index, server) in described.into_iter().enumerate() {
        let mut server = as_the_driver_has_it(server);
        server.name = format!("{} {index}", server.name.replace('/', "-"));
        let xml = server.xml();
        let domain = libvirt.define(&xml).await.unwrap_or_else(|fault| panic!("{fault}\n{xml}"));
        let own = libvirt.xml(&domain, Affects::Config).await.unwrap();
        let mut read = Description::read(&own).unwrap();
        read.machine = None;
        for (nic, wanted) in read.nics.iter_mut().zip(&server.nics) {
            // What is left to libvirt it picks.
            nic.port = nic.port.take().filter(|_| wanted.port.is_some());
        }
        assert_eq!(read, server, "{own}");
    }
}
