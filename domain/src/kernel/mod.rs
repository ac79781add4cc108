//! What every kind shares.

mod canonical;
mod canonical_writer;
mod decider;
mod diff;
mod erased;
mod id;
mod order;
mod refusal;
mod role;

pub use canonical::{canonical_bytes, canonical_value, sha256, write_canonical};
pub use decider::{Caller, Companion, Decider, Facets, OnHost, Stamp, Verb};
pub use diff::fields;
pub use erased::{Decided, Kind, ReadState, State, Step, kind};
pub use id::{Id, StreamId};
pub use order::{OrderKey, Orders, Outstanding};
pub use refusal::{Code, REFUSALS, Refusal, codes};
pub use role::{Principal, Reach, Role};
