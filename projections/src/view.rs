//! What a view is: columns, the keys an event touches, and a fold.
//!
//! The rules that make views parallel, replayable and bit-identical:
//!
//! 1. [`View::keys`] looks at the record alone. So rows can be sharded by key and folded by any
//!    number of threads.
//! 2. [`View::fold`] sees one row and one record, and depends on nothing else.
//! 3. A row's columns and body are functions of its state, and [`View::read`] gives the state back
//!    from the body.

use std::{borrow::Cow, fmt::Write as _};

use domain::{kernel::sha256, log::Record};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8, compared by bytes.
    Text,
    /// 64 bits, signed.
    Integer,
    /// Yes or no.
    Boolean,
}

/// How lists find rows by a column. A text that makes groups is compared and sorted by its first
/// 128 bytes, one that finds rows or sorts them by its first 1,024: no index takes more, and a
/// row's body has the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// By looking at them.
    None,
    /// It has few values with many rows each: a status, a region. Lists filter by it and sort by
    /// something else, and what has none of them is a group as well.
    Groups,
    /// As [`Self::Groups`], but most rows have nothing, and nobody lists those.
    Sparse,
    /// It has many values with few rows each: an id in the cloud. Nobody lists those without.
    Finds,
}

/// A column that readers filter and sort by.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// In snake case, as in queries.
    pub name: &'static str,
    /// Its type.
    pub column_type: ColumnType,
    /// Whether lists find rows by it.
    pub indexing: Indexing,
    /// One sentence for documents.
    pub summary: &'static str,
}

/// The value of a column in one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Nothing.
    Null,
    /// For [`ColumnType::Boolean`].
    Boolean(bool),
    /// For [`ColumnType::Integer`].
    Integer(i64),
    /// For [`ColumnType::Text`].
    Text(String),
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Boolean(yes)
    }
}
impl From<Option<bool>> for Value {
    fn from(yes: Option<bool>) -> Self {
        yes.map_or(Self::Null, Self::Boolean)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// A row's state in memory.
pub trait RowState: Send + Sync {
    /// In the order of [`View::columns`].
    fn columns(&self) -> Vec<Value>;
    /// Canonical JSON; readers get it, and [`View::read`] reads it back.
    fn body(&self) -> Vec<u8>;
    /// A copy.
    fn boxed(&self) -> Box<dyn RowState>;
    /// For a view to find its own state type again.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// A record that does not fold: an event type this program does not know, or a row that does not
/// read. The view stops there and says so; nothing is skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{view} cannot fold the record at position {position}: {reason}")]
pub struct FoldFault {
    /// The view.
    pub view: &'static str,
    /// The record.
    pub position: u64,
    /// Why.
    pub reason: String,
}

/// Most bytes of a row's key. Ours are ids of resources, some with a region and a kind behind them,
/// and every index of a table has the key: PostgreSQL's entries end at some 2,700 bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// A key as stores have it: without NUL, which PostgreSQL does not know, and no longer than
/// [`KEY_BYTES_MAX`]. Of a longer one the beginning stays, and a digest tells it from others.
#[must_use]
pub fn stored_key(key: &str) -> Cow<'_, str> {
    let key = if key.contains('\0') {
        Cow::Owned(key.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(key)
    };
    if key.len() <= KEY_BYTES_MAX {
        return key;
    }
    let mut digest = String::from("~");
    for byte in sha256(key.as_bytes()) {
        let _ = write!(digest, "{byte:02x}");
    }
    let kept = key.floor_char_boundary(KEY_BYTES_MAX - digest.len());
    Cow::Owned(key[..kept].to_owned() + &digest)
}

/// One read model.
pub trait View: Send + Sync {
    /// In snake case; part of table names.
    fn name(&self) -> &'static str;
    /// Goes up when columns, keys or fold change; a new version is built beside the old.
    fn version(&self) -> u32;
    /// One sentence for documents.
    fn summary(&self) -> &'static str;
    /// What readers filter and sort by. A column named `project` decides who reaches a row; a view
    /// without one is for those who reach everything.
    fn columns(&self) -> &'static [Column];
    /// Columns by which lists are commonly sorted. The first changes rarely; groups have an index
    /// in its order.
    fn sort_columns(&self) -> &'static [&'static str];
    /// The rows this record touches. A key that is too long is folded as [`stored_key`] has it.
    fn keys(&self, record: &Record) -> Vec<String>;
    /// One row after one more record; none removes it.
    fn fold(
        &self,
        key: &str,
        row: Option<Box<dyn RowState>>,
        record: &Record,
    ) -> Result<Option<Box<dyn RowState>>, FoldFault>;
    /// A row's state from its body.
    fn read(&self, body: &[u8]) -> Result<Box<dyn RowState>, serde_json::Error>;
}

/// Another look at a view's rows: some of them, shown another way. It costs no storage and cannot
/// differ from its view.
#[derive(Clone, Copy)]
pub struct Lens {
    /// As in paths, in snake case.
    pub name: &'static str,
    /// One sentence for documents.
    pub summary: &'static str,
    /// The view it looks at.
    pub view: &'static str,
    /// Conditions every row must meet: column, and the value it must have or, for none, that it
    /// has any.
    pub only: &'static [(&'static str, Option<&'static str>)],
    /// The row as this reader wants it.
    pub show: fn(&serde_json::Value) -> serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_key_is_short_and_still_its_own() {
        let long = "é".repeat(KEY_BYTES_MAX);
        let other = format!("{long}!");
        for (key, same) in [("a", true), (&"k".repeat(KEY_BYTES_MAX), true), (&long, false)] {
            let stored = stored_key(key);
            assert!(stored.len() <= KEY_BYTES_MAX);
            assert_eq!(stored == key, same, "{}", key.len());
            assert_eq!(stored_key(&stored), stored, "stored again it stays");
        }
        assert_ne!(stored_key(&long), stored_key(&other));
        assert_eq!(stored_key("a\0b"), "a\u{fffd}b");
    }
}
