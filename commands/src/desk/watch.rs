//! Who is heard: presences that every process sees, and what is recorded when nobody hears an agent.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use domain::{
    compute::host::Host,
    kernel::{Decider, Principal},
};
use futures::{FutureExt, pin_mut, select};
use serde_json::json;
use uuid::Uuid;

use super::{AWAY_AFTER, Desk, submit};
use crate::{
    ledger::{Ledger, LoadFault},
    observe::chain,
};

/// How long a presence holds without being renewed; one wait for a task is shorter.
const PRESENCE_TERM: Duration = AWAY_AFTER;
/// A presence is not renewed sooner.
const RENEW_AFTER: TimeDelta = TimeDelta::seconds(15);
/// How often hosts are looked at.
const LOOK: Duration = Duration::from_secs(15);
/// How long nobody may hear an agent before that is recorded, after its last presence or the start of
/// this process: agents come back within half a minute after a server has.
const GRACE: Duration = Duration::from_mins(1);

/// Names the presence of a host's agent among leases; orders' keys have another shape.
fn presence(host: Uuid) -> String {
    format!("agent/{host}")
}

impl Desk {
    /// Takes an agent as heard here, and says so to other processes.
    pub(super) async fn listen(&self, ledger: &Ledger, host: Uuid, epoch: u64) {
        let now = self.clock.now();
        let held = self.seat(host, epoch, |seat| {
            seat.heard_at = seat.heard_at.max(now);
            seat.presence.clone()
        });
        let Some(held) = held else { return };
        if held.as_ref().is_some_and(|(_, since)| now - *since < RENEW_AFTER) {
            return;
        }
        let leases = &ledger.ports.leases;
        let mut lease = None;
        if let Some((old, _)) = held
            && leases.renew(&old, PRESENCE_TERM).await.unwrap_or(false)
        {
            lease = Some(old);
        }
        if lease.is_none() {
            // Another process has it still, when the agent has just come from there.
            lease = leases.claim(&presence(host), &self.owner, PRESENCE_TERM).await.unwrap_or(None);
        }
        let held = lease.map(|lease| (lease, now));
        self.seat(host, epoch, |seat| seat.presence = held);
    }

    /// Records hosts that nobody hears any more, until `stop` comes back. A clock decides that, so it
    /// is decided here, at the edge of time, and the log is told.
    pub async fn watch(&self, ledger: &Ledger, stop: impl Future<Output = ()>) {
        let stop = stop.fuse();
        pin_mut!(stop);
        let mut missed = BTreeMap::new();
        loop {
            let rest = self.clock.sleep(LOOK).fuse();
            pin_mut!(rest);
            select! {
                () = stop => return,
                () = rest => {}
            }
            if let Err(fault) = self.look_around(ledger, &mut missed).await {
                let fault = chain(&fault);
                tracing::warn!(fault, "it cannot be told which agents are heard");
            }
        }
    }

    /// One look: `missed` are the hosts that nobody was heard for before, and since when.
    async fn look_around(
        &self,
        ledger: &Ledger,
        missed: &mut BTreeMap<Uuid, DateTime<Utc>>,
    ) -> Result<(), LoadFault> {
        let hosts = ledger.joined_hosts().await?;
        let held = ledger.ports.leases.held().await?;
        let now = self.clock.now();
        missed.retain(|host, _| hosts.iter().any(|(id, _)| id == host));
        for (host, epoch) in hosts {
            if ledger.host_driver(host).is_some() || held.contains(&presence(host)) {
                missed.remove(&host);
                continue;
            }
            let since = *missed.entry(host).or_insert(now);
            if now - since < TimeDelta::from_std(GRACE).unwrap_or_default() {
                continue;
            }
            let last_heard =
                self.heard(host).filter(|heard| heard.epoch == epoch).map(|one| one.last_heard);
            let body = json!({"epoch": epoch, "last_heard": last_heard});
            let by = Principal::system("desk");
            match submit(ledger, &by, Host::KIND, host, "mark-unreachable", body).await {
                Ok(()) => tracing::warn!(%host, "its agent is not heard: the host is unreachable"),
                Err(fault) => {
                    tracing::info!(%host, fault = chain(&fault), "left as it is");
                }
            }
            missed.remove(&host);
        }
        Ok(())
    }
}
