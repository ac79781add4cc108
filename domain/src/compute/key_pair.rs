//! Who may log in to a new server: the public half of a key pair.
//!
//! ```text
//!   absent ── define ──► defined ── retire ──► retired
//!                           ▲                    │
//!                           └────── define ──────┘
//! ```
//!
//! The private half stays where it was made: none is ever made or kept here. A name is one key pair's
//! in its project, also after it is retired: it may then be defined again, with another key.

mod wire;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
    tenancy::check_name,
};
pub use wire::{Algorithm, PublicKey};

/// A command of a key pair.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Make a public key known.
    Define {
        /// What it is called, 1…100 characters; once in a project.
        name: String,
        /// Whose it is; none is the estate's.
        #[serde(default)]
        project: Option<Uuid>,
        /// A line as OpenSSH writes it into a `.pub` file: Ed25519, RSA of 2,048…16,384 bits or ECDSA.
        public_key: String,
    },
    /// Put it on no more servers.
    Retire {},
}

/// A fact about a key pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It is known from now on.
    Defined {
        /// What it is called.
        name: String,
        /// Whose it is.
        project: Option<Uuid>,
        /// The public key.
        key: PublicKey,
    },
    /// It is put on no more servers.
    Retired {},
}

/// The public half of a key pair.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyPair {
    /// What it is called; empty while it does not exist.
    pub name: String,
    /// Whose it is; none is the estate's.
    pub project: Option<Uuid>,
    /// The public key; none while it does not exist.
    pub key: Option<PublicKey>,
    /// Whether it is put on no more servers.
    pub retired: bool,
}

static VERBS: &[Verb] = &[
    Verb::operator("define", "Makes a public key known, for logging in to new servers.").creating(),
    Verb::operator("retire", "Puts it on no more servers; those that have it keep it."),
];

impl Decider for KeyPair {
    const KIND: &'static str = "key-pair";
    const PLURAL: &'static str = "key-pairs";
    const SUMMARY: &'static str = "The public key by which somebody logs in to a server.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let no = |detail: &str| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        Ok(match command {
            Command::Define { name, project, public_key } => {
                check_name(&name)?;
                let key: PublicKey = public_key.parse()?;
                if self.key.is_some() && (&self.name, self.project) != (&name, project) {
                    return no("name: name and project stay as they were first said");
                }
                match &self.key {
                    Some(known) if *known == key && !self.retired => vec![],
                    Some(_) if !self.retired => {
                        let detail = "it has another key; retire it first";
                        return Err(Refusal::new(&codes::ALREADY_EXISTS, detail));
                    }
                    _ => vec![Event::Defined { name, project, key }],
                }
            }
            Command::Retire {} if self.key.is_none() => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such key pair"));
            }
            Command::Retire {} if self.retired => vec![],
            Command::Retire {} => vec![Event::Retired {}],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { name, project, key } => {
                Self { name, project, key: Some(key), retired: false }
            }
            Event::Retired {} => {
                self.retired = true;
                self
            }
        }
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.key, self.retired) {
            (None, _) => "absent",
            (_, true) => "retired",
            _ => "defined",
        }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            project: self.project,
            gone: self.retired,
            ..Facets::default()
        }
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let new = self.key.is_none();
        let of = |event: &Event| match event {
            Event::Defined { name, project, .. } => {
                let project = project.map_or_else(|| "-".to_owned(), |id| id.to_string());
                Some(format!("key-pair/{project}/{name}"))
            }
            Event::Retired {} => None,
        };
        events.iter().filter(|_| new).filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests;
