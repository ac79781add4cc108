//! Where a server of a launch would go, why not elsewhere, and how many more of it there is room for.
//!
//! The launch is looked up as a launch is, and the fleet is the one that it would be placed in, so that what is said
//! is what it would get. Nothing is written and nothing is kept: the next command may change all of it.

use std::collections::BTreeMap;

use domain::{
    compute::placement::{Fleet, HostId, HowMany, Placement, Request, Unplaced, Verdict},
    kernel::{Principal, Refusal, Role, Stamp, codes},
    kinds,
    log::Position,
};
use serde_json::{Value, json};

pub use crate::gather::Bound;
use crate::{
    gather::{Gathering, for_reach, launch_asked},
    ledger::{Ledger, LoadFault},
    submit::SubmitFault,
};

/// The name of a server that nobody has named yet.
const UNNAMED: &str = "unnamed";

/// A launch that is asked about, with all that is needed to answer.
#[derive(Debug)]
pub struct Question {
    fleet: Fleet,
    names: BTreeMap<HostId, String>,
    request: Request,
    bounds: Vec<Bound>,
    reaches_hosts: bool,
    /// The hosts are as of here.
    pub position: Position,
}

/// What one host says.
#[derive(Debug)]
pub struct Said {
    /// Its name.
    pub name: String,
    /// Its place, or everything that is in the way.
    pub verdict: Verdict,
    /// How many there is room for when all go there; none when that was not counted any more.
    pub room: Option<u32>,
}

/// What all of it comes to.
#[derive(Debug)]
pub struct Answer {
    /// Where the next one would go, or what a launch would be refused with.
    pub placed: Result<Placement, Refusal>,
    /// Why hosts have no place, how many for each first reason.
    pub rejected: BTreeMap<String, u32>,
    /// How many more there can be.
    pub count: u64,
    /// Whether counting stopped at the limit: there may be room for more.
    pub limited: bool,
    /// How many more there can be by each thing; the least of them is the count.
    pub bounds: Vec<Bound>,
    /// What each host says, or the one that was asked; of none for who sees no hosts.
    pub hosts: Vec<Said>,
}

impl Ledger {
    /// Looks up what a launch asks of the fleet.
    ///
    /// # Errors
    /// What a launch would be refused with, whatever host it would go to.
    pub async fn placement_question(
        &self,
        principal: &Principal,
        mut body: Value,
    ) -> Result<Question, SubmitFault> {
        if principal.role < Role::Operator {
            principal.authorise(Role::Operator, None)?;
        }
        let kind = kinds::by_name("server")
            .ok_or_else(|| LoadFault::Missing("server is not a kind".to_owned()))?;
        if body.get("name").is_none() {
            body["name"] = json!(UNNAMED);
        }
        let mut gathering = Gathering {
            ledger: self,
            kind,
            id: self.ports.ids.new_id(),
            verb: "launch",
            principal,
            exists: false,
            body,
            looked: Vec::new(),
            takes: Vec::new(),
            secret: None,
        };
        let Some((_, request, bounds)) = launch_asked(&mut gathering).await? else {
            // The decider says what is wrong.
            let stamp = Stamp { now: self.ports.clock.now(), actor: principal.name.clone() };
            let refused = (kind.empty)().decide("launch", &gathering.body, &stamp).err();
            let unread = || Refusal::new(&codes::MALFORMED_COMMAND, "this is no launch");
            return Err(refused.unwrap_or_else(unread).into());
        };
        let (fleet, names, position) = self.fleet_named().await?;
        let reaches_hosts = principal.reach.covers(None);
        Ok(Question { fleet, names, request, bounds, reaches_hosts, position })
    }
}

impl Question {
    /// Whether this host is one that the caller sees.
    pub fn knows(&self, host: HostId) -> bool {
        self.reaches_hosts && self.fleet.host(host).is_some()
    }

    /// Answers it, of all hosts or of one, counting up to a limit.
    ///
    /// # Errors
    /// When the host is not there, or the limit is too high.
    pub fn answer(&self, host: Option<HostId>, limit: u32) -> Result<Answer, Refusal> {
        let (fleet, request) = (&self.fleet, &self.request);
        let (verdicts, many) = match host {
            Some(host) => {
                (vec![fleet.why_not(request, host)?], fleet.how_many_on(request, host, limit)?)
            }
            None => (fleet.why_not_each(request)?, fleet.how_many(request, limit)?),
        };
        let (placed, rejected) = match fleet.place(request) {
            Ok(placement) => {
                let counts = placement.rejected.counts.clone();
                (Ok(placement), counts)
            }
            Err(unplaced) => {
                let counts = match &unplaced {
                    Unplaced::Nowhere(rejected) => rejected.counts.clone(),
                    Unplaced::Invalid(_) => BTreeMap::new(),
                };
                (Err(for_reach(unplaced.into(), self.reaches_hosts)), counts)
            }
        };
        let mut bounds = self.bounds.clone();
        bounds.push(Bound { what: "hosts", of: None, count: many.count.into() });
        let count = bounds.iter().map(|bound| bound.count).min().unwrap_or_default();
        let limited = many.limited && count == u64::from(many.count);
        let hosts = if self.reaches_hosts { self.said(verdicts, &many) } else { Vec::new() };
        Ok(Answer { placed, rejected, count, limited, bounds, hosts })
    }

    fn said(&self, verdicts: Vec<Verdict>, many: &HowMany) -> Vec<Said> {
        let said = |verdict: Verdict| {
            let counted = many.hosts.get(&verdict.host).copied();
            let room = counted.or(verdict.holding.is_none().then_some(0));
            let name = self.names.get(&verdict.host).cloned().unwrap_or_default();
            Said { name, verdict, room }
        };
        verdicts.into_iter().map(said).collect()
    }
}
