//! Numbers by which costs are judged.

use std::sync::Arc;

use ::commands::{
    bills::Counting,
    kpis::{Asked, Units, kpis},
};
use axum::http::StatusCode;
use domain::finops::{attribution::Axis, driver::Driver};
use serde_json::json;
use uuid::Uuid;

use crate::{
    asked::{self, blocking},
    call::{Answer, Call, answer, at_position},
    problem::Problem,
    routes::{DRIVER, QUANTITY, TAG_KEYS},
};

/// Most mandatory keys.
const TAG_KEYS_MAX: usize = 10;

/// By what cost is divided: a quantity that the caller gives, or a driver, by id or name.
async fn units(call: &Call, counting: &Counting) -> Result<Option<Units>, Problem> {
    let name = call.params.text(&DRIVER);
    if let Some(quantity) = call.params.text(&QUANTITY) {
        let count = quantity.parse();
        let count = count.map_err(|what| Problem::parameter(QUANTITY.name, format!("{what}")))?;
        return Ok(Some(Units::given(name.unwrap_or("units"), count)));
    }
    let Some(name) = name else { return Ok(None) };
    let (drivers, _) = call.service.ledger.states::<Driver>(Some(counting.position)).await?;
    let called = |(id, driver): &(Uuid, Driver)| {
        !driver.retired && (driver.definition.name == name || id.to_string() == name)
    };
    let mut named = drivers.into_iter().filter(called);
    match (named.next(), named.next()) {
        (Some((id, driver)), None) => {
            let units = Units::of(id, &driver, counting);
            units.map(Some).map_err(|what| Problem::parameter(DRIVER.name, what))
        }
        (None, _) => {
            let what =
                format!("there is no driver {name:?}; or say how many there were by quantity");
            Err(Problem::parameter(DRIVER.name, what))
        }
        (Some(_), Some(_)) => {
            let what = format!("there are several drivers {name:?}: say which by its id");
            Err(Problem::parameter(DRIVER.name, what))
        }
    }
}

/// Every number, with its formula and the questions behind it.
pub(crate) async fn list(call: Call) -> Answer {
    let filters = asked::query(&call)?.filters;
    let counting = asked::counting(&call).await?;
    let ledger = Arc::clone(&call.service.ledger);
    let keys = call.params.text(&TAG_KEYS).unwrap_or_default().split(',').map(str::trim);
    let tag_keys: Vec<String> = keys.filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if tag_keys.len() > TAG_KEYS_MAX {
        return Err(Problem::parameter(TAG_KEYS.name, format!("has at most {TAG_KEYS_MAX} keys")));
    }
    let units = units(&call, &counting).await?;
    let of_units = units.iter().flat_map(|units| &units.filters);
    let axes: Vec<&Axis> = filters.iter().chain(of_units).map(|(axis, _)| axis).collect();
    let found = asked::whose(&call, &counting, &axes).await?;
    let inputs = found.inputs(&counting, axes.iter().all(|axis| axis.is_of_line()));
    let rules = found.rule_set.as_ref().map(|(id, set)| (*id, set.revision));
    let asked = Asked { filters, tag_keys, units, rules, whose: found.whose };
    let store = Arc::clone(&ledger.ports.bills);
    let position = counting.position;
    let body = blocking(move || {
        let items = kpis(store.as_ref(), &counting, &asked)?;
        Ok(json!({"items": items, "inputs": inputs, "position": position}))
    })
    .await?;
    Ok(at_position(answer(StatusCode::OK, &body), position))
}
