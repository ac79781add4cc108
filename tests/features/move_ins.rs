//! Machines of a Cloudpods cluster: looked at, and what is in the way of moving each to a host of ours. The
//! cluster is a stand-in of ours that answers as its API does.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use adapters_clouds::{
    cloudpods::Cloudpods,
    testing::cloudpods::{Broken, Cluster, Paper, Qemu as _},
};
use adapters_sim::{HostFault, HostStep, SimHosts};
use commands::{
    move_in::SourceFault,
    ports::DriverFault,
    progress::Progress,
    run_orders::{Probe, Step},
    submit::SubmitFault,
};
use domain::{compute::move_in::id_of as id_of_move, kernel::OrderKey};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, id_of};

/// What is told is told well within this.
const PATIENCE: Duration = Duration::from_secs(30);
const MAC: &str = "00:22:aa:00:00:01";

/// What the cluster says of a machine.
fn details(name: &str, changes: Value) -> Value {
    let mut details = json!({
        "name": name, "vcpu_count": 2, "vmem_size": 512, "bios": "BIOS", "os_arch": "x86",
        "host_access_ip": "192.0.2.7", "freezed": false, "metadata": {},
        "disks_info": [{"id": "d0", "index": 0, "size": 1024, "driver": "virtio"}],
        "nics": [{"mac": MAC, "ip_addr": "10.0.0.77"}],
    });
    for (field, value) in changes.as_object().unwrap() {
        details[field] = value.clone();
    }
    details
}

/// A cluster whose account is connected, a host of ours and a network.
struct Corner {
    world: World,
    cluster: Cluster,
}

impl Corner {
    async fn new() -> Self {
        let cluster = Cluster::start().await.unwrap();
        let world = World::beside(vec![Arc::new(Cloudpods::with_page_size(2))]);
        world
            .connect_to(json!({
                "name": "old", "provider": "cloudpods", "endpoint": cluster.endpoint(),
                "credential": Cluster::credential(),
            }))
            .await;
        assert_eq!(world.row(world.account).await["status"], "connected");
        let host = world.host("kvm-1", 1, 4, 4_096).await;
        let mut seen = json!(SimHosts::sighting(1, 4, 4_096));
        seen["labels"] = json!(["live-migration"]);
        let sight = json!({"epoch": 1, "seen": seen});
        world.system("host", host, "sight", sight).await.unwrap();
        let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
        let segment = world.send("segment", None, "define", segment).await.unwrap().id;
        let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/24"}});
        world.send("network", None, "define", network).await.unwrap();
        Self { world, cluster }
    }

    /// A machine on paper with one disk.
    fn put(&self, id: &str, details: Value) -> Arc<Paper> {
        let paper = Arc::new(Paper::with(&["drive_0"]));
        self.cluster.put(id, details, paper.clone());
        paper
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_of_a_cluster_are_listed_with_everything_that_is_in_the_way() {
    let corner = Corner::new().await;
    corner.put("m1", details("web", json!({})));
    let db = json!({
        "freezed": true, "bios": "UEFI", "nics": [{"mac": MAC, "ip_addr": "10.9.9.9"}],
        "disks_info": [{"id": "d0", "index": 0, "size": 1025, "driver": "ide"}],
        "isolated_devices": [{"dev_type": "GPU-HPC", "model": "T4", "addr": "41:00.0"}],
    });
    corner.put("m2", details("db", db)).kill().await;
    corner.put("m3", details("cache", json!({"nics": []})));
    let sources = corner.world.ledger.sources(corner.world.account).await.unwrap();
    let of = |name: &str| sources.machines.iter().find(|one| one.machine.name == name).unwrap();
    assert_eq!(sources.account, "old");
    let names: Vec<_> = sources.machines.iter().map(|one| one.machine.name.as_str()).collect();
    assert_eq!(names, ["cache", "db", "web"], "of both pages");
    let codes = |name: &str| of(name).obstacles.iter().map(|one| one.code).collect::<Vec<_>>();
    assert!(codes("web").is_empty() && codes("cache").is_empty());
    assert_eq!(codes("db"), ["not-running", "frozen", "devices", "bus", "nic"]);
    assert_eq!(of("db").notes.len(), 2, "{:?}", of("db").notes);
    let nic = &of("web").nics[0];
    assert_eq!(nic.mac.unwrap().to_string(), MAC, "it keeps its hardware address");
    let (one, again) = (of("web").digest.clone(), corner.world.account);
    corner.cluster.set("m1", "vcpu_count", json!(4));
    let sources = corner.world.ledger.sources(again).await.unwrap();
    assert_ne!(sources.machines[2].digest, one, "it is another machine by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_a_cluster_are_in_the_inventory_and_are_started_and_stopped() {
    let corner = Corner::new().await;
    let paper = corner.put("m1", details("web", json!({"metadata": {"env": "prod"}})));
    corner.world.sync(json!({})).await;
    let row = corner.world.external("server", "m1").await;
    assert_eq!((&row["name"], &row["status"]), (&json!("web"), &json!("running")));
    assert_eq!(row["tags"], json!({"env": "prod"}));
    let id = id_of(&row);
    corner.world.send("server", id, "stop", json!({})).await.unwrap();
    corner.world.settle().await;
    assert_eq!(corner.world.row(id).await["status"], "stopped");
    assert!(!paper.runs());
    corner.world.send("server", id, "start", json!({})).await.unwrap();
    corner.world.settle().await;
    assert!(paper.runs());
    let reboot = corner.world.send("server", id, "reboot", json!({})).await.unwrap_err();
    assert!(reboot.to_string().contains("cannot reboot"), "{reboot}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_such_machines_and_a_place_that_does_not_answer_are_said() {
    let world = World::synced(crate::world::small()).await;
    let none = world.ledger.sources(world.account).await.unwrap_err();
    assert!(matches!(none, SourceFault::Refused(_)), "{none:?}");
    let corner = Corner::new().await;
    let gone = corner.cluster;
    drop(gone);
    tokio::task::yield_now().await;
    let away = corner.world.ledger.sources(corner.world.account).await.unwrap_err();
    assert!(matches!(away, SourceFault::Driver(DriverFault::Transient(_))), "{away:?}");
}

impl Corner {
    /// A server is launched from a machine.
    async fn launch(&self, machine: &str) -> Result<Uuid, SubmitFault> {
        let body = json!({"move_in": {"account": self.world.account, "machine": machine}});
        Ok(self.world.send("server", None, "launch", body).await?.id)
    }

    async fn stage(&self, server: Uuid) -> Value {
        self.world.row(id_of_move(server)).await["status"].clone()
    }

    async fn say(&self, server: Uuid, verb: &str) {
        self.world.send("move-in", id_of_move(server), verb, json!({})).await.unwrap();
    }

    /// Whether the server runs on its host.
    fn runs_here(&self, host: Uuid, server: Uuid) -> bool {
        self.world.hosts.census(host).get(&server).is_some_and(|server| server.running)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_comes_here_while_it_runs_and_is_kept_until_somebody_is_done_with_it() {
    let corner = Corner::new().await;
    let paper = corner.put("m1", details("web", json!({})));
    let server = corner.launch("m1").await.unwrap();
    assert_eq!(corner.world.server(server).await.home.unwrap().spec.memory_mib, 512);
    corner.world.settle().await;
    assert_eq!((corner.stage(server).await, paper.runs()), (json!("ready"), true));
    let row = corner.world.row(server).await;
    assert_eq!(row["status"], "moving-in");
    let nic = &row["state"]["home"]["parts"]["nics"][0];
    assert_eq!((&nic["mac"], &nic["addresses"]), (&json!(MAC), &json!(["10.0.0.77/24"])));
    let host = row["state"]["home"]["placement"]["host"].as_str().unwrap().parse().unwrap();
    assert!(!corner.runs_here(host, server));
    for (verb, code) in [("start", "wrong-state"), ("purge", "wrong-state")] {
        let no = corner.world.send("server", server, verb, json!({})).await;
        assert_eq!(crate::hosts::code(no), code, "{verb}");
    }
    let again = corner.launch("m1").await;
    assert_eq!(crate::hosts::code(again), "not-movable-in", "it is on its way already");

    corner.say(server, "cut-over").await;
    corner.world.settle().await;
    assert_eq!(corner.stage(server).await, "moved");
    assert!(corner.runs_here(host, server) && !paper.runs());
    assert_eq!(corner.cluster.of("m1", "freezed"), true, "nobody starts it there");
    let calls = corner.cluster.calls();
    let at = |name: &str| calls.iter().rposition(|call| call == name).unwrap();
    assert!(at("system_powerdown") < at("block-job-cancel") && at("block-job-cancel") < at("stop"));

    corner.say(server, "go-back").await;
    corner.world.settle().await;
    assert_eq!(corner.world.row(id_of_move(server)).await["status"], "gone-back");
    assert!(paper.runs() && corner.world.hosts.census(host).is_empty());
    assert_eq!(corner.cluster.of("m1", "metadata"), json!({"skyledger-move-in": ""}));

    let server = corner.launch("m1").await.unwrap();
    corner.world.settle().await;
    corner.say(server, "cut-over").await;
    corner.world.settle().await;
    corner.say(server, "finish").await;
    assert!(corner.runs_here(host, server) && !paper.runs());
    let late = corner.world.send("move-in", id_of_move(server), "go-back", json!({})).await;
    assert_eq!(crate::hosts::code(late), "wrong-state");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_copy_is_is_told_of_the_move_and_of_its_server() {
    let corner = Corner::new().await;
    let paper = corner.put("m1", details("web", json!({})));
    paper.is_stuck(Some((300, 1_000)));
    let server = corner.launch("m1").await.unwrap();
    let of_move = id_of_move(server).to_string();
    let ledger = corner.world.ledger.clone();
    let watched = async {
        let far = |kind: &str, id: &str| ledger.progress(kind, id);
        let comes_to = async |done_bytes: u64| {
            let wanted = Some(Progress { done_bytes, total_bytes: 1_000 });
            while far("move-in", &of_move) != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(far("server", &server.to_string()), wanted);
        };
        comes_to(300).await;
        assert_eq!(far("move-in", &server.to_string()), None, "it is of that move");
        paper.is_stuck(Some((700, 1_000)));
        comes_to(700).await;
        paper.is_stuck(None);
    };
    let watched = tokio::time::timeout(PATIENCE, watched);
    let ((), watched) = futures::future::join(corner.world.settle(), watched).await;
    watched.expect("it is told");
    assert_eq!(corner.stage(server).await, "ready");
    assert_eq!(ledger.progress("move-in", &of_move), None, "it is through");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_is_said_before_anything_is_made() {
    let corner = Corner::new().await;
    corner.put("m1", details("web", json!({"bios": "BIOS"})));
    let world = &corner.world;
    let ask = |more: Value| {
        let mut body = json!({"move_in": {"account": world.account, "machine": "m1"}});
        for (field, value) in more.as_object().unwrap() {
            if field == "digest" || field == "machine" {
                body["move_in"][field] = value.clone();
            } else {
                body[field] = value.clone();
            }
        }
        body
    };
    let head = world.log.head().await.unwrap().position;
    for (more, code) in [
        (json!({"digest": "00"}), "machine-changed"),
        (json!({"machine": "m9"}), "not-found"),
        (json!({"disks": []  , "nics": [], "wishes": {"labels": ["moon"]}}), "no-room"),
        (json!({"disks": [{"size_gib": 1}, {"size_gib": 1}]}), "invalid-field"),
    ] {
        let no = world.send("server", None, "launch", ask(more)).await;
        assert_eq!(crate::hosts::code(no), code);
    }
    corner.cluster.set("m1", "freezed", json!(true));
    let no = world.send("server", None, "launch", ask(json!({}))).await;
    assert_eq!(crate::hosts::code(no), "not-movable-in");
    assert_eq!(world.log.head().await.unwrap().position, head, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_fails_once_and_its_answer_is_lost_once_and_one_of_the_two_runs() {
    for how in [Broken::Before, Broken::After] {
        let corner = Corner::new().await;
        let paper = corner.put("m1", details("web", json!({})));
        for call in [
            "metadata",
            "query-jobs",
            "drive-mirror",
            "set-action",
            "system_powerdown",
            "query-status",
            "block-job-cancel",
            "metadata",
            "stop",
            "freeze",
            "unfreeze",
            "start",
        ] {
            corner.cluster.break_next(call, how);
        }
        let fault = match how {
            Broken::Before => HostFault::Transient,
            Broken::After => HostFault::AnswerLost,
        };
        let steps = [HostStep::Receive, HostStep::Close];
        for step in steps {
            corner.world.hosts.break_next(step, fault.clone());
        }
        let server = corner.launch("m1").await.unwrap();
        corner.settled(server, "ready").await;
        assert!(paper.runs());
        corner.say(server, "cut-over").await;
        corner.settled(server, "moved").await;
        assert!(!paper.runs());
        corner.say(server, "go-back").await;
        corner.settled(server, "gone-back").await;
        assert!(paper.runs());
        assert_eq!(corner.cluster.unbroken(), 0, "each was broken");
        let hit = corner.world.hosts.hit();
        assert_eq!(hit, steps.map(|step| (step, fault.clone())), "so was each step of the host");
    }
}

impl Corner {
    /// It comes to this; what is parked on the way is gone on with.
    async fn settled(&self, server: Uuid, stage: &str) {
        for _ in 0..10 {
            self.world.settle().await;
            if self.stage(server).await != "parked" {
                break;
            }
            self.say(server, "retry").await;
        }
        assert_eq!(self.stage(server).await, stage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_process_that_dies_at_every_step_leaves_one_that_runs() {
    struct Dies(Mutex<BTreeSet<(Step, String)>>);
    impl Probe for Dies {
        fn dies(&self, step: Step, key: &OrderKey) -> bool {
            self.0.lock().unwrap().insert((step, key.to_string()))
        }
    }
    let corner = Corner::new().await;
    let paper = corner.put("m1", details("web", json!({})));
    let probe = Arc::new(Dies(Mutex::default()));
    let server = corner.launch("m1").await.unwrap();
    let settle = async || corner.world.settle_with(Some(probe.clone())).await;
    settle().await;
    corner.say(server, "cut-over").await;
    settle().await;
    assert_eq!(corner.stage(server).await, "moved");
    assert!(!paper.runs());
    corner.say(server, "go-back").await;
    settle().await;
    assert_eq!(corner.stage(server).await, "gone-back");
    assert!(paper.runs());
    // Prepare, copy, stop, close and release, and the server's launch and removal.
    assert_eq!(probe.0.lock().unwrap().len(), 3 * 7, "at each step of each order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_fails_and_a_system_that_does_not_stop_leave_the_machine_as_it_is() {
    let corner = Corner::new().await;
    let paper = corner.put("m1", details("web", json!({})));
    let server = corner.launch("m1").await.unwrap();
    corner.world.settle().await;
    paper.fail_jobs("No space left on device");
    corner.say(server, "cut-over").await;
    corner.world.settle().await;
    assert_eq!((corner.stage(server).await, paper.runs()), (json!("parked"), true));
    corner.say(server, "copy-again").await;
    corner.world.settle().await;
    assert_eq!(corner.stage(server).await, "ready");
    corner.say(server, "go-back").await;
    corner.world.settle().await;
    assert_eq!((corner.stage(server).await, paper.runs()), (json!("gone-back"), true));
    assert_eq!(paper.jobs(), 0, "nothing is copied any more");
}
