//! What a backup plan needs to know: whether its disks, its servers and its store are there, and whose.

use domain::{
    compute::{
        backup_plan::{BackupPlan, SUBJECTS_MAX, Terms},
        disk::Disk,
        server::Server,
    },
    kernel::Role,
};
use uuid::Uuid;

use super::{
    GatherFault, Gathering,
    backup::{at_home, given, named, no, usable_store},
};

/// The disks, the servers and the store of a plan.
pub(super) async fn find(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong.
    let Ok(terms) = serde_json::from_value::<Terms>(gathering.body["terms"].clone()) else {
        return Ok(());
    };
    if terms.disks.len() + terms.servers.len() > SUBJECTS_MAX {
        return Ok(());
    }
    let (_, known) = gathering.ledger.typed::<BackupPlan>(&gathering.id.to_string()).await?;
    let project = given(gathering, "project").or(known.project);
    // One of the estate backs up anybody's: it is for who reaches everything.
    gathering.principal.authorise(Role::Operator, project)?;
    for id in &terms.disks {
        let disk: Disk = named(gathering, "terms.disks", *id, false).await?;
        if at_home(&disk, *id)?.removed {
            return Err(no(format!("terms.disks: {id} is gone")));
        }
        of_plan("terms.disks", *id, project, disk.observation.project)?;
    }
    for id in &terms.servers {
        let server: Server = named(gathering, "terms.servers", *id, false).await?;
        if server.home.as_ref().is_none_or(|home| home.removed) {
            return Err(no(format!("terms.servers: {id} is not on a host of ours, or is gone")));
        }
        of_plan("terms.servers", *id, project, server.observation.project)?;
    }
    usable_store(gathering, terms.store, project).await
}

fn of_plan(
    field: &str,
    id: Uuid,
    plan: Option<Uuid>,
    owner: Option<Uuid>,
) -> Result<(), GatherFault> {
    if plan.is_some() && owner != plan {
        return Err(no(format!("{field}: {id} is of another project than the plan")));
    }
    Ok(())
}
