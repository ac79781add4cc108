//! What may be spent in a month, a quarter or a year, and who is told when it is going to be more.
//!
//! ```text
//!   absent ── define ──► enabled ◄── enable ──── disable ──► disabled
//!                        ▲   │
//!                        └───┘ define, evaluate
//! ```
//!
//! For each period and threshold there is one alert, however often the budget is evaluated. An alert
//! whose bills were restated below its threshold is withdrawn by an event of its own. One on the
//! forecast is withdrawn when the forecast has come down by a twentieth of the threshold: a forecast
//! moves a little every day.

use std::{collections::BTreeMap, fmt};

use chrono::Datelike;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    amount::{Amount, BillingMonth, Currency},
    anomaly_found::AsOf,
    cost::Basis,
    scope::{LineCondition, check_basis, check_conditions},
    shown::percent,
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Most thresholds of a budget.
const ALERTS_MAX: usize = 20;
/// Largest threshold in percent.
const PERCENT_MAX: u32 = 10_000;
/// Of a threshold, in percent: below it a forecast's alert is withdrawn.
const FORECAST_WITHDRAWN: i128 = 95;

/// How long a period is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// A calendar month.
    #[default]
    Month,
    /// January to March, and so on.
    Quarter,
    /// January to December.
    Year,
}

impl Length {
    fn months(self) -> u32 {
        match self {
            Self::Month => 1,
            Self::Quarter => 3,
            Self::Year => 12,
        }
    }

    /// The period that a month lies in.
    pub fn of(self, month: BillingMonth) -> BudgetPeriod {
        let within = month.first().month0() % self.months();
        let first = month.first().checked_sub_months(chrono::Months::new(within));
        BudgetPeriod { first: BillingMonth::of(first.unwrap_or(month.first())), length: self }
    }
}

/// A month, a quarter or a year of the calendar; as text `2026-10`, `2026-Q4` or `2026`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetPeriod {
    /// Its first month.
    pub first: BillingMonth,
    /// How long it is.
    pub length: Length,
}

impl BudgetPeriod {
    /// Its last month.
    pub fn last(self) -> BillingMonth {
        (1..self.length.months()).fold(self.first, |month, _| month.next())
    }

    /// The period after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self { first: self.last().next(), length: self.length }
    }
}

impl fmt::Display for BudgetPeriod {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first.first();
        match self.length {
            Length::Month => self.first.fmt(out),
            Length::Quarter => write!(out, "{:04}-Q{}", first.year(), first.month0() / 3 + 1),
            Length::Year => write!(out, "{:04}", first.year()),
        }
    }
}

/// Which number is held against a threshold.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum On {
    /// What was spent so far.
    Actual,
    /// What will have been spent at the end of the period.
    Forecast,
}

/// When somebody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Which number.
    pub on: On,
    /// So many percent of the budget, 1 to 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Or so much; a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub amount: Option<Amount>,
}

/// What may be spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// How long a period is.
    #[serde(default)]
    pub period: Length,
    /// For each of them; a decimal, more than nothing.
    #[schemars(with = "String")]
    pub amount: Amount,
    /// In what. Costs in other currencies are not counted.
    pub currency: Currency,
    /// Which amount; `billed` when it is left out.
    #[serde(default = "billed")]
    pub basis: String,
    /// Whose cost it is: all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<LineCondition>,
    /// The first month; its whole period counts.
    #[schemars(with = "String")]
    pub from: BillingMonth,
    /// The last month; its whole period counts. Without it the budget goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub to: Option<BillingMonth>,
    /// When somebody is told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<Threshold>,
    /// The rule set that says whose costs are; the only published one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_set: Option<Uuid>,
    /// The organisation that nodes and levels are of; the only active one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<Uuid>,
}

fn billed() -> String {
    Basis::Billed.name().to_owned()
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Allowance {
    fn check(&self) -> Result<(), Refusal> {
        if self.amount.0 <= 0 {
            return Err(invalid("amount: a budget is more than nothing"));
        }
        if check_basis(&self.basis)? == Basis::Quantity {
            return Err(invalid("basis: a quantity is no money"));
        }
        check_conditions(&self.conditions)?;
        if self.to.is_some_and(|to| to < self.from) {
            return Err(invalid("to: is before from"));
        }
        if self.alerts.len() > ALERTS_MAX {
            return Err(invalid(format!("alerts: at most {ALERTS_MAX}")));
        }
        for (at, alert) in self.alerts.iter().enumerate() {
            let right = match (alert.percent, alert.amount) {
                (Some(percent), None) => (1..=PERCENT_MAX).contains(&percent),
                (None, Some(amount)) => amount.0 > 0,
                _ => false,
            };
            if !right || self.alerts[..at].contains(alert) {
                return Err(invalid(
                    "alerts: each has a percent from 1 to 10,000 or an amount above nothing, once",
                ));
            }
        }
        Ok(())
    }

    /// What a number is held against.
    fn limit(&self, threshold: &Threshold) -> Amount {
        match (threshold.percent, threshold.amount) {
            (Some(percent), _) => {
                let hundredths = self.amount.0.checked_mul(i128::from(percent));
                Amount(hundredths.map_or(i128::MAX, |product| product / 100))
            }
            (None, amount) => amount.unwrap_or(self.amount),
        }
    }

    /// The periods of this budget up to the one with this month, oldest first.
    pub fn periods(&self, until: BillingMonth) -> Vec<BudgetPeriod> {
        let until = self.to.map_or(until, |to| to.min(until));
        let periods =
            std::iter::successors(Some(self.period.of(self.from)), |one| Some(one.next()));
        periods.take_while(|period| period.first <= until).collect()
    }
}

/// Where a budget stands in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// `2026-10`, `2026-Q4` or `2026`.
    pub period: String,
    /// What was spent so far.
    #[schemars(with = "String")]
    pub actual: Amount,
    /// What will have been spent at its end; what was spent when it is over, none when nothing is
    /// known yet.
    #[schemars(with = "Option<String>")]
    pub forecast: Option<Amount>,
}

/// A threshold that was reached, or is not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Which threshold.
    pub threshold: Threshold,
    /// What it came to.
    #[schemars(with = "String")]
    pub limit: Amount,
    /// The period and its numbers.
    pub standing: Standing,
    /// The number that the threshold is about in percent of the budget.
    pub share: Option<String>,
}

/// A command of a budget.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say what may be spent.
    Define {
        /// What the budget is called, 1…100 characters; as before when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// All of it.
        allowance: Box<Allowance>,
    },
    /// Tell nobody any more.
    Disable {},
    /// Go on.
    Enable {},
    /// Hold what was spent against it.
    Evaluate {
        /// Every period.
        standings: Vec<Standing>,
        /// What was looked at.
        as_of: AsOf,
    },
}

/// A fact about a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A threshold is reached.
    Alerted {
        /// Which, and by what.
        alert: Box<Alert>,
        /// What was looked at.
        as_of: AsOf,
    },
    /// This may be spent.
    Defined {
        /// What the budget is called.
        name: String,
        /// All of it.
        allowance: Box<Allowance>,
    },
    /// Nobody is told.
    Disabled {},
    /// It goes on.
    Enabled {},
    /// A threshold that was reached is not any more.
    Withdrawn {
        /// Which, and by what.
        alert: Box<Alert>,
        /// What was looked at.
        as_of: AsOf,
    },
}

/// What may be spent, and what was told of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// What may be spent.
    pub allowance: Option<Allowance>,
    /// Whether nobody is told.
    pub disabled: bool,
    /// Alerts that stand, by period, in the order they came.
    pub alerts: BTreeMap<String, Vec<Alert>>,
    /// What was looked at when one was told or withdrawn last.
    pub as_of: AsOf,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Says what may be spent, and when somebody is told.").creating(),
    Verb::admin("disable", "Tells nobody any more; what was told stays."),
    Verb::admin("enable", "Goes on."),
    Verb::system(
        "evaluate",
        "Holds what was spent against the budget; sent by the server after it has looked at the bills.",
    ),
];

impl Budget {
    fn evaluate(&self, allowance: &Allowance, standings: &[Standing], as_of: &AsOf) -> Vec<Event> {
        if self.disabled || self.as_of.position > as_of.position {
            return vec![];
        }
        let none = Vec::new();
        let mut events = Vec::new();
        for standing in standings {
            let stand = self.alerts.get(&standing.period).unwrap_or(&none);
            let number = |on: On| match on {
                On::Actual => Some(standing.actual),
                On::Forecast => standing.forecast,
            };
            let alert = |threshold: &Threshold, limit: Amount| Alert {
                threshold: threshold.clone(),
                limit,
                standing: standing.clone(),
                share: number(threshold.on).and_then(|number| percent(number, allowance.amount)),
            };
            for threshold in &allowance.alerts {
                let limit = allowance.limit(threshold);
                let number = number(threshold.on);
                let stands = stand.iter().any(|one| one.threshold == *threshold);
                let lowest = match threshold.on {
                    On::Forecast if stands => Amount(limit.0 / 100 * FORECAST_WITHDRAWN),
                    _ => limit,
                };
                match (stands, number.is_some_and(|number| number >= lowest)) {
                    (false, true) => {
                        let (alert, as_of) = (alert(threshold, limit).into(), as_of.clone());
                        events.push(Event::Alerted { alert, as_of });
                    }
                    (true, false) => {
                        let (alert, as_of) = (alert(threshold, limit).into(), as_of.clone());
                        events.push(Event::Withdrawn { alert, as_of });
                    }
                    _ => {}
                }
            }
            let dropped = stand.iter().filter(|one| !allowance.alerts.contains(&one.threshold));
            events.extend(dropped.map(|one| Event::Withdrawn {
                alert: alert(&one.threshold, allowance.limit(&one.threshold)).into(),
                as_of: as_of.clone(),
            }));
        }
        events
    }
}

impl Decider for Budget {
    const KIND: &'static str = "budget";
    const PLURAL: &'static str = "budgets";
    const SUMMARY: &'static str = "What may be spent, and who is told when it is going to be more.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let missing = || Refusal::new(&codes::NOT_FOUND, "there is no such budget");
        Ok(match command {
            Command::Define { name, allowance } => {
                let name = name.unwrap_or_else(|| self.name.clone());
                crate::tenancy::check_name(&name)?;
                allowance.check()?;
                if name == self.name && self.allowance.as_ref() == Some(&*allowance) {
                    vec![]
                } else {
                    vec![Event::Defined { name, allowance }]
                }
            }
            Command::Disable {} if self.allowance.is_none() => return Err(missing()),
            Command::Disable {} if self.disabled => vec![],
            Command::Disable {} => vec![Event::Disabled {}],
            Command::Enable {} if self.allowance.is_none() => return Err(missing()),
            Command::Enable {} if self.disabled => vec![Event::Enabled {}],
            Command::Enable {} => vec![],
            Command::Evaluate { standings, as_of } => {
                let allowance = self.allowance.as_ref().ok_or_else(missing)?;
                self.evaluate(allowance, &standings, &as_of)
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Alerted { alert, as_of } => {
                self.alerts.entry(alert.standing.period.clone()).or_default().push(*alert);
                self.as_of = as_of;
            }
            Event::Defined { name, allowance } => {
                self.name = name;
                self.allowance = Some(*allowance);
            }
            Event::Disabled {} => self.disabled = true,
            Event::Enabled {} => self.disabled = false,
            Event::Withdrawn { alert, as_of } => {
                if let Some(stand) = self.alerts.get_mut(&alert.standing.period) {
                    stand.retain(|one| one.threshold != alert.threshold);
                    if stand.is_empty() {
                        self.alerts.remove(&alert.standing.period);
                    }
                }
                self.as_of = as_of;
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.allowance.is_some(), self.disabled) {
            (false, _) => "absent",
            (_, true) => "disabled",
            _ => "enabled",
        }
    }

    fn facets(&self) -> Facets {
        Facets { name: Some(self.name.clone()), ..Facets::default() }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    fn allowance(value: serde_json::Value) -> Allowance {
        let mut allowance = json!({"amount": "100", "currency": "EUR", "from": "2026-01"});
        allowance.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(allowance).unwrap()
    }

    fn define(value: serde_json::Value) -> Command {
        Command::Define { name: Some("shop".into()), allowance: allowance(value).into() }
    }

    fn evaluate(actual: &str, forecast: &str, position: u64) -> Command {
        Command::Evaluate {
            standings: vec![Standing {
                period: "2026-10".into(),
                actual: actual.parse().unwrap(),
                forecast: forecast.parse().ok(),
            }],
            as_of: AsOf { position, inputs: format!("{position}") },
        }
    }

    /// What each command makes, in short.
    fn check(commands: impl IntoIterator<Item = Command>, events: &[&[&str]]) -> Budget {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let (mut budget, mut made) = (Budget::default(), Vec::new());
        for command in commands {
            let decided = budget.decide(command, &stamp).unwrap();
            let short = |event: &Event| match event {
                Event::Alerted { alert, .. } => {
                    format!("alerted {} {}", alert.limit, alert.share.clone().unwrap_or_default())
                }
                Event::Withdrawn { alert, .. } => format!("withdrawn {}", alert.limit),
                _ => "other".to_owned(),
            };
            made.push(decided.iter().map(short).collect::<Vec<_>>());
            budget = decided.into_iter().fold(budget, Decider::evolve);
        }
        assert_eq!(made, events);
        budget
    }

    fn alerts() -> serde_json::Value {
        json!({"alerts": [
            {"on": "actual", "percent": 80},
            {"on": "actual", "amount": "100"},
            {"on": "forecast", "percent": 100},
        ]})
    }

    #[test]
    fn each_threshold_of_a_period_is_told_once() {
        check(
            [
                define(alerts()),
                evaluate("79.99", "90", 1),
                evaluate("80", "99", 2),
                evaluate("81", "99", 3),
                evaluate("100.5", "120", 4),
            ],
            &[&["other"], &[], &["alerted 80 80"], &[], &["alerted 100 100.5", "alerted 100 120"]],
        );
    }

    #[test]
    fn what_was_restated_below_its_threshold_is_withdrawn_and_told_again_when_it_rises() {
        let budget = check(
            [
                define(alerts()),
                evaluate("85", "90", 1),
                evaluate("60", "90", 2),
                evaluate("60", "90", 3),
                evaluate("85", "90", 4),
            ],
            &[&["other"], &["alerted 80 85"], &["withdrawn 80"], &[], &["alerted 80 85"]],
        );
        assert_eq!(budget.alerts["2026-10"].len(), 1);
    }

    #[test]
    fn a_forecast_that_moves_a_little_withdraws_nothing() {
        check(
            [
                define(alerts()),
                evaluate("50", "101", 1),
                evaluate("52", "96", 2),
                evaluate("52", "94", 3),
            ],
            &[&["other"], &["alerted 100 101"], &[], &["withdrawn 100"]],
        );
    }

    #[test]
    fn who_looked_before_changes_nothing_and_neither_does_a_budget_that_is_disabled() {
        check(
            [define(alerts()), evaluate("85", "90", 5), evaluate("60", "90", 4)],
            &[&["other"], &["alerted 80 85"], &[]],
        );
        check(
            [define(alerts()), Command::Disable {}, evaluate("85", "90", 5)],
            &[&["other"], &["other"], &[]],
        );
        let fewer = json!({"alerts": [{"on": "actual", "percent": 90}]});
        check(
            [define(alerts()), evaluate("85", "90", 5), define(fewer), evaluate("85", "90", 6)],
            &[&["other"], &["alerted 80 85"], &["other"], &["withdrawn 80"]],
        );
    }

    #[test]
    fn periods_are_those_of_the_calendar() {
        let names = |value: serde_json::Value, until: &str| {
            let periods = allowance(value).periods(until.parse().unwrap());
            periods.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let from = json!({"from": "2026-02", "period": "quarter"});
        assert_eq!(names(from, "2026-07"), ["2026-Q1", "2026-Q2", "2026-Q3"]);
        assert_eq!(
            names(json!({"from": "2025-11", "period": "year"}), "2026-01"),
            ["2025", "2026"]
        );
        let ended = json!({"from": "2026-02", "to": "2026-03"});
        assert_eq!(names(ended, "2026-07"), ["2026-02", "2026-03"]);
        assert!(names(json!({"from": "2026-08"}), "2026-07").is_empty());
    }

    #[test]
    fn what_could_never_be_reached_is_refused() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        for value in [
            json!({"amount": "0"}),
            json!({"to": "2025-12"}),
            json!({"basis": "quantity"}),
            json!({"alerts": [{"on": "actual"}]}),
            json!({"alerts": [{"on": "actual", "percent": 80, "amount": "1"}]}),
            json!({"alerts": [{"on": "actual", "percent": 8}, {"on": "actual", "percent": 8}]}),
        ] {
            let refused = Budget::default().decide(define(value.clone()), &stamp).unwrap_err();
            assert_eq!(refused.code.code, "invalid-field", "{value}");
        }
    }
}
