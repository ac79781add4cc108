//! A machine that runs beside this host, in a QEMU of its own as a Cloudpods host starts one, comes here while it
//! writes. The cluster's API is a stand-in of ours; the QEMU behind it is real, and so is everything on this side.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use adapters_clouds::{
    cloudpods::Cloudpods,
    testing::cloudpods::{Cluster, Qemu},
};
use adapters_kvm::{
    driver::{Hook, KvmHost, NoHook, Options, Reached, Side, Step},
    storage::seed,
};
use async_trait::async_trait;
use commands::ports::{Access, HostTask, Machines, Provider, Report, Task, Unpaced};
use domain::{
    compute::{
        move_in::{self, Beginning, Command as Say, MoveIn},
        server::{Order, Power},
        userdata::{System, Userdata},
    },
    kernel::{Decider as _, OrderKey, Stamp, StreamId},
    observation::Origin,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};
use uuid::Uuid;

use crate::host::{End, Host, Launch, PATIENCE, Stopper, open};

/// What its system does all the time: it writes a number, and says so when that is on its disk.
const WRITES: &str = "#!/bin/sh\n(n=0; while :; do n=$((n+1)); echo \"number $n\" | dd of=/dev/vdb bs=512 \
                      seek=$((n % 4096)) conv=sync,notrunc,fsync 2>/dev/null && echo \"wrote $n\" \
                      >/dev/console; done) &\n";

/// A QEMU without libvirt.
struct Source {
    folder: PathBuf,
    words: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Source {
    /// The guest of the tests, with a disk that it writes.
    async fn of(host: &Host, server: &Launch) -> Self {
        let folder = host.data.path().join("source");
        std::fs::create_dir_all(&folder).unwrap();
        let at = |name: &str| folder.join(name).display().to_string();
        std::fs::copy(host.folder().join("image"), folder.join("root")).unwrap();
        std::fs::File::create(folder.join("data")).unwrap().set_len(64 << 20).unwrap();
        let kept = |name: &str| host.folder().join(name).display().to_string();
        let mut words: Vec<String> = [
            "nsenter",
            &format!("--net={}", host.net()),
            "qemu-system-x86_64",
            "-machine",
            "pc",
            "-accel",
            "tcg",
            "-m",
            "96",
            "-display",
            "none",
            "-nodefaults",
            "-kernel",
            &kept("kernel"),
            "-initrd",
            &kept("initramfs"),
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off guest=disk",
            "-serial",
            &format!("file:{}", at("console")),
            "-qmp",
            &format!("unix:{},server=on,wait=off", at("monitor")),
        ]
        .map(str::to_owned)
        .to_vec();
        for (id, file) in [("drive_0", "root"), ("drive_1", "data"), ("seed", "seed")] {
            words.push("-drive".to_owned());
            words.push(format!("id={id},if=none,format=raw,file={}", at(file)));
            words.push("-device".to_owned());
            words.push(format!("virtio-blk-pci,drive={id}"));
        }
        let userdata = Userdata::read(WRITES.to_owned(), System::Linux).unwrap();
        let home = server.state.home.as_ref().unwrap();
        let documents = home.seed(Some(&userdata)).unwrap();
        let path = folder.join("seed");
        seed::write(&path, documents.files()).await.unwrap();
        Self { folder, words, child: Mutex::new(None) }
    }

    /// The last number that its system was told to be on its disk; none before the first.
    fn wrote(&self) -> u64 {
        let said = std::fs::read(self.folder.join("console")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let numbers =
            said.lines().filter_map(|line| line.trim().strip_prefix("wrote ")?.parse().ok());
        numbers.max().unwrap_or(0)
    }

    /// Waits until it has written so many more.
    async fn writes(&self, more: u64) {
        let (from, began) = (self.wrote(), Instant::now());
        while self.wrote() < from + more {
            assert!(began.elapsed() < PATIENCE, "it writes nothing");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[async_trait]
impl Qemu for Source {
    async fn is_on(&self) -> bool {
        self.child.lock().unwrap().as_mut().is_some_and(|it| it.try_wait().unwrap().is_none())
    }

    async fn start(&self) {
        let child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
    }

    async fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    async fn execute(&self, command: &Value) -> Result<Value, String> {
        let stream = UnixStream::connect(self.folder.join("monitor")).await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        lines.next_line().await.unwrap().unwrap();
        let mut answer = Value::Null;
        for said in [&json!({"execute": "qmp_capabilities"}), command] {
            write.write_all(said.to_string().as_bytes()).await.unwrap();
            answer = loop {
                let line = lines.next_line().await.unwrap().ok_or("QEMU has ended")?;
                let line: Value = serde_json::from_str(&line).unwrap();
                if line.get("event").is_none() {
                    break line;
                }
            };
        }
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(format!("{}: {}", answer["error"]["class"], answer["error"]["desc"])),
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(child) = self.child.get_mut().unwrap() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A move, as the log and the runner would have it.
pub(crate) struct Moving {
    id: Uuid,
    pub(crate) state: MoveIn,
    pub(crate) server: Launch,
    cloud: Box<dyn Provider>,
    access: Access,
    machine: String,
}

impl Moving {
    /// A machine that nothing is in the way of begins to move.
    pub(crate) async fn begin(
        server: Launch,
        cloud: impl Provider + Machines + 'static,
        access: Access,
        machine: &str,
    ) -> Self {
        let found = cloud.machine(&access, machine).await.unwrap().unwrap();
        assert!(found.obstacles().is_empty() && found.power == Power::Running, "{found:?}");
        let id = move_in::id_of(server.id);
        let provider = cloud.name().to_owned();
        let beginning = Beginning {
            name: "old".to_owned(),
            project: None,
            account: Uuid::nil(),
            source: move_in::Source { id, provider, machine: found },
            server: server.id,
            host: server.state.home.as_ref().unwrap().placement.host,
        };
        let (cloud, machine) = (Box::new(cloud), machine.to_owned());
        let mut moving = Self { id, state: MoveIn::default(), server, cloud, access, machine };
        moving.say(Say::Begin(Box::new(beginning)));
        moving
    }

    pub(crate) fn say(&mut self, command: Say) {
        let stamp = Stamp { now: chrono::DateTime::UNIX_EPOCH, actor: "test".into() };
        for event in self.state.decide(command, &stamp).unwrap() {
            self.state = self.state.clone().evolve(event);
        }
    }

    fn report(&mut self, report: Report) -> &'static str {
        let said = json!({"type": report.verb, "data": report.body});
        self.say(serde_json::from_value(said).unwrap());
        self.state.status()
    }

    fn key(&self) -> (OrderKey, Value) {
        let out = self.state.order().unwrap();
        let stream = StreamId::new(MoveIn::KIND, self.id);
        (OrderKey { stream, number: out.number }, json!(out.order))
    }

    /// What the host is asked.
    fn task(&self) -> HostTask {
        let (key, order) = self.key();
        let task = self.server.order(key.number, &Order::Stop {});
        HostTask { key, order, subject: json!(self.state), ..task }
    }

    pub(crate) async fn here(&mut self, driver: &KvmHost) -> &'static str {
        let report = driver.carry_out(&self.task()).await.unwrap();
        self.report(report)
    }

    pub(crate) async fn there(&mut self) -> &'static str {
        let (key, order) = self.key();
        let origin = Origin {
            provider: self.cloud.name().to_owned(),
            account: Uuid::nil(),
            region: None,
            external_id: self.machine.clone(),
        };
        let task = Task { kind: MoveIn::KIND, key, order, origin };
        let report = self.cloud.carry_out(&self.access, &task).await.unwrap();
        self.report(report)
    }
}

pub(crate) async fn driver(host: &Host) -> KvmHost {
    driver_with(host, Arc::new(NoHook)).await
}

async fn driver_with(host: &Host, hook: Arc<dyn Hook>) -> KvmHost {
    let reached = Reached {
        libvirt: "qemu+tcp://10.99.0.1/system".to_owned(),
        memory: Some("tcp://10.99.0.1".to_owned()),
    };
    open(Options { reached: Some(reached), hook, ..host.options() }).await
}

/// Carries an order out by an agent that ends at each of these steps in turn.
async fn cut(host: &Host, task: &HostTask, steps: &[Step]) {
    for step in steps {
        for (end, side) in
            [(End::Fails, Side::Before), (End::Dies, Side::Before), (End::Dies, Side::After)]
        {
            let stopper = Stopper::new(end, (*step, side));
            let driver = driver_with(host, stopper.clone()).await;
            tokio::select! {
                done = driver.carry_out(task) => {
                    assert!(end == End::Fails && done.is_err(), "{step:?} {side:?}: {done:?}");
                }
                () = stopper.stopped.notified() => {}
            }
            assert!(stopper.was_hit(), "{end:?} {step:?} {side:?}");
        }
    }
}

/// Whether two disks have the same on them; what is behind the smaller one is zeroes.
fn is_same(one: &Path, other: &Path) -> bool {
    let done = Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "qcow2"])
        .args([one, other])
        .output()
        .unwrap();
    done.status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_writes_all_the_time_comes_here_with_every_byte_that_was_acknowledged() {
    let Some(host) = Host::of_tests().await else { return };
    let server = host.launch(61, "sk-test-61", "#!/bin/sh\ntrue\n").with(|home| {
        home["parts"]["image"] = Value::Null;
        for disk in home["parts"]["disks"].as_array_mut().unwrap() {
            (disk["from_image"], disk["format"]) = (json!(false), json!("qcow2"));
            disk["size_gib"] = json!(1);
        }
    });
    let source = Arc::new(Source::of(&host, &server).await);
    source.start().await;
    let cluster = Cluster::start().await.unwrap();
    let size = std::fs::metadata(source.folder.join("root")).unwrap().len() >> 20;
    let details = json!({
        "name": "old", "vcpu_count": 1, "vmem_size": 96, "host_access_ip": "10.99.0.1", "metadata": {},
        "disks_info": [{"id": "d0", "index": 0, "size": size, "driver": "virtio"},
                       {"id": "d1", "index": 1, "size": 64, "driver": "virtio"}],
    });
    cluster.put("m1", details, source.clone());
    let access = Access {
        account: Uuid::nil(),
        endpoint: Some(cluster.endpoint()),
        credential: Cluster::credential(),
        identity: None,
        pace: Arc::new(Unpaced),
    };
    let mut moving = Moving::begin(server, Cloudpods::new(), access, "m1").await;

    // Agents that die while it is made ready, and after that, are followed by one that finds what is there.
    cut(&host, &moving.task(), &[Step::Disks, Step::Offer]).await;
    let first = driver(&host).await.carry_out(&moving.task()).await.unwrap();
    let driver = driver(&host).await;
    let again = driver.carry_out(&moving.task()).await.unwrap();
    assert_eq!(first.body, again.body, "it listens where it did");
    assert_eq!(moving.report(again), "copying");
    source.writes(5).await;
    assert_eq!(moving.there().await, "ready");
    source.writes(20).await;

    moving.say(Say::CutOver { cut_off: false });
    assert_eq!(moving.there().await, "closing");
    assert!(!source.is_on().await);
    assert_eq!(cluster.of("m1", "freezed"), true);
    drop(driver);
    cut(&host, &moving.task(), &[Step::Offer]).await;
    let driver = self::driver(&host).await;
    assert_eq!(moving.here(&driver).await, "starting");
    let disks = host.data.path().join("disks");
    let parts = &moving.server.state.home.as_ref().unwrap().parts.disks;
    let last = source.wrote();
    assert!(last > 25, "it wrote until it was stopped");
    for (disk, file) in parts.iter().zip(["root", "data"]) {
        let here = disks.join(format!("{}.qcow2", disk.id));
        assert!(is_same(&source.folder.join(file), &here), "{file}");
    }
    // What it was told to be on its disk is there.
    let data = std::fs::read(source.folder.join("data")).unwrap();
    let at = (last % 4_096) as usize * 512;
    assert!(data[at..].starts_with(format!("number {last}\n").as_bytes()));

    // The server starts on them, as every other.
    let seen = moving.server.done(&driver, 1, Order::Launch {}).await;
    assert_eq!(seen.power, Power::Running);
    // And there is a way back: nothing is left here, and the machine runs there.
    moving.say(Say::Arrive {});
    moving.say(Say::GoBack {});
    moving.server.removed(&driver, 2).await;
    moving.say(Say::TargetGone {});
    assert_eq!(moving.there().await, "gone-back");
    assert!(source.is_on().await);
    let census = driver.census().await.unwrap();
    assert!(census.disks.is_empty() && census.servers.is_empty(), "{census:?}");
    let left = std::fs::read_dir(host.data.path().join("backups")).unwrap().count();
    assert_eq!(left, 0, "nobody listens any more");
    let tables = Command::new("nsenter")
        .args([&format!("--net={}", host.net()), "nft", "list", "tables"])
        .output()
        .unwrap();
    let tables = String::from_utf8_lossy(&tables.stdout).into_owned();
    assert!(!tables.contains("skyledger-in-"), "{tables}");
}
