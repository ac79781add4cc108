//! The credential of a vCenter: a user of it, and by what it is known.

use std::{fmt, net::IpAddr};

use serde::Deserialize;
use serde_json::Value;

use crate::http_client::Fingerprint;

/// Longest text of a credential, in characters.
const CHARS_MAX: usize = 256;

/// As people send it. `Debug` shows none of its secrets.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    /// With the domain, such as `mover@vsphere.local`.
    pub(super) user: String,
    pub(super) password: String,
    /// SHA-256 of its certificate, where nobody whom this machine trusts vouches for it.
    #[serde(default)]
    pub(super) fingerprint: Option<String>,
    /// The address of this server, as hosts see it that machines are moved to; the one by which it reaches the
    /// vCenter when left out.
    #[serde(default)]
    pub(super) sender: Option<IpAddr>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
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
    for name in ["user", "password"] {
        if !members.get(name).and_then(Value::as_str).is_some_and(fits) {
            wrong.push(format!("{name}: has 1 to {CHARS_MAX} characters"));
        }
    }
    let said = |name: &str| members.get(name).filter(|value| !value.is_null());
    if let Some(value) = said("fingerprint")
        && value.as_str().and_then(Fingerprint::read).is_none()
    {
        wrong
            .push("fingerprint: is the SHA-256 of a certificate, 64 hexadecimal digits".to_owned());
    }
    if let Some(value) = said("sender")
        && value.as_str().and_then(|text| text.parse::<IpAddr>().ok()).is_none()
    {
        wrong.push("sender: is an IP address".to_owned());
    }
    let known = ["fingerprint", "password", "sender", "user"];
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
        let wrong = check(&json!({
            "user": "", "password": "secret\n", "fingerprint": "12", "sender": "here", "token": "t",
        }));
        let fields: Vec<&str> = wrong.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(fields, ["user", "password", "fingerprint", "sender", "token"]);
        assert!(!wrong.concat().contains("secret"));
        let print = "AB:".repeat(31) + "CD";
        let good = json!({"user": "mover@vsphere.local", "password": "p", "fingerprint": print, "sender": "10.0.0.9"});
        assert!(check(&good).is_empty());
        let read: Credential = serde_json::from_value(good).unwrap();
        assert!(!format!("{read:?}").contains("password"));
    }
}
