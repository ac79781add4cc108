//! Machines of a vCenter come to hosts of ours: the whole way and back, with their bytes compared. The vCenter is a
//! stand-in (govmomi's simulator behind a front of ours), the host is in memory, and its disks are offered over NBD.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use adapters_clouds::{
    testing::{cloudpods::Broken, nbd::Shelf, vcenter::VCenter},
    vmware::Vmware,
};
use adapters_sim::SimHosts;
use commands::{
    progress::Progress,
    run_orders::{Probe, Step},
};
use domain::{compute::move_in::id_of as id_of_move, kernel::OrderKey};
use futures::future::join;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::World;

/// A machine's only disk, as vCenter numbers it and as the host calls it.
const DISK: u32 = 2000;
const NAME: &str = "disk-2000";
const MIB: usize = 1 << 20;
/// What is told is told well within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A vCenter whose account is connected, a host of ours and a network.
struct Corner {
    world: World,
    vcenter: VCenter,
    shelf: Shelf,
}

impl Corner {
    /// None where the stand-in was left out.
    async fn new() -> Option<Self> {
        let vcenter = VCenter::start().await.unwrap()?;
        let world = World::beside(vec![Arc::new(Vmware::new())]);
        world
            .connect_to(json!({
                "name": "old", "provider": "vmware", "endpoint": vcenter.endpoint(),
                "credential": VCenter::credential(),
            }))
            .await;
        assert_eq!(world.row(world.account).await["status"], "connected");
        let host = world.host("kvm-1", 1, 4, 4_096).await;
        let mut seen = json!(SimHosts::sighting(1, 4, 4_096));
        seen["labels"] = json!(["live-migration"]);
        world.system("host", host, "sight", json!({"epoch": 1, "seen": seen})).await.unwrap();
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = world.send("segment", None, "define", segment).await.unwrap().id;
        let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/24"}});
        world.send("network", None, "define", network).await.unwrap();
        let corner = Self { world, vcenter, shelf: Shelf::start().await.unwrap() };
        corner.land(1);
        Some(corner)
    }

    /// The host has other blank disks from now on.
    fn land(&self, filling: u128) {
        self.shelf.put(NAME, 2 * MIB, 0);
        self.world.hosts.takes_in_at(self.shelf.at(), Uuid::from_u128(filling));
    }

    /// A machine with a disk that has something on it.
    async fn machine(&self) -> String {
        let ask = json!({"Name": "web", "Mib": [2], "Addresses": ["10.0.0.77"]});
        let id = self.vcenter.machine(ask).await.unwrap();
        self.write(&id, 0, 3).await;
        id
    }

    /// Its system writes some blocks of it.
    async fn write(&self, id: &str, at: u64, of: u8) {
        let bytes: Vec<u8> =
            (0..200_000_u32).map(|one| one.wrapping_mul(u32::from(of)) as u8).collect();
        self.vcenter.write(id, DISK, at, bytes).await.unwrap();
    }

    async fn is_same(&self, id: &str) -> bool {
        self.vcenter.read(id, DISK).await.unwrap() == self.shelf.read(NAME)
    }

    async fn of(&self, id: &str) -> Value {
        self.vcenter.of(id).await.unwrap()
    }

    async fn launch(&self, machine: &str) -> Uuid {
        let body = json!({"move_in": {"account": self.world.account, "machine": machine}});
        self.world.send("server", None, "launch", body).await.unwrap().id
    }

    async fn say(&self, server: Uuid, verb: &str) {
        self.world.send("move-in", id_of_move(server), verb, json!({})).await.unwrap();
    }

    async fn stage(&self, server: Uuid) -> Value {
        self.world.row(id_of_move(server)).await["status"].clone()
    }

    /// It comes to this; what is parked on the way is gone on with.
    async fn settled(&self, server: Uuid, stage: &str) {
        for _ in 0..10 {
            self.world.settle().await;
            if self.stage(server).await != "parked" {
                break;
            }
            self.say(server, "retry").await;
        }
        let row = self.world.row(id_of_move(server)).await;
        assert_eq!(row["status"], stage, "{:#}", row["state"]["orders"]);
    }

    /// Whether the server runs on its host.
    async fn runs_here(&self, server: Uuid) -> bool {
        let row = self.world.row(server).await;
        let host = row["state"]["home"]["placement"]["host"].as_str().unwrap().parse().unwrap();
        self.world.hosts.census(host).get(&server).is_some_and(|server| server.running)
    }
}

/// What a machine is that no move has.
fn free(runs: bool) -> Value {
    json!({"runs": runs, "snapshots": 0, "mark": "", "tracking": false})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_a_vcenter_comes_here_while_it_runs_and_goes_back() {
    let Some(corner) = Corner::new().await else { return };
    let id = corner.machine().await;
    corner.world.sync(json!({})).await;
    let row = corner.world.external("server", &id).await;
    assert_eq!((&row["name"], &row["status"]), (&json!("web"), &json!("running")));
    let sources = corner.world.ledger.sources(corner.world.account).await.unwrap();
    assert!(sources.machines[0].obstacles.is_empty(), "{:?}", sources.machines[0].obstacles);

    let server = corner.launch(&id).await;
    corner.settled(server, "ready").await;
    let parts = corner.world.row(server).await["state"]["home"]["parts"].clone();
    assert_eq!(parts["hardware"], json!({"disks": "sata", "nics": "e1000e"}));
    assert_eq!(parts["nics"][0]["addresses"], json!(["10.0.0.77/24"]));
    assert!(corner.is_same(&id).await && corner.of(&id).await["runs"] == true);
    let sources = corner.world.ledger.sources(corner.world.account).await.unwrap();
    let codes: Vec<_> = sources.machines[0].obstacles.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["moving"], "its own snapshot is not in the way of it");

    corner.write(&id, 700_000, 5).await;
    assert!(!corner.is_same(&id).await);
    corner.say(server, "copy-again").await;
    corner.settled(server, "ready").await;
    assert!(corner.is_same(&id).await);
    corner.write(&id, 1_200_000, 7).await;
    corner.say(server, "cut-over").await;
    corner.settled(server, "moved").await;
    assert!(corner.is_same(&id).await, "what it wrote last has come as well");
    let there = corner.of(&id).await;
    assert_eq!((&there["runs"], &there["snapshots"]), (&json!(false), &json!(0)));
    assert!(corner.runs_here(server).await);

    corner.say(server, "go-back").await;
    corner.settled(server, "gone-back").await;
    assert_eq!(corner.of(&id).await, free(true));

    corner.land(2);
    let server = corner.launch(&id).await;
    corner.settled(server, "ready").await;
    corner.say(server, "cut-over").await;
    corner.settled(server, "moved").await;
    corner.say(server, "finish").await;
    assert!(corner.is_same(&id).await && corner.runs_here(server).await);
    assert_eq!(corner.of(&id).await["runs"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_each_pass_over_a_machine_of_a_vcenter_is_is_told() {
    let Some(corner) = Corner::new().await else { return };
    let id = corner.machine().await;
    let ledger = corner.world.ledger.clone();
    let told = async |of_move: &str| {
        let told = async {
            loop {
                if let Some(far) = ledger.progress("move-in", of_move) {
                    corner.shelf.hold(false);
                    return far;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ((), told) = join(corner.world.settle(), tokio::time::timeout(PATIENCE, told)).await;
        told.expect("it is told")
    };
    corner.shelf.hold(true);
    let server = corner.launch(&id).await;
    let of_move = id_of_move(server).to_string();
    let first = told(&of_move).await;
    assert_eq!(first, Progress { done_bytes: 0, total_bytes: 2 * MIB as u64 }, "all of it");
    assert_eq!(corner.stage(server).await, "ready");
    assert_eq!(ledger.progress("move-in", &of_move), None, "it is through");
    corner.write(&id, 700_000, 5).await;
    corner.shelf.hold(true);
    corner.say(server, "copy-again").await;
    let second = told(&of_move).await;
    assert!(second.done_bytes == 0 && second.total_bytes < 2 * MIB as u64, "{second:?}");
    assert!(second.total_bytes >= 200_000 && corner.is_same(&id).await, "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_lost_its_disks_gets_all_of_the_machine_again() {
    let Some(corner) = Corner::new().await else { return };
    let id = corner.machine().await;
    let server = corner.launch(&id).await;
    corner.settled(server, "ready").await;
    corner.land(2);
    corner.say(server, "copy-again").await;
    corner.settled(server, "ready").await;
    assert!(corner.is_same(&id).await);
    corner.say(server, "go-back").await;
    corner.settled(server, "gone-back").await;
    assert_eq!(corner.of(&id).await, free(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_to_a_vcenter_fails_once_and_its_answer_is_lost_once() {
    for how in [Broken::Before, Broken::After] {
        let Some(corner) = Corner::new().await else { return };
        let id = corner.machine().await;
        let server = corner.launch(&id).await;
        let steps: [(&str, &str, &[&str]); 3] = [
            (
                "",
                "ready",
                &[
                    "CreateContainerView",
                    "CreateSnapshot_Task",
                    "DestroyView",
                    "Login",
                    "QueryChangedDiskAreas",
                    "ReconfigVM_Task",
                    "RemoveSnapshot_Task",
                    "RetrievePropertiesEx",
                    "RetrieveServiceContent",
                    "folder",
                ],
            ),
            (
                "cut-over",
                "moved",
                &[
                    "CreateSnapshot_Task",
                    "QueryChangedDiskAreas",
                    "ReconfigVM_Task",
                    "RemoveSnapshot_Task",
                    "ShutdownGuest",
                    "folder",
                ],
            ),
            ("go-back", "gone-back", &["PowerOnVM_Task", "ReconfigVM_Task"]),
        ];
        for (verb, stage, calls) in steps {
            for call in calls {
                corner.vcenter.break_next(call, how).await.unwrap();
            }
            if !verb.is_empty() {
                if verb == "cut-over" {
                    corner.write(&id, 300_000, 9).await;
                }
                corner.say(server, verb).await;
            }
            corner.settled(server, stage).await;
            assert_eq!(corner.vcenter.unbroken().await.unwrap(), 0, "{verb}: each was broken");
            assert!(stage == "gone-back" || corner.is_same(&id).await, "{verb}");
        }
        assert_eq!(corner.of(&id).await, free(true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_process_that_dies_at_every_step_of_a_vcenters_machine_leaves_one_that_runs() {
    struct Dies(Mutex<BTreeSet<(Step, String)>>);
    impl Probe for Dies {
        fn dies(&self, step: Step, key: &OrderKey) -> bool {
            self.0.lock().unwrap().insert((step, key.to_string()))
        }
    }
    let Some(corner) = Corner::new().await else { return };
    let id = corner.machine().await;
    let probe = Arc::new(Dies(Mutex::default()));
    let server = corner.launch(&id).await;
    let settle = async || corner.world.settle_with(Some(probe.clone())).await;
    settle().await;
    assert_eq!(corner.stage(server).await, "ready");
    corner.write(&id, 500_000, 11).await;
    corner.say(server, "cut-over").await;
    settle().await;
    assert_eq!(corner.stage(server).await, "moved");
    assert!(corner.is_same(&id).await && corner.of(&id).await["runs"] == false);
    corner.say(server, "go-back").await;
    settle().await;
    assert_eq!(corner.stage(server).await, "gone-back");
    assert_eq!(corner.of(&id).await, free(true));
    // Prepare, copy, stop, close and release, and the server's launch and removal.
    assert_eq!(probe.0.lock().unwrap().len(), 3 * 7, "at each step of each order");
}
