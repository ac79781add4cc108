//! What is done with a server of ours once it is there: it stands still and goes on, is called and sized
//! otherwise, gets passwords, and is rescued.

use adapters_sim::{HostFault, HostStep};
use commands::submit::{Outcome, SubmitFault};
use domain::{
    compute::{host::Host, placement::Holding},
    kernel::{Principal, Reach, Role},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::code;
use crate::world::{World, small};

/// Every operation, in an order in which all can be done, each but `delete` with an order of its own.
pub(super) const EVERY: &[(&str, &str)] = &[
    ("reboot", "{}"),
    ("suspend", "{}"),
    ("resume", "{}"),
    ("set-password", "{}"),
    ("rescue", "{}"),
    ("leave-rescue", "{}"),
    ("stop", "{}"),
    ("resize", r#"{"vcpus": 3, "memory_mib": 768}"#),
    ("start", "{}"),
    ("stop", "{}"),
    ("delete", "{}"),
    ("purge", "{}"),
];

const KERNEL: &str = "/rescue/kernel";
const INITRAMFS: &str = "/rescue/initramfs";

/// A host has what its servers are rescued with, and says so.
pub(super) async fn rescue_is_there(world: &World, host: Uuid) {
    let system = json!({"kernel": KERNEL, "initramfs": INITRAMFS});
    let settings = json!({
        "cpu_overcommit_percent": 100, "tags": ["lab"], "rescue": {"x86_64": system},
    });
    world.send("host", host, "configure", json!({"settings": settings})).await.unwrap();
    world.hosts.put_file(host, KERNEL);
    world.hosts.put_file(host, INITRAMFS);
}

fn refused(result: Result<Outcome, SubmitFault>) -> (&'static str, String) {
    match result {
        Err(SubmitFault::Refused(refusal)) => (refusal.code.code, refusal.detail),
        other => panic!("{other:?}"),
    }
}

impl World {
    /// Sends a command, and lets what it orders be done.
    async fn done(&self, id: Uuid, verb: &str, body: Value) -> Outcome {
        let outcome = self.send("server", id, verb, body).await.unwrap();
        self.settle().await;
        outcome
    }

    async fn holding(&self, host: Uuid, server: Uuid) -> Holding {
        let state = self.ledger.typed::<Host>(&host.to_string()).await.unwrap().1;
        let mut holdings = state.holdings.into_iter();
        holdings.find(|(id, _)| id.uuid() == server).unwrap().1
    }

    pub(crate) async fn status(&self, id: Uuid) -> String {
        self.row(id).await["status"].as_str().unwrap().to_owned()
    }

    /// Everything that is in the log, as text.
    async fn written(&self) -> String {
        let records = self.log.read(0, 100_000).await.unwrap();
        records.iter().map(|record| String::from_utf8_lossy(record.data()).into_owned()).collect()
    }
}

async fn running(world: &World) -> (Uuid, Uuid) {
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let id = world.launch("web", 2, 512).await.unwrap();
    world.settle().await;
    (host, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_server_stands_still_until_it_is_resumed_or_stopped() {
    let world = World::empty(small());
    let (host, id) = running(&world).await;
    let already = world.send("server", id, "resume", json!({})).await.unwrap();
    assert!(already.events.is_empty(), "it goes on already");
    world.done(id, "suspend", json!({})).await;
    assert_eq!(world.status(id).await, "suspended");
    world.same_as_census(host).await;
    let (why, detail) = refused(world.send("server", id, "start", json!({})).await);
    assert_eq!(why, "wrong-state");
    assert!(detail.contains("resume it"), "{detail}");
    for verb in ["reboot", "delete", "resize", "rescue", "set-password"] {
        assert_eq!(code(world.send("server", id, verb, json!({})).await), "wrong-state", "{verb}");
    }
    world.done(id, "resume", json!({})).await;
    assert_eq!(world.status(id).await, "running");
    assert_eq!(world.hosts.census(host)[&id].boots, 1, "it was not started again");
    world.done(id, "suspend", json!({})).await;
    world.done(id, "stop", json!({})).await;
    assert_eq!(world.status(id).await, "stopped");
    assert_eq!(code(world.send("server", id, "suspend", json!({})).await), "wrong-state");
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_tags_of_a_server_of_ours_are_changed_in_the_log() {
    let world = World::empty(small());
    let (_, id) = running(&world).await;
    world.send("server", id, "rename", json!({"name": "db"})).await.unwrap();
    assert!(
        world.send("server", id, "rename", json!({"name": "db"})).await.unwrap().events.is_empty()
    );
    assert_eq!(
        code(world.send("server", id, "rename", json!({"name": ""})).await),
        "invalid-field"
    );
    let tags = json!({"tags": {"team": "shop", "env": "prod"}});
    world.send("server", id, "tag", tags.clone()).await.unwrap();
    assert!(world.send("server", id, "tag", tags).await.unwrap().events.is_empty());
    world.send("server", id, "tag", json!({"tags": {"env": null}})).await.unwrap();
    let row = world.row(id).await;
    assert_eq!((&row["name"], &row["tags"]), (&json!("db"), &json!({"team": "shop"})));
    assert_eq!(row["order"], Value::Null, "nobody has to do anything for that");
    let many = |from: u32| -> Value {
        let tags: serde_json::Map<_, _> =
            (from..from + 49).map(|at| (format!("t{at}"), json!("x"))).collect();
        json!({"tags": tags})
    };
    world.send("server", id, "tag", many(0)).await.unwrap();
    let (why, detail) = refused(world.send("server", id, "tag", many(1)).await);
    assert_eq!(why, "invalid-field");
    assert!(detail.contains("51"), "{detail}");
    let own = json!({"tags": {"skyledger:x": "y"}});
    assert_eq!(code(world.send("server", id, "tag", own).await), "invalid-field");
    // What an order reports says the same.
    world.done(id, "reboot", json!({})).await;
    assert_eq!(world.row(id).await["name"], "db");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_is_started_from_is_what_it_has_each_once() {
    let world = World::empty(small());
    let (_, id) = running(&world).await;
    let set = async |order: Value| {
        world.send("server", id, "set-boot-order", json!({"order": order})).await
    };
    set(json!(["disk"])).await.unwrap();
    assert!(set(json!(["disk"])).await.unwrap().events.is_empty());
    assert_eq!(world.row(id).await["state"]["home"]["boot_order"], json!(["disk"]));
    assert_eq!(world.row(id).await["order"], Value::Null, "from its next start on");
    for (order, why) in [
        (json!([]), "at least one"),
        (json!(["disk", "disk"]), "each once"),
        (json!(["network"]), "no interface"),
    ] {
        let (code, detail) = refused(set(order).await);
        assert_eq!(code, "invalid-field");
        assert!(detail.contains(why), "{detail}");
    }
    assert_eq!(code(set(json!(["floppy"])).await), "malformed-command");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_given_or_made_up_and_is_in_no_record() {
    let world = World::empty(small());
    let (host, id) = running(&world).await;
    let given = json!({"user": "ubuntu", "password": "correct horse battery"});
    assert_eq!(world.done(id, "set-password", given).await.secret, None, "they know it");
    let made = world.done(id, "set-password", json!({})).await.secret.unwrap();
    assert_eq!(made.len(), 20);
    let set = world.hosts.census(host)[&id].passwords.clone();
    assert_eq!(set["ubuntu"], "correct horse battery");
    assert_eq!(set["root"], made);
    let written = world.written().await;
    assert!(!written.contains("correct horse") && !written.contains(&made));
    assert!(written.contains("ubuntu"));
    let row = world.row(id).await.to_string();
    assert!(!row.contains("password"), "nothing of it stays: {row}");
    for body in [
        json!({"password": "short"}),
        json!({"password": "x".repeat(129)}),
        json!({"password": "with\na break in it"}),
        json!({"password": 12_345_678}),
        json!({"user": ""}),
        json!({"user": "-r"}),
        json!({"user": "root; reboot"}),
        json!({"user": "x".repeat(65)}),
    ] {
        let refused = world.send("server", id, "set-password", body.clone()).await;
        assert_eq!(code(refused), "invalid-field", "{body}");
    }
    // A plan shows no password, and sets none.
    let submission = World::submission("server", id, "set-password", json!({}));
    world.ledger.plan(&submission).await.unwrap();
    assert_eq!(world.hosts.census(host)[&id].passwords, set);
    world.done(id, "stop", json!({})).await;
    let (why, detail) = refused(world.send("server", id, "set-password", json!({})).await);
    assert_eq!(why, "wrong-state");
    assert!(detail.contains("start the server"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_answer_parks_the_password_and_giving_it_up_leaves_the_server() {
    let world = World::empty(small());
    let (host, id) = running(&world).await;
    let why = "the guest agent does not answer".to_owned();
    world.hosts.break_next(HostStep::Password, HostFault::Rejected(why.clone()));
    world.done(id, "set-password", json!({})).await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "parked");
    assert!(row["order"]["parked"].as_str().unwrap().contains(&why));
    world.send("server", id, "abandon", json!({})).await.unwrap();
    assert_eq!(world.status(id).await, "running");
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_size_holds_that_from_its_order_on() {
    let world = World::empty(small());
    // 8 CPUs, not promised twice, and 4 GiB.
    let (host, id) = running(&world).await;
    let (why, detail) = refused(world.send("server", id, "resize", json!({"vcpus": 4})).await);
    assert_eq!(why, "wrong-state");
    assert!(detail.contains("stop it first"), "{detail}");
    world.done(id, "stop", json!({})).await;
    let same = json!({"vcpus": 2, "memory_mib": 512});
    assert!(world.send("server", id, "resize", same).await.unwrap().events.is_empty());

    // It grows: what it will have is nobody else's from now on.
    world.send("server", id, "resize", json!({"vcpus": 6, "memory_mib": 2_048})).await.unwrap();
    assert_eq!(world.status(id).await, "resizing");
    let held = world.holding(host, id).await;
    assert_eq!((held.vcpus, held.memory_mib), (6, 2_048));
    assert_eq!(code(world.launch("no", 3, 64).await), "no-room");
    world.settle().await;
    assert_eq!(world.status(id).await, "stopped");
    world.done(id, "start", json!({})).await;
    world.same_as_census(host).await;
    world.done(id, "stop", json!({})).await;

    // It shrinks: what it had is its own until that is done.
    world.send("server", id, "resize", json!({"vcpus": 1})).await.unwrap();
    assert_eq!(world.holding(host, id).await.vcpus, 6, "both, until it is through");
    assert_eq!(code(world.launch("no", 3, 64).await), "no-room");
    world.settle().await;
    assert_eq!(world.holding(host, id).await.vcpus, 1);
    world.launch("yes", 7, 64).await.unwrap();
    world.settle().await;
    world.same_as_census(host).await;

    let before = world.written().await;
    for (body, expected) in [
        (json!({"vcpus": 2}), "no-room"),
        (json!({"memory_mib": 8_192}), "no-room"),
        (json!({"vcpus": 0}), "invalid-field"),
        (json!({"memory_mib": 0}), "invalid-field"),
        (json!({"vcpus": 2, "placement": {}}), "invalid-field"),
        (json!({"vcpus": "two"}), "malformed-command"),
        (json!({"memory_gib": 1}), "malformed-command"),
    ] {
        let refused = world.send("server", id, "resize", body.clone()).await;
        assert_eq!(code(refused), expected, "{body}");
    }
    assert_eq!(world.written().await, before, "nothing is reserved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_runs_grows_as_far_as_it_was_started_with_room_for() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let launch = async |spec: Value| {
        let body = json!({"name": "web", "spec": spec});
        world.send("server", None, "launch", body).await.map(|outcome| outcome.id)
    };
    let room = json!({"vcpus": 2, "vcpus_max": 6, "memory_mib": 512, "memory_max_mib": 1_024});
    let id = launch(room.clone()).await.unwrap();
    world.settle().await;
    let held = world.holding(host, id).await;
    assert_eq!((held.vcpus, held.memory_mib), (2, 512), "room is not taken before it is used");
    let before = world.written().await;
    for (body, expected) in [
        (json!({"vcpus": 7}), "wrong-state"),
        (json!({"vcpus": 1}), "wrong-state"),
        (json!({"memory_mib": 1_152}), "wrong-state"),
        (json!({"memory_mib": 384}), "wrong-state"),
        (json!({"memory_mib": 600}), "invalid-field"),
    ] {
        let (why, detail) = refused(world.send("server", id, "resize", body.clone()).await);
        assert_eq!(why, expected, "{body}: {detail}");
    }
    assert_eq!(world.written().await, before, "nothing is reserved");
    let boots = world.hosts.census(host)[&id].boots;
    world.done(id, "resize", json!({"vcpus": 4, "memory_mib": 768})).await;
    world.same_as_census(host).await;
    let real = world.hosts.census(host)[&id].clone();
    assert_eq!((real.vcpus, real.memory_mib, real.running), (4, 768, true));
    assert_eq!(real.boots, boots, "it was not started again");
    // Others are placed beside what it has now, and it has no more than is there.
    let _ = launch(json!({"vcpus": 3, "memory_mib": 64})).await.unwrap();
    world.settle().await;
    assert_eq!(code(world.send("server", id, "resize", json!({"vcpus": 6})).await), "no-room");
    world.done(id, "resize", json!({"vcpus": 5})).await;
    world.same_as_census(host).await;

    // A growth that is given up half way: its host keeps all of it until it stops.
    world.hosts.break_next(HostStep::Resize, HostFault::Rejected("no free slots".into()));
    world.done(id, "resize", json!({"memory_mib": 1_024})).await;
    assert_eq!(world.status(id).await, "parked");
    world.send("server", id, "abandon", json!({})).await.unwrap();
    assert_eq!(world.status(id).await, "running");
    assert_eq!(world.holding(host, id).await.memory_mib, 1_024);
    world.done(id, "stop", json!({})).await;
    assert_eq!(world.holding(host, id).await.memory_mib, 768);
    world.done(id, "start", json!({})).await;
    world.same_as_census(host).await;

    for (more, expected) in [
        (json!({"vcpus_max": 1}), "invalid-field"),
        (json!({"vcpus_max": 9_000}), "invalid-field"),
        (json!({"memory_max_mib": 256}), "invalid-field"),
        (json!({"vcpus_max": 4, "numa": "strict"}), "unsupported"),
        (json!({"vcpus_max": 4, "pinning": {"type": "cores", "data": {}}}), "unsupported"),
    ] {
        let mut spec = json!({"vcpus": 2, "memory_mib": 512});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(code(launch(spec).await), expected, "{more}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_cannot_be_given_leaves_what_the_server_had() {
    let world = World::empty(small());
    let (host, id) = running(&world).await;
    world.done(id, "stop", json!({})).await;
    for (fault, size) in [
        (HostFault::Rejected("no such size".into()), json!({"vcpus": 6, "memory_mib": 2_048})),
        (HostFault::Rejected("no such size".into()), json!({"vcpus": 1, "memory_mib": 64})),
    ] {
        world.hosts.break_next(HostStep::Resize, fault);
        world.done(id, "resize", size).await;
        assert_eq!(world.status(id).await, "parked");
        world.send("server", id, "abandon", json!({})).await.unwrap();
        assert_eq!(world.status(id).await, "stopped");
        let held = world.holding(host, id).await;
        assert_eq!((held.vcpus, held.memory_mib), (2, 512));
    }
    // One that was done, and nobody heard of it.
    world.hosts.break_next(HostStep::Resize, HostFault::AnswerLost);
    world.done(id, "resize", json!({"vcpus": 6})).await;
    assert_eq!(world.holding(host, id).await.vcpus, 6);
    world.done(id, "start", json!({})).await;
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_resize_into_the_last_room_once() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let id = world.launch(name, 2, 512).await.unwrap();
        world.settle().await;
        world.done(id, "stop", json!({})).await;
        ids.push(id);
    }
    let other = commands::ledger::Ledger::new(world.ledger.ports.clone());
    let body = || json!({"vcpus": 6});
    let (one, two) = tokio::join!(
        world.ledger.submit(World::submission("server", ids[0], "resize", body())),
        other.submit(World::submission("server", ids[1], "resize", body())),
    );
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1, "{one:?} {two:?}");
    world.settle().await;
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_rescued_with_a_password_of_its_own_and_comes_back() {
    let world = World::empty(small());
    let (host, id) = running(&world).await;
    let (why, detail) = refused(world.send("server", id, "rescue", json!({})).await);
    assert_eq!(why, "no-rescue-system");
    assert!(detail.contains("x86_64"), "{detail}");
    rescue_is_there(&world, host).await;
    for body in [json!({"password": "mine, all mine"}), json!({"system": {}})] {
        assert_eq!(code(world.send("server", id, "rescue", body).await), "invalid-field");
    }
    let opened = world.done(id, "rescue", json!({})).await;
    let password = opened.secret.unwrap();
    assert_eq!(world.status(id).await, "rescued");
    let real = world.hosts.census(host)[&id].clone();
    assert!(real.rescued);
    assert_eq!(real.passwords["root"], password, "there is no open shell");
    assert!(!world.written().await.contains(&password));
    world.same_as_census(host).await;
    for verb in ["start", "reboot", "suspend", "resize", "rescue", "set-password", "delete"] {
        let (why, detail) = refused(world.send("server", id, verb, json!({})).await);
        assert_eq!(why, "wrong-state", "{verb}");
        assert!(detail.contains("leave-rescue"), "{verb}: {detail}");
    }
    world.clock.advance(std::time::Duration::from_mins(10));
    world.done(id, "leave-rescue", json!({})).await;
    assert_eq!(world.status(id).await, "running", "as it was before");
    world.same_as_census(host).await;
    let history = world.history("server", id).await;
    let data = |event_type: &str| -> Value {
        let record = history.iter().find(|record| record.event_type() == event_type);
        serde_json::from_slice(record.unwrap().data()).unwrap()
    };
    assert_eq!(data("rescue-entered")["by"], "token:admin");
    let left = data("rescue-left");
    assert_eq!(left["by"], "token:admin");
    assert!((600..700).contains(&left["seconds"].as_u64().unwrap()), "{left}");
    assert_eq!(code(world.send("server", id, "leave-rescue", json!({})).await), "wrong-state");

    // One that was stopped is stopped again; and stopping it ends a rescue as well.
    world.done(id, "stop", json!({})).await;
    for verb in ["leave-rescue", "stop"] {
        world.done(id, "rescue", json!({})).await;
        assert_eq!(world.status(id).await, "rescued");
        world.done(id, verb, json!({})).await;
        assert_eq!(world.status(id).await, "stopped", "{verb}");
        world.same_as_census(host).await;
    }
    world.done(id, "start", json!({})).await;
    assert!(!world.hosts.census(host)[&id].rescued, "it starts from its disks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_whose_files_are_missing_stops_nothing() {
    let world = World::empty(small());
    let (host, id) = running(&world).await;
    let system = json!({"kernel": KERNEL, "initramfs": "/rescue/not-there"});
    let settings = json!({"cpu_overcommit_percent": 100, "rescue": {"x86_64": system}});
    world.send("host", host, "configure", json!({"settings": settings})).await.unwrap();
    world.hosts.put_file(host, KERNEL);
    world.done(id, "rescue", json!({})).await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "parked");
    let told = row["order"]["parked"].as_str().unwrap();
    assert!(told.contains("not-there") && told.contains("nothing was stopped"), "{told}");
    assert_eq!(world.hosts.census(host)[&id].boots, 1);
    assert!(world.hosts.census(host)[&id].running);
    world.done(id, "abandon", json!({})).await;
    assert_eq!(world.status(id).await, "running");
    assert_eq!(world.hosts.census(host)[&id].boots, 1, "it never stopped");
    world.same_as_census(host).await;
    for system in [
        json!({"kernel": "boot/kernel", "initramfs": "/rescue/x"}),
        json!({"kernel": "/rescue/k", "initramfs": "/rescue/x\n"}),
        json!({"kernel": "/rescue/k", "initramfs": "/x", "command_line": "x".repeat(1_025)}),
    ] {
        let settings = json!({"rescue": {"x86_64": system}});
        let refused = world.send("host", host, "configure", json!({"settings": settings})).await;
        assert_eq!(code(refused), "invalid-field", "{system}");
    }
}

/// Whatever cannot be done on the way into a rescue and out of it, what comes of it is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_that_fails_ends_as_the_server_was_or_stopped() {
    for step in [HostStep::Stop, HostStep::Rescue, HostStep::Password] {
        let world = World::empty(small());
        let (host, id) = running(&world).await;
        rescue_is_there(&world, host).await;
        world.hosts.break_next(step, HostFault::Rejected("it cannot be".into()));
        world.done(id, "rescue", json!({})).await;
        assert_eq!(world.status(id).await, "parked", "{step:?}");
        world.done(id, "abandon", json!({})).await;
        assert_eq!(world.status(id).await, "running", "{step:?}: as it was before");
        world.same_as_census(host).await;
    }
    for step in [HostStep::Stop, HostStep::Start] {
        let world = World::empty(small());
        let (host, id) = running(&world).await;
        rescue_is_there(&world, host).await;
        world.done(id, "rescue", json!({})).await;
        world.hosts.break_next(step, HostFault::Rejected("it cannot be".into()));
        world.done(id, "leave-rescue", json!({})).await;
        assert_eq!(world.status(id).await, "parked", "{step:?}");
        world.done(id, "abandon", json!({})).await;
        assert_eq!(world.status(id).await, "stopped", "{step:?}");
        world.same_as_census(host).await;
        world.done(id, "start", json!({})).await;
        world.same_as_census(host).await;
        let left = world.history("server", id).await;
        let left = left.iter().filter(|record| record.event_type() == "rescue-left").count();
        assert_eq!(left, 1, "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_of_servers_of_ours_and_of_those_within_reach() {
    let world = World::synced(small()).await;
    let of_a_cloud = world.rows("server").await.remove(0).key.parse::<Uuid>().unwrap();
    for (verb, body) in [
        ("suspend", json!({})),
        ("resume", json!({})),
        ("rename", json!({"name": "x"})),
        ("resize", json!({"vcpus": 1})),
        ("rescue", json!({})),
        ("leave-rescue", json!({})),
        ("set-password", json!({})),
    ] {
        assert_eq!(
            code(world.send("server", of_a_cloud, verb, body).await),
            "unsupported",
            "{verb}"
        );
    }
    let (_, id) = running(&world).await;
    for (verb, body) in EVERY {
        let mut submission =
            World::submission("server", id, verb, serde_json::from_str(body).unwrap());
        submission.principal = Principal {
            name: "token:other".into(),
            role: Role::Operator,
            reach: Reach::Projects(vec![Uuid::from_u128(7)]),
        };
        assert_eq!(code(world.ledger.submit(submission).await), "out-of-reach", "{verb}");
    }
}
