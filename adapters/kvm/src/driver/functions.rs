//! Interfaces that are virtual functions with another end on the host: plugged into a switch of Open vSwitch that
//! is their segment's on this host, and guarded there. What is written down of each is what is enforced.

use std::collections::{BTreeMap, BTreeSet};

use commands::ports::DriverFault;
use domain::compute::server::{home::Home, parts::Nic};
use uuid::Uuid;

use super::{
    Inner,
    plug::{self, Plugs},
    records::{FunctionPort, Record, Records},
};
use crate::network::{
    NetworkFault, firewall,
    offload::{self, Switch},
    uplink,
};

/// The function that an interface is on its host.
pub(super) fn device<'a>(nic: &Nic, home: &'a Home) -> Option<&'a String> {
    let mut functions = home.placement.holding.functions.iter();
    functions.find(|(_, function)| function.mac == Some(nic.mac)).map(|(id, _)| id)
}

/// The other ends of a server's functions, as the host is to have them; none of those whose card says alone what
/// passes.
fn ports(
    home: &Home,
    representors: &BTreeMap<String, String>,
) -> Result<Vec<FunctionPort>, DriverFault> {
    let mut ports = Vec::new();
    for nic in home.parts.nics.iter().filter(|nic| nic.is_direct()) {
        let device = device(nic, home);
        let Some(representor) = device.and_then(|id| representors.get(id)) else {
            if nic.security_groups.is_empty() {
                continue;
            }
            let why = format!(
                "the security groups of interface {} cannot be enforced: its function has no representor; is its \
                 card in switchdev mode?",
                nic.id
            );
            return Err(DriverFault::Rejected(why));
        };
        let (_, uplink) = uplink::of(nic.segment, &nic.bridge, nic.medium);
        let uplink = uplink.filter(|on| offload::name(nic.segment, on.medium).is_some());
        let Some(uplink) = uplink else {
            let why = format!(
                "{representor} is the other end of interface {}, whose segment is not Open vSwitch's: a card in \
                 switchdev mode is for segments of Open vSwitch",
                nic.id
            );
            return Err(DriverFault::Rejected(why));
        };
        ports.push(FunctionPort {
            representor: representor.clone(),
            segment: nic.segment,
            uplink,
            mtu: nic.mtu,
            mac: nic.mac,
            addresses: nic.addresses.clone(),
            rules: nic.rules(&home.parts.groups),
            groups: nic.security_groups.clone(),
        });
    }
    Ok(ports)
}

impl Inner {
    /// The other ends of a server's functions, as the host is to have them.
    pub(super) async fn function_ports(
        &self,
        home: &Home,
    ) -> Result<Vec<FunctionPort>, DriverFault> {
        if home.parts.nics.iter().all(|nic| !nic.is_direct()) {
            return Ok(Vec::new());
        }
        ports(home, &self.look().await?.representors)
    }
}

impl Plugs {
    /// The other ends of a server's virtual functions are plugged in, and guarded.
    pub(super) async fn plug_functions(
        &self,
        records: &Records,
        server: Uuid,
        functions: Vec<FunctionPort>,
    ) -> Result<(), DriverFault> {
        let _turn = self.turn.lock().await;
        let before = records.read(server).await?.unwrap_or_default();
        if before.functions.is_empty() && functions.is_empty() {
            return Ok(());
        }
        let gone: Vec<FunctionPort> =
            before.functions.iter().filter(|one| !functions.contains(one)).cloned().collect();
        // First, so that whatever follows is taken away again when the server is. What it had is taken away
        // before it is forgotten.
        let both = functions.iter().chain(&gone).cloned().collect();
        records.write(server, &Record { functions: both, ..before.clone() }).await?;
        let kept: BTreeSet<&str> = functions.iter().map(|one| one.representor.as_str()).collect();
        for one in gone.iter().filter(|one| !kept.contains(one.representor.as_str())) {
            offload::unplug(&self.place, &one.representor.parse()?).await?;
        }
        let record = Record { functions, ..before };
        records.write(server, &record).await?;
        let touched = record.functions.iter().chain(&gone).map(|one| one.segment).collect();
        self.load_switches(&records.all().await?, Some(&touched)).await
    }

    /// Switches for virtual functions have what is written down: all, or those of some segments. One without
    /// functions is gone.
    pub(super) async fn load_switches(
        &self,
        records: &BTreeMap<Uuid, Record>,
        of: Option<&BTreeSet<Uuid>>,
    ) -> Result<(), DriverFault> {
        let wanted = wanted_switches(records)?;
        for switch in wanted.values() {
            if of.is_none_or(|of| of.contains(&switch.segment)) {
                offload::apply(&self.place, switch).await?;
            }
        }
        let is_left = |name: &String| wanted.contains_key(name);
        for name in offload::there(&self.place).await?.iter().filter(|name| !is_left(name)) {
            offload::remove(&self.place, name).await?;
        }
        Ok(())
    }

    /// Open vSwitch forgets what a switch lets pass when it is started again; then nothing passes until this.
    pub(super) async fn keep_switches(&self, kept: &Records) -> Result<(), DriverFault> {
        let records = kept.all().await?;
        if records.values().all(|record| record.functions.is_empty()) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        for switch in wanted_switches(&kept.all().await?)?.values() {
            if !offload::is_applied(&self.place, switch).await {
                tracing::warn!(segment = %switch.segment, "a switch has lost its flows: it gets them again");
                offload::apply(&self.place, switch).await?;
            }
        }
        Ok(())
    }

    /// The other ends of these functions are nobody's any more.
    pub(super) async fn unplug_functions(
        &self,
        functions: &[FunctionPort],
        left: &BTreeMap<Uuid, Record>,
    ) -> Result<(), DriverFault> {
        if functions.is_empty() {
            return Ok(());
        }
        for one in functions {
            offload::unplug(&self.place, &one.representor.parse()?).await?;
        }
        let of = functions.iter().map(|one| one.segment).collect();
        self.load_switches(left, Some(&of)).await
    }
}

/// The switches of virtual functions that are to be there, by name. Their zones are other ones than those of
/// bridges: the kernel knows all by their numbers.
fn wanted_switches(
    records: &BTreeMap<Uuid, Record>,
) -> Result<BTreeMap<String, Switch>, NetworkFault> {
    let bridges = plug::wanted(records)?.bridges;
    let mut taken: BTreeSet<u16> = bridges.into_values().collect();
    let mut switches = BTreeMap::new();
    for one in records.values().flat_map(|record| &record.functions) {
        let Some(name) = offload::name(one.segment, one.uplink.medium) else { continue };
        let switch = switches.entry(name).or_insert_with(|| Switch {
            segment: one.segment,
            uplink: one.uplink.clone(),
            mtu: one.mtu,
            ports: BTreeMap::new(),
        });
        let nic = firewall::Nic {
            mac: one.mac,
            addresses: one.addresses.iter().map(|net| net.addr().into()).collect(),
            rules: one.rules.clone(),
            told: false,
        };
        let zone = plug::next_zone(&one.representor, &mut taken);
        switch.ports.insert(one.representor.parse()?, offload::Port { nic, zone });
    }
    Ok(switches)
}
