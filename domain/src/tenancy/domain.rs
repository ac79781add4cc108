//! A part of the estate with projects of its own: a company, a subsidiary, a customer.
//!
//! ```text
//!   absent ── create ──► active ◄── restore ──── archive ──► archived
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_name;
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// A command of a domain.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Let nothing new into it.
    Archive {},
    /// Begin it.
    Create {
        /// 1…100 characters.
        name: String,
    },
    /// Call it something else.
    Rename {
        /// 1…100 characters.
        name: String,
    },
    /// Take an archived one back.
    Restore {},
}

/// A fact about a domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// Nothing new comes into it.
    Archived {},
    /// It has begun.
    Created {
        /// What it is called.
        name: String,
    },
    /// It is called something else.
    Renamed {
        /// What it is called from now on.
        name: String,
    },
    /// It is active again.
    Restored {},
}

/// A part of the estate with projects of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Domain {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Whether nothing new comes into it.
    pub archived: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin("archive", "Lets nothing new into the domain."),
    Verb::admin("create", "Begins a domain.").creating(),
    Verb::admin("rename", "Calls the domain something else."),
    Verb::admin("restore", "Takes an archived domain back."),
];

impl Decider for Domain {
    const KIND: &'static str = "domain";
    const PLURAL: &'static str = "domains";
    const SUMMARY: &'static str = "A part of the estate with projects of its own.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let exists = !self.name.is_empty();
        Ok(match command {
            Command::Create { .. } if exists => {
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the domain exists"));
            }
            Command::Create { name } => {
                check_name(&name)?;
                vec![Event::Created { name }]
            }
            _ if !exists => return Err(Refusal::new(&codes::NOT_FOUND, "there is no such domain")),
            Command::Archive {} if self.archived => vec![],
            Command::Archive {} => vec![Event::Archived {}],
            Command::Rename { name } if name == self.name => vec![],
            Command::Rename { name } => {
                check_name(&name)?;
                vec![Event::Renamed { name }]
            }
            Command::Restore {} if self.archived => vec![Event::Restored {}],
            Command::Restore {} => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Archived {} => self.archived = true,
            Event::Created { name } | Event::Renamed { name } => self.name = name,
            Event::Restored {} => self.archived = false,
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.name.is_empty(), self.archived) {
            (true, _) => "absent",
            (_, true) => "archived",
            _ => "active",
        }
    }

    fn facets(&self) -> Facets {
        Facets { name: Some(self.name.clone()), gone: self.archived, ..Facets::default() }
    }
}
