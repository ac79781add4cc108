//! Consoles of a guest that runs: its screen speaks RFB, its serial line asks who logs in, its port for
//! remote desktops is reached, and all end with it.

use std::{net::Ipv4Addr, process::Command};

use adapters_kvm::driver::KvmHost;
use commands::ports::{DriverFault, Pipe};
use domain::compute::server::{Order, console::ConsoleKind};
use futures::{SinkExt as _, StreamExt as _};
use uuid::Uuid;

use crate::host::{Guest, Host, PATIENCE};

/// What the guest does so that there is somebody at its serial line, who asks who logs in, and lets
/// anybody in.
const GETTY: &str = "printf '#!/bin/sh\\nexec /bin/sh\\n' >/run/login; chmod +x /run/login; \
    exec setsid getty -l /run/login 115200 ttyS0 </dev/null >/dev/null 2>&1";

async fn open(driver: &KvmHost, server: Uuid, kind: ConsoleKind) -> Pipe {
    driver.driver(1).console(Uuid::from_u128(1), server, kind, None).await.unwrap()
}

/// Reads so many bytes.
async fn exactly(pipe: &mut Pipe, left: &mut Vec<u8>, bytes: usize) -> Vec<u8> {
    let reading = async {
        while left.len() < bytes {
            left.extend(pipe.into.next().await.expect("it is open"));
        }
        left.drain(..bytes).collect()
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("it comes in time")
}

async fn until(pipe: &mut Pipe, wanted: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(wanted) {
            read.extend(pipe.into.next().await.expect("it is open"));
        }
    };
    let came = tokio::time::timeout(PATIENCE, reading).await;
    let text = String::from_utf8_lossy(&read).into_owned();
    assert!(came.is_ok(), "{wanted:?} does not come: {text:?}");
    text
}

async fn ends(pipe: &mut Pipe) {
    let ending = async { while pipe.into.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ending).await.expect("it ends in time");
}

/// The whole handshake of RFC 6143 §7.1 to §7.3, and a first picture.
async fn speaks_rfb(pipe: &mut Pipe, name: &str) {
    let mut left = Vec::new();
    assert_eq!(exactly(pipe, &mut left, 12).await, b"RFB 003.008\n");
    pipe.out.send(b"RFB 003.008\n".to_vec()).await.unwrap();
    let count = exactly(pipe, &mut left, 1).await[0];
    let kinds = exactly(pipe, &mut left, usize::from(count)).await;
    assert!(kinds.contains(&1), "nobody but us reaches it, and there is no password: {kinds:?}");
    pipe.out.send(vec![1]).await.unwrap();
    assert_eq!(exactly(pipe, &mut left, 4).await, [0; 4]);
    pipe.out.send(vec![1]).await.unwrap();
    let init = exactly(pipe, &mut left, 24).await;
    let (width, height) =
        (u16::from_be_bytes([init[0], init[1]]), u16::from_be_bytes([init[2], init[3]]));
    assert!(width >= 320 && height >= 200, "{width} × {height}");
    let length = u32::from_be_bytes([init[20], init[21], init[22], init[23]]) as usize;
    let named = exactly(pipe, &mut left, length).await;
    let named = String::from_utf8(named).unwrap();
    assert!(named.contains(name), "{named}");
    // A picture of a corner, raw: 4 × 4 points.
    pipe.out.send(vec![3, 0, 0, 0, 0, 0, 0, 4, 0, 4]).await.unwrap();
    let head = exactly(pipe, &mut left, 4).await;
    assert_eq!(head[0], 0, "FramebufferUpdate");
}

/// What reaches a guest's port: a process of its own, which a driver runs with port and addresses.
#[test]
fn who_reaches() {
    if std::env::var("SKYLEDGER_REACHES").is_err() {
        return;
    }
    let words: Vec<String> =
        std::env::args().skip_while(|one| one != "--nocapture").skip(1).collect();
    let guest: Vec<_> = words[1..].iter().map(|one| one.parse().unwrap()).collect();
    adapters_kvm::network::reach::carry(&guest, words[0].parse().unwrap()).unwrap();
    // What still reads does not keep it.
    std::process::exit(0);
}

/// Interfaces of the host whose names begin so, each with its state and hardware address.
fn interfaces(host: &Host, name: &str) -> Vec<String> {
    let net = format!("--net={}", host.folder().join("net").display());
    let listed = Command::new("nsenter").args([&net, "ip", "-br", "link"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let found = listed.lines().filter(|line| line.starts_with(name));
    found.map(str::to_owned).collect()
}

/// Those of remote desktops.
fn links(host: &Host) -> Vec<String> {
    interfaces(host, "skr")
}

/// Its port for remote desktops, over IPv4 by an address that was lent and over IPv6 by none; nothing of it
/// is left on the host.
async fn its_port_is_reached(host: &Host, driver: &KvmHost, guest: &Guest, server: Uuid) {
    let lent = Some(Ipv4Addr::new(10, 9, 0, 200));
    let desktop = async |call: u128, lent| {
        driver.driver(1).console(Uuid::from_u128(call), server, ConsoleKind::Rdp, lent).await
    };
    let why = match desktop(7, lent).await {
        Err(DriverFault::Rejected(why)) => why,
        other => panic!("nobody listens: {:?}", other.map(drop)),
    };
    for part in ["port 3389", "10.9.0.40", "fe80::", "security groups", "10.9.0.200"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    guest.begin("exec nc -ll -p 3389 -e cat").await;
    guest.becomes("netstat -ltn | grep -c :3389", "1").await;
    let bridge = interfaces(host, "lab");
    assert_eq!(bridge.len(), 1);
    let mut open = Vec::new();
    for (call, lent) in [(8, lent), (9, None)] {
        let mut pipe = desktop(call, lent).await.unwrap();
        let said = format!("bytes of call {call}");
        pipe.out.send(said.clone().into_bytes()).await.unwrap();
        until(&mut pipe, &said).await;
        open.push(pipe);
    }
    let from = guest.run("netstat -tn").await;
    assert!(from.contains("10.9.0.200:") && from.contains("ESTABLISHED"), "{from}");
    assert_eq!(links(host).len(), 2);
    // Everybody knows the bridge by its hardware address.
    assert_eq!(interfaces(host, "lab"), bridge);
    drop(open);
    let ends = tokio::time::Instant::now() + PATIENCE;
    while !links(host).is_empty() {
        assert!(tokio::time::Instant::now() < ends, "{:?}", links(host));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_looked_at_by_screen_and_serial_line_while_it_runs() {
    let Some(host) = Host::of_tests().await else { return };
    let driver = host.driver().await;
    let server = host.launch(40, "lab", "#!/bin/sh\n");
    let console = async |kind| driver.driver(1).console(Uuid::nil(), server.id, kind, None).await;
    for kind in [ConsoleKind::Rdp, ConsoleKind::Vnc, ConsoleKind::Serial] {
        assert!(matches!(console(kind).await, Err(DriverFault::NotFound(_))));
    }
    server.done(&driver, 1, Order::Launch {}).await;
    let mut serial = open(&driver, server.id, ConsoleKind::Serial).await;
    // It is there from the first line on.
    until(&mut serial, "GUEST IS UP").await;
    let mut screen = open(&driver, server.id, ConsoleKind::Vnc).await;
    speaks_rfb(&mut screen, &format!("sk-{}", server.id)).await;
    let guest = Guest::ready(&host, server.id).await;
    guest.begin(GETTY).await;
    until(&mut serial, "login:").await;
    serial.out.send(b"root\n".to_vec()).await.unwrap();
    until(&mut serial, "#").await;
    serial.out.send(b"echo $((6 * 7))-by-hand\n".to_vec()).await.unwrap();
    until(&mut serial, "42-by-hand").await;
    // Left, and entered again by somebody else.
    drop(serial);
    let mut serial = open(&driver, server.id, ConsoleKind::Serial).await;
    serial.out.send(b"echo $((6 * 8))-again\n".to_vec()).await.unwrap();
    until(&mut serial, "48-again").await;
    its_port_is_reached(&host, &driver, &guest, server.id).await;
    // Suspended, it still has a screen.
    server.done(&driver, 2, Order::Suspend {}).await;
    let mut second = open(&driver, server.id, ConsoleKind::Vnc).await;
    speaks_rfb(&mut second, "sk-").await;
    server.done(&driver, 3, Order::Resume {}).await;
    server.done(&driver, 4, Order::Stop {}).await;
    for pipe in [&mut screen, &mut second, &mut serial] {
        ends(pipe).await;
    }
    for kind in [ConsoleKind::Rdp, ConsoleKind::Vnc, ConsoleKind::Serial] {
        let Err(DriverFault::Rejected(why)) = console(kind).await else { panic!("it is stopped") };
        assert!(why.contains("does not run"), "{why}");
    }
    server.removed(&driver, 5).await;
    let left = std::fs::read_dir(host.data.path().join("consoles")).unwrap().count();
    assert_eq!(left, 0, "sockets of a server that is gone");
}
