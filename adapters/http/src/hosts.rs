//! Hosts of our own: what becomes of the servers of one that is to have none, what one has that is no server of
//! ours, and its devices.

use ::commands::drain::DrainFault;
use axum::http::StatusCode;
use domain::{compute::device, kernel::Decider};
use serde_json::json;

use crate::{
    call::{Answer, Call, answer, at_position},
    problem::Problem,
};

impl From<DrainFault> for Problem {
    fn from(fault: DrainFault) -> Self {
        match fault {
            DrainFault::Refused(refusal) => refusal.into(),
            DrainFault::Load(fault) => fault.into(),
        }
    }
}

/// The machines of a host that are no servers of ours, and what is in the way of adopting each.
pub(crate) async fn machines(call: Call) -> Answer {
    let id = call.id()?;
    let foreign = call.service.ledger.foreign(id).await?;
    let free = foreign.machines.iter().filter(|one| one.obstacles.is_empty()).count();
    let body = json!({
        "host": id,
        "name": foreign.host.name,
        "adoptable": free,
        "others": foreign.machines.len() - free,
        "items": foreign.machines,
        "position": foreign.position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), foreign.position))
}

/// The devices of a host that servers can have, each with what has become of it, and how many are left of each sort.
pub(crate) async fn devices(call: Call) -> Answer {
    let id = call.id()?;
    let (host, position) = call.service.ledger.host_now(id).await?;
    let devices = device::devices(&host);
    let body = json!({
        "host": id,
        "name": host.name,
        "counts": device::counts(&devices),
        "items": devices,
        "position": position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// Which of a host's servers can go elsewhere and where to, and what is in the way of the others.
pub(crate) async fn drain(call: Call) -> Answer {
    let id = call.id()?;
    let draining = call.service.ledger.draining(id).await?;
    let movable = draining.servers.iter().filter(|one| one.way.is_some()).count();
    let body = json!({
        "host": id,
        "name": draining.host.name,
        "status": draining.host.status(),
        "movable": movable,
        "staying": draining.servers.len() - movable,
        "items": draining.servers,
        "position": draining.position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), draining.position))
}
