//! Orders of backups and snapshots, as they come from the log: a disk is backed up into a stand-in for S3
//! while its server runs, a snapshot of it is taken, and other servers and disks are made from both.

use std::{collections::BTreeMap, path::PathBuf, process::Command, time::SystemTime};

use adapters_backup::port::S3Stores;
use adapters_clouds::testing::Hand;
use adapters_kvm::driver::{KvmHost, Side, Step};
use commands::ports::{
    BackupStores as _, DriverFault, HostTask, ImageStores as _, Report, StoreAccess, StoreKeys,
};
use domain::{
    compute::{
        backup::{Backup, Made},
        backup_store::Place,
        disk::{self, Disk},
        server::{Order, parts},
        snapshot::Snapshot,
    },
    kernel::{Decider, OrderKey, StreamId},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::host::{End, Guest, Host, Launch};

pub(crate) const STORE: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_5706);

pub(crate) async fn access() -> StoreAccess {
    let aws = std::env::var("SKYLEDGER_TEST_AWS").expect("run the tests with ./test");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let bucket = format!("kept-{now}");
    let made = Hand::new(&aws).object("PUT", &bucket, Vec::new()).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    StoreAccess {
        place: Place {
            endpoint: Some(aws),
            region: "us-east-1".into(),
            bucket,
            prefix: "lab/".into(),
        },
        keys: StoreKeys {
            access_key_id: "AKIASKYLEDGERTEST00".into(),
            secret_access_key: "x".into(),
            encryption_key: Some("0a".repeat(32)),
        },
    }
}

/// A stream's state after these facts, and the order that is out then.
pub(crate) struct Stream<D> {
    pub(crate) id: Uuid,
    pub(crate) state: D,
    pub(crate) store: StoreAccess,
}

impl<D: Decider> Stream<D> {
    pub(crate) fn of(id: u128, store: &StoreAccess, event: &str, data: Value) -> Self {
        let id = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + id);
        Self { id, state: D::default(), store: store.clone() }.then(event, data)
    }

    pub(crate) fn then(mut self, event: &str, data: Value) -> Self {
        let event = serde_json::from_value(json!({"type": event, "data": data})).unwrap();
        self.state = self.state.evolve(event);
        self
    }

    pub(crate) fn task(&self, server: &Launch) -> HostTask {
        let out = self.state.order().unwrap();
        HostTask {
            key: OrderKey { stream: StreamId::new(D::KIND, self.id), number: out.number },
            order: serde_json::to_value(out.order).unwrap(),
            state: server.state.clone(),
            subject: serde_json::to_value(&self.state).unwrap(),
            userdata: None,
            password: None,
            stores: BTreeMap::from([(STORE, self.store.clone())]),
            leases: std::collections::BTreeMap::new(),
        }
    }

    /// Carries its order out, twice, and gives what the second report says.
    pub(crate) async fn done(&self, driver: &KvmHost, server: &Launch) -> Report {
        let task = self.task(server);
        let first = driver.carry_out(&task).await.unwrap();
        let second = driver.carry_out(&task).await.unwrap();
        assert_eq!((first.verb, &first.body), (second.verb, &second.body), "twice is once");
        second
    }
}

pub(crate) fn backup(
    id: u128,
    store: &StoreAccess,
    of: (&Launch, Uuid),
    parent: Option<Uuid>,
) -> Stream<Backup> {
    let own = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + id);
    let found = json!({
        "id": own, "host": Uuid::from_u128(7), "server": of.0.id, "disk_name": "root",
    });
    let creation = json!({
        "name": "nightly", "disk": of.1, "store": STORE, "parent": parent, "found": found,
    });
    let data = json!({"creation": creation, "at": "2026-03-04T05:06:07Z"});
    Stream::of(id, store, "creation-ordered", data)
}

pub(crate) fn made(report: &Report) -> Made {
    assert_eq!(report.verb, "confirm");
    serde_json::from_value(report.body["made"].clone()).unwrap()
}

/// A disk for a server, made from something.
pub(crate) fn copy(
    id: u128,
    store: &StoreAccess,
    of: (&Launch, u64, &str),
    source: &disk::Source,
) -> Stream<Disk> {
    let own = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + id);
    let (server, size_gib, format) = of;
    let creation = json!({
        "name": "copy", "server": server.id, "size_gib": size_gib, "format": format,
        "from": source.from(),
        "found": {"id": own, "host": Uuid::from_u128(7), "source": source},
    });
    Stream::of(id, store, "creation-ordered", creation)
}

pub(crate) fn files(host: &Host, id: Uuid) -> PathBuf {
    let folder = host.data.path().join("disks");
    let all = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = all.filter(|path| path.file_stem().unwrap() == id.to_string().as_str());
    found.next().unwrap()
}

/// Every byte of two disks that nothing uses is the same; what one has more reads as zeroes.
pub(crate) fn same(host: &Host, one: Uuid, other: Uuid) {
    let compared = Command::new("qemu-img")
        .arg("compare")
        .args([files(host, one), files(host, other)])
        .output();
    let compared = compared.unwrap();
    let said = String::from_utf8_lossy(&compared.stdout);
    assert!(compared.status.success() && said.contains("identical"), "{said}");
}

/// The same server under another id, whose first disk is made from something.
fn made_from(
    host: &Host,
    number: u128,
    source: &disk::Source,
    store: &StoreAccess,
) -> (Launch, HostTask) {
    let mut server = host.launch(number, "sk-test-70", "#!/bin/sh\n");
    let home = server.state.home.as_mut().unwrap();
    home.parts.image = None;
    let root = &mut home.parts.disks[0];
    *root = parts::Disk { from_image: false, source: Some(source.clone()), ..root.clone() };
    home.parts.disks.truncate(1);
    let mut task = server.order(1, &Order::Launch {});
    task.stores.insert(STORE, store.clone());
    (server, task)
}

#[tokio::test]
async fn what_was_backed_up_while_it_ran_is_a_new_server_elsewhere_and_every_byte_is_the_same() {
    let Some(host) = Host::of_tests().await else { return };
    let mut driver = host.driver().await;
    let store = access().await;
    S3Stores.verify(&store).await.unwrap();
    let web = host.launch(70, "sk-test-70", "#!/bin/sh\n");
    web.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, web.id).await;
    guest.run("echo kept >/state/note; sync").await;
    let root = web.state.home.as_ref().unwrap().parts.disks[0].id;

    // Running, full and on it; by S3 it is there, whole, sealed.
    let full = backup(1, &store, (&web, root), None);
    let first = made(&full.done(&driver, &web).await);
    assert_eq!((first.size_bytes, first.digest.len()), (1 << 30, 64));
    guest.run("echo more >/state/more; sync").await;
    let more = backup(2, &store, (&web, root), Some(full.id));
    let second = made(&more.done(&driver, &web).await);
    assert!(second.read_bytes < first.read_bytes / 4, "{second:?}");
    let listed = S3Stores.list(&store).await.unwrap();
    assert_eq!(listed, [(root, full.id), (root, more.id)]);
    let found = S3Stores.find(&store, root, more.id).await.unwrap();
    assert_eq!((found.made, found.parent), (second.clone(), Some(full.id)));
    assert_eq!(S3Stores.check(&store, root, more.id, &second.digest).await.unwrap(), None);
    let mut other = store.clone();
    other.keys.encryption_key = Some("0b".repeat(32));
    let sealed = S3Stores.find(&other, root, more.id).await.unwrap_err();
    assert!(matches!(sealed, DriverFault::Rejected(_)), "{sealed}");

    // A snapshot while it runs, and what comes after it.
    let place = json!({
        "id": Uuid::from_u128(3), "host": Uuid::from_u128(7), "server": web.id, "size_gib": 1,
    });
    let creation = json!({"name": "before", "disk": root, "found": place});
    let creation = json!({"creation": creation, "at": "2026-03-04T05:06:07Z"});
    let snapshot = Stream::<Snapshot>::of(3, &store, "creation-ordered", creation);
    assert_eq!(snapshot.done(&driver, &web).await.verb, "confirm");
    guest.run("echo lost >/state/note; sync").await;
    web.done(&driver, 2, Order::Stop {}).await;

    // What a server that is stopped has, every byte; the agent dies and fails around it.
    let stopped = backup(4, &store, (&web, root), Some(more.id));
    let third = made(&stopped.done(&driver, &web).await);
    let source = |backup: Uuid, digest: &str| disk::Source::Backup {
        backup,
        disk: root,
        store: STORE,
        digest: digest.to_owned(),
    };
    let wrong = copy(5, &store, (&web, 1, "qcow2"), &source(stopped.id, &"00".repeat(32)));
    let refused = driver.carry_out(&wrong.task(&web)).await.unwrap_err();
    assert!(matches!(&refused, DriverFault::Rejected(why) if why.contains("another")), "{refused}");
    let copy_of = copy(6, &store, (&web, 2, "qcow2"), &source(stopped.id, &third.digest));
    for (end, side) in
        [(End::Dies, Side::Before), (End::Fails, Side::After), (End::Dies, Side::After)]
    {
        drop(driver);
        host.cut(end, (Step::Fill, side), &copy_of.task(&web)).await;
        driver = host.driver().await;
    }
    copy_of.done(&driver, &web).await;
    same(&host, root, copy_of.id);
    let raw = copy(7, &store, (&web, 1, "raw"), &source(stopped.id, &third.digest));
    raw.done(&driver, &web).await;
    same(&host, root, raw.id);

    // An image of it has every byte, is the same when it is made again, and a server is made from it.
    let image = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_1a6e);
    let of = (root, stopped.id, third.digest.as_str());
    let (sha256, bytes) = S3Stores.make_image(&store, image, of).await.unwrap();
    let again = S3Stores.make_image(&store, image, of).await.unwrap();
    assert_eq!(again, (sha256.clone(), bytes));
    assert_eq!(S3Stores.image_size(&store, image).await.unwrap(), Some(bytes));
    assert!(bytes < third.size_bytes / 2, "what is zeroes is not in it: {bytes}");
    let hour = std::time::Duration::from_hours(1);
    let address = S3Stores.image_address(&store, image, hour).unwrap();
    let golden = host.launch(73, "sk-test-70", "#!/bin/sh\n").with(|home| {
        home["parts"]["image"]["sha256"] = json!(sha256);
        home["parts"]["image"]["format"] = json!("qcow2");
        home["parts"]["image"]["source"] = json!({"url": address});
        home["parts"]["image"]["size_mib"] = json!(bytes.div_ceil(1 << 20));
    });
    golden.done(&driver, 1, Order::Launch {}).await;
    let cached = host.data.path().join("images").join(format!("{sha256}.qcow2"));
    let of_copy = files(&host, raw.id);
    let compared = Command::new("qemu-img").arg("compare").args([&cached, &of_copy]).output();
    let compared = String::from_utf8_lossy(&compared.unwrap().stdout).into_owned();
    assert!(compared.contains("identical"), "{compared}");
    let checked = Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&cached).output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let guest = Guest::ready(&host, golden.id).await;
    assert_eq!(guest.run("cat /state/note /state/more").await, "lost\nmore", "as it was stopped");
    drop(guest);
    golden.removed(&driver, 2).await;

    // Another server, from the backup of the one that ran.
    let (again, task) = made_from(&host, 71, &source(more.id, &second.digest), &store);
    driver.carry_out(&task).await.unwrap();
    let guest = Guest::ready(&host, again.id).await;
    assert_eq!(guest.run("cat /state/note /state/more").await, "kept\nmore");
    drop(guest);
    again.removed(&driver, 2).await;

    // A copy of the snapshot, and back to it; then it is gone.
    let of_snapshot = disk::Source::Snapshot { snapshot: snapshot.id, disk: root };
    let cloned = copy(8, &store, (&web, 3, "raw"), &of_snapshot);
    cloned.done(&driver, &web).await;
    let back = snapshot
        .then("taken", json!({"number": 1}))
        .then("roll-back-ordered", json!({"place": place}));
    assert_eq!(back.done(&driver, &web).await.verb, "confirm");
    same(&host, root, cloned.id);
    let gone = back
        .then("rolled-back", json!({"number": 2}))
        .then("removal-ordered", json!({"place": place}));
    assert_eq!(gone.done(&driver, &web).await.verb, "confirm-removal");
    web.done(&driver, 3, Order::Start {}).await;
    let guest = Guest::ready(&host, web.id).await;
    assert_eq!(guest.run("cat /state/note").await, "kept");
    web.removed(&driver, 4).await;

    // What is forgotten leaves the store when it is collected twice.
    for backup in [&full, &more, &stopped] {
        S3Stores.forget(&store, root, backup.id).await.unwrap();
    }
    let first = S3Stores.collect(&store).await.unwrap();
    let second = S3Stores.collect(&store).await.unwrap();
    assert!(first.condemned > 0 && second.removed == first.condemned, "{first:?} {second:?}");
    assert_eq!(std::fs::read_dir(host.data.path().join("backups")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_disk_is_restored_in_its_place_once_whatever_dies() {
    let Some(host) = Host::of_tests().await else { return };
    let mut driver = host.driver().await;
    let store = access().await;
    let web = host.launch(72, "sk-test-72", "#!/bin/sh\n");
    web.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, web.id).await;
    guest.run("echo kept >/state/note; sync").await;
    let root = web.state.home.as_ref().unwrap().parts.disks[0].id;
    let full = backup(21, &store, (&web, root), None);
    let made = made(&full.done(&driver, &web).await);
    guest.run("echo lost >/state/note; sync").await;
    drop(guest);

    let creation = json!({
        "name": "root", "server": web.id, "size_gib": 1,
        "found": {"id": root, "host": Uuid::from_u128(7)},
    });
    let source = |digest: &str| json!({"backup": {"backup": full.id, "disk": root, "store": STORE, "digest": digest}});
    let restored = |digest: &str| {
        Stream::<Disk> { id: root, state: Disk::default(), store: store.clone() }
            .then("provisioned", json!({"creation": creation, "root": true}))
            .then("made", json!({}))
            .then("restore-ordered", json!({"source": source(digest)}))
    };
    let restore = restored(&made.digest);
    let task = restore.task(&web);
    let runs = driver.carry_out(&task).await.unwrap_err();
    assert!(matches!(&runs, DriverFault::Rejected(why) if why.contains("stop it first")), "{runs}");
    web.done(&driver, 2, Order::Stop {}).await;
    let wrong = driver.carry_out(&restored(&"00".repeat(32)).task(&web)).await.unwrap_err();
    assert!(matches!(wrong, DriverFault::Rejected(_)), "{wrong}");

    // It is the old one until it is the new one.
    let mut number = 2;
    for (end, side, note) in [
        (End::Dies, Side::Before, "lost"),
        (End::Fails, Side::Before, "lost"),
        (End::Dies, Side::After, "kept"),
    ] {
        drop(driver);
        host.cut(end, (Step::Replace, side), &task).await;
        driver = host.driver().await;
        number += 2;
        web.done(&driver, number - 1, Order::Start {}).await;
        let guest = Guest::ready(&host, web.id).await;
        assert_eq!(guest.run("cat /state/note").await, note, "{end:?} {side:?}");
        // What is written now is nobody's to lose: it was restored already.
        guest.run("echo since >>/state/note; sync").await;
        if note == "lost" {
            guest.run("echo lost >/state/note; sync").await;
        }
        drop(guest);
        web.done(&driver, number, Order::Stop {}).await;
    }
    let report = driver.carry_out(&task).await.unwrap();
    assert_eq!((report.verb, &report.body["seen"]["size_bytes"]), ("confirm", &json!(1 << 30)));
    web.done(&driver, number + 1, Order::Start {}).await;
    let guest = Guest::ready(&host, web.id).await;
    assert_eq!(guest.run("cat /state/note").await, "kept\nsince");
    drop(guest);
    assert_eq!(std::fs::read_dir(host.data.path().join("backups")).unwrap().count(), 0);
    web.removed(&driver, number + 2).await;
}
