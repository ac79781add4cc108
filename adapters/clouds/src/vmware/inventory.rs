//! What a vCenter has, as it says: machines with their disks and interfaces, and where the files of datastores are.
//!
//! Everything is asked of its property collector, of what a view has: a page at a time, and only those properties
//! that are read here.

use std::{collections::BTreeMap, net::IpAddr};

use commands::ports::DriverFault;
use domain::compute::server::Power;

use super::{
    session::Session,
    xml::{Node, element, in_path, reference},
};

/// What is written on a machine by a move: the key in its extra configuration.
pub(super) const MARK: &str = "skyledger.move-in";
/// Most objects of one answer.
const PAGE: usize = 100;

/// What is asked of a machine.
const MACHINE: [&str; 16] = [
    "name",
    "capability.changeTrackingSupported",
    "config.changeTrackingEnabled",
    "config.extraConfig",
    "config.firmware",
    "config.guestId",
    "config.hardware.device",
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.keyId",
    "config.template",
    "guest.net",
    "guest.toolsRunningStatus",
    "runtime.faultToleranceState",
    "runtime.powerState",
    "snapshot",
];

/// A machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Vm {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) power_state: String,
    pub(super) is_template: bool,
    pub(super) firmware: String,
    pub(super) guest_id: String,
    pub(super) vcpus: u32,
    pub(super) memory_mib: u64,
    pub(super) disks: Vec<Disk>,
    pub(super) nics: Vec<Nic>,
    /// Devices of its host that it has.
    pub(super) devices: Vec<String>,
    /// What a move has written on it.
    pub(super) mark: Option<String>,
    /// Whether it notes which parts of its disks change, and whether it can.
    pub(super) is_tracking: bool,
    pub(super) can_track: bool,
    /// Whether VMware Tools run in it, which its system is asked to stop by.
    pub(super) has_tools: bool,
    pub(super) has_standby: bool,
    pub(super) is_encrypted: bool,
    pub(super) snapshots: Vec<Snapshot>,
}

/// A disk of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) key: u32,
    pub(super) bytes: u64,
    pub(super) bus: &'static str,
    /// Its place among the machine's disks: bus, controller and place there.
    pub(super) place: (usize, u32, u32),
    /// How it lies: the type of its backing.
    pub(super) backing: String,
    /// As its datastore calls it, such as `[store] web/web.vmdk`.
    pub(super) file: String,
    pub(super) store: String,
    pub(super) mode: String,
    pub(super) is_shared: bool,
    /// The moment of it that a snapshot says: what has changed since then can be asked.
    pub(super) change: String,
}

/// An interface of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nic {
    pub(super) mac: String,
    pub(super) addresses: Vec<IpAddr>,
}

/// A snapshot of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) id: String,
    pub(super) name: String,
}

/// A datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) name: String,
    /// `VMFS`, `NFS`, `vsan` and so on.
    pub(super) kind: String,
    /// The path of its datacenter.
    pub(super) datacenter: String,
}

/// Datastores by id.
pub(super) type Stores = BTreeMap<String, Store>;

impl Vm {
    pub(super) fn power(&self) -> Power {
        match self.power_state.as_str() {
            "poweredOn" => Power::Running,
            "poweredOff" => Power::Stopped,
            "suspended" => Power::Suspended,
            _ => Power::Unknown,
        }
    }

    fn read(id: &str, said: &BTreeMap<&str, &Node>) -> Self {
        let text = |name: &str| said.get(name).map_or("", |node| node.text()).to_owned();
        let is = |name: &str| matches!(text(name).as_str(), "true" | "1");
        let number = |name: &str| text(name).parse().unwrap_or_default();
        let all = |name: &str| said.get(name).map_or(&[][..], |node| node.inner());
        let option = |node: &&Node| node.said("key") == MARK;
        let mark = all("config.extraConfig").iter().rfind(option);
        let fault_tolerance = text("runtime.faultToleranceState");
        let mut vm = Self {
            id: id.to_owned(),
            name: text("name"),
            power_state: text("runtime.powerState"),
            is_template: is("config.template"),
            firmware: text("config.firmware"),
            guest_id: text("config.guestId"),
            vcpus: number("config.hardware.numCPU") as u32,
            memory_mib: number("config.hardware.memoryMB"),
            mark: mark.map(|node| node.said("value").to_owned()).filter(|mark| !mark.is_empty()),
            is_tracking: is("config.changeTrackingEnabled"),
            can_track: is("capability.changeTrackingSupported"),
            has_tools: text("guest.toolsRunningStatus") == "guestToolsRunning",
            has_standby: !matches!(fault_tolerance.as_str(), "" | "notConfigured"),
            is_encrypted: said.contains_key("config.keyId"),
            ..Self::default()
        };
        vm.devices(all("config.hardware.device"), all("guest.net"));
        if let Some(trees) = said.get("snapshot") {
            walk(trees, "rootSnapshotList", &mut vm.snapshots);
        }
        vm
    }

    fn devices(&mut self, devices: &[Node], told: &[Node]) {
        self.disks = disks(devices);
        for device in devices {
            let kind = device.kind();
            if kind.starts_with("VirtualPCIPassthrough") || kind == "VirtualSriovEthernetCard" {
                self.devices.push(format!("{kind} {}", device.said("deviceInfo/label")));
            } else if let Some(mac) = device.at("macAddress").map(Node::text) {
                let mac = mac.to_lowercase();
                let own =
                    told.iter().filter(|one| one.said("macAddress").eq_ignore_ascii_case(&mac));
                let said = own
                    .flat_map(|one| one.all("ipAddress"))
                    .filter_map(|one| one.text().parse().ok());
                let addresses = said.filter(is_lasting).collect();
                self.nics.push(Nic { mac, addresses });
            }
        }
    }
}

/// Whether an address is more than one that a system gives itself on each link.
fn is_lasting(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

fn walk(node: &Node, name: &str, into: &mut Vec<Snapshot>) {
    for tree in node.all(name) {
        let (id, name) = (tree.said("snapshot").to_owned(), tree.said("name").to_owned());
        into.push(Snapshot { id, name });
        walk(tree, "childSnapshotList", into);
    }
}

/// Buses of disks, in the order in which a machine starts from them.
const BUSES: [(&str, &[&str]); 4] = [
    (
        "scsi",
        &[
            "ParaVirtualSCSIController",
            "VirtualBusLogicController",
            "VirtualLsiLogicController",
            "VirtualLsiLogicSASController",
        ],
    ),
    ("sata", &["VirtualAHCIController", "VirtualSATAController"]),
    ("nvme", &["VirtualNVMEController"]),
    ("ide", &["VirtualIDEController"]),
];

/// The disks among a machine's devices, in its order.
fn disks(devices: &[Node]) -> Vec<Disk> {
    let controller = |key: &str| {
        let node = devices.iter().find(|one| one.said("key") == key)?;
        let at = BUSES.iter().position(|(_, kinds)| kinds.contains(&node.kind()))?;
        let shared = !matches!(node.said("sharedBus"), "" | "noSharing");
        Some((at, node.number("busNumber").unwrap_or_default(), shared))
    };
    let of = |device: &Node| {
        let backing = device.at("backing")?;
        let found = controller(device.said("controllerKey"));
        let (bus, number, shared) = found.unwrap_or((BUSES.len(), 0, false));
        let kib = device.number::<u64>("capacityInKB").unwrap_or_default();
        let shares = matches!(backing.said("sharing"), "sharingMultiWriter");
        Some(Disk {
            key: device.number("key")?,
            bytes: device.number("capacityInBytes").unwrap_or(kib << 10),
            bus: BUSES.get(bus).map_or("unknown", |(name, _)| name),
            place: (bus, number, device.number("unitNumber").unwrap_or_default()),
            backing: backing.kind().to_owned(),
            file: backing.said("fileName").to_owned(),
            store: backing.said("datastore").to_owned(),
            mode: backing.said("diskMode").to_owned(),
            is_shared: shared || shares,
            change: backing.said("changeId").to_owned(),
        })
    };
    let all = devices.iter().filter(|device| device.kind() == "VirtualDisk");
    let mut all: Vec<Disk> = all.filter_map(of).collect();
    all.sort_by_key(|disk| disk.place);
    all
}

/// Where its data is read: the file that a disk's own file describes.
///
/// # Errors
/// It lies in no datastore that is known, or is called in no way that is known.
pub(super) fn data(disk: &Disk, stores: &Stores) -> Result<String, DriverFault> {
    let odd = |why: &str| DriverFault::Unexpected(format!("{}: {why}", disk.file));
    let store = stores.get(&disk.store).ok_or_else(|| odd("its datastore is not known"))?;
    let path = disk.file.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let (_, path) = path.ok_or_else(|| odd("it is called in another way than files are"))?;
    let stem = path.strip_suffix(".vmdk").ok_or_else(|| odd("it is no disk's"))?;
    // In a query a slash stands for itself.
    let (place, name) = (in_path(&store.datacenter), in_path(&store.name));
    Ok(format!("/folder/{}-flat.vmdk?dcPath={place}&dsName={name}", in_path(stem)))
}

impl Session<'_> {
    /// The properties of everything of these types.
    async fn everything(
        &self,
        wanted: &[(&str, &[&str])],
    ) -> Result<Vec<(String, String, Node)>, DriverFault> {
        let mut words = reference("container", "Folder", self.root());
        for (kind, _) in wanted {
            words += &element("type", kind);
        }
        words += "<recursive>true</recursive>";
        let view = self.call("CreateContainerView", self.views(), &words).await?;
        let view = view.said("returnval").to_owned();
        let seen = self.of_view(&view, wanted).await;
        let gone = self.call("DestroyView", ("ContainerView", &view), "").await;
        let seen = seen?;
        gone?;
        Ok(seen)
    }

    async fn of_view(
        &self,
        view: &str,
        wanted: &[(&str, &[&str])],
    ) -> Result<Vec<(String, String, Node)>, DriverFault> {
        let through = "<selectSet xsi:type=\"TraversalSpec\"><name>all</name><type>ContainerView</type>\
                       <path>view</path><skip>false</skip></selectSet>";
        let object = reference("obj", "ContainerView", view);
        let words = format!(
            "<specSet>{}<objectSet>{object}<skip>true</skip>{through}</objectSet></specSet>\
             <options><maxObjects>{PAGE}</maxObjects></options>",
            sets(wanted),
        );
        let mut answer = self.call("RetrievePropertiesEx", self.properties(), &words).await?;
        let mut all = Vec::new();
        loop {
            let Some(page) = answer.at("returnval") else { return Ok(all) };
            all.extend(page.all("objects").map(object_of));
            let token = page.said("token");
            if token.is_empty() {
                return Ok(all);
            }
            let words = element("token", token);
            answer = self.call("ContinueRetrievePropertiesEx", self.properties(), &words).await?;
        }
    }

    /// Every machine; what others are made from is none.
    pub(super) async fn machines(&self) -> Result<Vec<Vm>, DriverFault> {
        let all = self.everything(&[("VirtualMachine", &MACHINE)]).await?;
        let mut all: Vec<Vm> =
            all.iter().map(|(_, id, object)| Vm::read(id, &said(object))).collect();
        all.retain(|vm| !vm.is_template);
        all.sort_by(|one, next| one.id.cmp(&next.id));
        Ok(all)
    }

    /// One machine; none when it is not there.
    pub(super) async fn machine(&self, id: &str) -> Result<Option<Vm>, DriverFault> {
        let object = match self.object("VirtualMachine", id, &MACHINE).await {
            Ok(object) => object,
            Err(DriverFault::NotFound(_)) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        Ok(Some(Vm::read(id, &said(&object))).filter(|vm| !vm.is_template))
    }

    /// One that is to be there.
    pub(super) async fn known(&self, id: &str) -> Result<Vm, DriverFault> {
        let vm = self.machine(id).await?;
        vm.ok_or_else(|| DriverFault::NotFound(format!("the vCenter has no machine {id}")))
    }

    async fn object(&self, kind: &str, id: &str, names: &[&str]) -> Result<Node, DriverFault> {
        let object = reference("obj", kind, id);
        let words = format!(
            "<specSet>{}<objectSet>{object}</objectSet></specSet><options/>",
            sets(&[(kind, names)]),
        );
        let answer = self.call("RetrievePropertiesEx", self.properties(), &words).await?;
        let object = answer.at("returnval/objects").cloned();
        object.ok_or_else(|| DriverFault::NotFound(format!("the vCenter has no {id}")))
    }

    /// The disks of a machine as they were at a snapshot.
    pub(super) async fn disks_at(&self, snapshot: &str) -> Result<Vec<Disk>, DriverFault> {
        let names = ["config.hardware.device"];
        let object = self.object("VirtualMachineSnapshot", snapshot, &names).await?;
        let found = said(&object);
        let devices = found.get("config.hardware.device");
        Ok(disks(devices.map_or(&[][..], |node| node.inner())))
    }

    /// Every datastore.
    pub(super) async fn stores(&self) -> Result<Stores, DriverFault> {
        let entity: &[&str] = &["name", "parent"];
        let wanted = [
            ("Datacenter", entity),
            ("Datastore", &["name", "parent", "summary.type"]),
            ("Folder", entity),
            ("StoragePod", entity),
        ];
        let all = self.everything(&wanted).await?;
        let known: BTreeMap<&str, (&str, BTreeMap<&str, &Node>)> = all
            .iter()
            .map(|(kind, id, object)| (id.as_str(), (kind.as_str(), said(object))))
            .collect();
        let text = |id: &str, name: &str| {
            let node = known.get(id).and_then(|(_, said)| said.get(name));
            node.map_or_else(String::new, |node| node.text().to_owned())
        };
        // Up from a datastore to its datacenter, and from there to the top; what is called so is a path.
        let place = |id: &str| {
            let (mut path, mut at, mut within) = (Vec::new(), text(id, "parent"), false);
            while let Some((kind, _)) = known.get(at.as_str()).filter(|_| path.len() < 64) {
                within |= *kind == "Datacenter";
                if within {
                    path.push(named(&text(&at, "name")));
                }
                at = text(&at, "parent");
            }
            path.reverse();
            path.join("/")
        };
        let stores = known.iter().filter(|(_, (kind, _))| *kind == "Datastore");
        let store = |id: &str| Store {
            name: named(&text(id, "name")),
            kind: text(id, "summary.type"),
            datacenter: place(id),
        };
        Ok(stores.map(|(id, _)| ((*id).to_owned(), store(id))).collect())
    }
}

/// A name of the inventory in plain: three signs are spelled out there.
fn named(name: &str) -> String {
    name.replace("%2f", "/")
        .replace("%2F", "/")
        .replace("%5c", "\\")
        .replace("%5C", "\\")
        .replace("%25", "%")
}

fn sets(wanted: &[(&str, &[&str])]) -> String {
    let one = |(kind, names): &(&str, &[&str])| {
        let paths: String = names.iter().map(|name| element("pathSet", name)).collect();
        format!("<propSet>{}<all>false</all>{paths}</propSet>", element("type", kind))
    };
    wanted.iter().map(one).collect()
}

fn object_of(object: &Node) -> (String, String, Node) {
    let kind = object.at("obj").map_or("", Node::kind).to_owned();
    (kind, object.said("obj").to_owned(), object.clone())
}

/// What is said of something, by name.
fn said(object: &Node) -> BTreeMap<&str, &Node> {
    object.all("propSet").filter_map(|one| Some((one.said("name"), one.at("val")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(xml: &str) -> Vec<Node> {
        Node::parse(format!("<val>{xml}</val>").as_bytes()).unwrap().inner().to_vec()
    }

    #[test]
    fn disks_are_in_the_order_in_which_a_machine_starts_from_them() {
        let all = devices(
            "<VirtualDevice xsi:type='VirtualDisk'><key>16000</key><backing xsi:type='VirtualDiskFlatVer2BackingInfo'>\
             <fileName>[a] x/x.vmdk</fileName></backing><controllerKey>15000</controllerKey><unitNumber>0</unitNumber>\
             <capacityInKB>4</capacityInKB></VirtualDevice>\
             <VirtualDevice xsi:type='VirtualAHCIController'><key>15000</key><busNumber>0</busNumber></VirtualDevice>\
             <VirtualDevice xsi:type='VirtualLsiLogicSASController'><key>1000</key><busNumber>0</busNumber>\
             <sharedBus>physicalSharing</sharedBus></VirtualDevice>\
             <VirtualDevice xsi:type='VirtualDisk'><key>2001</key><backing xsi:type='VirtualDiskRawDiskMappingVer1BackingInfo'/>\
             <controllerKey>1000</controllerKey><unitNumber>1</unitNumber><capacityInBytes>512</capacityInBytes></VirtualDevice>",
        );
        let all = disks(&all);
        let short: Vec<_> =
            all.iter().map(|one| (one.key, one.bus, one.bytes, one.is_shared)).collect();
        assert_eq!(short, [(2001, "scsi", 512, true), (16000, "sata", 4096, false)]);
    }

    #[test]
    fn the_data_of_a_disk_is_a_file_beside_its_own() {
        let store =
            Store { name: "fast 1".into(), kind: "VMFS".into(), datacenter: "eu/dc-1".into() };
        let stores: Stores = [("datastore-7".to_owned(), store)].into();
        let disk = |file: &str, store: &str| Disk {
            file: file.into(),
            store: store.into(),
            ..Disk::default()
        };
        let good = data(&disk("[fast 1] web/web_1.vmdk", "datastore-7"), &stores).unwrap();
        assert_eq!(good, "/folder/web/web_1-flat.vmdk?dcPath=eu/dc-1&dsName=fast%201");
        for (file, store) in [
            ("[fast 1] web.vmdk", "datastore-8"),
            ("web.vmdk", "datastore-7"),
            ("[f] a", "datastore-7"),
        ] {
            assert!(data(&disk(file, store), &stores).is_err(), "{file}");
        }
        assert_eq!(named("a%2fb%25"), "a/b%");
    }
}
