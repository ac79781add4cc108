//! What a command would do, and what that was decided on.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::{kernel::canonical_bytes, mapping::FieldDrift};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ports::{Call, Vault};

/// A stream the decision looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Saw {
    /// Kind of the stream.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Where it was: a revision, or for what was only asked a question, a digest of the answer.
    pub mark: String,
}

/// A stream that a decision looked at, and where it stood then: its append holds only while it
/// still stands there.
#[derive(Clone, Debug)]
pub(crate) struct Looked {
    pub(crate) saw: Saw,
    pub(crate) revision: u64,
}

impl Looked {
    pub(crate) fn is_of(&self, saw: &Saw) -> bool {
        self.saw.kind == saw.kind && self.saw.id == saw.id
    }

    /// Keeps it beside the others. Of two looks at one stream the first counts: what was decided
    /// on it does not become right by a second.
    pub(crate) fn note(self, looked: &mut Vec<Self>) {
        if !looked.iter().any(|one| one.is_of(&self.saw)) {
            looked.push(self);
        }
    }
}

/// A stream that has moved since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Kind of the stream.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// What the plan saw.
    pub saw: String,
    /// What is there.
    pub found: String,
}

/// A fact a command makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    /// The event's tag.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The event's content.
    pub data: Value,
}

/// What a command would do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Plan {
    /// Submit the same command with it, and it is done only if nothing that was seen has moved.
    pub plan_id: String,
    /// The kind.
    pub kind: String,
    /// The resource; for one that is to be created, the id it will have.
    pub id: String,
    /// Its revision now.
    pub revision: u64,
    /// The facts that would be written.
    pub events: Vec<Fact>,
    /// Its status now and then.
    pub status: [String; 2],
    /// The state, field by field: `seen` is now, `wanted` is then.
    pub diff: Vec<FieldDrift>,
    /// The calls that would be made.
    pub calls: Vec<Call>,
    /// Every stream that would be written.
    pub touches: Vec<String>,
    /// What the decision looked at.
    pub saw: Vec<Saw>,
}

/// What a plan's id says. It needs no storage: it carries what it is bound to, and a keyed digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) id: String,
    pub(crate) command: String,
    pub(crate) saw: Vec<Saw>,
}

impl Bound {
    pub(crate) fn encode(&self, vault: &dyn Vault) -> String {
        let json = canonical_bytes(self);
        let mut seal = vault.digest(&json);
        seal.truncate(32);
        format!("{}.{seal}", BASE64_URL_SAFE_NO_PAD.encode(json))
    }

    pub(crate) fn decode(text: &str, vault: &dyn Vault) -> Option<Self> {
        let (json, seal) = text.split_once('.')?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(json).ok()?;
        let expected = vault.digest(&json);
        (seal.len() == 32 && expected.starts_with(seal))
            .then(|| serde_json::from_slice(&json).ok())
            .flatten()
    }
}
