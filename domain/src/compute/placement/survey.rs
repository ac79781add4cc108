//! What hosts say to a request before anybody is placed: why not this one, and how many more there is room for.
//!
//! It is the placement itself that is asked, so that what is said is what a launch would get. Nothing is taken.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    assign::assign,
    cells::SETS_ALL_MAX,
    fleet::{Fleet, Looked, Score},
    holding::Holding,
    host::HostId,
    reason::Reason,
    request::{Relation, Request},
};
use crate::kernel::{Id, Refusal, codes};

/// Most servers that [`Fleet::how_many`] counts up to.
pub const HOW_MANY_MAX: u32 = 10_000;

/// What one host says to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The host.
    pub host: HostId,
    /// How good its place is, when it has one.
    pub score: Option<Score>,
    /// What it would take there.
    pub holding: Option<Holding>,
    /// Everything that is in the way; the first is what a placement records of it.
    pub reasons: Vec<Reason>,
}

/// How many servers of a request there is room for, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HowMany {
    /// So many.
    pub count: u32,
    /// Whether counting stopped at the limit: there may be room for more.
    pub limited: bool,
    /// How many each host has room for when all go there; those with none, and those that were not
    /// counted any more, are left out. Their sum is the count, but when servers are to be together in a
    /// group that has nobody yet: then all are where the first one goes.
    pub hosts: BTreeMap<HostId, u32>,
}

impl Fleet {
    /// What one host says to a request: its place, or everything that is in the way.
    ///
    /// # Errors
    /// When the request is not valid, or the host is not in this fleet.
    pub fn why_not(&self, request: &Request, host: HostId) -> Result<Verdict, Refusal> {
        request.check()?;
        let at = self.known(host)?;
        Ok(self.verdict(&self.look(request), request, at))
    }

    /// The same of every host, in the order of their ids.
    ///
    /// # Errors
    /// When the request is not valid.
    pub fn why_not_each(&self, request: &Request) -> Result<Vec<Verdict>, Refusal> {
        request.check()?;
        let looked = self.look(request);
        Ok((0..self.hosts.len()).map(|at| self.verdict(&looked, request, at)).collect())
    }

    fn verdict(&self, looked: &Looked<'_>, request: &Request, at: usize) -> Verdict {
        let (found, mut reasons) = (&self.hosts[at], Vec::new());
        let fit = looked.judge(at, found, true, &mut reasons);
        let score = fit.map(|fit| {
            looked.score(found, fit, looked.quick_score(at, found, fit), &mut SETS_ALL_MAX.clone())
        });
        let holding = fit.and_then(|fit| assign(found, request, fit));
        Verdict { host: found.facts().id, score, holding, reasons }
    }

    /// How many servers of this request could be placed one after the other, up to a limit: found by
    /// taking places. What is on one host is nothing to another, so each host is filled for itself.
    ///
    /// # Errors
    /// When the request is not valid, or the limit is above [`HOW_MANY_MAX`].
    pub fn how_many(&self, request: &Request, limit: u32) -> Result<HowMany, Refusal> {
        check(request, limit)?;
        let gathers = self.look(request).members.iter().any(|members| {
            let affinity = members.affinity;
            affinity.hard && affinity.relation == Relation::Together && members.all == 0
        });
        // Where the first one goes is where the others must be.
        let first = gathers.then(|| self.place(request).ok().and_then(|one| self.at(one.host)));
        let others = (0..self.hosts.len()).filter(|at| first != Some(Some(*at)));
        let (mut fleet, mut many, mut left) = (self.clone(), HowMany::default(), limit);
        for at in first.flatten().into_iter().chain(others) {
            let count = fleet.fill(request, at, left)?;
            left -= count;
            if count > 0 {
                many.hosts.insert(self.hosts[at].facts().id, count);
            }
            if first.is_none_or(|first| first == Some(at)) {
                many.count += count;
            }
        }
        many.limited = many.count == limit;
        Ok(many)
    }

    /// How many could be placed on one host one after the other, up to a limit.
    ///
    /// # Errors
    /// When the request is not valid, the host is not in this fleet, or the limit is above [`HOW_MANY_MAX`].
    pub fn how_many_on(
        &self,
        request: &Request,
        host: HostId,
        limit: u32,
    ) -> Result<HowMany, Refusal> {
        check(request, limit)?;
        let count = self.clone().fill(request, self.known(host)?, limit)?;
        let hosts = (count > 0).then_some((host, count)).into_iter().collect();
        Ok(HowMany { count, limited: count == limit, hosts })
    }

    /// Fills a host, gives everything back, and says how many they were.
    fn fill(&mut self, request: &Request, at: usize, limit: u32) -> Result<u32, Refusal> {
        let mut filled = Vec::new();
        let mut number = request.server.uuid().as_u128();
        for _ in 0..limit {
            // Any id that nobody has yet.
            while self.servers.contains_key(&Id::new(Uuid::from_u128(number))) {
                number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
            }
            let one = Request { server: Id::new(Uuid::from_u128(number)), ..request.clone() };
            let host = &self.hosts[at];
            let fit = self.look(&one).judge(at, host, false, &mut Vec::new());
            let Some(holding) = fit.and_then(|fit| assign(host, &one, fit)) else { break };
            let id = host.facts().id;
            self.take(id, holding)?;
            filled.push((id, one.server));
        }
        for (host, server) in &filled {
            self.give_back(*host, *server)?;
        }
        Ok(filled.len() as u32)
    }
}

/// Whether it can be asked at all.
fn check(request: &Request, limit: u32) -> Result<(), Refusal> {
    request.check()?;
    if limit > HOW_MANY_MAX {
        let detail = format!("limit: {limit} is above {HOW_MANY_MAX}");
        return Err(Refusal::new(&codes::INVALID_FIELD, detail));
    }
    Ok(())
}
