//! The machine that a flavour says, in place of one that is said.

use domain::{
    compute::{
        flavour::Flavour,
        server::{
            Server,
            home::{Launch, Spec},
        },
    },
    kernel::{Refusal, codes},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{GatherFault, Gathering, launch::one};

fn no(detail: &str) -> GatherFault {
    Refusal::new(&codes::INVALID_FIELD, detail).into()
}

/// Puts the machine into a launch that names a flavour.
pub(super) async fn launch(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if gathering.exists {
        return Ok(());
    }
    // Left out or nothing is the same.
    if gathering.body["spec"].is_null()
        && let Some(body) = gathering.body.as_object_mut()
    {
        body.remove("spec");
    }
    if gathering.body["flavour"].is_null() {
        return Ok(());
    }
    if !gathering.body["spec"].is_null() {
        return Err(no("flavour: says what the machine is; leave spec out"));
    }
    let project = gathering.body["project"].as_str().and_then(|id| id.parse().ok());
    if let Some(spec) = named(gathering, project).await? {
        gathering.body["spec"] = json!(spec);
    }
    Ok(())
}

/// Whether a launch says what machine it is, by now. What does not read is refused by the decider, with what is wrong.
pub(super) fn said(gathering: &Gathering<'_>) -> Result<(), Refusal> {
    if gathering.exists {
        return Ok(());
    }
    serde_json::from_value(gathering.body.clone())
        .map_or(Ok(()), |launch: Launch| launch.ensure_said())
}

/// Puts processors and memory into a resize that names a flavour, where these are all that it has otherwise.
pub(super) async fn resize(
    gathering: &mut Gathering<'_>,
    server: &Server,
) -> Result<(), GatherFault> {
    let body = &gathering.body;
    if body["flavour"].is_null() {
        return Ok(());
    }
    if !(body["vcpus"].is_null() && body["memory_mib"].is_null()) {
        return Err(no("flavour: says processors and memory; leave vcpus and memory_mib out"));
    }
    // What is in the way of a server of a cloud is the decider's to say.
    let Some(home) = &server.home else { return Ok(()) };
    let Some(spec) = named(gathering, server.observation.project).await? else { return Ok(()) };
    home.ensure_resizes_to(&spec)?;
    gathering.body["vcpus"] = json!(spec.vcpus);
    gathering.body["memory_mib"] = json!(spec.memory_mib);
    Ok(())
}

/// What the flavour says that a command names; none when that does not read, which the decider refuses.
async fn named(
    gathering: &mut Gathering<'_>,
    project: Option<Uuid>,
) -> Result<Option<Spec>, GatherFault> {
    let Value::String(id) = &gathering.body["flavour"] else { return Ok(None) };
    let Ok(id) = id.parse::<Uuid>() else { return Ok(None) };
    let flavour: Flavour = one(gathering, "flavour", id, project, true).await?;
    Ok(Some(flavour.ensure_usable()?.clone()))
}
