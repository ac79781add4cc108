//! Which costs are watched, and what they are measured against.
//!
//! ```text
//!   absent ── define ──► enabled ◄── enable ──── disable ──► disabled
//!                        ▲   │
//!                        └───┘ define
//! ```
//!
//! What a rule finds are [`super::anomaly_found::Anomaly`]s, one for each group and day or month.

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    amount::Currency,
    anomaly::{Calendar, Detector},
    cost::Basis,
    scope::{LineCondition, check_basis, check_conditions, check_groups},
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Most days of a calendar.
const DATES_MAX: usize = 400;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// Which amount. `effective` by default: a prepaid purchase is no anomaly of the day it was
    /// paid on.
    #[serde(default = "effective")]
    pub basis: String,
    /// Only this currency; each for itself when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// All must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<LineCondition>,
    /// What is watched each for itself, such as `service`, `sub_account` or `tags.team`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_by: Vec<String>,
    /// What it is measured against.
    pub detector: Detector,
    /// Days that are not told.
    #[serde(default)]
    pub calendar: Calendar,
    /// What was before is not told; it still says what is usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NaiveDate>,
    /// The rule set that says whose costs are; the only published one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_set: Option<Uuid>,
    /// The organisation that nodes and levels are of; the only active one when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<Uuid>,
}

fn effective() -> String {
    Basis::Effective.name().to_owned()
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Watch {
    fn check(&self) -> Result<(), Refusal> {
        if check_basis(&self.basis)? == Basis::Quantity {
            return Err(invalid("basis: a quantity is no money"));
        }
        check_conditions(&self.conditions)?;
        check_groups(&self.group_by, &["currency", "day", "month", "quarter", "year"])?;
        let Calendar { days_of_month, dates } = &self.calendar;
        if dates.len() + days_of_month.len() > DATES_MAX {
            return Err(invalid(format!("calendar: at most {DATES_MAX} days")));
        }
        if days_of_month.iter().any(|day| !(1..=31).contains(day)) {
            return Err(invalid("calendar: days_of_month are 1 to 31"));
        }
        let amounts = match &self.detector {
            Detector::Daily { amount } => vec![amount],
            Detector::MonthToDate { amount: None, budget: None } => {
                return Err(invalid("detector: month-to-date needs an amount or a budget"));
            }
            Detector::MonthToDate { amount, budget } => amount.iter().chain(budget).collect(),
            Detector::PreviousMonth { percent } if !(1..=100_000).contains(percent) => {
                return Err(invalid("detector: percent is 1 to 100,000"));
            }
            Detector::PreviousMonth { .. } => vec![],
            Detector::Statistical { minimum, .. } => vec![minimum],
        };
        if amounts.into_iter().any(|amount| amount.0 < 0) {
            return Err(invalid("detector: an amount is less than nothing"));
        }
        Ok(())
    }
}

/// A command of a rule.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say what is watched.
    Define {
        /// What the rule is called, 1…100 characters; as before when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// All of it.
        watch: Box<Watch>,
    },
    /// Watch no more; what was found stays.
    Disable {},
    /// Watch again.
    Enable {},
}

/// A fact about a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// This is watched.
    Defined {
        /// What the rule is called.
        name: String,
        /// All of it.
        watch: Box<Watch>,
    },
    /// Nothing is watched.
    Disabled {},
    /// It is watched again.
    Enabled {},
}

/// Which costs are watched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AnomalyRule {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// What is watched.
    pub watch: Option<Watch>,
    /// Whether it is not.
    pub disabled: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Says what is watched, and what it is measured against.").creating(),
    Verb::admin("disable", "Ends the watch; what was found stays."),
    Verb::admin("enable", "Watches again."),
];

impl Decider for AnomalyRule {
    const KIND: &'static str = "anomaly-rule";
    const PLURAL: &'static str = "anomaly-rules";
    const SUMMARY: &'static str = "Which costs are watched, and what they are measured against.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let exists = self.watch.is_some();
        Ok(match command {
            Command::Define { name, watch } => {
                let name = name.unwrap_or_else(|| self.name.clone());
                crate::tenancy::check_name(&name)?;
                watch.check()?;
                if name == self.name && self.watch.as_ref() == Some(&*watch) {
                    vec![]
                } else {
                    vec![Event::Defined { name, watch }]
                }
            }
            _ if !exists => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such rule"));
            }
            Command::Disable {} if self.disabled => vec![],
            Command::Disable {} => vec![Event::Disabled {}],
            Command::Enable {} if self.disabled => vec![Event::Enabled {}],
            Command::Enable {} => vec![],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { name, watch } => {
                self.name = name;
                self.watch = Some(*watch);
            }
            Event::Disabled {} => self.disabled = true,
            Event::Enabled {} => self.disabled = false,
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.watch.is_some(), self.disabled) {
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

    fn define(watch: serde_json::Value) -> Result<Vec<Event>, Refusal> {
        let watch = serde_json::from_value(watch).unwrap();
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let name = Some("services".into());
        AnomalyRule::default().decide(Command::Define { name, watch }, &stamp)
    }

    #[test]
    fn a_rule_watches_effective_costs_unless_it_says_otherwise() {
        let events =
            define(json!({"group_by": ["service"], "detector": {"statistical": {}}})).unwrap();
        let [Event::Defined { watch, .. }] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(watch.basis, "effective");
        let rule = events.into_iter().fold(AnomalyRule::default(), Decider::evolve);
        assert_eq!(rule.status(), "enabled");
    }

    #[test]
    fn what_could_never_be_measured_is_refused() {
        for watch in [
            json!({"detector": {"daily": {"amount": "-1"}}}),
            json!({"detector": {"month-to-date": {}}}),
            json!({"detector": {"previous-month": {"percent": 0}}}),
            json!({"detector": {"statistical": {}}, "basis": "quantity"}),
            json!({"detector": {"statistical": {}}, "group_by": ["day"]}),
            json!({"detector": {"statistical": {}}, "calendar": {"days_of_month": [32]}}),
        ] {
            let refused = define(watch.clone()).unwrap_err();
            assert_eq!(refused.code.code, "invalid-field", "{watch}");
        }
    }
}
