//! Keys and what is done with them: secrets sealed, tree heads signed, and a witness kept outside
//! the store.
//!
//! - [`Keys`]: the files of one installation's key folder.
//! - [`KeyVault`]: envelope encryption and keyed digests, the [`commands::ports::Vault`].
//! - [`HeadSigner`], [`verify_signature`]: Ed25519 over tree heads.
//! - [`WitnessFile`]: the published heads; [`Witness`] publishes them and compares them with the
//!   store.
#![warn(missing_docs)]

mod files;
mod keys;
mod publish;
mod signer;
mod vault;
mod witness;

pub use files::KeyFault;
pub use keys::Keys;
pub use publish::{Witness, WitnessFault};
pub use signer::{HeadSigner, read_verifier_key, verify_signature};
pub use vault::KeyVault;
pub use witness::{WitnessFile, WitnessFileFault, read_witness};
