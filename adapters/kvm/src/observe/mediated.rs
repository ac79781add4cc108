//! Mediated devices that can be made: parts of a card that its driver gives out, such as vGPUs.
//!
//! A driver says how many more of each kind (profile) it can make. Each of them is a device that a server may
//! ask for before it is there: a *slot*, called `mdev:<parent>/<profile>/<number>`. It is made when its
//! server is first started, under a UUID that follows from both, and removed with the server. One profile may
//! take instances of another away; those slots are gone at the next look, and one whose server finds none
//! left is refused by the driver.

use std::collections::BTreeSet;

use domain::compute::placement::{Availability, Device};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::devices::{Devices, Kept};

/// Begins the id of every slot.
const BEGIN: &str = "mdev:";
/// Most slots of one profile; no card has more parts.
const SLOTS_MAX: u32 = 256;

/// A mediated device that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What it is a part of: a PCI address, or the driver's name.
    pub parent: String,
    /// Its profile.
    pub profile: String,
    /// Which of them, from 0.
    pub number: u32,
}

impl Slot {
    /// Reads an id; none when it is that of another device, or names a file elsewhere.
    pub fn read(id: &str) -> Option<Self> {
        let mut parts = id.strip_prefix(BEGIN)?.split('/');
        let plain = |part: &&str| {
            let is = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(is)
        };
        let parent = parts.next().filter(plain)?.to_owned();
        let profile = parts.next().filter(plain)?.to_owned();
        let number = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { parent, profile, number })
    }

    /// Its id.
    pub fn id(&self) -> String {
        format!("{BEGIN}{}/{}/{}", self.parent, self.profile, self.number)
    }

    /// The folder of its profile, from the root.
    pub fn folder(&self) -> String {
        format!("sys/class/mdev_bus/{}/mdev_supported_types/{}", self.parent, self.profile)
    }
}

/// The UUID that a slot's device has when it is made for a server.
pub fn uuid(server: Uuid, slot: &str) -> Uuid {
    let digest = Sha256::digest(format!("{server}/{slot}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    // A version that says that the bits are our own affair (RFC 9562 §5.8).
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The slots of a host: those that are made for servers, and as many more as its drivers say are left.
pub(super) fn placeable(devices: &Devices, kept: &Kept) -> Vec<Device> {
    // What a server has made is its own also while it is not there, as after a restart of the host.
    let made: Vec<(Slot, bool)> = kept
        .made
        .iter()
        .filter_map(|(uuid, id)| Some((Slot::read(id)?, devices.mediated.contains_key(uuid))))
        .collect();
    let pci = devices.pci.iter().map(|(address, pci)| {
        let is_kept = kept.devices.contains(address);
        (address, &pci.profiles, pci.model.as_str(), pci.cell, is_kept)
    });
    let others = devices.parted.iter();
    let others = others.map(|(name, profiles)| (name, profiles, name.as_str(), None, false));
    let mut slots = Vec::new();
    for (parent, profiles, model, cell, is_kept) in pci.chain(others) {
        for (profile, of) in profiles {
            let is_of =
                |(slot, _): &&(Slot, bool)| slot.parent == *parent && slot.profile == *profile;
            let own: Vec<_> = made.iter().filter(is_of).collect();
            let there = own.iter().filter(|(_, is_there)| *is_there).count();
            let mut numbers: BTreeSet<u32> = own.iter().map(|(slot, _)| slot.number).collect();
            let most = there + of.left.min(SLOTS_MAX) as usize;
            for number in 0.. {
                if numbers.len() >= most {
                    break;
                }
                numbers.insert(number);
            }
            slots.extend(numbers.into_iter().map(|number| {
                let slot = Slot { parent: parent.clone(), profile: profile.clone(), number };
                let id = slot.id();
                let is_kept = is_kept || kept.devices.contains(&id);
                Device {
                    id,
                    kind: "mdev".to_owned(),
                    model: format!("{model}/{profile}"),
                    cell,
                    iommu_group: None,
                    controller: None,
                    availability: if is_kept { Availability::Reserved } else { Availability::Free },
                    carrier: None,
                    profile: of.said(),
                    switch: None,
                }
            }));
        }
    }
    slots
}
