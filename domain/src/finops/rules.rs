//! Rules of costs: whose a line is, and how what is shared is spread.

use std::collections::{BTreeMap, BTreeSet};

use num_traits::Signed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    allocate::{self, Basis, Fallback, Weighing},
    cost::Dimension,
    ratio::{self, Ratio},
};
use crate::kernel::{Refusal, codes};

/// The centre of what no rule places.
pub const UNALLOCATED: &str = "unallocated";

/// Longest name of a rule or centre, in characters.
const NAME_CHARS_MAX: usize = 100;
/// Most rules of each sort.
const RULES_MAX: usize = 500;
/// Most conditions of a rule, values of a condition, and targets.
const PARTS_MAX: usize = 500;

/// Longest number, in bytes.
const NUMBER_BYTES_MAX: usize = 40;

/// How a condition compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// Equal to one of the values; the empty value is what has nothing there.
    #[default]
    Is,
    /// Begins with one of them.
    Begins,
    /// Contains one of them, letter case aside.
    Contains,
}

/// One condition on a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// A dimension of costs, such as `service` or `tags.env`.
    pub dimension: String,
    /// How.
    #[serde(default)]
    pub compare: Compare,
    /// With what.
    pub values: Vec<String>,
}

impl Condition {
    /// Whether what was found is meant.
    pub(crate) fn holds(&self, found: &str) -> bool {
        self.values.iter().any(|value| match self.compare {
            Compare::Is => found == value,
            Compare::Begins => found.starts_with(value.as_str()),
            Compare::Contains => found.to_lowercase().contains(&value.to_lowercase()),
        })
    }
}

/// Whether all conditions must hold, or one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// All.
    #[default]
    All,
    /// One is enough.
    Any,
}

/// Places lines in a centre. The first rule that matches a line wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attribution {
    /// Unique among the rules.
    pub name: String,
    /// How many of the conditions must hold.
    #[serde(default, rename = "match")]
    pub how: Match,
    /// On the line.
    pub conditions: Vec<Condition>,
    /// Where it goes: a project, or a pool that a shared rule spreads.
    pub centre: String,
}

/// How a shared cost is weighed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// The same for each target.
    Even {},
    /// By the targets' own cost before any rule; a target without a positive cost gets nothing.
    Proportional {
        /// When no target has a cost.
        fallback: Otherwise,
    },
    /// By a quantity of each target, such as heads or requests.
    Driver {
        /// Decimals, by target; a target that is not here has none.
        values: BTreeMap<String, String>,
        /// When every quantity is zero.
        fallback: Otherwise,
    },
    /// Percents, by target, 100 at most in all; the rest stays in the pool.
    Fixed {
        /// Decimals, by target.
        percent: BTreeMap<String, String>,
    },
}

/// What happens when nobody weighs anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    /// Everybody gets the same.
    Even,
    /// It stays in the pool.
    Keep,
    /// The run is refused.
    Refuse,
}

impl From<Otherwise> for Fallback {
    fn from(otherwise: Otherwise) -> Self {
        match otherwise {
            Otherwise::Even => Self::Even,
            Otherwise::Keep => Self::Keep,
            Otherwise::Refuse => Self::Refuse,
        }
    }
}

/// Spreads what a centre has over others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// Unique among the rules.
    pub name: String,
    /// Whose cost is spread.
    pub pool: String,
    /// To whom; empty is every centre that lines were placed in and that no rule spreads.
    #[serde(default)]
    pub targets: Vec<String>,
    /// By what.
    pub method: Method,
}

/// Whose a line is, and how what is shared is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// In order: the first that matches wins.
    #[serde(default)]
    pub attribution: Vec<Attribution>,
    /// In order: a later one may spread what an earlier one gave.
    #[serde(default)]
    pub shared: Vec<Shared>,
}

fn invalid(detail: impl std::fmt::Display) -> Refusal {
    Refusal::new(&codes::RULES_INVALID, detail.to_string())
}

fn named(what: &str, name: &str) -> Result<(), Refusal> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    if fits && name.trim() == name && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid(format!(
        "{what} {name:?} needs 1 to {NAME_CHARS_MAX} characters, none at its edges blank"
    )))
}

fn ratios(
    rule: &str,
    texts: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Ratio>, Refusal> {
    let read = |(target, text): (&String, &String)| {
        let number = Some(text).filter(|text| text.len() <= NUMBER_BYTES_MAX);
        let number = number
            .and_then(|text| ratio::parse(text))
            .ok_or_else(|| invalid(format!("rule {rule}: {text:?} of {target} is no number")))?;
        if number.is_negative() {
            return Err(invalid(format!("rule {rule}: {target} has less than nothing")));
        }
        Ok((target.clone(), number))
    };
    texts.iter().map(read).collect()
}

impl Shared {
    fn weighing(&self) -> Result<(Weighing, BTreeMap<String, Ratio>), Refusal> {
        Ok(match &self.method {
            Method::Even {} => (Weighing::Even, BTreeMap::new()),
            Method::Proportional { fallback } => {
                let fallback = (*fallback).into();
                (Weighing::Proportional { basis: Basis::Direct, fallback }, BTreeMap::new())
            }
            Method::Driver { values, fallback } => {
                let name = self.name.clone();
                let weighing = Weighing::Driver { name, fallback: (*fallback).into() };
                (weighing, ratios(&self.name, values)?)
            }
            Method::Fixed { percent } => {
                (Weighing::Fixed(ratios(&self.name, percent)?), BTreeMap::new())
            }
        })
    }
}

/// A line's centre, and the rule that placed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// The centre.
    pub centre: &'a str,
    /// The rule; none for what no rule places.
    pub rule: Option<&'a str>,
}

/// Rules whose names are resolved, so that much can be placed.
#[derive(Debug)]
pub struct Placing<'a> {
    dimensions: Vec<Dimension>,
    /// Each rule with, for each condition, which dimension it looks at.
    rules: Vec<(&'a Attribution, Vec<usize>)>,
}

impl Placing<'_> {
    /// What the rules look at, each once: [`Placing::of`] is told of them in this order.
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// Where lines belong that have these values in [`Placing::dimensions`].
    pub fn of<T: AsRef<str>>(&self, values: &[T]) -> Placed<'_> {
        let value = |at: usize| values.get(at).map_or("", AsRef::as_ref);
        let matches = |rule: &Attribution, places: &[usize]| {
            let pairs = rule.conditions.iter().zip(places);
            let mut held = pairs.map(|(condition, at)| condition.holds(value(*at)));
            match rule.how {
                Match::All => held.all(|yes| yes),
                Match::Any => held.any(|yes| yes),
            }
        };
        let found = self.rules.iter().find(|(rule, places)| matches(rule, places));
        found.map_or(Placed { centre: UNALLOCATED, rule: None }, |(rule, _)| Placed {
            centre: &rule.centre,
            rule: Some(&rule.name),
        })
    }
}

impl Rules {
    /// Whether these rules may be saved.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.attribution.len().max(self.shared.len()) > RULES_MAX {
            return Err(invalid(format!("there are at most {RULES_MAX} rules of each sort")));
        }
        let mut names = BTreeSet::new();
        let attribution = self.attribution.iter().map(|rule| &rule.name);
        for name in attribution.chain(self.shared.iter().map(|rule| &rule.name)) {
            named("rule", name)?;
            if !names.insert(name) {
                return Err(invalid(format!("two rules are called {name}")));
            }
        }
        for rule in &self.attribution {
            named("centre", &rule.centre)?;
            let parts = rule.conditions.iter().map(|condition| condition.values.len());
            if rule.conditions.is_empty() || parts.sum::<usize>() > PARTS_MAX {
                let detail = format!("rule {} has no condition, or too many values", rule.name);
                return Err(invalid(detail));
            }
            if rule.conditions.iter().any(|condition| condition.values.is_empty()) {
                return Err(invalid(format!("rule {}: a condition has no value", rule.name)));
            }
        }
        self.placing()?;
        for rule in &self.shared {
            named("pool", &rule.pool)?;
            rule.targets.iter().try_for_each(|target| named("target", target))?;
            if rule.targets.len() > PARTS_MAX {
                return Err(invalid(format!("rule {} has too many targets", rule.name)));
            }
        }
        // Centres that lines are placed in stand for all there will be.
        let centres = self.attribution.iter().map(|rule| rule.centre.clone()).collect();
        let (rules, _) = self.spreading(&centres)?;
        let complete = rules.iter().filter(|rule| !rule.targets.is_empty()).cloned();
        allocate::check(&complete.collect::<Vec<_>>()).map_err(invalid)
    }

    /// Ready to place lines.
    pub fn placing(&self) -> Result<Placing<'_>, Refusal> {
        let mut placing = Placing { dimensions: Vec::new(), rules: Vec::new() };
        for rule in &self.attribution {
            let mut places = Vec::with_capacity(rule.conditions.len());
            for condition in &rule.conditions {
                let dimension: Dimension = condition
                    .dimension
                    .parse()
                    .map_err(|what| invalid(format!("rule {}: {what}", rule.name)))?;
                let known = placing.dimensions.iter().position(|one| *one == dimension);
                places.push(known.unwrap_or(placing.dimensions.len()));
                if known.is_none() {
                    placing.dimensions.push(dimension);
                }
            }
            placing.rules.push((rule, places));
        }
        Ok(placing)
    }

    /// Ready to spread, over these centres where a rule names none.
    pub fn spreading(
        &self,
        centres: &BTreeSet<String>,
    ) -> Result<(Vec<allocate::Rule>, allocate::Drivers), Refusal> {
        let pools: BTreeSet<&String> = self.shared.iter().map(|rule| &rule.pool).collect();
        let (mut rules, mut drivers) = (Vec::new(), allocate::Drivers::new());
        for rule in &self.shared {
            let (weighing, values) = rule.weighing()?;
            let own =
                values.into_iter().map(|(target, value)| ((rule.name.clone(), target), value));
            drivers.extend(own);
            let named: BTreeSet<String> = match &weighing {
                Weighing::Fixed(percent) if rule.targets.is_empty() => {
                    percent.keys().cloned().collect()
                }
                _ => rule.targets.iter().cloned().collect(),
            };
            let targets = if named.is_empty() {
                let direct = centres
                    .iter()
                    .filter(|centre| !pools.contains(centre) && centre.as_str() != UNALLOCATED);
                direct.cloned().collect()
            } else {
                named
            };
            let (id, source) = (rule.name.clone(), rule.pool.clone());
            rules.push(allocate::Rule { id, source, targets, weighing });
        }
        Ok((rules, drivers))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::finops::{allocate::Buckets, cost::tests::line};

    fn rules(value: serde_json::Value) -> Rules {
        serde_json::from_value(value).unwrap()
    }

    pub(in crate::finops) fn shop() -> Rules {
        rules(json!({
            "attribution": [
                {"name": "network", "centre": "pool:network",
                 "conditions": [{"dimension": "service", "compare": "begins", "values": ["VPC"]}]},
                {"name": "prod", "centre": "shop", "match": "any", "conditions": [
                    {"dimension": "tags.env", "values": ["prod"]},
                    {"dimension": "service", "compare": "contains", "values": ["SHOP"]},
                ]},
                {"name": "untagged", "centre": "lab",
                 "conditions": [
                    {"dimension": "tags.env", "values": [""]},
                    {"dimension": "service", "values": ["EC2"]},
                ]},
            ],
            "shared": [{"name": "by cost", "pool": "pool:network",
                        "method": {"proportional": {"fallback": "even"}}}],
        }))
    }

    #[test]
    fn the_first_rule_that_matches_places_a_line_and_is_named() {
        let rules = shop();
        rules.check().unwrap();
        let placing = rules.placing().unwrap();
        let cases = [
            (line("VPC endpoints", "USD", "1", Some("prod")), "pool:network", Some("network")),
            (line("EC2", "USD", "1", Some("prod")), "shop", Some("prod")),
            (line("my shop", "USD", "1", None), "shop", Some("prod")),
            (line("EC2", "USD", "1", None), "lab", Some("untagged")),
            (line("EC2", "USD", "1", Some("dev")), UNALLOCATED, None),
        ];
        for (line, centre, rule) in cases {
            let values: Vec<_> = placing.dimensions().iter().map(|one| one.of(&line)).collect();
            assert_eq!(placing.of(&values), Placed { centre, rule }, "{line:?}");
        }
    }

    #[test]
    fn a_shared_rule_without_targets_spreads_over_the_centres_that_are_no_pools() {
        let rules = shop();
        let centres = ["lab", "pool:network", "shop", UNALLOCATED].map(str::to_owned).into();
        let (spreading, drivers) = rules.spreading(&centres).unwrap();
        let bucket = |centre: &str| (centre.to_owned(), "USD".to_owned());
        let before: Buckets = [("lab", 1), ("pool:network", 10), ("shop", 2), (UNALLOCATED, 5)]
            .map(|(centre, amount)| (bucket(centre), amount))
            .into();
        let after = allocate::allocate(&before, &spreading, &drivers).unwrap();
        let of = |centre| after.buckets.get(&bucket(centre)).copied().unwrap_or(0);
        assert_eq!([of("lab"), of("shop"), of("pool:network"), of(UNALLOCATED)], [4, 9, 0, 5]);
    }

    #[test]
    fn what_cannot_count_is_not_saved() {
        let condition = json!([{"dimension": "service", "values": ["a"]}]);
        let one = |name: &str, centre: &str| json!({"name": name, "centre": centre, "conditions": condition});
        let shared = |pool: &str, target: &str| json!({"name": pool, "pool": pool, "targets": [target], "method": {"even": {}}});
        let fixed = |percent: serde_json::Value| json!({"shared": [{"name": "f", "pool": "p", "method": {"fixed": {"percent": percent}}}]});
        let cases = [
            (json!({"attribution": [one("a", "x"), one("a", "y")]}), "two rules are called a"),
            (json!({"attribution": [one("a", " x")]}), "none at its edges"),
            (
                json!({"attribution": [{"name": "a", "centre": "x", "conditions": []}]}),
                "no condition",
            ),
            (
                json!({"attribution": [{"name": "a", "centre": "x",
                "conditions": [{"dimension": "servce", "values": ["a"]}]}]}),
                "servce",
            ),
            (json!({"shared": [shared("p", "q"), shared("q", "p")]}), "circle: p → q → p"),
            (json!({"shared": [shared("p", "p")]}), "no target"),
            (fixed(json!({"a": "60", "b": "40.01"})), "more than 100"),
            (fixed(json!({"a": "-1"})), "less than nothing"),
            (fixed(json!({"a": "ten"})), "is no number"),
        ];
        for (value, words) in cases {
            let refusal = rules(value.clone()).check().unwrap_err();
            assert_eq!(refusal.code.code, "rules-invalid", "{value}");
            assert!(refusal.detail.contains(words), "{value}: {}", refusal.detail);
        }
    }
}
