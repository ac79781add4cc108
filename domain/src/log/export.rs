//! A whole log as lines of canonical JSON: what `skyledger export` writes and `import` and
//! `audit verify` read.
//!
//! 1. `{"format":"skyledger-export/1","origin":…,"size":…}`
//! 2. one line a record: [`Record::to_json`] and `leaf`, its leaf hash in hex;
//! 3. `{"head":…}`: the signed head over exactly these records, as [`SignedHead`]'s text.
//!
//! A line is accepted only in the very bytes that are written here: an export is evidence.

use serde_json::{Value, json};

use super::{
    merkle::Hash,
    note::{SignedHead, hash_from_hex, hex},
    record::Record,
};
use crate::kernel::canonical_value;

/// Name and version of the format.
pub const EXPORT_FORMAT: &str = "skyledger-export/1";
/// Longest line, in bytes: a megabyte of data, every byte of it escaped in six, and the header.
pub const EXPORT_LINE_BYTES_MAX: usize = 8 << 20;

/// One line of an export.
#[derive(Clone, Debug)]
pub enum ExportLine {
    /// The first.
    Header {
        /// The log's name.
        origin: String,
        /// How many records follow.
        size: u64,
    },
    /// One record.
    Record {
        /// As it reads.
        record: Record,
        /// The leaf hash the line states.
        leaf: Hash,
    },
    /// The last.
    Head(SignedHead),
}

impl ExportLine {
    /// The line of a record.
    pub fn record(record: &Record) -> Self {
        Self::Record { record: record.clone(), leaf: record.leaf() }
    }

    /// As it is written, without the line feed.
    pub fn bytes(&self) -> Vec<u8> {
        canonical_value(&match self {
            Self::Header { origin, size } => {
                json!({"format": EXPORT_FORMAT, "origin": origin, "size": size})
            }
            Self::Record { record, leaf } => {
                let mut value = record.to_json();
                value["leaf"] = Value::String(hex(leaf));
                value
            }
            Self::Head(signed) => json!({"head": signed.to_string()}),
        })
    }

    /// Reads one line; else says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        if line.len() > EXPORT_LINE_BYTES_MAX {
            return Err("the line is too long");
        }
        let value: Value = serde_json::from_slice(line).map_err(|_| "the line is not JSON")?;
        let read = if let Some(format) = value.get("format") {
            if format != EXPORT_FORMAT {
                return Err("the format is not known");
            }
            Self::Header {
                origin: value["origin"].as_str().ok_or("the origin is missing")?.to_owned(),
                size: value["size"].as_u64().ok_or("the size is missing")?,
            }
        } else if let Some(head) = value.get("head") {
            let text = head.as_str().ok_or("the head is not a note")?;
            Self::Head(text.parse().map_err(|_| "the head is not a note")?)
        } else {
            Self::Record {
                record: Record::from_json(&value).map_err(|_| "the record does not read")?,
                leaf: value["leaf"]
                    .as_str()
                    .and_then(hash_from_hex)
                    .ok_or("the leaf hash is missing")?,
            }
        };
        if read.bytes() == line { Ok(read) } else { Err("the line is not as it was written") }
    }
}
