//! The folder of segments.
//!
//! A segment's life: a writer fills `.segment-….part`, which it holds locked; `finish` makes it
//! durable and renames it to `<digest>.parquet`. From then on nobody writes to it. A writer that
//! is dropped takes its part along; that of a killed one is found unlocked by the next
//! [`Lake::open`] and removed.

mod columns;
mod reader;
mod writer;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
};

use domain::finops::line::Line;
use parquet::{errors::ParquetError, file::metadata::ParquetMetaData};
use sha2::{Digest, Sha256};

use crate::cube::Cubes;

pub(crate) use columns::{COLUMNS, Kind, blank};
pub use reader::Lines;
pub(crate) use reader::spans;
pub use writer::SegmentWriter;
pub(crate) use writer::{Part as PartFile, PlainPart};

/// How the name of a segment that is being written begins and ends.
const PART: (&str, &str) = (".segment-", ".part");

/// How a lake is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most bytes of cubes' columns in memory between questions.
    pub cache_bytes: usize,
    /// Keys of tags that have a column of their own in a cube that is made, for each million of
    /// lines; the others share one.
    pub promoted_tags: usize,
}

impl Default for Options {
    /// 512 MiB, what some ten million lines are asked of; 64 keys.
    fn default() -> Self {
        Self { cache_bytes: 512 << 20, promoted_tags: 64 }
    }
}

/// A folder of segments.
#[derive(Clone, Debug)]
pub struct Lake {
    folder: PathBuf,
    pub(crate) cubes: Arc<Cubes>,
}

/// Lines that were written and never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// SHA-256 of the file's bytes, in hex: its name.
    pub digest: String,
    /// How many lines it has.
    pub rows: u64,
    /// How long the file is.
    pub bytes: u64,
}

/// Why the lake did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LakeFault {
    /// The folder cannot be used.
    #[error("the lake's folder {} cannot be used", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A segment cannot be written.
    #[error("a segment cannot be written")]
    Unwritten(#[source] ParquetError),
    /// A line has what a segment's column cannot hold.
    #[error("line {line} cannot be kept: its {column} is out of range")]
    OutOfRange {
        /// The line's number.
        line: u64,
        /// The column.
        column: &'static str,
    },
    /// This is not how segments are called.
    #[error("{0:?} is not the digest of a segment")]
    NotADigest(String),
    /// There is no such segment.
    #[error("segment {0} is not in the lake")]
    Missing(String),
    /// It is there and cannot be read.
    #[error("segment {digest} cannot be read")]
    Unreadable {
        /// The segment.
        digest: String,
        /// Why.
        source: io::Error,
    },
    /// Its content is not what was written.
    #[error("segment {digest} is damaged: {reason}")]
    Damaged {
        /// The segment.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Lake {
    /// Opens the folder, makes it when it is missing, and removes what killed writers left.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, LakeFault> {
        Self::open_with(folder, Options::default())
    }

    /// The same, with other options than the usual ones.
    pub fn open_with(folder: impl Into<PathBuf>, options: Options) -> Result<Self, LakeFault> {
        let folder = folder.into();
        let made = fs::create_dir_all(&folder).and_then(|()| sweep(&folder));
        made.map_err(|source| LakeFault::Folder { folder: folder.clone(), source })?;
        Ok(Self { folder, cubes: Arc::new(Cubes::new(options)) })
    }

    /// Bytes of cubes' columns that are in memory now.
    pub fn cached_bytes(&self) -> usize {
        self.cubes.bytes()
    }

    /// Where the segments lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins a segment.
    pub fn writer(&self) -> Result<SegmentWriter, LakeFault> {
        SegmentWriter::new(&self.folder)
    }

    /// The lines of a segment, in the order in which they were written.
    ///
    /// The file is verified first: it is hashed faster than decoded, and a decoder that meets
    /// damage may panic or ask for all memory.
    pub fn lines(&self, digest: &str) -> Result<Lines, LakeFault> {
        let mut file = self.verified(digest)?;
        file.rewind()
            .map_err(|source| LakeFault::Unreadable { digest: digest.to_owned(), source })?;
        Lines::new(file, digest)
    }

    /// What is where in a segment. It must have been verified.
    pub(crate) fn layout(&self, digest: &str) -> Result<ParquetMetaData, LakeFault> {
        reader::layout(self.file(digest)?, digest)
    }

    /// Some lines of row groups, by their places in these, which are sorted. The segment must have
    /// been verified.
    pub(crate) fn rows(
        &self,
        digest: &str,
        layout: &ParquetMetaData,
        groups: &[(usize, Vec<usize>)],
    ) -> Result<Vec<Line>, LakeFault> {
        reader::rows(&self.file(digest)?, layout, digest, groups)
    }

    /// Whether the file is still what was written: reads all of it.
    pub fn verify(&self, digest: &str) -> Result<(), LakeFault> {
        self.verified(digest).map(drop)
    }

    pub(crate) fn verified(&self, digest: &str) -> Result<File, LakeFault> {
        let unreadable = |source| LakeFault::Unreadable { digest: digest.to_owned(), source };
        let mut file = self.file(digest)?;
        let (mut sha, mut piece) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut piece).map_err(unreadable)? {
                0 => break,
                read => sha.update(&piece[..read]),
            }
        }
        let found = hex(sha);
        if found == digest {
            return Ok(file);
        }
        let reason = format!("its bytes have the digest {found}");
        Err(LakeFault::Damaged { digest: digest.to_owned(), reason })
    }

    /// Where a segment lies, whether or not it is there; for other readers of Parquet.
    pub fn path(&self, digest: &str) -> Result<PathBuf, LakeFault> {
        let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if digest.len() != 64 || !digest.bytes().all(hex) {
            return Err(LakeFault::NotADigest(digest.to_owned()));
        }
        Ok(self.folder.join(format!("{digest}.parquet")))
    }

    pub(crate) fn file(&self, digest: &str) -> Result<File, LakeFault> {
        File::open(self.path(digest)?).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LakeFault::Missing(digest.to_owned()),
            _ => LakeFault::Unreadable { digest: digest.to_owned(), source },
        })
    }
}

/// Removes the parts that no writer holds.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(PART.0) || !name.ends_with(PART.1) {
            continue;
        }
        let gone = |fault: &io::Error| fault.kind() == io::ErrorKind::NotFound;
        let part = match File::open(entry.path()) {
            Err(fault) if gone(&fault) => continue,
            part => part?,
        };
        match part.try_lock() {
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(fault)) => return Err(fault),
            Ok(()) => {}
        }
        match fs::remove_file(entry.path()) {
            Err(fault) if !gone(&fault) => return Err(fault),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn hex(sha: Sha256) -> String {
    use std::fmt::Write;
    sha.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
