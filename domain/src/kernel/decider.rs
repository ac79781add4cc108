//! The one trait a kind implements.

use std::{collections::BTreeMap, fmt::Debug};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use super::{order::Outstanding, refusal::Refusal, role::Role};

/// When and by whom a command is decided. Comes in with the command, so that deciding needs no
/// clock.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// UTC, microseconds.
    pub now: DateTime<Utc>,
    /// The principal's name.
    pub actor: String,
}

/// Who may send a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// People and programs with this role in the resource's project.
    Person(Role),
    /// Only Skyledger's own runner and observer; not on the API.
    System,
}

/// One command of a kind, as lists, routes, help and documents show it.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// As in the path: `POST /v1/{kinds}/{id}/{name}`. It is the command's serde tag.
    pub name: &'static str,
    /// Who may send it.
    pub caller: Caller,
    /// Whether it begins a stream: `POST /v1/{kinds}` with a new id.
    pub creates: bool,
    /// One sentence for help and documents.
    pub summary: &'static str,
}

impl Verb {
    /// For administrators.
    pub const fn admin(name: &'static str, summary: &'static str) -> Self {
        Self::of(Caller::Person(Role::Admin), name, summary)
    }

    /// For operators, and so for administrators.
    pub const fn operator(name: &'static str, summary: &'static str) -> Self {
        Self::of(Caller::Person(Role::Operator), name, summary)
    }

    /// For Skyledger alone.
    pub const fn system(name: &'static str, summary: &'static str) -> Self {
        Self::of(Caller::System, name, summary)
    }

    const fn of(caller: Caller, name: &'static str, summary: &'static str) -> Self {
        Self { name, caller, creates: false, summary }
    }

    /// One that begins a stream.
    #[must_use]
    pub const fn creating(self) -> Self {
        Self { creates: true, ..self }
    }
}

/// A command to another stream that belongs to these facts: decided on what is there, and recorded
/// by the same append or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Companion {
    /// The other stream's kind.
    pub kind: &'static str,
    /// Its id.
    pub id: Uuid,
    /// The command, one of those that only Skyledger itself sends.
    pub verb: &'static str,
    /// Its content.
    pub body: Value,
}

/// On which host of ours the orders of a resource are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnHost {
    /// The host.
    pub host: Uuid,
    /// The server that it concerns; none for what no server has.
    pub server: Option<Uuid>,
}

/// What every kind's row shows beside its state: the columns of the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facets {
    /// What people call it.
    pub name: Option<String>,
    /// Who owns it; none is the estate's.
    pub project: Option<Uuid>,
    /// The cloud account it lives in.
    pub account: Option<Uuid>,
    /// The provider, for instance `aws`.
    pub provider: Option<String>,
    /// The provider's region id, for instance `eu-central-1`.
    pub region: Option<String>,
    /// The provider's zone id, for instance `eu-central-1a`.
    pub zone: Option<String>,
    /// Its id in the cloud.
    pub external_id: Option<String>,
    /// What it hangs in: a network's VPC, a disk's server, by external id.
    pub parent: Option<String>,
    /// For mapped kinds whether wanted and seen differ; none for the others.
    pub drifted: Option<bool>,
    /// No longer there (vanished, retired, archived, revoked); lists leave it out unless asked.
    pub gone: bool,
    /// The provider's tags.
    pub tags: BTreeMap<String, String>,
}

/// State folded from its own events. Pure.
pub trait Decider:
    Default + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// In the singular and in kebab case: `security-group`.
    const KIND: &'static str;
    /// As in paths: `security-groups`.
    const PLURAL: &'static str;
    /// One sentence for help and documents.
    const SUMMARY: &'static str;

    /// A wish, adjacently tagged: `type`, `data`. The tags are the names in [`Self::verbs`].
    type Command: Serialize + DeserializeOwned + JsonSchema + Send;
    /// A fact, adjacently tagged: `type`, `data`.
    type Event: Serialize + DeserializeOwned + JsonSchema + Send;
    /// What a state can wait for.
    type Order: Serialize + DeserializeOwned + JsonSchema + Send;

    /// Its commands, sorted by name.
    fn verbs() -> &'static [Verb];
    /// The facts this command makes, none when everything already is so, or the rule's no.
    fn decide(&self, command: Self::Command, stamp: &Stamp) -> Result<Vec<Self::Event>, Refusal>;
    /// The state after one more fact. Never fails.
    #[must_use]
    fn evolve(self, event: Self::Event) -> Self;
    /// What this state still waits for the world to do.
    fn order(&self) -> Option<Outstanding<Self::Order>>;
    /// One word, the same in the rule, the API and the documents.
    fn status(&self) -> &'static str;
    /// Its columns in the inventory.
    fn facets(&self) -> Facets;
    /// Where its orders are carried out, when that is a host of ours; otherwise its account's provider
    /// does so.
    fn on_host(&self) -> Option<OnHost> {
        None
    }
    /// The backup stores that whoever carries its order out must reach.
    fn stores(&self) -> Vec<Uuid> {
        Vec::new()
    }
    /// Disks, beside those of its server, that whoever carries its order out opens: where several hosts
    /// reach them, the order brings their leases along.
    fn volumes(&self) -> Vec<Uuid> {
        Vec::new()
    }
    /// Names that these facts take for this stream alone: the append that stores the facts opens
    /// a claim stream for each, which must be new.
    fn claims(&self, _events: &[Self::Event]) -> Vec<String> {
        Vec::new()
    }
    /// What these facts say to other streams: the host that a server takes its place on, for
    /// instance. When one of them says no, none of it is recorded.
    fn companions(&self, _events: &[Self::Event]) -> Vec<Companion> {
        Vec::new()
    }
    /// Field by field where wanted and seen differ, for mapped kinds.
    fn drift(&self) -> Vec<crate::mapping::FieldDrift> {
        Vec::new()
    }
}
