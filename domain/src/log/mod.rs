//! The log's own facts: what a record is, how it is hashed, what can be proved about many.

mod merkle;
mod note;
mod proof;
mod record;

pub use merkle::{Frontier, Hash, Node, empty_root, leaf_hash, node_hash};
pub use note::{Check, NoteFault, Sign, SignedHead, TreeHead, VerifierKey, hash_from_hex, hex};
pub use proof::{
    Fetch, Span, consistency_spans, inclusion_spans, verify_consistency, verify_inclusion,
};
pub use record::{Header, Position, Record, RecordFault, RequestStamp};
