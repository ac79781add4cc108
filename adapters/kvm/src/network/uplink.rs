//! What joins a bridge of ours to the same segment elsewhere, where that is carried by a VLAN or by Open
//! vSwitch.
//!
//! ```text
//!   taps of servers ── so1234567890ab ── su1234567890ab ── Open vSwitch bridge, access port of a VLAN
//!                      sl1234567890ab ── su1234567890ab ── br0, whose frames have the VLAN's tag
//! ```
//!
//! Servers of one segment are on a Linux bridge of their own on each host, untagged, where the firewall,
//! limits and quotas are as on any other. One interface joins it to what carries the segment between
//! hosts: a port of Open vSwitch that is an interface of the host, or a VLAN of the bridge that has the
//! wire. Names follow from the segment's id; that of our bridge says how it is joined.

use std::collections::{BTreeMap, BTreeSet};

use domain::network::{
    carrier::{self, CARRIERS_MAX},
    segment::Medium,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Interface, NetworkFault, Place, offload};
use crate::tool::ToolFault;

/// Begin the names of bridges of ours, by what joins them.
const OVS: &str = "so";
const VLAN: &str = "sl";
/// Begins the name of what joins one.
const UP: &str = "su";
/// How many digits of a segment's id are in a name.
const DIGITS: usize = 12;
/// How long Open vSwitch may take to do what it is told, in seconds.
pub(super) const OVS_PATIENCE: &str = "--timeout=10";

/// What joins a bridge of ours to its segment elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// The bridge that carries the segment.
    pub on: String,
    /// How.
    pub medium: Medium,
}

/// The bridge that servers of a segment are plugged into, and what joins it; nothing does where it is the
/// segment's own.
pub fn of(segment: Uuid, bridge: &str, medium: Medium) -> (String, Option<Uplink>) {
    let begin = match medium {
        Medium::Bridge => return (bridge.to_owned(), None),
        Medium::Ovs { .. } => OVS,
        Medium::Vlan { .. } => VLAN,
    };
    let name = format!("{begin}{}", digits(segment));
    (name, Some(Uplink { on: bridge.to_owned(), medium }))
}

/// What of a segment's id is in names: its end is chance; its beginning may be a time.
pub(super) fn digits(segment: Uuid) -> String {
    let digits = segment.simple().to_string();
    digits[digits.len() - DIGITS..].to_owned()
}

/// Whether it may be that.
pub(super) fn are_digits(digits: &str) -> bool {
    digits.len() == DIGITS && digits.bytes().all(|one| one.is_ascii_hexdigit())
}

/// How a bridge of this name is joined, and by which interface; none when nothing joins it.
fn parts(bridge: &str) -> Option<(&str, String)> {
    let (begin, digits) = bridge.split_at_checked(2)?;
    let is_joined = [OVS, VLAN].contains(&begin) && are_digits(digits);
    is_joined.then(|| (begin, format!("{UP}{digits}")))
}

/// What must be run to join a bridge, in order. All of it can be run twice.
fn steps(bridge: &str, up: &str, uplink: &Uplink, mtu: u32, is_there: bool) -> Vec<Vec<String>> {
    let on = &uplink.on;
    let mut steps: Vec<Vec<String>> = Vec::new();
    let mut step = |line: String| steps.push(line.split(' ').map(str::to_owned).collect());
    match uplink.medium {
        Medium::Bridge => return steps,
        // An access port, so that no other VLAN's frames pass; VLAN 0 is untagged.
        Medium::Ovs { vlan } => step(format!(
            "ovs-vsctl {OVS_PATIENCE} --may-exist add-port {on} {up} -- \
             set Port {up} tag={} vlan_mode=access -- \
             set Interface {up} type=internal mtu_request={mtu}",
            vlan.unwrap_or_default(),
        )),
        Medium::Vlan { id } if !is_there => {
            step(format!("ip link add link {on} name {up} mtu {mtu} type vlan id {id}"));
        }
        Medium::Vlan { .. } => {}
    }
    // The host itself has nothing to say there.
    step(format!("ip link set dev {up} addrgenmode none master {bridge} up"));
    steps
}

/// What must be run to take what joins a bridge away, in order.
fn undo(begin: &str, up: &str, is_there: bool) -> Vec<Vec<String>> {
    let mut steps: Vec<Vec<String>> = Vec::new();
    let mut step = |line: String| steps.push(line.split(' ').map(str::to_owned).collect());
    if begin == OVS {
        // Its list survives a restart of the host, and the interface goes with it.
        step(format!("ovs-vsctl {OVS_PATIENCE} --if-exists del-port {up}"));
    } else if is_there {
        step(format!("ip link del dev {up}"));
    }
    steps
}

async fn run(place: &Place, steps: Vec<Vec<String>>) -> Result<(), NetworkFault> {
    for words in &steps {
        let Some((program, arguments)) = words.split_first() else { continue };
        place.tool(program, arguments.iter().map(String::as_str)).run().await?;
    }
    Ok(())
}

/// What may carry segments on this host: its bridges but those that were made for servers, and those of Open
/// vSwitch. At most as many as a host may say, the first by name.
///
/// # Errors
/// A tool's.
pub async fn carriers(place: &Place, made: &[String]) -> Result<BTreeSet<String>, NetworkFault> {
    let shown = ["-j", "link", "show", "type", "bridge"];
    let links: Vec<Value> = place.json("ip", &shown).await?;
    let bridges = links.iter().filter_map(|link| link["ifname"].as_str());
    let bridges = bridges.filter(|name| !made.iter().any(|made| made == name));
    let mut found: BTreeSet<String> = bridges.map(carrier::of_bridge).collect();
    match place.tool("ovs-vsctl", [OVS_PATIENCE, "list-br"]).run().await {
        Ok(said) => {
            let said = String::from_utf8_lossy(&said);
            let others = said.lines().filter(|name| !name.is_empty() && !offload::is_ours(name));
            found.extend(others.map(carrier::of_switch));
        }
        // It is not installed.
        Err(ToolFault::Start { .. }) => {}
        // It does not run, and carries nothing as long.
        Err(fault) => tracing::warn!(%fault, "Open vSwitch does not say its bridges"),
    }
    Ok(found.into_iter().take(CARRIERS_MAX).collect())
}

/// The bridges of Open vSwitch that interfaces of the host are ports of; none where that is not installed, or
/// does not run.
///
/// # Errors
/// [`NetworkFault`]: a name that no interface has.
pub async fn switched(place: &Place) -> Result<BTreeMap<String, String>, NetworkFault> {
    let mut found = BTreeMap::new();
    let ask = async |words: [&str; 3]| {
        let words = words.into_iter().filter(|word| !word.is_empty());
        let said = place.tool("ovs-vsctl", words).run().await.unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    };
    for bridge in ask([OVS_PATIENCE, "list-br", ""]).await.lines() {
        let bridge: Interface = bridge.parse()?;
        for interface in ask([OVS_PATIENCE, "list-ifaces", bridge.as_str()]).await.lines() {
            found.insert(interface.to_owned(), bridge.as_str().to_owned());
        }
    }
    Ok(found)
}

async fn link(place: &Place, name: &str) -> Result<Option<Value>, NetworkFault> {
    let links: Vec<Value> = place.json("ip", &["-d", "-j", "link", "show"]).await?;
    Ok(links.into_iter().find(|link| link["ifname"] == name))
}

/// Joins a bridge that is there to its segment elsewhere, and reads back what the kernel and Open vSwitch
/// then have: Open vSwitch says that it has done what it could not do.
///
/// # Errors
/// [`NetworkFault::Impossible`]: nothing carries the segment on this host; or a tool's.
pub async fn join(
    place: &Place,
    bridge: &str,
    uplink: &Uplink,
    mtu: u32,
) -> Result<(), NetworkFault> {
    let Some((_, up)) = parts(bridge) else {
        let why = format!("{bridge} is no name of a bridge that is joined to {}", uplink.on);
        return Err(NetworkFault::Impossible(why));
    };
    // Both go into lists of words.
    let on: Interface = uplink.on.parse()?;
    let carries = match uplink.medium {
        Medium::Ovs { .. } => is_switch(place, on.as_str()).await?,
        _ => link(place, on.as_str())
            .await?
            .is_some_and(|it| it["linkinfo"]["info_kind"] == "bridge"),
    };
    if !carries {
        let what = match uplink.medium {
            Medium::Ovs { .. } => "Open vSwitch bridge",
            _ => "bridge with VLANs",
        };
        let why =
            format!("there is no {what} {on} on the host: make it, with the host's wire in it");
        return Err(NetworkFault::Impossible(why));
    }
    let is_there = link(place, &up).await?.is_some();
    run(place, steps(bridge, &up, uplink, mtu, is_there)).await?;
    let seen = link(place, &up).await?.unwrap_or_default();
    if seen["master"] != bridge {
        return Err(NetworkFault::differs(format!("{up}'s bridge"), bridge, &seen["master"]));
    }
    match uplink.medium {
        Medium::Bridge => Ok(()),
        Medium::Vlan { id } => {
            let is = (&seen["link"], &seen["linkinfo"]["info_data"]["id"]);
            if is.0 == on.as_str() && is.1 == id {
                return Ok(());
            }
            Err(NetworkFault::differs(format!("{up}'s VLAN"), (on.as_str(), id), is))
        }
        Medium::Ovs { vlan } => {
            let tag = vlan.unwrap_or_default();
            let port = switch_has(place, "Port", &up, &["tag", "vlan_mode"]).await?;
            let wanted = vec![Value::from(tag), Value::from("access")];
            if port.as_ref() != Some(&wanted) {
                return Err(NetworkFault::differs(format!("{up}'s VLAN"), wanted, port));
            }
            let (number, interface) = port_of(place, &up).await?;
            if number.is_some_and(|number| number > 0) {
                return Ok(());
            }
            Err(NetworkFault::differs(format!("{up} in Open vSwitch"), "a port", interface))
        }
    }
}

/// Whether Open vSwitch has a bridge of this name.
pub(super) async fn is_switch(place: &Place, name: &str) -> Result<bool, NetworkFault> {
    Ok(switch_has(place, "Bridge", name, &[]).await?.is_some())
}

/// The number that an interface has in Open vSwitch, -1 when it could not be one; and all that it says of it.
pub(super) async fn port_of(
    place: &Place,
    name: &str,
) -> Result<(Option<i64>, Option<Vec<Value>>), NetworkFault> {
    let interface = switch_has(place, "Interface", name, &["ofport", "error"]).await?;
    Ok((interface.as_ref().and_then(|row| row.first()?.as_i64()), interface))
}

/// These columns of what Open vSwitch has by this name; none when it has not.
async fn switch_has(
    place: &Place,
    table: &str,
    name: &str,
    columns: &[&str],
) -> Result<Option<Vec<Value>>, NetworkFault> {
    let columns = format!("--columns={}", [&["name"], columns].concat().join(","));
    let named = format!("name={name}");
    let find = [OVS_PATIENCE, "--format=json", &columns, "find", table, &named];
    let found: Value = place.json("ovs-vsctl", &find).await?;
    let row = found["data"].as_array().and_then(|rows| rows.first()?.as_array());
    Ok(row.map(|row| row.iter().skip(1).cloned().collect()))
}

/// Takes what joins a bridge of ours away, if something does.
///
/// # Errors
/// A tool's.
pub async fn leave(place: &Place, bridge: &str) -> Result<(), NetworkFault> {
    let Some((begin, up)) = parts(bridge) else { return Ok(()) };
    let is_there = link(place, &up).await?.is_some();
    match run(place, undo(begin, &up, is_there)).await {
        // Without it nothing was ever joined to it.
        Err(NetworkFault::Tool(ToolFault::Start { .. })) => Ok(()),
        left => left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Uuid = Uuid::from_u128(0x0199_1234_0000_7000_8000_0a0b_0c0d_0e0f);

    fn lines(steps: Vec<Vec<String>>) -> Vec<String> {
        steps.into_iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn a_bridge_s_name_says_how_it_is_joined_and_by_what() {
        let named = |medium| of(SEGMENT, "br0", medium);
        assert_eq!(named(Medium::Bridge), ("br0".to_owned(), None));
        let (ovs, uplink) = named(Medium::Ovs { vlan: Some(7) });
        assert_eq!(ovs, "so0a0b0c0d0e0f");
        assert_eq!(uplink.unwrap().on, "br0");
        assert_eq!(parts(&ovs), Some((OVS, "su0a0b0c0d0e0f".to_owned())));
        let (vlan, _) = named(Medium::Vlan { id: 7 });
        assert_eq!(parts(&vlan), Some((VLAN, "su0a0b0c0d0e0f".to_owned())));
        for other in ["br0", "so", "sold", "sk0a0b0c0d0e0f", "so0a0b0c0d0e0g", ""] {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_run_follows_from_the_segment() {
        let join = |medium, is_there| {
            let (bridge, uplink) = of(SEGMENT, "br0", medium);
            let (_, up) = parts(&bridge).unwrap();
            lines(steps(&bridge, &up, &uplink.unwrap(), 1_400, is_there))
        };
        let up = "su0a0b0c0d0e0f";
        let master =
            |bridge: &str| format!("ip link set dev {up} addrgenmode none master {bridge} up");
        let port = |tag: u16| {
            format!(
                "ovs-vsctl --timeout=10 --may-exist add-port br0 {up} -- set Port {up} tag={tag} \
                 vlan_mode=access -- set Interface {up} type=internal mtu_request=1400"
            )
        };
        let ovs = |vlan| join(Medium::Ovs { vlan }, true);
        assert_eq!(ovs(Some(7)), [port(7), master("so0a0b0c0d0e0f")]);
        assert_eq!(ovs(None), [port(0), master("so0a0b0c0d0e0f")]);
        let vlan = |is_there| join(Medium::Vlan { id: 7 }, is_there);
        let add = format!("ip link add link br0 name {up} mtu 1400 type vlan id 7");
        assert_eq!(vlan(false), [add, master("sl0a0b0c0d0e0f")]);
        assert_eq!(vlan(true), [master("sl0a0b0c0d0e0f")]);
        assert_eq!(lines(undo(VLAN, up, true)), [format!("ip link del dev {up}")]);
        assert_eq!(lines(undo(VLAN, up, false)), [""; 0]);
        let del = format!("ovs-vsctl --timeout=10 --if-exists del-port {up}");
        assert_eq!(lines(undo(OVS, up, false)), [del]);
    }
}
