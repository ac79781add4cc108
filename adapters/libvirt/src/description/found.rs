//! What a domain's XML says that somebody else wrote: disks and interfaces of every kind, and whether they
//! are such as ours.

use super::{Description, NotADescription, read::Node};

/// A disk or a drive, whatever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDisk {
    /// The guest's name for it.
    pub target: String,
    /// `disk`, `cdrom`, `floppy` or `lun`.
    pub device: String,
    /// How it is plugged in: `virtio`, `sata` and so on.
    pub bus: String,
    /// The file or the device of the host that it is; none for what is neither.
    pub path: Option<String>,
    /// How it lies there: `qcow2`, `raw` and so on.
    pub format: String,
    /// Whether others have it at the same time.
    pub is_shared: bool,
}

/// An interface, whatever it is plugged into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundNic {
    /// Its hardware address, in lower case.
    pub mac: String,
    /// The host's bridge that it is plugged into, where it is and libvirt says so.
    pub bridge: Option<String>,
    /// What the guest sees: `virtio`, `e1000` and so on.
    pub model: String,
}

/// A domain of somebody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What is said of it as of ours.
    pub is: Description,
    /// Its disks and drives.
    pub disks: Vec<FoundDisk>,
    /// Its interfaces.
    pub nics: Vec<FoundNic>,
    /// Devices of the host that it has, each in a word or two.
    pub devices: Vec<String>,
    /// Whether a guest agent in it is connected; never of one that does not run.
    pub has_agent: bool,
    /// Whether it has a screen and a serial line that can be reached.
    pub consoles: (bool, bool),
}

impl Found {
    /// What the XML of a domain says, of what runs or of what is started next.
    ///
    /// # Errors
    /// As [`Description::read`].
    pub fn read(xml: &str) -> Result<Self, NotADescription> {
        let is = Description::read(xml)?;
        let domain = Node::parse(xml)?;
        let none = Node::default();
        let devices = domain.at("devices").unwrap_or(&none);
        let agent = devices.all("channel").filter_map(|one| one.at("target"));
        let mut agent = agent.filter(|one| one.attribute("name") == Some("org.qemu.guest_agent.0"));
        let has_agent = agent.any(|one| one.attribute("state") == Some("connected"));
        let screen = devices.all("graphics").any(|one| one.attribute("type") == Some("vnc"));
        let serial = devices.at("serial").is_some_and(|one| one.attribute("type") == Some("unix"));
        Ok(Self {
            is,
            disks: devices.all("disk").filter_map(disk).collect(),
            nics: devices.all("interface").filter_map(nic).collect(),
            devices: devices.all("hostdev").map(device).collect(),
            has_agent,
            consoles: (screen, serial),
        })
    }

    /// Whether another one has the same disks and interfaces.
    pub fn has_the_same(&self, other: &Self) -> bool {
        let disks = |one: &Self| {
            let all = one.disks.iter().map(|disk| (disk.target.clone(), disk.path.clone()));
            all.collect::<Vec<_>>()
        };
        let nics = |one: &Self| one.nics.iter().map(|nic| nic.mac.clone()).collect::<Vec<_>>();
        disks(self) == disks(other) && nics(self) == nics(other)
    }
}

fn disk(node: &Node) -> Option<FoundDisk> {
    let of = |node: Option<&Node>, name: &str| {
        node.and_then(|node| node.attribute(name)).unwrap_or_default().to_owned()
    };
    let target = node.at("target");
    let path = node.at("source").and_then(|source| match node.attribute("type") {
        Some("file") => source.attribute("file"),
        Some("block") => source.attribute("dev"),
        _ => None,
    });
    Some(FoundDisk {
        target: target?.attribute("dev")?.to_owned(),
        device: node.attribute("device").unwrap_or("disk").to_owned(),
        bus: of(target, "bus"),
        path: path.map(str::to_owned),
        // Without a word for it libvirt takes it as it is.
        format: match of(node.at("driver"), "type") {
            format if format.is_empty() => "raw".to_owned(),
            format => format,
        },
        is_shared: node.at("shareable").is_some(),
    })
}

fn nic(node: &Node) -> Option<FoundNic> {
    let of = |path: &str, name: &str| node.at(path)?.attribute(name).map(str::to_owned);
    // An Open vSwitch bridge is none that a Linux interface can be plugged into by another name.
    let is_plain = node.at("virtualport").is_none() && node.at("vlan").is_none();
    Some(FoundNic {
        mac: of("mac", "address")?.to_lowercase(),
        bridge: of("source", "bridge").filter(|_| is_plain),
        model: of("model", "type").unwrap_or_default(),
    })
}

fn device(node: &Node) -> String {
    let kind = node.attribute("type").unwrap_or("unknown");
    let Some(address) = node.at("source/address") else { return kind.to_owned() };
    let number = |name: &str| {
        address.attribute(name).map_or("0", |text| text.trim_start_matches("0x")).to_owned()
    };
    match (kind, address.attribute("uuid")) {
        (_, Some(uuid)) => format!("{kind} {uuid}"),
        ("pci", None) => {
            let place = [number("domain"), number("bus"), number("slot")].join(":");
            format!("pci {place}.{}", number("function"))
        }
        _ => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r"<domain type='kvm' id='3'>
  <name>shop db</name>
  <uuid>8a5c2f0e-6f0a-4d5e-9a40-0d4f4f1f5a01</uuid>
  <memory unit='KiB'>98304</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-10.0'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='/srv/db.img'/><target dev='vda' bus='virtio'/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/><source protocol='rbd' name='p/i'/><target dev='sda' bus='scsi'/>
      <shareable/>
    </disk>
    <disk type='file' device='cdrom'><target dev='hda' bus='ide'/></disk>
    <interface type='bridge'>
      <mac address='52:54:00:AA:00:01'/><source bridge='br0'/><target dev='vnet3'/>
      <model type='e1000'/>
    </interface>
    <interface type='direct'><mac address='52:54:00:aa:00:02'/><source dev='eth0'/></interface>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>
    </channel>
    <hostdev mode='subsystem' type='pci'>
      <source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source>
    </hostdev>
    <graphics type='spice'/>
  </devices>
</domain>";

    #[test]
    fn what_somebody_else_wrote_is_read_whatever_it_is() {
        let found = Found::read(XML).unwrap();
        let disk = |at: usize| {
            let FoundDisk { target, device, bus, path, format, is_shared } = &found.disks[at];
            format!("{target} {device} {bus} {path:?} {format} {is_shared}")
        };
        assert_eq!(disk(0), "vda disk virtio Some(\"/srv/db.img\") qcow2 false");
        assert_eq!(disk(1), "sda disk scsi None raw true");
        assert_eq!(disk(2), "hda cdrom ide None raw false");
        let nics: Vec<_> =
            found.nics.iter().map(|nic| (&*nic.mac, nic.bridge.as_deref())).collect();
        assert_eq!(nics, [("52:54:00:aa:00:01", Some("br0")), ("52:54:00:aa:00:02", None)]);
        assert_eq!((found.nics[0].model.as_str(), found.has_agent), ("e1000", true));
        assert_eq!(found.devices, ["pci 0000:3b:00.1"]);
        assert_eq!((found.consoles, found.is.vcpus), ((false, false), 2));
        let other = Found::read(&XML.replace("/srv/db.img", "/srv/other.img")).unwrap();
        assert!(found.has_the_same(&found.clone()) && !found.has_the_same(&other));
    }
}
