//! A description as libvirt's XML.

use std::io;

use quick_xml::{
    Writer,
    events::{BytesText, Event},
};

use super::{
    Description, DiskDevice, Firmware, Format, GuestCell, HostDevice, Nic, NicModel, Source,
    Topology, Virtualisation,
};
use crate::Limit;

/// How often memory can be added to a guest that runs, between two starts.
const MEMORY_SLOTS: u32 = 16;

/// Elements that are being written. What is written goes into memory, so nothing fails but what is
/// not text, and everything here is text.
struct Xml {
    writer: Writer<Vec<u8>>,
}

type Attributes<'a> = &'a [(&'a str, &'a str)];

impl Xml {
    fn element(
        &mut self,
        name: &str,
        attributes: Attributes<'_>,
        inner: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let element =
            quick_xml::events::BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.writer.write_event(Event::Start(element.borrow()))?;
        inner(self)?;
        self.writer.write_event(Event::End(element.to_end()))
    }

    fn empty(&mut self, name: &str, attributes: Attributes<'_>) -> io::Result<()> {
        let element =
            quick_xml::events::BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.writer.write_event(Event::Empty(element))
    }

    fn text(&mut self, name: &str, attributes: Attributes<'_>, text: &str) -> io::Result<()> {
        let write = |xml: &mut Self| xml.writer.write_event(Event::Text(BytesText::new(text)));
        self.element(name, attributes, write)
    }
}

/// `0-3,7`.
fn set(mut cpus: Vec<u32>) -> String {
    cpus.sort_unstable();
    cpus.dedup();
    let runs = cpus.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

impl Description {
    /// The domain's XML. The same description has the same text.
    pub fn xml(&self) -> String {
        let mut xml = Xml { writer: Writer::new_with_indent(Vec::new(), b' ', 2) };
        // Nothing that is written into memory fails.
        let written = self.domain(&mut xml);
        debug_assert!(written.is_ok(), "{written:?}");
        String::from_utf8(xml.writer.into_inner()).unwrap_or_default()
    }

    fn domain(&self, xml: &mut Xml) -> io::Result<()> {
        let kind = match self.virtualisation {
            Virtualisation::Kvm => "kvm",
            Virtualisation::Emulated => "qemu",
            Virtualisation::Test => "test",
        };
        xml.element("domain", &[("type", kind)], |xml| {
            xml.text("name", &[], &self.name)?;
            xml.text("uuid", &[], &self.uuid.to_string())?;
            xml.element("metadata", &[], |xml| {
                let position = self.position.to_string();
                let name = [("xmlns:skyledger", Self::NAMESPACE), ("position", &position)];
                xml.empty("skyledger:server", &name)
            })?;
            if let Some(most) = self.memory_max_kib {
                let slots = MEMORY_SLOTS.to_string();
                xml.text("maxMemory", &[("slots", &slots), ("unit", "KiB")], &most.to_string())?;
            }
            xml.text("memory", &[("unit", "KiB")], &self.memory_kib.to_string())?;
            if let Some(size) = self.page_kib {
                xml.element("memoryBacking", &[], |xml| {
                    xml.element("hugepages", &[], |xml| {
                        xml.empty("page", &[("size", &size.to_string()), ("unit", "KiB")])
                    })
                })?;
            }
            let current = self.vcpus.to_string();
            let current: Attributes<'_> = if self.vcpus == self.vcpus_max {
                &[("placement", "static")]
            } else {
                &[("placement", "static"), ("current", &current)]
            };
            xml.text("vcpu", current, &self.vcpus_max.to_string())?;
            self.pinned(xml)?;
            self.bound(xml)?;
            self.start(xml)?;
            xml.element("features", &[], |xml| {
                xml.empty("acpi", &[])?;
                if self.firmware == Firmware::UefiSecure {
                    xml.empty("smm", &[("state", "on")])?;
                }
                Ok(())
            })?;
            self.processor(xml)?;
            xml.empty("clock", &[("offset", "utc")])?;
            for (what, becomes) in
                [("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")]
            {
                xml.text(what, &[], becomes)?;
            }
            xml.element("devices", &[], |xml| self.all_devices(xml))
        })
    }

    /// What binds it to CPUs and cells of its host, as elements of a domain's XML; nothing when nothing does.
    pub fn bindings(&self) -> String {
        fragment(|xml| {
            self.pinned(xml)?;
            self.bound(xml)
        })
    }

    fn pinned(&self, xml: &mut Xml) -> io::Result<()> {
        if self.pins.is_empty() && self.emulator_pins.is_empty() {
            return Ok(());
        }
        xml.element("cputune", &[], |xml| {
            for (vcpu, cpus) in &self.pins {
                let (vcpu, cpus) = (vcpu.to_string(), set(cpus.clone()));
                xml.empty("vcpupin", &[("vcpu", &vcpu), ("cpuset", &cpus)])?;
            }
            if !self.emulator_pins.is_empty() {
                let cpus = set(self.emulator_pins.clone());
                xml.empty("emulatorpin", &[("cpuset", &cpus)])?;
            }
            Ok(())
        })
    }

    /// Memory that is bound to cells of the host.
    fn bound(&self, xml: &mut Xml) -> io::Result<()> {
        let cells: Vec<u32> = self.cells.iter().filter_map(|cell| cell.host_cell).collect();
        if cells.is_empty() {
            return Ok(());
        }
        xml.element("numatune", &[], |xml| {
            xml.empty("memory", &[("mode", "strict"), ("nodeset", &set(cells))])?;
            for (index, GuestCell { host_cell, .. }) in self.cells.iter().enumerate() {
                if let Some(cell) = host_cell {
                    let (index, cell) = (index.to_string(), cell.to_string());
                    let bound = [("cellid", &*index), ("mode", "strict"), ("nodeset", &*cell)];
                    xml.empty("memnode", &bound)?;
                }
            }
            Ok(())
        })
    }

    fn start(&self, xml: &mut Xml) -> io::Result<()> {
        let firmware: Attributes<'_> = match self.firmware {
            Firmware::Bios => &[],
            Firmware::Uefi | Firmware::UefiSecure => &[("firmware", "efi")],
        };
        xml.element("os", firmware, |xml| {
            let mut machine = vec![("arch", self.architecture.as_str())];
            machine.extend(self.machine.as_deref().map(|machine| ("machine", machine)));
            xml.text("type", &machine, "hvm")?;
            if self.firmware != Firmware::Bios {
                let secure = if self.firmware == Firmware::UefiSecure { "yes" } else { "no" };
                xml.element("firmware", &[], |xml| {
                    xml.empty("feature", &[("enabled", secure), ("name", "secure-boot")])
                })?;
            }
            if let Some(kernel) = &self.kernel {
                xml.text("kernel", &[], &kernel.kernel)?;
                xml.text("initrd", &[], &kernel.initrd)?;
                xml.text("cmdline", &[], &kernel.command_line)?;
            }
            Ok(())
        })
    }

    fn processor(&self, xml: &mut Xml) -> io::Result<()> {
        let mode: Attributes<'_> = match self.virtualisation {
            // Migrations stay possible between hosts of one kind of processor.
            Virtualisation::Kvm => &[("mode", "host-model")],
            Virtualisation::Emulated => &[("mode", "maximum")],
            Virtualisation::Test => &[],
        };
        if mode.is_empty() && self.cells.is_empty() && self.topology.is_none() {
            return Ok(());
        }
        xml.element("cpu", mode, |xml| {
            if let Some(Topology { sockets, cores, threads }) = self.topology {
                let (sockets, cores) = (sockets.to_string(), cores.to_string());
                let threads = threads.to_string();
                let all = [
                    ("sockets", &*sockets),
                    ("dies", "1"),
                    ("cores", &*cores),
                    ("threads", &*threads),
                ];
                xml.empty("topology", &all)?;
            }
            if self.cells.is_empty() {
                return Ok(());
            }
            xml.element("numa", &[], |xml| {
                for (index, cell) in self.cells.iter().enumerate() {
                    let (index, cpus) = (index.to_string(), set(cell.vcpus.clone()));
                    let memory = cell.memory_kib.to_string();
                    let cell =
                        [("id", &*index), ("cpus", &*cpus), ("memory", &*memory), ("unit", "KiB")];
                    xml.empty("cell", &cell)?;
                }
                Ok(())
            })
        })
    }

    fn all_devices(&self, xml: &mut Xml) -> io::Result<()> {
        for disk in &self.disks {
            disk.write(xml)?;
        }
        if self.machine.as_deref().is_some_and(|machine| machine.contains("q35")) {
            // The root first, or libvirt makes another one.
            xml.empty("controller", &[("type", "pci"), ("model", "pcie-root")])?;
            for _ in 0..self.spare_slots {
                xml.empty("controller", &[("type", "pci"), ("model", "pcie-root-port")])?;
            }
        }
        for nic in &self.nics {
            nic.write(xml)?;
        }
        match &self.serial {
            Some(socket) => xml.element("serial", &[("type", "unix")], |xml| {
                xml.empty("source", &[("mode", "bind"), ("path", socket)])
            })?,
            None => {
                for port in ["serial", "console"] {
                    xml.empty(port, &[("type", "pty")])?;
                }
            }
        }
        xml.element("channel", &[("type", "unix")], |xml| {
            let agent = [("type", "virtio"), ("name", "org.qemu.guest_agent.0")];
            xml.empty("target", &agent)
        })?;
        if self.has_screen {
            xml.empty("input", &[("type", "tablet"), ("bus", "usb")])?;
            // Who looks comes through the agent, with a ticket: there is no port for anybody else.
            xml.element("graphics", &[("type", "vnc")], |xml| {
                xml.empty("listen", &[("type", "socket")])
            })?;
            xml.element("video", &[], |xml| xml.empty("model", &[("type", "virtio")]))?;
        }
        for device in &self.devices {
            device.write(xml)?;
        }
        xml.empty("memballoon", &[("model", "virtio")])?;
        xml.element("rng", &[("model", "virtio")], |xml| {
            xml.text("backend", &[("model", "random")], "/dev/urandom")
        })
    }
}

fn boot(xml: &mut Xml, order: Option<u32>) -> io::Result<()> {
    match order {
        None => Ok(()),
        Some(order) => xml.empty("boot", &[("order", &order.to_string())]),
    }
}

impl DiskDevice {
    /// The device's own XML, for [`crate::Connection::attach`].
    pub fn xml(&self) -> String {
        fragment(|xml| self.write(xml))
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let kind = if matches!(self.source, Some(Source::Block(_))) { "block" } else { "file" };
        let device = if self.is_cdrom { "cdrom" } else { "disk" };
        xml.element("disk", &[("type", kind), ("device", device)], |xml| {
            let format = match self.format {
                Format::Qcow2 => "qcow2",
                Format::Raw => "raw",
            };
            let mut driver = vec![("name", "qemu"), ("type", format)];
            if !self.is_cdrom {
                // What the guest was told is on the disk is there, also when the host goes down.
                driver.extend([("cache", "none"), ("io", "native"), ("discard", "unmap")]);
            }
            xml.empty("driver", &driver)?;
            match &self.source {
                Some(Source::File(path)) => xml.empty("source", &[("file", path)])?,
                Some(Source::Block(path)) => xml.empty("source", &[("dev", path)])?,
                None => {}
            }
            let bus = match self.target.get(..2) {
                Some("vd") => "virtio",
                _ => "sata",
            };
            xml.empty("target", &[("dev", &self.target), ("bus", bus)])?;
            if !self.limits.is_empty() {
                xml.element("iotune", &[], |xml| {
                    for (limit, name) in Limit::ALL {
                        if let Some(value) = self.limits.get(&limit) {
                            xml.text(name, &[], &value.to_string())?;
                        }
                    }
                    Ok(())
                })?;
            }
            if self.is_readonly {
                xml.empty("readonly", &[])?;
            }
            if self.is_shared {
                xml.empty("shareable", &[])?;
            }
            if let Some(serial) = &self.serial {
                xml.text("serial", &[], serial)?;
            }
            boot(xml, self.boot)
        })
    }
}

impl Nic {
    /// The device's own XML, for [`crate::Connection::attach`].
    pub fn xml(&self) -> String {
        fragment(|xml| self.write(xml))
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        xml.element("interface", &[("type", "bridge")], |xml| {
            xml.empty("mac", &[("address", &self.mac)])?;
            xml.empty("source", &[("bridge", &self.bridge)])?;
            if let Some(vlan) = self.vlan {
                xml.element("vlan", &[], |xml| xml.empty("tag", &[("id", &vlan.to_string())]))?;
            }
            if self.is_ovs {
                xml.empty("virtualport", &[("type", "openvswitch")])?;
            }
            if let Some(port) = &self.port {
                xml.empty("target", &[("dev", port)])?;
            }
            let model = match self.model {
                NicModel::E1000e => "e1000e",
                NicModel::Virtio => "virtio",
            };
            xml.empty("model", &[("type", model)])?;
            if !self.is_up {
                xml.empty("link", &[("state", "down")])?;
            }
            if let Some(mtu) = self.mtu {
                xml.empty("mtu", &[("size", &mtu.to_string())])?;
            }
            boot(xml, self.boot)
        })
    }
}

impl HostDevice {
    /// The device's own XML, for [`crate::Connection::attach`].
    pub fn xml(&self) -> String {
        fragment(|xml| self.write(xml))
    }

    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        let source = |xml: &mut Xml, address: Attributes<'_>| {
            xml.element("source", &[], |xml| xml.empty("address", address))
        };
        match self {
            Self::Pci(address) | Self::PciUnmanaged(address) => {
                let part = |range| format!("0x{}", address.get(range).unwrap_or_default());
                let (domain, bus) = (part(0..4), part(5..7));
                let (slot, function) = (part(8..10), part(11..12));
                let managed = if matches!(self, Self::Pci(_)) { "yes" } else { "no" };
                let kind = [("mode", "subsystem"), ("type", "pci"), ("managed", managed)];
                xml.element("hostdev", &kind, |xml| {
                    let address = [
                        ("domain", &*domain),
                        ("bus", &*bus),
                        ("slot", &*slot),
                        ("function", &*function),
                    ];
                    source(xml, &address)
                })
            }
            Self::Mediated(uuid) => {
                let kind = [("mode", "subsystem"), ("type", "mdev"), ("model", "vfio-pci")];
                xml.element("hostdev", &kind, |xml| source(xml, &[("uuid", &uuid.to_string())]))
            }
            Self::Usb(bus, device) => {
                let kind = [("mode", "subsystem"), ("type", "usb"), ("managed", "yes")];
                let (bus, device) = (bus.to_string(), device.to_string());
                xml.element("hostdev", &kind, |xml| {
                    source(xml, &[("bus", &bus), ("device", &device)])
                })
            }
        }
    }
}

fn fragment(write: impl FnOnce(&mut Xml) -> io::Result<()>) -> String {
    let mut xml = Xml { writer: Writer::new_with_indent(Vec::new(), b' ', 2) };
    let written = write(&mut xml);
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8(xml.writer.into_inner()).unwrap_or_default()
}
