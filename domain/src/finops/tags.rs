//! Which tags a line has in effect, key by key, and where each comes from.
//!
//! The first source that has a value wins: the tag list (what people put right), the bill, the
//! resource, its project, the default. An empty value is no value. The tag list can also take a
//! key away.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the tag list says of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Listed {
    /// The key has this value, whatever the sources say.
    Value(String),
    /// The key is not there, whatever the sources say.
    Removed,
}

/// Where an effective tag comes from, in the order in which they are asked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TagSource {
    /// The tag list.
    TagList,
    /// The bill's line.
    Bill,
    /// The resource, as it was at the time of the charge.
    Resource,
    /// The project, as it was then.
    Project,
    /// The default.
    Default,
}

/// What each source says of one line.
#[derive(Clone, Copy, Debug)]
pub struct TagSources<'a> {
    /// The entries of the tag list that are valid at the time of the charge.
    pub tag_list: &'a BTreeMap<String, Listed>,
    /// The line's own tags.
    pub bill: &'a BTreeMap<String, String>,
    /// The resource's.
    pub resource: &'a BTreeMap<String, String>,
    /// The project's.
    pub project: &'a BTreeMap<String, String>,
    /// What is taken when nobody says anything.
    pub default: &'a BTreeMap<String, String>,
}

/// A tag in effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EffectiveTag {
    /// Its value, never empty.
    pub value: String,
    /// Who said so.
    pub source: TagSource,
}

/// The tags in effect, by key.
pub fn effective(sources: TagSources<'_>) -> BTreeMap<String, EffectiveTag> {
    let TagSources { tag_list, bill, resource, project, default } = sources;
    let plain = [
        (TagSource::Bill, bill),
        (TagSource::Resource, resource),
        (TagSource::Project, project),
        (TagSource::Default, default),
    ];
    let keys: BTreeSet<&String> =
        tag_list.keys().chain(plain.iter().flat_map(|(_, tags)| tags.keys())).collect();
    let one = |key: &String| match tag_list.get(key) {
        Some(Listed::Removed) => None,
        Some(Listed::Value(value)) if !value.is_empty() => {
            Some(EffectiveTag { value: value.clone(), source: TagSource::TagList })
        }
        _ => plain.iter().find_map(|(source, tags)| {
            let value = tags.get(key).filter(|value| !value.is_empty())?;
            Some(EffectiveTag { value: value.clone(), source: *source })
        }),
    };
    keys.into_iter().filter_map(|key| Some((key.clone(), one(key)?))).collect()
}
