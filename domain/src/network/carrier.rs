//! What carries segments on a host: a Linux bridge for VLANs, or a bridge of Open vSwitch. It is somebody
//! else's, with the host's wire in it, and a host says which it has.
//!
//! ```text
//! carrier/bridge/br0     the bridge br0, for VLANs of it
//! carrier/ovs/switch     the bridge switch of Open vSwitch
//! carrier/any            of a host that has not said which it has: it is taken at its servers' word
//! ```

use super::segment::Medium;

/// Most of them that one host says it has.
pub const CARRIERS_MAX: usize = 256;
/// Begins what a placement compares.
const PREFIX: &str = "carrier/";
/// Of a host that has not said which it has.
pub const ANY: &str = "carrier/any";

/// What a host says of a bridge of its own, by the name that a segment may give.
pub fn of_bridge(name: &str) -> String {
    format!("bridge/{name}")
}

/// And of a bridge of Open vSwitch.
pub fn of_switch(name: &str) -> String {
    format!("ovs/{name}")
}

/// What carries a segment; none for one that is a bridge by itself, which is made where it is not there.
pub fn of(medium: Medium, bridge: &str) -> Option<String> {
    match medium {
        Medium::Bridge => None,
        Medium::Ovs { .. } => Some(of_switch(bridge)),
        Medium::Vlan { .. } => Some(of_bridge(bridge)),
    }
}

/// What a placement compares of it.
pub fn label(carrier: &str) -> String {
    format!("{PREFIX}{carrier}")
}

/// The carrier that a label is of, as people say it; none when it is of something else.
pub fn named(label: &str) -> Option<String> {
    let (kind, name) = label.strip_prefix(PREFIX)?.split_once('/')?;
    let kind = if kind == "ovs" { "Open vSwitch bridge" } else { "bridge" };
    Some(format!("{kind} {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_and_switches_are_carried_and_bridges_carry_themselves() {
        let vlan = of(Medium::Vlan { id: 7 }, "br0").unwrap();
        let switch = of(Medium::Ovs { vlan: None }, "br0").unwrap();
        assert_ne!(vlan, switch);
        assert_eq!(of(Medium::Bridge, "br0"), None);
        assert_eq!(named(&label(&vlan)).unwrap(), "bridge br0");
        assert_eq!(named(&label(&switch)).unwrap(), "Open vSwitch bridge br0");
        assert_eq!(named(ANY), None);
        assert_eq!(named("storage/br0"), None);
    }
}
