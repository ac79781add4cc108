//! Files of images in the stores that backups lie in.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use uuid::Uuid;

use super::{DriverFault, StoreAccess};

/// A file, piece by piece. Nothing in place of a piece breaks it off: what came so far is not wanted, and
/// whoever sends it knows why.
pub type ImagePieces<'a> = BoxStream<'a, Option<Vec<u8>>>;

/// What stores do with files of images. A file is there whole or not at all. Every call but a put can be
/// made again.
#[async_trait]
pub trait ImageStores: Send + Sync + 'static {
    /// Puts a file there, whatever was there; false when it was broken off, and nothing of it is kept.
    async fn put_image(
        &self,
        store: &StoreAccess,
        image: Uuid,
        pieces: ImagePieces<'_>,
    ) -> Result<bool, DriverFault>;
    /// Makes a file, qcow2, of all that a backup has, and puts it there: the disk, the backup and the digest
    /// of its manifest. Gives its SHA-256, in hexadecimal digits, and its size in bytes; made again it is the
    /// same.
    async fn make_image(
        &self,
        store: &StoreAccess,
        image: Uuid,
        backup: (Uuid, Uuid, &str),
    ) -> Result<(String, u64), DriverFault>;
    /// How large a file is, in bytes; none when it is not there.
    async fn image_size(
        &self,
        store: &StoreAccess,
        image: Uuid,
    ) -> Result<Option<u64>, DriverFault>;
    /// An address that gives whoever has it this file and nothing else, for so long.
    fn image_address(
        &self,
        store: &StoreAccess,
        image: Uuid,
        valid: Duration,
    ) -> Result<String, DriverFault>;
    /// Removes a file, and what was begun of it; that there is none is the same end.
    async fn remove_image(&self, store: &StoreAccess, image: Uuid) -> Result<(), DriverFault>;
    /// The images whose files lie there. What was begun more than this ago, and is not whole, is removed.
    async fn sweep_images(
        &self,
        store: &StoreAccess,
        begun_before: Duration,
    ) -> Result<BTreeSet<Uuid>, DriverFault>;
}
