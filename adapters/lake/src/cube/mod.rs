//! The cost cube: what sums need of a segment's lines, by columns.
//!
//! ```text
//! <digest>.parquet   the record: every line, whole
//! <digest>.cube      made from it: a code for each text, packed integers for each cost
//! ```
//!
//! A cube is made while its segment is written, and again from the segment whenever it is missing,
//! torn, damaged or of another format: losing one costs time and nothing else. Its lines lie in
//! *slabs*, which have texts of their own, so that neither making nor asking one needs more memory
//! than a slab; and these in *chunks*, which are packed by themselves. A question reads the columns
//! it asks for, and those of the questions before are still in memory, as far as the cache goes.
//! Filters and groups are looked up once for each text, and then the lines are gone through by
//! their codes.
//!
//! What is not here: what costs mean. The same question asked of the lines one by one has the same
//! answer, to the last digit, and a test says so.

mod build;
mod cache;
mod column;
mod file;
mod merge;
mod origin;
mod packed;
mod plan;
mod scan;
mod texts;

use domain::finops::{cost::Dimension, line::Line};

pub(crate) use build::Builder;
pub(crate) use cache::Cubes;

/// What a dimension's texts are taken from.
enum Source {
    Text(fn(&Line) -> &str),
    /// Of the day: worked out once for each.
    Day,
    /// Of the month: worked out when it is another one.
    Month,
}

macro_rules! text {
    ($name:ident, $field:ident) => {
        (stringify!($name), Source::Text(|line| &line.$field))
    };
}

/// The columns of texts: every dimension but tags, sorted as [`Dimension::PLAIN`].
const DIMENSIONS: [(&str, Source); Dimension::PLAIN.len()] = [
    text!(billing_account, billing_account),
    text!(billing_mode, billing_mode),
    ("charge_category", Source::Text(|line| line.category.name())),
    text!(commitment, commitment),
    text!(commitment_status, commitment_status),
    ("currency", Source::Text(|line| line.currency.code())),
    ("day", Source::Day),
    text!(invoice, invoice),
    text!(issuer, issuer),
    ("month", Source::Month),
    ("quarter", Source::Month),
    text!(region, region),
    text!(resource, resource),
    text!(resource_name, resource_name),
    text!(resource_type, resource_type),
    text!(service, service),
    text!(service_category, service_category),
    text!(sku, sku),
    text!(sub_account, sub_account),
    text!(unit, unit),
    ("year", Source::Month),
];

/// How cubes are made. Other limits, other bytes, the same answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Lines of a chunk: what is held in memory of each bill that is being written.
    chunk_rows: u32,
    /// Lines of a slab: what one thread goes through in one go.
    slab_rows: u32,
    /// Bytes of texts in memory after which a slab ends before that.
    slab_texts: usize,
    /// Keys of tags that get a column of their own, slab by slab; the others share one.
    promoted: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { chunk_rows: 1 << 15, slab_rows: 1 << 20, slab_texts: 32 << 20, promoted: 64 }
    }
}

#[cfg(test)]
mod tests;
