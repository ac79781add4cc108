//! Machines that are on a host of ours and are no servers of ours, and what a server is made of that was one.
//!
//! The host's agent says which there are that nobody launched here ([`ForeignMachine`]); libvirt calls them
//! domains. [`work_out`] says what is in the way of having one as a server, and what the
//! server would be: everything of it is there, so nothing is asked for and nothing is chosen. Its id is the
//! machine's UUID; its disks stay where they lie; its interfaces are in the networks whose bridge and
//! subnets they have, with the addresses that they really have.
//!
//! Whoever adopts says which machine, and the host's record says how it was looked at last
//! ([`ForeignMachine::digest`]): one that was changed since is not what was looked at.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    drain::Obstacle,
    host::Host,
    image::Firmware,
    placement::{
        Architecture, CellHolding, Holding, HostId, Numa, Pinning, Placement, Rejected, Score,
        ServerId,
    },
    server::{
        Power,
        direct::VnicType,
        home::Spec,
        parts::{DISKS_MAX, Disk, Joined, NICS_MAX, Nic, NicAsk, Parts, part_id},
    },
    storage::Format,
};
use crate::{
    kernel::{Refusal, codes},
    network::{
        addresses::{Family, Want},
        bandwidth::Bandwidth,
        mac::Mac,
        net::Network,
        segment::{Medium, Segment},
    },
    tenancy::check_name,
};

/// Most machines that are not ours and that a host says; it leaves out those with the highest UUIDs.
pub const MACHINES_MAX: usize = 1_000;

/// A machine on a host of ours that is no server of ours, as its agent saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForeignMachine {
    /// libvirt's name of it.
    pub name: String,
    /// Whether it runs.
    pub power: Power,
    /// Whether it is defined: one that is not is gone when it stops.
    pub persistent: bool,
    /// Its instruction set.
    pub architecture: String,
    /// Its board, for instance `pc-q35-10.0`.
    #[serde(default)]
    pub board: String,
    /// What it is started by.
    pub firmware: Firmware,
    /// Virtual CPUs that it has.
    pub vcpus: u32,
    /// Its memory, rounded up.
    pub memory_mib: u64,
    /// The size of the huge pages that its memory lies in; none for ordinary memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_kib: Option<u32>,
    /// The host's cells that its own are bound to, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<ForeignCell>,
    /// The host's CPUs that it is kept to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub cpus: BTreeSet<u32>,
    /// Its disks and drives, in its own order.
    #[serde(default)]
    pub disks: Vec<ForeignDisk>,
    /// Its interfaces, in its own order.
    #[serde(default)]
    pub nics: Vec<ForeignNic>,
    /// Devices of the host that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Whether it has a screen that can be looked at.
    #[serde(default)]
    pub screen: bool,
    /// Whether it has a serial line that can be reached.
    #[serde(default)]
    pub serial: bool,
    /// Whether a guest agent in it answers.
    #[serde(default)]
    pub agent: bool,
    /// Whether what runs has other disks or interfaces than what is started next.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
    /// Names what it is started with: the beginning of the SHA-256 of its definition, in hex.
    pub digest: String,
}

/// What a machine takes of one cell of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForeignCell {
    /// The kernel's number of the cell.
    pub cell: u32,
    /// Virtual CPUs that see it as theirs.
    pub vcpus: u32,
    /// Memory that lies there.
    pub memory_mib: u64,
}

/// A disk or a drive of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForeignDisk {
    /// Its name in the machine, for instance `vda`.
    pub target: String,
    /// What it is: `disk`, `cdrom`, `floppy` or `lun`.
    pub device: String,
    /// How it is plugged in, for instance `virtio`.
    #[serde(default)]
    pub bus: String,
    /// The file or the device of the host that it is; none for what is neither, and for an empty drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How it lies there, for instance `qcow2`.
    #[serde(default)]
    pub format: String,
    /// What the machine sees of it; 0 where that is not known.
    #[serde(default)]
    pub size_bytes: u64,
    /// Whether others have it at the same time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// An interface of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForeignNic {
    /// Its hardware address.
    pub mac: Mac,
    /// The host's bridge that it is plugged into; none for one that is plugged in otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// What the guest sees, for instance `virtio`.
    #[serde(default)]
    pub model: String,
    /// The addresses that its guest says, or that the host has heard of, sorted. Those of its link alone
    /// are left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
}

/// Which network an interface is in, said by who knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicOf {
    /// The interface, by its hardware address.
    pub mac: Mac,
    /// The network, one of our own whose segment has the interface's bridge.
    pub network: Uuid,
    /// The addresses that its guest has, at most one of each family; those that were seen when none is
    /// named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
}

/// What is asked of an adoption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// The machine, by its UUID: the server's id from then on.
    pub machine: Uuid,
    /// What the server is called; as the machine when left out.
    #[serde(default)]
    pub name: Option<String>,
    /// Whose it is; none is the estate's.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// Which networks its interfaces are in, where that cannot be seen.
    #[serde(default)]
    pub nics: Vec<NicOf>,
    /// Leave interfaces alone that are in no network of ours: they stay in the machine as they are, and are
    /// not the server's. Without this a machine with such an interface is not adopted.
    #[serde(default)]
    pub leave_nics: bool,
    /// As it was looked at: one that is another by now is not adopted.
    #[serde(default)]
    pub digest: Option<String>,
    /// What the server is: worked out by Skyledger, and of no use to callers.
    #[serde(default)]
    pub found: Option<Box<Adoption>>,
}

/// A server that was a machine of somebody's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    /// Its name.
    pub name: String,
    /// Who owns it; none is the estate.
    #[serde(default)]
    pub project: Option<Uuid>,
    /// The machine, as it was.
    pub machine: ForeignMachine,
    /// What it takes of its host, which it had taken already.
    pub placement: Box<Placement>,
    /// Its disks and interfaces.
    pub parts: Parts,
    /// Interfaces that stay in it and are not the server's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub nics_left: BTreeSet<Mac>,
    /// What of its host it takes that is not free by our counts; none when there is room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overfill: Option<String>,
}

/// A network of ours, with its segment.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Its id.
    pub id: Uuid,
    /// The network.
    pub network: Network,
    /// The segment it is on.
    pub segment: Segment,
}

/// A machine that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// Its UUID.
    pub machine: Uuid,
    /// What it would be as a server.
    pub adoption: Adoption,
    /// Everything that is in the way.
    pub obstacles: Vec<Obstacle>,
    /// What whoever adopts it should know.
    pub notes: Vec<String>,
}

fn obstacle(code: &'static str, detail: impl Into<String>) -> Obstacle {
    Obstacle { code, detail: detail.into() }
}

impl ForeignMachine {
    /// The same, whether it runs or not, and whatever was seen of who is in it.
    fn is_still(&self, other: &Self) -> bool {
        self.digest == other.digest && self.persistent == other.persistent && !other.differs
    }

    /// What is wanted of the server's machine: what it is.
    pub fn spec(&self) -> Spec {
        Spec {
            architecture: self.architecture().unwrap_or(Architecture::X86_64),
            vcpus: self.vcpus,
            vcpus_max: None,
            memory_mib: self.memory_mib,
            memory_max_mib: None,
            page_kib: self.page_kib,
            numa: Numa::None,
            cells_max: 1,
            pinning: Pinning::Shared,
            devices: Vec::new(),
        }
    }

    /// Whether its definition says more of its processors and memory than how many and how much.
    pub fn is_bound(&self) -> bool {
        self.page_kib.is_some() || !self.cells.is_empty() || !self.cpus.is_empty()
    }

    fn architecture(&self) -> Option<Architecture> {
        serde_json::from_value(serde_json::Value::String(self.architecture.clone())).ok()
    }

    /// What it takes of a host. Where its definition does not say in which cell its pages lie, they lie in
    /// the only one there is.
    fn holding(&self, server: ServerId, host: &Host) -> Holding {
        let seen = host.seen.iter().flat_map(|seen| &seen.cells);
        let mut cells = self.cells.clone();
        let all: Vec<u32> = seen.map(|cell| cell.id).collect();
        if let (Some(_), true, [only]) = (self.page_kib, cells.is_empty(), &all[..]) {
            cells.push(ForeignCell { cell: *only, vcpus: 0, memory_mib: self.memory_mib });
        }
        let kib = self.page_kib.map_or(0, u64::from);
        let of = |one: &ForeignCell| CellHolding {
            cell: one.cell,
            vcpus: one.vcpus,
            memory_mib: one.memory_mib,
            pages: (one.memory_mib << 10).checked_div(kib).unwrap_or(0),
        };
        Holding {
            server,
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            page_kib: self.page_kib,
            cells: cells.iter().map(of).collect(),
            pins: Vec::new(),
            cpus: BTreeSet::new(),
            threads: None,
            devices: BTreeSet::new(),
            devices_with: BTreeSet::new(),
            functions: BTreeMap::new(),
            models: BTreeMap::new(),
            groups: BTreeSet::new(),
        }
    }

    /// Its disks, that is what is neither a drive nor a disc.
    fn real_disks(&self) -> impl Iterator<Item = &ForeignDisk> {
        self.disks.iter().filter(|disk| !matches!(disk.device.as_str(), "cdrom" | "floppy"))
    }

    /// What is in the way by what it is.
    fn own_obstacles(&self) -> Vec<Obstacle> {
        let mut found = Vec::new();
        if !self.persistent {
            let detail = "it is not defined, and gone when it stops: define it in libvirt first";
            found.push(obstacle("not-defined", detail));
        }
        if self.differs {
            let detail = "it runs with other disks or interfaces than it is started with: make both the \
                          same in libvirt first";
            found.push(obstacle("differs", detail));
        }
        if self.architecture().is_none() {
            let detail = format!("servers have no {} processors", self.architecture);
            found.push(obstacle("architecture", detail));
        }
        if !self.devices.is_empty() {
            let detail = format!("it has devices of this host: {}", self.devices.join(", "));
            found.push(obstacle("devices", detail));
        }
        let disks = self.real_disks().count();
        if disks > DISKS_MAX || self.nics.len() > NICS_MAX {
            let detail = format!(
                "it has {disks} disks and {} interfaces: at most {DISKS_MAX} and \
                                  {NICS_MAX}",
                self.nics.len()
            );
            found.push(obstacle("too-many", detail));
        }
        for disk in self.real_disks() {
            let target = &disk.target;
            let why = if disk.path.is_none() {
                "is neither a file nor a device of this host"
            } else if disk.format != "qcow2" && disk.format != "raw" {
                "is neither qcow2 nor raw"
            } else if disk.shared {
                "is had by others at the same time"
            } else if disk.size_bytes == 0 {
                "cannot be looked at"
            } else {
                continue;
            };
            found.push(obstacle("disk", format!("{target} {why}")));
        }
        found
    }

    /// Its disks, as a server's: in their places.
    fn parts_of_disks(&self, server: Uuid, again: &str) -> Vec<Disk> {
        let of = |(at, disk): (usize, &ForeignDisk)| Disk {
            id: part_id(server, &format!("adopted{again}-disk"), at),
            size_gib: disk.size_bytes.div_ceil(1 << 30).max(1),
            format: if disk.format == "qcow2" { Format::Qcow2 } else { Format::Raw },
            from_image: false,
            limits: super::disk::Limits::default(),
            storage: None,
            leased: false,
            source: None,
            in_place: disk.path.clone(),
        };
        self.real_disks().take(DISKS_MAX).enumerate().map(of).collect()
    }
}

/// What is asked for of an interface that is in a network.
fn ask(nic: &ForeignNic, reach: &Reach, addresses: &BTreeSet<IpAddr>) -> Option<NicAsk> {
    let own = reach.network.own.as_ref()?;
    let within = |family: &Option<Family>| {
        let net = family.as_ref()?.subnet().net;
        let address = addresses.iter().copied().find(|address| net.contains(address))?;
        Some(Want::Named { address, reserved: true })
    };
    let (v4, v6) = (within(&own.addresses.v4), within(&own.addresses.v6));
    (v4.is_some() || v6.is_some()).then(|| NicAsk {
        network: reach.id,
        v4,
        v6,
        mac: Some(nic.mac),
        bandwidth: Bandwidth::default(),
        quota: None,
        security_groups: BTreeSet::new(),
        vnic_type: VnicType::Normal,
    })
}

/// Whether an interface is on the segment of a network.
fn is_on(nic: &ForeignNic, reach: &Reach) -> bool {
    let own = reach.network.own.as_ref().is_some_and(|own| !own.retired);
    own && !reach.segment.retired
        && reach.segment.medium == Some(Medium::Bridge)
        && nic.bridge.as_ref() == Some(&reach.segment.bridge)
}

/// Which network an interface is in, with what it has there; or why that is not known.
fn matched(
    nic: &ForeignNic,
    id: Uuid,
    said: Option<&NicOf>,
    networks: &[Reach],
    now: DateTime<Utc>,
) -> Result<Nic, String> {
    let mac = nic.mac;
    let on: Vec<&Reach> = networks.iter().filter(|reach| is_on(nic, reach)).collect();
    let Some(bridge) = &nic.bridge else {
        return Err(format!("{mac} is not plugged into a bridge"));
    };
    let mut tried: Vec<&Reach> = on.clone();
    let mut addresses = &nic.addresses;
    if let Some(said) = said {
        tried.retain(|reach| reach.id == said.network);
        if tried.is_empty() {
            return Err(format!("{mac} is on {bridge}, and network {} is not", said.network));
        }
        if !said.addresses.is_empty() {
            addresses = &said.addresses;
        }
    }
    if on.is_empty() {
        return Err(format!("{mac} is on {bridge}, which no network of ours is on"));
    }
    let found = tried.iter().find_map(|reach| Some((*reach, ask(nic, reach, addresses)?)));
    let Some((reach, ask)) = found else {
        let has: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        if has.is_empty() {
            let ask = "its addresses are not known: say its network and them in `nics`";
            return Err(format!("{mac}: {ask}"));
        }
        return Err(format!("{mac} has {}, of no network on {bridge}", has.join(", ")));
    };
    let segment = |one: &Reach| one.network.own.as_ref().map(|own| own.segment);
    let beside = |one: &&Reach| one.id != reach.id && segment(one) == segment(reach);
    let others = networks.iter().filter(beside).map(|one| one.network.clone()).collect();
    let (network, segment) = (reach.network.clone(), reach.segment.clone());
    let nic = ask.work_out(id, &Joined { network, segment, others }, now);
    nic.map_err(|no| format!("{mac}: {}", no.detail))
}

/// Looks at one of a host's machines: what is in the way of adopting it as is asked, and what the server
/// would be.
///
/// # Errors
/// `not-found`: the host does not say that it has such a machine, or has it as a server already.
pub fn work_out(
    ask: &Adopt,
    host: (HostId, &Host),
    issued: u64,
    networks: &[Reach],
    now: DateTime<Utc>,
) -> Result<Looked, Refusal> {
    let (id, host) = host;
    let server = ServerId::new(ask.machine);
    let machine = host.foreign(server)?;
    let mut obstacles = machine.own_obstacles();
    let mut notes = Vec::new();
    // One that is adopted again has disks and interfaces that nobody had.
    let again = if issued == 0 { String::new() } else { format!("-{issued}") };
    let name = ask.name.clone().unwrap_or_else(|| machine.name.clone());
    if let Err(no) = check_name(&name) {
        obstacles.push(obstacle("name", no.detail));
    }
    let (mut nics, mut nics_left) = (Vec::new(), BTreeSet::new());
    for (at, nic) in machine.nics.iter().enumerate().take(NICS_MAX) {
        let said = ask.nics.iter().find(|said| said.mac == nic.mac);
        let part = part_id(ask.machine, &format!("adopted{again}-nic"), at);
        match matched(nic, part, said, networks, now) {
            Ok(nic) => nics.push(nic),
            // What somebody said of it and is wrong is not left alone.
            Err(why) if ask.leave_nics && said.is_none() => {
                notes.push(format!("{why}: it stays as it is, and is not the server's"));
                nics_left.insert(nic.mac);
            }
            Err(why) => obstacles.push(obstacle("nic", why)),
        }
    }
    for said in &ask.nics {
        if machine.nics.iter().all(|nic| nic.mac != said.mac) {
            obstacles.push(obstacle("nic", format!("{}: it has no such interface", said.mac)));
        }
    }
    let holding = machine.holding(server, host);
    let mut overfill = None;
    match host.placeable(id)?.lacks(&holding) {
        Ok(None) => {}
        Ok(Some(reason)) => {
            overfill = Some(reason.to_string());
            notes.push(format!("it takes more than is free here by our counts: {reason}"));
        }
        Err(no) => obstacles.push(obstacle("bound", no.detail)),
    }
    if !machine.cpus.is_empty() {
        let note = "it is kept to CPUs of its host, which are counted as shared with others";
        notes.push(note.to_owned());
    }
    if machine.power != Power::Stopped && !nics.is_empty() {
        let note = "its interfaces are limited, counted and guarded from its next start by us on";
        notes.push(note.to_owned());
    }
    let placement = Placement {
        host: id,
        holding,
        irregular: false,
        score: Score { irregular: false, affinity: 0, cells: 0, devices: 0, apart: 0, fill: 0 },
        fitting: 1,
        runners_up: Vec::new(),
        rejected: Rejected::default(),
    };
    let parts = Parts {
        firmware: Some(machine.firmware),
        disks: machine.parts_of_disks(ask.machine, &again),
        nics,
        ..Parts::default()
    };
    let adoption = Adoption {
        name,
        project: ask.project,
        machine: machine.clone(),
        placement: Box::new(placement),
        parts,
        nics_left,
        overfill,
    };
    Ok(Looked { machine: ask.machine, adoption, obstacles, notes })
}

impl Host {
    /// A machine on it that is no server.
    ///
    /// # Errors
    /// `not-found`.
    pub fn foreign(&self, machine: ServerId) -> Result<&ForeignMachine, Refusal> {
        let seen = self.seen.iter().find_map(|seen| seen.machines.get(&machine.uuid()));
        let seen = seen.filter(|_| !self.holdings.contains_key(&machine));
        seen.ok_or_else(|| {
            let detail = format!("machine: {} has not said that it has {machine}", self.name);
            Refusal::new(&codes::NOT_FOUND, detail)
        })
    }

    /// Whether a machine can become a server as it was worked out.
    ///
    /// # Errors
    /// `not-found`, `machine-changed`, `not-adoptable`, `invalid-field`.
    pub(super) fn adopts(&self, ask: Adopt) -> Result<Box<Adoption>, Refusal> {
        let server = ServerId::new(ask.machine);
        let machine = self.foreign(server)?;
        let found = ask.found.ok_or_else(|| {
            Refusal::new(&codes::INVALID_FIELD, "found: nobody looked at the machine")
        })?;
        let holding = &found.placement.holding;
        if holding.server != server {
            let detail = "found: it is of another machine";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let is_other = ask.digest.is_some_and(|digest| digest != machine.digest);
        if is_other || !machine.is_still(&found.machine) {
            let detail = format!("digest: {} was changed since it was looked at", machine.name);
            return Err(Refusal::new(&codes::MACHINE_CHANGED, detail));
        }
        if let Some(first) = machine.own_obstacles().first() {
            return Err(Refusal::new(&codes::NOT_ADOPTABLE, first.detail.clone()));
        }
        check_name(&found.name)?;
        Ok(found)
    }
}
