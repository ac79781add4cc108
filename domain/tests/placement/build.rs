//! Hosts and requests of tests, and chance that is the same for a seed.

use std::collections::BTreeSet;

use domain::{
    compute::placement::{
        Affinity, AgentState, Architecture, Availability, CardSwitch, Cell, Core, Device,
        DeviceAsk, Fill, HostFacts, HostId, Numa, Pages, Pinning, Relation, Request, ServerId,
        SwitchMode,
    },
    kernel::Id,
};
use uuid::Uuid;

pub(crate) fn host_id(number: u128) -> HostId {
    Id::new(Uuid::from_u128(number))
}

pub(crate) fn server_id(number: u128) -> ServerId {
    Id::new(Uuid::from_u128(number))
}

/// So many cores with so many threads each, numbered from `first`, four to a cache.
pub(crate) fn cores(first: u32, count: u32, threads: u32) -> Vec<Core> {
    let core = |at: u32| Core {
        threads: (0..threads).map(|thread| first + at * threads + thread).collect(),
        l3: Some((first + at * threads) / (4 * threads)),
    };
    (0..count).map(core).collect()
}

pub(crate) fn cell(id: u32, memory_mib: u64, cores: Vec<Core>) -> Cell {
    let (memory_reserved_mib, pages, distances) = (0, Vec::new(), Vec::new());
    Cell { id, memory_mib, memory_reserved_mib, pages, cores, distances }
}

pub(crate) fn with_pages(cell: Cell, size_kib: u32, count: u64) -> Cell {
    let mut pages = cell.pages.clone();
    pages.push(Pages { size_kib, count, others: 0 });
    pages.sort_by_key(|pages| pages.size_kib);
    Cell { pages, ..cell }
}

pub(crate) fn facts(id: u128, cells: Vec<Cell>) -> HostFacts {
    HostFacts {
        id: host_id(id),
        enabled: true,
        maintenance: false,
        agent: AgentState::Works,
        architecture: Architecture::X86_64,
        tags: BTreeSet::new(),
        labels: BTreeSet::new(),
        cpu_overcommit_percent: 100,
        memory_overcommit_percent: 100,
        cpus_reserved: BTreeSet::new(),
        cells,
        devices: Vec::new(),
    }
}

pub(crate) fn device(id: &str, kind: &str, model: &str, cell: Option<u32>) -> Device {
    let (id, kind, model) = (id.to_owned(), kind.to_owned(), model.to_owned());
    Device {
        id,
        kind,
        model,
        cell,
        iommu_group: None,
        controller: None,
        availability: Availability::Free,
        carrier: None,
        profile: None,
        switch: None,
    }
}

pub(crate) fn ask(kind: &str, model: Option<&str>, count: u32) -> DeviceAsk {
    let (kind, model) = (kind.to_owned(), model.map(str::to_owned));
    DeviceAsk { kind, model, carrier: None, represented: false, count, function: None }
}

pub(crate) fn request(server: u128, vcpus: u32, memory_mib: u64) -> Request {
    Request {
        server: server_id(server),
        architecture: Architecture::X86_64,
        vcpus,
        memory_mib,
        page_kib: None,
        numa: Numa::Strict,
        cells_min: 1,
        cells_max: 1,
        pinning: Pinning::Shared,
        devices: Vec::new(),
        tags_required: BTreeSet::new(),
        tags_forbidden: BTreeSet::new(),
        labels: BTreeSet::new(),
        affinities: Vec::new(),
        only: BTreeSet::new(),
        except: BTreeSet::new(),
        fill: Fill::Pack,
    }
}

/// Numbers that look like chance, the same for a seed (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// From 0, below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    pub(crate) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }

    /// Up to 3 cells of up to 4 cores, some of them strange.
    pub(crate) fn facts(&mut self, id: u128) -> HostFacts {
        let count = self.pick(&[1_u32, 2, 3, 3]);
        let (mut next, mut cells) = (0, Vec::new());
        let usual = 1 + self.roll(2) as u32;
        for number in 0..count {
            let mut cores = Vec::new();
            for _ in 0..self.pick(&[0_u32, 1, 2, 3, 3, 4, 4, 4]) {
                let threads = if self.one_in(8) { 1 + self.roll(2) as u32 } else { usual };
                let l3 = if self.one_in(3) { None } else { Some(self.roll(2) as u32) };
                cores.push(Core { threads: (next..next + threads).collect(), l3 });
                next += threads;
            }
            let mut cell = cell(number * 2, self.pick(&[0_u64, 2, 4, 6, 8, 8, 9, 9]), cores);
            if cell.memory_mib >= 4 && self.one_in(2) {
                cell = with_pages(cell, 2_048, 1 + self.roll(2));
            }
            if cell.memory_mib >= 6 && self.one_in(3) {
                cell = with_pages(cell, 64, 8 + self.roll(20));
            }
            if cell.memory_mib > 6 && self.one_in(4) {
                cell.memory_reserved_mib = 1;
            }
            if self.one_in(2) {
                cell.distances = (0..count)
                    .map(|other| if other == number { 10 } else { 12 + self.roll(3) as u32 })
                    .collect();
            }
            cells.push(cell);
        }
        let mut facts = facts(id, cells);
        facts.cpu_overcommit_percent = self.pick(&[100, 150, 200, 800]);
        facts.memory_overcommit_percent = self.pick(&[100, 100, 150]);
        for cpu in 0..next {
            if self.one_in(10) {
                facts.cpus_reserved.insert(cpu);
            }
        }
        for number in 0..self.roll(5) {
            let model = self.pick(&["a", "b"]);
            let place = self.roll(u64::from(count) + 1) as u32;
            let place = (place < count).then_some(place * 2);
            let kind = self.pick(&["gpu", "gpu", "nic", "usb"]);
            let mut device = device(&format!("{number}"), kind, model, place);
            device.carrier = self.pick(&[None, Some("br0"), Some("br1")]).map(str::to_owned);
            if device.carrier.is_some() && self.one_in(2) {
                let (mode, representor) = (SwitchMode::Switchdev, Some(format!("rep{number}")));
                device.switch = Some(CardSwitch { mode, representor, offloads: false });
            }
            device.iommu_group = self.one_in(2).then(|| self.roll(2) as u32);
            if kind == "usb" {
                device.iommu_group = None;
                let before: Vec<_> = facts.devices.iter().filter(|one| one.kind != "usb").collect();
                let at = self.roll(before.len() as u64 + 1) as usize;
                // Now and then on one that is not there, or on none.
                device.controller = before.get(at).map(|one| one.id.clone());
                if device.controller.is_none() && self.one_in(2) {
                    device.controller = Some("none".to_owned());
                }
            }
            let (free, reserved, lost) =
                (Availability::Free, Availability::Reserved, Availability::Lost);
            device.availability = self.pick(&[free, free, free, free, free, reserved, lost]);
            facts.devices.push(device);
        }
        facts
    }

    pub(crate) fn request(&mut self, server: u128) -> Request {
        let memory = 1 + self.roll(10);
        let mut request = request(server, 1 + self.roll(7) as u32, memory);
        request.page_kib = self.pick(&[None, None, None, Some(2_048), Some(64)]);
        if request.page_kib == Some(2_048) {
            request.memory_mib = memory.next_multiple_of(2);
        }
        request.numa = self.pick(&[Numa::Strict, Numa::Strict, Numa::BestEffort, Numa::None]);
        request.cells_max = 1 + self.roll(3) as u32;
        request.fill = self.pick(&[Fill::Pack, Fill::Spread]);
        request.pinning = match self.roll(8) {
            0 | 1 => Pinning::Cores {},
            2 | 3 => Pinning::Siblings {},
            4 => {
                let mut cpus: Vec<u32> = (0..24).collect();
                let most = self.pick(&[3, 6, 9, 14]);
                for at in 0..most as usize {
                    cpus.swap(at, self.roll(most) as usize);
                }
                cpus.truncate(request.vcpus as usize);
                Pinning::Manual { cpus }
            }
            _ => Pinning::Shared,
        };
        for _ in 0..self.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]) {
            let model = self.pick(&[None, Some("a"), Some("b")]);
            let (kind, count) = (self.pick(&["gpu", "gpu", "nic", "usb"]), 1 + self.roll(2) as u32);
            request.devices.push(ask(kind, model, count));
        }
        // By model or by wire, and not by both.
        if self.one_in(3) {
            for ask in &mut request.devices {
                ask.model = None;
                ask.carrier = self.pick(&[None, Some("br0"), Some("br1")]).map(str::to_owned);
                ask.represented = ask.carrier.is_some() && self.one_in(2);
            }
        }
        request
    }

    /// A request with an affinity to one of few groups.
    pub(crate) fn sociable(&mut self, server: u128) -> Request {
        let mut request = self.request(server);
        if self.one_in(2) {
            request.affinities.push(Affinity {
                group: Uuid::from_u128(u128::from(self.roll(3))),
                relation: self.pick(&[Relation::Apart, Relation::Together]),
                hard: self.one_in(2),
            });
        }
        request
    }
}
