//! Sources of bills: what was taken, what is due, who reads, and where nothing can be.

use serde_json::json;

use super::*;

fn stamp(time: &str) -> Stamp {
    Stamp { now: time.parse().unwrap(), actor: "test".into() }
}

fn place(more: serde_json::Value) -> Box<BillPlace> {
    let mut place = json!({"bucket": "bills", "prefix": "focus/"});
    place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(place).unwrap()
}

fn define(more: serde_json::Value) -> Command {
    let (name, credential) = (Some("aws".to_owned()), Some("sealed".to_owned()));
    Command::Define { name, place: place(more), credential }
}

fn taken(etag: &str) -> Taken {
    let file = File { key: "focus/a.csv".into(), bytes: 7, etag: etag.into() };
    Taken {
        delivery: "s3://bills/focus/a.csv".into(),
        files: vec![file],
        source_digest: "00".into(),
        bills: vec![],
        quarantined: 0,
    }
}

/// Sends commands one after the other; gives the source, and what came of the last.
fn after(commands: &[Command], at: &str) -> (BillSource, Result<usize, &'static str>) {
    let (mut source, mut last) = (BillSource::default(), Ok(0));
    for command in commands {
        let decided = source.decide(command.clone(), &stamp(at));
        last = decided.as_ref().map(Vec::len).map_err(|no| no.code.code);
        source = decided.into_iter().flatten().fold(source, Decider::evolve);
    }
    (source, last)
}

fn pull() -> Command {
    Command::Pull { reason: String::new(), due: None }
}

const NOON: &str = "2026-11-25T12:00:00Z";

#[test]
fn what_was_taken_is_known_file_by_file_and_once() {
    let take = |number, etag| Command::Take { number, taken: taken(etag) };
    let (source, last) = after(&[define(json!({})), pull(), take(1, "a")], NOON);
    assert_eq!((source.status(), last), ("pulling", Ok(1)));
    let print = fingerprint(&taken("a").files);
    assert!(source.has("s3://bills/focus/a.csv", &print));
    assert!(!source.has("s3://bills/focus/a.csv", &fingerprint(&taken("b").files)));
    let (_, last) = after(&[define(json!({})), pull(), take(1, "a"), take(1, "a")], NOON);
    assert_eq!(last, Ok(0), "again");
    let (source, last) = after(&[define(json!({})), pull(), take(2, "a")], NOON);
    assert_eq!((source.deliveries.len(), last), (0, Ok(0)), "of no order that is out");
}

#[test]
fn one_pull_is_out_at_a_time_and_ends_with_what_it_came_to_or_why_it_failed() {
    let (_, last) = after(&[define(json!({})), pull(), pull()], NOON);
    assert_eq!(last, Err("order-outstanding"));
    let finish = Command::FinishPull { number: 1, sum: Sum { listed: 3, ..Sum::default() } };
    let (source, _) = after(&[define(json!({})), pull(), finish], NOON);
    assert_eq!(source.status(), "active");
    assert_eq!(source.last_pull.unwrap().sum.unwrap().listed, 3);
    let park = Command::Park { number: 1, reason: "no answer in time".into() };
    let (source, _) = after(&[define(json!({})), pull(), park], NOON);
    assert_eq!(source.status(), "active", "the next pull needs no person");
    assert_eq!(source.last_pull.unwrap().failed.unwrap(), "unreachable");
}

#[test]
fn a_schedule_asks_once_for_each_time_and_makes_up_for_nothing() {
    let daily = || define(json!({"schedule": {"every": "day", "hour": 6}}));
    let (source, _) = after(&[daily()], NOON);
    assert_eq!(source.due(NOON.parse().unwrap()), None, "before it was defined");
    let morning = "2026-11-27T06:00:00Z".parse().unwrap();
    let later = "2026-11-27T09:00:00Z".parse().unwrap();
    assert_eq!(source.due(later), Some(morning));
    let asked = Command::Pull { reason: String::new(), due: Some(morning) };
    let finish = Command::FinishPull { number: 1, sum: Sum::default() };
    let commands = [daily(), asked.clone(), finish, asked];
    let (source, last) = after(&commands, NOON);
    assert_eq!((source.due(later), last, source.orders.issued), (None, Ok(0), 1));
    let (source, _) = after(&[daily(), Command::Pause {}], NOON);
    assert_eq!((source.status(), source.due(later)), ("paused", None));
    let (source, last) = after(&[daily(), Command::Pause {}, pull()], NOON);
    assert_eq!((source.order(), last), (None, Err("wrong-state")));
    let (source, _) = after(&[daily(), Command::Pause {}, Command::Resume {}], NOON);
    assert_eq!(source.due(later), Some(morning));
    let (source, _) = after(&[daily(), Command::Retire {}], NOON);
    assert_eq!((source.status(), source.due(later)), ("retired", None));
}

#[test]
fn a_credential_is_the_source_s_own_or_the_account_s() {
    let own = |credential: Option<&str>| Command::Define {
        name: Some("aws".into()),
        place: place(json!({})),
        credential: credential.map(str::to_owned),
    };
    assert_eq!(after(&[own(None)], NOON).1, Err("invalid-field"));
    let (source, last) = after(&[own(Some("sealed")), own(None)], NOON);
    assert_eq!((source.credential.as_deref(), last), (Some("sealed"), Ok(0)), "as before");
    let account = json!({"account": "00000000-0000-0000-0000-000000000001"});
    assert_eq!(after(&[define(account.clone())], NOON).1, Err("invalid-field"));
    let by_account = Command::Define { name: None, place: place(account), credential: None };
    let (source, last) = after(&[own(Some("sealed")), by_account], NOON);
    assert_eq!((source.credential, last), (None, Ok(1)));
}

#[test]
fn a_place_that_nothing_can_be_at_is_refused() {
    for odd in [
        json!({"bucket": "Bills"}),
        json!({"bucket": "a/../b"}),
        json!({"prefix": "/x"}),
        json!({"region": "eu/../"}),
        json!({"endpoint": "file:///etc"}),
        json!({"endpoint": "http://user@host"}),
        json!({"schedule": {"every": "day", "hour": 24}}),
    ] {
        assert_eq!(after(&[define(odd.clone())], NOON).1, Err("invalid-field"), "{odd}");
    }
}
