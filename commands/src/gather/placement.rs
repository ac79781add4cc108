//! Where a server that is launched goes.

use domain::{
    compute::{
        placement::{Request, ServerId},
        server::home::Launch,
    },
    kernel::{Kind, Refusal, Role, codes},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering};
use crate::fleet::PlaceFault;

/// Whether a command takes a place in the fleet.
pub(crate) fn is_placed(kind: &Kind, verb: &str) -> bool {
    let placed = ["add-device", "evacuate", "launch", "migrate", "remove-device", "resize"];
    kind.name == "server" && placed.contains(&verb)
}

/// Puts the place into the command.
pub(super) async fn place(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // The rule says that it exists already, and does not need a place for that.
    if gathering.exists {
        return Ok(());
    }
    let Some((_, request)) = asked(gathering)? else { return Ok(()) };
    let reaches_hosts = gathering.principal.reach.covers(None);
    let placement = gathering.ledger.place(&request).await.map_err(|fault| match fault {
        PlaceFault::Refused(refusal) => GatherFault::Refused(for_reach(refusal, reaches_hosts)),
        PlaceFault::Load(fault) => GatherFault::Load(fault),
    })?;
    gathering.body["placement"] = json!(placement);
    Ok(())
}

/// The launch with what it asks of the fleet; none when it does not read, which the decider refuses with what
/// is wrong.
pub(super) fn asked(gathering: &Gathering<'_>) -> Result<Option<(Launch, Request)>, Refusal> {
    if !matches!(gathering.body["placement"], Value::Null) {
        let detail = "placement: is found, not given; say where it may go in `wishes`";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail));
    }
    let Ok(launch) = serde_json::from_value::<Launch>(gathering.body.clone()) else {
        return Ok(None);
    };
    // Before anything of the fleet is looked at, which is not theirs.
    gathering.principal.authorise(Role::Operator, launch.project)?;
    launch.spec.check_growth()?;
    let request = launch.request(ServerId::new(gathering.id));
    Ok(Some((launch, request)))
}

/// Which host it is of is told to those who see hosts.
pub(crate) fn for_reach(mut refusal: Refusal, reaches_hosts: bool) -> Refusal {
    if *refusal.code == codes::NO_ROOM
        && !reaches_hosts
        && let Some(end) = refusal.detail.find(';')
    {
        refusal.detail.truncate(end);
    }
    refusal
}
