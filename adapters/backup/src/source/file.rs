//! A file that holds a disk's bytes and nothing else. Its holes are not read.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

use super::{Piece, Source};
use crate::fault::Fault;

/// A raw file.
#[derive(Debug)]
pub struct RawFile {
    path: PathBuf,
    file: Arc<File>,
    size_bytes: u64,
}

impl RawFile {
    /// The file, opened for reading.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn open(path: &Path) -> Result<Self, Fault> {
        let fault = || Fault::disk(format!("cannot open {}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(fault())?;
        let size_bytes = file.metadata().await.map_err(fault())?.len();
        let file = Arc::new(file.into_std().await);
        Ok(Self { path: path.to_owned(), file, size_bytes })
    }
}

/// A piece of a file; none where it is a hole.
fn read(file: &File, at: u64, length: usize) -> io::Result<Option<Vec<u8>>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) if data >= at + length as u64 => return Ok(None),
        // Nothing but a hole to the end.
        Err(Errno::NXIO) => return Ok(None),
        // A file system that knows no holes says so, and all of it is read.
        Ok(_) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(Some(bytes))
}

#[async_trait]
impl Source for RawFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn piece(&self, at: u64, length: usize, _: bool) -> Result<Piece, Fault> {
        let file = Arc::clone(&self.file);
        let read = tokio::task::spawn_blocking(move || read(&file, at, length)).await;
        let read = read.map_err(io::Error::other).and_then(|read| read);
        let read = read.map_err(Fault::disk(format!("cannot read {}", self.path.display())))?;
        Ok(read.map_or(Piece::Zero, Piece::Data))
    }
}
