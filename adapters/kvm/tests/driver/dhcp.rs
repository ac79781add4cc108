//! Servers that are told their addresses by their host, as their guests see it.

use std::path::Path;

use adapters_kvm::driver::{Census, Side, Step, respond};
use domain::compute::server::Order;
use serde_json::json;

use crate::host::{End, Guest, Host, Launch, Stopper};

/// What tells servers of a host their addresses: a process of its own, which a driver runs with its folder.
#[tokio::test]
async fn who_responds() {
    let Ok(folder) = std::env::var("SKYLEDGER_RESPONDS_FOR") else { return };
    respond(Path::new(&folder)).await.unwrap();
}

fn told(server: Launch) -> Launch {
    server.with(|home| home["parts"]["nics"][0]["lease_s"] = json!(3_600))
}

/// Asks as every system does, and writes down what it was told.
const ASK: &str = "cat >/run/told.sh <<'END'\n\
    #!/bin/sh\n\
    [ \"$1\" != bound ] || echo \"$ip/$mask $router $dns $hostname $mtu $lease\" >/run/told\n\
    END\n\
    chmod +x /run/told.sh; rm -f /run/told\n\
    ip addr flush dev eth0 scope global\n\
    udhcpc -i eth0 -n -q -f -t 3 -T 1 -O mtu -s /run/told.sh >/dev/null 2>&1; cat /run/told";

/// The same by IPv6: its router says that addresses are to be asked for, and it asks.
const ASK_V6: &str = "cat >/run/told6.sh <<'END'\n\
    #!/bin/sh\n\
    [ \"$reason\" != BOUND6 ] || echo \"$new_dhcp6_ia_na1_ia_addr1\" >/run/told6\n\
    END\n\
    chmod +x /run/told6.sh; mkdir -p /var/lib/dhcpcd /etc\n\
    dhcpcd -f /dev/null -6 -B -1 -t 20 -c /run/told6.sh eth0 >/run/dhcpcd.log 2>&1; cat /run/told6";

#[tokio::test]
async fn a_server_is_told_its_addresses_whoever_is_there_and_nothing_is_left_of_it() {
    let Some(host) = Host::of_tests().await else { return };
    let server = told(host.launch(61, "sk-test-dhcp", "#!/bin/sh\n"));
    // The agent ends when the network is there, and the next one goes on.
    for side in [Side::Before, Side::After] {
        let stopper = Stopper::new(End::Dies, (Step::Network, side));
        let driver = host.driver_with(stopper.clone()).await;
        let task = server.order(1, &Order::Launch {});
        tokio::select! {
            done = driver.carry_out(&task) => panic!("{done:?}"),
            () = stopper.stopped.notified() => {}
        }
    }
    let driver = host.driver().await;
    let seen = server.done(&driver, 1, Order::Launch {}).await;
    assert!(seen.nics.iter().all(|nic| nic.told));
    assert!(driver.census().await.unwrap().responder);
    // Without an agent, as every server is when it starts by itself.
    drop(driver);
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("ip -4 addr show eth0 | grep -c inet || true").await, "0");
    let exactly = "10.9.0.61/24 10.9.0.254 10.9.0.253 web-61 1400 3600";
    assert_eq!(guest.run(ASK).await, exactly);
    // The prefix is on the link, and no address was made of it.
    guest.becomes("ip -6 route show dev eth0 | grep -c '^2001:db8:9::/64'", "1").await;
    assert_eq!(guest.run("ip -6 addr show dev eth0 scope global").await, "");
    // With another hardware address it is nobody.
    let other =
        "ip link set eth0 down; ip link set eth0 address 52:54:00:00:01:ff; ip link set eth0 up\n";
    guest.begin(&format!("({other}{ASK}) >/run/other 2>&1; echo done >>/run/other")).await;
    guest.becomes("tail -n1 /run/other", "done").await;
    assert_eq!(guest.run("cat /run/told 2>/dev/null || true").await, "");

    // Whoever ends it: it is there again.
    let driver = host.driver().await;
    assert!(host.inside(&format!("fuser -k {}/responder.lock", host.data.path().display())));
    while !driver.census().await.unwrap().responder {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    drop(driver);
    // One that ends while the server is taken away leaves that to the next.
    for side in [Side::Before, Side::After] {
        let stopper = Stopper::new(End::Dies, (Step::Unplug, side));
        let driver = host.driver_with(stopper.clone()).await;
        let task = server.order(2, &Order::Remove {});
        tokio::select! {
            done = driver.carry_out(&task) => panic!("{done:?}"),
            () = stopper.stopped.notified() => {}
        }
    }
    let driver = host.driver().await;
    server.removed(&driver, 2).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn a_guests_own_client_asks_by_dhcpv6_because_the_routers_word_says_so() {
    let Some(host) = Host::of_tests().await else { return };
    let server = told(host.launch_larger(63, "sk-test-dhcp6", "#!/bin/sh\n"));
    let driver = host.driver().await;
    let seen = server.done(&driver, 1, Order::Launch {}).await;
    assert!(seen.nics.iter().all(|nic| nic.told));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run("ip -6 addr show dev eth0 scope global").await, "");
    assert_eq!(guest.run(ASK_V6).await, "2001:db8:9::3f");
    server.removed(&driver, 2).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
