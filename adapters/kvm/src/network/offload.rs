//! Virtual functions of cards on segments of Open vSwitch, where the host says what passes in the card's switch.
//!
//! ```text
//!   function 3 of a card ══ representor ── sf1234567890ab ── sp1234567890ab ═ sq1234567890ab ── Open vSwitch
//!   (a server's)            of the host    our switch, with      a pair of patch ports          bridge, access
//!                                          our flows                                            port of a VLAN
//! ```
//!
//! A representor cannot be a port of a Linux bridge as the interfaces are that a host makes: what passes one
//! is never the card's to do. So the functions of a segment have a bridge of Open vSwitch of their own on each
//! host. It is joined to the operator's by two ports that cost nothing, for Open vSwitch makes one path of what goes
//! through several of its bridges, and that is what it has the card do (`hw-offload`). It does nothing but what
//! our [flows](Switch::flows) say, and without them nothing passes: what a function may send, what its
//! security groups let through, and where it goes. The operator's own flows stay as they are.
//!
//! All flows of a bridge are replaced in one transaction, and are known by their cookie, which is a digest of
//! them. Open vSwitch keeps its bridges and ports over a restart, and forgets flows.

mod flows;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use domain::network::segment::Medium;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Interface, NetworkFault, Place, firewall::Nic, uplink, uplink::Uplink};
use crate::tool::ToolFault;

/// Begins the name of a bridge of ours in Open vSwitch.
const SWITCH: &str = "sf";
/// Begins the name of its port that leads to the operator's.
const OUT: &str = "sp";
/// Begins the name of the operator's that leads to it.
const IN: &str = "sq";
/// What asks for bundles: the flows of one are there at once or not at all.
const OPEN_FLOW: &str = "--protocols=OpenFlow14";

/// A switch of ours: what is to be enforced for the functions of one segment on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// The segment.
    pub segment: Uuid,
    /// What carries it.
    pub uplink: Uplink,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// The functions, by the names of their representors.
    pub ports: BTreeMap<Interface, Port>,
}

/// A function's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What is enforced.
    pub nic: Nic,
    /// In which zone its connections are known: each port has another, and no bridge has it.
    pub zone: u16,
}

/// Flows, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flows {
    /// What `ovs-ofctl replace-flows` reads.
    pub text: String,
    /// What tells them from others.
    pub cookie: u64,
    /// How many there are.
    pub count: usize,
}

/// The switch of a segment; none where its medium is not Open vSwitch.
pub fn name(segment: Uuid, medium: Medium) -> Option<String> {
    let digits = uplink::digits(segment);
    matches!(medium, Medium::Ovs { .. }).then(|| format!("{SWITCH}{digits}"))
}

/// Whether a bridge of Open vSwitch is one of ours.
pub fn is_ours(bridge: &str) -> bool {
    bridge.strip_prefix(SWITCH).is_some_and(uplink::are_digits)
}

impl Switch {
    fn named(&self, begin: &str) -> String {
        format!("{begin}{}", uplink::digits(self.segment))
    }

    /// All that is told to its switch.
    ///
    /// # Errors
    /// A rule that no flow can be.
    pub fn flows(&self) -> Result<Flows, NetworkFault> {
        let lines = flows::all(&self.named(OUT), &self.ports)?;
        let digest = Sha256::digest(lines.join("\n"));
        let cookie = digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let mut text = String::new();
        for line in &lines {
            let _ = writeln!(text, "cookie={cookie:#x},{line}");
        }
        Ok(Flows { text, cookie, count: lines.len() })
    }

    /// What must be run to have it, in order. All of it can be run twice.
    fn steps(&self, datapath: &str) -> Vec<Vec<String>> {
        let (switch, out, back) = (self.named(SWITCH), self.named(OUT), self.named(IN));
        let on = &self.uplink.on;
        let tag = match self.uplink.medium {
            Medium::Ovs { vlan } => vlan.unwrap_or_default(),
            Medium::Bridge | Medium::Vlan { .. } => 0,
        };
        let mut lines = vec![
            // Without flows of ours nothing passes.
            format!(
                "ovs-vsctl {} --may-exist add-br {switch} -- \
                 set Bridge {switch} fail_mode=secure datapath_type={datapath} mcast_snooping_enable=false -- \
                 --may-exist add-port {switch} {out} -- \
                 set Interface {out} type=patch options:peer={back} -- \
                 --may-exist add-port {on} {back} -- \
                 set Port {back} tag={tag} vlan_mode=access -- \
                 set Interface {back} type=patch options:peer={out}",
                uplink::OVS_PATIENCE
            ),
        ];
        for port in self.ports.keys() {
            lines.push(format!("ip link set dev {port} mtu {} addrgenmode none up", self.mtu));
            let patience = uplink::OVS_PATIENCE;
            lines.push(format!("ovs-vsctl {patience} --may-exist add-port {switch} {port}"));
        }
        lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }
}

/// What must be run to take a switch of ours away.
fn undo(switch: &str) -> Vec<String> {
    let back = switch.replacen(SWITCH, IN, 1);
    let line = format!(
        "ovs-vsctl {} --if-exists del-br {switch} -- --if-exists del-port {back}",
        uplink::OVS_PATIENCE
    );
    line.split(' ').map(str::to_owned).collect()
}

async fn words(place: &Place, words: &[String]) -> Result<String, NetworkFault> {
    let Some((program, arguments)) = words.split_first() else { return Ok(String::new()) };
    Ok(place.tool(program, arguments.iter().map(String::as_str)).text().await?)
}

async fn tell(place: &Place, line: &str) -> Result<String, NetworkFault> {
    let all: Vec<String> = line.split(' ').map(str::to_owned).collect();
    Ok(words(place, &all).await?.trim().trim_matches('"').to_owned())
}

/// Makes it so, and reads back what Open vSwitch then has. What was there before counts until all of the flows
/// are there; a representor is a port of it only from then on.
///
/// # Errors
/// [`NetworkFault::Impossible`]: nothing carries the segment on this host, or a rule cannot be enforced; or a
/// tool's.
pub async fn apply(place: &Place, switch: &Switch) -> Result<(), NetworkFault> {
    let flows = switch.flows()?;
    // It goes into a list of words.
    let on: Interface = switch.uplink.on.parse()?;
    if !uplink::is_switch(place, on.as_str()).await? {
        let why = format!(
            "there is no Open vSwitch bridge {on} on the host: make it, with the card's wire in it"
        );
        return Err(NetworkFault::Impossible(why));
    }
    // Ports that are joined are of one datapath.
    let patience = uplink::OVS_PATIENCE;
    let datapath =
        tell(place, &format!("ovs-vsctl {patience} get Bridge {on} datapath_type")).await?;
    let datapath = if datapath.is_empty() { "system" } else { &datapath };
    let name = switch.named(SWITCH);
    for step in switch.steps(datapath) {
        words(place, &step).await?;
    }
    let at = place.bridge(&name);
    let load = ["--names", OPEN_FLOW, "--bundle", "replace-flows", &at, "-"];
    place.tool("ovs-ofctl", load).input(flows.text.as_str()).run().await?;
    read_back(place, switch, &name, &flows).await
}

async fn read_back(
    place: &Place,
    switch: &Switch,
    name: &str,
    flows: &Flows,
) -> Result<(), NetworkFault> {
    for port in switch.ports.keys().map(Interface::as_str).chain([switch.named(OUT).as_str()]) {
        let (number, error) = uplink::port_of(place, port).await?;
        if number.is_none_or(|number| number <= 0) {
            return Err(NetworkFault::differs(format!("{port} in Open vSwitch"), "a port", error));
        }
    }
    let back = switch.named(IN);
    let tag =
        tell(place, &format!("ovs-vsctl {} get Port {back} tag", uplink::OVS_PATIENCE)).await?;
    let wanted = match switch.uplink.medium {
        Medium::Ovs { vlan } => vlan.unwrap_or_default().to_string(),
        Medium::Bridge | Medium::Vlan { .. } => "0".to_owned(),
    };
    if tag != wanted {
        return Err(NetworkFault::differs(format!("{back}'s VLAN"), wanted, tag));
    }
    let there = loaded(place, name).await?;
    if there == [(flows.cookie, flows.count)].into() {
        return Ok(());
    }
    let wanted = (format!("{:#x}", flows.cookie), flows.count);
    Err(NetworkFault::differs(format!("flows of {name} (cookie, count)"), wanted, there))
}

/// How many flows of each cookie a switch has.
async fn loaded(place: &Place, name: &str) -> Result<BTreeMap<u64, usize>, NetworkFault> {
    let at = place.bridge(name);
    let dump = ["--no-names", "--no-stats", OPEN_FLOW, "dump-flows", &at];
    let said = place.tool("ovs-ofctl", dump).text().await?;
    Ok(cookies(&said))
}

/// How many flows of each cookie there are in what `dump-flows` says. None is written as none.
fn cookies(said: &str) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for line in said.lines().filter(|line| line.contains("actions=")) {
        let cookie = line.trim().strip_prefix("cookie=0x");
        let digits = cookie.and_then(|rest| rest.split([',', ' ']).next());
        let cookie = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        *found.entry(cookie.unwrap_or_default()).or_default() += 1;
    }
    found
}

/// Whether a switch has what is wanted. One that is not there has not, and neither has one that was restarted.
pub async fn is_applied(place: &Place, switch: &Switch) -> bool {
    let Ok(flows) = switch.flows() else { return false };
    let there = loaded(place, &switch.named(SWITCH)).await;
    there.is_ok_and(|there| there == [(flows.cookie, flows.count)].into())
}

/// A representor is a port of no switch of ours any more.
///
/// # Errors
/// A tool's.
pub async fn unplug(place: &Place, port: &Interface) -> Result<(), NetworkFault> {
    let patience = uplink::OVS_PATIENCE;
    let Ok(on) = tell(place, &format!("ovs-vsctl {patience} port-to-br {port}")).await else {
        // Of none.
        return Ok(());
    };
    if is_ours(&on) {
        tell(place, &format!("ovs-vsctl {patience} --if-exists del-port {on} {port}")).await?;
    }
    Ok(())
}

/// Takes a switch of ours away, with its flows.
///
/// # Errors
/// A tool's.
pub async fn remove(place: &Place, switch: &str) -> Result<(), NetworkFault> {
    match words(place, &undo(switch)).await {
        // Without it there never was one.
        Err(NetworkFault::Tool(ToolFault::Start { .. })) => Ok(()),
        left => left.map(drop),
    }
}

/// The switches of ours that are there.
///
/// # Errors
/// A tool's.
pub async fn there(place: &Place) -> Result<BTreeSet<String>, NetworkFault> {
    match tell(place, &format!("ovs-vsctl {} list-br", uplink::OVS_PATIENCE)).await {
        Ok(said) => Ok(said.lines().filter(|name| is_ours(name)).map(str::to_owned).collect()),
        Err(NetworkFault::Tool(ToolFault::Start { .. })) => Ok(BTreeSet::new()),
        Err(fault) => Err(fault),
    }
}

/// The VLAN by which the switch of a segment is joined to the operator's; none when it is untagged.
///
/// # Errors
/// A tool's.
pub async fn vlan(place: &Place, segment: Uuid) -> Result<Option<u16>, NetworkFault> {
    let back = format!("{IN}{}", uplink::digits(segment));
    let patience = uplink::OVS_PATIENCE;
    let tag = tell(place, &format!("ovs-vsctl {patience} --if-exists get Port {back} tag")).await?;
    Ok(tag.parse().ok().filter(|tag| *tag > 0))
}

/// Whether Open vSwitch has cards do what they can do by themselves. Whoever sets the host up says so, for it
/// counts from Open vSwitch's next start; not where it is not installed, or does not run.
pub async fn is_on(place: &Place) -> bool {
    let patience = uplink::OVS_PATIENCE;
    let ask =
        format!("ovs-vsctl {patience} --if-exists get Open_vSwitch . other_config:hw-offload");
    tell(place, &ask).await.is_ok_and(|said| said == "true")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SEGMENT: Uuid = Uuid::from_u128(0x0199_1234_0000_7000_8000_0a0b_0c0d_0e0f);

    fn switch(vlan: Option<u16>) -> Switch {
        let nic = Nic {
            mac: "52:54:00:00:00:0a".parse().unwrap(),
            addresses: ["10.0.0.10/32".parse().unwrap()].into(),
            rules: None,
            told: false,
        };
        Switch {
            segment: SEGMENT,
            uplink: Uplink { on: "br-ext".to_owned(), medium: Medium::Ovs { vlan } },
            mtu: 1_400,
            ports: [("eth0".parse().unwrap(), Port { nic, zone: 7 })].into(),
        }
    }

    #[test]
    fn a_switch_is_joined_by_two_ports_and_its_functions_are_plugged_in_last() {
        let lines = |vlan| -> Vec<String> {
            switch(vlan).steps("system").iter().map(|words| words.join(" ")).collect()
        };
        let join = |tag: u16| {
            format!(
                "ovs-vsctl --timeout=10 --may-exist add-br sf0a0b0c0d0e0f -- set Bridge sf0a0b0c0d0e0f \
                 fail_mode=secure datapath_type=system mcast_snooping_enable=false -- \
                 --may-exist add-port sf0a0b0c0d0e0f sp0a0b0c0d0e0f -- \
                 set Interface sp0a0b0c0d0e0f type=patch options:peer=sq0a0b0c0d0e0f -- \
                 --may-exist add-port br-ext sq0a0b0c0d0e0f -- \
                 set Port sq0a0b0c0d0e0f tag={tag} vlan_mode=access -- \
                 set Interface sq0a0b0c0d0e0f type=patch options:peer=sp0a0b0c0d0e0f"
            )
        };
        let plug = [
            "ip link set dev eth0 mtu 1400 addrgenmode none up".to_owned(),
            "ovs-vsctl --timeout=10 --may-exist add-port sf0a0b0c0d0e0f eth0".to_owned(),
        ];
        assert_eq!(lines(Some(7)), [vec![join(7)], plug.to_vec()].concat());
        assert_eq!(lines(None)[0], join(0));
        assert_eq!(
            undo("sf0a0b0c0d0e0f").join(" "),
            "ovs-vsctl --timeout=10 --if-exists del-br sf0a0b0c0d0e0f -- \
             --if-exists del-port sq0a0b0c0d0e0f"
        );
    }

    #[test]
    fn names_follow_from_the_segment_and_are_ours_or_not() {
        let ovs = Medium::Ovs { vlan: None };
        assert_eq!(name(SEGMENT, ovs).as_deref(), Some("sf0a0b0c0d0e0f"));
        assert_eq!(name(SEGMENT, Medium::Vlan { id: 7 }), None);
        let ours =
            |names: [&'static str; 4]| names.into_iter().filter(|name| is_ours(name)).collect();
        let found: BTreeSet<&str> = ours(["sf0a0b0c0d0e0f", "so0a0b0c0d0e0f", "sf", "br-ext"]);
        assert_eq!(found, ["sf0a0b0c0d0e0f"].into());
    }

    #[test]
    fn flows_are_counted_by_what_they_are_known_by() {
        let said = "OFPST_FLOW reply (OF1.4) (xid=0x2):\n cookie=0xab, table=0, priority=9,in_port=1 actions=drop\n \
                    cookie=0xab, table=0, in_port=1 actions=resubmit(,20)\n priority=0 actions=NORMAL\n";
        assert_eq!(cookies(said), [(0xab, 2), (0, 1)].into());
        let flows = switch(Some(7)).flows().unwrap();
        assert_eq!(flows.text.lines().count(), flows.count);
        assert!(
            flows
                .text
                .lines()
                .all(|line| line.starts_with(&format!("cookie={:#x},", flows.cookie)))
        );
        assert_eq!(switch(Some(8)).flows().unwrap(), flows, "the VLAN is another port's");
    }
}
