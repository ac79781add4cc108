//! What questions of costs have in common: months, basis, axes, filters, and whose rules.

use std::sync::Arc;

use ::commands::{
    attribute::{AxisQuery, Whose},
    bills::Counting,
};
use domain::{
    finops::{
        amount::{BillingMonth, Currency},
        attribution::Axis,
        cost::{Basis, Dimension, GROUPS_MAX},
        rule_set::RuleSet,
    },
    kernel::{Refusal, canonical_bytes, codes, sha256},
    log::hex,
    tenancy::organisation::Organisation,
};
use projections::view::{Column, ColumnType, Indexing};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    call::Call,
    filter,
    params::Parameter,
    problem::{INTERNAL, INVALID_FILTER, Problem},
    routes::{
        BASIS, CURRENCY, DRAFT, FILTER, FROM_MONTH, GROUP_BY, ORGANISATION, REPRICED, RULE_SET,
        TO_MONTH,
    },
};

/// Runs what blocks the thread where that does no harm.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.map_err(|error| Problem::new(&INTERNAL, error.to_string()))?
}

/// For the grammar of filters.
const fn text_column(name: &'static str) -> Column {
    Column { name, column_type: ColumnType::Text, indexing: Indexing::None, summary: "" }
}

static COLUMNS: [Column; Dimension::PLAIN.len() + Axis::PLAIN.len()] = {
    let mut columns = [text_column(""); Dimension::PLAIN.len() + Axis::PLAIN.len()];
    let mut at = 0;
    while at < Dimension::PLAIN.len() {
        columns[at] = text_column(Dimension::PLAIN[at]);
        at += 1;
    }
    while at < columns.len() {
        columns[at] = text_column(Axis::PLAIN[at - Dimension::PLAIN.len()]);
        at += 1;
    }
    columns
};

/// The billing month that a parameter gives.
pub(crate) fn month(
    call: &Call,
    parameter: &'static Parameter,
) -> Result<Option<BillingMonth>, Problem> {
    let Some(text) = call.params.text(parameter) else { return Ok(None) };
    let month = BillingMonth::try_from(text.to_owned());
    month.map(Some).map_err(|_| Problem::parameter(parameter.name, "is a month such as 2026-10"))
}

/// Which number is asked for.
pub(crate) fn basis(call: &Call) -> Result<Basis, Problem> {
    let Some(name) = call.params.text(&BASIS) else { return Ok(Basis::default()) };
    Basis::by_name(name).ok_or_else(|| {
        let known = Basis::ALL.map(Basis::name).join(", ");
        Problem::parameter(BASIS.name, format!("is one of {known}"))
    })
}

/// The basis, the groups and the filters that are asked for.
pub(crate) fn query(call: &Call) -> Result<AxisQuery, Problem> {
    let basis = basis(call)?;
    let names = call.params.text(&GROUP_BY).unwrap_or_default().split(',').map(str::trim);
    let groups = names
        .filter(|name| !name.is_empty())
        .map(|name| name.parse().map_err(|what| Problem::parameter(GROUP_BY.name, what)))
        .collect::<Result<Vec<Axis>, _>>()?;
    let doubled = groups.iter().enumerate().any(|(at, one)| groups[..at].contains(one));
    if doubled || groups.len() > GROUPS_MAX {
        let what = format!("has at most {GROUPS_MAX} dimensions, each once");
        return Err(Problem::parameter(GROUP_BY.name, what));
    }
    let no = |what: String| Problem::new(&INVALID_FILTER, format!("filter: {what}"));
    let text = call.params.text(&FILTER).unwrap_or_default();
    let filters = filter::filters_of(text, &COLUMNS, &Axis::FAMILIES)
        .map_err(no)?
        .into_iter()
        .map(|filter| Ok((filter.column.parse().map_err(no)?, filter)))
        .collect::<Result<Vec<_>, Problem>>()?;
    Ok(AxisQuery { basis, groups, filters })
}

/// The months that are asked for: by default all.
pub(crate) fn months(call: &Call) -> Result<(BillingMonth, BillingMonth), Problem> {
    let first = month(call, &FROM_MONTH)?;
    let last = month(call, &TO_MONTH)?;
    let day = |year| chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default();
    let from = first.unwrap_or_else(|| BillingMonth::of(day(1)));
    let to = last.or(first).unwrap_or_else(|| BillingMonth::of(day(9_999)));
    if to < from {
        return Err(Problem::parameter(TO_MONTH.name, format!("is before {from}")));
    }
    Ok((from, to))
}

/// The bills that are asked for: by default those of every month.
pub(crate) async fn counting(call: &Call) -> Result<Counting, Problem> {
    let (from, to) = months(call)?;
    let at = call.at().await?;
    Ok(call.service.ledger.bills(from, to, at).await?)
}

/// The rules that are asked for, with the revision they are.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// By which lines are placed, and what else is known.
    pub(crate) whose: Whose,
    /// The set.
    pub(crate) rule_set: Option<(Uuid, RuleSet)>,
}

impl Asked {
    /// Names what an answer is made of: the same digest and the same question, the same numbers.
    pub(crate) fn inputs(&self, counting: &Counting, by_lines: bool) -> String {
        let Whose { rules, around, terms } = &self.whose;
        if self.rule_set.is_none() && by_lines && terms.is_none() {
            return counting.digest();
        }
        let inputs = (counting.digest(), rules, around.digest());
        let inputs = if terms.is_none() {
            canonical_bytes(&inputs)
        } else {
            canonical_bytes(&(inputs, terms.digest()))
        };
        hex(&sha256(&inputs))
    }

    /// As in answers.
    pub(crate) fn shown(&self) -> Value {
        match &self.rule_set {
            Some((id, set)) => json!({"id": id, "name": set.name, "revision": set.revision}),
            None => Value::Null,
        }
    }
}

/// The one that is named, or the only one there is.
fn one_of<T>(
    found: Vec<(Uuid, T)>,
    named: Option<Uuid>,
    parameter: &'static Parameter,
    needed: bool,
) -> Result<Option<(Uuid, T)>, Problem> {
    if let Some(named) = named {
        let one = found.into_iter().find(|(id, _)| *id == named);
        let missing = || {
            Refusal::new(&codes::NOT_FOUND, format!("there is no such {}: {named}", parameter.name))
        };
        return Ok(Some(one.ok_or_else(missing)?));
    }
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.into_iter().next()),
        several if needed => {
            Err(Problem::parameter(parameter.name, format!("says which of {several} counts")))
        }
        _ => Ok(None),
    }
}

/// The currency that is asked for, and whether re-pricings apply.
fn terms(call: &Call) -> Result<(Option<Currency>, bool), Problem> {
    let currency = call.params.text(&CURRENCY).map(|code| Currency::try_from(code.to_owned()));
    let currency = currency.transpose().map_err(|what| Problem::parameter(CURRENCY.name, what))?;
    let repriced = call.params.flag(&REPRICED);
    if (currency.is_some() || repriced) && basis(call)? == Basis::Quantity {
        let name = if repriced { REPRICED.name } else { CURRENCY.name };
        return Err(Problem::parameter(name, "says nothing of quantities: they are no money"));
    }
    Ok((currency, repriced))
}

/// Whose costs are, as the call asks for it: by the rule set it names, or by the only one that is
/// published; by the organisation it names, or by the only one that is active. Nothing of it is read
/// when the axes are told by lines alone.
pub(crate) async fn whose(
    call: &Call,
    counting: &Counting,
    axes: &[&Axis],
) -> Result<Asked, Problem> {
    let named = call.params.uuid(&RULE_SET);
    let ledger = Arc::clone(&call.service.ledger);
    let (currency, repriced) = terms(call)?;
    let terms = ledger.terms(counting, currency, repriced).await?;
    // A price is a project's.
    let mut axes = axes.to_vec();
    axes.extend(repriced.then_some(&Axis::Project));
    if named.is_none() && axes.iter().all(|axis| axis.is_of_line()) {
        return Ok(Asked { whose: Whose { terms, ..Whose::default() }, rule_set: None });
    }
    let at = Some(counting.position);
    let draft = call.params.flag(&DRAFT);
    let (mut sets, _) = ledger.states::<RuleSet>(at).await?;
    sets.retain(|(id, set)| Some(*id) == named || set.published.is_some());
    let placed =
        |axis: &&&Axis| !matches!(axis, Axis::Line(_) | Axis::ResourceTag(_) | Axis::Inventory(_));
    let rule_set = one_of(sets, named, &RULE_SET, axes.iter().any(|axis| placed(&axis)))?;
    let rules = rule_set.as_ref().and_then(|(_, set)| {
        let drafted = if draft { set.draft.clone() } else { None };
        drafted.or_else(|| set.published.clone())
    });
    let (mut organisations, _) = ledger.states::<Organisation>(at).await?;
    organisations.retain(|(_, one)| !one.archived);
    let in_tree = axes.iter().any(|axis| matches!(axis, Axis::Node | Axis::Level(_)));
    let organisation =
        one_of(organisations, call.params.uuid(&ORGANISATION), &ORGANISATION, in_tree)?;
    let around = ledger.surroundings(counting, organisation.map(|(id, _)| id)).await?;
    Ok(Asked { whose: Whose { rules: rules.unwrap_or_default(), around, terms }, rule_set })
}
