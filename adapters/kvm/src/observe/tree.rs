//! The kernel's files: `/sys` and `/proc` of this machine, or a folder that looks like them.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::ObserveFault;

/// Highest number of a CPU that a list may name: the kernel is built for 8,192 at most.
const CPU_MAX: u32 = 65_535;

/// Where `sys` and `proc` lie.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Default for Tree {
    /// Those of this machine.
    fn default() -> Self {
        Self::at("/")
    }
}

impl Tree {
    /// Those in a folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file without the white space around it; none when it is not there, or when what it would
    /// tell of does not exist (a device without that ability answers so).
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn text(&self, path: &str) -> Result<Option<String>, ObserveFault> {
        match fs::read(self.root.join(path)) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(error) if absent(&error) => Ok(None),
            Err(source) => Err(ObserveFault::Read { path: path.to_owned(), source }),
        }
    }

    /// A file that is one decimal number.
    ///
    /// # Errors
    /// As [`Self::text`], and when it is no such number.
    pub fn number<T: FromStr>(&self, path: &str) -> Result<Option<T>, ObserveFault> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| nonsense(path, &text))
    }

    /// A file that is one hexadecimal number with `0x`.
    ///
    /// # Errors
    /// As [`Self::text`], and when it is no such number.
    pub fn hexadecimal(&self, path: &str) -> Result<Option<u32>, ObserveFault> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        u32::from_str_radix(digits, 16).map(Some).map_err(|_| nonsense(path, &text))
    }

    /// A file that is a list of CPUs, for instance `0-3,8`.
    ///
    /// # Errors
    /// As [`Self::text`], and when it is no such list.
    pub fn cpus(&self, path: &str) -> Result<Option<BTreeSet<u32>>, ObserveFault> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        cpu_list(&text).map(Some).ok_or_else(|| nonsense(path, &text))
    }

    /// The names in a folder, sorted; none when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn names(&self, path: &str) -> Result<Vec<String>, ObserveFault> {
        let fault = |source| ObserveFault::Read { path: path.to_owned(), source };
        let entries = match fs::read_dir(self.root.join(path)) {
            Ok(entries) => entries,
            Err(error) if absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(fault(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(fault)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// The last name of what a link points at; none when it is not there.
    pub fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// Where a path really lies, from the root; none when it is not there.
    pub fn real(&self, path: &str) -> Option<String> {
        let root = fs::canonicalize(&self.root).ok()?;
        let real = fs::canonicalize(self.root.join(path)).ok()?;
        Some(real.strip_prefix(root).ok()?.to_string_lossy().into_owned())
    }

    /// Whether it is there.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(Path::new(path)).exists()
    }
}

fn absent(error: &io::Error) -> bool {
    // ENXIO, ENODEV, EINVAL: the file is there, what it would tell of is not.
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || matches!(error.raw_os_error(), Some(6 | 19 | 22))
}

pub(super) fn nonsense(path: &str, text: &str) -> ObserveFault {
    let text = text.chars().take(80).collect();
    ObserveFault::Nonsense { path: path.to_owned(), text }
}

/// Reads `0-3,8`; none when it is something else. Nothing is an empty list.
pub fn cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to > CPU_MAX {
            return None;
        }
        cpus.extend(from..=to);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_read_or_are_refused() {
        let read = |text| cpu_list(text).map(|cpus| cpus.into_iter().collect::<Vec<_>>());
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("0-2,8,10-11"), Some(vec![0, 1, 2, 8, 10, 11]));
        for wrong in ["3-1", "a", "1-", "0-99999999", "-1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
