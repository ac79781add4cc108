//! What AWS shows, in the kinds' own shapes. Equal things become equal values, whatever order AWS
//! lists their parts in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use commands::ports::{DriverFault, Sighting};
use domain::{
    cloud::{Region, Vpc, Zone},
    compute::{
        disk::{DiskState, SeenDisk},
        server::{Machine, Power},
    },
    mapping::Spec,
    network::{SeenNetwork, security_group::SecurityGroup},
};
use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::{
    rules,
    security_group::ID_TAG,
    wire::{Group, Instance, RegionInfo, Set, Subnet, Tag, Volume, VpcInfo, ZoneInfo},
};

/// Tags that begin so are Skyledger's own marks and not part of what is seen.
pub(super) const OWN_TAGS: &str = "skyledger:";

/// Whether a tag is AWS's own: nobody else may set or remove it.
pub(super) fn is_aws_tag(name: &str) -> bool {
    name.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"))
}

/// One item of a listing as a sighting; none for what counts as not there.
pub(super) trait Seen {
    /// The provider's id.
    fn external_id(&self) -> &str;
    /// Whether it still counts as there.
    fn is_there(&self) -> bool {
        true
    }
    /// The resource here that made it, where its mark says so.
    fn ours(&self) -> Option<Uuid> {
        None
    }
    /// In the kind's shape; the text says what does not read.
    fn value(&self) -> Result<impl Serialize, String>;
}

/// A sighting of an item.
pub(super) fn sighting(item: &impl Seen, region: Option<&str>) -> Result<Sighting, DriverFault> {
    let unreadable = |why: String| {
        DriverFault::Unexpected(format!("{} does not read: {why}", item.external_id()))
    };
    let seen = serde_json::to_value(item.value().map_err(unreadable)?)
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(Sighting {
        external_id: item.external_id().to_owned(),
        region: region.map(str::to_owned),
        seen,
        actor: None,
        ours: item.ours(),
    })
}

/// Tags but Skyledger's own, and the value of the one called `Name`.
fn tags(set: &Set<Tag>) -> (String, BTreeMap<String, String>) {
    let tags: BTreeMap<String, String> = set
        .item
        .iter()
        .filter(|tag| !tag.key.starts_with(OWN_TAGS))
        .map(|tag| (tag.key.clone(), tag.value.clone()))
        .collect();
    (tags.get("Name").cloned().unwrap_or_default(), tags)
}

fn blocks(texts: &[&str]) -> Result<Vec<IpNet>, String> {
    let sorted: Result<BTreeSet<IpNet>, String> =
        texts.iter().map(|text| rules::cidr(text)).collect();
    Ok(sorted?.into_iter().collect())
}

impl Seen for RegionInfo {
    fn external_id(&self) -> &str {
        &self.region_name
    }
    fn is_there(&self) -> bool {
        self.opt_in_status != "not-opted-in"
    }
    fn value(&self) -> Result<impl Serialize, String> {
        Ok(Region { name: self.region_name.clone() })
    }
}

impl Seen for ZoneInfo {
    fn external_id(&self) -> &str {
        &self.zone_name
    }
    fn value(&self) -> Result<impl Serialize, String> {
        Ok(Zone { name: self.zone_name.clone(), available: self.zone_state == "available" })
    }
}

impl Seen for VpcInfo {
    fn external_id(&self) -> &str {
        &self.vpc_id
    }
    fn value(&self) -> Result<impl Serialize, String> {
        let (name, tags) = tags(&self.tag_set);
        Ok(Vpc { name, cidrs: blocks(&self.blocks())?, default: self.is_default, tags })
    }
}

impl Seen for Subnet {
    fn external_id(&self) -> &str {
        &self.subnet_id
    }
    fn value(&self) -> Result<impl Serialize, String> {
        let (name, tags) = tags(&self.tag_set);
        Ok(SeenNetwork {
            name,
            vpc: self.vpc_id.clone(),
            zone: self.availability_zone.clone(),
            cidrs: blocks(&self.blocks())?,
            tags,
        })
    }
}

/// A power state by AWS's name; none for a server that is gone.
pub(super) fn power(state: &str) -> Option<Power> {
    match state {
        "terminated" => None,
        "pending" => Some(Power::Starting),
        "running" => Some(Power::Running),
        "stopping" | "shutting-down" => Some(Power::Stopping),
        "stopped" => Some(Power::Stopped),
        _ => Some(Power::Unknown),
    }
}

impl Instance {
    /// In our shape.
    pub(super) fn machine(&self) -> Result<Machine, String> {
        let (name, tags) = tags(&self.tag_set);
        let interfaces = || self.network_interface_set.item.iter();
        let private = || interfaces().flat_map(|one| &one.private_ip_addresses_set.item);
        let addresses: Result<BTreeSet<IpNet>, String> =
            [&self.private_ip_address, &self.ip_address]
                .into_iter()
                .chain(private().map(|one| &one.private_ip_address))
                .chain(private().map(|one| &one.association.public_ip))
                .chain(
                    interfaces()
                        .flat_map(|one| &one.ipv6_addresses_set.item)
                        .map(|one| &one.ipv6_address),
                )
                .flatten()
                .filter(|text| !text.is_empty())
                .map(|text| {
                    let address = text.parse::<IpAddr>();
                    address.map(IpNet::from).map_err(|_| format!("`{text}` is no address"))
                })
                .collect();
        let groups: BTreeSet<&String> = interfaces()
            .flat_map(|one| &one.group_set.item)
            .chain(&self.group_set.item)
            .map(|group| &group.group_id)
            .collect();
        let disks: BTreeSet<&String> = self
            .block_device_mapping
            .item
            .iter()
            .filter_map(|one| one.ebs.volume_id.as_ref())
            .collect();
        Ok(Machine {
            name,
            power: power(&self.instance_state.name).unwrap_or(Power::Unknown),
            shape: self.instance_type.clone(),
            image: filled(self.image_id.as_ref()),
            zone: filled(self.placement.availability_zone.as_ref()),
            vpc: filled(self.vpc_id.as_ref()),
            network: filled(self.subnet_id.as_ref()),
            addresses: addresses?.into_iter().collect(),
            security_groups: groups.into_iter().cloned().collect(),
            disks: disks.into_iter().cloned().collect(),
            nics: Vec::new(),
            functions: BTreeMap::new(),
            vgpus: BTreeMap::new(),
            tags,
        })
    }
}

fn filled(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

impl Seen for Instance {
    fn external_id(&self) -> &str {
        &self.instance_id
    }
    fn is_there(&self) -> bool {
        power(&self.instance_state.name).is_some()
    }
    fn value(&self) -> Result<impl Serialize, String> {
        self.machine()
    }
}

impl Seen for Volume {
    fn external_id(&self) -> &str {
        &self.volume_id
    }
    fn is_there(&self) -> bool {
        self.status != "deleted"
    }
    fn value(&self) -> Result<impl Serialize, String> {
        let (name, tags) = tags(&self.tag_set);
        let server = self
            .attachment_set
            .item
            .iter()
            .filter(|one| one.status != "detached")
            .filter_map(|one| one.instance_id.as_ref())
            .min();
        Ok(SeenDisk {
            name,
            size_gib: self.size,
            medium: self.volume_type.clone(),
            state: match self.status.as_str() {
                "available" => DiskState::Available,
                "in-use" => DiskState::Attached,
                "error" => DiskState::Failed,
                _ => DiskState::Changing,
            },
            server: filled(server),
            zone: filled(self.availability_zone.as_ref()),
            encrypted: self.encrypted,
            tags,
        })
    }
}

impl Group {
    /// In our shape, normalised.
    pub(super) fn security_group(&self) -> Result<SecurityGroup, String> {
        let (_, mut tags) = tags(&self.tag_set);
        // What nobody may set is nothing that anybody can want.
        tags.retain(|name, _| !is_aws_tag(name));
        Ok(SecurityGroup {
            name: self.group_name.clone(),
            description: self.group_description.clone(),
            vpc: filled(self.vpc_id.as_ref()),
            rules: rules::read(self)?,
            tags,
        }
        .normalise())
    }
}

impl Seen for Group {
    fn external_id(&self) -> &str {
        &self.group_id
    }
    fn ours(&self) -> Option<Uuid> {
        self.tag(ID_TAG)?.parse().ok()
    }
    fn value(&self) -> Result<impl Serialize, String> {
        self.security_group()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn server(xml: &str) -> Instance {
        quick_xml::de::from_str(&format!("<item><instanceId>i-1</instanceId>{xml}</item>")).unwrap()
    }

    #[test]
    fn two_spellings_of_one_server_are_one_value() {
        let tag = |key: &str| format!("<item><key>{key}</key><value>{key}</value></item>");
        let group = |id: &str| format!("<item><groupId>{id}</groupId></item>");
        let spelling = |a: &str, b: &str| {
            server(&format!(
                "<instanceState><code>16</code><name>running</name></instanceState>\
                 <instanceType>m7g.large</instanceType><keyName/>\
                 <groupSet>{}{}</groupSet><tagSet>{}{}{}</tagSet>\
                 <privateIpAddress>10.0.0.4</privateIpAddress><ipAddress>192.0.2.1</ipAddress>\
                 <networkInterfaceSet><item><ipv6AddressesSet><item>\
                 <ipv6Address>2001:db8::4</ipv6Address></item></ipv6AddressesSet>\
                 <privateIpAddressesSet><item><privateIpAddress>10.0.0.4</privateIpAddress>\
                 <association><publicIp>192.0.2.1</publicIp></association></item>\
                 </privateIpAddressesSet></item></networkInterfaceSet>",
                group(a),
                group(b),
                tag(b),
                tag("skyledger:order"),
                tag(a),
            ))
        };
        let (one, other) = (spelling("Name", "b"), spelling("b", "Name"));
        let seen = sighting(&one, Some("eu-west-1")).unwrap();
        assert_eq!(seen, sighting(&other, Some("eu-west-1")).unwrap());
        assert_eq!(seen.seen["name"], "Name");
        assert_eq!(
            seen.seen["addresses"],
            json!(["10.0.0.4/32", "192.0.2.1/32", "2001:db8::4/128"])
        );
        assert_eq!(seen.seen["tags"], json!({"Name": "Name", "b": "b"}));
        assert_eq!(seen.seen["image"], json!(null));
    }

    #[test]
    fn a_terminated_server_is_not_there() {
        let state = |name: &str| {
            server(&format!("<instanceState><name>{name}</name></instanceState>")).is_there()
        };
        assert!(!state("terminated"));
        assert!(state("shutting-down") && state("stopped"));
    }

    #[test]
    fn blocks_that_left_a_vpc_are_not_seen() {
        let vpc: VpcInfo = quick_xml::de::from_str(
            "<item><vpcId>vpc-1</vpcId><cidrBlock>10.1.0.0/16</cidrBlock><isDefault>true</isDefault>\
             <cidrBlockAssociationSet><item><cidrBlock>10.1.0.0/16</cidrBlock><cidrBlockState>\
             <state>associated</state></cidrBlockState></item><item><cidrBlock>10.0.0.0/16</cidrBlock>\
             <cidrBlockState><state>disassociated</state></cidrBlockState></item>\
             </cidrBlockAssociationSet><ipv6CidrBlockAssociationSet><item>\
             <ipv6CidrBlock>2001:db8::/56</ipv6CidrBlock></item></ipv6CidrBlockAssociationSet></item>",
        )
        .unwrap();
        assert_eq!(
            sighting(&vpc, None).unwrap().seen,
            json!({"name": "", "cidrs": ["10.1.0.0/16", "2001:db8::/56"], "default": true, "tags": {}})
        );
    }
}
