//! Rows in and out of PostgreSQL.

use adapters_store_kit::views::{Batch, LIVE, Sql, SqlValue, Table};
use commands::ports::LogFault;
use deadpool_postgres::{Object, Transaction};
use futures::pin_mut;
use projections::view::{ColumnType, Value};
use tokio_postgres::{
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use crate::connection::fault;

type Bound<'a> = &'a (dyn ToSql + Sync);

const NOTHING: Option<&str> = None;
const NO_NUMBER: Option<i64> = None;
const NO_ANSWER: Option<bool> = None;

/// Ends versions and adds new ones, in the caller's transaction.
pub(super) async fn write(
    transaction: &Transaction<'_>,
    table: &Table,
    batch: Batch,
) -> Result<(), LogFault> {
    let name = table.name();
    if !batch.closes.is_empty() {
        let keys: Vec<&str> = batch.closes.iter().map(|(key, ..)| key.as_str()).collect();
        let froms: Vec<i64> = batch.closes.iter().map(|(_, from, _)| *from as i64).collect();
        let ends: Vec<i64> = batch.closes.iter().map(|(.., to)| *to as i64).collect();
        let sql = format!(
            "UPDATE {name} AS t SET to_position = e.ends \
             FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS e (key, begins, ends) \
             WHERE t.key = e.key AND t.from_position = e.begins"
        );
        transaction.execute(&sql, &[&keys, &froms, &ends]).await.map_err(fault)?;
    }
    if batch.inserts.is_empty() {
        return Ok(());
    }
    let mut types = vec![Type::TEXT, Type::INT8, Type::INT8];
    types.extend(table.columns.iter().map(|column| match column.column_type {
        ColumnType::Text => Type::TEXT,
        ColumnType::Integer => Type::INT8,
        ColumnType::Boolean => Type::BOOL,
    }));
    types.push(Type::BYTEA);
    let sink = transaction
        .copy_in(&format!("COPY {name} FROM STDIN (FORMAT binary)"))
        .await
        .map_err(fault)?;
    let writer = BinaryCopyInWriter::new(sink, &types);
    pin_mut!(writer);
    for version in &batch.inserts {
        let from = version.from as i64;
        let to = version.to.map_or(LIVE, |to| to as i64);
        let mut values: Vec<Bound<'_>> = vec![&version.key, &from, &to];
        for (value, column) in version.columns.iter().zip(&table.columns) {
            values.push(match (value, column.column_type) {
                (Value::Text(text), _) => text,
                (Value::Integer(number), _) => number,
                (Value::Boolean(yes), _) => yes,
                (Value::Null, ColumnType::Text) => &NOTHING,
                (Value::Null, ColumnType::Integer) => &NO_NUMBER,
                (Value::Null, ColumnType::Boolean) => &NO_ANSWER,
            });
        }
        values.push(&version.body);
        writer.as_mut().write(&values).await.map_err(fault)?;
    }
    writer.as_mut().finish().await.map_err(fault)?;
    Ok(())
}

/// The rows of a query. Not a prepared statement: each is planned for its own values, and what
/// callers think of does not fill a server's memory.
pub(super) async fn select(client: &Object, sql: &Sql) -> Result<Vec<Vec<SqlValue>>, LogFault> {
    let values: Vec<(Bound<'_>, Type)> = sql
        .values
        .iter()
        .map(|value| match value {
            SqlValue::Null => (&NOTHING as Bound<'_>, Type::TEXT),
            SqlValue::Boolean(yes) => (yes as Bound<'_>, Type::BOOL),
            SqlValue::Integer(number) => (number as Bound<'_>, Type::INT8),
            SqlValue::Text(text) => (text as Bound<'_>, Type::TEXT),
            SqlValue::Bytes(bytes) => (bytes as Bound<'_>, Type::BYTEA),
        })
        .collect();
    let rows = client.query_typed(&sql.text, &values).await.map_err(fault)?;
    rows.iter().map(row_values).collect()
}

fn row_values(row: &tokio_postgres::Row) -> Result<Vec<SqlValue>, LogFault> {
    row.columns()
        .iter()
        .enumerate()
        .map(|(place, column)| {
            let value = match *column.type_() {
                Type::BOOL => {
                    row.try_get::<_, Option<bool>>(place).map(|v| v.map(SqlValue::Boolean))
                }
                Type::INT8 => {
                    row.try_get::<_, Option<i64>>(place).map(|v| v.map(SqlValue::Integer))
                }
                Type::TEXT => {
                    row.try_get::<_, Option<String>>(place).map(|v| v.map(SqlValue::Text))
                }
                _ => row.try_get::<_, Option<Vec<u8>>>(place).map(|v| v.map(SqlValue::Bytes)),
            };
            value.map(|value| value.unwrap_or(SqlValue::Null)).map_err(fault)
        })
        .collect()
}
