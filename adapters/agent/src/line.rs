//! The way to the desk.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use commands::{
    desk::{Busy, Given, Outcome},
    ledger::Ledger,
    ports::{DriverFault, Pipe, ServerPowers},
    submit::SubmitFault,
};
use domain::{
    compute::host::HostSighting,
    kernel::{OrderKey, Principal, codes},
};
use futures::StreamExt;
use uuid::Uuid;

/// Why something did not come to the desk, or was not wanted there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LineFault {
    /// Nobody answers, or not now: it is tried again.
    #[error("{0}")]
    Broken(String),
    /// A rule, or the token, says no.
    #[error("{code}: {detail}")]
    Refused {
        /// The refusal's code.
        code: String,
        /// Its detail.
        detail: String,
    },
    /// Another agent has joined, or the server does not know of this one any more.
    #[error("{0}")]
    Stale(String),
}

impl LineFault {
    /// A refusal by its code.
    pub(crate) fn refused(code: &str, detail: &str) -> Self {
        if code == codes::STALE_EPOCH.code {
            return Self::Stale(detail.to_owned());
        }
        Self::Refused { code: code.to_owned(), detail: detail.to_owned() }
    }
}

/// The way to the desk of a server, for the agent of one host.
#[async_trait]
pub trait Line: Send + Sync + 'static {
    /// Begins to work for the host, and gives the epoch.
    async fn join(&self, agent: &str) -> Result<u64, LineFault>;
    /// Says what the host is, and what its servers do.
    async fn sight(
        &self,
        epoch: u64,
        seen: &HostSighting,
        servers: &ServerPowers,
    ) -> Result<(), LineFault>;
    /// Asks for orders but those that are worked on already, and for consoles to bring, and says how far
    /// those are; waits for one at most so long.
    async fn tasks(&self, epoch: u64, busy: &Busy, wait: Duration) -> Result<Given, LineFault>;
    /// Brings a console that was called for, or why there is none; comes back when it was closed.
    async fn console(
        &self,
        _epoch: u64,
        _call: Uuid,
        _console: Result<Pipe, DriverFault>,
    ) -> Result<(), LineFault> {
        Err(LineFault::Broken("this line carries no consoles".to_owned()))
    }
    /// Brings what became of an order; false when nobody waited for it now.
    async fn answer(
        &self,
        epoch: u64,
        key: &OrderKey,
        outcome: &Outcome,
    ) -> Result<bool, LineFault>;
}

/// The way to the desk of one's own process.
pub struct LocalLine {
    ledger: Arc<Ledger>,
    host: Uuid,
    by: Principal,
}

impl LocalLine {
    /// To the desk of this ledger, for this host.
    pub fn new(ledger: Arc<Ledger>, host: Uuid) -> Self {
        Self { ledger, host, by: Principal::system("local-host") }
    }
}

impl From<SubmitFault> for LineFault {
    fn from(fault: SubmitFault) -> Self {
        match fault {
            SubmitFault::Refused(no) | SubmitFault::Beside(no) => {
                Self::refused(no.code.code, &no.detail)
            }
            fault => Self::Broken(fault.to_string()),
        }
    }
}

#[async_trait]
impl Line for LocalLine {
    async fn join(&self, agent: &str) -> Result<u64, LineFault> {
        Ok(self.ledger.desk.join(&self.ledger, &self.by, self.host, agent).await?)
    }

    async fn sight(
        &self,
        epoch: u64,
        seen: &HostSighting,
        servers: &ServerPowers,
    ) -> Result<(), LineFault> {
        let desk = &self.ledger.desk;
        Ok(desk.sight(&self.ledger, &self.by, self.host, epoch, seen, servers).await?)
    }

    async fn tasks(&self, epoch: u64, busy: &Busy, wait: Duration) -> Result<Given, LineFault> {
        let (desk, never) = (&self.ledger.desk, std::future::pending());
        let (by, host, busy) = (&self.by, self.host, busy.clone());
        Ok(desk.next(&self.ledger, by, host, epoch, busy, wait, never).await?)
    }

    async fn console(
        &self,
        epoch: u64,
        call: Uuid,
        console: Result<Pipe, DriverFault>,
    ) -> Result<(), LineFault> {
        let (desk, by) = (&self.ledger.desk, &self.by);
        let (ours, theirs) = Pipe::pair();
        let (console, brought) = match console {
            Ok(console) => (Some(console), Ok(theirs)),
            Err(fault) => (None, Err(fault)),
        };
        desk.pick_up(&self.ledger, by, self.host, epoch, call, brought).await?;
        // Carried here, so that it ends with the agent as it does over a network.
        if let Some(console) = console {
            console.carry(ours.out, ours.into.map(Ok)).await;
        }
        Ok(())
    }

    async fn answer(
        &self,
        epoch: u64,
        key: &OrderKey,
        outcome: &Outcome,
    ) -> Result<bool, LineFault> {
        let (desk, outcome) = (&self.ledger.desk, outcome.clone());
        Ok(desk.answer(&self.ledger, &self.by, self.host, epoch, key, outcome).await?)
    }
}
