//! Which cells, of all sets that hold a request, are the best: devices near, cells near each other,
//! cores under few caches, then packed or spread, then the lowest numbers.

use super::{
    facts::HostFacts,
    fit::{Sort, Split},
    host::Host,
    request::{DeviceAsk, Fill, Request},
    room::Room,
};

/// Most sets of cells, begun or whole, that are looked at on one host for one request: all of them
/// up to 16 cells (those of up to 8 out of 16 are 39,203).
pub const SETS_MAX: usize = 40_000;
/// Most sets that are looked at on all hosts together, to compare them: some hundredths of a second.
pub const SETS_ALL_MAX: usize = 100_000;

/// A set of cells, and how good it is: smaller is better, from the first number on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chosen {
    /// How far its devices are: the sum of their distances over the nearest cell's own.
    pub(super) devices: u64,
    /// How far its cells are from each other: the sum over pairs.
    pub(super) apart: u64,
    /// Caches its cores lie under.
    pub(super) caches: u64,
    /// What is free there, turned round when the emptiest is wanted.
    free: i128,
    /// Places of cells, ascending.
    pub(super) cells: Vec<usize>,
}

/// The best set of `split.parts` cells. There is one, since the request fits; none only when it does
/// not.
pub(super) fn choose(
    host: &Host,
    request: &Request,
    split: &Split,
    sort: Sort,
    sets: &mut usize,
) -> Option<Chosen> {
    let room = host.room();
    let (facts, parts) = (host.facts(), split.parts as usize);
    let smallest = split.part(split.parts - 1);
    let holds = |at: &usize| sort.holds(&room.cells[*at], smallest);
    let open: Vec<usize> = (0..room.cells.len()).filter(holds).collect();
    let largest = split.part(0);
    let caches: Vec<u64> = open
        .iter()
        .map(|at| if sort.threads == 0 { 0 } else { caches(host, *at, sort.threads, largest.0) })
        .collect();
    let alike =
        if parts > 1 { classes(host, request, &open, &caches) } else { vec![None; open.len()] };
    let mut search = Search {
        request,
        facts,
        room,
        split,
        sort,
        open: &open,
        caches: &caches,
        alike: &alike,
        best: None,
        left: SETS_MAX.min(*sets),
    };
    let before = search.left;
    search.go(0, &mut Vec::with_capacity(parts));
    *sets -= before - search.left;
    if search.best.is_none() {
        // Those that were looked at hold it not, or none could be looked at any more.
        let set = first_set(room, &open, split, sort)?;
        search.rate(&set);
    }
    search.best
}

/// Some set that holds all parts: for each part, the largest first, the first cell that is left.
fn first_set(room: &Room, open: &[usize], split: &Split, sort: Sort) -> Option<Vec<usize>> {
    let mut set = Vec::new();
    for part in (0..split.parts).map(|at| split.part(at)) {
        let holds = |at: &usize| !set.contains(at) && sort.holds(&room.cells[open[*at]], part);
        let found = (0..open.len()).find(holds)?;
        set.push(found);
    }
    set.sort_unstable();
    Some(set)
}

struct Search<'a> {
    request: &'a Request,
    facts: &'a HostFacts,
    room: &'a Room,
    split: &'a Split,
    sort: Sort,
    open: &'a [usize],
    caches: &'a [u64],
    /// For each open cell the one before it in its class.
    alike: &'a [Option<usize>],
    best: Option<Chosen>,
    left: usize,
}

impl Search<'_> {
    /// All sets that begin with `taken` (places in `open`) and go on from `from`.
    fn go(&mut self, from: usize, taken: &mut Vec<usize>) {
        let missing = self.split.parts as usize - taken.len();
        self.left = self.left.saturating_sub(1);
        if missing == 0 {
            self.rate(taken);
            return;
        }
        for at in from..self.open.len() {
            if self.left == 0 || self.open.len() - at < missing {
                return;
            }
            // Of cells that can change places, the first ones are taken.
            if self.alike[at].is_some_and(|before| !taken.contains(&before)) {
                continue;
            }
            taken.push(at);
            self.go(at + 1, taken);
            taken.pop();
        }
    }

    fn rate(&mut self, taken: &[usize]) {
        let room = self.room;
        for (count, cpus, memory) in self.split.sizes() {
            let holds = |at: &&usize| self.sort.holds(&room.cells[self.open[**at]], (cpus, memory));
            if (taken.iter().filter(holds).count() as u32) < count {
                return;
            }
        }
        let cells: Vec<usize> = taken.iter().map(|at| self.open[*at]).collect();
        let mut apart = 0;
        for (at, one) in cells.iter().enumerate() {
            apart += cells[at + 1..]
                .iter()
                .map(|other| u64::from(self.facts.distance(*one, *other)))
                .sum::<u64>();
        }
        let free = cells.iter().map(|at| {
            let cell = &room.cells[*at];
            i128::from(self.sort.memory(cell)) * 10_000 + i128::from(self.sort.cpus(cell))
        });
        let free: i128 = free.sum();
        let chosen = Chosen {
            devices: device_distance(self.facts, room, &self.request.devices, &cells),
            apart,
            caches: taken.iter().map(|at| self.caches[*at]).sum(),
            free: if self.request.fill == Fill::Pack { free } else { -free },
            cells,
        };
        if self.best.as_ref().is_none_or(|best| chosen < *best) {
            self.best = Some(chosen);
        }
    }
}

/// For each open cell the one before it that it can change places with: equally much is free, the
/// same devices are near, and all other cells are as far from the one as from the other.
fn classes(host: &Host, request: &Request, open: &[usize], caches: &[u64]) -> Vec<Option<usize>> {
    let (facts, room) = (host.facts(), host.room());
    let devices = |at: usize| {
        room.devices.iter().filter(move |device| device.cell == Some(at)).map(|device| {
            let wire = (&device.carrier, device.is_represented);
            (&device.kind, &device.model, wire, device.free)
        })
    };
    let equal = |one: usize, other: usize| {
        let (a, b) = (open[one], open[other]);
        room.cells[a] == room.cells[b]
            && caches[one] == caches[other]
            && (request.devices.is_empty() || devices(a).eq(devices(b)))
            && facts.distance(a, b) == facts.distance(b, a)
            && facts.distance(a, a) == facts.distance(b, b)
            && (0..facts.cells.len()).filter(|at| *at != a && *at != b).all(|at| {
                facts.distance(a, at) == facts.distance(b, at)
                    && facts.distance(at, a) == facts.distance(at, b)
            })
    };
    (0..open.len()).map(|at| (0..at).rev().find(|before| equal(*before, at))).collect()
}

/// How far the devices of a request are from a set of cells at the least. Each device counts the
/// distance of its cell to the nearest of the set, over 10; one that is near to none counts nothing.
pub(super) fn device_distance(
    facts: &HostFacts,
    room: &Room,
    asks: &[DeviceAsk],
    cells: &[usize],
) -> u64 {
    if asks.is_empty() {
        return 0;
    }
    let mut free: Vec<(u64, u32)> = room
        .devices
        .iter()
        .map(|device| (distance_to(facts, device.cell, cells), device.free))
        .collect();
    let mut sum = 0;
    // Those of one model first, as they leave no choice: what is left of a kind serves the rest.
    for ask in DeviceAsk::narrowest_first(asks) {
        for _ in 0..ask.count {
            let nearest = (0..free.len())
                .filter(|at| free[*at].1 > 0)
                .filter(|at| ask.has_room(&room.devices[*at]))
                .min_by_key(|at| free[*at].0);
            if let Some(at) = nearest {
                free[at].1 -= 1;
                sum += free[at].0;
            }
        }
    }
    sum
}

/// How much farther a cell is from the nearest of a set than a cell is from itself.
pub(super) fn distance_to(facts: &HostFacts, cell: Option<usize>, cells: &[usize]) -> u64 {
    let Some(cell) = cell else { return 0 };
    let nearest = cells.iter().map(|one| facts.distance(*one, cell)).min();
    u64::from(nearest.map_or(0, |nearest| nearest.saturating_sub(10)))
}

/// Under how few last-level caches so many free cores of a cell lie.
fn caches(host: &Host, cell: usize, threads: u8, cores: u32) -> u64 {
    let picked = super::assign::pick_cores(host, cell, threads, cores as usize);
    let all = &host.facts().cells[cell].cores;
    let mut seen: Vec<_> = picked.iter().map(|core| all[*core].l3).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len() as u64
}
