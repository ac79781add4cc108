//! Disks as files in a folder of the host, and in folders that it shares with others.
//!
//! ```text
//! <root>/disks/<disk id>.qcow2          a disk
//! <root>/disks/<disk id>.qcow2.part     one that is being made
//! <root>/placed/<disk id>.qcow2         leads to a file or device that was there before, and is a disk now
//! ```
//!
//! What was there before is never removed. It is written where a disk is: it is made larger, has snapshots,
//! and is made anew in its place, when somebody asks for that.
//!
//! Everything can be run again with the same end: what is there as it was to be is left alone, what
//! is there in another way is a fault and is left alone too. One disk is worked on by one caller at a
//! time: its order sees to that. A tool that outlived its caller writes into a `.part` that has lost
//! its name, which harms nobody.

use std::path::{Path, PathBuf};

use domain::compute::storage::StorageId;
use tokio::fs;
use uuid::Uuid;

use super::{
    StorageFault, files,
    qemu_img::{self, Format, Info},
    shared::Shared,
};

/// What a disk's size is a multiple of, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// What is known of a disk's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Which file.
    pub path: PathBuf,
    /// Its format, by its name and never by what is in it.
    pub format: Format,
    /// What a server sees, in bytes.
    pub size_bytes: u64,
    /// What it takes of the medium, in bytes: without its backing files.
    pub taken_bytes: u64,
    /// Its backing file, the one behind that, and so on.
    pub backing: Vec<PathBuf>,
}

/// What a disk is made from: a file that does not change while the disk is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Which file; with an absolute path.
    pub path: &'a Path,
    /// Its format.
    pub format: Format,
    /// What it reads as, in bytes.
    pub size_bytes: u64,
}

/// How much of a file system is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What may still be written, in bytes.
    pub free_bytes: u64,
}

/// A folder of disks, and those that other hosts have as well: a disk is found wherever it is, and made
/// in the host's own folder unless another one is asked for with [`Directory::of`].
#[derive(Clone, Debug)]
pub struct Directory {
    disks: PathBuf,
    placed: PathBuf,
    shared: Shared,
}

impl Directory {
    /// The storage in this folder, which is made when it is not there.
    ///
    /// # Errors
    /// The path is not absolute, or the folder cannot be made.
    pub async fn open(root: &Path) -> Result<Self, StorageFault> {
        Self::open_with(root, Shared::default()).await
    }

    /// The same, with storages that other hosts reach as well.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(root: &Path, shared: Shared) -> Result<Self, StorageFault> {
        if !root.is_absolute() || root.to_str().is_none() {
            let what = format!("{}: storage needs an absolute path in UTF-8", root.display());
            return Err(StorageFault::Unfit(what));
        }
        let disks = root.join("disks");
        fs::create_dir_all(&disks).await.map_err(StorageFault::file("cannot make", &disks))?;
        Ok(Self { disks, placed: root.join("placed"), shared })
    }

    /// The folder of a storage, or the host's own: what is made by it is made there.
    ///
    /// # Errors
    /// The storage is not there, or its folder of disks cannot be made.
    pub async fn of(&self, storage: Option<StorageId>) -> Result<Self, StorageFault> {
        match storage {
            None => Ok(self.clone()),
            Some(storage) => Self::open(&self.shared.root(storage).await?).await,
        }
    }

    /// The storages that the host reaches now.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The folder of what leads to disks that were there before.
    pub fn placed_folder(&self) -> &Path {
        &self.placed
    }

    /// Something that is there is a disk from now on, where it lies.
    ///
    /// # Errors
    /// The file system's.
    pub async fn place(&self, disk: Uuid, format: Format, at: &Path) -> Result<(), StorageFault> {
        let name = self.placed.join(format!("{disk}.{format}"));
        if leads_to(&name).await?.as_deref() == Some(at) {
            return Ok(());
        }
        let fault = StorageFault::file("cannot make", &self.placed);
        fs::create_dir_all(&self.placed).await.map_err(fault)?;
        let part = files::part(&name);
        files::remove(&part).await?;
        fs::symlink(at, &part).await.map_err(StorageFault::file("cannot make", &part))?;
        fs::rename(&part, &name).await.map_err(StorageFault::file("cannot rename to", &name))?;
        files::sync(&self.placed).await
    }

    /// It is no disk any more, and stays where it lies.
    ///
    /// # Errors
    /// The file system's.
    pub async fn displace(&self, disk: Uuid) -> Result<(), StorageFault> {
        for format in Format::ALL {
            let name = self.placed.join(format!("{disk}.{format}"));
            let Some(at) = leads_to(&name).await? else { continue };
            // Of what was begun in its place.
            files::remove(&files::part(&real(&at).await?)).await?;
            files::remove(&name).await?;
        }
        Ok(())
    }

    /// The disk that a file is of, wherever it lies.
    pub fn disk_of(&self, path: &Path) -> Option<Uuid> {
        let folder = path.parent()?;
        let is_ours = folder == self.disks || self.shared.folders().any(|one| one == folder);
        let name = path.file_name()?.to_str().filter(|_| is_ours)?;
        read_name(name).map(|(disk, _)| disk)
    }

    /// The folder of the disks' files.
    pub fn folder(&self) -> &Path {
        &self.disks
    }

    /// Where a disk of this format lies, or will.
    pub fn path(&self, disk: Uuid, format: Format) -> PathBuf {
        self.disks.join(format!("{disk}.{format}"))
    }

    /// Makes an empty disk.
    ///
    /// # Errors
    /// A disk of this id is there with another size or format, the size is none, or the host's.
    pub async fn create(
        &self,
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        check_size(size_bytes)?;
        let wanted = Wanted { disk, format, size_bytes, backing: None };
        if let Some(there) = self.there(&wanted).await? {
            return Ok(there);
        }
        let part = self.begin(&wanted).await?;
        qemu_img::create(&part, format, size_bytes).run().await?;
        self.finish(&wanted, &part).await
    }

    /// Makes a disk with all that another file reads as, and no need of that file afterwards. It may
    /// be larger.
    ///
    /// # Errors
    /// As [`Self::create`]; and when the size is less than the origin's.
    pub async fn copy(
        &self,
        disk: Uuid,
        format: Format,
        origin: Origin<'_>,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        self.copy_of((origin, None), disk, format, size_bytes).await
    }

    /// Makes a disk with all that another file reads as, or read as at one of its snapshots, when it may
    /// have been smaller.
    pub(super) async fn copy_of(
        &self,
        (origin, snapshot): (Origin<'_>, Option<Uuid>),
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        check_origin(origin, size_bytes)?;
        let wanted = Wanted { disk, format, size_bytes, backing: None };
        if let Some(there) = self.there(&wanted).await? {
            return Ok(there);
        }
        let part = self.begin(&wanted).await?;
        let (path, bytes) = (origin.path, origin.size_bytes);
        let copy = match snapshot {
            None => qemu_img::convert(path, origin.format, &part, format, bytes),
            Some(snapshot) => qemu_img::convert_snapshot(path, snapshot, &part, format, bytes),
        };
        copy.run().await?;
        if look(&part, format).await?.size_bytes < size_bytes {
            qemu_img::resize(&part, format, size_bytes).run().await?;
        }
        self.finish(&wanted, &part).await
    }

    /// Makes a disk (qcow2) that reads as another file until it is written, and needs that file as
    /// long as it is there. It may be larger.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub async fn create_on(
        &self,
        disk: Uuid,
        origin: Origin<'_>,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        check_origin(origin, size_bytes)?;
        let (format, backing) = (Format::Qcow2, Some(origin.path));
        let wanted = Wanted { disk, format, size_bytes, backing };
        if let Some(there) = self.there(&wanted).await? {
            return Ok(there);
        }
        let part = self.begin(&wanted).await?;
        qemu_img::create_on(&part, origin.path, origin.format, size_bytes).run().await?;
        self.finish(&wanted, &part).await
    }

    /// Makes a disk with all that another disk reads as. That one is used by no server meanwhile:
    /// QEMU's locks see to that.
    ///
    /// # Errors
    /// As [`Self::copy`]; and when the other is not there.
    pub async fn duplicate(
        &self,
        from: Uuid,
        disk: Uuid,
        format: Format,
    ) -> Result<Disk, StorageFault> {
        let from = self.inspect(from).await?;
        let size_bytes = from.size_bytes;
        let origin = Origin { path: &from.path, format: from.format, size_bytes };
        self.copy(disk, format, origin, size_bytes).await
    }

    /// Makes a disk larger that no running server has.
    ///
    /// # Errors
    /// It is not there, is larger already, or a server has it; and the host's.
    pub async fn grow(&self, disk: Uuid, size_bytes: u64) -> Result<Disk, StorageFault> {
        check_size(size_bytes)?;
        let is = self.inspect(disk).await?;
        if is.size_bytes > size_bytes {
            return Err(StorageFault::Smaller {
                what: format!("disk {disk}"),
                is_bytes: is.size_bytes,
                wanted_bytes: size_bytes,
            });
        }
        if is.size_bytes < size_bytes {
            qemu_img::resize(&is.path, is.format, size_bytes).run().await?;
            files::sync(&is.path).await?;
        }
        let grown = self.inspect(disk).await?;
        same(disk, "bytes", grown.size_bytes, size_bytes)?;
        Ok(grown)
    }

    /// Begins to make a disk anew that is there: a file as large, empty, that somebody else fills and
    /// that [`Self::replace`] puts in its place. It is to hold so many bytes.
    ///
    /// # Errors
    /// The disk is not there or is smaller, and the host's.
    pub async fn begin_again(
        &self,
        disk: Uuid,
        holds_bytes: u64,
    ) -> Result<(PathBuf, Format), StorageFault> {
        let is = self.inspect(disk).await?;
        if holds_bytes > is.size_bytes {
            return Err(StorageFault::Smaller {
                what: "what is written back".to_owned(),
                is_bytes: holds_bytes,
                wanted_bytes: is.size_bytes,
            });
        }
        let path = real(&is.path).await?;
        let part = files::part(&path);
        files::remove(&part).await?;
        qemu_img::create(&part, is.format, is.size_bytes).run().await?;
        files::like(&part, &path).await?;
        Ok((part, is.format))
    }

    /// Puts a disk that was made anew in the place of the one that was there.
    ///
    /// # Errors
    /// It is not as large, and the host's.
    pub async fn replace(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        let is = self.inspect(disk).await?;
        let path = real(&is.path).await?;
        let part = files::part(&path);
        let new = look(&part, is.format).await?;
        same(disk, "bytes", new.size_bytes, is.size_bytes)?;
        files::put_in_place(&part, &path).await?;
        self.inspect(disk).await
    }

    /// Begins to make a disk that somebody else fills: a file that reads as zeroes, and that
    /// [`Self::finish_filled`] puts in its place. None when the disk is there.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn begin_filled(
        &self,
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Option<PathBuf>, StorageFault> {
        check_size(size_bytes)?;
        let wanted = Wanted { disk, format, size_bytes, backing: None };
        if self.there(&wanted).await?.is_some() {
            return Ok(None);
        }
        let part = self.begin(&wanted).await?;
        qemu_img::create(&part, format, size_bytes).run().await?;
        Ok(Some(part))
    }

    /// Puts a disk that was filled in its place.
    ///
    /// # Errors
    /// It is another than was begun, and the host's.
    pub async fn finish_filled(
        &self,
        disk: Uuid,
        format: Format,
        size_bytes: u64,
    ) -> Result<Disk, StorageFault> {
        let wanted = Wanted { disk, format, size_bytes, backing: None };
        self.finish(&wanted, &files::part(&self.path(disk, format))).await
    }

    /// Whether a disk that is there can be made from another file again.
    ///
    /// # Errors
    /// It is not there, is smaller than the other file, or has snapshots, which would be lost.
    pub async fn check_again(&self, disk: Uuid, origin: Origin<'_>) -> Result<(), StorageFault> {
        let is = self.inspect(disk).await?;
        check_origin(origin, is.size_bytes)?;
        match self.snapshots(disk).await?.len() {
            0 => Ok(()),
            count => {
                let what = format!("disk {disk} has {count} snapshots: delete them first");
                Err(StorageFault::Unfit(what))
            }
        }
    }

    /// Makes a disk from another file again, as large as it was. A qcow2 disk may need that file as long
    /// as it is there. It is the old disk until it is the new one.
    ///
    /// # Errors
    /// As [`Self::check_again`], and the host's.
    pub async fn make_again(
        &self,
        disk: Uuid,
        origin: Origin<'_>,
        on_origin: bool,
    ) -> Result<Disk, StorageFault> {
        self.check_again(disk, origin).await?;
        let is = self.inspect(disk).await?;
        let part = files::part(&is.path);
        files::remove(&part).await?;
        if on_origin && is.format == Format::Qcow2 {
            let make = qemu_img::create_on(&part, origin.path, origin.format, is.size_bytes);
            make.run().await?;
        } else {
            let (path, bytes) = (origin.path, origin.size_bytes);
            qemu_img::convert(path, origin.format, &part, is.format, bytes).run().await?;
            if look(&part, is.format).await?.size_bytes < is.size_bytes {
                qemu_img::resize(&part, is.format, is.size_bytes).run().await?;
            }
        }
        self.replace(disk).await
    }

    /// Looks at a disk, also while a server has it.
    ///
    /// # Errors
    /// It is not there, it is there in two formats, or the host's.
    pub async fn inspect(&self, disk: Uuid) -> Result<Disk, StorageFault> {
        let found = self.find(disk).await?;
        let (path, format) = found.ok_or_else(|| StorageFault::Missing(format!("disk {disk}")))?;
        look(&path, format).await
    }

    /// Removes a disk, and what is left of one that was being made. One that was there before stays where it
    /// lies.
    ///
    /// # Errors
    /// The file system's.
    pub async fn delete(&self, disk: Uuid) -> Result<(), StorageFault> {
        self.displace(disk).await?;
        let mut any = false;
        for path in Format::ALL.map(|format| self.path(disk, format)) {
            any |= files::exists(&path).await?;
            files::remove(&files::part(&path)).await?;
            files::remove(&path).await?;
        }
        let names = Format::ALL.map(|format| format!("{disk}.{format}"));
        let parts = names.each_ref().map(|name| files::part(name.as_ref()).display().to_string());
        let (elsewhere, fault) = self.shared.find(&[names, parts].concat()).await;
        any |= !elsewhere.is_empty();
        for path in elsewhere {
            files::remove(&path).await?;
        }
        // It may lie with whoever does not answer.
        fault.filter(|_| !any).map_or(Ok(()), Err)
    }

    /// Every disk that is whole, sorted by id. Names that are not a disk's are left out.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn list(&self) -> Result<Vec<(Uuid, Format)>, StorageFault> {
        let fault = || StorageFault::file("cannot list", &self.disks);
        let mut entries = fs::read_dir(&self.disks).await.map_err(fault())?;
        let mut disks = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(fault())? {
            disks.extend(entry.file_name().to_str().and_then(read_name));
        }
        disks.sort_unstable();
        Ok(disks)
    }

    /// How much room there is.
    ///
    /// # Errors
    /// The file system's.
    pub fn capacity(&self) -> Result<Capacity, StorageFault> {
        let stat = rustix::fs::statvfs(&self.disks).map_err(|errno| {
            StorageFault::file("cannot ask for room", &self.disks)(errno.into())
        })?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Capacity { total_bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) })
    }

    /// Where a disk is, among what answers; and a folder that does not.
    async fn seek(
        &self,
        disk: Uuid,
    ) -> Result<(Vec<(PathBuf, Format)>, Option<StorageFault>), StorageFault> {
        for format in Format::ALL {
            let at = leads_to(&self.placed.join(format!("{disk}.{format}"))).await?;
            if let Some(path) = at {
                let there = files::exists(&path).await?;
                return Ok((there.then_some((path, format)).into_iter().collect(), None));
            }
        }
        let mut found = Vec::new();
        for format in Format::ALL {
            let path = self.path(disk, format);
            if files::exists(&path).await? {
                found.push((path, format));
            }
        }
        let names = Format::ALL.map(|format| format!("{disk}.{format}"));
        let (elsewhere, fault) = self.shared.find(&names).await;
        let format = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            let (_, format) = read_name(name)?;
            Some((path, format))
        };
        found.extend(elsewhere.into_iter().filter_map(format));
        if found.len() > 1 {
            let what = format!("disk {disk} is there in two formats, or in two folders");
            return Err(StorageFault::Unfit(what));
        }
        Ok((found, fault))
    }

    async fn find(&self, disk: Uuid) -> Result<Option<(PathBuf, Format)>, StorageFault> {
        match self.seek(disk).await? {
            (found, _) if !found.is_empty() => Ok(found.into_iter().next()),
            (_, Some(fault)) => Err(fault),
            _ => Ok(None),
        }
    }

    /// The disk, when an earlier run has made it.
    async fn there(&self, wanted: &Wanted<'_>) -> Result<Option<Disk>, StorageFault> {
        // It is to be made here: who does not answer has nothing to do with it.
        match self.seek(wanted.disk).await?.0.pop() {
            None => Ok(None),
            Some((path, format)) => {
                let is = look(&path, format).await?;
                wanted.compare(&is)?;
                files::remove(&files::part(&path)).await?;
                Ok(Some(is))
            }
        }
    }

    /// A name to make it under, that nothing has.
    async fn begin(&self, wanted: &Wanted<'_>) -> Result<PathBuf, StorageFault> {
        let part = files::part(&self.path(wanted.disk, wanted.format));
        files::remove(&part).await?;
        Ok(part)
    }

    async fn finish(&self, wanted: &Wanted<'_>, part: &Path) -> Result<Disk, StorageFault> {
        wanted.compare(&look(part, wanted.format).await?)?;
        let path = self.path(wanted.disk, wanted.format);
        files::put_in_place(part, &path).await?;
        look(&path, wanted.format).await
    }
}

/// A disk as it is to be.
struct Wanted<'a> {
    disk: Uuid,
    format: Format,
    size_bytes: u64,
    backing: Option<&'a Path>,
}

impl Wanted<'_> {
    fn compare(&self, is: &Disk) -> Result<(), StorageFault> {
        same(self.disk, "format", is.format, self.format)?;
        same(self.disk, "bytes", is.size_bytes, self.size_bytes)?;
        let shown =
            |path: Option<&Path>| path.map_or("none".to_owned(), |path| path.display().to_string());
        let is = is.backing.first().map(PathBuf::as_path);
        same(self.disk, "backing file", shown(is), shown(self.backing))
    }
}

pub(super) fn same<T: PartialEq + ToString>(
    disk: Uuid,
    what: &str,
    is: T,
    wanted: T,
) -> Result<(), StorageFault> {
    if is == wanted {
        return Ok(());
    }
    Err(StorageFault::Differs {
        what: format!("{what} of disk {disk}"),
        is: is.to_string(),
        wanted: wanted.to_string(),
    })
}

pub(super) fn check_size(size_bytes: u64) -> Result<(), StorageFault> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(SECTOR_BYTES) {
        let what = format!("{size_bytes} bytes: a disk has a multiple of {SECTOR_BYTES}");
        return Err(StorageFault::Unfit(what));
    }
    Ok(())
}

pub(super) fn check_origin(origin: Origin<'_>, size_bytes: u64) -> Result<(), StorageFault> {
    check_size(size_bytes)?;
    if !origin.path.is_absolute() {
        let what = format!("{}: an origin needs an absolute path", origin.path.display());
        return Err(StorageFault::Unfit(what));
    }
    if size_bytes < origin.size_bytes {
        return Err(StorageFault::Smaller {
            what: origin.path.display().to_string(),
            is_bytes: origin.size_bytes,
            wanted_bytes: size_bytes,
        });
    }
    Ok(())
}

/// Reads the name of a disk's file; only the spelling we give it.
fn read_name(name: &str) -> Option<(Uuid, Format)> {
    Format::ALL.into_iter().find_map(|format| {
        let id = name.strip_suffix(format.name())?.strip_suffix('.')?;
        let disk: Uuid = id.parse().ok()?;
        (disk.to_string() == id).then_some((disk, format))
    })
}

/// Where a name leads; none when there is no such name.
async fn leads_to(name: &Path) -> Result<Option<PathBuf>, StorageFault> {
    match fs::read_link(name).await {
        Ok(at) => Ok(Some(at)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StorageFault::file("cannot look at", name)(error)),
    }
}

/// What a path is once all names on the way lead where they do: what takes the place of the file.
async fn real(path: &Path) -> Result<PathBuf, StorageFault> {
    match fs::canonicalize(path).await {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(StorageFault::file("cannot look at", path)(error)),
    }
}

/// Looks at a file of this format.
pub(super) async fn look(path: &Path, format: Format) -> Result<Disk, StorageFault> {
    let tool = qemu_img::info(path, format, true);
    let mut chain = qemu_img::read_chain(&tool, &tool.run().await?)?.into_iter();
    let Some(first) = chain.next() else {
        return Err(tool.nonsense("no file is described").into());
    };
    if let Some(other) = first.data_file() {
        let what = format!("{} has its data in another file, {other}", path.display());
        return Err(StorageFault::Unfit(what));
    }
    Ok(disk_of(path, format, &first, chain.map(|info| PathBuf::from(info.filename)).collect()))
}

fn disk_of(path: &Path, format: Format, info: &Info, backing: Vec<PathBuf>) -> Disk {
    Disk {
        path: path.to_owned(),
        format,
        size_bytes: info.virtual_size_bytes,
        taken_bytes: info.actual_size_bytes,
        backing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_is_a_disk() {
        let id = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_00ab);
        let name = format!("{id}.raw");
        assert_eq!(read_name(&name), Some((id, Format::Raw)));
        for other in [
            format!("{id}.qcow2.part"),
            format!("{id}"),
            format!("{}.raw", id.to_string().to_uppercase()),
            format!("{}.raw", id.simple()),
            "notes.raw".to_owned(),
            ".raw".to_owned(),
        ] {
            assert_eq!(read_name(&other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_relative_folder_is_no_storage() {
        let fault = Directory::open(Path::new("disks")).await.unwrap_err();
        assert_eq!(fault.to_string(), "disks: storage needs an absolute path in UTF-8");
    }
}
