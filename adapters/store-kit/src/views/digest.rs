//! Canonical digests of a view: the same for any number of threads, any size of batches and any
//! order in which keys are worked on.
//!
//! - A version's bytes: key, from, to, each column and the body, every one with its type and its
//!   length before it.
//! - A row's *chain*: SHA-256 over the chain before it and the version, in the order of versions.
//! - 256 *buckets*, by the first byte of the key's SHA-256: each is SHA-256 over its keys, sorted,
//!   with their chains.
//! - The view's digest: SHA-256 over the 256 buckets.
//!
//! Buckets make memory bounded: a pass over the log may look at some of them only.

use std::collections::BTreeMap;

use domain::{
    kernel::sha256,
    log::{Hash, Position},
};
use projections::view::Value;
use sha2::{Digest, Sha256};

/// How many buckets there are.
pub(crate) const BUCKETS: usize = 256;

/// The bucket of a key.
pub(crate) fn bucket(key: &str) -> usize {
    usize::from(sha256(key.as_bytes())[0])
}

/// The chains of some keys.
pub(crate) type Chains = BTreeMap<String, Hash>;

/// One version's part in a digest.
pub(crate) struct Link<'a> {
    pub(crate) key: &'a str,
    pub(crate) from: Position,
    pub(crate) to: Option<Position>,
    pub(crate) columns: &'a [Value],
    pub(crate) body: &'a [u8],
}

impl Link<'_> {
    /// The hash of a chain that goes on with this version.
    pub(crate) fn after(&self, chain: &Hash) -> Hash {
        let mut hasher = Sha256::new();
        let mut field = |tag: u8, bytes: &[u8]| {
            hasher.update([tag]);
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        field(b'<', chain);
        field(b'k', self.key.as_bytes());
        field(b'f', &self.from.to_be_bytes());
        field(b't', &self.to.unwrap_or(u64::MAX).to_be_bytes());
        for column in self.columns {
            match column {
                Value::Null => field(b'n', &[]),
                Value::Boolean(yes) => field(b'b', &[u8::from(*yes)]),
                Value::Integer(number) => field(b'i', &number.to_be_bytes()),
                Value::Text(text) => field(b's', text.as_bytes()),
            }
        }
        field(b'j', self.body);
        hasher.finalize().into()
    }

    /// Adds this version to its row's chain.
    pub(crate) fn add_to(&self, chains: &mut Chains) {
        match chains.get_mut(self.key) {
            Some(chain) => *chain = self.after(chain),
            None => {
                chains.insert(self.key.to_owned(), self.after(&[0; 32]));
            }
        }
    }
}

/// The buckets' digests, some at a time.
pub(crate) struct Buckets(Vec<Hash>);

impl Default for Buckets {
    fn default() -> Self {
        Self(vec![sha256(&[]); BUCKETS])
    }
}

impl Buckets {
    /// Sets the buckets that these chains are of: all keys of each bucket must be among them.
    pub(crate) fn set(&mut self, chains: &Chains) {
        let mut hashers: BTreeMap<usize, Sha256> = BTreeMap::new();
        for (key, chain) in chains {
            let hasher = hashers.entry(bucket(key)).or_default();
            hasher.update((key.len() as u64).to_be_bytes());
            hasher.update(key);
            hasher.update(chain);
        }
        for (bucket, hasher) in hashers {
            self.0[bucket] = hasher.finalize().into();
        }
    }

    /// The digest over all, in hex.
    pub(crate) fn digest(&self) -> String {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
        let hash = sha256(&self.0.concat());
        hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }
}
