//! How fast a server may send and be sent to by one of its interfaces.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Refusal, codes};

/// Smallest and largest rate in kbit/s: below 8 one packet takes longer than a second, and no host
/// forwards more than 400 Gbit/s.
pub const KBIT_S: std::ops::RangeInclusive<u64> = 8..=400_000_000;

/// Limits in kbit/s (1,000 bits a second). What is left out is not limited. Directions are the
/// server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// Towards the server, 8…400,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_kbit_s: Option<u64>,
    /// From the server, the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_kbit_s: Option<u64>,
}

impl Bandwidth {
    /// Whether nothing is limited.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a host can keep it.
    ///
    /// # Errors
    /// `invalid-field`, with the limit's name.
    pub fn check(&self) -> Result<(), Refusal> {
        let all = [("ingress", self.ingress_kbit_s), ("egress", self.egress_kbit_s)];
        let odd = |(_, rate): &(_, Option<u64>)| rate.is_some_and(|rate| !KBIT_S.contains(&rate));
        let Some((direction, _)) = all.into_iter().find(odd) else { return Ok(()) };
        let (least, most) = (KBIT_S.start(), KBIT_S.end());
        let detail = format!("bandwidth.{direction}_kbit_s: is {least} to {most} kbit/s");
        Err(Refusal::new(&codes::INVALID_FIELD, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_a_host_can_keep() {
        let of = |rate| Bandwidth { ingress_kbit_s: None, egress_kbit_s: Some(rate) }.check();
        assert!(Bandwidth::default().check().is_ok());
        assert!(of(8).is_ok() && of(400_000_000).is_ok());
        assert!(of(7).unwrap_err().detail.starts_with("bandwidth.egress_kbit_s: "));
        assert!(of(400_000_001).is_err());
    }
}
