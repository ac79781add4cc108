//! What a server's own state makes of it on its host: a machine for libvirt, files, interfaces. All of
//! it follows from the state and from nothing else, and the same state gives the same.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use adapters_libvirt::description::{
    self, Description, DiskDevice, Firmware, GuestCell, HostDevice, Source, Topology,
    Virtualisation,
};
use commands::ports::DriverFault;
use domain::{
    compute::{
        image,
        placement::{Architecture, Holding, SeenCell},
        server::{
            boot::BootDevice,
            hardware::{DiskBus, NicModel},
            home::{Home, Spec},
            parts::{self, Disk, Nic, hostname},
        },
        storage::{Format, StorageId},
        userdata::{Userdata, nocloud::Documents},
    },
    network::quota::Traffic,
};
use uuid::Uuid;

use super::records::Port;
use crate::{
    network::{dhcp::Told, uplink},
    observe::{
        mediated::{self, Slot},
        vgpu,
    },
    storage::qemu_img,
};

/// PCI slots that are kept free, so that disks and interfaces can be added while a server runs.
const SPARE_SLOTS: u32 = 8;
/// Slots of what every machine has: the agent's channel, the balloon, random numbers, USB.
const OWN_SLOTS: u32 = 4;
/// What the guest calls the disk that it reads at its first boot: behind all that have a letter.
const SEED_TARGET: &str = "vdaa";
/// Longest path of a socket, in bytes: what the kernel takes.
const SOCKET_BYTES_MAX: usize = 107;
/// Longest serial number of a virtio disk, in bytes.
const SERIAL_BYTES: usize = 20;

/// Where devices are now that are not called by their address.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// USB devices by place.
    pub(super) usb: BTreeMap<String, Usb>,
    /// vGPUs that are virtual functions: the function's address by the vGPU's id.
    pub(super) vgpus: BTreeMap<String, String>,
}

/// A USB device that is plugged in.
#[derive(Clone, Debug)]
pub(super) struct Usb {
    /// Its bus and number.
    pub(super) at: (u16, u16),
    /// Vendor and product.
    pub(super) model: String,
}

/// Where a server's files lie.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) cdroms: PathBuf,
    pub(super) consoles: PathBuf,
    pub(super) disks: PathBuf,
    /// Where each storage is mounted that other hosts reach as well.
    storages: BTreeMap<StorageId, PathBuf>,
    /// Where the devices of each volume group are.
    groups: BTreeMap<StorageId, PathBuf>,
    pub(super) seeds: PathBuf,
}

impl Layout {
    pub(super) fn of(folder: &Path) -> Self {
        let of = |name: &str| folder.join(name);
        let (cdroms, consoles) = (of("cdroms"), of("consoles"));
        let (disks, seeds) = (of("disks"), of("seeds"));
        let (storages, groups) = (BTreeMap::new(), BTreeMap::new());
        Self { cdroms, consoles, disks, storages, groups, seeds }
    }

    /// The same, with the storages that are there now: folders, and where the devices of groups are.
    pub(super) fn with(
        &self,
        storages: BTreeMap<StorageId, PathBuf>,
        groups: BTreeMap<StorageId, PathBuf>,
    ) -> Self {
        Self { storages, groups, ..self.clone() }
    }

    /// The disk that a server reads at its first boot.
    pub(super) fn seed(&self, server: Uuid) -> PathBuf {
        self.seeds.join(format!("{server}.img"))
    }

    /// The socket that a server's serial line is reached by.
    pub(super) fn serial(&self, server: Uuid) -> PathBuf {
        self.consoles.join(server.to_string())
    }

    /// A disk's file or device.
    ///
    /// # Errors
    /// The storage it lies on is not there.
    pub(super) fn disk(&self, disk: &Disk) -> Result<PathBuf, DriverFault> {
        if let Some(path) = &disk.in_place {
            return Ok(path.into());
        }
        if let Some(devices) = disk.storage.and_then(|storage| self.groups.get(&storage)) {
            return Ok(devices.join(format!("sk-{}", disk.id)));
        }
        let name = format!("{}.{}", disk.id, format(disk.format).name());
        let Some(storage) = disk.storage else { return Ok(self.disks.join(name)) };
        let root = self.storages.get(&storage).ok_or_else(|| {
            DriverFault::Transient(format!("the storage {storage} is not mounted on this host"))
        })?;
        Ok(root.join("disks").join(name))
    }
}

/// libvirt's name of a server.
pub(super) fn name(server: Uuid) -> String {
    format!("sk-{server}")
}

/// The server that libvirt calls so; none for a machine that is not ours.
pub(super) fn server_of(name: &str, uuid: Uuid) -> Option<Uuid> {
    (name.strip_prefix("sk-")?.parse() == Ok(uuid)).then_some(uuid)
}

/// The host's name of an interface.
pub(super) fn tap(nic: Uuid) -> String {
    format!("sk{}", &nic.simple().to_string()[..12])
}

/// How a disk lies on the host.
pub(super) fn format(format: Format) -> qemu_img::Format {
    match format {
        Format::Qcow2 => qemu_img::Format::Qcow2,
        Format::Raw => qemu_img::Format::Raw,
    }
}

/// The board of a machine, and what it starts with when nothing else is said.
pub(super) fn board(machine: &mut Description, architecture: Architecture) {
    let (name, board) = match architecture {
        Architecture::X86_64 => ("x86_64", Some("q35")),
        Architecture::Aarch64 => ("aarch64", Some("virt")),
        Architecture::Riscv64 => ("riscv64", Some("virt")),
        Architecture::Loongarch64 => ("loongarch64", Some("virt")),
        Architecture::Ppc64le => ("ppc64le", None),
        Architecture::S390x => ("s390x", None),
    };
    name.clone_into(&mut machine.architecture);
    machine.machine = board.map(str::to_owned);
    if board == Some("virt") {
        machine.firmware = Firmware::Uefi;
    }
}

/// The machine that libvirt is told of.
///
/// # Errors
/// What this host cannot give: a device that is not there.
pub(super) fn description(
    server: Uuid,
    home: &Home,
    position: u64,
    layout: &Layout,
    virtualisation: Virtualisation,
    places: &Places,
) -> Result<Description, DriverFault> {
    let (holding, parts) = (&home.placement.holding, &home.parts);
    // libvirt knows one that was adopted by the name that it had.
    let name = home.adopted.as_ref().map_or_else(|| name(server), |adopted| adopted.name.clone());
    let mut machine = Description::new(&name, server, holding.memory_mib << 10, holding.vcpus);
    machine.virtualisation = virtualisation;
    board(&mut machine, home.spec.architecture);
    if let Some(firmware) = parts.firmware {
        machine.firmware = match firmware {
            image::Firmware::Bios => Firmware::Bios,
            image::Firmware::Uefi => Firmware::Uefi,
        };
    }
    // Where the folder is too deep for it, the server has no serial line that can be reached.
    let serial = layout.serial(server).display().to_string();
    machine.serial = Some(serial).filter(|path| path.len() <= SOCKET_BYTES_MAX);
    machine.page_kib = holding.page_kib.map(u64::from);
    bind(&mut machine, holding);
    machine.topology = topology(holding, home.spec.architecture);
    grows(&mut machine, &home.spec);
    let bus = parts.hardware.disks;
    let disks = parts.disks.iter().enumerate().map(|(at, one)| disk((at, bus), one, layout));
    machine.disks = disks.collect::<Result<_, _>>()?;
    if home.adopted.is_none() {
        machine.disks.push(seed(server, layout));
    }
    if let Some(cdrom) = &parts.cdrom {
        let boot = home.boot_place(BootDevice::Cdrom);
        machine.disks.push(DiskDevice { boot, ..super::cdrom::drive(server, cdrom, layout) });
    }
    // Those that are virtual functions are among its devices.
    machine.nics = parts.normal_nics().map(|one| nic(one, parts.hardware.nics)).collect();
    // Where it has no disk of its own, the first is its seed, and nothing to start from.
    if let Some(first) = machine.disks.first_mut().filter(|_| !parts.disks.is_empty()) {
        first.boot = home.boot_place(BootDevice::Disk);
    }
    if let Some(first) = machine.nics.first_mut() {
        first.boot = home.boot_place(BootDevice::Network);
    }
    let devices = holding.devices.iter().map(|id| device((server, holding), id, places));
    machine.devices = devices.collect::<Result<_, _>>()?;
    let used = machine.disks.len() + machine.nics.len() + machine.devices.len();
    machine.spare_slots = used as u32 + OWN_SLOTS + SPARE_SLOTS;
    machine.position = position;
    Ok(machine)
}

/// The room that a server has to grow while it runs. What grows has a cell, to which it is added.
fn grows(machine: &mut Description, spec: &Spec) {
    machine.vcpus_max = spec.vcpus_max.unwrap_or_default().max(machine.vcpus);
    let most = spec.memory_max_mib.map(|most| most << 10);
    machine.memory_max_kib = most.filter(|most| *most > machine.memory_kib);
    if machine.memory_max_kib.is_some() && machine.cells.is_empty() {
        let vcpus = (0..machine.vcpus_max).collect();
        machine.cells = vec![GuestCell { vcpus, memory_kib: machine.memory_kib, host_cell: None }];
    }
}

/// Its memory is in cells of the host, and it runs on CPUs of its own.
pub(super) fn bind(machine: &mut Description, holding: &Holding) {
    machine.cells = cells(holding);
    machine.pins = holding.pins.iter().map(|pin| (pin.vcpu, vec![pin.cpu])).collect();
    // What else the machine does is done on its own CPUs, and disturbs nobody.
    machine.emulator_pins = holding.cpus.iter().copied().collect();
}

/// What binds a machine of this place, as libvirt's XML.
pub(super) fn bindings(holding: &Holding) -> String {
    let mut machine = Description::new("", Uuid::nil(), holding.memory_mib << 10, holding.vcpus);
    bind(&mut machine, holding);
    machine.bindings()
}

/// How its processors lie together, where its guest is to know which of them are siblings. Nothing grows that has
/// CPUs of its own, so these are all it may come to have. Other boards have threads that are told otherwise.
fn topology(holding: &Holding, architecture: Architecture) -> Option<Topology> {
    let seen = holding.seen_cores().filter(|_| architecture == Architecture::X86_64)?;
    Some(Topology { sockets: seen.sockets, cores: seen.cores, threads: seen.threads })
}

/// The cells that the guest sees: those that its memory is bound to.
fn cells(holding: &Holding) -> Vec<GuestCell> {
    let cell = |seen: SeenCell| GuestCell {
        vcpus: seen.vcpus,
        memory_kib: seen.memory_mib << 10,
        host_cell: Some(seen.cell),
    };
    holding.seen_cells().into_iter().map(cell).collect()
}

pub(super) fn disk(
    (at, bus): (usize, DiskBus),
    disk: &Disk,
    layout: &Layout,
) -> Result<DiskDevice, DriverFault> {
    let path = layout.disk(disk)?.display().to_string();
    let is_device = match &disk.in_place {
        Some(path) => parts::is_device(path),
        None => disk.storage.is_some_and(|storage| layout.groups.contains_key(&storage)),
    };
    let mut serial = disk.id.simple().to_string();
    serial.truncate(SERIAL_BYTES);
    Ok(DiskDevice {
        target: target(at, bus),
        source: Some(if is_device { Source::Block(path) } else { Source::File(path) }),
        format: match disk.format {
            Format::Qcow2 => description::Format::Qcow2,
            Format::Raw => description::Format::Raw,
        },
        is_cdrom: false,
        is_readonly: false,
        is_shared: false,
        serial: Some(serial),
        limits: super::disks::limits(&disk.limits),
        boot: None,
    })
}

/// `vda`, `vdb` and so on; of SATA `sdb`, `sdc` and so on, behind the drive of discs, up to `sdaa`.
pub(super) fn target(at: usize, bus: DiskBus) -> String {
    let letter = |at: usize| char::from(b'a' + (at % 26) as u8);
    match (bus, at + 1) {
        (DiskBus::Virtio, _) => format!("vd{}", letter(at)),
        (DiskBus::Sata, 26..) => format!("sda{}", letter(at + 1)),
        (DiskBus::Sata, at) => format!("sd{}", letter(at)),
    }
}

/// A disk and not a disc: the smallest kernels have no driver for a drive of discs.
fn seed(server: Uuid, layout: &Layout) -> DiskDevice {
    DiskDevice {
        target: SEED_TARGET.to_owned(),
        source: Some(Source::File(layout.seed(server).display().to_string())),
        format: description::Format::Raw,
        is_cdrom: false,
        is_readonly: true,
        is_shared: false,
        serial: Some("seed".to_owned()),
        limits: adapters_libvirt::Limits::new(),
        boot: None,
    }
}

/// An interface, as libvirt is told of it.
pub(super) fn nic(nic: &Nic, model: NicModel) -> description::Nic {
    let (bridge, _) = uplink::of(nic.segment, &nic.bridge, nic.medium);
    description::Nic {
        mac: nic.mac.to_string(),
        model: match model {
            NicModel::E1000e => description::NicModel::E1000e,
            NicModel::Virtio => description::NicModel::Virtio,
        },
        bridge,
        port: Some(tap(nic.id)),
        vlan: None,
        is_ovs: false,
        mtu: Some(nic.mtu),
        is_up: true,
        boot: None,
    }
}

fn device(
    (server, holding): (Uuid, &Holding),
    id: &str,
    places: &Places,
) -> Result<HostDevice, DriverFault> {
    if Slot::read(id).is_some() {
        return Ok(HostDevice::Mediated(mediated::uuid(server, id)));
    }
    let gone = || DriverFault::Rejected(format!("device {id} is not there"));
    if vgpu::Slot::read(id).is_some() {
        let function = places.vgpus.get(id).ok_or_else(gone)?;
        return Ok(HostDevice::PciUnmanaged(function.clone()));
    }
    if let Some(place) = id.strip_prefix("usb:") {
        let Usb { at: (bus, number), model } = places.usb.get(place).ok_or_else(gone)?;
        // Somebody may have plugged in something else.
        if let Some(was) = holding.models.get(id).filter(|was| *was != model) {
            return Err(DriverFault::Rejected(format!(
                "device {id} was a {was} when the server was placed, and is a {model} now: it is not handed over"
            )));
        }
        return Ok(HostDevice::Usb(*bus, *number));
    }
    Ok(id.parse().map_or_else(|_| HostDevice::Pci(id.to_owned()), HostDevice::Mediated))
}

/// Its interfaces, as the host is to have them: those that it makes.
pub(super) fn ports<'a>(nics: impl Iterator<Item = &'a Nic>, home: &Home) -> Vec<Port> {
    let hostname = hostname(&home.name, home.placement.holding.server.uuid());
    let port = |nic: &Nic| {
        let (bridge, uplink) = uplink::of(nic.segment, &nic.bridge, nic.medium);
        let carried = home.carried(nic);
        Port {
            tap: tap(nic.id),
            bridge,
            uplink,
            mtu: nic.mtu,
            mac: nic.mac,
            addresses: nic.addresses.clone(),
            bandwidth: nic.bandwidth,
            quota: nic.quota,
            resets: nic.resets,
            moves: Some(carried.moves),
            carried: carried.traffic,
            traffic: Traffic::default(),
            groups: nic.security_groups.clone(),
            rules: nic.rules(&home.parts.groups),
            told: told(nic, &hostname),
        }
    };
    nics.filter(|nic| !nic.is_direct()).map(port).collect()
}

/// What it is told when it asks; none when nobody answers it.
fn told(nic: &Nic, hostname: &str) -> Option<Told> {
    Some(Told {
        mac: nic.mac,
        addresses: nic.addresses.clone(),
        gateways: nic.gateways.clone(),
        dns_servers: nic.dns_servers.clone(),
        domain: nic.domain.clone(),
        hostname: hostname.to_owned(),
        mtu: nic.mtu,
        lease_s: nic.lease_s?,
    })
}

/// What it reads at its first boot.
///
/// # Errors
/// What was checked when it was launched, and cannot be here any more.
pub(super) fn documents(
    server: Uuid,
    home: &Home,
    userdata: Option<&str>,
) -> Result<Documents, DriverFault> {
    let rejected = |refusal: domain::kernel::Refusal| DriverFault::Rejected(refusal.detail);
    let userdata = userdata
        .map(|text| Userdata::read(text.to_owned(), home.parts.system()))
        .transpose()
        .map_err(rejected)?;
    home.parts.seed(server, &home.name, userdata.as_ref()).map_err(rejected)
}

#[cfg(test)]
mod tests;
