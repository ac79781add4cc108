//! A host with what servers hold of it. Taking and giving back are exact opposites, and nothing is
//! taken that is not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    choice,
    facts::{Availability, HostFacts, PAGE_SIZES_MAX},
    holding::Holding,
    reason::Reason,
    room::Room,
};
use crate::{
    compute::server::Server,
    kernel::{Id, Refusal, codes},
};

/// The id of a host.
pub type HostId = Id<Host>;
/// The id of a server.
pub type ServerId = Id<Server>;

/// A host with what servers hold of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    facts: Arc<HostFacts>,
    holdings: BTreeMap<ServerId, Holding>,
    /// Each logical CPU, with the places of its cell and of its core there; sorted.
    cpus: Arc<[(u32, usize, usize)]>,
    used: Used,
    room: Room,
}

/// What holdings come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Sizes of pages; 0 where there are no more.
    pub(super) page_kib: [u32; PAGE_SIZES_MAX],
    pub(super) cells: Vec<CellUsed>,
    /// Shared virtual CPUs that are bound to no cell.
    pub(super) vcpus_floating: u32,
    /// Ordinary memory that is bound to no cell.
    pub(super) memory_floating_mib: u64,
    /// Whose each device is, in the order of the facts.
    pub(super) devices: Vec<Option<ServerId>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CellUsed {
    pub(super) vcpus: u32,
    pub(super) memory_mib: u64,
    pub(super) pages: [u64; PAGE_SIZES_MAX],
    /// Whose each core is alone, in the order of the facts.
    pub(super) cores: Vec<Option<ServerId>>,
}

impl Host {
    /// A host with what is held of it. What is held counts even where the host has shrunk since:
    /// there is then nothing free, never less than nothing.
    ///
    /// # Errors
    /// `invalid-field`: [`HostFacts::check`].
    pub fn new(
        facts: HostFacts,
        holdings: impl IntoIterator<Item = Holding>,
    ) -> Result<Self, Refusal> {
        facts.check()?;
        let mut used = Used {
            devices: vec![None; facts.devices.len()],
            cells: facts
                .cells
                .iter()
                .map(|cell| CellUsed { cores: vec![None; cell.cores.len()], ..CellUsed::default() })
                .collect(),
            ..Used::default()
        };
        for (slot, kib) in facts.page_sizes().into_iter().enumerate() {
            used.page_kib[slot] = kib;
        }
        let mut cpus = Vec::new();
        for (cell_at, cell) in facts.cells.iter().enumerate() {
            for (core_at, core) in cell.cores.iter().enumerate() {
                cpus.extend(core.threads.iter().map(|cpu| (*cpu, cell_at, core_at)));
            }
        }
        cpus.sort_unstable();
        let mut host = Self {
            facts: Arc::new(facts),
            holdings: BTreeMap::new(),
            cpus: cpus.into(),
            used,
            room: Room::default(),
        };
        for holding in holdings {
            host.add(&holding);
            host.holdings.insert(holding.server, holding);
        }
        host.room = Room::new(&host.facts, &host.used, None);
        Ok(host)
    }

    /// The same holdings on what the host is now.
    ///
    /// # Errors
    /// `invalid-field`: [`HostFacts::check`].
    pub fn with_facts(self, facts: HostFacts) -> Result<Self, Refusal> {
        Self::new(facts, self.holdings.into_values())
    }

    /// What it is.
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Who holds what.
    pub fn holdings(&self) -> &BTreeMap<ServerId, Holding> {
        &self.holdings
    }

    pub(super) fn used(&self) -> &Used {
        &self.used
    }

    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// The places of a logical CPU's cell and core.
    pub(super) fn cpu(&self, cpu: u32) -> Option<(usize, usize)> {
        let at = self.cpus.binary_search_by_key(&cpu, |(cpu, ..)| *cpu).ok()?;
        Some((self.cpus[at].1, self.cpus[at].2))
    }

    /// Whether a core can be one server's alone: nobody's yet, and no thread of it the host's.
    pub(super) fn core_is_free(&self, cell: usize, core: usize) -> bool {
        let threads = &self.facts.cells[cell].cores[core].threads;
        self.used.cells[cell].cores[core].is_none()
            && threads.iter().all(|cpu| !self.facts.cpus_reserved.contains(cpu))
    }

    /// Takes it.
    ///
    /// # Errors
    /// When any part of it is not there or not free; nothing is taken then.
    pub fn take(&mut self, holding: Holding) -> Result<(), Refusal> {
        if self.holdings.contains_key(&holding.server) {
            let detail = format!("server {} has a place on this host", holding.server);
            return Err(Refusal::new(&codes::WRONG_STATE, detail));
        }
        holding.check()?;
        if let Some(reason) = self.shortage(&holding) {
            let detail = format!("{}: {reason}", reason.code());
            return Err(Refusal::new(&codes::NO_ROOM, detail));
        }
        self.add(&holding);
        self.measure(&holding);
        self.holdings.insert(holding.server, holding);
        Ok(())
    }

    /// Gives back exactly what the server took.
    ///
    /// # Errors
    /// `wrong-state` when it holds nothing here.
    pub fn give_back(&mut self, server: ServerId) -> Result<Holding, Refusal> {
        let Some(holding) = self.holdings.remove(&server) else {
            let detail = format!("server {server} has no place on this host");
            return Err(Refusal::new(&codes::WRONG_STATE, detail));
        };
        self.remove(&holding);
        self.measure(&holding);
        Ok(holding)
    }

    /// What is free after a change by this holding.
    fn measure(&mut self, holding: &Holding) {
        let same = holding.devices.is_empty() && holding.devices_with.is_empty();
        let devices = same.then(|| std::mem::take(&mut self.room.devices));
        self.room = Room::new(&self.facts, &self.used, devices);
    }

    /// What of it is not there or not free; none when there is room.
    ///
    /// # Errors
    /// `invalid-field`: its parts do not go together.
    pub fn lacks(&self, holding: &Holding) -> Result<Option<Reason>, Refusal> {
        holding.check()?;
        Ok(self.shortage(holding))
    }

    /// What of it is not there or not free.
    pub(super) fn shortage(&self, holding: &Holding) -> Option<Reason> {
        self.cpu_shortage(holding)
            .or_else(|| self.memory_shortage(holding))
            .or_else(|| self.device_shortage(holding))
    }

    fn cpu_shortage(&self, holding: &Holding) -> Option<Reason> {
        let mut alone = vec![0_u32; self.facts.cells.len()];
        for &cpu in &holding.cpus {
            let Some((cell, core)) = self.cpu(cpu) else {
                return Some(Reason::CpuUnknown { cpu });
            };
            if let Some(server) = self.used.cells[cell].cores[core] {
                return Some(Reason::CpuHeld { cpu, server });
            }
            if !self.core_is_free(cell, core) {
                return Some(Reason::CpuReserved { cpu });
            }
            let threads = &self.facts.cells[cell].cores[core].threads;
            if let Some(other) = threads.iter().find(|other| !holding.cpus.contains(other)) {
                // A core is taken whole: its other thread is missing.
                return Some(Reason::CpuUnknown { cpu: *other });
            }
            alone[cell] += 1;
        }
        for (cell, room) in self.room.cells.iter().enumerate() {
            if alone[cell] > room.spare_cpus {
                return Some(Reason::Squeezed { asked: alone[cell], free: room.spare_cpus });
            }
        }
        let (taken, spare) = (holding.cpus.len() as u32, self.room.spare_cpus);
        if taken > spare {
            return Some(Reason::Squeezed { asked: taken, free: spare });
        }
        if holding.shares_cpus() && holding.vcpus > self.room.vcpus {
            return Some(Reason::Vcpus { asked: holding.vcpus, free: self.room.vcpus });
        }
        let short = |cell: &&super::CellHolding| {
            let free = self.cell_room(cell.cell).map_or(0, |room| room.vcpus);
            holding.shares_cpus() && cell.vcpus > free
        };
        holding.cells.iter().find(short).map(|cell| Reason::CellVcpus {
            cell: cell.cell,
            asked: cell.vcpus,
            free: self.cell_room(cell.cell).map_or(0, |room| room.vcpus),
        })
    }

    fn memory_shortage(&self, holding: &Holding) -> Option<Reason> {
        if let Some(size_kib) = holding.page_kib {
            let slot = self.room.slot(size_kib);
            for part in &holding.cells {
                let free = self.cell_room(part.cell).zip(slot);
                let free = free.map_or(0, |(room, slot)| room.pages[slot].into());
                if part.pages > free {
                    let (cell, asked) = (part.cell, part.pages);
                    return Some(Reason::CellPages { cell, size_kib, asked, free });
                }
            }
            return None;
        }
        if holding.memory_mib > self.room.memory_mib {
            let (asked_mib, free_mib) = (holding.memory_mib, self.room.memory_mib);
            return Some(Reason::Memory { asked_mib, free_mib });
        }
        for part in &holding.cells {
            let free_mib = self.cell_room(part.cell).map_or(0, |room| room.memory_mib);
            if part.memory_mib > free_mib {
                let (cell, asked_mib) = (part.cell, part.memory_mib);
                return Some(Reason::CellMemory { cell, asked_mib, free_mib });
            }
        }
        None
    }

    fn device_shortage(&self, holding: &Holding) -> Option<Reason> {
        let asked: BTreeSet<_> = holding.devices.union(&holding.devices_with).collect();
        if asked.is_empty() {
            return None;
        }
        let free = self.used.free_devices(&self.facts);
        let mut groups = BTreeSet::new();
        let mut own = Vec::new();
        for device in &holding.devices {
            let at = self.device(device).filter(|at| free[*at]);
            let Some(at) = at else { return Some(Reason::DeviceHeld { device: device.clone() }) };
            groups.extend(self.facts.devices[at].iommu_group);
            own.push(&self.facts.devices[at]);
        }
        let hanging =
            own.iter().find(|usb| choice::hangs_on(&self.facts, usb, own.iter().copied()));
        if let Some(usb) = hanging {
            return Some(Reason::DeviceHeld { device: usb.id.clone() });
        }
        let with: BTreeSet<_> = self.of_groups(&groups).collect();
        let wrong = asked
            .iter()
            .find(|device| !holding.devices.contains(**device) && !with.contains(device.as_str()))
            .map(|device| (*device).clone());
        let missing = with
            .iter()
            .find(|device| !asked.iter().any(|one| one == *device))
            .map(|device| (*device).to_owned());
        wrong.or(missing).map(|device| Reason::DeviceHeld { device })
    }

    /// The devices of these IOMMU groups that are there.
    pub(super) fn of_groups(&self, groups: &BTreeSet<u32>) -> impl Iterator<Item = &str> {
        let devices = self.facts.devices.iter();
        let there = devices.filter(|device| device.availability != Availability::Lost);
        there
            .filter(|device| device.iommu_group.is_some_and(|group| groups.contains(&group)))
            .map(|device| device.id.as_str())
    }

    fn device(&self, id: &str) -> Option<usize> {
        self.facts.device(id)
    }

    fn cell_room(&self, cell: u32) -> Option<&super::room::CellRoom> {
        self.facts.cell(cell).map(|at| &self.room.cells[at])
    }

    fn add(&mut self, holding: &Holding) {
        self.each_part(holding, |used, by| *used += by, Some(holding.server));
    }

    fn remove(&mut self, holding: &Holding) {
        self.each_part(holding, |used, by| *used -= by, None);
    }

    /// Changes what is used by each part of a holding. Parts of what the host no longer has are
    /// left out, both ways.
    fn each_part(
        &mut self,
        holding: &Holding,
        change: impl Fn(&mut u64, u64),
        holder: Option<ServerId>,
    ) {
        let change_u32 = |used: &mut u32, by: u32| {
            let mut wide = u64::from(*used);
            change(&mut wide, by.into());
            *used = wide as u32;
        };
        let slot = holding
            .page_kib
            .and_then(|kib| self.used.page_kib.iter().position(|one| *one == kib && kib > 0));
        let (mut vcpus, mut memory_mib) = (holding.vcpus, holding.memory_mib);
        for part in &holding.cells {
            vcpus = vcpus.saturating_sub(part.vcpus);
            memory_mib = memory_mib.saturating_sub(part.memory_mib);
            let Some(at) = self.facts.cell(part.cell) else { continue };
            let used = &mut self.used.cells[at];
            if holding.shares_cpus() {
                change_u32(&mut used.vcpus, part.vcpus);
            }
            match (holding.page_kib, slot) {
                (None, _) => change(&mut used.memory_mib, part.memory_mib),
                (Some(_), Some(slot)) => change(&mut used.pages[slot], part.pages),
                (Some(_), None) => {}
            }
        }
        if holding.shares_cpus() {
            change_u32(&mut self.used.vcpus_floating, vcpus);
        }
        if holding.page_kib.is_none() {
            change(&mut self.used.memory_floating_mib, memory_mib);
        }
        for cpu in &holding.cpus {
            if let Some((cell, core)) = self.cpu(*cpu) {
                self.used.cells[cell].cores[core] = holder;
            }
        }
        for id in holding.devices.union(&holding.devices_with) {
            if let Some(at) = self.device(id) {
                self.used.devices[at] = holder;
            }
        }
    }
}
