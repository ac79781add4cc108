//! Other addresses of a guest that runs, set through a real agent: the guest is asked, neighbours ask, and
//! what it is started with has them. What it cannot have it has not, and keeps what it had; every step dies
//! once and fails once, and so does the agent in the guest.

use std::sync::Arc;

use adapters_kvm::driver::{Census, Hook, KvmHost, Side, Step};
use async_trait::async_trait;
use commands::ports::DriverFault;
use domain::compute::server::{Machine, Order, Power, addresses::Found};
use serde_json::json;
use uuid::Uuid;

use crate::host::{End, Guest, Host, Launch};

/// Answers on a port, over both families.
const USERDATA: &str = "#!/bin/sh\nnc -ll -p 80 -e hostname &\n";
/// All that it has, but what is local to the link.
const HAS: &str = "ip -o addr show dev eth0 | awk '/global/ {print $4}' | sort | tr '\\n' ' '";
/// The agent ends in a moment, and is there again some seconds later.
const SLEEPS: &str = "(sleep 0.3; kill $(cat /run/qemu-ga.pid); sleep 10; \
    port=$(grep -l guest_agent /sys/class/virtio-ports/*/name | cut -d/ -f5); \
    qemu-ga --daemonize --method virtio-serial --path /dev/$port --statedir /run \
    --pidfile /run/qemu-ga.pid) >/dev/null 2>&1 &";

fn v4(last: u8) -> String {
    format!("10.9.0.{last}/24")
}

/// Its IPv4 address is to be this one, and its IPv6 address stays.
fn to(server: &Launch, last: u8) -> Order {
    let nic = &server.state.home.as_ref().unwrap().parts.nics[0];
    let six = nic.addresses.iter().filter(|net| net.addr().is_ipv6());
    let addresses = std::iter::once(v4(last).parse().unwrap()).chain(six.copied()).collect();
    let (holder, gateways) = (Uuid::from_u128(40), nic.gateways.clone());
    Order::ChangeAddresses { nic: nic.id, found: Found { holder, addresses, gateways } }
}

/// The same server, as the log has it once that is confirmed.
fn after(server: &Launch, order: &Order) -> Launch {
    let Order::ChangeAddresses { found, .. } = order else { panic!("{order:?}") };
    server.clone().with(|home| home["parts"]["nics"][0]["addresses"] = json!(found.addresses))
}

fn addresses(machine: &Machine) -> Vec<String> {
    machine.addresses.iter().map(ToString::to_string).collect()
}

/// An order that the guest cannot do: why, and what is there.
async fn kept(server: &Launch, driver: &KvmHost, number: u64, order: &Order) -> (String, Machine) {
    let report = driver.carry_out(&server.order(number, order)).await.unwrap();
    assert_eq!((report.verb, &report.body["number"]), ("confirm-kept-addresses", &json!(number)));
    let seen = serde_json::from_value(report.body["seen"].clone()).unwrap();
    (report.body["reason"].as_str().unwrap().to_owned(), seen)
}

/// What the guest's shell does in place of giving an interface 10.9.0.42; the old address is gone by then.
async fn shell_does(guest: &Guest, instead: &str) {
    let script = format!(
        "rm -f /bin/sh; cat >/bin/sh <<'END'\n#!/bin/busybox sh\n\
         case \"$2\" in *\"addr add 10.9.0.4\"[2]/*)\n\
         exec /bin/busybox sh -c \"${{2%%ip addr add*}} {instead}\" ;; esac\n\
         exec /bin/busybox sh \"$@\"\nEND\nchmod +x /bin/sh"
    );
    guest.run(&script).await;
}

#[tokio::test]
async fn a_guest_that_runs_has_another_address_or_what_it_had() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(40, "sk-test-40", USERDATA);
    server.done(&driver, 1, Order::Launch {}).await;
    assert!(host.inside("ip addr add 10.9.0.254/24 dev sk-test-40"));
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes("netstat -ltn | grep -c ':80 '", "1").await;
    let has = |last: u8| format!("{} 2001:db8:9::28/64", v4(last));
    guest.becomes(HAS, &has(40)).await;
    assert!(host.reaches("10.9.0.40", 80));

    let order = to(&server, 41);
    for _ in 0..2 {
        let machine = server.done(&driver, 2, order.clone()).await;
        assert_eq!(addresses(&machine), [v4(41), "2001:db8:9::28/64".into()]);
        assert_eq!(guest.run(HAS).await, has(41));
    }
    assert!(host.reaches("10.9.0.41", 80) && !host.reaches("10.9.0.40", 80));
    let route = "ip route | grep -c '^default via 10.9.0.254 dev eth0'";
    guest.becomes(route, "1").await;
    // A guest that takes its old one again may not use it.
    guest.run("ip addr add 10.9.0.40/24 dev eth0").await;
    assert!(!host.reaches("10.9.0.40", 80) && host.reaches("10.9.0.41", 80));
    guest.run("ip addr del 10.9.0.40/24 dev eth0").await;

    // What a guest cannot have it has not: its own no, and one that says yes and does not.
    let server = after(&server, &order);
    for (number, instead, why) in [
        (3, "echo the card is on fire >&2; exit 1", "the card is on fire"),
        (4, "true", "and has not"),
    ] {
        shell_does(&guest, instead).await;
        let (reason, machine) = kept(&server, &driver, number, &to(&server, 42)).await;
        assert!(reason.contains(why), "{reason}");
        assert_eq!(addresses(&machine)[0], v4(41));
        assert_eq!(guest.run(HAS).await, has(41));
        guest.becomes(route, "1").await;
        assert!(host.reaches("10.9.0.41", 80));
    }
    // The guest restarts by itself: it reads its seed again.
    guest.begin("sync; reboot -f").await;
    guest.falls_silent().await;
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes(HAS, &has(41)).await;
    server.done(&driver, 5, Order::Stop {}).await;
    // Stopped, it is started with another one.
    let order = to(&server, 43);
    assert_eq!(server.done(&driver, 6, order.clone()).await.power, Power::Stopped);
    let server = after(&server, &order);
    server.done(&driver, 7, Order::Start {}).await;
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes(HAS, &has(43)).await;
    // An agent that runs nothing: it has what it had, and nothing else is allowed.
    guest.begin(&SLEEPS.replace("--statedir", "--block-rpcs=guest-exec --statedir")).await;
    guest.falls_silent().await;
    Guest::up(&host, server.id).await;
    let (reason, machine) = kept(&server, &driver, 8, &to(&server, 42)).await;
    assert!(reason.contains("guest-exec"), "{reason}");
    assert_eq!(addresses(&machine)[0], v4(43));
    server.removed(&driver, 9).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn a_guest_on_ipv6_alone_is_reached_and_has_another_address_while_it_runs() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let (first, second) = ("2001:db8:9::2e", "2001:db8:9::2f");
    let server = host.launch(46, "sk-test-46", USERDATA).with(|home| {
        let nic = &mut home["parts"]["nics"][0];
        nic["addresses"] = json!([format!("{first}/64")]);
        (nic["gateways"], nic["dns_servers"]) = (json!([]), json!([]));
    });
    let machine = server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(addresses(&machine), [format!("{first}/64")]);
    assert!(host.inside("ip addr add 2001:db8:9::fe/64 dev sk-test-46 nodad"));
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes("netstat -ltn | grep -c ':80 '", "1").await;
    // Whether somebody has it already is asked first.
    let settled = "ip -6 addr show dev eth0 | grep -c tentative";
    guest.becomes(settled, "0").await;
    assert_eq!(guest.run(HAS).await, format!("{first}/64"));
    assert!(host.reaches(first, 80));

    let nic = server.state.home.as_ref().unwrap().parts.nics[0].id;
    let found = Found {
        holder: Uuid::from_u128(46),
        addresses: vec![format!("{second}/64").parse().unwrap()],
        gateways: vec![],
    };
    let machine = server.done(&driver, 2, Order::ChangeAddresses { nic, found }).await;
    assert_eq!(addresses(&machine), [format!("{second}/64")]);
    guest.becomes(settled, "0").await;
    assert_eq!(guest.run(HAS).await, format!("{second}/64"));
    assert!(host.reaches(second, 80) && !host.reaches(first, 80));
    server.removed(&driver, 3).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

/// Has the guest's agent sleep for a while at one point.
struct Sleeper {
    at: (Step, Side),
    guest: Guest,
}

#[async_trait]
impl Hook for Sleeper {
    async fn at(&self, step: Step, side: Side, _: Uuid) -> Result<(), DriverFault> {
        if (step, side) == self.at {
            self.guest.begin(SLEEPS).await;
            self.guest.falls_silent().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_change_that_ends_anywhere_ends_in_one_of_two_states() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let mut server = host.launch(44, "sk-test-44", "#!/bin/sh\n");
    server.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, server.id).await;
    drop(driver);
    let has = |last: u8| format!("{} 2001:db8:9::2c/64", v4(last));
    let (mut number, mut last, mut turns) = (1, 44, 0);
    for (end, side) in
        [(End::Dies, Side::Before), (End::Dies, Side::After), (End::Fails, Side::Before)]
    {
        for step in [Step::Network, Step::Addresses, Step::Seed, Step::Guard] {
            (number, turns) = (number + 1, turns + 1);
            let order = to(&server, last + 1);
            let task = server.order(number, &order);
            host.cut(end, (step, side), &task).await;
            let driver = host.driver().await;
            driver.guard().await.unwrap();
            let place = format!("{end:?} {side:?} {step:?}");
            // Half of them are given up: nothing of it is left then.
            if turns % 2 == 0 {
                let Order::ChangeAddresses { nic, found } = order else { panic!() };
                number += 1;
                let restore = Order::RestoreAddresses { nic, found };
                let machine = server.done(&driver, number, restore).await;
                assert_eq!(addresses(&machine)[0], v4(last), "{place}");
                assert_eq!(guest.run(HAS).await, has(last), "{place}");
                continue;
            }
            last += 1;
            let machine = server.done(&driver, number, order.clone()).await;
            assert_eq!(addresses(&machine)[0], v4(last), "{place}");
            assert_eq!(guest.run(HAS).await, has(last), "{place}");
            server = after(&server, &order);
            let census = driver.census().await.unwrap();
            assert_eq!((census.seeds.len(), census.guarded.len()), (1, 1), "{place}: {census:?}");
        }
    }

    // Nobody hears the guest before it was told: it keeps what it has, and the reason is said at once.
    guest.begin(SLEEPS).await;
    guest.falls_silent().await;
    let driver = host.driver().await;
    let order = to(&server, last + 2);
    let (reason, machine) = kept(&server, &driver, number + 1, &order).await;
    assert!(reason.contains("does not answer"), "{reason}");
    assert_eq!(addresses(&machine)[0], v4(last));
    drop(driver);
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run(HAS).await, has(last));
    // And when it may have been told: both are its own until it answers, and then it is done.
    for at in [(Step::Network, Side::After), (Step::Addresses, Side::After)] {
        number += 2;
        let sleeper = Sleeper { at, guest: Guest::ready(&host, server.id).await };
        let driver = host.driver_with(Arc::new(sleeper)).await;
        let order = to(&server, last + 2);
        let done = driver.carry_out(&server.order(number, &order)).await;
        drop(driver);
        let driver = host.driver().await;
        if at.0 == Step::Network {
            assert!(matches!(done, Err(DriverFault::Transient(_))), "{done:?}");
            let again = driver.carry_out(&server.order(number, &order)).await;
            assert!(matches!(again, Err(DriverFault::Transient(_))), "{again:?}");
        } else {
            done.unwrap();
        }
        let guest = Guest::ready(&host, server.id).await;
        server.done(&driver, number, order.clone()).await;
        last += 2;
        assert_eq!(guest.run(HAS).await, has(last));
        server = after(&server, &order);
    }
    // Given up while nobody hears it: it may use what it had, and nothing else.
    let sleeper = Sleeper { at: (Step::Addresses, Side::After), guest };
    let driver = host.driver_with(Arc::new(sleeper)).await;
    let order = to(&server, last + 2);
    driver.carry_out(&server.order(number + 1, &order)).await.unwrap();
    let Order::ChangeAddresses { nic, found } = order else { panic!() };
    let restore = Order::RestoreAddresses { nic, found };
    drop(driver);
    let driver = host.driver().await;
    let machine = server.done(&driver, number + 2, restore.clone()).await;
    assert_eq!(addresses(&machine)[0], v4(last));
    let guest = Guest::ready(&host, server.id).await;
    assert_eq!(guest.run(HAS).await, has(last + 2), "it was told nothing of it");
    server.done(&driver, number + 3, restore).await;
    assert_eq!(guest.run(HAS).await, has(last));
    server.removed(&driver, number + 4).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
