//! What AWS does not allow in a security group, checked before anything is written.

use std::collections::BTreeSet;

use domain::network::security_group::{Action, Direction, Peer, Protocol, Rule, SecurityGroup};
use ipnet::IpNet;

/// Rules of one direction and one address family, at AWS's default quota ("Inbound or outbound
/// rules per security group", L-0EA8095F).
pub(super) const RULES_MAX: usize = 60;
/// Tags of one resource, ours (two) included.
const TAGS_MAX: usize = 48;

/// As they are printed in the documents.
pub(super) static SENTENCES: &[&str] = &[
    "Rules only allow: there is no deny and no priority.",
    "A rule has one port or one range, of TCP or UDP only.",
    "At most 60 rules per direction for each of IPv4 and IPv6 (a group or prefix list counts for both), the rules being replaced included; a group that already has more is held to what it has.",
    "Name and description have 1 to 255 of AWS's characters, the name does not begin with sg-, and neither changes after creation.",
    "A group lies in one VPC, which is named at creation.",
    "A tag name that begins with aws: is AWS's own; there are at most 48 other tags.",
    "A peer group is named by its id, with its account in front when that is another one (123456789012/sg-0abc); a group cannot name itself before it exists.",
];

/// Checks a wanted group against what is there now. The text names the limit.
pub(super) fn check(wanted: &SecurityGroup, seen: Option<&SecurityGroup>) -> Result<(), String> {
    names(wanted, seen)?;
    tags(wanted, seen)?;
    // A rule that is there already is one that AWS took, odd as it may be: peers such as
    // `amazon-elb/sg-…` can be kept, though nobody can ask for a new one.
    let there = |rule: &&Rule| seen.is_some_and(|seen| seen.rules.contains(rule));
    for rule in wanted.rules.iter().filter(|rule| !there(rule)) {
        check_rule(rule).map_err(|why| format!("rule `{rule}`: {why}"))?;
    }
    counts(wanted, seen)
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

fn tags(wanted: &SecurityGroup, seen: Option<&SecurityGroup>) -> Result<(), String> {
    for (name, value) in &wanted.tags {
        let there = seen.and_then(|seen| seen.tags.get(name));
        if name.to_ascii_lowercase().starts_with("aws:") && there != Some(value) {
            return Err(format!("tags.{name}: AWS keeps tags that begin with `aws:`"));
        }
        if name.is_empty() || name.chars().count() > 128 {
            return Err(format!("tags.{name}: AWS takes names of 1 to 128 characters"));
        }
        if value.chars().count() > 256 {
            return Err(format!("tags.{name}: AWS takes values of at most 256 characters"));
        }
    }
    let ours = wanted.tags.keys().filter(|name| !name.starts_with("aws:")).count();
    if ours > TAGS_MAX {
        return Err(format!("tags: AWS takes 50, two of them Skyledger's own, not {ours}"));
    }
    Ok(())
}

fn check_rule(rule: &Rule) -> Result<(), String> {
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
                Some((account, group))
                    if account.len() == 12 && account.bytes().all(|c| c.is_ascii_digit()) =>
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
fn counts(wanted: &SecurityGroup, seen: Option<&SecurityGroup>) -> Result<(), String> {
    let keys =
        |group: &SecurityGroup| -> BTreeSet<Rule> { group.rules.iter().map(Rule::key).collect() };
    let (new, old) = (keys(wanted), seen.map(keys).unwrap_or_default());
    for (direction, word) in [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")] {
        let union = count(new.union(&old), direction);
        let had = count(old.iter(), direction);
        for (family, union, had) in [("IPv4", union.0, had.0), ("IPv6", union.1, had.1)] {
            // A group that has more shows that the account's quota was raised at least so far.
            let most = RULES_MAX.max(had);
            if union > most {
                return Err(format!(
                    "rules: {union} {word} rules for {family} with those being replaced, and AWS \
                     takes {most}; new rules are added before old ones are removed"
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
        let text = check(&wanted, None).expect_err(expected);
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_plain_group_passes_also_with_what_aws_shows_of_it() {
        assert_eq!(check(&group(), None), Ok(()));
        assert_eq!(check(&group(), Some(&group())), Ok(()));
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
            "not 49",
        );
    }

    #[test]
    fn what_aws_never_changes_is_refused_once_there_is_a_group() {
        let check = |change: fn(&mut SecurityGroup), expected: &str| {
            let mut wanted = group();
            change(&mut wanted);
            let text = super::check(&wanted, Some(&group())).expect_err(expected);
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
        assert_eq!(check(&there, Some(&there)), Ok(()));
        assert!(check(&there, Some(&group())).is_err());
    }

    #[test]
    fn old_and_new_rules_must_fit_together_family_by_family() {
        let ports = |from: u16, number: u16| (from..from + number).map(rule).collect::<Vec<_>>();
        let (mut old, mut new) = (group(), group());
        old.rules = ports(1, 30);
        new.rules = ports(1_000, 30);
        assert_eq!(check(&new, Some(&old)), Ok(()));
        new.rules = ports(1_000, 31);
        let text = check(&new, Some(&old)).unwrap_err();
        assert!(text.contains("61 ingress rules for IPv4") && text.contains("takes 60"), "{text}");
        // A group counts for both families.
        new.rules = ports(1_000, 60);
        new.rules.push(Rule { peer: Peer::Group("sg-0123456789abcdef0".into()), ..rule(1) });
        assert!(check(&new, None).is_err());
        // Raised quota: what is there shows it.
        old.rules = ports(1, 100);
        new.rules = ports(1, 100);
        assert_eq!(check(&new, Some(&old)), Ok(()));
    }
}
