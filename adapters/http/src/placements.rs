//! Where a server would go, why not elsewhere, and how many more of it there is room for.

use ::commands::placements::{Answer as Answered, Said};
use axum::http::StatusCode;
use domain::{
    compute::placement::{HostId, REJECTIONS_MAX, Reason, Rejected},
    kernel::Refusal,
    kinds,
};
use serde_json::{Value, json};

use crate::{
    asked::blocking,
    call::{Answer, Call, answer, at_position},
    problem::{INTERNAL, Problem},
    routes::{COUNT_TO, HOST},
    show,
};

/// How many are counted up to when nothing is said.
const COUNT_TO_UNSAID: u32 = 1_000;

/// What hosts say to a launch. Nothing is written.
pub(crate) async fn ask(mut call: Call) -> Answer {
    let body = call.json().await?;
    let ledger = call.service.ledger.clone();
    let question = ledger.placement_question(&call.principal, body).await?;
    let host = call.params.uuid(&HOST).map(HostId::new);
    if let Some(host) = host.filter(|host| !question.knows(*host)) {
        let kind = kinds::by_name("host");
        let kind = kind.ok_or_else(|| Problem::new(&INTERNAL, "there is no kind host"))?;
        return Err(Call::missing(kind, host.uuid()));
    }
    let most = call.params.number(&COUNT_TO).map_or(COUNT_TO_UNSAID, |most| most as u32);
    let asking = call.service.clone();
    let Ok(_asks) = asking.placements.acquire().await else {
        return Err(Problem::new(&INTERNAL, "nothing is answered any more"));
    };
    let position = question.position;
    let mut body = blocking(move || Ok(shown(question.answer(host, most)?))).await?;
    body["position"] = json!(position);
    show::redact(&mut body, &call.principal.reach);
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

fn shown(answered: Answered) -> Value {
    let (placement, refusal) = match answered.placed {
        Ok(mut placement) => {
            // What hosts say is here as well, and more of it.
            placement.rejected = Rejected { counts: placement.rejected.counts, hosts: Vec::new() };
            (Some(placement), None)
        }
        Err(Refusal { code, detail }) => (None, Some(json!({"code": code.code, "detail": detail}))),
    };
    json!({
        "placement": placement,
        "refusal": refusal,
        "count": answered.count,
        "limited": answered.limited,
        "bounds": answered.bounds,
        "rejected": answered.rejected,
        "items": answered.hosts.into_iter().take(REJECTIONS_MAX).map(said).collect::<Vec<_>>(),
    })
}

fn said(said: Said) -> Value {
    let verdict = said.verdict;
    let reason = |reason: &Reason| {
        let mut shown = json!(reason);
        shown["detail"] = json!(reason.to_string());
        shown
    };
    json!({
        "host": verdict.host,
        "name": said.name,
        "fits": verdict.holding.is_some(),
        "irregular": verdict.score.is_some_and(|score| score.irregular),
        "holding": verdict.holding,
        "score": verdict.score,
        "reasons": verdict.reasons.iter().map(reason).collect::<Vec<_>>(),
        "room": said.room,
    })
}
