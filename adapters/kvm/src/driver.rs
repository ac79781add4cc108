//! The driver of a host: it carries out what servers wait for, on libvirt and with the host's own
//! tools, and says what is there.
//!
//! ```text
//! let host = KvmHost::open(Options::new("/var/lib/skyledger/host")).await?;
//! host.guard().await?;                    // what the kernel forgot when the host restarted
//! let seen = host.sighting().await?;      // what the host is, for `sight`
//! let driver = host.driver(epoch);        // once the agent has joined: a `HostDriver`
//! let report = driver.carry_out(&task).await?;
//! let mut changes = host.changes();       // wakes when a server may have changed by itself
//! changes.changed().await?;
//! let powers = host.powers().await?;      // and this is what they do now
//! ```
//!
//! **Everything is looked at first and can be run again.** A launch takes the image into the cache and
//! makes the disks on it, writes the seed and plugs the server in, then defines it and starts it;
//! whatever of that is there already is left as it is, and after a crash anywhere the same order ends
//! in the same. The order of steps keeps a server from running without its rules: they are there before its
//! interfaces are. A removal goes the other way, and forgets a server last.
//!
//! ```text
//! <folder>/lock                    held by the agent that works for the host
//! <folder>/disks, images           see [`crate::storage`]
//! <folder>/cdroms/<server id>.…     what lies in its drive
//! <folder>/seeds/<server id>.img   what a server reads at its first boot
//! <folder>/consoles/<server id> what its serial line is reached by: a socket
//! <folder>/servers, bridges        what is written down: see `records`
//! <folder>/cpus-reserved.json      CPUs that no server gets: see `cpus`
//! <folder>/responder.lock, .log    of what tells servers their addresses: see `responder`
//! <folder>/backups              where disks are offered while they are backed up
//! <folder>/uploads/<sha-256>       an image that was brought by hand
//! ```
//!
//! A server's machine is called `sk-` and its id, and has its id as UUID. It is described from the
//! server's state alone, whenever it is started. One order of a server is carried out at a time.
//!
//! **Restarts** cannot be seen of a server that runs. So a reboot stops the machine and starts
//! another: which one was to stop is written down before it is.

mod addresses;
mod adopted;
mod backup;
mod backup_set;
mod bitmaps;
mod carry;
mod cdrom;
mod census;
mod companions;
mod console;
mod cpus;
mod devices;
mod disks;
mod fault;
mod fetch;
mod foreign;
mod functions;
mod kept;
mod migrate;
mod move_in;
mod nics;
mod operations;
mod pages;
mod plug;
mod reach;
mod rebuild;
mod records;
mod responder;
mod sighting;
mod snapshot;
mod steps;
mod transfer;
mod vgpu;
mod virtualisation;
mod volumes;
mod wanted;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::TryLockError,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use adapters_libvirt::{
    Affects, Code, Connection, Domain, Leave, Shutdown, State,
    description::{Description, Virtualisation},
};
use async_trait::async_trait;
use commands::ports::{DriverFault, HostDriver, HostTask, Pipe, Report};
use domain::{
    compute::{
        backup::Backup,
        backup_set::BackupSet,
        disk::Disk,
        host::{Host, HostSighting},
        image,
        move_in::MoveIn,
        server::{
            Machine, Order, Power, Server, console::ConsoleKind, home::Home, migrate::LIVE, parts,
        },
        snapshot::Snapshot,
        storage::lease::Lease,
    },
    kernel::{Decider as _, StreamId},
};
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard, watch},
    time::{Instant, timeout},
};
use uuid::Uuid;

pub use backup::Of;
pub use census::Census;
pub use companions::{Kernel, ThisKernel};
pub use migrate::Reached;
pub use move_in::PORTS;
pub use responder::respond;
pub use steps::{Hook, NoHook, Side, Step};

use self::{
    fault::libvirt,
    plug::Plugs,
    records::{Record, Records, Restart, names},
    responder::Responder,
    wanted::Layout,
    wire::Wire,
};
use crate::{
    network::{Interface, Place, offload, rates, uplink},
    observe::{self, Tree, devices::Kept},
    storage::{
        StorageFault,
        cache::{Cache, Digest, Source as ImageSource},
        directory::Directory,
        files, seed,
        shared::Shared,
        volume_group::VolumeGroups,
    },
};

/// How often a guest is asked again to stop: one that still starts does not hear it.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How often it is looked whether servers are still told their addresses.
const KEEP_RESPONDER: Duration = Duration::from_secs(2);
/// Every how many of these it is looked whether Open vSwitch has what was told to it.
const KEEP_SWITCHES: u64 = 5;

/// How a host is worked for.
#[derive(Clone)]
pub struct Options {
    /// The host's libvirt daemon.
    pub libvirt: adapters_libvirt::Options,
    /// Where everything of servers lies: an absolute path, on a file system with room for disks.
    pub folder: PathBuf,
    /// Where the host's network is.
    pub place: Place,
    /// Where the host's other files are seen from here: `/`, but where libvirt has mounts of its own.
    pub root: PathBuf,
    /// Where the kernel's files of devices are: `/`, but in tests.
    pub kernel: PathBuf,
    /// Who does what is written there about drivers.
    pub files: Arc<dyn Kernel>,
    /// What runs servers; found out by a start when it is none.
    pub virtualisation: Option<Virtualisation>,
    /// Devices that the host keeps for itself.
    pub kept: Kept,
    /// What the host reaches besides: segments, for instance.
    pub labels: BTreeSet<String>,
    /// Folders that other hosts reach as well, each with its id in it: see [`crate::storage::shared`].
    pub storages: Vec<PathBuf>,
    /// Volume groups that disks may lie in, each with its id as a tag: see
    /// [`crate::storage::volume_group`].
    pub volume_groups: VolumeGroups,
    /// What images may take that no disk reads from, in bytes: when another comes, the longest unused of them go
    /// until the rest is within it. None go when it is none.
    pub images_max_bytes: Option<u64>,
    /// How other hosts reach it, where it takes servers that run there.
    pub reached: Option<Reached>,
    /// What is run to reach a port of a guest, in words, with the port and the guest's addresses behind them: a
    /// process that calls [`crate::network::reach::carry`]. This program's own `reach` when it is empty.
    pub reacher: Vec<String>,
    /// What is run to tell servers their addresses, in words: a process that calls [`respond`]. This program's
    /// own `responder` when it is empty.
    pub responder: Vec<String>,
    /// How long a guest may take to stop before its power is taken away.
    pub stop_patience: Duration,
    /// For tests: asked at every step.
    pub hook: Arc<dyn Hook>,
}

impl Options {
    /// This machine, with its files in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            libvirt: adapters_libvirt::Options::system(),
            folder: folder.into(),
            place: Place::default(),
            root: PathBuf::from("/"),
            kernel: PathBuf::from("/"),
            files: Arc::new(ThisKernel),
            virtualisation: None,
            kept: Kept::default(),
            labels: BTreeSet::new(),
            storages: Vec::new(),
            volume_groups: VolumeGroups::default(),
            images_max_bytes: None,
            reached: None,
            reacher: Vec::new(),
            responder: Vec::new(),
            stop_patience: Duration::from_secs(90),
            hook: Arc::new(NoHook),
        }
    }
}

/// What runs servers on this machine, found out by a start.
///
/// # Errors
/// libvirt cannot be asked, or the processor is of no kind that servers run on.
pub async fn virtualisation(wire: &Connection) -> Result<Virtualisation, DriverFault> {
    let architecture = observe::topology::read(&Tree::at("/"))?.architecture()?;
    virtualisation::probe(wire, architecture).await
}

/// What a server does, as its host sees it: what the server's `notice` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The number of the last order of it that was begun here.
    pub number: u64,
    /// Whether it runs.
    pub power: Power,
}

/// A host that servers run on. Clones are the same host.
#[derive(Clone)]
pub struct KvmHost {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    wire: Wire,
    layout: Layout,
    storage: Directory,
    groups: VolumeGroups,
    images: Cache,
    records: Records,
    plugs: Plugs,
    cpus: cpus::Keeper,
    virtualisation: OnceCell<Virtualisation>,
    turns: Turns,
    /// Held while libvirt is asked to send a server, whatever becomes of who asked.
    sending: Turns,
    /// Held while it is chosen what a server's vGPUs are.
    seating: AsyncMutex<()>,
    /// Held as long as this works for the host.
    _alone: std::fs::File,
}

impl KvmHost {
    /// Begins to work for the host. libvirt need not be there yet.
    ///
    /// # Errors
    /// Its folder cannot be made, or another agent works with it.
    pub async fn open(options: Options) -> Result<Self, DriverFault> {
        let folder = options.folder.clone();
        let shared = Shared::new(options.storages.clone())?;
        let storage = Directory::open_with(&folder, shared).await?;
        let images = Cache::open(&folder).await?;
        let records = Records::open(&folder).await?;
        let layout = Layout::of(&folder);
        let [backups, uploads] = ["backups", "uploads"].map(|name| folder.join(name));
        for folder in [&layout.cdroms, &layout.consoles, &layout.seeds, &backups, &uploads] {
            let made = tokio::fs::create_dir_all(folder).await;
            made.map_err(StorageFault::file("cannot make", folder))?;
        }
        let alone = lock(&folder.join("lock"))?;
        let inner = Inner {
            wire: Wire::new(options.libvirt.clone()),
            layout,
            storage,
            groups: options.volume_groups.clone(),
            images,
            records,
            cpus: cpus::Keeper::open(&folder).await?,
            plugs: Plugs::new(
                options.place.clone(),
                Responder::new(&folder, responder(&options)?, options.place.clone()),
            ),
            virtualisation: OnceCell::new_with(options.virtualisation),
            turns: Turns::default(),
            sending: Turns::default(),
            seating: AsyncMutex::default(),
            options,
            _alone: alone,
        };
        let inner = Arc::new(inner);
        tokio::spawn(keep_responder(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// What carries orders out, for an agent that has joined in this epoch.
    pub fn driver(&self, epoch: u64) -> Arc<dyn HostDriver> {
        Arc::new(Joined { host: self.clone(), epoch })
    }

    /// What the host is now.
    ///
    /// # Errors
    /// libvirt cannot be reached, or the kernel's files do not read.
    pub async fn sighting(&self) -> Result<HostSighting, DriverFault> {
        let inner = &self.inner;
        let mut kept = inner.options.kept.clone();
        kept.made.extend(inner.made_devices().await?);
        kept.seated = inner.seated_vgpus().await?;
        kept.cards = inner.cards().await?;
        let kernel = Tree::at(&inner.options.kernel);
        let mut observed = sighting::observe(kernel, kept, &inner.options.place).await?;
        observed.cells = inner.without_others(observed.cells, &observed.taken).await?;
        let virtualisation = inner.virtualisation().await?;
        let wire = inner.wire.get().await?;
        let mut labels = inner.options.labels.clone();
        labels.extend(inner.options.reached.iter().map(|_| LIVE.to_owned()));
        let seen = sighting::sighting(&wire, observed, virtualisation, labels).await?;
        let mut storages: BTreeSet<_> = inner.storage.shared().there().await.into_keys().collect();
        let groups = inner.groups.there().await?;
        storages.extend(groups.keys());
        let mut volume_groups = BTreeMap::new();
        for (id, group) in groups {
            volume_groups.insert(id, group.facts().await?);
        }
        let own = inner.records.bridges().await?;
        let carriers = Some(uplink::carriers(&inner.options.place, &own).await?);
        let machines = inner.foreign().await?;
        Ok(HostSighting { storages, volume_groups, carriers, machines, ..seen })
    }

    /// Wakes when a server may have changed by itself, and when what happened may have been missed.
    /// There is nothing in it: [`Self::powers`] says what is there.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.wire.changes()
    }

    /// What the host's servers do now. Opens the connection to libvirt again when it was lost. What was taken
    /// from the host's drivers for a server that has ended goes back to them.
    ///
    /// # Errors
    /// libvirt cannot be reached.
    pub async fn powers(&self) -> Result<BTreeMap<Uuid, Seen>, DriverFault> {
        // First: an order that begins meanwhile makes what is seen of its server worth nothing.
        let records = self.inner.records.all().await?;
        let powers = self.inner.powers().await?.into_iter().map(|(server, power)| {
            let number = records.get(&server).map_or(0, |record| record.number);
            (server, Seen { number, power })
        });
        let powers = powers.collect();
        self.inner.end_companions(&powers).await;
        Ok(powers)
    }

    /// Everything that is on the host of its servers.
    ///
    /// # Errors
    /// Something cannot be looked at.
    pub async fn census(&self) -> Result<Census, DriverFault> {
        let inner = &self.inner;
        let set = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>();
        let records = inner.records.all().await?;
        let mut disks = set(names(inner.storage.folder()).await?);
        for group in inner.groups.there().await?.into_values() {
            disks.extend(group.list().await?);
        }
        if files::exists(inner.storage.placed_folder()).await? {
            disks.extend(names(inner.storage.placed_folder()).await?);
        }
        let ports = records.values().flat_map(|record| &record.ports);
        let through: BTreeSet<String> = ports
            .filter_map(|port| Some(rates::through(&port.tap.parse::<Interface>().ok()?)))
            .collect();
        let links = inner.plugs.links().await?;
        let is_ours = |name: &str| {
            let digits = name.strip_prefix("sk").filter(|digits| digits.len() == 12);
            let is_tap = digits.is_some_and(|it| it.bytes().all(|one| one.is_ascii_hexdigit()));
            is_tap || through.contains(name)
        };
        Ok(Census {
            servers: inner.powers().await?,
            processes: census::processes(&inner.options.folder),
            disks,
            cdroms: set(names(&inner.layout.cdroms).await?),
            seeds: set(names(&inner.layout.seeds).await?),
            records: set(names(&inner.options.folder.join("servers")).await?),
            interfaces: links.keys().filter(|name| is_ours(name)).cloned().collect(),
            guarded: inner.plugs.guarded().await?,
            counted: inner.plugs.counted().await?.into_keys().collect(),
            bridges: set(inner.records.bridges().await?),
            // Where there is no Open vSwitch, or none that runs, there are none.
            switches: offload::there(&inner.options.place).await.unwrap_or_default(),
            responder: inner.plugs.responder().is_there(),
        })
    }

    /// What is written down, enforced again: the kernel forgets it when the host restarts. An agent
    /// does this before anything else.
    ///
    /// # Errors
    /// The host's tools'.
    pub async fn guard(&self) -> Result<(), DriverFault> {
        self.inner.plugs.guard(&self.inner.records).await?;
        self.thaw_all().await
    }

    /// No server runs on these logical CPUs from now on, as far as others are left to it.
    ///
    /// # Errors
    /// libvirt cannot be reached, or its folder cannot be written.
    pub async fn reserve_cpus(&self, cpus: &BTreeSet<u32>) -> Result<(), DriverFault> {
        self.inner.reserve_cpus(cpus).await
    }

    /// Carries out one order of a server.
    ///
    /// # Errors
    /// What [`HostDriver::carry_out`] says.
    pub async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        self.inner.place_disks(task.state.home.as_ref()).await?;
        match task.key.stream.kind.as_str() {
            Backup::KIND => Box::pin(self.carry_out_of_backup(task)).await,
            BackupSet::KIND => Box::pin(self.carry_out_of_backup_set(task)).await,
            Disk::KIND if task.order["type"] == "restore" => Box::pin(self.restore(task)).await,
            Snapshot::KIND => Box::pin(self.carry_out_of_snapshot(task)).await,
            _ => self.inner.carry_out(task).await,
        }
    }
}

impl Inner {
    /// What runs servers here.
    async fn virtualisation(&self) -> Result<Virtualisation, DriverFault> {
        let find_out = || async {
            let wire = self.wire.get().await?;
            virtualisation(&wire).await
        };
        self.virtualisation.get_or_try_init(find_out).await.copied()
    }

    /// Whether servers run, as libvirt says.
    async fn powers(&self) -> Result<BTreeMap<Uuid, Power>, DriverFault> {
        let adopted = self.records.adopted().await?;
        let wire = self.wire.get().await?;
        let mut powers = BTreeMap::new();
        for domain in wire.domains().await.map_err(libvirt)? {
            let known = adopted.contains(&domain.uuid).then_some(domain.uuid);
            let Some(server) = known.or_else(|| wanted::server_of(&domain.name, domain.uuid))
            else {
                continue;
            };
            match wire.state(&domain).await {
                Ok((state, _)) => drop(powers.insert(server, power(state))),
                // It went while we looked.
                Err(fault) if fault.is(Code::NO_DOMAIN) => {}
                Err(fault) => return Err(libvirt(fault)),
            }
        }
        Ok(powers)
    }

    /// Writes down that an order begins.
    async fn begin(&self, work: &Work<'_>, order: &Order) -> Result<(), DriverFault> {
        let record = self.records.read(work.server).await?.unwrap_or_default();
        let cpus = Some(Self::cpus_during(work, order)?);
        let record = Record { number: work.number, cpus, ..record };
        self.records.write(work.server, &record).await?;
        self.clear_cpus(work.server).await
    }

    async fn turn(&self, server: Uuid) -> Turn {
        self.turns.of(server).await
    }

    /// One step, with what a test wants to happen around it.
    async fn step<T>(
        &self,
        step: Step,
        server: Uuid,
        work: impl Future<Output = Result<T, DriverFault>>,
    ) -> Result<T, DriverFault> {
        self.options.hook.at(step, Side::Before, server).await?;
        let done = work.await?;
        self.options.hook.at(step, Side::After, server).await?;
        Ok(done)
    }

    async fn launch(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let (server, home) = (work.server, work.home);
        // Looked at before anything is made: what can never run leaves nothing.
        let machine = self.describe(work).await?;
        let documents = wanted::documents(server, home, work.userdata)?;
        let path = self.layout.seed(server);
        let write = async { Ok(seed::write(&path, documents.files()).await?) };
        let write = self.step(Step::Seed, server, write);
        if let Some(cdrom) = &home.parts.cdrom {
            self.lay_disc(server, cdrom).await?;
        }
        // Three that have nothing to do with each other, and wait for tools most of the time.
        tokio::try_join!(self.make_disks(work), write, self.plug(work))?;
        self.run(work, &machine).await
    }

    /// Its bridges and its rules are there.
    async fn plug(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let ports = wanted::ports(work.home.parts.nics.iter(), work.home);
        let functions = self.function_ports(work.home).await?;
        let plug = async {
            self.plugs.plug(&self.records, work.server, ports).await?;
            self.plugs.plug_functions(&self.records, work.server, functions).await
        };
        self.step(Step::Network, work.server, plug).await
    }

    /// Makes a server run that has its files and its rules.
    async fn run(&self, work: &Work<'_>, machine: &Description) -> Result<(), DriverFault> {
        let server = work.server;
        self.activate(work).await?;
        self.prepare_devices(work).await?;
        let wire = self.wire.get().await?;
        let domain = self.step(Step::Define, server, self.define(&wire, machine)).await?;
        self.step(Step::Start, server, start(&wire, &domain)).await?;
        self.limit_new(work).await
    }

    async fn describe(&self, work: &Work<'_>) -> Result<Description, DriverFault> {
        let virtualisation = self.virtualisation().await?;
        let holding = &work.home.placement.holding;
        let vgpus = self.seat_vgpus(work.server, holding).await?;
        let usb = if holding.devices.iter().any(|id| id.starts_with("usb:")) {
            let number = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
            let place = |(place, usb): (String, observe::devices::Usb)| {
                (place, wanted::Usb { at: (number(usb.bus), number(usb.number)), model: usb.model })
            };
            self.look().await?.usb.into_iter().map(place).collect()
        } else {
            BTreeMap::new()
        };
        let places = wanted::Places { usb, vgpus };
        let (server, home) = (work.server, work.home);
        let layout = self.lies().await?;
        let mut machine =
            wanted::description(server, home, work.number, &layout, virtualisation, &places)?;
        self.bind_shared(&mut machine, &home.placement.holding).await?;
        Ok(machine)
    }

    /// Tells libvirt of a machine, unless it knows of it already.
    async fn define(
        &self,
        wire: &Connection,
        machine: &Description,
    ) -> Result<Domain, DriverFault> {
        if let Some(domain) = find(wire, machine.uuid).await? {
            let xml = wire.xml(&domain, Affects::Config).await.map_err(libvirt)?;
            let is_it = |there: Description| {
                (there.position, &there.devices) == (machine.position, &machine.devices)
            };
            if Description::read(&xml).is_ok_and(is_it) {
                return Ok(domain);
            }
        }
        wire.define(&machine.xml()).await.map_err(libvirt)
    }

    async fn make_disks(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let (server, parts) = (work.server, &work.home.parts);
        // It is not removed from the cache while a disk is made on it.
        let image = match &parts.image {
            None => None,
            Some(image) => {
                let of_it = parts.disks.iter().filter(|disk| disk.from_image);
                let least = of_it.map(|disk| disk.size_gib << 30).min().unwrap_or(0);
                Some(self.step(Step::Image, server, self.take(image, least)).await?)
            }
        };
        let make = async {
            for disk in &parts.disks {
                let (format, bytes) = (wanted::format(disk.format), disk.size_gib << 30);
                let lease = work.leases.get(&disk.id).copied();
                let storage = self.storage_of(disk.storage).await?.on(lease);
                if let Some(source) = &disk.source {
                    let disk = (disk.id, format, bytes);
                    let with = (work.stores, work.leases);
                    self.make_from(&storage, disk, source, with).await?;
                    continue;
                }
                match image.as_ref().filter(|_| disk.from_image) {
                    None => storage.create(disk.id, format, bytes).await?,
                    Some(image) => {
                        // Another host has not the same images.
                        let on_image = disk.storage.is_none();
                        storage.copy(disk.id, format, image.origin(), bytes, on_image).await?
                    }
                };
            }
            Ok(())
        };
        self.step(Step::Disks, server, make).await
    }

    /// Takes an image into the cache, unless it is there, for a disk of so many bytes.
    async fn take(
        &self,
        image: &parts::Image,
        disk_bytes: u64,
    ) -> Result<crate::storage::cache::Image, DriverFault> {
        let digest = Digest::read(&image.sha256)?;
        let most = image.size_mib << 20;
        let brought = self.options.folder.join("uploads").join(digest.as_str());
        let fetched;
        let from: &dyn ImageSource = match &image.source {
            _ if files::exists(&brought).await? => &brought,
            image::Source::Url(url) => {
                fetched = fetch::Address(url.clone());
                &fetched
            }
            // What lies in a store comes with an address in place of that.
            image::Source::Backup(_)
            | image::Source::Disk(_)
            | image::Source::Store(_)
            | image::Source::Upload => {
                if let Some(kept) = self.images.use_kept(&digest).await? {
                    return Ok(kept);
                }
                let why = format!(
                    "the image is not on this host: bring its file to {}",
                    brought.display()
                );
                return Err(DriverFault::Rejected(why));
            }
        };
        let taken = self.images.take(&digest, from, most, disk_bytes).await?;
        self.drop_images().await;
        Ok(taken)
    }

    /// Images that nobody needs go where they are too much: not what a launch fails for.
    async fn drop_images(&self) {
        let Some(most) = self.options.images_max_bytes else { return };
        match self.images.evict(most, &BTreeSet::new(), &self.storage).await {
            Ok(gone) => {
                for digest in gone {
                    tracing::info!(digest = digest.as_str(), "an image is removed from the cache");
                }
            }
            Err(fault) => tracing::warn!(%fault, "images stay that nobody needs"),
        }
    }

    /// Makes a server stop, by its own will or without it.
    async fn stop(&self, server: Uuid) -> Result<(), DriverFault> {
        let stop = async {
            let wire = self.wire.get().await?;
            let Some(domain) = find(&wire, server).await? else { return Ok(()) };
            let mut changes = self.wire.changes();
            let ends = Instant::now() + self.options.stop_patience;
            let mut ask_at = Instant::now();
            loop {
                changes.mark_unchanged();
                let state = state(&wire, &domain).await?;
                if !state.is_active() {
                    return Ok(());
                }
                // What is held hears nothing.
                let now = Instant::now();
                if now >= ends || matches!(state, State::Paused | State::Crashed) {
                    break;
                }
                if now >= ask_at {
                    ask_to_stop(&wire, &domain).await?;
                    ask_at = Instant::now() + ASK_AGAIN;
                }
                // Its end is told, and looked at.
                let _ = timeout(ask_at.min(ends).duration_since(now), changes.changed()).await;
            }
            power_off(&wire, &domain).await
        };
        self.step(Step::Stop, server, stop).await
    }

    /// Makes a server that was here before run, as its state says.
    async fn start(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        if work.home.adopted.is_some() {
            return self.start_adopted(work).await;
        }
        let machine = self.describe(work).await?;
        self.plug(work).await?;
        self.run(work, &machine).await
    }

    async fn reboot(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let (server, number) = (work.server, work.number);
        if work.home.adopted.is_none() {
            // Looked at before anything is stopped.
            self.describe(work).await?;
        }
        let wire = self.wire.get().await?;
        let runs = find(&wire, server).await?.and_then(|domain| domain.id);
        let mut record = self.records.read(server).await?.unwrap_or_default();
        let noted = record.restart.clone().filter(|restart| restart.number == number);
        let restart = match noted {
            Some(restart) => restart,
            None => {
                let restart = Restart { number, machine: runs };
                record.restart = Some(restart.clone());
                let note = async { Ok(self.records.write(server, &record).await?) };
                self.step(Step::Note, server, note).await?;
                restart
            }
        };
        if runs.is_some() && runs == restart.machine {
            self.stop(server).await?;
        }
        self.start(work).await
    }

    async fn remove(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let disks = |_| async {
            // What lay here before its server was ours is left where it lies.
            for disk in &work.home.parts.disks {
                let lease = work.leases.get(&disk.id).copied();
                self.storage_of(disk.storage).await?.on(lease).delete(disk.id).await?;
            }
            Ok(())
        };
        self.forget(work.server, disks).await
    }

    /// What is there of a server now.
    async fn seen(&self, server: Uuid, home: &Home) -> Result<Machine, DriverFault> {
        let wire = self.wire.get().await?;
        let domain = find(&wire, server).await?;
        let domain = domain.ok_or_else(|| DriverFault::NotFound(wanted::name(server)))?;
        let state = state(&wire, &domain).await?;
        let of = if state.is_active() { Affects::Live } else { Affects::Config };
        let xml = wire.xml(&domain, of).await.map_err(libvirt)?;
        let is = Description::read(&xml).map_err(|no| DriverFault::Unexpected(no.to_string()))?;
        let record = self.records.read(server).await?.unwrap_or_default();
        let disks = is.disks.iter().filter_map(|disk| self.disk_of(disk.source.as_ref()?));
        let disks = disks.map(|disk| disk.to_string()).chain(adopted::in_place(home, &is));
        let mut seen = machine(home, &is, state, &record, disks.collect());
        adopted::as_found(home, &record, &mut seen);
        let vgpus = self.seen_vgpus(&record)?;
        seen.nics = self.seen_nics(&is, state, server, record).await?;
        seen.functions = self.seen_functions(home).await?;
        seen.vgpus = vgpus;
        Ok(seen)
    }

    /// Carries an order out; the report where it is not what is seen of the server.
    async fn order(&self, work: &Work<'_>, order: &Order) -> Result<Option<Report>, DriverFault> {
        match order {
            Order::Arrive { start, certain } => {
                return Box::pin(self.arrive(work, *start, *certain)).await;
            }
            Order::BreakOff {} => return Box::pin(self.broken_off(work)).await.map(Some),
            Order::ChangeAddresses { nic, found } => {
                return Box::pin(self.change_addresses(work, *nic, found)).await;
            }
            Order::Receive {} => return Box::pin(self.receive(work)).await.map(Some),
            Order::Release {} => return Box::pin(self.release(work)).await.map(Some),
            Order::Send { landing } => return Box::pin(self.send(work, landing)).await.map(Some),
            Order::Share {} => return Box::pin(self.share(work)).await.map(Some),
            Order::Remove {} => {
                Box::pin(self.remove(work)).await?;
                let body = json!({"number": work.number});
                return Ok(Some(Report { verb: "confirm-removal", body }));
            }
            order => self.change(work, order).await?,
        }
        Ok(None)
    }

    /// Carries out an order after which the server is there.
    async fn change(&self, work: &Work<'_>, order: &Order) -> Result<(), DriverFault> {
        match order {
            Order::Adopt { digest } => Box::pin(self.adopt(work, digest)).await,
            Order::AddNic { .. } | Order::ChangeNics {} | Order::RemoveNic { .. } => {
                Box::pin(self.change_nics(work, order)).await
            }
            Order::ChangeCdrom { image } => {
                Box::pin(self.change_cdrom(work, image.as_deref())).await
            }
            Order::ChangeDevices { placement, .. } => {
                Box::pin(self.change_devices(work, placement)).await
            }
            Order::Launch {} => Box::pin(self.launch(work)).await,
            Order::LeaveRescue { start } => Box::pin(self.leave_rescue(work, *start)).await,
            Order::Rescue { system, .. } => Box::pin(self.rescue(work, system)).await,
            Order::Rebuild { image, start } => Box::pin(self.rebuild(work, image, *start)).await,
            Order::Resize { vcpus, memory_mib, placement, .. } => {
                Box::pin(self.resize(work, (*vcpus, *memory_mib), placement)).await
            }
            Order::RestoreAddresses { nic, found } => {
                Box::pin(self.restore_addresses(work, *nic, found)).await
            }
            Order::Resume {} => self.resume(work).await,
            Order::SetPassword { user, .. } => self.set_password(work, user).await,
            Order::Suspend {} => self.suspend(work).await,
            Order::TakeBack {} => self.take_back(work).await,
            Order::Start {} => Box::pin(self.start(work)).await,
            Order::Stop {} => {
                self.stop(work.server).await?;
                self.let_companions_go(work.server).await
            }
            Order::Reboot {} => Box::pin(self.reboot(work)).await,
            Order::Arrive { .. }
            | Order::BreakOff {}
            | Order::ChangeAddresses { .. }
            | Order::Receive {}
            | Order::Release {}
            | Order::Remove {}
            | Order::Send { .. }
            | Order::Share {}
            | Order::SetTags { .. } => {
                Err(DriverFault::Unexpected("no order of a server that stays".to_owned()))
            }
        }
    }

    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let unexpected = |what: &str| DriverFault::Unexpected(what.to_owned());
        let StreamId { kind, id } = &task.key.stream;
        if kind == Disk::KIND {
            return Box::pin(self.carry_out_of_disk(task)).await;
        }
        if kind == Host::KIND {
            return Box::pin(self.clear_server(task)).await;
        }
        if kind == MoveIn::KIND {
            return Box::pin(self.carry_out_of_move_in(task)).await;
        }
        if kind != Server::KIND {
            let why =
                format!("this host carries out orders of servers and disks, and not of a {kind}");
            return Err(DriverFault::Rejected(why));
        }
        let server: Uuid = id.parse().map_err(|_| unexpected("the server's id"))?;
        let home = task.state.home.as_ref().ok_or_else(|| unexpected("a server of a cloud"))?;
        let order: Order = serde_json::from_value(task.order.clone())
            .map_err(|fault| DriverFault::Unexpected(fault.to_string()))?;
        let number = task.key.number;
        let (userdata, password) = (task.userdata.as_deref(), task.password.as_deref());
        let (stores, leases) = (&task.stores, &task.leases);
        let work = Work { server, home, number, userdata, password, stores, leases };
        let _turn = match order {
            Order::BreakOff {} => self.interrupt(server).await?,
            Order::Send { .. } => self.unless_overtaken(server, number).await?,
            _ => self.turn(server).await,
        };
        self.begin(&work, &order).await?;
        let done = self.order(&work, &order).await;
        if done.is_ok() {
            self.cpus_after(&work, &order).await?;
        }
        self.spread_after(server).await;
        if let Some(report) = done? {
            return Ok(report);
        }
        let seen = self.seen(server, home).await?;
        Ok(Report { verb: "confirm", body: json!({"number": number, "seen": seen}) })
    }
}

/// Holds a server for as long as it is there.
type Turn = OwnedMutexGuard<()>;

/// Who may do something with a server, one after the other.
#[derive(Default)]
struct Turns(Mutex<HashMap<Uuid, Arc<AsyncMutex<()>>>>);

impl Turns {
    async fn of(&self, server: Uuid) -> Turn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for are nobody's.
            turns.retain(|id, turn| *id == server || Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(server).or_default())
        };
        turn.lock_owned().await
    }

    /// None while somebody else does something with it.
    fn at_once(&self, server: Uuid) -> Option<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(server).or_default()).try_lock_owned().ok()
    }
}

/// What an order is about.
#[derive(Clone, Copy)]
struct Work<'a> {
    server: Uuid,
    home: &'a Home,
    number: u64,
    userdata: Option<&'a str>,
    password: Option<&'a str>,
    stores: &'a kept::Stores,
    leases: &'a BTreeMap<Uuid, Lease>,
}

/// A host, for an agent that has joined.
struct Joined {
    host: KvmHost,
    epoch: u64,
}

#[async_trait]
impl HostDriver for Joined {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        self.host.carry_out(task).await
    }

    async fn console(
        &self,
        call: Uuid,
        server: Uuid,
        console: ConsoleKind,
        lent: Option<Ipv4Addr>,
    ) -> Result<Pipe, DriverFault> {
        self.host.inner.console(call, server, console, lent).await
    }
}

/// What is run to tell servers their addresses.
fn responder(options: &Options) -> Result<Vec<String>, DriverFault> {
    if !options.responder.is_empty() {
        return Ok(options.responder.clone());
    }
    let program = std::env::current_exe()
        .map_err(|error| DriverFault::Transient(format!("this program's own file: {error}")))?;
    let words = [program.display().to_string(), "responder".to_owned(), "--data".to_owned()];
    Ok([&words[..], &[options.folder.display().to_string()]].concat())
}

/// As long as somebody works for the host, what tells servers their addresses is begun again when it is gone.
async fn keep_responder(host: Weak<Inner>) {
    for turn in 1_u64.. {
        tokio::time::sleep(KEEP_RESPONDER).await;
        let Some(inner) = host.upgrade() else { return };
        if turn.is_multiple_of(KEEP_SWITCHES)
            && let Err(fault) = inner.plugs.keep_switches(&inner.records).await
        {
            tracing::warn!(%fault, "virtual functions of servers may reach nobody");
        }
        if let Err(fault) = inner.plugs.responder().keep(&inner.records).await {
            tracing::warn!(%fault, "servers are not told their addresses");
        }
    }
}

fn lock(path: &Path) -> Result<std::fs::File, DriverFault> {
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(StorageFault::file("cannot make", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let why = format!("another agent works with {}", path.display());
            Err(DriverFault::Transient(why))
        }
        Err(TryLockError::Error(error)) => {
            Err(StorageFault::file("cannot lock", path)(error).into())
        }
    }
}

/// A server's machine; none when libvirt does not know it.
async fn find(wire: &Connection, server: Uuid) -> Result<Option<Domain>, DriverFault> {
    match wire.domain(server).await {
        Ok(domain) => Ok(Some(domain)),
        Err(fault) if fault.is(Code::NO_DOMAIN) => Ok(None),
        Err(fault) => Err(libvirt(fault)),
    }
}

async fn state(wire: &Connection, domain: &Domain) -> Result<State, DriverFault> {
    Ok(wire.state(domain).await.map_err(libvirt)?.0)
}

/// Makes it run, if it does not.
async fn start(wire: &Connection, domain: &Domain) -> Result<(), DriverFault> {
    match state(wire, domain).await? {
        State::Off | State::None => {}
        State::Paused => return wire.resume(domain).await.map_err(libvirt),
        State::Crashed => power_off(wire, domain).await?,
        _ => return Ok(()),
    }
    let Err(fault) = wire.start(domain, false).await else { return Ok(()) };
    // A start of ours whose answer was lost may have been done meanwhile.
    if fault.is(Code::OPERATION_INVALID) && state(wire, domain).await?.is_active() {
        return Ok(());
    }
    Err(libvirt(fault))
}

/// By its agent, or where none answers by the power button.
async fn ask_to_stop(wire: &Connection, domain: &Domain) -> Result<(), DriverFault> {
    for how in [Shutdown::Agent, Shutdown::PowerButton] {
        match wire.shutdown(domain, how).await {
            Ok(()) => return Ok(()),
            // It says no because there is no agent, or because it has stopped by now: the state tells.
            Err(fault) if fault.code().is_some() => {
                tracing::debug!(%fault, domain = domain.name, "a guest was asked to stop in vain");
            }
            Err(fault) => return Err(libvirt(fault)),
        }
    }
    Ok(())
}

/// Ends it. One that was only run is forgotten when it ends, and may do so by itself at any moment.
async fn power_off(wire: &Connection, domain: &Domain) -> Result<(), DriverFault> {
    let ended = match wire.state(domain).await {
        Ok((state, _)) if !state.is_active() => return Ok(()),
        Ok(_) => wire.destroy(domain).await,
        Err(fault) => Err(fault),
    };
    match ended {
        Err(fault) if !fault.is(Code::OPERATION_INVALID) && !fault.is(Code::NO_DOMAIN) => {
            Err(libvirt(fault))
        }
        _ => Ok(()),
    }
}

async fn undefine(wire: &Connection, domain: &Domain) -> Result<(), DriverFault> {
    let leave = Leave { saved_memory: true, snapshots: true, firmware: true, checkpoints: true };
    match wire.undefine(domain, leave).await {
        // One that was only run is gone with its end.
        Err(fault) if !fault.is(Code::NO_DOMAIN) => Err(libvirt(fault)),
        _ => Ok(()),
    }
}

fn power(state: State) -> Power {
    match state {
        State::Running | State::Blocked | State::Asleep => Power::Running,
        State::ShuttingDown => Power::Stopping,
        State::Off | State::Crashed => Power::Stopped,
        State::Paused => Power::Suspended,
        State::None | State::Other(_) => Power::Unknown,
    }
}

/// What is seen of a server: what libvirt says of its machine, and the addresses that its interfaces
/// may use on this host.
fn machine(
    home: &Home,
    is: &Description,
    state: State,
    record: &Record,
    mut disks: Vec<String>,
) -> Machine {
    let ports = record.ports.iter();
    let ports = ports.filter(|port| is.nics.iter().any(|nic| nic.mac == port.mac.to_string()));
    let mut addresses: Vec<_> = ports.flat_map(|port| &port.addresses).copied().collect();
    addresses.sort_unstable();
    disks.sort_unstable();
    Machine {
        name: home.name.clone(),
        power: power(state),
        shape: format!("{}x{}", is.vcpus, is.memory_kib >> 10),
        image: home.parts.image.as_ref().map(|image| image.id.to_string()),
        zone: None,
        vpc: None,
        network: home.parts.nics.first().map(|nic| nic.network.to_string()),
        addresses,
        security_groups: Vec::new(),
        disks,
        nics: Vec::new(),
        functions: BTreeMap::new(),
        vgpus: BTreeMap::new(),
        tags: home.tags.clone(),
    }
}
