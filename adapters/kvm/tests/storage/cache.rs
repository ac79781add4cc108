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
        let image = cache.take(&digest, &source, MIB).await.unwrap();
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
    let image = cache.take(&digest(&bytes), &path, MIB).await.unwrap();
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
    for (bytes, why) in [
        (made(folder.path(), &backed).await, "it has a backing file"),
        (
            made(folder.path(), &["-f", "qcow2", "-o", &data_file, "MADE", "1M"]).await,
            "it has its data in another file",
        ),
        (made(folder.path(), &["-f", "vmdk", "MADE", "1M"]).await, "it is vmdk"),
        (made(folder.path(), &["-f", "vdi", "MADE", "1M"]).await, "it is vdi"),
        (made(folder.path(), &["-f", "vhdx", "MADE", "8M"]).await, "it is vhdx"),
        (b"QFI\xfb".to_vec(), "its header is cut off"),
        (vec![], "it is empty"),
        (vec![1; 700], "700 bytes: a raw image has a multiple of 512"),
    ] {
        let source = Sent::new(bytes);
        let fault = cache.take(&source.digest(), &source, 64 * MIB).await.unwrap_err();
        assert!(fault.to_string().contains(why), "{fault} is not {why}");
    }
    let (whole, large) = (Sent::new(raw(1)), Sent::new(raw(2)));
    let fault = cache.take(&large.digest(), &whole, MIB).await.unwrap_err();
    assert!(matches!(fault, StorageFault::Differs { .. }), "{fault}");
    let fault = cache.take(&large.digest(), &large, MIB - 1).await.unwrap_err();
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
    let image = cache.take(&read_by_a_disk, &sources[0], MIB).await.unwrap();
    disks.create_on(Uuid::from_u128(1), image.origin(), MIB).await.unwrap();
    drop(image);
    let in_use = cache.take(&used, &sources[1], MIB).await.unwrap();
    drop(cache.take(&unused, &sources[2], MIB).await.unwrap());
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
        |_| async { cache.take(&digest, &source, MIB).await.map(drop) },
        async |n| {
            let image = cache.take(&digest, &source, MIB).await.unwrap();
            assert!(std::fs::read(image.origin().path).unwrap() == source.0, "{n}");
            assert_eq!(names(folder.path()).len(), 1, "{n}");
            std::fs::remove_file(image.origin().path).unwrap();
        },
    )
    .await;
    assert!(steps > 10, "{steps}");
}
