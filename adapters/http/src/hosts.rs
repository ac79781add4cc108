//! Hosts of our own: what becomes of the servers of one that is to have none.

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
