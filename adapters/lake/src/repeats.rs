//! Lines that are there already: told by what they say, without their numbers.
//!
//! Beside a segment lies a list of its lines' digests, 20 bytes each, in the order of the lines. A
//! list is made with its segment, and made again from it when it is missing or damaged: it is no
//! record, only a shorter way to read. What is compared is streamed against at most [`HELD`]
//! digests in memory, in as many passes as that takes.

use std::{
    collections::HashSet,
    fs::File,
    hash::{BuildHasherDefault, Hasher},
    io::{self, BufReader, Read, Write},
    path::PathBuf,
};

use commands::ports::{BillFault, Part, Repeats};
use domain::finops::line::Line;
use sha2::{Digest, Sha256};

use crate::{
    Lake, LakeFault,
    segment::{COLUMNS, Kind, PartFile},
};

/// Most digests in memory at once: some 40 MB.
const HELD: usize = 1 << 20;
/// A digest, and the line's number.
const ENTRY: usize = 20;

/// 128 bits of a line's SHA-256: of a billion lines no two are taken for each other.
type Content = [u8; 16];

/// Digests are as random as a hash can be.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut start = [0; 8];
        let length = bytes.len().min(8);
        start[..length].copy_from_slice(&bytes[..length]);
        self.0 ^= u64::from_le_bytes(start);
    }

    fn write_usize(&mut self, _: usize) {}
}

type Contents = HashSet<Content, BuildHasherDefault<AsItIs>>;

/// What a line says, but for its number.
fn content(line: &Line, text: &mut Vec<u8>) -> Content {
    fn put(text: &mut Vec<u8>, bytes: &[u8]) {
        text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        text.extend_from_slice(bytes);
    }
    text.clear();
    for column in COLUMNS {
        match column.kind {
            // The line's number is the only one.
            Kind::Number(..) => {}
            Kind::Money(get, _) => text.extend_from_slice(&get(line).0.to_le_bytes()),
            Kind::Moment(get, _) => {
                text.extend_from_slice(&get(line).timestamp_micros().to_le_bytes());
            }
            Kind::Word(get, _) | Kind::Text(get, _) => put(text, get(line).as_bytes()),
            Kind::Json(get, _) => {
                text.extend_from_slice(&(get(line).len() as u64).to_le_bytes());
                for (key, value) in get(line) {
                    put(text, key.as_bytes());
                    put(text, value.as_bytes());
                }
            }
        }
    }
    let mut content = Content::default();
    content.copy_from_slice(&Sha256::digest(&text)[..16]);
    content
}

/// The list of a segment that is being written.
pub(crate) struct Digests {
    part: PartFile,
    text: Vec<u8>,
    lines: u64,
}

impl Digests {
    pub(crate) fn new(lake: &Lake) -> Result<Self, LakeFault> {
        let folder = lake.folder().to_owned();
        let part = PartFile::new(&folder).map_err(|source| LakeFault::Folder { folder, source })?;
        Ok(Self { part, text: Vec::new(), lines: 0 })
    }

    pub(crate) fn push(&mut self, line: &Line) -> io::Result<()> {
        let content = content(line, &mut self.text);
        self.part.write_all(&content)?;
        self.part.write_all(&u32::try_from(line.number).unwrap_or(u32::MAX).to_le_bytes())?;
        self.lines += 1;
        Ok(())
    }

    /// Puts the list beside its segment, and says how many lines repeat an earlier one of it, and
    /// the number of the first that does.
    pub(crate) fn finish(self, lake: &Lake, segment: &str) -> Result<(u64, u64), LakeFault> {
        let failed = |source| LakeFault::Unreadable { digest: segment.to_owned(), source };
        let path = path(lake, segment)?;
        self.part.keep_with_digest(&path).map_err(failed)?;
        let passes = self.lines.div_ceil(HELD as u64).max(1);
        let (mut count, mut first) = (0, 0);
        for pass in 0..passes {
            let mut seen = Contents::default();
            entries(&path)
                .map_err(failed)?
                .try_for_each(|entry| -> io::Result<()> {
                    let (content, number) = entry?;
                    // Another part of the digest than the one it is hashed by.
                    let [.., last, _] = content;
                    let [.., _, least] = content;
                    let mine = u64::from(u16::from_le_bytes([last, least])) % passes == pass;
                    if mine && !seen.insert(content) {
                        count += 1;
                        if first == 0 || number < first {
                            first = number;
                        }
                    }
                    Ok(())
                })
                .map_err(failed)?;
        }
        Ok((count, first))
    }
}

fn path(lake: &Lake, segment: &str) -> Result<PathBuf, LakeFault> {
    Ok(lake.path(segment)?.with_extension("lines"))
}

/// The entries of a list whose bytes are what was written.
fn entries(path: &PathBuf) -> io::Result<Entries> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let length = std::fs::metadata(path)?.len();
    let Some(bytes) = length.checked_sub(32).filter(|bytes| bytes % ENTRY as u64 == 0) else {
        return Err(damaged("its length is none of a list"));
    };
    let mut file = File::open(path)?;
    let mut sha = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut piece[..most])?;
        if read == 0 {
            return Err(damaged("it is cut short"));
        }
        sha.update(&piece[..read]);
        left -= read as u64;
    }
    let mut digest = [0; 32];
    file.read_exact(&mut digest)?;
    if sha.finalize()[..] != digest {
        return Err(damaged("its bytes have another digest"));
    }
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    Ok(Entries { file, left: bytes / ENTRY as u64 })
}

struct Entries {
    file: BufReader<File>,
    left: u64,
}

impl Iterator for Entries {
    type Item = io::Result<(Content, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (mut content, mut number) = (Content::default(), [0; 4]);
        let read = self.file.read_exact(&mut content);
        let read = read.and_then(|()| self.file.read_exact(&mut number));
        Some(read.map(|()| (content, u64::from(u32::from_le_bytes(number)))))
    }
}

/// Which lines of a segment are somewhere else as well.
struct Marked {
    /// By their place.
    places: Vec<bool>,
    repeats: Repeats,
}

impl Lake {
    /// The list of a segment's lines; it is made when it is not there.
    fn listed(&self, segment: &str) -> Result<Entries, BillFault> {
        let path = path(self, segment)?;
        if let Ok(entries) = entries(&path) {
            return Ok(entries);
        }
        let unwritten = |error: io::Error| BillFault::Unavailable(error.to_string());
        let mut digests = Digests::new(self)?;
        for line in self.lines(segment)? {
            digests.push(&line?).map_err(unwritten)?;
        }
        digests.part.keep_with_digest(&path).map_err(unwritten)?;
        entries(&path).map_err(unwritten)
    }

    fn marked(&self, segment: &str, others: &[&str]) -> Result<Marked, BillFault> {
        let unreadable = |error: io::Error| BillFault::Unavailable(error.to_string());
        let mut marked = Marked { places: Vec::new(), repeats: Repeats::default() };
        let mut own = self.listed(segment)?;
        loop {
            let some: Vec<_> =
                own.by_ref().take(HELD).collect::<io::Result<_>>().map_err(unreadable)?;
            if some.is_empty() {
                return Ok(marked);
            }
            let mine: Contents = some.iter().map(|(content, _)| *content).collect();
            let mut there = Contents::default();
            for other in others {
                for entry in self.listed(other)? {
                    let (content, _) = entry.map_err(unreadable)?;
                    if mine.contains(&content) {
                        there.insert(content);
                    }
                }
            }
            for (content, number) in some {
                let repeats = there.contains(&content);
                marked.places.push(repeats);
                if repeats {
                    marked.repeats.lines += 1;
                    if marked.repeats.shown.len() < Repeats::SHOWN_MAX {
                        marked.repeats.shown.push(number);
                    }
                }
            }
        }
    }

    /// How many of a segment's lines are in one of the others as well.
    pub(crate) fn repeats_of(&self, segment: &str, others: &[&str]) -> Result<Repeats, BillFault> {
        Ok(self.marked(segment, others)?.repeats)
    }

    /// The segment without these lines; none when nothing is left.
    pub(crate) fn rest_of(
        &self,
        segment: &str,
        others: &[&str],
    ) -> Result<Option<Part>, BillFault> {
        let marked = self.marked(segment, others)?;
        let mut failed = None;
        let mut lines = self
            .lines(segment)?
            .zip(&marked.places)
            .filter(|(_, repeats)| !**repeats)
            .map_while(|(line, _)| line.map_err(|fault| failed = Some(fault)).ok());
        let parts = commands::ports::BillStore::write(self, &mut lines);
        drop(lines);
        if let Some(fault) = failed {
            return Err(fault.into());
        }
        Ok(parts?.into_iter().next())
    }
}

#[cfg(test)]
mod tests {
    use commands::ports::BillStore;
    use domain::finops::amount::{Amount, Currency};

    use super::*;

    fn line(number: u64, billed: i128) -> Line {
        let currency = Currency::try_from("EUR".to_owned()).unwrap();
        let mut line = Line::new("a", "2026-10".parse().unwrap(), currency);
        (line.number, line.billed) = (number, Amount(billed));
        line
    }

    fn written(lake: &Lake, billed: &[i128]) -> String {
        let lines = billed.iter().zip(2..).map(|(billed, number)| line(number, *billed));
        lake.write(&mut lines.into_iter()).unwrap().remove(0).digest
    }

    #[test]
    fn lines_are_the_same_whatever_their_number_and_different_whatever_else() {
        let of = |line: &Line| content(line, &mut Vec::new());
        assert_eq!(of(&line(2, 5)), of(&line(7, 5)));
        assert_ne!(of(&line(2, 5)), of(&line(2, 6)));
        let (mut one, mut other) = (line(2, 5), line(2, 5));
        (one.service, one.service_category) = ("a".into(), "bc".into());
        (other.service, other.service_category) = ("ab".into(), "c".into());
        assert_ne!(of(&one), of(&other));
        one.tags.insert("a".into(), "b".into());
        other = line(2, 5);
        (other.service, other.service_category) = ("a".into(), "bc".into());
        assert_ne!(of(&one), of(&other));
        other.other.insert("a".into(), "b".into());
        assert_ne!(of(&one), of(&other));
    }

    #[test]
    fn what_other_segments_have_is_found_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path()).unwrap();
        let (first, second) = (written(&lake, &[1, 2, 2, 3]), written(&lake, &[8, 9]));
        let late = written(&lake, &[2, 4, 2, 9, 4]);
        let others = [&*first, &*second];
        let found = lake.repeats_of(&late, &others).unwrap();
        assert_eq!((found.lines, found.shown), (3, vec![2, 4, 5]));
        let rest = lake.rest_of(&late, &others).unwrap().unwrap();
        let lines = BillStore::lines(&lake, &rest.digest).unwrap();
        let left: Vec<_> =
            lines.map(|line| line.map(|line| (line.number, line.billed.0)).unwrap()).collect();
        assert_eq!((left, rest.lines), (vec![(3, 4), (6, 4)], 2));
        assert_eq!(lake.rest_of(&second, &others).unwrap(), None);
        assert_eq!(lake.repeats_of(&late, &[]).unwrap(), Repeats::default());
    }

    #[test]
    fn a_list_that_is_lost_or_damaged_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(folder.path()).unwrap();
        let (one, other) = (written(&lake, &[1, 2]), written(&lake, &[2, 3]));
        let list = path(&lake, &one).unwrap();
        for damage in [None, Some(&b"short"[..]), Some(&[7; 72])] {
            let _ = std::fs::remove_file(&list);
            if let Some(bytes) = damage {
                std::fs::write(&list, bytes).unwrap();
            }
            assert_eq!(lake.repeats_of(&other, &[&one]).unwrap().lines, 1);
            assert_eq!(entries(&list).unwrap().count(), 2);
        }
        let mut digests = Digests::new(&lake).unwrap();
        for (number, billed) in [(2, 5), (3, 6), (4, 5), (5, 5)] {
            digests.push(&line(number, billed)).unwrap();
        }
        assert_eq!(digests.finish(&lake, &one).unwrap(), (2, 4), "lines 4 and 5 are as line 2");
    }
}
