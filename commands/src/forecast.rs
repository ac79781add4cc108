//! What comes next: costs by group, forecast from the bills that count and the drivers people gave.
//!
//! A series is what one group costs in one currency, step by step; a step without cost is zero, and
//! a series begins with its first cost. The largest are forecast one by one, the others as one. A
//! total is the sum of its parts, of past and future, as they are shown; its limits come from how
//! wrong the total itself was on the past, for limits do not add up.
//!
//! The past is exact. What is estimated has at most [`PLACES`] decimals. The digest names everything
//! that goes in: the same digest, the same answer, whatever the store, the number of threads or the
//! order of files.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use domain::{
    finops::{
        amount::{Amount, BillingMonth, Currency, SCALE},
        attribution::Axis,
        bill::Bill,
        cost::{Dimension, TooLarge},
        driver::{Definition, Driver, NO_SCOPE, Quantity},
        forecast::{self, Calendar, Forecast, Question, QuestionFault, Step},
    },
    kernel::{Decider, Refusal, canonical_bytes, codes, sha256},
    log::{Position, hex},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    allocate::allocate_by,
    attribute::{AttributeFault, AxisQuery, Whose, attributed},
    bills::Counting,
    ledger::Ledger,
    ports::{BillFault, BillStore, Cell, Op, Query, ViewFault},
};

/// Decimals of an estimate.
pub const PLACES: u32 = 4;
/// Most months of history: what is older says little of what comes.
const HISTORY_MONTHS_MAX: u32 = 120;
/// The same by day: three years show every pattern of days.
const HISTORY_MONTHS_BY_DAY_MAX: u32 = 36;
/// Most drivers of one forecast: each takes a coefficient, and histories are short.
const DRIVERS_MAX: usize = 20;
/// Beyond this an estimate is not told apart from more.
const ESTIMATE_MAX: f64 = 1e22;
/// Changes whenever the same inputs give another answer.
const METHOD: u32 = 1;

/// Which drivers are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Drivers {
    /// Every active one that fits; those that do not are named with the reason.
    #[default]
    Fitting,
    /// These; one that does not fit is refused.
    These(Vec<Uuid>),
}

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Basis, groups and filters of the costs.
    pub costs: AxisQuery,
    /// After what is shared is spread by the rules.
    pub allocated: bool,
    /// How far apart values are.
    pub step: Step,
    /// Steps to forecast.
    pub horizon: usize,
    /// First billing month of the history; the first there is when it is left out.
    pub from: Option<BillingMonth>,
    /// Last billing month of the history; the last complete one when it is left out.
    pub to: Option<BillingMonth>,
    /// Also the newest month, although it still runs.
    pub running: bool,
    /// Steps, by name, from which another level is known to count.
    pub shifts: Vec<String>,
    /// Which drivers.
    pub drivers: Drivers,
    /// Most series; what is beyond is forecast as one.
    pub most: usize,
    /// Past steps to forecast as well, each one step before, beside what came.
    pub look_back: usize,
}

/// What a forecast is made of.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The bills.
    pub counting: Counting,
    /// The newest month, when it is left out because it still runs.
    pub left_out: Option<BillingMonth>,
    /// What places costs, where lines alone do not tell it.
    pub whose: Whose,
    /// Drivers as they were, by id.
    pub drivers: BTreeMap<Uuid, Driver>,
}

/// One step to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The step, such as 2026-11.
    pub period: String,
    /// What is expected.
    pub value: Amount,
    /// Where it lies four times of five.
    pub likely: (Amount, Amount),
    /// Where it lies nineteen times of twenty.
    pub nearly_sure: (Amount, Amount),
}

/// A past step, as it was forecast one step before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Came {
    /// The step.
    pub period: String,
    /// What was forecast.
    pub forecast: Amount,
    /// What came.
    pub came: Amount,
}

/// One group in one currency.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its values of the dimensions; none for what is beyond the largest.
    pub group: Option<Vec<String>>,
    /// How many groups it is made of.
    pub groups: usize,
    /// The currency.
    pub currency: Currency,
    /// Every step from its first cost on.
    pub history: Vec<(String, Amount)>,
    /// Every step to come.
    pub points: Vec<Point>,
    /// How they were made, and how the models did.
    pub forecast: Forecast,
    /// Past steps beside their forecasts, when that was asked.
    pub look_back: Vec<Came>,
}

/// All series of one currency.
#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    /// How many series.
    pub series: usize,
    /// Every step: the sum of the series.
    pub history: Vec<(String, Amount)>,
    /// Every step to come: values are the sums of the series' values.
    pub points: Vec<Point>,
    /// How models did on the total itself: its limits come from that.
    pub forecast: Forecast,
    /// Sums of the series' past steps and forecasts.
    pub look_back: Vec<Came>,
}

/// A driver that was used, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The driver.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// Which of its definitions.
    pub revision: u64,
    /// Why it was left out.
    pub left_out: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forecasts {
    /// Largest first; what is beyond the largest is last.
    pub series: Vec<Series>,
    /// By currency.
    pub totals: BTreeMap<Currency, Total>,
    /// The drivers, by id.
    pub drivers: Vec<Used>,
    /// First and last step of the history, when there is one.
    pub history: Option<(String, String)>,
    /// Names everything it is made of.
    pub digest: String,
}

/// How wrong forecasts of one step were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Missed {
    /// How many steps.
    pub steps: usize,
    /// The sum of errors over the sum of values.
    pub wape: f64,
    /// The sum of forecasts less that of values, over the sum of values.
    pub bias: f64,
}

/// Why costs cannot be forecast.
#[derive(Debug, thiserror::Error)]
pub enum ForecastFault {
    /// The question does not fit these costs, or these drivers.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The costs cannot be told.
    #[error(transparent)]
    Costs(#[from] BillFault),
    /// A value is beyond what can be computed with.
    #[error(transparent)]
    Question(#[from] QuestionFault),
}

impl From<AttributeFault> for ForecastFault {
    fn from(fault: AttributeFault) -> Self {
        match fault {
            AttributeFault::Refused(refusal) => Self::Refused(refusal),
            AttributeFault::Costs(fault) => Self::Costs(fault),
        }
    }
}

impl From<TooLarge> for ForecastFault {
    fn from(fault: TooLarge) -> Self {
        Self::Costs(fault.into())
    }
}

fn no(what: impl Into<String>) -> ForecastFault {
    Refusal::new(&codes::INVALID_FIELD, what).into()
}

/// A group and its currency, step by step.
type Key = (Vec<String>, Currency);

/// A driver over all steps, past and future.
struct Ready<'a> {
    /// Its name; with its id when another is called the same.
    name: String,
    definition: &'a Definition,
    values: Vec<f64>,
}

/// What one series is forecast from.
struct Part {
    groups: usize,
    key: Option<Vec<String>>,
    currency: Currency,
    amounts: Vec<Amount>,
    drivers: Vec<forecast::Driver>,
}

/// Forecasts by groups. Blocks the thread, and works on so many of them.
pub fn forecast(
    store: &dyn BillStore,
    inputs: &Inputs,
    asked: &Asked,
    threads: usize,
) -> Result<Forecasts, ForecastFault> {
    for group in &asked.costs.groups {
        if NO_SCOPE.contains(&group.to_string().as_str()) {
            return Err(no(format!("group_by: a forecast runs along time, not by {group}")));
        }
    }
    let months = inputs.counting.bills.iter().filter_map(|one| one.bill.month);
    let Some((first, last)) = months.clone().min().zip(months.max()) else {
        return Ok(Forecasts { digest: digest(inputs, asked, None, &[]), ..Forecasts::default() });
    };
    let calendar = Calendar { first: first.first(), step: asked.step };
    let steps = steps(calendar, last);
    let shifts = shifts(calendar, steps, &asked.shifts)?;
    let (ready, used) = drivers(inputs, asked, calendar, steps)?;
    let table = table(store, inputs, asked, calendar, steps)?;
    let parts = parts(table, asked, &ready)?;
    let digest = digest(inputs, asked, Some((first, last)), &used);
    let series = in_threads(&parts, threads, |part| one(part, asked, calendar, &shifts))?;
    let mut forecasts = Forecasts {
        totals: BTreeMap::new(),
        series,
        drivers: used,
        history: Some((calendar.name(0), calendar.name(steps - 1))),
        digest,
    };
    let currencies: BTreeSet<&Currency> = parts.iter().map(|part| &part.currency).collect();
    for currency in currencies {
        let of: Vec<(&Part, &Series)> = parts
            .iter()
            .zip(&forecasts.series)
            .filter(|(part, _)| part.currency == *currency)
            .collect();
        let total = total(&of, asked, calendar, &shifts, steps)?;
        forecasts.totals.insert(currency.clone(), total);
    }
    Ok(forecasts)
}

/// How wrong forecasts were; none when there are none, or nothing came.
#[expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "an error's share is no money"
)]
pub fn missed(look_back: &[Came]) -> Option<Missed> {
    let (mut wrong, mut over, mut sum) = (0.0, 0.0, 0.0);
    for one in look_back {
        let off = one.forecast.0 as f64 - one.came.0 as f64;
        wrong += off.abs();
        over += off;
        sum += (one.came.0 as f64).abs();
    }
    (sum > 0.0).then(|| Missed { steps: look_back.len(), wape: wrong / sum, bias: over / sum })
}

/// How many steps lie between the first day and a month's end.
fn steps(calendar: Calendar, last: BillingMonth) -> usize {
    match calendar.step {
        Step::Day => usize::try_from((last.end() - calendar.first).num_days()).unwrap_or(0),
        Step::Month => {
            (0..HISTORY_MONTHS_MAX as usize).take_while(|at| calendar.day(*at) < last.end()).count()
        }
    }
}

fn shifts(calendar: Calendar, steps: usize, names: &[String]) -> Result<Vec<usize>, ForecastFault> {
    let mut found = BTreeSet::new();
    for name in names {
        let at = (1..steps).find(|at| calendar.name(*at) == *name).ok_or_else(|| {
            let (first, last) = (calendar.name(1), calendar.name(steps.max(2) - 1));
            no(format!(
                "shifts: {name:?} is no step within {first}…{last}; of what is to come, say the \
                 amount by a driver"
            ))
        })?;
        found.insert(at);
    }
    Ok(found.into_iter().collect())
}

/// The drivers that fit, and what became of each.
fn drivers<'a>(
    inputs: &'a Inputs,
    asked: &Asked,
    calendar: Calendar,
    steps: usize,
) -> Result<(Vec<Ready<'a>>, Vec<Used>), ForecastFault> {
    let wanted: Vec<(Uuid, &Driver)> = match &asked.drivers {
        Drivers::Fitting => {
            let active = inputs.drivers.iter().filter(|(_, driver)| !driver.retired);
            active.map(|(id, driver)| (*id, driver)).collect()
        }
        Drivers::These(ids) => {
            let ids: BTreeSet<Uuid> = ids.iter().copied().collect();
            let find = |id: Uuid| match inputs.drivers.get(&id) {
                Some(driver) if !driver.retired => Ok((id, driver)),
                Some(_) => Err(no(format!("drivers: {id} is retired"))),
                None => Err(no(format!("drivers: there is no driver {id}"))),
            };
            ids.into_iter().map(find).collect::<Result<_, _>>()?
        }
    };
    let (mut ready, mut used) = (Vec::new(), Vec::new());
    for (id, driver) in wanted {
        let definition = &driver.definition;
        let fits = scoped(definition, &asked.costs).and_then(|()| {
            let values = definition.over(calendar, steps + asked.horizon);
            values.map_err(|fault| fault.to_string())
        });
        let fits = match fits {
            Ok(_) if ready.len() == DRIVERS_MAX => {
                Err(format!("a forecast has at most {DRIVERS_MAX} drivers"))
            }
            fits => fits,
        };
        let left_out = match fits {
            Ok(values) => {
                let own = &definition.name;
                let same = |one: &Ready<'_>| one.definition.name == *own;
                let name =
                    if ready.iter().any(same) { format!("{own} ({id})") } else { own.clone() };
                ready.push(Ready { name, definition, values });
                None
            }
            Err(reason) if asked.drivers == Drivers::Fitting => Some(reason),
            Err(reason) => return Err(no(format!("drivers: {}: {reason}", definition.name))),
        };
        let (name, revision) = (definition.name.clone(), driver.revision);
        used.push(Used { id, name, revision, left_out });
    }
    Ok((ready, used))
}

/// Whether groups and filters tell of each series if it depends on a driver.
fn scoped(definition: &Definition, costs: &AxisQuery) -> Result<(), String> {
    for name in definition.scope.keys() {
        let grouped = costs.groups.iter().any(|group| group.to_string() == *name);
        if !grouped && pinned(costs, name).is_none() {
            return Err(format!("its scope is by {name}: group by it, or filter by its values"));
        }
    }
    Ok(())
}

/// The values a filter allows of a dimension, when it names them.
fn pinned(costs: &AxisQuery, name: &str) -> Option<Vec<String>> {
    let mut filters = costs.filters.iter().filter(|(dimension, _)| dimension.to_string() == name);
    let (_, filter) = filters.find(|(_, filter)| filter.op == Op::In)?;
    let text = |cell: &Cell| match cell {
        Cell::Null => String::new(),
        Cell::Boolean(yes) => yes.to_string(),
        Cell::Integer(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
    };
    Some(filter.values.iter().map(text).collect())
}

/// Whether a group's costs depend on a driver.
fn depends(definition: &Definition, costs: &AxisQuery, key: &Key) -> bool {
    let currency = definition.price.as_ref().is_none_or(|price| price.currency == key.1);
    currency
        && definition.scope.iter().all(|(name, values)| {
            let place = costs.groups.iter().position(|group| group.to_string() == *name);
            match (place, pinned(costs, name)) {
                (Some(place), _) => values.contains(&key.0[place]),
                (None, Some(pinned)) => pinned.iter().all(|one| values.contains(one)),
                (None, None) => false,
            }
        })
}

/// What every group comes to, step by step.
fn table(
    store: &dyn BillStore,
    inputs: &Inputs,
    asked: &Asked,
    calendar: Calendar,
    steps: usize,
) -> Result<BTreeMap<Key, Vec<Amount>>, ForecastFault> {
    let mut query = asked.costs.clone();
    query.groups.push(Axis::Line(Dimension::Plain(asked.step.name())));
    let (counting, whose) = (&inputs.counting, &inputs.whose);
    let found = if asked.allocated {
        allocate_by(store, counting, whose, &query)?.costs(whose, &query)?
    } else {
        attributed(store, counting, whose, &query)?
    };
    let places: BTreeMap<String, usize> = (0..steps).map(|at| (calendar.name(at), at)).collect();
    let mut table: BTreeMap<Key, Vec<Amount>> = BTreeMap::new();
    for (group, currency, sum) in found.iter() {
        let Some((period, values)) = group.split_last() else { continue };
        // A bill may have charges of days outside its month: they count at its edge.
        let at = places.get(period).copied().unwrap_or_else(|| {
            if *period < calendar.name(0) { 0 } else { steps.saturating_sub(1) }
        });
        let row = table.entry((values.to_vec(), currency.clone())).or_default();
        row.resize(steps, Amount::ZERO);
        row[at] = row[at].checked_add(sum.amount).ok_or(TooLarge)?;
    }
    Ok(table)
}

/// The largest groups, the others as one for each currency, each with its drivers.
fn parts(
    table: BTreeMap<Key, Vec<Amount>>,
    asked: &Asked,
    ready: &[Ready<'_>],
) -> Result<Vec<Part>, ForecastFault> {
    let mut rows: Vec<(Key, Vec<Amount>)> = table.into_iter().collect();
    // In the order of their keys among equals.
    rows.sort_by_key(|(_, amounts)| {
        let sizes = amounts.iter().map(|amount| amount.0.unsigned_abs());
        std::cmp::Reverse(sizes.fold(0_u128, u128::saturating_add))
    });
    let mut given: Vec<Vec<forecast::Driver>> = rows.iter().map(|_| Vec::new()).collect();
    for driver in ready {
        let definition = driver.definition;
        let within: Vec<usize> = (0..rows.len())
            .filter(|place| depends(definition, &asked.costs, &rows[*place].0))
            .collect();
        let shares = match &definition.price {
            Some(price) => shares(&rows, &within, price.amount),
            None => vec![None; within.len()],
        };
        for (place, coefficient) in within.into_iter().zip(shares) {
            given[place].push(forecast::Driver {
                name: driver.name.clone(),
                values: driver.values.clone(),
                coefficient,
            });
        }
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut others: BTreeMap<Currency, Part> = BTreeMap::new();
    for (place, (((key, currency), amounts), drivers)) in rows.into_iter().zip(given).enumerate() {
        if place < asked.most {
            parts.push(Part { groups: 1, key: Some(key), currency, amounts, drivers });
            continue;
        }
        let other = others.entry(currency.clone()).or_insert_with(|| Part {
            groups: 0,
            key: None,
            currency,
            amounts: vec![Amount::ZERO; amounts.len()],
            drivers: Vec::new(),
        });
        other.groups += 1;
        for (sum, amount) in other.amounts.iter_mut().zip(amounts) {
            *sum = sum.checked_add(amount).ok_or(TooLarge)?;
        }
        // What depends on a driver in part depends on it as a whole, by as much.
        for driver in drivers {
            together(&mut other.drivers, driver);
        }
    }
    parts.extend(others.into_values());
    Ok(parts)
}

/// Adds a driver's price to the one that is there, or the driver.
#[expect(clippy::float_arithmetic, reason = "a forecast estimates, and never books")]
fn together(drivers: &mut Vec<forecast::Driver>, driver: forecast::Driver) {
    let same = |one: &&mut forecast::Driver| {
        one.name == driver.name
            && one.coefficient.is_some() == driver.coefficient.is_some()
            && one.values == driver.values
    };
    match drivers.iter_mut().find(same) {
        Some(one) => {
            one.coefficient = one.coefficient.zip(driver.coefficient).map(|(a, b)| a + b);
        }
        None => drivers.push(driver),
    }
}

/// A price spread over the series that depend on it, by what they cost lately.
#[expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a forecast estimates, and never books"
)]
fn shares(rows: &[(Key, Vec<Amount>)], within: &[usize], price: Quantity) -> Vec<Option<f64>> {
    let weight = |place: &usize| {
        let amounts = &rows[*place].1;
        let lately = &amounts[amounts.len().saturating_sub(12)..];
        lately.iter().map(|amount| (amount.0 as f64).abs()).sum::<f64>()
    };
    let weights: Vec<f64> = within.iter().map(weight).collect();
    let sum: f64 = weights.iter().sum();
    let even = 1.0 / within.len().max(1) as f64;
    let share = |weight: f64| if sum > 0.0 { weight / sum } else { even };
    weights.into_iter().map(|weight| Some(price.to_f64() * share(weight))).collect()
}

/// One series, from its first cost on.
fn one(
    part: &Part,
    asked: &Asked,
    calendar: Calendar,
    shifts: &[usize],
) -> Result<Series, ForecastFault> {
    let first = part.amounts.iter().position(|amount| *amount != Amount::ZERO).unwrap_or(0);
    let calendar = Calendar { first: calendar.day(first), ..calendar };
    let drivers = part.drivers.iter().map(|driver| {
        let values = driver.values[first..].to_vec();
        forecast::Driver { values, ..driver.clone() }
    });
    let amounts = &part.amounts[first..];
    let question = Question {
        history: amounts.iter().map(|amount| Quantity(*amount).to_f64()).collect(),
        season: asked.step.season(),
        horizon: asked.horizon,
        drivers: drivers.collect(),
        calendar: Some(calendar),
        shifts: shifts.iter().filter_map(|at| at.checked_sub(first)).filter(|at| *at > 0).collect(),
    };
    let forecast = forecast::forecast(&question)?;
    let said = forecast::look_back(&question, asked.look_back)?;
    let mut look_back = Vec::new();
    let past = amounts.len().saturating_sub(asked.look_back);
    for (at, &came) in amounts.iter().enumerate().skip(past) {
        // At a series' first step nobody knew of it.
        let forecast = said.iter().find(|one| one.at == at).map_or(0.0, |one| one.forecast);
        let period = calendar.name(at);
        look_back.push(Came { period, forecast: estimate(forecast), came });
    }
    Ok(Series {
        group: part.key.clone(),
        groups: part.groups,
        currency: part.currency.clone(),
        history: amounts
            .iter()
            .enumerate()
            .map(|(at, amount)| (calendar.name(at), *amount))
            .collect(),
        points: points(&forecast, calendar, amounts.len()),
        forecast,
        look_back,
    })
}

fn points(forecast: &Forecast, calendar: Calendar, from: usize) -> Vec<Point> {
    let both = |limits: (f64, f64)| (estimate(limits.0), estimate(limits.1));
    let point = |(step, point): (usize, &forecast::Point)| Point {
        period: calendar.name(from + step),
        value: estimate(point.value),
        likely: both(point.likely),
        nearly_sure: both(point.nearly_sure),
    };
    forecast.points.iter().enumerate().map(point).collect()
}

/// The nearest amount of [`PLACES`] decimals.
#[expect(clippy::float_arithmetic, reason = "a forecast estimates, and never books")]
fn estimate(value: f64) -> Amount {
    let units = value.clamp(-ESTIMATE_MAX, ESTIMATE_MAX) * 10_f64.powi(PLACES as i32);
    Amount(units.round() as i128 * 10_i128.pow(SCALE - PLACES))
}

/// Sums of series; the limits from the total's own past.
fn total(
    of: &[(&Part, &Series)],
    asked: &Asked,
    calendar: Calendar,
    shifts: &[usize],
    steps: usize,
) -> Result<Total, ForecastFault> {
    let mut amounts = vec![Amount::ZERO; steps];
    let mut drivers: Vec<forecast::Driver> = Vec::new();
    for (part, _) in of {
        for (sum, amount) in amounts.iter_mut().zip(&part.amounts) {
            *sum = sum.checked_add(*amount).ok_or(TooLarge)?;
        }
        for driver in &part.drivers {
            together(&mut drivers, driver.clone());
        }
    }
    let whole = Part {
        groups: of.len(),
        key: None,
        currency: of.first().map_or_else(Currency::none, |(part, _)| part.currency.clone()),
        amounts,
        drivers,
    };
    // Of one series it is that one.
    let whole = match of {
        [(_, only)] => (*only).clone(),
        _ => one(&whole, asked, calendar, shifts)?,
    };
    let mut points = whole.points;
    for (place, point) in points.iter_mut().enumerate() {
        let mut sum = Amount::ZERO;
        for (_, series) in of {
            sum = sum.checked_add(series.points[place].value).ok_or(TooLarge)?;
        }
        let off = sum.0 - point.value.0;
        let moved = |(low, high): (Amount, Amount)| (Amount(low.0 + off), Amount(high.0 + off));
        point.likely = moved(point.likely);
        point.nearly_sure = moved(point.nearly_sure);
        point.value = sum;
    }
    let mut look_back = whole.look_back;
    for one in &mut look_back {
        let period = &one.period;
        let own = of.iter().flat_map(|(_, series)| &series.look_back);
        let mut sum = Amount::ZERO;
        for own in own.filter(|own| own.period == *period) {
            sum = sum.checked_add(own.forecast).ok_or(TooLarge)?;
        }
        one.forecast = sum;
    }
    Ok(Total {
        series: of.len(),
        history: whole.history,
        points,
        forecast: whole.forecast,
        look_back,
    })
}

/// Names everything an answer is made of.
fn digest(
    inputs: &Inputs,
    asked: &Asked,
    months: Option<(BillingMonth, BillingMonth)>,
    used: &[Used],
) -> String {
    let drivers: Vec<_> = used
        .iter()
        .map(|one| {
            let driver = inputs.drivers.get(&one.id);
            json!({
                "id": one.id, "revision": one.revision,
                "definition": driver.map(|driver| &driver.definition),
            })
        })
        .collect();
    let by_lines = !asked.allocated && asked.costs.of_lines().is_some();
    let whose = (!by_lines).then(|| (&inputs.whose.rules, inputs.whose.around.digest()));
    let filters = asked.costs.filters.iter().map(|(axis, filter)| {
        json!({"dimension": axis.to_string(), "op": filter.op, "values": filter.values})
    });
    let mut question = json!({
        "method": METHOD,
        "bills": inputs.counting.digest(),
        "whose": whose,
        "allocated": asked.allocated,
        "months": months,
        "basis": asked.costs.basis.name(),
        "group_by": asked.costs.groups.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "filters": filters.collect::<Vec<_>>(),
        "step": asked.step.name(),
        "horizon": asked.horizon,
        "shifts": asked.shifts.iter().collect::<BTreeSet<_>>(),
        "drivers": drivers,
        "chosen": asked.drivers != Drivers::Fitting,
        "most": asked.most,
        "look_back": asked.look_back,
    });
    if !inputs.whose.terms.is_none() {
        question["terms"] = json!(inputs.whose.terms.digest());
    }
    hex(&sha256(&canonical_bytes(&question)))
}

/// The same in the same order, on so many threads.
fn in_threads<'a, In: Sync, Out: Send>(
    all: &'a [In],
    threads: usize,
    work: impl Fn(&'a In) -> Result<Out, ForecastFault> + Sync,
) -> Result<Vec<Out>, ForecastFault> {
    let each = all.len().div_ceil(threads.max(1)).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = all
            .chunks(each)
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Result<Vec<_>, _>>()))
            .collect();
        let mut done = Vec::with_capacity(all.len());
        for one in running {
            done.extend(one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(done)
    })
}

impl Ledger {
    /// What a forecast is made of, as it was at a position. What places costs is to be put in when
    /// the question is not of lines alone.
    pub async fn forecast_inputs(
        &self,
        asked: &Asked,
        at: Option<Position>,
    ) -> Result<Inputs, ViewFault> {
        let day = |year| chrono::NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default();
        let from = asked.from.unwrap_or_else(|| BillingMonth::of(day(1)));
        let to = asked.to.unwrap_or_else(|| BillingMonth::of(day(9_999)));
        let mut counting = self.bills(from, to, at).await?;
        let at = counting.position;
        let mut left_out = None;
        let newest = counting.bills.iter().filter_map(|one| one.bill.month).max();
        if let Some(newest) = newest.filter(|_| !asked.running && asked.to.is_none())
            && self.runs(newest, at).await?
        {
            counting.bills.retain(|one| one.bill.month != Some(newest));
            left_out = Some(newest);
        }
        let most = match asked.step {
            Step::Day => HISTORY_MONTHS_BY_DAY_MAX,
            Step::Month => HISTORY_MONTHS_MAX,
        };
        if let Some(last) = counting.bills.iter().filter_map(|one| one.bill.month).max() {
            let first = last.first().checked_sub_months(chrono::Months::new(most - 1));
            counting.bills.retain(|one| one.bill.month >= first.map(BillingMonth::of));
        }
        let (drivers, _) = self.states::<Driver>(Some(at)).await?;
        let drivers = drivers.into_iter().collect();
        Ok(Inputs { counting, left_out, whose: Whose::default(), drivers })
    }

    /// Whether a month still runs: one of its bills is open, and nothing has come in since the month
    /// was over.
    async fn runs(&self, month: BillingMonth, at: Position) -> Result<bool, ViewFault> {
        let end = month.end().and_time(chrono::NaiveTime::MIN).and_utc();
        let mut query = Query::all().with("kind", Bill::KIND);
        query.at = Some(at);
        let (rows, _) = self.rows(query).await?;
        Ok(rows.iter().any(|row| {
            let updated = row.body["updated_at"].as_i64().and_then(DateTime::from_timestamp_micros);
            row.body["state"]["month"] == *month.to_string()
                && row.body["status"] == "open"
                && updated.is_some_and(|updated| updated < end)
        }))
    }
}
