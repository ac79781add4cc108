//! Bills outside the log: what the clouds' files say, and where their lines are kept.
//!
//! The map: [`read`] turns a bill, CSV or Parquet, into [`domain::finops::line::Line`]s by a
//! [`Mapping`], which is data; lines that cannot be booked come as [`BadLine`]s and what is odd
//! but can be booked is counted as a [`Finding`]. [`Lake`] keeps lines in segments: Parquet files
//! that never change and are named by the hash of their bytes, so that the log needs to hold no
//! more than a name. Both stream: memory does not grow with the number of lines.
//!
//! What is not here: which bill is booked, corrected or closed. That is the log's.
#![warn(missing_docs)]

mod answers;
mod bill;
mod cube;
mod repeats;
mod segment;
mod store;

pub use answers::AnswerFolder;
pub use bill::{
    BadLine, Bill, BillFault, DataSet, Finding, Mapping, MappingFault, Opened, Rule, Source,
    Stated, Term, open, read,
};
pub use segment::{Lake, LakeFault, Lines, Options, Segment, SegmentWriter};
