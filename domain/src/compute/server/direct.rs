//! Interfaces that are virtual functions of a network card: on the wire without the host in between.
//!
//! Such an interface has its addresses from its network as any other, and its system is told them by its seed.
//! What its host does for others it cannot do here, for it never sees a frame: no quota, no answer to DHCP, no
//! limit of what comes in. That is refused, and never silently left out. The card does the rest: it tags frames
//! with the segment's VLAN, lets none pass from another hardware address, and limits what is sent, by a rate that
//! may be changed while the server runs. The function comes with the server's place and goes with it, so it is
//! asked for at the launch.
//!
//! On a segment of Open vSwitch a card may have its host say what passes in its switch. There the host has the
//! function's other end, a representor, and with it security groups can be enforced: one that names some goes
//! only to such a card.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    home::Home,
    parts::{Nic, Parts},
};
use crate::{
    compute::placement::{DeviceAsk, VirtualFunction},
    kernel::{Refusal, codes},
    network::segment::Medium,
};

/// What placement calls a virtual function of a network card.
const KIND: &str = "vf";
/// Cards limit by whole Mbit/s.
const KBIT_OF_MBIT: u64 = 1_000;

/// What an interface is on its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VnicType {
    /// A virtual function of a card that is on the segment's wire: without the host in between.
    Direct,
    /// Made by its host, and on its bridge.
    #[default]
    Normal,
}

impl VnicType {
    /// Whether its host makes it.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    pub(super) fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

impl Nic {
    /// Whether it is a virtual function of a card.
    pub fn is_direct(&self) -> bool {
        self.vnic_type == VnicType::Direct
    }

    /// Whether nothing is asked of it that only a host in between could do.
    pub(super) fn check_direct(&self) -> Result<(), Refusal> {
        if !self.is_direct() {
            return Ok(());
        }
        let no = |what: &str| {
            let detail = format!(
                "{what}: its host does not see what a virtual function sends and gets (vnic_type direct)"
            );
            Err(Refusal::new(&codes::NOT_ENFORCEABLE, detail))
        };
        if self.must_be_represented() && !matches!(self.medium, Medium::Ovs { .. }) {
            return no("security_groups");
        }
        if self.quota.is_some() {
            return no("quota");
        }
        if self.bandwidth.ingress_kbit_s.is_some() {
            return no("bandwidth.ingress_kbit_s");
        }
        let odd = |rate: &u64| *rate == 0 || !rate.is_multiple_of(KBIT_OF_MBIT);
        if self.bandwidth.egress_kbit_s.as_ref().is_some_and(odd) {
            let detail =
                "bandwidth.egress_kbit_s: a card limits by whole Mbit/s (vnic_type direct)";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        Ok(())
    }

    /// Whether its host has to have the function's other end: nobody else could do what is asked of it.
    fn must_be_represented(&self) -> bool {
        !self.security_groups.is_empty()
    }

    /// Whether it can be added, removed or addressed otherwise while its server is there.
    pub(super) fn ensure_normal(&self, verb: &str) -> Result<(), Refusal> {
        if !self.is_direct() {
            return Ok(());
        }
        let detail = format!(
            "{verb}: a virtual function (vnic_type direct) comes and goes with its server's place; launch a \
             server with what it is to have"
        );
        Err(Refusal::new(&codes::UNSUPPORTED, detail))
    }

    /// The function that it is to be; none when its host makes it.
    pub fn function(&self) -> Option<DeviceAsk> {
        if !self.is_direct() {
            return None;
        }
        let vlan = match self.medium {
            Medium::Bridge => None,
            Medium::Ovs { vlan } => vlan,
            Medium::Vlan { id } => Some(id),
        };
        let egress_mbit_s = self.bandwidth.egress_kbit_s.map(|rate| rate / KBIT_OF_MBIT);
        let egress_mbit_s = egress_mbit_s.map(|rate| u32::try_from(rate).unwrap_or(u32::MAX));
        let function = VirtualFunction { mac: Some(self.mac), vlan, egress_mbit_s };
        Some(DeviceAsk {
            kind: KIND.to_owned(),
            model: None,
            carrier: Some(self.bridge.clone()),
            represented: self.must_be_represented(),
            count: 1,
            function: Some(function),
        })
    }
}

impl Home {
    /// Whether the groups of an interface can be enforced where it was placed: a function that nobody was to guard
    /// may be on a card that does not let anybody.
    pub(super) fn ensure_represented(&self, nic: &Nic) -> Result<(), Refusal> {
        let is_of = |ask: &&DeviceAsk| ask.function.is_some_and(|one| one.mac == Some(nic.mac));
        let is_represented =
            || self.spec.devices.iter().find(is_of).is_some_and(|ask| ask.represented);
        if !nic.is_direct() || !nic.must_be_represented() || is_represented() {
            return Ok(());
        }
        let detail = "security_groups: this virtual function (vnic_type direct) was launched without, where it may \
                      be that nobody can guard it; launch a server that names some";
        Err(Refusal::new(&codes::NOT_ENFORCEABLE, detail))
    }

    /// What an interface's function is set to on its card follows what the interface is to be.
    pub(super) fn follow_nic(&mut self, id: Uuid) {
        let nic = self.parts.nics.iter().find(|nic| nic.id == id);
        let Some(wanted) = nic.and_then(Nic::function).and_then(|ask| ask.function) else { return };
        let asked = self.spec.devices.iter_mut().filter_map(|ask| ask.function.as_mut());
        let held = self.placement.holding.functions.values_mut();
        for function in asked.chain(held).filter(|function| function.mac == wanted.mac) {
            *function = wanted;
        }
    }
}

impl Parts {
    /// The virtual functions that its interfaces are to be.
    pub fn functions(&self) -> Vec<DeviceAsk> {
        self.nics.iter().filter_map(Nic::function).collect()
    }

    /// The interfaces that its host makes.
    pub fn normal_nics(&self) -> impl Iterator<Item = &Nic> {
        self.nics.iter().filter(|nic| !nic.is_direct())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn nic(changes: Value) -> Nic {
        let mut nic = json!({
            "id": Uuid::from_u128(1), "network": Uuid::from_u128(2), "segment": Uuid::from_u128(3),
            "bridge": "br0", "medium": "bridge", "mtu": 1_500, "mac": "52:54:00:00:00:07",
            "addresses": ["10.0.0.4/24"], "vnic_type": "direct",
        });
        for (field, value) in changes.as_object().unwrap() {
            nic[field] = value.clone();
        }
        serde_json::from_value(nic).unwrap()
    }

    #[test]
    fn what_a_host_without_a_view_of_it_cannot_do_is_refused() {
        let code = |changes: Value| {
            let refused = nic(changes).check_direct();
            refused.map_or_else(|no| (no.code.code, no.detail), |()| ("", String::new()))
        };
        for (field, value) in [
            ("security_groups", json!([Uuid::from_u128(9)])),
            ("quota", json!({"ingress_bytes": 1_000})),
            ("bandwidth", json!({"ingress_kbit_s": 1_000})),
        ] {
            let (code, detail) = code(json!({field: value}));
            assert_eq!(code, "not-enforceable", "{field}");
            assert!(detail.starts_with(field), "{detail}");
        }
        assert_eq!(code(json!({"bandwidth": {"egress_kbit_s": 1_500}})).0, "invalid-field");
        assert_eq!(code(json!({"bandwidth": {"egress_kbit_s": 2_000}})).0, "");
        // Where the host has its other end, groups can be enforced.
        let groups = json!([Uuid::from_u128(9)]);
        let switched = |more: &str, value: Value| {
            code(json!({"medium": {"ovs": {"vlan": 7}}, "security_groups": groups, more: value})).0
        };
        assert_eq!(switched("mtu", json!(1_400)), "");
        assert_eq!(switched("quota", json!({"ingress_bytes": 1_000})), "not-enforceable");
        // One that its host makes may have all of it.
        let normal = json!({"vnic_type": "normal", "security_groups": [Uuid::from_u128(9)]});
        assert_eq!(code(normal).0, "");
        assert_eq!(
            nic(json!({})).ensure_normal("remove-nic").unwrap_err().code.code,
            "unsupported"
        );
    }

    #[test]
    fn it_is_a_function_on_the_segment_s_wire_with_its_address_and_vlan() {
        let of = |medium: Value| nic(json!({"medium": medium})).function().unwrap();
        let bridge = of(json!("bridge"));
        assert_eq!((bridge.kind.as_str(), bridge.carrier.as_deref()), ("vf", Some("br0")));
        let function = bridge.function.unwrap();
        assert_eq!(
            (function.mac.unwrap().to_string().as_str(), function.vlan),
            ("52:54:00:00:00:07", None)
        );
        assert_eq!(of(json!({"vlan": {"id": 7}})).function.unwrap().vlan, Some(7));
        assert_eq!(of(json!({"ovs": {"vlan": 9}})).function.unwrap().vlan, Some(9));
        assert!(!of(json!({"ovs": {"vlan": 9}})).represented);
        let guarded = json!({"medium": {"ovs": {}}, "security_groups": [Uuid::from_u128(9)]});
        assert!(nic(guarded).function().unwrap().represented);
        let limited = nic(json!({"bandwidth": {"egress_kbit_s": 20_000}})).function().unwrap();
        assert_eq!(limited.function.unwrap().egress_mbit_s, Some(20));
        assert_eq!(nic(json!({"vnic_type": "normal"})).function(), None);
    }
}
