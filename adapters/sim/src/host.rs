//! Hosts in memory: each with servers that are made, started, stopped and removed in small steps, any
//! of which may fail or lose its answer once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use commands::ports::{DriverFault, HostDriver, HostTask, Hosts, Report};
use domain::{
    compute::{
        host::HostSighting,
        placement::{Architecture, Cell, Core},
        server::{Machine, Order, Power, parts::Parts},
        userdata::Userdata,
    },
    kernel::Refusal,
    network::mac::Mac,
};
use serde_json::json;
use uuid::Uuid;

/// A step that changes something on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostStep {
    /// The server becomes known to the host.
    Define,
    /// Its disks are removed.
    Discard,
    /// It restarts.
    Reset,
    /// It runs.
    Start,
    /// It stops.
    Stop,
    /// Its disks are made.
    Store,
    /// The host knows it no more.
    Undefine,
}

impl HostStep {
    /// Every step.
    pub const ALL: [Self; 7] = [
        Self::Define,
        Self::Discard,
        Self::Reset,
        Self::Start,
        Self::Stop,
        Self::Store,
        Self::Undefine,
    ];
}

/// What becomes of a step, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is not done, and may be later.
    Transient,
    /// It is not done, and never will be.
    Rejected(String),
}

/// A server as a host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimServer {
    /// Whether it runs.
    pub running: bool,
    /// How often it was started or restarted.
    pub boots: u32,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// Its memory.
    pub memory_mib: u64,
    /// The host's CPUs that it runs on alone.
    pub pins: BTreeSet<u32>,
    /// The hardware addresses of its interfaces, in the guest's order.
    pub macs: Vec<Mac>,
    /// What it read at its first boot: names of files and what is in them.
    pub seed: Vec<(String, String)>,
    /// The order that last restarted it.
    reset_by: Option<String>,
}

#[derive(Default)]
struct World {
    hosts: BTreeMap<Uuid, BTreeMap<Uuid, SimServer>>,
    /// Disks by host and id, with their size in GiB and the digest of their image.
    disks: BTreeMap<Uuid, BTreeMap<Uuid, (u64, Option<String>)>>,
    epochs: BTreeMap<Uuid, u64>,
    faults: BTreeMap<HostStep, Vec<HostFault>>,
    hit: Vec<(HostStep, HostFault)>,
}

/// Hosts in memory. Clones share them.
#[derive(Clone, Default)]
pub struct SimHosts {
    world: Arc<Mutex<World>>,
}

impl SimHosts {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process works for a host from now on, in an epoch that it joined in.
    pub fn join(&self, host: Uuid, epoch: u64) {
        let mut world = self.world();
        world.epochs.insert(host, epoch);
        world.hosts.entry(host).or_default();
    }

    /// The next try of a step comes to this; several are had one after the other.
    pub fn break_next(&self, step: HostStep, fault: HostFault) {
        self.world().faults.entry(step).or_default().push(fault);
    }

    /// The faults that really were had.
    pub fn hit(&self) -> Vec<(HostStep, HostFault)> {
        self.world().hit.clone()
    }

    /// The servers that a host really has.
    pub fn census(&self, host: Uuid) -> BTreeMap<Uuid, SimServer> {
        self.world().hosts.get(&host).cloned().unwrap_or_default()
    }

    /// The disks that a host really has: sizes in GiB, and the digest of the image of each that has one.
    pub fn disks(&self, host: Uuid) -> BTreeMap<Uuid, (u64, Option<String>)> {
        self.world().disks.get(&host).cloned().unwrap_or_default()
    }

    /// What an agent would see of a host with so many cells, each with so many cores of two threads
    /// and so much memory.
    pub fn sighting(cells: u32, cores: u32, memory_mib: u64) -> HostSighting {
        let core = |at: u32| Core { threads: vec![at * 2, at * 2 + 1], l3: None };
        let cell = |id: u32| Cell {
            id,
            memory_mib,
            memory_reserved_mib: 0,
            pages: Vec::new(),
            cores: (id * cores..(id + 1) * cores).map(core).collect(),
            distances: Vec::new(),
        };
        HostSighting {
            architecture: Architecture::X86_64,
            virtualisation: "sim".to_owned(),
            labels: BTreeSet::new(),
            cells: (0..cells).map(cell).collect(),
            devices: Vec::new(),
        }
    }
}

impl Hosts for SimHosts {
    fn driver(&self, host: Uuid) -> Option<Arc<dyn HostDriver>> {
        let epoch = *self.world().epochs.get(&host)?;
        Some(Arc::new(SimHost { host, epoch, hosts: self.clone() }))
    }
}

struct SimHost {
    host: Uuid,
    epoch: u64,
    hosts: SimHosts,
}

impl SimHost {
    /// One step, if it is still to be done: looked at first, so that it can be tried again.
    fn step(
        &self,
        step: HostStep,
        done: impl Fn(&BTreeMap<Uuid, SimServer>) -> bool,
        make: impl FnOnce(&mut BTreeMap<Uuid, SimServer>),
    ) -> Result<(), DriverFault> {
        let host = self.host;
        let done = |world: &World| done(world.hosts.get(&host).unwrap_or(&BTreeMap::new()));
        self.change(step, done, |world| make(world.hosts.entry(host).or_default()))
    }

    /// The same, of anything that the host has.
    fn change(
        &self,
        step: HostStep,
        done: impl Fn(&World) -> bool,
        make: impl FnOnce(&mut World),
    ) -> Result<(), DriverFault> {
        let mut world = self.hosts.world();
        if done(&world) {
            return Ok(());
        }
        let fault = world.faults.get_mut(&step).filter(|faults| !faults.is_empty());
        let fault = fault.map(|faults| faults.remove(0));
        if let Some(fault) = &fault {
            world.hit.push((step, fault.clone()));
        }
        match fault {
            None => {
                make(&mut world);
                Ok(())
            }
            Some(HostFault::AnswerLost) => {
                make(&mut world);
                Err(DriverFault::Transient(format!("{step:?}: the answer was lost")))
            }
            Some(HostFault::Transient) => Err(DriverFault::Transient(format!("{step:?} failed"))),
            Some(HostFault::Rejected(why)) => Err(DriverFault::Rejected(why)),
        }
    }

    fn store(&self, parts: &Parts) -> Result<(), DriverFault> {
        let image = |from_image| parts.image.as_ref().filter(|_| from_image).map(|one| &one.sha256);
        for disk in &parts.disks {
            let wanted = (disk.size_gib, image(disk.from_image).cloned());
            let of = |world: &World| world.disks.get(&self.host)?.get(&disk.id).cloned();
            let done = |world: &World| of(world).is_some();
            self.change(HostStep::Store, done, |world| {
                world.disks.entry(self.host).or_default().insert(disk.id, wanted);
            })?;
        }
        Ok(())
    }

    fn discard(&self, parts: &Parts) -> Result<(), DriverFault> {
        for disk in &parts.disks {
            let there = |world: &World| {
                world.disks.get(&self.host).is_some_and(|disks| disks.contains_key(&disk.id))
            };
            self.change(
                HostStep::Discard,
                |world| !there(world),
                |world| {
                    if let Some(disks) = world.disks.get_mut(&self.host) {
                        disks.remove(&disk.id);
                    }
                },
            )?;
        }
        Ok(())
    }

    fn power(&self, id: Uuid, running: bool) -> Result<(), DriverFault> {
        let step = if running { HostStep::Start } else { HostStep::Stop };
        let is = |servers: &BTreeMap<Uuid, SimServer>| {
            servers.get(&id).is_none_or(|server| server.running == running)
        };
        self.step(step, is, |servers| {
            if let Some(server) = servers.get_mut(&id) {
                server.running = running;
                server.boots += u32::from(running);
            }
        })
    }
}

#[async_trait]
impl HostDriver for SimHost {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let unexpected = |what: &str| DriverFault::Unexpected(what.to_owned());
        let id: Uuid = task.key.stream.id.parse().map_err(|_| unexpected("the server's id"))?;
        let home = task.state.home.as_ref().ok_or_else(|| unexpected("a server of a cloud"))?;
        let order: Order = serde_json::from_value(task.order.clone())
            .map_err(|fault| DriverFault::Unexpected(fault.to_string()))?;
        let number = task.key.number;
        match order {
            Order::Launch {} => {
                self.store(&home.parts)?;
                let holding = &home.placement.holding;
                let userdata =
                    task.userdata.clone().map(|text| Userdata::read(text, home.parts.system()));
                let refused = |refusal: Refusal| DriverFault::Rejected(refusal.detail);
                let userdata = userdata.transpose().map_err(refused)?;
                let seed = home.seed(userdata.as_ref()).map_err(refused)?;
                let file = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
                let server = SimServer {
                    running: false,
                    boots: 0,
                    vcpus: home.spec.vcpus,
                    memory_mib: home.spec.memory_mib,
                    pins: holding.pins.iter().map(|pin| pin.cpu).collect(),
                    macs: home.parts.nics.iter().map(|nic| nic.mac).collect(),
                    seed: seed.files().into_iter().map(file).collect(),
                    reset_by: None,
                };
                self.step(
                    HostStep::Define,
                    |servers| servers.contains_key(&id),
                    |servers| drop(servers.insert(id, server)),
                )?;
                self.power(id, true)?;
            }
            Order::Start {} => self.power(id, true)?,
            Order::Stop {} => self.power(id, false)?,
            Order::Reboot {} => {
                // Whether it was done already cannot be seen of a running server: the order's key
                // is left with it.
                let key = task.key.to_string();
                let done = |servers: &BTreeMap<Uuid, SimServer>| {
                    servers.get(&id).is_none_or(|server| server.reset_by.as_ref() == Some(&key))
                };
                self.step(HostStep::Reset, done, |servers| {
                    if let Some(server) = servers.get_mut(&id) {
                        server.boots += 1;
                        server.reset_by = Some(key.clone());
                    }
                })?;
            }
            Order::Remove {} => {
                self.power(id, false)?;
                self.step(
                    HostStep::Undefine,
                    |servers| !servers.contains_key(&id),
                    |servers| drop(servers.remove(&id)),
                )?;
                self.discard(&home.parts)?;
                return Ok(Report { verb: "confirm-removal", body: json!({"number": number}) });
            }
            Order::SetTags { .. } => return Err(unexpected("tags of a server of ours")),
        }
        let census = self.hosts.census(self.host);
        let server = census.get(&id).ok_or_else(|| DriverFault::Rejected("it is gone".into()))?;
        let seen = Machine {
            name: home.name.clone(),
            power: if server.running { Power::Running } else { Power::Stopped },
            shape: format!("{}x{}", server.vcpus, server.memory_mib),
            image: home.parts.image.as_ref().map(|image| image.id.to_string()),
            zone: None,
            vpc: None,
            network: home.parts.nics.first().map(|nic| nic.network.to_string()),
            addresses: sorted(home.parts.nics.iter().flat_map(|nic| nic.addresses.clone())),
            security_groups: Vec::new(),
            disks: sorted(home.parts.disks.iter().map(|disk| disk.id.to_string())),
            tags: home.tags.clone(),
        };
        Ok(Report { verb: "confirm", body: json!({"number": number, "seen": seen}) })
    }
}

fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all
}
