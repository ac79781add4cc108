//! What a backup set needs to know: which disks its server has now, where they are, and whether its store
//! can be used; and which of its backups are there when it is deleted.

use std::collections::BTreeSet;

use domain::{
    compute::{
        backup::Backup,
        backup_set::{BackupSet, Creation, Member, Source},
        disk::Disk,
        server::{Server, blueprint::Blueprint},
    },
    kernel::{Decider, Role},
    network::net::Network,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    GatherFault, Gathering,
    backup::{given, named, no, usable_store},
};

/// The namespace of the ids of backups that sets make.
const SPACE: Uuid = Uuid::from_u128(0x52d1_9a3e_7c04_4b6b_a1f8_30c5_9d7e_4412);

/// The backup that a set makes of a disk.
fn backup_id(set: Uuid, disk: Uuid) -> Uuid {
    Uuid::new_v5(&SPACE, format!("{set} {disk}").as_bytes())
}

/// The disks of its server, and what may lie in its store.
pub(super) async fn create(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !gathering.body["found"].is_null() {
        return Err(no("found: is the server's to fill in"));
    }
    // What does not read is refused by the decider, with what is wrong.
    let Ok(creation) = serde_json::from_value::<Creation>(gathering.body.clone()) else {
        return Ok(());
    };
    if creation.plan.is_some() && !gathering.principal.name.starts_with("system:") {
        return Err(no("plan: is a backup plan's to say, which deletes what it made"));
    }
    let server: Server = named(gathering, "server", creation.server, false).await?;
    let blueprint = Blueprint::of(&server).map(Box::new);
    let home = server.home.as_ref().filter(|home| !home.removed);
    let home = home.ok_or_else(|| no("server: is not on a host of ours"))?;
    server.stays("a backup set")?;
    let project = server.observation.project;
    usable_store(gathering, creation.store, project).await?;
    let mut members = Vec::new();
    for part in &home.parts.disks {
        let disk: Disk = named(gathering, "server", part.id, false).await?;
        let Some(at) = disk.home.as_ref().filter(|at| !at.removed) else { continue };
        if disk.observation.project != project {
            return Err(no(format!("server: its disk {} is of another project", at.name)));
        }
        members.push(Member {
            disk: part.id,
            disk_name: at.name.clone(),
            backup: backup_id(gathering.id, part.id),
        });
    }
    let host = home.placement.host;
    let source = Source { id: gathering.id, project, host, members, blueprint };
    gathering.body["found"] = json!(source);
    Ok(())
}

/// Its backups that are there and still its owner's.
pub(super) async fn delete(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !gathering.body["found"].is_null() {
        return Err(no("found: is the server's to fill in"));
    }
    let ledger = gathering.ledger;
    let (_, set) = ledger.typed::<BackupSet>(&gathering.id.to_string()).await?;
    let mut there = BTreeSet::new();
    for member in set.taken.iter().flat_map(|_| set.members()) {
        let (revision, backup) = ledger.typed::<Backup>(&member.backup.to_string()).await?;
        let going = backup.removed || backup.order().is_some_and(|out| is_removal(&out.order));
        let reached = gathering.principal.authorise(Role::Operator, backup.project).is_ok();
        if revision > 0 && !going && backup.project == set.project && reached {
            there.insert(member.backup);
        }
    }
    gathering.body["found"] = json!(there);
    Ok(())
}

fn is_removal(order: &domain::compute::backup::Order) -> bool {
    *order == domain::compute::backup::Order::Remove {}
}

/// Whether the host that has a set's order does not have the server any more.
pub(super) async fn lost(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !gathering.body["host_lost"].is_null() {
        return Err(no("host_lost: is the server's to fill in"));
    }
    let ledger = gathering.ledger;
    let (_, set) = ledger.typed::<BackupSet>(&gathering.id.to_string()).await?;
    let Some(at) = set.on_host() else { return Ok(()) };
    let (_, server) = ledger.typed::<Server>(&set.server.to_string()).await?;
    if server.home.is_some_and(|home| home.placement.host.uuid() != at.host) {
        gathering.body["host_lost"] = json!(true);
    }
    Ok(())
}

/// The disks of a new server, in place of the set that it is launched from, and all that its server was and that
/// is left out.
pub(super) async fn launch(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong.
    let said = serde_json::from_value::<Option<Uuid>>(gathering.body["backup_set"].clone());
    let Ok(Some(id)) = said else { return Ok(()) };
    let disks = gathering.body["disks"].as_array().map_or(0, Vec::len);
    if disks > 0 || !gathering.body["image"].is_null() {
        return Err(no("backup_set: says which disks there are; leave disks and image out"));
    }
    let set: BackupSet = named(gathering, "backup_set", id, false).await?;
    let was = |member: &Member| set.blueprint()?.disks.get(&member.disk);
    let from = |member: &Member| {
        let mut disk = json!({"from": {"backup": member.backup}});
        if let Some(was) = was(member) {
            disk["format"] = json!(was.format);
            disk["limits"] = json!(was.limits);
        }
        disk
    };
    let disks: Vec<Value> = set.ensure_whole()?.iter().map(from).collect();
    gathering.body["disks"] = json!(disks);
    let Some(blueprint) = set.blueprint() else { return Ok(()) };
    if gathering.body["nics"].is_null() && !blueprint.nics.is_empty() {
        let networks = networks(gathering).await?;
        gathering.body["nics"] = json!(blueprint.nics(&networks)?);
    }
    let body = &mut gathering.body;
    let mut fill = |name: &str, value: Value| {
        if body[name].is_null() {
            body[name] = value;
        }
    };
    fill("name", json!(blueprint.name));
    fill("spec", json!(blueprint.spec));
    fill("firmware", json!(blueprint.firmware));
    fill("hardware", json!(blueprint.hardware));
    fill("tags", json!(blueprint.tags));
    fill("protected", json!(blueprint.protected));
    if body["boot_order"].is_null() {
        let has_nics = body["nics"].as_array().is_some_and(|nics| !nics.is_empty());
        let order = blueprint.boots(!body["cdrom"].is_null(), has_nics);
        body["boot_order"] = json!(order);
    }
    Ok(())
}

/// The networks of ours that the new server may be on.
async fn networks(gathering: &Gathering<'_>) -> Result<Vec<(Uuid, Network)>, GatherFault> {
    let project = given(gathering, "project");
    let all = gathering.ledger.own_networks().await?;
    let may = |network: &Network| {
        let whose = network.observation.project;
        whose == project || gathering.principal.authorise(Role::Viewer, whose).is_ok()
    };
    Ok(all.into_iter().filter(|(_, network)| may(network)).collect())
}

/// The public keys of who may log in to a server that is launched from a set, where the launch names none.
pub(super) async fn keys(
    gathering: &Gathering<'_>,
    set: Option<Uuid>,
) -> Result<Vec<String>, GatherFault> {
    let Some(id) = set.filter(|_| gathering.body["key_pairs"].is_null()) else {
        return Ok(Vec::new());
    };
    let (_, set) = gathering.ledger.typed::<BackupSet>(&id.to_string()).await?;
    Ok(set.blueprint().map(|was| was.keys.clone()).unwrap_or_default())
}
