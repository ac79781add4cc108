//! What servers are told when they ask, with frames: on a host whose rules keep questions at home.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use adapters_kvm::network::{
    dhcp::{
        Told,
        listen::{Answers, Listeners},
    },
    firewall::{self, Firewall, Nic},
};
use serde_json::json;

use crate::lab::{Lab, possible};

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";

/// What answers on a bridge: a process of its own, which the test below runs with what it is to tell.
#[test]
fn who_answers() {
    let Ok(answers) = std::env::var("SKYLEDGER_TELLS") else { return };
    let answers: Answers = serde_json::from_str(&answers).unwrap();
    let mut listeners = Listeners::default();
    loop {
        listeners.tell(&answers).unwrap();
        println!("ready");
        listeners.hear(Duration::from_secs(10)).unwrap();
    }
}

struct Answering(Child);

impl Answering {
    fn on(lab: &Lab, answers: &Answers) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &lab.host])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "dhcp::who_answers", "--nocapture"])
            .env("SKYLEDGER_TELLS", serde_json::to_string(answers).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(said);
        assert!(lines.any(|line| line.unwrap().contains("ready")));
        // Nobody reads the rest.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn told(mac: &str, last: u8) -> Told {
    serde_json::from_value(json!({
        "mac": mac, "addresses": [format!("10.0.0.{last}/24"), format!("2001:db8::{last:x}/64")],
        "gateways": ["10.0.0.1"], "dns_servers": ["10.0.0.2", "2001:db8::2"],
        "domain": "blue.example.com", "hostname": "web", "mtu": 1_400, "lease_s": 3_600,
    }))
    .unwrap()
}

fn nic(mac: &str, last: u8, told: bool) -> Nic {
    let addresses = [format!("10.0.0.{last}/32"), format!("2001:db8::{last:x}/128")];
    Nic {
        mac: mac.parse().unwrap(),
        addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
        // Nothing is allowed but what needs no rule.
        rules: told.then(Default::default),
        told,
    }
}

/// Asks by frames, and says what comes back: the kind of each answer, and its address.
const CLIENT: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(('eth0', 0))
me = s.getsockname()[4]
i6 = lambda a: socket.inet_pton(socket.AF_INET6, a)
link = bytes.fromhex('fe80000000000000') + bytes([me[0] ^ 2]) + me[1:3] + b'\\xff\\xfe' + me[3:]
def udp(ports, data): return struct.pack('!HHHH', ports[0], ports[1], 8 + len(data), 0) + data
def v4(mac, src, dst, data):
    body = udp((68, 67), data)
    h = struct.pack('!BBHHHBBH4s4s', 69, 0, 20 + len(body), 1, 0, 64, 17, 0, socket.inet_aton(src), socket.inet_aton(dst))
    c = sum(struct.unpack('!10H', h)); c = (c & 65535) + (c >> 16); c = ~(c + (c >> 16)) & 65535
    s.send(mac + me + b'\\x08\\0' + h[:10] + struct.pack('!H', c) + h[12:] + body)
def bootp(hardware, has, *options):
    fixed = struct.pack('!BBBB4sHH4s4s4s4s16s', 1, 1, 6, 0, b'4321', 0, 0, socket.inet_aton(has), b'', b'', b'', hardware)
    return fixed + b'\\0' * 192 + bytes([99, 130, 83, 99]) + b''.join(options) + b'\\xff'
def v6(dst, proto, body):
    if proto == 17: body = udp((546, 547), body)
    p = link + i6(dst) + struct.pack('!II', len(body), proto) + body + b'\\0' * (len(body) % 2)
    c = sum(struct.unpack('!%dH' % (len(p) // 2), p))
    while c >> 16: c = (c & 65535) + (c >> 16)
    at = 6 if proto == 17 else 2
    body = body[:at] + struct.pack('!H', ~c & 65535) + body[at + 2:]
    mac = b'\\x33\\x33' + i6(dst)[12:]
    s.send(mac + me + b'\\x86\\xdd' + struct.pack('!IHBB16s16s', 6 << 28, len(body), proto, 255, link, i6(dst)) + body)
def hear():
    while True:
        d = s.recv(2000)
        if d[:6] == me and d[12:14] == b'\\x08\\0' and d[23] == 17 and d[34:38] == b'\\0C\\0D':
            return 'v4 %d %s' % (d[14 + 20 + 8 + 242], socket.inet_ntoa(d[14 + 28 + 16:14 + 28 + 20]))
        if d[:6] == me and d[12:14] == b'\\x86\\xdd' and d[20] == 17 and d[54:58] == b'\\x02\\x23\\x02\\x22':
            at = d.find(b'\\0\\x05\\0\\x18')
            return 'v6 %d %s' % (d[62], socket.inet_ntop(socket.AF_INET6, d[at + 4:at + 20]))
        # The system of its own accord asks for routers as well.
        if routers and d[:6] == me and d[12:14] == b'\\x86\\xdd' and d[20] == 58 and d[54] == 134:
            return 'router %d %d' % (d[59], struct.unpack('!H', d[60:62])[0])
discover = bytes([53, 1, 1]); request = bytes([53, 1, 3])
client = b'\\0\\x01\\0\\x06' + me; addresses = b'\\0\\x03\\0\\x0c' + b'\\0\\0\\0\\x01' + b'\\0' * 8
all4 = (b'\\xff' * 6, '0.0.0.0', '255.255.255.255')
s.settimeout(float(sys.argv[1]) if len(sys.argv) > 1 else 20)
print('ready')
for line in sys.stdin:
    routers = 'ff02::2' in line
    try: print(eval(line) or hear())
    except TimeoutError: print('nothing')
";

#[tokio::test]
async fn a_server_is_told_its_own_by_its_host_alone_and_asks_nobody_else() {
    if !possible("a_server_is_told_its_own_by_its_host_alone_and_asks_nobody_else") {
        return;
    }
    let mut lab = Lab::new();
    lab.server("a", A, &["10.0.0.10/24"]);
    lab.server("b", B, &["10.0.0.11/24"]);
    // Another host, by a wire: it hears what leaves this one, and answers whatever it hears.
    lab.server("wire", "52:54:00:00:00:99", &[]);
    let nics = [("a", nic(A, 10, true)), ("b", nic(B, 11, false))];
    let nics = nics.map(|(tap, nic)| (tap.parse().unwrap(), nic));
    let firewall = Firewall {
        bridges: [("br0".parse().unwrap(), 7)].into(),
        nics: nics.into(),
        ..Firewall::default()
    };
    firewall::apply(&lab.place(), &firewall).await.unwrap();
    let answers = Answers::from([("br0".to_owned(), vec![told(A, 10)])]);
    let answering = Answering::on(&lab, &answers);
    let mut wire = lab.talk(
        "wire",
        "import socket\n\
         s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(('eth0', 0))\n\
         print('ready')\n\
         while True:\n    d = s.recv(2000)\n    if b'4321' in d or b'MARK' in d or b'\\x02\\x22\\x02\\x23' in d: print('MARK' if b'MARK' in d else 'a question of %s' % d[6:12].hex())",
    );
    assert_eq!(wire.line(), "ready");
    let mut a = lab.talk("a", CLIENT);
    assert_eq!(a.line(), "ready");
    assert_eq!(a.ask("v4(*all4, bootp(me, '0.0.0.0', discover))"), "v4 2 10.0.0.10");
    let asks = "v4(*all4, bootp(me, '0.0.0.0', request, b'\\x32\\x04' + bytes([10, 0, 0, 10])))";
    assert_eq!(a.ask(asks), "v4 5 10.0.0.10");
    // What it renews it asks of the gateway, by whatever hardware address that has.
    let renews = "v4(bytes(6), '10.0.0.10', '10.0.0.1', bootp(me, '10.0.0.10', request))";
    assert_eq!(a.ask(renews), "v4 5 10.0.0.10");
    let wrong = "v4(*all4, bootp(me, '0.0.0.0', request, b'\\x32\\x04' + bytes([10, 0, 0, 11])))";
    assert_eq!(a.ask(wrong), "v4 6 0.0.0.0", "not its own");
    let solicits = "v6('ff02::1:2', 17, b'\\x01abc' + client + addresses)";
    assert_eq!(a.ask(solicits), "v6 2 2001:db8::a");
    assert_eq!(a.ask("v6('ff02::2', 58, b'\\x85' + b'\\0' * 7)"), "router 192 0");
    // Somebody else's hardware address in the message is nobody's question.
    let forged = "(s.settimeout(0.5), v4(*all4, bootp(bytes.fromhex('52540000000b'), '0.0.0.0', discover)))[1]";
    assert_eq!(a.ask(forged), "nothing");

    // B is told nothing here: its question goes on, and nobody answers it.
    let mut b = lab.talk("b", CLIENT);
    assert_eq!(b.line(), "ready");
    let asks = "(s.settimeout(0.5), v4(*all4, bootp(me, '0.0.0.0', discover)))[1]";
    assert_eq!(b.ask(asks), "nothing");
    assert_eq!(wire.line(), "a question of 52540000000b", "of A there was none before");
    drop(answering);
    assert_eq!(
        a.ask("(s.settimeout(0.5), v4(*all4, bootp(me, '0.0.0.0', discover)))[1]"),
        "nothing"
    );
    // And nobody else's answer comes to A: neither from the wire nor from a neighbour.
    let answer = "import socket, struct\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))\n\
        me = s.getsockname()[4]; a = bytes.fromhex('52540000000a')\n\
        def send(source):\n    \
            h = struct.pack('!BBHHHBBH4s4s', 69, 0, 28 + 300, 1, 0, 64, 17, 0, socket.inet_aton(source), b'\\xff' * 4)\n    \
            c = sum(struct.unpack('!10H', h)); c = (c & 65535) + (c >> 16); c = ~(c + (c >> 16)) & 65535\n    \
            s.send(a + me + b'\\x08\\0' + h[:10] + struct.pack('!H', c) + h[12:] + struct.pack('!HHHH', 67, 68, 308, 0) + b'\\0' * 300)\n";
    let mut hears = lab.talk("a", CLIENT);
    assert_eq!(hears.line(), "ready");
    assert!(lab.says("wire", &format!("{answer}send('10.0.0.1')")));
    assert!(lab.says("b", &format!("{answer}send('10.0.0.11')")));
    assert_eq!(hears.ask("s.settimeout(0.5)"), "nothing");
}
