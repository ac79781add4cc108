//! Servers and the host's bridges: what a server is plugged into, and what may pass there.
//!
//! The firewall is one table for all servers of a host, made from what is written down of each. It
//! names interfaces before there are any, so nothing of a server passes before its rules are there.
//! A bridge that is not there is made, without an address of its own; one that was made goes with the
//! last server that is plugged into it. A bridge that somebody else made is left as it is. What carries a
//! segment as a VLAN or by Open vSwitch is somebody else's: a bridge of ours is joined to it.

use std::collections::{BTreeMap, BTreeSet};

use commands::ports::DriverFault;
#[cfg(test)]
use domain::network::security_group::Rule;
use domain::network::{
    bandwidth::Bandwidth,
    quota::{Quota, Traffic},
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{
    records::{Port, Record, Records},
    responder::Responder,
};
use crate::network::{
    Interface, NetworkFault, Place,
    firewall::{self, Firewall},
    quota::{self, Before, Both},
    rates::{self, Rates},
    uplink,
};

/// The network of a host's servers.
#[derive(Debug)]
pub(super) struct Plugs {
    pub(super) place: Place,
    responder: Responder,
    /// One change at a time: each looks at all servers.
    pub(super) turn: Mutex<()>,
}

impl Plugs {
    pub(super) fn new(place: Place, responder: Responder) -> Self {
        Self { place, responder, turn: Mutex::new(()) }
    }

    /// What tells servers their addresses.
    pub(super) fn responder(&self) -> &Responder {
        &self.responder
    }

    /// A server may be plugged in from now on.
    pub(super) async fn plug(
        &self,
        records: &Records,
        server: Uuid,
        ports: Vec<Port>,
    ) -> Result<(), DriverFault> {
        let _turn = self.turn.lock().await;
        let before = records.read(server).await?.unwrap_or_default();
        let had = !before.ports.is_empty();
        let is = !ports.is_empty();
        let kept: BTreeSet<&str> = ports.iter().map(|port| port.tap.as_str()).collect();
        let gone = before.ports.iter().filter(|port| !kept.contains(port.tap.as_str()));
        let gone: Vec<&Port> = gone.collect();
        // Before they are forgotten.
        self.sweep(&gone).await?;
        let any_gone = !gone.is_empty();
        let mut ports = ports;
        for port in &mut ports {
            let known = before.ports.iter().find(|known| known.tap == port.tap);
            match known {
                Some(known) if port.goes_on(known) => port.traffic = known.traffic,
                // Once more when this is cut off: what passed meanwhile is nobody's.
                Some(_) => self.count_anew(port).await?,
                None => {}
            }
        }
        // First, so that whatever follows is taken away again when the server is.
        let record = Record { ports, ..before };
        records.write(server, &record).await?;
        for port in &record.ports {
            self.make_bridge(records, port).await?;
        }
        if is || had {
            let all = records.all().await?;
            self.load(&all).await?;
            if any_gone {
                self.remove_bridges(records, &all).await?;
            }
            self.responder.settle(records).await?;
        }
        self.count(&record.ports).await
    }

    /// The bytes of interfaces that have a quota are counted, and what is beyond it does not pass.
    async fn count(&self, ports: &[Port]) -> Result<(), DriverFault> {
        for port in ports {
            let Some(quota) = port.quota else { continue };
            let limits = Both { ingress: quota.ingress_bytes, egress: quota.egress_bytes };
            let both = |traffic: Traffic| Both {
                ingress: traffic.ingress_bytes,
                egress: traffic.egress_bytes,
            };
            let before = Before { here: both(port.traffic), elsewhere: both(port.carried) };
            quota::set(&self.place, &port.tap.parse()?, limits, before).await?;
        }
        Ok(())
    }

    async fn count_anew(&self, port: &Port) -> Result<(), DriverFault> {
        let tap: Interface = port.tap.parse()?;
        if quota::read(&self.place).await?.contains_key(&tap) {
            quota::reset(&self.place, &tap).await?;
        }
        Ok(())
    }

    /// What the interfaces that are counted may use and have used here, by the host's names of them.
    pub(super) async fn counted(&self) -> Result<BTreeMap<String, (Quota, Traffic)>, DriverFault> {
        let all = quota::read(&self.place).await?.into_iter().map(|(tap, both)| {
            let quota = Quota {
                ingress_bytes: both.ingress.limit_bytes,
                egress_bytes: both.egress.limit_bytes,
            };
            let traffic = Traffic {
                ingress_bytes: both.ingress.used_bytes,
                egress_bytes: both.egress.used_bytes,
            };
            (tap.to_string(), (quota, traffic))
        });
        Ok(all.collect())
    }

    /// Interfaces that run have their limits. What an interface that does not run was led through is taken
    /// away: a new one takes its place.
    pub(super) async fn limit(&self, ports: &[Port]) -> Result<(), DriverFault> {
        if ports.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let links = self.links().await?;
        for port in ports {
            let tap: Interface = port.tap.parse()?;
            if links.contains_key(&port.tap) {
                rates::set(&self.place, &tap, rates_of(port.bandwidth)).await?;
            } else {
                self.delete_links(&links, &[rates::through(&tap)]).await?;
            }
        }
        Ok(())
    }

    /// What an interface that runs is limited to.
    pub(super) async fn limits(&self, tap: &str) -> Result<Bandwidth, DriverFault> {
        let rates = rates::read(&self.place, &tap.parse()?).await?;
        let (ingress_kbit_s, egress_kbit_s) = (rates.ingress_kbit_s, rates.egress_kbit_s);
        Ok(Bandwidth { ingress_kbit_s, egress_kbit_s })
    }

    /// Nothing is left of these interfaces. A tap goes with its machine; what it was led through stays, and
    /// so does a tap when libvirt died with the machine.
    async fn sweep(&self, ports: &[&Port]) -> Result<(), DriverFault> {
        if ports.is_empty() {
            return Ok(());
        }
        let links = self.links().await?;
        for port in ports {
            let tap: Interface = port.tap.parse()?;
            self.delete_links(&links, &[tap.to_string(), rates::through(&tap)]).await?;
            if port.quota.is_some() {
                quota::remove(&self.place, &tap).await?;
            }
        }
        Ok(())
    }

    async fn delete_links(
        &self,
        links: &BTreeMap<String, Value>,
        names: &[String],
    ) -> Result<(), DriverFault> {
        for name in names.iter().filter(|name| links.contains_key(*name)) {
            self.ip(&["link", "del", "dev", name]).await?;
        }
        Ok(())
    }

    /// A server is not plugged in any more: nothing of it is left, and nothing is written down of it.
    pub(super) async fn unplug(&self, records: &Records, server: Uuid) -> Result<(), DriverFault> {
        let _turn = self.turn.lock().await;
        let Some(record) = records.read(server).await? else { return Ok(()) };
        let mut left = records.all().await?;
        left.remove(&server);
        self.unplug_functions(&record.functions, &left).await?;
        if record.ports.is_empty() {
            return Ok(records.remove(server).await?);
        }
        self.sweep(&record.ports.iter().collect::<Vec<_>>()).await?;
        // Last: without it nobody would know what was to be taken away.
        self.load(&left).await?;
        self.remove_bridges(records, &left).await?;
        records.remove(server).await?;
        self.responder.settle(records).await
    }

    /// A server is not ours any more, and stays plugged in: nothing of what was set for it is left, and nothing
    /// is written down of it.
    pub(super) async fn let_go(&self, records: &Records, server: Uuid) -> Result<(), DriverFault> {
        let _turn = self.turn.lock().await;
        let Some(record) = records.read(server).await? else { return Ok(()) };
        if !record.ports.is_empty() {
            let links = self.links().await?;
            for port in &record.ports {
                let tap: Interface = port.tap.parse()?;
                if links.contains_key(&port.tap) && !port.bandwidth.is_unlimited() {
                    rates::set(&self.place, &tap, Rates::default()).await?;
                }
                self.delete_links(&links, &[rates::through(&tap)]).await?;
                if port.quota.is_some() {
                    quota::remove(&self.place, &tap).await?;
                }
            }
            let mut left = records.all().await?;
            left.remove(&server);
            self.load(&left).await?;
            self.remove_bridges(records, &left).await?;
        }
        Ok(records.remove(server).await?)
    }

    /// What is written down, enforced again: the kernel forgets it when the host restarts.
    pub(super) async fn guard(&self, kept: &Records) -> Result<(), DriverFault> {
        let records = kept.all().await?;
        // A host without servers need not have the tools either.
        if records.values().any(|record| !record.functions.is_empty()) {
            let _turn = self.turn.lock().await;
            self.load_switches(&records, None).await?;
        }
        if records.values().all(|record| record.ports.is_empty()) {
            return Ok(());
        }
        let turn = self.turn.lock().await;
        self.load(&records).await?;
        drop(turn);
        for record in records.values() {
            self.count(&record.ports).await?;
            self.limit(&limited(&record.ports)).await?;
        }
        self.responder.settle(kept).await
    }

    async fn load(&self, records: &BTreeMap<Uuid, Record>) -> Result<(), DriverFault> {
        let mut firewall = wanted(records)?;
        if !firewall.bridges.is_empty() {
            // What the host itself says there is tracked without a zone.
            let addresses: Vec<Value> = self.place.json("ip", &["-j", "addr", "show"]).await?;
            for link in addresses.iter().filter(|link| has_address(link)) {
                let name = link["ifname"].as_str().and_then(|name| name.parse().ok());
                if let Some(zone) = name.and_then(|name: Interface| firewall.bridges.get_mut(&name))
                {
                    *zone = 0;
                }
            }
        }
        if firewall.nics.is_empty() {
            return Ok(firewall::remove(&self.place).await?);
        }
        firewall::apply(&self.place, &firewall).await?;
        Ok(())
    }

    async fn make_bridge(&self, records: &Records, port: &Port) -> Result<(), DriverFault> {
        let name: Interface = port.bridge.parse()?;
        let name = name.as_str();
        let mut links = self.links().await?;
        if !links.contains_key(name) {
            records.claim_bridge(name).await?;
            let mtu = port.mtu.to_string();
            let add = ["link", "add", "name", name, "mtu", &mtu, "type", "bridge"];
            self.ip(&add).await?;
            links = self.links().await?;
        }
        let kind = links.get(name).map(|link| &link["linkinfo"]["info_kind"]);
        if kind.is_none_or(|kind| kind != "bridge") {
            let why = format!("{name} is there on the host, and is no bridge");
            return Err(DriverFault::Rejected(why));
        }
        if records.bridges().await?.iter().any(|made| made == name) {
            // The host itself has nothing to say there, and may be said nothing.
            self.ip(&["link", "set", "dev", name, "addrgenmode", "none", "up"]).await?;
        }
        if let Some(joined) = &port.uplink {
            uplink::join(&self.place, name, joined, port.mtu).await?;
        }
        Ok(())
    }

    async fn remove_bridges(
        &self,
        records: &Records,
        left: &BTreeMap<Uuid, Record>,
    ) -> Result<(), DriverFault> {
        let ports = left.values().flat_map(|record| &record.ports);
        let used: BTreeSet<&str> = ports.map(|port| port.bridge.as_str()).collect();
        let made = records.bridges().await?;
        let unused: Vec<_> = made.iter().filter(|name| !used.contains(name.as_str())).collect();
        if unused.is_empty() {
            return Ok(());
        }
        for name in &unused {
            uplink::leave(&self.place, name).await?;
        }
        let links = self.links().await?;
        for name in unused {
            let mut others = links.values().filter(|link| link["master"] == name.as_str());
            if others.next().is_some() {
                // Somebody else uses it by now: it is theirs.
            } else if links.contains_key(name) {
                self.ip(&["link", "del", "dev", name]).await?;
            }
            records.forget_bridge(name).await?;
        }
        Ok(())
    }

    async fn ip(&self, arguments: &[&str]) -> Result<(), DriverFault> {
        let done = self.place.tool("ip", arguments.iter().copied()).run().await;
        done.map(drop).map_err(|fault| NetworkFault::from(fault).into())
    }

    /// The host's interfaces, by name.
    pub(super) async fn links(&self) -> Result<BTreeMap<String, Value>, DriverFault> {
        let links: Vec<Value> = self.place.json("ip", &["-d", "-j", "link", "show"]).await?;
        let named = links.into_iter().filter_map(|link| {
            let name = link["ifname"].as_str()?.to_owned();
            Some((name, link))
        });
        Ok(named.collect())
    }

    /// The interfaces that have rules now.
    pub(super) async fn guarded(&self) -> Result<BTreeSet<String>, DriverFault> {
        let tables: Value = self.place.json("nft", &["-j", "list", "tables"]).await?;
        let is_ours = |item: &Value| {
            item["table"]["name"] == firewall::TABLE && item["table"]["family"] == "bridge"
        };
        if !tables["nftables"].as_array().is_some_and(|all| all.iter().any(is_ours)) {
            return Ok(BTreeSet::new());
        }
        let list = ["-j", "list", "map", "bridge", firewall::TABLE, "sources"];
        let map: Value = self.place.json("nft", &list).await?;
        let items = map["nftables"].as_array().into_iter().flatten();
        let elements = items.filter_map(|item| item["map"]["elem"].as_array()).flatten();
        Ok(elements.filter_map(|one| Some(one[0].as_str()?.to_owned())).collect())
    }
}

/// What is to be enforced for these servers.
pub(super) fn wanted(records: &BTreeMap<Uuid, Record>) -> Result<Firewall, NetworkFault> {
    let mut firewall = Firewall::default();
    for port in records.values().flat_map(|record| &record.ports) {
        let nic = firewall::Nic {
            mac: port.mac,
            // Of its subnet a server may use its own address.
            addresses: port.addresses.iter().map(|net| net.addr().into()).collect(),
            rules: port.rules.clone(),
            told: port.told.is_some(),
        };
        firewall.nics.insert(port.tap.parse()?, nic);
        if port.rules.is_some() {
            firewall.bridges.insert(port.bridge.parse()?, 0);
        }
    }
    let mut taken = BTreeSet::new();
    for (name, zone) in &mut firewall.bridges {
        *zone = next_zone(name.as_str(), &mut taken);
    }
    Ok(firewall)
}

/// The number of a zone: the same for a name whatever others there are, but where two begin at one number, for
/// connections are known by it.
pub(super) fn next_zone(name: &str, taken: &mut BTreeSet<u16>) -> u16 {
    let mut number = first_zone(name);
    while !taken.insert(number) {
        number = number % u16::MAX + 1;
    }
    number
}

fn first_zone(bridge: &str) -> u16 {
    let digest = Sha256::digest(bridge);
    u16::from_be_bytes([digest[0], digest[1]]).max(1)
}

fn has_address(link: &Value) -> bool {
    link["addr_info"].as_array().is_some_and(|all| !all.is_empty())
}

/// Those that have a limit.
pub(super) fn limited(ports: &[Port]) -> Vec<Port> {
    ports.iter().filter(|port| !port.bandwidth.is_unlimited()).cloned().collect()
}

fn rates_of(bandwidth: Bandwidth) -> Rates {
    let Bandwidth { ingress_kbit_s, egress_kbit_s } = bandwidth;
    Rates { ingress_kbit_s, egress_kbit_s }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u8, bridge: &str, rules: Option<BTreeSet<Rule>>) -> Port {
        Port {
            tap: format!("sk{number:012}"),
            bridge: bridge.to_owned(),
            uplink: None,
            mtu: 1_500,
            mac: format!("52:54:00:00:00:{number:02x}").parse().unwrap(),
            addresses: vec!["10.0.0.4/24".parse().unwrap()],
            bandwidth: Bandwidth::default(),
            quota: None,
            resets: 0,
            moves: None,
            carried: Traffic::default(),
            traffic: Traffic::default(),
            groups: BTreeSet::new(),
            rules,
            told: None,
        }
    }

    #[test]
    fn bridges_of_interfaces_that_are_guarded_have_a_zone_each_that_stays() {
        let guarded = Some(BTreeSet::new());
        let zones = |ports: &[Port]| {
            let record = Record { ports: ports.to_vec(), ..Record::default() };
            wanted(&[(Uuid::nil(), record)].into()).unwrap().bridges
        };
        let (one, other) = (port(1, "br-a", guarded.clone()), port(2, "br-b", guarded));
        let both = zones(&[one.clone(), other, port(3, "br-c", None)]);
        assert_eq!(both.len(), 2, "nobody is guarded on the third");
        assert_eq!(both.values().collect::<BTreeSet<_>>().len(), 2);
        let alone = zones(&[one]);
        let name: Interface = "br-a".parse().unwrap();
        assert_eq!(alone[&name], both[&name]);
        assert!(alone[&name] > 0);
    }
}
