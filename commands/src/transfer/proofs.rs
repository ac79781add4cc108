//! Proofs over a living log, as the API gives them.
//!
//! To check an inclusion proof without us: hash the record's frame to its leaf
//! (`SHA-256(0x00 ‖ frame)`), then follow RFC 9162 §2.1.3.2 with leaf index `position - 1`, tree
//! size `size` and `path`; the result must be `root`, and `root` must stand in a tree head of that
//! size signed with the key of `witness.pub`. A consistency proof is checked by RFC 9162 §2.1.4.2
//! against two such heads. Every hash is SHA-256 in lower-case hex.

use domain::log::{
    Frontier, Hash, Position, Span, consistency_spans, empty_root, hash_from_hex, hex,
    inclusion_spans, verify_consistency, verify_inclusion,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ports::{EventLog, LogFault};

/// That a record is in the log of a size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InclusionProof {
    /// The record: leaf `position - 1` of the tree.
    pub position: Position,
    /// Size of the tree, in records.
    pub size: u64,
    /// The record's leaf: SHA-256 of a zero byte and its frame, in hex.
    pub leaf: String,
    /// Root of the tree of this size, in hex.
    pub root: String,
    /// From the leaf up, each in hex.
    pub path: Vec<String>,
}

/// That a log only grew between two sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConsistencyProof {
    /// The earlier size, in records.
    pub from: u64,
    /// The later size, in records.
    pub to: u64,
    /// Root at the earlier size, in hex.
    pub from_root: String,
    /// Root at the later size, in hex.
    pub to_root: String,
    /// As RFC 9162 §2.1.4 orders it, each in hex.
    pub path: Vec<String>,
}

/// A proof cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProofFault {
    /// The caller asks for what is not there: a position or size of 0 or beyond the head, or a
    /// later size below the earlier.
    #[error("there is no such proof: {0}")]
    Range(String),
    /// The log failed, or the hashes it keeps do not fit each other.
    #[error("the log failed")]
    Log(#[from] LogFault),
}

fn hashes(path: &[String]) -> Option<Vec<Hash>> {
    path.iter().map(|hash| hash_from_hex(hash)).collect()
}

impl InclusionProof {
    /// Whether it proves what it says.
    pub fn verify(&self) -> bool {
        let (Some(leaf), Some(root), Some(path), Some(index)) = (
            hash_from_hex(&self.leaf),
            hash_from_hex(&self.root),
            hashes(&self.path),
            self.position.checked_sub(1),
        ) else {
            return false;
        };
        verify_inclusion(&leaf, index, self.size, &path, &root)
    }
}

impl ConsistencyProof {
    /// Whether it proves what it says.
    pub fn verify(&self) -> bool {
        let (Some(from_root), Some(to_root), Some(path)) =
            (hash_from_hex(&self.from_root), hash_from_hex(&self.to_root), hashes(&self.path))
        else {
            return false;
        };
        verify_consistency(self.from, &from_root, self.to, &to_root, &path)
    }
}

/// Proves that the record at a position is in the log as it was at a size.
pub async fn inclusion(
    log: &dyn EventLog,
    position: Position,
    size: u64,
) -> Result<InclusionProof, ProofFault> {
    within(log, size).await?;
    let spans = position
        .checked_sub(1)
        .and_then(|index| inclusion_spans(index, size))
        .ok_or_else(|| ProofFault::Range(format!("position {position} of {size} records")))?;
    let path = roots(log, spans).await?;
    let leaf = root(log, Span { start: position - 1, end: position }).await?;
    let root = root_at(log, size).await?;
    if !verify_inclusion(&leaf, position - 1, size, &path, &root) {
        return Err(misfit(position));
    }
    let path = path.iter().map(|hash| hex(hash)).collect();
    Ok(InclusionProof { position, size, leaf: hex(&leaf), root: hex(&root), path })
}

/// Proves that the log at the later size begins with the log at the earlier.
pub async fn consistency(
    log: &dyn EventLog,
    from: u64,
    to: u64,
) -> Result<ConsistencyProof, ProofFault> {
    within(log, to).await?;
    let spans = consistency_spans(from, to)
        .ok_or_else(|| ProofFault::Range(format!("{from} is more than {to}")))?;
    let path = roots(log, spans).await?;
    let (from_root, to_root) = (root_at(log, from).await?, root_at(log, to).await?);
    if !verify_consistency(from, &from_root, to, &to_root, &path) {
        return Err(misfit(from));
    }
    let path = path.iter().map(|hash| hex(hash)).collect();
    Ok(ConsistencyProof { from, to, from_root: hex(&from_root), to_root: hex(&to_root), path })
}

/// The root over the first `size` records: a few reads, however many there are. Where `size` is
/// the head's, it is compared with the head.
pub async fn root_at(log: &dyn EventLog, size: u64) -> Result<Hash, ProofFault> {
    let head = within(log, size).await?;
    let root = match size {
        0 => empty_root(),
        _ => root(log, Span { start: 0, end: size }).await?,
    };
    if size == head.size() && root != head.root() { Err(misfit(size)) } else { Ok(root) }
}

async fn within(log: &dyn EventLog, size: u64) -> Result<Frontier, ProofFault> {
    let head = log.head().await?;
    if size <= head.position {
        Ok(head.frontier)
    } else {
        Err(ProofFault::Range(format!("the log has {} records, not {size}", head.position)))
    }
}

fn misfit(position: Position) -> ProofFault {
    let reason = "the hashes the log keeps do not fit its records".to_owned();
    LogFault::Corrupt { position, reason }.into()
}

async fn roots(log: &dyn EventLog, spans: Vec<Span>) -> Result<Vec<Hash>, ProofFault> {
    let mut path = Vec::with_capacity(spans.len());
    for span in spans {
        path.push(root(log, span).await?);
    }
    Ok(path)
}

async fn root(log: &dyn EventLog, span: Span) -> Result<Hash, ProofFault> {
    let mut hashes = Vec::new();
    for fetch in span.fetches() {
        if fetch.level == 0 {
            let records = log.read(fetch.first, fetch.count as usize).await?;
            hashes.extend(records.iter().map(domain::log::Record::leaf));
        } else {
            hashes.extend(log.nodes(fetch.level, fetch.first, fetch.count).await?);
        }
    }
    span.root(&hashes).ok_or_else(|| misfit(span.start + 1))
}
