//! Agents of hosts: what becomes of orders when an agent, a server or the line between them is away.
//! Nothing is lost, nothing is done twice, and what hosts really have is what the log says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adapters_agent::{Agent, AgentFault, EpochFile, Line, LineFault, LocalLine, Options};
use adapters_sim::{HostFault, HostStep, SimHosts};
use async_trait::async_trait;
use commands::{
    desk::{AWAY_AFTER, Busy, Given, Outcome},
    ledger::Ledger,
    ports::{
        DriverFault, HostDriver, HostTask, LocalHost, Pipe, Report, ServerPower, ServerPowers,
    },
    progress::{self, Progress},
    run_orders::{LEASE_TERM, Runner},
    submit::SubmitFault,
};
use domain::{
    compute::{
        host::{Host, HostSighting},
        server::{
            Power,
            console::{ConsoleEnd, ConsoleKind},
        },
    },
    kernel::{Decider, OrderKey, Principal},
};
use serde_json::json;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use crate::{
    hosts::{code, consoles::Looker},
    world::{World, small},
};

/// What is awaited takes a fraction of it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A line that can be cut, and led to another server.
struct Wire {
    cut: watch::Sender<bool>,
    /// How many answers get to the desk and are lost on their way back.
    answers_lost: AtomicUsize,
    inner: Mutex<Arc<LocalLine>>,
}

impl Wire {
    fn to(ledger: &Arc<Ledger>, host: Uuid) -> Arc<Self> {
        Arc::new(Self {
            cut: watch::Sender::new(false),
            answers_lost: AtomicUsize::new(0),
            inner: Mutex::new(Arc::new(LocalLine::new(ledger.clone(), host))),
        })
    }

    fn lead_to(&self, ledger: &Arc<Ledger>, host: Uuid) {
        // Whoever waits at the other end gets no answer any more.
        self.cut.send_replace(true);
        *self.inner.lock().unwrap() = Arc::new(LocalLine::new(ledger.clone(), host));
        self.cut.send_replace(false);
    }

    async fn over<T>(
        &self,
        call: impl AsyncFnOnce(Arc<LocalLine>) -> Result<T, LineFault>,
    ) -> Result<T, LineFault> {
        let mut cut = self.cut.subscribe();
        let broken = || LineFault::Broken("the line is cut".to_owned());
        if *cut.borrow_and_update() {
            return Err(broken());
        }
        let line = self.inner.lock().unwrap().clone();
        tokio::select! {
            answer = call(line) => answer,
            _ = cut.changed() => Err(broken()),
        }
    }
}

#[async_trait]
impl Line for Wire {
    async fn join(&self, agent: &str) -> Result<u64, LineFault> {
        self.over(async |line| line.join(agent).await).await
    }
    async fn sight(
        &self,
        epoch: u64,
        seen: &HostSighting,
        servers: &ServerPowers,
    ) -> Result<(), LineFault> {
        self.over(async |line| line.sight(epoch, seen, servers).await).await
    }
    async fn tasks(&self, epoch: u64, busy: &Busy, wait: Duration) -> Result<Given, LineFault> {
        self.over(async |line| line.tasks(epoch, busy, wait).await).await
    }
    async fn console(
        &self,
        epoch: u64,
        call: Uuid,
        console: Result<Pipe, DriverFault>,
    ) -> Result<(), LineFault> {
        self.over(async |line| line.console(epoch, call, console).await).await
    }
    async fn answer(
        &self,
        epoch: u64,
        key: &OrderKey,
        outcome: &Outcome,
    ) -> Result<bool, LineFault> {
        let answer = self.over(async |line| line.answer(epoch, key, outcome).await).await;
        let less = |left: usize| left.checked_sub(1);
        if self.answers_lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Err(LineFault::Broken("the answer was lost".to_owned()));
        }
        answer
    }
}

/// When a host stops in the middle of an order, until it is let go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halt {
    Before,
    After,
}

/// A host in memory whose orders can be halted and are counted.
struct Watched {
    inner: Arc<dyn LocalHost>,
    halt: Mutex<Option<Halt>>,
    halted: Notify,
    go_on: Notify,
    carried_out: Mutex<BTreeMap<OrderKey, usize>>,
    /// What its servers are kept off, and how often that fails before it goes.
    reserved: watch::Sender<BTreeSet<u32>>,
    reserving_fails: AtomicUsize,
}

impl Watched {
    fn new(world: &World, host: Uuid) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(world.hosts.local(host, SimHosts::sighting(1, 4, 8_192))),
            halt: Mutex::default(),
            halted: Notify::new(),
            go_on: Notify::new(),
            carried_out: Mutex::default(),
            reserved: watch::Sender::default(),
            reserving_fails: AtomicUsize::new(0),
        })
    }

    fn halt(&self, at: Halt) {
        *self.halt.lock().unwrap() = Some(at);
    }

    async fn halts(&self, at: Halt) {
        let halts = self.halt.lock().unwrap().take_if(|halt| *halt == at).is_some();
        if halts {
            progress::expect(1_000);
            progress::add(400);
            self.halted.notify_one();
            self.go_on.notified().await;
        }
    }

    fn times(&self) -> Vec<usize> {
        self.carried_out.lock().unwrap().values().copied().collect()
    }
}

/// As the agent holds it.
struct Shared(Arc<Watched>);

#[async_trait]
impl LocalHost for Shared {
    fn agent(&self) -> String {
        self.0.inner.agent()
    }
    async fn sight(&self) -> Result<HostSighting, DriverFault> {
        self.0.inner.sight().await
    }
    async fn reserve_cpus(&self, cpus: &BTreeSet<u32>) -> Result<(), DriverFault> {
        let less = |left: usize| left.checked_sub(1);
        let fails = &self.0.reserving_fails;
        if fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Err(DriverFault::Transient("libvirt is away".to_owned()));
        }
        self.0.reserved.send_replace(cpus.clone());
        Ok(())
    }
    fn driver(&self, epoch: u64) -> Arc<dyn HostDriver> {
        Arc::new(Halting { watched: self.0.clone(), inner: self.0.inner.driver(epoch) })
    }
}

struct Halting {
    watched: Arc<Watched>,
    inner: Arc<dyn HostDriver>,
}

#[async_trait]
impl HostDriver for Halting {
    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        *self.watched.carried_out.lock().unwrap().entry(task.key.clone()).or_default() += 1;
        self.watched.halts(Halt::Before).await;
        let report = self.inner.carry_out(task).await;
        self.watched.halts(Halt::After).await;
        report
    }
    async fn console(
        &self,
        call: Uuid,
        server: Uuid,
        console: ConsoleKind,
        lent: Option<std::net::Ipv4Addr>,
    ) -> Result<Pipe, DriverFault> {
        self.inner.console(call, server, console, lent).await
    }
}

/// A runner and a desk's watch of one server process, which can be killed.
struct Process {
    ledger: Arc<Ledger>,
    tasks: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(ledger: Arc<Ledger>) -> Self {
        let runner = Runner::new(ledger.clone(), 8);
        let running = tokio::spawn(async move { runner.run(std::future::pending()).await });
        let own = ledger.clone();
        let watching =
            tokio::spawn(async move { own.desk.watch(&own, std::future::pending()).await });
        Self { ledger, tasks: vec![running, watching] }
    }

    async fn kill(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

/// A host whose agent comes to a server over a wire.
struct Site {
    world: World,
    host: Uuid,
    wire: Arc<Wire>,
    watched: Arc<Watched>,
}

impl Site {
    async fn new() -> Self {
        let world = World::empty(small());
        let settings = json!({"cpu_overcommit_percent": 100});
        let body = json!({"name": "kvm-1", "settings": settings});
        let host = world.send("host", None, "enrol", body).await.unwrap().id;
        let wire = Wire::to(&world.ledger, host);
        let watched = Watched::new(&world, host);
        Self { world, host, wire, watched }
    }

    fn server(&self) -> Process {
        Process::start(self.world.ledger.clone())
    }

    /// Another process on the same store.
    fn another(&self) -> Arc<Ledger> {
        Ledger::new(self.world.ledger.ports.clone())
    }

    fn agent_with(&self, options: Options) -> JoinHandle<Result<(), AgentFault>> {
        let (line, local) = (self.wire.clone(), Arc::new(Shared(self.watched.clone())));
        let agent = Agent::new(line, local, self.world.clock.clone(), options);
        tokio::spawn(async move { agent.run(std::future::pending()).await })
    }

    /// An agent that works, and is known to.
    async fn agent(&self) -> JoinHandle<Result<(), AgentFault>> {
        let before = self.state().await.epoch;
        let agent = self.agent_with(hurried());
        self.until(|host| host.epoch > before && host.seen.is_some()).await;
        agent
    }

    async fn state(&self) -> Host {
        self.world.ledger.typed(&self.host.to_string()).await.unwrap().1
    }

    async fn until(&self, is: impl Fn(&Host) -> bool) {
        self.world.when(async || is(&self.state().await)).await;
    }

    async fn launched(&self, name: &str) -> Uuid {
        self.world.launch(name, 1, 64).await.unwrap()
    }

    async fn is(&self, server: Uuid, status: &str) {
        self.world.when(async || self.world.server(server).await.status() == status).await;
    }

    async fn order(&self, server: Uuid, verb: &str, status: &str) {
        self.world.send("server", server, verb, json!({})).await.unwrap();
        self.is(server, status).await;
    }

    /// Waits until the agent is in the middle of an order.
    async fn halted(&self) {
        tokio::time::timeout(PATIENCE, self.watched.halted.notified()).await.unwrap();
    }

    fn boots(&self, server: Uuid) -> u32 {
        self.world.hosts.census(self.host)[&server].boots
    }
}

impl World {
    /// Waits until something is so, and looks whenever the log has grown.
    async fn when(&self, is: impl AsyncFn() -> bool) {
        let waiting = async {
            loop {
                let head = self.log.head().await.unwrap().position;
                if is().await {
                    return;
                }
                self.log.appended(head).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it is so in time");
    }
}

/// Short waits, so that the hurried clock does not run away.
fn hurried() -> Options {
    let short = Duration::from_secs(1);
    Options { wait: short, sight_every: short, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_carries_out_a_server_s_whole_life() {
    let site = Site::new().await;
    // Nobody works for the host yet, and the launch is told so.
    let refused = site.world.launch("early", 1, 64).await;
    let Err(SubmitFault::Refused(no)) = &refused else { panic!("{refused:?}") };
    assert!(no.detail.contains("agent-not-joined 1"), "{}", no.detail);
    let _server = site.server();
    let agent = site.agent().await;
    let id = site.launched("web").await;
    site.is(id, "running").await;
    for (verb, status) in [
        ("reboot", "running"),
        ("stop", "stopped"),
        ("start", "running"),
        ("stop", "stopped"),
        ("delete", "deleted"),
        ("purge", "gone"),
    ] {
        site.world.same_as_census(site.host).await;
        site.order(id, verb, status).await;
        if verb == "reboot" {
            site.world.when(async || site.world.server(id).await.order().is_none()).await;
            assert_eq!(site.boots(id), 2);
        }
    }
    site.world.same_as_census(site.host).await;
    assert!(site.world.hosts.census(site.host).is_empty());
    assert!(site.watched.times().iter().all(|times| *times == 1), "{:?}", site.watched.times());
    assert!(!agent.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_a_host_are_tried_again_parked_and_told_as_if_it_were_here() {
    let site = Site::new().await;
    let _server = site.server();
    let _agent = site.agent().await;
    site.world.hosts.break_next(HostStep::Define, HostFault::Transient);
    site.world.hosts.break_next(HostStep::Start, HostFault::AnswerLost);
    let id = site.launched("web").await;
    site.is(id, "running").await;
    assert_eq!(site.boots(id), 1);
    assert_eq!(site.world.hosts.hit().len(), 2);
    let why = "no such machine type".to_owned();
    site.world.hosts.break_next(HostStep::Define, HostFault::Rejected(why.clone()));
    let bad = site.launched("bad").await;
    site.is(bad, "parked").await;
    let row = site.world.row(bad).await;
    assert!(row["order"]["parked"].as_str().unwrap().contains(&why), "{row}");
    // A fault is not kept: the person's `retry` is a try.
    site.order(bad, "retry", "running").await;
    site.world.same_as_census(site.host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_without_a_line_loses_nothing_and_does_nothing_twice() {
    let site = Site::new().await;
    let _server = site.server();
    let _agent = site.agent().await;
    // Cut while an order is in the agent's hands, and another is not yet.
    site.watched.halt(Halt::Before);
    let begun = site.launched("begun").await;
    site.halted().await;
    site.wire.cut.send_replace(true);
    let waiting = site.launched("waiting").await;
    site.world.clock.advance(Duration::from_hours(1));
    site.until(|host| host.unreachable_since.is_some()).await;
    // Meanwhile the agent finishes what it had.
    site.watched.go_on.notify_one();
    let refused = site.world.launch("late", 1, 64).await;
    let Err(SubmitFault::Refused(no)) = &refused else { panic!("{refused:?}") };
    assert!(no.detail.contains("agent-unreachable 1"), "{}", no.detail);
    for id in [begun, waiting] {
        let server = site.world.server(id).await;
        assert_eq!(server.status(), "launching", "it waits, and is neither parked nor lost");
    }
    assert_eq!(site.state().await.status(), "ready", "its life is another matter");

    site.wire.cut.send_replace(false);
    for id in [begun, waiting] {
        site.is(id, "running").await;
        assert_eq!(site.boots(id), 1);
    }
    site.until(|host| host.unreachable_since.is_none()).await;
    assert_eq!(site.watched.times(), [1, 1], "each order was carried out once");
    assert_eq!(site.state().await.epoch, 1, "it did not have to join again");
    site.launched("after").await;
    let events: Vec<_> = site.world.history("host", site.host).await;
    let told = events.iter().filter(|one| one.event_type().starts_with("became-"));
    let told: Vec<_> = told.map(|one| one.event_type().to_owned()).collect();
    assert_eq!(told, ["became-unreachable", "became-reachable"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_before_or_after_an_order_is_followed_by_the_next() {
    for at in [Halt::Before, Halt::After] {
        let site = Site::new().await;
        let _server = site.server();
        let mut agent = site.agent().await;
        let mut id = Uuid::nil();
        for (verb, status) in [
            ("launch", "running"),
            ("reboot", "running"),
            ("stop", "stopped"),
            ("start", "running"),
            ("stop", "stopped"),
            ("delete", "deleted"),
            ("purge", "gone"),
        ] {
            if verb == "delete" {
                site.order(id, verb, status).await;
                continue;
            }
            site.watched.halt(at);
            if verb == "launch" {
                id = site.launched("web").await;
            } else {
                site.world.send("server", id, verb, json!({})).await.unwrap();
            }
            site.halted().await;
            agent.abort();
            assert!(agent.await.unwrap_err().is_cancelled());
            agent = site.agent().await;
            site.world.when(async || site.world.server(id).await.order().is_none()).await;
            assert_eq!(site.world.server(id).await.status(), status, "{at:?} {verb}");
            if status == "running" {
                let boots = match verb {
                    "launch" => 1,
                    "reboot" => 2,
                    _ => 3,
                };
                assert_eq!(site.boots(id), boots, "{at:?} {verb}");
            }
            site.world.same_as_census(site.host).await;
        }
        assert_eq!(site.state().await.epoch, 7, "each agent has joined");
        let parked = site.world.history("server", id).await;
        assert!(parked.iter().all(|one| one.event_type() != "parked"), "none was counted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_an_agent_works_finds_the_order_done() {
    for at in [Halt::Before, Halt::After] {
        let site = Site::new().await;
        let server = site.server();
        let agent = site.agent().await;
        site.watched.halt(at);
        let id = site.launched("web").await;
        site.halted().await;
        let first = server.ledger.clone();
        server.kill().await;
        let next = site.another();
        site.wire.lead_to(&next, site.host);
        // The lease of the one that was killed has to end first.
        site.world.clock.advance(LEASE_TERM);
        let _next = Process::start(next.clone());
        site.watched.go_on.notify_one();
        site.is(id, "running").await;
        assert_eq!(site.boots(id), 1);
        assert_eq!(site.watched.times(), [1], "{at:?}: the outcome was kept and brought");
        assert_eq!(site.state().await.epoch, 1);
        assert!(first.desk.heard(site.host).is_some() && !agent.is_finished());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_on_its_way_is_brought_again() {
    let site = Site::new().await;
    let _server = site.server();
    let _agent = site.agent().await;
    site.wire.answers_lost.store(2, Ordering::SeqCst);
    let id = site.launched("web").await;
    site.is(id, "running").await;
    site.order(id, "reboot", "running").await;
    site.world.when(async || site.world.server(id).await.order().is_none()).await;
    assert_eq!(site.boots(id), 2);
    assert_eq!(site.watched.times(), [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_server_processes_the_one_that_hears_the_agent_works() {
    let site = Site::new().await;
    let there = site.another();
    let _here = site.server();
    let _there = Process::start(there.clone());
    site.wire.lead_to(&there, site.host);
    let _agent = site.agent().await;
    assert!(site.world.ledger.host_driver(site.host).is_none());
    let id = site.launched("web").await;
    site.is(id, "running").await;
    // The agent comes to the other one: that goes on, in the same epoch.
    site.wire.lead_to(&site.world.ledger, site.host);
    site.world.clock.advance(AWAY_AFTER);
    site.order(id, "stop", "stopped").await;
    assert_eq!(site.state().await.epoch, 1);
    site.world.clock.advance(AWAY_AFTER);
    assert!(there.host_driver(site.host).is_none(), "it is away from there");
    let events = site.world.history("host", site.host).await;
    let told = events.iter().any(|one| one.event_type() == "became-unreachable");
    assert!(!told, "somebody heard it all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_does_not_hear_the_agent_takes_no_lease() {
    let site = Site::new().await;
    let _agent = site.agent().await;
    let id = site.launched("web").await;
    site.world.caught_up().await;
    let deaf = Runner::new(site.another(), 8);
    for _ in 0..3 {
        deaf.pass().await.unwrap();
        let held = site.world.ledger.ports.leases.held().await.unwrap();
        assert!(held.iter().all(|key| !key.starts_with("server/")), "{held:?}");
    }
    let hears = Runner::new(site.world.ledger.clone(), 8);
    hears.pass().await.unwrap();
    assert_eq!(site.world.server(id).await.status(), "running", "at its first try");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_an_older_epoch_is_told_so_and_changes_nothing() {
    let site = Site::new().await;
    let _server = site.server();
    let first = site.agent().await;
    site.watched.halt(Halt::Before);
    let id = site.launched("web").await;
    site.halted().await;
    // Another agent joins while the first is in the middle of an order, and has a line of its own.
    let wire = Wire::to(&site.world.ledger, site.host);
    let second = Site { wire, watched: Watched::new(&site.world, site.host), ..site };
    let agent = second.agent().await;
    let fenced = tokio::time::timeout(PATIENCE, first).await.unwrap().unwrap();
    assert!(matches!(fenced, Err(AgentFault::Fenced(_))), "{fenced:?}");
    second.is(id, "running").await;
    assert_eq!(second.boots(id), 1);
    assert!(!agent.is_finished());

    // Whatever is sent in the old epoch changes nothing.
    let head = second.world.log.head().await.unwrap().position;
    let (ledger, by, host) = (&second.world.ledger, Principal::system("test"), second.host);
    let desk = &ledger.desk;
    let seen = SimHosts::sighting(1, 1, 64);
    let none = ServerPowers::new();
    assert_eq!(code(desk.sight(ledger, &by, host, 1, &seen, &none).await), "stale-epoch");
    let power = ServerPower { number: 1, power: Power::Stopped };
    let told = desk.sight(ledger, &by, host, 1, &seen, &ServerPowers::from([(id, power)])).await;
    assert_eq!(code(told), "stale-epoch");
    let (none, zero, never) = (BTreeSet::new(), Duration::ZERO, std::future::pending());
    let asked = desk.next(ledger, &by, host, 1, none, zero, never).await;
    assert_eq!(code(asked), "stale-epoch");
    let key = OrderKey { stream: domain::kernel::StreamId::new("server", id), number: 1 };
    let report = Outcome::Report { verb: "confirm".into(), body: json!({"number": 1}) };
    assert_eq!(code(desk.answer(ledger, &by, host, 1, &key, report).await), "stale-epoch");
    let future = desk.sight(ledger, &by, host, 9, &seen, &ServerPowers::new()).await;
    assert_eq!(code(future), "stale-epoch", "nor one that the log does not know");
    assert_eq!(second.world.log.head().await.unwrap().position, head);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_an_order_is_is_known_while_it_goes_on_and_is_in_no_record() {
    let site = Site::new().await;
    let _server = site.server();
    let _agent = site.agent().await;
    site.watched.halt(Halt::Before);
    let id = site.launched("web").await;
    site.halted().await;
    let (ledger, head) = (&site.world.ledger, site.world.log.head().await.unwrap().position);
    let far = || ledger.progress("server", &id.to_string());
    // It is told with the agent's next question, and nobody tells when that comes.
    let told = async {
        while far().is_none() {
            site.world.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(far(), Some(Progress { done_bytes: 400, total_bytes: 1_000 }));
    assert_eq!(ledger.progress("server", &site.host.to_string()), None, "it is of that order");
    assert_eq!(site.another().progress("server", &id.to_string()), None, "it is in memory alone");
    assert_eq!(site.world.log.head().await.unwrap().position, head);
    site.watched.go_on.notify_one();
    site.is(id, "running").await;
    assert_eq!(far(), None, "it is through");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_by_itself_is_told_by_its_own_host_alone() {
    let site = Site::new().await;
    let _server = site.server();
    let _agent = site.agent().await;
    let id = site.launched("web").await;
    site.is(id, "running").await;
    let (ledger, by) = (&site.world.ledger, Principal::system("test"));
    let tell = async |host: Uuid, number: u64, power: Power| {
        let servers = ServerPowers::from([(id, ServerPower { number, power })]);
        let epoch = ledger.typed::<Host>(&host.to_string()).await.unwrap().1.epoch;
        let seen = SimHosts::sighting(1, 4, 8_192);
        ledger.desk.sight(ledger, &by, host, epoch, &seen, &servers).await.unwrap();
    };
    // Another host has nothing to say of it, and a look that an order has overtaken says nothing.
    let other = site.world.host("kvm-2", 1, 4, 8_192).await;
    tell(other, 1, Power::Stopped).await;
    tell(site.host, 0, Power::Stopped).await;
    assert_eq!(site.world.server(id).await.status(), "running");
    tell(site.host, 1, Power::Stopped).await;
    assert_eq!(site.world.server(id).await.status(), "stopped");
    let head = site.world.log.head().await.unwrap().position;
    tell(site.host, 1, Power::Stopped).await;
    assert_eq!(site.world.log.head().await.unwrap().position, head, "it is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_does_not_work_for_a_server_that_was_set_back() {
    let site = Site::new().await;
    let folder = site.world.folder().join("agent");
    let file = EpochFile::within(&folder).unwrap();
    file.begin(7).unwrap();
    let options = Options { epoch_file: Some(file), ..hurried() };
    let ended = tokio::time::timeout(PATIENCE, site.agent_with(options)).await.unwrap().unwrap();
    let fault = ended.unwrap_err();
    assert!(matches!(fault, AgentFault::Epoch(_)), "{fault}");
    assert!(fault.to_string().contains("epoch 1") && fault.to_string().contains("remove"));
    assert!(site.state().await.seen.is_none(), "it did nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_to_end_finishes_what_it_has_begun() {
    let site = Site::new().await;
    let _server = site.server();
    let (stop, mut stopping) = watch::channel(false);
    let (line, local) = (site.wire.clone(), Arc::new(Shared(site.watched.clone())));
    let agent = Agent::new(line, local, site.world.clock.clone(), hurried());
    let stopped = async move { drop(stopping.wait_for(|yes| *yes).await) };
    let agent = tokio::spawn(async move { agent.run(stopped).await });
    site.until(|host| host.seen.is_some()).await;
    site.watched.halt(Halt::Before);
    let id = site.launched("web").await;
    site.halted().await;
    stop.send_replace(true);
    let ended = AtomicBool::new(false);
    let ends = async {
        agent.await.unwrap().unwrap();
        ended.store(true, Ordering::SeqCst);
    };
    let goes_on = async {
        tokio::task::yield_now().await;
        assert!(!ended.load(Ordering::SeqCst));
        site.watched.go_on.notify_one();
    };
    tokio::join!(ends, goes_on);
    assert!(site.world.hosts.census(site.host)[&id].running);
    site.is(id, "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_brings_consoles_and_they_go_with_it() {
    let site = Site::new().await;
    let server = site.server();
    let agent = site.agent().await;
    let id = site.launched("web").await;
    site.is(id, "running").await;
    let (world, ledger) = (&site.world, &site.world.ledger);
    let mut screen = Looker::of_kind(world, id, "vnc").await;
    screen.reads("RFB 003.008\n").await;
    let mut serial = Looker::of_kind(world, id, "serial").await;
    serial.reads("login: ").await;
    serial.types("x").await;
    serial.reads("x").await;
    // The server stops, and what shows it is closed.
    site.order(id, "stop", "stopped").await;
    assert_eq!(serial.ended().await, ConsoleEnd::ServerStopped);
    assert_eq!(screen.ended().await, ConsoleEnd::ServerStopped);
    site.order(id, "start", "running").await;
    let mut serial = Looker::of_kind(world, id, "serial").await;
    serial.reads("login: ").await;
    agent.abort();
    assert_eq!(serial.ended().await, ConsoleEnd::HostClosed);
    // Another agent, and there is a console again.
    let _second = site.agent().await;
    // The log knows of it first, and the desk a moment later.
    let epoch = site.state().await.epoch;
    let heard = || ledger.desk.heard(site.host);
    world.when(async || heard().is_some_and(|heard| heard.epoch == epoch)).await;
    let mut serial = Looker::of_kind(world, id, "serial").await;
    serial.reads("login: ").await;
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_told_which_cpus_no_server_gets() {
    let site = Site::new().await;
    let _server = site.server();
    let agent = site.agent().await;
    let mut reserved = site.watched.reserved.subscribe();
    let mut told = async |wanted: BTreeSet<u32>| {
        let is = reserved.wait_for(|cpus| *cpus == wanted);
        tokio::time::timeout(PATIENCE, is).await.expect("it is told in time").unwrap();
    };
    let configure = async |cpus: &[u32]| {
        let settings = json!({"settings": {"cpus_reserved": cpus}});
        site.world.send("host", site.host, "configure", settings).await.unwrap();
    };
    // One that could not do it is told again.
    site.watched.reserving_fails.store(2, Ordering::SeqCst);
    configure(&[0, 3]).await;
    told([0, 3].into()).await;
    assert_eq!(site.watched.reserving_fails.load(Ordering::SeqCst), 0);
    configure(&[]).await;
    told([].into()).await;
    // Said while nobody works for the host, it is told with the first answer.
    agent.abort();
    let _ = agent.await;
    configure(&[2]).await;
    let _agent = site.agent().await;
    told([2].into()).await;
}
