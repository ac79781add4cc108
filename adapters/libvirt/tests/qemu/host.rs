//! The host that `./test` starts, and a guest that is told what to do on it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use adapters_libvirt::{
    Affects, Code, Connection, Domain, Events, Fault, Options, State,
    description::{Description, DirectKernel, DiskDevice, Nic, NicModel, Source, Virtualisation},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use uuid::Uuid;

/// How long anything may take on a machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// A guest's console does not become ours.
const O_NOCTTY: i32 = 0o400;

/// One guest at a time: each takes a whole processor while it starts.
static TURN: Mutex<()> = Mutex::const_new(());

/// A host with QEMU, for a test alone.
pub(crate) struct Host {
    folder: PathBuf,
    /// Where this test's disks are.
    pub(crate) disks: TempDir,
    _turn: MutexGuard<'static, ()>,
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
        let turn = TURN.lock().await;
        let folder = PathBuf::from(folder);
        let disks = tempfile::tempdir_in(folder.join("disks")).unwrap();
        Some(Self { folder, disks, _turn: turn })
    }

    pub(crate) async fn connect(&self) -> Connection {
        let options = Options {
            socket: self.folder.join("socket"),
            uri: "qemu:///system".to_owned(),
            patience: Duration::from_mins(1),
        };
        Connection::open(&options).await.unwrap()
    }

    /// What a tool of libvirt's or QEMU's says; it may hang.
    fn tool(words: &[&str]) -> Output {
        Command::new("timeout").arg("60").args(words).output().unwrap()
    }

    fn try_virsh(&self, words: &[&str]) -> Output {
        let uri = format!("qemu+unix:///system?socket={}", self.folder.join("socket").display());
        Self::tool(&[&["virsh", "-q", "-c", &uri], words].concat())
    }

    /// What `virsh` says on the same daemon.
    pub(crate) fn virsh(&self, words: &[&str]) -> String {
        said(words, &self.try_virsh(words))
    }

    /// A tool of QEMU's ends well.
    pub(crate) fn runs(words: &[&str]) {
        said(words, &Self::tool(words));
    }

    /// A new disk of so many MiB, in qcow2.
    pub(crate) fn disk(&self, target: &str, mib: u32) -> DiskDevice {
        let path = self.disks.path().join(format!("{target}.qcow2"));
        let path = path.to_str().unwrap();
        let words = ["qemu-img", "create", "-q", "-f", "qcow2", path, &format!("{mib}M")];
        said(&words, &Self::tool(&words));
        DiskDevice {
            target: target.to_owned(),
            source: Some(Source::File(path.to_owned())),
            format: adapters_libvirt::description::Format::Qcow2,
            is_cdrom: false,
            is_readonly: false,
            is_shared: false,
            serial: Some(format!("serial-{target}")),
            limits: adapters_libvirt::Limits::new(),
            boot: None,
        }
    }

    /// A kernel that says `guest=MODE` once it is up.
    pub(crate) fn kernel(&self, mode: &str) -> DirectKernel {
        let file = |name: &str| self.folder.join(name).display().to_string();
        DirectKernel {
            kernel: file("kernel"),
            initrd: file("initramfs"),
            command_line: format!("console=ttyS0 quiet panic=-1 mitigations=off guest={mode}"),
        }
    }

    /// A tiny server with a disk and a network card.
    pub(crate) fn server(&self, name: &str) -> Description {
        let uuid = Uuid::from_u128(0x5e5_0000_0000_4000_8000_0000_0000_0000 + digest(name));
        let mut server = Description::new(name, uuid, 96 << 10, 1);
        server.virtualisation = Virtualisation::Emulated;
        server.kernel = Some(self.kernel("usual"));
        server.has_screen = false;
        server.disks = vec![self.disk("vda", 64)];
        server.nics = vec![nic("52:54:00:00:00:01")];
        server.spare_slots = 10;
        server.position = 7;
        server
    }

    /// Defines a server. It goes with what is returned, whatever becomes of the test.
    pub(crate) async fn define(&self, server: &Description) -> Guest<'_> {
        let libvirt = self.connect().await;
        let events = libvirt.events().await.unwrap();
        let domain = libvirt.define(&server.xml()).await.unwrap();
        Guest { host: self, libvirt, domain, events, console: None }
    }
}

/// A network card on the host's bridge.
pub(crate) fn nic(mac: &str) -> Nic {
    Nic {
        mac: mac.to_owned(),
        model: NicModel::Virtio,
        bridge: "lab".to_owned(),
        port: None,
        vlan: None,
        is_ovs: false,
        mtu: None,
        is_up: true,
        boot: None,
    }
}

fn digest(name: &str) -> u128 {
    name.bytes().fold(0, |sum, byte| sum * 31 % 0xffff_ffff + u128::from(byte))
}

fn said(words: &[&str], ran: &Output) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(ran.status.success(), "{words:?}: {}", said(&ran.stderr));
    said(&ran.stdout)
}

/// A server that is defined.
pub(crate) struct Guest<'a> {
    host: &'a Host,
    pub(crate) libvirt: Connection,
    pub(crate) domain: Domain,
    events: Events,
    console: Option<mpsc::UnboundedReceiver<String>>,
}

impl Guest<'_> {
    /// Starts it, listens to its console, and waits until it is up in this mode.
    /// Before somebody listens it is held: nothing is said in vain.
    pub(crate) async fn start(&mut self, mode: &str) {
        self.domain = self.libvirt.start(&self.domain, true).await.unwrap();
        self.listen().await;
        self.libvirt.resume(&self.domain).await.unwrap();
        self.hear(&format!("GUEST IS UP: guest={mode}")).await;
        // The line may be here before the daemon knows of the agent.
        self.reach().await;
    }

    async fn listen(&mut self) {
        let xml = self.libvirt.xml(&self.domain, Affects::Live).await.unwrap();
        let (_, path) = xml.split_once("<source path='/dev/pts/").expect(&xml);
        let path = Path::new("/dev/pts").join(path.split('\'').next().unwrap());
        let console = fs::OpenOptions::new().read(true).custom_flags(O_NOCTTY).open(path).unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        self.console = Some(lines);
        // Ends with the machine, whose end of the line is then closed.
        std::thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }

    /// Waits for this line on the console.
    async fn hear(&mut self, wanted: &str) {
        let console = self.console.as_mut().unwrap();
        let mut heard = Vec::new();
        let hearing = async {
            while let Some(line) = console.recv().await {
                let found = line.contains(wanted);
                heard.push(line);
                if found {
                    return true;
                }
            }
            false
        };
        let is_heard = tokio::time::timeout(PATIENCE, hearing).await;
        assert_eq!(is_heard, Ok(true), "{wanted:?} was not heard in {heard:#?}");
    }

    /// Waits for this event of the guest's, and gives its detail.
    pub(crate) async fn told(&mut self, wanted: i32) -> i32 {
        let telling = async {
            loop {
                let event = self.events.next().await.unwrap();
                if event.domain.uuid == self.domain.uuid && event.event == wanted {
                    return event.detail;
                }
            }
        };
        tokio::time::timeout(PATIENCE, telling).await.expect("the daemon says nothing of it")
    }

    pub(crate) async fn state(&self) -> State {
        self.libvirt.state(&self.domain).await.unwrap().0
    }

    async fn agent(&self, command: Value) -> Result<Value, Fault> {
        let answer = self.libvirt.agent(&self.domain, &command.to_string(), PATIENCE).await?;
        let answer: Value = serde_json::from_str(&answer.unwrap()).unwrap();
        Ok(answer["return"].clone())
    }

    /// Whether its agent answers.
    pub(crate) async fn ping(&self) -> Result<(), Fault> {
        self.agent(json!({"execute": "guest-ping"})).await.map(drop)
    }

    /// Waits until its agent answers.
    pub(crate) async fn reach(&self) {
        let began = Instant::now();
        while let Err(fault) = self.ping().await {
            assert!(fault.is(Code::AGENT_UNRESPONSIVE) && began.elapsed() < PATIENCE, "{fault}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a command says in the guest.
    pub(crate) async fn run(&self, command: &str) -> String {
        let (code, out, errors) = self.ended(command).await;
        assert_eq!(code, 0, "{command}: {errors}");
        out
    }

    /// How a command ends in the guest, and what it says.
    async fn ended(&self, command: &str) -> (i64, String, String) {
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
        (ended["exitcode"].as_i64().unwrap_or(-1), text("out-data"), text("err-data"))
    }

    /// Waits until a command says this in the guest, which tells nobody of its devices; what is
    /// not there yet cannot be read.
    pub(crate) async fn becomes(&self, command: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let (_, said, _) = self.ended(command).await;
            if said == wanted {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{command}: {said:?}, not {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What libvirt has, read as a description.
    pub(crate) async fn described(&self, of: Affects) -> Description {
        let xml = self.libvirt.xml(&self.domain, of).await.unwrap();
        Description::read(&xml).unwrap_or_else(|fault| panic!("{fault}: {xml}"))
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let uuid = self.domain.uuid.to_string();
        self.host.try_virsh(&["destroy", &uuid]);
        self.host.try_virsh(&["undefine", &uuid, "--snapshots-metadata", "--checkpoints-metadata"]);
    }
}
