//! Given facts, when a command, then facts or a refusal, of a server's way to another host.

use chrono::DateTime;
use serde_json::{Value, json};

use super::*;
use crate::{compute::server::Command, kernel::Stamp, network::quota::Traffic};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn place(host: u128) -> Value {
    json!({
        "host": id(host), "holding": {"server": id(9), "vcpus": 1, "memory_mib": 512},
        "score": {
            "irregular": false, "affinity": 0, "cells": 0, "devices": 0, "apart": 0, "fill": 0,
        },
        "fitting": 1,
    })
}

fn machine(power: &str) -> Machine {
    serde_json::from_value(json!({"power": power, "shape": "1x512"})).unwrap()
}

/// A server that does this on host 1, with a disk on storage 5.
fn at_home(power: &str) -> Vec<Event> {
    let launch = json!({
        "name": "web", "spec": {"vcpus": 1, "memory_mib": 512}, "placement": place(1),
        "parts": {"disks": [{"id": id(3), "size_gib": 1, "format": "raw", "storage": id(5)}]},
    });
    let launch = Box::new(serde_json::from_value(launch).unwrap());
    vec![Event::Launched { launch }, Event::Confirmed { number: 1, seen: machine(power) }]
}

fn fold(given: &[Event]) -> Server {
    given.iter().cloned().fold(Server::default(), Decider::evolve)
}

fn decide(given: &[Event], when: Command) -> Result<Vec<Event>, Refusal> {
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    fold(given).decide(when, &stamp)
}

fn migrate(host: u128) -> Command {
    Command::Migrate {
        to: None,
        limits: TransferLimits::default(),
        placement: serde_json::from_value(place(host)).unwrap(),
    }
}

fn step(number: u64, step: MigrationStep) -> Command {
    Command::ConfirmMigration { number, step }
}

/// The life that these commands make.
fn live(given: Vec<Event>, commands: Vec<Command>) -> Vec<Event> {
    commands.into_iter().fold(given, |mut given, command| {
        let made = decide(&given, command.clone()).unwrap();
        assert!(!made.is_empty(), "{command:?} says nothing");
        given.extend(made);
        given
    })
}

/// Host, verb of every companion of the last fact.
fn told(given: &[Event]) -> Vec<(Uuid, &'static str)> {
    let (last, before) = given.split_last().unwrap();
    fold(before)
        .companions(std::slice::from_ref(last))
        .iter()
        .map(|one| (one.id, one.verb))
        .collect()
}

fn where_to(given: &[Event]) -> Option<Uuid> {
    fold(given).on_host().map(|at| at.host)
}

fn handed(certain: bool) -> MigrationStep {
    MigrationStep::Sent { certain, used: Used::new() }
}

fn prepared() -> MigrationStep {
    MigrationStep::Prepared { landing: Landing::default() }
}

#[test]
fn each_step_is_of_the_host_that_it_concerns_and_both_keep_its_place_until_it_is_there() {
    let ordered = live(at_home("running"), vec![migrate(2)]);
    assert_eq!((where_to(&ordered), told(&ordered)), (Some(id(2)), vec![(id(2), "reserve")]));
    assert_eq!(fold(&ordered).status(), "migrating");
    let sending = live(ordered, vec![step(2, prepared())]);
    assert_eq!((where_to(&sending), told(&sending)), (Some(id(1)), vec![]));
    let sent = live(sending, vec![step(3, handed(true))]);
    assert_eq!((where_to(&sent), told(&sent)), (Some(id(2)), vec![]));
    let order = fold(&sent).orders.out.unwrap().order;
    assert_eq!(order, Order::Arrive { start: true, certain: true });
    let there = live(sent, vec![Command::Confirm { number: 4, seen: machine("running") }]);
    assert_eq!(told(&there), [(id(1), "clear"), (id(3), "move-with-server")]);
    let state = fold(&there);
    assert_eq!((state.status(), state.home.unwrap().moving), ("running", None));
    assert_eq!(where_to(&there), Some(id(2)));
}

#[test]
fn one_that_stays_is_free_at_once_and_the_other_host_is_cleared() {
    let sending = live(at_home("running"), vec![migrate(2), step(2, prepared())]);
    let stays = MigrationStep::Stays { reason: "no".into(), seen: Box::new(machine("running")) };
    let failed = live(sending, vec![step(3, stays)]);
    assert_eq!(told(&failed), [(id(2), "clear")]);
    let state = fold(&failed);
    assert_eq!(
        (state.status(), state.orders.out, where_to(&failed)),
        ("running", None, Some(id(1)))
    );
}

#[test]
fn what_nobody_is_sure_of_is_looked_for_and_never_started() {
    let sent =
        live(at_home("running"), vec![migrate(2), step(2, prepared()), step(3, handed(false))]);
    let order = fold(&sent).orders.out.unwrap().order;
    assert_eq!(order, Order::Arrive { start: true, certain: false });
    let parked = live(sent.clone(), vec![Command::Park { number: 4, reason: "x".into() }]);
    assert!(decide(&parked, Command::Abandon {}).is_err(), "it might run twice then");
    let back = live(sent, vec![step(4, MigrationStep::Lost {})]);
    assert_eq!(where_to(&back), Some(id(1)));
    let home = live(back, vec![Command::Confirm { number: 5, seen: machine("running") }]);
    assert_eq!(told(&home), [(id(2), "clear")]);
    // What is sure is not lost, whatever a host says.
    let sure =
        live(at_home("stopped"), vec![migrate(2), step(2, prepared()), step(3, handed(true))]);
    assert_eq!(decide(&sure, step(4, MigrationStep::Lost {})).unwrap(), []);
    assert_eq!(decide(&sure, step(3, handed(false))).unwrap(), []);
}

#[test]
fn a_way_that_is_given_up_leaves_it_where_it_is_known_to_be() {
    let ordered = live(at_home("stopped"), vec![migrate(2)]);
    // The other host may never answer.
    let given_up = live(ordered.clone(), vec![Command::Abandon {}]);
    assert_eq!(told(&given_up), [(id(2), "clear")]);
    assert_eq!(where_to(&given_up), Some(id(1)));
    let sending = live(ordered, vec![step(2, prepared())]);
    let parked = vec![Command::Park { number: 3, reason: "x".into() }, Command::Abandon {}];
    let looked_for = live(sending, parked);
    let order = fold(&looked_for).orders.out.unwrap().order;
    assert_eq!(order, Order::Arrive { start: false, certain: false });
}

#[test]
fn what_is_being_sent_is_broken_off_by_its_own_host_which_says_what_came_of_it() {
    let sending = live(at_home("running"), vec![migrate(2), step(2, prepared())]);
    let broken = live(sending.clone(), vec![Command::Abandon {}]);
    assert_eq!((where_to(&broken), told(&broken)), (Some(id(1)), vec![]));
    let state = fold(&broken);
    assert_eq!(
        (state.status(), state.orders.out.unwrap().order),
        ("migrating", Order::BreakOff {})
    );
    assert_eq!(decide(&broken, Command::Abandon {}).unwrap(), [], "once is enough");
    // What was said of the order before is not news.
    let stays =
        || MigrationStep::Stays { reason: "it was".into(), seen: Box::new(machine("running")) };
    for late in [stays(), handed(true)] {
        assert_eq!(decide(&broken, step(3, late)).unwrap(), []);
    }
    let stayed = live(broken.clone(), vec![step(4, stays())]);
    assert_eq!(told(&stayed), [(id(2), "clear")]);
    assert_eq!((fold(&stayed).status(), where_to(&stayed)), ("running", Some(id(1))));
    // It was through by then.
    let gone = live(broken.clone(), vec![step(4, handed(true))]);
    let order = fold(&gone).orders.out.unwrap().order;
    assert_eq!(order, Order::Arrive { start: true, certain: true });
    // Its host does not say: the other one looks.
    let parked = vec![Command::Park { number: 4, reason: "x".into() }, Command::Abandon {}];
    let order = fold(&live(broken, parked)).orders.out.unwrap().order;
    assert_eq!(order, Order::Arrive { start: true, certain: false });
}

#[test]
fn limits_of_a_way_are_kept_with_it() {
    let limited = |seconds, mib_per_second| Command::Migrate {
        to: None,
        limits: TransferLimits { seconds, mib_per_second },
        placement: serde_json::from_value(place(2)).unwrap(),
    };
    let code = |when| decide(&at_home("running"), when).unwrap_err().code.code;
    assert_eq!(code(limited(Some(9), None)), "invalid-field");
    assert_eq!(code(limited(None, Some(0))), "invalid-field");
    let ordered = live(at_home("running"), vec![limited(Some(60), Some(5))]);
    let limits = fold(&ordered).home.unwrap().moving.unwrap().limits;
    assert_eq!((limits.seconds(false), limits.mib_per_second), (60, Some(5)));
    assert_eq!(TransferLimits::default().seconds(false), 3_600);
    assert_eq!(TransferLimits::default().seconds(true), 86_400);
}

#[test]
fn what_keeps_a_server_on_its_host_is_said() {
    let code = |given: &[Event], when| decide(given, when).unwrap_err().code.code;
    assert_eq!(code(&at_home("suspended"), migrate(2)), "wrong-state");
    assert_eq!(code(&at_home("running"), migrate(1)), "invalid-field");
    assert_eq!(code(&[], migrate(2)), "unsupported");
    let change = |pointer: &str, value: Value| {
        let mut given = at_home("running");
        let Event::Launched { launch } = &given[0] else { panic!() };
        let mut launch = serde_json::to_value(launch).unwrap();
        *launch.pointer_mut(pointer).unwrap() = value;
        given[0] = Event::Launched { launch: serde_json::from_value(launch).unwrap() };
        given
    };
    let disks = json!([{"id": id(3), "size_gib": 1, "format": "raw"}]);
    let local = change("/parts/disks", disks);
    assert!(decide(&local, migrate(2)).is_ok(), "it is copied");
    let down = |host_is_down| Command::Evacuate {
        to: None,
        host_is_down,
        placement: serde_json::from_value(place(2)).unwrap(),
    };
    assert_eq!(code(&local, down(true)), "not-movable");
    let holding = json!({
        "server": id(9), "vcpus": 1, "memory_mib": 512,
        "cells": [{"cell": 0, "vcpus": 1, "memory_mib": 512}],
    });
    assert_eq!(code(&change("/placement/holding", holding), migrate(2)), "not-movable");
    assert_eq!(code(&at_home("running"), down(false)), "invalid-field");
}

#[test]
fn who_runs_on_sees_the_threads_that_it_saw() {
    let placed = |host: u128, threads: Value| {
        let mut place = place(host);
        place["holding"] = json!({
            "server": id(9), "vcpus": 2, "memory_mib": 512, "cpus": [4, 5], "threads": threads,
            "pins": [{"vcpu": 0, "cpu": 4}, {"vcpu": 1, "cpu": 5}],
        });
        place
    };
    for (power, was, there, then) in [
        ("running", json!(2), json!(null), Some(2)),
        ("running", json!(null), json!(2), None),
        ("stopped", json!(null), json!(2), Some(2)),
    ] {
        let mut given = at_home(power);
        let Event::Launched { launch } = &mut given[0] else { panic!() };
        launch.placement = serde_json::from_value(placed(1, was)).unwrap();
        let migrate = Command::Migrate {
            to: None,
            limits: TransferLimits::default(),
            placement: serde_json::from_value(placed(2, there)).unwrap(),
        };
        let ordered = decide(&given, migrate).unwrap();
        let [Event::MigrationOrdered { to, .. }] = &ordered[..] else { panic!("{ordered:?}") };
        assert_eq!(to.holding.threads, then, "{power}");
    }
}

#[test]
fn a_server_is_had_back_from_a_dead_host_in_one_append() {
    let evacuate = Command::Evacuate {
        to: None,
        host_is_down: true,
        placement: serde_json::from_value(place(2)).unwrap(),
    };
    for (power, order, start) in [
        ("running", None, true),
        ("stopped", None, false),
        ("stopped", Some(Command::Start {}), true),
        ("running", Some(Command::Stop {}), false),
    ] {
        let before = live(at_home(power), order.into_iter().collect());
        let given = live(before, vec![evacuate.clone()]);
        let verbs: Vec<_> = told(&given);
        let wanted =
            [(id(2), "reserve"), (id(1), "fence"), (id(1), "clear"), (id(3), "move-with-server")];
        assert_eq!(verbs, wanted);
        assert_eq!(where_to(&given), Some(id(2)));
        let order = fold(&given).orders.out.unwrap().order;
        assert_eq!(order, Order::Arrive { start, certain: true });
    }
    let removing = live(at_home("stopped"), vec![Command::Delete { stop: false }]);
    assert!(decide(&removing, evacuate).is_err());
}

fn evacuate(host: Option<u128>) -> Command {
    let placement = host.map(|host| serde_json::from_value(place(host)).unwrap());
    Command::Evacuate { to: None, host_is_down: true, placement }
}

#[test]
fn what_a_dead_host_was_told_keeps_nobody_from_having_its_server_back() {
    let ordered = |event: &str, data: Value| -> Event {
        serde_json::from_value(json!({"type": event, "data": data})).unwrap()
    };
    let image = json!({
        "id": id(4), "sha256": "00", "format": "raw", "source": "upload", "size_mib": 1,
        "os": "linux",
    });
    for (power, event, data, start) in [
        ("running", "nics-read-ordered", json!({}), true),
        ("stopped", "nics-read-ordered", json!({}), false),
        ("running", "groups-followed", json!({"groups": {}}), true),
        ("running", "nic-removal-ordered", json!({"nic": id(6)}), true),
        ("running", "cdrom-change-ordered", json!({"image": null}), true),
        ("running", "rebuild-ordered", json!({"image": image, "start": true}), false),
        (
            "stopped",
            "resize-ordered",
            json!({"vcpus": 2, "memory_mib": 512, "placement": place(1)}),
            false,
        ),
    ] {
        let mut given = at_home(power);
        given.push(ordered(event, data));
        let made = decide(&given, evacuate(Some(2))).unwrap();
        let to = serde_json::from_value(place(2)).unwrap();
        assert_eq!(made, [Event::Evacuated { to, start }], "{event} {power}");
    }
    // What another host is to do comes first.
    let receiving = live(at_home("running"), vec![migrate(2)]);
    let refused = decide(&receiving, evacuate(Some(3))).unwrap_err();
    assert_eq!(refused.code.code, "order-outstanding");
    // The host that it is had back on dies as well.
    let there = live(at_home("running"), vec![evacuate(Some(2))]);
    let again = live(there, vec![evacuate(Some(3))]);
    let wanted =
        [(id(3), "reserve"), (id(2), "fence"), (id(2), "clear"), (id(3), "move-with-server")];
    assert_eq!(told(&again), wanted);
    assert_eq!(
        fold(&again).orders.out.unwrap().order,
        Order::Arrive { start: true, certain: true }
    );
}

#[test]
fn one_that_is_rescued_is_had_back_as_it_was_and_its_rescue_is_over() {
    for runs in [true, false] {
        let rescue = json!({
            "by": "token:ops", "runs": runs, "password": "sealed",
            "system": {"kernel": "/k", "initramfs": "/i"},
        });
        let ordered = json!({"type": "rescue-ordered", "data": rescue});
        let mut given = at_home(if runs { "running" } else { "stopped" });
        given.push(serde_json::from_value(ordered).unwrap());
        let made = decide(&given, evacuate(Some(2))).unwrap();
        assert!(matches!(&made[..], [Event::Evacuated { start, .. }] if *start == runs));
        given.push(Event::Confirmed { number: 2, seen: machine("running") });
        let at = DateTime::UNIX_EPOCH - chrono::TimeDelta::seconds(60);
        given.push(Event::RescueEntered { by: "token:ops".into(), at });
        assert_eq!(fold(&given).status(), "rescued");
        let left = Event::RescueLeft { by: "token:ops".into(), seconds: 60 };
        let made = decide(&given, evacuate(Some(2))).unwrap();
        assert!(matches!(&made[..], [first, Event::Evacuated { start, .. }]
                if *first == left && *start == runs));
        // A small system that turned itself off is left by a stop, too.
        given.push(Event::Observed { seen: machine("stopped"), fields: vec![], actor: None });
        assert_eq!(fold(&given).status(), "rescued");
        let stopping = live(given, vec![Command::Stop {}]);
        let number = fold(&stopping).orders.out.unwrap().number;
        let confirm = Command::Confirm { number, seen: machine("stopped") };
        let made = decide(&stopping, confirm).unwrap();
        assert_eq!(made[1], left);
    }
}

#[test]
fn one_whose_host_dies_while_it_is_sent_is_looked_for_where_it_was_to_go_and_begun_there() {
    let sending = live(at_home("running"), vec![migrate(2), step(2, prepared())]);
    let broken = live(sending.clone(), vec![Command::Abandon {}]);
    for (given, number) in [(sending, 3), (broken, 4)] {
        assert_eq!(fold(&given).evacuated_to().unwrap().uuid(), id(2));
        let made = decide(&given, evacuate(None)).unwrap();
        let used = Used::new();
        assert_eq!(made, [Event::MigrationSent { number, certain: false, used }]);
        let looked = live(given, vec![evacuate(None), step(number + 1, MigrationStep::Lost {})]);
        assert_eq!(fold(&looked).orders.out.unwrap().order, Order::TakeBack {});
        let begun = live(looked.clone(), vec![evacuate(None)]);
        assert_eq!((where_to(&begun), told(&begun)), (Some(id(2)), vec![(id(1), "fence")]));
        let order = fold(&begun).orders.out.unwrap().order;
        assert_eq!(order, Order::Arrive { start: true, certain: true });
        let number = number + 3;
        let there = live(begun, vec![Command::Confirm { number, seen: machine("running") }]);
        assert_eq!(told(&there), [(id(1), "clear"), (id(3), "move-with-server")]);
        // A third host may be named.
        let third = live(looked, vec![evacuate(Some(3))]);
        assert_eq!(told(&third)[..2], [(id(3), "reserve"), (id(1), "fence")]);
        assert!(told(&third).contains(&(id(2), "clear")));
    }
}

/// A server that runs, and was to get more memory, which was given up.
fn may_have_grown() -> Vec<Event> {
    let mut larger = place(1);
    larger["holding"]["memory_mib"] = json!(1_024);
    let mut given = at_home("running");
    let Event::Launched { launch } = &mut given[0] else { panic!("it begins with its launch") };
    launch.spec.memory_max_mib = Some(4_096);
    let placement = serde_json::from_value(larger).unwrap();
    let resize = Command::Resize { vcpus: None, memory_mib: Some(1_024), flavour: None, placement };
    let given = live(given, vec![resize]);
    let parked = Command::Park { number: 2, reason: "no free slots".into() };
    let given = live(given, vec![parked, Command::Abandon {}]);
    assert!(fold(&given).home.unwrap().may_have_grown);
    assert_eq!(told(&given), [], "its host keeps all of it");
    given
}

#[test]
fn what_may_have_grown_stays_where_it_is_and_its_host_keeps_less_once_anything_says_it_stands_still()
 {
    let given = may_have_grown();
    let refused = decide(&given, migrate(2)).unwrap_err();
    assert_eq!(refused.code.code, "not-movable");
    let seen = machine("stopped");
    for says in [
        Event::AddressesKept { number: 3, reason: "no".into(), seen: seen.clone() },
        Event::Confirmed { number: 3, seen: seen.clone() },
        Event::MigrationFailed { number: 3, reason: "no".into(), seen: seen.clone() },
        Event::Observed { seen: seen.clone(), fields: vec![], actor: None },
        Event::Reappeared { seen },
    ] {
        let mut after = given.clone();
        after.push(says);
        assert_eq!(told(&after), [(id(1), "resize")], "{:?}", after.last());
        assert!(!fold(&after).home.unwrap().may_have_grown);
    }
    let mut running = given;
    running.push(Event::Reappeared { seen: machine("running") });
    assert_eq!((told(&running), fold(&running).home.unwrap().may_have_grown), (vec![], true));
}

/// A server that runs on host 1 with an interface that is counted, and what that has used.
fn counted(egress_bytes: u64) -> Vec<Event> {
    let mut given = at_home("running");
    let Event::Launched { launch } = &mut given[0] else { panic!("it is not launched") };
    let nic = json!({
        "id": id(4), "network": id(7), "segment": id(8), "bridge": "br0", "medium": "bridge",
        "mtu": 1_500, "mac": "52:54:00:00:00:01", "addresses": ["10.0.0.2/24"],
        "quota": {"egress_bytes": 1_000},
    });
    launch.parts.as_mut().unwrap().nics = vec![serde_json::from_value(nic).unwrap()];
    given[1] = Event::Confirmed { number: 1, seen: saying(egress_bytes) };
    given
}

/// What a host says of it.
fn saying(egress_bytes: u64) -> Machine {
    let nic = json!({
        "mac": "52:54:00:00:00:01",
        "traffic": {"ingress_bytes": 0, "egress_bytes": egress_bytes},
    });
    Machine { nics: vec![serde_json::from_value(nic).unwrap()], ..machine("running") }
}

fn handed_over(egress_bytes: u64) -> MigrationStep {
    let used = [(id(4), Traffic { ingress_bytes: 0, egress_bytes })].into();
    MigrationStep::Sent { certain: true, used }
}

/// What its interface has used before the host where it has its place, and on how many that was.
fn carried(given: &[Event]) -> (u64, u64) {
    let home = fold(given).home.unwrap();
    let carried = home.carried(&home.parts.nics[0]);
    (carried.traffic.egress_bytes, carried.moves)
}

#[test]
fn what_was_counted_goes_with_it() {
    let sending = live(counted(70), vec![migrate(2), step(2, prepared())]);
    assert_eq!(carried(&sending), (0, 0), "it is where it was");
    // To its own host it has used nothing before, to the other what was said last.
    let mut home = fold(&sending).home.unwrap();
    home.placement = home.moving.as_ref().unwrap().to.clone();
    let there = home.carried(&home.parts.nics[0]);
    assert_eq!((there.traffic.egress_bytes, there.moves), (70, 1));

    let sent = live(sending.clone(), vec![step(3, handed_over(80))]);
    assert_eq!(carried(&sent), (80, 1));
    let there = live(sent.clone(), vec![Command::Confirm { number: 4, seen: saying(90) }]);
    assert_eq!(carried(&there), (80, 1));
    let next = live(there.clone(), vec![migrate(1), step(5, prepared()), step(6, handed(true))]);
    assert_eq!(carried(&next), (90, 2), "what was said last, where nobody says more");
    // Counted anew, it has used nothing anywhere.
    let reset = live(there, vec![Command::ResetNicTraffic { nic: id(4) }]);
    assert_eq!(carried(&reset), (0, 1));
    let used = fold(&reset).observation.seen.unwrap().nics[0].traffic.unwrap();
    assert_eq!(used, Traffic::default());

    // Back where it was it is counted as before.
    let unsure = MigrationStep::Sent { certain: false, used: Used::new() };
    let back = live(sending.clone(), vec![step(3, unsure), step(4, MigrationStep::Lost {})]);
    assert_eq!(carried(&back), (0, 0));
    let stays = MigrationStep::Stays { reason: "no".into(), seen: Box::new(saying(75)) };
    assert_eq!(carried(&live(sending, vec![step(3, stays)])), (0, 0));
}

#[test]
fn what_a_dead_host_said_last_is_what_was_used() {
    let evacuated = live(counted(70), vec![evacuate(Some(2))]);
    assert_eq!(carried(&evacuated), (70, 1));
    // It was handed over to one that died then.
    let sent = live(counted(70), vec![migrate(2), step(2, prepared()), step(3, handed_over(80))]);
    let there = live(sent, vec![Command::Confirm { number: 4, seen: saying(85) }]);
    assert_eq!(carried(&live(there, vec![evacuate(Some(1))])), (85, 2));
}
