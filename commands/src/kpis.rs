//! Numbers by which costs are judged, each with its formula and the questions of costs that it was
//! made of: whoever doubts one asks those, down to the lines.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "how wrong a forecast was is an estimate"
)]

use std::collections::BTreeMap;

use domain::finops::{
    amount::{Amount, BillingMonth, Currency, SCALE},
    attribution::Axis,
    cost::{Basis, Dimension, Sum},
    driver::Driver,
    forecast::{Calendar, Question, Step, look_back},
    line::ChargeCategory,
    ratio::{Ratio, round_half_even},
    rules::UNALLOCATED,
    shown::percent,
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    attribute::{AttributeFault, AxisQuery, Whose, attributed},
    bills::Counting,
    ports::{BillStore, Cell, Filter, Op},
    watch::filter_text,
};

/// Months that the forecast is tried on.
const TRIED_MAX: usize = 6;
/// Fewest months before one that is forecast.
const HISTORY_MIN: usize = 3;

/// Conditions of a question.
pub type Filters = Vec<(Axis, Filter)>;

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// All must hold, in every number.
    pub filters: Filters,
    /// Keys that every line must have that can have tags.
    pub tag_keys: Vec<String>,
    /// By what cost is divided.
    pub units: Option<Units>,
    /// The rule set that says whose costs are, and its revision.
    pub rules: Option<(Uuid, u64)>,
    /// Whose costs are.
    pub whose: Whose,
}

/// By what cost is divided.
#[derive(Clone, Debug)]
pub struct Units {
    /// What they are, as formulas say it.
    pub name: String,
    /// How many there were, or why nobody knows.
    pub count: Result<Amount, String>,
    /// Of the cost only what depends on them.
    pub filters: Filters,
}

impl Units {
    /// So many of what the caller counts.
    pub fn given(name: &str, count: Amount) -> Self {
        Self { name: name.to_owned(), count: Ok(count), filters: vec![] }
    }

    /// Those of a driver, over the months that bills are counted of.
    pub fn of(id: Uuid, driver: &Driver, counting: &Counting) -> Result<Self, String> {
        let definition = &driver.definition;
        let count = match counting.months() {
            Some((first, last)) => definition.count(first, last).map_err(|what| what.to_string()),
            None => Err("no bill is counted".to_owned()),
        };
        let filter = |(name, values): (&String, &Vec<String>)| {
            let values = values.iter().map(|value| match value.as_str() {
                "" => Cell::Null,
                text => Cell::Text(text.to_owned()),
            });
            let values = values.collect();
            Ok((name.parse()?, Filter { column: name.clone(), op: Op::In, values }))
        };
        let filters = definition.scope.iter().map(filter).collect::<Result<_, String>>()?;
        let (unit, revision) = (&definition.unit, driver.revision);
        let name = format!("{unit}, by revision {revision} of the driver {id}");
        Ok(Self { name, count, filters })
    }
}

/// Which lines a part of a number is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// What they come to: an amount, or how many there are.
    pub sum: String,
    /// Which amount.
    pub basis: &'static str,
    /// As `/v1/costs` takes it.
    pub filter: String,
}

/// What a number is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Of a hundred.
    Percent,
    /// Its currency, for one unit of the driver.
    PerUnit,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kpi {
    /// In kebab case.
    pub name: &'static str,
    /// The number; none when it cannot be said.
    pub value: Option<String>,
    /// Why it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it is counted in.
    pub unit: Unit,
    /// Of which costs.
    pub currency: Option<Currency>,
    /// How it is made.
    pub formula: String,
    /// What stands above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<Lines>,
    /// What stands below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<Lines>,
}

/// What of lines is taken.
#[derive(Clone, Copy)]
enum Take {
    Amount,
    Magnitude,
    Count,
}

impl Take {
    fn of(self, sum: Sum) -> Amount {
        match self {
            Self::Amount => sum.amount,
            Self::Magnitude => sum.magnitude,
            Self::Count => Amount(i128::from(sum.lines) * 10_i128.pow(SCALE)),
        }
    }
}

fn is(dimension: &'static str, values: &[&str]) -> (Axis, Filter) {
    let values = values.iter().map(|&value| value.into()).collect();
    let filter = Filter { column: dimension.to_owned(), op: Op::In, values };
    (Axis::Line(Dimension::Plain(dimension)), filter)
}

fn has(dimension: Dimension) -> (Axis, Filter) {
    let filter = Filter { column: dimension.to_string(), op: Op::NotIn, values: vec![Cell::Null] };
    (Axis::Line(dimension), filter)
}

/// Asks costs, and keeps what was asked.
struct Desk<'a> {
    store: &'a dyn BillStore,
    counting: &'a Counting,
    whose: &'a Whose,
    filters: &'a [(Axis, Filter)],
}

/// Sums by currency, and the question they answer.
type Answered = (BTreeMap<Currency, Sum>, &'static str, String);

impl Desk<'_> {
    fn sums(
        &self,
        basis: Basis,
        more: impl IntoIterator<Item = (Axis, Filter)>,
    ) -> Result<Answered, AttributeFault> {
        let filters: Vec<_> = self.filters.iter().cloned().chain(more).collect();
        let text = filter_text(&filters);
        let asked = AxisQuery { basis, groups: vec![], filters };
        let table = attributed(self.store, self.counting, self.whose, &asked)?;
        Ok((table.totals()?, basis.name(), text))
    }

    /// A share in percent, for each currency that there is below.
    fn share(
        name: &'static str,
        formula: &str,
        take: Take,
        above: &Answered,
        below: &Answered,
    ) -> Vec<Kpi> {
        let lines = |answered: &Answered, currency: &Currency| {
            let (sums, basis, filter) = answered;
            let sum = take.of(sums.get(currency).copied().unwrap_or_default());
            (sum, Lines { sum: sum.to_string(), basis, filter: filter.clone() })
        };
        let one = |currency: &Currency| {
            let ((part, above), (whole, below)) = (lines(above, currency), lines(below, currency));
            let value = percent(part, whole);
            let reason = value.is_none().then(|| "what stands below is not above zero".to_owned());
            let (formula, currency) = (formula.to_owned(), Some(currency.clone()));
            let (above, below) = (Some(above), Some(below));
            Kpi { name, value, reason, unit: Unit::Percent, currency, formula, above, below }
        };
        below.0.keys().map(one).collect()
    }
}

/// A number that cannot be said at all.
fn unsaid(name: &'static str, unit: Unit, formula: &str, reason: &str) -> Kpi {
    let (formula, reason) = (formula.to_owned(), Some(reason.to_owned()));
    Kpi { name, value: None, reason, unit, currency: None, formula, above: None, below: None }
}

/// Every number, in the order of names. Blocks the thread.
pub fn kpis(
    store: &dyn BillStore,
    counting: &Counting,
    asked: &Asked,
) -> Result<Vec<Kpi>, AttributeFault> {
    let desk = Desk { store, counting, whose: &asked.whose, filters: &asked.filters };
    let mut all = Vec::new();
    let usage = || is("charge_category", &[ChargeCategory::Usage.name()]);
    let used = desk.sums(Basis::Effective, [usage()])?;
    let committed = desk.sums(Basis::Effective, [usage(), is("billing_mode", &["Committed"])])?;
    all.extend(Desk::share(
        "commitment-share",
        "EffectiveCost of usage under a commitment / EffectiveCost of usage",
        Take::Amount,
        &committed,
        &used,
    ));
    let status = |values| desk.sums(Basis::Effective, [is("commitment_status", values)]);
    all.extend(Desk::share(
        "commitment-use",
        "EffectiveCost of what was used of commitments / EffectiveCost of what was used and unused",
        Take::Amount,
        &status(&["Used"])?,
        &status(&["Used", "Unused"])?,
    ));
    tags(&desk, asked, &mut all)?;
    all.extend(forecast_error(&desk)?);
    unit_cost(&desk, asked, &mut all)?;
    unallocated(&desk, asked, &mut all)?;
    all.sort_by(|a, b| (a.name, &a.currency).cmp(&(b.name, &b.currency)));
    Ok(all)
}

fn tags(desk: &Desk<'_>, asked: &Asked, all: &mut Vec<Kpi>) -> Result<(), AttributeFault> {
    let can = || {
        let usage = is("charge_category", &[ChargeCategory::Usage.name()]);
        vec![usage, has(Dimension::Plain("resource"))]
    };
    let everything = desk.sums(Basis::Effective, [])?;
    let taggable = desk.sums(Basis::Effective, can())?;
    all.extend(Desk::share(
        "taggable-share",
        "|EffectiveCost| of usage that names a resource / |EffectiveCost| of all lines; what is \
         missing to 100 cannot be tagged",
        Take::Magnitude,
        &taggable,
        &everything,
    ));
    let (by_cost, by_count) = (
        "|EffectiveCost| of lines with every mandatory key / |EffectiveCost| of usage that names a \
         resource",
        "lines with every mandatory key / lines of usage that name a resource",
    );
    if asked.tag_keys.is_empty() {
        let why = "no mandatory key is named";
        all.push(unsaid("tag-coverage-by-cost", Unit::Percent, by_cost, why));
        all.push(unsaid("tag-coverage-by-count", Unit::Percent, by_count, why));
        return Ok(());
    }
    let keys = asked.tag_keys.iter().map(|key| has(Dimension::Tag(key.clone())));
    let tagged = desk.sums(Basis::Effective, can().into_iter().chain(keys))?;
    let share = Desk::share;
    all.extend(share("tag-coverage-by-cost", by_cost, Take::Magnitude, &tagged, &taggable));
    all.extend(share("tag-coverage-by-count", by_count, Take::Count, &tagged, &taggable));
    Ok(())
}

fn unit_cost(desk: &Desk<'_>, asked: &Asked, all: &mut Vec<Kpi>) -> Result<(), AttributeFault> {
    let Some(units) = &asked.units else {
        let why = "no driver is named, and no quantity";
        all.push(unsaid("unit-cost", Unit::PerUnit, "EffectiveCost / quantity of a driver", why));
        return Ok(());
    };
    let Units { name, count, filters } = units;
    let count = match count {
        Ok(count) => *count,
        Err(why) => {
            let formula = format!("EffectiveCost / {name}");
            all.push(unsaid("unit-cost", Unit::PerUnit, &formula, why));
            return Ok(());
        }
    };
    let (sums, basis, filter) = desk.sums(Basis::Effective, filters.iter().cloned())?;
    for (currency, sum) in sums {
        let value = (count.0 > 0).then(|| {
            let exact = Ratio::new(sum.amount.0.into(), count.0.into());
            round_half_even(&(exact * domain::finops::ratio::whole(10_i128.pow(SCALE))))
        });
        let value = value.flatten().map(|units| Amount(units).to_string());
        let reason = value.is_none().then(|| "there is no unit".to_owned());
        let lines = Lines { sum: sum.amount.to_string(), basis, filter: filter.clone() };
        all.push(Kpi {
            name: "unit-cost",
            value,
            reason,
            unit: Unit::PerUnit,
            currency: Some(currency),
            formula: format!("EffectiveCost / {count} {name}"),
            above: Some(lines),
            below: None,
        });
    }
    Ok(())
}

fn unallocated(desk: &Desk<'_>, asked: &Asked, all: &mut Vec<Kpi>) -> Result<(), AttributeFault> {
    let (name, unit) = ("unallocated-share", Unit::Percent);
    let formula = "EffectiveCost that no rule places / EffectiveCost of all lines";
    let Some((id, revision)) = &asked.rules else {
        all.push(unsaid(name, unit, formula, "no rule set is named"));
        return Ok(());
    };
    let nowhere =
        Filter { column: "project".to_owned(), op: Op::In, values: vec![UNALLOCATED.into()] };
    let above = desk.sums(Basis::Effective, [(Axis::Project, nowhere)])?;
    let below = desk.sums(Basis::Effective, [])?;
    let formula = format!("{formula}, by revision {revision} of the rule set {id}");
    all.extend(Desk::share(name, &formula, Take::Amount, &above, &below));
    Ok(())
}

/// Each of the last months is forecast from those before it, and compared with what it came to. The
/// newest month is left out while its bill is open: it may not be all of it.
fn forecast_error(desk: &Desk<'_>) -> Result<Vec<Kpi>, AttributeFault> {
    let name = "forecast-error";
    let formula = format!(
        "Σ |EffectiveCost of a month - its forecast from the months before| / Σ EffectiveCost, over \
         at most {TRIED_MAX} months"
    );
    let filters = desk.filters.to_vec();
    let groups = vec![Axis::Line(Dimension::Plain("month"))];
    let asked = AxisQuery { basis: Basis::Effective, groups, filters };
    let text = filter_text(&asked.filters);
    let table = attributed(desk.store, desk.counting, desk.whose, &asked)?;
    let Some((first, last)) = desk.counting.months() else { return Ok(vec![]) };
    let of = |month| move |one: &&crate::bills::Counted| one.bill.month == Some(month);
    let open = desk.counting.bills.iter().filter(of(last)).any(|one| !one.bill.closed);
    let months = std::iter::successors(Some(first), |month: &BillingMonth| Some(month.next()));
    let months: Vec<_> =
        months.take_while(|month| *month < last || (*month == last && !open)).collect();
    let mut series: BTreeMap<Currency, BTreeMap<String, Amount>> = BTreeMap::new();
    for (group, currency, sum) in table.iter() {
        series.entry(currency.clone()).or_default().insert(group[0].clone(), sum.amount);
    }
    let unit = 10_f64.powi(SCALE as i32);
    let one = |(currency, costs): (Currency, BTreeMap<String, Amount>)| {
        let cost = |month: &BillingMonth| costs.get(&month.to_string()).copied();
        let values: Vec<f64> =
            months.iter().map(|month| cost(month).unwrap_or_default().0 as f64 / unit).collect();
        let from = values.len().saturating_sub(TRIED_MAX).max(HISTORY_MIN);
        let (mut wrong, mut sum) = (0.0, 0.0);
        let tried = values.len().saturating_sub(from);
        let calendar = Calendar { first: first.first(), step: Step::Month };
        let question = Question {
            history: values,
            season: Step::Month.season(),
            calendar: Some(calendar),
            ..Question::default()
        };
        for one in look_back(&question, tried).unwrap_or_default() {
            wrong += (one.forecast - one.came).abs();
            sum += one.came.abs();
        }
        let below = Lines {
            sum: format!("{sum:.6}"),
            basis: Basis::Effective.name(),
            filter: text.clone(),
        };
        let value = (sum > 0.0).then(|| format!("{:.2}", 100.0 * wrong / sum));
        let reason = value
            .is_none()
            .then(|| format!("it needs {} months whose bills are complete", HISTORY_MIN + 1));
        Kpi {
            name,
            value,
            reason,
            unit: Unit::Percent,
            currency: Some(currency),
            formula: formula.clone(),
            above: None,
            below: Some(below),
        }
    };
    Ok(series.into_iter().map(one).collect())
}
