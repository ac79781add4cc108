//! Runs that make bill lines: of what was paid in advance, and by our own rates.

use std::{
    ops::RangeInclusive,
    sync::{Arc, PoisonError},
    time::Duration,
};

use ::commands::{
    containers,
    derive::{Derived, Renewed, Run, RunFault},
    rate::UsageFile,
};
use axum::http::StatusCode;
use chrono::TimeDelta;
use domain::{
    finops::{amount::BillingMonth, cluster::Cluster},
    kernel::{Decider, Refusal, Role, codes, sha256},
    kinds,
    log::{Position, hex},
};
use serde_json::{Value, json};

use crate::{
    asked::{blocking, month},
    call::{Answer, Call, answer, at_position},
    problem::{BODY_TOO_LARGE, INTERNAL, Problem, REQUEST_TIMEOUT, USAGE_UNREADABLE},
    routes::{CLUSTER, FIRST_MONTH, REASON, SOURCE, STEP_S, TO_MONTH, VALIDATE_ONLY},
};

/// A file of usage must have come by then.
const FILE_PATIENCE: Duration = Duration::from_mins(5);
/// Most months of one run.
const MONTHS_MAX: usize = 120;
/// How long a run's answer waits for the views.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

fn months(call: &Call) -> Result<RangeInclusive<BillingMonth>, Problem> {
    let Some(first) = month(call, &FIRST_MONTH)? else {
        return Err(Problem::parameter(FIRST_MONTH.name, "names the first month"));
    };
    let last = month(call, &TO_MONTH)?.unwrap_or(first);
    let next = |month: &BillingMonth| Some(month.next());
    let all = std::iter::successors(Some(first), next).take(MONTHS_MAX + 1);
    let count = all.take_while(|month| *month <= last).count();
    if !(1..=MONTHS_MAX).contains(&count) {
        let what = format!("comes at most {MONTHS_MAX} months after {first}, and not before it");
        return Err(Problem::parameter(TO_MONTH.name, what));
    }
    Ok(first..=last)
}

/// What is asked, by whoever may change bills.
fn run(call: &Call) -> Result<Run, Problem> {
    call.principal.authorise(Role::Admin, None)?;
    Ok(Run {
        months: months(call)?,
        reason: call.params.text(&REASON).unwrap_or_default().to_owned(),
        by: call.principal.clone(),
        validate_only: call.params.flag(&VALIDATE_ONLY),
    })
}

/// Books what a run made, and tells of it.
async fn renewed(call: &Call, derived: &Derived, run: &Run) -> Result<(Value, Position), Problem> {
    let ledger = &call.service.ledger;
    let bills = ledger.renew(derived, run).await?;
    let last = bills.iter().map(|bill| bill.position).max().unwrap_or(derived.position);
    if !run.validate_only {
        // Whoever asks for costs at once finds what was booked; when views are late it is booked
        // all the same.
        let _ = ledger.ports.views.reach_position(last, VIEWS_PATIENCE).await;
    }
    let shown: Vec<Value> = bills.iter().map(|bill| show(bill, run)).collect();
    let body = json!({
        "from_month": run.months.start(),
        "to_month": run.months.end(),
        "validate_only": run.validate_only,
        "inputs": derived.read.source_digest,
        "worked_out_at": derived.position,
        "bills": shown,
        "position": last,
    });
    Ok((body, last))
}

fn show(bill: &Renewed, run: &Run) -> Value {
    json!({
        "id": bill.id,
        "billing_account": bill.part.billing_account,
        "month": bill.part.month,
        "segment": bill.part.digest,
        "lines": bill.part.lines,
        "sums": bill.part.sums,
        "before": bill.before,
        "changed": bill.changed,
        "booked": bill.changed && !run.validate_only,
        "status": bill.status,
    })
}

/// Makes the lines of what was paid in advance.
pub(crate) async fn amortise(call: Call) -> Answer {
    let run = run(&call)?;
    let ledger = Arc::clone(&call.service.ledger);
    let amortising = ledger.amortising().await?;
    let (store, asked) = (Arc::clone(&ledger.ports.bills), run.clone());
    let (derived, findings) =
        blocking(move || Ok(amortising.work(store.as_ref(), &asked)?)).await?;
    let (mut body, position) = renewed(&call, &derived, &run).await?;
    let findings: Vec<Value> = findings
        .iter()
        .map(|one| {
            json!({
                "commitment": one.commitment, "name": one.name, "code": one.code,
                "detail": one.detail,
            })
        })
        .collect();
    body["findings"] = json!(findings);
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// Makes the lines of what was used, by our own rates.
pub(crate) async fn rate(call: Call) -> Answer {
    let run = run(&call)?;
    let ledger = Arc::clone(&call.service.ledger);
    let rating = ledger.rating(&run).await?;
    let (store, asked) = (Arc::clone(&ledger.ports.bills), run.clone());
    let (derived, unrated) = blocking(move || Ok(rating.work(store.as_ref(), &asked)?)).await?;
    let (mut body, position) = renewed(&call, &derived, &run).await?;
    body["unrated"] = json!(unrated);
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// Most bytes of a file of usage.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Takes in what a cluster used, as Prometheus has it, and prices it.
pub(crate) async fn import_usage(mut call: Call) -> Answer {
    call.principal.authorise(Role::Admin, None)?;
    let Some(id) = call.params.uuid(&CLUSTER) else {
        return Err(Problem::parameter(CLUSTER.name, "names the cluster that was used"));
    };
    let name = call.params.text(&SOURCE).unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(Problem::parameter(SOURCE.name, "names the file: sent again, it counts once"));
    }
    let step = call.params.number(&STEP_S).map(|seconds| TimeDelta::seconds(seconds as i64));
    let ledger = Arc::clone(&call.service.ledger);
    let kind = kinds::by_name(Cluster::KIND).ok_or_else(|| Problem::new(&INTERNAL, "no kind"))?;
    let loaded = ledger.load(kind, &id.to_string()).await?;
    let cluster: Cluster = serde_json::from_slice(&loaded.state.json())
        .map_err(|error| Problem::new(&INTERNAL, error.to_string()))?;
    if cluster.name.is_empty() {
        let detail = format!("there is no cluster {id}");
        return Err(Refusal::new(&codes::NOT_FOUND, detail).into());
    }
    let body = std::mem::take(call.body.get_mut().unwrap_or_else(PoisonError::into_inner));
    let read = axum::body::to_bytes(body, FILE_BYTES_MAX);
    let bytes = tokio::time::timeout(FILE_PATIENCE, read)
        .await
        .map_err(|_| Problem::new(&REQUEST_TIMEOUT, "the file did not come in time"))?
        .map_err(|error| Problem::new(&BODY_TOO_LARGE, error.to_string()))?;
    let file = blocking(move || {
        let no = |why: String| Problem::new(&USAGE_UNREADABLE, why);
        let digest = hex(&sha256(&bytes));
        let text = std::str::from_utf8(&bytes).map_err(|_| no("it is not UTF-8".to_owned()))?;
        let series = containers::read(text).map_err(no)?;
        let usages = containers::usages(&series, id, &cluster, step).map_err(no)?;
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

impl From<RunFault> for Problem {
    fn from(fault: RunFault) -> Self {
        match fault {
            RunFault::Bills(fault) => fault.into(),
            RunFault::Views(fault) => fault.into(),
            RunFault::Submit(fault) => fault.into(),
        }
    }
}
