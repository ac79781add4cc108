//! Servers that go from host to host, stopped and running, and what is left of them where they were.

use std::time::Duration;

use adapters_sim::{HostFault, HostStep};
use commands::{ports::Clock as _, run_orders::Runner, submit::SubmitFault};
use domain::{
    compute::{host::Host, server::Order},
    kernel::{Principal, Reach, Role},
};
use futures::FutureExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{code, storage::STORAGE};
use crate::world::{World, small};

impl World {
    /// A host that reaches the storage, and takes servers that run.
    pub(super) async fn peer(&self, name: &str) -> Uuid {
        let host = self.host_with(name, &[STORAGE]).await;
        self.takes_running(host).await;
        host
    }

    /// A host takes servers that run, from now on.
    pub(super) async fn takes_running(&self, host: Uuid) {
        let state = self.state_of(host).await;
        let mut seen = json!(state.seen);
        seen["labels"] = json!(["live-migration"]);
        let sight = json!({"epoch": state.epoch, "seen": seen});
        self.system("host", host, "sight", sight).await.unwrap();
    }

    pub(super) async fn host_of(&self, id: Uuid) -> Uuid {
        self.server(id).await.home.unwrap().placement.host.uuid()
    }

    pub(super) async fn state_of(&self, host: Uuid) -> Host {
        self.ledger.typed(&host.to_string()).await.unwrap().1
    }

    /// Works once on what can be done; an order of a host that nobody works for stays out.
    pub(super) async fn pass(&self) {
        self.caught_up().await;
        assert!(!Runner::new(self.ledger.clone(), 8).pass().await.unwrap());
        self.clock.sleep(Duration::from_secs(1)).await;
    }

    /// It is on this host and nowhere else, and every host has what the log says.
    pub(super) async fn is_only_on(&self, id: Uuid, host: Uuid, others: &[Uuid]) {
        assert_eq!(self.host_of(id).await, host);
        for host in others.iter().chain([&host]) {
            self.same_as_census(*host).await;
        }
        for other in others {
            assert!(!self.hosts.census(*other).contains_key(&id), "it is on {other} as well");
            assert!(!self.hosts.ready(*other).contains(&id), "{other} is still ready for it");
            assert!(self.state_of(*other).await.clearing.is_empty());
        }
        assert!(self.server(id).await.home.unwrap().moving.is_none());
        for disk in self.server(id).await.home.unwrap().parts.disks {
            let row = self.row(disk.id).await;
            assert_eq!(row["state"]["home"]["host"], json!(host), "its disks are where it is");
        }
    }
}

fn detail(result: Result<commands::submit::Outcome, SubmitFault>) -> String {
    match result {
        Err(SubmitFault::Refused(refusal)) => refusal.detail,
        other => panic!("{other:?}"),
    }
}

/// Two hosts, and a server on the first.
pub(super) async fn two_hosts() -> (World, Uuid, Uuid, Uuid) {
    let world = World::empty(small());
    let here = world.peer("kvm-1").await;
    let id = world.launch_on("web", STORAGE).await.unwrap();
    world.settle().await;
    let there = world.peer("kvm-2").await;
    (world, here, there, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_to_another_host_running_or_stopped_and_leaves_nothing() {
    let (world, here, there, id) = two_hosts().await;
    let boots = world.hosts.census(here)[&id].boots;
    let outcome = world.send("server", id, "migrate", json!({})).await.unwrap();
    assert_eq!(outcome.status, "migrating");
    assert!(world.state_of(here).await.holdings.len() == 1, "its place is kept");
    assert!(world.state_of(there).await.holdings.len() == 1, "and the new one taken");
    world.settle().await;
    world.is_only_on(id, there, &[here]).await;
    assert_eq!(world.row(id).await["status"], "running");
    assert_eq!(world.hosts.census(there)[&id].boots, boots, "it was not started again");
    assert!(world.state_of(here).await.holdings.is_empty());

    world.send("server", id, "stop", json!({})).await.unwrap();
    world.settle().await;
    world.send("server", id, "migrate", json!({"to": here})).await.unwrap();
    world.settle().await;
    world.is_only_on(id, here, &[there]).await;
    assert_eq!(world.row(id).await["status"], "stopped");
    world.send("server", id, "start", json!({})).await.unwrap();
    world.settle().await;
    assert!(world.hosts.census(here)[&id].running);
    // What is ordered of its disks is done where it is.
    let disk = world.server(id).await.home.unwrap().parts.disks[1].id;
    world.send("disk", disk, "grow", json!({"size_gib": 5})).await.unwrap();
    world.settle().await;
    assert_eq!(world.hosts.disks(STORAGE)[&disk].0, 5);
    for verb in ["stop", "delete", "purge"] {
        world.send("server", id, verb, json!({})).await.unwrap();
        world.settle().await;
    }
    assert!(world.hosts.disks(STORAGE).is_empty());
    for host in [here, there] {
        world.send("host", host, "retire", json!({})).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_on_the_way_it_runs_on_one_host_alone() {
    for fault in [HostFault::AnswerLost, HostFault::Transient] {
        for step in [
            HostStep::Receive,
            HostStep::Send,
            HostStep::Stop,
            HostStep::Undefine,
            HostStep::Define,
        ] {
            let (world, here, there, id) = two_hosts().await;
            world.hosts.break_next(step, fault.clone());
            world.send("server", id, "migrate", json!({})).await.unwrap();
            world.settle().await;
            world.is_only_on(id, there, &[here]).await;
            assert!(world.hosts.census(there)[&id].running, "{step:?} {fault:?}");
        }
    }
    // It died between handing it over and saying so: the other host looks.
    for arrived in [true, false] {
        let (world, here, there, id) = two_hosts().await;
        world.hosts.break_next(HostStep::Send, HostFault::Unsure { arrived });
        world.send("server", id, "migrate", json!({})).await.unwrap();
        world.settle().await;
        let (is, other) = if arrived { (there, here) } else { (here, there) };
        world.is_only_on(id, is, &[other]).await;
        let real = world.hosts.census(is)[&id].clone();
        assert_eq!((real.running, real.suspended), (true, false), "arrived: {arrived}");
        assert_eq!(world.row(id).await["status"], "running");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_comes_to_nothing_leaves_it_as_it_was_and_the_other_host_clean() {
    let (world, here, there, id) = two_hosts().await;
    let why = HostFault::Rejected("no route to host".into());
    world.hosts.break_next(HostStep::Send, why);
    world.send("server", id, "migrate", json!({})).await.unwrap();
    world.settle().await;
    world.is_only_on(id, here, &[there]).await;
    assert_eq!(world.row(id).await["status"], "running");
    let told = world.history("server", id).await;
    assert!(told.iter().any(|record| record.event_type() == "migration-failed"));

    // The other host is not ready for it, and never will be.
    world.hosts.break_next(HostStep::Receive, HostFault::Rejected("no bridge".into()));
    world.send("server", id, "migrate", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "parked");
    world.send("server", id, "abandon", json!({})).await.unwrap();
    world.settle().await;
    world.is_only_on(id, here, &[there]).await;
    assert_eq!(world.row(id).await["status"], "running");
    // And one that is given up before the other host says anything at all.
    world.send("server", id, "migrate", json!({})).await.unwrap();
    assert_eq!(
        code(
            world
                .send(
                    "disk",
                    None,
                    "create",
                    json!({
                        "name": "x", "server": id, "size_gib": 1,
                    })
                )
                .await
        ),
        "wrong-state",
        "its disks stay as they are meanwhile"
    );
    world.send("server", id, "abandon", json!({})).await.unwrap();
    world.settle().await;
    world.is_only_on(id, here, &[there]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_sent_can_be_broken_off_and_stays_where_it_is() {
    for fault in [None, Some(HostFault::AnswerLost), Some(HostFault::Transient)] {
        let (world, here, there, id) = two_hosts().await;
        let runner = Runner::new(world.ledger.clone(), 8);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(async move { runner.run(stopped.map(drop)).await });
        world.hosts.break_next(HostStep::Send, HostFault::Endless);
        if let Some(fault) = &fault {
            world.hosts.break_next(HostStep::BreakOff, fault.clone());
        }
        let limits = json!({"limits": {"mib_per_second": 100}});
        world.send("server", id, "migrate", limits).await.unwrap();
        while world.hosts.hit().is_empty() {
            world.clock.sleep(Duration::from_secs(1)).await;
        }
        world.send("server", id, "abandon", json!({})).await.unwrap();
        while world.server(id).await.orders.out.is_some()
            || !world.state_of(there).await.clearing.is_empty()
        {
            world.clock.sleep(Duration::from_secs(1)).await;
        }
        drop(stop);
        running.await.unwrap();
        world.is_only_on(id, here, &[there]).await;
        assert_eq!(world.row(id).await["status"], "running");
        let told = world.history("server", id).await;
        let of = |what: &str| {
            let record = told.iter().find(|record| record.event_type() == what);
            let record = record.unwrap_or_else(|| panic!("no {what}"));
            (record.header().actor, String::from_utf8_lossy(record.data()).into_owned())
        };
        assert_eq!(of("break-off-ordered").0, World::admin().name);
        assert!(of("migration-failed").1.contains("it was broken off"), "{fault:?}");
        // And then it goes, as it did before.
        world.send("server", id, "migrate", json!({})).await.unwrap();
        world.settle().await;
        world.is_only_on(id, there, &[here]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_is_refused_with_the_reason_and_nothing_is_taken() {
    let (world, here, there, id) = two_hosts().await;
    let alone = world.host_with("kvm-3", &[]).await;
    let local = world.launch("local", 1, 64).await.unwrap();
    world.settle().await;
    let disk = world.server(local).await.home.unwrap().parts.disks[0].id;
    world.snapshot(disk).await.unwrap();
    world.settle().await;
    let before = world.log.head().await.unwrap().position;
    let held = world.state_of(there).await.holdings;
    let send = async |id: Uuid, body: Value| world.send("server", id, "migrate", body).await;
    let told = detail(send(local, json!({})).await);
    assert!(told.contains("1 snapshots, which are not copied"), "{told}");
    assert_eq!(code(send(local, json!({})).await), "not-movable");
    assert_eq!(code(send(id, json!({"to": here})).await), "invalid-field");
    assert_eq!(code(send(id, json!({"to": Uuid::from_u128(7)})).await), "invalid-field");
    assert_eq!(code(send(id, json!({"to": "kvm"})).await), "malformed-command");
    let placement = json!(world.server(id).await.home.unwrap().placement);
    assert_eq!(code(send(id, json!({"placement": placement})).await), "invalid-field");
    let told = detail(send(id, json!({"to": alone})).await);
    assert!(told.contains("label 1"), "{told}");
    assert_eq!(code(send(id, json!({"to": alone})).await), "no-room");
    assert_eq!(
        code(world.send("server", id, "evacuate", json!({"host_is_down": true})).await),
        "wrong-state"
    );
    let mut mine = World::submission("server", id, "migrate", json!({}));
    mine.principal = Principal {
        name: "token:mine".into(),
        role: Role::Admin,
        reach: Reach::Projects([Uuid::from_u128(1)].into()),
    };
    assert_eq!(code(world.ledger.submit(mine).await), "out-of-reach");
    assert_eq!(world.log.head().await.unwrap().position, before, "nothing is recorded");
    assert_eq!(world.state_of(there).await.holdings, held);

    // An order of one of its disks is out.
    let disk = world.server(id).await.home.unwrap().parts.disks[1].id;
    world.send("disk", disk, "grow", json!({"size_gib": 9})).await.unwrap();
    assert_eq!(code(send(id, json!({})).await), "order-outstanding");
    world.settle().await;
    world.send("server", id, "suspend", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(code(send(id, json!({})).await), "wrong-state");
    // What would be is said, and nothing is taken by it.
    world.send("server", id, "resume", json!({})).await.unwrap();
    world.settle().await;
    let plan = World::submission("server", id, "migrate", json!({}));
    let plan = world.ledger.plan(&plan).await.unwrap();
    assert!(plan.events.iter().any(|fact| fact.event_type == "migration-ordered"));
    assert_eq!(world.state_of(there).await.holdings, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_host_s_server_is_had_back_and_the_host_clears_before_anything_else() {
    let (world, here, there, id) = two_hosts().await;
    let local = {
        let body = json!({
            "name": "local", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}],
            "wishes": {"only": [here]},
        });
        world.send("server", None, "launch", body).await.unwrap().id
    };
    world.settle().await;
    let epoch = world.state_of(here).await.epoch;
    // A server that was being started when its host died.
    world.hosts.leave(here);
    world.send("server", id, "reboot", json!({})).await.unwrap();
    world.pass().await;
    let evacuate = json!({"host_is_down": true});
    let send = async |id: Uuid, body: Value| world.send("server", id, "evacuate", body).await;
    let told = detail(send(id, evacuate.clone()).await);
    assert!(told.contains("is heard"), "{told}");
    world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    let told = detail(send(id, json!({})).await);
    assert!(told.contains("switched off"), "{told}");
    assert_eq!(code(send(local, evacuate.clone()).await), "not-movable");
    send(id, evacuate).await.unwrap();
    let state = world.state_of(here).await;
    assert_eq!((state.epoch, state.fenced), (epoch + 1, true));
    for _ in 0..3 {
        world.pass().await;
    }
    assert_eq!(world.row(id).await["status"], "running");
    assert_eq!(world.host_of(id).await, there);
    assert!(world.hosts.census(there)[&id].running);

    // It was only cut off: what its agent says from then on is nobody's any more.
    assert!(world.hosts.census(here)[&id].running, "it still runs there");
    let seen = json!(state.seen);
    let late = world.system("host", here, "sight", json!({"epoch": epoch, "seen": seen})).await;
    assert_eq!(code(late), "host-fenced");
    // Its agent joins again, and what is first done there is to leave nothing of it.
    let join = json!({"epoch": epoch + 2, "agent": "sim"});
    world.system("host", here, "join", join).await.unwrap();
    world.hosts.join(here, epoch + 2);
    world.settle().await;
    world.is_only_on(id, there, &[here]).await;
    assert_eq!(world.row(local).await["status"], "running", "what is there alone stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_host_dies_while_it_is_sent_is_looked_for_and_begun_where_it_was_to_go() {
    let (world, here, there, id) = two_hosts().await;
    let epoch = world.state_of(here).await.epoch;
    world.hosts.leave(here);
    world.send("server", id, "migrate", json!({})).await.unwrap();
    world.pass().await;
    let order = world.server(id).await.orders.out.unwrap().order;
    assert!(matches!(order, Order::Send { .. }), "{order:?}");
    world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    let evacuate =
        || world.send("server", id, "evacuate", json!({"host_is_down": true, "to": there}));
    evacuate().await.unwrap();
    world.pass().await;
    assert!(!world.hosts.census(there).contains_key(&id), "it was not there");
    assert_eq!(world.server(id).await.orders.out.unwrap().order, Order::TakeBack {});
    evacuate().await.unwrap();
    for _ in 0..3 {
        world.pass().await;
    }
    assert!(world.hosts.census(there)[&id].running);
    assert!(world.state_of(here).await.fenced);
    let join = json!({"epoch": epoch + 2, "agent": "sim"});
    world.system("host", here, "join", join).await.unwrap();
    world.hosts.join(here, epoch + 2);
    world.settle().await;
    world.is_only_on(id, there, &[here]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_new_host_dies_before_it_is_seen_there_is_had_back_where_it_was() {
    let (world, here, there, id) = two_hosts().await;
    let epochs = (world.state_of(here).await.epoch, world.state_of(there).await.epoch);
    world.hosts.leave(here);
    world.send("server", id, "migrate", json!({})).await.unwrap();
    world.pass().await;
    let out = async || world.server(id).await.orders.out.unwrap().order;
    assert!(matches!(out().await, Order::Send { .. }));
    // It is handed over, and nobody is there.
    world.hosts.leave(there);
    world.hosts.join(here, epochs.0);
    world.pass().await;
    assert_eq!(out().await, Order::Arrive { start: true, certain: true });
    let evacuate = async |body: Value| world.send("server", id, "evacuate", body).await;
    assert_eq!(code(evacuate(json!({"host_is_down": true})).await), "wrong-state");
    world.system("host", there, "mark-unreachable", json!({"epoch": epochs.1})).await.unwrap();
    assert_eq!(code(evacuate(json!({})).await), "invalid-field");
    assert_eq!(code(evacuate(json!({"host_is_down": true, "to": there})).await), "invalid-field");
    let held = world.state_of(here).await.holdings;
    evacuate(json!({"host_is_down": true})).await.unwrap();
    for _ in 0..3 {
        world.pass().await;
    }
    assert_eq!(world.row(id).await["status"], "running");
    assert_eq!(world.host_of(id).await, here);
    assert_eq!(world.state_of(here).await.holdings, held, "its place was kept for it");
    assert!(world.state_of(there).await.fenced);
    let join = json!({"epoch": epochs.1 + 2, "agent": "sim"});
    world.system("host", there, "join", join).await.unwrap();
    world.hosts.join(there, epochs.1 + 2);
    world.settle().await;
    world.is_only_on(id, here, &[there]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_host_dies_while_it_is_launched_is_launched_on_another() {
    let (world, here, there, _) = two_hosts().await;
    let epoch = world.state_of(here).await.epoch;
    world.send("host", there, "disable", json!({})).await.unwrap();
    world.hosts.leave(here);
    let body = json!({
        "name": "late", "spec": {"vcpus": 1, "memory_mib": 64}, "disks": [{"size_gib": 1}],
    });
    let id = world.send("server", None, "launch", body).await.unwrap().id;
    world.pass().await;
    assert_eq!(world.host_of(id).await, here);
    world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    let evacuate =
        async || world.send("server", id, "evacuate", json!({"host_is_down": true})).await;
    assert_eq!(code(evacuate().await), "no-room");
    world.send("host", there, "enable", json!({})).await.unwrap();
    evacuate().await.unwrap();
    world.caught_up().await;
    assert_eq!(world.row(id).await["status"], "launching");
    for _ in 0..3 {
        world.pass().await;
    }
    assert_eq!(world.row(id).await["status"], "running");
    assert_eq!(world.host_of(id).await, there);
    assert!(world.hosts.census(there)[&id].running);
    let disk = world.server(id).await.home.unwrap().parts.disks[0].id;
    assert_eq!(world.row(disk).await["state"]["home"]["host"], json!(there));
    let join = json!({"epoch": epoch + 2, "agent": "sim"});
    world.system("host", here, "join", join).await.unwrap();
    world.hosts.join(here, epoch + 2);
    world.settle().await;
    world.is_only_on(id, there, &[here]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_its_disks_is_waited_for_and_goes_on_where_it_is_then() {
    let (world, here, there, id) = two_hosts().await;
    let store = world.store("vault").await;
    let disk = world.server(id).await.home.unwrap().parts.disks[0].id;
    world.hosts.write(disk, "first");
    let migrate = async || world.send("server", id, "migrate", json!({})).await;

    // While a host reads a disk, or writes into it, nobody else has it.
    let full = world.back_up(disk, store, None).await.unwrap();
    let told = detail(migrate().await);
    assert!(told.contains(&full.to_string()), "{told}");
    world.settle().await;
    let snapshot = world.snapshot(disk).await.unwrap();
    assert_eq!(code(migrate().await), "in-use");
    world.settle().await;

    // While it is on its way, none of them begins.
    migrate().await.unwrap();
    let (kept, taken) = (world.back_up(disk, store, None).await, world.snapshot(disk).await);
    assert_eq!((code(kept), code(taken)), ("wrong-state", "wrong-state"));
    let deleted = world.send("snapshot", snapshot, "delete", json!({})).await;
    assert_eq!(code(deleted), "wrong-state");
    world.settle().await;
    world.is_only_on(id, there, &[here]).await;

    // And then all of it goes on there.
    world.hosts.write(disk, "second");
    let more = world.back_up(disk, store, Some(full)).await.unwrap();
    world.settle().await;
    let row = world.row(more).await;
    assert_eq!(
        (&row["status"], &row["state"]["source"]["host"]),
        (&json!("available"), &json!(there))
    );
    world.through("server", id, "stop", json!({})).await;
    world.through("snapshot", snapshot, "roll-back", json!({})).await;
    assert_eq!(world.hosts.content(disk), "first");
    world.through("snapshot", snapshot, "delete", json!({})).await;
    assert!(world.hosts.snapshots(disk).is_empty());
    world.through("disk", disk, "restore", json!({"backup": more})).await;
    assert_eq!(world.hosts.content(disk), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_a_dead_host_was_at_is_given_up_where_its_disk_is_now() {
    let (world, here, there, id) = two_hosts().await;
    let store = world.store("vault").await;
    let disks = world.server(id).await.home.unwrap().parts.disks;
    world.hosts.leave(here);
    let backup = world.back_up(disks[0].id, store, None).await.unwrap();
    let snapshot = world.snapshot(disks[1].id).await.unwrap();
    world.pass().await;
    let given_up = async |kind: &str, id: Uuid| world.send(kind, id, "abandon", json!({})).await;
    assert_eq!(code(given_up("backup", backup).await), "nothing-parked", "its host may come back");
    let epoch = world.state_of(here).await.epoch;
    world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    world.send("server", id, "evacuate", json!({"host_is_down": true})).await.unwrap();
    for _ in 0..3 {
        world.pass().await;
    }
    assert_eq!(world.host_of(id).await, there);
    assert_eq!(world.status(backup).await, "taking", "nobody does it");

    given_up("backup", backup).await.unwrap();
    given_up("snapshot", snapshot).await.unwrap();
    world.pass().await;
    assert_eq!(
        (world.status(backup).await, world.status(snapshot).await),
        ("gone".into(), "gone".into())
    );
    let again = world.back_up(disks[0].id, store, None).await.unwrap();
    let taken = world.snapshot(disks[1].id).await.unwrap();
    world.pass().await;
    assert_eq!(world.status(again).await, "available");
    assert_eq!(world.status(taken).await, "available");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_waits_for_a_host_that_is_away_and_gives_up_where_its_disks_have_left_it() {
    let (world, here, there, id) = two_hosts().await;
    let store = world.store("vault").await;
    let terms = json!({
        "servers": [id], "store": store, "times": {"hours": [2]}, "keep": {"last": 2},
    });
    let body = json!({"name": "nightly", "terms": terms});
    let plan = world.send("backup-plan", None, "define", body).await.unwrap().id;
    let epoch = world.state_of(here).await.epoch;

    // It is away for hours, and back: the run was waiting for it.
    world.hosts.leave(here);
    world.send("backup-plan", plan, "run", json!({})).await.unwrap();
    for _ in 0..3 {
        world.pass().await;
        world.clock.advance(Duration::from_hours(2));
    }
    assert_eq!(world.status(plan).await, "running");
    world.hosts.join(here, epoch);
    world.settle().await;
    assert_eq!(world.status(plan).await, "active");

    // It is dead, and the server is had back elsewhere: nobody goes on with what it was at.
    world.hosts.leave(here);
    world.send("backup-plan", plan, "run", json!({})).await.unwrap();
    world.pass().await;
    world.system("host", here, "mark-unreachable", json!({"epoch": epoch})).await.unwrap();
    world.send("server", id, "evacuate", json!({"host_is_down": true})).await.unwrap();
    for _ in 0..12 {
        world.pass().await;
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(world.host_of(id).await, there);
    assert_eq!(world.status(plan).await, "failing");
    let last = world.row(plan).await["state"]["last_run"].clone();
    assert_eq!(last["problems"], 2, "{last}");
    assert_eq!(last["results"][0]["problem"], "it was given up");
    world.send("backup-plan", plan, "run", json!({})).await.unwrap();
    for _ in 0..12 {
        world.pass().await;
        world.clock.advance(Duration::from_secs(5));
    }
    assert_eq!(world.status(plan).await, "active");
}
