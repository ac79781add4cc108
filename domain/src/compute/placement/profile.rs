//! What a part of a card is: a vGPU's profile, as its driver says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a part of a card is: what its driver says, as far as it does. Nothing of it is asked for; a request names
/// the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceProfile {
    /// The vendor's name of it, for instance `NVIDIA L40S-12Q`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its own memory (frame buffer), in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framebuffer_mib: Option<u32>,
    /// Most of these that one card is parted into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances_max: Option<u32>,
}

impl DeviceProfile {
    /// None where it says nothing.
    pub fn said(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// A vGPU of a server that is a virtual function of its card, as the host reads it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenVgpu {
    /// The PCI address of the function.
    pub address: String,
    /// The number of the type that the function is; 0 while it is none.
    pub vgpu_type: u32,
}
