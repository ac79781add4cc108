//! The cloud itself: its settings, and the one gate that every call passes.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use commands::ports::{Clock, DriverFault, Pace};

use crate::{
    console::Console,
    fault::{Fault, Faults, Op, Outcome, Seen, Trace, Traced},
    file::{self, Shared},
    population::Population,
    world::{Account, World},
};

/// How many calls an account may make: a bucket that fills steadily.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls a second in the long run, from 1.
    pub per_second: u32,
    /// Calls at once after a rest, from 1.
    pub burst: u32,
}

/// A bucket's level, in millionths of a call.
type Bucket = (i64, DateTime<Utc>);

#[derive(Debug)]
struct Settings {
    page_size: usize,
    rate: Option<Rate>,
    buckets: BTreeMap<String, Bucket>,
}

#[derive(Debug, Default)]
struct Held {
    world: World,
    file: Option<Shared>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
    faults: Faults,
    trace: Mutex<Trace>,
    settings: Mutex<Settings>,
}

/// A cloud in memory. Clones are the same cloud.
#[derive(Clone)]
pub struct SimCloud {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for SimCloud {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimCloud").field("trace", &self.inner.trace).finish_non_exhaustive()
    }
}

/// Who a call is made as, and for which order.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) secret: String,
    pub(crate) order: Option<String>,
    pub(crate) pace: Arc<dyn Pace>,
}

/// As it stands in traces and in [`commands::ports::Sighting::actor`].
pub(crate) const PRINCIPAL: &str = "user/skyledger";

/// Whether a page of a listing is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    No,
    Silently,
    WithFault,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(error: &io::Error) -> DriverFault {
    DriverFault::Unexpected(format!("the file of the sim cloud: {error}"))
}

impl SimCloud {
    /// Items on a page unless it is set: as many as the larger clouds give.
    pub const PAGE_SIZE: usize = 1_000;

    /// A cloud without accounts.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::holding(clock, Held::default())
    }

    fn holding(clock: Arc<dyn Clock>, held: Held) -> Self {
        let settings =
            Settings { page_size: Self::PAGE_SIZE, rate: None, buckets: BTreeMap::new() };
        Self {
            inner: Arc::new(Inner {
                clock,
                held: Mutex::new(held),
                faults: Faults::default(),
                trace: Mutex::default(),
                settings: Mutex::new(settings),
            }),
        }
    }

    /// A cloud that lives on a file: every change is on it before it is answered, a process that
    /// is killed finds the same cloud again, and several processes may use it at once.
    ///
    /// # Errors
    /// When the file, or its lock beside it, cannot be read or written.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let held = Held { world: World::default(), file: Some(Shared::at(path)?) };
        let cloud = Self::holding(clock, held);
        cloud.turn(|_| ((), false))?;
        Ok(cloud)
    }

    /// Writes it all to a file, once.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        file::save(path, &lock(&self.inner.held).world)
    }

    /// A cloud in memory with what [`Self::save`] wrote.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(path: &Path, clock: Arc<dyn Clock>) -> io::Result<Self> {
        Ok(Self::holding(clock, Held { world: file::load(path)?, file: None }))
    }

    /// Opens an account with this secret and population; one that is there already stays as it is.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn populate(&self, account: &str, secret: &str, population: Population) -> io::Result<()> {
        self.turn(|world| {
            let there = world.accounts.contains_key(account);
            if !there {
                world.accounts.insert(account.to_owned(), Account::new(secret, population));
            }
            ((), !there)
        })
    }

    /// Someone who works in the account behind Skyledger's back, by this name.
    pub fn console(&self, account: &str, actor: &str) -> Console {
        Console::new(self.clone(), account, actor)
    }

    /// Where faults are queued.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// The last calls, oldest first; the console's too.
    pub fn trace(&self) -> Vec<Traced> {
        lock(&self.inner.trace).calls()
    }

    /// Forgets the trace; numbers go on.
    pub fn clear_trace(&self) {
        lock(&self.inner.trace).clear();
    }

    /// How many calls were ever made.
    pub fn calls_made(&self) -> u64 {
        lock(&self.inner.trace).made()
    }

    /// Items on a page, from 1.
    pub fn set_page_size(&self, items: usize) {
        lock(&self.inner.settings).page_size = items.max(1);
    }

    pub(crate) fn page_size(&self) -> usize {
        lock(&self.inner.settings).page_size
    }

    /// Limits the calls of each account, or no longer.
    pub fn set_rate(&self, rate: Option<Rate>) {
        let mut settings = lock(&self.inner.settings);
        settings.rate = rate;
        settings.buckets.clear();
    }

    /// How long every call takes; kept on the file, so that another process can set it.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set_latency(&self, latency: Duration) -> io::Result<()> {
        self.turn(|world| {
            world.latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
            ((), true)
        })
    }

    /// How long a server is on its way to running or to stopped; kept on the file.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set_boot_time(&self, boot: Duration) -> io::Result<()> {
        self.turn(|world| {
            world.boot_ms = u64::try_from(boot.as_millis()).unwrap_or(u64::MAX);
            ((), true)
        })
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.inner.clock.now()
    }

    fn turn<T>(&self, work: impl FnOnce(&mut World) -> (T, bool)) -> io::Result<T> {
        let held = &mut *lock(&self.inner.held);
        match &mut held.file {
            None => Ok(work(&mut held.world).0),
            Some(file) => file.turn(&mut held.world, work),
        }
    }

    /// Does one call's work on the world, and writes it into the trace.
    pub(crate) fn work<T>(
        &self,
        by: &str,
        mut seen: Seen,
        answered: bool,
        work: impl FnOnce(&mut World, &mut Seen, DateTime<Utc>) -> Result<T, DriverFault>,
    ) -> Result<T, DriverFault> {
        let now = self.now();
        self.turn(|world| {
            let result = work(world, &mut seen, now);
            let changed = result.is_ok() && seen.op.writes();
            let region = seen.region.as_deref().filter(|_| changed);
            let after = region.and_then(|region| {
                let estate = world.estate(&seen.account, region).ok()?;
                Some(estate.get(&seen.kind, &seen.target)?.body.value())
            });
            let outcome = match &result {
                Ok(_) if answered => Outcome::Done,
                Ok(_) => Outcome::DoneUnanswered,
                Err(fault) => Outcome::Failed(fault.clone()),
            };
            lock(&self.inner.trace).add(seen, by, outcome, after);
            (result, changed)
        })
        .unwrap_or_else(|error| Err(broken(&error)))
    }

    /// One call, at the account's pace.
    pub(crate) async fn call<T>(
        &self,
        caller: &Caller,
        seen: Seen,
        work: impl FnOnce(&mut World, &mut Seen, DateTime<Utc>) -> Result<T, DriverFault>,
    ) -> Result<(T, Cut), DriverFault> {
        caller.pace.ticket().await;
        let done = self.gate(caller, seen, work).await;
        caller.pace.learn(done.as_ref().err());
        done
    }

    /// The gate: one call, with its latency, its faults and its limits.
    async fn gate<T>(
        &self,
        caller: &Caller,
        seen: Seen,
        work: impl FnOnce(&mut World, &mut Seen, DateTime<Utc>) -> Result<T, DriverFault>,
    ) -> Result<(T, Cut), DriverFault> {
        let latency =
            self.turn(|world| (world.latency_ms, false)).map_err(|error| broken(&error))?;
        if latency > 0 {
            self.inner.clock.sleep(Duration::from_millis(latency)).await;
        }
        let struck = self.inner.faults.strike(&seen);
        let fail = |fault: DriverFault| {
            let outcome = Outcome::Failed(fault.clone());
            lock(&self.inner.trace).add(seen.clone(), PRINCIPAL, outcome, None);
            fault
        };
        match &struck {
            Some((Fault::Denied, _)) => {
                return Err(fail(DriverFault::Denied(format!(
                    "no {} for {PRINCIPAL}",
                    seen.op.name()
                ))));
            }
            Some((Fault::Hang, handle)) => handle.released().await,
            Some((Fault::Latency(latency), _)) => self.inner.clock.sleep(*latency).await,
            Some((Fault::NotFound, _)) => {
                return Err(fail(DriverFault::NotFound(format!("{} {}", seen.kind, seen.target))));
            }
            Some((Fault::Rejected(why), _)) => {
                return Err(fail(DriverFault::Rejected(why.clone())));
            }
            Some((Fault::Throttled(retry_after), _)) => {
                return Err(fail(DriverFault::Throttled { retry_after: *retry_after }));
            }
            Some((Fault::Transient, _)) => {
                return Err(fail(DriverFault::Transient("the connection broke".into())));
            }
            Some((Fault::Unexpected, _)) => {
                return Err(fail(DriverFault::Unexpected("the answer does not read".into())));
            }
            Some((
                Fault::AnswerLost | Fault::CutPage | Fault::CutPageSilently | Fault::HangAfter,
                _,
            ))
            | None => {}
        }
        self.spend(&seen.account).map_err(&fail)?;
        let lost = matches!(struck, Some((Fault::AnswerLost, _)));
        let result = self.work(PRINCIPAL, seen, !lost, |world, seen, now| {
            let denied = || DriverFault::Denied("the cloud does not know this credential".into());
            let account = world.account(&caller.account).map_err(|_| denied())?;
            if account.secret != caller.secret {
                return Err(denied());
            }
            work(world, seen, now)
        })?;
        match struck {
            Some((Fault::AnswerLost, _)) => {
                Err(DriverFault::Transient("the connection broke before the answer came".into()))
            }
            Some((Fault::CutPage, _)) => Ok((result, Cut::WithFault)),
            Some((Fault::CutPageSilently, _)) => Ok((result, Cut::Silently)),
            Some((Fault::HangAfter, handle)) => {
                handle.released().await;
                Ok((result, Cut::No))
            }
            _ => Ok((result, Cut::No)),
        }
    }

    /// A call that changes something or gets one thing.
    pub(crate) async fn act<T>(
        &self,
        caller: &Caller,
        seen: Seen,
        work: impl FnOnce(&mut World, &mut Seen, DateTime<Utc>) -> Result<T, DriverFault>,
    ) -> Result<T, DriverFault> {
        self.call(caller, seen, work).await.map(|(result, _)| result)
    }

    /// Takes one call out of the account's bucket.
    fn spend(&self, account: &str) -> Result<(), DriverFault> {
        const CALL: i64 = 1_000_000;
        let now = self.now();
        let settings = &mut *lock(&self.inner.settings);
        let Some(rate) = settings.rate else { return Ok(()) };
        let (per_second, full) =
            (i64::from(rate.per_second.max(1)), i64::from(rate.burst.max(1)) * CALL);
        let (level, since) = settings.buckets.entry(account.to_owned()).or_insert((full, now));
        let passed = (now - *since).num_microseconds().unwrap_or(i64::MAX).max(0);
        *level = passed.saturating_mul(per_second).saturating_add(*level).min(full);
        *since = now;
        if *level < CALL {
            let micros = (CALL - *level + per_second - 1) / per_second;
            let retry_after = Some(Duration::from_micros(micros as u64));
            return Err(DriverFault::Throttled { retry_after });
        }
        *level -= CALL;
        Ok(())
    }
}

impl Caller {
    /// A call that this caller makes.
    pub(crate) fn seen(&self, op: Op, region: Option<&str>, kind: &str, target: &str) -> Seen {
        Seen {
            op,
            account: self.account.clone(),
            region: region.map(str::to_owned),
            kind: kind.to_owned(),
            target: target.to_owned(),
            order: self.order.clone(),
        }
    }
}
