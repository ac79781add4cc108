//! Backups and snapshots of disks on hosts of ours: taken, verified, restored and removed, whatever fails
//! on the way. What lies in the store, and in the disks, is what the log says.

use std::sync::Arc;

use adapters_sim::{HostFault, HostStep, WRONG_KEY};
use commands::submit::{Outcome, SubmitFault};
use domain::kernel::{Principal, Reach, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    hosts::{Mortal, code},
    world::{World, small},
};

/// The address of the store of these tests.
pub(crate) const URL: &str = "http://127.0.0.1:9000/backups/lab/";

fn store_body(name: &str, key: &str) -> Value {
    json!({
        "name": name,
        "place": {"endpoint": "http://127.0.0.1:9000", "bucket": "backups", "prefix": "lab/"},
        "credential": {"access_key_id": "AKIA", "secret_access_key": key},
    })
}

impl World {
    pub(crate) async fn store(&self, name: &str) -> Uuid {
        let body = store_body(name, "secret-of-the-store");
        let id = self.send("backup-store", None, "create", body).await.unwrap().id;
        self.settle().await;
        assert_eq!(self.status(id).await, "ready");
        id
    }

    pub(crate) async fn back_up(
        &self,
        disk: Uuid,
        store: Uuid,
        parent: Option<Uuid>,
    ) -> Result<Uuid, SubmitFault> {
        let body = json!({"name": "nightly", "disk": disk, "store": store, "parent": parent});
        Ok(self.send("backup", None, "create", body).await?.id)
    }

    pub(crate) async fn snapshot(&self, disk: Uuid) -> Result<Uuid, SubmitFault> {
        let body = json!({"name": "before", "disk": disk});
        Ok(self.send("snapshot", None, "create", body).await?.id)
    }

    /// Sends a command, and lets what it orders be done.
    pub(crate) async fn through(&self, kind: &str, id: Uuid, verb: &str, body: Value) -> Outcome {
        let outcome = self.send(kind, id, verb, body).await.unwrap();
        self.settle().await;
        outcome
    }

    /// A server that runs, and its root disk, on which something is written.
    pub(crate) async fn with_data(&self, name: &str, content: &str) -> (Uuid, Uuid) {
        let server = self.launch(name, 1, 64).await.unwrap();
        self.settle().await;
        let disk = self.server(server).await.home.unwrap().parts.disks[0].id;
        self.hosts.write(disk, content);
        (server, disk)
    }

    async fn disk_home(&self, disk: Uuid) -> Value {
        self.row(disk).await["state"]["home"].clone()
    }
}

pub(crate) fn detail(result: Result<impl std::fmt::Debug, SubmitFault>) -> String {
    match result {
        Err(SubmitFault::Refused(refusal)) => refusal.detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_backed_up_and_restored_into_a_new_server_when_its_own_is_gone() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;

    let full = world.back_up(disk, store, None).await.unwrap();
    assert_eq!(world.status(full).await, "taking");
    assert_eq!(world.disk_home(disk).await["used_by"], full.to_string());
    for (verb, body) in [("detach", json!({})), ("grow", json!({"size_gib": 2}))] {
        assert_eq!(code(world.send("disk", disk, verb, body).await), "in-use", "{verb}");
    }
    let second = world.back_up(disk, store, None).await;
    assert_eq!(code(second), "in-use", "one thing at a time");
    world.settle().await;
    let row = world.row(full).await;
    assert_eq!(row["status"], "available");
    let made = &row["state"]["made"];
    assert_eq!(
        (made["size_bytes"].as_u64(), made["digest"].as_str().unwrap().len()),
        (Some(1 << 30), 64)
    );
    assert!(world.disk_home(disk).await["used_by"].is_null());

    world.hosts.write(disk, "second");
    let more = world.back_up(disk, store, Some(full)).await.unwrap();
    // What it is made on stays until it is there.
    assert_eq!(code(world.send("backup", full, "delete", json!({})).await), "in-use");
    world.settle().await;
    assert!(world.row(more).await["state"]["made"]["read_bytes"].as_u64() < Some(1 << 30));

    // The server goes, with its disk; what was backed up stays, and no backup needs another.
    for verb in ["stop", "delete", "purge"] {
        world.through("server", web, verb, json!({})).await;
    }
    assert!(world.hosts.disks(host).is_empty());
    world.through("backup", full, "delete", json!({})).await;
    assert_eq!(world.status(full).await, "gone");
    assert_eq!(world.hosts.backups(URL).into_keys().collect::<Vec<_>>(), [more]);

    let body = json!({
        "name": "again", "spec": {"vcpus": 1, "memory_mib": 64},
        "disks": [{"from": {"backup": more}}, {"size_gib": 1}],
    });
    let again = world.send("server", None, "launch", body).await.unwrap().id;
    assert_eq!(code(world.send("backup", more, "delete", json!({})).await), "in-use");
    world.settle().await;
    let disks = world.server(again).await.home.unwrap().parts.disks;
    assert_eq!(world.hosts.content(disks[0].id), "second");
    assert_eq!((disks[0].size_gib, world.hosts.content(disks[1].id).as_str()), (1, ""));
    assert_eq!(world.status(again).await, "running");
    world.same_as_census(host).await;

    // And as a disk of its own, larger.
    let body = json!({
        "name": "copy", "server": again, "size_gib": 3, "from": {"backup": more},
    });
    let copy = world.send("disk", None, "create", body).await.unwrap().id;
    world.settle().await;
    assert_eq!(
        (world.hosts.content(copy).as_str(), world.hosts.disks(host)[&copy].0),
        ("second", 3)
    );
    world.through("backup", more, "delete", json!({})).await;
    assert_eq!(world.status(more).await, "gone", "nothing needs it any more");
    world.through("backup-store", store, "collect", json!({})).await;
    assert_eq!(world.row(store).await["state"]["last_collection"][1]["removed"], 2);
    world.through("backup-store", store, "retire", json!({})).await;
    assert_eq!(world.status(store).await, "retired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_gone_back_to_and_copied_and_goes_with_its_disk() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let (web, disk) = world.with_data("web", "first").await;
    let snapshot = world.snapshot(disk).await.unwrap();
    world.settle().await;
    assert_eq!(world.status(snapshot).await, "available");
    assert_eq!(world.hosts.snapshots(disk), [snapshot].into());
    assert_eq!(world.disk_home(disk).await["snapshots"], json!([snapshot]));
    world.hosts.write(disk, "second");

    // Going back and copying are for a server that is stopped.
    let back = world.send("snapshot", snapshot, "roll-back", json!({})).await;
    assert!(detail(back).contains("stop server"));
    let body = json!({"name": "copy", "server": web, "from": {"snapshot": snapshot}});
    assert_eq!(code(world.send("disk", None, "create", body.clone()).await), "wrong-state");
    world.through("server", web, "stop", json!({})).await;
    let copy = world.send("disk", None, "create", body).await.unwrap().id;
    assert_eq!(world.disk_home(disk).await["used_by"], copy.to_string());
    world.settle().await;
    assert_eq!(world.hosts.content(copy), "first");
    world.through("snapshot", snapshot, "roll-back", json!({})).await;
    assert_eq!(world.hosts.content(disk), "first");

    // A server that is made from it goes where it is.
    let other = world.host("kvm-2", 1, 4, 4_096).await;
    world.send("host", host, "configure", json!({"settings": {"tags": ["far"]}})).await.unwrap();
    let body = json!({
        "name": "db", "spec": {"vcpus": 1, "memory_mib": 64},
        "disks": [{"from": {"snapshot": snapshot}}],
    });
    let mut elsewhere = body.clone();
    elsewhere["wishes"] = json!({"only": [other]});
    let refused = world.send("server", None, "launch", elsewhere).await;
    assert!(detail(refused).contains("may not go"));
    let db = world.send("server", None, "launch", body).await.unwrap().id;
    world.settle().await;
    let home = world.server(db).await.home.unwrap();
    assert_eq!(home.placement.host.uuid(), host);
    assert_eq!(world.hosts.content(home.parts.disks[0].id), "first");

    world.through("snapshot", snapshot, "delete", json!({})).await;
    assert_eq!(world.status(snapshot).await, "gone");
    assert!(world.hosts.snapshots(disk).is_empty());
    // Another one goes with its disk, and that with its server.
    let last = world.snapshot(disk).await.unwrap();
    world.settle().await;
    for verb in ["delete", "purge"] {
        world.through("server", web, verb, json!({})).await;
    }
    assert_eq!(world.status(last).await, "gone");
    let history = world.history("snapshot", last).await;
    assert_eq!(history.last().unwrap().event_type(), "gone-with-disk");
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_leaves_nothing() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let (_, other) = world.with_data("db", "other").await;
    let raw = json!({"name": "raw", "server": web, "size_gib": 1, "format": "raw"});
    let raw = world.send("disk", None, "create", raw).await.unwrap().id;
    world.settle().await;
    let full = world.back_up(disk, store, None).await.unwrap();
    world.settle().await;
    let wrong = world.send("backup-store", None, "create", store_body("wrong", WRONG_KEY)).await;
    let wrong = wrong.unwrap().id;
    world.settle().await;
    assert_eq!(world.status(wrong).await, "refused");
    let before = world.log.head().await.unwrap().position;

    for (body, why) in [
        (json!({"name": "x", "disk": Uuid::nil(), "store": store}), "there is no disk"),
        (json!({"name": "x", "disk": disk, "store": Uuid::nil()}), "there is no backup-store"),
        (json!({"name": "", "disk": disk, "store": store}), "1 to 100"),
        (json!({"name": "x", "disk": other, "store": store, "parent": full}), "another disk"),
        (json!({"name": "x", "disk": disk, "store": store, "parent": disk}), "there is no backup"),
        (
            json!({"name": "x", "disk": disk, "store": store, "found": {}}),
            "the server's to fill in",
        ),
    ] {
        let refused = world.send("backup", None, "create", body.clone()).await;
        assert!(detail(refused).contains(why), "{body}");
    }
    assert_eq!(code(world.back_up(disk, wrong, None).await), "wrong-state");
    for credential in [
        json!("secret"),
        json!({}),
        json!({"access_key_id": "", "secret_access_key": "x"}),
        json!({"access_key_id": "a", "secret_access_key": "b", "encryption_key": "00"}),
        json!({"access_key_id": "a", "secret_access_key": "b", "more": "c"}),
    ] {
        let mut body = store_body("x", "y");
        body["credential"] = credential;
        let refused = world.send("backup-store", None, "create", body).await;
        assert_eq!(code(refused), "invalid-field");
    }
    let key = json!({
        "access_key_id": "a", "secret_access_key": "b", "encryption_key": "0a".repeat(32),
    });
    let refused =
        world.send("backup-store", store, "update-credential", json!({"credential": key})).await;
    assert!(detail(refused).contains("nobody reads"), "an encryption key never changes");
    assert_eq!(code(world.send("backup-store", store, "retire", json!({})).await), "in-use");
    assert_eq!(code(world.snapshot(raw).await), "invalid-field");
    assert_eq!(code(world.snapshot(Uuid::nil()).await), "invalid-field");
    for (from, size, why) in [
        (json!({"backup": Uuid::nil()}), json!(1), "there is no backup"),
        (json!({"snapshot": full}), json!(1), "there is no snapshot"),
        (json!({"backup": full}), json!(0), "what it is made from has 1"),
    ] {
        let body = json!({"name": "x", "server": web, "size_gib": size, "from": from});
        let refused = world.send("disk", None, "create", body).await;
        assert!(detail(refused).contains(why), "{from}");
        let body = json!({
            "name": "x", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"from": from}],
        });
        if why.starts_with("there") {
            let refused = world.send("server", None, "launch", body).await;
            assert!(detail(refused).contains(why), "{from}");
        }
    }
    // Who does not reach a disk is not told that it is there.
    let project = world.send("project", None, "create", json!({"name": "shop"})).await.unwrap().id;
    let mut theirs = World::submission(
        "backup",
        None,
        "create",
        json!({
            "name": "x", "disk": disk, "store": store,
        }),
    );
    let reach = Reach::Projects(vec![project]);
    theirs.principal = Principal { name: "token:ops".into(), role: Role::Operator, reach };
    assert_eq!(code(world.ledger.submit(theirs).await), "out-of-reach");
    assert_eq!(world.log.head().await.unwrap().position, before + 1, "only the project is new");
    world.settle().await;
    let written = world.log.read(0, 100_000).await.unwrap();
    let written: String =
        written.iter().map(|one| String::from_utf8_lossy(one.data()).into_owned()).collect();
    assert!(!written.contains("secret-of-the-store"), "keys are in no record");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_found_and_nothing_is_made_from_it() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let backup = world.back_up(disk, store, None).await.unwrap();
    world.settle().await;
    world.through("backup", backup, "verify", json!({})).await;
    let row = world.row(backup).await;
    assert_eq!(
        (&row["status"], row["state"]["verified_at"].is_string()),
        (&json!("available"), true)
    );

    world.hosts.damage(URL, backup);
    // A restore that finds it out makes no disk, and can be given up.
    let body = json!({"name": "copy", "server": web, "from": {"backup": backup}});
    let copy = world.send("disk", None, "create", body.clone()).await.unwrap().id;
    world.settle().await;
    let row = world.row(copy).await;
    assert_eq!(row["status"], "parked");
    assert!(row["order"]["parked"].as_str().unwrap().contains("damaged"), "{row}");
    world.through("disk", copy, "abandon", json!({})).await;
    assert_eq!(world.status(copy).await, "gone");
    world.through("backup", backup, "verify", json!({})).await;
    assert_eq!(world.status(backup).await, "damaged");
    assert_eq!(code(world.send("disk", None, "create", body).await), "wrong-state");
    world.through("backup", backup, "delete", json!({})).await;
    world.same_as_census(host).await;
    assert!(world.hosts.backups(URL).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_installation_finds_the_backups_and_restores_them() {
    let here = World::empty(small());
    here.host("kvm-1", 1, 4, 4_096).await;
    let store = here.store("vault").await;
    let (_, disk) = here.with_data("web", "moved").await;
    let backup = here.back_up(disk, store, None).await.unwrap();
    here.settle().await;

    let there = elsewhere(&here);
    let host = there.host("kvm-9", 1, 4, 4_096).await;
    let store = there.store("same place").await;
    there.through("backup-store", store, "import", json!({})).await;
    let sum = there.row(store).await["state"]["last_import"][1].clone();
    assert_eq!((&sum["listed"], &sum["new"]), (&json!(1), &json!(1)));
    let (ours, theirs) = (here.row(backup).await, there.row(backup).await);
    assert_eq!(theirs["status"], "available");
    assert_eq!(theirs["state"]["made"], ours["state"]["made"], "by its digest the same");
    let body = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64},
        "disks": [{"from": {"backup": backup}}],
    });
    let web = there.send("server", None, "launch", body).await.unwrap().id;
    there.settle().await;
    let disk = there.server(web).await.home.unwrap().parts.disks[0].id;
    assert_eq!(there.hosts.content(disk), "moved");
    there.same_as_census(host).await;
    // Once more finds nothing new.
    there.through("backup-store", store, "import", json!({})).await;
    assert_eq!(there.row(store).await["state"]["last_import"][1]["new"], 0);
    // Sealed by another key they do not read.
    let mut body = store_body("sealed", "secret-of-the-store");
    body["credential"]["encryption_key"] = json!("0a".repeat(32));
    let third = elsewhere(&there);
    let sealed = third.send("backup-store", None, "create", body).await.unwrap().id;
    third.settle().await;
    third.through("backup-store", sealed, "import", json!({})).await;
    let sum = third.row(sealed).await["state"]["last_import"][1].clone();
    assert_eq!((sum["new"].as_u64(), sum["unreadable"].as_array().unwrap().len()), (Some(0), 1));
}

/// Another installation, whose hosts reach the same stores.
pub(crate) fn elsewhere(world: &World) -> World {
    let other = World::beside_hosts(world.hosts.clone());
    // Its ids are others, as everywhere but in tests.
    let past = world.ledger.ports.ids.new_id();
    while other.ledger.ports.ids.new_id() < past {}
    other
}

/// Everything that is done with backups and snapshots of a server's root disk. The server is stopped.
pub(crate) async fn everything(world: &World, server: Uuid, mortal: Option<Arc<Mortal>>) -> usize {
    let settle = async || match &mortal {
        Some(mortal) => world.settle_with(Some(mortal.clone())).await,
        None => world.settle().await,
    };
    let mut orders = 0;
    let mut send = async |kind: &str, id: Option<Uuid>, verb: &str, body: Value| {
        let outcome = world.send(kind, id, verb, body).await.unwrap();
        settle().await;
        orders += 1;
        let parked = world.row(outcome.id).await["order"]["parked"].clone();
        assert!(parked.is_null(), "{kind} {verb}: {parked}");
        outcome.id
    };
    let disk = world.server(server).await.home.unwrap().parts.disks[0].id;
    world.hosts.write(disk, "kept");
    let body = store_body("vault", "secret-of-the-store");
    let store = send("backup-store", None, "create", body).await;
    let body = json!({"name": "nightly", "disk": disk, "store": store});
    let backup = send("backup", None, "create", body).await;
    world.hosts.write(disk, "spoilt");
    send("disk", Some(disk), "restore", json!({"backup": backup})).await;
    assert_eq!(world.hosts.content(disk), "kept");
    let snapshot = send("snapshot", None, "create", json!({"name": "s", "disk": disk})).await;
    world.hosts.write(disk, "lost");
    send("snapshot", Some(snapshot), "roll-back", json!({})).await;
    assert_eq!(world.hosts.content(disk), "kept");
    for from in [json!({"backup": backup}), json!({"snapshot": snapshot})] {
        let body = json!({"name": "copy", "server": server, "from": from});
        let copy = send("disk", None, "create", body).await;
        assert_eq!(world.hosts.content(copy), "kept");
        send("disk", Some(copy), "detach", json!({})).await;
        send("disk", Some(copy), "delete", json!({})).await;
    }
    send("snapshot", Some(snapshot), "delete", json!({})).await;
    send("backup", Some(backup), "verify", json!({})).await;
    send("backup-store", Some(store), "import", json!({})).await;
    send("backup", Some(backup), "delete", json!({})).await;
    send("backup-store", Some(store), "collect", json!({})).await;
    assert!(world.hosts.backups(URL).is_empty() && world.hosts.snapshots(disk).is_empty());
    assert!(world.disk_home(disk).await["used_by"].is_null(), "nobody uses it any more");
    orders
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_of_backups_survives_a_death_at_each_step() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let (web, _) = world.with_data("web", "first").await;
    world.through("server", web, "stop", json!({})).await;
    let mortal = Arc::new(Mortal::default());
    let orders = everything(&world, web, Some(mortal.clone())).await;
    assert_eq!(mortal.deaths(), orders * 3, "three steps of each order");
    world.same_as_census(host).await;
    // Nothing was done twice: each was taken, and recorded, once.
    for kind in ["backup", "snapshot"] {
        let rows = world.rows(kind).await;
        assert_eq!(rows.len(), 1);
        let history = world.history(kind, rows[0].key.parse().unwrap()).await;
        let taken = history.iter().filter(|one| one.event_type() == "taken").count();
        assert_eq!(taken, 1, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_keeps_failing_is_parked_and_given_up_or_goes_on() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (_, disk) = world.with_data("web", "first").await;
    for goes_on in [false, true] {
        world.hosts.break_next(HostStep::BackUp, HostFault::Rejected("no bucket".to_owned()));
        let backup = world.back_up(disk, store, None).await.unwrap();
        world.settle().await;
        assert_eq!(world.status(backup).await, "parked");
        assert_eq!(code(world.back_up(disk, store, None).await), "in-use", "it may go on");
        let verb = if goes_on { "retry" } else { "abandon" };
        world.through("backup", backup, verb, json!({})).await;
        assert_eq!(world.status(backup).await, if goes_on { "available" } else { "gone" });
        assert!(world.disk_home(disk).await["used_by"].is_null());
    }
    assert_eq!(world.hosts.backups(URL).len(), 1);
    // A store that does not answer for long parks what is asked of it.
    for _ in 0..20 {
        world.hosts.break_next(HostStep::StoreVerify, HostFault::Transient);
    }
    world.through("backup-store", store, "verify", json!({})).await;
    assert_eq!(world.status(store).await, "parked");
    world.through("backup-store", store, "abandon", json!({})).await;
    assert_eq!(world.status(store).await, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_collected_by_itself_once_a_day() {
    let world = World::empty(small());
    let store = world.store("vault").await;
    assert_eq!(world.ledger.order_due_collections().await.unwrap(), 0);
    world.clock.advance(std::time::Duration::from_hours(25));
    world.caught_up().await;
    assert_eq!(world.ledger.order_due_collections().await.unwrap(), 1);
    world.settle().await;
    assert_eq!(world.status(store).await, "ready");
    assert_eq!(world.ledger.order_due_collections().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_restored_in_its_place_or_stays_as_it_is() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let (db, other) = world.with_data("db", "other").await;
    let backup = world.back_up(disk, store, None).await.unwrap();
    world.settle().await;
    world.hosts.write(disk, "second");
    let restore = |disk: Uuid| world.send("disk", disk, "restore", json!({"backup": backup}));

    let running = restore(disk).await;
    assert!(detail(running).contains("stop server"));
    world.through("server", web, "stop", json!({})).await;
    let snapshot = world.snapshot(disk).await.unwrap();
    world.settle().await;
    assert!(detail(restore(disk).await).contains("which would be lost"));
    world.through("snapshot", snapshot, "delete", json!({})).await;
    let absent = world.send("disk", disk, "restore", json!({"backup": Uuid::nil()})).await;
    assert!(detail(absent).contains("there is no backup"));
    let given = json!({"backup": backup, "found": {"snapshot": {"snapshot": disk, "disk": disk}}});
    let given = world.send("disk", disk, "restore", given).await;
    assert!(detail(given).contains("the server's to fill in"));

    // What it is made from stays until it is made; and nothing else is done with the disk.
    restore(disk).await.unwrap();
    assert_eq!(world.status(disk).await, "restoring");
    assert_eq!(code(world.send("backup", backup, "delete", json!({})).await), "in-use");
    assert_eq!(code(world.back_up(disk, store, None).await), "order-outstanding");
    world.settle().await;
    assert_eq!(
        (world.hosts.content(disk).as_str(), &*world.status(disk).await),
        ("first", "attached")
    );
    world.through("server", web, "start", json!({})).await;
    assert_eq!(world.status(web).await, "running");

    // A backup of another disk, which it is too large for at first.
    world.through("disk", disk, "grow", json!({"size_gib": 2})).await;
    let large = world.back_up(disk, store, None).await.unwrap();
    world.settle().await;
    world.through("server", db, "stop", json!({})).await;
    let body = json!({"backup": large});
    let refused = world.send("disk", other, "restore", body.clone()).await;
    assert!(detail(refused).contains("grow the disk first"));
    world.through("disk", other, "grow", json!({"size_gib": 2})).await;
    world.through("disk", other, "restore", body.clone()).await;
    assert_eq!(world.hosts.content(other), "first");

    // One that is damaged changes nothing; the order is given up, and the backup is needed no more.
    world.hosts.write(other, "other again");
    world.hosts.damage(URL, large);
    world.through("disk", other, "restore", body).await;
    assert_eq!(world.status(other).await, "parked");
    assert_eq!(world.hosts.content(other), "other again");
    world.through("disk", other, "abandon", json!({})).await;
    assert_eq!(world.status(other).await, "attached");
    world.through("backup", large, "delete", json!({})).await;
    assert_eq!(world.status(large).await, "gone");
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_given_to_another_project_and_a_snapshot_goes_with_its_disk() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 4, 4_096).await;
    let store = world.store("vault").await;
    let (web, disk) = world.with_data("web", "first").await;
    let project = |name: &str| {
        let body = json!({"name": name});
        let world = &world;
        async move { world.send("project", None, "create", body).await.unwrap().id }
    };
    let (shop, lab) = (project("shop").await, project("lab").await);
    world.send("disk", disk, "assign", json!({"project": shop})).await.unwrap();
    let backup = world.back_up(disk, store, None).await.unwrap();
    assert_eq!(code(world.send("disk", disk, "assign", json!({"project": lab})).await), "in-use");
    world.settle().await;
    let snapshot = world.snapshot(disk).await.unwrap();
    world.settle().await;
    let owner = async |id: Uuid| world.row(id).await["project"].clone();
    assert_eq!((owner(backup).await, owner(snapshot).await), (json!(shop), json!(shop)));

    world.send("disk", disk, "assign", json!({"project": lab})).await.unwrap();
    assert_eq!((owner(backup).await, owner(snapshot).await), (json!(shop), json!(lab)));
    world.send("backup", backup, "assign", json!({"project": lab})).await.unwrap();
    assert_eq!(owner(backup).await, json!(lab));
    // Who had it reaches it no more, and who has it does.
    for (of, reaches) in [(shop, false), (lab, true)] {
        for (kind, id, verb) in [("backup", backup, "verify"), ("snapshot", snapshot, "delete")] {
            let mut theirs = World::submission(kind, id, verb, json!({}));
            let reach = Reach::Projects(vec![of]);
            theirs.principal = Principal { name: "token:ops".into(), role: Role::Operator, reach };
            assert_eq!(world.ledger.submit(theirs).await.is_ok(), reaches, "{kind} {verb}");
        }
    }
    world.settle().await;
    // A store of a project is for that project's.
    let mut body = store_body("own", "secret-of-the-store");
    body["project"] = json!(lab);
    let own = world.send("backup-store", None, "create", body).await.unwrap().id;
    world.settle().await;
    let kept = world.back_up(disk, own, None).await.unwrap();
    world.settle().await;
    let refused = world.send("backup", kept, "assign", json!({"project": shop})).await;
    assert!(detail(refused).contains("another project's"));
    let none = world.send("backup", Uuid::nil(), "assign", json!({"project": shop})).await;
    assert_eq!(code(none), "not-found");
    assert_eq!(world.status(web).await, "running");
}
