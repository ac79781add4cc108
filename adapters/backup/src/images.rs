//! Files of images, beside the backups: `images/<image>`.
//!
//! They are not sealed, unlike backups of a store with an encryption key: a host fetches such a file by an
//! address, and has no key of the store. Its digest is in the log.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::ports::{DriverFault, ImagePieces, ImageStores, StoreAccess};
use uuid::Uuid;

use crate::{
    fault::Fault,
    objects::Objects,
    port::{S3Stores, bucket, driver_fault},
};

/// What the keys of images begin with.
const FOLDER: &str = "images/";

fn key(image: Uuid) -> String {
    format!("{FOLDER}{image}")
}

fn told(fault: Fault) -> DriverFault {
    driver_fault(&fault)
}

#[async_trait]
impl ImageStores for S3Stores {
    async fn put_image(
        &self,
        store: &StoreAccess,
        image: Uuid,
        mut pieces: ImagePieces<'_>,
    ) -> Result<bool, DriverFault> {
        bucket(store)?.put_pieces(&key(image), &mut pieces).await.map_err(told)
    }

    async fn image_size(
        &self,
        store: &StoreAccess,
        image: Uuid,
    ) -> Result<Option<u64>, DriverFault> {
        bucket(store)?.size(&key(image)).await.map_err(told)
    }

    fn image_address(
        &self,
        store: &StoreAccess,
        image: Uuid,
        valid: Duration,
    ) -> Result<String, DriverFault> {
        bucket(store)?.address(&key(image), valid).map_err(told)
    }

    async fn remove_image(&self, store: &StoreAccess, image: Uuid) -> Result<(), DriverFault> {
        let (s3, key) = (bucket(store)?, key(image));
        // First what could still become a file.
        for upload in s3.uploads(&key).await.map_err(told)? {
            s3.abort(&upload.key, &upload.id).await.map_err(told)?;
        }
        s3.delete(&key).await.map_err(told)
    }

    async fn sweep_images(
        &self,
        store: &StoreAccess,
        begun_before: Duration,
    ) -> Result<BTreeSet<Uuid>, DriverFault> {
        let s3 = bucket(store)?;
        for upload in s3.uploads(FOLDER).await.map_err(told)? {
            let age = (DateTime::<Utc>::from(SystemTime::now()) - upload.begun)
                .to_std()
                .unwrap_or_default();
            if age >= begun_before {
                s3.abort(&upload.key, &upload.id).await.map_err(told)?;
            }
        }
        let listed = s3.list(FOLDER).await.map_err(told)?;
        // What is called otherwise is none of ours, and left alone.
        let read = |key: &str| key.strip_prefix(FOLDER)?.parse().ok();
        Ok(listed.iter().filter_map(|one| read(&one.key)).collect())
    }
}
