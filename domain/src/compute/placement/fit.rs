//! Whether a host has room for a request, and in how many cells. Exact, and without a search: see
//! [`Split`].

use super::{
    facts::THREADS_MAX,
    host::Host,
    reason::Reason,
    request::{Numa, Pinning, Request},
    room::{CellRoom, Room},
};

/// How a request fits a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    pub(super) way: Way,
    /// How many threads each core has that it gets for itself; 0 when it shares CPUs.
    pub(super) threads: u8,
    /// Whether it was to be in cells and has no place in such.
    pub(super) irregular: bool,
}

/// Where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// In so many cells.
    Cells(u32),
    /// Where the kernel likes.
    Floating,
    /// On the CPUs that are named, in so many cells.
    Named(u32),
}

impl Way {
    /// How many cells; a floating one is in none.
    pub(super) fn cells(self) -> u32 {
        match self {
            Self::Cells(cells) | Self::Named(cells) => cells,
            Self::Floating => 0,
        }
    }
}

/// A request cut into parts, as even as whole units allow: the first `cpu_rest` parts have one unit
/// of CPUs more, the first `memory_rest` one unit of memory more. So each part is at least as large
/// as the next in both, and a cell that holds one holds all later ones. By Hall's theorem cells hold
/// all parts when, for each size, at least as many cells hold it as there are parts of that size or
/// larger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub(super) parts: u32,
    cpus: u32,
    cpu_rest: u32,
    memory: u64,
    memory_rest: u32,
}

impl Split {
    pub(super) fn new(cpus: u32, memory: u64, parts: u32) -> Self {
        Self {
            parts,
            cpus: cpus / parts,
            cpu_rest: cpus % parts,
            memory: memory / u64::from(parts),
            memory_rest: (memory % u64::from(parts)) as u32,
        }
    }

    /// A part: units of CPUs and of memory.
    pub(super) fn part(&self, at: u32) -> (u32, u64) {
        (self.cpus + u32::from(at < self.cpu_rest), self.memory + u64::from(at < self.memory_rest))
    }

    /// Each size with how many parts are at least as large, largest first.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (u32, u32, u64)> {
        let (few, more) =
            (self.cpu_rest.min(self.memory_rest), self.cpu_rest.max(self.memory_rest));
        let ends = [(few, 0), (more, few), (self.parts, more)];
        let split = *self;
        ends.into_iter().filter(|(count, before)| count > before).map(move |(count, before)| {
            let (cpus, memory) = split.part(before);
            (count, cpus, memory)
        })
    }
}

/// What a part asks of a cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sort {
    /// As in [`Fit::threads`].
    pub(super) threads: u8,
    /// The place of the size of its pages, when it is in such.
    pub(super) slot: Option<usize>,
    /// MiB or pages of one unit of memory.
    pub(super) unit: u64,
}

impl Sort {
    /// None when the host has no pages of that size.
    pub(super) fn new(room: &Room, request: &Request, threads: u8) -> Option<Self> {
        Some(match request.page_kib {
            Some(kib) => Self { threads, slot: Some(room.slot(kib)?), unit: request.pages(1) },
            None => Self { threads, slot: None, unit: 1 },
        })
    }

    /// Units of CPUs a cell has for it.
    pub(super) fn cpus(self, cell: &CellRoom) -> u32 {
        match self.threads {
            0 => cell.vcpus,
            threads => {
                let cores = cell.cores[usize::from(threads)];
                u32::from(cores).min(cell.spare_cpus / u32::from(threads))
            }
        }
    }

    /// Units of memory a cell has for it.
    pub(super) fn memory(self, cell: &CellRoom) -> u64 {
        self.slot.map_or(cell.memory_mib, |slot| u64::from(cell.pages[slot])) / self.unit
    }

    pub(super) fn holds(self, cell: &CellRoom, (cpus, memory): (u32, u64)) -> bool {
        self.cpus(cell) >= cpus && self.memory(cell) >= memory
    }
}

/// How many threads the cores may have that are taken, in the order they are tried.
fn thread_counts(request: &Request) -> &'static [u8] {
    const { assert!(THREADS_MAX == 8, "all of them are listed") };
    match request.pinning {
        Pinning::Shared => &[0],
        // The fewest threads stay idle.
        Pinning::Cores {} => &[1, 2, 3, 4, 5, 6, 7, 8],
        // The most siblings are together.
        Pinning::Siblings {} => &[8, 7, 6, 5, 4, 3, 2, 1],
        Pinning::Manual { .. } => &[],
    }
}

/// What its CPUs are cut into: virtual CPUs, or cores.
pub(super) fn cpu_units(request: &Request, threads: u8) -> u32 {
    match request.pinning {
        Pinning::Siblings {} => request.vcpus.div_ceil(u32::from(threads.max(1))),
        _ => request.vcpus,
    }
}

/// Whether the host has room; otherwise why not, told in full when `all`.
pub(super) fn fit(host: &Host, request: &Request, all: bool, no: &mut Vec<Reason>) -> Option<Fit> {
    if let Pinning::Manual { cpus } = &request.pinning {
        return super::assign::named_cells(host, request, cpus, no);
    }
    let room = host.room();
    let threads = cpus_in_all(room, request).map_err(|reason| no.push(reason)).ok();
    if threads.is_none() && !all {
        return None;
    }
    if let Some(reason) = memory_in_all(room, request) {
        no.push(reason);
        return None;
    }
    let floating = Fit { way: Way::Floating, threads: threads?, irregular: false };
    if request.numa == Numa::None {
        return Some(floating);
    }
    match fewest_cells(room, request) {
        Ok(fit) => Some(fit),
        Err(_) if request.numa == Numa::BestEffort => Some(Fit { irregular: true, ..floating }),
        Err(reason) => {
            no.push(reason);
            None
        }
    }
}

/// Whether the host as a whole has the CPUs, and of how many threads the cores then are.
fn cpus_in_all(room: &Room, request: &Request) -> Result<u8, Reason> {
    if request.pinning == Pinning::Shared {
        let (asked, free) = (request.vcpus, room.vcpus);
        return if asked <= free { Ok(0) } else { Err(Reason::Vcpus { asked, free }) };
    }
    let mut best: Option<(u32, Reason)> = None;
    for &threads in thread_counts(request) {
        let sort = Sort { threads, slot: None, unit: 1 };
        let free: u32 = room.cells.iter().map(|cell| sort.cpus(cell)).sum();
        let (asked, each) = (cpu_units(request, threads), u32::from(threads));
        let reason = if asked > free {
            Reason::Cores { asked, free, threads: each }
        } else if asked * each > room.spare_cpus {
            Reason::Squeezed { asked: asked * each, free: room.spare_cpus }
        } else {
            return Ok(threads);
        };
        // The cores that would give the most are told of.
        if best.as_ref().is_none_or(|(most, _)| free * each > *most) {
            best = Some((free * each, reason));
        }
    }
    let none = || Reason::Cores { asked: request.vcpus, free: 0, threads: 1 };
    Err(best.map_or_else(none, |(_, reason)| reason))
}

fn memory_in_all(room: &Room, request: &Request) -> Option<Reason> {
    if let Some(size_kib) = request.page_kib {
        // A unit may be several small pages, which lie in one cell.
        let units = Sort::new(room, request, 0)
            .map_or(0, |sort| room.cells.iter().map(|cell| sort.memory(cell)).sum());
        let (asked, free) = (request.pages(request.units()), request.pages(units));
        return (asked > free).then_some(Reason::Pages { size_kib, asked, free });
    }
    let (asked_mib, free_mib) = (request.memory_mib, room.memory_mib);
    (asked_mib > free_mib).then_some(Reason::Memory { asked_mib, free_mib })
}

/// The smallest number of cells that hold it, and that it may be cut over. The host as a whole has room.
fn fewest_cells(room: &Room, request: &Request) -> Result<Fit, Reason> {
    let memory = request.units();
    let most = request.cells_max.min(room.cells.len() as u32);
    let most = u32::try_from(memory).map_or(most, |memory| most.min(memory));
    let mut why = None;
    for parts in request.cells_min..=most {
        for &threads in thread_counts(request) {
            let cpus = cpu_units(request, threads);
            if cpus < parts || cpus * u32::from(threads) > room.spare_cpus {
                continue;
            }
            let Some(sort) = Sort::new(room, request, threads) else { continue };
            let split = Split::new(cpus, memory, parts);
            let short = split.sizes().find_map(|(asked, cpus, memory)| {
                let holds = |cell: &&CellRoom| sort.holds(cell, (cpus, memory));
                let fitting = room.cells.iter().filter(holds).count() as u32;
                (fitting < asked).then(|| Reason::Cells {
                    cells: parts,
                    asked,
                    fitting,
                    cpus,
                    threads: threads.into(),
                    memory_mib: memory * request.unit_mib(),
                })
            });
            match short {
                None => {
                    return Ok(Fit { way: Way::Cells(parts), threads, irregular: false });
                }
                Some(reason) => why = Some(reason),
            }
        }
    }
    Err(why.unwrap_or(Reason::Cells {
        cells: 1,
        asked: 1,
        fitting: 0,
        cpus: request.vcpus,
        threads: 0,
        memory_mib: request.memory_mib,
    }))
}
