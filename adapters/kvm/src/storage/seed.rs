//! The seed disk: a small file system with what a server reads at its first boot.
//!
//! FAT with the label `CIDATA`, which cloud-init looks for as well as for an ISO. Written here rather
//! than by a tool: equal files give equal bytes, and a host needs nothing more installed.

use std::{
    io::{Cursor, Read, Write},
    path::{Path, PathBuf},
};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use tokio::fs;

use super::{StorageFault, files};

/// Size of every seed in bytes: room for 64 KiB of userdata and as much again, several times.
pub const SIZE_BYTES: usize = 1 << 20;
/// The label, padded as FAT has it.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// The volume's serial number: the same in every seed, so that bytes depend on files alone.
const SERIAL: u32 = 0x5eed_0001;

/// Writes the bytes of a seed; `files` are names and contents.
///
/// # Errors
/// They do not fit, or a name is none.
pub fn image<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<u8>, StorageFault> {
    let mut bytes = vec![0; SIZE_BYTES];
    fill(&mut bytes, files).map_err(|error| StorageFault::Unfit(format!("seed: {error}")))?;
    Ok(bytes)
}

fn fill<'a>(
    bytes: &mut [u8],
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> std::io::Result<()> {
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(SERIAL);
    fatfs::format_volume(Cursor::new(&mut *bytes), options)?;
    // Without a clock of the host: every time in it is the beginning of FAT's calendar.
    let system = FileSystem::new(Cursor::new(&mut *bytes), FsOptions::new())?;
    for (name, content) in files {
        let mut file = system.root_dir().create_file(name)?;
        file.truncate()?;
        file.write_all(content.as_bytes())?;
        file.flush()?;
    }
    system.unmount()
}

/// The files of a seed, in the order in which they lie there.
fn files_of(bytes: &mut [u8]) -> std::io::Result<Vec<(String, String)>> {
    let system = FileSystem::new(Cursor::new(bytes), FsOptions::new())?;
    let mut files = Vec::new();
    for entry in system.root_dir().iter() {
        let entry = entry?;
        if entry.is_file() {
            let mut content = String::new();
            entry.to_file().read_to_string(&mut content)?;
            files.push((entry.file_name(), content));
        }
    }
    Ok(files)
}

/// Where a seed lies that is to be in the place of this one.
fn next(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".next");
    path.with_file_name(name)
}

/// Gives one file of a seed that is there other content, and leaves the others as they are. It stays the
/// same file: a machine that runs reads the new content when its guest restarts. When this is cut off, the
/// next time begins with the whole copy that lies beside it.
///
/// # Errors
/// As [`image`]; there is no seed, it does not read; and the file system's.
pub async fn replace(path: &Path, name: &str, content: &str) -> Result<(), StorageFault> {
    use tokio::io::AsyncWriteExt;
    let next = next(path);
    let whole = if files::exists(&next).await? { next.as_path() } else { path };
    let mut bytes = fs::read(whole).await.map_err(StorageFault::file("cannot read", whole))?;
    let unfit = |error| StorageFault::Unfit(format!("{}: {error}", whole.display()));
    let mut all = files_of(&mut bytes).map_err(unfit)?;
    let same = |(known, is): &(String, String)| known == name && is == content;
    if whole == path && all.iter().any(same) {
        return Ok(());
    }
    match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => content.clone_into(known),
        None => all.push((name.to_owned(), content.to_owned())),
    }
    let all: Vec<_> = all.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    write(&next, all.iter().copied()).await?;
    let fault = || StorageFault::file("cannot write", path);
    let mut file = fs::File::options().write(true).open(path).await.map_err(fault())?;
    file.write_all(&image(all)?).await.map_err(fault())?;
    file.sync_all().await.map_err(fault())?;
    files::remove(&next).await
}

/// Removes a seed, and what is left of one that was to be in its place.
///
/// # Errors
/// The file system's.
pub async fn remove(path: &Path) -> Result<(), StorageFault> {
    let next = next(path);
    for file in [&files::part(path), &files::part(&next), &next, path] {
        files::remove(file).await?;
    }
    Ok(())
}

/// Writes a seed to a path, readable by its owner alone: userdata may hold secrets. What was there
/// is replaced as a whole.
///
/// # Errors
/// As [`image`]; and the file system's.
pub async fn write<'a>(
    path: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<(), StorageFault> {
    use tokio::io::AsyncWriteExt;
    let bytes = image(files)?;
    if fs::read(path).await.is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let part = files::part(path);
    files::remove(&part).await?;
    let fault = || StorageFault::file("cannot write", &part);
    let mut options = fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(&part).await.map_err(fault())?;
    file.write_all(&bytes).await.map_err(fault())?;
    file.flush().await.map_err(fault())?;
    drop(file);
    files::put_in_place(&part, path).await
}
