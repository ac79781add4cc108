//! A segment is alone with its VLAN on the bridge that carries it.
//!
//! What is there is asked of the views: of two that are begun in the same moment neither may see the other,
//! and a host then refuses the second.

use domain::{
    kernel::{Refusal, Role},
    network::segment::{Command, Segment},
};

use super::{GatherFault, Gathering};
use crate::ledger::LoadFault;

/// Refuses what another segment has.
pub(super) async fn alone(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    // What does not read is refused by the decider, with what is wrong.
    let tagged = serde_json::json!({"type": gathering.verb, "data": gathering.body});
    let Ok(command) = serde_json::from_value::<Command>(tagged) else { return Ok(()) };
    let (_, known) = gathering.ledger.typed::<Segment>(&gathering.id.to_string()).await?;
    let Some((medium, bridge)) = known.carried_after(&command) else { return Ok(()) };
    let read = gathering.ledger.states::<Segment>(None).await;
    let (all, _) = read.map_err(|fault| LoadFault::Missing(format!("the segments: {fault}")))?;
    let others = all.into_iter().filter(|(id, _)| *id != gathering.id);
    for (id, other) in others {
        let sees = gathering.principal.authorise(Role::Viewer, other.project).is_ok();
        other.check_alone(id, medium, &bridge).map_err(|refusal| hidden(refusal, sees))?;
    }
    Ok(())
}

/// Which segment it is is told to those who see it.
fn hidden(refusal: Refusal, sees: bool) -> Refusal {
    if sees {
        return refusal;
    }
    let detail = match refusal.detail.split_once(':') {
        Some((field, _)) => format!("{field}: another project's segment has it"),
        None => refusal.detail,
    };
    Refusal { detail, ..refusal }
}
