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
//! - A place that should have been looked at and was not is a scope too, an incomplete one: where
//!   the regions cannot be listed, and where the account has lost a region that we know things of.
//! - What happened to a resource since the look began is newer than the look: the page may be from
//!   before it. So every report names the revision that the look began with, and one that comes
//!   too late says nothing; the next look tells.
//! - A thing that was made for a resource which has no counterpart now is that resource's to link,
//!   half made or not, and is nobody else's discovery.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
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
        Access, Cell, DriverFault, Filter, Listing, Op, Provider, Query, Row, Sighting, Support,
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

enum Told {
    Nothing,
    Discovered,
    Changed,
    Vanished,
}

fn count(scope: &mut Scope, told: Told) {
    match told {
        Told::Nothing => {}
        Told::Discovered => scope.discovered += 1,
        Told::Changed => scope.changed += 1,
        Told::Vanished => scope.vanished += 1,
    }
}

/// A scope that nothing was seen of.
fn unseen(kind: &str, region: Option<String>, fault: &str) -> Scope {
    Scope {
        kind: kind.to_owned(),
        region,
        complete: false,
        listed: 0,
        discovered: 0,
        changed: 0,
        vanished: 0,
        withheld: 0,
        fault: Some(fault.to_owned()),
    }
}

impl Ledger {
    /// Looks at everything the account's provider lists, and reports scope by scope.
    pub async fn observe(&self, look: &Look<'_>) -> Vec<Scope> {
        let wanted = |row: &&Support| {
            row.listed && (look.kinds.is_empty() || look.kinds.iter().any(|kind| kind == row.kind))
        };
        let rows = look.provider.table().iter().filter(wanted);
        let (regional, global): (Vec<&Support>, Vec<&Support>) = rows.partition(|row| row.regional);
        let mut places: Vec<(&str, Option<String>)> =
            global.iter().map(|row| (row.kind, None)).collect();
        let mut done = Vec::new();
        if !regional.is_empty() {
            let kinds: Vec<&str> = regional.iter().map(|row| row.kind).collect();
            let (there, not_there) = self.regions(look, &kinds).await;
            done = not_there;
            for kind in kinds {
                places.extend(there.iter().map(|region| (kind, Some(region.clone()))));
            }
        }
        // Boxed one by one: a closure inside the stream would not be `Send` for every lifetime.
        let mut looks: Vec<BoxFuture<'_, Scope>> = Vec::with_capacity(places.len());
        for (kind, region) in places {
            let span = tracing::info_span!("look", kind, region);
            looks.push(self.observe_scope(look, kind, region).instrument(span).boxed());
        }
        let seen: Vec<Scope> = stream::iter(looks)
            .buffer_unordered(look.provider.concurrency().max(1))
            .collect()
            .await;
        done.extend(seen);
        done.sort_by(|a, b| (&a.kind, &a.region).cmp(&(&b.kind, &b.region)));
        done
    }

    /// The regions to look at, and the scopes that cannot be looked at.
    async fn regions(&self, look: &Look<'_>, kinds: &[&str]) -> (Vec<String>, Vec<Scope>) {
        let asked = |region: &String| look.regions.is_empty() || look.regions.contains(region);
        let looked_at = self.looked_at(look.access.account).await;
        let listed = self.patiently(|| look.provider.regions(look.access)).await;
        let mut blind = Vec::new();
        let known = looked_at.unwrap_or_else(|fault| {
            let fault = format!("the regions known before cannot be listed: {}", chain(&fault));
            blind.extend(kinds.iter().map(|kind| unseen(kind, None, &fault)));
            BTreeSet::new()
        });
        let known = known
            .into_iter()
            .filter(|(kind, region)| kinds.contains(&kind.as_str()) && asked(region));
        let mut there = match listed {
            Ok(there) => there,
            Err(fault) => {
                let fault = format!("the regions cannot be listed: {}", chain(&fault));
                let mut places: BTreeSet<(String, Option<String>)> =
                    known.map(|(kind, region)| (kind, Some(region))).collect();
                for kind in kinds {
                    let named = look.regions.iter().cloned().map(Some);
                    places.extend(named.map(|region| ((*kind).to_owned(), region)));
                    if !places.iter().any(|(place, _)| place == kind) {
                        places.insert(((*kind).to_owned(), None));
                    }
                }
                blind
                    .extend(places.into_iter().map(|(kind, region)| unseen(&kind, region, &fault)));
                return (Vec::new(), blind);
            }
        };
        let mut lost: BTreeSet<(String, String)> = BTreeSet::new();
        for (kind, region) in known {
            if !there.contains(&region) && self.has_any(look.access.account, &kind, &region).await {
                lost.insert((kind, region));
            }
        }
        for region in look.regions.iter().filter(|region| !there.contains(region)) {
            lost.extend(kinds.iter().map(|kind| ((*kind).to_owned(), region.clone())));
        }
        blind.extend(lost.into_iter().map(|(kind, region)| {
            let fault = format!("the account does not have the region {region}");
            unseen(&kind, Some(region), &fault)
        }));
        there.retain(asked);
        there.sort();
        (there, blind)
    }

    /// Kinds and regions of the account that were ever looked at.
    async fn looked_at(&self, account: Uuid) -> Result<BTreeSet<(String, String)>, ViewFault> {
        let mut query = Query::all().with("account", account.to_string());
        query.limit = Query::LIMIT_MAX;
        let mut found = BTreeSet::new();
        loop {
            let page = self.ports.views.list("freshness", &query).await?;
            found.extend(page.rows.iter().filter_map(|row| {
                let text = |name: &str| Some(row.body[name].as_str()?.to_owned());
                Some((text("kind")?, text("region")?))
            }));
            match page.next {
                Some(next) => query.token = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Whether the inventory knows anything of a kind in a region that is there, as far as it can
    /// be told.
    async fn has_any(&self, account: Uuid, kind: &str, region: &str) -> bool {
        let query = Query::all()
            .with("kind", kind)
            .with("account", account.to_string())
            .with("region", region)
            .with("gone", false);
        self.ports.views.count("inventory", &query, 1).await.map_or(true, |count| count > 0)
    }

    async fn observe_scope(&self, look: &Look<'_>, kind: &str, region: Option<String>) -> Scope {
        let mut scope = unseen(kind, region.clone(), "");
        scope.fault = None;
        let Some(kind) = kinds::by_name(kind) else {
            scope.fault = Some("this program does not know the kind".to_owned());
            return scope;
        };
        // What was counted so far was written, whatever comes then.
        if let Err(fault) = self.try_scope(look, kind, region.as_deref(), &mut scope).await {
            scope.complete = false;
            scope.fault = Some(chain(&fault));
        }
        scope
    }

    async fn try_scope(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        region: Option<&str>,
        scope: &mut Scope,
    ) -> Result<(), ObserveFault> {
        let before = self.before(look.access.account, kind, region).await?;
        let mut listed = HashSet::new();
        // One that is refused is no reason to leave the others untold.
        let mut refused: Vec<String> = Vec::new();
        let mut page = None;
        loop {
            let fetched = self
                .patiently(|| look.provider.list(look.access, region, kind.name, page.as_deref()))
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
            let mut telling: Vec<BoxFuture<'_, (String, Result<Told, SubmitFault>)>> = Vec::new();
            for sighting in fresh {
                let external_id = sighting.external_id.clone();
                let told = self.tell(look, kind, region, &before, sighting);
                telling.push(async move { (external_id, told.await) }.boxed());
            }
            let told: Vec<(String, Result<Told, SubmitFault>)> =
                stream::iter(telling).buffer_unordered(COMMANDS_AT_ONCE).collect().await;
            let mut broken = None;
            for (external_id, told) in told {
                match told {
                    Ok(told) => count(scope, told),
                    Err(SubmitFault::Refused(refusal)) => {
                        refused.push(format!("{external_id}: {}", refusal.detail));
                    }
                    Err(fault) => broken = Some(fault),
                }
            }
            if let Some(fault) = broken {
                return Err(fault.into());
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
            refused
                .extend(self.conclude(look, kind, region, &before.things, &listed, scope).await?);
        }
        if !refused.is_empty() {
            // The picture lacks what could not be recorded, so it is not complete either.
            scope.complete = false;
            refused.sort();
            let more = scope.fault.take().map(|fault| format!("; {fault}")).unwrap_or_default();
            scope.fault =
                Some(format!("{} could not be recorded, {}{more}", refused.len(), refused[0]));
        }
        Ok(())
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

    /// What follows from a complete listing for what was not on it; and what of that was refused.
    async fn conclude(
        &self,
        look: &Look<'_>,
        kind: &'static Kind,
        region: Option<&str>,
        known: &HashMap<String, Known>,
        listed: &HashSet<String>,
        scope: &mut Scope,
    ) -> Result<Vec<String>, ObserveFault> {
        let mut refused = Vec::new();
        let there = known.values().filter(|known| !known.gone).count() as u64;
        // Sorted: two runs over the same world write the same log.
        let missing: BTreeMap<&String, &Known> = known
            .iter()
            .filter(|(external_id, known)| !known.gone && !listed.contains(*external_id))
            .collect();
        let absent = missing.len() as u64;
        if absent > GUARD_COUNT && absent * GUARD_SHARE > there && !look.approve_deletions {
            scope.withheld = absent;
            return Ok(refused);
        }
        for (external_id, known) in missing {
            let found = self
                .patiently(|| look.provider.find(look.access, region, kind.name, external_id))
                .await?;
            let told = match found {
                // The listing left it out and the provider has it: it is there.
                Some(sighting) => self.tell_known(look, kind, region, known, sighting).await,
                None => {
                    let listed = listed.len() as u64;
                    let evidence = Evidence::CompleteListing { run: look.run, listed };
                    let body = json!({"evidence": evidence});
                    let revision = Some(known.revision);
                    let wrote = self.report(look, kind, known.id, revision, "vanish", body).await;
                    wrote.map(|wrote| if wrote { Told::Vanished } else { Told::Nothing })
                }
            };
            match told {
                Ok(told) => count(scope, told),
                Err(SubmitFault::Refused(refusal)) => {
                    refused.push(format!("{external_id}: {}", refusal.detail));
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(refused)
    }

    /// Makes a call; throttled and broken ones are made again a few times, at the account's pace.
    pub(crate) async fn patiently<T, F>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T, DriverFault>
    where
        F: Future<Output = Result<T, DriverFault>>,
    {
        let mut broken = 0;
        let mut throttled = 0;
        loop {
            match call().await {
                // The next call's ticket waits as long as the pace has learnt from this one.
                Err(DriverFault::Throttled { .. }) if throttled < 10 => throttled += 1,
                Err(DriverFault::Transient(_)) if broken + 1 < PAGE_TRIES => {
                    broken += 1;
                    self.ports.clock.sleep(Duration::from_millis(100 << broken)).await;
                }
                done => return done,
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
    let (rows, _) = ledger.rows(query).await?;
    let kind = |row: &Row| row.body["kind"].as_str().unwrap_or_default().to_owned();
    Ok(rows.into_iter().map(|row| (kind(&row), row.key)).collect())
}

/// The inventory's position that a reader of [`outstanding`] has seen.
pub(crate) async fn inventory_position(ledger: &Ledger) -> Result<Position, ViewFault> {
    ledger.ports.views.position("inventory").await
}
