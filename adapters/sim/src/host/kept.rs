//! What is kept of disks in memory: what is written on them, their snapshots, and stores of backups.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::ports::{BackupStores, DriverFault, HostTask, Report, StoreAccess, StoredBackup};
use domain::{
    compute::{
        backup::{self, Backup, Made},
        backup_set::Description,
        backup_store::Collection,
        disk::Source,
        snapshot::{self, Snapshot},
    },
    kernel::sha256,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{HostStep, SimHost, SimHosts, World, keep};

/// The key that no store takes.
pub const WRONG_KEY: &str = "wrong";

/// A backup in a store in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimBackup {
    /// The disk.
    pub disk: Uuid,
    /// The backup that it was made on.
    pub parent: Option<Uuid>,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// How large the disk was, in GiB.
    pub size_gib: u64,
    /// What was written on the disk.
    pub content: String,
    /// Whether it is not what was put there any more.
    pub damaged: bool,
    /// With what it is sealed.
    pub key: Option<String>,
}

/// A store in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SimStore {
    pub(super) backups: BTreeMap<Uuid, SimBackup>,
    /// Chunks that no backup needs.
    loose: u64,
    /// What sets consist of, as it was put there.
    #[serde(default)]
    sets: BTreeMap<Uuid, Value>,
    /// The sizes of images' files, in bytes.
    #[serde(default)]
    pub(super) images: BTreeMap<Uuid, u64>,
}

/// What is kept beside what hosts have.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Kept {
    /// What is written on each disk that something is written on.
    #[serde(default)]
    pub(super) contents: BTreeMap<Uuid, String>,
    /// The snapshots of each disk, with what was written on it.
    #[serde(default)]
    snapshots: BTreeMap<Uuid, BTreeMap<Uuid, String>>,
    /// Stores, by their address.
    #[serde(default)]
    pub(super) stores: BTreeMap<String, SimStore>,
}

impl Kept {
    pub(super) fn content(&self, disk: Uuid) -> String {
        self.contents.get(&disk).cloned().unwrap_or_default()
    }

    pub(super) fn stored(&self, store: &StoreAccess, backup: Uuid) -> Option<&SimBackup> {
        self.stores.get(&store.place.url())?.backups.get(&backup)
    }

    fn has_snapshot(&self, disk: Uuid, snapshot: Uuid) -> bool {
        self.snapshots.get(&disk).is_some_and(|all| all.contains_key(&snapshot))
    }

    /// Nothing is left of a disk.
    pub(super) fn discard(&mut self, disk: Uuid) {
        self.contents.remove(&disk);
        self.snapshots.remove(&disk);
    }
}

impl SimBackup {
    pub(super) fn made(&self) -> Made {
        let digest = sha256(format!("{} {}", self.size_gib, self.content).as_bytes());
        let bytes = self.content.len() as u64;
        Made {
            digest: digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")),
            size_bytes: self.size_gib << 30,
            read_bytes: if self.parent.is_some() { bytes } else { self.size_gib << 30 },
            sent_bytes: bytes,
            stored_bytes: bytes,
            chunks: 1,
        }
    }
}

impl SimHosts {
    /// Something is written on a disk: what a backup or a snapshot of it has from then on.
    pub fn write(&self, disk: Uuid, content: &str) {
        self.world().kept.contents.insert(disk, content.to_owned());
    }

    /// What is written on a disk; nothing when nothing is.
    pub fn content(&self, disk: Uuid) -> String {
        self.world().kept.content(disk)
    }

    /// The snapshots that a disk really has.
    pub fn snapshots(&self, disk: Uuid) -> BTreeSet<Uuid> {
        let world = self.world();
        world.kept.snapshots.get(&disk).map(|all| all.keys().copied().collect()).unwrap_or_default()
    }

    /// The backups that really lie in a store, by its address.
    pub fn backups(&self, url: &str) -> BTreeMap<Uuid, SimBackup> {
        self.world().kept.stores.get(url).map(|store| store.backups.clone()).unwrap_or_default()
    }

    /// What sets really are described in a store, by its address, and how.
    pub fn described(&self, url: &str) -> BTreeMap<Uuid, Value> {
        self.world().kept.stores.get(url).map(|store| store.sets.clone()).unwrap_or_default()
    }

    /// A backup is not what was put there any more.
    pub fn damage(&self, url: &str, backup: Uuid) {
        let mut world = self.world();
        let store = world.kept.stores.get_mut(url);
        if let Some(found) = store.and_then(|store| store.backups.get_mut(&backup)) {
            found.damaged = true;
        }
    }

    /// One step of a store, that may fail or lose its answer once.
    pub(super) fn at_store(
        &self,
        step: HostStep,
        store: &StoreAccess,
        done: impl Fn(&World) -> bool,
        make: impl FnOnce(&mut World),
    ) -> Result<(), DriverFault> {
        if store.keys.secret_access_key == WRONG_KEY {
            return Err(DriverFault::Denied(format!("{}: the key is wrong", store.place.url())));
        }
        self.change(step, done, make)
    }
}

pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, DriverFault> {
    let unexpected = |fault: serde_json::Error| DriverFault::Unexpected(fault.to_string());
    serde_json::from_value(value.clone()).map_err(unexpected)
}

pub(super) fn access(task: &HostTask, store: Uuid) -> Result<&StoreAccess, DriverFault> {
    let missing = || DriverFault::Unexpected(format!("backup store {store} did not come along"));
    task.stores.get(&store).ok_or_else(missing)
}

impl SimHost {
    /// Something that a disk is made from was there: it reads as that.
    pub(super) fn fill(
        &self,
        disk: Uuid,
        source: &Source,
        task: &HostTask,
    ) -> Result<(), DriverFault> {
        let content = self.content_of(source, task)?;
        self.hosts.change(
            HostStep::Fill,
            |world| world.kept.contents.contains_key(&disk),
            |world| drop(world.kept.contents.insert(disk, content.clone())),
        )
    }

    /// A disk reads as something did, whatever was on it.
    pub(super) fn restore(
        &self,
        disk: Uuid,
        source: &Source,
        task: &HostTask,
    ) -> Result<(), DriverFault> {
        let content = self.content_of(source, task)?;
        self.hosts.change(
            HostStep::Fill,
            |world| world.kept.content(disk) == content,
            |world| drop(world.kept.contents.insert(disk, content.clone())),
        )
    }

    fn content_of(&self, source: &Source, task: &HostTask) -> Result<String, DriverFault> {
        match source {
            Source::Backup { backup, store, digest, .. } => {
                let world = self.hosts.world();
                let access = access(task, *store)?;
                let stored = world.kept.stored(access, *backup);
                let stored = stored
                    .ok_or_else(|| DriverFault::NotFound(format!("there is no backup {backup}")))?;
                if stored.damaged || stored.made().digest != *digest {
                    return Err(DriverFault::Rejected(format!("backup {backup} is damaged")));
                }
                Ok(stored.content.clone())
            }
            Source::Snapshot { snapshot, disk } => self.alone(*disk, *disk, task, || {
                let world = self.hosts.world();
                let all = world.kept.snapshots.get(disk);
                let content = all.and_then(|all| all.get(snapshot)).cloned();
                content.ok_or_else(|| {
                    DriverFault::Rejected(format!("there is no snapshot {snapshot}"))
                })
            }),
        }
    }

    /// An order of a backup.
    pub(super) fn carry_out_of_backup(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let (backup, order): (Backup, backup::Order) = (read(&task.subject)?, read(&task.order)?);
        let (number, key) = (task.key.number, task.key.stream.id.parse::<Uuid>());
        let id = key.map_err(|_| DriverFault::Unexpected("the backup's id".to_owned()))?;
        if order == (backup::Order::GiveUp {}) {
            return Ok(Report { verb: "confirm-given-up", body: json!({"number": number}) });
        }
        let store = access(task, backup.store)?;
        let (content, size_gib) = {
            let world = self.hosts.world();
            let disk = world.disks.values().find_map(|disks| disks.get(&backup.disk));
            let disk = disk.ok_or_else(|| DriverFault::Rejected("the disk is gone".to_owned()))?;
            (world.kept.content(backup.disk), disk.0)
        };
        if let Some(parent) = backup.parent
            && self.hosts.world().kept.stored(store, parent).is_none()
        {
            return Err(DriverFault::NotFound(format!("there is no backup {parent}")));
        }
        let stored = SimBackup {
            disk: backup.disk,
            parent: backup.parent,
            taken_at: backup.taken_at,
            size_gib,
            content,
            damaged: false,
            key: store.keys.encryption_key.clone(),
        };
        self.hosts.at_store(
            HostStep::BackUp,
            store,
            |world| world.kept.stored(store, id).is_some(),
            |world| {
                let all = world.kept.stores.entry(store.place.url()).or_default();
                all.backups.insert(id, stored);
            },
        )?;
        let world = self.hosts.world();
        let stored = world.kept.stored(store, id).map(SimBackup::made);
        Ok(Report { verb: "confirm", body: json!({"number": number, "made": stored}) })
    }

    /// An order of a snapshot.
    pub(super) fn carry_out_of_snapshot(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let (snapshot, order): (Snapshot, snapshot::Order) =
            (read(&task.subject)?, read(&task.order)?);
        let (number, key) = (task.key.number, task.key.stream.id.parse::<Uuid>());
        let id = key.map_err(|_| DriverFault::Unexpected("the snapshot's id".to_owned()))?;
        let disk = snapshot.disk;
        let there = {
            let world = self.hosts.world();
            world.disks.values().any(|disks| disks.contains_key(&disk))
        };
        if !there && order != (snapshot::Order::Remove {}) {
            return Err(DriverFault::Rejected("the disk is gone".to_owned()));
        }
        let whose = snapshot.place.and_then(|place| place.server).unwrap_or(disk);
        self.alone(disk, whose, task, || self.change_snapshot(&snapshot, &order, id))?;
        let verb = match order {
            snapshot::Order::Remove {} => "confirm-removal",
            snapshot::Order::RollBack {} | snapshot::Order::Take {} => "confirm",
        };
        Ok(Report { verb, body: json!({"number": number}) })
    }

    fn change_snapshot(
        &self,
        snapshot: &Snapshot,
        order: &snapshot::Order,
        id: Uuid,
    ) -> Result<(), DriverFault> {
        let disk = snapshot.disk;
        match order {
            snapshot::Order::Take {} => self.hosts.change(
                HostStep::Snapshot,
                |world| world.kept.has_snapshot(disk, id),
                |world| {
                    let content = world.kept.content(disk);
                    world.kept.snapshots.entry(disk).or_default().insert(id, content);
                },
            ),
            snapshot::Order::RollBack {} => {
                let world = self.hosts.world();
                let runs = snapshot.place.and_then(|place| place.server).is_some_and(|server| {
                    let servers = world.hosts.get(&self.host);
                    servers.and_then(|all| all.get(&server)).is_some_and(|one| one.running)
                });
                let content = world.kept.snapshots.get(&disk).and_then(|all| all.get(&id)).cloned();
                drop(world);
                let content =
                    content.ok_or_else(|| DriverFault::Rejected("no such snapshot".to_owned()))?;
                if runs {
                    let why = "its server runs: stop it first".to_owned();
                    return Err(DriverFault::Rejected(why));
                }
                self.hosts.change(
                    HostStep::RollBack,
                    |world| world.kept.content(disk) == content,
                    |world| drop(world.kept.contents.insert(disk, content.clone())),
                )
            }
            snapshot::Order::Remove {} => self.hosts.change(
                HostStep::SnapshotRemoval,
                |world| !world.kept.has_snapshot(disk, id),
                |world| {
                    if let Some(all) = world.kept.snapshots.get_mut(&disk) {
                        all.remove(&id);
                    }
                },
            ),
        }
    }
}

#[async_trait]
impl BackupStores for SimHosts {
    async fn verify(&self, store: &StoreAccess) -> Result<(), DriverFault> {
        // Something is always done: there is nothing to find done already.
        self.at_store(HostStep::StoreVerify, store, |_| false, |_| {})
    }

    async fn list(&self, store: &StoreAccess) -> Result<Vec<(Uuid, Uuid)>, DriverFault> {
        self.at_store(HostStep::StoreList, store, |_| false, |_| {})?;
        let all = self.backups(&store.place.url());
        Ok(all.into_iter().map(|(id, one)| (one.disk, id)).collect())
    }

    async fn find(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
    ) -> Result<StoredBackup, DriverFault> {
        let world = self.world();
        let found = world.kept.stored(store, backup);
        let found = found.ok_or_else(|| DriverFault::NotFound(backup.to_string()))?;
        if found.key != store.keys.encryption_key {
            return Err(DriverFault::Rejected("it does not open with this key".to_owned()));
        }
        let (parent, taken_at) = (found.parent, found.taken_at);
        Ok(StoredBackup { backup, disk, parent, taken_at, made: found.made() })
    }

    async fn check(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
        digest: &str,
    ) -> Result<Option<String>, DriverFault> {
        let there = self.find(store, disk, backup).await?;
        let damaged = self.world().kept.stored(store, backup).is_some_and(|one| one.damaged);
        let wrong = damaged || there.made.digest != digest;
        Ok(wrong.then(|| format!("backup {backup} is damaged: chunk 0")))
    }

    async fn forget(&self, store: &StoreAccess, _: Uuid, backup: Uuid) -> Result<(), DriverFault> {
        let url = store.place.url();
        self.at_store(
            HostStep::StoreForget,
            store,
            |world| world.kept.stored(store, backup).is_none(),
            |world| {
                if let Some(all) = world.kept.stores.get_mut(&url)
                    && all.backups.remove(&backup).is_some()
                {
                    all.loose += 1;
                }
            },
        )
    }

    async fn describe(&self, store: &StoreAccess, set: &Description) -> Result<(), DriverFault> {
        let (url, described) = (store.place.url(), json!(set));
        let has = |world: &World| {
            let there = world.kept.stores.get(&url);
            there.is_some_and(|all| all.sets.get(&set.set) == Some(&described))
        };
        self.at_store(HostStep::StoreDescribe, store, has, |world| {
            let all = world.kept.stores.entry(url.clone()).or_default();
            all.sets.insert(set.set, described.clone());
        })
    }

    async fn sets(&self, store: &StoreAccess) -> Result<Vec<Uuid>, DriverFault> {
        let url = store.place.url();
        Ok(self.described(&url).into_keys().collect())
    }

    async fn description(
        &self,
        store: &StoreAccess,
        set: Uuid,
    ) -> Result<Description, DriverFault> {
        let described = self.described(&store.place.url());
        read(described.get(&set).ok_or_else(|| DriverFault::NotFound(set.to_string()))?)
    }

    async fn forget_set(&self, store: &StoreAccess, set: Uuid) -> Result<(), DriverFault> {
        let url = store.place.url();
        let is_gone = |world: &World| {
            world.kept.stores.get(&url).is_none_or(|all| !all.sets.contains_key(&set))
        };
        self.at_store(HostStep::StoreForgetSet, store, is_gone, |world| {
            if let Some(all) = world.kept.stores.get_mut(&url) {
                all.sets.remove(&set);
            }
        })
    }

    async fn collect(&self, store: &StoreAccess) -> Result<Collection, DriverFault> {
        let url = store.place.url();
        let mut removed = 0;
        self.at_store(
            HostStep::StoreCollect,
            store,
            |world| world.kept.stores.get(&url).is_none_or(|all| all.loose == 0),
            |world| {
                if let Some(all) = world.kept.stores.get_mut(&url) {
                    removed = std::mem::take(&mut all.loose);
                }
            },
        )?;
        keep(&self.world())?;
        Ok(Collection { condemned: 0, removed, waits_for: BTreeSet::new() })
    }
}
