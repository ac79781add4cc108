//! The tag list, one entry: what people say of a billed resource's owner and tags, from and to.
//!
//! ```text
//!            define
//!   absent ────────► listed ── retire ──► retired
//!                    │    ▲                  │
//!                    └────┴──────────────────┘ define
//! ```
//!
//! It overrides what the bill, the resource and its project say, and fills in what they do not.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
    tenancy::check_tags,
};

/// Longest id of a resource, in bytes.
const RESOURCE_BYTES_MAX: usize = 1_024;

/// What people say of one billed resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// `ResourceId`, as the bill spells it.
    pub resource: String,
    /// The project that pays for it, whatever rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Uuid>,
    /// Tags it has, and with null those it does not have, whatever the bill says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Option<String>>,
    /// The first day (UTC) this holds; none is since ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NaiveDate>,
    /// The first day it holds no more; none is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NaiveDate>,
}

impl Entry {
    /// Whether it holds on a day.
    pub fn holds(&self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day < to)
    }

    fn check(&self) -> Result<(), Refusal> {
        let no = |why: &str| Err(Refusal::new(&codes::INVALID_FIELD, why.to_owned()));
        if self.resource.is_empty() || self.resource.len() > RESOURCE_BYTES_MAX {
            return no("resource: needs 1 to 1024 bytes");
        }
        if self.project.is_none() && self.tags.is_empty() {
            return no("it says neither a project nor a tag");
        }
        if !self.tags.is_empty() {
            check_tags(&self.tags)?;
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && to <= from
        {
            return no("to: is not after from");
        }
        Ok(())
    }
}

/// A command of a tagging.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say this of a resource.
    Define(Entry),
    /// Say it no more.
    Retire {},
}

/// A fact about a tagging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// This is said of a resource.
    Defined(Entry),
    /// It is said no more.
    Retired {},
}

/// One entry of the tag list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tagging {
    /// What it says; its resource is empty while the entry does not exist.
    pub entry: Entry,
    /// Whether it is said no more.
    pub retired: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin(
        "define",
        "Says who pays for a billed resource, and which tags it has, from and to.",
    )
    .creating(),
    Verb::admin("retire", "Says it no more."),
];

impl Decider for Tagging {
    const KIND: &'static str = "tagging";
    const PLURAL: &'static str = "taggings";
    const SUMMARY: &'static str = "An entry of the tag list: a billed resource's owner and tags.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let exists = !self.entry.resource.is_empty();
        Ok(match command {
            Command::Define(entry) => {
                entry.check()?;
                if exists && entry.resource != self.entry.resource {
                    let detail = format!("the entry is of {:?}", self.entry.resource);
                    return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                }
                let same = entry == self.entry && !self.retired;
                if same { vec![] } else { vec![Event::Defined(entry)] }
            }
            Command::Retire {} if !exists => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such tagging"));
            }
            Command::Retire {} if self.retired => vec![],
            Command::Retire {} => vec![Event::Retired {}],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined(entry) => {
                self.entry = entry;
                self.retired = false;
            }
            Event::Retired {} => self.retired = true,
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.entry.resource.is_empty(), self.retired) {
            (true, _) => "absent",
            (_, true) => "retired",
            _ => "listed",
        }
    }

    fn facets(&self) -> Facets {
        let tags = self.entry.tags.iter();
        Facets {
            name: Some(self.entry.resource.clone()),
            gone: self.retired,
            tags: tags.filter_map(|(name, tag)| Some((name.clone(), tag.clone()?))).collect(),
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn entry(from: Option<&str>, to: Option<&str>) -> Entry {
        let day = |text: &str| text.parse().unwrap();
        Entry {
            resource: "i-1".into(),
            tags: [("env".to_owned(), Some("prod".to_owned()))].into(),
            from: from.map(day),
            to: to.map(day),
            ..Entry::default()
        }
    }

    #[test]
    fn an_entry_holds_from_its_first_day_until_before_its_last() {
        let entry = entry(Some("2026-10-05"), Some("2026-10-07"));
        let days = ["2026-10-04", "2026-10-05", "2026-10-06", "2026-10-07"];
        assert_eq!(days.map(|day| entry.holds(day.parse().unwrap())), [false, true, true, false]);
    }

    #[test]
    fn what_says_nothing_is_not_listed() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let refused = |entry: Entry| Tagging::default().decide(Command::Define(entry), &stamp);
        for wrong in [
            Entry::default(),
            Entry { resource: "i-1".into(), ..Entry::default() },
            entry(Some("2026-10-05"), Some("2026-10-05")),
        ] {
            assert_eq!(refused(wrong).unwrap_err().code.code, "invalid-field");
        }
        let defined = refused(entry(None, None)).unwrap();
        let state = defined.into_iter().fold(Tagging::default(), Decider::evolve);
        assert_eq!(state.status(), "listed");
        assert!(state.decide(Command::Define(entry(None, None)), &stamp).unwrap().is_empty());
        let other = Entry { resource: "i-2".into(), ..entry(None, None) };
        assert!(state.decide(Command::Define(other), &stamp).is_err());
        let retired = state.clone().evolve(Event::Retired {});
        assert_eq!(retired.decide(Command::Define(entry(None, None)), &stamp).unwrap().len(), 1);
    }
}
