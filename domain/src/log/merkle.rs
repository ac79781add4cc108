//! The Merkle tree over records: RFC 6962 §2.1 (leaf prefix 0x00, node prefix 0x01), SHA-256.
//!
//! A [`Frontier`] is the right edge of the tree: one hash per set bit of its size. It is all an
//! appender needs, and it is kept in the head row of the log.

use sha2::{Digest, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// The root of a complete subtree: of the leaves `index << level .. (index + 1) << level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0 is a leaf.
    pub level: u8,
    /// From the left, from 0.
    pub index: u64,
    /// Its hash.
    pub hash: Hash,
}

/// The hash of a leaf: of a record's frame.
pub fn leaf_hash(frame: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(frame);
    hasher.finalize().into()
}

/// The hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The right edge of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Complete subtrees from the largest to the smallest, one per set bit of `size`.
    edge: Vec<Hash>,
}

impl Frontier {
    /// Only nodes of these levels are kept by a store (level 8: one in 256 records); the ones
    /// between are made again from those below.
    pub const TILE_LEVELS: u8 = 8;

    /// How many leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; `complete` is told each subtree at a multiple of [`Self::TILE_LEVELS`] that
    /// this completes.
    pub fn push(&mut self, leaf: Hash, mut complete: impl FnMut(Node)) {
        let mut hash = leaf;
        let mut level = 0;
        let mut index = self.size;
        while index & 1 == 1 {
            let left = self.edge.pop().expect("a set bit of the size has its hash on the edge");
            hash = node_hash(&left, &hash);
            level += 1;
            index >>= 1;
            if level % Self::TILE_LEVELS == 0 {
                complete(Node { level, index, hash });
            }
        }
        self.edge.push(hash);
        self.size += 1;
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        self.edge
            .iter()
            .rev()
            .copied()
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(empty_root)
    }

    /// As stored in the head row: the size in 8 bytes, big-endian, then the edge.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.size.to_be_bytes().to_vec();
        for hash in &self.edge {
            out.extend_from_slice(hash);
        }
        out
    }

    /// Reads [`Self::to_bytes`]; none when the length does not fit the size.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, edge) = bytes.split_at_checked(8)?;
        let size = u64::from_be_bytes(size.try_into().ok()?);
        let (hashes, rest) = edge.as_chunks::<32>();
        (rest.is_empty() && hashes.len() == size.count_ones() as usize)
            .then(|| Self { size, edge: hashes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 §2.1 as it is written.
    fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let split = many.len().next_power_of_two() / 2;
                node_hash(&root(&many[..split]), &root(&many[split..]))
            }
        }
    }

    #[test]
    fn the_frontier_has_the_root_of_the_definition_at_every_size() {
        let leaves: Vec<Hash> = (0..600_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut frontier = Frontier::default();
        let mut tiles = Vec::new();
        for (size, leaf) in leaves.iter().enumerate() {
            assert_eq!(frontier.root(), root(&leaves[..size]), "size {size}");
            frontier.push(*leaf, |node| tiles.push(node));
            assert_eq!(Frontier::from_bytes(&frontier.to_bytes()).as_ref(), Some(&frontier));
        }
        assert_eq!(
            tiles,
            [0, 1].map(|index| Node {
                level: 8,
                index,
                hash: root(&leaves[index as usize * 256..][..256])
            })
        );
    }
}
