//! One request on its way to its handler.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use domain::{
    kernel::{Kind, Principal, Reach, Refusal, codes},
    log::Position,
};
use futures::StreamExt;
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::{
    params::{Params, uuid},
    problem::{
        BODY_TOO_LARGE, INVALID_ID, INVALID_JSON, NO_SUCH_PATH, Problem, REQUEST_TIMEOUT,
        UNSUPPORTED_MEDIA_TYPE,
    },
    service::Service,
    source::{Source, Subject},
};

/// Largest body, in bytes: one event's data ends there too.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// What is still read of a body that is too large, so that its sender gets to read the answer.
const DRAINED_BYTES_MAX: usize = 16 << 20;
/// A sender must be through with its body by then.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Deepest nesting of a body. Our own shapes need 8.
const DEPTH_MAX: usize = 32;

/// What a handler answers.
pub(crate) type Answer = Result<Response<Body>, Problem>;

/// A request that may be worked on.
pub(crate) struct Call {
    pub(crate) service: Arc<Service>,
    pub(crate) subject: Subject,
    /// The path's parameters: name and value.
    pub(crate) path: Vec<(String, String)>,
    pub(crate) params: Params,
    pub(crate) headers: HeaderMap,
    /// In a mutex only so that a call can be shared while it is awaited.
    pub(crate) body: Mutex<Body>,
    /// Who asks; on public routes nobody, who reaches nothing.
    pub(crate) principal: Principal,
    /// Held while it is worked on.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// What the connection becomes when it is to be another one.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// The caller's trace (W3C `traceparent`).
    pub(crate) trace: Option<Uuid>,
}

impl Call {
    /// The kind this route is mounted for.
    pub(crate) fn kind(&self) -> Result<&'static Kind, Problem> {
        match self.subject {
            Subject::Kind(kind) => Ok(kind),
            _ => Err(Problem::new(&NO_SUCH_PATH, NO_SUCH_PATH.title)),
        }
    }

    /// The view or lens this route is mounted for.
    pub(crate) fn source(&self) -> Result<Source, Problem> {
        match self.subject {
            Subject::Source(source) => Ok(source),
            _ => Err(Problem::new(&NO_SUCH_PATH, NO_SUCH_PATH.title)),
        }
    }

    /// A part of the path.
    pub(crate) fn part(&self, name: &str) -> &str {
        self.path.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str())
    }

    /// The resource's id in the path.
    pub(crate) fn id(&self) -> Result<Uuid, Problem> {
        let text = self.part("id");
        uuid(text).ok_or_else(|| {
            let text: String = text.chars().take(100).collect();
            Problem::new(&INVALID_ID, format!("{text:?} is not a UUID"))
        })
    }

    /// Not there, or not within reach: a reader is told the same.
    pub(crate) fn missing(kind: &Kind, id: Uuid) -> Problem {
        Refusal::new(&codes::NOT_FOUND, format!("there is no {} {id}", kind.name)).into()
    }

    /// Whether something of this project is within the caller's reach.
    pub(crate) fn covers(&self, project: Option<Uuid>) -> bool {
        self.principal.reach.covers(project)
    }

    /// The projects to search records by; none is all.
    pub(crate) fn projects(&self) -> Option<Vec<Uuid>> {
        match &self.principal.reach {
            Reach::All => None,
            Reach::Host(_) => Some(Vec::new()),
            Reach::Projects(projects) => Some(projects.clone()),
        }
    }

    /// The body as a JSON object; without a body the empty one.
    pub(crate) async fn json(&mut self) -> Result<Value, Problem> {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let body = std::mem::take(body);
        let bytes = tokio::time::timeout(BODY_PATIENCE, read_body(&self.headers, body))
            .await
            .map_err(|_| Problem::new(&REQUEST_TIMEOUT, "the body did not come in time"))??;
        if bytes.is_empty() {
            return Ok(json!({}));
        }
        let content_type = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if !content_type.is_some_and(is_json) {
            let detail = match content_type {
                Some(other) => format!("the body is sent as {other:?}"),
                None => "the body has no Content-Type".to_owned(),
            };
            return Err(Problem::new(&UNSUPPORTED_MEDIA_TYPE, detail));
        }
        if depth(&bytes) > DEPTH_MAX {
            let detail = format!("the body is nested more than {DEPTH_MAX} deep");
            return Err(Problem::new(&INVALID_JSON, detail));
        }
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => Err(Problem::new(&INVALID_JSON, "the body is JSON, but not an object")),
            Err(error) => Err(Problem::new(&INVALID_JSON, error.to_string())),
        }
    }
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let utf8 = parts.all(|part| match part.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("charset") => {
            value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    });
    media.eq_ignore_ascii_case("application/json") && utf8
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
        Problem::new(&BODY_TOO_LARGE, detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if announced.unwrap_or(0_u64) > DRAINED_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut chunks = body.into_data_stream();
    let mut first = Bytes::new();
    let mut rest: Vec<u8> = Vec::new();
    let mut size = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            Problem::new(&INVALID_JSON, format!("the body ends too early: {error}"))
        })?;
        size += chunk.len();
        if size > DRAINED_BYTES_MAX {
            return Err(too_large());
        }
        if size > BODY_BYTES_MAX {
            rest = Vec::new();
        } else if size == chunk.len() {
            // Nearly every body comes as one piece and is not copied.
            first = chunk;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&chunk);
        }
    }
    match size {
        too_much if too_much > BODY_BYTES_MAX => Err(too_large()),
        _ if rest.is_empty() => Ok(first),
        _ => Ok(rest.into()),
    }
}

/// How deep JSON text is nested; more than it is where the text is not JSON.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Says which position an answer shows.
pub(crate) fn at_position(mut response: Response<Body>, position: Position) -> Response<Body> {
    response.headers_mut().insert("skyledger-position", HeaderValue::from(position));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_texts() {
        assert_eq!(depth(br#"{"a[[[":[{"b\"[":1}],"c":[]}"#), 3);
    }

    #[test]
    fn json_is_utf_8_only() {
        assert!(is_json("application/json"));
        assert!(is_json("Application/JSON; charset=\"UTF-8\""));
        assert!(!is_json("application/json; charset=latin1"));
        assert!(!is_json("text/json"));
    }
}
