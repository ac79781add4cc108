//! Servers' states and the machines that they are on a host, as XML that people can read.

use domain::{
    compute::{
        placement::HostId,
        server::{Server, home::Launch, migrate::Moving, transfer::TransferLimits},
    },
    kernel::Decider as _,
};
use serde_json::{Value, json};

use super::*;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number)
}

fn home(change: impl FnOnce(&mut Value)) -> Home {
    let mut launch = json!({
        "name": "web",
        "spec": {"vcpus": 6, "memory_mib": 4096, "page_kib": 2048},
        "parts": {
            "firmware": "uefi",
            "image": {
                "id": id(1), "sha256": "0a".repeat(32), "format": "qcow2", "os": "linux",
                "size_mib": 400, "source": "upload",
            },
            "disks": [
                {"id": id(2), "size_gib": 8, "format": "qcow2", "from_image": true},
                {"id": id(3), "size_gib": 100, "format": "raw"},
            ],
            "nics": [{
                "id": id(4), "network": id(5), "segment": id(6), "bridge": "br0",
                "medium": "bridge", "mtu": 9000, "mac": "52:54:00:00:00:07",
                "addresses": ["10.0.0.4/24"],
            }],
        },
        "placement": {
            "host": id(7), "fitting": 1,
            "holding": {
                "server": id(9), "vcpus": 6, "memory_mib": 4096, "page_kib": 2048,
                "cells": [
                    {"cell": 1, "vcpus": 4, "memory_mib": 3072, "pages": 1536},
                    {"cell": 3, "vcpus": 2, "memory_mib": 1024, "pages": 512},
                ],
                "pins": [
                    {"vcpu": 0, "cpu": 8}, {"vcpu": 1, "cpu": 24}, {"vcpu": 2, "cpu": 9},
                    {"vcpu": 3, "cpu": 25}, {"vcpu": 4, "cpu": 40}, {"vcpu": 5, "cpu": 41},
                ],
                "cpus": [8, 9, 24, 25, 40, 41],
                "threads": 2,
                "devices": [
                    "0000:3b:00.0", "00000000-0000-0000-0000-00000000000c", "usb:1-1.2",
                    "vgpu:0000:41:00.0/1155/0",
                ],
            },
            "score": {
                "affinity": 0, "apart": 0, "cells": 0, "devices": 0, "fill": 0, "irregular": false,
            },
        },
    });
    change(&mut launch);
    let launch: Launch = serde_json::from_value(launch).unwrap();
    let event = domain::compute::server::Event::Launched { launch: Box::new(launch) };
    Server::default().evolve(event).home.unwrap()
}

fn machine(home: &Home) -> Result<Description, DriverFault> {
    let layout = Layout::of(Path::new("/srv/skyledger"));
    let usb = Usb { at: (1, 4), model: "0529:0001".to_owned() };
    let usb = [("1-1.2".to_owned(), usb)].into();
    let vgpus = [("vgpu:0000:41:00.0/1155/0".to_owned(), "0000:41:00.5".to_owned())].into();
    let places = Places { usb, vgpus };
    description(id(9), home, 12, &layout, Virtualisation::Kvm, &places)
}

#[test]
fn a_state_is_one_machine() {
    let pinned = machine(&home(|_| {})).unwrap();
    let small = machine(&home(|launch| {
        launch["parts"] = json!({});
        launch["placement"]["holding"] = json!({"server": id(9), "vcpus": 6, "memory_mib": 4096});
        launch["spec"]["page_kib"] = Value::Null;
    }))
    .unwrap();
    let growing = machine(&home(|launch| {
        launch["parts"] = json!({});
        launch["placement"]["holding"] = json!({"server": id(9), "vcpus": 6, "memory_mib": 4096});
        launch["spec"] = json!({
            "vcpus": 6, "vcpus_max": 8, "memory_mib": 4096, "memory_max_mib": 8192,
        });
    }))
    .unwrap();
    let common = machine(&home(|launch| {
        launch["parts"]["hardware"] = json!({"disks": "sata", "nics": "e1000e"});
        launch["placement"]["holding"] = json!({"server": id(9), "vcpus": 6, "memory_mib": 4096});
        launch["spec"]["page_kib"] = Value::Null;
    }))
    .unwrap();
    for machine in [&common, &growing] {
        assert_eq!(Description::read(&machine.xml()).unwrap(), *machine);
    }
    for (name, machine, expected) in [
        ("common.xml", common, include_str!("common.xml")),
        ("growing.xml", growing, include_str!("growing.xml")),
        ("pinned.xml", pinned, include_str!("pinned.xml")),
        ("small.xml", small, include_str!("small.xml")),
    ] {
        let xml = machine.xml() + "\n";
        let path = format!("{}/src/driver/wanted/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, xml).unwrap();
        } else {
            assert_eq!(xml, expected, "BLESS=1 writes {path}");
        }
    }
}

#[test]
fn siblings_are_siblings_to_the_guest_too() {
    let seen = |change: &dyn Fn(&mut Value)| {
        let machine = machine(&home(|launch| change(&mut launch["placement"]["holding"]))).unwrap();
        let topology = machine.topology.map(|seen| (seen.sockets, seen.cores, seen.threads));
        assert_eq!(topology.is_some(), machine.xml().contains("<topology sockets="));
        topology
    };
    assert_eq!(seen(&|_| {}), Some((3, 1, 2)), "cells of two cores and of one");
    let one = |holding: &mut Value| {
        holding["cells"] = json!([{"cell": 1, "vcpus": 6, "memory_mib": 4096, "pages": 2048}]);
    };
    assert_eq!(seen(&one), Some((1, 3, 2)));
    assert_eq!(
        seen(&|holding| holding["threads"] = Value::Null),
        None,
        "placed before it was recorded"
    );
    let mut arm = home(|_| {});
    arm.spec.architecture = Architecture::Aarch64;
    assert_eq!(machine(&arm).unwrap().topology, None);
    // In a rescue it has the same processors.
    let kernel = description::DirectKernel {
        kernel: "/boot/rescue".to_owned(),
        initrd: "/boot/rescue.img".to_owned(),
        command_line: String::new(),
    };
    let normal = machine(&home(|_| {})).unwrap();
    let rescued = normal.rescued(kernel);
    assert_eq!(rescued.topology, normal.topology);
    assert!(!normal.devices.is_empty());
    let xml = rescued.xml();
    assert!(!xml.contains("<hostdev"), "nothing of the host is in it: {xml}");
    assert!(normal.xml().contains("<hostdev"), "and it is back afterwards");
}

#[test]
fn processors_that_run_anywhere_are_in_some_cell_and_memory_that_is_bound_to_none_too() {
    let machine = machine(&home(|launch| {
        let holding = &mut launch["placement"]["holding"];
        (holding["pins"], holding["cpus"]) = (json!([]), json!([]));
        for cell in holding["cells"].as_array_mut().unwrap() {
            cell["vcpus"] = 0.into();
        }
    }))
    .unwrap();
    let vcpus: Vec<_> = machine.cells.iter().map(|cell| cell.vcpus.clone()).collect();
    assert_eq!(vcpus, [[0, 2, 4], [1, 3, 5]]);
    let memory: u64 = machine.cells.iter().map(|cell| cell.memory_kib).sum();
    assert_eq!(memory, machine.memory_kib);
}

#[test]
fn it_is_started_from_what_is_said_in_turn() {
    let (disk, network) = (BootDevice::Disk, BootDevice::Network);
    let with = |order: &[BootDevice]| {
        let mut home = home(|_| {});
        home.boot_order = order.to_vec();
        let machine = machine(&home).unwrap();
        let disks: Vec<_> = machine.disks.iter().map(|disk| disk.boot).collect();
        (disks, machine.nics[0].boot)
    };
    assert_eq!(with(&[]), (vec![Some(1), None, None], None));
    assert_eq!(with(&[network, disk]), (vec![Some(2), None, None], Some(1)));
    assert_eq!(with(&[network]), (vec![None, None, None], Some(1)));
    // From its first start on when its launch says so, down to what libvirt is told.
    let launched = home(|launch| launch["boot_order"] = json!(["network", "disk"]));
    let machine = machine(&launched).unwrap();
    assert_eq!((machine.disks[0].boot, machine.nics[0].boot), (Some(2), Some(1)));
    let xml = machine.xml();
    let place = |element: &str| {
        let (_, rest) = xml.split_once(element).unwrap();
        let (inside, _) =
            rest.split_once(&format!("</{}>", &element[1..].split(' ').next().unwrap())).unwrap();
        inside.split_once("<boot order=").map(|(_, order)| order[1..2].to_owned())
    };
    assert_eq!(place("<interface "), Some("1".to_owned()), "{xml}");
    assert_eq!(place("<disk "), Some("2".to_owned()), "{xml}");
}

#[test]
fn a_server_is_plugged_into_a_bridge_of_ours_where_its_segment_is_carried_by_something_else() {
    let of = |medium: Value| {
        let home = home(|launch| launch["parts"]["nics"][0]["medium"] = medium.clone());
        let described = machine(&home).unwrap().nics[0].bridge.clone();
        let port = ports(home.parts.nics.iter(), &home).remove(0);
        assert_eq!(port.bridge, described, "what the machine has is what is guarded");
        (described, port.uplink.map(|uplink| uplink.on))
    };
    let segment = home(|_| {}).parts.nics[0].segment.simple().to_string();
    let own = |begin: &str| format!("{begin}{}", &segment[20..]);
    let on = Some("br0".to_owned());
    assert_eq!(of(json!("bridge")), ("br0".to_owned(), None));
    assert_eq!(of(json!({"vlan": {"id": 7}})), (own("sl"), on.clone()));
    assert_eq!(of(json!({"ovs": {"vlan": null}})), (own("so"), on));
}

#[test]
fn what_an_interface_has_used_elsewhere_comes_with_it_and_is_counted_once() {
    let mut home = home(|launch| {
        launch["parts"]["nics"][0]["quota"] = json!({"egress_bytes": 1_000});
    });
    let port = |home: &Home| ports(home.parts.nics.iter(), home).remove(0);
    let used = Traffic { ingress_bytes: 5, egress_bytes: 600 };
    let here = port(&home);
    assert_eq!((here.carried, here.moves), (Traffic::default(), Some(0)));
    let mut to = home.placement.clone();
    to.host = HostId::new(id(77));
    home.moving = Some(Moving {
        from: home.placement.clone(),
        to: to.clone(),
        live: true,
        limits: TransferLimits::default(),
        used: [(home.parts.nics[0].id, used)].into(),
    });
    assert_eq!(port(&home), here, "where it still is nothing is other than it was");
    home.placement = to;
    let there = port(&home);
    assert_eq!((there.carried, there.moves), (used, Some(1)));
    // What the first host counted goes on there, and nowhere else; what was written down before moves were, too.
    assert!(here.goes_on(&here) && there.goes_on(&there) && !there.goes_on(&here));
    assert!(there.goes_on(&Port { moves: None, ..here.clone() }));
    assert!(!Port { resets: 1, ..there }.goes_on(&here));
}

#[test]
fn an_interface_that_is_a_virtual_function_is_a_device_and_no_port_of_its_host() {
    let home = home(|launch| {
        let mut direct = launch["parts"]["nics"][0].clone();
        (direct["id"], direct["mac"]) = (json!(id(10)), json!("52:54:00:00:00:08"));
        direct["vnic_type"] = json!("direct");
        let nics = launch["parts"]["nics"].as_array_mut().unwrap();
        nics.insert(0, direct);
        let holding = &mut launch["placement"]["holding"];
        holding["devices"] = json!(["0000:60:00.2"]);
        holding["functions"] = json!({"0000:60:00.2": {"mac": "52:54:00:00:00:08", "vlan": 7}});
    });
    let machine = machine(&home).unwrap();
    let macs: Vec<_> = machine.nics.iter().map(|nic| nic.mac.as_str()).collect();
    assert_eq!(macs, ["52:54:00:00:00:07"]);
    assert_eq!(machine.devices, [HostDevice::Pci("0000:60:00.2".to_owned())]);
    assert_eq!(ports(home.parts.nics.iter(), &home).len(), 1, "nothing is plugged for it");
    // What it is called is told to the guest by its seed all the same.
    let documents = documents(id(9), &home, None).unwrap();
    let told = documents.files().iter().any(|(_, text)| text.contains("52:54:00:00:00:08"));
    assert!(told);
}

#[test]
fn what_a_host_cannot_give_is_said() {
    let fault = |change: &dyn Fn(&mut Value)| machine(&home(change)).unwrap_err().to_string();
    let gone = fault(&|launch| {
        launch["placement"]["holding"]["devices"] = json!(["usb:2-1"]);
    });
    assert_eq!(gone, "rejected: device usb:2-1 is not there");
    // What is plugged in there now is another one; who was placed before that was looked at gets what is there.
    let with = |models: Value| {
        home(move |launch| {
            launch["placement"]["holding"]["devices"] = json!(["usb:1-1.2"]);
            launch["placement"]["holding"]["models"] = models;
        })
    };
    let other = machine(&with(json!({"usb:1-1.2": "046d:c52b"}))).unwrap_err().to_string();
    assert!(other.contains("046d:c52b when") && other.contains("0529:0001 now"), "{other}");
    for same in [json!({"usb:1-1.2": "0529:0001"}), json!({})] {
        assert_eq!(machine(&with(same)).unwrap().devices, [HostDevice::Usb(1, 4)]);
    }
}

#[test]
fn names_are_told_from_others() {
    assert_eq!(server_of(&name(id(9)), id(9)), Some(id(9)));
    assert_eq!(server_of(&name(id(9)), id(8)), None, "another machine has taken the name");
    assert_eq!(server_of("web", id(9)), None);
    assert_eq!(tap(id(9)), "sk019900000000");
    assert!(tap(Uuid::max()).len() <= 15, "the kernel's longest name of an interface");
}
