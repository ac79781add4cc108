//! What this cloud does not allow in a security group, checked before anything is written.

use std::collections::BTreeSet;

use domain::network::security_group::{Peer, Rule, SecurityGroup};

/// Rules of one group.
pub(crate) const RULES_MAX: usize = 200;
const NAME_MAX: usize = 128;
const PRIORITY_MAX: u16 = 1_000;
const TAGS_MAX: usize = 50;

/// As they are printed in the documents.
pub(crate) static SENTENCES: &[&str] = &[
    "Rules allow or deny; of those that match, the lowest priority number decides, none comes last, and among equals a deny wins.",
    "A priority is 1 to 1,000, or none.",
    "At most 200 rules, the rules being replaced included.",
    "A name has at most 128 characters.",
    "At most 50 tags, the tags being replaced included.",
    "There are no prefix lists.",
    "A group that guards a server cannot be deleted.",
];

/// Checks a wanted group against what is there now. The text names the limit.
pub(crate) fn check(wanted: &SecurityGroup, seen: Option<&SecurityGroup>) -> Result<(), String> {
    if wanted.name.chars().count() > NAME_MAX {
        return Err(format!("name: the sim takes at most {NAME_MAX} characters"));
    }
    for rule in &wanted.rules {
        if rule.priority.is_some_and(|priority| !(1..=PRIORITY_MAX).contains(&priority)) {
            return Err(format!("rule `{rule}`: the sim takes priorities 1 to {PRIORITY_MAX}"));
        }
        if matches!(rule.peer, Peer::PrefixList(_)) {
            return Err(format!("rule `{rule}`: the sim has no prefix lists"));
        }
    }
    let both = || seen.into_iter().chain([wanted]);
    let rules: BTreeSet<Rule> = both().flat_map(|group| &group.rules).map(Rule::key).collect();
    if rules.len() > RULES_MAX {
        return Err(format!(
            "rules: the sim takes at most {RULES_MAX}, and there would be {} while they are changed",
            rules.len()
        ));
    }
    let tags: BTreeSet<&String> = both().flat_map(|group| group.tags.keys()).collect();
    if tags.len() > TAGS_MAX {
        return Err(format!("tags: the sim takes at most {TAGS_MAX}"));
    }
    Ok(())
}
