//! How many bytes a server may send and be sent by one of its interfaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Refusal, codes};

/// Fewest and most bytes: the kernel of a host counts no further.
pub const BYTES: std::ops::RangeInclusive<u64> = 1..=i64::MAX as u64;

/// So many bytes may pass until they are counted anew; what is left out is counted and not limited. Bytes
/// are those of IP, without the frame's header. Directions are the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Towards the server, 1…2⁶³−1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_bytes: Option<u64>,
    /// From the server, the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_bytes: Option<u64>,
}

/// So many bytes have passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Towards the server.
    pub ingress_bytes: u64,
    /// From the server.
    pub egress_bytes: u64,
}

impl Traffic {
    /// With what passed besides.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            ingress_bytes: self.ingress_bytes.saturating_add(other.ingress_bytes),
            egress_bytes: self.egress_bytes.saturating_add(other.egress_bytes),
        }
    }
}

impl Quota {
    /// Whether a host can keep it.
    ///
    /// # Errors
    /// `invalid-field`, with the limit's name.
    pub fn check(&self) -> Result<(), Refusal> {
        let all = [("ingress", self.ingress_bytes), ("egress", self.egress_bytes)];
        let odd = |(_, bytes): &(_, Option<u64>)| bytes.is_some_and(|it| !BYTES.contains(&it));
        let Some((direction, _)) = all.into_iter().find(odd) else { return Ok(()) };
        let (least, most) = (BYTES.start(), BYTES.end());
        let detail = format!("quota.{direction}_bytes: is {least} to {most} bytes");
        Err(Refusal::new(&codes::INVALID_FIELD, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_what_a_kernel_counts_to() {
        let of = |bytes| Quota { ingress_bytes: Some(bytes), egress_bytes: None }.check();
        assert!(Quota::default().check().is_ok() && of(1).is_ok() && of(1 << 62).is_ok());
        assert!(of(0).unwrap_err().detail.starts_with("quota.ingress_bytes: "));
        assert!(of(1 << 63).is_err());
    }
}
