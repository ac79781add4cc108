//! What is free on a host, as numbers: all that is needed to say whether a request fits, and near
//! together, for it is asked of every host of a fleet.

use super::{
    facts::{Availability, HostFacts, PAGE_SIZES_MAX, THREADS_MAX},
    host::Used,
};

/// What is free of a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CellRoom {
    /// Shared virtual CPUs it still takes.
    pub(super) vcpus: u32,
    /// Logical CPUs that can be taken out of what is shared without squeezing who shares.
    pub(super) spare_cpus: u32,
    /// Ordinary memory.
    pub(super) memory_mib: u64,
    /// Huge pages, by the place of their size in [`Room::page_kib`].
    pub(super) pages: [u32; PAGE_SIZES_MAX],
    /// Cores nobody has for itself, by how many threads they have.
    pub(super) cores: [u16; THREADS_MAX + 1],
}

/// Free devices of one model near one cell, on one wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceRoom {
    pub(super) kind: String,
    pub(super) model: String,
    pub(super) carrier: Option<String>,
    /// Whether the host has their other ends.
    pub(super) is_represented: bool,
    /// The place of the cell.
    pub(super) cell: Option<usize>,
    pub(super) free: u32,
}

/// What is free of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Sizes of its pages in KiB; 0 where it has no more.
    pub(super) page_kib: [u32; PAGE_SIZES_MAX],
    pub(super) cells: Vec<CellRoom>,
    /// Shared virtual CPUs it still takes, in all.
    pub(super) vcpus: u32,
    /// Logical CPUs that can be taken out of what is shared, in all.
    pub(super) spare_cpus: u32,
    /// Ordinary memory, in all.
    pub(super) memory_mib: u64,
    /// Sorted by kind, model, carrier, other end and cell.
    pub(super) devices: Vec<DeviceRoom>,
    /// Hundredths of virtual CPUs there are, and how many are in use.
    pub(super) cpu_share: Share,
    /// MiB there are, and how many are in use.
    pub(super) memory_share: Share,
}

/// A part of a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) used: u64,
    pub(super) whole: u64,
}

impl Share {
    /// In millionths, with so much more in use.
    pub(super) fn millionths_with(self, more: u64) -> u32 {
        let used = u128::from(self.used + more) * 1_000_000;
        let millionths = used / u128::from(self.whole.max(1));
        u32::try_from(millionths).unwrap_or(u32::MAX)
    }
}

impl Room {
    /// What facts leave of what is used. `devices` are kept when they have not changed.
    pub(super) fn new(facts: &HostFacts, used: &Used, devices: Option<Vec<DeviceRoom>>) -> Self {
        let percent = u64::from(facts.cpu_overcommit_percent);
        let memory_percent = facts.memory_percent();
        let mut room = Self {
            page_kib: used.page_kib,
            devices: devices.unwrap_or_else(|| free_devices(facts, used)),
            ..Self::default()
        };
        let (mut shared_all, mut vcpus_all) = (0, u64::from(used.vcpus_floating));
        let (mut memory_all, mut memory_used) = (0, used.memory_floating_mib);
        let (mut cpus_all, mut pages_mib, mut pages_used_mib) = (0, 0, 0);
        for (cell, mine) in facts.cells.iter().zip(&used.cells) {
            let (mut cores, mut shared) = ([0; THREADS_MAX + 1], 0);
            for (core, holder) in cell.cores.iter().zip(&mine.cores) {
                let threads = core.threads.iter();
                let open = threads.filter(|cpu| !facts.cpus_reserved.contains(cpu)).count();
                cpus_all += open as u64;
                if holder.is_none() {
                    shared += open as u64;
                    if open == core.threads.len() {
                        cores[open] += 1;
                    }
                }
            }
            let capacity_mib = cell.memory_usable_mib() * memory_percent / 100;
            let mut pages = [0; PAGE_SIZES_MAX];
            for (slot, kib) in used.page_kib.iter().enumerate().filter(|(_, kib)| **kib > 0) {
                let there = cell.pages_of(*kib);
                pages[slot] = there.saturating_sub(mine.pages[slot]) as u32;
                pages_mib += there * u64::from(*kib) / 1_024;
                pages_used_mib += mine.pages[slot] * u64::from(*kib) / 1_024;
            }
            room.cells.push(CellRoom {
                vcpus: (shared * percent / 100).saturating_sub(mine.vcpus.into()) as u32,
                spare_cpus: shared.saturating_sub(needed(mine.vcpus.into(), percent)) as u32,
                memory_mib: capacity_mib.saturating_sub(mine.memory_mib),
                pages,
                cores,
            });
            shared_all += shared;
            vcpus_all += u64::from(mine.vcpus);
            memory_all += capacity_mib;
            memory_used += mine.memory_mib;
        }
        room.vcpus = (shared_all * percent / 100).saturating_sub(vcpus_all) as u32;
        room.spare_cpus = shared_all.saturating_sub(needed(vcpus_all, percent)) as u32;
        room.memory_mib = memory_all.saturating_sub(memory_used);
        let alone = cpus_all - shared_all;
        room.cpu_share =
            Share { used: vcpus_all * 100 + alone * percent, whole: cpus_all * percent };
        room.memory_share =
            Share { used: memory_used + pages_used_mib, whole: memory_all + pages_mib };
        room
    }

    /// The place of a size of pages.
    pub(super) fn slot(&self, kib: u32) -> Option<usize> {
        self.page_kib.iter().position(|one| *one == kib)
    }
}

/// How many logical CPUs so many shared virtual ones need.
pub(super) fn needed(vcpus: u64, percent: u64) -> u64 {
    (vcpus * 100).div_ceil(percent)
}

/// Devices that may be given now, counted.
fn free_devices(facts: &HostFacts, used: &Used) -> Vec<DeviceRoom> {
    let mut out: Vec<DeviceRoom> = Vec::new();
    let free = used.free_devices(facts);
    for (device, _) in facts.devices.iter().zip(free).filter(|(_, free)| *free) {
        let cell = device.cell.and_then(|cell| facts.cell(cell));
        let found = out.iter_mut().find(|room| {
            room.cell == cell
                && room.kind == device.kind
                && room.model == device.model
                && room.carrier == device.carrier
                && room.is_represented == device.is_represented()
        });
        match found {
            Some(room) => room.free += 1,
            None => out.push(DeviceRoom {
                kind: device.kind.clone(),
                model: device.model.clone(),
                carrier: device.carrier.clone(),
                is_represented: device.is_represented(),
                cell,
                free: 1,
            }),
        }
    }
    out.sort_by(|one, other| {
        let sort = |room: &DeviceRoom| (room.is_represented, room.cell);
        let (a, b) = ((&one.kind, &one.model), (&other.kind, &other.model));
        (a, &one.carrier, sort(one)).cmp(&(b, &other.carrier, sort(other)))
    });
    out
}

impl Used {
    /// Which devices may be given now, in the order of the facts: those that are free, and of whose
    /// IOMMU group all that is there is free. What hangs on a controller goes where that goes: a controller is
    /// not free while somebody has something of it, nor is that while somebody has the controller.
    pub(super) fn free_devices(&self, facts: &HostFacts) -> Vec<bool> {
        let own = |at: usize| {
            self.devices[at].is_some() || facts.devices[at].availability == Availability::Reserved
        };
        let on: Vec<Option<usize>> =
            facts.devices.iter().map(|device| facts.device(device.controller.as_ref()?)).collect();
        let used: Vec<usize> =
            on.iter().enumerate().filter(|(at, _)| own(*at)).filter_map(|(_, on)| *on).collect();
        let taken = |at: usize| own(at) || used.contains(&at);
        let is_with = |at: usize| on[at].is_some_and(|on| self.devices[on].is_some());
        let mut blocked: Vec<u32> = (0..facts.devices.len())
            .filter(|at| taken(*at))
            .filter_map(|at| facts.devices[at].iommu_group)
            .collect();
        blocked.sort_unstable();
        let free = |(at, device): (usize, &super::facts::Device)| {
            let group = device.iommu_group;
            device.availability == Availability::Free
                && !taken(at)
                && !is_with(at)
                && group.is_none_or(|group| blocked.binary_search(&group).is_err())
        };
        facts.devices.iter().enumerate().map(free).collect()
    }
}
