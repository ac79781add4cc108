//! Bytes counted and limited, with packets.

use adapters_kvm::network::{
    Interface,
    quota::{self, Before, Both, Usage},
};

use crate::lab::{Lab, possible};

/// Sends datagrams of 72 bytes of data, 100 bytes with their headers, when told how many, and says
/// how many bytes of data came back.
const SEND: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5); s.bind(('10.0.0.10', 0))
print('ready')
for line in sys.stdin:
    came = 0
    for _ in range(int(line)):
        s.sendto(b'x' * 72, ('10.0.0.11', 80))
        try: came += len(s.recv(100))
        except OSError: pass
    print(came // 72)
";
const ECHO: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.0.0.11', 80))
print('ready')
while True:
    d, a = s.recvfrom(100); s.sendto(d, a)
";

fn limits(ingress: Option<u64>, egress: Option<u64>) -> Both<Option<u64>> {
    Both { ingress, egress }
}

#[tokio::test]
async fn bytes_are_counted_and_a_limit_is_enforced_again_after_a_raise() {
    if !possible("bytes_are_counted_and_a_limit_is_enforced_again_after_a_raise") {
        return;
    }
    let mut lab = Lab::new();
    lab.server("tap-a", "52:54:00:00:00:0a", &["10.0.0.10/24"]);
    lab.server("tap-b", "52:54:00:00:00:0b", &["10.0.0.11/24"]);
    // Neither ARP nor IPv6 sends what would be counted too.
    lab.without_ipv6();
    for (server, address, mac) in
        [("tap-a", "10.0.0.11", "52:54:00:00:00:0b"), ("tap-b", "10.0.0.10", "52:54:00:00:00:0a")]
    {
        lab.inside(server, &["neigh", "add", address, "lladdr", mac, "dev", "eth0"]);
    }
    let place = lab.place();
    let tap: Interface = "tap-a".parse().unwrap();
    let (mut echo, mut send) = (lab.talk("tap-b", ECHO), lab.talk("tap-a", SEND));
    assert_eq!((echo.line(), send.line()), ("ready".to_owned(), "ready".to_owned()));

    let used = async || {
        let all = quota::read(&place).await.unwrap();
        (all[&tap].ingress.used_bytes, all[&tap].egress.used_bytes)
    };
    // Counted here before, until the kernel forgot it; no limit.
    let here = Both { ingress: 50, egress: 7 };
    let before = Before { here, ..Before::default() };
    quota::set(&place, &tap, limits(None, None), before).await.unwrap();
    assert_eq!(send.ask("3"), "3");
    assert_eq!(used().await, (350, 307));
    // Twice is once, and begins nowhere else.
    quota::set(&place, &tap, limits(None, None), before).await.unwrap();
    assert_eq!(used().await, (350, 307));

    // Two more fit, one direction only: the other is counted all the same.
    let after = quota::set(&place, &tap, limits(Some(549), None), before).await.unwrap();
    assert_eq!(after.ingress, Usage { used_bytes: 350, limit_bytes: Some(549) });
    assert_eq!(send.ask("4"), "1", "what reaches a limit is dropped");
    let all = quota::read(&place).await.unwrap();
    assert_eq!((all[&tap].ingress.used_bytes, all[&tap].egress.used_bytes), (450, 707));
    // A raise lets packets through at once, and is enforced when it is used up.
    quota::set(&place, &tap, limits(Some(751), None), before).await.unwrap();
    assert_eq!(send.ask("4"), "3");
    assert_eq!(used().await, (750, 1_107));
    quota::set(&place, &tap, limits(Some(951), None), before).await.unwrap();
    assert_eq!(send.ask("4"), "2", "and again");
    // Lower than what was used: nothing passes.
    quota::set(&place, &tap, limits(Some(10), None), before).await.unwrap();
    assert!(quota::read(&place).await.unwrap()[&tap].ingress.is_exceeded());
    assert_eq!(send.ask("1"), "0");

    // A reset gives what was used, keeps the limits, and counts from nothing.
    quota::set(&place, &tap, limits(Some(201), Some(100_000)), before).await.unwrap();
    let was = quota::reset(&place, &tap).await.unwrap();
    assert_eq!((was.ingress.used_bytes, was.egress.used_bytes), (950, 1_607));
    assert_eq!(was.egress.limit_bytes, Some(100_000));
    assert_eq!(send.ask("4"), "2");
    assert_eq!(used().await, (200, 400));

    // What was used on another host is as good as used here, whenever it is known; and it is not counted.
    let elsewhere = Both { ingress: 500, egress: 0 };
    let came = Before { elsewhere, ..Before::default() };
    quota::set(&place, &tap, limits(Some(901), None), came).await.unwrap();
    assert_eq!(send.ask("4"), "2", "200 here and 500 there of 901");
    assert_eq!(used().await, (400, 800));
    quota::set(&place, &tap, limits(Some(1_001), None), came).await.unwrap();
    assert_eq!(send.ask("4"), "1", "a raise");

    let was = quota::remove(&place, &tap).await.unwrap().unwrap();
    assert_eq!(was.ingress, Usage { used_bytes: 500, limit_bytes: Some(1_001) });
    assert_eq!(quota::remove(&place, &tap).await.unwrap(), None);
    assert_eq!(send.ask("4"), "4");
    let fault = quota::set(&place, &tap, limits(Some(0), None), before).await.unwrap_err();
    assert_eq!(fault.to_string(), "a quota of 0 bytes is not between 1 and 9223372036854775807");
}
