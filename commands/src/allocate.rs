//! Whose costs are: every line placed by rules, what is shared spread, and how each centre came to
//! what it has.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    finops::{
        allocate::{self, Buckets, Moved},
        amount::{Amount, Currency},
        cost::{Basis, Dimension, TooLarge},
        rule_set::RuleSet,
        rules::Rules,
    },
    kernel::{Decider, Refusal, canonical_bytes, codes, sha256},
    log::{Position, hex},
};
use uuid::Uuid;

use crate::{
    bills::{Counting, costs},
    ledger::Ledger,
    ports::{BillFault, BillStore, CostQuery, LogFault, Query, ViewFault},
};

/// What a centre has in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Before anything is spread: the lines that were placed there.
    pub before: Amount,
    /// After all rules.
    pub after: Amount,
}

/// What a rule placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedByRule {
    /// How many lines.
    pub lines: u64,
    /// What they come to, by currency.
    pub sums: BTreeMap<Currency, Amount>,
}

/// One movement of a shared cost, over all months and charge categories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The rule.
    pub rule: String,
    /// From.
    pub source: String,
    /// To; the source itself for what stays.
    pub target: String,
    /// In what.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
}

/// Costs by centre, and how they came there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// By centre and currency.
    pub shares: BTreeMap<(String, Currency), Share>,
    /// What each rule placed; under the empty name what none did.
    pub placed: BTreeMap<String, PlacedByRule>,
    /// In the order of rules.
    pub movements: Vec<Movement>,
    /// Names bills, rules and basis: the same digest, the same numbers.
    pub digest: String,
}

/// Why costs cannot be allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocateFault {
    /// The rules do not fit these costs.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The costs cannot be told.
    #[error(transparent)]
    Costs(#[from] BillFault),
}

impl From<TooLarge> for AllocateFault {
    fn from(fault: TooLarge) -> Self {
        Self::Costs(fault.into())
    }
}

/// What stays apart while costs are spread: the currency, and the values of [`strata_by`].
type Stratum = (Currency, String);

/// Months and charge categories are spread by the same rules, and never mixed.
fn strata_by() -> [Dimension; 2] {
    ["month", "charge_category"].map(Dimension::Plain)
}

/// Places every line, and spreads what is shared. What all centres have after it is what the lines
/// come to, to the last unit. Blocks the thread.
pub fn allocate(
    store: &dyn BillStore,
    counting: &Counting,
    rules: &Rules,
    basis: Basis,
) -> Result<Allocation, AllocateFault> {
    let placing = rules.placing()?;
    let mut buckets: BTreeMap<(String, Stratum), Amount> = BTreeMap::new();
    let mut placed: BTreeMap<String, PlacedByRule> = BTreeMap::new();
    let asked = CostQuery {
        basis,
        groups: placing.dimensions().iter().cloned().chain(strata_by()).collect(),
        filters: vec![],
    };
    for (group, currency, sum) in costs(store, counting, &asked)?.iter() {
        let (values, stratum) = group.split_at(placing.dimensions().len());
        let place = placing.of(values);
        let by_rule = placed.entry(place.rule.unwrap_or_default().to_owned()).or_default();
        by_rule.lines += sum.lines;
        let total = by_rule.sums.entry(currency.clone()).or_default();
        *total = total.checked_add(sum.amount).ok_or(TooLarge)?;
        let stratum = (currency.clone(), stratum.join(" "));
        let bucket = buckets.entry((place.centre.to_owned(), stratum)).or_default();
        *bucket = bucket.checked_add(sum.amount).ok_or(TooLarge)?;
    }
    let named: BTreeMap<String, Currency> =
        buckets.keys().map(|(_, stratum)| (name_of(stratum), stratum.0.clone())).collect();
    let before: Buckets = buckets
        .iter()
        .map(|((centre, stratum), amount)| ((centre.clone(), name_of(stratum)), amount.0))
        .collect();
    let centres: BTreeSet<String> = before.keys().map(|(centre, _)| centre.clone()).collect();
    let (spreading, drivers) = rules.spreading(&centres)?;
    // A rule whose targets no line has reached has nobody to give to: its pool keeps what it has.
    let spreading: Vec<_> = spreading.into_iter().filter(|rule| !rule.targets.is_empty()).collect();
    let allocated = allocate::allocate(&before, &spreading, &drivers)
        .map_err(|fault| Refusal::new(&codes::RULES_INVALID, fault.to_string()))?;
    let mut allocation = Allocation { placed, ..Allocation::default() };
    for (buckets, after) in [(&before, false), (&allocated.buckets, true)] {
        for ((centre, stratum), amount) in buckets {
            let Some(currency) = named.get(stratum) else { continue };
            let share = allocation.shares.entry((centre.clone(), currency.clone())).or_default();
            let sum = if after { &mut share.after } else { &mut share.before };
            *sum = sum.checked_add(Amount(*amount)).ok_or(TooLarge)?;
        }
    }
    allocation.movements = movements(&allocated.trace, &named)?;
    allocation.digest = digest(counting, rules, basis);
    Ok(allocation)
}

fn name_of((currency, values): &Stratum) -> String {
    format!("{currency} {values}")
}

/// Summed over months and categories, in the order the rules apply.
fn movements(
    trace: &[Moved],
    named: &BTreeMap<String, Currency>,
) -> Result<Vec<Movement>, TooLarge> {
    let mut places: BTreeMap<(&str, &str, &str, &Currency), usize> = BTreeMap::new();
    let mut movements: Vec<Movement> = Vec::new();
    for moved in trace {
        let Some(currency) = named.get(&moved.stratum) else { continue };
        let key = (moved.rule.as_str(), moved.source.as_str(), moved.target.as_str(), currency);
        let place = *places.entry(key).or_insert_with(|| {
            movements.push(Movement {
                rule: moved.rule.clone(),
                source: moved.source.clone(),
                target: moved.target.clone(),
                currency: currency.clone(),
                amount: Amount::ZERO,
            });
            movements.len() - 1
        });
        let sum = &mut movements[place].amount;
        *sum = sum.checked_add(Amount(moved.amount)).ok_or(TooLarge)?;
    }
    Ok(movements)
}

fn digest(counting: &Counting, rules: &Rules, basis: Basis) -> String {
    let what = (counting.digest(), rules, basis.name());
    hex(&sha256(&canonical_bytes(&what)))
}

impl Ledger {
    /// A rule set as it was at a position.
    pub async fn rule_set(
        &self,
        id: Uuid,
        at: Option<Position>,
    ) -> Result<Option<RuleSet>, ViewFault> {
        let mut query = Query::all().with("kind", RuleSet::KIND);
        query.limit = Query::LIMIT_MAX;
        query.at = at;
        loop {
            let page = self.ports.views.list("inventory", &query).await?;
            for row in page.rows {
                if row.body["id"] != *id.to_string() {
                    continue;
                }
                let read = serde_json::from_value(row.body["state"].clone());
                return read.map(Some).map_err(|error| {
                    let what = format!("the row of rule set {id} does not read: {error}");
                    ViewFault::Store(LogFault::Unexpected(what))
                });
            }
            match page.next {
                Some(next) => query.token = Some(next),
                None => return Ok(None),
            }
        }
    }
}
