//! Shared cost from centre to centre, by rules in order, with a trace.
//!
//! A bucket is a centre and a stratum (currency, time, charge category, whatever must stay apart).
//! Strata never mix: credits, tax and use are spread by the same rule and stay distinguishable. A
//! rule empties its source, but for what it says stays there; a centre that was a source is
//! closed, and no later rule may fill it again. So the sum of every stratum is after all rules
//! what it was before, to the last unit.

use std::collections::{BTreeMap, BTreeSet};

use num_traits::{Signed, Zero};
use serde::{Deserialize, Serialize};

use super::{
    ratio::{Ratio, whole},
    split::{SplitFault, Weights},
};

/// Amounts by centre and stratum.
pub type Buckets = BTreeMap<(String, String), i128>;

/// A driver's values: by driver and centre.
pub type Drivers = BTreeMap<(String, String), Ratio>;

/// Whose costs weigh in a proportional split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// What the targets had before any rule: rules do not depend on each other.
    Direct,
    /// What they have now: step-down.
    Current,
}

/// What happens when nobody weighs anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// Everybody gets the same.
    Even,
    /// It stays where it is, and the trace says so.
    Keep,
    /// The run is refused.
    Refuse,
}

/// How a rule weighs its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weighing {
    /// The same each.
    Even,
    /// By the targets' own cost in the stratum; a target whose cost is not positive gets nothing.
    Proportional {
        /// Whose costs count.
        basis: Basis,
        /// When no target has a cost.
        fallback: Fallback,
    },
    /// By a quantity of each target.
    Driver {
        /// Which.
        name: String,
        /// When every quantity is zero.
        fallback: Fallback,
    },
    /// Percents of the source, by target, 100 at most in all; the rest stays there.
    Fixed(BTreeMap<String, Ratio>),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its id; rules apply in the order they are given.
    pub id: String,
    /// Whose cost it moves.
    pub source: String,
    /// To whom. The source itself never counts as its own target.
    pub targets: BTreeSet<String>,
    /// By what.
    pub weighing: Weighing,
}

/// One movement: what a rule took from its source in a stratum, and gave to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The rule.
    pub rule: String,
    /// The stratum.
    pub stratum: String,
    /// From whom.
    pub source: String,
    /// To whom; the source itself for what stays.
    pub target: String,
    /// How much.
    pub amount: i128,
    /// The target's part of the whole: these sum to one over a rule's movements in a stratum.
    pub share: Ratio,
}

/// Where the amounts are after the rules, and how they came there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Amounts that are not zero.
    pub buckets: Buckets,
    /// In the order of rules, strata and targets.
    pub trace: Vec<Moved>,
}

/// Why rules are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesFault {
    /// A cost that is moved on would come back to where it was taken from.
    #[error("the rules run in a circle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
    /// A later rule fills a centre that an earlier one has emptied.
    #[error("rule {rule} gives to {centre}, which an earlier rule has already shared out")]
    Closed {
        /// The later one.
        rule: String,
        /// The centre.
        centre: String,
    },
    /// Without the source itself there is no target left.
    #[error("rule {0} has no target but its source")]
    NoTarget(String),
    /// More than all of it.
    #[error("the shares of rule {0} are more than 100 percent")]
    TooMuch(String),
    /// A weight below zero, or none where the rule says to refuse.
    #[error("rule {rule}: {fault}")]
    Split {
        /// The rule.
        rule: String,
        /// What is wrong with its weights.
        fault: SplitFault,
    },
}

/// Whether these rules can be saved.
///
/// # Errors
/// The first thing that is wrong, a circle with all its centres.
pub fn check(rules: &[Rule]) -> Result<(), RulesFault> {
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for rule in rules {
        let targets = || rule.targets.iter().filter(|target| **target != rule.source);
        if targets().next().is_none() {
            return Err(RulesFault::NoTarget(rule.id.clone()));
        }
        if let Weighing::Fixed(shares) = &rule.weighing {
            if shares.values().any(Signed::is_negative) {
                let key = shares.iter().find(|(_, share)| share.is_negative()).map(|one| one.0);
                let fault = SplitFault::Negative(key.cloned().unwrap_or_default());
                return Err(RulesFault::Split { rule: rule.id.clone(), fault });
            }
            if shares.values().sum::<Ratio>() > whole(100) {
                return Err(RulesFault::TooMuch(rule.id.clone()));
            }
        }
        edges.entry(&rule.source).or_default().extend(targets().map(String::as_str));
    }
    if let Some(cycle) = cycle(&edges) {
        return Err(RulesFault::Cycle(cycle));
    }
    let mut closed: BTreeSet<&str> = BTreeSet::new();
    for rule in rules {
        if let Some(centre) = rule
            .targets
            .iter()
            .find(|target| **target != rule.source && closed.contains(target.as_str()))
        {
            return Err(RulesFault::Closed { rule: rule.id.clone(), centre: centre.clone() });
        }
        closed.insert(&rule.source);
    }
    Ok(())
}

/// A way from a centre back to itself.
fn cycle(edges: &BTreeMap<&str, BTreeSet<&str>>) -> Option<Vec<String>> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in edges.keys() {
        // The way so far, each with the targets that are still to be tried.
        let mut way: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(*start);
        loop {
            if let Some(centre) = next.take() {
                if let Some(at) = way.iter().position(|(seen, _)| *seen == centre) {
                    let names = way[at..].iter().map(|(name, _)| (*name).to_owned());
                    return Some(names.chain([centre.to_owned()]).collect());
                }
                if !done.contains(centre) {
                    let targets = edges.get(centre).into_iter().flatten().copied().collect();
                    way.push((centre, targets));
                }
            }
            let Some((centre, targets)) = way.last_mut() else { break };
            next = targets.pop();
            if next.is_none() {
                done.insert(centre);
                way.pop();
            }
        }
    }
    None
}

/// Applies the rules in order.
///
/// # Errors
/// As [`check`], and when weights do not allow a split that the rule refuses to do without.
pub fn allocate(
    before: &Buckets,
    rules: &[Rule],
    drivers: &Drivers,
) -> Result<Allocated, RulesFault> {
    check(rules)?;
    let mut now = before.clone();
    let mut trace = Vec::new();
    let strata: BTreeSet<&String> = before.keys().map(|(_, stratum)| stratum).collect();
    for rule in rules {
        // The same for every stratum, unless costs weigh.
        let constant = match &rule.weighing {
            Weighing::Proportional { .. } => None,
            weighing => Some(weights(rule, weighing, |_| Ratio::zero(), drivers)?),
        };
        for stratum in &strata {
            let bucket = (rule.source.clone(), (*stratum).clone());
            let Some(total) = now.get(&bucket).copied().filter(|total| *total != 0) else {
                continue;
            };
            let own;
            let weights = match (&constant, &rule.weighing) {
                (None, Weighing::Proportional { basis, .. }) => {
                    let costs = if *basis == Basis::Direct { before } else { &now };
                    let cost = |target: &String| {
                        let cost = costs.get(&(target.clone(), (*stratum).clone()));
                        whole(cost.copied().unwrap_or(0).max(0))
                    };
                    own = weights(rule, &rule.weighing, cost, drivers)?;
                    &own
                }
                (Some(weights), _) => weights,
                (None, _) => continue,
            };
            now.remove(&bucket);
            for (place, (target, amount)) in
                weights.keys().iter().zip(weights.split(total)).enumerate()
            {
                *now.entry((target.clone(), (*stratum).clone())).or_default() += amount;
                trace.push(Moved {
                    rule: rule.id.clone(),
                    stratum: (*stratum).clone(),
                    source: rule.source.clone(),
                    target: target.clone(),
                    amount,
                    share: weights.share(place),
                });
            }
        }
    }
    now.retain(|_, amount| *amount != 0);
    Ok(Allocated { buckets: now, trace })
}

fn weights(
    rule: &Rule,
    weighing: &Weighing,
    cost: impl Fn(&String) -> Ratio,
    drivers: &Drivers,
) -> Result<Weights<String>, RulesFault> {
    let targets = || rule.targets.iter().filter(|target| **target != rule.source).cloned();
    let fault = |fault| RulesFault::Split { rule: rule.id.clone(), fault };
    let (weights, fallback) = match weighing {
        Weighing::Even => return Weights::even(targets()).map_err(fault),
        Weighing::Fixed(shares) => {
            let mut all: BTreeMap<String, Ratio> = targets()
                .map(|target| {
                    let share = shares.get(&target).cloned().unwrap_or_else(Ratio::zero);
                    (target, share)
                })
                .collect();
            let rest = whole(100) - all.values().sum::<Ratio>();
            if !rest.is_zero() {
                all.insert(rule.source.clone(), rest);
            }
            return Weights::new(&all).map_err(fault);
        }
        Weighing::Proportional { fallback, .. } => {
            (targets().map(|target| (target.clone(), cost(&target))).collect(), fallback)
        }
        Weighing::Driver { name, fallback } => {
            let value = |target: String| {
                let value = drivers.get(&(name.clone(), target.clone())).cloned();
                (target, value.unwrap_or_else(Ratio::zero))
            };
            (targets().map(value).collect::<BTreeMap<_, _>>(), fallback)
        }
    };
    match (Weights::new(&weights), fallback) {
        (Err(SplitFault::Zero), Fallback::Even) => Weights::even(targets()).map_err(fault),
        (Err(SplitFault::Zero), Fallback::Keep) => {
            Weights::even([rule.source.clone()]).map_err(fault)
        }
        (weights, _) => weights.map_err(fault),
    }
}
