//! Who pays.
//!
//! ```text
//!   absent ── create ──► active ◄── restore ──── archive ──► archived
//! ```

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{check_name, check_tags};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// A command of a project.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Let nothing new into it.
    Archive {},
    /// Put it into a domain, or into none.
    Assign {
        /// The domain's id.
        #[serde(default)]
        domain: Option<Uuid>,
    },
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
    /// Set tags; null removes one, tags that are not named stay.
    Tag {
        /// Name (1…128 characters) and value (at most 256), at most 50.
        tags: BTreeMap<String, Option<String>>,
    },
}

/// A fact about a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// Nothing new comes into it.
    Archived {},
    /// It is in this domain.
    Assigned {
        /// The domain's id; none is in no domain.
        domain: Option<Uuid>,
    },
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
    /// It has other tags.
    Tagged {
        /// What changed; null is there no more.
        tags: BTreeMap<String, Option<String>>,
    },
}

/// Who pays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// Whether nothing new comes into it.
    pub archived: bool,
    /// The domain it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Uuid>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

static VERBS: &[Verb] = &[
    Verb::admin("archive", "Lets nothing new into the project."),
    Verb::admin("assign", "Puts the project into a domain, or into none."),
    Verb::admin("create", "Begins a project.").creating(),
    Verb::admin("rename", "Calls the project something else."),
    Verb::admin("restore", "Takes an archived project back."),
    Verb::admin("tag", "Sets or removes tags of the project."),
];

impl Decider for Project {
    const KIND: &'static str = "project";
    const PLURAL: &'static str = "projects";
    const SUMMARY: &'static str = "Who pays, and whose tokens reach what.";
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
                return Err(Refusal::new(&codes::ALREADY_EXISTS, "the project exists"));
            }
            Command::Create { name } => {
                check_name(&name)?;
                vec![Event::Created { name }]
            }
            _ if !exists => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such project"));
            }
            Command::Archive {} if self.archived => vec![],
            Command::Archive {} => vec![Event::Archived {}],
            Command::Assign { domain } if domain == self.domain => vec![],
            Command::Assign { domain } => vec![Event::Assigned { domain }],
            Command::Rename { name } if name == self.name => vec![],
            Command::Rename { name } => {
                check_name(&name)?;
                vec![Event::Renamed { name }]
            }
            Command::Restore {} if self.archived => vec![Event::Restored {}],
            Command::Restore {} => vec![],
            Command::Tag { mut tags } => {
                check_tags(&tags)?;
                tags.retain(|name, value| self.tags.get(name) != value.as_ref());
                if tags.is_empty() { vec![] } else { vec![Event::Tagged { tags }] }
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Archived {} => self.archived = true,
            Event::Assigned { domain } => self.domain = domain,
            Event::Created { name } | Event::Renamed { name } => self.name = name,
            Event::Restored {} => self.archived = false,
            Event::Tagged { tags } => {
                for (name, value) in tags {
                    match value {
                        Some(value) => self.tags.insert(name, value),
                        None => self.tags.remove(&name),
                    };
                }
            }
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
        Facets {
            name: Some(self.name.clone()),
            gone: self.archived,
            tags: self.tags.clone(),
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
        let state = given.iter().cloned().fold(Project::default(), Decider::evolve);
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let got = state.decide(when, &stamp);
        assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    }

    #[test]
    fn a_project_begins_once() {
        let created = Event::Created { name: "shop".into() };
        let create = || Command::Create { name: "shop".into() };
        check(&[], create(), Ok(std::slice::from_ref(&created)));
        check(&[created], create(), Err("already-exists"));
    }

    #[test]
    fn an_archived_project_can_be_taken_back() {
        let created = Event::Created { name: "shop".into() };
        check(&[created.clone(), Event::Archived {}], Command::Archive {}, Ok(&[]));
        check(&[created, Event::Archived {}], Command::Restore {}, Ok(&[Event::Restored {}]));
    }

    #[test]
    fn a_change_of_tags_tells_what_changed_and_no_more() {
        let tags = |tags: &[(&str, Option<&str>)]| -> BTreeMap<String, Option<String>> {
            tags.iter().map(|(name, value)| ((*name).into(), value.map(str::to_owned))).collect()
        };
        let given = [
            Event::Created { name: "shop".into() },
            Event::Tagged { tags: tags(&[("team", Some("web")), ("env", Some("prod"))]) },
        ];
        let wish = tags(&[("team", Some("web")), ("env", None), ("gone", None)]);
        let then = [Event::Tagged { tags: tags(&[("env", None)]) }];
        check(&given, Command::Tag { tags: wish }, Ok(&then));
        check(&given, Command::Tag { tags: tags(&[]) }, Err("invalid-field"));
        let domain = Some(Uuid::from_u128(7));
        let assigned = Event::Assigned { domain };
        check(&given, Command::Assign { domain }, Ok(std::slice::from_ref(&assigned)));
        let given = [given[0].clone(), assigned];
        check(&given, Command::Assign { domain }, Ok(&[]));
    }

    #[test]
    fn a_name_is_neither_empty_nor_padded() {
        for name in ["", " shop", "a\tb"] {
            check(&[], Command::Create { name: name.into() }, Err("invalid-field"));
        }
    }
}
