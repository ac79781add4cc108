//! Orders of a server: start, stop, restart, tags. Each looks first and calls only for what is
//! missing; a restart leaves the order's mark with the same call, so it happens once.

use commands::ports::{Call, DriverFault, Report, Task};
use domain::compute::server::{CloudOrder, Power};
use serde_json::json;

use crate::{
    api::{Api, SERVER},
    fault::Op,
};

/// Carries out one order.
pub(crate) async fn carry_out(api: &Api<'_>, task: &Task) -> Result<Report, DriverFault> {
    let (id, key) = (task.origin.external_id.as_str(), task.key.to_string());
    let (now, mark) = api.find_server(id).await?;
    match CloudOrder::read(&task.order).map_err(DriverFault::Unexpected)? {
        CloudOrder::Start if now.power == Power::Stopping => {
            return Err(DriverFault::Transient(format!("{id} is still stopping")));
        }
        CloudOrder::Start if matches!(now.power, Power::Running | Power::Starting) => {}
        CloudOrder::Start => drop(api.switch(Op::StartServer, id, &key).await?),
        CloudOrder::Stop if matches!(now.power, Power::Stopped | Power::Stopping) => {}
        CloudOrder::Stop => drop(api.switch(Op::StopServer, id, &key).await?),
        CloudOrder::Reboot if mark.as_ref() == Some(&key) => {}
        CloudOrder::Reboot => drop(api.switch(Op::RebootServer, id, &key).await?),
        CloudOrder::SetTags { tags } => {
            for (name, value) in &tags {
                if now.tags.get(name) != value.as_ref() {
                    api.set_tag(SERVER, id, name, value.as_deref()).await?;
                }
            }
        }
    }
    let (seen, _) = api.find_server(id).await?;
    Ok(Report { verb: "confirm", body: json!({"number": task.key.number, "seen": seen}) })
}

/// The calls of an order.
pub(crate) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let call = |op: Op, effect: String| Call { call: format!("sim:{}", op.name()), effect };
    match CloudOrder::read(&task.order) {
        Err(_) => Vec::new(),
        Ok(CloudOrder::Start) => vec![call(Op::StartServer, format!("starts {id}"))],
        Ok(CloudOrder::Stop) => vec![call(Op::StopServer, format!("stops {id}"))],
        Ok(CloudOrder::Reboot) => vec![call(Op::RebootServer, format!("restarts {id}"))],
        Ok(CloudOrder::SetTags { tags }) => tags
            .iter()
            .map(|(name, value)| match value {
                Some(value) => call(Op::SetTag, format!("sets {name}={value} of {id}")),
                None => call(Op::RemoveTag, format!("removes {name} of {id}")),
            })
            .collect(),
    }
}
