//! The loop of an agent.
//!
//! ```text
//!            join                 fenced off, or refused
//!  begins ─────────► works ──────────────────────────────► ends with a fault
//!    ▲ line broken     │  SIGTERM
//!    └── back-off      └──────► finishes what it has begun ──► ends
//! ```

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use commands::{
    desk::{Busy, Call, Given, Outcome, OutcomeFault},
    ports::{Clock, DriverFault, HostDriver, HostTask, LocalHost, Report},
    progress::Meters,
};
use domain::kernel::OrderKey;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Fuse, FusedFuture as _},
    select,
    stream::FuturesUnordered,
};
use tokio::task::JoinSet;

use crate::{
    epoch_file::{EpochFault, EpochFile},
    line::{Line, LineFault},
    tasks::Tasks,
};

/// The first pause after the line broke; it doubles up to [`BACK_OFF_MAX`].
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
/// The longest pause: a server that is back is found within it.
const BACK_OFF_MAX: Duration = Duration::from_secs(20);
/// How long one question for orders waits while an order is carried out: how far it is is said with the next.
const WAIT_BUSY: Duration = Duration::from_secs(5);
/// How long an agent that ends tries to bring what it has.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How an agent works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Orders that are carried out at once.
    pub at_once: usize,
    /// Where the last epoch is kept; none where the server is this very process.
    pub epoch_file: Option<EpochFile>,
    /// How often the host is looked at. Only what differs is recorded.
    pub sight_every: Duration,
    /// How long one question for orders waits; at most [`commands::desk::WAIT_MAX`].
    pub wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            at_once: 4,
            epoch_file: None,
            sight_every: Duration::from_mins(5),
            wait: Duration::from_secs(25),
        }
    }
}

/// Why an agent does not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentFault {
    /// The epoch cannot be worked in.
    #[error(transparent)]
    Epoch(#[from] EpochFault),
    /// Another agent has joined the host.
    #[error("another agent works for this host now: {0}")]
    Fenced(String),
    /// The server says no.
    #[error("{code}: {detail}")]
    Refused {
        /// The refusal's code.
        code: String,
        /// Its detail.
        detail: String,
    },
}

/// The agent of a host.
pub struct Agent {
    line: Arc<dyn Line>,
    local: Arc<dyn LocalHost>,
    clock: Arc<dyn Clock>,
    options: Options,
    /// How far what it carries out is.
    meters: Meters,
}

type Through = (OrderKey, Result<Report, DriverFault>);
type Brought = (OrderKey, Result<bool, LineFault>);
type Working<'a, T> = FuturesUnordered<BoxFuture<'a, T>>;

impl Agent {
    /// An agent for this host at the end of this line.
    pub fn new(
        line: Arc<dyn Line>,
        local: Arc<dyn LocalHost>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Self {
        Self { line, local, clock, options, meters: Meters::default() }
    }

    /// Works until `stop` comes back, then finishes what it has begun. A line that breaks is looked
    /// for again for ever.
    ///
    /// # Errors
    /// [`AgentFault`]: a person has to look.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Result<(), AgentFault> {
        let mut stop = pin!(stop.fuse());
        let epoch = {
            let mut joining = pin!(self.join().fuse());
            select! {
                epoch = joining => epoch?,
                () = stop => return Ok(()),
            }
        };
        if let Some(file) = &self.options.epoch_file {
            file.begin(epoch)?;
        }
        tracing::info!(epoch, "the agent works");
        let driver = self.local.driver(epoch);
        let mut tasks = Tasks::default();
        let mut running: Working<'_, Through> = FuturesUnordered::new();
        let mut bringing: Working<'_, Brought> = FuturesUnordered::new();
        let mut reserving = Fuse::terminated();
        let mut sighting = self.sight(epoch, Duration::ZERO).boxed().fuse();
        let mut breaks = 0_u32;
        // They end with this agent: whoever is fenced off shows nothing more of its host.
        let mut consoles = JoinSet::new();
        let mut asking = self.ask(epoch, &tasks, Duration::ZERO);
        loop {
            select! {
                () = stop => break,
                () = reserving => {}
                next = sighting => sighting = self.sight(epoch, next?).boxed().fuse(),
                asked = asking => {
                    let mut pause = Duration::ZERO;
                    match asked {
                        Ok(Given { tasks: given, calls, cpus_reserved }) => {
                            // One that is being told is told again with the next answer.
                            if let Some(cpus) = cpus_reserved
                                && reserving.is_terminated()
                            {
                                reserving = self.reserve_cpus(cpus).boxed().fuse();
                            }
                            for call in calls {
                                consoles.spawn(self.console(epoch, call, &driver));
                            }
                            while consoles.try_join_next().is_some() {}
                            if std::mem::take(&mut breaks) > 0 {
                                tracing::info!("the server is reached again");
                            }
                            for task in given {
                                if let Some((key, outcome)) = tasks.take(task) {
                                    tracing::info!(key = %key, "was done before");
                                    bringing.push(self.bring(epoch, key, outcome).boxed());
                                }
                            }
                        }
                        Err(fault) => {
                            pause = broken(fault, &mut breaks)?;
                        }
                    }
                    asking = self.ask(epoch, &tasks, pause);
                }
                (key, result) = running.select_next_some() => {
                    bringing.push(self.through(epoch, &mut tasks, key, &result));
                }
                (key, came) = bringing.select_next_some() => {
                    brought(&mut tasks, &key, came)?;
                }
            }
            while let Some(task) = tasks.begin(self.options.at_once) {
                tracing::info!(key = %task.key, "an order is begun");
                let meters = self.meters.clone();
                running.push(carry_out(Arc::clone(&driver), task, meters).boxed());
            }
        }
        tracing::info!(orders = running.len(), "the agent ends after what it has begun");
        drop((asking, sighting, reserving));
        tasks.stop();
        while let Some((key, result)) = running.next().await {
            bringing.push(self.through(epoch, &mut tasks, key, &result));
        }
        let mut late = pin!(self.clock.sleep(LAST_WORDS).fuse());
        while !bringing.is_empty() {
            select! {
                (key, came) = bringing.select_next_some() => {
                    brought(&mut tasks, &key, came)?;
                }
                () = late => {
                    tracing::warn!(outcomes = bringing.len(), "the server was not reached");
                    break;
                }
            }
        }
        Ok(())
    }

    /// Opens a console of a server, and brings it.
    fn console(
        &self,
        epoch: u64,
        call: Call,
        driver: &Arc<dyn HostDriver>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (line, driver) = (Arc::clone(&self.line), Arc::clone(driver));
        async move {
            let Call { id, server, console, lent } = call;
            tracing::info!(%server, ?console, "a console is opened");
            let opened = driver.console(id, server, console, lent).await;
            if let Err(fault) = &opened {
                tracing::warn!(%server, ?console, %fault, "a console cannot be opened");
            }
            if let Err(fault) = line.console(epoch, id, opened).await {
                tracing::warn!(%server, ?console, %fault, "a console is not brought");
            }
        }
    }

    async fn join(&self) -> Result<u64, AgentFault> {
        let (agent, mut breaks) = (self.local.agent(), 0);
        loop {
            match self.line.join(&agent).await {
                Ok(epoch) => return Ok(epoch),
                Err(fault) => {
                    let pause = broken(fault, &mut breaks)?;
                    self.clock.sleep(pause).await;
                }
            }
        }
    }

    fn ask(
        &self,
        epoch: u64,
        tasks: &Tasks,
        pause: Duration,
    ) -> Fuse<BoxFuture<'_, Result<Given, LineFault>>> {
        let orders = tasks.busy().clone();
        let asking = async move {
            if !pause.is_zero() {
                self.clock.sleep(pause).await;
            }
            let wait = if orders.is_empty() { self.options.wait } else { WAIT_BUSY };
            let busy = Busy { orders, progress: self.meters.all() };
            self.line.tasks(epoch, &busy, wait.min(self.options.wait)).await
        };
        asking.boxed().fuse()
    }

    /// Looks at the host after a pause, or when a server may have changed by itself, and says what is
    /// there; gives the pause before the next look.
    async fn sight(&self, epoch: u64, pause: Duration) -> Result<Duration, AgentFault> {
        if !pause.is_zero() {
            let mut rest = pin!(self.clock.sleep(pause).fuse());
            let mut changed = pin!(self.local.changed().fuse());
            select! {
                () = rest => {}
                () = changed => {}
            }
        }
        let look = async { Ok((self.local.sight().await?, self.local.servers().await?)) };
        let (seen, servers) = match look.await {
            Ok(seen) => seen,
            Err::<_, DriverFault>(fault) => {
                tracing::warn!(%fault, "the host cannot be looked at; it is tried again");
                return Ok(BACK_OFF_MAX);
            }
        };
        match self.line.sight(epoch, &seen, &servers).await {
            Ok(()) => Ok(self.options.sight_every),
            Err(LineFault::Stale(why)) => Err(AgentFault::Fenced(why)),
            Err(fault @ LineFault::Refused { .. }) => {
                tracing::error!(%fault, "what was seen of the host is refused");
                Ok(self.options.sight_every)
            }
            Err(LineFault::Broken(_)) => Ok(BACK_OFF_FIRST * 4),
        }
    }

    /// Keeps servers off CPUs. What does not go is tried with the next answer.
    async fn reserve_cpus(&self, cpus: BTreeSet<u32>) {
        if let Err(fault) = self.local.reserve_cpus(&cpus).await {
            tracing::warn!(%fault, "servers may run on CPUs that they are to be kept off");
        }
    }

    fn through(
        &self,
        epoch: u64,
        tasks: &mut Tasks,
        key: OrderKey,
        result: &Result<Report, DriverFault>,
    ) -> BoxFuture<'_, Brought> {
        match result {
            Ok(_) => tracing::info!(key = %key, "an order is done"),
            Err(fault) => tracing::warn!(key = %key, %fault, "an order has failed"),
        }
        let outcome = Outcome::from(result);
        tasks.end(&key, &outcome);
        self.bring(epoch, key, outcome).boxed()
    }

    /// Brings an outcome, however long the line is broken.
    async fn bring(&self, epoch: u64, key: OrderKey, mut outcome: Outcome) -> Brought {
        let mut breaks = 0;
        loop {
            match self.line.answer(epoch, &key, &outcome).await {
                Err(LineFault::Broken(why)) => {
                    let pause = pause(&why, &mut breaks);
                    self.clock.sleep(pause).await;
                }
                // What cannot be reported is an order that fails, and a person sees why.
                Err(LineFault::Refused { code, detail })
                    if matches!(outcome, Outcome::Report { .. }) =>
                {
                    let why = format!("the report was refused: {code}: {detail}");
                    outcome = Outcome::Fault(OutcomeFault::Unexpected(why));
                }
                result => return (key, result),
            }
        }
    }
}

/// What a fault of the line means: a pause, or the end.
fn broken(fault: LineFault, breaks: &mut u32) -> Result<Duration, AgentFault> {
    match fault {
        LineFault::Stale(why) => Err(AgentFault::Fenced(why)),
        LineFault::Refused { code, detail } => Err(AgentFault::Refused { code, detail }),
        LineFault::Broken(why) => Ok(pause(&why, breaks)),
    }
}

/// How long a line that broke once more is left alone.
fn pause(why: &str, breaks: &mut u32) -> Duration {
    if *breaks == 0 {
        tracing::warn!(why, "the server is not reached; it is tried again for ever");
    }
    let pause = BACK_OFF_FIRST.saturating_mul(1 << (*breaks).min(16)).min(BACK_OFF_MAX);
    *breaks += 1;
    pause
}

/// An outcome was brought, or never will be.
fn brought(
    tasks: &mut Tasks,
    key: &OrderKey,
    brought: Result<bool, LineFault>,
) -> Result<(), AgentFault> {
    tasks.brought(key);
    match brought {
        Ok(true) => {}
        Ok(false) => tracing::info!(key = %key, "nobody waits for the outcome now; it is kept"),
        Err(LineFault::Stale(why)) => return Err(AgentFault::Fenced(why)),
        Err(fault) => tracing::error!(key = %key, %fault, "an outcome was refused"),
    }
    Ok(())
}

/// Carries an order out on a task of its own: one that computes does not hold up the others, and one
/// that panics has failed.
async fn carry_out(driver: Arc<dyn HostDriver>, task: HostTask, meters: Meters) -> Through {
    let key = task.key.clone();
    // Ends with this future: an agent that was fenced off does nothing more.
    let mut alone = JoinSet::new();
    let work = async move { driver.carry_out(&task).await };
    alone.spawn(meters.of(key.clone(), work));
    let result = match alone.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(fault)) => Err(DriverFault::Unexpected(fault.to_string())),
        None => Err(DriverFault::Unexpected("nothing was carried out".to_owned())),
    };
    (key, result)
}
