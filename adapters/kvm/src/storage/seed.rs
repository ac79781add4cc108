//! The seed disk: a small file system with what a server reads at its first boot.
//!
//! FAT with the label `CIDATA`, which cloud-init looks for as well as for an ISO. Written here rather
//! than by a tool: equal files give equal bytes, and a host needs nothing more installed.

use std::{
    io::{Cursor, Write},
    path::Path,
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
