//! The witness file: one line a published head, appended and never rewritten.
//!
//! A crash in the middle of a write leaves a torn tail: a last line without its end, or one with a
//! hole of zero bytes where pages were not written. It was never acknowledged; opening cuts it off
//! and says so. Anything else that does not read is damage, and opening fails naming the line.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use domain::log::{Check, VerifierKey, WitnessChain, WitnessEntry, Witnessed};

use super::files::sync_folder;

/// Longest line, in bytes: an entry of [`WitnessEntry::RECORDS_MAX`] records and its note.
const LINE_BYTES_MAX: u64 = 2 << 20;

/// The witness file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WitnessFileFault {
    /// It cannot be read or written.
    #[error("the witness file {path} cannot be used")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry is not what was written. Restore the file from a copy; do not delete it.
    #[error("line {line} of the witness file {path} is damaged: {reason}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Why.
        reason: &'static str,
    },
}

/// The file, open for appending.
pub struct WitnessFile {
    path: PathBuf,
    file: File,
    /// Up to here entries are whole and durable.
    length: u64,
    chain: WitnessChain,
}

impl WitnessFile {
    /// Opens it, or makes it empty, and checks every entry: its sum, its signature, its root, and
    /// that it follows. A torn tail is cut off.
    pub fn open(path: &Path, key: &VerifierKey, check: Check) -> Result<Self, WitnessFileFault> {
        let io = |source| WitnessFileFault::Io { path: path.to_owned(), source };
        let there = path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io)?;
        // Two writers would tear each other's entries.
        file.try_lock().map_err(|busy| io(busy.into()))?;
        if !there {
            sync_folder(
                path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
            )
            .map_err(io)?;
        }
        let mut chain = WitnessChain::default();
        let length = scan(path, &file, |entry| chain.accept(&entry, Some((key, check))))?;
        let end = file.metadata().map_err(io)?.len();
        if end > length {
            tracing::warn!(
                path = %path.display(), bytes = end - length,
                "cut a torn tail off the witness file"
            );
            file.set_len(length).and_then(|()| file.sync_all()).map_err(io)?;
        }
        Ok(Self { path: path.to_owned(), file, length, chain })
    }

    /// How far it goes.
    pub fn chain(&self) -> &WitnessChain {
        &self.chain
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry that must follow; durable when it comes back. After a failure the file is
    /// as it was before, or has a torn tail that the next append overwrites.
    pub fn append(&mut self, entry: &WitnessEntry) -> Result<(), WitnessFileFault> {
        let mut chain = self.chain.clone();
        chain.accept(entry, None).map_err(|reason| WitnessFileFault::Damaged {
            path: self.path.clone(),
            line: 0,
            reason,
        })?;
        let line = format!("{}\n", entry.line());
        let written = (|| {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            self.file.write_all(line.as_bytes())?;
            self.file.sync_data()
        })();
        written.map_err(|source| WitnessFileFault::Io { path: self.path.clone(), source })?;
        self.length += line.len() as u64;
        self.chain = chain;
        Ok(())
    }
}

/// Reads a witness file as an auditor does: nothing is changed, a torn tail is left out.
pub fn read_witness(
    path: &Path,
    key: Option<(&VerifierKey, Check)>,
) -> Result<Witnessed, WitnessFileFault> {
    let file = File::open(path)
        .map_err(|source| WitnessFileFault::Io { path: path.to_owned(), source })?;
    let mut witnessed = Witnessed::default();
    scan(path, &file, |entry| witnessed.accept(entry, key))?;
    Ok(witnessed)
}

/// Every entry in turn; gives back where the good ones end.
fn scan(
    path: &Path,
    file: &File,
    mut accept: impl FnMut(WitnessEntry) -> Result<(), &'static str>,
) -> Result<u64, WitnessFileFault> {
    let io = |source| WitnessFileFault::Io { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut length, mut number, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        let read =
            (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(io)? as u64;
        number += 1;
        let last = reader.fill_buf().map_err(io)?.is_empty();
        let whole = line.pop_if(|byte| *byte == b'\n').is_some();
        if last && !whole {
            // Also the regular end, where nothing was read.
            return Ok(length);
        }
        match WitnessEntry::parse(&line).and_then(&mut accept) {
            Ok(()) => length += read,
            // JSON holds no zero byte: they are pages that were never written.
            Err(_) if last && line.contains(&0) => return Ok(length),
            Err(reason) => {
                return Err(WitnessFileFault::Damaged {
                    path: path.to_owned(),
                    line: number,
                    reason,
                });
            }
        }
    }
}
