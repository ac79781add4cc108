//! Hosts of our own: who carries out the orders of the servers that have their place there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
    sync::Arc,
};

use async_trait::async_trait;
use domain::{
    compute::{
        host::HostSighting,
        server::{Power, Server, console::ConsoleKind},
        storage::lease::Lease,
    },
    kernel::OrderKey,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{DriverFault, Pipe, Report, StoreAccess};

/// One order of a server, with everything that its host must know of it.
#[derive(Clone, Serialize, Deserialize)]
pub struct HostTask {
    /// Names this order for ever. What was done under it once is found again, not done again.
    pub key: OrderKey,
    /// The order, adjacently tagged.
    pub order: Value,
    /// The server that it concerns, as its stream says now; the empty state where it concerns none.
    pub state: Server,
    /// What the order is of, as its stream says now, where that is no server.
    #[serde(default)]
    pub subject: Value,
    /// What it does at its first boot, in clear; none when nobody wants anything, or for orders that have
    /// no use for it.
    #[serde(default)]
    pub userdata: Option<String>,
    /// The password that the order is to set, in clear; none for an order that sets none.
    #[serde(default)]
    pub password: Option<String>,
    /// The backup stores that it needs, by id, with who may use them in clear.
    #[serde(default)]
    pub stores: BTreeMap<Uuid, StoreAccess>,
    /// The host's leases of volumes that others reach as well, by disk.
    #[serde(default)]
    pub leases: BTreeMap<Uuid, Lease>,
}

impl HostTask {
    /// Whether it ends what its server's host is at, and so is begun beside that.
    pub fn overtakes(&self) -> bool {
        self.order["type"] == "break-off"
    }

    /// Whether another order may take its place while it is carried out.
    pub fn is_overtaken(order: &Value) -> bool {
        order["type"] == "send" || order["type"] == "copy"
    }
}

// Neither userdata, which may hold passwords, nor a password, nor a key of a store, nor an address that
// lets whoever has it fetch an image.
impl fmt::Debug for HostTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostTask")
            .field("key", &self.key)
            .field("order", &self.order["type"])
            .finish_non_exhaustive()
    }
}

/// A host, as its agent works for it.
#[async_trait]
pub trait HostDriver: Send + Sync + 'static {
    /// The epoch in which the agent joined. What it reports counts while no other has joined.
    fn epoch(&self) -> u64;
    /// Carries one order out; may be called again for the same order after any crash, and then goes
    /// on where it was.
    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault>;
    /// Opens a console of a server that runs. The id names this call alone. `lent` is an address that
    /// the server's network lends to reach its guest by.
    async fn console(
        &self,
        _call: Uuid,
        _server: Uuid,
        _console: ConsoleKind,
        _lent: Option<Ipv4Addr>,
    ) -> Result<Pipe, DriverFault> {
        Err(DriverFault::Rejected("this host has no consoles".to_owned()))
    }
}

/// What a server of a host does, and what it did not know of yet when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerPower {
    /// The number of the last order of it that was begun there.
    pub number: u64,
    /// Whether it runs.
    pub power: Power,
}

/// What the servers of a host do, by id.
pub type ServerPowers = BTreeMap<Uuid, ServerPower>;

/// The machine that an agent runs on, as the agent reaches it.
#[async_trait]
pub trait LocalHost: Send + Sync + 'static {
    /// What works for it, for instance `skyledger 0.1.0 kvm`; at most 128 bytes.
    fn agent(&self) -> String;
    /// What it is now.
    async fn sight(&self) -> Result<HostSighting, DriverFault>;
    /// What its servers do now.
    async fn servers(&self) -> Result<ServerPowers, DriverFault> {
        Ok(ServerPowers::new())
    }
    /// Comes back when a server may have changed by itself.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
    /// Keeps its servers off these logical CPUs. It is told whenever the agent has asked for orders, whether
    /// they are others than before or not.
    async fn reserve_cpus(&self, _cpus: &BTreeSet<u32>) -> Result<(), DriverFault> {
        Ok(())
    }
    /// What carries orders out, for an agent that has joined in this epoch.
    fn driver(&self, epoch: u64) -> Arc<dyn HostDriver>;
}

/// The hosts that this process works for itself, beside those whose agents come to its desk.
pub trait Hosts: Send + Sync + 'static {
    /// The driver of a host; none when another process works for it, or nobody.
    fn driver(&self, host: Uuid) -> Option<Arc<dyn HostDriver>>;
}

/// No host.
#[derive(Clone, Copy, Debug)]
pub struct NoHosts;

impl Hosts for NoHosts {
    fn driver(&self, _: Uuid) -> Option<Arc<dyn HostDriver>> {
        None
    }
}
