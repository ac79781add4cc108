//! Reports: asked as of a position, run and kept, and fetched again.

use std::{sync::Arc, time::Duration};

use ::commands::reports::{self, ReportFault};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use domain::{
    finops::report::{Format, Question, Report},
    kernel::{Decider, Refusal, Role, codes},
    kinds,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    asked::blocking,
    call::{Answer, Call, answer, at_position},
    problem::{INTERNAL, Problem, SEGMENTS_UNAVAILABLE},
    routes::FORMAT,
};

/// How long whoever runs a report waits for the views.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

impl From<ReportFault> for Problem {
    fn from(fault: ReportFault) -> Self {
        match fault {
            ReportFault::Refused(what) => Refusal::new(&codes::INVALID_FIELD, what).into(),
            ReportFault::Costs(fault) => fault.into(),
            ReportFault::Answer(fault) => Self::new(&SEGMENTS_UNAVAILABLE, fault.to_string()),
        }
    }
}

fn media(format: Format) -> HeaderValue {
    HeaderValue::from_static(match format {
        Format::Csv => "text/csv; charset=utf-8",
        Format::Json => "application/json",
        Format::Parquet => "application/vnd.apache.parquet",
    })
}

fn file(bytes: Vec<u8>, format: Format) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media(format));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The report, if its answers are for whoever asks.
async fn report(call: &Call, at: Option<u64>) -> Result<(Uuid, Report, Question), Problem> {
    let id = call.id()?;
    let missing = || match kinds::by_name(Report::KIND) {
        Some(kind) => Call::missing(kind, id),
        None => Problem::new(&INTERNAL, "there is no kind report"),
    };
    let report = call.service.ledger.kept_report(id, at).await?.ok_or_else(missing)?;
    if !report.is_for(&call.principal.name, call.principal.role) {
        return Err(missing());
    }
    let question = report.question.clone().ok_or_else(missing)?;
    Ok((id, report, question))
}

fn known(unknown: ::commands::watch::Unknown) -> Problem {
    Refusal::new(&codes::INVALID_FIELD, unknown.0).into()
}

/// The answer as of a position: the same bytes whenever it is asked.
pub(crate) async fn output(call: Call) -> Answer {
    let at = call.at().await?;
    let (_, _, question) = report(&call, at).await?;
    let format = match call.params.text(&FORMAT) {
        None => question.format,
        Some(name) => Format::by_name(name)
            .ok_or_else(|| Problem::parameter(FORMAT.name, "is csv, json or parquet"))?,
    };
    let ledger = Arc::clone(&call.service.ledger);
    let asking = ledger.asking(&question, at).await?.map_err(known)?;
    let position = asking.position;
    let answered = blocking(move || {
        let ports = &ledger.ports;
        Ok(reports::answer(ports.bills.as_ref(), ports.answers.as_ref(), &asking, format)?)
    })
    .await?;
    Ok(at_position(file(answered.bytes, format), position))
}

/// Asks now, and keeps the answer.
pub(crate) async fn run(call: Call) -> Answer {
    call.principal.authorise(Role::Operator, None)?;
    let (id, _, question) = report(&call, None).await?;
    let ledger = Arc::clone(&call.service.ledger);
    let asking = ledger.asking(&question, None).await?.map_err(known)?;
    let (due, ports) = (ledger.now(), ledger.ports.clone());
    let run =
        blocking(move || Ok(reports::run(&ports.bills, &ports.answers, &asking, due, false)?))
            .await?;
    let outcome = ledger.record_run(id, &run).await?;
    let position = outcome.position;
    let _ = ledger.ports.views.reach_position(position, VIEWS_PATIENCE).await;
    let body = json!({"id": id, "run": run, "position": position});
    Ok(at_position(answer(StatusCode::OK, &body), position))
}

/// What a run gave.
pub(crate) async fn kept(call: Call) -> Answer {
    let (_, report, _) = report(&call, None).await?;
    let digest = call.part("digest").to_owned();
    let missing = |what: &str| {
        let digest: String = digest.chars().take(64).collect();
        Problem::from(Refusal::new(&codes::NOT_FOUND, format!("{what} {digest}")))
    };
    let run = report.runs.iter().find(|run| run.digest == digest);
    let format = run.ok_or_else(|| missing("the report has no run with the answer"))?.format;
    let (answers, wanted) = (Arc::clone(&call.service.ledger.ports.answers), digest.clone());
    let bytes = blocking(move || {
        let kept = answers.kept(&wanted);
        kept.map_err(|fault| Problem::new(&SEGMENTS_UNAVAILABLE, fault.to_string()))
    })
    .await?;
    Ok(file(bytes.ok_or_else(|| missing("the data folder lacks the answer"))?, format))
}
