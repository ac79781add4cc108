//! A managed Cloudpods cluster, by the API that its own clients use.
//!
//! The map: [`credential`] says who asks; [`session`] has a token and makes one call; [`wire`] is what the
//! cluster answers, [`machine`] turns that into our shapes; [`server`] starts and stops,
//! [`mover`] moves away.
//!
//! The account's end-point is the cluster's identity service, such as `https://cloudpods.example:30500/v3`; where
//! the rest answers is in the catalogue that comes with the token.

mod credential;
mod machine;
mod mover;
mod server;
mod session;
mod wire;

use async_trait::async_trait;
use commands::ports::{
    Access, Call, DriverFault, Identity, Intent, Listing, Machines, Provider, Report, Sighting,
    Support, Task,
};
use domain::compute::move_in::machine::SourceMachine;
use serde_json::{Value, json};

use self::{credential::Credential, session::Session, wire::Server};
use crate::http_client::HttpClient;

/// What Cloudpods has of each kind, sorted by kind.
pub static TABLE: &[Support] = &[
    Support {
        kind: "move-in",
        listed: false,
        regional: false,
        orders: &["copy", "release", "stop"],
        limits: &[
            "A machine whose QEMU is older than 6.0 is cut off when it is moved: QEMU cannot be kept once its system has stopped.",
            "What is copied is not encrypted on its way; only the address of the machine's host is let in.",
        ],
    },
    Support {
        kind: "server",
        listed: true,
        regional: false,
        orders: &["start", "stop"],
        limits: &[
            "Machines on hosts of the cluster's own alone (KVM): what it manages in other clouds is not listed.",
        ],
    },
];

/// Items of one page.
const PAGE_SIZE: usize = 200;

/// The provider `cloudpods`.
#[derive(Debug)]
pub struct Cloudpods {
    http: HttpClient,
    page_size: usize,
}

impl Default for Cloudpods {
    fn default() -> Self {
        Self::new()
    }
}

impl Cloudpods {
    /// With the largest pages.
    pub fn new() -> Self {
        Self::with_page_size(PAGE_SIZE)
    }

    /// With pages of so many items.
    pub fn with_page_size(page_size: usize) -> Self {
        Self { http: HttpClient::new(), page_size: page_size.clamp(1, PAGE_SIZE) }
    }

    async fn session<'a>(&'a self, access: &'a Access) -> Result<Session<'a>, DriverFault> {
        let credential: Credential =
            serde_json::from_value(access.credential.clone()).map_err(|_| {
                // Serde's own words may hold a secret.
                DriverFault::Denied("the credential does not read as one of Cloudpods".into())
            })?;
        Session::open(&self.http, access, credential).await
    }

    /// One page of its machines, and where the next begins.
    async fn page(
        &self,
        session: &Session<'_>,
        from: usize,
    ) -> Result<(Vec<Server>, Option<usize>), DriverFault> {
        let page = session.servers(from, self.page_size).await?;
        let next = from + page.servers.len();
        let next = (!page.servers.is_empty() && next < page.total).then_some(next);
        Ok((page.servers, next))
    }
}

#[async_trait]
impl Provider for Cloudpods {
    fn name(&self) -> &'static str {
        "cloudpods"
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
        Ok(self.session(access).await?.identity())
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
        let from = match page {
            None => 0,
            Some(page) => page.parse().map_err(|_| {
                DriverFault::Unexpected(format!("there is no page of machines called {page}"))
            })?,
        };
        let session = self.session(access).await?;
        let (servers, next) = self.page(&session, from).await?;
        let sightings = servers.iter().map(sighting).collect();
        Ok(Listing { sightings, next: next.map(|next| next.to_string()) })
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
        let session = self.session(access).await?;
        Ok(session.server(external_id).await?.as_ref().map(sighting))
    }

    async fn carry_out(&self, access: &Access, task: &Task) -> Result<Report, DriverFault> {
        let session = self.session(access).await?;
        match task.kind {
            "move-in" => mover::carry_out(&session, task).await,
            "server" => server::carry_out(&session, task).await,
            kind => Err(DriverFault::Rejected(format!("no orders of a {kind} are carried out"))),
        }
    }
}

#[async_trait]
impl Machines for Cloudpods {
    async fn list(&self, access: &Access) -> Result<Vec<SourceMachine>, DriverFault> {
        let session = self.session(access).await?;
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let (servers, next) = self.page(&session, at).await?;
            all.extend(servers.into_iter().map(machine::source));
            from = next;
        }
        Ok(all)
    }

    async fn machine(
        &self,
        access: &Access,
        id: &str,
    ) -> Result<Option<SourceMachine>, DriverFault> {
        let session = self.session(access).await?;
        Ok(session.server(id).await?.map(machine::source))
    }
}

fn sighting(server: &Server) -> Sighting {
    Sighting {
        external_id: server.id.clone(),
        region: None,
        seen: json!(machine::seen(server)),
        actor: None,
        ours: None,
    }
}
