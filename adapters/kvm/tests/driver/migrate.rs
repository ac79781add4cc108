//! Servers between two hosts, each with a libvirt daemon of its own: they go there running and stopped,
//! and whatever dies on the way, one runs and one alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use adapters_kvm::{
    driver::{Census, Hook, KvmHost, NoHook, Of, Options, Reached, Side, Step},
    network::Place,
};
use commands::ports::{DriverFault, HostTask, Report};
use domain::{
    compute::{
        host::Order as HostOrder,
        placement::{HostId, Placement, ServerId},
        server::{
            Event, Machine, Power, carried::Used, migrate::MigrationStep, transfer::TransferLimits,
        },
        storage::StorageId,
    },
    kernel::{Decider as _, OrderKey, StreamId},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::backup::{asked, stand_in, store};
use crate::host::{End, Guest, Host, Launch, PATIENCE, Stopper, open};
use crate::placed::{allowed, process};

/// Two hosts with one storage, and a server that is on one of them.
struct Pair {
    host: Host,
    nas: TempDir,
    data: [TempDir; 2],
    server: Launch,
    /// How it is sent.
    limits: TransferLimits,
}

/// It was handed over; nothing of it is counted.
fn handed_over(certain: bool) -> MigrationStep {
    MigrationStep::Sent { certain, used: Used::new() }
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    First,
    Second,
}

impl At {
    fn other(self) -> Self {
        if self == Self::First { Self::Second } else { Self::First }
    }

    fn id(self) -> HostId {
        HostId::new(Uuid::from_u128(0xf0 + self as u128))
    }
}

impl Pair {
    async fn of_tests(number: u128) -> Option<Self> {
        Self::with(number, true).await
    }

    /// Its disks are on the storage, or on its host alone.
    async fn with(number: u128, on_storage: bool) -> Option<Self> {
        let host = Host::of_tests().await?;
        let folder = || tempfile::tempdir_in(host.folder().join("disks")).unwrap();
        let (nas, data) = (folder(), [folder(), folder()]);
        let storage: StorageId = "01990000-0000-7000-8000-0000000000aa".parse().unwrap();
        std::fs::write(nas.path().join("skyledger-storage"), storage.to_string()).unwrap();
        let userdata = "#!/bin/sh\necho first >/state/written\n";
        let bridge = format!("sk-test-{number}");
        let server = host.launch_into(data[0].path(), number, &bridge, userdata).with(|home| {
            home["placement"]["host"] = json!(At::First.id());
            for disk in home["parts"]["disks"].as_array_mut().unwrap() {
                if on_storage {
                    disk["storage"] = json!(storage);
                }
            }
        });
        Some(Self { host, nas, data, server, limits: TransferLimits::default() })
    }

    fn folder(&self, at: At) -> std::path::PathBuf {
        match at {
            At::First => self.host.folder().to_owned(),
            At::Second => self.host.folder().join("peer"),
        }
    }

    async fn driver_with(&self, at: At, hook: Arc<dyn Hook>) -> KvmHost {
        let (folder, number) = (self.folder(at), at as u8 + 1);
        let mut options = Options {
            place: Place::of(folder.join("net").display()),
            storages: vec![self.nas.path().to_owned()],
            reached: Some(Reached {
                libvirt: format!("qemu+tcp://10.99.0.{number}/system"),
                memory: Some(format!("tcp://10.99.0.{number}")),
            }),
            folder: self.data[at as usize].path().to_owned(),
            hook,
            ..self.host.options()
        };
        options.libvirt.socket = folder.join("socket");
        open(options).await
    }

    async fn driver(&self, at: At) -> KvmHost {
        self.driver_with(at, Arc::new(NoHook)).await
    }

    fn virsh(&self, at: At, arguments: &str) -> (bool, String) {
        let socket = self.folder(at).join("socket");
        let line = format!(
            "timeout 60 virsh -q -c 'qemu+unix:///system?socket={}' {arguments}",
            socket.display()
        );
        let done = Command::new("sh").args(["-c", &line]).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).trim().to_owned())
    }

    /// It is launched on the first host.
    async fn launched(&mut self) {
        let driver = self.driver(At::First).await;
        let seen = self.carry_out(&driver).await;
        assert_eq!(self.heard(seen), None);
    }

    /// What is ordered of it now.
    fn task(&self) -> HostTask {
        let out = self.server.state.orders.out.clone().unwrap();
        self.server.order(out.number, &out.order)
    }

    async fn carry_out(&self, driver: &KvmHost) -> Report {
        driver.carry_out(&self.task()).await.unwrap()
    }

    fn evolve(&mut self, event: Event) {
        self.server.state = self.server.state.clone().evolve(event);
    }

    fn confirm(&mut self, seen: Machine) {
        let number = self.server.state.orders.issued;
        self.evolve(Event::Confirmed { number, seen });
    }

    /// What a report makes of it, as the log would have it; the step when it is one.
    fn heard(&mut self, report: Report) -> Option<MigrationStep> {
        let number = self.server.state.orders.issued;
        assert_eq!(report.body["number"], json!(number));
        if report.verb == "confirm" {
            self.confirm(serde_json::from_value(report.body["seen"].clone()).unwrap());
            return None;
        }
        assert_eq!(report.verb, "confirm-migration");
        let step: MigrationStep = serde_json::from_value(report.body["step"].clone()).unwrap();
        self.evolve(match step.clone() {
            MigrationStep::Lost {} => Event::MigrationReturned { number },
            MigrationStep::Prepared { landing } => Event::MigrationPrepared { number, landing },
            MigrationStep::Sent { certain, used } => Event::MigrationSent { number, certain, used },
            MigrationStep::Shared {} => Event::MigrationShared { number },
            MigrationStep::Stays { reason, seen } => {
                Event::MigrationFailed { number, reason, seen: *seen }
            }
        });
        Some(step)
    }

    /// It is ordered to go from one to the other.
    fn order(&mut self, from: At, live: bool) {
        let mut to: Placement = *self.server.state.home.as_ref().unwrap().placement.clone();
        to.host = from.other().id();
        for pin in &mut to.holding.pins {
            // The machine has two.
            pin.cpu = 1 - pin.cpu;
            to.holding.cpus = [pin.cpu].into();
        }
        self.evolve(Event::MigrationOrdered { to: Box::new(to), live, limits: self.limits });
    }

    fn clear(&self, at: At) -> HostTask {
        let order = HostOrder::Clear {
            server: ServerId::new(self.server.id),
            host: at.id(),
            disks: self.local(),
        };
        HostTask {
            key: OrderKey { stream: StreamId::new("host", at.id()), number: 1 },
            order: serde_json::to_value(order).unwrap(),
            state: self.server.state.clone(),
            subject: Value::Null,
            userdata: None,
            password: None,
            stores: BTreeMap::default(),
            leases: BTreeMap::default(),
        }
    }

    async fn cleared(&self, driver: &KvmHost, at: At) {
        let report = driver.carry_out(&self.clear(at)).await.unwrap();
        assert_eq!((report.verb, &report.body["number"]), ("confirm-clearing", &json!(1)));
    }

    /// The whole of it, with nothing in the way.
    async fn goes(&mut self, from: At, live: bool) {
        assert_eq!(self.goes_with(from, live).await, Used::new());
    }

    /// The same, and what its interfaces had used where it was.
    async fn goes_with(&mut self, from: At, live: bool) -> Used {
        let (here, there) = (self.driver(from).await, self.driver(from.other()).await);
        self.order(from, live);
        let step = self.carry_out(&there).await;
        assert!(matches!(self.heard(step), Some(MigrationStep::Prepared { .. })));
        let step = self.carry_out(&here).await;
        let Some(MigrationStep::Sent { certain: true, used }) = self.heard(step) else {
            panic!("it was not handed over")
        };
        let seen = self.carry_out(&there).await;
        assert_eq!(self.heard(seen), None);
        self.cleared(&here, from).await;
        used
    }

    /// It is on this host and nowhere else, as a process, a machine and files: the other has nothing.
    async fn is_only_at(&self, at: At, power: Power, after: &str) {
        let (here, there) = (self.driver(at).await, self.driver(at.other()).await);
        assert_eq!(there.census().await.unwrap(), Census::default(), "{after}");
        let census = here.census().await.unwrap();
        assert_eq!(census.servers, [(self.server.id, power)].into(), "{after}");
        let name = format!("sk-{}", self.server.id);
        let running = if power == Power::Running { [(name, 1)].into() } else { BTreeMap::new() };
        assert_eq!(census.processes, running, "{after}");
        assert_eq!((census.seeds.len(), census.records.len()), (1, 1), "{after}");
        assert_eq!(self.processes(), usize::from(power == Power::Running), "{after}");
        let local = self.local().len();
        assert_eq!((census.disks.len(), self.on_storage()), (local, 2 - local), "{after}");
    }

    /// Its disks that are on its host alone.
    fn local(&self) -> BTreeSet<Uuid> {
        self.server.state.home.as_ref().unwrap().local_disks()
    }

    /// Disks on the storage.
    fn on_storage(&self) -> usize {
        std::fs::read_dir(self.nas.path().join("disks")).map_or(0, Iterator::count)
    }

    /// The file of one of its local disks on a host.
    fn file(&self, at: At, disk: usize) -> std::path::PathBuf {
        let disk = &self.server.state.home.as_ref().unwrap().parts.disks[disk];
        let folder = self.data[at as usize].path().join("disks");
        let mut files = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        let id = disk.id.to_string();
        files.find(|path| path.display().to_string().contains(&id)).unwrap()
    }

    /// QEMUs on the whole machine that have this server, wherever their files are.
    fn processes(&self) -> usize {
        self.pids().len()
    }

    fn pids(&self) -> Vec<(u32, String)> {
        let name = format!("guest=sk-{}", self.server.id);
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.starts_with("/usr/bin/qemu-") && line.contains(&name) {
                found.push((pid, line));
            }
        }
        found
    }

    /// Ends the machine of a host, as the kernel does when there is no memory left.
    fn kill(&self, at: At) {
        let data = self.data[at as usize].path().display().to_string();
        let pids = self.pids();
        let (pid, _) = pids.iter().find(|(_, line)| line.contains(&data)).unwrap();
        let done = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Ends the libvirt daemon of a host, which is started once more; its machines run on.
    fn kill_daemon(&self, at: At) {
        let folder = self.folder(at);
        let config = folder.join("libvirtd.conf").display().to_string();
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.next().is_some_and(|program| program.ends_with(b"libvirtd"))
                && words.any(|word| word == config.as_bytes())
        };
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let pid = pids.find(is_it).expect("the host's daemon");
        std::fs::write(folder.join("again"), "").unwrap();
        let done = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
        assert!(done.success());
        let began = Instant::now();
        while is_it(&pid) {
            assert!(began.elapsed() < PATIENCE, "the daemon does not end");
        }
    }

    /// Carries out what is ordered as its runner does: what may go away by itself is tried again.
    async fn insists(&self, driver: &KvmHost, task: &HostTask) -> Report {
        let began = Instant::now();
        loop {
            match driver.carry_out(task).await {
                Ok(report) => return report,
                Err(DriverFault::Transient(why)) => {
                    assert!(began.elapsed() < PATIENCE, "{why}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(fault) => panic!("{fault}"),
            }
        }
    }

    async fn guest(&self, at: At) -> Guest {
        Guest::at(&self.folder(at), self.server.id).await
    }

    async fn gone(&mut self, at: At) {
        let driver = self.driver(at).await;
        self.evolve(Event::RemovalOrdered {});
        let number = self.server.state.orders.issued;
        self.server.removed(&driver, number).await;
        assert_eq!(driver.census().await.unwrap(), Census::default());
        assert_eq!(self.processes(), 0);
        assert_eq!(self.on_storage(), 0);
    }
}

#[tokio::test]
async fn a_server_goes_to_another_host_and_back_running_and_stopped() {
    let Some(mut pair) = Pair::of_tests(50).await else { return };
    pair.launched().await;
    let guest = Guest::ready_at(&pair.folder(At::First), pair.server.id).await;
    let boot = guest.run("cat /proc/sys/kernel/random/boot_id").await;
    guest.run("echo memory >/tmp/kept; echo disk >/state/kept; sync").await;

    pair.goes(At::First, true).await;
    pair.is_only_at(At::Second, Power::Running, "there").await;
    let guest = pair.guest(At::Second).await;
    assert_eq!(guest.run("cat /proc/sys/kernel/random/boot_id").await, boot, "it went on running");
    assert_eq!(guest.run("cat /tmp/kept /state/kept").await, "memory\ndisk");
    guest.run("echo there >>/state/kept; sync").await;

    pair.goes(At::Second, true).await;
    pair.is_only_at(At::First, Power::Running, "and back").await;
    let guest = pair.guest(At::First).await;
    assert_eq!(guest.run("cat /proc/sys/kernel/random/boot_id").await, boot);
    assert_eq!(guest.run("cat /state/kept").await, "disk\nthere");

    // Stopped, and started where it is then.
    let driver = pair.driver(At::First).await;
    pair.evolve(Event::StopOrdered {});
    let seen = pair.carry_out(&driver).await;
    pair.heard(seen);
    drop(driver);
    pair.goes(At::First, false).await;
    pair.is_only_at(At::Second, Power::Stopped, "stopped").await;
    let driver = pair.driver(At::Second).await;
    pair.evolve(Event::StartOrdered {});
    let seen = pair.carry_out(&driver).await;
    pair.heard(seen);
    drop(driver);
    let guest = pair.guest(At::Second).await;
    guest.becomes("cat /run/seeded", &pair.server.id.to_string()).await;
    assert_eq!(guest.run("cat /state/kept").await, "disk\nthere");
    assert_eq!(guest.run("cat /state/written").await, "first", "its userdata ran once");
    pair.gone(At::Second).await;
}

#[tokio::test]
async fn agents_that_die_at_any_step_leave_one_server_on_one_host() {
    let Some(mut pair) = Pair::of_tests(51).await else { return };
    pair.launched().await;
    let mut at = At::First;
    // By whom each step is done: the host that it goes to, that it leaves, or that again.
    let steps = [
        (Step::Seed, 0),
        (Step::Network, 0),
        (Step::Send, 1),
        (Step::Define, 2),
        (Step::Start, 2),
        (Step::Undefine, 3),
        (Step::Clear, 3),
        (Step::Unplug, 3),
    ];
    for (step, of) in steps {
        for side in [Side::Before, Side::After] {
            let after = format!("{step:?} {side:?}, from {at:?}");
            pair.order(at, true);
            for turn in 0..4 {
                let by = if turn % 2 == 0 { at.other() } else { at };
                let task = if turn == 3 { pair.clear(at) } else { pair.task() };
                if turn == of {
                    let stopper = Stopper::new(End::Dies, (step, side));
                    let driver = pair.driver_with(by, stopper.clone()).await;
                    tokio::select! {
                        done = driver.carry_out(&task) => panic!("{after}: not reached: {done:?}"),
                        () = stopper.stopped.notified() => {}
                    }
                }
                let driver = pair.driver(by).await;
                let report = driver.carry_out(&task).await.unwrap();
                if turn < 3 {
                    pair.heard(report);
                }
                assert_eq!(pair.processes(), 1, "{after}, turn {turn}");
            }
            at = at.other();
            pair.is_only_at(at, Power::Running, &after).await;
        }
    }
    pair.gone(at).await;
}

#[tokio::test]
async fn machines_and_agents_that_die_while_memory_is_sent_leave_one_that_runs() {
    let Some(mut pair) = Pair::of_tests(52).await else { return };
    pair.launched().await;
    Guest::ready_at(&pair.folder(At::First), pair.server.id).await;
    let name = format!("sk-{}", pair.server.id);
    let at = At::First;

    // Sent slowly, so that there is a middle.
    let slow = |pair: &Pair| assert!(pair.virsh(at, &format!("migrate-setspeed {name} 1")).0);
    let under_way = async |pair: &Pair| {
        let began = Instant::now();
        loop {
            let (_, job) = pair.virsh(at, &format!("domjobinfo {name}"));
            if job.contains("Memory processed") && pair.processes() == 2 {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it does not begin: {job}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };

    // It is broken off, by the agent that sends it and by the next, which dies after that.
    pair.limits.mib_per_second = Some(1);
    for is_killed in [false, true] {
        let (here, there) = (pair.driver(at).await, pair.driver(at.other()).await);
        pair.order(at, true);
        let step = pair.carry_out(&there).await;
        pair.heard(step);
        let send = pair.task();
        pair.evolve(Event::BreakOffOrdered {});
        let break_off = pair.task();
        let step = if is_killed {
            tokio::select! {
                step = here.carry_out(&send) => panic!("it was slow: {step:?}"),
                () = under_way(&pair) => {}
            }
            drop(here);
            let stopper = Stopper::new(End::Dies, (Step::BreakOff, Side::After));
            let here = pair.driver_with(at, stopper.clone()).await;
            tokio::select! {
                step = here.carry_out(&break_off) => panic!("not reached: {step:?}"),
                () = stopper.stopped.notified() => {}
            }
            drop(here);
            let here = pair.driver(at).await;
            let late = here.carry_out(&send).await.unwrap_err();
            assert!(late.to_string().contains("taken the place"), "{late}");
            here.carry_out(&break_off).await.unwrap()
        } else {
            let broken_off = async {
                under_way(&pair).await;
                here.carry_out(&break_off).await.unwrap()
            };
            let (sent, step) = tokio::join!(here.carry_out(&send), broken_off);
            assert_eq!(sent.unwrap().body["step"]["type"], "stays");
            drop(here);
            step
        };
        let Some(MigrationStep::Stays { reason, seen }) = pair.heard(step) else { panic!() };
        assert_eq!((reason.as_str(), seen.power), ("it was broken off", Power::Running));
        pair.cleared(&there, at.other()).await;
        drop(there);
        pair.is_only_at(at, Power::Running, "it was broken off").await;
        pair.guest(at).await.run("true").await;
    }

    // It is not through in time: it stays.
    pair.limits.seconds = Some(2);
    let (here, there) = (pair.driver(at).await, pair.driver(at.other()).await);
    pair.order(at, true);
    let step = pair.carry_out(&there).await;
    pair.heard(step);
    let step = pair.carry_out(&here).await;
    let Some(MigrationStep::Stays { reason, .. }) = pair.heard(step) else { panic!() };
    assert_eq!(reason, "it was not through within 2 seconds");
    pair.cleared(&there, at.other()).await;
    drop((here, there));
    pair.is_only_at(at, Power::Running, "its time was over").await;
    pair.limits = TransferLimits::default();

    // The machine that it goes to is killed: it stays.
    let (here, there) = (pair.driver(at).await, pair.driver(at.other()).await);
    pair.order(at, true);
    let step = pair.carry_out(&there).await;
    pair.heard(step);
    slow(&pair);
    let killed = async {
        under_way(&pair).await;
        pair.kill(at.other());
    };
    let (step, ()) = tokio::join!(pair.carry_out(&here), killed);
    let Some(MigrationStep::Stays { reason, seen }) = pair.heard(step) else { panic!() };
    assert_eq!(seen.power, Power::Running, "{reason}");
    pair.cleared(&there, at.other()).await;
    drop((here, there));
    pair.is_only_at(at, Power::Running, "the other machine was killed").await;
    pair.guest(at).await.run("true").await;

    // The agent that sends it is killed: the daemons go on, and the next agent finds them at it.
    let (here, there) = (pair.driver(at).await, pair.driver(at.other()).await);
    pair.order(at, true);
    let step = pair.carry_out(&there).await;
    pair.heard(step);
    slow(&pair);
    tokio::select! {
        step = pair.carry_out(&here) => panic!("it was slow: {step:?}"),
        () = under_way(&pair) => {}
    }
    drop(here);
    assert!(pair.virsh(at, &format!("migrate-setspeed {name} 1000")).0);
    let here = pair.driver(at).await;
    let step = pair.carry_out(&here).await;
    assert_eq!(pair.heard(step), Some(handed_over(true)));
    let seen = pair.carry_out(&there).await;
    assert_eq!(pair.heard(seen), None);
    pair.cleared(&here, at).await;
    drop((here, there));
    pair.is_only_at(at.other(), Power::Running, "the agent was killed").await;
    pair.guest(at.other()).await.run("true").await;

    // Back, and then the machine that sends is killed: it was to run, and is started there.
    pair.goes(at.other(), true).await;
    let (here, there) = (pair.driver(at).await, pair.driver(at.other()).await);
    pair.order(at, true);
    let step = pair.carry_out(&there).await;
    pair.heard(step);
    slow(&pair);
    let killed = async {
        under_way(&pair).await;
        pair.kill(at);
    };
    let (step, ()) = tokio::join!(pair.carry_out(&here), killed);
    assert_eq!(pair.heard(step), Some(handed_over(true)), "it is off here");
    let seen = pair.carry_out(&there).await;
    assert_eq!(pair.heard(seen), None);
    pair.cleared(&here, at).await;
    drop((here, there));
    pair.is_only_at(at.other(), Power::Running, "its machine was killed").await;
    pair.gone(at.other()).await;
}

/// What is killed on the way of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    /// The daemon of the host that it leaves, or of the one that it goes to.
    Daemon { sends: bool },
    /// The server's machine on one of them.
    Machine { sends: bool },
}

/// How far it is then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prepared,
    Sending,
    Sent,
    Arrived,
}

#[tokio::test]
async fn daemons_and_machines_that_die_at_any_phase_leave_one_that_runs() {
    let Some(mut pair) = Pair::of_tests(55).await else { return };
    pair.launched().await;
    Guest::ready_at(&pair.folder(At::First), pair.server.id).await;
    let daemon = |sends| Killed::Daemon { sends };
    let machine = |sends| Killed::Machine { sends };
    let mut cases = Vec::new();
    for phase in [Phase::Prepared, Phase::Sending, Phase::Sent, Phase::Arrived] {
        cases.extend([true, false].map(|sends| (phase, daemon(sends))));
    }
    // While it is sent: see the test before. What is there is killed where there is one.
    cases.extend([(Phase::Prepared, machine(true)), (Phase::Sent, machine(false))]);
    let mut at = At::First;
    for (phase, killed) in cases {
        let after = format!("{killed:?} at {phase:?}, from {at:?}");
        // Sent slowly where there is to be a middle.
        pair.limits.mib_per_second = (phase == Phase::Sending).then_some(2);
        let kill = |pair: &Pair| match killed {
            Killed::Daemon { sends } => pair.kill_daemon(if sends { at } else { at.other() }),
            Killed::Machine { sends } => pair.kill(if sends { at } else { at.other() }),
        };
        let (here, there) = (pair.driver(at).await, pair.driver(at.other()).await);
        pair.order(at, true);
        let step = pair.carry_out(&there).await;
        pair.heard(step);
        if phase == Phase::Prepared {
            kill(&pair);
        }
        let task = pair.task();
        let middle = async {
            if phase == Phase::Sending {
                let began = Instant::now();
                while pair.processes() < 2 {
                    assert!(began.elapsed() < PATIENCE, "{after}: it does not begin");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                kill(&pair);
            }
        };
        let (step, ()) = tokio::join!(pair.insists(&here, &task), middle);
        let step = pair.heard(step);
        let mut goes = match step {
            Some(MigrationStep::Sent { .. }) => true,
            Some(MigrationStep::Stays { .. }) => false,
            step => panic!("{after}: {step:?}"),
        };
        if goes {
            if phase == Phase::Sent {
                kill(&pair);
            }
            let task = pair.task();
            let seen = pair.insists(&there, &task).await;
            match pair.heard(seen) {
                None => {}
                // It was not sure that it had gone, and it had not.
                Some(MigrationStep::Lost {}) if phase == Phase::Sending => {
                    let task = pair.task();
                    let seen = pair.insists(&here, &task).await;
                    assert_eq!(pair.heard(seen), None, "{after}");
                    goes = false;
                }
                step => panic!("{after}: {step:?}"),
            }
            if phase == Phase::Arrived {
                kill(&pair);
            }
        }
        // Whoever has it no more is told to leave nothing.
        let (left, driver) = if goes { (at, &here) } else { (at.other(), &there) };
        let cleared = pair.insists(driver, &pair.clear(left)).await;
        assert_eq!(cleared.verb, "confirm-clearing", "{after}");
        drop((here, there));
        at = left.other();
        // A daemon may still be on its way up.
        for at in [At::First, At::Second] {
            let began = Instant::now();
            while !pair.virsh(at, "version").0 {
                assert!(began.elapsed() < PATIENCE, "{after}: {at:?} does not come back");
            }
        }
        pair.is_only_at(at, Power::Running, &after).await;
        if !matches!(killed, Killed::Machine { .. }) {
            // It went on running.
            pair.guest(at).await.run("true").await;
        }
    }
    pair.gone(at).await;
}

#[tokio::test]
async fn a_server_of_a_dead_host_is_had_back_and_the_host_leaves_nothing_of_its_own() {
    let Some(mut pair) = Pair::of_tests(53).await else { return };
    pair.launched().await;
    let guest = Guest::ready_at(&pair.folder(At::First), pair.server.id).await;
    guest.run("echo kept >/state/kept; sync").await;
    // Its host is taken to be dead, and was only cut off: what is had back does not start beside it.
    let mut to = pair.server.state.home.as_ref().unwrap().placement.clone();
    to.host = At::Second.id();
    pair.evolve(Event::Evacuated { to, start: true });
    let there = pair.driver(At::Second).await;
    let fault = there.carry_out(&pair.task()).await.unwrap_err();
    assert!(fault.to_string().contains("lock"), "{fault}");
    assert_eq!(pair.processes(), 1, "one runs");
    // Its agent is back, and clears first.
    let here = pair.driver(At::First).await;
    pair.cleared(&here, At::First).await;
    assert_eq!(pair.processes(), 0);
    let seen = pair.carry_out(&there).await;
    pair.heard(seen);
    drop((here, there));
    pair.is_only_at(At::Second, Power::Running, "had back").await;
    let guest = Guest::ready_at(&pair.folder(At::Second), pair.server.id).await;
    assert_eq!(guest.run("cat /state/kept").await, "kept");
    pair.gone(At::Second).await;
}

#[tokio::test]
async fn what_is_kept_of_a_disk_goes_on_where_its_server_is() {
    let Some(mut pair) = Pair::of_tests(53).await else { return };
    pair.launched().await;
    let guest = Guest::ready_at(&pair.folder(At::First), pair.server.id).await;
    let store = store(&stand_in()).await;
    let parts = &pair.server.state.home.as_ref().unwrap().parts;
    let root = Of { server: pair.server.id, disk: parts.disks[0].id };
    let snapshot = Uuid::from_u128(0xa3);
    guest.run("echo first >/state/note; sync").await;
    let driver = pair.driver(At::First).await;
    driver.take_snapshot(root, snapshot).await.unwrap();
    driver.back_up(root, &asked(root, 1, None), &store).await.unwrap();
    drop(driver);
    guest.run("echo second >/state/note; sync").await;

    pair.goes(At::First, true).await;
    pair.is_only_at(At::Second, Power::Running, "there").await;
    let driver = pair.driver(At::Second).await;
    assert_eq!(driver.snapshots(root).await.unwrap(), [snapshot]);
    // What has changed is not known there: all is read, next to nothing sent; and then it is known.
    let guest = pair.guest(At::Second).await;
    let more = driver.back_up(root, &asked(root, 2, Some(1)), &store).await.unwrap();
    assert!(more.sent_bytes < 1 << 20, "{more:?}");
    guest.run("echo third >/state/note; sync").await;
    let next = driver.back_up(root, &asked(root, 3, Some(2)), &store).await.unwrap();
    assert!(next.read_bytes < 4 << 20, "{next:?}");
    drop(driver);

    // Back, where there was a checkpoint once.
    pair.goes(At::Second, true).await;
    let driver = pair.driver(At::First).await;
    let last = driver.back_up(root, &asked(root, 4, Some(3)), &store).await.unwrap();
    assert!(last.sent_bytes < 1 << 20, "{last:?}");
    pair.evolve(Event::StopOrdered {});
    let seen = pair.carry_out(&driver).await;
    pair.heard(seen);
    // Four backups on three ways, and the file knows of the changes since the last of them alone.
    let file = pair.nas.path().join("disks").join(format!("{}.qcow2", root.disk));
    let info =
        Command::new("qemu-img").args(["info", "--output=json"]).arg(&file).output().unwrap();
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    let bitmaps = info.pointer("/format-specific/data/bitmaps").and_then(Value::as_array);
    assert_eq!(bitmaps.map(Vec::len), Some(1), "{info}");
    driver.roll_back(root, snapshot).await.unwrap();
    driver.delete_snapshot(root, snapshot).await.unwrap();
    pair.evolve(Event::StartOrdered {});
    let seen = pair.carry_out(&driver).await;
    pair.heard(seen);
    let guest = pair.guest(At::First).await;
    guest.becomes("cat /state/note", "first").await;
    drop(guest);
    pair.evolve(Event::StopOrdered {});
    let seen = pair.carry_out(&driver).await;
    pair.heard(seen);
    driver.write_back(root, (root.disk, next.backup), None, &store).await.unwrap();
    pair.evolve(Event::StartOrdered {});
    let seen = pair.carry_out(&driver).await;
    pair.heard(seen);
    pair.guest(At::First).await.becomes("cat /state/note", "third").await;
    drop(driver);
    pair.gone(At::First).await;
}

#[tokio::test]
async fn what_an_interface_has_used_goes_with_its_server_and_is_counted_on() {
    let Some(mut pair) = Pair::of_tests(57).await else { return };
    pair.server = pair.server.clone().with(|home| {
        home["parts"]["nics"][0]["quota"] = json!({"egress_bytes": 1_u64 << 40});
    });
    let nic = pair.server.state.home.as_ref().unwrap().parts.nics[0].id;
    pair.launched().await;
    drop(Guest::ready_at(&pair.folder(At::First), pair.server.id).await);
    let mut counted = 0;
    for (from, live) in [(At::First, true), (At::Second, true), (At::First, false)] {
        let power = if live {
            // Nobody is there: it asks several times who is.
            let asks = "ping -c 3 -w 4 10.9.0.77 >/dev/null 2>&1; true";
            pair.guest(from).await.run(asks).await;
            Power::Running
        } else {
            let driver = pair.driver(from).await;
            pair.evolve(Event::StopOrdered {});
            let seen = pair.carry_out(&driver).await;
            pair.heard(seen);
            Power::Stopped
        };
        let used = pair.goes_with(from, live).await;
        let sent = used[&nic].egress_bytes;
        if live {
            assert!(sent > counted, "{from:?}: {sent}, and {counted} before");
        }
        assert!(sent >= counted, "{from:?}: {sent}, and {counted} before");
        // The other host goes on from there.
        let seen = pair.server.state.observation.seen.as_ref().unwrap();
        counted = seen.nics[0].traffic.unwrap().egress_bytes;
        assert!(counted >= sent, "{from:?}: {counted} there, and {sent} here");
        let quota = seen.nics[0].quota.unwrap().egress_bytes;
        assert_eq!(quota, Some(1 << 40), "as its kernel says");
        pair.is_only_at(from.other(), power, "with what it has used").await;
    }
    pair.gone(At::Second).await;
}

/// Whether two disks read as the same, whatever lies behind them.
fn are_same(one: &std::path::Path, other: &std::path::Path) -> bool {
    let done = Command::new("qemu-img").arg("compare").args([one, other]).output().unwrap();
    done.status.success()
}

#[tokio::test]
async fn a_server_takes_its_own_disks_along_and_runs_on_the_cpus_that_it_has_there() {
    let Some(mut pair) = Pair::with(54, false).await else { return };
    pair.server = pair.server.clone().with(|home| {
        home["placement"]["holding"]["pins"] = json!([{"vcpu": 0, "cpu": 1}]);
        home["placement"]["holding"]["cpus"] = json!([1]);
    });
    pair.launched().await;
    let guest = Guest::ready_at(&pair.folder(At::First), pair.server.id).await;
    let boot = guest.run("cat /proc/sys/kernel/random/boot_id").await;
    guest.run("echo memory >/tmp/kept; echo disk >/state/kept; sync").await;
    assert_eq!(allowed(&process(pair.server.id), "CPU 0/"), "1");

    // While it runs, and is written.
    pair.goes(At::First, true).await;
    pair.is_only_at(At::Second, Power::Running, "there").await;
    assert_eq!(allowed(&process(pair.server.id), "CPU 0/"), "0", "it has another there");
    let guest = pair.guest(At::Second).await;
    assert_eq!(guest.run("cat /proc/sys/kernel/random/boot_id").await, boot, "it went on running");
    assert_eq!(guest.run("cat /tmp/kept /state/kept").await, "memory\ndisk");
    guest.run("echo there >>/state/kept; sync").await;

    // Its machine is killed while they are copied: what is there is not all of it, and is not started.
    let (here, there) = (pair.driver(At::Second).await, pair.driver(At::First).await);
    pair.limits.mib_per_second = Some(1);
    pair.order(At::Second, true);
    let step = pair.carry_out(&there).await;
    pair.heard(step);
    let killed = async {
        let began = Instant::now();
        while pair.processes() < 2 {
            assert!(began.elapsed() < PATIENCE, "it does not begin");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        pair.kill(At::Second);
    };
    let (step, ()) = tokio::join!(pair.carry_out(&here), killed);
    assert_eq!(pair.heard(step), Some(handed_over(false)));
    let step = pair.carry_out(&there).await;
    assert_eq!(pair.heard(step), Some(MigrationStep::Lost {}));
    let seen = pair.carry_out(&here).await;
    assert_eq!(pair.heard(seen), None);
    pair.cleared(&there, At::First).await;
    drop((here, there));
    pair.is_only_at(At::Second, Power::Stopped, "its machine was killed").await;
    pair.limits = TransferLimits::default();

    // Stopped: nothing of it is started by that, and the agent dies before and after.
    let kept = pair.data[1].path().join("kept");
    for (at, side) in [(At::Second, Side::Before), (At::First, Side::After)] {
        std::fs::copy(pair.file(at, 1), &kept).unwrap();
        let (here, there) = (pair.driver(at).await, pair.driver(at.other()).await);
        pair.order(at, false);
        let step = pair.carry_out(&there).await;
        pair.heard(step);
        drop(here);
        let stopper = Stopper::new(End::Dies, (Step::Send, side));
        let here = pair.driver_with(at, stopper.clone()).await;
        let task = pair.task();
        tokio::select! {
            done = here.carry_out(&task) => panic!("not reached: {done:?}"),
            () = stopper.stopped.notified() => {}
        }
        drop(here);
        let here = pair.driver(at).await;
        let step = pair.carry_out(&here).await;
        let step = pair.heard(step);
        if side == Side::Before {
            assert_eq!(step, Some(handed_over(true)));
            let seen = pair.carry_out(&there).await;
            assert_eq!(pair.heard(seen), None);
            pair.cleared(&here, at).await;
            drop((here, there));
            pair.is_only_at(at.other(), Power::Stopped, "stopped").await;
            assert!(are_same(&kept, &pair.file(at.other(), 1)), "all of it is there");
        } else {
            // That all of it was there by then nobody knows.
            assert!(matches!(step, Some(MigrationStep::Stays { .. })), "{step:?}");
            pair.cleared(&there, at.other()).await;
            drop((here, there));
            pair.is_only_at(at, Power::Stopped, "the agent died after it was sent").await;
            assert!(are_same(&kept, &pair.file(at, 1)), "it stays");
        }
        std::fs::remove_file(&kept).unwrap();
    }
    let driver = pair.driver(At::First).await;
    pair.evolve(Event::StartOrdered {});
    let seen = pair.carry_out(&driver).await;
    pair.heard(seen);
    drop(driver);
    let guest = pair.guest(At::First).await;
    guest.becomes("cat /run/seeded", &pair.server.id.to_string()).await;
    assert_eq!(guest.run("cat /state/kept").await, "disk\nthere");
    pair.gone(At::First).await;
}
