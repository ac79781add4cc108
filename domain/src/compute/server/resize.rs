//! A server with other processors and another memory, on the host where it has its place.
//!
//! While the order is out its host keeps for it what the old and the new place take together, so that
//! it can be carried out as well as given up: what is kept afterwards is part of what was kept before,
//! and is never refused.
//!
//! One that runs can grow, and nothing else, as far as it was launched with room for: its machine has
//! places for more processors and more memory from its start. It must run anywhere on its host then, for a
//! cell, a page or a processor of its own is not added to a guest that runs.

use serde_json::json;
use uuid::Uuid;

use super::{
    Event, Machine, Order, Power, Server,
    home::{Home, Launch, Spec},
};
use crate::{
    compute::placement::{Architecture, Holding, Numa, Pinning, Placement, Request},
    kernel::{Decider, Refusal, codes, fields},
};

/// Memory that is added to a server that runs comes in pieces of so much: what Linux adds at a time.
pub const PIECE_MIB: u64 = 128;
/// Most virtual CPUs of a server.
const VCPUS_MAX: u32 = 8_192;
/// Most memory that a server may grow to: 64 TiB.
const MEMORY_MAX_MIB: u64 = 64 << 20;

impl Spec {
    /// Whether it may have the room to grow that it asks for.
    ///
    /// # Errors
    /// `invalid-field`, and `unsupported` for what is bound to parts of its host.
    pub fn check_growth(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if self.vcpus_max.is_none() && self.memory_max_mib.is_none() {
            return Ok(());
        }
        if !(self.vcpus..=VCPUS_MAX).contains(&self.vcpus_max.unwrap_or(self.vcpus)) {
            return no(format!("spec.vcpus_max: is {} to {VCPUS_MAX}", self.vcpus));
        }
        let memory = self.memory_max_mib.unwrap_or(self.memory_mib);
        if !(self.memory_mib..=MEMORY_MAX_MIB).contains(&memory) {
            return no(format!("spec.memory_max_mib: is {} to {MEMORY_MAX_MIB}", self.memory_mib));
        }
        let bound = self.numa != Numa::None
            || self.pinning != Pinning::Shared
            || self.page_kib.is_some()
            || self.architecture != Architecture::X86_64;
        if bound {
            let detail = "spec: vcpus_max and memory_max_mib go with x86_64, and without numa, pinning and \
                          page_kib";
            return Err(Refusal::new(&codes::UNSUPPORTED, detail));
        }
        Ok(())
    }

    /// Whether a server that runs can be of this size without a restart.
    fn ensure_grows(&self, vcpus: u32, memory_mib: u64) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::WRONG_STATE, detail));
        if vcpus < self.vcpus || memory_mib < self.memory_mib {
            return no("it runs, and nothing is taken from it: stop it first".to_owned());
        }
        for (is, wanted, room, name) in [
            (u64::from(self.vcpus), u64::from(vcpus), self.vcpus_max.map(u64::from), "vcpus"),
            (self.memory_mib, memory_mib, self.memory_max_mib, "memory_mib"),
        ] {
            let room = room.unwrap_or(is).max(is);
            if wanted > room {
                let detail = format!(
                    "{name}: it runs, and was started with room for {room}: stop it first, and launch it \
                     with more room the next time"
                );
                return no(detail);
            }
        }
        if !(memory_mib - self.memory_mib).is_multiple_of(PIECE_MIB) {
            let detail = format!(
                "memory_mib: a server that runs gets pieces of {PIECE_MIB} MiB: {} or {}",
                memory_mib - (memory_mib - self.memory_mib) % PIECE_MIB,
                memory_mib - (memory_mib - self.memory_mib) % PIECE_MIB + PIECE_MIB,
            );
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(())
    }
}

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

    /// Whether a flavour says of everything but processors and memory what it has.
    ///
    /// # Errors
    /// `invalid-field`, with what is different.
    pub fn ensure_resizes_to(&self, flavour: &Spec) -> Result<(), Refusal> {
        let mut own = self.spec.clone();
        // Those of its interfaces are no part of what was asked for.
        for function in self.parts.functions() {
            if let Some(at) = own.devices.iter().position(|ask| *ask == function) {
                own.devices.remove(at);
            }
        }
        (own.vcpus, own.memory_mib) = (flavour.vcpus, flavour.memory_mib);
        let differs: Vec<String> =
            fields(&json!(flavour), &json!(own)).into_iter().map(|one| one.field).collect();
        if differs.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "flavour: is another machine by {}, and a resize changes processors and memory alone",
            differs.join(", ")
        );
        Err(Refusal::new(&codes::INVALID_FIELD, detail))
    }
}

impl Event {
    /// What it says is there of the server, if it says that.
    pub(super) fn brings(&self) -> Option<&Machine> {
        match self {
            Self::AddressesKept { seen, .. }
            | Self::Confirmed { seen, .. }
            | Self::Discovered { seen, .. }
            | Self::MigrationFailed { seen, .. }
            | Self::Observed { seen, .. }
            | Self::Reappeared { seen } => Some(seen),
            _ => None,
        }
    }
}

impl Server {
    /// Whether it can have another size now, and which: nothing when it is of that size.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud; `wrong-state` for one that is not stopped, unless it runs
    /// and has room for what is added, `invalid-field` where that is no whole number of pieces;
    /// `order-outstanding` and `order-parked`.
    pub fn resizable(
        &self,
        vcpus: Option<u32>,
        memory_mib: Option<u64>,
    ) -> Result<Option<(u32, u64)>, Refusal> {
        let home = self.ours("resize")?;
        let spec = &home.spec;
        let size = (vcpus.unwrap_or(spec.vcpus), memory_mib.unwrap_or(spec.memory_mib));
        match self.free("resize")?.power {
            Power::Stopped => {}
            Power::Running if home.rescue.is_none() => spec.ensure_grows(size.0, size.1)?,
            _ => return Err(Refusal::wrong_state("resize", self.status())),
        }
        Ok((size != (spec.vcpus, spec.memory_mib)).then_some(size))
    }

    pub(super) fn resize(
        &self,
        vcpus: Option<u32>,
        memory_mib: Option<u64>,
        flavour: Option<Uuid>,
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
        Ok(vec![Event::ResizeOrdered { vcpus, memory_mib, flavour, placement }])
    }

    /// Whether it runs, and is to become larger.
    pub(super) fn is_growing(&self) -> bool {
        let out = self.orders.out.as_ref().map(|out| &out.order);
        let runs = self.observation.seen.as_ref().is_some_and(|is| is.power == Power::Running);
        runs && matches!(out, Some(Order::Resize { .. }))
    }

    /// What its host is to keep for it after this fact, if that changes: said whenever [`Server::see`]
    /// forgets that it may have grown.
    pub(super) fn kept_after(&self, event: &Event) -> Option<Holding> {
        let home = self.home.as_ref()?;
        let out = self.orders.out.as_ref().map(|out| &out.order);
        match (event, out) {
            (
                Event::DevicesOrdered { placement, .. } | Event::ResizeOrdered { placement, .. },
                _,
            ) => Some(home.placement.holding.cover(&placement.holding)),
            (
                Event::Confirmed { .. },
                Some(Order::ChangeDevices { placement, .. } | Order::Resize { placement, .. }),
            ) => Some(placement.holding.clone()),
            // Some of it may have been added.
            (Event::Abandoned {}, Some(Order::Resize { .. })) if self.is_growing() => None,
            (Event::Abandoned {}, Some(Order::ChangeDevices { .. } | Order::Resize { .. })) => {
                Some(home.placement.holding.clone())
            }
            // It stands still, so nothing of what may have been added is there any more.
            _ if home.may_have_grown
                && event.brings().is_some_and(|seen| seen.power == Power::Stopped) =>
            {
                Some(home.placement.holding.clone())
            }
            _ => None,
        }
    }
}
