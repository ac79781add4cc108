//! Rules of snapshots of disks, by what was there, what was asked, and what came of it.

use serde_json::{Value, json};

use super::*;

const DISK: Uuid = Uuid::from_u128(1);
const SNAPSHOT: Uuid = Uuid::from_u128(2);

fn place() -> Value {
    json!({"id": SNAPSHOT, "host": Uuid::from_u128(3), "size_gib": 8})
}

fn send(state: &Snapshot, verb: &str, body: Value) -> Result<(Snapshot, Vec<Companion>), Refusal> {
    let stamp = Stamp { now: "2026-03-04T05:06:07Z".parse().unwrap(), actor: "test".into() };
    let command = serde_json::from_value(json!({"type": verb, "data": body})).unwrap();
    let events = state.decide(command, &stamp)?;
    let companions = state.companions(&events);
    Ok((events.into_iter().fold(state.clone(), Snapshot::evolve), companions))
}

fn ordered() -> (Snapshot, Vec<Companion>) {
    let body = json!({"name": "before", "disk": DISK, "found": place()});
    send(&Snapshot::default(), "create", body).unwrap()
}

fn told(companions: &[Companion]) -> Vec<&'static str> {
    companions.iter().map(|one| one.verb).collect()
}

#[test]
fn its_disk_waits_while_something_is_done_with_it() {
    let (taking, begun) = ordered();
    assert_eq!(told(&begun), ["begin-use"]);
    assert_eq!(taking.volumes(), [DISK], "its lease comes along");
    let (there, kept) = send(&taking, "confirm", json!({"number": 1})).unwrap();
    assert_eq!((there.status(), told(&kept)), ("available", vec!["keep-snapshot", "end-use"]));
    let (back, begun) = send(&there, "roll-back", json!({"found": place()})).unwrap();
    assert_eq!((back.status(), told(&begun)), ("rolling-back", vec!["begin-use"]));
    let (there, ended) = send(&back, "confirm", json!({"number": 2})).unwrap();
    assert_eq!((there.status(), told(&ended)), ("available", vec!["end-use"]));
    let (going, _) = send(&there, "delete", json!({"found": place()})).unwrap();
    let (gone, ended) = send(&going, "confirm-removal", json!({"number": 3})).unwrap();
    assert_eq!((gone.status(), told(&ended)), ("gone", vec!["drop-snapshot", "end-use"]));
}

#[test]
fn what_was_begun_and_given_up_is_taken_back() {
    let parked = send(&ordered().0, "park", json!({"number": 1, "reason": "r"})).unwrap().0;
    let (going, told_disk) = send(&parked, "abandon", json!({})).unwrap();
    assert_eq!((going.status(), told(&told_disk)), ("deleting", vec!["begin-use"]));
    let parked = send(&going, "park", json!({"number": 2, "reason": "r"})).unwrap().0;
    let (gone, ended) = send(&parked, "abandon", json!({})).unwrap();
    assert_eq!(gone.status(), "gone");
    assert!(told(&ended).contains(&"end-use"), "its disk waits no more");
}

#[test]
fn it_goes_with_its_disk_and_tells_nobody() {
    let there = send(&ordered().0, "confirm", json!({"number": 1})).unwrap().0;
    let (gone, told_disk) = send(&there, "go-with-disk", json!({})).unwrap();
    assert_eq!((gone.status(), told_disk), ("gone", vec![]));
}
