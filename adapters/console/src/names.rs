//! Names in place of ids: a resource's name or its id in the cloud will do where it is the only one.

use serde_json::Value;

use crate::{
    client::{Client, ClientFault},
    columns::plain,
    exit::Exit,
};

/// Candidates shown when a name is not the only one.
const CANDIDATES_MAX: usize = 5;

/// Why a name does not lead to an id.
#[derive(Debug, thiserror::Error)]
pub enum NameFault {
    /// The server could not be asked.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// Nothing is called that.
    #[error("no {kind} has the id, name or external id `{name}`")]
    Unknown {
        /// The kind.
        kind: String,
        /// What was asked for.
        name: String,
    },
    /// Several are called that.
    #[error("`{name}` is the name of {count} {plural}; use an id:\n{candidates}")]
    Ambiguous {
        /// The kind in the plural.
        plural: String,
        /// What was asked for.
        name: String,
        /// How many, at least.
        count: String,
        /// Some of them, one a line.
        candidates: String,
    },
}

impl NameFault {
    /// The exit code it becomes.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(fault) => fault.exit(),
            Self::Unknown { .. } => Exit::NotFound,
            Self::Ambiguous { .. } => Exit::Usage,
        }
    }
}

/// Whether a text is an id: a UUID in its usual form.
pub fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A text as a filter's value.
pub fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('*', "\\*");
    format!("\"{text}\"")
}

/// The id of what is meant: an id, a name, or an external id, now or at another moment.
///
/// # Errors
/// Any [`NameFault`].
pub async fn resolve(
    client: &Client,
    kind: &str,
    plural: &str,
    meant: &str,
    at: Option<&str>,
) -> Result<String, NameFault> {
    if is_id(meant) {
        return Ok(meant.to_ascii_lowercase());
    }
    let path = format!("/v1/{plural}");
    for column in ["name", "external_id"] {
        let mut query = vec![("filter", format!("{column}={}", quoted(meant)))];
        if let Some(at) = at {
            query.push(("at", at.to_owned()));
        }
        let found = client.list(&path, &query, Some(CANDIDATES_MAX), |_| {}).await?;
        match found.rows.as_slice() {
            [] => {}
            [one] => return Ok(plain(&one["id"])),
            many => {
                let more = if found.more { " or more" } else { "" };
                return Err(NameFault::Ambiguous {
                    plural: plural.to_owned(),
                    name: meant.to_owned(),
                    count: format!("{}{more}", many.len()),
                    candidates: many.iter().map(candidate).collect::<Vec<_>>().join("\n"),
                });
            }
        }
    }
    Err(NameFault::Unknown { kind: kind.to_owned(), name: meant.to_owned() })
}

fn candidate(row: &Value) -> String {
    let mut words = vec![plain(&row["id"])];
    for name in ["region", "external_id", "status"] {
        let word = plain(&row[name]);
        if !word.is_empty() {
            words.push(word);
        }
    }
    format!("  {}", words.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_uuid_is_an_id() {
        assert!(is_id("0199c0de-0000-7000-8000-00000000000A"));
        for wrong in ["", "web", "sg-0a1b2c3d", "0199c0de000070008000000000000000"] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_name_with_quotes_stays_one_value() {
        assert_eq!(quoted(r#"a"b\c*"#), r#""a\"b\\c\*""#);
    }
}
