//! Access to the API. Only a digest of the secret is ever stored.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_name;
use crate::{
    kernel::{Decider, Facets, Outstanding, Principal, Reach, Refusal, Role, Stamp, Verb, codes},
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
    Verb::admin("issue", "Gives access; the answer holds the secret, once.").creating(),
    Verb::admin("revoke", "Ends access at once."),
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
                if (role == Role::Agent) != matches!(reach, Reach::Host(_)) {
                    let detail = "role, reach: the role agent goes with the reach of one host, and \
                                  no other role does";
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn issue(expires_at: Option<DateTime<Utc>>) -> Command {
        Command::Issue {
            name: "ci".into(),
            role: Role::Operator,
            reach: Reach::All,
            expires_at,
            secret_digest: "0".repeat(64),
        }
    }

    fn issued(expires_at: DateTime<Utc>) -> Event {
        let (name, secret_digest) = ("ci".into(), "0".repeat(64));
        Event::Issued { name, role: Role::Operator, reach: Reach::All, expires_at, secret_digest }
    }

    fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
        let state = given.iter().cloned().fold(Token::default(), Decider::evolve);
        let got = state.decide(when, &Stamp { now: now(), actor: "test".into() });
        assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    }

    #[test]
    fn a_token_ends_within_a_year() {
        let latest = now() + TimeDelta::days(Token::DAYS_MAX);
        check(&[], issue(None), Ok(&[issued(latest)]));
        check(&[], issue(Some(latest)), Ok(&[issued(latest)]));
        for wrong in [latest + TimeDelta::microseconds(1), now(), now() - TimeDelta::days(1)] {
            check(&[], issue(Some(wrong)), Err("invalid-field"));
        }
        check(&[issued(latest)], issue(None), Err("already-exists"));
    }

    #[test]
    fn a_token_without_a_digest_is_refused() {
        let Command::Issue { name, role, reach, expires_at, .. } = issue(None) else { panic!() };
        let secret_digest = String::new();
        let bare = Command::Issue { name, role, reach, expires_at, secret_digest };
        check(&[], bare, Err("invalid-field"));
    }

    #[test]
    fn an_agent_s_token_is_of_one_host_and_no_other_token_is() {
        let (host, latest) = (uuid::Uuid::nil(), now() + TimeDelta::days(Token::DAYS_MAX));
        let with = |role, reach| {
            let Command::Issue { name, secret_digest, .. } = issue(None) else { panic!() };
            Command::Issue { name, role, reach, expires_at: None, secret_digest }
        };
        let (name, secret_digest) = ("ci".into(), "0".repeat(64));
        let (role, reach) = (Role::Agent, Reach::Host(host));
        let there = Event::Issued { name, role, reach, expires_at: latest, secret_digest };
        check(&[], with(Role::Agent, Reach::Host(host)), Ok(&[there]));
        check(&[], with(Role::Agent, Reach::All), Err("invalid-field"));
        check(&[], with(Role::Admin, Reach::Host(host)), Err("invalid-field"));
    }

    #[test]
    fn a_revoked_token_is_over_and_stays_so() {
        let there = issued(now() + TimeDelta::days(1));
        check(&[], Command::Revoke {}, Err("not-found"));
        check(std::slice::from_ref(&there), Command::Revoke {}, Ok(&[Event::Revoked {}]));
        check(&[there, Event::Revoked {}], Command::Revoke {}, Ok(&[]));
    }

    #[test]
    fn a_principal_is_given_until_the_token_ends() {
        let end = now() + TimeDelta::days(1);
        let token = Token::default().evolve(issued(end));
        let who = token.principal(now()).unwrap();
        assert_eq!((who.name.as_str(), who.role), ("token:ci", Role::Operator));
        assert_eq!(token.principal(end), None);
        assert_eq!(token.evolve(Event::Revoked {}).principal(now()), None);
        assert_eq!(Token::default().principal(now()), None);
    }
}
