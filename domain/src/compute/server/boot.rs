//! What a server is started from, and what is tried next when that does not start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Event, Server, home::Home, parts::Parts};
use crate::kernel::{Decider, Refusal, codes};

/// What a server can be started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootDevice {
    /// The disc in its drive.
    Cdrom,
    /// Its first disk.
    Disk,
    /// Its first interface.
    Network,
}

impl Home {
    /// The place of a device in the order in which they are tried, from 1; none when it is not.
    pub fn boot_place(&self, device: BootDevice) -> Option<u32> {
        if self.boot_order.is_empty() {
            return match device {
                BootDevice::Disk => Some(1),
                BootDevice::Cdrom => Some(2),
                BootDevice::Network => None,
            };
        }
        let at = self.boot_order.iter().position(|one| *one == device)?;
        Some(at as u32 + 1)
    }
}

/// Whether a server of these parts can be started from these devices.
pub(super) fn check(field: &str, order: &[BootDevice], parts: &Parts) -> Result<(), Refusal> {
    let no = |detail: &str| Err(Refusal::new(&codes::INVALID_FIELD, format!("{field}: {detail}")));
    if order.is_empty() {
        return no("names at least one of cdrom, disk and network");
    }
    if (1..order.len()).any(|at| order[..at].contains(&order[at])) {
        return no("names each once");
    }
    for device in order {
        match device {
            BootDevice::Cdrom if parts.cdrom.is_none() => return no("cdrom: it has no drive"),
            BootDevice::Disk if parts.disks.is_empty() => return no("disk: it has none"),
            BootDevice::Network if parts.nics.is_empty() => {
                return no("network: it has no interface");
            }
            _ => {}
        }
    }
    Ok(())
}

impl Server {
    pub(super) fn set_boot_order(&self, order: Vec<BootDevice>) -> Result<Vec<Event>, Refusal> {
        let home = self.ours("set-boot-order")?;
        if self.is_deleted() {
            return Err(Refusal::wrong_state("set-boot-order", self.status()));
        }
        home.can("set-boot-order", super::Power::Stopped)?;
        check("order", &order, &home.parts)?;
        Ok(if order == home.boot_order { vec![] } else { vec![Event::BootOrderSet { order }] })
    }
}
