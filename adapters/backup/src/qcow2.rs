//! A qcow2 file of what a backup has, from its first byte to its last: where everything lies is worked out
//! before anything is read, so nothing is kept, and the same backup is the same file.
//!
//! ```text
//! header │ refcount table │ refcount blocks │ L1 table │ L2 tables that have something │ the chunks, in turn
//! ```
//!
//! It is of version 3, with clusters of 64 KiB, and uses none of its features. A chunk is one cluster or
//! several, and never in two L2 tables. What no chunk has is nowhere, and reads as zeroes.

use crate::{fault::Fault, manifest::Manifest};

/// A cluster, in bits of its size.
const CLUSTER_BITS: u32 = 16;
/// A cluster, in bytes.
pub(crate) const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of a table of 8 bytes each, in a cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// Clusters that one refcount block counts, in 2 bytes each.
const COUNTED: u64 = CLUSTER / 2;
/// Begins a file.
const MAGIC: u32 = 0x5146_49fb;
/// The first form that says how long its header is.
const VERSION: u32 = 3;
/// How long the header is.
const HEADER_BYTES: u32 = 104;
/// Refcounts have 16 bits.
const REFCOUNT_ORDER: u32 = 4;
/// Says that a cluster is had by nobody else, and may be written.
const OWN: u64 = 1 << 63;

/// Where everything lies, in clusters.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    manifest: &'a Manifest,
    l1_entries: u64,
    /// The parts of the disk that have an L2 table, in turn.
    l2: Vec<u64>,
    refcount_table: u64,
    refcount_blocks: u64,
    l1: u64,
    /// How many there are.
    clusters: u64,
}

impl<'a> Layout<'a> {
    /// That of a backup, in at most so many bytes.
    ///
    /// # Errors
    /// More is written on the disk.
    pub(crate) fn of(manifest: &'a Manifest, bytes_max: u64) -> Result<Self, Fault> {
        let l1_entries = manifest.size_bytes.div_ceil(CLUSTER * ENTRIES);
        let mut l2: Vec<u64> = manifest.chunks.iter().map(|one| l2_of(manifest, one.at)).collect();
        l2.dedup();
        let data = manifest.chunks.iter().map(|chunk| clusters(manifest, chunk.at)).sum::<u64>();
        let l1 = l1_entries.div_ceil(ENTRIES);
        let others = 1 + l1 + l2.len() as u64 + data;
        // The tables count themselves.
        let (mut table, mut blocks) = (1, 1);
        loop {
            let wanted = (others + table + blocks).div_ceil(COUNTED);
            let tables = wanted.div_ceil(ENTRIES);
            if (wanted, tables) == (blocks, table) {
                break;
            }
            (blocks, table) = (wanted.max(blocks), tables.max(table));
        }
        let clusters = others + table + blocks;
        if clusters * CLUSTER > bytes_max {
            let gib = (clusters * CLUSTER).div_ceil(1 << 30);
            let what =
                format!("{gib} GiB are written on the disk: an image has {}", bytes_max >> 30);
            return Err(Fault::Unfit(what));
        }
        Ok(Self {
            manifest,
            l1_entries,
            l2,
            refcount_table: table,
            refcount_blocks: blocks,
            l1,
            clusters,
        })
    }

    /// How long the file is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.clusters * CLUSTER
    }

    fn l1_at(&self) -> u64 {
        1 + self.refcount_table + self.refcount_blocks
    }

    fn l2_at(&self) -> u64 {
        self.l1_at() + self.l1
    }

    /// What is before the chunks, cluster by cluster.
    pub(crate) fn head(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        std::iter::once(self.header())
            .chain(Self::table(1 + self.refcount_table, self.refcount_blocks, self.refcount_table))
            .chain((0..self.refcount_blocks).map(|at| self.refcounts(at)))
            .chain((0..self.l1).map(|at| self.l1_table(at)))
            .chain(self.l2_tables())
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(CLUSTER as usize);
        let words = |bytes: &mut Vec<u8>, words: &[u32]| {
            bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        };
        let longs = |bytes: &mut Vec<u8>, longs: &[u64]| {
            bytes.extend(longs.iter().flat_map(|long| long.to_be_bytes()));
        };
        words(&mut bytes, &[MAGIC, VERSION]);
        // Nothing is behind it.
        longs(&mut bytes, &[0]);
        words(&mut bytes, &[0, CLUSTER_BITS]);
        longs(&mut bytes, &[self.manifest.size_bytes]);
        words(&mut bytes, &[0, self.l1_entries as u32]);
        longs(&mut bytes, &[self.l1_at() * CLUSTER, CLUSTER]);
        words(&mut bytes, &[self.refcount_table as u32, 0]);
        // No snapshots, and none of its features.
        longs(&mut bytes, &[0; 4]);
        words(&mut bytes, &[REFCOUNT_ORDER, HEADER_BYTES]);
        bytes.resize(CLUSTER as usize, 0);
        bytes
    }

    /// A table of so many clusters, that lie one behind the other from `first`.
    fn table(first: u64, count: u64, clusters: u64) -> impl Iterator<Item = Vec<u8>> {
        (0..clusters).map(move |part| {
            let entry = |at: u64| if at < count { (first + at) * CLUSTER } else { 0 };
            entries((part * ENTRIES..(part + 1) * ENTRIES).map(entry))
        })
    }

    fn refcounts(&self, block: u64) -> Vec<u8> {
        let all = block * COUNTED..(block + 1) * COUNTED;
        all.flat_map(|at| u16::from(at < self.clusters).to_be_bytes()).collect()
    }

    fn l1_table(&self, part: u64) -> Vec<u8> {
        let range = part * ENTRIES..(part + 1) * ENTRIES;
        let mut next = self.l2.partition_point(|at| *at < range.start);
        let entry = |at: u64| {
            if self.l2.get(next) != Some(&at) {
                return 0;
            }
            next += 1;
            OWN | ((self.l2_at() + next as u64 - 1) * CLUSTER)
        };
        entries(range.map(entry))
    }

    fn l2_tables(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let each = u64::from(self.manifest.chunk_bytes) / CLUSTER;
        let (mut chunks, mut next) = (self.manifest.chunks.iter().peekable(), self.l2_at());
        next += self.l2.len() as u64;
        self.l2.iter().map(move |l2| {
            let mut table = vec![0; ENTRIES as usize];
            while let Some(chunk) = chunks.next_if(|one| l2_of(self.manifest, one.at) == *l2) {
                for part in 0..clusters(self.manifest, chunk.at) {
                    table[((chunk.at * each + part) % ENTRIES) as usize] = OWN | (next * CLUSTER);
                    next += 1;
                }
            }
            entries(table.into_iter())
        })
    }
}

fn entries(all: impl Iterator<Item = u64>) -> Vec<u8> {
    all.flat_map(u64::to_be_bytes).collect()
}

/// How many clusters a chunk has: the last of a disk may be cut off.
fn clusters(manifest: &Manifest, at: u64) -> u64 {
    (Manifest::length(manifest.size_bytes, manifest.chunk_bytes, at) as u64).div_ceil(CLUSTER)
}

/// Which L2 table knows of a chunk.
fn l2_of(manifest: &Manifest, at: u64) -> u64 {
    at * u64::from(manifest.chunk_bytes) / (CLUSTER * ENTRIES)
}

/// A chunk as it lies in the file: whole clusters.
pub(crate) fn padded(mut content: Vec<u8>) -> Vec<u8> {
    content.resize(content.len().next_multiple_of(CLUSTER as usize), 0);
    content
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use domain::compute::image::header::{Claim, read as claim};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::manifest::Placed;

    fn manifest(size_bytes: u64, chunk_bytes: u32, chunks: BTreeSet<u64>) -> Manifest {
        let placed =
            |at: u64| Placed { at, name: String::new(), upload: String::new(), stored_bytes: 0 };
        Manifest {
            form: 1,
            backup: Uuid::nil(),
            disk: Uuid::nil(),
            parent: None,
            checkpoint: None,
            taken_at: chrono::DateTime::UNIX_EPOCH,
            size_bytes,
            chunk_bytes,
            chunks: chunks.into_iter().map(placed).collect(),
            read_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// A number in the file.
    fn at(file: &[u8], at: u64, bytes: u64) -> u64 {
        let all = file[at as usize..(at + bytes) as usize].iter();
        all.fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    }

    /// Where each cluster of the disk lies that lies somewhere, as whoever opens the file sees it.
    fn read(file: &[u8]) -> BTreeMap<u64, u64> {
        let (l1_entries, l1) = (at(file, 36, 4), at(file, 40, 8));
        let mut found = BTreeMap::new();
        for one in 0..l1_entries {
            let l2 = at(file, l1 + one * 8, 8) & !OWN;
            for entry in (0..ENTRIES).filter(|_| l2 != 0) {
                let cluster = at(file, l2 + entry * 8, 8) & !OWN;
                if cluster != 0 {
                    found.insert(one * ENTRIES + entry, cluster);
                }
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        #[test]
        fn whoever_opens_the_file_finds_every_chunk_and_nothing_else(
            bits in 16_u32..=20,
            size in 1_u64..5_000,
            picks in proptest::collection::btree_set(0_u64..1_000_000, 0..12),
            odd in 0_u64..128,
        ) {
            let (chunk, size_bytes) = (1_u32 << bits, (size << 20) + (odd << 9));
            let count = size_bytes.div_ceil(chunk.into());
            let chunks: BTreeSet<u64> = picks.into_iter().map(|pick| pick % count).collect();
            let manifest = manifest(size_bytes, chunk, chunks.clone());
            let layout = Layout::of(&manifest, u64::MAX).unwrap();
            let mut file: Vec<u8> = layout.head().flatten().collect();
            let data: u64 = chunks.iter().map(|at| clusters(&manifest, *at)).sum();
            prop_assert_eq!(file.len() as u64, layout.bytes() - data * CLUSTER);
            let mut wanted = BTreeMap::new();
            for chunk_at in &chunks {
                let length = Manifest::length(size_bytes, chunk, *chunk_at);
                let first = chunk_at * u64::from(chunk) / CLUSTER;
                for part in 0..(length as u64).div_ceil(CLUSTER) {
                    wanted.insert(first + part, file.len() as u64 + part * CLUSTER);
                }
                file.extend(padded(vec![7; length]));
            }
            prop_assert_eq!(read(&file), wanted);
            prop_assert_eq!(file.len() as u64, layout.bytes());
            prop_assert_eq!(at(&file, 24, 8), size_bytes);
            // Every cluster that there is is counted once, and no other.
            let (table, tables) = (at(&file, 48, 8), at(&file, 56, 4));
            let clusters = file.len() as u64 / CLUSTER;
            for block in 0..tables * ENTRIES {
                let lies = at(&file, table + block * 8, 8);
                prop_assert_eq!(lies != 0, block * COUNTED < clusters);
                for one in 0..if lies == 0 { 0 } else { COUNTED } {
                    let is = at(&file, lies + one * 2, 2);
                    prop_assert_eq!(is, u64::from(block * COUNTED + one < clusters));
                }
            }
            prop_assert_eq!(claim(&file[..4_096]), Claim::Qcow2);
        }
    }

    #[test]
    fn a_disk_with_too_much_on_it_is_no_image() {
        let full = manifest(1 << 30, 1 << 24, (0..64).collect());
        let fault = Layout::of(&full, 1 << 30).unwrap_err();
        assert_eq!(fault.to_string(), "2 GiB are written on the disk: an image has 1");
        // Far more than a table counts.
        let large = manifest(1 << 42, 1 << 24, (0..1 << 18).collect());
        let layout = Layout::of(&large, u64::MAX).unwrap();
        assert_eq!((layout.refcount_table, layout.l1), (1, 1));
        assert!(layout.refcount_blocks * COUNTED >= layout.clusters);
    }
}
