//! Consoles of servers of ours: one ticket opens one of one server once, bytes go both ways, and whatever
//! ends it is recorded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use commands::{
    consoles::{self, EnterFault, Entered, IDLE_MAX, OPEN_MAX},
    ledger::Ledger,
    ports::Pipe,
};
use domain::{
    compute::server::console::{CONSOLES_MAX, ConsoleEnd},
    kernel::{Principal, Reach, Role},
};
use futures::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use super::code;
use crate::world::{World, small};

const PATIENCE: Duration = Duration::from_mins(1);
/// How many tickets may be over before they are used.
const TICKETS: u32 = 20;

impl World {
    /// A ticket for a console of a server.
    pub(crate) async fn ticket(&self, server: Uuid, console: &str) -> String {
        let asked = self.send("server", server, "open-console", json!({"console": console})).await;
        asked.unwrap().secret.unwrap()
    }

    async fn events(&self, server: Uuid, tag: &str) -> Vec<Value> {
        let records = self.history("server", server).await;
        let those = records.iter().filter(|one| one.event_type() == tag);
        those.map(|one| serde_json::from_slice(one.data()).unwrap()).collect()
    }
}

fn refused(entered: Result<Entered, EnterFault>) -> (String, String) {
    match entered {
        Err(EnterFault::Submit(commands::submit::SubmitFault::Refused(no))) => {
            (no.code.code.to_owned(), no.detail)
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was let in"),
    }
}

/// Somebody who looks.
pub(crate) struct Looker {
    pub(crate) pipe: Pipe,
    right: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    ended: JoinHandle<ConsoleEnd>,
}

impl Looker {
    pub(crate) async fn at(ledger: &Arc<Ledger>, server: Uuid, ticket: &str) -> Self {
        Self::of(
            consoles::enter(ledger, server, ticket).await.map_err(|no| no.to_string()).unwrap(),
        )
    }

    /// By a ticket of this kind. The clock hurries with all that waits beside this, so a ticket may be over
    /// before it is used; then it is another one.
    pub(crate) async fn of_kind(world: &World, server: Uuid, console: &str) -> Self {
        for _ in 0..TICKETS {
            let ticket = world.ticket(server, console).await;
            match consoles::enter(&world.ledger, server, &ticket).await {
                Ok(entered) => return Self::of(entered),
                Err(no) => assert_eq!(no.to_string(), "ticket: its time is over"),
            }
        }
        panic!("{TICKETS} tickets were over before they were used");
    }

    fn of(entered: Entered) -> Self {
        let (pipe, theirs) = Pipe::pair();
        let (right, stop) = (Arc::new(AtomicBool::new(true)), watch::Sender::new(false));
        let (has, mut stopped) = (right.clone(), stop.subscribe());
        let ended = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            entered.relay(theirs, |_| has.load(Ordering::SeqCst), stopped).await
        });
        Self { pipe, right, stop, ended }
    }

    pub(crate) async fn reads(&mut self, wanted: &str) {
        let mut read = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&read).contains(wanted) {
                read.extend(self.pipe.into.next().await.expect("it is open"));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("it comes in time");
    }

    pub(crate) async fn types(&mut self, text: &str) {
        self.pipe.out.send(text.as_bytes().to_vec()).await.unwrap();
    }

    pub(crate) async fn ended(self) -> ConsoleEnd {
        let Self { pipe: _pipe, right: _right, stop: _stop, ended } = self;
        tokio::time::timeout(PATIENCE, ended).await.expect("it ends in time").unwrap()
    }
}

async fn running(world: &World, name: &str) -> Uuid {
    let id = world.launch(name, 1, 64).await.unwrap();
    world.settle().await;
    id
}

async fn with_server() -> (World, Uuid, Uuid) {
    let world = World::empty(small());
    let host = world.host("kvm-1", 1, 8, 8_192).await;
    let id = running(&world, "web").await;
    (world, host, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_console_of_one_server_once_within_a_minute() {
    let (world, _, id) = with_server().await;
    let other = running(&world, "db").await;
    let ticket = world.ticket(id, "serial").await;
    let enter = async |server, ticket: &str| consoles::enter(&world.ledger, server, ticket).await;
    // Of another server, of none, none at all: nothing is told apart, and nothing is used up.
    for (server, ticket) in [(other, &*ticket), (Uuid::from_u128(7), &*ticket), (id, "x"), (id, "")]
    {
        assert_eq!(refused(enter(server, ticket).await).0, "console-ticket", "{server} {ticket}");
    }
    let mut looker = Looker::at(&world.ledger, id, &ticket).await;
    looker.reads("login: ").await;
    looker.types("root\r").await;
    looker.reads("root\r").await;
    let (why, detail) = refused(enter(id, &ticket).await);
    assert_eq!(why, "console-ticket");
    assert!(detail.contains("used"), "{detail}");
    // A serial line has one reader.
    let second = world.ticket(id, "serial").await;
    let (why, detail) = refused(enter(id, &second).await);
    assert_eq!(why, "console-in-use");
    assert!(detail.contains("token:admin"), "{detail}");
    drop(looker.pipe);
    assert_eq!(looker.ended.await.unwrap(), ConsoleEnd::CallerLeft);
    // Which is let in then, while its minute lasts.
    world.clock.advance(Duration::from_secs(61));
    let (why, detail) = refused(enter(id, &second).await);
    assert_eq!(why, "console-ticket");
    assert!(detail.contains("over"), "{detail}");

    let opened = world.events(id, "console-opened").await;
    let closed = world.events(id, "console-closed").await;
    assert_eq!((opened.len(), closed.len()), (1, 1));
    assert_eq!(opened[0]["by"], "token:admin");
    assert_eq!(opened[0]["console"], closed[0]["console"]);
    assert_eq!((&closed[0]["kind"], &closed[0]["why"]), (&json!("serial"), &json!("caller-left")));
    let records = world.log.read(0, 10_000).await.unwrap();
    for record in records {
        let text = String::from_utf8_lossy(record.data());
        assert!(!text.contains(&ticket) && !text.contains(&second), "{text}");
    }
    assert_eq!(world.server(id).await.consoles().len(), 1, "what is over goes with the next one");
    world.ticket(id, "vnc").await;
    assert_eq!(world.server(id).await.consoles().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_with_one_ticket_one_is_let_in() {
    let (world, _, id) = with_server().await;
    let ticket = world.ticket(id, "vnc").await;
    let all = (0..20).map(|_| consoles::enter(&world.ledger, id, &ticket));
    let (mut inside, mut outside) = (Vec::new(), 0);
    for entered in join_all(all).await {
        match entered {
            Ok(entered) => inside.push(entered),
            refusal => {
                assert_eq!(refused(refusal).0, "console-ticket");
                outside += 1;
            }
        }
    }
    assert_eq!((inside.len(), outside), (1, 19));
    let mut looker = Looker::of(inside.remove(0));
    looker.reads("RFB 003.008\n").await;
    looker.types("RFB 003.008\n").await;
    looker.reads("\u{1}\u{1}").await;
    looker.stop.send_replace(true);
    assert_eq!(looker.ended().await, ConsoleEnd::ProcessStopped);
    assert_eq!(world.events(id, "console-opened").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_a_console_is_recorded_with_who_had_it_open() {
    let (world, _, id) = with_server().await;
    let open = async |console| {
        let ticket = world.ticket(id, console).await;
        Looker::at(&world.ledger, id, &ticket).await
    };
    let mut ends = Vec::new();
    // The token has lost its right.
    let looker = open("vnc").await;
    looker.right.store(false, Ordering::SeqCst);
    ends.push((looker.ended().await, ConsoleEnd::NoRight));
    // Nobody did anything; a program that shows a screen asks for what is new of it.
    let mut looker = open("vnc").await;
    world.clock.advance(IDLE_MAX.to_std().unwrap() / 2);
    looker.pipe.out.send(vec![3, 1, 0, 0, 0, 0, 0, 1, 0, 1]).await.unwrap();
    world.clock.advance(IDLE_MAX.to_std().unwrap() / 2);
    ends.push((looker.ended().await, ConsoleEnd::Idle));
    let mut looker = open("serial").await;
    looker.reads("login: ").await;
    world.clock.advance(OPEN_MAX.to_std().unwrap());
    ends.push((looker.ended().await, ConsoleEnd::TimeOver));
    // A deleted server, which stops first.
    let looker = open("serial").await;
    world.send("server", id, "stop", json!({})).await.unwrap();
    world.settle().await;
    ends.push((looker.ended().await, ConsoleEnd::ServerStopped));
    world.send("server", id, "start", json!({})).await.unwrap();
    world.settle().await;
    let looker = open("vnc").await;
    world.send("server", id, "delete", json!({"stop": true})).await.unwrap();
    world.settle().await;
    ends.push((looker.ended().await, ConsoleEnd::ServerGone));
    for (is, wanted) in &ends {
        assert_eq!(is, wanted);
    }
    let closed = world.events(id, "console-closed").await;
    let whys: Vec<_> = closed.iter().map(|one| one["why"].as_str().unwrap()).collect();
    assert_eq!(whys, ["no-right", "idle", "time-over", "server-stopped", "server-gone"]);
    assert!(closed.iter().all(|one| one["by"] == "token:admin"), "{closed:?}");
    let seconds = closed[2]["seconds"].as_i64().unwrap();
    assert!(seconds >= OPEN_MAX.num_seconds(), "{seconds}");
    assert!(world.server(id).await.consoles().is_empty());
    assert!(world.ledger.ports.leases.held().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_whose_process_has_died_is_closed_by_the_next_one_that_looks() {
    let (world, _, id) = with_server().await;
    let ticket = world.ticket(id, "serial").await;
    let entered = consoles::enter(&world.ledger, id, &ticket).await.map_err(|no| no.to_string());
    // It is held: nobody takes it for lost.
    consoles::close_lost(&world.ledger).await.unwrap();
    assert!(world.events(id, "console-closed").await.is_empty());
    drop(entered.unwrap());
    world.clock.advance(Duration::from_secs(61));
    let next = Ledger::new(world.ledger.ports.clone());
    consoles::close_lost(&next).await.unwrap();
    consoles::close_lost(&next).await.unwrap();
    let closed = world.events(id, "console-closed").await;
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["why"], "lost");
    let again = world.ticket(id, "serial").await;
    Looker::at(&next, id, &again).await.reads("login: ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_at_is_refused_and_leaves_nothing() {
    let (world, host, id) = with_server().await;
    let ask = async |server, body: Value| world.send("server", server, "open-console", body).await;
    let before = world.log.head().await.unwrap().position;
    let console = json!({"console": "serial"});
    for (body, why) in [
        (json!({}), "malformed-command"),
        (json!({"console": "hdmi"}), "malformed-command"),
        (json!({"console": "vnc", "id": id}), "invalid-field"),
        (json!({"console": "vnc", "ticket": "0".repeat(64)}), "invalid-field"),
        (json!({"console": "vnc", "password": "x"}), "malformed-command"),
    ] {
        assert_eq!(code(ask(id, body.clone()).await), why, "{body}");
    }
    assert_eq!(code(ask(Uuid::from_u128(9), console.clone()).await), "not-found");
    let reader = Principal { name: "token:r".into(), role: Role::Viewer, reach: Reach::All };
    let mut submission = World::submission("server", id, "open-console", console.clone());
    submission.principal = reader;
    assert_eq!(code(world.ledger.submit(submission).await), "role-too-low");
    assert_eq!(world.log.head().await.unwrap().position, before);
    for _ in 0..CONSOLES_MAX {
        world.ticket(id, "vnc").await;
    }
    assert_eq!(code(ask(id, console.clone()).await), "console-in-use");
    world.clock.advance(Duration::from_secs(61));
    let ticket = world.ticket(id, "serial").await;
    // Also a suspended one has a screen; one that is stopped has none, and its tickets open nothing.
    world.send("server", id, "suspend", json!({})).await.unwrap();
    world.settle().await;
    world.ticket(id, "vnc").await;
    world.send("server", id, "stop", json!({})).await.unwrap();
    world.settle().await;
    assert_eq!(code(ask(id, console.clone()).await), "wrong-state");
    assert_eq!(refused(consoles::enter(&world.ledger, id, &ticket).await).0, "wrong-state");
    world.same_as_census(host).await;
    // A host that is not reached costs no ticket.
    world.send("server", id, "start", json!({})).await.unwrap();
    world.settle().await;
    let ticket = world.ticket(id, "serial").await;
    let mut ports = world.ledger.ports.clone();
    ports.hosts = Arc::new(commands::ports::NoHosts);
    let elsewhere = Ledger::new(ports);
    let away = consoles::enter(&elsewhere, id, &ticket).await;
    assert!(matches!(away, Err(EnterFault::Host(_))));
    Looker::at(&world.ledger, id, &ticket).await.reads("login: ").await;
}
