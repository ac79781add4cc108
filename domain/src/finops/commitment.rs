//! What was paid in advance for a term: a reservation, a savings plan, a commitment plan, a prepaid
//! instance.
//!
//! ```text
//!            define                    cancel
//!   absent ─────────► active ─────────────────► cancelled
//!                      │  ▲                         │
//!                      └──┘ define, upgrade         │ retire
//!                      │          retire            ▼
//!                      └──────────────────────► retired
//! ```
//!
//! It says how the money is recognised: day by day over the term, by the days of the bill's time
//! zone. A run makes bill lines of that; what was recognised before a change stays as it was.

use std::{collections::BTreeMap, fmt::Write as _};

use chrono::{Days, NaiveDate};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    amortise::{Method, Schedule},
    amount::{Amount, BillingMonth, Currency},
    line::{ChargeCategory, Line},
    rate::midnight,
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Longest term in days: some thirty years.
const TERM_DAYS_MAX: i64 = 11_000;
/// Most changes of one commitment.
const CHANGES_MAX: usize = 100;
/// Longest text, in characters.
const TEXT_CHARS_MAX: usize = 500;
/// Most tags of its lines.
const TAGS_MAX: usize = 50;
/// The largest amount of one payment, in a currency's units. Sums of all of them stay in range.
const AMOUNT_MAX: i128 = 10_i128.pow(15 + super::amount::SCALE);

/// What sort of commitment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A commitment plan: spend or use that was promised (CPP).
    CommitmentPlan,
    /// One resource, paid for its whole term.
    PrepaidInstance,
    /// A reservation of capacity.
    Reservation,
    /// A savings plan.
    SavingsPlan,
}

/// What its lines say beside the amount: the columns of a bill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Carried {
    /// `RegionId`.
    pub region: String,
    /// `ResourceName`.
    pub resource_name: String,
    /// `ResourceType`.
    pub resource_type: String,
    /// `ServiceName`.
    pub service: String,
    /// `ServiceCategory`.
    pub service_category: String,
    /// `SubAccountId`.
    pub sub_account: String,
    /// `Tags`, at most 50.
    pub tags: BTreeMap<String, String>,
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// What people call it, 1…100 characters.
    pub name: String,
    /// What sort it is.
    pub form: Form,
    /// `BillingAccountId` of the bills that have its purchase, and get its lines.
    pub billing_account: String,
    /// `CommitmentDiscountId` of its purchase; may be left out when `resource` is given.
    #[serde(default)]
    pub commitment: String,
    /// `ResourceId` of its lines; and of its purchase, when it has no `commitment`.
    #[serde(default)]
    pub resource: String,
    /// What its lines say besides.
    #[serde(default)]
    pub carries: Carried,
    /// What it was paid in.
    pub currency: Currency,
    /// What was paid for the term.
    #[schemars(with = "String")]
    pub amount: Amount,
    /// The first day.
    pub start: NaiveDate,
    /// The first day that is not in the term any more.
    pub end: NaiveDate,
    /// Where days begin, by its IANA name.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// How days weigh.
    #[serde(default = "daily")]
    pub method: Method,
}

fn utc() -> String {
    "UTC".to_owned()
}

const fn daily() -> Method {
    Method::Daily
}

/// What became of it later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Change {
    /// It ended early.
    Cancelled {
        /// The first day that is not in it any more.
        day: NaiveDate,
        /// What came back.
        refund: Amount,
    },
    /// What was left and what was paid on top go over a new term.
    Upgraded {
        /// From this day.
        day: NaiveDate,
        /// What was paid on top.
        paid: Amount,
        /// The new end.
        end: NaiveDate,
    },
}

/// A command of a commitment.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// End it early: what is not recognised yet, less the refund, is recognised on that day.
    Cancel {
        /// The first day that is not in it any more.
        day: NaiveDate,
        /// What comes back, as its own line of the bill.
        #[schemars(with = "String")]
        refund: Amount,
    },
    /// Say what was agreed.
    Define {
        /// All of it.
        terms: Box<Terms>,
    },
    /// Count it no more: a run takes its lines away.
    Retire {},
    /// Spread what is left and what is paid on top over a new term.
    Upgrade {
        /// From this day.
        day: NaiveDate,
        /// What is paid on top; nothing for a mere extension.
        #[schemars(with = "String")]
        paid: Amount,
        /// The first day after the new term.
        end: NaiveDate,
    },
}

/// A fact about a commitment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// It ended early.
    Cancelled {
        /// The first day that is not in it any more.
        day: NaiveDate,
        /// What came back.
        #[schemars(with = "String")]
        refund: Amount,
    },
    /// This was agreed.
    Defined {
        /// All of it.
        terms: Box<Terms>,
    },
    /// It counts no more.
    Retired {},
    /// It has a new term.
    Upgraded {
        /// From this day.
        day: NaiveDate,
        /// What was paid on top.
        #[schemars(with = "String")]
        paid: Amount,
        /// The first day after the new term.
        end: NaiveDate,
    },
}

/// What was paid in advance for a term.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Commitment {
    /// What was agreed; none while it does not exist.
    pub terms: Option<Terms>,
    /// What became of it, in the order of days.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Whether it counts no more.
    #[serde(default)]
    pub retired: bool,
}

/// A part of the amount that is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// On this day.
    pub day: NaiveDate,
    /// So much.
    pub amount: Amount,
    /// It is what a cancellation left, a loss when positive, and not the day's part.
    pub adjustment: bool,
}

static VERBS: &[Verb] = &[
    Verb::admin("cancel", "Ends it early, with what comes back."),
    Verb::admin("define", "Says what was paid in advance, and for which term.").creating(),
    Verb::admin("retire", "Counts it no more."),
    Verb::admin("upgrade", "Spreads what is left and what is paid on top over a new term."),
];

fn no(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

fn check_amount(name: &str, amount: Amount) -> Result<(), Refusal> {
    if (0..=AMOUNT_MAX).contains(&amount.0) {
        return Ok(());
    }
    Err(no(format!("{name}: is not between 0 and {}", Amount(AMOUNT_MAX))))
}

fn check_term(start: NaiveDate, end: NaiveDate) -> Result<(), Refusal> {
    if (1..=TERM_DAYS_MAX).contains(&(end - start).num_days()) {
        return Ok(());
    }
    Err(no(format!("end: the term has 1 to {TERM_DAYS_MAX} days")))
}

impl Terms {
    fn check(&self) -> Result<(), Refusal> {
        crate::tenancy::check_name(&self.name)?;
        if self.billing_account.is_empty() {
            return Err(no("billing_account: is missing"));
        }
        if self.commitment.is_empty() && self.resource.is_empty() {
            return Err(no("commitment: give it, or the resource that the purchase is for"));
        }
        let Carried {
            region,
            resource_name,
            resource_type,
            service,
            service_category,
            sub_account,
            tags,
        } = &self.carries;
        let texts = [
            &self.billing_account,
            &self.commitment,
            &self.resource,
            region,
            resource_name,
            resource_type,
            service,
            service_category,
            sub_account,
        ];
        let mut texts = texts.into_iter().chain(tags.keys()).chain(tags.values());
        if tags.len() > TAGS_MAX || texts.any(|text| text.chars().count() > TEXT_CHARS_MAX) {
            let what = format!("a text has at most {TEXT_CHARS_MAX} characters");
            return Err(no(format!("carries: {what}, and there are at most {TAGS_MAX} tags")));
        }
        check_amount("amount", self.amount)?;
        check_term(self.start, self.end)?;
        if self.time_zone.parse::<Tz>().is_err() {
            return Err(no(format!("time_zone: {:?} is not one", self.time_zone)));
        }
        Ok(())
    }

    /// Where its days begin.
    pub fn zone(&self) -> Tz {
        // It was checked when it was defined.
        self.time_zone.parse().unwrap_or(Tz::UTC)
    }

    /// Whether a line of its bills is about it.
    pub fn is_of(&self, line: &Line) -> bool {
        if self.commitment.is_empty() {
            line.resource == self.resource
        } else {
            line.commitment == self.commitment
        }
    }
}

impl Commitment {
    fn active(&self, verb: &str) -> Result<&Terms, Refusal> {
        match &self.terms {
            Some(terms) if self.status() == "active" => Ok(terms),
            _ => Err(Refusal::wrong_state(verb, self.status())),
        }
    }

    /// A change comes on a day of the term, after the changes before it.
    fn check_day(&self, terms: &Terms, day: NaiveDate) -> Result<(), Refusal> {
        if self.changes.len() >= CHANGES_MAX {
            return Err(no(format!("there are {CHANGES_MAX} changes already")));
        }
        let (from, end) = (self.last_change().unwrap_or(terms.start), self.end());
        if (from..=end).contains(&day) {
            return Ok(());
        }
        Err(no(format!("day: is not from {from} to {end}")))
    }

    fn last_change(&self) -> Option<NaiveDate> {
        self.changes.last().map(|change| match change {
            Change::Cancelled { day, .. } | Change::Upgraded { day, .. } => *day,
        })
    }

    /// The first day after the term as it is now.
    pub fn end(&self) -> NaiveDate {
        let of = |change: &Change| match change {
            Change::Cancelled { day, .. } => *day,
            Change::Upgraded { end, .. } => *end,
        };
        let agreed = self.terms.as_ref().map_or(NaiveDate::MIN, |terms| terms.end);
        self.changes.last().map_or(agreed, of)
    }

    /// Whether it counts.
    pub fn counts(&self) -> bool {
        self.terms.is_some() && !self.retired
    }

    /// What was paid, in the order of payments.
    pub fn payments(&self) -> Vec<Amount> {
        let paid = self.changes.iter().filter_map(|change| match change {
            Change::Upgraded { paid, .. } if *paid != Amount::ZERO => Some(*paid),
            _ => None,
        });
        self.terms.iter().map(|terms| terms.amount).chain(paid).collect()
    }

    /// What came back.
    pub fn refund(&self) -> Amount {
        match self.changes.last() {
            Some(Change::Cancelled { refund, .. }) => *refund,
            _ => Amount::ZERO,
        }
    }

    /// What is recognised in a month, in the order of days. Over all months that is what was paid
    /// less what came back, to the last unit.
    pub fn recognised(&self, month: BillingMonth) -> Vec<Recognised> {
        let Some(terms) = self.terms.as_ref().filter(|_| self.counts()) else { return Vec::new() };
        let new = |total, start, end| Schedule::new(total, start, end, terms.method).ok();
        let mut out = Vec::new();
        let Some(mut schedule) = new(terms.amount.0, terms.start, terms.end) else { return out };
        let (mut from, mut end) = (terms.start, terms.end);
        let days = |schedule: &Schedule, from: NaiveDate, to: NaiveDate| {
            let (first, last) = (from.max(month.first()), to.min(month.end()));
            let parts = first.iter_days().take_while(move |day| *day < last).map(|day| {
                let amount = Amount(schedule.between(day, day + Days::new(1)));
                Recognised { day, amount, adjustment: false }
            });
            parts.filter(|part| part.amount != Amount::ZERO).collect::<Vec<_>>()
        };
        for change in &self.changes {
            match change {
                Change::Upgraded { day, paid, end: until } => {
                    out.extend(days(&schedule, from, *day));
                    // The end was checked to come after the day.
                    let Ok(next) = schedule.replace(*day, paid.0, *until) else { return out };
                    (schedule, from, end) = (next, *day, *until);
                }
                Change::Cancelled { day, refund } => {
                    out.extend(days(&schedule, from, *day));
                    let amount = Amount(schedule.cancel(*day, refund.0).adjustment);
                    if BillingMonth::of(*day) == month && amount != Amount::ZERO {
                        out.push(Recognised { day: *day, amount, adjustment: true });
                    }
                    return out;
                }
            }
        }
        out.extend(days(&schedule, from, end));
        out
    }

    /// The lines of what is recognised in a month: billed at nothing, effective at the day's part.
    pub fn lines(&self, id: Uuid, month: BillingMonth) -> Vec<Line> {
        let Some(terms) = &self.terms else { return Vec::new() };
        let zone = terms.zone();
        let line = |part: Recognised| {
            let mut line = Line::new(&terms.billing_account, month, terms.currency.clone());
            line.from = midnight(zone, part.day);
            line.to = midnight(zone, part.day + Days::new(1));
            line.category =
                if part.adjustment { ChargeCategory::Adjustment } else { ChargeCategory::Usage };
            line.effective = part.amount;
            line.commitment.clone_from(&terms.commitment);
            if !part.adjustment && !terms.commitment.is_empty() {
                // A bill that tells used from unused recognises its commitments itself.
                "Used".clone_into(&mut line.commitment_status);
            }
            "Committed".clone_into(&mut line.billing_mode);
            let carries = &terms.carries;
            for (field, text) in [
                (&mut line.region, &carries.region),
                (&mut line.resource, &terms.resource),
                (&mut line.resource_name, &carries.resource_name),
                (&mut line.resource_type, &carries.resource_type),
                (&mut line.service, &carries.service),
                (&mut line.service_category, &carries.service_category),
                (&mut line.sub_account, &carries.sub_account),
            ] {
                field.clone_from(text);
            }
            line.tags.clone_from(&carries.tags);
            let what = if part.adjustment { "left by the end of" } else { "a day of" };
            let _ = write!(line.description, "{what} {}", terms.name);
            line.other = [("x_Commitment".to_owned(), id.to_string())].into();
            line
        };
        self.recognised(month).into_iter().map(line).collect()
    }

    /// The line that takes from a purchase, or from a refund, what its own line has as effective:
    /// it is recognised by the days.
    pub fn taken_from(id: Uuid, line: &Line, segment: &str) -> Line {
        Line {
            billed: Amount::ZERO,
            effective: Amount(-line.effective.0),
            list: Amount::ZERO,
            contracted: Amount::ZERO,
            quantity: String::new(),
            unit: String::new(),
            description: format!("recognised by days: {}", line.description),
            other: [
                ("x_Commitment".to_owned(), id.to_string()),
                ("x_Of".to_owned(), format!("{segment}#{}", line.number)),
            ]
            .into(),
            ..line.clone()
        }
    }
}

impl Decider for Commitment {
    const KIND: &'static str = "commitment";
    const PLURAL: &'static str = "commitments";
    const SUMMARY: &'static str = "What was paid in advance for a term.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        Ok(match command {
            Command::Cancel { day, refund } => {
                let asked = Change::Cancelled { day, refund };
                if self.changes.last() == Some(&asked) && !self.retired {
                    return Ok(vec![]);
                }
                let terms = self.active("cancel")?;
                self.check_day(terms, day)?;
                check_amount("refund", refund)?;
                vec![Event::Cancelled { day, refund }]
            }
            Command::Define { terms } => {
                terms.check()?;
                if self.terms.as_ref() == Some(&*terms) && self.counts() {
                    return Ok(vec![]);
                }
                if self.terms.is_some() && (self.retired || !self.changes.is_empty()) {
                    let what = if self.retired { "retired" } else { "upgraded or cancelled" };
                    return Err(Refusal::wrong_state("define", what));
                }
                vec![Event::Defined { terms }]
            }
            Command::Retire {} if self.terms.is_none() => {
                return Err(Refusal::wrong_state("retire", self.status()));
            }
            Command::Retire {} if self.retired => vec![],
            Command::Retire {} => vec![Event::Retired {}],
            Command::Upgrade { day, paid, end } => {
                let asked = Change::Upgraded { day, paid, end };
                if self.changes.last() == Some(&asked) && !self.retired {
                    return Ok(vec![]);
                }
                let terms = self.active("upgrade")?;
                self.check_day(terms, day)?;
                check_amount("paid", paid)?;
                check_term(day, end)?;
                vec![Event::Upgraded { day, paid, end }]
            }
        })
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Cancelled { day, refund } => {
                self.changes.push(Change::Cancelled { day, refund });
            }
            Event::Defined { terms } => self.terms = Some(*terms),
            Event::Retired {} => self.retired = true,
            Event::Upgraded { day, paid, end } => {
                self.changes.push(Change::Upgraded { day, paid, end });
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.terms, self.changes.last()) {
            (None, _) => "absent",
            _ if self.retired => "retired",
            (_, Some(Change::Cancelled { .. })) => "cancelled",
            _ => "active",
        }
    }

    fn facets(&self) -> Facets {
        let Some(terms) = &self.terms else { return Facets::default() };
        let of = if terms.commitment.is_empty() { &terms.resource } else { &terms.commitment };
        Facets {
            name: Some(terms.name.clone()),
            external_id: Some(of.clone()),
            parent: Some(terms.billing_account.clone()),
            gone: self.retired,
            ..Facets::default()
        }
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

    fn terms(amount: &str, start: &str, end: &str) -> Value {
        json!({
            "name": "db", "form": "reservation", "billing_account": "1", "commitment": "ri-1",
            "currency": "EUR", "amount": amount, "start": start, "end": end,
            "time_zone": "Europe/Berlin",
        })
    }

    fn after(commands: Value) -> (Commitment, Result<usize, String>) {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let (mut state, mut last) = (Commitment::default(), Ok(0));
        for command in commands.as_array().unwrap() {
            let decided = state.decide(serde_json::from_value(command.clone()).unwrap(), &stamp);
            last = decided.as_ref().map(Vec::len).map_err(ToString::to_string);
            state = decided.into_iter().flatten().fold(state, Decider::evolve);
        }
        (state, last)
    }

    fn define(amount: &str, start: &str, end: &str) -> Value {
        json!({"type": "define", "data": {"terms": terms(amount, start, end)}})
    }

    fn months(state: &Commitment) -> Vec<i128> {
        let mut month: BillingMonth = "2023-12".parse().unwrap();
        let sum =
            |month| -> i128 { state.recognised(month).iter().map(|part| part.amount.0).sum() };
        std::iter::repeat_with(|| {
            month = month.next();
            sum(month)
        })
        .take(40)
        .collect()
    }

    #[test]
    fn what_is_recognised_over_all_months_is_what_was_paid_less_what_came_back() {
        let paid = "1000.000000000001";
        let define = define(paid, "2024-01-15", "2025-01-15");
        let (state, _) = after(json!([define]));
        let all: i128 = months(&state).iter().sum();
        assert_eq!(Amount(all).to_string(), paid);

        let upgrade = json!({"type": "upgrade", "data": {"day": "2024-06-30", "paid": "7", "end": "2026-02-28"}});
        let (state, last) = after(json!([define, upgrade]));
        assert_eq!(last, Ok(1));
        assert_eq!(Amount(months(&state).iter().sum()).to_string(), "1007.000000000001");
        let before = after(json!([define])).0;
        assert_eq!(months(&state)[..5], months(&before)[..5], "what was before it stays");

        let cancel = json!({"type": "cancel", "data": {"day": "2024-09-11", "refund": "400.5"}});
        let (state, last) = after(json!([define, upgrade, cancel]));
        assert_eq!((state.status(), last), ("cancelled", Ok(1)));
        assert_eq!(Amount(months(&state).iter().sum()).to_string(), "606.500000000001");
        assert_eq!(months(&state)[9..].iter().sum::<i128>(), 0, "nothing after the end");
        let september = state.recognised("2024-09".parse().unwrap());
        assert_eq!(september.last().unwrap().day, day("2024-09-11"));
        assert!(september.last().unwrap().adjustment);
        assert_eq!(after(json!([define, upgrade, cancel, cancel])).1, Ok(0));
    }

    #[test]
    fn a_days_line_is_a_day_of_the_bills_time_zone_also_when_clocks_change() {
        let (state, _) = after(json!([define("31", "2024-03-01", "2024-04-01")]));
        let lines = state.lines(Uuid::nil(), "2024-03".parse().unwrap());
        assert_eq!(lines.len(), 31);
        assert!(lines.iter().all(|line| line.effective.to_string() == "1"));
        assert!(lines.windows(2).all(|two| two[0].to == two[1].from));
        assert_eq!(lines[0].from.to_rfc3339(), "2024-02-29T23:00:00+00:00");
        assert_eq!((lines[30].to - lines[30].from).num_hours(), 23, "the clock skips an hour");
        assert_eq!(lines[0].commitment_status, "Used");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let defined = define("31", "2024-03-01", "2024-04-01");
        let refused = |commands| after(commands).1.unwrap_err();
        let no_day = define("1", "2024-03-01", "2024-03-01");
        assert!(refused(json!([no_day])).starts_with("end"));
        assert!(refused(json!([define("-1", "2024-03-01", "2024-04-01")])).starts_with("amount"));
        let mut nowhere = defined.clone();
        nowhere["data"]["terms"]["time_zone"] = json!("Mars/Olympus");
        assert!(refused(json!([nowhere])).starts_with("time_zone"));
        let mut nothing = defined.clone();
        nothing["data"]["terms"]["commitment"] = json!("");
        assert!(refused(json!([nothing])).starts_with("commitment"));
        let cancel = |day: &str| json!({"type": "cancel", "data": {"day": day, "refund": "0"}});
        assert!(refused(json!([defined, cancel("2024-04-02")])).starts_with("day"));
        let cancelled = json!([defined, cancel("2024-03-05"), cancel("2024-03-06")]);
        assert!(refused(cancelled).contains("cancelled"));
        let again = json!([defined, cancel("2024-03-05"), define("5", "2024-03-01", "2024-04-01")]);
        assert!(refused(again).contains("upgraded or cancelled"));
        assert_eq!(after(json!([defined, defined])).1, Ok(0));
    }
}
