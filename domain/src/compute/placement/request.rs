//! What is asked for a server.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    facts::{Architecture, CELLS_MAX, CPUS_MAX, Device, MEMORY_MIB_MAX},
    function::VirtualFunction,
    host::{HostId, ServerId},
    room::DeviceRoom,
};
use crate::kernel::{Refusal, codes};

/// Most devices of one server: what a machine has slots for, and more.
pub(super) const DEVICES_ASKED_MAX: u32 = 64;
/// Most entries of each list of a request.
const ENTRIES_MAX: usize = 64;
/// The largest [`DeviceAsk::narrowness`].
const NARROWEST: usize = 2;

/// What is asked for a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Who asks.
    pub server: ServerId,
    /// Its instruction set.
    pub architecture: Architecture,
    /// Virtual CPUs, 1…8,192.
    pub vcpus: u32,
    /// Memory, at least 1.
    pub memory_mib: u64,
    /// The size of the huge pages it is to lie in, in KiB; none for ordinary memory.
    #[serde(default)]
    pub page_kib: Option<u32>,
    /// How it keeps to NUMA cells.
    #[serde(default)]
    pub numa: Numa,
    /// Least cells it is cut over, 1…64: as many as its guest sees already.
    #[serde(default = "one")]
    pub cells_min: u32,
    /// Most cells it may be cut over, 1…64; with 1, its memory crosses no cell.
    #[serde(default = "one")]
    pub cells_max: u32,
    /// Whether it has CPUs for itself.
    #[serde(default)]
    pub pinning: Pinning,
    /// Devices to pass through.
    #[serde(default)]
    pub devices: Vec<DeviceAsk>,
    /// Tags the host must have.
    #[serde(default)]
    pub tags_required: BTreeSet<String>,
    /// Tags the host must not have.
    #[serde(default)]
    pub tags_forbidden: BTreeSet<String>,
    /// What the host must reach: storages, segments.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// Who it is to be with, and who not.
    #[serde(default)]
    pub affinities: Vec<Affinity>,
    /// Only these hosts; any when empty.
    #[serde(default)]
    pub only: BTreeSet<HostId>,
    /// Not these hosts.
    #[serde(default)]
    pub except: BTreeSet<HostId>,
    /// Which of the hosts that are otherwise equal.
    #[serde(default)]
    pub fill: Fill,
}

fn one() -> u32 {
    1
}

/// How a server keeps to NUMA cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Numa {
    /// As strict where that has a place; otherwise as none, and recorded as irregular.
    BestEffort,
    /// The kernel places it. Huge pages are still counted where they are taken.
    #[default]
    None,
    /// In the smallest number of cells, or not at all.
    Strict,
}

/// Whether a server has CPUs for itself. A core that has a server for itself runs nobody else,
/// on none of its threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Pinning {
    /// A core for each virtual CPU; its other threads stay idle.
    Cores {},
    /// The CPUs that are named, one for each virtual CPU in turn.
    Manual {
        /// Logical CPUs of the host.
        cpus: Vec<u32>,
    },
    /// It shares CPUs with others.
    #[default]
    Shared,
    /// Cores, all their threads used: virtual CPUs are siblings as the threads are.
    Siblings {},
}

/// Devices of one sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceAsk {
    /// What, for instance `gpu`.
    pub kind: String,
    /// Which ones; any when none.
    #[serde(default)]
    pub model: Option<String>,
    /// The bridge whose wire it must be on, as a virtual function of a card that is a port of it; any when none.
    /// Not together with a model, of that or another entry for the same kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// Whether its host must have its other end (its representor), so that it can guard what passes. Together
    /// with a carrier.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub represented: bool,
    /// How many, at least 1.
    #[serde(default = "one")]
    pub count: u32,
    /// What virtual functions are set to (kind `vf`); as their card has them when it is left out, untagged
    /// and unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<VirtualFunction>,
}

/// Who a server is to be with, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// The group; the server becomes a member.
    pub group: Uuid,
    /// Together or apart.
    pub relation: Relation,
    /// Whether it is a must, or only better.
    #[serde(default)]
    pub hard: bool,
}

/// Together or apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// On hosts where no other member is.
    Apart,
    /// On the host where the others are.
    Together,
}

/// Which of the hosts that are otherwise equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// The fullest: the others stay free for large servers, or can be switched off.
    Pack,
    /// The emptiest.
    #[default]
    Spread,
}

impl DeviceAsk {
    pub(crate) fn fits(&self, device: &Device) -> bool {
        let carrier = device.carrier.as_deref();
        self.matches(&device.kind, &device.model, carrier, device.is_represented())
    }

    pub(super) fn has_room(&self, room: &DeviceRoom) -> bool {
        self.matches(&room.kind, &room.model, room.carrier.as_deref(), room.is_represented)
    }

    fn matches(&self, kind: &str, model: &str, carrier: Option<&str>, represented: bool) -> bool {
        self.kind == kind
            && self.model.as_deref().is_none_or(|asked| asked == model)
            && self.carrier.as_deref().is_none_or(|asked| carrier == Some(asked))
            && (!self.represented || represented)
    }

    /// How little choice it leaves: what only a few would do for is given first.
    pub(crate) fn narrowness(&self) -> usize {
        let is_particular = self.model.is_some() || self.carrier.is_some();
        usize::from(is_particular) + usize::from(self.represented)
    }

    /// Whether it asks for the same sort as another one of its kind.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (&self.model, &self.carrier, self.represented)
            == (&other.model, &other.carrier, other.represented)
    }

    /// Whether all that would do for another one of its kind would do for it as well.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match self.narrowness() {
            0 => true,
            1 => (&self.model, &self.carrier) == (&other.model, &other.carrier),
            _ => self.is_of(other),
        }
    }

    /// All that are asked for, those that leave the least choice first.
    pub(super) fn narrowest_first(asks: &[Self]) -> impl Iterator<Item = &Self> {
        let of = |narrowness| asks.iter().filter(move |ask| ask.narrowness() == narrowness);
        (0..=NARROWEST).rev().flat_map(of)
    }
}

impl Request {
    /// Whether it can be asked at all, of any host.
    ///
    /// # Errors
    /// `invalid-field`, with the field and what it may be.
    pub fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if !(1..=CPUS_MAX as u32).contains(&self.vcpus) {
            return no(format!("vcpus: {} is not between 1 and {CPUS_MAX}", self.vcpus));
        }
        let most = MEMORY_MIB_MAX * CELLS_MAX as u64;
        if !(1..=most).contains(&self.memory_mib) {
            return no(format!("memory_mib: {} is not between 1 and {most}", self.memory_mib));
        }
        if let Some(kib) = self.page_kib {
            if !kib.is_power_of_two() {
                return no(format!("page_kib: {kib} is no size of a page"));
            }
            if !self.memory_mib.is_multiple_of(self.unit_mib()) {
                let memory = self.memory_mib;
                return no(format!("memory_mib: {memory} MiB are not whole pages of {kib} KiB"));
            }
        }
        if !(1..=CELLS_MAX as u32).contains(&self.cells_max) {
            return no(format!("cells_max: {} is not between 1 and {CELLS_MAX}", self.cells_max));
        }
        if !(1..=self.cells_max).contains(&self.cells_min) {
            let (min, max) = (self.cells_min, self.cells_max);
            return no(format!("cells_min: {min} is not between 1 and {max}"));
        }
        if let Pinning::Manual { cpus } = &self.pinning {
            if cpus.len() != self.vcpus as usize {
                return no(format!("pinning: {} CPUs for {} virtual CPUs", cpus.len(), self.vcpus));
            }
            let mut seen = BTreeSet::new();
            if let Some(cpu) = cpus.iter().find(|cpu| !seen.insert(**cpu)) {
                return no(format!("pinning: CPU {cpu} is named twice"));
            }
        }
        let lists = [
            self.devices.len(),
            self.tags_required.len(),
            self.tags_forbidden.len(),
            self.labels.len(),
            self.affinities.len(),
        ];
        if lists.into_iter().any(|entries| entries > ENTRIES_MAX) {
            return no(format!("at most {ENTRIES_MAX} entries in each list"));
        }
        let devices = self.devices.iter().fold(0_u64, |sum, ask| sum + u64::from(ask.count));
        if self.devices.iter().any(|ask| ask.count == 0) || devices > DEVICES_ASKED_MAX.into() {
            return no(format!("devices: counts from 1, together at most {DEVICES_ASKED_MAX}"));
        }
        // What is asked for by model and what by wire are sets of which each has a part of the other.
        let by_wire = self.devices.iter().filter(|ask| ask.carrier.is_some());
        for ask in by_wire {
            if self.devices.iter().any(|other| other.kind == ask.kind && other.model.is_some()) {
                let kind = &ask.kind;
                return no(format!("devices: {kind} by model and by carrier: name one of them"));
            }
        }
        if self.devices.iter().any(|ask| ask.represented && ask.carrier.is_none()) {
            return no("devices: represented: together with a carrier".to_owned());
        }
        let mut macs = BTreeSet::new();
        for ask in &self.devices {
            let Some(function) = ask.function else { continue };
            function.check(&ask.kind, ask.count)?;
            if function.mac.is_some_and(|mac| !macs.insert(mac)) {
                return no("devices: function: two have one hardware address".to_owned());
            }
        }
        Ok(())
    }

    /// The MiB that its memory is cut into at the least: a huge page, or as many as make one MiB.
    pub(super) fn unit_mib(&self) -> u64 {
        self.page_kib.map_or(1, |kib| u64::from(kib / 1_024).max(1))
    }

    /// Its memory in such units.
    pub(super) fn units(&self) -> u64 {
        self.memory_mib / self.unit_mib()
    }

    /// Huge pages of so many units; 0 for ordinary memory.
    pub(super) fn pages(&self, units: u64) -> u64 {
        self.page_kib.map_or(0, |kib| units * u64::from(1_024 / kib).max(1))
    }
}
