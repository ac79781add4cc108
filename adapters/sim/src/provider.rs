//! The provider `sim`: its table, its listings, and the way to its drivers.

use std::sync::Arc;

use async_trait::async_trait;
use commands::ports::{
    Access, Call, DriverFault, Identity, Intent, Listing, Provider, Report, Sighting, Support, Task,
};
use domain::{cloud::Region, network::security_group::SecurityGroup};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{Api, GROUP, SERVER},
    cloud::{Caller, Cut, PRINCIPAL, SimCloud},
    fault::Op,
    limits, security_group, server,
    world::{Body, Thing, not_found},
};

/// What the sim has of each kind, sorted by kind.
pub static TABLE: &[Support] = &[
    seen_only("disk", true),
    seen_only("network", true),
    seen_only("region", false),
    Support {
        kind: GROUP,
        listed: true,
        regional: true,
        orders: &["apply", "create", "delete"],
        limits: limits::SENTENCES,
    },
    Support {
        kind: SERVER,
        listed: true,
        regional: true,
        orders: &["reboot", "set-tags", "start", "stop"],
        limits: &["A server that is still stopping starts once it has stopped."],
    },
    seen_only("vpc", true),
    seen_only("zone", true),
];

const fn seen_only(kind: &'static str, regional: bool) -> Support {
    Support { kind, listed: true, regional, orders: &[], limits: &[] }
}

/// A credential: whose, and the secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    account: String,
    secret: String,
}

fn caller(access: &Access, order: Option<String>) -> Result<Caller, DriverFault> {
    // Serde's own words may hold a secret.
    let credential: Credential = serde_json::from_value(access.credential.clone())
        .map_err(|_| DriverFault::Denied("the credential does not read as one of sim".into()))?;
    let pace = Arc::clone(&access.pace);
    Ok(Caller { account: credential.account, secret: credential.secret, order, pace })
}

/// The kind's row, and the region it needs.
fn place<'a>(kind: &str, region: Option<&'a str>) -> Result<Option<&'a str>, DriverFault> {
    let support = TABLE.iter().find(|support| support.kind == kind);
    match support {
        None => Err(DriverFault::Rejected(format!("sim has no kind `{kind}`"))),
        Some(Support { regional: false, .. }) => Ok(None),
        Some(_) if region.is_none() => {
            Err(DriverFault::Rejected(format!("a {kind} of sim lies in a region")))
        }
        Some(_) => Ok(region),
    }
}

fn region_sighting(name: String) -> Sighting {
    Sighting {
        external_id: name.clone(),
        region: None,
        seen: Body::Region(Region { name }).value(),
        actor: None,
        ours: None,
    }
}

#[async_trait]
impl Provider for SimCloud {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn table(&self) -> &'static [Support] {
        TABLE
    }

    fn check_credential(&self, credential: &Value) -> Vec<String> {
        let Some(members) = credential.as_object() else {
            return vec!["credential: is an object with `account` and `secret`".into()];
        };
        let texts = ["account", "secret"]
            .into_iter()
            .filter(|name| members.get(*name).and_then(Value::as_str).is_none_or(str::is_empty));
        let missing = texts.map(|name| format!("credential.{name}: is a text and not empty"));
        let unknown = members.keys().filter(|name| !["account", "secret"].contains(&name.as_str()));
        missing.chain(unknown.map(|name| format!("credential.{name}: is not known"))).collect()
    }

    fn check_order(&self, intent: &Intent<'_>) -> Result<(), String> {
        let Some(wanted) = intent.wanted().filter(|_| intent.kind == GROUP) else { return Ok(()) };
        let read = |value: &Value| -> Result<SecurityGroup, String> {
            serde_json::from_value(value.clone()).map_err(|error| error.to_string())
        };
        limits::check(&read(wanted)?, intent.seen().map(read).transpose()?.as_ref())
    }

    fn calls(&self, task: &Task) -> Vec<Call> {
        match task.kind {
            GROUP => security_group::calls(task),
            SERVER => server::calls(task),
            _ => Vec::new(),
        }
    }

    fn concurrency(&self) -> usize {
        8
    }

    async fn identity(&self, access: &Access) -> Result<Identity, DriverFault> {
        let caller = caller(access, None)?;
        let seen = caller.seen(Op::Whoami, None, "", "");
        let principal = format!("{}/{PRINCIPAL}", caller.account);
        let identity = Identity { external_account: caller.account.clone(), principal };
        self.act(&caller, seen, |_, _, _| Ok(identity)).await
    }

    async fn regions(&self, access: &Access) -> Result<Vec<String>, DriverFault> {
        let caller = caller(access, None)?;
        let seen = caller.seen(Op::ListRegions, None, "", "");
        self.act(&caller, seen, |world, seen, _| {
            let mut names = world.account(&seen.account)?.regions();
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn list(
        &self,
        access: &Access,
        region: Option<&str>,
        kind: &str,
        page: Option<&str>,
    ) -> Result<Listing, DriverFault> {
        let caller = caller(access, None)?;
        let region = place(kind, region)?;
        let limit = self.page_size();
        let seen = caller.seen(Op::List, region, kind, page.unwrap_or_default());
        let work = |world: &mut crate::world::World, now| {
            let Some(region) = region else {
                let mut names = world.account(&caller.account)?.regions();
                names.sort();
                let rest =
                    names.into_iter().skip_while(|name| page.is_some_and(|page| **name <= *page));
                let mut sightings: Vec<_> = rest.take(limit + 1).map(region_sighting).collect();
                let more = sightings.len() > limit;
                sightings.truncate(limit);
                return Ok((sightings, more));
            };
            let estate = world.estate(&caller.account, region)?;
            let (things, more) = estate.page(kind, page, limit)?;
            let sightings = things.into_iter();
            let sightings =
                sightings.map(|(id, thing): (_, Thing)| thing.sighting(id, Some(region), now));
            Ok((sightings.collect(), more))
        };
        let ((mut sightings, more), cut): ((Vec<Sighting>, bool), Cut) =
            self.call(&caller, seen, |world, _, now| work(world, now)).await?;
        if cut != Cut::No {
            sightings.truncate(sightings.len() / 2);
        }
        let next = sightings.last().map(|last| last.external_id.clone()).filter(|_| more);
        match cut {
            Cut::No => Ok(Listing { sightings, next }),
            Cut::Silently => Ok(Listing { sightings, next: None }),
            Cut::WithFault => Err(DriverFault::Unexpected("the page ends in its middle".into())),
        }
    }

    async fn find(
        &self,
        access: &Access,
        region: Option<&str>,
        kind: &str,
        external_id: &str,
    ) -> Result<Option<Sighting>, DriverFault> {
        let caller = caller(access, None)?;
        let region = place(kind, region)?;
        let seen = caller.seen(Op::Find, region, kind, external_id);
        self.act(&caller, seen, |world, seen, now| {
            let Some(region) = region else {
                let names = world.account(&seen.account)?.regions();
                return Ok(names.into_iter().find(|name| name == external_id).map(region_sighting));
            };
            let estate = world.estate(&seen.account, region)?;
            let thing = estate.get(kind, external_id).map(std::borrow::Cow::into_owned);
            Ok(thing.map(|thing| thing.sighting(external_id.to_owned(), Some(region), now)))
        })
        .await
    }

    async fn carry_out(&self, access: &Access, task: &Task) -> Result<Report, DriverFault> {
        let caller = caller(access, Some(task.key.to_string()))?;
        let Some(region) = place(task.kind, task.origin.region.as_deref())? else {
            return Err(not_found(task.kind, &task.origin.external_id));
        };
        let api = Api { cloud: self, caller: &caller, region };
        match task.kind {
            GROUP => security_group::carry_out(&api, task).await,
            SERVER => server::carry_out(&api, task).await,
            other => Err(DriverFault::Rejected(format!("sim carries out nothing on a {other}"))),
        }
    }
}
