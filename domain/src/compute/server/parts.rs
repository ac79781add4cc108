//! What a server of ours is made of besides processors and memory: its disks, its interfaces, and what
//! it reads at its first boot.
//!
//! What is asked for names images, networks and key pairs by their id. What they were is found when the
//! server is launched and recorded with it, so that the server's own stream says everything that its host
//! must know, whatever becomes of them later. Ids and hardware addresses follow from the server's id:
//! a plan shows those that its server will have.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{
    carried::Carried,
    cdrom::{Cdrom, holds_disk},
    direct::VnicType,
    hardware::{DiskBus, Hardware},
    home::{Home, Launch},
};
use crate::{
    compute::{
        disk::{self, Limits},
        image::{self, Definition, Firmware, Os, Source},
        placement::{Architecture, HostId},
        storage::{self, Format, Grouped, StorageId},
        userdata::{
            System, Userdata,
            nocloud::{Documents, FirstBoot, Interface, documents},
        },
    },
    kernel::{Companion, Decider, Refusal, Stamp, codes, sha256},
    network::{
        addresses::{Family, Want},
        bandwidth::Bandwidth,
        carrier,
        mac::Mac,
        net::{self, Network},
        quota::Quota,
        security_group::Rule,
        segment::{Medium, Segment},
    },
};

/// Largest disk, in GiB: 64 TiB.
pub const DISK_GIB_MAX: u64 = 64 * 1_024;
/// Most disks of a server, as many as there are letters for.
pub const DISKS_MAX: usize = 26;
/// Most interfaces of a server.
pub const NICS_MAX: usize = 16;
/// Most security groups of an interface.
pub const GROUPS_MAX: usize = 5;
/// Most key pairs of a server.
pub const KEY_PAIRS_MAX: usize = 64;
/// How many hardware addresses are tried for an interface that asks for none, after the first: one of them was
/// asked for by somebody else, and never all.
const MACS_TRIED: usize = 7;
/// Longest host name, in characters: one label of a name (RFC 1035).
const HOSTNAME_CHARS_MAX: usize = 63;

/// A disk, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskAsk {
    /// 1…65,536 GiB; as large as what it is made from when that is named and this is left out.
    #[serde(default)]
    pub size_gib: u64,
    /// How it lies on its host.
    #[serde(default = "qcow2")]
    pub format: Format,
    /// How much may be read and written; no limit when left out.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The storage it lies on, of those that several hosts reach; on its host alone when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageId>,
    /// The backup or snapshot that it is made from; it is empty when this is left out, or made from the
    /// image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<disk::From>,
}

fn qcow2() -> Format {
    Format::Qcow2
}

/// An interface, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicAsk {
    /// The network, one of our own.
    pub network: Uuid,
    /// Which IPv4 address. With neither family named it gets one of each that the network has.
    #[serde(default)]
    pub v4: Option<Want>,
    /// Which IPv6 address.
    #[serde(default)]
    pub v6: Option<Want>,
    /// Its hardware address, which nobody else on the network's segment may have; one of ours when left out.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// How fast it may send and be sent to; no limit when left out.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// How many bytes may pass. Its bytes are counted from when it has one; a limit that is left out is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// The security groups that guard it, by id, at most 5: groups for hosts of our own. With none
    /// nothing is kept from it but spoofing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub security_groups: BTreeSet<Uuid>,
    /// What it is on its host; made by it when left out.
    #[serde(default, skip_serializing_if = "VnicType::is_normal")]
    pub vnic_type: VnicType,
}

/// Rules of security groups, by the group's id.
pub type GroupRules = BTreeMap<Uuid, Vec<Rule>>;

/// The image that a root disk is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServerImage")]
pub struct Image {
    /// Its id.
    pub id: Uuid,
    /// SHA-256 of its file, 64 hexadecimal digits.
    pub sha256: String,
    /// How its file is laid out.
    pub format: image::Format,
    /// Where its host gets it.
    pub source: Source,
    /// How large its file is, rounded up, in MiB.
    pub size_mib: u64,
    /// What is in it.
    pub os: Os,
}

/// A disk of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServerDisk")]
pub struct Disk {
    /// Its own id, which names it on its host.
    pub id: Uuid,
    /// Its size in GiB.
    pub size_gib: u64,
    /// How it lies on its host.
    pub format: Format,
    /// Whether it was made from the image.
    #[serde(default)]
    pub from_image: bool,
    /// How much may be read and written.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The storage it lies on; none for one that is on its host alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageId>,
    /// Whether it is a volume that several hosts reach, and active on a lease.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leased: bool,
    /// What else it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<disk::Source>,
    /// The file or device of its host that it is, where it was there before its server was ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<String>,
}

/// Whether what lies there is a device of its host, and no file.
pub fn is_device(path: &str) -> bool {
    path.starts_with("/dev/")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// An interface of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServerNic")]
pub struct Nic {
    /// Its own id, under which the network gave it its addresses.
    pub id: Uuid,
    /// The network.
    pub network: Uuid,
    /// The segment that the network is on.
    pub segment: Uuid,
    /// The segment's bridge on each host.
    pub bridge: String,
    /// How a host carries the segment.
    pub medium: Medium,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses, with the length of their subnet's prefix.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<IpNet>,
    /// Where other networks are reached; at most one of each family.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Who answers questions for names.
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    /// The DNS domain; none when empty.
    #[serde(default)]
    pub domain: String,
    /// How long its addresses are good for when its host tells them by DHCP, in seconds; none when its seed
    /// has them and nobody tells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_s: Option<u32>,
    /// How fast it may send and be sent to.
    #[serde(default, skip_serializing_if = "Bandwidth::is_unlimited")]
    pub bandwidth: Bandwidth,
    /// How many bytes may pass; not counted when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// How often its bytes were counted anew.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub resets: u64,
    /// What it had used before it came to its host.
    #[serde(default, skip_serializing_if = "Carried::is_nothing")]
    pub carried: Carried,
    /// The security groups that guard it; their rules are in [`Parts::groups`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub security_groups: BTreeSet<Uuid>,
    /// What it is on its host.
    #[serde(default, skip_serializing_if = "VnicType::is_normal")]
    pub vnic_type: VnicType,
}

/// What a server of ours is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ServerParts")]
pub struct Parts {
    /// What its root disk is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Its drive; none when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<Cdrom>,
    /// What it is started by; BIOS when nothing says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// What its disks and interfaces are for its system.
    #[serde(default, skip_serializing_if = "Hardware::is_virtio")]
    pub hardware: Hardware,
    /// Its disks, in the guest's order; with an image the first is made from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// Its interfaces, in the guest's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
    /// The rules of the security groups that guard its interfaces, as it follows them.
    #[serde(default, skip_serializing_if = "GroupRules::is_empty")]
    pub groups: GroupRules,
    /// Public SSH keys of who may log in, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// The network that an interface is to be on, as it was found.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    /// The network.
    pub network: Network,
    /// Its segment.
    pub segment: Segment,
    /// The other networks of that: a hardware address is one interface's in all of them.
    pub others: Vec<Network>,
}

/// What a launch named, as it was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The image.
    pub image: Option<(Uuid, Definition)>,
    /// The disc.
    pub cdrom: Option<(Uuid, Definition)>,
    /// What each disk is made from that says so, and how large that is in GiB: as many as were asked for,
    /// or none.
    pub sources: Vec<Option<(disk::Source, u64)>>,
    /// The storages of disks that are volume groups.
    pub volume_groups: BTreeMap<StorageId, Grouped>,
    /// The network of each interface: as many as were asked for.
    pub networks: Vec<Joined>,
    /// The rules of every security group that an interface names.
    pub groups: GroupRules,
    /// The line of each key pair.
    pub keys: Vec<String>,
}

/// An id that follows from a server's: which of what, counted from 0.
pub(in crate::compute) fn part_id(server: Uuid, what: &str, at: usize) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha256(format!("{server}/{what}/{at}").as_bytes())[..16]);
    // A version that says that the bits are our own affair (RFC 9562 §5.8).
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid::from_bytes(bytes)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn no(detail: String) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Parts {
    /// Works out what a server is made of.
    ///
    /// # Errors
    /// `invalid-field`, `no-address-free`, `address-taken` and `address-not-given`: what is asked for does
    /// not go together, or cannot be had.
    pub fn work_out(
        server: Uuid,
        launch: &Launch,
        found: Found,
        now: DateTime<Utc>,
    ) -> Result<Self, Refusal> {
        let image = found.image.as_ref().map(|(_, definition)| definition);
        image.map_or(Ok(()), holds_disk)?;
        let mut disks = Self::disks(server, &launch.disks, image, &found.sources)?;
        for (at, disk) in disks.iter_mut().enumerate() {
            let Some(storage) = disk.storage else { continue };
            let Some(group) = found.volume_groups.get(&storage) else { continue };
            let named =
                |no: Refusal| Refusal { detail: format!("disks[{at}].{}", no.detail), ..no };
            storage::in_group(storage, disk.format, group).map_err(named)?;
            disk.leased = group.is_shared();
        }
        let architecture = launch.spec.architecture;
        if let Some(image) = image.filter(|image| image.architecture != architecture) {
            return Err(no(format!("image: {} is for another architecture", image.name)));
        }
        let firmware = launch.firmware.or(image.map(|image| image.firmware));
        if firmware == Some(Firmware::Bios) && architecture != Architecture::X86_64 {
            return Err(no("firmware: only x86_64 has a BIOS".to_owned()));
        }
        let disc = found.cdrom.map(|(id, image)| Cdrom::with(id, image, architecture));
        let cdrom = disc.transpose()?;
        let nics = Self::nics(server, &launch.nics, found.networks, now)?;
        for (at, nic) in nics.iter().enumerate() {
            let named = |no: Refusal| Refusal { detail: format!("nics[{at}].{}", no.detail), ..no };
            nic.check(&found.groups).map_err(named)?;
        }
        let image = found.image.map(|(id, definition)| Image::of(id, definition));
        let (hardware, groups) = (launch.hardware, found.groups);
        if hardware.disks == DiskBus::Sata && architecture != Architecture::X86_64 {
            return Err(no("hardware.disks: only x86_64 has sata".to_owned()));
        }
        let parts =
            Self { image, cdrom, firmware, hardware, disks, nics, groups, keys: found.keys };
        // What its host would find out is found out before there is anything.
        parts.seed(server, &launch.name, None)?;
        Ok(parts)
    }

    fn disks(
        server: Uuid,
        asked: &[DiskAsk],
        image: Option<&Definition>,
        sources: &[Option<(disk::Source, u64)>],
    ) -> Result<Vec<Disk>, Refusal> {
        if asked.len() > DISKS_MAX {
            return Err(no(format!("disks: at most {DISKS_MAX}")));
        }
        let smallest = image.filter(|_| asked.is_empty()).map(|image| DiskAsk {
            size_gib: image.min_disk_gib,
            format: Format::Qcow2,
            limits: Limits::default(),
            storage: None,
            from: None,
        });
        let mut disks = Vec::new();
        for (at, ask) in asked.iter().chain(&smallest).enumerate() {
            let source = sources.get(at).and_then(Option::as_ref);
            let least = source.map_or(1, |(_, least)| *least);
            let size_gib = match ask.size_gib {
                0 if source.is_some() => least,
                asked => asked,
            };
            if ask.from.is_some() != source.is_some() {
                return Err(no(format!("disks[{at}].from: nobody looked for it")));
            }
            if !(least..=DISK_GIB_MAX).contains(&size_gib) {
                return Err(no(format!("disks[{at}].size_gib: is {least} to {DISK_GIB_MAX}")));
            }
            if source.is_some() && at == 0 && image.is_some() {
                return Err(no("disks[0].from: the first disk is made from the image".to_owned()));
            }
            let named = |refusal: Refusal| no(format!("disks[{at}].limits.{}", refusal.detail));
            ask.limits.check().map_err(named)?;
            let root = image.filter(|_| at == 0);
            if let Some(image) = root.filter(|image| size_gib < image.min_disk_gib) {
                let (least, name) = (image.min_disk_gib, &image.name);
                return Err(no(format!("disks[0].size_gib: {name} needs at least {least} GiB")));
            }
            disks.push(Disk {
                id: part_id(server, "disk", at),
                size_gib,
                format: ask.format,
                from_image: root.is_some(),
                limits: ask.limits,
                storage: ask.storage,
                leased: false,
                source: source.map(|(source, _)| source.clone()),
                in_place: None,
            });
        }
        Ok(disks)
    }

    fn nics(
        server: Uuid,
        asked: &[NicAsk],
        networks: Vec<Joined>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Nic>, Refusal> {
        if asked.len() > NICS_MAX {
            return Err(no(format!("nics: at most {NICS_MAX}")));
        }
        let mut nics: Vec<Nic> = Vec::new();
        let mut given: Vec<(Uuid, net::Event)> = Vec::new();
        for (at, (ask, mut joined)) in asked.iter().zip(networks).enumerate() {
            // Those before it in this launch have taken theirs.
            for (_, event) in given.iter().filter(|(id, _)| *id == ask.network) {
                joined.network = joined.network.evolve(event.clone());
            }
            let refused = |refusal: Refusal| {
                Refusal::new(refusal.code, format!("nics[{at}]: {}", refusal.detail))
            };
            let id = part_id(server, "nic", at);
            let nic = ask.work_out(id, &joined, now).map_err(refused)?;
            if nics.iter().any(|other| other.mac == nic.mac) {
                return Err(no(format!("nics[{at}].mac: {} is another interface's", nic.mac)));
            }
            let addresses = nic.addresses.iter().map(IpNet::addr).collect();
            let event = net::Event::Given { holder: id, addresses, mac: Some(nic.mac) };
            given.push((ask.network, event));
            nics.push(nic);
        }
        Ok(nics)
    }

    /// What a server of this name reads at its first boot.
    ///
    /// # Errors
    /// `invalid-field`: an interface or a key that no guest could use.
    pub fn seed(
        &self,
        server: Uuid,
        name: &str,
        userdata: Option<&Userdata>,
    ) -> Result<Documents, Refusal> {
        let interfaces: Vec<_> = self.nics.iter().map(Nic::interface).collect();
        documents(&FirstBoot {
            instance: &server.to_string(),
            hostname: &hostname(name, server),
            keys: &self.keys,
            interfaces: &interfaces,
            userdata,
        })
    }

    /// Whose userdata it understands.
    pub fn system(&self) -> System {
        system(self.image.as_ref().map(|image| image.os))
    }

    /// What its disks are told when they are made with it, on this host.
    pub(super) fn provision(&self, launch: &Launch, host: HostId, server: Uuid) -> Vec<Companion> {
        // Room for the number behind it.
        let name: String = launch.name.chars().take(96).collect();
        let of = |(at, disk): (usize, &Disk)| {
            let creation = disk::Creation {
                name: format!("{name}-{at}"),
                server,
                size_gib: disk.size_gib,
                format: disk.format,
                limits: disk.limits,
                storage: disk.storage,
                from: disk.source.as_ref().map(disk::Source::from),
                found: Some(disk::Place {
                    id: disk.id,
                    project: launch.project,
                    host,
                    leased: disk.leased,
                    source: disk.source.clone(),
                    in_place: disk.in_place.clone(),
                }),
            };
            let body = json!({"creation": creation, "root": at == 0});
            Companion { kind: "disk", id: disk.id, verb: "provision", body }
        };
        self.disks.iter().enumerate().map(of).collect()
    }

    /// What a host must reach to have it.
    pub(super) fn reaches(&self) -> BTreeSet<String> {
        let storages = storage::labels(self.disks.iter().map(|disk| disk.storage));
        &storages | &self.carriers()
    }

    /// What must carry its segments on a host that is to have it.
    pub(super) fn carriers(&self) -> BTreeSet<String> {
        let carried = self.nics.iter().filter_map(|nic| carrier::of(nic.medium, &nic.bridge));
        carried.map(|one| carrier::label(&one)).collect()
    }

    /// What each of its disks is told.
    pub(super) fn tell_disks(&self, verb: &'static str) -> impl Iterator<Item = Companion> {
        let of = move |disk: &Disk| Companion { kind: "disk", id: disk.id, verb, body: json!({}) };
        self.disks.iter().map(of)
    }

    /// Puts a disk into the list, or what is different of one that is there.
    pub(super) fn admit(&mut self, disk: Disk) {
        match self.disks.iter_mut().find(|known| known.id == disk.id) {
            Some(known) => {
                let from_image = known.from_image;
                *known = Disk { from_image, ..disk };
            }
            None => self.disks.push(disk),
        }
    }

    /// What its interfaces say to their networks when they are given their addresses.
    pub(super) fn give(&self) -> impl Iterator<Item = Companion> {
        self.nics.iter().map(Nic::give)
    }

    /// And when they give them back.
    pub(super) fn release(&self) -> impl Iterator<Item = Companion> {
        self.nics.iter().map(Nic::release)
    }
}

/// Whose userdata a system understands.
pub fn system(os: Option<Os>) -> System {
    if os == Some(Os::Windows) { System::Windows } else { System::Linux }
}

/// A host name made of a server's name: its letters and digits, and a hyphen for everything else.
pub fn hostname(name: &str, server: Uuid) -> String {
    let mut out = String::new();
    for char in name.chars().flat_map(char::to_lowercase) {
        if char.is_ascii_alphanumeric() {
            out.push(char);
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    out.truncate(HOSTNAME_CHARS_MAX);
    let out = out.trim_end_matches('-');
    if out.is_empty() {
        return format!("server-{}", &server.simple().to_string()[..12]);
    }
    out.to_owned()
}

impl Nic {
    /// How a system sets it up at its boot: by what its seed says, or by asking its host.
    fn interface(&self) -> Interface {
        let search = (!self.domain.is_empty()).then(|| self.domain.clone());
        let is_static = Interface {
            mac: self.mac,
            addresses: self.addresses.clone(),
            gateways: self.gateways.clone(),
            dhcp4: false,
            dhcp6: false,
            nameservers: self.dns_servers.clone(),
            search: search.into_iter().collect(),
            mtu: Some(self.mtu),
        };
        if self.lease_s.is_none() {
            return is_static;
        }
        let has = |v4: bool| self.addresses.iter().any(|net| net.addr().is_ipv4() == v4);
        Interface {
            addresses: Vec::new(),
            // DHCPv6 names no router, and a host of ours is none.
            gateways: self.gateways.iter().filter(|gateway| gateway.is_ipv6()).copied().collect(),
            dhcp4: has(true),
            dhcp6: has(false),
            nameservers: Vec::new(),
            search: Vec::new(),
            ..is_static
        }
    }
}

impl Joined {
    /// Whose a hardware address is on the segment, in another network than this: none for the interface itself.
    fn elsewhere(&self, mac: Mac, nic: Uuid) -> Option<Uuid> {
        let mut holders = self.others.iter().filter_map(|network| network.mac_holder(mac));
        holders.find(|holder| *holder != nic)
    }

    /// The hardware address of an interface that asks for none: it follows from its id, and from another number
    /// where somebody asked for just that one.
    fn own_mac(&self, nic: Uuid) -> Mac {
        let is_free = |mac: &Mac| {
            let here = self.network.mac_holder(*mac).is_none_or(|holder| holder == nic);
            here && self.elsewhere(*mac, nic).is_none()
        };
        let first = Mac::of(nic);
        let next = (1..=MACS_TRIED).map(|number| Mac::of(part_id(nic, "mac", number)));
        std::iter::once(first).chain(next).find(is_free).unwrap_or(first)
    }
}

impl NicAsk {
    /// The interface with this id that is asked for: its addresses are what the network would give it now.
    ///
    /// # Errors
    /// As [`Parts::work_out`].
    pub fn work_out(&self, id: Uuid, joined: &Joined, now: DateTime<Utc>) -> Result<Nic, Refusal> {
        let Joined { network, segment, .. } = joined;
        let own = network.own.as_ref().filter(|own| !own.retired).ok_or_else(|| {
            no(format!("network: {} is not a network of our own that is in use", self.network))
        })?;
        let medium = segment
            .medium
            .filter(|_| !segment.retired)
            .ok_or_else(|| no(format!("network: its segment {} is given up", own.segment)))?;
        let families = &own.addresses;
        let (v4, v6) = match (self.v4, self.v6) {
            (None, None) => {
                let any = Some(Want::Any {});
                (any.filter(|_| families.v4.is_some()), any.filter(|_| families.v6.is_some()))
            }
            named => named,
        };
        let mac = self.mac.unwrap_or_else(|| joined.own_mac(id));
        if joined.elsewhere(mac, id).is_some() {
            let detail = format!("{mac}: an interface in another network of its segment has it");
            return Err(Refusal::new(&codes::ADDRESS_TAKEN, detail));
        }
        let decided = network.decide(
            net::Command::Give { holder: id, v4, v6, mac: Some(mac), chance: Some(id) },
            &Stamp { now, actor: String::new() },
        )?;
        let given = decided.into_iter().find_map(|event| match event {
            net::Event::Given { addresses, .. } => Some(addresses),
            _ => None,
        });
        let mut nic = Nic {
            id,
            network: self.network,
            segment: own.segment,
            bridge: segment.bridge.clone(),
            medium,
            mtu: segment.mtu,
            mac,
            addresses: Vec::new(),
            gateways: Vec::new(),
            dns_servers: own.dns_servers.clone(),
            domain: own.domain.clone(),
            // Its host does not hear what a virtual function asks.
            lease_s: (own.dhcp && self.vnic_type.is_normal()).then_some(own.lease_s),
            bandwidth: self.bandwidth,
            quota: self.quota,
            resets: 0,
            carried: Carried::default(),
            security_groups: self.security_groups.clone(),
            vnic_type: self.vnic_type,
        };
        for address in given.unwrap_or_default() {
            let family = if address.is_ipv4() { &families.v4 } else { &families.v6 };
            let Some(subnet) = family.as_ref().map(Family::subnet) else { continue };
            nic.addresses.extend(IpNet::new(address, subnet.net.prefix_len()));
            nic.gateways.extend(subnet.gateway);
        }
        Ok(nic)
    }
}

impl Home {
    /// What the server reads at its first boot.
    ///
    /// # Errors
    /// As [`Parts::seed`].
    pub fn seed(&self, userdata: Option<&Userdata>) -> Result<Documents, Refusal> {
        self.parts.seed(self.placement.holding.server.uuid(), &self.name, userdata)
    }
}

#[cfg(test)]
mod tests;
