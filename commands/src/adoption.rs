//! The machines of a host that are no servers of ours, each with what is in the way of having it as one.

use std::{collections::BTreeSet, time::Duration};

use domain::{
    compute::{
        adoption::{Adopt, Looked, Reach, work_out},
        host::Host,
        placement::{HostId, ServerId},
        server::Server,
    },
    kernel::{Refusal, codes},
    log::Position,
    network::{net::Network, segment::Segment},
};
use uuid::Uuid;

use crate::{
    drain::DrainFault,
    ledger::{Ledger, LoadFault},
};

/// How long the inventory is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host, and its machines that are no servers of ours.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// What it is.
    pub host: Host,
    /// Its machines, by name.
    pub machines: Vec<Looked>,
    /// All up to here was counted with.
    pub position: Position,
}

impl Ledger {
    /// The machines of a host that are no servers of ours, as its agent said last.
    ///
    /// # Errors
    /// When there is no such host, or the log cannot be read.
    pub async fn foreign(&self, id: Uuid) -> Result<Foreign, DrainFault> {
        let (host, position) = self.host_now(id).await?;
        let seen = host.seen.iter().flat_map(|seen| seen.machines.keys());
        let there: Vec<Uuid> = seen
            .copied()
            .filter(|machine| !host.holdings.contains_key(&ServerId::new(*machine)))
            .collect();
        let networks = self.networks_on(&host).await?;
        let now = self.ports.clock.now();
        let mut machines = Vec::with_capacity(there.len());
        for machine in there {
            let issued = self.issued(machine).await?;
            let ask = Adopt {
                machine,
                name: None,
                project: None,
                nics: Vec::new(),
                leave_nics: false,
                digest: None,
                found: None,
            };
            machines.push(work_out(&ask, (HostId::new(id), &host), issued, &networks, now)?);
        }
        machines.sort_by(|one, next| one.adoption.machine.name.cmp(&next.adoption.machine.name));
        Ok(Foreign { host, machines, position })
    }

    /// A host as it is now, and up to where the log was counted with.
    ///
    /// # Errors
    /// When there is no such host, or the log cannot be read.
    pub async fn host_now(&self, id: Uuid) -> Result<(Host, Position), DrainFault> {
        let position = self.ports.log.head().await.map_err(LoadFault::from)?.position;
        let (revision, host) = self.typed::<Host>(&id.to_string()).await?;
        if revision == 0 || host.retired {
            return Err(Refusal::new(&codes::NOT_FOUND, format!("there is no host {id}")).into());
        }
        Ok((host, position))
    }

    /// How many orders a server of this id has had: none when there never was one.
    pub(crate) async fn issued(&self, server: Uuid) -> Result<u64, LoadFault> {
        Ok(self.typed::<Server>(&server.to_string()).await?.1.orders.issued)
    }

    /// The networks of ours that machines of a host may be in: those whose segment has a bridge of theirs.
    pub(crate) async fn networks_on(&self, host: &Host) -> Result<Vec<Reach>, LoadFault> {
        let machines = host.seen.iter().flat_map(|seen| seen.machines.values());
        let nics = machines.flat_map(|machine| &machine.nics);
        let bridges: BTreeSet<&String> = nics.filter_map(|nic| nic.bridge.as_ref()).collect();
        if bridges.is_empty() {
            return Ok(Vec::new());
        }
        let missing = |what: &str, fault: &dyn std::fmt::Display| {
            LoadFault::Missing(format!("the {what}: {fault}"))
        };
        // One that is late shows what it has: an interface on a segment that is new is in no network then.
        let head = self.ports.log.head().await?.position;
        let _ = self.ports.views.reach_position(head, PATIENCE).await;
        let segments = self.states::<Segment>(None).await;
        let (segments, _) = segments.map_err(|fault| missing("segments", &fault))?;
        let mut found = Vec::new();
        for (_, segment) in segments.into_iter().filter(|(_, one)| bridges.contains(&one.bridge)) {
            for id in segment.networks.keys() {
                let network = self.typed::<Network>(&id.to_string()).await?.1;
                found.push(Reach { id: *id, network, segment: segment.clone() });
            }
        }
        found.sort_by_key(|reach| reach.id);
        Ok(found)
    }
}
