//! What comes next, with how far it can be trusted.

use std::{collections::BTreeMap, sync::Arc};

use ::commands::forecast::{
    Asked, Came, Drivers, ForecastFault, Forecasts, Inputs, Point, Total, forecast, missed,
};
use axum::http::StatusCode;
use domain::finops::{
    amount::{Amount, Currency},
    attribution::Axis,
    cost::{Basis, Dimension},
    forecast::{Forecast, Step},
};
use serde_json::{Map, Value, json};

use crate::{
    asked::{self, blocking, month, query},
    call::{Answer, Call, answer, at_position},
    params::uuid,
    problem::{INTERNAL, Problem},
    queries::page_size,
    routes::{
        ALLOCATED, BASIS, DRIVERS, FROM_MONTH, GROUP_BY, HORIZON, LOOK_BACK, RUNNING, SHIFTS, STEP,
        TO_MONTH,
    },
};

/// What is forecast by when nothing is said, beside the project.
const GROUPS: [&str; 3] = ["sub_account", "resource_type", "billing_mode"];
/// Steps to forecast when nothing is said.
const HORIZON_DAYS: usize = 30;
const HORIZON_MONTHS: usize = 3;
/// Most months to forecast; of days it is the parameter's own limit.
const HORIZON_MONTHS_MAX: usize = 36;
/// Threads of one answer: others are answered meanwhile.
const THREADS_MAX: usize = 4;

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|one| !one.is_empty())
}

fn asked(call: &Call) -> Result<Asked, Problem> {
    let mut costs = query(call)?;
    let allocated = call.params.flag(&ALLOCATED);
    if call.params.text(&BASIS).is_none() {
        costs.basis = Basis::Effective;
    }
    if call.params.text(&GROUP_BY).is_none() {
        costs.groups.push(Axis::Project);
        // What is spread has no resource any more.
        if !allocated {
            costs.groups.extend(GROUPS.map(|name| Axis::Line(Dimension::Plain(name))));
        }
    }
    let step = match call.params.text(&STEP) {
        None => Step::default(),
        Some(name) => {
            Step::by_name(name).ok_or_else(|| Problem::parameter(STEP.name, "is month or day"))?
        }
    };
    let horizon = call.params.number(&HORIZON).map(|steps| steps as usize);
    let horizon = match step {
        Step::Day => horizon.unwrap_or(HORIZON_DAYS),
        Step::Month => horizon.unwrap_or(HORIZON_MONTHS),
    };
    if step == Step::Month && horizon > HORIZON_MONTHS_MAX {
        let what = format!("is at most {HORIZON_MONTHS_MAX} months");
        return Err(Problem::parameter(HORIZON.name, what));
    }
    let (from, to) = (month(call, &FROM_MONTH)?, month(call, &TO_MONTH)?);
    if let (Some(from), Some(to)) = (from, to)
        && to < from
    {
        return Err(Problem::parameter(TO_MONTH.name, format!("is before {from}")));
    }
    let drivers = match call.params.text(&DRIVERS) {
        None => Drivers::Fitting,
        Some("none") => Drivers::These(Vec::new()),
        Some(text) => {
            let wrong = || Problem::parameter(DRIVERS.name, "is none, or ids of drivers");
            let ids = list(text).map(|one| uuid(one).ok_or_else(wrong));
            Drivers::These(ids.collect::<Result<_, _>>()?)
        }
    };
    Ok(Asked {
        costs,
        allocated,
        step,
        horizon,
        from,
        to,
        running: call.params.flag(&RUNNING),
        shifts: list(call.params.text(&SHIFTS).unwrap_or_default()).map(str::to_owned).collect(),
        drivers,
        most: page_size(call),
        look_back: call.params.number(&LOOK_BACK).unwrap_or(0) as usize,
    })
}

/// What comes next, by group.
pub(crate) async fn forecasts(call: Call) -> Answer {
    let asked = asked(&call)?;
    let at = call.at().await?;
    let ledger = Arc::clone(&call.service.ledger);
    let mut inputs = ledger.forecast_inputs(&asked, at).await?;
    let position = inputs.counting.position;
    let mut axes: Vec<&Axis> = asked.costs.groups.iter().collect();
    axes.extend(asked.costs.filters.iter().map(|(axis, _)| axis));
    if asked.allocated {
        axes.push(&Axis::Project);
    }
    let mut by = asked::whose(&call, &inputs.counting, &axes).await?;
    inputs.whose = std::mem::take(&mut by.whose);
    let body = blocking(move || {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let store = ledger.ports.bills.as_ref();
        let found = forecast(store, &inputs, &asked, threads.min(THREADS_MAX))?;
        let mut body = document(&found, &inputs, &asked);
        body["rule_set"] = by.shown();
        Ok(body)
    })
    .await?;
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

fn document(found: &Forecasts, inputs: &Inputs, asked: &Asked) -> Value {
    let names: Vec<String> = asked.costs.groups.iter().map(ToString::to_string).collect();
    let items: Vec<Value> = found
        .series
        .iter()
        .map(|series| {
            let group: Option<Map<String, Value>> = series.group.as_ref().map(|values| {
                let values = values.iter().map(|value| match value.as_str() {
                    "" => Value::Null,
                    value => json!(value),
                });
                names.iter().cloned().zip(values).collect()
            });
            let mut item = json!({
                "group": group,
                "groups": series.groups,
                "currency": series.currency,
                "history": history(&series.history),
                "points": points(&series.points),
                "model": series.forecast.model.name(),
                "coefficients": sizes(&series.forecast.coefficients),
                "terms": sizes(&series.forecast.terms),
            });
            models(&mut item, &series.forecast);
            looked_back(&mut item, &series.look_back, asked);
            item
        })
        .collect();
    let totals: BTreeMap<&Currency, Value> =
        found.totals.iter().map(|(currency, one)| (currency, total(one, asked))).collect();
    let drivers: Vec<Value> = found
        .drivers
        .iter()
        .map(|one| {
            json!({
                "id": one.id, "name": one.name, "revision": one.revision,
                "left_out": one.left_out,
            })
        })
        .collect();
    json!({
        "basis": asked.costs.basis.name(),
        "allocated": asked.allocated,
        "group_by": names,
        "step": asked.step.name(),
        "horizon": asked.horizon,
        "from": found.history.as_ref().map(|(from, _)| from),
        "to": found.history.as_ref().map(|(_, to)| to),
        "still_running": inputs.left_out,
        "items": items,
        "totals": totals,
        "drivers": drivers,
        "bills": inputs.counting.bills.len(),
        "inputs": found.digest,
        "position": inputs.counting.position,
    })
}

fn total(total: &Total, asked: &Asked) -> Value {
    let mut out = json!({
        "series": total.series,
        "history": history(&total.history),
        "points": points(&total.points),
    });
    models(&mut out, &total.forecast);
    if total.series > 1 {
        let name = total.forecast.model.name();
        out["reason"] = json!(format!(
            "the sum of its series; the limits are those of {name} on the total itself"
        ));
    }
    looked_back(&mut out, &total.look_back, asked);
    out
}

fn history(steps: &[(String, Amount)]) -> Vec<Value> {
    steps.iter().map(|(period, amount)| json!({"period": period, "amount": amount})).collect()
}

fn points(points: &[Point]) -> Vec<Value> {
    points
        .iter()
        .map(|point| {
            json!({
                "period": point.period,
                "value": point.value,
                "low_80": point.likely.0,
                "high_80": point.likely.1,
                "low_95": point.nearly_sure.0,
                "high_95": point.nearly_sure.1,
            })
        })
        .collect()
}

/// Four decimals: an estimate's.
#[expect(clippy::float_arithmetic, reason = "scores are shares, and no money")]
fn rounded(value: f64) -> Value {
    json!((value * 1e4).round() / 1e4)
}

fn sizes(sizes: &[(String, f64)]) -> Vec<Value> {
    sizes.iter().map(|(name, size)| json!({"name": name, "size": rounded(*size)})).collect()
}

fn models(out: &mut Value, forecast: &Forecast) {
    let scores: Vec<Value> = forecast
        .scores
        .iter()
        .map(|score| {
            json!({
                "model": score.model.name(),
                "wape": rounded(score.wape),
                "mase": rounded(score.mase),
                "bias": rounded(score.bias),
                "origins": score.origins,
                "coverage_80": score.coverage.map(|held| rounded(held.0)),
                "coverage_95": score.coverage.map(|held| rounded(held.1)),
            })
        })
        .collect();
    out["reason"] = json!(forecast.reason);
    out["low_confidence"] = json!(forecast.low_confidence);
    out["scores"] = json!(scores);
}

fn looked_back(out: &mut Value, back: &[Came], asked: &Asked) {
    if asked.look_back == 0 {
        return;
    }
    let steps: Vec<Value> = back
        .iter()
        .map(|one| json!({"period": one.period, "forecast": one.forecast, "came": one.came}))
        .collect();
    out["look_back"] = json!({
        "steps": steps,
        "wape": missed(back).map(|missed| rounded(missed.wape)),
        "bias": missed(back).map(|missed| rounded(missed.bias)),
    });
}

impl From<ForecastFault> for Problem {
    fn from(fault: ForecastFault) -> Self {
        match fault {
            ForecastFault::Refused(refusal) => refusal.into(),
            ForecastFault::Costs(fault) => fault.into(),
            ForecastFault::Question(fault) => Self::new(&INTERNAL, fault.to_string()),
        }
    }
}
