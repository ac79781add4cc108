//! Given facts, when a command, then facts or a refusal.

use super::*;

fn connected() -> Event {
    Event::Connected {
        name: "prod".into(),
        provider: "sim".into(),
        project: None,
        endpoint: None,
        credential: "sealed-1".into(),
    }
}

fn confirmed() -> Event {
    Event::IdentityConfirmed { external_account: "acc-1".into(), principal: "user/a".into() }
}

fn sync() -> Command {
    Command::Sync { regions: vec![], kinds: vec![], approve_deletions: false }
}

fn sync_ordered() -> Event {
    Event::SyncOrdered { regions: vec![], kinds: vec![], approve_deletions: false }
}

fn identity(number: u64, account: &str) -> Command {
    Command::ConfirmIdentity {
        number,
        external_account: account.into(),
        principal: "user/a".into(),
    }
}

fn given(facts: &[Event]) -> CloudAccount {
    facts.iter().cloned().fold(CloudAccount::default(), Decider::evolve)
}

fn check(facts: &[Event], when: Command, then: Result<&[Event], &str>) -> CloudAccount {
    let stamp = Stamp { now: DateTime::UNIX_EPOCH, actor: "test".into() };
    let state = given(facts);
    let got = state.decide(when, &stamp);
    assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    got.unwrap_or_default().into_iter().fold(state, Decider::evolve)
}

#[test]
fn an_account_is_verified_before_it_is_used() {
    let connect = || Command::Connect {
        name: "prod".into(),
        provider: "sim".into(),
        project: None,
        endpoint: None,
        credential: "sealed-1".into(),
    };
    let state = check(&[], connect(), Ok(&[connected()]));
    assert_eq!(state.status(), "connecting");
    check(&[connected()], connect(), Err("already-exists"));
    check(&[], sync(), Err("not-found"));
    check(&[connected()], sync(), Err("account-not-ready"));
    let state = check(&[connected()], identity(1, "acc-1"), Ok(&[confirmed()]));
    assert!(state.is_ready());
    assert_eq!(state.status(), "connected");
    assert_eq!(given(&[connected()]).claims(&[confirmed()]), ["cloud-account/sim/-/acc-1"]);
    assert!(state.claims(&[confirmed()]).is_empty());
}

#[test]
fn a_refused_credential_stops_work_until_another_is_verified() {
    let refused = Event::CredentialRefused { reason: "unknown key".into() };
    let refuse = Command::RefuseCredential { number: 1, reason: "unknown key".into() };
    let state = check(&[connected()], refuse, Ok(&[refused.clone()]));
    assert_eq!((state.status(), state.is_ready()), ("denied", false));
    let candidate = Event::CredentialUpdateOrdered { candidate: "sealed-2".into() };
    let update = Command::UpdateCredential { credential: "sealed-2".into() };
    check(&[connected(), refused.clone()], update, Ok(&[candidate.clone()]));
    let replaced = Event::CredentialReplaced { credential: "sealed-2".into() };
    let facts = [connected(), refused, candidate];
    let state = check(&facts, identity(2, "acc-1"), Ok(&[replaced, confirmed()]));
    assert_eq!((state.credential.as_str(), state.is_ready()), ("sealed-2", true));
}

#[test]
fn another_accounts_credential_never_replaces_this_ones() {
    let candidate = Event::CredentialUpdateOrdered { candidate: "sealed-2".into() };
    let reason = "the credential belongs to account acc-2, this is acc-1".to_owned();
    let facts = [connected(), confirmed(), candidate];
    let refused = Event::CredentialRefused { reason };
    let state = check(&facts, identity(2, "acc-2"), Ok(&[refused]));
    assert_eq!((state.credential.as_str(), state.status()), ("sealed-1", "connected"));
}

#[test]
fn a_paused_account_is_left_alone_and_goes_on_where_it_was() {
    let facts = [connected(), confirmed(), sync_ordered()];
    let state = check(&facts, Command::Pause {}, Ok(&[Event::Paused {}]));
    assert_eq!((state.status(), Decider::order(&state)), ("paused", None));
    let paused = [connected(), confirmed(), sync_ordered(), Event::Paused {}];
    check(&paused, Command::Pause {}, Ok(&[]));
    check(&paused, sync(), Err("account-not-ready"));
    let state = check(&paused, Command::Resume {}, Ok(&[Event::Resumed {}]));
    assert_eq!(state.status(), "syncing");
    assert!(Decider::order(&state).is_some());
    check(&facts, Command::Resume {}, Ok(&[]));
}

#[test]
fn a_sync_is_complete_only_when_every_scope_is() {
    let facts = [connected(), confirmed(), sync_ordered()];
    check(&facts, sync(), Err("order-outstanding"));
    let scope = |complete| Scope {
        kind: "server".into(),
        region: None,
        complete,
        listed: 1,
        discovered: 0,
        changed: 0,
        vanished: 0,
        withheld: 0,
        fault: None,
    };
    let whole = |state: &CloudAccount| state.last_whole_run.as_ref().map(|run| run.complete);
    for (scopes, complete) in [
        (vec![scope(true)], true),
        (vec![scope(true), scope(false)], false),
        // Who looked at nothing has seen nothing.
        (vec![], false),
    ] {
        let started_at = DateTime::UNIX_EPOCH;
        let finish = Command::FinishSync { number: 2, started_at, scopes: scopes.clone() };
        let finished = Event::SyncFinished { run: 2, started_at, complete, scopes };
        let state = check(&facts, finish, Ok(&[finished]));
        assert_eq!(state.last_run.as_ref().map(|run| run.complete), Some(complete));
        assert_eq!(whole(&state), Some(complete));
        assert_eq!(state.status(), "connected");
    }
    let part = |regions: &[&str], kinds: &[&str]| {
        let texts = |some: &[&str]| some.iter().map(|&text| text.to_owned()).collect();
        let (regions, kinds) = (texts(regions), texts(kinds));
        Event::SyncOrdered { regions, kinds, approve_deletions: false }
    };
    for part in [part(&["north"], &[]), part(&[], &["vpc"])] {
        let started_at = DateTime::UNIX_EPOCH;
        let finish = Command::FinishSync { number: 2, started_at, scopes: vec![scope(true)] };
        let facts = [connected(), confirmed(), part];
        let run =
            Event::SyncFinished { run: 2, started_at, complete: true, scopes: vec![scope(true)] };
        let state = check(&facts, finish, Ok(&[run]));
        assert_eq!((whole(&state), state.last_run.is_some()), (None, true));
    }
}

#[test]
fn a_parked_order_waits_for_a_person() {
    let park = || Command::Park { number: 1, reason: "no route".into() };
    let parked = Event::Parked { number: 1, reason: "no route".into() };
    check(&[connected()], park(), Ok(std::slice::from_ref(&parked)));
    check(&[connected(), parked.clone()], park(), Ok(&[]));
    check(&[connected(), parked.clone()], Command::Verify {}, Err("order-parked"));
    check(&[connected(), parked.clone()], Command::Retry {}, Ok(&[Event::RetryOrdered {}]));
    let state = check(&[connected(), parked], Command::Abandon {}, Ok(&[Event::Abandoned {}]));
    assert_eq!((state.status(), Decider::order(&state)), ("connecting", None));
    check(&[connected()], Command::Retry {}, Err("nothing-parked"));
}

#[test]
fn a_name_is_changed_to_another_that_is_one() {
    let rename = |name: &str| Command::Rename { name: name.into() };
    check(&[connected()], rename("prod"), Ok(&[]));
    check(&[connected()], rename("live"), Ok(&[Event::Renamed { name: "live".into() }]));
    check(&[connected()], rename(""), Err("invalid-field"));
}

#[test]
fn settings_are_replaced_as_a_whole_and_the_same_ones_are_no_news() {
    let settings = |text: &str| -> Map<String, Value> { serde_json::from_str(text).unwrap() };
    let (one, other) = (settings(r#"{"a": 1, "b": 2}"#), settings(r#"{"b": 2}"#));
    let configure =
        |settings: &Map<String, Value>| Command::Configure { settings: settings.clone() };
    let configured =
        |settings: &Map<String, Value>| Event::Configured { settings: settings.clone() };
    check(&[], configure(&one), Err("not-found"));
    check(&[connected()], configure(&Map::new()), Ok(&[]));
    let state = check(&[connected()], configure(&one), Ok(&[configured(&one)]));
    assert_eq!(state.settings, one);
    check(&[connected(), configured(&one)], configure(&one), Ok(&[]));
    let state =
        check(&[connected(), configured(&one)], configure(&other), Ok(&[configured(&other)]));
    assert_eq!(state.settings, other);
}
