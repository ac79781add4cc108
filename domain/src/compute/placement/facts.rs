//! What is known of a host: what it is, what it has, and what may be used of it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{host::HostId, profile::DeviceProfile};
use crate::kernel::{Refusal, codes};

/// Most cells of a host; the largest machines of today have 32, and Linux knows 1,024.
pub(super) const CELLS_MAX: usize = 64;
/// Most logical CPUs of a host; the largest machines of today have 1,920.
pub(super) const CPUS_MAX: usize = 8_192;
/// Most threads of a core: POWER has eight.
pub(super) const THREADS_MAX: usize = 8;
/// Most sizes of pages of a host: no architecture's kernel offers more than four.
pub(super) const PAGE_SIZES_MAX: usize = 4;
/// Most devices of a host: some network cards have 256 virtual functions.
pub(super) const DEVICES_MAX: usize = 4_096;
/// Most memory of a cell: 64 TiB.
pub(super) const MEMORY_MIB_MAX: u64 = 64 << 20;
/// Over-commit, in hundredths: from none to hundredfold.
pub(super) const OVERCOMMIT_PERCENT: std::ops::RangeInclusive<u32> = 100..=10_000;

/// The instruction set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// 64-bit ARM.
    Aarch64,
    /// LoongArch.
    Loongarch64,
    /// POWER, little endian.
    Ppc64le,
    /// RISC-V.
    Riscv64,
    /// IBM Z.
    S390x,
    /// AMD and Intel.
    #[serde(rename = "x86_64")]
    X86_64,
}

/// Whether somebody works for a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentState {
    /// Its agent works for it.
    #[default]
    Works,
    /// No agent has joined it and said what it is.
    NotJoined,
    /// Its agent has not been heard for a while.
    Unreachable,
}

/// What is known of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    /// The host.
    pub id: HostId,
    /// Whether it takes servers.
    pub enabled: bool,
    /// Whether it is being worked on: it takes none then either.
    #[serde(default)]
    pub maintenance: bool,
    /// Whether somebody works for it: it takes no servers otherwise.
    #[serde(default)]
    pub agent: AgentState,
    /// Its instruction set.
    pub architecture: Architecture,
    /// What people call its properties; a request may want or forbid them.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// What it reaches: storages, segments. Only compared.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// Virtual CPUs that share a hundred logical ones, 100…10,000; 800 where nobody says.
    #[serde(default = "cpu_default")]
    pub cpu_overcommit_percent: u32,
    /// MiB promised for a hundred MiB of memory, 100…10,000. It counts as 100 on a host with huge
    /// pages, whatever it says, for huge pages cannot be promised twice.
    #[serde(default = "memory_default")]
    pub memory_overcommit_percent: u32,
    /// Logical CPUs that no server gets, sorted.
    #[serde(default)]
    pub cpus_reserved: BTreeSet<u32>,
    /// Its NUMA cells, sorted by id; a host without NUMA has one.
    pub cells: Vec<Cell>,
    /// What it can pass through, sorted by id.
    #[serde(default)]
    pub devices: Vec<Device>,
}

fn cpu_default() -> u32 {
    800
}

fn memory_default() -> u32 {
    100
}

/// A NUMA cell: CPUs and memory that are near each other. Either may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// The kernel's number of it.
    pub id: u32,
    /// All its memory, huge pages and what is reserved among it.
    pub memory_mib: u64,
    /// Memory that no server gets, of what is not huge pages.
    #[serde(default)]
    pub memory_reserved_mib: u64,
    /// Its huge pages, sorted by size.
    #[serde(default)]
    pub pages: Vec<Pages>,
    /// Its cores.
    #[serde(default)]
    pub cores: Vec<Core>,
    /// How far each cell of the host is, in their order, as the firmware says: 10 is itself. Empty
    /// when nobody knows: then all others are equally far (20).
    #[serde(default)]
    pub distances: Vec<u32>,
}

/// Huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// Of what size, in KiB: 2,048 or 1,048,576 on most.
    pub size_kib: u32,
    /// How many there are.
    pub count: u64,
    /// How many of them others than our servers have: programs of the host, machines that are not ours.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A core with its threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// Its logical CPUs, 1…8, sorted.
    pub threads: Vec<u32>,
    /// Which cores it shares its last-level cache with, by the kernel's number of the cache.
    #[serde(default)]
    pub l3: Option<u32>,
}

/// A device that can be passed through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its address on the host, for instance `0000:3b:00.0`.
    pub id: String,
    /// What it is, for instance `gpu`.
    pub kind: String,
    /// Which one, for instance `10de:1eb8`.
    pub model: String,
    /// The cell it is near to, where the firmware says.
    #[serde(default)]
    pub cell: Option<u32>,
    /// Its IOMMU group. A group goes to one server, whole.
    #[serde(default)]
    pub iommu_group: Option<u32>,
    /// The USB controller it hangs on, by the [`Self::id`] of that. Who has the controller has what hangs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Whether it may be given.
    #[serde(default)]
    pub availability: Availability,
    /// The bridge whose wire its card is on, when it is a virtual function of a card that is a port of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// What part of a card it is, where its driver says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<DeviceProfile>,
    /// The switch in its card: of a network card that can have virtual functions, and of each of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<CardSwitch>,
}

/// The switch in a network card, between its wire and its virtual functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CardSwitch {
    /// Who says what passes there.
    pub mode: SwitchMode,
    /// The interface of the host that is the other end of a virtual function: its representor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representor: Option<String>,
    /// Whether Open vSwitch has the card do what the card can do by itself (`hw-offload`). Without it all that
    /// passes goes through the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offloads: bool,
}

/// Who says what passes in the switch of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SwitchMode {
    /// The card, by hardware addresses and VLANs.
    Legacy,
    /// The host: each virtual function has an interface of it as its other end.
    Switchdev,
}

impl Device {
    /// Whether the host has its other end, and can guard what it sends and gets.
    pub(super) fn is_represented(&self) -> bool {
        self.switch.as_ref().is_some_and(|switch| switch.representor.is_some())
    }
}

/// Whether a device may be given. That it is with a server is known from holdings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// Nobody keeps it from being given.
    #[default]
    Free,
    /// The last look did not find it.
    Lost,
    /// The host keeps it for itself, and with it the rest of its IOMMU group.
    Reserved,
}

impl HostFacts {
    /// Checks what the rest of placement relies on.
    ///
    /// # Errors
    /// `invalid-field`, with the field.
    pub fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        for (name, percent) in [
            ("cpu_overcommit_percent", self.cpu_overcommit_percent),
            ("memory_overcommit_percent", self.memory_overcommit_percent),
        ] {
            if !OVERCOMMIT_PERCENT.contains(&percent) {
                return no(format!("{name}: {percent} is not between 100 and 10000"));
            }
        }
        if self.cells.len() > CELLS_MAX || self.devices.len() > DEVICES_MAX {
            return no(format!("at most {CELLS_MAX} cells and {DEVICES_MAX} devices"));
        }
        if !self.cells.is_sorted_by(|one, next| one.id < next.id) {
            return no("cells: are sorted by id, each once".to_owned());
        }
        if !self.devices.is_sorted_by(|one, next| one.id < next.id) {
            return no("devices: are sorted by id, each once".to_owned());
        }
        let mut cpus = BTreeSet::new();
        let mut sizes = BTreeSet::new();
        for cell in &self.cells {
            cell.check(self.cells.len())?;
            sizes.extend(cell.pages.iter().map(|pages| pages.size_kib));
            for cpu in cell.cores.iter().flat_map(|core| &core.threads) {
                if !cpus.insert(*cpu) {
                    return no(format!("cells: CPU {cpu} is there twice"));
                }
            }
        }
        if cpus.len() > CPUS_MAX || sizes.len() > PAGE_SIZES_MAX {
            return no(format!(
                "cells: at most {CPUS_MAX} CPUs and {PAGE_SIZES_MAX} sizes of pages"
            ));
        }
        for device in &self.devices {
            if device.cell.is_some_and(|cell| self.cell(cell).is_none()) {
                return no(format!("devices: {} lies in a cell that is not there", device.id));
            }
        }
        Ok(())
    }

    /// The place of a cell in [`Self::cells`].
    pub fn cell(&self, id: u32) -> Option<usize> {
        self.cells.binary_search_by_key(&id, |cell| cell.id).ok()
    }

    /// The place of a device in [`Self::devices`].
    pub fn device(&self, id: &str) -> Option<usize> {
        self.devices.binary_search_by(|device| device.id.as_str().cmp(id)).ok()
    }

    /// Every size of huge pages it has any of, in KiB, ascending.
    pub fn page_sizes(&self) -> Vec<u32> {
        let all = self.cells.iter().flat_map(|cell| &cell.pages);
        let sizes: BTreeSet<u32> =
            all.filter(|pages| pages.count > 0).map(|pages| pages.size_kib).collect();
        sizes.into_iter().collect()
    }

    /// Over-commit of memory as it counts: none with huge pages.
    pub fn memory_percent(&self) -> u64 {
        if self.page_sizes().is_empty() { self.memory_overcommit_percent.into() } else { 100 }
    }

    /// How far two cells are, by their places.
    pub fn distance(&self, from: usize, to: usize) -> u32 {
        let known = self.cells.get(from).and_then(|cell| cell.distances.get(to));
        known.copied().unwrap_or(if from == to { 10 } else { 20 })
    }
}

impl Cell {
    fn check(&self, cells: usize) -> Result<(), Refusal> {
        let no = |detail: String| {
            Err(Refusal::new(&codes::INVALID_FIELD, format!("cell {}: {detail}", self.id)))
        };
        if self.memory_mib > MEMORY_MIB_MAX {
            return no(format!("memory_mib: at most {MEMORY_MIB_MAX}"));
        }
        if !self.pages.is_sorted_by(|one, next| one.size_kib < next.size_kib) {
            return no("pages: are sorted by size, each once".to_owned());
        }
        let odd =
            |pages: &Pages| !pages.size_kib.is_power_of_two() || pages.count > u64::from(u32::MAX);
        if self.pages.iter().any(odd) {
            return no("pages: sizes are powers of two, and counts have at most 32 bits".to_owned());
        }
        if self.pages.iter().any(|pages| pages.others > pages.count) {
            return no("pages: others have no more than there are".to_owned());
        }
        let pages_kib = self
            .pages
            .iter()
            .fold(0_u128, |sum, pages| sum + u128::from(pages.size_kib) * u128::from(pages.count));
        let free_kib = u128::from(self.memory_mib) * 1_024;
        if pages_kib + u128::from(self.memory_reserved_mib) * 1_024 > free_kib {
            return no("pages and memory_reserved_mib are more than memory_mib".to_owned());
        }
        for core in &self.cores {
            let sorted = core.threads.is_sorted_by(|one, next| one < next);
            if !sorted || !(1..=THREADS_MAX).contains(&core.threads.len()) {
                return no(format!("cores: 1 to {THREADS_MAX} threads, sorted, each once"));
            }
        }
        if !self.distances.is_empty() && self.distances.len() != cells {
            return no("distances: one for each cell, or none".to_owned());
        }
        Ok(())
    }

    /// Memory in whole MiB that is neither huge pages nor reserved.
    pub fn memory_usable_mib(&self) -> u64 {
        // Also of a cell that was not checked yet.
        let pages_kib = self.pages.iter().fold(0_u64, |sum, pages| {
            sum.saturating_add(u64::from(pages.size_kib).saturating_mul(pages.count))
        });
        let kept_mib = self.memory_reserved_mib.saturating_add(pages_kib.div_ceil(1_024));
        self.memory_mib.saturating_sub(kept_mib)
    }

    /// How many huge pages of a size servers may have of it.
    pub fn pages_of(&self, size_kib: u32) -> u64 {
        let found = self.pages.iter().find(|pages| pages.size_kib == size_kib);
        found.map_or(0, |pages| pages.count.saturating_sub(pages.others))
    }
}
