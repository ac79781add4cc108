//! What a state still waits for the world to do.
//!
//! ```text
//!           issue                    settle
//! nothing ─────────► waiting ──────────────────► nothing
//!                     │  ▲                          ▲
//!                park │  │ retry                    │
//!                     ▼  │        abandon           │
//!                   parked ─────────────────────────┘
//! ```
//!
//! A restart needs no recovery path: the runner looks at states with an order and goes on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    id::StreamId,
    refusal::{Refusal, codes},
};

/// Names one order for ever: the same after a crash, another for the next order of the same
/// resource. Drivers look it up before they create, and pass it on as client token or tag.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct OrderKey {
    /// The stream whose state waits.
    pub stream: StreamId,
    /// How many orders this stream had issued, this one included.
    pub number: u64,
}

impl fmt::Display for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.number)
    }
}

/// One order that is out, as the runner and the orders view see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outstanding<O> {
    /// See [`OrderKey::number`].
    pub number: u64,
    /// What is to be done.
    pub order: O,
    /// Why it was parked; none while it is still worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<String>,
}

/// The orders of one state: at most one is out at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orders<O> {
    /// How many were ever issued.
    pub issued: u64,
    /// The one that is out.
    pub out: Option<Outstanding<O>>,
}

impl<O> Default for Orders<O> {
    fn default() -> Self {
        Self { issued: 0, out: None }
    }
}

impl<O> Orders<O> {
    /// Nothing may be ordered while an order is out.
    pub fn ensure_free(&self) -> Result<(), Refusal> {
        match &self.out {
            None => Ok(()),
            Some(Outstanding { parked: Some(reason), number, .. }) => Err(Refusal::new(
                &codes::ORDER_PARKED,
                format!("order {number} is parked: {reason}"),
            )),
            Some(Outstanding { number, .. }) => {
                Err(Refusal::new(&codes::ORDER_OUTSTANDING, format!("order {number} is still out")))
            }
        }
    }

    /// Only a parked order can be retried or abandoned.
    pub fn ensure_parked(&self) -> Result<(), Refusal> {
        match &self.out {
            Some(Outstanding { parked: Some(_), .. }) => Ok(()),
            _ => Err(Refusal::new(&codes::NOTHING_PARKED, "no order of this is parked")),
        }
    }

    /// Whether this report is about the order that is out. A report that comes late, or twice, is
    /// about none and says nothing new.
    pub fn is_out(&self, number: u64) -> bool {
        self.out.as_ref().is_some_and(|out| out.number == number)
    }

    /// Whether this report is about the order that is out and still worked on: only that can be
    /// parked.
    pub fn is_worked_on(&self, number: u64) -> bool {
        self.out.as_ref().is_some_and(|out| out.number == number && out.parked.is_none())
    }

    /// Issues the next order, in place of whatever was out.
    pub fn issue(&mut self, order: O) {
        self.issued += 1;
        self.out = Some(Outstanding { number: self.issued, order, parked: None });
    }

    /// The world has done it, or it was given up.
    pub fn settle(&mut self) {
        self.out = None;
    }

    /// Given up until a person decides.
    pub fn park(&mut self, reason: String) {
        if let Some(out) = &mut self.out {
            out.parked = Some(reason);
        }
    }

    /// Back to work, under the same key: what was half done is found again.
    pub fn retry(&mut self) {
        if let Some(out) = &mut self.out {
            out.parked = None;
        }
    }
}

impl<O: PartialEq> Orders<O> {
    /// Whether this is the order that is out.
    pub fn has_out(&self, order: &O) -> bool {
        self.out.as_ref().is_some_and(|out| out.order == *order)
    }

    /// Whether this report is about the order that is out, and that is this one.
    pub fn is_out_as(&self, number: u64, order: &O) -> bool {
        self.is_out(number) && self.has_out(order)
    }
}
