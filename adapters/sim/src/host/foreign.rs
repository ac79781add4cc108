//! Machines that somebody else has on hosts in memory, and their becoming servers and being nobody's again.

use std::collections::BTreeMap;

use commands::ports::{DriverFault, Report};
use domain::compute::{
    adoption::ForeignMachine,
    server::{Power, home::Home},
};
use serde_json::json;
use uuid::Uuid;

use super::{HostStep, SimHost, SimHosts, SimServer, World, keep, of_nics};

/// Machines by host and UUID.
pub(super) type Foreign = BTreeMap<Uuid, BTreeMap<Uuid, ForeignMachine>>;

impl SimHosts {
    /// Somebody has a machine on a host from now on, as this one.
    pub fn put_machine(&self, host: Uuid, id: Uuid, machine: ForeignMachine) {
        let mut world = self.world();
        world.foreign.entry(host).or_default().insert(id, machine);
        // A file that cannot be written is told by the next order.
        drop(keep(&world));
    }

    /// The machines of others that a host has.
    pub fn machines(&self, host: Uuid) -> BTreeMap<Uuid, ForeignMachine> {
        self.world().foreign.get(&host).cloned().unwrap_or_default()
    }
}

impl SimHost {
    /// A machine is a server from now on, if it is what was looked at; it goes on running.
    pub(super) fn adopt(&self, id: Uuid, home: &Home, digest: &str) -> Result<(), DriverFault> {
        let host = self.host;
        let is_ours =
            |world: &World| world.hosts.get(&host).is_some_and(|ours| ours.contains_key(&id));
        if !is_ours(&self.hosts.world()) {
            let machines = self.hosts.machines(host);
            let machine = machines.get(&id).filter(|machine| machine.digest == digest);
            if machine.is_none() {
                let why = "it is not there any more, or was changed since it was looked at";
                return Err(DriverFault::Rejected(why.to_owned()));
            }
        }
        self.change(HostStep::Adopt, is_ours, |world| {
            let machine = world.foreign.get_mut(&host).and_then(|all| all.remove(&id));
            let Some(machine) = machine else { return };
            let mut server = SimServer::blank();
            server.size(home);
            server.nics = of_nics(home.parts.nics.iter(), home, &[]);
            server.running = machine.power != Power::Stopped;
            server.suspended = machine.power == Power::Suspended;
            server.boots = u32::from(server.running);
            server.machine = Some(machine);
            for disk in &home.parts.disks {
                if server.running {
                    server.disks.insert(disk.id, disk.limits);
                }
                let here = world.disks.entry(host).or_default();
                here.entry(disk.id).or_insert((disk.size_gib, None));
            }
            world.hosts.entry(host).or_default().insert(id, server);
        })
    }

    /// A server is somebody's machine again; it goes on running.
    pub(super) fn release(&self, id: Uuid, number: u64) -> Result<Report, DriverFault> {
        let host = self.host;
        let is_gone =
            |world: &World| world.hosts.get(&host).is_none_or(|ours| !ours.contains_key(&id));
        self.change(HostStep::Release, is_gone, |world| {
            let server = world.hosts.get_mut(&host).and_then(|ours| ours.remove(&id));
            let machine = server.and_then(|server| {
                let power = match server {
                    SimServer { suspended: true, .. } => Power::Suspended,
                    SimServer { running: true, .. } => Power::Running,
                    _ => Power::Stopped,
                };
                Some(ForeignMachine { power, ..server.machine? })
            });
            if let Some(machine) = machine {
                world.foreign.entry(host).or_default().insert(id, machine);
            }
        })?;
        Ok(Report { verb: "confirm-removal", body: json!({"number": number}) })
    }
}
