//! Rules of costs as they are drafted, tried and published.
//!
//! ```text
//!   absent ── define ──► draft ── publish ──► published ◄─┐
//!                        ▲   │                   │        │ define (a draft beside what is
//!                        └───┘ define            └────────┘  published), publish
//! ```
//!
//! A rule set is a draft until it is published; a draft is tried on any past months beside what is
//! published. Publishing is one event, and makes the next revision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::Rules;
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// A command of a rule set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Write a draft.
    Define {
        /// What the set is called, 1…100 characters; as before when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// All of them.
        rules: Rules,
    },
    /// Let the draft count.
    Publish {},
}

/// A fact about a rule set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// There is a draft.
    Defined {
        /// What the set is called.
        name: String,
        /// All of them.
        rules: Rules,
    },
    /// The draft counts.
    Published {
        /// From 1.
        revision: u64,
        /// What counts.
        rules: Rules,
    },
}

/// Rules, as they are drafted and as they count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleSet {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// What is drafted, when it differs from what counts.
    pub draft: Option<Rules>,
    /// What counts.
    pub published: Option<Rules>,
    /// How often it was published.
    pub revision: u64,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Writes a draft of the rules.").creating(),
    Verb::admin("publish", "Lets the draft count, as the next revision."),
];

impl Decider for RuleSet {
    const KIND: &'static str = "rule-set";
    const PLURAL: &'static str = "rule-sets";
    const SUMMARY: &'static str = "Whose costs are, and how what is shared is spread.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Define { name, rules } => {
                let name = name.unwrap_or_else(|| self.name.clone());
                crate::tenancy::check_name(&name)?;
                rules.check()?;
                let counts = if self.draft.is_some() { &self.draft } else { &self.published };
                if name == self.name && counts.as_ref() == Some(&rules) {
                    vec![]
                } else {
                    vec![Event::Defined { name, rules }]
                }
            }
            Command::Publish {} => match &self.draft {
                Some(rules) => {
                    vec![Event::Published { revision: self.revision + 1, rules: rules.clone() }]
                }
                None if self.name.is_empty() => {
                    return Err(Refusal::new(&codes::NOT_FOUND, "there is no such rule set"));
                }
                None => vec![],
            },
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { name, rules } => {
                self.name = name;
                self.draft = (self.published.as_ref() != Some(&rules)).then_some(rules);
            }
            Event::Published { revision, rules } => {
                self.revision = revision;
                self.published = Some(rules);
                self.draft = None;
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.name.is_empty(), &self.published) {
            (true, _) => "absent",
            (_, None) => "draft",
            _ => "published",
        }
    }

    fn facets(&self) -> Facets {
        Facets { name: Some(self.name.clone()), ..Facets::default() }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::finops::rules::tests::shop;

    #[test]
    fn a_draft_counts_once_it_is_published() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let define = |rules: Rules| Command::Define { name: Some("costs".into()), rules };
        let step = |set: RuleSet, command: Command| {
            let events = set.decide(command, &stamp).unwrap();
            let count = events.len();
            (events.into_iter().fold(set, Decider::evolve), count)
        };
        let (set, _) = step(RuleSet::default(), define(shop()));
        assert_eq!((set.status(), set.published.is_some()), ("draft", false));
        let (set, _) = step(set, Command::Publish {});
        assert_eq!((set.status(), set.revision, &set.draft), ("published", 1, &None));
        let (set, count) = step(set, define(shop()));
        assert_eq!(count, 0, "the same rules again");
        let (set, _) = step(set, define(Rules::default()));
        assert_eq!(
            (set.published.as_ref(), set.draft.as_ref()),
            (Some(&shop()), Some(&Rules::default()))
        );
        let (set, _) = step(set, define(shop()));
        assert_eq!(set.draft, None, "drafted back to what counts");
        let (set, count) = step(set, Command::Publish {});
        assert_eq!((count, set.revision), (0, 1));
        let refused = RuleSet::default().decide(Command::Publish {}, &stamp).unwrap_err();
        assert_eq!(refused.code.code, "not-found");
    }
}
