//! Orders of a server: start, stop, restart, tags. Each looks first and calls only for what is
//! missing; a restart leaves the order's mark with the same call, so it happens once.

use commands::ports::{Call, DriverFault, Report, Task};
use domain::compute::server::{Order, Power};
use serde_json::json;

use crate::{
    api::{Api, SERVER},
    fault::Op,
};

fn read(task: &Task) -> Result<Order, DriverFault> {
    serde_json::from_value(task.order.clone())
        .map_err(|error| DriverFault::Unexpected(format!("the order does not read: {error}")))
}

/// Carries out one order.
pub(crate) async fn carry_out(api: &Api<'_>, task: &Task) -> Result<Report, DriverFault> {
    let (id, key) = (task.origin.external_id.as_str(), task.key.to_string());
    let (now, mark) = api.find_server(id).await?;
    match read(task)? {
        Order::Start {} if now.power == Power::Stopping => {
            return Err(DriverFault::Transient(format!("{id} is still stopping")));
        }
        Order::Start {} if matches!(now.power, Power::Running | Power::Starting) => {}
        Order::Start {} => drop(api.switch(Op::StartServer, id, &key).await?),
        Order::Stop {} if matches!(now.power, Power::Stopped | Power::Stopping) => {}
        Order::Stop {} => drop(api.switch(Op::StopServer, id, &key).await?),
        Order::Reboot {} if mark.as_ref() == Some(&key) => {}
        Order::Reboot {} => drop(api.switch(Op::RebootServer, id, &key).await?),
        Order::SetTags { tags } => {
            for (name, value) in &tags {
                if now.tags.get(name) != value.as_ref() {
                    api.set_tag(SERVER, id, name, value.as_deref()).await?;
                }
            }
        }
        Order::Launch {}
        | Order::LeaveRescue { .. }
        | Order::Remove {}
        | Order::Rescue { .. }
        | Order::Resize { .. }
        | Order::Resume {}
        | Order::SetPassword { .. }
        | Order::Suspend {} => {
            let what = format!("{key}: an order of a server on a host");
            return Err(DriverFault::Unexpected(what));
        }
    }
    let (seen, _) = api.find_server(id).await?;
    Ok(Report { verb: "confirm", body: json!({"number": task.key.number, "seen": seen}) })
}

/// The calls of an order.
pub(crate) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let call = |op: Op, effect: String| Call { call: format!("sim:{}", op.name()), effect };
    match read(task) {
        Err(_)
        | Ok(
            Order::Launch {}
            | Order::LeaveRescue { .. }
            | Order::Remove {}
            | Order::Rescue { .. }
            | Order::Resize { .. }
            | Order::Resume {}
            | Order::SetPassword { .. }
            | Order::Suspend {},
        ) => Vec::new(),
        Ok(Order::Start {}) => vec![call(Op::StartServer, format!("starts {id}"))],
        Ok(Order::Stop {}) => vec![call(Op::StopServer, format!("stops {id}"))],
        Ok(Order::Reboot {}) => vec![call(Op::RebootServer, format!("restarts {id}"))],
        Ok(Order::SetTags { tags }) => tags
            .iter()
            .map(|(name, value)| match value {
                Some(value) => call(Op::SetTag, format!("sets {name}={value} of {id}")),
                None => call(Op::RemoveTag, format!("removes {name} of {id}")),
            })
            .collect(),
    }
}
