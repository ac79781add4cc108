//! A vault that keeps nothing secret: what it seals can be read in a failing test.

use crate::ports::{Vault, VaultFault};

/// Seals by writing context and hex side by side. Still refuses another context, and still never
/// holds the secret in clear, so that a test can look for leaks.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestVault;

impl Vault for TestVault {
    fn seal(&self, secret: &[u8], context: &str) -> Result<String, VaultFault> {
        Ok(format!("sealed:{}:{}", hex(context.as_bytes()), hex(secret)))
    }

    fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, VaultFault> {
        let secret = sealed
            .strip_prefix(&format!("sealed:{}:", hex(context.as_bytes())))
            .ok_or(VaultFault::DoesNotOpen)?;
        (0..secret.len())
            .step_by(2)
            .map(|at| secret.get(at..at + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()))
            .collect::<Option<_>>()
            .ok_or(VaultFault::DoesNotOpen)
    }

    fn digest(&self, bytes: &[u8]) -> String {
        hex(&domain::kernel::sha256(bytes))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_in_its_own_context_only() {
        let sealed = TestVault.seal(b"key", "cloud-account/1").unwrap();
        assert!(!sealed.contains("key"));
        assert_eq!(TestVault.open(&sealed, "cloud-account/1").unwrap(), b"key");
        assert!(TestVault.open(&sealed, "cloud-account/2").is_err());
    }
}
