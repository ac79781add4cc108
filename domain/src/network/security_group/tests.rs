//! What is checked, how two spellings become one, and what differs.

use serde_json::json;

use super::*;

fn rule(text: &serde_json::Value) -> Rule {
    let mut whole =
        json!({"direction": "ingress", "protocol": "tcp", "peer": {"cidr": "10.0.0.0/8"}});
    whole.as_object_mut().unwrap().extend(text.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn group(rules: &[serde_json::Value]) -> SecurityGroup {
    SecurityGroup {
        name: "web".into(),
        description: String::new(),
        vpc: Some("vpc-1".into()),
        rules: rules.iter().map(rule).collect(),
        tags: BTreeMap::new(),
    }
}

fn check(group: &SecurityGroup, then: Result<(), &str>) {
    assert_eq!(group.check().map_err(|no| no.code.code), then, "{group:?}");
}

#[test]
fn a_rule_that_makes_no_sense_is_refused() {
    for right in [
        json!({}),
        json!({"ports": "443"}),
        json!({"protocol": "132", "ports": "1-2"}),
        json!({"protocol": "icmp", "icmp_type": 8, "icmp_code": 0}),
        json!({"protocol": "icmpv6", "peer": {"cidr": "2001:db8::/32"}}),
        json!({"protocol": "any", "peer": {"group": "sg-1"}}),
    ] {
        check(&group(&[right]), Ok(()));
    }
    for wrong in [
        json!({"protocol": "any", "ports": "443"}),
        json!({"protocol": "icmp", "ports": "8"}),
        json!({"ports": "90-80"}),
        json!({"icmp_type": 8}),
        json!({"protocol": "icmp", "icmp_code": 0}),
        json!({"protocol": "icmp", "peer": {"cidr": "::/0"}}),
        json!({"protocol": "icmpv6"}),
        json!({"peer": {"group": ""}}),
        json!({"peer": {"prefix_list": ""}}),
        json!({"peer": {"group": "g".repeat(513)}}),
        json!({"peer": {"prefix_list": "a\nb"}}),
    ] {
        check(&group(&[wrong]), Err("rule-invalid"));
    }
}

#[test]
fn a_group_has_a_name_and_limits() {
    check(&SecurityGroup { name: String::new(), ..group(&[]) }, Err("invalid-field"));
    check(&SecurityGroup { name: "ü".repeat(255), ..group(&[]) }, Ok(()));
    check(&SecurityGroup { name: "ü".repeat(256), ..group(&[]) }, Err("invalid-field"));
    check(&SecurityGroup { description: "d".repeat(256), ..group(&[]) }, Err("invalid-field"));
    for (vpc, then) in [
        ("ü".repeat(512), Ok(())),
        ("ü".repeat(513), Err("invalid-field")),
        (String::new(), Err("invalid-field")),
        ("a\0b".to_owned(), Err("invalid-field")),
    ] {
        check(&SecurityGroup { vpc: Some(vpc), ..group(&[]) }, then);
    }
    let tags = BTreeMap::from([("skyledger:id".to_owned(), String::new())]);
    check(&SecurityGroup { tags, ..group(&[]) }, Err("invalid-field"));
    let many = |count: usize| group(&vec![json!({}); count]);
    check(&many(SecurityGroup::RULES_MAX), Ok(()));
    check(&many(SecurityGroup::RULES_MAX + 1), Err("invalid-field"));
}

#[test]
fn spellings_of_one_rule_become_one() {
    let spelt = group(&[
        json!({"ports": "0-65535", "peer": {"cidr": "10.9.8.7/8"}, "description": "z"}),
        json!({"protocol": "6", "description": "a"}),
        json!({"protocol": "udp"}),
    ]);
    let expected = group(&[json!({"description": "a"}), json!({"protocol": "udp"})]);
    assert_eq!(spelt.normalise(), expected.normalise());
}

#[test]
fn one_rule_has_one_description() {
    let twice = |one: &str, two: &str| {
        let group = group(&[
            json!({"ports": "0-65535", "peer": {"cidr": "10.9.8.7/8"}, "description": one}),
            json!({"ports": "443"}),
            json!({"description": two}),
        ]);
        group.check_ambiguity().map_err(|no| (no.code.code, no.detail))
    };
    assert_eq!(twice("a", "a"), Ok(()));
    let detail = "ingress tcp 10.0.0.0/8: is there as `a` and as `b`".to_owned();
    assert_eq!(twice("a", "b"), Err(("rule-ambiguous", detail)));
}

#[test]
fn protocols_and_ports_read_as_they_are_written() {
    for text in ["any", "tcp", "udp", "icmp", "icmpv6", "0", "47", "255"] {
        assert_eq!(text.parse::<Protocol>().unwrap().to_string(), text);
    }
    for text in ["0", "443", "8000-8080", "65535"] {
        assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
    }
    for wrong in ["", "TCP", "256", "-1"] {
        assert!(wrong.parse::<Protocol>().is_err(), "{wrong}");
    }
    for wrong in ["", "-", "1-", "65536", "1-2-3", "http"] {
        assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
    }
}

#[test]
fn drift_names_each_rule_and_field() {
    let wanted = group(&[json!({"ports": "22"}), json!({"ports": "80", "description": "a"})]);
    let mut seen = group(&[json!({"ports": "80", "description": "b"}), json!({"ports": "443"})]);
    seen.name = "front".into();
    let fields: Vec<_> =
        SecurityGroup::drift(&wanted, &seen).into_iter().map(|one| one.field).collect();
    let rule = |port: &str| format!("rules.ingress tcp {port} 10.0.0.0/8");
    assert_eq!(fields, ["name".to_owned(), rule("22"), rule("80"), rule("443")]);
}

#[test]
fn rules_that_print_alike_are_told_apart() {
    let both = group(&[json!({"peer": {"group": "x"}}), json!({"peer": {"prefix_list": "x"}})]);
    let one = group(&[json!({"peer": {"prefix_list": "x"}})]);
    assert_eq!(SecurityGroup::drift(&both, &one).len(), 1);
}

#[test]
fn a_group_stays_in_its_vpc() {
    let other = SecurityGroup { vpc: Some("vpc-2".into()), ..group(&[]) };
    assert_eq!(group(&[]).check_change(&other).unwrap_err().code.code, "invalid-field");
    assert_eq!(group(&[]).check_change(&group(&[json!({})])), Ok(()));
}

#[test]
fn what_is_in_neither_wanted_nor_base_is_somebody_elses() {
    let base = group(&[json!({"ports": "22"}), json!({"ports": "80"})]);
    let seen = group(&[json!({"ports": "22"}), json!({"ports": "80"}), json!({"ports": "3389"})]);
    let wanted = group(&[json!({"ports": "80"}), json!({"ports": "443"})]);
    let expected =
        group(&[json!({"ports": "80"}), json!({"ports": "443"}), json!({"ports": "3389"})]);
    let kept = SecurityGroup::keep_foreign(&wanted, &base, &seen);
    assert_eq!(kept.normalise(), expected.normalise());
    let agreed = SecurityGroup::agreed(&wanted, &seen);
    assert_eq!(agreed.normalise(), group(&[json!({"ports": "80"})]).normalise());
}
