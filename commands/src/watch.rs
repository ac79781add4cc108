//! What those who watch costs have in common: what they ask, by the conditions of their kinds, and
//! days one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use chrono::{Days, NaiveDate};
use domain::{
    finops::{
        amount::{Amount, BillingMonth, Currency},
        anomaly::Series,
        attribution::Axis,
        cost::{Basis, Table, TooLarge},
        rule_set::RuleSet,
        rules::Rules,
        scope::{Comparison, LineCondition},
    },
    kernel::{Decider, canonical_bytes, sha256},
    log::{Position, hex},
    tenancy::organisation::Organisation,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    attribute::Whose,
    bills::Counting,
    ledger::Ledger,
    ports::{Cell, Filter, Op, ViewFault},
};

/// A word of a saved question that this program does not know: it was saved by a newer one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// What a question's axes need to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// The lines alone.
    #[default]
    Lines,
    /// The estate as well.
    Estate,
    /// Rules as well.
    Rules,
    /// An organisation's tree as well.
    Tree,
}

/// By what a saved question says whose costs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct By {
    rule_set: Option<Uuid>,
    organisation: Option<Uuid>,
    need: Need,
}

impl By {
    /// By what it names, as far as these axes need it.
    pub fn of<'a>(
        axes: impl IntoIterator<Item = &'a Axis>,
        rule_set: Option<Uuid>,
        organisation: Option<Uuid>,
    ) -> Self {
        let need = |axis: &Axis| match axis {
            Axis::Line(_) => Need::Lines,
            axis if axis.is_of_tree() => Need::Tree,
            axis if axis.is_placed() => Need::Rules,
            _ => Need::Estate,
        };
        match axes.into_iter().map(need).max().unwrap_or_default() {
            Need::Lines => Self::default(),
            need => Self { rule_set, organisation, need },
        }
    }
}

/// What says whose costs are, or why that cannot be said.
pub type WatchedBy = BTreeMap<By, Result<Arc<Whose>, Unknown>>;

/// What names each of them: the same texts, the same places.
pub fn digests(all: &WatchedBy) -> Vec<String> {
    let digest = |whose: &Result<Arc<Whose>, Unknown>| match whose {
        Ok(whose) => hex(&sha256(&canonical_bytes(&(&whose.rules, whose.around.digest())))),
        Err(unknown) => unknown.0.clone(),
    };
    all.values().map(digest).collect()
}

/// The one that is named, or the only one there is.
fn one_of<T>(
    mut found: BTreeMap<Uuid, T>,
    named: Option<Uuid>,
    field: &str,
    what: &str,
    needed: bool,
) -> Result<Option<(Uuid, T)>, Unknown> {
    match named {
        Some(id) => match found.remove_entry(&id) {
            None => Err(Unknown(format!("{field}: there is no {what} with the id {id}"))),
            one => Ok(one),
        },
        None if found.len() > 1 && needed => {
            let several = found.len();
            Err(Unknown(format!(
                "{field}: says which counts, for there is more than one {what}: {several}"
            )))
        }
        None if found.len() > 1 => Ok(None),
        None => Ok(found.pop_first()),
    }
}

/// The axes of these names.
pub fn axes(names: &[String]) -> Result<Vec<Axis>, Unknown> {
    names.iter().map(|name| name.parse().map_err(Unknown)).collect()
}

/// The basis of this name.
pub fn basis(name: &str) -> Result<Basis, Unknown> {
    Basis::by_name(name).ok_or_else(|| Unknown(format!("{name:?} is no basis")))
}

/// Conditions as questions have them.
pub fn filters(conditions: &[LineCondition]) -> Result<Vec<(Axis, Filter)>, Unknown> {
    let filter = |condition: &LineCondition| {
        let op = match condition.compare {
            Comparison::Is => Op::In,
            Comparison::IsNot => Op::NotIn,
            Comparison::Begins => Op::Prefix,
            Comparison::Contains => Op::Contains,
        };
        let values = condition.values.iter().map(|value| match value.as_str() {
            "" => Cell::Null,
            text => Cell::Text(text.to_owned()),
        });
        let axis = condition.dimension.parse().map_err(Unknown)?;
        let column = condition.dimension.clone();
        Ok((axis, Filter { column, op, values: values.collect() }))
    };
    conditions.iter().map(filter).collect()
}

/// The same filters as people write them, for who asks where a number comes from.
pub fn filter_text<T: fmt::Display>(filters: &[(T, Filter)]) -> String {
    let quoted = |cell: &Cell| match cell {
        Cell::Null => "null".to_owned(),
        Cell::Boolean(yes) => yes.to_string(),
        Cell::Integer(number) => number.to_string(),
        // A star at the end would mean a prefix.
        Cell::Text(text) => Value::from(text.as_str()).to_string().replace('*', "\\*"),
    };
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_' || letter == b'-';
    let one = |(axis, filter): &(T, Filter)| {
        let name = axis.to_string();
        let name = match name.split_once('.') {
            Some((family, key)) if !key.bytes().all(plain) => {
                format!("{family}.{}", Value::from(key))
            }
            _ => name,
        };
        let values: Vec<String> = filter.values.iter().map(quoted).collect();
        let first = values.first().cloned().unwrap_or_default();
        match filter.op {
            Op::In if values.len() == 1 => format!("{name} = {first}"),
            Op::NotIn if values.len() == 1 => format!("{name} != {first}"),
            Op::In => format!("{name} IN ({})", values.join(", ")),
            Op::NotIn => format!("{name} NOT IN ({})", values.join(", ")),
            Op::Less => format!("{name} < {first}"),
            Op::Greater => format!("{name} > {first}"),
            Op::Prefix => format!("{name} = {}*\"", first.strip_suffix('"').unwrap_or(&first)),
            Op::Contains => format!("{name} : {first}"),
        }
    };
    filters.iter().map(one).collect::<Vec<_>>().join(" AND ")
}

/// What groups cost day by day, each in one currency.
pub type Daily = BTreeMap<(Vec<String>, Currency), Series>;

/// Days of a table whose last group is the day. Every series goes from its first day with a line to
/// the last day that any has. Days outside of these months are left out: what is charged for them
/// belongs to other bills.
pub fn daily(table: &Table, months: (BillingMonth, BillingMonth)) -> Result<Daily, TooLarge> {
    let mut sums: BTreeMap<(Vec<String>, Currency), BTreeMap<NaiveDate, Amount>> = BTreeMap::new();
    let mut last = None;
    for (group, currency, sum) in table.iter() {
        let Some((day, group)) = group.split_last() else { continue };
        let Ok(day) = day.parse::<NaiveDate>() else { continue };
        if day < months.0.first() || day >= months.1.end() {
            continue;
        }
        last = last.max(Some(day));
        let own = sums.entry((group.to_vec(), currency.clone())).or_default();
        let own = own.entry(day).or_default();
        *own = own.checked_add(sum.amount).ok_or(TooLarge)?;
    }
    let series = |days: BTreeMap<NaiveDate, Amount>| {
        let first = days.keys().next().copied().unwrap_or_default();
        let count = last.map_or(0, |last| (last - first).num_days() + 1).max(0) as u64;
        let all = (0..count).map(|at| {
            let day = first.checked_add_days(Days::new(at)).unwrap_or(first);
            days.get(&day).copied().unwrap_or_default()
        });
        Series { first, amounts: all.collect() }
    };
    Ok(sums.into_iter().map(|(key, days)| (key, series(days))).collect())
}

impl Counting {
    /// The first and the last month that bills were counted of.
    pub fn months(&self) -> Option<(BillingMonth, BillingMonth)> {
        let months = || self.bills.iter().filter_map(|one| one.bill.month);
        months().min().zip(months().max())
    }
}

impl Ledger {
    /// The bills of every month, as they were at a position.
    pub async fn all_bills(&self, at: Option<Position>) -> Result<Counting, ViewFault> {
        let day = |year| NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default();
        let (first, last) = (BillingMonth::of(day(1)), BillingMonth::of(day(9_999)));
        self.bills(first, last, at).await
    }

    /// Everything of a kind, as it was at a position, by id.
    pub async fn all_of<D: Decider>(&self, at: Position) -> Result<BTreeMap<Uuid, D>, ViewFault> {
        Ok(self.states::<D>(Some(at)).await?.0.into_iter().collect())
    }

    /// What says whose costs are, as a question needs it: the rule set that it names, or the only one
    /// that is published; the organisation that it names, or the only one that is active. Where rules
    /// or a tree are needed and there are several of which none is named, or where the one that is
    /// named does not count, there is no answer but why: no number is whose it is by chance.
    pub async fn watched_whose(
        &self,
        counting: &Counting,
        by: By,
    ) -> Result<Result<Whose, Unknown>, ViewFault> {
        if by.need == Need::Lines {
            return Ok(Ok(Whose::default()));
        }
        let at = counting.position;
        let sets = self.all_of::<RuleSet>(at).await?.into_iter();
        let published: BTreeMap<Uuid, Rules> =
            sets.filter_map(|(id, set)| Some((id, set.published?))).collect();
        let needed = by.need >= Need::Rules;
        let rules = match one_of(published, by.rule_set, "rule_set", "rule set published", needed) {
            Ok(rules) => rules.map(|(_, rules)| rules).unwrap_or_default(),
            Err(unknown) => return Ok(Err(unknown)),
        };
        let mut active = self.all_of::<Organisation>(at).await?;
        active.retain(|_, one| !one.archived);
        let needed = by.need >= Need::Tree;
        let what = "organisation active";
        let organisation = match one_of(active, by.organisation, "organisation", what, needed) {
            Ok(organisation) => organisation.map(|(id, _)| id),
            Err(unknown) => return Ok(Err(unknown)),
        };
        let around = self.surroundings(counting, organisation).await?;
        Ok(Ok(Whose::new(rules, around)))
    }

    /// The same for several questions.
    pub async fn watched_by(
        &self,
        counting: &Counting,
        questions: impl IntoIterator<Item = By> + Send,
    ) -> Result<WatchedBy, ViewFault> {
        let questions: BTreeSet<By> = questions.into_iter().collect();
        let mut all = WatchedBy::new();
        for by in questions {
            let whose = self.watched_whose(counting, by).await?;
            all.insert(by, whose.map(Arc::new));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_written_as_people_write_filters() {
        let condition = |dimension: &str, compare, values: &[&str]| LineCondition {
            dimension: dimension.to_owned(),
            compare,
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        let conditions = [
            condition("service", Comparison::Is, &["Amazon \"S3\""]),
            condition("tags.team/a", Comparison::IsNot, &["", "x*"]),
            condition("resource", Comparison::Begins, &["i-"]),
            condition("region", Comparison::Contains, &["north"]),
        ];
        assert_eq!(
            filter_text(&filters(&conditions).unwrap()),
            r#"service = "Amazon \"S3\"" AND tags."team/a" NOT IN (null, "x\*") AND resource = "i-*" AND region : "north""#
        );
    }
}
