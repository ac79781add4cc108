//! The cloud's file: what outlives a process, and what two processes share.
//!
//! A change is on the file before its call is answered: written whole beside it, then renamed, so
//! that a reader never sees half of it. A lock file puts the processes in turn, and each reads
//! again what another has written.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::world::World;

/// What tells one writing from the next.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    written: SystemTime,
    bytes: u64,
    node: u64,
}

impl Mark {
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let about = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            about => about?,
        };
        #[cfg(unix)]
        let node = std::os::unix::fs::MetadataExt::ino(&about);
        #[cfg(not(unix))]
        let node = 0;
        Ok(Some(Self { written: about.modified()?, bytes: about.len(), node }))
    }
}

/// A file that a cloud lives on.
#[derive(Debug)]
pub(crate) struct Shared {
    path: PathBuf,
    lock: File,
    read: Option<Mark>,
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Writes a world whole, or not at all.
pub(crate) fn save(path: &Path, world: &impl Serialize) -> io::Result<()> {
    let new = beside(path, &format!(".{}.new", std::process::id()));
    fs::write(&new, serde_json::to_vec(world)?)?;
    fs::rename(&new, path)
}

/// Reads what [`save`] wrote.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

impl Shared {
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(beside(path, ".lock"))?;
        Ok(Self { path: path.to_owned(), lock, read: None })
    }

    /// Works on the world as the file has it, alone; what was done is on the file afterwards.
    pub(crate) fn turn<T>(
        &mut self,
        world: &mut World,
        work: impl FnOnce(&mut World) -> (T, bool),
    ) -> io::Result<T> {
        self.lock.lock()?;
        let result = self.locked(world, work);
        self.lock.unlock()?;
        result
    }

    fn locked<T>(
        &mut self,
        world: &mut World,
        work: impl FnOnce(&mut World) -> (T, bool),
    ) -> io::Result<T> {
        let there = Mark::of(&self.path)?;
        if there.is_some() && there != self.read {
            *world = load(&self.path)?;
            self.read = there;
        }
        let (result, changed) = work(world);
        if changed || self.read.is_none() {
            save(&self.path, world)?;
            self.read = Mark::of(&self.path)?;
        }
        Ok(result)
    }
}
