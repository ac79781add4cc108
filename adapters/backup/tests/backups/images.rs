//! Files of images in a stand-in for S3 that `./test` starts: whole or not at all, and got by an address.

use std::{sync::Arc, time::Duration};

use adapters_backup::{Store, chunk::Seal, objects::Objects, port::S3Stores};
use adapters_clouds::testing::{Fate, Proxy};
use commands::ports::{ImageStores, StoreAccess, StoreKeys};
use domain::compute::backup_store::Place;
use futures::{StreamExt as _, stream};
use uuid::Uuid;

use crate::s3::{bucket, s3, stand_in};

const IMAGE: Uuid = Uuid::from_u128(7);
/// A part, and a little more.
const LARGE: usize = (16 << 20) + 12_345;

/// A store at this address, in a bucket of its own.
async fn access(url: &str) -> StoreAccess {
    let bucket = bucket(url).await;
    let place = Place {
        endpoint: bucket.endpoint,
        region: bucket.region,
        bucket: bucket.name,
        prefix: bucket.prefix,
    };
    let keys = StoreKeys {
        access_key_id: "AKIASKYLEDGERTEST00".into(),
        secret_access_key: "x".into(),
        encryption_key: None,
    };
    StoreAccess { place, keys }
}

/// Its bucket.
fn of(access: &StoreAccess) -> adapters_backup::objects::s3::S3 {
    let Place { endpoint, region, bucket, prefix } = access.place.clone();
    s3(&adapters_backup::objects::s3::Bucket { endpoint, region, name: bucket, prefix })
}

fn file(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

async fn put(access: &StoreAccess, file: &[u8], broken: bool) -> Result<bool, String> {
    let pieces =
        file.chunks(1 << 20).map(|piece| Some(piece.to_vec())).chain(broken.then_some(None));
    let pieces = stream::iter(pieces).boxed();
    S3Stores.put_image(access, IMAGE, pieces).await.map_err(|fault| fault.to_string())
}

async fn got(access: &StoreAccess) -> Vec<u8> {
    let address = S3Stores.image_address(access, IMAGE, Duration::from_hours(1)).unwrap();
    for part in ["X-Amz-Signature=", "X-Amz-Expires=3600", "X-Amz-Credential=AKIASKYLEDGERTEST00"] {
        assert!(address.contains(part), "{address}");
    }
    assert!(!address.contains("X-Amz-Security-Token"), "{address}");
    // Without anything but the address, as a host has it.
    let client = reqwest::Client::builder().no_proxy();
    let client = client.tls_certs_only(std::iter::empty::<reqwest::Certificate>()).build().unwrap();
    let answer = client.get(&address).send().await.unwrap().error_for_status().unwrap();
    answer.bytes().await.unwrap().into()
}

#[tokio::test]
async fn a_file_is_put_got_by_an_address_and_removed() {
    let access = access(&stand_in()).await;
    let bucket = of(&access);
    for bytes in [512, 16 << 20, LARGE] {
        let file = file(bytes);
        assert_eq!(put(&access, &file, false).await, Ok(true));
        assert!(got(&access).await == file, "{bytes}");
        let size = S3Stores.image_size(&access, IMAGE).await.unwrap();
        assert_eq!(size, Some(bytes as u64));
        assert_eq!(bucket.uploads("").await.unwrap(), []);
    }
    // Backups do not mind it.
    let store = Store::new(Arc::new(of(&access)), Seal::plain());
    store.collect().await.unwrap();
    let day = Duration::from_hours(24);
    assert_eq!(S3Stores.sweep_images(&access, day).await.unwrap(), [IMAGE].into());
    for _ in 0..2 {
        S3Stores.remove_image(&access, IMAGE).await.unwrap();
        assert_eq!(S3Stores.image_size(&access, IMAGE).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_is_broken_off_is_not_there_and_what_died_is_swept() {
    let access = access(&stand_in()).await;
    let bucket = of(&access);
    for bytes in [512, LARGE] {
        assert_eq!(put(&access, &file(bytes), true).await, Ok(false), "{bytes}");
        assert_eq!(bucket.uploads("").await.unwrap(), []);
        assert_eq!(bucket.list("").await.unwrap(), []);
    }
    // The process has died: an upload that nobody goes on with. Another file's stays.
    let key = format!("images/{IMAGE}");
    for key in [key.as_str(), "chunks/a"] {
        let upload = bucket.begin(key).await.unwrap();
        bucket.put_part(key, &upload, 1, file(5 << 20).into()).await.unwrap();
    }
    let none = std::collections::BTreeSet::new();
    // The stand-in says of every upload that it was begun in 2010.
    let century = Duration::from_hours(24 * 36_525);
    assert_eq!(S3Stores.sweep_images(&access, century).await.unwrap(), none);
    assert_eq!(bucket.uploads("images/").await.unwrap().len(), 1, "somebody may be at it");
    assert_eq!(S3Stores.sweep_images(&access, Duration::ZERO).await.unwrap(), none);
    let left = bucket.uploads("").await.unwrap();
    assert_eq!(left.iter().map(|one| &*one.key).collect::<Vec<_>>(), ["chunks/a"]);
    // One that an image has left goes with it, and cannot become a file any more.
    let upload = bucket.begin(&key).await.unwrap();
    let part = bucket.put_part(&key, &upload, 1, file(512).into()).await.unwrap();
    S3Stores.remove_image(&access, IMAGE).await.unwrap();
    assert!(bucket.complete(&key, &upload, &[part]).await.is_err());
    assert_eq!(S3Stores.image_size(&access, IMAGE).await.unwrap(), None);
}

#[tokio::test]
async fn each_call_of_an_upload_fails_once_and_the_file_is_whole_all_the_same() {
    let wanted = file(LARGE);
    // Begin, two parts, complete.
    for nth in 1..=4 {
        for fate in [Fate::DropAfter, Fate::CutAnswer, Fate::refuse(500, "InternalError")] {
            let proxy = Proxy::start(&stand_in()).await.unwrap();
            let access = access(proxy.url()).await;
            proxy.script_nth(nth, fate.clone());
            let put = put(&access, &wanted, false).await;
            assert_eq!(put, Ok(true), "{nth} {fate:?}");
            assert_eq!(proxy.broken(), 1, "{nth} {fate:?}");
            assert!(got(&access).await == wanted, "{nth} {fate:?}");
        }
    }
}
