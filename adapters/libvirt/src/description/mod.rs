//! What a server is, as a host is to run it: everything that libvirt's XML of a domain says of it,
//! and nothing that libvirt may choose by itself.
//!
//! A description is worked out by whoever decides; here it is only spelt. [`Description::xml`] is a
//! pure function of it, and [`Description::read`] takes from a domain's XML, ours or somebody
//! else's, what both know.

mod amend;
mod consoles;
mod found;
mod owner;
mod read;
mod write;

use std::collections::BTreeMap;

use uuid::Uuid;

pub use amend::Amendment;
pub use consoles::{Consoles, Screen};
pub use found::{Found, FoundDisk, FoundNic};
pub use owner::Owner;

use crate::Limits;

/// What runs a guest's instructions. What a host says of it is no proof: only a start is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Virtualisation {
    /// The processor, through the kernel.
    #[default]
    Kvm,
    /// QEMU itself, some ten times slower.
    Emulated,
    /// Nothing: the driver `test`.
    Test,
}

/// What the machine starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// UEFI; libvirt picks the file.
    Uefi,
    /// UEFI that starts only what is signed.
    UefiSecure,
}

/// A cell of the guest, and where its memory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestCell {
    /// The guest's processors in it.
    pub vcpus: Vec<u32>,
    /// Its memory, in KiB.
    pub memory_kib: u64,
    /// The host's cell that its memory is bound to; none leaves it to the kernel.
    pub host_cell: Option<u32>,
}

/// The guest's processors as they lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Sockets.
    pub sockets: u32,
    /// Cores of each.
    pub cores: u32,
    /// Threads of each core.
    pub threads: u32,
}

/// A kernel that is started in place of what the disks have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectKernel {
    /// The kernel's file on the host.
    pub kernel: String,
    /// The file that it unpacks into memory.
    pub initrd: String,
    /// Its command line.
    pub command_line: String,
}

/// Where a disk's content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(String),
    /// A device of the host, such as a logical volume.
    Block(String),
}

/// How content lies in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// QEMU's own.
    #[default]
    Qcow2,
    /// As it is.
    Raw,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDevice {
    /// The guest's name for it: `vda`, `sda`. It is how the disk is called in all calls.
    pub target: String,
    /// Where its content is; none is a drive without a medium.
    pub source: Option<Source>,
    /// How it lies there.
    pub format: Format,
    /// A drive for discs.
    pub is_cdrom: bool,
    /// It cannot be written.
    pub is_readonly: bool,
    /// Several servers have it at once: neither is the file locked nor anything cached.
    pub is_shared: bool,
    /// What the guest reads as its serial number: at most 20 characters.
    pub serial: Option<String>,
    /// Its traffic's limits.
    pub limits: Limits,
    /// Its place in the order in which devices are tried, from 1.
    pub boot: Option<u32>,
}

/// Which card the guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NicModel {
    /// Intel's 82574L.
    E1000e,
    /// virtio.
    #[default]
    Virtio,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its address, such as `52:54:00:12:34:56`, in lower case.
    pub mac: String,
    /// Which card it is.
    pub model: NicModel,
    /// The host's bridge that it is plugged into.
    pub bridge: String,
    /// The host's name for its end of the wire; none leaves it to libvirt.
    pub port: Option<String>,
    /// Its VLAN, where the bridge is Open vSwitch's: 1 … 4094.
    pub vlan: Option<u16>,
    /// Whether the bridge is Open vSwitch's.
    pub is_ovs: bool,
    /// Bytes of a packet; none is 1,500.
    pub mtu: Option<u32>,
    /// Whether the wire is plugged in.
    pub is_up: bool,
    /// Its place in the order in which devices are tried, from 1.
    pub boot: Option<u32>,
}

/// A device of the host that the guest has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostDevice {
    /// On the PCI bus, such as `0000:3b:00.0`.
    Pci(String),
    /// On the PCI bus, with a driver of its own that passes it through (VFIO): libvirt leaves that alone.
    PciUnmanaged(String),
    /// A part of a device that its driver has divided, by its UUID.
    Mediated(Uuid),
    /// On a USB bus: bus and device.
    Usb(u16, u16),
}

/// A server, as a host is to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name on the host.
    pub name: String,
    /// Its own id: it stays the same on every host.
    pub uuid: Uuid,
    /// What runs its instructions.
    pub virtualisation: Virtualisation,
    /// The processor's architecture, such as `x86_64`.
    pub architecture: String,
    /// The board, such as `q35`; none leaves it to libvirt.
    pub machine: Option<String>,
    /// What it starts with.
    pub firmware: Firmware,
    /// A kernel of the host's in place of what the disks have.
    pub kernel: Option<DirectKernel>,
    /// Memory at the start, in KiB.
    pub memory_kib: u64,
    /// Processors at the start.
    pub vcpus: u32,
    /// Processors that it may come to have while it runs.
    pub vcpus_max: u32,
    /// Memory that it may come to have while it runs, in KiB; none leaves it no room. It has a cell then.
    pub memory_max_kib: Option<u64>,
    /// The size of the pages that its memory is made of, in KiB; none are the usual ones.
    pub page_kib: Option<u64>,
    /// How its processors lie together: as many as it may come to have. None makes a socket of each.
    pub topology: Option<Topology>,
    /// Its cells; none when it sees one.
    pub cells: Vec<GuestCell>,
    /// The host's processors that a processor of the guest runs on alone.
    pub pins: BTreeMap<u32, Vec<u32>>,
    /// The host's processors for everything else that the machine does.
    pub emulator_pins: Vec<u32>,
    /// Its disks.
    pub disks: Vec<DiskDevice>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// What it has of the host.
    pub devices: Vec<HostDevice>,
    /// PCI slots that are kept free, so that devices can be added while it runs.
    pub spare_slots: u32,
    /// Whether it has a screen that can be looked at, through a socket that libvirt makes.
    pub has_screen: bool,
    /// The socket of the host that its first serial line is reached by; none leaves it to a terminal of
    /// the host.
    pub serial: Option<String>,
    /// How far the server's orders had come when it was described, a number that only grows: written
    /// into the domain, so that who finds it knows what it knows.
    pub position: u64,
}

/// A domain's XML does not say what a server needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the domain's XML: {0}")]
pub struct NotADescription(pub String);

impl Description {
    /// The namespace of what is written of ourselves.
    pub(crate) const NAMESPACE: &'static str = "urn:skyledger:server:1";

    /// A machine with so much memory and so many processors, and nothing else.
    pub fn new(name: &str, uuid: Uuid, memory_kib: u64, vcpus: u32) -> Self {
        Self {
            name: name.to_owned(),
            uuid,
            virtualisation: Virtualisation::default(),
            architecture: "x86_64".to_owned(),
            machine: Some("q35".to_owned()),
            firmware: Firmware::default(),
            kernel: None,
            memory_kib,
            vcpus,
            vcpus_max: vcpus,
            memory_max_kib: None,
            page_kib: None,
            topology: None,
            cells: Vec::new(),
            pins: BTreeMap::new(),
            emulator_pins: Vec::new(),
            disks: Vec::new(),
            nics: Vec::new(),
            devices: Vec::new(),
            spare_slots: 12,
            has_screen: true,
            serial: None,
            position: 0,
        }
    }

    /// The same server started from a kernel in memory, to be repaired: its disks are there and
    /// nothing of the host is, so that it starts also when that is what is broken.
    #[must_use]
    pub fn rescued(&self, kernel: DirectKernel) -> Self {
        let mut rescued = self.clone();
        rescued.kernel = Some(kernel);
        rescued.firmware = Firmware::Bios;
        rescued.devices.clear();
        for disk in &mut rescued.disks {
            disk.boot = None;
        }
        for nic in &mut rescued.nics {
            nic.boot = None;
        }
        rescued
    }
}
