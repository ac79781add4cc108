//! What is ordered of a server.
//!
//! A server of a cloud and one of our own have a few orders in common; the rest only a host of ours
//! can carry out. [`CloudOrder::read`] says which is which, once for every provider.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{addresses::Found, migrate::Landing, parts::Image, rescue::RescueSystem};
use crate::compute::placement::{DeviceAsk, Placement};

/// What a server can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum Order {
    /// Let it have this interface.
    AddNic {
        /// Which.
        nic: Uuid,
    },
    /// Have it as ours: it is there, and stays as it is.
    Adopt {
        /// Names the definition that was looked at.
        digest: String,
    },
    /// Be there: it was sent here, or its host is dead.
    Arrive {
        /// Whether it runs afterwards.
        start: bool,
        /// Whether it is known not to run elsewhere. Where it is not, it is only looked for.
        certain: bool,
    },
    /// Break off its being handed over, if that is not done by now.
    BreakOff {},
    /// Let the guest have other addresses, or have what it had where it cannot.
    ChangeAddresses {
        /// Of which interface.
        nic: Uuid,
        /// Which.
        found: Found,
    },
    /// Put a disc into its drive, or leave it empty.
    ChangeCdrom {
        /// The disc.
        #[serde(default)]
        image: Option<Box<Image>>,
    },
    /// Take back what was made for it of devices that it is not to have any more; it is stopped.
    ChangeDevices {
        /// All that is asked for from then on.
        devices: Vec<DeviceAsk>,
        /// What it takes of its host from then on.
        placement: Box<Placement>,
    },
    /// Make its interfaces limited and guarded as they are to be.
    ChangeNics {},
    /// Make it, on the host where it has its place, and start it.
    Launch {},
    /// End its rescue: from now on it is started from what its disks have.
    LeaveRescue {
        /// Whether it runs afterwards.
        start: bool,
    },
    /// Restart it.
    Reboot {},
    /// Make its root disk from an image again, stopping it first where it runs.
    Rebuild {
        /// From which.
        image: Box<Image>,
        /// Whether it runs afterwards.
        start: bool,
    },
    /// Make ready for it: it comes from another host.
    Receive {},
    /// Have it as ours no more: it stays as it is.
    Release {},
    /// Leave nothing of it on its host.
    Remove {},
    /// Take this interface from it.
    RemoveNic {
        /// Which.
        nic: Uuid,
    },
    /// Start it from a small system in memory, to be repaired.
    Rescue {
        /// Which.
        system: RescueSystem,
        /// The password of its user `root`, sealed.
        password: String,
    },
    /// Give it another size; it is stopped.
    Resize {
        /// Virtual CPUs.
        vcpus: u32,
        /// Memory.
        memory_mib: u64,
        /// The flavour that says so; none when none does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flavour: Option<Uuid>,
        /// What it takes of its host from then on.
        placement: Box<Placement>,
    },
    /// Let the guest have what it had, in place of other addresses.
    RestoreAddresses {
        /// Of which interface.
        nic: Uuid,
        /// What it was to have.
        found: Found,
    },
    /// Let it go on.
    Resume {},
    /// Hand it over to the host that it goes to.
    Send {
        /// Where it lies and is reached there.
        landing: Box<Landing>,
    },
    /// Set a password of somebody inside it, through its guest agent.
    SetPassword {
        /// Whose.
        user: String,
        /// The password, sealed.
        password: String,
    },
    /// Make its tags these; tags that are not named stay, and null removes one.
    SetTags {
        /// Name and value.
        tags: BTreeMap<String, Option<String>>,
    },
    /// Let the host that it goes to have its volumes as well.
    Share {},
    /// Make it run.
    Start {},
    /// Make it stop.
    Stop {},
    /// Make it stand still, with everything of it in its host's memory.
    Suspend {},
    /// Let it go on: the host that it was to go to has nothing of it.
    TakeBack {},
}

/// What can be ordered of a server in a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudOrder {
    /// Restart it.
    Reboot,
    /// Make its tags these; tags that are not named stay, and null removes one.
    SetTags {
        /// Name and value.
        tags: BTreeMap<String, Option<String>>,
    },
    /// Make it run.
    Start,
    /// Make it stop.
    Stop,
}

impl CloudOrder {
    /// Reads an order as the log has it. The error says what is wrong with it: it does not read, or it
    /// is one that only a host of ours can carry out.
    pub fn read(order: &Value) -> Result<Self, String> {
        match Order::deserialize(order)
            .map_err(|error| format!("the order does not read: {error}"))?
        {
            Order::Reboot {} => Ok(Self::Reboot),
            Order::SetTags { tags } => Ok(Self::SetTags { tags }),
            Order::Start {} => Ok(Self::Start),
            Order::Stop {} => Ok(Self::Stop),
            _ => Err("it is an order of a server on a host of ours".to_owned()),
        }
    }
}
