//! Consoles over real connections: a terminal, a viewer, what is refused, and what ends them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use super::{
    agent::{Agent, awaited, enrol, launch, order, ready},
    says,
    server::{Server, Store, exchange},
};

/// What is awaited takes a few seconds.
const PATIENCE: Duration = Duration::from_mins(2);

/// `skyledger console`, on pipes.
struct Console {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Console {
    fn open(server: &Server, words: &[&str]) -> Self {
        let mut command = server.client(&[&["console"], words].concat());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    fn types(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    fn reads(&mut self, wanted: &str) {
        until(&mut self.stdout, wanted.as_bytes());
    }

    /// Its exit code, and what it said to people.
    fn ended(mut self) -> (i32, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), said)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(from: &mut impl Read, wanted: &[u8]) -> Vec<u8> {
    let (mut read, mut piece) = (Vec::new(), [0; 1 << 12]);
    while !read.windows(wanted.len()).any(|part| part == wanted) {
        let length = from.read(&mut piece).unwrap();
        assert!(
            length > 0,
            "it ends before {wanted:?} comes: {:?}",
            String::from_utf8_lossy(&read)
        );
        read.extend_from_slice(&piece[..length]);
    }
    read
}

fn asks(path: &str, protocols: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: {protocols}\r\n\r\n"
    )
}

fn status(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    String::from_utf8_lossy(&until(&mut stream, b"\r\n\r\n")).into_owned()
}

#[test]
fn a_serial_line_is_in_the_terminal_until_something_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &Store::Embedded);
    enrol(&server, folder.path());
    let agent = Agent::start(folder.path(), &server.url, &[]).works();
    ready(&server);
    launch(&server, "web");
    let id = awaited(&server, "web", "running")["id"].as_str().unwrap().to_owned();

    // Left with the key that leaves; what comes behind it is typed nowhere.
    let mut console = Console::open(&server, &["web"]);
    console.reads("simulated login: ");
    console.types("root\r");
    console.reads("root\r");
    let again = server.run(&["console", "web"]);
    assert_eq!(again.code, 5, "one at a time: {}", again.err);
    says(&again.err, &["console-in-use"]);
    console.types("bye");
    console.reads("bye");
    console.types("\u{1d}not this");
    let (code, said) = console.ended();
    assert_eq!(code, 0, "{said}");
    says(&said, &["connected to web; Ctrl-] leaves", "left"]);

    // Its server stops.
    let mut console = Console::open(&server, &["web"]);
    console.reads("login: ");
    order(&server, "stop", "web");
    let (code, said) = console.ended();
    assert_eq!(code, 0, "{said}");
    says(&said, &["closed: server-stopped"]);
    awaited(&server, "web", "stopped");
    let stopped = server.run(&["console", "web"]);
    assert_eq!(stopped.code, 5);
    says(&stopped.err, &["wrong-state", "stopped"]);
    order(&server, "start", "web");
    awaited(&server, "web", "running");

    // The token that opened it is revoked.
    let token = server.json(&["token", "create", "guest", "--role", "operator"]);
    let secret = token["secret"].as_str().unwrap().to_owned();
    let mut command = server.client(&["console", "web"]);
    let command = command.env("SKYLEDGER_TOKEN", secret).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
    let mut console = Console { child, stdin, stdout };
    console.reads("login: ");
    let revoked = server.run(&["token", "revoke", "guest"]);
    assert_eq!(revoked.code, 0, "{}", revoked.err);
    says(&console.ended().1, &["closed: no-right"]);

    // The server process stops, and says so before it ends.
    let mut console = Console::open(&server, &["web"]);
    console.reads("login: ");
    let closed = server.json(&["events", "--type", "console-closed"]);
    let whys: Vec<_> =
        closed.as_array().unwrap().iter().map(|one| one["data"]["why"].clone()).collect();
    assert_eq!(whys.len(), 3, "{closed}");
    for why in ["caller-left", "server-stopped", "no-right"] {
        assert!(whys.contains(&why.into()), "{why}: {closed}");
    }
    drop(agent);
    says(&console.ended().1, &["closed: host-closed"]);

    // Nothing of a ticket is in any line that was logged, and what cannot be opened is told apart from
    // what is broken.
    let _agent = Agent::start(folder.path(), &server.url, &[]).works();
    let address = server.url.strip_prefix("http://").unwrap();
    let path = format!("/v1/servers/{id}/console");
    let plain = format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n");
    says(&exchange(address, &plain), &["426", "upgrade-needed"]);
    says(&status(address, &asks(&path, "skyledger.console")), &["403"]);
    let ticket = server.json(&["do", "server", "open-console", "web", "--set", "console=serial"]);
    let ticket = ticket["secret"].as_str().unwrap().to_owned();
    let both = format!("skyledger.console, skyledger.ticket.{ticket}");
    let other = "/v1/servers/01990000-0000-7000-8000-000000000001/console";
    says(&status(address, &asks(other, &both)), &["403"]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(asks(&path, &both).as_bytes()).unwrap();
    let answer = until(&mut stream, b"login: ");
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    // The answer to the key that RFC 6455 §1.3 has as an example.
    says(
        &answer,
        &["101", "s3pplmbitxaq9kygzzhzrbk+xoo=", "sec-websocket-protocol: skyledger.console"],
    );
    says(&status(address, &asks(&path, &both)), &["403"]);
    drop(stream);
    assert_eq!(server.stop(), 0);
    for file in ["log", "agent-log"] {
        let log = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(log.contains("a console is"), "{log}");
        assert!(!log.contains(&ticket), "{file} has the ticket");
    }
}

#[test]
fn a_viewer_on_this_machine_gets_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--local-host", "here", "--simulated"];
    let server = Server::start_with(folder.path(), &Store::Embedded, &more);
    let until_ready = std::time::Instant::now() + PATIENCE;
    while server.json(&["get", "host", "here"])["status"] != "ready" {
        assert!(std::time::Instant::now() < until_ready);
        std::thread::sleep(Duration::from_millis(50));
    }
    launch(&server, "web");
    awaited(&server, "web", "running");
    // A browser is told where, with a ticket that it sends to nobody.
    let mut command = server.client(&["console", "web", "--vnc", "--open"]);
    let said = command.env("PATH", "").output().unwrap();
    assert!(said.status.success());
    says(&String::from_utf8_lossy(&said.stderr), &["open it in a browser within a minute"]);
    let said = String::from_utf8(said.stdout).unwrap();
    let (page, behind) = said.trim().split_once('#').unwrap();
    assert_eq!(page, format!("{}/console", server.url));
    says(behind, &["&console=vnc&name=web&ticket="]);
    let ticket = behind.split("ticket=").nth(1).unwrap();
    let address = server.url.strip_prefix("http://").unwrap();
    let id = server.json(&["get", "server", "web"])["id"].as_str().unwrap().to_owned();
    let request = asks(
        &format!("/v1/servers/{id}/console"),
        &format!("skyledger.console, skyledger.ticket.{ticket}"),
    );
    says(&status(address, &request), &["101"]);
    let mut console = Console::open(&server, &["web", "--vnc", "--listen", "127.0.0.1:0"]);
    let mut said = BufReader::new(console.child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address =
        line.split("connects to ").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    // One viewer after the other, each with a ticket of its own.
    for _ in 0..2 {
        let mut viewer = TcpStream::connect(address).unwrap();
        viewer.set_read_timeout(Some(PATIENCE)).unwrap();
        until(&mut viewer, b"RFB 003.008\n");
        viewer.write_all(b"RFB 003.008\n").unwrap();
        until(&mut viewer, &[1, 1]);
        viewer.write_all(&[1]).unwrap();
        until(&mut viewer, &[0, 0, 0, 0]);
        viewer.write_all(&[1]).unwrap();
        until(&mut viewer, b"simulated");
    }
    let mut viewer = TcpStream::connect(address).unwrap();
    until(&mut viewer, b"RFB");
    // The process ends in peace, and what was open is told before.
    assert_eq!(server.stop(), 0);
    let mut server = Server::listening(folder.path(), &Store::Embedded, &more);
    server.token = std::fs::read_to_string(folder.path().join("token")).unwrap().trim().to_owned();
    let closed = server.json(&["events", "--type", "console-closed"]);
    let closed = closed.as_array().unwrap();
    let whys: Vec<_> = closed.iter().map(|one| one["data"]["why"].as_str().unwrap()).collect();
    assert_eq!(whys.len(), 4, "{closed:?}");
    assert!(whys.contains(&"process-stopped"), "{whys:?}");
}
