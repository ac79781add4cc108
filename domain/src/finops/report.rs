//! A question of costs that is kept, asked again, and answered on schedule.
//!
//! ```text
//!   absent ── define ──► kept ── retire ──► retired
//!                        ▲  │
//!                        └──┘ define, record
//! ```
//!
//! The answer to a report depends on the bills at a position and on nothing else: asked as of the
//! same position it has the same bytes. What a run gave is kept under the digest of its bytes.

use chrono::{DateTime, Datelike, Days, Months as Calendar, NaiveDate, NaiveTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    amount::{BillingMonth, Currency, SCALE},
    cost::Basis,
    scope::{LineCondition, check_basis, check_conditions, check_groups},
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Role, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Most months of a report.
const MONTHS_MAX: u32 = 120;
/// Runs that are remembered; the events of the others stay in the log.
const RUNS_MAX: usize = 100;

/// Which months.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Months {
    /// These, both included.
    Between {
        /// The first.
        #[schemars(with = "String")]
        from: BillingMonth,
        /// The last.
        #[schemars(with = "String")]
        to: BillingMonth,
    },
    /// The newest that bills are known of.
    Last {
        /// How many, 1 to 120.
        count: u32,
        /// How many newer ones are left out: 1 leaves out a month that is not over.
        #[serde(default)]
        before: u32,
    },
}

impl Months {
    /// The first and the last, when bills up to this month are known.
    pub fn of(&self, newest: BillingMonth) -> (BillingMonth, BillingMonth) {
        let back = |month: BillingMonth, count| {
            let first = month.first().checked_sub_months(Calendar::new(count));
            first.map_or(month, BillingMonth::of)
        };
        match self {
            Self::Between { from, to } => (*from, *to),
            Self::Last { count, before } => {
                let to = back(newest, *before);
                (back(to, count.saturating_sub(1)), to)
            }
        }
    }
}

/// With what costs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum With {
    /// As many months right before.
    Previous,
    /// The same months of the year before.
    Year,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Comma-separated values (RFC 4180).
    #[default]
    Csv,
    /// One document.
    Json,
    /// Columns; amounts are DECIMAL(38,12).
    Parquet,
}

impl Format {
    /// The format of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// As queries have it, and files end.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Which amount; `billed` when it is left out.
    #[serde(default = "billed")]
    pub basis: String,
    /// At most four dimensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_by: Vec<String>,
    /// All must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<LineCondition>,
    /// Of which months.
    pub months: Months,
    /// Beside what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<With>,
    /// Decimals that are shown, 0 to 12; rows still come to the total. All of them when it is left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digits: Option<u32>,
    /// How the answer is written.
    #[serde(default)]
    pub format: Format,
    /// In this currency, by the exchange rates of each month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// Whether at the prices that re-pricings make.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repriced: bool,
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

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Every {
    /// Every day.
    Day,
    /// One day of every week.
    Week,
    /// One day of every month.
    Month,
}

/// When a report is asked by itself, in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How often.
    pub every: Every,
    /// Of the week 1 (Monday) to 7, of the month 1 to 28; 1 when it is left out.
    #[serde(default = "one")]
    pub day: u32,
    /// 0 to 23.
    #[serde(default)]
    pub hour: u32,
}

fn one() -> u32 {
    1
}

impl Schedule {
    /// The last time it was due by then.
    pub fn due(&self, by: DateTime<Utc>) -> DateTime<Utc> {
        let hour = TimeDelta::hours(i64::from(self.hour));
        let at = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc() + hour;
        // Of the day that it would be due on if that hour was midnight.
        let day = (by - hour).date_naive();
        let due = match self.every {
            Every::Day => Some(day),
            Every::Week => {
                let since = (7 + day.weekday().number_from_monday() - self.day) % 7;
                day.checked_sub_days(Days::new(u64::from(since)))
            }
            Every::Month if day.day() >= self.day => day.with_day(self.day),
            Every::Month => {
                let before =
                    day.with_day(1).and_then(|one| one.checked_sub_months(Calendar::new(1)));
                before.and_then(|one| one.with_day(self.day))
            }
        };
        at(due.unwrap_or(day))
    }
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, detail)
}

impl Question {
    fn check(&self) -> Result<(), Refusal> {
        let quantity = check_basis(&self.basis)? == Basis::Quantity;
        if quantity && (self.currency.is_some() || self.repriced) {
            return Err(invalid("currency: a quantity is no money, and has no price"));
        }
        check_conditions(&self.conditions)?;
        let taken: &[&str] =
            if self.compare.is_some() { &["day", "currency"] } else { &["currency"] };
        check_groups(&self.group_by, taken)?;
        match &self.months {
            Months::Between { from, to } if from > to => Err(invalid("months: to is before from")),
            Months::Last { count, before }
                if !(1..=MONTHS_MAX).contains(count) || *before > MONTHS_MAX =>
            {
                Err(invalid(format!("months: count is 1 to {MONTHS_MAX}, before at most that")))
            }
            _ if self.digits.is_some_and(|digits| digits > SCALE) => {
                Err(invalid(format!("digits: at most {SCALE}")))
            }
            _ => Ok(()),
        }
    }
}

impl Schedule {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let days = match self.every {
            Every::Day => 1,
            Every::Week => 7,
            Every::Month => 28,
        };
        if !(1..=days).contains(&self.day) || self.hour > 23 {
            return Err(invalid(format!("schedule: day is 1 to {days}, hour 0 to 23")));
        }
        Ok(())
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// When it was due, or asked.
    pub due: DateTime<Utc>,
    /// Whether it was the schedule that asked.
    pub scheduled: bool,
    /// The position it was asked as of.
    pub position: u64,
    /// The digest of the segments that counted.
    pub inputs: String,
    /// How the answer is written.
    pub format: Format,
    /// SHA-256 of its bytes, in hexadecimal.
    pub digest: String,
    /// How long it is.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
}

/// A command of a report.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Keep a question.
    Define {
        /// What the report is called, 1…100 characters; as before when it is left out.
        #[serde(default)]
        name: Option<String>,
        /// What is asked.
        question: Box<Question>,
        /// When it is asked by itself; never when it is left out.
        #[serde(default)]
        schedule: Option<Schedule>,
        /// Whether others than its maker and admins read its answers.
        #[serde(default)]
        shared: bool,
    },
    /// Say what a run gave.
    Record {
        /// All of it.
        run: Run,
    },
    /// Ask it no more; what was answered stays.
    Retire {},
}

/// A fact about a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// A question is kept.
    Defined {
        /// What the report is called.
        name: String,
        /// What is asked.
        question: Box<Question>,
        /// When it is asked by itself.
        schedule: Option<Schedule>,
        /// Whether others than its maker and admins read its answers.
        shared: bool,
        /// Who made it.
        maker: String,
        /// When: what was due before is not made up for.
        at: DateTime<Utc>,
    },
    /// It was answered.
    Ran {
        /// How.
        run: Run,
    },
    /// It is asked no more.
    Retired {},
}

/// A question of costs that is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its name; empty while it does not exist.
    pub name: String,
    /// What is asked.
    pub question: Option<Question>,
    /// When it is asked by itself.
    pub schedule: Option<Schedule>,
    /// Whether others than its maker and admins read its answers.
    pub shared: bool,
    /// Who made it.
    pub maker: String,
    /// When it was defined last.
    pub at: DateTime<Utc>,
    /// Whether it is asked no more.
    pub retired: bool,
    /// The last hundred answers, the newest last.
    pub runs: Vec<Run>,
}

impl Report {
    /// When it has to be asked now, if it has.
    pub fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let due = self.schedule.as_ref().filter(|_| !self.retired)?.due(now);
        let asked = self.runs.iter().any(|run| run.scheduled && run.due >= due);
        (due > self.at && !asked).then_some(due)
    }

    /// Whether this principal reads its answers.
    pub fn is_for(&self, name: &str, role: Role) -> bool {
        self.shared || role == Role::Admin || self.maker == name
    }
}

static VERBS: &[Verb] = &[
    Verb::operator("define", "Keeps a question of costs, and when it is asked by itself.")
        .creating(),
    Verb::system(
        "record",
        "Says what a run gave; sent by the server after it has kept the answer.",
    ),
    Verb::operator("retire", "Asks it no more; what was answered stays."),
];

impl Decider for Report {
    const KIND: &'static str = "report";
    const PLURAL: &'static str = "reports";
    const SUMMARY: &'static str = "A question of costs that is kept, and answered on schedule.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let missing = || Refusal::new(&codes::NOT_FOUND, "there is no such report");
        match command {
            Command::Define { name, question, schedule, shared } => {
                let name = name.unwrap_or_else(|| self.name.clone());
                crate::tenancy::check_name(&name)?;
                question.check()?;
                schedule.iter().try_for_each(Schedule::check)?;
                let same = name == self.name
                    && self.question.as_ref() == Some(&*question)
                    && self.schedule == schedule
                    && self.shared == shared
                    && !self.retired;
                if same {
                    return Ok(vec![]);
                }
                let maker =
                    if self.maker.is_empty() { stamp.actor.clone() } else { self.maker.clone() };
                let at = stamp.now;
                Ok(vec![Event::Defined { name, question, schedule, shared, maker, at }])
            }
            _ if self.question.is_none() => Err(missing()),
            Command::Record { run } if self.runs.iter().any(|one| one.due == run.due) => Ok(vec![]),
            Command::Record { run } => Ok(vec![Event::Ran { run }]),
            Command::Retire {} if self.retired => Ok(vec![]),
            Command::Retire {} => Ok(vec![Event::Retired {}]),
        }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Defined { name, question, schedule, shared, maker, at } => {
                let (question, retired) = (Some(*question), false);
                Self { name, question, schedule, shared, maker, at, retired, runs: self.runs }
            }
            Event::Ran { run } => {
                self.runs.push(run);
                if self.runs.len() > RUNS_MAX {
                    self.runs.remove(0);
                }
                self
            }
            Event::Retired {} => Self { retired: true, ..self },
        }
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.question, &self.schedule, self.retired) {
            (None, ..) => "absent",
            (.., true) => "retired",
            (_, Some(_), _) => "scheduled",
            _ => "kept",
        }
    }

    fn facets(&self) -> Facets {
        Facets { name: Some(self.name.clone()), gone: self.retired, ..Facets::default() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn define(question: serde_json::Value, schedule: Option<Schedule>) -> Command {
        let question = serde_json::from_value(question).unwrap();
        Command::Define { name: Some("services".into()), question, schedule, shared: false }
    }

    fn last(count: u32) -> serde_json::Value {
        json!({"months": {"last": {"count": count}}})
    }

    #[test]
    fn a_schedule_is_due_at_its_hour() {
        let due = |every, day, hour, by: &str| {
            Schedule { every, day, hour }.due(time(by)).format("%Y-%m-%d %H").to_string()
        };
        // 25 November 2026 is a Wednesday.
        assert_eq!(due(Every::Day, 1, 6, "2026-11-25T05:59:59Z"), "2026-11-24 06");
        assert_eq!(due(Every::Day, 1, 6, "2026-11-25T06:00:00Z"), "2026-11-25 06");
        assert_eq!(due(Every::Week, 1, 6, "2026-11-25T06:00:00Z"), "2026-11-23 06");
        assert_eq!(due(Every::Week, 3, 6, "2026-11-25T05:00:00Z"), "2026-11-18 06");
        assert_eq!(due(Every::Month, 28, 0, "2026-03-01T00:00:00Z"), "2026-02-28 00");
        assert_eq!(due(Every::Month, 1, 5, "2026-01-01T04:00:00Z"), "2025-12-01 05");
    }

    #[test]
    fn a_report_is_due_once_after_it_was_defined() {
        let stamp = Stamp { now: time("2026-11-25T07:00:00Z"), actor: "token:ann".into() };
        let schedule = Schedule { every: Every::Day, day: 1, hour: 6 };
        let events = Report::default().decide(define(last(1), Some(schedule)), &stamp).unwrap();
        let report = events.into_iter().fold(Report::default(), Decider::evolve);
        assert_eq!((report.status(), report.maker.as_str()), ("scheduled", "token:ann"));
        assert_eq!(report.due(stamp.now), None, "what was due before is not made up for");
        let due = report.due(time("2026-11-28T09:00:00Z"));
        assert_eq!(due, Some(time("2026-11-28T06:00:00Z")), "the last one alone");
        let run = Run {
            due: due.unwrap(),
            scheduled: true,
            position: 7,
            inputs: "00".into(),
            format: Format::Csv,
            digest: "00".into(),
            bytes: 1,
            rows: 1,
        };
        let record = Command::Record { run };
        let events = report.decide(record.clone(), &stamp).unwrap();
        let report = events.into_iter().fold(report, Decider::evolve);
        assert_eq!(report.due(time("2026-11-28T09:00:00Z")), None);
        assert!(report.decide(record, &stamp).unwrap().is_empty());
        assert!(report.is_for("token:ann", Role::Viewer) && report.is_for("token:x", Role::Admin));
        assert!(!report.is_for("token:x", Role::Operator));
    }

    #[test]
    fn months_are_those_that_bills_are_known_of() {
        let of = |months: serde_json::Value| {
            let months: Months = serde_json::from_value(months).unwrap();
            let (from, to) = months.of("2026-02".parse().unwrap());
            format!("{from} {to}")
        };
        assert_eq!(of(json!({"last": {"count": 3}})), "2025-12 2026-02");
        assert_eq!(of(json!({"last": {"count": 1, "before": 1}})), "2026-01 2026-01");
        assert_eq!(of(json!({"between": {"from": "2025-01", "to": "2025-03"}})), "2025-01 2025-03");
    }

    #[test]
    fn what_could_never_be_answered_is_refused() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let months = json!({"last": {"count": 1}});
        for question in [
            last(0),
            json!({"months": {"between": {"from": "2026-02", "to": "2026-01"}}}),
            json!({"months": months, "digits": 13}),
            json!({"months": months, "basis": "bild"}),
            json!({"months": months, "group_by": ["day"], "compare": "year"}),
        ] {
            let refused = Report::default().decide(define(question.clone(), None), &stamp);
            assert_eq!(refused.unwrap_err().code.code, "invalid-field", "{question}");
        }
        let schedule = Schedule { every: Every::Week, day: 8, hour: 0 };
        assert!(Report::default().decide(define(last(1), Some(schedule)), &stamp).is_err());
    }
}
