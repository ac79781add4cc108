//! What a server of a shape has.
//!
//! ```text
//!   absent ── define ──► defined ◄─┐ define
//!                           └──────┘
//! ```
//!
//! Providers name the size of a server and do not always say what is in it. What a shape has counts
//! from when it was defined: the past is metered by what was known then.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    finops::amount::Amount,
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Most models of cards in one shape.
const MODELS_MAX: usize = 16;
/// Most of anything in one shape.
const COUNT_MAX: u32 = 100_000;

/// What a server of a shape has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Equipment {
    /// Virtual processors, 1…100,000.
    pub vcpus: u32,
    /// Memory in GiB, a decimal.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"))]
    pub memory_gib: Amount,
    /// Whole graphics cards: how many of each model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gpus: BTreeMap<String, u32>,
    /// Parts of graphics cards: how many of each model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vgpus: BTreeMap<String, u32>,
    /// It is a machine of its own: metered as one, by its shape, while it is there.
    #[serde(default)]
    pub bare_metal: bool,
}

/// A command of a shape.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say what it has, from now on.
    Define {
        /// The provider, for instance `aws`.
        provider: String,
        /// The provider's name of it, for instance `m7g.large`.
        name: String,
        /// What a server of it has.
        equipment: Equipment,
    },
}

/// A fact about a shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It has this from now on.
    Defined {
        /// The provider.
        provider: String,
        /// The provider's name of it.
        name: String,
        /// What a server of it has.
        equipment: Equipment,
    },
}

/// What a server of a shape has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// The provider; empty while it does not exist.
    pub provider: String,
    /// The provider's name of it.
    pub name: String,
    /// What a server of it has.
    pub equipment: Equipment,
}

static VERBS: &[Verb] =
    &[Verb::admin("define", "Says what a server of this shape has, from now on.").creating()];

impl Decider for Shape {
    const KIND: &'static str = "shape";
    const PLURAL: &'static str = "shapes";
    const SUMMARY: &'static str = "What a server of a shape has.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let Command::Define { provider, name, equipment } = command;
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        crate::tenancy::check_name(&provider)?;
        crate::tenancy::check_name(&name)?;
        if !self.name.is_empty() && (&self.provider, &self.name) != (&provider, &name) {
            return no(format!("name: this is {} of {}", self.name, self.provider));
        }
        let cards = || equipment.gpus.values().chain(equipment.vgpus.values());
        let counts = cards().chain([&equipment.vcpus]).all(|count| (1..=COUNT_MAX).contains(count));
        if !counts || cards().count() > MODELS_MAX {
            let models = format!("at most {MODELS_MAX} models of cards");
            return no(format!("equipment: counts are 1 to {COUNT_MAX}, of {models}"));
        }
        let largest = Amount(i128::from(COUNT_MAX) * 1_000 * 10_i128.pow(12));
        if !(Amount(1)..=largest).contains(&equipment.memory_gib) {
            return no(format!("memory_gib: is not above 0 and at most {largest}"));
        }
        if equipment == self.equipment && !self.name.is_empty() {
            return Ok(vec![]);
        }
        Ok(vec![Event::Defined { provider, name, equipment }])
    }

    fn evolve(self, event: Event) -> Self {
        let Event::Defined { provider, name, equipment } = event;
        Self { provider, name, equipment }
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        if self.name.is_empty() { "absent" } else { "defined" }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            provider: Some(self.provider.clone()),
            ..Facets::default()
        }
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let new = self.name.is_empty();
        let of = |Event::Defined { provider, name, .. }: &Event| format!("shape/{provider}/{name}");
        events.iter().filter(|_| new).map(of).collect()
    }
}
