//! Copies of segments: all of one, or nothing.

use std::mem;

use bytes::Bytes;
use clickhouse::{Row, error::Error};
use commands::ports::BillFault;
use domain::finops::{
    bill::{ByCurrency, Segment, Sums},
    cost::{Basis, Dimension},
    line::Line,
};
use serde::Deserialize;

use crate::{ClickHouse, schema::Schema, sql::Sql, unavailable};

/// Bytes that are sent at once.
const PIECE: usize = 1 << 20;
/// How the name of a table begins in which a copy is made.
const STAGING: &str = "staging_";
/// Hours after which a table like that is nobody's any more.
const ABANDONED_HOURS: &str = "24";

/// What a segment's copy comes to in one currency.
#[derive(Row, Deserialize)]
struct Copied {
    code: String,
    billed: String,
    effective: String,
    list: String,
    contracted: String,
    lines: u64,
}

impl ClickHouse {
    /// Removes tables of copies that broke off a day ago or longer.
    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        let left = Sql::of("SELECT name FROM system.tables WHERE database = ")
            .value(&self.schema.database)
            .and(" AND startsWith(name, ")
            .value(STAGING)
            .and(") AND metadata_modification_time < now() - INTERVAL ")
            .and(ABANDONED_HOURS)
            .and(" HOUR");
        for table in left.query(&self.client).fetch_all::<String>().await? {
            self.beside("DROP TABLE IF EXISTS ", &table).query(&self.client).execute().await?;
        }
        Ok(())
    }

    fn beside(&self, verb: &str, table: &str) -> Sql {
        Sql::of(verb).name(&self.schema.database).and(".").name(table)
    }

    /// Sees to it that a copy of the segment is there and comes to what its import said.
    pub(crate) fn copy(&self, segment: &Segment) -> Result<(), BillFault> {
        if segment.lines == 0 || self.comes_to(Schema::LINES, segment)? {
            return Ok(());
        }
        let chance = getrandom::u64().map_err(|fault| BillFault::Unavailable(fault.to_string()))?;
        let table = format!("{STAGING}{chance:016x}");
        let made = self.fill(&table, segment);
        let dropped = self.beside("DROP TABLE IF EXISTS ", &table).query(&self.client);
        let dropped = self.runtime.block_on(dropped.execute()).map_err(unavailable);
        made.and(dropped)
    }

    fn fill(&self, table: &str, segment: &Segment) -> Result<(), BillFault> {
        let run = |statement: Sql| {
            let statement = statement.query(&self.client);
            self.runtime.block_on(statement.execute()).map_err(unavailable)
        };
        run(self.beside("CREATE TABLE ", table).and(" AS ").table(&self.schema))?;
        let into = self.beside("INSERT INTO ", table).query(&self.client).sql_display().to_string();
        let columns = Schema::columns().query(&self.client).sql_display().to_string();
        let mut insert =
            self.client.insert_formatted_with(format!("{into} {columns} FORMAT RowBinary"));
        let (mut piece, mut month) = (Vec::with_capacity(PIECE + PIECE / 4), None);
        for line in self.behind.lines(&segment.digest)? {
            let line = line?;
            month = Some(line.month);
            encode(&line, &segment.digest, &mut piece);
            if piece.len() >= PIECE {
                let piece = Bytes::from(mem::take(&mut piece));
                self.runtime.block_on(insert.send(piece)).map_err(unavailable)?;
            }
        }
        self.runtime.block_on(insert.send(Bytes::from(piece))).map_err(unavailable)?;
        self.runtime.block_on(insert.end()).map_err(unavailable)?;
        let Some(month) = month.filter(|_| self.comes_to(table, segment).is_ok_and(|so| so)) else {
            let reason = "it does not come to what its import said".to_owned();
            return Err(BillFault::Damaged { digest: segment.digest.clone(), reason });
        };
        let replaced = Sql::of("ALTER TABLE ")
            .table(&self.schema)
            .and(" REPLACE PARTITION tuple(")
            .value(&month.to_string())
            .and(", ")
            .value(&segment.digest);
        run(replaced.and(") FROM ").name(&self.schema.database).and(".").name(table))
    }

    /// Whether a table's copy of the segment is the segment.
    fn comes_to(&self, table: &str, segment: &Segment) -> Result<bool, BillFault> {
        let mut asked = Sql::of("SELECT toString(currency) AS code");
        for name in ["billed", "effective", "list", "contracted"] {
            asked = asked.and(&format!(", toString(sum(toDecimal256({name}, 12))) AS {name}"));
        }
        let asked = asked.and(", count() AS lines FROM ");
        let asked = asked.name(&self.schema.database).and(".").name(table);
        let asked = asked.of_segments(&[segment]).and(" GROUP BY currency");
        let rows = asked.query(&self.client).fetch_all::<Copied>();
        let rows = self.runtime.block_on(rows).map_err(unavailable)?;
        let mut sums = ByCurrency::new();
        for row in &rows {
            let (Ok(currency), Ok(billed), Ok(effective), Ok(list), Ok(contracted)) = (
                row.code.clone().try_into(),
                row.billed.parse(),
                row.effective.parse(),
                row.list.parse(),
                row.contracted.parse(),
            ) else {
                return Ok(false);
            };
            sums.insert(currency, Sums { billed, effective, list, contracted });
        }
        let lines: u64 = rows.iter().map(|row| row.lines).sum();
        Ok(lines == segment.lines && sums == segment.sums)
    }
}

/// One row of the format `RowBinary`, in the order of [`Schema::columns`].
pub(crate) fn encode(line: &Line, segment: &str, into: &mut Vec<u8>) {
    text(segment, into);
    into.extend(line.number.to_le_bytes());
    for name in Dimension::PLAIN {
        text(&Dimension::Plain(name).of(line), into);
    }
    length(line.tags.len(), into);
    for (key, value) in &line.tags {
        text(key, into);
        text(value, into);
    }
    for basis in Basis::ALL {
        into.extend(basis.of(line).0.to_le_bytes());
    }
}

fn text(text: &str, into: &mut Vec<u8>) {
    length(text.len(), into);
    into.extend(text.as_bytes());
}

/// LEB128, unsigned.
fn length(mut length: usize, into: &mut Vec<u8>) {
    while length >= 0x80 {
        into.push((length as u8) | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
}
