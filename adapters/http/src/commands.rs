//! Commands: `POST /v1/{kinds}` and `POST /v1/{kinds}/{id}/{verb}`, for every kind alike.

use std::time::Duration;

use ::commands::submit::{Outcome, Submission};
use axum::http::{HeaderValue, StatusCode, header};
use domain::kernel::{Caller, Kind, Outstanding, Reach};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    call::{Answer, Call, answer, at_position},
    problem::{IDEMPOTENCY_KEY_INVALID, Problem, REVISION_MISMATCH},
    routes::{IDEMPOTENCY_KEY, IF_MATCH, PLAN_ID, PREFER, VALIDATE_ONLY},
    show,
};

/// Longest wait for an order, in seconds: below the idle time-out of common proxies doubled, and
/// enough for most orders of a cloud.
const WAIT_SECONDS_MAX: u64 = 120;

/// The verb by which people create one of this kind.
pub(crate) fn creating(kind: &Kind) -> Option<&'static domain::kernel::Verb> {
    (kind.verbs)().iter().find(|verb| verb.creates && matches!(verb.caller, Caller::Person(_)))
}

pub(crate) async fn create(call: Call) -> Answer {
    let verb = creating(call.kind()?).map(|verb| verb.name).unwrap_or_default();
    submit(call, None, verb.to_owned()).await
}

pub(crate) async fn command(call: Call) -> Answer {
    let (id, verb) = (call.id()?, call.part("verb").to_owned());
    submit(call, Some(id), verb).await
}

async fn submit(mut call: Call, id: Option<Uuid>, verb: String) -> Answer {
    let kind = call.kind()?;
    let wait = wait(call.params.text(&PREFER))?;
    let submission = Submission {
        if_match: if_match(call.params.text(&IF_MATCH))?,
        idempotency_key: idempotency_key(&call)?,
        plan_id: call.params.text(&PLAN_ID).map(str::to_owned),
        correlation_id: call.trace,
        ..Submission::new(call.principal.clone(), kind, id, &verb, call.json().await?)
    };
    let ledger = call.service.ledger.clone();
    if call.params.flag(&VALIDATE_ONLY) {
        if submission.plan_id.is_some() {
            return Err(Problem::parameter(PLAN_ID.name, "does not go with validate_only"));
        }
        let mut plan = ledger.plan(&submission).await?;
        let reach = &call.principal.reach;
        plan.diff = show::differences(plan.diff, reach);
        let mut plan = json!(plan);
        show::redact(&mut plan, reach);
        return Ok(answer(StatusCode::OK, &plan));
    }
    let mut outcome = ledger.submit(submission).await?;
    if kind.name == "token" {
        // What was revoked must not open anything any more once this is answered.
        call.service.tokens.catch_up(ledger.ports.log.as_ref()).await?;
    }
    let created = !outcome.events.is_empty() && outcome.revision == outcome.events.len() as u64;
    if let (Some(wait), Some(order)) = (wait, outcome.order.clone()) {
        wait_for(&mut call, kind, &mut outcome, order.number, wait).await?;
    }
    let location = format!("/v1/{}/{}", kind.plural, outcome.id);
    let status = match (&outcome.order, created) {
        (Some(_), _) => StatusCode::ACCEPTED,
        (None, true) => StatusCode::CREATED,
        (None, false) => StatusCode::OK,
    };
    let mut response =
        at_position(answer(status, &shown(&outcome, &call.principal.reach)), outcome.position);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(outcome.revision));
    if let Ok(location) = HeaderValue::from_str(&location) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(wait) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={}", wait.as_secs()))
    {
        headers.insert("preference-applied", applied);
    }
    Ok(response)
}

/// A strong entity tag: the revision in quotes.
pub(crate) fn etag(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn shown(outcome: &Outcome, reach: &Reach) -> Value {
    let mut value = json!({
        "kind": outcome.kind,
        "id": outcome.id,
        "revision": outcome.revision,
        "position": outcome.position,
        "events": outcome.events,
        "status": outcome.status,
        "order": outcome.order,
        "repeated": outcome.repeated,
    });
    show::redact(&mut value, reach);
    if let Some(secret) = &outcome.secret {
        value["secret"] = json!(secret);
    }
    value
}

/// Waits until the order is done or parked and lists show what came of it, the time is over, or the
/// server stops.
async fn wait_for(
    call: &mut Call,
    kind: &'static Kind,
    outcome: &mut Outcome,
    number: u64,
    wait: Duration,
) -> Result<(), Problem> {
    let service = call.service.clone();
    let Ok(_waiting) = service.waiting.clone().try_acquire_owned() else { return Ok(()) };
    // Others may work while this one waits.
    call.permit = None;
    let (ledger, id) = (&service.ledger, outcome.id.to_string());
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let loaded = ledger.load(kind, &id).await?;
        let head = ledger.ports.log.head().await?.position;
        let order = loaded.state.order();
        let out = |order: &Outstanding<Value>| order.number == number && order.parked.is_none();
        let done = !order.as_ref().is_some_and(out);
        outcome.revision = outcome.revision.max(loaded.revision);
        outcome.position = outcome.position.max(head);
        outcome.status = loaded.state.status();
        outcome.order = order;
        if done {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            // Views that are late have their own say, to whoever asks them.
            let _ = ledger.ports.views.reach_position(head, left).await;
            return Ok(());
        }
        tokio::select! {
            () = ledger.ports.log.appended(head) => {}
            () = tokio::time::sleep_until(deadline) => return Ok(()),
            () = service.closed() => return Ok(()),
        }
    }
}

/// `wait=<seconds>` of RFC 7240; other preferences are not ours.
pub(crate) fn wait(prefer: Option<&str>) -> Result<Option<Duration>, Problem> {
    for preference in prefer.unwrap_or_default().split([',', ';']) {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        if name.trim().eq_ignore_ascii_case("wait") {
            let value = value.trim().trim_matches('"');
            let seconds = crate::params::number(value).ok_or_else(|| {
                Problem::parameter(PREFER.name, "wait is a whole number of seconds")
            })?;
            return Ok(Some(Duration::from_secs(seconds.min(WAIT_SECONDS_MAX))));
        }
    }
    Ok(None)
}

/// One strong entity tag, or `*`, which every resource meets that a command can be sent to.
fn if_match(text: Option<&str>) -> Result<Option<u64>, Problem> {
    let Some(text) = text.map(str::trim).filter(|text| *text != "*") else { return Ok(None) };
    if text.starts_with("W/") {
        let detail = "a weak entity tag matches nothing here";
        return Err(Problem::new(&REVISION_MISMATCH, detail));
    }
    let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match revision.and_then(crate::params::number) {
        Some(revision) => Ok(Some(revision)),
        None => Err(Problem::parameter(IF_MATCH.name, "is one revision in quotes, as \"7\"")),
    }
}

/// As a structured field it stands in quotes; many clients leave them out.
fn idempotency_key(call: &Call) -> Result<Option<String>, Problem> {
    let Some(value) = call.headers.get(IDEMPOTENCY_KEY.name) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if bare.is_empty() {
        return Err(Problem::new(&IDEMPOTENCY_KEY_INVALID, IDEMPOTENCY_KEY_INVALID.title));
    }
    Ok(Some(bare.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_whole_number_and_bounded() {
        let seconds = |text| wait(Some(text)).map(|wait| wait.map(|wait| wait.as_secs())).ok();
        assert_eq!(seconds("respond-async, wait=30"), Some(Some(30)));
        assert_eq!(seconds("wait=100000"), Some(Some(120)));
        assert_eq!(seconds("return=minimal"), Some(None));
        assert_eq!(seconds("wait=soon"), None);
    }

    #[test]
    fn an_entity_tag_is_one_strong_revision() {
        assert_eq!(if_match(Some("\"7\"")).unwrap(), Some(7));
        assert_eq!(if_match(Some("*")).unwrap(), None);
        for (text, code) in [
            ("7", "invalid-parameter"),
            ("\"7\",\"8\"", "invalid-parameter"),
            ("W/\"7\"", "revision-mismatch"),
        ] {
            assert_eq!(if_match(Some(text)).unwrap_err().code.code, code, "{text}");
        }
    }
}
