//! Loads a ruleset, and reads back what the kernel then has.

use serde::Deserialize;
use serde_json::Value;

use super::{Conntrack, Firewall, Ruleset, TABLE};
use crate::{
    network::{Interface, NetworkFault, Place},
    tool::ToolFault,
};

/// What is enforced now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// See [`Ruleset::digest`].
    pub digest: String,
    /// How connections are known.
    pub conntrack: Conntrack,
}

/// What `nft -j list` answers.
#[derive(Deserialize)]
struct Listed {
    nftables: Vec<Value>,
}

/// Whether the bridge of this kernel tracks connections: a rule that needs it is checked and not
/// loaded.
///
/// # Errors
/// When nft cannot be run.
pub async fn conntrack(place: &Place) -> Result<Conntrack, NetworkFault> {
    let rules = "ct zone set meta ibrname map { \"br\" : 1 }; ct state established;";
    let table = format!("table bridge {TABLE}-try {{ chain try {{ {rules} }}; }}\n");
    match place.tool("nft", ["-c", "-f", "-"]).input(table).run().await {
        Ok(_) => Ok(Conntrack::Bridge),
        Err(ToolFault::Failed { .. }) => Ok(Conntrack::Marked),
        Err(fault) => Err(fault.into()),
    }
}

/// Makes it so. There is no moment in between: until the kernel has all of it, what was there counts.
///
/// # Errors
/// When it is not so afterwards. What nft refuses leaves what was enforced before.
pub async fn apply(place: &Place, firewall: &Firewall) -> Result<Applied, NetworkFault> {
    let conntrack = conntrack(place).await?;
    let ruleset = firewall.ruleset(conntrack)?;
    if conntrack == Conntrack::Marked && !firewall.bridges.is_empty() {
        for bridge in firewall.bridges.keys() {
            show_to_ip(place, bridge).await?;
        }
        // Packets with a VLAN tag are tracked as others are.
        let setting = "net.bridge.bridge-nf-filter-vlan-tagged=1";
        place.tool("sysctl", ["-q", "-w", setting]).run().await?;
    }
    place.tool("nft", ["-f", "-"]).input(ruleset.text.as_str()).run().await?;
    read_back(place, &ruleset).await?;
    tracing::debug!(digest = ruleset.digest, rules = ruleset.rules, "firewall loaded");
    Ok(Applied { digest: ruleset.digest, conntrack })
}

/// Takes all of it away.
///
/// # Errors
/// When it is still there.
pub async fn remove(place: &Place) -> Result<(), NetworkFault> {
    let text = ["inet", "bridge"]
        .map(|family| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n"))
        .concat();
    place.tool("nft", ["-f", "-"]).input(text).run().await?;
    let listed: Listed = place.json("nft", &["-j", "list", "tables"]).await?;
    match listed.nftables.iter().find(|item| item["table"]["name"] == TABLE) {
        None => Ok(()),
        Some(table) => Err(NetworkFault::differs("firewall", "gone", table.to_string())),
    }
}

async fn show_to_ip(place: &Place, bridge: &Interface) -> Result<(), NetworkFault> {
    let name = bridge.as_str();
    let set = ["link", "set", "dev", name, "type", "bridge"];
    let on = ["nf_call_iptables", "1", "nf_call_ip6tables", "1"];
    place.tool("ip", set.into_iter().chain(on)).run().await?;
    let links: Value = place.json("ip", &["-d", "-j", "link", "show", "dev", name]).await?;
    let data = &links[0]["linkinfo"]["info_data"];
    if data["nf_call_iptables"] != 1 || data["nf_call_ip6tables"] != 1 {
        let what = format!("{name}: packets shown to the IP layer (br_netfilter)");
        return Err(NetworkFault::differs(what, "on", data.to_string()));
    }
    Ok(())
}

async fn read_back(place: &Place, ruleset: &Ruleset) -> Result<(), NetworkFault> {
    let listed: Listed = place.json("nft", &["-j", "list", "table", "bridge", TABLE]).await?;
    let rules = listed.nftables.iter().filter(|item| item.get("rule").is_some()).count();
    // Not every nft writes the comment of a table as JSON; as text all do.
    let text = place.tool("nft", ["-t", "list", "table", "bridge", TABLE]).text().await?;
    let comment = text.lines().find_map(|line| line.trim().strip_prefix("comment "));
    let digest = comment.map(|comment| comment.trim_matches('"'));
    if (rules, digest) != (ruleset.rules, Some(ruleset.digest.as_str())) {
        let wanted = (ruleset.rules, &ruleset.digest);
        return Err(NetworkFault::differs("firewall (rules, digest)", wanted, (rules, digest)));
    }
    Ok(())
}
