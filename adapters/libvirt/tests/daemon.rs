//! The client against a real libvirt daemon with the driver `test` that is built into it, and
//! `virsh` as the second opinion; where a daemon will not do wrong by itself, against a socket that
//! does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::PathBuf, process::Command, time::Duration};

use adapters_libvirt::{
    Affects, Code, Connection, Fault, Leave, Limit, Limits, Options, Shutdown, State,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};
use uuid::Uuid;

#[path = "daemon/process.rs"]
mod process;

use process::Daemon;

impl Daemon {
    async fn connect(&self) -> Connection {
        Connection::open(&options(self.socket())).await.unwrap()
    }

    /// What `virsh` says on the same daemon.
    fn virsh(&self, words: &[&str]) -> String {
        let uri = format!("test+unix:///default?socket={}", self.socket().display());
        let ran = Command::new("virsh").args(["-q", "-c", &uri]).args(words).output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(ran.status.success(), "{words:?}: {}", said(&ran.stderr));
        said(&ran.stdout)
    }

    fn signal(&self, name: &str) {
        let signalled = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(signalled.unwrap().success());
    }
}

fn options(socket: PathBuf) -> Options {
    Options { socket, uri: "test:///default".to_owned(), patience: Duration::from_secs(20) }
}

const SERVER: Uuid = Uuid::from_u128(0x7a10_0000_0000_4000_8000_0000_0000_0001);

fn server(memory_mib: u32) -> String {
    format!(
        "<domain type='test'><name>shop</name><uuid>{SERVER}</uuid>\
         <memory unit='MiB'>{memory_mib}</memory><vcpu current='2'>4</vcpu>\
         <os><type arch='i686'>hvm</type></os>\
         <devices><disk type='file' device='disk'><source file='/shop.img'/>\
         <target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
}

#[tokio::test]
async fn a_host_says_of_itself_what_virsh_says_of_it() {
    let daemon = Daemon::start();
    let libvirt = daemon.connect().await;
    assert_eq!(libvirt.hostname().await.unwrap(), daemon.virsh(&["hostname"]));
    let version = libvirt.version().await.unwrap().to_string();
    let said = daemon.virsh(&["version", "--daemon"]);
    assert!(said.contains(&format!("daemon: {version}")), "{version}: {said}");
    assert_eq!(libvirt.capabilities().await.unwrap().trim(), daemon.virsh(&["capabilities"]));
    let node = libvirt.node().await.unwrap();
    let said = daemon.virsh(&["nodeinfo"]);
    for (name, value) in [
        ("CPU model:", node.model.clone()),
        ("CPU(s):", node.cpus.to_string()),
        ("CPU socket(s):", node.sockets.to_string()),
        ("Core(s) per socket:", node.cores.to_string()),
        ("Thread(s) per core:", node.threads.to_string()),
        ("NUMA cell(s):", node.cells.to_string()),
        ("Memory size:", format!("{} KiB", node.memory_kib)),
    ] {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.trim(), value, "{name}");
    }
    assert_eq!(node.cells, 2, "the driver has a host of two cells");
    libvirt.close().await.unwrap();
}

#[tokio::test]
async fn a_domain_is_defined_started_held_stopped_and_removed_and_each_step_is_told() {
    let daemon = Daemon::start();
    let libvirt = daemon.connect().await;
    let mut events = libvirt.events().await.unwrap();
    let domain = libvirt.define(&server(64)).await.unwrap();
    assert_eq!((domain.name.as_str(), domain.uuid, domain.id), ("shop", SERVER, None));
    assert_eq!(libvirt.state(&domain).await.unwrap().0, State::Off);
    let names = libvirt.domains().await.unwrap().into_iter().map(|one| one.name);
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["shop", "test"]);

    let running = libvirt.start(&domain, false).await.unwrap();
    assert!(running.id.is_some());
    assert_eq!(libvirt.state(&domain).await.unwrap().0, State::Running);
    let again = libvirt.start(&domain, false).await.unwrap_err();
    assert!(again.code().is_some() && again.to_string().contains("running"), "{again}");
    libvirt.suspend(&domain).await.unwrap();
    assert_eq!(libvirt.state(&domain).await.unwrap().0, State::Paused);
    assert_eq!(daemon.virsh(&["domstate", "shop"]), "paused");
    libvirt.resume(&domain).await.unwrap();
    libvirt.shutdown(&domain, Shutdown::Any).await.unwrap();
    assert_eq!(daemon.virsh(&["domstate", "shop"]), "shut off");
    libvirt.start(&domain, false).await.unwrap();
    libvirt.destroy(&domain).await.unwrap();
    assert!(libvirt.destroy(&domain).await.unwrap_err().is(Code::OPERATION_INVALID));
    libvirt.undefine(&domain, Leave::default()).await.unwrap();
    let gone = libvirt.domain(SERVER).await.unwrap_err();
    assert!(gone.is(Code::NO_DOMAIN) && gone.is_answer(), "{gone}");

    // Defined, started, held, let go on, shut down, started, stopped, undefined.
    let mut told = Vec::new();
    while told.last() != Some(&1) {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        let event = event.unwrap().unwrap();
        assert_eq!(event.domain.uuid, SERVER);
        told.push(event.event);
    }
    assert_eq!(told, [0, 2, 3, 4, 5, 2, 5, 1]);
    assert!(!events.missed());
}

#[tokio::test]
async fn a_description_may_run_for_once_and_what_is_defined_stays() {
    let daemon = Daemon::start();
    let libvirt = daemon.connect().await;
    let domain = libvirt.define(&server(64)).await.unwrap();
    let once = libvirt.run(&server(128)).await.unwrap();
    assert_eq!(once.uuid, SERVER);
    let memory = |xml: &str| xml.contains(">131072</memory>");
    assert!(memory(&libvirt.xml(&domain, Affects::Live).await.unwrap()));
    assert!(!memory(&libvirt.xml(&domain, Affects::Config).await.unwrap()));
    libvirt.destroy(&once).await.unwrap();
    assert_eq!(libvirt.state(&domain).await.unwrap().0, State::Off);
    assert!(!memory(&libvirt.xml(&domain, Affects::Live).await.unwrap()));
}

#[tokio::test]
async fn a_domain_is_changed_while_it_runs_and_virsh_reads_it_back() {
    let daemon = Daemon::start();
    let libvirt = daemon.connect().await;
    let domain = libvirt.define(&server(256)).await.unwrap();
    let domain = libvirt.start(&domain, false).await.unwrap();
    libvirt.set_vcpus(&domain, 3, Affects::Live).await.unwrap();
    assert_eq!(daemon.virsh(&["vcpucount", "shop", "--live", "--active"]), "3");
    libvirt.set_memory(&domain, 100 << 10, Affects::Live).await.unwrap();
    assert!(libvirt.xml(&domain, Affects::Live).await.unwrap().contains(">102400</currentMemory>"));
    // This driver knows no other way.
    libvirt.pin(&domain, 1, &[2, 5], Affects::Current).await.unwrap();
    let pinned = daemon.virsh(&["vcpupin", "shop", "1"]);
    assert_eq!(pinned.split_whitespace().last(), Some("2,5"), "{pinned}");

    // This driver takes no limit without a burst.
    let limits: Limits = [
        (Limit::ReadOperations, 500),
        (Limit::ReadOperationsBurst, 600),
        (Limit::ReadOperationsBurstSeconds, 1),
        (Limit::WriteBytes, 10 << 20),
        (Limit::WriteBytesBurst, 40 << 20),
        (Limit::WriteBytesBurstSeconds, 7),
    ]
    .into();
    libvirt.set_limits(&domain, "vda", &limits, Affects::Live).await.unwrap();
    assert_eq!(libvirt.limits(&domain, "vda", Affects::Live).await.unwrap(), limits);
    let said = daemon.virsh(&["blkdeviotune", "shop", "vda", "--live"]);
    for (name, value) in [
        ("read_iops_sec", "500"),
        ("write_bytes_sec", "10485760"),
        ("write_bytes_sec_max_length", "7"),
    ] {
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'));
        assert_eq!(line.map(str::trim), Some(value), "{name}: {said}");
    }
    // What is not named any more is no limit any more.
    let fewer: Limits = [
        (Limit::ReadOperations, 100),
        (Limit::ReadOperationsBurst, 200),
        (Limit::ReadOperationsBurstSeconds, 1),
    ]
    .into();
    libvirt.set_limits(&domain, "vda", &fewer, Affects::Live).await.unwrap();
    assert_eq!(libvirt.limits(&domain, "vda", Affects::Live).await.unwrap(), fewer);
    libvirt.set_limits(&domain, "vda", &Limits::new(), Affects::Live).await.unwrap();
    assert_eq!(libvirt.limits(&domain, "vda", Affects::Live).await.unwrap(), Limits::new());
}

#[tokio::test]
async fn what_libvirt_refuses_is_a_code_and_its_words() {
    let daemon = Daemon::start();
    let libvirt = daemon.connect().await;
    let fault = libvirt.define("<domain type='test'><name>x</name>").await.unwrap_err();
    assert!(fault.is(Code::XML_DETAIL), "{fault:?}");
    assert!(fault.is_answer() && fault.to_string().contains("domain"), "{fault}");
    let other = Uuid::from_u128(5);
    let twin = server(64).replace(&SERVER.to_string(), &other.to_string());
    libvirt.define(&server(64)).await.unwrap();
    let twin = libvirt.define(&twin).await.unwrap_err();
    assert!(twin.code().is_some() && twin.to_string().contains("shop"), "{twin}");
    let long = "x".repeat(5 << 20);
    assert!(matches!(libvirt.define(&long).await, Err(Fault::TooLong(_))));
    // The connection is as good as before.
    libvirt.hostname().await.unwrap();
    let domain = libvirt.domain(SERVER).await.unwrap();
    let agent = libvirt.agent(&domain, r#"{"execute": "guest-ping"}"#, Duration::from_secs(1));
    assert!(agent.await.unwrap_err().code().is_some(), "the driver has no guests with agents");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_wait_at_once_and_each_has_its_own_answer() {
    let daemon = Daemon::start();
    let libvirt = std::sync::Arc::new(daemon.connect().await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let libvirt = std::sync::Arc::clone(&libvirt);
        calls.spawn(async move {
            let uuid = Uuid::from_u128(u128::from(number) + 1_000);
            let xml = server(64)
                .replace(&SERVER.to_string(), &uuid.to_string())
                .replace(">shop<", &format!(">shop-{number}<"));
            let domain = libvirt.define(&xml).await.unwrap();
            assert_eq!((domain.name, domain.uuid), (format!("shop-{number}"), uuid));
            assert_eq!(libvirt.domain(uuid).await.unwrap().name, format!("shop-{number}"));
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    assert_eq!(libvirt.domains().await.unwrap().len(), 201);
}

#[tokio::test]
async fn a_daemon_that_hangs_makes_a_call_late_and_one_that_dies_ends_all() {
    let mut daemon = Daemon::start();
    let patient = daemon.connect().await;
    let hasty = Options { patience: Duration::from_millis(200), ..options(daemon.socket()) };
    let hasty = Connection::open(&hasty).await.unwrap();
    let mut events = hasty.events().await.unwrap();
    daemon.signal("-STOP");
    let late = hasty.hostname().await.unwrap_err();
    assert!(matches!(late, Fault::Late(_)) && !late.is_answer(), "{late}");
    daemon.signal("-CONT");
    // The answer that nobody waits for any more is nobody else's.
    assert_eq!(hasty.domains().await.unwrap().len(), 1);

    daemon.signal("-STOP");
    let waiting = patient.hostname();
    let killed = async {
        tokio::task::yield_now().await;
        daemon.signal("-KILL");
    };
    let (ended, ()) = tokio::join!(waiting, killed);
    let ended = ended.unwrap_err();
    assert!(matches!(ended, Fault::Closed(_)) && !ended.is_answer(), "{ended}");
    assert!(matches!(patient.hostname().await, Err(Fault::Closed(_))));
    assert!(events.next().await.is_none());
    daemon.child.wait().unwrap();
    let socket = daemon.socket();
    let fault = Connection::open(&options(socket)).await.unwrap_err();
    assert!(matches!(fault, Fault::Unreachable { .. }) && fault.is_answer(), "{fault}");
}

/// Reads a frame; its procedure and its serial number.
async fn heard(stream: &mut UnixStream) -> (u32, u32) {
    let length = stream.read_u32().await.unwrap() as usize;
    let mut frame = vec![0; length - 4];
    stream.read_exact(&mut frame).await.unwrap();
    let word = |at: usize| u32::from_be_bytes(frame[at * 4..at * 4 + 4].try_into().unwrap());
    (word(2), word(4))
}

async fn say(stream: &mut UnixStream, words: &[u32]) {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    stream.write_all(&bytes).await.unwrap();
}

const REMOTE: u32 = 0x2000_8086;
const KEEPALIVE: u32 = 0x6b65_6570;

/// Answers what opening a connection asks, then does as it is told.
async fn stand_in(
    wants: u32,
    then: impl AsyncFnOnce(&mut UnixStream),
) -> (TempDir, Result<Connection, Fault>, Result<String, Fault>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (procedure, serial) = heard(&mut stream).await;
        assert_eq!(procedure, 66);
        say(&mut stream, &[36, REMOTE, 1, 66, 1, serial, 0, 1, wants]).await;
        if wants != 0 {
            return;
        }
        let (procedure, serial) = heard(&mut stream).await;
        assert_eq!(procedure, 1);
        // Before the answer, a question of the daemon's own.
        say(&mut stream, &[28, KEEPALIVE, 1, 1, 2, 0, 0]).await;
        let (pong, _) = heard(&mut stream).await;
        assert_eq!(pong, 2);
        say(&mut stream, &[28, REMOTE, 1, 1, 1, serial, 0]).await;
        then(&mut stream).await;
    };
    let client = async {
        let connection = Connection::open(&options(socket.clone())).await;
        let asked = match &connection {
            Ok(connection) => connection.hostname().await,
            Err(fault) => Err(fault.clone()),
        };
        (connection, asked)
    };
    let ((connection, asked), ()) = tokio::join!(client, daemon);
    (folder, connection, asked)
}

#[tokio::test]
async fn a_daemon_that_talks_nonsense_is_believed_nothing() {
    for nonsense in
        [&[4][..], &[u32::MAX, 0, 0, 0, 0, 0, 0], &[27, 0, 0, 0, 0, 0, 0], &[100, REMOTE, 1]]
    {
        let (_folder, _connection, asked) = stand_in(0, async |stream: &mut UnixStream| {
            heard(stream).await;
            say(stream, nonsense).await;
            stream.shutdown().await.unwrap();
        })
        .await;
        assert!(matches!(asked, Err(Fault::Closed(_))), "{nonsense:?}: {asked:?}");
    }
    // A text that is longer than its frame.
    let (_folder, _connection, asked) = stand_in(0, async |stream: &mut UnixStream| {
        let (_, serial) = heard(stream).await;
        say(stream, &[32, REMOTE, 1, 59, 1, serial, 0, 1 << 20]).await;
    })
    .await;
    assert!(matches!(asked, Err(Fault::Malformed(_))), "{asked:?}");
    // An answer to a question that nobody asked, then the right one.
    let (_folder, _connection, asked) = stand_in(0, async |stream: &mut UnixStream| {
        let (_, serial) = heard(stream).await;
        let word = u32::from_be_bytes(*b"host");
        say(stream, &[36, REMOTE, 1, 59, 1, serial + 7, 0, 4, 0]).await;
        say(stream, &[36, REMOTE, 1, 59, 1, serial, 0, 4, word]).await;
    })
    .await;
    assert_eq!(asked.unwrap(), "host");
    let (_folder, connection, _) = stand_in(2, async |_: &mut UnixStream| {}).await;
    assert!(matches!(connection, Err(Fault::Authentication(2))));
}
