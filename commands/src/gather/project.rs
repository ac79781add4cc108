//! A project that a command names must be there, be active, and be within the caller's reach.

use domain::{
    kernel::{Refusal, Role, codes},
    kinds,
};
use serde_json::Value;
use uuid::Uuid;

use super::{GatherFault, Gathering};
use crate::{
    ledger::{Ledger, LoadFault},
    plan::{Looked, Saw},
};

pub(super) async fn check(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if gathering.principal.name.starts_with("system:") {
        return Ok(());
    }
    let mut named: Vec<Uuid> = Vec::new();
    let mut name =
        |value: &Value| named.extend(value.as_str().and_then(|id| id.parse::<Uuid>().ok()));
    name(&gathering.body["project"]);
    if let Some(projects) = gathering.body["reach"]["projects"].as_array() {
        projects.iter().for_each(&mut name);
    }
    for project in named {
        gathering.principal.authorise(Role::Viewer, Some(project))?;
        let looked = look_at_project(gathering.ledger, project).await?;
        let status = looked.saw.mark.clone();
        looked.note(&mut gathering.looked);
        if status != "active" {
            let detail = format!("project: {project} is {status}");
            return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
        }
    }
    Ok(())
}

/// What a decision asks of a project: its status.
pub(crate) async fn look_at_project(ledger: &Ledger, id: Uuid) -> Result<Looked, LoadFault> {
    let id = id.to_string();
    let kind = kinds::by_name("project").ok_or_else(|| LoadFault::Missing("projects".into()))?;
    let loaded = ledger.load(kind, &id).await?;
    let mark = loaded.state.status().to_owned();
    let saw = Saw { kind: kind.name.to_owned(), id, mark };
    Ok(Looked { saw, revision: loaded.revision })
}
