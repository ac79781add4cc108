//! Read models, as they are asked.

use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::{kernel::Reach, log::Position};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::log::LogFault;

/// The value of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// Nothing; sorts first.
    Null,
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Text; sorts by its UTF-8 bytes.
    Text(String),
}

/// How a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// One of the values.
    In,
    /// None of the values; nothing counts as different.
    NotIn,
    /// Less than the first value.
    Less,
    /// Greater than the first value.
    Greater,
    /// Text that begins with the first value.
    Prefix,
    /// Text that contains the first value, letter case aside.
    Contains,
}

/// One condition. All of a query's conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filter {
    /// A column of the view, or `tags.<name>` or `state.<path>` into the row's body.
    pub column: String,
    /// How.
    pub op: Op,
    /// With what.
    pub values: Vec<Cell>,
}

/// One sort column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// A column of the view.
    pub column: String,
    /// Largest first.
    pub descending: bool,
}

/// What a reader asks of a view.
#[derive(Clone, Debug)]
pub struct Query {
    /// All must hold.
    pub filters: Vec<Filter>,
    /// At most two; the row's key is the last tie-break, ascending.
    pub order: Vec<Order>,
    /// 1…[`Query::LIMIT_MAX`].
    pub limit: usize,
    /// From the page before.
    pub token: Option<PageToken>,
    /// As the estate was at this position; none is now.
    pub at: Option<Position>,
    /// Whose rows: by the row's `project` column, as it was at `at`.
    pub reach: Reach,
}

impl Query {
    /// Most rows on a page.
    pub const LIMIT_MAX: usize = 1_000;

    /// The first hundred of everything, now.
    pub fn all() -> Self {
        Self {
            filters: Vec::new(),
            order: Vec::new(),
            limit: 100,
            token: None,
            at: None,
            reach: Reach::All,
        }
    }

    /// Adds `column = value`.
    #[must_use]
    pub fn with(mut self, column: &str, value: impl Into<Cell>) -> Self {
        self.filters.push(Filter {
            column: column.to_owned(),
            op: Op::In,
            values: vec![value.into()],
        });
        self
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<bool> for Cell {
    fn from(yes: bool) -> Self {
        Self::Boolean(yes)
    }
}
impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}
impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Where the next page begins, and at which position the whole listing is pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageToken {
    /// Every page of one listing is read at this position.
    pub at: Position,
    /// The sort columns of the last row of the page before.
    pub last: Vec<Cell>,
    /// Its key.
    pub key: String,
    /// Digest of filters, order and reach: a token fits only its own query.
    pub query: u64,
}

impl PageToken {
    /// As callers carry it.
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads what [`Self::encode`] made.
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// A row as it was for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The row's key in its view.
    pub key: String,
    /// The position that made it so.
    pub from: Position,
    /// The position that ended it; none while it is so.
    pub to: Option<Position>,
    /// The row itself, as the view writes it.
    pub body: Value,
}

/// Some rows, and where they are from.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// In the order that was asked for.
    pub rows: Vec<Row>,
    /// For the next page; none on the last.
    pub next: Option<PageToken>,
    /// The position they show.
    pub position: Position,
}

/// A row that differs between two moments.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The row's key.
    pub key: String,
    /// As it was; none when it was not there.
    pub before: Option<Value>,
    /// As it is; none when it is not there.
    pub after: Option<Value>,
}

/// All that differs between two moments, one page of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// By key.
    pub changes: Vec<Change>,
    /// The last key, when there are more: ask again with it.
    pub next: Option<String>,
}

/// What comparing a view with the log came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The view.
    pub view: String,
    /// Both were compared at this position.
    pub position: Position,
    /// Row versions, history included.
    pub rows: u64,
    /// Digest of the live rows, in hex.
    pub live: String,
    /// Digest of the rows made again from the log, in hex.
    pub replayed: String,
    /// The first row that differs, in the order of keys; none when the digests are equal.
    pub first_difference: Option<String>,
}

/// A view cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum ViewFault {
    /// The caller's mistake: an unknown view or column, a token of another query.
    #[error("{0}")]
    Query(String),
    /// The view has not seen the position within the time; it is catching up.
    #[error("the view is at position {position}, not yet at {wanted}")]
    Behind {
        /// Where it is.
        position: Position,
        /// Where it had to be.
        wanted: Position,
    },
    /// The store failed.
    #[error("the view's store failed")]
    Store(#[from] LogFault),
}

/// All the views of one store.
#[async_trait]
pub trait Views: Send + Sync + 'static {
    /// One page of a view or lens.
    async fn list(&self, view: &str, query: &Query) -> Result<Page, ViewFault>;
    /// How many rows match, counted up to a bound.
    async fn count(&self, view: &str, query: &Query, bound: u64) -> Result<u64, ViewFault>;
    /// One row, now or at a position.
    async fn get(
        &self,
        view: &str,
        key: &str,
        at: Option<Position>,
    ) -> Result<Option<Row>, ViewFault>;
    /// What differs between two positions, by key, after a key. A row counts when it matches the
    /// filters, and is in reach, at either moment; the side out of reach is left out.
    async fn diff(
        &self,
        view: &str,
        from: Position,
        to: Position,
        query: &Query,
        after_key: Option<&str>,
    ) -> Result<Difference, ViewFault>;
    /// How far a view has folded the log.
    async fn position(&self, view: &str) -> Result<Position, ViewFault>;
    /// Comes back when all views have folded this position, or with [`ViewFault::Behind`].
    async fn reach_position(&self, wanted: Position, patience: Duration) -> Result<(), ViewFault>;
    /// Builds a view anew beside the live one and switches; reads go on. Tells `progress` the
    /// position it has reached.
    async fn rebuild(
        &self,
        view: &str,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<(), ViewFault>;
    /// Folds the whole log again with this many threads, and compares digests with the live rows.
    async fn verify(
        &self,
        view: &str,
        threads: usize,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<Verified, ViewFault>;
}
