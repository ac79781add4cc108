//! Orders of a server of a vCenter: start and stop. Each looks first, so asking twice is asking once.

use std::time::Duration;

use commands::ports::{Call, DriverFault, Report, Task};
use domain::compute::server::{CloudOrder, Power};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{inventory::Vm, machine, mark::Mark, session::Session};

/// Between two looks whether it has become so.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long a system may take to stop.
pub(super) const SHUT_DOWN_PATIENCE: Duration = Duration::from_mins(3);
/// How often it is asked again: one that still starts does not hear it.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The calls of an order.
pub(super) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let one = |call: &str, effect: &str| {
        vec![Call { call: call.to_owned(), effect: format!("{effect} {id}") }]
    };
    match CloudOrder::read(&task.order) {
        Ok(CloudOrder::Start) => one("PowerOnVM_Task", "starts"),
        Ok(CloudOrder::Stop) => one("ShutdownGuest", "stops"),
        _ => Vec::new(),
    }
}

pub(super) async fn carry_out(session: &Session<'_>, task: &Task) -> Result<Report, DriverFault> {
    let id = task.origin.external_id.as_str();
    match CloudOrder::read(&task.order).map_err(DriverFault::Unexpected)? {
        CloudOrder::Start => {
            let vm = session.known(id).await?;
            if vm.mark.as_deref().and_then(Mark::read).is_some_and(|mark| mark.is_complete) {
                let why = "it was stopped by a move, which has brought it to a host of ours: go back there";
                return Err(DriverFault::Rejected(why.to_owned()));
            }
            start(session, id).await?;
        }
        CloudOrder::Stop => {
            let vm = session.known(id).await?;
            if !vm.has_tools || !shut_down(session, id).await? {
                cut_off(session, id).await?;
            }
        }
        CloudOrder::Reboot | CloudOrder::SetTags { .. } => {
            let why = "a machine of a vCenter is started and stopped, and nothing else".to_owned();
            return Err(DriverFault::Rejected(why));
        }
    }
    let seen = machine::seen(&session.known(id).await?);
    Ok(Report { verb: "confirm", body: json!({"number": task.key.number, "seen": seen}) })
}

fn this(id: &str) -> (&str, &str) {
    ("VirtualMachine", id)
}

/// It runs.
pub(super) async fn start(session: &Session<'_>, id: &str) -> Result<(), DriverFault> {
    has_become(session, id, Power::Running, "PowerOnVM_Task").await
}

/// It is off, as by a power cut.
pub(super) async fn cut_off(session: &Session<'_>, id: &str) -> Result<(), DriverFault> {
    has_become(session, id, Power::Stopped, "PowerOffVM_Task").await
}

async fn has_become(
    session: &Session<'_>,
    id: &str,
    wanted: Power,
    method: &str,
) -> Result<(), DriverFault> {
    if session.known(id).await?.power() == wanted {
        return Ok(());
    }
    match session.task(method, this(id), "").await {
        Ok(_) => Ok(()),
        // Somebody else was faster.
        Err(DriverFault::Rejected(_)) if session.known(id).await?.power() == wanted => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// Whether its system, which is asked to stop, has stopped.
pub(super) async fn shut_down(session: &Session<'_>, id: &str) -> Result<bool, DriverFault> {
    let ends = Instant::now() + SHUT_DOWN_PATIENCE;
    let mut ask_at = Instant::now();
    loop {
        let vm: Vm = session.known(id).await?;
        if vm.power() == Power::Stopped {
            return Ok(true);
        }
        let now = Instant::now();
        if now >= ends {
            return Ok(false);
        }
        if now >= ask_at {
            match session.call("ShutdownGuest", this(id), "").await {
                // It has stopped just now, or its tools are on their way.
                Ok(_) | Err(DriverFault::Rejected(_)) => {}
                Err(fault) => return Err(fault),
            }
            ask_at = now + ASK_AGAIN;
            continue;
        }
        sleep(LOOK_AGAIN).await;
    }
}
