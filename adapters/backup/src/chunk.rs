//! Pieces of a disk: named by what is in them, compressed, and sealed where the store has a key.
//!
//! ```text
//! plain    1 · zstd(content)                        name = SHA-256(content)
//! sealed   2 · nonce (24) · XChaCha20-Poly1305(zstd(content))      name = HMAC-SHA-256(key, content)
//! ```
//!
//! A sealed chunk's name is keyed as well: whoever reads the store's keys cannot ask whether a known
//! content is in it. Two disks with the same content share a chunk all the same, in one store.

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Smallest chunk, in bytes.
pub const BYTES_MIN: u32 = 64 << 10;
/// Largest chunk, in bytes: a few are in memory at once, and NBD reads no more than twice as much.
pub const BYTES_MAX: u32 = 16 << 20;
/// What is taken unless said otherwise: small enough that a changed block sends little, large enough
/// that a disk of 1 TiB has no more than 262,144.
pub const BYTES_USUAL: u32 = 4 << 20;

/// What zstd is asked for: fast.
const LEVEL: i32 = 3;
const PLAIN: u8 = 1;
const SEALED: u8 = 2;
const NONCE: usize = 24;

/// How a store's chunks and manifests are named and sealed.
#[derive(Clone)]
pub struct Seal {
    keys: Option<Box<Derived>>,
}

#[derive(Clone)]
struct Derived {
    names: [u8; 32],
    content: XChaCha20Poly1305,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.keys.is_some() { "Seal(sealed)" } else { "Seal(plain)" })
    }
}

fn mac(key: &[u8], bytes: &[u8]) -> [u8; 32] {
    // A key of any length will do for this construction.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) else { return [0; 32] };
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}

impl Seal {
    /// Compressed only.
    pub fn plain() -> Self {
        Self { keys: None }
    }

    /// Sealed with this key of the store.
    pub fn with(key: &[u8; 32]) -> Self {
        let content = XChaCha20Poly1305::new(&mac(key, b"skyledger backup content").into());
        let names = mac(key, b"skyledger backup names");
        Self { keys: Some(Box::new(Derived { names, content })) }
    }

    /// The name of a content: 64 hexadecimal digits.
    pub fn name(&self, content: &[u8]) -> String {
        hex(&match &self.keys {
            None => Sha256::digest(content).into(),
            Some(keys) => mac(&keys.names, content),
        })
    }

    /// What is stored of a content under this name.
    pub(crate) fn close(&self, name: &str, content: &[u8]) -> std::io::Result<Bytes> {
        let small = zstd::bulk::compress(content, LEVEL)?;
        let mut out = Vec::with_capacity(1 + NONCE + small.len() + 16);
        match &self.keys {
            None => {
                out.push(PLAIN);
                out.extend_from_slice(&small);
            }
            Some(keys) => {
                let mut nonce = [0; NONCE];
                getrandom::fill(&mut nonce).map_err(|e| std::io::Error::other(e.to_string()))?;
                let payload = Payload { msg: &small, aad: name.as_bytes() };
                let sealed = keys.content.encrypt(XNonce::from_slice(&nonce), payload);
                out.push(SEALED);
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&sealed.map_err(|_| std::io::Error::other("cannot seal"))?);
            }
        }
        Ok(out.into())
    }

    /// The content again, of at most so many bytes; what is wrong with it otherwise.
    pub(crate) fn open(&self, name: &str, stored: &[u8], most: usize) -> Result<Vec<u8>, String> {
        let (kind, rest) = stored.split_first().ok_or("it is empty")?;
        let opened;
        let small = match (*kind, &self.keys) {
            (PLAIN, None) => rest,
            (SEALED, Some(keys)) => {
                let (nonce, sealed) = rest.split_at_checked(NONCE).ok_or("it is cut off")?;
                let payload = Payload { msg: sealed, aad: name.as_bytes() };
                let done = keys.content.decrypt(XNonce::from_slice(nonce), payload);
                opened = done.map_err(|_| "it was changed, or sealed with another key")?;
                &opened
            }
            (SEALED, None) => return Err("it is sealed, and the store has no key".to_owned()),
            (PLAIN, Some(_)) => return Err("it is not sealed, and the store has a key".to_owned()),
            (other, _) => return Err(format!("it is of an unknown form, {other}")),
        };
        zstd::bulk::decompress(small, most).map_err(|error| format!("it does not expand: {error}"))
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether there is nothing but zeroes.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // A word at a time: this is read of every byte of a disk.
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_opens_again_and_a_changed_byte_is_noticed() {
        let content = vec![7; 100_000];
        for seal in [Seal::plain(), Seal::with(&[3; 32])] {
            let name = seal.name(&content);
            let stored = seal.close(&name, &content).unwrap();
            assert!(stored.len() < 1_000);
            assert_eq!(seal.open(&name, &stored, 100_000).unwrap(), content);
            // It never becomes more than was said.
            seal.open(&name, &stored, 99_999).unwrap_err();
            seal.open(&name, &[], 100_000).unwrap_err();
        }
        let (seal, other) = (Seal::with(&[3; 32]), Seal::with(&[4; 32]));
        let name = seal.name(&content);
        let mut stored = seal.close(&name, &content).unwrap().to_vec();
        other.open(&name, &stored, 100_000).unwrap_err();
        Seal::plain().open(&name, &stored, 100_000).unwrap_err();
        seal.open(&seal.name(b"other"), &stored, 100_000).unwrap_err();
        stored[40] ^= 1;
        seal.open(&name, &stored, 100_000).unwrap_err();
        assert_ne!(name, Seal::plain().name(&content));
        assert_ne!(name, other.name(&content));
    }

    #[test]
    fn zeroes_are_seen_at_any_place() {
        assert!(is_zero(&[]) && is_zero(&[0; 33]));
        for at in 0..33 {
            let mut bytes = [0; 33];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
    }
}
