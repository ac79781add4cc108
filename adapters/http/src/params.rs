//! Parameters: what each route takes, read and checked before its handler runs.

use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::problem::{INVALID_PARAMETER, Problem, UNKNOWN_PARAMETER};

/// Longest query string, in bytes: a filter of 4 KiB with every byte escaped, and room.
const QUERY_BYTES_MAX: usize = 16 << 10;

/// Where a parameter is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind the `?`.
    Query,
    /// In the head of the request.
    Header,
}

/// What a parameter's value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds, both included.
    Integer(u64, u64),
    /// A time (RFC 3339) or a position.
    Moment,
    /// Text of at most so many bytes.
    Text(usize),
    /// A time (RFC 3339).
    Time,
    /// A UUID.
    Uuid,
}

/// One parameter of a route.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As it is written.
    pub name: &'static str,
    /// Where.
    pub place: Place,
    /// What.
    pub shape: Shape,
    /// One sentence for documents.
    pub summary: &'static str,
}

impl Parameter {
    /// Its JSON Schema.
    pub(crate) fn schema(&self) -> Value {
        match self.shape {
            Shape::Flag => json!({"type": "boolean"}),
            Shape::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
            Shape::Moment => json!({"anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "integer", "minimum": 0},
            ]}),
            Shape::Text(max) => json!({"type": "string", "maxLength": max}),
            Shape::Time => json!({"type": "string", "format": "date-time"}),
            Shape::Uuid => json!({"type": "string", "format": "uuid"}),
        }
    }

    fn check(&self, text: &str) -> Result<(), Problem> {
        let no = |what: String| Err(Problem::parameter(self.name, what));
        match self.shape {
            Shape::Flag if !matches!(text, "true" | "false") => no("is true or false".into()),
            Shape::Integer(min, max) => match number(text) {
                Some(number) if (min..=max).contains(&number) => Ok(()),
                _ => no(format!("is a whole number within {min}…{max}")),
            },
            Shape::Moment if number(text).is_none() && time(text).is_none() => {
                no("is a time as in RFC 3339, or a position".into())
            }
            Shape::Text(max) if text.len() > max => no(format!("has at most {max} bytes")),
            Shape::Text(_) if text.contains('\0') => no("has a NUL".into()),
            Shape::Time if time(text).is_none() => no("is a time as in RFC 3339".into()),
            Shape::Uuid if uuid(text).is_none() => no("is a UUID".into()),
            _ => Ok(()),
        }
    }
}

/// Digits only; no sign, no space.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A time as in RFC 3339. In a query string an offset's `+` may have become a space.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_rfc3339(&text.replace(' ', "+")))
        .ok()?;
    Some(time.to_utc())
}

/// A UUID as we write it, or in upper case.
pub(crate) fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// The parameters of one request, each of its shape.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Reads query string and headers. A parameter that the route does not know is a mistake and
    /// says so: a misspelt filter must not return everything.
    pub(crate) fn read(
        known: &'static [&'static Parameter],
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        let query = query.unwrap_or_default();
        if query.len() > QUERY_BYTES_MAX {
            let detail = format!("the query string has more than {QUERY_BYTES_MAX} bytes");
            return Err(Problem::new(&INVALID_PARAMETER, detail));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let in_query = |one: &&&Parameter| one.place == Place::Query && one.name == name;
            let Some(parameter) = known.iter().find(in_query) else {
                return Err(unknown(&name, known));
            };
            if found.iter().any(|(known, _)| *known == parameter.name) {
                return Err(Problem::parameter(&name, "is given twice"));
            }
            let value = decode(value)?;
            parameter.check(&value)?;
            found.push((parameter.name, value));
        }
        for parameter in known.iter().filter(|one| one.place == Place::Header) {
            let Some(value) = headers.get(parameter.name) else { continue };
            let text = value
                .to_str()
                .map_err(|_| Problem::parameter(parameter.name, "is not visible ASCII"))?;
            parameter.check(text)?;
            found.push((parameter.name, text.to_owned()));
        }
        Ok(Self(found))
    }

    pub(crate) fn text(&self, parameter: &Parameter) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn flag(&self, parameter: &Parameter) -> bool {
        self.text(parameter) == Some("true")
    }

    pub(crate) fn number(&self, parameter: &Parameter) -> Option<u64> {
        self.text(parameter).and_then(number)
    }

    pub(crate) fn time(&self, parameter: &Parameter) -> Option<DateTime<Utc>> {
        self.text(parameter).and_then(time)
    }

    pub(crate) fn uuid(&self, parameter: &Parameter) -> Option<Uuid> {
        self.text(parameter).and_then(uuid)
    }
}

fn unknown(name: &str, known: &[&Parameter]) -> Problem {
    let names: Vec<_> =
        known.iter().filter(|one| one.place == Place::Query).map(|one| one.name).collect();
    let known = match names.as_slice() {
        [] => "this path takes none".to_owned(),
        names => format!("this path takes {}", names.join(", ")),
    };
    let name: String = name.chars().take(100).collect();
    Problem::new(&UNKNOWN_PARAMETER, format!("there is no parameter {name:?}; {known}"))
}

/// `application/x-www-form-urlencoded` (WHATWG URL §5.1), but what does not decode is refused.
fn decode(text: &str) -> Result<String, Problem> {
    let bad = |what| Problem::new(&INVALID_PARAMETER, format!("the query string {what}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
                let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                    return Err(bad("has a % without two hexadecimal digits"));
                };
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad("is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    static SIZE: Parameter =
        Parameter { name: "size", place: Place::Query, shape: Shape::Integer(1, 9), summary: "" };
    static AT: Parameter =
        Parameter { name: "at", place: Place::Query, shape: Shape::Moment, summary: "" };

    fn read(query: &str) -> Result<Params, &'static str> {
        static KNOWN: &[&Parameter] = &[&SIZE, &AT];
        Params::read(KNOWN, Some(query), &HeaderMap::new()).map_err(|no| no.code.code)
    }

    #[test]
    fn what_does_not_read_is_refused_and_never_ignored() {
        assert_eq!(read("size=3&at=7").unwrap().number(&SIZE), Some(3));
        assert!(read("at=2026-01-01T00:00:00+02:00").is_ok());
        for query in ["size=0", "size=10", "size=+3", "size=", "size=1&size=1", "at=soon", "at=%ff"]
        {
            assert_eq!(read(query).unwrap_err(), "invalid-parameter", "{query}");
        }
        assert_eq!(read("sise=3").unwrap_err(), "unknown-parameter");
        assert_eq!(read("size=%4").unwrap_err(), "invalid-parameter");
    }
}
