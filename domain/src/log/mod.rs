//! The log's own facts: what a record is, how it is hashed, what can be proved about many.

mod merkle;
mod record;

pub use merkle::{Frontier, Hash, Node, empty_root, leaf_hash, node_hash};
pub use record::{Header, Position, Record, RecordFault, RequestStamp};
