//! A server's root disk, made from an image again.
//!
//! Everything that can stand in the way is looked at before anything is stopped. The new disk is made
//! beside the old one and takes its place in one step, which is written down: an agent that dies
//! afterwards does not do it once more to a server that runs by then.

use commands::ports::DriverFault;
use domain::compute::server::parts;

use super::{Inner, Record, Step, Work};

impl Inner {
    pub(super) async fn rebuild(
        &self,
        work: &Work<'_>,
        image: &parts::Image,
        start: bool,
    ) -> Result<(), DriverFault> {
        let server = work.server;
        let record = self.records.read(server).await?.unwrap_or_default();
        if record.rebuilt != Some(work.number) {
            let root = work.home.parts.disks.first();
            let root = root.ok_or_else(|| DriverFault::Rejected("it has no disk".to_owned()))?;
            // It is not removed from the cache while a disk is made on it.
            let taken = self.take(image, root.size_gib << 30);
            let taken = self.step(Step::Image, server, taken).await?;
            let lease = work.leases.get(&root.id).copied();
            let storage = self.storage_of(root.storage).await?.on(lease);
            storage.check_again(root.id, taken.origin()).await?;
            self.stop(server).await?;
            let on_image = root.storage.is_none();
            let make = async {
                storage.make_again(root.id, taken.origin(), on_image).await?;
                let record = Record { rebuilt: Some(work.number), ..record };
                Ok(self.records.write(server, &record).await?)
            };
            self.step(Step::Replace, server, make).await?;
        }
        let machine = self.describe(work).await?;
        if start {
            self.plug(work).await?;
            return self.run(work, &machine).await;
        }
        let wire = self.wire.get().await?;
        self.step(Step::Define, server, self.define(&wire, &machine)).await.map(drop)
    }
}
