//! What a machine would be as a server of ours, before its host says that it is one.

use domain::{
    compute::{
        adoption::{Adopt, work_out},
        disk::Disk,
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
    let mut networks = ledger.networks_on(&host).await?;
    for reach in &mut networks {
        let (revision, network) = ledger.typed::<Network>(&reach.id.to_string()).await?;
        reach.network = network;
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

/// Nothing of ours is in the disks of one that is given back, and nothing works on them.
pub(super) async fn unused(gathering: &mut Gathering<'_>) -> Result<(), GatherFault> {
    let ledger = gathering.ledger;
    let (_, server) = ledger.typed::<Server>(&gathering.id.to_string()).await?;
    // What else is in the way is the decider's to say.
    let disks = server.home.iter().flat_map(|home| &home.parts.disks);
    for disk in disks.filter(|disk| disk.in_place.is_some()) {
        let (revision, state) = ledger.typed::<Disk>(&disk.id.to_string()).await?;
        note(gathering, Disk::KIND, disk.id, revision);
        state.ensure_unused()?;
        let snapshots = state.home.iter().flat_map(|home| &home.snapshots);
        if let Some(snapshot) = snapshots.into_iter().next() {
            let detail = format!("disk {} has snapshot {snapshot} in it: delete it first", disk.id);
            return Err(Refusal::new(&codes::IN_USE, detail).into());
        }
    }
    Ok(())
}
