//! The demo, told step by step. Every step asserts what it says: a story that did not come true
//! ends with what was expected.
//!
//! The story knows the API and nothing else. What happens outside of it (a server that is started
//! and killed, a cloud that changes behind Skyledger's back) is the [`Stage`]'s.

mod audit;
mod bill;
mod cloud;
mod crash;
mod forecast;
mod past;
mod start;
mod tell;
mod watch;

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::{
    client::{Client, ClientFault, Command},
    columns::plain,
};

pub use tell::Teller;

/// What did not come true, or what failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Untrue(pub String);

impl From<ClientFault> for Untrue {
    fn from(fault: ClientFault) -> Self {
        Self(fault.text(crate::style::Style::PLAIN))
    }
}

impl From<std::io::Error> for Untrue {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// A step's result.
pub type Told<T = ()> = Result<T, Untrue>;

/// Says what had to be, when it is not.
pub(crate) fn ensure(holds: bool, what: impl Into<String>) -> Told {
    if holds { Ok(()) } else { Err(Untrue(what.into())) }
}

/// A server that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Base URL.
    pub url: String,
    /// An admin's token.
    pub token: String,
    /// Process id.
    pub pid: u32,
}

/// The cloud that the story plays in.
#[derive(Clone, Debug)]
pub struct Place {
    /// In a few words.
    pub what: String,
    /// The account's provider.
    pub provider: String,
    /// Its credential.
    pub credential: Value,
    /// Base URL in place of the provider's own.
    pub endpoint: Option<String>,
    /// A region with a VPC.
    pub region: String,
    /// Who changes things there by hand; empty where the cloud does not tell.
    pub meddler: String,
}

/// What somebody does in the cloud by hand.
#[derive(Clone, Debug)]
pub enum Meddling {
    /// Adds rules to a security group and removes others.
    Rules {
        /// In the kind's own shape.
        add: Vec<Value>,
        /// In the kind's own shape.
        remove: Vec<Value>,
    },
}

/// What the story cannot do through the API.
pub trait Stage {
    /// Where it plays.
    fn place(&self) -> Place;
    /// The server's data folder.
    fn data(&self) -> PathBuf;
    /// Starts the server and comes back when it is ready.
    fn start(&mut self) -> impl Future<Output = Told<Running>>;
    /// SIGKILL: it gets no chance to do anything. Comes back when it is gone.
    fn kill(&mut self) -> impl Future<Output = Told>;
    /// SIGTERM, and waits for a clean end.
    fn stop(&mut self) -> impl Future<Output = Told>;
    /// Does something in the cloud behind Skyledger's back, to a security group by external id.
    fn meddle(&mut self, group: &str, what: Meddling) -> impl Future<Output = Told>;
    /// Makes the cloud so slow that an order cannot be through before somebody looks; or not.
    fn hold(&mut self, on: bool) -> impl Future<Output = Told>;
    /// The counterparts that the cloud really has for a resource: external id, rules.
    fn counterparts(&mut self, id: &str) -> impl Future<Output = Told<Vec<(String, usize)>>>;
    /// Runs this program's own command line: exit code, and what it wrote.
    fn tool(&mut self, words: &[&str]) -> impl Future<Output = Told<(i32, String)>>;
}

/// What the story remembers from step to step.
pub(crate) struct Memory {
    pub(crate) client: Client,
    pub(crate) place: Place,
    pub(crate) account: String,
    /// The security group the story is about.
    pub(crate) group: String,
    /// Its id in the cloud.
    pub(crate) external: String,
    pub(crate) vpc: Option<String>,
    /// Positions of moments worth going back to.
    pub(crate) looked: u64,
    pub(crate) calm: u64,
    pub(crate) drifted: u64,
}

/// Longest wait for an order of the story.
const WAIT: Duration = Duration::from_mins(1);

impl Memory {
    /// Sends a command and waits for its order.
    pub(crate) async fn send(
        &self,
        plural: &str,
        id: Option<&str>,
        verb: &str,
        body: Value,
    ) -> Told<Value> {
        let outcome = self.client.submit(&command(plural, id, verb, body, Some(WAIT))).await?.body;
        let reason = plain(&outcome["order"]["parked"]);
        ensure(outcome["order"].is_null(), format!("{verb} {plural} is not done: {reason}"))?;
        Ok(outcome)
    }

    /// One resource, now.
    pub(crate) async fn get(&self, plural: &str, id: &str) -> Told<Value> {
        Ok(self.client.get(&format!("/v1/{plural}/{id}"), &[]).await?.body)
    }

    /// Where the log is now.
    pub(crate) async fn head(&self) -> Told<u64> {
        let head = self.client.get("/v1/audit/head", &[]).await?.body;
        head["size"].as_u64().ok_or_else(|| Untrue("the head has no size".to_owned()))
    }

    /// Looks at the account's security groups again.
    pub(crate) async fn look(&self) -> Told<Value> {
        let body = json!({"kinds": ["security-group"], "regions": [self.place.region]});
        self.send("cloud-accounts", Some(&self.account), "sync", body).await
    }
}

pub(crate) fn command(
    plural: &str,
    id: Option<&str>,
    verb: &str,
    body: Value,
    wait: Option<Duration>,
) -> Command {
    Command {
        plural: plural.to_owned(),
        id: id.map(str::to_owned),
        verb: verb.to_owned(),
        body,
        wait,
        ..Command::default()
    }
}

/// A rule of the story's security groups.
pub(crate) fn rule(ports: &str, cidr: &str, description: &str) -> Value {
    json!({"direction": "ingress", "protocol": "tcp", "ports": ports, "peer": {"cidr": cidr},
           "description": description})
}

/// Tells the whole story; at its end the server runs.
///
/// # Errors
/// The first step that did not come true.
pub async fn tell(stage: &mut impl Stage, teller: &mut Teller) -> Told<Running> {
    let mut memory = start::server_and_account(stage, teller).await?;
    cloud::declare(&mut memory, teller).await?;
    cloud::drift(stage, &mut memory, teller).await?;
    cloud::answer(stage, &mut memory, teller).await?;
    past::stale_plan(&memory, teller).await?;
    past::time_travel(&memory, teller).await?;
    crash::in_the_middle(stage, &mut memory, teller).await?;
    bill::from_file_to_number(&stage.data(), &memory, teller).await?;
    watch::anomaly(&stage.data(), &memory, teller).await?;
    forecast::what_comes_next(&stage.data(), &memory, teller).await?;
    audit::verify(stage, &memory, teller).await?;
    stage.start().await
}
