//! What AWS does not allow in a security group, checked before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use domain::network::security_group::{Action, Direction, Peer, Protocol, Rule, SecurityGroup};
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{rules, sightings::is_aws_tag};

/// Rules of one direction and one address family, at AWS's default quota ("Inbound or outbound
/// rules per security group", L-0EA8095F).
pub(super) const RULES_MAX: usize = 60;
/// The setting of an account whose quota is another.
const RULES_MAX_SETTING: &str = "rules_per_group_max";
/// The highest quota: AWS keeps rules per group times groups per interface at 1,000.
const RULES_QUOTA_MAX: u64 = 1_000;
/// Tags of one resource, ours (two) included.
const TAGS_MAX: usize = 48;

/// As they are printed in the documents.
pub(super) static SENTENCES: &[&str] = &[
    "Rules only allow: there is no deny and no priority.",
    "A rule has one port or one range, of TCP or UDP only.",
    "At most 60 rules per direction for each of IPv4 and IPv6 (a group or prefix list counts for both), the rules being replaced included, and for a new group the rules for all egress that AWS makes it with; a group that already has more is held to what it has. Where AWS raised the account's quota, its setting rules_per_group_max says to what, 1 to 1000.",
    "A prefix list counts as one rule here; AWS counts it by its maximum number of entries, so a group with a large one may still be refused there.",
    "Name and description have 1 to 255 of AWS's characters, the name does not begin with sg-, and neither changes after creation.",
    "A group lies in one VPC, which is named at creation.",
    "Tags whose names begin with aws: are AWS's own and no part of a group; there are at most 48 other tags, those being replaced included.",
    "A peer group is named by its id, with its account in front when, and only when, that is another one (123456789012/sg-0abc); a group cannot name itself before it exists.",
];

/// What is wrong with an account's settings.
pub(super) fn check_settings(settings: &Map<String, Value>) -> Vec<String> {
    let wrong = |(name, value): (&String, &Value)| {
        if name != RULES_MAX_SETTING {
            return Some(format!(
                "{name}: there is no such setting of AWS, only {RULES_MAX_SETTING}"
            ));
        }
        let fits = value.as_u64().is_some_and(|number| (1..=RULES_QUOTA_MAX).contains(&number));
        (!fits).then(|| format!("{name}: is a number from 1 to {RULES_QUOTA_MAX}"))
    };
    settings.iter().filter_map(wrong).collect()
}

/// Rules that an account's quota allows.
pub(super) fn rules_max(settings: &Map<String, Value>) -> usize {
    let set = settings.get(RULES_MAX_SETTING).and_then(Value::as_u64);
    set.map_or(RULES_MAX, |number| number as usize)
}

/// Checks a wanted group of this account against what is there now. The text names the limit.
pub(super) fn check(
    wanted: &SecurityGroup,
    seen: Option<&SecurityGroup>,
    account: &str,
    rules_max: usize,
) -> Result<(), String> {
    names(wanted, seen)?;
    let none = BTreeMap::new();
    let set = wanted.tags.iter().map(|(name, value)| (name, Some(value)));
    tags(set, seen.map_or(&none, |seen| &seen.tags))?;
    // A rule that is there already is one that AWS took, odd as it may be: peers such as
    // `amazon-elb/sg-…` can be kept, though nobody can ask for a new one.
    let there = |rule: &&Rule| seen.is_some_and(|seen| seen.rules.contains(rule));
    for rule in wanted.rules.iter().filter(|rule| !there(rule)) {
        check_rule(rule, account).map_err(|why| format!("rule `{rule}`: {why}"))?;
    }
    counts(wanted, seen, rules_max)
}

fn names(wanted: &SecurityGroup, seen: Option<&SecurityGroup>) -> Result<(), String> {
    if let Some(seen) = seen {
        for (field, to, from) in [
            ("name", &wanted.name, &seen.name),
            ("description", &wanted.description, &seen.description),
        ] {
            if to != from {
                return Err(format!("{field}: AWS does not change it after creation (`{from}`)"));
            }
        }
        if wanted.vpc != seen.vpc {
            return Err("vpc: AWS does not move a security group to another VPC".into());
        }
        return Ok(());
    }
    text("name", &wanted.name, 1)?;
    text("description", &wanted.description, 1)?;
    if wanted.name.to_ascii_lowercase().starts_with("sg-") {
        return Err("name: AWS keeps names that begin with `sg-` for its ids".into());
    }
    if wanted.name.eq_ignore_ascii_case("default") {
        return Err("name: AWS keeps `default` for each VPC's own group".into());
    }
    match wanted.vpc.as_deref() {
        Some(vpc) if is_id(vpc, "vpc-") => Ok(()),
        Some(vpc) => Err(format!("vpc: `{vpc}` is no VPC of AWS (`vpc-0abc…`)")),
        None => Err("vpc: AWS binds a security group to a VPC; name it".into()),
    }
}

/// Names, descriptions and descriptions of rules have the same characters.
fn text(field: &str, value: &str, at_least: usize) -> Result<(), String> {
    let length = value.chars().count();
    if !(at_least..=255).contains(&length) {
        return Err(format!("{field}: AWS takes {at_least} to 255 characters, not {length}"));
    }
    let odd = value
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !" ._-:/()#,@[]+=&;{}!$*".contains(*c));
    if let Some(odd) = odd {
        return Err(format!(
            "{field}: AWS does not take `{odd}`, only letters, digits, spaces and ._-:/()#,@[]+=&;{{}}!$*"
        ));
    }
    if value.trim() != value {
        return Err(format!("{field}: AWS cuts off spaces at the ends"));
    }
    Ok(())
}

/// Checks tags that are to be set (or, without a value, removed) beside those that are there. New
/// ones are set before old ones go, so both must fit at once.
pub(super) fn tags<'a>(
    set: impl Iterator<Item = (&'a String, Option<&'a String>)>,
    there: &BTreeMap<String, String>,
) -> Result<(), String> {
    let mut all: BTreeSet<&String> = there.keys().collect();
    for (name, value) in set {
        if is_aws_tag(name) {
            return Err(format!("tags.{name}: AWS keeps tags that begin with `aws:`"));
        }
        if name.is_empty() || name.chars().count() > 128 {
            return Err(format!("tags.{name}: AWS takes names of 1 to 128 characters"));
        }
        let Some(value) = value else { continue };
        if value.chars().count() > 256 {
            return Err(format!("tags.{name}: AWS takes values of at most 256 characters"));
        }
        all.insert(name);
    }
    let count = |names: &mut dyn Iterator<Item = &String>| names.filter(|n| !is_aws_tag(n)).count();
    // Something that has more was not tagged by us, and may keep what it has.
    let most = TAGS_MAX.max(count(&mut there.keys()));
    let union = count(&mut all.into_iter());
    if union > most {
        return Err(format!(
            "tags: {union} with those being replaced, and AWS takes 50, two of them Skyledger's \
             own; new tags are set before old ones are removed"
        ));
    }
    Ok(())
}

fn check_rule(rule: &Rule, account: &str) -> Result<(), String> {
    if rule.action == Action::Deny {
        return Err("AWS has allow rules only".into());
    }
    if rule.priority.is_some() {
        return Err("AWS has no priorities".into());
    }
    if rule.ports.is_some() && !matches!(rule.protocol, Protocol::TCP | Protocol::UDP) {
        return Err("AWS has ports for TCP and UDP only".into());
    }
    text("description", &rule.description, 0)?;
    match &rule.peer {
        Peer::Cidr(_) => Ok(()),
        Peer::Group(id) => {
            let group = match id.split_once('/') {
                // AWS shows it without the account: it would look like another rule for ever.
                Some((owner, group)) if owner == account => {
                    return Err(format!(
                        "`{group}` is this account's own, so leave out `{owner}/`"
                    ));
                }
                Some((owner, group))
                    if owner.len() == 12 && owner.bytes().all(|c| c.is_ascii_digit()) =>
                {
                    group
                }
                _ => id,
            };
            if is_id(group, "sg-") {
                return Ok(());
            }
            Err(format!("`{id}` is no security group of AWS (`sg-0abc…`)"))
        }
        Peer::PrefixList(id) if is_id(id, "pl-") => Ok(()),
        Peer::PrefixList(id) => Err(format!("`{id}` is no prefix list of AWS (`pl-0abc…`)")),
    }
}

fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (8..=17).contains(&rest.len()) && rest.bytes().all(|c| c.is_ascii_alphanumeric())
    })
}

/// Rules as AWS counts them, by direction: (IPv4, IPv6).
fn count<'a>(rules: impl Iterator<Item = &'a Rule>, direction: Direction) -> (usize, usize) {
    rules.filter(|rule| rule.direction == direction).fold((0, 0), |(four, six), rule| {
        match rule.peer {
            Peer::Cidr(IpNet::V4(_)) => (four + 1, six),
            Peer::Cidr(IpNet::V6(_)) => (four, six + 1),
            Peer::Group(_) | Peer::PrefixList(_) => (four + 1, six + 1),
        }
    })
}

/// New rules are added before old ones go, so both must fit at once.
fn counts(
    wanted: &SecurityGroup,
    seen: Option<&SecurityGroup>,
    rules_max: usize,
) -> Result<(), String> {
    let keys =
        |group: &SecurityGroup| -> BTreeSet<Rule> { group.rules.iter().map(Rule::key).collect() };
    let new = keys(wanted);
    let old = seen.map_or_else(|| rules::born_with().into_iter().collect(), keys);
    for (direction, word) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        let union = count(new.union(&old), direction);
        let had = count(old.iter(), direction);
        for (family, union, had) in [("IPv4", union.0, had.0), ("IPv6", union.1, had.1)] {
            // A group that has more shows that the account's quota was raised at least so far.
            let most = rules_max.max(had);
            if union > most {
                return Err(format!(
                    "rules: {union} {word} rules for {family} with those being replaced, and AWS \
                     takes {most} (the account's setting {RULES_MAX_SETTING}); new rules are added \
                     before old ones are removed"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use domain::network::security_group::Ports;

    use super::*;

    const OWN: &str = "123456789012";

    fn check(
        wanted: &SecurityGroup,
        seen: Option<&SecurityGroup>,
        account: &str,
    ) -> Result<(), String> {
        super::check(wanted, seen, account, RULES_MAX)
    }

    #[test]
    fn a_raised_quota_is_a_setting_of_the_account() {
        let settings = |text: &str| -> Map<String, Value> { serde_json::from_str(text).unwrap() };
        let raised = settings(r#"{"rules_per_group_max": 80}"#);
        assert_eq!(check_settings(&raised), Vec::<String>::new());
        assert_eq!((rules_max(&raised), rules_max(&Map::new())), (80, RULES_MAX));
        let mut wanted = group();
        wanted.rules = (1..=80).map(rule).collect();
        assert!(check(&wanted, None, OWN).is_err());
        assert_eq!(super::check(&wanted, None, OWN, 80), Ok(()));
        assert!(super::check(&wanted, None, OWN, 79).unwrap_err().contains("AWS takes 79"));
        for wrong in ["0", "1001", "60.5", "\"60\"", "null"] {
            let wrong = settings(&format!(r#"{{"rules_per_group_max": {wrong}}}"#));
            assert_eq!(check_settings(&wrong), ["rules_per_group_max: is a number from 1 to 1000"]);
        }
        assert!(check_settings(&settings(r#"{"rules": 1}"#))[0].starts_with("rules: there is no"));
    }

    fn group() -> SecurityGroup {
        SecurityGroup {
            name: "web".into(),
            description: "front (public)".into(),
            vpc: Some("vpc-0123456789abcdef0".into()),
            rules: vec![rule(443)],
            tags: [("team".to_owned(), "shop".to_owned())].into(),
        }
    }

    fn rule(port: u16) -> Rule {
        Rule {
            direction: Direction::Ingress,
            action: Action::Allow,
            protocol: Protocol::TCP,
            ports: Some(Ports { from: port, to: port }),
            icmp_type: None,
            icmp_code: None,
            peer: Peer::Cidr("10.0.0.0/8".parse().unwrap()),
            priority: None,
            description: String::new(),
        }
    }

    fn no(change: impl FnOnce(&mut SecurityGroup), expected: &str) {
        let mut wanted = group();
        change(&mut wanted);
        let text = check(&wanted, None, OWN).expect_err(expected);
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_plain_group_passes_also_with_what_aws_shows_of_it() {
        assert_eq!(check(&group(), None, OWN), Ok(()));
        assert_eq!(check(&group(), Some(&group()), OWN), Ok(()));
    }

    #[test]
    fn each_limit_is_named() {
        no(|group| group.rules[0].action = Action::Deny, "allow rules only");
        no(|group| group.rules[0].priority = Some(1), "no priorities");
        no(|group| group.rules[0].protocol = Protocol::Number(132), "TCP and UDP only");
        no(|group| group.rules[0].description = "a\"b".into(), "does not take `\"`");
        no(|group| group.rules[0].peer = Peer::Group("web".into()), "no security group of AWS");
        no(|group| group.rules[0].peer = Peer::PrefixList("x".into()), "no prefix list");
        no(|group| group.name = "sg-web".into(), "begin with `sg-`");
        no(|group| group.name = "Default".into(), "keeps `default`");
        no(|group| group.name = "wéb".into(), "does not take `é`");
        no(|group| group.name = "web ".into(), "spaces at the ends");
        no(|group| group.description = String::new(), "1 to 255 characters, not 0");
        no(|group| group.description = "x".repeat(256), "1 to 255 characters, not 256");
        no(|group| group.vpc = None, "binds a security group to a VPC");
        no(|group| group.vpc = Some("main".into()), "no VPC of AWS");
        no(|group| drop(group.tags.insert("aws:x".into(), "1".into())), "begin with `aws:`");
        no(
            |group| group.tags = (0..49).map(|n| (n.to_string(), String::new())).collect(),
            "49 with those being replaced",
        );
    }

    #[test]
    fn a_peer_of_this_account_is_named_without_the_account() {
        let peer = |group: &mut SecurityGroup, id: &str| {
            group.rules[0].peer = Peer::Group(id.to_owned());
        };
        no(|group| peer(group, "123456789012/sg-0123456789abcdef0"), "leave out `123456789012/`");
        let mut wanted = group();
        peer(&mut wanted, "210987654321/sg-0123456789abcdef0");
        assert_eq!(check(&wanted, None, OWN), Ok(()));
    }

    #[test]
    fn old_and_new_tags_must_fit_together() {
        let tags = |from: usize, number: usize| -> BTreeMap<String, String> {
            (from..from + number).map(|n| (n.to_string(), String::new())).collect()
        };
        let (mut old, mut new) = (group(), group());
        (old.tags, new.tags) = (tags(0, 24), tags(24, 24));
        assert_eq!(check(&new, Some(&old), OWN), Ok(()));
        new.tags = tags(24, 25);
        let text = check(&new, Some(&old), OWN).unwrap_err();
        assert!(text.contains("49 with those being replaced"), "{text}");
        // Adopted with all that AWS takes: it may lose some, and gets no more.
        (old.tags, new.tags) = (tags(0, 50), tags(0, 49));
        assert_eq!(check(&new, Some(&old), OWN), Ok(()));
        new.tags = tags(1, 50);
        assert!(check(&new, Some(&old), OWN).is_err());
        // AWS's own do not count.
        old.tags = tags(0, 48);
        old.tags.insert("aws:cloudformation:stack-name".into(), "shop".into());
        new.tags = tags(0, 48);
        assert_eq!(check(&new, Some(&old), OWN), Ok(()));
    }

    #[test]
    fn a_new_group_has_room_for_what_aws_makes_it_with() {
        let mut wanted = group();
        let egress = |port| Rule { direction: Direction::Egress, ..rule(port) };
        wanted.rules = (1..=59).map(egress).collect();
        assert_eq!(check(&wanted, None, OWN), Ok(()));
        wanted.rules.push(egress(60));
        let text = check(&wanted, None, OWN).unwrap_err();
        assert!(text.contains("61 egress rules for IPv4"), "{text}");
        // Where it is one of the wanted, it takes no room of its own.
        wanted.rules[59] = rules::born_with()[0].clone();
        assert_eq!(check(&wanted, None, OWN), Ok(()));
    }

    #[test]
    fn what_aws_never_changes_is_refused_once_there_is_a_group() {
        let check = |change: fn(&mut SecurityGroup), expected: &str| {
            let mut wanted = group();
            change(&mut wanted);
            let text = super::check(&wanted, Some(&group()), OWN, RULES_MAX).expect_err(expected);
            assert!(text.starts_with(expected), "{text}");
        };
        check(|group| group.name = "api".into(), "name:");
        check(|group| group.description = "api".into(), "description:");
        check(|group| group.vpc = Some("vpc-0123456789abcdef1".into()), "vpc:");
    }

    #[test]
    fn a_rule_that_is_there_already_may_stay_however_odd() {
        let mut there = group();
        there.rules[0].peer = Peer::Group("amazon-elb/sg-843f59ed".into());
        assert_eq!(check(&there, Some(&there), OWN), Ok(()));
        assert!(check(&there, Some(&group()), OWN).is_err());
    }

    #[test]
    fn old_and_new_rules_must_fit_together_family_by_family() {
        let ports = |from: u16, number: u16| (from..from + number).map(rule).collect::<Vec<_>>();
        let (mut old, mut new) = (group(), group());
        old.rules = ports(1, 30);
        new.rules = ports(1_000, 30);
        assert_eq!(check(&new, Some(&old), OWN), Ok(()));
        new.rules = ports(1_000, 31);
        let text = check(&new, Some(&old), OWN).unwrap_err();
        assert!(text.contains("61 ingress rules for IPv4") && text.contains("takes 60"), "{text}");
        // A group counts for both families.
        new.rules = ports(1_000, 60);
        new.rules.push(Rule { peer: Peer::Group("sg-0123456789abcdef0".into()), ..rule(1) });
        assert!(check(&new, None, OWN).is_err());
        // Raised quota: what is there shows it.
        old.rules = ports(1, 100);
        new.rules = ports(1, 100);
        assert_eq!(check(&new, Some(&old), OWN), Ok(()));
    }
}
