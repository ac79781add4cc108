//! Where no backups are kept.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use domain::compute::{backup_set::Description, backup_store::Collection};
use uuid::Uuid;

use crate::ports::{
    BackupStores, DriverFault, ImagePieces, ImageStores, StoreAccess, StoredBackup,
};

/// Reaches no store of backups.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBackups;

fn none<T>() -> Result<T, DriverFault> {
    Err(DriverFault::Transient("no backups are kept here".to_owned()))
}

#[async_trait]
impl ImageStores for NoBackups {
    async fn put_image(
        &self,
        _: &StoreAccess,
        _: Uuid,
        _: ImagePieces<'_>,
    ) -> Result<bool, DriverFault> {
        none()
    }

    async fn make_image(
        &self,
        _: &StoreAccess,
        _: Uuid,
        _: (Uuid, Uuid, &str),
    ) -> Result<(String, u64), DriverFault> {
        none()
    }

    async fn image_size(&self, _: &StoreAccess, _: Uuid) -> Result<Option<u64>, DriverFault> {
        none()
    }

    fn image_address(&self, _: &StoreAccess, _: Uuid, _: Duration) -> Result<String, DriverFault> {
        none()
    }

    async fn remove_image(&self, _: &StoreAccess, _: Uuid) -> Result<(), DriverFault> {
        none()
    }

    async fn sweep_images(
        &self,
        _: &StoreAccess,
        _: Duration,
    ) -> Result<BTreeSet<Uuid>, DriverFault> {
        none()
    }
}

#[async_trait]
impl BackupStores for NoBackups {
    async fn verify(&self, _: &StoreAccess) -> Result<(), DriverFault> {
        none()
    }

    async fn list(&self, _: &StoreAccess) -> Result<Vec<(Uuid, Uuid)>, DriverFault> {
        none()
    }

    async fn find(&self, _: &StoreAccess, _: Uuid, _: Uuid) -> Result<StoredBackup, DriverFault> {
        none()
    }

    async fn check(
        &self,
        _: &StoreAccess,
        _: Uuid,
        _: Uuid,
        _: &str,
    ) -> Result<Option<String>, DriverFault> {
        none()
    }

    async fn forget(&self, _: &StoreAccess, _: Uuid, _: Uuid) -> Result<(), DriverFault> {
        none()
    }

    async fn describe(&self, _: &StoreAccess, _: &Description) -> Result<(), DriverFault> {
        none()
    }

    async fn sets(&self, _: &StoreAccess) -> Result<Vec<Uuid>, DriverFault> {
        none()
    }

    async fn description(&self, _: &StoreAccess, _: Uuid) -> Result<Description, DriverFault> {
        none()
    }

    async fn forget_set(&self, _: &StoreAccess, _: Uuid) -> Result<(), DriverFault> {
        none()
    }

    async fn collect(&self, _: &StoreAccess) -> Result<Collection, DriverFault> {
        none()
    }
}
