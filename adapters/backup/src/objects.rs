//! Where backups lie: bytes under keys.
//!
//! ```text
//! manifests/<disk>/<backup>           a backup that is whole
//! running/<backup>                    the mark of one that is being made
//! chunks/<name>/<upload>              what manifests consist of
//! condemned/<collection>              chunks that no manifest needed when that collection looked
//! images/<image>                      the file of an image that was uploaded
//! sets/<set>                          which backups are of one server at one moment, and what it was
//! ```

pub mod s3;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::fault::Fault;

/// An object as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// How large it is.
    pub bytes: u64,
    /// When it was last written, by the store's clock.
    pub modified: DateTime<Utc>,
}

/// A store of objects. What was put is seen by all that is asked afterwards: S3 promises that since
/// 2020, and what is said in `collect` needs it. Every call can be made again.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Puts an object in place, whatever was there.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), Fault>;
    /// Puts an object where there is none; false when there is one, which stays.
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<bool, Fault>;
    /// The object; none when there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, Fault>;
    /// How many bytes it has; none when there is none.
    async fn size(&self, key: &str) -> Result<Option<u64>, Fault>;
    /// All objects whose keys begin so, sorted by key.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Fault>;
    /// Removes an object; that there is none is the same end.
    async fn delete(&self, key: &str) -> Result<(), Fault>;
}
