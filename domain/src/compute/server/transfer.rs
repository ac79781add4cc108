//! How long a server may take to its other host, and how fast it may be sent there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Refusal, codes};

/// How long memory alone may take where nobody says so, in seconds.
const SECONDS: u32 = 3_600;
/// How long it may take with disks that are copied, in seconds.
const SECONDS_WITH_DISKS: u32 = 86_400;
/// Longest time that can be asked for, in seconds: a week.
const SECONDS_MAX: u32 = 604_800;
/// Shortest time that can be asked for, in seconds.
const SECONDS_MIN: u32 = 10;
/// Fastest that can be asked for, in MiB/s.
const MIB_PER_SECOND_MAX: u32 = 1_048_576;

/// How a server may be sent to another host. What is not through in time is broken off, and the server
/// stays where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferLimits {
    /// How long it may take, 10…604,800 seconds; an hour when it is left out, and a day where disks are
    /// copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// How fast it may be sent, 1…1,048,576 MiB/s; as fast as it goes when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mib_per_second: Option<u32>,
}

impl TransferLimits {
    /// Whether nothing is said.
    pub fn is_unsaid(&self) -> bool {
        *self == Self::default()
    }

    /// How long it may take, in seconds.
    pub fn seconds(&self, copies_disks: bool) -> u32 {
        self.seconds.unwrap_or(if copies_disks { SECONDS_WITH_DISKS } else { SECONDS })
    }

    /// # Errors
    /// `invalid-field`, with what it may be.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if let Some(seconds) = self.seconds
            && !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds)
        {
            return no(format!("limits: seconds are between {SECONDS_MIN} and {SECONDS_MAX}"));
        }
        if let Some(rate) = self.mib_per_second
            && !(1..=MIB_PER_SECOND_MAX).contains(&rate)
        {
            return no(format!("limits: mib_per_second is between 1 and {MIB_PER_SECOND_MAX}"));
        }
        Ok(())
    }
}
