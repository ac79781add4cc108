//! Files that are whole or not there.

use std::path::{Path, PathBuf};

use tokio::fs;

use super::StorageFault;

/// The name that a file has while it is made: in the same folder, so that it can be renamed.
pub fn part(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// Gives a file that is whole its name, once it is on the medium. Whatever had the name is
/// replaced.
///
/// # Errors
/// The file system's.
pub async fn put_in_place(part: &Path, path: &Path) -> Result<(), StorageFault> {
    sync(part).await?;
    fs::rename(part, path).await.map_err(StorageFault::file("cannot rename to", path))?;
    sync_folder_of(path).await
}

/// A file may be read and written by whoever may read and write another one, and is as that one's owner's.
///
/// # Errors
/// The file system's.
pub async fn like(path: &Path, other: &Path) -> Result<(), StorageFault> {
    use std::os::unix::fs::MetadataExt as _;
    let fault = || StorageFault::file("cannot give to its owner", path);
    let of = fs::metadata(other).await.map_err(fault())?;
    let is = fs::metadata(path).await.map_err(fault())?;
    if (is.uid(), is.gid()) != (of.uid(), of.gid()) {
        let path = path.to_owned();
        let give = move || std::os::unix::fs::chown(path, Some(of.uid()), Some(of.gid()));
        let given = tokio::task::spawn_blocking(give).await;
        given.map_err(std::io::Error::other).and_then(|given| given).map_err(fault())?;
    }
    let mode = fs::metadata(other).await.map_err(fault())?.permissions();
    fs::set_permissions(path, mode).await.map_err(fault())
}

/// Removes a file; that it is not there is the same end.
///
/// # Errors
/// The file system's.
pub async fn remove(path: &Path) -> Result<(), StorageFault> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StorageFault::file("cannot remove", path)(error)),
        Ok(()) => sync_folder_of(path).await,
    }
}

/// Whether something has this name.
///
/// # Errors
/// The file system's.
pub async fn exists(path: &Path) -> Result<bool, StorageFault> {
    fs::try_exists(path).await.map_err(StorageFault::file("cannot look at", path))
}

/// Waits until a file or folder is on the medium.
///
/// # Errors
/// The file system's.
pub async fn sync(path: &Path) -> Result<(), StorageFault> {
    let fault = || StorageFault::file("cannot bring to the medium", path);
    fs::File::open(path).await.map_err(fault())?.sync_all().await.map_err(fault())
}

async fn sync_folder_of(path: &Path) -> Result<(), StorageFault> {
    match path.parent() {
        Some(folder) => sync(folder).await,
        None => Ok(()),
    }
}
