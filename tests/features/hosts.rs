//! Servers on hosts of our own: placed, made, and taken away again, whatever fails on the way. What
//! hosts really have is counted, and is what the log says.

mod adopt;
mod carriers;
mod cdrom;
pub(crate) mod consoles;
mod desktops;
mod devices;
mod drain;
mod flavours;
mod local_disks;
mod migrate;
mod operations;
mod placements;
mod quotas;
mod rebuild;
mod shared_group;
mod storage;
mod volume_group;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use adapters_sim::{HostFault, HostStep, SimHosts};
use commands::{
    run_orders::{Probe, Step},
    submit::SubmitFault,
};
use domain::{
    compute::{host::Host, server::Server},
    kernel::{Decider, OrderKey, codes},
};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    backups,
    world::{World, small},
};

impl World {
    /// A host that is there, with an agent that has said what it is: cells, cores of each, memory of
    /// each in MiB.
    pub(crate) async fn host(&self, name: &str, cells: u32, cores: u32, memory_mib: u64) -> Uuid {
        let settings = json!({"cpu_overcommit_percent": 100, "tags": ["lab"]});
        let body = json!({"name": name, "settings": settings});
        let id = self.send("host", None, "enrol", body).await.unwrap().id;
        self.joined(id, SimHosts::sighting(cells, cores, memory_mib)).await;
        id
    }

    async fn joined(&self, host: Uuid, seen: impl serde::Serialize) {
        let epoch = self.ledger.typed::<Host>(&host.to_string()).await.unwrap().1.epoch + 1;
        let join = json!({"epoch": epoch, "agent": "sim"});
        self.system("host", host, "join", join).await.unwrap();
        self.system("host", host, "sight", json!({"epoch": epoch, "seen": seen})).await.unwrap();
        self.hosts.join(host, epoch);
    }

    pub(crate) async fn system(
        &self,
        kind: &str,
        id: Uuid,
        verb: &str,
        body: Value,
    ) -> Result<commands::submit::Outcome, SubmitFault> {
        let mut submission = Self::submission(kind, id, verb, body);
        submission.principal = domain::kernel::Principal::system("agent");
        self.ledger.submit(submission).await
    }

    pub(crate) async fn launch(
        &self,
        name: &str,
        vcpus: u32,
        memory_mib: u64,
    ) -> Result<Uuid, SubmitFault> {
        let body = json!({
            "name": name, "spec": {"vcpus": vcpus, "memory_mib": memory_mib},
            "disks": [{"size_gib": 1}],
        });
        Ok(self.send("server", None, "launch", body).await?.id)
    }

    pub(crate) async fn server(&self, id: Uuid) -> Server {
        self.ledger.typed(&id.to_string()).await.unwrap().1
    }

    /// What a host holds by the log is what it really has.
    pub(crate) async fn same_as_census(&self, host: Uuid) {
        let state = self.ledger.typed::<Host>(&host.to_string()).await.unwrap().1;
        let held: BTreeSet<Uuid> = state.holdings.keys().map(|server| server.uuid()).collect();
        let census = self.hosts.census(host);
        assert_eq!(held, census.keys().copied().collect(), "holdings and census");
        let mut disks = BTreeSet::new();
        for (id, real) in census {
            let server = self.server(id).await;
            let known = server.home.iter().flat_map(|home| &home.parts.disks);
            disks.extend(known.filter(|disk| disk.storage.is_none()).map(|disk| disk.id));
            let runs = matches!(server.status(), "running" | "suspended" | "rescued");
            assert_eq!(real.running, runs, "{}", server.status());
            let home = server.home.as_ref().unwrap();
            if server.orders.out.is_none() {
                let kept = &state.holdings[&home.placement.holding.server];
                assert_eq!(*kept, home.placement.holding, "holding of the host and of the server");
            }
            if real.running {
                let size = (home.spec.vcpus, home.spec.memory_mib);
                assert_eq!((real.vcpus, real.memory_mib), size, "its size is the log's");
                assert_eq!(real.suspended, server.status() == "suspended");
                assert_eq!(real.rescued, server.status() == "rescued");
            }
        }
        assert_eq!(disks, self.hosts.disks(host).into_keys().collect(), "disks and census");
    }
}

pub(crate) fn code(result: Result<impl std::fmt::Debug, SubmitFault>) -> &'static str {
    match result {
        Err(SubmitFault::Refused(refusal)) => refusal.code.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lives_on_a_host_from_launch_to_purge() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 2, 4, 8_192).await;
    let strict = json!({"vcpus": 4, "memory_mib": 4_096, "numa": "strict", "pinning": {"type": "siblings", "data": {}}});
    let body = json!({"name": "db", "spec": strict, "wishes": {"tags_required": ["lab"]}});
    let id = world.send("server", None, "launch", body).await.unwrap().id;
    let row = world.row(id).await;
    assert_eq!(row["status"], "launching");
    assert_eq!(row["parent"], host.to_string(), "the row says where it is");
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "running");
    let placement = world.server(id).await.home.unwrap().placement;
    assert_eq!(placement.holding.pins.len(), 4);
    assert_eq!(placement.holding.cells.len(), 1, "in the smallest number of cells");
    let real = world.hosts.census(host)[&id].clone();
    assert_eq!(real.pins.len(), 4, "the host pins what the placement says");

    world.send("server", id, "reboot", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.hosts.census(host)[&id].boots, 2);
    assert_eq!(code(world.send("server", id, "delete", json!({})).await), "wrong-state");
    world.send("server", id, "protect", json!({})).await.unwrap();
    world.send("server", id, "stop", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(code(world.send("server", id, "delete", json!({})).await), "wrong-state");
    world.send("server", id, "unprotect", json!({})).await.unwrap();
    world.send("server", id, "delete", json!({})).await.unwrap();
    assert_eq!(world.row(id).await["status"], "deleted");
    assert_eq!(code(world.send("server", id, "start", json!({})).await), "wrong-state");
    world.send("server", id, "undelete", json!({})).await.unwrap();
    assert_eq!(code(world.send("server", id, "purge", json!({})).await), "wrong-state");
    world.send("server", id, "delete", json!({})).await.unwrap();
    assert_eq!(code(world.send("host", host, "retire", json!({})).await), "in-use");
    world.same_as_census(host).await;
    world.send("server", id, "purge", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "gone");
    world.same_as_census(host).await;
    assert!(world.hosts.census(host).is_empty());
    world.send("host", host, "retire", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_launches_into_the_last_room_are_as_many_as_fit() {
    let world = World::empty(small());
    // 3 hosts with 8 CPUs, not over-committed: 8 servers of 3 CPUs fit nowhere near 64 times.
    let mut hosts = Vec::new();
    for at in 0..3 {
        hosts.push(world.host(&format!("kvm-{at}"), 1, 4, 65_536).await);
    }
    let launches = (0..64).map(|at| {
        let world = &world;
        async move { world.launch(&format!("s{at}"), 3, 64).await }
    });
    let results = join_all(launches).await;
    let there: Vec<Uuid> = results.iter().filter_map(|one| one.as_ref().ok().copied()).collect();
    assert_eq!(there.len(), 6, "two on each host");
    for refused in results.into_iter().filter(Result::is_err) {
        assert_eq!(code(refused), "no-room");
    }
    world.settle().await;
    for host in &hosts {
        assert_eq!(world.hosts.census(*host).len(), 2);
        world.same_as_census(*host).await;
    }
    // Nothing of those that were refused is there.
    assert_eq!(world.rows("server").await.len(), 6);
    // And what one gives back, another gets.
    for verb in ["stop", "delete", "purge"] {
        world.send("server", there[0], verb, json!({})).await.unwrap();
        world.settle().await;
    }
    world.launch("last", 3, 64).await.unwrap();
    assert_eq!(code(world.launch("too-late", 3, 64).await), "no-room");
}

/// Two ledgers on one store, as two server processes are: neither knows what the other does but by
/// the log.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_give_one_place_twice() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 65_536).await;
    let other = commands::ledger::Ledger::new(world.ledger.ports.clone());
    let launches = (0..32).map(|at| {
        let ledger = if at % 2 == 0 { &world.ledger } else { &other };
        let body = json!({"name": format!("s{at}"), "spec": {"vcpus": 1, "memory_mib": 64}});
        ledger.submit(World::submission("server", None, "launch", body))
    });
    let results = join_all(launches).await;
    assert_eq!(results.iter().filter(|one| one.is_ok()).count(), 8);
    let host = world.ledger.typed::<Host>(&host.to_string()).await.unwrap().1;
    assert_eq!(host.holdings.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_launch_says_why_and_leaves_nothing() {
    let world = World::empty(small());
    assert_eq!(code(world.launch("early", 1, 64).await), "no-room");
    let host = world.host("kvm-1", 1, 2, 1_024).await;
    world.send("host", host, "disable", json!({})).await.unwrap();
    let refused = world.launch("web", 1, 64).await;
    let Err(SubmitFault::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert!(refusal.detail.contains("disabled 1"), "{}", refusal.detail);
    world.send("host", host, "enable", json!({})).await.unwrap();
    world.send("host", host, "enter-maintenance", json!({})).await.unwrap();
    assert_eq!(code(world.launch("web", 1, 64).await), "no-room");
    world.send("host", host, "leave-maintenance", json!({})).await.unwrap();
    let bad = [
        json!({"name": "x", "spec": {"vcpus": 0, "memory_mib": 64}}),
        json!({"name": "x", "spec": {"vcpus": 1, "memory_mib": 0}}),
        json!({"name": "", "spec": {"vcpus": 1, "memory_mib": 64}}),
        json!({"name": "x", "spec": {"vcpus": 1, "memory_mib": 64, "page_kib": 3}}),
        json!({"name": "x", "spec": {"vcpus": 1, "memory_mib": 64}, "placement": {}}),
        json!({"name": "x", "spec": {"vcpus": 1, "memory_mib": 64}, "project": Uuid::nil()}),
    ];
    for body in bad {
        let refused = world.send("server", None, "launch", body.clone()).await;
        assert_eq!(code(refused), "invalid-field", "{body}");
    }
    let typo = json!({"name": "x", "spec": {"vcpus": 1, "memory": 64}});
    assert_eq!(code(world.send("server", None, "launch", typo).await), "malformed-command");
    let state = world.ledger.typed::<Host>(&host.to_string()).await.unwrap().1;
    assert!(state.holdings.is_empty(), "nothing is reserved");
    assert!(world.rows("server").await.is_empty());
}

/// Dies once at every step of every order.
#[derive(Default)]
pub(crate) struct Mortal(Mutex<BTreeSet<(OrderKey, Step)>>);

impl Mortal {
    pub(crate) fn deaths(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Probe for Mortal {
    fn dies(&self, step: Step, key: &OrderKey) -> bool {
        self.0.lock().unwrap().insert((key.clone(), step))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_survives_a_death_at_each_step() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let id = world.launch("web", 2, 512).await.unwrap();
    let mortal = Arc::new(Mortal::default());
    world.settle_with(Some(mortal.clone())).await;
    operations::rescue_is_there(&world, host).await;
    for (verb, body) in operations::EVERY {
        let body = serde_json::from_str(body).unwrap();
        world.send("server", id, verb, body).await.unwrap();
        world.settle_with(Some(mortal.clone())).await;
        world.same_as_census(host).await;
        if *verb == "reboot" {
            assert_eq!(world.hosts.census(host)[&id].boots, 2, "one launch, one reboot");
        }
    }
    assert_eq!(world.row(id).await["status"], "gone");
    // To delete orders nothing, and the launch is one more.
    assert_eq!(mortal.deaths(), operations::EVERY.len() * 3, "three steps of each order");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_on_a_host_may_fail_and_lose_its_answer_once() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    // Those of a way to another host are had in `migrate`, those of images in a store in `images`, those
    // of adoptions in `adopt`, that of a drive in `cdrom`, that of devices in `devices`, those of a machine
    // that others ran in `move_ins`.
    let elsewhere = [
        HostStep::Adopt,
        HostStep::BreakOff,
        HostStep::Cdrom,
        HostStep::Close,
        HostStep::Devices,
        HostStep::Receive,
        HostStep::Release,
        HostStep::Send,
        HostStep::StoreDescribe,
        HostStep::StoreForgetSet,
        HostStep::StoreImage,
        HostStep::StoreImageRemoval,
    ];
    let steps: Vec<_> =
        HostStep::ALL.into_iter().filter(|step| !elsewhere.contains(step)).collect();
    for step in steps.iter().copied() {
        world.hosts.break_next(step, HostFault::Transient);
        world.hosts.break_next(step, HostFault::AnswerLost);
    }
    let id = world.launch("web", 2, 512).await.unwrap();
    world.settle().await;
    operations::rescue_is_there(&world, host).await;
    let disk = json!({"name": "data", "server": id, "size_gib": 1});
    let disk = world.send("disk", None, "create", disk).await.unwrap().id;
    world.settle().await;
    for (verb, body) in [("grow", json!({"size_gib": 2})), ("detach", json!({}))] {
        world.send("disk", disk, verb, body).await.unwrap();
        world.settle().await;
    }
    world.send("disk", disk, "delete", json!({})).await.unwrap();
    world.settle().await;
    let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
    let segment = world.send("segment", None, "define", segment).await.unwrap().id;
    let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/24"}});
    let network = world.send("network", None, "define", network).await.unwrap().id;
    world.send("server", id, "add-nic", json!({"nic": {"network": network}})).await.unwrap();
    world.settle().await;
    let nic = world.server(id).await.home.unwrap().parts.nics[0].id;
    let other = json!({"nic": nic, "v4": {"type": "any", "data": {}}});
    world.send("server", id, "change-addresses", other).await.unwrap();
    world.settle().await;
    let image = rebuild::image(&world, "0a").await;
    world.send("server", id, "rebuild", json!({"image": image, "stop": true})).await.unwrap();
    world.settle().await;
    for (verb, body) in operations::EVERY {
        world.same_as_census(host).await;
        let body = serde_json::from_str(body).unwrap();
        world.send("server", id, verb, body).await.unwrap();
        world.settle().await;
        if *verb == "reboot" {
            let boots = world.hosts.census(host)[&id].boots;
            assert_eq!(boots, 3, "one launch, one rebuild, one reboot");
        }
        if *verb == "resize" {
            backups::everything(&world, id, None).await;
        }
    }
    assert_eq!(world.hosts.hit().len(), 2 * steps.len(), "every fault was had");
    world.same_as_census(host).await;
    assert_eq!(world.row(id).await["status"], "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_cannot_be_is_parked_and_given_up_without_a_trace() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    let why = "no such machine type".to_owned();
    world.hosts.break_next(HostStep::Start, HostFault::Rejected(why.clone()));
    let id = world.launch("web", 2, 512).await.unwrap();
    world.settle().await;
    let row = world.row(id).await;
    assert_eq!(row["status"], "parked");
    assert!(row["order"]["parked"].as_str().unwrap().contains(&why));
    assert_eq!(code(world.send("server", id, "start", json!({})).await), "wrong-state");
    assert_eq!(world.hosts.census(host).len(), 1, "it is half made");
    world.send("server", id, "abandon", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "gone");
    assert!(world.hosts.census(host).is_empty());
    world.same_as_census(host).await;

    // The same, and somebody mends what was wrong.
    world.hosts.break_next(HostStep::Define, HostFault::Rejected(why));
    let id = world.launch("web", 2, 512).await.unwrap();
    world.settle().await;
    world.send("server", id, "retry", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "running");
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_an_older_epoch_changes_nothing() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 4, 4_096).await;
    // Another agent has joined elsewhere; this process does not know.
    world.system("host", host, "join", json!({"epoch": 2, "agent": "other"})).await.unwrap();
    let seen = SimHosts::sighting(1, 1, 64);
    let late = world.system("host", host, "sight", json!({"epoch": 1, "seen": seen})).await;
    assert_eq!(code(late), codes::STALE_EPOCH.code);
    let id = world.launch("web", 2, 512).await.unwrap();
    world.caught_up().await;
    let runner = commands::run_orders::Runner::new(world.ledger.clone(), 8);
    for _ in 0..5 {
        runner.pass().await.unwrap();
    }
    assert!(world.hosts.census(host).is_empty(), "the old agent did nothing");
    assert_eq!(world.row(id).await["status"], "launching");
    // The agent that joined in the newest epoch goes on.
    world.hosts.join(host, 2);
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_where_and_is_stale_when_the_place_is_gone() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 2, 4_096).await;
    let body = json!({"name": "web", "spec": {"vcpus": 3, "memory_mib": 64}});
    let mut submission = World::submission("server", None, "launch", body);
    let plan = world.ledger.plan(&submission).await.unwrap();
    assert!(plan.touches.contains(&format!("host/{host}")), "{:?}", plan.touches);
    let launched = &plan.events[0].data["launch"]["placement"];
    assert_eq!(launched["host"], host.to_string());
    let state = world.ledger.typed::<Host>(&host.to_string()).await.unwrap().1;
    assert!(state.holdings.is_empty(), "a plan takes nothing");
    world.launch("other", 1, 64).await.unwrap();
    submission.plan_id = Some(plan.plan_id);
    let stale = world.ledger.submit(submission.clone()).await;
    assert!(matches!(stale, Err(SubmitFault::Stale(_))), "{stale:?}");
    submission.plan_id = None;
    submission.plan_id = Some(world.ledger.plan(&submission).await.unwrap().plan_id);
    world.ledger.submit(submission).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_host_are_checked_against_what_it_is() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 2, 4_096).await;
    let configure = |settings: Value| {
        let world = &world;
        async move { world.send("host", host, "configure", json!({"settings": settings})).await }
    };
    for bad in [
        json!({"cpu_overcommit_percent": 99}),
        json!({"memory_overcommit_percent": 10_001}),
        json!({"memory_reserved": [{"cell": 3, "memory_mib": 64}]}),
        json!({"memory_reserved": [{"cell": 0, "memory_mib": 5_000}]}),
        json!({"cpus_reserved": [1, 7]}),
        json!({"tags": [""]}),
    ] {
        assert_eq!(code(configure(bad.clone()).await), "invalid-field", "{bad}");
    }
    let reserve = json!([{"cell": 0, "memory_mib": 4_000}]);
    configure(json!({"memory_reserved": reserve, "cpus_reserved": [0, 1]})).await.unwrap();
    assert_eq!(code(world.launch("large", 1, 97).await), "no-room");
    world.launch("small", 1, 96).await.unwrap();
    assert_eq!(
        code(world.send("host", None, "enrol", json!({"name": "kvm-1"})).await),
        "already-claimed"
    );
    // What a host is by now is known whatever it was told: huge pages are not promised twice, and what is kept
    // back is what they leave.
    let mut seen = SimHosts::sighting(1, 2, 4_096);
    let mut pages = async |count: u64| {
        seen.cells[0].pages =
            serde_json::from_value(json!([{"size_kib": 2_048, "count": count}])).unwrap();
        let body = json!({"epoch": 1, "seen": seen});
        world.system("host", host, "sight", body).await.unwrap();
    };
    configure(json!({"memory_overcommit_percent": 150})).await.unwrap();
    world.launch("twice", 1, 5_000).await.unwrap();
    pages(4).await;
    assert_eq!(code(world.launch("more", 1, 200).await), "no-room", "it would be 200 % of 150 %");
    let twice = json!({"memory_overcommit_percent": 150, "tags": ["ssd"]});
    assert_eq!(code(configure(twice).await), "invalid-field");
    configure(json!({"memory_reserved": [{"cell": 0, "memory_mib": 4_088}]})).await.unwrap();
    pages(100).await;
    let more = json!({"memory_reserved": [{"cell": 0, "memory_mib": 3_897}]});
    assert_eq!(code(configure(more).await), "invalid-field");
    configure(json!({"memory_reserved": [{"cell": 0, "memory_mib": 3_896}]})).await.unwrap();
    // One of the CPUs that is kept back is gone: the host is what it is, and is not told of that one again.
    configure(json!({"cpus_reserved": [2]})).await.unwrap();
    let one_core = SimHosts::sighting(1, 1, 4_096);
    world.system("host", host, "sight", json!({"epoch": 1, "seen": one_core})).await.unwrap();
    let state = world.ledger.typed::<Host>(&host.to_string()).await.unwrap().1;
    assert_eq!(state.seen.unwrap().cells[0].cores.len(), 1);
    assert_eq!(state.settings.cpus_reserved, [2].into());
    let Err(SubmitFault::Refused(refusal)) = configure(json!({"cpus_reserved": [2]})).await else {
        panic!("it has no CPU 2")
    };
    assert_eq!(refusal.detail, "cpus_reserved: the host has no CPU 2");
    configure(json!({"cpus_reserved": [0]})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sighting_with_numbers_beyond_all_bounds_is_refused_and_nothing_of_it_is_known() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 2, 4_096).await;
    let reserve = json!([{"cell": 0, "memory_mib": 64}]);
    let settings = json!({"settings": {"memory_reserved": reserve}});
    world.send("host", host, "configure", settings).await.unwrap();
    let before = world.ledger.typed::<Host>(&host.to_string()).await.unwrap();
    let most = u64::MAX;
    let pages = |size_kib: u64, count: u64| json!([{"size_kib": size_kib, "count": count}]);
    let cells = [
        json!({"id": 0, "memory_mib": most}),
        json!({"id": 0, "memory_mib": most, "memory_reserved_mib": most}),
        json!({"id": 0, "memory_mib": 4_096, "memory_reserved_mib": most}),
        json!({"id": 0, "memory_mib": 4_096, "pages": pages(2_048, most)}),
        json!({"id": 0, "memory_mib": most, "pages": pages(1 << 31, most)}),
        json!({"id": 0, "memory_mib": most - 1, "memory_reserved_mib": most / 2,
            "pages": pages(1 << 20, most / 1_024)}),
    ];
    for cell in cells {
        let mut seen = json!(SimHosts::sighting(1, 2, 4_096));
        seen["cells"] = json!([cell]);
        let sighted = world.system("host", host, "sight", json!({"epoch": 1, "seen": seen})).await;
        assert_eq!(code(sighted), "invalid-field", "{cell}");
    }
    assert_eq!(world.ledger.typed::<Host>(&host.to_string()).await.unwrap(), before);
    world.launch("small", 1, 64).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_its_tags_and_its_protection_from_its_launch() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 8, 8_192).await;
    let body = json!({
        "name": "kept", "spec": {"vcpus": 1, "memory_mib": 64}, "tags": {"env": "prod"},
        "protected": true,
    });
    let id = world.send("server", None, "launch", body).await.unwrap().id;
    world.settle().await;
    let home = world.server(id).await.home.unwrap();
    assert_eq!((home.protected, json!(home.tags)), (true, json!({"env": "prod"})));
    assert_eq!(world.row(id).await["tags"], json!({"env": "prod"}));
    let delete = async || world.send("server", id, "delete", json!({"stop": true})).await;
    assert_eq!(code(delete().await), "wrong-state");
    world.send("server", id, "unprotect", json!({})).await.unwrap();
    delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_servers_are_removed_when_their_time_is_over_and_not_before() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let mut ids = Vec::new();
    for name in ["first", "kept", "back"] {
        let id = world.launch(name, 1, 64).await.unwrap();
        world.settle().await;
        ids.push(id);
    }
    let [first, kept, back] = ids[..] else { panic!("{ids:?}") };
    // One that runs is stopped by the way when that is said.
    let running = world.send("server", first, "delete", json!({})).await;
    let Err(SubmitFault::Refused(refusal)) = running else { panic!("{running:?}") };
    assert_eq!(refusal.code.code, "wrong-state");
    assert!(refusal.detail.contains("stop it first"), "{}", refusal.detail);
    world.send("server", first, "delete", json!({"stop": true})).await.unwrap();
    assert_eq!(world.row(first).await["status"], "stopping");
    world.settle().await;
    assert_eq!(world.row(first).await["status"], "deleted");
    assert!(!world.hosts.census(host)[&first].running);
    world.send("server", back, "delete", json!({"stop": true})).await.unwrap();
    world.settle().await;

    world.clock.advance(Duration::from_hours(71));
    assert_eq!(world.ledger.empty_bin().await.unwrap(), 0, "an hour is left");
    // One that was had back and deleted again has three days anew.
    world.send("server", back, "undelete", json!({})).await.unwrap();
    world.send("server", back, "delete", json!({})).await.unwrap();
    world.clock.advance(Duration::from_hours(2));
    world.caught_up().await;
    // Two processes look at once, and one of them is first.
    let other = commands::ledger::Ledger::new(world.ledger.ports.clone());
    let (one, two) = tokio::join!(world.ledger.empty_bin(), other.empty_bin());
    assert_eq!(one.unwrap() + two.unwrap(), 1);
    world.settle().await;
    assert_eq!(world.row(first).await["status"], "gone");
    assert_eq!(world.row(kept).await["status"], "running");
    assert_eq!(world.row(back).await["status"], "deleted");
    let removals = world.history("server", first).await;
    let removals = removals.iter().filter(|record| record.event_type() == "removal-ordered");
    assert_eq!(
        removals.map(|record| record.actor().to_owned()).collect::<Vec<_>>(),
        ["system:bin"]
    );
    assert_eq!(world.ledger.empty_bin().await.unwrap(), 0, "nothing more to do");
    world.same_as_census(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_had_back_between_the_look_and_the_removal_stays() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 8, 8_192).await;
    let id = world.launch("web", 1, 64).await.unwrap();
    world.settle().await;
    world.send("server", id, "delete", json!({"stop": true})).await.unwrap();
    world.settle().await;
    world.clock.advance(Duration::from_hours(73));
    world.caught_up().await;
    world.send("server", id, "undelete", json!({})).await.unwrap();
    world.send("server", id, "delete", json!({})).await.unwrap();
    // The view may still show what was before: whether it does, the server has its time anew.
    world.ledger.empty_bin().await.unwrap();
    world.settle().await;
    assert_eq!(world.row(id).await["status"], "deleted");
}
