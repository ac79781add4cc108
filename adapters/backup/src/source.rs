//! What a disk is read from.

pub mod file;

use async_trait::async_trait;

use crate::fault::Fault;

/// A piece of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Nothing but zeroes, known without reading.
    Zero,
    /// As it was when the backup was taken that this one is made on, known without reading.
    Same,
    /// What is in it.
    Data(Vec<u8>),
}

/// A disk that does not change while it is read.
#[async_trait]
pub trait Source: Send + Sync {
    /// How large it is.
    fn size_bytes(&self) -> u64;
    /// A piece of it; `Same` only where the caller has something that it may be the same as.
    async fn piece(&self, at: u64, length: usize, may_be_same: bool) -> Result<Piece, Fault>;
}
