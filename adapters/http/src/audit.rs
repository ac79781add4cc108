//! Audit: the log's records, its signed head, and proofs.

use ::commands::ports::{AuditFilter, EventLog};
use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_STANDARD};
use domain::{
    kernel::{Refusal, codes},
    log::{Hash, SignedHead, Span, consistency_spans, hex, inclusion_spans},
};
use serde_json::{Value, json};

use crate::{
    call::{Answer, Call, answer, at_position},
    problem::{INTERNAL, Problem},
    queries::page_size,
    routes::{
        ACTOR, COMMAND_ID, CORRELATION_ID, FROM_SIZE, ID, KIND, NEWEST_FIRST, PAGE_TOKEN, POSITION,
        PROJECT, SINCE, SIZE, START, TO_SIZE, TYPE, UNTIL,
    },
    show,
};

/// What the caller asks for, of what it reaches.
pub(crate) fn filter(call: &Call) -> AuditFilter {
    let text = |parameter| call.params.text(parameter).map(str::to_owned);
    let mut projects = call.projects();
    if let Some(one) = call.params.uuid(&PROJECT) {
        projects = Some(if call.covers(Some(one)) { vec![one] } else { Vec::new() });
    }
    AuditFilter {
        kind: text(&KIND),
        id: text(&ID),
        event_type: text(&TYPE),
        actor: text(&ACTOR),
        projects,
        command_id: call.params.uuid(&COMMAND_ID),
        correlation_id: call.params.uuid(&CORRELATION_ID),
        since: call.params.time(&SINCE),
        until: call.params.time(&UNTIL),
    }
}

pub(crate) async fn events(call: Call) -> Answer {
    let log = &call.service.ledger.ports.log;
    let limit = page_size(&call);
    let from = match call.params.text(&PAGE_TOKEN) {
        None => call.params.number(&START).unwrap_or_default(),
        Some(text) => crate::params::number(text)
            .filter(|from| i64::try_from(*from).is_ok())
            .ok_or_else(|| Problem::parameter(PAGE_TOKEN.name, "does not read"))?,
    };
    let newest_first = call.params.flag(&NEWEST_FIRST);
    let position = log.head().await?.position;
    let mut records = log.search(&filter(&call), from, newest_first, limit + 1).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|last| last.position().to_string());
    let items: Vec<Value> =
        records.iter().map(|record| show::record(record, &call.principal.reach)).collect();
    let body = json!({"items": items, "next_page_token": next, "position": position});
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

pub(crate) async fn head(call: Call) -> Answer {
    let head = call.service.ledger.ports.log.head().await?;
    let root = head.frontier.root();
    let mut body = json!({
        "size": head.position,
        "root": hex(&root),
        "recorded_at": show::time(head.recorded_at),
    });
    if let Some(signer) = &call.service.options.signer {
        body["origin"] = json!(signer.key().name());
        body["verifier_key"] = json!(signer.key().to_string());
        body["note"] = json!(SignedHead::sign(signer.as_ref(), head.position, root).to_string());
    }
    Ok(at_position(answer(StatusCode::OK, &body), head.position))
}

pub(crate) async fn proof(call: Call) -> Answer {
    let log = call.service.ledger.ports.log.as_ref();
    let head = log.head().await?.position;
    let size = |parameter: &crate::params::Parameter, given: Option<u64>| match given {
        Some(size) if size > head => {
            let what = format!("the log has {head} records, not {size}");
            Err(Problem::parameter(parameter.name, what))
        }
        given => Ok(given.unwrap_or(head)),
    };
    let params = &call.params;
    let body = match (params.number(&POSITION), params.number(&FROM_SIZE)) {
        (Some(position), None) => {
            if params.number(&TO_SIZE).is_some() {
                return Err(Problem::parameter(TO_SIZE.name, "goes with from, size with position"));
            }
            let size = size(&SIZE, params.number(&SIZE))?;
            let missing = || {
                let detail = format!("no record {position} in a log of {size}");
                Problem::from(Refusal::new(&codes::NOT_FOUND, detail))
            };
            let spans = inclusion_spans(position - 1, size).ok_or_else(missing)?;
            let records = log.read(position - 1, 1).await?;
            // The leaf is over the whole record, so it is for those who may read it.
            let record = records.first().filter(|record| call.covers(record.project()));
            let record = record.ok_or_else(missing)?;
            json!({
                "position": position,
                "size": size,
                "leaf": hex(&record.leaf()),
                "frame": frame(&call, record),
                "path": path(log, spans).await?,
            })
        }
        (None, Some(from)) => {
            if params.number(&SIZE).is_some() {
                return Err(Problem::parameter(SIZE.name, "goes with position, to with from"));
            }
            let to = size(&TO_SIZE, params.number(&TO_SIZE))?;
            let spans = consistency_spans(from, to)
                .ok_or_else(|| Problem::parameter(FROM_SIZE.name, format!("is more than {to}")))?;
            json!({"from": from, "to": to, "path": path(log, spans).await?})
        }
        _ => {
            let what = "either position (and size), or from (and to)";
            return Err(Problem::parameter(POSITION.name, what));
        }
    };
    Ok(at_position(answer(StatusCode::OK, &body), head))
}

/// The bytes the leaf is made of, for who wants to check it; not of records that hold a secret,
/// sealed though it is, or something that is not within reach.
fn frame(call: &Call, record: &domain::log::Record) -> Option<String> {
    let kept = record.to_json()["data"].clone();
    let mut shown = kept.clone();
    show::redact(&mut shown, &call.principal.reach);
    let request = record.request().is_some() && call.projects().is_some();
    (kept == shown && !request).then(|| BASE64_STANDARD.encode(record.frame()))
}

/// The roots over some spans, in hex: leaves come from records, what is above from stored nodes.
async fn path(log: &dyn EventLog, spans: Vec<Span>) -> Result<Vec<String>, Problem> {
    let mut out = Vec::with_capacity(spans.len());
    for span in spans {
        let mut hashes: Vec<Hash> = Vec::new();
        for fetch in span.fetches() {
            if fetch.level == 0 {
                let records = log.read(fetch.first, fetch.count as usize).await?;
                hashes.extend(records.iter().map(domain::log::Record::leaf));
            } else {
                hashes.extend(log.nodes(fetch.level, fetch.first, fetch.count).await?);
            }
        }
        let root = span.root(&hashes).ok_or_else(|| Problem {
            fault: Some(format!("the log lacks nodes of {span:?}")),
            ..Problem::new(&INTERNAL, INTERNAL.title)
        })?;
        out.push(hex(&root));
    }
    Ok(out)
}
