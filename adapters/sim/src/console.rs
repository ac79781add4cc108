//! Somebody who works in the cloud behind Skyledger's back. No faults, no limits, no delay; the
//! name shows as the actor of what is seen later.

use std::sync::Arc;

use commands::ports::{DriverFault, Unpaced};
use domain::{
    compute::server::{Machine, Power},
    mapping::Spec,
    network::security_group::{Rule, SecurityGroup},
};

use crate::{
    api::{GROUP, SERVER, add_rule, remove_rule},
    cloud::{Caller, SimCloud},
    fault::Op,
    world::{Body, Estate, Thing, not_found},
};

/// One person, in one account. Every method names the region; what is not there is
/// [`DriverFault::NotFound`].
#[derive(Clone, Debug)]
pub struct Console {
    cloud: SimCloud,
    caller: Caller,
    actor: String,
}

type Done<T = ()> = Result<T, DriverFault>;

impl Console {
    pub(crate) fn new(cloud: SimCloud, account: &str, actor: &str) -> Self {
        let caller = Caller {
            account: account.to_owned(),
            secret: String::new(),
            order: None,
            pace: Arc::new(Unpaced),
        };
        Self { cloud, caller, actor: actor.to_owned() }
    }

    fn work<T>(
        &self,
        op: Op,
        region: &str,
        kind: &str,
        id: &str,
        work: impl FnOnce(&mut Estate<'_>, &mut String) -> Done<T>,
    ) -> Done<T> {
        let seen = self.caller.seen(op, Some(region), kind, id);
        self.cloud.work(&self.actor, seen, true, |world, seen, _| {
            let mut estate = world.estate(&self.caller.account, region)?;
            work(&mut estate, &mut seen.target)
        })
    }

    fn edit(
        &self,
        op: Op,
        region: &str,
        kind: &str,
        id: &str,
        work: impl FnOnce(&mut Thing) -> Done,
    ) -> Done {
        let now = self.cloud.now();
        self.work(op, region, kind, id, |estate, _| {
            let thing = estate.get_mut(kind, id)?;
            thing.settle(now);
            work(thing)?;
            thing.actor = Some(self.actor.clone());
            Ok(())
        })
    }

    /// Takes a region from the account, or gives it back as it was.
    pub fn set_region(&self, region: &str, open: bool) -> Done {
        let seen = self.caller.seen(Op::SetTag, None, "region", region);
        self.cloud.work(&self.actor, seen, true, |world, _, _| {
            let account = world.accounts.get_mut(&self.caller.account);
            let account = account.ok_or_else(|| not_found("account", &self.caller.account))?;
            if open {
                account.closed.remove(region);
            } else {
                account.closed.insert(region.to_owned());
            }
            Ok(())
        })
    }

    /// Ids of a kind in a region, in order.
    pub fn ids(&self, region: &str, kind: &str) -> Done<Vec<String>> {
        self.work(Op::List, region, kind, "", |estate, _| {
            let (things, _) = estate.page(kind, None, usize::MAX)?;
            Ok(things.into_iter().map(|(id, _)| id).collect())
        })
    }

    /// One thing; none when it is not there.
    pub fn get(&self, region: &str, kind: &str, id: &str) -> Done<Option<Body>> {
        let now = self.cloud.now();
        self.work(Op::Find, region, kind, id, |estate, _| {
            let thing = estate.get(kind, id).map(std::borrow::Cow::into_owned);
            Ok(thing.map(|mut thing| {
                thing.settle(now);
                thing.body
            }))
        })
    }

    /// One security group.
    pub fn group(&self, region: &str, id: &str) -> Done<SecurityGroup> {
        match self.get(region, GROUP, id)? {
            Some(Body::SecurityGroup(group)) => Ok(group),
            _ => Err(not_found(GROUP, id)),
        }
    }

    /// Security groups that were made for this resource of Skyledger's, by its id: their external
    /// ids. More than one is a bug.
    pub fn groups_made_for(&self, region: &str, stream: &str) -> Done<Vec<String>> {
        self.work(Op::FindByTag, region, GROUP, stream, |estate, _| {
            Ok(estate.made_for(GROUP, stream).into_iter().map(|(id, _)| id).collect())
        })
    }

    /// One server.
    pub fn server(&self, region: &str, id: &str) -> Done<Machine> {
        match self.get(region, SERVER, id)? {
            Some(Body::Server(server)) => Ok(server),
            _ => Err(not_found(SERVER, id)),
        }
    }

    /// How often a server was restarted.
    pub fn reboots(&self, region: &str, id: &str) -> Done<u64> {
        self.work(Op::Find, region, SERVER, id, |estate, _| {
            estate.get(SERVER, id).map(|thing| thing.reboots).ok_or_else(|| not_found(SERVER, id))
        })
    }

    /// Makes a thing of any kind but regions and zones, and says its id.
    pub fn create(&self, region: &str, body: Body) -> Done<String> {
        if matches!(body, Body::Region(_) | Body::Zone(_)) {
            return Err(DriverFault::Rejected("regions and zones are the provider's".into()));
        }
        let body = match body {
            Body::SecurityGroup(group) => Body::SecurityGroup(group.normalise()),
            other => other,
        };
        let kind = body.kind();
        self.work(Op::CreateSecurityGroup, region, kind, "", |estate, target| {
            *target = estate.put(Thing { actor: Some(self.actor.clone()), ..Thing::new(body) });
            Ok(target.clone())
        })
    }

    /// Deletes a thing of any kind, used or not.
    pub fn delete(&self, region: &str, kind: &str, id: &str) -> Done {
        self.edit(Op::DeleteSecurityGroup, region, kind, id, |thing| {
            thing.deleted = true;
            Ok(())
        })
    }

    /// Brings back what was deleted, as it was and under its id.
    pub fn resurrect(&self, region: &str, kind: &str, id: &str) -> Done {
        self.work(Op::CreateSecurityGroup, region, kind, id, |estate, _| {
            let thing = estate.ever_mut(kind, id)?;
            thing.deleted = false;
            thing.actor = Some(self.actor.clone());
            Ok(())
        })
    }

    /// Changes anything about a thing but its kind.
    pub fn change(
        &self,
        region: &str,
        kind: &str,
        id: &str,
        change: impl FnOnce(&mut Body),
    ) -> Done {
        self.edit(Op::RenameSecurityGroup, region, kind, id, |thing| {
            let mut body = thing.body.clone();
            change(&mut body);
            if body.kind() != kind {
                return Err(DriverFault::Rejected(format!("{id} stays a {kind}")));
            }
            thing.body = body;
            Ok(())
        })
    }

    /// Gives a thing another name.
    pub fn rename(&self, region: &str, kind: &str, id: &str, name: &str) -> Done {
        self.change(region, kind, id, |body| name.clone_into(body.name_mut()))
    }

    /// Sets a tag of a thing, or removes it.
    pub fn set_tag(
        &self,
        region: &str,
        kind: &str,
        id: &str,
        name: &str,
        value: Option<&str>,
    ) -> Done {
        let op = if value.is_some() { Op::SetTag } else { Op::RemoveTag };
        self.edit(op, region, kind, id, |thing| {
            let tags = thing.body.tags_mut().ok_or_else(|| not_found("tag", name))?;
            match value {
                Some(value) => tags.insert(name.to_owned(), value.to_owned()),
                None => tags.remove(name),
            };
            Ok(())
        })
    }

    fn rules(
        &self,
        op: Op,
        region: &str,
        id: &str,
        work: impl FnOnce(&mut SecurityGroup) -> Done,
    ) -> Done {
        self.edit(op, region, GROUP, id, |thing| match &mut thing.body {
            Body::SecurityGroup(group) => work(group),
            _ => Err(not_found(GROUP, id)),
        })
    }

    /// Adds a rule to a security group; one that is there already stays as it is.
    pub fn add_rule(&self, region: &str, id: &str, rule: &Rule) -> Done {
        self.rules(Op::AddRule, region, id, |group| add_rule(group, rule).map(drop))
    }

    /// Removes a rule from a security group, whatever its description.
    pub fn remove_rule(&self, region: &str, id: &str, rule: &Rule) -> Done {
        self.rules(Op::RemoveRule, region, id, |group| {
            remove_rule(group, rule);
            Ok(())
        })
    }

    /// Starts or stops a server, at once.
    pub fn set_power(&self, region: &str, id: &str, power: Power) -> Done {
        let op = if power == Power::Stopped { Op::StopServer } else { Op::StartServer };
        self.edit(op, region, SERVER, id, |thing| {
            thing.becomes = None;
            if let Body::Server(server) = &mut thing.body {
                server.power = power;
            }
            Ok(())
        })
    }
}
