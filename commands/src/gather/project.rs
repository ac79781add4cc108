//! A project that a command names must be there, be active, and be within the caller's reach.

use domain::{
    kernel::{Refusal, Role, codes},
    kinds,
};
use serde_json::Value;
use uuid::Uuid;

use super::{GatherFault, Gathering};
use crate::plan::Saw;

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
    let Some(kind) = kinds::by_name("project") else { return Ok(()) };
    for project in named {
        gathering.principal.authorise(Role::Viewer, Some(project))?;
        let loaded = gathering.ledger.load(kind, &project.to_string()).await?;
        let status = loaded.state.status();
        if status != "active" {
            let detail = format!("project: {project} is {status}");
            return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
        }
        gathering.saw.push(Saw {
            kind: kind.name.to_owned(),
            id: project.to_string(),
            mark: status.to_owned(),
        });
    }
    Ok(())
}
