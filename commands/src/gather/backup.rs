//! What a backup or a snapshot needs to know: where its disk is and whose, whether its store and the backup
//! that it is made on can be used. And the keys of a store, which are sealed before anybody sees them.

use domain::{
    compute::{
        backup::{Backup, Creation, Source},
        backup_set::BackupSet,
        backup_store::BackupStore,
        disk::{self, Disk, Home},
        image::Image,
        placement::{HostId, ServerId},
        server::{Power, Server},
        snapshot::{self, Snapshot},
        storage::{Format, StorageId, in_group},
    },
    kernel::{Decider, Refusal, Role, canonical_value, codes},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{GatherFault, Gathering, volume};
use crate::{
    fleet::Reached,
    ledger::{LoadFault, store_context},
    plan::{Looked, Saw},
    ports::{Query, Row, StoreKeys},
};

/// How long the views may take to show what was ordered before a store is retired.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) fn no(detail: impl Into<String>) -> GatherFault {
    Refusal::new(&codes::INVALID_FIELD, detail).into()
}

/// The keys of a store, sealed.
pub(super) async fn seal(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let ledger = gathering.ledger;
    let given = gathering.body["credential"].take();
    if !given.is_object() {
        return Err(no("credential: needs an object with access_key_id and secret_access_key"));
    }
    let keys = serde_json::from_value::<StoreKeys>(given);
    let mut keys = keys.map_err(|why| no(format!("credential: {why}")))?;
    if let Some(wrong) = keys.wrong() {
        return Err(no(wrong));
    }
    if gathering.verb != "create" {
        if keys.encryption_key.is_some() {
            let why = "credential.encryption_key: stays as it is, or nobody reads what lies there";
            return Err(no(why));
        }
        let (revision, store) = ledger.typed::<BackupStore>(&gathering.id.to_string()).await?;
        if revision > 0 {
            keys.encryption_key =
                ledger.store_access(gathering.id, &store, None)?.keys.encryption_key;
        }
    }
    let context = store_context(gathering.id);
    let sealed = ledger.ports.vault.seal(&canonical_value(&json!(keys)), &context);
    gathering.body["credential"] = json!(sealed.map_err(LoadFault::from)?);
    Ok(())
}

/// A store is retired when no backup is left there.
pub(super) async fn empty(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let ledger = gathering.ledger;
    let unseen = |fault: &dyn std::fmt::Display| LoadFault::Missing(format!("the views: {fault}"));
    let head = ledger.ports.log.head().await.map_err(LoadFault::from)?.position;
    let views = &ledger.ports.views;
    views.reach_position(head, PATIENCE).await.map_err(|fault| unseen(&fault))?;
    let query = Query::all().with("kind", Backup::KIND).with("gone", false);
    let (rows, _) = ledger.rows(query).await.map_err(|fault| unseen(&fault))?;
    let store = gathering.id.to_string();
    let query = Query::all().with("kind", Image::KIND).with("gone", false);
    let (images, _) = ledger.rows(query).await.map_err(|fault| unseen(&fault))?;
    let here = |row: &&Row| {
        let definition = &row.body["state"]["definition"];
        ["source", "found"].iter().any(|at| definition[at]["store"] == store.as_str())
    };
    if let Some(image) = images.iter().find(here) {
        let detail = format!("image {} lies there; retire it first", image.key);
        return Err(Refusal::new(&codes::IN_USE, detail).into());
    }
    // One that is being made has no backups yet.
    let query = Query::all().with("kind", BackupSet::KIND).with("gone", false);
    let (sets, _) = ledger.rows(query).await.map_err(|fault| unseen(&fault))?;
    let here = |row: &&Row| {
        let state = &row.body["state"];
        state["store"] == store.as_str() && state["taken"].is_null()
    };
    if let Some(set) = sets.iter().find(here) {
        let detail = format!("backup set {} is being made there", set.key);
        return Err(Refusal::new(&codes::IN_USE, detail).into());
    }
    match rows.iter().find(|row| row.body["state"]["store"] == store.as_str()) {
        Some(backup) => {
            let detail = format!("backup {} lies there; delete it first", backup.key);
            Err(Refusal::new(&codes::IN_USE, detail).into())
        }
        None => Ok(()),
    }
}

/// A resource that the command names, if the caller reaches it.
pub(super) async fn named<T: Decider>(
    gathering: &mut Gathering<'_>,
    field: &str,
    id: Uuid,
    shared: bool,
) -> Result<T, GatherFault> {
    let (revision, state) = gathering.ledger.typed::<T>(&id.to_string()).await?;
    let project = state.facets().project;
    let reached = gathering.principal.authorise(Role::Operator, project);
    if revision == 0 {
        // Who does not reach everything is not told what there is.
        gathering.principal.authorise(Role::Operator, None)?;
        return Err(no(format!("{field}: there is no {} {id}", T::KIND)));
    }
    if !(shared && project.is_none()) {
        reached?;
    }
    let saw = Saw { kind: T::KIND.to_owned(), id: id.to_string(), mark: revision.to_string() };
    Looked { saw, revision }.note(&mut gathering.looked);
    Ok(state)
}

pub(super) fn given(gathering: &Gathering<'_>, field: &str) -> Option<Uuid> {
    gathering.body[field].as_str().and_then(|id| id.parse().ok())
}

fn unfound(gathering: &Gathering<'_>) -> Result<(), GatherFault> {
    match gathering.body["found"] {
        Value::Null => Ok(()),
        _ => Err(no("found: is the server's to fill in")),
    }
}

pub(super) fn at_home(disk: &Disk, id: Uuid) -> Result<&Home, GatherFault> {
    disk.home.as_ref().ok_or_else(|| no(format!("disk: {id} is not on a host of ours")))
}

/// Where the disk of a new backup is, and whether its store and its parent can be used.
pub(super) async fn create(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    unfound(gathering)?;
    // What does not read is refused by the decider, with what is wrong.
    let Ok(creation) = serde_json::from_value::<Creation>(gathering.body.clone()) else {
        return Ok(());
    };
    if creation.plan.is_some() && !gathering.principal.name.starts_with("system:") {
        return Err(no("plan: is a backup plan's to say, which deletes what it made"));
    }
    let disk: Disk = named(gathering, "disk", creation.disk, false).await?;
    let home = at_home(&disk, creation.disk)?;
    stays(gathering, home, "a backup").await?;
    let project = disk.observation.project;
    usable_store(gathering, creation.store, project).await?;
    if let Some(parent) = creation.parent {
        let on: Backup = named(gathering, "parent", parent, false).await?;
        on.ensure_whole()?;
        if (on.disk, on.store) != (creation.disk, creation.store) {
            return Err(no("parent: is a backup of another disk, or in another store"));
        }
    }
    let source = Source {
        id: gathering.id,
        project,
        host: home.host,
        server: home.server.map(ServerId::uuid),
        disk_name: home.name.clone(),
    };
    gathering.body["found"] = json!(source);
    Ok(())
}

/// Whether the host that has a backup's order does not have the disk any more: its server was had back from
/// there while it was dead.
pub(super) async fn lost(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !gathering.body["host_lost"].is_null() {
        return Err(no("host_lost: is the server's to fill in"));
    }
    let ledger = gathering.ledger;
    let (_, backup) = ledger.typed::<Backup>(&gathering.id.to_string()).await?;
    let Some(at) = backup.on_host() else { return Ok(()) };
    let (_, disk) = ledger.typed::<Disk>(&backup.disk.to_string()).await?;
    if disk.home.is_some_and(|home| home.host.uuid() != at.host) {
        gathering.body["host_lost"] = json!(true);
    }
    Ok(())
}

/// The same of a snapshot's order: where the disk is then.
pub(super) async fn snapshot_lost(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    unfound(gathering)?;
    let ledger = gathering.ledger;
    let (_, snapshot) = ledger.typed::<Snapshot>(&gathering.id.to_string()).await?;
    let Some(place) = snapshot.place else { return Ok(()) };
    let (_, disk) = ledger.typed::<Disk>(&snapshot.disk.to_string()).await?;
    if let Some(home) = disk.home.as_ref().filter(|home| home.host != place.host) {
        gathering.body["found"] = json!(snapshot_place(gathering.id, &disk, home));
    }
    Ok(())
}

/// Its store is one that backups of its new project may lie in.
pub(super) async fn assign(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let (revision, backup) = gathering.ledger.typed::<Backup>(&gathering.id.to_string()).await?;
    // What does not read is refused by the decider, with what is wrong.
    let project = serde_json::from_value::<Option<Uuid>>(gathering.body["project"].clone());
    let (Ok(project), true) = (project, revision > 0) else { return Ok(()) };
    let (_, store) = gathering.ledger.typed::<BackupStore>(&backup.store.to_string()).await?;
    if store.project.is_some() && store.project != project {
        return Err(no("project: the store that it lies in is another project's"));
    }
    Ok(())
}

/// A store that backups of a project's disks may lie in.
pub(super) async fn usable_store(
    gathering: &mut Gathering<'_>,
    id: Uuid,
    project: Option<Uuid>,
) -> Result<(), GatherFault> {
    let store: BackupStore = named(gathering, "store", id, true).await?;
    store.ensure_usable()?;
    if store.project.is_some() && store.project != project {
        return Err(no("store: is of another project than the disk"));
    }
    Ok(())
}

/// What a new disk is made from.
pub(super) struct Base {
    pub(super) source: disk::Source,
    /// How large it is at least, in GiB.
    pub(super) size_gib: u64,
    /// Where that can be read.
    pub(super) read: Read,
}

/// Where what a disk is made from can be read.
pub(super) enum Read {
    /// Everywhere: it is in a store.
    Anywhere,
    /// On one host alone.
    At(HostId),
    /// On every host that reaches this storage.
    On(StorageId),
}

/// What a new disk of a project is made from.
pub(super) async fn source(
    gathering: &mut Gathering<'_>,
    field: &str,
    from: disk::From,
    project: Option<Uuid>,
) -> Result<Base, GatherFault> {
    match from {
        disk::From::Backup(id) => {
            let backup: Backup = named(gathering, &format!("{field}.backup"), id, false).await?;
            let made = backup.ensure_whole()?.clone();
            usable_store(gathering, backup.store, project).await?;
            let (disk, store, digest) = (backup.disk, backup.store, made.digest);
            let source = disk::Source::Backup { backup: id, disk, store, digest };
            Ok(Base { source, size_gib: made.size_bytes.div_ceil(1 << 30), read: Read::Anywhere })
        }
        disk::From::Snapshot(id) => {
            let field = format!("{field}.snapshot");
            let snapshot: Snapshot = named(gathering, &field, id, false).await?;
            snapshot.ensure_free("a copy")?;
            let disk: Disk = named(gathering, &field, snapshot.disk, false).await?;
            let home = at_home(&disk, snapshot.disk)?;
            if let Some(server) = home.server {
                stopped(gathering, server.uuid(), "a copy of a snapshot").await?;
            }
            let (size_gib, host) = (home.size_gib, home.host);
            // It lies where its disk does now.
            let read = match home.storage {
                Some(storage) => match gathering.ledger.reached(storage).await? {
                    Reached::Folder => Read::On(storage),
                    Reached::Group(_) | Reached::Nowhere => Read::At(host),
                },
                None => Read::At(host),
            };
            let source = disk::Source::Snapshot { snapshot: id, disk: snapshot.disk };
            Ok(Base { source, size_gib, read })
        }
    }
}

/// What a disk is to be made in its place; its server has to be stopped.
pub(super) async fn restore(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    unfound(gathering)?;
    let Some(id) = given(gathering, "backup") else { return Ok(()) };
    let (_, disk) = gathering.ledger.typed::<Disk>(&gathering.id.to_string()).await?;
    // What is in the way is the decider's to say.
    let Some(home) = disk.home.as_ref().filter(|home| !home.removed) else { return Ok(()) };
    let backup: Backup = named(gathering, "backup", id, false).await?;
    let made = backup.ensure_whole()?.clone();
    usable_store(gathering, backup.store, disk.observation.project).await?;
    let (has, holds) = (home.size_gib, made.size_bytes.div_ceil(1 << 30));
    if holds > has {
        return Err(no(format!("backup: has {holds} GiB and the disk {has}; grow the disk first")));
    }
    if let Some(server) = home.server {
        stopped(gathering, server.uuid(), "restore").await?;
    }
    let (of, store, digest) = (backup.disk, backup.store, made.digest);
    gathering.body["found"] = json!(disk::Source::Backup { backup: id, disk: of, store, digest });
    Ok(())
}

/// A size that was asked for, or that of what the disk is made from.
pub(super) fn size(asked: &mut Value, least_gib: u64) -> Result<(), GatherFault> {
    match asked {
        Value::Null => *asked = json!(least_gib),
        asked if asked.as_u64().is_some_and(|asked| asked < least_gib) => {
            return Err(no(format!("size_gib: what it is made from has {least_gib}")));
        }
        _ => {}
    }
    Ok(())
}

fn snapshot_place(id: Uuid, disk: &Disk, home: &Home) -> snapshot::Place {
    snapshot::Place {
        id,
        project: disk.observation.project,
        host: home.host,
        server: home.server.map(ServerId::uuid),
        size_gib: home.size_gib,
    }
}

/// Where the disk of a new snapshot is.
pub(super) async fn snapshot(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    unfound(gathering)?;
    let Some(id) = given(gathering, "disk") else { return Ok(()) };
    let disk: Disk = named(gathering, "disk", id, false).await?;
    let home = at_home(&disk, id)?;
    if home.format != Format::Qcow2 {
        beside(gathering, home).await?;
    }
    stays(gathering, home, "a snapshot").await?;
    gathering.body["found"] = json!(snapshot_place(gathering.id, &disk, home));
    Ok(())
}

/// A raw disk has its snapshots beside it: in a volume group, where that has room for one more.
async fn beside(gathering: &Gathering<'_>, home: &Home) -> Result<(), GatherFault> {
    let group = match home.storage {
        Some(storage) => match gathering.ledger.reached(storage).await? {
            Reached::Group(group) => Some((storage, group)),
            Reached::Folder | Reached::Nowhere => None,
        },
        None => None,
    };
    let Some((storage, group)) = group else {
        let detail =
            "disk: has snapshots where it is qcow2 or in a volume group, and it is neither";
        return Err(no(detail));
    };
    in_group(storage, home.format, &group)?;
    let Some(room) = &group.room else { return Ok(()) };
    volume::room(gathering, storage, Some(room), room.snapshot_mib(home.size_gib), None).await
}

/// Where a snapshot's disk is now; to go back its server has to be stopped.
pub(super) async fn snapshot_now(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    unfound(gathering)?;
    let (revision, snapshot) =
        gathering.ledger.typed::<Snapshot>(&gathering.id.to_string()).await?;
    if revision == 0 {
        return Ok(());
    }
    snapshot.ensure_free(gathering.verb)?;
    let (_, disk) = gathering.ledger.typed::<Disk>(&snapshot.disk.to_string()).await?;
    let home = at_home(&disk, snapshot.disk)?;
    // One that was made before its disk was given away is no way to what is on it.
    gathering.principal.authorise(Role::Operator, disk.observation.project)?;
    let verb = gathering.verb;
    stays(gathering, home, verb).await?;
    if gathering.verb == "roll-back"
        && let Some(server) = home.server
    {
        stopped(gathering, server.uuid(), "roll-back").await?;
    }
    gathering.body["found"] = json!(snapshot_place(gathering.id, &disk, home));
    Ok(())
}

/// The server of a disk is not on its way to another host: who would work on the disk there is not known.
pub(super) async fn stays(
    gathering: &mut Gathering<'_>,
    home: &Home,
    what: &str,
) -> Result<(), GatherFault> {
    let Some(id) = home.server else { return Ok(()) };
    let (revision, server) = gathering.ledger.typed::<Server>(&id.to_string()).await?;
    server.stays(what)?;
    let saw = Saw { kind: Server::KIND.to_owned(), id: id.to_string(), mark: revision.to_string() };
    Looked { saw, revision }.note(&mut gathering.looked);
    Ok(())
}

/// A server that does not run, and that nothing is ordered of.
async fn stopped(gathering: &mut Gathering<'_>, id: Uuid, verb: &str) -> Result<(), GatherFault> {
    let (revision, server) = gathering.ledger.typed::<Server>(&id.to_string()).await?;
    let saw = Saw { kind: Server::KIND.to_owned(), id: id.to_string(), mark: revision.to_string() };
    Looked { saw, revision }.note(&mut gathering.looked);
    let power = server.observation.seen.as_ref().map(|seen| seen.power);
    let ordered = Decider::order(&server).is_some();
    if power != Some(Power::Stopped) || ordered {
        let detail = format!("{verb}: stop server {id} first");
        return Err(Refusal::new(&codes::WRONG_STATE, detail).into());
    }
    Ok(())
}
