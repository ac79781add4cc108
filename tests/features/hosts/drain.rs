//! What becomes of a host's servers when it is to have none.

use serde_json::json;
use uuid::Uuid;

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
    assert_eq!(codes(of(with_disk)), ["local-disks", "order"]);
    assert_eq!(codes(of(deleted)), ["deleted"]);
    assert_eq!(world.log.head().await.unwrap().position, before, "nothing is ordered by it");
    assert!(world.ledger.draining(other).await.unwrap().servers.is_empty());
    assert!(world.ledger.draining(Uuid::from_u128(7)).await.is_err());
}
