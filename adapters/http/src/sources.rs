//! Machines that others run, and what is in the way of moving each to a host of ours.

use ::commands::{move_in::SourceFault, ports::DriverFault};
use axum::http::StatusCode;
use serde_json::json;

use crate::{
    call::{Answer, Call, answer, at_position},
    problem::{ACCOUNT_UNREACHABLE, Problem},
};

impl From<SourceFault> for Problem {
    fn from(fault: SourceFault) -> Self {
        match fault {
            SourceFault::Refused(refusal) => refusal.into(),
            SourceFault::Load(fault) => fault.into(),
            SourceFault::Driver(fault) => fault.into(),
        }
    }
}

impl From<DriverFault> for Problem {
    fn from(fault: DriverFault) -> Self {
        Self::new(&ACCOUNT_UNREACHABLE, fault.to_string())
    }
}

/// The machines of an account, as its place says now.
pub(crate) async fn machines(call: Call) -> Answer {
    let id = call.id()?;
    let sources = call.service.ledger.sources(id).await?;
    let free = sources.machines.iter().filter(|one| one.obstacles.is_empty()).count();
    let body = json!({
        "account": id,
        "name": sources.account,
        "movable": free,
        "others": sources.machines.len() - free,
        "items": sources.machines,
        "position": sources.position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), sources.position))
}
