//! SQL in two dialects: what differs, and statements whose values are always bound.

use projections::view::{ColumnType, Value};

/// Which SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    pub(crate) fn column(self, column_type: ColumnType) -> &'static str {
        match (self, column_type) {
            (Self::Sqlite, ColumnType::Text) => "TEXT",
            (Self::Sqlite, _) => "INTEGER",
            // Compared by bytes, whatever the database's collation.
            (Self::Postgres, ColumnType::Text) => "TEXT COLLATE \"C\"",
            (Self::Postgres, ColumnType::Integer) => "BIGINT",
            (Self::Postgres, ColumnType::Boolean) => "BOOLEAN",
        }
    }

    pub(crate) fn bytes(self) -> &'static str {
        match self {
            Self::Sqlite => "BLOB",
            Self::Postgres => "BYTEA",
        }
    }

    /// SQLite has nothing first by itself.
    pub(crate) fn nulls_first(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " NULLS FIRST",
        }
    }

    pub(crate) fn direction(self, descending: bool) -> &'static str {
        match (self, descending) {
            (Self::Sqlite, false) => "",
            (Self::Sqlite, true) => " DESC",
            (Self::Postgres, false) => " NULLS FIRST",
            (Self::Postgres, true) => " DESC NULLS LAST",
        }
    }
}

/// A value on its way into a statement, or out of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SqlValue {
    /// Nothing.
    Null,
    /// SQLite has integers in its place.
    Boolean(bool),
    /// 64 bits.
    Integer(i64),
    /// UTF-8 without NUL.
    Text(String),
    /// Anything.
    Bytes(Vec<u8>),
}

/// One statement: its text holds names and placeholders, never a value of a caller.
#[derive(Clone, Debug)]
pub struct Sql {
    /// With `?1`… (SQLite) or `$1`… (PostgreSQL).
    pub text: String,
    /// Bound in order.
    pub values: Vec<SqlValue>,
    dialect: Dialect,
}

impl Sql {
    /// Begins a statement.
    pub fn new(dialect: Dialect, text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new(), dialect }
    }

    /// Adds text.
    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a placeholder for a value.
    pub fn bind(&mut self, value: impl Into<SqlValue>) -> &mut Self {
        self.values.push(value.into());
        self.text.push(if self.dialect == Dialect::Sqlite { '?' } else { '$' });
        self.text.push_str(&self.values.len().to_string());
        self
    }

    /// Adds placeholders for several, separated by commas.
    pub fn bind_all<T: Into<SqlValue>>(
        &mut self,
        values: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.push(", ");
            }
            self.bind(value);
        }
        self
    }
}

/// Text as both stores can hold it: PostgreSQL knows no NUL.
pub(crate) fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

impl From<Value> for SqlValue {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(yes) => Self::Boolean(yes),
            Value::Integer(number) => Self::Integer(number),
            Value::Text(text) => Self::Text(storable(text)),
        }
    }
}

impl From<&Value> for SqlValue {
    fn from(value: &Value) -> Self {
        value.clone().into()
    }
}

impl From<i64> for SqlValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u64> for SqlValue {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&str> for SqlValue {
    fn from(text: &str) -> Self {
        Self::Text(storable(text.to_owned()))
    }
}

impl From<Vec<u8>> for SqlValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// A column's value as a store gave it.
pub(crate) fn column_value(value: SqlValue, column_type: ColumnType) -> Value {
    match value {
        SqlValue::Integer(number) if column_type == ColumnType::Boolean => {
            Value::Boolean(number != 0)
        }
        SqlValue::Integer(number) => Value::Integer(number),
        SqlValue::Boolean(yes) => Value::Boolean(yes),
        SqlValue::Text(text) => Value::Text(text),
        SqlValue::Null | SqlValue::Bytes(_) => Value::Null,
    }
}
