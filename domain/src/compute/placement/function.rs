//! What a virtual function of a network card is set to on its card before a server gets it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::host::ServerId;
use crate::{
    kernel::{Refusal, codes, sha256},
    network::mac::Mac,
};

/// What placement calls a virtual function.
pub(super) const KIND: &str = "vf";
/// The VLANs there are: 0 and 4,095 are none (IEEE 802.1Q).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4_094;
/// Most that a function may be let send: a terabit, ten times what cards do.
const EGRESS_MBIT_S_MAX: u32 = 1_000_000;

/// What a virtual function of a network card is set to. Its server cannot change it, and sends nothing from
/// another hardware address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualFunction {
    /// Its hardware address; one that follows from the server's id when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The VLAN that the card tags its frames with, 1…4,094; untagged when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// How fast it may send, in Mbit/s, 1…1,000,000; as fast as the card when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_mbit_s: Option<u32>,
}

impl VirtualFunction {
    /// Whether so many devices of this kind can be set to it.
    pub(super) fn check(&self, kind: &str, count: u32) -> Result<(), Refusal> {
        let no = |detail: String| {
            Err(Refusal::new(&codes::INVALID_FIELD, format!("devices: function: {detail}")))
        };
        if kind != KIND {
            return no(format!("a device of kind {kind} is no virtual function (kind {KIND})"));
        }
        if self.mac.is_some() && count > 1 {
            return no(format!("one hardware address is not {count} functions'"));
        }
        if self.vlan.is_some_and(|vlan| !VLANS.contains(&vlan)) {
            return no("vlan: is 1 to 4094".to_owned());
        }
        if self.egress_mbit_s.is_some_and(|rate| !(1..=EGRESS_MBIT_S_MAX).contains(&rate)) {
            return no(format!("egress_mbit_s: is 1 to {EGRESS_MBIT_S_MAX}"));
        }
        Ok(())
    }

    /// The same, with a hardware address: that of a server's function of this number, where none is named.
    #[must_use]
    pub(super) fn of(self, server: ServerId, number: usize) -> Self {
        let own = || {
            let mut bytes = [0; 16];
            let text = format!("{server}/function/{number}");
            bytes.copy_from_slice(&sha256(text.as_bytes())[..16]);
            Mac::of(Uuid::from_bytes(bytes))
        };
        Self { mac: Some(self.mac.unwrap_or_else(own)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_card_can_be_set_to_is_refused_with_the_field() {
        let none = VirtualFunction::default();
        let mac = Some(Mac::ours(1));
        let refused = |function: VirtualFunction, kind, count, part: &str| {
            let detail = function.check(kind, count).unwrap_err().detail;
            assert!(detail.contains(part), "{detail}");
        };
        assert_eq!(none.check(KIND, 8), Ok(()));
        refused(none, "gpu", 1, "kind gpu");
        refused(VirtualFunction { mac, ..none }, KIND, 2, "2 functions");
        for vlan in [0, 4_095] {
            refused(VirtualFunction { vlan: Some(vlan), ..none }, KIND, 1, "vlan");
        }
        for rate in [0, EGRESS_MBIT_S_MAX + 1] {
            refused(
                VirtualFunction { egress_mbit_s: Some(rate), ..none },
                KIND,
                1,
                "egress_mbit_s",
            );
        }
        let whole = VirtualFunction { mac, vlan: Some(4_094), egress_mbit_s: Some(1) };
        assert_eq!(whole.check(KIND, 1), Ok(()));
    }

    #[test]
    fn a_server_s_functions_have_addresses_of_their_own_that_stay() {
        let server = ServerId::new(Uuid::from_u128(1));
        let of = |number| VirtualFunction::default().of(server, number).mac;
        assert_eq!(of(0), of(0));
        assert_ne!(of(0), of(1));
        let named = VirtualFunction { mac: Some(Mac::ours(1)), ..VirtualFunction::default() };
        assert_eq!(named.of(server, 0), named);
    }
}
