//! What is kept of disks, as it is ordered: backups and snapshots are taken and removed, and disks are made
//! from them.
//!
//! A disk that is made from a backup is written beside its place, every chunk verified by its name and the
//! whole by the digest that the log has, and is there when all of that is; before that there is none.

use std::{collections::BTreeMap, path::PathBuf};

use adapters_backup::{
    Asked, chunk,
    nbd::{self, Offer},
    port,
};
use commands::ports::{DriverFault, HostTask, Report, StoreAccess};
use domain::compute::{
    backup::{self, Backup},
    disk::{self, Source},
    placement::ServerId,
    snapshot::{self, Snapshot},
    storage::lease::Lease,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Inner, KvmHost, Of, Step};
use crate::storage::{
    StorageFault,
    any::Storage,
    export::{Access, Export},
    files,
    qemu_img::Format,
};

/// The stores that came along with an order.
pub(super) type Stores = BTreeMap<Uuid, StoreAccess>;
/// The leases that did.
pub(super) type Leases = BTreeMap<Uuid, Lease>;

pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, DriverFault> {
    let unexpected = |fault: serde_json::Error| DriverFault::Unexpected(fault.to_string());
    serde_json::from_value(value.clone()).map_err(unexpected)
}

pub(super) fn id_of(task: &HostTask) -> Result<Uuid, DriverFault> {
    let id = task.key.stream.id.parse();
    id.map_err(|_| DriverFault::Unexpected(format!("the id of {}", task.key)))
}

pub(super) fn store(stores: &Stores, id: Uuid) -> Result<adapters_backup::Store, DriverFault> {
    let access = stores.get(&id).ok_or_else(|| {
        DriverFault::Unexpected(format!("backup store {id} did not come along with the order"))
    })?;
    port::open(access)
}

impl KvmHost {
    /// An order of a backup.
    pub(super) async fn carry_out_of_backup(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let (backup, order): (Backup, backup::Order) = (read(&task.subject)?, read(&task.order)?);
        let (id, number) = (id_of(task)?, task.key.number);
        let server = backup.source.as_ref().and_then(|source| source.server);
        // A disk that no server has takes its turns by itself.
        let of = Of { server: server.unwrap_or(backup.disk), disk: backup.disk };
        match order {
            backup::Order::Take {} => {
                let asked = Asked {
                    backup: id,
                    disk: backup.disk,
                    parent: backup.parent,
                    checkpoint: None,
                    taken_at: backup.taken_at,
                    chunk_bytes: chunk::BYTES_USUAL,
                };
                let into = store(&task.stores, backup.store)?;
                let manifest = self.back_up(of, &asked, &into).await?;
                let body = json!({"number": number, "made": port::made(&manifest)});
                Ok(Report { verb: "confirm", body })
            }
            backup::Order::GiveUp {} => {
                self.give_up_backup(of, id).await?;
                Ok(Report { verb: "confirm-given-up", body: json!({"number": number}) })
            }
            backup::Order::Remove {} | backup::Order::Verify {} => {
                Err(DriverFault::Unexpected("what a store is asked needs no host".to_owned()))
            }
        }
    }

    /// An order of a disk that is to be what a backup says. That it was done is written down beside its
    /// server: an agent that dies afterwards does not do it once more to what was written on it since.
    pub(super) async fn restore(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let (disk, order): (disk::Disk, disk::Order) = (read(&task.subject)?, read(&task.order)?);
        let home = disk.home.ok_or_else(|| DriverFault::Unexpected("a disk of a cloud".into()))?;
        let disk::Order::Restore {
            source: Source::Backup { backup, disk: from, store: id, digest },
        } = order
        else {
            let why = "only a backup is written back; a snapshot is gone back to".to_owned();
            return Err(DriverFault::Rejected(why));
        };
        let number = task.key.number;
        let server = home.server.map(ServerId::uuid);
        let of = Of { server: server.unwrap_or(home.id), disk: home.id };
        let written = async {
            let Some(server) = server else { return Ok(None) };
            Ok::<_, DriverFault>(self.inner.records.read(server).await?)
        };
        let done = written.await?.is_some_and(|one| one.restored.get(&home.id) == Some(&number));
        if !done {
            let from = ((from, backup), store(&task.stores, id)?);
            let lease = home.leases.as_ref().and_then(|leases| leases.of(home.host));
            let by = (server.map(|_| number), lease);
            self.write_back_by(of, from.0, Some(&digest), &from.1, by).await?;
        }
        let file = self.inner.holder(home.id).await?.inspect(home.id).await?;
        let seen = disk::Actual {
            size_bytes: file.size_bytes,
            taken_bytes: file.taken_bytes,
            limits: None,
        };
        Ok(Report { verb: "confirm", body: json!({"number": number, "seen": seen}) })
    }

    /// An order of a snapshot.
    pub(super) async fn carry_out_of_snapshot(
        &self,
        task: &HostTask,
    ) -> Result<Report, DriverFault> {
        let (snapshot, order): (Snapshot, snapshot::Order) =
            (read(&task.subject)?, read(&task.order)?);
        let (id, number) = (id_of(task)?, task.key.number);
        let server = snapshot.place.and_then(|place| place.server);
        let of = Of { server: server.unwrap_or(snapshot.disk), disk: snapshot.disk };
        let lease = task.leases.get(&snapshot.disk).copied();
        match order {
            snapshot::Order::Take {} => self.change_snapshot(of, (id, lease), true).await?,
            snapshot::Order::RollBack {} => {
                self.go_back(of, (id, lease), server.map(|_| number)).await?;
            }
            snapshot::Order::Remove {} => {
                self.change_snapshot(of, (id, lease), false).await?;
                return Ok(Report { verb: "confirm-removal", body: json!({"number": number}) });
            }
        }
        Ok(Report { verb: "confirm", body: json!({"number": number}) })
    }
}

impl Inner {
    /// Does something with a disk that no server runs with. Its volume rests afterwards, but where it is
    /// active for a server that will be cleared.
    pub(super) async fn awake<T>(
        &self,
        storage: &Storage,
        disk: Uuid,
        act: impl Future<Output = Result<T, StorageFault>>,
    ) -> Result<T, DriverFault> {
        let Storage::Group(group) = storage else { return Ok(act.await?) };
        let records = self.records.all().await?;
        let mut kept = records.values().flat_map(|record| &record.volumes);
        let stays = kept.any(|(_, kept)| *kept == disk) && group.is_active(disk).await;
        // Also after a fault, for its device is in the way of other hosts; the fault is what is said.
        let done = act.await;
        let rest = if stays { Ok(()) } else { storage.rest(disk).await };
        let done = done?;
        rest?;
        Ok(done)
    }

    /// Makes a disk with all that a backup or a snapshot has, unless it is there.
    pub(super) async fn make_from(
        &self,
        storage: &Storage,
        (disk, format, bytes): (Uuid, Format, u64),
        source: &Source,
        (stores, leases): (&Stores, &Leases),
    ) -> Result<(), DriverFault> {
        let fill = async {
            match source {
                Source::Snapshot { snapshot, disk: from } => {
                    let holder = self.holder(*from).await?.on(leases.get(from).copied());
                    let made = (disk, format, bytes);
                    let copy = holder.copy_snapshot((*from, *snapshot), storage, made);
                    self.awake(&holder, *from, copy).await?;
                }
                Source::Backup { backup, disk: from, store: id, digest } => {
                    let Some(part) = storage.begin_filled(disk, format, bytes).await? else {
                        return Ok(());
                    };
                    let socket = self.options.folder.join("backups").join(format!("{disk}.nbd"));
                    let from = (store(stores, *id)?, (*from, *backup), digest.as_str());
                    let filled = restore(from, part, format, &socket).await;
                    files::remove(&socket).await?;
                    filled?;
                    storage.finish_filled(disk, format, bytes).await?;
                }
            }
            Ok(())
        };
        self.step(Step::Fill, disk, fill).await
    }
}

async fn restore(
    (from, backup, digest): (adapters_backup::Store, (Uuid, Uuid), &str),
    part: PathBuf,
    format: Format,
    socket: &std::path::Path,
) -> Result<(), DriverFault> {
    let fault = |fault| port::driver_fault(&fault);
    let export = Export::open(&part, format, Access::Write, socket).await?;
    let offer = Offer { socket, export: "", bitmap: None };
    let disk = nbd::Disk::connect(offer).await.map_err(fault)?;
    from.restore(backup, Some(digest), &disk).await.map_err(fault)?;
    disk.close().await.map_err(fault)?;
    export.close().await?;
    Ok(())
}
