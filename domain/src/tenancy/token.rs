//! Access to the API. Only a digest of the secret is ever stored.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_name;
use crate::{
    kernel::{
        Caller, Decider, Facets, Outstanding, Principal, Reach, Refusal, Role, Stamp, Verb, codes,
    },
    observation::NoOrder,
};

/// A command of a token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Give access. The answer holds the secret, once.
    Issue {
        /// 1…100 characters; events name the actor `token:<name>`.
        name: String,
        /// What it may do.
        role: Role,
        /// Where.
        reach: Reach,
        /// Until when; at most [`Token::DAYS_MAX`] days from now, and that when it is left out.
        #[serde(default)]
        expires_at: Option<DateTime<Utc>>,
        /// SHA-256 of the secret, in hex; filled in by the server.
        #[serde(default)]
        #[schemars(skip)]
        secret_digest: String,
    },
    /// End it at once.
    Revoke {},
}

/// A fact about a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// Access was given.
    Issued {
        /// What it is called.
        name: String,
        /// What it may do.
        role: Role,
        /// Where.
        reach: Reach,
        /// Until when.
        expires_at: DateTime<Utc>,
        /// SHA-256 of the secret, in hex.
        secret_digest: String,
    },
    /// It was ended.
    Revoked {},
}

/// Access to the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// What was given; none while it does not exist.
    pub grant: Option<Grant>,
    /// Whether it was ended.
    pub revoked: bool,
}

/// What a token gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub reach: Reach,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// SHA-256 of the secret, in hex.
    pub secret_digest: String,
}

impl Token {
    /// Longest life of a token, in days: a forgotten one ends within a year.
    pub const DAYS_MAX: i64 = 366;

    /// Who asks with it; none when it is over.
    pub fn principal(&self, now: DateTime<Utc>) -> Option<Principal> {
        let grant = self.grant.as_ref().filter(|grant| !self.revoked && now < grant.expires_at)?;
        Some(Principal {
            name: format!("token:{}", grant.name),
            role: grant.role,
            reach: grant.reach.clone(),
        })
    }
}

static VERBS: &[Verb] = &[
    Verb {
        name: "issue",
        caller: Caller::Person(Role::Admin),
        creates: true,
        summary: "Gives access; the answer holds the secret, once.",
    },
    Verb {
        name: "revoke",
        caller: Caller::Person(Role::Admin),
        creates: false,
        summary: "Ends access at once.",
    },
];

impl Decider for Token {
    const KIND: &'static str = "token";
    const PLURAL: &'static str = "tokens";
    const SUMMARY: &'static str = "Access to the API: a role, a reach and an end.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match (&self.grant, command) {
            (Some(_), Command::Issue { .. }) => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the token exists"));
            }
            (None, Command::Issue { name, role, reach, expires_at, secret_digest }) => {
                check_name(&name)?;
                let latest = stamp.now + chrono::TimeDelta::days(Self::DAYS_MAX);
                let expires_at = expires_at.unwrap_or(latest);
                if expires_at <= stamp.now || expires_at > latest {
                    return Err(Refusal::new(
                        &codes::INVALID_FIELD,
                        format!("expires_at: must lie within {} days from now", Self::DAYS_MAX),
                    ));
                }
                if secret_digest.len() != 64 {
                    return Err(Refusal::new(
                        &codes::INVALID_FIELD,
                        "secret_digest: is the server's to fill in",
                    ));
                }
                vec![Event::Issued { name, role, reach, expires_at, secret_digest }]
            }
            (None, Command::Revoke {}) => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such token"));
            }
            (Some(_), Command::Revoke {}) if self.revoked => vec![],
            (Some(_), Command::Revoke {}) => vec![Event::Revoked {}],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Issued { name, role, reach, expires_at, secret_digest } => {
                self.grant = Some(Grant { name, role, reach, expires_at, secret_digest });
            }
            Event::Revoked {} => self.revoked = true,
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.grant, self.revoked) {
            (None, _) => "absent",
            (_, true) => "revoked",
            _ => "issued",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: self.grant.as_ref().map(|grant| grant.name.clone()),
            gone: self.revoked,
            ..Facets::default()
        }
    }
}
