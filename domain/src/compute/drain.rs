//! What becomes of a host's servers when it is to have none: which can go elsewhere, and what is in the
//! way of each that cannot.
//!
//! Worked out on the whole fleet, one server after the other, the largest first: what one will take,
//! the next does not count with. Nothing is ordered by it.

use std::cmp::Reverse;

use serde::Serialize;
use uuid::Uuid;

use super::{
    placement::{Fleet, HostId, Unplaced},
    server::{Order, Power, Server},
};
use crate::kernel::{Decider, Outstanding, Refusal};

/// How a server goes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// While it is stopped.
    Cold,
    /// While it runs.
    Live,
}

/// What is in the way of a server's going elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// One word for programs: `adopted`, `bound`, `deleted`, `devices`, `local-disks`,
    /// `may-have-grown`, `moving`, `no-room`, `order`, `rescued`.
    pub code: &'static str,
    /// What it is, and what to do.
    pub detail: String,
}

/// One server of a host that is to have none.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leaving {
    /// Which.
    pub server: Uuid,
    /// What people call it.
    pub name: String,
    /// Who owns it.
    pub project: Option<Uuid>,
    /// What it does.
    pub status: &'static str,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// Its memory.
    pub memory_mib: u64,
    /// How it can go; none when it cannot.
    pub way: Option<Way>,
    /// Where it would go, or is on its way to.
    pub to: Option<HostId>,
    /// Everything that is in the way.
    pub obstacles: Vec<Obstacle>,
}

/// One server that is on a host.
#[derive(Clone, Debug)]
pub struct Staying {
    /// Which.
    pub id: Uuid,
    /// What it is.
    pub server: Server,
    /// What keeps its disks there, with what to do.
    pub disks: Vec<String>,
}

fn obstacle(code: &'static str, detail: impl Into<String>) -> Obstacle {
    Obstacle { code, detail: detail.into() }
}

/// What is in the way by what a server is, wherever it would go.
fn own_obstacles(server: &Server, live: bool) -> Vec<Obstacle> {
    let Some(home) = &server.home else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(until) = home.deleted_until {
        let detail = format!("it is deleted and goes by itself on {until}: purge it to be sooner");
        found.push(obstacle("deleted", detail));
    }
    found.extend(home.tied(live).into_iter().map(|(code, detail)| obstacle(code, detail)));
    match &server.orders.out {
        Some(Outstanding { parked: None, .. }) if home.moving.is_some() => {
            found.push(obstacle("moving", "it is on its way: wait until it is there"));
        }
        Some(Outstanding { order: Order::Remove {}, parked: None, .. }) => {
            found.push(obstacle("order", "it is being removed: wait until it is gone"));
        }
        Some(Outstanding { parked: Some(reason), number, .. }) => {
            let detail = format!("order {number} is parked, retry or abandon it: {reason}");
            found.push(obstacle("order", detail));
        }
        Some(Outstanding { number, .. }) => {
            found.push(obstacle("order", format!("order {number} is out: wait until it is done")));
        }
        None => {}
    }
    if home.rescue.is_some() {
        found.push(obstacle("rescued", "it is being repaired: leave-rescue first"));
    }
    found
}

/// How many hosts have no room, and why, itself aside.
fn nowhere(unplaced: Unplaced) -> String {
    let mut rejected = match unplaced {
        Unplaced::Invalid(refusal) => return refusal.detail,
        Unplaced::Nowhere(rejected) => rejected,
    };
    if let Some(excluded) = rejected.counts.get_mut("excluded") {
        *excluded -= 1;
    }
    let counts = rejected.counts.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<String> = counts.map(|(code, count)| format!("{code} {count}")).collect();
    if counts.is_empty() {
        return "there is no other host".to_owned();
    }
    format!("no other host has room for it: {}", counts.join(", "))
}

/// What becomes of each server that has its place on a host, the largest first.
///
/// # Errors
/// `not-found` when the host is not in the fleet.
pub fn drain(fleet: &Fleet, host: HostId, servers: Vec<Staying>) -> Result<Vec<Leaving>, Refusal> {
    let mut fleet = fleet.clone();
    let mut servers: Vec<_> = servers
        .into_iter()
        .filter_map(|one| one.server.home.clone().map(|home| (one, home)))
        .collect();
    servers.sort_by_key(|(one, home)| {
        (Reverse(home.spec.memory_mib), Reverse(home.spec.vcpus), one.id)
    });
    let mut all = Vec::new();
    for (Staying { id, server, disks }, home) in servers {
        let seen = server.observation.seen.as_ref();
        let runs = seen.is_some_and(|seen| seen.power != Power::Stopped);
        let mut obstacles = own_obstacles(&server, runs);
        obstacles.extend(disks.into_iter().map(|why| obstacle("local-disks", why)));
        obstacles.sort_by_key(|one| one.code);
        let mut to = None;
        if let Some(moving) = &home.moving {
            // Its place is taken there already.
            to = Some(moving.to.host);
        } else {
            let own = &home.placement.holding;
            match fleet.place(&home.elsewhere(None, runs)) {
                Ok(placement) if runs && !own.is_seen_as(&placement.holding) => {
                    let detail = "it would be cut over other cells elsewhere than its guest sees: \
                                  stop it first";
                    obstacles.push(obstacle("bound", detail));
                }
                Ok(placement) if obstacles.is_empty() => {
                    to = Some(placement.host);
                    fleet.give_back(host, home.placement.holding.server)?;
                    fleet.take(placement.host, placement.holding)?;
                }
                Ok(_) => {}
                Err(unplaced) => {
                    obstacles.push(obstacle("no-room", nowhere(unplaced)));
                }
            }
        }
        let way = if runs { Way::Live } else { Way::Cold };
        all.push(Leaving {
            server: id,
            name: home.name.clone(),
            project: server.observation.project,
            status: server.status(),
            vcpus: home.spec.vcpus,
            memory_mib: home.spec.memory_mib,
            way: obstacles.is_empty().then_some(way),
            to,
            obstacles,
        });
    }
    Ok(all)
}
