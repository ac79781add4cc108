//! Files of images, beside the backups: `images/<image>`.
//!
//! They are not sealed, unlike backups of a store with an encryption key: a host fetches such a file by an
//! address, and has no key of the store. Its digest is in the log.
//!
//! One that is made from a backup is a qcow2 file of its chunks ([`crate::qcow2`]), put there as it is read.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::{
    ports::{DriverFault, ImagePieces, ImageStores, StoreAccess},
    progress,
};
use domain::compute::image::UPLOAD_MIB_MAX;
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    chunk::hex,
    fault::Fault,
    objects::Objects,
    port::{S3Stores, bucket, driver_fault, open},
    qcow2::{Layout, padded},
};

/// Chunks that are fetched at once for an image.
const AT_ONCE: usize = 4;

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

    async fn make_image(
        &self,
        store: &StoreAccess,
        image: Uuid,
        (disk, backup, digest): (Uuid, Uuid, &str),
    ) -> Result<(String, u64), DriverFault> {
        let opened = open(store)?;
        let manifest = opened.manifest(disk, backup, Some(digest)).await.map_err(told)?;
        let layout = Layout::of(&manifest, UPLOAD_MIB_MAX << 20).map_err(told)?;
        progress::expect(layout.bytes());
        let head = futures::stream::iter(layout.head().map(Ok));
        // By number: whoever awaits this from another thread could not know how long a chunk is borrowed.
        let (all, from) = (&manifest, &opened);
        let chunks = (0..manifest.chunks.len())
            .map(|at| async move { from.content(all, &all.chunks[at]).await.map(padded) });
        let chunks = futures::stream::iter(chunks).buffered(AT_ONCE);
        // Looked at on its way; a fault breaks it off.
        let known = Mutex::new((Sha256::new(), None));
        let pieces = head.chain(chunks).map(|piece| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            match piece {
                Ok(piece) => {
                    known.0.update(&piece);
                    progress::add(piece.len() as u64);
                    Some(piece)
                }
                Err(fault) => {
                    known.1 = Some(fault);
                    None
                }
            }
        });
        let mut pieces = pieces.boxed();
        let put = bucket(store)?.put_pieces(&key(image), &mut pieces).await;
        drop(pieces);
        let (sha256, fault) = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = fault {
            return Err(told(fault));
        }
        if put.map_err(told)? {
            return Ok((hex(&sha256.finalize()), layout.bytes()));
        }
        Err(DriverFault::Unexpected("the file was put there in part".to_owned()))
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
