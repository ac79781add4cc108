//! A factor on costs: a mark-up or a discount, for a project, a domain or everybody, from a day on.
//!
//! ```text
//!            define             define, until it has begun
//!   absent ─────────► defined ◄──┐
//!                       │   └────┘
//!                       │ end
//!                       ▼
//!                     ended
//! ```
//!
//! One that has begun never changes: it can be ended, from today on, and another one begins. So no
//! number changes that somebody has been shown. Of those that fit a cost one counts, the most
//! specific: for its project, then for its domain, then for everybody; of several with the more
//! conditions, of these with the later first day, of these with the greatest id.

use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    attribution::Looked,
    cost::Dimension,
    factor::Factor,
    ratio::{Ratio, whole},
    rules::Condition,
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    log::Position,
    observation::NoOrder,
};

/// Most conditions.
const CONDITIONS_MAX: usize = 20;
/// Most values of a condition.
const VALUES_MAX: usize = 200;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 1_000;
/// The largest factor.
const FACTOR_MAX: i128 = 1_000;

/// Whose costs have another price.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "RepricingScope")]
pub enum Scope {
    /// Everybody's, and what belongs to nobody.
    #[default]
    All,
    /// Those of a domain's projects.
    Domain(
        /// Its id.
        Uuid,
    ),
    /// Those of one project.
    Project(
        /// Its id.
        Uuid,
    ),
}

/// How the price changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "RepricingPrice")]
pub enum Price {
    /// So many percent less, at most 100.
    DiscountPercent(Factor),
    /// So many times as much, at most 1,000: 1.15 is a mark-up of 15 percent.
    Factor(Factor),
}

impl Price {
    /// How many times as much it is.
    pub fn ratio(&self) -> Ratio {
        match self {
            Self::DiscountPercent(percent) => (whole(100) - percent.ratio().clone()) / whole(100),
            Self::Factor(factor) => factor.ratio().clone(),
        }
    }
}

/// What costs more or less, from when to when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RepricingDefinition")]
pub struct Definition {
    /// What people call it, 1…100 characters.
    pub name: String,
    /// Whose costs.
    pub scope: Scope,
    /// How the price changes.
    pub price: Price,
    /// Only of lines that meet all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The first day (UTC) it holds.
    pub from: NaiveDate,
    /// The first day it holds no more; none is without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NaiveDate>,
}

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Definition {
    fn check(&self) -> Result<(), Refusal> {
        crate::tenancy::check_name(&self.name)?;
        match &self.price {
            Price::DiscountPercent(percent) if *percent.ratio() > whole(100) => {
                return Err(no("price: a discount is at most 100 percent"));
            }
            Price::Factor(factor) if *factor.ratio() > whole(FACTOR_MAX) => {
                return Err(no(format!("price: a factor is at most {FACTOR_MAX}")));
            }
            _ => {}
        }
        if self.conditions.len() > CONDITIONS_MAX {
            return Err(no(format!("conditions: at most {CONDITIONS_MAX}")));
        }
        for Condition { dimension, values, .. } in &self.conditions {
            dimension.parse::<Dimension>().map_err(|what| no(format!("conditions: {what}")))?;
            let long = values.iter().any(|value| value.len() > VALUE_BYTES_MAX);
            if !(1..=VALUES_MAX).contains(&values.len()) || long {
                let detail = format!("conditions: {dimension} has 1 to {VALUES_MAX} short values");
                return Err(no(detail));
            }
        }
        if self.to.is_some_and(|to| to <= self.from) {
            return Err(no("to: is not after from"));
        }
        Ok(())
    }

    /// Whether it holds on a day.
    pub fn holds(&self, day: NaiveDate) -> bool {
        self.from <= day && self.to.is_none_or(|to| day < to)
    }
}

/// A command of a re-pricing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Say it, or say it anew before it has begun.
    Define {
        /// What people call it, 1…100 characters.
        name: String,
        /// Whose costs; everybody's when it is left out.
        #[serde(default)]
        scope: Scope,
        /// How the price changes.
        price: Price,
        /// Only of lines that meet all of these.
        #[serde(default)]
        conditions: Vec<Condition>,
        /// The first day (UTC) it holds; today when it is left out, and never before.
        #[serde(default)]
        from: Option<NaiveDate>,
        /// The first day it holds no more; none is without end.
        #[serde(default)]
        to: Option<NaiveDate>,
    },
    /// End it; one that has not begun then never holds.
    End {
        /// The first day it holds no more; today when it is left out, and never before.
        #[serde(default)]
        day: Option<NaiveDate>,
    },
}

/// A fact about a re-pricing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It is this.
    Defined(Definition),
    /// It has an end.
    Ended {
        /// The first day it holds no more.
        day: NaiveDate,
    },
}

/// A factor on costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Repricing {
    /// What it says; none while it does not exist.
    pub definition: Option<Definition>,
    /// How often it was defined or ended.
    pub revision: u64,
    /// Whether it was ended.
    pub ended: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin("define", "Puts a factor on costs, or a discount, from a day on.").creating(),
    Verb::admin("end", "Ends it, today or later; what it has priced stays."),
];

impl Repricing {
    fn define(&self, asked: Definition, today: NaiveDate) -> Result<Vec<Event>, Refusal> {
        asked.check()?;
        if self.ended {
            return Err(Refusal::wrong_state("define", self.status()));
        }
        if self.definition.as_ref() == Some(&asked) {
            return Ok(vec![]);
        }
        if let Some(known) = self.definition.as_ref().filter(|known| known.from <= today) {
            let renamed = Definition { name: asked.name.clone(), ..known.clone() };
            if renamed != asked {
                let detail = format!("the re-pricing {:?} has begun on {}", known.name, known.from);
                return Err(Refusal::new(&codes::REPRICING_IN_EFFECT, detail));
            }
        } else if asked.from < today {
            return Err(no("from: lies in the past; what was shown once stays"));
        }
        Ok(vec![Event::Defined(asked)])
    }

    fn end(&self, day: Option<NaiveDate>, today: NaiveDate) -> Result<Vec<Event>, Refusal> {
        let Some(known) = &self.definition else {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such re-pricing"));
        };
        if self.ended && (day.is_none() || day == known.to) {
            return Ok(vec![]);
        }
        let asked = day.unwrap_or(today);
        if asked < today || known.to.is_some_and(|to| to <= today) {
            return Err(no("day: lies in the past; what was shown once stays"));
        }
        Ok(vec![Event::Ended { day: asked.max(known.from) }])
    }
}

impl Decider for Repricing {
    const KIND: &'static str = "repricing";
    const PLURAL: &'static str = "repricings";
    const SUMMARY: &'static str = "A factor on costs: a mark-up or a discount, from a day on.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let today = stamp.now.date_naive();
        match command {
            Command::Define { name, scope, price, conditions, from, to } => {
                let known = self.definition.as_ref().map(|known| known.from);
                let from = from.or(known).unwrap_or(today);
                self.define(Definition { name, scope, price, conditions, from, to }, today)
            }
            Command::End { day } => self.end(day, today),
        }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined(definition) => self.definition = Some(definition),
            Event::Ended { day } => {
                if let Some(definition) = &mut self.definition {
                    definition.to = Some(day);
                }
                self.ended = true;
            }
        }
        self.revision += 1;
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.definition, self.ended) {
            (None, _) => "absent",
            (_, true) => "ended",
            _ => "defined",
        }
    }

    fn facets(&self) -> Facets {
        let Some(definition) = &self.definition else { return Facets::default() };
        let never = definition.to.is_some_and(|to| to <= definition.from);
        Facets { name: Some(definition.name.clone()), gone: never, ..Facets::default() }
    }
}

/// A re-pricing as it was known from a position of the log on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KnownRepricing {
    /// From where in the log.
    pub position: Position,
    /// The re-pricing's id.
    pub id: Uuid,
    /// How often it had been defined or ended then.
    pub revision: u64,
    /// What it said.
    pub definition: Definition,
    #[serde(skip)]
    dimensions: Vec<Dimension>,
}

/// What a cost is priced for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Payer {
    /// The project, when it is one that pays.
    pub project: Option<Uuid>,
    /// The project's domain.
    pub domain: Option<Uuid>,
}

impl KnownRepricing {
    /// How specific it is for these costs; none when it is not for them.
    fn fits(&self, payer: Payer, day: NaiveDate, look: &impl Looked) -> Option<(u8, usize)> {
        let specific = match self.definition.scope {
            Scope::All => 0,
            Scope::Domain(domain) if payer.domain == Some(domain) => 1,
            Scope::Project(project) if payer.project == Some(project) => 2,
            _ => return None,
        };
        let mut conditions = self.definition.conditions.iter().zip(&self.dimensions);
        let fits = self.definition.holds(day)
            && conditions.all(|(condition, dimension)| condition.holds(look.value(dimension)));
        fits.then_some((specific, self.dimensions.len()))
    }
}

/// What was known of re-pricings, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repricings {
    /// By id, in the order of positions.
    known: BTreeMap<Uuid, Vec<KnownRepricing>>,
}

impl Repricings {
    /// Takes down what a re-pricing was from a position on. Positions come in order.
    pub fn take(&mut self, position: Position, id: Uuid, repricing: &Repricing) {
        let Some(definition) = repricing.definition.clone() else { return };
        let parsed = definition.conditions.iter().map(|one| one.dimension.parse());
        // Conditions were checked when they were defined.
        let dimensions = parsed.collect::<Result<Vec<_>, _>>().unwrap_or_default();
        let revision = repricing.revision;
        let known = KnownRepricing { position, id, revision, definition, dimensions };
        self.known.entry(id).or_default().push(known);
    }

    /// The one that counts for these costs on a day, as it was known at a position.
    pub fn find(
        &self,
        payer: Payer,
        day: NaiveDate,
        look: &impl Looked,
        at: Position,
    ) -> Option<&KnownRepricing> {
        let then =
            |known: &'_ Vec<KnownRepricing>| known.iter().rposition(|one| one.position <= at);
        self.known
            .values()
            .filter_map(|known| known.get(then(known)?))
            .filter_map(|one| Some((one.fits(payer, day, look)?, one)))
            .max_by_key(|(specific, one)| (*specific, one.definition.from, one.id))
            .map(|(_, one)| one)
    }

    /// The dimensions of lines that decide which one counts. The day is among them only when one
    /// begins or ends within a month.
    pub fn needs(&self) -> Vec<Dimension> {
        let all = || self.known.values().flatten();
        let mut needs: Vec<Dimension> = all().flat_map(|one| one.dimensions.clone()).collect();
        let within = |day: &NaiveDate| day.day() != 1;
        let mut days = all().flat_map(|one| [Some(one.definition.from), one.definition.to]);
        if days.any(|day| day.is_some_and(|day| within(&day))) {
            needs.push(Dimension::Plain("day"));
        }
        needs
    }

    /// All of it, for a digest.
    pub fn all(&self) -> impl Iterator<Item = &KnownRepricing> {
        self.known.values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn decide(one: &Repricing, now: &str, verb: &str, body: Value) -> Result<Vec<Event>, Refusal> {
        let now = format!("{now}T12:00:00Z").parse::<DateTime<chrono::Utc>>().unwrap();
        let command = serde_json::from_value(json!({"type": verb, "data": body})).unwrap();
        one.decide(command, &Stamp { now, actor: "test".into() })
    }

    fn after(one: Repricing, now: &str, verb: &str, body: Value) -> Repricing {
        let events = decide(&one, now, verb, body).unwrap();
        events.into_iter().fold(one, Decider::evolve)
    }

    fn defining(more: Value) -> Value {
        let mut body = json!({"name": "shop", "price": {"factor": "1.15"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn refused(one: &Repricing, now: &str, verb: &str, body: Value) -> &'static str {
        decide(one, now, verb, body).unwrap_err().code.code
    }

    #[test]
    fn what_has_begun_can_only_be_ended() {
        let today = "2026-11-10";
        let new = Repricing::default();
        let past = defining(json!({"from": "2026-11-09"}));
        assert_eq!(refused(&new, today, "define", past), "invalid-field");
        let later = after(new, today, "define", defining(json!({"from": "2026-12-01"})));
        let body = json!({"from": "2026-12-01", "price": {"discount-percent": 10}});
        let later = after(later, today, "define", defining(body.clone()));
        assert!(decide(&later, today, "define", defining(body.clone())).unwrap().is_empty());
        assert_eq!(later.revision, 2);
        let mut other = body.clone();
        other["price"] = json!({"factor": 2});
        let begun = "2026-12-01";
        assert_eq!(refused(&later, begun, "define", defining(other)), "repricing-in-effect");
        let mut renamed = body;
        renamed["name"] = json!("store");
        let renamed = after(later, begun, "define", defining(renamed));
        assert_eq!(refused(&renamed, begun, "end", json!({"day": "2026-11-30"})), "invalid-field");
        let ended = after(renamed, begun, "end", json!({"day": "2026-12-10"}));
        assert_eq!(ended.definition.as_ref().unwrap().to, Some(day("2026-12-10")));
        let sooner = after(ended, "2026-12-02", "end", json!({"day": "2026-12-05"}));
        assert!(decide(&sooner, "2026-12-06", "end", json!({})).unwrap().is_empty());
        assert_eq!(
            refused(&sooner, "2026-12-06", "end", json!({"day": "2026-12-20"})),
            "invalid-field"
        );
        assert_eq!(refused(&sooner, begun, "define", defining(json!({}))), "wrong-state");
    }

    #[test]
    fn what_has_not_begun_and_is_ended_never_holds() {
        let later = after(
            Repricing::default(),
            "2026-11-10",
            "define",
            defining(json!({"from": "2026-12-01"})),
        );
        let ended = after(later, "2026-11-11", "end", json!({}));
        let definition = ended.definition.as_ref().unwrap();
        assert_eq!(definition.to, Some(day("2026-12-01")));
        assert!(!definition.holds(day("2026-12-01")) && ended.facets().gone);
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for more in [
            json!({"name": ""}),
            json!({"price": {"factor": 1001}}),
            json!({"price": {"discount-percent": "100.1"}}),
            json!({"conditions": [{"dimension": "project", "values": ["a"]}]}),
            json!({"conditions": [{"dimension": "service", "values": []}]}),
            json!({"from": "2026-12-01", "to": "2026-12-01"}),
        ] {
            let refused =
                refused(&Repricing::default(), "2026-11-10", "define", defining(more.clone()));
            assert_eq!(refused, "invalid-field", "{more}");
        }
    }

    struct Service(&'static str);

    impl Looked for Service {
        fn value(&self, dimension: &Dimension) -> &str {
            if *dimension == Dimension::Plain("service") { self.0 } else { "" }
        }
    }

    #[test]
    fn the_most_specific_counts_as_it_was_known_then() {
        let id = Uuid::from_u128;
        let mut all = Repricings::default();
        let today = "2026-11-01";
        let mut take = |position, n, more: Value| {
            let one = after(Repricing::default(), today, "define", defining(more));
            all.take(position, id(n), &one);
            one
        };
        take(1, 1, json!({"scope": "all", "price": {"factor": 1}}));
        take(2, 2, json!({"scope": {"domain": id(20)}, "price": {"factor": 2}}));
        let project = take(3, 3, json!({"scope": {"project": id(30)}, "price": {"factor": 3}}));
        let on_s3 = json!([{"dimension": "service", "values": ["S3"]}]);
        take(4, 4, json!({"scope": "all", "conditions": on_s3, "price": {"factor": 4}}));
        take(5, 5, json!({"scope": "all", "from": "2026-11-15", "price": {"factor": 5}}));
        let ended = after(project, today, "end", json!({"day": "2026-11-20"}));
        all.take(6, id(3), &ended);
        let find = |project, domain, on: &str, service, at| {
            let payer = Payer { project: Some(id(project)), domain: Some(id(domain)) };
            let found = all.find(payer, day(on), &Service(service), at);
            found.map_or_else(String::new, |one| one.definition.price.ratio().to_string())
        };
        assert_eq!(find(30, 20, "2026-11-05", "S3", 6), "3", "the project's");
        assert_eq!(find(30, 20, "2026-11-20", "S3", 6), "2", "which has ended: the domain's");
        assert_eq!(find(30, 20, "2026-11-20", "S3", 5), "3", "which was not known yet");
        assert_eq!(find(31, 21, "2026-11-20", "S3", 6), "4", "with more conditions");
        assert_eq!(find(31, 21, "2026-11-20", "EC2", 6), "5", "the later one");
        assert_eq!(find(31, 21, "2026-11-05", "EC2", 6), "1");
        assert_eq!(find(31, 21, "2026-10-31", "EC2", 6), "", "before the first");
        assert_eq!(find(31, 21, "2026-11-05", "EC2", 0), "", "nothing was known");
        let needs: Vec<_> = all.needs().iter().map(ToString::to_string).collect();
        assert_eq!(needs, ["service", "day"]);
    }

    #[test]
    fn a_discount_is_a_factor() {
        let price = |value| serde_json::from_value::<Price>(value).unwrap().ratio();
        assert_eq!(price(json!({"discount-percent": "12.5"})), Ratio::new(7.into(), 8.into()));
        assert_eq!(price(json!({"discount-percent": 100})), whole(0));
        assert_eq!(price(json!({"factor": "1/3"})), Ratio::new(1.into(), 3.into()));
    }
}
