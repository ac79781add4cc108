//! Statements in ClickHouse's dialect: a text and what stands in it.

use clickhouse::{Client, query::Query, sql::Identifier};
use commands::ports::{Cell, Filter, Op};
use domain::finops::{bill::Segment, cost::Dimension};

use crate::schema::Schema;

/// What stands in place of a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    Name(String),
    Text(String),
}

/// A statement that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sql {
    text: String,
    marks: Vec<Mark>,
}

impl Sql {
    /// One that begins so.
    pub(crate) fn of(text: &str) -> Self {
        Self::default().and(text)
    }

    /// More of it, without marks.
    pub(crate) fn and(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// A value.
    pub(crate) fn value(mut self, value: &str) -> Self {
        self.text.push('?');
        self.marks.push(Mark::Text(value.to_owned()));
        self
    }

    /// The name of a database, table or column.
    pub(crate) fn name(mut self, name: &str) -> Self {
        self.text.push('?');
        self.marks.push(Mark::Name(name.to_owned()));
        self
    }

    /// The table of lines.
    pub(crate) fn table(self, schema: &Schema) -> Self {
        self.name(&schema.database).and(".").name(Schema::LINES)
    }

    /// `(…, …)`.
    pub(crate) fn list<'a>(mut self, values: impl IntoIterator<Item = &'a str>) -> Self {
        self.text.push('(');
        for (index, value) in values.into_iter().enumerate() {
            self = if index == 0 { self } else { self.and(", ") }.value(value);
        }
        self.and(")")
    }

    /// Of these segments alone.
    pub(crate) fn of_segments(self, segments: &[&Segment]) -> Self {
        self.and(" WHERE segment IN ").list(segments.iter().map(|segment| segment.digest.as_str()))
    }

    /// What a line has in a dimension.
    pub(crate) fn dimension(self, schema: &Schema, dimension: &Dimension) -> Self {
        match dimension {
            Dimension::Plain(name) => self.name(name),
            Dimension::Tag(key) if schema.tags.contains(key) => self.name(&Schema::tag_column(key)),
            Dimension::Tag(key) => self.and("tags[").value(key).and("]"),
        }
    }

    /// The condition that a filter is; see [`is_told_by_the_engine`].
    pub(crate) fn condition(self, schema: &Schema, dimension: &Dimension, filter: &Filter) -> Self {
        let values: Vec<String> = filter.values.iter().map(text).collect();
        let first = || values.first().map_or("", String::as_str);
        match filter.op {
            Op::In | Op::NotIn if values.is_empty() => {
                self.and(if filter.op == Op::In { "0" } else { "1" })
            }
            Op::In | Op::NotIn => self
                .dimension(schema, dimension)
                .and(if filter.op == Op::In { " IN " } else { " NOT IN " })
                .list(values.iter().map(String::as_str)),
            Op::Less => {
                let known = self.dimension(schema, dimension).and(" != '' AND ");
                known.dimension(schema, dimension).and(" < ").value(first())
            }
            Op::Greater => self.dimension(schema, dimension).and(" > ").value(first()),
            Op::Prefix => {
                let whole = self.and("startsWith(toString(").dimension(schema, dimension);
                whole.and("), ").value(first()).and(")")
            }
            // Never asked: it becomes a list before.
            Op::Contains => self.and("0"),
        }
    }

    /// Ready to be sent.
    pub(crate) fn query(&self, client: &Client) -> Query {
        self.marks.iter().fold(client.query(&self.text), |query, mark| match mark {
            Mark::Name(name) => query.bind(Identifier(name)),
            Mark::Text(text) => query.bind(text.as_str()),
        })
    }
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Boolean(yes) => yes.to_string(),
        Cell::Integer(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
    }
}

/// Whether the engine decides this filter as it is meant. What letters are the same but for their
/// case differs between Unicode's versions, so that is decided here.
pub(crate) fn is_told_by_the_engine(filter: &Filter) -> bool {
    filter.op != Op::Contains
}

/// The values that a filter holds for, as a filter.
pub(crate) fn those_that_hold(filter: &Filter, values: Vec<String>) -> Filter {
    let values = values.into_iter().filter(|value| filter.holds(value));
    Filter { column: filter.column.clone(), op: Op::In, values: values.map(Cell::Text).collect() }
}
