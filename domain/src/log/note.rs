//! A tree head as text that anyone can check: a C2SP checkpoint in a signed note.
//!
//! ```text
//! skyledger.local/0199c0de                          origin: the log's name
//! 3                                                 size: how many records
//! 3UFZsBrUgYTVzXVTmVP5mmPRBJbEfW4C3uJ+3hcwLVg=      root, base64
//!                                                   an empty line
//! — skyledger.local/0199c0de Az3grlgt…              signature: base64(key hash ‖ Ed25519)
//! ```
//!
//! See <https://c2sp.org/tlog-checkpoint> and <https://c2sp.org/signed-note>. Signing and checking
//! themselves come in from outside: this module only says which bytes.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::merkle::Hash;
use crate::kernel::sha256;

/// Type byte of Ed25519 keys and signatures in signed notes.
const ED25519: u8 = 1;
/// Most bytes of a note. Ours have about 300; notes with many witnesses' signatures have more.
const NOTE_BYTES_MAX: usize = 16 << 10;

/// Checks an Ed25519 signature (RFC 8032): public key, message, signature.
pub type Check = fn(&[u8; 32], &[u8], &[u8; 64]) -> bool;

/// Signs tree heads.
pub trait Sign: Send + Sync + 'static {
    /// What others check its signatures with. Its name is the log's origin.
    fn key(&self) -> &VerifierKey;
    /// Ed25519 (RFC 8032) over the message.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A text is not a note, a tree head or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} does not read: {reason}")]
pub struct NoteFault {
    /// Which: `note`, `tree head`, `verifier key`.
    pub what: &'static str,
    /// Why, in a few words.
    pub reason: &'static str,
}

/// A public key with the name it signs under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// Longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 255;

    /// Names a key. A name has no white space and no `+`.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteFault> {
        let fits = (1..=Self::NAME_BYTES_MAX).contains(&name.len())
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
        if fits {
            Ok(Self { name: name.to_owned(), public })
        } else {
            Err(NoteFault {
                what: "verifier key",
                reason: "the name is empty, long or has + or spaces",
            })
        }
    }

    /// The name, which is also the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Ed25519 public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The first four bytes of SHA-256 over name, line feed, type and key: finds the right line.
    pub fn hash(&self) -> [u8; 4] {
        let digest = sha256(&[self.name.as_bytes(), &[b'\n', ED25519], &self.public].concat());
        [digest[0], digest[1], digest[2], digest[3]]
    }
}

/// As in `witness.pub`: `name+hash in hex+base64(type ‖ key)`.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = BASE64_STANDARD.encode([&[ED25519], self.public.as_slice()].concat());
        write!(f, "{}+{}+{key}", self.name, hex(&self.hash()))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteFault;
    fn from_str(text: &str) -> Result<Self, NoteFault> {
        let fault = |reason| NoteFault { what: "verifier key", reason };
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(fault("it is not name+hash+key"));
        };
        let key = BASE64_STANDARD.decode(key).map_err(|_| fault("the key is not base64"))?;
        let Some((&ED25519, public)) = key.split_first() else {
            return Err(fault("the key is not for Ed25519"));
        };
        let public = public.try_into().map_err(|_| fault("the key has not 32 bytes"))?;
        let key = Self::new(name, public)?;
        if hex(&key.hash()) == hash { Ok(key) } else { Err(fault("the hash is another key's")) }
    }
}

/// How many records a log has, and the root over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// The log's name.
    pub origin: String,
    /// How many records: the newest has this position.
    pub size: u64,
    /// The root over their leaves.
    pub root: Hash,
}

impl TreeHead {
    /// The text that is signed: three lines, the last with its line feed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64_STANDARD.encode(self.root))
    }

    /// Reads [`Self::text`]. Lines after the third (extensions) are refused: we write none.
    pub fn parse(text: &str) -> Result<Self, NoteFault> {
        let fault = |reason| NoteFault { what: "tree head", reason };
        let lines: Vec<&str> =
            text.strip_suffix('\n').ok_or(fault("the last line has no end"))?.split('\n').collect();
        let [origin, size, root] = lines.as_slice() else {
            return Err(fault("it has not three lines"));
        };
        let head = Self {
            origin: (*origin).to_owned(),
            size: size.parse().map_err(|_| fault("the size is not a number"))?,
            root: BASE64_STANDARD
                .decode(root)
                .ok()
                .and_then(|root| root.try_into().ok())
                .ok_or(fault("the root is not base64 of 32 bytes"))?,
        };
        // One text for one head: `+1`, `01` and the like are not ours.
        if head.text() == text && !head.origin.is_empty() {
            Ok(head)
        } else {
            Err(fault("it is not in its canonical form"))
        }
    }
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    /// Key hash, then the signature: its length depends on the kind of key.
    bytes: Vec<u8>,
}

/// A tree head with the signatures below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    /// What is signed.
    pub head: TreeHead,
    lines: Vec<Line>,
}

impl SignedHead {
    /// Signs the head of the signer's own log.
    pub fn sign(signer: &dyn Sign, size: u64, root: Hash) -> Self {
        let key = signer.key();
        let head = TreeHead { origin: key.name.clone(), size, root };
        let signature = signer.sign(head.text().as_bytes());
        let bytes = [key.hash().as_slice(), &signature].concat();
        let lines = vec![Line { name: key.name.clone(), bytes }];
        Self { head, lines }
    }

    /// Whether this key signed it.
    pub fn signed_by(&self, key: &VerifierKey, check: Check) -> bool {
        let text = self.head.text();
        self.lines.iter().any(|line| {
            line.name == key.name
                && line.bytes.strip_prefix(&key.hash()).is_some_and(|signature| {
                    signature
                        .try_into()
                        .is_ok_and(|signature| check(&key.public, text.as_bytes(), signature))
                })
        })
    }
}

impl fmt::Display for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head.text())?;
        for line in &self.lines {
            writeln!(f, "— {} {}", line.name, BASE64_STANDARD.encode(&line.bytes))?;
        }
        Ok(())
    }
}

impl FromStr for SignedHead {
    type Err = NoteFault;
    fn from_str(text: &str) -> Result<Self, NoteFault> {
        let fault = |reason| NoteFault { what: "note", reason };
        if text.len() > NOTE_BYTES_MAX {
            return Err(fault("it is too long"));
        }
        let (body, signatures) =
            text.rsplit_once("\n\n").ok_or(fault("no empty line before the signatures"))?;
        let head = TreeHead::parse(&format!("{body}\n"))?;
        let signatures =
            signatures.strip_suffix('\n').ok_or(fault("the last signature has no end"))?;
        let lines = signatures
            .split('\n')
            .map(|line| {
                let (name, bytes) = line.strip_prefix("— ")?.split_once(' ')?;
                let bytes = BASE64_STANDARD.decode(bytes).ok()?;
                (!name.is_empty() && bytes.len() > 4).then(|| Line { name: name.to_owned(), bytes })
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(fault("a signature line is not one"))?;
        Ok(Self { head, lines })
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Reads the 64 lower-case digits that [`hex`] makes of a hash.
pub fn hash_from_hex(text: &str) -> Option<Hash> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect::<Option<Vec<u8>>>()?;
    if rest.is_empty() { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Not Ed25519, but it depends on key and message as a signature does.
    pub(crate) struct FakeSigner(pub(crate) VerifierKey);

    impl FakeSigner {
        pub(crate) fn new(name: &str) -> Self {
            Self(VerifierKey::new(name, sha256(name.as_bytes())).unwrap())
        }
    }

    fn fake(public: &[u8], message: &[u8]) -> [u8; 64] {
        let half = sha256(&[public, message].concat());
        [half, half].concat().try_into().unwrap()
    }

    impl Sign for FakeSigner {
        fn key(&self) -> &VerifierKey {
            &self.0
        }
        fn sign(&self, message: &[u8]) -> [u8; 64] {
            fake(&self.0.public, message)
        }
    }

    pub(crate) fn fake_check(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        fake(public, message) == *signature
    }

    #[test]
    fn the_key_hash_is_that_of_the_example_of_the_signed_note_package() {
        // golang.org/x/mod/sumdb/note prints this key in its documentation.
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!(key.name(), "PeterNeumann");
        assert_eq!(key.to_string(), text);
        assert!(text.replace("c74f", "c74e").parse::<VerifierKey>().is_err());
        assert!("a+b".parse::<VerifierKey>().is_err());
        assert!(VerifierKey::new("with space", [0; 32]).is_err());
    }

    #[test]
    fn a_signed_head_reads_back_and_any_changed_byte_is_noticed() {
        let signer = FakeSigner::new("skyledger.local/a");
        let signed = SignedHead::sign(&signer, 42, [7; 32]);
        let text = signed.to_string();
        assert_eq!(text.parse(), Ok(signed.clone()));
        assert!(signed.signed_by(signer.key(), fake_check));
        assert!(!signed.signed_by(FakeSigner::new("other").key(), fake_check));
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            let noticed = String::from_utf8(bytes)
                .ok()
                .and_then(|text| text.parse::<SignedHead>().ok())
                .is_none_or(|head| !head.signed_by(signer.key(), fake_check));
            assert!(noticed, "byte {place}");
            let cut = text[..text.floor_char_boundary(place)].parse::<SignedHead>();
            assert!(!cut.is_ok_and(|head| head.signed_by(signer.key(), fake_check)), "{place}");
        }
    }

    #[test]
    fn hashes_read_back_from_hex() {
        let hash = sha256(b"x");
        assert_eq!(hash_from_hex(&hex(&hash)), Some(hash));
        assert_eq!(hash_from_hex(&hex(&hash).to_uppercase()), None);
        assert_eq!(hash_from_hex("00"), None);
    }
}
