//! What exactly a server gets of the host it goes to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    cells::{self, SETS_MAX},
    choice,
    fit::{Fit, Sort, Split, Way, cpu_units},
    holding::{CellHolding, Holding, Pin},
    host::Host,
    reason::Reason,
    request::{Numa, Pinning, Request},
};

/// A part of a server in one cell: the place of the cell, units of CPUs, units of memory.
type Part = (usize, u32, u64);

/// What the server gets. None never, when `fit` is what [`super::fit::fit`] said of this host.
pub(super) fn assign(host: &Host, request: &Request, fit: Fit) -> Option<Holding> {
    let room = host.room();
    let sort = Sort::new(room, request, fit.threads)?;
    let mut holding = Holding::of(request);
    holding.groups = request.affinities.iter().map(|affinity| affinity.group).collect();
    let parts = match (&request.pinning, fit.way) {
        (Pinning::Manual { cpus }, way) => {
            name_cpus(host, cpus, &mut holding);
            match way {
                Way::Named(_) => named_parts(host, request, cpus),
                _ => Vec::new(),
            }
        }
        (_, Way::Cells(parts)) => {
            let split = Split::new(cpu_units(request, fit.threads), request.units(), parts);
            let chosen = cells::choose(host, request, &split, sort, &mut SETS_MAX.clone())?;
            let parts = spread_parts(host, &split, sort, &chosen.cells)?;
            pin(host, request, fit.threads, &parts, &mut holding);
            parts
        }
        (_, _) => {
            let parts = floating_cpus(host, request, sort);
            pin(host, request, fit.threads, &parts, &mut holding);
            Vec::new()
        }
    };
    let mut places: Vec<usize> = parts.iter().map(|part| part.0).collect();
    if parts.is_empty() {
        if request.page_kib.is_some() {
            floating_pages(host, request, sort, &mut holding);
        }
        let pinned = holding.cpus.iter().filter_map(|cpu| host.cpu(*cpu));
        places = pinned.map(|(cell, _)| cell).collect::<BTreeSet<_>>().into_iter().collect();
        if places.is_empty() {
            places = (0..room.cells.len()).collect();
        }
    } else {
        let vcpus = vcpus_of(request, fit.threads, &parts);
        holding.cells = parts
            .iter()
            .zip(vcpus)
            .map(|((cell, _, units), vcpus)| part_of(host, request, *cell, vcpus, *units))
            .collect();
    }
    holding.threads = siblings(host, &holding.pins);
    give_devices(host, request, &places, &mut holding)?;
    Some(holding)
}

fn part_of(host: &Host, request: &Request, cell: usize, vcpus: u32, units: u64) -> CellHolding {
    CellHolding {
        cell: host.facts().cells[cell].id,
        vcpus,
        memory_mib: units * request.unit_mib(),
        pages: request.pages(units),
    }
}

/// Which part goes to which cell of a set that holds them: the largest part to the cell where the
/// most is free. Each cell that holds a part holds all later ones, so none is left over.
fn spread_parts(host: &Host, split: &Split, sort: Sort, set: &[usize]) -> Option<Vec<Part>> {
    let room = host.room();
    let mut left: Vec<usize> = set.to_vec();
    let mut out = Vec::new();
    for at in 0..split.parts {
        let part = split.part(at);
        let found = (0..left.len())
            .filter(|at| sort.holds(&room.cells[left[*at]], part))
            .max_by_key(|at| (sort.memory(&room.cells[left[*at]]), std::cmp::Reverse(left[*at])))?;
        out.push((left.remove(found), part.0, part.1));
    }
    out.sort_unstable();
    Some(out)
}

/// Cells whose cores a server gets that is bound to none: those that give the most.
fn floating_cpus(host: &Host, request: &Request, sort: Sort) -> Vec<Part> {
    if sort.threads == 0 {
        return Vec::new();
    }
    let cells = host.room().cells.iter().enumerate();
    let mut most: Vec<_> = cells.map(|(at, cell)| (sort.cpus(cell), at)).collect();
    most.sort_unstable_by_key(|(cpus, at)| (std::cmp::Reverse(*cpus), *at));
    let mut left = cpu_units(request, sort.threads);
    let mut out = Vec::new();
    for (cpus, at) in most {
        let taken = cpus.min(left);
        left -= taken;
        if taken > 0 {
            out.push((at, taken, 0));
        }
    }
    out.sort_unstable();
    out
}

/// The pages of a server that is bound to no cell: where the most are free.
fn floating_pages(host: &Host, request: &Request, sort: Sort, holding: &mut Holding) {
    let cells = host.room().cells.iter().enumerate();
    let mut most: Vec<_> = cells.map(|(at, cell)| (sort.memory(cell), at)).collect();
    most.sort_unstable_by_key(|(units, at)| (std::cmp::Reverse(*units), *at));
    let mut left = request.units();
    for (units, at) in most {
        let taken = units.min(left);
        left -= taken;
        if taken > 0 {
            holding.cells.push(part_of(host, request, at, 0, taken));
        }
    }
    holding.cells.sort_unstable_by_key(|cell| cell.cell);
}

/// How many virtual CPUs each part has. Of siblings the last part has what is left over.
fn vcpus_of(request: &Request, threads: u8, parts: &[Part]) -> Vec<u32> {
    let each = match request.pinning {
        Pinning::Siblings {} => u32::from(threads.max(1)),
        _ => 1,
    };
    let mut left = request.vcpus;
    let take = |part: &Part| {
        let taken = (part.1 * each).min(left);
        left -= taken;
        taken
    };
    parts.iter().map(take).collect()
}

/// Cores for each part, and which virtual CPU runs where.
fn pin(host: &Host, request: &Request, threads: u8, parts: &[Part], holding: &mut Holding) {
    if threads == 0 {
        return;
    }
    let siblings = request.pinning == (Pinning::Siblings {});
    let mut vcpu = 0;
    for (cell, cores, _) in parts {
        for core in pick_cores(host, *cell, threads, *cores as usize) {
            let threads = &host.facts().cells[*cell].cores[core].threads;
            holding.cpus.extend(threads);
            for cpu in threads.iter().take(if siblings { threads.len() } else { 1 }) {
                if vcpu < request.vcpus {
                    holding.pins.push(Pin { vcpu, cpu: *cpu });
                    vcpu += 1;
                }
            }
        }
    }
}

/// Threads of a core, where the virtual CPUs in turn are whole cores with all threads of them, all alike.
fn siblings(host: &Host, pins: &[Pin]) -> Option<u8> {
    let core_of =
        |pin: &Pin| host.cpu(pin.cpu).map(|(cell, core)| &host.facts().cells[cell].cores[core]);
    let threads = core_of(pins.first()?)?.threads.len();
    let is_core = |group: &[Pin]| {
        let mut cpus: Vec<u32> = group.iter().map(|pin| pin.cpu).collect();
        cpus.sort_unstable();
        core_of(&group[0]).is_some_and(|core| core.threads == cpus)
    };
    let are_cores =
        threads > 1 && pins.len().is_multiple_of(threads) && pins.chunks(threads).all(is_core);
    are_cores.then_some(threads as u8)
}

/// So many free cores of a cell, each with so many threads, under as few last-level caches as
/// possible: the smallest group of cores that has enough, or the largest and the rest in the same
/// way. Groups are disjoint, so taking the largest first needs the fewest.
pub(super) fn pick_cores(host: &Host, cell: usize, threads: u8, count: usize) -> Vec<usize> {
    let cores = &host.facts().cells[cell].cores;
    let mut groups: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for (at, core) in cores.iter().enumerate() {
        if core.threads.len() == usize::from(threads) && host.core_is_free(cell, at) {
            groups.entry(core.l3).or_default().push(at);
        }
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    // Stable: among equals the lowest cache is first.
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let mut out = Vec::with_capacity(count);
    while out.len() < count && !groups.is_empty() {
        let left = count - out.len();
        let smallest = groups.iter().rposition(|group| group.len() >= left);
        let at = smallest.map_or(0, |at| {
            groups.iter().position(|group| group.len() == groups[at].len()).unwrap_or(at)
        });
        out.extend(groups.remove(at).into_iter().take(left));
    }
    out
}

/// Whether the CPUs that a person names can be given, and the cells they lie in hold the rest.
pub(super) fn named_cells(
    host: &Host,
    request: &Request,
    cpus: &[u32],
    no: &mut Vec<Reason>,
) -> Option<Fit> {
    let mut holding = Holding::of(request);
    if let Some(cpu) = cpus.iter().find(|cpu| host.cpu(**cpu).is_none()) {
        no.push(Reason::CpuUnknown { cpu: *cpu });
        return None;
    }
    name_cpus(host, cpus, &mut holding);
    let floating = Fit { way: Way::Floating, threads: 0, irregular: false };
    let anywhere = |holding: &mut Holding| {
        if let Some(sort) = Sort::new(host.room(), request, 0) {
            floating_pages_when(host, request, sort, holding);
        }
        let pages: u64 = holding.cells.iter().map(|cell| cell.pages).sum();
        let asked = request.pages(request.units());
        let short = request.page_kib.filter(|_| pages < asked);
        let short = short.map(|size_kib| Reason::Pages { size_kib, asked, free: pages });
        short.or_else(|| host.shortage(holding))
    };
    if request.numa == Numa::None {
        let short = anywhere(&mut holding);
        let fits = short.is_none();
        no.extend(short);
        return fits.then_some(floating);
    }
    let parts = named_parts(host, request, cpus);
    let used = parts.len() as u32;
    let bound = Holding {
        cells: parts
            .iter()
            .map(|(cell, vcpus, units)| part_of(host, request, *cell, *vcpus, *units))
            .collect(),
        ..holding.clone()
    };
    let short = if used > request.cells_max {
        Some(Reason::PinnedCells { allowed: request.cells_max, cells: used })
    } else if u64::from(used) > request.units() {
        Some(Reason::PinnedCells { allowed: request.units() as u32, cells: used })
    } else {
        host.shortage(&bound)
    };
    match short {
        None => Some(Fit { way: Way::Named(used), ..floating }),
        Some(_) if request.numa == Numa::BestEffort && anywhere(&mut holding).is_none() => {
            Some(Fit { irregular: true, ..floating })
        }
        Some(reason) => {
            no.push(reason);
            None
        }
    }
}

fn floating_pages_when(host: &Host, request: &Request, sort: Sort, holding: &mut Holding) {
    if request.page_kib.is_some() {
        floating_pages(host, request, sort, holding);
    }
}

/// Virtual CPUs on the named CPUs, each with its whole core.
fn name_cpus(host: &Host, cpus: &[u32], holding: &mut Holding) {
    holding.pins = (0..).zip(cpus).map(|(vcpu, cpu)| Pin { vcpu, cpu: *cpu }).collect();
    let cores: BTreeSet<_> = cpus.iter().filter_map(|cpu| host.cpu(*cpu)).collect();
    for (cell, core) in cores {
        holding.cpus.extend(&host.facts().cells[cell].cores[core].threads);
    }
}

/// The cells of the named CPUs, with memory as even as whole units allow: more where more CPUs are.
fn named_parts(host: &Host, request: &Request, cpus: &[u32]) -> Vec<Part> {
    let mut counts: BTreeMap<usize, u32> = BTreeMap::new();
    for (cell, _) in cpus.iter().filter_map(|cpu| host.cpu(*cpu)) {
        *counts.entry(cell).or_default() += 1;
    }
    let mut most: Vec<(usize, u32)> = counts.into_iter().collect();
    most.sort_by_key(|(cell, count)| (std::cmp::Reverse(*count), *cell));
    let split = Split::new(request.vcpus, request.units(), most.len().max(1) as u32);
    let mut parts: Vec<Part> =
        (0..).zip(most).map(|(at, (cell, count))| (cell, count, split.part(at).1)).collect();
    parts.sort_unstable();
    parts
}

/// Devices, with the rest of their IOMMU groups; see [`choice`]. None where they take each other away.
fn give_devices(
    host: &Host,
    request: &Request,
    places: &[usize],
    holding: &mut Holding,
) -> Option<()> {
    if request.devices.is_empty() {
        return Some(());
    }
    let chosen = choice::choose(host, &request.devices, places).ok()?;
    choice::give(host, &chosen, holding);
    Some(())
}
