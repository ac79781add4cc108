//! The disk is full: refused as such, nothing lost, and it goes on when there is room.
//!
//! On a file system of its own where this may be mounted (as root), else by SQLite's own bound on
//! the size of its file, which ends in the same error at the same place.

use std::{fs, path::Path, process::Command};

use adapters_store_sqlite::{Options, Store};
use commands::ports::{AppendFault, EventLog, LogFault};

use crate::support::{request, whole};

/// A small file system, unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// Appends until it is refused; gives how many were acknowledged.
async fn fill(log: &dyn EventLog, from: u64) -> u64 {
    for number in from.. {
        match log.append(request(0, number)).await {
            Ok(_) => {}
            Err(AppendFault::Fault(LogFault::Full(_))) => return number - 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_loses_nothing_and_room_lets_it_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.sqlite");
    let Some(_small) = Small::mount(folder.path()) else {
        bounded(&path).await;
        return;
    };
    let filler = folder.path().join("filler");
    fs::write(&filler, vec![0; 12 << 20]).unwrap();
    let store = Store::open(&path, Options::default()).unwrap();
    let acked = fill(&store, 1).await;
    assert!(acked > 20, "{acked}");
    // Again and again, and reads go on meanwhile.
    assert_eq!(fill(&store, acked + 1).await, acked);
    assert_eq!(whole(&store).await.len() as u64, acked);

    fs::remove_file(&filler).unwrap();
    for number in acked + 1..acked + 101 {
        store.append(request(0, number)).await.unwrap();
    }
    assert_eq!(whole(&store).await.len() as u64, acked + 100);
    drop(store);
    let store = Store::open(&path, Options::default()).unwrap();
    assert_eq!(store.check(&|_| {}).await.unwrap().position, acked + 100);
}

async fn bounded(path: &Path) {
    let bounded = Options { bytes_max: Some(2 << 20), ..Options::default() };
    let store = Store::open(path, bounded).unwrap();
    let acked = fill(&store, 1).await;
    assert!(acked > 100, "{acked}");
    assert_eq!(whole(&store).await.len() as u64, acked);
    drop(store);
    let store = Store::open(path, Options::default()).unwrap();
    store.append(request(0, acked + 1)).await.unwrap();
    assert_eq!(store.check(&|_| {}).await.unwrap().position, acked + 1);
}
