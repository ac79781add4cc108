//! Disks on storage that several hosts reach: they are where the log says, and a host has nothing of what
//! it does not reach.

use adapters_sim::SimHosts;
use commands::submit::SubmitFault;
use serde_json::{Value, json};
use uuid::Uuid;

use super::code;
use crate::world::{World, small};

/// A storage of the tests.
pub(super) const STORAGE: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_00aa);

impl World {
    /// A host that reaches these storages.
    pub(crate) async fn host_with(&self, name: &str, storages: &[Uuid]) -> Uuid {
        let settings = json!({"cpu_overcommit_percent": 100, "tags": ["lab"]});
        let body = json!({"name": name, "settings": settings});
        let id = self.send("host", None, "enrol", body).await.unwrap().id;
        let mut seen = json!(SimHosts::sighting(1, 8, 8_192));
        seen["storages"] = json!(storages);
        self.joined(id, seen).await;
        id
    }

    /// A server whose disks lie on a storage.
    pub(crate) async fn launch_on(&self, name: &str, storage: Uuid) -> Result<Uuid, SubmitFault> {
        let body = json!({
            "name": name, "spec": {"vcpus": 1, "memory_mib": 512},
            "disks": [{"size_gib": 1, "storage": storage}, {"size_gib": 2, "storage": storage}],
        });
        Ok(self.send("server", None, "launch", body).await?.id)
    }
}

fn refused(result: Result<commands::submit::Outcome, SubmitFault>) -> String {
    match result {
        Err(SubmitFault::Refused(refusal)) if refusal.code.status == 422 => refusal.detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_lies_on_a_storage_that_its_host_reaches_and_nowhere_else() {
    let world = World::empty(small());
    let far = world.host_with("kvm-1", &[]).await;
    let unknown = world.launch_on("web", STORAGE).await;
    let Err(SubmitFault::Refused(refusal)) = unknown else { panic!("{unknown:?}") };
    assert_eq!(refusal.code.status, 422);
    let detail = &refusal.detail;
    assert!(detail.starts_with("disks[0].storage: no host says"), "{detail}");
    assert!(world.rows("server").await.is_empty(), "nothing is left of it");

    let near = world.host_with("kvm-2", &[STORAGE]).await;
    let id = world.launch_on("web", STORAGE).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "running");
    let home = world.server(id).await.home.unwrap();
    assert_eq!(home.placement.host.uuid(), near);
    assert_eq!(home.placement.rejected.counts["label"], 1, "the other host was looked at");
    assert!(world.hosts.disks(near).is_empty(), "none is the host's alone");
    assert_eq!(world.hosts.disks(STORAGE).len(), 2);
    let row = world.row(home.parts.disks[0].id).await;
    assert_eq!(row["state"]["home"]["storage"], json!(STORAGE));

    // One that is made later, there and on the host alone.
    let create = async |server: Uuid, storage: Value| {
        let body = json!({"name": "data", "server": server, "size_gib": 3, "storage": storage});
        world.send("disk", None, "create", body).await
    };
    create(id, json!(STORAGE)).await.unwrap();
    world.settle().await;
    create(id, Value::Null).await.unwrap();
    world.settle().await;
    assert_eq!(world.hosts.disks(STORAGE).len(), 3);
    assert_eq!(world.hosts.disks(near).len(), 1);
    let other = world.launch("alone", 1, 64).await.unwrap();
    world.settle().await;
    let host = world.server(other).await.home.unwrap().placement.host.uuid();
    assert_eq!(host, far, "it is the emptier one");
    let detail = refused(create(other, json!(STORAGE)).await);
    assert!(detail.contains("does not reach"), "{detail}");
    let detail = refused(create(id, json!(Uuid::from_u128(7))).await);
    assert!(detail.contains("does not reach"), "{detail}");
    assert_eq!(code(create(id, json!("nfs")).await), "malformed-command");

    // A snapshot of what is on its host alone is in the way of leaving it, and what is shared is not.
    let third = world.peer("kvm-3").await;
    let disks = world.server(id).await.home.unwrap().parts.disks;
    let local = disks.iter().find(|disk| disk.storage.is_none()).unwrap().id;
    let snapshot = world.snapshot(local).await.unwrap();
    world.settle().await;
    let draining = world.ledger.draining(near).await.unwrap();
    let told = &draining.servers[0].obstacles;
    assert_eq!(told.iter().map(|one| one.code).collect::<Vec<_>>(), ["local-disks"]);
    assert!(told[0].detail.contains("1 snapshots"), "{}", told[0].detail);
    world.through("snapshot", snapshot, "delete", json!({})).await;
    for verb in ["detach", "delete"] {
        world.send("disk", local, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    let draining = world.ledger.draining(near).await.unwrap();
    assert_eq!(
        draining.servers[0].to.map(domain::compute::placement::HostId::uuid),
        Some(third),
        "the other is far"
    );

    for verb in ["stop", "delete", "purge"] {
        world.send("server", id, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    assert!(world.hosts.disks(STORAGE).is_empty(), "nothing is left there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_made_from_a_snapshot_is_not_bound_to_where_that_was() {
    let world = World::empty(small());
    let here = world.peer("kvm-1").await;
    let shared = world.launch_on("web", STORAGE).await.unwrap();
    let (local, of_local) = world.with_data("files", "first").await;
    world.settle().await;
    let of_shared = world.server(shared).await.home.unwrap().parts.disks[0].id;
    world.hosts.write(of_shared, "second");
    for server in [shared, local] {
        world.through("server", server, "stop", json!({})).await;
    }
    let (of_local, of_shared) =
        (world.snapshot(of_local).await.unwrap(), world.snapshot(of_shared).await.unwrap());
    world.settle().await;
    let there = world.peer("kvm-2").await;
    let far = world.host_with("kvm-3", &[]).await;
    let body = |name: &str, snapshot: Uuid, only: &[Uuid]| {
        json!({
            "name": name, "spec": {"vcpus": 1, "memory_mib": 64}, "wishes": {"only": only},
            "disks": [{"from": {"snapshot": snapshot}, "storage": STORAGE}],
        })
    };
    let launch = async |body: Value| world.send("server", None, "launch", body).await;
    let mut given = body("given", of_local, &[]);
    given["reads"] = json!({"host": there});
    assert_eq!(code(launch(given).await), "invalid-field");
    // What lies on its host alone is read there; what several reach by each of them.
    assert!(refused(launch(body("no", of_local, &[there])).await).contains("may not go"));
    assert_eq!(code(launch(body("no", of_shared, &[far])).await), "no-room");
    let beyond = launch(body("beyond", of_shared, &[there])).await.unwrap().id;
    let from_here = launch(body("from-here", of_local, &[])).await.unwrap().id;
    world.settle().await;
    for (id, host, content) in [(beyond, there, "second"), (from_here, here, "first")] {
        assert_eq!(world.row(id).await["status"], "running");
        let home = world.server(id).await.home.unwrap();
        assert_eq!(home.placement.host.uuid(), host);
        assert_eq!(world.hosts.content(home.parts.disks[0].id), content);
    }
    let wishes = world.server(from_here).await.home.unwrap().wishes;
    assert!(wishes.only.is_empty(), "nobody wished it: {wishes:?}");
    let wishes = world.server(beyond).await.home.unwrap().wishes;
    assert_eq!(
        wishes.only.into_iter().map(domain::compute::placement::HostId::uuid).collect::<Vec<_>>(),
        [there]
    );

    // A disk that is made later is read where its server is.
    let copy = |server: Uuid, snapshot: Uuid| json!({"name": "copy", "server": server, "from": {"snapshot": snapshot}});
    let late = world.send("disk", None, "create", copy(beyond, of_shared)).await.unwrap().id;
    world.settle().await;
    assert_eq!(world.hosts.content(late), "second");
    let no = refused(world.send("disk", None, "create", copy(beyond, of_local)).await);
    assert!(no.contains("does not reach it"), "{no}");

    // It goes elsewhere as others do: by itself, and from a host that is dead.
    world.through("server", from_here, "migrate", json!({})).await;
    assert_eq!(world.host_of(from_here).await, there);
    world.through("server", from_here, "migrate", json!({})).await;
    assert_eq!(world.host_of(from_here).await, here);
    let epoch = world.state_of(here).await.epoch;
    world.hosts.leave(here);
    world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    let evacuate = json!({"host_is_down": true});
    world.send("server", from_here, "evacuate", evacuate).await.unwrap();
    assert_eq!(world.host_of(from_here).await, there);
}
