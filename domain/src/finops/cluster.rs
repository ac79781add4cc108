//! Whose the containers of a cluster are.
//!
//! ```text
//!   absent ── define ──► defined ◄─┐ define
//!                           └──────┘
//! ```

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Most rules.
const PLACES_MAX: usize = 1_000;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 253;

/// Gives what it fits to a project. What is left out fits everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Only what lies in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only what has all these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The project's id.
    pub project: Uuid,
}

/// A command of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say whose its containers are.
    Define {
        /// What it is called, 1…100 characters.
        name: String,
        /// In order: the first that fits wins.
        #[serde(default)]
        places: Vec<Place>,
        /// Whose is what none fits; none is the estate's.
        #[serde(default)]
        otherwise: Option<Uuid>,
    },
}

/// A fact about a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// Its containers are theirs.
    Defined {
        /// What it is called.
        name: String,
        /// In order: the first that fits wins.
        places: Vec<Place>,
        /// Whose is what none fits.
        otherwise: Option<Uuid>,
    },
}

/// A cluster of containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// What it is called; empty while it does not exist.
    pub name: String,
    /// In order: the first that fits wins.
    pub places: Vec<Place>,
    /// Whose is what none fits.
    pub otherwise: Option<Uuid>,
}

static VERBS: &[Verb] = &[Verb::admin(
    "define",
    "Says whose the containers of a cluster are, by namespace and labels.",
)
.creating()];

impl Cluster {
    /// Whose something of a namespace with these labels is.
    pub fn project_of(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<Uuid> {
        let fits = |place: &&Place| {
            place.namespace.as_ref().is_none_or(|asked| asked == namespace)
                && place.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
        };
        self.places.iter().find(fits).map(|place| place.project).or(self.otherwise)
    }
}

impl Decider for Cluster {
    const KIND: &'static str = "cluster";
    const PLURAL: &'static str = "clusters";
    const SUMMARY: &'static str = "Whose the containers of a cluster are.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let Command::Define { name, places, otherwise } = command;
        crate::tenancy::check_name(&name)?;
        let long = |text: &String| text.is_empty() || text.chars().count() > TEXT_CHARS_MAX;
        let texts = |place: &Place| {
            place.labels.iter().any(|(name, value)| long(name) || value.len() > TEXT_CHARS_MAX)
                || place.namespace.as_ref().is_some_and(long)
        };
        if places.len() > PLACES_MAX || places.iter().any(texts) {
            let detail = format!(
                "places: are at most {PLACES_MAX}, with texts of 1 to {TEXT_CHARS_MAX} characters"
            );
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        if (&self.name, &self.places, self.otherwise) == (&name, &places, otherwise) {
            return Ok(vec![]);
        }
        Ok(vec![Event::Defined { name, places, otherwise }])
    }

    fn evolve(self, event: Event) -> Self {
        let Event::Defined { name, places, otherwise } = event;
        Self { name, places, otherwise }
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        if self.name.is_empty() { "absent" } else { "defined" }
    }

    fn facets(&self) -> Facets {
        Facets { name: Some(self.name.clone()), ..Facets::default() }
    }
}
