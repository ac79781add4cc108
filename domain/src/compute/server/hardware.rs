//! Which hardware a server's disks and interfaces are for its system: virtio, or what systems have drivers for that
//! were never on such a host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Power, Server, home::Home};
use crate::kernel::{Refusal, codes};

/// How a server's disks are plugged in.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// SATA: nearly every system has a driver. Disks are not added or removed while the server runs.
    Sata,
    /// virtio.
    #[default]
    Virtio,
}

/// Which card a server's interfaces are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// Intel's 82574L, which nearly every system has a driver for.
    E1000e,
    /// virtio.
    #[default]
    Virtio,
}

/// What a server's disks and interfaces are for its system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// How its disks are plugged in.
    #[serde(default)]
    pub disks: DiskBus,
    /// Which card its interfaces are.
    #[serde(default)]
    pub nics: NicModel,
}

impl Hardware {
    /// What nearly every system has drivers for.
    pub const COMMON: Self = Self { disks: DiskBus::Sata, nics: NicModel::E1000e };

    /// Whether all of it is virtio.
    pub fn is_virtio(&self) -> bool {
        *self == Self::default()
    }
}

impl Server {
    /// Its disks can be other ones now.
    ///
    /// # Errors
    /// `wrong-state` while it is on with disks that cannot be plugged in.
    pub(super) fn ensure_pluggable(&self, home: &Home, verb: &str) -> Result<(), Refusal> {
        let is_off =
            self.observation.seen.as_ref().is_some_and(|seen| seen.power == Power::Stopped);
        if home.parts.hardware.disks != DiskBus::Sata || is_off {
            return Ok(());
        }
        let detail = format!(
            "{verb}: its disks are SATA, which nobody plugs in while it is on: stop it first"
        );
        Err(Refusal::new(&codes::WRONG_STATE, detail))
    }
}
