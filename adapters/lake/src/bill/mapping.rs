//! How a source writes a bill: data, so that a new source needs no new code.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::segment::COLUMNS;

/// Which columns of a source feed which columns of FOCUS, and how they are written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// What it is called.
    pub name: String,
    /// Columns of the heading by which the source is known.
    #[serde(default)]
    pub detect: Vec<String>,
    /// For columns of FOCUS, where their values come from.
    pub columns: BTreeMap<String, Source>,
    /// For columns of FOCUS, what holds when the source says nothing.
    #[serde(default)]
    pub constants: BTreeMap<String, String>,
    /// For columns of FOCUS, what the source's words mean there.
    #[serde(default)]
    pub values: BTreeMap<String, BTreeMap<String, String>>,
    /// Columns that begin so are tags, by the rest of their name. The first that fits holds.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What is left off where a key in `Tags` begins with it.
    #[serde(default)]
    pub tag_key_prefix: String,
    /// Patterns of dates (of strftime) that are not ISO 8601.
    #[serde(default)]
    pub dates: Vec<String>,
    /// What is between a number's whole and its decimals.
    #[serde(default = "point")]
    pub decimal_mark: char,
    /// What may be between a number's thousands.
    #[serde(default)]
    pub thousands_mark: Option<char>,
    /// Texts that say nothing, besides the empty one.
    #[serde(default = "nulls")]
    pub nulls: Vec<String>,
}

/// Where a value comes from: the first of the terms that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(pub Vec<Term>);

/// One way to a value: exactly one of `column`, `value`, and `add` with `less`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// The value of this column.
    pub column: Option<String>,
    /// This text.
    pub value: Option<String>,
    /// For costs: the sum of these columns,
    #[serde(default)]
    pub add: Vec<String>,
    /// less these.
    #[serde(default)]
    pub less: Vec<String>,
    /// Only in lines where each of these columns has one of the values; `*` is any.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
}

/// Why a mapping is none.
#[derive(Debug, thiserror::Error)]
pub enum MappingFault {
    /// It does not read as TOML.
    #[error("the mapping cannot be read: {0}")]
    Toml(#[from] toml::de::Error),
    /// It does not read as JSON.
    #[error("the mapping cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// No mapping that is built in is called so.
    #[error("there is no mapping {name:?}, only {}", .known.join(", "))]
    UnknownName {
        /// What was asked for.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// It names a column that lines do not have.
    #[error("mapping {mapping}: {column} is not a column of a line; those are {}", .known.join(", "))]
    UnknownColumn {
        /// The mapping.
        mapping: String,
        /// The column.
        column: String,
        /// The columns there are.
        known: Vec<&'static str>,
    },
    /// A term says nothing, or more than one thing.
    #[error(
        "mapping {mapping}: a term of {column} needs exactly one of column, value and add (with \
         less, and for costs only)"
    )]
    Term {
        /// The mapping.
        mapping: String,
        /// The column.
        column: String,
    },
    /// Nothing feeds a column that every line needs.
    #[error("mapping {mapping}: nothing feeds {}", .columns.join(", "))]
    Unfed {
        /// The mapping.
        mapping: String,
        /// The columns.
        columns: Vec<&'static str>,
    },
}

/// What a line cannot be booked without.
pub(super) const NEEDED: [&str; 6] = [
    "BilledCost",
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodStart",
    "ChargePeriodEnd",
    "ChargePeriodStart",
];
/// What is only compared.
const COMPARED: [&str; 2] = ["ListUnitPrice", "PricingQuantity"];

/// The mappings that are built in, sorted. The first whose `detect` fits a heading is taken.
const BUILT_IN: &[&str] = &[
    include_str!("../../mappings/aws-cur.toml"),
    include_str!("../../mappings/aws-cur-2.toml"),
    include_str!("../../mappings/focus.toml"),
    include_str!("../../mappings/oci.toml"),
];

impl Mapping {
    /// Reads one that is written in TOML.
    pub fn from_toml(text: &str) -> Result<Self, MappingFault> {
        toml::from_str::<Self>(text)?.checked()
    }

    /// Reads one that is written in JSON.
    pub fn from_json(text: &str) -> Result<Self, MappingFault> {
        serde_json::from_str::<Self>(text)?.checked()
    }

    /// The one that a name or a text of JSON stands for.
    pub fn named(text: &str) -> Result<Self, MappingFault> {
        if text.trim_start().starts_with('{') {
            return Self::from_json(text);
        }
        let known = Self::built_in();
        let names = || known.iter().map(|one| one.name.clone()).collect();
        let unknown = MappingFault::UnknownName { name: text.to_owned(), known: names() };
        known.into_iter().find(|one| one.name == text).ok_or(unknown)
    }

    /// Those that are built in.
    pub fn built_in() -> Vec<Self> {
        BUILT_IN
            .iter()
            .map(|text| Self::from_toml(text).expect("a test reads the built-in mappings"))
            .collect()
    }

    /// The built-in mapping for a bill with this heading.
    pub fn detect<'a>(heading: impl IntoIterator<Item = &'a str> + Clone) -> Option<Self> {
        let has = |name: &String| heading.clone().into_iter().any(|column| column == name);
        Self::built_in().into_iter().find(|mapping| mapping.detect.iter().all(has))
    }

    /// The columns that can be fed.
    pub(super) fn known() -> impl Iterator<Item = &'static str> {
        let lines = COLUMNS.iter().map(|column| column.name).filter(|name| !name.starts_with("x_"));
        lines.chain(COMPARED)
    }

    fn checked(self) -> Result<Self, MappingFault> {
        let mapping = || self.name.clone();
        let named = self.columns.keys().chain(self.constants.keys()).chain(self.values.keys());
        if let Some(column) = named.into_iter().find(|name| !Self::known().any(|one| one == *name))
        {
            let known = Self::known().collect();
            return Err(MappingFault::UnknownColumn {
                mapping: mapping(),
                column: column.clone(),
                known,
            });
        }
        for (column, Source(terms)) in &self.columns {
            let right = |term: &Term| {
                let sum = !term.add.is_empty() || !term.less.is_empty();
                let ways = [term.column.is_some(), term.value.is_some(), sum];
                ways.into_iter().filter(|way| *way).count() == 1
                    && (!sum || column.ends_with("Cost"))
            };
            if terms.is_empty() || !terms.iter().all(right) {
                return Err(MappingFault::Term { mapping: mapping(), column: column.clone() });
            }
        }
        let fed = |name: &str| self.columns.contains_key(name) || self.constants.contains_key(name);
        let columns: Vec<_> = NEEDED.into_iter().filter(|name| !fed(name)).collect();
        if !columns.is_empty() {
            return Err(MappingFault::Unfed { mapping: mapping(), columns });
        }
        Ok(self)
    }
}

fn point() -> char {
    '.'
}

fn nulls() -> Vec<String> {
    vec!["NULL".to_owned()]
}

/// A column's name, or a list of names and terms. By hand, for untagged enums hide what is wrong.
impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sources;
        impl<'de> Visitor<'de> for Sources {
            type Value = Source;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a column's name, a term, or a list of them")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Source, E> {
                Ok(Source(vec![Term { column: Some(name.to_owned()), ..Term::default() }]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                Term::deserialize(MapAccessDeserializer::new(map)).map(|term| Source(vec![term]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Source, A::Error> {
                let mut terms = Vec::new();
                while let Some(Source(term)) = list.next_element()? {
                    terms.extend(term);
                }
                Ok(Source(terms))
            }
        }
        deserializer.deserialize_any(Sources)
    }
}
