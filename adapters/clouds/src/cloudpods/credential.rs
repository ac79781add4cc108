//! The credential of a cluster: a user of it, and the project that they ask for.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// Longest text of a credential, in characters.
const CHARS_MAX: usize = 256;

/// As people send it. `Debug` shows none of its secrets.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) user: String,
    pub(super) password: String,
    /// The domain of the user; the cluster's own where there is none.
    #[serde(default)]
    pub(super) domain: Option<String>,
    /// The project; `system` where there is none, which sees every machine.
    #[serde(default)]
    pub(super) project: Option<String>,
    /// The region whose machines these are, where the cluster has several.
    #[serde(default)]
    pub(super) region: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credential {
    /// The project that is asked for.
    pub(super) fn project(&self) -> &str {
        self.project.as_deref().unwrap_or("system")
    }

    /// Whose machines are listed.
    pub(super) fn scope(&self) -> &'static str {
        if self.project() == "system" { "system" } else { "project" }
    }
}

/// Field by field what is wrong; never a value of a field. Empty when it reads.
pub(super) fn check(credential: &Value) -> Vec<String> {
    let Some(members) = credential.as_object() else {
        return vec!["the credential is a JSON object".to_owned()];
    };
    let mut wrong = Vec::new();
    let fits = |text: &str| {
        (1..=CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    };
    for (name, required) in [
        ("user", true),
        ("password", true),
        ("domain", false),
        ("project", false),
        ("region", false),
    ] {
        match members.get(name) {
            None | Some(Value::Null) if !required => {}
            Some(Value::String(text)) if fits(text) => {}
            _ => wrong.push(format!("{name}: has 1 to {CHARS_MAX} characters")),
        }
    }
    let known = ["domain", "password", "project", "region", "user"];
    let unknown = members.keys().filter(|name| !known.contains(&name.as_str()));
    wrong.extend(unknown.map(|name| format!("{name}: there is no such field")));
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_with_a_credential_is_said_by_field_and_without_its_values() {
        let wrong = check(&json!({"user": "", "password": "secret\n", "token": "t"}));
        let fields: Vec<&str> = wrong.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(fields, ["user", "password", "token"]);
        assert!(!wrong.concat().contains("secret"));
        let good = json!({"user": "mover", "password": "p"});
        assert!(check(&good).is_empty());
        let read: Credential = serde_json::from_value(good).unwrap();
        assert_eq!((read.project(), read.scope()), ("system", "system"));
        assert!(!format!("{read:?}").contains("password"));
    }
}
