//! A machine of our own that runs servers.
//!
//! ```text
//!          enrol             join, sight              disable, enter-maintenance
//!  absent ───────► enrolled ─────────────► ready ◄──────────────────────────────► disabled,
//!                     │                      │      enable, leave-maintenance     maintenance
//!                     └──────── retire ──────┴───────── retire ───────► retired
//! ```
//!
//! What people want of it ([`HostSettings`]) and what its agent sees of it ([`HostSighting`]) are two fields;
//! together they are what a placement counts with ([`Host::facts`]). What servers hold of it is
//! recorded here as well: the append that places a server is the one that takes its holding, so a host
//! never gives what it has not.
//!
//! An agent that joins gets the next epoch. What comes from an older one changes nothing: it may have
//! been cut off for an hour while another took its place.
//!
//! Whether the agent is heard is another matter than where the host is in its life: a host that is
//! `ready` may be unreachable for a while. Its servers may run on all the same; it gets no new ones.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    adoption::{Adopt, Adoption, ForeignMachine, MACHINES_MAX},
    placement::{
        self, AgentState, Architecture, Availability, Cell, Device, Holding, HostFacts, HostId,
        ServerId,
    },
    server::{adopted, rescue::RescueSystem},
    storage::{self, STORAGES_MAX, StorageId, VolumeGroup},
};
use crate::{
    kernel::{
        Companion, Decider, Facets, OnHost, Orders, Outstanding, Refusal, Stamp, Verb, codes,
        fields,
    },
    network::carrier::{self, CARRIERS_MAX},
    tenancy::check_name,
};

/// Most tags and labels of a host, each.
const TAGS_MAX: usize = 64;
/// Longest text that an agent says of itself, in bytes.
const AGENT_BYTES_MAX: usize = 128;

/// What people want of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSettings {
    /// What people call its properties, at most 64; a launch may want or forbid them.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Virtual CPUs that share a hundred logical ones, 100…10,000.
    #[serde(default = "cpu_default")]
    pub cpu_overcommit_percent: u32,
    /// MiB promised for a hundred MiB of memory, 100…10,000; only 100 on a host with huge pages.
    #[serde(default = "memory_default")]
    pub memory_overcommit_percent: u32,
    /// Logical CPUs that no server gets.
    #[serde(default)]
    pub cpus_reserved: BTreeSet<u32>,
    /// Memory that no server gets; each cell at most once.
    #[serde(default)]
    pub memory_reserved: Vec<Reserve>,
    /// What its servers are repaired with, by architecture: files that it has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rescue: BTreeMap<Architecture, RescueSystem>,
}

/// Memory of a cell that no server gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The kernel's number of the cell.
    pub cell: u32,
    /// So much of it.
    pub memory_mib: u64,
}

fn cpu_default() -> u32 {
    800
}

fn memory_default() -> u32 {
    100
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            tags: BTreeSet::new(),
            cpu_overcommit_percent: cpu_default(),
            memory_overcommit_percent: memory_default(),
            cpus_reserved: BTreeSet::new(),
            memory_reserved: Vec::new(),
            rescue: BTreeMap::new(),
        }
    }
}

/// What its agent sees of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSighting {
    /// Its instruction set.
    pub architecture: Architecture,
    /// What runs its servers, for instance `qemu 10.0.2, libvirt 11.3.0`.
    #[serde(default)]
    pub virtualisation: String,
    /// What it reaches: storages, segments.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// Its NUMA cells, sorted by id; what no server gets of them is said in the settings.
    pub cells: Vec<Cell>,
    /// What it can pass through, sorted by id.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Storage that it reaches, and that others may reach as well.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub storages: BTreeSet<StorageId>,
    /// Those of them that are volume groups.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volume_groups: BTreeMap<StorageId, VolumeGroup>,
    /// What segments may be carried by there: `bridge/br0` for VLANs of a bridge, `ovs/switch` for a bridge of
    /// Open vSwitch. None of an agent that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carriers: Option<BTreeSet<String>>,
    /// Machines that are no servers of ours, by UUID; the first 1,000.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub machines: BTreeMap<Uuid, ForeignMachine>,
}

impl HostSighting {
    /// What servers may ask their host to reach.
    fn reaches(&self) -> BTreeSet<String> {
        let carriers: BTreeSet<String> = match &self.carriers {
            Some(carriers) => carriers.iter().map(|one| carrier::label(one)).collect(),
            None => [carrier::ANY.to_owned()].into(),
        };
        let storages = storage::labels(self.storages.iter().copied().map(Some));
        &(&self.labels | &storages) | &carriers
    }
}

/// A command of a host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Give up the order that is parked: what is left of a server is a person's to remove.
    Abandon {},
    /// Have a machine that is there as a server of ours, as it is.
    Adopt(Adopt),
    /// A server is elsewhere now: nothing of it is to be left here.
    Clear {
        /// Which.
        server: ServerId,
        /// This host's own id.
        host: HostId,
        /// Its disks that were on this host alone: they are elsewhere, too.
        #[serde(default)]
        disks: BTreeSet<Uuid>,
    },
    /// Say what is wanted of it; the whole of it.
    Configure {
        /// What is wanted.
        settings: HostSettings,
    },
    /// Its agent has left nothing of a server.
    ConfirmClearing {
        /// The order's number.
        number: u64,
    },
    /// Give it no new servers; those it has stay. Ends a drain.
    Disable {},
    /// Give it no new servers, and let those it has go elsewhere, a few at a time.
    Drain {},
    /// Give it servers again. Ends a drain.
    Enable {},
    /// Make it known, before its agent joins.
    Enrol {
        /// Its name, once among hosts.
        name: String,
        /// What is wanted of it.
        #[serde(default)]
        settings: HostSettings,
    },
    /// Say that it is being worked on: it gets no servers.
    EnterMaintenance {},
    /// It is taken to be dead: what its agent does from now on counts only after it has joined again.
    Fence {
        /// The server that is had back elsewhere.
        server: ServerId,
        /// This host's own id.
        host: HostId,
    },
    /// Its agent begins to work for it; any agent before it is fenced off.
    Join {
        /// The epoch that begins: one more than that before.
        epoch: u64,
        /// What the agent says of itself, at most 128 bytes.
        agent: String,
    },
    /// Say that it is not being worked on any more.
    LeaveMaintenance {},
    /// Its agent is heard again.
    MarkReachable {
        /// The agent's epoch.
        epoch: u64,
    },
    /// Its agent has not been heard for a while.
    MarkUnreachable {
        /// The agent's epoch.
        epoch: u64,
        /// When it was heard last; none when nobody here knows.
        #[serde(default)]
        last_heard: Option<DateTime<Utc>>,
    },
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// A server is placed here.
    Reserve {
        /// What it takes.
        holding: Holding,
    },
    /// A server is here no longer.
    Release {
        /// Which.
        server: ServerId,
    },
    /// A server that is here takes something else.
    Resize {
        /// What it takes from now on.
        holding: Holding,
    },
    /// Take it out of the estate; it must have no server.
    Retire {},
    /// Go on with the order that is parked.
    Retry {},
    /// Its agent says what it is.
    Sight {
        /// The agent's epoch.
        epoch: u64,
        /// What it sees.
        seen: HostSighting,
    },
}

/// A fact about a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// A machine that is there is a server of ours from now on.
    Adopted {
        /// What the server is.
        adoption: Box<Adoption>,
    },
    /// Its agent is heard again.
    BecameReachable {},
    /// Its agent is not heard any more.
    BecameUnreachable {
        /// When it was heard last, or when that was noticed where nobody knows.
        since: DateTime<Utc>,
    },
    /// Nothing of a server is left here.
    Cleared {
        /// Which.
        server: ServerId,
    },
    /// Nothing of a server is to be left here.
    ClearingOrdered {
        /// Which.
        server: ServerId,
        /// The host's own id.
        host: HostId,
        /// Its disks that were on this host alone.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        disks: BTreeSet<Uuid>,
    },
    /// This is wanted of it from now on.
    Configured {
        /// What is wanted.
        settings: HostSettings,
    },
    /// It gets no new servers, and those it has stay.
    Disabled {},
    /// It gets no new servers, and those it has go elsewhere.
    DrainStarted {},
    /// It gets servers again.
    Enabled {},
    /// It is known.
    Enrolled {
        /// Its name.
        name: String,
        /// What is wanted of it.
        settings: HostSettings,
    },
    /// It is taken to be dead; the epoch of its agent is over.
    Fenced {
        /// The epoch that begins, in which nobody works for it.
        epoch: u64,
    },
    /// An agent works for it; those before it do not any more.
    Joined {
        /// The agent's epoch: one more than that before.
        epoch: u64,
        /// What the agent says of itself.
        agent: String,
    },
    /// It is being worked on.
    MaintenanceEntered {},
    /// It is not being worked on any more.
    MaintenanceLeft {},
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// A server was given back what it took.
    Released {
        /// Which.
        server: ServerId,
    },
    /// A server has taken its place.
    Reserved {
        /// What it took.
        holding: Holding,
    },
    /// A server that is here takes something else.
    Resized {
        /// What it takes from now on.
        holding: Holding,
    },
    /// It is no part of the estate any more.
    Retired {},
    /// A parked order goes on.
    RetryOrdered {},
    /// It was seen to be different.
    Sighted {
        /// What it is now.
        seen: HostSighting,
        /// Which fields differ from what was seen before.
        fields: Vec<String>,
    },
}

/// A machine of our own that runs servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// What is wanted of it.
    pub settings: HostSettings,
    /// Whether it gets no new servers.
    #[serde(default)]
    pub disabled: bool,
    /// Whether the servers it has go elsewhere; it gets no new ones then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Whether it is being worked on.
    #[serde(default)]
    pub maintenance: bool,
    /// Whether it was taken out of the estate.
    #[serde(default)]
    pub retired: bool,
    /// How many agents have joined: the epoch of the last.
    #[serde(default)]
    pub epoch: u64,
    /// What the last agent says of itself.
    #[serde(default)]
    pub agent: String,
    /// Since when its agent is not heard; none while it is.
    #[serde(default)]
    pub unreachable_since: Option<DateTime<Utc>>,
    /// What was last seen of it.
    #[serde(default)]
    pub seen: Option<HostSighting>,
    /// What servers hold of it.
    #[serde(default)]
    pub holdings: BTreeMap<ServerId, Holding>,
    /// Whether it is taken to be dead, until an agent joins it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fenced: bool,
    /// Servers that are elsewhere, and of which something may be left here, with this host's own id. They
    /// hold what they held until that is gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clearing: BTreeMap<ServerId, HostId>,
    /// The disks of those that were on this host alone, and are to be removed with them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clearing_disks: BTreeMap<ServerId, BTreeSet<Uuid>>,
    /// What is wanted of it.
    #[serde(default)]
    pub orders: Orders<Order>,
}

/// What a host can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
#[schemars(rename = "HostOrder")]
pub enum Order {
    /// Leave nothing of a server that is elsewhere now. What it shares with other hosts stays.
    Clear {
        /// Which.
        server: ServerId,
        /// On which host.
        host: HostId,
        /// Its disks that were on this host alone.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        disks: BTreeSet<Uuid>,
    },
}

static VERBS: &[Verb] = &[
    Verb::admin(
        "abandon",
        "Gives up the parked order: what is left of a server is a person's to remove.",
    ),
    Verb::admin(
        "adopt",
        "Has a machine that is there as a server of ours, as it is, without a restart.",
    ),
    Verb::system("clear", "Has nothing left here of a server that is elsewhere."),
    Verb::admin(
        "configure",
        "Says what is wanted of it: tags, over-commit, what it keeps for itself.",
    ),
    Verb::system("confirm-clearing", "Reports that nothing of a server is left here."),
    Verb::admin("disable", "Gives it no new servers; those it has stay. Ends a drain."),
    Verb::admin("drain", "Gives it no new servers, and lets those it has go elsewhere."),
    Verb::admin("enable", "Gives it servers again. Ends a drain."),
    Verb::admin("enrol", "Makes a host known, before its agent joins.").creating(),
    Verb::admin("enter-maintenance", "Says that it is being worked on: it gets no servers."),
    Verb::system("fence", "Takes it to be dead: its agent's epoch is over."),
    Verb::system("join", "An agent begins to work for it; the one before is fenced off."),
    Verb::admin("leave-maintenance", "Says that it is not being worked on any more."),
    Verb::system("mark-reachable", "Reports that its agent is heard again."),
    Verb::system("mark-unreachable", "Reports that its agent has not been heard for a while."),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::system("release", "Gives back what a server took."),
    Verb::system("reserve", "Takes what a server was placed on."),
    Verb::system("resize", "Takes something else for a server that is here."),
    Verb::admin("retire", "Takes it out of the estate; it must have no server."),
    Verb::admin("retry", "Goes on with the parked order."),
    Verb::system("sight", "Reports what its agent sees of it."),
];

impl Host {
    /// What a placement counts with: what is seen, less what is kept back. A host whose agent has
    /// said nothing yet has nothing and takes nobody.
    pub fn facts(&self, id: HostId) -> HostFacts {
        let settings = &self.settings;
        let mut cells = self.seen.as_ref().map_or_else(Vec::new, |seen| seen.cells.clone());
        for cell in &mut cells {
            let of = settings.memory_reserved.iter().find(|reserve| reserve.cell == cell.id);
            // More huge pages may be there than when it was said.
            let reserved = of.map_or(0, |reserve| reserve.memory_mib.min(cell.memory_usable_mib()));
            cell.memory_reserved_mib = cell.memory_reserved_mib.saturating_add(reserved);
        }
        let seen = self.seen.as_ref();
        let agent = match self {
            Self { seen: None, .. } => AgentState::NotJoined,
            Self { unreachable_since: Some(_), .. } => AgentState::Unreachable,
            _ => AgentState::Works,
        };
        HostFacts {
            id,
            enabled: !self.disabled && !self.draining && !self.retired,
            maintenance: self.maintenance,
            agent,
            architecture: seen.map_or(Architecture::X86_64, |seen| seen.architecture),
            tags: settings.tags.clone(),
            labels: seen.map_or_else(BTreeSet::new, HostSighting::reaches),
            cpu_overcommit_percent: settings.cpu_overcommit_percent,
            memory_overcommit_percent: settings.memory_overcommit_percent,
            cpus_reserved: settings.cpus_reserved.clone(),
            cells,
            devices: seen.map_or_else(Vec::new, |seen| seen.devices.clone()),
        }
    }

    /// The host with what is held of it, as a placement sees it.
    ///
    /// # Errors
    /// `invalid-field`: [`HostFacts::check`], which was asked of every fact before it was recorded.
    pub fn placeable(&self, id: HostId) -> Result<placement::Host, Refusal> {
        placement::Host::new(self.facts(id), self.holdings.values().cloned())
    }

    /// Whether what comes from an agent of this epoch is of the agent that works for it now.
    ///
    /// # Errors
    /// `stale-epoch`.
    pub fn check_epoch(&self, epoch: u64) -> Result<(), Refusal> {
        if epoch == self.epoch && epoch > 0 && !self.fenced {
            return Ok(());
        }
        if self.fenced && epoch + 1 == self.epoch {
            let detail =
                format!("epoch: {} was taken to be dead in {epoch}; join again", self.name);
            return Err(Refusal::new(&codes::HOST_FENCED, detail));
        }
        let detail = format!("epoch: {epoch} is over, {} works for {}", self.epoch, self.name);
        Err(Refusal::new(&codes::STALE_EPOCH, detail))
    }

    /// Settings that a host which is so can have. What it is later is not kept from being known by them: they
    /// hold as far as they can then.
    fn check_here(settings: &HostSettings, seen: &HostSighting) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        for reserve in &settings.memory_reserved {
            let Some(cell) = seen.cells.iter().find(|cell| cell.id == reserve.cell) else {
                return no(format!("memory_reserved: the host has no cell {}", reserve.cell));
            };
            let most = cell.memory_usable_mib();
            if reserve.memory_mib > most {
                return no(format!(
                    "memory_reserved: cell {} has {most} MiB to keep back",
                    cell.id
                ));
            }
        }
        let cores = seen.cells.iter().flat_map(|cell| &cell.cores);
        let cpus: BTreeSet<u32> = cores.flat_map(|core| core.threads.iter().copied()).collect();
        if let Some(cpu) = settings.cpus_reserved.difference(&cpus).next() {
            return no(format!("cpus_reserved: the host has no CPU {cpu}"));
        }
        let has_pages = seen.cells.iter().flat_map(|cell| &cell.pages).any(|pages| pages.count > 0);
        if has_pages && settings.memory_overcommit_percent != 100 {
            let detail = "memory_overcommit_percent: huge pages cannot be promised twice; only 100";
            return no(detail.to_owned());
        }
        Ok(())
    }

    /// Settings and a sighting, each in itself.
    fn check(settings: &HostSettings, seen: Option<&HostSighting>) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if settings.tags.len() > TAGS_MAX {
            return no(format!("tags: at most {TAGS_MAX}"));
        }
        settings.tags.iter().try_for_each(|tag| check_name(tag))?;
        settings.rescue.values().try_for_each(RescueSystem::check)?;
        let cells: BTreeSet<u32> = settings.memory_reserved.iter().map(|one| one.cell).collect();
        if cells.len() < settings.memory_reserved.len() {
            return no("memory_reserved: each cell once".to_owned());
        }
        let probe = Self { settings: settings.clone(), seen: seen.cloned(), ..Self::default() };
        let facts = probe.facts(HostId::new(Uuid::nil()));
        facts.check()?;
        let Some(seen) = seen else { return Ok(()) };
        if seen.labels.len() > TAGS_MAX {
            return no(format!("labels: at most {TAGS_MAX}"));
        }
        if seen.storages.len() > STORAGES_MAX {
            return no(format!("storages: at most {STORAGES_MAX}"));
        }
        if seen.carriers.as_ref().is_some_and(|carriers| carriers.len() > CARRIERS_MAX) {
            return no(format!("carriers: at most {CARRIERS_MAX}"));
        }
        if seen.machines.len() > MACHINES_MAX {
            return no(format!("machines: at most {MACHINES_MAX}"));
        }
        if let Some(id) = seen.volume_groups.keys().find(|id| !seen.storages.contains(id)) {
            return no(format!("volume_groups: {id} is not among the storages"));
        }
        for (id, group) in &seen.volume_groups {
            if group.extent_kib == 0 || group.free_mib > group.size_mib {
                return no(format!(
                    "volume_groups: {id} has less than is free of it, or no extents"
                ));
            }
        }
        Ok(())
    }

    /// A sighting with what is held and was not found: it is lost, and stays with who has it.
    fn with_lost(&self, mut seen: HostSighting) -> HostSighting {
        let held: BTreeSet<&String> = self
            .holdings
            .values()
            .flat_map(|holding| holding.devices.iter().chain(&holding.devices_with))
            .collect();
        let known = self.seen.iter().flat_map(|known| &known.devices);
        let lost = known.filter(|device| {
            held.contains(&device.id) && seen.devices.iter().all(|one| one.id != device.id)
        });
        let lost: Vec<Device> = lost
            .map(|device| {
                let cell = device.cell.filter(|id| seen.cells.iter().any(|cell| cell.id == *id));
                Device { availability: Availability::Lost, cell, ..device.clone() }
            })
            .collect();
        seen.devices.extend(lost);
        seen.devices.sort_by(|one, next| one.id.cmp(&next.id));
        seen
    }

    /// Nothing of a server is left, or is this host's affair any more.
    fn cleared(&mut self, server: ServerId) {
        self.orders.settle();
        self.clearing.remove(&server);
        self.clearing_disks.remove(&server);
        self.holdings.remove(&server);
        self.clear_next();
    }

    /// One after the other.
    fn clear_next(&mut self) {
        if let (None, Some((server, host))) = (&self.orders.out, self.clearing.first_key_value()) {
            let disks = self.clearing_disks.get(server).cloned().unwrap_or_default();
            self.orders.issue(Order::Clear { server: *server, host: *host, disks });
        }
    }

    /// A host that is there, else it is the wrong state for this.
    fn there(&self, verb: &str) -> Result<(), Refusal> {
        if self.name.is_empty() || self.retired {
            return Err(Refusal::wrong_state(verb, self.status()));
        }
        Ok(())
    }
}

impl Decider for Host {
    const KIND: &'static str = "host";
    const PLURAL: &'static str = "hosts";
    const SUMMARY: &'static str = "A machine of our own that runs servers.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let none_if = |already: bool, event: Event| if already { vec![] } else { vec![event] };
        Ok(match command {
            Command::Abandon {} => {
                self.orders.ensure_parked()?;
                vec![Event::Abandoned {}]
            }
            Command::Adopt(ask) => {
                self.there("adopt")?;
                vec![Event::Adopted { adoption: self.adopts(ask)? }]
            }
            Command::Clear { server, host, disks } => {
                let is_new =
                    self.holdings.contains_key(&server) && !self.clearing.contains_key(&server);
                none_if(!is_new, Event::ClearingOrdered { server, host, disks })
            }
            Command::Configure { settings } => {
                self.there("configure")?;
                Self::check(&settings, self.seen.as_ref())?;
                self.seen.as_ref().map_or(Ok(()), |seen| Self::check_here(&settings, seen))?;
                none_if(settings == self.settings, Event::Configured { settings })
            }
            Command::ConfirmClearing { number } => match &self.orders.out {
                Some(Outstanding { order: Order::Clear { server, .. }, .. })
                    if self.orders.is_out(number) =>
                {
                    vec![Event::Cleared { server: *server }]
                }
                // A report about an order that is settled already says nothing new.
                _ => vec![],
            },
            Command::Disable {} => {
                self.there("disable")?;
                none_if(self.disabled, Event::Disabled {})
            }
            Command::Drain {} => {
                self.there("drain")?;
                none_if(self.draining, Event::DrainStarted {})
            }
            Command::Enable {} => {
                self.there("enable")?;
                none_if(!self.disabled && !self.draining, Event::Enabled {})
            }
            Command::Enrol { .. } if !self.name.is_empty() => {
                let detail = format!("this host is {}", self.name);
                return Err(Refusal::new(&codes::ALREADY_EXISTS, detail));
            }
            Command::Enrol { name, settings } => {
                check_name(&name)?;
                Self::check(&settings, None)?;
                vec![Event::Enrolled { name, settings }]
            }
            Command::EnterMaintenance {} => {
                self.there("enter-maintenance")?;
                none_if(self.maintenance, Event::MaintenanceEntered {})
            }
            Command::Fence { .. } if self.fenced => vec![],
            Command::Fence { .. } if self.unreachable_since.is_none() => {
                let detail =
                    format!("{} is heard: let its servers go elsewhere by `migrate`", self.name);
                return Err(Refusal::new(&codes::WRONG_STATE, detail));
            }
            Command::Fence { .. } => vec![Event::Fenced { epoch: self.epoch + 1 }],
            Command::Join { epoch, agent }
                if (epoch, &agent) == (self.epoch, &self.agent) && !self.fenced =>
            {
                self.there("join")?;
                vec![]
            }
            Command::Join { epoch, agent } => {
                self.there("join")?;
                if epoch != self.epoch + 1 {
                    let detail = format!("epoch: the next of {} is {}", self.name, self.epoch + 1);
                    return Err(Refusal::new(&codes::STALE_EPOCH, detail));
                }
                if agent.len() > AGENT_BYTES_MAX {
                    let detail = format!("agent: at most {AGENT_BYTES_MAX} bytes");
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                vec![Event::Joined { epoch, agent }]
            }
            Command::LeaveMaintenance {} => {
                self.there("leave-maintenance")?;
                none_if(!self.maintenance, Event::MaintenanceLeft {})
            }
            Command::MarkReachable { epoch } => {
                self.there("mark-reachable")?;
                self.check_epoch(epoch)?;
                none_if(self.unreachable_since.is_none(), Event::BecameReachable {})
            }
            Command::MarkUnreachable { epoch, last_heard } => {
                self.there("mark-unreachable")?;
                self.check_epoch(epoch)?;
                let since = last_heard.unwrap_or(stamp.now);
                none_if(self.unreachable_since.is_some(), Event::BecameUnreachable { since })
            }
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::Park { .. } => vec![],
            Command::Release { server } => {
                none_if(!self.holdings.contains_key(&server), Event::Released { server })
            }
            Command::Reserve { holding } => {
                self.there("reserve")?;
                if self.holdings.get(&holding.server) == Some(&holding) {
                    return Ok(vec![]);
                }
                if self.disabled || self.draining || self.maintenance {
                    let detail = format!("{} is {}", self.name, self.status());
                    return Err(Refusal::new(&codes::NO_ROOM, detail));
                }
                self.placeable(HostId::new(Uuid::nil()))?.take(holding.clone())?;
                vec![Event::Reserved { holding }]
            }
            Command::Resize { holding } => {
                let Some(held) = self.holdings.get(&holding.server) else {
                    let detail = format!("server {} has no place on this host", holding.server);
                    return Err(Refusal::new(&codes::WRONG_STATE, detail));
                };
                if *held == holding {
                    return Ok(vec![]);
                }
                // What is part of what it has is there, whatever has become of the host.
                if !holding.is_within(held) {
                    let mut host = self.placeable(HostId::new(Uuid::nil()))?;
                    host.give_back(holding.server)?;
                    host.take(holding.clone())?;
                }
                vec![Event::Resized { holding }]
            }
            Command::Retire {} if self.retired => vec![],
            Command::Retire {} => {
                self.there("retire")?;
                let servers = self.holdings.keys().filter(|one| !self.clearing.contains_key(one));
                let servers = servers.count();
                if servers > 0 {
                    let detail = format!("{} has {servers} servers", self.name);
                    return Err(Refusal::new(&codes::IN_USE, detail));
                }
                vec![Event::Retired {}]
            }
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::Sight { epoch, seen } => {
                self.there("sight")?;
                self.check_epoch(epoch)?;
                let seen = self.with_lost(seen);
                Self::check(&self.settings, Some(&seen))?;
                if self.seen.as_ref() == Some(&seen) {
                    return Ok(vec![]);
                }
                let json =
                    |seen: Option<&HostSighting>| serde_json::to_value(seen).unwrap_or_default();
                let differ = fields(&json(self.seen.as_ref()), &json(Some(&seen)));
                let fields = differ.into_iter().map(|one| one.field).collect();
                vec![Event::Sighted { seen, fields }]
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => {
                if let Some(Outstanding { order: Order::Clear { server, .. }, .. }) =
                    &self.orders.out
                {
                    let server = *server;
                    self.cleared(server);
                }
            }
            Event::Adopted { adoption } => {
                let holding = adoption.placement.holding;
                self.holdings.insert(holding.server, holding);
            }
            Event::Cleared { server } => self.cleared(server),
            Event::ClearingOrdered { server, host, disks } => {
                self.clearing.insert(server, host);
                if !disks.is_empty() {
                    self.clearing_disks.insert(server, disks);
                }
                self.clear_next();
            }
            Event::Fenced { epoch } => (self.epoch, self.fenced) = (epoch, true),
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::RetryOrdered {} => self.orders.retry(),
            Event::BecameReachable {} => self.unreachable_since = None,
            Event::BecameUnreachable { since } => self.unreachable_since = Some(since),
            Event::Configured { settings } => self.settings = settings,
            Event::Disabled {} => (self.disabled, self.draining) = (true, false),
            Event::DrainStarted {} => (self.disabled, self.draining) = (false, true),
            Event::Enabled {} => (self.disabled, self.draining) = (false, false),
            Event::Enrolled { name, settings } => {
                self.name = name;
                self.settings = settings;
            }
            Event::Joined { epoch, agent } => {
                self.epoch = epoch;
                self.agent = agent;
                self.fenced = false;
                self.unreachable_since = None;
            }
            Event::MaintenanceEntered {} => self.maintenance = true,
            Event::MaintenanceLeft {} => self.maintenance = false,
            Event::Released { server } => drop(self.holdings.remove(&server)),
            Event::Reserved { holding } | Event::Resized { holding } => {
                self.holdings.insert(holding.server, holding);
            }
            Event::Retired {} => self.retired = true,
            Event::Sighted { seen, .. } => self.seen = Some(seen),
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        self.orders.out.clone()
    }

    fn status(&self) -> &'static str {
        match self {
            Self { name, .. } if name.is_empty() => "absent",
            Self { retired: true, .. } => "retired",
            Self { maintenance: true, .. } => "maintenance",
            Self { disabled: true, .. } => "disabled",
            Self { draining: true, .. } if self.holdings.is_empty() => "drained",
            Self { draining: true, .. } => "draining",
            Self { seen: None, .. } => "enrolled",
            _ => "ready",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            gone: self.retired,
            tags: self.settings.tags.iter().map(|tag| (tag.clone(), String::new())).collect(),
            ..Facets::default()
        }
    }

    fn on_host(&self) -> Option<OnHost> {
        let Order::Clear { server, host, .. } = &self.orders.out.as_ref()?.order;
        Some(OnHost { host: host.uuid(), server: Some(server.uuid()) })
    }

    fn companions(&self, events: &[Event]) -> Vec<Companion> {
        let of = |event: &Event| match event {
            Event::Adopted { adoption } => Some(adopted::tell(adoption)),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Enrolled { name, .. } => Some(format!("host/{name}")),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}
