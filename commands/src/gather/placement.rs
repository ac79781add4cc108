//! Where a server that is launched goes.

use domain::{
    compute::{placement::ServerId, server::home::Launch},
    kernel::{Kind, Refusal, Role, codes},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering};
use crate::fleet::PlaceFault;

/// Whether a command takes a place in the fleet.
pub(crate) fn is_placed(kind: &Kind, verb: &str) -> bool {
    kind.name == "server" && matches!(verb, "evacuate" | "launch" | "migrate" | "resize")
}

/// Puts the place into the command.
pub(super) async fn place(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // The rule says that it exists already, and does not need a place for that.
    if gathering.exists {
        return Ok(());
    }
    if !matches!(gathering.body["placement"], Value::Null) {
        let detail = "placement: is found, not given; say where it may go in `wishes`";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    // What does not read is refused by the decider, with what is wrong.
    let Ok(launch) = serde_json::from_value::<Launch>(gathering.body.clone()) else {
        return Ok(());
    };
    // Before anything of the fleet is looked at, which is not theirs.
    gathering.principal.authorise(Role::Operator, launch.project)?;
    launch.spec.check_growth()?;
    let request = launch.request(ServerId::new(gathering.id));
    let reaches_hosts = gathering.principal.reach.covers(None);
    let placement = gathering.ledger.place(&request).await.map_err(|fault| match fault {
        PlaceFault::Refused(refusal) => GatherFault::Refused(for_reach(refusal, reaches_hosts)),
        PlaceFault::Load(fault) => GatherFault::Load(fault),
    })?;
    gathering.body["placement"] = json!(placement);
    Ok(())
}

/// Which host it is of is told to those who see hosts.
pub(super) fn for_reach(mut refusal: Refusal, reaches_hosts: bool) -> Refusal {
    if *refusal.code == codes::NO_ROOM
        && !reaches_hosts
        && let Some(end) = refusal.detail.find(';')
    {
        refusal.detail.truncate(end);
    }
    refusal
}
