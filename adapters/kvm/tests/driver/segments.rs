//! Servers on segments that something else than a bridge of their own carries.

use adapters_kvm::driver::{Census, Side, Step};
use commands::ports::DriverFault;
use domain::compute::server::Order;
use serde_json::{Value, json};

use crate::host::{End, Guest, Host, Launch, Stopper};

const USERDATA: &str = "#!/bin/sh\nnc -ll -p 80 -e hostname &\n";

fn carried(server: Launch, on: &str, medium: &Value) -> Launch {
    server.with(|home| {
        home["parts"]["nics"][0]["bridge"] = json!(on);
        home["parts"]["nics"][0]["medium"] = medium.clone();
    })
}

impl Host {
    /// Somebody on the switch, in this VLAN, with the neighbours' addresses.
    pub(crate) fn neighbour(&self, vlan: u16) {
        let name = "sk-test-peer";
        let port = format!(
            "--may-exist add-port switch {name} -- set Port {name} tag={vlan} -- \
             set Interface {name} type=internal"
        );
        self.switch(&port);
        let up = format!(
            "ip link set {name} up && ip addr replace 10.9.0.254/24 dev {name} && \
             ip addr replace 2001:db8:9::fe/64 dev {name} nodad"
        );
        assert!(self.inside(&up));
    }

    /// The switch's ports that join bridges of ours.
    fn joined(&self) -> Vec<String> {
        let ports = self.switch("list-ports switch");
        ports.lines().filter(|port| port.starts_with("su")).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn a_server_on_open_vswitch_is_reached_in_its_vlan_alone_and_guarded_as_any_other() {
    let Some(host) = Host::of_tests().await else { return };
    if !host.has_switch() {
        return;
    }
    let driver = host.driver().await;
    let server = host.launch(50, "unused", USERDATA);
    let server = carried(server, "switch", &json!({"ovs": {"vlan": 7}}));
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes("netstat -ltn | grep -c ':80 '", "1").await;
    let port = host.joined();
    assert_eq!(port.len(), 1);
    assert_eq!(host.switch(&format!("get Port {} tag", port[0])), "7");
    let reached = || (host.reaches("10.9.0.50", 80), host.reaches("2001:db8:9::32", 80));
    host.neighbour(8);
    assert_eq!(reached(), (false, false), "another VLAN");
    host.neighbour(7);
    // Nothing tells when the switch and its neighbours have forgotten what was before.
    assert!((0..10).any(|_| reached() == (true, true)));
    // It may not use what is not its own, there either.
    guest.run("ip addr add 10.9.0.51/24 dev eth0").await;
    assert!(!host.reaches("10.9.0.51", 80) && host.reaches("10.9.0.50", 80));

    // After a restart of the host the switch has its list, and nothing else is there.
    server.done(&driver, 2, Order::Stop {}).await;
    assert!(host.inside("ip link del $(ip -br link | grep -o '^so[0-9a-f]*')"));
    server.done(&driver, 3, Order::Start {}).await;
    Guest::ready(&host, server.id).await;
    assert_eq!(host.joined(), port);
    // One that ends anywhere is taken away whole, and the switch stays somebody else's.
    drop(driver);
    for side in [Side::Before, Side::After] {
        let stopper = Stopper::new(End::Dies, (Step::Unplug, side));
        let driver = host.driver_with(stopper.clone()).await;
        let task = server.order(4, &Order::Remove {});
        tokio::select! {
            done = driver.carry_out(&task) => panic!("{done:?}"),
            () = stopper.stopped.notified() => {}
        }
    }
    let driver = host.driver().await;
    server.removed(&driver, 4).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
    assert_eq!(host.joined(), [""; 0]);
    host.switch("br-exists switch");
    host.switch("--if-exists del-port sk-test-peer");
}

#[tokio::test]
async fn a_segment_that_nothing_carries_here_is_said_and_nothing_runs() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let mut media = vec![("sk-none", json!({"vlan": {"id": 7}}), "no bridge with VLANs sk-none")];
    if host.has_switch() {
        media.push(("sk-none", json!({"ovs": {"vlan": 7}}), "no Open vSwitch bridge sk-none"));
    }
    for (on, medium, why) in media {
        let server = carried(host.launch(51, "unused", USERDATA), on, &medium);
        match driver.carry_out(&server.order(1, &Order::Launch {})).await {
            Err(DriverFault::Rejected(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
        server.removed(&driver, 2).await;
        assert_eq!(driver.census().await.unwrap(), Census::default());
    }
}
