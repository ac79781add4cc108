//! Virtual functions whose other end the host has, on Open vSwitch. There is no such card here: one end of a pair
//! of interfaces is the representor, and the other, in a namespace of its own, is what a server would have.
//! What is said to a card is not tried, nor what a card does by itself.

use std::{path::Path, process::Command};

use adapters_kvm::driver::{Census, Side, Step};
use domain::compute::server::Order;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::host::{End, Host, Launch, PATIENCE};

const GROUP: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0a02);
const SEGMENT: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0a03);
/// Says something to who connects on two ports, over both families.
const SERVE: &str = "
import socket, threading
def serve(port):
    s = socket.create_server((\"::\", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        c, _ = s.accept()
        c.sendall(b\"here\\n\"); c.close()
for port in (80, 81): threading.Thread(target=serve, args=(port,)).start()
";
/// Sums are made by who sends, for there is no card that would.
const SUMS: &str = "
import array, fcntl, socket, struct
for of in (0x17, 0x1f, 0x24):
    ask = array.array(\"B\", struct.pack(\"II\", of, 0))
    try: fcntl.ioctl(socket.socket(), 0x8946, struct.pack(\"16sP\", b\"eth0\", ask.buffer_info()[0]))
    except OSError: pass
";

/// What stands for a server with a function: its namespace, and the host's end.
struct Function {
    host: String,
    name: String,
    representor: String,
    mac: String,
}

impl Function {
    fn new(host: &Host, number: u8) -> Self {
        let (name, representor) =
            (format!("sk-test-vf{number}-{}", std::process::id()), format!("sk-test-rep{number}"));
        let mac = format!("52:54:00:00:01:{number:02x}");
        let inside = format!("ip -n {name}");
        let made = host.inside(&format!(
            "ip netns add {name} && \
             ip link add {representor} type veth peer name eth0 netns {name} address {mac} && \
             {inside} link set lo up && {inside} addr add 10.9.0.{number}/24 dev eth0 && \
             {inside} addr add 2001:db8:9::{number:x}/64 dev eth0 nodad && \
             {inside} link set eth0 mtu 1400 up && \
             ip netns exec {name} python3 -c '{SUMS}'"
        ));
        assert!(made, "{name}");
        let function = Self { host: host.net(), name, representor, mac };
        let serve = ["netns", "exec", &function.name, "python3", "-c", SERVE];
        // It ends with its namespace, see below.
        drop(Command::new("ip").args(serve).spawn().unwrap());
        function
    }

    fn inside(&self, host: &Host, script: &str) -> bool {
        host.inside(&format!("ip netns exec {} {script}", self.name))
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let clear = format!(
            "ip netns pids {} | xargs -r kill; ip netns del {}; ip link del {}",
            self.name, self.name, self.representor
        );
        let net = format!("--net={}", self.host);
        drop(Command::new("nsenter").args([&net, "sh", "-c", &clear]).output());
    }
}

/// The files of a kernel that has a card in `switchdev` mode with these functions' other ends.
fn kernel(functions: &[&Function]) -> TempDir {
    let kernel = tempfile::tempdir().unwrap();
    let root = kernel.path();
    let file = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let link = |path: &str, to: &str| {
        std::fs::create_dir_all(root.join(to)).unwrap();
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(Path::new(root).join(to), path).unwrap();
    };
    let pci = |address: &str| {
        let at = format!("sys/bus/pci/devices/{address}");
        for (name, text) in [("class", "0x020000"), ("vendor", "0x15b3"), ("device", "0x101d")] {
            file(&format!("{at}/{name}"), text);
        }
        at
    };
    let port = |name: &str, port: &str| {
        file(&format!("sys/class/net/{name}/phys_switch_id"), "0c42a1000301");
        file(&format!("sys/class/net/{name}/phys_port_name"), port);
    };
    let card = pci("0000:03:00.0");
    file(&format!("{card}/sriov_totalvfs"), "8");
    file(&format!("{card}/sriov_numvfs"), &functions.len().to_string());
    port("sk-test-pf", "p0");
    link(&format!("{card}/net/sk-test-pf"), "sys/class/net/sk-test-pf");
    for (number, function) in functions.iter().enumerate() {
        let of = pci(&format!("0000:03:01.{number}"));
        link(&format!("{of}/physfn"), &card);
        link(&format!("{card}/virtfn{number}"), &of);
        port(&function.representor, &format!("pf0vf{number}"));
    }
    kernel
}

/// A server whose interface is this function, in VLAN 7; guarded when a port is named that may be reached.
fn direct(server: Launch, at: usize, function: &Function, port: Option<&str>) -> Launch {
    let device = format!("0000:03:01.{at}");
    server.with(|home| {
        let nic = &mut home["parts"]["nics"][0];
        nic["vnic_type"] = json!("direct");
        nic["segment"] = json!(SEGMENT);
        nic["bridge"] = json!("switch");
        nic["medium"] = json!({"ovs": {"vlan": 7}});
        assert_eq!(nic["mac"], json!(function.mac));
        if let Some(port) = port {
            nic["security_groups"] = json!([GROUP]);
            let rule = |direction: &str, protocol: &str, ports: Value, peer: &str| {
                let mut rule =
                    json!({"direction": direction, "protocol": protocol, "peer": {"cidr": peer}});
                if !ports.is_null() {
                    rule["ports"] = ports;
                }
                rule
            };
            home["parts"]["groups"] = json!({GROUP.to_string(): [
                rule("ingress", "tcp", json!(port), "10.9.0.0/24"),
                rule("ingress", "tcp", json!(port), "2001:db8:9::/64"),
                rule("egress", "tcp", json!("1-65535"), "10.9.0.0/24"),
            ]});
        }
        let holding = &mut home["placement"]["holding"];
        holding["devices"] = json!([device]);
        holding["functions"] = json!({device: {"mac": function.mac, "vlan": 7}});
    })
}

/// What is asked again until it is so: nothing tells when the switch has forgotten what was before.
fn becomes(what: &str, is: impl Fn() -> bool) {
    let ends = std::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(std::time::Instant::now() < ends, "{what}");
    }
}

impl Host {
    fn flows(&self, command: &str) -> String {
        let bridges = self.switch("list-br");
        let ours = bridges.lines().find(|name| name.starts_with("sf")).unwrap().to_owned();
        let folder = std::fs::canonicalize(self.folder().join("switch.sock")).unwrap();
        let at = format!("unix:{}", folder.with_file_name(format!("{ours}.mgmt")).display());
        let said = Command::new("ovs-ofctl").args([command, &at]).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

#[tokio::test]
async fn functions_are_guarded_by_their_other_ends_and_leave_nothing() {
    let Some(mut host) = Host::of_tests().await else { return };
    if !host.has_switch() {
        return;
    }
    let (one, two) = (Function::new(&host, 61), Function::new(&host, 62));
    let kernel = kernel(&[&one, &two]);
    host.kernel = Some(kernel.path().to_owned());
    let before = (host.switch("list-br"), host.switch("list-ports switch"));
    let guarded = direct(host.launch(61, "unused", "#!/bin/sh\n"), 0, &one, Some("80"));
    let open = direct(host.launch(62, "unused", "#!/bin/sh\n"), 1, &two, None);
    // What follows is said to the card, and there is none. Its other end is there and guarded by then.
    for server in [&guarded, &open] {
        let task = server.order(1, &Order::Launch {});
        host.cut(End::Fails, (Step::Devices, Side::Before), &task).await;
    }
    let driver = host.driver().await;
    let census = driver.census().await.unwrap();
    assert_eq!(census.switches.len(), 1, "{census:?}");

    // By the operator's bridge, in its VLAN alone.
    let reached = |number: u8, port: u16| {
        let v6 = format!("2001:db8:9::{number:x}");
        (host.reaches(&format!("10.9.0.{number}"), port), host.reaches(&v6, port))
    };
    host.neighbour(7);
    becomes("it is reached", || reached(61, 80) == (true, true));
    assert_eq!(reached(61, 81), (false, false), "no rule lets it in");
    assert_eq!(reached(62, 81), (true, true), "that one has no groups");
    host.neighbour(8);
    assert_eq!((reached(61, 80), reached(62, 80)), ((false, false), (false, false)));
    host.neighbour(7);
    becomes("it is reached again", || reached(61, 80) == (true, true));

    // Among themselves, without the operator's bridge: what one is not let do, and the other.
    let connects = |from: &Function, to: &str| {
        from.inside(&host, &format!("timeout 3 bash -c 'read -t 3 name </dev/tcp/{to}'"))
    };
    assert!(connects(&two, "10.9.0.61/80") && connects(&two, "2001:db8:9::3d/80"));
    assert!(!connects(&two, "10.9.0.61/81"));
    assert!(connects(&one, "10.9.0.62/81"), "replies to what it may send come in");
    assert!(!connects(&one, "2001:db8:9::3e/81"), "it may send nothing by IPv6");

    // What is not its own it cannot send.
    assert!(two.inside(&host, "ip addr add 10.9.0.63/24 dev eth0"));
    assert!(!host.reaches("10.9.0.63", 80) && host.reaches("10.9.0.62", 80));
    assert!(two.inside(&host, "ip link set eth0 address 52:54:00:00:01:99"));
    assert!(!host.reaches("10.9.0.62", 80));
    assert!(two.inside(&host, &format!("ip link set eth0 address {}", two.mac)));
    becomes("with its own it is", || host.reaches("10.9.0.62", 80));

    // Open vSwitch forgets its flows when it is started again, and gets them again.
    host.flows("del-flows");
    assert!(!host.reaches("10.9.0.62", 80), "without flows nothing passes");
    let ends = tokio::time::Instant::now() + PATIENCE;
    while !host.reaches("10.9.0.62", 80) {
        assert!(tokio::time::Instant::now() < ends, "its flows are not there again");
        tokio::task::yield_now().await;
    }

    // One goes, and the other stays as it was; an agent that ends in between is no matter.
    guarded.removed(&driver, 2).await;
    assert!(host.reaches("10.9.0.62", 80) && !host.reaches("10.9.0.61", 80));
    drop(driver);
    for (number, side) in [(2, Side::Before), (3, Side::After)] {
        let remove = open.order(number, &Order::Remove {});
        host.cut(End::Dies, (Step::Unplug, side), &remove).await;
    }
    let driver = host.driver().await;
    open.removed(&driver, 4).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
    host.switch("--if-exists del-port sk-test-peer");
    assert_eq!((host.switch("list-br"), host.switch("list-ports switch")), before);
}

#[tokio::test]
async fn groups_of_a_function_that_the_card_alone_says_of_are_not_promised() {
    let Some(mut host) = Host::of_tests().await else { return };
    let function = Function::new(&host, 64);
    let kernel = kernel(&[&function]);
    // Its card is not in that mode any more.
    std::fs::remove_file(kernel.path().join("sys/class/net/sk-test-pf/phys_switch_id")).unwrap();
    host.kernel = Some(kernel.path().to_owned());
    let driver = host.driver().await;
    let server = direct(host.launch(64, "unused", "#!/bin/sh\n"), 0, &function, Some("80"));
    let said = driver.carry_out(&server.order(1, &Order::Launch {})).await.unwrap_err();
    assert!(said.to_string().contains("switchdev"), "{said}");
    server.removed(&driver, 2).await;
    assert_eq!(driver.census().await.unwrap(), Census::default());
}
