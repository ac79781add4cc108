//! The devices of a host, each with what has become of it: free, reserved, attached or lost.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    host::Host,
    placement::{Availability, Device, DeviceProfile, ServerId},
};

/// What has become of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// A server has it, whether or not it runs.
    Attached,
    /// It can be given.
    Free,
    /// The last look did not find it. Who has it has it still.
    Lost,
    /// It is not given: the host keeps it, or the host or a server has something that goes with it: of its IOMMU
    /// group, or a USB controller and what hangs on it.
    Reserved,
}

/// A device of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceUse {
    /// What it is.
    #[serde(flatten)]
    pub device: Device,
    /// What has become of it.
    pub state: DeviceState,
    /// Who has it, or has what goes with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerId>,
}

/// How many there are of a sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceCount {
    /// What, for instance `vgpu`.
    pub kind: String,
    /// Which one.
    pub model: String,
    /// What part of a card it is, where its driver says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<DeviceProfile>,
    /// How many servers have.
    pub attached: u32,
    /// How many are left.
    pub free: u32,
    /// How many were not found.
    pub lost: u32,
    /// How many are not given.
    pub reserved: u32,
}

/// The devices that were last seen of a host, by id.
pub fn devices(host: &Host) -> Vec<DeviceUse> {
    let mut holders: BTreeMap<&str, (ServerId, bool)> = BTreeMap::new();
    for (server, holding) in &host.holdings {
        let with = holding.devices_with.iter().map(|id| (id, false));
        for (id, is_own) in with.chain(holding.devices.iter().map(|id| (id, true))) {
            holders.insert(id, (*server, is_own));
        }
    }
    let all = host.seen.iter().flat_map(|seen| &seen.devices);
    let kept: Vec<u32> = all
        .clone()
        .filter(|device| device.availability == Availability::Reserved)
        .filter_map(|device| device.iommu_group)
        .collect();
    let hanging: Vec<&Device> = all.clone().filter(|device| device.controller.is_some()).collect();
    let of = |device: &Device| {
        // Who has a controller has what hangs on it, and the other way round nobody else gets it.
        let controller = device.controller.as_deref().and_then(|id| holders.get(id));
        let on = hanging.iter().filter(|one| one.controller.as_ref() == Some(&device.id));
        let with = controller.or_else(|| on.clone().find_map(|one| holders.get(&*one.id)));
        let with = with.map(|(server, _)| (*server, false));
        let holder = holders.get(&*device.id).copied().or(with);
        let is_kept = device.iommu_group.is_some_and(|group| kept.contains(&group))
            || on.clone().any(|one| one.availability == Availability::Reserved);
        let state = match (device.availability, holder) {
            (Availability::Lost, _) => DeviceState::Lost,
            (_, Some((_, true))) => DeviceState::Attached,
            (Availability::Reserved, _) | (_, Some(_)) => DeviceState::Reserved,
            (Availability::Free, None) if is_kept => DeviceState::Reserved,
            (Availability::Free, None) => DeviceState::Free,
        };
        let server = holder.map(|(server, _)| server);
        DeviceUse { device: device.clone(), state, server }
    };
    all.map(of).collect()
}

/// How many there are of each sort, by kind and model.
pub fn counts(devices: &[DeviceUse]) -> Vec<DeviceCount> {
    let mut counts: BTreeMap<(&str, &str), DeviceCount> = BTreeMap::new();
    for one in devices {
        let Device { kind, model, profile, .. } = &one.device;
        let count = counts.entry((kind, model)).or_insert_with(|| DeviceCount {
            kind: kind.clone(),
            model: model.clone(),
            profile: profile.clone(),
            attached: 0,
            free: 0,
            lost: 0,
            reserved: 0,
        });
        *match one.state {
            DeviceState::Attached => &mut count.attached,
            DeviceState::Free => &mut count.free,
            DeviceState::Lost => &mut count.lost,
            DeviceState::Reserved => &mut count.reserved,
        } += 1;
    }
    counts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    /// A host with a device of each state.
    fn host() -> Host {
        let device = |id: &str, model: &str, group: Option<u32>, availability: &str| {
            json!({"id": id, "kind": "vgpu", "model": model, "iommu_group": group,
                "availability": availability})
        };
        let server = ServerId::new(Uuid::from_u128(7));
        let holding = json!({
            "server": server, "vcpus": 1, "memory_mib": 64, "devices": ["a", "gone"],
            "devices_with": ["b"],
        });
        let seen = json!({
            "architecture": "x86_64", "virtualisation": "test", "labels": [], "cells": [],
            "devices": [
                device("a", "x", Some(1), "free"),
                device("b", "y", Some(1), "free"),
                device("c", "x", None, "free"),
                device("d", "x", Some(2), "free"),
                device("e", "y", Some(2), "reserved"),
                device("gone", "x", None, "lost"),
            ],
        });
        Host {
            seen: Some(serde_json::from_value(seen).unwrap()),
            holdings: [(server, serde_json::from_value(holding).unwrap())].into(),
            ..Host::default()
        }
    }

    #[test]
    fn a_controller_and_what_hangs_on_it_have_one_holder() {
        let mut host = host();
        let usb = |id: &str, controller: &str, availability: &str| {
            serde_json::from_value(json!({"id": id, "kind": "usb", "model": "m",
                "controller": controller, "availability": availability}))
            .unwrap()
        };
        let pci = |id: &str| {
            serde_json::from_value(json!({"id": id, "kind": "usb-controller", "model": "c"}))
                .unwrap()
        };
        let seen = host.seen.as_mut().unwrap();
        seen.devices = vec![
            pci("a"),
            pci("p"),
            pci("q"),
            usb("usb:1", "a", "free"),
            usb("usb:2", "p", "free"),
            usb("usb:3", "p", "free"),
            usb("usb:4", "q", "reserved"),
        ];
        let server = ServerId::new(Uuid::from_u128(7));
        host.holdings.get_mut(&server).unwrap().devices.insert("usb:2".to_owned());
        let devices = devices(&host);
        let states: Vec<_> =
            devices.iter().map(|one| (&*one.device.id, one.state, one.server)).collect();
        let expected = [
            ("a", DeviceState::Attached, Some(server)),
            ("p", DeviceState::Reserved, Some(server)),
            ("q", DeviceState::Reserved, None),
            ("usb:1", DeviceState::Reserved, Some(server)),
            ("usb:2", DeviceState::Attached, Some(server)),
            ("usb:3", DeviceState::Free, None),
            ("usb:4", DeviceState::Reserved, None),
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn every_device_has_one_state_and_who_has_it() {
        let devices = devices(&host());
        let server = Some(ServerId::new(Uuid::from_u128(7)));
        let states: Vec<_> =
            devices.iter().map(|one| (&*one.device.id, one.state, one.server)).collect();
        let expected = [
            ("a", DeviceState::Attached, server),
            ("b", DeviceState::Reserved, server),
            ("c", DeviceState::Free, None),
            ("d", DeviceState::Reserved, None),
            ("e", DeviceState::Reserved, None),
            ("gone", DeviceState::Lost, server),
        ];
        assert_eq!(states, expected);
        let counts = counts(&devices);
        let counts: Vec<_> = counts
            .iter()
            .map(|one| (&*one.model, one.attached, one.free, one.lost, one.reserved))
            .collect();
        assert_eq!(counts, [("x", 1, 1, 1, 1), ("y", 0, 0, 0, 2)]);
    }
}
