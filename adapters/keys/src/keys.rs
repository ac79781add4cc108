//! The key folder of one installation: `vault.key`, `signing.key` and `witness.pub`.
//!
//! Back it up apart from the store: without `vault.key` no sealed secret opens again, and who has
//! `signing.key` together with the witness file can sign another past.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use uuid::Uuid;

use super::{
    files::{KeyFault, create, random, read_secret},
    signer::HeadSigner,
    vault::KeyVault,
};

/// Everything that is derived from the key folder.
pub struct Keys {
    /// Seals and opens secrets.
    pub vault: KeyVault,
    /// Signs tree heads.
    pub signer: HeadSigner,
}

impl Keys {
    /// Opens the key folder; makes what is missing, when nothing is there at all. A folder that has
    /// one key and not the other is refused: a new key in the place of a lost one would hide the
    /// loss.
    pub fn open_or_create(folder: &Path) -> Result<Self, KeyFault> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(KeyFault::io(folder))?;
        let (vault_path, signing_path) = (folder.join("vault.key"), folder.join("signing.key"));
        // The signing key is made last, so that its presence says the folder is complete. A crash
        // between the two leaves a vault key that has sealed nothing yet.
        let signing = read_secret(&signing_path)?;
        let vault = read_secret(&vault_path)?;
        if signing.is_some() && vault.is_none() {
            return Err(KeyFault::content(&vault_path, "it is missing beside the signing key"));
        }
        let vault = match vault {
            Some(text) => text,
            None => made(
                &vault_path,
                format!("{}\n", BASE64_STANDARD.encode(random::<32>().map_err(KeyFault::Random)?)),
            )?,
        };
        let signing = if let Some(text) = signing {
            text
        } else {
            let secret = BASE64_STANDARD.encode(random::<32>().map_err(KeyFault::Random)?);
            made(&signing_path, format!("skyledger.local/{}\n{secret}\n", Uuid::now_v7()))?
        };
        let vault = secret(&vault).ok_or(KeyFault::content(&vault_path, "not a key"))?;
        let signer = std::str::from_utf8(&signing)
            .ok()
            .and_then(|text| text.split_once('\n'))
            .and_then(|(origin, key)| HeadSigner::new(origin, &secret(key.as_bytes())?))
            .ok_or(KeyFault::content(&signing_path, "not a name and a key"))?;
        publish(&folder.join("witness.pub"), &signer)?;
        Ok(Self { vault: KeyVault::new(vault), signer })
    }
}

/// Creates a key file and reads it back: if another process was first, its key is the one.
fn made(path: &Path, text: String) -> Result<Vec<u8>, KeyFault> {
    match create(path, text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(KeyFault::io(path)(error))
        }
        _ => read_secret(path)?.ok_or(KeyFault::content(path, "it vanished")),
    }
}

fn secret(text: &[u8]) -> Option<[u8; 32]> {
    BASE64_STANDARD.decode(text.trim_ascii()).ok()?.try_into().ok()
}

/// The public key as a file of its own, for auditors. One that is another key's is never
/// overwritten: somebody checks with it.
fn publish(path: &Path, signer: &HeadSigner) -> Result<(), KeyFault> {
    use domain::log::Sign;
    let text = format!("{}\n", signer.key());
    match fs::read_to_string(path) {
        Ok(there) if there == text => Ok(()),
        Ok(_) => Err(KeyFault::content(path, "it is not the public half of signing.key")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match create(path, text.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(KeyFault::io(path)(error))
                }
                _ => Ok(()),
            }
        }
        Err(error) => Err(KeyFault::io(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use commands::ports::Vault;
    use domain::log::{Sign, SignedHead};

    use super::*;
    use crate::{read_verifier_key, verify_signature};

    #[test]
    fn keys_are_made_once_and_are_the_same_ever_after() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let first = Keys::open_or_create(&folder).unwrap();
        let sealed = first.vault.seal(b"secret", "a").unwrap();
        let again = Keys::open_or_create(&folder).unwrap();
        assert_eq!(again.signer.key(), first.signer.key());
        assert_eq!(again.vault.open(&sealed, "a").unwrap(), b"secret");
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        files.sort();
        let wanted = ["signing.key", "vault.key", "witness.pub"];
        assert_eq!(files, wanted.map(|name| (name.to_owned(), 0o600)));

        let signed = SignedHead::sign(&again.signer, 7, [1; 32]);
        let key = read_verifier_key(&folder.join("witness.pub")).unwrap();
        assert!(signed.signed_by(&key, verify_signature));
        let other = signed.to_string().replace("\n7\n", "\n8\n").parse::<SignedHead>().unwrap();
        assert!(!other.signed_by(&key, verify_signature));
    }

    #[test]
    fn two_that_open_a_new_folder_at_once_have_the_same_keys() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Keys::open_or_create(folder.path()).unwrap().signer.key().to_string();
        let names: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    }

    #[test]
    fn a_key_that_is_lost_cut_or_open_to_others_is_refused_and_not_made_anew() {
        let make = || {
            let folder = tempfile::tempdir().unwrap();
            Keys::open_or_create(folder.path()).unwrap();
            folder
        };
        let refused = |folder: &tempfile::TempDir| Keys::open_or_create(folder.path()).is_err();
        let lost = make();
        fs::remove_file(lost.path().join("vault.key")).unwrap();
        assert!(refused(&lost));
        let cut = make();
        fs::write(cut.path().join("signing.key"), "skyledger.local/a\nAAAA").unwrap();
        assert!(refused(&cut));
        let open = make();
        let path = open.path().join("vault.key");
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refused(&open));
        let replaced = make();
        fs::remove_file(replaced.path().join("signing.key")).unwrap();
        assert!(refused(&replaced), "witness.pub is still the old key's");
    }
}
