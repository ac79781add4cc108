//! The leases that a host has of volumes which others reach as well, as the disks' own streams say.

use std::collections::BTreeMap;

use domain::compute::{disk::Disk, placement::HostId, server::Server, storage::lease::Lease};
use uuid::Uuid;

use crate::ledger::{Ledger, LoadFault};

impl Ledger {
    /// What leases a host has of the volumes of a server, by disk.
    pub(crate) async fn volume_leases(
        &self,
        host: Uuid,
        server: &Server,
    ) -> Result<BTreeMap<Uuid, Lease>, LoadFault> {
        let mut leases = BTreeMap::new();
        let disks = server.home.iter().flat_map(|home| &home.parts.disks);
        for disk in disks.filter(|disk| disk.leased) {
            let (_, state) = self.typed::<Disk>(&disk.id.to_string()).await?;
            let held = state.home.and_then(|home| home.leases?.of(HostId::new(host)));
            leases.extend(held.map(|lease| (disk.id, lease)));
        }
        Ok(leases)
    }
}
