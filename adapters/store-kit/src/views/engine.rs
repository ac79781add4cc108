//! The engine's life: one task per view.
//!
//! ```text
//!            lead                 settle                    follow
//! waiting ──────────► leading ──────────────► up to date ◄─────────┐
//!    ▲                   │  no table: build       │   └────────────┘
//!    └───────────────────┴────── lost, fault ─────┴──► stopped (cannot fold): until a rebuild
//! ```
//!
//! A process first has to lead: one process of a store projects, the others serve. Then a view
//! gets a table of the code's version: the one there is, or a new one, empty while the log is
//! short and built beside the old one when it is long. Then it follows the log. A view that cannot
//! fold a record stays at the record before, says so, and the others go on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use commands::ports::{EventLog, LogFault, ViewFault};
use domain::log::Position;
use projections::view::{Lens, View};
use serde::Serialize;
use tokio::{
    sync::{Mutex, Notify, watch},
    task::JoinSet,
};

use super::{
    build::{ROWS_KEPT, build},
    feed::Feed,
    project::{Projection, Stop},
    store::{Registered, ViewStore},
    table::Table,
};

/// Up to this many records a new view is filled while it is already read; a longer log is folded
/// into a table without indexes first.
const SHORT_LOG: Position = 5_000;
/// A batch of fewer records than this is followed by a rest.
const SMALL_BATCH: u64 = 512;
/// The longest rest: what a reader of its own write may wait on top.
const REST_MAX: Duration = Duration::from_millis(50);
/// Between two tries of a store or log that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a rebuild waits for its process to project: two tries of a process to lead.
const LEAD: Duration = Duration::from_secs(3);

/// How a view is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ViewStatus {
    /// Its name.
    pub view: String,
    /// The version that readers get; none while its first table is built.
    pub version: Option<u32>,
    /// How far it has folded the log.
    pub position: Position,
    /// Records of the log it has not folded.
    pub lag: u64,
    /// Whether this process projects it; else it is served as another process projects it.
    pub projected_here: bool,
    /// How far a new table is that is being built beside it.
    pub building: Option<Position>,
    /// Why it does not go on.
    pub fault: Option<String>,
}

pub(crate) struct Entry {
    pub(crate) view: &'static dyn View,
    /// Held while a batch is folded, and while tables are switched.
    projection: Mutex<Option<Projection>>,
    /// Held while a table is built.
    building: Mutex<()>,
    /// A stopped view may go on.
    mended: Notify,
}

pub(crate) struct Inner<S> {
    pub(crate) store: Arc<S>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) entries: BTreeMap<&'static str, Entry>,
    pub(crate) lenses: &'static [Lens],
    pub(crate) statuses: watch::Sender<BTreeMap<&'static str, ViewStatus>>,
    leading: AtomicBool,
}

/// All the views of one store.
pub struct Engine<S> {
    pub(crate) inner: Arc<Inner<S>>,
}

impl<S> Clone for Engine<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// The engine's tasks. They end when this is dropped.
pub struct Running {
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends the tasks and waits for them. What was folded but not written is folded again at the
    /// next start.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl<S: ViewStore> Engine<S> {
    /// Begins to project and to serve. Comes back at once; [`commands::ports::Views::reach_position`]
    /// tells when the views are there.
    pub fn start(
        store: Arc<S>,
        log: Arc<dyn EventLog>,
        views: &'static [&'static dyn View],
        lenses: &'static [Lens],
    ) -> Result<(Self, Running), LogFault> {
        let mut entries = BTreeMap::new();
        let mut statuses = BTreeMap::new();
        for &view in views {
            Table::of(view, 0).check_names()?;
            statuses.insert(
                view.name(),
                ViewStatus { view: view.name().into(), ..ViewStatus::default() },
            );
            let entry = Entry {
                view,
                projection: Mutex::default(),
                building: Mutex::default(),
                mended: Notify::new(),
            };
            entries.insert(view.name(), entry);
        }
        let inner = Arc::new(Inner {
            store,
            feed: Arc::new(Feed::new(log)),
            entries,
            lenses,
            statuses: watch::Sender::new(statuses),
            leading: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for &view in views {
            let inner = Arc::clone(&inner);
            tasks.spawn(async move { inner.keep_up(view.name()).await });
        }
        tasks.spawn({
            let inner = Arc::clone(&inner);
            async move { inner.watch_others().await }
        });
        tasks.spawn({
            let inner = Arc::clone(&inner);
            async move { inner.tidy().await }
        });
        Ok((Self { inner }, Running { tasks }))
    }

    /// Asks whether every view goes on, at any time: which one does not, and why.
    pub fn check(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let inner = Arc::clone(&self.inner);
        move || {
            let statuses = inner.statuses.borrow();
            match statuses.values().find_map(|status| Some((status, status.fault.as_ref()?))) {
                Some((status, fault)) => Err(format!("view {}: {fault}", status.view)),
                None => Ok(()),
            }
        }
    }

    /// How every view is, by name.
    pub async fn status(&self) -> Result<Vec<ViewStatus>, LogFault> {
        let head = self.inner.feed.log().head().await?.position;
        let statuses = self.inner.statuses.borrow().clone();
        Ok(statuses
            .into_values()
            .map(|status| ViewStatus { lag: head.saturating_sub(status.position), ..status })
            .collect())
    }
}

impl<S: ViewStore> Inner<S> {
    pub(crate) fn entry(&self, view: &str) -> Result<&Entry, ViewFault> {
        self.entries.get(view).ok_or_else(|| {
            let names: Vec<&str> =
                self.entries.keys().copied().chain(self.lenses.iter().map(|l| l.name)).collect();
            ViewFault::Query(format!("there is no view {view:?}; there are {}", names.join(", ")))
        })
    }

    fn tell(&self, view: &'static str, change: impl FnOnce(&mut ViewStatus)) {
        self.statuses.send_modify(|statuses| {
            if let Some(status) = statuses.get_mut(view) {
                change(status);
            }
        });
    }

    fn tell_place(&self, view: &'static str, table: &Table, position: Position) {
        self.tell(view, |status| {
            status.version = Some(table.version);
            status.position = position;
        });
    }

    /// The life of one view.
    async fn keep_up(&self, view: &'static str) {
        let Some(entry) = self.entries.get(view) else { return };
        loop {
            self.store.lead().await;
            self.leading.store(true, Ordering::Release);
            let stop = match self.settle(entry).await {
                Ok(()) => {
                    self.tell(view, |status| status.projected_here = true);
                    self.follow(entry).await
                }
                Err(stop) => stop,
            };
            self.tell(view, |status| status.projected_here = false);
            match stop {
                Stop::Fold(fault) => {
                    tracing::error!(view, position = fault.position, %fault, "view {view} stopped");
                    self.tell(view, |status| status.fault = Some(fault.to_string()));
                    entry.mended.notified().await;
                    self.tell(view, |status| status.fault = None);
                }
                Stop::Lost => {
                    self.leading.store(false, Ordering::Release);
                    *entry.projection.lock().await = None;
                    tracing::info!(view, "another process moved view {view} on");
                    tokio::time::sleep(PAUSE).await;
                }
                Stop::Store(fault) => {
                    *entry.projection.lock().await = None;
                    tracing::warn!(view, %fault, "view {view} waits for its store");
                    self.tell(view, |status| status.fault = Some(fault.to_string()));
                    tokio::time::sleep(PAUSE).await;
                    self.tell(view, |status| status.fault = None);
                }
            }
        }
    }

    /// Gives a view a live table of the code's version.
    async fn settle(&self, entry: &Entry) -> Result<(), Stop> {
        let _building = entry.building.lock().await;
        let view = entry.view;
        let mut tables = self.tables_of(view.name()).await?;
        tables.sort_by_key(|registered| registered.table.generation);
        let next = tables.last().map_or(1, |newest| newest.table.generation + 1);
        let mut served: Option<Registered> = None;
        for registered in tables.into_iter().rev() {
            if registered.live && served.is_none() && self.is_of_this_log(&registered).await? {
                served = Some(registered);
            } else {
                tracing::info!(table = registered.table.name(), "a table nobody reads is dropped");
                self.store.remove(&registered.table).await?;
            }
        }
        let wanted = Table::of(view, next);
        if let Some(served) = &served {
            self.tell_place(view.name(), &served.table, served.checkpoint.position);
            if (Table { generation: served.table.generation, ..wanted.clone() }) == served.table {
                *entry.projection.lock().await =
                    Some(Projection::new(view, served.table.clone(), served.checkpoint));
                return Ok(());
            }
        }
        let head = self.feed.log().head().await?.position;
        if served.is_none() && head <= SHORT_LOG {
            self.store.create(&wanted, true).await?;
            self.store.switch(&wanted).await?;
            self.tell_place(view.name(), &wanted, 0);
            *entry.projection.lock().await =
                Some(Projection::new(view, wanted, super::store::Checkpoint::default()));
            return Ok(());
        }
        self.build_and_switch(entry, wanted, served.map(|served| served.table), &|_| {}).await
    }

    /// Whether the log still has the record a table was last told of.
    async fn is_of_this_log(&self, registered: &Registered) -> Result<bool, LogFault> {
        let checkpoint = registered.checkpoint;
        if checkpoint.position == 0 {
            return Ok(true);
        }
        let records = self.feed.log().read(checkpoint.position - 1, 1).await?;
        Ok(records.first().is_some_and(|record| record.leaf() == checkpoint.leaf))
    }

    pub(crate) async fn tables_of(&self, view: &str) -> Result<Vec<Registered>, LogFault> {
        let mut tables = self.store.tables().await?;
        tables.retain(|registered| registered.table.view == view);
        Ok(tables)
    }

    /// Builds a table beside the live one and switches. The caller holds `entry.building`.
    async fn build_and_switch(
        &self,
        entry: &Entry,
        table: Table,
        old: Option<Table>,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<(), Stop> {
        let name = entry.view.name();
        let tell = |position| {
            self.tell(name, |status| status.building = Some(position));
            progress(position);
        };
        tell(0);
        let built = self.built(entry, table, &tell).await;
        self.tell(name, |status| status.building = None);
        built?;
        if let Some(old) = old {
            self.store.remove(&old).await?;
        }
        Ok(())
    }

    async fn built(
        &self,
        entry: &Entry,
        table: Table,
        tell: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<(), Stop> {
        let checkpoint =
            build(&self.store, &self.feed, entry.view, &table, ROWS_KEPT, tell).await?;
        let mut fresh = Projection::new(entry.view, table, checkpoint);
        let result = self.hand_over(entry, &mut fresh, tell).await;
        match result {
            Ok(()) => Ok(()),
            Err(stop) => {
                if let Err(error) = self.store.remove(&fresh.table).await {
                    tracing::warn!(%error, "a table that was being built stays");
                }
                Err(stop)
            }
        }
    }

    async fn hand_over(
        &self,
        entry: &Entry,
        fresh: &mut Projection,
        tell: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<(), Stop> {
        // Most of what was appended meanwhile, while the live table still moves on.
        while self.step(fresh).await? {
            tell(fresh.checkpoint.position);
        }
        let mut projection = entry.projection.lock().await;
        let reached = projection.as_ref().map_or(0, |live| live.checkpoint.position);
        while fresh.checkpoint.position < reached && self.step(fresh).await? {}
        self.store.switch(&fresh.table).await?;
        self.tell_place(entry.view.name(), &fresh.table, fresh.checkpoint.position);
        tell(fresh.checkpoint.position);
        *projection = Some(Projection::new(entry.view, fresh.table.clone(), fresh.checkpoint));
        Ok(())
    }

    /// Folds the next batch; false when there is none.
    async fn step(&self, projection: &mut Projection) -> Result<bool, Stop> {
        let records = self.feed.read(projection.checkpoint.position).await?;
        if records.is_empty() {
            return Ok(false);
        }
        projection.advance(&*self.store, records).await?;
        Ok(true)
    }

    /// Follows the log until something stops it.
    async fn follow(&self, entry: &Entry) -> Stop {
        loop {
            let begun = Instant::now();
            let (before, position) = {
                let mut projection = entry.projection.lock().await;
                let Some(projection) = projection.as_mut() else { return Stop::Lost };
                let before = projection.checkpoint.position;
                if let Err(stop) = self.step(projection).await {
                    return stop;
                }
                let position = projection.checkpoint.position;
                if position > before {
                    self.tell_place(entry.view.name(), &projection.table, position);
                }
                (before, position)
            };
            if position == before {
                self.feed.log().appended(position).await;
            } else if position - before < SMALL_BATCH {
                // As long again as it took: a commit costs pages more than rows, so under a steady
                // load fewer and larger batches cost a fraction. Alone, a change waits for nothing.
                tokio::time::sleep(begun.elapsed().min(REST_MAX)).await;
            }
        }
    }

    /// Learns how far the process that leads has come.
    async fn watch_others(&self) {
        loop {
            if !self.leading.load(Ordering::Acquire) {
                match self.store.tables().await {
                    Ok(tables) => self.tell_others(&tables).await,
                    Err(fault) => tracing::warn!(%fault, "the views' tables cannot be listed"),
                }
            }
            self.store.changed().await;
        }
    }

    async fn tell_others(&self, tables: &[Registered]) {
        let mut newest: BTreeMap<&'static str, &Registered> = BTreeMap::new();
        for registered in tables.iter().filter(|registered| registered.live) {
            if let Some((&view, _)) = self.entries.get_key_value(registered.table.view.as_str()) {
                let known = newest.entry(view).or_insert(registered);
                if registered.table.generation > known.table.generation {
                    *known = registered;
                }
            }
        }
        for (view, registered) in newest {
            // A table of another log is not served: the process that leads makes it again.
            if !self.is_of_this_log(registered).await.unwrap_or(false)
                || self.leading.load(Ordering::Acquire)
            {
                continue;
            }
            self.tell_place(view, &registered.table, registered.checkpoint.position);
        }
    }

    /// Drops tables of views that this program does not have any more.
    async fn tidy(&self) {
        self.store.lead().await;
        let tidied = async {
            for registered in self.store.tables().await? {
                if !self.entries.contains_key(registered.table.view.as_str()) {
                    tracing::info!(
                        table = registered.table.name(),
                        "a table without view is dropped"
                    );
                    self.store.remove(&registered.table).await?;
                }
            }
            Ok::<(), LogFault>(())
        };
        if let Err(fault) = tidied.await {
            tracing::warn!(%fault, "tables without view stay until the next start");
        }
    }

    /// Whether this process projects, or does so soon: one that has just started has not led yet,
    /// and one before it may have ended a moment ago.
    async fn comes_to_lead(&self) -> bool {
        let leads = || self.leading.load(Ordering::Acquire);
        let mut statuses = self.statuses.subscribe();
        drop(tokio::time::timeout(LEAD, statuses.wait_for(|_| leads())).await);
        leads()
    }

    /// See [`commands::ports::Views::rebuild`].
    pub(crate) async fn rebuild(
        &self,
        view: &str,
        progress: &(dyn Fn(Position) + Send + Sync),
    ) -> Result<(), ViewFault> {
        let entry = self.entry(view)?;
        if !self.comes_to_lead().await {
            return Err(LogFault::Unavailable(
                "another server process projects the views; rebuild there, or stop it".to_owned(),
            )
            .into());
        }
        let _building = entry.building.lock().await;
        let tables = self.tables_of(entry.view.name()).await?;
        let next = tables.iter().map(|registered| registered.table.generation).max().unwrap_or(0);
        let old = tables.into_iter().find(|registered| registered.live).map(|live| live.table);
        let wanted = Table::of(entry.view, next + 1);
        match self.build_and_switch(entry, wanted, old, progress).await {
            Ok(()) => {
                entry.mended.notify_one();
                Ok(())
            }
            Err(Stop::Fold(fault)) => Err(LogFault::Unexpected(fault.to_string()).into()),
            Err(Stop::Store(fault)) => Err(fault.into()),
            Err(Stop::Lost) => Err(LogFault::Unavailable(Stop::Lost.to_string()).into()),
        }
    }
}
