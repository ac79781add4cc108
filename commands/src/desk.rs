//! The desk: where the runner lays orders of servers for the agents of their hosts, and agents bring
//! what became of them.
//!
//! ```text
//!   runner ── carry_out ──► laid ── next ──► agent, which carries it out
//!      ▲                     │                 │
//!      └────── outcome ──────┴───── answer ◄───┘
//! ```
//!
//! The runner of the server stays the only one: it holds the lease of an order and waits here for the
//! agent. What lies here is in memory alone. A server that restarts finds its orders in the log and
//! lays them again under the same keys; an agent that has done one meanwhile still has the outcome and
//! brings it. Whatever an agent sends counts only in the host's present epoch, which is asked of the
//! log each time.
//!
//! An agent that is not heard for [`AWAY_AFTER`] is *away*: its orders go back to the runner without
//! being counted as failures. Whether *any* process hears it is what [`Desk::watch`] records.

mod calls;
mod outcome;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    compute::{
        host::{Host, HostSighting},
        server::{Server, console::ConsoleKind},
    },
    kernel::{Decider, OrderKey, Principal, Refusal, codes},
    kinds,
};
use futures::{FutureExt, channel::oneshot, pin_mut, select};
use serde_json::{Value, json};
use uuid::Uuid;

pub use calls::Call;
pub use outcome::{Outcome, OutcomeFault};

use crate::{
    ledger::Ledger,
    ports::{Clock, DriverFault, HostDriver, HostTask, Lease, Pipe, Report, ServerPowers},
    progress::{Progress, Told},
    submit::{Submission, SubmitFault},
};

/// An agent that was not heard for so long is away: three times the longest wait for a task.
pub const AWAY_AFTER: Duration = Duration::from_secs(90);
/// Longest wait of one question for tasks: shorter than what proxies and firewalls leave open.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most tasks that are given at once; the others are asked for next.
const TASKS_MAX: usize = 16;
/// Most orders that an agent says it is working on.
pub const BUSY_MAX: usize = 1_024;
/// How often it is looked whether an agent whose task lies here is still heard.
const LOOK: Duration = Duration::from_secs(5);
/// Times a join is tried again that another one got in the way of.
const JOINS_MAX: usize = 8;

/// A task that the runner waits for.
struct Laid {
    task: HostTask,
    /// Tells it from one that was laid under the same key before or after.
    number: u64,
    answer: oneshot::Sender<Result<Report, DriverFault>>,
}

/// What is known here of a host's agent.
struct Seat {
    epoch: u64,
    heard_at: DateTime<Utc>,
    /// Questions for tasks that are waiting: while there is one the agent is heard.
    waiting: usize,
    /// What it works on, as it said last.
    busy: Busy,
    laid: BTreeMap<OrderKey, Laid>,
    /// Consoles that it is called for.
    calls: BTreeMap<Uuid, calls::Waiting>,
    /// Told when there is something new for the agent.
    bells: Vec<oneshot::Sender<()>>,
    /// Says to every process that this one hears the agent; since when it holds.
    presence: Option<(Lease, DateTime<Utc>)>,
}

impl Seat {
    fn new(epoch: u64, now: DateTime<Utc>) -> Self {
        Self {
            epoch,
            heard_at: now,
            waiting: 0,
            busy: Busy::default(),
            laid: BTreeMap::new(),
            calls: BTreeMap::new(),
            bells: Vec::new(),
            presence: None,
        }
    }

    fn heard_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        if self.waiting > 0 { now } else { self.heard_at }
    }

    fn is_heard(&self, now: DateTime<Utc>) -> bool {
        now - self.heard_at(now) < AWAY_AFTER_DELTA
    }

    fn ring(&mut self) {
        for bell in self.bells.drain(..) {
            let _ = bell.send(());
        }
    }
}

const AWAY_AFTER_DELTA: TimeDelta = TimeDelta::seconds(AWAY_AFTER.as_secs() as i64);

#[derive(Default)]
struct Seats {
    seats: BTreeMap<Uuid, Seat>,
    laid: u64,
}

/// What an agent says that it works on.
#[derive(Clone, Debug, Default)]
pub struct Busy {
    /// The orders, which it is not given again.
    pub orders: BTreeSet<OrderKey>,
    /// How far those are that are transfers.
    pub progress: Vec<Told>,
}

impl From<BTreeSet<OrderKey>> for Busy {
    fn from(orders: BTreeSet<OrderKey>) -> Self {
        Self { orders, progress: Vec::new() }
    }
}

/// What an agent is given at once.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Orders to carry out.
    pub tasks: Vec<HostTask>,
    /// Consoles to open and to bring.
    pub calls: Vec<Call>,
    /// The logical CPUs that no server of the host gets, by its settings; none when it is not said.
    pub cpus_reserved: Option<BTreeSet<u32>>,
}

impl Given {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.calls.is_empty()
    }
}

/// What is known of an agent now, by the process that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The epoch that it works in.
    pub epoch: u64,
    /// When it was last heard.
    pub last_heard: DateTime<Utc>,
    /// Whether that is not too long ago.
    pub connected: bool,
    /// Orders that it has been given or is to be given.
    pub orders: usize,
}

/// The desk of one process.
pub struct Desk {
    clock: Arc<dyn Clock>,
    /// Holds presences, as a runner holds leases.
    owner: String,
    seats: Mutex<Seats>,
}

impl Desk {
    /// An empty one; the name is this process's alone.
    pub fn new(clock: Arc<dyn Clock>, owner: String) -> Arc<Self> {
        Arc::new(Self { clock, owner, seats: Mutex::default() })
    }

    /// This process's name, as who holds leases.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver of a host whose agent is heard here; none when it is away, or comes to another
    /// process.
    pub fn driver(self: &Arc<Self>, host: Uuid) -> Option<Arc<dyn HostDriver>> {
        let now = self.clock.now();
        let epoch = self.seats().seats.get(&host).filter(|seat| seat.is_heard(now))?.epoch;
        Some(Arc::new(AtDesk { desk: Arc::clone(self), host, epoch }))
    }

    /// What is known here of a host's agent; none when it never came here.
    pub fn heard(&self, host: Uuid) -> Option<Heard> {
        let now = self.clock.now();
        self.seats().seats.get(&host).map(|seat| Heard {
            epoch: seat.epoch,
            last_heard: seat.heard_at(now),
            connected: seat.is_heard(now),
            orders: seat.laid.len(),
        })
    }

    /// How far the order of a resource is that an agent works on which is heard here.
    pub fn progress(&self, kind: &str, id: &str) -> Option<Progress> {
        let now = self.clock.now();
        let seats = self.seats();
        let heard = seats.seats.values().filter(|seat| seat.is_heard(now));
        let mut told = heard.flat_map(|seat| &seat.busy.progress);
        let found = told.find(|told| told.key.stream.kind == kind && told.key.stream.id == id);
        found.map(|told| told.progress)
    }

    /// How far everything is that agents work on which are heard here.
    pub fn told(&self) -> Vec<Told> {
        let now = self.clock.now();
        let seats = self.seats();
        let heard = seats.seats.values().filter(|seat| seat.is_heard(now));
        heard.flat_map(|seat| seat.busy.progress.iter().cloned()).collect()
    }

    /// How many agents are heard here.
    pub fn connected(&self) -> usize {
        let now = self.clock.now();
        self.seats().seats.values().filter(|seat| seat.is_heard(now)).count()
    }

    /// An agent begins to work for a host: any agent before it is fenced off. Gives its epoch.
    ///
    /// # Errors
    /// `not-found`, `wrong-state`, `invalid-field`.
    pub async fn join(
        &self,
        ledger: &Ledger,
        by: &Principal,
        host: Uuid,
        agent: &str,
    ) -> Result<u64, SubmitFault> {
        for _ in 0..JOINS_MAX {
            let epoch = state_of(ledger, host).await?.epoch + 1;
            let body = json!({"epoch": epoch, "agent": agent});
            match submit(ledger, by, Host::KIND, host, "join", body).await {
                Err(SubmitFault::Refused(no)) if *no.code == codes::STALE_EPOCH => {}
                Err(fault) => return Err(fault),
                Ok(()) => {
                    self.listen(ledger, host, epoch).await;
                    tracing::info!(%host, epoch, agent, by = by.name, "an agent has joined");
                    return Ok(epoch);
                }
            }
        }
        Err(SubmitFault::Busy)
    }

    /// An agent says what its host is; only what differs is recorded.
    ///
    /// # Errors
    /// `stale-epoch`, and what [`Host`] says of a sighting.
    pub async fn sight(
        &self,
        ledger: &Ledger,
        by: &Principal,
        host: Uuid,
        epoch: u64,
        seen: &HostSighting,
        servers: &ServerPowers,
    ) -> Result<(), SubmitFault> {
        self.hear(ledger, by, host, epoch).await?;
        submit(ledger, by, Host::KIND, host, "sight", json!({"epoch": epoch, "seen": seen}))
            .await?;
        for (id, now) in servers {
            let server = ledger.typed::<Server>(&id.to_string()).await?.1;
            // What is not on this host is not its agent's to tell of.
            let is_here = server
                .home
                .as_ref()
                .is_some_and(|home| home.placement.host.uuid() == host && !home.removed);
            let is_known =
                server.observation.seen.as_ref().is_some_and(|seen| seen.power == now.power);
            if is_here && !is_known {
                let body = json!({"number": now.number, "power": now.power});
                submit(ledger, by, Server::KIND, *id, "notice", body).await?;
            }
        }
        Ok(())
    }

    /// The orders of a host that its agent does not work on yet, and the consoles that it is called
    /// for; waits for one if there is none.
    ///
    /// What is given is given again until the agent says that it is working on it, so that an answer
    /// that was lost on its way loses nothing.
    ///
    /// # Errors
    /// `stale-epoch`, `not-found`, `invalid-field`.
    #[expect(clippy::too_many_arguments, reason = "who asks, for what, and for how long")]
    pub async fn next(
        self: &Arc<Self>,
        ledger: &Ledger,
        by: &Principal,
        host: Uuid,
        epoch: u64,
        busy: impl Into<Busy>,
        wait: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<Given, SubmitFault> {
        let busy = busy.into();
        if busy.orders.len().max(busy.progress.len()) > BUSY_MAX {
            let detail = format!("busy: at most {BUSY_MAX} orders");
            return Err(Refusal::new(&codes::INVALID_FIELD, detail).into());
        }
        let state = self.hear(ledger, by, host, epoch).await?;
        let cpus_reserved = Some(state.settings.cpus_reserved);
        let now = self.clock.now();
        let _waiting = Waiting::begin(self, host, epoch, busy, now);
        let wait = TimeDelta::from_std(wait.min(WAIT_MAX)).unwrap_or_default();
        let until = now + wait;
        let stop = stop.fuse();
        pin_mut!(stop);
        loop {
            let (given, bell) = self.look(host, epoch)?;
            let left = (until - self.clock.now()).to_std().unwrap_or_default();
            if !given.is_empty() || left.is_zero() {
                return Ok(Given { cpus_reserved, ..given });
            }
            let rest = self.clock.sleep(left).fuse();
            let mut bell = bell.fuse();
            pin_mut!(rest);
            select! {
                _ = bell => {}
                () = rest => {}
                () = stop => return Ok(Given::default()),
            }
        }
    }

    /// What is to be given now, and what rings when there is more.
    fn look(&self, host: Uuid, epoch: u64) -> Result<(Given, oneshot::Receiver<()>), Refusal> {
        let (bell, ringing) = oneshot::channel();
        let mut seats = self.seats();
        let seat = seats.seats.get_mut(&host).filter(|seat| seat.epoch == epoch);
        let seat = seat.ok_or_else(|| {
            Refusal::new(&codes::STALE_EPOCH, format!("epoch: {epoch} is over, another has joined"))
        })?;
        let given = seat.laid.iter().filter(|(key, _)| !seat.busy.orders.contains(*key));
        let tasks: Vec<_> = given.take(TASKS_MAX).map(|(_, laid)| laid.task.clone()).collect();
        let called: Vec<_> = seat.calls.values_mut().filter(|one| !one.given).collect();
        let call = |one: &mut calls::Waiting| {
            one.given = true;
            one.call.clone()
        };
        let calls = called.into_iter().map(call).collect();
        let given = Given { tasks, calls, cpus_reserved: None };
        if given.is_empty() {
            seat.bells.retain(|bell| !bell.is_canceled());
            seat.bells.push(bell);
        }
        Ok((given, ringing))
    }

    /// What became of an order. Says whether the runner waited for it: if not, the agent keeps it
    /// until it is asked for that order again.
    ///
    /// # Errors
    /// `stale-epoch`, `not-found`, `invalid-field`.
    pub async fn answer(
        &self,
        ledger: &Ledger,
        by: &Principal,
        host: Uuid,
        epoch: u64,
        key: &OrderKey,
        outcome: Outcome,
    ) -> Result<bool, SubmitFault> {
        self.hear(ledger, by, host, epoch).await?;
        let outcome = outcome.read(key)?;
        let mut seats = self.seats();
        let Some(seat) = seats.seats.get_mut(&host).filter(|seat| seat.epoch == epoch) else {
            return Ok(false);
        };
        seat.busy.orders.remove(key);
        seat.busy.progress.retain(|told| told.key != *key);
        seat.ring();
        let laid = seat.laid.remove(key);
        Ok(laid.is_some_and(|laid| laid.answer.send(outcome).is_ok()))
    }

    /// An agent was heard, in the epoch that counts: a server process that restarted, or another one,
    /// takes it as it is.
    async fn hear(
        &self,
        ledger: &Ledger,
        by: &Principal,
        host: Uuid,
        epoch: u64,
    ) -> Result<Host, SubmitFault> {
        let state = state_of(ledger, host).await?;
        state.check_epoch(epoch)?;
        self.listen(ledger, host, epoch).await;
        if state.unreachable_since.is_some() {
            submit(ledger, by, Host::KIND, host, "mark-reachable", json!({"epoch": epoch})).await?;
        }
        Ok(state)
    }

    fn seat<T>(&self, host: Uuid, epoch: u64, work: impl FnOnce(&mut Seat) -> T) -> Option<T> {
        let now = self.clock.now();
        let mut seats = self.seats();
        let seat = seats.seats.entry(host).or_insert_with(|| Seat::new(epoch, now));
        if seat.epoch < epoch {
            // Who waited for the one before is told so by its channels' end.
            *seat = Seat { presence: seat.presence.take(), ..Seat::new(epoch, now) };
        }
        (seat.epoch == epoch).then(|| work(seat))
    }

    fn lay(&self, host: Uuid, epoch: u64, task: &HostTask) -> Option<(u64, Answer)> {
        let (answer, waiting) = oneshot::channel();
        let mut seats = self.seats();
        seats.laid += 1;
        let number = seats.laid;
        let seat = seats.seats.get_mut(&host).filter(|seat| seat.epoch == epoch)?;
        seat.laid.insert(task.key.clone(), Laid { task: task.clone(), number, answer });
        seat.ring();
        Some((number, waiting))
    }

    fn take_back(&self, host: Uuid, key: &OrderKey, number: u64) {
        let mut seats = self.seats();
        let Some(seat) = seats.seats.get_mut(&host) else { return };
        if seat.laid.get(key).is_some_and(|laid| laid.number == number) {
            seat.laid.remove(key);
        }
    }
}

/// A host's state.
async fn state_of(ledger: &Ledger, host: Uuid) -> Result<Host, SubmitFault> {
    let (revision, state) = ledger.typed::<Host>(&host.to_string()).await?;
    if revision == 0 {
        return Err(Refusal::new(&codes::NOT_FOUND, format!("there is no host {host}")).into());
    }
    Ok(state)
}

/// A command of a host that its agent has sent: the log says by which token.
async fn submit(
    ledger: &Ledger,
    by: &Principal,
    kind: &str,
    id: Uuid,
    verb: &str,
    body: Value,
) -> Result<(), SubmitFault> {
    let kind = kinds::by_name(kind).ok_or_else(|| {
        SubmitFault::Refused(Refusal::new(&codes::NOT_FOUND, format!("there is no kind {kind}")))
    })?;
    let principal = Principal::system(&format!("agent/{}", by.name));
    ledger.submit(Submission::new(principal, kind, id, verb, body)).await.map(drop)
}

/// A question for tasks that is waiting; the agent is heard for as long.
struct Waiting<'a> {
    desk: &'a Desk,
    host: Uuid,
    epoch: u64,
}

impl<'a> Waiting<'a> {
    fn begin(desk: &'a Desk, host: Uuid, epoch: u64, busy: Busy, now: DateTime<Utc>) -> Self {
        desk.seat(host, epoch, |seat| {
            (seat.busy, seat.heard_at) = (busy, now);
            seat.waiting += 1;
        });
        Self { desk, host, epoch }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = self.desk.clock.now();
        let mut seats = self.desk.seats();
        let seat = seats.seats.get_mut(&self.host).filter(|seat| seat.epoch == self.epoch);
        if let Some(seat) = seat {
            seat.waiting = seat.waiting.saturating_sub(1);
            seat.heard_at = now;
        }
    }
}

type Answer = oneshot::Receiver<Result<Report, DriverFault>>;

/// A host as its agent works for it, from the runner's side of the desk.
struct AtDesk {
    desk: Arc<Desk>,
    host: Uuid,
    epoch: u64,
}

/// A task on the desk, taken back when nobody waits for it any more.
struct OnDesk<'a> {
    at: &'a AtDesk,
    key: &'a OrderKey,
    number: u64,
}

impl Drop for OnDesk<'_> {
    fn drop(&mut self) {
        self.at.desk.take_back(self.at.host, self.key, self.number);
    }
}

#[async_trait]
impl HostDriver for AtDesk {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    async fn console(
        &self,
        call: Uuid,
        server: Uuid,
        console: ConsoleKind,
        lent: Option<Ipv4Addr>,
    ) -> Result<Pipe, DriverFault> {
        self.call(Call { id: call, server, console, lent }).await
    }

    async fn carry_out(&self, task: &HostTask) -> Result<Report, DriverFault> {
        let away = || DriverFault::Away(format!("the agent of host {} is not heard", self.host));
        let laid = self.desk.lay(self.host, self.epoch, task);
        let (number, answer) = laid.ok_or_else(away)?;
        // A channel whose other end is gone counts as read already, and would never be looked at again.
        let mut answer = answer.fuse();
        let _on_desk = OnDesk { at: self, key: &task.key, number };
        loop {
            let rest = self.desk.clock.sleep(LOOK).fuse();
            pin_mut!(rest);
            select! {
                // Its other end is gone when another agent has joined.
                outcome = answer => return outcome.unwrap_or_else(|_| Err(away())),
                () = rest => {}
            }
            if !self.desk.heard(self.host).is_some_and(|heard| heard.connected) {
                return Err(away());
            }
        }
    }
}
