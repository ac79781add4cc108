//! Security groups and protection against spoofing, enforced by nftables on the host's bridges.
//!
//! ```text
//!   frame of a server ─► source-TAP ──► leave-TAP ──► (bridge) ──► enter-TAP ─► frame to a server
//!                        is it its own   may it leave               may it enter
//! ```
//!
//! The first lies before the bridge learns where a hardware address is, so a forged one does not even
//! move traffic. What no rule allows is denied, in both directions, as
//! [`SecurityGroup`](domain::network::security_group::SecurityGroup) says; replies to what was
//! allowed pass, and what IP cannot do without (ARP, neighbour discovery, DHCP as a client, messages
//! of packets that are too big) needs no rule. Servers never answer DHCP or advertise routers. What a server
//! asks that is told its addresses ([`super::dhcp`]) comes to its host alone, and nobody else answers it.
//! Frames that are neither IP nor ARP are dropped. Of several rules that match, the one of the highest
//! priority counts (none is 0), and among equals a deny.
//!
//! All of it is one table of ours, replaced in one transaction: there is no moment without it, and
//! connections live on. The digest of a ruleset is the table's comment, which with the number of its
//! rules tells what is loaded.
//!
//! **Connections** are tracked per bridge (a zone each: networks may use the same addresses). A
//! kernel with `NF_CONNTRACK_BRIDGE` does so on the bridge itself. One without cannot; there packets
//! on the bridge are shown to the IP layer's hooks (`br_netfilter`, switched on for our bridges
//! alone), and what is established is marked there with one bit that our rules read. That costs: the
//! host's own rules for forwarded packets then see them too.

mod apply;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use domain::network::{mac::Mac, security_group::Rule};
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::{Interface, NetworkFault};
pub use apply::{Applied, apply, conntrack, remove};
pub(crate) use rules::{in_order, link_local};

/// The name of our tables.
pub const TABLE: &str = "skyledger";
/// The bit of a packet's mark that says it belongs to a connection, where the bridge cannot tell.
pub const MARK: u32 = 0x4000_0000;

/// What is to be enforced on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// The bridges of servers with the number of their zone, 1…65,535, each another; 0 for a bridge
    /// on which the host has an address: its own packets are tracked without a zone.
    pub bridges: BTreeMap<Interface, u16>,
    /// Interfaces of servers, by their name on the host.
    pub nics: BTreeMap<Interface, Nic>,
    /// Addresses of what rules call by id: servers of a security group, a list.
    pub peers: BTreeMap<String, BTreeSet<IpNet>>,
}

/// A server's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its hardware address.
    pub mac: Mac,
    /// What it may send from: its addresses, and networks that it routes. The link-local address of
    /// its hardware address is always among them.
    pub addresses: BTreeSet<IpNet>,
    /// The rules of all its security groups. None: nothing but spoofing is kept from it.
    pub rules: Option<BTreeSet<Rule>>,
    /// Whether its host tells it its addresses: what it asks comes to its host and to nobody else, and
    /// nobody else answers.
    pub told: bool,
}

/// How connections are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    /// By the bridge.
    Bridge,
    /// By the IP layer, which marks packets.
    Marked,
}

/// A ruleset, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// What `nft -f -` reads.
    pub text: String,
    /// What tells it from others: 16 hexadecimal digits.
    pub digest: String,
    /// How many rules the bridges' table has.
    pub rules: usize,
}

struct Chain {
    name: String,
    /// Where it begins; none for one that is gone to.
    hook: Option<&'static str>,
    rules: Vec<String>,
}

impl Firewall {
    /// What is to be loaded.
    ///
    /// # Errors
    /// When a rule names peers that nobody knows, or two bridges have one zone.
    pub fn ruleset(&self, conntrack: Conntrack) -> Result<Ruleset, NetworkFault> {
        let zones: Vec<u16> = self.bridges.values().filter(|zone| **zone > 0).copied().collect();
        if zones.iter().collect::<BTreeSet<_>>().len() != zones.len() {
            return Err(NetworkFault::Impossible("two bridges have one zone".to_owned()));
        }
        let mut chains = Vec::new();
        if conntrack == Conntrack::Bridge && !zones.is_empty() {
            let zone = format!("ct zone set meta ibrname map {}", self.zones());
            let hook = Some("prerouting priority -310");
            chains.push(Chain { name: "zones".to_owned(), hook, rules: vec![zone] });
        }
        let base = |name: &str, hook, rule: &str| {
            let rules = if self.nics.is_empty() { vec![] } else { vec![rule.to_owned()] };
            Chain { name: name.to_owned(), hook: Some(hook), rules }
        };
        chains.push(base("source", "prerouting priority -300", "iifname vmap @sources"));
        chains.push(base("leave", "prerouting priority 100", "iifname vmap @leaving"));
        chains.push(base("enter", "forward priority 100", "oifname vmap @entering"));
        chains.push(base("enter-from-host", "output priority 100", "oifname vmap @entering"));
        let told: Vec<String> =
            self.nics.iter().filter(|(_, nic)| nic.told).map(|(tap, _)| tap.to_string()).collect();
        if !told.is_empty() {
            let (name, hook) = ("told".to_owned(), Some("forward priority 90"));
            chains.push(Chain { name, hook, rules: rules::told() });
        }
        let sets = self.sets()?;
        for (tap, nic) in &self.nics {
            chains.extend(rules::chains(tap, nic, &sets, conntrack)?);
        }

        let mut body = String::new();
        for (name, kind, elements) in sets.values().flat_map(|set| &set.families) {
            let _ = writeln!(
                body,
                "\tset {name} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\tauto-merge{}\n\t}}",
                listed(elements)
            );
        }
        if !told.is_empty() {
            let listed = listed(&told.iter().map(|tap| format!("\"{tap}\"")).collect::<Vec<_>>());
            let _ = writeln!(body, "\tset asking {{\n\t\ttype ifname{listed}\n\t}}");
        }
        for (map, chain) in [("sources", "source"), ("leaving", "leave"), ("entering", "enter")] {
            let guarded = |nic: &Nic| chain == "source" || nic.rules.is_some();
            let elements: Vec<String> = self
                .nics
                .iter()
                .filter(|(_, nic)| guarded(nic))
                .map(|(tap, _)| format!("\"{tap}\" : goto {chain}-{tap}"))
                .collect();
            let listed = listed(&elements);
            let _ = writeln!(body, "\tmap {map} {{\n\t\ttype ifname : verdict{listed}\n\t}}");
        }
        for chain in &chains {
            body.push_str(&chain.text());
        }
        let inet = match conntrack {
            Conntrack::Bridge => String::new(),
            Conntrack::Marked => self.marking(),
        };
        let rules = chains.iter().map(|chain| chain.rules.len()).sum();
        Ok(Ruleset::new(&body, &inet, rules))
    }

    fn zones(&self) -> String {
        let zones = self.bridges.iter().filter(|(_, zone)| **zone > 0);
        let zones: Vec<_> = zones.map(|(bridge, zone)| format!("\"{bridge}\" : {zone}")).collect();
        format!("{{ {} }}", zones.join(", "))
    }

    /// What the IP layer does for bridges that cannot track connections.
    fn marking(&self) -> String {
        let names: Vec<_> = self.bridges.keys().map(|bridge| format!("\"{bridge}\"")).collect();
        if names.is_empty() {
            return String::new();
        }
        let names = format!("{{ {} }}", names.join(", "));
        let mark = |which: &str| {
            vec![
                format!("{which} {names} meta mark set meta mark & {:#x}", !MARK),
                format!(
                    "{which} {names} ct state established,related \
                     meta mark set meta mark | {MARK:#x}"
                ),
            ]
        };
        let mut chains = Vec::new();
        if self.bridges.values().any(|zone| *zone > 0) {
            chains.push(Chain {
                name: "zones".to_owned(),
                hook: Some("prerouting priority -310"),
                rules: vec![format!("ct zone set iifname map {}", self.zones())],
            });
        }
        for (name, hook, which) in [
            ("known", "prerouting priority -150", "iifname"),
            ("known-from-host", "output priority -150", "oifname"),
        ] {
            chains.push(Chain { name: name.to_owned(), hook: Some(hook), rules: mark(which) });
        }
        chains.iter().map(Chain::text).collect()
    }

    fn sets(&self) -> Result<BTreeMap<&str, rules::Peers>, NetworkFault> {
        let mut sets = BTreeMap::new();
        let named = self.nics.values().filter_map(|nic| nic.rules.as_ref()).flatten();
        let ids: BTreeSet<&str> = named.filter_map(|rule| rules::id(&rule.peer)).collect();
        for (number, id) in ids.into_iter().enumerate() {
            let Some(addresses) = self.peers.get(id) else {
                let why = format!("nobody knows the addresses of `{}`", id.escape_debug());
                return Err(NetworkFault::Impossible(why));
            };
            sets.insert(id, rules::Peers::new(number, addresses));
        }
        Ok(sets)
    }
}

fn listed(elements: &[String]) -> String {
    if elements.is_empty() {
        return String::new();
    }
    format!("\n\t\telements = {{ {} }}", elements.join(", "))
}

impl Chain {
    fn text(&self) -> String {
        let mut text = format!("\tchain {} {{\n", self.name);
        if let Some(hook) = self.hook {
            let _ = writeln!(text, "\t\ttype filter hook {hook}; policy accept;");
        }
        for rule in &self.rules {
            let _ = writeln!(text, "\t\t{rule}");
        }
        text + "\t}\n"
    }
}

impl Ruleset {
    fn new(body: &str, inet: &str, rules: usize) -> Self {
        let mut digest = String::new();
        for byte in &Sha256::digest([body, inet].join("\n"))[..8] {
            let _ = write!(digest, "{byte:02x}");
        }
        let mut text = String::new();
        for (family, body) in [("inet", inet), ("bridge", body)] {
            // Made first, so that it can be deleted whether it was there or not.
            let _ = write!(text, "table {family} {TABLE}\ndelete table {family} {TABLE}\n");
            if !body.is_empty() {
                let comment = format!("\tcomment \"{digest}\"\n");
                let _ = write!(text, "table {family} {TABLE} {{\n{comment}{body}}}\n");
            }
        }
        Self { text, digest, rules }
    }
}
