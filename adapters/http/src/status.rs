//! What operators and newcomers ask: is it alive, is it ready, how is it doing, what is there.

#![expect(clippy::unused_async, reason = "every handler of a route is asynchronous")]

use std::{fmt::Write as _, time::Duration};

use ::commands::ports::Query;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use domain::kernel::{Refusal, codes};
use projections::views::VIEWS;
use serde_json::{Value, json};

use crate::{
    call::{Answer, Call, answer},
    metrics,
    problem::{Problem, code},
};

/// A part that has not answered by then is not ready.
const PATIENCE: Duration = Duration::from_secs(2);
/// Records that a view may be behind and still count as ready: below a second of folding.
const LAG_MAX: u64 = 10_000;
/// Orders are counted up to here.
const COUNT_MAX: u64 = 100_000;

pub(crate) async fn index(call: Call) -> Answer {
    Ok(answer(
        StatusCode::OK,
        &json!({
            "name": "Skyledger",
            "build": call.service.options.build,
            "paths": {
                "/openapi.json": "every path, with what it takes and answers",
                "/v1/inventory": "every resource",
                "/v1/mappings": "what is mapped one to one, with its drift",
                "/v1/orders": "what is still to be done",
                "/v1/audit/events": "every event",
                "/console": "servers' screens and serial lines, for a browser",
                "/livez": "whether the server runs",
                "/readyz": "whether it can answer",
            },
        }),
    ))
}

pub(crate) async fn livez(_: Call) -> Answer {
    Ok(answer(StatusCode::OK, &json!({"alive": true})))
}

pub(crate) async fn document(_: Call) -> Answer {
    static DOCUMENT: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| crate::openapi().to_string());
    let mut response = Response::new(Body::from(DOCUMENT.as_str()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

pub(crate) async fn problem(call: Call) -> Answer {
    let name = call.part("code");
    let code = code(name).ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        Problem::from(Refusal::new(&codes::NOT_FOUND, format!("there is no code {name:?}")))
    })?;
    let body = json!({
        "code": code.code,
        "status": code.status,
        "title": code.title,
        "advice": code.advice.trim(),
    });
    Ok(answer(StatusCode::OK, &body))
}

/// Anybody may ask, so the answer has fixed words: why, with its paths, addresses and rows, is for
/// the server's log.
pub(crate) async fn readyz(call: Call) -> Answer {
    let ports = &call.service.ledger.ports;
    let head = match tokio::time::timeout(PATIENCE, ports.log.head()).await {
        Ok(Ok(head)) => Ok(head.position),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(_) => Err("the log does not answer".to_owned()),
    };
    let mut ready = head.is_ok();
    let mut views = Vec::new();
    for view in VIEWS {
        let found = tokio::time::timeout(PATIENCE, ports.views.position(view.name())).await;
        let mut shown = json!({"view": view.name()});
        if let Ok(Ok(position)) = found {
            let lag = head.as_ref().map_or(0, |head| head.saturating_sub(position));
            shown["position"] = json!(position);
            shown["lag"] = json!(lag);
            ready &= lag <= LAG_MAX;
        } else {
            if let Ok(Err(fault)) = found {
                tracing::warn!(view = view.name(), %fault, "not ready: view {}", view.name());
            }
            shown["fault"] = json!("does not answer");
            ready = false;
        }
        views.push(shown);
    }
    let mut parts = Vec::new();
    for (name, check) in &call.service.options.checks {
        let mut shown = json!({"part": name, "ready": true});
        if let Err(fault) = check() {
            tracing::warn!(part = name, fault, "not ready: {name}");
            shown = json!({"part": name, "ready": false, "fault": "does not go on"});
            ready = false;
        }
        parts.push(shown);
    }
    let log = match head {
        Ok(position) => json!({"position": position}),
        Err(fault) => {
            tracing::warn!(fault, "not ready: the log cannot be reached");
            json!({"fault": "cannot be reached"})
        }
    };
    let body: Value = json!({"ready": ready, "log": log, "views": views, "parts": parts});
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(answer(status, &body))
}

pub(crate) async fn metrics(call: Call) -> Answer {
    let service = &call.service;
    let ports = &service.ledger.ports;
    let mut out = String::with_capacity(16 << 10);
    metrics::head(&mut out, "skyledger_build_info", "gauge", "The build.");
    let build = service.options.build.replace(['"', '\\', '\n'], "_");
    let _ = writeln!(out, "skyledger_build_info{{build=\"{build}\"}} 1");
    service.metrics.write(&mut out);
    metrics::gauge(
        &mut out,
        "skyledger_agents_connected",
        "Agents of hosts that this process hears.",
        service.ledger.desk.connected() as u64,
    );
    // What cannot be asked now is left out: the rest is all the more wanted then.
    if let Ok(head) = ports.log.head().await {
        metrics::gauge(
            &mut out,
            "skyledger_log_position",
            "The newest record's position.",
            head.position,
        );
        metrics::head(&mut out, "skyledger_view_lag", "gauge", "Records a view is behind.");
        for view in VIEWS {
            if let Ok(position) = ports.views.position(view.name()).await {
                let (name, lag) = (view.name(), head.position.saturating_sub(position));
                let _ = writeln!(out, "skyledger_view_lag{{view=\"{name}\"}} {lag}");
            }
        }
    }
    metrics::head(&mut out, "skyledger_orders", "gauge", "Orders that are out, by state.");
    let running = ports.leases.held().await.map(|held| held.len() as u64);
    for state in ["pending", "parked"] {
        let query = Query::all().with("order_state", state);
        if let Ok(count) = ports.views.count("inventory", &query, COUNT_MAX).await {
            let _ = writeln!(out, "skyledger_orders{{state=\"{state}\"}} {count}");
        }
    }
    if let Ok(running) = running {
        let _ = writeln!(out, "skyledger_orders{{state=\"running\"}} {running}");
    }
    for more in &service.options.more_metrics {
        more(&mut out);
    }
    let mut response = Response::new(Body::from(out));
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}
