//! Images whose files are uploaded: taken when they are what was described, found by hosts, and gone when
//! nothing needs them; whatever fails or dies on the way.

use std::{io, sync::Arc, time::Duration};

use adapters_sim::{HostFault, HostStep};
use commands::{
    images::{Taken, UploadFault},
    run_orders::Runner,
};
use domain::kernel::{Principal, Reach, Role, sha256};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    backups::{URL, detail},
    hosts::{Mortal, code},
    world::{World, small},
};

/// A raw disk.
fn file(content: u8) -> Vec<u8> {
    vec![content; 3 << 19]
}

fn described(store: Uuid, file: &[u8]) -> Value {
    let digest = sha256(file).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    json!({
        "name": "debian", "source": {"store": store}, "sha256": digest, "format": "raw",
        "size_mib": file.len().div_ceil(1 << 20), "architecture": "x86_64", "os": "linux",
        "firmware": "bios", "min_disk_gib": 1,
    })
}

impl World {
    async fn image(&self, store: Uuid, file: &[u8]) -> Uuid {
        self.send("image", None, "define", described(store, file)).await.unwrap().id
    }

    async fn upload(&self, image: Uuid, file: &[u8]) -> Result<Taken, UploadFault> {
        let pieces: Vec<_> = file.chunks(100_000).map(|piece| Ok(piece.to_vec())).collect();
        self.upload_pieces(image, pieces).await
    }

    async fn upload_pieces(
        &self,
        image: Uuid,
        pieces: Vec<io::Result<Vec<u8>>>,
    ) -> Result<Taken, UploadFault> {
        let pieces = stream::iter(pieces).boxed();
        self.ledger.upload_image(&Self::admin(), image, None, pieces).await
    }

    async fn launch_from(&self, image: Uuid) -> Result<Uuid, commands::submit::SubmitFault> {
        let body = json!({
            "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "image": image,
            "disks": [{"size_gib": 1}],
        });
        Ok(self.send("server", None, "launch", body).await?.id)
    }
}

fn no(result: Result<Taken, UploadFault>) -> String {
    match result {
        Err(UploadFault::Refused(refusal)) => format!("{}: {}", refusal.code.code, refusal.detail),
        Err(UploadFault::CutOff(why)) => format!("cut off: {why}"),
        Err(UploadFault::Store(fault)) => format!("store: {fault}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_uploaded_used_and_removed_with_its_file() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let disk = file(1);
    let image = world.image(store, &disk).await;
    assert_eq!(world.status(image).await, "awaiting");
    let early = world.launch_from(image).await;
    assert!(detail(early).contains("upload it first"));
    let retire = world.send("backup-store", store, "retire", json!({})).await;
    assert!(detail(retire).contains("lies there; retire it first"));

    let taken = world.upload(image, &disk).await.unwrap();
    assert_eq!((taken.file.size_bytes, taken.file.disk_bytes), (3 << 19, 3 << 19));
    world.caught_up().await;
    assert_eq!(world.status(image).await, "defined");
    assert_eq!(world.hosts.images(URL), [(image, 3 << 19)]);
    // Who has uploaded it is in its history.
    let history = world.history("image", image).await;
    let data: Value = serde_json::from_slice(history.last().unwrap().data()).unwrap();
    assert_eq!(data["by"], "token:admin");
    // Sent again, it is not taken again: nobody looks at what comes.
    let again = world.upload(image, &[]).await.unwrap();
    assert!(again.outcome.is_none() && again.file == taken.file);

    // A host gets an address in place of the store, and no keys.
    let web = world.launch_from(image).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(web).await, "running");
    world.through("server", web, "rebuild", json!({"stop": true})).await;
    assert_eq!(world.status(web).await, "running");

    // What an order may still fetch stays until that is through, also while it is parked.
    world.hosts.break_next(HostStep::Define, HostFault::Rejected("no".into()));
    let slow = world.launch_from(image).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(slow).await, "parked");
    world.send("image", image, "retire", json!({})).await.unwrap();
    world.caught_up().await;
    let runner = Runner::new(world.ledger.clone(), 4);
    for _ in 0..3 {
        runner.pass().await.unwrap();
        world.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(world.status(image).await, "removing");
    assert_eq!(world.hosts.images(URL).len(), 1);
    assert_eq!(code(world.launch_from(image).await), "invalid-field");
    world.through("server", slow, "retry", json!({})).await;
    assert_eq!(world.status(slow).await, "running");
    world.settle().await;
    assert_eq!((world.status(image).await.as_str(), world.hosts.images(URL)), ("retired", vec![]));
    let rebuild = world.send("server", web, "rebuild", json!({"stop": true})).await;
    assert!(detail(rebuild).contains("retired"));

    // The same file may come back.
    world.send("image", image, "define", described(store, &disk)).await.unwrap();
    world.upload(image, &disk).await.unwrap();
    world.caught_up().await;
    assert_eq!(world.status(image).await, "defined");
    world.through("image", image, "retire", json!({})).await;
    world.through("backup-store", store, "retire", json!({})).await;
    assert_eq!(world.status(store).await, "retired");
}

/// As it is asked for: of a disk or a backup.
fn golden(source: Value) -> Value {
    json!({
        "name": "golden", "source": source, "architecture": "x86_64", "os": "linux",
        "firmware": "bios",
    })
}

fn digest(content: &str) -> String {
    sha256(content.as_bytes()).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_made_from_a_disk_that_is_in_use_and_servers_from_it() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let of_disk = |disk: Uuid| golden(json!({"disk": {"disk": disk, "store": store}}));

    // One command, of a server that runs.
    let image = world.send("image", None, "define", of_disk(disk)).await.unwrap().id;
    assert_eq!(world.status(image).await, "making");
    assert!(detail(world.launch_from(image).await).contains("it is being made"));
    let grow = world.send("disk", disk, "grow", json!({"size_gib": 2})).await;
    assert_eq!(code(grow), "in-use", "it is read");
    assert_eq!(code(world.send("image", None, "define", of_disk(disk)).await), "in-use");
    let retire = world.send("backup-store", store, "retire", json!({})).await;
    assert!(detail(retire).contains("retire it first"));
    world.settle().await;
    let row = world.row(image).await;
    assert_eq!((&row["status"], &row["name"]), (&json!("defined"), &json!("golden")));
    let known = &row["state"]["definition"];
    assert_eq!((&known["sha256"], &known["min_disk_gib"]), (&json!(digest("first")), &json!(1)));
    assert_eq!((&known["format"], &known["size_mib"]), (&json!("qcow2"), &json!(1)));
    assert_eq!(world.hosts.images(URL), [(image, 5)]);
    assert!(world.hosts.backups(URL).is_empty(), "the backup that was made for it is gone");
    assert_eq!(world.status(web).await, "running");

    // A new server has what was on the disk then, also when the first one is gone.
    world.hosts.write(disk, "second");
    for verb in ["stop", "delete", "purge"] {
        world.through("server", web, verb, json!({})).await;
    }
    let copy = world.launch_from(image).await.unwrap();
    world.settle().await;
    let root = world.server(copy).await.home.unwrap().parts.disks[0].id;
    assert_eq!(world.hosts.disks(host)[&root], (1, Some(digest("first"))));

    // Called otherwise it is the same; gone it is not made again.
    let mut renamed = of_disk(disk);
    renamed["name"] = json!("silver");
    world.send("image", image, "define", renamed.clone()).await.unwrap();
    world.caught_up().await;
    assert_eq!(world.row(image).await["name"], "silver");
    world.through("image", image, "retire", json!({})).await;
    assert_eq!((world.status(image).await.as_str(), world.hosts.images(URL)), ("retired", vec![]));
    assert_eq!(code(world.send("image", image, "define", renamed).await), "wrong-state");

    // From a backup, which stays.
    world.hosts.write(root, "third");
    let backup = world.back_up(root, store, None).await.unwrap();
    let early = world.send("image", None, "define", golden(json!({"backup": backup}))).await;
    assert_eq!(code(early), "wrong-state", "it is not there yet");
    world.settle().await;
    let image = world.send("image", None, "define", golden(json!({"backup": backup}))).await;
    let image = image.unwrap().id;
    assert_eq!(code(world.send("backup", backup, "delete", json!({})).await), "in-use");
    world.settle().await;
    assert_eq!(world.row(image).await["state"]["definition"]["sha256"], digest("third"));
    assert_eq!(world.hosts.backups(URL).into_keys().collect::<Vec<_>>(), [backup]);
    world.through("backup", backup, "delete", json!({})).await;
    let copy = world.launch_from(image).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(copy).await, "running", "the image needs its backup no more");

    // Whatever is wrong leaves nothing.
    let position = world.log.head().await.unwrap().position;
    let root = world.server(copy).await.home.unwrap().parts.disks[0].id;
    for (changes, no) in [
        (json!({"sha256": "0a".repeat(32)}), "are found out when it is made"),
        (json!({"size_mib": 3}), "are found out when it is made"),
        (json!({"format": "raw"}), "are found out when it is made"),
        (json!({"found": {"id": root, "backup": root, "store": store}}), "the server's to fill in"),
        (json!({"source": {"disk": {"disk": Uuid::nil(), "store": store}}}), "there is no disk"),
        (json!({"source": {"disk": {"disk": root, "store": Uuid::nil()}}}), "no backup-store"),
        (json!({"source": {"backup": Uuid::nil()}}), "there is no backup"),
        (json!({"architecture": "aarch64"}), "only x86_64 has a BIOS"),
    ] {
        let mut body = of_disk(root);
        for (field, value) in changes.as_object().unwrap() {
            body[field] = value.clone();
        }
        assert!(detail(world.send("image", None, "define", body).await).contains(no), "{changes}");
    }
    assert_eq!(world.log.head().await.unwrap().position, position);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_disk_is_made_once_whatever_fails_and_dies() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (_, disk) = world.with_data("web", "first").await;
    let define = || golden(json!({"disk": {"disk": disk, "store": store}}));
    let steps = [HostStep::BackUp, HostStep::StoreImage, HostStep::StoreForget];
    for fault in [HostFault::Transient, HostFault::AnswerLost] {
        for step in steps {
            world.hosts.break_next(step, fault.clone());
        }
        let mortal = Arc::new(Mortal::default());
        let image = world.send("image", None, "define", define()).await.unwrap().id;
        world.settle_with(Some(mortal.clone())).await;
        assert!(mortal.deaths() >= 9, "the backup, the image and the removal: {}", mortal.deaths());
        assert_eq!(world.row(image).await["state"]["definition"]["sha256"], digest("first"));
        assert!(world.hosts.backups(URL).is_empty());
        world.through("image", image, "retire", json!({})).await;
    }
    assert_eq!(world.hosts.hit().len(), 6, "{:?}", world.hosts.hit());

    // What is damaged makes none: it is parked, and leaves nothing when it is given up.
    let backup = world.back_up(disk, store, None).await.unwrap();
    world.settle().await;
    world.hosts.damage(URL, backup);
    let image = world.send("image", None, "define", golden(json!({"backup": backup}))).await;
    let image = image.unwrap().id;
    world.settle().await;
    assert_eq!(world.status(image).await, "parked");
    world.through("image", image, "abandon", json!({})).await;
    assert_eq!((world.status(image).await.as_str(), world.hosts.images(URL)), ("retired", vec![]));
    world.through("backup", backup, "delete", json!({})).await;
    assert_eq!(world.status(backup).await, "gone", "nothing needs it");

    // A disk that cannot be read: its backup is what is given up, and then the image.
    world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no such disk".into()));
    let image = world.send("image", None, "define", define()).await.unwrap().id;
    // It waits for its backup, which is parked: not all is settled.
    let runner = Runner::new(world.ledger.clone(), 4);
    for _ in 0..5 {
        world.caught_up().await;
        runner.pass().await.unwrap();
        world.clock.advance(Duration::from_secs(10));
    }
    world.caught_up().await;
    assert_eq!(world.status(image).await, "making");
    let of = world.row(image).await["state"]["definition"]["found"]["backup"].clone();
    let of: Uuid = serde_json::from_value(of).unwrap();
    assert_eq!(world.status(of).await, "parked");
    world.through("backup", of, "abandon", json!({})).await;
    assert_eq!(world.status(image).await, "parked");
    world.through("image", image, "abandon", json!({})).await;
    assert_eq!(world.status(image).await, "retired");
    assert!(world.hosts.backups(URL).is_empty() && world.hosts.images(URL).is_empty());
    world.through("disk", disk, "grow", json!({"size_gib": 2})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disc_stays_in_its_store_until_it_is_in_no_drive() {
    let world = World::empty(small());
    let store = world.store("vault").await;
    world.host("kvm-1", 1, 4, 4_096).await;
    let mut disc = vec![0; 40_960];
    disc[32_769..32_774].copy_from_slice(b"CD001");
    let mut body = described(store, &disc);
    body["format"] = json!("iso");
    let image = world.send("image", None, "define", body).await.unwrap().id;
    world.upload(image, &disc).await.unwrap();
    let body = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}], "cdrom": image,
    });
    let web = world.send("server", None, "launch", body).await.unwrap().id;
    world.settle().await;
    assert_eq!(world.status(web).await, "running", "its host had an address of the file");
    world.send("image", image, "retire", json!({})).await.unwrap();
    world.caught_up().await;
    let runner = Runner::new(world.ledger.clone(), 4);
    for _ in 0..3 {
        runner.pass().await.unwrap();
        world.clock.advance(Duration::from_secs(10));
    }
    assert_eq!(
        (world.status(image).await.as_str(), world.hosts.images(URL).len()),
        ("removing", 1)
    );
    world.through("server", web, "change-cdrom", json!({})).await;
    world.settle().await;
    assert_eq!((world.status(image).await.as_str(), world.hosts.images(URL)), ("retired", vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_and_what_is_cut_off_leaves_nothing() {
    let world = World::empty(small());
    let store = world.store("vault").await;
    let disk = file(2);
    let image = world.image(store, &disk).await;
    let other = world.upload(image, &file(3)).await;
    assert!(no(other).starts_with("wrong-file: sha256: the file has "));
    let short = world.upload(image, &disk[..1 << 20]).await;
    assert_eq!(no(short), "wrong-file: size_mib: the file has 1 MiB, and the image says 2");
    let vdi = world.upload(image, &[b"<<< ".as_slice(), &disk[4..]].concat()).await;
    assert!(no(vdi).contains("the file is vdi: convert it"));
    let vmdk = world.upload(image, &[b"KDMV".as_slice(), &disk[4..]].concat()).await;
    assert!(no(vmdk).contains("the file is not taken: its version is none of 1 to 3"));
    let gone = Err(io::Error::other("reset"));
    let cut = world.upload_pieces(image, vec![Ok(disk[..1_000].to_vec()), gone]).await;
    assert_eq!(no(cut), "cut off: reset");
    // Refused by its size before a byte is read.
    let pieces = stream::pending().boxed();
    let large = world.ledger.upload_image(&World::admin(), image, Some(9 << 20), pieces).await;
    assert!(no(large).starts_with("wrong-file: size_mib"));
    assert_eq!(world.hosts.images(URL), []);
    assert_eq!(world.status(image).await, "awaiting");

    // Who may not, may not; who does not reach it is told of none.
    let who = |role, reach| Principal { name: "token:x".into(), role, reach };
    for (by, says) in [
        (who(Role::Viewer, Reach::All), "role-too-low"),
        (who(Role::Admin, Reach::Projects(vec![Uuid::from_u128(9)])), "not-found"),
    ] {
        let pieces = stream::iter([Ok(disk.clone())]).boxed();
        let refused = world.ledger.upload_image(&by, image, None, pieces).await;
        assert!(no(refused).starts_with(says));
    }
    let elsewhere = json!({"source": "upload"});
    let mut body = described(store, &file(4));
    body["source"] = elsewhere["source"].clone();
    let by_hand = world.send("image", None, "define", body).await.unwrap().id;
    assert!(no(world.upload(by_hand, &file(4)).await).starts_with("wrong-state"));
    let mut body = described(Uuid::from_u128(77), &file(5));
    assert!(
        detail(world.send("image", None, "define", body.clone()).await).contains("no backup-store")
    );
    body["size_mib"] = json!(200 << 10);
    body["min_disk_gib"] = json!(300);
    assert_eq!(code(world.send("image", None, "define", body).await), "invalid-field");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_and_a_removal_that_fail_or_die_anywhere_end_as_if_they_had_not() {
    let world = World::empty(small());
    let store = world.store("vault").await;
    for (round, fault) in [HostFault::Transient, HostFault::AnswerLost].into_iter().enumerate() {
        let disk = file(10 + round as u8);
        let image = world.image(store, &disk).await;
        world.hosts.break_next(HostStep::StoreImage, fault.clone());
        assert!(no(world.upload(image, &disk).await).starts_with("store: "));
        assert_eq!(world.status(image).await, "awaiting");
        // It may be there, and is not recorded: sent again, it is.
        world.upload(image, &disk).await.unwrap();
        world.hosts.break_next(HostStep::StoreImageRemoval, fault);
        let mortal = Arc::new(Mortal::default());
        world.send("image", image, "retire", json!({})).await.unwrap();
        world.settle_with(Some(mortal.clone())).await;
        assert!(mortal.deaths() >= 3, "{}", mortal.deaths());
        assert_eq!(world.status(image).await, "retired");
        assert_eq!(world.hosts.images(URL), []);
    }

    // Retired while its file comes: nothing of it stays.
    let disk = file(20);
    let image = world.image(store, &disk).await;
    let ledger = world.ledger.clone();
    let (told, half) = tokio::sync::oneshot::channel();
    let (go, goes) = tokio::sync::oneshot::channel::<()>();
    let (first, rest) = (disk[..512].to_vec(), disk[512..].to_vec());
    let pieces = stream::once(async move {
        told.send(()).unwrap();
        Ok(first)
    })
    .chain(stream::once(async move {
        goes.await.unwrap();
        Ok(rest)
    }));
    let upload = tokio::spawn(async move {
        ledger.upload_image(&World::admin(), image, None, pieces.boxed()).await
    });
    half.await.unwrap();
    world.through("image", image, "retire", json!({})).await;
    assert_eq!(world.status(image).await, "retired");
    go.send(()).unwrap();
    assert!(no(upload.await.unwrap()).starts_with("wrong-state"));
    assert_eq!(world.hosts.images(URL), []);

    // The process died between the two: a collection of the store finds it.
    let disk = file(21);
    let image = world.image(store, &disk).await;
    world.upload(image, &disk).await.unwrap();
    world.through("image", image, "retire", json!({})).await;
    world.hosts.leave_image(URL, image);
    world.hosts.leave_image(URL, Uuid::from_u128(404));
    world.through("backup-store", store, "collect", json!({})).await;
    assert_eq!(world.hosts.images(URL), [(Uuid::from_u128(404), 0)], "another's stays");

    // A removal that keeps failing is parked, given up, and the file found by a collection.
    let disk = file(22);
    let image = world.image(store, &disk).await;
    world.upload(image, &disk).await.unwrap();
    world.hosts.break_next(HostStep::StoreImageRemoval, HostFault::Rejected("denied".into()));
    world.through("image", image, "retire", json!({})).await;
    assert_eq!(world.status(image).await, "parked");
    world.through("image", image, "abandon", json!({})).await;
    assert_eq!(world.status(image).await, "retired");
    world.through("backup-store", store, "collect", json!({})).await;
    assert_eq!(world.hosts.images(URL).len(), 1);
}
