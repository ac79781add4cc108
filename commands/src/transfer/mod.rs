//! A whole log out and in again, with its proof; and the proofs that auditors ask for.
//!
//! - [`export`] writes a log as lines (the format is [`domain::log::ExportLine`]'s).
//! - [`import`] takes them over into an empty log, or goes on where one was broken off.
//! - [`verify`] checks them with neither server nor store.
//! - [`inclusion`], [`consistency`] and [`root_at`] prove single facts about a living log.

mod export;
mod import;
mod lines;
mod proofs;

pub use export::export;
pub use import::{Imported, import, verify};
pub use lines::{Lines, Sink, Source, Writer};
pub use proofs::{ConsistencyProof, InclusionProof, ProofFault, consistency, inclusion, root_at};

use domain::log::{Position, Verdict};

use crate::ports::LogFault;

/// A transfer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum TransferFault {
    /// The lines cannot be read or written.
    #[error("the export cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// The log failed.
    #[error("the log failed during the transfer")]
    Log(#[from] LogFault),
    /// The export does not verify; nothing was written.
    #[error("the export is refused: {0}")]
    Refused(Box<Verdict>),
    /// The log that is to take the records over holds others.
    #[error("the log is not empty and differs from the export at position {0}")]
    NotEmpty(Position),
    /// Somebody changed the export or the log while it was read.
    #[error("the export or the log changed during the transfer, at position {0}")]
    Changed(Position),
}
