//! Devices of the host that must be made or set before a server gets them: virtual functions of network cards,
//! and mediated devices.
//!
//! A function is set on its card, by the card's interface and the function's number: hardware address, VLAN,
//! rate. What the card has already is left alone, and what was set is read back. A mediated device is made by
//! its driver when its server is started, under a UUID that follows from both, so that it is found again after
//! a restart of the host. What was made or set is written down first, and goes with the server. vGPUs that are
//! virtual functions are another module's: [`super::vgpu`], and so is what else is of their IOMMU groups:
//! [`super::companions`]. Of a function whose other end the host has, the card is
//! told the hardware address and the rate alone: the rest is [`super::functions`]'.

use std::collections::{BTreeMap, BTreeSet};

use commands::ports::DriverFault;
use domain::compute::{
    placement::{Placement, VirtualFunction},
    server::{home::Home, parts::Nic},
};
use serde_json::Value;
use uuid::Uuid;

use super::{Inner, Step, Work, functions};
use crate::{
    network::{Interface, NetworkFault, offload},
    observe::{
        Tree,
        devices::{self, Devices},
        mediated::{self, Slot},
    },
};

/// Where a virtual function is set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seat {
    /// The interface of its card.
    card: Interface,
    /// Its number there.
    number: u32,
    /// Whether the host has its other end: what passes is said there, and not to the card.
    is_represented: bool,
}

/// Where a virtual function is set; none for what is none, or whose card has no interface.
fn seat(devices: &Devices, address: &str) -> Option<Seat> {
    let card = devices.pci.get(devices.pci.get(address)?.physical.as_ref()?)?;
    let addresses = &card.functions.as_ref()?.addresses;
    let number = addresses.iter().position(|known| known == address)?;
    let card = card.interfaces.first()?.parse().ok()?;
    let is_represented = devices.representors.contains_key(address);
    Some(Seat { card, number: u32::try_from(number).ok()?, is_represented })
}

fn no_seat(id: &str) -> DriverFault {
    DriverFault::Rejected(format!(
        "device {id} is not there, or its card has no interface that it is set by"
    ))
}

/// What a card says of one of its functions (`ip -j link show`); none when it has no such function.
fn read_function(links: &[Value], number: u32) -> Option<VirtualFunction> {
    let all = links.first()?["vfinfo_list"].as_array()?;
    let one = all.iter().find(|one| one["vf"] == number)?;
    // Names have changed between releases of iproute2.
    let mac = one["address"].as_str().or(one["mac"].as_str());
    let vlan = one["vlan_list"][0]["vlan"].as_u64().or(one["vlan"].as_u64());
    let rate = one["rate"]["max_tx"].as_u64().or(one["tx_rate"].as_u64());
    let some = |number: Option<u64>| number.filter(|number| *number > 0);
    Some(VirtualFunction {
        // All zeros when none was set.
        mac: mac.and_then(|mac| mac.parse().ok()),
        vlan: some(vlan).and_then(|vlan| vlan.try_into().ok()),
        egress_mbit_s: some(rate).and_then(|rate| rate.try_into().ok()),
    })
}

/// What is to be said of what a card lets a function's server do, in words behind `ip link set dev CARD vf
/// NUMBER`: nothing passes from another hardware address, and the server may not change what was set. A card
/// that does not say whether it has such a switch has none.
fn guards(links: &[Value], number: u32) -> Vec<[String; 2]> {
    let all = links.first().and_then(|link| link["vfinfo_list"].as_array());
    let one = all.and_then(|all| all.iter().find(|one| one["vf"] == number));
    let Some(one) = one else { return Vec::new() };
    let mut words = Vec::new();
    if one["spoofchk"] == false {
        words.push(["spoofchk".to_owned(), "on".to_owned()]);
    }
    if one["trust"] == true {
        words.push(["trust".to_owned(), "off".to_owned()]);
    }
    words
}

/// What must be said of a function, in words behind `ip link set dev CARD vf NUMBER`: only what differs, for
/// not every card can do all of it. A hardware address that is not asked for stays what it is.
fn differences(wanted: VirtualFunction, is: VirtualFunction) -> Vec<[String; 2]> {
    let mut words = Vec::new();
    if let Some(mac) = wanted.mac.filter(|mac| is.mac != Some(*mac)) {
        words.push(["mac".to_owned(), mac.to_string()]);
    }
    if wanted.vlan != is.vlan {
        words.push(["vlan".to_owned(), wanted.vlan.unwrap_or(0).to_string()]);
    }
    if wanted.egress_mbit_s != is.egress_mbit_s {
        words.push(["max_tx_rate".to_owned(), wanted.egress_mbit_s.unwrap_or(0).to_string()]);
    }
    words
}

impl Inner {
    /// A server's devices are there and set, before it is started.
    pub(super) async fn prepare_devices(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let holding = &work.home.placement.holding;
        if holding.devices.is_empty() {
            return Ok(());
        }
        let prepare = async {
            let found = self.look().await?;
            self.take_companions(work.server, holding, &found).await?;
            let seats: BTreeMap<&String, Seat> =
                holding.devices.iter().filter_map(|id| Some((id, seat(&found, id)?))).collect();
            let slots = holding.devices.iter().filter(|id| Slot::read(id).is_some());
            let mut record = self.records.read(work.server).await?.unwrap_or_default();
            record.devices = slots.chain(seats.keys().copied()).cloned().collect();
            // First, so that it is taken away again when the server is.
            self.records.write(work.server, &record).await?;
            self.make_vgpus(&record).await?;
            for id in &holding.devices {
                if let Some(slot) = Slot::read(id) {
                    self.make(work.server, id, &slot, &found).await?;
                }
            }
            for (id, seat) in &seats {
                let wanted = holding.functions.get(*id).copied().unwrap_or_default();
                self.set_function(seat, wanted).await?;
            }
            match holding.functions.keys().find(|id| !seats.contains_key(*id)) {
                None => Ok(()),
                Some(id) => Err(no_seat(id)),
            }
        };
        self.step(Step::Devices, work.server, prepare).await
    }

    /// The virtual functions of a server that has them are set to what it is to have by now, also while it runs. Of
    /// one that is off, what is not there any more is said when it is started.
    pub(super) async fn set_functions(
        &self,
        work: &Work<'_>,
        is_active: bool,
    ) -> Result<(), DriverFault> {
        let functions = &work.home.placement.holding.functions;
        if functions.is_empty() {
            return Ok(());
        }
        let set = async {
            let found = self.look().await?;
            for (id, wanted) in functions {
                match seat(&found, id) {
                    Some(seat) => self.set_function(&seat, *wanted).await?,
                    None if is_active => return Err(no_seat(id)),
                    None => {}
                }
            }
            Ok(())
        };
        self.step(Step::Devices, work.server, set).await
    }

    async fn set_function(&self, seat: &Seat, wanted: VirtualFunction) -> Result<(), DriverFault> {
        // A card in switchdev mode takes neither VLANs nor guards: its function's other end has them.
        let vlan = wanted.vlan.filter(|_| !seat.is_represented);
        let wanted = VirtualFunction { vlan, ..wanted };
        let guards = |links: &[Value]| {
            if seat.is_represented { Vec::new() } else { guards(links, seat.number) }
        };
        let links = self.links(seat).await?;
        let is = self.function(seat).await?;
        let (card, number) = (seat.card.as_str(), seat.number.to_string());
        let words = guards(&links);
        for [what, value] in words.into_iter().chain(differences(wanted, is)) {
            let words = ["link", "set", "dev", card, "vf", &number, &what, &value];
            let done = self.options.place.tool("ip", words).run().await;
            done.map_err(NetworkFault::from)?;
        }
        let open = guards(&self.links(seat).await?);
        if let Some([what, _]) = open.first() {
            let why = format!("function {number} of {card} keeps its {what} as it was");
            return Err(DriverFault::Rejected(why));
        }
        let is = self.function(seat).await?;
        if differences(wanted, is).is_empty() {
            return Ok(());
        }
        let what = format!("function {number} of {card}");
        Err(NetworkFault::differs(what, wanted, is).into())
    }

    async fn links(&self, seat: &Seat) -> Result<Vec<Value>, DriverFault> {
        let show = ["-d", "-j", "link", "show", "dev", seat.card.as_str()];
        Ok(self.options.place.json("ip", &show).await?)
    }

    async fn function(&self, seat: &Seat) -> Result<VirtualFunction, DriverFault> {
        let (card, number) = (seat.card.as_str(), seat.number);
        let links = self.links(seat).await?;
        read_function(&links, number).ok_or_else(|| {
            DriverFault::Rejected(format!("{card} has no virtual function {number}"))
        })
    }

    /// What cards say of the virtual functions that are set for a server.
    pub(super) async fn seen_functions(
        &self,
        home: &Home,
    ) -> Result<BTreeMap<String, VirtualFunction>, DriverFault> {
        let functions = &home.placement.holding.functions;
        let mut seen = BTreeMap::new();
        if functions.is_empty() {
            return Ok(seen);
        }
        let found = self.look().await?;
        for id in functions.keys() {
            let Some(seat) = seat(&found, id) else { continue };
            let mut is = self.function(&seat).await?;
            if seat.is_represented {
                let of = |nic: &&Nic| functions::device(nic, home) == Some(id);
                if let Some(nic) = home.parts.nics.iter().find(of) {
                    is.vlan = offload::vlan(&self.options.place, nic.segment).await?;
                }
            }
            seen.insert(id.clone(), is);
        }
        Ok(seen)
    }

    /// A server that is stopped has other devices from now on: what was made or set for those that it has no more
    /// is taken back. Others are made ready when it is started.
    pub(super) async fn change_devices(
        &self,
        work: &Work<'_>,
        placement: &Placement,
    ) -> Result<(), DriverFault> {
        let server = work.server;
        let kept = &placement.holding.devices;
        self.step(Step::Devices, server, self.release_devices(server, kept)).await?;
        let mut home: Home = work.home.clone();
        *home.placement = placement.clone();
        match self.describe(&Work { home: &home, ..*work }).await {
            Ok(machine) => {
                let wire = self.wire.get().await?;
                self.step(Step::Define, server, self.define(&wire, &machine)).await.map(drop)
            }
            // Another of its devices is not there: that is said when it is started, and it is described then.
            Err(DriverFault::Rejected(why)) => {
                tracing::info!(%server, why, "a server is not described before its start");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// What was made for a server is gone, and what was set is as it was, but for devices that it keeps.
    pub(super) async fn release_devices(
        &self,
        server: Uuid,
        kept: &BTreeSet<String>,
    ) -> Result<(), DriverFault> {
        self.give_back_companions(server).await?;
        let Some(mut record) = self.records.read(server).await? else { return Ok(()) };
        let is_kept = |id: &String| kept.contains(id);
        if record.devices.iter().chain(record.vgpus.keys()).all(is_kept) {
            return Ok(());
        }
        self.release_vgpus(&mut record, kept).await?;
        let found = self.look().await?;
        for id in std::mem::take(&mut record.devices) {
            if is_kept(&id) {
                record.devices.insert(id);
                continue;
            }
            if Slot::read(&id).is_some() {
                let uuid = mediated::uuid(server, &id).to_string();
                if found.mediated.contains_key(&uuid) {
                    self.write(format!("sys/bus/mdev/devices/{uuid}/remove"), "1").await?;
                }
            } else if let Some(seat) = seat(&found, &id) {
                self.set_function(&seat, VirtualFunction::default()).await?;
                // Not every card takes it back; the next server that has it says its own.
                let (card, number) = (seat.card.as_str(), seat.number.to_string());
                let words = ["link", "set", "dev", card, "vf", &number, "mac", "00:00:00:00:00:00"];
                if let Err(fault) = self.options.place.tool("ip", words).run().await {
                    tracing::debug!(%fault, device = id, "its hardware address stays");
                }
            }
        }
        Ok(self.records.write(server, &record).await?)
    }

    /// The mediated devices that were made for servers, by UUID: the id of each.
    pub(super) async fn made_devices(&self) -> Result<BTreeMap<String, String>, DriverFault> {
        let records = self.records.all().await?;
        let made = records.iter().flat_map(|(server, record)| {
            let slots = record.devices.iter().filter(|id| Slot::read(id).is_some());
            slots.map(|id| (mediated::uuid(*server, id).to_string(), id.clone()))
        });
        Ok(made.collect())
    }

    /// What devices the kernel knows.
    pub(super) async fn look(&self) -> Result<Devices, DriverFault> {
        let tree = Tree::at(&self.options.kernel);
        let read = tokio::task::spawn_blocking(move || devices::read(&tree)).await;
        Ok(read.map_err(|error| DriverFault::Unexpected(error.to_string()))??)
    }

    /// Makes a mediated device, unless it is there.
    async fn make(
        &self,
        server: Uuid,
        id: &str,
        slot: &Slot,
        found: &Devices,
    ) -> Result<(), DriverFault> {
        let uuid = mediated::uuid(server, id).to_string();
        if let Some(there) = found.mediated.get(&uuid) {
            if there.profile == slot.profile && there.parent == slot.parent {
                return Ok(());
            }
            let (parent, profile) = (&there.parent, &there.profile);
            return Err(DriverFault::Rejected(format!("{uuid} is a {profile} of {parent}")));
        }
        self.write(format!("{}/create", slot.folder()), &uuid).await?;
        // The driver says no by a fault, but what counts is that it is there.
        let made = self.look().await?;
        let is = made.mediated.get(&uuid).map(|made| made.profile.as_str());
        if is == Some(slot.profile.as_str()) {
            return Ok(());
        }
        Err(DriverFault::Unexpected(format!("{id} was made, and {uuid} is {is:?}")))
    }

    async fn write(&self, file: String, text: &str) -> Result<(), DriverFault> {
        self.told(file, text).await?.map_err(|fault| {
            DriverFault::Rejected(format!(
                "{fault}: no instance may be left, or another profile is used"
            ))
        })
    }
}

#[cfg(test)]
mod made;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_function_is_told_only_what_differs() {
        let mac = |text: &str| Some(text.parse().unwrap());
        let wanted = VirtualFunction {
            mac: mac("52:54:00:00:00:01"),
            vlan: Some(7),
            egress_mbit_s: Some(100),
        };
        let none = VirtualFunction::default();
        let lines = |wanted, is| {
            differences(wanted, is).into_iter().map(|words| words.join(" ")).collect::<Vec<_>>()
        };
        let all = ["mac 52:54:00:00:00:01", "vlan 7", "max_tx_rate 100"];
        assert_eq!(lines(wanted, none), all);
        assert!(lines(wanted, wanted).is_empty());
        // What somebody else had of it is taken back, but for its address: not every card takes none.
        assert_eq!(lines(none, wanted), ["vlan 0", "max_tx_rate 0"]);
        assert!(lines(none, VirtualFunction { mac: wanted.mac, ..none }).is_empty());
    }

    #[test]
    fn a_function_is_not_trusted_and_nothing_passes_from_another_address() {
        let links = [json!({"ifname": "eth1", "vfinfo_list": [
            {"vf": 0, "spoofchk": false, "trust": true},
            {"vf": 1, "spoofchk": true, "trust": false},
            {"vf": 2},
        ]})];
        let lines = |number| {
            let words = guards(&links, number).into_iter();
            words.map(|words| words.join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(lines(0), ["spoofchk on", "trust off"]);
        assert!(lines(1).is_empty() && lines(2).is_empty() && lines(3).is_empty());
    }

    #[test]
    fn a_card_says_of_its_functions_what_they_are_set_to() {
        let links = [json!({"ifname": "eth1", "vfinfo_list": [
            {"vf": 0, "link_type": "ether", "address": "00:00:00:00:00:00", "spoofchk": true,
             "vlan_list": [{"vlan": 0}], "rate": {"max_tx": 0, "min_tx": 0}},
            {"vf": 1, "address": "52:54:00:00:00:01", "vlan_list": [{"vlan": 7, "protocol": "802.1Q"}],
             "rate": {"max_tx": 100, "min_tx": 0}},
            {"vf": 2, "mac": "52:54:00:00:00:02", "vlan": 9, "tx_rate": 50},
        ]})];
        assert_eq!(read_function(&links, 0), Some(VirtualFunction::default()));
        let set = |mac: &str, vlan, rate| VirtualFunction {
            mac: Some(mac.parse().unwrap()),
            vlan: Some(vlan),
            egress_mbit_s: Some(rate),
        };
        assert_eq!(read_function(&links, 1), Some(set("52:54:00:00:00:01", 7, 100)));
        assert_eq!(read_function(&links, 2), Some(set("52:54:00:00:00:02", 9, 50)));
        assert_eq!(read_function(&links, 3), None);
    }
}
