//! What one currency is worth in another from a day on, and who says so.
//!
//! ```text
//!   absent ── define ──► active ◄── define ──┐
//!                        │   ▲               │
//!                        │   └── define      │
//!                        └── retire ──► retired
//! ```
//!
//! There is one for each pair and day, and it says nothing of the way back: a bank's two prices are
//! two rates. A correction is a further revision. None of it is forgotten: what was known when a
//! bill was closed is what the bill is converted by for good.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{amount::Currency, factor::Factor};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    log::Position,
    observation::NoOrder,
};

/// Longest source, in characters.
const SOURCE_CHARS_MAX: usize = 200;
/// The largest rate.
const RATE_MAX: i128 = 10_i128.pow(12);

/// What one currency is worth in another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExchangeRateDefinition")]
pub struct Definition {
    /// What is converted, for instance USD.
    pub from: Currency,
    /// Into what, for instance EUR.
    pub to: Currency,
    /// From which day on; until the day of the next rate of this pair.
    pub day: NaiveDate,
    /// How many of `to` one of `from` is; above 0, at most 1,000,000,000,000.
    pub rate: Factor,
    /// Who says so, for instance `ECB reference rate`; at most 200 characters.
    #[serde(default)]
    pub source: String,
}

impl Definition {
    fn check(&self) -> Result<(), Refusal> {
        let no = |detail: String| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if self.from == self.to {
            return no(format!("to: is not {} itself", self.from));
        }
        if self.rate.is_zero() || *self.rate.ratio() > super::ratio::whole(RATE_MAX) {
            return no(format!("rate: is not above 0 and at most {RATE_MAX}"));
        }
        let long = self.source.chars().count() > SOURCE_CHARS_MAX;
        if long || self.source.chars().any(char::is_control) {
            return no(format!("source: has at most {SOURCE_CHARS_MAX} characters"));
        }
        Ok(())
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.from, &self.to, self.day) == (&other.from, &other.to, other.day)
    }
}

/// A command of an exchange rate.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say it, or correct it: the pair and the day stay.
    Define(Definition),
    /// Say it no more; the rate of the day before counts again.
    Retire {},
}

/// A fact about an exchange rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It is this.
    Defined(Definition),
    /// It counts no more.
    Retired {},
}

/// What one currency is worth in another from a day on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExchangeRate {
    /// What it says; none while it does not exist.
    pub definition: Option<Definition>,
    /// How often it was defined.
    pub revision: u64,
    /// Whether it counts no more.
    pub retired: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin(
        "define",
        "Says what one currency is worth in another from a day on, or corrects it.",
    )
    .creating(),
    Verb::admin("retire", "Says it no more; bills that are closed keep it."),
];

impl Decider for ExchangeRate {
    const KIND: &'static str = "exchange-rate";
    const PLURAL: &'static str = "exchange-rates";
    const SUMMARY: &'static str = "What one currency is worth in another from a day on.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match (command, &self.definition) {
            (Command::Define(asked), known) => {
                asked.check()?;
                if let Some(known) = known {
                    if !known.is_of(&asked) {
                        let Definition { from, to, day, .. } = known;
                        let detail = format!("day: this is the rate of {from} in {to} on {day}");
                        return Err(Refusal::new(&codes::INVALID_FIELD, detail));
                    }
                    if *known == asked && !self.retired {
                        return Ok(vec![]);
                    }
                }
                vec![Event::Defined(asked)]
            }
            (Command::Retire {}, None) => {
                return Err(Refusal::new(&codes::NOT_FOUND, "there is no such exchange rate"));
            }
            (Command::Retire {}, _) if self.retired => vec![],
            (Command::Retire {}, _) => vec![Event::Retired {}],
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined(definition) => {
                self.definition = Some(definition);
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
        match (&self.definition, self.retired) {
            (None, _) => "absent",
            (_, true) => "retired",
            _ => "active",
        }
    }

    fn facets(&self) -> Facets {
        let Some(Definition { from, to, day, .. }) = &self.definition else {
            return Facets::default();
        };
        let name = Some(format!("{from}/{to} {day}"));
        Facets { name, gone: self.retired, ..Facets::default() }
    }

    fn claims(&self, events: &[Event]) -> Vec<String> {
        let new = self.definition.is_none();
        let of = |event: &Event| match event {
            Event::Defined(Definition { from, to, day, .. }) if new => {
                Some(format!("exchange-rate/{from}/{to}/{day}"))
            }
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}

/// A rate as it was known from a position of the log on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownRate {
    /// From where in the log.
    pub position: Position,
    /// The exchange rate's id.
    pub id: Uuid,
    /// How often it had been defined then.
    pub revision: u64,
    /// From which day on it holds.
    pub day: NaiveDate,
    /// How many of the one currency one of the other is.
    pub rate: Factor,
    /// Who said so.
    pub source: String,
}

/// What was known of the rates of a pair: by day, in the order of positions; none where it was
/// retired.
type Days = BTreeMap<NaiveDate, Vec<(Position, Option<KnownRate>)>>;

/// What was known of exchange rates, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    pairs: BTreeMap<(Currency, Currency), Days>,
}

impl Rates {
    /// Takes down what an exchange rate was from a position on. Positions come in order.
    pub fn take(&mut self, position: Position, id: Uuid, rate: &ExchangeRate) {
        let Some(Definition { from, to, day, rate: number, source }) = &rate.definition else {
            return;
        };
        let known = (!rate.retired).then(|| KnownRate {
            position,
            id,
            revision: rate.revision,
            day: *day,
            rate: number.clone(),
            source: source.clone(),
        });
        let pair = self.pairs.entry((from.clone(), to.clone())).or_default();
        pair.entry(*day).or_default().push((position, known));
    }

    /// The rate of the latest day up to this one, as it was known at a position.
    pub fn find(
        &self,
        from: &Currency,
        to: &Currency,
        day: NaiveDate,
        at: Position,
    ) -> Option<&KnownRate> {
        let days = self.pairs.get(&(from.clone(), to.clone()))?;
        days.range(..=day).rev().find_map(|(_, known)| {
            let known = known.iter().rev().find(|(position, _)| *position <= at);
            known.and_then(|(_, rate)| rate.as_ref())
        })
    }

    /// All of it, for a digest.
    pub fn all(&self) -> impl Iterator<Item = (&(Currency, Currency), &KnownRate)> {
        self.pairs.iter().flat_map(|(pair, days)| {
            let known = days.values().flatten().filter_map(|(_, rate)| rate.as_ref());
            known.map(move |rate| (pair, rate))
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;

    fn define(day: &str, rate: &str) -> Command {
        let body = json!({"from": "USD", "to": "EUR", "day": day, "rate": rate, "source": "ECB"});
        serde_json::from_value(json!({"type": "define", "data": body})).unwrap()
    }

    fn decide(rate: &ExchangeRate, command: Command) -> Result<Vec<Event>, Refusal> {
        rate.decide(command, &Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() })
    }

    fn after(rate: ExchangeRate, command: Command) -> ExchangeRate {
        let events = decide(&rate, command).unwrap();
        events.into_iter().fold(rate, Decider::evolve)
    }

    #[test]
    fn one_is_declared_for_a_pair_and_a_day_and_corrected_there() {
        let first = decide(&ExchangeRate::default(), define("2026-10-31", "0.9")).unwrap();
        let claims = ExchangeRate::default().claims(&first);
        assert_eq!(claims, ["exchange-rate/USD/EUR/2026-10-31"]);
        let rate = after(ExchangeRate::default(), define("2026-10-31", "0.9"));
        assert!(decide(&rate, define("2026-10-31", "0.90")).unwrap().is_empty());
        let corrected = decide(&rate, define("2026-10-31", "0.91")).unwrap();
        assert!(rate.claims(&corrected).is_empty());
        assert_eq!(
            decide(&rate, define("2026-10-30", "0.9")).unwrap_err().code.code,
            "invalid-field"
        );
        let retired = after(after(rate, define("2026-10-31", "0.91")), Command::Retire {});
        assert_eq!((retired.status(), retired.revision), ("retired", 2));
        let again = after(retired, define("2026-10-31", "0.91"));
        assert_eq!((again.status(), again.revision), ("active", 3));
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        let wrong = |field: &str, value: Value| {
            let mut body = json!({"from": "USD", "to": "EUR", "day": "2026-10-31", "rate": 1});
            body[field] = value;
            let command = json!({"type": "define", "data": body});
            decide(&ExchangeRate::default(), serde_json::from_value(command).unwrap()).unwrap_err()
        };
        for (field, value) in [
            ("to", json!("USD")),
            ("rate", json!(0)),
            ("rate", json!("1e13")),
            ("source", json!("x".repeat(201))),
        ] {
            assert!(wrong(field, value.clone()).detail.starts_with(field), "{field}: {value}");
        }
    }

    #[test]
    fn the_latest_day_counts_as_it_was_known_then() {
        let mut rates = Rates::default();
        let id = |n| Uuid::from_u128(n);
        let september = after(ExchangeRate::default(), define("2026-09-30", "0.8"));
        let october = after(ExchangeRate::default(), define("2026-10-31", "0.9"));
        rates.take(10, id(1), &september);
        rates.take(20, id(2), &october);
        rates.take(30, id(2), &after(october.clone(), define("2026-10-31", "0.95")));
        rates.take(40, id(2), &after(october, Command::Retire {}));
        let code = |code: &str| Currency::try_from(code.to_owned()).unwrap();
        let find = |day: &str, at| {
            let found = rates.find(&code("USD"), &code("EUR"), day.parse().unwrap(), at);
            found.map(|one| one.rate.to_string())
        };
        let all = [9, 10, 20, 29, 30, 40].map(|at| find("2026-10-31", at).unwrap_or_default());
        assert_eq!(all, ["", "0.8", "0.9", "0.9", "0.95", "0.8"]);
        assert_eq!(find("2026-10-30", 30).unwrap(), "0.8");
        assert_eq!(find("2026-09-29", 30), None);
        assert!(
            rates.find(&code("EUR"), &code("USD"), "2026-11-30".parse().unwrap(), 30).is_none()
        );
    }
}
