//! A server's being sent to another host: what is left here of it, its limit of time, and its being
//! broken off.
//!
//! libvirt goes on with what it was asked for, whether or not who asked still waits. So the question is
//! asked by a task of its own, which holds [`super::Inner::sending`] until it is answered: as long as it
//! is held, what is here of the server may still change, and nobody says what is left.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use adapters_libvirt::{Connection, Destination, Domain, Fault, State};
use commands::{
    ports::{DriverFault, Report},
    progress,
};
use futures::future::{Either, select};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{Inner, Step, Turn, Work, fault::libvirt, find, migrate::moving};

/// Between two looks at something that tells nobody of its end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Between two looks how far something is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long libvirt may take to end what it was told to break off.
const END_PATIENCE: Duration = Duration::from_mins(2);
/// `VIR_DOMAIN_PAUSED_USER`: somebody holds it who does not move it.
const HELD_BY_USER: i32 = 1;
/// `VIR_DOMAIN_SHUTOFF_MIGRATED`: it is off because it was handed over.
const OFF_FOR_IT_MOVED: i32 = 4;

/// What is here of a server that was to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It does not run here.
    Gone,
    /// It was handed over, and is off here for that.
    Moved,
    /// It runs here as before.
    Runs,
    /// It is held, and may run there.
    Unsure,
}

/// Says how far a server's way to another host is, as long as it is asked.
async fn tell(wire: Arc<Connection>, domain: Domain) -> Infallible {
    loop {
        sleep(TELL_EVERY).await;
        match wire.job(&domain).await {
            Ok(Some((done, total))) => progress::at(done, total),
            Ok(None) => {}
            Err(fault) => tracing::debug!(%fault, "it is not said how far the server is"),
        }
    }
}

impl Inner {
    /// Asks libvirt to send a server, and waits so long for what it says.
    pub(super) async fn hand_over(
        &self,
        (server, domain): (Uuid, Domain),
        there: Destination,
        patience: Duration,
    ) -> Result<Result<(), Fault>, DriverFault> {
        let wire = self.wire.get().await?;
        let sending = self.sending.of(server).await;
        let told = tell(Arc::clone(&wire), domain.clone());
        let asked = tokio::spawn(async move {
            // What is not answered by then is broken off, and answered soon.
            let said = wire.migrate(&domain, &there, patience + END_PATIENCE).await;
            drop(sending);
            said
        });
        let said = match select(pin!(timeout(patience, asked)), pin!(told)).await {
            Either::Left((said, _)) => said,
            Either::Right((never, _)) => match never {},
        };
        let said = said.unwrap_or(Ok(Err(Fault::Late(patience))));
        said.map_err(|fault| DriverFault::Unexpected(fault.to_string()))
    }

    /// What is here of a server, once nothing goes on with it any more. What still goes on when the
    /// time is over is broken off.
    pub(super) async fn left(&self, server: Uuid, within: Duration) -> Result<Left, DriverFault> {
        let mut until = Instant::now() + within;
        let mut is_over = false;
        loop {
            let asked = timeout(LOOK_AGAIN, self.sending.of(server)).await.is_err();
            let wire = self.wire.get().await?;
            let Some(domain) = find(&wire, server).await? else { return Ok(Left::Gone) };
            let (is, reason) = wire.state(&domain).await.map_err(libvirt)?;
            if !is.is_active() {
                let has_moved = is == State::Off && reason == OFF_FOR_IT_MOVED;
                return Ok(if has_moved { Left::Moved } else { Left::Gone });
            }
            let Ok(busy) = wire.has_job(&domain).await else {
                // It ended while we looked, or the daemon did.
                sleep(LOOK_AGAIN).await;
                continue;
            };
            match is {
                _ if busy || asked => {}
                State::Paused if reason != HELD_BY_USER => return Ok(Left::Unsure),
                _ => return Ok(Left::Runs),
            }
            if Instant::now() >= until {
                if is_over {
                    let why = "libvirt still works on the server, and does not say when it ends";
                    return Err(DriverFault::Transient(why.to_owned()));
                }
                (is_over, until) = (true, Instant::now() + END_PATIENCE);
            }
            if is_over {
                self.abort(server).await?;
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Breaks off what goes on with a server, if anything does.
    async fn abort(&self, server: Uuid) -> Result<(), DriverFault> {
        let wire = self.wire.get().await?;
        let Some(domain) = find(&wire, server).await? else { return Ok(()) };
        if !matches!(wire.has_job(&domain).await, Ok(true)) {
            return Ok(());
        }
        match wire.abort_job(&domain).await {
            // It ended meanwhile, or cannot be broken off where it is now: what is left tells.
            Err(fault) if fault.code().is_some() => {
                tracing::debug!(%fault, %server, "nothing was broken off");
                Ok(())
            }
            done => done.map_err(libvirt),
        }
    }

    /// The server's turn, which whoever sends it gives back soon, for that is broken off.
    pub(super) async fn interrupt(&self, server: Uuid) -> Result<Turn, DriverFault> {
        let mut turn = pin!(self.turn(server));
        loop {
            if let Ok(turn) = timeout(LOOK_AGAIN, &mut turn).await {
                return Ok(turn);
            }
            self.abort(server).await?;
        }
    }

    /// The turn of an order by which a server is sent. One that comes late, after another took its place,
    /// is not carried out any more.
    pub(super) async fn unless_overtaken(
        &self,
        server: Uuid,
        number: u64,
    ) -> Result<Turn, DriverFault> {
        let turn = self.turn(server).await;
        let begun = self.records.read(server).await?.unwrap_or_default().number;
        if begun > number {
            let why = format!("order {begun} has taken the place of order {number}");
            return Err(DriverFault::Transient(why));
        }
        Ok(turn)
    }

    /// What came of a server's being sent, which was broken off.
    pub(super) async fn broken_off(&self, work: &Work<'_>) -> Result<Report, DriverFault> {
        let server = work.server;
        let end = self.left(server, Duration::ZERO);
        let left = self.step(Step::BreakOff, server, end).await?;
        if moving(work.home)?.live {
            if let Some(ended) = self.ended(work, left).await? {
                return Ok(ended);
            }
        } else {
            // What does not run is nowhere else either.
            self.end_carrier(server).await?;
        }
        self.stays(work, "it was broken off".to_owned()).await
    }
}
