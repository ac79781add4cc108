//! Rules of costs: whose a line is, and how what is shared is spread.

use std::collections::{BTreeMap, BTreeSet};

use num_traits::Signed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    allocate::{self, Basis, Fallback, Weighing},
    amount::BillingMonth,
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
    /// On the line. A tag here is the one in effect: of the tag list, else of the bill, the
    /// resource, its project.
    pub conditions: Vec<Condition>,
    /// Where it goes: a project, by name or id, or a pool that a shared rule spreads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub centre: String,
    /// A dimension whose value is the centre, instead of `centre`; a line that has nothing there
    /// does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub centre_of: Option<String>,
    /// Whether a project is created for a centre of `centre_of` that has none of its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub create_project: bool,
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
        /// The same for single months, in place of `values`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(with = "BTreeMap<String, BTreeMap<String, String>>")]
        months: BTreeMap<BillingMonth, BTreeMap<String, String>>,
        /// When every quantity is zero.
        fallback: Otherwise,
    },
    /// Percents, by target, 100 at most in all; the rest stays in the pool.
    Fixed {
        /// Decimals, by target.
        percent: BTreeMap<String, String>,
    },
    /// By what the targets used in the month (`ConsumedQuantity`) of lines that meet all of these
    /// conditions: a meter, such as `unit` is `Hours`. Less than nothing counts as nothing.
    Usage {
        /// On the line.
        conditions: Vec<Condition>,
        /// When nobody used anything.
        fallback: Otherwise,
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
    /// The centre of what nothing else places, by `SubAccountId` or `BillingAccountId`; the former
    /// wins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub accounts: BTreeMap<String, String>,
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

/// What targets used in a month, by the rule that asks.
pub type Usage = BTreeMap<(String, String), Ratio>;

impl Shared {
    /// How it weighs in a month, and the quantities it gives itself.
    fn weighing(
        &self,
        month: Option<BillingMonth>,
    ) -> Result<(Weighing, BTreeMap<String, Ratio>), Refusal> {
        let driver = |fallback: &Otherwise| Weighing::Driver {
            name: self.name.clone(),
            fallback: (*fallback).into(),
        };
        Ok(match &self.method {
            Method::Even {} => (Weighing::Even, BTreeMap::new()),
            Method::Proportional { fallback } => {
                let fallback = (*fallback).into();
                (Weighing::Proportional { basis: Basis::Direct, fallback }, BTreeMap::new())
            }
            Method::Driver { values, months, fallback } => {
                let own = month.and_then(|month| months.get(&month));
                (driver(fallback), ratios(&self.name, own.unwrap_or(values))?)
            }
            Method::Fixed { percent } => {
                (Weighing::Fixed(ratios(&self.name, percent)?), BTreeMap::new())
            }
            Method::Usage { fallback, .. } => (driver(fallback), BTreeMap::new()),
        })
    }

    fn check(&self) -> Result<(), Refusal> {
        named("pool", &self.pool)?;
        self.targets.iter().try_for_each(|target| named("target", target))?;
        let too_many = || invalid(format!("rule {} has too many targets", self.name));
        if self.targets.len() > PARTS_MAX {
            return Err(too_many());
        }
        match &self.method {
            Method::Driver { months, .. } => {
                if months.values().map(BTreeMap::len).sum::<usize>() > RULES_MAX * 12 {
                    return Err(too_many());
                }
                months.keys().try_for_each(|month| self.weighing(Some(*month)).map(|_| ()))
            }
            Method::Usage { conditions, .. } => {
                let parts = conditions.iter().map(|condition| condition.values.len());
                if conditions.is_empty() || parts.sum::<usize>() > PARTS_MAX {
                    let detail = format!("rule {} has no condition, or too many", self.name);
                    return Err(invalid(detail));
                }
                conditions.iter().try_for_each(|condition| {
                    let read = condition.dimension.parse::<Dimension>();
                    read.map(|_| ()).map_err(|what| invalid(format!("rule {}: {what}", self.name)))
                })
            }
            _ => Ok(()),
        }
    }

    /// The same with other names of centres.
    fn called(&self, name: &impl Fn(&str) -> String) -> Self {
        let keys = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            map.iter().map(|(centre, value)| (name(centre), value.clone())).collect()
        };
        let method = match &self.method {
            Method::Driver { values, months, fallback } => Method::Driver {
                values: keys(values),
                months: months.iter().map(|(month, values)| (*month, keys(values))).collect(),
                fallback: *fallback,
            },
            Method::Fixed { percent } => Method::Fixed { percent: keys(percent) },
            other => other.clone(),
        };
        Self {
            name: self.name.clone(),
            pool: name(&self.pool),
            targets: self.targets.iter().map(|target| name(target)).collect(),
            method,
        }
    }
}

/// What placed a line: the first of these, in this order, that has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// The owner in the tag list.
    Owner,
    /// A rule.
    Rule,
    /// The project of the resource, as the inventory knows it.
    Inventory,
    /// The account's centre.
    Account,
    /// Nothing.
    Nothing,
}

impl By {
    /// As in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Rule => "rule",
            Self::Inventory => "inventory",
            Self::Account => "account",
            Self::Nothing => "nothing",
        }
    }
}

/// A line's centre, and what placed it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// The centre.
    pub centre: &'a str,
    /// What.
    pub by: By,
    /// The rule's name, when it was a rule.
    pub rule: Option<&'a str>,
}

/// Centres of a line's resource that are known beside the rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// Of its owner in the tag list.
    pub owner: Option<&'a str>,
    /// Of its project in the inventory.
    pub inventory: Option<&'a str>,
}

/// Rules whose names are resolved, so that much can be placed.
#[derive(Debug)]
pub struct Placing<'a> {
    dimensions: Vec<Dimension>,
    /// Each rule with, for each condition, which dimension it looks at, and where its centre is.
    rules: Vec<(&'a Attribution, Vec<usize>, Option<usize>)>,
    /// Where an account stands that may have a centre.
    accounts: Vec<(usize, &'a BTreeMap<String, String>)>,
}

impl<'a> Placing<'a> {
    /// What the rules look at, each once: [`Placing::of`] is told of them in this order.
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// Where lines belong that have these values in [`Placing::dimensions`].
    pub fn of<'b, T: AsRef<str>>(&'b self, values: &'b [T], known: Known<'b>) -> Placed<'b> {
        if let Some(centre) = known.owner {
            return Placed { centre, by: By::Owner, rule: None };
        }
        let value = |at: usize| values.get(at).map_or("", AsRef::as_ref);
        let centre = |(rule, places, of): &'b (&Attribution, Vec<usize>, Option<usize>)| {
            let pairs = rule.conditions.iter().zip(places);
            let mut held = pairs.map(|(condition, at)| condition.holds(value(*at)));
            let fits = match rule.how {
                Match::All => held.all(|yes| yes),
                Match::Any => held.any(|yes| yes),
            };
            let centre = of.map_or(rule.centre.as_str(), value);
            (fits && !centre.is_empty()).then_some((centre, rule.name.as_str()))
        };
        if let Some((centre, rule)) = self.rules.iter().find_map(centre) {
            return Placed { centre, by: By::Rule, rule: Some(rule) };
        }
        if let Some(centre) = known.inventory {
            return Placed { centre, by: By::Inventory, rule: None };
        }
        let account = self.accounts.iter().find_map(|(at, centres)| centres.get(value(*at)));
        account.map_or(Placed { centre: UNALLOCATED, by: By::Nothing, rule: None }, |centre| {
            Placed { centre, by: By::Account, rule: None }
        })
    }

    /// Where a dimension stands, which is one from now on if it was not.
    fn place(&mut self, dimension: Dimension) -> usize {
        let known = self.dimensions.iter().position(|one| *one == dimension);
        known.unwrap_or_else(|| {
            self.dimensions.push(dimension);
            self.dimensions.len() - 1
        })
    }

    fn add(&mut self, rule: &'a Attribution) -> Result<(), Refusal> {
        let dimension = |name: &String| {
            name.parse().map_err(|what| invalid(format!("rule {}: {what}", rule.name)))
        };
        let mut places = Vec::with_capacity(rule.conditions.len());
        for condition in &rule.conditions {
            places.push(self.place(dimension(&condition.dimension)?));
        }
        let of = rule.centre_of.as_ref().map(dimension).transpose()?.map(|one| self.place(one));
        self.rules.push((rule, places, of));
        Ok(())
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
            match (&rule.centre_of, rule.centre.is_empty()) {
                (None, _) => named("centre", &rule.centre)?,
                (Some(_), true) => {}
                (Some(_), false) => {
                    let detail = format!("rule {} has both a centre and centre_of", rule.name);
                    return Err(invalid(detail));
                }
            }
            if rule.create_project && rule.centre_of.is_none() {
                let detail = format!("rule {} creates projects, and has no centre_of", rule.name);
                return Err(invalid(detail));
            }
            let parts = rule.conditions.iter().map(|condition| condition.values.len());
            let none = rule.conditions.is_empty() && rule.centre_of.is_none();
            if none || parts.sum::<usize>() > PARTS_MAX {
                let detail = format!("rule {} has no condition, or too many values", rule.name);
                return Err(invalid(detail));
            }
            if rule.conditions.iter().any(|condition| condition.values.is_empty()) {
                return Err(invalid(format!("rule {}: a condition has no value", rule.name)));
            }
        }
        if self.accounts.len() > PARTS_MAX {
            return Err(invalid(format!("more than {PARTS_MAX} accounts have a centre")));
        }
        self.accounts.values().try_for_each(|centre| named("centre", centre))?;
        self.placing()?;
        for rule in &self.shared {
            rule.check()?;
        }
        // Centres that lines are placed in stand for all there will be.
        let placed = self.attribution.iter().map(|rule| &rule.centre).chain(self.accounts.values());
        let centres = placed.filter(|centre| !centre.is_empty()).cloned().collect();
        let (rules, _) = self.spreading(&centres, None, &Usage::new())?;
        let complete = rules.iter().filter(|rule| !rule.targets.is_empty()).cloned();
        allocate::check(&complete.collect::<Vec<_>>()).map_err(invalid)
    }

    /// Ready to place lines.
    pub fn placing(&self) -> Result<Placing<'_>, Refusal> {
        let mut placing =
            Placing { dimensions: Vec::new(), rules: Vec::new(), accounts: Vec::new() };
        self.attribution.iter().try_for_each(|rule| placing.add(rule))?;
        if !self.accounts.is_empty() {
            for name in ["sub_account", "billing_account"] {
                let at = placing.place(Dimension::Plain(name));
                placing.accounts.push((at, &self.accounts));
            }
        }
        Ok(placing)
    }

    /// The same with other names of the centres that shared rules name.
    #[must_use]
    pub fn called(&self, name: impl Fn(&str) -> String) -> Self {
        let shared = self.shared.iter().map(|rule| rule.called(&name)).collect();
        Self { shared, ..self.clone() }
    }

    /// Ready to spread in a month, over these centres where a rule names none. What a rule of
    /// [`Method::Usage`] weighs by comes in with it, by the rule's name and the target.
    pub fn spreading(
        &self,
        centres: &BTreeSet<String>,
        month: Option<BillingMonth>,
        usage: &Usage,
    ) -> Result<(Vec<allocate::Rule>, allocate::Drivers), Refusal> {
        let pools: BTreeSet<&String> = self.shared.iter().map(|rule| &rule.pool).collect();
        let (mut rules, mut drivers) = (Vec::new(), usage.clone());
        for rule in &self.shared {
            let (weighing, values) = rule.weighing(month)?;
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
            let by = if rule.is_some() { By::Rule } else { By::Nothing };
            let placed = placing.of(&values, Known::default());
            assert_eq!(placed, Placed { centre, by, rule }, "{line:?}");
        }
    }

    #[test]
    fn an_owner_comes_before_rules_and_inventory_and_account_come_after() {
        let rules = rules(json!({
            "attribution": [
                {"name": "by team", "conditions": [], "centre_of": "tags.env", "create_project": true},
            ],
            "accounts": {"1": "main", "sub": "lab"},
        }));
        rules.check().unwrap();
        let placing = rules.placing().unwrap();
        let names: Vec<_> = placing.dimensions().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["tags.env", "sub_account", "billing_account"]);
        let known = |owner, inventory| Known { owner, inventory };
        for (values, known, centre, by) in [
            (["prod", "sub", "1"], known(Some("boss"), Some("own")), "boss", By::Owner),
            (["prod", "sub", "1"], known(None, Some("own")), "prod", By::Rule),
            (["", "sub", "1"], known(None, Some("own")), "own", By::Inventory),
            (["", "sub", "1"], known(None, None), "lab", By::Account),
            (["", "other", "1"], known(None, None), "main", By::Account),
            (["", "", "2"], known(None, None), UNALLOCATED, By::Nothing),
        ] {
            let placed = placing.of(&values, known);
            assert_eq!((placed.centre, placed.by), (centre, by), "{values:?}");
        }
    }

    #[test]
    fn a_shared_rule_without_targets_spreads_over_the_centres_that_are_no_pools() {
        let rules = shop();
        let centres = ["lab", "pool:network", "shop", UNALLOCATED].map(str::to_owned).into();
        let (spreading, drivers) = rules.spreading(&centres, None, &Usage::new()).unwrap();
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
            (
                json!({"attribution": [{"name": "a", "centre": "x", "conditions": [],
                "centre_of": "service"}]}),
                "both a centre and centre_of",
            ),
            (
                json!({"attribution": [{"name": "a", "centre": "x", "conditions": condition,
                "create_project": true}]}),
                "has no centre_of",
            ),
            (json!({"accounts": {"1": " x"}}), "none at its edges"),
            (
                json!({"shared": [{"name": "u", "pool": "p", "targets": ["q"],
                "method": {"usage": {"conditions": [], "fallback": "keep"}}}]}),
                "no condition",
            ),
            (
                json!({"shared": [{"name": "d", "pool": "p", "targets": ["q"], "method": {"driver":
                {"values": {}, "months": {"2026-10": {"q": "x"}}, "fallback": "keep"}}}]}),
                "is no number",
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
