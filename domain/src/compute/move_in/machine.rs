//! Machines of others elsewhere, as whoever runs them says, and what is in the way of having one here.
//!
//! [`look`] is the check before anything is made: everything that is in the way is found at once, and what the
//! server's interfaces would be. It is of a machine as it was seen: [`SourceMachine::digest`] names that, and
//! one that is another by now is not what was looked at.

use core::net::IpAddr;
use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    compute::{
        drain::Obstacle,
        image::Firmware,
        placement::Architecture,
        server::{
            Power,
            direct::VnicType,
            hardware::{DiskBus, Hardware},
            parts::{DISKS_MAX, NICS_MAX, NicAsk},
        },
    },
    kernel::{canonical_bytes, sha256},
    network::{
        addresses::{Family, Want},
        bandwidth::Bandwidth,
        mac::Mac,
        net::Network,
    },
    tenancy::check_name,
};

/// How much of a SHA-256 names what was seen, in bytes: as many as its number has here.
const DIGEST_BYTES: usize = 16;

/// A machine that somebody else runs, as the account that it is in says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceMachine {
    /// Its id there.
    pub id: String,
    /// Its name there.
    pub name: String,
    /// Whether it runs.
    pub power: Power,
    /// What is said of it there, in that place's words.
    pub status: String,
    /// Its instruction set, as it is called there; none where that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// What it is started by.
    pub firmware: Firmware,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory_mib: u64,
    /// Its disks, in its own order.
    #[serde(default)]
    pub disks: Vec<SourceDisk>,
    /// Its interfaces, in its own order.
    #[serde(default)]
    pub nics: Vec<SourceNic>,
    /// Devices of its host that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Where its disks are sent from; none where that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
    /// Whether it is held as it is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// Whether its disks lie encrypted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Whether another host there keeps a copy of it that is written all the time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_standby: bool,
    /// What its disks and interfaces have to be here for its system; virtio when that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// What keeps its disks from being copied there, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncopied: Vec<String>,
    /// What is written on it by a move of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// A disk of a machine of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceDisk {
    /// Its number there.
    pub index: u32,
    /// How large the machine sees it; 0 where that is not said.
    pub size_bytes: u64,
    /// How it is plugged in, for instance `virtio`.
    pub bus: String,
}

/// An interface of a machine of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceNic {
    /// Its hardware address, which it keeps.
    pub mac: Mac,
    /// The addresses that it has there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpAddr>,
}

/// A machine of others that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// The machine.
    pub machine: SourceMachine,
    /// Names what was seen of it.
    pub digest: String,
    /// Its interfaces, as they would be asked for: with the addresses that they have. Empty where one of
    /// them is in no network of ours.
    pub nics: Vec<NicAsk>,
    /// Everything that is in the way.
    pub obstacles: Vec<Obstacle>,
    /// What whoever moves it should know.
    pub notes: Vec<String>,
}

impl SourceMachine {
    /// Names what it is: whatever it does now and whatever is written on it.
    pub fn digest(&self) -> String {
        let is = Self { power: Power::Unknown, status: String::new(), mark: None, ..self.clone() };
        let digest = sha256(&canonical_bytes(&is));
        let number =
            digest[..DIGEST_BYTES].iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        format!("{number:032x}")
    }

    /// Its instruction set, in our words; what is not said is x86-64, which nearly every one is.
    pub fn architecture(&self) -> Option<Architecture> {
        let name = match self.architecture.as_deref() {
            None | Some("" | "x86" | "x86_64" | "amd64") => "x86_64",
            Some("arm" | "arm64" | "aarch64") => "aarch64",
            Some(other) => other,
        };
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }

    /// What is in the way by what it is.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let mut found = Vec::new();
        let mut no = |code, detail: String| found.push(Obstacle { code, detail });
        if let Err(refusal) = check_name(&self.name) {
            no("name", refusal.detail);
        }
        if self.architecture().is_none() {
            let name = self.architecture.clone().unwrap_or_default();
            no("architecture", format!("servers have no {name} processors"));
        }
        if self.power != Power::Running {
            no("not-running", "its data is copied while it runs: start it there first".to_owned());
        }
        if let Some(mark) = &self.mark {
            no("moving", format!("another move has it: {mark}"));
        } else if self.frozen {
            no("frozen", "it is frozen there: unfreeze it first".to_owned());
        }
        if !self.devices.is_empty() {
            no("devices", format!("it has devices of its host: {}", self.devices.join(", ")));
        }
        if self.has_standby {
            let what = "another host there keeps a copy of it: end that first";
            no("standby", what.to_owned());
        }
        if self.encrypted {
            no("encrypted", "its disks lie encrypted with a key of that place".to_owned());
        }
        if self.host_address.is_none() {
            no("host", "nobody says from which address its host would send its disks".to_owned());
        }
        if self.vcpus == 0 || self.memory_mib == 0 {
            no("size", "nobody says how large it is".to_owned());
        }
        for why in &self.uncopied {
            no("copy", why.clone());
        }
        let (disks, nics) = (self.disks.len(), self.nics.len());
        if disks == 0 || disks > DISKS_MAX || nics > NICS_MAX {
            let most = format!("1 to {DISKS_MAX} and at most {NICS_MAX}");
            no("too-many", format!("it has {disks} disks and {nics} interfaces: {most}"));
        }
        for SourceDisk { index, size_bytes, bus } in &self.disks {
            if *size_bytes == 0 {
                no("disk", format!("nobody says how large disk {index} is"));
            }
            let any = self.hardware.is_some_and(|hardware| hardware.disks != DiskBus::Virtio);
            if !any && !matches!(bus.as_str(), "virtio" | "scsi" | "vdisk") {
                let detail = format!(
                    "disk {index} is plugged in as {bus}, and here disks are virtio: let its \
                     system have that driver, and change the disk there first"
                );
                no("bus", detail);
            }
        }
        found
    }

    /// What whoever moves it should know.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.firmware == Firmware::Uefi {
            let note = "its UEFI variables stay where they are: here it is started from the \
                        removable-media path of its first disk";
            notes.push(note.to_owned());
        }
        if self.disks.iter().any(|disk| disk.size_bytes % (1 << 30) != 0) {
            notes.push("its disks are rounded up to whole GiB".to_owned());
        }
        if self.hardware.is_some_and(|hardware| !hardware.is_virtio()) {
            let note = "here its disks are SATA and its interfaces e1000e, for a system without \
                        drivers of virtio: say `hardware` to have others";
            notes.push(note.to_owned());
        }
        notes
    }
}

/// What an interface would be asked for: the network of ours that its addresses are in.
fn ask(nic: &SourceNic, networks: &[(Uuid, Network)]) -> Result<NicAsk, String> {
    let mac = nic.mac;
    if nic.addresses.is_empty() {
        return Err(format!("{mac} has no address there: say its network in `nics`"));
    }
    let within = |family: Option<&Family>| {
        let net = family?.subnet().net;
        let address = nic.addresses.iter().copied().find(|address| net.contains(address))?;
        Some(Want::Named { address, reserved: true })
    };
    let mut fitting = networks.iter().filter_map(|(id, network)| {
        let own = network.own.as_ref().filter(|own| !own.retired)?;
        let (v4, v6) = (within(own.addresses.v4.as_ref()), within(own.addresses.v6.as_ref()));
        let named = usize::from(v4.is_some()) + usize::from(v6.is_some());
        (named == nic.addresses.len()).then_some((*id, v4, v6))
    });
    let has: Vec<String> = nic.addresses.iter().map(IpAddr::to_string).collect();
    let has = has.join(", ");
    let Some((network, v4, v6)) = fitting.next() else {
        return Err(format!("{mac} has {has}, of no network of ours: say its network in `nics`"));
    };
    if fitting.next().is_some() {
        return Err(format!("{mac} has {has}, of several networks: say which in `nics`"));
    }
    Ok(NicAsk {
        network,
        v4,
        v6,
        mac: Some(mac),
        bandwidth: Bandwidth::default(),
        quota: None,
        security_groups: BTreeSet::new(),
        vnic_type: VnicType::Normal,
    })
}

/// Looks at a machine of others, with the networks of ours that its interfaces may be in.
pub fn look(machine: SourceMachine, networks: &[(Uuid, Network)]) -> Looked {
    let mut obstacles = machine.obstacles();
    let asks: Vec<_> = machine.nics.iter().map(|nic| ask(nic, networks)).collect();
    let whys = asks.iter().filter_map(|ask| ask.as_ref().err().cloned());
    obstacles.extend(whys.map(|detail| Obstacle { code: "nic", detail }));
    let nics = asks.into_iter().collect::<Result<_, _>>().unwrap_or_default();
    let (digest, notes) = (machine.digest(), machine.notes());
    Looked { machine, digest, nics, obstacles, notes }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn machine(changes: Value) -> SourceMachine {
        let mut machine = json!({
            "id": "8f2c", "name": "shop-db", "power": "running", "status": "running",
            "firmware": "bios", "vcpus": 2, "memory_mib": 2048,
            "disks": [{"index": 0, "size_bytes": 10_u64 << 30, "bus": "virtio"}],
            "host_address": "192.0.2.7",
        });
        for (field, value) in changes.as_object().unwrap() {
            machine[field] = value.clone();
        }
        serde_json::from_value(machine).unwrap()
    }

    fn codes(changes: Value) -> Vec<&'static str> {
        machine(changes).obstacles().into_iter().map(|one| one.code).collect()
    }

    #[test]
    fn everything_that_is_in_the_way_is_said_at_once() {
        assert!(codes(json!({})).is_empty());
        let all = codes(json!({
            "name": "", "architecture": "sparc", "power": "stopped", "frozen": true,
            "devices": ["GPU"], "has_standby": true, "encrypted": true, "host_address": null,
            "vcpus": 0, "disks": [{"index": 0, "size_bytes": 0, "bus": "ide"}],
            "uncopied": ["it has snapshots"],
        }));
        let want = [
            "name",
            "architecture",
            "not-running",
            "frozen",
            "devices",
            "standby",
            "encrypted",
            "host",
            "size",
            "copy",
            "disk",
            "bus",
        ];
        assert_eq!(all, want);
        assert_eq!(codes(json!({"frozen": true, "mark": "m"})), ["moving"]);
        assert_eq!(codes(json!({"disks": []})), ["too-many"]);
        let ide = json!([{"index": 0, "size_bytes": 1 << 30, "bus": "ide"}]);
        assert_eq!(codes(json!({"disks": ide})), ["bus"]);
        let here = json!({"disks": "sata", "nics": "e1000e"});
        assert!(codes(json!({"disks": ide, "hardware": here})).is_empty());
    }

    #[test]
    fn a_digest_is_of_what_it_is_and_not_of_what_it_does() {
        let one = machine(json!({}));
        let other = machine(json!({"power": "stopped", "status": "ready", "mark": "m"}));
        assert_eq!(one.digest(), other.digest());
        assert_ne!(one.digest(), machine(json!({"vcpus": 3})).digest());
    }

    #[test]
    fn an_interface_that_is_in_no_network_is_in_the_way() {
        let nic = json!({"mac": "52:54:00:aa:00:01", "addresses": ["10.0.0.77"]});
        let looked = look(machine(json!({"nics": [nic]})), &[]);
        assert_eq!(looked.obstacles.len(), 1);
        assert!(looked.obstacles[0].detail.contains("10.0.0.77"), "{:?}", looked.obstacles);
        assert!(looked.nics.is_empty());
    }
}
