//! Orders of backup stores, and those of backups that need no host: they are carried out by the server
//! itself.
//!
//! An import asks the store what lies there and says of every backup that is not known yet that it was
//! found, under the id that it has there. So it can be made again, and two installations that share a
//! store call a backup the same. Sets are found by their descriptions, once their backups are.

use chrono::{DateTime, Utc};
use domain::{
    compute::{
        backup::{self, Backup, Found},
        backup_set::{self, BackupSet},
        backup_store::{self, BackupStore, Import},
    },
    kernel::{Decider, Outstanding, State},
    kinds,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    observe::chain,
    ports::{DriverFault, Query, Report, StoreAccess, ViewFault},
    submit::{Submission, SubmitFault},
};

impl Ledger {
    /// The stores that an order needs, opened.
    pub(crate) async fn stores_of(
        &self,
        subject: &dyn State,
    ) -> Result<BTreeMap<Uuid, StoreAccess>, LoadFault> {
        let mut stores = BTreeMap::new();
        for id in subject.stores() {
            let (_, store) = self.typed::<BackupStore>(&id.to_string()).await?;
            stores.insert(id, self.store_access(id, &store, None)?);
        }
        Ok(stores)
    }

    /// Carries an order out that is one of a store or a backup; none when it is another's.
    pub(crate) async fn work_backups(
        &self,
        kind: &str,
        id: &str,
        out: &Outstanding<Value>,
        state: &dyn State,
    ) -> Result<Option<Result<Report, DriverFault>>, LoadFault> {
        let missing = |_| LoadFault::Missing(format!("{kind} {id} does not read"));
        if kind == Backup::KIND {
            let order: backup::Order =
                serde_json::from_value(out.order.clone()).map_err(missing)?;
            let (_, backup) = self.typed::<Backup>(id).await?;
            let stores = self.stores_of(state).await?;
            let id: Uuid = id.parse().unwrap_or_default();
            let Some(store) = stores.get(&backup.store) else { return Ok(None) };
            return Ok(Some(self.work_backup(id, out.number, &order, &backup, store).await));
        }
        if kind == BackupSet::KIND {
            let order: backup_set::Order =
                serde_json::from_value(out.order.clone()).map_err(missing)?;
            let (_, set) = self.typed::<BackupSet>(id).await?;
            let stores = self.stores_of(state).await?;
            let Some(store) = stores.get(&set.store) else { return Ok(None) };
            let id: Uuid = id.parse().unwrap_or_default();
            return Ok(Some(self.work_backup_set((id, out.number), &order, &set, store).await));
        }
        if kind == BackupStore::KIND {
            let order: backup_store::Order =
                serde_json::from_value(out.order.clone()).map_err(missing)?;
            let (_, store) = self.typed::<BackupStore>(id).await?;
            let id: Uuid = id.parse().unwrap_or_default();
            return Ok(Some(self.work_store(id, out.number, &order, &store).await?));
        }
        Ok(None)
    }

    async fn work_backup(
        &self,
        id: Uuid,
        number: u64,
        order: &backup::Order,
        backup: &Backup,
        store: &StoreAccess,
    ) -> Result<Report, DriverFault> {
        let stores = &self.ports.backups;
        match order {
            backup::Order::Remove {} => {
                stores.forget(store, backup.disk, id).await?;
                Ok(Report { verb: "confirm-removal", body: json!({"number": number}) })
            }
            backup::Order::Verify {} => {
                let digest = backup.made.as_ref().map_or("", |made| &made.digest);
                let damaged = stores.check(store, backup.disk, id, digest).await?;
                let body = json!({"number": number, "damaged": damaged});
                Ok(Report { verb: "confirm-verified", body })
            }
            backup::Order::GiveUp {} | backup::Order::Take {} => {
                Err(DriverFault::Unexpected("an order of the disk's host".to_owned()))
            }
        }
    }

    async fn work_backup_set(
        &self,
        (id, number): (Uuid, u64),
        order: &backup_set::Order,
        set: &BackupSet,
        store: &StoreAccess,
    ) -> Result<Report, DriverFault> {
        match order {
            backup_set::Order::Describe {} => {
                let description = set.description(id).ok_or_else(|| {
                    DriverFault::Unexpected("a set that nothing is known of".to_owned())
                })?;
                self.ports.backups.describe(store, &description).await?;
                Ok(Report { verb: "confirm-described", body: json!({"number": number}) })
            }
            backup_set::Order::Forget {} => {
                self.ports.backups.forget_set(store, id).await?;
                Ok(Report { verb: "confirm-removal", body: json!({"number": number}) })
            }
            backup_set::Order::Remove {} => {
                for one in set.members() {
                    self.ports.backups.forget(store, one.disk, one.backup).await?;
                }
                self.ports.backups.forget_set(store, id).await?;
                Ok(Report { verb: "confirm-removal", body: json!({"number": number}) })
            }
            backup_set::Order::GiveUp {} | backup_set::Order::Take {} => {
                Err(DriverFault::Unexpected("an order of the server's host".to_owned()))
            }
        }
    }

    async fn work_store(
        &self,
        id: Uuid,
        number: u64,
        order: &backup_store::Order,
        store: &BackupStore,
    ) -> Result<Result<Report, DriverFault>, LoadFault> {
        let stores = &self.ports.backups;
        Ok(match order {
            backup_store::Order::Collect {} => {
                let access = self.store_access(id, store, None)?;
                // The first look condemns, the second removes: what nobody can count on any more.
                let sum = async {
                    let first = stores.collect(&access).await?;
                    let mut sum = stores.collect(&access).await?;
                    self.sweep_images(&access).await?;
                    sum.condemned += first.condemned;
                    sum.removed += first.removed;
                    sum.waits_for.extend(first.waits_for);
                    Ok(sum)
                };
                sum.await.map(|sum| {
                    let body = json!({"number": number, "sum": sum});
                    Report { verb: "confirm-collection", body }
                })
            }
            backup_store::Order::Import { project } => {
                let access = self.store_access(id, store, None)?;
                self.import_backups(id, &access, *project).await.map(|sum| {
                    let body = json!({"number": number, "sum": sum});
                    Report { verb: "confirm-import", body }
                })
            }
            backup_store::Order::Verify { candidate } => {
                let access = self.store_access(id, store, candidate.as_deref())?;
                match stores.verify(&access).await {
                    Ok(()) => Ok(Report { verb: "confirm", body: json!({"number": number}) }),
                    Err(fault @ (DriverFault::Transient(_) | DriverFault::Throttled { .. })) => {
                        Err(fault)
                    }
                    Err(no) => {
                        let body = json!({"number": number, "reason": no.to_string()});
                        Ok(Report { verb: "refuse", body })
                    }
                }
            }
        })
    }

    async fn import_backups(
        &self,
        store: Uuid,
        access: &StoreAccess,
        project: Option<Uuid>,
    ) -> Result<Import, DriverFault> {
        let unread = |fault: LoadFault| DriverFault::Transient(chain(&fault));
        let Some(kind) = kinds::by_name(Backup::KIND) else { return Ok(Import::default()) };
        let listed = self.ports.backups.list(access).await?;
        let mut sum = Import { listed: listed.len() as u64, ..Import::default() };
        for (disk, id) in listed {
            if self.load(kind, &id.to_string()).await.map_err(unread)?.revision > 0 {
                continue;
            }
            let there = match self.ports.backups.find(access, disk, id).await {
                Ok(there) => there,
                // It was removed since it was listed.
                Err(DriverFault::NotFound(_)) => continue,
                Err(DriverFault::Rejected(_) | DriverFault::Unexpected(_)) => {
                    sum.misses(format!("{disk}/{id}"));
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            let (parent, taken_at, made) = (there.parent, there.taken_at, there.made);
            let found = Found { name: None, store, project, disk, parent, taken_at, made };
            let find = Submission::new(Self::system("runner"), kind, id, "find", json!(found));
            match self.submit(find).await {
                Ok(_) => sum.new += 1,
                // Another import was first.
                Err(SubmitFault::Refused(_)) => {}
                Err(fault) => return Err(DriverFault::Transient(chain(&fault))),
            }
        }
        self.import_sets(store, access, project, &mut sum).await?;
        Ok(sum)
    }

    /// Sets whose backups are all known by now.
    async fn import_sets(
        &self,
        store: Uuid,
        access: &StoreAccess,
        project: Option<Uuid>,
        sum: &mut Import,
    ) -> Result<(), DriverFault> {
        let unread = |fault: LoadFault| DriverFault::Transient(chain(&fault));
        let Some(kind) = kinds::by_name(BackupSet::KIND) else { return Ok(()) };
        for id in self.ports.backups.sets(access).await? {
            if self.load(kind, &id.to_string()).await.map_err(unread)?.revision > 0 {
                continue;
            }
            let described = match self.ports.backups.description(access, id).await {
                Ok(described) => described,
                // It was removed since it was listed.
                Err(DriverFault::NotFound(_)) => continue,
                Err(DriverFault::Rejected(_) | DriverFault::Unexpected(_)) => {
                    sum.misses(format!("set {id}"));
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            let mut made = BTreeMap::new();
            for member in &described.members {
                let backup = self.typed::<Backup>(&member.backup.to_string()).await;
                let (_, backup) = backup.map_err(unread)?;
                // One that is somebody else's by now, or was deleted here, is none of this set's.
                let is_its = backup.disk == member.disk
                    && (backup.store, backup.project) == (store, project)
                    && !backup.removed;
                made.extend(backup.made.filter(|_| is_its).map(|made| (member.disk, made)));
            }
            let Ok(found) = described.found(store, project, made) else {
                sum.misses(format!("set {id}"));
                continue;
            };
            let find = Submission::new(Self::system("runner"), kind, id, "find", json!(found));
            match self.submit(find).await {
                Ok(_) => sum.new_sets += 1,
                // Another import was first, or it is none that could be.
                Err(SubmitFault::Refused(_)) => {}
                Err(fault) => return Err(DriverFault::Transient(chain(&fault))),
            }
        }
        Ok(())
    }

    /// Orders the collection of every store whose last one is long ago; gives how many.
    ///
    /// # Errors
    /// When the stores cannot be listed. One that cannot be ordered is left for the next time.
    pub async fn order_due_collections(&self) -> Result<usize, ViewFault> {
        let Some(kind) = kinds::by_name(BackupStore::KIND) else { return Ok(0) };
        let query = Query::all().with("kind", BackupStore::KIND).with("status", "ready");
        let (now, mut ordered) = (self.now(), 0);
        let (rows, _) = self.rows(query).await?;
        for row in rows.iter().filter(|row| is_due(&row.body, now)) {
            let Ok(id) = row.key.parse::<Uuid>() else { continue };
            let who = Self::system("schedule");
            match self.submit(Submission::new(who, kind, id, "collect", json!({}))).await {
                Ok(_) => ordered += 1,
                // Another process was first, or it is not ready any more.
                Err(SubmitFault::Refused(_)) => {}
                Err(fault) => {
                    tracing::warn!(store = %id, %fault, "a collection could not be ordered");
                }
            }
        }
        Ok(ordered)
    }
}

fn is_due(row: &Value, now: DateTime<Utc>) -> bool {
    serde_json::from_value::<BackupStore>(row["state"].clone()).is_ok_and(|it| it.is_due(now))
}
