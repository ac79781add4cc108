//! Remote desktops of servers of ours: the network of the guest lends an address to reach it by, as long as
//! one is open, whatever ends it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use commands::{
    consoles::{self, EnterFault, IDLE_MAX},
    ledger::Ledger,
    ports::{DriverFault, HostDriver, HostTask, Hosts, Report},
    submit::SubmitFault,
};
use domain::{compute::server::console::ConsoleEnd, network::net::Network};
use serde_json::json;
use uuid::Uuid;

use super::{code, consoles::Looker};
use crate::world::{World, small};

/// A host whose agent reaches no port of any guest.
struct Silent;

#[async_trait]
impl HostDriver for Silent {
    fn epoch(&self) -> u64 {
        1
    }

    async fn carry_out(&self, _: &HostTask) -> Result<Report, DriverFault> {
        Err(DriverFault::Rejected("it opens consoles alone".to_owned()))
    }
}

impl Hosts for Silent {
    fn driver(&self, _: Uuid) -> Option<Arc<dyn HostDriver>> {
        Some(Arc::new(Self))
    }
}

/// A server in a network of two addresses.
async fn with_server() -> (World, Uuid, Uuid) {
    let world = World::empty(small());
    world.host("kvm-1", 1, 8, 8_192).await;
    let segment = json!({"name": "blue", "medium": "bridge", "bridge": "br0"});
    let segment = world.send("segment", None, "define", segment).await.unwrap().id;
    let network = json!({"name": "front", "segment": segment, "v4": {"net": "10.0.0.0/30"}});
    let network = world.send("network", None, "define", network).await.unwrap().id;
    let body = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 64}, "nics": [{"network": network}],
    });
    let id = world.send("server", None, "launch", body).await.unwrap().id;
    world.settle().await;
    (world, id, network)
}

/// Who has addresses of a network, and which.
async fn taken(world: &World, network: Uuid) -> Vec<(IpAddr, Uuid)> {
    let (_, state) = world.ledger.typed::<Network>(&network.to_string()).await.unwrap();
    state.own.unwrap().addresses.v4.unwrap().taken().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_desktop_is_reached_by_an_address_that_its_network_lends_meanwhile() {
    let (world, id, network) = with_server().await;
    let ticket = world.ticket(id, "rdp").await;
    assert_eq!(taken(&world, network).await.len(), 1, "a ticket takes nothing");
    let mut looker = Looker::at(&world.ledger, id, &ticket).await;
    looker.types("bytes of a client").await;
    looker.reads("bytes of a client").await;
    let console = world.server(id).await.consoles()[0].clone();
    assert_eq!(console.network, Some(network));
    let lent = taken(&world, network).await;
    assert!(lent.len() == 2 && lent.iter().any(|(_, holder)| *holder == console.id), "{lent:?}");

    // There is none for another one, which keeps its ticket.
    let ticket = world.ticket(id, "rdp").await;
    match consoles::enter(&world.ledger, id, &ticket).await.map(drop) {
        Err(EnterFault::Submit(SubmitFault::Refused(no))) => {
            assert_eq!(no.code.code, "no-address-free");
        }
        other => panic!("{other:?}"),
    }
    world.clock.advance(IDLE_MAX.to_std().unwrap());
    assert_eq!(looker.ended().await, ConsoleEnd::Idle);
    assert_eq!(taken(&world, network).await.len(), 1, "it is given back");

    // A host that does not reach it, a process that dies: nothing stays lent.
    let ticket = world.ticket(id, "rdp").await;
    let mut ports = world.ledger.ports.clone();
    ports.hosts = Arc::new(Silent);
    let silent = Ledger::new(ports);
    let failed = consoles::enter(&silent, id, &ticket).await;
    assert!(matches!(failed, Err(EnterFault::Host(DriverFault::Rejected(_)))));
    assert_eq!(taken(&world, network).await.len(), 1);
    let ticket = world.ticket(id, "rdp").await;
    let entered = consoles::enter(&world.ledger, id, &ticket).await.map_err(|no| no.to_string());
    assert_eq!(taken(&world, network).await.len(), 2);
    drop(entered.unwrap());
    world.clock.advance(Duration::from_secs(61));
    consoles::close_lost(&Ledger::new(world.ledger.ports.clone())).await.unwrap();
    assert_eq!(taken(&world, network).await.len(), 1);
    let closed = world.history("server", id).await;
    let closed = closed.iter().filter(|one| one.event_type() == "console-closed");
    let whys: Vec<String> = closed
        .map(|one| serde_json::from_slice::<serde_json::Value>(one.data()).unwrap())
        .map(|data| format!("{} {}", data["kind"].as_str().unwrap(), data["why"].as_str().unwrap()))
        .collect();
    assert_eq!(whys, ["rdp idle", "rdp host-closed", "rdp lost"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_an_interface_has_no_remote_desktop() {
    let world = World::empty(small());
    world.host("kvm-1", 1, 8, 8_192).await;
    let id = world.launch("web", 1, 64).await.unwrap();
    world.settle().await;
    let asked = world.send("server", id, "open-console", json!({"console": "rdp"})).await;
    assert_eq!(code(asked), "invalid-field");
}
