//! Disks of servers are backed up into a store, and written back from there.
//!
//! ```text
//! a server runs      libvirt offers the disk as it is now ──► read, sent ──► the offer ends
//! it does not run    qemu-nbd offers it, and it is not started meanwhile ──► read, sent
//! ```
//!
//! Where the disk is qcow2, a checkpoint begins with the backup of a server that runs, and the next one
//! that is made on it reads only what was written since. It is given up for the next one's; with a fault
//! it goes with the backup. Where there is none any more, all of the disk is read; what has not changed
//! is not sent.
//!
//! A crash leaves an offer and its scratch file, which the same backup finds under its own name and ends
//! before it begins anew.

use std::path::{Path, PathBuf};

use adapters_backup::{
    Asked, Fault, Store,
    manifest::Manifest,
    nbd::{self, Offer},
    port,
};
use adapters_libvirt::{
    Affects, Code, Connection, Domain, Offered, Pull,
    description::{Description, Source},
};
use commands::ports::DriverFault;
use domain::compute::storage::lease::Lease;
use uuid::Uuid;

use super::{
    KvmHost, Step, bitmaps,
    fault::{chain, libvirt},
    find, state, wanted,
};
use crate::storage::{
    any::Storage,
    directory::Disk,
    export::{Access, Export},
    files,
    qemu_img::Format,
};

/// How long libvirt may take to end an offer.
const END_PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

/// A disk of a server, on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    /// The server.
    pub server: Uuid,
    /// The disk.
    pub disk: Uuid,
}

/// What the checkpoints of a disk begin with.
fn checkpoints(disk: Uuid) -> String {
    format!("sk-{disk}-")
}

pub(super) fn store(fault: Fault) -> DriverFault {
    match fault {
        Fault::Missing { .. } => DriverFault::Rejected(chain(&fault)),
        fault => port::driver_fault(&fault),
    }
}

impl KvmHost {
    /// Where a disk is offered for a backup. Short, for a socket's path may not be long.
    pub(super) fn socket(&self, backup: Uuid) -> PathBuf {
        self.inner.options.folder.join("backups").join(format!("{backup}.nbd"))
    }

    /// Backs a disk of a server up, running or not, or finds that it was backed up under this id.
    ///
    /// # Errors
    /// The disk is not there, another backup of the server goes on, or libvirt's, the host's or the
    /// store's. Then there is no backup, and it may be asked for again.
    pub async fn back_up(
        &self,
        of: Of,
        asked: &Asked,
        into: &Store,
    ) -> Result<Manifest, DriverFault> {
        let turn = self.inner.turn(of.server).await;
        let disk = self.inner.holder(of.disk).await?.ready(of.disk).await?;
        let wire = self.inner.wire.get().await?;
        let running = match find(&wire, of.server).await? {
            Some(domain) if state(&wire, &domain).await?.is_active() => Some(domain),
            _ => None,
        };
        let Some(domain) = running else {
            // The turn is kept: what is read is not started.
            let asked = Asked { checkpoint: None, ..asked.clone() };
            let taken = self.back_up_stopped(of, &asked, &disk, into).await;
            self.clear(asked.backup).await?;
            return taken;
        };
        let offered = self.offer(of, asked, &wire, &domain, &disk, into).await?;
        // It goes on for long, and the server may be stopped meanwhile, which ends it.
        drop(turn);
        let socket = self.socket(asked.backup);
        let bitmap = offered.since.as_ref().map(|_| Pull::bitmap(&offered.target));
        let asked = Asked { checkpoint: offered.checkpoint.clone(), ..asked.clone() };
        let taken = read(&socket, &offered.target, bitmap.as_deref(), &asked, into).await;
        let _turn = self.inner.turn(of.server).await;
        // Whatever came of it, it is offered no more.
        if state(&wire, &domain).await?.is_active() {
            self.end(asked.backup, &wire, &domain).await?;
            // The moment that the backup shows is the one that its manifest names: it may be of another
            // try. With a fault the one before is kept.
            let goes = |name: &String| match &taken {
                Ok(manifest) => manifest.checkpoint.as_ref() != Some(name),
                Err(_) => offered.checkpoint.as_ref() == Some(name),
            };
            let known = self.own_checkpoints(of.disk, &wire, &domain).await?;
            for name in known.iter().filter(|name| goes(name)) {
                drop_checkpoint(&wire, &domain, name).await?;
            }
        }
        self.clear(asked.backup).await?;
        taken
    }

    pub(super) async fn back_up_stopped(
        &self,
        of: Of,
        asked: &Asked,
        disk: &Disk,
        into: &Store,
    ) -> Result<Manifest, DriverFault> {
        let socket = self.socket(asked.backup);
        let open =
            async { Ok(Export::open(&disk.path, disk.format, Access::Read, &socket).await?) };
        let export = self.inner.step(Step::Offer, of.server, open).await?;
        let taken = read(&socket, "", None, asked, into).await?;
        export.close().await?;
        Ok(taken)
    }

    async fn own_checkpoints(
        &self,
        disk: Uuid,
        wire: &Connection,
        domain: &Domain,
    ) -> Result<Vec<String>, DriverFault> {
        own_checkpoints(disk, wire, domain).await
    }

    /// Nobody counts on what is known of changes of a disk any more.
    pub(super) async fn forget_changes(
        &self,
        disk: Uuid,
        wire: &Connection,
        domain: &Domain,
    ) -> Result<(), DriverFault> {
        for name in self.own_checkpoints(disk, wire, domain).await? {
            wire.forget_checkpoint(domain, &name).await.map_err(libvirt)?;
        }
        Ok(())
    }

    /// Ends what a backup of this id has begun.
    pub(super) async fn end(
        &self,
        backup: Uuid,
        wire: &Connection,
        domain: &Domain,
    ) -> Result<(), DriverFault> {
        let socket = self.socket(backup);
        if let Some(going) = wire.backup(domain).await.map_err(libvirt)? {
            if !going.contains(&socket.display().to_string()) {
                let why = format!("another backup of {} goes on", domain.name);
                return Err(DriverFault::Transient(why));
            }
            wire.end_backup(domain, END_PATIENCE).await.map_err(libvirt)?;
        }
        self.clear(backup).await
    }

    async fn offer(
        &self,
        of: Of,
        asked: &Asked,
        wire: &Connection,
        domain: &Domain,
        disk: &Disk,
        into: &Store,
    ) -> Result<Begun, DriverFault> {
        self.end(asked.backup, wire, domain).await?;
        let targets = self.targets(wire, domain).await?;
        let is_it = |path: &&(String, PathBuf)| path.1 == disk.path;
        let target = targets.iter().find(is_it).map(|(target, _)| target.clone());
        let target = target.ok_or_else(|| {
            DriverFault::Rejected(format!("{} does not have disk {}", domain.name, of.disk))
        })?;
        let has_checkpoints = disk.format == Format::Qcow2;
        let known = self.own_checkpoints(of.disk, wire, domain).await?;
        if has_checkpoints {
            bitmaps::forget(wire, domain, disk, (&checkpoints(of.disk), &known)).await?;
        }
        let since = match asked.parent.filter(|_| has_checkpoints) {
            Some(parent) => into.manifest(of.disk, parent, None).await.map_err(store)?.checkpoint,
            None => None,
        };
        let since = since.filter(|name| known.contains(name));
        // Of this try alone: what shows another moment has another name.
        let attempt = adapters_backup::random_id().map_err(store)?;
        let mine = format!("{}{attempt}", checkpoints(of.disk));
        let socket = self.socket(asked.backup);
        let mut pull = Pull {
            socket: socket.display().to_string(),
            disks: vec![Offered {
                target: target.clone(),
                scratch: socket.with_extension("scratch").display().to_string(),
            }],
            left_out: targets
                .into_iter()
                .map(|(one, _)| one)
                .filter(|one| *one != target)
                .collect(),
            since,
            checkpoint: has_checkpoints.then_some(mine),
        };
        let begin = async {
            match wire.begin_backup(domain, &pull).await {
                // A bitmap that was lost, or was not written when the host died: all is read.
                Err(fault) if pull.since.is_some() && fault.code().is_some() => {
                    tracing::warn!(%fault, "changes of a disk are not known; all of it is read");
                    pull.since = None;
                    wire.begin_backup(domain, &pull).await.map_err(libvirt)
                }
                done => done.map_err(libvirt),
            }
        };
        self.inner.step(Step::Offer, of.server, begin).await?;
        Ok(Begun { target, since: pull.since, checkpoint: pull.checkpoint })
    }

    /// Leaves nothing on the host of a backup that is given up.
    ///
    /// # Errors
    /// Another backup of the server goes on, or libvirt's.
    pub async fn give_up_backup(&self, of: Of, backup: Uuid) -> Result<(), DriverFault> {
        let _turn = self.inner.turn(of.server).await;
        let wire = self.inner.wire.get().await?;
        let domain = find(&wire, of.server).await?;
        if let Some(domain) = domain
            && state(&wire, &domain).await?.is_active()
        {
            self.end(backup, &wire, &domain).await?;
        }
        self.clear(backup).await
    }

    pub(super) async fn clear(&self, backup: Uuid) -> Result<(), DriverFault> {
        let socket = self.socket(backup);
        for file in [socket.with_extension("scratch"), socket] {
            files::remove(&file).await?;
        }
        Ok(())
    }

    /// The disks of a machine that runs: what the guest calls each, and its file.
    pub(super) async fn targets(
        &self,
        wire: &Connection,
        domain: &Domain,
    ) -> Result<Vec<(String, PathBuf)>, DriverFault> {
        let xml = wire.xml(domain, Affects::Live).await.map_err(libvirt)?;
        let is = Description::read(&xml).map_err(|no| DriverFault::Unexpected(no.to_string()))?;
        let file = |source: Option<Source>| match source {
            Some(Source::File(path) | Source::Block(path)) => PathBuf::from(path),
            None => PathBuf::new(),
        };
        Ok(is.disks.into_iter().map(|disk| (disk.target, file(disk.source))).collect())
    }

    /// Makes a disk of a server that does not run what a backup says. Until all of it is there and
    /// verified the disk stays as it is.
    ///
    /// # Errors
    /// The server runs, the disk has snapshots, the backup is damaged, is not there or is larger than the
    /// disk, or the host's or the store's.
    pub async fn write_back(
        &self,
        of: Of,
        backup: (Uuid, Uuid),
        digest: Option<&str>,
        from: &Store,
    ) -> Result<Manifest, DriverFault> {
        self.write_back_by(of, backup, digest, from, (None, None)).await
    }

    /// The same by an order, whose number is written down with the disk's server in the step in which
    /// the disk takes its place, and which came with a lease where the disk has any.
    pub(super) async fn write_back_by(
        &self,
        of: Of,
        backup: (Uuid, Uuid),
        digest: Option<&str>,
        from: &Store,
        (order, lease): (Option<u64>, Option<Lease>),
    ) -> Result<Manifest, DriverFault> {
        let _turn = self.inner.turn(of.server).await;
        let wire = self.inner.wire.get().await?;
        let domain = find(&wire, of.server).await?;
        if let Some(domain) = &domain {
            if state(&wire, domain).await?.is_active() {
                let why = format!("{} runs: stop it first", wanted::name(of.server));
                return Err(DriverFault::Rejected(why));
            }
            // What is known of changes of the disk is not true of the one that takes its place.
            self.forget_changes(of.disk, &wire, domain).await?;
        }
        // They are in the file whose place is taken.
        let storage = self.inner.holder(of.disk).await?.on(lease);
        if !storage.snapshots(of.disk).await?.is_empty() {
            let why = format!("disk {} has snapshots: delete them first", of.disk);
            return Err(DriverFault::Rejected(why));
        }
        let socket = self.socket(backup.1);
        let manifest = from.manifest(backup.0, backup.1, digest).await.map_err(store)?;
        let part = (&storage, of.disk);
        let written = self.write(part, backup, digest, from, &manifest, &socket).await;
        self.clear(backup.1).await?;
        written?;
        let place = async {
            storage.replace(of.disk).await?;
            if let Some(number) = order {
                let records = &self.inner.records;
                let mut record = records.read(of.server).await?.unwrap_or_default();
                record.restored.insert(of.disk, number);
                records.write(of.server, &record).await?;
            }
            Ok(())
        };
        self.inner.step(Step::Replace, of.server, place).await?;
        Ok(manifest)
    }

    async fn write(
        &self,
        (storage, disk): (&Storage, Uuid),
        backup: (Uuid, Uuid),
        digest: Option<&str>,
        from: &Store,
        manifest: &Manifest,
        socket: &Path,
    ) -> Result<(), DriverFault> {
        // Beside its place.
        let (part, format) = storage.begin_again(disk, manifest.size_bytes).await?;
        let export = Export::open(&part, format, Access::Write, socket).await?;
        let offer = Offer { socket, export: "", bitmap: None };
        let disk = nbd::Disk::connect(offer).await.map_err(store)?;
        from.restore(backup, digest, &disk).await.map_err(store)?;
        disk.close().await.map_err(store)?;
        export.close().await?;
        Ok(())
    }
}

async fn own_checkpoints(
    disk: Uuid,
    wire: &Connection,
    domain: &Domain,
) -> Result<Vec<String>, DriverFault> {
    let mut names = wire.checkpoints(domain).await.map_err(libvirt)?;
    names.retain(|name| name.starts_with(&checkpoints(disk)));
    Ok(names)
}

/// Nothing of what is known of changes of a disk is left, as far as it can be taken away: from the file of a
/// server that does not run it cannot.
pub(super) async fn drop_changes(
    wire: &Connection,
    domain: &Domain,
    disk: Uuid,
) -> Result<(), DriverFault> {
    for name in own_checkpoints(disk, wire, domain).await? {
        drop_checkpoint(wire, domain, &name).await?;
    }
    Ok(())
}

/// Removes a checkpoint. One whose bitmap is not there any more can only be forgotten.
async fn drop_checkpoint(
    wire: &Connection,
    domain: &Domain,
    name: &str,
) -> Result<(), DriverFault> {
    match wire.delete_checkpoint(domain, name).await {
        Err(fault) if fault.is(Code::NO_CHECKPOINT) => Ok(()),
        Err(fault) if fault.code().is_some() => {
            tracing::warn!(%fault, name, "a checkpoint cannot be removed; it is forgotten");
            wire.forget_checkpoint(domain, name).await.map_err(libvirt)
        }
        done => done.map_err(libvirt),
    }
}

/// What was begun.
struct Begun {
    target: String,
    since: Option<String>,
    checkpoint: Option<String>,
}

pub(super) async fn read(
    socket: &Path,
    export: &str,
    bitmap: Option<&str>,
    asked: &Asked,
    into: &Store,
) -> Result<Manifest, DriverFault> {
    let disk = nbd::Disk::connect(Offer { socket, export, bitmap }).await.map_err(store)?;
    let taken = into.take(asked, &disk).await.map_err(store)?;
    disk.close().await.map_err(store)?;
    Ok(taken)
}
