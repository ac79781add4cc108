//! What costs depend on, as people know or plan it: counts, prices, one-offs.
//!
//! ```text
//!   absent ── define ──► active ◄── define ──┐
//!                        │   ▲               │
//!                        │   └── define      │
//!                        └── retire ──► retired
//! ```
//!
//! A driver has a value for months or days, past and future. How much a cost goes up with one of it
//! is estimated from the past, or given: then it is a price. A one-off is an amount in one month at
//! a price of 1. Each definition is a revision, and a forecast names those it used.

use std::{collections::BTreeMap, fmt};

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    amount::{Amount, BillingMonth, Currency, Money, SCALE},
    attribution::Axis,
    forecast::{Calendar, Step},
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Longest unit, in characters.
const UNIT_CHARS_MAX: usize = 50;
/// Most values: ten years of days.
const VALUES_MAX: usize = 3_660;
/// Most dimensions of a scope.
const SCOPE_MAX: usize = 8;
/// Most values of a dimension.
const SCOPE_VALUES_MAX: usize = 500;
/// Dimensions that a forecast runs along, or that say which money it is.
pub const NO_SCOPE: [&str; 5] = ["currency", "day", "month", "quarter", "year"];

/// A decimal of at most twelve places: in JSON a number, or text that keeps every digit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub Amount);

impl Quantity {
    /// As an estimate counts with it.
    #[expect(
        clippy::float_arithmetic,
        clippy::cast_precision_loss,
        reason = "a forecast estimates, and never books"
    )]
    pub fn to_f64(self) -> f64 {
        self.0.0 as f64 / 10_f64.powi(SCALE as i32)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = Quantity;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a decimal number, or one as text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map(Quantity).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Quantity, E> {
                // The shortest decimal that reads as this number: what was written.
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A decimal of at most twelve places; as text it keeps every digit.",
            "type": ["string", "number"],
        })
    }
}

/// What a period without a value has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "DriverGaps")]
pub enum Gaps {
    /// Nobody knows: a forecast that needs it does without the driver.
    #[default]
    Unknown,
    /// What the period before it has.
    Last,
    /// Nothing.
    Zero,
}

/// A price of one unit for one period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DriverPrice")]
pub struct Price {
    /// How much.
    #[schemars(with = "Quantity")]
    pub amount: Quantity,
    /// Of what: costs in other currencies do not depend on the driver.
    pub currency: Currency,
}

impl From<Price> for Money {
    fn from(price: Price) -> Self {
        Self { amount: price.amount.0, currency: price.currency }
    }
}

/// What a driver is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DriverDefinition")]
pub struct Definition {
    /// What it is called, 1…100 characters.
    pub name: String,
    /// What it counts, such as servers; 1…50 characters.
    pub unit: String,
    /// By month, such as 2026-10, or by day, such as 2026-10-31: past and future.
    pub values: BTreeMap<String, Quantity>,
    /// What a period has that is not among the values.
    #[serde(default)]
    pub gaps: Gaps,
    /// What one of it costs in a period, when that is known; else it is estimated.
    #[serde(default)]
    pub price: Option<Price>,
    /// Which costs depend on it: dimensions, such as service, and the values of each; all of them
    /// when it is left out.
    #[serde(default)]
    pub scope: BTreeMap<String, Vec<String>>,
}

/// A period that a driver does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has no value for {0}")]
pub struct Unknown(pub String);

fn no(what: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, what)
}

fn step_of(period: &str) -> Option<Step> {
    let (day, step) = match period.len() {
        7 => (format!("{period}-01"), Step::Month),
        10 => (period.to_owned(), Step::Day),
        _ => return None,
    };
    let read: NaiveDate = day.parse().ok()?;
    (read.to_string() == day).then_some(step)
}

impl Definition {
    fn check(&self) -> Result<(), Refusal> {
        crate::tenancy::check_name(&self.name)?;
        let length = self.unit.chars().count();
        if !(1..=UNIT_CHARS_MAX).contains(&length) || self.unit.chars().any(char::is_control) {
            return Err(no(format!("unit: needs 1 to {UNIT_CHARS_MAX} characters")));
        }
        if !(1..=VALUES_MAX).contains(&self.values.len()) {
            return Err(no(format!("values: needs 1 to {VALUES_MAX}")));
        }
        let mut steps = self.values.keys().map(|period| (period, step_of(period)));
        let first = self.step();
        if let Some((period, _)) = steps.find(|(_, step)| step.is_none_or(|step| step != first)) {
            let what = "is no month such as 2026-10, or day such as 2026-10-31, like the others";
            return Err(no(format!("values: {period:?} {what}")));
        }
        if self.scope.len() > SCOPE_MAX {
            return Err(no(format!("scope: has at most {SCOPE_MAX} dimensions")));
        }
        for (name, values) in &self.scope {
            name.parse::<Axis>().map_err(|what| no(format!("scope: {what}")))?;
            if NO_SCOPE.contains(&name.as_str()) {
                return Err(no(format!("scope: {name} is no part of costs that a driver has")));
            }
            if !(1..=SCOPE_VALUES_MAX).contains(&values.len()) {
                return Err(no(format!("scope: {name} needs 1 to {SCOPE_VALUES_MAX} values")));
            }
        }
        Ok(())
    }

    /// Whether its values are of months or days.
    pub fn step(&self) -> Step {
        self.values.keys().next().and_then(|period| step_of(period)).unwrap_or_default()
    }

    /// Its values over the steps of a calendar. A month has the sum of its days, a day its part of
    /// the month.
    #[expect(clippy::float_arithmetic, reason = "a forecast estimates, and never books")]
    pub fn over(&self, calendar: Calendar, steps: usize) -> Result<Vec<f64>, Unknown> {
        let mut out = Vec::with_capacity(steps);
        let own = self.step();
        for at in 0..steps {
            let (from, to) = (calendar.day(at), calendar.day(at + 1));
            let value = match (calendar.step, own) {
                (Step::Month, Step::Month) => self.of(&calendar.name(at))?,
                (Step::Day, Step::Day) => self.of(&calendar.name(at))?,
                (Step::Month, Step::Day) => {
                    let days = from.iter_days().take_while(|day| *day < to);
                    let mut sum = 0.0;
                    for day in days {
                        sum += self.of(&day.to_string())?;
                    }
                    sum
                }
                (Step::Day, Step::Month) => {
                    let month = BillingMonth::of(from);
                    self.of(&month.to_string())? / f64::from(month.days() as u32)
                }
            };
            out.push(value);
        }
        Ok(out)
    }

    /// How many there are over months, both included, to the last digit.
    pub fn count(&self, first: BillingMonth, last: BillingMonth) -> Result<Amount, Unknown> {
        let months = std::iter::successors(Some(first), |month| Some(month.next()));
        let periods: Vec<String> = match self.step() {
            Step::Month => {
                months.take_while(|month| *month <= last).map(|month| month.to_string()).collect()
            }
            Step::Day => {
                let days = first.first().iter_days().take_while(|day| *day < last.end());
                days.map(|day| day.to_string()).collect()
            }
        };
        periods.iter().try_fold(Amount::ZERO, |sum, period| {
            let own = self.quantity(period)?.0;
            sum.checked_add(own).ok_or_else(|| Unknown(period.clone()))
        })
    }

    fn quantity(&self, period: &str) -> Result<Quantity, Unknown> {
        let found = match (self.values.get(period), self.gaps) {
            (Some(value), _) => Some(*value),
            (None, Gaps::Unknown) => None,
            (None, Gaps::Zero) => Some(Quantity::default()),
            (None, Gaps::Last) => {
                self.values.range(..period.to_owned()).next_back().map(|(_, value)| *value)
            }
        };
        found.ok_or_else(|| Unknown(period.to_owned()))
    }

    fn of(&self, period: &str) -> Result<f64, Unknown> {
        self.quantity(period).map(Quantity::to_f64)
    }
}

/// A command of a driver.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say what it is; all of it, also when it was defined before.
    Define {
        /// What it is called, 1…100 characters.
        name: String,
        /// What it counts, such as servers; 1…50 characters.
        unit: String,
        /// By month, such as 2026-10, or by day, such as 2026-10-31: past and future.
        values: BTreeMap<String, Quantity>,
        /// What a period has that is not among the values.
        #[serde(default)]
        gaps: Gaps,
        /// What one of it costs in a period, when that is known; else it is estimated.
        #[serde(default)]
        price: Option<Price>,
        /// Which costs depend on it: dimensions, such as service, and the values of each; all of them
        /// when it is left out.
        #[serde(default)]
        scope: BTreeMap<String, Vec<String>>,
    },
    /// Let no forecast use it any more, unless it is defined again.
    Retire {},
}

/// A fact about a driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It is this.
    Defined {
        /// All of it.
        definition: Definition,
    },
    /// No forecast uses it any more.
    Retired {},
}

/// What costs depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Driver {
    /// What it is; of no name while it does not exist.
    pub definition: Definition,
    /// How often it was defined.
    pub revision: u64,
    /// Whether no forecast uses it any more.
    pub retired: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Says what the driver is, past and future, as its next revision.")
        .creating(),
    Verb::admin("retire", "Lets no forecast use the driver any more."),
];

impl Decider for Driver {
    const KIND: &'static str = "driver";
    const PLURAL: &'static str = "drivers";
    const SUMMARY: &'static str = "What costs depend on, as people know or plan it.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let exists = self.revision > 0;
        Ok(match command {
            Command::Define { name, unit, values, gaps, price, scope } => {
                let definition = Definition { name, unit, values, gaps, price, scope };
                definition.check()?;
                if exists && !self.retired && definition == self.definition {
                    vec![]
                } else {
                    vec![Event::Defined { definition }]
                }
            }
            Command::Retire {} if !exists => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such driver"));
            }
            Command::Retire {} if self.retired => vec![],
            Command::Retire {} => vec![Event::Retired {}],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { definition } => {
                self.definition = definition;
                self.revision += 1;
                self.retired = false;
            }
            Event::Retired {} => self.retired = true,
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (self.revision, self.retired) {
            (0, _) => "absent",
            (_, true) => "retired",
            _ => "active",
        }
    }

    fn facets(&self) -> Facets {
        let name = Some(self.definition.name.clone());
        Facets { name, gone: self.retired, ..Facets::default() }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;

    fn definition(body: Value) -> Definition {
        serde_json::from_value(whole(body)).unwrap()
    }

    fn whole(body: Value) -> Value {
        let mut all = json!({"name": "servers", "unit": "servers", "values": {"2026-01": 2}});
        for (name, value) in body.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    }

    fn defining(body: Value) -> Command {
        serde_json::from_value(json!({"type": "define", "data": whole(body)})).unwrap()
    }

    fn define(driver: &Driver, body: Value) -> Result<Vec<Event>, Refusal> {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        driver.decide(defining(body), &stamp)
    }

    fn months(first: &str) -> Calendar {
        Calendar { first: first.parse().unwrap(), step: Step::Month }
    }

    #[test]
    fn every_definition_is_a_revision_and_the_same_again_is_none() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let step = |driver: Driver, command: Command| {
            let events = driver.decide(command, &stamp).unwrap();
            let count = events.len();
            (events.into_iter().fold(driver, Decider::evolve), count)
        };
        let one = || defining(json!({}));
        let other = defining(json!({"gaps": "last"}));
        let (driver, _) = step(Driver::default(), one());
        assert_eq!((driver.status(), driver.revision), ("active", 1));
        let (driver, count) = step(driver, one());
        assert_eq!((driver.revision, count), (1, 0));
        let (driver, _) = step(driver, other);
        let (driver, _) = step(driver, Command::Retire {});
        assert_eq!((driver.status(), driver.revision, driver.facets().gone), ("retired", 2, true));
        let (driver, _) = step(driver, one());
        assert_eq!((driver.status(), driver.revision), ("active", 3));
        let refused = Driver::default().decide(Command::Retire {}, &stamp).unwrap_err();
        assert_eq!(refused.code.code, "not-found");
    }

    #[test]
    fn what_a_driver_cannot_be_is_refused_by_its_field() {
        for (body, field) in [
            (json!({"name": ""}), "name"),
            (json!({"unit": ""}), "unit"),
            (json!({"values": {}}), "values"),
            (json!({"values": {"2026-13": 1}}), "values"),
            (json!({"values": {"2026-01": 1, "2026-02-01": 1}}), "values"),
            (json!({"values": {"2026-1": 1}}), "values"),
            (json!({"scope": {"servce": ["a"]}}), "scope"),
            (json!({"scope": {"month": ["2026-01"]}}), "scope"),
            (json!({"scope": {"service": []}}), "scope"),
        ] {
            let refused = define(&Driver::default(), body.clone()).unwrap_err();
            assert!(refused.detail.starts_with(field), "{body}: {refused}");
        }
        let read = |value: Value| serde_json::from_value::<Quantity>(value).map(|one| one.0);
        assert_eq!(read(json!(0.1)).unwrap(), "0.1".parse().unwrap());
        assert_eq!(read(json!("-12.000000000001")).unwrap(), "-12.000000000001".parse().unwrap());
        assert!(read(json!("1e-13")).is_err() && read(json!(true)).is_err());
    }

    #[test]
    fn a_gap_is_unknown_unless_it_is_said_what_it_is() {
        let values = json!({"2026-01": 2, "2026-04": 5});
        let over = |gaps: &str| {
            let one = definition(json!({"values": values, "gaps": gaps}));
            one.over(months("2026-01-01"), 5).map_err(|no| no.to_string())
        };
        assert_eq!(over("zero").unwrap(), [2.0, 0.0, 0.0, 5.0, 0.0]);
        assert_eq!(over("last").unwrap(), [2.0, 2.0, 2.0, 5.0, 5.0]);
        assert_eq!(over("unknown").unwrap_err(), "it has no value for 2026-02");
        let month = |text: &str| text.parse::<BillingMonth>().unwrap();
        let count = |gaps: &str| {
            let one = definition(json!({"values": values, "gaps": gaps}));
            one.count(month("2026-01"), month("2026-05")).map(|count| count.to_string())
        };
        assert_eq!([count("zero").unwrap(), count("last").unwrap()], ["7", "16"]);
        assert!(count("unknown").is_err());
        let daily = definition(json!({"values": {"2026-02-01": "0.1"}, "gaps": "last"}));
        let february = daily.count(month("2026-02"), month("2026-02")).unwrap();
        assert_eq!(february.to_string(), "2.8");
        let late = definition(json!({"values": values, "gaps": "last"}));
        assert!(late.over(months("2025-12-01"), 2).is_err(), "nothing is before the first");
    }

    #[test]
    fn months_are_the_sum_of_their_days_and_days_their_part() {
        let daily = definition(json!({"values": {"2026-02-01": 1}, "gaps": "last"}));
        assert_eq!(daily.over(months("2026-02-01"), 2).unwrap(), [28.0, 31.0]);
        let monthly = definition(json!({"values": {"2026-02": 56}}));
        let days = Calendar { first: "2026-02-27".parse().unwrap(), step: Step::Day };
        assert_eq!(monthly.over(days, 2).unwrap(), [2.0, 2.0]);
        assert!(monthly.over(days, 3).is_err());
    }
}
