//! Who sends invoices, and what it says about them: which of its months are closed, and the
//! commitments that were bought from it. These are its words; what a bill's lines say is the bill's.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::amount::{Amount, BillingMonth, Currency};
use crate::{
    kernel::{Decider, Facets, Outstanding, Refusal, Stamp, Verb, codes},
    observation::NoOrder,
};

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 500;
/// Most commitments of one issuer: a row of some megabytes.
const COMMITMENTS_MAX: usize = 5_000;
/// Most periods of one issuer: a hundred years.
const PERIODS_MAX: usize = 1_200;

/// The terms of a commitment: a line of FOCUS's data set ContractCommitment. Texts that the issuer
/// leaves out are empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// `ContractCommitmentId`: what lines name in `CommitmentDiscountId` or `ContractApplied`.
    pub id: String,
    /// `ContractId`.
    pub contract: String,
    /// `ContractCommitmentPeriodStart`, inclusive.
    pub from: DateTime<Utc>,
    /// `ContractCommitmentPeriodEnd`, exclusive.
    pub to: DateTime<Utc>,
    /// `ContractCommitmentCost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub cost: Option<Amount>,
    /// `BillingCurrency`, of the cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// `ContractCommitmentPaymentModel`: how much is paid upfront.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payment_model: String,
    /// `ContractCommitmentPaymentInterval`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payment_interval: String,
    /// `ContractCommitmentPaymentUpfrontPercentage`, as written.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub upfront_percent: String,
    /// `ContractCommitmentCategory`: `Spend` or `Usage`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// `ContractCommitmentLifecycleStatus`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// What else is said, by FOCUS's column names; empty values left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, String>,
}

/// Whether a month's invoices stand, in the issuer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Period {
    /// Nothing will change any more.
    Closed,
    /// Charges may still come and go.
    Open,
}

/// A command of an issuer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Take down what a file of it says.
    State {
        /// `InvoiceIssuerName`.
        name: String,
        /// Commitments; what was stated of the same before counts no more.
        #[serde(default)]
        commitments: Vec<Commitment>,
        /// Months.
        #[serde(default)]
        #[schemars(with = "BTreeMap<String, Period>")]
        periods: BTreeMap<BillingMonth, Period>,
        /// The file, as its sender calls it.
        source: String,
        /// SHA-256 of that file, in hexadecimal.
        source_digest: String,
        /// Who sent the file.
        stated_by: String,
    },
}

/// A fact about an issuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Event {
    /// These are the terms.
    CommitmentsStated {
        /// `InvoiceIssuerName`.
        name: String,
        /// Those that were not stated so before.
        commitments: Vec<Commitment>,
        /// The file, as its sender calls it.
        source: String,
        /// SHA-256 of that file, in hexadecimal.
        source_digest: String,
        /// Who sent the file.
        stated_by: String,
    },
    /// These months are open or closed.
    PeriodsStated {
        /// `InvoiceIssuerName`.
        name: String,
        /// Those that were not stated so before.
        #[schemars(with = "BTreeMap<String, Period>")]
        periods: BTreeMap<BillingMonth, Period>,
        /// The file, as its sender calls it.
        source: String,
        /// SHA-256 of that file, in hexadecimal.
        source_digest: String,
        /// Who sent the file.
        stated_by: String,
    },
}

/// Who sends invoices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Issuer {
    /// `InvoiceIssuerName`; empty while nothing was stated.
    pub name: String,
    /// Sorted by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commitments: Vec<Commitment>,
    /// By month.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub periods: BTreeMap<BillingMonth, Period>,
}

static VERBS: &[Verb] = &[Verb::system(
    "state",
    "Takes down commitments and periods; sent by the server for a file of them.",
)
.creating()];

impl Issuer {
    /// The stream of the issuer of this name.
    pub fn id(name: &str) -> Uuid {
        /// The namespace of such ids.
        const SPACE: Uuid = Uuid::from_u128(0x15a2_77f4_0c3b_4e58_a4f7_5e0b_8c11_9d20);
        Uuid::new_v5(&SPACE, name.as_bytes())
    }
}

impl Decider for Issuer {
    const KIND: &'static str = "issuer";
    const PLURAL: &'static str = "issuers";
    const SUMMARY: &'static str =
        "Who sends invoices: which of its months are closed, and the terms of commitments.";
    type Command = Command;
    type Event = Event;
    type Order = NoOrder;

    fn verbs() -> &'static [Verb] {
        VERBS
    }

    fn decide(&self, command: Command, _: &Stamp) -> Result<Vec<Event>, Refusal> {
        let Command::State { name, commitments, periods, source, source_digest, stated_by } =
            command;
        let invalid = |detail: String| Refusal::new(&codes::INVALID_FIELD, detail);
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(invalid(format!("an issuer's name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        // Of lines about the same commitment the last one holds.
        let mut by_id: BTreeMap<String, Commitment> =
            commitments.into_iter().map(|one| (one.id.clone(), one)).collect();
        by_id.retain(|_, one| !self.commitments.contains(one));
        let further =
            by_id.keys().filter(|id| !self.commitments.iter().any(|old| old.id == **id)).count();
        if self.commitments.len() + further > COMMITMENTS_MAX {
            return Err(invalid(format!("an issuer has at most {COMMITMENTS_MAX} commitments")));
        }
        let mut periods = periods;
        periods.retain(|month, period| self.periods.get(month) != Some(period));
        if self.periods.len() + periods.len() > PERIODS_MAX {
            return Err(invalid(format!("an issuer has at most {PERIODS_MAX} periods")));
        }
        let mut events = Vec::new();
        if !by_id.is_empty() {
            events.push(Event::CommitmentsStated {
                name: name.clone(),
                commitments: by_id.into_values().collect(),
                source: source.clone(),
                source_digest: source_digest.clone(),
                stated_by: stated_by.clone(),
            });
        }
        if !periods.is_empty() {
            events.push(Event::PeriodsStated { name, periods, source, source_digest, stated_by });
        }
        Ok(events)
    }

    fn evolve(mut self, event: Event) -> Self {
        match event {
            Event::CommitmentsStated { name, commitments, .. } => {
                self.name = name;
                self.commitments.retain(|old| !commitments.iter().any(|new| new.id == old.id));
                self.commitments.extend(commitments);
                self.commitments.sort_unstable_by(|one, other| one.id.cmp(&other.id));
            }
            Event::PeriodsStated { name, periods, .. } => {
                self.name = name;
                self.periods.extend(periods);
            }
        }
        self
    }

    fn order(&self) -> Option<Outstanding<NoOrder>> {
        None
    }

    fn status(&self) -> &'static str {
        if self.name.is_empty() { "absent" } else { "stated" }
    }

    fn facets(&self) -> Facets {
        Facets {
            name: Some(self.name.clone()),
            external_id: Some(self.name.clone()),
            ..Facets::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commitment(id: &str, cost: i128) -> Commitment {
        Commitment {
            id: id.into(),
            contract: "c".into(),
            from: DateTime::UNIX_EPOCH,
            to: DateTime::UNIX_EPOCH,
            cost: Some(Amount(cost)),
            currency: None,
            payment_model: "All Upfront".into(),
            payment_interval: String::new(),
            upfront_percent: String::new(),
            category: String::new(),
            status: String::new(),
            other: BTreeMap::new(),
        }
    }

    fn state(name: &str, commitments: &[Commitment], closed: &[&str]) -> Command {
        let month = |text: &&str| ((*text).to_owned().try_into().unwrap(), Period::Closed);
        Command::State {
            name: name.into(),
            commitments: commitments.to_vec(),
            periods: closed.iter().map(month).collect(),
            source: "terms.csv".into(),
            source_digest: "00".into(),
            stated_by: "token:test".into(),
        }
    }

    #[test]
    fn what_was_not_stated_so_before_is_a_fact_and_the_rest_is_not() {
        let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
        let mut issuer = Issuer::default();
        for (command, events) in [
            (state("AWS", &[commitment("b", 1), commitment("a", 1)], &["2026-09"]), 2),
            (state("AWS", &[commitment("b", 1), commitment("a", 1)], &["2026-09"]), 0),
            (state("AWS", &[commitment("b", 2)], &["2026-09"]), 1),
            (state("AWS", &[], &["2026-10"]), 1),
            (state("AWS", &[], &[]), 0),
        ] {
            let decided = issuer.decide(command, &stamp).unwrap();
            assert_eq!(decided.len(), events);
            issuer = decided.into_iter().fold(issuer, Decider::evolve);
        }
        assert_eq!(issuer.commitments, [commitment("a", 1), commitment("b", 2)]);
        assert_eq!((issuer.periods.len(), issuer.status()), (2, "stated"));
        let refused = issuer.decide(state("", &[], &[]), &stamp).unwrap_err();
        assert_eq!(refused.code.code, "invalid-field");
    }
}
