//! What the cloud holds: accounts, their population, and what was changed since. Plain data.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use chrono::{DateTime, Utc};
use commands::ports::{DriverFault, Sighting};
use domain::{
    cloud::{Region, Vpc, Zone},
    compute::{
        disk::SeenDisk,
        server::{Machine, Power},
    },
    network::{SeenNetwork, security_group::SecurityGroup},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::population::{MINTED, Place, Population};

/// A thing in the kind's own shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "is", rename_all = "kebab-case")]
pub enum Body {
    /// Block storage.
    SeenDisk(SeenDisk),
    /// An IP subnet.
    Network(SeenNetwork),
    /// A region.
    Region(Region),
    /// A named set of rules.
    SecurityGroup(SecurityGroup),
    /// A machine.
    Server(Machine),
    /// An address space.
    Vpc(Vpc),
    /// A zone of a region.
    Zone(Zone),
}

impl Body {
    /// The kind's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SeenDisk(_) => "disk",
            Self::Network(_) => "network",
            Self::Region(_) => "region",
            Self::SecurityGroup(_) => "security-group",
            Self::Server(_) => "server",
            Self::Vpc(_) => "vpc",
            Self::Zone(_) => "zone",
        }
    }

    /// As sightings show it.
    pub fn value(&self) -> Value {
        match self {
            Self::SeenDisk(one) => serde_json::to_value(one),
            Self::Network(one) => serde_json::to_value(one),
            Self::Region(one) => serde_json::to_value(one),
            Self::SecurityGroup(one) => serde_json::to_value(one),
            Self::Server(one) => serde_json::to_value(one),
            Self::Vpc(one) => serde_json::to_value(one),
            Self::Zone(one) => serde_json::to_value(one),
        }
        .unwrap_or_default()
    }

    /// Where its name is kept.
    pub(crate) fn name_mut(&mut self) -> &mut String {
        match self {
            Self::SeenDisk(one) => &mut one.name,
            Self::Network(one) => &mut one.name,
            Self::Region(one) => &mut one.name,
            Self::SecurityGroup(one) => &mut one.name,
            Self::Server(one) => &mut one.name,
            Self::Vpc(one) => &mut one.name,
            Self::Zone(one) => &mut one.name,
        }
    }

    /// Its tags, where it has any.
    pub(crate) fn tags_mut(&mut self) -> Option<&mut BTreeMap<String, String>> {
        match self {
            Self::SeenDisk(one) => Some(&mut one.tags),
            Self::Network(one) => Some(&mut one.tags),
            Self::SecurityGroup(one) => Some(&mut one.tags),
            Self::Server(one) => Some(&mut one.tags),
            Self::Vpc(one) => Some(&mut one.tags),
            Self::Region(_) | Self::Zone(_) => None,
        }
    }
}

/// A thing and its marks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Thing {
    pub(crate) body: Body,
    /// Who changed it last; none when nobody ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    /// Its tag `skyledger:id`: the resource it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ours: Option<String>,
    /// Its tag `skyledger:order`: the order that made, or last restarted, it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<String>,
    /// What a server on its way becomes, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) becomes: Option<(DateTime<Utc>, Power)>,
    /// How often it was restarted.
    #[serde(default)]
    pub(crate) reboots: u64,
    /// Deleted; kept so that it can come back as it was.
    #[serde(default)]
    pub(crate) deleted: bool,
}

impl Thing {
    pub(crate) fn new(body: Body) -> Self {
        Self {
            body,
            actor: None,
            ours: None,
            order: None,
            becomes: None,
            reboots: 0,
            deleted: false,
        }
    }

    /// As it is by now.
    pub(crate) fn settle(&mut self, now: DateTime<Utc>) {
        if let (Body::Server(server), Some((at, power))) = (&mut self.body, self.becomes)
            && at <= now
        {
            server.power = power;
            self.becomes = None;
        }
    }

    pub(crate) fn sighting(
        mut self,
        id: String,
        region: Option<&str>,
        now: DateTime<Utc>,
    ) -> Sighting {
        self.settle(now);
        Sighting {
            external_id: id,
            region: region.map(str::to_owned),
            seen: self.body.value(),
            actor: self.actor,
            ours: self.ours.and_then(|ours| Uuid::parse_str(&ours).ok()),
        }
    }
}

/// What was changed in one region, by kind and id.
type Changes = BTreeMap<String, BTreeMap<String, Thing>>;

/// One account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) secret: String,
    population: Population,
    /// How many ids were made since.
    minted: u64,
    changes: BTreeMap<String, Changes>,
    /// Regions that the account does not have for now; what is in them stays.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) closed: BTreeSet<String>,
}

/// A page of things, and whether more follow.
pub(crate) type Things = (Vec<(String, Thing)>, bool);

impl Account {
    pub(crate) fn new(secret: &str, population: Population) -> Self {
        Self {
            secret: secret.to_owned(),
            population,
            minted: 0,
            changes: BTreeMap::new(),
            closed: BTreeSet::new(),
        }
    }

    pub(crate) fn regions(&self) -> Vec<String> {
        let mut regions = self.population.regions();
        regions.retain(|region| !self.closed.contains(region));
        regions
    }

    fn place<'a>(&self, name: &'a str, region: &'a str) -> Result<Place<'a>, DriverFault> {
        let number = self.population.regions().iter().position(|one| one == region);
        let number = number.filter(|_| !self.closed.contains(region));
        let number = number.ok_or_else(|| not_found("region", region))? as u64;
        Ok(Place { account: name, region, number })
    }
}

pub(crate) fn not_found(kind: &str, id: &str) -> DriverFault {
    DriverFault::NotFound(format!("there is no {kind} {id}"))
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) accounts: BTreeMap<String, Account>,
    /// How long every call takes.
    #[serde(default)]
    pub(crate) latency_ms: u64,
    /// How long a server is on its way to running or stopped.
    #[serde(default)]
    pub(crate) boot_ms: u64,
}

impl World {
    pub(crate) fn account(&self, name: &str) -> Result<&Account, DriverFault> {
        self.accounts.get(name).ok_or_else(|| not_found("account", name))
    }

    /// One region of one account, to look at or to change.
    pub(crate) fn estate<'a>(
        &'a mut self,
        account: &'a str,
        region: &'a str,
    ) -> Result<Estate<'a>, DriverFault> {
        let boot = chrono::TimeDelta::milliseconds(self.boot_ms as i64);
        let of = self.accounts.get_mut(account).ok_or_else(|| not_found("account", account))?;
        let place = of.place(account, region)?;
        Ok(Estate { of, place, boot })
    }
}

/// One region of one account.
#[derive(Debug)]
pub(crate) struct Estate<'a> {
    of: &'a mut Account,
    place: Place<'a>,
    pub(crate) boot: chrono::TimeDelta,
}

impl Estate<'_> {
    fn changed(&self, kind: &str) -> Option<&BTreeMap<String, Thing>> {
        self.of.changes.get(self.place.region)?.get(kind)
    }

    fn born(&self, kind: &str, id: &str) -> Option<Thing> {
        let index = self.place.index(kind, id)?;
        self.of.population.thing(&self.place, kind, index).map(Thing::new)
    }

    /// Also what was deleted.
    fn ever(&self, kind: &str, id: &str) -> Option<Cow<'_, Thing>> {
        match self.changed(kind).and_then(|changed| changed.get(id)) {
            Some(thing) => Some(Cow::Borrowed(thing)),
            None => self.born(kind, id).map(Cow::Owned),
        }
    }

    /// One thing that is there.
    pub(crate) fn get(&self, kind: &str, id: &str) -> Option<Cow<'_, Thing>> {
        self.ever(kind, id).filter(|thing| !thing.deleted)
    }

    /// One thing that is or was there, to be changed.
    pub(crate) fn ever_mut(&mut self, kind: &str, id: &str) -> Result<&mut Thing, DriverFault> {
        let born = self.ever(kind, id).ok_or_else(|| not_found(kind, id))?.into_owned();
        let region = self.of.changes.entry(self.place.region.to_owned()).or_default();
        let changed = region.entry(kind.to_owned()).or_default();
        Ok(changed.entry(id.to_owned()).or_insert(born))
    }

    /// One thing that is there, to be changed.
    pub(crate) fn get_mut(&mut self, kind: &str, id: &str) -> Result<&mut Thing, DriverFault> {
        if self.get(kind, id).is_none() {
            return Err(not_found(kind, id));
        }
        self.ever_mut(kind, id)
    }

    /// A new thing, under a new id.
    pub(crate) fn put(&mut self, thing: Thing) -> String {
        let kind = thing.body.kind();
        let id = self.place.id(kind, MINTED + self.of.minted);
        self.of.minted += 1;
        let region = self.of.changes.entry(self.place.region.to_owned()).or_default();
        region.entry(kind.to_owned()).or_default().insert(id.clone(), thing);
        id
    }

    /// What is there and carries this tag `skyledger:id`. Only what was made later can.
    pub(crate) fn made_for(&self, kind: &str, ours: &str) -> Vec<(String, Thing)> {
        let changed = self.changed(kind).into_iter().flatten();
        changed
            .filter(|(_, thing)| !thing.deleted && thing.ours.as_deref() == Some(ours))
            .map(|(id, thing)| (id.clone(), thing.clone()))
            .collect()
    }

    /// The group that an order has made already, deleted or not: the cloud keeps client tokens.
    pub(crate) fn made_by(&self, kind: &str, order: &str) -> Option<String> {
        let mut changed = self.changed(kind).into_iter().flatten();
        changed.find(|(_, thing)| thing.order.as_deref() == Some(order)).map(|(id, _)| id.clone())
    }

    /// A server that a security group guards.
    pub(crate) fn guarded_by(&self, group: &str) -> Option<String> {
        let changed = self.changed("server");
        let guards = |thing: &Thing| match &thing.body {
            Body::Server(server) => {
                !thing.deleted && server.security_groups.iter().any(|id| id == group)
            }
            _ => false,
        };
        if let Some((id, _)) = changed.into_iter().flatten().find(|(_, thing)| guards(thing)) {
            return Some(id.clone());
        }
        let index = self.place.index("security-group", group).filter(|index| *index < MINTED)?;
        let mut born = self.of.population.guarded_by(self.place.number, index);
        let id = |index| self.place.id("server", index);
        born.find(|index| changed.is_none_or(|changed| !changed.contains_key(&id(*index)))).map(id)
    }

    /// Things that are there, by id, after one of them.
    pub(crate) fn page(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Things, DriverFault> {
        let wrong = || DriverFault::Rejected("the page token is none of this listing".into());
        let from = match after {
            None => 0,
            Some(id) => self.place.index(kind, id).ok_or_else(wrong)? + 1,
        };
        let none = BTreeMap::new();
        let changed = self.changed(kind).unwrap_or(&none);
        let count = self.of.population.count(self.place.number, kind);
        let born = (from..count).filter_map(|index| {
            let id = self.place.id(kind, index);
            if let Some(thing) = changed.get(&id) {
                return (!thing.deleted).then(|| (id, thing.clone()));
            }
            let body = self.of.population.thing(&self.place, kind, index)?;
            Some((id, Thing::new(body)))
        });
        let first_made = self.place.id(kind, from.max(MINTED));
        let made = changed
            .range(first_made..)
            .filter(|(id, thing)| !thing.deleted && self.place.index(kind, id) >= Some(MINTED))
            .map(|(id, thing)| (id.clone(), thing.clone()));
        let mut all = born.chain(made);
        let page: Vec<_> = all.by_ref().take(limit).collect();
        let more = page.len() == limit && all.next().is_some();
        Ok((page, more))
    }
}
