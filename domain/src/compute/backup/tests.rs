//! Rules of backups of disks, by what was there, what was asked, and what came of it.

use serde_json::json;

use super::*;

const DISK: Uuid = Uuid::from_u128(1);
const STORE: Uuid = Uuid::from_u128(2);
const PARENT: Uuid = Uuid::from_u128(3);
const BACKUP: Uuid = Uuid::from_u128(4);

fn stamp() -> Stamp {
    Stamp { now: "2026-03-04T05:06:07Z".parse().unwrap(), actor: "test".into() }
}

fn send(state: &Backup, verb: &str, body: Value) -> Result<(Backup, Vec<Companion>), Refusal> {
    let command = serde_json::from_value(json!({"type": verb, "data": body})).unwrap();
    let events = state.decide(command, &stamp())?;
    let companions = state.companions(&events);
    Ok((events.into_iter().fold(state.clone(), Backup::evolve), companions))
}

fn ordered() -> (Backup, Vec<Companion>) {
    let found = json!({"id": BACKUP, "host": Uuid::from_u128(5), "disk_name": "data"});
    let body = json!({
        "name": "nightly", "disk": DISK, "store": STORE, "parent": PARENT, "found": found,
    });
    send(&Backup::default(), "create", body).unwrap()
}

fn made() -> Value {
    json!({
        "digest": "0a", "size_bytes": 8, "read_bytes": 8, "sent_bytes": 4, "stored_bytes": 4,
        "chunks": 1,
    })
}

fn told(companions: &[Companion]) -> Vec<(&'static str, Uuid, &'static str)> {
    companions.iter().map(|one| (one.kind, one.id, one.verb)).collect()
}

#[test]
fn while_it_is_taken_its_disk_and_its_parent_wait() {
    let (backup, begun) = ordered();
    assert_eq!(told(&begun), [("disk", DISK, "begin-use"), ("backup", PARENT, "begin-use")]);
    assert_eq!(backup.status(), "taking");
    assert!(backup.on_host().is_some());
    let (backup, ended) = send(&backup, "confirm", json!({"number": 1, "made": made()})).unwrap();
    assert_eq!(told(&ended), [("disk", DISK, "end-use"), ("backup", PARENT, "end-use")]);
    assert_eq!(backup.status(), "available");
    let again = send(&backup, "confirm", json!({"number": 1, "made": made()})).unwrap();
    assert_eq!(again, (backup, vec![]), "a report that comes twice");
}

#[test]
fn what_was_given_up_leaves_nothing_on_its_host_and_then_nothing_in_its_store() {
    let (backup, _) = ordered();
    let parked = send(&backup, "park", json!({"number": 1, "reason": "r"})).unwrap().0;
    assert_eq!(send(&parked, "delete", json!({})).unwrap_err().code.code, "order-parked");
    let (giving, kept) = send(&parked, "abandon", json!({})).unwrap();
    assert_eq!((giving.status(), kept), ("giving-up", vec![]));
    assert!(giving.on_host().is_some());
    let (removing, ended) = send(&giving, "confirm-given-up", json!({"number": 2})).unwrap();
    assert_eq!(ended.len(), 2);
    assert_eq!(removing.status(), "deleting");
    assert!(removing.on_host().is_none(), "the store is asked from here");
    let (gone, ended) = send(&removing, "confirm-removal", json!({"number": 3})).unwrap();
    assert_eq!((gone.status(), ended), ("gone", vec![]));
}

#[test]
fn what_something_is_made_from_stays() {
    let taken = send(&ordered().0, "confirm", json!({"number": 1, "made": made()})).unwrap().0;
    let used = send(&taken, "begin-use", json!({"by": DISK})).unwrap().0;
    let refused = send(&used, "delete", json!({})).unwrap_err();
    assert_eq!(refused.code.code, "in-use");
    let free = send(&used, "end-use", json!({"by": DISK})).unwrap().0;
    let going = send(&free, "delete", json!({})).unwrap().0;
    let late = send(&going, "begin-use", json!({"by": DISK})).unwrap_err();
    assert_eq!(late.code.code, "wrong-state");
}

#[test]
fn nothing_is_made_from_a_damaged_one_and_it_can_be_deleted() {
    let taken = send(&ordered().0, "confirm", json!({"number": 1, "made": made()})).unwrap().0;
    let asked = send(&taken, "verify", json!({})).unwrap().0;
    let body = json!({"number": 2, "damaged": "chunk 3"});
    let damaged = send(&asked, "confirm-verified", body).unwrap().0;
    assert_eq!(damaged.status(), "damaged");
    assert_eq!(damaged.ensure_whole().unwrap_err().code.code, "wrong-state");
    assert_eq!(send(&damaged, "delete", json!({})).unwrap().0.status(), "deleting");
}
