//! Files of images in stores in memory, and hosts that fetch them from there.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use commands::ports::{DriverFault, ImagePieces, ImageStores, StoreAccess};
use domain::{compute::image::Source, kernel::sha256};
use futures::StreamExt;
use uuid::Uuid;

use super::{HostStep, SimHost, SimHosts, World};

/// What an address ends with that a store in memory has made.
const SIGNED: &str = "?signed";

fn there(world: &World, url: &str, image: Uuid) -> Option<u64> {
    world.kept.stores.get(url)?.images.get(&image).copied()
}

impl SimHosts {
    /// The files of images that really lie in a store, by its address, with their sizes in bytes.
    pub fn images(&self, url: &str) -> Vec<(Uuid, u64)> {
        let world = self.world();
        let store = world.kept.stores.get(url);
        store.map(|store| store.images.clone().into_iter().collect()).unwrap_or_default()
    }
}

impl SimHosts {
    /// A file lies in a store that nothing of the log says.
    pub fn leave_image(&self, url: &str, image: Uuid) {
        self.world().kept.stores.entry(url.to_owned()).or_default().images.insert(image, 0);
    }
}

impl SimHost {
    /// An image is fetched. What lies in a store comes by an address that is good for it; other addresses
    /// are elsewhere, and always answer.
    pub(super) fn fetch(&self, source: &Source) -> Result<(), DriverFault> {
        match source {
            Source::Store(store) => {
                let what = format!("no address of the image in store {store} came along");
                Err(DriverFault::Unexpected(what))
            }
            Source::Url(url) => {
                let Some(path) = url.strip_suffix(SIGNED) else { return Ok(()) };
                let found = path.rsplit_once("images/").and_then(|(store, image)| {
                    there(&self.hosts.world(), store, image.parse().ok()?)
                });
                let missing = || DriverFault::NotFound(format!("{path}: 404"));
                found.map(drop).ok_or_else(missing)
            }
            Source::Backup(_) | Source::Disk(_) => {
                Err(DriverFault::Unexpected("what it is made from, and not where it lies".into()))
            }
            Source::Upload => Ok(()),
        }
    }
}

#[async_trait]
impl ImageStores for SimHosts {
    async fn put_image(
        &self,
        store: &StoreAccess,
        image: Uuid,
        mut pieces: ImagePieces<'_>,
    ) -> Result<bool, DriverFault> {
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await {
            let Some(piece) = piece else { return Ok(false) };
            bytes += piece.len() as u64;
        }
        let url = store.place.url();
        // It is put again whatever is there.
        self.at_store(
            HostStep::StoreImage,
            store,
            |_| false,
            |world| {
                world.kept.stores.entry(url).or_default().images.insert(image, bytes);
            },
        )?;
        Ok(true)
    }

    async fn make_image(
        &self,
        store: &StoreAccess,
        image: Uuid,
        (_, backup, digest): (Uuid, Uuid, &str),
    ) -> Result<(String, u64), DriverFault> {
        let stored = self.world().kept.stored(store, backup).cloned();
        let stored =
            stored.ok_or_else(|| DriverFault::NotFound(format!("there is no backup {backup}")))?;
        if stored.damaged || stored.made().digest != digest {
            return Err(DriverFault::Rejected(format!("backup {backup} is damaged")));
        }
        let (url, bytes) = (store.place.url(), stored.content.len() as u64);
        self.at_store(
            HostStep::StoreImage,
            store,
            |_| false,
            |world| {
                world.kept.stores.entry(url).or_default().images.insert(image, bytes);
            },
        )?;
        let sha256 = sha256(stored.content.as_bytes());
        Ok((sha256.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")), bytes))
    }

    async fn image_size(
        &self,
        store: &StoreAccess,
        image: Uuid,
    ) -> Result<Option<u64>, DriverFault> {
        Ok(there(&self.world(), &store.place.url(), image))
    }

    fn image_address(
        &self,
        store: &StoreAccess,
        image: Uuid,
        _: Duration,
    ) -> Result<String, DriverFault> {
        Ok(format!("{}images/{image}{SIGNED}", store.place.url()))
    }

    async fn remove_image(&self, store: &StoreAccess, image: Uuid) -> Result<(), DriverFault> {
        let url = store.place.url();
        let gone = |world: &World| there(world, &url, image).is_none();
        self.at_store(HostStep::StoreImageRemoval, store, gone, |world| {
            if let Some(store) = world.kept.stores.get_mut(&url) {
                store.images.remove(&image);
            }
        })
    }

    async fn sweep_images(
        &self,
        store: &StoreAccess,
        _: Duration,
    ) -> Result<BTreeSet<Uuid>, DriverFault> {
        Ok(self.images(&store.place.url()).into_iter().map(|(image, _)| image).collect())
    }
}
