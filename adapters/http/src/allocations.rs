//! Whose costs are, before and after what is shared is spread.

use std::{collections::BTreeSet, sync::Arc};

use ::commands::{
    allocate::{Allocation, Share, allocate},
    attribute::{AttributeFault, Whose},
};
use axum::http::StatusCode;
use domain::{
    finops::amount::Amount,
    kernel::{Refusal, Role, codes},
};
use serde_json::{Value, json};

use crate::{
    asked::{self, blocking},
    call::{Answer, Call, answer, at_position},
    problem::Problem,
    routes::{DRAFT, RULE_SET},
};

fn difference(of: Amount, from: Amount) -> Amount {
    Amount(of.0.saturating_sub(from.0))
}

/// Each centre's share; beside a draft what counts, and the difference.
fn items(
    whose: &Whose,
    allocated: &Allocation,
    beside: Option<&Allocation>,
) -> Result<Vec<Value>, AttributeFault> {
    let shares = allocated.shares()?;
    let other = beside.map(Allocation::shares).transpose()?;
    let mut keys: BTreeSet<_> = shares.keys().collect();
    keys.extend(other.iter().flat_map(|other| other.keys()));
    let nothing = Share::default();
    let item = |key: &(String, _)| {
        let share = shares.get(key).unwrap_or(&nothing);
        let mut item = json!({
            "centre": key.0,
            "project": whose.around.centres.project(&key.0),
            "currency": key.1,
            "before": share.before,
            "shared": difference(share.after, share.before),
            "after": share.after,
        });
        if let Some(other) = &other {
            let published = other.get(key).unwrap_or(&nothing).after;
            item["published"] = json!(published);
            item["difference"] = json!(difference(share.after, published));
        }
        item
    };
    Ok(keys.into_iter().map(item).collect())
}

/// The rules' answer, with a position.
async fn allocated(call: &Call) -> Result<(Value, u64, Whose, Allocation), Problem> {
    if call.params.uuid(&RULE_SET).is_none() {
        return Err(Problem::parameter(RULE_SET.name, "names the rules to allocate by"));
    }
    let basis = asked::basis(call)?;
    let counting = asked::counting(call).await?;
    let asked = asked::whose(call, &counting, &[]).await?;
    let draft = call.params.flag(&DRAFT);
    let store = Arc::clone(&call.service.ledger.ports.bills);
    let position = counting.position;
    let shown = asked.shown();
    let (whose, allocated, body) = blocking(move || {
        let whose = asked.whose;
        let allocated = allocate(store.as_ref(), &counting, &whose, basis)?;
        let published = asked.rule_set.and_then(|(_, set)| set.published).unwrap_or_default();
        let beside = if draft {
            let published = Whose { rules: published, ..whose.clone() };
            Some(allocate(store.as_ref(), &counting, &published, basis)?)
        } else {
            None
        };
        let items = items(&whose, &allocated, beside.as_ref())?;
        let placed: Vec<Value> = allocated
            .placed
            .iter()
            .map(|one| {
                json!({
                    "by": one.by.name(), "rule": one.rule, "lines": one.lines, "sums": one.sums,
                })
            })
            .collect();
        let movements: Vec<Value> = allocated
            .movements
            .iter()
            .map(|one| {
                json!({
                    "rule": one.rule, "source": one.source, "target": one.target,
                    "currency": one.currency, "amount": one.amount,
                })
            })
            .collect();
        let body = json!({
            "rule_set": shown,
            "draft": draft,
            "basis": basis.name(),
            "items": items,
            "placed": placed,
            "movements": movements,
            "digest": allocated.digest,
            "position": position,
        });
        Ok((whose, allocated, body))
    })
    .await?;
    Ok((body, position, whose, allocated))
}

/// Whose costs are: by the rules that count, or by the draft beside them.
pub(crate) async fn allocations(call: Call) -> Answer {
    let (body, position, ..) = allocated(&call).await?;
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// The same, and projects for the centres that have none and that a rule creates projects for.
pub(crate) async fn create_projects(call: Call) -> Answer {
    call.principal.authorise(Role::Admin, None)?;
    if call.params.flag(&DRAFT) {
        let detail = "a draft creates no project; publish it first";
        return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
    }
    let (mut body, position, whose, allocated) = allocated(&call).await?;
    let created = call.service.ledger.create_projects(&call.principal, &whose, &allocated).await?;
    body["created"] = json!(created);
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

impl From<AttributeFault> for Problem {
    fn from(fault: AttributeFault) -> Self {
        match fault {
            AttributeFault::Refused(refusal) => refusal.into(),
            AttributeFault::Costs(fault) => fault.into(),
        }
    }
}
