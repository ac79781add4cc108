//! A bridge `br0` in a namespace that stands for a host, and servers behind it.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use adapters_kvm::network::Place;

static LABS: AtomicU32 = AtomicU32::new(0);

/// Removed when it is dropped, with everything in it.
pub(crate) struct Lab {
    pub(crate) host: String,
    servers: Vec<String>,
}

/// Whether the tests of this file can run; says so when they cannot.
pub(crate) fn possible(test: &str) -> bool {
    let works = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    let name = format!("sl-try-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
    let namespaces = works("ip", &["netns", "add", &name]);
    let possible = namespaces && works("ip", &["netns", "exec", &name, "nft", "list", "tables"]);
    if namespaces {
        works("ip", &["netns", "del", &name]);
    }
    if !possible {
        eprintln!("LEFT OUT: {test}: it needs root, iproute2 and nftables");
    }
    possible
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

impl Lab {
    pub(crate) fn new() -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let host = format!("sl{}-{number}", std::process::id());
        run("ip", &["netns", "add", &host]);
        let lab = Self { host, servers: Vec::new() };
        lab.ip(&["link", "set", "lo", "up"]);
        lab.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        lab.ip(&["link", "set", "br0", "up"]);
        lab
    }

    pub(crate) fn place(&self) -> Place {
        Place::namespace(&self.host)
    }

    /// `ip` on the host.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        run("ip", &[&["-n", &self.host], arguments].concat());
    }

    /// A server with a port of the bridge, a hardware address and addresses.
    pub(crate) fn server(&mut self, tap: &str, mac: &str, addresses: &[&str]) {
        let name = format!("{}-{tap}", self.host);
        run("ip", &["netns", "add", &name]);
        self.servers.push(name.clone());
        let peer = ["peer", "name", "eth0", "netns", &name, "address", mac];
        self.ip(&[&["link", "add", "name", tap, "type", "veth"], &peer[..]].concat());
        self.ip(&["link", "set", "dev", tap, "master", "br0", "up"]);
        let inside = |arguments: &[&str]| run("ip", &[&["-n", &name], arguments].concat());
        inside(&["link", "set", "lo", "up"]);
        for address in addresses {
            let family = if address.contains(':') { &["nodad"][..] } else { &[] };
            inside(&[&["addr", "add", address, "dev", "eth0"], family].concat());
        }
        inside(&["link", "set", "eth0", "up"]);
    }

    /// `ip` in a server.
    pub(crate) fn inside(&self, tap: &str, arguments: &[&str]) {
        run("ip", &[&["-n", &format!("{}-{tap}", self.host)], arguments].concat());
    }

    /// Nobody speaks IPv6, nor asks for neighbours or groups by it.
    pub(crate) fn without_ipv6(&self) {
        for name in self.servers.iter().chain([&self.host]) {
            let off = ["sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1"];
            run("ip", &[&["netns", "exec", name], &off[..]].concat());
        }
    }

    /// Runs a script in a server: whether it ended well.
    pub(crate) fn says(&self, tap: &str, script: &str) -> bool {
        let name = format!("{}-{tap}", self.host);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, "python3", "-c", script]);
        command.output().unwrap().status.success()
    }

    /// A program in a server that is talked to by lines.
    pub(crate) fn talk(&self, tap: &str, script: &str) -> Talk {
        let name = format!("{}-{tap}", self.host);
        let mut child = Command::new("ip")
            .args(["netns", "exec", &name, "python3", "-u", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Talk { child, stdin, stdout }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.servers.iter().chain([&self.host]) {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

pub(crate) struct Talk {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Talk {
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").unwrap();
        self.line()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
