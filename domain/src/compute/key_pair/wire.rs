//! Public keys as OpenSSH writes them: a line of text around the wire format of RFC 4253, 5656 and
//! 8709.
//!
//! Read strictly, so that a server never gets a line that its OpenSSH would read otherwise: one line,
//! no options before the key, every length as it must be, nothing after the end. Whether an ECDSA point
//! lies on its curve is not asked: OpenSSH refuses one that does not, and lets nobody in.

use std::{fmt, str::FromStr};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Refusal, codes, sha256};

/// Longest line, in bytes: the largest RSA key takes some 2,800.
const LINE_BYTES_MAX: usize = 8_192;
/// Longest comment, in characters.
const COMMENT_CHARS_MAX: usize = 255;
/// RSA keys that are let in: 2,048 is the least that is thought safe, 16,384 the most OpenSSH reads.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2_048..=16_384;

/// Which sort of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// ECDSA on one of NIST's curves.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// Which sort of key.
    pub algorithm: Algorithm,
    /// How long it is, in bits.
    pub bits: u32,
    /// SHA-256 of the key as `ssh-keygen -l` shows it: `SHA256:` and 43 characters.
    pub fingerprint: String,
    /// The line: algorithm, key, and the comment if it has one.
    pub line: String,
}

fn no(what: &str) -> Refusal {
    Refusal::new(&codes::INVALID_FIELD, format!("public_key: {what}"))
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl FromStr for PublicKey {
    type Err = Refusal;

    /// Reads a line of a `.pub` file. What it says of a line that it does not read repeats none of it:
    /// it may be the wrong half.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text.contains("PRIVATE KEY") {
            return Err(no("this is the private half; it stays with whoever made it"));
        }
        let line = text.strip_suffix('\n').map_or(text, |line| line.trim_end_matches('\r'));
        if line.len() > LINE_BYTES_MAX || line.chars().any(char::is_control) {
            return Err(no(&format!("is one line of at most {LINE_BYTES_MAX} bytes")));
        }
        let mut words = line.trim().splitn(3, ' ');
        let (name, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let comment = words.next().unwrap_or_default().trim();
        if comment.chars().count() > COMMENT_CHARS_MAX {
            return Err(no(&format!("its comment has at most {COMMENT_CHARS_MAX} characters")));
        }
        let blob = BASE64_STANDARD
            .decode(key)
            .map_err(|_| no("is an algorithm, the key in Base64, and a comment if you like"))?;
        let mut rest = Wire(&blob);
        if rest.text() != Some(name) {
            return Err(no("its algorithm is not the one that the key itself says"));
        }
        let (algorithm, bits) = rest.key(name)?;
        if !rest.0.is_empty() {
            return Err(no("has something after its end"));
        }
        let fingerprint = format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(sha256(&blob)));
        let line = [name, key, comment].join(" ").trim_end().to_owned();
        Ok(Self { algorithm, bits, fingerprint, line })
    }
}

/// What is left to read.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    /// A string: its length in four bytes, and so many.
    fn string(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (string, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        Some(string)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.string()?).ok()
    }

    /// A whole number above zero, in as few bytes as it takes; the first bit is its sign.
    fn number(&mut self) -> Option<&'a [u8]> {
        match self.string()? {
            [0, number @ ..] if number.first().is_some_and(|first| *first >= 0x80) => Some(number),
            number if number.first().is_some_and(|first| (1..0x80).contains(first)) => Some(number),
            _ => None,
        }
    }

    /// What comes after the algorithm's name.
    fn key(&mut self, name: &str) -> Result<(Algorithm, u32), Refusal> {
        match name {
            "ssh-ed25519" => match self.string() {
                Some(point) if point.len() == 32 => Ok((Algorithm::Ed25519, 256)),
                _ => Err(no("an Ed25519 key has 32 bytes")),
            },
            "ssh-rsa" => self.rsa(),
            "ecdsa-sha2-nistp256" => self.ecdsa("nistp256", 256, 65),
            "ecdsa-sha2-nistp384" => self.ecdsa("nistp384", 384, 97),
            "ecdsa-sha2-nistp521" => self.ecdsa("nistp521", 521, 133),
            _ => Err(no("begins with ssh-ed25519, ssh-rsa, or ecdsa-sha2-nistp256, 384 or 521")),
        }
    }

    fn rsa(&mut self) -> Result<(Algorithm, u32), Refusal> {
        let (Some(exponent), Some(modulus)) = (self.number(), self.number()) else {
            return Err(no("an RSA key has an exponent and a modulus"));
        };
        let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        if !odd(exponent) || !odd(modulus) || exponent == [1] {
            return Err(no("this is no RSA key: its numbers are odd, and above 1"));
        }
        let unused = modulus.first().map_or(0, |first| first.leading_zeros());
        let bits = modulus.len() as u32 * 8 - unused;
        if !RSA_BITS.contains(&bits) {
            let (low, high) = (RSA_BITS.start(), RSA_BITS.end());
            return Err(no(&format!("an RSA key has {low} to {high} bits, this has {bits}")));
        }
        Ok((Algorithm::Rsa, bits))
    }

    fn ecdsa(&mut self, curve: &str, bits: u32, bytes: usize) -> Result<(Algorithm, u32), Refusal> {
        let fits = self.text() == Some(curve)
            // Both coordinates, as they are: the only form that OpenSSH writes.
            && self.string().is_some_and(|point| point.len() == bytes && point[0] == 4);
        if fits {
            return Ok((Algorithm::Ecdsa, bits));
        }
        Err(no(&format!("this is no point of the curve {curve}")))
    }
}
