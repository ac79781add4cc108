//! The one observer: what a provider lists becomes commands, and an event only where something
//! differs.
//!
//! What it may conclude, and what not:
//!
//! - A thing on a page is there, whatever happened to the other pages.
//! - A thing that is missing from a *complete* listing (every page, one attempt) is asked for by
//!   its id, and only when the provider says that it is not there has it vanished.
//! - When more is missing than [`GUARD_COUNT`] things and one in [`GUARD_SHARE`] of the scope, a
//!   person is asked first: the run says how many it withheld.
//! - A scope that could not be listed to its end is incomplete, and nothing in it vanishes.
//! - What happened to a resource since the look began is newer than the look: the page may be from
//!   before it. So every report names the revision that the look began with, and one that comes
//!   too late says nothing; the next look tells.
//! - A thing that was made for a resource which has no counterpart now is that resource's to link,
//!   half made or not, and is nobody else's discovery.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use domain::{
    kernel::{Kind, codes},
    kinds,
    log::Position,
    observation::{Evidence, Origin},
    tenancy::cloud_account::{CloudAccount, Scope},
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use serde_json::{Value, json};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    ledger::{Ledger, LoadFault},
    ports::{
        Access, Cell, DriverFault, Filter, Listing, Op, Provider, Query, Sighting, Support,
        ViewFault,
    },
    submit::{Submission, SubmitFault},
};

/// Missing things up to this many need no approval.
pub const GUARD_COUNT: u64 = 10;
/// Missing things up to one in this many of a scope need no approval.
pub const GUARD_SHARE: u64 = 5;
/// Tries of one page before its scope is incomplete.
const PAGE_TRIES: u32 = 4;
/// Commands in flight at once; they share commits.
const COMMANDS_AT_ONCE: usize = 64;
/// How long the inventory may take to catch up before a look begins.
const PATIENCE: Duration = Duration::from_mins(1);

/// What an observer looks at.
pub struct Look<'a> {
    /// The account.
    pub account: &'a CloudAccount,
    /// Its provider.
    pub provider: &'a Arc<dyn Provider>,
    /// How to call it.
    pub access: &'a Access,
    /// The run's number.
    pub run: u64,
    /// Provider's ids of regions; all when it is empty.
    pub regions: &'a [String],
    /// Kinds; all when it is empty.
    pub kinds: &'a [String],
    /// Whether a person has agreed to deletions beyond the guard.
    pub approve_deletions: bool,
    /// The chain that the run belongs to.
    pub correlation_id: Uuid,
}

/// What is known of a thing before a look.
struct Known {
    id: Uuid,
    /// What was seen last.
    seen: Value,
    gone: bool,
    /// How many events it had.
    revision: u64,
    /// Whether the next look matters even if nothing changed: a mute that ends.
    mute_ends: bool,
}

/// What is known of a scope before a look.
#[derive(Default)]
struct Before {
    /// By external id.
    things: HashMap<String, Known>,
    /// What never had a counterpart, and whether it has ended.
    without: HashMap<Uuid, bool>,
}

/// What one look at a scope counted.
#[derive(Default)]
struct Counts {
    discovered: u64,
    changed: u64,
    vanished: u64,
    withheld: u64,
}

enum Told {
    Nothing,
    Discovered,
    Changed,
}

impl Ledger {
    /// Looks at everything the account's provider lists, and reports scope by scope.
    pub async fn observe(&self, look: &Look<'_>) -> Result<Vec<Scope>, DriverFault> {
        let wanted = |row: &&Support| {
            row.listed && (look.kinds.is_empty() || look.kinds.iter().any(|kind| kind == row.kind))
        };
        let rows: Vec<&Support> = look.provider.table().iter().filter(wanted).collect();
        let mut regions = Vec::new();
        if rows.iter().any(|row| row.regional) {
            regions = self.patiently(look, || look.provider.regions(look.access)).await?;
            regions.retain(|region| look.regions.is_empty() || look.regions.contains(region));
            regions.sort();
        }
        let mut scopes = Vec::new();
        for row in rows {
            if row.regional {
                scopes.extend(regions.iter().map(|region| (row.kind, Some(region.clone()))));
            } else {
                scopes.push((row.kind, None));
            }
        }
        // Boxed one by one: a closure inside the stream would not be `Send` for every lifetime.
        let mut looks: Vec<BoxFuture<'_, Scope>> = Vec::with_capacity(scopes.len());
        for (kind, region) in scopes {
            let span = tracing::info_span!("look", kind, region);
            looks.push(self.observe_scope(look, kind, region).instrument(span).boxed());
        }
        let mut done: Vec<Scope> = stream::iter(looks)
            .buffer_unordered(look.provider.concurrency().max(1))
            .collect()
            .await;
        done.sort_by(|a, b| (&a.kind, &a.region).cmp(&(&b.kind, &b.region)));
        Ok(done)
    }

    async fn observe_scope(&self, look: &Look<'_>, kind: &str, region: Option<String>) -> Scope {
        let mut scope = Scope {
            kind: kind.to_owned(),
            region: region.clone(),
            complete: false,
            listed: 0,
            discovered: 0,
            changed: 0,
            vanished: 0,
            withheld: 0,
            fault: None,
        };
        let Some(kind) = kinds::by_name(kind) else {
            scope.fault = Some("this program does not know the kind".to_owned());
            return scope;
        };
        match self.try_scope(look, kind, region.as_deref(), &mut scope).await {
            Ok(counts) => {
                scope.discovered = counts.discovered;
                scope.changed = counts.changed;
                scope.vanished = counts.vanished;
                scope.withheld = counts.withheld;
            }
            Err(fault) => {
                scope.complete = false;
                scope.fault = Some(chain(&fault));
            }
        }
        scope
    }

    async fn try_scope(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        region: Option<&str>,
        scope: &mut Scope,
    ) -> Result<Counts, ObserveFault> {
        let before = self.before(look.access.account, kind, region).await?;
        let mut listed = HashSet::new();
        let mut counts = Counts::default();
        let mut page = None;
        loop {
            let fetched = self
                .patiently(look, || {
                    look.provider.list(look.access, region, kind.name, page.as_deref())
                })
                .await;
            let Listing { sightings, next } = match fetched {
                Ok(listing) => listing,
                // What came so far is there; what did not come is not missing.
                Err(fault) => {
                    scope.fault = Some(fault.to_string());
                    break;
                }
            };
            let fresh: Vec<Sighting> = sightings
                .into_iter()
                .filter(|sighting| listed.insert(sighting.external_id.clone()))
                .collect();
            scope.listed = listed.len() as u64;
            let mut telling: Vec<BoxFuture<'_, Result<Told, SubmitFault>>> = Vec::new();
            for sighting in fresh {
                telling.push(self.tell(look, kind, region, &before, sighting).boxed());
            }
            let told: Vec<Result<Told, SubmitFault>> =
                stream::iter(telling).buffer_unordered(COMMANDS_AT_ONCE).collect().await;
            for told in told {
                match told? {
                    Told::Nothing => {}
                    Told::Discovered => counts.discovered += 1,
                    Told::Changed => counts.changed += 1,
                }
            }
            match next {
                // A page token that leads to itself would never end.
                Some(next) if page.as_ref() == Some(&next) => {
                    scope.fault = Some("the provider's page token leads to itself".to_owned());
                    break;
                }
                Some(next) => page = Some(next),
                None => {
                    scope.complete = true;
                    break;
                }
            }
        }
        if scope.complete {
            self.conclude(look, kind, region, &before.things, &listed, &mut counts).await?;
        }
        Ok(counts)
    }

    /// Everything of this kind and region that the inventory knows, with what was seen last.
    async fn before(
        &self,
        account: Uuid,
        kind: &Kind,
        region: Option<&str>,
    ) -> Result<Before, ObserveFault> {
        let head = self.ports.log.head().await.map_err(LoadFault::from)?.position;
        self.ports.views.reach_position(head, PATIENCE).await?;
        let mut query = Query::all().with("kind", kind.name).with("account", account.to_string());
        query.limit = Query::LIMIT_MAX;
        if let Some(region) = region {
            query = query.with("region", region);
        }
        let mut before = Before::default();
        loop {
            let page = self.ports.views.list("inventory", &query).await?;
            for row in page.rows {
                let body = row.body;
                let external_id = body["external_id"].as_str().unwrap_or_default();
                let Some(id) = body["id"].as_str().and_then(|id| id.parse().ok()) else { continue };
                if external_id.is_empty() {
                    before.without.insert(id, body["gone"] == json!(true));
                    continue;
                }
                let state = &body["state"];
                let observed = state.get("observation").unwrap_or(state);
                let vanished = state["stage"]
                    .as_str()
                    .is_some_and(|stage| stage == "vanished" || stage == "retired");
                before.things.insert(
                    external_id.to_owned(),
                    Known {
                        id,
                        seen: observed["seen"].clone(),
                        gone: body["gone"] == json!(true) || vanished,
                        revision: body["revision"].as_u64().unwrap_or_default(),
                        mute_ends: !state["muted"]["until"].is_null(),
                    },
                );
            }
            match page.next {
                Some(next) => query.token = Some(next),
                None => return Ok(before),
            }
        }
    }

    /// Tells a resource what was seen of it, if it is news.
    async fn tell(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        region: Option<&str>,
        before: &Before,
        sighting: Sighting,
    ) -> Result<Told, SubmitFault> {
        if let Some(known) = before.things.get(&sighting.external_id) {
            return self.tell_known(look, kind, region, known, sighting).await;
        }
        let origin = place(look, region, &sighting);
        if let Some(ours) = sighting.ours
            && self.awaits(kind, ours, &origin, before).await?
        {
            return Ok(Told::Nothing);
        }
        match self.say(look, kind, self.ports.ids.new_id(), None, &origin, &sighting).await {
            Ok(_) => Ok(Told::Discovered),
            Err(SubmitFault::Refused(refusal)) if *refusal.code == codes::ALREADY_CLAIMED => {
                let claimed_by = self.claimed_by(&origin.claim(kind.name)).await?;
                let Some(id) = claimed_by else { return Err(refusal.into()) };
                let state = self.load(kind, &id.to_string()).await?.state;
                // Linked or discovered since the look began. Otherwise it is what somebody had
                // before what they have now, and there is nobody to tell.
                if state.facets().external_id.as_ref() == Some(&sighting.external_id) {
                    Ok(Told::Nothing)
                } else {
                    Err(refusal.into())
                }
            }
            Err(fault) => Err(fault),
        }
    }

    /// Whether this thing is, or will be, the counterpart of the resource it was made for: one that
    /// has none, or whose counterpart has vanished. An id that is not in this log is somebody
    /// else's ledger, or one from before a restore.
    async fn awaits(
        &self,
        kind: &'static Kind,
        ours: Uuid,
        origin: &Origin,
        before: &Before,
    ) -> Result<bool, LoadFault> {
        let loaded = self.load(kind, &ours.to_string()).await?;
        let facets = loaded.state.facets();
        if facets.account != Some(origin.account) || facets.region != origin.region {
            return Ok(false);
        }
        let Some(counterpart) = facets.external_id else {
            // What ended since the look began may still be on its pages.
            return Ok(before.without.get(&ours) != Some(&true));
        };
        let creates = loaded.state.order().is_some_and(|out| out.order["type"] == "create");
        let lost = !facets.gone && (creates || loaded.state.status() == "vanished");
        Ok(lost && counterpart != origin.external_id)
    }

    async fn tell_known(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        region: Option<&str>,
        known: &Known,
        sighting: Sighting,
    ) -> Result<Told, SubmitFault> {
        if known.seen == sighting.seen && !known.gone && !known.mute_ends {
            return Ok(Told::Nothing);
        }
        let origin = place(look, region, &sighting);
        let revision = Some(known.revision);
        let wrote = self.say(look, kind, known.id, revision, &origin, &sighting).await?;
        Ok(if wrote { Told::Changed } else { Told::Nothing })
    }

    /// Reports a sighting; whether it was news.
    async fn say(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        id: Uuid,
        revision: Option<u64>,
        origin: &Origin,
        sighting: &Sighting,
    ) -> Result<bool, SubmitFault> {
        let body = json!({
            "origin": origin,
            "project": look.account.project,
            "seen": sighting.seen,
            "actor": sighting.actor,
        });
        self.report(look, kind, id, revision, "observe", body).await
    }

    /// Sends a report on a resource as it was when the look began; whether it was news. One that
    /// was overtaken is none.
    async fn report(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        id: Uuid,
        revision: Option<u64>,
        verb: &str,
        body: Value,
    ) -> Result<bool, SubmitFault> {
        let mut submission = Submission::new(Self::system("observer"), kind, id, verb, body);
        submission.correlation_id = Some(look.correlation_id);
        submission.if_match = revision;
        match self.submit(submission).await {
            Ok(outcome) => Ok(!outcome.events.is_empty()),
            Err(SubmitFault::Precondition { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// What follows from a complete listing for what was not on it.
    async fn conclude(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        region: Option<&str>,
        known: &HashMap<String, Known>,
        listed: &HashSet<String>,
        counts: &mut Counts,
    ) -> Result<(), ObserveFault> {
        let there = known.values().filter(|known| !known.gone).count() as u64;
        // Sorted: two runs over the same world write the same log.
        let missing: BTreeMap<&String, &Known> = known
            .iter()
            .filter(|(external_id, known)| !known.gone && !listed.contains(*external_id))
            .collect();
        let count = missing.len() as u64;
        if count > GUARD_COUNT && count * GUARD_SHARE > there && !look.approve_deletions {
            counts.withheld = count;
            return Ok(());
        }
        for (external_id, known) in missing {
            let found = self
                .patiently(look, || look.provider.find(look.access, region, kind.name, external_id))
                .await?;
            if let Some(sighting) = found {
                // The listing left it out and the provider has it: it is there.
                if let Told::Changed = self.tell_known(look, kind, region, known, sighting).await? {
                    counts.changed += 1;
                }
                continue;
            }
            let evidence = Evidence::CompleteListing { run: look.run, listed: listed.len() as u64 };
            let body = json!({"evidence": evidence});
            let revision = Some(known.revision);
            if self.report(look, kind, known.id, revision, "vanish", body).await? {
                counts.vanished += 1;
            }
        }
        Ok(())
    }

    /// Makes a call at the account's pace; throttled and broken calls are made again a few times.
    pub(crate) async fn patiently<T, F>(
        &self,
        look: &Look<'_>,
        mut call: impl FnMut() -> F,
    ) -> Result<T, DriverFault>
    where
        F: Future<Output = Result<T, DriverFault>>,
    {
        let account = look.access.account;
        let mut broken = 0;
        let mut throttled = 0;
        loop {
            self.paces.ticket(account).await;
            match call().await {
                Ok(value) => {
                    self.paces.went_well(account);
                    return Ok(value);
                }
                Err(DriverFault::Throttled { retry_after }) if throttled < 10 => {
                    throttled += 1;
                    self.paces.throttled(account, retry_after);
                }
                Err(DriverFault::Transient(_)) if broken + 1 < PAGE_TRIES => {
                    broken += 1;
                    self.ports.clock.sleep(Duration::from_millis(100 << broken)).await;
                }
                Err(fault) => return Err(fault),
            }
        }
    }
}

/// Where a sighting is.
fn place(look: &Look<'_>, region: Option<&str>, sighting: &Sighting) -> Origin {
    Origin {
        provider: look.provider.name().to_owned(),
        account: look.access.account,
        region: sighting.region.clone().or_else(|| region.map(str::to_owned)),
        external_id: sighting.external_id.clone(),
    }
}

/// Why a scope could not be looked at to its end.
#[derive(Debug, thiserror::Error)]
enum ObserveFault {
    #[error("the provider could not be asked")]
    Driver(#[from] DriverFault),
    #[error("the inventory could not be asked")]
    View(#[from] ViewFault),
    #[error("what was seen could not be recorded")]
    Submit(#[from] SubmitFault),
    #[error("the log could not be asked")]
    Load(#[from] LoadFault),
}

/// An error with its sources, for a text that people read.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// All orders that are out and not parked, for the runner: what to look at, not what to believe.
pub(crate) async fn outstanding(ledger: &Ledger) -> Result<Vec<(String, String)>, ViewFault> {
    let mut query = Query::all();
    query.filters.push(Filter {
        column: "order_state".to_owned(),
        op: Op::In,
        values: vec![Cell::Text("pending".to_owned())],
    });
    query.limit = Query::LIMIT_MAX;
    let mut found = Vec::new();
    loop {
        let page = ledger.ports.views.list("inventory", &query).await?;
        for row in page.rows {
            let kind = row.body["kind"].as_str().unwrap_or_default().to_owned();
            found.push((kind, row.key));
        }
        match page.next {
            Some(next) => query.token = Some(next),
            None => return Ok(found),
        }
    }
}

/// The inventory's position that a reader of [`outstanding`] has seen.
pub(crate) async fn inventory_position(ledger: &Ledger) -> Result<Position, ViewFault> {
    ledger.ports.views.position("inventory").await
}
