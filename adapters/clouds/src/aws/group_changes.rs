//! What a security group needs to become another: the difference, and the one list of steps that a
//! plan shows and an order carries out.

use std::collections::BTreeMap;

use commands::ports::{Call, Task};
use domain::{
    mapping::{Order, Spec},
    network::security_group::{Direction, Rule, SecurityGroup},
};

use super::{
    rules,
    security_group::{ID_TAG, ORDER_TAG, read},
    sightings::is_aws_tag,
};

/// Rules of one call. A group has 60 by default and 1,000 at most.
pub(super) const BATCH: usize = 50;

/// What a group needs to become another.
pub(super) struct Changes {
    pub(super) add: Vec<Rule>,
    pub(super) describe: Vec<Rule>,
    pub(super) remove: Vec<Rule>,
    pub(super) set_tags: BTreeMap<String, String>,
    pub(super) drop_tags: Vec<String>,
}

impl Changes {
    /// From what was seen when it was decided (`from`), what is to be (`to`), and what is there
    /// now: adds what is missing, and takes away only what `from` had and `to` has not.
    pub(super) fn new(from: &SecurityGroup, to: &SecurityGroup, now: &SecurityGroup) -> Self {
        let by_key = |group: &SecurityGroup| -> BTreeMap<Rule, String> {
            group.rules.iter().map(|rule| (rule.key(), rule.description.clone())).collect()
        };
        let (was, there) = (by_key(from), by_key(now));
        let wanted = by_key(to);
        let meant = |rule: &&Rule| was.get(&rule.key()) != Some(&rule.description);
        Self {
            add: to.rules.iter().filter(|rule| !there.contains_key(&rule.key())).cloned().collect(),
            describe: to
                .rules
                .iter()
                .filter(|rule| there.get(&rule.key()).is_some_and(|text| *text != rule.description))
                .filter(meant)
                .cloned()
                .collect(),
            remove: now
                .rules
                .iter()
                .filter(|rule| was.contains_key(&rule.key()) && !wanted.contains_key(&rule.key()))
                .cloned()
                .collect(),
            set_tags: to
                .tags
                .iter()
                .filter(|(name, value)| now.tags.get(*name) != Some(value) && !is_aws_tag(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            // AWS's own tags are not ours to set or remove, whatever the order says.
            drop_tags: from
                .tags
                .keys()
                .filter(|name| !is_aws_tag(name))
                .filter(|name| !to.tags.contains_key(*name) && now.tags.contains_key(*name))
                .cloned()
                .collect(),
        }
    }
}

impl Changes {
    /// The steps, in their order. Rules are added before anything else happens and removed last of
    /// all: what both the old and the new rules allow is never blocked, whatever breaks in between.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = batches(RuleVerb::Authorize, &self.add);
        steps.extend(batches(RuleVerb::Describe, &self.describe));
        if !self.set_tags.is_empty() {
            steps.push(Step::SetTags(self.set_tags.clone()));
        }
        if !self.drop_tags.is_empty() {
            steps.push(Step::DropTags(self.drop_tags.clone()));
        }
        steps.extend(batches(RuleVerb::Revoke, &self.remove));
        steps
    }
}

/// One verb for some rules, in batches, ingress before egress.
fn batches(verb: RuleVerb, rules: &[Rule]) -> Vec<Step> {
    let mut steps = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let some: Vec<Rule> =
            rules.iter().filter(|rule| rule.direction == direction).cloned().collect();
        steps.extend(some.chunks(BATCH).map(|batch| Step::Rules(verb, direction, batch.to_vec())));
    }
    steps
}

/// One call of a change.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// About rules of one direction, at most [`BATCH`].
    Rules(RuleVerb, Direction, Vec<Rule>),
    /// Sets these tags.
    SetTags(BTreeMap<String, String>),
    /// Removes these tags, whatever their values.
    DropTags(Vec<String>),
}

impl Step {
    /// AWS's name of the call.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::Rules(verb, direction, _) => verb.action(*direction),
            Self::SetTags(_) => "CreateTags",
            Self::DropTags(_) => "DeleteTags",
        }
    }

    /// In a few words.
    fn effect(&self, name: &str) -> String {
        let listed = |names: &mut dyn Iterator<Item = &String>| {
            names.map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        match self {
            Self::Rules(verb, _, rules) => {
                let rules: Vec<String> = rules.iter().map(Rule::to_string).collect();
                format!("{} {name}: {}", verb.words(), rules.join("; "))
            }
            Self::SetTags(tags) => format!("sets tags of {name}: {}", listed(&mut tags.keys())),
            Self::DropTags(tags) => format!("removes tags of {name}: {}", listed(&mut tags.iter())),
        }
    }
}

/// What a call does with rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleVerb {
    Authorize,
    Describe,
    Revoke,
}

impl RuleVerb {
    const fn action(self, direction: Direction) -> &'static str {
        match (self, direction) {
            (Self::Authorize, Direction::Ingress) => "AuthorizeSecurityGroupIngress",
            (Self::Authorize, Direction::Egress) => "AuthorizeSecurityGroupEgress",
            (Self::Describe, Direction::Ingress) => "UpdateSecurityGroupRuleDescriptionsIngress",
            (Self::Describe, Direction::Egress) => "UpdateSecurityGroupRuleDescriptionsEgress",
            (Self::Revoke, Direction::Ingress) => "RevokeSecurityGroupIngress",
            (Self::Revoke, Direction::Egress) => "RevokeSecurityGroupEgress",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Authorize => "adds to",
            Self::Describe => "describes anew in",
            Self::Revoke => "removes from",
        }
    }

    /// AWS's code for "it is so already".
    pub(super) const fn done_code(self) -> &'static str {
        match self {
            Self::Authorize => "InvalidPermission.Duplicate",
            // A rule that went away meanwhile has no description to change; the last look shows it.
            Self::Describe | Self::Revoke => "InvalidPermission.NotFound",
        }
    }
}

/// The calls of an order that change something, as far as they are known before.
pub(super) fn calls(task: &Task) -> Vec<Call> {
    let id = &task.origin.external_id;
    let call = |name: &str, effect: String| Call { call: format!("ec2:{name}"), effect };
    let (changes, mut calls) = match read(task) {
        Err(_) => return Vec::new(),
        Ok(Order::Delete {}) => {
            return vec![call("DeleteSecurityGroup", format!("deletes {id}"))];
        }
        Ok(Order::Create { spec }) => {
            let spec = spec.normalise();
            let vpc = spec.vpc.as_deref().unwrap_or("the default VPC");
            let create = call(
                "CreateSecurityGroup",
                format!("creates `{}` in {vpc}, marked {ID_TAG} and {ORDER_TAG}", spec.name),
            );
            // AWS puts one rule into every new group; it goes unless it is wanted.
            let [all_out, _] = rules::born_with();
            let born = SecurityGroup { rules: vec![all_out], ..spec.clone() };
            (Changes::new(&born, &spec, &born), vec![create])
        }
        Ok(Order::Apply { from, to }) => {
            let (from, to) = (from.normalise(), to.normalise());
            (Changes::new(&from, &to, &from), Vec::new())
        }
    };
    let name = if id.is_empty() { "the new group" } else { id };
    calls.extend(changes.steps().iter().map(|step| call(step.action(), step.effect(name))));
    calls
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(rules: &[(&str, &str)], tags: &[(&str, &str)]) -> SecurityGroup {
        let rule = |(peer, description): &(&str, &str)| -> Rule {
            serde_json::from_value(json!({
                "direction": "ingress", "protocol": "tcp", "ports": "443",
                "peer": {"cidr": peer}, "description": description,
            }))
            .unwrap()
        };
        SecurityGroup {
            name: "web".into(),
            description: "web".into(),
            vpc: None,
            rules: rules.iter().map(rule).collect(),
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn peers(rules: &[Rule]) -> Vec<String> {
        rules.iter().map(|rule| rule.peer.to_string()).collect()
    }

    #[test]
    fn only_what_the_order_had_seen_is_taken_away() {
        let from = group(&[("10.0.0.0/8", ""), ("10.9.0.0/16", "old")], &[("a", "1"), ("b", "1")]);
        let to = group(&[("10.0.0.0/8", ""), ("10.1.0.0/16", "")], &[("a", "2")]);
        // Somebody added 192.0.2.0/24 and the tag c meanwhile.
        let now = group(
            &[("10.0.0.0/8", ""), ("10.9.0.0/16", "old"), ("192.0.2.0/24", "")],
            &[("a", "1"), ("b", "1"), ("c", "1")],
        );
        let changes = Changes::new(&from, &to, &now);
        assert_eq!(peers(&changes.add), ["10.1.0.0/16"]);
        assert_eq!(peers(&changes.remove), ["10.9.0.0/16"]);
        assert_eq!(changes.set_tags, [("a".to_owned(), "2".to_owned())].into());
        assert_eq!(changes.drop_tags, ["b"]);
        assert!(changes.describe.is_empty());
    }

    #[test]
    fn a_description_is_changed_only_where_the_order_changes_it() {
        let from = group(&[("10.0.0.0/8", "one"), ("10.1.0.0/16", "one")], &[]);
        let to = group(&[("10.0.0.0/8", "two"), ("10.1.0.0/16", "one")], &[]);
        let now = group(&[("10.0.0.0/8", "one"), ("10.1.0.0/16", "somebody's")], &[]);
        let changes = Changes::new(&from, &to, &now);
        assert_eq!(peers(&changes.describe), ["10.0.0.0/8"]);
        assert!(changes.add.is_empty() && changes.remove.is_empty());
    }

    #[test]
    fn rules_are_added_first_and_removed_last_and_tags_lie_between() {
        let from = group(&[("10.0.0.0/8", "one"), ("10.9.0.0/16", "")], &[("a", "1"), ("b", "1")]);
        let to = group(&[("10.0.0.0/8", "two"), ("10.1.0.0/16", "")], &[("a", "2")]);
        let actions: Vec<_> =
            Changes::new(&from, &to, &from).steps().iter().map(Step::action).collect();
        assert_eq!(
            actions,
            [
                "AuthorizeSecurityGroupIngress",
                "UpdateSecurityGroupRuleDescriptionsIngress",
                "CreateTags",
                "DeleteTags",
                "RevokeSecurityGroupIngress",
            ]
        );
        assert_eq!(Changes::new(&to, &to, &to).steps(), []);
    }

    #[test]
    fn tags_of_aws_itself_are_neither_set_nor_removed() {
        let with = group(&[], &[("aws:cloudformation:stack-name", "shop")]);
        let without = group(&[], &[]);
        assert_eq!(Changes::new(&with, &without, &with).steps(), []);
        assert_eq!(Changes::new(&without, &with, &without).steps(), []);
    }
}
