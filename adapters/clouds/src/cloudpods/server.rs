//! Orders of a server of a cluster: start and stop. Each looks first, so asking twice is asking once.

use std::time::Duration;

use commands::ports::{Call, DriverFault, Report, Task};
use domain::compute::server::{CloudOrder, Power};
use serde_json::json;

use super::{machine, session::Session, wire::Server};

/// Between two looks whether it has become so.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long it may take until it has.
const PATIENCE: Duration = Duration::from_mins(4);

/// The calls of an order.
pub(super) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let one = |call: &str, effect: &str| {
        vec![Call { call: call.to_owned(), effect: format!("{effect} {id}") }]
    };
    match CloudOrder::read(&task.order) {
        Ok(CloudOrder::Start) => one("servers/start", "starts"),
        Ok(CloudOrder::Stop) => one("servers/stop", "stops"),
        _ => Vec::new(),
    }
}

pub(super) async fn carry_out(session: &Session<'_>, task: &Task) -> Result<Report, DriverFault> {
    let id = task.origin.external_id.as_str();
    let server = match CloudOrder::read(&task.order).map_err(DriverFault::Unexpected)? {
        CloudOrder::Start => reach(session, id, Power::Running, "start", &json!({})).await?,
        CloudOrder::Stop => reach(session, id, Power::Stopped, "stop", &json!({})).await?,
        CloudOrder::Reboot | CloudOrder::SetTags { .. } => {
            let why = "a machine of a cluster is started and stopped, and nothing else".to_owned();
            return Err(DriverFault::Rejected(why));
        }
    };
    let seen = machine::seen(&server);
    Ok(Report { verb: "confirm", body: json!({"number": task.key.number, "seen": seen}) })
}

/// Has a machine be on or off, and waits until it is.
pub(super) async fn reach(
    session: &Session<'_>,
    id: &str,
    wanted: Power,
    action: &str,
    input: &serde_json::Value,
) -> Result<Server, DriverFault> {
    let ends = tokio::time::Instant::now() + PATIENCE;
    let mut asked = false;
    loop {
        let server = session.known(id).await?;
        let power = machine::power(&server);
        if power == wanted {
            return Ok(server);
        }
        let is_on_its_way = matches!(power, Power::Starting | Power::Stopping);
        if !asked && !is_on_its_way {
            session.act(id, action, input).await?;
            asked = true;
        }
        if tokio::time::Instant::now() >= ends {
            let status = &server.status;
            return Err(DriverFault::Transient(format!("{action}: it is still {status}")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
