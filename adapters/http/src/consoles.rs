//! Consoles of servers: whoever looks comes with a ticket, a host's agent with the console.
//!
//! The ticket is in `Sec-WebSocket-Protocol`, where a program in a browser can put it, and in no
//! address: addresses are written into logs.

use std::{collections::BTreeSet, time::Duration};

use ::commands::{
    consoles::{self, EnterFault, Looking},
    ports::{DriverFault, Pipe},
};
use domain::{
    compute::server::{Server, console::ConsoleEnd},
    kernel::{Refusal, codes},
};
use futures::StreamExt;
use serde::Deserialize;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    agents,
    call::{Answer, Call},
    params::uuid,
    problem::{CONSOLE_UNAVAILABLE, HOST_AWAY, INVALID_ID, Problem},
    routes::EPOCH,
    socket::{Asked, close, protocols, pump},
};

/// What is spoken: pieces of bytes in binary messages.
pub(crate) const PROTOCOL: &str = "skyledger.console";
/// Begins the protocol that names the ticket.
const TICKET: &str = "skyledger.ticket.";
/// How long an agent may take to say whether it has the console.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// What an agent says first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstWord {
    /// Why it does not have the console; none when it has.
    #[serde(default)]
    why_not: Option<String>,
}

impl From<EnterFault> for Problem {
    fn from(fault: EnterFault) -> Self {
        match fault {
            EnterFault::Submit(fault) => fault.into(),
            EnterFault::Host(DriverFault::Rejected(why) | DriverFault::NotFound(why)) => {
                Self::new(&CONSOLE_UNAVAILABLE, why)
            }
            EnterFault::Host(fault) => Self::new(&HOST_AWAY, fault.to_string()),
        }
    }
}

/// Somebody comes with a ticket.
pub(crate) async fn open(mut call: Call) -> Answer {
    let server = call.id()?;
    let service = call.service.clone();
    let slot = service.consoles.clone().try_acquire_owned().map_err(|_| Problem::overloaded())?;
    let asked = Asked::of(&mut call)?;
    let ticket = protocols(&call.headers).find_map(|one| one.strip_prefix(TICKET));
    let Some(ticket) = ticket else {
        let detail =
            format!("Sec-WebSocket-Protocol: {PROTOCOL}, {TICKET}<ticket>: no ticket came");
        return Err(Refusal::new(&codes::CONSOLE_TICKET, detail).into());
    };
    // Named for us, and spoken by us: a program in a browser wants one of those that it has named.
    let spoken = protocols(&call.headers).any(|one| one == PROTOCOL).then_some(PROTOCOL);
    let ledger = &service.ledger;
    // Tokens that another process has given or taken are known before anybody is let in.
    service.tokens.catch_up(ledger.ports.log.as_ref()).await?;
    let state = ledger.typed::<Server>(&server.to_string()).await?.1;
    let digest = ::commands::gather::secret_digest(ticket);
    let by = state.console_of(&digest, ledger.now())?.by.clone();
    let right = |by: &str, project| service.tokens.that_operate(by, project, ledger.now());
    let own: BTreeSet<String> = right(&by, state.observation.project);
    if own.is_empty() {
        let detail = format!("{by} may not open it any more");
        return Err(Refusal::new(&codes::CONSOLE_TICKET, detail).into());
    }
    let entered = consoles::enter(ledger, server, ticket).await?;
    tracing::info!(%server, by, kind = ?entered.kind(), "a console is open");
    let (response, socket) = asked.accept(spoken);
    let service = call.service.clone();
    tokio::spawn(async move {
        let _slot = slot;
        let (ours, theirs) = Pipe::pair();
        let may = |looking: Looking<'_>| {
            let now = service.ledger.now();
            service.tokens.that_operate(looking.by, looking.project, now).is_superset(&own)
        };
        let relayed = entered.relay(theirs, may, service.closed());
        let pumped = async move {
            // Nobody came: the other end of the pipe goes with this one.
            let mut socket = socket.await?;
            pump(&mut socket, ours).await;
            Some(socket)
        };
        let (end, socket) = tokio::join!(relayed, pumped);
        tracing::info!(%server, ?end, "a console is closed");
        if let Some(mut socket) = socket {
            close(&mut socket, reason(end)).await;
        }
    });
    Ok(response)
}

/// As in the event.
fn reason(end: ConsoleEnd) -> &'static str {
    match end {
        ConsoleEnd::CallerLeft => "caller-left",
        ConsoleEnd::HostClosed => "host-closed",
        ConsoleEnd::Idle => "idle",
        ConsoleEnd::Lost => "lost",
        ConsoleEnd::NoRight => "no-right",
        ConsoleEnd::ProcessStopped => "process-stopped",
        ConsoleEnd::ServerGone => "server-gone",
        ConsoleEnd::ServerStopped => "server-stopped",
        ConsoleEnd::TimeOver => "time-over",
    }
}

/// An agent comes with a console that it was called for.
pub(crate) async fn bring(mut call: Call) -> Answer {
    let host = agents::host(&call)?;
    let named = uuid(call.part("call"));
    let named = named.ok_or_else(|| Problem::new(&INVALID_ID, "the call's id is a UUID"))?;
    let epoch = call.params.number(&EPOCH);
    let epoch = epoch.ok_or_else(|| Problem::parameter(EPOCH.name, "is needed"))?;
    let ledger = &call.service.ledger;
    ledger.desk.expects(ledger, &call.principal, host, epoch, named).await?;
    let asked = Asked::of(&mut call)?;
    let (response, socket) = asked.accept(None);
    let (service, by) = (call.service.clone(), call.principal.clone());
    tokio::spawn(async move {
        let Some(mut socket) = socket.await else { return };
        let word = tokio::time::timeout(FIRST_WORD, socket.next()).await;
        let Ok(Some(Ok(Message::Text(word)))) = word else { return };
        let Ok(FirstWord { why_not }) = serde_json::from_str(&word) else { return };
        let (ours, theirs) = Pipe::pair();
        let pipe = match why_not {
            None => Ok(theirs),
            Some(why) => Err(DriverFault::Rejected(why.chars().take(1_000).collect())),
        };
        let ledger = &service.ledger;
        let taken = ledger.desk.pick_up(ledger, &by, host, epoch, named, pipe).await;
        if let Err(fault) = taken {
            tracing::debug!(%fault, "a console that nobody waits for");
        }
        tokio::select! {
            () = pump(&mut socket, ours) => {}
            () = service.closed() => {}
        }
        close(&mut socket, "").await;
    });
    Ok(response)
}
