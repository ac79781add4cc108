//! The credential of an AWS account: an access key, and perhaps a role to take on with it.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// Where calls go that belong to no region, unless the credential says otherwise.
const HOME_REGION: &str = "us-east-1";

/// As people send it. `Debug` shows none of its secrets.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    #[serde(default)]
    pub(super) session_token: Option<String>,
    #[serde(default)]
    pub(super) role_arn: Option<String>,
    #[serde(default)]
    pub(super) external_id: Option<String>,
    /// A region of the account's partition: `cn-north-1` for an account in China.
    #[serde(default)]
    region: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("role_arn", &self.role_arn).finish_non_exhaustive()
    }
}

impl Credential {
    /// The region that answers what belongs to no region.
    pub(super) fn home_region(&self) -> &str {
        self.region.as_deref().unwrap_or(HOME_REGION)
    }
}

/// What signs a call. `Debug` shows none of it.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Takes our secrets out of a text that came from elsewhere.
    pub(super) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in std::iter::once(&self.secret_access_key).chain(&self.session_token) {
            if !secret.is_empty() {
                text = text.replace(secret.as_str(), "[secret]");
            }
        }
        text
    }
}

impl From<&Credential> for Keys {
    fn from(credential: &Credential) -> Self {
        Self {
            access_key_id: credential.access_key_id.clone(),
            secret_access_key: credential.secret_access_key.clone(),
            session_token: credential.session_token.clone(),
        }
    }
}

/// Field by field what is wrong; never a value of a field. Empty when it reads.
pub(super) fn check(credential: &Value) -> Vec<String> {
    let Some(members) = credential.as_object() else {
        return vec!["the credential is a JSON object".to_owned()];
    };
    let mut wrong = Vec::new();
    let mut text =
        |name: &str, required: bool, fits: &dyn Fn(&str) -> bool, what: &str| match members
            .get(name)
        {
            None | Some(Value::Null) if !required => {}
            Some(Value::String(value)) if fits(value) => {}
            _ => wrong.push(format!("{name}: {what}")),
        };
    let word = |value: &str| value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let visible = |value: &str| value.chars().all(|c| c.is_ascii_graphic());
    text(
        "access_key_id",
        true,
        &|value| (16..=128).contains(&value.len()) && word(value),
        "needs 16 to 128 letters and digits",
    );
    text(
        "secret_access_key",
        true,
        &|value| (16..=256).contains(&value.len()) && visible(value),
        "needs 16 to 256 visible characters",
    );
    text(
        "session_token",
        false,
        &|value| (1..=8192).contains(&value.len()) && visible(value),
        "has 1 to 8192 visible characters",
    );
    text("role_arn", false, &is_role_arn, "reads arn:<partition>:iam::<12 digits>:role/<name>");
    text(
        "external_id",
        false,
        &|value| (2..=1224).contains(&value.len()) && visible(value),
        "has 2 to 1224 visible characters",
    );
    text("region", false, &super::endpoint::is_region, "reads like eu-central-1");
    let known = [
        "access_key_id",
        "external_id",
        "region",
        "role_arn",
        "secret_access_key",
        "session_token",
    ];
    wrong.extend(
        members
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| format!("{name}: there is no such field")),
    );
    if members.contains_key("external_id") && !members.contains_key("role_arn") {
        wrong.push("external_id: only a role needs one".to_owned());
    }
    wrong
}

fn is_role_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    matches!(parts[..], ["arn", partition, "iam", "", account, role]
        if partition.starts_with("aws")
            && account.len() == 12
            && account.bytes().all(|digit| digit.is_ascii_digit())
            && role.strip_prefix("role/").is_some_and(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_with_a_credential_is_said_by_field_and_without_its_values() {
        let wrong = check(&json!({
            "access_key_id": "short",
            "secret_access_key": "wrong secret with spaces",
            "role_arn": "arn:aws:iam::12:role/x",
            "region": "eu-central-1/../",
            "user": "me",
        }));
        let fields: Vec<&str> = wrong.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(fields, ["access_key_id", "secret_access_key", "role_arn", "region", "user"]);
        assert!(!wrong.concat().contains("wrong secret"));
    }

    #[test]
    fn a_key_with_a_role_reads() {
        let credential = json!({
            "access_key_id": "AKIDEXAMPLE012345",
            "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            "role_arn": "arn:aws-cn:iam::123456789012:role/path/auditor",
            "external_id": "tenant-7",
            "region": "cn-north-1",
        });
        assert_eq!(check(&credential), Vec::<String>::new());
        let read: Credential = serde_json::from_value(credential).unwrap();
        assert_eq!(read.home_region(), "cn-north-1");
        assert!(!format!("{read:?}").contains("wJalr"));
    }
}
