//! Stores of backups for who knows them by their place and their keys.

use std::sync::Arc;

use async_trait::async_trait;
use commands::ports::{BackupStores, DriverFault, StoreAccess, StoreKeys, StoredBackup};
use domain::compute::{
    backup::Made,
    backup_set::Description,
    backup_store::{Collection, Place},
};
use uuid::Uuid;

use crate::{
    chunk::Seal,
    fault::Fault,
    manifest::Manifest,
    objects::s3::{Bucket, Keys, S3},
    store::Store,
    take::random_id,
};

/// Stores over the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Stores;

/// A fault and its causes in one text.
fn chain(fault: &Fault) -> String {
    let mut text = fault.to_string();
    let mut source = std::error::Error::source(fault);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What a fault of a store is to who carries orders out.
pub fn driver_fault(fault: &Fault) -> DriverFault {
    let said = chain(fault);
    match fault {
        Fault::Unreachable { .. } | Fault::Disk { .. } => DriverFault::Transient(said),
        Fault::Denied { .. } => DriverFault::Denied(said),
        Fault::Missing { .. } => DriverFault::NotFound(said),
        Fault::Unexpected { .. } => DriverFault::Unexpected(said),
        Fault::Damaged { .. } | Fault::Unfit(_) => DriverFault::Rejected(said),
    }
}

fn seal(keys: &StoreKeys) -> Result<Seal, DriverFault> {
    let Some(text) = &keys.encryption_key else { return Ok(Seal::plain()) };
    let mut key = [0; 32];
    let digits = text.as_bytes().chunks_exact(2).map(|two| {
        let two = std::str::from_utf8(two).ok()?;
        u8::from_str_radix(two, 16).ok()
    });
    let read = digits.collect::<Option<Vec<u8>>>().filter(|bytes| bytes.len() == key.len());
    let read = read.ok_or_else(|| DriverFault::Unexpected("the encryption key".to_owned()))?;
    key.copy_from_slice(&read);
    Ok(Seal::with(&key))
}

/// A store, as it is reached over the network.
///
/// # Errors
/// This machine cannot make a client, or the encryption key does not read.
pub fn open(access: &StoreAccess) -> Result<Store, DriverFault> {
    Ok(Store::new(Arc::new(bucket(access)?), seal(&access.keys)?))
}

/// Its bucket, with the keys to it.
pub(crate) fn bucket(access: &StoreAccess) -> Result<S3, DriverFault> {
    let Place { endpoint, region, bucket, prefix } = access.place.clone();
    let bucket = Bucket { endpoint, region, name: bucket, prefix };
    let StoreKeys { access_key_id, secret_access_key, .. } = access.keys.clone();
    let s3 = S3::new(bucket, Keys { access_key_id, secret_access_key });
    s3.map_err(|fault| driver_fault(&fault))
}

/// What is told of a backup.
pub fn made(manifest: &Manifest) -> Made {
    Made {
        digest: manifest.digest(),
        size_bytes: manifest.size_bytes,
        read_bytes: manifest.read_bytes,
        sent_bytes: manifest.sent_bytes,
        stored_bytes: manifest.stored_bytes(),
        chunks: manifest.chunks.len() as u64,
    }
}

#[async_trait]
impl BackupStores for S3Stores {
    async fn verify(&self, store: &StoreAccess) -> Result<(), DriverFault> {
        let by = random_id().map_err(|fault| driver_fault(&fault))?;
        open(store)?.verify(by).await.map_err(|fault| driver_fault(&fault))
    }

    async fn list(&self, store: &StoreAccess) -> Result<Vec<(Uuid, Uuid)>, DriverFault> {
        open(store)?.backups().await.map_err(|fault| driver_fault(&fault))
    }

    async fn find(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
    ) -> Result<StoredBackup, DriverFault> {
        let manifest = open(store)?.manifest(disk, backup, None).await;
        let manifest = manifest.map_err(|fault| driver_fault(&fault))?;
        let (parent, taken_at) = (manifest.parent, manifest.taken_at);
        Ok(StoredBackup { backup, disk, parent, taken_at, made: made(&manifest) })
    }

    async fn check(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
        digest: &str,
    ) -> Result<Option<String>, DriverFault> {
        match open(store)?.check((disk, backup), Some(digest)).await {
            Ok(_) => Ok(None),
            Err(fault @ (Fault::Damaged { .. } | Fault::Missing { .. })) => Ok(Some(chain(&fault))),
            Err(fault) => Err(driver_fault(&fault)),
        }
    }

    async fn forget(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
    ) -> Result<(), DriverFault> {
        open(store)?.forget(disk, backup).await.map_err(|fault| driver_fault(&fault))
    }

    async fn describe(&self, store: &StoreAccess, set: &Description) -> Result<(), DriverFault> {
        open(store)?.describe(set).await.map_err(|fault| driver_fault(&fault))
    }

    async fn sets(&self, store: &StoreAccess) -> Result<Vec<Uuid>, DriverFault> {
        open(store)?.sets().await.map_err(|fault| driver_fault(&fault))
    }

    async fn description(
        &self,
        store: &StoreAccess,
        set: Uuid,
    ) -> Result<Description, DriverFault> {
        let found = open(store)?.description(set).await.map_err(|fault| driver_fault(&fault))?;
        found.ok_or_else(|| DriverFault::NotFound(format!("there is no description of set {set}")))
    }

    async fn forget_set(&self, store: &StoreAccess, set: Uuid) -> Result<(), DriverFault> {
        open(store)?.forget_set(set).await.map_err(|fault| driver_fault(&fault))
    }

    async fn collect(&self, store: &StoreAccess) -> Result<Collection, DriverFault> {
        let sum = open(store)?.collect().await.map_err(|fault| driver_fault(&fault))?;
        let (condemned, removed, waits_for) = (sum.condemned, sum.removed, sum.waits_for);
        Ok(Collection { condemned, removed, waits_for })
    }
}
