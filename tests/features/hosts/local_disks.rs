//! Servers whose disks are on their host alone, and those that are bound to cells and CPUs, go to other
//! hosts as well.

use adapters_sim::{HostFault, HostStep};
use serde_json::json;
use uuid::Uuid;

use super::code;
use crate::world::{World, small};

/// Two hosts that take servers which run, and a server on the first with a disk there alone.
async fn two_hosts() -> (World, Uuid, Uuid, Uuid) {
    let world = World::empty(small());
    let here = world.host("kvm-1", 2, 4, 4_096).await;
    world.takes_running(here).await;
    let id = world.launch("web", 1, 64).await.unwrap();
    world.settle().await;
    let there = world.host("kvm-2", 2, 4, 4_096).await;
    world.takes_running(there).await;
    (world, here, there, id)
}

impl World {
    /// The one disk of a server is on its host, and on no other.
    async fn has_its_disk(&self, id: Uuid, host: Uuid, other: Uuid) {
        let disk = self.server(id).await.home.unwrap().parts.disks[0].id;
        assert_eq!(self.hosts.disks(host).into_keys().collect::<Vec<_>>(), [disk]);
        assert!(self.hosts.disks(other).is_empty(), "its old disk is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_of_a_host_alone_go_with_their_server_running_or_stopped() {
    let (world, here, there, id) = two_hosts().await;
    let boots = world.hosts.census(here)[&id].boots;
    world.through("server", id, "migrate", json!({})).await;
    world.is_only_on(id, there, &[here]).await;
    world.has_its_disk(id, there, here).await;
    assert_eq!(world.hosts.census(there)[&id].boots, boots, "it was not started again");
    world.through("server", id, "stop", json!({})).await;
    world.through("server", id, "migrate", json!({})).await;
    world.is_only_on(id, here, &[there]).await;
    world.has_its_disk(id, here, there).await;
    assert_eq!(world.row(id).await["status"], "stopped");
    // What is ordered of it is done where it is, and nothing of it is left in the end.
    let disk = world.server(id).await.home.unwrap().parts.disks[0].id;
    world.through("disk", disk, "grow", json!({"size_gib": 5})).await;
    assert_eq!(world.hosts.disks(here)[&disk].0, 5);
    for verb in ["delete", "purge"] {
        world.through("server", id, verb, json!({})).await;
    }
    assert!(world.hosts.disks(here).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_on_the_way_there_is_one_set_of_disks_in_the_end() {
    for is_stopped in [false, true] {
        for fault in [HostFault::AnswerLost, HostFault::Transient] {
            for step in [HostStep::Receive, HostStep::Send, HostStep::Define, HostStep::Discard] {
                let (world, here, there, id) = two_hosts().await;
                if is_stopped {
                    world.through("server", id, "stop", json!({})).await;
                }
                world.hosts.break_next(step, fault.clone());
                world.through("server", id, "migrate", json!({})).await;
                world.is_only_on(id, there, &[here]).await;
                world.has_its_disk(id, there, here).await;
                let runs = world.hosts.census(there)[&id].running;
                assert_eq!(runs, !is_stopped, "{step:?} {fault:?}");
            }
        }
    }
    // It cannot be sent, or nobody knows whether it was: its disks are where it is, and nowhere else.
    let no_route = HostFault::Rejected("no route to host".into());
    for fault in [no_route, HostFault::Unsure { arrived: false }] {
        let (world, here, there, id) = two_hosts().await;
        world.hosts.break_next(HostStep::Send, fault);
        world.through("server", id, "migrate", json!({})).await;
        world.is_only_on(id, here, &[there]).await;
        world.has_its_disk(id, here, there).await;
        assert_eq!(world.row(id).await["status"], "running");
    }
    let (world, here, there, id) = two_hosts().await;
    world.hosts.break_next(HostStep::Send, HostFault::Unsure { arrived: true });
    world.through("server", id, "migrate", json!({})).await;
    world.is_only_on(id, there, &[here]).await;
    world.has_its_disk(id, there, here).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_stay_where_they_were_while_nobody_has_said_that_they_arrived() {
    let (world, here, there, id) = two_hosts().await;
    let disk = world.server(id).await.home.unwrap().parts.disks[0].id;
    world.hosts.break_next(HostStep::Define, HostFault::Rejected("no room".into()));
    world.through("server", id, "stop", json!({})).await;
    world.through("server", id, "migrate", json!({})).await;
    assert_eq!(world.row(id).await["status"], "parked");
    assert!(
        world.hosts.disks(here).contains_key(&disk) && world.hosts.disks(there).contains_key(&disk)
    );
    // Given up, the server is there, and what it had here is a person's to remove.
    world.through("server", id, "abandon", json!({})).await;
    assert!(world.hosts.disks(here).contains_key(&disk), "nothing is lost by giving up");
    assert_eq!(world.host_of(id).await, there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_bound_goes_while_it_runs_to_cpus_and_cells_of_the_other_host() {
    let world = World::empty(small());
    let here = world.host("kvm-1", 2, 4, 4_096).await;
    world.takes_running(here).await;
    let launch = async |name: &str, vcpus: u32, memory_mib: u64| {
        let spec = json!({
            "vcpus": vcpus, "memory_mib": memory_mib, "numa": "strict", "cells_max": 2,
            "pinning": {"type": "siblings", "data": {}},
        });
        let body = json!({"name": name, "spec": spec});
        let id = world.send("server", None, "launch", body).await.unwrap().id;
        world.settle().await;
        id
    };
    let bound = launch("bound", 2, 512).await;
    let wide = launch("wide", 12, 4_000).await;
    let there = world.host("kvm-2", 2, 8, 8_192).await;
    world.takes_running(there).await;
    world.through("server", bound, "migrate", json!({})).await;
    world.is_only_on(bound, there, &[here]).await;
    let placed = world.server(bound).await.home.unwrap().placement.holding;
    let pins: std::collections::BTreeSet<u32> = placed.pins.iter().map(|pin| pin.cpu).collect();
    assert_eq!(pins.len(), 2);
    assert_eq!(world.hosts.census(there)[&bound].pins, pins, "its CPUs are those of its new place");
    // It lies in two cells, and would lie in one by itself: it sees two there, too.
    let before = world.server(wide).await.home.unwrap().placement.holding;
    assert_eq!(before.cells.len(), 2);
    let left = async |id: Uuid| {
        for verb in ["stop", "delete", "purge"] {
            world.send("server", id, verb, json!({})).await.unwrap();
            world.settle().await;
        }
    };
    left(bound).await;
    world.through("server", wide, "migrate", json!({})).await;
    world.is_only_on(wide, there, &[here]).await;
    let after = world.server(wide).await.home.unwrap().placement.holding;
    assert!(before.is_seen_as(&after), "{before:?} {after:?}");
    // Where there are no such cells there is no place, unless it is stopped first.
    let single = world.host("kvm-3", 1, 8, 16_384).await;
    world.takes_running(single).await;
    let to = json!({"to": single});
    assert_eq!(code(world.send("server", wide, "migrate", to.clone()).await), "no-room");
    world.through("server", wide, "stop", json!({})).await;
    world.through("server", wide, "migrate", to).await;
    world.is_only_on(wide, single, &[here, there]).await;
}
