//! Numbers by which costs are judged.

use std::sync::Arc;

use ::commands::kpis::{Asked, kpis};
use axum::http::StatusCode;
use serde_json::json;

use crate::{
    asked::{self, blocking},
    call::{Answer, Call, answer, at_position},
    problem::Problem,
    routes::{DRIVER, FILTER, QUANTITY, RULE_SET, TAG_KEYS},
};

/// Most mandatory keys.
const TAG_KEYS_MAX: usize = 10;

/// Every number, with its formula and the questions behind it.
pub(crate) async fn list(call: Call) -> Answer {
    let query = asked::query(&call)?;
    let filters = query.of_lines().map(|query| query.filters).ok_or_else(|| {
        Problem::parameter(FILTER.name, "numbers are of lines: of their own dimensions alone")
    })?;
    let counting = asked::counting(&call).await?;
    let ledger = Arc::clone(&call.service.ledger);
    let keys = call.params.text(&TAG_KEYS).unwrap_or_default().split(',').map(str::trim);
    let tag_keys: Vec<String> = keys.filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if tag_keys.len() > TAG_KEYS_MAX {
        return Err(Problem::parameter(TAG_KEYS.name, format!("has at most {TAG_KEYS_MAX} keys")));
    }
    let driver = match (call.params.text(&DRIVER), call.params.text(&QUANTITY)) {
        (None, None) => None,
        (name, Some(quantity)) => {
            let count = quantity.parse();
            let count =
                count.map_err(|what| Problem::parameter(QUANTITY.name, format!("{what}")))?;
            Some((name.unwrap_or("units").to_owned(), count))
        }
        (Some(_), None) => {
            return Err(Problem::parameter(
                QUANTITY.name,
                "says how many of the driver there were",
            ));
        }
    };
    let rules = match call.params.uuid(&RULE_SET) {
        None => None,
        Some(id) => {
            let found = asked::whose(&call, &counting, &[]).await?;
            let revision = found.rule_set.as_ref().map_or(0, |(_, set)| set.revision);
            Some((id, revision, found.whose))
        }
    };
    let asked = Asked { filters, tag_keys, driver, rules };
    let store = Arc::clone(&ledger.ports.bills);
    let position = counting.position;
    let body = blocking(move || {
        let items = kpis(store.as_ref(), &counting, &asked)?;
        Ok(json!({"items": items, "inputs": counting.digest(), "position": position}))
    })
    .await?;
    Ok(at_position(answer(StatusCode::OK, &body), position))
}
