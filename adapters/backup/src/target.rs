//! What a backup is written back to.

use std::{
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use crate::fault::Fault;

/// A disk that reads as zeroes and that nobody else writes.
#[async_trait]
pub trait Target: Send + Sync {
    /// How large it is.
    fn size_bytes(&self) -> u64;
    /// Writes a piece.
    async fn write(&self, at: u64, bytes: Vec<u8>) -> Result<(), Fault>;
    /// Waits until all that was written is on the medium.
    async fn flush(&self) -> Result<(), Fault>;
}

/// A new raw file. What is not written stays a hole.
#[derive(Debug)]
pub struct RawFile {
    path: PathBuf,
    file: Arc<std::fs::File>,
    size_bytes: u64,
}

impl RawFile {
    /// Makes the file, which nothing may have the name of.
    ///
    /// # Errors
    /// There is one, or the file system's.
    pub async fn create(path: &Path, size_bytes: u64) -> Result<Self, Fault> {
        let fault = || Fault::disk(format!("cannot make {}", path.display()));
        let file = tokio::fs::File::create_new(path).await.map_err(fault())?;
        file.set_len(size_bytes).await.map_err(fault())?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file.into_std().await), size_bytes })
    }

    async fn with(
        &self,
        work: impl FnOnce(&std::fs::File) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), Fault> {
        let file = Arc::clone(&self.file);
        let done = tokio::task::spawn_blocking(move || work(&file)).await;
        let done = done.map_err(std::io::Error::other).and_then(|done| done);
        done.map_err(Fault::disk(format!("cannot write {}", self.path.display())))
    }
}

#[async_trait]
impl Target for RawFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn write(&self, at: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        self.with(move |file| file.write_all_at(&bytes, at)).await
    }

    async fn flush(&self) -> Result<(), Fault> {
        self.with(std::fs::File::sync_all).await
    }
}
