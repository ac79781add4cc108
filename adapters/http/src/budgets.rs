//! Where budgets stand, and evaluations on demand and after every import.

use std::{sync::Arc, time::Duration};

use ::commands::{
    budgets::{Budgeting, Evaluation, Standings, question, standings},
    ledger::Ledger,
    watch::filter_text,
};
use axum::http::StatusCode;
use domain::{
    finops::{
        amount::Amount,
        budget::{Alert, Allowance, Standing},
        shown::percent,
    },
    kernel::Role,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    asked::blocking,
    call::{Answer, Call, answer, at_position},
    problem::Problem,
};

/// How long whoever waits for an evaluation waits for the views.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);
/// Below the first percent of it a budget is green, up to the second orange, above it red.
const COLOURS: (i128, i128) = (60, 80);

type Stand = (Budgeting, Standings, std::collections::BTreeMap<Uuid, String>);

async fn stand(ledger: &Arc<Ledger>, at: Option<u64>) -> Result<Stand, Problem> {
    let budgeting = ledger.budgeting(at).await?;
    let store = Arc::clone(&ledger.ports.bills);
    blocking(move || {
        let (all, refused) = standings(store.as_ref(), &budgeting)?;
        Ok((budgeting, all, refused))
    })
    .await
}

async fn evaluated(ledger: &Arc<Ledger>) -> Result<Evaluation, Problem> {
    let (budgeting, all, refused) = stand(ledger, None).await?;
    let evaluation = ledger.tell_budgets(&budgeting, all).await?;
    Ok(Evaluation { refused, ..evaluation })
}

fn shown(evaluation: &Evaluation) -> Value {
    let alerts = |alerts: &[(Uuid, Alert)]| {
        let one = |(budget, alert): &(Uuid, Alert)| json!({"budget": budget, "alert": alert});
        alerts.iter().map(one).collect::<Vec<_>>()
    };
    json!({
        "budgets": evaluation.budgets,
        "alerted": alerts(&evaluation.alerted),
        "withdrawn": alerts(&evaluation.withdrawn),
        "refused": evaluation.refused,
        "position": evaluation.position,
    })
}

/// Holds what was spent against every budget that is enabled.
pub(crate) async fn evaluate(call: Call) -> Answer {
    call.principal.authorise(Role::Operator, None)?;
    let ledger = &call.service.ledger;
    let evaluation = evaluated(ledger).await?;
    let position = evaluation.position;
    let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
    Ok(at_position(answer(StatusCode::OK, &shown(&evaluation)), position))
}

/// What an import's answer says of budgets.
pub(crate) async fn after_import(ledger: &Arc<Ledger>) -> Value {
    match evaluated(ledger).await {
        Ok(evaluation) => {
            let position = evaluation.position;
            let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
            shown(&evaluation)
        }
        Err(problem) => {
            tracing::warn!(detail = problem.detail, "budgets were not evaluated");
            Value::Null
        }
    }
}

fn colour(actual: Amount, budget: Amount) -> &'static str {
    let (spent, part) = (actual.0.saturating_mul(100), |percent| budget.0.saturating_mul(percent));
    match spent {
        spent if spent > part(COLOURS.1) => "red",
        spent if spent >= part(COLOURS.0) => "orange",
        _ => "green",
    }
}

fn of_period(allowance: &Allowance, standing: &Standing, alerts: &[Alert]) -> Value {
    json!({
        "period": standing.period,
        "actual": standing.actual,
        "forecast": standing.forecast,
        "share": percent(standing.actual, allowance.amount),
        "forecast_share": standing.forecast.and_then(|forecast| percent(forecast, allowance.amount)),
        "left": Amount(allowance.amount.0.saturating_sub(standing.actual.0)),
        "colour": colour(standing.actual, allowance.amount),
        "alerts": alerts,
    })
}

/// Where budgets stand: each with its newest period, and the ones before it.
pub(crate) async fn status(call: Call) -> Answer {
    let at = call.at().await?;
    let (budgeting, all, refused) = stand(&call.service.ledger, at).await?;
    let mut items = Vec::new();
    for (id, budget) in &budgeting.budgets {
        let Some(allowance) = &budget.allowance else { continue };
        let none = Vec::new();
        let alerts = |period: &str| budget.alerts.get(period).unwrap_or(&none);
        let standings = all.get(id).map_or(&[][..], Vec::as_slice);
        let of = |one: &Standing| of_period(allowance, one, alerts(&one.period));
        let (now, before) = match standings.split_last() {
            Some((now, before)) => (of(now), before.iter().rev().map(of).collect()),
            None => (Value::Null, Vec::new()),
        };
        let filter = question(allowance).map(|asked| filter_text(&asked.filters)).ok();
        items.push(json!({
            "id": id,
            "name": budget.name,
            "amount": allowance.amount,
            "currency": allowance.currency,
            "basis": allowance.basis,
            "now": now,
            "before": before,
            "refused": refused.get(id),
            "explain": {"basis": allowance.basis, "filter": filter},
        }));
    }
    let position = budgeting.counting.position;
    let inputs = budgeting.counting.digest();
    let body = json!({"items": items, "inputs": inputs, "position": position});
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_percent_is_orange_and_what_is_above_eighty_is_red() {
        for (actual, wanted) in [
            (0, "green"),
            (59, "green"),
            (60, "orange"),
            (80, "orange"),
            (81, "red"),
            (-5, "green"),
        ] {
            assert_eq!(colour(Amount(actual), Amount(100)), wanted, "{actual}");
        }
    }
}
