//! Servers that go from one host in memory to another.

use std::collections::{BTreeMap, BTreeSet};

use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::{
    host,
    server::{
        carried::Used,
        home::{Home, PROVIDER},
        migrate::{Landing, MigrationStep},
        parts::Nic,
    },
};
use serde_json::json;
use uuid::Uuid;

use super::{HostFault, HostStep, SimHost, SimServer, World, of_nics};

/// What became of a step of a server's way.
fn step_report(number: u64, step: &MigrationStep) -> Report {
    Report { verb: "confirm-migration", body: json!({"number": number, "step": step}) }
}

impl SimHost {
    /// Makes ready for a server that comes from another host.
    pub(super) fn receive(
        &self,
        id: Uuid,
        home: &Home,
        task: &HostTask,
    ) -> Result<Report, DriverFault> {
        if home.moving.as_ref().is_some_and(|moving| moving.live) {
            self.activate(id, home, task)?;
        }
        let of = |world: &World| world.ready.get(&self.host).is_some_and(|all| all.contains(&id));
        self.change(HostStep::Receive, of, |world| {
            world.ready.entry(self.host).or_default().insert(id);
            let disks = world.disks.entry(self.host).or_default();
            // Empty, until what is on them is copied.
            for disk in home.parts.disks.iter().filter(|disk| disk.storage.is_none()) {
                disks.insert(disk.id, (disk.size_gib, None));
            }
        })?;
        let landing = Landing { libvirt: Some(PROVIDER.to_owned()), ..Landing::default() };
        Ok(step_report(task.key.number, &MigrationStep::Prepared { landing }))
    }

    /// Lets the host that a server goes to have its volumes as well.
    pub(super) fn share(
        &self,
        id: Uuid,
        home: &Home,
        task: &HostTask,
    ) -> Result<Report, DriverFault> {
        self.activate(id, home, task)?;
        Ok(step_report(task.key.number, &MigrationStep::Shared {}))
    }

    /// Hands a server over to the host that it goes to.
    pub(super) fn send(
        &self,
        id: Uuid,
        home: &Home,
        task: &HostTask,
    ) -> Result<Report, DriverFault> {
        let number = task.key.number;
        let report = |step| Ok(step_report(number, &step));
        let unexpected = || DriverFault::Unexpected("a server that goes nowhere".to_owned());
        let moving = home.moving.as_ref().ok_or_else(unexpected)?;
        if self.is_broken_off(id, number) {
            let reason = "it was broken off".to_owned();
            return report(MigrationStep::Stays { reason, seen: Box::new(self.seen(id, home)?) });
        }
        let to = moving.to.host.uuid();
        let local = home.local_disks();
        let copies = !local.is_empty();
        if let Some(arrived) = self.unsure() {
            let used = self.used(id, home);
            let mut world = self.hosts.world();
            if arrived {
                hand_over(&mut world, (self.host, to), id, &local);
            } else if let Some(server) = server(&mut world, self.host, id) {
                server.suspended = true;
            }
            return report(MigrationStep::Sent { certain: false, used });
        }
        let runs = |world: &World| {
            let there = world.hosts.get(&self.host).and_then(|servers| servers.get(&id));
            there.is_some_and(|server| server.running)
        };
        if moving.live || copies || runs(&self.hosts.world()) {
            let sent = self.change(
                HostStep::Send,
                |world| moving.live && !runs(world),
                |world| {
                    hand_over(world, (self.host, to), id, &local);
                    if let Some(there) = server(world, to, id) {
                        there.pins = moving.to.holding.pins.iter().map(|pin| pin.cpu).collect();
                    }
                },
            );
            if let Err(DriverFault::Rejected(reason)) = sent {
                let seen = self.seen(id, home)?;
                return report(MigrationStep::Stays { reason, seen: Box::new(seen) });
            }
            sent?;
        }
        self.deactivate(id);
        report(MigrationStep::Sent { certain: true, used: self.used(id, home) })
    }

    /// What its interfaces that are counted have used here and before.
    fn used(&self, id: Uuid, home: &Home) -> Used {
        let census = self.hosts.census(self.host);
        let Some(server) = census.get(&id) else { return Used::new() };
        let of = |nic: &Nic| {
            let known = server.nics.iter().find(|known| known.seen.mac == nic.mac)?;
            Some((nic.id, known.seen.traffic?))
        };
        home.parts.nics.iter().filter_map(of).collect()
    }

    fn is_broken_off(&self, id: Uuid, number: u64) -> bool {
        self.hosts.world().broken_off.get(&id).is_some_and(|by| *by > number)
    }

    /// Sends a server without an end, where that is the next fault: until it is broken off.
    pub(super) async fn endless(&self, id: Uuid, number: u64) {
        let is_next = {
            let mut world = self.hosts.world();
            let faults = world.faults.entry(HostStep::Send).or_default();
            let is_next = faults.first() == Some(&HostFault::Endless);
            if is_next {
                faults.remove(0);
                world.hit.push((HostStep::Send, HostFault::Endless));
            }
            is_next
        };
        let mut steps = self.hosts.steps.subscribe();
        while is_next && !self.is_broken_off(id, number) && steps.changed().await.is_ok() {}
    }

    /// Breaks off a server's being sent, and says where it is.
    pub(super) fn break_off(
        &self,
        id: Uuid,
        home: &Home,
        task: &HostTask,
    ) -> Result<Report, DriverFault> {
        let number = task.key.number;
        self.change(
            HostStep::BreakOff,
            |world| world.broken_off.get(&id) == Some(&number),
            |world| {
                world.broken_off.insert(id, number);
            },
        )?;
        self.hosts.steps.send_modify(|count| *count += 1);
        let live = home.moving.as_ref().is_some_and(|moving| moving.live);
        let runs = self.hosts.census(self.host).get(&id).is_some_and(|server| server.running);
        let step = if live && !runs {
            self.deactivate(id);
            MigrationStep::Sent { certain: true, used: self.used(id, home) }
        } else {
            let reason = "it was broken off".to_owned();
            MigrationStep::Stays { reason, seen: Box::new(self.seen(id, home)?) }
        };
        Ok(step_report(number, &step))
    }

    fn unsure(&self) -> Option<bool> {
        let mut world = self.hosts.world();
        let faults = world.faults.get_mut(&HostStep::Send)?;
        let Some(HostFault::Unsure { arrived }) = faults.first().cloned() else { return None };
        faults.remove(0);
        world.hit.push((HostStep::Send, HostFault::Unsure { arrived }));
        Some(arrived)
    }

    /// Has a server that was sent here, or whose host is dead; says so, or that it is lost.
    pub(super) fn arrive(
        &self,
        id: Uuid,
        (start, certain): (bool, bool),
        home: &Home,
        task: &HostTask,
    ) -> Result<Option<Report>, DriverFault> {
        let census = self.hosts.census(self.host);
        let runs = census.get(&id).is_some_and(|server| server.running);
        if !runs && !certain {
            return Ok(Some(step_report(task.key.number, &MigrationStep::Lost {})));
        }
        let fresh = Self::fresh(home, task)?;
        self.step(
            HostStep::Define,
            |servers| servers.contains_key(&id),
            |servers| drop(servers.insert(id, fresh)),
        )?;
        if start {
            self.start(id, home)?;
        }
        // What it has used elsewhere is known by now.
        if let Some(server) = server(&mut self.hosts.world(), self.host, id) {
            server.nics = of_nics(home.parts.nics.iter(), home, &server.nics);
        }
        Ok(None)
    }

    /// Leaves nothing of a server that is elsewhere; its disks go on lying where they are shared.
    pub(super) fn clear(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let order: host::Order = serde_json::from_value(task.order.clone())
            .map_err(|fault| DriverFault::Unexpected(fault.to_string()))?;
        let host::Order::Clear { server, disks, .. } = order;
        let id = server.uuid();
        self.stop(id)?;
        self.step(
            HostStep::Undefine,
            |servers| !servers.contains_key(&id),
            |servers| drop(servers.remove(&id)),
        )?;
        self.deactivate(id);
        if let Some(ready) = self.hosts.world().ready.get_mut(&self.host) {
            ready.remove(&id);
        }
        let left = |world: &World| {
            let has = world.disks.get(&self.host);
            has.is_some_and(|has| disks.iter().any(|disk| has.contains_key(disk)))
        };
        self.change(
            HostStep::Discard,
            |world| !left(world),
            |world| {
                let has = world.disks.entry(self.host).or_default();
                has.retain(|disk, _| !disks.contains(disk));
            },
        )?;
        let number = task.key.number;
        Ok(Report { verb: "confirm-clearing", body: json!({"number": number}) })
    }
}

fn server(world: &mut World, host: Uuid, id: Uuid) -> Option<&mut SimServer> {
    world.hosts.get_mut(&host)?.get_mut(&id)
}

fn hand_over(world: &mut World, (from, to): (Uuid, Uuid), id: Uuid, disks: &BTreeSet<Uuid>) {
    for disk in disks {
        if let Some(copy) = world.disks.get(&from).and_then(|has| has.get(disk)).cloned() {
            world.disks.entry(to).or_default().insert(*disk, copy);
        }
    }
    let Some(here) = server(world, from, id) else { return };
    // What does not run is made known there when it arrives.
    if !here.running {
        return;
    }
    let there = here.clone();
    (here.running, here.suspended) = (false, false);
    here.disks = BTreeMap::new();
    world.hosts.entry(to).or_default().insert(id, there);
}
