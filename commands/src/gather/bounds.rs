//! How many more servers of a launch there can be, whatever hosts have room: by addresses, by volume groups, and by
//! what there is but one of.

use std::collections::BTreeMap;

use domain::{
    compute::{server::home::Launch, storage::StorageId},
    network::{addresses::Want, net::Network},
};
use serde::Serialize;
use uuid::Uuid;

use super::{Gathering, volume};
use crate::{
    fleet::Reached,
    ledger::{Ledger, LoadFault},
};

/// How many more there can be by one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// What it is: `address`, `hardware-address`, `hosts`, `machine`, `network` or `volume-group`.
    pub what: &'static str,
    /// Which; none for hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// So many.
    pub count: u64,
}

impl Bound {
    fn one(what: &'static str, of: &impl ToString) -> Self {
        Self { what, of: Some(of.to_string()), count: 1 }
    }
}

/// Everything but hosts.
pub(super) async fn bounds(
    gathering: &Gathering<'_>,
    launch: &Launch,
) -> Result<Vec<Bound>, LoadFault> {
    let mut bounds = Vec::new();
    // Somebody's machine comes here once.
    if let Some(ask) = &launch.move_in {
        bounds.push(Bound::one("machine", &ask.machine));
    }
    for nic in &launch.nics {
        bounds.extend(nic.mac.iter().map(|mac| Bound::one("hardware-address", mac)));
        let named = [nic.v4, nic.v6].into_iter().flatten().filter_map(|want| match want {
            Want::Named { address, .. } => Some(address),
            Want::Any {} => None,
        });
        bounds.extend(named.map(|address| Bound::one("address", &address)));
    }
    bounds.extend(addresses(gathering.ledger, launch).await?);
    let mut asked: BTreeMap<StorageId, u64> = BTreeMap::new();
    for disk in launch.parts.iter().flat_map(|parts| &parts.disks) {
        if let Some(storage) = disk.storage {
            *asked.entry(storage).or_default() += disk.size_gib;
        }
    }
    for (storage, gib) in asked {
        let Reached::Group(group) = gathering.ledger.reached(storage).await? else { continue };
        let Some(room) = group.room.as_ref() else { continue };
        let free_mib = volume::free_mib(gathering, storage, room, None).await?;
        let count = free_mib / (gib << 10).max(1);
        bounds.push(Bound { what: "volume-group", of: Some(storage.to_string()), count });
    }
    Ok(bounds)
}

/// By the addresses that its networks have left, of the family that has fewer.
async fn addresses(ledger: &Ledger, launch: &Launch) -> Result<Vec<Bound>, LoadFault> {
    let mut asked: BTreeMap<Uuid, (u128, u128)> = BTreeMap::new();
    for nic in launch.parts.iter().flat_map(|parts| &parts.nics) {
        let (v4, v6) = asked.entry(nic.network).or_default();
        for address in &nic.addresses {
            *(if address.addr().is_ipv4() { &mut *v4 } else { &mut *v6 }) += 1;
        }
    }
    let mut bounds = Vec::new();
    for (id, (v4, v6)) in asked {
        let (_, network) = ledger.typed::<Network>(&id.to_string()).await?;
        let Some(own) = network.own else { continue };
        let families = [(own.addresses.v4, v4), (own.addresses.v6, v6)];
        let left = families.into_iter().filter(|(_, asked)| *asked > 0);
        let left = left.filter_map(|(family, asked)| Some(family?.counts().free / asked)).min();
        if let Some(left) = left {
            let count = u64::try_from(left).unwrap_or(u64::MAX);
            bounds.push(Bound { what: "network", of: Some(id.to_string()), count });
        }
    }
    Ok(bounds)
}
