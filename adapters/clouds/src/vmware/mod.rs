//! A VMware vCenter, by its SOAP API and the files of its datastores.
//!
//! The map: [`credential`] says who asks; [`session`] makes one call or reads one stretch of a file, in the [`xml`]
//! that vCenter speaks; [`inventory`] is what it has, [`machine`] turns that into our shapes; [`server`] starts
//! and stops. [`mover`] moves a machine away: [`mark`] is what it writes on it, [`copy`] brings its data to a host
//! of ours, over [`nbd`].
//!
//! The account's end-point is the vCenter, such as `https://vcenter.example`.

mod copy;
mod credential;
mod inventory;
mod machine;
mod mark;
mod mover;
mod nbd;
mod server;
mod session;
mod xml;

use async_trait::async_trait;
use commands::ports::{
    Access, Call, DriverFault, Identity, Intent, Listing, Machines, Provider, Report, Sighting,
    Support, Task,
};
use domain::compute::move_in::machine::SourceMachine;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use self::{credential::Credential, inventory::Vm, session::Session};
use crate::http_client::HttpClient;

/// What VMware has of each kind, sorted by kind.
pub static TABLE: &[Support] = &[
    Support {
        kind: "move-in",
        listed: false,
        regional: false,
        orders: &["copy", "release", "stop"],
        limits: &[
            "A machine's data goes through the server process that carries the move out, and is not encrypted from there to the host; only that process's address is let in.",
            "Disks are flat files of VMFS or NFS datastores: raw device mappings, independent and shared disks, vSAN and virtual volumes are in the way, and so are snapshots.",
            "Nothing in vCenter keeps a person from starting a machine that was moved.",
        ],
    },
    Support {
        kind: "server",
        listed: true,
        regional: false,
        orders: &["start", "stop"],
        limits: &[
            "The end-point is a vCenter, not one ESXi host alone.",
            "Templates are not listed.",
        ],
    },
];

/// The provider `vmware`.
#[derive(Debug, Default)]
pub struct Vmware {
    http: HttpClient,
}

impl Vmware {
    /// Without talking to anybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does something in a session of its own, which is ended after it.
    async fn within<T>(
        &self,
        access: &Access,
        work: impl for<'s> FnOnce(&'s Session<'s>) -> BoxFuture<'s, Result<T, DriverFault>>,
    ) -> Result<T, DriverFault> {
        let credential: Credential =
            serde_json::from_value(access.credential.clone()).map_err(|_| {
                // Serde's own words may hold a secret.
                DriverFault::Denied("the credential does not read as one of a vCenter".into())
            })?;
        let own = Session::client(&credential);
        let http = own.as_ref().unwrap_or(&self.http);
        let session = Session::open(http, access, credential).await?;
        let done = work(&session).await;
        session.close().await;
        done
    }
}

#[async_trait]
impl Provider for Vmware {
    fn name(&self) -> &'static str {
        "vmware"
    }

    fn table(&self) -> &'static [Support] {
        TABLE
    }

    fn check_credential(&self, credential: &Value) -> Vec<String> {
        credential::check(credential)
    }

    fn check_order(&self, _: &Intent<'_>) -> Result<(), String> {
        Ok(())
    }

    fn calls(&self, task: &Task) -> Vec<Call> {
        if task.kind == "move-in" { mover::calls(task) } else { server::calls(task) }
    }

    fn machines(&self) -> Option<&dyn Machines> {
        Some(self)
    }

    async fn identity(&self, access: &Access) -> Result<Identity, DriverFault> {
        self.within(access, |session| Box::pin(async { Ok(session.identity()) })).await
    }

    async fn regions(&self, _: &Access) -> Result<Vec<String>, DriverFault> {
        Ok(Vec::new())
    }

    async fn list(
        &self,
        access: &Access,
        _: Option<&str>,
        kind: &str,
        page: Option<&str>,
    ) -> Result<Listing, DriverFault> {
        if kind != "server" {
            return Err(DriverFault::Rejected(format!("nothing is listed here of a {kind}")));
        }
        if let Some(page) = page {
            let why = format!("there is no page of machines called {page}");
            return Err(DriverFault::Unexpected(why));
        }
        let all = self.within(access, |session| Box::pin(session.machines())).await?;
        Ok(Listing { sightings: all.iter().map(sighting).collect(), next: None })
    }

    async fn find(
        &self,
        access: &Access,
        _: Option<&str>,
        kind: &str,
        external_id: &str,
    ) -> Result<Option<Sighting>, DriverFault> {
        if kind != "server" {
            return Err(DriverFault::Rejected(format!("nothing is found here of a {kind}")));
        }
        let id = external_id.to_owned();
        let found = self
            .within(access, |session| Box::pin(async move { session.machine(&id).await }))
            .await?;
        Ok(found.as_ref().map(sighting))
    }

    async fn carry_out(&self, access: &Access, task: &Task) -> Result<Report, DriverFault> {
        let task = task.clone();
        self.within(access, |session| {
            Box::pin(async move {
                match task.kind {
                    "move-in" => mover::carry_out(session, &task).await,
                    "server" => server::carry_out(session, &task).await,
                    kind => {
                        let why = format!("no orders of a {kind} are carried out");
                        Err(DriverFault::Rejected(why))
                    }
                }
            })
        })
        .await
    }
}

#[async_trait]
impl Machines for Vmware {
    async fn list(&self, access: &Access) -> Result<Vec<SourceMachine>, DriverFault> {
        self.within(access, |session| {
            Box::pin(async move {
                let (stores, sender) = (session.stores().await?, session.sender().await);
                let all = session.machines().await?;
                Ok(all.into_iter().map(|vm| machine::source(vm, &stores, sender)).collect())
            })
        })
        .await
    }

    async fn machine(
        &self,
        access: &Access,
        id: &str,
    ) -> Result<Option<SourceMachine>, DriverFault> {
        let id = id.to_owned();
        self.within(access, |session| {
            Box::pin(async move {
                let Some(vm) = session.machine(&id).await? else { return Ok(None) };
                let (stores, sender) = (session.stores().await?, session.sender().await);
                Ok(Some(machine::source(vm, &stores, sender)))
            })
        })
        .await
    }
}

fn sighting(vm: &Vm) -> Sighting {
    Sighting {
        external_id: vm.id.clone(),
        region: None,
        seen: json!(machine::seen(vm)),
        actor: None,
        ours: None,
    }
}
