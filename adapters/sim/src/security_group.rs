//! Orders of a security group: create, apply, delete.
//!
//! Nothing is remembered between two tries: each looks at what is there and does the rest, one
//! call a change, so that a crash between any two ends in the same group.
//!
//! # The order of steps, where rules have priorities and may deny
//!
//! Let F be the rules there are and T those that are to be. All of T∖F is added, *the most
//! important first, deny before allow among equals*; then F∖T is removed in the very opposite
//! order. Then at every moment
//!
//! - what F and T both let through is let through: until T's deciding allow is there, no deny of T
//!   that beats F's is there either, for such a deny would have to come before it; and once it is
//!   there, it or F's allow beats every deny of both;
//! - what F and T both drop is dropped, by the same argument with allow and deny exchanged.
//!
//! Removing is adding backwards in time, from T to F∪T, so the second half needs no other proof.
//! Rules of others are in F and in T, and change nothing. Where there is only allow, this is the
//! plain rule: add before remove.

use commands::ports::{Call, DriverFault, Report, Task};
use domain::{
    mapping::{Order, Spec},
    network::security_group::{Rule, SecurityGroup},
};
use serde_json::json;

use crate::{
    api::{Api, GROUP},
    fault::Op,
    packet::rank,
    world::not_found,
};

fn read(task: &Task) -> Result<Order<SecurityGroup>, DriverFault> {
    serde_json::from_value(task.order.clone())
        .map_err(|error| DriverFault::Unexpected(format!("the order does not read: {error}")))
}

/// What is to be done to a group, in the order in which it is done.
#[derive(Debug)]
enum Step {
    Rename { name: String, description: String },
    Add(Rule),
    Describe(Rule),
    SetTag(String, String),
    RemoveTag(String),
    Remove(Rule),
}

/// The steps from what is there now. Only what `from` had and `to` has not is taken away.
fn steps(from: &SecurityGroup, to: &SecurityGroup, now: &SecurityGroup) -> Vec<Step> {
    let find = |group: &SecurityGroup, rule: &Rule| {
        group.rules.iter().find(|one| one.key() == rule.key()).cloned()
    };
    let by_rank = |mut rules: Vec<Rule>| {
        rules.sort_by_key(rank);
        rules
    };
    let missing = to.rules.iter().filter(|rule| find(now, rule).is_none()).cloned().collect();
    let over = now
        .rules
        .iter()
        .filter(|rule| find(from, rule).is_some() && find(to, rule).is_none())
        .cloned()
        .collect();
    // A description is changed where the order changes it; one that somebody else wrote stays.
    let told = to.rules.iter().filter(|rule| {
        find(now, rule).is_some_and(|there| there.description != rule.description)
            && find(from, rule).is_none_or(|was| was.description != rule.description)
    });
    let mut steps = Vec::new();
    let text = |group: &SecurityGroup| (group.name.clone(), group.description.clone());
    if text(to) != text(from) && text(to) != text(now) {
        steps.push(Step::Rename { name: to.name.clone(), description: to.description.clone() });
    }
    steps.extend(by_rank(missing).into_iter().map(Step::Add));
    steps.extend(told.cloned().map(Step::Describe));
    let set = to.tags.iter().filter(|(name, value)| now.tags.get(*name) != Some(value));
    steps.extend(set.map(|(name, value)| Step::SetTag(name.clone(), value.clone())));
    let gone = from.tags.keys().filter(|name| !to.tags.contains_key(*name));
    let gone = gone.filter(|name| now.tags.contains_key(*name));
    steps.extend(gone.cloned().map(Step::RemoveTag));
    steps.extend(by_rank(over).into_iter().rev().map(Step::Remove));
    steps
}

/// Carries out one order.
pub(crate) async fn carry_out(api: &Api<'_>, task: &Task) -> Result<Report, DriverFault> {
    let (number, id) = (task.key.number, task.origin.external_id.as_str());
    let ours = &task.key.stream.id;
    match read(task)? {
        Order::Create { spec } => {
            let spec = spec.normalise();
            let (id, now) = find_or_create(api, &spec, ours, &task.key.to_string()).await?;
            // Nothing was seen before, so nothing is removed.
            let text = SecurityGroup { rules: Vec::new(), tags: [].into(), ..now.clone() };
            let seen = change(api, &id, &text, &spec, &now).await?;
            Ok(Report {
                verb: "link",
                body: json!({"number": number, "external_id": id, "seen": seen}),
            })
        }
        Order::Apply { from, to } => {
            let now = look(api, id).await?;
            let seen = change(api, id, &from.normalise(), &to.normalise(), &now).await?;
            Ok(Report { verb: "confirm-applied", body: json!({"number": number, "seen": seen}) })
        }
        Order::Delete {} => {
            let ids = if id.is_empty() {
                api.groups_for(ours).await?.into_iter().map(|(id, ..)| id).collect()
            } else {
                vec![id.to_owned()]
            };
            for id in ids {
                api.delete_group(&id).await?;
            }
            Ok(Report { verb: "confirm-deleted", body: json!({"number": number}) })
        }
    }
}

async fn look(api: &Api<'_>, id: &str) -> Result<SecurityGroup, DriverFault> {
    api.find_group(id).await?.ok_or_else(|| not_found(GROUP, id))
}

/// The group of this resource: by its tag, else a new one under the order as client token.
async fn find_or_create(
    api: &Api<'_>,
    spec: &SecurityGroup,
    ours: &str,
    order: &str,
) -> Result<(String, SecurityGroup), DriverFault> {
    let mut made = api.groups_for(ours).await?;
    if made.len() > 1 {
        made.retain(|(.., of)| of.as_deref() == Some(order));
        if made.len() != 1 {
            let why = format!("several groups carry the tag skyledger:id={ours}");
            return Err(DriverFault::Rejected(why));
        }
    }
    match made.pop() {
        Some((id, group, _)) if group.vpc == spec.vpc => Ok((id, group)),
        Some((id, ..)) => {
            Err(DriverFault::Rejected(format!("{id} was made for this in another VPC")))
        }
        None => {
            let id = api.create_group(spec, ours, order).await?;
            let now = look(api, &id).await?;
            Ok((id, now))
        }
    }
}

/// Does what is missing and says what is there then.
async fn change(
    api: &Api<'_>,
    id: &str,
    from: &SecurityGroup,
    to: &SecurityGroup,
    now: &SecurityGroup,
) -> Result<SecurityGroup, DriverFault> {
    if to.vpc != now.vpc {
        return Err(DriverFault::Rejected(format!("{id} cannot go to another VPC")));
    }
    for step in steps(from, to, now) {
        match step {
            Step::Rename { name, description } => api.rename_group(id, &name, &description).await?,
            // A duplicate rule and a missing one are what was wanted.
            Step::Add(rule) => drop(api.add_rule(id, &rule).await?),
            Step::Describe(rule) => drop(api.describe_rule(id, &rule).await?),
            Step::SetTag(name, value) => api.set_tag(GROUP, id, &name, Some(&value)).await?,
            Step::RemoveTag(name) => api.set_tag(GROUP, id, &name, None).await?,
            Step::Remove(rule) => drop(api.remove_rule(id, &rule).await?),
        }
    }
    look(api, id).await
}

/// The calls of an order, as if what it saw were still so.
pub(crate) fn calls(task: &Task) -> Vec<Call> {
    let call = |op: Op, effect: String| Call { call: format!("sim:{}", op.name()), effect };
    let id = task.origin.external_id.as_str();
    let name = if id.is_empty() { "the new group" } else { id };
    let mut calls = Vec::new();
    let steps = match read(task) {
        Err(_) => return calls,
        Ok(Order::Delete {}) => {
            return vec![call(Op::DeleteSecurityGroup, format!("deletes {name}"))];
        }
        Ok(Order::Create { spec }) => {
            let spec = spec.normalise();
            calls.push(call(Op::CreateSecurityGroup, format!("creates {}", spec.name)));
            let empty = SecurityGroup { rules: Vec::new(), tags: [].into(), ..spec.clone() };
            steps(&empty, &spec, &empty)
        }
        Ok(Order::Apply { from, to }) => {
            let (from, to) = (from.normalise(), to.normalise());
            steps(&from, &to, &from)
        }
    };
    calls.extend(steps.into_iter().map(|step| match step {
        Step::Rename { name: to, .. } => {
            call(Op::RenameSecurityGroup, format!("names {name} {to}, with its description"))
        }
        Step::Add(rule) => call(Op::AddRule, format!("adds to {name}: {rule}")),
        Step::Describe(rule) => call(Op::DescribeRule, format!("describes anew in {name}: {rule}")),
        Step::SetTag(tag, value) => call(Op::SetTag, format!("sets {tag}={value} of {name}")),
        Step::RemoveTag(tag) => call(Op::RemoveTag, format!("removes {tag} of {name}")),
        Step::Remove(rule) => call(Op::RemoveRule, format!("removes from {name}: {rule}")),
    }));
    calls
}
