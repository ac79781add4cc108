//! The addresses of a network: which are free, which next, and whose each is.
//!
//! ```text
//!            take                 release                cool-down over,
//!   free ──────────► taken ──────────────────► cooling ──────────────────► free
//!                      ▲                          │     or nothing else
//!                      └──────────────────────────┘     is free
//! ```
//!
//! An address has at most one holder. Which is next is decided here and recorded; the append at the
//! network's revision makes it so, and whoever loses the race decides again on what is then free. As
//! long as one address may be given, somebody who asks for any gets one: released addresses rest for a
//! while, but only as long as there are others.
//!
//! Free addresses are kept as ranges ([`Ranges`]), so that a subnet of 2⁸⁰ addresses costs what is
//! taken of it, not what is in it. Time and chance come in as arguments.

mod ranges;
mod subnet;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use ranges::Ranges;
pub use subnet::{Range, Step, Subnet};
// The types alone, without anything of the world.
pub use core::net::IpAddr;

use crate::kernel::{Refusal, codes};
use subnet::{address, number};

/// What is asked of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Want {
    /// The next one.
    Any {},
    /// This one.
    Named {
        /// Which.
        address: IpAddr,
        /// Whether it may be a reserved one: for those who reserve.
        #[serde(default)]
        reserved: bool,
    },
}

/// The addresses of a network: IPv4, IPv6 or both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Addresses {
    /// Its IPv4 addresses.
    pub v4: Option<Family>,
    /// Its IPv6 addresses.
    pub v6: Option<Family>,
}

/// The addresses of a subnet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Family {
    subnet: Subnet,
    /// [`Subnet::usable`].
    usable: Ranges,
    taken: BTreeMap<u128, Uuid>,
    /// When each was released.
    cooling: BTreeMap<u128, DateTime<Utc>>,
    /// The same, the one that has rested longest first.
    rested: BTreeSet<(DateTime<Utc>, u128)>,
    /// What may be given and is neither taken nor cooling.
    free: Ranges,
}

/// A family as it is stored: the rest follows from it.
#[derive(Serialize, Deserialize)]
struct Stored {
    subnet: Subnet,
    taken: BTreeMap<IpAddr, Uuid>,
    cooling: BTreeMap<IpAddr, DateTime<Utc>>,
    /// For readers.
    #[serde(default, skip_deserializing)]
    counts: Shown,
}

/// [`Counts`] as readers of JSON can take them: 2⁵³ − 1 stands for so many or more.
#[derive(Default, Serialize)]
struct Shown {
    usable: u64,
    free: u64,
    cooling: u64,
    taken: u64,
}

/// How many addresses are what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// May be given: of the ranges, without what is reserved.
    pub usable: u128,
    /// Of these, nobody's; those that rest among them.
    pub free: u128,
    /// Released a while ago, and resting.
    pub cooling: u128,
    /// Somebody's, reserved ones that were asked for by name among them.
    pub taken: u128,
}

impl Addresses {
    /// Of these subnets, none taken.
    ///
    /// # Errors
    /// `invalid-field`: there is no subnet, one of the wrong family, or [`Subnet::check`].
    pub fn new(v4: Option<Subnet>, v6: Option<Subnet>) -> Result<Self, Refusal> {
        let no = |detail: &str| Err(Refusal::new(&codes::INVALID_FIELD, detail));
        if v4.is_none() && v6.is_none() {
            return no("a network has an IPv4 subnet, an IPv6 subnet, or both");
        }
        if v4.as_ref().is_some_and(|subnet| !subnet.is_v4()) {
            return no("v4: it is an IPv6 subnet");
        }
        if v6.as_ref().is_some_and(Subnet::is_v4) {
            return no("v6: it is an IPv4 subnet");
        }
        Ok(Self { v4: v4.map(Family::new).transpose()?, v6: v6.map(Family::new).transpose()? })
    }

    /// The same addresses taken, with other subnets where they are named.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Family::with_subnet`].
    pub fn with(self, v4: Option<Subnet>, v6: Option<Subnet>) -> Result<Self, Refusal> {
        // Families are checked where there is nothing yet, too.
        if v4.is_some() || v6.is_some() {
            Self::new(v4.clone(), v6.clone())?;
        }
        let change = |known: Option<Family>, new: Option<Subnet>| match (known, new) {
            (Some(known), Some(new)) => known.with_subnet(new).map(Some),
            (None, Some(new)) => Family::new(new).map(Some),
            (known, None) => Ok(known),
        };
        Ok(Self { v4: change(self.v4, v4)?, v6: change(self.v6, v6)? })
    }

    /// Addresses for one holder, decided and not yet taken: IPv4 first. `chance` is a random number.
    ///
    /// # Errors
    /// As [`Family::choose`]; `address-not-given` when the network has not the family.
    pub fn choose(
        &self,
        v4: Option<Want>,
        v6: Option<Want>,
        now: DateTime<Utc>,
        chance: u128,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let mut out = Vec::new();
        for (want, family, name) in [(v4, &self.v4, "IPv4"), (v6, &self.v6, "IPv6")] {
            let Some(want) = want else { continue };
            let Some(family) = family else {
                let detail = format!("the network has no {name} subnet");
                return Err(Refusal::new(&codes::ADDRESS_NOT_GIVEN, detail));
            };
            out.push(family.choose(want, now, chance)?);
        }
        Ok(out)
    }

    /// The family an address belongs to.
    ///
    /// # Errors
    /// `address-not-given` when the network has no subnet of that family.
    pub fn family(&mut self, of: IpAddr) -> Result<&mut Family, Refusal> {
        let family = if of.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        family.as_mut().ok_or_else(|| {
            let detail = format!("{of}: the network has no subnet of this family");
            Refusal::new(&codes::ADDRESS_NOT_GIVEN, detail)
        })
    }
}

impl Family {
    /// Of a subnet, none taken.
    ///
    /// # Errors
    /// `invalid-field`: [`Subnet::check`].
    pub fn new(subnet: Subnet) -> Result<Self, Refusal> {
        subnet.check()?;
        Ok(Self::of(subnet, BTreeMap::new(), BTreeMap::new()))
    }

    fn of(
        subnet: Subnet,
        taken: BTreeMap<u128, Uuid>,
        cooling: BTreeMap<u128, DateTime<Utc>>,
    ) -> Self {
        let usable = subnet.usable();
        let mut free = usable.clone();
        for at in taken.keys().chain(cooling.keys()) {
            free.remove(*at, *at);
        }
        let rested = cooling.iter().map(|(address, since)| (*since, *address)).collect();
        Self { subnet, usable, taken, cooling, rested, free }
    }

    /// The same addresses taken, of a subnet that has changed. What is taken and no longer in its
    /// ranges stays with its holder until it is released.
    ///
    /// # Errors
    /// `invalid-field`: [`Subnet::check`], or an address that is taken lies outside the subnet.
    pub fn with_subnet(self, subnet: Subnet) -> Result<Self, Refusal> {
        subnet.check()?;
        let outside = self.taken.keys().filter(|at| !subnet.holds(**at)).count();
        if outside > 0 || subnet.is_v4() != self.subnet.is_v4() {
            let detail = format!("subnet: {outside} taken addresses lie outside {}", subnet.net);
            return Err(Refusal::new(&codes::INVALID_FIELD, detail));
        }
        let mut cooling = self.cooling;
        let usable = subnet.usable();
        cooling.retain(|at, _| usable.contains(*at));
        Ok(Self::of(subnet, self.taken, cooling))
    }

    /// Its subnet.
    pub fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    /// Whose an address is.
    pub fn holder(&self, of: IpAddr) -> Option<Uuid> {
        self.number(of).and_then(|at| self.taken.get(&at)).copied()
    }

    /// What is taken, with its holder, in order.
    pub fn taken(&self) -> impl Iterator<Item = (IpAddr, Uuid)> {
        let v4 = self.subnet.is_v4();
        self.taken.iter().map(move |(at, holder)| (address(v4, *at), *holder))
    }

    /// How many are what.
    pub fn counts(&self) -> Counts {
        let cooling = self.cooling.len() as u128;
        Counts {
            usable: self.usable.count(),
            free: self.free.count() + cooling,
            cooling,
            taken: self.taken.len() as u128,
        }
    }

    /// An address, decided and not yet taken. `chance` is a random number; it counts for
    /// [`Step::Random`] alone.
    ///
    /// # Errors
    /// `no-address-free` when every address that may be given is taken, and never otherwise when any
    /// will do; `address-taken` and `address-not-given` for a named one; `invalid-field` when the
    /// subnet gives only named ones.
    pub fn choose(&self, want: Want, now: DateTime<Utc>, chance: u128) -> Result<IpAddr, Refusal> {
        match want {
            Want::Named { address, reserved } => {
                self.check_named(address, reserved)?;
                Ok(address)
            }
            Want::Any {} => {
                let found = self.next(now, chance)?;
                Ok(address(self.subnet.is_v4(), found))
            }
        }
    }

    fn next(&self, now: DateTime<Utc>, chance: u128) -> Result<u128, Refusal> {
        // Those that have rested long enough are as good as any.
        let rested: BTreeSet<u128> = self
            .rested
            .iter()
            .take_while(|(since, _)| self.has_rested(*since, now))
            .map(|(_, address)| *address)
            .collect();
        let found = match self.subnet.step {
            Step::Fixed => {
                let detail = format!("{}: an address is given by name only", self.subnet.net);
                return Err(Refusal::new(&codes::INVALID_FIELD, detail));
            }
            Step::Up => self.free.first().into_iter().chain(rested.first().copied()).min(),
            Step::Down => self.free.last().into_iter().chain(rested.last().copied()).max(),
            Step::Random => {
                let all = self.free.count() + rested.len() as u128;
                let at = chance.checked_rem(all);
                at.and_then(|at| {
                    let rest = at.checked_sub(self.free.count());
                    match rest {
                        Some(rest) => rested.iter().nth(rest as usize).copied(),
                        None => self.free.nth(at),
                    }
                })
            }
        };
        // Otherwise the one that has rested longest.
        let found = found.or_else(|| self.rested.first().map(|(_, address)| *address));
        found.ok_or_else(|| {
            let (net, usable) = (self.subnet.net, self.usable.count());
            let detail = format!("{net}: all {usable} addresses that may be given are taken");
            Refusal::new(&codes::NO_ADDRESS_FREE, detail)
        })
    }

    fn has_rested(&self, since: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let rest = TimeDelta::seconds(i64::from(self.subnet.cooldown_s));
        since.checked_add_signed(rest).is_some_and(|until| until <= now)
    }

    /// The number of an address of this family.
    fn number(&self, of: IpAddr) -> Option<u128> {
        (of.is_ipv4() == self.subnet.is_v4()).then(|| number(of))
    }

    fn check_named(&self, of: IpAddr, reserved: bool) -> Result<u128, Refusal> {
        let no = |what: &str| {
            let detail = format!("{of}: {what} {}", self.subnet.net);
            Err(Refusal::new(&codes::ADDRESS_NOT_GIVEN, detail))
        };
        let Some(at) = self.number(of).filter(|at| self.subnet.holds(*at)) else {
            return no("it lies outside");
        };
        if let Some(holder) = self.taken.get(&at) {
            let detail = format!("{of}: it is {holder}'s");
            return Err(Refusal::new(&codes::ADDRESS_TAKEN, detail));
        }
        if self.usable.contains(at) {
            return Ok(at);
        }
        if self.subnet.is_own(at) {
            return no("it is the gateway or an address of the subnet itself,");
        }
        match (self.subnet.is_reserved(at), reserved) {
            (true, true) => Ok(at),
            (true, false) => no("it is reserved in"),
            (false, _) => no("it is in no range of"),
        }
    }

    /// Makes it the holder's. A reserved one may be taken: whether it may was asked before.
    ///
    /// # Errors
    /// `address-taken`, `address-not-given`; nothing changes then.
    pub fn take(&mut self, of: IpAddr, holder: Uuid) -> Result<(), Refusal> {
        let at = self.check_named(of, true)?;
        if let Some(since) = self.cooling.remove(&at) {
            self.rested.remove(&(since, at));
        }
        self.free.remove(at, at);
        self.taken.insert(at, holder);
        Ok(())
    }

    /// Makes one that is taken another holder's. One that nobody has stays free.
    pub fn pass(&mut self, of: IpAddr, holder: Uuid) {
        let at = self.number(of);
        if let Some(known) = at.and_then(|at| self.taken.get_mut(&at)) {
            *known = holder;
        }
    }

    /// Makes it nobody's; it rests from now on.
    ///
    /// # Errors
    /// `address-not-given` when it is not taken.
    pub fn release(&mut self, of: IpAddr, now: DateTime<Utc>) -> Result<Uuid, Refusal> {
        let found = self.number(of).and_then(|at| Some((at, self.taken.remove(&at)?)));
        let Some((at, holder)) = found else {
            return Err(Refusal::new(&codes::ADDRESS_NOT_GIVEN, format!("{of}: nobody has it")));
        };
        if self.usable.contains(at) {
            if self.subnet.cooldown_s == 0 {
                self.free.insert(at, at);
            } else {
                self.cooling.insert(at, now);
                self.rested.insert((now, at));
            }
        }
        Ok(holder)
    }
}

impl From<Stored> for Family {
    fn from(stored: Stored) -> Self {
        let numbers = |(of, holder): (IpAddr, Uuid)| (number(of), holder);
        let taken = stored.taken.into_iter().map(numbers).collect();
        let cooling = stored.cooling.into_iter().map(|(of, since)| (number(of), since));
        Self::of(stored.subnet, taken, cooling.collect())
    }
}

impl From<Counts> for Shown {
    fn from(counts: Counts) -> Self {
        let shown = |count: u128| count.min((1 << 53) - 1) as u64;
        let Counts { usable, free, cooling, taken } = counts;
        Self {
            usable: shown(usable),
            free: shown(free),
            cooling: shown(cooling),
            taken: shown(taken),
        }
    }
}

impl From<Family> for Stored {
    fn from(family: Family) -> Self {
        let v4 = family.subnet.is_v4();
        Self {
            counts: family.counts().into(),
            taken: family.taken().collect(),
            cooling: family.cooling.iter().map(|(at, since)| (address(v4, *at), *since)).collect(),
            subnet: family.subnet,
        }
    }
}
