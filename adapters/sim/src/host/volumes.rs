//! Volumes that several hosts in memory reach: which of them have one active, on which lease.
//!
//! Nothing here keeps two hosts from having one active that may not: it is counted. What is written on a
//! volume is its latest lease, and whoever comes with an older one is refused, as on a real one.

use std::collections::{BTreeMap, BTreeSet};

use commands::ports::{DriverFault, HostTask};
use domain::compute::{
    disk,
    placement::{HostId, ServerId},
    server::home::Home,
    storage::lease::{Lease, Mode},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{SimHost, SimHosts};

/// The volumes of all hosts.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Volumes {
    /// By host and disk: for whose sake it is active, and how.
    active: BTreeMap<Uuid, BTreeMap<Uuid, (Uuid, Lease)>>,
    /// The epoch that is written on each.
    written: BTreeMap<Uuid, u64>,
    /// What must never be.
    violations: Vec<String>,
}

impl Volumes {
    fn activate(
        &mut self,
        host: Uuid,
        disk: Uuid,
        whose: Uuid,
        lease: Lease,
    ) -> Result<(), DriverFault> {
        let written = self.written.entry(disk).or_default();
        if lease.epoch < *written {
            let why = format!("the lease of disk {disk} in epoch {} is over", lease.epoch);
            return Err(DriverFault::Rejected(why));
        }
        *written = lease.epoch;
        for (other, volumes) in self.active.iter().filter(|(other, _)| **other != host) {
            if let Some((_, has)) = volumes.get(&disk)
                && (has.mode, lease.mode) != (Mode::Shared, Mode::Shared)
            {
                let what = format!("{disk}: {host} {lease:?} beside {other} {has:?}");
                self.violations.push(what);
            }
        }
        self.active.entry(host).or_default().insert(disk, (whose, lease));
        Ok(())
    }
}

impl SimHosts {
    /// The disks that a host has active, and how.
    pub fn active(&self, host: Uuid) -> BTreeMap<Uuid, Lease> {
        let world = self.world();
        let volumes = world.volumes.active.get(&host).into_iter().flatten();
        volumes.map(|(disk, (_, lease))| (*disk, *lease)).collect()
    }

    /// Everything that was done to volumes and must never be; and servers that run on volumes which are
    /// not active where they run.
    pub fn violations(&self) -> Vec<String> {
        let world = self.world();
        let mut found = world.volumes.violations.clone();
        let known: BTreeSet<&Uuid> = world.volumes.written.keys().collect();
        for (host, servers) in &world.hosts {
            let active = world.volumes.active.get(host);
            for (id, server) in servers.iter().filter(|(_, server)| server.running) {
                let without = server.disks.keys().filter(|disk| {
                    known.contains(disk) && !active.is_some_and(|all| all.contains_key(disk))
                });
                found.extend(without.map(|disk| format!("{id} runs on {host} without {disk}")));
            }
        }
        found
    }

    /// A host loses its power: nothing runs there, and no volume is active.
    pub fn power_off(&self, host: Uuid) {
        let mut world = self.world();
        world.volumes.active.remove(&host);
        for server in world.hosts.get_mut(&host).into_iter().flat_map(BTreeMap::values_mut) {
            (server.running, server.suspended) = (false, false);
            server.disks.clear();
        }
    }
}

impl SimHost {
    /// The leased volumes of a server are active here.
    pub(super) fn activate(
        &self,
        id: Uuid,
        home: &Home,
        task: &HostTask,
    ) -> Result<(), DriverFault> {
        for disk in home.parts.disks.iter().filter(|disk| disk.leased) {
            let lease = task.leases.get(&disk.id).ok_or_else(|| {
                DriverFault::Rejected(format!("this host has no lease of disk {}", disk.id))
            })?;
            self.hosts.world().volumes.activate(self.host, disk.id, id, *lease)?;
        }
        Ok(())
    }

    /// A disk that has leases is active here, for its server.
    pub(super) fn activate_disk(&self, home: &disk::Home) -> Result<(), DriverFault> {
        let Some(leases) = &home.leases else { return Ok(()) };
        let lease = leases.of(HostId::new(self.host)).ok_or_else(|| {
            DriverFault::Rejected(format!("this host has no lease of disk {}", home.id))
        })?;
        let whose = home.server.map_or(home.id, ServerId::uuid);
        self.hosts.world().volumes.activate(self.host, home.id, whose, lease)
    }

    /// Does something with what a disk has, or has beside it, which this host alone may: it is active for that
    /// long, where it has leases and is not active.
    pub(super) fn alone<T>(
        &self,
        disk: Uuid,
        whose: Uuid,
        task: &HostTask,
        act: impl FnOnce() -> Result<T, DriverFault>,
    ) -> Result<T, DriverFault> {
        let mut world = self.hosts.world();
        let Some(written) = world.volumes.written.get(&disk).copied() else {
            drop(world);
            return act();
        };
        let lease = task.leases.get(&disk).filter(|lease| lease.mode == Mode::Exclusive);
        let lease = lease.filter(|lease| lease.epoch >= written).ok_or_else(|| {
            DriverFault::Rejected(format!("this host has no lease of disk {disk} for itself"))
        })?;
        let active = world.volumes.active.get(&self.host);
        let rests = !active.is_some_and(|all| all.contains_key(&disk));
        if rests {
            world.volumes.activate(self.host, disk, whose, *lease)?;
        }
        drop(world);
        let done = act();
        if rests {
            self.deactivate_disk(disk);
        }
        done
    }

    /// Nothing of a server is active here any more.
    pub(super) fn deactivate(&self, id: Uuid) {
        if let Some(volumes) = self.hosts.world().volumes.active.get_mut(&self.host) {
            volumes.retain(|_, (whose, _)| *whose != id);
        }
    }

    /// A disk is not active here any more.
    pub(super) fn deactivate_disk(&self, disk: Uuid) {
        if let Some(volumes) = self.hosts.world().volumes.active.get_mut(&self.host) {
            volumes.remove(&disk);
        }
    }
}
