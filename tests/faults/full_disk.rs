//! The disk is full: refused as such, nothing lost, and it goes on when there is room.
//!
//! On a file system of its own where this may be mounted (as root); and always by SQLite's own bound
//! on the size of its file, which ends in the same error at the same place.

use std::{fs, io::Write, path::Path, process::Command};

use adapters_store_sqlite::{Options, Store};
use commands::ports::{AppendFault, EventLog, LogFault};

use serde_json::json;

use crate::{
    served::Served,
    support::{request, whole},
};

/// A small file system, unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        let what = if mounted { "is" } else { "CANNOT BE (only root may)" };
        println!("a small file system {what} mounted at {}", at.display());
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
    let Some(_small) = Small::mount(folder.path()) else { return };
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

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_file_refuses_and_loses_nothing_and_a_wider_bound_lets_it_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = &folder.path().join("log.sqlite");
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

/// The whole server, over HTTP: who writes is told 503 and why, who reads is answered, and when
/// there is room the same server goes on, its views too.
#[test]
fn a_server_on_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path()) else { return };
    let server = Served::start(&folder.path().join("data"), "sqlite");
    let place = server.place();
    let mut acked: Vec<(String, u64)> = Vec::new();
    let mut create_until = |most: usize| loop {
        if acked.len() == most {
            return None;
        }
        let answer = place.create(&format!("k{}", acked.len())).unwrap();
        if answer.status != 201 {
            return Some(answer);
        }
        let position = answer.body["position"].as_u64().unwrap();
        acked.push((answer.body["id"].as_str().unwrap().to_owned(), position));
    };
    assert!(create_until(20).is_none());
    // As much as fits, and room again for some commands and their rows.
    let filler = folder.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - (512 << 10)).unwrap();
    let full = create_until(usize::MAX).unwrap();
    assert!(acked.len() > 20, "{}", acked.len());
    for answer in [full, place.create("another").unwrap()] {
        assert_eq!((answer.status, &answer.body["code"]), (503, &json!("log-full")), "{answer:?}");
    }
    let read = place.get("/v1/audit/events?kind=project", &[]).unwrap();
    assert_eq!(read.status, 200, "{read:?}");

    drop(file);
    fs::remove_file(&filler).unwrap();
    // Under the key that was refused: nothing of it was written.
    let first = place.create(&format!("k{}", acked.len())).unwrap();
    assert_eq!((first.status, &first.body["repeated"]), (201, &json!(false)), "{first:?}");
    let position = first.body["position"].to_string();
    for (index, (id, position)) in acked.iter().enumerate() {
        let again = place.create(&format!("k{index}")).unwrap();
        assert_eq!((&again.body["id"], &again.body["repeated"]), (&json!(id), &json!(true)));
        assert_eq!(again.body["position"], *position);
    }
    let newest = format!("/v1/projects/{}", first.body["id"].as_str().unwrap());
    let shown = place.get(&newest, &[("skyledger-min-position", &position)]).unwrap();
    assert_eq!(shown.status, 200, "the views go on too: {shown:?}");
    println!("{} were acknowledged before the disk was full", acked.len());
    server.kill();
}
