//! What is seen of block storage in a cloud.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{kernel::Facets, observation::Resource};

/// Whether a disk is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// Attached to no server.
    Available,
    /// Attached.
    Attached,
    /// Being made or removed.
    Changing,
    /// The provider says that it is broken.
    Failed,
}

/// Block storage of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Disk")]
pub struct SeenDisk {
    /// Its name tag; empty when it has none.
    #[serde(default)]
    pub name: String,
    /// Size in GiB.
    pub size_gib: u64,
    /// The provider's name of its medium, for instance `gp3`.
    pub medium: String,
    /// Whether it is in use.
    pub state: DiskState,
    /// The server it is attached to, by external id.
    #[serde(default)]
    pub server: Option<String>,
    /// The zone it lies in.
    #[serde(default)]
    pub zone: Option<String>,
    /// Whether the provider encrypts it.
    #[serde(default)]
    pub encrypted: bool,
    /// The provider's tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl Resource for SeenDisk {
    const KIND: &'static str = "disk";
    const PLURAL: &'static str = "disks";
    const SUMMARY: &'static str = "Block storage of a server, in a cloud or on a host of ours.";
    fn status(&self) -> &'static str {
        match self.state {
            DiskState::Available => "available",
            DiskState::Attached => "attached",
            DiskState::Changing => "changing",
            DiskState::Failed => "failed",
        }
    }
    fn facets(&self, facets: &mut Facets) {
        facets.name = Some(self.name.clone());
        facets.zone.clone_from(&self.zone);
        facets.parent.clone_from(&self.server);
        facets.tags.clone_from(&self.tags);
    }
}
