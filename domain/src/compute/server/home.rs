//! A server of ours, on a host of ours: what is wanted of it, and where it has its place.
//!
//! ```text
//!          launch              confirm          stop, start, reboot
//!  absent ───────► launching ─────────► running ◄──────────────────► stopped
//!                      │              suspend │ ▲ resume              │
//!                      │                      ▼ │                     │
//!                      │                   suspended                  │
//!                      │ abandon                                      │ delete  ▲ undelete
//!                      ▼                        purge, or in time     ▼         │
//!                  removing ◄────────────────────────────────────── deleted ────┘
//!                      │ confirm-removal
//!                      ▼
//!                    gone
//! ```
//!
//! Its place is taken on the host by the append that launches it, and given back by the one that
//! records that nothing of it is left there. Of another size: [`super::resize`]. To be repaired:
//! [`super::rescue`]. To be looked at: [`super::console`].

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    Event,
    adopted::Adopted,
    boot::{self, BootDevice},
    coming::Coming,
    console::Console,
    hardware::Hardware,
    migrate::Moving,
    parts::{DISKS_MAX, DiskAsk, KEY_PAIRS_MAX, NICS_MAX, NicAsk, Parts},
    rescue::Rescue,
};
use crate::{
    compute::image::Firmware,
    compute::move_in,
    compute::placement::{
        Affinity, Architecture, DeviceAsk, Fill, Holding, HostId, Numa, Pinning, Placement,
        Request, ServerId,
    },
    compute::storage::{self, StorageId},
    kernel::{Companion, Facets, Refusal, codes},
    tenancy::{check_name, check_tags},
};

/// What runs our own servers, as the provider's name in rows.
pub const PROVIDER: &str = "kvm";
/// How long a deleted server can be had back.
pub const BIN: TimeDelta = TimeDelta::days(3);
/// Most tags of a server.
const TAGS_MAX: usize = 50;

/// What is wanted of a server's machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Its instruction set.
    #[serde(default = "x86_64")]
    pub architecture: Architecture,
    /// Virtual CPUs, 1…8,192.
    pub vcpus: u32,
    /// Virtual CPUs that it may come to have while it runs, up to 8,192; as many as it has when it is left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus_max: Option<u32>,
    /// Memory, at least 1 MiB.
    pub memory_mib: u64,
    /// Memory that it may come to have while it runs; as much as it has when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_mib: Option<u64>,
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

/// Where what a new server's disks are made from can be read: it is made there, and goes where it may afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reads {
    /// The host that has it alone; none when others have it as well.
    #[serde(default)]
    pub host: Option<HostId>,
    /// The storages on which it lies.
    #[serde(default)]
    pub storages: BTreeSet<StorageId>,
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
    /// What is wanted of its machine; left out when a flavour says it.
    #[serde(default = "Spec::unsaid", skip_serializing_if = "Spec::is_unsaid")]
    pub spec: Spec,
    /// The flavour that says what is wanted of its machine, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavour: Option<Uuid>,
    /// Where it may go.
    #[serde(default)]
    pub wishes: Wishes,
    /// Its tags, at most 50.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether it cannot be deleted before this is taken away.
    #[serde(default)]
    pub protected: bool,
    /// The image its root disk is made from, by id; none for disks with nothing on them.
    #[serde(default)]
    pub image: Option<Uuid>,
    /// The disc in its drive, by id: an image of the format `iso`. It is tried after the first disk; without
    /// it the server has no drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<Uuid>,
    /// What it is started from, in turn, each once; its first disk and then its drive when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_order: Vec<BootDevice>,
    /// What it is started by; as the image says when left out, and BIOS when that says nothing.
    #[serde(default)]
    pub firmware: Option<Firmware>,
    /// What its disks and interfaces are for its system; virtio when left out, or as the machine says that it is made
    /// from.
    #[serde(default, skip_serializing_if = "Hardware::is_virtio")]
    pub hardware: Hardware,
    /// The backup set that its disks are made from, by id: in their order, each as large as it was. `disks`
    /// and `image` are left out then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_set: Option<Uuid>,
    /// The machine that it is made from, of others that run it: its disks come here while it runs, and the server
    /// waits for them. `disks`, `nics` and `firmware` are the machine's when they are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_in: Option<move_in::Ask>,
    /// Its disks, at most 26; with an image the first is made from it, and with none named it has one
    /// as large as the image needs.
    #[serde(default)]
    pub disks: Vec<DiskAsk>,
    /// Its interfaces, at most 16.
    #[serde(default)]
    pub nics: Vec<NicAsk>,
    /// The key pairs of who may log in, by id, at most 64.
    #[serde(default)]
    pub key_pairs: Vec<Uuid>,
    /// What it does at its first boot: a cloud-config, a script or several of them, at most 49,152
    /// bytes. It is sealed before it is recorded.
    #[serde(default)]
    pub userdata: Option<String>,
    /// What it is made of: found out by Skyledger, and of no use to callers.
    #[serde(default)]
    pub parts: Option<Box<Parts>>,
    /// Where what its disks are made from can be read: found out by Skyledger, and of no use to callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
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
    /// The flavour that said so, by id; none when it is of none, or has another size since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavour: Option<Uuid>,
    /// Where it may go.
    pub wishes: Wishes,
    /// Where it has its place, with what it takes there and why.
    pub placement: Box<Placement>,
    /// What it is made of besides.
    #[serde(default)]
    pub parts: Parts,
    /// What it does at its first boot, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userdata: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether it cannot be deleted.
    #[serde(default)]
    pub protected: bool,
    /// Until when it can be had back, once it was deleted.
    #[serde(default)]
    pub deleted_until: Option<DateTime<Utc>>,
    /// What it is started from, in turn; its first disk and then its drive when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_order: Vec<BootDevice>,
    /// Its consoles that are open, or that a ticket may open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consoles: Vec<Console>,
    /// Its being in rescue; none when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Rescue>,
    /// Where it comes from and goes to, while it is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
    /// Whether its machine may have more than is known of it, because a growth was given up half way: its
    /// host keeps that for it until it stops.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_have_grown: bool,
    /// What it has of its time as somebody's machine, where it was adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
    /// The move by which it comes from somewhere else; none for a server that was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comes: Option<Coming>,
    /// Whether nothing of it is left on any host.
    #[serde(default)]
    pub removed: bool,
}

impl Spec {
    /// None.
    fn unsaid() -> Self {
        Self {
            architecture: x86_64(),
            vcpus: 0,
            vcpus_max: None,
            memory_mib: 0,
            memory_max_mib: None,
            page_kib: None,
            numa: Numa::default(),
            cells_max: one(),
            pinning: Pinning::default(),
            devices: Vec::new(),
        }
    }

    fn is_unsaid(&self) -> bool {
        *self == Self::unsaid()
    }

    /// Whether a server can be of it at all.
    ///
    /// # Errors
    /// `invalid-field`, with the field and what it may be; as [`Self::check_growth`].
    pub fn check(&self) -> Result<(), Refusal> {
        self.check_growth()?;
        Launch::of("", self.clone()).request(ServerId::new(Uuid::nil())).check()
    }
}

impl Launch {
    /// A launch of this name and machine, and nothing else.
    pub(super) fn of(name: &str, spec: Spec) -> Self {
        Self {
            name: name.to_owned(),
            project: None,
            spec,
            flavour: None,
            wishes: Wishes::default(),
            tags: BTreeMap::new(),
            protected: false,
            image: None,
            cdrom: None,
            boot_order: Vec::new(),
            firmware: None,
            hardware: Hardware::default(),
            backup_set: None,
            move_in: None,
            disks: Vec::new(),
            nics: Vec::new(),
            key_pairs: Vec::new(),
            userdata: None,
            parts: None,
            reads: None,
            placement: None,
        }
    }

    /// What is asked of the fleet.
    pub fn request(&self, server: ServerId) -> Request {
        let (spec, wishes) = (self.spec.clone(), self.wishes.clone());
        let carriers = self.parts.as_deref().map_or_else(BTreeSet::new, Parts::carriers);
        let reads = self.reads.clone().unwrap_or_default();
        let asked = self.disks.iter().map(|ask| ask.storage);
        let storages = storage::labels(asked.chain(reads.storages.into_iter().map(Some)));
        Request {
            server,
            architecture: spec.architecture,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            page_kib: spec.page_kib,
            numa: spec.numa,
            cells_min: 1,
            cells_max: spec.cells_max,
            pinning: spec.pinning,
            devices: spec.devices,
            tags_required: wishes.tags_required,
            tags_forbidden: wishes.tags_forbidden,
            labels: &(&wishes.labels | &storages) | &carriers,
            affinities: wishes.affinities,
            // Who says `only` as well was asked whether it is one of those.
            only: reads.host.map_or(wishes.only, |host| [host].into()),
            except: wishes.except,
            fill: wishes.fill,
        }
    }

    /// Whether it says what machine it is: itself, or what it is launched from.
    ///
    /// # Errors
    /// `invalid-field`.
    pub fn ensure_said(&self) -> Result<(), Refusal> {
        if self.spec.is_unsaid() {
            let detail = "spec: says what machine it is, or a flavour does: name one of them";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(())
    }

    /// Whether it can be asked at all, whichever host has a place for it.
    ///
    /// # Errors
    /// `invalid-field`, and what is in the way of a machine that is moved here.
    pub fn check_asked(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        self.ensure_said()?;
        if !self.tags.is_empty() {
            let tags = self.tags.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
            check_tags(&tags.collect())?;
        }
        let most = |what: &str, is: usize, most: usize| {
            let detail = format!("{what}: at most {most}");
            if is > most { Err(Refusal::new(&codes::INVALID_FIELD, detail)) } else { Ok(()) }
        };
        most("disks", self.disks.len(), DISKS_MAX)?;
        most("nics", self.nics.len(), NICS_MAX)?;
        most("key_pairs", self.key_pairs.len(), KEY_PAIRS_MAX)?;
        let asked = self.image.is_some()
            || self.cdrom.is_some()
            || !(self.disks.is_empty() && self.nics.is_empty() && self.key_pairs.is_empty());
        if asked && self.parts.is_none() {
            let detail = "parts: nobody looked for what it is made of";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        self.spec.check_growth()?;
        let functions = self.parts.iter().flat_map(|parts| parts.functions());
        for function in functions {
            if !self.spec.devices.contains(&function) {
                let detail =
                    "spec.devices: nobody asked for the virtual functions of its interfaces";
                return Err(Refusal::new(&codes::INVALID_FIELD, detail));
            }
        }
        if !self.boot_order.is_empty() {
            let parts = self.parts.as_deref().cloned().unwrap_or_default();
            boot::check("boot_order", &self.boot_order, &parts)?;
        }
        self.check_move_in()
    }

    /// Whether it can be asked at all, and was given the place it asked for.
    pub(super) fn check(&self) -> Result<&Placement, Refusal> {
        self.check_asked()?;
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
            comes: Coming::of(&launch),
            name: launch.name,
            spec: launch.spec,
            flavour: launch.flavour,
            wishes: launch.wishes,
            placement: launch.placement?,
            parts: launch.parts.map(|parts| *parts).unwrap_or_default(),
            userdata: launch.userdata,
            tags: launch.tags,
            protected: launch.protected,
            deleted_until: None,
            boot_order: launch.boot_order,
            consoles: Vec::new(),
            rescue: None,
            moving: None,
            may_have_grown: false,
            adopted: None,
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

    /// What its facts say to its host and its networks.
    pub(super) fn companions(event: &Event, home: Option<&Self>) -> Vec<Companion> {
        let to = |host: HostId, verb: &'static str, body| Companion {
            kind: "host",
            id: host.uuid(),
            verb,
            body,
        };
        match (event, home) {
            (Event::Launched { launch }, _) => {
                let placed = launch.placement.as_ref().map(|placement| {
                    to(placement.host, "reserve", json!({"holding": placement.holding}))
                });
                let nics = launch.parts.iter().flat_map(|parts| parts.give());
                let disks =
                    launch.placement.iter().zip(&launch.parts).flat_map(|(placement, parts)| {
                        let server = placement.holding.server.uuid();
                        parts.provision(launch, placement.host, server)
                    });
                placed.into_iter().chain(nics).chain(disks).collect()
            }
            (Event::Removed { .. }, Some(home)) => {
                let server = home.placement.holding.server;
                let host = to(home.placement.host, "release", json!({"server": server}));
                let disks = home.parts.tell_disks("go-with-server");
                std::iter::once(host).chain(home.parts.release()).chain(disks).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What its host is told to keep for it.
    pub(super) fn keep(&self, holding: &Holding) -> Companion {
        let id = self.placement.host.uuid();
        Companion { kind: "host", id, verb: "resize", body: json!({"holding": holding}) }
    }

    /// Tags that are to be other than they are.
    pub(super) fn tag(
        &self,
        tags: BTreeMap<String, Option<String>>,
    ) -> Result<Vec<Event>, Refusal> {
        check_tags(&tags)?;
        if tags.iter().all(|(name, value)| self.tags.get(name) == value.as_ref()) {
            return Ok(vec![]);
        }
        let mut after = self.clone();
        after.retag(tags.clone());
        if after.tags.len() > TAGS_MAX {
            let detail = format!("tags: it would have {}, at most {TAGS_MAX}", after.tags.len());
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(vec![Event::Tagged { tags }])
    }

    pub(super) fn retag(&mut self, tags: BTreeMap<String, Option<String>>) {
        for (name, value) in tags {
            match value {
                Some(value) => drop(self.tags.insert(name, value)),
                None => drop(self.tags.remove(&name)),
            }
        }
    }
}
