//! Who may have a volume active that several hosts reach.
//!
//! ```text
//!            share (a server runs towards another host)
//!  one host, ──────────────────────────────────────────► two hosts,
//!  exclusive ◄────────────────────────────────────────── shared
//!      │           end (it stays), take (it is there)
//!      └── take (it is there, or its host is dead) ──► another host, exclusive
//! ```
//!
//! A volume that two hosts write without knowing of each other is lost. So a host activates one only on a
//! lease, which its orders bring along: exclusive, but while a server that runs goes from one host to
//! another. Each lease has an *epoch*, which goes up whenever a host loses its own. A host writes it on
//! the volume, and what finds a later one there has an order that is over.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    compute::placement::HostId,
    kernel::{Refusal, codes},
};

/// How a host may have a volume active.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "LeaseMode")]
pub enum Mode {
    /// No other host may.
    Exclusive,
    /// The host that its server goes to may as well.
    Shared,
}

/// A host's right to have a volume active.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[schemars(rename = "VolumeLease")]
pub struct Lease {
    /// How.
    pub mode: Mode,
    /// In which epoch of the volume, from 1.
    pub epoch: u64,
}

/// All leases of one volume. There is always one at least, and two at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    epoch: u64,
    held: BTreeMap<HostId, Mode>,
}

impl Leases {
    /// Those of a new volume: its host's.
    pub fn granted(host: HostId) -> Self {
        Self { epoch: 1, held: [(host, Mode::Exclusive)].into() }
    }

    /// The lease of a host.
    pub fn of(&self, host: HostId) -> Option<Lease> {
        self.held.get(&host).map(|mode| Lease { mode: *mode, epoch: self.epoch })
    }

    /// The hosts that have one.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.held.keys().copied()
    }

    /// Whether another host may have one as well: not a third.
    pub fn can_share(&self, with: HostId) -> bool {
        self.held.len() == 1 && !self.held.contains_key(&with)
    }

    /// Another host has one as well; nothing where [`Self::can_share`] says no.
    pub fn share(&mut self, with: HostId) {
        if self.can_share(with) {
            self.held.insert(with, Mode::Shared);
            self.held.values_mut().for_each(|mode| *mode = Mode::Shared);
        }
    }

    /// Whether a host has one that can end: the last does not.
    pub fn can_end(&self, host: HostId) -> bool {
        self.held.len() > 1 && self.held.contains_key(&host)
    }

    /// A host has none any more, and the other one its own alone; nothing where [`Self::can_end`] says
    /// no.
    pub fn end(&mut self, host: HostId) {
        if self.can_end(host) {
            self.held.remove(&host);
            self.held.values_mut().for_each(|mode| *mode = Mode::Exclusive);
            self.epoch += 1;
        }
    }

    /// Whether it is this host's alone already.
    pub fn is_only(&self, host: HostId) -> bool {
        self.of(host).is_some_and(|lease| lease.mode == Mode::Exclusive)
    }

    /// It is this host's alone, whoever had it.
    pub fn take(&mut self, host: HostId) {
        if !self.is_only(host) {
            self.held = [(host, Mode::Exclusive)].into();
            self.epoch += 1;
        }
    }

    /// Whether a host that comes with a lease may act on it.
    ///
    /// # Errors
    /// `stale-epoch`: the host has another one by now, or none.
    pub fn check(&self, host: HostId, lease: Lease) -> Result<(), Refusal> {
        if self.of(host) == Some(lease) {
            return Ok(());
        }
        let detail = format!("the lease of {host} in epoch {} is over", lease.epoch);
        Err(Refusal::new(&codes::STALE_EPOCH, detail))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;

    fn host(id: u128) -> HostId {
        HostId::new(Uuid::from_u128(id))
    }

    /// Every sequence of so many acts, with every lease that was handed out on the way.
    fn walk(leases: &Leases, out: &[(HostId, Lease)], depth: u32, states: &mut usize) {
        *states += 1;
        let hosts = [host(1), host(2), host(3)];
        let held: Vec<Lease> = hosts.iter().filter_map(|host| leases.of(*host)).collect();
        let exclusive = held.iter().filter(|lease| lease.mode == Mode::Exclusive).count();
        assert!((1..=2).contains(&held.len()), "{held:?}");
        assert_eq!(exclusive, usize::from(held.len() == 1), "{held:?}");
        // Of all that anybody was ever told, what still counts is what is held.
        let count = out.iter().filter(|(host, lease)| leases.check(*host, *lease).is_ok());
        assert!(count.clone().all(|(_, lease)| held.contains(lease)), "{leases:?}");
        assert_eq!(count.collect::<BTreeSet<_>>().len(), held.len(), "{leases:?}");
        if depth == 0 {
            return;
        }
        for at in hosts {
            for act in [Leases::share, Leases::end, Leases::take] {
                let mut then = leases.clone();
                act(&mut then, at);
                if then == *leases {
                    continue;
                }
                let lost =
                    hosts.iter().any(|host| leases.of(*host).is_some() && then.of(*host).is_none());
                assert_eq!(then.epoch, leases.epoch + u64::from(lost), "{leases:?} {then:?}");
                let told = hosts.iter().filter_map(|host| Some((*host, then.of(*host)?)));
                let out: Vec<_> = out.iter().copied().chain(told).collect();
                walk(&then, &out, depth - 1, states);
            }
        }
    }

    #[test]
    fn there_are_never_two_exclusive_leases_whatever_comes_after_what() {
        let leases = Leases::granted(host(1));
        let out = [(host(1), leases.of(host(1)).unwrap())];
        let mut states = 0;
        walk(&leases, &out, 7, &mut states);
        assert!(states > 10_000, "{states}");
    }

    #[test]
    fn an_old_lease_is_over_and_what_is_done_twice_is_done_once() {
        let (one, other) = (host(1), host(2));
        let mut leases = Leases::granted(one);
        let first = leases.of(one).unwrap();
        assert_eq!(first, Lease { mode: Mode::Exclusive, epoch: 1 });
        leases.share(other);
        leases.share(other);
        leases.share(host(3));
        assert_eq!(leases.of(other), Some(Lease { mode: Mode::Shared, epoch: 1 }));
        assert_eq!(leases.of(host(3)), None, "two at most");
        assert!(leases.check(one, first).is_err(), "it is not its own alone any more");
        leases.take(other);
        leases.take(other);
        assert_eq!(leases.of(other), Some(Lease { mode: Mode::Exclusive, epoch: 2 }));
        assert_eq!(leases.check(one, first).unwrap_err().code.code, "stale-epoch");
        leases.end(other);
        assert!(leases.is_only(other), "the last one does not end");
        leases.share(one);
        leases.end(one);
        assert_eq!(leases.of(other), Some(Lease { mode: Mode::Exclusive, epoch: 3 }));
        assert_eq!(leases.hosts().collect::<Vec<_>>(), [other]);
    }
}
