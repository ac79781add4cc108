//! What a move does, told as facts.

use serde_json::{Value, json};

use super::*;

fn begin() -> Command {
    let beginning = json!({
        "name": "db", "account": Uuid::from_u128(1), "server": Uuid::from_u128(2),
        "host": Uuid::from_u128(3),
        "source": {"id": Uuid::from_u128(4), "provider": "cloudpods", "machine": {
            "id": "m1", "name": "db", "power": "running", "status": "running", "firmware": "bios",
            "vcpus": 1, "memory_mib": 64, "host_address": "192.0.2.7",
            "disks": [{"index": 0, "size_bytes": 1 << 30, "bus": "virtio"}],
        }},
    });
    Command::Begin(serde_json::from_value(beginning).unwrap())
}

fn landing() -> Landing {
    serde_json::from_value(
        json!({"address": "192.0.2.1", "port": 21_800, "disks": [{"index": 0, "name": "d"}]}),
    )
    .unwrap()
}

/// A move that has had these commands, and what it told its server.
#[derive(Default)]
struct Told {
    state: MoveIn,
    server: Vec<&'static str>,
}

impl Told {
    fn with(commands: impl IntoIterator<Item = Command>) -> Self {
        let mut told = Self::default();
        for command in commands {
            told.say(command).unwrap();
        }
        told
    }

    fn say(&mut self, command: Command) -> Result<&'static str, &'static str> {
        let stamp = Stamp { now: chrono::DateTime::UNIX_EPOCH, actor: "test".into() };
        let events = self.state.decide(command, &stamp).map_err(|no| no.code.code)?;
        for event in &events {
            let told = self.state.companions(std::slice::from_ref(event));
            self.server.extend(told.into_iter().map(|one| one.verb));
            self.state = self.state.clone().evolve(event.clone());
        }
        Ok(self.state.status())
    }

    fn order(&self) -> Value {
        self.state.order().map_or(Value::Null, |out| json!(out.order)["type"].clone())
    }
}

fn copied() -> Vec<Command> {
    vec![
        begin(),
        Command::ConfirmPrepared { number: 1, landing: landing() },
        Command::ConfirmCopied { number: 2 },
    ]
}

fn closed() -> Vec<Command> {
    let mut all = copied();
    all.extend([
        Command::CutOver { cut_off: false },
        Command::ConfirmStopped { number: 3 },
        Command::ConfirmClosed { number: 4 },
    ]);
    all
}

#[test]
fn a_machine_comes_here_and_its_server_is_started_only_after_it_is_off() {
    let mut told = Told::default();
    for (command, status, order) in [
        (begin(), "preparing", "prepare"),
        (Command::ConfirmPrepared { number: 1, landing: landing() }, "copying", "copy"),
        (Command::ConfirmCopied { number: 2 }, "ready", ""),
        (Command::CutOver { cut_off: false }, "stopping", "stop"),
        (Command::ConfirmStopped { number: 3 }, "closing", "close"),
    ] {
        assert_eq!(told.say(command), Ok(status));
        assert_eq!(told.order().as_str().unwrap_or_default(), order);
        assert!(told.server.is_empty(), "its server waits");
    }
    assert_eq!(told.say(Command::ConfirmClosed { number: 4 }), Ok("starting"));
    assert_eq!(told.server, ["come-in"]);
    assert_eq!(told.say(Command::Finish {}), Err("wrong-state"), "its server does not run yet");
    assert_eq!(told.say(Command::Arrive {}), Ok("moved"));
    assert_eq!(told.say(Command::Finish {}), Ok("finished"));
    assert_eq!(told.say(Command::GoBack {}), Err("wrong-state"), "there is no way back");
}

#[test]
fn before_its_server_was_started_the_machine_is_let_go_first() {
    for (number, commands) in [(1, vec![begin()]), (2, copied()[..2].to_vec()), (2, copied())] {
        let mut told = Told::with(commands);
        assert_eq!(told.say(Command::GoBack {}), Ok("releasing"));
        assert_eq!(json!(told.state.order().unwrap().order)["data"], json!({"start": false}));
        assert!(told.server.is_empty());
        assert_eq!(told.say(Command::ConfirmReleased { number: number + 1 }), Ok("clearing"));
        assert_eq!(told.server, ["give-up"]);
        assert_eq!(told.say(Command::TargetGone {}), Ok("gone-back"));
        assert_eq!(told.say(Command::TargetGone {}), Ok("gone-back"), "twice is once");
    }
    // Cut over already: it is to run again.
    let mut told = Told::with(copied());
    told.say(Command::CutOver { cut_off: true }).unwrap();
    assert_eq!(told.say(Command::GoBack {}), Err("order-outstanding"));
    told.say(Command::Park { number: 3, reason: "deaf".into() }).unwrap();
    assert_eq!(told.say(Command::GoBack {}), Ok("releasing"));
    assert_eq!(json!(told.state.order().unwrap().order)["data"], json!({"start": true}));
}

#[test]
fn once_its_server_was_started_nothing_of_that_is_left_before_the_machine_runs() {
    for last in [None, Some(Command::Arrive {})] {
        let mut told = Told::with(closed().into_iter().chain(last));
        assert_eq!(told.say(Command::GoBack {}), Ok("giving-up"));
        assert_eq!(told.server, ["come-in", "give-up"]);
        assert_eq!(told.order(), Value::Null, "the machine stays off");
        assert_eq!(told.say(Command::TargetGone {}), Ok("releasing"));
        assert_eq!(json!(told.state.order().unwrap().order)["data"], json!({"start": true}));
        assert_eq!(told.say(Command::ConfirmReleased { number: 5 }), Ok("gone-back"));
        assert_eq!(told.server, ["come-in", "give-up"]);
    }
    // A server that somebody has deleted is not waited for.
    let mut told = Told::with(closed());
    assert_eq!(told.say(Command::TargetGone {}), Ok("target-gone"));
    assert_eq!(told.say(Command::GoBack {}), Ok("releasing"));
    assert_eq!(told.say(Command::ConfirmReleased { number: 5 }), Ok("gone-back"));
}

#[test]
fn what_stands_in_the_way_of_a_copy_is_copied_again_from_the_beginning() {
    let mut told = Told::with(copied()[..2].to_vec());
    told.say(Command::Park { number: 2, reason: "lost".into() }).unwrap();
    assert_eq!(told.say(Command::Retry {}), Ok("preparing"));
    told.say(Command::ConfirmPrepared { number: 3, landing: landing() }).unwrap();
    told.say(Command::ConfirmCopied { number: 4 }).unwrap();
    assert_eq!(told.say(Command::CopyAgain {}), Ok("preparing"));
    assert_eq!(told.say(Command::CopyAgain {}), Err("wrong-state"), "it is at it");
    assert_eq!(told.say(Command::CutOver { cut_off: false }), Err("wrong-state"));
    // A report of another time is no news.
    assert_eq!(told.say(Command::ConfirmCopied { number: 4 }), Ok("preparing"));
}
