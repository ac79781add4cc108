//! Laws of security groups: one spelling, honest drift, and changes that leave others' rules alone.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    kernel::{Decider, Stamp},
    mapping::{Command, Mapped, Order, Spec},
    network::security_group::{Rule, SecurityGroup},
};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::json;

use crate::samples::{id, origin, time};

fn rule() -> impl Strategy<Value = Rule> {
    let peers = select(vec![
        json!({"cidr": "10.1.2.3/8"}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "::/0"}),
        json!({"group": "x"}),
        json!({"prefix_list": "x"}),
    ]);
    let ports = select(vec![None, Some("22"), Some("0-65535"), Some("80-90")]);
    let rest = (
        select(vec!["ingress", "egress"]),
        select(vec!["allow", "deny"]),
        select(vec!["", "a", "b"]),
    );
    (peers, ports, rest, select(vec![None, Some(5)])).prop_map(|(peer, ports, rest, priority)| {
        let (direction, action, description) = rest;
        serde_json::from_value(json!({
            "direction": direction, "action": action, "protocol": "tcp", "ports": ports,
            "peer": peer, "priority": priority, "description": description,
        }))
        .unwrap()
    })
}

/// Groups that often have rules and tags in common; as people write them, not normalised.
fn group() -> impl Strategy<Value = SecurityGroup> {
    let tags = vec((select(vec!["a", "b", "c"]), select(vec!["1", "2"])), 0..3);
    (vec(rule(), 0..6), tags, select(vec!["web", "api"])).prop_map(|(rules, tags, name)| {
        SecurityGroup {
            name: name.into(),
            description: String::new(),
            vpc: None,
            rules,
            tags: tags.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    })
}

fn normal() -> impl Strategy<Value = SecurityGroup> {
    group().prop_map(Spec::normalise)
}

fn keys(group: &SecurityGroup) -> BTreeSet<Rule> {
    group.rules.iter().map(Rule::key).collect()
}

fn names(group: &SecurityGroup) -> BTreeSet<&String> {
    group.tags.keys().collect()
}

/// What a driver does: adds what is missing, then removes what `from` had and `to` has not.
fn apply(now: &SecurityGroup, from: &SecurityGroup, to: &SecurityGroup) -> SecurityGroup {
    let (goal, over) = (keys(to), &keys(from) - &keys(to));
    let mut rules: BTreeMap<Rule, Rule> =
        now.rules.iter().chain(&to.rules).map(|rule| (rule.key(), rule.clone())).collect();
    rules.retain(|key, _| goal.contains(key) || !over.contains(key));
    let mut tags = now.tags.clone();
    tags.retain(|name, _| !from.tags.contains_key(name) || to.tags.contains_key(name));
    tags.extend(to.tags.clone());
    SecurityGroup { rules: rules.into_values().collect(), tags, ..to.clone() }.normalise()
}

fn decide(state: Mapped<SecurityGroup>, command: Command<SecurityGroup>) -> Mapped<SecurityGroup> {
    let events = state.decide(command, &Stamp { now: time(), actor: "test".into() }).unwrap();
    events.into_iter().fold(state, Decider::evolve)
}

fn declare(spec: &SecurityGroup) -> Command<SecurityGroup> {
    Command::Declare {
        account: Some(id(1)),
        provider: Some("sim".into()),
        region: Some("sim-north-1".into()),
        project: None,
        spec: spec.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn normalising_twice_is_normalising_once(group in group()) {
        let once = group.normalise();
        prop_assert_eq!(once.clone().normalise(), once);
    }

    #[test]
    fn the_order_in_which_rules_are_written_does_not_matter(group in group(), turn in 0_usize..6) {
        let mut turned = group.clone();
        turned.rules.rotate_left(turn.min(group.rules.len()));
        prop_assert_eq!(turned.normalise(), group.normalise());
    }

    #[test]
    fn there_is_drift_exactly_where_two_differ(one in normal(), two in normal()) {
        prop_assert_eq!(SecurityGroup::drift(&one, &two).is_empty(), one == two);
        prop_assert!(SecurityGroup::drift(&one, &one).is_empty());
        let fields = |a, b| SecurityGroup::drift(a, b).len();
        prop_assert_eq!(fields(&one, &two), fields(&two, &one));
    }

    #[test]
    fn what_is_agreed_is_in_both(wanted in normal(), seen in normal()) {
        let agreed = SecurityGroup::agreed(&wanted, &seen);
        prop_assert_eq!(keys(&agreed), &keys(&wanted) & &keys(&seen));
        prop_assert_eq!(names(&agreed), &names(&wanted) & &names(&seen));
        prop_assert_eq!(SecurityGroup::agreed(&wanted, &wanted), wanted.clone());
        prop_assert_eq!(SecurityGroup::agreed(&agreed, &seen), agreed);
    }

    #[test]
    fn what_is_ours_grows_by_what_is_agreed(base in normal(), more in normal()) {
        let grown = SecurityGroup::grown(&base, &more);
        prop_assert_eq!(keys(&grown), &keys(&base) | &keys(&more));
        prop_assert_eq!(names(&grown), &names(&base) | &names(&more));
    }

    #[test]
    fn kept_is_what_is_wanted_and_what_is_nobodys_here(
        wanted in normal(), base in normal(), seen in normal(),
    ) {
        let kept = SecurityGroup::keep_foreign(&wanted, &base, &seen).normalise();
        let foreign = &(&keys(&seen) - &keys(&wanted)) - &keys(&base);
        prop_assert_eq!(keys(&kept), &keys(&wanted) | &foreign);
        let foreign = &(&names(&seen) - &names(&wanted)) - &names(&base);
        prop_assert_eq!(names(&kept), &names(&wanted) | &foreign);
        for rule in &wanted.rules {
            prop_assert!(kept.rules.contains(rule), "{rule} lost its description");
        }
        prop_assert_eq!(SecurityGroup::agreed(&wanted, &kept), wanted);
    }

    #[test]
    fn a_change_reaches_what_is_wanted_and_others_rules_survive(
        before in normal(), after in normal(), theirs in normal(), later in normal(),
    ) {
        // Declared and made; then somebody adds rules and tags, which is seen.
        let state = decide(Mapped::default(), declare(&before));
        let link = Command::Link { number: 1, external_id: "sg-1".into(), seen: before.clone() };
        let state = decide(state, link);
        let mut seen = before.clone();
        seen.rules.extend(theirs.rules.iter().filter(|one| !keys(&before).contains(&one.key())).cloned());
        for (name, value) in &theirs.tags {
            seen.tags.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let seen = seen.normalise();
        let look = Command::Observe {
            origin: origin("sg-1"), project: None, seen: seen.clone(), actor: None,
        };
        let state = decide(decide(state, look), declare(&after));
        let Some(out) = Decider::order(&state) else {
            prop_assert_eq!(before, after);
            return Ok(());
        };
        let Order::Apply { from, to } = out.order else { panic!("{out:?}") };
        // Somebody adds more before the driver comes.
        let mut now = seen.clone();
        now.rules.extend(later.rules.iter().filter(|one| !keys(&seen).contains(&one.key())).cloned());
        let now = now.normalise();
        let end = apply(&now, &from, &to);
        prop_assert!(keys(&end).is_superset(&keys(&after)), "what is wanted is there");
        let foreign = &keys(&now) - &keys(&before);
        prop_assert!(keys(&end).is_superset(&foreign), "others' rules survive");
        let over = &(&keys(&before) - &keys(&after)) - &foreign;
        prop_assert!(keys(&end).is_disjoint(&over), "what was ours and is not wanted is gone");
        prop_assert_eq!(apply(&end, &from, &to), end.clone(), "twice is once");
        // The report leaves a mapping that shows just the foreign part as drift.
        let state = decide(state, Command::ConfirmApplied { number: out.number, seen: end.clone() });
        prop_assert_eq!(Decider::drift(&state).is_empty(), end == after);
    }
}
