//! The store that a new image lies in, if it can, and what it is made from; the image that a server's command
//! names.

use domain::{
    compute::{
        backup::{self, Backup},
        disk::Disk,
        image::{Definition, Found, OfDisk, Source},
        placement::ServerId,
    },
    kernel::{Refusal, codes},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    GatherFault, Gathering,
    backup::{at_home, named as reached, no, stays, usable_store},
};

/// The namespace of the ids of backups that images are made from.
const SPACE: Uuid = Uuid::from_u128(0x7a1d_33f0_92c5_4e58_b0a7_4c1e_5d80_26f3);
/// Longest name of such a backup.
const NAME_CHARS_MAX: usize = 100;

/// Looks whether the image may lie there, and what it is made from.
pub(super) async fn store(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !gathering.body["found"].is_null() {
        return Err(no("found: is the server's to fill in"));
    }
    // What does not read is refused by the decider, with what is wrong.
    let Ok(definition) = serde_json::from_value::<Definition>(gathering.body.clone()) else {
        return Ok(());
    };
    match definition.source {
        Source::Store(store) => usable_store(gathering, store, definition.project).await,
        // What it is made from is looked at once.
        Source::Backup(_) | Source::Disk(_) if gathering.exists => Ok(()),
        Source::Backup(id) => {
            let backup: Backup = reached(gathering, "source.backup", id, false).await?;
            let bytes = backup.ensure_whole()?.size_bytes;
            let project = owned(gathering, backup.project)?;
            usable_store(gathering, backup.store, project).await?;
            fits(&definition, bytes.div_ceil(1 << 30))?;
            found(gathering, id, backup.store, None);
            Ok(())
        }
        Source::Disk(OfDisk { disk: id, store }) => {
            let disk: Disk = reached(gathering, "source.disk", id, false).await?;
            let home = at_home(&disk, id)?;
            stays(gathering, home, "an image").await?;
            let owner = disk.observation.project;
            let project = owned(gathering, owner)?;
            for project in [owner, project] {
                usable_store(gathering, store, project).await?;
            }
            fits(&definition, home.size_gib)?;
            let backup = Uuid::new_v5(&SPACE, gathering.id.as_bytes());
            let source = backup::Source {
                id: backup,
                project: owner,
                host: home.host,
                server: home.server.map(ServerId::uuid),
                disk_name: home.name.clone(),
            };
            let name = format!("for image {}", definition.name);
            let creation = backup::Creation {
                name: name.chars().take(NAME_CHARS_MAX).collect(),
                disk: id,
                store,
                parent: None,
                plan: None,
                found: Some(source),
            };
            found(gathering, backup, store, Some(Box::new(creation)));
            Ok(())
        }
        Source::Upload | Source::Url(_) => Ok(()),
    }
}

/// Whose the image is: the owner's of what it is made from, where nothing is said.
fn owned(gathering: &mut Gathering<'_>, owner: Option<Uuid>) -> Result<Option<Uuid>, GatherFault> {
    if let Value::Object(body) = &mut gathering.body {
        body.entry("project").or_insert_with(|| json!(owner));
    }
    let project = serde_json::from_value(gathering.body["project"].clone());
    project.map_err(|_| no("project: is an id"))
}

fn fits(definition: &Definition, least_gib: u64) -> Result<(), GatherFault> {
    if (1..least_gib).contains(&definition.min_disk_gib) {
        return Err(no(format!("min_disk_gib: the disk has {least_gib} GiB")));
    }
    Ok(())
}

fn found(
    gathering: &mut Gathering<'_>,
    backup: Uuid,
    store: Uuid,
    creation: Option<Box<backup::Creation>>,
) {
    gathering.body["found"] = json!(Found { id: gathering.id, backup, store, creation });
}

/// The image that a command names, if any. One that does not read is the decider's to refuse, with what is
/// wrong.
pub(super) fn named(
    gathering: &Gathering<'_>,
) -> Result<serde_json::Result<Option<Uuid>>, GatherFault> {
    if !gathering.body["found"].is_null() {
        let detail = "found: is found, not given; name the image";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    Ok(serde_json::from_value(gathering.body["image"].clone()))
}
