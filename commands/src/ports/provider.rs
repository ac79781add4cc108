//! Clouds and hosts: what a provider can list, find and carry out.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use domain::{kernel::OrderKey, observation::Origin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Files, Machines};

/// One row of a provider's table: what it has of a kind. What is not in the table is refused
/// before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The kind's name.
    pub kind: &'static str,
    /// Whether sync lists it.
    pub listed: bool,
    /// Whether it lies in a region (else it is listed once per account).
    pub regional: bool,
    /// Tags of the orders it carries out, sorted.
    pub orders: &'static [&'static str],
    /// What the provider does not allow, one sentence each, for the documents.
    pub limits: &'static [&'static str],
}

/// How fast an account may be called. An order or a page may be many calls, and the cloud counts
/// each: so a provider asks before every single call it makes, and says what came of it.
#[async_trait]
pub trait Pace: Debug + Send + Sync + 'static {
    /// Comes back when the next call may be made.
    async fn ticket(&self);
    /// What came of it: none went well. Only throttling makes the next calls slower.
    fn learn(&self, fault: Option<&DriverFault>);
}

/// No pace: for a call by hand, and for tests.
#[derive(Debug)]
pub struct Unpaced;

#[async_trait]
impl Pace for Unpaced {
    async fn ticket(&self) {}
    fn learn(&self, _: Option<&DriverFault>) {}
}

/// Credentials in the clear, for one call chain. `Debug` shows none of it.
#[derive(Clone)]
pub struct Access {
    /// The cloud account's id here.
    pub account: Uuid,
    /// Base URL to use in place of the provider's own.
    pub endpoint: Option<String>,
    /// The credential as the provider's JSON.
    pub credential: Value,
    /// Who the provider says the account is; none before it was verified.
    pub identity: Option<String>,
    /// Asked before every call.
    pub pace: Arc<dyn Pace>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Who a credential belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider's id of the account.
    pub external_account: String,
    /// The user or role behind the credential.
    pub principal: String,
}

/// One observation of one thing in a cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    /// The provider's id.
    pub external_id: String,
    /// The region it lies in; none for what lies in no region.
    pub region: Option<String>,
    /// What was seen, in the kind's own shape, normalised: equal things give equal values.
    pub seen: Value,
    /// Who changed it last, where the provider tells.
    pub actor: Option<String>,
    /// The resource here that made it, from its tag `skyledger:id`; the tag itself is left out of
    /// `seen`.
    pub ours: Option<Uuid>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// What is on it.
    pub sightings: Vec<Sighting>,
    /// Token of the next page; none on the last.
    pub next: Option<String>,
}

/// One order to carry out.
#[derive(Clone, Debug)]
pub struct Task {
    /// The kind's name.
    pub kind: &'static str,
    /// Names this order for ever; look it up before you create.
    pub key: OrderKey,
    /// The order, adjacently tagged, as the kind's `Order` type.
    pub order: Value,
    /// Where its counterpart is or will be. The external id is empty before there is one.
    pub origin: Origin,
}

/// An order that is about to be written, and what is known of the thing it is about.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// The kind's name.
    pub kind: &'a str,
    /// The order, adjacently tagged, as the kind's `Order` type.
    pub order: &'a Value,
    /// The provider's id of the account that the thing lies in.
    pub external_account: &'a str,
    /// What of that account was set, as [`Provider::check_settings`] let it through.
    pub settings: &'a Map<String, Value>,
    /// The tags that the thing has or is to have.
    pub tags: &'a BTreeMap<String, String>,
}

impl<'a> Intent<'a> {
    /// The specification that a mapped thing is to have; none for an order without one.
    pub fn wanted(&self) -> Option<&'a Value> {
        let data = &self.order["data"];
        [&data["to"], &data["spec"]].into_iter().find(|spec| !spec.is_null())
    }

    /// What was seen of it when the order was decided; none before it was created.
    pub fn seen(&self) -> Option<&'a Value> {
        Some(&self.order["data"]["from"]).filter(|seen| !seen.is_null())
    }
}

/// The command that reports what became of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The verb; a system verb of the order's kind.
    pub verb: &'static str,
    /// Its body.
    pub body: Value,
}

/// One call an order will make, for plans: `ec2:AuthorizeSecurityGroupIngress` and what with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// The provider's name of it.
    pub call: String,
    /// What it will do, in a few words.
    pub effect: String,
}

/// The world failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DriverFault {
    /// May go away by itself: time-outs, broken connections, 5xx.
    #[error("{0}")]
    Transient(String),
    /// The credential may not do this.
    #[error("denied: {0}")]
    Denied(String),
    /// What the order is about is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// Too many calls; not before this long.
    #[error("throttled")]
    Throttled {
        /// How long the provider asks to wait, where it tells.
        retry_after: Option<Duration>,
    },
    /// Whoever carries it out cannot be reached: nothing is known of the order, and it waits.
    #[error("away: {0}")]
    Away(String),
    /// The provider says no for good: trying again changes nothing.
    #[error("rejected: {0}")]
    Rejected(String),
    /// An answer that makes no sense.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// One provider: a table of what it has, and the calls behind it.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// As in accounts, for instance `aws`.
    fn name(&self) -> &'static str;
    /// What it has, sorted by kind.
    fn table(&self) -> &'static [Support];
    /// Field by field what is wrong with a credential's JSON; empty when it reads.
    fn check_credential(&self, credential: &Value) -> Vec<String>;
    /// What is wrong with an account's settings; empty when the provider knows them all.
    fn check_settings(&self, settings: &Map<String, Value>) -> Vec<String> {
        settings.keys().map(|name| format!("{name}: there is no such setting")).collect()
    }
    /// The provider's own rules about an order: checked before anything is written. The text names
    /// the limit.
    fn check_order(&self, intent: &Intent<'_>) -> Result<(), String>;
    /// The calls an order will make, as far as they are known before.
    fn calls(&self, task: &Task) -> Vec<Call>;
    /// Most calls at once to one account.
    fn concurrency(&self) -> usize {
        4
    }

    /// Its store of files, where it has one that is read here.
    fn files(&self) -> Option<&dyn Files> {
        None
    }

    /// Its machines, where those can be moved to hosts of ours.
    fn machines(&self) -> Option<&dyn Machines> {
        None
    }

    /// Who the credential belongs to.
    async fn identity(&self, access: &Access) -> Result<Identity, DriverFault>;
    /// The regions the account may use.
    async fn regions(&self, access: &Access) -> Result<Vec<String>, DriverFault>;
    /// One page of a kind in a region (or of the account, for a kind without regions).
    async fn list(
        &self,
        access: &Access,
        region: Option<&str>,
        kind: &str,
        page: Option<&str>,
    ) -> Result<Listing, DriverFault>;
    /// Direct get by id; none only when the provider says that it is not there.
    async fn find(
        &self,
        access: &Access,
        region: Option<&str>,
        kind: &str,
        external_id: &str,
    ) -> Result<Option<Sighting>, DriverFault>;
    /// Carries out one order, once, however often it is asked, and says what to report.
    async fn carry_out(&self, access: &Access, task: &Task) -> Result<Report, DriverFault>;
}
