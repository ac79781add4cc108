//! How lines lie in ClickHouse, and what is asked of them.

use commands::ports::CostQuery;
use domain::finops::{
    bill::Segment,
    cost::{Basis, Dimension},
};

use crate::sql::Sql;

/// Dimensions with so many values that a dictionary for each part of the table is no gain.
const MANY: [&str; 5] = ["commitment", "invoice", "resource", "resource_name", "sku"];

/// The database, and which tags have a column of their own.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) database: String,
    pub(crate) tags: Vec<String>,
}

impl Schema {
    /// The table of lines.
    pub(crate) const LINES: &'static str = "bill_lines";

    /// Those tags, each once.
    pub(crate) fn new(database: &str, mut tags: Vec<String>) -> Self {
        tags.sort();
        tags.dedup();
        Self { database: database.to_owned(), tags }
    }

    /// The column of a tag that has one.
    pub(crate) fn tag_column(key: &str) -> String {
        format!("tags.{key}")
    }

    /// Makes what is missing. One partition for each month and segment: a segment is copied and
    /// replaced as a whole.
    pub(crate) fn statements(&self) -> Vec<Sql> {
        let mut table = Sql::of("CREATE TABLE IF NOT EXISTS ").table(self);
        table = table.and(" (segment LowCardinality(String), number UInt64");
        for name in Dimension::PLAIN {
            let kind = if MANY.contains(&name) { "String" } else { "LowCardinality(String)" };
            table = table.and(", ").name(name).and(" ").and(kind);
        }
        table = table.and(", tags Map(LowCardinality(String), String)");
        for basis in Basis::ALL {
            table = table.and(", ").name(basis.name()).and(" Decimal(38, 12)");
        }
        let table = table.and(
            ") ENGINE = MergeTree PARTITION BY (month, segment) \
             ORDER BY (sub_account, service, day, number)",
        );
        let database = Sql::of("CREATE DATABASE IF NOT EXISTS ").name(&self.database);
        let tags = self.tags.iter().map(|key| {
            Sql::of("ALTER TABLE ")
                .table(self)
                .and(" ADD COLUMN IF NOT EXISTS ")
                .name(&Self::tag_column(key))
                .and(" LowCardinality(String) MATERIALIZED tags[")
                .value(key)
                .and("]")
        });
        [database, table].into_iter().chain(tags).collect()
    }

    /// The columns that a copy is written into, in the order of [`crate::copy::encode`].
    pub(crate) fn columns() -> Sql {
        let mut columns = Sql::of("(segment, number");
        for name in Dimension::PLAIN {
            columns = columns.and(", ").and(name);
        }
        columns = columns.and(", tags");
        for basis in Basis::ALL {
            columns = columns.and(", ").and(basis.name());
        }
        columns.and(")")
    }

    /// What lines come to.
    pub(crate) fn question(&self, asked: &CostQuery, segments: &[&Segment]) -> Sql {
        let basis = asked.basis.name();
        let mut question = Sql::of("SELECT CAST([");
        for (index, dimension) in asked.groups.iter().enumerate() {
            question = question.and(if index == 0 { "toString(" } else { ", toString(" });
            question = question.dimension(self, dimension).and(")");
        }
        question = question.and("], 'Array(String)') AS keys, toString(currency) AS code");
        // Of 76 digits: nothing overflows on the way.
        for (sum, name) in [(basis.to_owned(), "amount"), (format!("abs({basis})"), "magnitude")] {
            question = question.and(&format!(", toString(sum(toDecimal256({sum}, 12))) AS {name}"));
        }
        question = question.and(", count() AS lines FROM ").table(self).of_segments(segments);
        for (dimension, filter) in &asked.filters {
            question = question.and(" AND (").condition(self, dimension, filter).and(")");
        }
        question = question.and(" GROUP BY currency");
        for dimension in &asked.groups {
            question = question.and(", ").dimension(self, dimension);
        }
        question
    }

    /// The values that lines have in a dimension.
    pub(crate) fn values(&self, dimension: &Dimension, segments: &[&Segment]) -> Sql {
        let values = Sql::of("SELECT DISTINCT toString(").dimension(self, dimension);
        values.and(") FROM ").table(self).of_segments(segments)
    }
}
