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

/// Gives out codes: the same bytes, the same code.
#[derive(Debug, Default)]
pub(super) struct Interner {
    codes: HashTable<u32>,
    texts: Texts,
    /// What was asked for before: lines that follow each other have much in common.
    last: u32,
}

fn hash(value: &[u8]) -> u64 {
    FixedState::default().hash_one(value)
}

impl Interner {
    pub(super) fn code(&mut self, value: &[u8]) -> u32 {
        if (self.last as usize) < self.texts.len() && self.texts.get(self.last) == value {
            return self.last;
        }
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

    /// The code that was given out last.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    pub(super) fn texts(&self) -> &Texts {
        &self.texts
    }

    /// What it takes in memory, in bytes.
    pub(super) fn size(&self) -> usize {
        self.texts.size() + 5 * self.codes.capacity()
    }
}
