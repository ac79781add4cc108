//! The agent of a host as a process of its own, with a host in memory that is kept on a file: killed,
//! and its server killed, at many moments. What the host has is what the log says, and nothing was
//! done twice.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::Engine as _;
use serde_json::Value;

use super::{
    Ran, program, says,
    server::{Lines, Server, Store},
};

/// What is awaited takes a few seconds.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks where another program tells of nothing.
const LOOK: Duration = Duration::from_millis(50);

/// An address that stays while the server behind it changes.
struct Address {
    url: String,
    behind: Arc<Mutex<String>>,
}

impl Address {
    fn of(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let behind = Arc::new(Mutex::new(server.url.clone()));
        let target = behind.clone();
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let url = target.lock().unwrap().clone();
                let Ok(to) = TcpStream::connect(url.trim_start_matches("http://")) else {
                    continue;
                };
                for (one, other) in [(&from, &to), (&to, &from)] {
                    let (one, other) = (one.try_clone().unwrap(), other.try_clone().unwrap());
                    std::thread::spawn(move || pass_on(one, other));
                }
            }
        });
        Self { url, behind }
    }

    fn lead_to(&self, server: &Server) {
        self.behind.lock().unwrap().clone_from(&server.url);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 1 << 14];
    loop {
        match from.read(&mut piece) {
            Ok(length) if length > 0 && to.write_all(&piece[..length]).is_ok() => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// An agent, killed when the test ends.
pub(crate) struct Agent {
    child: Child,
    lines: Lines,
}

impl Agent {
    pub(crate) fn start(folder: &Path, address: &str, more: &[&str]) -> Self {
        let data = folder.join("agent");
        let data = ["--data", data.to_str().unwrap()];
        let simulated = ["--simulated", "--simulated-pause-ms", "300"];
        Self::start_on(folder, address, &[&data[..], &simulated[..], more].concat())
    }

    fn start_on(folder: &Path, address: &str, more: &[&str]) -> Self {
        let mut child = program()
            .args(["agent", "--log-format", "json", "--server", address, "--token-file"])
            .arg(folder.join("agent-token"))
            .args(more)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let path = folder.join("agent-log");
        let log = std::fs::File::options().create(true).append(true).open(path).unwrap();
        let lines = Lines::of(child.stderr.take().unwrap(), log);
        Self { child, lines }
    }

    pub(crate) fn works(self) -> Self {
        assert!(self.lines.next_with("the agent works").is_some(), "it has ended");
        self
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn ended(&mut self) -> Ran {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let err = std::iter::from_fn(|| self.lines.next_with("")).collect::<Vec<_>>().join("\n");
        Ran { code, out: String::new(), err }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn enrol(server: &Server, folder: &Path) {
    let enrolled = server.run(&["create", "host", "--set", "name=kvm-1"]);
    assert_eq!(enrolled.code, 0, "{}", enrolled.err);
    let token = server.json(&["token", "create", "kvm-1", "--host", "kvm-1"]);
    let secret = token["secret"].as_str().unwrap();
    std::fs::write(folder.join("agent-token"), format!("{secret}\n")).unwrap();
}

pub(crate) fn ready(server: &Server) {
    let until = Instant::now() + PATIENCE;
    while server.json(&["get", "host", "kvm-1"])["status"] != "ready" {
        assert!(Instant::now() < until, "the agent has not said what the host is");
        std::thread::sleep(LOOK);
    }
}

/// Asks until a server has a status and nothing is ordered of it.
pub(crate) fn awaited(server: &Server, name: &str, status: &str) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let row = server.json(&["get", "server", name, "--show-gone"]);
        let row = if row.is_array() { row[0].clone() } else { row };
        if row["status"] == status && row["order"].is_null() {
            return row;
        }
        assert!(Instant::now() < until, "{name} is not {status}: {row}");
        std::thread::sleep(LOOK);
    }
}

/// What the simulated host really has.
fn census(folder: &Path) -> Vec<Value> {
    let file: PathBuf = folder.join("agent/simulated.json");
    let world: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let hosts = world["hosts"].as_object().unwrap();
    hosts.values().flat_map(|servers| servers.as_object().unwrap().values().cloned()).collect()
}

pub(crate) fn launch(server: &Server, name: &str) {
    let set = format!("name={name}");
    let words = ["create", "server", "--set", &set, "--set", "spec.vcpus=1"];
    let more = ["--set", "spec.memory_mib=64", "--set", "disks=[{\"size_gib\":1}]"];
    let ran = server.run(&[&words[..], &more[..]].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
}

pub(crate) fn order(server: &Server, verb: &str, name: &str) {
    let ran = server.run(&["do", "server", verb, name]);
    assert_eq!(ran.code, 0, "{verb}: {}{}", ran.out, ran.err);
}

#[test]
fn a_server_launched_through_the_command_line_runs_and_its_agent_ends_in_peace() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    enrol(&server, folder.path());
    let mut agent = Agent::start(folder.path(), &server.url, &["--host", "kvm-1"]).works();
    // The agent says what the host is before it is given anything.
    ready(&server);
    launch(&server, "web");
    awaited(&server, "web", "running");
    assert_eq!(census(folder.path()).len(), 1);
    // It finishes what it has begun, and its server hears of it.
    assert!(agent.lines.next_with("an order is done").is_some());
    order(&server, "stop", "web");
    let pid = agent.child.id().to_string();
    assert!(agent.lines.next_with("an order is begun").is_some());
    let term = std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(term.success());
    assert_eq!(agent.ended().code, 0);
    awaited(&server, "web", "stopped");
    // Its token opens nothing else, and no other host.
    let secret = std::fs::read_to_string(folder.path().join("agent-token")).unwrap();
    let other = server.run_with(&["get", "servers"], &[("SKYLEDGER_TOKEN", secret.trim())]);
    assert_eq!(other.code, 3);
    says(&other.err, &["role-too-low", "works for a host"]);
    let mut wrong = Agent::start(folder.path(), &server.url, &["--host", "kvm-2"]);
    let ended = wrong.ended();
    assert_eq!(ended.code, 2, "{}", ended.err);
    says(&ended.err, &["this token works for host kvm-1, not for kvm-2"]);
}

#[test]
fn kills_of_the_agent_and_of_the_server_at_many_moments_lose_and_repeat_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &Store::Embedded);
    let token = server.token.clone();
    let address = Address::of(&server);
    enrol(&server, folder.path());
    let mut agent = Agent::start(folder.path(), &address.url, &[]).works();
    ready(&server);
    // A launch takes three pauses of 300 ms, a restart two: moments before, within and after.
    let moments = [0, 150, 450, 750, 1_100].map(Duration::from_millis);
    for (at, moment) in moments.into_iter().enumerate() {
        let name = format!("s{at}");
        launch(&server, &name);
        std::thread::sleep(moment);
        if at % 2 == 0 {
            agent.kill();
            agent = Agent::start(folder.path(), &address.url, &[]).works();
        } else {
            drop(server);
            server = Server::listening(folder.path(), &Store::Embedded, &[]);
            server.token.clone_from(&token);
            address.lead_to(&server);
        }
        awaited(&server, &name, "running");
        order(&server, "reboot", &name);
        std::thread::sleep(moment / 2);
        if at % 2 == 0 {
            drop(server);
            server = Server::listening(folder.path(), &Store::Embedded, &[]);
            server.token.clone_from(&token);
            address.lead_to(&server);
        } else {
            agent.kill();
            agent = Agent::start(folder.path(), &address.url, &[]).works();
        }
        awaited(&server, &name, "running");
    }
    let real = census(folder.path());
    assert_eq!(real.len(), moments.len());
    for one in &real {
        assert_eq!(
            (&one["running"], &one["boots"]),
            (&Value::from(true), &Value::from(2)),
            "{one}"
        );
    }
    let events = server.json(&["events", "--kind", "server", "--type", "parked"]);
    assert_eq!(events.as_array().map(Vec::len), Some(0), "{events}");
}

#[test]
fn a_server_that_is_a_host_itself_runs_servers_there() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--local-host", "here", "--simulated"];
    let server = Server::start_with(folder.path(), &Store::Embedded, &more);
    let until = Instant::now() + PATIENCE;
    while server.json(&["get", "host", "here"])["status"] != "ready" {
        assert!(Instant::now() < until);
        std::thread::sleep(LOOK);
    }
    launch(&server, "web");
    awaited(&server, "web", "running");
    assert_eq!(server.stop(), 0);
    // It is the same host the next time, with what it had.
    let mut server = Server::listening(folder.path(), &Store::Embedded, &more);
    server.token = std::fs::read_to_string(folder.path().join("token")).unwrap().trim().to_owned();
    order(&server, "stop", "web");
    awaited(&server, "web", "stopped");
    let hosts = server.json(&["get", "hosts"]);
    assert_eq!(hosts.as_array().map(Vec::len), Some(1), "{hosts}");
    assert_eq!(hosts[0]["state"]["epoch"], 2);
}

/// Guests of a host whose files lie in this folder.
fn guests(folder: &Path) -> usize {
    let (folder, qemu) = (folder.to_str().unwrap().to_owned(), "qemu-system");
    let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let lines = processes.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.filter(|line| line.contains(qemu) && line.contains(&folder)).count()
}

#[test]
fn a_machine_is_looked_at_without_a_server_and_what_it_misses_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (data, socket) = (folder.path().join("data"), folder.path().join("no-socket"));
    let (data, socket) = (data.to_str().unwrap(), socket.to_str().unwrap());
    let looked = super::run(&["agent", "--check", "--data", data, "--libvirt", socket]);
    assert_eq!(looked.code, 1, "{}{}", looked.out, looked.err);
    says(&looked.out, &["good     ip", "missing  libvirt", "no-socket", "start libvirtd"]);
    assert!(!Path::new(data).exists(), "nothing is made by a look");
    assert_eq!(super::run(&["agent", "--check", "--simulated"]).code, 2);
}

/// What a shell script says inside a guest, through its guest agent, once that is there.
fn inside(uri: &str, domain: &str, script: &str) -> String {
    let ask = |command: Value| -> Option<Value> {
        let words = ["60", "virsh", "-q", "-c", uri, "qemu-agent-command", domain];
        let said =
            std::process::Command::new("timeout").args(words).arg(command.to_string()).output();
        serde_json::from_slice::<Value>(&said.unwrap().stdout)
            .ok()
            .map(|said| said["return"].clone())
    };
    let until = Instant::now() + PATIENCE;
    let again = |what: &str| {
        assert!(Instant::now() < until, "{what} in {domain}");
        std::thread::sleep(LOOK);
    };
    let arguments =
        serde_json::json!({"path": "/bin/sh", "arg": ["-c", script], "capture-output": true});
    let pid = loop {
        match ask(serde_json::json!({"execute": "guest-exec", "arguments": arguments})) {
            Some(begun) => break begun["pid"].clone(),
            None => again("no agent answers"),
        }
    };
    loop {
        let pid = serde_json::json!({"pid": pid});
        match ask(serde_json::json!({"execute": "guest-exec-status", "arguments": pid})) {
            Some(said) if said["exited"] == true => {
                let said = said["out-data"].as_str().unwrap_or_default();
                let said = base64::engine::general_purpose::STANDARD.decode(said).unwrap();
                return String::from_utf8(said).unwrap();
            }
            _ => again("a script does not end"),
        }
    }
}

/// The whole way, on a real libvirt with QEMU, to a guest that has done what its userdata says, once: the agent is
/// killed in the middle of a launch and of a removal.
#[test]
fn an_agent_runs_a_server_on_a_real_libvirt() {
    let lab = std::env::var("SKYLEDGER_TEST_KVM");
    let lab = lab.unwrap_or_else(|_| "left out: this run of ./test starts none".to_owned());
    if let Some(why) = lab.strip_prefix("left out: ") {
        // Past what catches the output of tests that pass.
        writeln!(std::io::stderr(), "LEFT OUT, there is no QEMU here: {why}").unwrap();
        return;
    }
    let lab = PathBuf::from(lab);
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in(lab.join("disks")));
    let data = data.unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    enrol(&server, folder.path());
    let socket = lab.join("socket");
    let real = ["--data", data.path().to_str().unwrap(), "--libvirt", socket.to_str().unwrap()];
    let begin = || Agent::start_on(folder.path(), &server.url, &real).works();
    let mut agent = begin();
    ready(&server);

    let image = lab.join("image");
    let sum = std::process::Command::new("sha256sum").arg(&image).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
    let uploads = data.path().join("uploads");
    std::fs::copy(&image, uploads.join(&sum)).unwrap();
    let size_mib = std::fs::metadata(&image).unwrap().len().div_ceil(1 << 20);
    let file = folder.path().join("image.json");
    let body = serde_json::json!({
        "name": "tiny", "source": "upload", "sha256": sum, "format": "raw", "size_mib": size_mib,
        "architecture": "x86_64", "os": "linux", "firmware": "bios", "min_disk_gib": 1,
    });
    std::fs::write(&file, body.to_string()).unwrap();
    let created = server.json(&["create", "image", "-f", file.to_str().unwrap()]);
    let file = folder.path().join("server.json");
    let body = serde_json::json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 128}, "image": created["id"],
        "disks": [{"size_gib": 1}], "userdata": "#!/bin/sh\necho reached >/run/marker\n",
    });
    std::fs::write(&file, body.to_string()).unwrap();
    let id = server.json(&["create", "server", "-f", file.to_str().unwrap()])["id"].clone();
    let id = id.as_str().unwrap();
    assert!(agent.lines.next_with("an order is begun").is_some());
    agent.kill();
    agent = begin();
    awaited(&server, "web", "running");
    assert_eq!(guests(data.path()), 1);
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let domain = format!("sk-{id}");
    // Its agent answers before it has done what its seed says.
    let marker = "for try in $(seq 600); do [ -e /run/seeded ] && break; sleep 0.1; done; \
                  cat /run/seeded /run/marker";
    assert_eq!(inside(&uri, &domain, marker), format!("{id}\nreached\n"));
    // It loses its power from outside: nobody ordered that, and it is told.
    let virsh = ["60", "virsh", "-q", "-c", &uri, "destroy", &domain];
    assert!(std::process::Command::new("timeout").args(virsh).status().unwrap().success());
    awaited(&server, "web", "stopped");
    order(&server, "start", "web");
    awaited(&server, "web", "running");
    assert_eq!(inside(&uri, &domain, marker), format!("{id}\n"), "its userdata runs once");
    order(&server, "stop", "web");
    awaited(&server, "web", "stopped");
    assert_eq!(guests(data.path()), 0);
    order(&server, "delete", "web");
    order(&server, "purge", "web");
    assert!(agent.lines.next_with("an order is begun").is_some(), "the launch's");
    assert!(agent.lines.next_with("an order is begun").is_some(), "the start's");
    assert!(agent.lines.next_with("an order is begun").is_some(), "the stop's");
    assert!(agent.lines.next_with("an order is begun").is_some(), "the removal's");
    agent.kill();
    let _agent = begin();
    awaited(&server, id, "gone");
    let disks = std::fs::read_dir(data.path().join("disks")).map_or(0, Iterator::count);
    assert_eq!((guests(data.path()), disks), (0, 0));
}
