//! What was used, as lines by our own rates: a resource's life is its meter.
//!
//! A run folds the log up to a position: servers, disks and shapes say what was used and from when
//! to when, projects, domains and organisations for whom it was, rate sets what it costs. Nothing
//! is sampled, and the same log gives the same lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use domain::{
    compute::{disk::Disk, server::Server, shape::Shape},
    finops::{
        amount::{Amount, BillingMonth, Currency},
        cost::TooLarge,
        line::Line,
        meter::{Metered, Quantities, Timeline, Usage, of_disk, of_server, runs},
        rate_set::{Meter, RateSet, Scope},
        rating::{Prices, Rated, Scopes, rate},
    },
    kernel::{Decider, State, canonical_bytes, sha256},
    log::{Position, Record, hex},
    tenancy::{organisation::Organisation, project::Project},
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    bills::Counting,
    derive::{Derived, Run, RunFault, write},
    ledger::{Ledger, LoadFault},
    ports::{AuditFilter, BillFault, BillStore},
    submit::SubmitFault,
};

/// What its segments' source is called.
pub const SOURCE: &str = "rating";
/// Records read at once.
const PAGE: usize = 1_000;

/// What a run is worked out of.
#[derive(Debug)]
pub struct Rating {
    /// Every use that began before [`Self::until`].
    pub usages: Vec<Usage>,
    /// Every set there was.
    pub sets: BTreeMap<Uuid, RateSet>,
    /// For whom they are.
    pub scopes: Scopes,
    /// Days that are over then are priced.
    pub until: DateTime<Utc>,
    counting: Counting,
}

/// What something costs by our own rates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OurCost {
    /// By currency.
    pub(crate) sums: BTreeMap<Currency, Amount>,
    /// Of which units there is a price.
    pub(crate) units: BTreeSet<String>,
}

/// What everything costs by our own rates, by our ids.
pub(crate) type OurCosts = BTreeMap<String, OurCost>;

/// Everything that metering and pricing need, as it is folded record by record.
#[derive(Debug, Default)]
pub(crate) struct Folding {
    servers: HashMap<String, (Server, bool, Timeline)>,
    disks: HashMap<String, (Disk, Timeline)>,
    /// By provider and name.
    shapes: HashMap<(String, String), Shape>,
    shape_streams: HashMap<String, Shape>,
    projects: BTreeMap<Uuid, Project>,
    organisations: BTreeMap<Uuid, Organisation>,
    sets: BTreeMap<Uuid, RateSet>,
    scopes: Scopes,
    /// When the last record was recorded.
    last: Option<DateTime<Utc>>,
}

/// Kinds whose records are folded.
const KINDS: [&str; 6] =
    [Disk::KIND, Organisation::KIND, Project::KIND, RateSet::KIND, Server::KIND, Shape::KIND];

/// Whether a record says nothing of what was used by our own meters or for whom. Servers' days are
/// measured by others, a record a server and day: soon most records of servers.
fn is_beside(record: &Record) -> bool {
    record.kind() == Server::KIND && matches!(record.event_type(), "measured" | "remeasured")
}

impl Folding {
    /// Takes one more record in; they come in the order of positions.
    pub(crate) fn take(&mut self, record: &Record) -> Result<(), LoadFault> {
        let unread = |source| LoadFault::Record {
            position: record.position(),
            event_type: record.event_type().to_owned(),
            source,
        };
        let (id, at) = (record.id(), record.recorded_at());
        let (event_type, data) = (record.event_type(), record.data());
        let uuid = id.parse::<Uuid>().unwrap_or_default();
        self.last = Some(at);
        match record.kind() {
            kind if kind == Server::KIND => {
                let known = self.servers.entry(id.to_owned()).or_default();
                State::evolve(&mut known.0, event_type, data).map_err(unread)?;
                self.meter_server(id, at);
            }
            kind if kind == Disk::KIND => {
                let (disk, timeline) = self.disks.entry(id.to_owned()).or_default();
                State::evolve(disk, event_type, data).map_err(unread)?;
                let seen = &disk.observation;
                match seen.seen.as_ref().filter(|_| seen.is_there()) {
                    Some(is) => {
                        let of = Metered::of(record.kind(), id, Decider::facets(disk));
                        timeline.is(at, of, of_disk(is));
                    }
                    None => timeline.is_gone(at),
                }
            }
            kind if kind == Shape::KIND => {
                let shape = self.shape_streams.entry(id.to_owned()).or_default();
                State::evolve(shape, event_type, data).map_err(unread)?;
                let shape = shape.clone();
                let key = (shape.provider.clone(), shape.name.clone());
                let of_shape = |server: &Server| {
                    let origin = server.observation.origin.as_ref();
                    let seen = server.observation.seen.as_ref();
                    origin.is_some_and(|one| one.provider == key.0)
                        && seen.is_some_and(|one| one.shape == key.1)
                };
                let has = self.servers.iter().filter(|(_, (server, ..))| of_shape(server));
                let ids: Vec<_> = has.map(|(id, _)| id.clone()).collect();
                self.shapes.insert(key, shape);
                for id in &ids {
                    self.meter_server(id, at);
                }
            }
            kind if kind == Project::KIND => {
                let project = self.projects.entry(uuid).or_default();
                State::evolve(project, event_type, data).map_err(unread)?;
                self.place(uuid, at);
            }
            kind if kind == Organisation::KIND => {
                let organisation = self.organisations.entry(uuid).or_default();
                State::evolve(organisation, event_type, data).map_err(unread)?;
                let projects: Vec<_> = self.projects.keys().copied().collect();
                for project in projects {
                    self.place(project, at);
                }
            }
            _ => {
                let set = self.sets.entry(uuid).or_default();
                State::evolve(set, event_type, data).map_err(unread)?;
            }
        }
        Ok(())
    }

    fn meter_server(&mut self, id: &str, at: DateTime<Utc>) {
        let Some((server, ran, timeline)) = self.servers.get_mut(id) else { return };
        let observed = &server.observation;
        let Some(seen) = observed.seen.as_ref().filter(|_| observed.is_there()) else {
            *ran = false;
            return timeline.is_gone(at);
        };
        *ran = runs(seen.power, *ran);
        let provider = observed.origin.as_ref().map(|origin| origin.provider.clone());
        let shape = self.shapes.get(&(provider.unwrap_or_default(), seen.shape.clone()));
        let used: Quantities = of_server(seen, *ran, shape.map(|shape| &shape.equipment));
        timeline.is(at, Metered::of(Server::KIND, id, Decider::facets(server)), used);
    }

    /// The same servers alone, of other shapes since the last record.
    fn instead(&mut self, shapes: &BTreeMap<Uuid, String>) -> Self {
        let Some(at) = self.last.filter(|_| !shapes.is_empty()) else { return Self::default() };
        let mut others = Self { shapes: self.shapes.clone(), ..Self::default() };
        for (id, shape) in shapes {
            let id = id.to_string();
            let Some((server, ran, _)) = self.servers.get(&id) else { continue };
            let (mut server, ran) = (server.clone(), *ran);
            if let Some(seen) = &mut server.observation.seen {
                seen.shape.clone_from(shape);
            }
            others.servers.insert(id.clone(), (server, ran, Timeline::default()));
            others.meter_server(&id, at);
        }
        others
    }

    /// In which scopes a project is from now on: itself, its domain, the nodes it hangs at.
    fn place(&mut self, id: Uuid, at: DateTime<Utc>) {
        let Some(project) = self.projects.get(&id) else { return };
        let mut scopes = vec![Scope::Project(id)];
        scopes.extend(project.domain.map(Scope::Domain));
        let counted = self.organisations.iter().filter(|(_, one)| !one.archived);
        for (organisation, state) in counted {
            let Some(at) = state.node_of(id, project) else { continue };
            scopes.extend(
                state
                    .ancestry(at)
                    .map(|node| Scope::Node { organisation: *organisation, node: node.to_owned() }),
            );
        }
        self.scopes.are(id, at, scopes);
    }

    /// What all records came to, with every use cut at a moment.
    fn until(self, at: DateTime<Utc>) -> (Vec<Usage>, BTreeMap<Uuid, RateSet>, Scopes) {
        let servers = self.servers.into_iter().map(|(id, (.., timeline))| (id, timeline));
        let disks = self.disks.into_iter().map(|(id, (_, timeline))| (id, timeline));
        let mut all: Vec<_> = servers.chain(disks).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        let usages = all.into_iter().flat_map(|(_, timeline)| timeline.until(at)).collect();
        (usages, self.sets, self.scopes)
    }
}

impl Rating {
    /// Prices these uses, and tells which meters have no rate.
    fn priced(
        &self,
        usages: &[Usage],
        run: &Run,
        until: DateTime<Utc>,
    ) -> Result<(Vec<Line>, Rated), BillFault> {
        let prices = Prices { sets: &self.sets, scopes: &self.scopes };
        let (mut lines, mut all) = (Vec::new(), Rated::default());
        let mut month = *run.months.start();
        while run.months.contains(&month) {
            let rated = rate(prices, usages, month, until).map_err(BillFault::from)?;
            lines.extend(rated.lines);
            for (meter, count) in rated.unrated {
                *all.unrated.entry(meter).or_default() += count;
            }
            month = month.next();
        }
        Ok((lines, all))
    }

    /// Works the lines of some months out, and writes them; and tells how many uses of which meter
    /// no set has a rate for. Blocks the thread.
    pub fn work(
        &self,
        store: &dyn BillStore,
        run: &Run,
    ) -> Result<(Derived, BTreeMap<Meter, u64>), BillFault> {
        let (lines, rated) = self.priced(&self.usages, run, self.until)?;
        let derived = write(store, SOURCE, self.digest(run), &self.counting, lines)?;
        Ok((derived, rated.unrated))
    }

    /// The same of uses that a file told, which are all that it has to say of its months. A day
    /// that the file has a part of is priced for that part.
    pub fn work_file(
        &self,
        store: &dyn BillStore,
        run: &Run,
        file: &UsageFile,
    ) -> Result<(Derived, BTreeMap<Meter, u64>), BillFault> {
        let (lines, rated) = self.priced(&file.usages, run, DateTime::<Utc>::MAX_UTC)?;
        let digest = file.digest.clone();
        let derived = write(store, &file.source(), digest, &self.counting, lines)?;
        Ok((derived, rated.unrated))
    }

    /// Names what was priced: the log's position, the months, and until when.
    fn digest(&self, run: &Run) -> String {
        let named = json!({
            "position": self.counting.position, "until": self.until,
            "from": run.months.start(), "to": run.months.end(),
        });
        hex(&sha256(&canonical_bytes(&named)))
    }
}

/// What was used by a cluster, as a file says.
#[derive(Clone, Debug)]
pub struct UsageFile {
    /// The cluster's id.
    pub cluster: Uuid,
    /// The file, as its sender calls it: the same name again takes the place of what it said.
    pub name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// What was used.
    pub usages: Vec<Usage>,
}

impl UsageFile {
    fn source(&self) -> String {
        format!("{SOURCE}/{}/{}", self.cluster, self.name)
    }

    /// The months in which something was used, wherever days begin: from the day before the first
    /// use to the day after the last.
    pub fn months(&self) -> Option<std::ops::RangeInclusive<BillingMonth>> {
        let first = self.usages.iter().map(|one| one.from).min()? - chrono::TimeDelta::days(1);
        let last = self.usages.iter().map(|one| one.to).max()? + chrono::TimeDelta::days(1);
        Some(BillingMonth::of(first.date_naive())..=BillingMonth::of(last.date_naive()))
    }
}

impl Ledger {
    /// What a month costs by our own rates when everything stays as it is at a position, by our ids;
    /// and what these servers would cost, were they of other shapes from then on.
    pub(crate) async fn at_our_rates(
        &self,
        at: Position,
        month: BillingMonth,
        instead: &BTreeMap<Uuid, String>,
    ) -> Result<[OurCosts; 2], RunFault> {
        let mut folding = self.folded(at).await.map_err(SubmitFault::from)?;
        let end = month.next().first().and_time(NaiveTime::MIN).and_utc() + TimeDelta::days(2);
        let others = folding.instead(instead);
        let (usages, sets, scopes) = folding.until(end);
        let (others, ..) = others.until(end);
        let prices = Prices { sets: &sets, scopes: &scopes };
        let costs = |usages: &[Usage]| -> Result<OurCosts, BillFault> {
            let mut all = OurCosts::new();
            for line in rate(prices, usages, month, end)?.lines {
                let cost = all.entry(line.resource).or_default();
                let sum = cost.sums.entry(line.currency).or_default();
                *sum = sum.checked_add(line.effective).ok_or(TooLarge)?;
                cost.units.insert(line.unit);
            }
            Ok(all)
        };
        Ok([costs(&usages)?, costs(&others)?])
    }

    /// Every record of the kinds that say what was used and for whom, up to a position.
    async fn folded(&self, head: Position) -> Result<Folding, LoadFault> {
        let mut records: Vec<Record> = Vec::new();
        for kind in KINDS {
            let filter = AuditFilter { kind: Some(kind.to_owned()), ..AuditFilter::default() };
            let mut after = 0;
            loop {
                let page = self.ports.log.search(&filter, after, false, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.position();
                let full = page.len() == PAGE;
                let counts = |one: &Record| one.position() <= head && !is_beside(one);
                records.extend(page.into_iter().filter(counts));
                if !full || after >= head {
                    break;
                }
            }
        }
        records.sort_by_key(Record::position);
        let mut folding = Folding::default();
        records.iter().try_for_each(|record| folding.take(record))?;
        Ok(folding)
    }

    /// What a rating of these months is worked out of, as the log stands now.
    pub async fn rating(&self, run: &Run) -> Result<Rating, RunFault> {
        let head = self.ports.log.head().await.map_err(SubmitFault::from)?.position;
        self.views_caught_up().await?;
        let now = self.now();
        let folding = self.folded(head).await.map_err(SubmitFault::from)?;
        let (usages, sets, scopes) = folding.until(now);
        let counting = self.bills(*run.months.start(), *run.months.end(), Some(head)).await?;
        Ok(Rating { usages, sets, scopes, until: now, counting })
    }
}
