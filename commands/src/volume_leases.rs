//! The leases that a host has of volumes which others reach as well, as the disks' own streams say.

use std::collections::BTreeMap;

use domain::{
    compute::{disk::Disk, placement::HostId, server::Server, storage::lease::Lease},
    kernel::State,
};
use uuid::Uuid;

use crate::ledger::{Ledger, LoadFault};

impl Ledger {
    /// What leases a host has, by disk, of the volumes of a server and of those that an order needs besides.
    pub(crate) async fn volume_leases(
        &self,
        host: Uuid,
        server: &Server,
        subject: &dyn State,
    ) -> Result<BTreeMap<Uuid, Lease>, LoadFault> {
        let mut leases = BTreeMap::new();
        let disks = server.home.iter().flat_map(|home| &home.parts.disks);
        let mut disks: Vec<Uuid> =
            disks.filter(|disk| disk.leased).map(|disk| disk.id).chain(subject.volumes()).collect();
        disks.sort_unstable();
        disks.dedup();
        for disk in disks {
            let (_, state) = self.typed::<Disk>(&disk.to_string()).await?;
            let held = state.home.and_then(|home| home.leases?.of(HostId::new(host)));
            leases.extend(held.map(|lease| (disk, lease)));
        }
        Ok(leases)
    }
}
