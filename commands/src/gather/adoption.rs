//! What a machine would be as a server of ours, before its host says that it is one.

use domain::{
    compute::{
        adoption::{Adopt, work_out},
        host::Host,
        placement::HostId,
        server::Server,
    },
    kernel::{Decider, Refusal, Role, codes},
    network::{net::Network, segment::Segment},
};
use serde_json::{Value, json};

use super::{GatherFault, Gathering, launch::note};

/// Puts what the server would be into the command.
pub(super) async fn look(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    if !matches!(gathering.body["found"], Value::Null) {
        let detail = "found: is found, not given; name the machine";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    // What does not read is refused by the decider, with what is wrong.
    let Ok(ask) = serde_json::from_value::<Adopt>(gathering.body.clone()) else {
        return Ok(());
    };
    gathering.principal.authorise(Role::Admin, None)?;
    let (ledger, id) = (gathering.ledger, gathering.id);
    let (_, host) = ledger.typed::<Host>(&id.to_string()).await?;
    if host.retired {
        return Ok(());
    }
    let networks = ledger.networks_on(&host).await?;
    for reach in &networks {
        let (revision, _) = ledger.typed::<Network>(&reach.id.to_string()).await?;
        note(gathering, Network::KIND, reach.id, revision);
        if let Some(own) = &reach.network.own {
            let (revision, _) = ledger.typed::<Segment>(&own.segment.to_string()).await?;
            note(gathering, Segment::KIND, own.segment, revision);
        }
    }
    let (revision, server) = ledger.typed::<Server>(&ask.machine.to_string()).await?;
    note(gathering, Server::KIND, ask.machine, revision);
    let (issued, now) = (server.orders.issued, ledger.ports.clock.now());
    let looked = work_out(&ask, (HostId::new(id), &host), issued, &networks, now)?;
    if !looked.obstacles.is_empty() {
        let why: Vec<String> = looked.obstacles.into_iter().map(|one| one.detail).collect();
        return Err(Refusal::new(&codes::NOT_ADOPTABLE, why.join("; ")).into());
    }
    gathering.body["found"] = json!(looked.adoption);
    Ok(())
}
