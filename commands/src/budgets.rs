//! Holds what was spent against budgets.
//!
//! As with anomalies, an evaluation takes no input but bills and budgets at a position, and a
//! repeated one makes no event.
//!
//! What a period will have come to is what it came to so far, the days that are missing of its
//! newest month by the days before, and its further months by the months before; each with the model
//! that was least wrong on the past ([`domain::finops::forecast`]).

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "a forecast estimates, and never books"
)]

use std::{collections::BTreeMap, sync::Arc};

use chrono::NaiveDate;
use domain::{
    finops::{
        amount::{Amount, BillingMonth, SCALE},
        anomaly_found::AsOf,
        attribution::Axis,
        budget::{Alert, Allowance, Budget, BudgetPeriod, Standing},
        cost::{Dimension, TooLarge},
        forecast::{Question, forecast},
    },
    kernel::{Decider, Principal},
    kinds,
    log::Position,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    attribute::{AttributeFault, AxisQuery, Whose, attributed},
    bills::Counting,
    ledger::{Ledger, LoadFault},
    ports::{BillFault, BillStore, ViewFault},
    submit::{Submission, SubmitFault},
    watch::{By, Unknown, WatchedBy, basis, daily, filters},
};

/// Days that the days to come are estimated from.
const DAYS_MAX: usize = 365;

/// What there is to hold against what.
#[derive(Clone, Debug)]
pub struct Budgeting {
    /// The bills.
    pub counting: Arc<Counting>,
    /// What says whose costs are.
    pub whose: WatchedBy,
    /// Budgets that are enabled.
    pub budgets: BTreeMap<Uuid, Budget>,
}

/// Where budgets stand: every period of each, oldest first.
pub type Standings = BTreeMap<Uuid, Vec<Standing>>;

/// What an evaluation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// How many budgets are enabled.
    pub budgets: usize,
    /// Thresholds that were reached.
    pub alerted: Vec<(Uuid, Alert)>,
    /// Those that are not any more.
    pub withdrawn: Vec<(Uuid, Alert)>,
    /// Budgets that were not evaluated, and why.
    pub refused: BTreeMap<Uuid, String>,
    /// The last position that was written, or the one that was looked at.
    pub position: Position,
}

/// What was asked of costs for a budget: for whoever asks where its numbers come from.
pub fn question(allowance: &Allowance) -> Result<AxisQuery, Unknown> {
    let mut filters = filters(&allowance.conditions)?;
    let currency = crate::ports::Filter {
        column: "currency".to_owned(),
        op: crate::ports::Op::In,
        values: vec![allowance.currency.code().into()],
    };
    filters.push((Axis::Line(Dimension::Plain("currency")), currency));
    let groups = ["month", "day"].map(|name| Axis::Line(Dimension::Plain(name))).into();
    Ok(AxisQuery { basis: basis(&allowance.basis)?, groups, filters })
}

/// By what a budget says whose costs are.
fn by(allowance: &Allowance) -> By {
    let axes = allowance.conditions.iter().filter_map(|one| one.dimension.parse().ok());
    let axes: Vec<Axis> = axes.collect();
    By::of(&axes, allowance.rule_set, allowance.organisation)
}

fn units(amount: Amount) -> f64 {
    amount.0 as f64 / 10_f64.powi(SCALE as i32)
}

/// The sum of the values to come, each no less than nothing where none ever was. A millionth is as
/// exact as it gets.
fn to_come(history: &[f64], season: usize, horizon: usize) -> Option<Vec<f64>> {
    if horizon == 0 {
        return Some(vec![]);
    }
    let question = Question { history: history.to_vec(), season, horizon, ..Question::default() };
    let least = if history.iter().all(|value| *value >= 0.0) { 0.0 } else { f64::MIN };
    let points = forecast(&question).ok()?.points;
    Some(points.into_iter().map(|point| point.value.max(least)).collect())
}

fn amount(value: f64) -> Amount {
    Amount((value * 1e6).round() as i128 * 10_i128.pow(SCALE - 6))
}

/// What months came to, and what is to come.
struct Months {
    actual: BTreeMap<BillingMonth, Amount>,
    /// The newest month that bills were counted of.
    newest: BillingMonth,
    /// What its missing days are estimated at.
    rest: f64,
}

impl Months {
    fn of(
        store: &dyn BillStore,
        counting: &Counting,
        whose: &Whose,
        months: (BillingMonth, BillingMonth),
        allowance: &Allowance,
    ) -> Result<Result<Self, Unknown>, BillFault> {
        let asked = match question(allowance) {
            Ok(asked) => asked,
            Err(unknown) => return Ok(Err(unknown)),
        };
        let table = match attributed(store, counting, whose, &asked) {
            Ok(table) => table,
            Err(AttributeFault::Refused(refusal)) => return Ok(Err(Unknown(refusal.detail))),
            Err(AttributeFault::Costs(fault)) => return Err(fault),
        };
        let mut actual: BTreeMap<BillingMonth, Amount> = BTreeMap::new();
        for (group, _, sum) in table.iter() {
            let Ok(month) = group[0].parse() else { continue };
            let own = actual.entry(month).or_default();
            *own = own.checked_add(sum.amount).ok_or(TooLarge)?;
        }
        // By the day alone: what of a day is in another month's bill is that day's all the same.
        let mut series: BTreeMap<NaiveDate, f64> = BTreeMap::new();
        for ((_, _), one) in daily(&table, months)? {
            for (at, cost) in one.amounts.iter().enumerate() {
                let day = one.first + chrono::Days::new(at as u64);
                *series.entry(day).or_default() += units(*cost);
            }
        }
        let newest = months.1;
        let closed = counting
            .bills
            .iter()
            .filter(|one| one.bill.month == Some(newest))
            .all(|one| one.bill.closed);
        let last = series.keys().next_back().copied();
        let missing = match last {
            Some(last) if !closed && last >= newest.first() => (newest.end() - last).num_days() - 1,
            _ => 0,
        };
        let values: Vec<f64> = series.into_values().collect();
        let recent = &values[values.len().saturating_sub(DAYS_MAX)..];
        let rest = to_come(recent, 7, missing.max(0) as usize).unwrap_or_default();
        Ok(Ok(Self { actual, newest, rest: rest.into_iter().sum() }))
    }

    fn standing(&self, period: BudgetPeriod) -> Result<Standing, TooLarge> {
        let (first, last) = (period.first, period.last());
        let mut actual = Amount::ZERO;
        for (_, cost) in self.actual.range(first..=last) {
            actual = actual.checked_add(*cost).ok_or(TooLarge)?;
        }
        let mut forecast = Some(actual);
        if last >= self.newest {
            let further = std::iter::successors(Some(self.newest), |month| Some(month.next()))
                .take_while(|month| *month < last)
                .count();
            let mut history: Vec<f64> = Vec::new();
            if let Some((oldest, _)) = self.actual.first_key_value() {
                let all = std::iter::successors(Some(*oldest), |month| Some(month.next()));
                let all = all.take_while(|month| *month <= self.newest);
                let cost = |month| self.actual.get(&month).copied().unwrap_or_default();
                history = all.map(|month| units(cost(month))).collect();
            }
            if let Some(newest) = history.last_mut() {
                *newest += self.rest;
            }
            let months = to_come(&history, 12, further).map(|all| all.into_iter().sum::<f64>());
            forecast = months.and_then(|months| actual.checked_add(amount(self.rest + months)));
        }
        Ok(Standing { period: period.to_string(), actual, forecast })
    }
}

/// Where every budget stands in each of its periods, and those that do not read. Blocks the thread.
pub fn standings(
    store: &dyn BillStore,
    budgeting: &Budgeting,
) -> Result<(Standings, BTreeMap<Uuid, String>), BillFault> {
    let (mut all, mut refused) = (Standings::new(), BTreeMap::new());
    let Some(months) = budgeting.counting.months() else { return Ok((all, refused)) };
    for (id, budget) in &budgeting.budgets {
        let Some(allowance) = &budget.allowance else { continue };
        let whose = match budgeting.whose.get(&by(allowance)) {
            Some(Ok(whose)) => whose,
            Some(Err(unknown)) => {
                refused.insert(*id, unknown.0.clone());
                continue;
            }
            None => continue,
        };
        match Months::of(store, &budgeting.counting, whose, months, allowance)? {
            Err(unknown) => {
                refused.insert(*id, unknown.0);
            }
            Ok(known) => {
                let periods = allowance.periods(months.1).into_iter();
                let own = periods.map(|period| known.standing(period)).collect::<Result<_, _>>()?;
                all.insert(*id, own);
            }
        }
    }
    Ok((all, refused))
}

impl Ledger {
    /// What there is to hold against what, as it was at a position.
    pub async fn budgeting(&self, at: Option<Position>) -> Result<Budgeting, ViewFault> {
        let counting = self.all_bills(at).await?;
        let mut budgets = self.all_of::<Budget>(counting.position).await?;
        budgets.retain(|_, budget| budget.allowance.is_some() && !budget.disabled);
        let allowances = budgets.values().filter_map(|budget| budget.allowance.as_ref());
        let questions: Vec<By> = allowances.map(by).collect();
        let whose = self.watched_by(&counting, questions).await?;
        Ok(Budgeting { counting: Arc::new(counting), whose, budgets })
    }

    /// Tells budgets where they stand.
    pub async fn tell_budgets(
        &self,
        budgeting: &Budgeting,
        standings: Standings,
    ) -> Result<Evaluation, SubmitFault> {
        let kind = kinds::by_name(Budget::KIND)
            .ok_or_else(|| LoadFault::Missing("the kind budget".to_owned()))?;
        let position = budgeting.counting.position;
        let as_of = AsOf { position, inputs: budgeting.counting.digest() };
        let budgets = budgeting.budgets.len();
        let mut evaluation = Evaluation { budgets, position, ..Evaluation::default() };
        for (id, standings) in standings {
            let body = json!({"standings": standings, "as_of": as_of});
            let who = Principal::system("watch");
            let outcome = self.submit(Submission::new(who, kind, id, "evaluate", body)).await?;
            for event in &outcome.events {
                let alert = serde_json::from_value(event.data["alert"].clone());
                let Ok(alert) = alert else { continue };
                match event.event_type.as_str() {
                    "alerted" => evaluation.alerted.push((id, alert)),
                    _ => evaluation.withdrawn.push((id, alert)),
                }
            }
            evaluation.position = evaluation.position.max(outcome.position);
        }
        Ok(evaluation)
    }
}
