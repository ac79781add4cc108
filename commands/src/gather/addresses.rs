//! Other addresses of an interface of a server of our own: those that its network would give it now. Who
//! may not have the network may not have its addresses.

use domain::{
    compute::server::addresses::Change,
    kernel::{Refusal, codes},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering, launch::network, nic::server};

/// Puts what the interface is to have into the command.
pub(super) async fn find(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !matches!(gathering.body["found"], Value::Null) {
        let detail = "found: is found, not given; name v4 or v6";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    // What does not read is refused by the decider, with what is wrong.
    let Ok(change) = serde_json::from_value::<Change>(gathering.body.clone()) else {
        return Ok(());
    };
    let server = server(gathering).await?;
    // What is in the way is the decider's to say.
    let Ok(nic) = server.check_addresses(change.nic) else { return Ok(()) };
    let project = server.observation.project;
    let (network, _) = network(gathering, "nic.", nic.network, project).await?;
    let (holder, now) = (server.next_holder(gathering.id), gathering.ledger.ports.clock.now());
    let found = nic.other_addresses(holder, (change.v4, change.v6), &network, now)?;
    gathering.body["found"] = json!(found);
    Ok(())
}
