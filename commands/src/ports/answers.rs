//! Answers to reports: how they are written, and where they are kept.

use domain::finops::{amount::Amount, report::Format};
use serde::Serialize;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Amounts.
    Amounts,
    /// Whole numbers.
    Counts,
    /// Texts.
    Texts,
}

/// One value; its column says of what sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// Of an amount's column.
    Amount(Amount),
    /// Of a count's.
    Count(u64),
    /// None.
    Nothing,
    /// Of a text's.
    Text(String),
}

/// An answer before it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerTable {
    /// Names, and what they hold.
    pub columns: Vec<(String, Holds)>,
    /// As long as the columns, each.
    pub rows: Vec<Vec<Value>>,
}

/// An answer cannot be written, kept or found.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AnswerFault(pub String);

/// Writes and keeps answers. Blocks the thread.
pub trait Answers: Send + Sync {
    /// The bytes of a table: the same for the same table and format.
    fn write(&self, table: &AnswerTable, format: Format) -> Result<Vec<u8>, AnswerFault>;
    /// Keeps bytes, durably, and gives their SHA-256 in hexadecimal.
    fn keep(&self, bytes: &[u8]) -> Result<String, AnswerFault>;
    /// The bytes of this digest; none when they are not kept here.
    fn kept(&self, digest: &str) -> Result<Option<Vec<u8>>, AnswerFault>;
}
