//! Where a server that is launched goes.

use domain::{
    compute::{placement::ServerId, server::home::Launch},
    kernel::{Kind, Refusal, codes},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering};
use crate::fleet::PlaceFault;

/// Whether a command takes a place in the fleet.
pub(crate) fn is_placed(kind: &Kind, verb: &str) -> bool {
    kind.name == "server" && verb == "launch"
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
    let request = launch.request(ServerId::new(gathering.id));
    let placement = gathering.ledger.place(&request).await.map_err(|fault| match fault {
        PlaceFault::Refused(refusal) => GatherFault::Refused(refusal),
        PlaceFault::Load(fault) => GatherFault::Load(fault),
    })?;
    gathering.body["placement"] = json!(placement);
    Ok(())
}
