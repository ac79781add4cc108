//! A server of ours, on a host of ours: what is wanted of it, and where it has its place.
//!
//! ```text
//!          launch              confirm          stop, start, reboot
//!  absent ───────► launching ─────────► running ◄──────────────────► stopped
//!                      │ abandon                                      │ delete  ▲ undelete
//!                      ▼                        purge, or in time     ▼         │
//!                  removing ◄────────────────────────────────────── deleted ────┘
//!                      │ confirm-removal
//!                      ▼
//!                    gone
//! ```
//!
//! Its place is taken on the host by the append that launches it, and given back by the one that
//! records that nothing of it is left there.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::Event;
use crate::{
    compute::placement::{
        Affinity, Architecture, DeviceAsk, Fill, HostId, Numa, Pinning, Placement, Request,
        ServerId,
    },
    kernel::{Companion, Facets, Refusal, codes},
    tenancy::{check_name, check_tags},
};

/// What runs our own servers, as the provider's name in rows.
pub const PROVIDER: &str = "kvm";
/// How long a deleted server can be had back.
pub const BIN: TimeDelta = TimeDelta::days(3);

/// What is wanted of a server's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its instruction set.
    #[serde(default = "x86_64")]
    pub architecture: Architecture,
    /// Virtual CPUs, 1…8,192.
    pub vcpus: u32,
    /// Memory, at least 1 MiB.
    pub memory_mib: u64,
    /// The size of the huge pages it is to lie in, in KiB; none for ordinary memory.
    #[serde(default)]
    pub page_kib: Option<u32>,
    /// How it keeps to NUMA cells.
    #[serde(default)]
    pub numa: Numa,
    /// Most cells it may be cut over, 1…64.
    #[serde(default = "one")]
    pub cells_max: u32,
    /// Whether it has CPUs for itself.
    #[serde(default)]
    pub pinning: Pinning,
    /// Devices of the host to pass through.
    #[serde(default)]
    pub devices: Vec<DeviceAsk>,
}

fn x86_64() -> Architecture {
    Architecture::X86_64
}

fn one() -> u32 {
    1
}

/// Where a server may go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    /// Tags the host must have.
    #[serde(default)]
    pub tags_required: BTreeSet<String>,
    /// Tags the host must not have.
    #[serde(default)]
    pub tags_forbidden: BTreeSet<String>,
    /// What the host must reach.
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

/// What a server is launched with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Its name.
    pub name: String,
    /// Who owns it; none is the estate.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// What is wanted of its machine.
    pub spec: Spec,
    /// Where it may go.
    #[serde(default)]
    pub wishes: Wishes,
    /// Its tags, at most 50.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether it cannot be deleted before this is taken away.
    #[serde(default)]
    pub protected: bool,
    /// Where it goes: found out by Skyledger, and of no use to callers.
    #[serde(default)]
    pub placement: Option<Box<Placement>>,
}

/// A server of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Home {
    /// Its name.
    pub name: String,
    /// What is wanted of its machine.
    pub spec: Spec,
    /// Where it may go.
    pub wishes: Wishes,
    /// Where it has its place, with what it takes there and why.
    pub placement: Box<Placement>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether it cannot be deleted.
    #[serde(default)]
    pub protected: bool,
    /// Until when it can be had back, once it was deleted.
    #[serde(default)]
    pub deleted_until: Option<DateTime<Utc>>,
    /// Whether nothing of it is left on any host.
    #[serde(default)]
    pub removed: bool,
}

impl Launch {
    /// What is asked of the fleet.
    pub fn request(&self, server: ServerId) -> Request {
        let (spec, wishes) = (self.spec.clone(), self.wishes.clone());
        Request {
            server,
            architecture: spec.architecture,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            page_kib: spec.page_kib,
            numa: spec.numa,
            cells_max: spec.cells_max,
            pinning: spec.pinning,
            devices: spec.devices,
            tags_required: wishes.tags_required,
            tags_forbidden: wishes.tags_forbidden,
            labels: wishes.labels,
            affinities: wishes.affinities,
            only: wishes.only,
            except: wishes.except,
            fill: wishes.fill,
        }
    }

    /// Whether it can be asked at all, and was given the place it asked for.
    pub(super) fn check(&self) -> Result<&Placement, Refusal> {
        check_name(&self.name)?;
        if !self.tags.is_empty() {
            let tags = self.tags.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
            check_tags(&tags.collect())?;
        }
        let placement = self
            .placement
            .as_deref()
            .ok_or_else(|| Refusal::new(&codes::NO_ROOM, "placement: no place was looked for"))?;
        let holding = &placement.holding;
        self.request(holding.server).check()?;
        let asked = (self.spec.vcpus, self.spec.memory_mib, self.spec.page_kib);
        if asked != (holding.vcpus, holding.memory_mib, holding.page_kib) {
            let detail = "placement: it is of another server";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(placement)
    }
}

impl Home {
    pub(super) fn of(launch: Launch) -> Option<Self> {
        Some(Self {
            name: launch.name,
            spec: launch.spec,
            wishes: launch.wishes,
            placement: launch.placement?,
            tags: launch.tags,
            protected: launch.protected,
            deleted_until: None,
            removed: false,
        })
    }

    /// Fills the columns of the inventory.
    pub(super) fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
        facets.provider = Some(PROVIDER.to_owned());
        facets.external_id = Some(self.placement.holding.server.to_string());
        facets.parent = Some(self.placement.host.to_string());
        facets.tags.clone_from(&self.tags);
        facets.gone = self.removed;
    }

    /// What its facts say to its host.
    pub(super) fn companions(event: &Event, home: Option<&Self>) -> Option<Companion> {
        let to = |host: HostId, verb: &'static str, body| {
            Some(Companion { kind: "host", id: host.uuid(), verb, body })
        };
        match (event, home) {
            (Event::Launched { launch }, _) => {
                let placement = launch.placement.as_ref()?;
                to(placement.host, "reserve", json!({"holding": placement.holding}))
            }
            (Event::Removed { .. }, Some(home)) => {
                let server = home.placement.holding.server;
                to(home.placement.host, "release", json!({"server": server}))
            }
            _ => None,
        }
    }
}
