//! The fleet in memory: every host with what is held of it, as the log says.
//!
//! It is kept up by reading what was appended since it was last asked, so a placement is decided on
//! everything that is in the log, never on a view that is late; and the append that takes the place
//! checks the host's revision, so that two servers in two processes never take the same one.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    compute::{
        host::{Host, HostSighting},
        placement::{DeviceAsk, Fleet, HostId, Placement, Request, Unplaced},
        storage::{GroupRoom, Grouped, StorageId},
    },
    kernel::{Decider, Refusal, State},
    log::Position,
};
use uuid::Uuid;

use crate::ledger::{Ledger, LoadFault};

/// Records read at once to keep up.
const PAGE: usize = 1_000;
/// When so many records are to be read it is quicker to ask the views.
const BEHIND_MAX: u64 = 20_000;

/// The hosts as of a position.
#[derive(Default)]
pub(crate) struct FleetCache {
    position: Position,
    hosts: BTreeMap<HostId, Host>,
    fleet: Fleet,
}

impl FleetCache {
    fn put(&mut self, id: HostId) -> Result<(), LoadFault> {
        let Some(host) = self.hosts.get(&id) else { return Ok(()) };
        let placeable = host.placeable(id).map_err(|refusal| {
            LoadFault::Missing(format!("host {id} cannot be counted with: {}", refusal.detail))
        })?;
        self.fleet.put(placeable);
        Ok(())
    }

    async fn catch_up(&mut self, ledger: &Ledger) -> Result<(), LoadFault> {
        let head = ledger.ports.log.head().await?.position;
        if head > self.position + BEHIND_MAX {
            let read = ledger.states::<Host>(None).await;
            let (states, position) =
                read.map_err(|fault| LoadFault::Missing(format!("the hosts: {fault}")))?;
            *self = Self { position, ..Self::default() };
            for (id, host) in states {
                self.hosts.insert(HostId::new(id), host);
            }
            let ids: Vec<_> = self.hosts.keys().copied().collect();
            ids.into_iter().try_for_each(|id| self.put(id))?;
        }
        while self.position < head {
            let records = ledger.ports.log.read(self.position, PAGE).await?;
            let Some(last) = records.last() else { break };
            let last = last.position();
            let mut changed = BTreeSet::new();
            for record in records.iter().filter(|record| record.kind() == Host::KIND) {
                let Ok(id) = record.id().parse().map(HostId::new) else { continue };
                let host = self.hosts.entry(id).or_default();
                let evolved = State::evolve(host, record.event_type(), record.data());
                evolved.map_err(|source| LoadFault::Record {
                    position: record.position(),
                    event_type: record.event_type().to_owned(),
                    source,
                })?;
                changed.insert(id);
            }
            changed.into_iter().try_for_each(|id| self.put(id))?;
            self.position = last;
        }
        Ok(())
    }
}

/// What a storage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// A folder that hosts have mounted.
    Folder,
    /// A volume group.
    Group(Grouped),
    /// No host has it.
    Nowhere,
}

/// No place, or a fleet that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceFault {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Load(#[from] LoadFault),
}

impl Ledger {
    /// Hosts that an agent works for and that are not known to be unreachable, with its epoch.
    pub(crate) async fn joined_hosts(&self) -> Result<Vec<(Uuid, u64)>, LoadFault> {
        let mut cache = self.fleet.lock().await;
        cache.catch_up(self).await?;
        let joined = cache.hosts.iter().filter(|(_, host)| {
            host.epoch > 0 && !host.retired && host.unreachable_since.is_none()
        });
        Ok(joined.map(|(id, host)| (id.uuid(), host.epoch)).collect())
    }

    /// Where a server goes, by everything that is in the log now.
    pub(crate) async fn place(&self, request: &Request) -> Result<Placement, PlaceFault> {
        let mut cache = self.fleet.lock().await;
        cache.catch_up(self).await?;
        Ok(cache.fleet.place(request).map_err(|unplaced: Unplaced| Refusal::from(unplaced))?)
    }

    /// What the hosts say that a storage is.
    pub(crate) async fn reached(&self, storage: StorageId) -> Result<Reached, LoadFault> {
        let mut cache = self.fleet.lock().await;
        cache.catch_up(self).await?;
        let there = cache.hosts.iter().filter(|(_, host)| !host.retired);
        let there = there.filter_map(|(id, host)| Some((id, host.seen.as_ref()?)));
        let there: Vec<_> = there.filter(|(_, seen)| seen.storages.contains(&storage)).collect();
        if there.iter().any(|(_, seen)| seen.volume_groups.contains_key(&storage)) {
            let locked = |seen: &HostSighting| {
                seen.volume_groups.get(&storage).is_some_and(|group| !group.lock.is_empty())
            };
            let rooms = there.iter().filter_map(|(_, seen)| seen.volume_groups.get(&storage));
            let room = rooms.map(GroupRoom::of).min_by_key(|room| room.free_mib(0));
            let hosts = there.into_iter().map(|(id, seen)| (*id, locked(seen))).collect();
            return Ok(Reached::Group(Grouped { hosts, room }));
        }
        Ok(if there.is_empty() { Reached::Nowhere } else { Reached::Folder })
    }

    /// The fleet as it is now, and the position that is.
    pub(crate) async fn fleet_now(&self) -> Result<(Fleet, Position), PlaceFault> {
        let mut cache = self.fleet.lock().await;
        cache.catch_up(self).await?;
        Ok((cache.fleet.clone(), cache.position))
    }

    /// The fleet as it is now, what its hosts are called, and the position that is.
    pub(crate) async fn fleet_named(
        &self,
    ) -> Result<(Fleet, BTreeMap<HostId, String>, Position), LoadFault> {
        let mut cache = self.fleet.lock().await;
        cache.catch_up(self).await?;
        let names = cache.hosts.iter().map(|(id, host)| (*id, host.name.clone())).collect();
        Ok((cache.fleet.clone(), names, cache.position))
    }

    /// The place of a server that is to have one of its devices no more, or others as well.
    pub(crate) async fn place_devices(
        &self,
        own: &Placement,
        gone: Option<&str>,
        asked: Option<&DeviceAsk>,
    ) -> Result<Placement, PlaceFault> {
        let mut cache = self.fleet.lock().await;
        cache.catch_up(self).await?;
        Ok(cache.fleet.place_devices(own, gone, asked)?)
    }

    /// Where a server goes that stays on its host and wants something else of it.
    pub(crate) async fn place_again(
        &self,
        request: &Request,
        host: HostId,
    ) -> Result<Placement, PlaceFault> {
        let mut cache = self.fleet.lock().await;
        cache.catch_up(self).await?;
        Ok(cache.fleet.place_again(request, host).map_err(Refusal::from)?)
    }
}
