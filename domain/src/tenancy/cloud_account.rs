//! Credentials at one provider.
//!
//! ```text
//!           connect              confirm-identity          pause
//!   absent ─────────► connecting ────────────────► connected ◄────► paused
//!                         │                        │  ▲   resume
//!                         │ refuse-credential      │  │ sync, confirm
//!                         ▼                        ▼  │
//!                       denied ◄──────────────── verifying, syncing
//! ```
//!
//! The credential itself is sealed before it comes near a command: events hold the envelope only.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::check_name;
use crate::kernel::{Decider, Facets, Orders, Outstanding, Refusal, Stamp, Verb, codes};

/// What one kind in one region came to in one sync run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The kind.
    pub kind: String,
    /// The region; none for a kind that lies in none.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether every page came, in one attempt. Only then may something be concluded from absence.
    pub complete: bool,
    /// Things on the pages that came.
    pub listed: u64,
    /// Of them, seen for the first time.
    pub discovered: u64,
    /// Of them, different from before, or back again.
    pub changed: u64,
    /// Not there any more.
    pub vanished: u64,
    /// Missing, but so many that a person is asked first.
    pub withheld: u64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// What an account can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Order {
    /// Look at everything in these regions and of these kinds (empty: all).
    Sync {
        /// Provider's ids.
        regions: Vec<String>,
        /// Kinds.
        kinds: Vec<String>,
        /// Whether a person has agreed to deletions beyond the guard.
        approve_deletions: bool,
    },
    /// Ask the provider who the credential belongs to.
    Verify {
        /// The sealed credential to be tried in place of the present one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        candidate: Option<String>,
    },
}

/// A command of a cloud account.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Give up the order that is parked.
    Abandon {},
    /// Set what the provider lets one set of an account, in place of what was set before.
    Configure {
        /// By name, as in `docs/capabilities.md`.
        settings: Map<String, Value>,
    },
    /// The provider said who the credential belongs to.
    ConfirmIdentity {
        /// The order's number.
        number: u64,
        /// The provider's id of the account.
        external_account: String,
        /// The user or role behind the credential.
        principal: String,
    },
    /// Begin to use an account.
    Connect {
        /// 1…100 characters.
        name: String,
        /// One of the providers in `docs/capabilities.md`.
        provider: String,
        /// Who owns what is discovered in it; none is the estate.
        #[serde(default)]
        project: Option<Uuid>,
        /// Base URL to use in place of the provider's own.
        #[serde(default)]
        endpoint: Option<String>,
        /// The provider's credential, an object. It is sealed at once and never shown again.
        #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
        credential: String,
    },
    /// The observer is through.
    FinishSync {
        /// The order's number.
        number: u64,
        /// When it began to look.
        started_at: DateTime<Utc>,
        /// What it found.
        scopes: Vec<Scope>,
    },
    /// The runner gives up until a person decides.
    Park {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// Leave the account alone until `resume`.
    Pause {},
    /// The provider refused the credential, or it belongs to somebody else.
    RefuseCredential {
        /// The order's number.
        number: u64,
        /// What it said.
        reason: String,
    },
    /// Call it something else.
    Rename {
        /// 1…100 characters.
        name: String,
    },
    /// Use the account again.
    Resume {},
    /// Go on with the order that is parked.
    Retry {},
    /// Look at everything in the cloud.
    Sync {
        /// Provider's ids of regions; all when it is empty.
        #[serde(default)]
        regions: Vec<String>,
        /// Kinds; all the provider has when it is empty.
        #[serde(default)]
        kinds: Vec<String>,
        /// Agree to deletions beyond the guard: more than ten things and more than a fifth of a
        /// kind in a region.
        #[serde(default)]
        approve_deletions: bool,
    },
    /// Use another credential of the same account.
    UpdateCredential {
        /// The provider's credential, an object. It is sealed at once and never shown again.
        #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
        credential: String,
    },
    /// Ask the provider who the credential belongs to.
    Verify {},
}

/// A fact about a cloud account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A parked order was given up.
    Abandoned {},
    /// Its settings are these from now on.
    Configured {
        /// By name.
        settings: Map<String, Value>,
    },
    /// It is known, and being verified.
    Connected {
        /// What it is called.
        name: String,
        /// Its provider.
        provider: String,
        /// Who owns what is discovered in it.
        project: Option<Uuid>,
        /// Base URL in place of the provider's own.
        endpoint: Option<String>,
        /// The sealed credential.
        credential: String,
    },
    /// Another credential of the same account is used.
    CredentialReplaced {
        /// The sealed credential.
        credential: String,
    },
    /// The provider refused the credential, or it belongs to another account.
    CredentialRefused {
        /// What it said.
        reason: String,
    },
    /// Another credential is being tried.
    CredentialUpdateOrdered {
        /// The sealed credential.
        candidate: String,
    },
    /// The provider said who the credential belongs to.
    IdentityConfirmed {
        /// The provider's id of the account.
        external_account: String,
        /// The user or role behind the credential.
        principal: String,
    },
    /// The runner gave up until a person decides.
    Parked {
        /// The order's number.
        number: u64,
        /// What stood in the way.
        reason: String,
    },
    /// It is left alone.
    Paused {},
    /// It is called something else.
    Renamed {
        /// What it is called from now on.
        name: String,
    },
    /// It is used again.
    Resumed {},
    /// A parked order goes on.
    RetryOrdered {},
    /// A sync run is through.
    SyncFinished {
        /// The run: the order's number.
        run: u64,
        /// When it began to look.
        started_at: DateTime<Utc>,
        /// Whether every scope is complete.
        complete: bool,
        /// What it found.
        scopes: Vec<Scope>,
    },
    /// Everything is to be looked at.
    SyncOrdered {
        /// Provider's ids of regions; all when it is empty.
        regions: Vec<String>,
        /// Kinds; all when it is empty.
        kinds: Vec<String>,
        /// Whether a person has agreed to deletions beyond the guard.
        approve_deletions: bool,
    },
    /// The credential is to be verified.
    VerifyOrdered {},
}

/// The last sync run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its number.
    pub run: u64,
    /// When it began to look.
    pub started_at: DateTime<Utc>,
    /// Whether every scope was complete.
    pub complete: bool,
}

/// Credentials at one provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CloudAccount {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Its provider.
    pub provider: String,
    /// Who owns what is discovered in it.
    pub project: Option<Uuid>,
    /// Base URL in place of the provider's own.
    pub endpoint: Option<String>,
    /// The sealed credential.
    pub credential: String,
    /// The provider's id of the account; none before it was verified.
    pub external_account: Option<String>,
    /// The user or role behind the credential.
    pub principal: Option<String>,
    /// What the provider said when it refused the credential; none while it accepts it.
    pub denied: Option<String>,
    /// Whether it is left alone.
    pub paused: bool,
    /// What of it was set, by name: what the provider lets one set.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// The last sync run.
    pub last_run: Option<LastRun>,
    /// The last sync run of all regions and kinds.
    #[serde(default)]
    pub last_whole_run: Option<LastRun>,
    /// Orders.
    pub orders: Orders<Order>,
}

static VERBS: &[Verb] = &[
    Verb::operator("abandon", "Gives up the parked order."),
    Verb::admin("configure", "Sets what the provider lets one set of an account."),
    Verb::system("confirm-identity", "Reports who the credential belongs to."),
    Verb::admin("connect", "Begins to use an account of a provider.").creating(),
    Verb::system("finish-sync", "Reports what a sync run found."),
    Verb::system("park", "Reports that an order keeps failing."),
    Verb::admin("pause", "Leaves the account alone until resume."),
    Verb::system("refuse-credential", "Reports that the provider refused the credential."),
    Verb::admin("rename", "Calls the account something else."),
    Verb::admin("resume", "Uses a paused account again."),
    Verb::operator("retry", "Goes on with the parked order."),
    Verb::operator("sync", "Looks at everything in the cloud, or at some regions and kinds."),
    Verb::admin("update-credential", "Uses another credential of the same account."),
    Verb::operator("verify", "Asks the provider who the credential belongs to."),
];

impl CloudAccount {
    /// Whether orders of things in it may be carried out now.
    pub fn is_ready(&self) -> bool {
        self.external_account.is_some() && self.denied.is_none() && !self.paused
    }

    fn ensure_ready(&self) -> Result<(), Refusal> {
        if self.is_ready() {
            return Ok(());
        }
        Err(Refusal::new(&codes::ACCOUNT_NOT_READY, format!("the account is {}", self.status())))
    }

    fn confirm_identity(&self, external_account: String, principal: String) -> Vec<Event> {
        if let Some(known) =
            self.external_account.as_ref().filter(|known| **known != external_account)
        {
            let reason =
                format!("the credential belongs to account {external_account}, this is {known}");
            return vec![Event::CredentialRefused { reason }];
        }
        let candidate = match &self.orders.out {
            Some(Outstanding { order: Order::Verify { candidate }, .. }) => candidate.clone(),
            _ => None,
        };
        candidate
            .map(|credential| Event::CredentialReplaced { credential })
            .into_iter()
            .chain([Event::IdentityConfirmed { external_account, principal }])
            .collect()
    }
}

impl Decider for CloudAccount {
    const KIND: &'static str = "cloud-account";
    const PLURAL: &'static str = "cloud-accounts";
    const SUMMARY: &'static str = "Credentials at one provider, and what they let us see.";
    type Command = Command;
    type Event = Event;
    type Order = Order;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let exists = !self.name.is_empty();
        Ok(match command {
            Command::Connect { .. } if exists => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the account exists"));
            }
            Command::Connect { name, provider, project, endpoint, credential } => {
                check_name(&name)?;
                vec![Event::Connected { name, provider, project, endpoint, credential }]
            }
            _ if !exists => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such account"));
            }
            Command::Abandon {} => {
                self.orders.ensure_parked()?;
                vec![Event::Abandoned {}]
            }
            Command::Configure { settings } if settings == self.settings => vec![],
            Command::Configure { settings } => vec![Event::Configured { settings }],
            Command::ConfirmIdentity { number, external_account, principal }
                if self.orders.is_out(number) =>
            {
                self.confirm_identity(external_account, principal)
            }
            Command::FinishSync { number, started_at, scopes } if self.orders.is_out(number) => {
                // A run that looked at nothing has no picture of anything.
                let complete = !scopes.is_empty() && scopes.iter().all(|scope| scope.complete);
                vec![Event::SyncFinished { run: number, started_at, complete, scopes }]
            }
            Command::Park { number, reason } if self.orders.is_worked_on(number) => {
                vec![Event::Parked { number, reason }]
            }
            Command::RefuseCredential { number, reason } if self.orders.is_out(number) => {
                vec![Event::CredentialRefused { reason }]
            }
            // A report about an order that is settled already says nothing new.
            Command::ConfirmIdentity { .. }
            | Command::FinishSync { .. }
            | Command::Park { .. }
            | Command::RefuseCredential { .. } => vec![],
            Command::Pause {} if self.paused => vec![],
            Command::Pause {} => vec![Event::Paused {}],
            Command::Rename { name } if name == self.name => vec![],
            Command::Rename { name } => {
                check_name(&name)?;
                vec![Event::Renamed { name }]
            }
            Command::Resume {} if self.paused => vec![Event::Resumed {}],
            Command::Resume {} => vec![],
            Command::Retry {} => {
                self.orders.ensure_parked()?;
                vec![Event::RetryOrdered {}]
            }
            Command::Sync { regions, kinds, approve_deletions } => {
                self.ensure_ready()?;
                self.orders.ensure_free()?;
                vec![Event::SyncOrdered { regions, kinds, approve_deletions }]
            }
            Command::UpdateCredential { credential } => {
                self.orders.ensure_free()?;
                vec![Event::CredentialUpdateOrdered { candidate: credential }]
            }
            Command::Verify {} => {
                self.orders.ensure_free()?;
                vec![Event::VerifyOrdered {}]
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Abandoned {} => self.orders.settle(),
            Event::Connected { name, provider, project, endpoint, credential } => {
                self.name = name;
                self.provider = provider;
                self.project = project;
                self.endpoint = endpoint;
                self.credential = credential;
                self.orders.issue(Order::Verify { candidate: None });
            }
            Event::Configured { settings } => self.settings = settings,
            Event::CredentialReplaced { credential } => self.credential = credential,
            Event::CredentialRefused { reason } => {
                // A candidate that is refused leaves the credential in use as it was.
                let candidate = matches!(
                    &self.orders.out,
                    Some(Outstanding { order: Order::Verify { candidate: Some(_) }, .. })
                );
                if !candidate {
                    self.denied = Some(reason);
                }
                self.orders.settle();
            }
            Event::CredentialUpdateOrdered { candidate } => {
                self.orders.issue(Order::Verify { candidate: Some(candidate) });
            }
            Event::IdentityConfirmed { external_account, principal } => {
                self.external_account = Some(external_account);
                self.principal = Some(principal);
                self.denied = None;
                self.orders.settle();
            }
            Event::Parked { reason, .. } => self.orders.park(reason),
            Event::Paused {} => self.paused = true,
            Event::Renamed { name } => self.name = name,
            Event::Resumed {} => self.paused = false,
            Event::RetryOrdered {} => self.orders.retry(),
            Event::SyncFinished { run, started_at, complete, .. } => {
                let last = LastRun { run, started_at, complete };
                if let Some(Outstanding { order: Order::Sync { regions, kinds, .. }, .. }) =
                    &self.orders.out
                    && regions.is_empty()
                    && kinds.is_empty()
                {
                    self.last_whole_run = Some(last.clone());
                }
                self.last_run = Some(last);
                self.orders.settle();
            }
            Event::SyncOrdered { regions, kinds, approve_deletions } => {
                self.orders.issue(Order::Sync { regions, kinds, approve_deletions });
            }
            Event::VerifyOrdered {} => self.orders.issue(Order::Verify { candidate: None }),
        }
        self
    }

    fn order(&self) -> Option<Outstanding<Order>> {
        // The runner leaves a paused account alone.
        self.orders.out.clone().filter(|_| !self.paused)
    }

    fn status(&self) -> &'static str {
        if self.name.is_empty() {
            return "absent";
        }
        if self.paused {
            return "paused";
        }
        match &self.orders.out {
            Some(Outstanding { parked: Some(_), .. }) => "parked",
            Some(Outstanding { order: Order::Sync { .. }, .. }) => "syncing",
            Some(_) if self.external_account.is_none() => "connecting",
            Some(_) => "verifying",
            None if self.denied.is_some() => "denied",
            None if self.external_account.is_none() => "connecting",
            None => "connected",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            provider: Some(self.provider.clone()),
            external_id: self.external_account.clone(),
            ..Facets::default()
        }
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        events
            .iter()
            .filter_map(|event| match event {
                Event::IdentityConfirmed { external_account, .. }
                    if self.external_account.is_none() =>
                {
                    let endpoint = self.endpoint.as_deref().unwrap_or("-");
                    Some(format!("cloud-account/{}/{endpoint}/{external_account}", self.provider))
                }
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
