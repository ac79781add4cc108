//! Images that disks are made from, kept on the host by digest.
//!
//! ```text
//! <root>/images/<sha-256>.qcow2     an image; its time of change is when it was used last
//! <root>/images/<sha-256>.part      one that comes in
//! <root>/images/<sha-256>.made      the qcow2 that is made of one of another program (vmdk, vhd, vhdx)
//! <root>/images/<sha-256>.lock      held alone by who takes it in or removes it, shared by who uses it
//! ```
//!
//! An image has its name when every byte is there and the digest is right, so two images of one
//! digest are one. The digest is that of the file as it came, whatever is made of it then. Of several that want an image, one takes it in and the others wait. Locks are the
//! kernel's: whoever dies lets go.

use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::SystemTime,
};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
};

use super::{
    StorageFault,
    directory::{self, Directory, Origin},
    files,
    header::{self, Claim, Ends},
    qemu_img::{self, Foreign, Format, Info},
};

/// How many bytes are read at a time.
const CHUNK: usize = 256 << 10;

/// A SHA-256 as 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// Reads one.
    ///
    /// # Errors
    /// It is something else: it becomes a file's name, so nothing else will do.
    pub fn read(text: &str) -> Result<Self, StorageFault> {
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() == 64 && text.bytes().all(digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(StorageFault::Unfit("a SHA-256 is 64 lower-case hexadecimal digits".to_owned()))
    }

    fn finish(hasher: Sha256) -> Self {
        Self(format!("{:x}", hasher.finalize()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where an image comes from. It is opened only by who really takes the image in.
#[async_trait]
pub trait Source: Send + Sync {
    /// Begins to read it from its first byte.
    ///
    /// # Errors
    /// It cannot be reached.
    async fn open(&self) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>>;
}

/// A file of the host is a source.
#[async_trait]
impl Source for PathBuf {
    async fn open(&self) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        Ok(Box::new(fs::File::open(self).await?))
    }
}

/// An image that is used: as long as this is there, it is not removed.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    format: Format,
    size_bytes: u64,
    _lock: File,
}

impl Image {
    /// For a disk that is made from it.
    pub fn origin(&self) -> Origin<'_> {
        Origin { path: &self.path, format: self.format, size_bytes: self.size_bytes }
    }
}

/// An image that is kept, for the choice of what goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its digest.
    pub digest: Digest,
    /// Its format.
    pub format: Format,
    /// What it takes of the medium, in bytes.
    pub taken_bytes: u64,
    /// When it was used last.
    pub used_at: SystemTime,
}

/// The images of a host.
#[derive(Clone, Debug)]
pub struct Cache {
    images: PathBuf,
}

impl Cache {
    /// The cache beside a directory's disks.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub async fn open(root: &Path) -> Result<Self, StorageFault> {
        if !root.is_absolute() || root.to_str().is_none() {
            let what = format!("{}: a cache needs an absolute path in UTF-8", root.display());
            return Err(StorageFault::Unfit(what));
        }
        let images = root.join("images");
        fs::create_dir_all(&images).await.map_err(StorageFault::file("cannot make", &images))?;
        Ok(Self { images })
    }

    /// Gives an image, and takes it in first when it is not there. Dropped half-way, it begins anew
    /// the next time. One of another program's format becomes a qcow2 of at most `disk_max_bytes`.
    ///
    /// # Errors
    /// It cannot be read, has more than `max_bytes`, another digest or no safe format; or the host's.
    pub async fn take(
        &self,
        digest: &Digest,
        source: &dyn Source,
        max_bytes: u64,
        disk_max_bytes: u64,
    ) -> Result<Image, StorageFault> {
        loop {
            if let Some(image) = self.use_kept(digest).await? {
                return Ok(image);
            }
            let lock = self.lock(digest, true).await?;
            // Another may have taken it in while we waited.
            if self.find(digest).await?.is_none() {
                self.take_in(digest, source, max_bytes, disk_max_bytes).await?;
            }
            drop(lock);
        }
    }

    /// Gives an image that is there.
    ///
    /// # Errors
    /// The host's.
    pub async fn use_kept(&self, digest: &Digest) -> Result<Option<Image>, StorageFault> {
        let lock = self.lock(digest, false).await?;
        let Some((path, format)) = self.find(digest).await? else { return Ok(None) };
        let seen = directory::look(&path, format).await?;
        let touch = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        touch.map_err(StorageFault::file("cannot note the use of", &path))?;
        Ok(Some(Image { path, format, size_bytes: seen.size_bytes, _lock: lock }))
    }

    /// Every image that is kept, sorted by digest.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub async fn list(&self) -> Result<Vec<Kept>, StorageFault> {
        use std::os::unix::fs::MetadataExt;
        let fault = || StorageFault::file("cannot list", &self.images);
        let mut entries = fs::read_dir(&self.images).await.map_err(fault())?;
        let mut kept = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(fault())? {
            let name = entry.file_name();
            let Some((digest, format)) = name.to_str().and_then(read_name) else { continue };
            // One that was removed meanwhile is not kept.
            let Ok(about) = entry.metadata().await else { continue };
            let used_at = about.modified().map_err(fault())?;
            kept.push(Kept { digest, format, taken_bytes: about.blocks() * 512, used_at });
        }
        kept.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(kept)
    }

    /// Removes images that nobody needs, the longest unused first, until the others take no more than
    /// the bound. Needed are those named, those that are in use, and those that a disk of the
    /// directory reads from. Gives what was removed.
    ///
    /// # Errors
    /// The file system's.
    pub async fn evict(
        &self,
        bound_bytes: u64,
        needed: &BTreeSet<Digest>,
        disks: &Directory,
    ) -> Result<Vec<Digest>, StorageFault> {
        let mut removed = Vec::new();
        for digest in choose(&self.list().await?, bound_bytes, needed) {
            let file = self.lock_file(&digest)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(source)) => {
                    return Err(StorageFault::file("cannot lock", self.name(&digest, "lock"))(
                        source,
                    ));
                }
            }
            // Looked at with the lock: nobody begins a disk on it now.
            let Some((path, _)) = self.find(&digest).await? else { continue };
            if backing_files(disks).await?.contains(&path) {
                continue;
            }
            files::remove(&path).await?;
            removed.push(digest);
        }
        Ok(removed)
    }

    async fn take_in(
        &self,
        digest: &Digest,
        source: &dyn Source,
        max_bytes: u64,
        disk_max_bytes: u64,
    ) -> Result<(), StorageFault> {
        let (part, made) = (self.name(digest, "part"), self.name(digest, "made"));
        let clear = async || {
            files::remove(&part).await?;
            files::remove(&made).await
        };
        clear().await?;
        let done = async {
            let ends = self.fill(&part, digest, source, max_bytes).await?;
            self.settle((&part, &made), &ends, disk_max_bytes).await
        };
        match done.await {
            Ok((whole, format)) => {
                if whole != part {
                    files::remove(&part).await?;
                }
                files::put_in_place(whole, &self.name(digest, format.name())).await
            }
            Err(fault) => {
                clear().await?;
                Err(fault)
            }
        }
    }

    /// Writes it, when it is what it was to be.
    async fn fill(
        &self,
        part: &Path,
        digest: &Digest,
        source: &dyn Source,
        max_bytes: u64,
    ) -> Result<Ends, StorageFault> {
        let read = || StorageFault::file("cannot read the source of", part);
        let write = || StorageFault::file("cannot write", part);
        let mut from = source.open().await.map_err(read())?;
        let mut to = fs::File::create(part).await.map_err(write())?;
        let (mut hasher, mut ends) = (Sha256::new(), Ends::default());
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = from.read(&mut chunk).await.map_err(read())?;
            if count == 0 {
                break;
            }
            let bytes = &chunk[..count];
            ends.take(bytes);
            if ends.total() > max_bytes {
                let what = format!("the image has more than {max_bytes} bytes");
                return Err(StorageFault::Unfit(what));
            }
            hasher.update(bytes);
            to.write_all(bytes).await.map_err(write())?;
        }
        to.flush().await.map_err(write())?;
        drop(to);
        let is = Digest::finish(hasher);
        if is != *digest {
            return Err(StorageFault::Differs {
                what: "digest of the image".to_owned(),
                is: is.0,
                wanted: digest.0.clone(),
            });
        }
        Ok(ends)
    }

    /// The file that is kept of it and that one's format. What QEMU says to it must be what it claims to be.
    async fn settle<'a>(
        &self,
        (part, made): (&'a Path, &'a Path),
        ends: &Ends,
        disk_max_bytes: u64,
    ) -> Result<(&'a Path, Format), StorageFault> {
        let format = match ends.claim() {
            Claim::Qcow2 => Format::Qcow2,
            Claim::Unknown => Format::Raw,
            Claim::Vhd => {
                return convert((part, Foreign::Vhd), made, ends, disk_max_bytes).await;
            }
            Claim::Vhdx => {
                return convert((part, Foreign::Vhdx), made, ends, disk_max_bytes).await;
            }
            Claim::Vmdk => {
                return convert((part, Foreign::Vmdk), made, ends, disk_max_bytes).await;
            }
            Claim::Unsafe(why) => return Err(unfit(why)),
            Claim::Other(name) => {
                return Err(unfit(&format!("it is {name}: convert it to qcow2 or raw")));
            }
        };
        let tool = qemu_img::probe(part);
        let info = qemu_img::read_info(&tool, &tool.run().await?)?;
        if info.format != format.name() {
            return Err(unfit(&format!("it is {}: convert it to qcow2 or raw", info.format)));
        }
        check(&info)?;
        let total = ends.total();
        if format == Format::Raw && !total.is_multiple_of(directory::SECTOR_BYTES) {
            let what = format!("{total} bytes: a raw image has a multiple of 512");
            return Err(StorageFault::Unfit(what));
        }
        Ok((part, format))
    }

    fn name(&self, digest: &Digest, ending: &str) -> PathBuf {
        self.images.join(format!("{}.{ending}", digest.0))
    }

    async fn find(&self, digest: &Digest) -> Result<Option<(PathBuf, Format)>, StorageFault> {
        for format in Format::ALL {
            let path = self.name(digest, format.name());
            if files::exists(&path).await? {
                return Ok(Some((path, format)));
            }
        }
        Ok(None)
    }

    fn lock_file(&self, digest: &Digest) -> Result<File, StorageFault> {
        let path = self.name(digest, "lock");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(&path).map_err(StorageFault::file("cannot make", path))
    }

    /// Waits for the lock, which the file holds until it is dropped.
    async fn lock(&self, digest: &Digest, alone: bool) -> Result<File, StorageFault> {
        let file = self.lock_file(digest)?;
        let fault = || StorageFault::file("cannot lock", self.name(digest, "lock"));
        let wait = move || if alone { file.lock() } else { file.lock_shared() }.map(|()| file);
        let done = tokio::task::spawn_blocking(wait).await;
        done.map_err(|error| fault()(std::io::Error::other(error)))?.map_err(fault())
    }
}

fn unfit(why: &str) -> StorageFault {
    StorageFault::Unfit(format!("the image is not taken: {why}"))
}

/// That it is whole, and alone.
fn check(info: &Info) -> Result<(), StorageFault> {
    if info.backing.is_some() || info.data_file().is_some() || info.extents() > 1 {
        return Err(unfit("it needs another file"));
    }
    if info.encrypted || info.corrupt() {
        return Err(unfit("it is encrypted or broken"));
    }
    if info.virtual_size_bytes == 0 {
        return Err(unfit("it is empty"));
    }
    Ok(())
}

/// Makes a qcow2 of a disk of another program, whose bytes were looked at before QEMU opens it.
async fn convert<'a>(
    (part, is): (&Path, Foreign),
    made: &'a Path,
    ends: &Ends,
    disk_max_bytes: u64,
) -> Result<(&'a Path, Format), StorageFault> {
    let bytes = ends.disk_bytes().unwrap_or_default();
    // A small file may hold a very large disk.
    if bytes > disk_max_bytes {
        let what =
            format!("the image's disk has {bytes} bytes, and there is room for {disk_max_bytes}");
        return Err(StorageFault::Unfit(what));
    }
    let tool = qemu_img::look_foreign(part, is);
    let info = qemu_img::read_info(&tool, &tool.run().await?)?;
    check(&info)?;
    // Some say it in two places.
    if info.virtual_size_bytes != bytes || !bytes.is_multiple_of(directory::SECTOR_BYTES) {
        let why = format!("its disk has {bytes} bytes, or {}", info.virtual_size_bytes);
        return Err(unfit(&why));
    }
    qemu_img::convert_foreign(part, is, made, bytes).run().await?;
    Ok((made, Format::Qcow2))
}

/// What goes: the longest unused of what is not needed, until the rest is within the bound.
pub fn choose(kept: &[Kept], bound_bytes: u64, needed: &BTreeSet<Digest>) -> Vec<Digest> {
    let mut taken: u64 = kept.iter().map(|image| image.taken_bytes).sum();
    let mut old: Vec<_> = kept.iter().filter(|image| !needed.contains(&image.digest)).collect();
    old.sort_by_key(|image| (image.used_at, &image.digest));
    let mut gone = Vec::new();
    for image in old {
        if taken <= bound_bytes {
            break;
        }
        taken -= image.taken_bytes;
        gone.push(image.digest.clone());
    }
    gone
}

fn read_name(name: &str) -> Option<(Digest, Format)> {
    Format::ALL.into_iter().find_map(|format| {
        let digest = name.strip_suffix(format.name())?.strip_suffix('.')?;
        Digest::read(digest).ok().map(|digest| (digest, format))
    })
}

/// The files that disks read from, by their headers; also of disks that are being made.
async fn backing_files(disks: &Directory) -> Result<BTreeSet<PathBuf>, StorageFault> {
    let folder = disks.folder();
    let mut entries =
        fs::read_dir(folder).await.map_err(StorageFault::file("cannot list", folder))?;
    let mut found = BTreeSet::new();
    loop {
        let next = entries.next_entry().await;
        let Some(entry) = next.map_err(StorageFault::file("cannot list", folder))? else { break };
        let path = entry.path();
        let mut name = PathBuf::from(entry.file_name());
        if name.extension().is_some_and(|ending| ending == "part") {
            name.set_extension("");
        }
        if name.extension().is_none_or(|ending| ending != Format::Qcow2.name()) {
            continue;
        }
        match read_backing(&path).await {
            Ok(backing) => found.extend(backing),
            // It was removed while we looked.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StorageFault::file("cannot read", path)(error)),
        }
    }
    Ok(found)
}

async fn read_backing(path: &Path) -> std::io::Result<Option<PathBuf>> {
    use tokio::io::AsyncSeekExt;
    let mut file = fs::File::open(path).await?;
    let mut begin = Vec::new();
    (&mut file).take(header::LENGTH as u64).read_to_end(&mut begin).await?;
    let Some((at, length)) = header::backing(&begin) else { return Ok(None) };
    file.seek(std::io::SeekFrom::Start(at)).await?;
    let mut name = Vec::new();
    file.take(length.into()).read_to_end(&mut name).await?;
    Ok(Some(PathBuf::from(String::from_utf8_lossy(&name).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn kept(name: char, taken_bytes: u64, used: u64) -> Kept {
        Kept {
            digest: Digest(name.to_string().repeat(64)),
            format: Format::Raw,
            taken_bytes,
            used_at: SystemTime::UNIX_EPOCH + Duration::from_secs(used),
        }
    }

    #[test]
    fn the_longest_unused_goes_first_and_no_more_than_must() {
        let all = [kept('a', 10, 3), kept('b', 10, 1), kept('c', 10, 2), kept('d', 10, 1)];
        let names = |bound, needed: &[char]| -> String {
            let needed = needed.iter().map(|name| Digest(name.to_string().repeat(64))).collect();
            choose(&all, bound, &needed).iter().map(|gone| &gone.0[..1]).collect()
        };
        assert_eq!(names(40, &[]), "");
        assert_eq!(names(39, &[]), "b");
        assert_eq!(names(20, &[]), "bd");
        assert_eq!(names(20, &['b']), "dc");
        assert_eq!(names(0, &['a', 'b', 'c', 'd']), "");
        assert_eq!(names(0, &[]), "bdca");
    }

    #[test]
    fn a_digest_is_no_path() {
        for text in ["", "../../etc/passwd", &"A".repeat(64), &"g".repeat(64), &"a".repeat(63)] {
            assert!(Digest::read(text).is_err(), "{text}");
        }
        assert!(Digest::read(&"0a".repeat(32)).is_ok());
    }
}
