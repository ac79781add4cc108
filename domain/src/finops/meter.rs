//! What was used, and from when to when: a resource's life is its meter.
//!
//! Nothing is sampled: what is there from one fact to the next is one use, and where one ends the
//! next begins. A server's processors and memory are used while it runs; its addresses, and disks,
//! while they are there.

use core::net::IpAddr;
use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{
    rate_set::{Meter, exactly},
    ratio::{Ratio, whole},
};
use crate::{
    compute::{
        disk::SeenDisk,
        server::{Machine, Power},
        shape::Equipment,
    },
    kernel::Facets,
};

/// What is used: the columns of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// Our id, or a name that others gave it.
    pub resource: String,
    /// What it is called.
    pub name: String,
    /// Its kind, for instance `server`.
    pub resource_type: String,
    /// The provider; empty for what lies in no cloud account.
    pub provider: String,
    /// The provider's id of the region.
    pub region: String,
    /// Who owns it.
    pub project: Option<Uuid>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Metered {
    /// A resource of a kind, as its row shows it.
    pub fn of(kind: &str, id: &str, facets: Facets) -> Self {
        Self {
            resource: id.to_owned(),
            name: facets.name.unwrap_or_default(),
            resource_type: kind.to_owned(),
            provider: facets.provider.unwrap_or_default(),
            region: facets.region.unwrap_or_default(),
            project: facets.project,
            tags: facets.tags,
        }
    }
}

/// How much there is of each meter, by meter and SKU.
pub type Quantities = BTreeMap<(Meter, String), Ratio>;

/// So much of something for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Of what.
    pub of: Arc<Metered>,
    /// Which meter.
    pub meter: Meter,
    /// A medium, a model, a shape, a class; may be empty.
    pub sku: String,
    /// How much: what is there all the time, or, of a flow, what passed in it.
    pub quantity: Ratio,
    /// Since when it is as much without a break, for this owner: granules are counted from there.
    pub begun: DateTime<Utc>,
    /// From when, inclusive.
    pub from: DateTime<Utc>,
    /// Until when, exclusive.
    pub to: DateTime<Utc>,
}

/// A resource's uses as they are found, from one moment to the next.
#[derive(Debug, Default)]
pub struct Timeline {
    now: Option<(DateTime<Utc>, Arc<Metered>, Quantities)>,
    begun: BTreeMap<(Meter, String), DateTime<Utc>>,
    done: Vec<Usage>,
}

impl Timeline {
    /// From this moment on it is so, until the next call. Moments do not go back.
    pub fn is(&mut self, at: DateTime<Utc>, of: Metered, quantities: Quantities) {
        if let Some((_, known, same)) = &self.now
            && **known == of
            && *same == quantities
        {
            return;
        }
        let before = self.now.take();
        let same_owner = before.as_ref().is_some_and(|(_, known, _)| known.project == of.project);
        self.settle(before.clone(), at);
        self.begun = quantities
            .iter()
            .map(|(key, quantity)| {
                let goes_on = same_owner
                    && before.as_ref().is_some_and(|(_, _, had)| had.get(key) == Some(quantity));
                let begun = if goes_on { self.begun.get(key).copied() } else { None };
                (key.clone(), begun.unwrap_or(at))
            })
            .collect();
        self.now = Some((at, Arc::new(of), quantities));
    }

    /// From this moment on it is not there.
    pub fn is_gone(&mut self, at: DateTime<Utc>) {
        let before = self.now.take();
        self.settle(before, at);
        self.begun.clear();
    }

    /// All its uses up to a moment, in the order of time.
    pub fn until(mut self, at: DateTime<Utc>) -> Vec<Usage> {
        self.is_gone(at);
        self.done
    }

    fn settle(
        &mut self,
        before: Option<(DateTime<Utc>, Arc<Metered>, Quantities)>,
        to: DateTime<Utc>,
    ) {
        let Some((from, of, quantities)) = before.filter(|(from, _, _)| *from < to) else { return };
        for ((meter, sku), quantity) in quantities {
            let begun = self.begun.get(&(meter, sku.clone())).copied().unwrap_or(from);
            self.done.push(Usage { of: of.clone(), meter, sku, quantity, begun, from, to });
        }
    }
}

/// What a server uses. A power that the provider does not tell is taken to be as before.
pub fn of_server(seen: &Machine, runs: bool, equipment: Option<&Equipment>) -> Quantities {
    let mut used = Quantities::new();
    let mut add = |meter, sku: &str, quantity: Ratio| {
        used.insert((meter, sku.to_owned()), quantity);
    };
    let addresses = seen.addresses.iter().filter(|one| is_public(one.addr())).count();
    if addresses > 0 {
        add(Meter::Ip, "", whole(addresses as i128));
    }
    let bare = equipment.is_some_and(|one| one.bare_metal);
    if bare {
        add(Meter::BareMetal, &seen.shape, whole(1));
    }
    if runs {
        add(Meter::Server, &seen.shape, whole(1));
    }
    let Some(equipment) = equipment.filter(|_| runs && !bare) else { return used };
    add(Meter::Vcpu, &seen.shape, whole(equipment.vcpus.into()));
    add(Meter::MemoryGib, &seen.shape, exactly(equipment.memory_gib));
    for (meter, cards) in [(Meter::Gpu, &equipment.gpus), (Meter::Vgpu, &equipment.vgpus)] {
        for (model, count) in cards {
            add(meter, model, whole((*count).into()));
        }
    }
    used
}

/// Whether a server runs, by what is seen and by what was before.
pub fn runs(power: Power, before: bool) -> bool {
    match power {
        // One that stands still keeps its place.
        Power::Running | Power::Suspended => true,
        Power::Unknown => before,
        Power::Starting | Power::Stopping | Power::Stopped => false,
    }
}

/// What a disk uses while it is there.
pub fn of_disk(seen: &SeenDisk) -> Quantities {
    [((Meter::DiskGib, seen.medium.clone()), whole(seen.size_gib.into()))].into()
}

/// Whether an address is one of the internet's.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_documentation()
                || shared)
        }
        // 2000::/3, without the one for documents.
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0x0db8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::Duration::minutes(minute)
    }

    fn named(name: &str) -> Metered {
        Metered { name: name.into(), ..Metered::default() }
    }

    #[test]
    fn what_is_there_leaves_no_gap_and_what_goes_on_is_counted_from_its_beginning() {
        let two = || Quantities::from([((Meter::Vcpu, "s".to_owned()), whole(2))]);
        let four = Quantities::from([((Meter::Vcpu, "s".to_owned()), whole(4))]);
        let mut timeline = Timeline::default();
        timeline.is(at(0), named("a"), two());
        timeline.is(at(1), named("a"), two());
        timeline.is(at(5), named("b"), two());
        timeline.is(at(7), named("b"), four);
        timeline.is_gone(at(9));
        timeline.is(at(20), named("b"), two());
        let minute = |time: DateTime<Utc>| (time - at(0)).num_minutes();
        let seen: Vec<_> = timeline
            .until(at(30))
            .iter()
            .map(|one| (one.of.name.clone(), minute(one.begun), minute(one.from), minute(one.to)))
            .collect();
        let expected = [("a", 0, 0, 5), ("b", 0, 5, 7), ("b", 7, 7, 9), ("b", 20, 20, 30)];
        assert_eq!(
            seen,
            expected.map(|(name, begun, from, to)| (name.to_owned(), begun, from, to))
        );
    }

    #[test]
    fn only_addresses_of_the_internet_count() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("169.254.1.1", false),
            ("192.0.2.1", false),
            ("2a00::1", true),
            ("fd00::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
