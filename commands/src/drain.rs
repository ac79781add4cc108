//! What becomes of a host's servers when it is to have none, by everything that is in the log now, and
//! their going elsewhere while a host is drained.
//!
//! A drain is a state of the host; what follows of it is worked out anew at every look, so that several
//! processes may look and any of them may die. Only when a server is tried again that stayed where it was
//! is remembered, and forgotten with the process.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::{
    compute::{
        disk::Disk,
        drain::{Leaving, Staying, drain},
        host::Host,
        placement::HostId,
        server::Server,
    },
    kernel::{Decider, Refusal, codes},
    kinds,
    log::Position,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    fleet::PlaceFault,
    ledger::{Ledger, LoadFault},
    ports::{Query, ViewFault},
    submit::{Submission, SubmitFault},
};

/// Most servers of one host that are on their way at a time: what they send shares the host's network.
pub const MOVING_MAX: usize = 2;
/// When a server that stayed is tried again first; each time after it twice as long.
const AGAIN: Duration = Duration::from_mins(1);
/// The longest that a server which stayed is left alone.
const AGAIN_MAX: Duration = Duration::from_hours(1);
/// How long the inventory is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host, and what becomes of its servers.
#[derive(Clone, Debug)]
pub struct Draining {
    /// What it is.
    pub host: Host,
    /// Its servers, the largest first.
    pub servers: Vec<Leaving>,
    /// All up to here was counted with.
    pub position: Position,
}

/// Why nothing is said of it.
#[derive(Debug, thiserror::Error)]
pub enum DrainFault {
    /// There is no such host.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log or a state cannot be read.
    #[error(transparent)]
    Load(#[from] LoadFault),
}

impl Ledger {
    /// What becomes of a host's servers when it is to have none.
    ///
    /// # Errors
    /// When there is no such host, or the log cannot be read.
    pub async fn draining(&self, id: Uuid) -> Result<Draining, DrainFault> {
        let (revision, host) = self.typed::<Host>(&id.to_string()).await?;
        if revision == 0 || host.retired {
            return Err(Refusal::new(&codes::NOT_FOUND, format!("there is no host {id}")).into());
        }
        let mut servers = Vec::with_capacity(host.holdings.len());
        for server in host.holdings.keys() {
            let server = server.uuid();
            let state = self.typed::<Server>(&server.to_string()).await?.1;
            let mut ties = Vec::new();
            let live = state.movable().unwrap_or_default();
            for disk in state.home.iter().flat_map(|home| &home.parts.disks) {
                if disk.leased && !live {
                    continue;
                }
                let of = self.typed::<Disk>(&disk.id.to_string()).await?.1;
                ties.extend(self.disk_tie(disk, &of, live).await?);
            }
            servers.push(Staying { id: server, server: state, disks: ties });
        }
        let (fleet, position) = self.fleet_now().await.map_err(|fault| match fault {
            PlaceFault::Refused(refusal) => DrainFault::Refused(refusal),
            PlaceFault::Load(fault) => DrainFault::Load(fault),
        })?;
        // One that came or went between the looks is left out: the next look has it.
        let there = fleet.host(HostId::new(id)).map(|host| host.holdings().clone());
        let there = there.unwrap_or_default();
        servers.retain(|one| there.keys().any(|held| held.uuid() == one.id));
        let servers = drain(&fleet, HostId::new(id), servers)?;
        Ok(Draining { host, servers, position })
    }
}

/// How often a server was sent away, and when it is again if it is still there.
#[derive(Clone, Copy, Debug)]
struct Tried {
    host: Uuid,
    times: u32,
    again: DateTime<Utc>,
}

/// Lets servers leave the hosts that are drained.
pub struct Drainer {
    ledger: Arc<Ledger>,
    tried: BTreeMap<Uuid, Tried>,
}

impl Drainer {
    /// One that has sent nobody away yet.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, tried: BTreeMap::new() }
    }

    /// Looks once, and gives how many servers were sent away.
    ///
    /// # Errors
    /// When it is not known what is drained. A host that cannot be looked at and a server that cannot be
    /// sent away are left for a later look.
    pub async fn pass(&mut self) -> Result<usize, ViewFault> {
        let head = self.ledger.ports.log.head().await.map_err(ViewFault::from)?.position;
        self.ledger.ports.views.reach_position(head, PATIENCE).await?;
        let query = Query::all().with("kind", Host::KIND).with("status", "draining");
        let (mut there, mut sent) = (BTreeMap::new(), 0);
        for row in self.ledger.rows(query).await?.0 {
            let Ok(host) = row.key.parse::<Uuid>() else { continue };
            match self.empty(host, &mut there).await {
                Ok(some) => sent += some,
                // The others are looked at all the same, and it the next time.
                Err(fault) => {
                    tracing::warn!(%host, %fault, "a host that is drained cannot be looked at");
                    there.extend(self.tried.iter().filter(|(_, tried)| tried.host == host));
                }
            }
        }
        self.tried = there;
        Ok(sent)
    }

    /// Sends away what one host may send now; notes who is still there and was tried.
    async fn empty(
        &self,
        host: Uuid,
        there: &mut BTreeMap<Uuid, Tried>,
    ) -> Result<usize, DrainFault> {
        let draining = match self.ledger.draining(host).await {
            Ok(draining) if draining.host.draining => draining,
            // It was retired, or its drain ended, since it was listed.
            Ok(_) | Err(DrainFault::Refused(_)) => return Ok(0),
            Err(fault) => return Err(fault),
        };
        let moving = |one: &&Leaving| one.obstacles.iter().any(|what| what.code == "moving");
        let mut moving = draining.servers.iter().filter(moving).count();
        let (now, mut sent) = (self.ledger.ports.clock.now(), 0);
        for leaving in draining.servers {
            let before = self.tried.get(&leaving.server);
            let waits = before.is_some_and(|before| now < before.again);
            let to = leaving.to.filter(|_| !waits && moving < MOVING_MAX && leaving.way.is_some());
            let Some(to) = to else {
                there.extend(before.map(|before| (leaving.server, *before)));
                continue;
            };
            if self.send(leaving.server, to).await {
                moving += 1;
                sent += 1;
            }
            let times = before.map_or(0, |before| before.times) + 1;
            let pause = AGAIN.saturating_mul(1 << (times - 1).min(10)).min(AGAIN_MAX);
            there.insert(leaving.server, Tried { host, times, again: now + pause });
        }
        Ok(sent)
    }

    /// Orders one server to go; whether that was done.
    async fn send(&self, server: Uuid, to: HostId) -> bool {
        let Some(kind) = kinds::by_name(Server::KIND) else { return false };
        let body = json!({"to": to});
        let submission = Submission::new(Ledger::system("drain"), kind, server, "migrate", body);
        match self.ledger.submit(submission).await {
            Ok(_) => true,
            // Its room was taken, or it does something else by now.
            Err(SubmitFault::Refused(refusal)) => {
                tracing::info!(%server, %refusal, "a server does not leave its host yet");
                false
            }
            Err(fault) => {
                tracing::warn!(%server, %fault, "a server does not leave its host");
                false
            }
        }
    }
}
