//! Secrets: sealed before they come near an event, opened only to be used.

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultFault {
    /// Another key sealed it, it was cut, or its context is not the one it was sealed for.
    #[error("the sealed secret does not open with this key and context")]
    DoesNotOpen,
    /// The key cannot be read.
    #[error("the vault's key cannot be used: {0}")]
    Key(String),
}

/// Envelope encryption.
pub trait Vault: Send + Sync + 'static {
    /// Seals a secret for one context (say `cloud-account/<id>`): a fresh data key encrypts it, the
    /// vault's key encrypts the data key, and the context is authenticated with both.
    fn seal(&self, secret: &[u8], context: &str) -> Result<String, VaultFault>;
    /// Opens what [`Self::seal`] made, in the same context.
    fn open(&self, sealed: &str, context: &str) -> Result<Vec<u8>, VaultFault>;
    /// A keyed digest (HMAC-SHA-256) in hex: compares requests without their secrets being guessed
    /// from the log.
    fn digest(&self, bytes: &[u8]) -> String;
}
