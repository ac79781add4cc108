//! A segment is alone with its VLAN on the bridge that carries it.
//!
//! The place is a name, which whoever takes it writes itself into by the append that begins or changes the segment:
//! of two at once one loses, looks again and is refused. Who wrote itself in last has it as long as it is carried so.
//! Segments that were there before names were taken are asked of the views.

use domain::{
    kernel::{Refusal, Role},
    network::segment::{Command, Medium, Segment},
};
use uuid::Uuid;

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
    if let Some(place) = place(medium, &bridge) {
        let (revision, last) =
            gathering.ledger.last_claim(&place).await.map_err(LoadFault::from)?;
        if let Some(holder) = last.filter(|holder| *holder != gathering.id) {
            let (_, other) = gathering.ledger.typed::<Segment>(&holder.to_string()).await?;
            ensure_alone(gathering, (holder, &other), medium, &bridge)?;
        }
        gathering.takes.push((place, revision));
    }
    let others = all.into_iter().filter(|(id, _)| *id != gathering.id);
    for (id, other) in others {
        ensure_alone(gathering, (id, &other), medium, &bridge)?;
    }
    Ok(())
}

fn ensure_alone(
    gathering: &Gathering<'_>,
    (id, other): (Uuid, &Segment),
    medium: Medium,
    bridge: &str,
) -> Result<(), Refusal> {
    let sees = gathering.principal.authorise(Role::Viewer, other.project).is_ok();
    other.check_alone(id, medium, bridge).map_err(|refusal| hidden(refusal, sees))
}

/// The name of what one segment has for itself; none of what several may have.
fn place(medium: Medium, bridge: &str) -> Option<String> {
    Some(match medium {
        Medium::Bridge => return None,
        Medium::Vlan { id } => format!("segment/bridge/{bridge}/{id}"),
        Medium::Ovs { vlan: Some(id) } => format!("segment/ovs/{bridge}/{id}"),
        Medium::Ovs { vlan: None } => format!("segment/ovs/{bridge}/untagged"),
    })
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
