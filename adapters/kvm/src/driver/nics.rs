//! Interfaces of servers: plugged in and out, limited and guarded, also while their server runs.
//!
//! An interface has its rules before it is there, and loses them after it is gone. A server's machine knows
//! its interfaces by their hardware addresses. What runs and what is started next time are looked at apart,
//! for an order may have been cut off between them.

use std::{collections::BTreeMap, time::Duration};

use adapters_libvirt::{
    Affects, Connection, Domain, State,
    description::{Description, Nic},
};
use commands::ports::DriverFault;
use domain::{
    compute::server::{Order, carried::Used, nic::SeenNic, parts},
    network::bandwidth::Bandwidth,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Inner, Step, Work,
    disks::described,
    fault::libvirt,
    find,
    plug::limited,
    records::{FunctionPort, Record},
    state, wanted,
};

/// How long a guest may take to let an interface go.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Inner {
    /// Its interfaces are what the order says.
    pub(super) async fn change_nics(
        &self,
        work: &Work<'_>,
        order: &Order,
    ) -> Result<(), DriverFault> {
        let (server, parts) = (work.server, &work.home.parts);
        let wire = self.wire.get().await?;
        let domain = find(&wire, server).await?;
        let domain = domain.ok_or_else(|| DriverFault::NotFound(wanted::name(server)))?;
        let is_active = state(&wire, &domain).await?.is_active();
        let of: &[Affects] =
            if is_active { &[Affects::Live, Affects::Config] } else { &[Affects::Config] };
        let model = parts.hardware.nics;
        let named = |id| {
            let nic = parts.nics.iter().find(|nic| nic.id == id)?;
            Some(wanted::nic(nic, model))
        };
        if let Order::RemoveNic { nic } = order
            && let Some(nic) = named(*nic)
        {
            self.step(Step::NicUnplug, server, unplug(&wire, &domain, of, &nic)).await?;
        }
        let ports = wanted::ports(parts.nics_after(order), work.home);
        let functions = self.function_ports(work.home).await?;
        let plug_in = async {
            self.plugs.plug(&self.records, server, ports.clone()).await?;
            self.plugs.plug_functions(&self.records, server, functions).await
        };
        self.step(Step::Network, server, plug_in).await?;
        self.set_functions(work, is_active).await?;
        if let Order::AddNic { nic } = order
            && let Some(nic) = named(*nic)
        {
            self.step(Step::NicPlug, server, plug(&wire, &domain, of, &nic)).await?;
        }
        self.step(Step::NicLimits, server, self.plugs.limit(&ports)).await
    }

    /// The interfaces of a machine that was just started have their limits.
    pub(super) async fn limit_new(&self, work: &Work<'_>) -> Result<(), DriverFault> {
        let ports = limited(&wanted::ports(work.home.parts.nics.iter(), work.home));
        if ports.is_empty() {
            return Ok(());
        }
        self.step(Step::NicLimits, work.server, self.plugs.limit(&ports)).await
    }

    /// What a server's interfaces that are counted have used, here and before.
    pub(super) async fn used(&self, work: &Work<'_>) -> Result<Used, DriverFault> {
        let record = self.records.read(work.server).await?.unwrap_or_default();
        if record.ports.iter().all(|port| port.quota.is_none()) {
            return Ok(Used::new());
        }
        // A server that has gone is not kept from being had elsewhere by a table that cannot be read.
        let counted = self.plugs.counted().await.unwrap_or_else(|fault| {
            tracing::warn!(%fault, server = %work.server, "what was counted is as it was read last");
            BTreeMap::new()
        });
        let of = |nic: &parts::Nic| {
            let port = record.ports.iter().find(|port| port.tap == wanted::tap(nic.id))?;
            port.quota?;
            let here = counted.get(&port.tap).map_or(port.traffic, |(_, here)| *here);
            Some((nic.id, port.carried.plus(here)))
        };
        Ok(work.home.parts.nics.iter().filter_map(of).collect())
    }

    /// What is there of a server's interfaces: those that its machine has, the limits that the kernel keeps,
    /// and the rules that were loaded for them.
    pub(super) async fn seen_nics(
        &self,
        is: &Description,
        state: State,
        server: Uuid,
        mut record: Record,
    ) -> Result<Vec<SeenNic>, DriverFault> {
        let is_counted = record.ports.iter().any(|port| port.quota.is_some());
        let counted = if is_counted { self.plugs.counted().await? } else { BTreeMap::new() };
        if is_counted {
            // The kernel forgets it when the host restarts.
            for port in &mut record.ports {
                if let Some((_, traffic)) = counted.get(&port.tap) {
                    port.traffic = *traffic;
                }
            }
            self.records.write(server, &record).await?;
        }
        // A function is no interface of the machine that libvirt knows of.
        let function = |port: &FunctionPort| SeenNic {
            mac: port.mac,
            bandwidth: Bandwidth::default(),
            quota: None,
            traffic: None,
            security_groups: port.groups.clone(),
            rules: port.rules.as_ref().map(|rules| rules.len() as u64),
            told: false,
        };
        let mut seen: Vec<SeenNic> = record.functions.iter().map(function).collect();
        for nic in &is.nics {
            let Some(port) = record.ports.iter().find(|port| port.mac.to_string() == nic.mac)
            else {
                continue;
            };
            let bandwidth = if state.is_active() && !port.bandwidth.is_unlimited() {
                self.plugs.limits(&port.tap).await?
            } else {
                Bandwidth::default()
            };
            seen.push(SeenNic {
                mac: port.mac,
                bandwidth,
                quota: counted.get(&port.tap).map(|(quota, _)| *quota),
                traffic: counted.get(&port.tap).map(|(_, here)| port.carried.plus(*here)),
                security_groups: port.groups.clone(),
                rules: port.rules.as_ref().map(|rules| rules.len() as u64),
                told: port.told.is_some() && self.plugs.responder().is_there(),
            });
        }
        Ok(seen)
    }
}

fn has(is: &Description, device: &Nic) -> bool {
    is.nics.iter().any(|known| known.mac == device.mac)
}

/// The machine has it from now on.
async fn plug(
    wire: &Connection,
    domain: &Domain,
    of: &[Affects],
    device: &Nic,
) -> Result<(), DriverFault> {
    for of in of {
        if !has(&described(wire, domain, *of).await?, device) {
            wire.attach(domain, &device.xml(), *of).await.map_err(libvirt)?;
        }
    }
    Ok(())
}

/// The machine has it no more.
async fn unplug(
    wire: &Connection,
    domain: &Domain,
    of: &[Affects],
    device: &Nic,
) -> Result<(), DriverFault> {
    // What is started next time first: a guest may never let it go.
    for of in of.iter().rev() {
        let until = Instant::now() + LEAVE_PATIENCE;
        let mut asked = false;
        while has(&described(wire, domain, *of).await?, device) {
            if !asked {
                match wire.detach(domain, &device.xml(), *of).await {
                    // One that is being let go already is not asked a second time.
                    Err(fault) if fault.code().is_some() => {
                        tracing::debug!(%fault, mac = device.mac, "an interface is asked for in vain");
                    }
                    asked => asked.map_err(libvirt)?,
                }
                asked = true;
            }
            if Instant::now() >= until {
                let why = "the guest does not let the interface go: it may still start, or have no \
                           driver for that";
                return Err(DriverFault::Transient(why.to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}
