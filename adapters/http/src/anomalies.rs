//! Looks at costs by the rules that watch them: on demand, and after every import.

use std::{sync::Arc, time::Duration};

use ::commands::{
    anomalies::{Detection, detect_all},
    ledger::Ledger,
};
use axum::http::StatusCode;
use domain::kernel::Role;
use serde_json::{Value, json};

use crate::{
    asked::blocking,
    call::{Answer, Call, answer, at_position},
    problem::Problem,
};

/// How long whoever waits for a detection waits for the views.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

/// Looks, and tells what was found.
async fn detected(ledger: &Arc<Ledger>) -> Result<Detection, Problem> {
    let watching = ledger.watching().await?;
    let store = Arc::clone(&ledger.ports.bills);
    let (watching, findings) = blocking(move || {
        let findings = detect_all(store.as_ref(), &watching)?;
        Ok((watching, findings))
    })
    .await?;
    Ok(ledger.tell_anomalies(&watching, findings).await?)
}

fn shown(detection: &Detection) -> Value {
    json!({
        "rules": detection.rules,
        "reported": detection.reported,
        "updated": detection.updated,
        "cleared": detection.cleared,
        "unchanged": detection.unchanged,
        "refused": detection.refused,
        "inputs": detection.as_of.inputs,
        "position": detection.position,
    })
}

/// Looks by every rule that is enabled.
pub(crate) async fn detect(call: Call) -> Answer {
    call.principal.authorise(Role::Operator, None)?;
    let ledger = &call.service.ledger;
    let detection = detected(ledger).await?;
    let position = detection.position;
    // Whoever lists anomalies at once finds what was told.
    let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
    Ok(at_position(answer(StatusCode::OK, &shown(&detection)), position))
}

/// What an import's answer says of anomalies. The import is done whatever becomes of this: who
/// watches looks again by itself.
pub(crate) async fn after_import(ledger: &Arc<Ledger>) -> Value {
    match detected(ledger).await {
        Ok(detection) => {
            let position = detection.position;
            let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
            shown(&detection)
        }
        Err(problem) => {
            tracing::warn!(detail = problem.detail, "anomalies were not looked for");
            Value::Null
        }
    }
}
