//! Where money can be saved.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use domain::{
    finops::{
        amount::{Amount, Currency},
        hint::{Hint, Thresholds},
    },
    log::Position,
};
use serde_json::{Map, Value, json};

use crate::{
    asked::blocking,
    call::{Answer, Call, answer, at_position},
    params::{Parameter, time},
    problem::Problem,
    queries::page_size,
    routes::{
        AT, COMMITMENT_DAYS, IDLE_NETWORK_MIB, IDLE_PERCENT, MEASURED_DAYS, MEASURED_PERCENT,
        OVERSIZED_PERCENT, SNAPSHOT_DAYS, STOPPED_DAYS, UNATTACHED_DAYS, UNUSED_PERCENT,
    },
};

fn thresholds(call: &Call) -> Thresholds {
    let known = Thresholds::default();
    // The parameters' shapes bound them.
    let or = |parameter: &'static Parameter, otherwise: u32| {
        call.params.number(parameter).and_then(|one| u32::try_from(one).ok()).unwrap_or(otherwise)
    };
    Thresholds {
        commitment_days: or(&COMMITMENT_DAYS, known.commitment_days),
        idle_network_mib: or(&IDLE_NETWORK_MIB, known.idle_network_mib),
        idle_percent: or(&IDLE_PERCENT, known.idle_percent),
        measured_days: or(&MEASURED_DAYS, known.measured_days),
        measured_percent: or(&MEASURED_PERCENT, known.measured_percent),
        oversized_percent: or(&OVERSIZED_PERCENT, known.oversized_percent),
        snapshot_days: or(&SNAPSHOT_DAYS, known.snapshot_days),
        stopped_days: or(&STOPPED_DAYS, known.stopped_days),
        unattached_days: or(&UNATTACHED_DAYS, known.unattached_days),
        unused_percent: or(&UNUSED_PERCENT, known.unused_percent),
    }
}

/// The moment that ages are counted up to: the time that is asked for, or that of the position.
async fn moment(call: &Call, at: Option<Position>) -> Result<DateTime<Utc>, Problem> {
    let ledger = &call.service.ledger;
    let asked = call.params.text(&AT).and_then(time);
    match (asked, at) {
        (Some(time), _) => Ok(time),
        (None, Some(position)) if position > 0 => {
            let record = ledger.ports.log.read(position - 1, 1).await?;
            Ok(record.first().map_or_else(|| ledger.now(), domain::log::Record::recorded_at))
        }
        _ => Ok(ledger.now()),
    }
}

/// What all hints of a sort come to, by currency.
fn sums(hints: &[Hint]) -> Map<String, Value> {
    let mut all: BTreeMap<&str, (u64, BTreeMap<&Currency, Amount>)> = BTreeMap::new();
    for hint in hints {
        let (count, sums) = all.entry(hint.code.name()).or_default();
        *count += 1;
        for one in &hint.monthly {
            let sum = sums.entry(&one.currency).or_default();
            *sum = Amount(sum.0.saturating_add(one.amount.0));
        }
    }
    let shown = |(code, (count, sums)): (&str, (u64, BTreeMap<&Currency, Amount>))| {
        let sums: Map<String, Value> =
            sums.into_iter().map(|(currency, sum)| (currency.to_string(), json!(sum))).collect();
        (code.to_owned(), json!({"hints": count, "monthly": sums}))
    };
    all.into_iter().map(shown).collect()
}

/// Every hint about what the caller reaches, with the money and the evidence.
pub(crate) async fn list(call: Call) -> Answer {
    let thresholds = thresholds(&call);
    let at = call.at().await?;
    let now = moment(&call, at).await?;
    let ledger = Arc::clone(&call.service.ledger);
    let hinting = ledger.hinting(at, now, thresholds).await?;
    let (store, position) = (Arc::clone(&ledger.ports.bills), hinting.position);
    let mut hints = blocking(move || Ok(hinting.work(store.as_ref())?)).await?;
    // What is of no project is the estate's.
    hints.retain(|hint| call.principal.reach.covers(hint.project));
    let (sums, all) = (sums(&hints), hints.len());
    hints.truncate(page_size(&call));
    let body = json!({
        "items": hints,
        "hints": all,
        "sums": sums,
        "as_of": now,
        "thresholds": {
            "commitment_days": thresholds.commitment_days,
            "idle_network_mib": thresholds.idle_network_mib,
            "idle_percent": thresholds.idle_percent,
            "measured_days": thresholds.measured_days,
            "measured_percent": thresholds.measured_percent,
            "oversized_percent": thresholds.oversized_percent,
            "snapshot_days": thresholds.snapshot_days,
            "stopped_days": thresholds.stopped_days,
            "unattached_days": thresholds.unattached_days,
            "unused_percent": thresholds.unused_percent,
        },
        "position": position,
    });
    Ok(at_position(answer(StatusCode::OK, &body), position))
}
