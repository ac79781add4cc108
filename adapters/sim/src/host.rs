//! Hosts in memory: each with servers that are made, started, stopped and removed in small steps, any
//! of which may fail or lose its answer once.

mod addresses;
mod backup_set;
mod foreign;
mod images;
mod kept;
mod move_in;
mod moving;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use commands::ports::{DriverFault, HostDriver, HostTask, Hosts, LocalHost, Pipe, Report};
use domain::{
    compute::{
        adoption::ForeignMachine,
        backup::Backup,
        backup_set::BackupSet,
        disk::{self, Disk, Limits},
        host::{Host, HostSighting},
        move_in::MoveIn,
        placement::{Architecture, Cell, Core, VirtualFunction},
        server::{
            Machine, Order, Power,
            console::ConsoleKind,
            home::Home,
            nic::SeenNic,
            parts::{Nic, Parts},
            rescue::RescueSystem,
        },
        snapshot::Snapshot,
        storage::StorageId,
        userdata::Userdata,
    },
    kernel::{Decider, Refusal},
    network::{quota::Traffic, security_group::Rule},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use self::{foreign::Foreign, kept::Kept, volumes::Volumes};
use crate::{file, host_console};

pub use self::kept::{SimBackup, WRONG_KEY};

/// A step that changes something on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostStep {
    /// Addresses inside it are set.
    Addresses,
    /// A machine of somebody's is a server.
    Adopt,
    /// A disk is put into a store of backups.
    BackUp,
    /// A server's being sent to another is broken off.
    BreakOff,
    /// Another disc is in its drive.
    Cdrom,
    /// It is ready no more for a machine that others ran: all of it is here, or nothing more comes.
    Close,
    /// The server becomes known to the host.
    Define,
    /// It is started with other devices from now on.
    Devices,
    /// A disk is removed.
    Discard,
    /// A disk gets what a backup or a snapshot has.
    Fill,
    /// A disk becomes larger.
    Grow,
    /// Its interfaces become what they are to be.
    Nics,
    /// A running server gets a disk, or other limits for one that it has.
    Plug,
    /// A password inside it is set.
    Password,
    /// Its root disk is made again.
    Rebuild,
    /// It is ready for a server that comes from another.
    Receive,
    /// A server is somebody's machine again.
    Release,
    /// It runs a small system in memory.
    Rescue,
    /// It restarts.
    Reset,
    /// It is of another size from its next start on.
    Resize,
    /// It goes on.
    Resume,
    /// A disk is what it was at a snapshot.
    RollBack,
    /// A running server goes to another.
    Send,
    /// A snapshot of a disk is there.
    Snapshot,
    /// A snapshot of a disk is gone.
    SnapshotRemoval,
    /// It runs.
    Start,
    /// It stops.
    Stop,
    /// A disk is made.
    Store,
    /// A store of backups removes what no backup needs.
    StoreCollect,
    /// A store of backups is told what a set consists of.
    StoreDescribe,
    /// A store of backups forgets one.
    StoreForget,
    /// A store of backups forgets what a set consists of.
    StoreForgetSet,
    /// A file of an image is put into a store.
    StoreImage,
    /// A file of an image is removed from a store.
    StoreImageRemoval,
    /// A store of backups says what it has.
    StoreList,
    /// A store of backups is tried.
    StoreVerify,
    /// It stands still.
    Suspend,
    /// The host knows it no more.
    Undefine,
    /// A running server loses a disk.
    Unplug,
}

impl HostStep {
    /// Every step.
    pub const ALL: [Self; 39] = [
        Self::Addresses,
        Self::Adopt,
        Self::BackUp,
        Self::BreakOff,
        Self::Cdrom,
        Self::Close,
        Self::Define,
        Self::Devices,
        Self::Discard,
        Self::Fill,
        Self::Grow,
        Self::Nics,
        Self::Password,
        Self::Plug,
        Self::Rebuild,
        Self::Receive,
        Self::Release,
        Self::Rescue,
        Self::Reset,
        Self::Resize,
        Self::Resume,
        Self::RollBack,
        Self::Send,
        Self::Snapshot,
        Self::SnapshotRemoval,
        Self::Start,
        Self::Stop,
        Self::Store,
        Self::StoreCollect,
        Self::StoreDescribe,
        Self::StoreForget,
        Self::StoreForgetSet,
        Self::StoreImage,
        Self::StoreImageRemoval,
        Self::StoreList,
        Self::StoreVerify,
        Self::Suspend,
        Self::Undefine,
        Self::Unplug,
    ];
}

/// What becomes of a step, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostFault {
    /// It is done, and the answer is lost.
    AnswerLost,
    /// Of a server that is sent: it goes on until it is broken off.
    Endless,
    /// It is not done, and may be later.
    Transient,
    /// It is not done, and never will be.
    Rejected(String),
    /// Of a server that is sent: whether it was done is not known here.
    Unsure {
        /// Whether it was.
        arrived: bool,
    },
}

/// A server as a host has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The disks that it has while it runs, with their limits.
    pub disks: BTreeMap<Uuid, Limits>,
    /// Its interfaces, in the guest's order.
    #[serde(default)]
    pub nics: Vec<SimNic>,
    /// What virtual functions that it has are set to on their card.
    #[serde(default)]
    pub functions: BTreeMap<String, VirtualFunction>,
    /// Devices of the host that it is started with; none in a rescue.
    #[serde(default)]
    pub devices: BTreeSet<String>,
    /// The digest of the disc in its drive.
    #[serde(default)]
    pub cdrom: Option<String>,
    /// What it read at its first boot: names of files and what is in them.
    pub seed: Vec<(String, String)>,
    /// Whether it stands still.
    pub suspended: bool,
    /// Whether it runs a small system in memory, in place of what its disks have.
    pub rescued: bool,
    /// Passwords that were set inside what it runs, by user.
    pub passwords: BTreeMap<String, String>,
    /// What it was before it was adopted, where it was.
    #[serde(default)]
    pub machine: Option<ForeignMachine>,
    /// The order that last restarted it.
    reset_by: Option<String>,
    /// The order that last had its root disk made again.
    #[serde(default)]
    rebuilt_by: Option<String>,
}

/// An interface as a host has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimNic {
    /// What is said of it.
    pub seen: SeenNic,
    /// The addresses that it may use.
    pub addresses: Vec<IpNet>,
    /// Those that the guest has.
    #[serde(default)]
    pub inside: Vec<IpNet>,
    /// The rules that are enforced; none when nothing is kept from it but spoofing.
    pub rules: Option<BTreeSet<Rule>>,
    /// How many bytes this host has counted; what is said of it has those of other hosts as well.
    #[serde(default)]
    pub counted: Traffic,
    /// How often its bytes were counted anew, or it came from another host.
    #[serde(default)]
    pub resets: u64,
}

impl SimNic {
    fn of(nic: &Nic, home: &Home, before: &[Self]) -> Self {
        let before = before.iter().find(|known| known.seen.mac == nic.mac);
        let carried = home.carried(nic);
        let resets = nic.resets + carried.moves;
        let known = before.filter(|known| known.resets == resets);
        let counted = known.map(|known| known.counted).unwrap_or_default();
        let traffic = carried.traffic.plus(counted);
        let rules = nic.rules(&home.parts.groups);
        let seen = SeenNic {
            mac: nic.mac,
            bandwidth: nic.bandwidth,
            quota: nic.quota,
            traffic: nic.quota.map(|_| traffic),
            security_groups: nic.security_groups.clone(),
            rules: rules.as_ref().map(|rules| rules.len() as u64),
            told: nic.lease_s.is_some(),
        };
        let addresses = nic.addresses.clone();
        let inside = before.map_or_else(|| addresses.clone(), |known| known.inside.clone());
        Self { seen, addresses, inside, rules, counted, resets }
    }
}

impl SimServer {
    /// One that has nothing and does nothing.
    fn blank() -> Self {
        Self {
            running: false,
            boots: 0,
            vcpus: 0,
            memory_mib: 0,
            pins: BTreeSet::new(),
            disks: BTreeMap::new(),
            nics: Vec::new(),
            functions: BTreeMap::new(),
            devices: BTreeSet::new(),
            cdrom: None,
            seed: Vec::new(),
            suspended: false,
            rescued: false,
            passwords: BTreeMap::new(),
            machine: None,
            reset_by: None,
            rebuilt_by: None,
        }
    }

    fn size(&mut self, home: &Home) {
        self.vcpus = home.spec.vcpus;
        self.memory_mib = home.spec.memory_mib;
        self.pins = home.placement.holding.pins.iter().map(|pin| pin.cpu).collect();
        self.functions.clone_from(&home.placement.holding.functions);
        self.devices.clone_from(&home.placement.holding.devices);
    }
}

/// What hosts have lies on the file, where there is one; what tests do to them does not.
#[derive(Default, Serialize, Deserialize)]
struct World {
    hosts: BTreeMap<Uuid, BTreeMap<Uuid, SimServer>>,
    /// Disks by host, or by the storage that several reach, and by id, with their size in GiB and the
    /// digest of their image.
    disks: BTreeMap<Uuid, BTreeMap<Uuid, (u64, Option<String>)>>,
    /// Files by host, whole paths.
    files: BTreeMap<Uuid, BTreeSet<String>>,
    /// The orders by which servers' being sent was broken off last.
    #[serde(default)]
    broken_off: BTreeMap<Uuid, u64>,
    /// Servers that hosts are ready for.
    #[serde(default)]
    ready: BTreeMap<Uuid, BTreeSet<Uuid>>,
    /// Machines of others that hosts are ready for, by the id of the move.
    #[serde(default)]
    landings: BTreeMap<Uuid, BTreeSet<String>>,
    #[serde(flatten)]
    kept: Kept,
    #[serde(default)]
    volumes: Volumes,
    #[serde(default)]
    foreign: Foreign,
    #[serde(skip)]
    epochs: BTreeMap<Uuid, u64>,
    #[serde(skip)]
    faults: BTreeMap<HostStep, Vec<HostFault>>,
    #[serde(skip)]
    hit: Vec<(HostStep, HostFault)>,
    #[serde(skip)]
    file: Option<PathBuf>,
    #[serde(skip)]
    pause: Duration,
    #[serde(skip)]
    takes_in: Option<(SocketAddr, Uuid)>,
}

/// Hosts in memory. Clones share them.
#[derive(Clone, Default)]
pub struct SimHosts {
    world: Arc<Mutex<World>>,
    /// Told of every step that was done.
    steps: Arc<watch::Sender<u64>>,
}

impl SimHosts {
    /// Hosts that live on a file: what they have outlives the process.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut world: World = match file::load(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => World::default(),
            world => world?,
        };
        file::save(path, &world)?;
        world.file = Some(path.to_owned());
        Ok(Self { world: Arc::new(Mutex::new(world)), steps: Arc::default() })
    }

    /// Every order takes so long before each of its parts: there is time to end a process in between.
    pub fn slow_down(&self, pause: Duration) {
        self.world().pause = pause;
    }

    /// Machines that others run are written there, to disks of this name: who writes finds what a test has there.
    pub fn takes_in_at(&self, at: SocketAddr, filling: Uuid) {
        self.world().takes_in = Some((at, filling));
    }

    /// One of them as its agent reaches it: it looks like this.
    pub fn local(&self, host: Uuid, sighting: HostSighting) -> SimLocal {
        SimLocal { hosts: self.clone(), host, sighting }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step, if it is still to be done: looked at first, so that it can be tried again.
    fn change(
        &self,
        step: HostStep,
        done: impl Fn(&World) -> bool,
        make: impl FnOnce(&mut World),
    ) -> Result<(), DriverFault> {
        let mut world = self.world();
        if done(&world) {
            return Ok(());
        }
        let fault = world.faults.get_mut(&step).filter(|faults| !faults.is_empty());
        let fault = fault.map(|faults| faults.remove(0));
        if let Some(fault) = &fault {
            world.hit.push((step, fault.clone()));
        }
        self.steps.send_modify(|count| *count += 1);
        match fault {
            None => {
                make(&mut world);
                keep(&world)
            }
            Some(HostFault::AnswerLost) => {
                make(&mut world);
                keep(&world)?;
                Err(DriverFault::Transient(format!("{step:?}: the answer was lost")))
            }
            Some(HostFault::Endless | HostFault::Transient | HostFault::Unsure { .. }) => {
                Err(DriverFault::Transient(format!("{step:?} failed")))
            }
            Some(HostFault::Rejected(why)) => Err(DriverFault::Rejected(why)),
        }
    }

    /// This process works for a host from now on, in an epoch that it joined in.
    pub fn join(&self, host: Uuid, epoch: u64) {
        let mut world = self.world();
        world.epochs.insert(host, epoch);
        world.hosts.entry(host).or_default();
    }

    /// Nobody works for a host any more; what it has stays.
    pub fn leave(&self, host: Uuid) {
        self.world().epochs.remove(&host);
    }

    /// A host has a file from now on, as a kernel to rescue servers with.
    pub fn put_file(&self, host: Uuid, path: &str) {
        self.world().files.entry(host).or_default().insert(path.to_owned());
    }

    /// The next try of a step comes to this; several are had one after the other.
    pub fn break_next(&self, step: HostStep, fault: HostFault) {
        self.world().faults.entry(step).or_default().push(fault);
    }

    /// The faults that really were had.
    pub fn hit(&self) -> Vec<(HostStep, HostFault)> {
        self.world().hit.clone()
    }

    /// A server sends so many bytes by its first interface, if it still may; whether they passed.
    pub fn send(&self, host: Uuid, server: Uuid, bytes: u64) -> bool {
        let mut world = self.world();
        let server = world.hosts.get_mut(&host).and_then(|servers| servers.get_mut(&server));
        let Some(nic) = server.and_then(|server| server.nics.first_mut()) else { return false };
        let limit = nic.seen.quota.and_then(|quota| quota.egress_bytes);
        let Some(traffic) = &mut nic.seen.traffic else { return true };
        let passes = limit.is_none_or(|limit| traffic.egress_bytes + bytes <= limit);
        if passes {
            traffic.egress_bytes += bytes;
            nic.counted.egress_bytes += bytes;
        }
        passes
    }

    /// The servers that a host really has.
    pub fn census(&self, host: Uuid) -> BTreeMap<Uuid, SimServer> {
        self.world().hosts.get(&host).cloned().unwrap_or_default()
    }

    /// The disks that a host has for itself, or that lie on a storage: sizes in GiB, and the digest of the
    /// image of each that has one.
    pub fn disks(&self, host: Uuid) -> BTreeMap<Uuid, (u64, Option<String>)> {
        self.world().disks.get(&host).cloned().unwrap_or_default()
    }

    /// The servers that a host is ready for, which come from others.
    pub fn ready(&self, host: Uuid) -> BTreeSet<Uuid> {
        self.world().ready.get(&host).cloned().unwrap_or_default()
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
            storages: BTreeSet::new(),
            volume_groups: BTreeMap::new(),
            carriers: None,
            machines: BTreeMap::new(),
        }
    }
}

impl Hosts for SimHosts {
    fn driver(&self, host: Uuid) -> Option<Arc<dyn HostDriver>> {
        let epoch = *self.world().epochs.get(&host)?;
        Some(Arc::new(SimHost { host, epoch, hosts: self.clone() }))
    }
}

/// A host in memory, as its agent reaches it.
pub struct SimLocal {
    hosts: SimHosts,
    host: Uuid,
    sighting: HostSighting,
}

#[async_trait]
impl LocalHost for SimLocal {
    fn agent(&self) -> String {
        concat!("skyledger ", env!("CARGO_PKG_VERSION"), " simulated").to_owned()
    }

    async fn sight(&self) -> Result<HostSighting, DriverFault> {
        let machines = self.hosts.machines(self.host);
        Ok(HostSighting { machines, ..self.sighting.clone() })
    }

    fn driver(&self, epoch: u64) -> Arc<dyn HostDriver> {
        let hosts = self.hosts.clone();
        hosts.world().hosts.entry(self.host).or_default();
        Arc::new(SimHost { host: self.host, epoch, hosts })
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
        self.hosts.change(step, done, make)
    }

    async fn rest(&self) {
        let pause = self.hosts.world().pause;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// Where a disk lies: on the host alone, or on a storage.
    fn place_of(&self, storage: Option<StorageId>) -> Uuid {
        storage.map_or(self.host, StorageId::uuid)
    }

    fn store(&self, parts: &Parts, task: &HostTask) -> Result<(), DriverFault> {
        if let Some(image) = &parts.image {
            self.fetch(&image.source)?;
        }
        if let Some(disc) = parts.disc() {
            self.fetch(&disc.source)?;
        }
        let image = |from_image| parts.image.as_ref().filter(|_| from_image).map(|one| &one.sha256);
        for disk in &parts.disks {
            let wanted = (disk.size_gib, image(disk.from_image).cloned());
            let place = self.place_of(disk.storage);
            let of = |world: &World| world.disks.get(&place)?.get(&disk.id).cloned();
            let done = |world: &World| of(world).is_some();
            self.change(HostStep::Store, done, |world| {
                world.disks.entry(place).or_default().insert(disk.id, wanted);
            })?;
            if let Some(source) = &disk.source {
                self.fill(disk.id, source, task)?;
            }
        }
        Ok(())
    }

    /// An order of a disk.
    fn carry_out_of_disk(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let unexpected = |fault: serde_json::Error| DriverFault::Unexpected(fault.to_string());
        let disk: Disk = serde_json::from_value(task.subject.clone()).map_err(unexpected)?;
        let order: disk::Order = serde_json::from_value(task.order.clone()).map_err(unexpected)?;
        let number = task.key.number;
        let home = disk.home.ok_or_else(|| DriverFault::Unexpected("a disk of a cloud".into()))?;
        let id = home.id;
        let place = self.place_of(home.storage);
        let of = |world: &World| world.disks.get(&place)?.get(&id).cloned();
        // What a running server has of it.
        let plugged = |world: &World| {
            let server = world.hosts.get(&self.host)?.get(&home.server?.uuid())?;
            server.running.then(|| server.disks.get(&id).copied())
        };
        let plug = |world: &mut World, limits: Option<Limits>| {
            let server =
                home.server.and_then(|id| world.hosts.get_mut(&self.host)?.get_mut(&id.uuid()));
            if let Some(server) = server {
                match limits {
                    Some(limits) => drop(server.disks.insert(id, limits)),
                    None => drop(server.disks.remove(&id)),
                }
            }
        };
        if matches!(order, disk::Order::Create {}) {
            self.change(
                HostStep::Store,
                |world| of(world).is_some(),
                |world| {
                    world.disks.entry(place).or_default().insert(id, (home.size_gib, None));
                },
            )?;
            if let Some(source) = &home.source {
                self.fill(id, source, task)?;
            }
        }
        match order {
            disk::Order::Attach {} | disk::Order::Create {} | disk::Order::Throttle {} => {
                self.activate_disk(&home)?;
                let done = |world: &World| plugged(world).is_none_or(|is| is == Some(home.limits));
                self.change(HostStep::Plug, done, |world| plug(world, Some(home.limits)))?;
            }
            disk::Order::Detach {} => {
                let done = |world: &World| plugged(world).is_none_or(|is| is.is_none());
                self.change(HostStep::Unplug, done, |world| plug(world, None))?;
                self.deactivate_disk(id);
            }
            disk::Order::Grow {} => {
                let done = |world: &World| of(world).is_none_or(|(size, _)| size >= home.size_gib);
                self.change(HostStep::Grow, done, |world| {
                    if let Some(disks) = world.disks.get_mut(&place)
                        && let Some((size, _)) = disks.get_mut(&id)
                    {
                        *size = home.size_gib;
                    }
                })?;
            }
            disk::Order::Restore { source } => {
                if plugged(&self.hosts.world()).is_some() {
                    let why = "its server runs: stop it first".to_owned();
                    return Err(DriverFault::Rejected(why));
                }
                self.restore(id, &source, task)?;
            }
            disk::Order::Remove {} => {
                let unplugged = |world: &World| plugged(world).is_none_or(|is| is.is_none());
                self.change(HostStep::Unplug, unplugged, |world| plug(world, None))?;
                self.deactivate_disk(id);
                self.change(
                    HostStep::Discard,
                    |world| of(world).is_none(),
                    |world| {
                        if let Some(disks) = world.disks.get_mut(&place) {
                            disks.remove(&id);
                        }
                        world.kept.discard(id);
                    },
                )?;
                return Ok(Report { verb: "confirm-removal", body: json!({"number": number}) });
            }
        }
        let world = self.hosts.world();
        let (size_gib, _) =
            of(&world).ok_or_else(|| DriverFault::Rejected("the disk is gone".to_owned()))?;
        let seen = disk::Actual {
            size_bytes: size_gib << 30,
            taken_bytes: 0,
            limits: plugged(&world).flatten(),
        };
        Ok(Report { verb: "confirm", body: json!({"number": number, "seen": seen}) })
    }

    fn discard(&self, parts: &Parts) -> Result<(), DriverFault> {
        // What lay here before its server was ours is left.
        for disk in parts.disks.iter().filter(|disk| disk.in_place.is_none()) {
            let place = self.place_of(disk.storage);
            let there = |world: &World| {
                world.disks.get(&place).is_some_and(|disks| disks.contains_key(&disk.id))
            };
            self.change(
                HostStep::Discard,
                |world| !there(world),
                |world| {
                    if let Some(disks) = world.disks.get_mut(&place) {
                        disks.remove(&disk.id);
                    }
                    world.kept.discard(disk.id);
                },
            )?;
        }
        Ok(())
    }

    /// One step of one server; there is nothing to do of one that is not there.
    fn of(
        &self,
        id: Uuid,
        step: HostStep,
        done: impl Fn(&SimServer) -> bool,
        make: impl FnOnce(&mut SimServer),
    ) -> Result<(), DriverFault> {
        self.step(
            step,
            |servers| servers.get(&id).is_none_or(&done),
            |servers| {
                if let Some(server) = servers.get_mut(&id) {
                    make(server);
                }
            },
        )
    }

    /// From what its disks have, and of the size that the log says.
    fn start(&self, id: Uuid, home: &Home) -> Result<(), DriverFault> {
        self.of(
            id,
            HostStep::Start,
            |server| server.running,
            |server| {
                server.size(home);
                // It is started with what its lists say.
                server.nics = of_nics(home.parts.nics.iter(), home, &server.nics);
                // What it reads when it is started.
                server.nics.iter_mut().for_each(|nic| nic.inside.clone_from(&nic.addresses));
                server.disks = home.parts.disks.iter().map(|disk| (disk.id, disk.limits)).collect();
                server.running = true;
                server.boots += 1;
            },
        )
    }

    fn stop(&self, id: Uuid) -> Result<(), DriverFault> {
        self.of(
            id,
            HostStep::Stop,
            |server| !server.running,
            |server| {
                (server.running, server.suspended) = (false, false);
                server.disks.clear();
                if std::mem::take(&mut server.rescued) {
                    server.passwords.clear();
                }
            },
        )
    }

    /// A server as it is before it is started for the first time.
    fn fresh(home: &Home, task: &HostTask) -> Result<SimServer, DriverFault> {
        let userdata = task.userdata.clone().map(|text| Userdata::read(text, home.parts.system()));
        let refused = |refusal: Refusal| DriverFault::Rejected(refusal.detail);
        let userdata = userdata.transpose().map_err(refused)?;
        let seed = home.seed(userdata.as_ref()).map_err(refused)?;
        let file = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
        let mut server = SimServer {
            nics: of_nics(home.parts.nics.iter(), home, &[]),
            cdrom: home.parts.disc().map(|disc| disc.sha256.clone()),
            seed: seed.files().into_iter().map(file).collect(),
            ..SimServer::blank()
        };
        server.size(home);
        Ok(server)
    }

    /// What is there of a server.
    fn seen(&self, id: Uuid, home: &Home) -> Result<Machine, DriverFault> {
        let census = self.hosts.census(self.host);
        let server = census.get(&id).ok_or_else(|| DriverFault::Rejected("it is gone".into()))?;
        Ok(Machine {
            name: home.name.clone(),
            power: match server {
                SimServer { suspended: true, .. } => Power::Suspended,
                SimServer { running: true, .. } => Power::Running,
                _ => Power::Stopped,
            },
            shape: format!("{}x{}", server.vcpus, server.memory_mib),
            image: home.parts.image.as_ref().map(|image| image.id.to_string()),
            zone: None,
            vpc: None,
            network: home.parts.nics.first().map(|nic| nic.network.to_string()),
            addresses: sorted(server.nics.iter().flat_map(|nic| nic.addresses.clone())),
            security_groups: Vec::new(),
            disks: sorted(home.parts.disks.iter().map(|disk| disk.id.to_string())),
            nics: server.nics.iter().map(|nic| nic.seen.clone()).collect(),
            functions: server.functions.clone(),
            vgpus: BTreeMap::new(),
            tags: home.tags.clone(),
        })
    }

    fn suspend(&self, id: Uuid, suspended: bool) -> Result<(), DriverFault> {
        let step = if suspended { HostStep::Suspend } else { HostStep::Resume };
        let done = |server: &SimServer| server.suspended == suspended;
        self.of(id, step, done, |server| server.suspended = suspended)
    }

    fn password(&self, id: Uuid, user: &str, task: &HostTask) -> Result<(), DriverFault> {
        let password = task.password.clone();
        let password =
            password.ok_or_else(|| DriverFault::Unexpected("no password came along".to_owned()))?;
        let done = |server: &SimServer| server.passwords.get(user) == Some(&password);
        self.of(id, HostStep::Password, done, |server| {
            server.passwords.insert(user.to_owned(), password.clone());
        })
    }

    fn rebuild(
        &self,
        id: Uuid,
        home: &Home,
        task: &HostTask,
        sha256: &str,
        start: bool,
    ) -> Result<(), DriverFault> {
        let key = task.key.to_string();
        let done = |world: &World| {
            let server = world.hosts.get(&self.host).and_then(|servers| servers.get(&id));
            server.is_none_or(|server| server.rebuilt_by.as_ref() == Some(&key))
        };
        if !done(&self.hosts.world()) {
            self.stop(id)?;
        }
        self.change(HostStep::Rebuild, done, |world| {
            let root = home.parts.disks.first();
            let disk = root.and_then(|root| world.disks.get_mut(&self.host)?.get_mut(&root.id));
            if let Some((_, image)) = disk {
                *image = Some(sha256.to_owned());
            }
            let server = world.hosts.get_mut(&self.host).and_then(|servers| servers.get_mut(&id));
            if let Some(server) = server {
                server.rebuilt_by = Some(key.clone());
            }
        })?;
        if start { self.start(id, home) } else { Ok(()) }
    }

    fn rescue(&self, id: Uuid, system: &RescueSystem, task: &HostTask) -> Result<(), DriverFault> {
        // Before anything is stopped.
        let files = self.hosts.world().files.get(&self.host).cloned().unwrap_or_default();
        let missing =
            [&system.kernel, &system.initramfs].into_iter().find(|file| !files.contains(*file));
        if let Some(missing) = missing {
            let what = format!("the rescue system's {missing} is not there; nothing was stopped");
            return Err(DriverFault::Rejected(what));
        }
        let rescued = self.hosts.census(self.host).get(&id).is_some_and(|server| server.rescued);
        if !rescued {
            self.stop(id)?;
        }
        self.of(
            id,
            HostStep::Rescue,
            |server| server.rescued,
            |server| {
                (server.running, server.rescued) = (true, true);
                // What is the host's is not in it: it is what may be broken.
                server.devices.clear();
                server.boots += 1;
                server.passwords.clear();
            },
        )?;
        self.password(id, "root", task)
    }
}

#[async_trait]
impl HostDriver for SimHost {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn console(
        &self,
        _call: Uuid,
        server: Uuid,
        console: ConsoleKind,
        _lent: Option<Ipv4Addr>,
    ) -> Result<Pipe, DriverFault> {
        let (hosts, host) = (self.hosts.clone(), self.host);
        let runs = move || hosts.census(host).get(&server).is_some_and(|one| one.running);
        if !runs() {
            return Err(DriverFault::Rejected("the server does not run".to_owned()));
        }
        let mut steps = self.hosts.steps.subscribe();
        let stops = async move { while runs() && steps.changed().await.is_ok() {} };
        Ok(host_console::open(console, stops))
    }

    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        match task.key.stream.kind.as_str() {
            Backup::KIND => return self.carry_out_of_backup(task),
            BackupSet::KIND => return self.carry_out_of_backup_set(task),
            Disk::KIND => return self.carry_out_of_disk(task),
            MoveIn::KIND => return self.carry_out_of_move_in(task),
            Snapshot::KIND => return self.carry_out_of_snapshot(task),
            _ => {}
        }
        if task.key.stream.kind == Host::KIND {
            self.rest().await;
            return self.clear(task);
        }
        let unexpected = |what: &str| DriverFault::Unexpected(what.to_owned());
        let id: Uuid = task.key.stream.id.parse().map_err(|_| unexpected("the server's id"))?;
        let home = task.state.home.as_ref().ok_or_else(|| unexpected("a server of a cloud"))?;
        let order: Order = serde_json::from_value(task.order.clone())
            .map_err(|fault| DriverFault::Unexpected(fault.to_string()))?;
        let number = task.key.number;
        self.rest().await;
        if matches!(
            order,
            Order::Arrive { .. }
                | Order::Launch {}
                | Order::LeaveRescue { .. }
                | Order::Reboot {}
                | Order::Rebuild { .. }
                | Order::Rescue { .. }
                | Order::Start {}
        ) {
            self.activate(id, home, task)?;
        }
        match order {
            Order::Adopt { digest } => self.adopt(id, home, &digest)?,
            Order::AddNic { .. } | Order::ChangeNics {} | Order::RemoveNic { .. } => {
                let nics =
                    |server: &SimServer| of_nics(home.parts.nics_after(&order), home, &server.nics);
                let functions = &home.placement.holding.functions;
                let done = |server: &SimServer| {
                    server.nics == nics(server) && server.functions == *functions
                };
                self.of(id, HostStep::Nics, done, |server| {
                    server.nics = nics(server);
                    server.functions.clone_from(functions);
                })?;
            }
            Order::Arrive { start, certain } => {
                if let Some(report) = self.arrive(id, (start, certain), home, task)? {
                    return Ok(report);
                }
            }
            Order::ChangeAddresses { nic, found } => {
                if let Some(report) = self.change_addresses(id, home, (nic, &found), number)? {
                    return Ok(report);
                }
            }
            Order::ChangeCdrom { image } => {
                image.as_ref().map_or(Ok(()), |image| self.fetch(&image.source))?;
                let disc = image.map(|image| image.sha256);
                let done = |server: &SimServer| server.cdrom == disc;
                self.of(id, HostStep::Cdrom, done, |server| server.cdrom.clone_from(&disc))?;
            }
            Order::ChangeDevices { placement, .. } => {
                let mut home = home.clone();
                home.placement = placement;
                let devices = home.placement.holding.devices.clone();
                let done = |server: &SimServer| server.devices == devices;
                self.of(id, HostStep::Devices, done, |server| server.size(&home))?;
            }
            Order::Launch {} => {
                self.store(&home.parts, task)?;
                let server = Self::fresh(home, task)?;
                self.step(
                    HostStep::Define,
                    |servers| servers.contains_key(&id),
                    |servers| drop(servers.insert(id, server)),
                )?;
                self.rest().await;
                self.start(id, home)?;
            }
            Order::LeaveRescue { start } => {
                let census = self.hosts.census(self.host);
                if census.get(&id).is_some_and(|server| server.rescued) {
                    self.stop(id)?;
                }
                if start {
                    self.start(id, home)?;
                }
            }
            Order::Rescue { system, .. } => self.rescue(id, &system, task)?,
            Order::Resize { vcpus, memory_mib, placement, .. } => {
                let mut home = home.clone();
                (home.spec.vcpus, home.spec.memory_mib) = (vcpus, memory_mib);
                home.placement = placement;
                let size = |server: &SimServer| (server.vcpus, server.memory_mib);
                let done = |server: &SimServer| size(server) == (vcpus, memory_mib);
                self.of(id, HostStep::Resize, done, |server| server.size(&home))?;
            }
            Order::Rebuild { image, start } => {
                self.fetch(&image.source)?;
                self.rebuild(id, home, task, &image.sha256, start)?;
            }
            Order::RestoreAddresses { nic, found } => {
                self.restore_addresses(id, home, nic, &found)?;
            }
            Order::Resume {} => self.suspend(id, false)?,
            Order::SetPassword { user, .. } => self.password(id, &user, task)?,
            Order::Suspend {} => self.suspend(id, true)?,
            Order::Start {} => self.start(id, home)?,
            Order::Stop {} => self.stop(id)?,
            Order::Receive {} => return self.receive(id, home, task),
            Order::BreakOff {} => return self.break_off(id, home, task),
            Order::Send { .. } => {
                self.endless(id, number).await;
                return self.send(id, home, task);
            }
            Order::Release {} => return self.release(id, number),
            Order::Share {} => return self.share(id, home, task),
            Order::TakeBack {} => self.suspend(id, false)?,
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
                self.stop(id)?;
                self.rest().await;
                self.step(
                    HostStep::Undefine,
                    |servers| !servers.contains_key(&id),
                    |servers| drop(servers.remove(&id)),
                )?;
                self.deactivate(id);
                self.discard(&home.parts)?;
                return Ok(Report { verb: "confirm-removal", body: json!({"number": number}) });
            }
            Order::SetTags { .. } => return Err(unexpected("tags of a server of ours")),
        }
        self.rest().await;
        let seen = self.seen(id, home)?;
        Ok(Report { verb: "confirm", body: json!({"number": number, "seen": seen}) })
    }
}

/// What was done is on the file before it is answered.
fn keep(world: &World) -> Result<(), DriverFault> {
    let Some(path) = &world.file else { return Ok(()) };
    let fault = |error: io::Error| DriverFault::Transient(format!("{}: {error}", path.display()));
    file::save(path, world).map_err(fault)
}

fn of_nics<'a>(nics: impl Iterator<Item = &'a Nic>, home: &Home, before: &[SimNic]) -> Vec<SimNic> {
    nics.map(|nic| SimNic::of(nic, home, before)).collect()
}

fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all
}
