//! Which devices a server gets: the nearest to its cells first, and of those the ones that take the fewest others
//! with them.
//!
//! What hangs on a USB controller goes where that goes. So of those who ask for both kinds each gets a device that
//! hangs on nothing else it gets; controllers are chosen that fewest of the others hang on.

use std::collections::BTreeSet;

use super::{
    cells::distance_to,
    facts::{Device, HostFacts},
    host::Host,
    reason::Reason,
    request::{DeviceAsk, Request},
};

/// What placement calls a USB device.
pub(super) const USB: &str = "usb";

/// Whether a request asks for devices of a host that may hang on others it asks for.
pub(super) fn is_mixed(facts: &HostFacts, request: &Request) -> bool {
    let of_usb = |ask: &DeviceAsk| ask.kind == USB;
    request.devices.iter().any(of_usb)
        && !request.devices.iter().all(of_usb)
        && facts.devices.iter().any(|device| device.controller.is_some())
}

/// The devices that a request gets, each with what it was asked for by; `places` are those of its cells.
///
/// # Errors
/// Enough of each sort are free, and what USB devices hang on is what the rest of it gets.
pub(super) fn choose<'a>(
    host: &'a Host,
    request: &'a Request,
    places: &[usize],
) -> Result<Vec<(&'a Device, &'a DeviceAsk)>, Reason> {
    let facts = host.facts();
    let free = host.used().free_devices(facts);
    let group_size = |group: Option<u32>| {
        let of = |device: &&Device| group.is_some() && device.iommu_group == group;
        facts.devices.iter().filter(of).count()
    };
    let is_mixed = is_mixed(facts, request);
    let mut order: Vec<usize> = (0..facts.devices.len()).filter(|at| free[*at]).collect();
    order.sort_by_cached_key(|at| {
        let device = &facts.devices[*at];
        let cell = device.cell.and_then(|cell| facts.cell(cell));
        // Whether all of it is there does not hang on where its cells are.
        let distance = if is_mixed { 0 } else { distance_to(facts, cell, places) };
        (distance, group_size(device.iommu_group), *at)
    });
    let mut chosen: Vec<(&Device, &DeviceAsk)> = Vec::new();
    let asks = || DeviceAsk::narrowest_first(&request.devices);
    let others = asks().filter(|ask| ask.kind != USB);
    for ask in others.flat_map(|ask| std::iter::repeat_n(ask, ask.count as usize)) {
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
    let (mut asked, mut left) = (0, 0);
    for ask in asks().filter(|ask| ask.kind == USB) {
        asked += ask.count;
        for _ in 0..ask.count {
            if let Some(found) = order.iter().position(|at| ask.fits(&facts.devices[*at])) {
                chosen.push((&facts.devices[order.remove(found)], ask));
                left += 1;
            }
        }
    }
    if left < asked { Err(Reason::UsbDevices { asked, left }) } else { Ok(chosen) }
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

/// The devices that whoever has these has with them, of their IOMMU groups.
pub(super) fn with<'a>(host: &'a Host, chosen: &[(&Device, &DeviceAsk)]) -> BTreeSet<&'a str> {
    let groups: BTreeSet<u32> = chosen.iter().filter_map(|(one, _)| one.iommu_group).collect();
    let with = host.of_groups(&groups);
    with.filter(|id| chosen.iter().all(|(one, _)| one.id != *id)).collect()
}
