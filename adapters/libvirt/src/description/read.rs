//! What a domain's XML says of a server, whoever wrote it.

use std::collections::BTreeMap;

use quick_xml::{
    NsReader, XmlVersion,
    events::{BytesStart, Event},
    name::ResolveResult,
};
use uuid::Uuid;

use super::{
    Description, DirectKernel, DiskDevice, Firmware, Format, GuestCell, HostDevice, Nic, NicModel,
    NotADescription, Source, Topology, Virtualisation,
};
use crate::{Limit, Limits};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 64;

/// An element and what is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    name: String,
    /// Whether it is of our own namespace.
    is_ours: bool,
    attributes: BTreeMap<String, String>,
    text: String,
    inner: Vec<Node>,
}

fn no(what: impl std::fmt::Display) -> NotADescription {
    NotADescription(what.to_string())
}

impl Node {
    fn begin(start: &BytesStart<'_>, is_ours: bool) -> Result<Self, NotADescription> {
        let name = start.local_name().as_ref().to_owned();
        let mut attributes = BTreeMap::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(no)?;
            let key = attribute.key.as_ref().to_owned();
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(no)?;
            attributes.insert(key, value.into_owned());
        }
        Ok(Self { name, is_ours, attributes, ..Self::default() })
    }

    pub(super) fn parse(xml: &str) -> Result<Self, NotADescription> {
        Self::parse_as("domain", xml)
    }

    /// The element of this name that a document is.
    pub(super) fn parse_as(name: &str, xml: &str) -> Result<Self, NotADescription> {
        let mut reader = NsReader::from_str(xml);
        let mut open = vec![Self::default()];
        loop {
            let (namespace, event) = reader.read_resolved_event().map_err(no)?;
            let is_ours = matches!(namespace, ResolveResult::Bound(bound)
                if bound.as_ref() == Description::NAMESPACE);
            match event {
                Event::Start(start) => {
                    if open.len() > DEPTH_MAX {
                        return Err(no("it is nested too deeply"));
                    }
                    open.push(Self::begin(&start, is_ours)?);
                }
                Event::Empty(start) => {
                    let node = Self::begin(&start, is_ours)?;
                    if let Some(outer) = open.last_mut() {
                        outer.inner.push(node);
                    }
                }
                Event::End(_) => {
                    if let Some(node) = open.pop()
                        && let Some(outer) = open.last_mut()
                    {
                        outer.inner.push(node);
                    }
                }
                Event::Text(text) => {
                    if let Some(node) = open.last_mut() {
                        node.text.push_str(&text);
                    }
                }
                Event::GeneralRef(reference) => {
                    let name: &str = &reference;
                    let meant = match reference.resolve_char_ref().map_err(no)? {
                        Some(character) => character.to_string(),
                        None => quick_xml::escape::resolve_predefined_entity(name)
                            .ok_or_else(|| no(format!("&{name}; is nothing")))?
                            .to_owned(),
                    };
                    if let Some(node) = open.last_mut() {
                        node.text.push_str(&meant);
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        let root = open.pop().filter(|_| open.is_empty());
        let root = root.and_then(|root| root.inner.into_iter().find(|one| one.name == name));
        root.ok_or_else(|| no(format!("it is not a {name}'s")))
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.inner.iter().filter(move |one| one.name == name && !one.is_ours)
    }

    /// The first element on this path.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |node, name| {
            node.inner.iter().find(|one| one.name == name && !one.is_ours)
        })
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }

    pub(super) fn text(&self) -> &str {
        self.text.trim()
    }

    fn number<T: std::str::FromStr>(&self) -> Option<T> {
        self.text().parse().ok()
    }

    /// An amount of memory, in KiB.
    fn kib(&self, attribute: Option<&str>) -> Option<u64> {
        let text = attribute.map_or(Some(self.text()), |name| self.attribute(name))?;
        let number: u64 = text.parse().ok()?;
        let bytes = match self.attribute("unit").unwrap_or("KiB") {
            "b" | "bytes" => return Some(number.div_ceil(1024)),
            "KB" => 1_000,
            "k" | "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "M" | "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "G" | "GiB" => 1 << 30,
            "T" | "TiB" => 1 << 40,
            _ => return None,
        };
        u128::from(number).checked_mul(bytes)?.div_ceil(1024).try_into().ok()
    }
}

/// The members of `0-3,7,^2`.
fn members(set: &str) -> Vec<u32> {
    let (mut members, mut without) = (Vec::new(), Vec::new());
    for part in set.split(',').map(str::trim) {
        let (into, part) = match part.strip_prefix('^') {
            Some(part) => (&mut without, part),
            None => (&mut members, part),
        };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>())
            && last.saturating_sub(first) < 1 << 16
        {
            into.extend(first..=last);
        }
    }
    members.retain(|one| !without.contains(one));
    members
}

impl Description {
    /// What a domain's XML says. What this does not know is left out: it stays in the domain until
    /// the domain is defined anew.
    ///
    /// # Errors
    /// When it is no domain's XML, or has no name, UUID, memory or processors.
    pub fn read(xml: &str) -> Result<Self, NotADescription> {
        let domain = Node::parse(xml)?;
        let need = |name: &str| domain.at(name).ok_or_else(|| no(format!("it has no {name}")));
        let uuid = Uuid::parse_str(need("uuid")?.text()).map_err(no)?;
        let memory = need("memory")?.kib(None).ok_or_else(|| no("its memory is no number"))?;
        let processors = need("vcpu")?;
        let most = processors.number().ok_or_else(|| no("its processors are no number"))?;
        let mut described = Self::new(need("name")?.text(), uuid, memory, most);
        if let Some(current) = processors.attribute("current") {
            described.vcpus = current.parse().map_err(no)?;
        }
        described.memory_max_kib = domain.at("maxMemory").and_then(|most| most.kib(None));
        described.virtualisation = match domain.attribute("type") {
            Some("kvm") => Virtualisation::Kvm,
            Some("test") => Virtualisation::Test,
            _ => Virtualisation::Emulated,
        };
        described.read_start(&domain);
        described.topology = domain.at("cpu/topology").and_then(read_topology);
        described.read_cells(&domain);
        let ours = domain.at("metadata").into_iter().flat_map(|all| &all.inner);
        let position = ours.filter(|one| one.is_ours).find_map(|one| one.attribute("position"));
        described.position = position.and_then(|text| text.parse().ok()).unwrap_or_default();
        if let Some(devices) = domain.at("devices") {
            described.disks = devices.all("disk").filter_map(read_disk).collect();
            described.nics = devices.all("interface").filter_map(read_nic).collect();
            described.devices = devices.all("hostdev").filter_map(read_device).collect();
            let serial = devices.at("serial").filter(|one| one.attribute("type") == Some("unix"));
            let socket = serial.and_then(|one| one.at("source")?.attribute("path"));
            described.serial = socket.map(str::to_owned);
            described.has_screen = devices.all("graphics").next().is_some();
            let ports = devices.all("controller");
            let ports = ports.filter(|one| one.attribute("model") == Some("pcie-root-port"));
            described.spare_slots = ports.count() as u32;
        }
        Ok(described)
    }

    fn read_start(&mut self, domain: &Node) {
        let Some(os) = domain.at("os") else { return };
        if let Some(kind) = os.at("type") {
            if let Some(architecture) = kind.attribute("arch") {
                architecture.clone_into(&mut self.architecture);
            }
            self.machine = kind.attribute("machine").map(str::to_owned);
        }
        let mut features = os.at("firmware").into_iter().flat_map(|one| one.all("feature"));
        let is_secure = features.any(|one| {
            one.attribute("name") == Some("secure-boot") && one.attribute("enabled") == Some("yes")
        });
        let is_uefi = os.attribute("firmware") == Some("efi")
            || os.at("loader").is_some_and(|loader| loader.attribute("type") == Some("pflash"));
        self.firmware = match (is_uefi, is_secure) {
            (false, _) => Firmware::Bios,
            (true, false) => Firmware::Uefi,
            (true, true) => Firmware::UefiSecure,
        };
        let text = |name: &str| os.at(name).map(|one| one.text().to_owned()).unwrap_or_default();
        self.kernel = os.at("kernel").map(|kernel| DirectKernel {
            kernel: kernel.text().to_owned(),
            initrd: text("initrd"),
            command_line: text("cmdline"),
        });
    }

    fn read_cells(&mut self, domain: &Node) {
        self.page_kib =
            domain.at("memoryBacking/hugepages/page").and_then(|page| page.kib(Some("size")));
        let bound: BTreeMap<usize, u32> = domain
            .at("numatune")
            .into_iter()
            .flat_map(|tune| tune.all("memnode"))
            .filter_map(|node| {
                let cell = node.attribute("cellid")?.parse().ok()?;
                match members(node.attribute("nodeset")?)[..] {
                    [host] => Some((cell, host)),
                    _ => None,
                }
            })
            .collect();
        let cells = domain.at("cpu/numa").into_iter().flat_map(|numa| numa.all("cell"));
        self.cells = cells
            .enumerate()
            .filter_map(|(index, cell)| {
                Some(GuestCell {
                    vcpus: members(cell.attribute("cpus").unwrap_or_default()),
                    memory_kib: cell.kib(Some("memory"))?,
                    host_cell: bound.get(&index).copied(),
                })
            })
            .collect();
        let Some(tune) = domain.at("cputune") else { return };
        let pins = tune.all("vcpupin").filter_map(|pin| {
            Some((pin.attribute("vcpu")?.parse().ok()?, members(pin.attribute("cpuset")?)))
        });
        self.pins = pins.collect();
        let emulator = tune.at("emulatorpin").and_then(|pin| pin.attribute("cpuset"));
        self.emulator_pins = emulator.map(members).unwrap_or_default();
    }
}

fn order(node: &Node) -> Option<u32> {
    node.at("boot")?.attribute("order")?.parse().ok()
}

/// What we know of no word for, such as several dies, is left out as a whole.
fn read_topology(topology: &Node) -> Option<Topology> {
    let number = |name: &str| topology.attribute(name).and_then(|text| text.parse().ok());
    let several = |name: &str| topology.attribute(name).is_some_and(|count| count != "1");
    if several("dies") || several("clusters") {
        return None;
    }
    let (sockets, cores) = (number("sockets")?, number("cores")?);
    Some(Topology { sockets, cores, threads: number("threads")? })
}

fn read_disk(disk: &Node) -> Option<DiskDevice> {
    let source = disk.at("source").and_then(|source| {
        let file = source.attribute("file").map(|path| Source::File(path.to_owned()));
        file.or_else(|| source.attribute("dev").map(|path| Source::Block(path.to_owned())))
    });
    let limits: Limits = disk
        .at("iotune")
        .into_iter()
        .flat_map(|tune| &tune.inner)
        .filter_map(|one| {
            let (limit, _) = Limit::ALL.iter().find(|(_, name)| *name == one.name)?;
            Some((*limit, one.number().filter(|value| *value > 0)?))
        })
        .collect();
    Some(DiskDevice {
        target: disk.at("target")?.attribute("dev")?.to_owned(),
        source,
        format: match disk.at("driver").and_then(|driver| driver.attribute("type")) {
            Some("qcow2") => Format::Qcow2,
            _ => Format::Raw,
        },
        is_cdrom: disk.attribute("device") == Some("cdrom"),
        is_readonly: disk.at("readonly").is_some(),
        is_shared: disk.at("shareable").is_some(),
        serial: disk.at("serial").map(|serial| serial.text().to_owned()),
        limits,
        boot: order(disk),
    })
}

fn read_nic(nic: &Node) -> Option<Nic> {
    let attribute = |path: &str, name: &str| nic.at(path)?.attribute(name).map(str::to_owned);
    Some(Nic {
        mac: attribute("mac", "address")?.to_lowercase(),
        model: match attribute("model", "type").as_deref() {
            Some("e1000e") => NicModel::E1000e,
            _ => NicModel::Virtio,
        },
        bridge: attribute("source", "bridge")?,
        port: attribute("target", "dev"),
        vlan: attribute("vlan/tag", "id").and_then(|id| id.parse().ok()),
        is_ovs: attribute("virtualport", "type").as_deref() == Some("openvswitch"),
        mtu: attribute("mtu", "size").and_then(|size| size.parse().ok()),
        is_up: attribute("link", "state").as_deref() != Some("down"),
        boot: order(nic),
    })
}

fn read_device(device: &Node) -> Option<HostDevice> {
    let address = device.at("source/address")?;
    let number = |name: &str| {
        let text = address.attribute(name)?;
        match text.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    };
    match device.attribute("type")? {
        "pci" => {
            let (domain, bus) = (number("domain")?, number("bus")?);
            let (slot, function) = (number("slot")?, number("function")?);
            let address = format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}");
            // Left out, it is not managed.
            let is_managed = device.attribute("managed") == Some("yes");
            let of = if is_managed { HostDevice::Pci } else { HostDevice::PciUnmanaged };
            Some(of(address))
        }
        "mdev" => Uuid::parse_str(address.attribute("uuid")?).ok().map(HostDevice::Mediated),
        "usb" => Some(HostDevice::Usb(number("bus")?, number("device")?)),
        _ => None,
    }
}
