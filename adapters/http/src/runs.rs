//! Runs that make bill lines: of what was paid in advance, and by our own rates.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use ::commands::derive::{Derived, Renewed, Run, RunFault};
use axum::http::StatusCode;
use domain::{finops::amount::BillingMonth, kernel::Role, log::Position};
use serde_json::{Value, json};

use crate::{
    asked::{blocking, month},
    call::{Answer, Call, answer, at_position},
    problem::Problem,
    routes::{FIRST_MONTH, REASON, TO_MONTH, VALIDATE_ONLY},
};

/// Most months of one run.
const MONTHS_MAX: usize = 120;
/// How long a run's answer waits for the views.
pub(crate) const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

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
pub(crate) async fn renewed(
    call: &Call,
    derived: &Derived,
    run: &Run,
) -> Result<(Value, Position), Problem> {
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

impl From<RunFault> for Problem {
    fn from(fault: RunFault) -> Self {
        match fault {
            RunFault::Bills(fault) => fault.into(),
            RunFault::Views(fault) => fault.into(),
            RunFault::Submit(fault) => fault.into(),
        }
    }
}
