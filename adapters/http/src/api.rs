//! Mounts the routes, and does for each request what is the same for all: its id, its span, who
//! asks, its parameters, the bound on how many are worked on, and what a handler's panic becomes.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, Request, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderValue, Method, Response, header, request::Parts},
    routing::{MethodFilter, on},
};
use domain::{
    kernel::{Principal, Reach, Refusal, Role, codes},
    kinds::KINDS,
};
use futures::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    call::{Answer, Call},
    params::Params,
    problem::{
        INTERNAL, INVALID_PARAMETER, METHOD_NOT_ALLOWED, NO_SUCH_PATH, Problem, UNAUTHENTICATED,
    },
    routes::{Access, ROUTES, Route, Verb},
    service::Service,
    source::Subject,
};

/// The interface as an axum router.
pub fn router(service: Arc<Service>) -> Router {
    let mut router = Router::new();
    for (place, route) in ROUTES.iter().enumerate() {
        let filter = match route.method {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
        };
        for subject in route.subjects() {
            let service = service.clone();
            let handler = move |path: Result<RawPathParams, RawPathParamsRejection>,
                                request: Request| {
                let service = service.clone();
                let target = Target::Route { place, route, subject, path };
                serve_one(service, target, request)
            };
            router = router.route(&route.path_for(subject), on(filter, handler));
        }
    }
    let (elsewhere, otherwise) = (service.clone(), service);
    router
        .fallback(move |request: Request| {
            serve_one(elsewhere.clone(), Target::Problem(&NO_SUCH_PATH), request)
        })
        .method_not_allowed_fallback(move |request: Request| {
            serve_one(otherwise.clone(), Target::Problem(&METHOD_NOT_ALLOWED), request)
        })
}

/// Where a request has come.
enum Target {
    Route {
        /// In [`ROUTES`].
        place: usize,
        route: &'static Route,
        subject: Subject,
        path: Result<RawPathParams, RawPathParamsRejection>,
    },
    Problem(&'static domain::kernel::Code),
}

async fn serve_one(service: Arc<Service>, target: Target, request: Request) -> Response<Body> {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let request_id = request_id(&service, &parts.headers);
    let (place, route) = match &target {
        Target::Route { place, route, .. } => (Some(*place), route.path),
        Target::Problem(_) => (None, "-"),
    };
    let trace = trace(&parts.headers);
    let span = tracing::info_span!(
        "request",
        method = %parts.method,
        route,
        request_id = %request_id,
        trace_id = trace.map(|trace| tracing::field::display(trace.simple())),
        actor = tracing::field::Empty,
        status = tracing::field::Empty,
    );
    if let Some(adopt) = service.options.adopt_span
        && trace.is_some()
        && let Some(parent) = parts.headers.get("traceparent").and_then(|one| one.to_str().ok())
    {
        adopt(&span, parent);
    }
    let method = parts.method.clone();
    let path: String = parts.uri.path().chars().take(1000).collect();
    service.metrics.in_flight.fetch_add(1, Relaxed);
    let work = work(service.clone(), target, parts, body, trace).instrument(span.clone());
    let result = AssertUnwindSafe(work).catch_unwind().await;
    service.metrics.in_flight.fetch_sub(1, Relaxed);
    let answer = result.unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        let fault = format!("panicked: {}", said.unwrap_or_default());
        Err(Problem { fault: Some(fault), ..Problem::new(&INTERNAL, INTERNAL.title) })
    });
    let mut response = answer.unwrap_or_else(|problem| {
        let (code, fault) = (problem.code.code, problem.fault.as_deref());
        if problem.code.status >= 500 {
            tracing::error!(parent: &span, code, fault, "the request failed");
        } else {
            tracing::debug!(parent: &span, code, detail = %problem.detail, "refused");
        }
        problem.respond(&path, &request_id)
    });
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", value);
    }
    let took = began.elapsed();
    let status = response.status().as_u16();
    span.record("status", status);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(parent: &span, %method, %path, status, micros, "answered");
    service.metrics.observe(place, status, took);
    response
}

async fn work(
    service: Arc<Service>,
    target: Target,
    mut parts: Parts,
    body: Body,
    trace: Option<Uuid>,
) -> Answer {
    let (route, subject, path) = match target {
        Target::Route { route, subject, path, .. } => (route, subject, path),
        Target::Problem(code) => {
            let what = format!("{} {}", parts.method, parts.uri.path());
            let what: String = what.chars().take(200).collect();
            return Err(Problem::new(code, format!("{}: {what}", code.title)));
        }
    };
    // Liveness is asked for most urgently when nothing else is answered.
    let permit = match route.access {
        Access::Public => None,
        _ => {
            Some(service.in_flight.clone().try_acquire_owned().map_err(|_| Problem::overloaded())?)
        }
    };
    let principal = match route.access {
        Access::Public => Principal {
            name: "nobody".to_owned(),
            role: Role::Viewer,
            reach: Reach::Projects(Vec::new()),
        },
        _ => authenticate(&service, &parts.headers).await?,
    };
    tracing::Span::current().record("actor", principal.name.as_str());
    if matches!(route.access, Access::Token | Access::Estate) && principal.role < Role::Viewer {
        let detail = format!("{} works for a host, and does nothing else", principal.name);
        return Err(Refusal::new(&codes::ROLE_TOO_LOW, detail).into());
    }
    if route.access == Access::Estate && principal.reach != Reach::All {
        let detail = format!("{} reaches single projects, this is the estate's", principal.name);
        return Err(Refusal::new(&codes::OUT_OF_REACH, detail).into());
    }
    let path = path.map_err(|_| Problem::new(&INVALID_PARAMETER, "the path is not UTF-8"))?;
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let params = Params::read(route.parameters, parts.uri.query(), &parts.headers)?;
    let call = Call {
        service,
        subject,
        path,
        params,
        headers: parts.headers,
        body: Mutex::new(body),
        principal,
        permit,
        upgrade: parts.extensions.remove(),
        trace,
    };
    let response = (route.run)(call).await?;
    debug_assert!(parts.method != Method::POST || route.method == Verb::Post);
    Ok(response)
}

async fn authenticate(service: &Service, headers: &HeaderMap) -> Result<Principal, Problem> {
    let no = |detail| Err(Problem::new(&UNAUTHENTICATED, detail));
    let Some(secret) = bearer(headers) else {
        return no("the request has no bearer token");
    };
    match service.principal(secret).await? {
        Some(principal) => Ok(principal),
        None => no("the token is unknown, revoked or over"),
    }
}

/// The secret in `Authorization: Bearer …`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// The caller's own, if it can stand in a log line, or a new one.
fn request_id(service: &Service, headers: &HeaderMap) -> String {
    headers
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()))
        .map_or_else(|| service.ledger.ports.ids.new_id().to_string(), str::to_owned)
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`. What does not read is
/// ignored, as the standard wants it.
fn trace(headers: &HeaderMap) -> Option<Uuid> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if version.len() != 2 || version == "ff" || trace.len() != 32 || parent.len() != 16 {
        return None;
    }
    let trace = hex(trace).then(|| Uuid::try_parse(trace).ok()).flatten()?;
    (!trace.is_nil()).then_some(trace)
}

impl Route {
    /// What it is mounted for.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        use crate::routes::Scope;
        match self.scope {
            Scope::Once => vec![Subject::Nothing],
            Scope::EachKind => KINDS.iter().map(Subject::Kind).collect(),
            Scope::EachCreated => KINDS
                .iter()
                .filter(|kind| crate::commands::creating(kind).is_some())
                .map(Subject::Kind)
                .collect(),
            Scope::EachSource => crate::source::sources().map(Subject::Source).collect(),
        }
    }

    /// Its path for one of them.
    pub(crate) fn path_for(&self, subject: Subject) -> String {
        match subject {
            Subject::Nothing => self.path.to_owned(),
            Subject::Kind(kind) => self.path.replace("{kinds}", kind.plural),
            Subject::Source(source) => self.path.replace("{view}", &source.path()),
        }
    }
}
