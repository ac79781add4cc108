//! Inclusion and consistency proofs over the tree of records: RFC 6962 §2.1.1 and §2.1.2, checked
//! as RFC 9162 §2.1.3.2 and §2.1.4.2 say.
//!
//! Making a proof needs hashes that a store holds and this module does not. So it is done in two
//! steps: [`inclusion_spans`] and [`consistency_spans`] say which spans of leaves a proof names,
//! [`Span::fetches`] which stored hashes give a span's root, and [`Span::root`] puts them together.
//! A span over a million leaves needs a few hundred hashes: stores keep the roots of complete
//! subtrees at every [`Frontier::TILE_LEVELS`]th level, the ones between are made again.
//!
//! Leaves are counted from 0 here: the record at position `p` is leaf `p - 1`.

use super::merkle::{Frontier, Hash, node_hash};

/// The leaves `start..end`: one element of a proof is the root over such a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First leaf.
    pub start: u64,
    /// After the last leaf; more than `start`.
    pub end: u64,
}

/// Hashes to get from a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// 0: hashes of leaves; else a multiple of [`Frontier::TILE_LEVELS`].
    pub level: u8,
    /// Index of the first on its level, from 0.
    pub first: u64,
    /// How many, 1…511: at most two subtrees' worth of a tile and what lies right of them.
    pub count: u64,
}

impl Span {
    /// The complete subtrees it is made of, from the largest to the smallest, as (level, index).
    ///
    /// Every span of a proof begins at a multiple of its length rounded up to a power of two, so
    /// these are just the set bits of its length.
    fn subtrees(self) -> impl Iterator<Item = (u8, u64)> {
        let mut start = self.start;
        let length = self.end - self.start;
        (0..64_u8).rev().filter(move |level| length >> level & 1 == 1).map(move |level| {
            let index = start >> level;
            start += 1 << level;
            (level, index)
        })
    }

    /// The stored hashes that give its root, in the order [`Self::root`] wants them.
    pub fn fetches(self) -> Vec<Fetch> {
        let mut fetches: Vec<Fetch> = Vec::new();
        for (level, index) in self.subtrees() {
            let between = level % Frontier::TILE_LEVELS;
            let stored = level - between;
            let (first, count) = (index << between, 1 << between);
            match fetches.last_mut() {
                Some(last) if last.level == stored && last.first + last.count == first => {
                    last.count += count;
                }
                _ => fetches.push(Fetch { level: stored, first, count }),
            }
        }
        fetches
    }

    /// Its root from what [`Self::fetches`] names, one after the other; none when there are too few
    /// or too many.
    pub fn root(self, mut hashes: &[Hash]) -> Option<Hash> {
        let mut roots = Vec::new();
        for (level, _) in self.subtrees() {
            let (own, rest) = hashes.split_at_checked(1 << (level % Frontier::TILE_LEVELS))?;
            roots.push(complete_root(own.to_vec()));
            hashes = rest;
        }
        if !hashes.is_empty() {
            return None;
        }
        roots.into_iter().rev().reduce(|right, left| node_hash(&left, &right))
    }
}

/// The root over a power of two of neighbours.
fn complete_root(mut row: Vec<Hash>) -> Hash {
    while row.len() > 1 {
        row = row.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    row[0]
}

/// The largest power of two below `size`, which is more than 1.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The spans whose roots prove that leaf `index` is in the tree of `size` leaves, from the leaf
/// up; none when it is not below `size`.
pub fn inclusion_spans(index: u64, size: u64) -> Option<Vec<Span>> {
    if index >= size {
        return None;
    }
    let (mut start, mut end) = (0, size);
    let mut spans = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            spans.push(Span { start: middle, end });
            end = middle;
        } else {
            spans.push(Span { start, end: middle });
            start = middle;
        }
    }
    spans.reverse();
    Some(spans)
}

/// The spans whose roots prove that the tree of `to` leaves begins with the tree of `from` leaves;
/// none when `from` is more than `to`. Empty when there is nothing to prove (`from` 0 or `to`).
pub fn consistency_spans(from: u64, to: u64) -> Option<Vec<Span>> {
    if from > to {
        return None;
    }
    if from == 0 {
        return Some(Vec::new());
    }
    let (mut start, mut end) = (0, to);
    let mut spans = Vec::new();
    while end != from {
        let middle = start + split(end - start);
        if from <= middle {
            spans.push(Span { start: middle, end });
            end = middle;
        } else {
            spans.push(Span { start, end: middle });
            start = middle;
        }
    }
    if start > 0 {
        // The old tree is not a complete subtree on the left: its rest must be named too.
        spans.push(Span { start, end });
    }
    spans.reverse();
    Some(spans)
}

/// Whether `path` proves that `leaf` is leaf `index` of the tree with this size and root.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(step, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `path` proves that the tree (`to`, `to_root`) begins with the tree (`from`,
/// `from_root`). Nothing is to be proved of the empty tree, whose root must be the empty root.
pub fn verify_consistency(
    from: u64,
    from_root: &Hash,
    to: u64,
    to_root: &Hash,
    path: &[Hash],
) -> bool {
    if from > to {
        return false;
    }
    if from == 0 {
        return path.is_empty() && *from_root == super::merkle::empty_root();
    }
    if from == to {
        return path.is_empty() && from_root == to_root;
    }
    let (mut node, mut last) = (from - 1, to - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // A complete old tree is itself the first element, and left out of the path.
    let mut path = path.iter();
    let Some(first) = (if from.is_power_of_two() { Some(from_root) } else { path.next() }) else {
        return false;
    };
    let (mut old, mut new) = (*first, *first);
    for step in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old = node_hash(step, &old);
            new = node_hash(step, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old == *from_root && new == *to_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{leaf_hash, merkle::empty_root};
    use std::collections::HashMap;

    const SIZES: u64 = 600;

    /// All small sizes, those around the edges of tiles, and a sample of the rest.
    fn sizes() -> impl Iterator<Item = u64> {
        (1..=SIZES).filter(|size| {
            *size <= 66 || size % 37 == 0 || [255, 256, 257, 511, 512, 513, 600].contains(size)
        })
    }

    /// The definitions of RFC 6962 as they are written, with a memory.
    struct Naive {
        leaves: Vec<Hash>,
        roots: HashMap<(u64, u64), Hash>,
        /// Roots of spans as they are put together from fetches: the same spans come up again.
        spans: HashMap<(u64, u64), Hash>,
    }

    impl Naive {
        fn new(size: u64) -> Self {
            let leaves = (0..size).map(|n| leaf_hash(&n.to_be_bytes())).collect();
            Self { leaves, roots: HashMap::new(), spans: HashMap::new() }
        }

        fn split(size: u64) -> u64 {
            let mut k = 1;
            while k * 2 < size {
                k *= 2;
            }
            k
        }

        fn root(&mut self, start: u64, end: u64) -> Hash {
            match end - start {
                0 => empty_root(),
                1 => self.leaves[start as usize],
                size => {
                    if let Some(known) = self.roots.get(&(start, end)) {
                        return *known;
                    }
                    let middle = start + Self::split(size);
                    let root = node_hash(&self.root(start, middle), &self.root(middle, end));
                    self.roots.insert((start, end), root);
                    root
                }
            }
        }

        fn path(&mut self, index: u64, start: u64, end: u64) -> Vec<Hash> {
            if end - start == 1 {
                return Vec::new();
            }
            let k = Self::split(end - start);
            if index < k {
                let mut path = self.path(index, start, start + k);
                path.push(self.root(start + k, end));
                path
            } else {
                let mut path = self.path(index - k, start + k, end);
                path.push(self.root(start, start + k));
                path
            }
        }

        fn subproof(&mut self, from: u64, start: u64, end: u64, whole: bool) -> Vec<Hash> {
            if from == end - start {
                return if whole { Vec::new() } else { vec![self.root(start, end)] };
            }
            let k = Self::split(end - start);
            if from <= k {
                let mut path = self.subproof(from, start, start + k, whole);
                path.push(self.root(start + k, end));
                path
            } else {
                let mut path = self.subproof(from - k, start + k, end, false);
                path.push(self.root(start, start + k));
                path
            }
        }

        /// As a store answers: leaves, or only nodes of the levels it keeps.
        fn fetch(&mut self, fetch: Fetch) -> Vec<Hash> {
            assert_eq!(fetch.level % Frontier::TILE_LEVELS, 0);
            assert!((1..512).contains(&fetch.count), "{fetch:?}");
            (fetch.first..fetch.first + fetch.count)
                .map(|index| self.root(index << fetch.level, (index + 1) << fetch.level))
                .collect()
        }

        fn proof(&mut self, spans: Vec<Span>) -> Vec<Hash> {
            spans
                .into_iter()
                .map(|span| {
                    if let Some(known) = self.spans.get(&(span.start, span.end)) {
                        return *known;
                    }
                    let hashes: Vec<Hash> =
                        span.fetches().into_iter().flat_map(|one| self.fetch(one)).collect();
                    let root = span.root(&hashes).unwrap();
                    self.spans.insert((span.start, span.end), root);
                    root
                })
                .collect()
        }
    }

    #[test]
    fn every_inclusion_proof_is_that_of_the_definition_and_verifies_only_as_it_is() {
        let mut naive = Naive::new(SIZES);
        for size in sizes() {
            let root = naive.root(0, size);
            for index in 0..size {
                let path = naive.proof(inclusion_spans(index, size).unwrap());
                assert_eq!(path, naive.path(index, 0, size), "{index} of {size}");
                let leaf = naive.leaves[index as usize];
                let verify = |leaf, index, size, path: &[Hash], root| {
                    verify_inclusion(leaf, index, size, path, root)
                };
                if index % 7 == size % 7 || index + 1 == size {
                    assert!(verify(&leaf, index, size, &path, &root), "{index} of {size}");
                    assert!(!verify(&leaf, index + 1, size, &path, &root));
                    assert!(!verify(&[9; 32], index, size, &path, &root));
                    assert!(!verify(&leaf, index, size, &path, &[9; 32]));
                    for place in (0..path.len()).filter(|_| index % 5 == 0) {
                        let mut wrong = path.clone();
                        wrong[place][0] ^= 1;
                        assert!(!verify(&leaf, index, size, &wrong, &root));
                        assert!(!verify(&leaf, index, size, &path[..place], &root));
                    }
                    let longer = [path.as_slice(), &[root]].concat();
                    assert!(!verify(&leaf, index, size, &longer, &root));
                }
            }
            assert_eq!(inclusion_spans(size, size), None);
        }
    }

    #[test]
    fn every_consistency_proof_is_that_of_the_definition_and_verifies_only_as_it_is() {
        let mut naive = Naive::new(SIZES);
        for to in sizes() {
            let to_root = naive.root(0, to);
            for from in 1..=to {
                let path = naive.proof(consistency_spans(from, to).unwrap());
                assert_eq!(path, naive.subproof(from, 0, to, true), "{from} to {to}");
                let from_root = naive.root(0, from);
                let verify = |from, from_root, path: &[Hash]| {
                    verify_consistency(from, from_root, to, &to_root, path)
                };
                if from % 7 == to % 7 {
                    assert!(verify(from, &from_root, &path), "{from} to {to}");
                    assert!(!verify(from, &[9; 32], &path));
                    assert!(!verify(from + 1, &from_root, &path), "{from} to {to}");
                    for place in (0..path.len()).filter(|_| from % 5 == 0) {
                        let mut wrong = path.clone();
                        wrong[place][0] ^= 1;
                        assert!(!verify(from, &from_root, &wrong));
                        assert!(!verify(from, &from_root, &path[..place]));
                    }
                }
            }
        }
        assert_eq!(consistency_spans(0, 9), Some(Vec::new()));
        assert!(verify_consistency(0, &empty_root(), 9, &naive.root(0, 9), &[]));
        assert_eq!(consistency_spans(10, 9), None);
    }

    #[test]
    fn a_proof_over_a_very_large_tree_asks_for_few_stored_hashes() {
        let size = 16_777_216 * 3 + 70_001;
        let spans = inclusion_spans(size - 5, size).unwrap();
        let asked: u64 =
            spans.iter().flat_map(|span| span.fetches()).map(|fetch| fetch.count).sum();
        assert!(asked < 4 * 512, "{asked}");
        assert!(spans.iter().flat_map(|span| span.fetches()).all(|fetch| fetch.level <= 24));
        let missing = Span { start: 0, end: 256 };
        assert_eq!(missing.root(&[]), None);
        assert_eq!(missing.root(&[[0; 32]; 2]), None);
    }
}
