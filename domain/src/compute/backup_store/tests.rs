//! Rules of backup stores, by what was there, what was asked, and what came of it.

use serde_json::{Value, json};

use super::*;

fn stamp() -> Stamp {
    Stamp { now: "2026-03-04T05:06:07Z".parse().unwrap(), actor: "test".into() }
}

fn send(state: &BackupStore, verb: &str, body: Value) -> Result<BackupStore, Refusal> {
    let command = serde_json::from_value(json!({"type": verb, "data": body})).unwrap();
    let events = state.decide(command, &stamp())?;
    Ok(events.into_iter().fold(state.clone(), BackupStore::evolve))
}

fn create(place: Value) -> Result<BackupStore, Refusal> {
    let body = json!({"name": "vault", "place": place, "credential": "one"});
    send(&BackupStore::default(), "create", body)
}

#[test]
fn a_store_is_used_once_it_was_found_to_work() {
    let store = create(json!({"bucket": "backups", "endpoint": "http://127.0.0.1:9000"})).unwrap();
    assert_eq!(store.status(), "verifying");
    assert_eq!(store.ensure_usable().unwrap_err().code.code, "wrong-state");
    let refused = send(&store, "refuse", json!({"number": 1, "reason": "denied"})).unwrap();
    assert_eq!(refused.status(), "refused");
    assert!(refused.ensure_usable().unwrap_err().detail.contains("denied"));
    let again = send(&refused, "verify", json!({})).unwrap();
    let ready = send(&again, "confirm", json!({"number": 2})).unwrap();
    assert_eq!(ready.status(), "ready");
    ready.ensure_usable().unwrap();
}

#[test]
fn another_credential_counts_when_it_was_found_to_work() {
    let store = create(json!({"bucket": "backups"})).unwrap();
    let ready = send(&store, "confirm", json!({"number": 1})).unwrap();
    let asked = send(&ready, "update-credential", json!({"credential": "two"})).unwrap();
    assert_eq!(asked.credential, "one");
    let kept = send(&asked, "refuse", json!({"number": 2, "reason": "denied"})).unwrap();
    assert_eq!((kept.credential.as_str(), kept.status()), ("one", "ready"));
    let asked = send(&kept, "update-credential", json!({"credential": "two"})).unwrap();
    let other = send(&asked, "confirm", json!({"number": 3})).unwrap();
    assert_eq!(other.credential, "two");
}

#[test]
fn it_is_collected_by_itself_once_a_day() {
    let store = create(json!({"bucket": "backups"})).unwrap();
    let now = stamp().now;
    assert!(!store.is_due(now + COLLECT_AFTER), "it was never used");
    let ready = send(&store, "confirm", json!({"number": 1})).unwrap();
    assert!(!ready.is_due(now));
    assert!(ready.is_due(now + COLLECT_AFTER));
    let collecting = send(&ready, "collect", json!({})).unwrap();
    assert!(!collecting.is_due(now + COLLECT_AFTER), "it is at it");
}

#[test]
fn a_place_that_cannot_be_is_refused_with_the_field() {
    for (place, field) in [
        (json!({"bucket": "No"}), "bucket"),
        (json!({"bucket": "a..b"}), "bucket"),
        (json!({"bucket": "backups", "prefix": "/x/"}), "prefix"),
        (json!({"bucket": "backups", "prefix": "x"}), "prefix"),
        (json!({"bucket": "backups", "prefix": format!("{}/", "x".repeat(500))}), "prefix"),
        (json!({"bucket": "backups", "region": "EU"}), "region"),
        (json!({"bucket": "backups", "endpoint": "s3.example.com"}), "endpoint"),
        (json!({"bucket": "backups", "endpoint": "https://user@s3.example.com"}), "endpoint"),
        (json!({"bucket": "backups", "endpoint": "https:///x"}), "endpoint"),
    ] {
        let refused = create(place).unwrap_err();
        assert_eq!(refused.code.code, "invalid-field");
        assert!(refused.detail.starts_with(&format!("place.{field}")), "{}", refused.detail);
    }
}
