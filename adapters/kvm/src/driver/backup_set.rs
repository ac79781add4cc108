//! All disks of a server are backed up as they are at one moment.
//!
//! ```text
//! a server runs      the guest writes everything out and stands still, where its agent can
//!                    ──► libvirt offers all disks as they are now ──► the guest goes on ──► read, sent
//! it does not run    qemu-nbd offers one after the other, and it is not started meanwhile
//! ```
//!
//! The guest stands still for as long as libvirt takes to begin, and never for longer: that it may is written
//! down before it is asked, and an agent that dies in between lets it go on before it does anything else.
//!
//! A try has a name of its own, which is in each manifest that it writes. Backups are of one moment when
//! they have the same; others are forgotten, and taken again together.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use adapters_backup::{Asked, Fault, Store, chunk, manifest::Manifest, port};
use adapters_libvirt::{Connection, Domain, Offered, Pull};
use commands::ports::{DriverFault, HostTask, Report};
use domain::compute::backup_set::{self, BackupSet, Member, Taken};
use serde_json::json;
use uuid::Uuid;

use super::{
    KvmHost, Of, Record, Step,
    backup::{read as read_offer, store},
    fault::libvirt,
    find,
    kept::{id_of, read, store as store_of},
    state,
};
use crate::storage::{directory::Disk, files};

/// How long a guest may take to write everything out.
const FREEZE_PATIENCE: Duration = Duration::from_secs(20);
/// How long its agent may take to say that it is there, and to let it go on.
const AGENT_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked to go on before that is left to the next look.
const THAWS: u32 = 3;
/// What the name of a try begins with.
const TRY: &str = "set-";
/// What it ends with where the guest stood still.
const QUIESCED: &str = "-quiesced";

/// A set that is taken.
struct Set<'a> {
    id: Uuid,
    server: Uuid,
    members: &'a [Member],
    state: &'a BackupSet,
    into: Store,
}

impl Set<'_> {
    fn asked(&self, member: &Member, moment: &str) -> Asked {
        Asked {
            backup: member.backup,
            disk: member.disk,
            parent: None,
            checkpoint: Some(moment.to_owned()),
            taken_at: self.state.taken_at,
            chunk_bytes: chunk::BYTES_USUAL,
        }
    }

    /// Those that are in the store, if all are and of one moment.
    async fn find(&self) -> Result<Option<Taken>, DriverFault> {
        let mut found = Vec::new();
        for member in self.members {
            match self.into.manifest(member.disk, member.backup, None).await {
                Ok(manifest) => found.push((member.disk, manifest)),
                Err(Fault::Missing { .. }) => return Ok(None),
                Err(fault) => return Err(store(fault)),
            }
        }
        Ok(of_one_moment(&found))
    }

    /// Leaves none of them in the store.
    async fn forget(&self) -> Result<(), DriverFault> {
        for member in self.members {
            self.into.forget(member.disk, member.backup).await.map_err(store)?;
        }
        Ok(())
    }
}

/// What lies there, if all that is there is of one try.
fn of_one_moment(found: &[(Uuid, Manifest)]) -> Option<Taken> {
    let moment = found.first()?.1.checkpoint.as_ref()?;
    let same = |one: &(Uuid, Manifest)| one.1.checkpoint.as_ref() == Some(moment);
    let made: BTreeMap<_, _> =
        found.iter().map(|(disk, manifest)| (*disk, port::made(manifest))).collect();
    let quiesced = moment.ends_with(QUIESCED);
    (moment.starts_with(TRY) && found.iter().all(same)).then_some(Taken { quiesced, made })
}

impl KvmHost {
    /// An order of a backup set.
    pub(super) async fn carry_out_of_backup_set(
        &self,
        task: &HostTask,
    ) -> Result<Report, DriverFault> {
        let (state, order): (BackupSet, backup_set::Order) =
            (read(&task.subject)?, read(&task.order)?);
        let number = task.key.number;
        let set = Set {
            id: id_of(task)?,
            server: state.server,
            members: state.members(),
            state: &state,
            into: store_of(&task.stores, state.store)?,
        };
        match order {
            backup_set::Order::Take {} => {
                let taken = self.take_set(&set).await?;
                Ok(Report { verb: "confirm", body: json!({"number": number, "taken": taken}) })
            }
            backup_set::Order::GiveUp {} => {
                self.give_up_set(&set).await?;
                Ok(Report { verb: "confirm-given-up", body: json!({"number": number}) })
            }
            backup_set::Order::Describe {}
            | backup_set::Order::Forget {}
            | backup_set::Order::Remove {} => {
                Err(DriverFault::Unexpected("what a store is asked needs no host".to_owned()))
            }
        }
    }

    async fn take_set(&self, set: &Set<'_>) -> Result<Taken, DriverFault> {
        let turn = self.inner.turn(set.server).await;
        if let Some(taken) = set.find().await? {
            self.give_up_offer(set).await?;
            return Ok(taken);
        }
        set.forget().await?;
        let mut disks = Vec::new();
        for member in set.members {
            disks.push(self.inner.holder(member.disk).await?.ready(member.disk).await?);
        }
        let attempt = adapters_backup::random_id().map_err(store)?;
        let wire = self.inner.wire.get().await?;
        let running = match find(&wire, set.server).await? {
            Some(domain) if state(&wire, &domain).await?.is_active() => Some(domain),
            _ => None,
        };
        let Some(domain) = running else {
            // The turn is kept: what is read is not started. Nothing of it writes.
            let moment = format!("{TRY}{attempt}{QUIESCED}");
            for (member, disk) in set.members.iter().zip(&disks) {
                let of = Of { server: set.server, disk: member.disk };
                self.back_up_stopped(of, &set.asked(member, &moment), disk, &set.into).await?;
                self.clear(member.backup).await?;
            }
            return whole(set).await;
        };
        let (targets, quiesced) = self.offer_set(set, &wire, &domain, &disks).await?;
        // It goes on for long, and the server may be stopped meanwhile, which ends it.
        drop(turn);
        let moment = format!("{TRY}{attempt}{}", if quiesced { QUIESCED } else { "" });
        let mut read = Ok(());
        for (member, target) in set.members.iter().zip(&targets) {
            let asked = set.asked(member, &moment);
            read =
                read_offer(&self.socket(set.id), target, None, &asked, &set.into).await.map(drop);
            if read.is_err() {
                break;
            }
        }
        let _turn = self.inner.turn(set.server).await;
        // Whatever came of it, they are offered no more.
        self.give_up_offer(set).await?;
        read?;
        whole(set).await
    }

    /// Offers all disks of a set as they are now: by what libvirt calls each, and whether the guest stood
    /// still.
    async fn offer_set(
        &self,
        set: &Set<'_>,
        wire: &Connection,
        domain: &Domain,
        disks: &[Disk],
    ) -> Result<(Vec<String>, bool), DriverFault> {
        self.give_up_offer(set).await?;
        let all = self.targets(wire, domain).await?;
        let mut targets = Vec::new();
        for (member, disk) in set.members.iter().zip(disks) {
            let target = all.iter().find(|one| one.1 == disk.path).map(|one| one.0.clone());
            targets.push(target.ok_or_else(|| {
                DriverFault::Rejected(format!("{} does not have disk {}", domain.name, member.disk))
            })?);
        }
        let offered = |(at, target): (usize, &String)| Offered {
            target: target.clone(),
            scratch: self.scratch(set.id, at).display().to_string(),
        };
        let pull = Pull {
            socket: self.socket(set.id).display().to_string(),
            disks: targets.iter().enumerate().map(offered).collect(),
            left_out: all
                .into_iter()
                .map(|(one, _)| one)
                .filter(|one| !targets.contains(one))
                .collect(),
            since: None,
            checkpoint: None,
        };
        let quiesced = self.freeze(set.server, wire, domain).await?;
        let begin = async { wire.begin_backup(domain, &pull).await.map_err(libvirt) };
        let begun = self.inner.step(Step::Offer, set.server, begin).await;
        // Whatever came of it. One that cannot be let go on is not told to have stood still only until then.
        self.thaw(set.server, wire, domain).await?;
        begun?;
        Ok((targets, quiesced))
    }

    /// Where what the guest overwrites of the n-th disk is kept.
    fn scratch(&self, set: Uuid, at: usize) -> PathBuf {
        self.socket(set).with_extension(format!("{at}.scratch"))
    }

    /// Ends what was begun on the host of a set, and lets its guest go on.
    async fn give_up_offer(&self, set: &Set<'_>) -> Result<(), DriverFault> {
        let wire = self.inner.wire.get().await?;
        if let Some(domain) = find(&wire, set.server).await?
            && state(&wire, &domain).await?.is_active()
        {
            self.thaw(set.server, &wire, &domain).await?;
            self.end(set.id, &wire, &domain).await?;
        }
        for at in 0..set.members.len() {
            files::remove(&self.scratch(set.id, at)).await?;
        }
        for member in set.members {
            self.clear(member.backup).await?;
        }
        self.clear(set.id).await
    }

    async fn give_up_set(&self, set: &Set<'_>) -> Result<(), DriverFault> {
        let _turn = self.inner.turn(set.server).await;
        self.give_up_offer(set).await
    }

    /// Has a guest write everything out and stand still, where its agent can; whether it does.
    async fn freeze(
        &self,
        server: Uuid,
        wire: &Connection,
        domain: &Domain,
    ) -> Result<bool, DriverFault> {
        if ask(wire, domain, "guest-ping", AGENT_PATIENCE).await.is_none() {
            return Ok(false);
        }
        self.note_frozen(server, true).await?;
        let frozen = ask(wire, domain, "guest-fsfreeze-freeze", FREEZE_PATIENCE).await;
        // How many file systems: none is a guest that has none it could hold still.
        Ok(frozen.and_then(|said| said["return"].as_u64()).is_some_and(|count| count > 0))
    }

    /// Lets a guest go on that may stand still.
    pub(super) async fn thaw(
        &self,
        server: Uuid,
        wire: &Connection,
        domain: &Domain,
    ) -> Result<(), DriverFault> {
        let record = self.inner.records.read(server).await?.unwrap_or_default();
        if !record.frozen {
            return Ok(());
        }
        let mut tries = 0;
        while ask(wire, domain, "guest-fsfreeze-thaw", AGENT_PATIENCE).await.is_none() {
            tries += 1;
            if tries == THAWS {
                let why =
                    format!("{} stands still and does not go on: its agent is silent", domain.name);
                return Err(DriverFault::Transient(why));
            }
        }
        self.note_frozen(server, false).await
    }

    async fn note_frozen(&self, server: Uuid, frozen: bool) -> Result<(), DriverFault> {
        let record = self.inner.records.read(server).await?.unwrap_or_default();
        Ok(self.inner.records.write(server, &Record { frozen, ..record }).await?)
    }

    /// Lets every guest go on that an agent before has left standing still.
    pub(super) async fn thaw_all(&self) -> Result<(), DriverFault> {
        for (server, record) in self.inner.records.all().await? {
            if !record.frozen {
                continue;
            }
            let wire = self.inner.wire.get().await?;
            match find(&wire, server).await? {
                Some(domain) if state(&wire, &domain).await?.is_active() => {
                    if let Err(fault) = self.thaw(server, &wire, &domain).await {
                        tracing::warn!(%server, %fault, "a guest is asked again to go on with its backup");
                    }
                }
                // What does not run does not stand still.
                _ => self.note_frozen(server, false).await?,
            }
        }
        Ok(())
    }
}

/// All of a set, as the store has it.
async fn whole(set: &Set<'_>) -> Result<Taken, DriverFault> {
    let mixed = || DriverFault::Transient("what is in the store is of several moments".to_owned());
    set.find().await?.ok_or_else(mixed)
}

/// What a guest's agent answers; none when it does not, or says no.
async fn ask(
    wire: &Connection,
    domain: &Domain,
    what: &str,
    patience: Duration,
) -> Option<serde_json::Value> {
    let command = json!({"execute": what}).to_string();
    match wire.agent(domain, &command, patience).await {
        Ok(said) => {
            Some(said.and_then(|said| serde_json::from_str(&said).ok()).unwrap_or_default())
        }
        Err(fault) => {
            tracing::debug!(%fault, domain = domain.name, what, "a guest's agent was asked in vain");
            None
        }
    }
}
