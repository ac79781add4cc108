//! How much a server may read from a disk and write to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Refusal, codes};

/// Bytes a second: below 4 KiB one page takes longer than a second; more than 1 TB/s nothing does.
const BYTES: std::ops::RangeInclusive<u64> = 4_096..=1_000_000_000_000;
/// Operations a second.
const OPERATIONS: std::ops::RangeInclusive<u64> = 1..=1_000_000_000;
/// Longest burst, in seconds.
const BURST_SECONDS_MAX: u32 = 3_600;

/// A limit of one sort of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiskRate")]
pub struct Rate {
    /// So much a second.
    pub rate: u64,
    /// So much a second for a while, at least the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// For how long, 1…3,600 seconds; one second when there is a burst and nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_seconds: Option<u32>,
}

/// A disk's limits. What is left out is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DiskLimits")]
pub struct Limits {
    /// Bytes that are read, 4,096…10¹² a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<Rate>,
    /// Bytes that are written, the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bytes: Option<Rate>,
    /// Operations that read, 1…10⁹ a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_operations: Option<Rate>,
    /// Operations that write, the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_operations: Option<Rate>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Each limit by its name, with what it may be.
    fn all(&self) -> [(&'static str, Option<Rate>, std::ops::RangeInclusive<u64>); 4] {
        [
            ("read_bytes", self.read_bytes, BYTES),
            ("write_bytes", self.write_bytes, BYTES),
            ("read_operations", self.read_operations, OPERATIONS),
            ("write_operations", self.write_operations, OPERATIONS),
        ]
    }

    /// Whether a host can keep them.
    ///
    /// # Errors
    /// `invalid-field`, with the limit's name.
    pub fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        for (name, rate, range) in self.all() {
            let Some(Rate { rate, burst, burst_seconds }) = rate else { continue };
            let (least, most) = (range.start(), range.end());
            if !range.contains(&rate) {
                return no(format!("{name}.rate: is {least} to {most} a second"));
            }
            if let Some(burst) = burst
                && !(rate..=*most).contains(&burst)
            {
                return no(format!("{name}.burst: is {rate}, its rate, to {most}"));
            }
            match burst_seconds {
                Some(_) if burst.is_none() => {
                    return no(format!("{name}.burst_seconds: there is no burst"));
                }
                Some(seconds) if !(1..=BURST_SECONDS_MAX).contains(&seconds) => {
                    return no(format!("{name}.burst_seconds: is 1 to {BURST_SECONDS_MAX}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
