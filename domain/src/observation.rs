//! The life of what is only seen in a cloud.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a counterpart is: the account that sees it, the region, and the provider's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// For instance `aws`.
    pub provider: String,
    /// The cloud account, by our id.
    pub account: Uuid,
    /// The provider's id of the region; none for what lies in none.
    pub region: Option<String>,
    /// The provider's id of the thing; empty before there is one.
    pub external_id: String,
}
