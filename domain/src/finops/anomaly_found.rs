//! A cost that was not as it should be, and what people say of it.
//!
//! ```text
//!   absent ── report ──► open ◄───────────────────── report ─────────────────────┐
//!                        │  acknowledge, explain, ignore                         │
//!                        ▼                                                       │
//!                        acknowledged, explained, ignored ── clear ──► cleared ──┘
//! ```
//!
//! There is one for a rule, a group, a currency and a day or month, however often it is looked for:
//! what is found again is the same, with other numbers when bills were restated, and cleared when it
//! is not so any more. What people have said of it stays with it while its numbers change.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    amount::{Amount, Currency},
    anomaly::{Period, Range},
};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, canonical_bytes, codes},
    observation::NoOrder,
};

/// Longest explanation or reason, in characters.
const TEXT_CHARS_MAX: usize = 2_000;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The rule that found it.
    pub rule: Uuid,
    /// What the rule is called.
    pub rule_name: String,
    /// Whose cost it is: the value of each dimension that the rule groups by; empty for what has
    /// none.
    pub group: BTreeMap<String, String>,
    /// In what.
    pub currency: Currency,
    /// Which amount.
    pub basis: String,
    /// The day or the month.
    #[schemars(with = "String")]
    pub period: Period,
    /// What it cost.
    #[schemars(with = "String")]
    pub amount: Amount,
    /// What it would have had to stay within.
    #[schemars(with = "String")]
    pub limit: Amount,
    /// What was expected, where that is estimated.
    pub expected: Option<Range>,
    /// What it was measured against, in words.
    pub measure: String,
}

impl Finding {
    /// The stream of what this finds: the same for the same rule, group, currency and period.
    pub fn id(&self) -> Uuid {
        /// The namespace of such ids.
        const SPACE: Uuid = Uuid::from_u128(0x3c0d_2b9e_51f4_4d07_8f3e_7a15_c2a8_90d4);
        let name = (self.rule, &self.group, &self.currency, self.period);
        Uuid::new_v5(&SPACE, &canonical_bytes(&name))
    }
}

/// Where a finding was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AsOf {
    /// The position at which bills and rules were looked at.
    pub position: u64,
    /// The digest of the segments that counted.
    pub inputs: String,
}

/// A command of an anomaly.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Somebody looks into it.
    Acknowledge {},
    /// It is not so, or not any more.
    Clear {
        /// Why.
        reason: String,
        /// When that was seen.
        as_of: AsOf,
    },
    /// It is known why.
    Explain {
        /// 1…2,000 characters.
        text: String,
    },
    /// It does not matter.
    Ignore {
        /// At most 2,000 characters.
        #[serde(default)]
        reason: String,
    },
    /// It is so.
    Report {
        /// What was found.
        finding: Box<Finding>,
        /// When that was seen.
        as_of: AsOf,
    },
}

/// A fact about an anomaly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// Somebody looks into it.
    Acknowledged {},
    /// It is not so, or not any more.
    Cleared {
        /// Why.
        reason: String,
        /// When that was seen.
        as_of: AsOf,
    },
    /// It is known why.
    Explained {
        /// Why.
        text: String,
    },
    /// It does not matter.
    Ignored {
        /// Why not.
        reason: String,
    },
    /// It was found; or found again after it had been cleared.
    Reported {
        /// What was found.
        finding: Box<Finding>,
        /// When that was seen.
        as_of: AsOf,
    },
    /// Its numbers are others: bills have changed, or the rule.
    Updated {
        /// What is found now.
        finding: Box<Finding>,
        /// When that was seen.
        as_of: AsOf,
    },
}

/// What people say of an anomaly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing yet.
    #[default]
    Open,
    /// Somebody looks into it.
    Acknowledged,
    /// It is known why.
    Explained(String),
    /// It does not matter.
    Ignored(String),
}

/// A cost that was not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// What was found last; none while there is nothing.
    pub finding: Option<Finding>,
    /// When.
    pub as_of: AsOf,
    /// What people say of it.
    pub answer: Answer,
    /// Why it is not so any more.
    pub cleared: Option<String>,
}

static VERBS: &[Verb] = &[
    Verb::operator("acknowledge", "Says that somebody looks into it."),
    Verb::system(
        "clear",
        "Ends what is not so any more; sent by the server after it has looked at the bills.",
    ),
    Verb::operator("explain", "Says why it is so."),
    Verb::operator("ignore", "Says that it does not matter."),
    Verb::system(
        "report",
        "Tells what was found; sent by the server after it has looked at the bills.",
    )
    .creating(),
];

fn check_text(field: &str, text: &str, least: usize) -> Result<(), Refusal> {
    let length = text.trim().chars().count();
    if (least..=TEXT_CHARS_MAX).contains(&length) {
        return Ok(());
    }
    let detail = format!("{field}: needs {least} to {TEXT_CHARS_MAX} characters");
    Err(Refusal::new(&codes::INVALID_FIELD, detail))
}

impl Anomaly {
    /// Whether somebody who looked later has already said what is so.
    fn knows_better(&self, as_of: &AsOf) -> bool {
        self.as_of.position > as_of.position
    }

    fn answered(&self, verb: &str, answer: Answer, event: Event) -> Result<Vec<Event>, Refusal> {
        if self.finding.is_none() {
            return Err(Refusal::new(&codes::NOT_FOUND, "there is no such anomaly"));
        }
        if self.cleared.is_some() {
            return Err(Refusal::wrong_state(verb, self.status()));
        }
        Ok(if self.answer == answer { vec![] } else { vec![event] })
    }
}

impl Decider for Anomaly {
    const KIND: &'static str = "anomaly";
    const PLURAL: &'static str = "anomalies";
    const SUMMARY: &'static str = "A cost that was not as it should be.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Acknowledge {} => {
                self.answered("acknowledge", Answer::Acknowledged, Event::Acknowledged {})
            }
            Command::Explain { text } => {
                check_text("text", &text, 1)?;
                self.answered("explain", Answer::Explained(text.clone()), Event::Explained { text })
            }
            Command::Ignore { reason } => {
                check_text("reason", &reason, 0)?;
                let answer = Answer::Ignored(reason.clone());
                self.answered("ignore", answer, Event::Ignored { reason })
            }
            Command::Clear { reason, as_of } => Ok(
                if self.finding.is_none() || self.cleared.is_some() || self.knows_better(&as_of) {
                    vec![]
                } else {
                    vec![Event::Cleared { reason, as_of }]
                },
            ),
            Command::Report { finding, as_of } => Ok(match &self.finding {
                Some(_) if self.knows_better(&as_of) => vec![],
                Some(known) if self.cleared.is_none() && *known == *finding => vec![],
                Some(_) if self.cleared.is_none() => vec![Event::Updated { finding, as_of }],
                _ => vec![Event::Reported { finding, as_of }],
            }),
        }
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::Acknowledged {} => self.answer = Answer::Acknowledged,
            Event::Cleared { reason, as_of } => {
                self.cleared = Some(reason);
                self.as_of = as_of;
            }
            Event::Explained { text } => self.answer = Answer::Explained(text),
            Event::Ignored { reason } => self.answer = Answer::Ignored(reason),
            Event::Reported { finding, as_of } => {
                self = Self { finding: Some(*finding), as_of, ..Self::default() };
            }
            Event::Updated { finding, as_of } => {
                self.finding = Some(*finding);
                self.as_of = as_of;
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        match (&self.finding, &self.cleared, &self.answer) {
            (None, ..) => "absent",
            (_, Some(_), _) => "cleared",
            (.., Answer::Open) => "open",
            (.., Answer::Acknowledged) => "acknowledged",
            (.., Answer::Explained(_)) => "explained",
            (.., Answer::Ignored(_)) => "ignored",
        }
    }

    fn facets(&self) -> Facets {
        let Some(finding) = &self.finding else { return Facets::default() };
        let group = finding.group.values().map(|value| match value.as_str() {
            "" => "–",
            value => value,
        });
        let whose: Vec<&str> = group.collect();
        let name = format!("{} {} {}", finding.rule_name, finding.period, whose.join(", "));
        Facets {
            name: Some(name.trim_end().to_owned()),
            gone: self.cleared.is_some(),
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn finding(amount: i128) -> Finding {
        Finding {
            rule: Uuid::from_u128(1),
            rule_name: "services".into(),
            group: [("service".to_owned(), "EC2".to_owned())].into(),
            currency: "EUR".to_owned().try_into().unwrap(),
            basis: "effective".into(),
            period: "2026-10-05".parse().unwrap(),
            amount: Amount(amount),
            limit: Amount(100),
            expected: None,
            measure: "the limit of a day".into(),
        }
    }

    fn as_of(position: u64) -> AsOf {
        AsOf { position, inputs: format!("{position:02x}") }
    }

    fn report(amount: i128, position: u64) -> Command {
        Command::Report { finding: finding(amount).into(), as_of: as_of(position) }
    }

    fn clear(position: u64) -> Command {
        Command::Clear { reason: "restated".into(), as_of: as_of(position) }
    }

    fn check(commands: impl IntoIterator<Item = Command>, status: &str, events: &[usize]) {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let (mut anomaly, mut counts) = (Anomaly::default(), Vec::new());
        for command in commands {
            let made = anomaly.decide(command, &stamp).unwrap();
            counts.push(made.len());
            anomaly = made.into_iter().fold(anomaly, Decider::evolve);
        }
        assert_eq!((anomaly.status(), counts.as_slice()), (status, events));
    }

    #[test]
    fn what_is_found_again_is_the_same_anomaly() {
        check([report(150, 7), report(150, 9)], "open", &[1, 0]);
        check([report(150, 7), report(170, 9), report(170, 9)], "open", &[1, 1, 0]);
        assert_eq!(finding(1).id(), finding(2).id());
        let mut other = finding(1);
        other.group.insert("service".into(), "S3".into());
        assert_ne!(finding(1).id(), other.id());
    }

    #[test]
    fn an_answer_stays_while_numbers_change_and_ends_with_what_it_was_given_to() {
        let explain = || Command::Explain { text: "the sale".into() };
        check([report(150, 7), explain(), report(170, 9)], "explained", &[1, 1, 1]);
        check([report(150, 7), explain(), clear(9)], "cleared", &[1, 1, 1]);
        check([report(150, 7), explain(), clear(9), report(150, 11)], "open", &[1, 1, 1, 1]);
        let ignore = Command::Ignore { reason: String::new() };
        check([report(150, 7), Command::Acknowledge {}, ignore], "ignored", &[1, 1, 1]);
    }

    #[test]
    fn who_looked_before_changes_nothing_of_who_looked_later() {
        check([report(150, 9), report(170, 7)], "open", &[1, 0]);
        check([report(150, 9), clear(7)], "open", &[1, 0]);
        check([report(150, 7), clear(9), report(150, 8)], "cleared", &[1, 1, 0]);
    }

    #[test]
    fn what_is_cleared_is_not_answered() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let anomaly = Anomaly {
            finding: Some(finding(1)),
            cleared: Some("restated".into()),
            ..Anomaly::default()
        };
        let refused = anomaly.decide(Command::Acknowledge {}, &stamp).unwrap_err();
        assert_eq!(refused.code.code, "wrong-state");
        let empty = Command::Explain { text: " ".into() };
        assert_eq!(anomaly.decide(empty, &stamp).unwrap_err().code.code, "invalid-field");
    }
}
