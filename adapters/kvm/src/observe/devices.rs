//! What a host can pass through: PCI devices, USB devices, and parts of cards ([`mediated`], [`vgpu`]).
//!
//! The host keeps for itself what it lives on: the card that it shows its console on, controllers
//! of disks that are mounted, swapped to or part of something (LVM, RAID), interfaces that have an
//! address or are part of something (a bridge, a bond), a device that virtual functions or mediated
//! devices are given in place of, and what an operator says ([`Kept`]). Bridges and the machine's
//! own parts are never listed, and nothing is given of an IOMMU group in which one of those has a
//! driver of the host; without an IOMMU no PCI device is listed.

use std::collections::{BTreeMap, BTreeSet};

use domain::compute::placement::{
    Availability, CardSwitch, Cell, Device, DeviceProfile, SwitchMode,
};

use super::{ObserveFault, Tree, mediated, representor, vgpu};

const PCI: &str = "sys/bus/pci/devices";
const USB: &str = "sys/bus/usb/devices";
const MDEV: &str = "sys/bus/mdev/devices";
const PARTED: &str = "sys/class/mdev_bus";
/// How deep interfaces are parts of others; the kernel knows no more.
const MASTERS_MAX: usize = 8;

/// What the host keeps for itself, as far as the kernel's files do not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Interfaces that have an address.
    pub interfaces: BTreeSet<String>,
    /// Devices that an operator keeps, by [`Device::id`].
    pub devices: BTreeSet<String>,
    /// Mediated devices that were made for servers, by UUID: the [`Device::id`] of each.
    pub made: BTreeMap<String, String>,
    /// vGPUs that are servers', by [`Device::id`]: the address of the virtual function that each is.
    pub seated: BTreeMap<String, String>,
    /// What was ever seen of cards that have such vGPUs, by address.
    pub cards: BTreeMap<String, vgpu::Card>,
    /// The bridges of Open vSwitch that interfaces are ports of.
    pub switched: BTreeMap<String, String>,
    /// Whether Open vSwitch has cards do what they can do by themselves.
    pub offloads: bool,
}

/// What the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// By address, for instance `0000:3b:00.0`.
    pub pci: BTreeMap<String, Pci>,
    /// By place, for instance `1-1.2`: that stays when it is plugged again, its number does not.
    pub usb: BTreeMap<String, Usb>,
    /// By UUID.
    pub mediated: BTreeMap<String, Mediated>,
    /// What is parted into mediated devices and is no PCI device, by the driver's name of it: the kinds.
    pub parted: BTreeMap<String, BTreeMap<String, Profile>>,
    /// Parts of the paths of what is in use by the host: addresses and places.
    pub in_use: BTreeSet<String>,
    /// The other ends of virtual functions on the host, by the function's address.
    pub representors: BTreeMap<String, String>,
}

/// One PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    /// Class, subclass and programming interface, a byte each.
    pub class: u32,
    /// Vendor and device, for instance `10de:1eb8`.
    pub model: String,
    /// The cell it is near to, where the firmware says.
    pub cell: Option<u32>,
    /// Its IOMMU group; none without an IOMMU.
    pub iommu_group: Option<u32>,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Whether the firmware shows the console on it.
    pub boot_vga: bool,
    /// How many virtual functions it can have, and has; none when it is not made for that.
    pub functions: Option<Functions>,
    /// The function it is a virtual one of.
    pub physical: Option<String>,
    /// Its network interfaces, without the other ends of its virtual functions.
    pub interfaces: Vec<String>,
    /// The bonds that those are parts of.
    pub bonds: Vec<String>,
    /// The Linux bridges that those are ports of, by themselves or in a bond.
    pub bridges: Vec<String>,
    /// The switch in it, by the kernel's name, where its host says what passes there (`switchdev`): a virtual
    /// function is reached by its representor then, and not by the card's wire.
    pub switch: Option<String>,
    /// The kinds of mediated devices it can be parted into, by the driver's name of them.
    pub profiles: BTreeMap<String, Profile>,
    /// What vGPUs it can be made, when it is a virtual function that is made for that.
    pub vgpu: Option<vgpu::Function>,
}

/// Virtual functions of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Most it can have.
    pub most: u32,
    /// How many it has.
    pub made: u32,
    /// Their addresses, in the order of their numbers.
    pub addresses: Vec<String>,
}

/// A kind of mediated devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The vendor's name of it, for instance `GRID T4-4Q`; empty where there is none.
    pub name: String,
    /// What the vendor says of it; empty where there is nothing.
    pub description: String,
    /// How many more can be made. One of another profile may take them away.
    pub left: u32,
}

/// One mediated device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mediated {
    /// The device it is a part of.
    pub parent: String,
    /// Its profile.
    pub profile: String,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
}

/// One USB device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usb {
    /// Class of the device; 0 when each of its interfaces has one.
    pub class: u32,
    /// Vendor and product, for instance `046d:c52b`.
    pub model: String,
    /// Its bus and its number there, as of now.
    pub bus: u32,
    /// See [`Self::bus`].
    pub number: u32,
    /// The PCI function of its controller.
    pub controller: Option<String>,
}

/// Reads it.
///
/// # Errors
/// When a file that is there cannot be read, or says what the kernel never says.
pub fn read(tree: &Tree) -> Result<Devices, ObserveFault> {
    let mut devices = Devices::default();
    for address in tree.names(PCI)? {
        devices.pci.insert(address.clone(), read_pci(tree, &format!("{PCI}/{address}"))?);
    }
    for place in tree.names(USB)? {
        // `1-1:1.0` is an interface of a device, and `usb1` the root of a bus.
        if place.contains(':') || place.starts_with("usb") {
            continue;
        }
        if let Some(usb) = read_usb(tree, &format!("{USB}/{place}"))? {
            devices.usb.insert(place, usb);
        }
    }
    for id in tree.names(MDEV)? {
        let at = format!("{MDEV}/{id}");
        let parent = tree.real(&at).and_then(|path| Some(path.rsplit('/').nth(1)?.to_owned()));
        let profile = tree.link(&format!("{at}/mdev_type"));
        if let (Some(parent), Some(profile)) = (parent, profile) {
            let iommu_group = group(tree, &at);
            devices.mediated.insert(id, Mediated { parent, profile, iommu_group });
        }
    }
    for parent in tree.names(PARTED)? {
        if !devices.pci.contains_key(&parent) {
            devices
                .parted
                .insert(parent.clone(), read_profiles(tree, &format!("{PARTED}/{parent}"))?);
        }
    }
    devices.in_use = in_use(tree)?;
    devices.representors = representor::read(tree, &devices.pci)?;
    Ok(devices)
}

/// The kinds of mediated devices that something can be parted into.
fn read_profiles(tree: &Tree, at: &str) -> Result<BTreeMap<String, Profile>, ObserveFault> {
    let mut profiles = BTreeMap::new();
    for kind in tree.names(&format!("{at}/mdev_supported_types"))? {
        let folder = format!("{at}/mdev_supported_types/{kind}");
        let profile = Profile {
            name: tree.text(&format!("{folder}/name"))?.unwrap_or_default(),
            description: tree.text(&format!("{folder}/description"))?.unwrap_or_default(),
            left: tree.number(&format!("{folder}/available_instances"))?.unwrap_or(0),
        };
        profiles.insert(kind, profile);
    }
    Ok(profiles)
}

fn read_pci(tree: &Tree, at: &str) -> Result<Pci, ObserveFault> {
    let hexadecimal = |name: &str| {
        Ok::<_, ObserveFault>(tree.hexadecimal(&format!("{at}/{name}"))?.unwrap_or_default())
    };
    let mut functions = None;
    if let Some(most) = tree.number(&format!("{at}/sriov_totalvfs"))? {
        let made = tree.number(&format!("{at}/sriov_numvfs"))?.unwrap_or(0);
        let link = |number| tree.link(&format!("{at}/virtfn{number}"));
        functions = Some(Functions { most, made, addresses: (0..made).filter_map(link).collect() });
    }
    let mut interfaces = tree.names(&format!("{at}/net"))?;
    // Some drivers have the other ends of functions beside the card's own.
    interfaces.retain(|name| representor::port(tree, name).is_none());
    let (bonds, bridges) = above(tree, &interfaces);
    Ok(Pci {
        class: hexadecimal("class")?,
        model: format!("{:04x}:{:04x}", hexadecimal("vendor")?, hexadecimal("device")?),
        // -1 when nobody knows.
        cell: tree.number::<i64>(&format!("{at}/numa_node"))?.and_then(|cell| cell.try_into().ok()),
        iommu_group: group(tree, at),
        driver: tree.link(&format!("{at}/driver")),
        boot_vga: tree.number::<u8>(&format!("{at}/boot_vga"))? == Some(1),
        functions,
        physical: tree.link(&format!("{at}/physfn")),
        bonds,
        bridges,
        switch: interfaces.iter().find_map(|name| representor::switch(tree, name)),
        interfaces,
        profiles: read_profiles(tree, at)?,
        vgpu: vgpu::read(tree, at)?,
    })
}

/// What interfaces are parts of: bonds, and the bridges that they are ports of by themselves or in those.
fn above(tree: &Tree, interfaces: &[String]) -> (Vec<String>, Vec<String>) {
    let master = |name: &String| tree.link(&format!("sys/class/net/{name}/master"));
    let (mut bonds, mut bridges) = (Vec::new(), Vec::new());
    for interface in interfaces {
        let mut name = master(interface);
        for _ in 0..MASTERS_MAX {
            let Some(one) = name else { break };
            if tree.has(&format!("sys/class/net/{one}/bridge")) {
                bridges.push(one);
                break;
            }
            name = master(&one);
            // A bond is a port in its stead.
            bonds.push(one);
        }
    }
    (bonds, bridges)
}

fn group(tree: &Tree, at: &str) -> Option<u32> {
    tree.link(&format!("{at}/iommu_group"))?.parse().ok()
}

fn read_usb(tree: &Tree, at: &str) -> Result<Option<Usb>, ObserveFault> {
    let hexadecimal = |name: &str| tree.hexadecimal(&format!("{at}/{name}"));
    let (Some(vendor), Some(product)) = (hexadecimal("idVendor")?, hexadecimal("idProduct")?)
    else {
        return Ok(None);
    };
    let controller = tree.real(at).and_then(|path| {
        let parts = path.rsplit('/').find(|part| is_pci_address(part));
        parts.map(str::to_owned)
    });
    Ok(Some(Usb {
        class: hexadecimal("bDeviceClass")?.unwrap_or(0),
        model: format!("{vendor:04x}:{product:04x}"),
        bus: tree.number(&format!("{at}/busnum"))?.unwrap_or(0),
        number: tree.number(&format!("{at}/devnum"))?.unwrap_or(0),
        controller,
    }))
}

/// Whether the kernel gives nobody anything of an IOMMU group in which a device has this driver: all do, but those
/// of bridges and those that are there for that.
pub(crate) fn hinders(driver: &str) -> bool {
    !matches!(driver, "pci-stub" | "pcieport" | "shpchp") && !driver.contains("vfio")
}

pub(super) fn is_pci_address(part: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = part.split([':', '.']);
    let lengths: Vec<usize> = parts.clone().map(str::len).collect();
    // The domain has four digits, or more where a controller hides behind another (VMD).
    matches!(lengths[..], [4..=8, 2, 2, 1]) && parts.all(digits)
}

/// The parts of the paths of everything that the host uses.
fn in_use(tree: &Tree) -> Result<BTreeSet<String>, ObserveFault> {
    let mut paths = Vec::new();
    let mounted = mounted(tree)?;
    for disk in tree.names("sys/class/block")? {
        let folder = format!("sys/class/block/{disk}");
        // Its parts lie in its folder; what is built on it is its holder.
        let held = !tree.names(&format!("{folder}/holders"))?.is_empty();
        if held || mounted.contains(&tree.text(&format!("{folder}/dev"))?.unwrap_or_default()) {
            paths.extend(tree.real(&folder));
        }
    }
    for interface in tree.names("sys/class/net")? {
        let folder = format!("sys/class/net/{interface}");
        let part = |name: &String| name == "master" || name.starts_with("upper_");
        if tree.names(&folder)?.iter().any(part) {
            paths.extend(tree.real(&folder));
        }
    }
    let mut parts = BTreeSet::new();
    for path in paths {
        parts.extend(path.split('/').map(str::to_owned));
        // An NVMe disk lies below its subsystem, and that names its controllers.
        if let Some((folder, _)) = path.rsplit_once('/').filter(|_| path.contains("/nvme-subsys")) {
            for controller in tree.names(folder)? {
                let real = tree.real(&format!("{folder}/{controller}")).unwrap_or_default();
                let is_link = tree.link(&format!("{folder}/{controller}")).is_some();
                let parts_of =
                    real.split('/').filter(|_| is_link && controller.starts_with("nvme"));
                parts.extend(parts_of.map(str::to_owned));
            }
        }
    }
    Ok(parts)
}

/// The numbers (`254:0`) of the block devices that are mounted or swapped to.
fn mounted(tree: &Tree) -> Result<BTreeSet<String>, ObserveFault> {
    let mut numbers = BTreeSet::new();
    let mut names = Vec::new();
    for line in tree.text("proc/self/mountinfo")?.unwrap_or_default().lines() {
        numbers.extend(line.split(' ').nth(2).map(str::to_owned));
        // Some file systems (btrfs) have a number of their own, and only name what they lie on.
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        names.extend(source.and_then(|source| source.strip_prefix("/dev/")).map(str::to_owned));
    }
    for line in tree.text("proc/swaps")?.unwrap_or_default().lines().skip(1) {
        let source = line.split_whitespace().next().and_then(|name| name.strip_prefix("/dev/"));
        names.extend(source.map(str::to_owned));
    }
    for name in names {
        // What device mapper calls a device lies in its folder.
        let mut found = vec![name.clone()];
        if let Some(mapped) = name.strip_prefix("mapper/") {
            for disk in tree.names("sys/class/block")?.iter().filter(|it| it.starts_with("dm-")) {
                let path = format!("sys/class/block/{disk}/dm/name");
                if tree.text(&path)?.as_deref() == Some(mapped) {
                    found.push(disk.clone());
                }
            }
        }
        for disk in found.iter().filter(|disk| !disk.contains('/')) {
            numbers.extend(tree.text(&format!("sys/class/block/{disk}/dev"))?);
        }
    }
    Ok(numbers)
}

impl Devices {
    /// What placement may give to servers, or must know that it may not, sorted by id.
    pub fn placeable(&self, cells: &[Cell], kept: &Kept) -> Vec<Device> {
        let mut devices: Vec<Device> = Vec::new();
        let hindered = self.groups_hindered();
        for (address, pci) in &self.pci {
            // Without an IOMMU a server's device could write anywhere.
            let Some(kind) = pci.kind().filter(|_| pci.iommu_group.is_some()) else { continue };
            // What it can be made is a device, and not it.
            if pci.vgpu.is_some() {
                continue;
            }
            let is_hindered = pci.iommu_group.is_some_and(|group| hindered.contains(&group));
            devices.push(Device {
                id: address.clone(),
                kind: kind.to_owned(),
                model: pci.model.clone(),
                cell: pci.cell,
                iommu_group: pci.iommu_group,
                controller: None,
                availability: reserved(is_hindered || self.is_kept(address, pci, kept)),
                carrier: self.carrier(address, pci, kept).filter(|_| kind == "vf"),
                profile: self.share(pci).filter(|_| kind == "vgpu"),
                switch: self.switch(address, pci, kept).filter(|_| ["nic", "vf"].contains(&kind)),
            });
        }
        devices.extend(mediated::placeable(self, kept));
        devices.extend(vgpu::placeable(self, kept));
        for (id, mediated) in &self.mediated {
            if kept.made.contains_key(id) {
                continue;
            }
            let parent = self.pci.get(&mediated.parent);
            let model = parent.map_or("", |pci| pci.model.as_str());
            devices.push(Device {
                id: id.clone(),
                kind: "mdev".to_owned(),
                model: format!("{model}/{}", mediated.profile),
                cell: parent.and_then(|pci| pci.cell),
                iommu_group: mediated.iommu_group,
                controller: None,
                availability: reserved(kept.devices.contains(id)),
                carrier: None,
                profile: parent.and_then(|pci| pci.profiles.get(&mediated.profile)?.said()),
                switch: None,
            });
        }
        // Hubs are part of the bus.
        for (place, usb) in self.usb.iter().filter(|(_, usb)| usb.class != 9) {
            let id = format!("usb:{place}");
            let controller = usb.controller.as_ref().and_then(|address| self.pci.get(address));
            let is_kept = kept.devices.contains(&id) || self.in_use.contains(place);
            devices.push(Device {
                id,
                kind: "usb".to_owned(),
                model: usb.model.clone(),
                cell: controller.and_then(|pci| pci.cell),
                iommu_group: None,
                controller: usb.controller.clone(),
                availability: reserved(is_kept),
                carrier: None,
                profile: None,
                switch: None,
            });
        }
        for device in &mut devices {
            device.cell = device.cell.filter(|id| cells.iter().any(|cell| cell.id == *id));
        }
        devices.sort_by(|one, other| one.id.cmp(&other.id));
        devices
    }

    /// The bridge whose wire a virtual function is on: that which its card is a port of.
    fn carrier(&self, address: &str, pci: &Pci, kept: &Kept) -> Option<String> {
        let card = self.pci.get(pci.physical.as_ref()?)?;
        let mut names = card.interfaces.iter().chain(&card.bonds);
        let switched = names.find_map(|name| kept.switched.get(name));
        if card.switch.is_some() {
            // By its other end, and that is a port of Open vSwitch alone.
            return switched.filter(|_| self.representors.contains_key(address)).cloned();
        }
        card.bridges.first().or(switched).cloned()
    }

    /// The switch between a card's wire and its functions, of either.
    fn switch(&self, address: &str, pci: &Pci, kept: &Kept) -> Option<CardSwitch> {
        let card = match &pci.physical {
            None => pci,
            Some(card) => self.pci.get(card)?,
        };
        card.functions.as_ref()?;
        if card.switch.is_none() {
            let mode = SwitchMode::Legacy;
            return Some(CardSwitch { mode, representor: None, offloads: false });
        }
        let representor = self.representors.get(address).cloned();
        Some(CardSwitch { mode: SwitchMode::Switchdev, representor, offloads: kept.offloads })
    }

    /// How a vGPU that is a virtual function shares its card: equally with the card's other ones.
    fn share(&self, pci: &Pci) -> Option<DeviceProfile> {
        let functions = self.pci.get(pci.physical.as_ref()?)?.functions.as_ref()?;
        DeviceProfile { instances_max: Some(functions.made), ..DeviceProfile::default() }.said()
    }

    /// The IOMMU groups in which a part of the machine, which is nobody's to give, has a driver of the host: a
    /// server gets nothing of them.
    fn groups_hindered(&self) -> BTreeSet<u32> {
        let parts = self.pci.values().filter(|pci| pci.kind().is_none());
        let held = parts.filter(|pci| pci.driver.as_deref().is_some_and(hinders));
        held.filter_map(|pci| pci.iommu_group).collect()
    }

    /// Whether the host keeps it for itself.
    pub(crate) fn is_kept(&self, address: &str, pci: &Pci, kept: &Kept) -> bool {
        pci.boot_vga
            || self.in_use.contains(address)
            || kept.devices.contains(address)
            || pci.interfaces.iter().any(|interface| kept.interfaces.contains(interface))
            || pci.functions.as_ref().is_some_and(|functions| functions.made > 0)
            || !pci.profiles.is_empty()
            || self.mediated.values().any(|mediated| mediated.parent == address)
    }
}

impl Profile {
    /// What is shown of it: what the vendor's words say (`framebuffer=1024M, max_instance=16`).
    pub(super) fn said(&self) -> Option<DeviceProfile> {
        let of = |name: &str| {
            let mut words = self.description.split([',', ' ']);
            let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
            value.trim_end_matches('M').parse().ok()
        };
        let name = Some(self.name.clone()).filter(|name| !name.is_empty());
        let (framebuffer_mib, instances_max) = (of("framebuffer"), of("max_instance"));
        DeviceProfile { name, framebuffer_mib, instances_max }.said()
    }
}

impl Pci {
    /// What placement calls it; none when it is a part of the machine.
    pub fn kind(&self) -> Option<&'static str> {
        let [_, class, subclass, interface] = self.class.to_be_bytes();
        let is_virtual = self.physical.is_some();
        // AMD's cards that have no screen call themselves processors.
        let is_amd_gpu = class == 0x12 && self.model.starts_with("1002:");
        Some(match (class, subclass, interface) {
            // Memory, bridges, timers and interrupts, the bus for temperatures.
            (0x05 | 0x06 | 0x08, ..) | (0x0c, 0x05, _) => return None,
            _ if class == 0x03 || is_amd_gpu => {
                if is_virtual {
                    "vgpu"
                } else {
                    "gpu"
                }
            }
            // What else has virtual functions (disks, processors) has them of its own kind.
            (0x02, ..) if is_virtual => "vf",
            (0x01, 0x08, 0x02) => "nvme",
            (0x01, ..) => "storage",
            (0x02, ..) => "nic",
            (0x04, ..) => "audio",
            (0x0b | 0x10 | 0x12, ..) => "accelerator",
            (0x0c, 0x03, _) => "usb-controller",
            _ => "pci",
        })
    }
}

fn reserved(is_kept: bool) -> Availability {
    if is_kept { Availability::Reserved } else { Availability::Free }
}
