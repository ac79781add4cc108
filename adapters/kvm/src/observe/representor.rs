//! The other ends of virtual functions on the host, where the host says what passes in the switch of their card.
//!
//! A card in `switchdev` mode has an interface of the host for each of its functions, its representor: what the
//! function sends comes out there as long as the card was not told better, and what is sent there comes to the
//! function. Both the card's own interface and these name the switch they are ports of (`phys_switch_id`), and
//! which port they are (`phys_port_name`): `p0` is a wire, `pf0vf3` the function 3 of the card's PCI function 0,
//! and where the card sits in another machine that one's number is before it (`c1pf0vf3`).

use std::collections::BTreeMap;

use super::{ObserveFault, Tree, devices::Pci};

const NET: &str = "sys/class/net";

/// A port of a card's switch that is a virtual function's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// The PCI function of the card.
    card: u32,
    /// The virtual function of that.
    number: u32,
}

/// Which function's other end an interface is; none when it is none's.
pub(super) fn port(tree: &Tree, interface: &str) -> Option<Port> {
    let name = tree.text(&format!("{NET}/{interface}/phys_port_name")).ok().flatten()?;
    read_port(&name)
}

fn read_port(name: &str) -> Option<Port> {
    let (card, number) = name.strip_prefix("pf")?.split_once("vf")?;
    Some(Port { card: card.parse().ok()?, number: number.parse().ok()? })
}

/// The switch that an interface is a port of; none where a card says it alone.
pub(super) fn switch(tree: &Tree, interface: &str) -> Option<String> {
    // A card whose switch is as it is by itself answers that it can say nothing.
    let id = tree.text(&format!("{NET}/{interface}/phys_switch_id")).ok().flatten()?;
    Some(id).filter(|id| !id.is_empty())
}

/// The other ends of all functions, by the function's address.
pub(super) fn read(
    tree: &Tree,
    pci: &BTreeMap<String, Pci>,
) -> Result<BTreeMap<String, String>, ObserveFault> {
    let mut found = BTreeMap::new();
    // Few hosts have any, and all have many interfaces.
    if pci.values().all(|card| card.switch.is_none()) {
        return Ok(found);
    }
    for interface in tree.names(NET)? {
        let Some(port) = port(tree, &interface) else { continue };
        let Some(switch) = switch(tree, &interface) else { continue };
        let device = tree.link(&format!("{NET}/{interface}/device"));
        let is_of = |(address, card): &(&String, &Pci)| {
            // Two cards in one share their switch when they are bonded.
            let is_named = device.as_ref() == Some(*address);
            let is_numbered = address.ends_with(&format!(".{:x}", port.card));
            card.switch.as_ref() == Some(&switch) && (is_named || is_numbered)
        };
        let card = pci.iter().find(is_of).and_then(|(_, card)| card.functions.as_ref());
        let function = card.and_then(|card| card.addresses.get(port.number as usize));
        if let Some(function) = function {
            found.insert(function.clone(), interface);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_function_s_of_this_machine_or_something_else() {
        assert_eq!(read_port("pf0vf3"), Some(Port { card: 0, number: 3 }));
        assert_eq!(read_port("pf1vf12"), Some(Port { card: 1, number: 12 }));
        // A wire, a card itself, a part of one, a function of another machine.
        for other in ["p0", "pf0", "pf0sf88", "c1pf0vf3", "pf0vf", "pfvf1", ""] {
            assert_eq!(read_port(other), None, "{other}");
        }
    }
}
