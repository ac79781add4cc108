//! Security groups and spoofing, with frames.

use std::collections::{BTreeMap, BTreeSet};

use adapters_kvm::network::firewall::{self, Firewall, Nic};
use serde_json::json;

use crate::{
    golden::rules,
    lab::{Lab, possible},
};

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";
/// Answers what it is sent, by TCP on a port and by UDP on the same one, IPv4 and IPv6.
const SERVE: &str = "
import socket, threading
def tcp(s):
    while True:
        c, _ = s.accept()
        def echo(c=c):
            while True:
                d = c.recv(100)
                if not d: break
                c.sendall(d)
        threading.Thread(target=echo, daemon=True).start()
def udp(s):
    while True:
        d, a = s.recvfrom(100)
        s.sendto(d, a)
for port in (80, 81):
    s = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=tcp, args=(s,), daemon=True).start()
    u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    u.bind(('::', port))
    threading.Thread(target=udp, args=(u,), daemon=True).start()
print('ready')
input()
";

/// From the first address of A, for of two of IPv6 the kernel takes either.
fn tcp(to: &str, port: u16) -> String {
    let from = if to == "2001:db8::b" { "2001:db8::a" } else { "" };
    format!(
        "import socket\n\
         socket.create_connection(('{to}', {port}), 0.7, ('{from}', 0) if '{from}' else None).close()"
    )
}

fn udp(to: &str, port: u16, from: &str) -> String {
    format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET6 if ':' in '{to}' else socket.AF_INET, socket.SOCK_DGRAM)\n\
         s.settimeout(0.7)\n\
         if '{from}': s.bind(('{from}', 0))\n\
         s.sendto(b'x', ('{to}', {port})); s.recv(10)"
    )
}

fn nic(mac: &str, addresses: &[&str], of: &serde_json::Value) -> Nic {
    Nic {
        mac: mac.parse().unwrap(),
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        rules: Some(rules(of)),
        told: false,
    }
}

fn all_out() -> serde_json::Value {
    json!([
        {"direction": "egress", "protocol": "any", "peer": {"cidr": "0.0.0.0/0"}},
        {"direction": "egress", "protocol": "any", "peer": {"cidr": "::/0"}},
    ])
}

/// A may send everything and get nothing but replies; B is asked on port 80 by the group of A.
fn wanted(port: u16) -> Firewall {
    let of_b = json!([
        {"direction": "ingress", "protocol": "tcp", "ports": port.to_string(),
         "peer": {"group": "a"}},
        {"direction": "ingress", "protocol": "udp", "ports": port.to_string(),
         "peer": {"group": "a"}},
        {"direction": "ingress", "action": "deny", "protocol": "udp", "ports": port.to_string(),
         "peer": {"cidr": "10.0.0.0/8"}, "priority": 5},
    ]);
    let nics = [
        ("a", nic(A, &["10.0.0.10/32", "2001:db8::a/128"], &all_out())),
        ("b", nic(B, &["10.0.0.11/32", "2001:db8::b/128"], &of_b)),
    ];
    let group = ["10.0.0.10/32", "2001:db8::a/128"].map(|net| net.parse().unwrap());
    Firewall {
        bridges: BTreeMap::from([("br0".parse().unwrap(), 1)]),
        nics: nics.into_iter().map(|(tap, nic)| (tap.parse().unwrap(), nic)).collect(),
        peers: BTreeMap::from([("a".to_owned(), BTreeSet::from(group))]),
    }
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    // The last two of A are not its own.
    lab.server("a", A, &["10.0.0.10/24", "2001:db8::a/64", "10.0.0.66/24", "2001:db8::66/64"]);
    lab.server("b", B, &["10.0.0.11/24", "2001:db8::b/64"]);
    lab
}

#[tokio::test]
async fn what_is_allowed_passes_and_nothing_else() {
    if !possible("what_is_allowed_passes_and_nothing_else") {
        return;
    }
    let lab = lab();
    let mut serve = lab.talk("b", SERVE);
    assert_eq!(serve.line(), "ready");
    let (v4, v6) = ("10.0.0.11", "2001:db8::b");
    // Without a firewall everything passes, or what follows would show nothing.
    for script in [tcp(v4, 81), tcp(v6, 81), udp(v4, 80, ""), udp(v4, 80, "10.0.0.66")] {
        assert!(lab.says("a", &script), "{script}");
    }
    let place = lab.place();
    let applied = firewall::apply(&place, &wanted(80)).await.unwrap();
    assert_eq!(firewall::apply(&place, &wanted(80)).await.unwrap(), applied, "twice");

    for (to, port, passes) in [(v4, 80, true), (v6, 80, true), (v4, 81, false), (v6, 81, false)] {
        assert_eq!(lab.says("a", &tcp(to, port)), passes, "tcp to {to} {port}");
    }
    assert!(lab.says("a", &udp(v6, 80, "2001:db8::a")), "udp by IPv6");
    assert!(!lab.says("a", &udp(v4, 80, "10.0.0.10")), "a deny of a higher priority");
    assert!(!lab.says("a", &udp(v6, 80, "2001:db8::66")), "from another's address");
    assert!(!lab.says("b", &tcp("10.0.0.10", 80)), "nothing may leave B, nor enter A");

    // What is there is taken away, whole.
    firewall::remove(&place).await.unwrap();
    firewall::remove(&place).await.unwrap();
    assert!(lab.says("a", &tcp(v4, 81)));
}

#[tokio::test]
async fn connections_live_through_a_change_and_new_ones_follow_it() {
    if !possible("connections_live_through_a_change_and_new_ones_follow_it") {
        return;
    }
    let lab = lab();
    let mut serve = lab.talk("b", SERVE);
    assert_eq!(serve.line(), "ready");
    let place = lab.place();
    firewall::apply(&place, &wanted(80)).await.unwrap();
    let mut client = lab.talk(
        "a",
        "import socket, sys\n\
         s = socket.create_connection(('10.0.0.11', 80), timeout=5)\n\
         print('open')\n\
         for line in sys.stdin:\n    s.sendall(line.encode()); print(s.recv(100).decode().strip())",
    );
    assert_eq!(client.line(), "open");
    for round in 0..5 {
        firewall::apply(&place, &wanted(if round % 2 == 0 { 81 } else { 80 })).await.unwrap();
        assert_eq!(client.ask(&format!("round {round}")), format!("round {round}"));
    }
    assert!(lab.says("a", &tcp("10.0.0.11", 81)), "what is allowed now");
    assert!(!lab.says("a", &tcp("10.0.0.11", 80)), "what was allowed before");
    // What nft refuses leaves what was there.
    let mut wrong = wanted(80);
    wrong.bridges.insert("no-such".parse().unwrap(), 2);
    firewall::apply(&place, &wrong).await.unwrap_err();
    assert!(lab.says("a", &tcp("10.0.0.11", 81)));
}

#[tokio::test]
async fn forged_frames_go_nowhere() {
    if !possible("forged_frames_go_nowhere") {
        return;
    }
    let lab = lab();
    // B listens to everything, and says what comes: who sent it, and what it is.
    let mut listen = lab.talk(
        "b",
        "import socket, sys\n\
         s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(('eth0', 0))\n\
         print('ready')\n\
         while True:\n    d = s.recv(2000)\n    if b'MARK' in d: print(d[d.index(b'MARK'):].rstrip(b'\\0').decode())",
    );
    assert_eq!(listen.line(), "ready");
    let place = lab.place();
    let mut open = wanted(80);
    let everything = json!([
        {"direction": "ingress", "protocol": "any", "peer": {"cidr": "0.0.0.0/0"}},
        {"direction": "ingress", "protocol": "any", "peer": {"cidr": "::/0"}},
    ]);
    let b = nic(B, &["10.0.0.11/32", "2001:db8::b/128"], &everything);
    open.nics.insert("b".parse().unwrap(), b);
    firewall::apply(&place, &open).await.unwrap();
    // Each frame with its name in it; the last is the only one that is A's.
    let frames = "
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))
A = bytes.fromhex('52540000000a'); B = bytes.fromhex('52540000000b'); X = bytes.fromhex('525400000099')
i4 = socket.inet_aton
i6 = lambda a: socket.inet_pton(socket.AF_INET6, a)
def v4(src, proto, body):
    h = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(body), 1, 0, 64, proto, 0, i4(src), i4('10.0.0.11'))
    c = sum(struct.unpack('!10H', h)); c = (c & 65535) + (c >> 16); c = ~(c + (c >> 16)) & 65535
    return h[:10] + struct.pack('!H', c) + h[12:] + body
def v6(src, proto, body):
    return struct.pack('!IHBB16s16s', 6 << 28, len(body), proto, 255, i6(src), i6('2001:db8::b')) + body
def udp(sport, dport, data): return struct.pack('!HHHH', sport, dport, 8 + len(data), 0) + data
def arp(mac, ip, data): return struct.pack('!HHBBH6s4s6s4s', 1, 2048, 6, 4, 1, mac, i4(ip), b'\\0'*6, i4('10.0.0.11')) + data
def icmp6(kind, target, data):
    return struct.pack('!BBHI', kind, 0, 0, 0) + i6(target) + data
def na(src, target, data):
    body = icmp6(136, target, data)
    p = i6(src) + i6('2001:db8::b') + struct.pack('!II', len(body), 58) + body + b'\\0' * (len(body) % 2)
    c = sum(struct.unpack('!%dH' % (len(p) // 2), p))
    while c >> 16: c = (c & 65535) + (c >> 16)
    return v6(src, 58, body[:2] + struct.pack('!H', ~c & 65535) + body[4:])
def send(mac, kind, body): s.send(B + mac + struct.pack('!H', kind) + body)
send(X, 0x0800, v4('10.0.0.10', 17, udp(9, 9, b'MARK mac')))
send(A, 0x0800, v4('10.0.0.77', 17, udp(9, 9, b'MARK ip')))
send(A, 0x86dd, v6('2001:db8::77', 17, udp(9, 9, b'MARK ip6')))
send(A, 0x86dd, v6('fe80::1', 17, udp(9, 9, b'MARK link-local')))
send(A, 0x0806, arp(X, '10.0.0.10', b'MARK arp mac'))
send(A, 0x0806, arp(A, '10.0.0.77', b'MARK arp ip'))
send(A, 0x0800, v4('10.0.0.10', 17, udp(67, 68, b'MARK dhcp server')))
send(A, 0x86dd, v6('2001:db8::a', 17, udp(547, 546, b'MARK dhcpv6 server')))
send(A, 0x86dd, v6('2001:db8::a', 58, icmp6(134, '::', b'MARK router')))
send(A, 0x86dd, v6('2001:db8::a', 58, icmp6(137, '::', b'MARK redirect')))
send(A, 0x86dd, na('2001:db8::a', '2001:db8::77', b'MARK neighbour'))
send(A, 0x88cc, b'MARK neither IP nor ARP')
send(A, 0x0806, arp(A, '10.0.0.10', b'MARK own arp'))
send(A, 0x0806, arp(A, '0.0.0.0', b'MARK own probe'))
send(A, 0x86dd, na('2001:db8::a', '2001:db8::a', b'MARK own neighbour'))
send(A, 0x0800, v4('0.0.0.0', 17, udp(68, 67, b'MARK dhcp client')))
send(A, 0x86dd, v6('fe80::5054:ff:fe00:a', 17, udp(9, 9, b'MARK own link-local')))
send(A, 0x0800, v4('10.0.0.10', 17, udp(9, 9, b'MARK own')))
";
    assert!(lab.says("a", frames));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "MARK own") {
        seen.push(listen.line());
    }
    // A DHCP client's question is not for B: no rule of its group lets it in by address 0.0.0.0/0,
    // and that one does.
    let own = [
        "MARK own arp",
        "MARK own probe",
        "MARK own neighbour",
        "MARK dhcp client",
        "MARK own link-local",
        "MARK own",
    ];
    assert_eq!(seen, own);
}
