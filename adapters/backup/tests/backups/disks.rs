//! Disks of QEMU's tools: read without a copy, written back, compared.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use adapters_backup::{
    Store,
    chunk::Seal,
    nbd::{self, Offer},
    source::file::RawFile,
    target,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::rules::{CHUNK, DISK, asked};
use crate::s3::{bucket, s3, stand_in};

const MIB: u64 = 1 << 20;

async fn tool(words: &[&str]) -> String {
    let done = Command::new(words[0]).args(&words[1..]).output().await.unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    text
}

/// `qemu-nbd` on a file; it ends with what is returned.
struct Offered {
    socket: PathBuf,
    _child: Child,
}

impl Offered {
    async fn of(folder: &Path, file: &Path, format: &str, read_only: bool) -> Self {
        let socket = folder.join("nbd.socket");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("qemu-nbd");
        command.args(["--format", format, "--socket", socket.to_str().unwrap()]);
        if read_only {
            command.arg("--read-only");
        }
        let child = command.arg(file).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let began = Instant::now();
        // It makes its socket when it is ready, and tells nobody.
        while !socket.exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "qemu-nbd offers nothing");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { socket, _child: child }
    }

    async fn disk(&self, bitmap: Option<&str>) -> nbd::Disk {
        let offer = Offer { socket: &self.socket, export: "", bitmap };
        nbd::Disk::connect(offer).await.unwrap()
    }
}

async fn store() -> Store {
    Store::new(Arc::new(s3(&bucket(&stand_in()).await)), Seal::plain())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A disk (qcow2) on a raw image, with something of its own.
async fn disk(folder: &TempDir) -> PathBuf {
    let (image, disk) = (folder.path().join("image"), folder.path().join("disk.qcow2"));
    tool(&["truncate", "-s", "8M", text(&image)]).await;
    tool(&["qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", text(&image)]).await;
    let words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", text(&image), "-F", "raw"];
    tool(&[&words[..], &[text(&disk), "16M"]].concat()).await;
    for write in ["write -P 1 2M 100k", "write -P 2 9M 3M", "write -z 512k 256k"] {
        tool(&["qemu-io", "-f", "qcow2", "-c", write, text(&disk)]).await;
    }
    disk
}

#[tokio::test]
async fn a_stopped_disk_is_read_where_it_has_something_and_written_into_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(&folder).await;
    let store = store().await;
    let offered = Offered::of(folder.path(), &disk, "qcow2", true).await;
    let source = offered.disk(None).await;
    assert!(source.to_read_bytes(CHUNK as u32) < 5 * MIB);
    let taken = store.take(&asked(1, None), &source).await.unwrap();
    source.close().await.unwrap();
    assert_eq!(taken.size_bytes, 16 * MIB);
    assert!(taken.read_bytes < 5 * MIB, "holes are not read: {}", taken.read_bytes);

    let back = folder.path().join("back.qcow2");
    tool(&["qemu-img", "create", "-q", "-f", "qcow2", text(&back), "16M"]).await;
    let offered = Offered::of(folder.path(), &back, "qcow2", false).await;
    let into = offered.disk(None).await;
    store.restore((DISK, Uuid::from_u128(1)), Some(&taken.digest()), &into).await.unwrap();
    into.close().await.unwrap();
    // The locks of the server that wrote it.
    drop(offered);
    let words = ["qemu-img", "compare", "-U", "-f", "qcow2", "-F", "qcow2"];
    tool(&[&words[..], &[text(&disk), text(&back)]].concat()).await;

    let raw = folder.path().join("back.raw");
    let into = target::RawFile::create(&raw, 16 * MIB).await.unwrap();
    store.restore((DISK, Uuid::from_u128(1)), None, &into).await.unwrap();
    let words = ["qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw"];
    tool(&[&words[..], &[text(&disk), text(&raw)]].concat()).await;
    let taken: u64 =
        tool(&["du", "-B1", text(&raw)]).await.split('\t').next().unwrap().parse().unwrap();
    assert!(taken < 5 * MIB, "holes stay holes: {taken}");
}

#[tokio::test]
async fn a_raw_file_is_read_without_its_holes() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("disk.raw");
    tool(&["truncate", "-s", "64M", text(&raw)]).await;
    tool(&["qemu-io", "-f", "raw", "-c", "write -P 3 33M 130k", text(&raw)]).await;
    let store = store().await;
    let source = RawFile::open(&raw).await.unwrap();
    let taken = store.take(&asked(1, None), &source).await.unwrap();
    assert!(taken.read_bytes <= 4 * CHUNK as u64, "{}", taken.read_bytes);
    let back = folder.path().join("back.raw");
    let into = target::RawFile::create(&back, 64 * MIB).await.unwrap();
    store.restore((DISK, Uuid::from_u128(1)), None, &into).await.unwrap();
    tool(&["cmp", text(&raw), text(&back)]).await;
    // Nothing is written over what is there.
    target::RawFile::create(&back, 64 * MIB).await.unwrap_err();
}

#[tokio::test]
async fn a_bitmap_that_is_not_there_and_a_socket_that_is_not_are_faults() {
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(&folder).await;
    let offered = Offered::of(folder.path(), &disk, "qcow2", true).await;
    let offer = Offer { socket: &offered.socket, export: "", bitmap: Some("none") };
    let fault = nbd::Disk::connect(offer).await.unwrap_err();
    let why = std::error::Error::source(&fault).unwrap().to_string();
    assert!(why.contains("there is no qemu:dirty-bitmap:none"), "{why}");
    let offer = Offer { socket: &folder.path().join("none"), export: "", bitmap: None };
    nbd::Disk::connect(offer).await.unwrap_err();
}
