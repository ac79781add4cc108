//! The life of configuration with exactly one counterpart in one cloud.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One field where wanted and seen differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldDrift {
    /// Path of the field, for instance `rules.ingress tcp 22 10.0.0.0/8`.
    pub field: String,
    /// What the last command wanted; `null` when it wanted nothing there.
    pub wanted: Value,
    /// What was seen; `null` when nothing was there.
    pub seen: Value,
}
