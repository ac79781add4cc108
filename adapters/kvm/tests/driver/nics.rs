//! Interfaces that a server gets, loses and has limited and guarded while it runs, as its guest and its
//! neighbours see them; every step of it dies once and fails once.

use std::process::Command;

use adapters_kvm::driver::{Census, KvmHost, Side, Step};
use domain::{
    compute::server::{Machine, Order},
    network::mac::Mac,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::host::{End, Guest, Host, Launch};

const GROUP: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0a01);
pub(crate) const ADDED: Uuid = Uuid::from_u128(0xadd0_0000_0000_8000_8000_0000_0000_0001);
/// Answers on two ports, over both families.
const USERDATA: &str = "#!/bin/sh\n\
    for port in 80 81; do nc -ll -p $port -e hostname & done\n";

/// The same server, as the log has it after a change.
fn after(server: &Launch, change: impl FnOnce(&mut Value)) -> Launch {
    let mut state = serde_json::to_value(&server.state).unwrap();
    change(&mut state["home"]["parts"]);
    let mut server = server.clone();
    server.state = serde_json::from_value(state).unwrap();
    server
}

/// Its first interface is guarded, so that its neighbours reach this port.
fn guarded(server: &Launch, port: &str) -> Launch {
    let rule = |peer: &str| json!({"direction": "ingress", "protocol": "tcp", "ports": port, "peer": {"cidr": peer}});
    after(server, |parts| {
        parts["nics"][0]["security_groups"] = json!([GROUP]);
        parts["groups"] = json!({GROUP.to_string(): [rule("10.9.0.0/24"), rule("::/0")]});
    })
}

fn limited(server: &Launch, ingress: u64, egress: Option<u64>) -> Launch {
    after(server, |parts| {
        parts["nics"][0]["bandwidth"] = json!({"ingress_kbit_s": ingress, "egress_kbit_s": egress});
    })
}

/// It has another interface, on a bridge of its own.
pub(crate) fn with_another(server: &Launch, bridge: &str) -> Launch {
    after(server, |parts| {
        let nic = json!({
            "id": ADDED, "network": Uuid::from_u128(51), "segment": Uuid::from_u128(52),
            "bridge": bridge, "medium": "bridge", "mtu": 1_500, "mac": "52:54:00:00:0a:dd",
            "addresses": ["10.8.0.2/24"], "bandwidth": {"egress_kbit_s": 4_000},
        });
        parts["nics"].as_array_mut().unwrap().push(nic);
    })
}

/// Carries an order out, twice, and says what is seen then.
pub(crate) async fn done(server: &Launch, driver: &KvmHost, number: u64, order: Order) -> Machine {
    let once = server.done(driver, number, order.clone()).await;
    let twice = server.done(driver, number, order).await;
    // But for what has passed between.
    let still = |machine: &Machine| {
        let mut machine = machine.clone();
        machine.nics.iter_mut().for_each(|nic| nic.traffic = None);
        machine
    };
    assert_eq!(still(&once), still(&twice));
    twice
}

impl Host {
    pub(crate) fn inside(&self, script: &str) -> bool {
        let net = format!("--net={}", self.net());
        let run = Command::new("nsenter").args([&net, "bash", "-c", script]).output().unwrap();
        run.status.success()
    }

    /// Whether somebody on the host's side gets an answer.
    pub(crate) fn reaches(&self, address: &str, port: u16) -> bool {
        self.inside(&format!("timeout 3 bash -c 'read -t 3 name </dev/tcp/{address}/{port}'"))
    }
}

const V4: &str = "10.9.0.30";
const V6: &str = "2001:db8:9::1e";

#[tokio::test]
async fn an_interface_comes_and_goes_is_limited_and_guarded_while_the_guest_runs() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(30, "sk-test-30", USERDATA);
    let server = limited(&guarded(&server, "80"), 8_000, Some(4_000));
    let machine = server.done(&driver, 1, Order::Launch {}).await;
    let nic = |machine: &Machine| serde_json::to_value(&machine.nics[0]).unwrap();
    let seen = json!({
        "mac": "52:54:00:00:01:1e", "bandwidth": {"ingress_kbit_s": 8_000, "egress_kbit_s": 4_000},
        "security_groups": [GROUP], "rules": 2,
    });
    assert_eq!(nic(&machine), seen, "as the kernel says");
    let neighbour = "ip addr add 10.9.0.254/24 dev sk-test-30 && \
                     ip addr add 2001:db8:9::fe/64 dev sk-test-30 nodad";
    assert!(host.inside(neighbour));
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes("netstat -ltn | grep -c ':8[01] '", "2").await;

    // What is guarded answers who may ask, and nobody else.
    let reached = |port| (host.reaches(V4, port), host.reaches(V6, port));
    done(&server, &driver, 2, Order::ChangeNics {}).await;
    assert_eq!(reached(80), (true, true));
    assert_eq!(reached(81), (false, false));
    // Other rules, other limits.
    let server = limited(&guarded(&server, "81"), 16_000, None);
    let machine = done(&server, &driver, 3, Order::ChangeNics {}).await;
    assert_eq!(nic(&machine)["bandwidth"], json!({"ingress_kbit_s": 16_000}));
    assert_eq!(reached(80), (false, false));
    assert_eq!(reached(81), (true, true));

    // Another interface, on a bridge that is made for it.
    let both = with_another(&server, "sk-test-31");
    let machine = done(&both, &driver, 4, Order::AddNic { nic: ADDED }).await;
    let added: Mac = "52:54:00:00:0a:dd".parse().unwrap();
    assert_eq!((machine.nics.len(), machine.nics[1].mac), (2, added));
    assert_eq!(machine.nics[1].bandwidth.egress_kbit_s, Some(4_000));
    assert_eq!(machine.addresses.len(), 3);
    guest.becomes("cat /sys/class/net/eth1/address", "52:54:00:00:0a:dd").await;
    guest.run("ip link set eth1 up && ip addr add 10.8.0.2/24 dev eth1").await;
    assert!(host.inside("ip addr add 10.8.0.254/24 dev sk-test-31"));
    assert!(host.reaches("10.8.0.2", 80), "nothing is kept from what no group guards");
    let census = driver.census().await.unwrap();
    assert_eq!(census.bridges.len(), 2);
    assert_eq!(census.interfaces.len(), 3, "two, and what one is led through: {census:?}");
    assert_eq!(census.guarded.len(), 2);

    // It is started with what it has.
    both.done(&driver, 5, Order::Stop {}).await;
    let machine = both.done(&driver, 6, Order::Start {}).await;
    assert_eq!((machine.nics.len(), machine.nics[0].rules), (2, Some(2)));
    assert_eq!(machine.nics[0].bandwidth.ingress_kbit_s, Some(16_000));
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes("cat /sys/class/net/eth1/address", "52:54:00:00:0a:dd").await;

    let machine = done(&both, &driver, 7, Order::RemoveNic { nic: ADDED }).await;
    assert_eq!((machine.nics.len(), machine.addresses.len()), (1, 2));
    guest.becomes("ls /sys/class/net | grep -c eth", "1").await;
    let census = driver.census().await.unwrap();
    assert_eq!((census.bridges.len(), census.interfaces.len(), census.guarded.len()), (1, 1, 1));

    // Cold: what a stopped server gets it is started with, and what it loses is gone.
    server.done(&driver, 8, Order::Stop {}).await;
    let machine = done(&both, &driver, 9, Order::AddNic { nic: ADDED }).await;
    assert_eq!(machine.nics.len(), 2);
    let machine = done(&both, &driver, 10, Order::RemoveNic { nic: ADDED }).await;
    assert_eq!(machine.nics.len(), 1);
    server.removed(&driver, 11).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn an_order_of_an_interface_that_ends_anywhere_is_done_once() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let bare = host.launch(31, "lab", "#!/bin/sh\n");
    let both = with_another(&bare, "sk-test-32");
    bare.done(&driver, 1, Order::Launch {}).await;
    let guest = Guest::ready(&host, bare.id).await;
    drop(driver);
    let count = "ls /sys/class/net | grep -c eth";
    let mut number = 1;
    for (end, side) in
        [(End::Dies, Side::Before), (End::Dies, Side::After), (End::Fails, Side::Before)]
    {
        let mut cut = async |server: &Launch, order: Order, step: Step, nics: usize| {
            number += 1;
            let task = server.order(number, &order);
            host.cut(end, (step, side), &task).await;
            // The host's next agent begins with this.
            let driver = host.driver().await;
            driver.guard().await.unwrap();
            let machine = server.done(&driver, number, order).await;
            assert_eq!(machine.nics.len(), nics, "{end:?} {side:?} {step:?}");
            let census = driver.census().await.unwrap();
            let through = nics - 1;
            assert_eq!(census.interfaces.len(), nics + through, "{step:?}: {census:?}");
            assert_eq!((census.guarded.len(), census.bridges.len()), (nics, through), "{step:?}");
            guest.becomes(count, &nics.to_string()).await;
        };
        for (add, remove) in [
            (Step::Network, Step::NicUnplug),
            (Step::NicPlug, Step::Network),
            (Step::NicLimits, Step::NicLimits),
        ] {
            cut(&both, Order::AddNic { nic: ADDED }, add, 2).await;
            if add != Step::NicPlug {
                let faster = after(&both, |parts| {
                    parts["nics"][1]["bandwidth"] = json!({"egress_kbit_s": 8_000});
                });
                cut(&faster, Order::ChangeNics {}, add, 2).await;
            }
            cut(&both, Order::RemoveNic { nic: ADDED }, remove, 1).await;
        }
    }
    let driver = host.driver().await;
    bare.removed(&driver, number + 1).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}

#[tokio::test]
async fn bytes_are_counted_and_none_pass_beyond_the_quota() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let bare = host.launch(32, "sk-test-33", USERDATA);
    let with = |egress: u64, resets: u64| {
        after(&bare, |parts| {
            parts["nics"][0]["quota"] = json!({"egress_bytes": egress});
            parts["nics"][0]["resets"] = json!(resets);
        })
    };
    let plenty = 1 << 40;
    let server = with(plenty, 0);
    let machine = server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(machine.nics[0].quota.unwrap().egress_bytes, Some(plenty), "as the kernel says");
    assert!(host.inside("ip addr add 10.9.0.254/24 dev sk-test-33"));
    let guest = Guest::ready(&host, server.id).await;
    guest.becomes("netstat -ltn | grep -c ':8[01] '", "2").await;
    let reached = || host.reaches("10.9.0.32", 80);
    let used = |machine: &Machine| machine.nics[0].traffic.unwrap().egress_bytes;
    assert!(reached());
    let machine = server.done(&driver, 2, Order::ChangeNics {}).await;
    let first = used(&machine);
    assert!(first > 100, "{first}");

    // Used up: nothing passes any more, not for another agent either.
    let machine = done(&with(1, 0), &driver, 3, Order::ChangeNics {}).await;
    assert!(used(&machine) >= first);
    assert!(!reached());
    drop(driver);
    let driver = host.driver().await;
    driver.guard().await.unwrap();
    assert!(!reached());
    // A raise lets packets through at once, and is enforced when it is used up as well.
    let machine = done(&with(plenty, 0), &driver, 4, Order::ChangeNics {}).await;
    let second = used(&machine);
    assert!(second >= first && reached());
    done(&with(second + 200, 0), &driver, 5, Order::ChangeNics {}).await;
    reached();
    assert!(!reached(), "it is used up again");

    // Counted anew, once for one order.
    let server = with(100_000, 1);
    let machine = done(&server, &driver, 6, Order::ChangeNics {}).await;
    assert!(used(&machine) < first, "{}", used(&machine));
    assert!(reached());
    let before = used(&server.done(&driver, 7, Order::ChangeNics {}).await);
    assert!(before > 100);
    // The host restarts: what it had written down is where it begins.
    assert!(host.inside("nft delete table bridge skyledger-quota"));
    driver.guard().await.unwrap();
    let machine = server.done(&driver, 8, Order::ChangeNics {}).await;
    assert!(used(&machine) >= before, "{}", used(&machine));
    server.done(&driver, 9, Order::Stop {}).await;
    let machine = server.done(&driver, 10, Order::Start {}).await;
    assert!(used(&machine) >= before, "{}", used(&machine));
    assert_eq!(driver.census().await.unwrap().counted.len(), 1);

    // As it is when it has come from another host, where it had used most of it.
    let elsewhere = 50_000;
    let came = after(&with(elsewhere + 300, 1), |parts| {
        parts["nics"][0]["carried"] =
            json!({"traffic": {"ingress_bytes": 0, "egress_bytes": elsewhere}, "moves": 1});
    });
    let guest = Guest::ready(&host, server.id).await;
    // Its userdata ran once, and what that began is gone.
    guest.run("nc -ll -p 80 -e hostname >/dev/null 2>&1 </dev/null &").await;
    guest.becomes("netstat -ltn | grep -c ':80 '", "1").await;
    let machine = done(&came, &driver, 11, Order::ChangeNics {}).await;
    assert!((elsewhere..elsewhere + 300).contains(&used(&machine)), "{}", used(&machine));
    reached();
    reached();
    assert!(!reached(), "what was used there and here is all of it");
    let machine = done(&came, &driver, 12, Order::ChangeNics {}).await;
    assert!(used(&machine) > elsewhere, "{}", used(&machine));
    server.removed(&driver, 13).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
