//! The log's own facts: what a record is, how it is hashed, what can be proved about many.

mod export;
mod merkle;
mod note;
mod proof;
mod record;
mod verify;
mod witness;

pub use export::{EXPORT_FORMAT, EXPORT_LINE_BYTES_MAX, ExportLine};
pub use merkle::{Frontier, Hash, Node, empty_root, leaf_hash, node_hash};
pub use note::{Check, NoteFault, Sign, SignedHead, TreeHead, VerifierKey, hash_from_hex, hex};
pub use proof::{
    Fetch, Span, consistency_spans, inclusion_spans, verify_consistency, verify_inclusion,
};
pub use record::{Header, Position, Record, RecordFault, RequestStamp};
pub use verify::{Finding, Signature, Tampering, Verdict, Verifier};
pub use witness::{Tag, WitnessChain, WitnessEntry, Witnessed};
