//! Machines on the host that are no servers of ours, as libvirt, their guests and the kernel say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use adapters_libvirt::{
    Affects, Code, Connection, Domain,
    description::{Firmware, Found, FoundDisk, FoundNic},
};
use commands::ports::DriverFault;
use domain::{
    compute::{
        adoption::{ForeignCell, ForeignDisk, ForeignMachine, ForeignNic, MACHINES_MAX},
        image,
    },
    network::mac::Mac,
};
use serde_json::Value;
use uuid::Uuid;

use super::{Inner, adopted::digest, fault::libvirt, power, state, wanted};

/// How long a guest's agent may take to say its addresses.
const AGENT_PATIENCE: Duration = Duration::from_secs(3);

/// Addresses by the hardware addresses of who has them.
type Heard = BTreeMap<Mac, BTreeSet<IpAddr>>;

impl Inner {
    /// The domains that are no servers of ours, by UUID.
    pub(super) async fn foreign(&self) -> Result<BTreeMap<Uuid, ForeignMachine>, DriverFault> {
        let adopted = self.records.adopted().await?;
        let wire = self.wire.get().await?;
        let defined: BTreeSet<Uuid> =
            wire.defined().await.map_err(libvirt)?.into_iter().map(|one| one.uuid).collect();
        let mut domains = wire.domains().await.map_err(libvirt)?;
        domains.retain(|one| {
            wanted::server_of(&one.name, one.uuid).is_none() && !adopted.contains(&one.uuid)
        });
        if domains.is_empty() {
            return Ok(BTreeMap::new());
        }
        domains.sort_by_key(|one| one.uuid);
        domains.truncate(MACHINES_MAX);
        let neighbours = self.neighbours().await?;
        let mut found = BTreeMap::new();
        for domain in domains {
            let is_defined = defined.contains(&domain.uuid);
            match look(&wire, &domain, is_defined, &neighbours).await {
                Ok(Some(foreign)) => drop(found.insert(domain.uuid, foreign)),
                // What does not read is nothing that could be a server; it is still there.
                Ok(None) => tracing::info!(domain = domain.name, "a domain does not read"),
                Err(DriverFault::NotFound(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(found)
    }

    /// Who the host has heard of on its bridges.
    async fn neighbours(&self) -> Result<Heard, DriverFault> {
        let place = &self.options.place;
        let all: Vec<Value> = place.json("ip", &["-j", "neighbour", "show"]).await?;
        let mut heard = Heard::new();
        for one in &all {
            let text = |name: &str| one[name].as_str();
            let mac = text("lladdr").and_then(|mac| mac.parse().ok());
            let address = text("dst").and_then(|address| address.parse().ok());
            if let (Some(mac), Some(address)) = (mac, address) {
                note(&mut heard, mac, address);
            }
        }
        Ok(heard)
    }
}

/// An address that is of its link alone says nothing of where it is.
fn note(heard: &mut Heard, mac: Mac, address: IpAddr) {
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    };
    if !is_local {
        heard.entry(mac).or_default().insert(address);
    }
}

/// One domain; none when its XML says nothing that we know.
async fn look(
    wire: &Connection,
    domain: &Domain,
    is_defined: bool,
    neighbours: &Heard,
) -> Result<Option<ForeignMachine>, DriverFault> {
    let gone = |fault: adapters_libvirt::Fault| {
        if fault.is(Code::NO_DOMAIN) {
            return DriverFault::NotFound(domain.name.clone());
        }
        libvirt(fault)
    };
    let runs = state(wire, domain).await?;
    let next = wire.xml(domain, Affects::Config).await.map_err(gone)?;
    let xml = if runs.is_active() {
        wire.xml(domain, Affects::Live).await.map_err(gone)?
    } else {
        next.clone()
    };
    let (Ok(now), Ok(later)) = (Found::read(&xml), Found::read(&next)) else { return Ok(None) };
    let mut heard = neighbours.clone();
    let mut agent = false;
    if now.has_agent {
        // One that does not answer is asked again at the next look.
        if let Some(inside) = ask(wire, domain).await {
            agent = true;
            for (mac, addresses) in inside {
                heard.insert(mac, addresses);
            }
        }
    }
    let mut disks = Vec::with_capacity(now.disks.len());
    for disk in &now.disks {
        let size = match &disk.path {
            // What cannot be looked at has no size, and that is in the way.
            Some(_) => wire.capacity(domain, &disk.target).await.unwrap_or(0),
            None => 0,
        };
        disks.push(of_disk(disk, size));
    }
    Ok(Some(foreign(
        &now,
        (disks, power(runs)),
        (is_defined, agent),
        !now.has_the_same(&later),
        digest(&next),
        &heard,
    )))
}

fn foreign(
    found: &Found,
    (disks, power): (Vec<ForeignDisk>, domain::compute::server::Power),
    (persistent, agent): (bool, bool),
    differs: bool,
    digest: String,
    heard: &Heard,
) -> ForeignMachine {
    let is = &found.is;
    let cells = is
        .cells
        .iter()
        .filter_map(|cell| Some((cell.host_cell?, cell.vcpus.len() as u32, cell.memory_kib >> 10)));
    let mut by_cell: BTreeMap<u32, ForeignCell> = BTreeMap::new();
    for (cell, vcpus, memory_mib) in cells {
        let held = by_cell.entry(cell).or_insert(ForeignCell { cell, vcpus: 0, memory_mib: 0 });
        held.vcpus += vcpus;
        held.memory_mib += memory_mib;
    }
    ForeignMachine {
        name: is.name.clone(),
        power,
        persistent,
        architecture: is.architecture.clone(),
        board: is.machine.clone().unwrap_or_default(),
        firmware: match is.firmware {
            Firmware::Bios => image::Firmware::Bios,
            Firmware::Uefi | Firmware::UefiSecure => image::Firmware::Uefi,
        },
        vcpus: is.vcpus,
        memory_mib: is.memory_kib.div_ceil(1 << 10),
        page_kib: is.page_kib.and_then(|kib| u32::try_from(kib).ok()),
        cells: by_cell.into_values().collect(),
        cpus: is.pins.values().flatten().copied().collect(),
        disks,
        nics: found.nics.iter().filter_map(|nic| of_nic(nic, heard)).collect(),
        devices: found.devices.clone(),
        screen: found.consoles.0,
        serial: found.consoles.1,
        agent,
        differs,
        digest,
    }
}

fn of_disk(disk: &FoundDisk, size_bytes: u64) -> ForeignDisk {
    ForeignDisk {
        target: disk.target.clone(),
        device: disk.device.clone(),
        bus: disk.bus.clone(),
        path: disk.path.clone(),
        format: disk.format.clone(),
        size_bytes,
        shared: disk.is_shared,
    }
}

fn of_nic(nic: &FoundNic, heard: &Heard) -> Option<ForeignNic> {
    let mac: Mac = nic.mac.parse().ok()?;
    Some(ForeignNic {
        mac,
        bridge: nic.bridge.clone(),
        model: nic.model.clone(),
        addresses: heard.get(&mac).cloned().unwrap_or_default(),
    })
}

/// The addresses that a guest says it has; none when it says nothing.
async fn ask(wire: &Connection, domain: &Domain) -> Option<Heard> {
    let command = r#"{"execute":"guest-network-get-interfaces"}"#;
    let answer = wire.agent(domain, command, AGENT_PATIENCE).await.ok()??;
    let answer: Value = serde_json::from_str(&answer).ok()?;
    let mut inside = Heard::new();
    for one in answer["return"].as_array()? {
        let mac = one["hardware-address"].as_str().and_then(|mac| mac.parse().ok());
        let Some(mac) = mac else { continue };
        for address in one["ip-addresses"].as_array().into_iter().flatten() {
            let address = address["ip-address"].as_str().and_then(|text| text.parse().ok());
            if let Some(address) = address {
                note(&mut inside, mac, address);
            }
        }
    }
    Some(inside)
}
