//! The log as it grows: server-sent events (WHATWG HTML §9.2), one per record.
//!
//! An event's id is its position, so a reader that comes back with `Last-Event-ID` goes on without
//! a gap and without a duplicate. Records that the caller does not ask for or reach are passed over;
//! heartbeats carry the position that was passed, so that coming back costs no second look.
//!
//! How far transfers are is in no record. Who asks for that as well (`progress`) gets events of another
//! name and without an id, of what this process hears.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use ::commands::{ports::AuditFilter, progress::Progress};
use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use bytes::Bytes;
use domain::{
    kernel::{OrderKey, Principal},
    log::Position,
};
use futures::stream;
use serde_json::json;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    api::bearer,
    audit::filter,
    call::{Answer, Call},
    problem::Problem,
    queries::{INVENTORY, project_of},
    routes::{LAST_EVENT_ID, PROGRESS, START},
    service::Service,
    show,
};

/// Records read at once.
const PAGE: usize = 500;
/// A sign of life at least this often: proxies cut what is silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two looks at how far transfers are: agents tell about as often.
const LOOK: Duration = Duration::from_secs(1);

struct Feed {
    service: Arc<Service>,
    secret: String,
    principal: Principal,
    filter: AuditFilter,
    /// All up to here was sent or passed over.
    after: Position,
    queued: VecDeque<Bytes>,
    /// Transfers that go on: whether the caller is told of each, and what it was told last. None when nobody asks.
    transfers: Option<BTreeMap<OrderKey, (bool, Option<Progress>)>>,
    /// When something was sent last.
    sent: Instant,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.service.metrics.watchers.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

pub(crate) async fn watch(call: Call) -> Answer {
    let head = call.service.ledger.ports.log.head().await?.position;
    let resumed = call.params.number(&LAST_EVENT_ID);
    let after = resumed.or(call.params.number(&START)).unwrap_or(head);
    if after > head {
        let what = format!("position {after} is not in the log, which ends at {head}");
        let name = if resumed.is_some() { LAST_EVENT_ID.name } else { START.name };
        return Err(Problem::parameter(name, what));
    }
    let slot = call.service.watchers.clone().try_acquire_owned();
    let slot = slot.map_err(|_| Problem::overloaded())?;
    call.service.metrics.watchers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let feed = Feed {
        secret: bearer(&call.headers).unwrap_or_default().to_owned(),
        filter: filter(&call),
        principal: call.principal.clone(),
        service: call.service.clone(),
        after,
        // The head of the answer goes out with the first bytes.
        queued: VecDeque::from([Bytes::from_static(b"retry: 1000\n\n")]),
        transfers: call.params.flag(&PROGRESS).then(BTreeMap::new),
        sent: Instant::now(),
        _slot: slot,
    };
    let body = Body::from_stream(stream::unfold(feed, |mut feed| async move {
        let bytes = feed.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), feed))
    }));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("skyledger-position", HeaderValue::from(after));
    Ok(response)
}

impl Feed {
    /// The next bytes; none when the feed ends.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.queued.pop_front() {
                self.sent = Instant::now();
                return Some(bytes);
            }
            // A token that was revoked, or is over, opens nothing any more.
            let known = self.service.principal(&self.secret).await.ok()??;
            if known != self.principal {
                return None;
            }
            let log = &self.service.ledger.ports.log;
            let records = match log.read(self.after, PAGE).await {
                Ok(records) => records,
                Err(fault) => {
                    tracing::warn!(%fault, "an event feed ends: the log cannot be read");
                    return None;
                }
            };
            let Some(last) = records.last() else {
                if self.look().await {
                    continue;
                }
                let mut until = self.sent + HEARTBEAT;
                if self.transfers.is_some() {
                    until = until.min(Instant::now() + LOOK);
                }
                let log = &self.service.ledger.ports.log;
                tokio::select! {
                    () = log.appended(self.after) => {}
                    () = tokio::time::sleep_until(until) => {
                        if self.sent.elapsed() >= HEARTBEAT {
                            let alive = format!(": alive\nid: {}\n\n", self.after);
                            self.queued.push_back(alive.into());
                        }
                    }
                    () = self.service.closed() => return None,
                }
                continue;
            };
            self.after = last.position();
            let mut text = String::new();
            for record in records.iter().filter(|record| self.filter.matches(record)) {
                let (id, data) = (record.position(), show::record(record, &self.principal.reach));
                let _ = write!(text, "id: {id}\ndata: {data}\n\n");
            }
            if !text.is_empty() {
                self.queued.push_back(text.into());
            }
        }
    }

    /// How far those transfers are by now that have come further; whether there is anything to send.
    async fn look(&mut self) -> bool {
        let Some(known) = &mut self.transfers else { return false };
        let told = self.service.ledger.transfers();
        known.retain(|key, _| told.iter().any(|told| told.key == *key));
        let mut text = String::new();
        for told in told {
            let stream = &told.key.stream;
            let wanted =
                |one: &Option<String>, is: &str| one.as_deref().is_none_or(|one| one == is);
            if !wanted(&self.filter.kind, &stream.kind) || !wanted(&self.filter.id, &stream.id) {
                continue;
            }
            if !known.contains_key(&told.key) {
                let views = &self.service.ledger.ports.views;
                // A view that is late, or cannot be read now, says it next time.
                let Ok(Some(row)) = views.get(INVENTORY, &stream.id, None).await else { continue };
                let project = project_of(&row.body);
                let projects = self.filter.projects.as_ref();
                let covers = projects.is_none_or(|of| project.is_some_and(|one| of.contains(&one)));
                known.insert(told.key.clone(), (covers, None));
            }
            let Some((true, last)) = known.get_mut(&told.key) else { continue };
            if last.replace(told.progress) == Some(told.progress) {
                continue;
            }
            let data = json!({
                "kind": stream.kind,
                "id": stream.id,
                "order": told.key.number,
                "done_bytes": told.progress.done_bytes,
                "total_bytes": told.progress.total_bytes,
            });
            let _ = write!(text, "event: progress\ndata: {data}\n\n");
        }
        if text.is_empty() {
            return false;
        }
        self.queued.push_back(text.into());
        true
    }
}
