//! What becomes of a host's servers when it is to have none, by everything that is in the log now.

use domain::{
    compute::{
        drain::{Leaving, drain},
        host::Host,
        placement::HostId,
        server::Server,
    },
    kernel::{Refusal, codes},
    log::Position,
};
use uuid::Uuid;

use crate::{
    fleet::PlaceFault,
    ledger::{Ledger, LoadFault},
};

/// A host, and what becomes of its servers.
#[derive(Clone, Debug)]
pub struct Draining {
    /// What it is.
    pub host: Host,
    /// Its servers, the largest first.
    pub servers: Vec<Leaving>,
    /// All up to here was counted with.
    pub position: Position,
}

/// Why nothing is said of it.
#[derive(Debug, thiserror::Error)]
pub enum DrainFault {
    /// There is no such host.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log or a state cannot be read.
    #[error(transparent)]
    Load(#[from] LoadFault),
}

impl Ledger {
    /// What becomes of a host's servers when it is to have none.
    ///
    /// # Errors
    /// When there is no such host, or the log cannot be read.
    pub async fn draining(&self, id: Uuid) -> Result<Draining, DrainFault> {
        let (revision, host) = self.typed::<Host>(&id.to_string()).await?;
        if revision == 0 || host.retired {
            return Err(Refusal::new(&codes::NOT_FOUND, format!("there is no host {id}")).into());
        }
        let mut servers = Vec::with_capacity(host.holdings.len());
        for server in host.holdings.keys() {
            let server = server.uuid();
            servers.push((server, self.typed::<Server>(&server.to_string()).await?.1));
        }
        let (fleet, position) = self.fleet_now().await.map_err(|fault| match fault {
            PlaceFault::Refused(refusal) => DrainFault::Refused(refusal),
            PlaceFault::Load(fault) => DrainFault::Load(fault),
        })?;
        // One that came or went between the looks is left out: the next look has it.
        let there = fleet.host(HostId::new(id)).map(|host| host.holdings().clone());
        let there = there.unwrap_or_default();
        servers.retain(|(server, _)| there.keys().any(|held| held.uuid() == *server));
        let servers = drain(&fleet, HostId::new(id), servers)?;
        Ok(Draining { host, servers, position })
    }
}
