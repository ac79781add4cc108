//! What a placed server takes of its host.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{function::VirtualFunction, host::ServerId, request::Request};
use crate::kernel::{Refusal, codes};

/// What a placed server takes of its host: recorded when it is placed, given back exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// Who holds it.
    pub server: ServerId,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// Its memory.
    pub memory_mib: u64,
    /// The size of its huge pages, when it lies in such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_kib: Option<u32>,
    /// The cells it is bound to, sorted, its first virtual CPUs in the first unless pins say otherwise.
    /// What is left over is bound to none: the kernel places it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<CellHolding>,
    /// Which CPU each virtual CPU runs on; empty when they share CPUs with others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// The logical CPUs it has for itself, siblings that stay idle among them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cpus: BTreeSet<u32>,
    /// How many of its virtual CPUs in turn are one core of its host, with all threads of it: its guest sees
    /// them as one core's threads. None where its guest sees cores alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u8>,
    /// The devices it asked for, sorted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub devices: BTreeSet<String>,
    /// What virtual functions among its devices are set to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, VirtualFunction>,
    /// What was plugged in at those of its devices that are places (USB), when it was placed: vendor and product.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, String>,
    /// Devices nobody else gets because they are of the same IOMMU groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub devices_with: BTreeSet<String>,
    /// The affinity groups it is a member of.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<Uuid>,
}

/// What it takes of one cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CellHolding {
    /// The kernel's number of the cell.
    pub cell: u32,
    /// Virtual CPUs that run there.
    pub vcpus: u32,
    /// Memory that lies there.
    pub memory_mib: u64,
    /// The huge pages that are that memory; 0 when it lies in none.
    #[serde(default)]
    pub pages: u64,
}

/// A cell as the guest of a placed server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCell {
    /// The host's cell that its memory is bound to.
    pub cell: u32,
    /// Its virtual CPUs.
    pub vcpus: Vec<u32>,
    /// Its memory.
    pub memory_mib: u64,
}

/// Cores as the guest of a placed server sees them, where it sees their threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenCores {
    /// Sockets. None of them is in two cells.
    pub sockets: u32,
    /// Cores of each socket.
    pub cores: u32,
    /// Threads of each core.
    pub threads: u32,
}

/// One virtual CPU on one logical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The virtual CPU, from 0.
    pub vcpu: u32,
    /// The logical CPU of the host.
    pub cpu: u32,
}

impl Holding {
    /// What is asked for, bound to nothing yet and of no group.
    pub(super) fn of(request: &Request) -> Self {
        Self {
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

    /// What takes this and another one of the same server at once: what both have is taken once.
    #[must_use]
    pub fn cover(&self, other: &Self) -> Self {
        let mut cells: BTreeMap<u32, CellHolding> =
            self.cells.iter().map(|cell| (cell.cell, cell.clone())).collect();
        let pinned = !other.shares_cpus();
        for cell in cells.values_mut().filter(|_| pinned) {
            // What is pinned has its CPUs by number.
            cell.vcpus = 0;
        }
        for cell in &other.cells {
            let both = cells.entry(cell.cell).or_insert_with(|| cell.clone());
            both.vcpus = both.vcpus.max(cell.vcpus);
            both.memory_mib = both.memory_mib.max(cell.memory_mib);
            both.pages = both.pages.max(cell.pages);
        }
        let devices = &self.devices | &other.devices;
        let devices_with = &(&self.devices_with | &other.devices_with) - &devices;
        let (mut functions, mut models) = (self.functions.clone(), self.models.clone());
        functions.extend(other.functions.clone());
        models.extend(other.models.clone());
        let memory: u64 = cells.values().map(|cell| cell.memory_mib).sum();
        let vcpus: u32 = cells.values().map(|cell| cell.vcpus).sum();
        Self {
            vcpus: if pinned { other.vcpus } else { vcpus.max(self.vcpus).max(other.vcpus) },
            memory_mib: memory.max(self.memory_mib).max(other.memory_mib),
            cells: cells.into_values().collect(),
            cpus: &self.cpus | &other.cpus,
            devices,
            functions,
            models,
            devices_with,
            ..other.clone()
        }
    }

    /// Whether all that it takes is part of what another one takes.
    pub fn is_within(&self, other: &Self) -> bool {
        let there = |cell: &CellHolding| {
            other.cells.iter().any(|of| {
                of.cell == cell.cell
                    && (cell.vcpus <= of.vcpus || !self.shares_cpus())
                    && cell.memory_mib <= of.memory_mib
                    && cell.pages <= of.pages
            })
        };
        self.page_kib == other.page_kib
            && self.shares_cpus() == other.shares_cpus()
            && (self.vcpus <= other.vcpus || !self.shares_cpus())
            && self.memory_mib <= other.memory_mib
            && self.cells.iter().all(there)
            && self.cpus.is_subset(&other.cpus)
            && self.devices.is_subset(&other.devices)
            && self.devices_with.is_subset(&(&other.devices_with | &other.devices))
    }

    /// The cells that its guest sees: those that its memory is bound to.
    pub fn seen_cells(&self) -> Vec<SeenCell> {
        let mut next = 0;
        let mut cells: Vec<SeenCell> = Vec::new();
        for held in &self.cells {
            let vcpus = (next..next + held.vcpus).collect();
            cells.push(SeenCell { cell: held.cell, vcpus, memory_mib: held.memory_mib });
            next += held.vcpus;
        }
        // Those that run anywhere are seen in one cell after the other: every CPU is in some cell.
        let count = cells.len().max(1);
        for (at, vcpu) in (next..self.vcpus).enumerate() {
            if let Some(cell) = cells.get_mut(at % count) {
                cell.vcpus.push(vcpu);
            }
        }
        let bound: u64 = self.cells.iter().map(|cell| cell.memory_mib).sum();
        if let Some(last) = cells.last_mut() {
            last.memory_mib += self.memory_mib.saturating_sub(bound);
        }
        cells
    }

    /// The cores that its guest sees, where it sees their threads: one socket in each cell where all cells have as
    /// many of them, and otherwise as few as lie in one cell each.
    pub fn seen_cores(&self) -> Option<SeenCores> {
        let threads = u32::from(self.threads?);
        let all = self.vcpus.checked_div(threads)?;
        let mut cores = all;
        for cell in self.seen_cells() {
            let vcpus = cell.vcpus.len() as u32;
            if !vcpus.is_multiple_of(threads) {
                return None;
            }
            cores = common_divisor(cores, vcpus / threads);
        }
        let sockets = all.checked_div(cores)?;
        Some(SeenCores { sockets, cores, threads })
    }

    /// Whether a guest sees the same of this as of another one, whatever the host's cells are.
    pub fn is_seen_as(&self, other: &Self) -> bool {
        let (here, there) = (self.seen_cells(), other.seen_cells());
        here.len() == there.len()
            && here.iter().zip(&there).all(|(one, other)| {
                (&one.vcpus, one.memory_mib) == (&other.vcpus, other.memory_mib)
            })
    }

    /// Whether its virtual CPUs share CPUs with others'.
    pub fn shares_cpus(&self) -> bool {
        self.pins.is_empty()
    }

    /// Whether it says one thing: sums, pages and pins agree.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let no = |detail: &str| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        let cells = &self.cells;
        let vcpus = cells.iter().fold(0_u64, |sum, cell| sum + u64::from(cell.vcpus));
        let memory = cells.iter().fold(0_u128, |sum, cell| sum + u128::from(cell.memory_mib));
        if vcpus > self.vcpus.into() || memory > self.memory_mib.into() {
            return no("cells: have more than the server");
        }
        if !cells.is_sorted_by(|one, next| one.cell < next.cell) {
            return no("cells: are sorted, each once");
        }
        let kib = u128::from(self.page_kib.unwrap_or(0));
        let whole = |cell: &CellHolding| {
            u128::from(cell.pages) * kib == u128::from(cell.memory_mib) * 1_024
        };
        let pages = match self.page_kib {
            Some(_) => memory == self.memory_mib.into() && cells.iter().all(whole),
            None => cells.iter().all(|cell| cell.pages == 0),
        };
        if !pages {
            return no("cells: pages are all of the memory, or none");
        }
        let pinned: BTreeSet<_> = self.pins.iter().map(|pin| pin.cpu).collect();
        let numbers = self.pins.iter().map(|pin| pin.vcpu).eq(0..self.vcpus);
        let each = self.pins.is_empty() || (numbers && pinned.len() == self.pins.len());
        if self.functions.keys().any(|device| !self.devices.contains(device)) {
            return no("functions: are devices of it");
        }
        if self.models.keys().any(|device| !self.devices.contains(device)) {
            return no("models: are those of devices of it");
        }
        let odd = |threads: u8| threads < 2 || !self.vcpus.is_multiple_of(threads.into());
        if self.threads.is_some_and(|threads| self.pins.is_empty() || odd(threads)) {
            return no(
                "threads: are 2 or more, of pinned virtual CPUs that are so many times some",
            );
        }
        if !each || !pinned.is_subset(&self.cpus) || pinned.is_empty() != self.cpus.is_empty() {
            return no("pins: each virtual CPU has one of the CPUs, in turn");
        }
        Ok(())
    }
}

fn common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many virtual CPUs in each cell, as threads of cores.
    fn seen(cells: &[u32], vcpus: u32, threads: Option<u8>) -> Option<(u32, u32, u32)> {
        let cells: Vec<_> = (0..)
            .zip(cells)
            .map(|(cell, vcpus)| serde_json::json!({"cell": cell, "vcpus": vcpus, "memory_mib": 1}))
            .collect();
        let holding = serde_json::json!({
            "server": Uuid::nil(), "vcpus": vcpus, "memory_mib": 64, "cells": cells, "threads": threads,
        });
        let holding: Holding = serde_json::from_value(holding).unwrap();
        holding.seen_cores().map(|seen| (seen.sockets, seen.cores, seen.threads))
    }

    #[test]
    fn a_socket_is_in_one_cell_and_there_are_as_few_as_can_be() {
        for (cells, vcpus, threads, expected) in [
            (&[][..], 8, None, None),
            (&[], 8, Some(2), Some((1, 4, 2))),
            (&[8], 8, Some(2), Some((1, 4, 2))),
            (&[4, 4], 8, Some(2), Some((2, 2, 2))),
            (&[8, 4], 12, Some(2), Some((3, 2, 2))),
            (&[4, 2], 6, Some(2), Some((3, 1, 2))),
            (&[8, 8], 16, Some(8), Some((2, 1, 8))),
            // Named by hand across cells: no core may be in two.
            (&[3, 5], 8, Some(2), None),
        ] {
            assert_eq!(seen(cells, vcpus, threads), expected, "{cells:?} of {vcpus}");
        }
    }
}
