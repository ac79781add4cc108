//! Every error answer: problem details (RFC 9457) with a stable code.
//!
//! Rules' refusals bring their own codes ([`domain::kernel::REFUSALS`]); [`PROBLEMS`] are the codes
//! of the interface itself. What is a caller's mistake never has a status of 500 or more.

use std::fmt::Write as _;

use ::commands::{
    ledger::LoadFault,
    ports::{LogFault, ViewFault},
    submit::SubmitFault,
};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use domain::kernel::{Code, REFUSALS, Refusal};
use serde_json::{Map, Value, json};

macro_rules! problems {
    ($($(#[doc = $advice:literal])+ $name:ident = $code:literal $status:literal $title:literal;)+) => {
        $($(#[doc = $advice])+ pub static $name: Code = Code {
            code: $code, status: $status, title: $title, advice: concat!($($advice),+),
        };)+
        /// The interface's own codes, sorted: with the rules' codes the source of
        /// `docs/refusals.md`.
        pub static PROBLEMS: &[&Code] = &[$(&$name),+];
    };
}

// Sorted by code. The doc comment is the advice: what the caller should do.
problems! {
    /// Look at the detail, and at the account: its place did not say what was asked.
    ACCOUNT_UNREACHABLE = "account-unreachable" 503 "the account's place does not answer";
    /// Correct the file, or name the mapping that it is written by; nothing was booked.
    BILL_UNREADABLE = "bill-unreadable" 422 "the file does not read as a bill";
    /// Send a body of at most 1 MiB.
    BODY_TOO_LARGE = "body-too-large" 413 "the body is too large";
    /// Do as the detail says: the host has no such console of the server now.
    CONSOLE_UNAVAILABLE = "console-unavailable" 409 "the host cannot open the console";
    /// Send the command again: other commands on the same resource kept getting in between.
    CONTENDED = "contended" 409 "other commands kept getting in between";
    /// Send the request again in a moment, to the server process that hears the agent of the host.
    HOST_AWAY = "host-away" 503 "the host is not reached from here";
    /// Use visible ASCII characters, 1 to 255 of them.
    IDEMPOTENCY_KEY_INVALID = "idempotency-key-invalid" 400 "the idempotency key is not valid";
    /// Use a new key for a new command; the same key is only for sending the same command again.
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused" 422 "the key was used for another command";
    /// Look at the server's log with the request's id, and report it.
    INTERNAL = "internal" 500 "something is broken here";
    /// Correct the filter at the place named in the detail; the grammar is in the documents.
    INVALID_FILTER = "invalid-filter" 400 "the filter does not read";
    /// Ids are UUIDs in lower case with hyphens, as they were handed out.
    INVALID_ID = "invalid-id" 400 "this is not an id";
    /// Send one JSON object (RFC 8259), nested at most 32 deep.
    INVALID_JSON = "invalid-json" 400 "the body is not a JSON object";
    /// Correct the parameter or header named in the detail.
    INVALID_PARAMETER = "invalid-parameter" 400 "a parameter does not read";
    /// Tell the operators: nothing is written until a person has looked.
    LOG_DAMAGED = "log-damaged" 503 "the log is damaged";
    /// Send the request again later; nothing was written. Operators: make room on the disk.
    LOG_FULL = "log-full" 503 "the log has no room";
    /// Send the request again, with the same `Idempotency-Key`.
    LOG_UNAVAILABLE = "log-unavailable" 503 "the log cannot be reached";
    /// Use one of the methods in `Allow`.
    METHOD_NOT_ALLOWED = "method-not-allowed" 405 "this path has no such method";
    /// Compare the path with `/openapi.json`.
    NO_SUCH_PATH = "no-such-path" 404 "there is no such path";
    /// Send the request again after the time in `Retry-After`.
    OVERLOADED = "overloaded" 503 "too many requests are being worked on";
    /// Send the plan's id with the very command that was planned.
    PLAN_OF_ANOTHER = "plan-of-another" 422 "the plan is not one of this command";
    /// Plan again and look at what has changed: `moved` names it.
    PLAN_STALE = "plan-stale" 412 "what the plan saw has moved";
    /// Send the whole request within 30 seconds.
    REQUEST_TIMEOUT = "request-timeout" 408 "the request did not come in time";
    /// Read the resource again and decide on what is there now.
    REVISION_MISMATCH = "revision-mismatch" 412 "the resource is at another revision";
    /// Tell the operators: bring the segment back from a backup, or import its file again.
    SEGMENT_DAMAGED = "segment-damaged" 500 "lines of a bill are damaged or lost";
    /// Send the request again later; nothing was booked. Operators: look at the data folder's disk.
    SEGMENTS_UNAVAILABLE = "segments-unavailable" 503 "bills' lines cannot be reached";
    /// Send the file again later; nothing of it was kept. Operators: `verify` the backup store, and see why it is refused.
    STORE_UNAVAILABLE = "store-unavailable" 503 "the backup store takes nothing now";
    /// Send `Authorization: Bearer <token>` with a token that is neither revoked nor over.
    UNAUTHENTICATED = "unauthenticated" 401 "a valid token is needed";
    /// Use one of the parameters named in the detail.
    UNKNOWN_PARAMETER = "unknown-parameter" 400 "this path has no such parameter";
    /// Send the body as `Content-Type: application/json`.
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type" 415 "the body is not sent as JSON";
    /// Ask for a WebSocket (RFC 6455) over HTTP/1.1.
    UPGRADE_NEEDED = "upgrade-needed" 426 "this path is a WebSocket";
    /// Send the text exposition with times, or answers of range queries in JSON; the detail says where it fails.
    USAGE_UNREADABLE = "usage-unreadable" 422 "the file of usage does not read";
    /// Send the request again after the time in `Retry-After`, or without `Skyledger-Min-Position`.
    VIEW_BEHIND = "view-behind" 503 "the views have not caught up yet";
}

/// The code of this name, the rules' or the interface's own.
pub fn code(name: &str) -> Option<&'static Code> {
    PROBLEMS.iter().chain(REFUSALS).find(|code| code.code == name).copied()
}

/// An error on its way to the caller.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) code: &'static Code,
    /// For the caller: the obstacle and its values.
    pub(crate) detail: String,
    /// For the server's log alone: the chain of faults.
    pub(crate) fault: Option<String>,
    /// In seconds.
    pub(crate) retry_after: Option<u32>,
    /// Members beyond those of every problem.
    pub(crate) members: Option<Box<Map<String, Value>>>,
}

impl Problem {
    pub(crate) fn new(code: &'static Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), fault: None, retry_after: None, members: None }
    }

    pub(crate) fn parameter(name: &str, what: impl std::fmt::Display) -> Self {
        Self::new(&INVALID_PARAMETER, format!("{name}: {what}"))
    }

    fn caused(code: &'static Code, fault: &dyn std::error::Error) -> Self {
        let mut chain = fault.to_string();
        let mut source = fault.source();
        while let Some(cause) = source {
            let _ = write!(chain, ": {cause}");
            source = cause.source();
        }
        Self { fault: Some(chain), ..Self::new(code, code.title) }
    }

    fn after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.members.get_or_insert_default().insert(name.to_owned(), value);
        self
    }

    pub(crate) fn overloaded() -> Self {
        Self::new(&OVERLOADED, OVERLOADED.title).after(1)
    }

    pub(crate) fn respond(self, path: &str, request_id: &str) -> Response<Body> {
        let mut body = json!({
            "type": format!("/problems/{}", self.code.code),
            "title": self.code.title,
            "status": self.code.status,
            "detail": self.detail,
            "code": self.code.code,
            "advice": self.code.advice.trim(),
            "instance": path,
            "request_id": request_id,
        });
        if let (Some(members), Some(body)) = (self.members, body.as_object_mut()) {
            body.extend(*members);
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() =
            StatusCode::from_u16(self.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code.status == 401 {
            let scheme = "Bearer realm=\"skyledger\"";
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code, refusal.detail)
    }
}

impl From<LogFault> for Problem {
    fn from(fault: LogFault) -> Self {
        match &fault {
            LogFault::Full(_) => Self::caused(&LOG_FULL, &fault).after(10),
            LogFault::Unavailable(_) => Self::caused(&LOG_UNAVAILABLE, &fault).after(1),
            LogFault::Corrupt { .. } => Self::caused(&LOG_DAMAGED, &fault),
            LogFault::Unexpected(_) => Self::caused(&INTERNAL, &fault),
        }
    }
}

impl From<ViewFault> for Problem {
    fn from(fault: ViewFault) -> Self {
        match fault {
            ViewFault::Query(detail) => Self::new(&INVALID_PARAMETER, detail),
            ViewFault::Behind { position, wanted } => Self {
                detail: format!("the view is at position {position}, not yet at {wanted}"),
                ..Self::new(&VIEW_BEHIND, "").after(1)
            },
            ViewFault::Store(fault) => fault.into(),
        }
    }
}

impl From<LoadFault> for Problem {
    fn from(fault: LoadFault) -> Self {
        match fault {
            LoadFault::Log(fault) => fault.into(),
            other => Self::caused(&INTERNAL, &other),
        }
    }
}

impl From<SubmitFault> for Problem {
    fn from(fault: SubmitFault) -> Self {
        match fault {
            SubmitFault::Refused(refusal) | SubmitFault::Beside(refusal) => refusal.into(),
            SubmitFault::Precondition { expected, actual } => Self::new(
                &REVISION_MISMATCH,
                format!("the resource is at revision {actual}, not {expected}"),
            )
            .with("revision", json!(actual)),
            SubmitFault::Stale(moved) => {
                let names: Vec<_> =
                    moved.iter().map(|one| format!("{} {}", one.kind, one.id)).collect();
                Self::new(&PLAN_STALE, format!("moved since: {}", names.join(", ")))
                    .with("moved", json!(moved))
            }
            SubmitFault::PlanOfAnother => Self::new(&PLAN_OF_ANOTHER, PLAN_OF_ANOTHER.title),
            SubmitFault::KeyReused => {
                Self::new(&IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_KEY_REUSED.title)
            }
            SubmitFault::KeyInvalid => {
                Self::new(&IDEMPOTENCY_KEY_INVALID, IDEMPOTENCY_KEY_INVALID.title)
            }
            SubmitFault::Busy => Self::new(&CONTENDED, CONTENDED.title).after(1),
            SubmitFault::Bill(fault) => fault.into(),
            SubmitFault::Load(fault) => fault.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_unique_and_say_what_to_do() {
        let mut names: Vec<_> = PROBLEMS.iter().map(|code| code.code).collect();
        // `request-timeout` and `revision-mismatch` included.
        let given = names.clone();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), given.len());
        for code in PROBLEMS {
            assert!(!REFUSALS.iter().any(|rule| rule.code == code.code), "{}", code.code);
            assert!(code.advice.trim().ends_with('.'), "{}", code.code);
            assert!((400..=503).contains(&code.status), "{}", code.code);
        }
    }
}
