//! vGPUs that are virtual functions of their card: NVIDIA's with Linux 6.8 and later, where its driver has no
//! mediated devices any more.
//!
//! Such a card's virtual functions are nothing by themselves. The driver lists which types (profiles) one can be
//! made (`nvidia/creatable_vgpu_types`), and it is what is written to `nvidia/current_vgpu_type`: a type's
//! number, or 0 for nothing. Lists get shorter as the card's memory is given out. As with mediated devices
//! ([`super::mediated`]), a vGPU is a device that a server may ask for before it is there: a *slot*, called
//! `vgpu:<card>/<type>/<number>`. Which function becomes it is chosen when its server is first started.
//!
//! How many of a type are left follows from the functions that are nothing yet and from the card's memory: that
//! of the largest type it was ever seen to offer ([`Card`]), less what is given out.

use std::collections::{BTreeMap, BTreeSet};

use domain::compute::placement::{Availability, Device, DeviceProfile};
use serde::{Deserialize, Serialize};

use super::{
    ObserveFault, Tree,
    devices::{Devices, Kept, Pci},
};

/// Begins the id of every slot.
const BEGIN: &str = "vgpu:";

/// What a virtual function says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// The number of the type that it is; 0 when it is none.
    pub current: u32,
    /// The types that it can be made now: the vendor's names by number.
    pub creatable: BTreeMap<u32, String>,
}

/// What was ever seen of a card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its vendor and device.
    pub model: String,
    /// The types that it offered: the vendor's names by number.
    pub types: BTreeMap<u32, String>,
}

/// A vGPU that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The card, by its PCI address.
    pub card: String,
    /// The number of the type.
    pub of_type: u32,
    /// Which of them, from 0.
    pub number: u32,
}

impl Slot {
    /// Reads an id; none when it is that of another device.
    pub fn read(id: &str) -> Option<Self> {
        let mut parts = id.strip_prefix(BEGIN)?.split('/');
        let card = parts.next().filter(|part| super::devices::is_pci_address(part))?.to_owned();
        let of_type = parts.next()?.parse().ok().filter(|number| *number != 0)?;
        let number = parts.next()?.parse().ok()?;
        let slot = Self { card, of_type, number };
        (parts.next().is_none() && slot.id() == id).then_some(slot)
    }

    /// Its id.
    pub fn id(&self) -> String {
        format!("{BEGIN}{}/{}/{}", self.card, self.of_type, self.number)
    }
}

/// The file that makes a function a type, from the root.
pub fn current_file(address: &str) -> String {
    format!("sys/bus/pci/devices/{address}/nvidia/current_vgpu_type")
}

/// What a function says of itself; none when its driver makes no vGPUs of it.
pub(super) fn read(tree: &Tree, at: &str) -> Result<Option<Function>, ObserveFault> {
    let Some(current) = tree.number(&format!("{at}/nvidia/current_vgpu_type"))? else {
        return Ok(None);
    };
    // One that is something may answer that it can be made nothing else: by a list, or by a fault.
    let list = tree.text(&format!("{at}/nvidia/creatable_vgpu_types")).ok().flatten();
    Ok(Some(Function { current, creatable: types(&list.unwrap_or_default()) }))
}

/// Reads a list of types: a number and a name each, below a line that says so.
fn types(list: &str) -> BTreeMap<u32, String> {
    let line = |line: &str| {
        let (number, name) = line.split_once(':')?;
        Some((number.trim().parse().ok()?, name.trim().to_owned()))
    };
    list.lines().filter_map(line).collect()
}

/// The memory that a type's name tells of, in MiB: the GiB behind its last dash (`L40S-12Q`), where 0 is a half.
fn framebuffer_mib(name: &str) -> Option<u32> {
    let (_, last) = name.rsplit_once('-')?;
    let digits = &last[..last.find(|c: char| !c.is_ascii_digit())?];
    match digits.parse().ok()? {
        0_u32 => Some(512),
        gib => gib.checked_mul(1_024),
    }
}

/// The virtual functions of a card that can be vGPUs, in the order of their numbers.
fn functions<'a>(
    devices: &'a Devices,
    card: &'a Pci,
) -> impl Iterator<Item = (&'a String, &'a Pci, &'a Function)> {
    let addresses = card.functions.iter().flat_map(|functions| &functions.addresses);
    addresses.filter_map(|address| {
        let pci = devices.pci.get(address)?;
        Some((address, pci, pci.vgpu.as_ref()?))
    })
}

/// What is known of every card that has such functions, with what was known before: what to write down.
pub fn cards(devices: &Devices, known: &BTreeMap<String, Card>) -> BTreeMap<String, Card> {
    let mut cards = known.clone();
    for (address, pci) in &devices.pci {
        let seen: Vec<_> = functions(devices, pci).collect();
        if seen.is_empty() {
            continue;
        }
        let card = cards.entry(address.clone()).or_default();
        if card.model != pci.model {
            *card = Card { model: pci.model.clone(), types: BTreeMap::new() };
        }
        for (.., function) in seen {
            card.types.extend(function.creatable.clone());
        }
    }
    cards
}

/// The function that is to be a slot's vGPU: one that is nothing, that can be made it, and that nobody has.
pub fn choose(devices: &Devices, slot: &Slot, taken: &BTreeSet<String>) -> Option<String> {
    let card = devices.pci.get(&slot.card)?;
    let mut free = functions(devices, card).filter(|(address, pci, function)| {
        is_open(pci, function)
            && function.creatable.contains_key(&slot.of_type)
            && !taken.contains(*address)
    });
    free.next().map(|(address, ..)| address.clone())
}

/// Without an IOMMU group it cannot be given, and what is a vGPU is somebody's.
fn is_open(pci: &Pci, function: &Function) -> bool {
    pci.iommu_group.is_some() && function.current == 0
}

/// What is shown of a type.
fn profile(name: Option<&String>, instances_max: Option<u32>) -> Option<DeviceProfile> {
    let framebuffer_mib = name.and_then(|name| framebuffer_mib(name));
    DeviceProfile { name: name.cloned(), framebuffer_mib, instances_max }.said()
}

/// The vGPUs of a host: those that are chosen for servers, those that somebody else made, and as many more as
/// there can be.
pub(super) fn placeable(devices: &Devices, kept: &Kept) -> Vec<Device> {
    let mut found = Vec::new();
    let cards = cards(devices, &kept.cards);
    for (address, pci) in &devices.pci {
        let all: Vec<_> = functions(devices, pci).collect();
        let Some(card) = cards.get(address).filter(|_| !all.is_empty()) else { continue };
        // Those of our servers, whether or not they are made now.
        let own: Vec<(Slot, &String)> = kept
            .seated
            .iter()
            .filter_map(|(id, function)| Some((Slot::read(id)?, function)))
            .filter(|(slot, function)| {
                slot.card == *address && all.iter().any(|(there, ..)| there == function)
            })
            .collect();
        let seat = |function: &String| own.iter().find(|(_, seat)| *seat == function);
        let open: Vec<_> = all
            .iter()
            .filter(|(at, pci, function)| {
                is_open(pci, function) && seat(at).is_none() && !kept.devices.contains(*at)
            })
            .collect();
        let memory = |number: u32| card.types.get(&number).and_then(|name| framebuffer_mib(name));
        let whole = card.types.keys().filter_map(|number| memory(*number)).max().unwrap_or(0);
        let given = all.iter().fold(0_u32, |sum, (at, _, function)| {
            let of_type = seat(at).map_or(function.current, |(slot, _)| slot.of_type);
            sum.saturating_add(memory(of_type).unwrap_or(0))
        });
        let model = |number: u32| format!("{}/nvidia-{number}", pci.model);
        let is_kept = kept.devices.contains(address);
        let mut push = |id: String, number: u32, group: Option<u32>| {
            let most = memory(number).map(|one| (whole / one).min(all.len() as u32));
            let is_kept = is_kept || kept.devices.contains(&id);
            found.push(Device {
                id,
                kind: "vgpu".to_owned(),
                model: model(number),
                cell: pci.cell,
                iommu_group: group,
                controller: None,
                availability: if is_kept { Availability::Reserved } else { Availability::Free },
                carrier: None,
                profile: profile(card.types.get(&number), most),
                switch: None,
            });
        };
        let offered: BTreeSet<u32> =
            card.types.keys().copied().chain(own.iter().map(|(slot, _)| slot.of_type)).collect();
        for number in &offered {
            let mut numbers: BTreeSet<u32> = own
                .iter()
                .filter(|(slot, _)| slot.of_type == *number)
                .map(|(slot, _)| slot.number)
                .collect();
            let can = open.iter().filter(|(.., function)| function.creatable.contains_key(number));
            let left = match (can.count(), memory(*number)) {
                (0, _) => 0,
                // The driver offers one at least, whatever was known before.
                (can, Some(one)) => can.min((whole.saturating_sub(given) / one).max(1) as usize),
                (can, None) => can,
            };
            let most = numbers.len() + left;
            for next in 0.. {
                if numbers.len() >= most {
                    break;
                }
                numbers.insert(next);
            }
            for next in numbers {
                let slot = Slot { card: address.clone(), of_type: *number, number: next };
                push(slot.id(), *number, None);
            }
        }
        for (at, pci, function) in &all {
            if function.current != 0 && seat(at).is_none() && pci.iommu_group.is_some() {
                push((*at).clone(), function.current, pci.iommu_group);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_s_name_tells_its_memory() {
        for (name, mib) in [
            ("NVIDIA L40S-12Q", Some(12_288)),
            ("NVIDIA RTX Pro 6000 Blackwell DC-3Q", Some(3_072)),
            ("NVIDIA H200X-1-18C", Some(18_432)),
            ("NVIDIA A100-1-5CME", Some(5_120)),
            ("GRID M10-0B", Some(512)),
            ("NVIDIA L40S", None),
            ("NVIDIA L40S-12", None),
            ("NVIDIA L40S-Q", None),
            ("x-9999999999Q", None),
        ] {
            assert_eq!(framebuffer_mib(name), mib, "{name}");
        }
    }

    #[test]
    fn a_list_of_types_reads_without_its_heading() {
        let list =
            "ID    : vGPU Name\n1428  : NVIDIA H200X-141C\n1414 : NVIDIA H200X-1-18C\n\nnothing\n";
        let expected = [(1414, "NVIDIA H200X-1-18C"), (1428, "NVIDIA H200X-141C")]
            .map(|(number, name)| (number, name.to_owned()));
        assert_eq!(types(list), expected.into());
        assert!(types("").is_empty());
    }

    #[test]
    fn an_id_names_a_card_and_nothing_else() {
        let id = "vgpu:0000:41:00.0/1155/3";
        assert_eq!(Slot::read(id).unwrap().id(), id);
        for id in [
            "0000:41:00.4",
            "mdev:0000:41:00.0/1155/3",
            "vgpu:",
            "vgpu:../x/1/0",
            "vgpu:0000:41:00.0/0/0",
            "vgpu:0000:41:00.0/nvidia-1/0",
            "vgpu:0000:41:00.0/1155",
            "vgpu:0000:41:00.0/1155/0/0",
            "vgpu:0000:41:00.0/01155/0",
            "vgpu:0000:41:00.0/+1/0",
        ] {
            assert_eq!(Slot::read(id), None, "{id}");
        }
    }
}
