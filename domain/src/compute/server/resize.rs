//! A server with other processors and another memory, on the host where it has its place.
//!
//! While the order is out its host keeps for it what the old and the new place take together, so that
//! it can be carried out as well as given up: what is kept afterwards is part of what was kept before,
//! and is never refused.

use super::{
    Event, Order, Power, Server,
    home::{Home, Launch},
};
use crate::{
    compute::placement::{Holding, Placement, Request},
    kernel::{Decider, Refusal, codes},
};

impl Home {
    /// What is asked of its host for it with so many processors and so much memory. Where it goes is not
    /// asked again: it stays.
    pub fn request(&self, vcpus: u32, memory_mib: u64) -> Request {
        let mut launch = Launch::of(&self.name, self.spec.clone());
        (launch.spec.vcpus, launch.spec.memory_mib) = (vcpus, memory_mib);
        launch.wishes.affinities.clone_from(&self.wishes.affinities);
        launch.wishes.fill = self.wishes.fill;
        launch.request(self.placement.holding.server)
    }
}

impl Server {
    /// Whether it can have another size now, and which: nothing when it is of that size.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud, `wrong-state` for one that is not stopped,
    /// `order-outstanding` and `order-parked`.
    pub fn resizable(
        &self,
        vcpus: Option<u32>,
        memory_mib: Option<u64>,
    ) -> Result<Option<(u32, u64)>, Refusal> {
        let spec = &self.ours("resize")?.spec;
        match self.free("resize")?.power {
            Power::Stopped => {}
            Power::Running => {
                let detail = "it runs, and was started with no room for more: stop it first";
                return Err(Refusal::new(&codes::WRONG_STATE, detail));
            }
            _ => return Err(Refusal::wrong_state("resize", self.status())),
        }
        let size = (vcpus.unwrap_or(spec.vcpus), memory_mib.unwrap_or(spec.memory_mib));
        Ok((size != (spec.vcpus, spec.memory_mib)).then_some(size))
    }

    pub(super) fn resize(
        &self,
        vcpus: Option<u32>,
        memory_mib: Option<u64>,
        placement: Option<Box<Placement>>,
    ) -> Result<Vec<Event>, Refusal> {
        let Some((vcpus, memory_mib)) = self.resizable(vcpus, memory_mib)? else {
            return Ok(vec![]);
        };
        let home = self.ours("resize")?;
        home.request(vcpus, memory_mib).check()?;
        let placement = placement
            .ok_or_else(|| Refusal::new(&codes::NO_ROOM, "placement: no place was looked for"))?;
        let (own, new) = (&home.placement, &placement.holding);
        let same = own.host == placement.host && own.holding.server == new.server;
        if !same || (vcpus, memory_mib) != (new.vcpus, new.memory_mib) {
            let detail = "placement: it is of another server";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(vec![Event::ResizeOrdered { vcpus, memory_mib, placement }])
    }

    /// What its host is to keep for it after this fact, if that changes.
    pub(super) fn kept_after(&self, event: &Event) -> Option<Holding> {
        let home = self.home.as_ref()?;
        let out = self.orders.out.as_ref().map(|out| &out.order);
        match (event, out) {
            (Event::ResizeOrdered { placement, .. }, _) => {
                Some(home.placement.holding.cover(&placement.holding))
            }
            (Event::Confirmed { .. }, Some(Order::Resize { placement, .. })) => {
                Some(placement.holding.clone())
            }
            (Event::Abandoned {}, Some(Order::Resize { .. })) => {
                Some(home.placement.holding.clone())
            }
            _ => None,
        }
    }
}
