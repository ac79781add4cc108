//! Which devices a server gets: the nearest to its cells first, and of those the ones that take the fewest others
//! with them.
//!
//! What hangs on a USB controller goes where that goes. So of those who ask for both kinds each gets a device that
//! hangs on nothing else it gets; controllers are chosen that fewest of the others hang on.

use std::{collections::BTreeSet, iter::repeat_n};

use super::{
    cells::distance_to,
    facts::{Device, HostFacts},
    holding::Holding,
    host::Host,
    reason::Reason,
    request::{DEVICES_ASKED_MAX, DeviceAsk},
};

/// What placement calls a USB device.
pub(super) const USB: &str = "usb";

/// Devices, each with what it was asked for by.
type Chosen<'a> = Vec<(&'a Device, &'a DeviceAsk)>;

/// Whether devices of a host are asked for that may hang on others that are.
pub(super) fn is_mixed(facts: &HostFacts, asks: &[DeviceAsk]) -> bool {
    let of_usb = |ask: &DeviceAsk| ask.kind == USB;
    asks.iter().any(of_usb)
        && !asks.iter().all(of_usb)
        && facts.devices.iter().any(|device| device.controller.is_some())
}

/// The devices that who asks gets, each with what it was asked for by; `places` are those of its cells.
///
/// # Errors
/// Enough of each sort are free, and what USB devices hang on is what the rest of it gets.
pub(super) fn choose<'a>(
    host: &'a Host,
    asked: &'a [DeviceAsk],
    places: &[usize],
) -> Result<Chosen<'a>, Reason> {
    let facts = host.facts();
    let free = host.used().free_devices(facts);
    choose_of(facts, &|at| free[at], asked, places)
}

/// The same of those that are open.
fn choose_of<'a>(
    facts: &'a HostFacts,
    is_open: &dyn Fn(usize) -> bool,
    asked: &'a [DeviceAsk],
    places: &[usize],
) -> Result<Chosen<'a>, Reason> {
    let group_size = |group: Option<u32>| {
        let of = |device: &&Device| group.is_some() && device.iommu_group == group;
        facts.devices.iter().filter(of).count()
    };
    let is_mixed = is_mixed(facts, asked);
    let mut order: Vec<usize> = (0..facts.devices.len()).filter(|at| is_open(*at)).collect();
    order.sort_by_cached_key(|at| {
        let device = &facts.devices[*at];
        let cell = device.cell.and_then(|cell| facts.cell(cell));
        // Whether all of it is there does not hang on where its cells are.
        let distance = if is_mixed { 0 } else { distance_to(facts, cell, places) };
        (distance, group_size(device.iommu_group), *at)
    });
    let mut chosen: Chosen<'a> = Vec::new();
    let asks = || DeviceAsk::narrowest_first(asked);
    let others = asks().filter(|ask| ask.kind != USB);
    for ask in others.flat_map(|ask| repeat_n(ask, ask.count as usize)) {
        let fitting = (0..order.len()).filter(|at| ask.fits(&facts.devices[order[*at]]));
        let found = if is_mixed {
            let lost = |at: &usize| {
                let device = &facts.devices[order[*at]];
                let usb = order.iter().map(|other| &facts.devices[*other]);
                let usb = usb.filter(|usb| hangs_on(facts, usb, [device]));
                usb.filter(|usb| asks().any(|ask| ask.fits(usb))).count()
            };
            fitting.min_by_key(lost)
        } else {
            fitting.min()
        };
        if let Some(found) = found {
            let device = &facts.devices[order.remove(found)];
            chosen.push((device, ask));
            order.retain(|at| !hangs_on(facts, &facts.devices[*at], [device]));
        }
    }
    let (mut wanted, mut left) = (0, 0);
    for ask in asks().filter(|ask| ask.kind == USB) {
        wanted += ask.count;
        for _ in 0..ask.count {
            if let Some(found) = order.iter().position(|at| ask.fits(&facts.devices[*at])) {
                chosen.push((&facts.devices[order.remove(found)], ask));
                left += 1;
            }
        }
    }
    if is_mixed && left < wanted {
        return Err(Reason::UsbDevices { asked: wanted, left });
    }
    Ok(chosen)
}

/// Whether a device hangs on one of these, or on something of their IOMMU groups.
pub(super) fn hangs_on<'a>(
    facts: &HostFacts,
    usb: &Device,
    on: impl IntoIterator<Item = &'a Device>,
) -> bool {
    let Some(controller) = &usb.controller else { return false };
    let group = facts.device(controller).and_then(|at| facts.devices[at].iommu_group);
    on.into_iter()
        .any(|device| device.id == *controller || (group.is_some() && device.iommu_group == group))
}

/// A server has these devices from now on, as well as those that it has.
pub(super) fn give(host: &Host, chosen: &[(&Device, &DeviceAsk)], holding: &mut Holding) {
    for (device, ask) in chosen {
        holding.devices.insert(device.id.clone());
        if let Some(function) = ask.function {
            // One of its own may have been taken from it, so the next number is somebody's.
            let from = holding.functions.len();
            let of = (from..).map(|number| function.of(holding.server, number));
            let is_other = |mac| holding.functions.values().all(|other| other.mac != mac);
            let function =
                of.take(DEVICES_ASKED_MAX as usize + 1).find(|function| is_other(function.mac));
            holding.functions.extend(function.map(|function| (device.id.clone(), function)));
        }
        // Its id is a place that something else may be plugged in at.
        if device.kind == USB {
            holding.models.insert(device.id.clone(), device.model.clone());
        }
    }
    with_groups(host, holding);
}

/// Whoever has devices has the rest of their IOMMU groups.
pub(super) fn with_groups(host: &Host, holding: &mut Holding) {
    let facts = host.facts();
    let own = holding.devices.iter().filter_map(|id| facts.device(id));
    let groups: BTreeSet<u32> = own.filter_map(|at| facts.devices[at].iommu_group).collect();
    let with = host.of_groups(&groups).filter(|id| !holding.devices.contains(*id));
    holding.devices_with = with.map(str::to_owned).collect();
}

/// A server that has devices of a host, all of which are free there, gets others as well.
///
/// # Errors
/// There are none, or none that go together with what it has.
pub(super) fn add(host: &Host, ask: &DeviceAsk, holding: &mut Holding) -> Result<(), Reason> {
    let facts = host.facts();
    let free = host.used().free_devices(facts);
    let own: Vec<&Device> = holding
        .devices
        .iter()
        .filter_map(|id| facts.device(id))
        .map(|at| &facts.devices[at])
        .collect();
    let is_open = |at: usize| {
        let device = &facts.devices[at];
        let hangs = || own.iter().any(|usb| hangs_on(facts, usb, [device]));
        free[at]
            && !holding.devices.contains(&device.id)
            && !hangs_on(facts, device, own.iter().copied())
            && !hangs()
    };
    let places: Vec<usize> =
        holding.cells.iter().filter_map(|cell| facts.cell(cell.cell)).collect();
    let asked = std::slice::from_ref(ask);
    let chosen = choose_of(facts, &is_open, asked, &places)?;
    if chosen.len() < ask.count as usize {
        let (kind, model) = (ask.kind.clone(), ask.model.clone());
        let (carrier, represented) = (ask.carrier.clone(), ask.represented);
        let (asked, free) = (ask.count, chosen.len() as u32);
        return Err(Reason::Devices { kind, model, carrier, represented, asked, free });
    }
    give(host, &chosen, holding);
    Ok(())
}
