//! The machines of an account that can be moved to hosts of ours, each with what is in the way.

use domain::{
    compute::move_in::machine::{Looked, look},
    kernel::{Refusal, codes},
    log::Position,
    network::net::Network,
};
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    ports::DriverFault,
};

/// How long the inventory is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Machines that others run.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What the account is called.
    pub account: String,
    /// Its machines, by name.
    pub machines: Vec<Looked>,
    /// All up to here was counted with.
    pub position: Position,
}

/// Why nothing is said of them.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// There is no such account, or none with such machines.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log or a state cannot be read.
    #[error(transparent)]
    Load(#[from] LoadFault),
    /// The account's place does not say.
    #[error("the machines cannot be looked at")]
    Driver(#[from] DriverFault),
}

impl Ledger {
    /// The machines of an account, as its place says now, and what is in the way of moving each here.
    ///
    /// # Errors
    /// When there is no such account, it cannot be used now or has no such machines, or does not say.
    pub async fn sources(&self, account: Uuid) -> Result<Sources, SourceFault> {
        let position = self.ports.log.head().await.map_err(LoadFault::from)?.position;
        let networks = self.own_networks().await?;
        let (provider, access, name) = self.source(account).await?;
        let machines = provider.machines().ok_or_else(|| no_machines(provider.name()))?;
        let found = machines.list(&access).await?;
        let mut machines: Vec<_> = found.into_iter().map(|one| look(one, &networks)).collect();
        machines.sort_by(|one, next| {
            (&one.machine.name, &one.machine.id).cmp(&(&next.machine.name, &next.machine.id))
        });
        Ok(Sources { account: name, machines, position })
    }

    /// Who has the machines of an account, and how they are asked.
    pub(crate) async fn source(
        &self,
        id: Uuid,
    ) -> Result<
        (std::sync::Arc<dyn crate::ports::Provider>, crate::ports::Access, String),
        SourceFault,
    > {
        let account = self.account(id).await?.ok_or_else(|| {
            Refusal::new(&codes::NOT_FOUND, format!("there is no cloud account {id}"))
        })?;
        if !account.is_ready() {
            let detail = format!("the account {} is not ready", account.name);
            return Err(Refusal::new(&codes::ACCOUNT_NOT_READY, detail).into());
        }
        let (provider, access) = self.access(id, &account, None)?;
        Ok((provider, access, account.name))
    }

    /// The networks of our own that are in use.
    pub(crate) async fn own_networks(&self) -> Result<Vec<(Uuid, Network)>, LoadFault> {
        // One that is late shows what it has: an interface in a network that is new is in none then.
        let head = self.ports.log.head().await?.position;
        let _ = self.ports.views.reach_position(head, PATIENCE).await;
        let networks = self.states::<Network>(None).await;
        let (networks, _) =
            networks.map_err(|fault| LoadFault::Missing(format!("the networks: {fault}")))?;
        let is_own = |network: &Network| network.own.as_ref().is_some_and(|own| !own.retired);
        Ok(networks.into_iter().filter(|(_, network)| is_own(network)).collect())
    }
}

/// What is said of an account without such machines.
pub(crate) fn no_machines(provider: &str) -> Refusal {
    let detail = format!("machines of {provider} cannot be moved to hosts of ours");
    Refusal::new(&codes::UNSUPPORTED, detail)
}
