//! Faults on demand, and the trace of what really happened.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use commands::ports::DriverFault;
use serde_json::Value;
use tokio::sync::watch;

/// One call of the cloud's own interface. Every one of them passes one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// Adds one rule to a security group.
    AddRule,
    /// Creates an empty security group with its tags.
    CreateSecurityGroup,
    /// Deletes a security group.
    DeleteSecurityGroup,
    /// Changes the description of one rule.
    DescribeRule,
    /// Gets one thing by its id.
    Find,
    /// Gets what carries a tag.
    FindByTag,
    /// Gets one page of a listing.
    List,
    /// Gets the names of the regions.
    ListRegions,
    /// Restarts a server.
    RebootServer,
    /// Removes one rule from a security group.
    RemoveRule,
    /// Removes one tag.
    RemoveTag,
    /// Changes name and description of a security group.
    RenameSecurityGroup,
    /// Sets one tag.
    SetTag,
    /// Starts a server.
    StartServer,
    /// Stops a server.
    StopServer,
    /// Says who the credential belongs to.
    Whoami,
}

impl Op {
    /// The cloud's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AddRule => "add-rule",
            Self::CreateSecurityGroup => "create-security-group",
            Self::DeleteSecurityGroup => "delete-security-group",
            Self::DescribeRule => "describe-rule",
            Self::Find => "find",
            Self::FindByTag => "find-by-tag",
            Self::List => "list",
            Self::ListRegions => "list-regions",
            Self::RebootServer => "reboot-server",
            Self::RemoveRule => "remove-rule",
            Self::RemoveTag => "remove-tag",
            Self::RenameSecurityGroup => "rename-security-group",
            Self::SetTag => "set-tag",
            Self::StartServer => "start-server",
            Self::StopServer => "stop-server",
            Self::Whoami => "whoami",
        }
    }

    /// Whether it changes anything.
    pub fn writes(self) -> bool {
        !matches!(
            self,
            Self::Find | Self::FindByTag | Self::List | Self::ListRegions | Self::Whoami
        )
    }
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done; its answer is lost.
    AnswerLost,
    /// A page of a listing has only its first half, and what it cost is an error.
    CutPage,
    /// A page of a listing has only its first half and says that it is the last: a cloud that lies.
    CutPageSilently,
    /// The credential may not do this.
    Denied,
    /// It waits, undone, until it is released ([`Injected::release`]); then it goes on.
    Hang,
    /// It is done, and its answer waits until it is released; then it comes.
    HangAfter,
    /// It takes this long, by the clock, and then goes on.
    Latency(Duration),
    /// The cloud says that it is not there, whatever is.
    NotFound,
    /// The cloud says no for good.
    Rejected(String),
    /// It is not done: too many calls.
    Throttled(Option<Duration>),
    /// It is not done: the connection broke.
    Transient,
    /// An answer that makes no sense; it is not done.
    Unexpected,
}

/// One call as it comes to the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub op: Op,
    /// The account's id.
    pub account: String,
    /// Where; none for what lies in no region.
    pub region: Option<String>,
    /// What kind of thing it is about; empty for none.
    pub kind: String,
    /// What it is about: an external id, a tag, a page token; empty for none.
    pub target: String,
    /// The order it is made for, as text; none for a look.
    pub order: Option<String>,
}

/// Which calls a fault is for. What is not said does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    op: Option<Op>,
    writes: bool,
    account: Option<String>,
    region: Option<String>,
    kind: Option<String>,
    target: Option<String>,
    skip: u64,
    times: Option<u64>,
}

impl Matching {
    /// The next call of any sort.
    pub fn any() -> Self {
        Self { times: Some(1), ..Self::default() }
    }
    /// The next call of this sort.
    pub fn op(op: Op) -> Self {
        Self { op: Some(op), ..Self::any() }
    }
    /// The next call that changes anything.
    pub fn write() -> Self {
        Self { writes: true, ..Self::any() }
    }
    /// Only of this account.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        self.account = Some(account.to_owned());
        self
    }
    /// Only in this region.
    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }
    /// Only about this kind.
    #[must_use]
    pub fn kind(mut self, kind: &str) -> Self {
        self.kind = Some(kind.to_owned());
        self
    }
    /// Only about this one: an external id, for instance.
    #[must_use]
    pub fn target(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }
    /// Not the next but the n-th that fits, from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }
    /// So many calls in a row.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }
    /// Every call, until it is taken back.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    fn fits(&self, seen: &Seen) -> bool {
        self.op.is_none_or(|op| op == seen.op)
            && (!self.writes || seen.op.writes())
            && self.account.as_ref().is_none_or(|account| *account == seen.account)
            && self.region.as_ref().is_none_or(|region| Some(region) == seen.region.as_ref())
            && self.kind.as_ref().is_none_or(|kind| *kind == seen.kind)
            && self.target.as_ref().is_none_or(|target| *target == seen.target)
    }
}

#[derive(Debug)]
struct Queued {
    matching: Matching,
    fault: Fault,
    handle: Injected,
}

/// A fault that was queued.
#[derive(Clone, Debug)]
pub struct Injected {
    hits: Arc<AtomicU64>,
    /// True once hanging calls may go on.
    released: Arc<watch::Sender<bool>>,
    /// Counts hits, to be waited for.
    reached: Arc<watch::Sender<u64>>,
}

impl Injected {
    fn new() -> Self {
        Self {
            hits: Arc::default(),
            released: Arc::new(watch::Sender::new(false)),
            reached: Arc::new(watch::Sender::new(0)),
        }
    }
    /// How often it really struck.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }
    /// Lets hanging calls go on, and all later ones.
    pub fn release(&self) {
        self.released.send_replace(true);
    }
    /// Comes back once it has struck.
    pub async fn reached(&self) {
        self.reached_times(1).await;
    }
    /// Comes back once it has struck so often.
    pub async fn reached_times(&self, times: u64) {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.reached.subscribe().wait_for(|hits| *hits >= times).await;
    }
    /// Comes back once it was released.
    pub(crate) async fn released(&self) {
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }
    fn hit(&self) {
        let hits = self.hits.fetch_add(1, Ordering::SeqCst) + 1;
        self.reached.send_replace(hits);
    }
}

/// The faults that wait for their call.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    queue: Arc<Mutex<Vec<Queued>>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// Queues a fault. A call is struck by the first one queued that fits, each call by one only.
    pub fn inject(&self, matching: Matching, fault: Fault) -> Injected {
        let handle = Injected::new();
        lock(&self.queue).push(Queued { matching, fault, handle: handle.clone() });
        handle
    }

    /// Takes back all faults, and lets hanging calls go on.
    pub fn clear(&self) {
        for queued in lock(&self.queue).drain(..) {
            queued.handle.release();
        }
    }

    /// The fault for a call, if any.
    pub(crate) fn strike(&self, seen: &Seen) -> Option<(Fault, Injected)> {
        let mut queue = lock(&self.queue);
        for queued in queue.iter_mut() {
            if queued.matching.times == Some(0) || !queued.matching.fits(seen) {
                continue;
            }
            if queued.matching.skip > 0 {
                queued.matching.skip -= 1;
                continue;
            }
            if let Some(times) = &mut queued.matching.times {
                *times -= 1;
            }
            queued.handle.hit();
            return Some((queued.fault.clone(), queued.handle.clone()));
        }
        None
    }
}

/// What a call came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Done, and answered.
    Done,
    /// Done; the answer was lost.
    DoneUnanswered,
    /// Not done.
    Failed(DriverFault),
}

/// One call, and what it left behind.
#[derive(Clone, Debug)]
pub struct Traced {
    /// From 1.
    pub number: u64,
    /// The call.
    pub seen: Seen,
    /// Who made it: the account's own principal, or somebody at the console.
    pub by: String,
    /// What it came to.
    pub outcome: Outcome,
    /// For calls that change something and did: the thing after it, none when it is gone.
    pub after: Option<Value>,
}

/// The last calls.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    made: u64,
    calls: VecDeque<Traced>,
}

impl Trace {
    /// Enough for any test; a server that runs for days forgets the oldest.
    const CALLS_MAX: usize = 10_000;

    pub(crate) fn add(&mut self, seen: Seen, by: &str, outcome: Outcome, after: Option<Value>) {
        self.made += 1;
        if self.calls.len() == Self::CALLS_MAX {
            self.calls.pop_front();
        }
        self.calls.push_back(Traced { number: self.made, seen, by: by.to_owned(), outcome, after });
    }
    pub(crate) fn made(&self) -> u64 {
        self.made
    }
    pub(crate) fn calls(&self) -> Vec<Traced> {
        self.calls.iter().cloned().collect()
    }
    pub(crate) fn clear(&mut self) {
        self.calls.clear();
    }
}
