//! Looking at a server of ours: its screen, its first serial line, or a remote desktop of its guest.
//!
//! ```text
//!            open-console             enter-console              leave-console
//!  (nothing) ────────────► a ticket ────────────────► open ─────────────────────► (nothing)
//!                             │ its minute is over
//!                             └───────────────► (nothing)
//! ```
//!
//! A ticket opens one console of one server once. Only its digest is recorded; who asked for it, from
//! when to when the console was open and why it was closed are facts.
//!
//! A remote desktop is reached over the guest's network. Where that is by IPv4 the network lends an
//! address for it, which is given with the fact that it is open and rests from when it is closed.

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Event, Power, Server, parts::Nic};
use crate::{
    kernel::{Companion, Decider, Refusal, Stamp, codes},
    network::addresses::Want,
};

/// How long a ticket is good: who asks for one uses it at once.
pub const TICKET_TERM: TimeDelta = TimeDelta::seconds(60);
/// Most consoles of a server that are open, or may be opened with a ticket, at once.
pub const CONSOLES_MAX: usize = 8;
/// Length of a digest in hex.
const DIGEST_CHARS: usize = 64;

/// Which console.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleKind {
    /// A remote desktop of its guest, as bytes of its port 3389 (MS-RDPBCGR).
    Rdp,
    /// Its first serial line, as bytes. One at a time.
    Serial,
    /// Its screen, keyboard and pointer, as RFB 3.8 (RFC 6143).
    Vnc,
}

/// Why a console was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConsoleEnd {
    /// Who looked has left.
    CallerLeft,
    /// Its host has closed it.
    HostClosed,
    /// Who looked did nothing for a quarter of an hour.
    Idle,
    /// The process that it went through has ended before it could say so.
    Lost,
    /// The token that it was opened with has lost the right to it.
    NoRight,
    /// The process that it went through has stopped.
    ProcessStopped,
    /// The server was deleted, or is gone.
    ServerGone,
    /// The server has stopped.
    ServerStopped,
    /// It was open for twelve hours.
    TimeOver,
}

/// A console that is open, or that a ticket opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Console {
    /// Names it.
    pub id: Uuid,
    /// Which it is.
    pub kind: ConsoleKind,
    /// Who asked for it.
    pub by: String,
    /// SHA-256 of the ticket, in hex.
    pub ticket: String,
    /// Until when the ticket is good.
    pub until: DateTime<Utc>,
    /// Since when it is open; none while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// The network that lends an address to reach it by, while it is open; none when none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Uuid>,
}

impl Console {
    fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.since.is_some() || now < self.until
    }
}

impl Server {
    /// The consoles that are open, or that a ticket may open.
    pub fn consoles(&self) -> &[Console] {
        self.home.as_ref().map_or(&[], |home| &home.consoles)
    }

    /// Whether there is anything to look at.
    ///
    /// # Errors
    /// `unsupported` for a server of a cloud, `wrong-state` for one that does not run.
    pub fn check_console(&self) -> Result<(), Refusal> {
        self.ours("open-console")?;
        let seen = self.observation.seen.as_ref().filter(|_| self.observation.is_there());
        match seen.map(|seen| seen.power) {
            // Also while an order is worked on: a server that starts is what people look at.
            Some(Power::Running | Power::Suspended) if !self.is_deleted() => Ok(()),
            _ => Err(Refusal::wrong_state("open-console", self.status())),
        }
    }

    /// The console that this ticket opens now.
    ///
    /// # Errors
    /// `console-ticket`, `console-in-use`, and what [`Self::check_console`] says.
    pub fn console_of(&self, ticket: &str, now: DateTime<Utc>) -> Result<&Console, Refusal> {
        let no = |detail: &str| Err(Refusal::new(&codes::CONSOLE_TICKET, detail));
        let console = match self.consoles().iter().find(|one| one.ticket == ticket) {
            None => return no("ticket: it is no ticket of this server, or was used"),
            Some(Console { since: Some(_), .. }) => return no("ticket: it was used"),
            Some(console) if now >= console.until => return no("ticket: its time is over"),
            Some(console) => console,
        };
        self.check_console()?;
        let is_other = |one: &&Console| one.kind == console.kind && one.since.is_some();
        match self.consoles().iter().find(is_other) {
            Some(other) if console.kind == ConsoleKind::Serial => {
                let detail = format!("serial: {} has it open", other.by);
                Err(Refusal::new(&codes::CONSOLE_IN_USE, detail))
            }
            _ => Ok(console),
        }
    }

    pub(super) fn open_console(
        &self,
        kind: ConsoleKind,
        console: Option<Uuid>,
        ticket: Option<String>,
        stamp: &Stamp,
    ) -> Result<Vec<Event>, Refusal> {
        self.check_console()?;
        let live = self.consoles().iter().filter(|one| one.is_live(stamp.now)).count();
        if live >= CONSOLES_MAX {
            let detail =
                format!("it has {live} consoles that are open or may be, the most there are");
            return Err(Refusal::new(&codes::CONSOLE_IN_USE, detail));
        }
        if kind == ConsoleKind::Rdp && self.nics().is_empty() {
            let detail =
                "console: it has no interface that its remote desktop is reached by; add one";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let ticket = ticket.filter(|ticket| ticket.len() == DIGEST_CHARS);
        let (Some(id), Some(ticket)) = (console, ticket) else {
            let detail = "ticket: is made, not given";
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        };
        if self.consoles().iter().any(|one| one.id == id) {
            return Err(Refusal::new(&codes::INVALID_FIELD, "console: it is there already"));
        }
        let (by, until) = (stamp.actor.clone(), stamp.now + TICKET_TERM);
        Ok(vec![Event::ConsoleAllowed {
            console: Console { id, kind, by, ticket, until, since: None, network: None },
        }])
    }

    pub(super) fn enter_console(&self, ticket: &str, stamp: &Stamp) -> Result<Vec<Event>, Refusal> {
        let Console { id, kind, by, .. } = self.console_of(ticket, stamp.now)?.clone();
        let lends = |nic: &&Nic| nic.addresses.iter().any(|net| net.addr().is_ipv4());
        let network = self.nics().iter().find(lends).map(|nic| nic.network);
        let network = network.filter(|_| kind == ConsoleKind::Rdp);
        Ok(vec![Event::ConsoleOpened { console: id, kind, by, at: stamp.now, network }])
    }

    fn nics(&self) -> &[Nic] {
        self.home.as_ref().map_or(&[], |home| &home.parts.nics)
    }

    /// What a fact about a console says to the network that lends an address for it; this is the state
    /// before it.
    pub(super) fn console_companion(&self, event: &Event) -> Option<Companion> {
        let (verb, network, body) = match event {
            Event::ConsoleOpened { console, network, .. } => {
                let body = json!({"holder": console, "v4": Want::Any {}, "chance": console});
                ("give", (*network)?, body)
            }
            Event::ConsoleClosed { console, .. } => {
                let open = self.consoles().iter().find(|one| one.id == *console)?;
                ("release", open.network?, json!({"holder": console}))
            }
            _ => return None,
        };
        Some(Companion { kind: "network", id: network, verb, body })
    }

    /// One that is closed already is closed once.
    pub(super) fn leave_console(
        &self,
        console: Uuid,
        why: ConsoleEnd,
        stamp: &Stamp,
    ) -> Vec<Event> {
        let open = self.consoles().iter().find(|one| one.id == console);
        let closed = open.and_then(|one| {
            let seconds = (stamp.now - one.since?).num_seconds().max(0).unsigned_abs();
            let (kind, by) = (one.kind, one.by.clone());
            Some(Event::ConsoleClosed { console, kind, by, seconds, why })
        });
        closed.into_iter().collect()
    }

    /// What was decided of consoles.
    pub(super) fn remember_console(&mut self, event: Event) {
        self.at_home(|home| match event {
            Event::ConsoleAllowed { console } => {
                // Tickets that nobody used in time are forgotten with the next one.
                let now = console.until - TICKET_TERM;
                home.consoles.retain(|one| one.is_live(now));
                home.consoles.push(console);
            }
            Event::ConsoleOpened { console, at, network, .. } => {
                let open = home.consoles.iter_mut().find(|one| one.id == console);
                if let Some(open) = open {
                    open.since = Some(at);
                    open.network = network;
                }
            }
            Event::ConsoleClosed { console, .. } => home.consoles.retain(|one| one.id != console),
            _ => {}
        });
    }
}
