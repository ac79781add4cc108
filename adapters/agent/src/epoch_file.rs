//! The last epoch that this machine's agent joined in.
//!
//! A server that was brought back from a backup has forgotten what came after it, and would begin an
//! epoch that was there already: its orders may be done, or undone, since. So an agent does not work in
//! an epoch that is not later than its last one, until a person has looked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// An epoch that cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum EpochFault {
    /// The file cannot be read or written.
    #[error("{}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server has forgotten an epoch.
    #[error(
        "the server begins epoch {given}, but this host was in epoch {had} already: it was set back, \
         for instance to a backup. Compare what it knows with what runs here, then remove {} and \
         start the agent again", file.display()
    )]
    SetBack {
        /// What the server says.
        given: u64,
        /// What was before.
        had: u64,
        /// What to remove.
        file: PathBuf,
    },
}

/// A file with the last epoch.
#[derive(Clone, Debug)]
pub struct EpochFile(PathBuf);

impl EpochFile {
    /// The file `epoch` of this folder, which is made.
    ///
    /// # Errors
    /// [`EpochFault::File`].
    pub fn within(folder: &Path) -> Result<Self, EpochFault> {
        let file = folder.join("epoch");
        fs::create_dir_all(folder)
            .map_err(|source| EpochFault::File { file: file.clone(), source })?;
        Ok(Self(file))
    }

    /// Begins an epoch, if it is later than the last.
    ///
    /// # Errors
    /// Any [`EpochFault`].
    pub fn begin(&self, epoch: u64) -> Result<(), EpochFault> {
        let fault = |source| EpochFault::File { file: self.0.clone(), source };
        let had = match fs::read_to_string(&self.0) {
            Ok(text) => text.trim().parse().map_err(|_| {
                fault(io::Error::new(io::ErrorKind::InvalidData, "it holds no epoch"))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(fault(error)),
        };
        if epoch <= had {
            return Err(EpochFault::SetBack { given: epoch, had, file: self.0.clone() });
        }
        // Beside it and renamed: a crash leaves the old or the new one.
        let beside = self.0.with_extension("new");
        let written = fs::File::create(&beside).and_then(|mut file| {
            io::Write::write_all(&mut file, format!("{epoch}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.0)
        });
        written.map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_begun_once_and_never_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = EpochFile::within(&folder.path().join("deeper")).unwrap();
        file.begin(1).unwrap();
        file.begin(4).unwrap();
        for given in [1, 4] {
            let fault = file.begin(given).unwrap_err();
            assert!(matches!(fault, EpochFault::SetBack { had: 4, .. }), "{fault}");
        }
        fs::write(&file.0, "rubbish").unwrap();
        assert!(matches!(file.begin(9), Err(EpochFault::File { .. })));
        fs::remove_file(&file.0).unwrap();
        file.begin(2).unwrap();
    }
}
