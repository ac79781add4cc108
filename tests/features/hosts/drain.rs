//! What becomes of a host's servers when it is to have none.

use std::time::Duration;

use adapters_sim::{HostFault, HostStep};
use commands::{drain::Drainer, ports::Clock as _};
use serde_json::json;
use uuid::Uuid;

use super::{code, storage::STORAGE};
use crate::world::{World, small};

fn codes(leaving: &domain::compute::drain::Leaving) -> Vec<&'static str> {
    leaving.obstacles.iter().map(|one| one.code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_leave_a_host_is_told_with_where_to_and_what_stays_with_why() {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    // Without disks: what has disks has them on this host alone.
    let launch = async |name: &str, memory_mib: u64| -> Uuid {
        let body = json!({"name": name, "spec": {"vcpus": 1, "memory_mib": memory_mib}});
        let id = world.send("server", None, "launch", body).await.unwrap().id;
        world.settle().await;
        id
    };
    let large = launch("large", 3_000).await;
    let middle = launch("middle", 1_500).await;
    let stopped = launch("stopped", 100).await;
    world.send("server", stopped, "stop", json!({})).await.unwrap();
    let with_disk = world.launch("with-disk", 1, 64).await.unwrap();
    world.settle().await;
    let deleted = launch("deleted", 32).await;
    world.send("server", deleted, "delete", json!({"stop": true})).await.unwrap();
    world.settle().await;

    let alone = world.ledger.draining(host).await.unwrap();
    assert_eq!(alone.servers.len(), 5);
    for leaving in &alone.servers {
        assert!(codes(leaving).contains(&"no-room"), "{leaving:?}");
        let told = leaving.obstacles.last().unwrap().detail.clone();
        assert_eq!(told, "there is no other host");
    }
    // Room for the largest, and for the small ones beside it.
    let other = world.host("kvm-2", 1, 8, 4_096).await;
    world.takes_running(other).await;
    world.send("server", with_disk, "stop", json!({})).await.unwrap();
    let before = world.log.head().await.unwrap().position;
    let draining = world.ledger.draining(host).await.unwrap();
    let of = |id: Uuid| draining.servers.iter().find(|one| one.server == id).unwrap();
    assert_eq!(draining.servers[0].server, large, "the largest first");
    let shown = |id: Uuid| json!({"way": of(id).way, "to": of(id).to});
    assert_eq!(shown(large), json!({"way": "live", "to": other}));
    assert_eq!(shown(stopped), json!({"way": "cold", "to": other}));
    assert_eq!(codes(of(middle)), ["no-room"], "the largest took it");
    let told = &of(middle).obstacles[0].detail;
    assert_eq!(told, "no other host has room for it: memory 1");
    assert_eq!(codes(of(with_disk)), ["order"], "its disk is copied");
    assert_eq!(codes(of(deleted)), ["deleted"]);
    assert_eq!(world.log.head().await.unwrap().position, before, "nothing is ordered by it");
    assert!(world.ledger.draining(other).await.unwrap().servers.is_empty());
    assert!(world.ledger.draining(Uuid::from_u128(7)).await.is_err());
}

impl World {
    async fn drained(&self, drainer: &mut Drainer) -> usize {
        self.caught_up().await;
        drainer.pass().await.unwrap()
    }

    /// How often a server was sent away.
    async fn sent(&self, id: Uuid) -> usize {
        let told = self.history("server", id).await;
        told.iter().filter(|record| record.event_type() == "migration-ordered").count()
    }
}

/// A host with four servers on shared storage, of which one is stopped, and one with a disk on it alone that
/// has a snapshot.
async fn to_be_drained() -> (World, Uuid, Vec<Uuid>, Uuid) {
    let world = World::empty(small());
    let here = world.peer("kvm-1").await;
    let mut servers = Vec::new();
    for name in ["web", "db", "cache", "stopped"] {
        servers.push(world.launch_on(name, STORAGE).await.unwrap());
        world.settle().await;
    }
    world.send("server", servers[3], "stop", json!({})).await.unwrap();
    let local = world.launch("local", 1, 64).await.unwrap();
    world.settle().await;
    let disk = world.server(local).await.home.unwrap().parts.disks[0].id;
    world.snapshot(disk).await.unwrap();
    world.settle().await;
    (world, here, servers, local)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_host_sends_away_two_at_a_time_all_that_can_go_and_gets_no_more() {
    let (world, here, servers, local) = to_be_drained().await;
    world.send("host", here, "drain", json!({})).await.unwrap();
    assert_eq!(world.row(here).await["status"], "draining");
    let mut drainer = Drainer::new(world.ledger.clone());
    assert_eq!(world.drained(&mut drainer).await, 0, "there is no other host");
    assert_eq!(code(world.launch("late", 1, 64).await), "no-room");
    let there = world.peer("kvm-2").await;
    let none_waits = world.log.head().await.unwrap().position;
    assert_eq!(world.drained(&mut drainer).await, 2);
    assert!(world.log.head().await.unwrap().position > none_waits);
    // Another process, and this one again, find two on their way.
    assert_eq!(world.drained(&mut Drainer::new(world.ledger.clone())).await, 0);
    assert_eq!(world.drained(&mut drainer).await, 0);
    let shown = world.ledger.draining(here).await.unwrap();
    let moving = shown.servers.iter().filter(|one| codes(one) == ["moving"]);
    assert_eq!(moving.map(|one| one.to.unwrap().uuid()).collect::<Vec<_>>(), [there, there]);
    world.settle().await;
    // A process that has just begun goes on where the other was.
    assert_eq!(world.drained(&mut Drainer::new(world.ledger.clone())).await, 2);
    world.settle().await;
    assert_eq!(world.drained(&mut drainer).await, 0);
    for id in &servers {
        world.is_only_on(*id, there, &[here]).await;
        assert_eq!(world.sent(*id).await, 1);
    }
    assert_eq!(world.row(servers[3]).await["status"], "stopped");
    assert_eq!(world.host_of(local).await, here);
    assert_eq!(world.row(here).await["status"], "draining", "one has a snapshot here");
    let shown = world.ledger.draining(here).await.unwrap();
    assert_eq!(codes(&shown.servers[0]), ["local-disks"]);
    let snapshot = world.rows("snapshot").await[0].key.parse().unwrap();
    world.through("snapshot", snapshot, "delete", json!({})).await;
    assert_eq!(world.drained(&mut drainer).await, 1, "and now it has none");
    world.settle().await;
    world.is_only_on(local, there, &[here]).await;
    world.caught_up().await;
    assert_eq!(world.row(here).await["status"], "drained");
    // A host that was drained is as closed as one that is disabled, until it is opened.
    assert_eq!(
        code(world.send("server", servers[0], "migrate", json!({"to": here})).await),
        "no-room"
    );
    world.send("host", here, "enable", json!({})).await.unwrap();
    assert_eq!(world.row(here).await["status"], "ready");
    world.send("server", servers[0], "migrate", json!({"to": here})).await.unwrap();
    world.settle().await;
    world.is_only_on(servers[0], here, &[there]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_is_tried_again_later_and_a_drain_can_be_ended() {
    let (world, here, servers, _) = to_be_drained().await;
    let there = world.peer("kvm-2").await;
    world.send("host", here, "drain", json!({})).await.unwrap();
    let mut drainer = Drainer::new(world.ledger.clone());
    let no_route = HostFault::Rejected("no route to host".into());
    world.hosts.break_next(HostStep::Send, no_route.clone());
    world.drained(&mut drainer).await;
    world.settle().await;
    world.drained(&mut drainer).await;
    world.settle().await;
    let mut here_still = Vec::new();
    for id in &servers {
        if world.host_of(*id).await == here {
            here_still.push(*id);
        }
    }
    let [stays] = here_still[..] else { panic!("{here_still:?}") };
    assert_eq!(world.sent(stays).await, 1);
    // The first pause is a minute, the next is two.
    let mut pauses = Vec::new();
    for _ in 0..2 {
        world.hosts.break_next(HostStep::Send, no_route.clone());
        let mut waited = 0;
        loop {
            world.clock.sleep(Duration::from_secs(10)).await;
            waited += 10;
            if world.drained(&mut drainer).await > 0 {
                break;
            }
        }
        world.settle().await;
        assert_eq!(world.host_of(stays).await, here);
        pauses.push(waited);
    }
    assert!((50..=70).contains(&pauses[0]) && (110..=130).contains(&pauses[1]), "{pauses:?}");
    world.send("host", here, "disable", json!({})).await.unwrap();
    world.clock.sleep(Duration::from_hours(2)).await;
    assert_eq!(world.drained(&mut drainer).await, 0, "nobody is sent any more");
    assert_eq!(world.row(here).await["status"], "disabled");
    world.is_only_on(stays, here, &[there]).await;
}
