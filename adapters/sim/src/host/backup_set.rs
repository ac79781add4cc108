//! All disks of a server in memory, as they are at one moment.

use std::collections::BTreeMap;

use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::backup_set::{self, BackupSet, Taken};
use serde_json::json;
use uuid::Uuid;

use super::{
    HostStep, SimHost,
    kept::{SimBackup, access, read},
};

impl SimHost {
    /// An order of a backup set. Its guests' agents hold them still.
    pub(super) fn carry_out_of_backup_set(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let (set, order): (BackupSet, backup_set::Order) =
            (read(&task.subject)?, read(&task.order)?);
        let number = task.key.number;
        if order == (backup_set::Order::GiveUp {}) {
            return Ok(Report { verb: "confirm-given-up", body: json!({"number": number}) });
        }
        let store = access(task, set.store)?;
        let mut taken: BTreeMap<Uuid, SimBackup> = BTreeMap::new();
        {
            // All at once: nothing is written in between.
            let world = self.hosts.world();
            for member in set.members() {
                let disk = world.disks.values().find_map(|disks| disks.get(&member.disk));
                let disk =
                    disk.ok_or_else(|| DriverFault::Rejected("the disk is gone".to_owned()))?;
                let stored = SimBackup {
                    disk: member.disk,
                    parent: None,
                    taken_at: set.taken_at,
                    size_gib: disk.0,
                    content: world.kept.content(member.disk),
                    damaged: false,
                    key: store.keys.encryption_key.clone(),
                };
                taken.insert(member.backup, stored);
            }
        }
        self.hosts.at_store(
            HostStep::BackUp,
            store,
            |world| taken.keys().all(|id| world.kept.stored(store, *id).is_some()),
            |world| {
                let all = world.kept.stores.entry(store.place.url()).or_default();
                all.backups.extend(taken.clone());
            },
        )?;
        let world = self.hosts.world();
        let made = set.members().iter().filter_map(|one| {
            let stored = world.kept.stored(store, one.backup)?;
            Some((one.disk, stored.made()))
        });
        let taken = Taken { quiesced: true, made: made.collect() };
        Ok(Report { verb: "confirm", body: json!({"number": number, "taken": taken}) })
    }
}
