//! Small files that are there whole or not at all, and that only their owner reads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A key file cannot be used. The text names the file, never its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// It cannot be read or written.
    #[error("{path} cannot be used")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("{path} is readable by others: its mode is {mode:o}, it must be 600")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its content is not what it must be.
    #[error("{path} does not read: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The operating system gives no random bytes.
    #[error("no random bytes")]
    Random(#[source] io::Error),
}

impl KeyFault {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn content(path: &Path, reason: &'static str) -> Self {
        Self::Content { path: path.to_owned(), reason }
    }
}

/// Random bytes for a key.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|fault| io::Error::other(fault.to_string()))?;
    Ok(bytes)
}

/// Makes a rename or a new file in this folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates a file that is not there yet: whole, durable, mode 0600. Of two processes that do it at
/// once one wins, and the other is told so (`AlreadyExists`).
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let unique = random::<8>()?;
    let draft = path.with_extension(format!("{:016x}.new", u64::from_be_bytes(unique)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        // A link fails where a rename would put itself in the place of another's key.
        fs::hard_link(&draft, path)
    })();
    let _ = fs::remove_file(&draft);
    written?;
    sync_folder(folder)
}

/// Reads a secret file, which only its owner may read.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, KeyFault> {
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(KeyFault::io(path))?,
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFault::Open { path: path.to_owned(), mode });
    }
    fs::read(path).map(Some).map_err(KeyFault::io(path))
}
