//! Consoles that are asked of the agent of a host: it is called, and comes with the other end of a pipe.
//!
//! ```text
//!   relay ── call ──► waits ── next ──► agent, which opens the console on its host
//!     ▲                 │                 │
//!     └────── pipe ─────┴──── pick_up ◄───┘
//! ```
//!
//! A call that is lost on its way is not given again: who looks asks again.

use std::{net::Ipv4Addr, time::Duration};

use domain::{
    compute::server::console::ConsoleKind,
    kernel::{Principal, Refusal, codes},
};
use futures::{FutureExt, channel::oneshot, pin_mut, select};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AtDesk, Desk};
use crate::{
    ledger::Ledger,
    ports::{DriverFault, Pipe},
    submit::SubmitFault,
};

/// How long an agent may take to come with the console.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most calls of one host that wait.
const CALLS_MAX: usize = 64;

/// A console that the agent is to open and bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// Names the call.
    pub id: Uuid,
    /// Whose console.
    pub server: Uuid,
    /// Which console.
    pub console: ConsoleKind,
    /// The address that the server's network lends to reach its guest by; none when none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub lent: Option<Ipv4Addr>,
}

/// A call that somebody waits for.
pub(super) struct Waiting {
    pub(super) call: Call,
    pub(super) given: bool,
    answer: oneshot::Sender<Result<Pipe, DriverFault>>,
}

impl Desk {
    /// Whether a console of this call is waited for, of the agent that counts.
    ///
    /// # Errors
    /// `stale-epoch`, `not-found`.
    pub async fn expects(
        &self,
        ledger: &Ledger,
        by: &Principal,
        host: Uuid,
        epoch: u64,
        call: Uuid,
    ) -> Result<(), SubmitFault> {
        self.hear(ledger, by, host, epoch).await?;
        match self.seat(host, epoch, |seat| seat.calls.contains_key(&call)) {
            Some(true) => Ok(()),
            _ => Err(nobody_waits(call)),
        }
    }

    /// The agent comes with a console that it was called for, or says why it has none.
    ///
    /// # Errors
    /// `stale-epoch`, `not-found` when nobody waits for it any more.
    pub async fn pick_up(
        &self,
        ledger: &Ledger,
        by: &Principal,
        host: Uuid,
        epoch: u64,
        call: Uuid,
        pipe: Result<Pipe, DriverFault>,
    ) -> Result<(), SubmitFault> {
        self.hear(ledger, by, host, epoch).await?;
        let waiting = self.seat(host, epoch, |seat| seat.calls.remove(&call)).flatten();
        let answered = waiting.is_some_and(|waiting| waiting.answer.send(pipe).is_ok());
        if answered {
            return Ok(());
        }
        Err(nobody_waits(call))
    }
}

fn nobody_waits(call: Uuid) -> SubmitFault {
    let detail = format!("nobody waits for the console of call {call}");
    Refusal::new(&codes::NOT_FOUND, detail).into()
}

impl AtDesk {
    pub(super) async fn call(&self, call: Call) -> Result<Pipe, DriverFault> {
        let id = call.id;
        let away = || DriverFault::Away(format!("the agent of host {} is not heard", self.host));
        let (answer, picked_up) = oneshot::channel();
        let waits = self.desk.seat(self.host, self.epoch, |seat| {
            let is_full = seat.calls.len() >= CALLS_MAX;
            if !is_full {
                seat.calls.insert(id, Waiting { call, given: false, answer });
                seat.ring();
            }
            !is_full
        });
        if !waits.ok_or_else(away)? {
            let why = format!("{CALLS_MAX} consoles of this host are being opened");
            return Err(DriverFault::Transient(why));
        }
        let _called = Called { at: self, id };
        let late = self.desk.clock.sleep(PATIENCE).fuse();
        let picked_up = picked_up.fuse();
        pin_mut!(late, picked_up);
        select! {
            // Its other end is gone when another agent has joined.
            pipe = picked_up => pipe.unwrap_or_else(|_| Err(away())),
            () = late => Err(away()),
        }
    }
}

/// A call that is taken back when nobody waits for it any more.
struct Called<'a> {
    at: &'a AtDesk,
    id: Uuid,
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        self.at.desk.seat(self.at.host, self.at.epoch, |seat| drop(seat.calls.remove(&self.id)));
    }
}
