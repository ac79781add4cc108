//! What a backup promises, in a store in memory.

use std::{collections::BTreeSet, sync::Arc};

use adapters_backup::{
    Asked, Fault, Store,
    chunk::Seal,
    source::{Piece, Source},
    target::Target,
};
use async_trait::async_trait;
use chrono::DateTime;
use proptest::prelude::*;
use std::sync::Mutex;
use uuid::Uuid;

use crate::memory::{Dies, Memory};

pub(crate) const CHUNK: usize = 64 << 10;

/// A disk in memory, which may know what has changed.
pub(crate) struct Disk {
    pub(crate) bytes: Vec<u8>,
    /// The chunks that have changed since the parent; none when nobody knows.
    pub(crate) changed: Option<BTreeSet<u64>>,
}

impl Disk {
    /// Every chunk filled with its byte.
    pub(crate) fn of(fill: &[u8]) -> Self {
        let bytes = fill.iter().flat_map(|byte| vec![*byte; CHUNK]).collect();
        Self { bytes, changed: None }
    }
}

#[async_trait]
impl Source for Disk {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
    async fn piece(&self, at: u64, length: usize, may_be_same: bool) -> Result<Piece, Fault> {
        let is_same = |changed: &BTreeSet<u64>| !changed.contains(&(at / CHUNK as u64));
        if may_be_same && self.changed.as_ref().is_some_and(is_same) {
            return Ok(Piece::Same);
        }
        let at = usize::try_from(at).unwrap();
        Ok(Piece::Data(self.bytes[at..at + length].to_vec()))
    }
}

/// What was written back.
pub(crate) struct Back(pub(crate) Mutex<Vec<u8>>);

#[async_trait]
impl Target for Back {
    fn size_bytes(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
    async fn write(&self, at: u64, bytes: Vec<u8>) -> Result<(), Fault> {
        let at = usize::try_from(at).unwrap();
        self.0.lock().unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }
    async fn flush(&self) -> Result<(), Fault> {
        Ok(())
    }
}

pub(crate) const DISK: Uuid = Uuid::from_u128(0xd15c);

pub(crate) fn asked(backup: u128, parent: Option<u128>) -> Asked {
    Asked {
        backup: Uuid::from_u128(backup),
        disk: DISK,
        parent: parent.map(Uuid::from_u128),
        checkpoint: None,
        taken_at: DateTime::UNIX_EPOCH,
        chunk_bytes: CHUNK as u32,
    }
}

fn store(memory: &Memory, seal: Seal) -> Store {
    Store::new(Arc::new(memory.clone()), seal)
}

async fn restored(store: &Store, backup: u128, bytes: usize) -> Result<Vec<u8>, Fault> {
    let back = Back(Mutex::new(vec![0; bytes]));
    store.restore((DISK, Uuid::from_u128(backup)), None, &back).await?;
    Ok(back.0.into_inner().unwrap())
}

fn chunks(memory: &Memory) -> usize {
    memory.keys().iter().filter(|key| key.starts_with("chunks/")).count()
}

#[tokio::test]
async fn what_is_there_is_not_sent_again_and_zeroes_are_nowhere() {
    for seal in [Seal::plain(), Seal::with(&[9; 32])] {
        let memory = Memory::default();
        let store = store(&memory, seal);
        let mut disk = Disk::of(&[1, 0, 2, 1, 0, 3]);
        let full = store.take(&asked(1, None), &disk).await.unwrap();
        assert_eq!((full.chunks.len(), chunks(&memory)), (4, 3));
        assert_eq!(full.read_bytes, 6 * CHUNK as u64);
        assert_eq!(full.sent_bytes, full.stored_bytes(), "each content once");
        assert!(full.stored_bytes() < 1_000, "it is compressed: {full:?}");
        memory.puts();

        disk.bytes[3 * CHUNK] = 9;
        disk.changed = Some([3].into());
        let more = store.take(&asked(2, Some(1)), &disk).await.unwrap();
        assert_eq!((more.chunks.len(), more.read_bytes), (4, CHUNK as u64));
        let puts = memory.puts();
        assert_eq!(puts.iter().filter(|key| key.starts_with("chunks/")).count(), 1, "{puts:?}");
        // Another disk with the same content sends nothing.
        let twin = Asked { disk: Uuid::from_u128(7), ..asked(3, None) };
        let twin = store.take(&twin, &Disk::of(&[1, 0, 2, 1, 0, 3])).await.unwrap();
        assert_eq!(twin.sent_bytes, 0);

        assert_eq!(restored(&store, 2, disk.bytes.len()).await.unwrap(), disk.bytes);
        let first = Disk::of(&[1, 0, 2, 1, 0, 3]).bytes;
        assert_eq!(restored(&store, 1, first.len()).await.unwrap(), first);
        assert_eq!(store.check((DISK, Uuid::from_u128(2)), Some(&more.digest())).await.unwrap(), 4);
        // No backup needs another.
        store.forget(DISK, Uuid::from_u128(1)).await.unwrap();
        for _ in 0..2 {
            store.collect().await.unwrap();
        }
        assert_eq!(restored(&store, 2, disk.bytes.len()).await.unwrap(), disk.bytes);
        let small = restored(&store, 2, CHUNK).await.unwrap_err();
        assert!(matches!(small, Fault::Unfit(_)), "{small}");
    }
}

#[tokio::test]
async fn nobody_who_reads_the_store_can_ask_what_is_in_it() {
    let memory = Memory::default();
    let content = Disk::of(&[5]);
    store(&memory, Seal::with(&[9; 32])).take(&asked(1, None), &content).await.unwrap();
    let plain = Seal::plain().name(&content.bytes);
    assert!(!memory.keys().iter().any(|key| key.contains(&plain)));
    let other = store(&memory, Seal::with(&[8; 32]));
    let fault = restored(&other, 1, CHUNK).await.unwrap_err();
    assert!(matches!(fault, Fault::Damaged { .. }), "{fault}");
}

#[tokio::test]
async fn what_is_damaged_or_missing_is_named_with_its_place() {
    let memory = Memory::default();
    let store = store(&memory, Seal::plain());
    let disk = Disk::of(&[1, 2, 3]);
    let taken = store.take(&asked(1, None), &disk).await.unwrap();
    let name = &taken.chunks[1].name;
    let key = taken.chunks[1].key();
    let is_named = |fault: Fault, how: &str| {
        let text = fault.to_string();
        assert!(text.contains(name) && text.contains("byte 65536") && text.contains(how), "{text}");
    };
    // A chunk that reads well, and is another one.
    let other = taken.chunks[0].key();
    let mut bytes = Vec::new();
    memory.meddle(&other, |found| {
        bytes.clone_from(found);
        true
    });
    let mut good = Vec::new();
    memory.meddle(&key, |found| {
        good = std::mem::replace(found, bytes);
        true
    });
    is_named(restored(&store, 1, disk.bytes.len()).await.unwrap_err(), "damaged");
    memory.meddle(&key, |found| {
        *found = good[..good.len() - 1].to_vec();
        true
    });
    is_named(restored(&store, 1, disk.bytes.len()).await.unwrap_err(), "damaged");
    is_named(store.check((DISK, taken.backup), None).await.unwrap_err(), "damaged");
    // The next backup notices by its length, and sends it again.
    let more = Disk { changed: Some([].into()), ..Disk::of(&[1, 2, 3]) };
    store.take(&asked(2, Some(1)), &more).await.unwrap();
    assert_eq!(restored(&store, 1, disk.bytes.len()).await.unwrap(), disk.bytes);
    memory.meddle(&key, |_| false);
    is_named(restored(&store, 1, disk.bytes.len()).await.unwrap_err(), "missing");

    let fault = store.manifest(DISK, taken.backup, Some(&"0".repeat(64))).await.unwrap_err();
    assert!(matches!(fault, Fault::Damaged { .. }), "{fault}");
    memory.meddle(&format!("manifests/{DISK}/{}", taken.backup), |bytes| {
        bytes[9] ^= 1;
        true
    });
    let fault = store.manifest(DISK, taken.backup, None).await.unwrap_err();
    assert!(matches!(fault, Fault::Damaged { .. }), "{fault}");
    // Of a manifest that does not read nobody knows what it needs.
    store.collect().await.unwrap_err();
    let fault = restored(&store, 9, CHUNK).await.unwrap_err();
    assert!(matches!(fault, Fault::Missing { .. }), "{fault}");
}

#[tokio::test]
async fn a_disk_that_grew_and_one_of_an_odd_size_come_back() {
    let memory = Memory::default();
    let store = store(&memory, Seal::plain());
    let mut disk = Disk::of(&[1, 2]);
    disk.bytes.truncate(CHUNK + 512);
    store.take(&asked(1, None), &disk).await.unwrap();
    assert_eq!(restored(&store, 1, CHUNK + 512).await.unwrap(), disk.bytes);
    let grown = Disk {
        bytes: [disk.bytes.clone(), vec![4; 2 * CHUNK]].concat(),
        changed: Some([2].into()),
    };
    store.take(&asked(2, Some(1)), &grown).await.unwrap();
    assert_eq!(restored(&store, 2, grown.bytes.len()).await.unwrap(), grown.bytes);
    // Cut off again: what was the last chunk is another now.
    let cut = Disk { bytes: grown.bytes[..2 * CHUNK - 512].to_vec(), changed: Some([].into()) };
    store.take(&asked(3, Some(2)), &cut).await.unwrap();
    assert_eq!(restored(&store, 3, cut.bytes.len()).await.unwrap(), cut.bytes);
    let orphan = store.take(&asked(4, Some(99)), &cut).await.unwrap_err();
    assert!(matches!(orphan, Fault::Missing { .. }), "{orphan}");
}

#[tokio::test]
async fn a_backup_that_died_at_any_step_is_whole_or_not_there_and_can_be_taken_again() {
    for dies in [Dies::Before, Dies::After] {
        let mut call = 0;
        loop {
            call += 1;
            let memory = Memory::default();
            let store = store(&memory, Seal::plain());
            let first = Disk::of(&[1, 0, 2, 3]);
            store.take(&asked(1, None), &first).await.unwrap();
            let more = Disk { changed: Some([0, 3].into()), ..Disk::of(&[4, 0, 2, 5]) };
            memory.die_at(call, dies);
            let taken = store.take(&asked(2, Some(1)), &more).await;
            let died = memory.heal();
            assert_eq!(taken.is_err(), died == 1, "{call}");
            let backups = store.backups().await.unwrap().len();
            if backups == 2 {
                assert_eq!(restored(&store, 2, more.bytes.len()).await.unwrap(), more.bytes);
            }
            let again = store.take(&asked(2, Some(1)), &more).await.unwrap();
            if let Ok(taken) = taken {
                assert_eq!(taken, again);
            }
            assert_eq!(restored(&store, 2, more.bytes.len()).await.unwrap(), more.bytes);
            assert_eq!(restored(&store, 1, first.bytes.len()).await.unwrap(), first.bytes);
            assert!(!memory.keys().iter().any(|key| key.starts_with("running/")), "{call}");
            if died == 0 {
                break;
            }
        }
        assert!(call > 10, "{call}");
    }
}

#[tokio::test]
async fn retention_that_died_at_any_step_ends_with_what_is_needed_and_nothing_else() {
    for dies in [Dies::Before, Dies::After] {
        let mut call = 0;
        loop {
            call += 1;
            let memory = Memory::default();
            let store = store(&memory, Seal::plain());
            for (id, fill) in [(1, [1, 2, 3]), (2, [1, 4, 5]), (3, [6, 4, 0])] {
                store.take(&asked(id, None), &Disk::of(&fill)).await.unwrap();
            }
            memory.die_at(call, dies);
            let work = async {
                store.forget(DISK, Uuid::from_u128(1)).await?;
                store.collect().await?;
                // One more counts on what was condemned, before that goes.
                store.take(&asked(4, None), &Disk::of(&[2, 0, 0])).await?;
                store.collect().await?;
                Ok::<_, Fault>(())
            };
            let done = work.await;
            let died = memory.heal();
            assert_eq!(done.is_err(), died == 1, "{call}");
            store.forget(DISK, Uuid::from_u128(1)).await.unwrap();
            store.take(&asked(4, None), &Disk::of(&[2, 0, 0])).await.unwrap();
            for _ in 0..3 {
                store.collect().await.unwrap();
            }
            let kept = memory.keys();
            // 1, 4, 5 · 6 · 2, and three manifests: no mark, nothing condemned.
            assert_eq!(kept.len(), 5 + 3, "{call} {kept:#?}");
            assert_eq!(restored(&store, 2, 3 * CHUNK).await.unwrap(), Disk::of(&[1, 4, 5]).bytes);
            assert_eq!(restored(&store, 3, 3 * CHUNK).await.unwrap(), Disk::of(&[6, 4, 0]).bytes);
            assert_eq!(restored(&store, 4, 3 * CHUNK).await.unwrap(), Disk::of(&[2, 0, 0]).bytes);
            if died == 0 {
                break;
            }
        }
        assert!(call > 20, "{call}");
    }
}

#[tokio::test]
async fn a_backup_that_was_given_up_keeps_what_was_condemned_until_it_is_forgotten() {
    let memory = Memory::default();
    let store = store(&memory, Seal::plain());
    store.take(&asked(1, None), &Disk::of(&[1])).await.unwrap();
    memory.die_at(4, Dies::After);
    store.take(&asked(2, None), &Disk::of(&[1, 2, 3])).await.unwrap_err();
    memory.heal();
    store.forget(DISK, Uuid::from_u128(1)).await.unwrap();
    for _ in 0..3 {
        let collected = store.collect().await.unwrap();
        assert_eq!(collected.waits_for, [Uuid::from_u128(2)].into());
        assert_eq!(collected.removed, 0);
    }
    store.forget(DISK, Uuid::from_u128(2)).await.unwrap();
    for _ in 0..2 {
        store.collect().await.unwrap();
    }
    assert_eq!(memory.keys(), [""; 0]);
}

/// A disk during whose reading somebody forgets its backup.
struct Forgetting(Store);

#[async_trait]
impl Source for Forgetting {
    fn size_bytes(&self) -> u64 {
        CHUNK as u64
    }
    async fn piece(&self, _: u64, length: usize, _: bool) -> Result<Piece, Fault> {
        self.0.forget(DISK, Uuid::from_u128(1)).await?;
        Ok(Piece::Data(vec![1; length]))
    }
}

#[tokio::test]
async fn a_backup_that_is_forgotten_while_it_is_taken_does_not_come_to_be() {
    let memory = Memory::default();
    let store = store(&memory, Seal::plain());
    let fault = store.take(&asked(1, None), &Forgetting(store.clone())).await.unwrap_err();
    assert!(fault.to_string().contains("was forgotten"), "{fault}");
    assert_eq!(store.backups().await.unwrap(), []);
    // Two tries of one backup are one, and neither takes it from the other.
    let disk = Disk::of(&[1, 2]);
    let (one, two) = (asked(2, None), asked(2, None));
    let (one, two) = tokio::join!(store.take(&one, &disk), store.take(&two, &disk));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(restored(&store, 2, disk.bytes.len()).await.unwrap(), disk.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_row_of_backups_comes_back_byte_by_byte(
        key in any::<Option<[u8; 32]>>(),
        first in proptest::collection::vec(0_u8..4, 1..8),
        changes in proptest::collection::vec((any::<bool>(), proptest::collection::btree_map(0_usize..8, 0_u8..4, 0..4)), 0..4),
        tail in 0_usize..128,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let memory = Memory::default();
            let seal = key.map_or_else(Seal::plain, |key| Seal::with(&key));
            let store = store(&memory, seal);
            let mut disk = Disk::of(&first);
            let size = disk.bytes.len() - tail * 512;
            disk.bytes.truncate(size);
            let mut all = vec![disk.bytes.clone()];
            store.take(&asked(1, None), &disk).await.unwrap();
            for (number, (is_known, change)) in changes.iter().enumerate() {
                let mut touched = BTreeSet::new();
                for (at, byte) in change.iter().filter(|(at, _)| **at * CHUNK < size) {
                    disk.bytes[*at * CHUNK] = *byte;
                    touched.insert(*at as u64);
                }
                disk.changed = is_known.then_some(touched);
                let number = number as u128;
                store.take(&asked(number + 2, Some(number + 1)), &disk).await.unwrap();
                all.push(disk.bytes.clone());
            }
            for (at, bytes) in all.iter().enumerate() {
                let back = restored(&store, at as u128 + 1, size).await.unwrap();
                assert!(back == *bytes, "backup {at}");
            }
        });
    }
}
