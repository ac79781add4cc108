//! Object storage: what lies in a bucket, and the bytes of it.

use async_trait::async_trait;
use domain::finops::bill_source::File;
use futures::stream::BoxStream;

use super::{Access, DriverFault};

/// A bucket, and where it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Its region; the credential's own when there is none.
    pub region: Option<String>,
    /// Base URL in place of the provider's own.
    pub endpoint: Option<String>,
}

/// One page of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePage {
    /// What is on it, each with when it was written (RFC 3339).
    pub files: Vec<(File, String)>,
    /// Token of the next page; none on the last.
    pub next: Option<String>,
}

/// The bytes of a file, piece by piece. One that breaks off, or is not as long as was listed, ends
/// with a fault.
pub type Pieces = BoxStream<'static, Result<Vec<u8>, DriverFault>>;

/// A store of files, as S3 is one.
#[async_trait]
pub trait Files: Send + Sync {
    /// A page of the files whose keys begin with a prefix, by key.
    async fn list(
        &self,
        access: &Access,
        bucket: &Bucket,
        prefix: &str,
        page: Option<&str>,
    ) -> Result<FilePage, DriverFault>;
    /// A file, exactly as it was listed: [`DriverFault::Transient`] when it has changed since.
    async fn open(
        &self,
        access: &Access,
        bucket: &Bucket,
        file: &File,
    ) -> Result<Pieces, DriverFault>;
}
