//! By example: each rule once, where a person can follow it.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    compute::placement::{
        Affinity, Architecture, Availability, CardSwitch, Cell, Core, Device, DeviceAsk, Fill,
        Fleet, Holding, Host, HostFacts, Numa, Pinning, Placement, Reason, Relation, Request,
        SwitchMode, Unplaced, VirtualFunction,
    },
    kernel::Refusal,
};
use uuid::Uuid;

use crate::build::{
    Dice, ask, cell, cores, device, facts, host_id, request, server_id, with_pages,
};

fn fleet(hosts: impl IntoIterator<Item = HostFacts>) -> Fleet {
    Fleet::new(hosts.into_iter().map(|facts| Host::new(facts, []).unwrap()))
}

/// Two cells of 4 cores with 2 threads each, 16 GiB each.
fn two_cells(id: u128) -> HostFacts {
    facts(id, vec![cell(0, 16_384, cores(0, 4, 2)), cell(1, 16_384, cores(8, 4, 2))])
}

#[track_caller]
fn placed(fleet: &Fleet, request: &Request) -> Placement {
    fleet.place(request).unwrap()
}

#[track_caller]
fn reasons(fleet: &Fleet, request: &Request) -> Vec<Reason> {
    match fleet.place(request) {
        Err(Unplaced::Nowhere(rejected)) => {
            rejected.hosts.into_iter().map(|one| one.reason).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn cells_of(holding: &Holding) -> Vec<u32> {
    holding.cells.iter().map(|cell| cell.cell).collect()
}

fn pins_of(holding: &Holding) -> Vec<u32> {
    holding.pins.iter().map(|pin| pin.cpu).collect()
}

#[test]
fn siblings_fill_cores_and_an_odd_one_keeps_its_core_for_itself() {
    let fleet = fleet([two_cells(1)]);
    let asked = Request { pinning: Pinning::Siblings {}, ..request(1, 3, 1_024) };
    let holding = placed(&fleet, &asked).holding;
    assert_eq!(pins_of(&holding), [0, 1, 2]);
    assert_eq!(holding.cpus, BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(holding.threads, None, "its guest sees cores alone");
}

#[test]
fn threads_are_seen_where_virtual_cpus_are_whole_cores() {
    let threads = |pinning: Pinning, vcpus: u32| {
        let asked = Request { pinning, cells_max: 2, ..request(1, vcpus, 1_024) };
        placed(&fleet([two_cells(1)]), &asked).holding.threads
    };
    let named = |cpus: &[u32]| Pinning::Manual { cpus: cpus.to_vec() };
    for (pinning, vcpus, expected) in [
        (Pinning::Siblings {}, 2, Some(2)),
        (Pinning::Siblings {}, 4, Some(2)),
        (Pinning::Siblings {}, 1, None),
        (Pinning::Siblings {}, 3, None),
        (Pinning::Cores {}, 2, None),
        (Pinning::Shared, 2, None),
        (named(&[2, 3, 0, 1]), 4, Some(2)),
        (named(&[3, 2]), 2, Some(2)),
        (named(&[0, 2, 1, 3]), 4, None),
        (named(&[0, 1, 2, 4]), 4, None),
    ] {
        assert_eq!(threads(pinning.clone(), vcpus), expected, "{pinning:?}");
    }
}

#[test]
fn a_core_for_each_virtual_cpu_leaves_siblings_idle() {
    let fleet = fleet([two_cells(1)]);
    let asked = Request { pinning: Pinning::Cores {}, ..request(1, 3, 1_024) };
    let holding = placed(&fleet, &asked).holding;
    assert_eq!(pins_of(&holding), [0, 2, 4]);
    assert_eq!(holding.cpus, BTreeSet::from([0, 1, 2, 3, 4, 5]));
}

#[test]
fn cores_under_one_cache_are_kept_together_across_cells_too() {
    // Cell 0 has caches with 3 and 4 cores left, cell 1 is cut in twos.
    let mut first = cores(0, 8, 1);
    first.remove(0);
    let mut second = cores(8, 8, 1);
    for (at, core) in second.iter_mut().enumerate() {
        core.l3 = Some(10 + at as u32 / 2);
    }
    let host = facts(1, vec![cell(0, 16_384, second), cell(1, 16_384, first)]);
    let asked = Request { pinning: Pinning::Cores {}, ..request(1, 3, 1_024) };
    let holding = placed(&fleet([host]), &asked).holding;
    assert_eq!(
        (cells_of(&holding), pins_of(&holding)),
        (vec![1], vec![1, 2, 3]),
        "the tighter one"
    );
}

#[test]
fn the_cell_of_the_device_is_preferred_and_the_nearest_where_it_has_none() {
    let mut host = two_cells(1);
    host.devices = vec![device("0000:3b:00.0", "gpu", "10de:1eb8", Some(1))];
    let asked = Request { devices: vec![ask("gpu", None, 1)], ..request(1, 2, 1_024) };
    let place = placed(&fleet([host.clone()]), &asked);
    assert_eq!((cells_of(&place.holding), place.score.devices), (vec![1], 0));
    // It is full: the server lies elsewhere, and the score says so.
    host.cells[1].memory_mib = 512;
    let place = placed(&fleet([host.clone()]), &asked);
    assert_eq!((cells_of(&place.holding), place.score.devices), (vec![0], 10));
    // Its cell has neither CPUs nor memory; of the others one is nearer.
    host.cells[1] = Cell { memory_mib: 16_384, ..host.cells[1].clone() };
    host.cells.push(Cell { distances: vec![32, 12, 10], ..cell(2, 0, Vec::new()) });
    host.cells[0].distances = vec![10, 20, 32];
    host.cells[1].distances = vec![20, 10, 12];
    host.devices[0].cell = Some(2);
    let place = placed(&fleet([host]), &asked);
    assert_eq!((cells_of(&place.holding), place.score.devices), (vec![1], 2));
}

#[test]
fn cells_without_memory_or_without_cpus_are_nobodys_trouble() {
    // Eight cells, of which four have memory and one has nothing else.
    let has = |at: u32| [0, 2, 4, 6].contains(&at);
    let cells = (0..8).map(|at| {
        let memory = if has(at) { 4_096 } else { 0 };
        cell(at, memory, if at == 6 { Vec::new() } else { cores(at * 8, 4, 2) })
    });
    let fleet = fleet([facts(1, cells.collect())]);
    let wide = Request { cells_max: 8, ..request(1, 6, 12_288) };
    assert_eq!(cells_of(&placed(&fleet, &wide).holding), [0, 2, 4]);
    let wider = Request { cells_max: 8, ..request(1, 8, 16_384) };
    let reason = &reasons(&fleet, &wider)[0];
    assert!(
        matches!(reason, Reason::Cells { cells: 8, asked: 8, fitting: 3, cpus: 1, .. }),
        "{reason:?}"
    );
    let any = Request { numa: Numa::BestEffort, ..wider };
    assert!(placed(&fleet, &any).irregular, "the kernel finds memory in the fourth");
    assert!(Host::new(facts(2, Vec::new()), []).is_ok(), "a host of no cells takes nothing");
}

#[test]
fn memory_crosses_no_cell_unless_asked_and_best_effort_says_that_it_does() {
    let fleet = fleet([two_cells(1)]);
    let large = request(1, 8, 20_480);
    let asked_and_free =
        Reason::Cells { cells: 1, asked: 1, fitting: 0, cpus: 8, threads: 0, memory_mib: 20_480 };
    assert_eq!(reasons(&fleet, &large), [asked_and_free]);
    let place = placed(&fleet, &Request { cells_max: 2, ..large.clone() });
    assert_eq!((place.score.cells, place.irregular), (2, false));
    let halves = place.holding.cells.iter().map(|cell| (cell.vcpus, cell.memory_mib));
    assert!(halves.eq([(4, 10_240), (4, 10_240)]));
    let place = placed(&fleet, &Request { numa: Numa::BestEffort, ..large });
    assert!(place.irregular && place.score.irregular && place.holding.cells.is_empty());
}

#[test]
fn memory_is_whole_pages_in_every_cell() {
    let paged = |at: u32| with_pages(cell(at, 8_192, cores(at * 8, 4, 2)), 1 << 20, 4);
    let fleet = fleet([facts(1, vec![paged(0), paged(1)])]);
    let gib =
        |memory_mib| Request { page_kib: Some(1 << 20), cells_max: 2, ..request(1, 4, memory_mib) };
    let Err(Unplaced::Invalid(refusal)) = fleet.place(&gib(1_536)) else { panic!("it is refused") };
    assert_eq!(refusal.detail, "memory_mib: 1536 MiB are not whole pages of 1048576 KiB");
    let place = placed(&fleet, &gib(5_120));
    let pages = place.holding.cells.iter().map(|cell| (cell.pages, cell.memory_mib));
    assert!(pages.eq([(3, 3_072), (2, 2_048)]));
    let nine = reasons(&fleet, &gib(9_216));
    assert_eq!(nine, [Reason::Pages { size_kib: 1 << 20, asked: 9, free: 8 }]);
    // What others on the host have is given to nobody; it is no ordinary memory either.
    let mut shared = facts(2, vec![paged(0), paged(1)]);
    shared.cells[0].pages[0].others = 3;
    shared.check().unwrap();
    let shared = self::fleet([shared]);
    let six = reasons(&shared, &gib(6_144));
    assert_eq!(six, [Reason::Pages { size_kib: 1 << 20, asked: 6, free: 5 }]);
    let place = placed(&shared, &gib(4_096));
    let pages = place.holding.cells.iter().map(|cell| (cell.cell, cell.pages));
    assert!(pages.eq([(1, 4)]), "where they are free");
    let ordinary = Request { numa: Numa::None, ..request(3, 1, 8_192) };
    assert_eq!(placed(&shared, &ordinary).holding.memory_mib, 8_192);
    let more = Request { memory_mib: 8_193, ..ordinary };
    assert_eq!(reasons(&shared, &more), [Reason::Memory { asked_mib: 8_193, free_mib: 8_192 }]);
    // Pages are taken where they are, though the server may run anywhere.
    let place = placed(&fleet, &Request { numa: Numa::None, ..gib(5_120) });
    let pages = place.holding.cells.iter().map(|cell| (cell.vcpus, cell.pages));
    assert!(pages.eq([(0, 4), (0, 1)]));
}

#[test]
fn memory_is_not_promised_twice_on_a_host_with_huge_pages() {
    let mut host = two_cells(1);
    host.memory_overcommit_percent = 200;
    let asked = Request { numa: Numa::None, ..request(1, 1, 40_000) };
    assert_eq!(placed(&fleet([host.clone()]), &asked).holding.memory_mib, 40_000);
    host.cells[0] = with_pages(host.cells[0].clone(), 2_048, 1);
    let free = Reason::Memory { asked_mib: 40_000, free_mib: 32_766 };
    assert_eq!(reasons(&fleet([host]), &asked), [free]);
}

#[test]
fn a_usb_controller_and_what_hangs_on_it_go_to_one_server() {
    let mut host = two_cells(1);
    let usb = |id: &str, model: &str, on: &str| Device {
        controller: Some(on.to_owned()),
        ..device(id, "usb", model, None)
    };
    let of = |id, kind, group| Device { iommu_group: Some(group), ..device(id, kind, "c", None) };
    host.devices = vec![
        of("a0", "gpu", 1),
        of("a1", "usb-controller", 1),
        of("b0", "usb-controller", 2),
        usb("usb:1", "x", "a1"),
        usb("usb:2", "y", "b0"),
        usb("usb:3", "x", "b0"),
    ];
    let mut fleet = fleet([host]);
    let asked = |server, asks: &[(&str, Option<&str>, u32)]| Request {
        devices: asks.iter().map(|(kind, model, count)| ask(kind, *model, *count)).collect(),
        ..request(server, 1, 512)
    };
    let free = |fleet: &Fleet, kind: &str| {
        (1..4).take_while(|count| fleet.place(&asked(9, &[(kind, None, *count)])).is_ok()).count()
    };
    // One has a device: its controller is nobody's, and what else hangs on that is free.
    let one = placed(&fleet, &asked(1, &[("usb", Some("y"), 1)]));
    assert_eq!(one.holding.models, [("usb:2".to_owned(), "y".to_owned())].into());
    fleet.take(one.host, one.holding).unwrap();
    assert_eq!((free(&fleet, "usb"), free(&fleet, "usb-controller")), (2, 1));
    // Another one has a card with a controller: what hangs on that is not given any more.
    let other = placed(&fleet, &asked(2, &[("gpu", None, 1)]));
    assert_eq!(other.holding.devices_with, BTreeSet::from(["a1".to_owned()]));
    fleet.take(other.host, other.holding).unwrap();
    assert_eq!((free(&fleet, "usb"), free(&fleet, "usb-controller")), (1, 0));
    for server in [1, 2] {
        fleet.give_back(host_id(1), server_id(server)).unwrap();
    }

    // Who asks for both gets a device that stays on the host.
    let both = placed(&fleet, &asked(3, &[("usb", Some("x"), 1), ("usb-controller", None, 1)]));
    // And of two controllers that one of these hangs on, that which takes nothing else with it.
    let expected = ["b0", "usb:1"].map(str::to_owned);
    assert_eq!(both.holding.devices, BTreeSet::from(expected));
    let none = [Reason::UsbDevices { asked: 2, left: 1 }];
    let too_many = asked(3, &[("usb", Some("x"), 2), ("gpu", None, 1)]);
    assert_eq!(reasons(&fleet, &too_many), none);
    // And nobody takes both by hand.
    let mut wrong = both.holding.clone();
    wrong.devices.insert("usb:3".to_owned());
    let refused = fleet.take(host_id(1), wrong).unwrap_err();
    assert!(refused.detail.contains("usb:3"), "{refused:?}");
    fleet.take(host_id(1), both.holding).unwrap();
}

#[test]
fn an_iommu_group_goes_to_one_server() {
    let mut host = two_cells(1);
    let of = |id, group| Device { iommu_group: group, ..device(id, "gpu", "a", Some(0)) };
    host.devices = vec![of("a0", Some(7)), of("a1", Some(7)), of("b0", Some(8)), of("b1", Some(8))];
    host.devices[3].availability = Availability::Reserved;
    let mut fleet = fleet([host]);
    let asked = |server, count| Request {
        devices: vec![ask("gpu", None, count)],
        ..request(server, 1, 512)
    };
    let none = [Reason::Devices {
        kind: "gpu".into(),
        model: None,
        carrier: None,
        represented: false,
        asked: 3,
        free: 2,
    }];
    assert_eq!(reasons(&fleet, &asked(1, 3)), none);
    let place = placed(&fleet, &asked(1, 1));
    assert_eq!(place.holding.devices, BTreeSet::from(["a0".to_owned()]));
    assert_eq!(place.holding.devices_with, BTreeSet::from(["a1".to_owned()]));
    fleet.take(place.host, place.holding).unwrap();
    let none = [Reason::Devices {
        kind: "gpu".into(),
        model: None,
        carrier: None,
        represented: false,
        asked: 1,
        free: 0,
    }];
    assert_eq!(reasons(&fleet, &asked(2, 1)), none);
    fleet.give_back(host_id(1), server_id(1)).unwrap();
    assert_eq!(placed(&fleet, &asked(2, 2)).holding.devices.len(), 2, "both are free again");
}

#[test]
fn what_a_virtual_function_is_set_to_is_part_of_what_its_server_takes() {
    let mut host = two_cells(1);
    let of = |id, kind| device(id, kind, "8086:10ca", Some(0));
    host.devices = vec![of("a0", "vf"), of("a1", "vf"), of("a2", "nic")];
    let fleet = fleet([host]);
    let set = |vlan| VirtualFunction { vlan: Some(vlan), ..VirtualFunction::default() };
    let function = |vlan| DeviceAsk { function: Some(set(vlan)), ..ask("vf", None, 1) };
    let both = Request { devices: vec![function(7), function(8)], ..request(1, 1, 512) };
    let holding = placed(&fleet, &both).holding;
    let vlans: Vec<_> = holding.functions.values().map(|it| it.vlan).collect();
    assert_eq!(vlans, [Some(7), Some(8)]);
    assert_eq!(holding.functions.keys().collect::<Vec<_>>(), ["a0", "a1"]);
    let macs: BTreeSet<_> = holding.functions.values().filter_map(|it| it.mac).collect();
    assert_eq!(macs.len(), 2, "each has an address of its own");
    assert_eq!(placed(&fleet, &both).holding, holding);
    let plain = Request { devices: vec![ask("vf", None, 1)], ..request(1, 1, 512) };
    assert!(placed(&fleet, &plain).holding.functions.is_empty());
    let wrong = DeviceAsk { function: Some(set(7)), ..ask("nic", None, 1) };
    let wrong = Request { devices: vec![wrong], ..request(1, 1, 512) };
    assert_eq!(wrong.check().unwrap_err().code.code, "invalid-field");
}

#[test]
fn a_virtual_function_is_on_the_wire_that_is_asked_for_or_not_given() {
    let mut host = two_cells(1);
    let of = |id, carrier: Option<&str>| Device {
        carrier: carrier.map(str::to_owned),
        ..device(id, "vf", "8086:10ca", Some(0))
    };
    host.devices =
        vec![of("a0", None), of("a1", Some("br0")), of("a2", Some("br1")), of("a3", Some("br1"))];
    let fleet = fleet([host]);
    let on = |carrier: &str, count| DeviceAsk {
        carrier: Some(carrier.to_owned()),
        ..ask("vf", None, count)
    };
    let asked = |devices| Request { devices, ..request(1, 1, 512) };
    // What any would do for does not take what only one does for.
    let both = asked(vec![ask("vf", None, 2), on("br0", 1)]);
    let devices = placed(&fleet, &both).holding.devices;
    assert!(devices.contains("a1") && devices.len() == 3, "{devices:?}");
    let many = asked(vec![on("br0", 2)]);
    let carrier = Some("br0".to_owned());
    let kind = "vf".to_owned();
    let too_few =
        [Reason::Devices { kind, model: None, carrier, represented: false, asked: 2, free: 1 }];
    assert_eq!(reasons(&fleet, &many), too_few);
    assert!(too_few[0].to_string().contains("on br0"), "{}", too_few[0]);
    let mixed = asked(vec![ask("vf", Some("8086:10ca"), 1), on("br0", 1)]);
    assert_eq!(mixed.check().unwrap_err().code.code, "invalid-field");
}

#[test]
fn what_must_be_guarded_is_a_function_whose_other_end_the_host_has() {
    let mut host = two_cells(1);
    let of = |id: &str, representor: Option<&str>| Device {
        carrier: Some("br0".to_owned()),
        switch: representor.map(|name| CardSwitch {
            mode: SwitchMode::Switchdev,
            representor: Some(name.to_owned()),
            offloads: true,
        }),
        ..device(id, "vf", "15b3:101e", Some(0))
    };
    host.devices = vec![of("a0", Some("rep0")), of("a1", None)];
    let fleet = fleet([host]);
    let ask = |represented, count| DeviceAsk {
        carrier: Some("br0".to_owned()),
        represented,
        ..ask("vf", None, count)
    };
    let asked = |devices| Request { devices, ..request(1, 1, 512) };
    let one = placed(&fleet, &asked(vec![ask(true, 1)])).holding.devices;
    assert_eq!(one, ["a0".to_owned()].into());
    // One that need not be guarded leaves it to one that must be.
    let both = placed(&fleet, &asked(vec![ask(false, 1), ask(true, 1)])).holding.devices;
    assert_eq!(both.len(), 2);
    let whys = reasons(&fleet, &asked(vec![ask(true, 2)]));
    assert!(whys[0].to_string().contains("on br0 with a representor"), "{}", whys[0]);
    let whys = reasons(&fleet, &asked(vec![ask(false, 2), ask(true, 1)]));
    assert_eq!(whys.len(), 1, "{whys:?}");
    let nowhere = DeviceAsk { carrier: None, ..ask(true, 1) };
    assert_eq!(asked(vec![nowhere]).check().unwrap_err().code.code, "invalid-field");
}

#[test]
fn a_person_names_cpus_and_is_told_what_is_wrong_with_them() {
    let mut host = two_cells(1);
    host.cpus_reserved = BTreeSet::from([15]);
    let mut fleet = fleet([host]);
    let named = |server, cpus: &[u32]| Request {
        pinning: Pinning::Manual { cpus: cpus.to_vec() },
        ..request(server, cpus.len() as u32, 1_024)
    };
    let place = placed(&fleet, &named(1, &[3, 0]));
    assert_eq!(pins_of(&place.holding), [3, 0], "in the order they are named");
    assert_eq!(place.holding.cpus, BTreeSet::from([0, 1, 2, 3]));
    fleet.take(place.host, place.holding).unwrap();
    let server = server_id(1);
    for (cpus, reason) in [
        (&[2][..], Reason::CpuHeld { cpu: 2, server }),
        (&[14], Reason::CpuReserved { cpu: 14 }),
        (&[16], Reason::CpuUnknown { cpu: 16 }),
        (&[4, 8], Reason::PinnedCells { allowed: 1, cells: 2 }),
    ] {
        assert_eq!(reasons(&fleet, &named(2, cpus)), [reason]);
    }
    let twice = named(2, &[4, 4]);
    assert!(matches!(fleet.place(&twice), Err(Unplaced::Invalid(_))), "no CPU twice");
}

#[test]
fn cpus_for_one_server_never_squeeze_those_who_share() {
    let mut host = facts(1, vec![cell(0, 16_384, cores(0, 4, 1))]);
    host.cpu_overcommit_percent = 800;
    let mut fleet = fleet([host]);
    let place = placed(&fleet, &request(1, 17, 1_024));
    fleet.take(place.host, place.holding).unwrap();
    let alone = |vcpus| Request { pinning: Pinning::Cores {}, ..request(2, vcpus, 1_024) };
    // 17 shared ones need 3 CPUs, so one of four can be given.
    let none = Reason::Cores { asked: 2, free: 1, threads: 1 };
    assert_eq!(reasons(&fleet, &alone(2)), [none]);
    let place = placed(&fleet, &alone(1));
    fleet.take(place.host, place.holding).unwrap();
    let none = Reason::Vcpus { asked: 8, free: 7 };
    assert_eq!(reasons(&fleet, &request(3, 8, 1_024)), [none]);
    assert_eq!(placed(&fleet, &request(3, 7, 1_024)).holding.vcpus, 7);
}

#[test]
fn groups_keep_apart_and_together() {
    let mut fleet = fleet((1..=3).map(two_cells));
    let group = Uuid::from_u128(9);
    let with = |server, relation, hard| Request {
        affinities: vec![Affinity { group, relation, hard }],
        ..request(server, 1, 512)
    };
    for server in 1..=3 {
        let place = placed(&fleet, &with(server, Relation::Apart, true));
        assert_eq!(place.host, host_id(server), "one on each");
        fleet.take(place.host, place.holding).unwrap();
    }
    let fourth = reasons(&fleet, &with(4, Relation::Apart, true));
    assert_eq!(fourth, vec![Reason::Apart { group, here: 1 }; 3]);
    let soft = placed(&fleet, &with(4, Relation::Apart, false));
    assert_eq!((soft.host, soft.score.affinity), (host_id(1), 1));
    fleet.give_back(host_id(1), server_id(1)).unwrap();
    fleet.give_back(host_id(3), server_id(3)).unwrap();
    let place = placed(&fleet, &with(5, Relation::Together, true));
    assert_eq!(place.host, host_id(2), "where the others are");
    let elsewhere = Reason::Together { group, elsewhere: 1 };
    assert!(place.rejected.hosts.iter().all(|one| one.reason == elsewhere));
    // A server that moves is no obstacle to itself.
    let moved = with(2, Relation::Apart, true);
    assert_eq!(placed(&fleet, &moved).host, host_id(1));
    assert_eq!(fleet.why_not(&moved, host_id(2)).unwrap().reasons, [Reason::AlreadyHere]);
}

#[test]
fn a_host_tells_everything_that_is_in_the_way() {
    let mut host = two_cells(1);
    (host.enabled, host.maintenance) = (false, true);
    host.tags = BTreeSet::from(["old".to_owned()]);
    let fleet = fleet([host]);
    let asked = Request {
        architecture: Architecture::Aarch64,
        tags_required: BTreeSet::from(["ssd".to_owned()]),
        labels: BTreeSet::from(["segment-7".to_owned()]),
        only: BTreeSet::from([host_id(2)]),
        except: BTreeSet::from([host_id(1)]),
        devices: vec![ask("gpu", Some("a"), 1)],
        ..request(1, 17, 65_536)
    };
    let verdict = fleet.why_not(&asked, host_id(1)).unwrap();
    let codes: Vec<_> = verdict.reasons.iter().map(Reason::code).collect();
    assert_eq!(
        codes,
        [
            "disabled",
            "maintenance",
            "architecture",
            "not-named",
            "excluded",
            "tag-missing",
            "label",
            "devices",
            "vcpus",
            "memory"
        ]
    );
    assert_eq!((verdict.score, verdict.holding), (None, None));
    let refusal = Refusal::from(fleet.place(&asked).unwrap_err());
    let host = host_id(1);
    assert_eq!(refusal.detail, format!("1 hosts: disabled 1; host {host}: it is disabled"));
    let forbidden = Request { tags_forbidden: BTreeSet::from(["old".to_owned()]), ..asked };
    let verdict = fleet.why_not(&Request { tags_required: BTreeSet::new(), ..forbidden }, host);
    assert!(verdict.unwrap().reasons.contains(&Reason::TagForbidden { tag: "old".to_owned() }));
}

#[test]
fn hosts_are_packed_or_spread_and_ties_go_to_the_lower_id() {
    let mut fleet = fleet((1..=3).map(two_cells));
    let spread = |server| Request { fill: Fill::Spread, ..request(server, 2, 2_048) };
    let mut went = Vec::new();
    for server in 1..=4 {
        let place = placed(&fleet, &spread(server));
        went.push(place.host);
        fleet.take(place.host, place.holding).unwrap();
    }
    assert_eq!(went, [host_id(1), host_id(2), host_id(3), host_id(1)]);
    assert_eq!(placed(&fleet, &request(5, 1, 512)).host, host_id(1), "the fullest");
}

#[test]
fn a_host_that_has_shrunk_has_nothing_free_and_never_less() {
    let mut host = Host::new(two_cells(1), []).unwrap();
    let place = placed(&Fleet::new([host.clone()]), &request(1, 8, 12_288));
    host.take(place.holding.clone()).unwrap();
    let mut small = two_cells(1);
    small.cells[0].memory_mib = 1_024;
    small.cells[0].cores.truncate(1);
    small.cells[1] = Cell { memory_mib: 512, ..small.cells[1].clone() };
    let mut host = host.with_facts(small).unwrap();
    let none = reasons(&Fleet::new([host.clone()]), &request(2, 1, 1));
    assert_eq!(none, [Reason::Memory { asked_mib: 1, free_mib: 0 }]);
    assert_eq!(host.give_back(server_id(1)).unwrap(), place.holding);
    assert!(Fleet::new([host]).place(&request(2, 1, 1)).is_ok());
}

#[test]
fn what_is_recorded_reads_the_same_and_fits_an_event() {
    let hosts = (1..=5_001).map(|id| {
        if id == 5_001 { two_cells(id) } else { facts(id, vec![cell(0, 1, cores(0, 1, 1))]) }
    });
    let place =
        placed(&fleet(hosts), &Request { pinning: Pinning::Siblings {}, ..request(1, 4, 2_048) });
    assert_eq!(place.host, host_id(5_001));
    assert_eq!((place.fitting, place.rejected.hosts.len()), (1, 5_000));
    assert_eq!(place.rejected.counts, BTreeMap::from([("cores".to_owned(), 5_000)]));
    let text = serde_json::to_vec(&place).unwrap();
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    assert_eq!(serde_json::from_slice::<Placement>(&text).unwrap(), place);
}

#[test]
fn sixteen_cells_that_all_differ_are_searched_whole_and_sixty_four_within_bounds() {
    let mut dice = Dice::new(3);
    for (count, parts) in [(16_u32, 8_u32), (64, 32)] {
        let cells = (0..count).map(|at| Cell {
            distances: (0..count)
                .map(|other| if other == at { 10 } else { 11 + dice.roll(90) as u32 })
                .collect(),
            ..cell(at, 1_024, cores(at * 2, 2, 1))
        });
        let host = facts(1, cells.collect());
        let asked = Request { cells_max: parts, ..request(1, parts, 1_024 * u64::from(parts)) };
        let place = placed(&fleet([host.clone()]), &asked);
        assert_eq!(place.score.cells, parts);
        if count == 16 {
            let host = &host;
            let apart = |set: u32| -> u64 {
                let of = (0..16).filter(|at| set & (1 << at) != 0).collect::<Vec<_>>();
                let pairs = of.iter().enumerate().flat_map(|(at, one)| {
                    of[at + 1..].iter().map(move |other| host.distance(*one, *other))
                });
                pairs.map(u64::from).sum()
            };
            let best = (0..1_u32 << 16).filter(|set| set.count_ones() == 8).map(apart).min();
            assert_eq!(Some(place.score.apart), best);
        }
    }
}

#[test]
fn facts_that_make_no_sense_are_refused() {
    let mut wrong = Vec::new();
    let mut broken = |change: &dyn Fn(&mut HostFacts)| {
        let mut host = two_cells(1);
        change(&mut host);
        wrong.push(host);
    };
    broken(&|host| host.cpu_overcommit_percent = 99);
    broken(&|host| host.cells.reverse());
    broken(&|host| host.cells[0].memory_reserved_mib = 16_385);
    broken(&|host| host.cells[0] = with_pages(host.cells[0].clone(), 1 << 20, 17));
    broken(&|host| host.cells[0] = with_pages(host.cells[0].clone(), 3, 1));
    broken(&|host| host.cells[0].cores.push(Core { threads: vec![8], l3: None }));
    broken(&|host| host.cells[0].cores.push(Core { threads: Vec::new(), l3: None }));
    broken(&|host| host.cells[0].distances = vec![10]);
    broken(&|host| host.devices.push(device("x", "gpu", "a", Some(2))));
    broken(&|host| host.devices = vec![device("x", "gpu", "a", None); 2]);
    for facts in wrong {
        let refusal = Host::new(facts, []).unwrap_err();
        assert_eq!(refusal.code.code, "invalid-field", "{refusal}");
    }
}

#[test]
fn chance_meets_every_reason_that_has_numbers() {
    // The properties say little of what they never meet.
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..6_000 {
        let mut dice = Dice::new(seed);
        let mut fleet = fleet([dice.facts(1)]);
        for server in 0..6 {
            match fleet.place(&dice.request(server)) {
                Ok(place) => {
                    let way = format!("{} cells", place.score.cells);
                    *seen.entry(way).or_default() += 1;
                    *seen.entry(format!("irregular {}", place.irregular)).or_default() += 1;
                    fleet.take(place.host, place.holding).unwrap();
                }
                Err(Unplaced::Nowhere(rejected)) => {
                    *seen.entry(rejected.hosts[0].reason.code().to_owned()).or_default() += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    for code in [
        "0 cells",
        "1 cells",
        "2 cells",
        "3 cells",
        "cell-memory",
        "cell-pages",
        "cells",
        "cores",
        "cpu-held",
        "cpu-reserved",
        "cpu-unknown",
        "devices",
        "irregular true",
        "memory",
        "pages",
        "pinned-cells",
        "squeezed",
        "vcpus",
    ] {
        assert!(seen.get(code).is_some_and(|count| *count >= 20), "{code}: {seen:?}");
    }
}
