//! Hosts of our own: what becomes of the servers of one that is to have none, and what one has that is no
//! server of ours.

use ::commands::drain::DrainFault;
use axum::http::StatusCode;
use domain::kernel::Decider;
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
