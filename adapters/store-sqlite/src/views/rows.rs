//! Rows in and out of SQLite.

use std::collections::HashMap;

use adapters_store_kit::views::{Batch, LIVE, Sql, SqlValue, Table, Version};
use domain::log::Position;
use projections::view::Value;
use rusqlite::{
    Connection, ToSql,
    types::{ToSqlOutput, Type, Value as SqliteValue, ValueRef},
};

/// Ends versions and adds new ones. The caller's transaction.
///
/// A row that goes on as another version stays where it is: only what differs is written, so only
/// the indexes of those columns are. What it was becomes a closed version of its own.
pub(super) fn write(connection: &Connection, table: &Table, batch: Batch) -> rusqlite::Result<()> {
    let name = table.name();
    let mut ends: HashMap<&str, (Position, Position)> =
        batch.closes.iter().map(|(key, from, to)| (key.as_str(), (*from, *to))).collect();
    let statements = Statements::of(table);
    let mut insert = connection.prepare_cached(&statements.insert)?;
    let mut insert_body = connection.prepare_cached(&statements.insert_body)?;
    for version in &batch.inserts {
        let ended = version.to.is_none().then(|| ends.remove(version.key.as_str())).flatten();
        if let Some((from, to)) = ended {
            go_on(connection, table, &statements, version, from, to)?;
            continue;
        }
        insert.raw_bind_parameter(1, &version.key)?;
        insert.raw_bind_parameter(2, version.from as i64)?;
        insert.raw_bind_parameter(3, version.to.map_or(LIVE, |to| to as i64))?;
        for (place, value) in version.columns.iter().enumerate() {
            insert.raw_bind_parameter(place + 4, Bound(borrowed(value)))?;
        }
        insert.raw_execute()?;
        insert_body.raw_bind_parameter(1, connection.last_insert_rowid())?;
        insert_body.raw_bind_parameter(2, &version.body)?;
        insert_body.raw_execute()?;
    }
    if !ends.is_empty() {
        let mut close = connection.prepare_cached(&format!(
            "UPDATE {name} SET to_position = ? WHERE key = ? AND from_position = ?"
        ))?;
        for (key, (from, to)) in ends {
            close.execute((to as i64, key, from as i64))?;
        }
    }
    Ok(())
}

/// Statements every batch needs.
struct Statements {
    insert: String,
    insert_body: String,
    find: String,
    copy_body: String,
    change_body: String,
}

impl Statements {
    fn of(table: &Table) -> Self {
        let name = table.name();
        let places = "?, ".repeat(table.columns.len() + 2);
        Self {
            insert: format!("INSERT INTO {name} VALUES (NULL, {places}?)"),
            insert_body: format!("INSERT INTO {name}_body VALUES (?, ?)"),
            find: format!("SELECT * FROM {name} WHERE key = ? AND from_position = ?"),
            copy_body: format!(
                "INSERT INTO {name}_body SELECT ?, body FROM {name}_body WHERE id = ?"
            ),
            change_body: format!("UPDATE {name}_body SET body = ? WHERE id = ?"),
        }
    }
}

/// Turns a live row into its next version, and keeps what it was.
fn go_on(
    connection: &Connection,
    table: &Table,
    statements: &Statements,
    version: &Version,
    from: Position,
    to: Position,
) -> rusqlite::Result<()> {
    let name = table.name();
    let mut find = connection.prepare_cached(&statements.find)?;
    let width = find.column_count();
    // The id, the key, from, to, the columns.
    let before: Vec<SqliteValue> = find.query_row((&version.key, from as i64), |row| {
        (0..width).map(|place| row.get(place)).collect()
    })?;
    let id = &before[0];

    let mut set = "from_position = ?1".to_owned();
    let mut values: Vec<ValueRef<'_>> = vec![ValueRef::Integer(version.from as i64)];
    for (place, (value, was)) in version.columns.iter().zip(&before[4..]).enumerate() {
        if borrowed(value) != ValueRef::from(was) {
            values.push(borrowed(value));
            set = format!("{set}, \"{}\" = ?{}", table.columns[place].name, values.len());
        }
    }
    values.push(ValueRef::from(id));
    let mut update = connection
        .prepare_cached(&format!("UPDATE {name} SET {set} WHERE id = ?{}", values.len()))?;
    for (place, value) in values.into_iter().enumerate() {
        update.raw_bind_parameter(place + 1, Bound(value))?;
    }
    update.raw_execute()?;

    let mut insert = connection.prepare_cached(&statements.insert)?;
    for (place, value) in before.iter().skip(1).enumerate() {
        insert.raw_bind_parameter(place + 1, Bound(ValueRef::from(value)))?;
    }
    insert.raw_bind_parameter(3, to as i64)?;
    insert.raw_execute()?;
    let closed = connection.last_insert_rowid();
    connection.prepare_cached(&statements.copy_body)?.execute((closed, id))?;
    connection.prepare_cached(&statements.change_body)?.execute((&version.body, id))?;
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
