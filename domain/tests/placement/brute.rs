//! The rules of placement said once more, as slowly and plainly as possible: what may be held at
//! the same time, and every way a request could be met.

use std::collections::{BTreeMap, BTreeSet};

use domain::compute::placement::{
    Availability, Cell, CellHolding, Core, Device, DeviceAsk, Holding, HostFacts, Numa, Pin,
    Pinning, Reason, Request,
};

/// What is held together, against what there is.
pub(crate) struct Books<'a> {
    pub(crate) facts: &'a HostFacts,
    pub(crate) holdings: Vec<Holding>,
}

impl Books<'_> {
    fn held_cpus(&self) -> BTreeSet<u32> {
        self.holdings.iter().flat_map(|holding| holding.cpus.iter().copied()).collect()
    }

    /// Logical CPUs of a cell that are shared.
    fn shared(&self, cell: &Cell) -> u64 {
        let held = self.held_cpus();
        let cpus = cell.cores.iter().flat_map(|core| &core.threads);
        let open = |cpu: &&u32| !held.contains(cpu) && !self.facts.cpus_reserved.contains(cpu);
        cpus.filter(open).count() as u64
    }

    fn parts(&self, cell: u32) -> impl Iterator<Item = (&Holding, &CellHolding)> {
        let all =
            self.holdings.iter().flat_map(|one| one.cells.iter().map(move |part| (one, part)));
        all.filter(move |(_, part)| part.cell == cell)
    }

    fn vcpus(&self, cell: u32) -> u64 {
        let parts = self.parts(cell).filter(|(holding, _)| holding.pins.is_empty());
        parts.map(|(_, part)| u64::from(part.vcpus)).sum()
    }

    fn vcpus_in_all(&self) -> u64 {
        let shared = self.holdings.iter().filter(|holding| holding.pins.is_empty());
        shared.map(|holding| u64::from(holding.vcpus)).sum()
    }

    fn percent(&self) -> u64 {
        self.facts.cpu_overcommit_percent.into()
    }

    fn memory(&self, cell: &Cell) -> u64 {
        let pages_kib: u64 =
            cell.pages.iter().map(|pages| u64::from(pages.size_kib) * pages.count).sum();
        let usable = (cell.memory_mib * 1_024 - pages_kib) / 1_024 - cell.memory_reserved_mib;
        let huge = self.facts.cells.iter().any(|cell| !cell.pages.is_empty());
        let percent = if huge { 100 } else { self.facts.memory_overcommit_percent };
        usable * u64::from(percent) / 100
    }

    fn memory_used(&self, cell: u32) -> u64 {
        let parts = self.parts(cell).filter(|(holding, _)| holding.page_kib.is_none());
        parts.map(|(_, part)| part.memory_mib).sum()
    }

    fn memory_free_in_all(&self) -> i128 {
        let there: u64 = self.facts.cells.iter().map(|cell| self.memory(cell)).sum();
        let plain = self.holdings.iter().filter(|holding| holding.page_kib.is_none());
        let used: u64 = plain.map(|holding| holding.memory_mib).sum();
        i128::from(there) - i128::from(used)
    }

    fn pages_free(&self, cell: &Cell, kib: u32) -> i128 {
        let there: u64 = cell
            .pages
            .iter()
            .filter(|one| one.size_kib == kib)
            .map(|one| one.count - one.others)
            .sum();
        let parts = self.parts(cell.id).filter(|(holding, _)| holding.page_kib == Some(kib));
        i128::from(there) - parts.map(|(_, part)| i128::from(part.pages)).sum::<i128>()
    }

    fn device_is_free(&self, id: &str) -> bool {
        let holds =
            |one: &Holding, id: &str| one.devices.contains(id) || one.devices_with.contains(id);
        let device = self.facts.devices.iter().find(|device| device.id == id).unwrap();
        let of_group: Vec<_> = self
            .facts
            .devices
            .iter()
            .filter(|other| {
                other.id == id
                    || (device.iommu_group.is_some() && other.iommu_group == device.iommu_group)
            })
            .collect();
        let held = |id: &str| self.holdings.iter().any(|one| holds(one, id));
        let is_used = |controller: &Device| {
            let on = |one: &&Device| one.controller.as_ref() == Some(&controller.id);
            let mut on = self.facts.devices.iter().filter(on);
            on.any(|one| one.availability == Availability::Reserved || held(&one.id))
        };
        device.availability == Availability::Free
            && !of_group.iter().any(|other| is_used(other))
            && !device.controller.as_ref().is_some_and(|controller| held(controller))
            && of_group.iter().all(|other| {
                other.availability != Availability::Reserved
                    && !self.holdings.iter().any(|one| holds(one, &other.id))
            })
    }

    /// Whether all this can be held at the same time.
    pub(crate) fn balance(&self) -> bool {
        let (mut cpus, mut devices) = (BTreeSet::new(), BTreeSet::new());
        let (mut shared, facts) = (0, self.facts);
        for holding in &self.holdings {
            let whole = |core: &&Core| core.threads.iter().any(|cpu| holding.cpus.contains(cpu));
            let all: BTreeSet<u32> = facts
                .cells
                .iter()
                .flat_map(|cell| &cell.cores)
                .filter(whole)
                .flat_map(|core| core.threads.iter().copied())
                .collect();
            let mine = holding.cpus.iter();
            if all != holding.cpus
                || !mine.clone().all(|cpu| cpus.insert(*cpu) && !facts.cpus_reserved.contains(cpu))
                || !holding.devices.union(&holding.devices_with).all(|one| devices.insert(one))
            {
                return false;
            }
        }
        for cell in &facts.cells {
            let kibs: BTreeSet<u32> = self.holdings.iter().filter_map(|one| one.page_kib).collect();
            if self.vcpus(cell.id) * 100 > self.shared(cell) * self.percent()
                || self.memory_used(cell.id) > self.memory(cell)
                || kibs.into_iter().any(|kib| self.pages_free(cell, kib) < 0)
            {
                return false;
            }
            shared += self.shared(cell);
        }
        self.vcpus_in_all() * 100 <= shared * self.percent() && self.memory_free_in_all() >= 0
    }

    fn and(&self, holding: &Holding) -> Books<'_> {
        let holdings = self.holdings.iter().chain([holding]).cloned().collect();
        Books { facts: self.facts, holdings }
    }

    /// Free cores of a cell with so many threads.
    fn free_cores(&self, cell: &Cell, threads: usize) -> Vec<Core> {
        let held = self.held_cpus();
        let open = |cpu: &u32| !held.contains(cpu) && !self.facts.cpus_reserved.contains(cpu);
        let free = |core: &&Core| core.threads.len() == threads && core.threads.iter().all(open);
        cell.cores.iter().filter(free).cloned().collect()
    }

    /// Whether the devices are there: every choice is tried.
    fn devices(&self, request: &Request) -> bool {
        let asked: Vec<_> = request
            .devices
            .iter()
            .flat_map(|ask| std::iter::repeat_n(ask, ask.count as usize))
            .collect();
        let free: Vec<_> =
            self.facts.devices.iter().filter(|device| self.device_is_free(&device.id)).collect();
        choose(&asked, &free, &|chosen| self.is_apart(chosen))
    }

    /// Whether none of these hangs on another, or on what goes with it.
    fn is_apart(&self, chosen: &[&Device]) -> bool {
        let goes = |controller: &String| {
            let group = self.facts.devices.iter().find(|one| one.id == *controller);
            let group = group.and_then(|one| one.iommu_group);
            chosen
                .iter()
                .any(|one| one.id == *controller || (group.is_some() && one.iommu_group == group))
        };
        !chosen.iter().any(|one| one.controller.as_ref().is_some_and(goes))
    }

    /// The fewest cells it can lie in, strictly; 0 when it may be anywhere. None when it fits not.
    pub(crate) fn fewest(&self, request: &Request) -> Option<(u32, bool)> {
        if !self.devices(request) {
            return None;
        }
        if request.numa != Numa::None {
            let strict =
                (1..=request.cells_max as usize).find(|parts| self.fits_in(request, *parts));
            if let Some(parts) = strict {
                return Some((parts as u32, false));
            }
        }
        let irregular = request.numa == Numa::BestEffort;
        (request.numa != Numa::Strict && self.fits_anywhere(request)).then_some((0, irregular))
    }

    fn fits_in(&self, request: &Request, parts: usize) -> bool {
        if let Pinning::Manual { cpus } = &request.pinning {
            let cells = self.cells_of(cpus);
            return cells.is_some_and(|cells| {
                cells.len() == parts
                    && request.units() >= parts as u64
                    && self.and(&named(self.facts, request, cpus, &cells)).balance()
            });
        }
        ways(request).into_iter().any(|(threads, cores)| {
            let split = shares(cores, request.units(), parts);
            let Some(split) = split else { return false };
            tuples(self.facts.cells.len(), parts).into_iter().any(|cells| {
                let mut holding = plain(request);
                for (at, (cpus, units)) in cells.iter().zip(&split) {
                    let cell = &self.facts.cells[*at];
                    holding.cells.push(CellHolding {
                        cell: cell.id,
                        vcpus: *cpus as u32,
                        memory_mib: units * request.unit_mib(),
                        pages: units * request.pages_per_unit(),
                    });
                    if !self.take_cores(&mut holding, cell, threads, *cpus as usize) {
                        return false;
                    }
                }
                self.and(&holding).balance()
            })
        })
    }

    fn take_cores(&self, holding: &mut Holding, cell: &Cell, threads: usize, count: usize) -> bool {
        if threads == 0 {
            return true;
        }
        let free = self.free_cores(cell, threads);
        if free.len() < count {
            return false;
        }
        holding.cpus.extend(free[..count].iter().flat_map(|core| core.threads.iter().copied()));
        let pins = holding.cpus.iter().zip(0..);
        holding.pins = pins.map(|(cpu, vcpu)| Pin { vcpu, cpu: *cpu }).collect();
        true
    }

    fn fits_anywhere(&self, request: &Request) -> bool {
        let cells = &self.facts.cells;
        if let Pinning::Manual { cpus } = &request.pinning {
            let Some(there) = self.cells_of(cpus) else { return false };
            let mut holding = named(self.facts, request, cpus, &there);
            return spreads(request.units(), cells.len()).into_iter().any(|units| {
                holding.cells = self.pages_of(request, &units);
                self.and(&holding).balance()
            });
        }
        ways(request).into_iter().any(|(threads, cores)| {
            let cpus = if threads == 0 {
                vec![vec![0; cells.len()]]
            } else {
                spreads(cores as u64, cells.len())
            };
            cpus.into_iter().any(|cpus| {
                let mut holding = plain(request);
                let taken = cells.iter().zip(&cpus).all(|(cell, count)| {
                    self.take_cores(&mut holding, cell, threads, *count as usize)
                });
                taken
                    && spreads(request.units(), cells.len()).into_iter().any(|units| {
                        holding.cells = self.pages_of(request, &units);
                        self.and(&holding).balance()
                    })
            })
        })
    }

    fn pages_of(&self, request: &Request, units: &[u64]) -> Vec<CellHolding> {
        if request.page_kib.is_none() {
            return Vec::new();
        }
        let part = |(cell, units): (&Cell, &u64)| CellHolding {
            cell: cell.id,
            vcpus: 0,
            memory_mib: units * request.unit_mib(),
            pages: units * request.pages_per_unit(),
        };
        self.facts.cells.iter().zip(units).map(part).collect()
    }

    /// The cells of named CPUs with how many are in each; none when one is not there.
    fn cells_of(&self, cpus: &[u32]) -> Option<BTreeMap<u32, u64>> {
        let mut cells = BTreeMap::new();
        for cpu in cpus {
            let cell = self
                .facts
                .cells
                .iter()
                .find(|cell| cell.cores.iter().any(|core| core.threads.contains(cpu)))?;
            *cells.entry(cell.id).or_default() += 1;
        }
        Some(cells)
    }

    /// Whether what is said of a host that does not take the request is so.
    pub(crate) fn is_true(&self, request: &Request, reason: &Reason) -> bool {
        let facts = self.facts;
        let cell_of = |id: u32| facts.cells.iter().find(|cell| cell.id == id).unwrap();
        let shared: u64 = facts.cells.iter().map(|cell| self.shared(cell)).sum();
        let spare = |cell: &Cell| {
            let needed = (self.vcpus(cell.id) * 100).div_ceil(self.percent());
            self.shared(cell).saturating_sub(needed)
        };
        let spare_in_all =
            shared.saturating_sub((self.vcpus_in_all() * 100).div_ceil(self.percent()));
        let cores_of = |cell: &Cell, threads: u64| {
            (self.free_cores(cell, threads as usize).len() as u64).min(spare(cell) / threads)
        };
        match reason {
            Reason::Vcpus { asked, free } => {
                let there = shared * self.percent() / 100;
                *asked == request.vcpus
                    && u64::from(*free) == there.saturating_sub(self.vcpus_in_all())
                    && asked > free
            }
            Reason::Memory { asked_mib, free_mib } => {
                *asked_mib == request.memory_mib
                    && i128::from(*free_mib) == self.memory_free_in_all().max(0)
                    && asked_mib > free_mib
            }
            Reason::Pages { size_kib, asked, free } => {
                let each = i128::from(request.pages_per_unit());
                let units: i128 =
                    facts.cells.iter().map(|cell| self.pages_free(cell, *size_kib) / each).sum();
                u128::from(*free) as i128 == units * each
                    && *asked == request.units() * request.pages_per_unit()
                    && asked > free
            }
            Reason::Cores { asked, free, threads } => {
                let there: u64 =
                    facts.cells.iter().map(|cell| cores_of(cell, (*threads).into())).sum();
                ways(request).contains(&(*threads as usize, *asked as usize))
                    && there == u64::from(*free)
                    && asked > free
            }
            Reason::Squeezed { asked, free } => {
                let cells = facts.cells.iter().map(spare).chain([spare_in_all]);
                cells.into_iter().any(|spare| spare == u64::from(*free)) && asked > free
            }
            Reason::Cells { cells, asked, fitting, cpus, threads, memory_mib } => {
                let way = ways(request).into_iter().find(|way| way.0 == *threads as usize).unwrap();
                let split = shares(way.1, request.units(), *cells as usize).unwrap();
                let units = memory_mib / request.unit_mib();
                let as_large =
                    split.iter().filter(|(c, m)| *c >= u64::from(*cpus) && *m >= units).count();
                let holds = |cell: &&Cell| {
                    let room = if *threads == 0 {
                        (self.shared(cell) * self.percent() / 100)
                            .saturating_sub(self.vcpus(cell.id))
                    } else {
                        cores_of(cell, (*threads).into())
                    };
                    let memory = match request.page_kib {
                        Some(kib) => {
                            self.pages_free(cell, kib) / i128::from(request.pages_per_unit())
                        }
                        None => {
                            i128::from(self.memory(cell).saturating_sub(self.memory_used(cell.id)))
                        }
                    };
                    room >= u64::from(*cpus) && memory >= i128::from(units)
                };
                as_large == *asked as usize
                    && facts.cells.iter().filter(holds).count() == *fitting as usize
                    && fitting < asked
            }
            Reason::Devices { kind, model, carrier, represented, asked, free } => {
                let fits = |one: &&Device| {
                    one.kind == *kind
                        && model.as_ref().is_none_or(|model| *model == one.model)
                        && (carrier.is_none() || *carrier == one.carrier)
                        && (!represented || is_represented(one))
                };
                let there = facts.devices.iter().filter(|one| self.device_is_free(&one.id));
                let there = there.filter(fits).count();
                let wanted = request.devices.iter().filter(|one| {
                    one.kind == *kind
                        && (model.is_none() || one.model == *model)
                        && (carrier.is_none() || one.carrier == *carrier)
                        && (!represented || one.represented)
                });
                wanted.map(|one| one.count).sum::<u32>() == *asked
                    && there == *free as usize
                    && asked > free
            }
            Reason::UsbDevices { asked, left } => {
                let wanted = request.devices.iter().filter(|one| one.kind == "usb");
                wanted.map(|one| one.count).sum::<u32>() == *asked && left < asked
            }
            Reason::CpuUnknown { cpu } => !facts
                .cells
                .iter()
                .any(|cell| cell.cores.iter().any(|core| core.threads.contains(cpu))),
            Reason::CpuReserved { cpu } => {
                let cores = facts.cells.iter().flat_map(|cell| &cell.cores);
                let core = cores.into_iter().find(|core| core.threads.contains(cpu)).unwrap();
                core.threads.iter().any(|cpu| facts.cpus_reserved.contains(cpu))
            }
            Reason::CpuHeld { cpu, server } => self
                .holdings
                .iter()
                .any(|holding| holding.server == *server && holding.cpus.contains(cpu)),
            Reason::PinnedCells { allowed, cells } => {
                let Pinning::Manual { cpus } = &request.pinning else { return false };
                self.cells_of(cpus).unwrap().len() == *cells as usize
                    && allowed < cells
                    && (*allowed == request.cells_max || u64::from(*allowed) == request.units())
            }
            Reason::CellMemory { cell, asked_mib, free_mib } => {
                let cell = cell_of(*cell);
                self.memory(cell).saturating_sub(self.memory_used(cell.id)) == *free_mib
                    && asked_mib > free_mib
            }
            Reason::CellPages { cell, size_kib, asked, free } => {
                self.pages_free(cell_of(*cell), *size_kib) == i128::from(*free) && asked > free
            }
            Reason::CellVcpus { cell, asked, free } => {
                let cell = cell_of(*cell);
                let there = self.shared(cell) * self.percent() / 100;
                there.saturating_sub(self.vcpus(cell.id)) == u64::from(*free) && asked > free
            }
            _ => false,
        }
    }
}

/// Whether each of what is asked for gets a device of its own.
fn choose<'a>(
    asked: &[&DeviceAsk],
    free: &[&'a Device],
    is_one: &dyn Fn(&[&'a Device]) -> bool,
) -> bool {
    try_all(asked, free, &mut Vec::new(), is_one)
}

fn try_all<'a>(
    asked: &[&DeviceAsk],
    free: &[&'a Device],
    chosen: &mut Vec<&'a Device>,
    is_one: &dyn Fn(&[&'a Device]) -> bool,
) -> bool {
    let Some((first, rest)) = asked.split_first() else { return is_one(chosen) };
    (0..free.len()).any(|at| {
        let device = free[at];
        let fits = device.kind == first.kind
            && first.model.as_ref().is_none_or(|model| *model == device.model)
            && (first.carrier.is_none() || first.carrier == device.carrier)
            && (!first.represented || is_represented(device));
        let mut left = free.to_vec();
        left.remove(at);
        chosen.push(device);
        let done = fits && try_all(rest, &left, chosen, is_one);
        chosen.pop();
        done
    })
}

fn is_represented(device: &Device) -> bool {
    device.switch.as_ref().is_some_and(|switch| switch.representor.is_some())
}

/// What a request is cut into; plain words for what the code under test has too.
trait Units {
    fn unit_mib(&self) -> u64;
    fn units(&self) -> u64;
    fn pages_per_unit(&self) -> u64;
}

impl Units for Request {
    fn unit_mib(&self) -> u64 {
        match self.page_kib {
            Some(kib) if kib > 1_024 => u64::from(kib) / 1_024,
            _ => 1,
        }
    }
    fn units(&self) -> u64 {
        self.memory_mib / self.unit_mib()
    }
    fn pages_per_unit(&self) -> u64 {
        match self.page_kib {
            Some(kib) if kib < 1_024 => 1_024 / u64::from(kib),
            Some(_) => 1,
            None => 0,
        }
    }
}

/// How many threads its cores may have (0: it shares), and how many cores or virtual CPUs that is.
fn ways(request: &Request) -> Vec<(usize, usize)> {
    let vcpus = request.vcpus as usize;
    match request.pinning {
        Pinning::Shared => vec![(0, vcpus)],
        Pinning::Cores {} => (1..=8).map(|threads| (threads, vcpus)).collect(),
        Pinning::Siblings {} => (1..=8).map(|threads| (threads, vcpus.div_ceil(threads))).collect(),
        Pinning::Manual { .. } => Vec::new(),
    }
}

/// Units dealt out one by one; none when somebody goes without.
fn shares(cpus: usize, units: u64, parts: usize) -> Option<Vec<(u64, u64)>> {
    let mut out = vec![(0, 0); parts];
    for at in 0..cpus {
        out[at % parts].0 += 1;
    }
    for at in 0..units {
        out[at as usize % parts].1 += 1;
    }
    out.iter().all(|(cpus, units)| *cpus > 0 && *units > 0).then_some(out)
}

/// Every way to give `parts` things different ones of `from` cells.
fn tuples(from: usize, parts: usize) -> Vec<Vec<usize>> {
    if parts == 0 {
        return vec![Vec::new()];
    }
    let shorter = tuples(from, parts - 1);
    let longer = shorter.iter().flat_map(|one| (0..from).map(move |last| (one, last)));
    longer
        .filter(|(one, last)| !one.contains(last))
        .map(|(one, last)| one.iter().copied().chain([last]).collect())
        .collect()
}

/// Every way to deal so many units to so many cells.
fn spreads(units: u64, cells: usize) -> Vec<Vec<u64>> {
    match cells {
        0 => Vec::new(),
        1 => vec![vec![units]],
        _ => (0..=units)
            .flat_map(|first| {
                spreads(units - first, cells - 1)
                    .into_iter()
                    .map(move |rest| [first].into_iter().chain(rest).collect())
            })
            .collect(),
    }
}

fn plain(request: &Request) -> Holding {
    Holding {
        server: request.server,
        vcpus: request.vcpus,
        memory_mib: request.memory_mib,
        page_kib: request.page_kib,
        cells: Vec::new(),
        pins: Vec::new(),
        cpus: BTreeSet::new(),
        threads: None,
        devices: BTreeSet::new(),
        functions: BTreeMap::new(),
        models: BTreeMap::new(),
        devices_with: BTreeSet::new(),
        groups: BTreeSet::new(),
    }
}

fn named(
    facts: &HostFacts,
    request: &Request,
    cpus: &[u32],
    cells: &BTreeMap<u32, u64>,
) -> Holding {
    let mut holding = plain(request);
    holding.pins = cpus.iter().zip(0..).map(|(cpu, vcpu)| Pin { vcpu, cpu: *cpu }).collect();
    for core in facts.cells.iter().flat_map(|cell| &cell.cores) {
        if core.threads.iter().any(|cpu| cpus.contains(cpu)) {
            holding.cpus.extend(&core.threads);
        }
    }
    let mut most: Vec<_> = cells.iter().collect();
    most.sort_by_key(|(cell, count)| (std::cmp::Reverse(**count), **cell));
    let mut units = vec![0; most.len()];
    for at in 0..request.units() {
        units[at as usize % most.len()] += 1;
    }
    for ((cell, count), units) in most.into_iter().zip(units) {
        holding.cells.push(CellHolding {
            cell: *cell,
            vcpus: *count as u32,
            memory_mib: units * request.unit_mib(),
            pages: units * request.pages_per_unit(),
        });
    }
    holding.cells.sort_by_key(|cell| cell.cell);
    holding
}
