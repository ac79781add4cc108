//! What a backup is: of which disk, how large, and of which chunks.

use chrono::{DateTime, Utc};
use domain::kernel::canonical_bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    chunk::{self, hex},
    fault::Fault,
};

/// The newest form, and the only one.
const FORM: u32 = 1;
/// Most chunks of a manifest: 16 TiB at the usual size, some 300 MB of text.
const CHUNKS_MAX: u64 = 1 << 22;

/// A chunk in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// Which chunk of the disk, from 0.
    pub at: u64,
    /// Its name, by its content.
    pub name: String,
    /// Which upload of this content it is, 16 hexadecimal digits.
    pub upload: String,
    /// What it takes in the store.
    pub stored_bytes: u64,
}

/// A backup. Its canonical bytes are what lies in the store, and their digest is what vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Form of this document.
    pub form: u32,
    /// Its id.
    pub backup: Uuid,
    /// Of which disk.
    pub disk: Uuid,
    /// The backup that it was made on; none when all of the disk was read.
    pub parent: Option<Uuid>,
    /// What whoever offered the disk calls this very moment, so that changes since are told by it; none
    /// where nobody tells.
    pub checkpoint: Option<String>,
    /// When it was asked for.
    pub taken_at: DateTime<Utc>,
    /// How large the disk is.
    pub size_bytes: u64,
    /// How large a chunk is; the last may be shorter.
    pub chunk_bytes: u32,
    /// The chunks that are not all zeroes, by their place.
    pub chunks: Vec<Placed>,
    /// What was read of the disk for it.
    pub read_bytes: u64,
    /// What was sent to the store for it, beside this.
    pub sent_bytes: u64,
}

impl Manifest {
    /// How many chunks a disk has.
    ///
    /// # Errors
    /// The size of a chunk is no power of two within the limits, or there would be too many.
    pub fn count(size_bytes: u64, chunk_bytes: u32) -> Result<u64, Fault> {
        let fits = (chunk::BYTES_MIN..=chunk::BYTES_MAX).contains(&chunk_bytes);
        if !fits || !chunk_bytes.is_power_of_two() {
            let (least, most) = (chunk::BYTES_MIN, chunk::BYTES_MAX);
            let what = format!("a chunk has a power of two of bytes, {least} to {most}");
            return Err(Fault::Unfit(what));
        }
        let count = size_bytes.div_ceil(u64::from(chunk_bytes));
        if size_bytes == 0 || count > CHUNKS_MAX {
            let what = format!("a disk of {size_bytes} bytes has 1 to {CHUNKS_MAX} chunks");
            return Err(Fault::Unfit(what));
        }
        Ok(count)
    }

    /// How many bytes the chunk at this place has.
    pub(crate) fn length(size_bytes: u64, chunk_bytes: u32, at: u64) -> usize {
        let begin = at * u64::from(chunk_bytes);
        size_bytes.saturating_sub(begin).min(u64::from(chunk_bytes)) as usize
    }

    /// How much of the disk its chunks are, in bytes.
    pub(crate) fn written_bytes(&self) -> u64 {
        let length =
            |chunk: &Placed| Self::length(self.size_bytes, self.chunk_bytes, chunk.at) as u64;
        self.chunks.iter().map(length).sum()
    }

    /// What its chunks take in the store, each counted once; others may share them.
    pub fn stored_bytes(&self) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let once = self.chunks.iter().filter(|chunk| seen.insert((&chunk.name, &chunk.upload)));
        once.map(|chunk| chunk.stored_bytes).sum()
    }

    /// Its bytes as they are digested.
    pub fn bytes(&self) -> Vec<u8> {
        canonical_bytes(self)
    }

    /// SHA-256 of its canonical bytes, in hexadecimal digits.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(self.bytes()))
    }

    /// Reads one and checks that it can be one; what is wrong with it otherwise.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| format!("it does not read: {error}"))?;
        if manifest.form != FORM {
            return Err(format!("it is of form {}, which came later", manifest.form));
        }
        let count = Self::count(manifest.size_bytes, manifest.chunk_bytes);
        let count = count.map_err(|fault| fault.to_string())?;
        let rising = manifest.chunks.windows(2).all(|two| two[0].at < two[1].at);
        let within = manifest.chunks.last().is_none_or(|last| last.at < count);
        let named = |chunk: &Placed| is_name(&chunk.name) && is_upload(&chunk.upload);
        let named = manifest.chunks.iter().all(named);
        if rising && within && named { Ok(manifest) } else { Err("its chunks are none".to_owned()) }
    }

    pub(crate) const FORM: u32 = FORM;
}

impl Placed {
    /// Where it lies.
    pub fn key(&self) -> String {
        format!("chunks/{}/{}", self.name, self.upload)
    }

    /// Which chunk lies there; none where there is none of ours. Its place on a disk is not told.
    pub(crate) fn of_key(key: &str, stored_bytes: u64) -> Option<Self> {
        let (name, upload) = key.strip_prefix("chunks/")?.split_once('/')?;
        let (name, upload) = (name.to_owned(), upload.to_owned());
        (is_name(&name) && is_upload(&upload)).then_some(Self { at: 0, name, upload, stored_bytes })
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == digits && text.bytes().all(digit)
}

/// Whether this is the name of a chunk, and so harmless in a key.
fn is_name(text: &str) -> bool {
    is_hex(text, 64)
}

fn is_upload(text: &str) -> bool {
    is_hex(text, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let placed = |at, byte: u8| Placed {
            at,
            name: hex(&[byte; 32]),
            upload: hex(&[byte; 8]),
            stored_bytes: 10,
        };
        Manifest {
            form: 1,
            backup: Uuid::from_u128(1),
            disk: Uuid::from_u128(2),
            parent: None,
            checkpoint: None,
            taken_at: DateTime::UNIX_EPOCH,
            size_bytes: (64 << 10) * 9 + 1,
            chunk_bytes: 64 << 10,
            chunks: vec![placed(0, 1), placed(4, 2), placed(9, 1)],
            read_bytes: 5,
            sent_bytes: 6,
        }
    }

    #[test]
    fn it_reads_back_and_says_its_sizes() {
        let one = manifest();
        assert_eq!(Manifest::read(&one.bytes()).unwrap(), one);
        assert_eq!(one.stored_bytes(), 20);
        assert_eq!(Manifest::count(one.size_bytes, one.chunk_bytes).unwrap(), 10);
        assert_eq!(Manifest::length(one.size_bytes, one.chunk_bytes, 9), 1);
        assert_eq!(Manifest::length(one.size_bytes, one.chunk_bytes, 0), 64 << 10);
        assert_eq!(one.digest().len(), 64);
    }

    #[test]
    fn what_cannot_be_one_is_none() {
        let mut odd = [(); 7].map(|()| manifest());
        odd[0].form = 2;
        odd[1].chunks[1].at = 0;
        odd[2].chunks[2].at = 10;
        odd[3].chunks[0].name = "../manifests/x".into();
        odd[6].chunks[0].upload = "../running".into();
        odd[4].chunk_bytes = 65_000;
        odd[5].size_bytes = 0;
        for one in odd {
            Manifest::read(&one.bytes()).unwrap_err();
        }
    }
}
