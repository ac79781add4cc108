//! Stores of backups, as they are reached over the network.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::compute::{
    backup::Made,
    backup_set::Description,
    backup_store::{Collection, Place},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{DriverFault, ImageStores};

/// Who may use a store, in clear.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreKeys {
    /// The access key's id.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: String,
    /// What everything is sealed with before it is sent: 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key: Option<String>,
}

impl StoreKeys {
    /// What is wrong with them; nothing when they can be used.
    pub fn wrong(&self) -> Option<&'static str> {
        let visible = |text: &str| {
            (1..=256).contains(&text.len())
                && text.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
        };
        let hex = |key: &String| key.len() == 64 && key.bytes().all(|one| one.is_ascii_hexdigit());
        match self {
            Self { access_key_id, .. } if !visible(access_key_id) => {
                Some("credential.access_key_id: has 1 to 256 visible characters")
            }
            Self { secret_access_key, .. } if !visible(secret_access_key) => {
                Some("credential.secret_access_key: has 1 to 256 visible characters")
            }
            Self { encryption_key: Some(key), .. } if !hex(key) => {
                Some("credential.encryption_key: has 64 hexadecimal digits")
            }
            _ => None,
        }
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreKeys").field(&self.access_key_id).finish()
    }
}

/// A store, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAccess {
    /// Where it is.
    pub place: Place,
    /// Who asks.
    pub keys: StoreKeys,
}

/// A backup that lies in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBackup {
    /// Its id.
    pub backup: Uuid,
    /// The disk.
    pub disk: Uuid,
    /// The backup that it was made on.
    pub parent: Option<Uuid>,
    /// When it was ordered.
    pub taken_at: DateTime<Utc>,
    /// What lies there.
    pub made: Made,
}

/// What stores of backups do. Every call can be made again.
#[async_trait]
pub trait BackupStores: ImageStores {
    /// Whether it can be used: something is put, listed, read and removed.
    async fn verify(&self, store: &StoreAccess) -> Result<(), DriverFault>;
    /// The disk and id of every backup that lies there.
    async fn list(&self, store: &StoreAccess) -> Result<Vec<(Uuid, Uuid)>, DriverFault>;
    /// A backup of a disk that lies there.
    async fn find(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
    ) -> Result<StoredBackup, DriverFault>;
    /// Reads all of a backup; what is damaged, or nothing.
    async fn check(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
        digest: &str,
    ) -> Result<Option<String>, DriverFault>;
    /// Removes a backup; its chunks go when the store is collected.
    async fn forget(
        &self,
        store: &StoreAccess,
        disk: Uuid,
        backup: Uuid,
    ) -> Result<(), DriverFault>;
    /// Puts there what a set consists of, and what its server was.
    async fn describe(&self, store: &StoreAccess, set: &Description) -> Result<(), DriverFault>;
    /// The sets that are described there.
    async fn sets(&self, store: &StoreAccess) -> Result<Vec<Uuid>, DriverFault>;
    /// What a set that is described there consists of.
    async fn description(&self, store: &StoreAccess, set: Uuid)
    -> Result<Description, DriverFault>;
    /// Removes the description of a set; its backups go by themselves.
    async fn forget_set(&self, store: &StoreAccess, set: Uuid) -> Result<(), DriverFault>;
    /// Removes what no backup needs.
    async fn collect(&self, store: &StoreAccess) -> Result<Collection, DriverFault>;
}
