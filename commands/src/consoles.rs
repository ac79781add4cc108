//! Consoles of servers, between whoever looks and the host: who comes with a ticket is let in once,
//! bytes go both ways, and what ends it is recorded.
//!
//! ```text
//!   whoever looks ◄──── pipe ────► relay ◄──── pipe ────► the host's agent, or the host itself
//!                                    │ opened, closed: by whom, for how long, why
//!                                    ▼
//!                                   log
//! ```
//!
//! The host opens the console first and the ticket is used up afterwards: a host that cannot costs no
//! ticket. For a remote desktop it is the other way round, for the address that it is reached by is lent
//! with the fact that it is open; it is given back with the fact that it is closed. Of several that come with one ticket at once, one gets its fact into the log and the others are
//! refused. While a console is open its process holds a lease for it; one that is open in the log and
//! that nobody holds was open in a process that has died, and [`watch`] records its end.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use chrono::TimeDelta;
use domain::{
    compute::server::{
        Power, Server,
        console::{Console, ConsoleEnd, ConsoleKind},
    },
    kernel::{Decider, Principal, Refusal, codes},
    kinds,
    network::net::Network,
};
use futures::{FutureExt, SinkExt, StreamExt, pin_mut, select};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    gather::secret_digest,
    ledger::{Ledger, LoadFault},
    observe::chain,
    ports::{AuditFilter, DriverFault, Lease, Pipe},
    submit::{Submission, SubmitFault},
};

/// Who looks and does nothing for so long has gone away and left it open.
pub const IDLE_MAX: TimeDelta = TimeDelta::minutes(15);
/// Longest that a console is open: a working day, with room.
pub const OPEN_MAX: TimeDelta = TimeDelta::hours(12);
/// How often it is looked whether it may stay open.
const LOOK: Duration = Duration::from_secs(2);
/// How long a lease holds without being renewed.
const LEASE_TERM: Duration = Duration::from_mins(1);
/// A lease is not renewed sooner.
const RENEW_AFTER: TimeDelta = TimeDelta::seconds(15);
/// How long the log may take to know why a host has closed a console, in looks a second apart.
const REASON_LOOKS: usize = 3;
/// How often an end is tried to be recorded; what is not is found by [`watch`].
const RECORD_TRIES: usize = 5;
/// How often it is looked for consoles of processes that have died.
const LOST_LOOK: Duration = Duration::from_mins(2);
/// Records read at once.
const PAGE: usize = 1_000;

/// Why a console was not opened.
#[derive(Debug, thiserror::Error)]
pub enum EnterFault {
    /// A rule says no, or nothing can be recorded.
    #[error(transparent)]
    Submit(#[from] SubmitFault),
    /// The host cannot be reached, or has no console to give.
    #[error(transparent)]
    Host(#[from] DriverFault),
}

impl From<LoadFault> for EnterFault {
    fn from(fault: LoadFault) -> Self {
        Self::Submit(fault.into())
    }
}

/// A console that is open, with nobody looking yet.
pub struct Entered {
    ledger: Arc<Ledger>,
    server: Uuid,
    console: Console,
    pipe: Pipe,
    lease: Option<Lease>,
}

/// A console that is open, as whoever asks whether it may stay so sees it.
#[derive(Clone, Copy, Debug)]
pub struct Looking<'a> {
    /// Who has it open.
    pub by: &'a str,
    /// Whose the server is now.
    pub project: Option<Uuid>,
}

/// Lets somebody in who comes with a ticket.
///
/// # Errors
/// `not-found`, what [`Server::console_of`] says, and faults of the host.
pub async fn enter(
    ledger: &Arc<Ledger>,
    server: Uuid,
    ticket: &str,
) -> Result<Entered, EnterFault> {
    let digest = secret_digest(ticket);
    let (revision, state) = ledger.typed::<Server>(&server.to_string()).await?;
    let no_such = || Refusal::new(&codes::CONSOLE_TICKET, "ticket: it is no ticket of this server");
    if revision == 0 {
        return Err(SubmitFault::Refused(no_such()).into());
    }
    let console = state.console_of(&digest, ledger.now()).map_err(SubmitFault::Refused)?.clone();
    let host = state.home.as_ref().map(|home| home.placement.host.uuid());
    let host = host.ok_or_else(|| SubmitFault::Refused(no_such()))?;
    let driver = ledger.host_driver(host).ok_or_else(|| {
        DriverFault::Away(format!("this process does not hear the agent of host {host}"))
    })?;
    let key = format!("console/{}", console.id);
    let lease = ledger.ports.leases.claim(&key, ledger.desk.owner(), LEASE_TERM).await;
    let lease = lease.map_err(LoadFault::from)?;
    let open =
        async |lent| driver.console(ledger.ports.ids.new_id(), server, console.kind, lent).await;
    let enter = async || submit(ledger, server, "enter-console", json!({"ticket": digest})).await;
    let pipe = async {
        if console.kind != ConsoleKind::Rdp {
            let pipe = open(None).await?;
            enter().await?;
            return Ok::<_, EnterFault>(pipe);
        }
        enter().await?;
        let opened =
            async { Ok::<_, EnterFault>(open(lent(ledger, server, console.id).await?).await?) };
        let opened = opened.await;
        if opened.is_err() {
            record(ledger, server, console.id, ConsoleEnd::HostClosed).await;
        }
        opened
    };
    match pipe.await {
        Ok(pipe) => Ok(Entered { ledger: Arc::clone(ledger), server, console, pipe, lease }),
        Err(fault) => {
            if let Some(lease) = lease {
                let _ = ledger.ports.leases.finish(&lease).await;
            }
            Err(fault)
        }
    }
}

/// The address that a network lends for an open console; none when none does.
async fn lent(ledger: &Ledger, server: Uuid, console: Uuid) -> Result<Option<Ipv4Addr>, LoadFault> {
    let (_, state) = ledger.typed::<Server>(&server.to_string()).await?;
    let network = state.consoles().iter().find(|one| one.id == console).and_then(|one| one.network);
    let Some(network) = network else { return Ok(None) };
    let (_, state) = ledger.typed::<Network>(&network.to_string()).await?;
    let held = state.own.map(|own| own.held(console)).unwrap_or_default();
    Ok(held.into_iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }))
}

impl Entered {
    /// Which console it is.
    pub fn kind(&self) -> ConsoleKind {
        self.console.kind
    }

    /// Carries bytes between whoever looks and the host until something ends it, and records that.
    /// `has_right` says whether who opened it could open it now; `stop` comes back when this process is
    /// to end.
    pub async fn relay(
        self,
        caller: Pipe,
        has_right: impl Fn(Looking<'_>) -> bool + Send + Sync,
        stop: impl Future<Output = ()> + Send,
    ) -> ConsoleEnd {
        let Self { ledger, server, console, pipe, mut lease } = self;
        let (Pipe { out: mut to_host, into: mut from_host }, kind) = (pipe, console.kind);
        let Pipe { out: mut to_caller, into: mut from_caller } = caller;
        let now = || ledger.now();
        let active = AtomicI64::new(now().timestamp_micros());
        let up = async {
            while let Some(piece) = from_caller.next().await {
                if is_done_by_somebody(kind, &piece) {
                    active.store(now().timestamp_micros(), Relaxed);
                }
                if to_host.send(piece).await.is_err() {
                    return ConsoleEnd::HostClosed;
                }
            }
            ConsoleEnd::CallerLeft
        };
        let down = async {
            while let Some(piece) = from_host.next().await {
                if to_caller.send(piece).await.is_err() {
                    return ConsoleEnd::CallerLeft;
                }
            }
            ConsoleEnd::HostClosed
        };
        let (since, mut renewed) = (now(), now());
        let watched = async {
            loop {
                ledger.ports.clock.sleep(LOOK).await;
                let looked = now();
                if looked - since >= OPEN_MAX {
                    return ConsoleEnd::TimeOver;
                }
                if looked.timestamp_micros() - active.load(Relaxed) >= IDLE_MICROS {
                    return ConsoleEnd::Idle;
                }
                if looked - renewed >= RENEW_AFTER {
                    renewed = looked;
                    lease = hold(&ledger, console.id, lease.take()).await;
                }
                // A log that cannot be read for a moment closes nothing.
                let Ok((_, state)) = ledger.typed::<Server>(&server.to_string()).await else {
                    continue;
                };
                let looking = Looking { by: &console.by, project: state.observation.project };
                if !has_right(looking) {
                    return ConsoleEnd::NoRight;
                }
                if let Some(why) = ended(&state, console.id) {
                    return why;
                }
            }
        };
        let mut end = {
            let (up, down, watched, stop) = (up.fuse(), down.fuse(), watched.fuse(), stop.fuse());
            pin_mut!(up, down, watched, stop);
            select! {
                end = up => end,
                end = down => end,
                end = watched => end,
                () = stop => ConsoleEnd::ProcessStopped,
            }
        };
        // Nobody is kept waiting for what is written down of it.
        drop((to_caller, from_caller, to_host, from_host));
        if end == ConsoleEnd::HostClosed {
            end = why_closed(&ledger, server, console.id).await;
        }
        record(&ledger, server, console.id, end).await;
        if let Some(lease) = lease {
            let _ = ledger.ports.leases.finish(&lease).await;
        }
        end
    }
}

const IDLE_MICROS: i64 = IDLE_MAX.num_seconds() * 1_000_000;

/// Whether a piece is what somebody does. A program that shows a screen asks for what is new of it
/// for ever by itself: `FramebufferUpdateRequest` of RFC 6143 §7.5.3, ten bytes each.
fn is_done_by_somebody(kind: ConsoleKind, piece: &[u8]) -> bool {
    let only_asks = piece.chunks(10).all(|one| one.len() == 10 && one[0] == 3);
    kind != ConsoleKind::Vnc || !only_asks
}

/// Why a console is not to be open, by what the log says of its server.
fn ended(state: &Server, console: Uuid) -> Option<ConsoleEnd> {
    if !state.consoles().iter().any(|one| one.id == console) {
        return Some(ConsoleEnd::Lost);
    }
    let home = state.home.as_ref()?;
    if home.removed || home.deleted_until.is_some() || !state.observation.is_there() {
        return Some(ConsoleEnd::ServerGone);
    }
    let power = state.observation.seen.as_ref().map(|seen| seen.power);
    (power == Some(Power::Stopped) && state.order().is_none()).then_some(ConsoleEnd::ServerStopped)
}

/// A host closes a console when its server stops, which the log comes to know a moment later.
async fn why_closed(ledger: &Ledger, server: Uuid, console: Uuid) -> ConsoleEnd {
    for look in 0..REASON_LOOKS {
        if look > 0 {
            ledger.ports.clock.sleep(Duration::from_secs(1)).await;
        }
        let state = ledger.typed::<Server>(&server.to_string()).await;
        if let Ok((_, state)) = state
            && let Some(why) = ended(&state, console)
        {
            return why;
        }
    }
    ConsoleEnd::HostClosed
}

async fn hold(ledger: &Ledger, console: Uuid, lease: Option<Lease>) -> Option<Lease> {
    let leases = &ledger.ports.leases;
    if let Some(lease) = lease
        && leases.renew(&lease, LEASE_TERM).await.unwrap_or(false)
    {
        return Some(lease);
    }
    let key = format!("console/{console}");
    leases.claim(&key, ledger.desk.owner(), LEASE_TERM).await.unwrap_or(None)
}

async fn submit(ledger: &Ledger, server: Uuid, verb: &str, body: Value) -> Result<(), SubmitFault> {
    let no_kind =
        || SubmitFault::Refused(Refusal::new(&codes::NOT_FOUND, "there is no kind server"));
    let kind = kinds::by_name(Server::KIND).ok_or_else(no_kind)?;
    let by = Principal::system("console");
    ledger.submit(Submission::new(by, kind, server, verb, body)).await.map(drop)
}

async fn record(ledger: &Ledger, server: Uuid, console: Uuid, why: ConsoleEnd) {
    for attempt in 0..RECORD_TRIES {
        if attempt > 0 {
            ledger.ports.clock.sleep(LOOK).await;
        }
        let body = json!({"console": console, "why": why});
        match submit(ledger, server, "leave-console", body).await {
            Ok(()) => return,
            Err(fault) => {
                let fault = chain(&fault);
                tracing::warn!(%server, %console, fault, "the end of a console is not recorded yet");
            }
        }
    }
}

/// Records the end of consoles whose processes have died, until `stop` comes back.
pub async fn watch(ledger: &Ledger, stop: impl Future<Output = ()>) {
    let stop = stop.fuse();
    pin_mut!(stop);
    loop {
        let rest = ledger.ports.clock.sleep(LOST_LOOK).fuse();
        pin_mut!(rest);
        select! {
            () = stop => return,
            () = rest => {}
        }
        if let Err(fault) = close_lost(ledger).await {
            tracing::warn!(fault = chain(&fault), "consoles that are open cannot be looked at");
        }
    }
}

/// Records the end of consoles that are open and that no process holds.
///
/// # Errors
/// The log cannot be read.
pub async fn close_lost(ledger: &Ledger) -> Result<(), LoadFault> {
    let log = &ledger.ports.log;
    // None is open for longer.
    let mut after = log.position_at(ledger.now() - OPEN_MAX - TimeDelta::hours(1)).await?;
    let filter = AuditFilter {
        kind: Some(Server::KIND.to_owned()),
        event_type: Some("console-opened".to_owned()),
        ..AuditFilter::default()
    };
    let mut servers: BTreeSet<Uuid> = BTreeSet::new();
    loop {
        let records = log.search(&filter, after, false, PAGE).await?;
        servers.extend(records.iter().filter_map(|record| record.id().parse::<Uuid>().ok()));
        match records.last() {
            Some(last) if records.len() == PAGE => after = last.position(),
            _ => break,
        }
    }
    for server in servers {
        let (_, state) = ledger.typed::<Server>(&server.to_string()).await?;
        for console in state.consoles().iter().filter(|one| one.since.is_some()) {
            // Asked after the console: its lease is there before it is open.
            let held = ledger.ports.leases.held().await?;
            if !held.contains(&format!("console/{}", console.id)) {
                record(ledger, server, console.id, ConsoleEnd::Lost).await;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_what_is_new_of_a_screen_is_nobody_s_doing() {
        let ask = [3, 1, 0, 0, 0, 0, 4, 0, 3, 0];
        let key = [4, 1, 0, 0, 0, 0, 0, 97];
        let vnc = |piece: &[u8]| is_done_by_somebody(ConsoleKind::Vnc, piece);
        assert!(!vnc(&ask) && !vnc(&[ask, ask].concat()));
        assert!(vnc(&key) && vnc(&[&ask[..], &key[..]].concat()));
        assert!(is_done_by_somebody(ConsoleKind::Serial, &ask));
    }
}
