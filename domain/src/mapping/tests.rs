//! Given facts, when a command, then facts or a refusal: with security groups as the example.

use chrono::{DateTime, TimeDelta};
use serde_json::json;

use super::*;
use crate::network::security_group::SecurityGroup;

type Mapping = Mapped<SecurityGroup>;
type Fact = Event<SecurityGroup>;
type Wish = Command<SecurityGroup>;

fn spec(ports: &[u16]) -> SecurityGroup {
    let rules: Vec<_> = ports
        .iter()
        .map(|port| {
            json!({"direction": "ingress", "protocol": "tcp", "ports": port.to_string(),
                   "peer": {"cidr": "10.0.0.0/8"}})
        })
        .collect();
    let group: SecurityGroup =
        serde_json::from_value(json!({"name": "web", "rules": rules})).unwrap();
    group.normalise()
}

fn origin(external_id: &str) -> Origin {
    Origin {
        provider: "sim".into(),
        account: Uuid::from_u128(1),
        region: Some("north".into()),
        external_id: external_id.into(),
    }
}

fn declare(ports: &[u16]) -> Wish {
    Wish::Declare {
        account: Some(Uuid::from_u128(1)),
        provider: Some("sim".into()),
        region: Some("north".into()),
        project: None,
        spec: spec(ports),
    }
}

fn observe(ports: &[u16]) -> Wish {
    Wish::Observe {
        origin: origin("sg-1"),
        project: None,
        seen: spec(ports),
        actor: Some("ann".into()),
    }
}

fn retire() -> Wish {
    Wish::Retire { nowhere: false }
}

fn declared(ports: &[u16]) -> Fact {
    Fact::Declared { origin: origin(""), project: None, spec: spec(ports) }
}

/// Declared and created.
fn linked(ports: &[u16]) -> Vec<Fact> {
    let link = Fact::Linked { number: 1, origin: origin("sg-1"), seen: spec(ports) };
    vec![declared(ports), link]
}

fn drifted(wanted: &[u16], seen: &[u16]) -> Fact {
    Fact::Drifted {
        seen: spec(seen),
        fields: SecurityGroup::drift(&spec(wanted), &spec(seen)),
        actor: Some("ann".into()),
    }
}

fn discovered(ports: &[u16]) -> Fact {
    Fact::Discovered { origin: origin("sg-1"), project: None, seen: spec(ports) }
}

fn parked(number: u64) -> Fact {
    Fact::Parked { number, reason: "quota".into() }
}

fn vanished() -> Fact {
    Fact::Vanished { evidence: Evidence::NotFoundById }
}

fn muted(until: Option<DateTime<Utc>>) -> Fact {
    Fact::Muted { mute: Mute { reason: "known".into(), until } }
}

fn given(facts: &[&[Fact]]) -> Mapping {
    facts.iter().flat_map(|some| some.iter().cloned()).fold(Mapping::default(), Decider::evolve)
}

fn stamp() -> Stamp {
    Stamp { now: DateTime::UNIX_EPOCH + TimeDelta::days(1), actor: "test".into() }
}

fn check(given: &Mapping, when: Wish, then: Result<&[Fact], &str>) -> Mapping {
    let got = given.decide(when, &stamp());
    assert_eq!(got.as_deref().map_err(|no| no.code.code), then);
    got.unwrap_or_default().into_iter().fold(given.clone(), Decider::evolve)
}

fn order(of: &Mapping) -> Option<Order<SecurityGroup>> {
    Decider::order(of).map(|out| out.order)
}

#[test]
fn a_region_looks_like_the_id_of_one() {
    let within = |region: &str| {
        let Wish::Declare { account, provider, project, spec, .. } = declare(&[22]) else {
            unreachable!()
        };
        let wish =
            Wish::Declare { account, provider, region: Some(region.to_owned()), project, spec };
        Mapping::default().decide(wish, &stamp()).map(drop).map_err(|no| no.code.code)
    };
    for right in ["eu-central-1", "North_2.b", &"r".repeat(64)] {
        assert_eq!(within(right), Ok(()), "{right}");
    }
    for wrong in ["", "a b", "köln", "a\0", &"r".repeat(65), &"r".repeat(100_000)] {
        assert_eq!(within(wrong), Err("invalid-field"), "{}", wrong.len());
    }
}

#[test]
fn what_is_declared_is_created_and_then_linked() {
    let state = check(&Mapping::default(), declare(&[22]), Ok(&[declared(&[22])]));
    assert_eq!(order(&state), Some(Order::Create { spec: spec(&[22]) }));
    let link = Wish::Link { number: 1, external_id: "sg-1".into(), seen: spec(&[22]) };
    let state = check(&state, link.clone(), Ok(&linked(&[22])[1..]));
    assert_eq!((state.status(), order(&state)), ("linked", None));
    // A report that comes twice says nothing new.
    check(&state, link, Ok(&[]));
    check(&state, declare(&[22]), Ok(&[]));
}

#[test]
fn what_is_declared_for_the_first_time_needs_its_account() {
    let Wish::Declare { provider, region, project, spec, .. } = declare(&[]) else { panic!() };
    let homeless = Wish::Declare { account: None, provider, region, project, spec };
    check(&Mapping::default(), homeless, Err("invalid-field"));
}

#[test]
fn a_mapping_never_moves() {
    let Wish::Declare { provider, project, spec, .. } = declare(&[22]) else { panic!() };
    for (account, region) in [(Some(Uuid::from_u128(2)), None), (None, Some("south".to_owned()))] {
        let (provider, spec) = (provider.clone(), spec.clone());
        let moved = Wish::Declare { account, provider, region, project, spec };
        check(&given(&[&linked(&[22])]), moved, Err("invalid-field"));
    }
}

#[test]
fn a_change_of_what_is_wanted_keeps_what_is_not_ours() {
    let state = given(&[&linked(&[22, 80]), &[drifted(&[22, 80], &[22, 80, 3389])]]);
    let expected = Fact::SpecDeclared { spec: spec(&[80, 443]), to: spec(&[80, 443, 3389]) };
    let state = check(&state, declare(&[80, 443]), Ok(&[expected]));
    let apply = Order::Apply { from: spec(&[22, 80, 3389]), to: spec(&[80, 443, 3389]) };
    assert_eq!((order(&state), state.status()), (Some(apply), "applying"));
    let seen = spec(&[80, 443, 3389]);
    let done = Wish::ConfirmApplied { number: 2, seen: seen.clone() };
    let state = check(&state, done, Ok(&[Fact::Applied { number: 2, seen }]));
    assert_eq!((state.status(), state.drift().len()), ("drifted", 1));
}

#[test]
fn nothing_is_declared_while_an_order_is_out() {
    check(&given(&[&[declared(&[22])]]), declare(&[80]), Err("order-outstanding"));
    check(&given(&[&[declared(&[22]), parked(1)]]), declare(&[80]), Err("order-parked"));
}

#[test]
fn a_creation_that_was_given_up_can_be_wished_again() {
    let state = given(&[&[declared(&[22]), parked(1), Fact::Abandoned {}]]);
    assert_eq!((state.status(), order(&state)), ("declared", None));
    let again = Fact::SpecDeclared { spec: spec(&[22]), to: spec(&[22]) };
    let state = check(&state, declare(&[22]), Ok(&[again]));
    assert_eq!(order(&state), Some(Order::Create { spec: spec(&[22]) }));
    check(&state, declare(&[22]), Ok(&[]));
}

#[test]
fn a_creation_that_was_given_up_is_cleaned_up_when_it_is_retired() {
    let state = given(&[&[declared(&[22]), parked(1), Fact::Abandoned {}]]);
    let state = check(&state, retire(), Ok(&[Fact::RetireOrdered {}]));
    assert_eq!(order(&state), Some(Order::Delete {}));
    let abandoned = given(&[&[
        declared(&[22]),
        parked(1),
        Fact::Abandoned {},
        Fact::RetireOrdered {},
        parked(2),
        Fact::Abandoned {},
    ]]);
    assert_eq!(abandoned.status(), "declared");
    check(&state, Wish::ConfirmDeleted { number: 2 }, Ok(&[Fact::Retired {}]));
}

#[test]
fn what_lies_nowhere_ends_without_an_order() {
    let given_up = given(&[&[declared(&[22]), parked(1), Fact::Abandoned {}]]);
    check(&given_up, Wish::Retire { nowhere: true }, Ok(&[Fact::Retired {}]));
    let waiting = given(&[&[declared(&[22]), parked(1)]]);
    check(&waiting, Wish::Retire { nowhere: true }, Err("order-parked"));
}

#[test]
fn what_nobody_wants_is_discovered_and_can_be_adopted() {
    let state = check(&Mapping::default(), observe(&[22]), Ok(&[discovered(&[22])]));
    assert_eq!((state.status(), state.facets().drifted), ("discovered", Some(false)));
    check(&state, observe(&[22]), Ok(&[]));
    let news = Fact::Observed { seen: spec(&[80]), actor: Some("ann".into()) };
    let state = check(&state, observe(&[80]), Ok(&[news]));
    check(&state, declare(&[80]), Err("wrong-state"));
    let state = check(&state, Wish::Adopt {}, Ok(&[Fact::Adopted { spec: spec(&[80]) }]));
    assert_eq!(state.status(), "linked");
    check(&state, Wish::Adopt {}, Err("wrong-state"));
}

#[test]
fn drift_is_an_event_with_its_fields_and_its_actor() {
    let state = given(&[&linked(&[22])]);
    let state = check(&state, observe(&[22, 80]), Ok(&[drifted(&[22], &[22, 80])]));
    assert_eq!((state.status(), state.facets().drifted), ("drifted", Some(true)));
    assert_eq!(state.seen_by.as_deref(), Some("ann"));
    check(&state, observe(&[22, 80]), Ok(&[]));
    let converged = Fact::Converged { seen: spec(&[22]), actor: Some("ann".into()) };
    assert_eq!(check(&state, observe(&[22]), Ok(&[converged])).status(), "linked");
}

#[test]
fn a_drift_is_answered_by_accept() {
    let state = given(&[&linked(&[22]), &[drifted(&[22], &[80])]]);
    let state = check(&state, Wish::Accept {}, Ok(&[Fact::Accepted { spec: spec(&[80]) }]));
    assert_eq!((state.status(), order(&state)), ("linked", None));
    check(&state, Wish::Accept {}, Err("no-drift"));
}

#[test]
fn a_drift_is_answered_by_reapply_with_and_without_what_is_not_ours() {
    for (keep_foreign, to) in [(true, vec![22, 80]), (false, vec![22])] {
        let state = given(&[&linked(&[22]), &[drifted(&[22], &[80])]]);
        let ordered = Fact::ReapplyOrdered { to: spec(&to), keep_foreign };
        let state = check(&state, Wish::Reapply { keep_foreign }, Ok(&[ordered]));
        assert_eq!(order(&state), Some(Order::Apply { from: spec(&[80]), to: spec(&to) }));
        check(&state, Wish::Reapply { keep_foreign }, Err("order-outstanding"));
    }
    check(&given(&[&linked(&[22])]), Wish::Reapply { keep_foreign: true }, Err("no-drift"));
}

#[test]
fn a_muted_drift_stands_until_it_changes() {
    let mute = || Wish::Mute { reason: "known".into(), until: None };
    let state = given(&[&linked(&[22]), &[drifted(&[22], &[80])]]);
    let state = check(&state, mute(), Ok(&[muted(None)]));
    assert_eq!(state.status(), "muted");
    check(&state, mute(), Ok(&[]));
    assert_eq!(check(&state, Wish::Unmute {}, Ok(&[Fact::Unmuted {}])).status(), "drifted");
    let state = check(&state, observe(&[443]), Ok(&[drifted(&[22], &[443])]));
    assert_eq!(state.status(), "drifted");
    check(&state, Wish::Unmute {}, Err("wrong-state"));
    check(&given(&[&linked(&[22])]), mute(), Err("no-drift"));
}

#[test]
fn a_mute_ends_by_itself_at_the_next_look() {
    let facts = [drifted(&[22], &[80]), muted(Some(stamp().now))];
    let state = given(&[&linked(&[22]), &facts]);
    assert_eq!(check(&state, observe(&[80]), Ok(&[Fact::Unmuted {}])).status(), "drifted");
    let later = [drifted(&[22], &[80]), muted(Some(stamp().now + TimeDelta::seconds(1)))];
    check(&given(&[&linked(&[22]), &later]), observe(&[80]), Ok(&[]));
}

#[test]
fn a_look_while_an_order_is_out_says_nothing() {
    let out = Fact::SpecDeclared { spec: spec(&[22, 80]), to: spec(&[22, 80]) };
    check(&given(&[&linked(&[22]), &[out]]), observe(&[80]), Ok(&[]));
    check(
        &given(&[&[declared(&[22])]]),
        Wish::Vanish { evidence: Evidence::NotFoundById },
        Ok(&[]),
    );
}

#[test]
fn a_look_at_something_else_is_refused() {
    let Wish::Observe { project, seen, actor, .. } = observe(&[80]) else { panic!() };
    let other = Wish::Observe { origin: origin("sg-2"), project, seen, actor };
    check(&given(&[&linked(&[22])]), other, Err("invalid-field"));
}

#[test]
fn what_vanished_keeps_its_place_and_can_come_back_or_be_made_again() {
    let state = given(&[&linked(&[22])]);
    let vanish = || Wish::Vanish { evidence: Evidence::NotFoundById };
    let state = check(&state, vanish(), Ok(&[vanished()]));
    assert_eq!((state.status(), state.facets().gone), ("vanished", false));
    check(&state, vanish(), Ok(&[]));
    let back = Fact::Reappeared { seen: spec(&[80]) };
    assert_eq!(check(&state, observe(&[80]), Ok(&[back])).status(), "drifted");
    let again = Fact::ReapplyOrdered { to: spec(&[22]), keep_foreign: false };
    let state = check(&state, Wish::Reapply { keep_foreign: false }, Ok(&[again]));
    assert_eq!(order(&state), Some(Order::Create { spec: spec(&[22]) }));
    assert_eq!(
        check(&given(&[&[discovered(&[22]), vanished()]]), retire(), Ok(&[Fact::Retired {}]))
            .status(),
        "retired"
    );
}

#[test]
fn what_vanishes_behind_a_parked_order_is_seen_to_be_gone() {
    let vanish = || Wish::Vanish { evidence: Evidence::NotFoundById };
    let change = Fact::SpecDeclared { spec: spec(&[80]), to: spec(&[80]) };
    let waiting = given(&[&linked(&[22]), std::slice::from_ref(&change)]);
    check(&waiting, vanish(), Ok(&[]));
    let state = given(&[&linked(&[22]), &[change, parked(2)]]);
    let state = check(&state, vanish(), Ok(&[vanished()]));
    assert_eq!((state.status(), order(&state)), ("vanished", None));
    let retiring = given(&[&linked(&[22]), &[Fact::RetireOrdered {}, parked(2)]]);
    let state = check(&retiring, vanish(), Ok(&[vanished(), Fact::Retired {}]));
    assert_eq!((state.status(), order(&state)), ("retired", None));
}

#[test]
fn what_an_order_that_was_given_up_has_made_is_ours() {
    let change = Fact::SpecDeclared { spec: spec(&[80, 443, 8443]), to: spec(&[80, 443, 8443]) };
    let half = drifted(&[80, 443, 8443], &[80, 443, 3389]);
    let state = given(&[&linked(&[80]), &[change, parked(2), Fact::Abandoned {}, half]]);
    let expected = Fact::SpecDeclared { spec: spec(&[80]), to: spec(&[80, 3389]) };
    check(&state, declare(&[80]), Ok(&[expected]));
}

#[test]
fn what_was_ours_stays_ours_while_others_make_drift() {
    let drifts = [drifted(&[22, 80], &[80]), drifted(&[22, 80], &[80, 3389])];
    let state = given(&[&linked(&[22, 80]), &drifts]);
    assert_eq!(state.base, Some(spec(&[22, 80])));
}

#[test]
fn a_rule_that_is_there_twice_with_two_descriptions_is_refused() {
    let Wish::Declare { account, provider, region, project, mut spec } = declare(&[22]) else {
        panic!()
    };
    let rule = spec.rules[0].clone();
    spec.rules.push(crate::network::security_group::Rule { description: "b".into(), ..rule });
    let twice = Wish::Declare { account, provider, region, project, spec };
    check(&Mapping::default(), twice, Err("rule-ambiguous"));
}

#[test]
fn what_is_retired_is_deleted_and_ends() {
    let state = given(&[&linked(&[22])]);
    let state = check(&state, retire(), Ok(&[Fact::RetireOrdered {}]));
    assert_eq!((state.status(), order(&state)), ("retiring", Some(Order::Delete {})));
    let gone = check(&state, Wish::ConfirmDeleted { number: 2 }, Ok(&[Fact::Retired {}]));
    assert_eq!((gone.status(), gone.facets().gone, order(&gone)), ("retired", true, None));
    check(&gone, declare(&[22]), Err("wrong-state"));
    let back = Fact::Discovered { origin: origin("sg-1"), project: None, seen: spec(&[80]) };
    assert!(gone.claims(std::slice::from_ref(&back)).is_empty(), "the claim is ours already");
    assert_eq!(check(&gone, observe(&[80]), Ok(&[back])).status(), "discovered");
}

#[test]
fn a_parked_order_waits_for_a_person() {
    let park = || Wish::Park { number: 1, reason: "quota".into() };
    let state = check(&given(&[&[declared(&[22])]]), park(), Ok(&[parked(1)]));
    assert_eq!(state.status(), "parked");
    check(&state, park(), Ok(&[]));
    let state = check(&state, Wish::Retry {}, Ok(&[Fact::RetryOrdered {}]));
    assert_eq!(state.status(), "creating");
    check(&state, Wish::Retry {}, Err("nothing-parked"));
    check(&state, Wish::Abandon {}, Err("nothing-parked"));
    let retiring = given(&[&linked(&[22]), &[Fact::RetireOrdered {}, parked(2)]]);
    assert_eq!(check(&retiring, Wish::Abandon {}, Ok(&[Fact::Abandoned {}])).status(), "linked");
}

#[test]
fn a_counterpart_is_claimed_when_it_is_first_known() {
    let link = &linked(&[22])[1];
    let one = std::slice::from_ref(link);
    assert_eq!(given(&[&[declared(&[22])]]).claims(one), [origin("sg-1").claim("security-group")]);
    assert!(given(&[&linked(&[22])]).claims(one).is_empty());
    assert_eq!(Mapping::default().claims(&[discovered(&[22])]).len(), 1);
}

#[test]
fn it_is_given_to_a_project_once() {
    let project = Some(Uuid::from_u128(9));
    let state = given(&[&linked(&[22])]);
    let state = check(&state, Wish::Assign { project }, Ok(&[Fact::Assigned { project }]));
    check(&state, Wish::Assign { project }, Ok(&[]));
    check(&Mapping::default(), Wish::Assign { project }, Err("wrong-state"));
}
