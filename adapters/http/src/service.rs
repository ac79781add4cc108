//! What all requests share.

use std::{fmt::Debug, sync::Arc};

use ::commands::ledger::Ledger;
use domain::{kernel::Principal, log::Sign};
use tokio::sync::{Semaphore, watch};

use crate::{metrics::Metrics, problem::Problem, tokens::Tokens};

/// Requests worked on at once. Enough that group commit has what to group; few enough that memory
/// (1 MiB of body each) stays bounded. What comes beyond it gets a 503 at once.
const IN_FLIGHT_MAX: usize = 1024;
/// Requests that wait for an order (`Prefer: wait`). Beyond it a command is answered without
/// waiting.
const WAITING_MAX: usize = 4096;
/// Agents that wait for tasks: one question of each host.
const AGENTS_MAX: usize = 16_384;
/// Open consoles: each keeps some hundred KiB on its way.
const CONSOLES_MAX: usize = 512;
/// Questions for places that are worked on at once: each has a processor for itself.
const PLACEMENTS_MAX: usize = 2;
/// Files of images that come at once: each has some 32 MiB of its file in memory.
const UPLOADS_MAX: usize = 4;
/// Open event feeds.
const WATCHERS_MAX: usize = 512;

/// A part of the server that must work for it to be ready: its name, and why it does not.
pub type Check = (&'static str, Box<dyn Fn() -> Result<(), String> + Send + Sync>);
/// Appends lines in Prometheus' text format.
pub type MoreMetrics = Box<dyn Fn(&mut String) + Send + Sync>;

/// What may be left out.
#[derive(Default)]
pub struct Options {
    /// Makes a request's span a child of the caller's, whose `traceparent` reads.
    pub adopt_span: Option<fn(&tracing::Span, &str)>,
    /// Signs tree heads; without it `/v1/audit/head` has no note.
    pub signer: Option<Arc<dyn Sign>>,
    /// Further conditions of `/readyz`, for instance a projector that stopped.
    pub checks: Vec<Check>,
    /// Further lines of `/metrics`.
    pub more_metrics: Vec<MoreMetrics>,
    /// The build, for `/metrics` and `/`: a version, a commit.
    pub build: String,
}

impl Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("build", &self.build).finish_non_exhaustive()
    }
}

/// The HTTP interface of one ledger.
pub struct Service {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) options: Options,
    pub(crate) tokens: Tokens,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) waiting: Arc<Semaphore>,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) agents: Arc<Semaphore>,
    pub(crate) consoles: Arc<Semaphore>,
    pub(crate) placements: Arc<Semaphore>,
    pub(crate) uploads: Arc<Semaphore>,
    closing: watch::Sender<bool>,
}

impl Service {
    /// Puts it together.
    pub fn new(ledger: Arc<Ledger>, options: Options) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            options,
            tokens: Tokens::default(),
            metrics: Metrics::new(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            watchers: Arc::new(Semaphore::new(WATCHERS_MAX)),
            agents: Arc::new(Semaphore::new(AGENTS_MAX)),
            consoles: Arc::new(Semaphore::new(CONSOLES_MAX)),
            placements: Arc::new(Semaphore::new(PLACEMENTS_MAX)),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            closing: watch::Sender::new(false),
        })
    }

    /// Follows what other processes do to tokens, for ever. [`crate::serve`] does it; a router that
    /// is served another way needs it beside it.
    pub async fn follow_tokens(&self) {
        self.tokens.follow(self.ledger.ports.log.as_ref()).await;
    }

    /// Ends event feeds and waits, so that a server can stop.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Comes back when the server is to stop.
    pub(crate) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as `self`.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Comes back when no console is open any more; none can be opened afterwards.
    pub(crate) async fn no_console(&self) {
        if let Ok(all) = self.consoles.acquire_many(CONSOLES_MAX as u32).await {
            all.forget();
        }
    }

    /// Who asks with this secret.
    pub(crate) async fn principal(&self, secret: &str) -> Result<Option<Principal>, Problem> {
        let now = self.ledger.now();
        Ok(self.tokens.principal(secret, now, self.ledger.ports.log.as_ref()).await?)
    }
}

impl Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}
