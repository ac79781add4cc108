//! Servers placed on 5,000 hosts of two cells with devices, on one core; and the worst a host of
//! equal cells can ask of the search. No server, no store.

use std::time::{Duration, Instant};

use domain::{
    compute::placement::{
        Affinity, AgentState, Architecture, Availability, Cell, Core, Device, DeviceAsk, Fill,
        Fleet, Host, HostFacts, Numa, Pages, Pinning, Relation, Request,
    },
    kernel::Id,
};
use uuid::Uuid;

use crate::support::{Size, cpu_seconds, percentile};

/// Numbers that look like chance, the same every time (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }
}

fn cell(id: u32, cells: u32, cores: u32) -> Cell {
    let first = id * cores * 2;
    let core = |at: u32| Core {
        threads: vec![first + at * 2, first + at * 2 + 1],
        l3: Some((first + at * 2) / 16),
    };
    Cell {
        id,
        memory_mib: 256 << 10,
        memory_reserved_mib: 4 << 10,
        pages: vec![Pages { size_kib: 1 << 20, count: 64, others: 0 }],
        cores: (0..cores).map(core).collect(),
        distances: (0..cells).map(|other| if other == id { 10 } else { 21 }).collect(),
    }
}

fn device(id: String, kind: &str, model: &str, cell: u32, group: u32) -> Device {
    Device {
        id,
        kind: kind.to_owned(),
        model: model.to_owned(),
        cell: Some(cell),
        iommu_group: Some(group),
        controller: None,
        availability: Availability::Free,
        carrier: None,
        profile: None,
        switch: None,
    }
}

/// Two cells of 32 cores and 256 GiB, four cards and eight virtual functions.
fn facts(number: u128, dice: &mut Dice) -> HostFacts {
    let model = dice.pick(&["10de:1eb8", "10de:20b5", "1002:740f"]);
    let cards = (0..4).map(|at| device(format!("{at:02x}:00.0"), "gpu", model, at / 2, at / 2));
    let functions =
        (0..8).map(|at| device(format!("80:{at:02x}.0"), "nic", "8086:10ca", at / 4, 100 + at));
    let mut tags = std::collections::BTreeSet::new();
    tags.insert(dice.pick(&["ssd", "hdd"]).to_owned());
    HostFacts {
        id: Id::new(Uuid::from_u128(number)),
        enabled: dice.roll(50) > 0,
        maintenance: false,
        agent: AgentState::Works,
        architecture: dice.pick(&[
            Architecture::X86_64,
            Architecture::X86_64,
            Architecture::Aarch64,
        ]),
        tags,
        labels: ["segment-1".to_owned(), "storage-1".to_owned()].into(),
        cpu_overcommit_percent: 800,
        memory_overcommit_percent: 100,
        cpus_reserved: [0, 1].into(),
        cells: vec![cell(0, 2, 32), cell(1, 2, 32)],
        devices: cards.chain(functions).collect(),
    }
}

fn plain(server: u128, vcpus: u32, memory_mib: u64) -> Request {
    Request {
        server: Id::new(Uuid::from_u128(server)),
        architecture: Architecture::X86_64,
        vcpus,
        memory_mib,
        page_kib: None,
        numa: Numa::Strict,
        cells_min: 1,
        cells_max: 1,
        pinning: Pinning::Shared,
        devices: Vec::new(),
        tags_required: [].into(),
        tags_forbidden: [].into(),
        labels: ["segment-1".to_owned()].into(),
        affinities: Vec::new(),
        only: [].into(),
        except: [].into(),
        fill: Fill::Spread,
    }
}

/// What people ask for: most of it small and shared, some of everything else.
fn request(server: u128, dice: &mut Dice) -> Request {
    let vcpus = dice.pick(&[1, 2, 2, 4, 4, 8, 16]);
    let mut request = plain(server, vcpus, u64::from(vcpus) * dice.pick(&[2_048, 4_096, 8_192]));
    request.architecture =
        dice.pick(&[Architecture::X86_64, Architecture::X86_64, Architecture::Aarch64]);
    request.fill = dice.pick(&[Fill::Spread, Fill::Pack]);
    match dice.roll(20) {
        0 | 1 => request.page_kib = Some(1 << 20),
        2 | 3 => request.pinning = dice.pick(&[Pinning::Siblings {}, Pinning::Cores {}]),
        4 => (request.numa, request.cells_max) = (Numa::BestEffort, 2),
        5 => request.numa = Numa::None,
        6 => request.tags_required = ["ssd".to_owned()].into(),
        7 | 8 => {
            let (kind, model) =
                dice.pick(&[("gpu", Some("10de:1eb8")), ("gpu", None), ("nic", None)]);
            let (kind, model) = (kind.to_owned(), model.map(str::to_owned));
            request.devices.push(DeviceAsk {
                kind,
                model,
                carrier: None,
                represented: false,
                count: 1 + dice.roll(2) as u32,
                function: None,
            });
        }
        9 => request.affinities.push(Affinity {
            group: Uuid::from_u128(u128::from(dice.roll(50))),
            relation: Relation::Apart,
            hard: dice.roll(2) == 0,
        }),
        _ => {}
    }
    request
}

pub(crate) fn run(size: Size) {
    many_hosts(size);
    equal_cells(size);
}

fn many_hosts(size: Size) {
    let (hosts, standing, rounds) =
        (size.pick(5_000, 200), size.pick(60_000, 1_000), size.pick(20_000, 500));
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let all = (1..=hosts).map(|number| Host::new(facts(number, &mut dice), []).expect("a host"));
    let mut fleet = Fleet::new(all.collect::<Vec<_>>());
    let (mut held, mut next, mut nowhere) = (Vec::new(), 0_u128, 0);
    let mut place = |fleet: &mut Fleet, dice: &mut Dice, held: &mut Vec<_>| {
        next += 1;
        let request = request((1 << 64) + next, dice);
        let start = Instant::now();
        let placed = fleet.place(&request);
        let found = placed.is_ok();
        if let Ok(placement) = placed {
            held.push((placement.host, placement.holding.server));
            fleet.take(placement.host, placement.holding).expect("it is there");
        }
        (start.elapsed(), found)
    };
    let mut filling: Vec<Duration> = Vec::new();
    for _ in 0..standing {
        filling.push(place(&mut fleet, &mut dice, &mut held).0);
    }
    let cpu = cpu_seconds();
    let mut times: Vec<Duration> = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        // One goes, one comes.
        let at = dice.roll(held.len() as u64) as usize;
        let (host, server) = held.swap_remove(at);
        fleet.give_back(host, server).expect("it is held");
        let (time, found) = place(&mut fleet, &mut dice, &mut held);
        nowhere += usize::from(!found);
        times.push(time);
    }
    let cpu = cpu_seconds() - cpu;
    println!(
        "- {hosts} hosts, {} servers on them, {rounds} placed and as many given back: **{:.0} \
         placements per CPU second** (goal ≥ 1,000); p50 {:.2} ms, **p99 {:.2} ms** (goal ≤ 10), \
         longest {:.2} ms; {nowhere} had no place.",
        held.len(),
        rounds as f64 / cpu,
        percentile(&mut times, 0.50),
        percentile(&mut times, 0.99),
        percentile(&mut times, 1.0),
    );
    println!(
        "- while they were filled: p50 {:.2} ms, p99 {:.2} ms.",
        percentile(&mut filling, 0.50),
        percentile(&mut filling, 0.99)
    );
    let start = Instant::now();
    let small = plain(1, 64, 200 << 10);
    let many = fleet.how_many(&small, 1_000).expect("a request");
    println!(
        "- how many servers of 64 virtual CPUs and 200 GiB more: {} in {:.0} ms.",
        many.count,
        start.elapsed().as_secs_f64() * 1e3
    );
}

/// Eight equal cells, six requests: for devices of six kinds, for six cells, for six servers.
fn equal_cells(size: Size) {
    let rounds = size.pick(1_000, 50);
    let mut facts = facts(1, &mut Dice(7));
    (facts.enabled, facts.architecture) = (true, Architecture::X86_64);
    facts.cpus_reserved.clear();
    facts.cells = (0..8).map(|at| cell(at, 8, 16)).collect();
    facts.devices = (0..8_u32)
        .flat_map(|cell| {
            (0..6_u32).map(move |kind| {
                let id = format!("{cell}{kind}:00.0");
                device(id, &format!("kind-{kind}"), "model", cell, cell * 6 + kind)
            })
        })
        .collect();
    let fleet = Fleet::new([Host::new(facts, []).expect("a host")]);
    let ask = |kind| DeviceAsk {
        kind: format!("kind-{kind}"),
        model: None,
        carrier: None,
        represented: false,
        count: 1,
        function: None,
    };
    let six_devices = Request { devices: (0..6).map(ask).collect(), ..plain(1, 4, 8_192) };
    let six_cells = Request { cells_max: 8, ..plain(1, 36, 6 * (184 << 10)) };
    let both = Request { devices: (0..6).map(ask).collect(), ..six_cells.clone() };
    let pinned = Request { pinning: Pinning::Siblings {}, ..both.clone() };
    for (what, request, servers) in [
        ("six devices", &six_devices, 1),
        ("a server over six cells", &six_cells, 1),
        ("six devices and six cells", &both, 1),
        ("the same with cores of its own", &pinned, 1),
        ("six servers, one after the other", &six_devices, 6),
    ] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let mut fleet = fleet.clone();
            let start = Instant::now();
            for server in 0..servers {
                let server = Id::new(Uuid::from_u128(100 + server));
                let placement = fleet.place(&Request { server, ..request.clone() });
                let placement = placement.expect("there is room");
                fleet.take(placement.host, placement.holding).expect("it is there");
            }
            times.push(start.elapsed());
        }
        println!(
            "- eight equal cells, {what}: p50 {:.3} ms, longest of {rounds} **{:.2} ms** (goal ≤ 20).",
            percentile(&mut times, 0.50),
            percentile(&mut times, 1.0)
        );
    }
}
