//! Other devices of its host for a server of ours that is there and stopped.
//!
//! What is asked for is reserved by the append that orders it, so a device is never given twice; while the order
//! is out its host keeps for it what it had and what it will have. What was made or set for it of a device that
//! it loses is taken back by its host then, and what it gets is made ready when it is started. Nothing is taken
//! from a guest that runs, and nothing is given to one: not every guest takes it, and not every card lets go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Event, Power, Server, home::Home};
use crate::{
    compute::placement::{Device, DeviceAsk, Holding, Placement, Request},
    kernel::{Refusal, codes},
};

/// What was found of a server that is to have other devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FoundDevices")]
pub struct Found {
    /// All that is asked for then.
    pub devices: Vec<DeviceAsk>,
    /// What it takes of its host then.
    pub placement: Box<Placement>,
}

fn no(detail: String) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

fn many(asks: &[DeviceAsk]) -> u32 {
    asks.iter().map(|ask| ask.count).sum()
}

impl Home {
    /// What is asked for with one more sort of devices.
    fn asks_with(&self, asked: &DeviceAsk) -> Vec<DeviceAsk> {
        let mut asks = self.spec.devices.clone();
        let same = asks.iter_mut().find(|ask| {
            ask.kind == asked.kind && ask.is_of(asked) && ask.function == asked.function
        });
        match same {
            Some(ask) => ask.count = ask.count.saturating_add(asked.count),
            None => asks.push(asked.clone()),
        }
        asks
    }

    /// What is asked for without a device that it has: of the entries that this one would do for, that which
    /// leaves the least choice is for one less.
    pub fn asks_without(&self, device: &Device) -> Vec<DeviceAsk> {
        let function = self.placement.holding.functions.get(&device.id);
        let is_for = |ask: &DeviceAsk| match (ask.function, function) {
            (Some(asked), Some(is)) => {
                asked.mac.is_none_or(|mac| is.mac == Some(mac))
                    && (asked.vlan, asked.egress_mbit_s) == (is.vlan, is.egress_mbit_s)
            }
            (None, None) => true,
            _ => false,
        };
        let mut asks = self.spec.devices.clone();
        let fitting = asks.iter_mut().filter(|ask| ask.fits(device) && is_for(ask));
        let is_named = |ask: &DeviceAsk| ask.function.is_some_and(|one| one.mac.is_some());
        if let Some(ask) = fitting.max_by_key(|ask| (is_named(ask), ask.narrowness())) {
            ask.count = ask.count.saturating_sub(1);
        }
        asks.retain(|ask| ask.count > 0);
        asks
    }

    /// What is asked of its host for it with these devices and no others.
    fn request_with(&self, devices: Vec<DeviceAsk>) -> Request {
        Request { devices, ..self.request(self.spec.vcpus, self.spec.memory_mib) }
    }
}

impl Server {
    fn check_devices(&self, verb: &str) -> Result<&Home, Refusal> {
        let home = self.ours(verb)?;
        if self.free(verb)?.power == Power::Stopped {
            return Ok(home);
        }
        let detail = format!("{verb}: devices come and go while it is stopped: stop it first");
        Err(Refusal::new(&codes::WRONG_STATE, detail))
    }

    /// What is asked for of its host when it is to have these as well.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud, one that was adopted, and what comes with an interface;
    /// `wrong-state` for one that is not stopped; `order-outstanding` and `order-parked`; `invalid-field`.
    pub fn asks_with(&self, asked: &DeviceAsk) -> Result<Vec<DeviceAsk>, Refusal> {
        let home = self.check_devices("add-device")?;
        if asked.carrier.is_some() || asked.represented {
            let detail = "add-device: a function on a bridge's wire is an interface (vnic_type direct), and \
                          comes with the launch";
            return Err(Refusal::new(&codes::UNSUPPORTED, detail));
        }
        let asks = home.asks_with(asked);
        home.request_with(asks.clone()).check()?;
        Ok(asks)
    }

    /// Whether it can lose this device.
    ///
    /// # Errors
    /// As [`Self::asks_with`].
    pub fn check_removal_of(&self, device: &str) -> Result<(), Refusal> {
        let home = self.check_devices("remove-device")?;
        let holding = &home.placement.holding;
        if !holding.devices.contains(device) {
            return Err(no(format!("device: it has no {device}")));
        }
        let mac = holding.functions.get(device).and_then(|function| function.mac);
        let nic = home.parts.nics.iter().find(|nic| nic.is_direct() && Some(nic.mac) == mac);
        nic.map_or(Ok(()), |nic| nic.ensure_normal("remove-device"))
    }

    pub(super) fn add_device(
        &self,
        asked: &DeviceAsk,
        found: Option<Box<Found>>,
    ) -> Result<Vec<Event>, Refusal> {
        let asks = self.asks_with(asked)?;
        let home = self.ours("add-device")?;
        let found = looked_for(found)?;
        let holding = &found.placement.holding;
        let had = &home.placement.holding.devices;
        let count = had.len() + asked.count as usize;
        if found.devices != asks
            || !had.is_subset(&holding.devices)
            || holding.devices.len() != count
        {
            return Err(no("found: it is for other devices".to_owned()));
        }
        home.change_devices(found)
    }

    pub(super) fn remove_device(
        &self,
        device: &str,
        found: Option<Box<Found>>,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_removal_of(device)?;
        let home = self.ours("remove-device")?;
        let found = looked_for(found)?;
        let mut left = home.placement.holding.devices.clone();
        left.remove(device);
        let less = many(&home.spec.devices).checked_sub(many(&found.devices));
        // What nobody knows any more is asked for by no entry.
        if found.placement.holding.devices != left || less.is_none_or(|less| less > 1) {
            return Err(no("found: it is for other devices".to_owned()));
        }
        home.change_devices(found)
    }
}

fn looked_for(found: Option<Box<Found>>) -> Result<Found, Refusal> {
    let none = || Refusal::new(&codes::NO_ROOM, "found: no place was looked for");
    found.map(|found| *found).ok_or_else(none)
}

impl Home {
    fn change_devices(&self, found: Found) -> Result<Vec<Event>, Refusal> {
        let (own, new) = (&self.placement, &found.placement);
        // All else of its place stays as it is.
        let rest = |holding: &Holding| {
            let mut rest = holding.clone();
            rest.devices.clear();
            rest.devices_with.clear();
            rest.functions.clear();
            rest.models.clear();
            rest
        };
        if own.host != new.host || rest(&own.holding) != rest(&new.holding) {
            return Err(no("found: it is another place".to_owned()));
        }
        Ok(vec![Event::DevicesOrdered { devices: found.devices, placement: found.placement }])
    }
}

#[cfg(test)]
mod tests;
