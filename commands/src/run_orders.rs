//! The one runner: states that wait for the world → driver → the command that reports.
//!
//! It takes no input. It looks at the orders that are out, does what is missing, and may be called
//! at any time; being told that the log has grown makes it earlier, never different. A row of the
//! orders view only says where to look: before acting the runner folds the stream itself, and a
//! lease keeps two runners from one order. So a crash at any step needs no recovery: the next
//! runner finds the same order under the same key, and the driver finds what was half done.
//!
//! An order that keeps failing is *parked*: the reason is in the log, and a person says `retry` or
//! `abandon`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use domain::{
    compute::{backup_plan::BackupPlan, host::Host, image::Image, server::Server},
    finops::bill_source::BillSource,
    kernel::{Decider, Kind, OnHost, OrderKey, Outstanding, Refusal, State, StreamId, codes},
    kinds,
    observation::Origin,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, pin_mut, select, stream::FuturesUnordered};
use serde_json::{Value, json};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    observe::{Look, chain, inventory_position, outstanding},
    ports::{DriverFault, HostTask, Lease, LogFault, Report, Task, ViewFault},
    pull::{self, PullFault},
    submit::{Submission, SubmitFault},
};

/// Tries of an order that fails with something that may go away, before it is parked. With the
/// back-off below that is about two minutes.
pub const TRIES_MAX: u32 = 8;
/// Longest reason of a parked order, in bytes: what a provider says may be a whole page, and an order
/// whose reason no event takes could never be parked.
const REASON_BYTES_MAX: usize = 4_096;
/// The first back-off; it doubles up to [`BACK_OFF_MAX`].
pub const BACK_OFF_FIRST: Duration = Duration::from_millis(500);
/// The longest back-off.
pub const BACK_OFF_MAX: Duration = Duration::from_mins(1);
/// How long a lease holds without being renewed: a runner that was killed is followed after this.
pub const LEASE_TERM: Duration = Duration::from_secs(15);
/// How soon a runner sees that another order has taken the place of one that may be broken off.
const LOOK: Duration = Duration::from_secs(1);
/// How long an account that is paused, denied or not verified yet is left alone, and a backup plan whose
/// backups are being made.
const NOT_READY: Duration = Duration::from_secs(2);
/// Orders of one host at once: what its agent carries out beside each other, and some that wait there.
const HOST_CONCURRENCY: usize = 8;
/// Orders of hosts at once, all together. The runner does nothing for them but wait.
const HOSTS_CONCURRENCY: usize = 1_024;
/// The longest rest between two looks: back-offs end without anything being appended.
const REST: Duration = Duration::from_millis(500);
/// Between two looks while the log grows: under load one look finds the orders of many commands.
const BREATH: Duration = Duration::from_millis(5);

/// Steps of one order, in their order: where a test lets a runner die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The lease is taken; the provider was not called.
    BeforeCall,
    /// The provider has done it; nothing of that is in the log.
    AfterCall,
    /// The report is in the log; the lease is still held.
    AfterReport,
    /// A pull has booked a delivery; nothing says that it was taken in.
    DeliveryBooked,
    /// A pull has said that a delivery was taken in; others are still to come.
    DeliveryTaken,
}

/// Asked at every step of every order.
pub trait Probe: Send + Sync + 'static {
    /// Whether the runner dies here: it stops, and cleans nothing up.
    fn dies(&self, step: Step, key: &OrderKey) -> bool;
}

/// Nobody dies.
struct Immortal;

impl Probe for Immortal {
    fn dies(&self, _: Step, _: &OrderKey) -> bool {
        false
    }
}

/// What came of one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// Reported, parked or put off.
    Settled,
    /// Somebody else holds it, its back-off is not over, or it is not out any more.
    Passed,
    /// A probe let the runner die.
    Died,
}

/// Where an order is carried out.
enum Place {
    /// In a cloud, by this account; so many at once.
    Account(Uuid, usize),
    /// On a host of ours.
    Host(Uuid),
    /// Here.
    Here,
}

impl Place {
    /// What orders are counted by here, and how many there may be at once.
    fn limit(&self) -> Option<(Uuid, usize)> {
        match self {
            Self::Account(account, limit) => Some((*account, *limit)),
            Self::Host(host) => Some((*host, HOST_CONCURRENCY)),
            Self::Here => None,
        }
    }
}

/// An order that was tried: its key, its place, and what came of it.
type Through = (String, Place, Tried);

/// The orders that are being worked on.
#[derive(Default)]
struct Working<'a> {
    orders: FuturesUnordered<BoxFuture<'a, Through>>,
    /// Those that were through while the runner awaited something of its own.
    through: Vec<Through>,
}

impl Working<'_> {
    /// Awaits something of the runner's own while the orders go on. An order that stands still
    /// keeps what it has, connections to the store for instance, and the runner would wait for it.
    async fn beside<T>(&mut self, own: impl Future<Output = T>) -> T {
        let own = own.fuse();
        pin_mut!(own);
        loop {
            select! {
                value = own => return value,
                through = self.orders.select_next_some() => self.through.push(through),
            }
        }
    }
}

/// Why a try could not even be put off.
#[derive(Debug, thiserror::Error)]
enum RunFault {
    #[error("the order's stream cannot be read")]
    Load(#[from] LoadFault),
    #[error("the leases cannot be reached")]
    Leases(#[from] LogFault),
    #[error("the orders cannot be listed")]
    View(#[from] ViewFault),
    #[error("the report cannot be recorded")]
    Submit(#[from] SubmitFault),
}

/// The runner.
pub struct Runner {
    ledger: Arc<Ledger>,
    owner: String,
    concurrency: usize,
    probe: Arc<dyn Probe>,
}

impl Runner {
    /// A runner that works on at most this many orders at once, under a name of its own.
    pub fn new(ledger: Arc<Ledger>, concurrency: usize) -> Self {
        let owner = format!("runner-{}", ledger.ports.ids.new_id());
        Self { ledger, owner, concurrency: concurrency.max(1), probe: Arc::new(Immortal) }
    }

    /// A runner that may die.
    #[must_use]
    pub fn with_probe(mut self, probe: Arc<dyn Probe>) -> Self {
        self.probe = probe;
        self
    }

    /// Works until `stop` comes back. What is being worked on then is finished by the next runner:
    /// nothing is lost by stopping at any moment.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let stop = stop.fuse();
        pin_mut!(stop);
        let mut working = Working::default();
        let mut busy: HashSet<String> = HashSet::new();
        let mut used: HashMap<Uuid, usize> = HashMap::new();
        let mut on_hosts = 0_usize;
        loop {
            let seen = working.beside(inventory_position(&self.ledger)).await.unwrap_or_default();
            match working.beside(outstanding(&self.ledger)).await {
                Ok(found) => {
                    for (kind, id) in found {
                        let key = format!("{kind}/{id}");
                        if busy.contains(&key) {
                            continue;
                        }
                        let Some(kind) = kinds::by_name(&kind) else { continue };
                        let place = working.beside(self.place_of(kind, &id)).await;
                        let (taken, most) = match place {
                            Place::Host(_) => (on_hosts, HOSTS_CONCURRENCY),
                            _ => (busy.len() - on_hosts, self.concurrency),
                        };
                        if taken >= most || !self.is_worked_here(&place) {
                            continue;
                        }
                        if let Some((id, limit)) = place.limit() {
                            let used = used.entry(id).or_default();
                            if *used >= limit {
                                continue;
                            }
                            *used += 1;
                        }
                        on_hosts += usize::from(matches!(place, Place::Host(_)));
                        busy.insert(key.clone());
                        working.orders.push(
                            async move { (key, place, self.attend(kind, &id).await) }.boxed(),
                        );
                    }
                }
                Err(fault) => {
                    tracing::warn!(fault = chain(&fault), "the runner cannot list the orders");
                }
            }
            // Until something may be different: an append the view has folded, an order that is
            // through, or a back-off that may be over.
            let news = self.ledger.ports.log.appended(seen).fuse();
            let rest = self.ledger.ports.clock.sleep(REST).fuse();
            pin_mut!(news, rest);
            loop {
                let mut again = false;
                for (key, place, tried) in working.through.drain(..) {
                    busy.remove(&key);
                    on_hosts -= usize::from(matches!(place, Place::Host(_)));
                    let limit = place.limit();
                    if let Some(used) = limit.and_then(|(id, _)| used.get_mut(&id)) {
                        *used -= 1;
                    }
                    match tried {
                        Tried::Died => return,
                        Tried::Settled => again = true,
                        Tried::Passed => {}
                    }
                }
                if again {
                    break;
                }
                select! {
                    () = stop => return,
                    () = news => {
                        // The view folds what the log has before the runner looks again.
                        let head = seen + 1;
                        let folded = self.ledger.ports.views.reach_position(head, REST);
                        let _ = working.beside(folded).await;
                        working.beside(self.ledger.ports.clock.sleep(BREATH)).await;
                        break;
                    }
                    () = rest => break,
                    through = working.orders.select_next_some() => working.through.push(through),
                }
            }
        }
    }

    /// Works on everything that is out now, once, one after the other; true when a probe let the
    /// runner die.
    pub async fn pass(&self) -> Result<bool, ViewFault> {
        for (kind, id) in outstanding(&self.ledger).await? {
            if let Some(kind) = kinds::by_name(&kind)
                && self.attend(kind, &id).await == Tried::Died
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether this process can do anything for it.
    fn is_worked_here(&self, place: &Place) -> bool {
        match place {
            Place::Host(host) => self.ledger.host_driver(*host).is_some(),
            _ => true,
        }
    }

    /// Where an order is carried out, as far as it can be told.
    async fn place_of(&self, kind: &'static Kind, id: &str) -> Place {
        let account = match kind.name {
            "cloud-account" => id.parse().ok(),
            _ => {
                let Ok(loaded) = self.ledger.recall(kind, id).await else { return Place::Here };
                if let Some(at) = loaded.state.on_host() {
                    return Place::Host(at.host);
                }
                loaded.state.facets().account
            }
        };
        let Some(account) = account else { return Place::Here };
        let state = self.ledger.account(account).await.ok().flatten();
        match state.and_then(|state| self.ledger.provider(&state.provider)) {
            Some(provider) => Place::Account(account, provider.concurrency().max(1)),
            None => Place::Here,
        }
    }

    async fn attend(&self, kind: &'static Kind, id: &str) -> Tried {
        match self.try_order(kind, id).await {
            Ok(tried) => tried,
            Err(fault) => {
                tracing::warn!(
                    kind = kind.name,
                    id,
                    fault = chain(&fault),
                    "an order could not be worked on; it stays out"
                );
                Tried::Passed
            }
        }
    }

    async fn try_order(&self, kind: &'static Kind, id: &str) -> Result<Tried, RunFault> {
        let loaded = self.ledger.load(kind, id).await?;
        let Some(out) = loaded.state.order().filter(|out| out.parked.is_none()) else {
            return Ok(Tried::Passed);
        };
        let key = OrderKey { stream: StreamId::new(kind.name, id), number: out.number };
        // Before the lease is taken: the process that its host's agent comes to must not wait for it.
        if let Some(at) = loaded.state.on_host()
            && !self.works_for(at.host).await?
        {
            return Ok(Tried::Passed);
        }
        let leases = &self.ledger.ports.leases;
        let Some(lease) = leases.claim(&key.to_string(), &self.owner, LEASE_TERM).await? else {
            return Ok(Tried::Passed);
        };
        // Between the look and the lease another runner may have done it.
        let loaded = self.ledger.load(kind, id).await?;
        let still = loaded.state.order().filter(|out| out.parked.is_none());
        if still.is_none_or(|still| still.number != out.number) {
            leases.finish(&lease).await?;
            return Ok(Tried::Settled);
        }
        if self.probe.dies(Step::BeforeCall, &key) {
            return Ok(Tried::Died);
        }
        let chain_of = self.origin_of(kind, id, loaded.revision).await?;
        let facets = loaded.state.facets();
        let span = tracing::info_span!(
            "order",
            kind = kind.name,
            id,
            number = out.number,
            correlation_id = chain_of.0.map(tracing::field::display),
        );
        let work = async {
            // Whatever it came to so often, no report of it was taken: the provider is left alone.
            if lease.failures >= TRIES_MAX {
                let told = "its report could not be recorded".to_owned();
                return Err(Failure::Driver(DriverFault::Transient(told)));
            }
            self.work(kind, id, &key, &out, loaded.state.as_ref(), chain_of.0).await
        };
        let work = self.ledger.meters.of(key.clone(), work);
        // Apart, and awaited beside what may overtake it.
        let work = Box::pin(work.instrument(span));
        let work = async {
            if !HostTask::is_overtaken(&out.order) {
                return Some(work.await);
            }
            let overtaken = Box::pin(self.overtaken(kind, id, out.number));
            let (work, overtaken) = (work.fuse(), overtaken.fuse());
            pin_mut!(work, overtaken);
            select! {
                done = work => Some(done),
                () = overtaken => None,
            }
        };
        let Some(done) = self.hold(&lease, work).await? else {
            tracing::warn!(key = %key, "the lease was lost while working; the next holder goes on");
            return Ok(Tried::Passed);
        };
        let Some(done) = done else {
            tracing::info!(key = %key, "another order has taken the place of one that was worked on");
            leases.finish(&lease).await?;
            return Ok(Tried::Settled);
        };
        if self.probe.dies(Step::AfterCall, &key) {
            return Ok(Tried::Died);
        }
        let report = match done {
            Ok(report) => report,
            Err(Failure::NotReady) => {
                leases.put_off(&lease, false, NOT_READY).await?;
                return Ok(Tried::Passed);
            }
            Err(Failure::Away) => {
                leases.put_off(&lease, false, Duration::ZERO).await?;
                return Ok(Tried::Passed);
            }
            Err(Failure::Driver(fault)) => match self.judge(&lease, facets.account, &fault) {
                Judgement::Again { counts, back_off } => {
                    tracing::info!(key = %key, fault = %fault, "an order failed; it is tried again");
                    leases.put_off(&lease, counts, back_off).await?;
                    return Ok(Tried::Passed);
                }
                Judgement::Park(reason) => {
                    tracing::warn!(key = %key, reason, "an order is parked");
                    Report { verb: "park", body: json!({"number": out.number, "reason": reason}) }
                }
            },
            Err(Failure::Died) => return Ok(Tried::Died),
            Err(Failure::Log(fault)) => return Err(fault.into()),
        };
        match self.report(kind, id, out.number, report, chain_of).await {
            Ok(()) => {}
            // A log that cannot be reached says nothing about this order.
            Err(fault @ RunFault::Submit(SubmitFault::Load(LoadFault::Log(_)))) => {
                return Err(fault);
            }
            Err(fault) => {
                tracing::warn!(key = %key, fault = chain(&fault), "a report was not taken");
                leases.put_off(&lease, true, back_off(&lease)).await?;
                return Ok(Tried::Passed);
            }
        }
        if self.probe.dies(Step::AfterReport, &key) {
            return Ok(Tried::Died);
        }
        leases.finish(&lease).await?;
        Ok(Tried::Settled)
    }

    /// Comes back when an order is not the one that is out any more.
    async fn overtaken(&self, kind: &'static Kind, id: &str, number: u64) {
        loop {
            self.ledger.ports.clock.sleep(LOOK).await;
            // What cannot be read says nothing.
            if let Ok(now) = self.ledger.load(kind, id).await
                && now.state.order().is_none_or(|out| out.number != number)
            {
                return;
            }
        }
    }

    /// The chain that the newest record of a stream belongs to, and that record.
    async fn origin_of(
        &self,
        kind: &Kind,
        id: &str,
        revision: u64,
    ) -> Result<(Option<Uuid>, Option<Uuid>), LogFault> {
        let stream = StreamId::new(kind.name, id);
        let newest = self.ledger.ports.log.stream(&stream, revision.saturating_sub(1), 1).await?;
        let header = newest.first().map(domain::log::Record::header);
        Ok((header.as_ref().map(|one| one.correlation_id), header.map(|one| one.event_id)))
    }

    /// Keeps the lease while the work goes on; none when the lease was lost.
    async fn hold<T>(
        &self,
        lease: &Lease,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, LogFault> {
        let work = work.fuse();
        pin_mut!(work);
        loop {
            // Renewed beside the work as well, which may hold what the lease waits for.
            let beat = async {
                self.ledger.ports.clock.sleep(LEASE_TERM / 3).await;
                self.ledger.ports.leases.renew(lease, LEASE_TERM).await
            };
            let beat = beat.fuse();
            pin_mut!(beat);
            select! {
                done = work => return Ok(Some(done)),
                held = beat => if !held? {
                    return Ok(None);
                },
            }
        }
    }

    async fn work(
        &self,
        kind: &'static Kind,
        id: &str,
        key: &OrderKey,
        out: &Outstanding<Value>,
        state: &dyn State,
        correlation_id: Option<Uuid>,
    ) -> Result<Report, Failure> {
        let facets = state.facets();
        if kind.name == "cloud-account" {
            return self.work_account(id, out, correlation_id).await;
        }
        if kind.name == BillSource::KIND {
            return self.work_source(id, key).await;
        }
        if kind.name == BackupPlan::KIND {
            // Its backups are made by others, and waiting for them is no failure.
            let work = Box::pin(self.ledger.work_plan(id, out)).await;
            return work.map_err(Failure::Driver)?.ok_or(Failure::NotReady);
        }
        if kind.name == Image::KIND {
            // What still needs its file is waited for.
            let work = Box::pin(self.ledger.work_image(id, out)).await;
            return work.map_err(Failure::Driver)?.ok_or(Failure::NotReady);
        }
        if let Some(at) = state.on_host() {
            return self.work_host(at, key, out, state).await;
        }
        // Apart, so that every other order does not carry its room.
        let work = Box::pin(self.ledger.work_backups(kind.name, id, out, state));
        if let Some(work) = work.await? {
            return work.map_err(Failure::Driver);
        }
        let account_id = facets.account.ok_or(Failure::NotReady)?;
        let account = self.ledger.account(account_id).await?.ok_or(Failure::NotReady)?;
        if !account.is_ready() {
            return Err(Failure::NotReady);
        }
        let (provider, access) = self.ledger.access(account_id, &account, None)?;
        let task = Task {
            kind: kind.name,
            key: key.clone(),
            order: out.order.clone(),
            origin: Origin {
                provider: account.provider.clone(),
                account: account_id,
                region: facets.region.clone(),
                external_id: facets.external_id.clone().unwrap_or_default(),
            },
        };
        provider.carry_out(&access, &task).await.map_err(Failure::Driver)
    }

    /// An order of what is on a host of ours. It waits while this process does not work for that host,
    /// and while another agent has joined it.
    async fn work_host(
        &self,
        at: OnHost,
        key: &OrderKey,
        out: &Outstanding<Value>,
        subject: &dyn State,
    ) -> Result<Report, Failure> {
        let driver = self.ledger.host_driver(at.host).ok_or(Failure::Away)?;
        self.check_epoch(at.host, driver.epoch()).await?;
        let mut task = HostTask {
            key: key.clone(),
            order: out.order.clone(),
            state: Server::default(),
            subject: Value::Null,
            userdata: None,
            password: None,
            stores: Box::pin(self.ledger.stores_of(subject)).await?,
            leases: std::collections::BTreeMap::new(),
        };
        if let Some(server) = at.server {
            let server = server.to_string();
            task.state = self.ledger.typed::<Server>(&server).await?.1;
            task.userdata = self.ledger.userdata(&server, &task.state)?;
            task.password = self.ledger.password(&server, &out.order)?;
            self.ledger.address_images(&mut task).await?;
        }
        task.leases = self.ledger.volume_leases(at.host, &task.state, subject).await?;
        if key.stream.kind != Server::KIND {
            task.subject = serde_json::from_slice(&subject.json()).unwrap_or_default();
        }
        let report = driver.carry_out(&task).await.map_err(|fault| match fault {
            DriverFault::Away(why) => {
                tracing::info!(key = %key, why, "an order of a host waits for its agent");
                Failure::Away
            }
            fault => Failure::Driver(fault),
        })?;
        // Another agent may have joined meanwhile: what it finds counts, not what this one did.
        self.check_epoch(at.host, driver.epoch()).await?;
        Ok(report)
    }

    /// Whether this process hears the agent that works for a host now.
    async fn works_for(&self, host: Uuid) -> Result<bool, LoadFault> {
        let Some(driver) = self.ledger.host_driver(host) else { return Ok(false) };
        let (_, state) = self.ledger.typed::<Host>(&host.to_string()).await?;
        Ok(state.check_epoch(driver.epoch()).is_ok())
    }

    async fn check_epoch(&self, host: Uuid, epoch: u64) -> Result<(), Failure> {
        let (_, state) = self.ledger.typed::<Host>(&host.to_string()).await?;
        state.check_epoch(epoch).map_err(|refusal| {
            tracing::info!(%host, why = refusal.detail, "an order of a host is left to its agent");
            Failure::NotReady
        })
    }

    /// A bill source's order: take in what is new or has changed.
    async fn work_source(&self, id: &str, key: &OrderKey) -> Result<Report, Failure> {
        let id: Uuid = id.parse().map_err(|_| Failure::NotReady)?;
        let dies = |step: pull::Step| {
            let step = match step {
                pull::Step::Booked => Step::DeliveryBooked,
                pull::Step::Taken => Step::DeliveryTaken,
            };
            self.probe.dies(step, key)
        };
        // Apart, so that every other order does not carry the room of a pull.
        Box::pin(pull::pull(&self.ledger, id, &dies)).await.map_err(|fault| match fault {
            PullFault::Died => Failure::Died,
            PullFault::NotReady => Failure::NotReady,
            PullFault::Driver(fault) => Failure::Driver(fault),
            PullFault::Load(fault) => fault.into(),
        })
    }

    /// An account's own orders: who does the credential belong to, and what is in the cloud.
    async fn work_account(
        &self,
        id: &str,
        out: &Outstanding<Value>,
        correlation_id: Option<Uuid>,
    ) -> Result<Report, Failure> {
        let account_id: Uuid = id.parse().map_err(|_| Failure::NotReady)?;
        let account = self.ledger.account(account_id).await?.ok_or(Failure::NotReady)?;
        let data = &out.order["data"];
        let number = out.number;
        if out.order["type"] == "verify" {
            let (provider, access) =
                self.ledger.access(account_id, &account, data["candidate"].as_str())?;
            return match provider.identity(&access).await {
                Ok(identity) => Ok(Report {
                    verb: "confirm-identity",
                    body: json!({
                        "number": number,
                        "external_account": identity.external_account,
                        "principal": identity.principal,
                    }),
                }),
                Err(DriverFault::Denied(reason)) => Ok(Report {
                    verb: "refuse-credential",
                    body: json!({"number": number, "reason": reason}),
                }),
                Err(fault) => Err(Failure::Driver(fault)),
            };
        }
        let (provider, access) = self.ledger.access(account_id, &account, None)?;
        let texts = |value: &Value| -> Vec<String> {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let started_at = self.ledger.now();
        let look = Look {
            account: &account,
            provider: &provider,
            access: &access,
            run: number,
            regions: &texts(&data["regions"]),
            kinds: &texts(&data["kinds"]),
            approve_deletions: data["approve_deletions"] == json!(true),
            correlation_id: correlation_id.unwrap_or(account_id),
        };
        let scopes = self.ledger.observe(&look).await;
        Ok(Report {
            verb: "finish-sync",
            body: json!({"number": number, "started_at": started_at, "scopes": scopes}),
        })
    }

    async fn report(
        &self,
        kind: &'static Kind,
        id: &str,
        number: u64,
        report: Report,
        chain_of: (Option<Uuid>, Option<Uuid>),
    ) -> Result<(), RunFault> {
        let parsed = id.parse::<Uuid>().unwrap_or_default();
        let submission = |verb: &str, body: Value| {
            let system = Ledger::system("runner");
            let mut submission = Submission::new(system, kind, parsed, verb, body);
            (submission.correlation_id, submission.causation_id) = chain_of;
            submission
        };
        let verb = report.verb;
        match self.ledger.submit(submission(verb, report.body)).await {
            Ok(_) => Ok(()),
            // The counterpart, or the account, is somebody else's already: a person must look.
            Err(SubmitFault::Refused(Refusal { code, detail })) => {
                tracing::warn!(kind = kind.name, id, verb, detail, "a report was refused");
                let reason = cut(format!("{}: {detail}", code.title));
                let body = json!({"number": number, "reason": reason});
                let refused = *code == codes::ALREADY_CLAIMED && kind.name == "cloud-account";
                let verb = if refused { "refuse-credential" } else { "park" };
                self.ledger.submit(submission(verb, body)).await?;
                Ok(())
            }
            Err(fault) => Err(fault.into()),
        }
    }

    fn judge(&self, lease: &Lease, account: Option<Uuid>, fault: &DriverFault) -> Judgement {
        match fault {
            DriverFault::Throttled { retry_after } => {
                let pause = account.map(|account| self.ledger.paces.pause(account));
                let back_off = retry_after.or(pause).unwrap_or(BACK_OFF_FIRST);
                Judgement::Again { counts: false, back_off }
            }
            DriverFault::Transient(_) | DriverFault::Unexpected(_)
                if lease.failures + 1 < TRIES_MAX =>
            {
                Judgement::Again { counts: true, back_off: back_off(lease) }
            }
            fault => Judgement::Park(cut(fault.to_string())),
        }
    }
}

/// How long an order is left alone that failed once more.
fn back_off(lease: &Lease) -> Duration {
    BACK_OFF_FIRST.saturating_mul(1 << lease.failures.min(16)).min(BACK_OFF_MAX)
}

/// A reason that an event takes.
fn cut(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.push('…');
    }
    reason
}

enum Judgement {
    Again { counts: bool, back_off: Duration },
    Park(String),
}

enum Failure {
    /// A probe let the runner die.
    Died,
    /// The account cannot be used now; the order waits.
    NotReady,
    /// The host's agent is not heard; the order waits until it is.
    Away,
    Driver(DriverFault),
    /// The log cannot be read: no order can be worked on.
    Log(LogFault),
}

impl From<LoadFault> for Failure {
    /// A provider that this program does not have, or a credential that cannot be opened, stands in
    /// the way of this order like a cloud that cannot be reached: it counts, and ends in parking.
    fn from(fault: LoadFault) -> Self {
        match fault {
            LoadFault::Log(fault) => Self::Log(fault),
            fault => Self::Driver(DriverFault::Transient(chain(&fault))),
        }
    }
}
