//! Ed25519 (RFC 8032) over tree heads.

use std::{fs, path::Path};

use domain::log::{Sign, VerifierKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::files::KeyFault;

/// Signs the heads of one log.
pub struct HeadSigner {
    secret: SigningKey,
    key: VerifierKey,
}

impl HeadSigner {
    /// None when the name cannot be a log's origin.
    pub fn new(origin: &str, secret: &[u8; 32]) -> Option<Self> {
        let secret = SigningKey::from_bytes(secret);
        let key = VerifierKey::new(origin, secret.verifying_key().to_bytes()).ok()?;
        Some(Self { secret, key })
    }
}

impl Sign for HeadSigner {
    fn key(&self) -> &VerifierKey {
        &self.key
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }
}

/// The [`domain::log::Check`] for Ed25519: strict, so that weak keys sign nothing.
pub fn verify_signature(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// Reads `witness.pub`.
pub fn read_verifier_key(path: &Path) -> Result<VerifierKey, KeyFault> {
    fs::read_to_string(path)
        .map_err(KeyFault::io(path))?
        .parse()
        .map_err(|_| KeyFault::content(path, "not a verifier key"))
}

#[cfg(test)]
mod tests {
    use domain::log::hex;

    use super::*;

    #[test]
    fn signatures_are_those_of_the_first_test_vector_of_rfc_8032() {
        let secret = domain::log::hash_from_hex(
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        )
        .unwrap();
        let signer = HeadSigner::new("skyledger.local/a", &secret).unwrap();
        assert_eq!(
            hex(signer.key().public()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        let signature = signer.sign(b"");
        assert!(hex(&signature).starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974"));
        assert!(verify_signature(signer.key().public(), b"", &signature));
        assert!(!verify_signature(signer.key().public(), b"x", &signature));
        assert!(!verify_signature(&[0; 32], b"", &[0; 64]));
    }
}
