//! Envelope encryption with XChaCha20-Poly1305.
//!
//! A sealed secret is `skyledger-sealed-1:` and base64 of: nonce (24) and sealed data key (48),
//! nonce (24) and sealed secret. The data key is fresh for every secret and sealed with the vault
//! key; layer and context are authenticated with both, so neither part opens in another place.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use commands::ports::{Vault, VaultFault};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::files::random;

const PREFIX: &str = "skyledger-sealed-1:";
const NONCE_BYTES: usize = 24;
/// A data key and its authentication tag.
const SEALED_KEY_BYTES: usize = 32 + 16;

/// The vault of one installation.
pub struct KeyVault {
    sealing: [u8; 32],
    digesting: [u8; 32],
}

impl KeyVault {
    /// From the key in `vault.key`. It is not used itself: sealing and digests have keys of their
    /// own, derived from it by HMAC-SHA-256 under a label.
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            sealing: mac(&key, b"skyledger vault sealing v1"),
            digesting: mac(&key, b"skyledger vault digest v1"),
        }
    }
}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes a key of any size");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn associated(layer: &str, context: &str) -> Vec<u8> {
    format!("{PREFIX}{layer}:{context}").into_bytes()
}

/// Nonce and sealed bytes.
fn seal(key: &[u8; 32], plain: &[u8], layer: &str, context: &str) -> Result<Vec<u8>, VaultFault> {
    let nonce = random::<NONCE_BYTES>().map_err(|error| VaultFault::Key(error.to_string()))?;
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(
            XNonce::from_slice(&nonce),
            Payload { msg: plain, aad: &associated(layer, context) },
        )
        .map_err(|_| VaultFault::Key("the secret is too long".to_owned()))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn open(key: &[u8; 32], sealed: &[u8], layer: &str, context: &str) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    XChaCha20Poly1305::new(key.into())
        .decrypt(
            XNonce::from_slice(nonce),
            Payload { msg: sealed, aad: &associated(layer, context) },
        )
        .ok()
}

impl Vault for KeyVault {
    fn seal(&self, secret: &[u8], context: &str) -> Result<String, VaultFault> {
        let data_key = random::<32>().map_err(|error| VaultFault::Key(error.to_string()))?;
        let mut bytes = seal(&self.sealing, &data_key, "key", context)?;
        bytes.extend(seal(&data_key, secret, "secret", context)?);
        Ok(format!("{PREFIX}{}", BASE64_STANDARD_NO_PAD.encode(bytes)))
    }

    fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, VaultFault> {
        let opened = || {
            let bytes = BASE64_STANDARD_NO_PAD.decode(sealed.strip_prefix(PREFIX)?).ok()?;
            let (key, secret) = bytes.split_at_checked(NONCE_BYTES + SEALED_KEY_BYTES)?;
            let key = open(&self.sealing, key, "key", context)?.try_into().ok()?;
            open(&key, secret, "secret", context)
        };
        opened().ok_or(VaultFault::DoesNotOpen)
    }

    fn digest(&self, bytes: &[u8]) -> String {
        domain::log::hex(&mac(&self.digesting, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_in_its_context_and_unchanged() {
        let vault = KeyVault::new([1; 32]);
        for secret in [b"".as_slice(), b"secret", &[0; 5_000]] {
            let sealed = vault.seal(secret, "cloud-account/1").unwrap();
            assert_eq!(vault.open(&sealed, "cloud-account/1").unwrap(), secret);
            assert!(vault.open(&sealed, "cloud-account/2").is_err());
            assert!(KeyVault::new([2; 32]).open(&sealed, "cloud-account/1").is_err());
            assert_ne!(vault.seal(secret, "cloud-account/1").unwrap(), sealed);
        }
        let sealed = vault.seal(b"secret", "a").unwrap();
        for place in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(vault.open(&changed, "a").is_err(), "character {place}");
            assert!(vault.open(&sealed[..place], "a").is_err(), "cut at {place}");
        }
    }

    #[test]
    fn digests_are_stable_and_keyed() {
        let vault = KeyVault::new([1; 32]);
        assert_eq!(vault.digest(b"x"), KeyVault::new([1; 32]).digest(b"x"));
        assert_ne!(vault.digest(b"x"), KeyVault::new([2; 32]).digest(b"x"));
        assert_ne!(vault.digest(b"x"), vault.digest(b"y"));
        assert_eq!(vault.digest(b"x").len(), 64);
    }
}
