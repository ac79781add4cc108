//! All hosts, and the choice among them.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    assign::assign,
    cells::{self, SETS_ALL_MAX},
    choice,
    facts::{AgentState, Availability},
    fit::{Fit, Sort, Split, Way, cpu_units, fit},
    holding::Holding,
    host::{Host, HostId, ServerId},
    reason::Reason,
    request::{Affinity, DeviceAsk, Fill, Relation, Request},
};
use crate::{
    kernel::{Refusal, codes},
    network::carrier,
};

/// Most rejections that are listed, so that a placement fits an event; all are counted.
pub const REJECTIONS_MAX: usize = 5_000;
/// Most hosts that are listed as the next best.
pub const RUNNERS_UP_MAX: usize = 3;

/// All hosts, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub(super) hosts: Vec<Host>,
    /// Where the members of each affinity group are.
    groups: BTreeMap<Uuid, BTreeMap<usize, BTreeSet<ServerId>>>,
    /// Where each server is; in two places while it moves.
    pub(super) servers: BTreeMap<ServerId, BTreeSet<usize>>,
}

/// Where a server goes, and why there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// The host.
    pub host: HostId,
    /// What it takes there.
    pub holding: Holding,
    /// Whether it was to be in cells, and no host has such a place.
    #[serde(default)]
    pub irregular: bool,
    /// How good that place is.
    pub score: Score,
    /// How many hosts have a place.
    pub fitting: u32,
    /// The next best hosts.
    #[serde(default)]
    pub runners_up: Vec<RunnerUp>,
    /// Why each other host has none.
    #[serde(default)]
    pub rejected: Rejected,
}

/// A host that has a place, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunnerUp {
    /// The host.
    pub host: HostId,
    /// How good its place is.
    pub score: Score,
}

/// How good a place is: smaller is better, from the first field on. Ties go to the lower id.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// In no cells, though it was to be.
    pub irregular: bool,
    /// Soft affinities that are broken: other members where none should be, and one for each group
    /// that is elsewhere.
    pub affinity: u32,
    /// Over how many cells; 0 when it is bound to none.
    pub cells: u32,
    /// How far its devices are from its cells, in the firmware's distances over 10.
    pub devices: u64,
    /// How far its cells are from each other, summed over pairs.
    pub apart: u64,
    /// When packed what is left free of the host, when spread what is in use, in millionths: the
    /// larger of CPUs and memory in use counts.
    pub fill: u32,
}

/// Why hosts have no place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// How many, by code.
    pub counts: BTreeMap<String, u32>,
    /// Each, sorted by host; the first 5,000.
    pub hosts: Vec<Rejection>,
}

/// Why a host has no place: the first thing that is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// The host.
    pub host: HostId,
    /// Why.
    pub reason: Reason,
}

/// Why a server goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unplaced {
    /// No host could ever be asked this.
    Invalid(Refusal),
    /// No host has a place, each for its reason.
    Nowhere(Rejected),
}

impl From<Unplaced> for Refusal {
    fn from(unplaced: Unplaced) -> Self {
        match unplaced {
            Unplaced::Invalid(refusal) => refusal,
            Unplaced::Nowhere(rejected) => {
                let hosts: u32 = rejected.counts.values().sum();
                let counts = rejected.counts.iter().map(|(code, count)| format!("{code} {count}"));
                let counts = counts.collect::<Vec<_>>().join(", ");
                let first = rejected
                    .hosts
                    .first()
                    .map_or_else(String::new, |one| format!("; host {}: {}", one.host, one.reason));
                Self::new(&codes::NO_ROOM, format!("{hosts} hosts: {counts}{first}"))
            }
        }
    }
}

/// One affinity and where the group's other members are.
pub(super) struct Members<'a> {
    pub(super) affinity: &'a Affinity,
    /// How many on each host that has any, by its place; sorted.
    hosts: Vec<(usize, u32)>,
    pub(super) all: u32,
}

impl Members<'_> {
    fn on(&self, at: usize) -> u32 {
        let found = self.hosts.binary_search_by_key(&at, |(host, _)| *host);
        found.map_or(0, |found| self.hosts[found].1)
    }
}

/// What of a request needs a look at the fleet, looked at once.
pub(super) struct Looked<'a> {
    request: &'a Request,
    pub(super) members: Vec<Members<'a>>,
    /// Hosts that have the server already, by place.
    already: BTreeSet<usize>,
}

impl Fleet {
    /// All hosts; of two with one id the later one counts.
    pub fn new(hosts: impl IntoIterator<Item = Host>) -> Self {
        let hosts: BTreeMap<HostId, Host> =
            hosts.into_iter().map(|host| (host.facts().id, host)).collect();
        let mut fleet = Self { hosts: hosts.into_values().collect(), ..Self::default() };
        for at in 0..fleet.hosts.len() {
            let held: Vec<_> = fleet.hosts[at].holdings().values().cloned().collect();
            for holding in held {
                fleet.note(at, &holding);
            }
        }
        fleet
    }

    /// Takes a host in, in place of what was known of it.
    pub fn put(&mut self, host: Host) {
        let id = host.facts().id;
        match self.hosts.binary_search_by_key(&id, |host| host.facts().id) {
            Ok(at) => {
                let before: Vec<_> = self.hosts[at].holdings().values().cloned().collect();
                for holding in before {
                    self.forget(at, &holding);
                }
                let held: Vec<_> = host.holdings().values().cloned().collect();
                self.hosts[at] = host;
                for holding in held {
                    self.note(at, &holding);
                }
            }
            // Places move: everything is noted anew.
            Err(_) => {
                let hosts = std::mem::take(&mut self.hosts);
                *self = Self::new(hosts.into_iter().chain([host]));
            }
        }
    }

    /// The hosts, in the order of their ids.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// One host.
    pub fn host(&self, id: HostId) -> Option<&Host> {
        self.at(id).map(|at| &self.hosts[at])
    }

    pub(super) fn at(&self, id: HostId) -> Option<usize> {
        self.hosts.binary_search_by_key(&id, |host| host.facts().id).ok()
    }

    pub(super) fn known(&self, id: HostId) -> Result<usize, Refusal> {
        self.at(id).ok_or_else(|| {
            Refusal::new(&codes::NOT_FOUND, format!("host {id} is not in this fleet"))
        })
    }

    fn note(&mut self, at: usize, holding: &Holding) {
        self.servers.entry(holding.server).or_default().insert(at);
        for group in &holding.groups {
            let hosts = self.groups.entry(*group).or_default();
            hosts.entry(at).or_default().insert(holding.server);
        }
    }

    /// Takes what was decided.
    ///
    /// # Errors
    /// As [`Host::take`].
    pub fn take(&mut self, host: HostId, holding: Holding) -> Result<(), Refusal> {
        let at = self.known(host)?;
        self.hosts[at].take(holding.clone())?;
        self.note(at, &holding);
        Ok(())
    }

    /// Gives back what a server took.
    ///
    /// # Errors
    /// As [`Host::give_back`].
    pub fn give_back(&mut self, host: HostId, server: ServerId) -> Result<Holding, Refusal> {
        let at = self.known(host)?;
        let holding = self.hosts[at].give_back(server)?;
        self.forget(at, &holding);
        Ok(holding)
    }

    fn forget(&mut self, at: usize, holding: &Holding) {
        let server = holding.server;
        if let Some(hosts) = self.servers.get_mut(&server) {
            hosts.remove(&at);
            if hosts.is_empty() {
                self.servers.remove(&server);
            }
        }
        for group in &holding.groups {
            let Some(hosts) = self.groups.get_mut(group) else { continue };
            if let Some(members) = hosts.get_mut(&at) {
                members.remove(&server);
                if members.is_empty() {
                    hosts.remove(&at);
                }
            }
            if hosts.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Where the server goes. Nothing is taken yet: [`Self::take`].
    ///
    /// # Errors
    /// When the request is not valid, or no host has a place.
    pub fn place(&self, request: &Request) -> Result<Placement, Unplaced> {
        request.check().map_err(Unplaced::Invalid)?;
        let looked = self.look(request);
        let (mut rejected, mut fitting) = (Rejected::default(), 0);
        let mut best: Vec<(Score, usize, Fit)> = Vec::with_capacity(RUNNERS_UP_MAX + 2);
        let mut sets = SETS_ALL_MAX;
        let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
        let mut no = Vec::new();
        for (at, host) in self.hosts.iter().enumerate() {
            let Some(fit) = looked.judge(at, host, false, &mut no) else {
                if let Some(reason) = no.pop() {
                    *counts.entry(reason.code()).or_default() += 1;
                    if rejected.hosts.len() < REJECTIONS_MAX {
                        rejected.hosts.push(Rejection { host: host.facts().id, reason });
                    }
                }
                no.clear();
                continue;
            };
            fitting += 1;
            let quick = looked.quick_score(at, host, fit);
            // What costs more to know can only make it worse.
            let full = best.len() > RUNNERS_UP_MAX;
            if full && best.last().is_some_and(|(worst, ..)| quick >= *worst) {
                continue;
            }
            let score = looked.score(host, fit, quick, &mut sets);
            let place = best.partition_point(|(other, ..)| *other <= score);
            best.insert(place, (score, at, fit));
            best.truncate(RUNNERS_UP_MAX + 1);
        }
        rejected.counts =
            counts.into_iter().map(|(code, count)| (code.to_owned(), count)).collect();
        let mut best = best.into_iter();
        let chosen = best.next().and_then(|(score, at, fit)| {
            Some((score, at, fit, assign(&self.hosts[at], request, fit)?))
        });
        let Some((score, at, fit, holding)) = chosen else {
            return Err(Unplaced::Nowhere(rejected));
        };
        let runner_up = |(score, at, _): (Score, usize, Fit)| RunnerUp {
            host: self.hosts[at].facts().id,
            score,
        };
        Ok(Placement {
            host: self.hosts[at].facts().id,
            holding,
            irregular: fit.irregular,
            score,
            fitting,
            runners_up: best.map(runner_up).collect(),
            rejected,
        })
    }

    /// The place of a server that has this one, and is to have one of its devices no more, or others as well; all
    /// else of it stays as it is.
    ///
    /// # Errors
    /// `no-room` when its host has no such devices, or one that it has is lost; `wrong-state` when it has no
    /// place there.
    pub fn place_devices(
        &self,
        own: &Placement,
        gone: Option<&str>,
        asked: Option<&DeviceAsk>,
    ) -> Result<Placement, Refusal> {
        let mut host = self.hosts[self.known(own.host)?].clone();
        let mut holding = own.holding.clone();
        host.give_back(holding.server)?;
        let no_room = |reason: Reason| {
            let detail = format!("{}; host {}: {reason}", reason.code(), own.host);
            Refusal::new(&codes::NO_ROOM, detail)
        };
        if let Some(gone) = gone {
            holding.devices.remove(gone);
            holding.functions.remove(gone);
            holding.models.remove(gone);
            choice::with_groups(&host, &mut holding);
        }
        if let Some(asked) = asked {
            choice::add(&host, asked, &mut holding).map_err(no_room)?;
            host.lacks(&holding)?.map_or(Ok(()), |reason| Err(no_room(reason)))?;
        }
        // Nobody else was asked.
        let (runners_up, rejected) = (Vec::new(), Rejected::default());
        Ok(Placement { holding, fitting: 1, runners_up, rejected, ..own.clone() })
    }

    /// Where a server goes that stays on its host and wants something else of it. What it has there is
    /// free for it; of devices it keeps those that it has. A host that gets no new servers does this.
    ///
    /// # Errors
    /// When the request is not valid, the server is not there, or its host has no place for it.
    pub fn place_again(&self, request: &Request, host: HostId) -> Result<Placement, Unplaced> {
        let at = self.known(host).map_err(Unplaced::Invalid)?;
        let mut host = self.hosts[at].clone();
        let held = host.give_back(request.server).map_err(Unplaced::Invalid)?;
        let mut facts = host.facts().clone();
        facts.enabled = true;
        let own =
            |device: &str| held.devices.contains(device) || held.devices_with.contains(device);
        for device in facts.devices.iter_mut().filter(|device| !own(&device.id)) {
            device.availability = Availability::Lost;
        }
        let host = host.with_facts(facts).map_err(Unplaced::Invalid)?;
        let mut placement = Self::new([host]).place(request)?;
        // Functions of one IOMMU group go together: the choice may be another of those that are its own
        // already, and it has its drivers for these.
        let holding = &mut placement.holding;
        (holding.devices, holding.devices_with) = (held.devices, held.devices_with);
        (holding.functions, holding.models) = (held.functions, held.models);
        // They are set to what is asked for by now.
        for asked in request.devices.iter().filter_map(|ask| ask.function) {
            let of = holding.functions.values_mut();
            of.filter(|function| asked.mac.is_some() && function.mac == asked.mac)
                .for_each(|function| *function = asked);
        }
        Ok(placement)
    }

    pub(super) fn look<'a>(&self, request: &'a Request) -> Looked<'a> {
        let members = request.affinities.iter().map(|affinity| {
            let hosts = self.groups.get(&affinity.group);
            let others = |(at, members): (&usize, &BTreeSet<ServerId>)| {
                let own = u32::from(members.contains(&request.server));
                let others = members.len() as u32 - own;
                (others > 0).then_some((*at, others))
            };
            let hosts: Vec<(usize, u32)> = hosts.into_iter().flatten().filter_map(others).collect();
            let all = hosts.iter().map(|(_, members)| members).sum();
            Members { affinity, hosts, all }
        });
        Looked {
            request,
            members: members.collect(),
            already: self.servers.get(&request.server).cloned().unwrap_or_default(),
        }
    }
}

impl Looked<'_> {
    /// Whether a host has a place; otherwise why not: the first reason, or all of them.
    pub(super) fn judge(
        &self,
        at: usize,
        host: &Host,
        all: bool,
        no: &mut Vec<Reason>,
    ) -> Option<Fit> {
        self.admits(at, host, all, no);
        if no.is_empty() || all {
            self.devices(host, all, no);
        }
        if no.is_empty() || all {
            let fit = fit(host, self.request, all, no);
            return fit.filter(|_| no.is_empty());
        }
        None
    }

    /// What has nothing to do with how much is free.
    fn admits(&self, at: usize, host: &Host, all: bool, no: &mut Vec<Reason>) {
        let (facts, request) = (host.facts(), self.request);
        let checks: [&dyn Fn() -> Option<Reason>; 10] = [
            &|| (!facts.enabled).then_some(Reason::Disabled),
            &|| facts.maintenance.then_some(Reason::Maintenance),
            &|| match facts.agent {
                AgentState::Works => None,
                AgentState::NotJoined => Some(Reason::AgentNotJoined),
                AgentState::Unreachable => Some(Reason::AgentUnreachable),
            },
            &|| {
                let (asked, has) = (request.architecture, facts.architecture);
                (asked != has).then_some(Reason::Architecture { asked, has })
            },
            &|| {
                let named = request.only.is_empty() || request.only.contains(&facts.id);
                (!named).then_some(Reason::NotNamed)
            },
            &|| request.except.contains(&facts.id).then_some(Reason::Excluded),
            &|| self.already.contains(&at).then_some(Reason::AlreadyHere),
            &|| {
                let missing = request.tags_required.iter().find(|tag| !facts.tags.contains(*tag));
                let missing = missing.map(|tag| Reason::TagMissing { tag: tag.clone() });
                missing.or_else(|| {
                    let tag = request.tags_forbidden.iter().find(|tag| facts.tags.contains(*tag));
                    tag.map(|tag| Reason::TagForbidden { tag: tag.clone() })
                })
            },
            &|| {
                let missing = request.labels.iter().filter(|label| !facts.labels.contains(*label));
                let mut whys = missing.map(|label| match carrier::named(label) {
                    // One that has not said what it has may have it.
                    Some(_) if facts.labels.contains(carrier::ANY) => None,
                    Some(missing) => Some(Reason::Carrier { missing }),
                    None => Some(Reason::Label { missing: label.clone() }),
                });
                whys.find_map(|why| why)
            },
            &|| self.members.iter().find_map(|members| hard(members, at)),
        ];
        for check in checks {
            no.extend(check());
            if !all && !no.is_empty() {
                return;
            }
        }
    }

    /// Whether there are the devices. Those of one model or on one wire are asked for first and for themselves;
    /// then all of a kind together. Of two such sets one is within the other or they are disjoint, so there is
    /// nothing else in the way.
    fn devices(&self, host: &Host, all: bool, no: &mut Vec<Reason>) {
        let asks = &self.request.devices;
        for (at, ask) in asks.iter().enumerate() {
            let same = |other: &&super::DeviceAsk| other.kind == ask.kind && ask.covers(other);
            // Said once, for the last one.
            if asks[at + 1..].iter().any(|other| same(&other) && other.is_of(ask)) {
                continue;
            }
            let asked: u32 = asks.iter().filter(same).map(|other| other.count).sum();
            let rooms = host.room().devices.iter();
            let rooms = rooms.filter(|room| ask.has_room(room));
            let free: u32 = rooms.map(|room| room.free).sum();
            if asked > free {
                let (kind, model) = (ask.kind.clone(), ask.model.clone());
                let (carrier, represented) = (ask.carrier.clone(), ask.represented);
                no.push(Reason::Devices { kind, model, carrier, represented, asked, free });
                if !all {
                    return;
                }
            }
        }
        // Several models of a kind and none for any: each was looked at.
        let is_short = no.iter().any(|reason| matches!(reason, Reason::Devices { .. }));
        if !is_short && choice::is_mixed(host.facts(), asks) {
            no.extend(choice::choose(host, asks, &[]).err());
        }
    }

    /// The score, as far as it costs nothing to know: not worse than the whole.
    pub(super) fn quick_score(&self, at: usize, host: &Host, fit: Fit) -> Score {
        let room = host.room();
        let percent = u64::from(host.facts().cpu_overcommit_percent);
        let cpus = match fit.threads {
            0 if host_shares(self.request) => u64::from(self.request.vcpus) * 100,
            0 => u64::from(self.request.vcpus) * percent,
            threads => {
                let cores = cpu_units(self.request, threads);
                u64::from(cores) * u64::from(threads) * percent
            }
        };
        let memory = room.memory_share.millionths_with(self.request.memory_mib);
        let used = memory.max(room.cpu_share.millionths_with(cpus)).min(1_000_000);
        let soft = self.members.iter().filter(|members| !members.affinity.hard);
        Score {
            irregular: fit.irregular,
            affinity: soft.map(|members| broken(members, at)).sum(),
            cells: fit.way.cells(),
            devices: 0,
            apart: 0,
            fill: if self.request.fill == Fill::Pack { 1_000_000 - used } else { used },
        }
    }

    pub(super) fn score(&self, host: &Host, fit: Fit, quick: Score, sets: &mut usize) -> Score {
        let (room, request) = (host.room(), self.request);
        match fit.way {
            Way::Cells(parts) if parts > 1 || !request.devices.is_empty() => {
                let split = Split::new(cpu_units(request, fit.threads), request.units(), parts);
                let chosen = Sort::new(room, request, fit.threads)
                    .and_then(|sort| cells::choose(host, request, &split, sort, sets));
                chosen.map_or(quick, |chosen| Score {
                    devices: chosen.devices,
                    apart: chosen.apart,
                    ..quick
                })
            }
            _ => quick,
        }
    }
}

fn host_shares(request: &Request) -> bool {
    request.pinning == super::Pinning::Shared
}

fn hard(members: &Members<'_>, at: usize) -> Option<Reason> {
    let Affinity { group, relation, hard } = *members.affinity;
    let here = members.on(at);
    match relation {
        _ if !hard => None,
        Relation::Apart => (here > 0).then_some(Reason::Apart { group, here }),
        Relation::Together => (here == 0 && members.all > 0)
            .then_some(Reason::Together { group, elsewhere: members.all }),
    }
}

fn broken(members: &Members<'_>, at: usize) -> u32 {
    let here = members.on(at);
    match members.affinity.relation {
        Relation::Apart => here,
        Relation::Together => u32::from(here == 0 && members.all > 0),
    }
}
