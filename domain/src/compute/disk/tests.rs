//! Rules of disks of ours, by what was there, what was asked, and what came of it.

use chrono::DateTime;
use serde_json::Value;

use super::*;

const ID: Uuid = Uuid::from_u128(1);
const SERVER: Uuid = Uuid::from_u128(2);

fn creation() -> Creation {
    let host = HostId::new(Uuid::from_u128(3));
    let found = Place { id: ID, project: None, host, leased: false, source: None, in_place: None };
    Creation {
        name: "data".into(),
        server: SERVER,
        size_gib: 8,
        format: Format::Qcow2,
        limits: Limits::default(),
        storage: None,
        from: None,
        found: Some(found),
    }
}

fn actual() -> Actual {
    Actual { size_bytes: 8 << 30, taken_bytes: 0, limits: None }
}

fn state(given: &[Event]) -> Disk {
    given.iter().cloned().fold(Disk::default(), Decider::evolve)
}

fn check(given: &[Event], when: Command, then: Result<&[Event], &str>) {
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    let got = state(given).decide(when, &stamp);
    assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
}

fn confirmed(number: u64) -> Event {
    Event::Confirmed { number, seen: actual() }
}

/// A disk that its server has.
fn attached() -> Vec<Event> {
    vec![Event::CreationOrdered(creation()), confirmed(1)]
}

/// One that no server has.
fn available() -> Vec<Event> {
    [attached(), vec![Event::DetachOrdered {}, confirmed(2)]].concat()
}

#[test]
fn a_disk_is_one_servers_until_it_is_detached() {
    let other = Uuid::from_u128(4);
    assert_eq!(state(&attached()).status(), "attached");
    check(&attached(), Command::Attach { server: SERVER }, Ok(&[]));
    check(&attached(), Command::Attach { server: other }, Err("in-use"));
    check(&attached(), Command::Delete {}, Err("in-use"));
    check(&attached(), Command::Detach {}, Ok(&[Event::DetachOrdered {}]));
    assert_eq!(state(&available()).status(), "available");
    check(&available(), Command::Detach {}, Ok(&[]));
    let then = [Event::AttachOrdered { server: ServerId::new(other) }];
    check(&available(), Command::Attach { server: other }, Ok(&then));
    check(&available(), Command::Delete {}, Ok(&[Event::RemovalOrdered {}]));
}

#[test]
fn a_disk_only_grows_and_one_order_is_out_at_a_time() {
    let grow = |size_gib| Command::Grow { size_gib };
    check(&attached(), grow(8), Ok(&[]));
    check(&attached(), grow(7), Err("invalid-field"));
    check(&attached(), grow(65_537), Err("invalid-field"));
    check(&attached(), grow(9), Ok(&[Event::GrowthOrdered { size_gib: 9 }]));
    let out = [attached(), vec![Event::GrowthOrdered { size_gib: 9 }]].concat();
    check(&out, Command::Detach {}, Err("order-outstanding"));
    check(&out, Command::Confirm { number: 1, seen: actual() }, Ok(&[]));
    check(&out, Command::Confirm { number: 2, seen: actual() }, Ok(&[confirmed(2)]));
    check(&[Event::CreationOrdered(creation())], grow(9), Err("order-outstanding"));
}

#[test]
fn a_volume_with_snapshots_does_not_grow() {
    let kept = Event::SnapshotKept { snapshot: Uuid::from_u128(5) };
    let grow = |size_gib| Command::Grow { size_gib };
    check(
        &[attached(), vec![kept.clone()]].concat(),
        grow(9),
        Ok(&[Event::GrowthOrdered { size_gib: 9 }]),
    );
    let raw = Creation { format: Format::Raw, ..creation() };
    let raw = [Event::CreationOrdered(raw), confirmed(1), kept].to_vec();
    check(&raw, grow(9), Err("in-use"));
    check(&raw, grow(8), Ok(&[]));
    let dropped = Event::SnapshotDropped { snapshot: Uuid::from_u128(5) };
    let grown = [Event::GrowthOrdered { size_gib: 9 }];
    check(&[raw, vec![dropped]].concat(), grow(9), Ok(&grown));
}

#[test]
fn one_that_is_made_from_a_snapshot_opens_that_ones_disk_until_it_is_there() {
    let (snapshot, disk) = (Uuid::from_u128(6), Uuid::from_u128(7));
    let found = creation().found.map(|found| {
        let source = Some(Source::Snapshot { snapshot, disk });
        Place { source, ..found }
    });
    let ordered = Event::CreationOrdered(Creation { found, ..creation() });
    assert_eq!(state(&[ordered.clone()]).volumes(), [disk]);
    assert!(state(&[ordered, confirmed(1)]).volumes().is_empty());
}

#[test]
fn what_a_server_starts_from_stays_with_it_and_goes_with_it() {
    let root = [Event::Provisioned { creation: creation(), root: true }, Event::Made {}];
    check(&root[..1], Command::Detach {}, Err("wrong-state"));
    check(&root, Command::Detach {}, Err("in-use"));
    check(&root, Command::MadeWithServer {}, Ok(&[]));
    check(&root, Command::GoWithServer {}, Ok(&[Event::Removed {}]));
    let gone = [root.to_vec(), vec![Event::Removed {}]].concat();
    check(&gone, Command::GoWithServer {}, Ok(&[]));
    check(&gone, Command::Attach { server: SERVER }, Err("wrong-state"));
    assert!(state(&gone).facets().gone);
}

#[test]
fn what_was_begun_and_given_up_is_taken_back() {
    let parked = |number| Event::Parked { number, reason: "no room".into() };
    let made = [Event::CreationOrdered(creation()), parked(1)];
    let then = [Event::Abandoned {}, Event::RemovalOrdered {}];
    check(&made, Command::Abandon {}, Ok(&then));
    let server = ServerId::new(SERVER);
    let plugged = [available(), vec![Event::AttachOrdered { server }, parked(3)]].concat();
    let then = [Event::Abandoned {}, Event::DetachOrdered {}];
    check(&plugged, Command::Abandon {}, Ok(&then));
    let grown = [attached(), vec![Event::GrowthOrdered { size_gib: 9 }, parked(2)]].concat();
    check(&grown, Command::Abandon {}, Ok(&[Event::Abandoned {}]));
}

#[test]
fn its_server_hears_what_it_is_started_with() {
    let verbs = |given: &[Event], event: Event| -> Vec<(&'static str, Value)> {
        let all = state(given).companions(&[event]);
        all.into_iter().map(|one| (one.verb, one.body)).collect()
    };
    let told = verbs(&[], Event::CreationOrdered(creation()));
    assert_eq!((told[0].0, &told[0].1["disk"]["size_gib"]), ("admit-disk", &json!(8)));
    let told = verbs(&attached(), Event::GrowthOrdered { size_gib: 9 });
    assert_eq!((told[0].0, &told[0].1["disk"]["size_gib"]), ("admit-disk", &json!(9)));
    assert_eq!(verbs(&attached(), Event::DetachOrdered {})[0].0, "dismiss-disk");
    assert!(verbs(&available(), Event::GrowthOrdered { size_gib: 9 }).is_empty());
}

#[test]
fn limits_are_what_a_host_can_keep() {
    let limits = |value: Value| serde_json::from_value::<Limits>(value).unwrap().check();
    limits(json!({"read_bytes": {"rate": 4_096, "burst": 4_096, "burst_seconds": 1}})).unwrap();
    limits(json!({"write_operations": {"rate": 1}})).unwrap();
    for odd in [
        json!({"read_bytes": {"rate": 4_095}}),
        json!({"write_bytes": {"rate": 1_000_000_000_001_u64}}),
        json!({"read_operations": {"rate": 0}}),
        json!({"write_operations": {"rate": 10, "burst": 9}}),
        json!({"write_operations": {"rate": 10, "burst_seconds": 1}}),
        json!({"write_operations": {"rate": 10, "burst": 20, "burst_seconds": 3_601}}),
    ] {
        assert_eq!(limits(odd.clone()).unwrap_err().code.code, "invalid-field", "{odd}");
    }
    let throttle = Command::Throttle { limits: Limits::default() };
    check(&attached(), throttle, Ok(&[]));
}
