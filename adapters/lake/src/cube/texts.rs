//! Texts that are told apart by small numbers.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

/// Bytes, one after the other; the code of each is its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Texts {
    /// Of parts that belong together; none when they do not, or are no text.
    pub(super) fn of(bytes: Vec<u8>, ends: Vec<u32>) -> Option<Self> {
        let text = std::str::from_utf8(&bytes).ok()?;
        let ordered = ends.is_sorted() && ends.last().map_or(0, |end| *end as usize) == text.len();
        let whole = ordered && ends.iter().all(|end| text.is_char_boundary(*end as usize));
        whole.then_some(Self { bytes, ends })
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of a code that has been given out.
    pub(super) fn get(&self, code: u32) -> &[u8] {
        let code = code as usize;
        let start = code.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bytes[start..self.ends[code] as usize]
    }

    /// The same as text; what is none is empty, which [`Texts::of`] has ruled out.
    pub(super) fn text(&self, code: u32) -> &str {
        std::str::from_utf8(self.get(code)).unwrap_or_default()
    }

    fn push(&mut self, value: &[u8]) -> u32 {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len() as u32);
        self.ends.len() as u32 - 1
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + 4 * self.ends.capacity()
    }
}

/// All of a text of at most sixteen bytes: its length, its beginning and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Short {
    length: usize,
    start: u64,
    end: u64,
}

impl Short {
    fn of(value: &[u8]) -> Option<Self> {
        let length = value.len();
        let (start, end) = match (value.first_chunk(), value.last_chunk()) {
            (Some(start), Some(end)) if length <= 16 => {
                (u64::from_le_bytes(*start), u64::from_le_bytes(*end))
            }
            (Some(_), _) | (_, Some(_)) => return None,
            _ => match (value.first_chunk(), value.last_chunk()) {
                (Some(start), Some(end)) => {
                    (u32::from_le_bytes(*start).into(), u32::from_le_bytes(*end).into())
                }
                _ => (value.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)), 0),
            },
        };
        Some(Self { length, start, end })
    }

    fn hash(self) -> u64 {
        let start = self.start ^ 0x9e37_79b9_7f4a_7c15 ^ (self.length as u64) << 56;
        let product = u128::from(start) * u128::from(self.end ^ 0xd6e8_feb8_6659_fd93);
        (product >> 64) as u64 ^ product as u64
    }
}

/// Gives out codes: the same bytes, the same code.
#[derive(Debug, Default)]
pub(super) struct Interner {
    /// Short texts are compared without being looked up.
    short: HashTable<(Short, u32)>,
    codes: HashTable<u32>,
    texts: Texts,
    last_short: Option<Short>,
    /// What was asked for before: lines that follow each other have much in common.
    last: u32,
}

fn hash(value: &[u8]) -> u64 {
    FixedState::default().hash_one(value)
}

impl Interner {
    pub(super) fn code(&mut self, value: &[u8]) -> u32 {
        if let Some(short) = Short::of(value) {
            return self.short(short, value);
        }
        let known = self.last_short.is_none() && (self.last as usize) < self.texts.len();
        if known && self.texts.get(self.last) == value {
            return self.last;
        }
        self.last_short = None;
        let (hashed, texts) = (hash(value), &mut self.texts);
        let found = self.codes.find(hashed, |code| texts.get(*code) == value);
        self.last = match found {
            Some(code) => *code,
            None => {
                let code = texts.push(value);
                self.codes.insert_unique(hashed, code, |code| hash(texts.get(*code)));
                code
            }
        };
        self.last
    }

    fn short(&mut self, short: Short, value: &[u8]) -> u32 {
        if self.last_short == Some(short) {
            return self.last;
        }
        let hashed = short.hash();
        let found = self.short.find(hashed, |(own, _)| *own == short);
        self.last_short = Some(short);
        self.last = match found {
            Some((_, code)) => *code,
            None => {
                let code = self.texts.push(value);
                self.short.insert_unique(hashed, (short, code), |(own, _)| own.hash());
                code
            }
        };
        self.last
    }

    /// The code that was given out last.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn texts(&self) -> &Texts {
        &self.texts
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.texts.size() + 5 * self.codes.capacity() + 33 * self.short.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_same_bytes_have_the_same_code_and_others_another(
            values in prop::collection::vec(prop::collection::vec(0..3_u8, 0..24), 0..200),
        ) {
            let (mut codes, mut known) = (Interner::default(), HashMap::new());
            for value in &values {
                let next = known.len() as u32;
                let expected = *known.entry(value.clone()).or_insert(next);
                prop_assert_eq!(codes.code(value), expected);
                prop_assert_eq!(codes.last(), expected);
                prop_assert_eq!(codes.texts().get(expected), value.as_slice());
            }
        }
    }
}
