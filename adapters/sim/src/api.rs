//! The cloud's own interface for what changes things: one function a call, each through the gate.

use commands::ports::DriverFault;
use domain::{
    compute::server::{Machine, Power},
    mapping::Spec,
    network::security_group::{Rule, SecurityGroup},
};

use crate::{
    cloud::{Caller, PRINCIPAL, SimCloud},
    fault::Op,
    limits,
    world::{Body, Thing, not_found},
};

pub(crate) const GROUP: &str = "security-group";
pub(crate) const SERVER: &str = "server";

/// What a call that may be repeated comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// It was so already: a duplicate rule, a missing one, a server that runs.
    AlreadySo,
}

/// The calls of one order, in one region.
#[derive(Debug)]
pub(crate) struct Api<'a> {
    pub(crate) cloud: &'a SimCloud,
    pub(crate) caller: &'a Caller,
    pub(crate) region: &'a str,
}

/// Adds a rule, as the cloud does it.
pub(crate) fn add_rule(group: &mut SecurityGroup, rule: &Rule) -> Result<Answer, DriverFault> {
    if group.rules.iter().any(|there| there.key() == rule.key()) {
        return Ok(Answer::AlreadySo);
    }
    if group.rules.len() >= limits::RULES_MAX {
        return Err(DriverFault::Rejected(format!(
            "a group has at most {} rules",
            limits::RULES_MAX
        )));
    }
    group.rules.push(rule.clone());
    group.rules.sort();
    Ok(Answer::Done)
}

/// Removes a rule, as the cloud does it: the description does not matter.
pub(crate) fn remove_rule(group: &mut SecurityGroup, rule: &Rule) -> Answer {
    let before = group.rules.len();
    group.rules.retain(|there| there.key() != rule.key());
    if group.rules.len() == before { Answer::AlreadySo } else { Answer::Done }
}

impl Api<'_> {
    /// One call that changes one thing; the principal becomes its last actor.
    async fn change<T>(
        &self,
        op: Op,
        kind: &str,
        id: &str,
        work: impl FnOnce(&mut Thing) -> Result<T, DriverFault>,
    ) -> Result<T, DriverFault> {
        let seen = self.caller.seen(op, Some(self.region), kind, id);
        self.cloud
            .act(self.caller, seen, |world, seen, now| {
                let mut estate = world.estate(&seen.account, self.region)?;
                let thing = estate.get_mut(&seen.kind, &seen.target)?;
                thing.settle(now);
                let result = work(thing)?;
                thing.actor = Some(PRINCIPAL.to_owned());
                Ok(result)
            })
            .await
    }

    async fn group<T>(
        &self,
        op: Op,
        id: &str,
        work: impl FnOnce(&mut SecurityGroup) -> Result<T, DriverFault>,
    ) -> Result<T, DriverFault> {
        self.change(op, GROUP, id, |thing| match &mut thing.body {
            Body::SecurityGroup(group) => work(group),
            _ => Err(not_found(GROUP, id)),
        })
        .await
    }

    pub(crate) async fn find_group(&self, id: &str) -> Result<Option<SecurityGroup>, DriverFault> {
        let seen = self.caller.seen(Op::Find, Some(self.region), GROUP, id);
        self.cloud
            .act(self.caller, seen, |world, seen, _| {
                let estate = world.estate(&seen.account, self.region)?;
                Ok(match estate.get(GROUP, id).map(|thing| thing.into_owned().body) {
                    Some(Body::SecurityGroup(group)) => Some(group.normalise()),
                    _ => None,
                })
            })
            .await
    }

    /// The groups that carry the tag `skyledger:id`, each with its tag `skyledger:order`.
    pub(crate) async fn groups_for(
        &self,
        ours: &str,
    ) -> Result<Vec<(String, SecurityGroup, Option<String>)>, DriverFault> {
        let seen = self.caller.seen(Op::FindByTag, Some(self.region), GROUP, ours);
        self.cloud
            .act(self.caller, seen, |world, seen, _| {
                let made = world.estate(&seen.account, self.region)?.made_for(GROUP, ours);
                let groups = made.into_iter().filter_map(|(id, thing)| match thing.body {
                    Body::SecurityGroup(group) => Some((id, group.normalise(), thing.order)),
                    _ => None,
                });
                Ok(groups.collect())
            })
            .await
    }

    /// Creates an empty group with Skyledger's tags. The order is the client token: the same token
    /// gives the same group, as long as it is there.
    pub(crate) async fn create_group(
        &self,
        spec: &SecurityGroup,
        ours: &str,
        order: &str,
    ) -> Result<String, DriverFault> {
        let seen = self.caller.seen(Op::CreateSecurityGroup, Some(self.region), GROUP, "");
        let empty = SecurityGroup { rules: Vec::new(), tags: [].into(), ..spec.clone() };
        self.cloud
            .act(self.caller, seen, |world, seen, _| {
                let mut estate = world.estate(&seen.account, self.region)?;
                if let Some(vpc) =
                    empty.vpc.as_deref().filter(|vpc| estate.get("vpc", vpc).is_none())
                {
                    return Err(DriverFault::Rejected(format!("there is no VPC {vpc}")));
                }
                let made =
                    estate.made_by(GROUP, order).filter(|id| estate.get(GROUP, id).is_some());
                seen.target = match made {
                    Some(id) => id,
                    None => estate.put(Thing {
                        actor: Some(PRINCIPAL.to_owned()),
                        ours: Some(ours.to_owned()),
                        order: Some(order.to_owned()),
                        ..Thing::new(Body::SecurityGroup(empty))
                    }),
                };
                Ok(seen.target.clone())
            })
            .await
    }

    pub(crate) async fn rename_group(
        &self,
        id: &str,
        name: &str,
        description: &str,
    ) -> Result<(), DriverFault> {
        self.group(Op::RenameSecurityGroup, id, |group| {
            name.clone_into(&mut group.name);
            description.clone_into(&mut group.description);
            Ok(())
        })
        .await
    }

    pub(crate) async fn add_rule(&self, id: &str, rule: &Rule) -> Result<Answer, DriverFault> {
        self.group(Op::AddRule, id, |group| add_rule(group, rule)).await
    }

    pub(crate) async fn describe_rule(&self, id: &str, rule: &Rule) -> Result<Answer, DriverFault> {
        self.group(Op::DescribeRule, id, |group| {
            let Some(there) = group.rules.iter_mut().find(|there| there.key() == rule.key()) else {
                return Ok(Answer::AlreadySo);
            };
            there.description.clone_from(&rule.description);
            group.rules.sort();
            Ok(Answer::Done)
        })
        .await
    }

    pub(crate) async fn remove_rule(&self, id: &str, rule: &Rule) -> Result<Answer, DriverFault> {
        self.group(Op::RemoveRule, id, |group| Ok(remove_rule(group, rule))).await
    }

    pub(crate) async fn set_tag(
        &self,
        kind: &str,
        id: &str,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), DriverFault> {
        let op = if value.is_some() { Op::SetTag } else { Op::RemoveTag };
        self.change(op, kind, id, |thing| {
            let tags = thing.body.tags_mut().ok_or_else(|| not_found("tag", name))?;
            match value {
                Some(value) => tags.insert(name.to_owned(), value.to_owned()),
                None => tags.remove(name),
            };
            Ok(())
        })
        .await
    }

    pub(crate) async fn delete_group(&self, id: &str) -> Result<Answer, DriverFault> {
        let seen = self.caller.seen(Op::DeleteSecurityGroup, Some(self.region), GROUP, id);
        self.cloud
            .act(self.caller, seen, |world, seen, _| {
                let mut estate = world.estate(&seen.account, self.region)?;
                if estate.get(GROUP, id).is_none() {
                    return Ok(Answer::AlreadySo);
                }
                if let Some(server) = estate.guarded_by(id) {
                    return Err(DriverFault::Rejected(format!(
                        "{id} still guards server {server}"
                    )));
                }
                let thing = estate.get_mut(GROUP, id)?;
                thing.deleted = true;
                thing.actor = Some(PRINCIPAL.to_owned());
                Ok(Answer::Done)
            })
            .await
    }

    pub(crate) async fn find_server(
        &self,
        id: &str,
    ) -> Result<(Machine, Option<String>), DriverFault> {
        let seen = self.caller.seen(Op::Find, Some(self.region), SERVER, id);
        self.cloud
            .act(self.caller, seen, |world, seen, now| {
                let estate = world.estate(&seen.account, self.region)?;
                let thing = estate.get(SERVER, id).ok_or_else(|| not_found(SERVER, id))?;
                let mut thing = thing.into_owned();
                thing.settle(now);
                match thing.body {
                    Body::Server(server) => Ok((server, thing.order)),
                    _ => Err(not_found(SERVER, id)),
                }
            })
            .await
    }

    /// Starts, stops or restarts a server. A restart leaves the order's mark.
    pub(crate) async fn switch(
        &self,
        op: Op,
        id: &str,
        order: &str,
    ) -> Result<Answer, DriverFault> {
        let seen = self.caller.seen(op, Some(self.region), SERVER, id);
        self.cloud
            .act(self.caller, seen, |world, seen, now| {
                let mut estate = world.estate(&seen.account, self.region)?;
                let boot = estate.boot;
                let thing = estate.get_mut(SERVER, id)?;
                thing.settle(now);
                let Body::Server(server) = &mut thing.body else {
                    return Err(not_found(SERVER, id));
                };
                let (on_the_way, at_last) = match op {
                    Op::StopServer => (Power::Stopping, Power::Stopped),
                    _ => (Power::Starting, Power::Running),
                };
                if op == Op::RebootServer {
                    if server.power != Power::Running {
                        return Err(DriverFault::Rejected(format!("server {id} does not run")));
                    }
                    thing.reboots += 1;
                    thing.order = Some(order.to_owned());
                } else if [on_the_way, at_last].contains(&server.power) {
                    return Ok(Answer::AlreadySo);
                } else if boot.is_zero() {
                    server.power = at_last;
                    thing.becomes = None;
                } else {
                    server.power = on_the_way;
                    thing.becomes = Some((now + boot, at_last));
                }
                thing.actor = Some(PRINCIPAL.to_owned());
                Ok(Answer::Done)
            })
            .await
    }
}
