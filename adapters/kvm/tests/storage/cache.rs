//! Images by digest, taken in once and removed when nothing needs them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use adapters_kvm::{
    storage::{
        StorageFault,
        cache::{Cache, Digest, Source},
        directory::Directory,
        qemu_img::Format,
    },
    tool::Tool,
};
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncRead;
use uuid::Uuid;

use crate::crash::die_everywhere;

const MIB: u64 = 1 << 20;

fn digest(bytes: &[u8]) -> Digest {
    Digest::read(&format!("{:x}", Sha256::digest(bytes))).unwrap()
}

/// Bytes that are sent piece by piece, and how often they were asked for.
struct Sent(Vec<u8>, AtomicUsize);

impl Sent {
    fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into(), AtomicUsize::new(0))
    }
    fn digest(&self) -> Digest {
        digest(&self.0)
    }
}

#[async_trait]
impl Source for Sent {
    async fn open(&self) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        let (from, mut to) = tokio::io::duplex(64 << 10);
        let bytes = self.0.clone();
        tokio::spawn(async move {
            // The reader may go away.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut to, &bytes).await;
        });
        Ok(Box::new(from))
    }
}

fn raw(seed: u8) -> Vec<u8> {
    (0..MIB).map(|at| (at % 251) as u8 ^ seed).collect()
}

/// What `qemu-img create` with these words makes.
async fn made(folder: &Path, words: &[&str]) -> Vec<u8> {
    let path = folder.join("made");
    let path = path.to_str().unwrap();
    let words = ["create", "-q"].iter().chain(words).map(|word| match *word {
        "MADE" => path,
        word => word,
    });
    Tool::new("qemu-img", words.collect::<Vec<_>>()).run().await.unwrap();
    std::fs::read(path).unwrap()
}

/// The same with other bytes at a place.
fn edited(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// A VMDK that is written without going back: its header says that what counts is in its last bytes.
fn with_footer(vmdk: &[u8], sectors: u64) -> Vec<u8> {
    let mut marker = vec![0; 512];
    marker[12] = 3;
    let header = edited(&vmdk[..512], 12, &sectors.to_le_bytes());
    [edited(vmdk, 56, &[0xff; 8]), marker, header, vec![0; 512]].concat()
}

/// The same with the sum that belongs to its last 512 bytes.
fn with_sum(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 512;
    bytes[at + 64..at + 68].fill(0);
    let sum: u32 = bytes[at..].iter().map(|byte| u32::from(*byte)).sum();
    bytes[at + 64..at + 68].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("images")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| Path::new(name).extension().is_none_or(|it| it != "lock")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_want_an_image_one_takes_it_in() {
    let folder = tempfile::tempdir().unwrap();
    let source = Sent::new(raw(1));
    let digest = source.digest();
    // Each with a cache of its own, as several processes have.
    let takers = (0..16).map(|_| async {
        let cache = Cache::open(folder.path()).await.unwrap();
        let image = cache.take(&digest, &source, MIB, 64 * MIB).await.unwrap();
        (image.origin().path.to_owned(), image.origin().format, image.origin().size_bytes)
    });
    let taken = futures::future::join_all(takers).await;
    assert!(taken.iter().all(|one| *one == taken[0]), "{taken:?}");
    assert_eq!((taken[0].1, taken[0].2), (Format::Raw, MIB));
    assert_eq!(source.1.load(Ordering::Relaxed), 1, "it is read once");
    assert_eq!(std::fs::read(&taken[0].0).unwrap(), source.0);
}

#[tokio::test]
async fn a_qcow2_and_a_file_of_the_host_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).await.unwrap();
    let bytes = made(folder.path(), &["-f", "qcow2", "MADE", "4M"]).await;
    let path: PathBuf = folder.path().join("made");
    let image = cache.take(&digest(&bytes), &path, MIB, 64 * MIB).await.unwrap();
    assert_eq!((image.origin().format, image.origin().size_bytes), (Format::Qcow2, 4 * MIB));
}

#[tokio::test]
async fn what_is_not_safe_or_not_whole_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).await.unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, raw(9)).unwrap();
    let secret = secret.to_str().unwrap();
    let data_file = format!("data_file={secret}.data");
    let backed = ["-f", "qcow2", "-b", secret, "-F", "raw", "MADE", "1M"];
    let vmdk = made(folder.path(), &["-f", "vmdk", "MADE", "8M"]).await;
    let optimised = ["-f", "vmdk", "-o", "subformat=streamOptimized", "MADE", "8M"];
    let stream = made(folder.path(), &optimised).await;
    let fixed = ["-f", "vpc", "-o", "subformat=fixed,force_size=on", "MADE", "8M"];
    let fixed = made(folder.path(), &fixed).await;
    let at =
        |text: &str| vmdk.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
    let flat = format!("# Disk DescriptorFile\nversion=1\nRW 2048 FLAT \"{secret}\" 0\n");
    let flat = flat.into_bytes();
    let hint = format!("parentFileNameHint=\"{secret}\"\n");
    for (bytes, why) in [
        (made(folder.path(), &backed).await, "it has a backing file"),
        (
            made(folder.path(), &["-f", "qcow2", "-o", &data_file, "MADE", "1M"]).await,
            "it has its data in another file",
        ),
        (made(folder.path(), &["-f", "vdi", "MADE", "1M"]).await, "it is vdi"),
        (
            made(folder.path(), &["-f", "vmdk", "MADE", "65M"]).await,
            "and there is room for 67108864",
        ),
        (flat.clone(), "its data is in other files"),
        ([flat, vec![0; 1 << 20]].concat(), "its data is in other files"),
        (edited(&vmdk, 12, &[0; 8]), "its data is in other files"),
        (edited(&vmdk, at("ffffffff"), b"0badf00d"), "it is the difference to another file"),
        (edited(&vmdk, at("# The Disk"), hint.as_bytes()), "it is the difference to another file"),
        (edited(&vmdk, at("monolithicSparse"), b"monolithicFlat\" "), "its kind is none of"),
        // What is said of its size behind, where it is read again, is another thing than in its beginning.
        (with_footer(&stream, 8_192), "its disk has 8388608 bytes, or 4194304"),
        (with_sum(edited(&fixed, fixed.len() - 512 + 60, &[0, 0, 0, 4])), "it is the difference"),
        (edited(&fixed, fixed.len() - 512 + 60, &[0, 0, 0, 4]), "its header is broken"),
        (fixed[512..].to_vec(), "its disk has another size"),
        (b"QFI\xfb".to_vec(), "its header is cut off"),
        (vec![], "it is empty"),
        (vec![1; 700], "700 bytes: a raw image has a multiple of 512"),
    ] {
        let source = Sent::new(bytes);
        let fault = cache.take(&source.digest(), &source, 64 * MIB, 64 * MIB).await.unwrap_err();
        assert!(fault.to_string().contains(why), "{fault} is not {why}");
    }
    let (whole, large) = (Sent::new(raw(1)), Sent::new(raw(2)));
    let fault = cache.take(&large.digest(), &whole, MIB, 64 * MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Differs { .. }), "{fault}");
    let fault = cache.take(&large.digest(), &large, MIB - 1, 64 * MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Unfit(_)), "{fault}");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[tokio::test]
async fn what_a_disk_or_somebody_needs_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).await.unwrap();
    let disks = Directory::open(folder.path()).await.unwrap();
    let sources = [Sent::new(raw(1)), Sent::new(raw(2)), Sent::new(raw(3))];
    let [read_by_a_disk, used, unused] = [0, 1, 2].map(|at| sources[at].digest());
    let image = cache.take(&read_by_a_disk, &sources[0], MIB, 64 * MIB).await.unwrap();
    disks.create_on(Uuid::from_u128(1), image.origin(), MIB).await.unwrap();
    drop(image);
    let in_use = cache.take(&used, &sources[1], MIB, 64 * MIB).await.unwrap();
    drop(cache.take(&unused, &sources[2], MIB, 64 * MIB).await.unwrap());
    assert_eq!(cache.list().await.unwrap().len(), 3);

    let needed = BTreeSet::new();
    assert_eq!(cache.evict(8 * MIB, &needed, &disks).await.unwrap(), [], "all fit");
    assert_eq!(cache.evict(0, &needed, &disks).await.unwrap(), [unused]);
    drop(in_use);
    disks.delete(Uuid::from_u128(1)).await.unwrap();
    let named = BTreeSet::from([used]);
    assert_eq!(cache.evict(0, &named, &disks).await.unwrap(), [read_by_a_disk]);
    assert_eq!(names(folder.path()).len(), 1);
}

#[tokio::test]
async fn after_a_crash_at_any_step_the_image_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).await.unwrap();
    let source = Sent::new(raw(5));
    let digest = source.digest();
    let steps = die_everywhere(
        |_| async { cache.take(&digest, &source, MIB, 64 * MIB).await.map(drop) },
        async |n| {
            let image = cache.take(&digest, &source, MIB, 64 * MIB).await.unwrap();
            assert!(std::fs::read(image.origin().path).unwrap() == source.0, "{n}");
            assert_eq!(names(folder.path()).len(), 1, "{n}");
            std::fs::remove_file(image.origin().path).unwrap();
        },
    )
    .await;
    assert!(steps > 10, "{steps}");
}

/// A disk of 8 MiB with holes, and what `qemu-img` writes of it in a format.
async fn foreign(folder: &Path, words: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let mut disk = vec![0; 8 * MIB as usize];
    disk[..MIB as usize].copy_from_slice(&raw(3));
    disk[5 * MIB as usize..6 * MIB as usize].copy_from_slice(&raw(4));
    let (from, to) = (folder.join("disk"), folder.join("foreign"));
    std::fs::write(&from, &disk).unwrap();
    let paths = [from.to_str().unwrap(), to.to_str().unwrap()];
    let words = ["convert", "-q", "-f", "raw"].iter().chain(words).chain(&paths).copied();
    Tool::new("qemu-img", words.collect::<Vec<_>>()).run().await.unwrap();
    (disk, std::fs::read(to).unwrap())
}

#[tokio::test]
async fn disks_of_other_programs_are_kept_as_qcow2_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).await.unwrap();
    for words in [
        &["-O", "vmdk", "-o", "subformat=monolithicSparse"][..],
        &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        &["-O", "vpc", "-o", "subformat=dynamic,force_size=on"],
        &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
        &["-O", "vhdx", "-o", "subformat=dynamic"],
        &["-O", "vhdx", "-o", "subformat=fixed"],
    ] {
        let (disk, bytes) = foreign(folder.path(), words).await;
        let source = Sent::new(bytes);
        let small = cache.take(&source.digest(), &source, 64 * MIB, 8 * MIB - 1).await.unwrap_err();
        assert!(small.to_string().contains("and there is room for 8388607"), "{words:?}: {small}");
        let image = cache.take(&source.digest(), &source, 64 * MIB, 8 * MIB).await.unwrap();
        let origin = image.origin();
        assert_eq!((origin.format, origin.size_bytes), (Format::Qcow2, 8 * MIB), "{words:?}");
        let raw = folder.path().join("raw");
        let back = ["convert", "-q", "-f", "qcow2", "-O", "raw"].map(str::to_owned).into_iter();
        let paths = [origin.path, &raw].map(|path| path.to_str().unwrap().to_owned());
        Tool::new("qemu-img", back.chain(paths)).run().await.unwrap();
        assert!(std::fs::read(raw).unwrap() == disk, "{words:?}");
        let kept = names(folder.path());
        assert_eq!(kept, [format!("{}.qcow2", source.digest().as_str())], "{words:?}");
        std::fs::remove_file(origin.path).unwrap();
    }
}

#[tokio::test]
async fn after_a_crash_at_any_step_of_a_conversion_the_image_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).await.unwrap();
    let (_, bytes) = foreign(folder.path(), &["-O", "vmdk"]).await;
    let source = Sent::new(bytes);
    let digest = source.digest();
    let steps = die_everywhere(
        |_| async { cache.take(&digest, &source, 64 * MIB, 8 * MIB).await.map(drop) },
        async |n| {
            let image = cache.take(&digest, &source, 64 * MIB, 8 * MIB).await.unwrap();
            let origin = image.origin();
            assert_eq!((origin.format, origin.size_bytes), (Format::Qcow2, 8 * MIB), "{n}");
            let check = Tool::new(
                "qemu-img",
                ["check", "-q", "-f", "qcow2", origin.path.to_str().unwrap()],
            );
            check.run().await.unwrap();
            assert_eq!(names(folder.path()).len(), 1, "{n}");
            std::fs::remove_file(origin.path).unwrap();
        },
    )
    .await;
    assert!(steps > 10, "{steps}");
}
