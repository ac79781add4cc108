//! Over the network, to a stand-in for S3 that `./test` starts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use adapters_backup::{
    Asked, Fault, Store,
    chunk::Seal,
    objects::{
        Objects,
        s3::{Bucket, Keys, S3},
    },
};
use adapters_clouds::testing::{Fate, Hand, Proxy};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use std::sync::Mutex;
use uuid::Uuid;

use crate::rules::{Back, CHUNK, DISK, Disk, asked};

pub(crate) fn stand_in() -> String {
    std::env::var("SKYLEDGER_TEST_AWS")
        .expect("SKYLEDGER_TEST_AWS is the URL of a moto server; run ./test, which starts one")
}

/// A bucket of this test alone.
pub(crate) async fn bucket(url: &str) -> Bucket {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("backups-{nanos}-{number}");
    let made = Hand::new(&stand_in()).object("PUT", &name, Vec::new()).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    let endpoint = Some(url.to_owned());
    Bucket { endpoint, region: "us-east-1".into(), name, prefix: "of us/".into() }
}

pub(crate) fn s3(bucket: &Bucket) -> S3 {
    let keys = Keys { access_key_id: "AKIASKYLEDGERTEST00".into(), secret_access_key: "x".into() };
    S3::new(bucket.clone(), keys).unwrap().with_pause(Duration::from_millis(1))
}

#[tokio::test]
async fn objects_are_put_listed_and_removed() {
    let bucket = bucket(&stand_in()).await;
    let s3 = s3(&bucket).with_page_size(2);
    assert_eq!(s3.list("").await.unwrap(), []);
    for key in ["a/1", "a/2", "a/3 ä+&", "b/1", "b/2"] {
        s3.put(key, Bytes::from(key)).await.unwrap();
    }
    let listed = s3.list("a/").await.unwrap();
    let listed: Vec<_> = listed.iter().map(|one| (&*one.key, one.bytes)).collect();
    assert_eq!(listed, [("a/1", 3), ("a/2", 3), ("a/3 ä+&", 8)]);
    assert_eq!(s3.list("").await.unwrap().len(), 5);
    s3.put("c/ß", Bytes::from("old")).await.unwrap();
    s3.put("c/ß", Bytes::from("sharp")).await.unwrap();
    assert_eq!(s3.get("c/ß").await.unwrap().unwrap(), "sharp");
    assert_eq!(s3.size("a/3 ä+&").await.unwrap(), Some(8));
    assert!(s3.put_new("c/1", Bytes::from("new")).await.unwrap());
    assert!(!s3.put_new("c/1", Bytes::from("newer")).await.unwrap());
    assert_eq!(s3.get("c/1").await.unwrap().unwrap(), "new");
    for _ in 0..2 {
        s3.delete("c/ß").await.unwrap();
        assert_eq!(s3.size("c/ß").await.unwrap(), None);
        assert_eq!(s3.get("c/ß").await.unwrap(), None);
    }
    Store::new(Arc::new(s3), Seal::plain()).verify(Uuid::from_u128(1)).await.unwrap();
}

#[tokio::test]
async fn a_bucket_that_is_not_there_and_a_store_that_is_not_are_told_apart() {
    let mut bucket = bucket(&stand_in()).await;
    bucket.name.push_str("-none");
    let store = Store::new(Arc::new(s3(&bucket)), Seal::plain());
    let fault = store.verify(Uuid::from_u128(1)).await.unwrap_err();
    assert!(matches!(fault, Fault::Denied { .. }) && !fault.is_transient(), "{fault}");
    let fault = store.backups().await.unwrap_err();
    assert!(matches!(fault, Fault::Denied { .. }), "{fault}");
    bucket.endpoint = Some("http://127.0.0.1:9".into());
    let store = Store::new(Arc::new(s3(&bucket)), Seal::plain());
    let fault = store.verify(Uuid::from_u128(1)).await.unwrap_err();
    assert!(fault.is_transient(), "{fault}");
}

/// All that is done with a store, once; what was read back.
async fn everything(store: &Store) -> Result<Vec<u8>, Fault> {
    store.take(&asked(1, None), &Disk::of(&[1, 0, 2])).await?;
    let more = Disk { changed: Some([0].into()), ..Disk::of(&[3, 0, 2]) };
    store.take(&asked(2, Some(1)), &more).await?;
    store.forget(DISK, Uuid::from_u128(1)).await?;
    store.collect().await?;
    store.collect().await?;
    let back = Back(Mutex::new(vec![0; 3 * CHUNK]));
    store.restore((DISK, Uuid::from_u128(2)), None, &back).await?;
    Ok(back.0.into_inner().unwrap())
}

#[tokio::test]
async fn each_call_fails_once_and_is_made_again() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let wanted = Disk::of(&[3, 0, 2]).bytes;
    let count = {
        let bucket = bucket(proxy.url()).await;
        let store = Store::new(Arc::new(s3(&bucket)), Seal::plain());
        assert!(everything(&store).await.unwrap() == wanted);
        proxy.calls().len()
    };
    assert!(count > 25, "{count}");
    let fates = |nth: usize| {
        let says_no = [
            Fate::DropBefore,
            Fate::refuse(500, "InternalError"),
            Fate::refuse(429, "SlowDown"),
            Fate::throttle(1),
        ];
        [Fate::DropAfter, Fate::CutAnswer, says_no[nth % says_no.len()].clone()]
    };
    // Calls that run at once come in another order each time: it is counted that one was broken.
    let work = (1..=count).flat_map(|nth| fates(nth).map(|fate| (nth, fate)));
    let broken = AtomicUsize::new(0);
    let work = work.map(|(nth, fate)| {
        let (wanted, broken) = (&wanted, &broken);
        async move {
            let proxy = Proxy::start(&stand_in()).await.unwrap();
            let bucket = bucket(proxy.url()).await;
            proxy.script_nth(nth, fate.clone());
            let store = Store::new(Arc::new(s3(&bucket)), Seal::plain());
            let back = everything(&store).await.unwrap_or_else(|e| panic!("{nth} {fate:?}: {e}"));
            assert!(back == *wanted, "{nth} {fate:?}");
            broken.fetch_add(proxy.broken(), Ordering::Relaxed);
            let keys = s3(&bucket).list("").await.unwrap();
            // Two chunks, one manifest.
            assert_eq!(keys.len(), 3, "{nth} {fate:?}: {keys:#?}");
        }
    });
    futures::stream::iter(work).buffer_unordered(8).collect::<Vec<()>>().await;
    let (broken, tries) = (broken.into_inner(), count * 3);
    // How many calls there are differs by one or two, where equal chunks meet.
    assert!(broken + 4 * 3 >= tries, "{broken} of {tries}");
}

#[tokio::test]
async fn a_store_that_stays_away_is_a_fault_and_leaves_no_backup() {
    let proxy = Proxy::start(&stand_in()).await.unwrap();
    let bucket = bucket(proxy.url()).await;
    let store = Store::new(Arc::new(s3(&bucket)), Seal::plain());
    proxy.script(|seen| if seen.number > 5 { Fate::DropBefore } else { Fate::Forward });
    let fault = store.take(&asked(1, None), &Disk::of(&[1, 2, 3])).await.unwrap_err();
    assert!(fault.is_transient(), "{fault}");
    proxy.heal();
    assert_eq!(store.backups().await.unwrap(), []);
    store.take(&asked(1, None), &Disk::of(&[1, 2, 3])).await.unwrap();
    assert_eq!(store.backups().await.unwrap().len(), 1);
}

#[tokio::test]
async fn many_backups_of_one_store_at_once_share_chunks_and_all_come_back() {
    let bucket = bucket(&stand_in()).await;
    let store = Store::new(Arc::new(s3(&bucket)), Seal::with(&[1; 32]));
    let disk = |number: u8| Disk::of(&[1, 2, 3, number % 3, 10 + number]);
    let asked = |number: u8| Asked {
        disk: Uuid::from_u128(u128::from(number)),
        ..asked(100 + u128::from(number), None)
    };
    let work = (0..8).map(|number| {
        let store = store.clone();
        async move {
            store.take(&asked(number), &disk(number)).await?;
            // Somebody cleans up all the time.
            store.collect().await.map(drop)
        }
    });
    futures::stream::iter(work).buffer_unordered(8).try_collect::<Vec<()>>().await.unwrap();
    for number in 0..8 {
        let asked = asked(number);
        let back = Back(Mutex::new(vec![0; 5 * CHUNK]));
        store.restore((asked.disk, asked.backup), None, &back).await.unwrap();
        assert!(*back.0.lock().unwrap() == disk(number).bytes, "{number}");
    }
    for _ in 0..3 {
        store.collect().await.unwrap();
    }
    let keys = s3(&bucket).list("").await.unwrap();
    let chunks = keys.iter().filter(|one| one.key.starts_with("chunks/")).count();
    // 1, 2, 3 and eight of their own, and what several sent at once: at most each of the three by all
    // eight. Each has a manifest beside.
    assert_eq!(keys.len(), chunks + 8, "{keys:#?}");
    assert!((11..=11 + 3 * 7).contains(&chunks), "{chunks}");
}
