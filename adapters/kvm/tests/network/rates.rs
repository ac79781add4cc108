//! Limits on interfaces, read back.

use std::process::Command;

use adapters_kvm::network::{
    Interface,
    rates::{self, Rates},
};

use crate::lab::{Lab, possible};

const A: &str = "52:54:00:00:00:0a";

fn limits(ingress: u64, egress: u64) -> Rates {
    let some = |rate| (rate > 0).then_some(rate);
    Rates { ingress_kbit_s: some(ingress), egress_kbit_s: some(egress) }
}

/// Every queue and device of limits on the host, in words.
fn left(lab: &Lab) -> String {
    let run = |arguments: &[&str]| {
        let output = Command::new("ip").args(["netns", "exec", &lab.host]).args(arguments).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let queues = run(&["tc", "qdisc", "show"]);
    let ours = queues.lines().filter(|line| line.contains("htb") || line.contains("ingress"));
    ours.map(str::to_owned).collect::<Vec<_>>().join("\n")
        + &run(&["ip", "link", "show", "type", "ifb"])
}

#[tokio::test]
async fn limits_are_set_changed_and_taken_away() {
    if !possible("limits_are_set_changed_and_taken_away") {
        return;
    }
    let mut lab = Lab::new();
    lab.server("tap-a", A, &["10.0.0.10/24"]);
    lab.server("tap-b", "52:54:00:00:00:0b", &["10.0.0.11/24"]);
    let place = lab.place();
    let tap: Interface = "tap-a".parse().unwrap();
    let order = [(4_000, 8_000), (4_000, 8_000), (12_345, 0), (0, 2_000), (1_000_000, 64), (0, 0)];
    for (ingress, egress) in order {
        let wanted = limits(ingress, egress);
        rates::set(&place, &tap, wanted).await.unwrap();
        assert_eq!(rates::read(&place, &tap).await.unwrap(), wanted);
    }
    assert_eq!(left(&lab), "");
    // Packets go through all of it, both ways.
    rates::set(&place, &tap, limits(4_000, 8_000)).await.unwrap();
    let mut echo = lab.talk(
        "tap-b",
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.bind(('10.0.0.11', 80)); print('ready')\n\
         while True:\n    d, a = s.recvfrom(100); s.sendto(d, a)",
    );
    assert_eq!(echo.line(), "ready");
    let ask = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
               s.settimeout(5); s.sendto(b'x', ('10.0.0.11', 80)); s.recv(10)";
    assert!(lab.says("tap-a", ask));

    let fault = rates::set(&place, &tap, limits(7, 0)).await.unwrap_err().to_string();
    assert_eq!(fault, "a rate of 7 kbit/s is not between 8 and 400000000");
    let fault = rates::set(&place, &"no-such".parse().unwrap(), limits(8, 0)).await.unwrap_err();
    assert_eq!(fault.to_string(), "there is no interface no-such");
}

#[tokio::test]
async fn a_change_that_fails_leaves_what_was_there() {
    if !possible("a_change_that_fails_leaves_what_was_there") {
        return;
    }
    let mut lab = Lab::new();
    lab.server("tap-a", A, &[]);
    let place = lab.place();
    let tap: Interface = "tap-a".parse().unwrap();
    // Somebody else's catch is in the way of ours, which is the last but one step.
    let other = ["netns", "exec", &lab.host, "tc", "qdisc", "add", "dev", "tap-a", "clsact"];
    assert!(Command::new("ip").args(other).status().unwrap().success());
    rates::set(&place, &tap, limits(4_000, 8_000)).await.unwrap_err();
    assert_eq!(left(&lab), "");
    rates::set(&place, &tap, limits(4_000, 0)).await.unwrap();
    rates::set(&place, &tap, limits(5_000, 8_000)).await.unwrap_err();
    assert_eq!(rates::read(&place, &tap).await.unwrap(), limits(4_000, 0));
}
