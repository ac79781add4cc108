//! What a server is besides what is on its disks, so that another can be made like it.
//!
//! It goes with the backups of a server ([`crate::compute::backup_set`]), in the record and in their store.
//! It has no secrets: not its userdata, nor any password. Networks and security groups are named by the ids
//! that they have where it was; where they are not known, a network is found by the addresses.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Server,
    boot::BootDevice,
    direct::VnicType,
    hardware::Hardware,
    home::{Home, Spec},
    parts::{GroupRules, Nic, NicAsk},
};
use crate::{
    compute::{disk::Limits, image::Firmware, storage::Format},
    kernel::{Refusal, codes},
    network::{
        addresses::{Family, IpAddr, Want},
        bandwidth::Bandwidth,
        mac::Mac,
        net::{Network, Own},
        quota::Quota,
    },
};

/// An interface of a server, as another is to have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "BlueprintNic")]
pub struct BlueprintNic {
    /// The network that it was on.
    pub network: Uuid,
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses, with the length of their subnet's prefix.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// How fast it might send and be sent to.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// How many bytes might pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// The security groups that guarded it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub security_groups: BTreeSet<Uuid>,
    /// What it was on its host.
    #[serde(default, skip_serializing_if = "VnicType::is_normal")]
    pub vnic_type: VnicType,
}

/// A disk of a server, as another is to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "BlueprintDisk")]
pub struct BlueprintDisk {
    /// How it lay on its host.
    pub format: Format,
    /// How much might be read and written.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
}

/// What a server is besides what is on its disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServerBlueprint")]
pub struct Blueprint {
    /// Its name.
    pub name: String,
    /// What was wanted of its machine.
    pub spec: Spec,
    /// What it was started by; BIOS when nothing says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// What its disks and interfaces were for its system.
    #[serde(default, skip_serializing_if = "Hardware::is_virtio")]
    pub hardware: Hardware,
    /// What it was started from, in turn; its first disk and then its drive when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_order: Vec<BootDevice>,
    /// Its disks, by their ids.
    #[serde(default)]
    pub disks: BTreeMap<Uuid, BlueprintDisk>,
    /// Its interfaces, in the guest's order.
    #[serde(default)]
    pub nics: Vec<BlueprintNic>,
    /// The rules of the security groups that guarded its interfaces, as it followed them.
    #[serde(default, skip_serializing_if = "GroupRules::is_empty")]
    pub groups: GroupRules,
    /// Public SSH keys of who may log in, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether it could not be deleted before that was taken away.
    #[serde(default)]
    pub protected: bool,
}

impl BlueprintNic {
    fn of(nic: &Nic) -> Self {
        Self {
            network: nic.network,
            mac: nic.mac,
            addresses: nic.addresses.clone(),
            bandwidth: nic.bandwidth,
            quota: nic.quota,
            security_groups: nic.security_groups.clone(),
            vnic_type: nic.vnic_type,
        }
    }

    /// Whether all its addresses lie in a network's subnets.
    fn fits(&self, own: &Own) -> bool {
        let within = |address: IpAddr| {
            family(own, address.is_ipv4()).is_some_and(|it| it.subnet().net.contains(&address))
        };
        !self.addresses.is_empty() && self.addresses.iter().all(|net| within(net.addr()))
    }

    /// The network that it is to be on: the same one, or else the only one that its addresses lie in.
    fn place<'a>(&self, networks: &'a [(Uuid, Network)]) -> Result<(Uuid, &'a Own), Refusal> {
        let in_use = |network: &'a Network| network.own.as_ref().filter(|own| !own.retired);
        let same = networks.iter().find(|(id, _)| *id == self.network);
        if let Some((id, own)) = same.and_then(|(id, network)| Some((*id, in_use(network)?))) {
            return Ok((id, own));
        }
        let fitting = |(id, network): &'a (Uuid, Network)| {
            in_use(network).filter(|own| self.fits(own)).map(|own| (*id, own))
        };
        let mut fitting = networks.iter().filter_map(fitting);
        let has: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let (mac, has) = (self.mac, has.join(", "));
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        match (fitting.next(), fitting.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => no(format!(
                "nics: {mac} had {has} in network {}, and no network here is that or has these: say nics",
                self.network
            )),
            _ => no(format!("nics: {mac} had {has}, of several networks here: say nics")),
        }
    }

    /// What is asked for: what it had where that is nobody's, and something else otherwise.
    fn ask(&self, networks: &[(Uuid, Network)]) -> Result<NicAsk, Refusal> {
        let (network, own) = self.place(networks)?;
        let want = |v4: bool| {
            let had = self.addresses.iter().map(IpNet::addr).find(|one| one.is_ipv4() == v4)?;
            let family = family(own, v4)?;
            let is_free = family.subnet().net.contains(&had) && family.holder(had).is_none();
            Some(if is_free { Want::Named { address: had, reserved: true } } else { Want::Any {} })
        };
        let on_segment =
            |one: &Network| one.own.as_ref().is_some_and(|it| it.segment == own.segment);
        let mut near = networks.iter().map(|(_, one)| one).filter(|one| on_segment(one));
        let is_free = near.all(|one| one.mac_holder(self.mac).is_none());
        Ok(NicAsk {
            network,
            v4: want(true),
            v6: want(false),
            mac: is_free.then_some(self.mac),
            bandwidth: self.bandwidth,
            quota: self.quota,
            security_groups: self.security_groups.clone(),
            vnic_type: self.vnic_type,
        })
    }
}

fn family(own: &Own, v4: bool) -> Option<&Family> {
    if v4 { own.addresses.v4.as_ref() } else { own.addresses.v6.as_ref() }
}

impl Blueprint {
    /// What a server of ours is now; none of one that is not on a host of ours.
    pub fn of(server: &Server) -> Option<Self> {
        server.home.as_ref().filter(|home| !home.removed).map(Self::of_home)
    }

    fn of_home(home: &Home) -> Self {
        let parts = &home.parts;
        let mut spec = home.spec.clone();
        // Interfaces that are virtual functions ask for those again.
        for function in parts.functions() {
            if let Some(at) = spec.devices.iter().rposition(|asked| *asked == function) {
                spec.devices.remove(at);
            }
        }
        let disks = parts
            .disks
            .iter()
            .map(|disk| (disk.id, BlueprintDisk { format: disk.format, limits: disk.limits }));
        Self {
            name: home.name.clone(),
            spec,
            firmware: parts.firmware,
            hardware: parts.hardware,
            boot_order: home.boot_order.clone(),
            disks: disks.collect(),
            nics: parts.nics.iter().map(BlueprintNic::of).collect(),
            groups: parts.groups.clone(),
            keys: parts.keys.clone(),
            tags: home.tags.clone(),
            protected: home.protected,
        }
    }

    /// What interfaces are asked for, with the networks of ours that there are.
    ///
    /// # Errors
    /// `invalid-field`: a network is not there.
    pub fn nics(&self, networks: &[(Uuid, Network)]) -> Result<Vec<NicAsk>, Refusal> {
        self.nics.iter().map(|nic| nic.ask(networks)).collect()
    }

    /// What another one is started from, in turn: as this one was, less what that one does not have. Its disks
    /// it has. Empty where nothing was said, or none of it is left.
    pub fn boots(&self, has_cdrom: bool, has_nics: bool) -> Vec<BootDevice> {
        let is_there = |device: &BootDevice| match device {
            BootDevice::Cdrom => has_cdrom,
            BootDevice::Disk => true,
            BootDevice::Network => has_nics,
        };
        self.boot_order.iter().copied().filter(is_there).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{kernel::Decider as _, network::net};

    const MAC: &str = "52:54:00:00:00:01";

    fn network(id: u128, net: &str) -> (Uuid, Network) {
        let definition = json!({
            "id": Uuid::from_u128(id), "name": net, "segment": Uuid::from_u128(8), "v4": {"net": net},
        });
        let defined = net::Event::Defined(serde_json::from_value(definition).unwrap());
        (Uuid::from_u128(id), Network::default().evolve(defined))
    }

    fn blueprint() -> Blueprint {
        let nic = json!({
            "network": Uuid::from_u128(7), "mac": MAC, "addresses": ["10.0.0.9/24"],
        });
        let blueprint = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "nics": [nic],
        });
        serde_json::from_value(blueprint).unwrap()
    }

    /// Network, address and hardware address that are asked for.
    fn asked(networks: &[(Uuid, Network)]) -> Result<(u128, Value, bool), String> {
        let nics = blueprint().nics(networks).map_err(|no| no.detail)?;
        let nic = &nics[0];
        assert_eq!((nics.len(), nic.v6), (1, None));
        Ok((nic.network.as_u128(), json!(nic.v4), nic.mac.is_some()))
    }

    fn given((id, network): (Uuid, Network), address: &str, mac: &str) -> (Uuid, Network) {
        let event = net::Event::Given {
            holder: Uuid::from_u128(99),
            addresses: vec![address.parse().unwrap()],
            mac: Some(mac.parse().unwrap()),
        };
        (id, network.evolve(event))
    }

    #[test]
    fn an_interface_has_what_it_had_where_that_is_nobody_s() {
        let same = json!({"type": "named", "data": {"address": "10.0.0.9", "reserved": true}});
        let any = json!({"type": "any", "data": {}});
        let home = || network(7, "10.0.0.0/24");
        assert_eq!(asked(&[home()]), Ok((7, same.clone(), true)));
        let other = "52:54:00:00:00:02";
        assert_eq!(asked(&[given(home(), "10.0.0.9", other)]), Ok((7, any.clone(), true)));
        assert_eq!(asked(&[given(home(), "10.0.0.8", MAC)]), Ok((7, same.clone(), false)));
        // Another network of the segment has its hardware address.
        let near = given(network(6, "10.0.1.0/24"), "10.0.1.2", MAC);
        assert_eq!(asked(&[near, home()]), Ok((7, same.clone(), false)));
        // The network has other addresses by now.
        assert_eq!(asked(&[network(7, "10.9.0.0/24")]), Ok((7, any, true)));
        // Elsewhere the network is the one that the addresses are of.
        assert_eq!(
            asked(&[network(5, "10.9.0.0/24"), network(6, "10.0.0.0/16")]),
            Ok((6, same, true))
        );
    }

    #[test]
    fn where_no_network_or_several_would_do_somebody_has_to_say() {
        let none = asked(&[network(5, "10.9.0.0/24")]).unwrap_err();
        assert!(none.contains("10.0.0.9/24") && none.contains("say nics"), "{none}");
        let two = asked(&[network(5, "10.0.0.0/24"), network(6, "10.0.0.0/16")]).unwrap_err();
        assert!(two.contains("several networks"), "{two}");
        let retired = network(7, "10.0.0.0/24");
        let retired = (retired.0, retired.1.evolve(net::Event::Retired {}));
        assert!(asked(&[retired]).is_err());
    }
}
