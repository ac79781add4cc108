//! Disks of servers: made, plugged in and out, grown, throttled and removed, also while their server runs.
//!
//! A server's machine knows its disks by their files, not by the names that they have in it: those
//! change when a disk between others is taken away. What runs and what is started next time are
//! looked at apart, for an order may have been cut off between them.

use std::time::Duration;

use adapters_libvirt::{
    Affects, Connection, Domain, Limit,
    description::{Description, DiskDevice, Source},
};
use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::{
    disk::{Actual, Disk, Home, Limits, Order, Rate},
    placement::ServerId,
    server::{hardware::DiskBus, parts},
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Inner, Step, fault::libvirt, find, state, wanted};
use crate::storage::any::Storage;

/// How long a guest may take to let a disk go.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The machine of the server that a disk is plugged into, where libvirt knows it.
struct Machine {
    domain: Domain,
    /// What is to be changed: what is started next time, and before it what runs.
    of: Vec<Affects>,
}

/// libvirt's words for a disk's limits.
pub(super) fn limits(of: &Limits) -> adapters_libvirt::Limits {
    let mut all = adapters_libvirt::Limits::new();
    for (rate, [limit, burst, seconds]) in named(of) {
        let Some(rate) = rate else { continue };
        all.insert(limit, rate.rate);
        if let Some(most) = rate.burst {
            all.insert(burst, most);
            all.insert(seconds, rate.burst_seconds.unwrap_or(1).into());
        }
    }
    all
}

fn named(of: &Limits) -> [(Option<Rate>, [Limit; 3]); 4] {
    use Limit as L;
    [
        (of.read_bytes, [L::ReadBytes, L::ReadBytesBurst, L::ReadBytesBurstSeconds]),
        (of.write_bytes, [L::WriteBytes, L::WriteBytesBurst, L::WriteBytesBurstSeconds]),
        (
            of.read_operations,
            [L::ReadOperations, L::ReadOperationsBurst, L::ReadOperationsBurstSeconds],
        ),
        (
            of.write_operations,
            [L::WriteOperations, L::WriteOperationsBurst, L::WriteOperationsBurstSeconds],
        ),
    ]
}

/// A disk's limits in our words.
fn read_limits(all: &adapters_libvirt::Limits) -> Limits {
    let rate = |[limit, burst, seconds]: [Limit; 3]| {
        let burst = all.get(&burst).copied();
        let seconds = all.get(&seconds).and_then(|seconds| u32::try_from(*seconds).ok());
        let rate = *all.get(&limit)?;
        Some(Rate { rate, burst, burst_seconds: burst.and(seconds) })
    };
    let [read_bytes, write_bytes, read_operations, write_operations] =
        named(&Limits::default()).map(|(_, names)| rate(names));
    Limits { read_bytes, write_bytes, read_operations, write_operations }
}

/// The disk of a machine that has this file.
fn plugged<'a>(machine: &'a Description, path: &str) -> Option<&'a DiskDevice> {
    machine.disks.iter().find(|disk| match &disk.source {
        Some(Source::File(file) | Source::Block(file)) => file == path,
        None => false,
    })
}

pub(super) async fn described(
    wire: &Connection,
    domain: &Domain,
    of: Affects,
) -> Result<Description, DriverFault> {
    let xml = wire.xml(domain, of).await.map_err(libvirt)?;
    Description::read(&xml).map_err(|no| DriverFault::Unexpected(no.to_string()))
}

impl Inner {
    /// An order of a disk.
    pub(super) async fn carry_out_of_disk(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let unexpected = |fault: serde_json::Error| DriverFault::Unexpected(fault.to_string());
        let disk: Disk = serde_json::from_value(task.subject.clone()).map_err(unexpected)?;
        let order: Order = serde_json::from_value(task.order.clone()).map_err(unexpected)?;
        let home = disk.home.ok_or_else(|| DriverFault::Unexpected("a disk of a cloud".into()))?;
        let number = task.key.number;
        // One order of a server and its disks at a time.
        let _turn = self.turn(home.server.map_or(home.id, ServerId::uuid)).await;
        let wire = self.wire.get().await?;
        let machine = self.machine(&wire, &home).await?;
        let machine = machine.as_ref();
        let lease = home.leases.as_ref().and_then(|leases| leases.of(home.host));
        let storage = self.storage_of(home.storage).await?.on(lease);
        match order {
            Order::Attach {} => self.plug_disk(&wire, machine, &home, &storage).await?,
            Order::Create {} => {
                let (format, bytes) = (wanted::format(home.format), home.size_gib << 30);
                match &home.source {
                    Some(source) => {
                        let disk = (home.id, format, bytes);
                        let with = (&task.stores, &task.leases);
                        self.make_from(&storage, disk, source, with).await?;
                    }
                    None => {
                        let make = async { Ok(storage.create(home.id, format, bytes).await?) };
                        self.step(Step::Disks, home.id, make).await?;
                    }
                }
                self.plug_disk(&wire, machine, &home, &storage).await?;
            }
            Order::Detach {} => {
                self.unplug_disk(&wire, machine, &home).await?;
                storage.rest(home.id).await?;
                self.note_volume(&home, false).await?;
            }
            Order::Grow {} => {
                let grow = self.grow_disk(&wire, machine, &home, &storage);
                self.step(Step::DiskGrow, home.id, grow).await?;
            }
            Order::Remove {} => {
                self.unplug_disk(&wire, machine, &home).await?;
                let clear = async { Ok(storage.delete(home.id).await?) };
                self.step(Step::Clear, home.id, clear).await?;
                return Ok(Report { verb: "confirm-removal", body: json!({"number": number}) });
            }
            Order::Restore { .. } => {
                let why = "it is written back where backups are".to_owned();
                return Err(DriverFault::Unexpected(why));
            }
            Order::Throttle {} => self.throttle(&wire, machine, &home).await?,
        }
        let seen = self.actual(&wire, machine, &home).await?;
        Ok(Report { verb: "confirm", body: json!({"number": number, "seen": seen}) })
    }

    async fn machine(
        &self,
        wire: &Connection,
        home: &Home,
    ) -> Result<Option<Machine>, DriverFault> {
        let Some(server) = home.server else { return Ok(None) };
        let Some(domain) = find(wire, server.uuid()).await? else { return Ok(None) };
        let active = state(wire, &domain).await?.is_active();
        let of = if active { vec![Affects::Live, Affects::Config] } else { vec![Affects::Config] };
        Ok(Some(Machine { domain, of }))
    }

    /// Where it lies: on the host alone, or on a storage that is mounted now.
    async fn path(&self, home: &Home) -> Result<String, DriverFault> {
        if let Some(path) = &home.in_place {
            return Ok(path.clone());
        }
        let storage = self.storage_of(home.storage).await?;
        Ok(storage.path(home.id, wanted::format(home.format)).display().to_string())
    }

    /// The machine has it from now on, with its limits.
    async fn plug_disk(
        &self,
        wire: &Connection,
        machine: Option<&Machine>,
        home: &Home,
        storage: &Storage,
    ) -> Result<(), DriverFault> {
        let path = self.path(home).await?;
        let plug = async {
            let Some(Machine { domain, of }) = machine else { return Ok(()) };
            // First: a server that goes elsewhere leaves none behind that nobody knows of.
            self.note_volume(home, true).await?;
            storage.ready(home.id).await?;
            for of in of {
                let is = described(wire, domain, *of).await?;
                if plugged(&is, &path).is_some() {
                    continue;
                }
                let target = free_target(wire, machine).await?;
                let device = self.device(home, target).await?;
                wire.attach(domain, &device.xml(), *of).await.map_err(libvirt)?;
            }
            Ok(())
        };
        self.step(Step::DiskPlug, home.id, plug).await?;
        self.throttle(wire, machine, home).await
    }

    async fn device(&self, home: &Home, target: String) -> Result<DiskDevice, DriverFault> {
        let part = parts::Disk {
            id: home.id,
            size_gib: home.size_gib,
            format: home.format,
            from_image: false,
            limits: home.limits,
            storage: home.storage,
            leased: home.leases.is_some(),
            source: None,
            in_place: home.in_place.clone(),
        };
        let layout = self.lies().await?;
        Ok(DiskDevice { target, boot: None, ..wanted::disk((0, DiskBus::Virtio), &part, &layout)? })
    }

    /// The machine has it no more.
    async fn unplug_disk(
        &self,
        wire: &Connection,
        machine: Option<&Machine>,
        home: &Home,
    ) -> Result<(), DriverFault> {
        let path = self.path(home).await?;
        let unplug = async {
            let Some(Machine { domain, of }) = machine else { return Ok(()) };
            // What is started next time first: a guest may never let it go.
            for of in of.iter().rev() {
                let until = Instant::now() + LEAVE_PATIENCE;
                let mut asked = false;
                loop {
                    let is = described(wire, domain, *of).await?;
                    let Some(device) = plugged(&is, &path) else { break };
                    if !asked {
                        match wire.detach(domain, &device.xml(), *of).await {
                            // One that is being let go already is not asked a second time.
                            Err(fault) if fault.code().is_some() => {
                                tracing::debug!(%fault, disk = %home.id, "a disk is asked for in vain");
                            }
                            asked => asked.map_err(libvirt)?,
                        }
                        asked = true;
                    }
                    if Instant::now() >= until {
                        let why = "the guest does not let the disk go: it may still start, or have no \
                                   driver for that";
                        return Err(DriverFault::Transient(why.to_owned()));
                    }
                    sleep(LOOK_AGAIN).await;
                }
            }
            Ok(())
        };
        self.step(Step::DiskUnplug, home.id, unplug).await
    }

    async fn grow_disk(
        &self,
        wire: &Connection,
        machine: Option<&Machine>,
        home: &Home,
        storage: &Storage,
    ) -> Result<(), DriverFault> {
        let bytes = home.size_gib << 30;
        match storage {
            // It is grown beneath its server, which is told when what was added is zeroes.
            Storage::Group(group) => drop(group.grow(home.id, bytes).await?),
            Storage::Folder(folder) if folder.inspect(home.id).await?.size_bytes >= bytes => {
                return Ok(());
            }
            Storage::Folder(_) => {}
        }
        if let Some(Machine { domain, of }) = machine
            && of.contains(&Affects::Live)
            && let Some(device) =
                plugged(&described(wire, domain, Affects::Live).await?, &self.path(home).await?)
        {
            return wire.resize_disk(domain, &device.target, bytes).await.map_err(libvirt);
        }
        storage.grow(home.id, bytes).await?;
        Ok(())
    }

    async fn throttle(
        &self,
        wire: &Connection,
        machine: Option<&Machine>,
        home: &Home,
    ) -> Result<(), DriverFault> {
        let (path, wanted) = (self.path(home).await?, limits(&home.limits));
        let throttle = async {
            let Some(Machine { domain, of }) = machine else { return Ok(()) };
            for of in of {
                let is = described(wire, domain, *of).await?;
                let Some(device) = plugged(&is, &path) else { continue };
                let now = wire.limits(domain, &device.target, *of).await.map_err(libvirt)?;
                if now != wanted {
                    let set = wire.change_limits(domain, &device.target, &now, &wanted, *of);
                    set.await.map_err(libvirt)?;
                }
            }
            Ok(())
        };
        self.step(Step::DiskLimits, home.id, throttle).await
    }

    /// What is there of a disk, as the host's tools and libvirt say.
    async fn actual(
        &self,
        wire: &Connection,
        machine: Option<&Machine>,
        home: &Home,
    ) -> Result<Actual, DriverFault> {
        let disk = self.storage_of(home.storage).await?.inspect(home.id).await?;
        let mut actual =
            Actual { size_bytes: disk.size_bytes, taken_bytes: disk.taken_bytes, limits: None };
        if let Some(Machine { domain, of }) = machine
            && of.contains(&Affects::Live)
            && let Some(device) =
                plugged(&described(wire, domain, Affects::Live).await?, &self.path(home).await?)
        {
            let limits = wire.limits(domain, &device.target, Affects::Live).await;
            actual.limits = Some(read_limits(&limits.map_err(libvirt)?));
        }
        Ok(actual)
    }
}

/// A name that no disk of the machine has, now or when it is started next.
async fn free_target(wire: &Connection, machine: Option<&Machine>) -> Result<String, DriverFault> {
    let (mut taken, mut bus) = (Vec::new(), DiskBus::Virtio);
    if let Some(Machine { domain, of }) = machine {
        for of in of {
            let is = described(wire, domain, *of).await?;
            // Ours begin behind the drive of discs; a machine that was somebody's has a disk in its place.
            let is_disk = |name: &str| {
                let mut disks = is.disks.iter().filter(|disk| !disk.is_cdrom);
                disks.any(|disk| disk.target == name)
            };
            if is_disk("sdb") && !is_disk("sda") {
                bus = DiskBus::Sata;
            }
            taken.extend(is.disks.into_iter().map(|disk| disk.target));
        }
    }
    let mut names = (0..parts::DISKS_MAX).map(|at| wanted::target(at, bus));
    let free = names.find(|name| !taken.contains(name));
    free.ok_or_else(|| DriverFault::Rejected("the server has no room for another disk".to_owned()))
}
