//! Rows in and out of SQLite.

use adapters_store_kit::views::{Batch, LIVE, Sql, SqlValue, Table};
use projections::view::Value;
use rusqlite::{
    Connection, ToSql,
    types::{ToSqlOutput, Type, ValueRef},
};

/// Ends versions and adds new ones. The caller's transaction.
pub(super) fn write(connection: &Connection, table: &Table, batch: Batch) -> rusqlite::Result<()> {
    let name = table.name();
    if !batch.closes.is_empty() {
        let mut close = connection.prepare_cached(&format!(
            "UPDATE {name} SET to_position = ? WHERE key = ? AND from_position = ?"
        ))?;
        for (key, from, to) in &batch.closes {
            close.execute((*to as i64, key, *from as i64))?;
        }
    }
    let places = "?, ".repeat(table.columns.len() + 3);
    let mut insert =
        connection.prepare_cached(&format!("INSERT INTO {name} VALUES ({places}?)"))?;
    for version in &batch.inserts {
        insert.raw_bind_parameter(1, &version.key)?;
        insert.raw_bind_parameter(2, version.from as i64)?;
        insert.raw_bind_parameter(3, version.to.map_or(LIVE, |to| to as i64))?;
        for (place, value) in version.columns.iter().enumerate() {
            insert.raw_bind_parameter(place + 4, Bound(borrowed(value)))?;
        }
        insert.raw_bind_parameter(version.columns.len() + 4, &version.body)?;
        insert.raw_execute()?;
    }
    Ok(())
}

/// The rows of a query.
pub(super) fn select(connection: &Connection, sql: &Sql) -> rusqlite::Result<Vec<Vec<SqlValue>>> {
    let mut statement = connection.prepare_cached(&sql.text)?;
    for (place, value) in sql.values.iter().enumerate() {
        let value = match value {
            SqlValue::Null => ValueRef::Null,
            SqlValue::Boolean(yes) => ValueRef::Integer(i64::from(*yes)),
            SqlValue::Integer(number) => ValueRef::Integer(*number),
            SqlValue::Text(text) => ValueRef::Text(text.as_bytes()),
            SqlValue::Bytes(bytes) => ValueRef::Blob(bytes),
        };
        statement.raw_bind_parameter(place + 1, Bound(value))?;
    }
    let width = statement.column_count();
    let mut rows = statement.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(width);
        for place in 0..width {
            values.push(match row.get_ref(place)? {
                ValueRef::Null => SqlValue::Null,
                ValueRef::Integer(number) => SqlValue::Integer(number),
                ValueRef::Text(text) => SqlValue::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => SqlValue::Bytes(bytes.to_vec()),
                ValueRef::Real(_) => {
                    let what = "a number with a point".to_owned();
                    return Err(rusqlite::Error::InvalidColumnType(place, what, Type::Real));
                }
            });
        }
        out.push(values);
    }
    Ok(out)
}

fn borrowed(value: &Value) -> ValueRef<'_> {
    match value {
        Value::Null => ValueRef::Null,
        Value::Boolean(yes) => ValueRef::Integer(i64::from(*yes)),
        Value::Integer(number) => ValueRef::Integer(*number),
        Value::Text(text) => ValueRef::Text(text.as_bytes()),
    }
}

struct Bound<'a>(ValueRef<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.0))
    }
}
