//! Files of what was used, as Prometheus has it: by the containers of a cluster, or by servers.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use ::commands::{containers, derive::Run, rate::UsageFile, utilisation};
use axum::http::StatusCode;
use chrono::TimeDelta;
use domain::{
    finops::cluster::Cluster,
    kernel::{Decider, Refusal, Role, codes, sha256},
    kinds,
    log::hex,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    asked::blocking,
    call::{Answer, Call, answer, at_position},
    problem::{BODY_TOO_LARGE, INTERNAL, Problem, REQUEST_TIMEOUT, USAGE_UNREADABLE},
    routes::{CLUSTER, LABEL, REASON, SOURCE, STEP_S, VALIDATE_ONLY},
    runs::{VIEWS_PATIENCE, renewed},
};

/// A file of usage must have come by then.
const FILE_PATIENCE: Duration = Duration::from_mins(5);
/// Most bytes of a file of usage.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Takes in what was used, as Prometheus has it.
pub(crate) async fn import(call: Call) -> Answer {
    call.principal.authorise(Role::Admin, None)?;
    match call.params.uuid(&CLUSTER) {
        Some(id) => of_containers(call, id).await,
        None => of_servers(call).await,
    }
}

/// The file that is sent.
async fn file(call: &mut Call) -> Result<axum::body::Bytes, Problem> {
    let body = std::mem::take(call.body.get_mut().unwrap_or_else(PoisonError::into_inner));
    let read = axum::body::to_bytes(body, FILE_BYTES_MAX);
    tokio::time::timeout(FILE_PATIENCE, read)
        .await
        .map_err(|_| Problem::new(&REQUEST_TIMEOUT, "the file did not come in time"))?
        .map_err(|error| Problem::new(&BODY_TOO_LARGE, error.to_string()))
}

fn unreadable(why: String) -> Problem {
    Problem::new(&USAGE_UNREADABLE, why)
}

/// The series of a file.
fn series(bytes: &[u8]) -> Result<Vec<containers::Series>, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
    containers::read(text).map_err(unreadable)
}

fn step(call: &Call) -> Option<TimeDelta> {
    call.params.number(&STEP_S).map(|seconds| TimeDelta::seconds(seconds as i64))
}

/// Takes in how much of servers was used, by days.
async fn of_servers(mut call: Call) -> Answer {
    let bytes = file(&mut call).await?;
    let ledger = Arc::clone(&call.service.ledger);
    let names = ledger.server_names().await?;
    let label = call.params.text(&LABEL).map(str::to_owned);
    let (step, today) = (step(&call), ledger.now().date_naive());
    let read = blocking(move || {
        let series = series(&bytes)?;
        utilisation::read(&series, &names, label.as_deref(), step, today).map_err(unreadable)
    })
    .await?;
    let validate_only = call.params.flag(&VALIDATE_ONLY);
    let servers = read.days.len();
    let told = ledger.measure(read.days, &call.principal, validate_only).await?;
    let position = match told.position {
        0 => ledger.ports.log.head().await?.position,
        position => position,
    };
    if !validate_only {
        // Whoever asks at once finds what was told; when views are late it is told all the same.
        let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
    }
    let body = json!({
        "validate_only": validate_only,
        "servers": servers,
        "days": told,
        "left_out": read.left_out,
        "position": position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// Takes in what a cluster used, as Prometheus has it, and prices it.
async fn of_containers(mut call: Call, id: Uuid) -> Answer {
    let name = call.params.text(&SOURCE).unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(Problem::parameter(SOURCE.name, "names the file: sent again, it counts once"));
    }
    let step = step(&call);
    let ledger = Arc::clone(&call.service.ledger);
    let kind = kinds::by_name(Cluster::KIND).ok_or_else(|| Problem::new(&INTERNAL, "no kind"))?;
    let loaded = ledger.load(kind, &id.to_string()).await?;
    let cluster: Cluster = serde_json::from_slice(&loaded.state.json())
        .map_err(|error| Problem::new(&INTERNAL, error.to_string()))?;
    if cluster.name.is_empty() {
        let detail = format!("there is no cluster {id}");
        return Err(Refusal::new(&codes::NOT_FOUND, detail).into());
    }
    let bytes = file(&mut call).await?;
    let file = blocking(move || {
        let digest = hex(&sha256(&bytes));
        let series = series(&bytes)?;
        let usages = containers::usages(&series, id, &cluster, step).map_err(unreadable)?;
        Ok(UsageFile { cluster: id, name, digest, usages })
    })
    .await?;
    let Some(months) = file.months() else {
        return Err(Problem::new(&USAGE_UNREADABLE, "nothing in it says that anything was used"));
    };
    let run = Run {
        months,
        reason: call.params.text(&REASON).unwrap_or_default().to_owned(),
        by: call.principal.clone(),
        validate_only: call.params.flag(&VALIDATE_ONLY),
    };
    let rating = ledger.rating(&run).await?;
    let (store, asked) = (Arc::clone(&ledger.ports.bills), run.clone());
    let (derived, unrated) =
        blocking(move || Ok(rating.work_file(store.as_ref(), &asked, &file)?)).await?;
    let (mut body, position) = renewed(&call, &derived, &run).await?;
    body["unrated"] = json!(unrated);
    Ok(at_position(answer(StatusCode::OK, &body), position))
}
