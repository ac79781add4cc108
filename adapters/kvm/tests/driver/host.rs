//! The host that `./test` starts, a driver that works for it, and servers as the log would have them.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use adapters_kvm::{
    driver::{Hook, Kernel, KvmHost, NoHook, Options, Side, Step, ThisKernel},
    network::Place,
};
use adapters_libvirt::{Code, Connection, Domain, Fault, description::Virtualisation};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use commands::ports::{DriverFault, HostTask, Report};
use domain::{
    compute::{
        placement::Placement,
        server::{Machine, Order, Server, rescue::RescueSystem},
    },
    kernel::{Decider as _, OrderKey, StreamId},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

/// How long anything may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The password of every order that sets one.
pub(crate) const PASSWORD: &str = "correct: horse, battery";

/// What the guest's agent hands a name and a password to: the guest has no program that takes them.
pub(crate) const CHPASSWD: &str = "#!/bin/busybox sh\nexec cat >>/run/passwords\n";

/// What the larger guest has for memory: its kernel is that of every machine.
const LARGER_MIB: u64 = 256;

/// As many tests at a time as there are hosts: each takes a whole processor while its guest starts.
static HOSTS: OnceLock<Hosts> = OnceLock::new();

struct Hosts {
    turns: Semaphore,
    free: Mutex<Vec<PathBuf>>,
}

impl Hosts {
    fn with(folder: String) -> Self {
        let second = std::env::var("SKYLEDGER_TEST_KVM_SECOND").ok();
        let free: Vec<PathBuf> = second.into_iter().chain([folder]).map(Into::into).collect();
        Self { turns: Semaphore::new(free.len()), free: Mutex::new(free) }
    }

    fn free(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host for a test alone.
pub(crate) struct Host {
    folder: PathBuf,
    /// Where the driver keeps its files.
    pub(crate) data: TempDir,
    pub(crate) stop_patience: Duration,
    /// Where the kernel's files of devices are, where those of this machine do not do.
    pub(crate) kernel: Option<PathBuf>,
    /// Who does what is written there.
    pub(crate) files: Arc<dyn Kernel>,
    /// Of one of those that `./test` started.
    turn: Option<SemaphorePermit<'static>>,
}

impl Host {
    /// The host, or none where this machine cannot have it, which is said.
    pub(crate) async fn of_tests() -> Option<Self> {
        let folder = std::env::var("SKYLEDGER_TEST_KVM")
            .expect("SKYLEDGER_TEST_KVM is not set: run the tests with ./test");
        if let Some(why) = folder.strip_prefix("left out: ") {
            // Past what catches the output of tests that pass.
            let said = writeln!(std::io::stderr(), "LEFT OUT, there is no QEMU here: {why}");
            said.unwrap();
            return None;
        }
        let hosts = HOSTS.get_or_init(|| Hosts::with(folder));
        let turn = hosts.turns.acquire().await.unwrap();
        let folder = hosts.free().pop().unwrap();
        let mut host = Self::at(folder);
        host.turn = Some(turn);
        Some(host)
    }

    /// The host that was started with this folder.
    pub(crate) fn at(folder: PathBuf) -> Self {
        let data = tempfile::tempdir_in(folder.join("disks")).unwrap();
        Self {
            folder,
            data,
            stop_patience: PATIENCE,
            kernel: None,
            files: Arc::new(ThisKernel),
            turn: None,
        }
    }

    /// Everything that was started with it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn libvirt(&self) -> adapters_libvirt::Options {
        Self::libvirt_at(&self.folder)
    }

    fn libvirt_at(folder: &Path) -> adapters_libvirt::Options {
        adapters_libvirt::Options {
            socket: folder.join("socket"),
            uri: "qemu:///system".to_owned(),
            patience: PATIENCE,
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(&self.libvirt()).await.unwrap()
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            libvirt: self.libvirt(),
            place: self.place(),
            root: self.folder.join("own"),
            kernel: self.kernel.clone().unwrap_or_else(|| PathBuf::from("/")),
            files: Arc::clone(&self.files),
            virtualisation: Some(Virtualisation::Emulated),
            reacher: reacher(),
            responder: responder(self.data.path()),
            stop_patience: self.stop_patience,
            ..Options::new(self.data.path())
        }
    }

    fn place(&self) -> Place {
        let switch = self.folder.join("switch.sock");
        Place::of(self.net()).with_switch(format!("unix:{}", switch.display()))
    }

    /// Whether it has an Open vSwitch, which is said where it has none.
    pub(crate) fn has_switch(&self) -> bool {
        let has = self.folder.join("switch.sock").exists();
        if !has {
            // Past what catches the output of tests that pass.
            let said = writeln!(std::io::stderr(), "LEFT OUT, there is no Open vSwitch here");
            said.unwrap();
        }
        has
    }

    /// Tells its Open vSwitch something.
    pub(crate) fn switch(&self, command: &str) -> String {
        let socket = self.folder.join("switch.sock");
        let words = command.split(' ');
        let said = std::process::Command::new("ovs-vsctl")
            .arg(format!("--db=unix:{}", socket.display()))
            .arg("--timeout=10")
            .args(words)
            .output()
            .unwrap();
        assert!(said.status.success(), "{command}: {said:?}");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }

    /// The file of its network namespace.
    pub(crate) fn net(&self) -> String {
        self.folder.join("net").display().to_string()
    }

    /// A driver that works for it.
    pub(crate) async fn driver(&self) -> KvmHost {
        self.driver_with(Arc::new(NoHook)).await
    }

    pub(crate) async fn driver_with(&self, hook: Arc<dyn Hook>) -> KvmHost {
        open(Options { hook, ..self.options() }).await
    }

    /// What servers are rescued with: the guest of the tests, with a program that takes passwords.
    pub(crate) fn rescue_system(&self) -> RescueSystem {
        let mut initramfs = fs::read(self.folder.join("initramfs")).unwrap();
        // One archive after the other is one system; each begins at a multiple of four bytes.
        initramfs.resize(initramfs.len().next_multiple_of(4), 0);
        for (name, mode, content) in
            [("bin/chpasswd", "000081ed", CHPASSWD), ("TRAILER!!!", "0", "")]
        {
            let (length, named) = (content.len(), name.len() + 1);
            let mut entry = format!(
                "070701{0:08x}{mode:0>8}{0:08x}{0:08x}{1:08x}{0:08x}{length:08x}{0:08x}{0:08x}{0:08x}{0:08x}{named:08x}{0:08x}{name}\0",
                0, 1,
            )
            .into_bytes();
            entry.resize(entry.len().next_multiple_of(4), 0);
            entry.extend(content.bytes());
            entry.resize(entry.len().next_multiple_of(4), 0);
            initramfs.extend(entry);
        }
        let path = self.data.path().join("rescue-initramfs");
        fs::write(&path, initramfs).unwrap();
        RescueSystem {
            kernel: self.folder.join("kernel").display().to_string(),
            initramfs: path.display().to_string(),
            command_line: "console=ttyS0 quiet panic=-1 mitigations=off guest=rescue".to_owned(),
        }
    }

    /// A server's launch: a root disk from the image of the tests and one that is blank, and an
    /// interface on this bridge.
    pub(crate) fn launch(&self, number: u128, bridge: &str, userdata: &str) -> Launch {
        self.launch_into(self.data.path(), number, bridge, userdata)
    }

    /// The same, with the image brought into this folder.
    pub(crate) fn launch_into(
        &self,
        data: &Path,
        number: u128,
        bridge: &str,
        userdata: &str,
    ) -> Launch {
        self.launch_from("image", data, number, bridge, userdata)
    }

    /// The same of the larger guest, which has file systems, a client of DHCP, and drivers of what is not virtio.
    pub(crate) fn launch_larger(&self, number: u128, bridge: &str, userdata: &str) -> Launch {
        let server = self.launch_from("larger/image", self.data.path(), number, bridge, userdata);
        server.with(|home| {
            home["spec"]["memory_mib"] = json!(LARGER_MIB);
            home["placement"]["holding"]["memory_mib"] = json!(LARGER_MIB);
        })
    }

    fn launch_from(
        &self,
        image: &str,
        data: &Path,
        number: u128,
        bridge: &str,
        userdata: &str,
    ) -> Launch {
        let image = fs::read(self.folder.join(image)).unwrap();
        let sha256 = format!("{:x}", Sha256::digest(&image));
        // Brought by hand, as an image that is uploaded is.
        let uploads = data.join("uploads");
        fs::create_dir_all(&uploads).unwrap();
        fs::write(uploads.join(&sha256), &image).unwrap();
        let id = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number);
        let part = |part: u128| Uuid::from_u128((number << 64) + part);
        let mac = format!("52:54:00:00:01:{number:02x}");
        let launch = json!({
            "name": format!("Web {number}"),
            "spec": {"vcpus": 1, "memory_mib": 96},
            "tags": {"team": "shop"},
            "parts": {
                "image": {
                    "id": part(1), "sha256": sha256, "format": "raw", "os": "linux",
                    "size_mib": image.len().div_ceil(1 << 20), "source": "upload",
                },
                "disks": [
                    {"id": part(2), "size_gib": 1, "format": "qcow2", "from_image": true},
                    {"id": part(3), "size_gib": 2, "format": "raw"},
                ],
                "nics": [{
                    "id": part(4 << 100 | number << 80), "network": part(5), "segment": part(6),
                    "bridge": bridge, "medium": "bridge", "mtu": 1_400, "mac": mac,
                    "addresses": [format!("10.9.0.{number}/24"), format!("2001:db8:9::{number:x}/64")],
                    "gateways": ["10.9.0.254"], "dns_servers": ["10.9.0.253"],
                }],
                "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKBnABWcH ann"],
            },
            "placement": {
                "host": part(7), "fitting": 1,
                "holding": {"server": id, "vcpus": 1, "memory_mib": 96},
                "score": {
                    "affinity": 0, "apart": 0, "cells": 0, "devices": 0, "fill": 0, "irregular": false,
                },
            },
        });
        let event = json!({"type": "launched", "data": {"launch": launch}});
        let state = Server::default().evolve(serde_json::from_value(event).unwrap());
        Launch { id, state, userdata: userdata.to_owned() }
    }
}

/// What a driver runs to reach a port of a guest: a test that is none.
fn reacher() -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    let words = ["--exact", "console::who_reaches", "--nocapture"].map(str::to_owned);
    [&["env".to_owned(), "SKYLEDGER_REACHES=1".to_owned(), program][..], &words].concat()
}

/// What a driver runs to tell servers of this host their addresses: a test that is none.
fn responder(folder: &Path) -> Vec<String> {
    let folder = format!("SKYLEDGER_RESPONDS_FOR={}", folder.display());
    let program = std::env::current_exe().unwrap().display().to_string();
    let words = ["--exact", "dhcp::who_responds"].map(str::to_owned);
    [&["env".to_owned(), folder, program][..], &words].concat()
}

/// A driver whose predecessor is gone. A tool that another test begins at this moment has all files of this
/// process open until it is that tool, and with them the predecessor's lock.
pub(crate) async fn open(options: Options) -> KvmHost {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match KvmHost::open(options.clone()).await {
            Err(DriverFault::Transient(why))
                if why.contains("another agent works") && Instant::now() < until =>
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            opened => return opened.unwrap(),
        }
    }
}

impl Drop for Host {
    /// What a test that failed has left is not the next one's.
    fn drop(&mut self) {
        for folder in [self.folder.clone(), self.folder.join("peer")] {
            clear(&folder);
        }
        // Before the turn ends, which is when this has been done.
        if let Some(hosts) = HOSTS.get().filter(|_| self.turn.is_some()) {
            hosts.free().push(self.folder.clone());
        }
    }
}

fn clear(folder: &Path) {
    let (socket, net) = (folder.join("socket"), folder.join("net"));
    let virsh = format!("virsh -q -c 'qemu+unix:///system?socket={}'", socket.display());
    let inside = format!("nsenter --net={}", net.display());
    let clear = format!(
        "for server in $({virsh} list --all --name); do \
                 {virsh} destroy $server; {virsh} undefine $server --nvram --checkpoints-metadata; \
             done; \
             {inside} nft delete table bridge skyledger; \
             {inside} nft delete table bridge skyledger-quota; \
             for link in $({inside} ip -br link | cut -d' ' -f1 | grep sk-test); do \
                 {inside} ip link del $link; \
             done"
    );
    let _ = std::process::Command::new("timeout")
        .args(["60", "sh", "-c", &clear])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
}

/// A server, and what is ordered of it.
#[derive(Clone)]
pub(crate) struct Launch {
    pub(crate) id: Uuid,
    pub(crate) state: Server,
    userdata: String,
}

impl Launch {
    /// A server that was made in another way.
    pub(crate) fn of(id: Uuid, state: Server) -> Self {
        Self { id, state, userdata: String::new() }
    }

    /// The same, with something else in what is the log's of it.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut state = serde_json::to_value(&self.state).unwrap();
        change(&mut state["home"]);
        self.state = serde_json::from_value(state).unwrap();
        self
    }

    pub(crate) fn placement(&self) -> &Placement {
        &self.state.home.as_ref().unwrap().placement
    }

    pub(crate) fn order(&self, number: u64, order: &Order) -> HostTask {
        HostTask {
            key: OrderKey { stream: StreamId::new("server", self.id), number },
            order: serde_json::to_value(order).unwrap(),
            state: self.state.clone(),
            subject: Value::Null,
            userdata: (*order == Order::Launch {}).then(|| self.userdata.clone()),
            password: matches!(order, Order::SetPassword { .. } | Order::Rescue { .. })
                .then(|| PASSWORD.to_owned()),
            stores: std::collections::BTreeMap::new(),
            leases: std::collections::BTreeMap::new(),
        }
    }

    /// Carries an order out, and says what is seen of the server then.
    pub(crate) async fn done(&self, driver: &KvmHost, number: u64, order: Order) -> Machine {
        let report = driver.carry_out(&self.order(number, &order)).await.unwrap();
        seen(report, number)
    }

    pub(crate) async fn removed(&self, driver: &KvmHost, number: u64) {
        let report = driver.carry_out(&self.order(number, &Order::Remove {})).await.unwrap();
        assert_eq!(report.verb, "confirm-removal");
        assert_eq!(report.body, json!({"number": number}));
    }
}

pub(crate) fn seen(report: Report, number: u64) -> Machine {
    assert_eq!((report.verb, &report.body["number"]), ("confirm", &json!(number)));
    serde_json::from_value(report.body["seen"].clone()).unwrap()
}

/// A guest, spoken to through its agent.
pub(crate) struct Guest {
    libvirt: Connection,
    pub(crate) domain: Domain,
    /// Where QEMU says why it ends.
    log: PathBuf,
}

impl Guest {
    /// Waits until its agent answers, whatever it was started from.
    pub(crate) async fn up(host: &Host, server: Uuid) -> Self {
        Self::in_reach(host.connect().await, host.folder(), server).await
    }

    /// Waits until the guest has done what its seed says.
    pub(crate) async fn ready(host: &Host, server: Uuid) -> Self {
        let guest = Self::up(host, server).await;
        guest.becomes("cat /run/seeded", &server.to_string()).await;
        guest
    }

    /// The same, on the host of this folder.
    pub(crate) async fn at(folder: &Path, server: Uuid) -> Self {
        let libvirt = Connection::open(&Host::libvirt_at(folder)).await.unwrap();
        Self::in_reach(libvirt, folder, server).await
    }

    async fn in_reach(libvirt: Connection, folder: &Path, server: Uuid) -> Self {
        let domain = libvirt.domain(server).await.unwrap();
        let log = folder.join(format!("own/var/log/libvirt/qemu/sk-{server}.log"));
        let guest = Self { libvirt, domain, log };
        guest.reach().await;
        guest
    }

    /// Once it has done what its seed says.
    pub(crate) async fn ready_at(folder: &Path, server: Uuid) -> Self {
        let guest = Self::at(folder, server).await;
        guest.becomes("cat /run/seeded", &server.to_string()).await;
        guest
    }

    async fn agent(&self, command: Value) -> Result<Value, Fault> {
        let answer = self.libvirt.agent(&self.domain, &command.to_string(), PATIENCE).await?;
        let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
        Ok(answer["return"].clone())
    }

    /// Waits until its agent answers. Nothing tells of it.
    async fn reach(&self) {
        let began = Instant::now();
        let ping = json!({"execute": "guest-ping"});
        while let Err(fault) = self.agent(ping.clone()).await {
            let waits = fault.is(Code::AGENT_UNRESPONSIVE) && began.elapsed() < PATIENCE;
            assert!(waits, "{fault}\n{}", fs::read_to_string(&self.log).unwrap_or_default());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until its agent answers no more.
    pub(crate) async fn falls_silent(&self) {
        let began = Instant::now();
        while self.agent(json!({"execute": "guest-ping"})).await.is_ok() {
            assert!(began.elapsed() < PATIENCE, "the agent goes on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn status(&self, command: &str) -> (i64, String) {
        let arguments = json!({
            "path": "/bin/sh", "arg": ["-c", command], "capture-output": true,
        });
        let begun = self.agent(json!({"execute": "guest-exec", "arguments": arguments}));
        let pid = json!({"pid": begun.await.unwrap()["pid"]});
        let began = Instant::now();
        // The agent does not say by itself when a command has ended.
        let ended = loop {
            let ask = json!({"execute": "guest-exec-status", "arguments": pid});
            let status = self.agent(ask).await.unwrap();
            if status["exited"] == true {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "{command} does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let text = |key: &str| {
            let bytes = BASE64.decode(ended[key].as_str().unwrap_or_default()).unwrap();
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        (ended["exitcode"].as_i64().unwrap_or(-1), text("out-data"))
    }

    /// What a command says in the guest.
    pub(crate) async fn run(&self, command: &str) -> String {
        let (code, said) = self.status(command).await;
        assert_eq!(code, 0, "{command}: {said}");
        said
    }

    /// Begins something that ends the guest.
    pub(crate) async fn begin(&self, command: &str) {
        let arguments = json!({"path": "/bin/sh", "arg": ["-c", command]});
        self.agent(json!({"execute": "guest-exec", "arguments": arguments})).await.unwrap();
    }

    /// Waits until a command says this in the guest, which tells nobody of it.
    pub(crate) async fn becomes(&self, command: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let (_, said) = self.status(command).await;
            if said == wanted {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{command}: {said:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a hook makes of the point where it stops an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The agent never comes back.
    Dies,
    /// The step fails.
    Fails,
}

impl Host {
    /// An agent that ends at one point of an order, in this manner, and got there.
    pub(crate) async fn cut(&self, end: End, at: (Step, Side), task: &HostTask) {
        let stopper = Stopper::new(end, at);
        let driver = self.driver_with(stopper.clone()).await;
        tokio::select! {
            done = driver.carry_out(task) => {
                assert!(end == End::Fails && done.is_err(), "{at:?}: {done:?}");
            }
            () = stopper.stopped.notified() => {}
        }
        assert!(stopper.was_hit(), "{at:?}");
    }
}

/// Ends an order at one point, once.
pub(crate) struct Stopper {
    end: End,
    at: (Step, Side),
    hit: Mutex<bool>,
    pub(crate) stopped: tokio::sync::Notify,
}

impl Stopper {
    pub(crate) fn new(end: End, at: (Step, Side)) -> Arc<Self> {
        Arc::new(Self { end, at, hit: Mutex::new(false), stopped: tokio::sync::Notify::new() })
    }

    pub(crate) fn was_hit(&self) -> bool {
        *self.hit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hook for Stopper {
    async fn at(&self, step: Step, side: Side, _: Uuid) -> Result<(), DriverFault> {
        if (step, side) != self.at || self.was_hit() {
            return Ok(());
        }
        *self.hit.lock().unwrap_or_else(PoisonError::into_inner) = true;
        match self.end {
            End::Fails => Err(DriverFault::Transient(format!("{step:?}, {side:?}"))),
            End::Dies => {
                self.stopped.notify_one();
                std::future::pending().await
            }
        }
    }
}
